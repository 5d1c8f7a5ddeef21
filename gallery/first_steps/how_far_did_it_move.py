"""
How far did it move?
====================

Two pictures of the same thing, taken a moment apart, differ by a shift. We want that
shift to a fraction of a pixel, how well it is known, and whether to believe it at
all. You will see the peak that gives it away, an error bar that keeps its word, and
pictures for which there is no answer.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from skimage import data

import spectral_tools as spt

# %%
# A pair with a known answer
# --------------------------
# We cut two pictures out of a real one, stained tissue in green light, and add
# noise. To come from the moving picture to the reference, add 12.4 rows and take
# 27.7 columns off. Points and shifts are always (row, col).

tissue = data.immunohistochemistry()[..., 1]
truth = (12.4, -27.7)
pair = spt.simulate_pair(tissue, (240, 300), truth, noise_sigma=10, rng=1)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
point = np.array((62, 256))
for ax, image, place, title in (
    (axes[0], pair.reference, point, "Reference"),
    (axes[1], pair.moving, point - truth, "Moving: the same place is elsewhere"),
):
    ax.imshow(image, cmap="gray")
    ax.plot(*place[::-1], "o", ms=22, mfc="none", mec="tab:orange", mew=2)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# Compare them at every shift
# ---------------------------
# Each point of these maps is one shift: bright where the pictures agree there. As
# they come, pictures agree a little nearly everywhere, because the coarse parts
# dominate; the map is a blur. Whitened, fine detail counts as well, and one point
# remains.

reach = 60
plain, white = (
    spt.correlation_surface(
        pair.reference, pair.moving, whitening=whitening, max_shift=reach
    )
    for whitening in (0, None)
)


def show(ax, surface, title):
    edge = (surface.shape[0] - 1) / 2 + 0.5
    ax.imshow(surface, cmap="magma", extent=(-edge, edge, edge, -edge))
    ax.set(title=title, xlabel="col shift", ylabel="row shift")


fig, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
show(axes[0], plain, "As they come")
show(axes[1], white, "Whitened")
for ax in axes:
    ax.plot(truth[1], truth[0], "o", ms=18, mfc="none", mec="white", mew=1.5)
plt.show()
# sphinx_gallery_thumbnail_number = 2

# %%
# The peak tells the whole pixel
# ------------------------------
# The middle of a map is shift zero. Five rows beside its peak the plain map keeps
# more than half of its height, the whitened one nothing: it tells one shift from the
# next.

for name, surface in (("as they come", plain), ("whitened    ", white)):
    peak = spt.find_peaks(surface, count=1)
    row, col = peak.indices[0]
    beside = surface[row + 5, col] / peak.heights[0]
    print(name, "shift", (int(row) - reach, int(col) - reach), end=", ")
    print(f"{round(100 * beside)} % of the height left 5 rows beside it")

# %%
# The fraction, and its error bar
# -------------------------------
# One call does it all: search, fraction and error bar. The chance of a false alarm
# says whether to believe it.

found = spt.phase_correlate(pair.reference, pair.moving)
print("true shift ", np.array(truth))
print("found shift", found.shift.round(3))
print("error bar  ", np.sqrt(np.diag(found.covariance)).round(3))
print("false alarm", f"{found.false_alarm:.0e}", "-", found.outcome)

# %%
# Does the error bar keep its word?
# ---------------------------------
# We take sixty pairs of small pictures, with fresh noise each. Every pair comes with
# a covariance, which it worked out without knowing the truth. Beside its mean we
# put the errors that were really made.

rng = np.random.default_rng(5)
small = spt.simulate_pair(tissue[200:340, 300:440], (96, 96), (3.4, -7.7))
repeats = [
    spt.phase_correlate(
        small.reference + rng.normal(0, 20, small.reference.shape),
        small.moving + rng.normal(0, 20, small.moving.shape),
        max_shift=20,
    )
    for _ in range(60)
]
errors = np.array([each.shift for each in repeats]) - small.shift
told = np.mean([each.covariance for each in repeats], axis=0)
seen = errors.T @ errors / len(errors)
print("told, row and col:", np.sqrt(np.diag(told)).round(3))
print("seen, row and col:", np.sqrt(np.diag(seen)).round(3))

# %%
# Told and seen in one picture
# ----------------------------
# If the covariance is honest, two thirds of the errors lie within the inner ellipse
# (1.5 standard deviations), and 95 % within the outer one (2.45).

lengths = np.sqrt(
    [
        error @ np.linalg.solve(each.covariance, error)
        for error, each in zip(errors, repeats, strict=True)
    ]
)
print(
    "within the ellipses:",
    (lengths < 1.5).mean().round(2),
    (lengths < 2.45).mean().round(2),
)

variance, directions = np.linalg.eigh(told[::-1, ::-1])
angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
fig, ax = plt.subplots(figsize=(4.8, 4.8), layout="constrained")
for sigmas, shade in ((2.45, "#d5e5f2"), (1.5, "#a6c8e4")):
    across, along = 2 * sigmas * np.sqrt(variance)
    ax.add_patch(Ellipse((0, 0), along, across, angle=angle, color=shade))
ax.plot(errors[:, 1], errors[:, 0], "o", ms=5, color="tab:orange", mec="white", mew=0.5)
ax.plot(0, 0, "k+", ms=10)
ax.set(title="60 errors, and the ellipses told before", aspect="equal")
ax.set(xlabel="col error (px)", ylabel="row error (px)")
ax.invert_yaxis()
plt.show()

# %%
# Unrelated pictures
# ------------------
# Some shift is always the best. Between pictures of different places it is no
# better than chance explains: the false alarm is near one, and the outcome says so.

corners = tissue[:200, :200], tissue[300:500, 300:500]
chance = spt.phase_correlate(*corners)
print("false alarm", round(chance.false_alarm, 2), "-", chance.outcome)

# %%
# Where it fails
# --------------
# A lattice looks the same after each period. Many peaks are equally good, and
# nothing in the pictures tells which of them is true (the circle). The answer is
# marked as one not to be trusted. A search near the right place returns that place, on
# the word of whoever chose it: the pictures alone still cannot vouch for it.

rows, cols = np.mgrid[:220, :220] * 2 * np.pi / 16
lattice = spt.simulate_pair(
    np.cos(rows) * np.cos(cols), (160, 160), (20.3, -9.6), noise_sigma=0.5, rng=2
)
images = lattice.reference, lattice.moving
anywhere = spt.phase_correlate(*images)
nearby = spt.phase_correlate(*images, guess=(20, -10), max_shift=6)
print("true shift      ", lattice.shift)
print("search anywhere ", anywhere.shift.round(2), "-", anywhere.outcome)
print("search nearby   ", nearby.shift.round(2), "-", nearby.outcome)

surface = spt.correlation_surface(*images, whitening=0, max_shift=40)
fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
axes[0].imshow(lattice.reference, cmap="gray")
axes[0].set(title="A lattice in noise", xlabel="col", ylabel="row")
show(axes[1], surface, "Which one is it?")
axes[1].plot(*lattice.shift[::-1], "o", ms=22, mfc="none", mec="white", mew=2)
plt.show()

# %%
# What this page promised
# -----------------------

best = np.unravel_index(white.argmax(), white.shape) - np.array(reach)
assert np.abs(best - truth).max() < 1
assert np.abs(found.shift - truth).max() < 0.03
assert found.outcome == spt.Outcome.MATCHED
assert 0.7 < np.mean(lengths**2) / 2 < 1.4
assert chance.outcome == spt.Outcome.NOT_FOUND
assert anywhere.outcome != spt.Outcome.MATCHED
assert np.abs(nearby.shift - lattice.shift).max() < 0.1

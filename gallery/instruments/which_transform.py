"""
Which transform?
================

Two pictures of one surface, taken by different means, and ten points that we clicked
in both. A shift, a turn, a stretch, a tilt: each further freedom brings the points nearer
to each other. Which of them is in the pictures, and which only follows our unsteady
hand? You will see that what remains between the points cannot tell, and that leaving
out one point at a time can.
"""

import matplotlib.pyplot as plt
import numpy as np

import spectral_tools as spt

# %%
# Two pictures with a known truth
# -------------------------------
# The second picture is dark where the first is bright, and its scanner drifted: it is
# turned by 12 degrees, and stretched and sheared by some percent. An affine matrix says
# all of that. Ten points were clicked in both, to about two pixels.

rng = np.random.default_rng(4)
side = 256
centre = np.full(2, (side - 1) / 2)
drift = np.array([[1.08, 0.1, 0], [0, 0.95, 0], [0, 0, 1]])
truth = (
    spt.translation(centre) @ spt.translation((6, -9)) @ spt.rotation(np.deg2rad(12))
)
truth = truth @ drift @ spt.translation(-centre)

surface = spt.gaussian_texture((400, 400), cutoff=0.06, rng=rng)
reference = surface[72:328, 72:328] + 0.2 * rng.normal(size=(side, side))
way = np.linalg.inv(truth) @ spt.translation((-72, -72))
moving = spt.warp_image(surface, way, shape=(side, side), order=3)
moving = 0.4 * rng.normal(size=(side, side)) - np.tanh(moving)

board = np.array([(r, c) for r in (0, 1, 2) for c in (0, 1, 2, 3)])
board = rng.permutation(board)[:10] + rng.uniform(0.2, 0.8, (10, 2))
moving_points = 30 + board * (196 / 3, 196 / 4)
clicks = 2 * rng.normal(size=moving_points.shape)
reference_points = spt.apply_transform(truth, moving_points) + clicks

fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, image, points, title in zip(
    axes,
    (reference, moving),
    (reference_points, moving_points),
    ("Reference", "Moving"),
    strict=True,
):
    ax.imshow(image, cmap="gray")
    ax.plot(points[:, 1], points[:, 0], "o", ms=13, mfc="white", mec="tab:red")
    for number, (row, col) in enumerate(points):
        ax.text(col, row, number, ha="center", va="center_baseline", size=8)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# What remains, and what was foretold
# -----------------------------------
# `rms` is how far the points are apart after the fit: it can only fall. `leave one out`
# is how far each point is from where a fit to the other nine expects it. The
# stars mark errors that are the smallest, up to chance.

models = "translation", "rigid", "similarity", "affine", "projective", "polynomial"
table = spt.compare_transforms(reference_points, moving_points, models=models)
print(table)

# %%
# Simulated pictures have a truth to compare with: how far each transform is from it, all
# over the picture. The points that are left out foretell that; what remains
# of the fitted ones does not.

grid = np.stack(np.mgrid[0:side:5, 0:side:5], axis=-1)


def distance(transform):
    """Return how far a transform is from the truth, at a grid of points."""
    away = spt.apply_transform(transform, grid) - spt.apply_transform(truth, grid)
    return np.linalg.norm(away, axis=-1)


fits = {
    model: spt.estimate_transform(reference_points, moving_points, model=model)
    for model in models
}
error = np.array([np.sqrt((distance(fit) ** 2).mean()) for fit in fits.values()])

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(models, table.rms, "o--", color="0.6", label="remains (rms)")
ax.semilogy(models, table.leave_one_out, "s-", label="leave-one-out error")
ax.semilogy(models, error, "k^:", label="error in truth")
tied = np.flatnonzero(table.tied)
ax.semilogy(
    tied, table.leave_one_out[tied], "*", ms=16, color="gold", mec="k", zorder=3
)
ax.set(title="More freedom always brings the points nearer", ylabel="pixels")
ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
ax.minorticks_off()
ax.legend()
plt.show()
# sphinx_gallery_thumbnail_number = 2

# %%
# The simplest of the best
# ------------------------
# Few points make the error itself uncertain, so a softer model may win by luck: here
# the projective one is a little ahead, and much further from the truth. Among those
# with a star we prefer the one that has to find the fewest numbers.

chosen = table.models[np.flatnonzero(table.tied)[0]]
print("true   affine")
print("chosen", chosen)

# %%
# Four points prove nothing
# -------------------------
# A projective transform through four points leaves nothing between them, whatever they
# are worth. Leaving one out unmasks it: three points do not determine it, and its
# error is infinite. The left map is how wrong it is, through the four outermost points;
# the right one is that of the affine fit to all ten.

corners = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
few = (moving_points @ corners.T).argmin(axis=0)
tested = spt.compare_transforms(reference_points[few], moving_points[few])
print(tested)
perfect = spt.estimate_transform(
    reference_points[few], moving_points[few], model="projective"
)

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for ax, fit, points, title in zip(
    axes,
    (perfect, fits["affine"]),
    (moving_points[few], moving_points),
    ("Projective, 4 points", "Affine, 10 points"),
    strict=True,
):
    extent = (0, side, side, 0)
    shown = ax.imshow(distance(fit), cmap="viridis", vmin=0, vmax=10, extent=extent)
    ax.plot(points[:, 1], points[:, 0], "wo", mec="k")
    ax.set(title=title, xlabel="col", ylabel="row")
fig.colorbar(shown, ax=axes, label="distance from the truth (px)", extend="max")
plt.show()

# %%
# The images have a say as well
# -----------------------------
# Points know nothing of pixels, so pixels are a second judge. These pictures have
# opposite contrast: the best correlation is the most negative one, and the bits that one
# picture tells of the other do not care.

seen = spt.compare_transforms(
    reference_points, moving_points, reference=reference, moving=moving
)
print(seen)

fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, model in zip(axes, ("rigid", "affine"), strict=True):
    warped = spt.warp_image(-moving, fits[model], fill_value=np.nan)
    layers = [
        np.clip((image - np.nanmean(image)) / np.nanstd(image) / 5 + 0.5, 0, 1)
        for image in (reference, warped)
    ]
    ax.imshow(np.nan_to_num(np.stack([layers[0], layers[1], layers[0]], axis=-1)))
    ax.set(title=f"Overlay, {model}: grey where it fits", xlabel="col", ylabel="row")
plt.show()

# %%
# Where it fails
# --------------
# Few points hardly test an affine matrix, and a simpler one may seem as good. We click
# again and again, with more and more points.

counts = (4, 6, 8, 12)
right = []
for count in counts:
    names = []
    for _ in range(15):
        clicked = rng.uniform(20, 236, (count, 2))
        found = spt.apply_transform(truth, clicked) + 2 * rng.normal(size=(count, 2))
        again = spt.compare_transforms(found, clicked, robust=False)
        names.append(again.models[np.flatnonzero(again.tied)[0]])
    right.append(names.count("affine") / len(names))

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(counts, right, "o-")
ax.set(title="How often the affine matrix is chosen", xlabel="points clicked")
ax.set(ylabel="share of 15 trials", ylim=(-0.05, 1.05), xticks=counts)
plt.show()

# %%
# What this page promised
# -----------------------

assert (np.diff(table.rms) < 1e-9).all()
assert chosen == "affine"
assert table.leave_one_out[4] < table.leave_one_out[3]
assert error[4] > 2 * error[3]
assert error.argmin() == 3
assert tested.rms[4] < 1e-6
assert np.isinf(tested.leave_one_out[4])
assert distance(perfect).max() > 2 * distance(fits["affine"]).max()
assert seen.mutual_information[3] > 1.5 * seen.mutual_information[1]
assert seen.correlation[3] < seen.correlation[1] < 0
assert right[0] < 0.5
assert right[-1] >= 0.9

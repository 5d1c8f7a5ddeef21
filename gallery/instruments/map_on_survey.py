"""
A spectrum map on its survey
============================

A survey shows hundreds of atom columns. Then spectra were taken in a narrow strip, and
the image that was recorded with them shows forty columns, larger, and
distorted by drift. Where on the survey was that? A lattice looks the same everywhere, so
no algorithm can know. You will see how an honest match says so, what two corners set by
hand add, how often that is enough, and which spectrum then belongs to which
column.
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import spectral_tools as spt

# %%
# A lattice with an interface
# ---------------------------
# The lattice repeats every 22 rows and 15 columns. Below an interface, where other
# atoms sit, it becomes brighter. The strip has 4.17 pixels for one of the survey, and
# the sample wandered while it was taken.

rng = np.random.default_rng(3)
period = np.array([22, 15])
top, left, height, width = 52, 213, 376, 46
zoom = 1568 / height


def lattice(rows, cols):
    """Return the brightness of atoms at places on the survey."""
    waves = [0.5 + 0.5 * np.cos(2 * np.pi * x / p) for x, p in ((rows, 22), (cols, 15))]
    return (waves[0] * waves[1]) ** 3 * (0.4 + 0.6 * share(rows))


def share(rows):
    """Return how much of the lower material there is."""
    return 1 / (1 + np.exp((250 - rows) / 18))


rows, cols = np.mgrid[0:512, 0:512]
survey = 0.3 * share(rows) + lattice(rows, cols) + 0.15 * rng.normal(size=rows.shape)

# The middle of the first pixel of the strip is a little inside of its corner.
rows, cols = (np.mgrid[0:1568, 0:192] + 0.5) / zoom - 0.5
wander = np.cumsum(rng.normal(size=(1568, 2)), axis=0) / 25
wander -= wander.mean(axis=0)
rows, cols = rows + top + wander[:, :1], cols + left + wander[:, 1:]
strip = 0.3 * share(rows) + lattice(rows, cols) + 0.15 * rng.normal(size=rows.shape)


def outline(corner, **style):
    """Draw the strip on the survey."""
    row, col = np.asarray(corner) - 0.5
    return plt.Rectangle((col, row), width, height, fill=False, **style)


fig, axes = plt.subplots(
    1, 2, figsize=(7, 4.6), layout="constrained", width_ratios=(4, 1)
)
axes[0].imshow(survey, cmap="gray")
axes[0].add_patch(outline((top, left), ec="gold", lw=2))
axes[0].set(title="Survey, and where the strip was", xlabel="col", ylabel="row")
axes[1].imshow(strip, cmap="gray")
axes[1].set(title="Strip", xlabel="col", ylabel="row")
plt.show()

# %%
# Everywhere and nowhere
# ----------------------
# We give the strip the pixels of the survey and correlate them at every place. The best
# one is wrong, and the next ones are as good, to a fraction of a percent.

small = spt.resample(strip, 1 / zoom, 1)
surface = spt.correlation_surface(survey, small.image, whitening=0)
first = (np.array(surface.shape) - 1) // 2
inside = surface[first[0] : first[0] + 137, first[1] : first[1] + 467]
peaks = spt.find_peaks(inside, count=60, distance=6)
print(f"true place  [{top} {left}]")
for place, score in zip(peaks.indices[:5], peaks.heights, strict=False):
    print(f"peak at    {place}  {score / peaks.heights[0]:.3f} of the highest")

# %%
# The interface tells the row, since only there brightness changes. Along it all peaks
# are alike, one lattice period after the other.

fig, axes = plt.subplots(2, 1, figsize=(8, 5.2), layout="constrained")
drawn = axes[0].imshow(inside, cmap="viridis", vmin=0)
axes[0].plot(left, top, "o", ms=14, mec="white", mfc="none", mew=2)
axes[0].set(title="Score at each place; the circle is the truth", xlabel="col")
axes[0].set_ylabel("row")
fig.colorbar(drawn, ax=axes[0], label="z")
best = inside.max(axis=0)
axes[1].plot(best)
axes[1].axvline(left, color="0.5", ls="--")
axes[1].set(title="The best of each column; the line is the truth", xlabel="col")
axes[1].set_ylabel("z")
plt.show()

# %%
# Two corners
# -----------
# Whoever took the strip remembers where it began and where it ended, to about ten pixels.
# The size of the pixels is known, so both corners tell the same place, and we
# take the mean. We look for the best match not further away than half a period.


def hand_place(error):
    """Return the place that two corners tell, each wrong by so much somewhere."""
    angles = rng.uniform(0, 2 * np.pi, 2)
    wrong = error * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    begin, end = np.array([(top, left), (top + height, left + width)]) + wrong
    return (begin + end - (height, width)) / 2


place = hand_place(10)
print(f"true place   [{top} {left}]")
print(f"by hand      {place.round(1)}")
outcomes = []
for reach in (None, 1.5 * period, period / 2):
    match = spt.phase_correlate(
        survey, small.image, guess=place, max_shift=reach, whitening=0.3
    )
    where = "everywhere" if reach is None else f"within {reach}"
    print(f"{where:20} {match.shift.round(1)}  {match.outcome}")
    outcomes.append(match.outcome)

# %%
# The same match is "not found" everywhere, "ambiguous" within more than a period, and
# "matched" within half of one. Only the last is a place, and what makes it
# one is the hand.

fig, ax = plt.subplots(figsize=(6, 3.9), layout="constrained")
ax.imshow(inside, cmap="viridis", vmin=0)
row, col = place - period / 2
ax.add_patch(
    plt.Rectangle((col, row), *period[::-1], fill=False, ec="white", label="searched")
)
ax.plot(*place[::-1], "w+", ms=9, mew=2, label="by hand")
ax.plot(*match.shift[::-1], "x", color="tab:red", ms=9, mew=2, label="found")
ax.plot(left, top, "o", ms=16, mec="gold", mfc="none", mew=2, label="truth")
ax.set(title="Half a period around the hand's place", xlim=(170, 262), ylim=(85, 25))
ax.set(xlabel="col", ylabel="row")
ax.legend(loc="upper right", fontsize=8, framealpha=1, facecolor="0.5")
plt.show()

# %%
# Where it fails
# --------------
# If the hand is wrong by more than half a period, the match finds a neighbour. It is
# as sure then, and nothing in the images can tell. So the share of right periods is
# that of hands that are near enough, and what the match adds is precision: in the right
# period it is off by less than a pixel or two, however wrong the hand was.


def nearest_peak(place, scores):
    """Return the place of the highest score within half a period."""
    low = np.ceil(place - period / 2).astype(int)
    high = np.floor(place + period / 2).astype(int) + 1
    low, high = np.maximum(low, 0), np.maximum(high, 1)
    part = scores[low[0] : high[0], low[1] : high[1]]
    return low + np.unravel_index(part.argmax(), part.shape)


lengths = np.arange(2, 21, 2)
by_hand = np.array([[hand_place(error) for _ in range(300)] for error in lengths])
by_match = np.apply_along_axis(nearest_peak, -1, by_hand, inside)
hand_near, match_near = (
    (np.abs(places - (top, left)) < period / 2).all(axis=-1)
    for places in (by_hand, by_match)
)
misses = np.linalg.norm(by_match - (top, left), axis=-1)[match_near]

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(lengths, hand_near.mean(axis=1), "o-", label="hand within half a period")
ax.plot(
    lengths, match_near.mean(axis=1), "x--", ms=9, label="match in the right period"
)
ax.set(title="The match can only be as right as the hand", ylim=(0, 1.05))
ax.set(xlabel="error of each corner (px)", ylabel="share of 300 trials")
ax.legend(loc="lower left")
plt.show()

# %%
# Which spectrum belongs to which column?
# ---------------------------------------
# The map has 49 by 6 spectra in the same strip. Columns of the upper material have
# a line at 460 eV, those of the lower one at 840 eV.

energy = np.linspace(400, 900, 100)
lines = [np.exp(-(((energy - line) / 12) ** 2) / 2) for line in (460, 840)]
rows, cols = (np.mgrid[0 : 49 * 8, 0 : 6 * 8] + 0.5) * (height / 49 / 8) - 0.5
rows, cols = rows + top, cols + left
atoms = lattice(rows, cols) / (0.4 + 0.6 * share(rows))
parts = np.stack([atoms * (1 - share(rows)), atoms * share(rows)], axis=-1)
amounts = parts.reshape(49, 8, 6, 8, 2).mean(axis=(1, 3))
spectra = 0.5 * (energy / 400) ** -2 + amounts @ lines
spectra = spectra + 0.04 * rng.normal(size=spectra.shape)

# %%
# One matrix leads from pixels of the map to the survey: it enlarges them around
# their corner, and goes to the place that was found. The other way round it
# says which spectrum a column has.

corner = spt.translation((0.5, 0.5))
pixel = np.diag([height / 49, width / 6, 1])
matrix = spt.translation(match.shift) @ np.linalg.inv(corner) @ pixel @ corner

columns = np.array(
    [(22 * row, 15 * col) for row in range(3, 20) for col in (15, 16, 17)]
)
taken = np.rint(spt.apply_transform(matrix, columns, inverse=True)).astype(int)
chosen = [4, 46]
for column, spectrum in zip(columns[chosen], taken[chosen], strict=True):
    print(f"column at {column}: spectrum {spectrum}")

# %%
# The whole map is brought onto the survey with the same matrix. At each pixel a
# background and the two lines are fitted: blue is the upper material, red the lower.

cube = spt.warp_image(
    spectra, matrix, shape=survey.shape, channel_axis=2, fill_value=np.nan
)
model = np.stack([energy**-2, *lines])
background, *amount = np.moveaxis(cube @ np.linalg.pinv(model), -1, 0)

window = {"xlim": (196, 276), "ylim": (435, 45), "xlabel": "col"}
fig, axes = plt.subplots(
    1, 3, figsize=(8, 5), layout="constrained", width_ratios=(1, 1, 2)
)
axes[0].imshow(survey, cmap="gray")
axes[0].add_patch(outline(match.shift, ec="gold", lw=1.5))
for colour, column in zip(("C0", "C3"), columns[chosen], strict=True):
    axes[0].plot(*column[::-1], "o", mec=colour, mfc="none", mew=2, ms=9)
axes[0].set(title="Survey", ylabel="row", **window)
axes[1].imshow(survey, cmap="gray")
axes[1].imshow(amount[1] - amount[0], cmap="coolwarm", vmin=-0.6, vmax=0.6)
axes[1].set(title="Materials", **window)
for colour, spectrum in zip(("C0", "C3"), taken[chosen], strict=True):
    name = f"spectrum {spectrum}"
    axes[2].plot(energy, spectra[tuple(spectrum)], color=colour, label=name)
axes[2].set(title="The spectra of two columns", xlabel="energy (eV)", ylabel="counts")
axes[2].legend()
plt.show()
# sphinx_gallery_thumbnail_number = 3

# %%
# A real interface
# ----------------
# An oxide crystal in an electron microscope, with 49 by 6 spectra (from `SciFiDatasets
# <https://github.com/pycroscopy/SciFiDatasets>`_, MIT): its lattice, its strip and its
# pixels are those that were drawn above. The truth is what the microscope wrote down,
# and hands are wrong by ten pixels again. While it was taken drift stretched the strip by
# some pixels, so that no shift fits all of it: even within half a period the answer is
# "ambiguous". The highest score there is still the nearest column, as often as the hand
# allows; the frame in white is the truth, that in red was found. Then the signal of
# titanium, above a power law that is fitted below its edge, is brought onto the survey:
# in the middle lies a layer with little of it, where manganese (640 eV) and lanthanum
# (832 and 849 eV) are. This part runs where the folder that the environment variable
# ``SPECTRAL_TOOLS_DATA`` names holds the data.

folder = Path(os.environ.get("SPECTRAL_TOOLS_DATA", "no folder"))
path = folder / "multimodal" / "stem_si_survey_haadf_eels" / "stem_si_triplet.npz"
if path.exists():
    with np.load(path) as file:
        crystal, strip, eels = file["survey"].astype(float), file["haadf"], file["eels"]
    small = spt.resample(strip, 1 / zoom, 1).image
    answers = [
        spt.phase_correlate(crystal, small, guess=place, max_shift=reach)
        for reach in (None, 1.5 * period, period / 2)
    ]
    print("everywhere, in three periods, in one:", *(each.outcome for each in answers))

    scores = spt.correlation_surface(crystal, small, whitening=0)
    scores = scores[first[0] : first[0] + 137, first[1] : first[1] + 467]
    seen = nearest_peak(place, scores)
    hands = np.array([hand_place(10) for _ in range(1000)])
    off = np.apply_along_axis(nearest_peak, -1, hands, scores) - (top, left)
    right = (np.abs(off) <= period / 2).all(axis=1)
    allowed = (np.abs(hands - (top, left)) <= period / 2).all(axis=1)
    print(f"true place {top, left}, found {tuple(map(int, seen))}")
    print(
        f"hands in the right period {allowed.mean():.0%}, matches {right.mean():.0%},"
    )
    print("and these are off by", np.abs(off[right]).max(axis=0), "px at most")

    volts = 350 + 0.5 * np.arange(eels.shape[2])
    before, edge = (volts > 400) & (volts < 445), (volts > 453) & (volts < 470)
    slope, height_of = np.polyfit(
        np.log(volts[before]), np.log(eels[..., before]).reshape(-1, before.sum()).T, 1
    )
    fall = np.exp(height_of[:, None] + slope[:, None] * np.log(volts[edge]))
    titanium = (eels[..., edge] - fall.reshape(49, 6, -1)).sum(axis=2)

    matrix = spt.translation(seen) @ np.linalg.inv(corner) @ pixel @ corner
    laid = spt.warp_image(
        titanium, matrix, shape=crystal.shape, order=1, fill_value=np.nan
    )
    fig, axes = plt.subplots(
        1, 3, figsize=(8, 5), layout="constrained", width_ratios=(1, 1, 2)
    )
    axes[0].imshow(crystal, cmap="gray")
    axes[0].add_patch(outline((top, left), ec="white", lw=3))
    axes[0].add_patch(outline(seen, ec="tab:red", lw=1.5))
    axes[0].set(title="Survey", ylabel="row", **window)
    axes[1].imshow(crystal, cmap="gray")
    axes[1].imshow(laid, cmap="magma")
    axes[1].set(title="Titanium", **window)
    for rows, name, colour in (
        (slice(16), "top", "C0"),
        (slice(19, 27), "layer", "C3"),
    ):
        mean = eels[rows].mean(axis=(0, 1))
        axes[2].semilogy(volts, mean, color=colour, lw=1, label=name)
    axes[2].axvspan(453, 470, color="gold", alpha=0.3, label="titanium")
    axes[2].set(title="Mean spectra", xlabel="energy (eV)", ylabel="counts")
    axes[2].legend()
    plt.show()
else:
    print("The data are not here.")

# %%
# What this page promised
# -----------------------

truth = np.array([top, left])
apart = peaks.indices[1:10] - peaks.indices[0]
assert np.abs(apart - period * np.rint(apart / period)).max() <= 2
assert peaks.heights[9] > 0.98 * peaks.heights[0]
assert np.abs(match.shift - truth).max() < 1
assert match.outcome == "matched"
assert outcomes[0] != "matched"
assert outcomes[1] == "ambiguous"
assert np.abs(hand_near.mean(axis=1) - match_near.mean(axis=1)).max() < 0.05
assert hand_near[0].all()
assert hand_near[4].mean() < 0.95
assert misses.max() < 2
for column, material in zip(columns[chosen], (0, 1), strict=True):
    both = [part[tuple(column)] for part in amount]
    assert both[material] > both[1 - material] + 0.2
if path.exists():
    assert "matched" not in [each.outcome for each in answers[:2]]
    assert np.abs(off[right]).max() <= 3
    assert abs(right.mean() - allowed.mean()) < 0.05

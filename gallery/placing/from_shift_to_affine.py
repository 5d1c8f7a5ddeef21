"""
From shift to affine
====================

An electron microscope took four large pictures of a section, and its beam
stretched, turned and sheared each of them by a percent or so. We want one picture in
which membranes go on across the seams. You will see what is left over when the tiles
may only move, what remains when each may stretch as well, and how near that comes to
the truth.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import spectral_tools as spt

# %%
# Four distorted tiles with a known truth
# ---------------------------------------
# Membranes run where a smooth random scene crosses zero; fine grain lies over
# everything. Each tile sees the scene through an affine matrix of its own: the place
# that the stage meant, and a random distortion of one percent about its centre.

rng = np.random.default_rng(4)
size, step = 460, 360
coarse = spt.gaussian_texture((900, 900), cutoff=0.06, rng=rng)
grain = spt.gaussian_texture((900, 900), cutoff=0.3, slope=1, rng=rng)
scene = 150 - 90 * np.exp(-((coarse / 0.15) ** 2)) + 12 * grain
smooth = ndimage.spline_filter(scene)

stage = spt.grid_positions((2, 2), (size, size), overlap=1 - step / size) + 40
centre = spt.translation((size / 2, size / 2))
true = np.empty((4, 3, 3))
for matrix, place in zip(true, stage, strict=True):
    distortion = np.eye(3)
    distortion[:2, :2] += rng.normal(0, 0.01, (2, 2))
    matrix[:] = spt.translation(place) @ centre @ distortion @ np.linalg.inv(centre)

# %%
# What the tiles look like
# ------------------------
# A pixel of a tile shows the scene where its matrix sends it. Noise comes on top. A
# lens that bends would move pixels before that; we keep it for the end. Note how the
# right border of tile 0 comes back at the left of tile 1.


def take(matrix, bend=0.0):
    pixels = np.moveaxis(np.indices((size, size), float), 0, -1).reshape(-1, 2)
    away = pixels / (size / 2) - 1
    pixels += bend * away * (away**2).sum(axis=1, keepdims=True)
    places = spt.apply_transform(matrix, pixels)
    picture = ndimage.map_coordinates(smooth, places.T, prefilter=False)
    return (picture + rng.normal(0, 10, picture.shape)).reshape(size, size)


tiles = [take(matrix) for matrix in true]

fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for number, ax in enumerate(axes):
    ax.imshow(tiles[number], cmap="gray")
    ax.set(title=f"Tile {number} of 4", xlabel="col", ylabel="row")
plt.show()

# %%
# One shift for each pair
# -----------------------
# Four pairs of neighbours share a strip of 100 pixels. One shift serves a strip only
# on average: from end to end the two tiles drift apart by several pixels. They agree
# poorly, and other shifts are nearly as good.

links = spt.grid_links((2, 2))
matches = spt.match_tiles(tiles, links, positions=stage, max_shift=25)
for link, score, outcome in zip(
    links, matches.correlation, matches.outcome, strict=True
):
    print("tiles", link, "correlation", score.round(2), "-", outcome)

# %%
# Many shifts for each pair
# -------------------------
# So we lay 33 points along every strip, start each from the shift of the strip, and
# let windows of 64 pixels around it find the rest.

along, across = np.linspace(-180, 180, 11), np.linspace(-24, 24, 3)
upright = np.stack(np.meshgrid(along, across, indexing="ij"), axis=-1).reshape(-1, 2)


def measure(tiles):
    found = []
    for (i, j), at, to in zip(
        links, matches.reference_points, matches.moving_points, strict=True
    ):
        grid = upright if j == i + 1 else upright[:, ::-1]
        found.append(spt.refine_pair(tiles[i], tiles[j], at + grid, to + grid, size=64))
    reference = np.concatenate([local.reference_points for local in found])
    moving = np.concatenate([local.moving_points for local in found])
    return np.repeat(links, len(upright), axis=0), reference, moving


measured = measure(tiles)
pairs, reference, moving = measured
strips = (reference - moving).reshape(4, -1, 2)
for link, spread in zip(links, np.ptp(strips, axis=1), strict=True):
    print("tiles", link, "shifts differ by", spread.round(1), "px along the strip")

# %%
# The best that shifts can do, and affine matrices
# ------------------------------------------------
# Both solutions see the same points. What is left over tells them apart, and needs
# no truth: pixels if tiles may only move, a small part of one if they may stretch.

shifted = spt.solve_rigid(*measured, positions=stage, robust=False)
placed = spt.solve_affine(*measured, positions=stage)
for name, solution in (("shifts only    ", shifted), ("affine matrices", placed)):
    rms, most = solution.residuals.std(), np.abs(solution.residuals).max()
    print(name, "leave", rms.round(2), "px rms,", most.round(2), "px at most")

# %%
# What is left over, point by point
# ---------------------------------
# Shifts leave a pattern: arrows that turn and grow along a strip. Where matrices have
# taken it out, chance is left.


def arrows(ax, solution, title, enlarged):
    for matrix in solution.matrices:
        box = spt.apply_transform(matrix, corners)
        ax.plot(box[:, 1], box[:, 0], color="0.6", lw=1)
    linear, offset = np.split(solution.matrices[pairs[:, 0], :2], [2], axis=2)
    at = (linear @ reference[:, :, None] + offset)[..., 0]
    drawn = ax.quiver(
        *at.T[::-1], *solution.residuals.T[::-1], angles="xy", scale_units="xy",
        scale=1 / enlarged, width=0.004, color="tab:blue",
    )  # fmt: skip
    ax.quiverkey(drawn, 0.75, 0.8, 50 / enlarged, f"{50 / enlarged:g} px")
    ax.set(title=title, xlabel="col", ylabel="row", aspect="equal")
    ax.invert_yaxis()


corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]) * size - 0.5
fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
arrows(axes[0], shifted, "Shifts only: 10 times enlarged", 10)
arrows(axes[1], placed, "Affine matrices: 100 times enlarged", 100)
plt.show()

# %%
# Found and true, one under the other
# -----------------------------------
# Pictures tell how tiles lie to each other, and nothing about a distortion that all of
# them share: the solution takes that with which tiles are undistorted on average.
# So we give the truth the one affine matrix that found and true differ by, on
# average over the tiles. Distortions are in percent, row by row.

common = (placed.matrices @ np.linalg.inv(true)).mean(axis=0)
same = common @ true
for number, pair in enumerate(zip(placed.matrices, same, strict=True)):
    for name, matrix in zip(("found", "true "), pair, strict=True):
        percent = 100 * (matrix[:2, :2] - np.eye(2)).ravel()
        print("tile", number, name, " ".join(f"{value:6.2f}" for value in percent))

# %%
# Render
# ------
# A hard seam hides nothing. Each pixel comes from the tile whose border is farthest
# away.

look = {"blend": "nearest", "dtype": np.uint8, "fill_value": 255}
before = spt.warp_composite(tiles, shifted.matrices, **look)
after = spt.warp_composite(tiles, placed.matrices, **look)

# %%
# Before and after
# ----------------
# With shifts alone, membranes break where two tiles meet, and the break grows towards
# the ends of the seam. With affine matrices they go on.


def show(axes, mosaic, title, colour):
    top, left = mosaic.origin - 0.5
    rows, cols = mosaic.image.shape
    for ax, text in zip(axes, (title, "Magnified"), strict=True):
        extent = (left, left + cols, top + rows, top)
        ax.imshow(mosaic.image, cmap="gray", extent=extent)
        ax.set(title=text, xlabel="col", ylabel="row")
    axes[1].set(xlim=(380, 520), ylim=(200, 60))
    axes[1].spines[:].set(color=colour, lw=2)
    axes[0].indicate_inset((380, 60, 140, 140), edgecolor=colour, lw=2, alpha=1)


fig, axes = plt.subplots(2, 2, figsize=(8, 8.2), layout="constrained")
show(axes[:, 0], before, "Shifts only", "tab:orange")
show(axes[:, 1], after, "Affine matrices", "tab:blue")
plt.show()
# sphinx_gallery_thumbnail_number = 3

# %%
# How far from the truth?
# -----------------------
# Each pixel of a tile has its error, and errors can be rendered like any other picture.
# They are smallest around the middle, where points of four tiles meet, and grow
# towards the outer corners, which no neighbour holds.

pixels = np.moveaxis(np.indices((size, size), float), 0, -1).reshape(-1, 2)
errors = [
    np.linalg.norm(pixels @ more[:2, :2].T + more[:2, 2], axis=1).reshape(size, size)
    for more in placed.matrices - same
]
drawn = spt.warp_composite(
    errors, placed.matrices, scale=0.25, blend="nearest", fill_value=np.nan
)

fig, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
(top, left), (rows, cols) = drawn.origin - 2, 4 * np.array(drawn.image.shape)
extent = (left, left + cols, top + rows, top)
shown = ax.imshow(drawn.image, cmap="viridis", vmin=0, extent=extent)
fig.colorbar(shown, label="error (px)")
ax.set(title="Distance from the truth", xlabel="col", ylabel="row")
plt.show()

# %%
# Where it fails
# --------------
# A matrix is the same all over a tile, and cannot follow a lens that bends. Here the
# same tiles are bent, by 4 rows and 4 columns in their corners. What is left over
# tells it, without the truth.

bent = [take(matrix, bend=2.0) for matrix in true]
followed = spt.solve_affine(*measure(bent), positions=stage)
for name, solution in (("straight", placed), ("bent    ", followed)):
    print(name, "tiles leave", solution.residuals.std().round(2), "px rms,", end=" ")
    print(np.count_nonzero(~solution.inlier), "points dropped")

# %%
# What this page promised
# -----------------------

assert shifted.residuals.std() > 3
assert placed.residuals.std() < 0.25
assert placed.inlier.mean() > 0.98
assert np.allclose(placed.matrices[:, :2, :2].mean(axis=0), np.eye(2), atol=1e-6)
assert np.abs(placed.matrices[:, :2, :2] - same[:, :2, :2]).max() < 0.002
assert np.abs(same[:, :2, :2] - np.eye(2)).max() > 0.01
assert np.nanmean(drawn.image) < 0.4
assert followed.residuals.std() > 2 * placed.residuals.std()

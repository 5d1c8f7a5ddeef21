"""
Stitch a grid of tiles
======================

A microscope took a piece of tissue as twelve overlapping pictures, and its stage
says where each was taken, wrong by several pixels. We want one picture without
seams. You will see the tiles where the stage puts them, then where the pictures
themselves put them, and how far both are from the truth.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, io

import spectral_tools as spt

# %%
# Twelve tiles with a known truth
# -------------------------------
# We cut a grid of 3 by 4 tiles out of a real picture, stained tissue in green
# light. The stage misses by 5 pixels (standard deviation, rows and columns), the
# corners of each tile lose a fifth of the light, and the camera adds noise.

tissue = data.immunohistochemistry()[..., 1]
camera = {"vignetting": 0.2, "noise_sigma": 5}
made = spt.simulate_tiles(
    tissue, (3, 4), (184, 144), overlap=0.25, stage_sigma=5, rng=12, **camera
)
tiles, stage, truth = made.tiles, made.stage, made.positions
print(len(tiles), "tiles of", tiles[0].shape, "pixels")

# %%
# Ask each pair of neighbours
# ---------------------------
# Seventeen pairs of neighbours share a strip. Each tells how far the stage was
# wrong between the two tiles, and how well it knows. Neighbours may be off by
# twice the error of one tile and more, so we search 25 pixels around the stage.

links = spt.grid_links((3, 4))
matches = spt.match_tiles(tiles, links, positions=stage, max_shift=25)
sigma = np.sqrt(np.diagonal(matches.covariance, axis1=1, axis2=2))

print("pairs         ", len(links))
print("correlation   ", matches.correlation.min().round(2), "or better")
print("false alarm   ", f"{matches.false_alarm.max():.0e}", "or less")
print("expected error", sigma.min().round(3), "to", sigma.max().round(3), "px")

# %%
# Let all pairs agree
# -------------------
# Twelve positions have to satisfy seventeen pairs: least squares, each pair with
# the weight that it claims. What is left over at the seams tells how well the
# pairs agree with each other; no truth is needed for that.

placed = spt.solve_rigid(
    matches.links,
    matches.reference_points,
    matches.moving_points,
    covariance=matches.covariance,
    positions=stage,
)
found = placed.matrices[:, :2, 2]
print("left over at the seams (rms)", placed.residuals.std().round(3), "px")

# %%
# Found and true, one under the other
# -----------------------------------
# Pictures tell where tiles are to each other, and nothing about where all of them
# are together. So we take the common offset off before we compare. These are the
# first four tiles, as (row, col):


def centred(positions):
    return positions - positions.mean(axis=0)


for name, positions in (("stage", stage), ("found", found), ("true ", truth)):
    print(name, *centred(positions)[:4].round(2))

# %%
# How well are the positions known?
# ---------------------------------
# The error bars of the pairs give those of the positions: the inverse of the
# normal equations of the least squares. Positions count from the common mean.

i, j = matches.links.T
step = np.eye(len(tiles))[j] - np.eye(len(tiles))[i]
variance = [np.diag(np.linalg.pinv(step.T / weight @ step)) for weight in sigma.T**2]
expected = np.sqrt(variance).T
error = centred(found) - centred(truth)
print("expected, rms", np.sqrt(np.mean(expected**2)).round(4), "px")
print("actual, rms  ", np.sqrt(np.mean(error**2)).round(4), "px")

# %%
# Render
# ------
# Each pixel of the mosaic comes from the tile whose border is farthest away. A
# hard seam hides nothing; the default blend fades from tile to tile.

by_stage = placed.matrices.copy()
by_stage[:, :2, 2] = stage
look = {"blend": "nearest", "dtype": np.uint8, "fill_value": 255}
before = spt.warp_composite(tiles, by_stage, **look)
after = spt.warp_composite(tiles, placed.matrices, **look)

# %%
# Before and after
# ----------------
# Where the stage puts the tiles, cells break at every seam. Where the pictures
# put them, there is nothing left to see, not even magnified. The errors are
# hundredths of a pixel, as their bars say, although each overlap is darkened by one
# tile on one side and by its neighbour on the other.


def show(axes, mosaic, title, colour):
    top, left = mosaic.origin - 0.5
    rows, cols = mosaic.image.shape
    for ax, text in zip(axes, (title, "Magnified"), strict=True):
        extent = (left, left + cols, top + rows, top)
        ax.imshow(mosaic.image, cmap="gray", extent=extent)
        ax.set(title=text, xlabel="col", ylabel="row")
    axes[1].set(xlim=(315, 395), ylim=(225, 145))
    axes[1].spines[:].set(color=colour, lw=2)
    axes[0].indicate_inset((315, 145, 80, 80), edgecolor=colour, lw=2, alpha=1)


fig = plt.figure(figsize=(8, 6.7), layout="constrained")
axes = fig.subplot_mosaic("AABB;CDEE", height_ratios=(2, 1))
show((axes["A"], axes["C"]), before, "Placed by the stage", "tab:red")
show((axes["B"], axes["D"]), after, "Placed by the pictures", "tab:green")

tile = np.arange(len(tiles))
for axis, (name, marker) in enumerate((("row", "o"), ("col", "s"))):
    place = tile + 0.24 * axis - 0.12
    axes["E"].errorbar(place, error[:, axis], expected[:, axis], fmt=marker, label=name)
axes["E"].axhline(0, color="0.7", lw=1, zorder=0)
axes["E"].set(title="Found less true position", xlabel="tile", ylabel="error (px)")
axes["E"].set(xticks=tile, ylim=(-0.05, 0.05))
axes["E"].legend(ncols=2)
plt.show()

# %%
# Where it fails
# --------------
# A search that is too narrow misses what lies outside, and then says that it
# found nothing rather than give the best of the wrong answers. Here we allow for
# 4 pixels only, where the stage was wrong by up to 18 between neighbours.

narrow = spt.match_tiles(tiles, links, positions=stage, max_shift=4)
wrong = np.abs((truth - stage)[j] - (truth - stage)[i]).max(axis=1) > 5
believed = narrow.outcome[wrong] == spt.Outcome.MATCHED
print(wrong.sum(), "pairs lie outside,", believed.sum(), "of them believed")

# %%
# Keep the mosaic
# ---------------
# As a script, this page leaves the mosaic and the figure in the current folder.
# The last lines hold it to what it said.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    io.imsave("stitch_a_grid_mosaic.png", after.image)
    fig.savefig("stitch_a_grid.png", dpi=150)

offset_error = (found[j] - found[i]) - (truth[j] - truth[i])
assert (matches.outcome == spt.Outcome.MATCHED).all()
assert np.abs(offset_error).max() < 0.05
assert np.sqrt(np.mean(error**2)) < 2 * np.sqrt(np.mean(expected**2))
assert np.abs(centred(stage) - centred(truth)).max() > 5
assert believed.mean() < 0.2

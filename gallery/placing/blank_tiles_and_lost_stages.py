"""
Blank tiles and lost stages
===========================

A piece of tissue was taken as 36 overlapping pictures. Some show nothing but glass,
one was lost, and so was the file that tells where each was taken: all that is known is
that they form a grid of six by six. We want every tile in its place, and to know which
of these places rest on pictures and which do not. You will see both, and what
happens if the glass divides the tissue in two.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage import data

import spectral_tools as spt

# %%
# A round piece of tissue with a hole
# -----------------------------------
# We make a slide: stained tissue in green light, cut round, with a hole wider than
# a tile.

glass, edge = 235.0, 60
tissue = data.immunohistochemistry()[..., 1].astype(float)
slide = np.pad(tissue, edge, constant_values=glass)
rows, cols = np.indices(slide.shape) - (slide.shape[0] - 1) / 2
slide[np.hypot(rows, cols) > 250] = glass
slide[np.hypot(rows - 52, cols + 46) < 92] = glass

# %%
# Thirty-six tiles with a known truth
# -----------------------------------
# A tile has 120 by 120 pixels and repeats a fifth of its neighbour. The camera is
# turned against the stage by 0.02 radians, the stage misses by 3 pixels (standard
# deviation, rows and columns), and tile 8 is missing.

rng = np.random.default_rng(2)
shape, size = (6, 6), np.array((120, 120))
index = np.indices(shape).reshape(2, -1).T
step = 0.8 * 120 * spt.rotation(0.02)[:2, :2]
truth = index @ step.T + rng.normal(0, 3, index.shape)
truth += (np.array(slide.shape) - size) / 2 - truth.mean(axis=0)
truth = truth.round().astype(int)


def take(slide):
    tiles = [slide[row : row + 120, col : col + 120] for row, col in truth]
    tiles = [tile + rng.normal(0, 4, size) for tile in tiles]
    tiles[8] = None
    return tiles


tiles = take(slide)
blank = np.array([slide[r : r + 120, c : c + 120].std() == 0 for r, c in truth])
print("blank tiles:", *np.flatnonzero(blank))

# %%
# Where they are
# --------------
# Four corners and the hole show nothing but glass (orange). Tile 8 would have shown
# tissue, but is missing (pink).

fig, ax = plt.subplots(figsize=(6, 5.6), layout="constrained")
ax.imshow(slide, cmap="gray", vmin=0)
for tile, corner in enumerate(truth - 0.5):
    kind = "missing" if tile == 8 else "blank" if blank[tile] else "tissue"
    colour = {"missing": "#CC79A7", "blank": "#E69F00", "tissue": "#0072B2"}[kind]
    width = 1 if kind == "tissue" else 3
    box = Rectangle(corner[::-1], *size[::-1], fill=False, ec=colour, lw=width)
    box.set(zorder=1 + width)
    ax.add_patch(box)
    label = {"color": colour, "weight": "bold", "ha": "center", "va": "center"}
    paper = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 2}
    ax.text(*(corner + 60)[::-1], tile, **label, bbox=paper, zorder=5)
ax.set(title="The slide, and where tiles are", xlabel="col", ylabel="row")
plt.show()

# %%
# Place them
# ----------
# A grid is all we tell; by default neighbours are taken to share a tenth, which is
# wrong. The report counts tiles and links, tells how well the seams fit, and
# names the tiles that no picture holds.

placed = spt.place_tiles(tiles, grid=shape)
print(spt.placement_report(placed))

# %%
# The same as a picture
# ---------------------
# Tiles that no link holds are orange: the corners, the hole, the missing one. Dots are
# links without a match, on glass or to the missing tile. Arrows show what the others
# still ask for, enlarged.

ax = spt.plot.placement(placed, size)
plt.show()

# %%
# What the stage did
# ------------------
# No file told the overlap, or that the camera is turned. The links do: they tell
# what steps the stage made, and how far it strays from them.

guessed = 0.9 * 120 * np.eye(2)
for axis, name in enumerate(("row", "col")):
    print(f"one {name} on, guessed", guessed[axis])
    print("            true   ", step[:, axis].round(1))
    print("            found  ", (placed.stage.matrix @ guessed[axis]).round(1))
print("it strays by, true  3.0 px")
print("              found", placed.stage.sigma.round(1), "px")

# %%
# Found and true
# --------------
# Pictures tell nothing about where all tiles are together, so that we compare without
# the common offset. A tile that links hold is right to hundredths of a pixel. One that
# stands on glass is where the stage would have put it beside its neighbours: wrong by
# about what its error bar says.

found = placed.matrices[:, :2, 2]
held = placed.outcome == spt.Outcome.MATCHED
error = found - truth
error -= error[held].mean(axis=0)
sigma = np.sqrt(np.diagonal(spt.position_covariance(placed), axis1=1, axis2=2))
print("held by links:", held.sum(), "tiles")
print("  error, rms   ", np.sqrt(np.mean(error[held] ** 2)).round(2), "px")
print("by prior only:", (~held).sum(), "tiles")
print("  expected, rms", np.sqrt(np.mean(sigma[~held] ** 2)).round(2), "px")
print("  error, rms   ", np.sqrt(np.mean(error[~held] ** 2)).round(2), "px")

# %%
# Before and after
# ----------------
# Where the guess puts the tiles, the tissue breaks at every seam. Where the links put
# them, no seam is left, and what nobody took (the patch in colour) has its true size.

taken = [tile for tile in range(36) if tiles[tile] is not None]
guess = placed.matrices.copy()
guess[:, :2, 2] = spt.grid_positions(shape, size, overlap=0.1)
look = {"blend": "nearest", "fill_value": np.nan}
fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, matrices, title in (
    (axes[0], guess, "Where the guess puts them"),
    (axes[1], placed.matrices, "Where the links put them"),
):
    mosaic = spt.warp_composite([tiles[k] for k in taken], matrices[taken], **look)
    top, left = mosaic.origin - 0.5
    extent = left, left + mosaic.image.shape[1], top + mosaic.image.shape[0], top
    ax.imshow(mosaic.image, cmap="gray", vmin=0, vmax=255, extent=extent)
    row, col = matrices[:, :2, 2].mean(axis=0) + 60
    ax.set(title=title, xlabel="col", ylabel="row", facecolor="#CC79A7")
    ax.set(xlim=(col - 285, col + 285), ylim=(row + 285, row - 285))
plt.show()
# sphinx_gallery_thumbnail_number = 3

# %%
# Where it fails
# --------------
# Now a strip of glass goes through the tissue, so wide that a whole column of tiles is
# blank. No picture relates what is left of it to what is right: there are two groups.
# More than half of the pairs meet on glass, and a warning says that they were not found.

column = truth[index[:, 1] == 3, 1]
slide[:, column.min() : column.max() + 120] = glass
with warnings.catch_warnings(record=True, action="always") as given:
    halves = spt.place_tiles(take(slide), grid=shape)
print(given[0].category.__name__, "-", given[0].message)
print(spt.placement_report(halves))

ax = spt.plot.placement(halves, size)
plt.show()

# %%
# What holds the two groups together
# ----------------------------------
# The stage alone does. Tiles 12 and 14 are two columns apart, and so are 14 and 16,
# across the glass: there the error bar is hundreds of times larger. It counts what the
# stage does by chance to single tiles, and how well few links tell its step.

pairs = np.array([(12, 14), (14, 16)])
told = spt.offset_covariance(halves, pairs)
told = np.sqrt(np.diagonal(told, axis1=1, axis2=2))
first, second = pairs.T
miss = halves.matrices[:, :2, 2] - truth
miss = miss[second] - miss[first]
for name, sigma_told, wrong in zip(("within", "across"), told, miss, strict=True):
    print(name, "- expected error", sigma_told.round(2), "px")
    print("         actual error  ", wrong.round(2), "px")

# %%
# What this page promised
# -----------------------

assert set(np.flatnonzero(~held)) == {8, *np.flatnonzero(blank)}
assert np.abs(error[held]).max() < 0.1
assert 0.4 < np.sqrt(np.mean((error / sigma)[~held] ** 2)) < 2
assert np.abs(placed.stage.matrix @ guessed - step).max() < 1.5
assert halves.group[14] != halves.group[16]
assert (told[1] > 10 * told[0]).all()
assert np.abs(miss[0]).max() < 0.2

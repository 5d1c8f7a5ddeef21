"""
Blending tiles
==============

Two pictures of one place overlap. One is brighter, both are noisy, one lies two pixels
off, and between the two something moved. In the overlap every pixel has two values; we
want one. You will see one seam in eleven ways: what each of them hides, what it shows,
and which one to take when.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, draw

import spectral_tools as spt

# %%
# Two pictures that do not quite agree
# ------------------------------------
# The right one is brighter by 15, and two rows off, as after a poor match. There is
# a round cell in the overlap; before the second picture was taken it had moved on.


def take(places, noise=4):
    rng = np.random.default_rng(1)
    shown = [tissue.copy(), np.roll(tissue, 2, axis=0) + 15]
    for picture, place in zip(shown, places, strict=True):
        picture[draw.disk(place, 14)] = 20
    left, right = shown + rng.normal(0, noise, (2, *tissue.shape))
    return [left[:, :220], right[:, 120:]]


tissue = data.immunohistochemistry()[60:420, 60:400, 1].astype(float)
matrices = [np.eye(3), spt.translation((0, 120))]
cells = (150, 172), (184, 184)
tiles = take(cells)

# %%
# The dotted lines are the borders of the other picture: the overlap lies between them.

fig, axes = plt.subplots(1, 2, figsize=(8, 5), layout="constrained")
for ax, tile, start, border, title in (
    (axes[0], tiles[0], 0, 119.5, "Left"),
    (axes[1], tiles[1], 120, 219.5, "Right: brighter, two rows off"),
):
    extent = start - 0.5, start + 219.5, 359.5, -0.5
    ax.imshow(tile, cmap="gray", vmin=0, vmax=255, extent=extent)
    ax.axvline(border, color="#E69F00", lw=2, ls=":")
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# Blends that choose
# ------------------
# Six ways to take one of the two values as it is, seen around the cell. The first
# picture ends on the right of what is shown here, the last one on the left. The
# largest value hides what is dark and moved, the smallest shows it twice. The nearest
# picture is the one whose border is farthest: it ends at a straight line that cuts the
# cell in two. A seam along the least difference goes round it.


def render(blend, pictures=tiles, **options):
    return spt.warp_composite(pictures, matrices, blend=blend, **options).image


def draw_six(images):
    _, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
    for ax, (title, image) in zip(axes.flat, images.items(), strict=True):
        extent = 119.5, 219.5, 214.5, 114.5
        shown = image[115:215, 120:220]
        ax.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent)
        ax.set(title=title, xlabel="col", ylabel="row")
        ax.label_outer()
    plt.show()


names = "first", "last", "maximum", "minimum", "nearest", "seam"
choices = {name: render(name) for name in names}
draw_six(choices)

# %%
# Blends that mix
# ---------------
# The mean has less noise, but it leaves two ghosts, and a step at each border of
# the overlap. With weights that fall towards the borders the steps are gone, and
# the ghosts stay. A soft seam mixes what lies in it and nothing else. Bands mix
# brightness over tens of pixels and details over few.

mixes = {
    "mean": render("mean"),
    "feather": render("feather"),
    "nearest, 20 wide": render("nearest", seam_width=20),
    "seam, 10 wide": render("seam", seam_width=10),
    "multiband": render("multiband"),
}
draw_six(mixes | {"the tissue itself": tissue})
# sphinx_gallery_thumbnail_number = 2

# %%
# Across the seam
# ---------------
# What is shown less the tissue, in the mean over 110 rows below the cell: a step of
# 15 has to be climbed somewhere, at once or in a while. (The waves are the two rows.)

colors = {
    "mean": "#D55E00",
    "nearest": "black",
    "nearest, 20 wide": "#E69F00",
    "feather": "#56B4E9",
    "multiband": "#CC79A7",
}
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for name, color in colors.items():
    profile = ((choices | mixes)[name] - tissue)[200:310].mean(axis=0)
    ax.plot(profile, color=color, label=name)
ax.set(title="Profiles across the overlap", xlabel="col", ylabel="grey value")
ax.set(xlim=(95, 245))
ax.legend()
plt.show()

# %%
# The same in numbers
# -------------------
# The largest step between neighbouring columns; how far the places of the cell are
# from either picture, which is what makes a ghost; and the noise in the overlap, which
# was 4.

clean = take(cells, noise=0)
width = {"nearest, 20 wide": 20, "seam, 10 wide": 10}
steps, ghosts, noises = {}, {}, {}
print(f"{'':18}  step  ghost  noise")
for name, image in (choices | mixes).items():
    options = {"seam_width": width[name]} if name in width else {}
    quiet = render(name.split(",")[0], clean, **options)
    columns = (quiet - tissue)[200:310].mean(axis=0)
    steps[name] = np.abs(np.diff(columns)).max()
    both = quiet[:, 120:220], clean[0][:, 120:], clean[1][:, :100]
    off = np.minimum(np.abs(both[0] - both[1]), np.abs(both[0] - both[2]))
    discs = [off[draw.disk((row, col - 120), 13)] for row, col in cells]
    ghosts[name] = np.mean(discs)
    noises[name] = (image - quiet)[:, 120:220].std()
    print(f"{name:18} {steps[name]:5.1f} {ghosts[name]:6.1f} {noises[name]:6.1f}")

# %%
# Which one to choose
# -------------------
# * **feather**, unless there is a reason for another: no steps, less noise. It
#   takes tiles that agree.
# * **nearest**, for measuring: every pixel is that of one picture, and the one
#   that is usually best there, far from its corners. With a width, for looking.
# * **seam**, where things move or tiles do not quite fit. With a width of a few pixels
#   where brightness differs too; better make the tiles equally bright before.
# * **multiband**, for a picture to look at, if the brightness of tiles differs. It
#   changes values around seams, so do not measure there.
# * **mean**, where many pictures lie on top of each other and noise is all there is.
# * **maximum** and **minimum**, for bright things on black, or dark ones on white.
# * **first** and **last**, if you know which pictures are the better ones.

# %%
# Where a seam fails
# ------------------
# A seam knows where pictures differ, but not which of them is right. Here the
# cell moved across the overlap. Each of its two places is whole, and in the picture
# that is shown there: so the cell is seen twice, or, if it moved the other way, never.

right_way = take([(150, 150), (184, 190)])
other_way = take([(150, 190), (184, 150)])
fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for ax, pictures, title in (
    (axes[0], right_way, "Moved to the right: twice"),
    (axes[1], other_way, "Moved to the left: never"),
):
    image = render("seam", pictures)[115:215, 120:220]
    extent = 119.5, 219.5, 214.5, 114.5
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# What this page promised
# -----------------------

assert ghosts["seam"] == ghosts["nearest"] == 0
assert ghosts["seam, 10 wide"] < 1
assert ghosts["feather"] > 20
assert steps["nearest"] > 10
assert max(steps[name] for name in ("feather", "multiband")) < 3
assert noises["mean"] < 3 < noises["nearest"]
for disc in (draw.disk(cell, 13) for cell in cells):
    assert np.mean(render("seam", clean)[disc] == 20) in (0, 1)
assert 0 < np.mean(render("nearest", clean)[draw.disk(cells[0], 13)] == 20) < 1

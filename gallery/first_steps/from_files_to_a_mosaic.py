"""
From the microscope's files to a mosaic
=======================================

A microscope has left a file with twelve pictures of a retina, in colours, and has noted
where its stage was for each. We want one picture of it all that other programs open. You
will see what the file tells and what it does not, where the stage was wrong, and the
mosaic on disk as it is read again.
"""

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from skimage import data

import spectral_tools as spt

# %%
# What the microscope leaves
# --------------------------
# A pixel is 0.65 µm. The stage counts upwards where rows count downwards, from some
# place of its own, and it errs by eight pixels: nothing of that is in the file, only
# the positions in µm that it believes in.

rng = np.random.default_rng(3)
eye = data.retina()[250:1200, 60:1300]
size, pixel = (300, 340), 0.65
truth = spt.grid_positions((3, 4), size, overlap=0.2)
truth = (truth + rng.uniform(0, 15, truth.shape)).astype(int)
stage = (truth + rng.normal(0, 8, truth.shape)) * pixel
folder = tempfile.TemporaryDirectory()
scan = Path(folder.name) / "scan.ome.tif"
with tifffile.TiffWriter(scan, ome=True) as file:
    for (row, col), (down, right) in zip(truth, stage, strict=True):
        tile = eye[row : row + size[0], col : col + size[1]]
        tile = (tile + rng.normal(0, 3, tile.shape)).round().clip(0, 255)
        where = {"PositionX": [right - 8200.0], "PositionY": [4100.0 - down]}
        where |= {"PositionXUnit": ["µm"], "PositionYUnit": ["µm"]}
        metadata = {"axes": "YXS", "Plane": where}
        metadata |= {"PhysicalSizeX": pixel, "PhysicalSizeY": pixel}
        file.write(
            tile.astype(np.uint8), photometric="rgb", compression="zlib",
            tile=(128, 128), metadata=metadata,
        )  # fmt: skip

# %%
# What the file tells
# -------------------
# One call reads the heads. Pictures stay in the file until they are sliced, and then
# only the parts that are asked for. Positions come in pixels.

found = spt.io.read_ome_tiff(scan)
print(found)
corner = found.images[7][:2, :2]
assert found.axes == "yxs"
assert np.array_equal(corner, tifffile.imread(scan, series=7)[:2, :2])

# %%
# Which way the stage counts
# --------------------------
# No format says it. Taken as they are, rows of pictures would change places, and hardly any
# link across rows would be found. The stage is found out: a warning says how it moves, and
# the pictures are placed by that. Once you know, turn the positions by that matrix.

with warnings.catch_warnings(record=True, action="always") as told:
    best = spt.place_tiles(
        found.images,
        positions=found.positions,
        channel_axis=found.channel_axis,
        max_shift=40,
    )
print(told[0].message)
print(f"{best.inlier.mean():.0%} of the links are believed")

# %%
# Where the stage was wrong
# -------------------------
# Each arrow leads from where the stage put a picture to where it belongs, ten times as
# long as it is.

corners = best.matrices[:, :2, 2]
shift = (truth - corners).mean(axis=0)
error = corners + shift - truth
nominal = found.positions * (-1, 1)
nominal += (corners - nominal).mean(axis=0)
moved = corners - nominal
print(f"errors of the stage: {np.hypot(*moved.T).mean():.1f} px on average")
print(f"errors of the mosaic: {np.hypot(*error.T).max():.3f} px at most")

# %%
# The mosaic, written and read again
# ----------------------------------
# All colours are rendered at once. The origin says where the mosaic lies among the
# pictures, in pixels; whoever reads it finds it there.

options = {"blend": "mean", "channel_axis": found.channel_axis}
mosaic = spt.warp_composite(found.images, best.matrices, **options)
target = Path(folder.name) / "retina.ome.zarr"
spt.io.write_ome_zarr(
    target, mosaic.image, channel_axis=2, channel_names=["red", "green", "blue"],
    pixel_size=found.pixel_size, unit=found.unit, origin=mosaic.origin,
)  # fmt: skip
again = spt.io.read_ome_zarr(target)
print(again)

# %%
# In one picture
# --------------
# The mosaic as it is in the new file, with the frames of the pictures, and a piece of
# it as the stage would have had it, and as it is.

by_stage = spt.warp_composite(
    found.images, [spt.translation(each) for each in nominal], **options
)


def cut(composite, first, side):
    """Return a square of a composite that begins at a point of the pictures."""
    row, col = np.round(first - composite.origin).astype(int)
    return composite.image[row : row + side, col : col + side]


picture = np.moveaxis(np.asarray(again.images[0]), 0, -1)
first, side = corners[3] + (110, -30), 130
pieces = {
    "by the stage": cut(by_stage, first, side),
    "placed": cut(mosaic, first, side),
}

row, col = np.round(first + shift).astype(int)
true = eye[row : row + side, col : col + side]
rms = {name: np.std(piece - true.astype(float)) for name, piece in pieces.items()}
print("differences from the eye:", {name: f"{each:.1f}" for name, each in rms.items()})

fig = plt.figure(figsize=(8, 5.2), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=(2.15, 1))
ax = left.subplots()
ax.imshow(picture)
for (row, col), (down, along) in zip(corners - mosaic.origin, moved, strict=True):
    frame = plt.Rectangle((col, row), size[1], size[0], fill=False, ec="w", lw=0.6)
    ax.add_patch(frame)
    middle = col + size[1] / 2, row + size[0] / 2
    start = middle[0] - 10 * along, middle[1] - 10 * down
    ax.annotate("", middle, start, arrowprops={"arrowstyle": "->", "color": "w"})
row, col = first - mosaic.origin
ax.add_patch(plt.Rectangle((col, row), side, side, fill=False, ec="c", lw=1.5))
ax.set(title="Twelve pictures, and what the stage was off by (x 10)")
ax.set(xlabel="col", ylabel="row")
for part, (name, piece) in zip(right.subplots(2), pieces.items(), strict=True):
    part.imshow(piece)
    part.set(title=name, xlabel="col", ylabel="row", xticks=[], yticks=[])
plt.show()

# %%
# What this page has claimed:

assert found.positions.shape == (12, 2)
assert "axis 0 is reversed" in str(told[0].message)
assert best.inlier.mean() > 0.95
assert np.hypot(*moved.T).mean() > 5
assert np.hypot(*error.T).max() < 0.1
assert np.array_equal(picture, mosaic.image)
assert np.allclose(again.positions, [mosaic.origin], rtol=0, atol=1e-9)
assert np.allclose(again.pixel_size, pixel)
assert again.channel_names == ["red", "green", "blue"]
assert rms["placed"] < rms["by the stage"] / 3

# sphinx_gallery_thumbnail_number = 1

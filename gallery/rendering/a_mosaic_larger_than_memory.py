"""
A mosaic larger than memory
===========================

A retina was photographed as 64 overlapping pictures, which lie in a file. We want them
as one picture that other programs open and zoom into, and neither the pictures nor the
mosaic are ever to be in memory as a whole: what works here for a small picture then
works for one of a terabyte. You will see the mosaic grow block by block, break off, go
on where it stopped, and become a pyramid; and how much memory that takes.
"""

import tempfile
import tracemalloc
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import tifffile
import zarr
from skimage import data

import spectral_tools as spt

# %%
# Pictures in a file
# ------------------
# Each picture is a data set of its own. Sliced like an array, it reads only what is
# asked for; a list of such data sets is as good as a list of arrays.

made = spt.simulate_tiles(
    data.retina()[..., 1], (8, 8), (200, 200),
    overlap=0.15, stage_sigma=2, noise_sigma=2, rng=1,
)  # fmt: skip
folder = tempfile.TemporaryDirectory()
place = Path(folder.name)
store = h5py.File(place / "microscope.h5", "w")
for k, tile in enumerate((100 * made.tiles).round().clip(0).astype(np.uint16)):
    store.create_dataset(f"tiles/{k:02}", data=tile, chunks=(50, 200))
tiles = list(store["tiles"].values())
print(len(tiles), "pictures of", tiles[0].shape, tiles[0].dtype)

# %%
# Room for the mosaic
# -------------------
# We choose what part of the mosaic to render, and make room for it in another file: the
# image, how many tiles count at each pixel, and a flag for each block that is done.
# Chunks of the image are whole parts of blocks.

bounds = np.array([[60, 60], [1340, 1340]])
shape, block = (1280, 1280), (256, 256)
result = h5py.File(place / "mosaic.h5", "w")
image = result.create_dataset("image", shape, "u2", chunks=(128, 128))
coverage = result.create_dataset("coverage", shape, "u1", chunks=(128, 128))
done = result.create_dataset("done", (5, 5), bool)

# %%
# Half way, somebody pulls the plug
# ---------------------------------
# The disk with the pictures goes away after 75 of its parts were read. Such an error
# is not caught by anybody: the rendering stops.


class Unplugged:
    """A picture on a disk that can be read only so many times."""

    left = 75

    def __init__(self, tile):
        self.tile, self.shape, self.dtype = tile, tile.shape, tile.dtype

    def __getitem__(self, key):
        Unplugged.left -= 1
        if Unplugged.left < 0:
            raise OSError(5, "the disk is gone")
        return self.tile[key]


goal = {
    "bounds": bounds, "out": image, "out_coverage": coverage,
    "blocks": block, "done": done,
}  # fmt: skip
try:
    spt.warp_composite([Unplugged(tile) for tile in tiles], made.matrices, **goal)
except OSError as error:
    print("stopped:", error)
first = image[...], done[...]
print(first[1].sum(), "of", first[1].size, "blocks are done")

# %%
# It goes on where it stopped
# ---------------------------
# The same call again, with the disk back. Blocks whose flag is set are left alone; a
# flag is set only after its block was written.

mosaic = spt.warp_composite(tiles, made.matrices, **goal)
print(done[...].sum(), "of", done.size, "blocks are done")

fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, (picture, flags), title in (
    (axes[0], first, "When the plug was pulled"),
    (axes[1], (image[...], done[...]), "After the second call"),
):
    ax.imshow(picture, cmap="magma", vmin=0, vmax=20000)
    for row, col in np.argwhere(~flags):
        ax.add_patch(
            plt.Rectangle((col * 256, row * 256), 256, 256, fill=False, ec="#56B4E9")
        )
    ax.set(title=title, xlabel="col", ylabel="row")
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
plt.show()
# sphinx_gallery_thumbnail_number = 1

# %%
# Nothing shows where it broke off
# --------------------------------
# The same mosaic without interruption, in memory, for comparison.

whole = spt.warp_composite(tiles, made.matrices, bounds=bounds, blocks=block)
print("largest difference:", np.abs(image[...] - whole.image.astype(int)).max())

# %%
# A pyramid that other programs open
# ----------------------------------
# The image goes into an OME-TIFF and into an OME-Zarr, part by part, with the size of
# its pixels and the place of its first one. Each level of the pyramid holds the means
# of 2 x 2 pixels of the level before, so that viewers can zoom out of any
# mosaic at once.

where = {"pixel_size": 4.2, "unit": "µm", "origin": mosaic.origin, "tile": (256, 256)}
spt.io.write_ome_tiff(place / "retina.ome.tif", image, **where)
spt.io.write_ome_zarr(place / "retina.ome.zarr", image, **where)

tiff = tifffile.TiffFile(place / "retina.ome.tif")
group = zarr.open_group(place / "retina.ome.zarr", mode="r")
datasets = group.attrs["multiscales"][0]["datasets"]
for level, dataset in zip(tiff.series[0].levels, datasets, strict=True):
    scale, start = dataset["coordinateTransformations"]
    print(level.shape, "pixels of", scale["scale"][0], "µm, the first at",
          np.round(start["translation"], 1), "µm")  # fmt: skip

# %%
# The same place in every level
# -----------------------------
# The optic disc, read from three levels of the file: a viewer takes the one that
# fits its window. Axes are in micrometres, from what the file says about itself, and
# vessels stay where they are.

fig, axes = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained", sharey=True)
for ax, dataset in zip(axes, datasets[:1] + datasets[2:], strict=True):
    scale, start = (list(t.values())[1] for t in dataset["coordinateTransformations"])
    level = group[dataset["path"]]
    rows, cols = (
        slice(*((np.array(span) - s) / p).round().astype(int))
        for span, s, p in zip(((2200, 3400), (400, 1600)), start, scale, strict=True)
    )
    edges = [
        s + p * (k - 0.5)
        for one, s, p in zip((cols, rows), start, scale, strict=True)
        for k in (one.start, one.stop)
    ]
    part = level[rows, cols]
    ax.imshow(part, cmap="magma", vmin=0, vmax=20000,
              extent=(*edges[:2], edges[3], edges[2]))  # fmt: skip
    ax.set(title=f"{part.shape[0]} x {part.shape[1]} pixels", xlabel="col (µm)")
axes[0].set_ylabel("row (µm)")
plt.show()

# %%
# How much memory it takes
# ------------------------
# Ever larger mosaics, made of the same pictures again and again. We take note of the
# most that NumPy and Python hold at a time; what HDF5 keeps to itself, at most a
# megabyte for each open data set, is not in it.


def peak(function, *inputs, **options):
    tracemalloc.start()
    function(*inputs, **options)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


names = ("rendered in memory", "rendered into a file", "OME-TIFF", "OME-Zarr")
sizes, found = [], []
for side in (5, 10, 20):
    corners = spt.grid_positions((side, side), (200, 200), overlap=0.15)
    matrices = [spt.translation(corner) for corner in corners]
    repeated = [tiles[k % 64] for k in range(side**2)]
    space = {"bounds": [[0, 0], 2 * [170 * side]], "blocks": (512, 512)}
    out, counts = (
        result.create_dataset(f"{name} {side}", 2 * [170 * side], kind, chunks=block)
        for name, kind in (("large", "u2"), ("counts", "u2"))
    )
    stores = {"out": out, "out_coverage": counts}
    sizes.append(out.size * out.dtype.itemsize / 1e6)
    found.append((
        peak(spt.warp_composite, repeated, matrices, **space),
        peak(spt.warp_composite, repeated, matrices, **space, **stores),
        peak(spt.io.write_ome_tiff, place / f"{side}.ome.tif", out, compression=None),
        peak(spt.io.write_ome_zarr, place / f"{side}.ome.zarr", out),
    ))  # fmt: skip
print("mosaic in MB        ", "".join(f"{size:8.1f}" for size in sizes))
for name, row in zip(names, np.transpose(found), strict=True):
    print(f"{name:20}", "".join(f"{most:8.1f}" for most in row))

# %%
# Memory against the size of the mosaic
# -------------------------------------
# In memory, a mosaic needs room for itself and for how many tiles count. Block by block
# it needs what a block needs, and a little for each picture. The OME-TIFF has to be written
# in rows of tiles: its memory grows with the width of the mosaic, not with its height.

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, row, color in zip(
    names, np.transpose(found), ("black", "#0072B2", "#D55E00", "#009E73"), strict=True
):
    ax.loglog(sizes, row, "o-", color=color, label=name)
ax.loglog(sizes, sizes, ":", color="gray", label="the mosaic itself")
ax.set(title="Peak of memory", xlabel="mosaic (MB)", ylabel="memory (MB)")
ax.set(xticks=sizes, xticklabels=[f"{size:.0f}" for size in sizes])
ax.set(yticks=(2, 5, 10, 20, 50), yticklabels=("2", "5", "10", "20", "50"))
ax.minorticks_off()
ax.legend()
plt.show()

# %%
# What it costs: small blocks read pictures again
# -----------------------------------------------
# A file is read by whole chunks: here strips of 50 rows. Blocks that are not much larger
# than chunks fetch each of them many times, once for every block that touches it. Even
# a single block reads more pixels than it renders, because pictures overlap.


class Counting(Unplugged):
    """A picture that counts how many pixels its file had to read."""

    pixels = 0

    def __getitem__(self, key):
        strips = -(-key[0].stop // 50) - key[0].start // 50
        Counting.pixels += strips * 50 * 200
        return self.tile[key]


read = {}
for side in (64, 128, 256, 512, 1280):
    Counting.pixels = 0
    counting = [Counting(tile) for tile in tiles]
    options = {"bounds": bounds, "blocks": (side, side)}
    for _ in spt.composite_blocks(counting, made.matrices, **options):
        pass
    read[side] = Counting.pixels / image.size
    print(f"blocks of {side:4}: {read[side]:5.1f} pixels read for each one rendered")

# %%
# What this page promised
# -----------------------

assert 0 < first[1].sum() < first[1].size
np.testing.assert_array_equal(image[...], whole.image)
np.testing.assert_array_equal(tiff.series[0].levels[0].asarray(), whole.image)
np.testing.assert_array_equal(group["0"][...], whole.image)
# Levels are rounded three times, by a half at most.
assert abs(group["3"][12, 25] - group["0"][96:104, 200:208].mean()) < 1.5
in_memory, in_file, in_tiff, in_zarr = np.transpose(found)
assert in_memory[2] > 1.5 * sizes[2]
assert in_file[2] < 2 * in_file[0]
assert in_zarr[2] < 2 * in_zarr[0]
assert in_tiff[2] < 0.7 * sizes[2]
assert read[64] > 3 * read[256]
assert read[512] < 1.5 * read[1280]

for opened in (tiff, store, result):
    opened.close()
folder.cleanup()

import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

import spectral_tools as spt
from spectral_tools._rendering.composite import composite_blocks

BLOCKS = (16, 24)


@pytest.fixture
def tiles(rng):
    return [rng.integers(0, 65536, (40, 50)).astype(np.uint16) for _ in range(3)]


@pytest.fixture
def matrices():
    return np.array([spt.translation(s) for s in [(0, 0), (5.2, 31.7), (28.4, 10.9)]])


@pytest.fixture
def plain(tiles, matrices):
    return spt.warp_composite(tiles, matrices, blocks=BLOCKS)


def grid_of(shape):
    return tuple(-(-side // block) for side, block in zip(shape, BLOCKS, strict=True))


@pytest.mark.parametrize("workers", [1, 3, map])
def test_blocks_fill_the_mosaic(tiles, matrices, plain, workers):
    image = np.zeros_like(plain.image)
    for slices, block in composite_blocks(
        tiles, matrices, blocks=BLOCKS, workers=workers
    ):
        image[slices] = block
    assert_array_equal(image, plain.image)


def test_blocks_hold_all_channels(rng, matrices):
    tiles = rng.random((3, 40, 50, 2))
    plain = spt.warp_composite(tiles, matrices, channel_axis=-1, blocks=BLOCKS)
    image = np.zeros_like(plain.image)
    for slices, block in composite_blocks(
        tiles, matrices, blocks=BLOCKS, channel_axis=-1
    ):
        image[slices] = block
    assert_array_equal(image, plain.image)


def test_arguments_are_checked_before_the_first_block():
    with pytest.raises(ValueError, match="`tiles` must hold at least one image"):
        composite_blocks([], np.empty((0, 3, 3)))


def test_a_mosaic_is_written_into_an_array(tiles, matrices, plain):
    out = np.ones_like(plain.image)
    mosaic = spt.warp_composite(tiles, matrices, out=out, blocks=BLOCKS)
    assert mosaic.image is out
    assert_array_equal(out, plain.image)
    assert_array_equal(mosaic.coverage, plain.coverage)


@pytest.mark.parametrize("workers", [1, 2, map])
@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_of_the_store_does_not_matter(tiles, matrices, plain, workers, order):
    store = np.empty(plain.image.shape, plain.image.dtype, order=order)
    coverage = np.empty(plain.coverage.shape, plain.coverage.dtype, order=order)
    spt.warp_composite(
        tiles, matrices, out=store, out_coverage=coverage, workers=workers
    )
    assert_array_equal(store, plain.image)
    assert_array_equal(coverage, plain.coverage)


def test_a_mosaic_is_written_into_a_file(tiles, matrices, plain, tmp_path):
    with h5py.File(tmp_path / "mosaic.h5", "w") as file:
        out = file.create_dataset("image", plain.image.shape, "u2", chunks=BLOCKS)
        counts = file.create_dataset("coverage", plain.image.shape, "u1")
        spt.warp_composite(tiles, matrices, out=out, out_coverage=counts, blocks=BLOCKS)
        assert_array_equal(out[...], plain.image)
        assert_array_equal(counts[...], plain.coverage)


def test_a_mosaic_is_written_into_zarr(tiles, matrices, plain):
    zarr = pytest.importorskip("zarr")
    out = zarr.zeros(shape=plain.image.shape, dtype="u2", chunks=BLOCKS)
    spt.warp_composite(tiles, matrices, out=out)
    # Other blocks: values may be rounded the other way.
    assert np.abs(out[...].astype(int) - plain.image).max() <= 1


class Failing:
    """A tile that can be read only so many times."""

    def __init__(self, tile, times):
        self.tile, self.times = tile, times
        self.shape, self.dtype = tile.shape, tile.dtype

    def __getitem__(self, key):
        self.times -= 1
        if self.times < 0:
            message = "no more"
            raise OSError(message)
        return self.tile[key]


def test_a_rendering_that_failed_goes_on_where_it_stopped(tiles, matrices, plain):
    shape = plain.image.shape
    options = {
        "out": np.zeros(shape, np.uint16),
        "out_coverage": np.zeros(shape, np.uint8),
        "blocks": BLOCKS,
        "done": np.zeros(grid_of(shape), bool),
    }
    with pytest.raises(OSError, match="no more"):
        spt.warp_composite([Failing(t, 4) for t in tiles], matrices, **options)
    written = options["done"].sum()
    assert 0 < written < options["done"].size
    for cell in np.argwhere(options["done"]):
        inside = tuple(
            slice(k * b, (k + 1) * b) for k, b in zip(cell, BLOCKS, strict=True)
        )
        assert_array_equal(options["out"][inside], plain.image[inside])
    spt.warp_composite(tiles, matrices, **options)
    assert options["done"].all()
    assert_array_equal(options["out"], plain.image)
    assert_array_equal(options["out_coverage"], plain.coverage)


def test_blocks_that_are_done_are_left_alone(tiles, matrices, plain):
    shape = plain.image.shape
    done = np.zeros(grid_of(shape), bool)
    done[0, 1] = True
    out, counts = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
    spt.warp_composite(
        tiles, matrices, out=out, out_coverage=counts, blocks=BLOCKS, done=done
    )
    assert_array_equal(out[:16, 24:48], 0)
    assert_array_equal(out[16:], plain.image[16:])


KILLED = """
import os, sys
import numpy as np
import spectral_tools as spt

class Deadly:
    shape, dtype, left = (40, 50), np.dtype(np.uint16), int(sys.argv[2])
    def __getitem__(self, key):
        Deadly.left -= 1
        if Deadly.left < 0:
            os._exit(9)
        return np.load(sys.argv[1] + "/tile.npy")[key]

def store(name, shape, dtype):
    path = f"{sys.argv[1]}/{name}.npy"
    if os.path.exists(path):
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)

spt.warp_composite(
    [Deadly(), Deadly()],
    [np.eye(3), spt.translation((20.3, 14.6))],
    out=store("image", (60, 65), np.uint16),
    out_coverage=store("coverage", (60, 65), np.uint8),
    done=store("done", (4, 3), bool),
    blocks=(16, 24),
)
"""


def test_a_rendering_that_was_killed_goes_on_where_it_stopped(tiles, tmp_path):
    np.save(tmp_path / "tile.npy", tiles[0])
    places = [np.eye(3), spt.translation((20.3, 14.6))]
    plain = spt.warp_composite([tiles[0]] * 2, places, blocks=BLOCKS)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run([*command, "5"], check=False).returncode == 9
    assert 0 < np.load(tmp_path / "done.npy").sum() < 12
    assert subprocess.run([*command, "999"], check=False).returncode == 0
    assert_array_equal(np.load(tmp_path / "image.npy"), plain.image)
    assert_array_equal(np.load(tmp_path / "coverage.npy"), plain.coverage)


def read_only(shape):
    array = np.zeros(shape)
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"out": 3}, TypeError, "`out` must take slices and have a dtype; got int"),
        ({"out": np.ones((4, 5))}, ValueError, r"`out` must have shape \(4, 4\)"),
        (
            {"out": np.ones((4, 4), "u1"), "dtype": "f4"},
            TypeError,
            "`out` must hold float32; got dtype uint8",
        ),
        ({"out": read_only((4, 4))}, ValueError, "`out` must be writeable"),
        (
            {"out_coverage": np.ones((4, 4), bool)},
            TypeError,
            "`out_coverage` must hold uint8",
        ),
        ({"blocks": (4,)}, ValueError, "`blocks` must hold 2 positive integers"),
        ({"done": np.zeros(1, bool)}, ValueError, "`done` must come with `out`"),
        (
            {
                "out": np.ones((4, 4)),
                "out_coverage": np.ones((4, 4), "u1"),
                "blocks": (2, 4),
                "done": np.zeros(2, bool),
            },
            ValueError,
            r"`done` must have shape \(2, 1\); got \(2,\)",
        ),
    ],
)
def test_stores_are_checked(options, error, match):
    with pytest.raises(error, match=match):
        spt.warp_composite([np.ones((4, 4))], [np.eye(3)], **options)


def test_stores_that_were_opened_to_read_are_refused(tmp_path):
    with h5py.File(tmp_path / "mosaic.h5", "w") as file:
        file["mosaic"] = np.zeros((4, 4))
    zarr.save(tmp_path / "mosaic.zarr", np.zeros((4, 4)))
    with h5py.File(tmp_path / "mosaic.h5") as file:
        opened = zarr.open_array(tmp_path / "mosaic.zarr", mode="r")
        for out in (file["mosaic"], opened):
            with pytest.raises(ValueError, match="`out` must be writeable; got a read"):
                spt.warp_composite([np.ones((4, 4))], [np.eye(3)], out=out)

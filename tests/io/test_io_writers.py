"""What every writer keeps to, whatever ends it: the old file stays, or the new is whole.

`python tests/io/test_io_writers.py` kills each of them many times, and counts.
"""

import gc
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import spectral_tools as spt

pytest.importorskip("tifffile")
pytest.importorskip("ome_zarr.io")
pytest.importorskip("zarr")

ROOT = Path(__file__).parents[2]
#: Killed so many times each, where all is counted.
KILLS = 60


def pixels(value, side=600):
    """Return an image that does not compress, and differs by its value."""
    found = np.random.default_rng(value).integers(0, 1 << 16, (side, side), np.uint16)
    found[0, 0] = value
    return found


def write_tiff(path, value, side=600):
    spt.io.write_ome_tiff(path, pixels(value, side), tile=(256, 256))


def read_tiff(path):
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        levels = [level.asarray() for level in file.series[0].levels]
    return levels[0], len(levels)


def write_blocks(path, value, side=600):
    image = pixels(value, side)
    boxes = [(slice(k, k + 100), slice(0, side)) for k in range(0, side, 100)]
    blocks = ((box, image[box]) for box in boxes)
    spt.io.write_ome_tiff(path, blocks, shape=image.shape, tile=(256, 256))


def write_zarr(path, value, side=600):
    image = pixels(value, side)
    spt.io.write_ome_zarr(path, image, tile=(256, 256), overwrite=True)


def read_zarr(path):
    import zarr  # noqa: PLC0415

    group = zarr.open_group(path, mode="r")
    levels = [np.asarray(group[str(k)]) for k in range(len(group))]
    return levels[0], len(levels)


def write_usid(path, value, side=600):
    spt.io.write_usid(path, pixels(value, side), quantity="Height", units="nm")


def read_usid(path):
    found = spt.io.read_usid(path)
    return found.data, len(found.axes)


def write_result(path, value, side=600):
    image = pixels(value, side)
    origin, coverage = np.zeros(2), np.zeros((1, 1), np.uint8)
    result = spt.Composite(image=image, origin=origin, coverage=coverage)
    spt.io.save_result(path, result)


def read_result(path):
    return spt.io.load_result(path).image, 1


def names_of(value, side):
    return [f"{value}_{k:06}.tif" for k in range(2 * side)]


def write_list(path, value, side=600):
    names = names_of(value, side)
    positions = np.arange(2.0 * len(names)).reshape(-1, 2) + value
    spt.io.write_tile_configuration(path, names, positions)


def read_list(path):
    found = spt.io.read_tile_configuration(path)
    return found.positions, found.names


def write_mosaic(path, value, side=600):
    names = names_of(value, side)
    transforms = [spt.io.matrix_to_itk(spt.translation((value, k))) for k in range(9)]
    transforms *= len(names) // 9 + 1
    spt.io.write_mosaic(path, names, transforms[: len(names)])


def read_mosaic(path):
    found = spt.io.read_mosaic(path)
    return np.array([found.transforms[0].parameters]), found.names


def write_stos(path, value, side=600):
    points = np.random.default_rng(value).random((side, 2))
    transform = spt.io.points_to_itk(points, points + value, (100, 100))
    shapes = [(100, 100), (100, 100)]
    spt.io.write_stos(path, transform, ("a.png", "b.png"), shapes)


def read_stos(path):
    return np.array(spt.io.read_stos(path).transform.parameters), 1


WRITERS = {
    "m.ome.tif": (write_tiff, read_tiff),
    "blocks.ome.tif": (write_blocks, read_tiff),
    "m.ome.zarr": (write_zarr, read_zarr),
    "scan.h5": (write_usid, read_usid),
    "result.h5": (write_result, read_result),
    "TileConfiguration.txt": (write_list, read_list),
    "tiles.mosaic": (write_mosaic, read_mosaic),
    "sections.stos": (write_stos, read_stos),
}
each = pytest.mark.parametrize("name", WRITERS)
files = pytest.mark.parametrize("name", [n for n in WRITERS if "zarr" not in n])


def contents(name, path):
    """Return what a file holds, as bytes that can be compared."""
    array, more = WRITERS[name][1](path)
    return array.tobytes(), more


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


# Full disks and interrupts


@contextmanager
def files_no_longer_than(limit):
    """Refuse what lies beyond, as a full disk does."""
    resource = pytest.importorskip("resource", reason="Windows limits no files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@each
@pytest.mark.parametrize("limit", [1000, 20_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(name, limit, tmp_path):
    path, (write, _) = tmp_path / name, WRITERS[name]
    write(path, 1)
    before = contents(name, path)
    with files_no_longer_than(limit), pytest.raises(OSError, match="large"):
        write(path, 2)
    # What HDF5 could not write it would try to write again here.
    gc.collect()
    assert contents(name, path) == before
    assert listed(tmp_path) == [name]
    write(path, 2)
    assert contents(name, path) != before


class Interrupted:
    """Interrupt the main thread after some time, wherever it is then."""

    def __init__(self, seconds):
        self.seconds, self.happened = seconds, False

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def __exit__(self, kind, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        self.happened = kind is KeyboardInterrupt
        return self.happened


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@each
def test_an_interrupt_leaves_the_old_file_or_the_new_one(name, tmp_path, rng):
    path, (write, _) = tmp_path / name, WRITERS[name]
    known, took = [], []
    for value in (0, 1):
        start = time.perf_counter()
        write(path, value)
        took.append(time.perf_counter() - start)
        known.append(contents(name, path))
    times = 0
    for share in np.append(rng.uniform(0.1, 0.9, 9), 9):
        with Interrupted(share * min(took)) as interrupt:
            write(path, times % 2)
        gc.collect()
        times += interrupt.happened
        assert contents(name, path) in known
        assert listed(tmp_path) == [name]
    assert times

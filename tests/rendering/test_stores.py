"""Mosaics in files that are rendered by processes which are killed, or on full disks.

`python tests/rendering/test_stores.py` kills renderings many times, and counts.
"""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import spectral_tools as spt
from tests.children import ended, in_child

ROOT = Path(__file__).parents[2]
#: Killed so many times each, where all is counted.
KILLS = 60
BLOCKS = (64, 64)
PLACES = [np.eye(3), spt.translation((20.3, 259.6))]
SHAPE = (320, 560)
ARRAYS = {
    "image": (SHAPE, np.dtype(np.uint16)),
    "coverage": (SHAPE, np.dtype(np.uint8)),
    "done": ((5, 9), np.dtype(bool)),
}


def tiles():
    rng = np.random.default_rng(20261130)
    return list(rng.integers(0, 60_000, (2, 300, 300), np.uint16))


def render(stores, **options):
    return spt.warp_composite(
        tiles(), PLACES, out=stores["image"], out_coverage=stores["coverage"],
        done=stores["done"], blocks=BLOCKS, **options,
    )  # fmt: skip


@contextmanager
def hdf5(folder, **options):
    with h5py.File(folder / "m.h5", "a") as file:
        for name, (shape, dtype) in ARRAYS.items():
            chunks = None if name == "done" else (32, 32)
            more = options if chunks else {}
            if name not in file:
                file.create_dataset(name, shape, dtype, chunks=chunks, **more)
        file.flush()
        yield file


@contextmanager
def compressed(folder):
    with hdf5(folder, compression="gzip", compression_opts=1) as file:
        yield file


def allocated(file, name, shape, dtype):
    """Make a dataset whose place in the file is known from the beginning."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    chunks = tuple(map(min, shape, BLOCKS))
    return file.create_dataset(name, shape, dtype, chunks=chunks, dcpl=plan)


@contextmanager
def mapped(folder):
    yield {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+")
        if (folder / f"{name}.npy").exists()
        else np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in ARRAYS.items()
    }


@contextmanager
def zarr_folder(folder):
    import zarr  # noqa: PLC0415

    group = zarr.open_group(folder / "m.zarr", mode="a")
    yield {
        name: group.require_array(
            name, shape=shape, dtype=dtype,
            chunks=(1, 1) if name == "done" else (32, 32),
        )
        for name, (shape, dtype) in ARRAYS.items()
    }  # fmt: skip


STORES = {
    "HDF5": hdf5, "compressed HDF5": compressed, "mapped": mapped, "Zarr": zarr_folder,
}  # fmt: skip


def wrong_blocks(stores, truth):
    """Return how many blocks are done, and how many of them are not as they should be."""
    cells = np.argwhere(np.asarray(stores["done"][...]))
    wrong = 0
    for cell in cells:
        box = tuple(slice(k * b, k * b + b) for k, b in zip(cell, BLOCKS, strict=True))
        same = (stores["image"][box] == truth.image[box]).all()
        wrong += not same or (stores["coverage"][box] != truth.coverage[box]).any()
    return len(cells), wrong


@pytest.fixture(scope="module")
def truth():
    return spt.warp_composite(tiles(), PLACES)


# Full disks


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reserves room")
@pytest.mark.parametrize("kind", ["HDF5", "compressed HDF5", "Zarr"])
def test_a_full_disk_loses_no_block_that_is_done(kind, truth, tmp_path):
    """It is an error, and after it all goes on, even with the same open file."""
    pytest.importorskip("zarr")
    limit = 1000 if kind == "Zarr" else 350_000
    with STORES[kind](tmp_path) as stores:
        with files_no_longer_than(limit), pytest.raises(OSError, match="large") as full:
            render(stores)
        assert full.value.errno == errno.EFBIG
        done, wrong = wrong_blocks(stores, truth)
        assert (done > 0) == ("HDF5" in kind)
        assert wrong == 0
        render(stores)
    with STORES[kind](tmp_path) as stores:
        assert wrong_blocks(stores, truth) == (45, 0)
        assert_array_equal(stores["image"][...], truth.image)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reserves room")
def test_a_full_disk_is_found_before_anything_is_mapped(tmp_path, monkeypatch):
    """Files that are there have a size, which no limit stops; their holes may be full."""

    def fallocate(handle, start, length):
        reserved.append((os.fstat(handle).st_size, start, length))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reserved = []
    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with mapped(tmp_path) as stores:
        with pytest.raises(OSError, match="No space left"):
            render(stores)
        assert not stores["image"].any()
    assert reserved == [(stores["image"].nbytes + 128, 0, stores["image"].nbytes + 128)]


@pytest.mark.parametrize("kind", ["HDF5", "compressed HDF5"])
def test_room_that_was_not_needed_is_given_back(kind, tmp_path):
    with STORES[kind](tmp_path) as stores:
        render(stores)
        size = stores["image"].file.id.get_filesize()
        assert (tmp_path / "m.h5").stat().st_size == size
    assert (tmp_path / "m.h5").stat().st_size <= size


def test_a_file_in_memory_needs_no_room(truth):
    with h5py.File("m.h5", "w", driver="core", backing_store=False) as file:
        for name, (shape, dtype) in ARRAYS.items():
            file.create_dataset(name, shape, dtype)
        render(file)
        assert_array_equal(file["image"][...], truth.image)


# Kills


class Log(BytesIO):
    """A file that remembers what was written to it, one after the other."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, data):
        self.writes.append((self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size=None):
        if size > len(self.getbuffer()):
            self.seek(size - 1)
            self.write(b"\0")
        return size


def readable_after(writes, first, truth):
    """Return how many blocks are done after every fifth write, -1 if unreadable."""
    found, file = [], BytesIO()
    for k, (place, data) in enumerate(writes):
        file.seek(place)
        file.write(data)
        if k >= first and (k % 5 == 0 or k == len(writes) - 1):
            try:
                with h5py.File(BytesIO(file.getvalue()), "r") as stores:
                    done, wrong = wrong_blocks(stores, truth)
                    found.append(-1 if wrong else done)
            except (KeyError, OSError):
                found.append(-1)
    return np.array(found)


@pytest.mark.parametrize("early", [True, False])
def test_hdf5_can_be_read_between_any_two_blocks(early, truth):
    """Wherever it is killed, if all lies where it will from the beginning."""
    log = Log()
    with h5py.File(log, "w") as file:
        for name, (shape, dtype) in ARRAYS.items():
            if early:
                allocated(file, name, shape, dtype)
            else:
                chunks = None if name == "done" else (32, 32)
                file.create_dataset(name, shape, dtype, chunks=chunks)
        file.flush()
        first = len(log.writes)
        render(file)
        done = readable_after(log.writes, first, truth)
    if early:
        assert (done >= 0).all()
    else:
        # Only while the tables of one block are written, after which one more is done.
        assert set(range(1, 46)) <= set(done.tolist())
        assert (done[-1], (done < 0).mean() < 0.3) == (45, True)


def kill(kind, times, rng, truth):
    """Kill renderings, and count what is found in their files and when they go on."""
    counts = Counter()

    def draw(folder):
        with STORES[kind](folder) as stores:
            # The store is there before the first kill, as it is where users make it.
            (folder / "made").touch()
            render(stores)

    def check(folder):
        with STORES[kind](folder) as stores:
            return 70 if wrong_blocks(stores, truth)[1] else 0

    def compare(folder):
        draw(folder)
        with STORES[kind](folder) as stores:
            same = np.array_equal(stores["image"][...], truth.image)
            return 0 if same and wrong_blocks(stores, truth) == (45, 0) else 70

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ended(in_child(lambda: draw(Path(folder))))
        took = time.perf_counter() - start
    while counts["killed"] < times:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            child = in_child(lambda folder=folder: draw(folder))
            while not (folder / "made").exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.8) * took)
            os.kill(child, signal.SIGKILL)
            counts["killed"] += ended(child) == -signal.SIGKILL
            found = ended(in_child(lambda folder=folder: check(folder)))
            counts["lost"] += found == 70
            counts["unreadable"] += found not in (0, 70)
            if found == 0:
                again = ended(in_child(lambda folder=folder: compare(folder)))
                counts["resumed to other bits"] += again != 0
    return counts


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_killed_renderings_go_on():
    """In a process of its own, in which no library has made threads."""
    subprocess.run([sys.executable, __file__, "10"], check=True, cwd=ROOT)


def main(times):
    truth = spt.warp_composite(tiles(), PLACES)
    rng, bad = np.random.default_rng(), 0
    for kind in STORES:
        counts = kill(kind, times, rng, truth)
        print(kind, dict(counts), flush=True)  # noqa: T201
        bad += sum(count for key, count in counts.items() if key != "killed")
    return min(bad, 99)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS))

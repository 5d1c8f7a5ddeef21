"""What writers keep to, whatever ends them: the old file stays, or the new is whole.

`python tests/io/test_io_writers.py` kills each of them many times, and counts.
"""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import RLock

import h5py
import numpy as np
import pytest

import spectral_tools as spt
from spectral_tools.io import _files
from tests.children import ended, in_child

pytest.importorskip("tifffile")
pytest.importorskip("ome_zarr.io")
pytest.importorskip("zarr")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def short_collections():
    """Let each collection of garbage here look at what was made here alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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
    options = {"quantity": "Height", "units": "nm", "positions": 1}
    spt.io.write_usid(path, pixels(value, side), **options)


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


class Interrupting:
    """An image during whose reading the user interrupts."""

    shape, dtype = (600, 600), np.dtype(np.uint16)

    def __getitem__(self, key):
        if key[0].stop == 600:
            interrupt()
        return np.zeros(self.shape, self.dtype)[key]


def interrupt(*_, **__):
    message = "stop"
    raise KeyboardInterrupt(message)


@pytest.mark.parametrize("moment", ["while it is made", "when it is whole"])
@each
def test_an_interrupt_leaves_the_old_file_and_nothing_else(
    name, moment, tmp_path, monkeypatch
):
    path, (write, _) = tmp_path / name, WRITERS[name]
    write(path, 1)
    before = contents(name, path)
    if moment == "when it is whole":
        monkeypatch.setattr(_files, "_put_in_place", interrupt)
    elif name.endswith(".h5"):
        monkeypatch.setattr(h5py.Group, "create_dataset", interrupt)
    elif "ome" in name:
        monkeypatch.setattr(sys.modules[__name__], "pixels", lambda *_: Interrupting())
    else:
        monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        write(path, 2)
    monkeypatch.undo()
    gc.collect()
    assert contents(name, path) == before
    assert listed(tmp_path) == [name]


# Where the target is


@each
def test_links_are_followed_and_modes_kept(name, tmp_path):
    (tmp_path / "there").mkdir()
    path, there = tmp_path / name, tmp_path / "there" / name
    path.symlink_to(there)
    WRITERS[name][0](path, 1)
    there.chmod(0o750 if there.is_dir() else 0o640)
    WRITERS[name][0](path, 2)
    assert path.is_symlink()
    assert there.stat().st_mode & 0o777 == (0o750 if there.is_dir() else 0o640)
    assert listed(tmp_path / "there") == [name]


@each
def test_a_link_to_nowhere_is_refused(name, tmp_path):
    (tmp_path / name).symlink_to(tmp_path / "missing" / name)
    with pytest.raises(ValueError, match=r"must be in a folder that can be .*missing"):
        WRITERS[name][0](tmp_path / name, 1)
    assert listed(tmp_path) == [name]


@files
def test_what_is_no_file_is_not_replaced(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="`path` must be a file; got the folder"):
        WRITERS[name][0](tmp_path / name, 1)
    pipe = tmp_path / f"pipe {name}"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="must be a file or a folder; got the device"):
        WRITERS[name][0](pipe, 1)


@pytest.fixture
def plain_user():
    """Be somebody whom modes of files stop, in a folder of one's own."""
    if os.name != "posix":
        pytest.skip("Windows has no such users")
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


@each
def test_what_is_read_only_is_not_replaced(name, plain_user):
    path = plain_user / name
    WRITERS[name][0](path, 1)
    path.chmod(0o550 if path.is_dir() else 0o440)
    with pytest.raises(ValueError, match="`path` must be writeable; got the read-only"):
        WRITERS[name][0](path, 2)
    assert listed(plain_user) == [name]
    path.chmod(0o750)


# What killed writers leave


def left_room(path):
    """Return a room as a killed writer of a target leaves it."""
    room = Path(tempfile.mkdtemp(prefix=_files._prefix(path), dir=path.parent))
    (room / "new").write_text("half of it")
    return room


@each
def test_what_a_killed_writer_left_is_removed(name, tmp_path):
    left_room(tmp_path / name)
    other = left_room(tmp_path / f"{name}x")
    WRITERS[name][0](tmp_path / name, 1)
    assert listed(tmp_path) == sorted([name, other.name])


def test_what_a_writer_makes_is_left_to_it(tmp_path):
    path = tmp_path / "list.txt"
    with _files.beside(path, "new") as made:
        made.write_text("first")
        write_list(path, 1)
        assert made.read_text() == "first"
    assert path.read_text() == "first"
    assert listed(tmp_path) == ["list.txt"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_comes_back_where_none_can_be_exchanged(killed, tmp_path, monkeypatch):
    """Where a system needs two steps, a writer may end between them."""
    monkeypatch.setattr(_files, "_exchange", lambda *_: False)
    path = tmp_path / "m.ome.zarr"
    write_zarr(path, 1)
    before = contents(path.name, path)
    write_zarr(path, 2)
    assert contents(path.name, path) != before
    write_zarr(path, 1)
    if killed:
        path.rename(left_room(path) / _files.OLD)
        with pytest.raises(ValueError, match="`path` must be new unless `overwrite`"):
            spt.io.write_ome_zarr(path, pixels(2))
    else:
        with _files.beside(path, "new") as made:
            path.rename(made.with_name(_files.OLD))
            made.mkdir()
            monkeypatch.setattr(_files, "_put_in_place", lambda *_: None)
    assert contents(path.name, path) == before
    assert listed(tmp_path) == [path.name]


# Kills at random moments


def summary(found):
    return sha256(repr((sha256(found[0]).hexdigest(), found[1])).encode()).hexdigest()


def end(name, sent, times, rng):
    """End a writer by a signal some times, and count what is where it should be.

    Nothing is written or read in this process: threads of libraries do not live on in
    a child.
    """
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path, write = Path(folder) / name, WRITERS[name][0]
        truth = Path(folder) / "truth"

        def prepare():
            found = []
            for value in (2, 1):
                write(path, value)
                found.append(summary(contents(name, path)))
            truth.write_text("\n".join(found))

        def check():
            return truth.read_text().split("\n").index(summary(contents(name, path)))

        def interrupted(value):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                write(path, value)
            except KeyboardInterrupt:
                return 50

        os.waitpid(in_child(prepare), 0)
        start = time.perf_counter()
        os.waitpid(in_child(lambda: write(path, 2)), 0)
        took = time.perf_counter() - start
        while counts["ended"] < times:
            child = in_child(lambda: interrupted(2))
            time.sleep(rng.uniform(0.1, 1) * took)
            os.kill(child, sent)
            status = ended(child)
            counts["ended"] += status in (50, -sent)
            counts["crashed"] += status < 0 and status != -sent
            # Such as an interrupt that comes while a file is closed.
            counts["other errors"] += status not in (0, 50) and status > 0
            found = ended(in_child(check))
            counts["unreadable or lost"] += found not in (0, 1)
            counts["left until the next"] += len(listed(Path(folder))) > 2
            os.waitpid(in_child(lambda: write(path, 1)), 0)
            counts["left"] += len(listed(Path(folder))) > 2
    return counts


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_kills_leave_the_old_file_or_the_new_one():
    """In a process of its own, in which no library has made threads."""
    subprocess.run([sys.executable, __file__, "10"], check=True, cwd=ROOT)


def warm_up():
    """Load all that children need: they are ended while they write, not before."""
    import ome_zarr.writer  # noqa: PLC0415
    from tqdm.auto import tqdm  # noqa: PLC0415

    assert ome_zarr.writer
    # Its own lock is shared with children, and stays locked by one that is killed.
    tqdm.set_lock(RLock())
    tqdm.monitor_interval = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, _) in WRITERS.items():
            if not name.endswith("zarr"):
                write(Path(folder) / name, 1)
                contents(name, Path(folder) / name)


def main(times):
    warm_up()
    rng, bad = np.random.default_rng(), 0
    for sent in (signal.SIGKILL, signal.SIGINT):
        for name in WRITERS:
            counts = end(name, sent, times, rng)
            print(sent.name, name, dict(counts), flush=True)  # noqa: T201
            wrong = ("crashed", "unreadable or lost", "left")
            bad += sum(counts[key] for key in wrong)
    return min(bad, 99)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS))

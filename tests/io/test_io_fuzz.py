"""Broken files of every kind: readers answer with one of two errors, or read them."""

import faulthandler
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spectral_tools as spt

tifffile = pytest.importorskip("tifffile")

#: All that a reader may raise at a file, whatever is in it.
ALLOWED = (ValueError, OSError)
NUMBERS = [b"0", b"-1", b"nan", b"1e999", b"99999999999999999999", b"1.5", b"inf", b""]

RIGID = "Rigid2DTransform_double_2_2 vp 3 0.25 5.0 -7.5 fp 2 64.0 32.0"
GRID = (
    "GridTransform_double_2_2 vp 12 0.0 0.0 52.0 1.0 99.0 2.0 1.0 41.0 50.0 40.5 "
    "101.0 42.0 fp 7 0.0 1.0 2.0 0.0 0.0 100.0 40.0"
)
MESH = (
    "MeshTransform_double_2_2 vp 8 0.5 0.25 70.0 20.0 1.0 0.0 120.0 -3.5 "
    "fp 8 0.0 16.0 16.0 -1.0 2.0 100.0 40.0 2.0"
)
POLYNOMIAL = (
    "LegendrePolynomialTransform_double_2_2_2 vp 12 1.0 0.02 1.1 0.0 0.03 -0.05 "
    "1.0 0.9 -0.04 0.06 0.0 0.01 fp 4 64.0 32.0 60.0 30.0"
)


def use(transform):
    """Do with a transform what can be done with it."""
    for function in (
        spt.io.itk_matrix,
        spt.io.itk_points,
        spt.io.format_itk,
        lambda each: spt.io.map_itk(each, [(3.0, 4.0)]),
    ):
        try:
            function(transform)
        except ValueError:
            continue


def read_stos(path):
    use(spt.io.read_stos(path).transform)


def read_mosaic(path):
    for transform in spt.io.read_mosaic(path).transforms:
        use(transform)


def read_transform(path):
    """Read a transform as text that a program has got from somewhere."""
    try:
        use(spt.io.parse_itk(path.read_text("latin-1")))
    except ValueError as error:
        message = str(error).replace("`text`, line", f"{path}, line")
        raise ValueError(message) from error


HEAD = "number_of_images: 3\npixel_spacing: 1.0\nuse_std_mask: 0\n"
TEXTS = {
    "transform": (read_transform, MESH),
    "stos": (
        read_stos,
        (
            f"1.png\n2.png\n0\n1\n1 1 80 60\n2.0 0.5 83 61\n{MESH}\n"
            "two_user_supplied_masks:\na.png\nb.png\n"
        ),
    ),
    "mosaic": (
        read_mosaic,
        (
            f"format_version_number: 1\n{HEAD}image:\n1.png\n{RIGID}\nimage:\n2.png\n"
            f"{GRID}\nimage:\na b.png\n{POLYNOMIAL}\n"
        ),
    ),
    "old mosaic": (
        read_mosaic,
        f"{HEAD}image: 1.png {RIGID}\nimage: 2 3.png {MESH}\nimage: 3.png {GRID}\n",
    ),
    "positions": (
        spt.io.read_tile_configuration,
        (
            "# Define\ndim = 2\nmultiseries = true\n\n# Define the image coordinates\n"
            "a.tif; 0; (0.0, 0.0)\na.tif; 1; (921.5, -3.25)\nb.tif; 2; (1e3, 7)\n"
        ),
    ),
}


def broken(data, rng):
    """Return bytes with one to four kinds of damage."""
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(data) + 1))
        kind = rng.integers(6)
        if kind == 0:
            data = data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place]
        elif kind == 2:
            lines = data.split(b"\n")
            first, second = rng.integers(len(lines), size=2)
            lines[first], lines[second] = lines[second], lines[first]
            data = b"\n".join(lines)
        elif kind == 3:
            words = data.split(b" ")
            words[rng.integers(len(words))] = NUMBERS[rng.integers(len(NUMBERS))]
            data = b" ".join(words)
        elif kind == 4:
            other = int(rng.integers(len(data) + 1))
            data = data[:place] + data[min(place, other) : max(place, other)][:99]
        else:
            data = data[:place] + rng.bytes(int(rng.integers(8))) + data[place:]
    return data


def check_text(kind, count, folder):
    reader, text = TEXTS[kind]
    check(reader, text.encode(), broken, count, folder / "file")


def check(reader, data, damage, count, path, named=None):
    """Read files with damage: each is read, or named by an error."""
    rng = np.random.default_rng(7)
    outcomes, unnamed = {True: 0, False: 0}, 0
    for _ in range(count):
        path.write_bytes(damage(data, rng))
        try:
            reader(path)
            outcomes[True] += 1
        except ALLOWED as error:
            outcomes[False] += 1
            unnamed += str(named or path) not in str(error)
    assert unnamed == 0
    # Damage that is noticed, and damage that is not, are both there.
    assert min(outcomes.values()) > count / 100


@pytest.mark.parametrize("kind", TEXTS)
def test_readers_of_text_survive_broken_files(kind, tmp_path):
    check_text(kind, 300, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_readers_of_text_survive_many_broken_files(kind, tmp_path):
    check_text(kind, 10_000, tmp_path)


# Images


def damaged(data, rng):
    """Return bytes with some of them changed, or their end cut off."""
    if rng.random() < 0.05:
        return data[: rng.integers(len(data))]
    found = bytearray(data)
    # Most of a small file may be empty: only bytes that say something are changed.
    said = np.flatnonzero(np.frombuffer(data, np.uint8))
    for place in rng.choice(said, int(rng.integers(1, 6))):
        kind = int(rng.integers(3))
        found[place] = (int(rng.integers(256)), 255, found[place] ^ 1)[kind]
    return bytes(found)


IMAGES = {
    "png": lambda path, image: Image.fromarray(image).save(path),
    "tif": tifffile.imwrite,
    "zlib.tif": lambda path, image: tifffile.imwrite(
        path, image, compression="zlib", tile=(16, 16)
    ),
}


def check_images(kind, count, folder):
    path = folder / f"0.{kind}"
    IMAGES[kind](path, np.arange(400, dtype=np.uint8).reshape(20, 20) % 7)

    def reader(_):
        [tile] = spt.io.tile_folder(folder, f"{{index}}.{kind}").tiles
        assert np.asarray(tile).shape == tile.shape
        assert tile[:1].shape == (1, *tile.shape[1:])

    # What its libraries say on their own is theirs.
    with warnings.catch_warnings(action="ignore"):
        check(reader, path.read_bytes(), damaged, count, path)


@pytest.mark.parametrize("kind", IMAGES)
def test_folders_survive_broken_images(kind, tmp_path):
    check_images(kind, 200, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMAGES)
def test_folders_survive_many_broken_images(kind, tmp_path):
    check_images(kind, 10_000, tmp_path)


# Files of microscopes


def read_whole(found):
    for image in found.images:
        assert np.asarray(image).shape == image.shape
        assert image[:1].shape == (1, *image.shape[1:])


def check_ome_tiff(count, folder):
    path = folder / "a.ome.tif"
    image = np.arange(800, dtype=np.uint8).reshape(2, 20, 20) % 7
    spt.io.write_ome_tiff(path, image, pixel_size=0.5, origin=(1, 2, 3), levels=1)

    def reader(_):
        read_whole(spt.io.read_ome_tiff(path))

    with warnings.catch_warnings(action="ignore"):
        check(reader, path.read_bytes(), damaged, count, path)


def check_ome_zarr(count, folder):
    pytest.importorskip("ome_zarr.io")
    path = folder / "a.ome.zarr"
    image = np.arange(400, dtype=np.uint8).reshape(20, 20) % 7
    spt.io.write_ome_zarr(path, image, pixel_size=0.5, origin=(1, 2), levels=1)

    def reader(_):
        read_whole(spt.io.read_ome_zarr(path))

    for part in (".zattrs", "0/.zarray", "0/0/0"):
        data = (path / part).read_bytes()
        with warnings.catch_warnings(action="ignore"):
            check(reader, data, damaged, count // 3, path / part, named=path)
        (path / part).write_bytes(data)


FORMATS = {"tiff": check_ome_tiff, "zarr": check_ome_zarr}


@pytest.mark.parametrize("kind", FORMATS)
def test_readers_of_acquisitions_survive_broken_files(kind, tmp_path):
    FORMATS[kind](300, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_readers_of_acquisitions_survive_many_broken_files(kind, tmp_path):
    FORMATS[kind](10_000, tmp_path)


# HDF5: the library itself may fall over its own files, so a child process reads them


def write_usid(path):
    spt.io.write_usid(
        path,
        np.arange(60.0).reshape(3, 4, 5),
        quantity="Current",
        units="nA",
        axes=["Y", "X", "Bias"],
    )


def write_result(path):
    links = [((0, 0), (0, 1)), ((0, 1), (0, 2))]
    spt.io.save_result(path, spt.solve_rigid(links, [(0, 90)] * 2, [(0, 10)] * 2))


def read_usid(path):
    spt.io.read_usid_tree(path)
    spt.io.read_usid(path, fill_value=0)


HDF5 = {
    "usid": (write_usid, read_usid),
    "result": (write_result, spt.io.load_result),
}


def read_damaged(kind, first, last, folder):
    """Read damaged files; the number of each is written before it is tried."""
    writer, reader = HDF5[kind]
    path, log = Path(folder, "file.h5"), Path(folder, "at")
    writer(path)
    data = path.read_bytes()
    for number in range(first, last):
        log.write_text(str(number))
        path.write_bytes(damaged(data, np.random.default_rng((11, number))))
        # What takes longer goes round in circles.
        faulthandler.dump_traceback_later(5, exit=True)
        try:
            reader(path)
        except ALLOWED as error:
            if str(path) not in str(error) and "fill_value" not in str(error):
                raise
    faulthandler.cancel_dump_traceback_later()
    log.write_text(str(last))


def check_hdf5(kind, count, folder):
    """Run a child over all files, and again behind one that the library fell over.

    Returns the number of each such file, and the line of Python that called the
    library.
    """
    first, faults = 0, []
    while first < count:
        code = (
            "import importlib.util, sys\n"
            f"spec = importlib.util.spec_from_file_location('fuzz', {__file__!r})\n"
            "fuzz = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(fuzz)\n"
            f"fuzz.read_damaged({kind!r}, {first}, {count}, {str(folder)!r})\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", code],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        first = int(Path(folder, "at").read_text())
        if done.returncode == 0:
            break
        calls = re.findall(r"most recent call first\):\n  File \"(.*)", done.stderr)
        # The innermost call is h5py's: nothing in Python can catch what happens then.
        assert calls, done.stderr[-3000:]
        assert "h5py" in calls[0], done.stderr[-3000:]
        faults.append((first, done.returncode, calls[0]))
        first += 1
    return faults


@pytest.mark.parametrize("kind", HDF5)
def test_readers_of_hdf5_survive_broken_files(kind, tmp_path):
    assert check_hdf5(kind, 150, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", HDF5)
def test_readers_of_hdf5_survive_many_broken_files(kind, tmp_path):
    assert check_hdf5(kind, 10_000, tmp_path) == []

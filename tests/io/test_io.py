import subprocess
import sys
import tracemalloc
from itertools import pairwise
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt
from spectral_tools._sampling.downsample import halve
from spectral_tools.io import _ome_tiff

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
ome_zarr_io = pytest.importorskip("ome_zarr.io")
ome_zarr_reader = pytest.importorskip("ome_zarr.reader")

OME = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
WRITERS = {"m.ome.tif": spt.io.write_ome_tiff, "m.ome.zarr": spt.io.write_ome_zarr}
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]

both = pytest.mark.parametrize("name", WRITERS)


def write(folder, name, image, **options):
    path = folder / name
    WRITERS[name](path, image, tile=(16, 32), **options)
    return path


def levels_of(path):
    """Read all levels with the reader of the format."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            return [level.asarray() for level in file.series[0].levels]
    return [np.asarray(level) for level in node_of(path).data]


def node_of(path):
    [node] = list(ome_zarr_reader.Reader(ome_zarr_io.parse_url(path))())
    return node


def pixels_of(path):
    """Return the element of OME-XML that describes the image."""
    with tifffile.TiffFile(path) as file:
        tree = ET.fromstring(file.ome_metadata)
    [pixels] = tree.findall("ome:Image/ome:Pixels", OME)
    return pixels


def multiscale_of(path):
    [multiscale] = zarr.open_group(path, mode="r").attrs["multiscales"]
    return multiscale


def means_of_fours(image):
    """Return the means of 2 x 2 pixels, computed one by one."""
    rows, cols = (-(-n // 2) for n in image.shape[-2:])
    found = np.empty((*image.shape[:-2], rows, cols))
    for row in range(rows):
        for col in range(cols):
            cell = image[..., 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            found[..., row, col] = cell.astype(float).mean(axis=(-2, -1))
    if image.dtype.kind != "f":
        found = found.round()
    return found.astype(image.dtype)


def random_image(rng, shape, dtype):
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_level_holds_the_means_of_the_one_before(name, dtype, rng, tmp_path):
    image = random_image(rng, (37, 85), dtype)
    image.flags.writeable = False
    levels = levels_of(write(tmp_path, name, image))
    assert [level.shape for level in levels] == [(37, 85), (19, 43), (10, 22), (5, 11)]
    assert_array_equal(levels[0], image)
    for level, smaller in pairwise(levels):
        assert smaller.dtype == image.dtype
        # Sums of floats in another order: a few of their last bits.
        assert_allclose(smaller, means_of_fours(level), rtol=1e-6, atol=1e-7)


@both
@pytest.mark.parametrize(
    ("shape", "channel_axis", "moved"),
    [
        ((3, 40, 35), None, (3, 40, 35)),
        ((2, 40, 35), 0, (2, 40, 35)),
        ((40, 35, 2), -1, (2, 40, 35)),
        ((3, 40, 35, 2), 3, (2, 3, 40, 35)),
        ((3, 2, 40, 35), 1, (2, 3, 40, 35)),
    ],
)
def test_planes_and_channels_come_back(name, shape, channel_axis, moved, rng, tmp_path):
    image = random_image(rng, shape, "u2")
    path = write(tmp_path, name, image, channel_axis=channel_axis)
    if channel_axis is not None:
        image = np.moveaxis(image, channel_axis, 0)
    first, second, third = levels_of(path)
    assert first.shape == moved
    assert_array_equal(first, image)
    assert_array_equal(second, means_of_fours(image))
    assert_array_equal(third, means_of_fours(second))


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (16, 32)])
@both
def test_images_of_any_size_are_written(name, shape, rng, tmp_path):
    image = random_image(rng, shape, "u1")
    levels = levels_of(write(tmp_path, name, image))
    assert_array_equal(levels[0], image)
    assert max(levels[-1].shape) <= 16


@both
def test_levels_are_as_many_as_asked_for(name, rng, tmp_path):
    image = random_image(rng, (40, 33), "u1")
    assert len(levels_of(write(tmp_path, name, image, levels=1))) == 1
    (tmp_path / "more").mkdir()
    path = write(tmp_path / "more", name, image, levels=7)
    assert levels_of(path)[-1].size == 1


def test_ties_do_not_make_levels_brighter(rng):
    image = rng.integers(0, 100, (1000, 1000)).astype("u1")
    # Rounding adds at most 0.3 per pixel, at random: 0.0006 in the mean of 250000.
    assert abs(halve(image).mean() - image.mean()) < 0.003


def test_only_finite_pixels_count_in_means():
    image = np.array([[1, np.nan, np.nan, np.nan], [3, np.inf, np.nan, np.nan]])
    assert_array_equal(halve(image), [[2, np.nan]])


# Where the image comes from


def in_file(image, folder):
    file = h5py.File(folder / "store.h5", "w")
    return file.create_dataset("image", data=image, chunks=(2, 30, 20))


def in_dask(image, _):
    dask_array = pytest.importorskip("dask.array")
    return dask_array.from_array(image, chunks=((1, 2), (30, 10), (25, 10)))


def mapped(image, folder):
    array = np.memmap(folder / "raw", image.dtype, "w+", shape=image.shape)
    array[...] = image
    return array


STORES = {
    "list": lambda image, _: image.tolist(),
    "big endian": lambda image, _: image.astype(">i4"),
    "h5py": in_file,
    "zarr": lambda image, _: zarr.array(image, chunks=(2, 30, 20)),
    "dask": in_dask,
    "memmap": mapped,
}


@both
@pytest.mark.parametrize("kind", STORES)
def test_every_store_gives_the_same_file(name, kind, rng, tmp_path):
    image = random_image(rng, (3, 40, 35), "i4")
    store = STORES[kind](image, tmp_path)
    if kind == "list":
        # Lists become the integers of NumPy, which are too long for the formats.
        store = (image / 2).tolist()
        image = image / 2
    levels = levels_of(write(tmp_path, name, store, channel_axis=0))
    assert_array_equal(levels[0], image)
    assert_array_equal(levels[1], means_of_fours(image))


class Counting:
    """A store that counts how often each of its chunks was needed."""

    def __init__(self, image, chunks):
        self.image, self.shape, self.dtype = image, image.shape, image.dtype
        self.chunks = chunks
        grid = [-(-n // c) for n, c in zip(image.shape, chunks, strict=True)]
        self.reads = np.zeros(grid, int)

    def __getitem__(self, key):
        touched = []
        for one, length, chunk in zip(key, self.shape, self.chunks, strict=True):
            start, stop, _ = one.indices(length)
            touched.append(slice(start // chunk, -(-stop // chunk)))
        self.reads[tuple(touched)] += 1
        return self.image[key]


@both
@pytest.mark.parametrize(
    ("shape", "chunks", "channel_axis"),
    [
        ((90, 70), (1, 1), None),
        ((90, 70), (24, 20), None),
        ((90, 70), (90, 70), None),
        ((3, 90, 70), (2, 48, 70), None),
        ((90, 70, 3), (32, 32, 3), -1),
        ((3, 2, 50, 70), (1, 1, 20, 30), 0),
    ],
)
def test_every_chunk_is_read_once(name, shape, chunks, channel_axis, rng, tmp_path):
    store = Counting(random_image(rng, shape, "u1"), chunks)
    path = write(tmp_path, name, store, channel_axis=channel_axis)
    assert_array_equal(store.reads, 1)
    wanted = store.image
    if channel_axis is not None:
        wanted = np.moveaxis(wanted, channel_axis, 0)
    assert_array_equal(levels_of(path)[0], wanted)


class Endless:
    """A tall image that is nowhere in memory: each pixel tells its row."""

    dtype = np.dtype("u2")

    def __init__(self, rows, cols):
        self.shape = (rows, cols)

    def __getitem__(self, key):
        rows, cols = (
            np.arange(*one.indices(n)) for one, n in zip(key, self.shape, strict=True)
        )
        return (rows[:, None] + 0 * cols).astype(self.dtype)


@both
def test_memory_does_not_grow_with_the_image(name, tmp_path):
    peaks = []
    for rows in (2048, 10240):
        image = Endless(rows, 512)
        tracemalloc.start()
        WRITERS[name](tmp_path / f"{rows}{name}", image, tile=(256, 256))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What grows are lists of tiles: far less than the 8 MiB that the image grew.
    assert peaks[1] - peaks[0] < 2e5
    assert levels_of(tmp_path / f"10240{name}")[-1].shape == (160, 8)


# Blocks


@pytest.fixture
def mosaic(rng):
    """Tiles, matrices and what they look like together."""
    tiles = rng.integers(0, 65536, (3, 40, 50)).astype("u2")
    matrices = [spt.translation(s) for s in [(0, 0), (5.2, 31.7), (28.4, 10.9)]]
    plain = spt.warp_composite(tiles, matrices, blocks=(16, 24))
    return tiles, matrices, plain.image


@both
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_make_the_same_file(name, turned, mosaic, tmp_path):
    tiles, matrices, image = mosaic
    blocks = spt.composite_blocks(tiles, matrices, blocks=(16, 24))
    if turned:
        blocks = reversed(list(blocks))
    levels = levels_of(write(tmp_path, name, blocks, shape=image.shape))
    assert_array_equal(levels[0], image)
    assert_array_equal(levels[1], means_of_fours(image))


@both
def test_blocks_hold_all_channels(name, rng, tmp_path):
    tiles = rng.random((2, 40, 50, 2), dtype=np.float32)
    options = {
        "matrices": [np.eye(3), spt.translation((5, 30))],
        "channel_axis": -1,
        "blocks": (16, 24),
    }
    image = spt.warp_composite(tiles, **options).image
    blocks = spt.composite_blocks(tiles, **options)
    path = write(tmp_path, name, blocks, shape=image.shape, channel_axis=-1)
    assert_array_equal(levels_of(path)[0], np.moveaxis(image, -1, 0))


def block(rows, cols, shape=None, dtype="u1"):
    """Return a block and where it lies."""
    shape = (rows.stop - rows.start, cols.stop - cols.start) if shape is None else shape
    return (rows, cols), np.zeros(shape, dtype)


LEFT, RIGHT = slice(0, 20), slice(20, 40)


@both
@pytest.mark.parametrize(
    ("blocks", "match"),
    [
        ([], "must yield at least one block; got none"),
        ([block(LEFT, LEFT)], "must yield blocks that fill 800 pixels once; got 400"),
        ([block(LEFT, LEFT, (20, 1))], r"as their slices, \(20, 20\); got uint8"),
        (
            [block(LEFT, LEFT), block(LEFT, RIGHT, dtype="f4")],
            "must yield uint8 blocks .* got float32",
        ),
    ],
)
def test_blocks_that_do_not_fit_are_named(name, blocks, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write(tmp_path, name, iter(blocks), shape=(20, 40))
    assert list(tmp_path.iterdir()) == []


@both
def test_blocks_need_a_shape(name, tmp_path):
    with pytest.raises(ValueError, match="`shape` must be given for an image in bl"):
        write(tmp_path, name, iter([block(LEFT, LEFT)]))


# What is complete takes its place


class Failing(Endless):
    """An image that cannot be read to its end."""

    def __getitem__(self, key):
        if key[0].stop > 2100:
            message = "no more"
            raise OSError(message)
        return super().__getitem__(key)


@both
@pytest.mark.parametrize("in_blocks", [False, True])
def test_an_interrupted_write_leaves_the_old_file(name, in_blocks, rng, tmp_path):
    old = random_image(rng, (30, 40), "u2")
    options = {"overwrite": True} if name.endswith("zarr") else {}
    write(tmp_path, name, old)
    image = Failing(4096, 40)
    if in_blocks:
        options["shape"] = image.shape
        boxes = [(slice(k, k + 64), slice(0, 40)) for k in range(0, 4096, 64)]
        image = ((box, Failing(4096, 40)[box]) for box in boxes)
    with pytest.raises(OSError, match="no more"):
        write(tmp_path, name, image, **options)
    assert_array_equal(levels_of(tmp_path / name)[0], old)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@both
def test_a_complete_write_replaces_the_old_file(name, rng, tmp_path):
    options = {"overwrite": True} if name.endswith("zarr") else {}
    write(tmp_path, name, random_image(rng, (90, 80), "u2"))
    image = random_image(rng, (30, 40), "f4")
    levels = levels_of(write(tmp_path, name, image, **options))
    assert len(levels) == 3
    assert_array_equal(levels[0], image)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_image_may_come_from_the_folder_that_it_replaces(rng, tmp_path):
    image = random_image(rng, (60, 70), "u2")
    path = write(tmp_path, "m.ome.zarr", image)
    stored = zarr.open_group(path, mode="r")["0"]
    levels = levels_of(write(tmp_path, "m.ome.zarr", stored, overwrite=True))
    assert_array_equal(levels[0], image)


def test_only_a_zarr_folder_is_replaced(rng, tmp_path):
    image = random_image(rng, (30, 40), "u2")
    folder = tmp_path / "m.ome.zarr"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="`path` must be new unless `overwrite` is"):
        write(tmp_path, "m.ome.zarr", image)
    with pytest.raises(ValueError, match="`path` must be new or a Zarr folder; got"):
        write(tmp_path, "m.ome.zarr", image, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "all of it"


def test_files_can_be_read_by_those_who_may_read_others(rng, tmp_path):
    (tmp_path / "plain").write_text("")
    plain = (tmp_path / "plain").stat().st_mode
    path = write(tmp_path, "m.ome.tif", random_image(rng, (30, 40), "u2"))
    assert path.stat().st_mode == plain


# What files say


def test_tiff_says_how_large_and_where(rng, tmp_path):
    image = random_image(rng, (2, 3, 40, 35), "u2")
    path = write(
        tmp_path, "m.ome.tif", image, channel_axis=0, channel_names=["DAPI", "a<b"],
        pixel_size=(2, 0.5, 0.25), origin=(1, -8, 100),
    )  # fmt: skip
    pixels = pixels_of(path)
    said = pixels.attrib
    assert [said[f"Size{axis}"] for axis in "CZYX"] == ["2", "3", "40", "35"]
    assert [float(said[f"PhysicalSize{axis}"]) for axis in "ZYX"] == [2, 0.5, 0.25]
    assert {said[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"µm"}
    channels = pixels.findall("ome:Channel", OME)
    assert [channel.attrib["Name"] for channel in channels] == ["DAPI", "a<b"]
    planes = pixels.findall("ome:Plane", OME)
    assert [int(plane.attrib["TheC"]) for plane in planes] == [0, 0, 0, 1, 1, 1]
    places = [[float(p.attrib[f"Position{axis}"]) for axis in "ZYX"] for p in planes]
    assert_array_equal(places, 2 * [[2, -4, 25], [4, -4, 25], [6, -4, 25]])
    assert {p.attrib["PositionXUnit"] for p in planes} == {"µm"}


def test_tiff_says_nothing_that_it_was_not_told(rng, tmp_path):
    pixels = pixels_of(write(tmp_path, "m.ome.tif", random_image(rng, (40, 35), "u2")))
    assert not [name for name in pixels.attrib if name.startswith("PhysicalSize")]
    assert pixels.findall("ome:Plane", OME) == []


def test_tiff_gives_places_in_pixels_where_their_size_is_unknown(rng, tmp_path):
    image = random_image(rng, (40, 35), "u2")
    pixels = pixels_of(write(tmp_path, "m.ome.tif", image, origin=(3, 4)))
    [plane] = pixels.findall("ome:Plane", OME)
    assert plane.attrib["PositionY"] == "3.0"
    assert plane.attrib["PositionYUnit"] == "pixel"


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(
    ("shape", "channel_axis"),
    [((40, 70, 3), -1), ((3, 40, 70), 0), ((2, 40, 70, 3), 3)],
)
def test_tiff_holds_colours(shape, channel_axis, dtype, rng, tmp_path):
    image = random_image(rng, shape, dtype)
    path = write(tmp_path, "m.ome.tif", image, channel_axis=channel_axis, rgb=True)
    image = np.moveaxis(image, channel_axis, -1)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].photometric.name == "RGB"
        assert len(file.pages) == image[..., 0, 0, 0].size
    first, second, *_ = levels_of(path)
    assert_array_equal(first, image)
    means = means_of_fours(np.moveaxis(image, -1, 0))
    assert_array_equal(second, np.moveaxis(means, 0, -1))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("compression", ["zlib", None])
def test_tiff_is_tiled_and_compressed_as_asked(compression, workers, rng, tmp_path):
    image = np.repeat(random_image(rng, (40, 5), "u2"), 14, axis=1)
    path = write(tmp_path, "m.ome.tif", image, compression=compression, workers=workers)
    with tifffile.TiffFile(path) as file:
        levels = [level.pages[0] for level in file.series[0].levels]
    assert {level.tile for level in levels} == {(16, 32)}
    name = "NONE" if compression is None else "ADOBE_DEFLATE"
    assert {level.compression.name for level in levels} == {name}
    assert_array_equal(levels_of(path)[0], image)


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_large_files_have_offsets_of_eight_bytes(limit, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_ome_tiff, "CLASSIC", limit)
    path = write(tmp_path, "m.ome.tif", random_image(rng, (40, 70), "u2"))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (limit == 1000)


def test_zarr_says_how_large_and_where(rng, tmp_path):
    image = random_image(rng, (3, 40, 35, 2), "u2")
    path = write(
        tmp_path, "m.ome.zarr", image, channel_axis=-1, channel_names=["DAPI", "actin"],
        pixel_size=(2, 0.5, 0.25), unit="nm", origin=(1, -8, 100),
    )  # fmt: skip
    said = multiscale_of(path)
    assert said["version"] == "0.4"
    assert [axis["name"] for axis in said["axes"]] == list("czyx")
    assert [axis["type"] for axis in said["axes"]] == ["channel", *3 * ["space"]]
    assert {axis.get("unit") for axis in said["axes"]} == {None, "nanometer"}
    found = node_of(path).metadata
    assert found["channel_names"] == ["DAPI", "actin"]
    last = levels_of(path)[-1]
    ranges = [[channel.min(), channel.max()] for channel in last]
    assert_array_equal(found["contrast_limits"], ranges)
    [scale, start] = found["coordinateTransformations"][0]
    assert scale == {"type": "scale", "scale": [1, 2, 0.5, 0.25]}
    assert start == {"type": "translation", "translation": [0, 2, -4, 25]}


def test_levels_of_zarr_lie_on_each_other(rng, tmp_path):
    """A pixel lies at the mean of the places of those that it is made of."""
    image = random_image(rng, (64, 64), "u2")
    path = write(tmp_path, "m.ome.zarr", image, pixel_size=0.5, origin=(7, -3))
    for level, dataset in enumerate(multiscale_of(path)["datasets"]):
        scale, start = dataset["coordinateTransformations"]
        for pixel in (0, 3):
            found = np.array(scale["scale"]) * pixel + start["translation"]
            members = np.arange(2**level * pixel, 2**level * (pixel + 1))
            truth = 0.5 * (members.mean() + np.array([7, -3]))
            assert_allclose(found, truth, rtol=0, atol=1e-12)


def test_zarr_without_pixel_size_counts_in_pixels(rng, tmp_path):
    said = multiscale_of(
        write(tmp_path, "m.ome.zarr", random_image(rng, (40, 35), "u1"))
    )
    assert said["axes"] == [{"name": axis, "type": "space"} for axis in "yx"]
    scales = [one["coordinateTransformations"][0]["scale"] for one in said["datasets"]]
    assert scales == [[1, 1], [2, 2], [4, 4]]


def test_zarr_is_valid_for_the_models_of_the_format(rng, tmp_path):
    models = pytest.importorskip("ome_zarr_models.v04")
    path = write(
        tmp_path, "m.ome.zarr", random_image(rng, (2, 40, 35), "u1"), channel_axis=0
    )
    image = models.Image.from_zarr(zarr.open_group(path, mode="r"))
    assert len(image.attributes.multiscales[0].datasets) == 3
    assert len(image.attributes.omero.channels) == 2


def test_zarr_shows_channels_without_values_too(tmp_path):
    image = np.full((2, 20, 20), np.nan, "f4")
    image[1] = np.arange(20)
    path = write(tmp_path, "m.ome.zarr", image, channel_axis=0)
    windows = zarr.open_group(path, mode="r").attrs["omero"]["channels"]
    assert [one["window"]["end"] for one in windows] == [0, 18.5]


# What is refused


@both
@pytest.mark.parametrize(
    ("image", "options", "match"),
    [
        (np.zeros(5), {}, "`image` must have 2 or 3 axes besides channels"),
        (np.zeros((0, 5)), {}, "`image` must have 2 or 3 axes besides channels, and"),
        (np.zeros((5, 5)), {"channel_axis": 2}, "`channel_axis` must be an axis of"),
        (np.zeros((5, 5)), {"shape": (4, 5)}, "`shape` must be that of the image"),
        (np.zeros((5, 5)), {"pixel_size": 0}, "`pixel_size` must be greater than 0"),
        (np.zeros((5, 5)), {"pixel_size": (1, 2, 3)}, "`pixel_size` must be a number"),
        (np.zeros((5, 5)), {"pixel_size": np.nan}, "`pixel_size` must be finite"),
        (np.zeros((5, 5)), {"unit": "furlong"}, "`unit` must be one of pm, "),
        (np.zeros((5, 5)), {"origin": (1, 2, 3)}, r"`origin` must have shape \(2,\)"),
        (np.zeros((5, 5)), {"levels": 0}, "`levels` must be at least 1"),
        (np.zeros((5, 5)), {"levels": 5}, "`levels` must end at one pixel, 4; got 5"),
        (
            np.zeros((2, 5, 5)),
            {"channel_axis": 0, "channel_names": ["a"]},
            "`channel_names` must be 2 strings",
        ),
        *(
            (
                np.zeros((2, 5, 5)),
                {"channel_axis": 0, "channel_names": ["a", f"b{control}"]},
                "`channel_names` must be text without controls; got 'b",
            )
            for control in "\0\x0b\x1f\n\ud800\uffff"
        ),
    ],
)
def test_what_cannot_be_written_is_said_before(name, image, options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write(tmp_path, name, image, **options)
    assert list(tmp_path.iterdir()) == []


@both
@pytest.mark.parametrize("dtype", ["?", "f2", "i8", "c8"])
def test_values_must_fit_into_the_formats(name, dtype, tmp_path):
    with pytest.raises(TypeError, match=r"`image` must hold u1 i1 .*; got dtype"):
        write(tmp_path, name, np.zeros((5, 5), dtype))


@both
def test_the_folder_must_be_there(name, tmp_path):
    with pytest.raises(ValueError, match="`path` must be in a folder that can be wr"):
        write(tmp_path / "missing", name, np.zeros((5, 5)))


@both
def test_tiles_must_be_multiples_of_16(name, tmp_path):
    with pytest.raises(ValueError, match="`tile` must hold multiples of 16; got"):
        WRITERS[name](tmp_path / name, np.zeros((5, 5)), tile=(16, 20))


@pytest.mark.parametrize(
    ("image", "options", "match"),
    [
        (np.zeros((5, 5), "u1"), {"rgb": True}, "`rgb` must come with 3 channels"),
        (
            np.zeros((3, 5, 5), "u1"),
            {"rgb": True, "channel_axis": 0, "channel_names": ["rgb"]},
            "`channel_names` must be 3 strings",
        ),
        (np.zeros((5, 5)), {"compression": "lzw"}, "`compression` must be one of"),
        (np.zeros((5, 5)), {"workers": 0}, "`workers` must be at least 1"),
    ],
)
def test_what_tiff_cannot_hold_is_said_before(image, options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write(tmp_path, "m.ome.tif", image, **options)


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "m.ome.tif").mkdir()
    with pytest.raises(ValueError, match="`path` must be a file; got the folder"):
        write(tmp_path, "m.ome.tif", np.zeros((5, 5)))


def test_names_of_zarr_need_channels(tmp_path):
    with pytest.raises(ValueError, match="`channel_names` must come with `channel_a"):
        write(tmp_path, "m.ome.zarr", np.zeros((5, 5)), channel_names=["a"])


def test_importing_the_package_does_not_import_the_formats():
    names = "('tifffile', 'zarr', 'ome_zarr')"
    code = f"import spectral_tools, sys; assert not [m for m in {names} if m in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True)

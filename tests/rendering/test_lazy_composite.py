import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import spectral_tools as spt
from spectral_tools._rendering import lazy_composite, plan
from spectral_tools._rendering.regions import Part

da = pytest.importorskip("dask.array")

# So small that a few small tiles make many regions, each of several blocks.
REGION = {2: (1, 32, 48), 3: (4, 32, 32)}
BLOCK = {2: (1, 8, 48), 3: (2, 8, 24)}
PLACES = [(0, 0), (5.25, 31.7), (28.4, 10.9), (40, 60)]


@pytest.fixture(autouse=True)
def small_regions(monkeypatch):
    monkeypatch.setattr(plan, "REGION", REGION)
    monkeypatch.setattr(lazy_composite, "REGION", REGION)
    monkeypatch.setattr(plan, "BLOCK", BLOCK)


@pytest.fixture(autouse=True)
def threads():
    dask = pytest.importorskip("dask")

    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture
def tiles(rng):
    return [rng.normal(1000, 300, (40, 50)).astype(np.float32) for _ in PLACES]


@pytest.fixture
def matrices():
    return np.array([spt.translation(place) for place in PLACES])


def assert_same(tiles, matrices, *, chunks=None, local=None, **options):
    """The lazy mosaic has the bits of that of arrays in memory."""
    plain = spt.warp_composite(tiles if local is None else local, matrices, **options)
    mosaic = spt.lazy_composite(tiles, matrices, chunks=chunks, **options)
    assert mosaic.shape == plain.image.shape
    assert mosaic.dtype == plain.image.dtype
    assert_array_equal(mosaic.compute(), plain.image)
    return mosaic


# The same bits


@pytest.mark.parametrize(
    "chunks",
    [
        None,
        30,
        (17, 64),
        "auto",
        -1,
        ((10, 70), (50, 1, 59)),
        ((0, 80), (48, 62)),
        (32, 48),
        (64, 96),
    ],
)
@pytest.mark.parametrize("order", [1, 3])
def test_chunks_do_not_matter(tiles, matrices, chunks, order):
    mosaic = assert_same(tiles, matrices, chunks=chunks, order=order)
    if chunks is not None:
        wanted = da.core.normalize_chunks(chunks, mosaic.shape, dtype=mosaic.dtype)
        assert mosaic.chunks == wanted


@pytest.mark.parametrize("blend", list(plan.BLENDS))
def test_blends_do_not_matter(tiles, matrices, blend):
    assert_same(tiles[:3], matrices[:3], chunks=29, blend=blend)


@pytest.mark.parametrize("blend", ["nearest", "seam"])
def test_soft_seams_do_not_matter(tiles, matrices, blend):
    assert_same(tiles[:3], matrices[:3], chunks=29, blend=blend, seam_width=6.0)


@pytest.mark.parametrize("order", [0, 5])
def test_orders_do_not_matter(tiles, matrices, order):
    assert_same(tiles, matrices, chunks=29, order=order)


@pytest.mark.parametrize("scale", [0.37, 1, 1.6])
@pytest.mark.parametrize("order", [1, 5])
def test_scales_and_turned_tiles_do_not_matter(tiles, matrices, scale, order):
    turned = matrices @ spt.rotation(0.3)
    assert_same(tiles, turned, chunks=(23, 31), scale=scale, order=order)


@pytest.mark.parametrize("order", [1, 3])
def test_volumes(rng, order):
    tiles = [rng.random((6, 20, 30)) for _ in range(2)]
    places = [np.eye(4), spt.translation((1.5, 7.2, 20.8))]
    mosaic = assert_same(tiles, places, chunks=(5, 20, 20), order=order)
    assert mosaic.ndim == 3


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels(rng, matrices, axis):
    shape = np.insert([40, 50], axis % 3, 3)
    tiles = rng.integers(0, 65536, (4, *shape)).astype(np.uint16)
    mosaic = assert_same(tiles, matrices, channel_axis=axis)
    assert mosaic.chunks[axis] == (3,)
    assert_same(tiles, matrices, channel_axis=axis, chunks=20)


def test_masks_holes_and_missing_tiles(rng, tiles, matrices):
    tiles[0][10:14, 30:40] = np.nan
    masks = [rng.random((40, 50)) > 0.2, None, np.ones((40, 50), bool), None]
    tiles[3] = None
    matrices[3] = np.nan
    for order in (1, 3):
        mosaic = assert_same(
            tiles, matrices, valid=masks, order=order, chunks=25, fill_value=-1
        )
        assert (mosaic.compute() == -1).any()


def test_bounds_and_dtypes(tiles, matrices):
    bounds = [(-10, 20), (45.5, 90)]
    mosaic = assert_same(tiles, matrices, bounds=bounds, dtype=np.uint8, chunks=40)
    assert mosaic.shape == (56, 70)


# Tiles of every kind


@pytest.fixture
def stored(tiles, tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "tiles.zarr", mode="w")
    return [
        group.create_array(f"{n}", data=tile, chunks=(16, 20))
        for n, tile in enumerate(tiles)
    ]


@pytest.mark.parametrize("order", [1, 3])
def test_tiles_in_a_zarr_store(tiles, stored, matrices, order):
    assert_same(stored, matrices, local=tiles, order=order, chunks=30)


def test_tiles_in_a_file(tiles, matrices, tmp_path):
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        stack = file.create_dataset("stack", data=np.stack(tiles))
        assert_same(stack, matrices, local=tiles)
        assert_same(stack, matrices, local=tiles, valid=file["stack"][0] > 900)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("chunks", [(40, 50), (11, 13), ((1, 30, 9), (49, 1))])
def test_lazy_tiles(tiles, matrices, chunks, order):
    lazy = [da.from_array(tile, chunks=chunks) for tile in tiles]
    assert_same(lazy, matrices, local=tiles, order=order, chunks=30)


def test_lazy_stacks_channels_and_masks(rng, matrices):
    stack = rng.random((4, 2, 40, 50))
    masks = rng.random((4, 40, 50)) > 0.3
    assert_same(
        da.from_array(stack, chunks=(3, 1, 16, 16)),
        matrices,
        local=stack,
        channel_axis=0,
        valid=[da.from_array(mask, chunks=17) for mask in masks],
        chunks=(1, 40, 40),
    )


def test_tiles_of_mixed_kinds(tiles, stored, matrices):
    mixed = [tiles[0], stored[1], da.from_array(tiles[2], chunks=9), tiles[3]]
    assert_same(mixed, matrices, local=tiles, chunks=33)


# Nothing more than is needed


class Watched:
    """A tile that remembers how many pixels were read of it."""

    def __init__(self, tile):
        self.tile, self.read = tile, 0
        self.shape, self.dtype = tile.shape, tile.dtype

    def __getitem__(self, key):
        part = self.tile[key]
        self.read += part.size
        return part


def test_a_slice_reads_the_tiles_below_it(tiles, matrices):
    watched = [Watched(tile) for tile in tiles]
    mosaic = spt.lazy_composite(watched, matrices)
    assert [tile.read for tile in watched] == [0, 0, 0, 0]
    mosaic[:3, :3].compute()
    assert [tile.read > 0 for tile in watched] == [True, True, True, False]
    # No more than the region (32, 48) and a neighbour.
    assert watched[0].read <= 33 * 49


def test_chunks_of_lazy_tiles_are_computed_once_and_only_if_needed(tiles, matrices):
    computed = []

    def note(tile, block_info=None):
        computed.append(tuple(map(tuple, block_info[None]["array-location"])))
        return tile

    lazy = [
        da.from_array(tile, chunks=(10, 10)).map_blocks(
            note, dtype=tile.dtype, meta=np.empty((0, 0), tile.dtype)
        )
        for tile in tiles[:1]
    ]
    mosaic = spt.lazy_composite(lazy, matrices[:1])
    assert computed == []
    mosaic[:5, :5].compute()
    # The first region ends at row 32 and column 48.
    assert len(computed) == len(set(computed)) == 4 * 5
    computed.clear()
    mosaic.compute(optimize_graph=False)
    assert len(computed) == len(set(computed)) == 4 * 5


def graph_bytes(mosaic):
    return len(pickle.dumps(mosaic.__dask_graph__()))


def test_arrays_in_memory_travel_about_once(rng):
    tiles = [rng.random((200, 200)) for _ in range(4)]
    places = [spt.translation((0, 190 * n)) for n in range(4)]
    carried = graph_bytes(spt.lazy_composite(tiles, places))
    # Neighbouring regions share a row and a column of 32 by 48 pixels: 5 %.
    assert 1 < carried / sum(tile.nbytes for tile in tiles) < 1.2


def test_the_graph_of_stored_tiles_is_small(stored):
    def size(regions):
        bounds = [(0, 0), (32, 48 * regions)]
        return graph_bytes(
            spt.lazy_composite(stored * 5, [np.eye(3)] * 20, bounds=bounds)
        )

    # A name and a number; by far more if each region knew the tiles.
    assert (size(200) - size(100)) / 100 < 200


def test_each_task_carries_parts_alone(tiles, matrices):
    mosaic = spt.lazy_composite(tiles, matrices, chunks=(32, 48))
    tasks = dict(mosaic.__dask_graph__())
    far = tasks[(mosaic.name, 2, 2)]
    [parts] = far[-1]
    assert {number for number, *_ in parts} == {3}
    whole = len(pickle.dumps(tiles[3]))
    assert len(pickle.dumps(far)) < 0.5 * whole


def test_chunks_of_whole_regions_are_one_task_each(stored, matrices):
    mosaic = spt.lazy_composite(stored, matrices, chunks=(64, 96))
    # And the plan.
    assert len(dict(mosaic.__dask_graph__())) == mosaic.npartitions + 1


def test_parts_tell_if_more_is_asked_of_them(tiles):
    part = Part(tiles[0][10:20, 5:9], (10, 5), tiles[0])
    assert_array_equal(part[12:14, 5:9], tiles[0][12:14, 5:9])
    assert part[40:40, 50:50].shape == (0, 0)
    with pytest.raises(ValueError, match="`key` must lie within 10 to 20; got 9 to 12"):
        part[9:12, 5:9]


# Around it


def test_a_mosaic_is_written_to_zarr(stored, tiles, matrices, tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "mosaic.zarr"
    mosaic = spt.lazy_composite(stored, matrices, chunks=(32, 32))
    da.to_zarr(mosaic, str(path))
    written = zarr.open_array(path)
    assert written.chunks == (32, 32)
    assert_array_equal(written[...], spt.warp_composite(tiles, matrices).image)


def test_chunks_are_checked_by_dask(tiles, matrices):
    with pytest.raises(ValueError, match="chunks"):
        spt.lazy_composite(tiles, matrices, chunks=((3, 4), (5, 6)))


def test_without_dask_the_error_names_what_to_install(tiles, matrices, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ModuleNotFoundError, match=r"spectral_tools\[dask\]"):
        spt.lazy_composite(tiles, matrices)


def test_dask_is_not_imported_with_the_package():
    code = "import spectral_tools, sys; sys.exit('dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("bounds", ["union", "intersection"])
@pytest.mark.parametrize("scale", [0.37, 1, 1.6])
def test_bounds_stand_for_what_they_were_found_from(tiles, matrices, bounds, scale):
    tiles, matrices = tiles[:3], matrices[:3] @ spt.rotation(0.1)
    found = spt.composite_bounds(tiles, matrices, bounds=bounds)
    named = spt.warp_composite(tiles, matrices, bounds=bounds, scale=scale)
    given = spt.warp_composite(tiles, matrices, bounds=found, scale=scale)
    assert_array_equal(found[0], named.origin)
    assert_array_equal(given.image, named.image)
    if scale == 1:
        assert_array_equal(found[1] - found[0], named.image.shape)


def test_bounds_of_tiles_with_channels(rng, matrices):
    tiles = rng.random((4, 3, 40, 50))
    found = spt.composite_bounds(tiles, matrices, channel_axis=0)
    mosaic = spt.warp_composite(tiles, matrices, channel_axis=0)
    assert_array_equal(found[1] - found[0], mosaic.image.shape[1:])


def test_bounds_are_checked(tiles, matrices):
    with pytest.raises(ValueError, match="`bounds` must be one of"):
        spt.composite_bounds(tiles, matrices, bounds="all")

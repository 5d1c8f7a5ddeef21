import os
import pickle
import signal
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import spectral_tools as spt
from spectral_tools._matching import match_tiles
from spectral_tools._rendering import plan

GRID, SIDE = (3, 3), 128
FORKS = "forkserver" if hasattr(os, "fork") else "spawn"


@pytest.fixture(scope="module")
def made():
    scene = spt.gaussian_texture((400, 400), rng=1)
    return spt.simulate_tiles(
        scene, GRID, (SIDE, SIDE), overlap=0.25, stage_sigma=2, noise_sigma=0.1, rng=1
    )


@pytest.fixture(scope="module")
def tiles(made):
    return made.tiles.astype(np.float32)


@pytest.fixture(scope="module")
def links():
    return spt.grid_links(GRID)


def assert_equal_results(found, wanted):
    """All fields of two results hold the same bits."""
    for name in type(wanted).__dataclass_fields__:
        one, two = getattr(found, name), getattr(wanted, name)
        if hasattr(type(two), "__dataclass_fields__"):
            assert_equal_results(one, two)
        else:
            assert_array_equal(one, two, err_msg=name)


# What travels


def weighed(sizes):
    """Return a map that keeps how long its tasks are when they travel."""

    def use(function, items):
        for item in items:
            task = pickle.dumps((function, item))
            sizes.append(len(task))
            copy, part = pickle.loads(task)
            yield copy(part)

    return use


@pytest.fixture
def stored(tiles, tmp_path):
    zarr = pytest.importorskip("zarr")
    return zarr.create_array(tmp_path / "t.zarr", data=tiles, chunks=(1, 64, 64))


def test_a_link_of_stored_tiles_travels_as_two_handles(made, stored, links):
    sizes = []
    options = {"positions": made.stage, "max_shift": 10}
    found = spt.match_tiles(stored, links, **options, workers=weighed(sizes))
    assert_equal_results(found, spt.match_tiles(stored, links, **options))
    # About 2000 bytes; the smallest of the strips has 60 times as many.
    assert len(sizes) == len(links)
    assert max(sizes) < 4000


def test_a_link_of_tiles_in_memory_carries_what_they_can_share(made, tiles, links):
    sizes = []
    options = {"positions": made.stage, "max_shift": 10}
    found = spt.match_tiles(tiles, links, **options, workers=weighed(sizes))
    assert_equal_results(found, spt.match_tiles(tiles, links, **options))
    # Each of two strips: a quarter of a tile, the window of the search and the stage.
    assert max(sizes) < 2 * (0.25 + 20 / SIDE) * tiles[0].nbytes


def test_a_link_under_a_pattern_carries_its_own_tiles_alone(tiles, rng):
    dust = rng.normal(size=tiles[0].shape).astype(np.float32)
    many = list((tiles + dust).repeat(3, axis=0))
    links = np.array([(0, 3), (9, 12), (18, 21)])
    sizes = []
    found = spt.match_tiles(many, links, workers=weighed(sizes))
    assert_equal_results(found, spt.match_tiles(many, links))
    # Matched once, and again without the pattern: with at most four tiles, two
    # means and the spectrum of what scatters.
    assert len(sizes) > len(links)
    assert max(sizes) < 8 * tiles[0].nbytes


def test_many_links_travel_in_groups(made, stored, links, monkeypatch):
    monkeypatch.setattr(match_tiles, "MOST_TASKS", 5)
    sizes = []
    options = {"positions": made.stage, "max_shift": 10}
    found = spt.match_tiles(stored, links, **options, workers=weighed(sizes))
    assert_equal_results(found, spt.match_tiles(stored, links, **options))
    assert (len(links), len(sizes)) == (12, 6)


@pytest.mark.parametrize(("blend", "order"), [("feather", 3), ("multiband", 1)])
def test_a_region_of_stored_tiles_travels_as_handles(made, stored, blend, order):
    sizes = []
    options = {"blend": blend, "order": order, "blocks": (200, 200)}
    found = spt.warp_composite(stored, made.matrices, **options, workers=weighed(sizes))
    wanted = spt.warp_composite(stored, made.matrices, **options)
    assert_array_equal(found.image, wanted.image)
    assert_array_equal(found.coverage, wanted.coverage)
    assert max(sizes) < 0.2 * SIDE**2 * stored.dtype.itemsize


def test_a_region_of_tiles_in_memory_carries_what_lies_below(made, tiles):
    sizes = []
    found = spt.warp_composite(
        tiles, made.matrices, blocks=(64, 64), workers=weighed(sizes)
    )
    wanted = spt.warp_composite(tiles, made.matrices, blocks=(64, 64))
    assert_array_equal(found.image, wanted.image)
    # No region sees more than four tiles of its own size; and 1 kB for each.
    assert max(sizes) < 4 * (66 * 66 * tiles.itemsize + 1000)


# On a cluster


@pytest.fixture(scope="module")
def client():
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    # Workers that are killed are replaced by forks of a process that has all imported.
    method = {"distributed.worker.multiprocessing-method": FORKS}
    with (
        dask.config.set(method),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def kill_a_worker(client):
    os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)


def killing(client):
    """Return a map whose first result costs a worker its life."""

    def use(function, items):
        results = client.get_executor().map(function, items)
        yield next(results)
        kill_a_worker(client)
        yield from results

    return use


def test_matching_outlives_a_worker(made, stored, links, client):
    options = {"positions": made.stage, "max_shift": 10}
    found = spt.match_tiles(stored, links, **options, workers=killing(client))
    assert_equal_results(found, spt.match_tiles(stored, links, **options))


def test_placing_on_a_cluster(made, stored, client):
    workers = client.get_executor().map
    found = spt.place_tiles(stored, positions=made.stage, workers=workers)
    assert_equal_results(found, spt.place_tiles(stored, positions=made.stage))


def test_rendering_into_a_store_outlives_a_worker(made, stored, client, tmp_path):
    zarr = pytest.importorskip("zarr")
    blocks = (50, 70)
    plain = spt.warp_composite(stored, made.matrices, blocks=blocks)
    out = zarr.create_array(
        tmp_path / "out.zarr", shape=plain.image.shape, dtype="f4", chunks=blocks
    )
    found = spt.warp_composite(
        stored, made.matrices, out=out, blocks=blocks, workers=killing(client)
    )
    assert_array_equal(out[...], plain.image)
    assert_array_equal(found.coverage, plain.coverage)


@pytest.fixture
def small_regions(monkeypatch):
    """The plan tells workers how large its regions are."""
    monkeypatch.setattr(plan, "REGION", {2: (1, 32, 48)})
    monkeypatch.setattr(plan, "BLOCK", {2: (1, 8, 48)})


@pytest.mark.usefixtures("client", "small_regions")
@pytest.mark.parametrize(
    ("kind", "order"), [("stored", 3), ("lazy", 1), ("in memory", 1)]
)
def test_a_lazy_mosaic_on_a_cluster(made, tiles, stored, kind, order, tmp_path):
    da, zarr = pytest.importorskip("dask.array"), pytest.importorskip("zarr")
    given = {
        "stored": stored,
        "lazy": da.from_zarr(stored, chunks=(2, 50, 50)),
        "in memory": tiles,
    }[kind]
    mosaic = spt.lazy_composite(given, made.matrices, chunks=(64, 64), order=order)
    da.to_zarr(mosaic, str(tmp_path / "mosaic.zarr"))
    plain = spt.warp_composite(tiles, made.matrices, order=order)
    assert_array_equal(zarr.open_array(tmp_path / "mosaic.zarr")[...], plain.image)


@pytest.mark.usefixtures("small_regions")
def test_a_lazy_mosaic_outlives_a_worker(made, stored, client, tmp_path):
    da, zarr = pytest.importorskip("dask.array"), pytest.importorskip("zarr")
    mosaic = spt.lazy_composite(stored, made.matrices, chunks=(32, 48))
    slow = mosaic.map_blocks(lambda block: (time.sleep(0.03), block)[1], dtype="f4")
    out = tmp_path / "mosaic.zarr"
    writing = client.compute(da.to_zarr(slow, str(out), compute=False))
    deadline = time.monotonic() + 20
    while not list(out.glob("c/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    kill_a_worker(client)
    assert not writing.done()
    writing.result()
    # Zarr writes a chunk beside its place first: what was killed may have left that.
    chunks = [path for path in out.glob("c/*/*") if path.name.isdigit()]
    assert len(chunks) == mosaic.npartitions
    plain = spt.warp_composite(stored, made.matrices)
    assert_array_equal(zarr.open_array(out)[...], plain.image)

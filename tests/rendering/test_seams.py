import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage.draw import disk

import spectral_tools as spt
from spectral_tools._rendering import plan, seams
from spectral_tools._rendering.plan import Bounded

SOFT = [("nearest", 12.0), ("seam", 0.0), ("seam", 6.0)]


def turned(angle, shift):
    return spt.translation(shift) @ spt.rotation(angle)


@pytest.fixture
def tiles(rng):
    return [rng.random((140, 150)).astype(np.float32) for _ in range(4)]


@pytest.fixture
def matrices():
    shifts = [(0, 0), (5.25, 91.5), (98.5, 20.75), (103.75, 110.25)]
    return np.array([turned(0.02 * k, shift) for k, shift in enumerate(shifts)])


@pytest.fixture(scope="module")
def moved():
    """Two pictures of one scene; in the second, two discs are elsewhere.

    One of them is cut by the straight seam in the first picture, the other one in
    the second. The pictures differ in brightness too.
    """
    scene = 100 + 20 * spt.gaussian_texture((200, 400), rng=1)
    places = [[(60, 200), (140, 170)], [(100, 225), (150, 203)]]
    shown, discs = [], []
    for centres in places:
        shown.append(scene.copy())
        for centre in centres:
            inside = disk(centre, 14)
            shown[-1][inside] = 230
            discs.append(inside)
    noise = np.random.default_rng(2).normal(0, 3, (2, 200, 250))
    tiles = [shown[0][:, :250] + noise[0], shown[1][:, 150:] + noise[1] + 16]
    return tiles, [np.eye(3), spt.translation((0, 150))], discs


def pasted(tiles, matrices):
    """Each tile alone on the canvas of all, NaN elsewhere."""
    lone = {"bounds": [(0, 0), (200, 400)], "fill_value": np.nan}
    return [
        spt.warp_composite([tile], [matrix], **lone).image
        for tile, matrix in zip(tiles, matrices, strict=True)
    ]


# Soft seams of stated width


@pytest.mark.parametrize(("scale", "zoom"), [(1, 1), (0.5, 1), (1, 2), (2, 0.5)])
@pytest.mark.parametrize("width", [8.0, 31.5])
def test_the_ramp_is_linear_and_as_wide_as_was_asked(width, scale, zoom):
    """The width counts pixels of the result, whatever those of tiles are."""
    # High tiles, so that the nearest borders are those on the left and right.
    shape = (round(400 / zoom), round(300 / zoom))
    tiles = [np.zeros(shape), np.ones(shape)]
    zoomed = np.diag([zoom, zoom, 1.0])
    matrices = [zoomed, spt.translation((0, 100)) @ zoomed]
    mosaic = spt.warp_composite(
        tiles, matrices, scale=scale, blend="nearest", seam_width=width
    )
    row = mosaic.image[mosaic.image.shape[0] // 2]
    # The seam lies in the middle between the outer borders of the mosaic.
    borders = (-zoom / 2, 400 - zoom / 2)
    places = np.arange(row.size) - (np.mean(borders) - mosaic.origin[1]) * scale
    # 1e-9: the ramp is that simple, but for rounding.
    assert_allclose(row, np.clip(0.5 + places / width, 0, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_seam_without_width_is_the_hard_one(tiles, matrices, dtype):
    tiles = [(1000 * tile).astype(dtype) for tile in tiles]
    hard = spt.warp_composite(tiles, matrices, blend="nearest")
    narrow = spt.warp_composite(tiles, matrices, blend="nearest", seam_width=1e-9)
    assert_array_equal(narrow.image, hard.image)


def test_the_ramp_ends_where_it_should(tiles, matrices):
    """Nothing changes where all other borders are nearer by the width."""
    hard = spt.warp_composite(tiles, matrices, blend="nearest").image
    soft = spt.warp_composite(tiles, matrices, blend="nearest", seam_width=9).image
    far = spt.warp_composite(tiles, matrices, blend="nearest", seam_width=80).image
    assert 0.02 < np.mean(soft != hard) < 0.2
    assert np.mean(far != hard) > 0.2


# What holds for both


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_order_of_tiles_does_not_matter(tiles, matrices, blend, width):
    look = {"blend": blend, "seam_width": width}
    plain = spt.warp_composite(tiles, matrices, **look)
    order = [2, 0, 3, 1]
    again = spt.warp_composite([tiles[k] for k in order], matrices[order], **look)
    # 1e-6: sums of up to four values in single precision.
    assert_allclose(again.image, plain.image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", [2**16, 2**9])
@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_regions_leave_no_trace(tiles, matrices, blend, width, cells, monkeypatch):
    monkeypatch.setattr(seams, "CELLS", cells)
    look = {"blend": blend, "seam_width": width}
    whole = spt.warp_composite(tiles, matrices, **look)
    monkeypatch.setitem(plan.REGION, 2, (1, 77, 90))
    pieced = spt.warp_composite(tiles, matrices, **look)
    threads = spt.warp_composite(tiles, matrices, workers=2, **look)
    # Coordinates are counted from another pixel, in single precision: 3e-5 of a
    # pixel, in which values differ by up to 1. Seams are cut no other way.
    assert_allclose(pieced.image, whole.image, rtol=0, atol=3e-5)
    assert_array_equal(pieced.coverage, whole.coverage)
    assert_array_equal(threads.image, pieced.image)


def elsewhere(function, items):
    """Use a function like `map`, in a copy as other processes get it."""
    return [pickle.loads(pickle.dumps(function))(item) for item in items]


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_other_processes_render_the_same(tiles, matrices, blend, width, monkeypatch):
    monkeypatch.setitem(plan.REGION, 2, (1, 77, 90))
    look = {"blend": blend, "seam_width": width}
    here = spt.warp_composite(tiles, matrices, **look)
    there = spt.warp_composite(tiles, matrices, workers=elsewhere, **look)
    assert_array_equal(there.image, here.image)


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_a_part_of_the_mosaic_is_cut_from_the_whole(tiles, matrices, blend, width):
    look = {"blend": blend, "seam_width": width}
    whole = spt.warp_composite(tiles, matrices, **look)
    low = np.array([90, 80])
    bounds = whole.origin + np.array([low, low + 40])
    part = spt.warp_composite(tiles, matrices, bounds=bounds, **look)
    assert_allclose(part.image, whole.image[90:130, 80:120], rtol=0, atol=3e-5)


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_constants_stay_constant_around_holes(matrices, rng, blend, width):
    tiles = [np.full((140, 150), 0.1, np.float32) for _ in range(4)]
    tiles[1][rng.random((140, 150)) < 0.02] = np.nan
    hole = np.ones((140, 150), bool)
    hole[40:110, 30:100] = False
    mosaic = spt.warp_composite(
        tiles, matrices, blend=blend, seam_width=width,
        valid=[hole, None, None, hole], fill_value=np.nan,
    )  # fmt: skip
    there = mosaic.coverage > 0
    # Beside a hole a value is a sum over known pixels, divided by their share: a few
    # roundings of 6e-8 each.
    assert_allclose(mosaic.image[there], np.float32(0.1), rtol=3e-7)
    assert np.isnan(mosaic.image[~there]).all()


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_constants_are_exact_where_all_pixels_count(matrices, blend, width):
    tiles = [np.full((140, 150), 0.1, np.float32)] * 4
    mosaic = spt.warp_composite(
        tiles, matrices, blend=blend, seam_width=width, fill_value=0.1
    )
    assert_array_equal(mosaic.image, np.float32(0.1))


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_integers_are_rounded(matrices, rng, blend, width):
    tiles = rng.integers(0, 256, (4, 140, 150)).astype(np.uint8)
    look = {"blend": blend, "seam_width": width}
    found = spt.warp_composite(tiles, matrices, **look).image
    exact = spt.warp_composite(tiles, matrices, dtype=np.float32, **look).image
    assert found.dtype == np.uint8
    assert_array_equal(found, np.rint(exact))


@pytest.mark.parametrize(("blend", "width"), SOFT)
def test_a_volume_has_seams_too(rng, blend, width):
    volume = rng.random((30, 40, 60))
    tiles = [volume[..., :40], volume[..., 20:]]
    matrices = [np.eye(4), spt.translation((0, 0, 20))]
    look = {"blend": blend, "seam_width": width}
    mosaic = spt.warp_composite(tiles, matrices, **look)
    # 1e-12: equal tiles are equal wherever the seam runs.
    assert_allclose(mosaic.image, volume, rtol=0, atol=1e-12)
    bright = [np.zeros((30, 40, 40)), np.ones((30, 40, 40))]
    parts = spt.warp_composite(bright, matrices, **look).image
    assert parts[:, :, 0].max() == 0
    assert parts[:, :, -1].min() == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"blend": "seam", "seam_width": -1.0}, "`seam_width` must be finite and at"),
        ({"blend": "seam", "seam_width": np.nan}, "`seam_width` must be finite and at"),
        (
            {"seam_width": 3.0},
            "`seam_width` must be 0 unless .*; got 3.0 for 'feather'",
        ),
        ({"blend": "multiband", "seam_width": 3}, "`seam_width` must be 0 unless"),
    ],
)
def test_widths_that_make_no_sense_are_named(options, match):
    for function in (spt.warp_composite, spt.composite_blocks):
        with pytest.raises(ValueError, match=match):
            function([np.ones((4, 4))], [np.eye(3)], **options)


# Seams that go round what moved


def test_every_pixel_is_that_of_one_tile(moved):
    tiles, matrices, _ = moved
    mosaic = spt.warp_composite(tiles, matrices, blend="seam")
    shown = np.array(pasted(tiles, matrices))
    assert (mosaic.image == shown).any(axis=0).all()
    mixed = spt.warp_composite(tiles, matrices, blend="feather")
    assert not (mixed.image == shown).any(axis=0).all()


def test_what_moved_is_whole_or_absent(moved):
    tiles, matrices, discs = moved
    shown = np.array(pasted(tiles, matrices))
    cut = {}
    for blend in ("nearest", "seam"):
        image = spt.warp_composite(tiles, matrices, blend=blend).image
        share = [np.mean(image[disc] == shown[0][disc]) for disc in discs]
        cut[blend] = [0 < each < 1 for each in share]
    assert sum(cut["nearest"]) == 2
    assert not any(cut["seam"])


def seam_differences(image, shown):
    """Difference of the tiles, but for brightness, at all pixels beside the seam."""
    first = image == shown[0]
    first[np.isnan(shown[1])] = True
    both = np.isfinite(shown).all(axis=0)
    steps = (first[:, 1:] != first[:, :-1]) & both[:, 1:] & both[:, :-1]
    difference = shown[1] - shown[0]
    difference -= np.median(difference[both])
    return np.abs(difference[:, 1:][steps])


def test_tiles_differ_less_along_the_seam_than_along_a_straight_one(moved):
    tiles, matrices, _ = moved
    shown = np.array(pasted(tiles, matrices))
    found = {}
    for blend in ("nearest", "seam"):
        image = spt.warp_composite(tiles, matrices, blend=blend).image
        found[blend] = seam_differences(image, shown)
    # Noise of 3 in each tile gives 3.4 in the mean, and no more than 5 deviations.
    assert found["seam"].mean() < 3.7
    assert found["seam"].max() < 5 * 3 * np.sqrt(2)
    assert found["nearest"].mean() > 4 * found["seam"].mean()
    assert found["nearest"].max() > 100


def test_objects_survive_a_soft_seam(moved):
    tiles, matrices, discs = moved
    shown = np.array(pasted(tiles, matrices))
    image = spt.warp_composite(tiles, matrices, blend="seam", seam_width=8).image
    for disc in discs:
        # Noise of 3: a disc that is mixed with its background is off by tens.
        off = [np.abs(image - each)[disc].mean() for each in shown]
        assert min(off) < 3


def test_a_step_in_brightness_moves_no_seam(moved):
    tiles, matrices, _ = moved
    whole = [np.rint(tile) for tile in tiles]
    plain = spt.warp_composite(whole, matrices, blend="seam").image
    first = plain == pasted(whole, matrices)[0]
    lifted = [whole[0], whole[1] + 512]
    image = spt.warp_composite(lifted, matrices, blend="seam").image
    assert_array_equal(np.where(first, plain, plain + 512), image)


def test_all_channels_have_one_seam(moved):
    tiles, matrices, _ = moved
    colours = [np.stack([tile, np.full_like(tile, k)]) for k, tile in enumerate(tiles)]
    mosaic = spt.warp_composite(colours, matrices, blend="seam", channel_axis=0)
    grey = spt.warp_composite(tiles, matrices, blend="seam")
    assert_array_equal(mosaic.image[0], grey.image)
    shown = pasted(tiles, matrices)
    assert_array_equal(mosaic.image[1] == 0, grey.image == shown[0])


@pytest.mark.parametrize("cells", [2**16, 2**10])
def test_coarse_maps_go_round_what_moved_too(moved, cells, monkeypatch):
    monkeypatch.setattr(seams, "CELLS", cells)
    tiles, matrices, discs = moved
    shown = np.array(pasted(tiles, matrices))
    image = spt.warp_composite(tiles, matrices, blend="seam").image
    for disc in discs:
        assert np.mean(image[disc] == shown[0][disc]) in (0, 1)


def test_seams_go_round_holes(moved):
    """Where a tile has a hole the other one is shown, and a little around it."""
    tiles, matrices, _ = moved
    tiles = [tile.copy() for tile in tiles]
    tiles[0][90:110, 160:180] = np.nan
    mosaic = spt.warp_composite(tiles, matrices, blend="seam")
    assert np.isfinite(mosaic.image).all()
    assert_array_equal(
        mosaic.image[90:110, 160:180], pasted(tiles, matrices)[1][90:110, 160:180]
    )
    assert_array_equal(mosaic.coverage[90:110, 160:180], 1)


def test_many_tiles_share_a_pixel():
    """Every pixel of a dense grid is that of a tile, and each tile is shown."""
    scene = 100 + 20 * spt.gaussian_texture((200, 200), rng=1)
    made = spt.simulate_tiles(scene, (3, 3), (100, 100), overlap=0.6, noise_sigma=5)
    mosaic = spt.warp_composite(made.tiles, made.matrices, blend="seam")
    low = made.positions.min(axis=0).astype(int)
    taken = np.zeros(mosaic.image.shape, int)
    for tile, at in zip(made.tiles, made.positions.astype(int) - low, strict=True):
        inside = slice(at[0], at[0] + 100), slice(at[1], at[1] + 100)
        shown = mosaic.image[inside] == tile
        taken[inside] += shown
        assert shown.sum() > 500
    assert_array_equal(taken, 1)
    assert mosaic.coverage.max() == 9


@pytest.mark.parametrize("count", [2, 3])
def test_tiles_on_top_of_each_other_show_the_first(rng, count):
    tiles = rng.random((count, 30, 40))
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * count, blend="seam")
    assert_array_equal(mosaic.image, tiles[0])


# What is counted


@pytest.mark.parametrize("blend", sorted(plan.BLENDS))
@pytest.mark.parametrize("order", [0, 1, 3])
def test_coverage_counts_the_tiles_that_are_known_there(
    tiles, matrices, rng, blend, order
):
    """A tile counts where the nearest of its pixels is known, whatever the blend."""
    valid = [None, rng.random((140, 150)) < 0.7, None, None]
    tiles[2][rng.random((140, 150)) < 0.2] = np.nan
    known = [np.isfinite(tile) & (True if v is None else v)
             for tile, v in zip(tiles, valid, strict=True)]  # fmt: skip
    mosaic = spt.warp_composite(
        [*tiles, None], [*matrices, np.eye(3)], blend=blend, order=order,
        valid=[*valid, None], fill_value=np.nan,
    )  # fmt: skip
    expected = np.zeros(mosaic.image.shape, int)
    grid = np.moveaxis(np.indices(expected.shape), 0, -1) + mosaic.origin
    for flags, matrix in zip(known, matrices, strict=True):
        inverse = np.linalg.inv(matrix)
        points = grid @ inverse[:2, :2].T + inverse[:2, 2]
        near = np.rint(points).astype(int)
        inside = ((near >= 0) & (near < flags.shape)).all(axis=-1)
        expected[inside] += flags[tuple(near[inside].T)]
    # Points within rounding of half-way between two pixels may count either way.
    assert np.mean(mosaic.coverage != expected) < 1e-4
    assert_array_equal(np.isnan(mosaic.image), mosaic.coverage == 0)


# What is kept


def test_results_are_made_once_and_the_oldest_are_dropped():
    made = []
    kept = Bounded(2)

    def make(key):
        made.append(key)
        return 10 * key

    for key in (1, 2, 1, 3, 1, 2):
        assert kept.get(key, partial(make, key)) == 10 * key
    assert made == [1, 2, 3, 2]


def test_threads_wait_for_the_one_that_computes():
    kept, started, go, calls = Bounded(2), Event(), Event(), []

    def slow():
        calls.append(1)
        started.set()
        go.wait(10)
        return 5

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(kept.get, "key", slow)
        assert started.wait(10)
        second = pool.submit(kept.get, "key", slow)
        go.set()
        assert [first.result(), second.result()] == [5, 5]
    assert len(calls) == 1


def test_an_error_is_not_kept():
    kept = Bounded(2)
    with pytest.raises(ZeroDivisionError, match="division"):
        kept.get("key", lambda: 1 // 0)
    assert kept.get("key", lambda: 7) == 7


def test_copies_elsewhere_start_empty():
    kept = Bounded(2)
    kept.get("key", lambda: 1)
    copy = pickle.loads(pickle.dumps(kept))
    assert copy.get("key", lambda: 2) == 2

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage import data

import spectral_tools as spt
from spectral_tools._rendering import plan

BLENDS = ["maximum", "minimum", "first", "last", "seam", "multiband"]


def moved(row, col):
    return np.array([[1, 0, row], [0, 1, col], [0, 0, 1]])


@pytest.fixture
def tiles(rng):
    return [rng.random((140, 150)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def matrices():
    return np.array([moved(0, 0), moved(5.25, 91.5), moved(98.5, 20.75)])


@pytest.mark.parametrize(
    ("blend", "expected"),
    [("maximum", 6), ("minimum", -4), ("first", 1), ("last", 2)],
)
def test_choices_take_one_of_the_values(blend, expected):
    tiles = [np.full((4, 4), value) for value in (1.0, -4.0, 6.0, 2.0)]
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * 4, blend=blend)
    assert_array_equal(mosaic.image, expected)
    assert_array_equal(mosaic.coverage, 4)


@pytest.mark.parametrize(
    ("blend", "expected"), [("maximum", 2), ("minimum", 1), ("first", 1), ("last", 2)]
)
def test_choices_are_among_pixels_that_count(blend, expected):
    tiles = [np.full((4, 4), value) for value in (9.0, 1.0, 2.0, -9.0)]
    tiles[0][:] = np.nan
    valid = [None, None, None, np.zeros((4, 4), bool)]
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * 4, blend=blend, valid=valid)
    assert_array_equal(mosaic.image, expected)
    assert_array_equal(mosaic.coverage, 2)


@pytest.mark.parametrize("blend", [*BLENDS, "feather"])
def test_missing_tiles_are_skipped_with_their_matrices(tiles, matrices, blend):
    gaps = [None, tiles[0], None, tiles[1], tiles[2]]
    places = np.full((5, 3, 3), np.nan)
    places[[1, 3, 4]] = matrices
    mosaic = spt.warp_composite(gaps, places, blend=blend, valid=[None] * 5)
    plain = spt.warp_composite(tiles, matrices, blend=blend)
    assert_array_equal(mosaic.image, plain.image)
    assert_array_equal(mosaic.coverage, plain.coverage)


def test_some_tile_must_be_there():
    with pytest.raises(ValueError, match="`tiles` must hold at least one image"):
        spt.warp_composite([None, None], [np.eye(3)] * 2)


@pytest.mark.parametrize("blend", BLENDS)
def test_regions_leave_no_trace(tiles, matrices, blend, monkeypatch):
    whole = spt.warp_composite(tiles, matrices, blend=blend)
    monkeypatch.setitem(plan.REGION, 2, (1, 77, 90))
    pieced = spt.warp_composite(tiles, matrices, blend=blend)
    threads = spt.warp_composite(tiles, matrices, blend=blend, workers=2)
    # 3e-5: coordinates are counted from another pixel, in single precision.
    assert_allclose(pieced.image, whole.image, rtol=0, atol=3e-5)
    assert_array_equal(pieced.coverage, whole.coverage)
    assert_array_equal(threads.image, pieced.image)


def test_bands_meet_without_a_step():
    """Two tiles of different brightness show no edge along their seam."""
    tiles = [np.zeros((100, 150)), np.ones((100, 150))]
    places = [moved(0, 0), moved(0, 50)]
    row = spt.warp_composite(tiles, places, blend="multiband").image[50]
    hard = spt.warp_composite(tiles, places, blend="nearest").image[50]
    assert np.abs(np.diff(hard)).max() == 1
    assert np.abs(np.diff(row)).max() < 0.1
    assert_allclose(row[[0, -1]], [0, 1], rtol=0, atol=0.01)


def test_bands_keep_one_tile_as_it_is(tiles):
    mosaic = spt.warp_composite(tiles[:1], [np.eye(3)], blend="multiband")
    # 1e-6: bands are taken apart and summed again in single precision.
    assert_allclose(mosaic.image, tiles[0], rtol=0, atol=1e-6)


def tiles_of(scene, corners, shapes, rng, holes=0):
    """Cut tiles of different shapes, and lose blocks of some of them."""
    tiles = []
    for corner, shape in zip(corners, shapes, strict=True):
        box = tuple(slice(at, at + n) for at, n in zip(corner, shape, strict=True))
        tile = scene[box].copy()
        for _ in range(holes):
            at = rng.integers(0, np.array(tile.shape) - 5)
            tile[tuple(slice(k, k + 11) for k in at)] = np.nan
        tiles.append(tile)
    return tiles


@pytest.mark.parametrize("rng", [1, 2])
@pytest.mark.parametrize("holes", [0, 4])
@pytest.mark.parametrize("ndim", [2, 3])
def test_bands_change_no_tiles_that_agree(rng, holes, ndim):
    """Tiles of one scene give that scene, up to every border and hole."""
    rng = np.random.default_rng(rng)
    scene = 100 + spt.gaussian_texture((20, 230, 260)[3 - ndim :], rng=rng)
    corners = [(0, row, col)[3 - ndim :] for row in (0, 70, 140) for col in (0, 85)]
    shapes = rng.integers(
        (20, 78, 92)[3 - ndim :], (21, 99, 120)[3 - ndim :], (6, ndim)
    )
    tiles = tiles_of(scene, corners, shapes, rng, holes)
    matrices = np.tile(np.eye(ndim + 1), (6, 1, 1))
    matrices[:, :ndim, ndim] = corners
    made = spt.warp_composite(tiles, matrices, blend="multiband")
    expected = scene[tuple(slice(n) for n in made.image.shape)]
    known = made.coverage > 0
    assert (made.coverage > 1).mean() > 0.1
    # 1e-9: differences of equal numbers, in double precision.
    assert_allclose(made.image[known], expected[known], rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("fraction", [0.25, 0.4])
def test_bands_change_no_tiles_that_agree_between_pixels(rng, order, fraction):
    scene = spt.gaussian_texture((230, 260), cutoff=0.2, rng=rng)
    corners = [(row, col) for row in (0, 70, 140) for col in (0, 85)]
    tiles = tiles_of(scene, corners, [(90, 120)] * 6, rng)
    matrices = [moved(row + fraction, col + fraction) for row, col in corners]
    # Ten pixels from the outer border a spline no longer knows where the scene ends.
    bounds = [(10, 10), (220, 195)]
    options = {"bounds": bounds, "order": order}
    made = spt.warp_composite(tiles, matrices, blend="multiband", **options)
    one = spt.warp_composite([scene], [moved(fraction, fraction)], **options)
    # In standard deviations of the scene: next to its border a tile itself knows less,
    # for no pixels lie beyond between which it could be interpolated.
    assert_allclose(made.image, one.image, rtol=0, atol=1e-3)


def test_bands_lead_over_along_all_of_a_seam(rng):
    """The gain of a tile goes over into that of the next without a step."""
    scene = 8 + spt.gaussian_texture((190, 190), cutoff=0.2, rng=rng)
    corners = [(row, col) for row in (0, 90) for col in (0, 90)]
    gains = np.array([1, 1.15, 0.9, 1.25])
    tiles = tiles_of(scene, corners, [(100, 100)] * 4, rng)
    tiles = [gain * tile for gain, tile in zip(gains, tiles, strict=True)]
    matrices = [moved(row, col) for row, col in corners]
    gain = spt.warp_composite(tiles, matrices, blend="multiband").image / scene
    steps = [np.abs(np.diff(gain, axis=axis)).max() for axis in range(2)]
    # Gains differ by up to 0.35, and the coarsest band fades over 16 pixels.
    assert max(steps) < 0.03
    assert gain.min() > 0.88
    assert gain.max() < 1.27


def test_bands_change_nothing_far_from_seams(rng):
    tiles = rng.random((2, 400, 300))
    mosaic = spt.warp_composite(
        tiles, [moved(0, 0), moved(0, 200)], blend="multiband"
    ).image[120:280]
    tiles = tiles[:, 120:280]
    # The seam is at column 249.5; nothing reaches farther than four of the coarsest
    # pixels, which are 16 wide.
    assert_array_equal(mosaic[:, :185], tiles[0][:, :185])
    assert_array_equal(mosaic[:, 314:], tiles[1][:, 114:])
    assert not np.array_equal(mosaic[:, 185:249], tiles[0][:, 185:249])


def test_bands_of_each_channel_are_those_of_its_picture(rng, matrices):
    colours = rng.random((3, 2, 140, 150))
    mosaic = spt.warp_composite(colours, matrices, blend="multiband", channel_axis=0)
    for channel in range(2):
        grey = spt.warp_composite(colours[:, channel], matrices, blend="multiband")
        assert_array_equal(mosaic.image[channel], grey.image)


def test_bands_have_no_steps_where_a_tile_has_a_hole():
    """A hole shows the other tile, whose brightness is led up to from all sides."""
    tiles = np.stack([np.zeros((160, 160)), np.ones((160, 160))])
    tiles[0][60:100, 60:100] = np.nan
    image = spt.warp_composite(tiles, [np.eye(3)] * 2, blend="multiband").image
    assert image[80, 80] > 0.7
    assert max(np.abs(np.diff(image, axis=axis)).max() for axis in range(2)) < 0.05


def test_a_volume_is_blended_by_bands(rng):
    volume = rng.random((6, 20, 20))
    matrix = np.eye(4)
    matrix[1, 3] = 8
    mosaic = spt.warp_composite(
        [volume, volume], [np.eye(4), matrix], blend="multiband"
    )
    assert mosaic.image.shape == (6, 28, 20)
    assert np.isfinite(mosaic.image).all()


def test_bounds_may_be_what_all_tiles_share():
    tiles = [np.ones((10, 10))] * 2
    mosaic = spt.warp_composite(
        tiles, [np.eye(3), moved(2.5, 4)], bounds="intersection"
    )
    assert_array_equal(mosaic.origin, [2, 4])
    assert_array_equal(mosaic.coverage, np.full((8, 6), 2))


def test_what_all_tiles_share_may_not_be_empty():
    tiles = [np.ones((10, 10))] * 2
    with pytest.raises(ValueError, match="`bounds` must leave a pixel; got 'inter"):
        spt.warp_composite(tiles, [np.eye(3), moved(20, 0)], bounds="intersection")


def test_an_outlier_is_named():
    with pytest.raises(ValueError, match=r"in which tile 2 lies 49999\d\d from"):
        spt.warp_composite(
            [np.ones((9, 9))] * 4,
            [np.eye(3), moved(0, 8), moved(5e6, 5e6), moved(8, 0)],
        )


def psnr(image, truth):
    return 10 * np.log10(np.ptp(truth) ** 2 / np.mean(np.square(image - truth)))


@pytest.mark.parametrize("rng", [1, 2])
def test_a_mosaic_is_as_good_as_if_the_light_had_been_even(rng):
    """Uneven light and a lamp that flickers cost less than half a decibel.

    The even lamp gives as much light in the mean, so that noise weighs the same:
    corners that lose 40 % of the light lose 13 % in the mean, which costs 1.2
    decibels that no correction brings back. One factor on the whole picture cannot
    be known without a standard, and is fitted to the truth.
    """
    scene = data.immunohistochemistry()[..., 1].astype(float)
    grid = {"grid_shape": (5, 5), "tile_shape": (110, 110), "overlap": 0.2, "rng": rng}
    made = spt.simulate_tiles(
        scene, vignetting=0.4, gain_sigma=0.1, noise_sigma=2, **grid
    )
    light = made.shading.mean()
    even = spt.simulate_tiles(scene, noise_sigma=2 / light, **grid)
    unlit = spt.apply_shading(made.tiles, spt.estimate_shading(made.tiles))
    gains = spt.solve_gains(unlit, made.matrices)
    true = made.tiles / made.shading / made.gain[:, None, None]

    found = {}
    for name, tiles in (
        ("taken", made.tiles),
        ("corrected", gains.gain[:, None, None] * unlit),
        ("truly corrected", true),
        ("even lamp", even.tiles),
    ):
        mosaic = spt.warp_composite(tiles, made.matrices, blend="multiband")
        low = mosaic.origin.astype(int)
        high = low + mosaic.image.shape
        truth = scene[low[0] : high[0], low[1] : high[1]]
        factor = (mosaic.image * truth).sum() / np.square(mosaic.image).sum()
        found[name] = psnr(factor * mosaic.image, truth)
    assert found["corrected"] > found["even lamp"] - 0.5
    assert found["corrected"] > found["truly corrected"] - 0.5
    assert found["taken"] < found["corrected"] - 10

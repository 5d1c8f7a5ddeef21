from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt
from spectral_tools._rendering import plan

BLENDS = ["feather", "mean", "nearest", "maximum", "minimum", "first", "last"]
ORDERS = [0, 1, 3, 5]
fractions = st.floats(-3, 3)


def moved(*shift):
    matrix = np.eye(len(shift) + 1)
    matrix[:-1, -1] = shift
    return matrix


def turned(angle, shift=(0.0, 0.0), stretch=1.0):
    cos, sin = stretch * np.cos(angle), stretch * np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])


def ramp(points, slope=(2.0, -3.0, 5.0)):
    """A linear function of position, which linear interpolation keeps."""
    return np.tensordot(points, slope[: points.shape[-1]], axes=1) + 7


def ramp_tile(matrix, shape):
    """A tile that shows the ramp of the mosaic, as seen through its matrix."""
    grid = np.moveaxis(np.indices(shape), 0, -1)
    return ramp(grid @ matrix[:-1, :-1].T + matrix[:-1, -1])


def ramp_mosaic(mosaic, scale=1.0):
    grid = np.moveaxis(np.indices(mosaic.image.shape), 0, -1)
    return ramp(grid / scale + mosaic.origin)


def well_inside(matrix, shape, mosaic, scale=1.0):
    """Pixels whose neighbours all lie on the tile, where nothing is repeated."""
    grid = np.moveaxis(np.indices(mosaic.image.shape), 0, -1) / scale + mosaic.origin
    inverse = np.linalg.inv(matrix)
    points = grid @ inverse[:-1, :-1].T + inverse[:-1, -1]
    return ((points >= 0) & (points <= np.array(shape) - 1)).all(axis=-1)


@pytest.fixture
def tiles(rng):
    return [rng.random((40, 50)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def matrices():
    return np.array([moved(0.3, 0.2), turned(0.1, (5.2, 31.7)), moved(28.4, 10.9)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blend", [*BLENDS, "multiband"])
@settings(max_examples=15, deadline=None)
@given(row=fractions, col=fractions, angle=st.floats(-3, 3))
def test_constants_stay_exactly_constant_up_to_the_border(
    blend, order, row, col, angle
):
    tiles = [np.full((9, 12), 0.1, np.float32)] * 3
    matrices = [moved(row, col), turned(angle, (4, 6)), turned(angle, (2, col), 1.3)]
    mosaic = spt.warp_composite(
        tiles, matrices, blend=blend, order=order, fill_value=np.nan
    )
    assert (mosaic.coverage > 0).any()
    assert_array_equal(mosaic.image[mosaic.coverage > 0], np.float32(0.1))
    assert np.isnan(mosaic.image[mosaic.coverage == 0]).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blend", BLENDS)
def test_a_tile_at_whole_pixels_is_pasted_exactly(tiles, blend, order):
    mosaic = spt.warp_composite(tiles[:1], [moved(-3, 8)], blend=blend, order=order)
    assert_array_equal(mosaic.image, tiles[0])
    assert_array_equal(mosaic.origin, [-3, 8])


@pytest.mark.parametrize("shape", [(130, 1030), (300, 70), (1, 1), (1, 5)])
def test_paste_is_exact_whatever_the_blocks(rng, shape):
    tile = rng.integers(0, 65536, shape).astype(np.uint16)
    assert_array_equal(spt.warp_composite([tile], [np.eye(3)]).image, tile)


def test_a_quarter_turn_is_exact(tiles):
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    mosaic = spt.warp_composite(tiles[:1], [quarter])
    assert_array_equal(mosaic.image, np.rot90(tiles[0]))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blend", ["feather", "maximum"])
@pytest.mark.parametrize(
    "matrix",
    [
        moved(0.5, 0.5),
        moved(12.25, -7.75),
        turned(0.01, (4.3, 5.6), 1.001),
        turned(2.5, (4.3, 5.6), 0.7),
        np.array([[1.1, 0.3, 5], [-0.2, 0.9, 6], [0, 0, 1]]),
        np.array([[-1, 0, 5.5], [0, 1, 6], [0, 0, 1]]),
    ],
)
def test_a_ramp_comes_out_as_the_ramp(matrix, blend, order):
    shape = (150, 200)
    tile = ramp_tile(matrix, shape)
    mosaic = spt.warp_composite([tile], [matrix], blend=blend, order=order)
    inside = well_inside(matrix, shape, mosaic)
    # The nearest pixel is half a pixel away at most, along each axis.
    steps = [np.abs(np.diff(tile, axis=axis)).max() for axis in range(2)]
    most = 1e-9 + (0.5 * sum(steps) if order == 0 else 0)
    assert inside.sum() > 5000
    assert_allclose(
        mosaic.image[inside], ramp_mosaic(mosaic)[inside], rtol=0, atol=most
    )


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize(
    "matrix",
    [
        moved(0.5, 2.25, -3.75),
        np.array(
            [[0.9, 0.2, 0.1, 3], [-0.2, 1, 0.1, 4], [0, -0.1, 1.1, 5], [0, 0, 0, 1]]
        ),
    ],
)
def test_a_ramp_in_a_volume_comes_out_as_the_ramp(matrix, order):
    shape = (12, 40, 30)
    mosaic = spt.warp_composite([ramp_tile(matrix, shape)], [matrix], order=order)
    inside = well_inside(matrix, shape, mosaic)
    assert inside.sum() > 5000
    # 1e-9: rounding of coordinates; interpolation of a ramp is exact.
    assert_allclose(
        mosaic.image[inside], ramp_mosaic(mosaic)[inside], rtol=0, atol=1e-9
    )


def test_pixels_are_covered_up_to_half_a_pixel_outside():
    mosaic = spt.warp_composite(
        [np.ones((3, 4))], [moved(0.25, -0.25)], bounds=[(-2, -2), (6, 6)]
    )
    expected = np.zeros((8, 8))
    expected[2:5, 2:6] = 1
    assert_array_equal(mosaic.coverage, expected)


def test_tiles_that_touch_leave_no_gap():
    first = turned(0.3, (0.1, 0.7))
    matrices = [first @ moved(0, 20 * n) for n in range(4)]
    mosaic = spt.warp_composite([np.ones((20, 20))] * 4, matrices)
    long_tile = spt.warp_composite([np.ones((20, 80))], [first])
    assert_array_equal(mosaic.coverage > 0, long_tile.coverage > 0)


@pytest.mark.parametrize("blend", ["feather", "mean"])
def test_order_of_tiles_does_not_matter(tiles, matrices, blend):
    there = spt.warp_composite(tiles, matrices, blend=blend)
    back = spt.warp_composite(tiles[::-1], matrices[::-1], blend=blend)
    # 1e-6: sums of three single-precision numbers in another order.
    assert_allclose(back.image, there.image, rtol=0, atol=1e-6)


def test_feather_fades_with_the_distance_to_the_border():
    tiles = [np.zeros((40, 10)), np.ones((40, 10))]
    row = spt.warp_composite(tiles, [np.eye(3), moved(0, 5)]).image[20]
    assert_allclose(row[5:10], (np.arange(5) + 0.5) / 5, rtol=0, atol=1e-12)


def test_nearest_has_its_seam_in_the_middle():
    tiles = [np.zeros((40, 10)), np.ones((40, 10))]
    mosaic = spt.warp_composite(tiles, [np.eye(3), moved(0, 4)], blend="nearest")
    assert_array_equal(mosaic.image[20], [0] * 7 + [1] * 7)


def test_nearest_shows_pixels_of_one_tile_only(tiles):
    whole = [np.eye(3), moved(5, 7), moved(-4, 9)]
    mosaic = spt.warp_composite(tiles, whole, blend="nearest")
    assert np.isin(mosaic.image, [0, *np.unique(tiles)]).all()


def test_mean_weighs_tiles_equally():
    tiles = [np.full((4, 4), value) for value in (1.0, 2.0, 6.0)]
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * 3, blend="mean")
    assert_allclose(mosaic.image, 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "u2", ">u2", "f2", "f4", "f8"])
def test_dtype_of_the_tiles_is_kept(dtype):
    tile = np.array([[0, 1], [1, 0]]).astype(dtype)
    image = spt.warp_composite([tile], [np.eye(3)]).image
    assert image.dtype == np.dtype(dtype).newbyteorder("=")
    assert_array_equal(image, tile)


def test_tiles_of_several_dtypes_get_their_common_one():
    tiles = [np.ones((2, 2), np.uint8), np.ones((2, 2), np.int16)]
    assert spt.warp_composite(tiles, [np.eye(3)] * 2).image.dtype == np.int16


def test_integers_are_rounded():
    tiles = [np.full((2, 2), value, np.uint8) for value in (1, 2, 2)]
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * 3, blend="mean")
    assert_array_equal(mosaic.image, 2)


@pytest.mark.parametrize(("value", "expected"), [(300.0, 255), (-5.0, 0), (7.6, 8)])
def test_integers_are_clipped_to_their_range(value, expected):
    mosaic = spt.warp_composite([np.full((2, 2), value)], [np.eye(3)], dtype=np.uint8)
    assert_array_equal(mosaic.image, np.uint8(expected))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32])
def test_largest_integer_survives(blend, dtype):
    tile = np.full((30, 30), np.iinfo(dtype).max, dtype)
    mosaic = spt.warp_composite([tile] * 2, [np.eye(3), moved(0.3, 7.7)], blend=blend)
    assert_array_equal(mosaic.image[mosaic.coverage > 0], np.iinfo(dtype).max)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("matrix", [moved(0, 0), moved(0.4, 0.3), turned(0.02)])
def test_pixels_that_are_not_finite_do_not_count(value, matrix):
    tile = np.full((20, 20), 3.0)
    tile[5:8, 5:8] = value
    mosaic = spt.warp_composite([tile], [matrix], fill_value=-1)
    # Rounded: the mask divides by the weight of the known neighbours.
    assert set(np.unique(mosaic.image.round(12))) == {-1, 3}
    # The hole is 3 x 3 pixels; a turn can leave one row of it more or fewer.
    holes = (mosaic.image[2:-2, 2:-2] == -1).sum()
    assert 6 <= holes <= 12


def test_other_tiles_show_where_one_is_not_valid():
    valid = np.ones((6, 6), bool)
    valid[2:4] = False
    tiles = [np.zeros((6, 6)), np.ones((6, 6))]
    mosaic = spt.warp_composite(
        tiles, [np.eye(3)] * 2, blend="mean", valid=[valid, None]
    )
    assert_array_equal(mosaic.image, np.where(valid, 0.5, 1))
    assert_array_equal(mosaic.coverage, np.where(valid, 2, 1))


@pytest.mark.parametrize("valid_type", [list, np.array])
def test_one_mask_serves_all_tiles_or_each_has_its_own(tiles, matrices, valid_type):
    valid = np.ones((40, 50), bool)
    valid[10:20, :30] = False
    shared = spt.warp_composite(tiles, matrices, valid=valid)
    each = spt.warp_composite(tiles, matrices, valid=valid_type([valid] * 3))
    assert_array_equal(shared.image, each.image)
    assert_array_equal(shared.coverage, each.coverage)
    assert shared.coverage.sum() < spt.warp_composite(tiles, matrices).coverage.sum()


@pytest.mark.parametrize("blend", BLENDS)
def test_values_that_are_not_valid_do_not_matter(tiles, matrices, blend, rng):
    valid = rng.random((40, 50)) < 0.9
    spoiled = [np.where(valid, tile, 1e6) for tile in tiles]
    mosaic = spt.warp_composite(tiles, matrices, valid=valid, blend=blend)
    again = spt.warp_composite(spoiled, matrices, valid=valid, blend=blend, dtype="f4")
    assert_allclose(again.image, mosaic.image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("matrix", [moved(0.3, 0.7), turned(0.4)])
def test_a_mask_acts_like_the_border_of_a_smaller_tile(tiles, matrix):
    valid = np.zeros((40, 50), bool)
    valid[:30, :40] = True
    options = {"bounds": [(-40, -40), (80, 80)], "fill_value": np.nan}
    masked = spt.warp_composite(tiles[:1], [matrix], valid=valid, **options)
    cropped = spt.warp_composite([tiles[0][:30, :40]], [matrix], **options)
    assert_array_equal(masked.coverage, cropped.coverage)
    # 1e-6: the mask divides by the weight of the known neighbours.
    assert_allclose(masked.image, cropped.image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fill_value", [0, 17, 65535])
def test_pixels_without_tiles_get_the_fill_value(fill_value):
    tiles = [np.ones((4, 4), np.uint16)] * 2
    mosaic = spt.warp_composite(
        tiles, [np.eye(3), moved(10, 10)], fill_value=fill_value
    )
    assert_array_equal(mosaic.image, np.where(mosaic.coverage, 1, fill_value))


@pytest.mark.parametrize("start", [(0, 0), (7, -4), (-30, -30), (33, 61)])
def test_bounds_cut_the_mosaic_like_a_slice(tiles, matrices, start):
    bounds = np.array([start, np.add(start, (21, 34))])
    part = spt.warp_composite(tiles, matrices, bounds=bounds)
    whole = spt.warp_composite(tiles, matrices, bounds=[(-50, -50), (100, 120)])
    window = tuple(slice(a + 50, b + 50) for a, b in bounds.T)
    # 1e-5: coordinates are counted from another pixel.
    assert_allclose(part.image, whole.image[window], rtol=0, atol=1e-5)
    assert_array_equal(part.coverage, whole.coverage[window])
    assert_array_equal(part.origin, start)


def test_bounds_may_start_between_pixels(tiles):
    mosaic = spt.warp_composite(tiles[:1], [np.eye(3)], bounds=[(0.5, 2), (4.5, 9)])
    expected = (tiles[0][:4, 2:9] + tiles[0][1:5, 2:9]) / 2
    assert_allclose(mosaic.image, expected, rtol=0, atol=1e-6)
    assert_array_equal(mosaic.origin, [0.5, 2])


def test_only_tiles_inside_of_the_bounds_are_read(tiles):
    class Unreadable:
        shape, dtype = (40, 50), np.dtype(np.float32)

        def __getitem__(self, key):
            raise AssertionError(key)

    mosaic = spt.warp_composite(
        [tiles[0], Unreadable()], [np.eye(3), moved(0, 60)], bounds=[(0, 0), (40, 50)]
    )
    assert_array_equal(mosaic.image, tiles[0])


def test_all_tiles_fit_into_the_default_bounds(tiles, matrices):
    mosaic = spt.warp_composite(tiles, matrices)
    wide = spt.warp_composite(tiles, matrices, bounds=[(-99, -99), (199, 199)])
    assert mosaic.coverage.sum() == wide.coverage.sum()


@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_pixels_are_not_smoothed_at_smaller_scales(tiles, matrices, factor):
    mosaic = spt.warp_composite(tiles, matrices, order=0)
    small = spt.warp_composite(tiles, matrices, order=0, scale=1 / factor)
    assert_array_equal(small.coverage, mosaic.coverage[::factor, ::factor])
    assert_allclose(small.image, mosaic.image[::factor, ::factor], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.7, 4])
def test_a_ramp_is_right_at_any_scale(scale):
    matrix = turned(0.2, (3.3, 4.4))
    shape = (400, 300)
    mosaic = spt.warp_composite([ramp_tile(matrix, shape)], [matrix], scale=scale)
    inside = well_inside(matrix, shape, mosaic, scale)
    assert inside.any()
    assert_allclose(
        mosaic.image[inside], ramp_mosaic(mosaic, scale)[inside], rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
@pytest.mark.parametrize("blend", BLENDS)
def test_channels_are_rendered_like_separate_images(matrices, rng, blend, channel_axis):
    tiles = rng.integers(0, 256, (3, 3, 40, 50)).astype(np.uint8)
    together = spt.warp_composite(
        np.moveaxis(tiles, 1, 1 + channel_axis if channel_axis >= 0 else -1),
        matrices,
        blend=blend,
        channel_axis=channel_axis,
    )
    images = np.moveaxis(together.image, channel_axis, 0)
    for channel in range(3):
        alone = spt.warp_composite(tiles[:, channel], matrices, blend=blend)
        assert_array_equal(images[channel], alone.image)
        assert_array_equal(together.coverage, alone.coverage)


@pytest.mark.parametrize("channel_axis", [0, 1, -1])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("masked", [False, True])
def test_many_channels_are_rendered_like_separate_images(
    matrices, rng, order, masked, channel_axis
):
    # More channels than are rendered together, and than are copied together.
    tiles = rng.integers(0, 65536, (3, 37, 40, 50)).astype(np.uint16)
    options = {"order": order}
    if masked:
        options["valid"] = rng.random((3, 40, 50)) < 0.9
    stacks = np.moveaxis(tiles, 1, channel_axis + (channel_axis >= 0))
    together = spt.warp_composite(
        stacks, matrices, channel_axis=channel_axis, **options
    )
    images = np.moveaxis(together.image, channel_axis, 0)
    for channel in range(0, 37, 6):
        alone = spt.warp_composite(tiles[:, channel], matrices, **options)
        assert_array_equal(images[channel], alone.image)
        assert_array_equal(together.coverage, alone.coverage)


def test_regions_of_many_channels_leave_no_trace(tiles, matrices, monkeypatch):
    stacks = [np.stack([tile] * 20, axis=-1) for tile in tiles]
    monkeypatch.setattr(plan, "GROUP", 0.02)
    mosaic = spt.warp_composite(stacks, matrices, channel_axis=2)
    plain = spt.warp_composite(tiles, matrices)
    # 1e-5: coordinates are counted from another pixel.
    assert_allclose(mosaic.image[..., 13], plain.image, rtol=0, atol=1e-5)
    assert_array_equal(mosaic.coverage, plain.coverage)


@pytest.mark.parametrize(
    ("blend", "choose"),
    [
        ("first", lambda values: values[0]),
        ("last", lambda values: values[-1]),
        ("maximum", max),
        ("minimum", min),
        ("mean", np.mean),
    ],
)
@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_tiles_may_come_in_any_order_along_a_row(rng, blend, choose, fraction):
    starts, sizes = rng.integers(0, 60, 12), rng.integers(1, 20, 12)
    values = rng.permutation(12).astype(float)
    tiles = [np.full((1, n), value) for n, value in zip(sizes, values, strict=True)]
    matrices = [moved(0, start + fraction) for start in starts]
    for count in range(1, 13):
        mosaic = spt.warp_composite(
            tiles[:count],
            matrices[:count],
            blend=blend,
            bounds=[(0, 0), (1, 80)],
            fill_value=-1,
        )
        for col in range(80):
            covers = (starts[:count] <= col) & (col < starts[:count] + sizes[:count])
            expected = choose(values[:count][covers]) if covers.any() else -1
            # 1e-12: rounding of a running mean.
            assert_allclose(mosaic.image[0, col], expected, rtol=0, atol=1e-12)
            assert mosaic.coverage[0, col] == covers.sum()


@pytest.mark.parametrize(
    "dtype", ["?", ">u2", "i1", "u4", "i8", "u8", "f2", ">f4", "f8"]
)
@pytest.mark.parametrize("matrix", [moved(0.3, 0.4), turned(0.02, (3.3, 0.7))])
@pytest.mark.parametrize("order", [1, 3])
def test_tiles_may_have_any_real_dtype(rng, dtype, matrix, order):
    tile = rng.integers(0, 2, (40, 50)).astype(dtype)
    mosaic = spt.warp_composite([tile], [matrix], order=order)
    exact = spt.warp_composite([tile.astype(float)], [matrix], order=order).image
    assert mosaic.image.dtype == np.result_type(tile.dtype)
    if mosaic.image.dtype.kind != "f":
        low, high = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.inf)
        exact = np.rint(exact).clip(low, high)
    # Half precision is 1e-3; a value that is rounded may fall to either side of it.
    unlike = np.abs(mosaic.image.astype(float) - exact) > 2e-3
    assert unlike.mean() < 1e-3


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fraction", [-0.5, 0.5, 0.5 + 5e-7, -0.5 - 5e-7])
def test_a_single_column_may_lie_on_the_border(rng, order, fraction):
    tile = rng.random((3, 4))
    whole = spt.warp_composite([tile], [moved(0, fraction)], order=order)
    for col in range(whole.image.shape[1]):
        corner, side = whole.origin + np.array([0, col]), np.array([3, 1])
        part = spt.warp_composite(
            [tile], [moved(0, fraction)], order=order, bounds=[corner, corner + side]
        )
        # 1e-12: coordinates are counted from another pixel.
        assert_allclose(part.image[:, 0], whole.image[:, col], rtol=0, atol=1e-12)


def test_a_volume_of_equal_planes_is_rendered_like_its_plane(tiles):
    volume = np.stack([tiles[0]] * 9)
    matrix = np.eye(4)
    matrix[1:, 1:] = turned(0.1, (0.4, 0.3))
    stacked = spt.warp_composite([volume], [matrix])
    flat = spt.warp_composite(tiles[:1], [matrix[1:, 1:]])
    for plane in stacked.image:
        assert_array_equal(plane, flat.image)


def test_tiles_may_differ_in_shape():
    tiles = [np.ones((3, 9)), np.ones((12, 4))]
    mosaic = spt.warp_composite(tiles, [np.eye(3), moved(3, 0)])
    assert mosaic.coverage.shape == (15, 9)
    assert mosaic.coverage.sum() == 27 + 48


def test_coverage_counts_the_tiles():
    tiles = [np.ones((4, 4))] * 300
    mosaic = spt.warp_composite(tiles, [np.eye(3)] * 299 + [moved(0, 2)])
    assert mosaic.coverage.dtype == np.uint16
    assert_array_equal(mosaic.coverage[0], [299, 299, 300, 300, 1, 1])


@pytest.mark.parametrize("workers", [2, 5, map])
@pytest.mark.parametrize("blend", BLENDS)
def test_workers_agree_to_the_last_bit(tiles, matrices, blend, workers, monkeypatch):
    # Small regions, so that there are many of them.
    monkeypatch.setitem(plan.REGION, 2, (1, 16, 32))
    alone = spt.warp_composite(tiles, matrices, blend=blend)
    together = spt.warp_composite(tiles, matrices, blend=blend, workers=workers)
    assert_array_equal(together.image, alone.image)
    assert_array_equal(together.coverage, alone.coverage)


def test_workers_may_be_the_map_of_a_pool(tiles, matrices):
    with ThreadPoolExecutor(2) as pool:
        pooled = spt.warp_composite(tiles, matrices, workers=pool.map)
    assert_array_equal(pooled.image, spt.warp_composite(tiles, matrices).image)


@pytest.mark.parametrize("blend", BLENDS)
def test_regions_and_blocks_leave_no_trace(tiles, matrices, blend, monkeypatch):
    whole = spt.warp_composite(tiles, matrices, blend=blend)
    monkeypatch.setitem(plan.REGION, 2, (1, 16, 23))
    monkeypatch.setitem(plan.BLOCK, 2, (1, 7, 11))
    pieced = spt.warp_composite(tiles, matrices, blend=blend)
    # 1e-5: coordinates are counted from another pixel.
    assert_allclose(pieced.image, whole.image, rtol=0, atol=1e-5)
    assert_array_equal(pieced.coverage, whole.coverage)


def test_inputs_are_left_alone(tiles, matrices):
    tiles[0][3, 4] = np.nan
    valid = np.ones((40, 50), bool)
    before = [tile.copy() for tile in tiles]
    for array in (*tiles, matrices, valid):
        array.setflags(write=False)
    spt.warp_composite(tiles, matrices, valid=valid)
    assert_array_equal(tiles, before)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda tile: tile[::-1, ::-1]])
def test_memory_layout_does_not_matter(tiles, matrices, layout):
    strided = [layout(tile) for tile in tiles]
    copied = [np.ascontiguousarray(tile) for tile in strided]
    assert_array_equal(
        spt.warp_composite(strided, matrices).image,
        spt.warp_composite(copied, matrices).image,
    )


def test_datasets_in_a_file_are_tiles(tiles, matrices, tmp_path):
    plain = spt.warp_composite(tiles, matrices).image
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        stack = file.create_dataset("stack", data=np.stack(tiles))
        single = [file.create_dataset(f"{n}", data=t) for n, t in enumerate(tiles)]
        for lazy in (stack, single):
            assert_array_equal(spt.warp_composite(lazy, matrices).image, plain)


def test_zarr_and_dask_arrays_are_tiles(tiles, matrices):
    zarr = pytest.importorskip("zarr")
    dask_array = pytest.importorskip("dask.array")
    plain = spt.warp_composite(tiles, matrices).image
    stack = zarr.array(np.stack(tiles))
    chunked = [dask_array.from_array(tile, chunks=16) for tile in tiles]
    for lazy in (stack, chunked):
        assert_array_equal(spt.warp_composite(lazy, matrices).image, plain)


def test_tiles_may_be_lists():
    mosaic = spt.warp_composite([[[1, 2], [3, 4]]], [np.eye(3)])
    assert_array_equal(mosaic.image, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"order": 2}, ValueError, r"`order` must be one of \(0, 1, 3, 5\); got 2"),
        ({"blend": "median"}, ValueError, "`blend` must be one of .*'mean'.*got 'med"),
        ({"bounds": "all"}, ValueError, "`bounds` must be one of .*'union'.*got 'all'"),
        ({"scale": 0}, ValueError, "`scale` must be finite and greater than 0"),
        ({"bounds": [1, 2]}, ValueError, r"`bounds` must have shape \(2, 2\)"),
        ({"bounds": [(0, 0), (0, 5)]}, ValueError, "`bounds` must stop after"),
        ({"valid": np.ones((4, 4))}, TypeError, "`valid` must be boolean"),
        ({"valid": np.ones((4, 5), bool)}, ValueError, r"`valid` must have shape"),
        ({"valid": [None, None]}, ValueError, "`valid` must hold one mask for each"),
        ({"channel_axis": 3}, ValueError, "`channel_axis` must be between -3 and 2"),
        ({"channel_axis": 0}, ValueError, "`tiles` must have 3 axes"),
        ({"fill_value": -1}, ValueError, "`fill_value` must be representable in uint8"),
        ({"fill_value": np.nan}, ValueError, "`fill_value` must be .* uint8; got nan"),
        ({"dtype": complex}, TypeError, "`dtype` must hold real numbers"),
        ({"workers": 0}, ValueError, "`workers` must be at least 1"),
    ],
)
def test_options_are_checked(options, error, match):
    with pytest.raises(error, match=match):
        spt.warp_composite([np.ones((4, 4), np.uint8)], [np.eye(3)], **options)


@pytest.mark.parametrize(
    ("tiles", "matrices", "error", "match"),
    [
        ([], np.empty((0, 3, 3)), ValueError, "`tiles` must hold at least one image"),
        ([np.ones(4)], [np.eye(3)], ValueError, "`tiles` must have 2 axes"),
        ([np.ones((0, 4))], [np.eye(3)], ValueError, "`tiles` must .* and pixels"),
        ([np.ones((4, 4), complex)], [np.eye(3)], TypeError, "`tiles` must hold real"),
        ([np.ones((4, 4))], [np.eye(2)], ValueError, r"`matrices` must have shape"),
        ([np.ones((4, 4))], [np.eye(3)] * 2, ValueError, "`matrices` must hold one"),
        ([np.ones((4, 4))], [np.diag([1, 0, 1])], ValueError, "must be invertible"),
        ([np.ones((4, 4))], [np.ones((3, 3))], ValueError, "`matrices` must be affine"),
    ],
)
def test_tiles_and_matrices_are_checked(tiles, matrices, error, match):
    with pytest.raises(error, match=match):
        spt.warp_composite(tiles, matrices)


def test_tiles_have_equally_many_channels():
    tiles = [np.ones((4, 4, 3)), np.ones((4, 4, 2))]
    with pytest.raises(ValueError, match=r"equally many channels; got \[2, 3\]"):
        spt.warp_composite(tiles, [np.eye(3)] * 2, channel_axis=-1)

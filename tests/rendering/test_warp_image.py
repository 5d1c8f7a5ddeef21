import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt
from spectral_tools._rendering import plan
from spectral_tools._rendering.warp import warp_image

TILTED = np.array([[0.99, 0.1, 3.3], [-0.1, 0.99, 4.4], [0, 0, 1]])


@pytest.fixture
def image(rng):
    return rng.random((60, 70))


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_whole_pixels_move_by_the_matrix(image, order):
    found = warp_image(image, spt.translation((3, -2)), order=order)
    assert_array_equal(found[3:, :-2], image[:-3, 2:])
    assert_array_equal(found[:3], 0)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_a_constant_displacement_is_a_translation(image, order):
    step = np.array([1.3, -2.2])
    field = np.broadcast_to(step, (60, 70, 2))
    found = warp_image(image, TILTED, displacement=field, order=order)
    expected = warp_image(image, spt.translation(step) @ TILTED, order=order)
    # 1e-9: coordinates are summed in another order.
    assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
def test_a_linear_displacement_is_an_affine_map(image, order):
    matrix = np.array([[1.1, 0.05, 1.0], [0.02, 0.95, 2.0], [0, 0, 1]])
    grid = np.moveaxis(np.indices((60, 70)), 0, -1).astype(float)
    field = grid - spt.apply_transform(np.linalg.inv(matrix), grid)
    found = warp_image(image, np.eye(3), displacement=field, order=order)
    expected = warp_image(image, matrix, order=order)
    # The field does not say how much the image shrinks; here too little to smooth.
    assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_displacement_in_a_volume(rng):
    volume = rng.random((9, 20, 20))
    step = np.array([0.5, 1.3, -2.2])
    field = np.broadcast_to(step, (9, 20, 20, 3))
    found = warp_image(volume, np.eye(4), displacement=field)
    expected = warp_image(volume, spt.translation(step))
    assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_unknown_displacements_are_filled(image):
    field = np.zeros((60, 70, 2))
    field[5, 6], field[7, 8] = np.nan, np.inf
    found = warp_image(image, np.eye(3), displacement=field, fill_value=-1)
    expected = image.copy()
    expected[5, 6] = expected[7, 8] = -1
    assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
@pytest.mark.parametrize("order", [1, 3])
def test_channels_are_warped_like_images(rng, channel_axis, order):
    cube = rng.random((4, 40, 50))
    moved = np.moveaxis(cube, 0, channel_axis)
    found = warp_image(moved, TILTED, channel_axis=channel_axis, order=order)
    assert found.shape == moved.shape
    for channel, layer in zip(cube, np.moveaxis(found, channel_axis, 0), strict=True):
        assert_array_equal(layer, warp_image(channel, TILTED, order=order))


@pytest.mark.parametrize("workers", [2, map])
def test_workers_agree_to_the_last_bit(image, rng, workers, monkeypatch):
    monkeypatch.setitem(plan.REGION, 2, (1, 16, 32))
    field = rng.normal(0, 2, (60, 70, 2))
    options = {"displacement": field, "order": 3}
    alone = warp_image(image, TILTED, **options)
    assert_array_equal(warp_image(image, TILTED, workers=workers, **options), alone)


def test_the_shape_may_be_chosen(image):
    found = warp_image(image, np.eye(3), shape=(10, 90))
    assert_array_equal(found[:, :70], image[:10])
    assert_array_equal(found[:, 70:], 0)


def test_pixels_that_are_not_valid_do_not_count(image):
    valid = np.ones((60, 70), bool)
    valid[10:20, 10:20] = False
    found = warp_image(image, np.eye(3), valid=valid, fill_value=np.nan)
    assert_array_equal(found, np.where(valid, image, np.nan))


def test_integers_are_rounded_and_keep_their_dtype(rng):
    image = rng.integers(0, 256, (30, 30)).astype(np.uint8)
    found = warp_image(image, TILTED, order=3)
    exact = warp_image(image.astype(np.float32), TILTED, order=3)
    assert found.dtype == np.uint8
    assert_array_equal(found, np.rint(exact).clip(0, 255))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"matrix": np.eye(2)}, ValueError, "`matrix` must have shape"),
        ({"shape": (3,)}, ValueError, "`shape` must hold 2 positive integers"),
        ({"order": 4}, ValueError, "`order` must be one of"),
        (
            {"displacement": np.zeros((4, 4))},
            ValueError,
            r"`displacement` must have shape \(rows, cols, 2\); got \(4, 4\)",
        ),
        (
            {"displacement": np.zeros((3, 4, 2)), "shape": (4, 4)},
            ValueError,
            r"`displacement` must have shape \(4, 4, 2\); got \(3, 4, 2\)",
        ),
        ({"displacement": np.full((4, 4, 2), 1j)}, TypeError, "must hold real numbers"),
    ],
)
def test_arguments_are_checked(options, error, match):
    with pytest.raises(error, match=match):
        warp_image(np.ones((4, 4)), **{"matrix": np.eye(3)} | options)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_missing_pixels_are_where_they_are_in_any_layout(order):
    image = np.random.default_rng(3).normal(size=(20, 24))
    image[9:11, 12:15] = np.nan
    plain = spt.warp_image(image, np.eye(3), order=order, fill_value=np.nan)
    assert np.array_equal(np.isnan(plain), np.isnan(image))
    for other in (np.asfortranarray(image), np.asfortranarray(image)[::-1][::-1]):
        found = spt.warp_image(other, np.eye(3), order=order, fill_value=np.nan)
        assert np.array_equal(found, plain, equal_nan=True)
    valid = np.asfortranarray(np.isfinite(image))
    masked = spt.warp_image(
        np.nan_to_num(image), np.eye(3), order=order, valid=valid, fill_value=np.nan
    )
    assert np.array_equal(np.isnan(masked), np.isnan(image))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_that_overflow_leak_no_warning(dtype):
    rng = np.random.default_rng(4)
    image = rng.normal(size=(30, 32)).astype(dtype)
    image[11:, :9] = np.finfo(dtype).max
    image[20:, 20:] = np.finfo(dtype).min
    moved = spt.warp_image(image, spt.translation((0.4, 0.3)), order=1)
    assert np.isfinite(moved[1:10, 10:]).all()
    for order in (3, 5):
        spt.warp_image(image, spt.translation((0.4, 0.3)), order=order)

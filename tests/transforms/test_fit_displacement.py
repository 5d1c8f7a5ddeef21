"""Displacement fields: fits with a known truth, folds and inverses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

import spectral_tools as spt

SHAPE = (200, 240)


def pixels(shape=SHAPE):
    return np.moveaxis(np.indices(shape, dtype=float), 0, -1)


def truth_at(points, amplitude=4.0, wavelength=180.0):
    """A smooth field, bent in both axes."""
    k = 2 * np.pi / wavelength
    rows, cols = k * points[..., 0], k * points[..., 1]
    bent = [np.sin(cols + 0.5) * np.cos(0.4 * rows), np.cos(rows) * np.sin(0.6 * cols)]
    return amplitude * np.stack(bent, -1)


def measured(rng, spacing=20, sigma=0.05, shape=SHAPE):
    axes = [np.arange(spacing / 2, size, spacing) for size in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    points += rng.uniform(-2, 2, points.shape)
    displacement = truth_at(points) + sigma * rng.normal(size=points.shape)
    return points, points - displacement


def test_a_fit_finds_the_field_between_the_points():
    points, moving = measured(np.random.default_rng(1))
    fit = spt.fit_displacement(points, moving, SHAPE, covariance=0.05**2 * np.eye(2))
    error = (fit.displacement - truth_at(pixels()))[20:-20, 20:-20]
    # Smoothing makes the field better than its points, which are right to 0.05 px.
    assert np.sqrt((error**2).mean()) < 0.05
    assert fit.inlier.all()


def test_error_bars_cover_the_error():
    points, moving = measured(np.random.default_rng(2))
    fit = spt.fit_displacement(points, moving, SHAPE, covariance=0.05**2 * np.eye(2))
    error = (fit.displacement - truth_at(pixels()))[20:-20, 20:-20]
    chi2 = (error**2 / fit.sigma[20:-20, 20:-20, np.newaxis] ** 2).mean()
    # The prior takes fields to be rougher than this one, so that bars are wide.
    assert 0.1 < chi2 < 1.5


def test_a_field_too_stiff_to_bend_is_still_moved():
    points = measured(np.random.default_rng(1))[0]
    fit = spt.fit_displacement(points, points - (3, -1), SHAPE, stiffness=1e30)
    # Constants are exact, up to the rounding that the stiffness lets through.
    assert_allclose(fit.displacement, np.broadcast_to((3, -1), (*SHAPE, 2)), atol=1e-3)


def test_points_in_one_place_move_all_alike(rng):
    points = np.full((30, 2), 20.0)
    moving = points - (3, -1) + 0.1 * rng.normal(size=points.shape)
    fit = spt.fit_displacement(points, moving, (40, 50), covariance=0.01 * np.eye(2))
    # The mean of thirty is right to 0.02 px.
    assert_allclose(fit.displacement[20, 20], (3, -1), atol=0.1)
    assert spt.fit_displacement([], [], (40, 50)).displacement.max() == 0


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_wrong_pairs_are_found_and_do_not_pull(share):
    rng = np.random.default_rng(3)
    points, moving = measured(rng)
    wrong = rng.uniform(size=len(points)) < share
    lies = rng.uniform(4, 12, (wrong.sum(), 2)) * rng.choice([-1, 1], (wrong.sum(), 2))
    moving[wrong] += lies
    fit = spt.fit_displacement(points, moving, SHAPE, covariance=0.05**2 * np.eye(2))
    assert not fit.inlier[wrong].any()
    # Honest pairs beside several lies may be doubted.
    assert fit.inlier[~wrong].mean() > 0.97
    error = (fit.displacement - truth_at(pixels()))[20:-20, 20:-20]
    # Gaps of 40 px and more, where neighbours lie both, are bridged less well.
    assert np.sqrt((error**2).mean()) < 0.25


def test_order_and_common_scale_of_covariances_do_not_matter():
    rng = np.random.default_rng(4)
    points, moving = measured(rng)
    one = spt.fit_displacement(points, moving, SHAPE, robust=False)
    turn = rng.permutation(len(points))
    other = spt.fit_displacement(points[turn], moving[turn], SHAPE, robust=False)
    assert_allclose(other.displacement, one.displacement, rtol=0, atol=1e-6)
    assert_allclose(other.residuals, one.residuals[turn], rtol=0, atol=1e-6)


def test_a_matrix_and_a_field_share_the_work():
    points, moving = measured(np.random.default_rng(5))
    matrix = spt.rotation(0.3, center=(100, 120))
    turned = spt.apply_transform(np.linalg.inv(matrix), moving)
    one = spt.fit_displacement(points, moving, SHAPE)
    two = spt.fit_displacement(points, turned, SHAPE, matrix=matrix)
    # The same numbers but for rounding, through which the stiffness is found.
    assert_allclose(two.displacement, one.displacement, rtol=0, atol=1e-5)


def test_pairs_of_infinite_covariance_have_no_say():
    points, moving = measured(np.random.default_rng(6))
    covariance = np.tile(0.05**2 * np.eye(2), (len(points), 1, 1))
    covariance[7] = np.inf
    one = spt.fit_displacement(points, moving, SHAPE, covariance=covariance)
    moving[7] += 50
    two = spt.fit_displacement(points, moving, SHAPE, covariance=covariance)
    assert np.array_equal(one.displacement, two.displacement)
    assert not two.inlier[7]


def test_nothing_known_is_no_error():
    points = np.array([(10.0, 10.0), (20.0, 30.0)])
    fit = spt.fit_displacement(
        points, points, (40, 40), covariance=np.inf * np.ones((2, 2, 2))
    )
    assert not fit.displacement.any()
    assert np.isinf(fit.sigma).all()


def test_one_pair_moves_everything():
    fit = spt.fit_displacement([(10.0, 10.0)], [(7.0, 12.0)], (40, 50))
    assert_allclose(fit.displacement, np.broadcast_to((3, -2), (40, 50, 2)), atol=1e-3)


def test_fields_in_space():
    axes = [np.arange(4.0, 40, 8)] * 3
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    lift = 2 * np.sin(points[:, 2] / 12)
    moving = points - np.stack([lift, 0 * lift, 0 * lift], -1)
    fit = spt.fit_displacement(points, moving, (40, 40, 40), spacing=10)
    expected = 2 * np.sin(np.arange(40) / 12)
    # A cubic spline with cells of 10 px follows this wave to 1e-3 of its height.
    assert_allclose(fit.displacement[20, 20, 4:36, 0], expected[4:36], atol=0.02)
    assert_allclose(fit.displacement[..., 1:], 0, atol=1e-3)


def test_windows_that_overlap_count_for_less():
    points, moving = measured(np.random.default_rng(7))
    alone = spt.fit_displacement(points, moving, SHAPE, covariance=0.05**2 * np.eye(2))
    shared = spt.fit_displacement(
        points, moving, SHAPE, covariance=0.05**2 * np.eye(2), window=40
    )
    assert np.median(shared.sigma) > 1.2 * np.median(alone.sigma)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_an_inverse_field_leads_back(scale):
    field = scale * truth_at(pixels())
    inverse = spt.invert_displacement(field)
    # A pixel of the moving image, taken to the reference and back again.
    there = pixels() - inverse
    coordinates = np.moveaxis(there, -1, 0)
    back = there - np.stack(
        [ndimage.map_coordinates(field[..., a], coordinates, order=3) for a in (0, 1)],
        -1,
    )
    inside = ((there > 12) & (there < np.array(SHAPE) - 13)).all(axis=-1)
    # 1e-3 px is what is promised; away from borders only the splines differ.
    assert np.abs(back - pixels())[inside].max() < 1e-3


def test_the_determinant_is_the_area_that_a_pixel_takes():
    field = np.zeros((30, 40, 2))
    field[..., 0] = 0.2 * np.arange(30)[:, np.newaxis]
    field[..., 1] = -0.1 * np.arange(40)
    assert_allclose(spt.jacobian_determinant(field), 0.8 * 1.1)


def test_folds_are_reported_and_not_inverted():
    field = np.zeros((60, 60, 2))
    field[..., 0] = 8 * np.sin(np.arange(60) / 5)[:, np.newaxis]
    assert spt.jacobian_determinant(field).min() < 0
    inverse = spt.invert_displacement(field)
    assert np.isnan(inverse).any()
    points = pixels((60, 60)).reshape(-1, 2)
    fit = spt.fit_displacement(
        points, points - field.reshape(-1, 2), (60, 60), spacing=4, robust=False
    )
    assert fit.minimum_jacobian < 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_folds_between_pixels_are_seen(ndim, axis):
    axis = min(axis, ndim - 1)
    shape = (12, 14, 16)[:ndim]
    field = np.zeros((*shape, ndim))
    zigzag = (-1.0) ** np.arange(shape[axis])
    field[..., axis] = np.moveaxis(zigzag[(...,) + (None,) * (ndim - 1)], 0, axis)
    inside = (slice(1, -1),) * ndim
    # Between two pixels the picture goes back by one pixel.
    assert_allclose(spt.jacobian_determinant(field)[inside], -1)
    centre = np.array(shape) / 2
    assert np.isnan(spt.apply_displacement(field, [centre, centre + 0.3])).all()
    assert np.isnan(spt.invert_displacement(field)[inside]).all()
    # To and fro by a fifth of a pixel is rough, but no fold.
    assert_allclose(spt.jacobian_determinant(0.2 * field)[inside], 1)


def test_a_zigzag_across_does_not_fold():
    field = np.zeros((12, 14, 2))
    field[..., 1] = 3 * (-1.0) ** np.arange(12)[:, np.newaxis]
    assert_allclose(spt.jacobian_determinant(field), 1)


def test_points_that_are_missing_stay_so():
    field = np.zeros((30, 40, 2))
    field[..., 0] = 3
    points = np.array([(5, 6), (np.nan, 8), (9, np.nan), (20, 30)])
    moved = spt.apply_displacement(field, points)
    assert_allclose(moved[[0, 3]], points[[0, 3]] + (3, 0), atol=1e-6)
    assert np.isnan(moved[[1, 2]]).all()
    back = spt.apply_displacement(field, moved, inverse=True)
    assert_allclose(back[[0, 3]], points[[0, 3]], atol=1e-6)
    assert np.isnan(back[[1, 2]]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stiffness": 0}, "`stiffness` must be finite and greater than 0"),
        ({"spacing": -1}, "`spacing` must be finite and greater than 0"),
        ({"window": -1}, "`window` must be finite and at least 0"),
        ({"matrix": np.eye(2)}, "`matrix` must have shape"),
        ({"covariance": np.eye(3)}, "`covariance` must have shape"),
    ],
)
def test_bad_options_are_named(options, text):
    points = np.array([(1.0, 2.0), (3.0, 4.0)])
    with pytest.raises(ValueError, match=text):
        spt.fit_displacement(points, points, (9, 9), **options)


@pytest.mark.parametrize(
    "function", [spt.jacobian_determinant, spt.invert_displacement]
)
def test_fields_must_have_one_component_for_each_axis(function):
    with pytest.raises(ValueError, match="`displacement` must have shape"):
        function(np.zeros((8, 8, 3)))


def test_determinants_of_unknown_fields_are_unknown():
    field = np.zeros((20, 20, 2))
    field[3:6, 4:9] = np.nan
    area = spt.jacobian_determinant(field)
    assert np.isnan(area[3:6, 4:9]).all()
    field[12, 12] = np.nan
    assert np.isnan(spt.jacobian_determinant(field)[12, 12])
    assert np.isfinite(area[7:]).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_determinants_are_those_of_the_slopes(rng, ndim):
    slopes = 0.3 * rng.normal(size=(ndim, ndim))
    points = np.moveaxis(np.indices((5, 6, 7)[:ndim], dtype=float), 0, -1)
    area = spt.jacobian_determinant(points @ slopes.T)
    assert_allclose(area, np.linalg.det(np.eye(ndim) - slopes))

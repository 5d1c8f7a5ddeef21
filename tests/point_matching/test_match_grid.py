"""Matching bent images on a grid, against a field that is known everywhere."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._matching.search import Search, circular_search
from spectral_tools._matching.shift_fit import fit_shift, fit_windows
from spectral_tools._matching.window_batches import (
    search_windows,
    trim_windows,
)
from tests.sweeps import sweep

SIDE = 224


def bent_pair(rng, *, amplitude=4.0, wavelength=160.0, noise=0.1, side=SIDE):
    """Return reference, moving and the field, both images sampled from one scene."""
    scene = spt.gaussian_texture((2 * side, 2 * side), cutoff=0.25, rng=rng)
    pixels = np.moveaxis(np.indices((side, side), dtype=float), 0, -1)
    k = 2 * np.pi / wavelength
    field = amplitude * np.stack(
        [np.sin(k * pixels[..., 1] + 0.5), np.cos(k * pixels[..., 0])], -1
    )
    # The scene is band-limited: a quintic spline of its pixels is right to 1e-4.
    points = np.moveaxis(pixels - field + side / 2, -1, 0)
    reference = ndimage.map_coordinates(scene, points, order=5, mode="grid-wrap")
    cut = slice(side // 2, side // 2 + side)
    moving = scene[cut, cut].copy()
    reference += noise * rng.normal(size=reference.shape)
    moving += noise * rng.normal(size=moving.shape)
    return reference, moving, field


def flat(matches):
    points = matches.reference_points.reshape(-1, 2)
    return (
        points,
        points - matches.moving_points.reshape(-1, 2),
        matches.covariance.reshape(-1, 2, 2),
    )


def errors_of(matches, field):
    points, told, covariance = flat(matches)
    parts = [
        ndimage.map_coordinates(field[..., axis], points.T, order=3) for axis in (0, 1)
    ]
    usable = np.isfinite(covariance).all(axis=(1, 2))
    return (told - np.stack(parts, -1))[usable], covariance[usable], usable


@pytest.fixture(scope="module")
def pair():
    return bent_pair(np.random.default_rng(1))


@pytest.fixture(scope="module")
def matches(pair):
    return spt.match_grid(*pair[:2], size=48)


def test_all_points_of_a_bent_image_are_found(matches):
    assert matches.outcome.shape == (9, 9)
    assert (matches.outcome == spt.Outcome.MATCHED).mean() > 0.98
    assert (matches.false_alarm[matches.outcome == "matched"] < 1e-3).all()


def test_points_are_right_to_a_fraction_of_a_pixel(matches, pair):
    error, _, _ = errors_of(matches, pair[2])
    # A window of its own is right to 0.025 px here, without any bending.
    assert np.sqrt((error**2).mean()) < 0.06


def test_covariances_are_honest_where_the_field_is_smooth():
    reference, moving, field = bent_pair(
        np.random.default_rng(2), amplitude=3, wavelength=400
    )
    found = spt.match_grid(reference, moving, size=48)
    error, covariance, _ = errors_of(found, field)
    chi2 = np.einsum("ni,nij,nj->n", error, np.linalg.inv(covariance), error).mean() / 2
    # 81 points whose windows overlap: chance alone moves it by a quarter.
    assert 0.6 < chi2 < 1.5


def test_the_field_through_the_points_is_the_true_one(matches, pair):
    points, _, covariance = flat(matches)
    fit = spt.fit_displacement(
        points, matches.moving_points.reshape(-1, 2), (SIDE, SIDE),
        covariance=covariance, window=48,
    )  # fmt: skip
    error = (fit.displacement - pair[2])[24:-24, 24:-24]
    # The aim for fields of this wavelength is 0.05 px with windows a third of it.
    assert np.sqrt((error**2).mean()) < 0.05
    assert fit.minimum_jacobian > 0.7


def test_the_field_makes_the_images_agree(matches, pair):
    reference, moving, _ = pair
    points, _, covariance = flat(matches)
    fit = spt.fit_displacement(
        points, matches.moving_points.reshape(-1, 2), (SIDE, SIDE),
        covariance=covariance, window=48,
    )  # fmt: skip
    warped = spt.warp_image(moving, np.eye(3), displacement=fit.displacement, order=5)
    inside = (slice(16, -16),) * 2
    # Both images carry noise of 1 percent of the power of the scene.
    assert np.corrcoef(reference[inside].ravel(), warped[inside].ravel())[0, 1] > 0.985


def test_unrelated_content_is_refused(pair):
    reference, moving, field = pair
    reference = reference.copy()
    other = spt.gaussian_texture((SIDE, SIDE), cutoff=0.25, rng=99)
    reference[60:130, 80:150] = other[60:130, 80:150]
    found = spt.match_grid(reference, moving, size=48)
    points, _, _ = flat(found)
    error, _, usable = errors_of(found, field)
    inside = ((points > (72, 92)) & (points < (118, 138))).all(axis=1)
    assert inside.sum() >= 4
    assert not usable[inside].any()
    # Windows that hold a part of the patch are right too, if they are believed.
    assert np.abs(error).max() < 1
    assert usable[~inside].mean() > 0.8


def test_a_rough_matrix_takes_a_rotation_off(pair):
    reference, moving, field = pair
    matrix = spt.rotation(0.5, center=(110, 110))
    # A picture that was taken turned: the matrix brings it back.
    turned = spt.warp_image(moving, np.linalg.inv(matrix), order=5, fill_value=np.nan)
    found = spt.match_grid(reference, turned, matrix=matrix, size=48)
    points = found.reference_points.reshape(-1, 2)
    upright = spt.apply_transform(matrix, found.moving_points.reshape(-1, 2))
    usable = np.isfinite(found.covariance).all(axis=(2, 3)).ravel()
    # Corners have turned out of the picture.
    assert usable.mean() > 0.6
    truth = np.stack(
        [ndimage.map_coordinates(field[..., a], points.T, order=3) for a in (0, 1)], -1
    )
    error = (points - upright - truth)[usable]
    # Windows at the border of what is left are small; two resamplings add little.
    assert np.sqrt(np.median(error**2)) < 0.06


@pytest.mark.parametrize(
    ("axis", "step"), sweep([(0, 2), (1, 3), (1, 6), (0, 10)], 0, 2)
)
def test_a_step_of_shear_is_followed_on_both_sides(axis, step):
    scene = spt.gaussian_texture((200, 300), cutoff=0.25, rng=1)
    reference = scene[20:180, 20:276]
    moving = reference.copy()
    moving[:, :128] = scene[20 - step : 180 - step, 20:148]
    if axis:
        reference, moving = reference.T, moving.T
    found = spt.match_grid(reference, moving, size=32)
    points, told, covariance = flat(found)
    across = points[:, 1 - axis] - 127.5
    expected = np.zeros_like(told)
    expected[across < 0, axis] = -step
    # Windows at the step see both parts, and the field rings beside it.
    away = np.abs(across) > 48
    assert np.isfinite(covariance[away]).all()
    # What is left of the ringing is 1 % to 2 % of the step.
    assert_allclose(told[away], expected[away], rtol=0, atol=0.03 * step)


def test_displacements_of_tens_of_pixels_are_found():
    rng = np.random.default_rng(5)
    scene = spt.gaussian_texture((400, 400), cutoff=0.25, rng=rng)
    reference, moving = scene[100:324, 100:324], scene[60:284, 125:349]
    found = spt.match_grid(reference, moving, size=48, max_shift=60)
    usable = np.isfinite(found.covariance).all(axis=(2, 3))
    told = (found.reference_points - found.moving_points)[usable]
    assert usable.mean() > 0.6
    # Without noise; windows at the border of what both show are narrow.
    assert_allclose(told, np.broadcast_to((-40, 25), told.shape), atol=0.05)


def test_swapping_images_negates_the_displacement():
    reference, moving, _ = bent_pair(np.random.default_rng(6), amplitude=1.0, side=128)
    one = spt.match_grid(reference, moving, size=48)
    two = spt.match_grid(moving, reference, size=48)
    shape = reference.shape
    fits = []
    for found in (one, two):
        points, _, covariance = flat(found)
        fits.append(
            spt.fit_displacement(
                points, found.moving_points.reshape(-1, 2), shape,
                covariance=covariance, window=48,
            ).displacement
        )  # fmt: skip
    inverse = spt.invert_displacement(fits[0])
    # Both have the same noise, seen by windows that lie a little elsewhere.
    assert np.sqrt(((inverse - fits[1])[24:-24, 24:-24] ** 2).mean()) < 0.05


def test_masked_pixels_have_no_say(pair):
    reference, moving, field = pair
    valid = np.ones(reference.shape, np.bool_)
    valid[:, 100:125] = False
    spoiled = np.where(valid, reference, 50.0)
    found = spt.match_grid(spoiled, moving, size=48, reference_valid=valid)
    error, _, usable = errors_of(found, field)
    assert usable.mean() > 0.8
    assert np.sqrt((error**2).mean()) < 0.15


def test_nothing_is_found_where_there_is_nothing():
    rng = np.random.default_rng(8)
    one, two = rng.normal(size=(2, 96, 96))
    found = spt.match_grid(one, two, size=48)
    assert not np.isfinite(found.covariance).any()
    empty = spt.match_grid(one, np.zeros((96, 96)), size=48)
    assert (empty.outcome == spt.Outcome.NO_TEXTURE).all()
    assert (empty.false_alarm == 1).all()


def test_threads_agree_to_the_last_bit():
    reference, moving, _ = bent_pair(np.random.default_rng(9), amplitude=1.0, side=128)
    one = spt.match_grid(reference, moving, size=48)
    two = spt.match_grid(reference, moving, size=48, workers=2)
    assert np.array_equal(one.moving_points, two.moving_points)
    assert np.array_equal(one.covariance, two.covariance)


@pytest.fixture(scope="module")
def moved():
    """Two volumes of one plane, the second moved by a known shift, and windows."""
    rng = np.random.default_rng(21)
    scene = spt.gaussian_texture((256, 256), cutoff=0.2, rng=rng)
    pair = scene, ndimage.shift(scene, (2.3, -5.6), order=5, mode="grid-wrap")
    noisy = [image + 0.1 * rng.normal(size=image.shape) for image in pair]
    images = tuple(image[np.newaxis].astype(np.float32) for image in noisy)
    low = np.array([(0, 40, 50), (0, 60, 100), (0, 120, 80), (0, 100, 140)])
    return images, low, np.array([1, 64, 72])


def test_windows_searched_together_or_alone_say_the_same(moved):
    images, low, _ = moved
    block, reach = np.array([1, 96, 96]), np.array([0, 48, 48])
    search = Search(low=-reach, high=reach, least=100.0, count=1, exponent=-1.0)
    found = search_windows(images, low, block, reach)
    assert found.sure.sum() >= 3
    for row, first in enumerate(low):
        pair = [image[tuple(map(slice, first, first + block))] for image in images]
        alone = circular_search(*pair, search)
        # One algorithm, with sums in another order.
        assert_allclose(found.shift[row], alone.shifts[0], rtol=0, atol=1e-3)
        if found.sure[row]:
            assert found.false_alarm[row] <= 1e-6


def test_windows_fitted_together_or_alone_say_the_same(moved):
    images, low, block = moved
    start = np.tile((0.0, -2, 6), (4, 1))
    fits = fit_windows(images, low, block, start)
    for row, first in enumerate(low):
        # The same pixels: those of the moving image lie where their content is.
        one, other = (
            image[tuple(map(slice, at, at + block))]
            for image, at in zip(images, (first, first - (0, -2, 6)), strict=True)
        )
        alone = fit_shift(one, other, np.zeros(3))
        # Both stop when what is left is a tenth of the error.
        sigma = np.sqrt(alone.covariance[1, 1])
        expected = alone.shift + np.array((0, -2, 6))
        assert_allclose(fits.shift[row], expected, rtol=0, atol=0.2 * sigma)
        # The moving window follows the content here, and there it is cut.
        assert_allclose(fits.covariance[row], alone.covariance, rtol=0.1, atol=1e-8)


def test_windows_are_cut_to_what_counts():
    one, other = np.zeros((2, 1, 60, 60), np.float32)
    other[0, :5] = np.nan
    other[0, 40, 40] = np.nan
    low = np.array([(0, 0, 0), (0, 0, 10), (0, 20, 20)])
    high = low + np.array((1, 30, 30))
    counts = np.array([750, 750, 899])
    whole = trim_windows(one, other, low, high, counts)
    # A hole in the middle of a window cannot be cut off.
    assert whole.tolist() == [True, True, False]
    assert_allclose(low, [(0, 5, 0), (0, 5, 10), (0, 20, 20)])
    assert_allclose(high[2], (1, 50, 50))


def test_borders_are_as_right_as_their_covariances_say():
    reference, moving, field = bent_pair(
        np.random.default_rng(22), amplitude=5.0, wavelength=400
    )
    found = spt.match_grid(reference, moving, size=48)
    error, covariance, usable = errors_of(found, field)
    rows, cols = found.outcome.shape
    edge = np.ones((rows, cols), np.bool_)
    edge[1:-1, 1:-1] = False
    edge = edge.ravel()[usable]
    miss = np.abs(error[edge]).max(axis=1)
    sigma = np.sqrt(np.trace(covariance[edge], axis1=1, axis2=2) / 2)
    assert len(miss) > 0.9 * (2 * rows + 2 * cols - 4)
    # Two of thirty-two may miss by more than three deviations.
    assert (miss > 3 * sigma).sum() <= 2
    assert (miss < 6 * sigma).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 8}, "`size` must be at least 16 pixels; got 8"),
        ({"spacing": 0}, "`spacing` must be finite and greater than 0"),
        ({"max_shift": -1}, "`max_shift` must be finite and greater than 0"),
        ({"matrix": np.eye(4)}, "`matrix` must have shape"),
        ({"matrix": np.ones((3, 3))}, "`matrix` must be affine; got the last row"),
        ({"whitening": 2}, "`whitening` must be between 0 and 1"),
    ],
)
def test_bad_options_are_named(options, text):
    image = np.zeros((64, 64))
    with pytest.raises(ValueError, match=text):
        spt.match_grid(image, image, **options)

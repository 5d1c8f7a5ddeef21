"""A distortion that all tiles share is found with their positions."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SHAPE = (400, 512)
SIGMA = 0.03


def barrel(points):
    """Half a percent at the corners, and a cubic skew."""
    away = (points - (np.array(SHAPE) - 1) / 2) / 256
    bent = 0.8 * away * np.sum(away**2, axis=-1, keepdims=True)
    bent[..., 0] += 0.5 * away[..., 1] ** 3
    return bent


def scan(points):
    """A shift of whole rows, as of a scan that creeps."""
    bent = np.zeros_like(points)
    bent[..., 1] = 2 * np.exp(-points[..., 0] / 80)
    bent[..., 0] = 0.4 * (points[..., 0] / 200 - 1) ** 2
    return bent


def nothing(points):
    return np.zeros_like(points)


def recorded(corrected, bend):
    """Return where points of corrected tiles were recorded: they move by `bend`."""
    points = corrected
    for _ in range(40):
        points = corrected - bend(points)
    return points


def mosaic(rng, bend, *, grid=(4, 4), windows=12, sigma=SIGMA):
    """Return positions, and links with the points of windows along each overlap."""
    pitch = tuple(int(0.86 * side) for side in SHAPE)
    truth = spt.grid_positions(grid, pitch) + rng.normal(0, 6, (np.prod(grid), 2))
    pairs = spt.grid_links(grid)
    links = np.repeat(pairs, windows, axis=0)
    low = truth[pairs].max(axis=1)[:, np.newaxis]
    high = truth[pairs].min(axis=1)[:, np.newaxis] + SHAPE
    along = (np.arange(windows) + 0.5) / windows
    middle = np.full((len(pairs), windows, 2), 0.5)
    long = (high - low)[:, 0].argmax(axis=1)
    middle[np.arange(len(pairs)), :, long] = along
    scene = (low + middle * (high - low)).reshape(-1, 2) - 0.5
    points = [recorded(scene - truth[tile], bend) for tile in links.T]
    points[0] = points[0] + rng.normal(0, sigma, scene.shape)
    return truth, links, points


def solved(links, points, **options):
    covariance = SIGMA**2 * np.eye(2)
    return spt.solve_distortion(
        links, *points, shape=SHAPE, covariance=covariance, **options
    )


def away(found, bend, points):
    """Return how far a field is off where overlaps look, but for what is linear.

    A linear part of the field cannot be told from positions.
    """
    seen = np.concatenate(points)
    corners = np.rint(np.clip(seen, 0, np.array(SHAPE) - 1)).astype(int)
    moved = found.displacement[tuple(corners.T)]
    truth = bend(recorded(corners.astype(float), bend))
    left = moved - truth
    design = np.column_stack([np.ones(len(corners)), corners])
    return left - design @ np.linalg.lstsq(design, left, rcond=None)[0]


def apart(found, truth):
    """Return how far positions are off, but for a linear map."""
    left = found.placement.matrices[:, :2, 2] - truth
    design = np.column_stack([np.ones(len(truth)), truth])
    return left - design @ np.linalg.lstsq(design, left, rcond=None)[0]


def test_a_lens_is_found_with_the_positions(rng):
    truth, links, points = mosaic(rng, barrel)
    found = solved(links, points, degree=3)
    left = away(found, barrel, points)
    # Quadratic terms, which are told least, are known to 0.05 px.
    assert np.sqrt(np.mean(left**2)) < 0.03
    assert found.placement.inlier.all()
    # Translations miss by 0.6 px in these overlaps.
    assert np.sqrt(np.mean(found.placement.residuals**2)) < 1.1 * SIGMA
    assert np.sqrt(np.mean(apart(found, truth) ** 2)) < 0.02


def test_the_field_corrects_what_was_recorded(rng):
    """corrected_point = recorded_point + displacement[corrected_point]."""
    _, links, points = mosaic(rng, barrel)
    found = solved(links, points, degree=3)
    corrected = np.array([(40.0, 60.0), (200.0, 500.0), (390.0, 10.0)])
    moved = found.displacement[tuple(corrected.astype(int).T)]
    before = corrected - moved
    place = (2 * before + 1) / SHAPE - 1
    terms = [
        np.polynomial.legendre.Legendre.basis(a)(place[:, 0])
        * np.polynomial.legendre.Legendre.basis(b)(place[:, 1])
        for a, b in found.terms
    ]
    assert_allclose(np.transpose(terms) @ found.coefficients, moved, atol=1e-5)


def test_error_bars_of_coefficients_are_honest(rng):
    chi2 = []
    exact = solved(*mosaic(np.random.default_rng(1), barrel, sigma=0)[1:], degree=3)
    for _ in range(12):
        _, links, points = mosaic(rng, barrel)
        found = solved(links, points, degree=3)
        error = (found.coefficients - exact.coefficients).ravel()
        count = error.size
        covariance = found.covariance.reshape(count, count)
        chi2.append(error @ np.linalg.solve(covariance, error) / count)
    # 12 x 14 coefficients: the mean of chi-square is 1 within 0.11.
    assert 0.75 < np.mean(chi2) < 1.25


def test_the_degree_is_chosen_by_windows_that_are_held_out(rng):
    _, links, points = mosaic(rng, barrel)
    found = solved(links, points)
    assert found.degree == 3
    assert found.heldout_error[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert found.heldout_error[0, 1] > 5 * found.heldout_error[2, 1]


@pytest.mark.parametrize("grid", [(2, 2), (3, 3)])
def test_no_distortion_is_found_where_there_is_none(grid, rng):
    degrees = [
        solved(*mosaic(rng, nothing, grid=grid, windows=8)[1:]).degree for _ in range(6)
    ]
    assert np.count_nonzero(np.array(degrees) > 1) <= 1


def test_without_covariances_the_residuals_say_how_large_errors_are(rng):
    _, links, points = mosaic(rng, barrel)
    found = spt.solve_distortion(links, *points, shape=SHAPE, degree=3)
    left = away(found, barrel, points)
    assert np.sqrt(np.mean(left**2)) < 0.03
    assert found.placement.variance == pytest.approx(SIGMA**2, rel=0.2)


def test_false_windows_and_false_pairs_are_dropped(rng):
    truth, links, points = mosaic(rng, barrel)
    false = rng.random(len(links)) < 0.1
    false |= (links == (5, 6)).all(axis=1)
    shift = rng.uniform(5, 40, points[1].shape)
    shift *= np.sign(np.array(SHAPE) / 2 - points[1])
    shift[(links == (5, 6)).all(axis=1)] = (10, 31)
    points[1] = points[1] + shift * false[:, np.newaxis]
    found = solved(links, points, degree=3)
    assert not found.placement.inlier[false].any()
    assert found.placement.inlier[~false].mean() > 0.98
    assert np.sqrt(np.mean(apart(found, truth) ** 2)) < 0.02


def test_a_lens_about_the_middle_takes_few_numbers(rng):
    def lens(points):
        away = (points - (np.array(SHAPE) - 1) / 2) / 256
        return 0.8 * away * np.sum(away**2, axis=-1, keepdims=True)

    _, links, points = mosaic(rng, lens)
    found = solved(links, points, degree=3, model="radial")
    left = away(found, lens, points)
    assert np.sqrt(np.mean(left**2)) < 0.01
    # One number: all coefficients are multiples of each other.
    count = found.coefficients.size
    assert np.linalg.matrix_rank(found.covariance.reshape(count, count)) == 1


@pytest.mark.parametrize(("model", "axis"), [("rows", 0), ("columns", 1)])
def test_a_scan_bends_lines_alike(model, axis, rng):
    def bend(points):
        if axis == 0:
            return scan(points)
        return scan(points[..., ::-1])[..., ::-1]

    _, links, points = mosaic(rng, bend)
    found = solved(links, points, degree=5, model=model)
    # Lines are moved alike.
    field = np.moveaxis(found.displacement, axis, 0)
    assert_allclose(field, field[:, :1].repeat(field.shape[1], 1), atol=1e-6)
    left = away(found, bend, points)
    # What an exponential has beyond the fifth degree is 0.05 px.
    assert np.sqrt(np.mean(left**2)) < 0.05


def test_what_no_overlap_sees_stays_small(rng):
    """Two tiles side by side: no window tells what bends their rows."""
    _, links, points = mosaic(rng, barrel, grid=(1, 2), windows=40)
    found = solved(links, points, degree=5)
    assert np.abs(found.displacement).max() < 3


def test_a_tile_is_corrected_by_the_field(rng):
    scene = spt.gaussian_texture((500, 600), cutoff=0.1, rng=rng)
    _, links, points = mosaic(rng, barrel)
    found = solved(links, points, degree=3)
    pixels = np.moveaxis(np.indices(SHAPE), 0, -1).astype(float)
    from scipy import ndimage  # noqa: PLC0415

    def seen(where):
        return ndimage.map_coordinates(scene, np.moveaxis(where + 40, -1, 0), order=5)

    # A pixel at p shows what belongs at p + P(p).
    place = (2 * pixels + 1) / SHAPE - 1
    table = np.zeros((4, 4, 2))
    table[tuple(found.terms.T)] = found.coefficients
    moved = np.moveaxis(
        np.polynomial.legendre.legval2d(place[..., 0], place[..., 1], table), 0, -1
    )
    corrected = spt.warp_image(
        seen(pixels + moved), np.eye(3), displacement=found.displacement, order=5
    )
    inside = (slice(20, -20), slice(20, -20))
    assert_allclose(corrected[inside], seen(pixels)[inside], atol=0.02 * scene.std())


def test_inputs_are_left_alone_and_answers_repeat(rng):
    _, links, points = mosaic(rng, barrel, grid=(2, 3))
    for array in (links, *points):
        array.setflags(write=False)
    first, again = solved(links, points), solved(links, points)
    assert_array_equal(first.displacement, again.displacement)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 1}, "`degree` must be from 2 to 4, for 12 links; got 1"),
        ({"degree": 5}, "`degree` must be from 2 to 4, for 12 links; got 5"),
        ({"shape": (300, 512)}, "`shape` must be that of tiles with all points on"),
        ({"model": "fisheye"}, "`model` must be one of .*; got 'fisheye'"),
        ({"shape": (400, 512, 3)}, "`shape` must hold 2 positive integers"),
    ],
)
def test_bad_arguments_are_named(options, message, rng):
    _, links, points = mosaic(rng, nothing, grid=(2, 2), windows=3)
    with pytest.raises(ValueError, match=message):
        spt.solve_distortion(links, *points, **{"shape": SHAPE} | options)


def test_volumes_are_refused_by_name():
    points = np.zeros((4, 3))
    with pytest.raises(ValueError, match="`reference_points` must have shape"):
        spt.solve_distortion([(0, 1)] * 4, points, points, shape=SHAPE)


def test_fewer_windows_than_unknowns_are_refused(rng):
    _, links, points = mosaic(rng, nothing, grid=(1, 2), windows=8)
    with pytest.raises(ValueError, match=r"`links` must be more than the .* unknowns"):
        solved(links, points, degree=3)


def test_error_bars_of_positions_hold_with_the_field(rng):
    """What the field leaves open moves tiles together, neighbours the least."""
    _, links, points = mosaic(rng, barrel, grid=(5, 5), windows=8, sigma=0)
    exact = solved(links, points, degree=5).placement.matrices[:, :2, 2]
    pairs = np.array([(0, 24), (4, 20), (0, 4), (6, 7)])
    chi2 = np.zeros((30, 3))
    for each in chi2:
        noisy = points[0] + rng.normal(0, SIGMA, points[0].shape), points[1]
        found = solved(links, noisy, degree=5).placement
        error = found.matrices[:, :2, 2] - exact
        error -= error.mean(axis=0)
        alone = replace(found, systematic=None)
        one, other = error[pairs.T]
        for row, (apart, covariance) in enumerate(
            [
                (error, spt.position_covariance(found)),
                (other - one, spt.offset_covariance(found, pairs)),
                (error, spt.position_covariance(alone)),
            ]
        ):
            weights = np.linalg.inv(covariance)
            each[row] = np.einsum("na,nab,nb->n", apart, weights, apart).mean() / 2
    positions, offsets, without = chi2.mean(axis=0)
    assert 0.8 < positions < 1.25
    assert 0.8 < offsets < 1.25
    # Quintic terms look much like positions.
    assert without > 10

"""Transforms from pairs of points, and what they say of themselves."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt
from tests.sweeps import sweep

MATRICES = ("translation", "rigid", "similarity", "affine", "projective")
MODELS = (*MATRICES, "polynomial")


def true_matrix(model, ndim, rng):
    """Return a random matrix that a model can follow, but no simpler one."""
    matrix = np.eye(ndim + 1)
    if model != "translation":
        turn = np.linalg.qr(rng.normal(size=(ndim, ndim)))[0]
        turn[0] *= np.linalg.det(turn)
        turn *= 1 if model == "rigid" else 1.3
        if model in ("affine", "projective", "polynomial"):
            turn = turn + 0.1 * rng.normal(size=(ndim, ndim))
        matrix[:ndim, :ndim] = turn
    matrix[:ndim, ndim] = rng.normal(0, 50, ndim)
    if model == "projective":
        matrix[ndim, :ndim] = 4e-4 * rng.uniform(-1, 1, ndim)
    return matrix


def true_pairs(model, ndim, rng, count=30):
    moving = rng.uniform(0, 500, (count, ndim))
    return spt.apply_transform(true_matrix(model, ndim, rng), moving), moving


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("model", MATRICES)
@settings(max_examples=20)
@given(number=st.integers(0, 2**32 - 1))
def test_exact_points_give_their_matrix(model, ndim, number):
    rng = np.random.default_rng(number)
    truth = true_matrix(model, ndim, rng)
    moving = rng.uniform(0, 500, (12, ndim))
    reference = spt.apply_transform(truth, moving)
    found = spt.estimate_transform(reference, moving, model=model, robust=False)
    # 1e-5 px: products of points up to 500 are rounded at 1e-11, which projective
    # transforms of few points may amplify.
    assert_allclose(spt.apply_transform(found, moving), reference, rtol=0, atol=1e-5)
    assert found.inlier.all()


@pytest.mark.parametrize("order", [2, 3])
def test_exact_points_give_their_polynomial(order, rng):
    moving = rng.uniform(0, 500, (30, 2))
    unit = moving / 250 - 1
    reference = moving + np.stack([9 * unit[:, 0] ** order, 5 * unit.prod(1)], axis=1)
    found = spt.estimate_transform(
        reference, moving, model="polynomial", order=order, robust=False
    )
    # 1e-8: rounding of coordinates up to 500.
    assert_allclose(spt.apply_transform(found, moving), reference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("model", MATRICES)
@settings(max_examples=20)
@given(number=st.integers(0, 2**32 - 1), shift=st.floats(-1e4, 1e4))
def test_moving_the_reference_moves_the_transform(model, number, shift):
    rng = np.random.default_rng(number)
    reference, moving = true_pairs(model, 2, rng)
    reference += rng.normal(size=reference.shape)
    first = spt.estimate_transform(reference, moving, model=model, robust=False)
    second = spt.estimate_transform(
        reference + shift, moving, model=model, robust=False
    )
    moved = spt.apply_transform(first, moving) + shift
    # 1e-4: where steps of Gauss and Newton end, in pixels.
    assert_allclose(spt.apply_transform(second, moving), moved, rtol=0, atol=1e-4)
    assert_allclose(second.leave_one_out, first.leave_one_out, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_order_of_points_does_not_matter(model, rng):
    reference, moving = true_pairs(model, 2, rng, 20)
    reference[:4] += 60
    order = rng.permutation(20)
    first = spt.estimate_transform(reference, moving, model=model)
    second = spt.estimate_transform(reference[order], moving[order], model=model)
    assert_array_equal(second.inlier, first.inlier[order])
    # 1e-6: rounding.
    assert_allclose(second.residuals, first.residuals[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MATRICES)
def test_swapping_exact_images_inverts_the_matrix(model, rng):
    reference, moving = true_pairs(model, 2, rng)
    there = spt.estimate_transform(reference, moving, model=model).matrix
    back = spt.estimate_transform(moving, reference, model=model).matrix
    both = back @ there
    # 1e-7: rounding of entries up to 1e3 that multiply others.
    assert_allclose(both / both[-1, -1], np.eye(3), rtol=0, atol=1e-7)


def test_scaling_covariances_changes_no_transform(rng):
    reference, moving = true_pairs("affine", 2, rng)
    reference += rng.normal(size=reference.shape)
    spread = rng.uniform(0.5, 2, (30, 1, 1)) * np.eye(2)
    first, second = (
        spt.estimate_transform(reference, moving, covariance=spread * scale)
        for scale in (1, 16)
    )
    assert_allclose(second.matrix, first.matrix, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "known"),
    sweep(
        [*((each, True) for each in MODELS), ("affine", False), ("projective", False)],
        1,
        4,
        6,
    ),
)
def test_error_bars_are_honest_and_errors_at_the_bound(model, known, rng):
    """The bound is the inverse of the Fisher information: the true covariance."""
    spread = np.array([[2.0, 0.6], [0.6, 0.5]])
    grid = np.stack(np.mgrid[100:401:100, 100:401:100], -1).reshape(-1, 2)
    misfit, error, bound = [], 0.0, 0.0
    for _ in range(200):
        truth = true_matrix(model, 2, rng)
        moving = rng.uniform(0, 500, (30, 2))
        exact = spt.apply_transform(truth, moving)
        noise = rng.multivariate_normal(np.zeros(2), spread if known else np.eye(2), 30)
        found = spt.estimate_transform(
            exact + noise,
            moving,
            model=model,
            covariance=spread if known else None,
            robust=False,
        )
        away = spt.apply_transform(found, grid) - spt.apply_transform(truth, grid)
        said = spt.transform_covariance(found, grid)
        misfit.append(np.einsum("na,nab,nb->n", away, np.linalg.inv(said), away).mean())
        bound += np.einsum("naa->", said) / found.variance
        error += (away**2).sum()
    # The figure to reach. The mean of 200 runs scatters by 0.07 for a translation,
    # where all points of a run have one error, and without covariances lies 0.04 above
    # one, as the square of Student's t does.
    assert 0.8 < np.mean(misfit) / 2 < 1.25
    # The rms of as many scatters by 0.035 for a translation.
    assert np.sqrt(error / bound) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("model", MATRICES)
def test_half_of_the_pairs_may_be_wrong(model, ndim, rng):
    for _ in range(4):
        reference, moving = true_pairs(model, ndim, rng, 20)
        wrong = np.arange(20) < 10
        low, high = reference.min(axis=0), reference.max(axis=0)
        exact = reference.copy()
        reference += 0.5 * rng.normal(size=reference.shape)
        reference[wrong] = rng.uniform(low, high, (10, ndim))
        # What lies near its place by chance is not wrong.
        wrong &= np.linalg.norm(reference - exact, axis=1) > 40
        found = spt.estimate_transform(reference, moving, model=model)
        assert not (found.inlier & wrong).any()
        assert (found.inlier[10:]).sum() >= 9


def test_wrong_pairs_may_lie_beyond_the_horizon(rng):
    truth = np.array([[1, 0.1, 5], [-0.1, 1, 9], [-3e-3, 0, 1]])
    moving = rng.uniform(0, (250, 400), (20, 2))
    reference = spt.apply_transform(truth, moving) + 0.5 * rng.normal(size=(20, 2))
    moving[:6, 0] = rng.uniform(350, 800, 6)
    found = spt.estimate_transform(reference, moving, model="projective")
    assert_array_equal(np.flatnonzero(~found.inlier), np.arange(6))
    assert np.isinf(found.leave_one_out[:6]).all()


def test_clean_pairs_give_plain_least_squares(rng):
    reference, moving = true_pairs("projective", 2, rng)
    reference += rng.normal(size=reference.shape)
    for model in ("projective", "polynomial"):
        robust, plain = (
            spt.estimate_transform(reference, moving, model=model, robust=flag)
            for flag in (True, False)
        )
        assert_array_equal(robust.matrix, plain.matrix)


def test_results_have_the_same_bits_in_every_call(rng):
    reference, moving = true_pairs("affine", 2, rng)
    reference[:12] = rng.uniform(0, 500, (12, 2))
    first, second = (spt.estimate_transform(reference, moving) for _ in range(2))
    assert_array_equal(first.matrix, second.matrix)
    assert_array_equal(first.leave_one_out, second.leave_one_out)


@pytest.mark.parametrize("model", MODELS)
def test_leaving_one_out_is_a_fit_without_it(model, rng):
    reference, moving = true_pairs(model, 2, rng, 12)
    reference += rng.normal(size=reference.shape)
    spread = rng.uniform(0.5, 2, (12, 1, 1)) * np.array([[2.0, 0.6], [0.6, 0.5]])
    found = spt.estimate_transform(
        reference, moving, model=model, covariance=spread, robust=False
    )
    for row in range(12):
        rest = np.arange(12) != row
        other = spt.estimate_transform(
            reference[rest],
            moving[rest],
            model=model,
            covariance=spread[rest],
            robust=False,
        )
        away = spt.apply_transform(other, moving[row]) - reference[row]
        # 1e-4: where steps of Gauss and Newton end, in pixels.
        assert found.leave_one_out[row] == pytest.approx(np.linalg.norm(away), abs=1e-4)


def test_a_pair_that_is_needed_has_no_error_without_it():
    corners = [(0, 0), (0, 9), (9, 0), (9, 8)]
    found = spt.estimate_transform(corners, corners, model="projective")
    assert np.isinf(found.leave_one_out).all()
    assert np.isinf(found.variance)
    assert np.isinf(spt.transform_covariance(found, (4, 4))).all()


def test_failed_pairs_have_no_say(rng):
    reference, moving = true_pairs("affine", 2, rng)
    spread = np.ones((30, 1, 1)) * np.eye(2)
    reference[3], spread[3] = 1e5, np.inf
    found = spt.estimate_transform(reference, moving, covariance=spread, robust=False)
    assert_array_equal(np.flatnonzero(~found.inlier), [3])
    # 1e-7: rounding of coordinates that differ by up to 1e5.
    assert np.abs(found.residuals[found.inlier]).max() < 1e-7


def test_errors_larger_than_covariances_say_are_found_out(rng):
    reference, moving = true_pairs("affine", 2, rng)
    reference += 3 * rng.normal(size=reference.shape)
    found = spt.estimate_transform(reference, moving, covariance=np.eye(2))
    # The variance of 54 numbers scatters by 20 percent.
    assert found.variance == pytest.approx(9, rel=0.5)
    assert found.inlier.all()


@pytest.mark.parametrize("model", ["rigid", "similarity"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_mirror_images_are_found_only_on_request(model, ndim, rng):
    reference, moving = true_pairs(model, ndim, rng)
    reference[:, 0] *= -1
    plain = spt.estimate_transform(reference, moving, model=model, robust=False)
    turned = spt.estimate_transform(reference, moving, model=model, mirror=True)
    assert np.linalg.det(plain.matrix) > 0
    assert plain.rms > 50
    assert np.linalg.det(turned.matrix) < 0
    # 1e-8: rounding of coordinates up to 500.
    assert turned.rms < 1e-8


def test_a_horizon_between_the_first_pixel_and_the_points_is_no_obstacle():
    truth = np.array([[1, 0.1, 5], [-0.1, 1, 9], [0.01, 0, -1]])
    moving = np.random.default_rng(0).uniform(200, 500, (20, 2))
    reference = spt.apply_transform(truth, moving)
    found = spt.estimate_transform(reference, moving, model="projective")
    # 1e-6: rounding.
    assert_allclose(spt.apply_transform(found, moving), reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", ["projective", "polynomial"])
def test_warped_images_show_points_where_the_estimate_brings_them(model, rng):
    moving = rng.uniform(0, 120, (20, 2))
    if model == "projective":
        matrix = np.array([[0.9, 0.1, 4], [-0.1, 1, 12], [1e-3, -5e-4, 1]])
        reference = spt.apply_transform(matrix, moving)
    else:
        unit = moving / 60 - 1
        reference = moving + np.stack([4 * unit[:, 1] ** 2, 6 * unit.prod(1)], axis=1)
    found = spt.estimate_transform(reference, moving, model=model)
    rows, cols = np.indices((120, 120))
    row = spt.warp_image(rows.astype(float), found, fill_value=np.nan)
    col = spt.warp_image(cols.astype(float), found, fill_value=np.nan)
    seen = np.isfinite(row)
    assert seen.sum() > 5000
    back = spt.apply_transform(found, np.stack([row[seen], col[seen]], axis=1))
    # A ramp that is interpolated linearly stays one; kernels and fields are single
    # precision, and half a pixel at the border repeats it.
    inner = (np.minimum(row, col)[seen] > 0) & (np.maximum(row, col)[seen] < 119)
    assert_allclose(back[inner], np.argwhere(seen)[inner], rtol=0, atol=2e-3)


def test_only_affine_estimates_go_with_a_displacement(rng):
    reference, moving = true_pairs("projective", 2, rng)
    found = spt.estimate_transform(reference, moving, model="projective")
    with pytest.raises(ValueError, match=r"`matrix` must be affine if .*projective"):
        spt.warp_image(np.ones((9, 9)), found, displacement=np.zeros((9, 9, 2)))


LINE = np.array([(0, 0), (10, 20), (30, 60), (40, 80), (5, 10), (7, 14)], float)
HULL = np.array([(0, 0), (0, 9), (9, 0), (9, 8), (4, 3), (7, 1), (2, 6)], float)
BENT = np.stack([LINE[:, 0], LINE[:, 0] ** 2], axis=1)
THREE = np.array([(0, 0), (0, 5), (0, 9), (9, 8)], float)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (HULL[:2], {}, "at least 3 points for an affine transform; got 2"),
        (HULL[:0], {"model": "translation"}, "at least 1 point for .*; got 0"),
        (HULL[:3], {"model": "projective"}, "at least 4 points .*projective.*; got 3"),
        (HULL[:5], {"model": "polynomial"}, "at least 6 points .*order 2; got 5"),
        (LINE, {}, "must not all lie on a line for an affine transform; got 6"),
        (LINE, {"model": "projective"}, "must not all lie on a line"),
        (LINE, {"model": "rigid", "mirror": True}, "line for a rigid .*`mirror`"),
        (HULL[[1] * 5], {"model": "rigid"}, "must not all be the same .*; got 5 times"),
        (THREE, {"model": "projective"}, "4 points of which no 3 lie on a line"),
        (BENT, {"model": "polynomial"}, "must not all lie on one curve of order 2"),
        (np.eye(3)[[0, 1, 2, 0]], {}, "must not all lie on a plane"),
        (np.eye(3)[[0, 1, 0]], {"model": "rigid"}, "must not all lie on a line"),
        (HULL + np.nan, {}, "must be finite; got 14 NaN"),
        (
            HULL,
            {"model": "bent"},
            "`model` must be one of 'translation', .*; got 'bent'",
        ),
        (
            HULL,
            {"model": "polynomial", "order": 1},
            "`order` must be at least 2; got 1",
        ),
        (HULL, {"covariance": np.eye(3)}, "`covariance` must have shape"),
    ],
)
def test_points_that_determine_nothing_are_refused(points, options, message):
    with pytest.raises(ValueError, match=message):
        spt.estimate_transform(points, points, **options)


def test_points_of_different_number_are_refused():
    with pytest.raises(ValueError, match="must have the same shape; got"):
        spt.estimate_transform(HULL, HULL[:5])


# Comparing models


def leaning(model, rng):
    """Return a matrix that turns, zooms, shears and leans as far as a model can."""
    turn, zoom = spt.rotation(0.3 * (model != "translation")), np.eye(3)
    if model in ("similarity", "affine", "projective"):
        zoom *= (1.3, 1.3, 1)
    if model in ("affine", "projective"):
        zoom[0, :2] += 0.1
    if model == "projective":
        zoom[2, 1] = 8e-4
    return spt.translation(rng.uniform(-50, 50, 2)) @ turn @ zoom


@pytest.mark.parametrize("model", MATRICES)
def test_simplest_of_the_tied_models_is_the_true_one(model, rng):
    right = 0
    for _ in range(20):
        moving = rng.uniform(0, 512, (12, 2))
        reference = spt.apply_transform(leaning(model, rng), moving)
        reference += 2 * rng.normal(size=reference.shape)
        found = spt.compare_transforms(reference, moving, robust=False)
        right += found.models[np.flatnonzero(found.tied)[0]] == model
    # Of 20 runs that are right with a probability of 95 percent each, 17 or more are
    # in 98 percent of all cases; of runs that are right by half, in 0.1 percent.
    assert right >= 17


def test_exact_points_tie_all_models_that_follow_them(rng):
    moving = rng.uniform(0, 512, (9, 2))
    found = spt.compare_transforms(moving + 3, moving)
    assert found.tied.all()
    assert (found.leave_one_out < 1e-6).all()


def test_four_points_do_not_test_a_projective_transform(rng):
    moving = np.array([(0, 0), (0, 90), (90, 0), (90, 90)], float)
    found = spt.compare_transforms(moving + rng.normal(size=(4, 2)), moving)
    assert found.models == MATRICES
    assert_array_equal(found.unknowns, [2, 3, 4, 6, 8])
    assert found.rms[4] < 1e-9
    assert found.leave_one_out[4] == np.inf
    assert not found.tied[4]
    assert found.reason[4].startswith("the fit needs")
    assert np.isfinite(found.leave_one_out[:4]).all()


def test_models_that_points_do_not_determine_are_listed_with_the_reason():
    found = spt.compare_transforms(LINE + 1, LINE, models=("rigid", "affine"))
    assert found.reason[0] == ""
    assert "must not all lie on a line" in found.reason[1]
    assert found.rms[1] == np.inf
    assert "affine: `reference_points` must not" in str(found)


def test_wrong_pairs_count_for_no_model(rng):
    reference, moving = true_pairs("affine", 2, rng)
    reference[[3, 8]] += 90
    found = spt.compare_transforms(reference, moving)
    assert_array_equal(np.flatnonzero(~found.inlier), [3, 8])
    assert found.leave_one_out[1] > 10
    assert found.leave_one_out[3] < 1e-6


def test_images_score_each_model(rng):
    scene = spt.gaussian_texture((160, 160), cutoff=0.1, rng=rng)
    truth = spt.translation((5, -8)) @ spt.rotation(0.2)
    moving = rng.uniform(20, 140, (6, 2))
    reference = spt.apply_transform(truth, moving)
    image = spt.warp_image(scene, truth, order=3)
    models = ("translation", "rigid")
    found = spt.compare_transforms(
        reference, moving, models=models, reference=image, moving=scene
    )
    assert found.correlation[1] > 0.95
    assert found.correlation[0] < 0.6
    assert found.mutual_information[1] > 2 * found.mutual_information[0]
    assert "bits" in str(found)
    assert str(found).splitlines()[2].split()[4] == "*"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ()}, "`models` must be a sequence of some of"),
        ({"models": ("curve",)}, "`models` must be .*; got .*curve"),
        ({"reference": np.ones((9, 9))}, "`moving` must be given .*; got None"),
        (
            {"reference": np.ones((9, 9, 9)), "moving": np.ones((9, 9))},
            "`reference` must have 2 axes",
        ),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        spt.compare_transforms(HULL, HULL, **options)


# Real acquisitions


@pytest.mark.real
def test_homography_of_a_wall_survives_a_third_of_wrong_points(rng):
    path = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "photos/opencv/H1to3p.xml"
    values = ET.parse(path).find("H13/data").text.split()
    truth = spt.swap_xy_matrix(np.array(values, float).reshape(3, 3))
    moving = rng.uniform(0, (640, 800), (20, 2))
    reference = spt.apply_transform(truth, moving)
    low, high = reference.min(axis=0), reference.max(axis=0)
    # Clicks to a tenth of a pixel tell the corners to two or three.
    reference += 0.1 * rng.normal(size=(20, 2))
    reference[:6] = rng.uniform(low, high, (6, 2))
    found = spt.estimate_transform(reference, moving, model="projective")
    assert not found.inlier[:6].any()
    corners = [(0, 0), (0, 799), (639, 0), (639, 799)]
    away = spt.apply_transform(found, corners) - spt.apply_transform(truth, corners)
    assert np.linalg.norm(away, axis=1).max() < 1


@pytest.mark.real
@pytest.mark.parametrize(("pair", "floor"), [("rat-kidney_", 3.5), ("lesions_", 5.9)])
def test_landmarks_of_stained_sections_fit_to_the_floor(pair, floor):
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "multimodal/birl_histology"
    tables = [
        np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2))
        for path in sorted((folder / pair).glob("*.csv"))
    ]
    # One of the sections has two landmarks more at the end.
    count = min(map(len, tables))
    moving, reference = (spt.swap_xy_points(table[:count]) for table in tables)
    found = spt.estimate_transform(reference, moving, robust=False)
    distance = np.linalg.norm(found.residuals, axis=1)
    # The floor is known to a tenth of a pixel.
    assert np.median(distance) == pytest.approx(floor, abs=0.05)

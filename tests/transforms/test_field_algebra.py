"""Fields through points, joined, resampled and flattened, against known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RBFInterpolator

import spectral_tools as spt

SHAPE = (90, 110)
METHODS = ("thin_plate", "piecewise_affine")


@pytest.mark.parametrize("method", ["thin_plate", "piecewise_affine"])
def test_the_order_of_points_on_a_grid_changes_nothing(rng, method):
    # Each square of a grid can be cut along two diagonals.
    points = np.stack(np.mgrid[0:50:10, 0:50:10], -1).reshape(-1, 2)
    moving = points + rng.normal(size=points.shape)
    field = spt.interpolate_displacement(points, moving, (41, 41), method=method)
    for _ in range(3):
        order = rng.permutation(len(points))
        again = spt.interpolate_displacement(
            points[order], moving[order], (41, 41), method=method
        )
        assert_array_equal(again, field)


def pixels(shape=SHAPE):
    return np.moveaxis(np.indices(shape, dtype=float), 0, -1)


def wave(points, amplitude=2.0):
    rows, cols = points[..., 0], points[..., 1]
    return amplitude * np.stack([np.sin(cols / 14), np.cos(rows / 17)], axis=-1)


def scattered(rng, count, shape=SHAPE):
    """Points at the corners, and some more between them."""
    last = np.array(shape) - 1.0
    corners = last * np.stack(np.mgrid[(slice(0, 2),) * len(shape)], -1).reshape(
        -1, len(shape)
    )
    return np.vstack([corners, rng.uniform(0, last, (count, len(shape)))])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outside", ["nan", "nearest", "affine"])
def test_an_affine_map_is_met_exactly_everywhere(method, outside):
    rng = np.random.default_rng(1)
    reference = scattered(rng, 12)
    truth = spt.rotation(0.1) @ spt.translation((3, -2))
    moving = spt.apply_transform(np.linalg.inv(truth), reference)
    field = spt.interpolate_displacement(
        reference, moving, SHAPE, method=method, outside=outside
    )
    shown = pixels() - field
    assert_allclose(spt.apply_transform(truth, shown), pixels(), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [SHAPE, (12, 14, 13)])
def test_points_are_met(method, shape):
    rng = np.random.default_rng(2)
    last = np.array(shape) - 1
    reference = np.unique(rng.integers(0, last + 1, (15, len(shape))), axis=0)
    moving = reference + rng.normal(0, 1, reference.shape)
    field = spt.interpolate_displacement(reference, moving, shape, method=method)
    assert_allclose(field[tuple(reference.T)], reference - moving, atol=1e-8)


def test_triangles_have_a_matrix_each():
    reference = np.array([(0, 0), (0, 80), (80, 0), (80, 80)])
    moving = reference + np.array([(0, 0), (2, 0), (0, 3), (0, 0)])
    field = spt.interpolate_displacement(
        reference, moving, (81, 81), method="piecewise_affine"
    )
    bends = np.abs(np.diff(field, n=2, axis=0)).max(axis=-1)
    # The field has one kink, along the diagonal that both triangles share.
    assert (bends > 1e-9).sum(axis=0).max() <= 1


def test_a_plate_is_the_textbook_one():
    rng = np.random.default_rng(3)
    reference = scattered(rng, 10)
    targets = rng.normal(0, 2, reference.shape)
    field = spt.interpolate_displacement(
        reference, reference - targets, SHAPE, outside="nan"
    )
    plate = RBFInterpolator(reference, targets, kernel="thin_plate_spline", degree=1)
    assert_allclose(field, plate(pixels().reshape(-1, 2)).reshape(field.shape))


def test_smoothing_trades_distance_for_bending():
    rng = np.random.default_rng(4)
    reference = scattered(rng, 20)
    moving = reference - wave(reference) + rng.normal(0, 0.3, reference.shape)

    def costs(smoothing):
        field = spt.interpolate_displacement(
            reference, moving, SHAPE, smoothing=smoothing, outside="affine"
        )
        sampled = spt.apply_displacement(field, reference, inverse=True)
        missed = ((sampled - moving) ** 2).sum()
        slopes = [np.gradient(field, axis=axis) for axis in (0, 1)]
        bends = [np.gradient(s, axis=axis) for s in slopes for axis in (0, 1)]
        return missed, sum((bend**2).sum() for bend in bends)

    lambdas = np.array([1.0, 30.0, 1000.0])
    missed, bent = np.transpose([costs(value) for value in lambdas])
    assert (np.diff(missed) > 0).all()
    assert (np.diff(bent) < 0).all()
    # Each minimises its own sum. Pixels see the bending only in the image and but
    # for what is finer, so that the sums are not quite those that are minimised.
    for row, weight in enumerate(lambdas):
        sums = missed + weight * bent
        assert sums[row] <= sums.min() * 1.02


def test_a_very_stiff_plate_is_an_affine_map():
    rng = np.random.default_rng(5)
    reference = scattered(rng, 20)
    moving = reference - wave(reference)
    field = spt.interpolate_displacement(
        reference, moving, SHAPE, smoothing=1e9, outside="affine"
    )
    bends = [np.diff(field, n=2, axis=axis) for axis in (0, 1)]
    assert max(np.abs(bend).max() for bend in bends) < 1e-5


def test_what_no_points_surround_is_the_choice_of_the_caller():
    reference = np.array([(20, 20), (20, 60), (60, 20), (60, 60), (40, 40)])
    moving = reference - [(0, 0), (0, 4), (0, 0), (0, 4), (0, 3)]
    fields = {
        outside: spt.interpolate_displacement(
            reference, moving, (81, 81), outside=outside
        )
        for outside in ("nan", "nearest", "affine")
    }
    hull = np.zeros((81, 81), bool)
    hull[20:61, 20:61] = True
    assert_allclose(np.isfinite(fields["nan"]).all(axis=-1), hull)
    for field in fields.values():
        assert_allclose(field[hull], fields["nan"][hull])
    assert_allclose(fields["nearest"][40, 80], fields["nan"][40, 60])
    # The affine map grows by 0.1 px a pixel: over 20 more, by 2 px.
    beyond = fields["nan"][40, 60] + [0, 2]
    assert_allclose(fields["affine"][40, 80], beyond, atol=1e-9)
    steps = np.abs(np.diff(fields["affine"], axis=1)).max()
    assert steps < 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_comes_before_the_field(method):
    rng = np.random.default_rng(6)
    reference = scattered(rng, 15)
    matrix = spt.rotation(0.4, center=(40, 50))
    bent = reference - wave(reference)
    moving = spt.apply_transform(np.linalg.inv(matrix), bent)
    field = spt.interpolate_displacement(
        reference, moving, SHAPE, matrix=matrix, method=method
    )
    plain = spt.interpolate_displacement(reference, bent, SHAPE, method=method)
    assert_allclose(field, plain, atol=1e-8)
    inner = ((reference > 10) & (reference < 80)).all(axis=1)
    assert inner.sum() > 5
    there = spt.apply_displacement(field, moving[inner], matrix=matrix)
    # The field between pixels is a cubic spline: kinks of triangles are rounded.
    assert_allclose(there, reference[inner], atol=0.05)


@given(st.floats(0.0, 4.0), st.floats(-0.3, 0.3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_points_go_there_and_back(amplitude, angle, backwards):
    field = wave(pixels(), amplitude)
    matrix = spt.rotation(angle, center=(45, 55))
    points = np.random.default_rng(7).uniform(20, 60, (30, 2))
    there = spt.apply_displacement(field, points, matrix=matrix, inverse=backwards)
    back = spt.apply_displacement(field, there, matrix=matrix, inverse=not backwards)
    assert_allclose(back, points, atol=1e-5)


def test_points_and_pictures_move_alike():
    field, matrix = wave(pixels()), spt.translation((3.3, -2.1))
    grid = pixels()
    shown = [
        spt.warp_image(grid[..., axis], matrix, displacement=field, fill_value=np.nan)
        for axis in (0, 1)
    ]
    found = spt.apply_displacement(field, grid, matrix=matrix, inverse=True)
    # Beyond the centres of its border pixels an image has no more to say.
    inner = ((found >= 0) & (found <= np.array(SHAPE) - 1)).all(axis=-1)
    assert inner.mean() > 0.8
    assert_allclose(np.stack(shown, -1)[inner], found[inner], atol=1e-4)


def test_a_field_and_its_inverse_do_nothing():
    field = wave(pixels(), 3.0)
    back = spt.invert_displacement(field)
    for first, second in ((field, back), (back, field)):
        nothing = spt.compose_displacements(second, first)[12:-12, 12:-12]
        assert np.abs(nothing).max() < 1e-3


def test_joined_fields_move_points_as_both_do():
    first, second = wave(pixels()), wave(pixels()[..., ::-1], 1.5)
    matrices = spt.rotation(0.1, center=(45, 55)), spt.translation((2, -3))
    points = np.random.default_rng(8).uniform(25, 60, (40, 2))
    between = spt.apply_displacement(first, points, matrix=matrices[0])
    there = spt.apply_displacement(second, between, matrix=matrices[1])
    both = spt.compose_displacements(second, first, matrix=matrices[1])
    found = spt.apply_displacement(both, points, matrix=matrices[1] @ matrices[0])
    # A spline through pixels of the sum differs from the sum of splines.
    assert_allclose(found, there, atol=1e-3)


def test_a_coarse_grid_carries_a_smooth_field():
    field = wave(pixels())
    nodes = spt.resample_displacement(
        field, (16, 20), target_spacing=6, target_origin=-1
    )
    at = spt.apply_displacement
    places = np.stack(np.mgrid[5:90:6, 5:110:6], -1).reshape(-1, 2)
    sampled = places - at(field, places, inverse=True)
    assert_allclose(nodes[1:, 1:][:15, :18].reshape(-1, 2), sampled, atol=1e-9)
    again = spt.resample_displacement(nodes, SHAPE, spacing=6, origin=-1)
    # Waves of 88 px and more, on nodes every 6 px, away from where the nodes begin
    # beyond the field.
    assert np.abs(again - field)[20:-20, 20:-20].max() < 2e-3


def test_flattening_keeps_the_map_or_makes_it_rigid():
    matrix = np.array([[1.05, 0.02, 4], [-0.03, 0.97, -6], [0, 0, 1]])
    field = wave(pixels())
    points = np.random.default_rng(9).uniform(20, 60, (30, 2))
    there = spt.apply_displacement(field, points, matrix=matrix)
    same = spt.flatten_displacement(field, matrix=matrix, amount=0)
    assert_allclose(
        spt.apply_displacement(same.displacement, points, matrix=same.matrix),
        there,
        atol=1e-5,
    )
    rigid = spt.flatten_displacement(field, matrix=matrix)
    assert not rigid.displacement.any()
    turn = rigid.matrix[:2, :2]
    assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)
    # No rigid motion close to it comes nearer to the map.
    before = np.linalg.inv(matrix)
    shown = spt.apply_transform(before, (pixels() - field).reshape(-1, 2))
    goals = pixels().reshape(-1, 2)

    def missed(motion):
        return ((spt.apply_transform(motion, shown) - goals) ** 2).sum()

    for small in (spt.translation((0.01, 0)), spt.rotation(1e-4), spt.rotation(-1e-4)):
        assert missed(rigid.matrix) < missed(small @ rigid.matrix)


def test_solid_bodies_are_flattened_too():
    rng = np.random.default_rng(10)
    field = np.broadcast_to([1.0, -2.0, 3.0], (6, 7, 8, 3))
    flat = spt.flatten_displacement(field + 0 * rng.normal(size=field.shape))
    assert_allclose(flat.matrix[:3, 3], [1, -2, 3], atol=1e-9)


def test_holes_stay_holes_and_hurt_nothing_else():
    field = wave(pixels())
    whole = spt.invert_displacement(field)
    holed = field.copy()
    holed[30:40, 50:60] = np.nan
    inverse = spt.invert_displacement(holed)
    known = np.isfinite(inverse).all(axis=-1)
    assert 60 < (~known).sum() < 160
    assert not known[35 - 1, 55 + 1]
    # A spline through a filled hole differs close to its rim.
    far = known.copy()
    far[20:50, 40:70] = False
    assert_allclose(inverse[far], whole[far], atol=1e-4)
    assert np.isnan(spt.compose_displacements(holed, field)[35, 55]).all()
    flat = spt.flatten_displacement(holed)
    assert np.isnan(flat.displacement[35, 55]).all()
    assert np.isfinite(flat.matrix).all()
    one = spt.apply_displacement(holed, [(35, 55), (5, 5)], inverse=True)
    assert np.isnan(one[0]).all()
    assert np.isfinite(one[1]).all()


LEANING = np.array([(1, 0, 0), (0, 1, 0), (0.001, 0, 1)])
SQUARE = np.array([(0, 0), (0, 50), (50, 0), (50, 50.0)])


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (SQUARE[:2], {}, r"`reference_points` must be at least 3; got 2\."),
        (SQUARE[[0, 1, 2, 1]], {}, r"same point in rows 1 and 3\."),
        (
            np.outer(np.arange(5.0), [1, 2]),
            {},
            r"`reference_points` must not lie on one line; got 5 that do\.",
        ),
        (SQUARE, {"method": "cubic"}, r"`method` must be one of .*; got 'cubic'\."),
        (SQUARE, {"outside": "wrap"}, r"`outside` must be one of .*; got 'wrap'\."),
        (SQUARE, {"smoothing": -1}, r"`smoothing` must .*; got -1"),
        (
            SQUARE,
            {"smoothing": 1, "method": "piecewise_affine"},
            r"`smoothing` must be 0 for 'piecewise_affine'; got 1\.",
        ),
        (SQUARE, {"matrix": np.eye(4)}, r"`matrix` must have shape \(3, 3\); got"),
        (SQUARE + 200, {"outside": "nearest"}, r"`reference_points` must surround"),
    ],
)
def test_points_that_make_no_field_are_refused(points, options, message):
    with pytest.raises(ValueError, match=message):
        spt.interpolate_displacement(points, points, (60, 60), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f: spt.compose_displacements(f, np.zeros((5, 6, 7, 3))),
            r"`first` must have 2 components; got shape \(5, 6, 7, 3\)\.",
        ),
        (
            lambda f: spt.apply_displacement(f, [(1, 2, 3)]),
            r"`points` must have shape \(\.\.\., 2\); got \(1, 3\)\.",
        ),
        (
            lambda f: spt.resample_displacement(f, (5, 5), spacing=0),
            r"`spacing` must be .*; got 0",
        ),
        (
            lambda f: spt.flatten_displacement(f, amount=1.5),
            r"`amount` must .*; got 1\.5\.",
        ),
        (
            lambda f: spt.flatten_displacement(np.full_like(f, np.nan)),
            r"`displacement` must be finite somewhere; got no such pixel\.",
        ),
        (
            lambda f: spt.apply_displacement(f, [(1, 2)], matrix=LEANING, inverse=True),
            r"`matrix` must be affine; got the last row \[0\.001, 0\.0, 1\.0\]\.",
        ),
        (
            lambda f: spt.flatten_displacement(f, matrix=np.diag([0, 0, 1])),
            r"`matrix` must be invertible; got a singular one\.",
        ),
        (
            lambda f: spt.invert_displacement(f[..., :1]),
            r"`displacement` must have shape",
        ),
    ],
)
def test_fields_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(wave(pixels((20, 20))))

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

# Numbers up to 1e3 in matrices and 1e4 in points: products of two matrices and a
# point reach 1e11, where float64 still resolves 1e-4, and 1e-9 of the size.
numbers = st.floats(-1e3, 1e3)
angles = st.floats(-10, 10)


def affine(ndim):
    return arrays(np.float64, (ndim, ndim + 1), elements=numbers).map(
        lambda rows: np.vstack([rows, np.eye(ndim + 1)[-1]])
    )


def points(ndim):
    return arrays(np.float64, (4, ndim), elements=st.floats(-1e4, 1e4))


@pytest.mark.parametrize("ndim", [2, 3])
@given(data=st.data())
def test_matrix_product_composes(ndim, data):
    first, second = data.draw(affine(ndim)), data.draw(affine(ndim))
    given_points = data.draw(points(ndim))
    both = spt.apply_transform(second @ first, given_points)
    step = spt.apply_transform(first, given_points)
    expected = spt.apply_transform(second, step)
    # 1e-3: see `numbers`.
    assert_allclose(both, expected, rtol=1e-9, atol=1e-3)


@given(shift=arrays(np.float64, 3, elements=numbers), given_points=points(3))
def test_translation_adds_its_shift(shift, given_points):
    moved = spt.apply_transform(spt.translation(shift), given_points)
    assert_allclose(moved, given_points + shift, rtol=0, atol=1e-9)


@given(first=angles, second=angles)
def test_rotations_about_one_center_add_up(first, second):
    center = (30, -7)
    both = spt.rotation(second, center=center) @ spt.rotation(first, center=center)
    # 1e-12: rounding of coordinates up to 30.
    assert_allclose(both, spt.rotation(first + second, center=center), atol=1e-12)


@given(angle=angles, center=arrays(np.float64, 2, elements=numbers))
def test_rotation_leaves_its_center(angle, center):
    matrix = spt.rotation(angle, center=center)
    assert_allclose(spt.apply_transform(matrix, center), center, rtol=0, atol=1e-9)


def test_positive_rotation_is_counter_clockwise_on_the_screen():
    right, up = (0, 1), (-1, 0)
    turned = spt.apply_transform(spt.rotation(np.pi / 2), right)
    assert_allclose(turned, up, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (4, 3, 2), (0, 2)])
def test_points_keep_their_leading_shape(shape):
    moved = spt.apply_transform(spt.translation((1, 2)), np.zeros(shape))
    assert_array_equal(moved, np.broadcast_to((1, 2), shape))


def test_projective_transform_divides_by_depth():
    matrix = [[1, 0, 0], [0, 1, 0], [0, 0.5, 1]]
    assert_allclose(spt.apply_transform(matrix, (4, 2)), (2, 1))


@pytest.mark.parametrize("ndim", [2, 3])
@given(data=st.data())
def test_swapping_xy_of_points_twice_changes_nothing(ndim, data):
    given_points = data.draw(points(ndim))
    twice = spt.swap_xy_points(spt.swap_xy_points(given_points))
    assert_array_equal(twice, given_points)


@pytest.mark.parametrize("ndim", [2, 3])
@given(data=st.data())
def test_swapping_xy_of_a_matrix_twice_changes_nothing(ndim, data):
    matrix = data.draw(affine(ndim))
    assert_array_equal(spt.swap_xy_matrix(spt.swap_xy_matrix(matrix)), matrix)


@pytest.mark.parametrize("ndim", [2, 3])
@given(data=st.data())
def test_swapped_matrix_moves_swapped_points_alike(ndim, data):
    matrix, given_points = data.draw(affine(ndim)), data.draw(points(ndim))
    moved = spt.apply_transform(matrix, given_points)
    other = spt.apply_transform(
        spt.swap_xy_matrix(matrix), spt.swap_xy_points(given_points)
    )
    # 1e-6: sums of products up to 1e7 in another order.
    assert_allclose(spt.swap_xy_points(other), moved, rtol=0, atol=1e-6)


def test_rotation_of_scikit_image_arrives_as_ours():
    transform = pytest.importorskip("skimage.transform")
    # Theirs turns from x to y, which on the screen is clockwise.
    theirs = transform.EuclideanTransform(rotation=-0.3, translation=(5, 2)).params
    ours = spt.translation((2, 5)) @ spt.rotation(0.3)
    assert_allclose(spt.swap_xy_matrix(theirs), ours, rtol=0, atol=1e-15)


@pytest.mark.parametrize("ndim", [2, 3])
def test_swapping_xy_completes_matrices_without_last_row(ndim):
    whole = np.eye(ndim + 1)
    whole[:-1, -1] = np.arange(ndim)
    assert_array_equal(spt.swap_xy_matrix(whole[:-1]), spt.swap_xy_matrix(whole))


def test_swapped_points_share_no_memory():
    given_points = np.zeros((3, 2))
    assert not np.shares_memory(spt.swap_xy_points(given_points), given_points)


@pytest.mark.parametrize("shape", [(), (4,), (1, 2)])
def test_shift_must_be_one_point(shape):
    with pytest.raises(ValueError, match=r"`shift` must have shape \(2,\) or \(3,\)"):
        spt.translation(np.zeros(shape))


def test_angle_must_be_finite():
    with pytest.raises(ValueError, match="`angle` must be finite; got nan"):
        spt.rotation(np.nan)


def test_center_must_be_in_the_plane():
    with pytest.raises(ValueError, match=r"`center` must have shape \(2,\)"):
        spt.rotation(1.0, center=(1, 2, 3))


@pytest.mark.parametrize("shape", [(3,), (5, 3), ()])
def test_points_must_have_the_axes_of_the_matrix(shape):
    with pytest.raises(ValueError, match=r"`points` must have shape \(..., 2\)"):
        spt.apply_transform(np.eye(3), np.zeros(shape))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("model", ["affine", "projective", "polynomial", None])
def test_missing_points_stay_missing(rng, model, inverse):
    pairs = rng.uniform(0, 100, (30, 2))
    change = np.eye(3)
    if model is not None:
        change = spt.estimate_transform(
            pairs + np.array([3.0, -2.0]), pairs, model=model
        )
    points = np.array([[(5, 6), (np.nan, 8)], [(9, np.nan), (20, 30)]])
    moved = spt.apply_transform(change, points, inverse=inverse)
    known = np.array([[True, False], [False, True]])
    assert_array_equal(np.isfinite(moved), np.stack([known, known], -1))
    alone = spt.apply_transform(change, points[known], inverse=inverse)
    assert_array_equal(moved[known], alone)
    assert_array_equal(
        np.isnan(spt.swap_xy_points(points)), np.isnan(points)[..., ::-1]
    )


def test_points_on_the_horizon_go_nowhere():
    matrix = np.eye(3)
    matrix[2] = 0.01, 0, -1
    # Warnings are errors here.
    moved = spt.apply_transform(matrix, [(100, 5), (100, 0), (0, 7)])
    assert np.isnan(moved[:2]).all()
    assert_allclose(moved[2], (0, -7))


def test_infinite_points_are_refused():
    with pytest.raises(ValueError, match="`points` must be finite; got 1 NaN or inf"):
        spt.apply_transform(np.eye(3), [(np.inf, 0)])


@pytest.mark.parametrize("function", [spt.swap_xy_matrix, spt.translation])
def test_nan_is_refused(function):
    with pytest.raises(ValueError, match="must be finite; got"):
        function(np.full((3, 3), np.nan))


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (5, 5), (3,)])
def test_matrix_must_be_square_and_homogeneous(shape):
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(3, 3\) or"):
        spt.swap_xy_matrix(np.zeros(shape))


def test_text_is_no_point():
    with pytest.raises(TypeError, match="`points` must hold real numbers"):
        spt.swap_xy_points([("a", "b")])

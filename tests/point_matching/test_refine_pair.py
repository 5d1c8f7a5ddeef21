import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SHIFT = np.array([7.3, -12.6])
FIELDS = ("covariance", "correlation", "false_alarm", "outcome", "steps")


@pytest.fixture(scope="module")
def pair():
    field = spt.gaussian_texture((420, 420), rng=1)
    return spt.simulate_pair(field, (384, 384), SHIFT, noise_sigma=0.1, rng=1)


def sigmas(found):
    return np.sqrt(np.diagonal(found.covariance, axis1=-2, axis2=-1))


def refined(pair, reference_points, moving_points, **options):
    return spt.refine_pair(
        pair.reference, pair.moving, reference_points, moving_points, **options
    )


def around(shape):
    """Pairs of points of a grid, which are all wrong by the whole shift."""
    axes = [np.linspace(110, 274, n) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def test_points_show_the_same_thing(pair):
    points = around((3, 4))
    found = refined(pair, points, points)
    assert (found.outcome == "matched").all()
    error = np.abs(found.reference_points - found.moving_points - SHIFT)
    # The largest of 24 numbers lies within five standard deviations.
    assert (error < 5 * sigmas(found)).all()
    assert (sigmas(found) < 0.05).all()


@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 3), (2, 1, 2)])
def test_results_have_the_leading_shape_of_the_points(pair, leading):
    points = np.full((*leading, 2), 190.0)
    found = refined(pair, points, points)
    assert found.reference_points.shape == found.moving_points.shape == points.shape
    assert found.covariance.shape == (*leading, 2, 2)
    for name in ("correlation", "false_alarm", "outcome", "steps"):
        assert getattr(found, name).shape == leading
    assert found.steps.dtype.kind == "i"


def test_no_points_give_no_matches(pair):
    found = refined(pair, np.empty((0, 2)), np.empty((0, 2)))
    assert found.covariance.shape == (0, 2, 2)
    assert found.outcome.shape == (0,)


def test_both_points_move_by_half(pair):
    reference, moving = around((2, 2)), around((2, 2)) - 3
    found = refined(pair, reference, moving)
    # 1e-9: rounding of sums.
    assert_allclose(
        found.reference_points + found.moving_points,
        reference + moving,
        rtol=0,
        atol=1e-9,
    )
    assert_allclose(
        found.reference_points - reference, moving - found.moving_points, atol=1e-9
    )


@pytest.mark.parametrize("wrong", [(40, 0), (0, -40), (-40, 40), (28, -28)])
def test_a_guess_wrong_by_40_pixels_is_mended(pair, wrong):
    middle = np.array([190.0, 190.0])
    found = refined(pair, middle, middle - SHIFT - wrong, size=128)
    assert found.outcome == "matched"
    error = np.abs(found.reference_points - found.moving_points - SHIFT)
    assert (error < 5 * sigmas(found)).all()


def test_a_guess_wrong_by_far_more_than_a_window_fails(pair):
    found = refined(pair, (60.0, 60.0), (300.0, 300.0), size=64)
    assert found.outcome != "matched"
    assert_array_equal(found.reference_points, (60, 60))
    assert_array_equal(found.moving_points, (300, 300))


def test_steps_are_counted(pair):
    middle = np.array([190.0, 190.0])
    counts = [
        int(refined(pair, middle, middle, iterations=n, tolerance=1e-12).steps)
        for n in (1, 2, 3)
    ]
    assert counts == [1, 2, 3]


def test_a_pair_in_its_place_takes_one_step(pair):
    middle = np.array([190.0, 190.0])
    there = refined(pair, middle, middle)
    again = refined(pair, there.reference_points, there.moving_points, tolerance=0.05)
    assert again.steps == 1


def test_no_more_steps_than_allowed(pair):
    found = refined(pair, around((3, 3)), around((3, 3)) - 20, iterations=4)
    assert (found.steps <= 4).all()
    assert (found.steps >= 1).all()


def test_more_iterations_are_not_worse(pair):
    points = around((4, 4))
    errors = []
    for iterations in (1, 2, 5):
        found = refined(pair, points, points - 25, iterations=iterations, size=96)
        error = found.reference_points - found.moving_points - SHIFT
        errors.append(np.sqrt(np.mean(error**2)))
    # 10 %: with a full overlap from the second step on, others are compared.
    assert errors[1] < 1.1 * errors[0]
    assert errors[2] < 1.1 * errors[1]
    assert errors[2] < errors[0]


def test_points_outside_fail_alone(pair):
    points = np.full((4, 2), 190.0)
    points[1] = (-500, 190)
    points[3] = (190, 1e7)
    found = refined(pair, points, points)
    assert (found.outcome[[0, 2]] == "matched").all()
    for row in (1, 3):
        assert found.outcome[row] != "matched"
        assert_array_equal(found.reference_points[row], points[row])
        assert found.false_alarm[row] == 1
        assert found.correlation[row] == 0
        assert found.steps[row] == 0
        assert np.isinf(np.diag(found.covariance[row])).all()
    alone = refined(pair, points[2], points[2])
    assert_array_equal(found.reference_points[2], alone.reference_points)


def test_a_window_may_end_where_the_image_ends(pair):
    found = refined(pair, (20.0, 370.0), (20.0, 370.0), size=128)
    assert found.outcome == "matched"
    error = np.abs(found.reference_points - found.moving_points - SHIFT)
    assert (error < 5 * sigmas(found)).all()


def test_points_where_nothing_is_seen_fail_alone(pair):
    blank = pair.moving.copy()
    blank[:200, :200] = 3.0
    points = np.array([(70.0, 70.0), (290.0, 290.0)])
    found = spt.refine_pair(pair.reference, blank, points, points, size=96)
    assert list(found.outcome) == ["no texture", "matched"]
    assert (found.false_alarm[0], found.correlation[0]) == (1, 0)
    assert_array_equal(found.reference_points[0], points[0])


def test_nan_pixels_fail_nothing_but_their_own_window(pair):
    holed = pair.moving.copy()
    holed[:200, :200] = np.nan
    holed[290:300, 290:300] = np.nan
    points = np.array([(70.0, 70.0), (290.0, 290.0)])
    found = spt.refine_pair(pair.reference, holed, points, points, size=96)
    assert list(found.outcome) == ["no texture", "matched"]
    error = np.abs(found.reference_points[1] - found.moving_points[1] - SHIFT)
    assert (error < 5 * sigmas(found)[1]).all()


def test_unrelated_windows_are_not_believed():
    images = [spt.gaussian_texture((512, 512), rng=n) for n in (1, 2)]
    points = np.stack(np.meshgrid(*2 * [np.arange(64, 512, 64)]), axis=-1)
    found = spt.refine_pair(*images, points, points, size=64)
    # Of 49 at 1 in 1000, and up to five steps each: three come once in 500 times.
    assert (found.outcome == "matched").sum() <= 2
    failed = found.outcome != "matched"
    assert_array_equal(found.reference_points[failed], points[failed])


@pytest.mark.parametrize("size", [64, 65, (48, 160), np.int16(96)])
def test_windows_of_every_shape_work(pair, size):
    found = refined(pair, (190.0, 190.0), (190.0, 190.0), size=size)
    assert found.outcome == "matched"
    error = np.abs(found.reference_points - found.moving_points - SHIFT)
    assert (error < 5 * sigmas(found)).all()


def test_larger_windows_know_more(pair):
    known = [
        sigmas(refined(pair, (190.0, 190.0), (190.0, 190.0), size=size)).max()
        for size in (48, 96, 192)
    ]
    assert known == sorted(known, reverse=True)


@pytest.mark.parametrize("whitening", [0, 0.65, 1])
def test_every_whitening_works(pair, whitening):
    found = refined(pair, (190.0, 190.0), (190.0, 190.0), whitening=whitening)
    assert found.outcome == "matched"
    # Full whitening weighs noise like signal, but the pixel is right.
    error = found.reference_points - found.moving_points - SHIFT
    assert np.abs(error).max() < 0.5


def test_volumes_are_refined():
    field = spt.gaussian_texture((60, 110, 110), rng=3)
    shift = np.array([2.4, -5.3, 6.7])
    made = spt.simulate_pair(field, (48, 96, 96), shift, noise_sigma=0.1, rng=3)
    points = np.array([(24.0, 48.0, 48.0), (20.0, 40.0, 60.0)])
    found = spt.refine_pair(
        made.reference, made.moving, points, points, size=(32, 48, 48)
    )
    assert (found.outcome == "matched").all()
    error = np.abs(found.reference_points - found.moving_points - shift)
    assert (error < 5 * sigmas(found)).all()


def test_images_may_differ_in_shape_and_dtype(pair):
    moving = np.round(40 * pair.moving[30:, 50:340] + 128).astype(np.uint8)
    points = np.array([190.0, 190.0])
    found = spt.refine_pair(
        pair.reference.astype(np.float32), moving, points, points - (30, 50)
    )
    error = found.reference_points - found.moving_points - (30, 50) - SHIFT
    assert (np.abs(error) < 5 * sigmas(found)).all()


@given(row=st.floats(-20, 20), col=st.floats(-20, 20))
@settings(max_examples=15)
def test_where_the_points_start_hardly_matters(pair, row, col):
    middle = np.array([190.0, 190.0])
    best = refined(pair, middle + SHIFT / 2, middle - SHIFT / 2)
    found = refined(pair, middle + SHIFT / 2 + (row, col), middle - SHIFT / 2)
    assert found.outcome == "matched"
    # Windows half as far apart share most of what they see, but not all.
    change = found.reference_points - found.moving_points
    change = change - (best.reference_points - best.moving_points)
    assert (np.abs(change) < 3 * sigmas(best)).all()


def test_order_of_points_does_not_matter(pair):
    points = around((3, 3)).reshape(-1, 2)
    found, back = (
        refined(pair, points, points),
        refined(pair, points[::-1], points[::-1]),
    )
    assert_array_equal(found.reference_points, back.reference_points[::-1])
    for name in FIELDS:
        assert_array_equal(getattr(found, name), getattr(back, name)[::-1])


def test_swapping_the_images_swaps_the_points(pair):
    points = around((2, 2))
    found = refined(pair, points, points)
    back = spt.refine_pair(pair.moving, pair.reference, points, points)
    # Fits end within a tenth of a standard deviation each.
    error = np.abs(found.reference_points - back.moving_points)
    assert (error < 0.2 * sigmas(found)).all()


def test_inputs_are_not_changed(pair):
    points = around((2, 2))
    arrays = [pair.reference.copy(), pair.moving.copy(), points.copy(), points.copy()]
    for array in arrays:
        array.setflags(write=False)
    found = spt.refine_pair(*arrays)
    assert_array_equal(arrays[2], points)
    assert not np.shares_memory(found.reference_points, arrays[2])
    found.reference_points[:] = 0


def test_a_single_failed_pair_shares_no_memory_with_its_points(pair):
    given_points = np.array([-500.0, 190.0])
    found = refined(pair, given_points, given_points)
    found.reference_points[:] = 0
    assert_array_equal(given_points, (-500, 190))


def test_a_grid_of_points_feeds_a_placement(pair):
    points = around((3, 3)).reshape(-1, 2)
    found = refined(pair, points, points)
    placed = spt.solve_rigid(
        np.tile((0, 1), (9, 1)),
        found.reference_points,
        found.moving_points,
        covariance=found.covariance,
    )
    between = placed.matrices[1, :2, 2] - placed.matrices[0, :2, 2]
    # Nine windows of the same scene overlap: their mean is at least as good as one.
    assert_allclose(between, SHIFT, rtol=0, atol=5 * sigmas(found).max())


IMAGE = np.zeros((32, 32))


@pytest.mark.parametrize(
    ("points", "options", "match"),
    [
        (((1, 2, 3), (1, 2, 3)), {}, r"`reference_points` .*\(\.\.\., 2\); got \(3,\)"),
        ((5.0, 5.0), {}, r"`reference_points` must .*; got \(\)"),
        (((1, 2), (1, 2, 3)), {}, r"`moving_points` .*\(3,\)"),
        (([(1, 2)], (1, 2)), {}, r"same shape; got .*`moving_points` \(2,\)"),
        (((np.nan, 2), (1, 2)), {}, "`reference_points` must be finite; got 1 NaN"),
        (((1, 2), (1, np.inf)), {}, "`moving_points` must be finite; got 1 NaN"),
        (((1, 2), (1, 2)), {"size": 3}, "`size` must .*; got 3"),
        (((1, 2), (1, 2)), {"size": (64, 0)}, "`size` must .*; got"),
        (((1, 2), (1, 2)), {"size": (64, 64, 64)}, r"`size` must .*; got \(3,\)"),
        (((1, 2), (1, 2)), {"size": np.nan}, "`size` must .*; got"),
        (((1, 2), (1, 2)), {"iterations": 0}, "`iterations` must be at least 1; got 0"),
        (((1, 2), (1, 2)), {"tolerance": 0}, "`tolerance` must .*; got 0"),
        (((1, 2), (1, 2)), {"tolerance": np.nan}, "`tolerance` must .*; got nan"),
        (((1, 2), (1, 2)), {"whitening": 2}, "`whitening` must be between 0 and 1"),
    ],
)
def test_arguments_must_make_sense(points, options, match):
    with pytest.raises(ValueError, match=match):
        spt.refine_pair(IMAGE, IMAGE, *points, **options)


@pytest.mark.parametrize(
    ("points", "options", "match"),
    [
        ((("a", "b"), (1, 2)), {}, "`reference_points` must hold real numbers; got"),
        (((1, 2), (1j, 2)), {}, "`moving_points` must hold real numbers; got"),
        (((1, 2), (1, 2)), {"iterations": 2.5}, "`iterations` must be an integer"),
    ],
)
def test_arguments_must_be_of_the_right_kind(points, options, match):
    with pytest.raises(TypeError, match=match):
        spt.refine_pair(IMAGE, IMAGE, *points, **options)


@pytest.mark.parametrize("dtype", ["complex64", "object", "str"])
@pytest.mark.parametrize("name", ["reference", "moving"])
def test_images_must_hold_real_numbers(name, dtype):
    images = {"reference": IMAGE, "moving": IMAGE, name: IMAGE.astype(dtype)}
    with pytest.raises(TypeError, match=f"`{name}` must hold real numbers; got dtype"):
        spt.refine_pair(**images, reference_points=(9, 9), moving_points=(9, 9))


def test_images_must_have_the_same_number_of_axes():
    with pytest.raises(ValueError, match="must have the same number of axes; got"):
        spt.refine_pair(IMAGE, np.zeros((9, 9, 9)), (1, 2), (1, 2))

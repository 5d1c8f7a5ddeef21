from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt

REALS = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "longdouble",
]
FIELDS = ("shift", "covariance", "correlation", "false_alarm", "overlap")


def scene(shape, number=1, cutoff=0.3):
    return spt.gaussian_texture(shape, cutoff=cutoff, rng=number)


def pair(shape, shift, *, noise=0.1, number=1):
    """Two crops of one scene, whose texture has a standard deviation of 1."""
    room = [n + 2 * int(abs(s)) + 8 for n, s in zip(shape, shift, strict=True)]
    return spt.simulate_pair(
        scene(room, number), shape, shift, noise_sigma=noise, rng=number
    )


def same(first, second):
    """Tell whether two estimates agree to the last bit."""
    return first.outcome == second.outcome and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in (*FIELDS, "alternatives")
    )


def sigmas(estimate):
    return np.sqrt(np.diag(estimate.covariance))


def assert_equally_good(found, other_shift):
    """Compare fits of the same pixels in another order.

    Each ends when it is within about a tenth of a standard deviation.
    """
    error = np.abs(found.shift - other_shift)
    assert (error < 0.2 * sigmas(found) + 1e-4).all(), error


# Truth


@pytest.mark.parametrize(
    ("shape", "shift"),
    [
        ((128, 128), (0, 0)),
        ((128, 128), (3, -5)),
        ((128, 128), (-60, 41)),
        ((128, 128), (0.5, -0.5)),
        ((127, 131), (7.25, -11.6)),
        ((96, 160), (-40.3, 70.8)),
        ((200, 26), (12.4, 5.3)),
        ((30, 210), (-3.1, 100.7)),
        ((24, 48, 48), (2, -3, 4)),
        ((24, 48, 48), (-1.4, 5.7, -9.2)),
        ((8, 64, 64), (0.3, -8.8, 12.1)),
    ],
)
def test_shift_of_two_crops_is_found(shape, shift):
    made = pair(shape, shift)
    found = spt.phase_correlate(made.reference, made.moving)
    assert found.outcome == "matched"
    # Five standard deviations, and a floor for the very best of these pairs.
    error = np.abs(found.shift - shift)
    assert (error < 5 * sigmas(found) + 0.002).all(), error
    # At 20 dB no axis of these is known worse than that.
    assert (sigmas(found) < 0.05).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_plane_row_or_column_of_pixels_is_found(axis):
    made = pair((96, 96), (6.3, -4.2))
    found = spt.phase_correlate(
        np.expand_dims(made.reference, axis), np.expand_dims(made.moving, axis)
    )
    flat = spt.phase_correlate(made.reference, made.moving)
    assert_equally_good(flat, np.delete(found.shift, axis))
    assert found.shift[axis] == 0


@pytest.mark.parametrize("cutoff", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("corner", [(60, 150), (-40, 25), (3, -110)])
def test_exact_crops_without_noise_are_found(corner, cutoff):
    field = scene((420, 460), 3, cutoff)
    row, col = 140 + corner[0], 160 + corner[1]
    reference = field[140:340, 160:340]
    found = spt.phase_correlate(reference, field[row : row + 60, col : col + 150])
    assert found.outcome == "matched"
    # What both show is equal to the last bit: only single precision is left.
    error = np.abs(found.shift - corner)
    assert (error < 5 * sigmas(found) + 1e-3).all(), error
    assert_allclose(found.correlation, 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", REALS)
def test_every_real_dtype_is_taken(dtype):
    made = pair((128, 128), (9.0, -14.0), noise=0)
    kind = np.dtype(dtype).kind
    images = [
        image > 0 if kind == "b" else np.round(25 * image + 100 * (kind != "i"))
        for image in (made.reference, made.moving)
    ]
    found = spt.phase_correlate(*(image.astype(dtype) for image in images))
    assert found.outcome == "matched"
    # Both are quantised alike: nothing but rounding and their borders is left.
    assert_allclose(found.shift, (9, -14), rtol=0, atol=5e-3)


def test_dtypes_may_be_mixed():
    made = pair((96, 96), (4.0, 5.0), noise=0)
    found = spt.phase_correlate(
        np.round(30 * made.reference + 120).astype(np.uint8),
        made.moving.astype(np.float32),
    )
    assert_allclose(found.shift, (4, 5), rtol=0, atol=0.01)


def test_plain_lists_are_images_too():
    made = pair((32, 32), (2.0, 3.0))
    found = spt.phase_correlate(made.reference.tolist(), made.moving.tolist())
    assert same(found, spt.phase_correlate(made.reference, made.moving))


@pytest.mark.parametrize(
    ("corner", "shape"),
    [
        ((40, 70), (64, 48)),
        ((-20, 90), (100, 100)),
        ((60, -13), (31, 200)),
        ((10, 12), (32, 32)),
    ],
)
def test_shapes_may_differ(corner, shape):
    """The first pixel of the moving image lies at `corner` of the reference."""
    field = scene((300, 320), 4)
    rng = np.random.default_rng(4)
    row, col = 100 + corner[0], 100 + corner[1]
    reference = field[100:228, 100:228] + 0.1 * rng.normal(size=(128, 128))
    moving = field[row : row + shape[0], col : col + shape[1]]
    moving = moving + 0.1 * rng.normal(size=moving.shape)
    found = spt.phase_correlate(reference, moving)
    assert found.outcome == "matched"
    error = np.abs(found.shift - corner)
    assert (error < 5 * sigmas(found)).all(), error
    common = np.minimum(128, np.add(corner, shape)) - np.maximum(0, corner)
    smaller = min(128 * 128, np.prod(shape))
    # 1 %: half a pixel of either side.
    assert_allclose(found.overlap, common.prod() / smaller, rtol=0, atol=0.01)


@pytest.mark.parametrize("whitening", [None, 0, 0.3, 0.65, 1])
def test_every_whitening_finds_the_shift(whitening):
    made = pair((160, 160), (20.3, -33.6))
    found = spt.phase_correlate(made.reference, made.moving, whitening=whitening)
    assert found.outcome == "matched"
    error = np.abs(found.shift - made.shift)
    assert (error < 5 * sigmas(found)).all(), error
    # Full whitening weighs noise like signal, but the pixel is right.
    assert (error < 0.5).all(), error


def test_measured_weights_beat_every_exponent():
    errors = {
        whitening: np.sqrt(
            np.mean(
                [
                    np.square(
                        spt.phase_correlate(
                            made.reference, made.moving, whitening=whitening
                        ).shift
                        - made.shift
                    )
                    for made in (
                        pair((96, 96), (3.3, -2.4), noise=0.3, number=n)
                        for n in range(12)
                    )
                ]
            )
        )
        for whitening in (None, 0, 0.65, 1)
    }
    # 10 %: the RMSE of 24 numbers has 14 %, but the pairs are the same.
    assert errors[None] < 1.1 * min(errors.values()), errors


@pytest.mark.parametrize("sides", [(1, 0), (0, -1), (-1, 1)])
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_tiny_overlap_is_found_without_a_guess(sides, share):
    side = 256
    # A share along one axis, or its root along both.
    reach = 1 - share ** (1 / np.count_nonzero(sides))
    shift = np.array(sides) * round(side * reach)
    made = pair((side, side), shift, noise=0.1, number=5)
    found = spt.phase_correlate(made.reference, made.moving)
    assert found.outcome == "matched"
    assert (np.abs(found.shift - shift) < 5 * sigmas(found)).all()
    # 0.01: half a pixel of 13 rows.
    assert_allclose(found.overlap, share, rtol=0, atol=0.01)


def test_correlation_is_that_of_the_overlap():
    made = pair((256, 256), (30.0, -50.0), noise=0.5)
    found = spt.phase_correlate(made.reference, made.moving)
    first, second = made.reference[30:, :-50], made.moving[:-30, 50:]
    expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    # 0.02: the tapers hide the border of the overlap.
    assert_allclose(found.correlation, expected, rtol=0, atol=0.02)


# Where to look


def repeated():
    """Two strips of a scene that comes again every 64 rows."""
    period = scene((64, 96), 6)
    field = np.tile(period, (5, 1))
    rng = np.random.default_rng(6)
    noise = 0.1 * rng.normal(size=(2, 200, 96))
    return field[:200] + noise[0], field[5:205] + noise[1]


@pytest.mark.parametrize("repeat", [-1, 0, 1])
def test_a_guess_chooses_between_repeats(repeat):
    reference, moving = repeated()
    row = 5 + 64 * repeat
    found = spt.phase_correlate(reference, moving, guess=(row + 4, -3), max_shift=12)
    assert found.outcome == "matched"
    assert (np.abs(found.shift - (row, 0)) < 5 * sigmas(found)).all()


def test_a_fractional_guess_is_as_good_as_a_whole_one():
    made = pair((128, 128), (20.3, -33.6))
    found = [
        spt.phase_correlate(made.reference, made.moving, guess=guess, max_shift=6)
        for guess in [(20, -33), (20.49, -33.51), (17.2, -29.7)]
    ]
    for other in found[1:]:
        # Fits from other starts meet far within the standard deviation.
        error = np.abs(other.shift - found[0].shift)
        assert (error < 0.3 * sigmas(found[0])).all()


@pytest.mark.parametrize("max_shift", [30, (30, 40), (12, 30), np.float32(25)])
def test_a_bound_that_holds_the_shift_lets_it_be_found(max_shift):
    made = pair((128, 128), (-11.4, 22.7))
    found = spt.phase_correlate(made.reference, made.moving, max_shift=max_shift)
    assert found.outcome == "matched"
    assert (np.abs(found.shift - made.shift) < 5 * sigmas(found)).all()


@pytest.mark.parametrize("max_shift", [5, (5, 30), (30, 5), 0, (0, 0)])
def test_a_shift_beyond_the_bound_is_not_matched(max_shift):
    made = pair((128, 128), (-11.4, 22.7))
    found = spt.phase_correlate(made.reference, made.moving, max_shift=max_shift)
    assert found.outcome in {"beyond bound", "not found", "no texture"}


@given(
    row=st.integers(-20, 20),
    col=st.integers(-20, 20),
    limit=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    guess=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
)
@settings(max_examples=30)
def test_what_is_matched_lies_within_the_bound(row, col, limit, guess):
    made = pair((64, 64), (row, col))
    found = spt.phase_correlate(
        made.reference, made.moving, guess=guess, max_shift=limit
    )
    if found.outcome == "matched":
        # Half a pixel: the bound is on whole pixels.
        assert (np.abs(found.shift - guess) <= np.array(limit) + 0.5).all()
        assert (np.abs(found.shift - made.shift) < 5 * sigmas(found)).all()


def test_an_overlap_below_the_least_is_not_matched():
    made = pair((128, 128), (115, 0))
    found = spt.phase_correlate(made.reference, made.moving)
    assert found.outcome == "matched"
    assert found.overlap < 0.11
    strict = spt.phase_correlate(made.reference, made.moving, min_overlap=0.2)
    assert strict.outcome != "matched"


def test_full_overlap_may_be_asked_for():
    made = pair((64, 64), (0, 0))
    found = spt.phase_correlate(made.reference, made.moving, min_overlap=1)
    assert found.outcome == "matched"
    assert_allclose(found.shift, 0, rtol=0, atol=5 * sigmas(found).max())


@pytest.mark.parametrize("guess", [(500, 0), (0, -500), (1e9, 1e9)])
def test_a_guess_at_which_nothing_is_common_is_not_found(guess):
    made = pair((64, 64), (2, 3))
    found = spt.phase_correlate(made.reference, made.moving, guess=guess, max_shift=9)
    assert found.outcome in {"not found", "no texture"}
    assert found.false_alarm == 1
    assert np.isinf(found.covariance).any()


# Shape of the result


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("peaks", [1, 2, 5, 50])
def test_result_has_the_promised_shapes(ndim, peaks):
    made = pair((40,) * ndim, (2.5,) * ndim)
    found = spt.phase_correlate(made.reference, made.moving, peaks=peaks)
    assert found.shift.shape == (ndim,)
    assert found.covariance.shape == (ndim, ndim)
    assert found.alternatives.shape == (peaks, ndim)
    for name in ("shift", "covariance", "alternatives"):
        assert getattr(found, name).dtype == np.float64
    for name in ("correlation", "false_alarm", "overlap"):
        assert type(getattr(found, name)) is float
    assert isinstance(found.outcome, spt.Outcome)
    assert_array_equal(found.alternatives[0], found.shift)


def test_number_of_peaks_does_not_change_the_shift():
    made = pair((96, 96), (2.5, 7.5))
    found = [
        spt.phase_correlate(made.reference, made.moving, peaks=peaks)
        for peaks in (1, 2, 8)
    ]
    for few, many in pairwise(found):
        assert_array_equal(few.shift, many.shift)
        assert_array_equal(few.alternatives, many.alternatives[: len(few.alternatives)])


def test_alternatives_hold_the_repeats_of_a_scene():
    reference, moving = repeated()
    found = spt.phase_correlate(reference, moving, peaks=5)
    rows = {round(row) for row, col in found.alternatives if abs(col) < 0.5}
    assert {5, -59, 69} <= rows


def test_covariance_is_symmetric_and_positive():
    made = pair((200, 40), (2.5, 7.5))
    covariance = spt.phase_correlate(made.reference, made.moving).covariance
    assert_array_equal(covariance, covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_a_known_axis_has_the_smaller_variance():
    """Lines along the columns say nothing of a shift along them."""
    lines = np.repeat(scene((160, 2), 3)[:, :1], 160, axis=1)
    rng = np.random.default_rng(3)
    field = lines + 0.2 * scene((160, 160), 8)
    noise = 0.1 * rng.normal(size=(2, 128, 128))
    found = spt.phase_correlate(
        field[10:138, 10:138] + noise[0], field[13:141, 15:143] + noise[1]
    )
    assert_allclose(found.shift, (3, 5), rtol=0, atol=5 * sigmas(found).max())
    assert sigmas(found)[0] < 0.5 * sigmas(found)[1]


# Laws


@given(
    gain=st.sampled_from([0.01, 0.5, 3.0, 250.0]),
    offset=st.sampled_from([-1000.0, -1.0, 0.0, 7.0, 1e4]),
    side=st.booleans(),
)
def test_gain_and_offset_do_not_change_a_shift(gain, offset, side):
    made = pair((64, 80), (4.3, -6.6))
    images = [made.reference, made.moving]
    plain = spt.phase_correlate(*images)
    images[side] = gain * images[side] + offset
    found = spt.phase_correlate(*images)
    # 1e-3: at an offset of 1e4 and a gain of 0.01 single precision keeps 0.1 %.
    assert_allclose(found.shift, plain.shift, rtol=0, atol=1e-3)
    assert_allclose(found.correlation, plain.correlation, rtol=0, atol=1e-3)
    assert found.outcome == plain.outcome


def test_a_negative_image_does_not_match():
    made = pair((96, 96), (4.3, -6.6))
    found = spt.phase_correlate(made.reference, -made.moving)
    assert found.outcome != "matched"


@given(
    row=st.floats(-25, 25),
    col=st.floats(-25, 25),
    whitening=st.sampled_from([None, 0.65]),
)
@settings(max_examples=15)
def test_swapping_images_negates_shift(row, col, whitening):
    made = pair((72, 90), (row, col))
    found = spt.phase_correlate(made.reference, made.moving, whitening=whitening)
    back = spt.phase_correlate(made.moving, made.reference, whitening=whitening)
    assert_equally_good(found, -back.shift)
    assert found.outcome == back.outcome


@pytest.mark.parametrize("axes", [(0, 2, 1), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_transposing_volumes_permutes_shift(axes):
    made = pair((16, 28, 32), (1.3, -4.2, 6.7))
    found = spt.phase_correlate(made.reference, made.moving)
    turned = spt.phase_correlate(
        made.reference.transpose(axes), made.moving.transpose(axes)
    )
    assert_equally_good(turned, found.shift[list(axes)])


# Half-way between two pixels either is as near, and which one is a matter of axes.
@given(
    row=st.floats(-25, 25).filter(lambda x: x % 1 != 0.5),
    col=st.floats(-25, 25).filter(lambda x: x % 1 != 0.5),
)
@settings(max_examples=15)
def test_transposing_images_permutes_shift(row, col):
    made = pair((72, 90), (row, col))
    found = spt.phase_correlate(made.reference, made.moving)
    turned = spt.phase_correlate(made.reference.T, made.moving.T)
    assert_equally_good(found, turned.shift[::-1])


@given(
    row=st.floats(-25, 25), col=st.floats(-25, 25), axis=st.sampled_from([0, 1, (0, 1)])
)
@settings(max_examples=15)
def test_flipping_both_images_negates_an_axis(row, col, axis):
    made = pair((72, 90), (row, col))
    found = spt.phase_correlate(made.reference, made.moving)
    flipped = spt.phase_correlate(
        np.flip(made.reference, axis), np.flip(made.moving, axis)
    )
    sign = np.ones(2)
    sign[np.atleast_1d(axis)] = -1
    assert_equally_good(flipped, sign * found.shift)


@pytest.mark.parametrize("shape", [(64, 64), (33, 90), (300, 20), (12, 30, 30)])
@pytest.mark.parametrize("noise", [0, 0.5])
def test_an_image_matches_itself_at_zero(shape, noise):
    image = scene(shape) + noise * np.random.default_rng(2).normal(size=shape)
    found = spt.phase_correlate(image, image)
    assert found.outcome == "matched"
    assert_allclose(found.shift, 0, rtol=0, atol=1e-6)
    assert_allclose(found.correlation, 1, rtol=0, atol=1e-6)
    assert found.overlap > 0.999999


@given(extra=st.integers(1, 60), side=st.sampled_from([0, 1]))
@settings(max_examples=20)
def test_rows_outside_the_overlap_change_little(extra, side):
    """The two images meet at their bottom and top; more rows lie further out."""
    field = scene((280, 64), 9)
    rng = np.random.default_rng(9)
    first = field[60:140] + 0.1 * rng.normal(size=(80, 64))
    second = field[100:180] + 0.1 * rng.normal(size=(80, 64))
    plain = spt.phase_correlate(first, second)
    if side == 0:
        first = np.vstack([field[60 - extra : 60], first])
        shift = (40 + extra, 0)
    else:
        second = np.vstack([second, field[180 : 180 + extra]])
        shift = (40, 0)
    found = spt.phase_correlate(first, second)
    assert found.outcome == "matched"
    moved = np.subtract(shift, (40, 0))
    # The same pixels are compared: each fit ends within a tenth of a standard deviation.
    error = np.abs(found.shift - moved - plain.shift)
    assert (error < 0.2 * sigmas(plain)).all()


def test_moving_by_the_found_shift_makes_the_images_agree():
    made = pair((128, 128), (7.4, -3.7), noise=0.02)
    found = spt.phase_correlate(made.reference, made.moving)
    mosaic = spt.warp_composite(
        [made.moving], [spt.translation(found.shift)], bounds=[(16, 16), (112, 112)]
    )
    first, second = made.reference[16:112, 16:112], mosaic.image
    # 0.98: linear interpolation blurs a little.
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.98


# Pixels that do not count


def marked(noise=0.1):
    """A pair with one and the same bright mark at the same place in both."""
    made = pair((128, 128), (9.3, -14.6), noise=noise)
    bad = np.zeros((128, 128), bool)
    bad[50:90, 20:60] = True
    bad[:, 100:104] = True
    images = [image.copy() for image in (made.reference, made.moving)]
    stain = 30 * np.random.default_rng(3).normal(size=bad.sum())
    for image in images:
        image[bad] = stain
    return images, ~bad, made.shift


def test_masks_keep_marks_from_being_matched():
    images, valid, shift = marked()
    found = spt.phase_correlate(*images, reference_valid=valid, moving_valid=valid)
    assert found.outcome == "matched"
    error = np.abs(found.shift - shift)
    assert (error < 5 * sigmas(found)).all(), error
    assert (sigmas(found) < 0.05).all()


@pytest.mark.parametrize("side", [0, 1])
def test_one_mask_is_enough_if_one_image_is_marked(side):
    images, valid, shift = marked()
    clean = pair((128, 128), (9.3, -14.6))
    images[1 - side] = (clean.reference, clean.moving)[1 - side]
    name = ("reference_valid", "moving_valid")[side]
    found = spt.phase_correlate(*images, **{name: valid})
    assert found.outcome == "matched"
    assert (np.abs(found.shift - shift) < 5 * sigmas(found)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_masked(bad):
    images, valid, _ = marked()
    expected = spt.phase_correlate(*images, reference_valid=valid, moving_valid=valid)
    images = [np.where(valid, image, bad) for image in images]
    assert same(spt.phase_correlate(*images), expected)


@given(
    bad=st.sampled_from([np.nan, np.inf]),
    holes=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 63)), max_size=40),
)
@settings(max_examples=20)
def test_a_nan_is_the_same_as_a_mask(bad, holes):
    made = pair((64, 64), (3.3, -4.2))
    valid = np.ones((64, 64), bool)
    for row, col in holes:
        valid[row : row + 3, col] = False
    masked = spt.phase_correlate(made.reference, made.moving, reference_valid=valid)
    holed = np.where(valid, made.reference, bad)
    assert same(spt.phase_correlate(holed, made.moving), masked)


@pytest.mark.parametrize("filling", [0, -1e6, 1e30, np.nan, np.inf])
def test_it_does_not_matter_what_masked_pixels_hold(filling):
    images, valid, _ = marked()
    expected = spt.phase_correlate(*images, reference_valid=valid, moving_valid=valid)
    for image in images:
        image[~valid] = filling
    found = spt.phase_correlate(*images, reference_valid=valid, moving_valid=valid)
    assert same(found, expected)


def test_a_mask_of_all_pixels_changes_nothing():
    made = pair((96, 96), (3.3, -4.2))
    every = np.ones((96, 96), bool)
    found = spt.phase_correlate(
        made.reference, made.moving, reference_valid=every, moving_valid=every
    )
    assert same(found, spt.phase_correlate(made.reference, made.moving))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3])
def test_scattered_dead_pixels_do_no_harm(share):
    made = pair((128, 128), (9.3, -14.6))
    dead = np.random.default_rng(0).random((2, 128, 128)) < share
    reference = np.where(dead[0], np.nan, made.reference)
    moving = np.where(dead[1], np.nan, made.moving)
    found = spt.phase_correlate(reference, moving)
    assert found.outcome == "matched"
    error = np.abs(found.shift - made.shift)
    assert (error < 5 * sigmas(found)).all(), error


@pytest.mark.parametrize("number", range(3))
def test_masks_that_follow_objects_do_not_pin_them(number):
    rng = np.random.default_rng(60 + number)
    points = np.moveaxis(np.indices((44, 44, 44)).astype(float), 0, -1)
    spots = np.array([(18, 25, 20), (26, 18, 25), (20, 22, 30.0)])
    move = rng.uniform(-4, 4, 3)
    pair = [
        sum(np.exp(-((points - spot - by) ** 2).sum(axis=-1) / 16) for spot in spots)
        for by in (np.zeros(3), move)
    ]
    masks = [ndimage.binary_dilation(each > 0.3, iterations=7) for each in pair]
    noisy = [each + rng.normal(0, 0.003, each.shape) for each in pair]
    found = spt.phase_correlate(*noisy, reference_valid=masks[0], moving_valid=masks[1])
    error, sigma = found.shift + move, np.sqrt(np.diag(found.covariance))
    assert found.outcome == "matched"
    assert (np.abs(error) < 4 * sigma + 0.02).all()
    assert np.abs(error).max() < 0.25


def test_masks_work_in_volumes():
    made = pair((20, 48, 48), (1.3, -4.2, 6.7))
    valid = np.ones((20, 48, 48), bool)
    valid[5:15, 10:20, 30:40] = False
    reference = np.where(valid, made.reference, 100)
    found = spt.phase_correlate(reference, made.moving, reference_valid=valid)
    assert found.outcome == "matched"
    assert (np.abs(found.shift - made.shift) < 5 * sigmas(found)).all()


# Values at the edge of what numbers can hold


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12, 1e30])
def test_units_do_not_matter(dtype, factor):
    made = pair((96, 96), (3.3, -4.2))
    images = [(im * factor).astype(dtype) for im in (made.reference, made.moving)]
    found = spt.phase_correlate(*images)
    assert found.outcome == "matched"
    expected = spt.phase_correlate(made.reference, made.moving).shift
    # 1e-4: rounding of single precision.
    assert_allclose(found.shift, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-300, 1e-100, 1e100, 1e300])
def test_the_whole_range_of_double_precision_is_taken(factor):
    made = pair((96, 96), (3.3, -4.2))
    found = spt.phase_correlate(made.reference * factor, made.moving * factor)
    assert found.outcome == "matched"
    assert_allclose(found.shift, made.shift, rtol=0, atol=5 * sigmas(found).max())


def test_images_of_unlike_units_are_matched():
    made = pair((96, 96), (3.3, -4.2))
    found = spt.phase_correlate(made.reference * 1e30, made.moving * 1e-30)
    assert found.outcome == "matched"
    assert_allclose(found.shift, made.shift, rtol=0, atol=5 * sigmas(found).max())


@pytest.mark.parametrize("value", [1e6, 1e30, -1e30, 1e300, 1.7e308])
def test_one_wild_pixel_breaks_nothing(value):
    made = pair((96, 96), (3.3, -4.2))
    wild = made.reference.copy()
    wild[40, 40] = value
    found = spt.phase_correlate(wild, made.moving)
    assert np.isfinite(found.shift).all()
    assert 0 <= found.false_alarm <= 1
    if found.outcome == "matched":
        # One pixel of 9000 hides what is around it, and no more.
        assert_allclose(found.shift, made.shift, rtol=0, atol=0.1)


def test_values_that_span_more_than_a_number_holds_break_nothing():
    made = pair((64, 64), (3.3, -4.2))
    wild = made.reference.copy()
    wild[10, 10], wild[20, 20] = 1.7e308, -1.7e308
    found = spt.phase_correlate(wild, made.moving)
    assert np.isfinite(found.shift).all()


def test_a_large_offset_in_double_precision_is_kept():
    """Counts of a camera with 32 bits and a pedestal: 2**31 and a texture of 100."""
    made = pair((96, 96), (3.3, -4.2))
    images = [
        np.round(2.0**31 + 100 * im).astype(np.int64)
        for im in (made.reference, made.moving)
    ]
    found = spt.phase_correlate(*images)
    assert found.outcome == "matched"
    assert_allclose(found.shift, made.shift, rtol=0, atol=5 * sigmas(found).max())


# Images that show nothing

EMPTY = {
    "constant": np.full((48, 48), 7.0),
    "zero": np.zeros((48, 48), np.uint8),
    "large constant": np.full((48, 48), 1e30, np.float32),
    "all nan": np.full((48, 48), np.nan),
    "all infinite": np.full((48, 48), np.inf),
    "one pixel": np.ones((1, 1)),
    "false": np.zeros((48, 48), bool),
    "nan but one": np.where(np.arange(48 * 48).reshape(48, 48), np.nan, 1.0),
}


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("options", [{}, {"max_shift": 5}, {"whitening": 1.0}])
def test_images_that_show_nothing_are_told_in_words(kind, swap, both, options):
    other = EMPTY[kind] if both else scene((48, 48))
    images = (other, EMPTY[kind]) if swap else (EMPTY[kind], other)
    found = spt.phase_correlate(*images, **options)
    assert found.outcome == "no texture"
    assert found.false_alarm == 1
    assert found.correlation == 0
    assert np.isinf(np.diag(found.covariance)).all()
    assert np.isfinite(found.shift).all()
    assert np.isfinite(found.alternatives).all()


@pytest.mark.parametrize("side", ["reference_valid", "moving_valid"])
def test_an_empty_mask_is_told_in_words(side):
    made = pair((48, 48), (2, 3))
    nothing = {side: np.zeros((48, 48), bool)}
    found = spt.phase_correlate(made.reference, made.moving, **nothing)
    assert found.outcome == "no texture"
    assert (found.false_alarm, found.correlation) == (1, 0)


def test_masks_that_never_meet_are_told_in_words():
    """What counts in one image lies too far from what counts in the other."""
    made = pair((64, 64), (0, 0))
    top, bottom = np.zeros((2, 64, 64), bool)
    top[:8], bottom[-8:] = True, True
    found = spt.phase_correlate(
        made.reference,
        made.moving,
        reference_valid=top,
        moving_valid=bottom,
        max_shift=10,
    )
    assert found.outcome in {"no texture", "not found"}
    assert found.false_alarm > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (1, 40), (3, 3), (2, 2, 2)])
def test_images_of_a_few_pixels_break_nothing(shape):
    rng = np.random.default_rng(0)
    found = spt.phase_correlate(rng.normal(size=shape), rng.normal(size=shape))
    assert found.outcome != "matched"
    assert np.isfinite(found.shift).all()


def test_one_row_of_pixels_is_matched():
    line = spt.gaussian_texture((3, 700), cutoff=0.2, slope=1, rng=1)[1]
    rng = np.random.default_rng(1)
    first = line[None, 100:500] + 0.05 * rng.normal(size=400)
    second = line[None, 120:520] + 0.05 * rng.normal(size=400)
    found = spt.phase_correlate(first, second, max_shift=(0, 60))
    assert found.outcome == "matched"
    assert abs(found.shift[0]) < 1e-9
    assert abs(found.shift[1] - 20) < 5 * sigmas(found)[1]


# Bad input

IMAGE = np.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize("name", ["reference", "moving"])
@pytest.mark.parametrize(
    "dtype", ["complex64", "complex128", "object", "str", "datetime64[s]"]
)
def test_images_must_hold_real_numbers(name, dtype):
    images = {"reference": IMAGE, "moving": IMAGE}
    images[name] = IMAGE.astype(int).astype(dtype)
    with pytest.raises(TypeError, match=f"`{name}` must hold real numbers; got dtype"):
        spt.phase_correlate(**images)


@pytest.mark.parametrize("name", ["reference", "moving"])
@pytest.mark.parametrize("shape", [(), (6,), (2, 2, 2, 2)])
def test_images_must_have_two_or_three_axes(name, shape):
    images = {"reference": IMAGE, "moving": IMAGE, name: np.ones(shape)}
    with pytest.raises(ValueError, match=f"`{name}` must be a 2-D or 3-D image; got"):
        spt.phase_correlate(**images)


@pytest.mark.parametrize("name", ["reference", "moving"])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (2, 0, 2)])
def test_images_must_have_pixels(name, shape):
    images = {"reference": IMAGE, "moving": IMAGE, name: np.ones(shape)}
    with pytest.raises(ValueError, match=f"`{name}` must have at least one pixel; got"):
        spt.phase_correlate(**images)


def test_images_must_have_the_same_number_of_axes():
    with pytest.raises(ValueError, match=r"number of axes; got `reference` \(4, 6\)"):
        spt.phase_correlate(IMAGE, np.ones((2, 4, 6)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"guess": (1, 2, 3)}, r"`guess` must .*shape \(2,\); got \(3,\)"),
        ({"guess": [[1, 2]]}, r"`guess` must .*shape \(2,\); got \(1, 2\)"),
        ({"guess": (np.nan, 0)}, "`guess` must be finite; got 1 NaN"),
        ({"guess": (np.inf, 0)}, "`guess` must be finite; got 1 NaN"),
        ({"max_shift": -1}, "`max_shift` must .*; got -1"),
        ({"max_shift": (3, -1)}, "`max_shift` must .*; got"),
        ({"max_shift": (3, 3, 3)}, r"`max_shift` must .*\(2,\); got \(3,\)"),
        ({"max_shift": np.nan}, "`max_shift` must be finite; got"),
        ({"min_overlap": -0.1}, "`min_overlap` must be between 0 and 1; got -0.1"),
        ({"min_overlap": 1.1}, "`min_overlap` must be between 0 and 1; got 1.1"),
        ({"min_overlap": np.nan}, "`min_overlap` must be between 0 and 1; got nan"),
        ({"whitening": 2}, "`whitening` must be between 0 and 1; got 2"),
        ({"whitening": -0.5}, "`whitening` must be between 0 and 1; got -0.5"),
        ({"whitening": np.nan}, "`whitening` must be between 0 and 1; got nan"),
        ({"peaks": 0}, "`peaks` must be at least 1; got 0"),
        (
            {"reference_valid": np.ones((4, 5), bool)},
            r"`reference_valid` .* got \(4, 5",
        ),
        ({"moving_valid": np.ones((6, 4), bool)}, r"`moving_valid` .* got \(6, 4\)"),
    ],
)
def test_options_must_make_sense(options, match):
    with pytest.raises(ValueError, match=match):
        spt.phase_correlate(IMAGE, IMAGE, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"peaks": 1.5}, "`peaks` must be an integer; got float"),
        ({"peaks": True}, "`peaks` must be an integer; got bool"),
        ({"guess": ("a", "b")}, "`guess` must hold real numbers; got"),
        ({"guess": (1j, 0)}, "`guess` must hold real numbers; got"),
        ({"max_shift": "far"}, "`max_shift` must hold real numbers; got"),
        ({"reference_valid": np.ones((4, 6))}, "`reference_valid` must be boolean"),
        ({"moving_valid": np.ones((4, 6), int)}, "`moving_valid` must be boolean"),
    ],
)
def test_options_must_be_of_the_right_kind(options, match):
    with pytest.raises(TypeError, match=match):
        spt.phase_correlate(IMAGE, IMAGE, **options)


# What a call leaves behind


def test_inputs_are_not_changed():
    images, valid, _ = marked()
    images[0][0, 0] = np.nan
    copies = [image.copy() for image in images]
    for array in (*images, valid):
        array.setflags(write=False)
    guess, limit = np.array([9.0, -14.0]), np.array([20.0, 20.0])
    spt.phase_correlate(
        *images,
        reference_valid=valid,
        moving_valid=valid,
        guess=guess,
        max_shift=limit,
    )
    for image, copy in zip(images, copies, strict=True):
        assert_array_equal(image, copy)
    assert_array_equal(guess, [9, -14])
    assert_array_equal(limit, [20, 20])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("empty", [False, True])
def test_results_share_no_memory_with_inputs(dtype, empty):
    image = np.zeros((32, 32), dtype) if empty else scene((32, 32)).astype(dtype)
    guess = np.array([0.0, 0.0])
    found = spt.phase_correlate(image, image, guess=guess)
    for result in (found.shift, found.alternatives, found.covariance):
        assert not np.shares_memory(result, guess)
        result[:] = 5
    assert_array_equal(guess, 0)


def test_calls_repeat_to_the_last_bit():
    made = pair((96, 96), (3.3, -4.2))
    first = spt.phase_correlate(made.reference, made.moving)
    spt.phase_correlate(made.moving, made.reference, max_shift=30)
    assert same(first, spt.phase_correlate(made.reference, made.moving))


@pytest.mark.parametrize("layout", ["F", "strided", "reversed", "big endian"])
def test_layout_in_memory_does_not_matter(layout):
    made = pair((64, 80), (3.3, -4.2))
    images = [image.astype(np.float32) for image in (made.reference, made.moving)]
    change = {
        "F": np.asfortranarray,
        "strided": lambda im: np.repeat(np.repeat(im, 2, 0), 3, 1)[::2, ::3],
        "reversed": lambda im: im[::-1].copy()[::-1],
        "big endian": lambda im: im.astype(">f4"),
    }[layout]
    found = spt.phase_correlate(*map(change, images))
    expected = spt.phase_correlate(*images)
    # 1e-5: sums over other axes first round differently.
    assert_allclose(found.shift, expected.shift, rtol=0, atol=1e-5)
    assert found.outcome == expected.outcome


@pytest.mark.parametrize("seed", range(4))
def test_a_board_is_ambiguous_along_its_strip(seed):
    rng = np.random.default_rng(seed)
    board = np.sign(np.prod(np.cos(np.pi * np.indices((80, 200)) / 10), axis=0))
    pair = [40 * board[4 * n :][:60, 6 * n :][:, :180] for n in (0, 1)]
    pair = [each + rng.normal(0, 8, each.shape) for each in pair]
    for reach in (15, 30):
        found = spt.phase_correlate(*pair, guess=(4, 6), max_shift=reach)
        assert found.outcome != "matched"

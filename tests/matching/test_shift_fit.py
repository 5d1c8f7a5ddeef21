"""How close shifts come to the bound, and whether their covariance is honest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import spectral_tools as spt
from spectral_tools._matching import shift_fit
from spectral_tools._spectral.gain_gradient import gain_slopes
from tests.sweeps import sweep

TRIALS = 40


def texture_power(shape, cutoff, slope=3.0, knee=0.02):
    """Power of each mode of a texture with unit variance, relative to white noise."""
    axes = np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")
    square = sum(axis**2 for axis in axes)
    inside = np.minimum(np.sqrt(square) / cutoff, 1)
    lens = np.arccos(inside) - inside * np.sqrt(1 - inside**2)
    power = lens**2 / (square + knee**2) ** (slope / 2)
    power.flat[0] = 0
    return axes, power / power.mean()


def shift_bound(shape, pixels, noise, cutoff=0.3):
    """Least standard deviation of a shift, for each axis (Cramer-Rao).

    The scene is normal with known spectrum, both pictures of it are noisy, and
    `pixels` are common to both. With the coherence ``g`` of a mode the Fisher
    information is the sum of ``(2 pi k)**2 g**2 / (1 - g**2)``: Knapp & Carter
    (1976), doi:10.1109/TASSP.1976.1162830.
    """
    axes, power = texture_power(shape, cutoff)
    coherence = power / (power + noise**2)
    weight = coherence**2 / (1 - coherence**2)
    information = [
        [(4 * np.pi**2 * first * second * weight).mean() for second in axes]
        for first in axes
    ]
    return np.sqrt(np.diag(np.linalg.inv(np.array(information) * pixels)))


def statistics(
    shape, noise, *, reach=8, cutoff=0.3, trials=TRIALS, number=0, **options
):
    """Errors in units of the bound, their chi square, and who was matched."""
    rng = np.random.default_rng([number, *shape])
    errors, squares, matched = [], [], []
    for _ in range(trials):
        shift = rng.uniform(-reach, reach, len(shape))
        field = spt.gaussian_texture(
            [n + 2 * reach + 40 for n in shape], cutoff=cutoff, rng=rng
        )
        made = spt.simulate_pair(field, shape, shift, noise_sigma=noise, rng=rng)
        found = spt.phase_correlate(made.reference, made.moving, **options)
        error = found.shift - shift
        pixels = np.prod(shape - np.abs(shift))
        errors.append(error / shift_bound(shape, pixels, noise, cutoff))
        squares.append(error @ np.linalg.solve(found.covariance, error))
        matched.append(found.outcome == "matched" and np.abs(error).max() < 1)
    return np.array(errors), np.array(squares), np.array(matched)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def assert_honest(squares, ndim, *, margin=1.0):
    """Check a sum of squared errors over their covariance against its law.

    The limits leave 1 chance in 1000 on either side; `margin` widens both.
    """
    low, high = stats.chi2.ppf([0.001, 0.999], ndim * len(squares))
    assert low / margin < squares.sum() < high * margin, squares.mean() / ndim


@pytest.fixture(scope="module")
def crops():
    return statistics((256, 256), 10 ** (-10 / 20))


def test_no_crop_is_lost(crops):
    assert crops[2].all()


def test_crops_come_close_to_the_bound(crops):
    # The RMSE of 80 numbers has a standard deviation of 8 %: three are allowed.
    assert rms(crops[0]) <= 1.25


def test_nobody_beats_the_bound(crops):
    """If so, the bound would be wrong and the test above would say nothing."""
    # The same 8 %, three times, below 1.
    assert rms(crops[0]) >= 0.75


def test_covariance_of_crops_is_honest(crops):
    assert_honest(crops[1], 2)


def test_errors_of_crops_have_no_bias(crops):
    # In units of a standard deviation, the mean of 40 has one of 0.16; four.
    assert (np.abs(crops[0].mean(axis=0)) < 4 / np.sqrt(TRIALS)).all()


@pytest.mark.parametrize(
    ("shape", "level", "figure"),
    sweep(
        [
            ((256, 256), 20, 1.15),
            ((256, 256), 0, 1.15),
            ((384, 52), 10, 1.15),
            ((64, 64), 10, 1.35),
            # Tapers of 6 px at both ends leave 0.62 of 16 planes and 0.86 of 44 rows: a
            # factor of 1.48 already.
            ((20, 48, 48), 10, 1.6),
        ],
        1,
        3,
    ),
)
def test_other_shapes_and_noise_come_close_too(shape, level, figure):
    trials = 60 // len(shape)
    errors, squares, matched = statistics(
        shape, 10 ** (-level / 20), reach=4, trials=trials
    )
    assert matched.all()
    # Small images lose part of their border to tapers, hence their wider figures;
    # the RMSE of 60 numbers has a standard deviation of 9 %: two are allowed.
    assert rms(errors) <= 1.18 * figure
    # Few modes tell their own coherence poorly: a margin of a quarter.
    assert_honest(squares, len(shape), margin=1.25)


@pytest.mark.parametrize(
    "shape", sweep([[8, 48, 48], [5, 64, 64], [12, 300], [32, 32]], 0, 2)
)
def test_covariance_is_honest_where_an_axis_is_short(shape):
    _, squares, matched = statistics(shape, 0.1, reach=2, trials=12)
    assert matched.all()
    # Half as large again as honest would do: there are few modes to tell.
    assert_honest(squares, len(shape), margin=1.5)


@pytest.mark.parametrize("whitening", [0.0, 0.65])
def test_covariance_is_honest_with_classical_weights(whitening):
    _, squares, matched = statistics((128, 128), 0.1, trials=30, whitening=whitening)
    assert matched.all()
    # The classical weights are not those of the covariance's theory: a half.
    assert_honest(squares, 2, margin=1.5)


def test_a_mask_costs_no_more_than_its_pixels():
    rng = np.random.default_rng(5)
    valid = np.ones((160, 160), bool)
    valid[30:80, 60:130] = False
    errors, squares = [], []
    for _ in range(20):
        shift = rng.uniform(-6, 6, 2)
        field = spt.gaussian_texture((220, 220), rng=rng)
        made = spt.simulate_pair(field, (160, 160), shift, noise_sigma=0.3, rng=rng)
        found = spt.phase_correlate(made.reference, made.moving, reference_valid=valid)
        error = found.shift - shift
        pixels = np.prod(160 - np.abs(shift)) - (~valid).sum()
        errors.append(error / shift_bound((160, 160), pixels, 0.3))
        squares.append(error @ np.linalg.solve(found.covariance, error))
    # The RMSE of 40 numbers has a standard deviation of 11 %; a hole has a border
    # that fades like any other, here a tenth of the pixels.
    assert rms(errors) < 1.4
    assert_honest(np.array(squares), 2, margin=1.25)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, -0.4])
def test_fractions_are_not_pulled_to_whole_pixels(fraction):
    """Without noise only the edges are left, and they would pull."""
    found = []
    for number in range(8):
        field = spt.gaussian_texture((200, 200), rng=number)
        made = spt.simulate_pair(field, (128, 128), (fraction, -fraction))
        found.append(spt.phase_correlate(made.reference, made.moving).shift)
    # 0.004 px: the simulated pictures are exact to 3e-5 of their contrast, and
    # a plain transform of the crops is pulled by 0.05 px.
    error = np.abs(np.mean(found, axis=0) - (fraction, -fraction))
    assert (error < 0.004).all(), error


@pytest.mark.parametrize("start", [(5, -3), (6.9, -4.2), (4.5, -1.8)])
def test_fit_finds_its_way_from_a_pixel_and_a_half(start):
    field = spt.gaussian_texture((160, 160), rng=2)
    made = spt.simulate_pair(field, (128, 128), (5.4, -3.3), noise_sigma=0.1, rng=2)
    images = [im.astype(np.float32)[None] for im in (made.reference, made.moving)]
    fit = shift_fit.fit_shift(*images, np.array([0.0, *start]))
    error = np.abs(fit.shift[1:] - made.shift)
    assert (error < 5 * np.sqrt(np.diag(fit.covariance)[1:])).all(), error


@pytest.mark.parametrize("shape", [(512, 160), (301, 163)])
@pytest.mark.parametrize("shift", [(7.3, 104.6), (-31.4, 62.5)])
def test_strips_that_share_a_third_reach_the_bound(shape, shift):
    """Such strips are searched with half their resolution, and may wrap around."""
    errors, bounds = [], []
    for number in range(8):
        field = spt.gaussian_texture([n + 260 for n in shape], cutoff=0.3, rng=number)
        made = spt.simulate_pair(field, shape, shift, noise_sigma=0.1, rng=number)
        found = spt.phase_correlate(
            made.reference, made.moving, guess=(0, 80), max_shift=60
        )
        assert found.outcome == "matched"
        errors.append(found.shift - shift)
        pixels = np.prod(shape - np.abs(shift))
        bounds.append(shift_bound((256, 256), pixels, 0.1))
    # The mean square of 16 errors at the bound stays below twice its value in 99 % of
    # runs, and tapers take a tenth of the pixels of so narrow an overlap.
    assert rms(np.array(errors) / bounds) < 1.05 * np.sqrt(2)


def test_detail_beyond_half_the_resolution_is_found():
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*map(np.fft.fftfreq, (600, 420)), indexing="ij")
    fine = (np.hypot(*axes) > 0.3) & (np.hypot(*axes) < 0.45)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((600, 420))) * fine).real
    images = field[20:532, 20:180], field[27:539, 91:251]
    found = spt.phase_correlate(*images, guess=(0, 60), max_shift=60)
    assert found.outcome == "matched"
    # Whole pixels without noise: what is left is the edges.
    assert_allclose(found.shift, (7, 71), rtol=0, atol=0.01)


@pytest.mark.parametrize("rough", [0, 1, 2])
def test_fit_ends_where_it_ends_however_it_starts(rough):
    field = spt.gaussian_texture((160, 160), rng=2)
    made = spt.simulate_pair(field, (128, 128), (5.4, -3.3), noise_sigma=0.1, rng=2)
    images = [im.astype(np.float32)[None] for im in (made.reference, made.moving)]
    fits = [
        shift_fit.fit_shift(*images, np.array([0.0, *start]), rough=kind)
        for start, kind in (((5.3, -3.2), rough), ((5.4, -3.3), 0))
    ]
    # Fits end when a step is below a tenth of the standard deviation, in 1 or 2 rounds.
    sigma = np.sqrt(np.diag(fits[1].covariance)[1:])
    assert (np.abs(fits[0].shift - fits[1].shift)[1:] < 0.2 * sigma).all()


def strips_lit_from_two_sides(depth, *, valid=None, trials=40):
    """Errors of overlaps at opposite edges of a field of view, and their squares.

    The light falls off by `depth` from the middle of the field to its corners.
    """
    rng = np.random.default_rng(3)
    rows, cols = np.meshgrid(np.arange(256) / 128 - 1, np.arange(64), indexing="ij")
    left = 1 - depth * (rows**2 + (cols / 128 - 1) ** 2) / 2
    right = 1 - depth * (rows**2 + ((cols + 192) / 128 - 1) ** 2) / 2
    errors, squares = [], []
    for _ in range(trials):
        shift = rng.uniform(-8, 8, 2)
        field = 3 + spt.gaussian_texture((312, 120), cutoff=0.25, rng=rng)
        made = spt.simulate_pair(field, rows.shape, shift, rng=rng)
        noise = 0.1 * rng.standard_normal((2, *rows.shape))
        found = spt.phase_correlate(
            made.reference * right + noise[0],
            made.moving * left + noise[1],
            max_shift=20,
            reference_valid=valid,
        )
        errors.append(found.shift - shift)
        squares.append(errors[-1] @ np.linalg.solve(found.covariance, errors[-1]))
    return np.array(errors), np.array(squares)


@pytest.mark.parametrize("depth", [0.2, 0.5])
def test_light_from_two_sides_does_not_pull(depth):
    errors, squares = strips_lit_from_two_sides(depth)
    # Not evened out, the columns are 0.021 and 0.058 px off on average.
    assert abs(errors[:, 1].mean()) < 0.012
    assert_honest(squares, 2, margin=1.5)


def test_light_from_two_sides_does_not_pull_masked_images():
    valid = np.ones((256, 64), bool)
    valid[100:120, 20:40] = False
    errors, _ = strips_lit_from_two_sides(0.5, valid=valid)
    # As above.
    assert abs(errors[:, 1].mean()) < 0.012


@pytest.mark.parametrize("slopes", [(0.0, 0.0), (0.003, -0.006)])
def test_slopes_of_gain_are_those_given(slopes):
    rng = np.random.default_rng(4)
    scene = spt.gaussian_texture((120, 90), rng=rng)
    rows, cols = np.ogrid[-59.5:60, -44.5:45]
    other = scene * (1 + slopes[0] * rows + slopes[1] * cols)
    images = [
        (im + 0.5 * rng.standard_normal(im.shape)).astype(np.float32)[None]
        for im in (scene, other)
    ]
    nowhere, block = np.zeros(3, np.intp), np.array([1, 120, 90])
    found = gain_slopes(*images, nowhere, nowhere, block)
    # Half the noise of the signal leaves 0.0003 or so.
    assert_allclose(found, (0, *slopes), rtol=0, atol=0.0012)


sizes = st.lists(st.integers(1, 9), min_size=3, max_size=3).map(np.array)


@given(shape0=sizes, shape1=sizes, whole=st.lists(st.integers(-9, 9), min_size=3))
def test_blocks_are_what_two_images_share(shape0, shape1, whole):
    whole = np.array(whole[:3])
    start0, start1, block = shift_fit.overlap_block(shape0, shape1, whole)
    for axis in range(3):
        first = set(range(shape0[axis]))
        second = {pixel + whole[axis] for pixel in range(shape1[axis])}
        common = sorted(first & second)
        assert block[axis] == len(common)
        if common:
            assert start0[axis] == common[0]
    assert_array_equal(start0 - start1, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "cutoff", "limit"),
    [
        ((256, 256), 0.5, 1.15),
        ((256, 256), 0.25, 1.15),
        ((512, 52), 0.4, 1.15),
        ((64, 64), 0.4, 1.35),
    ],
)
@pytest.mark.parametrize("level", [30, 20, 10])
def test_many_pairs_come_close_to_the_bound(shape, cutoff, limit, level):
    errors, squares, matched = statistics(
        shape, 10 ** (-level / 20), cutoff=cutoff, trials=150, number=1
    )
    assert matched.all()
    # The RMSE of 300 numbers has a standard deviation of 4 %: two are allowed
    # beyond the figure itself.
    assert rms(errors) <= limit + 0.08
    # 0.8 to 1.25, and as much again as the law of 150 squares allows.
    assert_honest(squares, 2, margin=1.25)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, -10])
def test_many_pairs_deep_in_noise_come_close_to_the_bound(level):
    errors, squares, matched = statistics(
        (256, 256), 10 ** (-level / 20), trials=150, number=2
    )
    assert matched.all()
    # As above.
    assert rms(errors) <= 1.15 + 0.08
    assert_honest(squares, 2, margin=1.25)

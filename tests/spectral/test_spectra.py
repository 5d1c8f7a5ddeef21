import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft

import spectral_tools as spt

# Windows


def test_edges_are_squared_cosines():
    window = spt.cosine_taper((1, 20), width=5)[0]
    depth = (np.arange(5) + 0.5) / 5
    assert_allclose(window[:5], np.sin(np.pi / 2 * depth) ** 2)
    assert_allclose(window[5:15], 1)
    assert_allclose(window, window[::-1])


def test_windows_that_overlap_by_their_edges_add_up_to_one():
    window = spt.cosine_taper((1, 30), width=6)[0]
    assert_allclose(window[-6:] + window[:6], 1)


def test_window_is_the_product_of_its_axes():
    window = spt.cosine_taper((9, 10, 11), width=(1, 2, 3))
    middle = window[4, 5, :] * window[4, :, 5, None] * window[:, 5, 5, None, None]
    assert_allclose(window, middle)


def test_whole_pixels_move_the_window_along():
    still = spt.cosine_taper((1, 30), width=6)[0]
    moved = spt.cosine_taper((1, 30), width=6, shift=(0, 4))[0]
    assert_allclose(moved[4:-4], still[:-8])
    assert_allclose(moved[:4], 0)


def test_width_must_be_positive():
    with pytest.raises(ValueError, match="`width` must be finite and greater than 0"):
        spt.cosine_taper((8, 8), width=(3, 0))


def test_window_needs_a_shape_of_two_or_three_axes():
    with pytest.raises(ValueError, match="`shape` must hold 2 or 3 positive integers"):
        spt.cosine_taper((8,))


# Power


@pytest.mark.parametrize("shape", [(12, 15), (15, 12), (1, 9), (4, 5, 6), (3, 8, 1)])
def test_power_is_that_of_the_whole_transform(rng, shape):
    image = rng.normal(size=shape)
    transform = fft.fftshift(fft.fftn(image - image.mean()))
    power = spt.power_spectrum(image, taper=False)
    assert_allclose(power, np.abs(transform) ** 2 / image.size, atol=1e-12)


@pytest.mark.parametrize("shape", [(300, 200), (40, 50, 60)])
def test_white_noise_has_its_variance_as_power(rng, shape):
    noise = 100 + 3 * rng.normal(size=shape)
    # The mean over about 3e4 independent modes is good to 0.6 %.
    assert_allclose(spt.power_spectrum(noise).mean(), 9, rtol=0.02)


def test_mean_power_is_the_variance_of_the_image(texture):
    power = spt.power_spectrum(texture, taper=False)
    assert_allclose(power.mean(), texture.var())


def test_taper_removes_the_cross_of_opposite_borders():
    ramp = np.add.outer(np.arange(100.0), np.arange(120.0))
    far = np.s_[50, 100:]  # above a third of a cycle per pixel along the columns
    plain = spt.power_spectrum(ramp, taper=False)[far].mean()
    assert spt.power_spectrum(ramp)[far].mean() < 0.01 * plain


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint8, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_power_has_the_precision_of_the_image(dtype, expected):
    assert spt.power_spectrum(np.eye(16, dtype=dtype)).dtype == expected


def test_power_of_an_image_with_bad_pixels_is_refused():
    with pytest.raises(ValueError, match="`image` must be finite; got 1 NaN"):
        spt.power_spectrum([[1.0, np.nan], [2.0, 3.0]])


# Rings


def distance_from_zero(shape):
    axes = [fft.fftshift(fft.fftfreq(size)) for size in shape]
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))


@pytest.mark.parametrize("shape", [(64, 64), (63, 80), (1, 50), (9, 30, 31)])
def test_average_of_the_frequency_is_the_frequency(shape):
    rings = spt.ring_average(distance_from_zero(shape))
    assert_allclose(rings.mean, rings.frequency)
    assert (np.diff(rings.frequency) > 0).all()


def test_rings_hold_every_value_once(rng):
    values = rng.normal(size=(50, 71))
    rings = spt.ring_average(values)
    assert rings.count.sum() == values.size
    assert_allclose((rings.count * rings.mean).sum(), values.sum())


def test_rings_show_the_spectrum_that_a_scene_was_made_with():
    scene = spt.gaussian_texture((512, 512), cutoff=0.3, slope=3, rng=5)
    rings = spt.ring_average(spt.power_spectrum(scene, taper=False))
    inside = (rings.frequency > 0.05) & (rings.frequency < 0.25)
    frequency = rings.frequency[inside] / 0.3
    lens = np.arccos(frequency) - frequency * np.sqrt(1 - frequency**2)
    law = lens**2 / (rings.frequency[inside] ** 2 + 0.02**2) ** 1.5
    ratio = rings.mean[inside] / law
    # A ring holds 80 to 400 independent modes: 5 to 11 %, four times that at most.
    assert_allclose(ratio / ratio.mean(), 1, atol=0.4)
    assert rings.mean[rings.frequency > 0.31].max() < 1e-12 * rings.mean.max()


# Coherence


@pytest.mark.parametrize("shape", [(256, 200), (24, 60, 70)])
def test_coherence_is_the_share_of_the_signal(rng, shape):
    scene = rng.normal(size=shape)
    first, second = scene + 0.5 * rng.normal(size=(2, *shape))
    rings = spt.ring_coherence(first, second)
    # 1 / (1 + 0.25), to 0.6 / sqrt(2 count) for each ring, five times at most.
    assert (np.abs(rings.coherence - 0.8) < 5 * 0.6 / np.sqrt(2 * rings.count)).all()
    many = rings.count > 1000
    assert_allclose(rings.smoothed[many], 0.8, atol=0.03)


def test_rings_count_about_half_of_the_pixels(rng):
    noise = rng.normal(size=(200, 200))
    rings = spt.ring_coherence(noise, noise)
    # The tapers cost 8 px on each side, of which about half is lost.
    assert_allclose(rings.count.sum(), 0.5 * 192**2, rtol=0.03)


def test_images_agree_at_their_shift_and_nowhere_else():
    scene = spt.gaussian_texture((256, 256), rng=3)
    pair = spt.simulate_pair(scene, (160, 180), (5.3, -8.6))
    right = spt.ring_coherence(pair.reference, pair.moving, shift=pair.shift)
    wrong = spt.ring_coherence(pair.reference, pair.moving, shift=pair.shift + 9)
    assert right.coherence[right.frequency < 0.2].min() > 0.999
    # Rings of 12 modes and more: 0.2 and less by chance.
    assert np.abs(wrong.coherence[wrong.frequency < 0.2]).mean() < 0.35


def test_coherence_of_unrelated_images_is_chance(rng):
    first, second = rng.normal(size=(2, 300, 300))
    rings = spt.ring_coherence(first, second)
    chi2 = np.mean(2 * rings.count * rings.coherence**2)
    # One, to sqrt(2 / rings): the counts tell the error of a coherence.
    assert abs(chi2 - 1) < 4 * np.sqrt(2 / len(rings.count))
    assert np.average(rings.smoothed, weights=rings.count) < 0.02


def test_swapping_images_keeps_their_coherence():
    scene = spt.gaussian_texture((128, 128), rng=3)
    pair = spt.simulate_pair(scene, (90, 80), (4.3, -6.6), noise_sigma=0.1, rng=1)
    there = spt.ring_coherence(pair.reference, pair.moving, shift=pair.shift)
    back = spt.ring_coherence(pair.moving, pair.reference, shift=-pair.shift)
    assert_allclose(there.coherence, back.coherence, atol=1e-12)
    assert_allclose(there.reference_power, back.moving_power)


@given(gain=st.floats(0.1, 100), offset=st.floats(-100, 100))
def test_gain_and_offset_do_not_change_the_coherence(gain, offset):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(40, 50)) + rng.normal(size=(2, 40, 50))
    plain = spt.ring_coherence(first, second)
    changed = spt.ring_coherence(first, gain * second + offset)
    assert_allclose(changed.coherence, plain.coherence, atol=1e-9)


def test_an_image_that_shows_nothing_has_no_coherence(rng):
    rings = spt.ring_coherence(np.ones((40, 40)), rng.normal(size=(40, 40)))
    assert_array_equal(rings.smoothed, 0)


def test_shift_must_leave_something_in_common():
    with pytest.raises(ValueError, match="`shift` must leave 4 pixels in common"):
        spt.ring_coherence(np.eye(20), np.eye(20), shift=(0, 17))


def test_coherence_needs_images_with_as_many_axes():
    with pytest.raises(ValueError, match="must have the same number of axes"):
        spt.ring_coherence(np.eye(20), np.ones((3, 20, 20)))


# Whitening


def test_whitening_makes_all_frequencies_count():
    scene = spt.gaussian_texture((256, 256), rng=4)[:200, :180]
    scene = scene + 0.01 * np.random.default_rng(4).normal(size=scene.shape)

    def contrast(image):
        rings = spt.ring_average(spt.power_spectrum(image))
        inside = (rings.frequency > 0.03) & (rings.frequency < 0.2)
        return rings.mean[inside].max() / rings.mean[inside].min()

    assert contrast(scene) > 1000
    assert contrast(spt.whiten(scene)) < 10


def test_exponent_zero_only_standardises(texture):
    plain = (texture - texture.mean()) / texture.std()
    # The search computes in single precision.
    assert_allclose(spt.whiten(texture, exponent=0), plain, atol=1e-5)


@pytest.mark.parametrize("exponent", [None, 0.65, 1])
def test_whitened_images_have_mean_zero_and_spread_one(texture, exponent):
    white = spt.whiten(1000 + 7 * texture, exponent=exponent)
    assert white.shape == texture.shape
    assert_allclose([white.mean(), white.std()], [0, 1], atol=1e-5)


@pytest.mark.parametrize("exponent", [None, 1])
def test_a_constant_image_is_whitened_to_zero(exponent):
    assert_array_equal(spt.whiten(np.full((20, 30), 0.1), exponent=exponent), 0)


def test_exponent_must_be_a_fraction():
    with pytest.raises(ValueError, match="`exponent` must be between 0 and 1; got 2"):
        spt.whiten(np.eye(8), exponent=2)


# Correlation surfaces


def direct_score(reference, moving, shift):
    """Correlate the pixels that two images share, one by one."""
    pairs = [
        (reference[r + shift[0], c + shift[1]], moving[r, c])
        for r in range(moving.shape[0])
        for c in range(moving.shape[1])
        if 0 <= r + shift[0] < reference.shape[0]
        and 0 <= c + shift[1] < reference.shape[1]
    ]
    if len(pairs) < 16:
        return 0.0
    coefficient = np.corrcoef(np.array(pairs).T)[0, 1]
    return np.arctanh(coefficient) * np.sqrt(len(pairs))


def test_each_value_is_the_correlation_of_what_the_images_share(rng):
    reference, moving = rng.normal(size=(9, 12)), rng.normal(size=(11, 8))
    surface = spt.correlation_surface(reference, moving, whitening=0)
    expected = [
        [direct_score(reference, moving, (r, c)) for c in range(-11, 12)]
        for r in range(-10, 11)
    ]
    # Single precision.
    assert_allclose(surface, expected, atol=1e-3)


@pytest.mark.parametrize("whitening", [None, 0, 0.65, 1])
@pytest.mark.parametrize("shift", [(0, 0), (12, -7), (-25, 30)])
def test_the_highest_point_is_the_shift(shift, whitening):
    scene = spt.gaussian_texture((192, 192), rng=8)
    # More noise than this, and plain phase correlation finds it no longer.
    pair = spt.simulate_pair(scene, (100, 90), shift, noise_sigma=0.01, rng=8)
    surface = spt.correlation_surface(pair.reference, pair.moving, whitening=whitening)
    index = np.unravel_index(surface.argmax(), surface.shape)
    assert_array_equal(index - (np.array(surface.shape) - 1) / 2, shift)


def test_the_shift_of_volumes_is_found():
    scene = spt.gaussian_texture((32, 64, 64), rng=8)
    pair = spt.simulate_pair(scene, (20, 40, 40), (2, -5, 7))
    surface = spt.correlation_surface(
        pair.reference, pair.moving, max_shift=(4, 10, 10)
    )
    assert surface.shape == (9, 21, 21)
    index = np.unravel_index(surface.argmax(), surface.shape)
    assert_array_equal(index - (np.array(surface.shape) - 1) / 2, (2, -5, 7))


def test_swapping_images_turns_the_surface_round(rng):
    first, second = rng.normal(size=(2, 30, 40))
    there = spt.correlation_surface(first, second)
    back = spt.correlation_surface(second, first)
    assert_allclose(there, back[::-1, ::-1], atol=1e-3)


def test_chance_has_a_standard_deviation_of_one_at_every_overlap(rng):
    first, second = rng.normal(size=(2, 128, 128))
    surface = spt.correlation_surface(first, second, whitening=0)
    side = 128 - np.abs(np.arange(-127, 128))
    overlap = side[:, None] * side
    for part in (overlap > 4000, (overlap > 100) & (overlap < 1000)):
        # Thousands of lags, most of them independent.
        assert_allclose(surface[part].std(), 1, atol=0.06)


@given(gain=st.floats(0.1, 100), offset=st.floats(-100, 100))
def test_gain_and_offset_do_not_change_the_surface(gain, offset):
    first, second = np.random.default_rng(2).normal(size=(2, 20, 24))
    plain = spt.correlation_surface(first, second)
    changed = spt.correlation_surface(gain * first + offset, second)
    # Single precision, of values up to about 4.
    assert_allclose(changed, plain, atol=2e-3)


def test_lags_without_overlap_are_zero(rng):
    image = rng.normal(size=(10, 10))
    surface = spt.correlation_surface(image, image, max_shift=15)
    assert surface.shape == (31, 31)
    assert_array_equal(surface[:6], 0)
    assert surface[15, 15] > 10


def test_a_narrow_search_sees_the_middle_of_the_whole_surface(rng):
    first, second = rng.normal(size=(2, 40, 50))
    whole = spt.correlation_surface(first, second)
    narrow = spt.correlation_surface(first, second, max_shift=(3, 5.9))
    assert_array_equal(narrow, whole[36:43, 44:55])


def test_a_constant_image_correlates_with_nothing(texture):
    surface = spt.correlation_surface(np.full(texture.shape, 7), texture)
    assert_array_equal(surface, 0)


def test_search_must_not_have_a_negative_reach():
    with pytest.raises(ValueError, match="`max_shift` must not be negative; got -1"):
        spt.correlation_surface(np.eye(9), np.eye(9), max_shift=-1)


def test_whitening_must_be_a_fraction():
    with pytest.raises(ValueError, match="`whitening` must be between 0 and 1; got 2"):
        spt.correlation_surface(np.eye(9), np.eye(9), whitening=2)


# Peaks


@pytest.mark.parametrize("shape", [(40, 50), (12, 20, 30)])
def test_planted_peaks_are_found_best_first(rng, shape):
    surface = rng.random(shape)
    places = np.array([[5, 9, 20], [2, 15, 3], [9, 4, 11]])[:, : len(shape)]
    for place, height in zip(places, (5, 7, 6), strict=True):
        surface[tuple(place)] = height
    peaks = spt.find_peaks(surface)
    assert_array_equal(peaks.indices, places[[1, 2, 0]])
    assert_array_equal(peaks.heights, [7, 6, 5])


def test_of_close_peaks_the_higher_one_stays():
    surface = np.zeros((30, 30))
    surface[[10, 10, 10], [10, 13, 15]] = 3, 2, 1
    assert_array_equal(
        spt.find_peaks(surface, count=2, distance=4).indices, [[10, 10], [10, 15]]
    )


def test_a_peak_at_the_border_counts():
    surface = np.add.outer(np.arange(5.0), np.arange(6.0))
    assert_array_equal(spt.find_peaks(surface).indices, [[4, 5]])


def test_count_must_be_at_least_one():
    with pytest.raises(ValueError, match="`count` must be at least 1; got 0"):
        spt.find_peaks(np.eye(5), count=0)


def test_distance_must_be_positive():
    with pytest.raises(ValueError, match="`distance` must be finite and greater"):
        spt.find_peaks(np.eye(5), distance=0)

"""No size of an image is worse than another: primes, odd ones, powers, both axes apart."""

import numpy as np
import pytest

import spectral_tools as spt

pytestmark = pytest.mark.slow

SMALLEST, LARGEST = 16, 600


@pytest.fixture(scope="module")
def fine():
    """A scene with no detail finer than four of its pixels."""
    side = 2 * (LARGEST + 80)
    return spt.gaussian_texture((side, side), cutoff=0.11, rng=7)


def shapes(step, smallest=SMALLEST):
    """Yield shapes with two different sides, so that all remainders come up."""
    count = LARGEST + 1 - smallest
    for number in range(0, count, step):
        one = smallest + number
        other = smallest + (number * 257 + 91) % count
        other += one == other
        yield (one, other) if number // step % 2 else (other, one)


def view(fine, shape, half_shift=(0, 0), noise=0.0, rng=None):
    """Take every other pixel of the scene, from some half pixels on."""
    rows, cols = (
        slice(40 + a, 40 + a + 2 * n, 2) for a, n in zip(half_shift, shape, strict=True)
    )
    image = fine[rows, cols] / fine.std()
    return image if rng is None else image + rng.normal(0, noise, shape)


def half_pixels(shape, rng, share=0.2):
    """Return a shift in half pixels, up to a share of each side."""
    most = [int(min(share * n, 20) * 2) for n in shape]
    return rng.integers([-each for each in most], [each + 1 for each in most])


def check_shift(found, covariance, truth, shape, faults, floor=0.003):
    """Note what is further from the truth than chance goes in so many trials."""
    error = np.abs(np.asarray(found) - truth)
    if not (error <= 5.5 * np.sqrt(np.diag(covariance)) + floor).all():
        faults.append((shape, error, np.sqrt(np.diag(covariance))))


def test_shifts_are_found_at_any_size(fine):
    rng, faults, lost = np.random.default_rng(1), [], []
    for shape in shapes(2):
        half = half_pixels(shape, rng)
        pair = view(fine, shape, noise=0.1, rng=rng), view(fine, shape, half, 0.1, rng)
        found = spt.phase_correlate(*pair)
        if found.outcome != "matched":
            lost.append(shape)
            continue
        check_shift(found.shift, found.covariance, half / 2, shape, faults)
    assert faults == []
    # Images of a few hundred pixels may tell too little.
    assert [shape for shape in lost if min(shape) >= 24] == []


def test_points_are_refined_in_windows_of_any_size(fine):
    rng, faults = np.random.default_rng(2), []
    for shape in shapes(7):
        half = half_pixels(shape, rng, 0.1)
        pair = view(fine, shape, noise=0.1, rng=rng), view(fine, shape, half, 0.1, rng)
        middle = (np.array(shape) - 1) / 2
        found = spt.refine_pair(*pair, middle, middle, size=shape)
        if found.outcome != "matched":
            faults.append((shape, half, found.outcome))
            continue
        shift = found.reference_points - found.moving_points
        check_shift(shift, found.covariance, half / 2, shape, faults)
    assert faults == []


def test_surfaces_peak_at_the_shift_at_any_size(fine):
    rng, faults = np.random.default_rng(3), []
    for shape in shapes(11, smallest=32):
        half = 2 * (half_pixels(shape, rng) // 2)
        pair = view(fine, shape, noise=0.1, rng=rng), view(fine, shape, half, 0.1, rng)
        surface = spt.correlation_surface(*pair)
        assert np.isfinite(surface).all()
        found = spt.find_peaks(surface, count=1).indices[0]
        truth = np.array(shape) - 1 + half // 2
        if (found != truth).any():
            faults.append((shape, found, truth))
    assert faults == []


def test_spectra_hold_the_power_of_an_image_of_any_size(fine):
    rng = np.random.default_rng(4)
    for shape in shapes(7):
        image = view(fine, shape, noise=0.1, rng=rng)
        power = spt.power_spectrum(image, taper=False)
        assert power.shape == shape
        # Parseval's law, and where each frequency lies.
        np.testing.assert_allclose(power.mean(), image.var(), rtol=1e-4)
        wave = np.cos(2 * np.pi * np.arange(shape[1]) * (shape[1] // 3) / shape[1])
        top = spt.power_spectrum(np.tile(wave, (shape[0], 1)), taper=False).argmax()
        row, col = np.unravel_index(top, shape)
        assert row == shape[0] // 2
        assert abs(col - shape[1] // 2) == shape[1] // 3
        assert np.isfinite(spt.ring_average(power).mean).all()
        assert np.isfinite(spt.whiten(image)).all()


def test_rings_tell_signal_from_noise_at_any_size(fine):
    rng = np.random.default_rng(5)
    for shape in shapes(11, smallest=24):
        first, second = (view(fine, shape, noise=0.5, rng=rng) for _ in range(2))
        rings = spt.fourier_ring_correlation(first, second)
        assert np.isfinite(rings.correlation).all()
        assert rings.correlation[rings.frequency < 0.1].mean() > 0.7
        same = spt.fourier_ring_correlation(first, first)
        np.testing.assert_allclose(same.correlation[1:], 1, atol=1e-5)
        half = half_pixels(shape, rng)
        pair = (
            view(fine, shape, noise=0.05, rng=rng),
            view(fine, shape, half, 0.05, rng),
        )
        rings = spt.ring_coherence(*pair, shift=half / 2)
        assert np.isfinite(rings.coherence).all()
        assert rings.coherence[rings.frequency < 0.15].mean() > 0.5


def test_frames_are_moved_at_any_size(fine):
    rng = np.random.default_rng(6)
    for shape in shapes(4):
        half = half_pixels(shape, rng, 0.1)
        first, second = view(fine, shape), view(fine, shape, half)
        edge = 14 + np.abs(half) // 2
        inner = tuple(slice(e, max(n - e, e)) for e, n in zip(edge, shape, strict=True))
        # What the splines leave of detail up to 0.22 cycles a pixel.
        for order, atol in ((3, 0.12), (5, 0.04)):
            moved = spt.apply_shifts(second[None], half[None] / 2, order=order)[0]
            warped = spt.warp_image(second, spt.translation(half / 2), order=order)
            for image in (moved, warped):
                assert image.shape == shape
                assert np.isfinite(image).all()
                np.testing.assert_allclose(
                    image[inner], first[inner], rtol=0, atol=atol
                )


def test_ramps_stay_ramps_at_any_size():
    for shape in shapes(7):
        ramp = np.add.outer(2.0 * np.arange(shape[0]), np.arange(shape[1]))
        made = spt.resample(ramp, (1.0, 1.0), (1.7, 0.8))
        grid = np.moveaxis(np.indices(made.image.shape), 0, -1).reshape(-1, 2)
        points = spt.apply_transform(np.linalg.inv(made.matrix), grid)
        expected = (points @ (2, 1)).reshape(made.image.shape)
        assert np.isfinite(made.image).all()
        inner = (slice(12, -12), slice(12, -12))
        np.testing.assert_allclose(made.image[inner], expected[inner], rtol=1e-3)


def test_flat_fields_are_taken_off_at_any_size():
    rng = np.random.default_rng(8)
    for shape in shapes(60, smallest=32):
        rows, cols = (np.linspace(-1, 1, n) for n in shape)
        light = 1 - 0.3 * np.add.outer(rows**2, cols**2)
        tiles = 100 * light * (1 + 0.1 * rng.standard_normal((12, *shape)))
        shading = spt.estimate_shading(tiles)
        even = spt.apply_shading(tiles, shading).mean(axis=0)
        assert np.isfinite(even).all()
        # Twelve tiles leave 3 % of noise in each pixel of the mean.
        middle = even[shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4]
        assert abs(even.mean() / middle.mean() - 1) < 0.03


def test_series_are_aligned_at_any_size(fine):
    rng, faults = np.random.default_rng(9), []
    for shape in shapes(53, smallest=32):
        half = np.array([half_pixels(shape, rng, 0.06) for _ in range(5)])
        found = spt.align_series([view(fine, shape, each, 0.2, rng) for each in half])
        truth = (half - half.mean(axis=0)) / 2
        error = found.shifts - found.shifts.mean(axis=0) - truth
        sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
        if not (np.abs(error) < 5.5 * sigma + 0.02).all():
            faults.append((shape, np.abs(error).max(), sigma.max()))
    assert faults == []


def test_stacks_are_aligned_at_any_size(fine):
    rng, faults = np.random.default_rng(10), []
    for shape in shapes(157, smallest=96):
        half = np.array([half_pixels(shape, rng, 0.06) for _ in range(3)])
        found = spt.align_stack([view(fine, shape, each, 0.1, rng) for each in half])
        back = np.linalg.inv(found.matrices[0]) @ found.matrices
        middle = (np.array(shape) - 1) / 2
        moved = np.array([spt.apply_transform(each, middle) for each in back]) - middle
        error = np.abs(moved - (half - half[0]) / 2).max()
        if not error < 0.5:
            faults.append((shape, error))
    assert faults == []


def test_control_points_are_found_at_any_size(fine):
    rng, faults = np.random.default_rng(11), []
    for shape in shapes(157, smallest=128):
        half = half_pixels(shape, rng, 0.05)
        pair = view(fine, shape, noise=0.1, rng=rng), view(fine, shape, half, 0.1, rng)
        for found in (spt.find_control_points(*pair), spt.match_grid(*pair, size=64)):
            good = found.outcome == "matched"
            shift = found.reference_points[good] - found.moving_points[good]
            if good.sum() < 3 or not np.abs(shift - half / 2).max() < 0.5:
                faults.append((shape, int(good.sum()), shift - half / 2))
    assert faults == []

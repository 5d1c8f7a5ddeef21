"""Images without fine detail or without noise: where edges tell more than the scene."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._matching.shift_fit import fit_shift
from spectral_tools._spectral.phase_fit_kernels import halves_apart
from spectral_tools._spectral.tapers import rim_shares, rim_slopes, trust_rings
from tests.sweeps import sweep

MARGIN = 64


def smooth_pair(rng, shape, sigma, shift, noise):
    """Two crops of white noise that a Gaussian has smoothed, moved by its phases."""
    wide = [size + 2 * min(MARGIN, size) for size in shape]
    freqs = [*map(np.fft.fftfreq, wide[:-1]), np.fft.rfftfreq(wide[-1])]
    waves = np.meshgrid(*freqs, indexing="ij", sparse=True)
    modes = np.fft.rfftn(rng.normal(size=wide))
    modes *= np.exp(-2 * (np.pi * sigma) ** 2 * sum(wave**2 for wave in waves))
    turns = sum(wave * moved for wave, moved in zip(waves, shift, strict=True))
    ramp = np.exp(2j * np.pi * turns)
    inside = tuple(slice(min(MARGIN, size), -min(MARGIN, size)) for size in shape)
    axes = range(len(wide))
    pair = [np.fft.irfftn(one, wide, axes)[inside] for one in (modes, modes * ramp)]
    scale = pair[0].std()
    return [image / scale + noise * rng.normal(size=shape) for image in pair]


def deviations(covariance):
    return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("noise", [0, 1e-3, 1e-2])
@pytest.mark.parametrize("sigma", [3, 5, 8])
def test_smooth_scenes_are_not_pulled_to_where_they_were_put(sigma, noise, size):
    rng = np.random.default_rng([sigma, size])
    matched = 0
    for reach in (0.5, 5, 20):
        shift = rng.uniform(-reach, reach, 2)
        pair = smooth_pair(rng, (size, size), sigma, shift, noise)
        found = spt.phase_correlate(*pair)
        if found.outcome == "matched":
            matched += 1
            # A fiftieth of a pixel, or what is said of the error.
            limit = np.maximum(0.02, 3 * deviations(found.covariance))
            assert (np.abs(found.shift - shift) < limit).all()
            # And what is said is not much: all detail is wider than 3 px.
            assert limit.max() < 0.1
    assert matched >= 2


def test_a_strip_of_a_smooth_scene_is_found():
    rng = np.random.default_rng(3)
    for shift in rng.uniform(-6, 6, (4, 2)):
        pair = smooth_pair(rng, (400, 52), 3, shift, 1e-3)
        found = spt.phase_correlate(*pair)
        assert found.outcome == "matched"
        limit = np.maximum(0.02, 3 * deviations(found.covariance))
        assert (np.abs(found.shift - shift) < limit).all()


@pytest.mark.parametrize("sigma", [2, 4])
def test_a_smooth_volume_is_found(sigma):
    rng = np.random.default_rng(4)
    shift = np.array((1.3, -2.4, 3.6))
    found = spt.phase_correlate(*smooth_pair(rng, (32, 64, 64), sigma, shift, 0))
    assert found.outcome == "matched"
    limit = np.maximum(0.02, 3 * deviations(found.covariance))
    assert (np.abs(found.shift - shift) < limit).all()
    assert limit.max() < 0.1


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 5e-2])
@pytest.mark.parametrize("along", [0, 1])
def test_smooth_scenes_are_matched(along, noise):
    """Five to twenty hills in a narrow overlap, which have no detail to be whitened."""
    rng = np.random.default_rng([along, round(1000 * noise)])
    matched = 0
    for _ in range(6):
        moved = np.zeros(2)
        moved[along] = rng.integers(205, 215)
        moved[1 - along] = rng.integers(-9, 10)
        scene = ndimage.gaussian_filter(rng.normal(size=(560, 560)), 13)
        scene /= scene.std()
        at = 40 + moved.astype(int)
        pair = scene[40:296, 40:296], scene[at[0] : at[0] + 256, at[1] : at[1] + 256]
        pair = [view + noise * rng.normal(size=view.shape) for view in pair]
        guess = 210 * (np.arange(2) == along)
        found = spt.phase_correlate(*pair, guess=guess, max_shift=40)
        if found.outcome == "matched":
            matched += 1
            limit = np.maximum(0.05, 4 * deviations(found.covariance))
            assert (np.abs(found.shift - moved) < limit).all()
    assert matched >= 5


LIGHTS = {
    "bowl": lambda row, col: -(row**2) - col**2,
    "slope": lambda row, col: 0.7 * row - 1.1 * col,
    "lamp": lambda row, col: -np.hypot(row - 0.6, col + 0.4),
    "stripes": lambda row, col: np.sin(9 * row) + 0 * col,
}


@pytest.mark.parametrize("kind", LIGHTS)
@pytest.mark.parametrize("depth", sweep([1, 4, 12], 0, 2))
@pytest.mark.parametrize("sigma", [0.7, 3, 12])
def test_light_that_images_share_is_no_match(sigma, depth, kind):
    rng = np.random.default_rng([round(10 * sigma), depth, len(kind)])
    row, col = np.ogrid[-0.5:0.5:180j, -0.5:0.5:180j]
    light = LIGHTS[kind](row, col)
    light *= depth / light.std()
    for _ in range(3):  # of 36 kinds: a share of 3 % would show in 96 of 100 runs
        pair = [
            ndimage.gaussian_filter(rng.normal(size=(180, 180)), sigma) for _ in "ab"
        ]
        pair = [view / view.std() + light for view in pair]
        pair = [view + 0.02 * rng.normal(size=view.shape) for view in pair]
        assert spt.phase_correlate(*pair).outcome != "matched"


@pytest.mark.parametrize("size", [64, 128])
def test_windows_of_a_smooth_scene_are_found(size):
    rng = np.random.default_rng(6)
    shift = np.array((0.37, -2.41))
    pair = smooth_pair(rng, (320, 320), 5, shift, 0)
    found = spt.match_grid(*pair, size=size)
    error = np.abs(found.reference_points - found.moving_points - shift)
    assert (found.outcome == "matched").mean() > 0.95
    usable = np.isfinite(found.covariance).all(axis=(-1, -2))
    limit = np.maximum(0.02, 3 * deviations(found.covariance[usable]))
    assert (error[usable] < limit).all()


@pytest.mark.parametrize("size", [64, 128])
def test_windows_without_noise_state_what_bending_leaves(size):
    rng = np.random.default_rng(7)
    shift = np.array((0.37, -2.41))
    # Detail up to the highest frequency, which no spline samples without error.
    found = spt.match_grid(*smooth_pair(rng, (320, 320), 0.8, shift, 0), size=size)
    error = found.reference_points - found.moving_points - shift
    # All windows see the same error of a thousandth of a pixel: a factor of 2.5 at
    # most, where the noise alone would make it 4 to 6.
    assert np.sqrt(np.mean((error / deviations(found.covariance)) ** 2)) < 2.5


@pytest.mark.parametrize("sigma", [1, 4])
def test_a_fit_that_was_cut_short_says_so(sigma):
    rng = np.random.default_rng(8)
    shift = np.array((0.31, -0.23))
    pair = smooth_pair(rng, (128, 128), sigma, shift, 0)
    volumes = [image[None].astype(np.float32) for image in pair]
    fit = fit_shift(*volumes, np.zeros(3), rounds=1)
    error = np.abs(fit.shift[1:] - shift)
    # One round leaves about a tenth: it was not followed up, and may be twice that.
    assert (error < 3 * deviations(fit.covariance)[1:]).all()
    assert error.max() > 1e-4


@pytest.mark.parametrize("sigma", [2.0, 4.0])
@pytest.mark.parametrize("shift", [(0, 0), (3.4, -2.7), (20.3, 11.5)])
def test_a_bead_alone_is_matched(shift, sigma):
    rows, cols = np.indices((128, 128))

    def bead(row, col):
        return np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * sigma**2))

    found = spt.phase_correlate(
        bead(55.2, 60.7), bead(55.2 - shift[0], 60.7 - shift[1])
    )
    assert found.outcome == "matched"
    # The tail of a Gaussian is left on the borders: 1e-3 px.
    assert_allclose(found.shift, shift, rtol=0, atol=1e-3)


@pytest.mark.parametrize("other", [(), (30, 90)])
def test_a_bead_among_others_is_one_place_only(other):
    rows, cols = np.indices((128, 128))

    def beads(*centres):
        return sum(
            light * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 8)
            for light, (row, col) in zip((1, 0.7), centres, strict=False)
        )

    moving = beads((52, 63), other) if other else beads((52, 63))
    found = spt.phase_correlate(beads((55, 60), (90, 30)), moving)
    assert found.outcome != "matched"


def test_the_slope_of_a_window_is_spread_over_all_rings():
    size, width = 960, 6.0
    depth = np.clip((np.arange(size) - 400.5) / width, 0, 1)
    slope = np.diff(np.sin(0.5 * np.pi * depth) ** 2, append=1.0)
    tops = (np.arange(10) + 1) / 20
    told = rim_slopes(tops**2, np.array([0, 0, 1.0]), np.full(3, width))[:, 2]
    power = np.abs(np.fft.fft(slope)) ** 2
    ring = np.searchsorted(tops, np.abs(np.fft.fftfreq(size)) - 1e-9)
    true = np.bincount(ring, power / power.sum(), 10)
    assert_allclose(told.sum(), 1, rtol=0, atol=0.1)
    # Where nearly all of it lies it is right to a third; beyond, rather too much.
    assert true[:4].sum() > 0.95
    assert_allclose(told[:4], true[:4], rtol=0.35)
    assert (told[4:] > true[4:]).all()


def test_rings_of_the_window_alone_are_not_trusted():
    rings = 20
    middle = (np.arange(rings) + 0.5) / 40
    active = np.array([False, True, True])
    rims = rim_slopes(
        ((np.arange(rings) + 1) / 40) ** 2,
        np.array([0, 0.0034, 0.0034]),
        np.full(3, 6.0),
    )
    trust = []
    for power in (np.exp(-((2 * np.pi * 5 * middle) ** 2)) + 1e-9, middle**-2.0):
        table = np.ones((rings, 19))
        table[:, 0] = power * 2 * np.pi * middle * 100
        table[:, 1] = table[:, 2] = table[:, 0]
        table[:, 10] = table[:, 12] = table[:, 1] * (2 * np.pi * middle) ** 2 / 2
        shares = rim_shares(table, table[:, 1].copy(), np.ones(rings), rims)
        trust.append(trust_rings(shares, active))
    # A smooth scene ends at a tenth of a cycle per pixel; one with fine detail does not.
    assert (trust[0][1:3] > 0.5).all()
    assert (trust[0][6:] == 0).all()
    assert (trust[1][1:] > 0.9).all()


def test_coarse_and_fine_detail_differ_by_chance_or_not():
    rng = np.random.default_rng(9)
    active = np.array([False, True, True])
    variance, weight = np.full(30, 1e-4), np.ones(30)
    told, apart = np.zeros((3, 30)), np.full(3, np.nan)
    told[1:] = 0.01 * rng.normal(size=(30, 2)).T
    halves_apart(told, variance, weight, active, apart)
    assert not apart.any()
    told[2, 15:] += 0.2
    # Half of 0.2 px, of which three standard errors of 0.0037 px are chance.
    halves_apart(told, variance, weight, active, apart)
    assert_allclose(apart, (0, 0, 0.1), rtol=0, atol=0.01)

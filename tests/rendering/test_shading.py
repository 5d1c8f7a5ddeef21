import functools
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SHAPE = (192, 256)


def vignetting(loss, centre=(0.0, 0.0), shape=SHAPE):
    """Light that is lost towards the corners, with mean 1."""
    row, col = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    light = 1 - loss / 2 * ((row - centre[0]) ** 2 + (col - centre[1]) ** 2)
    return light / light.mean()


@functools.cache
def textures(count, contrast=20, rng=1):
    """Pictures of different places: detail at all scales, of 100 grey values."""
    rng = np.random.default_rng(rng)
    scenes = [spt.gaussian_texture(SHAPE, rng=rng) for _ in range(count)]
    return 100 + contrast * np.array(scenes)


@functools.cache
def spots(count, rng=1):
    """Bright round things on an even background, as in fluorescence."""
    rng = np.random.default_rng(rng)
    row, col = np.indices(SHAPE)
    scenes = np.full((count, *SHAPE), 100.0)
    for number in range(count):
        for middle in rng.uniform((0, 0), SHAPE, (9, 2)):
            distance = (row - middle[0]) ** 2 + (col - middle[1]) ** 2
            scenes[number] += rng.gamma(2, 100) * np.exp(-distance / 2 / 6**2)
    return scenes + rng.normal(0, 2, scenes.shape)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


# The sample itself is uneven by chance: the scatter of 50 means of a texture is what
# limits the first, and noise of 2 % in single pixels the second.
@pytest.mark.parametrize(("make", "limit"), [(textures, 0.01), (spots, 0.002)])
@pytest.mark.parametrize("centre", [(0, 0), (0.2, -0.3)])
def test_flat_field_of_fifty_tiles_is_right_to_a_percent(make, limit, centre):
    flat = vignetting(0.3, centre)
    found = spt.estimate_shading(flat * make(50))
    assert rms(found.flat - flat) < limit


@pytest.mark.parametrize("make", [textures, spots])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("rng", [1, 2])
def test_few_tiles_are_never_worse_than_no_correction(make, count, rng):
    flat = vignetting(0.3)
    found = spt.estimate_shading(flat * make(count, rng=rng))
    assert rms(found.flat - flat) <= rms(1 - flat)


def test_even_light_stays_even():
    # Half a percent: the uncertainty of the mean of 50 textures of 20 %.
    assert rms(spt.estimate_shading(textures(50)).flat - 1) < 0.005


def test_mean_of_the_flat_field_is_one():
    found = spt.estimate_shading(vignetting(0.5) * textures(9))
    assert_allclose(found.flat.mean(), 1, rtol=1e-12)


def test_brightness_of_tiles_does_not_matter(rng):
    flat, scenes = vignetting(0.3), textures(50)
    gain = np.exp(rng.normal(0, 0.5, (50, 1, 1)))
    found = spt.estimate_shading(gain * flat * scenes)
    assert rms(found.flat - flat) < 0.01


def test_some_false_tiles_do_not_count():
    """Covers of half the field, blank and saturated tiles among good ones."""
    flat = vignetting(0.3)
    tiles = flat * spots(50)
    tiles[:8, :, :128] *= 0.2
    tiles[8], tiles[9] = 0, 65535
    assert rms(spt.estimate_shading(tiles).flat - flat) < 0.005


def test_missing_pixels_do_not_count():
    flat = vignetting(0.3)
    tiles = flat * spots(30)
    known = spt.estimate_shading(tiles).flat
    tiles[::2, 20:30] = np.nan
    tiles[5] = np.inf
    # A flat field from half the pixels differs by their noise only.
    assert rms(spt.estimate_shading(tiles).flat - known) < 0.001


def test_scaling_tiles_changes_nothing():
    tiles = vignetting(0.3) * textures(9)
    known = spt.estimate_shading(tiles)
    scaled = spt.estimate_shading(1000 * tiles, dark=0)
    assert_allclose(scaled.flat, known.flat, rtol=1e-8)


def test_known_dark_field_is_taken_off():
    flat = vignetting(0.3)
    dark = 30 + np.linspace(0, 10, SHAPE[1]) * np.ones(SHAPE)
    found = spt.estimate_shading(flat * spots(50) + dark, dark=dark)
    assert rms(found.flat - flat) < 0.002
    assert_array_equal(found.dark, dark)


def test_dark_field_is_found_if_tiles_differ_in_brightness(rng):
    flat = vignetting(0.3)
    gain = np.exp(rng.normal(0, 0.6, (50, 1, 1)))
    tiles = gain * flat * spots(50) + 20
    # Without the dark field the flat field is wrong by a percent and more.
    assert rms(spt.estimate_shading(tiles).flat - flat) > 0.01
    found = spt.estimate_shading(tiles, dark="estimate")
    assert rms(found.flat - flat) < 0.003
    # One grey value: what else is constant cannot be told from the sample.
    assert rms(found.dark - 20) < 1


def test_dark_field_stays_zero_if_brightness_tells_nothing():
    tiles = vignetting(0.3) * textures(50)
    # A hundredth of the brightness.
    assert rms(spt.estimate_shading(tiles, dark="estimate").dark) < 1


def test_evened_tiles_show_the_scene():
    flat, dark = vignetting(0.4), np.full(SHAPE, 7.0)
    scene = textures(2)
    shading = spt.Shading(flat=flat, dark=dark)
    assert_allclose(spt.apply_shading(scene * flat + dark, shading), scene, rtol=1e-12)
    assert_allclose(
        spt.apply_shading(scene[1] * flat + dark, shading), scene[1], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (np.uint8, np.float32),
        (np.uint16, np.float32),
        (np.int32, np.float64),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_every_real_dtype_is_evened_in_floating_point(dtype, computed):
    tiles = np.minimum(vignetting(0.3) * spots(9), 255).astype(dtype)
    shading = spt.estimate_shading(tiles)
    assert shading.flat.dtype == np.float64
    assert spt.apply_shading(tiles, shading).dtype == computed


def test_threads_agree_to_the_last_bit():
    tiles = vignetting(0.3) * textures(9)
    with ThreadPoolExecutor(2) as pool:
        for workers in (2, pool.map):
            found = spt.estimate_shading(tiles, workers=workers)
            assert_array_equal(found.flat, spt.estimate_shading(tiles).flat)


def test_tiles_in_a_file_are_read_one_by_one(tmp_path):
    tiles = (vignetting(0.3) * textures(9)).astype(np.float32)
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        stored = file.create_dataset("tiles", data=tiles)
        found = spt.estimate_shading(stored)
    assert_array_equal(found.flat, spt.estimate_shading(list(tiles)).flat)


def test_large_tiles_are_expanded_like_small_ones():
    """Sides that are no multiple of a cell make no steps."""
    flat = vignetting(0.3, shape=(251, 301))
    tiles = flat * (100 + np.arange(5).reshape(-1, 1, 1))
    # The modes hold a parabola exactly.
    assert_allclose(spt.estimate_shading(tiles).flat, flat, rtol=1e-6)


def test_cells_of_unequal_size_give_even_light_no_slope():
    flat = vignetting(0.4, shape=(100, 100))
    scenes = [spt.gaussian_texture((100, 100), rng=rng) for rng in range(16)]
    # With its mirror images the sample has no slope, so that none may be found.
    scenes = [scene[::a, ::b] for scene in scenes for a in (1, -1) for b in (1, -1)]
    found = spt.estimate_shading(flat * (100 + 5 * np.array(scenes))).flat
    assert_allclose(found.mean(axis=0), found.mean(axis=0)[::-1], rtol=1e-3)
    assert_allclose(found.mean(axis=1), found.mean(axis=1)[::-1], rtol=1e-3)


def test_tiny_tiles_have_a_flat_field_too():
    tiles = np.arange(1.0, 5).reshape(-1, 1, 1) * [[1, 2, 3]]
    assert_allclose(spt.estimate_shading(tiles).flat, [[0.5, 1, 1.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("tiles", "options", "error", "match"),
    [
        ([], {}, ValueError, "`tiles` must hold at least one tile; got none"),
        ([np.ones(3)], {}, ValueError, r"2-D images .* got shape \(3,\) as tile 0"),
        ([np.ones((3, 0))], {}, ValueError, r"one pixel; got shape \(3, 0\)"),
        (
            [np.ones((3, 3)), np.ones((3, 4))],
            {},
            ValueError,
            r"one shape; got \(3, 3\) as tile 0 and \(3, 4\) as tile 1",
        ),
        ([np.ones((3, 3), complex)], {}, TypeError, r"`tiles\[0\]` must hold real"),
        ([np.ones((3, 3))], {"dark": "find"}, ValueError, "`dark` must be .*'find'"),
        ([np.ones((3, 3))], {"dark": [1, 2]}, ValueError, r"`dark` must .*\(2,\)"),
        ([np.ones((3, 3))], {"dark": np.nan}, ValueError, "`dark` must be finite"),
        ([np.ones((3, 3))], {"workers": 0}, ValueError, "`workers` must be at least"),
    ],
)
def test_what_cannot_be_estimated_is_named(tiles, options, error, match):
    with pytest.raises(error, match=match):
        spt.estimate_shading(tiles, **options)


@pytest.mark.parametrize(
    ("tiles", "flat", "dark", "error", "match"),
    [
        (np.ones((3, 4)), np.ones((3, 3)), 0, ValueError, "`tiles` must have the shape"),
        (np.ones((3, 3)), np.zeros((3, 3)), 0, ValueError, "`shading.flat` must be gre"),
        (np.ones((3, 3)), np.ones((3, 3)), np.ones(3), ValueError, "`shading.dark` must"),
        (np.ones((3, 3), complex), np.ones((3, 3)), 0, TypeError, "`tiles` must hold"),
    ],
)  # fmt: skip
def test_shading_that_does_not_fit_is_named(tiles, flat, dark, error, match):
    with pytest.raises(error, match=match):
        spt.apply_shading(tiles, spt.Shading(flat=flat, dark=dark))

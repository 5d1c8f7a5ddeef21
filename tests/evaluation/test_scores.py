"""Scores of images that lie on each other, of mosaics, and of images alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, stats

import spectral_tools as spt


@pytest.fixture
def pair(rng):
    scene = spt.gaussian_texture((96, 80), cutoff=0.2, rng=rng)
    return scene, scene + 0.5 * rng.normal(size=scene.shape)


# Correlation


def test_correlation_is_that_of_pearson_over_the_valid_pixels(pair, rng):
    first, second = pair
    valid = rng.random(first.shape) < 0.7
    found = spt.normalized_cross_correlation(first, second, valid=valid)
    truth = stats.pearsonr(first[valid], second[valid]).statistic
    # 1e-6: the texture is single precision, and sums are double.
    assert found == pytest.approx(truth, abs=1e-6)


@given(gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_gain_and_offset_do_not_change_a_correlation(gain, offset):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20, 20))
    plain = spt.normalized_cross_correlation(first, second)
    moved = spt.normalized_cross_correlation(first, gain * second + offset)
    # 1e-9: an offset of 1e4 contrasts leaves this much of double precision.
    assert moved == pytest.approx(plain, abs=1e-9)


def test_swapping_images_changes_no_score(pair):
    for score in (spt.normalized_cross_correlation, spt.mutual_information):
        assert score(*pair) == pytest.approx(score(*pair[::-1]), abs=1e-12)


def test_pixels_that_are_not_valid_have_no_say(pair, rng):
    first, second = (image.copy() for image in pair)
    valid = rng.random(first.shape) < 0.8
    for score in (spt.normalized_cross_correlation, spt.mutual_information):
        plain = score(*pair, valid=valid)
        spoilt = np.where(valid, second, np.nan)
        assert score(first, spoilt) == plain
        assert score(first, np.where(valid, second, 1e9), valid=valid) == plain


@pytest.mark.parametrize("image", [np.ones((9, 9)), np.full((9, 9), np.nan)])
def test_images_without_content_score_nothing(image, rng):
    other = rng.normal(size=(9, 9))
    assert spt.normalized_cross_correlation(image, other) == 0
    assert spt.mutual_information(image, other) == 0
    assert spt.mutual_information(image, other, normalized=True) == 1


# Mutual information


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_images_that_are_mostly_black_tell_of_each_other(share, rng):
    image = np.where(rng.uniform(size=(200, 200)) < share, 0, rng.uniform(1, 2))
    image = image * rng.integers(1, 1000, image.shape)
    found = spt.mutual_information(image, -np.sqrt(image), bins=8)
    # Black has an interval of its own, and the seven others share the rest evenly; that
    # less than a hundredth of the pixels cannot be divided evenly costs 2 %.
    black = np.mean(image == 0)
    parts = np.array([black, *[(1 - black) / 7] * 7])
    assert found == pytest.approx(-(parts * np.log2(parts)).sum(), abs=0.02)


def test_few_values_are_kept_apart(rng):
    labels = rng.choice([0, 3, 4, 9], p=[0.94, 0.02, 0.02, 0.02], size=(100, 100))
    share = np.bincount(labels.ravel())[[0, 3, 4, 9]] / labels.size
    found = spt.mutual_information(labels, 10 - labels, normalized=True)
    assert found == pytest.approx(2, abs=1e-9)
    plain = spt.mutual_information(labels, labels)
    # Less what chance would give: nine degrees of freedom.
    chance = 9 / (2 * np.log(2) * labels.size)
    assert plain + chance == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)


def test_a_large_mean_does_not_hide_a_correlation(rng):
    first = rng.normal(size=(64, 64))
    second = first + rng.normal(size=(64, 64))
    plain = spt.normalized_cross_correlation(first, second)
    for mean in (1e6, 1e9):
        found = spt.normalized_cross_correlation(first + mean, second - 3 * mean)
        # The numbers themselves are rounded to 1e-16 of the mean.
        assert found == pytest.approx(plain, abs=1e-15 * mean)


def test_a_permutation_of_equal_bins_tells_all_its_bits(rng):
    image = rng.permutation(4096).reshape(64, 64)
    other = (image * 5 % 8 - image) % 8 + 8 * (image // 512)
    plain = spt.mutual_information(image, image, bins=8)
    # Three bits less the chance of 49 free counts among 4096 pixels.
    assert plain == pytest.approx(3 - 49 / (2 * np.log(2) * 4096), abs=1e-9)
    assert spt.mutual_information(image, other, bins=8) == pytest.approx(plain)


def test_normalized_information_is_two_of_an_image_with_itself(pair):
    same = spt.mutual_information(pair[0], pair[0], normalized=True)
    assert same == pytest.approx(2, abs=1e-12)


def test_unrelated_images_tell_nothing_of_each_other(rng):
    found = [spt.mutual_information(*rng.normal(size=(2, 256, 256))) for _ in range(10)]
    # Chance alone gives 961 / (2 log(2) 65536) = 0.011 bits, which are taken off; what
    # is left scatters by sqrt(2 * 961) / (2 log(2) 65536) = 0.0005.
    assert np.mean(found) < 0.001


def test_information_finds_contrast_that_is_folded_over(rng):
    first = rng.normal(size=(128, 128))
    folded = np.abs(first + 0.5 * rng.normal(size=first.shape))
    assert spt.mutual_information(first, folded) > 0.3
    assert spt.mutual_information(first, np.roll(folded, 30, axis=0)) < 0.03
    # Six standard errors of a correlation of 16384 pixels.
    assert abs(spt.normalized_cross_correlation(first, folded)) < 0.05


# Fourier ring correlation


def test_ring_correlation_of_an_image_with_itself_is_perfect(pair):
    found = spt.fourier_ring_correlation(pair[0], pair[0])
    assert_allclose(found.correlation, 1, atol=1e-5)
    assert found.resolution == found.half_bit_resolution == 2


def test_ring_correlation_of_noise_ends_at_once(rng):
    found = spt.fourier_ring_correlation(*rng.normal(size=(2, 128, 128)))
    # The first rings hold few modes.
    assert found.resolution > 20
    assert np.abs(found.correlation[20:]).max() < 0.5


def test_ring_correlation_ends_where_the_detail_of_a_scene_does(rng):
    scene = spt.gaussian_texture((256, 256), cutoff=0.2, slope=0, rng=rng)
    images = scene + 0.1 * scene.std() * rng.normal(size=(2, 256, 256))
    found = spt.fourier_ring_correlation(*images)
    # The spectrum ends at 0.2 cycles per pixel, over a ring or two.
    assert found.resolution == pytest.approx(5, rel=0.1)
    assert found.half_bit_resolution == pytest.approx(5, rel=0.1)


# Texture


def test_texture_score_foretells_the_error_of_a_shift(rng):
    scene = spt.gaussian_texture((400, 400), cutoff=0.2, rng=rng)
    error, told = [], []
    for _ in range(30):
        two = spt.simulate_pair(scene, (96, 96), 0, noise_sigma=0.3, rng=rng)
        found = spt.phase_correlate(two.reference, two.moving)
        error.append(found.shift - two.shift)
        told.append(spt.texture_score(two.reference))
    rms = np.sqrt(np.mean(np.square(error)))
    # The mean of 60 squares scatters by 9 percent of its root; noise is measured at
    # high frequencies where some of the scene is left.
    assert 0.6 < np.mean(told) / rms < 1.6


def test_texture_along_one_axis_only_is_none(rng):
    stripes = np.repeat(rng.normal(size=(64, 1)), 64, axis=1)
    stripes = stripes + 0.1 * rng.normal(size=(64, 64))
    square = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 1.5)
    assert spt.texture_score(stripes) > 100 * spt.texture_score(square)


@pytest.mark.parametrize("image", [np.zeros((32, 32)), np.full((32, 32), 7.0)])
def test_a_constant_image_has_no_texture(image):
    assert spt.texture_score(image) == np.inf


# Overlaps of a mosaic


def placed_tiles(rng):
    scene = spt.gaussian_texture((120, 200), cutoff=0.2, rng=rng)
    places = np.array([(0, 0), (4, 70), (30, 100)])
    tiles = [scene[r : r + 80, c : c + 90].copy() for r, c in places]
    links = [(0, 1), (1, 2), (0, 1)]
    reference = [np.subtract(places[j], places[i]) for i, j in links]
    placed = spt.solve_rigid(links, reference, np.zeros((3, 2)))
    return tiles, placed


def test_tiles_in_their_place_agree_in_all_pixels_they_share(rng):
    tiles, placed = placed_tiles(rng)
    tiles[1] = 2 * tiles[1]
    found = spt.overlap_scores(tiles, placed)
    assert_array_equal(found.links, [(0, 1), (1, 2)])
    assert_array_equal(found.pixels, [76 * 20, 54 * 60])
    # 1e-5: tiles are single precision.
    assert_allclose(found.correlation, 1, atol=1e-5)


def test_overlaps_tell_which_tile_is_brighter(rng):
    tiles, placed = placed_tiles(rng)
    tiles[2] = tiles[2] + 5
    assert_allclose(spt.overlap_scores(tiles, placed).difference, [0, 5], atol=1e-4)


def test_what_is_not_valid_is_not_compared(rng):
    tiles, placed = placed_tiles(rng)
    valid = [np.ones((80, 90), bool) for _ in tiles]
    valid[0][:10] = False
    tiles[0][:10] = 1e3
    found = spt.overlap_scores(tiles, placed, valid=valid)
    # Rows 4 to 9 of the first tile lie under the second one.
    assert_array_equal(found.pixels, [70 * 20, 54 * 60])
    assert_allclose(found.correlation, 1, atol=1e-5)


def test_tiles_that_miss_each_other_score_nothing(rng):
    tiles, _ = placed_tiles(rng)
    placed = spt.solve_rigid([(0, 1)], [(0, 500)], [(0, 0)])
    found = spt.overlap_scores(tiles[:2], placed)
    assert found.pixels[0] == found.correlation[0] == found.difference[0] == 0


# Bad input


@pytest.mark.parametrize(
    "score", [spt.normalized_cross_correlation, spt.mutual_information]
)
def test_images_of_different_shape_are_refused(score):
    with pytest.raises(ValueError, match="must have the same shape; got"):
        score(np.ones((9, 9)), np.ones((9, 8)))


def test_bins_must_be_few_enough_for_a_table():
    with pytest.raises(ValueError, match="`bins` must be at most 4096; got 100000"):
        spt.mutual_information(np.ones((9, 9)), np.ones((9, 9)), bins=100_000)


def test_bins_must_be_a_count():
    with pytest.raises(ValueError, match=r"`bins` must be .*; got 0"):
        spt.mutual_information(np.ones((9, 9)), np.ones((9, 9)), bins=0)


def test_noise_must_not_be_negative():
    with pytest.raises(ValueError, match=r"`noise` must .*; got -1"):
        spt.texture_score(np.ones((9, 9)), noise=-1)


def test_as_many_images_as_places_are_compared(rng):
    tiles, placed = placed_tiles(rng)
    with pytest.raises(ValueError, match=r"`tiles` must hold one .* 3 tiles; got 2"):
        spt.overlap_scores(tiles[:2], placed)
    with pytest.raises(ValueError, match=r"`valid` must hold one .* 3 tiles; got 1"):
        spt.overlap_scores(tiles, placed, valid=[np.ones((80, 90), bool)])

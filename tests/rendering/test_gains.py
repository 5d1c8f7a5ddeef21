from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt


@pytest.fixture(scope="module")
def scene():
    return 100 + 20 * spt.gaussian_texture((520, 620), rng=1)


@pytest.fixture(scope="module")
def made(scene):
    """Twenty tiles whose gains differ by 30 %."""
    return spt.simulate_tiles(
        scene, (4, 5), (128, 128), overlap=0.15, stage_sigma=2,
        gain_sigma=0.3, noise_sigma=4, rng=1,
    )  # fmt: skip


def unevenness(found, true_gain):
    """What is left of the gains, about its mean."""
    product = found.gain * true_gain
    return product / product.mean() - 1


def test_gains_that_differ_by_thirty_percent_are_found_to_one(made):
    found = spt.solve_gains(made.tiles, made.matrices)
    assert np.ptp(made.gain) > 0.3
    # Overlaps have 2,400 pixels with noise of 4 %, at half a pixel's accuracy.
    assert np.abs(unevenness(found, made.gain)).max() < 0.01


def test_steps_at_seams_vanish(made):
    found = spt.solve_gains(made.tiles, made.matrices)
    assert found.counted.all()
    # One percent of the mean brightness, 100.
    assert np.abs(found.residuals).max() < 1


@pytest.mark.parametrize("offset", [False, True])
def test_mean_brightness_stays(made, offset):
    found = spt.solve_gains(made.tiles, made.matrices, offset=offset)
    means = made.tiles.mean(axis=(1, 2))
    even = found.gain * means + found.offset
    assert_allclose(even.mean(), means.mean(), rtol=1e-12)


def test_offsets_are_found_beside_gains(made, rng):
    added = rng.normal(0, 10, 20)
    tiles = made.tiles + added[:, None, None]
    found = spt.solve_gains(tiles, made.matrices, offset=True)
    # Contrast tells less than brightness does: two percent, and their effect on
    # the offsets, of a brightness of 100. Seams vanish all the same.
    assert rms(unevenness(found, made.gain)) < 0.02
    left = found.gain * added + found.offset
    assert rms(left - left.mean()) < 2
    assert np.abs(found.residuals).max() < 1


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_without_offsets_there_are_none(made):
    found = spt.solve_gains(made.tiles, made.matrices)
    assert_array_equal(found.offset, np.zeros(20))


def test_turned_tiles_are_compared_where_they_lie(scene):
    made = spt.simulate_tiles(
        scene, (3, 3), (128, 128), overlap=0.2, rotation_sigma=0.05,
        gain_sigma=0.3, rng=3,
    )  # fmt: skip
    found = spt.solve_gains(made.tiles, made.matrices)
    assert np.abs(unevenness(found, made.gain)).max() < 0.01


def test_volumes_are_evened_like_pictures(rng):
    scene = 100 + 20 * rng.random((12, 40, 70))
    made = spt.simulate_tiles(
        scene, (1, 1, 2), (12, 40, 40), overlap=0.25, gain_sigma=0.3, rng=1
    )
    found = spt.solve_gains(made.tiles, made.matrices)
    # Whole shifts and no noise: what the finest error of a link leaves of the prior.
    assert np.abs(unevenness(found, made.gain)).max() < 1e-4


def test_no_gains_leave_tiles_as_they_are(scene):
    made = spt.simulate_tiles(scene, (2, 3), (128, 128), overlap=0.15)
    found = spt.solve_gains(made.tiles, made.matrices)
    assert_allclose(found.gain, 1, rtol=1e-12)


def test_order_of_tiles_does_not_matter(made, rng):
    order = rng.permutation(20)
    found = spt.solve_gains(made.tiles, made.matrices)
    again = spt.solve_gains(made.tiles[order], made.matrices[order])
    # Sums in another order, and links turned round.
    assert_allclose(again.gain, found.gain[order], rtol=1e-6)


@pytest.mark.parametrize("offset", [False, True])
def test_scaling_all_tiles_changes_no_gain(made, offset):
    found = spt.solve_gains(made.tiles, made.matrices, offset=offset)
    again = spt.solve_gains(1000 * made.tiles, made.matrices, offset=offset)
    assert_allclose(again.gain, found.gain, rtol=1e-8)
    assert_allclose(again.offset, 1000 * found.offset, rtol=1e-6, atol=1e-6)


def test_groups_that_are_not_linked_keep_their_brightness(scene):
    """Two pairs far apart and one tile alone: each keeps its own mean."""
    made = spt.simulate_tiles(scene, (1, 2), (100, 100), overlap=0.3, rng=1)
    tiles = [*made.tiles * [[[1]], [[2]]], *made.tiles * [[[5]], [[9]]], scene]
    matrices = [*made.matrices, *spt.translation((900, 0)) @ made.matrices]
    matrices.append(spt.translation((0, 2000)))
    found = spt.solve_gains(tiles, matrices)
    means = np.array([tile.mean() for tile in tiles])
    even = found.gain * means
    assert_allclose(even[:2].sum(), means[:2].sum(), rtol=1e-12)
    assert_allclose(even[2:4].sum(), means[2:4].sum(), rtol=1e-12)
    assert found.gain[4] == 1
    assert_allclose(found.gain[0] / found.gain[1], 2, rtol=1e-3)
    assert_allclose(found.gain[2] / found.gain[3], 9 / 5, rtol=1e-3)


@pytest.mark.parametrize("value", [0, np.nan])
@pytest.mark.parametrize("offset", [False, True])
def test_blank_tiles_keep_gain_one_and_harm_no_others(made, value, offset):
    tiles = made.tiles.copy()
    tiles[7] = value
    found = spt.solve_gains(tiles, made.matrices, offset=offset)
    assert found.gain[7] == 1
    assert not found.counted[(found.links == 7).any(axis=1)].any()
    others = np.arange(20) != 7
    product = (found.gain * made.gain)[others]
    assert rms(product / product.mean() - 1) < (0.02 if offset else 0.005)


def test_tiles_of_noise_about_zero_keep_a_gain_of_about_one(made, rng):
    tiles = made.tiles.copy()
    tiles[[0, 7]] = rng.normal(0, 1, (2, 128, 128))
    found = spt.solve_gains(tiles, made.matrices)
    # A hundredth of the light of others would ask for a gain of 100.
    assert (np.abs(np.log(found.gain[[0, 7]])) < 1).all()


def test_what_moved_in_an_overlap_does_not_count(scene):
    made = spt.simulate_tiles(scene, (1, 2), (128, 128), overlap=0.3, rng=1)
    tiles = made.tiles.copy()
    tiles[1, 20:45, :30] *= 4
    found = spt.solve_gains(tiles, made.matrices)
    # A plain mean would be wrong by 40 %.
    assert_allclose(found.gain[1] / found.gain[0], 1, atol=0.01)


def test_a_false_link_loses_to_the_others(made):
    """A link between tiles that do not show the same, in a loop of good ones."""
    tiles = [*made.tiles, made.tiles[9] * 0.2]
    matrices = [*made.matrices, made.matrices[9] @ spt.translation((0, 100))]
    found = spt.solve_gains(tiles[:20], matrices[:20])
    links = [*found.links, (9, 20)]
    again = spt.solve_gains(tiles, matrices, links=np.array(links))
    ratio = again.gain[:20] / found.gain
    assert_allclose(ratio / ratio.mean(), 1, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_every_real_dtype_gives_the_same_gains(made, dtype):
    known = spt.solve_gains(made.tiles, made.matrices)
    found = spt.solve_gains((10 * made.tiles).astype(dtype), made.matrices)
    assert_allclose(found.gain, known.gain, rtol=1e-3)  # rounding of integers


def test_threads_agree_to_the_last_bit(made):
    known = spt.solve_gains(made.tiles, made.matrices)
    with ThreadPoolExecutor(2) as pool:
        for workers in (2, pool.map):
            found = spt.solve_gains(made.tiles, made.matrices, workers=workers)
            assert_array_equal(found.gain, known.gain)


def test_tiles_in_a_file_are_compared_too(made, tmp_path):
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        stored = file.create_dataset("tiles", data=made.tiles)
        found = spt.solve_gains(stored, made.matrices)
    known = spt.solve_gains(made.tiles, made.matrices)
    assert_array_equal(found.gain, known.gain)


@pytest.mark.parametrize("links", [[], [(0, 2)]])
def test_tiles_that_share_nothing_stay_as_they_are(links):
    matrices = [spt.translation((0, 100 * k)) for k in range(3)]
    found = spt.solve_gains(np.ones((3, 9, 9)), matrices, links=links)
    assert_array_equal(found.gain, np.ones(3))
    assert not found.counted.any()


EYE = np.eye(3)
TILE = np.ones((8, 8))


@pytest.mark.parametrize(
    ("tiles", "matrices", "options", "error", "match"),
    [
        ([], np.empty((0, 3, 3)), {}, ValueError, "`tiles` must hold at least one"),
        ([TILE], [EYE, EYE], {}, ValueError, "one matrix for each of 1 tiles; got 2"),
        ([TILE], [EYE * np.nan], {}, ValueError, "`matrices` must be finite"),
        (
            [TILE, TILE],
            [EYE, np.diag((1, 0, 1))],
            {},
            ValueError,
            "`matrices` must be invertible; got a singular one at 1",
        ),
        (
            [TILE, TILE[0]],
            [EYE, EYE],
            {},
            ValueError,
            r"`tiles` must have 2 axes.* got shape \(8,\) as tile 1",
        ),
        ([TILE, TILE * 1j], [EYE, EYE], {}, TypeError, r"`tiles\[1\]` must hold real"),
        ([TILE], [EYE], {"links": [(0, 1)]}, ValueError, "`links` must join known"),
        ([TILE], [EYE], {"workers": 0}, ValueError, "`workers` must be at least 1"),
    ],
)
def test_what_cannot_be_solved_is_named(tiles, matrices, options, error, match):
    with pytest.raises(error, match=match):
        spt.solve_gains(tiles, matrices, **options)

"""Points across instruments: simulated scenes with a known truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter

import spectral_tools as spt
from spectral_tools._point_matching.structure_match import structure_tensor

SHAPE = (260, 280)
OFFSET = np.array([11.0, -7.0])


def scenes(rng, noise=0.1, turn=0.04, zoom=1.03):
    """A scene and what another instrument makes of it, and the way between them."""
    scene = spt.gaussian_texture((320, 340), rng=rng)
    reference = scene[30:290, 30:310]
    truth = spt.rotation(turn, center=(130, 140)) @ np.diag([zoom, zoom, 1])
    truth[:2, 2] += OFFSET
    onto = spt.translation((30, 30)) @ truth
    # Bright becomes dark, by another law; the instrument sees it on its own pixels.
    seen = spt.warp_image(scene, np.linalg.inv(onto), shape=SHAPE, order=3)
    moving = np.exp(-0.7 * seen)
    images = [
        image / image.std() + noise * rng.normal(size=image.shape)
        for image in (reference, moving)
    ]
    return images[0], images[1], truth


def hand_points(rng, truth, count=9, click=3.0):
    """Points of the reference, and clicks on the moving image that miss them."""
    grid = np.stack(np.meshgrid([60, 130, 200], [70, 140, 210]), -1).reshape(-1, 2)
    points = grid[:count] + rng.uniform(-12, 12, (count, 2))
    exact = spt.apply_transform(truth, points, inverse=True)
    # An error of so many pixels rms has that over root two along each axis.
    return points, exact, exact + rng.normal(0, click / np.sqrt(2), exact.shape)


def rms(error):
    return np.sqrt((error**2).sum(axis=-1).mean())


def test_structure_does_not_depend_on_contrast():
    rng = np.random.default_rng(1)
    scene = gaussian_filter(rng.normal(size=(80, 90)), 2) * 10
    plain = structure_tensor(scene, 1.0).field
    # Smoothing comes before gradients, so that a law that bends is felt a little.
    for other in (-scene, 5 * scene + 3, np.tanh(-0.3 * scene)):
        field = structure_tensor(other, 1.0).field
        assert (plain * field).sum() > 0.97 * np.sqrt(
            (plain**2).sum() * (field**2).sum()
        )


def test_structure_turns_with_the_image():
    scene = gaussian_filter(np.random.default_rng(2).normal(size=(80, 80)), 2)
    plain, turned = structure_tensor(scene, 1.0), structure_tensor(np.rot90(scene), 1.0)
    # The double angle of a quarter turn is a half turn: both channels change sign.
    assert_allclose(
        turned.field, -np.rot90(plain.field, axes=(2, 3)), rtol=0, atol=2e-5
    )


def test_pixels_that_do_not_count_leave_no_edges():
    scene = gaussian_filter(np.random.default_rng(3).normal(size=(80, 90)), 2)
    holed = scene.copy()
    holed[20:40, 30:60] = np.nan
    structure = structure_tensor(holed, 1.0)
    assert not structure.field[:, 0, 19:41, 29:61].any()
    far = structure.weight[0] > 0
    far[12:48, 22:68] = False
    assert_allclose(
        structure.field[:, 0][:, far], structure_tensor(scene, 1.0).field[:, 0][:, far],
        rtol=0, atol=0.05,
    )  # fmt: skip


def test_refined_points_are_far_better_than_hands():
    before, after, chi2 = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        reference, moving, truth = scenes(rng)
        points, exact, clicks = hand_points(rng, truth)
        found = spt.refine_points(reference, moving, points, clicks)
        assert (found.outcome == "matched").all()
        assert_allclose(found.reference_points, points)
        error = found.moving_points - exact
        before.append(rms(clicks - exact))
        after.append(rms(error))
        here = error @ truth[:2, :2].T
        chi2.extend(
            np.einsum("na,nab,nb->n", here, np.linalg.inv(found.covariance), here)
        )
    assert np.mean(after) < 0.03 * np.mean(before)
    # Two axes each. Windows cut off what leaves them, which bars do not know.
    assert 0.5 < np.mean(chi2) / 2 < 2.0


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_error_bars_hold_in_noise(noise):
    chi2, share = [], []
    for seed in range(5):
        rng = np.random.default_rng(10 + seed)
        reference, moving, truth = scenes(rng, noise=noise)
        points, exact, clicks = hand_points(rng, truth)
        found = spt.refine_points(reference, moving, points, clicks, size=96)
        believed = found.outcome == "matched"
        share.append(believed.mean())
        error = (found.moving_points - exact)[believed] @ truth[:2, :2].T
        assert np.abs(error).max(initial=0) < 2
        bars = np.linalg.inv(found.covariance[believed])
        chi2.extend(np.einsum("na,nab,nb->n", error, bars, error))
    assert np.mean(share) > 0.6
    assert 0.4 < np.mean(chi2) / 2 < 2.0


@pytest.mark.parametrize("levels", [2, 4])
def test_error_bars_of_masks_hold(levels):
    chi2 = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        reference, moving, truth = scenes(rng, noise=0)
        images = [
            np.digitize(image, np.quantile(image, np.arange(1, levels) / levels))
            for image in (reference, moving)
        ]
        points, exact, clicks = hand_points(rng, truth)
        found = spt.refine_points(*images, points, clicks)
        believed = found.outcome == "matched"
        assert believed.mean() > 0.7
        error = (found.moving_points - exact)[believed] @ truth[:2, :2].T
        bars = np.linalg.inv(found.covariance[believed])
        chi2.extend(np.einsum("na,nab,nb->n", error, bars, error))
    # Of about a hundred numbers; edges a pixel wide give 2.7 and 3.8.
    assert 0.4 < np.mean(chi2) / 2 < 1.7


def test_wrong_points_are_refused_and_come_back_as_given():
    rng = np.random.default_rng(20)
    reference, moving, truth = scenes(rng)
    points, _, clicks = hand_points(rng, truth)
    # One click is far away, and one lies where the moving image shows nothing.
    clicks[2] += (40, -50)
    moving = moving.copy()
    row, col = np.rint(clicks[5]).astype(int)
    moving[row - 55 : row + 55, col - 55 : col + 55] = 0.3
    found = spt.refine_points(reference, moving, points, clicks)
    wrong = np.isin(np.arange(9), (2, 5))
    assert (found.outcome[wrong] != "matched").all()
    assert_allclose(found.moving_points[[2, 5]], clicks[[2, 5]])
    assert np.isinf(found.covariance[wrong]).all()
    assert (found.false_alarm[wrong] == 1).all()
    assert (found.outcome[~wrong] == "matched").sum() >= 5


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_one_wrong_click_of_five_does_not_cost_the_others(seed):
    rng = np.random.default_rng(seed)
    reference, moving, truth = scenes(rng)
    points, exact, clicks = hand_points(rng, truth, 5)
    clicks[1] += (60, -40)
    found = spt.refine_points(reference, moving, points, clicks)
    right = np.arange(5) != 1
    assert (found.outcome[right] == "matched").all()
    assert found.outcome[1] != "matched"
    # As exact as without it: a window is right to 0.04 px here.
    assert_allclose(found.moving_points[right], exact[right], rtol=0, atol=0.3)


def test_nothing_in_common_is_not_believed():
    rng = np.random.default_rng(21)
    reference, _, truth = scenes(rng)
    _, moving, _ = scenes(rng)
    points, _, clicks = hand_points(rng, truth)
    found = spt.refine_points(reference, moving, points, clicks)
    assert (found.outcome != "matched").all()
    grid = spt.find_control_points(reference, moving)
    assert (grid.outcome == "matched").mean() < 0.02


def test_a_lattice_is_ambiguous():
    rows, cols = np.mgrid[:200, :220]
    lattice = np.cos(2 * np.pi * rows / 14) + np.cos(2 * np.pi * cols / 11)
    rng = np.random.default_rng(22)
    images = [lattice + 0.2 * rng.normal(size=lattice.shape) for _ in range(2)]
    points = np.array([(60, 60), (60, 150), (140, 100), (140, 160)])
    found = spt.refine_points(*images, points, points + 2, max_shift=16)
    assert (found.outcome == "ambiguous").all()
    # Even where the bound leaves one place only, chance is as good: any place is.
    near = spt.refine_points(*images, points, points + 2, max_shift=3)
    assert (near.false_alarm == 1).all()


def test_a_shift_beyond_the_reach_is_not_believed():
    rng = np.random.default_rng(23)
    reference, moving, truth = scenes(rng)
    points, exact, _ = hand_points(rng, truth)
    found = spt.refine_points(
        reference, moving, points, exact + np.array([9, 0]), max_shift=4
    )
    assert (found.outcome != "matched").all()


@pytest.mark.parametrize("unit", [1e-20, 1e-12, 1e20])
@pytest.mark.parametrize("offset", [0, 1e8])
def test_units_and_markers_of_missing_data_do_not_matter(unit, offset):
    rng = np.random.default_rng(33)
    reference, moving, truth = scenes(rng)
    points, _, clicks = hand_points(rng, truth, count=4)
    plain = spt.refine_points(reference, moving, points, clicks, iterations=1)
    other = (reference + offset) * unit
    other[3, 3] = -3.4e38
    found = spt.refine_points(other, moving * unit, points, clicks, iterations=1)
    assert (found.outcome == plain.outcome).all()
    assert_allclose(found.moving_points, plain.moving_points, atol=1e-3)


@pytest.mark.parametrize("far", [0, 0.5, 1, 3])
def test_a_bound_is_kept_to_a_fraction_of_a_pixel(far):
    scene = spt.gaussian_texture((220, 220), rng=1)
    reference, moving = scene[:200, 10:210], -scene[7:207, 6:206]
    points = np.array([(60, 60), (60, 140), (140, 60), (140, 140)])
    exact = points - (7, -4)
    options = {"model": "translation", "max_shift": far}
    found = spt.refine_points(reference, moving, points, exact, **options)
    assert (found.outcome == "matched").all()
    assert_allclose(found.moving_points, exact, atol=0.05)
    # The four errors cancel in the transform, so that each of them has to be found.
    wrong = (far + 0.5) * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
    found = spt.refine_points(reference, moving, points, exact + wrong, **options)
    assert (found.outcome != "matched").all()


def test_images_of_very_different_pixels():
    rng = np.random.default_rng(24)
    reference, moving, truth = scenes(rng, noise=0.02)
    small = spt.resample(moving, 1, 2.5)
    points, exact, _ = hand_points(rng, truth)
    exact = spt.apply_transform(small.matrix, exact)
    clicks = exact + rng.normal(0, 1, exact.shape)
    found = spt.refine_points(reference, small.image, points, clicks)
    assert (found.outcome == "matched").mean() > 0.7
    believed = found.outcome == "matched"
    # In pixels of the small image.
    assert rms((found.moving_points - exact)[believed]) < 0.1


def test_solid_images():
    rng = np.random.default_rng(25)
    scene = gaussian_filter(rng.normal(size=(48, 60, 64)), 1.5)
    reference, moving = scene[8:40, 8:52, 8:56], -scene[6:38, 9:53, 11:59]
    points = np.array(
        [(14, 18, 20), (18, 25, 30), (14, 28, 24), (17, 20, 32), (12, 25, 20)]
    )
    clicks = points - (-2, 1, 3) + rng.uniform(-1, 1, points.shape)
    found = spt.refine_points(
        reference, moving, points, clicks, model="translation", size=24, max_shift=4
    )
    assert (found.outcome == "matched").all()
    assert_allclose(points - found.moving_points, [(-2, 1, 3)] * 5, atol=0.05)


def test_results_do_not_depend_on_workers():
    rng = np.random.default_rng(26)
    reference, moving, truth = scenes(rng)
    points, _, clicks = hand_points(rng, truth)
    one = spt.refine_points(reference, moving, points, clicks)
    two = spt.refine_points(reference, moving, points, clicks, workers=2)
    assert (one.moving_points == two.moving_points).all()
    assert (one.covariance == two.covariance).all()


def test_points_are_found_without_any_hand():
    rng = np.random.default_rng(27)
    reference, moving, truth = scenes(rng, turn=0.1, zoom=0.95)
    found = spt.find_control_points(reference, moving)
    believed = found.outcome == "matched"
    assert believed.mean() > 0.5
    exact = spt.apply_transform(truth, found.reference_points, inverse=True)
    error = np.linalg.norm(found.moving_points - exact, axis=1)
    assert error[believed].max() < 1
    fit = spt.estimate_transform(
        found.reference_points, found.moving_points, covariance=found.covariance
    )
    corners = np.array([(0, 0), (0, 279), (259, 0), (259, 279)])
    there = spt.apply_transform(truth, corners)
    assert np.abs(spt.apply_transform(fit, corners) - there).max() < 0.1


def test_a_rough_transform_leads_to_points():
    rng = np.random.default_rng(28)
    reference, moving, truth = scenes(rng, turn=0.8)
    rough = spt.translation((4, -5)) @ truth
    found = spt.find_control_points(reference, moving, matrix=rough, max_shift=10)
    believed = found.outcome == "matched"
    assert believed.mean() > 0.4
    exact = spt.apply_transform(truth, found.reference_points, inverse=True)
    error = np.linalg.norm(found.moving_points - exact, axis=1)[believed]
    assert np.median(error) < 0.1
    assert np.isinf(found.covariance[~believed]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, r"`size` must be at least 16 pixels; got 8\."),
        ({"max_shift": -1}, r"`max_shift` must .*; got -1"),
        ({"max_shift": 1e6}, r"`max_shift` must be at most \d+ pixels.*; got 1e\+06"),
        ({"scale": 0}, r"`scale` must be .*; got 0"),
        ({"iterations": 0}, r"`iterations` must .*; got 0"),
        ({"model": "bent"}, r"`model` must be one of .*; got 'bent'\."),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    image = np.random.default_rng(0).normal(size=(60, 60))
    points = np.array([(20, 20), (20, 40), (40, 20), (40, 40)])
    with pytest.raises(ValueError, match=message):
        spt.refine_points(image, image, points, points, **options)


def test_inputs_of_other_shapes_are_refused():
    image = np.zeros((60, 60))
    points = np.array([(20, 20), (20, 40), (40, 20), (40, 40)])
    with pytest.raises(ValueError, match=r"`reference` .*`moving`"):
        spt.refine_points(image, np.zeros((9, 60, 60)), points, points)
    with pytest.raises(ValueError, match=r"`reference_points` .*`moving_points`"):
        spt.refine_points(image, image, points, points[:3])
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(3, 3\)"):
        spt.find_control_points(image, image, matrix=np.eye(4))
    with pytest.raises(ValueError, match=r"`max_shift` must be"):
        spt.find_control_points(image, image, max_shift=0)
    with pytest.raises(ValueError, match=r"`max_shift` must be at most \d+ pixels"):
        spt.find_control_points(image, image, max_shift=1e6)
    with pytest.raises(TypeError, match=r"`max_shift` must be a number; got tuple"):
        spt.find_control_points(image, image, max_shift=(3, 4))


def test_windows_may_be_longer_than_wide():
    scene = spt.gaussian_texture((200, 260), rng=4)
    found = spt.find_control_points(scene, -scene, size=(32, 64), max_shift=8)
    believed = found.outcome == "matched"
    assert believed.mean() > 0.9
    miss = (found.moving_points - found.reference_points)[believed]
    # The same pixels: only the neighbourhoods of edges of the windows differ.
    assert_allclose(miss, np.zeros_like(miss), atol=0.01)


def test_blank_images_have_no_points():
    blank = np.full((120, 130), 3.0)
    found = spt.find_control_points(blank, blank)
    assert (found.outcome == "no texture").all()


@pytest.mark.parametrize(
    "sizes", [(1.0, 2.0), (1.0, 0.4), ((1, 2), (1.5, 1.5)), (3, 3)]
)
def test_pixels_of_another_size_keep_the_scene(sizes):
    rows, cols = np.mgrid[:90, :80]
    scene = np.sin(rows / 9) + np.cos(cols / 11)
    made = spt.resample(scene, *sizes)
    grid = np.moveaxis(np.indices(made.image.shape, dtype=float), 0, -1)
    back = spt.apply_transform(made.matrix, grid, inverse=True)
    expected = np.sin(back[..., 0] / 9) + np.cos(back[..., 1] / 11)
    inner = (slice(8, -8),) * 2
    # Coarse pixels are means: of a wave of 57 px, over 2 px, 0.2 % less.
    assert_allclose(made.image[inner], expected[inner], atol=6e-3)
    assert_allclose(
        spt.apply_transform(made.matrix, (np.array(scene.shape) - 1) / 2),
        (np.array(made.image.shape) - 1) / 2,
    )


def test_coarse_pixels_do_not_fold_fine_detail():
    rng = np.random.default_rng(30)
    noise = rng.normal(size=(240, 240))
    coarse = spt.resample(noise, 1, 4).image
    # The mean of sixteen pixels of noise has a quarter of its deviation; picking single
    # pixels would leave it as it is.
    assert 0.1 < coarse.std() < 0.3


@pytest.mark.parametrize("factor", [2, 3, 4, 2.5])
def test_waves_too_fine_for_large_pixels_are_taken_out(factor):
    cols = np.arange(400)
    kept = []
    # Shares of the highest frequency that the new pixels show.
    for share in (0.25, 0.5, 1.6):
        wave = np.sin(np.pi * share / factor * cols + 0.3)
        line = spt.resample(np.tile(wave, (8, 1)), 1, (1, factor)).image[4]
        kept.append(np.sqrt(2) * line[12:-12].std())
    # The deviation of some hundred samples of a wave is known to 2 %.
    assert_allclose(kept[:2], [0.99, 0.88], rtol=0, atol=0.02)
    assert kept[2] < 0.01


@pytest.mark.parametrize("factor", [1.3, 2, 3, 4, 6])
def test_edges_ring_by_less_than_five_percent(factor):
    for place in range(118, 124):
        image = np.zeros((8, 240))
        image[:, place:] = 1
        line = spt.resample(image, 1, (1, factor)).image[4]
        assert line.min() > -0.05
        assert line.max() < 1.05


def test_larger_pixels_keep_constants_ramps_and_integers(rng):
    ramp = np.add.outer(3.0 * np.arange(60), np.arange(80))
    small = spt.resample(ramp, 1, (3, 2))
    back = np.linalg.inv(small.matrix)
    pixels = np.moveaxis(np.indices(small.image.shape, dtype=float), 0, -1)
    there = spt.apply_transform(back, pixels) @ (3, 1)
    assert_allclose(small.image, there, rtol=0, atol=1e-9)
    # Beside edges of full height values would leave the range of the dtype.
    image = (255 * (rng.uniform(size=(60, 60)) > 0.5)).astype(np.uint8)
    plain = spt.resample(image.astype(float), 1, 2).image
    found = spt.resample(image, 1, 2).image
    assert found.dtype == np.uint8
    assert_allclose(found, np.clip(np.rint(plain), 0, 255), rtol=0, atol=1)


def test_labels_are_not_mixed(rng):
    labels = rng.integers(0, 9, (30, 40))
    assert set(np.unique(spt.resample(labels, 1, 3, order=0).image)) <= set(range(9))


def test_missing_pixels_stay_missing():
    image = np.full((64, 64), 5.0)
    image[30:34, 30:34] = np.nan
    made = spt.resample(image, 1, 2).image
    known = np.isfinite(made)
    assert (~known).any()
    assert_allclose(made[known], 5)


def test_spectra_are_resampled_together():
    cube = np.random.default_rng(31).normal(size=(20, 24, 5))
    made = spt.resample(cube, (2, 1), 1, channel_axis=2)
    assert made.image.shape == (40, 24, 5)
    one = spt.resample(cube[..., 3], (2, 1), 1)
    assert_allclose(made.image[..., 3], one.image)
    assert_allclose(made.matrix, one.matrix)


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (np.ones(9), {}, ValueError, r"`image` must have 2 or 3 axes .*shape \(9,\)"),
        (np.ones((9, 9), complex), {}, TypeError, "`image` must hold real numbers"),
        (np.ones((9, 9)), {"channel_axis": 5}, ValueError, "`channel_axis` must be an"),
        (np.ones((9, 9)), {"channel_axis": 0}, ValueError, "`image` must have 2 or 3"),
        (np.ones((0, 9)), {}, ValueError, "`image` must have 2 or 3 axes"),
        (np.ones((9, 9)), {"order": 2}, ValueError, "`order` must"),
    ],
)
def test_images_that_have_no_pixel_size_are_refused(image, options, error, message):
    with pytest.raises(error, match=message):
        spt.resample(image, 1, 2, **options)


def test_pixel_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"`target_pixel_size` must be .*; got 0"):
        spt.resample(np.zeros((5, 5)), 1, 0)
    with pytest.raises(ValueError, match=r"`pixel_size` must"):
        spt.resample(np.zeros((5, 5)), (1, 2, 3), 1)


def test_transforms_are_turned_round():
    points = np.random.default_rng(32).uniform(0, 100, (20, 2))
    matrix = np.array([[1.1, 0.2, 3], [-0.1, 0.9, 4], [1e-4, -2e-4, 1]])
    there = spt.apply_transform(matrix, points)
    assert_allclose(spt.apply_transform(matrix, there, inverse=True), points)
    bent = there + 0.01 * (points - 50) ** 2 / 10
    fit = spt.estimate_transform(bent, points, model="polynomial")
    moved = spt.apply_transform(fit, points)
    assert_allclose(spt.apply_transform(fit, moved, inverse=True), points, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"`matrix` must be invertible; got a singular"
    ):
        spt.apply_transform(np.zeros((3, 3)), points, inverse=True)

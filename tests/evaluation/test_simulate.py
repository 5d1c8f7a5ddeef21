import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt

TILE = (60, 70)


@pytest.fixture(scope="module")
def scene():
    return spt.gaussian_texture((256, 320), rng=4)


def moved(scene, shift):
    """Return ``scene(p + shift)``, exactly: the scene is periodic, band-limited."""
    rows, cols = np.fft.fftfreq(scene.shape[0]), np.fft.rfftfreq(scene.shape[1])
    ramp = np.exp(2j * np.pi * (rows[:, None] * shift[0] + cols * shift[1]))
    return np.fft.irfft2(np.fft.rfft2(scene) * ramp, s=scene.shape)


def surface(points):
    """A smooth scene with a formula, so that it is known between pixels too."""
    rows, cols = points[..., 0], points[..., 1]
    return np.sin(0.31 * rows + 0.2 * cols) + np.cos(0.23 * cols - 0.05 * rows)


def pixels(shape):
    return np.stack(np.indices(shape), axis=-1).astype(float)


# Tiles


def test_tiles_without_errors_are_plain_crops(scene):
    made = spt.simulate_tiles(scene, (2, 3), TILE)
    for tile, (row, col) in zip(made.tiles, made.stage.astype(int), strict=True):
        crop = scene[row : row + TILE[0], col : col + TILE[1]]
        # Only the rounding of the spline filter and its inverse.
        assert_allclose(tile, crop, rtol=0, atol=1e-10)


def test_tiles_show_the_scene_at_their_true_positions(scene):
    made = spt.simulate_tiles(scene, (2, 2), TILE, stage_sigma=3, rng=1)
    for tile, position in zip(made.tiles, made.positions, strict=True):
        truth = moved(scene, position)[: TILE[0], : TILE[1]]
        # 0.1 % of the scene's sd; measured 0.003 %.
        assert np.std(tile - truth) < 1e-3


def test_matrices_lead_from_turned_tiles_to_the_scene():
    image = surface(pixels((200, 240)))
    made = spt.simulate_tiles(
        image, (2, 2), TILE, stage_sigma=2, rotation_sigma=0.05, rng=1
    )
    for tile, matrix in zip(made.tiles, made.matrices, strict=True):
        points = pixels(TILE) @ matrix[:2, :2].T + matrix[:2, 2]
        # The formula is far below the Nyquist frequency; measured 1e-5.
        assert_allclose(tile, surface(points), rtol=0, atol=1e-4)


def test_overlapping_tiles_agree_where_truth_says(scene):
    made = spt.simulate_tiles(
        scene, (1, 2), (60, 60), overlap=0.7, stage_sigma=3, rng=2
    )
    left, right = made.tiles
    step = made.positions[1] - made.positions[0]
    assert np.abs(step - np.rint(step)).max() > 0.1
    there = ndimage.shift(right, step, order=5, mode="mirror")
    # Clear of the borders of both tiles, where a spline knows less.
    common = np.s_[14:-14, 34:-8]
    # 0.1 % of the scene's sd, as for each tile.
    assert np.std((there - left)[common]) < 1e-3


def test_positions_are_the_translations_of_the_matrices(scene):
    made = spt.simulate_tiles(
        scene, (2, 2), TILE, stage_sigma=2, rotation_sigma=0.02, rng=1
    )
    assert_array_equal(made.positions, made.matrices[:, :2, 2])


def test_tiles_turn_about_their_centres(scene):
    made = spt.simulate_tiles(scene, (2, 2), TILE, rotation_sigma=0.05, rng=1)
    centre = (np.array(TILE) - 1) / 2
    found = made.matrices[:, :2, :2] @ centre + made.matrices[:, :2, 2]
    # Rounding only.
    assert_allclose(found, made.stage + centre, rtol=0, atol=1e-9)
    assert np.abs(made.positions - made.stage).max() > 0.5


def test_stage_steps_leave_the_overlap(scene):
    made = spt.simulate_tiles(scene, (2, 2), (50, 60), overlap=0.2)
    assert_array_equal(made.stage - made.stage[0], [(0, 0), (0, 48), (40, 0), (40, 48)])


def test_stage_errors_have_the_spread_asked_for():
    image = np.zeros((130, 130), np.float32)
    made = spt.simulate_tiles(image, (20, 20), (5, 5), stage_sigma=2, rng=1)
    errors = made.positions - made.stage
    # 800 numbers know their sd to 2.5 %; three times that.
    assert_allclose(errors.std(), 2, rtol=0.075)


def test_angles_have_the_spread_asked_for():
    image = np.zeros((130, 130), np.float32)
    made = spt.simulate_tiles(image, (20, 20), (5, 5), rotation_sigma=0.1, rng=1)
    angles = np.arctan2(made.matrices[:, 1, 0], made.matrices[:, 0, 0])
    # 400 numbers know their sd to 3.5 %; three times that.
    assert_allclose(angles.std(), 0.1, rtol=0.11)


@given(rng=st.integers(0, 10_000))
def test_tiles_never_leave_the_image(rng):
    # The smallest image that is let through.
    image = np.zeros((46, 54))
    made = spt.simulate_tiles(
        image, (2, 2), (20, 24), stage_sigma=0.6, rotation_sigma=0.03, rng=rng
    )
    corners = np.array([(0, 0), (0, 23), (19, 0), (19, 23)])
    places = corners @ made.matrices[:, :2, :2].mT + made.matrices[:, None, :2, 2]
    assert (places >= 0).all()
    assert (places <= (45, 53)).all()


def test_grid_lies_in_the_middle_of_the_image(scene):
    made = spt.simulate_tiles(scene, (3, 3), TILE)
    before = made.stage[0]
    after = np.array(scene.shape) - (made.stage[-1] + TILE)
    # An odd number of spare pixels leaves one more on one side.
    assert np.abs(before - after).max() <= 1


def test_missing_tiles_are_left_out_and_others_stay(scene):
    whole = spt.simulate_tiles(scene, (2, 3), TILE, stage_sigma=2, rng=5)
    holes = spt.simulate_tiles(
        scene, (2, 3), TILE, stage_sigma=2, missing=[(0, 1), (1, 2)], rng=5
    )
    assert_array_equal(holes.grid, [(0, 0), (0, 2), (1, 0), (1, 1)])
    assert_array_equal(holes.tiles, whole.tiles[[0, 2, 3, 4]])
    assert_array_equal(holes.positions, whole.positions[[0, 2, 3, 4]])


# Camera


def test_vignetting_is_the_loss_in_the_corner():
    made = spt.simulate_tiles(np.ones((80, 90)), (1, 1), (61, 71), vignetting=0.3)
    # Rounding only.
    assert_allclose(made.tiles[0, [0, 0, 30], [0, 70, 35]], (0.7, 0.7, 1), atol=1e-9)


def test_gain_and_shading_are_what_the_tiles_show():
    made = spt.simulate_tiles(
        np.full((200, 200), 7.0), (2, 2), TILE, vignetting=0.3, gain_sigma=0.1, rng=1
    )
    expected = 7 * made.gain[:, None, None] * made.shading
    # Rounding only.
    assert_allclose(made.tiles, expected, rtol=1e-9)
    assert len(np.unique(made.gain)) == 4


def test_pattern_is_added_to_every_tile_alike(scene):
    pattern = np.random.default_rng(6).normal(size=TILE)
    options = {"stage_sigma": 2, "vignetting": 0.5, "gain_sigma": 0.2, "rng": 1}
    plain = spt.simulate_tiles(scene, (2, 2), TILE, **options)
    made = spt.simulate_tiles(scene, (2, 2), TILE, pattern=pattern, **options)
    # Rounding only.
    assert_allclose(made.tiles - plain.tiles, [pattern] * 4, rtol=0, atol=1e-12)


def test_noise_has_the_level_asked_for(scene):
    plain = spt.simulate_tiles(scene, (2, 2), TILE)
    noisy = spt.simulate_tiles(scene, (2, 2), TILE, noise_sigma=3, rng=1)
    noise = noisy.tiles - plain.tiles
    # 16800 pixels know the sd to 0.5 %; three times that.
    assert_allclose(noise.std(), 3, rtol=0.015)
    # Independent in each tile: chance is 1 / sqrt(4200) = 0.015.
    assert np.abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiles_are_floats_on_the_scale_of_the_image(dtype):
    image = np.full((70, 80), 200, dtype)
    made = spt.simulate_tiles(image, (1, 1), TILE)
    assert made.tiles.dtype == np.float32
    # Single precision.
    assert_allclose(made.tiles, 200, rtol=1e-6)


def test_three_axes_have_depth_in_their_positions():
    image = spt.gaussian_texture((30, 60, 60), cutoff=0.25, rng=1)
    made = spt.simulate_tiles(
        image, (1, 2, 2), (12, 24, 24), stage_sigma=1.5, rotation_sigma=0.02, rng=1
    )
    assert made.tiles.shape == (4, 12, 24, 24)
    assert made.matrices.shape == (4, 4, 4)
    # The light is lost within pictures and turns keep planes: depth is a shift.
    assert_array_equal(made.matrices[:, 0, :3], [(1, 0, 0)] * 4)
    assert (made.positions[:, 0] != made.stage[:, 0]).all()


# Pairs and series


@pytest.mark.parametrize("shift", [(5.3, -7.8), (-20.25, 11.5)])
def test_pair_has_the_shift_asked_for(scene, shift):
    pair = spt.simulate_pair(scene, (128, 96), shift)
    row, col = find(scene, pair.reference)
    truth = moved(scene, np.add((row, col), shift))[:128, :96]
    # moving(p) = scene(origin + p + shift); 0.1 % of the sd, measured 0.003 %.
    assert np.std(pair.moving - truth) < 1e-3


def find(scene, crop):
    """Return where a plain crop was cut out."""
    rows, cols = np.nonzero(np.abs(scene - crop[0, 0]) < 1e-9)
    (place,) = (
        (row, col)
        for row, col in zip(rows, cols, strict=True)
        if np.allclose(scene[row : row + 8, col : col + 8], crop[:8, :8])
    )
    return place


def test_noise_of_a_pair_is_independent(scene):
    plain = spt.simulate_pair(scene, (128, 96), (0, 0))
    noisy = spt.simulate_pair(scene, (128, 96), (0, 0), noise_sigma=0.5, rng=1)
    first, second = noisy.reference - plain.reference, noisy.moving - plain.moving
    # 12288 pixels know the sd to 0.6 %, and correlate by chance to 0.009.
    assert_allclose((first.std(), second.std()), 0.5, rtol=0.02)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03


def test_frames_show_the_scene_at_their_shifts(scene):
    shifts = np.array([(0, 0), (1.5, -2.25), (-3.75, 4)])
    series = spt.simulate_series(scene, shifts, (128, 96))
    origin = find(scene, series.frames[0])
    for frame, shift in zip(series.frames, shifts, strict=True):
        truth = moved(scene, origin + shift)[:128, :96]
        # 0.1 % of the sd, measured 0.003 %.
        assert np.std(frame - truth) < 1e-3


def test_common_part_of_the_shifts_does_not_matter(scene):
    shifts = np.array([(0, 0), (1.5, -2.25), (-3.75, 4)])
    near = spt.simulate_series(scene, shifts, (128, 96))
    far = spt.simulate_series(scene, shifts + 1000, (128, 96))
    assert_array_equal(near.frames, far.frames)


def test_pattern_stays_while_the_scene_moves(scene):
    pattern = np.random.default_rng(6).normal(size=(128, 96))
    shifts = np.array([(0, 0), (1.5, -2.25)])
    plain = spt.simulate_series(scene, shifts, (128, 96))
    dirty = spt.simulate_series(scene, shifts, (128, 96), pattern=pattern)
    # Rounding only.
    assert_allclose(dirty.frames - plain.frames, [pattern] * 2, rtol=0, atol=1e-12)


# Textures


@pytest.mark.parametrize("shape", [(64, 50), (63, 51), (16, 20, 24)])
def test_texture_has_no_mean_and_unit_spread(shape):
    texture = spt.gaussian_texture(shape, rng=1)
    # Rounding only.
    assert_allclose((texture.mean(), texture.std()), (0, 1), rtol=0, atol=1e-12)


def test_texture_follows_the_law():
    texture = spt.gaussian_texture((512, 512), cutoff=0.4, slope=2, rng=1)
    power = np.abs(np.fft.rfft2(texture)) ** 2
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
    rings = [power[np.abs(radius - r) < 0.005].mean() for r in (0.1, 0.2)]
    # At a quarter of the cutoff the lens passes 0.685, at half of it 0.391.
    lens = (0.685 / 0.391) ** 2
    law = (0.2**2 + 0.02**2) / (0.1**2 + 0.02**2)
    # A ring of 2000 modes knows its power to 2 %; three times both.
    assert_allclose(rings[0] / rings[1], lens * law, rtol=0.1)


def test_texture_is_band_limited():
    texture = spt.gaussian_texture((128, 128), cutoff=0.2, rng=1)
    power = np.abs(np.fft.rfft2(texture)) ** 2
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    # Rounding only.
    assert power[radius >= 0.2].max() < 1e-20 * power.max()


# Laws of all


def everything(image, rng):
    shifts = np.array([(0, 0), (1.5, -2.25)])
    return (
        spt.simulate_tiles(
            image, (2, 2), TILE, stage_sigma=2, gain_sigma=1, noise_sigma=1, rng=rng
        ).tiles,
        spt.simulate_pair(image, TILE, (0.5, 2), noise_sigma=1, rng=rng).moving,
        spt.simulate_series(image, shifts, TILE, noise_sigma=1, rng=rng).frames,
        spt.gaussian_texture(TILE, rng=rng),
    )


def test_one_seed_gives_one_result(scene):
    for first, again in zip(everything(scene, 3), everything(scene, 3), strict=True):
        assert_array_equal(first, again)


def test_another_seed_gives_another_result(scene):
    for first, other in zip(everything(scene, 3), everything(scene, 4), strict=True):
        assert not np.array_equal(first, other)


def test_image_is_left_alone(scene):
    before = scene.copy()
    scene.setflags(write=False)
    everything(scene, 3)
    assert_array_equal(scene, before)


# Errors


def test_grid_must_fit():
    with pytest.raises(
        ValueError, match=r"at least shape \(130, 149\) .* got \(128, 160\)"
    ):
        spt.simulate_tiles(
            np.ones((128, 160)), (2, 2), TILE, stage_sigma=2, overlap=0.1, rng=1
        )


def test_grid_of_the_size_needed_fits():
    made = spt.simulate_tiles(
        np.ones((130, 149)), (2, 2), TILE, stage_sigma=2, overlap=0.1, rng=1
    )
    assert len(made.tiles) == 4


def test_pair_must_fit():
    with pytest.raises(
        ValueError, match=r"at least shape \(66, 73\) .* got \(64, 80\)"
    ):
        spt.simulate_pair(np.ones((64, 80)), TILE, (-5.5, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overlap": 1.0},
            "`overlap` must be at least 0 and leave a step of one pixel",
        ),
        ({"vignetting": 1.5}, "`vignetting` must be between 0 and 1; got 1.5"),
        ({"stage_sigma": -1}, "`stage_sigma` must be finite and at least 0; got -1"),
        ({"rotation_sigma": -1}, "`rotation_sigma` must be finite and at least 0"),
        ({"gain_sigma": np.nan}, "`gain_sigma` must be finite and at least 0; got nan"),
        ({"noise_sigma": -1}, "`noise_sigma` must be finite and at least 0"),
        ({"pattern": np.ones((3, 3))}, r"`pattern` must have shape \(60, 70\); got"),
        ({"missing": [(0, 2)]}, r"`missing` must hold indices of a grid of shape"),
        ({"missing": [(-1, 0)]}, r"`missing` must hold indices of a grid of shape"),
        ({"missing": [0]}, r"`missing` must have shape \(n, 2\); got \(1,\)"),
    ],
)
def test_options_of_tiles_are_checked(scene, options, message):
    with pytest.raises(ValueError, match=message):
        spt.simulate_tiles(scene, (2, 2), TILE, **options)


def test_image_must_be_finite():
    image = np.ones((100, 100))
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match="`image` must be finite; got 1 NaN"):
        spt.simulate_pair(image, TILE, (1, 1))


def test_grid_shape_must_have_one_number_for_each_axis(scene):
    with pytest.raises(ValueError, match="`grid_shape` must hold 2 positive integers"):
        spt.simulate_tiles(scene, (2, 2, 2), TILE)


def test_tile_shape_must_be_whole(scene):
    with pytest.raises(TypeError, match="`tile_shape` must hold integers"):
        spt.simulate_tiles(scene, (2, 2), (60.5, 70))


def test_series_must_have_a_frame(scene):
    with pytest.raises(ValueError, match="`shifts` must hold at least one shift"):
        spt.simulate_series(scene, np.empty((0, 2)), TILE)


def test_cutoff_must_be_positive():
    with pytest.raises(ValueError, match="`cutoff` must be finite and greater than 0"):
        spt.gaussian_texture(TILE, cutoff=0)


def test_texture_must_have_room_for_detail():
    with pytest.raises(ValueError, match="`shape` must hold a period"):
        spt.gaussian_texture((8, 8), cutoff=0.1)

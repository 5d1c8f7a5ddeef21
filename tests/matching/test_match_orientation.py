import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import io

import spectral_tools as spt
from spectral_tools._matching.orientation.match_orientation import match_sketches
from spectral_tools._matching.orientation.pose_fit import fit_pose
from spectral_tools._matching.orientation.pose_images import (
    make_sketch,
    make_spline_image,
)
from spectral_tools._matching.orientation.pose_search import Range


def pose(angle, scale=1.0, shift=(0, 0), *, mirrored=False, shape=(128, 128), to=None):
    """Matrix that brings the centre of an image to that of another, plus a shift."""
    matrix = np.eye(3)
    flip = np.diag([1, -1 if mirrored else 1])
    matrix[:2, :2] = scale * spt.rotation(angle)[:2, :2] @ flip
    centres = [(np.array(size) - 1) / 2 for size in (shape, to or shape)]
    matrix[:2, 2] = centres[1] + shift - matrix[:2, :2] @ centres[0]
    return matrix


def picture_pair(matrix, rng, *, shape=(128, 128), moving_shape=None, level=20):
    """Take two pictures of one random scene, related by a matrix from the second.

    The scene lies on pixels of half the size and has nothing finer than the coarser of
    the pictures can show, so that the quintic spline through it is the scene to
    0.003 % and neither picture is aliased: the truth is exact.
    """
    moving_shape = moving_shape or shape
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    reach = max(math.hypot(*shape), scale * math.hypot(*moving_shape)) + 80
    side = 2 * int(reach)
    scene = spt.gaussian_texture((side, side), cutoff=0.25 / max(1, scale), rng=rng)
    to_scene = np.diag([2.0, 2.0, 1.0])
    to_scene[:2, 2] = (side - 1) / 2 - (np.array(shape) - 1)
    pictures = []
    for way, size in ((to_scene, shape), (to_scene @ matrix, moving_shape)):
        picture = ndimage.affine_transform(
            scene, way[:2, :2], way[:2, 2], output_shape=size, order=5, mode="grid-wrap"
        )
        noise = 10 ** (-level / 20) * rng.standard_normal(size)
        pictures.append(picture / picture.std() + noise)
    return pictures


def errors(found, truth, shape):
    """Return the errors whose covariance is reported."""
    centre = (np.array(shape) - 1) / 2
    error = found.matrix @ np.linalg.inv(truth)
    place = spt.apply_transform(truth, centre)
    return np.array(
        [
            math.atan2(error[1, 0] - error[0, 1], error[0, 0] + error[1, 1]),
            0.5 * math.log(np.linalg.det(error[:2, :2])),
            *(spt.apply_transform(error, place) - place),
        ]
    )


def check(found, truth, shape=(128, 128)):
    """Check a pose against five standard errors, which chance does not reach."""
    assert found.outcome == "matched"
    sigma = np.sqrt(np.diag(found.covariance))
    assert (np.abs(errors(found, truth, shape)) <= 5 * sigma + 1e-12).all()
    # What is found at 20 dB is known at least so well, in radians and pixels.
    assert sigma[0] < 1e-3
    assert sigma[2:].max() < 0.1


@pytest.mark.parametrize("degrees", [0, 1, 45, 90, 133, 180, -91, -179])
def test_any_angle_is_found(degrees, rng):
    truth = pose(np.deg2rad(degrees), shift=(3.3, -5.8))
    found = spt.match_orientation(*picture_pair(truth, rng))
    check(found, truth)
    turn = np.deg2rad(degrees) - found.angle
    assert abs(math.remainder(turn, 2 * math.pi)) < 2e-3
    assert found.scale == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [0.6, 0.9, 1.3, 1.8])
def test_scale_is_found(scale, rng):
    truth = pose(2.1, scale, (-4, 7))
    pair = picture_pair(truth, rng, level=10)
    found = spt.match_orientation(*pair, scale_range=(0.5, 2))
    assert found.outcome == "matched"
    # In noise of a third of the contrast the scale is known to about 1e-3.
    assert found.scale == pytest.approx(scale, rel=5e-3)
    check_sigma = np.sqrt(np.diag(found.covariance))
    assert (np.abs(errors(found, truth, (128, 128))) < 5 * check_sigma).all()


@pytest.mark.parametrize("scale", [0.95, 1.02, 1.05])
def test_a_scale_that_was_not_asked_for_is_not_called_matched(scale, rng):
    shape = (256, 256)
    pair = picture_pair(pose(0.5, scale, (3, -6), shape=shape), rng, shape=shape)
    assert spt.match_orientation(*pair).outcome in ("beyond bound", "not found")
    assert spt.match_orientation(*pair, scale_range=(0.9, 1.1)).outcome == "matched"


def test_a_scale_that_moves_corners_by_less_than_two_pixels_is_let_through(rng):
    pair = picture_pair(pose(0.5, 1.005, (3, -6)), rng)
    # Corners are 90 px from the middle: they miss by half of a pixel.
    assert spt.match_orientation(*pair).outcome == "matched"


@pytest.mark.parametrize("mirrored", [True, False])
def test_mirror_images_are_told_from_others(mirrored, rng):
    truth = pose(-0.7, shift=(5, 9), mirrored=mirrored)
    found = spt.match_orientation(*picture_pair(truth, rng), mirror=True)
    check(found, truth)
    assert found.mirrored is mirrored


def test_mirror_image_is_not_found_unless_asked_for(rng):
    found = spt.match_orientation(*picture_pair(pose(0.4, mirrored=True), rng))
    assert found.outcome == "not found"
    assert found.false_alarm > 1e-3


def test_shapes_may_differ(rng):
    shapes = {"shape": (90, 170), "to": (150, 120)}
    truth = pose(1.2, 1.1, (6, -3), **shapes)
    pair = picture_pair(truth, rng, shape=(150, 120), moving_shape=(90, 170))
    found = spt.match_orientation(*pair, scale_range=(0.8, 1.25))
    check(found, truth, (90, 170))


def test_large_images_are_matched_at_full_resolution(rng):
    truth = pose(2.5, shift=(11, 20), shape=(330, 340))
    pair = picture_pair(truth, rng, shape=(330, 340))
    found = spt.match_orientation(*pair)
    check(found, truth, (330, 340))
    # The small images that are searched show a third of the pixels.
    assert np.abs(errors(found, truth, (330, 340))[2:]).max() < 0.02


def test_small_images_are_found(rng):
    for _ in range(3):
        truth = pose(rng.uniform(-3, 3), shift=(1.3, -0.8), shape=(24, 24))
        found = spt.match_orientation(
            *picture_pair(truth, rng, shape=(24, 24), level=30)
        )
        assert found.outcome == "matched"
        sigma = np.sqrt(np.diag(found.covariance))
        # A third of the pixels is faded out: five errors, and one more for blocks.
        assert (np.abs(errors(found, truth, (24, 24))) <= 6 * sigma + 1e-12).all()
        assert sigma[0] < 0.05


@pytest.mark.parametrize("cols", [66, 67, 110, 111])
def test_images_whose_spectra_have_an_odd_side_are_found(cols, rng):
    """Twice 66 columns are transformed as 135: half a cycle lies between two modes."""
    shape = (72, cols)
    truth = pose(math.radians(130), shape=shape)
    found = spt.match_orientation(*picture_pair(truth, rng, shape=shape))
    assert found.outcome == "matched"
    assert np.abs(errors(found, truth, shape)[2:]).max() < 0.1


@pytest.mark.slow
def test_no_width_is_worse_than_another(rng):
    missed = []
    for cols in range(24, 600):
        shape = (96, cols)
        truth = pose(rng.uniform(-3, 3), shape=shape)
        found = spt.match_orientation(*picture_pair(truth, rng, shape=shape))
        if found.outcome != "matched":
            missed.append(cols)
    # Strips that cross share a sixth of their pixels, which does not always suffice;
    # of the widths whose spectra have an odd side, 71, nearly all were missed.
    assert len(missed) <= 0.03 * 576


def test_small_images_that_are_unrelated_are_not_believed(rng):
    alarms = [
        spt.match_orientation(
            spt.gaussian_texture((24, 24), slope=2, rng=rng),
            spt.gaussian_texture((24, 24), slope=2, rng=rng),
        ).false_alarm
        for _ in range(40)
    ]
    # One of 25 such series has an alarm below 1e-3.
    assert min(alarms) > 1e-3


def test_whole_images_take_one_step_after_the_small_ones(rng):
    truth = pose(0.8, shift=(5, -9), shape=(330, 340))
    pair = picture_pair(truth, rng, shape=(330, 340))
    sheets = [make_spline_image(image.astype(np.float32), None) for image in pair]
    first = fit_pose(*sheets, truth, scale=False)
    again = fit_pose(*sheets, first.matrix, scale=False, near=True)
    assert first.steps > 1
    assert again.steps == 1


def test_partial_overlap_is_enough(rng):
    truth = pose(-2.2, shift=(50, -20), shape=(160, 160))
    found = spt.match_orientation(*picture_pair(truth, rng, shape=(160, 160)))
    check(found, truth, (160, 160))
    assert 0.4 < found.overlap < 0.8


def test_what_is_masked_does_not_count(rng):
    truth = pose(0.9, shift=(4, 2))
    reference, moving = picture_pair(truth, rng)
    spoilt, valid = moving.copy(), np.ones(moving.shape, bool)
    spoilt[20:60, 30:70] = 40
    valid[20:60, 30:70] = False
    found = spt.match_orientation(reference, spoilt, moving_valid=valid)
    check(found, truth)
    spoilt[~valid] = np.nan
    again = spt.match_orientation(reference, spoilt)
    assert np.array_equal(found.matrix, again.matrix)


def test_gain_and_offset_change_nothing(rng):
    reference, moving = picture_pair(pose(1.0), rng)
    found = spt.match_orientation(reference, moving)
    other = spt.match_orientation(100 - 7 * -reference, 3 * moving + 5)
    # Only rounding in single precision differs.
    np.testing.assert_allclose(other.matrix, found.matrix, rtol=0, atol=1e-3)
    assert other.correlation == pytest.approx(found.correlation, abs=1e-5)


def test_swapping_the_images_inverts_the_matrix(rng):
    pair = picture_pair(pose(0.8, 1.4, (3, 1)), rng)
    there = spt.match_orientation(*pair, scale_range=(0.5, 2))
    back = spt.match_orientation(*pair[::-1], scale_range=(0.5, 2))
    corners = [(0, 0), (0, 127), (127, 0), (127, 127)]
    again = spt.apply_transform(there.matrix @ back.matrix, corners)
    # Both turn the same image on the pixels of the other, from two starts.
    np.testing.assert_allclose(again, corners, rtol=0, atol=0.02)


def test_angles_may_be_given(rng):
    truth = pose(2.0, shift=(8, -6))
    pair = picture_pair(truth, rng)
    found = spt.match_orientation(*pair, angles=[0.5, 2.01, 2.0 - np.pi])
    check(found, truth)
    wrong = spt.match_orientation(*pair, angles=[0.5, 1.0])
    assert wrong.outcome == "not found"


def test_fixed_scale_has_no_variance(rng):
    found = spt.match_orientation(*picture_pair(pose(1.0), rng))
    assert found.covariance[1].tolist() == [0, 0, 0, 0]
    assert np.linalg.det(found.matrix) == pytest.approx(1, abs=1e-9)


def test_parts_belong_to_the_matrix(rng):
    truth = pose(0.3, 1.2, mirrored=True)
    pair = picture_pair(truth, rng)
    found = spt.match_orientation(*pair, scale_range=(1, 1.5), mirror=True)
    rebuilt = found.scale * spt.rotation(found.angle)[:2, :2] @ np.diag([1, -1])
    np.testing.assert_allclose(found.matrix[:2, :2], rebuilt, rtol=0, atol=1e-12)


def test_sketches_serve_many_pairs(rng):
    truth = pose(1.5, shift=(2, 2))
    pair = picture_pair(truth, rng)
    wanted = Range(low=0.0, high=0.0, mirror=False, angles=None)
    sketches = [make_sketch(image, None) for image in pair]
    found = match_sketches(*sketches, wanted, 0.1)
    again = spt.match_orientation(*pair)
    assert np.array_equal(found.matrix, again.matrix)


def test_unrelated_images_are_not_believed(rng):
    alarms = [
        spt.match_orientation(
            spt.gaussian_texture((64, 64), slope=slope, rng=rng),
            spt.gaussian_texture((64, 64), slope=slope, rng=rng),
            scale_range=(0.5, 2),
        ).false_alarm
        for slope in (0, 2)
        for _ in range(10)
    ]
    # One of a hundred such series has an alarm below 5e-4.
    assert min(alarms) > 5e-4


def test_images_that_look_alike_turned_round_are_ambiguous(rng):
    scene = spt.gaussian_texture((128, 128), rng=rng)
    both = scene + scene[::-1, ::-1]
    noise = 0.1 * rng.standard_normal((2, 128, 128))
    found = spt.match_orientation(*(both + noise))
    assert found.outcome == "ambiguous"


def test_lattices_are_ambiguous(rng):
    row, col = np.mgrid[:150, :170]
    lattice = np.sin(0.7 * row) * np.sin(0.7 * col)
    noise = 0.1 * rng.standard_normal((2, 150, 170))
    found = spt.match_orientation(*(lattice + noise))
    assert found.outcome == "ambiguous"


def turned_rings(rng, law):
    """Take two pictures of rings, the second turned about its own middle."""
    truth = pose(1.1, shift=(4, -7))
    points = np.stack(np.indices((128, 128)), axis=-1)
    pictures = [
        law(np.hypot(*(spt.apply_transform(way, points) - (75, 50)).T).T)
        for way in (np.eye(3), truth)
    ]
    return np.stack(pictures) + 0.07 * rng.standard_normal((2, 128, 128))


@pytest.mark.parametrize(
    "law",
    [lambda r: np.cos(0.5 * r), lambda r: np.cos(0.005 * r**2)],
    ids=["even", "closer and closer"],
)
def test_rings_that_turn_on_themselves_are_ambiguous(law, rng):
    found = spt.match_orientation(*turned_rings(rng, law))
    assert found.outcome == "ambiguous"
    assert len(found.alternatives)
    # What all of them agree on is where the middle of the rings lies.
    truth = pose(1.1, shift=(4, -7))
    middle = spt.apply_transform(np.linalg.inv(truth), (75, 50))
    places = [spt.apply_transform(way, middle) for way in found.alternatives]
    # Poses that were not fitted are right to a few pixels.
    assert np.hypot(*(np.array(places) - (75, 50)).T).min() < 3


@pytest.mark.parametrize("folds", [4, 6])
def test_turned_lattices_are_ambiguous(folds, rng):
    row, col = np.mgrid[:128, :128]
    lattices = []
    for angle in (0.2, 0.2 + math.pi / 7):
        turns = angle + 2 * np.pi * np.arange(folds // 2) / folds
        waves = [np.cos(0.5 * (row * np.sin(t) + col * np.cos(t))) for t in turns]
        lattices.append(sum(waves) + 0.1 * rng.standard_normal(row.shape))
    found = spt.match_orientation(*lattices)
    assert found.outcome == "ambiguous"
    assert len(found.alternatives)


def test_a_clear_match_has_no_alternatives(rng):
    found = spt.match_orientation(*picture_pair(pose(1.0), rng))
    assert found.alternatives.shape == (0, 3, 3)


def test_outlines_of_masks_do_not_match(rng):
    """Crossed chirps, of which each picture shows another half."""
    pictures = []
    for turn, (up, left) in ((0.0, (0, 0)), (1.593, (-4.63, 5.79))):
        row, col = np.tensordot(
            spt.rotation(turn)[:2, :2], np.mgrid[:128, :128] - 63.5, 1
        )
        row, col = row + up, col + left
        wave = np.sin(0.358 * row + 0.00146 * row**2 + 4.38)
        wave += np.sin(0.372 * col + 0.00158 * col**2 + 1.97)
        pictures.append(wave + 0.07 * rng.standard_normal(wave.shape))
    lower = np.indices((128, 128))[0] > 63
    found = spt.match_orientation(*pictures, reference_valid=lower, moving_valid=~lower)
    # Laid on each other the halves correlate by 0.6.
    right = abs(math.remainder(found.angle - 1.593, 2 * math.pi)) < 0.02
    assert right or found.false_alarm > 0.01


@pytest.mark.parametrize(
    "spoilt",
    [np.zeros((64, 64)), np.full((64, 64), np.nan), np.ones((1, 1)), np.ones((2, 90))],
    ids=["constant", "nan", "pixel", "strip"],
)
def test_bad_data_is_not_an_error(spoilt, rng):
    good = rng.normal(size=(64, 64))
    for pair in ((good, spoilt), (spoilt, good)):
        found = spt.match_orientation(*pair)
        assert found.false_alarm == 1
        assert found.outcome == "no texture"
        assert np.isinf(np.diag(found.covariance)).all()


@pytest.mark.parametrize("shape", [(1, 40), (3, 5), (9, 9), (200, 4)])
def test_images_too_small_are_not_an_error(shape, rng):
    found = spt.match_orientation(rng.normal(size=shape), rng.normal(size=(40, 40)))
    assert found.false_alarm > 1e-3


def test_volumes_are_refused():
    with pytest.raises(ValueError, match=r"`moving` must be a 2-D image; got shape"):
        spt.match_orientation(np.ones((4, 4)), np.ones((2, 4, 4)))


@pytest.mark.parametrize("given", [(2, 1), (0, 1), (1, 2, 3), 1.5])
def test_scale_range_is_two_rising_numbers(given):
    with pytest.raises(ValueError, match="`scale_range` must be two positive numbers"):
        spt.match_orientation(np.ones((4, 4)), np.ones((4, 4)), scale_range=given)


def test_angles_are_a_list():
    with pytest.raises(ValueError, match="`angles` must be a list of numbers; got"):
        spt.match_orientation(np.ones((4, 4)), np.ones((4, 4)), angles=[])


@pytest.mark.slow
@pytest.mark.parametrize("level", [30, 10])
def test_errors_are_as_large_as_the_covariance_says(level, rng):
    square, rotation = [], []
    for _ in range(60):
        angle, scale = rng.uniform(-3, 3), math.exp(rng.uniform(-0.5, 0.5))
        truth = pose(angle, scale, rng.uniform(-6, 6, 2))
        pair = picture_pair(truth, rng, level=level)
        found = spt.match_orientation(*pair, scale_range=(0.5, 2))
        error = errors(found, truth, (128, 128))
        square.append(error @ np.linalg.solve(found.covariance, error) / 4)
        rotation.append(error[0])
    # The mean of 60 has a standard error of 0.09.
    assert 0.8 < np.mean(square) < 1.25


@pytest.mark.slow
def test_rotation_at_30_db_is_known_to_a_thousandth_of_a_degree(rng):
    error = []
    for _ in range(12):
        truth = pose(rng.uniform(-3, 3), shift=rng.uniform(-4, 4, 2), shape=(256, 256))
        pair = picture_pair(truth, rng, shape=(256, 256), level=30)
        found = spt.match_orientation(*pair)
        error.append(np.degrees(errors(found, truth, (256, 256))[0]))
    # The bound is 0.0004 degrees.
    assert np.sqrt(np.mean(np.square(error))) < 1e-3


@pytest.mark.real
@pytest.mark.parametrize("number", [2, 12])
def test_sections_of_lung_are_found_at_any_angle(number):
    """The same pair, turned by exact quarters: the answers must agree."""
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "zstack" / "lung_sem_12"
    first, second = (
        io.imread(folder / f"2016_12_02_0101_s00_{n:02}.png")
        for n in (number - 1, number)
    )
    found = [spt.match_orientation(first, np.rot90(second, k)) for k in range(3)]
    assert [one.outcome for one in found] == ["matched"] * 3
    # Point (r, c) of the section is (c' = r, ...) after a quarter turn.
    corners = np.array([(200, 200), (200, 600), (600, 200), (600, 600)])
    rows, cols = corners.T
    turned = [corners, np.stack([799 - cols, rows], 1), 799 - corners]
    places = [
        spt.apply_transform(one.matrix, points)
        for one, points in zip(found, turned, strict=True)
    ]
    # Sections are about one degree apart, and the tissue differs by a few pixels.
    assert np.abs(np.degrees(found[0].angle)) < 2
    np.testing.assert_allclose(places[1], places[0], rtol=0, atol=0.3)
    np.testing.assert_allclose(places[2], places[0], rtol=0, atol=0.3)
    assert np.min([one.correlation for one in found]) > 0.3

"""A rectangle of pixels that count is a crop, and what does not count has no say."""

import numpy as np
import pytest
from skimage import color, data

import spectral_tools as spt

# Rows before and after, columns before and after.
BORDERS = [(1, 1, 1, 1), (7, 7, 7, 7), (0, 13, 40, 2)]
BEHIND = ["noise", "zero", "nan", "masked array"]


def picture(name):
    image = getattr(data, name)()
    return 255 * color.rgb2gray(image) if image.ndim == 3 else image.astype(float)


def pair(name, shape=(96, 130), shift=(31, -18), noise=4.0):
    """Two noisy crops of a picture; those of `unrelated` show nothing in common."""
    rng = np.random.default_rng(len(name))
    row, col, (rows, cols) = 90, 60, shape
    scene = picture("coffee" if name == "unrelated" else name)
    other = picture("astronaut") if name == "unrelated" else scene
    first = scene[row : row + rows, col : col + cols]
    row, col = row + shift[0], col + shift[1]
    second = other[row : row + rows, col : col + cols]
    return [each + rng.normal(0, noise, shape) for each in (first, second)]


def framed(image, border, behind):
    """Put an image into a frame; returns it and which pixels count, if that is needed."""
    top, bottom, left, right = border
    valid = np.pad(np.ones(image.shape, bool), ((top, bottom), (left, right)))
    out = np.zeros(valid.shape)
    if behind == "noise":
        out = np.random.default_rng(3).normal(image.mean(), image.std(), valid.shape)
    elif behind == "nan":
        out.fill(np.nan)
    out[valid] = image.ravel()
    if behind == "masked array":
        return np.ma.array(out, mask=~valid), None
    return out, valid if behind in ("noise", "zero") else None


def same_estimate(found, crop, offset=(0, 0)):
    assert found.outcome == crop.outcome
    assert found.false_alarm == crop.false_alarm
    np.testing.assert_array_equal(found.covariance, crop.covariance)
    assert found.correlation == crop.correlation
    assert found.overlap == crop.overlap
    # Sums with whole numbers are rounded.
    np.testing.assert_allclose(found.shift, crop.shift + offset, rtol=0, atol=1e-9)


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["coffee", "astronaut", "unrelated"])
def test_a_frame_that_does_not_count_is_none(name, border, behind):
    crops = pair(name)
    (first, valid0), (second, valid1) = (framed(each, border, behind) for each in crops)
    masks = {"reference_valid": valid0, "moving_valid": valid1}
    for options in ({}, {"guess": (25, -14), "max_shift": 17}):
        crop = spt.phase_correlate(*crops, **options)
        assert (crop.outcome == "matched") == (name != "unrelated")
        same_estimate(spt.phase_correlate(first, second, **masks, **options), crop)


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", ["chelsea", "unrelated"])
def test_a_frame_of_one_image_moves_its_corner_only(name, behind):
    crops = pair(name)
    image, valid = framed(crops[0], (9, 2, 17, 30), behind)
    crop = spt.phase_correlate(*crops)
    found = spt.phase_correlate(image, crops[1], reference_valid=valid)
    same_estimate(found, crop, (9, 17))
    image, valid = framed(crops[1], (9, 2, 17, 30), behind)
    found = spt.phase_correlate(crops[0], image, moving_valid=valid)
    same_estimate(found, crop, (-9, -17))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["coffee", "astronaut", "unrelated"])
def test_tiles_end_where_their_masks_do(name, border):
    crops = pair(name)
    corner = np.array(border)[[0, 2]]
    stage = {"positions": [(0, 0), (27, -20)], "max_shift": 12}
    crop = spt.match_tiles(crops, [(0, 1)], **stage)
    for behind in ("noise", "zero"):
        tiles, masks = zip(
            *(framed(each, border, behind) for each in crops), strict=True
        )
        found = spt.match_tiles(tiles, [(0, 1)], valid=list(masks), **stage)
        assert found.outcome[0] == crop.outcome[0]
        assert found.false_alarm[0] == crop.false_alarm[0]
        np.testing.assert_array_equal(found.covariance, crop.covariance)
        for points in ("reference_points", "moving_points"):
            at, there = getattr(found, points), getattr(crop, points) + corner
            np.testing.assert_allclose(at, there, rtol=0, atol=1e-9)


@pytest.mark.parametrize("behind", ["nan", "masked array"])
@pytest.mark.parametrize("border", BORDERS)
def test_windows_end_where_what_counts_does(border, behind):
    crops = pair("chelsea")
    corner = np.array(border)[[0, 2]]
    points = np.array([[60, 40], [40, 60]]), np.array([[32, 55], [8, 80]])
    crop = spt.refine_pair(*crops, *points, size=64)
    images = [framed(each, border, behind)[0] for each in crops]
    found = spt.refine_pair(*images, *(each + corner for each in points), size=64)
    assert (found.outcome == crop.outcome).all()
    assert (crop.outcome == "matched").any()
    np.testing.assert_array_equal(found.covariance, crop.covariance)
    np.testing.assert_allclose(
        found.reference_points, crop.reference_points + corner, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("behind", BEHIND)
def test_the_pose_in_a_frame_is_that_of_the_crop(behind):
    crops = pair("coffee", (150, 140))
    crops[1] = np.rot90(crops[1])
    borders = (5, 20, 1, 0), (3, 0, 30, 11)
    crop = spt.match_orientation(*crops)
    assert crop.outcome == "matched"
    (first, valid0), (second, valid1) = map(framed, crops, borders, (behind, behind))
    found = spt.match_orientation(
        first, second, reference_valid=valid0, moving_valid=valid1
    )
    assert found.outcome == crop.outcome
    assert found.false_alarm == crop.false_alarm
    points = np.array([(0.0, 0.0), (12.0, 77.0), (139.0, 149.0)])
    np.testing.assert_allclose(
        spt.apply_transform(found.matrix, points + np.array((3, 30))),
        spt.apply_transform(crop.matrix, points) + np.array((5, 1)),
        rtol=0,
        atol=1e-9,
    )
    # The error of the centre of the frame is that of the point where it lies in the crop.
    away = (np.array(second.shape) - crops[1].shape) / 2 - (3, 30)
    row, col = crop.matrix[:2, :2] @ away
    lever = np.eye(4)
    lever[2:, 0] = -col, row
    expected = lever @ crop.covariance @ lever.T
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["disc", "wedge"])
def test_what_does_not_count_has_no_say(kind):
    images = pair("astronaut")
    rows, cols = np.indices(images[0].shape)
    valid = np.hypot(rows - 50, cols - 60) < 45 if kind == "disc" else cols > rows
    found = []
    for behind in (0.0, 255.0, np.nan, -1e30):
        first, second = (np.where(valid, each, behind) for each in images)
        masks = {"reference_valid": valid, "moving_valid": valid}
        found.append(spt.phase_correlate(first, second, **masks))
        tiles = spt.match_tiles([first, second], [(0, 1)], valid=valid)
        shift = tiles.reference_points[0] - tiles.moving_points[0]
        np.testing.assert_allclose(shift, found[-1].shift, rtol=0, atol=1e-9)
        same_estimate(found[-1], found[0])
    pose = [
        spt.match_orientation(np.where(valid, images[0], behind), images[1],
                              reference_valid=valid).matrix
        for behind in (0.0, np.nan)
    ]  # fmt: skip
    np.testing.assert_array_equal(*pose)


@pytest.mark.parametrize("border", [(1, 1, 1, 1), (3, 2, 5, 1), (22, 30, 0, 9)])
@pytest.mark.parametrize("name", ["coffee", "chelsea", "unrelated"])
def test_sharp_padding_is_cut_off_to_the_pixel(name, border):
    crops = pair(name)
    images = [framed(each, border, "padding")[0] for each in crops]
    found = spt.phase_correlate(*images)
    same_estimate(found, spt.phase_correlate(*crops))
    share = 1 - crops[0].size / images[0].size
    np.testing.assert_allclose(found.padding, share, rtol=1e-12)


def test_a_dead_pixel_does_not_hide_padding():
    crops = pair("coffee")
    for each in crops:
        each[50, 70] = np.nan
    images = [framed(each, (12, 9, 20, 15), "padding")[0] for each in crops]
    same_estimate(spt.phase_correlate(*images), spt.phase_correlate(*crops))

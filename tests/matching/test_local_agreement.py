"""A match is one that parts of the overlap repeat, each by itself."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._matching import misfit
from spectral_tools._matching.misfit import measure_misfit
from spectral_tools._matching.shift_fit import fit_shift, fit_windows
from tests.sweeps import sweep


def micrograph(rng, shape, cutoff=0.25):
    return 100 + 30 * spt.gaussian_texture(shape, cutoff=cutoff, rng=rng)


def two_views(rng, shift, size=200, noise=5.0, margin=120):
    scene = micrograph(rng, (size + margin, size + margin))
    views = (
        scene[:size, :size],
        scene[shift[0] : shift[0] + size, shift[1] : shift[1] + size],
    )
    return [view + rng.normal(0, noise, view.shape) for view in views]


def letters(rng, height, width):
    """A bar of white text on black, of blocks of a few pixels."""
    blocks = rng.random((-(-height // 5), -(-width // 4))) > 0.5
    return np.where(np.kron(blocks, np.ones((5, 4))), 255.0, 0.0)[:height, :width]


def written(images, part, text):
    for image in images:
        image[part] = text
    return images


PARTS = {
    "bar": (slice(-26, None), slice(None)),
    "stamp": (slice(4, 20), slice(4, 84)),
    "column": (slice(None), slice(0, 30)),
}


def stamp_both(rng, images, kind):
    return written(images, PARTS[kind], letters(rng, *images[0][PARTS[kind]].shape))


@pytest.mark.parametrize("kind", PARTS)
def test_a_bar_of_text_is_no_match(kind):
    rng = np.random.default_rng(8)
    for shift in ((31, 64), (90, 12), (55, 80)):
        pair = stamp_both(rng, two_views(rng, shift), kind)
        found = spt.phase_correlate(*pair)
        assert found.outcome == "matched"
        np.testing.assert_allclose(found.shift, shift, atol=0.3)


@pytest.mark.parametrize("kind", sweep(["bar", "stamp", "column"], 1))
def test_unrelated_images_with_the_same_text_are_not_matched(kind):
    rng = np.random.default_rng(4)
    for _ in range(6):
        pair = [micrograph(rng, (200, 200)) for _ in "ab"]
        found = spt.phase_correlate(*stamp_both(rng, pair, kind))
        assert found.outcome != "matched"
        assert found.false_alarm > 1e-3


def test_a_title_and_a_bar_are_no_match():
    rng = np.random.default_rng(8)
    for shift in ((31, 64), (90, 12), (55, 80)):
        pair = stamp_both(rng, two_views(rng, shift), "bar")
        written(pair, slice(20), letters(rng, 20, 200))
        found = spt.phase_correlate(*pair)
        right = np.abs(found.shift - shift).max() < 0.3
        assert right or found.outcome != "matched"


def test_an_object_that_moved_by_itself_is_no_match():
    rng = np.random.default_rng(2)
    rows, cols = np.indices((200, 200))
    for _ in range(4):
        first, second = two_views(rng, (18, 27))
        first += 200 * np.exp(-(((np.hypot(rows - 110, cols - 90) - 13) / 2) ** 2))
        second += 200 * np.exp(-(((np.hypot(rows - 70, cols - 110) - 13) / 2) ** 2))
        found = spt.phase_correlate(first, second)
        np.testing.assert_allclose(found.shift, (18, 27), atol=0.3)
        assert found.outcome == "matched"


@pytest.mark.parametrize("number", sweep([6, 20], 1))
def test_what_is_left_out_leaves_no_edges_that_match(number):
    """Objects that meet by chance are left out, and holes in both images would match."""
    rng = np.random.default_rng(number)
    rows, cols = np.mgrid[:190, :190]

    def objects():
        image = np.zeros((190, 190))
        for row, col in rng.uniform(0, 190, (number, 2)):
            wide, bright = rng.uniform(3, 7), rng.uniform(0.5, 2)
            image += bright * np.exp(
                -((rows - row) ** 2 + (cols - col) ** 2) / (2 * wide**2)
            )
        return image + 0.003 * rng.normal(size=image.shape)

    matched = [
        spt.phase_correlate(objects(), objects()).outcome == "matched"
        for _ in range(24)
    ]
    assert sum(matched) <= 1


def camera_defects(rng, images, kind):
    """Give images the same dead rows and columns, hot pixels or uneven columns."""
    size = images[0].shape[0]
    if kind == "columns":
        uneven = rng.normal(0, 12, size)
        return [image + uneven for image in images]
    if kind == "dead":
        rows, cols = rng.integers(0, size, 3), rng.integers(0, size, 3)
        for image in images:
            image[rows] = image[:, cols] = 0
    else:
        hot = rng.random((size, size)) < 1e-3
        for image in images:
            image[hot] = 400
    return images


@pytest.mark.parametrize("kind", ["dead", "hot", "columns"])
def test_a_camera_that_stands_still_is_no_match(kind):
    rng = np.random.default_rng(12)
    matched = 0
    for shift in ((120, 11), (9, 125), (100, 60)):
        pair = two_views(rng, shift, margin=130)
        found = spt.phase_correlate(*camera_defects(rng, pair, kind))
        if found.outcome != "not found":
            np.testing.assert_allclose(found.shift, shift, atol=1)
            matched += 1
        pair = [two_views(rng, (0, 0))[0] for _ in "ab"]
        found = spt.phase_correlate(*camera_defects(rng, pair, kind))
        assert found.outcome != "matched"
    assert matched >= 2


@pytest.mark.parametrize("kind", ["dead", "hot"])
def test_a_camera_with_defects_sees_a_scene_that_stands_still(kind):
    rng = np.random.default_rng(13)
    pair = two_views(rng, (0, 0))
    found = spt.phase_correlate(*camera_defects(rng, pair, kind))
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, 0, atol=0.05)
    # Stars are as small as defects, and all that there is.
    rows, cols = np.indices((200, 200))
    places, light = rng.uniform(0, 200, (40, 2)), rng.exponential(300, 40) + 60
    sky = sum(
        each * np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 2)
        for (r, c), each in zip(places, light, strict=True)
    )
    found = spt.phase_correlate(*(sky + rng.normal(0, 2, sky.shape) for _ in "ab"))
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, 0, atol=0.02)


def test_a_shift_of_zero_is_matched_where_all_of_the_overlap_says_so():
    rng = np.random.default_rng(6)
    scene = micrograph(rng, (200, 200))
    pair = [scene + rng.normal(0, 5, scene.shape) for _ in "ab"]
    found = spt.phase_correlate(*stamp_both(rng, pair, "bar"))
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, 0, atol=0.1)


def test_stars_in_common_are_matched():
    rng = np.random.default_rng(3)
    rows, cols = np.indices((220, 220))
    places, light = rng.uniform(0, 300, (90, 2)), rng.exponential(300, 90) + 60

    def sky(corner):
        spots = (
            each
            * np.exp(-((rows + corner[0] - r) ** 2 + (cols + corner[1] - c) ** 2) / 4)
            for (r, c), each in zip(places, light, strict=True)
        )
        return sum(spots) + rng.normal(0, 2, rows.shape)

    found = spt.phase_correlate(sky((0, 0)), sky((70.4, 41.7)))
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, (70.4, 41.7), atol=0.03)


@pytest.mark.parametrize("axis", [0, 1])
def test_narrow_overlaps_deep_in_noise_are_matched(axis):
    rng = np.random.default_rng(21)
    for number in range(30):
        scene = spt.gaussian_texture((250, 250), rng=number)
        shift = np.roll((rng.uniform(98, 110), rng.uniform(-8, 8)), axis)
        start = np.maximum(-np.rint(shift), 0).astype(int), np.rint(shift).astype(int)
        corners = start[0], start[0] + start[1]
        pair = [
            scene[r : r + 128, c : c + 128] + rng.normal(0, 0.6, (128, 128))
            for r, c in corners
        ]
        guess = np.roll((104.0, 0.0), axis)
        found = spt.phase_correlate(*pair, guess=guess, max_shift=12)
        assert found.outcome == "matched"
        np.testing.assert_allclose(found.shift, start[1], atol=0.5)


@pytest.mark.parametrize("size", [16, 24, 40])
def test_small_images_are_matched(size):
    rng = np.random.default_rng(size)
    scene = spt.gaussian_texture((size + 4, size + 4), cutoff=0.3, rng=rng)
    found = spt.phase_correlate(
        scene[:size, :size], scene[3 : 3 + size, 2 : 2 + size], max_shift=5
    )
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, (3, 2), atol=0.05)


def bent_pair(rng, bend, noise=1.5):
    """Two strips whose shift along the columns varies along them, and its mean."""
    scene = micrograph(rng, (430, 130))
    rows, cols = np.mgrid[:420, :100].astype(float)
    curve = bend * np.sin(rows / 420 * np.pi) ** 2 + 0.4 * bend * rows / 420
    moved = ndimage.map_coordinates(scene, [rows, cols + 9 + curve], order=5)
    pair = scene[:420, :100], moved
    return *(each + rng.normal(0, noise, each.shape) for each in pair), curve


def test_all_parts_are_compared_half_a_pixel_off(monkeypatch):
    """Fits keep a whole shift a little beyond half a pixel, and cells with it."""
    seen = []

    def watched(*arguments, **options):
        parts = fit_windows(*arguments, **options)
        seen.append(parts.found.all())
        return parts

    monkeypatch.setattr(misfit, "fit_windows", watched)
    scene = spt.gaussian_texture((260, 220), cutoff=0.2, rng=31)
    first = scene[20:220, 10:70]
    for fraction in (0.45, 0.5, 0.55):
        moved = ndimage.shift(scene, (0.1, fraction), order=5)[20:220, 30:90]
        pair = [each[np.newaxis].astype(np.float32) for each in (first, moved)]
        start = np.array([0.0, -0.1, 20 - fraction])
        fit = fit_shift(*pair, start)
        for whole in (19.0, 20.0):
            kept = fit.blocks.whole * [1, 1, 0] + [[0, 0, whole]]
            blocks = replace(
                fit.blocks, whole=kept, block=np.array([1, 200, 60 - int(whole)])
            )
            measure_misfit(pair, replace(fit, blocks=blocks), None, 1e-3)
    assert len(seen) >= 6
    assert all(seen)


def test_bent_overlaps_state_what_they_are_wrong_by():
    rng = np.random.default_rng(12)
    for bend in (0.8, 2.5):
        sigmas = []
        for _ in range(6):
            first, second, curve = bent_pair(rng, bend)
            found = spt.phase_correlate(first, second, max_shift=16)
            assert found.misfit > 3
            away = found.shift[1] - 9 - curve.mean()
            sigmas.append(away / np.sqrt(found.covariance[1, 1]))
        assert 0.05 < np.sqrt(np.mean(np.square(sigmas))) < 2
    found = spt.phase_correlate(*bent_pair(rng, 0.0)[:2], max_shift=16)
    assert found.misfit < 1.4
    assert np.sqrt(found.covariance[1, 1]) < 0.02


def test_parts_of_rigid_overlaps_do_not_contradict_each_other():
    rng = np.random.default_rng(1)
    told = []
    for _ in range(12):
        pair = two_views(rng, (11, 14), noise=20.0)
        told.append(spt.phase_correlate(*pair).misfit)
    assert 0.8 < np.sqrt(np.mean(np.square(told))) < 1.2


def test_what_carries_a_match_of_few_planes_is_left_out_once():
    """A search that leaves out nothing more than the last one ends."""
    rng = np.random.default_rng(5)
    volumes = [rng.normal(size=(4, 60, 60)) for _ in "ab"]
    bar = 0.03 * letters(rng, 60, 60)[:10]
    for volume in volumes:
        volume[1:3, :10] = bar
    found = spt.phase_correlate(*volumes)
    assert found.outcome != "matched"

"""Sections at any angle: truth, drift, and bad sections."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from skimage import io

import spectral_tools as spt
from tests.sweeps import sweep

SIDE = 160
SCENE = 640


def placed(angle, shift, *, linear=None, mirrored=False, side=SIDE):
    """Matrix from a section to the scene, whose middle the section shows."""
    centre, middle = (side - 1) / 2, (SCENE - 1) / 2
    turn = spt.rotation(angle)
    flip = np.diag([1.0, -1.0 if mirrored else 1.0, 1.0])
    bend = np.eye(3)
    if linear is not None:
        bend[:2, :2] = linear
    out = spt.translation(np.full(2, middle) + shift)
    return out @ bend @ turn @ flip @ spt.translation(np.full(2, -centre))


def sections_of(truth, rng, *, level=20, side=SIDE, change=0.1):
    """Cut sections from a scene that changes from one texture to another."""
    first, last = (
        spt.gaussian_texture((SCENE, SCENE), cutoff=0.2, rng=rng) for _ in range(2)
    )
    sections = []
    for number, way in enumerate(truth):
        # What is new in each section looks like what was there before.
        angle = change * number / len(truth) * math.pi / 2
        scene = math.cos(angle) * first + math.sin(angle) * last
        picture = ndimage.affine_transform(
            scene, way[:2, :2], way[:2, 2], (side, side), order=5, mode="grid-wrap"
        )
        noise = 10 ** (-level / 20) * rng.normal(size=picture.shape)
        sections.append(picture.astype(np.float32) + noise.astype(np.float32))
    return sections


def random_truth(rng, count, *, side=SIDE):
    return np.array(
        [
            placed(rng.uniform(-np.pi, np.pi), rng.uniform(-30, 30, 2), side=side)
            for _ in range(count)
        ]
    )


def errors(matrices, truth, *, side=SIDE):
    """Errors of angles in degrees, and of corners in pixels, beside the first section."""
    corners = np.array([(0, 0), (0, side - 1), (side - 1, 0), (side - 1, side - 1)])
    angles, shifts = [], []
    for found, true in zip(matrices, truth, strict=True):
        lie = np.linalg.inv(truth[0]) @ true
        miss = np.linalg.inv(matrices[0]) @ found @ np.linalg.inv(lie)
        angles.append(math.degrees(math.atan2(miss[1, 0], miss[0, 0])))
        middle = spt.apply_transform(lie, corners)
        shifts.append(spt.apply_transform(miss, middle) - middle)
    return np.array(angles), np.array(shifts)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.fixture(scope="module")
def spun():
    """Six sections at random angles, and the truth."""
    rng = np.random.default_rng(5)
    truth = random_truth(rng, 6)
    return sections_of(truth, rng), truth


@pytest.fixture(scope="module")
def whole(spun):
    """What the six sections are found to be."""
    return spt.align_stack(spun[0])


def close(found, truth, rows):
    """Check matrices of some sections: what is new in each moves it by 0.05 px."""
    angles, shifts = errors(found.matrices[rows], truth[rows])
    return rms(angles) < 0.05 and rms(shifts) < 0.15


def test_sections_at_random_angles_are_placed():
    rng = np.random.default_rng(5)
    truth = random_truth(rng, 10, side=224)
    found = spt.align_stack(sections_of(truth, rng, side=224), fixed=0)
    assert (found.outcome == "matched").all()
    assert (found.group == 0).all()
    angles, shifts = errors(found.matrices, truth, side=224)
    # What such a stack is to do: a section is new to a part in sixty, and noisy. The
    # mean error is that of the first section, to which all others are compared.
    assert np.std(angles) < 0.01
    assert rms(shifts) < 0.1
    assert_allclose(found.matrices[0], np.eye(3), rtol=0, atol=1e-12)


def test_the_mean_angle_and_the_mean_place_are_those_of_the_frame(whole):
    matrices = whole.matrices
    linear = matrices[:, :2, :2]
    unit = np.tile(np.eye(2), (6, 1, 1))
    assert_allclose(linear @ linear.transpose(0, 2, 1), unit, rtol=0, atol=1e-12)
    mean = linear.mean(axis=0)
    assert_allclose(mean[1, 0], mean[0, 1], rtol=0, atol=1e-9)
    centre = np.full(2, (SIDE - 1) / 2)
    places = [spt.apply_transform(matrix, centre) for matrix in matrices]
    assert_allclose(np.mean(places, axis=0), centre, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_links_that_reach_further_drift_less():
    ends = {1: [], 3: []}
    for number in range(2):
        rng = np.random.default_rng(number)
        truth = random_truth(rng, 8)
        # In noise as strong as the contrast, each link has an error of its own.
        sections = sections_of(truth, rng, level=0, change=0)
        for reach, far in ends.items():
            found = spt.align_stack(sections, reach=reach, fixed=0)
            assert (found.outcome == "matched").all()
            far.append(rms(errors(found.matrices, truth)[1][-1]))
    assert rms(ends[3]) < 0.7 * rms(ends[1])


@pytest.mark.parametrize("reach", [1, 2])
def test_bad_sections_are_bridged(spun, reach):
    sections, truth = list(spun[0]), spun[1]
    sections[2] = np.full((SIDE, SIDE), 7, np.uint8)
    sections[4] = spt.gaussian_texture((SIDE, SIDE), cutoff=0.2, rng=99)
    found = spt.align_stack(sections, reach=reach, fixed=0)
    words = ["matched", "matched", "no texture", "matched", "isolated", "matched"]
    assert found.outcome.tolist() == words
    assert all(isinstance(one, spt.Outcome) for one in found.outcome)
    assert all(isinstance(one, spt.Outcome) for one in found.pair_outcome)
    good = [0, 1, 3, 5]
    assert close(found, truth, good)
    assert len(set(found.group[good])) == 1
    centre = np.full(2, (SIDE - 1) / 2)
    places = [spt.apply_transform(matrix, centre) for matrix in found.matrices]
    assert_allclose(places[4], (places[3] + places[5]) / 2, rtol=0, atol=1e-9)
    turn = [math.atan2(m[1, 0], m[0, 0]) for m in found.matrices]
    assert_allclose(
        math.remainder(2 * turn[4] - turn[3] - turn[5], 2 * math.pi), 0, atol=1e-9
    )


def test_a_section_with_torn_parts_is_placed_by_the_rest(spun):
    sections, truth = [s.copy() for s in spun[0]], spun[1]
    sections[3][60:130, 10:90] = spt.gaussian_texture((70, 80), cutoff=0.2, rng=3)
    found = spt.align_stack(sections, fixed=0)
    assert (found.outcome == "matched").all()
    assert close(found, truth, [0, 1, 2, 3, 4, 5])


def test_stacks_without_a_link_are_two_groups():
    rng = np.random.default_rng(8)
    truth = random_truth(rng, 3)
    sections = sections_of(truth, rng) + sections_of(truth, rng)
    found = spt.align_stack(sections)
    assert found.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.outcome == "matched").all()
    assert close(found, np.concatenate([truth, truth]), [0, 1, 2])
    assert close(found, np.concatenate([truth, truth]), [3, 4, 5])


@pytest.mark.slow
def test_sections_that_stretch_and_shear_are_anchored():
    rng = np.random.default_rng(11)
    linear = np.eye(2) + 0.02 * rng.uniform(-1, 1, (8, 2, 2))
    truth = np.array(
        [
            placed(
                rng.uniform(-3, 3), rng.uniform(-20, 20, 2), linear=bend, side=224
            )
            for bend in linear
        ]
    )  # fmt: skip
    sections = sections_of(truth, rng, side=224)
    found = spt.align_stack(sections, model="affine")
    assert (found.outcome == "matched").all()
    size = np.linalg.det(found.matrices[:, :2, :2])
    assert abs(size.mean() - 1) < 2e-3
    assert np.abs(size - 1).max() < 0.05
    _, shifts = errors(found.matrices, truth, side=224)
    # Corners lie beyond all windows, and a section has six unknowns.
    assert rms(shifts) < 0.15
    rigid = spt.align_stack(sections)
    assert rms(errors(rigid.matrices, truth, side=224)[1]) > 5 * rms(shifts)


def test_a_fixed_section_stays_also_if_others_stretch(spun):
    found = spt.align_stack(spun[0], model="affine", fixed=2)
    assert_allclose(found.matrices[2], np.eye(3), rtol=0, atol=1e-12)
    size = np.linalg.det(found.matrices[:, :2, :2])
    # Nothing stretches here, and nothing drifts.
    assert_allclose(size, 1, rtol=0, atol=2e-3)


def test_sections_that_lie_upside_down_are_turned_over():
    rng = np.random.default_rng(12)
    flips = [False, True, False, False, True]
    truth = np.array(
        [placed(rng.uniform(-3, 3), (5, -8), mirrored=flip) for flip in flips]
    )
    sections = sections_of(truth, rng)
    found = spt.align_stack(sections, mirror=True, fixed=0)
    assert (found.outcome == "matched").all()
    assert (np.linalg.det(found.matrices[:, :2, :2]) < 0).tolist() == flips
    assert close(found, truth, [0, 1, 2, 3, 4])


def test_angles_beyond_the_bound_are_refused():
    rng = np.random.default_rng(13)
    truth = np.array([placed(angle, (0, 0)) for angle in (0, 0.1, 1.2, 0.05)])
    found = spt.align_stack(sections_of(truth, rng), max_rotation=0.2)
    assert found.outcome.tolist() == ["matched", "matched", "isolated", "matched"]


@pytest.mark.slow
def test_pixels_that_do_not_count_do_not_pull(spun):
    sections, truth = [section.copy() for section in spun[0]], spun[1]
    valid = np.ones((SIDE, SIDE), np.bool_)
    valid[:, 120:] = False
    for section in sections:
        section[:, 120:] = 50 * np.sin(np.arange(40) / 3)
    masked = spt.align_stack(sections, valid=valid, fixed=0)
    assert (masked.outcome == "matched").all()
    # Three quarters of each section are left, and less than half of some pairs.
    angles, shifts = errors(masked.matrices, truth)
    assert rms(angles) < 0.1
    assert rms(shifts) < 0.15
    for section in sections:
        section[~valid] = np.nan
    again = spt.align_stack(sections, fixed=0)
    assert_array_equal(again.matrices, masked.matrices)


@pytest.mark.parametrize("side", [120, 540])
def test_sections_in_a_mask_are_as_if_cut_out(side):
    rng = np.random.default_rng(16)
    truth = np.array([placed(angle, (0, 0), side=side) for angle in (0, 2, -1)])
    cut = np.stack(sections_of(truth, rng, side=side))
    corners = np.array([(7, 40), (31, 3), (0, 0)])
    whole = np.full((3, side + 60, side + 60), 1e4, cut.dtype)
    valid = np.zeros(whole.shape, np.bool_)
    for n, (row, col) in enumerate(corners):
        whole[n, row : row + side, col : col + side] = cut[n]
        valid[n, row : row + side, col : col + side] = True
    plain, masked = (
        spt.align_stack(cut, fixed=0),
        spt.align_stack(whole, valid=valid, fixed=0),
    )
    assert masked.outcome.tolist() == plain.outcome.tolist() == ["matched"] * 3
    for name in ("covariance", "correlation", "false_alarm"):
        assert_array_equal(getattr(masked, name), getattr(plain, name))
    first, second = masked.links.T
    for name, tile in (("reference_points", first), ("moving_points", second)):
        found = getattr(masked, name) - corners[tile]
        assert_allclose(found, getattr(plain, name), rtol=0, atol=1e-10)


def test_large_sections_are_matched_on_means_of_blocks():
    rng = np.random.default_rng(14)
    truth = np.array([placed(angle, (0, 0), side=540) for angle in (0, 2, -1)])
    found = spt.align_stack(sections_of(truth, rng, side=540), fixed=0)
    assert (found.outcome == "matched").all()
    angles, shifts = errors(found.matrices, truth, side=540)
    # Blocks have two pixels; the texture shows hardly more than they do.
    assert rms(angles) < 0.01
    assert rms(shifts) < 0.1


def test_shapes_may_differ(spun):
    sections, truth = list(spun[0]), spun[1].copy()
    sections[1] = sections[1][:150, 12:]
    truth[1] = truth[1] @ spt.translation((0, 12))
    found = spt.align_stack(sections, fixed=0)
    assert (found.outcome == "matched").all()
    assert close(found, truth, [0, 1, 2, 3, 4, 5])


def test_points_fit_to_the_matrices(whole):
    found = whole
    ends = [
        np.array(
            [spt.apply_transform(found.matrices[n], p) for n, p in zip(*s, strict=True)]
        )
        for s in (
            (found.links[:, 0], found.reference_points),
            (found.links[:, 1], found.moving_points),
        )
    ]
    assert_allclose(ends[0] - ends[1], found.residuals, rtol=0, atol=1e-9)
    assert rms(found.residuals[found.inlier]) < 0.3
    assert (found.correlation > 0.8).all()
    assert (found.false_alarm < 1e-3).all()


def test_workers_do_not_change_a_bit(spun):
    alone = spt.align_stack(spun[0][:3])
    threads = spt.align_stack(spun[0][:3], workers=2)
    with ThreadPoolExecutor(2) as pool:
        pooled = spt.align_stack(spun[0][:3], workers=pool.map)
    assert_array_equal(alone.matrices, threads.matrices)
    assert_array_equal(alone.matrices, pooled.matrices)


def test_a_stack_that_shows_nothing_stays():
    found = spt.align_stack(np.zeros((3, 20, 30)))
    assert (found.outcome == "no texture").all()
    assert_array_equal(found.matrices, np.tile(np.eye(3), (3, 1, 1)))
    assert found.links.shape == (0, 2)


GOOD = np.zeros((3, 32, 32))


@pytest.mark.parametrize(
    ("sections", "options", "error", "words"),
    [
        (GOOD[:1], {}, ValueError, "`sections` must hold at least two"),
        (GOOD[:, 0], {}, ValueError, "`sections` must hold 2-D images"),
        (GOOD + 1j, {}, TypeError, "`sections` must hold real numbers"),
        (GOOD, {"reach": 0}, ValueError, "`reach` must be at least 1"),
        (GOOD, {"model": "bent"}, ValueError, "`model` must be 'rigid' or"),
        (GOOD, {"fixed": 3}, ValueError, "`fixed` must be one of 3 sections"),
        (GOOD, {"max_rotation": 0}, ValueError, "`max_rotation` must be finite"),
        (GOOD, {"valid": [None]}, ValueError, "`valid` must hold one mask for each"),
        (GOOD, {"valid": GOOD[0]}, TypeError, "`valid` must be boolean"),
        (GOOD, {"workers": 0}, ValueError, "`workers` must be at least 1"),
    ],
)
def test_bad_input_is_refused(sections, options, error, words):
    with pytest.raises(error, match=words):
        spt.align_stack(sections, **options)


# Sections of lung


def neighbour_correlation(sections, matrices, share, fields=None):
    """Return the mean correlation of neighbours at half resolution, in the middle."""
    rows, cols = sections[0].shape
    moved = []
    for number, (section, matrix) in enumerate(zip(sections, matrices, strict=True)):
        field = None if fields is None else fields[number]
        warped = spt.warp_image(section.astype(float), matrix, displacement=field)
        half = warped.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3))
        rim = [round(n * (1 - share) / 2) for n in half.shape]
        moved.append(half[rim[0] : -rim[0], rim[1] : -rim[1]].ravel())
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(moved)])


@pytest.mark.real
@pytest.mark.parametrize(
    ("model", "least"), sweep([("rigid", 0.88), ("affine", 0.90)], 1)
)
def test_sections_of_lung_fit_together(model, least):
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "zstack" / "lung_sem_12"
    sections = [io.imread(path) for path in sorted(folder.glob("*.png"))]
    found = spt.align_stack(sections, model=model)
    assert (found.outcome == "matched").all()
    assert (found.pair_outcome == "matched").all()
    # Where the tissue differs from section to section nothing brings it together. In the
    # central half that leaves room for more than these.
    assert neighbour_correlation(sections, found.matrices, 0.5) >= least
    # In the central 60 % even a field for each pair by itself comes to 0.89 only.
    assert neighbour_correlation(sections, found.matrices, 0.6) >= least - 0.02

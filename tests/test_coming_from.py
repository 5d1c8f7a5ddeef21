"""What the page for those who come from elsewhere says, of us and of them, is true."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage
from skimage.registration import phase_cross_correlation
from skimage.transform import AffineTransform, warp

import spectral_tools as spt

PATH = Path(__file__).parents[1] / "docs" / "coming_from.rst"
PAGE = PATH.read_text()


def shown(call, **names):
    """Evaluate a call that the page shows."""
    assert f"``{call}``" in PAGE
    return eval(call, names | {"np": np})


@pytest.fixture(scope="module")
def turned():
    """Two images, related by a turn, and points in both."""
    moving = spt.gaussian_texture((160, 180), cutoff=0.2, rng=5).astype(np.float32)
    truth = spt.translation((3, -2)) @ spt.rotation(0.05, center=(80, 90))
    reference = spt.warp_image(moving, truth, order=3)
    moving_points = np.array([(40.0, 50), (120, 60), (60, 140), (110, 130)])
    return reference, moving, truth, moving_points


@pytest.fixture
def rolled():
    noise = np.random.default_rng(6).normal(size=(96, 80))
    reference = ndimage.gaussian_filter(noise, 2, mode="wrap")
    return reference, np.roll(reference, (5, -3), axis=(0, 1))


def test_lines_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(PATH), module_relative=False, optionflags=flags)
    assert result.attempted > 40
    assert result.failed == 0


def test_shift_of_scikit_image_is_ours(rolled):
    reference, moving = rolled
    theirs = shown(
        "phase_cross_correlation(reference, moving, upsample_factor=100)[0]",
        phase_cross_correlation=phase_cross_correlation,
        reference=reference,
        moving=moving,
    )
    # Whole pixels of a periodic image.
    assert_allclose(theirs, spt.phase_correlate(*rolled).shift, atol=0.02)


def test_shift_of_opencv_is_swapped_and_negative(rolled):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    reference, moving = rolled
    (x, y), _ = shown(
        "cv2.phaseCorrelate(reference, moving)",
        cv2=cv2,
        reference=reference,
        moving=moving,
    )
    # Theirs is the centroid of a peak, good to some hundredths.
    assert_allclose((-y, -x), spt.phase_correlate(*rolled).shift, atol=0.1)


def test_transform_of_scikit_image_is_ours_swapped(turned):
    reference, moving, truth, points = turned
    model = shown(
        "AffineTransform.from_estimate(moving_xy, reference_xy)",
        AffineTransform=AffineTransform,
        moving_xy=points[:, ::-1],
        reference_xy=spt.apply_transform(truth, points)[:, ::-1],
    )
    assert_allclose(spt.swap_xy_matrix(model.params), truth, atol=1e-9)
    moved = shown("warp(moving, model.inverse)", warp=warp, moving=moving, model=model)
    inside = (slice(20, -20),) * 2
    # Theirs interpolates linearly.
    assert np.corrcoef(moved[inside].ravel(), reference[inside].ravel())[0, 1] > 0.98


def test_transform_of_opencv_is_ours_swapped(turned):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    reference, moving, truth, points = turned
    matrix = shown(
        "cv2.estimateAffine2D(moving_xy, reference_xy)[0]",
        cv2=cv2,
        moving_xy=points[:, ::-1],
        reference_xy=spt.apply_transform(truth, points)[:, ::-1],
    )
    assert_allclose(spt.swap_xy_matrix(matrix), truth, atol=1e-6)
    rows, cols = reference.shape
    moved = shown(
        "cv2.warpAffine(moving, M, (cols, rows))",
        cv2=cv2,
        moving=moving,
        M=matrix,
        rows=rows,
        cols=cols,
    )
    inside = (slice(20, -20),) * 2
    # Theirs interpolates linearly.
    assert np.corrcoef(moved[inside].ravel(), reference[inside].ravel())[0, 1] > 0.98


def test_ecc_of_opencv_leads_from_reference_to_moving(turned):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    reference, moving, truth, _ = turned
    matrix = shown(
        "cv2.findTransformECC(reference, moving, "
        'np.eye(2, 3, dtype="f4"), cv2.MOTION_EUCLIDEAN)[1]',
        cv2=cv2,
        reference=reference,
        moving=moving,
    )
    ours = np.linalg.inv(spt.swap_xy_matrix(matrix))
    # It stops where its score hardly changes: good to a tenth of a pixel.
    assert_allclose(ours, truth, atol=0.1)


def test_rigid_transform_of_the_tutorials_is_what_warp_takes(turned):
    reference, moving, truth, points = turned
    model = AffineTransform.from_estimate(
        spt.apply_transform(truth, points)[:, ::-1], points[:, ::-1]
    )
    moved = warp(moving, model)
    inside = (slice(20, -20),) * 2
    assert np.corrcoef(moved[inside].ravel(), reference[inside].ravel())[0, 1] > 0.98

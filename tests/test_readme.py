"""What the README and the conventions page show is true."""

import doctest
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import skimage.registration
import skimage.transform
from numpy.testing import assert_allclose
from scipy import ndimage

import spectral_tools as spt

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OWN_FILES, OTHERS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

#: Moving image = reference rolled by this; the arrow back is its negative.
ROLL = np.array([5, -3])


@pytest.fixture
def pair():
    """A periodic texture and the same rolled by ROLL."""
    noise = np.random.default_rng(8).normal(size=(96, 80))
    reference = ndimage.gaussian_filter(noise, 2, mode="wrap")
    return reference, np.roll(reference, ROLL, axis=(0, 1))


@pytest.fixture
def stitched(tmp_path, monkeypatch):
    """Files as the README wants them, then its lines run as they stand."""
    rng = np.random.default_rng(20)
    noise = ndimage.gaussian_filter(rng.normal(size=(480, 640)), 2)
    scene = np.clip(20000 + 80000 * noise, 0, 65535).astype(np.uint16)
    nominal = np.array([(row, col) for row in (20, 200) for col in (20, 200, 380)])
    truth = nominal + rng.integers(-6, 7, nominal.shape)
    (tmp_path / "tiles").mkdir()
    for number, (row, col) in enumerate(truth):
        tile = scene[row : row + 230, col : col + 230]
        skimage.io.imsave(tmp_path / "tiles" / f"{number}.tif", tile)
    np.savetxt(tmp_path / "stage.csv", nominal, delimiter=",")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "own_files.py"
    script.write_text(OWN_FILES)
    return runpy.run_path(str(script)), truth, scene


def test_readme_lines_find_the_true_places(stitched):
    names, truth, _ = stitched
    found = names["placed"].matrices[:, :2, 2]
    # Whole-pixel moves of a noise-free scene.
    assert_allclose(found - found[0], truth - truth[0], rtol=0, atol=0.05)


def test_readme_lines_write_the_scene_as_a_mosaic(stitched):
    names, truth, scene = stitched
    written = skimage.io.imread("mosaic.tif")
    assert written.dtype == np.uint16
    matrices = names["placed"].matrices
    offset = (truth - matrices[:, :2, 2]).mean(axis=0) + names["mosaic"].origin
    row, col = np.round(offset).astype(int) + 40
    inner = written[40:-40, 40:-40]
    expected = scene[row : row + inner.shape[0], col : col + inner.shape[1]]
    # Tiles fall between the pixels of the mosaic, which bilinear sampling blurs
    # a little.
    assert np.corrcoef(inner.ravel(), expected.ravel())[0, 1] > 0.97


def test_readme_lines_align_movies_stacks_and_instruments(tmp_path):
    rng = np.random.default_rng(21)
    scene = ndimage.gaussian_filter(rng.normal(size=(300, 300)), 2) * 10
    truth = np.array([(0, 0), (2, -1), (4, 1), (3, 3), (1, 2), (-1, 1)])
    frames = np.stack([scene[40 - r : 140 - r, 40 - c : 150 - c] for r, c in truth])
    sections = [
        scene[40:240, 40:240],
        ndimage.rotate(scene, 5, reshape=False)[40:240, 40:240],
    ]
    survey = scene[20:276, 20:276]
    weights = np.array([1.0, 0.5, 2.0])
    spectra = -scene[26:282, 15:271, np.newaxis] * weights
    names = {
        "frames": frames,
        "sections": sections,
        "survey": survey,
        "spectra": spectra,
    }
    script = tmp_path / "others.py"
    script.write_text(OTHERS)
    names = runpy.run_path(str(script), names)
    # Frames lie on each other where they all show the scene.
    inner = names["still"][:, 10:-10, 10:-10]
    assert np.abs(inner - inner[0]).max() < 0.02 * scene.std()
    turned = names["stack"].matrices[1] @ np.linalg.inv(names["stack"].matrices[0])
    angle = np.degrees(np.arctan2(turned[1, 0], turned[0, 0]))
    assert_allclose(abs(angle), 5, atol=0.05)
    assert_allclose(names["onto"].matrix[:2, 2], (6, -5), atol=0.05)
    shown = names["on_survey"][40:-40, 40:-40, 1]
    assert_allclose(shown, -0.5 * survey[40:-40, 40:-40], atol=0.05 * scene.std())


@pytest.mark.parametrize("command", re.findall(r"```bash\n(.*?)\n```", README))
def test_readme_commands_name_files_and_extras_that_exist(command):
    project = (ROOT / "pyproject.toml").read_text()
    for script in re.findall(r"python (\S+\.py)", command):
        assert (ROOT / script).is_file()
    for extra in re.findall(r"\.\[(\w+)\]", command):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)(.+?)\)", README))
def test_readme_links_lead_somewhere(target):
    assert (ROOT / target).exists()


# The table of the conventions page


def test_examples_of_the_conventions_page_run():
    page = ROOT / "docs" / "conventions.rst"
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0


def test_scikit_image_shift_has_our_sign(pair):
    shift, _, _ = skimage.registration.phase_cross_correlation(*pair)
    assert_allclose(shift, -ROLL, rtol=0, atol=0)


def test_opencv_shift_is_x_y_and_has_the_other_sign(pair):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    (dx, dy), _ = cv2.phaseCorrelate(*pair)
    # A centroid of the peak on whole-pixel moves: good to a few hundredths.
    assert_allclose((-dy, -dx), -ROLL, rtol=0, atol=0.1)


def test_scikit_image_matrix_is_ours_with_axes_swapped():
    theirs = skimage.transform.AffineTransform(
        scale=(1.2, 0.9), rotation=0.3, shear=0.1, translation=(7, -2)
    )
    point = np.array([4.0, 9.0])
    ours = spt.swap_xy_matrix(theirs.params)
    assert_allclose(spt.apply_transform(ours, point), theirs(point[::-1])[0, ::-1])


def test_scikit_image_angle_runs_the_other_way():
    theirs = skimage.transform.EuclideanTransform(rotation=0.3)
    ours = spt.swap_xy_matrix(theirs.params)
    assert_allclose(ours, spt.rotation(-0.3), rtol=0, atol=1e-15)


def test_scikit_image_warp_takes_the_inverse():
    image = np.zeros((20, 30))
    image[4, 9] = 1
    inverse_map = np.linalg.inv(spt.swap_xy_matrix(spt.translation((3, 7))))
    moved = skimage.transform.warp(image, inverse_map, order=0)
    assert np.argwhere(moved).tolist() == [[7, 16]]


def test_opencv_warp_matrix_is_ours_with_axes_swapped():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    image = np.zeros((20, 30), np.float32)
    image[4, 9] = 1
    theirs = spt.swap_xy_matrix(spt.translation((3, 7)))[:2]
    moved = cv2.warpAffine(image, theirs, (30, 20))
    assert np.argwhere(moved).tolist() == [[7, 16]]

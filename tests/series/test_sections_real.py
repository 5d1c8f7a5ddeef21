"""Stained sections, and radar beside light, in the folder SPECTRAL_TOOLS_DATA names."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import io

import spectral_tools as spt

pytestmark = pytest.mark.real

# Of each pair of sections, the reference first.
SECTIONS = {
    "lesions_": ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC"),
    "rat-kidney_": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin"),
}


@pytest.fixture(scope="module")
def folder():
    return Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "multimodal"


def stain(path):
    """Return how much light a section has swallowed, of all colours together."""
    light = io.imread(path).sum(axis=-1, dtype=float) / (3 * 255)
    return -np.log(np.clip(light, 0.02, 1))


def landmarks(path):
    """Read points (row, col) from a table of number, x, y."""
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return table[:, :0:-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
def test_stained_sections_find_each_other(folder, name):
    paths = [folder / "birl_histology" / name / stem for stem in SECTIONS[name]]
    images = [stain(path.with_name(path.name + ".jpg")) for path in paths]
    marks = [landmarks(path.with_name(path.name + ".csv")) for path in paths]
    count = min(map(len, marks))
    reference, moving = (points[:count] for points in marks)
    matches = spt.find_control_points(*images)
    found = spt.estimate_transform(
        matches.reference_points, matches.moving_points, covariance=matches.covariance
    )
    moved = spt.apply_transform(found.matrix, moving)
    error = np.median(np.linalg.norm(moved - reference, axis=1))
    # Marks were set by hand, on sections that are not the same tissue: an affine
    # transform through the marks themselves leaves 6 and 4 px, centred images 65
    # and 21 px.
    assert error < 8


# Radar and light of one place, pixel by pixel


@pytest.fixture(scope="module")
def views(folder):
    root = folder / "sentinel1_sentinel2_flow"
    light = np.log(io.imread(root / "S2_patch11.tif").mean(axis=-1, dtype=float))
    radar = np.log(io.imread(root / "S1_patch11.tif")[..., 0].astype(float))
    flow = io.imread(root / "Flow_patch11.tif").astype(float)
    return light, radar, -flow[..., ::-1]


def bent(reference, moving):
    """Return the field that find_control_points and fit_displacement make."""
    points = spt.find_control_points(reference, moving, max_shift=12)
    return spt.fit_displacement(
        points.reference_points,
        points.moving_points,
        reference.shape,
        covariance=points.covariance,
        window=64,
    ).displacement


def test_radar_and_light_lie_on_each_other(views):
    light, radar, _ = views
    # They were laid on one map; relief and roofs lean differently, by about a pixel.
    assert np.median(np.linalg.norm(bent(light, radar), axis=-1)) < 1.5


def test_a_bend_put_on_radar_is_found_in_light(views):
    light, radar, field = views
    moved = spt.warp_image(
        radar, np.eye(3), displacement=field, order=3, fill_value=np.nan
    )
    error = np.linalg.norm(bent(moved, light) - field, axis=-1)
    assert np.median(np.linalg.norm(field, axis=-1)) > 2.5
    # What the pair as it is stored is off by counts as error: 0.7 px.
    assert np.median(error) < 1.5

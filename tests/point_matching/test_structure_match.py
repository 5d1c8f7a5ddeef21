"""Windows of structure are cut between pixels by the spline that SciPy has."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from spectral_tools._point_matching import structure_match
from spectral_tools._point_matching.structure_match import (
    RIM,
    Structure,
    _resampled,
    cut_structure,
    match_structures,
    window_modes,
)


@pytest.mark.parametrize(
    ("shape", "sides"), [((1, 50, 60), (1, 32, 20)), ((40, 44, 48), (16, 18, 20))]
)
@pytest.mark.parametrize("fraction", [-0.45, -0.2, 0.0, 0.4])
def test_a_window_between_pixels_is_that_of_scipy(rng, shape, sides, fraction):
    field = rng.normal(size=(3, *shape)).astype(np.float32)
    structure = Structure(field, np.ones(shape, np.float32), 0.5)
    sides, thick = np.array(sides), np.array(sides) > 1
    rim, whole = RIM * thick, np.array([10, -3, 7]) * thick
    part = fraction * np.array([1, -1, 1]) * thick
    block = cut_structure(structure, whole - rim, sides + 2 * rim).field
    inner = tuple(map(slice, rim, rim + sides))
    expected = [ndimage.shift(channel, -part, order=3)[inner] for channel in block]
    # Both round in single precision.
    assert_allclose(_resampled(structure, whole + part, sides), expected, atol=3e-6)


def test_windows_that_show_nothing_are_not_compared(rng, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(structure_match, "masked_correlation", refuse)
    field = rng.normal(size=(2, 1, 90, 90)).astype(np.float32)
    known = np.ones((1, 90, 90), np.float32)
    scene, blank = Structure(field, known, 0.5), Structure(0 * field, known, 0.5)
    modes = window_modes(np.array([1, 32, 32]), 0.5)
    middle, outside = np.array([0.0, 45, 45]), np.array([0.0, 400, 45])
    for structures, place in (
        ((blank, scene), middle),
        ((scene, blank), middle),
        ((scene, scene), outside),
    ):
        points = np.stack([middle, place])
        found = match_structures(structures, modes, np.array([0.0, 8, 8]), points)
        assert found.outcome == "no texture"

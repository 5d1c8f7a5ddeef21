"""A spectrum map on its survey, as an electron microscope took them."""

import os
from pathlib import Path

import numpy as np
import pytest

import spectral_tools as spt

pytestmark = pytest.mark.real

# The lattice of the survey repeats every so many pixels.
PERIOD = np.array([22, 15])
# Rows and columns of the survey that the strip covers, and pixels of the strip in one.
SIZE, ZOOM = np.array([376, 46]), 1568 / 376


@pytest.fixture(scope="module")
def scene():
    """Return the survey, the strip with its pixels, and the corners of its place."""
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "multimodal"
    with np.load(folder / "stem_si_survey_haadf_eels" / "stem_si_triplet.npz") as file:
        survey, strip = file["survey"].astype(np.float32), file["haadf"]
        corners = file["si_rect_tlbr"].reshape(2, 2)
    small = spt.resample(strip, 1 / ZOOM, 1).image
    return survey, small, corners


@pytest.fixture(scope="module")
def scores(scene):
    """Return the score of the strip at each place, and which place comes first."""
    survey, small, _ = scene
    surface = spt.correlation_surface(survey, small, whitening=0)
    return surface, (np.array(surface.shape) - 1) // 2


def places_by_hand(corners, count):
    """Return what two corners tell, each set wrong by 10 px in any direction."""
    rng = np.random.default_rng(17)
    angles = rng.uniform(0, 2 * np.pi, (count, 2))
    clicks = corners + 10 * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return (clicks[:, 0] + clicks[:, 1] - SIZE) / 2


def best_near(scores, place):
    """Return the best place within half a period of another."""
    surface, first = scores
    low = np.ceil(place - PERIOD / 2).astype(int)
    high = np.floor(place + PERIOD / 2).astype(int) + 1
    part = surface[tuple(map(slice, low + first, high + first))]
    return low + np.unravel_index(part.argmax(), part.shape)


def test_two_hand_corners_and_the_pixel_size_tell_the_place(scene, scores):
    _, _, corners = scene
    by_hand = places_by_hand(corners, 1000)
    found = np.array([best_near(scores, place) for place in by_hand])
    ends = np.stack([found, found + SIZE], axis=1) - corners
    right = (np.abs(ends) <= PERIOD / 2).all(axis=(1, 2))
    # Along columns the lattice repeats, and the images say nothing of the period: the
    # hand alone does. The mean of two clicks, each wrong by 10 px, is within 7.5 px
    # of the truth in 83 % of all cases, and no match can know more. 1000 cases have a
    # standard error of 1.2 %.
    assert abs(right.mean() - 0.83) < 0.04
    # The match adds precision: the hand is off by 5 px rms along each axis. The strip was
    # stretched by drift, and its rectangle is known to a pixel or two.
    assert np.abs(ends[right]).max() <= 3
    # Along rows the brightness changes and the hand is within 10 px: never wrong.
    assert np.abs(ends[..., 0]).max() <= 3
    # What is wrong is the next column, and just as precise.
    assert np.abs(np.abs(ends[~right][..., 1]) - PERIOD[1]).max() <= 3


def test_places_a_lattice_period_apart_score_nearly_the_same(scene, scores):
    _, _, corners = scene
    surface, first = scores
    low, high = first + corners[0] + (-11, -40), first + corners[0] + (12, 41)
    peaks = spt.find_peaks(surface[tuple(map(slice, low, high))], count=5, distance=8)
    order = np.argsort(peaks.indices[:, 1])
    steps = np.diff(peaks.indices[order, 1])
    assert np.abs(steps - PERIOD[1]).max() <= 2
    # From column to column the score changes by less than what drift of the strip and
    # noise make of it: a few percent, and the true place is not the best.
    assert np.abs(np.diff(peaks.heights[order])).max() < 0.03 * peaks.heights[0]
    assert abs(peaks.indices[0, 1] - 40) > PERIOD[1] / 2


@pytest.mark.parametrize("max_shift", [None, 200, 60])
@pytest.mark.parametrize("whitening", [None, 0, 0.3, 0.5, 1])
def test_blind_matching_of_a_lattice_is_not_certain(scene, max_shift, whitening):
    survey, small, corners = scene
    guess = None if max_shift is None else corners[0]
    found = spt.phase_correlate(
        survey, small, guess=guess, max_shift=max_shift, whitening=whitening
    )
    assert found.outcome != "matched"


@pytest.mark.parametrize("max_shift", [30, 60])
def test_no_point_of_a_lattice_is_certain_over_several_periods(scene, max_shift):
    survey, small, corners = scene
    away = np.array([0, 140])
    found = spt.find_control_points(
        survey[:, away[1] : 340],
        small,
        matrix=spt.translation(corners[0] - away),
        model="translation",
        size=32,
        max_shift=max_shift,
    )
    # Windows that the strip does not cover show nothing; those that it does must be
    # tried, so that the claim is not empty.
    assert (found.outcome != "no texture").any()
    assert not (found.outcome == "matched").any()


@pytest.mark.parametrize("whitening", [None, 0, 0.5])
def test_a_strip_on_a_lattice_is_ambiguous_without_a_hand(scene, whitening):
    survey, strip, _ = scene
    found = spt.phase_correlate(survey, strip, whitening=whitening)
    assert found.outcome == "ambiguous"
    # The next place is a few lattice vectors of (22, 15) px away.
    steps = (found.alternatives[1:] - found.alternatives[0]) / (22, 15)
    assert np.abs(steps - np.rint(steps)).min(axis=0).max() < 0.2

"""What is believed must agree by more than chance."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

# A ring of ten tiles with chords: 20 links, 11 more than a tree has.
RING = np.array([(i, (i + step) % 10) for step in (1, 3) for i in range(10)])
CORNERS = 90.0 * np.stack([np.arange(10) % 4, np.arange(10) % 3], axis=1)
# Stated for each link, along both axes, in px.
SIGMA = 0.2


def solved(offsets, **options):
    covariance = SIGMA**2 * np.eye(2)
    return spt.solve_rigid(RING, offsets, 0 * offsets, covariance=covariance, **options)


def measured(rng, errors=SIGMA, false=0.0):
    """Return true positions, offsets with errors, and which of them are nonsense."""
    truth = CORNERS + rng.normal(0, 5, CORNERS.shape)
    offsets = truth[RING[:, 1]] - truth[RING[:, 0]] + rng.normal(0, errors, RING.shape)
    wrong = rng.permutation(len(RING)) < round(false * len(RING))
    offsets[wrong] = rng.uniform(-150, 150, RING.shape)[wrong]
    return truth, offsets, wrong


@pytest.mark.parametrize("stage", [{}, {"positions": CORNERS, "position_sigma": 5.0}])
def test_links_that_agree_about_nothing_are_not_believed(rng, stage):
    for _ in range(20):
        placed = solved(rng.normal(0, 60, RING.shape), **stage)
        assert not placed.inlier.any()
        assert (placed.outcome == spt.Outcome.CONTRADICTED).all()


MODELS = {
    "translation": spt.solve_rigid,
    "rotation": partial(spt.solve_rigid, rotation=True),
    "similarity": partial(spt.solve_affine, model="similarity"),
    "affine": spt.solve_affine,
}


def windows(rng, away):
    """Return links, points and which are false: six matches along each overlap.

    The links that have an offset `away` are false, in all of their windows alike.
    """
    truth, pairs = spt.grid_positions((5, 5), (100, 100)), spt.grid_links((5, 5))
    middle = (truth[pairs[:, 0]] + truth[pairs[:, 1]]) / 2 + 50
    points = middle[:, np.newaxis] + rng.uniform(-30, 30, (len(pairs), 6, 2))
    reference, moving = (points - truth[tile][:, np.newaxis] for tile in pairs.T)
    moving = moving + away[:, np.newaxis] + rng.normal(0, SIGMA, moving.shape)
    false = np.repeat(away.any(axis=1), 6)
    return np.repeat(pairs, 6, axis=0), reference, moving, false


@pytest.mark.parametrize("model", MODELS)
def test_offsets_near_a_plan_that_no_loop_closes_are_not_believed(rng, model):
    """Each is off the grid by less than the grid is wide; loops miss by 250 sigma."""
    links, reference, moving, _ = windows(rng, rng.uniform(-60, 60, (40, 2)))
    points = reference.reshape(-1, 2), moving.reshape(-1, 2)
    placed = MODELS[model](links, *points, covariance=SIGMA**2 * np.eye(2))
    assert not placed.inlier.any()
    assert (placed.outcome == spt.Outcome.CONTRADICTED).all()


@pytest.mark.parametrize("model", MODELS)
def test_windows_of_one_false_match_do_not_vouch_for_each_other(rng, model):
    away = np.zeros((40, 2))
    for pair in [(6, 7), (13, 18), (11, 16), (17, 22)]:
        false = (spt.grid_links((5, 5)) == pair).all(axis=1)
        away[false] = rng.uniform(-60, 60, 2)
    links, reference, moving, false = windows(rng, away)
    points = reference.reshape(-1, 2), moving.reshape(-1, 2)
    placed = MODELS[model](links, *points, covariance=SIGMA**2 * np.eye(2))
    assert_array_equal(placed.inlier, ~false)


def test_without_anything_to_believe_tiles_stay_on_the_stage(rng):
    offsets = rng.normal(0, 60, RING.shape)
    placed = solved(offsets, positions=CORNERS, position_sigma=5.0)
    # 1e-3: what is not believed counts 1e-9, and is 600 times as strong as the stage.
    assert_allclose(placed.matrices[:, :2, 2], CORNERS, rtol=0, atol=1e-3)


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_links_that_are_mostly_false_place_no_tile_wrong(rng, share):
    wrong = 0
    for _ in range(20):
        _, offsets, false = measured(rng, false=share)
        wrong += np.count_nonzero(solved(offsets).inlier & false)
    # Of 240 or 320 false links; without a test of the whole most were believed.
    assert wrong <= 1


@pytest.mark.parametrize("factor", [3, 10, 30])
def test_errors_may_be_far_larger_than_covariances_say(rng, factor):
    for _ in range(20):
        _, offsets, _ = measured(rng, factor * SIGMA)
        placed = solved(offsets)
        # One in twenty may look false among errors that only residuals tell.
        assert np.count_nonzero(placed.inlier) >= 19


def test_a_stage_finds_few_right_links_of_larger_errors(rng):
    stage = {"positions": CORNERS, "position_sigma": 5.0}
    right = 0
    for _ in range(20):
        _, offsets, false = measured(rng, 10 * SIGMA, false=0.6)
        right += np.count_nonzero(solved(offsets, **stage).inlier & ~false)
    # Of 160; without steps of the variance 156 on average.
    assert right >= 158


def test_three_tiles_and_a_loop_are_enough():
    links, offsets = [(0, 1), (1, 2), (2, 0)], [(3, 80), (70, -40), (-72, -42)]
    covariance = SIGMA**2 * np.eye(2)
    placed = spt.solve_rigid(links, offsets, np.zeros((3, 2)), covariance=covariance)
    assert placed.inlier.all()


def test_of_two_links_that_disagree_about_a_tile_none_is_believed():
    """Nothing else holds the tile in the corner: each may be the false one."""
    truth, links = spt.grid_positions((4, 4), (100, 100)), spt.grid_links((4, 4))
    offsets = truth[links[:, 1]] - truth[links[:, 0]]
    offsets[(links == (14, 15)).all(axis=1)] += (40, 0)
    placed = spt.solve_rigid(links, offsets, 0 * offsets, covariance=0.04 * np.eye(2))
    assert np.flatnonzero(placed.outcome != "matched").tolist() == [15]
    assert links[~placed.inlier].tolist() == [[11, 15], [14, 15]]


def test_a_tile_that_one_link_holds_is_believed():
    truth, links = spt.grid_positions((4, 4), (100, 100)), spt.grid_links((4, 4))
    links = links[(links != (14, 15)).any(axis=1)]
    offsets = truth[links[:, 1]] - truth[links[:, 0]]
    false = (links == (5, 6)).all(axis=1)
    offsets[false] += (40, 0)
    placed = spt.solve_rigid(links, offsets, 0 * offsets, covariance=0.04 * np.eye(2))
    assert placed.inlier.tolist() == (~false).tolist()

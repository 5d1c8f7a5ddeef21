from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SIGMA = 0.3
KNOWN = SIGMA**2 * np.eye(2)


def grid(rng, side, fraction, diagonal=False):
    """Return links of a grid, their points, and which of them are false."""
    links = spt.grid_links((side, side), diagonal=diagonal)
    truth = spt.grid_positions((side, side), (100, 100))
    found = truth[links[:, 1]] - truth[links[:, 0]]
    found += rng.normal(scale=SIGMA, size=found.shape)
    false = rng.uniform(size=len(links)) < fraction
    found[false] += rng.uniform(-60, 60, (np.count_nonzero(false), 2))
    return links, (found, np.zeros_like(found)), false


def loops_of(links):
    """Return the loops of perfect links as sorted tuples."""
    points = np.zeros((len(links), 2))
    loops = spt.loop_closures(links, points, points).loops
    return sorted(tuple(sorted(loop[loop >= 0].tolist())) for loop in loops)


# Which loops there are


def test_a_grid_has_one_loop_for_each_square():
    links = spt.grid_links((4, 6))
    assert len(loops_of(links)) == 3 * 5


def test_loops_are_those_of_a_plain_search(rng):
    """Every short closed path without a short cut, each once."""
    tiles = np.array(list(combinations(range(9), 2)))
    pairs = tiles[rng.uniform(size=len(tiles)) < 0.5]
    pairs = np.concatenate([pairs, pairs[:2], pairs[:1, ::-1]])
    expected = []
    for size in (2, 3, 4):
        for some in combinations(range(len(pairs)), size):
            corners, degrees = np.unique(pairs[list(some)], return_counts=True)
            if len(corners) != size or (degrees != 2).any():
                continue
            # Two loops of two are closed as well, but not one loop.
            sides = {frozenset(pairs[k].tolist()) for k in some}
            inside = np.isin(pairs, corners).all(axis=1)
            spanned = {frozenset(pair.tolist()) for pair in pairs[inside]}
            if len(sides) == (1 if size == 2 else size) and len(spanned) == len(sides):
                expected.append(some)
    assert loops_of(pairs) == sorted(expected)


def test_a_chain_has_no_loops():
    closures = spt.loop_closures([(0, 1), (1, 2)], *np.zeros((2, 2, 2)))
    assert closures.loops.shape == (0, 4)
    assert_array_equal(closures.suspicion, 0)


def test_two_links_of_the_same_tiles_are_a_loop():
    found = [(0, 90), (0, -92)]
    closures = spt.loop_closures([(0, 1), (1, 0)], found, np.zeros((2, 2)))
    assert_array_equal(closures.loops, [[0, 1, -1, -1]])
    assert_array_equal(np.abs(closures.error), [[0, 2]])


def test_failed_links_are_part_of_no_loop():
    covariance = np.broadcast_to(KNOWN, (4, 2, 2)).copy()
    covariance[1] = np.inf
    points = np.zeros((4, 2))
    closures = spt.loop_closures(
        spt.grid_links((2, 2)), points, points, covariance=covariance
    )
    assert len(closures.loops) == 0


def test_loops_work_in_three_dimensions():
    links = spt.grid_links((2, 2, 2))
    found = np.zeros((len(links), 3))
    found[0] = (9, 0, 0)
    closures = spt.loop_closures(links, found, 0 * found)
    assert len(closures.loops) == 6
    assert_array_equal(np.flatnonzero(closures.suspicion), [0])


# Closing errors


def test_perfect_links_close_all_loops(rng):
    truth, links = rng.normal(size=(20, 2)) * 99, spt.grid_links((4, 5), diagonal=True)
    found = truth[links[:, 1]] - truth[links[:, 0]]
    closures = spt.loop_closures(links, found + 7, np.full_like(found, 7))
    # 1e-11: rounding of coordinates up to 500.
    assert_allclose(closures.error, 0, atol=1e-11)
    assert_array_equal(closures.suspicion, 0)


@pytest.mark.parametrize("covariance", [None, KNOWN])
def test_one_sigma_is_expected_of_honest_loops(rng, covariance):
    links, points, _ = grid(rng, 40, 0)
    closures = spt.loop_closures(links, *points, covariance=covariance)
    # 15 %: four times the spread of a quarter of 1521 loops about its quantile;
    # 7 %: four times that of a mean square of 3042 numbers.
    tolerance = 0.15 if covariance is None else 0.07
    assert_allclose(np.sqrt(np.mean(closures.sigma**2)), 1, atol=tolerance)


def test_swapping_the_roles_of_all_tiles_keeps_errors(rng):
    links, (reference, moving), _ = grid(rng, 5, 0.1)
    one = spt.loop_closures(links, reference, moving)
    other = spt.loop_closures(links[:, ::-1], moving, reference)
    assert_allclose(other.error, one.error, rtol=0, atol=1e-9)
    assert_array_equal(other.suspicion, one.suspicion)


def test_order_of_links_does_not_matter(rng):
    links, (reference, moving), _ = grid(rng, 8, 0.1)
    order = rng.permutation(len(links))
    one = spt.loop_closures(links, reference, moving)
    other = spt.loop_closures(links[order], reference[order], moving[order])
    assert_array_equal(other.suspicion, one.suspicion[order])


# Who is to blame


@pytest.mark.parametrize("covariance", [None, KNOWN])
def test_a_single_false_link_is_named(rng, covariance):
    """Always, or with the other link of its corner, which is in the same loop."""
    links, points, _ = grid(rng, 5, 0)
    corners = np.bincount(links.ravel()) == 2
    for row, pair in enumerate(links):
        found = points[0].copy()
        found[row] += rng.choice([-1, 1], 2) * rng.uniform(5, 60, 2)
        closures = spt.loop_closures(links, found, points[1], covariance=covariance)
        corner = pair[corners[pair]]
        suspects = np.isin(links, corner).any(axis=1) if len(corner) else [row]
        expected = np.zeros(len(links))
        expected[suspects] = 1 / np.count_nonzero(expected[suspects] == 0)
        assert_array_equal(closures.suspicion, expected, str(pair))


@pytest.mark.parametrize(
    ("fraction", "diagonal", "precision", "recall"),
    [(0.05, False, 0.98, 0.9), (0.05, True, 0.99, 0.99), (0.2, True, 0.99, 0.97)],
)
def test_suspicion_separates_false_links_from_good(
    rng, fraction, diagonal, precision, recall
):
    links, points, false = grid(rng, 50, fraction, diagonal)
    suspicion = spt.loop_closures(links, *points, covariance=KNOWN).suspicion
    named = suspicion > 0.5
    assert np.count_nonzero(named & false) >= precision * np.count_nonzero(named)
    assert np.count_nonzero(named & false) >= recall * np.count_nonzero(false)


def test_false_links_are_among_the_suspects(rng):
    """Where two false links meet, a third may explain as much: it is named too."""
    links, points, false = grid(rng, 50, 0.05)
    suspicion = spt.loop_closures(links, *points, covariance=KNOWN).suspicion
    # Errors of up to 60 px along each axis are sometimes too small to be seen.
    assert np.mean(suspicion[false] > 0) > 0.98
    assert np.mean(suspicion[~false] > 0) < 0.02


def test_honest_errors_larger_than_their_covariance_are_not_blamed(rng):
    links, points, _ = grid(rng, 20, 0)
    closures = spt.loop_closures(links, *points, covariance=KNOWN / 100)
    assert_array_equal(closures.suspicion, 0)
    # Sigma takes the covariance at its word: ten times too small.
    assert np.median(closures.sigma) > 5


# Errors


def test_number_of_points_is_checked():
    with pytest.raises(ValueError, match="one row for each of 2 links; got 3"):
        spt.loop_closures([(0, 1), (1, 2)], np.zeros((3, 2)), np.zeros((2, 2)))


def test_points_must_have_the_same_dimension():
    with pytest.raises(ValueError, match="same shape"):
        spt.loop_closures([(0, 1)], np.zeros((1, 2)), np.zeros((1, 3)))


def test_shape_of_the_covariance_is_checked():
    with pytest.raises(ValueError, match=r"`covariance` must have shape \(1, 2, 2\)"):
        spt.loop_closures([(0, 1)], *np.zeros((2, 1, 2)), covariance=np.eye(3))


@pytest.mark.parametrize("value", [0, np.nan, -1])
def test_covariances_must_be_positive_definite(value):
    covariance = np.array([np.eye(2), np.diag([1, value])])
    with pytest.raises(ValueError, match=r"positive definite, .* for link 1"):
        spt.loop_closures([(0, 1), (1, 2)], *np.zeros((2, 2, 2)), covariance=covariance)

"""Networks of links: large ones are solved by multigrid, to the same positions."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spectral_tools._placement.solvers import translations
from spectral_tools._placement.solvers.multigrid import (
    balanced_steps,
    coarsened,
    lists_of,
)
from spectral_tools._placement.solvers.translations import (
    Network,
    Relaxation,
    centred,
    systems_of,
)
from spectral_tools._shared.sparse import connected_groups

SIDE = 60
COUNT = SIDE * SIDE


def grid_of_tiles():
    index = np.arange(COUNT).reshape(SIDE, SIDE)
    right = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=1)
    down = np.stack([index[:-1].ravel(), index[1:].ravel()], axis=1)
    return np.concatenate([right, down])


def nearest_of_scattered(rng):
    """Link each of many scattered points, in no order, to some that are near."""
    points = rng.random((COUNT, 2))
    rank = rng.permutation(COUNT)
    order = np.lexsort((points[:, 1], (points[:, 0] * 40).astype(int)))
    steps = np.concatenate([np.full(COUNT, step) for step in (1, 2, 37, 91)])
    first = np.tile(np.arange(COUNT), 4)
    inside = first + steps < COUNT
    return rank[order[np.stack([first, first + steps], axis=1)[inside]]]


def links_of(kind, rng):
    chain = np.stack([np.arange(COUNT - 1), np.arange(1, COUNT)], axis=1)
    if kind == "grid":
        return grid_of_tiles()
    if kind == "scattered":
        return nearest_of_scattered(rng)
    if kind == "ring":
        return np.concatenate([chain, [[0, COUNT - 1]]])
    if kind == "tree":
        return np.stack(
            [(chain[:, 1] * rng.random(COUNT - 1)).astype(int), chain[:, 1]], 1
        )
    if kind == "star":
        return np.stack([np.zeros(COUNT - 1, int), chain[:, 1]], axis=1)
    if kind == "groups":
        return chain[chain[:, 0] % 45 != 44]
    # Everywhere to everywhere: no tile is far from another.
    links = rng.integers(0, COUNT, (6 * COUNT, 2))
    return links[links[:, 0] != links[:, 1]]


def network_of(links, rng, *, weights=None, ndim=2, sigma=None, fixed=()):
    truth = 1000 * rng.random((COUNT, ndim))
    offsets = truth[links[:, 1]] - truth[links[:, 0]]
    offsets += 0.3 * rng.standard_normal(offsets.shape)
    weights = np.ones(len(links)) if weights is None else weights
    held = np.zeros(COUNT, np.bool_)
    held[list(fixed)] = True
    return Network(
        links=links,
        offsets=offsets,
        weights=weights[:, None, None] * np.eye(ndim),
        places=truth + rng.standard_normal(truth.shape),
        prior=np.zeros(ndim) if sigma is None else np.full(ndim, sigma**-2.0),
        fixed=held,
        group=connected_groups(links, COUNT),
        least_unit=1.0,
        options=offsets[:, None],
        variances=1 / weights[:, None] * np.ones(ndim),
        doubt=None,
    )


def solved(network, trust=None):
    """Solve, from a start that knows nothing of where tiles are."""
    relaxation = Relaxation(network, systems_of(network))
    return relaxation.moved(network, trust, 0 * network.places)


def solved_both_ways(network, monkeypatch, trust=None):
    """Solve by multigrid, and by a factor in two steps, so that it is exact."""
    monkeypatch.setattr(translations, "LARGE", 1)
    with monkeypatch.context() as without_factor:
        without_factor.setattr(translations, "factorized_stiffness", None)
        found = solved(network, trust)
    monkeypatch.setattr(translations, "LARGE", np.inf)
    exact = solved(network, trust)
    exact = Relaxation(network, systems_of(network)).moved(network, trust, exact)
    return centred(network, found), centred(network, exact)


# Tolerances below: rounding of positions of 1000 px, which links that are as much
# weaker as weights differ make larger.


@pytest.mark.parametrize(
    "kind", ["grid", "scattered", "ring", "tree", "star", "groups"]
)
def test_multigrid_finds_the_positions_of_a_factor(kind, monkeypatch):
    rng = np.random.default_rng(1)
    links = links_of(kind, rng)
    network = network_of(links, rng, weights=10 ** rng.uniform(-1, 1, len(links)))
    found, exact = solved_both_ways(network, monkeypatch)
    assert_allclose(found, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["grid", "scattered"])
def test_weights_may_span_twelve_decades(kind, monkeypatch):
    rng = np.random.default_rng(2)
    links = links_of(kind, rng)
    network = network_of(links, rng, weights=10 ** rng.uniform(-6, 6, len(links)))
    found, exact = solved_both_ways(network, monkeypatch)
    assert_allclose(found, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_links_that_are_hardly_trusted_still_place_their_tiles(share, monkeypatch):
    rng = np.random.default_rng(3)
    network = network_of(grid_of_tiles(), rng)
    trust = np.where(rng.random(len(network.links)) < share, 1e-9, 1.0)
    found, exact = solved_both_ways(network, monkeypatch, trust)
    # Parts that only such links hold are known to a billion roundings.
    assert_allclose(found, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("fixed", [(), (3, 4, 700)])
def test_multigrid_counts_expected_positions(sigma, fixed, monkeypatch):
    rng = np.random.default_rng(4)
    network = network_of(links_of("scattered", rng), rng, sigma=sigma, fixed=fixed)
    found, exact = solved_both_ways(network, monkeypatch)
    assert_allclose(found, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_multigrid_solves_each_axis(ndim, monkeypatch):
    rng = np.random.default_rng(5)
    network = network_of(grid_of_tiles(), rng, ndim=ndim, fixed=(7, 8))
    shape = 1 + np.arange(ndim)
    for weights in (network.weights, network.weights * np.diag(shape)):
        found, exact = solved_both_ways(replace(network, weights=weights), monkeypatch)
        assert_allclose(found, exact, rtol=0, atol=1e-7)


def test_order_of_tiles_does_not_matter_to_multigrid(monkeypatch):
    monkeypatch.setattr(translations, "LARGE", 1)
    rng = np.random.default_rng(6)
    network = network_of(grid_of_tiles(), rng)
    rank = rng.permutation(COUNT)
    links = rank[network.links]
    places = np.empty_like(network.places)
    places[rank] = network.places
    shuffled = replace(
        network, links=links, places=places, group=connected_groups(links, COUNT)
    )
    found = centred(network, solved(network))
    again = centred(shuffled, solved(shuffled))[rank]
    assert_allclose(again, found, rtol=0, atol=1e-7)


def test_multigrid_gives_the_same_bits_again(monkeypatch):
    monkeypatch.setattr(translations, "LARGE", 1)
    network = network_of(grid_of_tiles(), np.random.default_rng(7))
    assert_array_equal(solved(network), solved(network))


def test_perfect_links_leave_no_mismatch_in_a_large_network(monkeypatch):
    monkeypatch.setattr(translations, "LARGE", 1)
    network = network_of(grid_of_tiles(), np.random.default_rng(8))
    links = network.links
    offsets = network.places[links[:, 1]] - network.places[links[:, 0]]
    found = centred(network, solved(replace(network, offsets=offsets)))
    assert_allclose(found, network.places, rtol=0, atol=1e-9)


def test_links_from_everywhere_to_everywhere_converge():
    """A factor of such a network would be full."""
    rng = np.random.default_rng(9)
    links = links_of("everywhere", rng)
    held = np.arange(COUNT) == 0
    grid = coarsened(lists_of(links, held), np.ones(len(links)), 0.0, held)
    truth = rng.standard_normal((COUNT, 2)) * ~held[:, None]
    apart = truth[links[:, 1]] - truth[links[:, 0]]
    force = np.zeros_like(truth)
    np.add.at(force, links[:, 1], apart)
    np.subtract.at(force, links[:, 0], apart)
    force[held] = 0
    steps = balanced_steps(grid, force, 0.0)
    assert_allclose(steps, truth, rtol=0, atol=1e-8)


def test_a_factor_takes_over_where_multigrid_gives_up(monkeypatch):
    network = network_of(grid_of_tiles(), np.random.default_rng(10))
    exact = solved(network)
    monkeypatch.setattr(translations, "LARGE", 1)
    monkeypatch.setattr("spectral_tools._placement.solvers.multigrid.PATIENCE", 3)
    assert_allclose(solved(network), exact, rtol=0, atol=1e-7)

"""Whether believed links agree by more than chance, and which of them do."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import bridges, connected_groups
from ..._shared.statistics import ROUNDING, TOO_SMALL, UNLIKELY
from .normal_equations import Pairs, distinct_pairs
from .translations import Network, link_residuals, squares

__all__ = ["Consensus", "weigh_consensus"]


class Consensus(NamedTuple):
    """What of a solution is more than chance.

    Attributes
    ----------
    evidence : float
        Logarithm of the odds of what is supported against links at random.
    supported : ndarray of bool, shape (n_links,)
        Believed links that agree by more than chance, and those beside them that most
        likely are right too.
    guessed : ndarray of bool, shape (n_links,)
        Believed links that others contradict which may be right as well.
    """

    evidence: float
    supported: Flags
    guessed: Flags


class Blocks(NamedTuple):
    """Links that loops tie together; with a prior all that are connected.

    Attributes
    ----------
    rows : ndarray of int, shape (n_inside,)
        Links inside of blocks.
    number : ndarray of int, shape (n_tiles,)
        Block of each tile; many have one tile and no links.
    held, spare, loops : ndarray of shape (n_blocks,)
        Number of links, of those that a tree of them would spare, and of the loops
        of different tiles: links of the same two tiles may err alike.
    """

    rows: Ints
    number: Ints
    held: Floats
    spare: Floats
    loops: Floats


def weigh_consensus(
    network: Network, odds: Floats, positions: Floats, believed: Flags, chosen: Ints
) -> Consensus:
    """Tell which of the believed links agree by more than chance would let them.

    `odds` (n_links, choices) are those of each offset against none of them.

    Strategy: links at random miss each other by as much as their offsets scatter. What
    those around loops miss, as a share of that, is compared with its distribution; so
    is what they are off a prior. How many ways there are to choose that many links
    counts against them. A link that closes no loop agrees with nothing: it is believed
    if most links are right, and if no other contradicts it.
    """
    nodes = np.arange(len(positions))
    # Tiles that are fixed are rigid: they are one.
    nodes[network.fixed] = np.append(nodes[network.fixed], 0)[0]
    ends = nodes[network.links]
    afloat = not network.prior.any()
    pairs = distinct_pairs(network.links)
    alone = np.zeros(len(ends), np.bool_)
    if afloat:
        alone = believed & _span(pairs, nodes, believed)
    blocks = _blocks(pairs, nodes, ends, believed & ~alone)
    gain = _agreement(network, blocks, positions, chosen)
    gain -= _choice(network, odds, blocks, believed, chosen)
    if afloat:
        sound = (blocks.loops > 0) & (gain > -np.log(UNLIKELY))
    else:
        gain += _agreement_with_prior(network, blocks, nodes, positions, chosen)
        sound = np.full(len(gain), gain.sum() > -np.log(UNLIKELY))
    supported = np.zeros(len(ends), np.bool_)
    supported[blocks.rows] = sound[blocks.number[ends[blocks.rows, 0]]]
    evidence = float(gain[sound].sum())
    guessed = np.zeros(len(ends), np.bool_)
    if alone.any():
        lost = ~alone & ~supported
        if network.doubt is not None:
            # What is likely to be false by itself contradicts nothing.
            lost &= network.doubt <= 1 - network.doubt
        if np.count_nonzero(supported) >= np.count_nonzero(lost):
            # One that closes an open loop may be the one that is false.
            guessed = alone & ~_span(pairs, nodes, supported | alone | lost)
            supported |= alone & ~guessed
    return Consensus(evidence, supported, guessed)


def _span(pairs: Pairs, nodes: Ints, among: Flags) -> Flags:
    """Tell for each link whether those of its two tiles close no loop `among` some."""
    kept = np.bincount(pairs.number[among], minlength=len(pairs.tiles)) > 0
    tree = np.zeros(len(kept), np.bool_)
    tree[kept] = bridges(nodes[pairs.tiles[kept]], len(nodes))
    return tree[pairs.number]


def _blocks(pairs: Pairs, nodes: Ints, ends: Ints, inside: Flags) -> Blocks:
    number = connected_groups(ends[inside], len(nodes))
    tiles = np.bincount(number).astype(np.float64)
    held = np.bincount(number[ends[inside, 0]], minlength=len(tiles)).astype(float)
    joined = nodes[pairs.tiles[np.unique(pairs.number[inside]), 0]]
    joins = np.bincount(number[joined], minlength=len(tiles))
    rows = np.flatnonzero(inside)
    return Blocks(rows, number, held, held - tiles + 1, joins - tiles + 1)


def _agreement(
    network: Network, blocks: Blocks, positions: Floats, chosen: Ints
) -> Floats:
    """Return how far it is from chance that the loops of each block close."""
    rows, ndim = blocks.rows, network.offsets.shape[1]
    offsets = network.options[rows, chosen[rows]]
    picked = replace(
        network,
        links=network.links[rows],
        weights=network.weights[rows],
        offsets=offsets,
    )
    block = blocks.number[picked.links[:, 0]]
    misfit = squares(picked, link_residuals(picked, positions))
    scale = _sums(block, misfit, blocks) / (ndim * np.maximum(blocks.spare, 1))
    scale = np.maximum(scale, network.least_unit)
    gain = np.zeros(len(blocks.held))
    if network.least_unit:
        # Errors so far beyond their covariances are rare, as tails of Cauchy's are.
        gain -= blocks.loops * np.log(np.maximum(scale / TOO_SMALL, 1)) / 2
    for axis in range(ndim):
        scatter, variance = _scatter(network, blocks, offsets, axis)
        gain += blocks.loops * _surprise(scale * variance, scatter)
    return gain


def _agreement_with_prior(
    network: Network, blocks: Blocks, nodes: Ints, positions: Floats, chosen: Ints
) -> Floats:
    """Return how far it is from chance that links agree with a prior."""
    rows, ndim = blocks.rows, network.offsets.shape[1]
    offsets = network.options[rows, chosen[rows]]
    linked = np.zeros(len(positions), np.bool_)
    linked[network.links[rows]] = True
    energy = linked * ((positions - network.places) ** 2 @ network.prior)
    tiles = np.bincount(blocks.number)
    # Each tile may be off by what the prior says, and no further.
    away = np.bincount(blocks.number[nodes], energy, len(tiles)) / (ndim * tiles)
    away = np.maximum(away, 1)
    gain = np.zeros(len(tiles))
    for axis in range(ndim):
        scatter, variance = _scatter(network, blocks, offsets, axis)
        expected = away * (2 / network.prior[axis] + variance)
        gain += (tiles - 1) * _surprise(expected, scatter)
    return gain - (tiles * ndim / 2) * (away - 1 - np.log(away))


def _sums(block: Ints, values: Floats, blocks: Blocks) -> Floats:
    return np.bincount(block, values, len(blocks.held)).astype(float)


def _scatter(
    network: Network, blocks: Blocks, offsets: Floats, axis: int
) -> tuple[Floats, Floats]:
    """Return the mean square of the offsets of each block, and of their errors.

    Offsets that hardly scatter cannot tell; covariances then are taken at their word.
    """
    block = blocks.number[network.links[blocks.rows, 0]]
    held = np.maximum(blocks.held, 1)
    variance = np.log(network.variances[blocks.rows, axis])
    variance = np.exp(_sums(block, variance, blocks) / held)
    scatter = _sums(block, offsets[:, axis] ** 2, blocks) / held
    least = max(TOO_SMALL * network.least_unit, ROUNDING**2)
    return np.maximum(scatter, least * variance), variance


def _surprise(found: Floats, expected: Floats) -> Floats:
    """Return minus the logarithm of the chance of a mean square so small, a number.

    It is the bound of Chernoff for the lower tail of chi-square.
    """
    share = np.clip(found / expected, ROUNDING**2, 1.0)
    return np.asarray((share - 1 - np.log(share)) / 2)


def _choice(
    network: Network, odds: Floats, blocks: Blocks, believed: Flags, chosen: Ints
) -> Floats:
    """Return the logarithm of how many choices of links there are like each block.

    A block is a choice of all links at its tiles, or of loops among those of all links;
    where links say how likely they are right, they say it.
    """
    rows, count = blocks.rows, len(blocks.held)
    ends = blocks.number[network.links]
    block = ends[rows, 0]
    if network.doubt is not None:
        told = odds[rows, chosen[rows]]
        cost = -np.log(np.maximum(told, 1e-300))
        if not network.prior.any():
            cost = np.maximum(cost, 0)
        return _sums(block, cost, blocks)
    rest = ends[~believed]
    lost = np.bincount(rest[:, 0], minlength=count)
    lost += np.bincount(rest[rest[:, 0] != rest[:, 1], 1], minlength=count)
    kinds = [
        np.bincount(block[chosen[rows] == one], minlength=count)
        for one in range(odds.shape[1])
    ]
    if network.prior.any():
        # All of them stand or fall together.
        total = np.array([len(rest), *np.sum(kinds, axis=1)])[:, np.newaxis]
        return np.r_[_ways(total), np.zeros(count - 1)]
    # There are about as many short loops as links, and three of four offsets are free.
    each = np.log(len(ends)) + 3 * np.log(odds.shape[1])
    return np.minimum(_ways(np.stack([lost, *kinds])), blocks.loops * each)


def _ways(kinds: Ints) -> Floats:
    """Return the logarithm of the ways to tell so many of each kind from each other."""
    share = kinds / np.maximum(kinds.sum(axis=0), 1)
    return np.asarray(-(kinds * np.log(np.maximum(share, 1e-300))).sum(axis=0))

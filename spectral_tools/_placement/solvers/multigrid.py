"""Least squares in large networks, by algebraic multigrid."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats, Ints32
from ..._shared.sparse import NEGLIGIBLE
from .multigrid_kernels import (
    blend,
    coarser,
    grown,
    neighbours,
    paired,
    product,
    pulled,
    smoothed_down,
    smoothed_up,
    tied,
    tree_steps,
)

__all__ = [
    "Lists",
    "Multigrid",
    "balanced_steps",
    "coarsened",
    "lists_of",
    "tree_of",
]


# A level with this many tiles is solved at once.
COARSEST = 300
# Pairs of pairs that are more than this share of the tiles are no progress.
STALLED = 0.8
# After so many conjugate gradients a factor would have been faster.
PATIENCE = 100
# A coarse level is solved twice if more than this share of its forces is left.
LEFT_OVER = 0.25


class Lists(NamedTuple):
    """Neighbours of each tile, and the link to each, as the kernels want them.

    Tiles are numbered anew, in `order`: from the held ones outwards.
    """

    starts: Ints32
    middles: Ints32
    tiles: Ints32
    which: Ints32
    order: Ints32


class Grid(NamedTuple):
    """A network in the words of the kernels."""

    starts: Ints32
    middles: Ints32
    tiles: Ints32
    weights: Floats
    excess: Floats
    inverse: Floats


class Level(NamedTuple):
    """A network, the pair of each of its tiles, and room for steps and forces."""

    grid: Grid
    pair: Ints32
    steps: Floats
    pulls: Floats


class Multigrid(NamedTuple):
    """Networks from fine to coarse, and the inverse matrix of one yet coarser.

    Tiles of the finest are those of the whole network in `order`.
    """

    order: Ints32
    levels: list[Level]
    inverse: Floats


def lists_of(links: NDArray[np.intp], held: Flags) -> Lists:
    """Return the neighbours of each tile."""
    starts, _, tiles, _ = neighbours(np.ascontiguousarray(links), len(held))
    order, rank = grown(starts, tiles, held)
    ranked = np.take(rank.astype(np.intp), links)
    return Lists(*neighbours(ranked, len(held)), order)


def tree_of(
    lists: Lists, links: NDArray[np.intp], mismatch: Floats, held: Flags
) -> Floats:
    """Return steps that undo the mismatch of links along a tree from held tiles."""
    mismatch = np.ascontiguousarray(mismatch)
    return tree_steps(*lists, np.ascontiguousarray(links), mismatch, held)


def coarsened(lists: Lists, weights: Floats, prior: float, held: Flags) -> Multigrid:
    """Make coarser and coarser networks of pairs of pairs of tiles.

    Parameters
    ----------
    lists : Lists
        Neighbours of each tile.
    weights : ndarray of shape (n_links,)
        Inverse variance of each link.
    prior : float
        Inverse variance that ties every tile to its place.
    held : ndarray of bool, shape (n,)
        Tiles that do not move. Without a prior each group needs one.

    Notes
    -----
    Tiles that strong links tie move as one on the next level, so that one step
    there goes as far as many here [1]_. Nothing is interpolated: levels are
    networks themselves, as sparse as the first, and what that costs in accuracy
    is made up for by solving each level twice.

    References
    ----------
    .. [1] Notay, An aggregation-based algebraic multigrid method, Electronic
       Transactions on Numerical Analysis 37 (2010) 123; its limits on pairs in
       Napov and Notay, SIAM J. Sci. Comput. 34 (2012) A1079,
       :doi:`10.1137/100818509`.
    """
    starts, middles, tiles, which, order = lists
    tie = tied(starts, which, weights, prior, held[order])
    grid = Grid(starts, middles, tiles, *tie)
    levels: list[Level] = []
    while len(grid.inverse) > COARSEST:
        pair, coarse = _pairs_of_pairs(grid)
        levels.append(Level(grid, pair, *np.empty((2, len(pair), 2))))
        grid = coarse
    return Multigrid(order, levels, _inverse_matrix(grid))


def _pairs_of_pairs(grid: Grid) -> tuple[Ints32, Grid]:
    """Return the pair of pairs of each tile, and the network of these."""
    with np.errstate(divide="ignore"):
        own = 1 / grid.inverse
    pair, found = paired(grid.starts, grid.tiles, grid.weights, grid.excess, own)
    half = _coarser(grid, pair, found)
    inside = pair >= 0
    # Nothing is relaxed in between: what held the tiles before holds the pairs.
    held = np.bincount(pair[inside], own[inside], found).astype(np.float64)
    again, found = paired(half.starts, half.tiles, half.weights, half.excess, held)
    if found > STALLED * len(pair):
        # Links of like strength from everywhere to everywhere: nothing is far.
        again[:], found = -1, 0
    both = np.append(again, np.int32(-1))[pair]
    return both, _coarser(half, again, found)


def _coarser(grid: Grid, pair: Ints32, found: int) -> Grid:
    starts, _, tiles, weights, excess, _ = grid
    return Grid(*coarser(starts, tiles, weights, excess, pair, found))


def _inverse_matrix(grid: Grid) -> Floats:
    """Return the inverse of the matrix of a small network, 0 for held tiles."""
    free = grid.inverse > 0
    row = np.repeat(np.arange(len(free)), np.diff(grid.starts))
    matrix = np.zeros((len(free), len(free)))
    np.subtract.at(matrix, (row, grid.tiles), grid.weights)
    matrix[~free] = matrix[:, ~free] = 0
    np.fill_diagonal(matrix, 1 / np.where(free, grid.inverse, 1))
    return np.asarray(np.linalg.inv(matrix) * free, np.float64)


def balanced_steps(grid: Multigrid, forces: Floats, least: float) -> Floats | None:
    """Solve by conjugate gradients that multigrid speeds up, or give up (None).

    Steps below `least` do not count.
    """
    steps = np.empty_like(forces)
    for axis in range(0, forces.shape[1], 2):
        axes = slice(axis, min(axis + 2, forces.shape[1]))
        two = np.zeros((len(forces), 2))
        two[:, : axes.stop - axis] = np.take(forces[:, axes], grid.order, axis=0)
        found = _conjugate_steps(grid, two, least)
        if found is None:
            return None
        steps[grid.order, axes] = found[:, : axes.stop - axis]
    return steps


def _conjugate_steps(grid: Multigrid, rest: Floats, least: float) -> Floats | None:
    """Solve for two axes; `rest` is overwritten."""
    if not grid.levels:
        return grid.inverse @ rest
    finest = grid.levels[0].grid
    steps, direction, pulls = np.zeros((3, *rest.shape))
    work = 1.0
    for turn in range(PATIENCE):
        near = _cycle(grid, 0, rest)
        size = max(near.max(initial=0), -near.min(initial=0))
        if turn == 0:
            least = max(NEGLIGIBLE * size, least)
        if size <= least:
            return steps
        # A cycle is not quite linear: directions are made conjugate one by one.
        blend(1.0, near, -product(near, pulls) / work, direction, direction)
        work = _pulled(finest, direction, pulls)
        if not work > 0:
            return None
        length = product(direction, rest) / work
        blend(1.0, steps, length, direction, steps)
        blend(1.0, rest, -length, pulls, rest)
    return None


def _cycle(grid: Multigrid, number: int, forces: Floats) -> Floats:
    """Return roughly the steps that forces ask for, in the room of the level."""
    (starts, middles, tiles, weights, _, inverse), pair, steps, _ = grid.levels[number]
    last = number + 1 == len(grid.levels)
    coarse = grid.inverse if last else grid.levels[number + 1].steps
    rest = np.empty((len(coarse), 2))
    smoothed_down(starts, middles, tiles, weights, inverse, pair, forces, steps, rest)
    moves = coarse @ rest if last else _two_cycles(grid, number + 1, rest)
    smoothed_up(starts, tiles, weights, inverse, pair, forces, steps, moves)
    return steps


def _two_cycles(grid: Multigrid, number: int, forces: Floats) -> Floats:
    """Return the best steps that are made of those of two cycles, or of one."""
    level = grid.levels[number]
    first = _cycle(grid, number, forces).copy()
    pulls = np.empty_like(first)
    work = _pulled(level.grid, first, pulls)
    if not work > 0:
        return first
    length = product(first, forces) / work
    before = product(forces, forces)
    blend(1.0, forces, -length, pulls, forces)
    if product(forces, forces) > LEFT_OVER**2 * before:
        second = _cycle(grid, number, forces)
        both = product(second, pulls)
        more = _pulled(level.grid, second, level.pulls) - both**2 / work
        if more > 0:
            second_length = product(second, forces) / more
            length -= both / work * second_length
            blend(length, first, second_length, second, first)
            return first
    blend(length, first, 0.0, first, first)
    return first


def _pulled(grid: Grid, steps: Floats, pulls: Floats) -> float:
    starts, _, tiles, weights, excess, inverse = grid
    return pulled(starts, tiles, weights, excess, inverse, steps, pulls)

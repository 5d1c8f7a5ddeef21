"""Covariances of a network of tiles, without inverting its matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Flags, Floats, Ints
from .._shared.selected_inverse import (
    factor_pattern,
    selected_entries,
    selected_inverse,
    spread_values,
)
from .._shared.sparse import SymmetricFactor, symmetric_factor

__all__ = ["Evidence", "offset_blocks", "position_blocks"]


# Numbers in the right sides that are solved for at once: 32 MB.
AT_ONCE = 2**22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What says where the tiles of a network are.

    Attributes
    ----------
    links : ndarray of int, shape (m, 2)
        Tiles that each link joins.
    weights : ndarray of shape (m, size, size)
        Inverse covariance of each link, along all axes or some of them.
    prior : ndarray of shape (size,)
        Inverse variance of the place given for each tile; 0 along an axis where
        none counts.
    fixed : ndarray of bool, shape (n,)
        Tiles that are where they are.
    group : ndarray of int, shape (n,)
        Connected groups. Along axes without prior, groups without fixed tiles
        are afloat: only differences from their mean are known.
    """

    links: Ints
    weights: Floats
    prior: Floats
    fixed: Flags
    group: Ints


def position_blocks(evidence: Evidence) -> Floats:
    """Return the covariance of the position of each tile.

    Along axes along which its group is afloat it is about the mean of the group.
    """
    return _by_axes(evidence, _positions)


def offset_blocks(evidence: Evidence, pairs: Ints) -> Floats:
    """Return the covariance of the second tile of each pair less the first.

    Along axes along which two groups are afloat it means nothing.
    """
    return _by_axes(evidence, lambda system: _offsets(system, pairs))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """Equations of some axes, factored, and their selected inverse.

    Strategy: one tile of each group without fixed tiles is held by a spring as
    stiff as its links, so that the matrix is far from singular, even if priors
    are weak. What the spring changes is put right exactly: where positions are
    about a mean, by projection; where priors hold them, by the formula of
    Woodbury, in a form from which the stiffness has been cancelled.

    Attributes
    ----------
    evidence : Evidence
        The network, with the weights of these axes.
    held : ndarray of int, shape (n_held,)
        Tiles with springs.
    spring : ndarray of shape (n_held, size)
        Stiffness of the springs.
    slot : ndarray of int, shape (n,)
        Number of the spring that holds the group of each tile, n_held if none.
    number : ndarray of int, shape (n,)
        Number of each free tile in the system, -1 if it is fixed.
    factor : SymmetricFactor
        Factor of the matrix, springs included.
    pattern : tuple of ndarray
        Where the inverse is known: starts of columns, and rows.
    inverse : tuple of ndarray
        Its diagonal, and the entries below.
    """

    evidence: Evidence
    held: Ints
    spring: Floats
    slot: Ints
    number: Ints
    factor: SymmetricFactor
    pattern: tuple[NDArray[np.int64], NDArray[np.int32]]
    inverse: tuple[Floats, Floats]


def _by_axes(evidence: Evidence, answer: Callable[[System], Floats]) -> Floats:
    """Ask systems as few and as small as possible, and put answers together.

    If all covariances of links are multiples of one matrix, so is the answer: it
    is that of the scalar Laplacian. If they are diagonal, each axis is on its
    own. Otherwise all axes make one system of blocks.
    """
    weights, prior = evidence.weights, evidence.prior
    ndim = len(prior)
    amount = np.trace(weights, axis1=1, axis2=2)[:, None, None] / ndim
    form = weights[0] / amount[0] if len(amount) else np.eye(ndim)
    level = prior.mean()
    # 1e-10: multiples that went through an inverse differ by rounding.
    near = 1e-10 * amount
    if (np.abs(np.diag(prior) - level * form) <= 1e-10 * level).all() and (
        np.abs(weights - amount * form) <= near
    ).all():
        scalar = replace(evidence, weights=amount, prior=np.array([level]))
        return answer(_factored(scalar)) * np.linalg.inv(form)
    if not (np.abs(weights * (1 - np.eye(ndim))) <= near).all():
        return answer(_factored(evidence))
    parts = []
    for axis in range(ndim):
        s = slice(axis, axis + 1)
        own = replace(evidence, weights=weights[:, s, s], prior=prior[s])
        parts.append(answer(_factored(own)).ravel())
    return np.stack(parts, axis=1)[:, :, np.newaxis] * np.eye(ndim)


def _factored(evidence: Evidence) -> System:
    links, weights, free = evidence.links, evidence.weights, ~evidence.fixed
    size = weights.shape[1]
    number = np.where(free, np.cumsum(free) - 1, -1)
    own = _summed(links, weights, len(free)) + np.diag(evidence.prior)
    first = np.unique(evidence.group, return_index=True)[1]
    held = first[np.bincount(evidence.group, evidence.fixed) == 0]
    spring = np.diagonal(own[held], axis1=1, axis2=2).copy()
    # Nothing pulls at a tile without links and prior: any spring will do.
    spring[spring == 0] = 1
    slot = np.full(len(first), len(held))
    slot[evidence.group[held]] = np.arange(len(held))
    own[held] += spring[:, :, np.newaxis] * np.eye(size)
    inside = free[links].all(axis=1)
    factor = symmetric_factor(number[links[inside]], weights[inside], own[free])
    pattern = factor_pattern(factor.starts, factor.rows, factor.rank)
    lower = spread_values(
        *pattern, factor.lower_starts, factor.lower_rows, factor.lower
    )
    return System(
        evidence=evidence,
        held=held,
        spring=spring,
        slot=slot[evidence.group],
        number=number,
        factor=factor,
        pattern=pattern,
        inverse=selected_inverse(*pattern, lower, factor.pivots),
    )


def _summed(links: Ints, weights: Floats, count: int) -> Floats:
    """Add the weights of all links of each tile."""
    total = np.zeros((count, *weights.shape[1:]))
    for axes in np.ndindex(weights.shape[1:]):
        column = np.ascontiguousarray(weights[(slice(None), *axes)])
        for tiles in links.T:
            total[(slice(None), *axes)] += np.bincount(tiles, column, count)
    return total


def _by_group(system: System, values: Floats) -> Floats:
    """Add values of tiles for each spring, and for all without in the end."""
    total = np.zeros((len(system.held) + 1, *values.shape[1:]))
    for axes in np.ndindex(values.shape[1:]):
        column = values[(slice(None), *axes)]
        total[(slice(None), *axes)] = np.bincount(system.slot, column, len(total))
    return total


def _solved(system: System, forces: Floats) -> Floats:
    """Return how tiles move, shape (n, size, k), under forces of that shape."""
    moved = np.zeros_like(forces)
    pushed = forces[~system.evidence.fixed]
    if pushed.size:
        right = pushed.reshape(-1, forces.shape[2])
        moved[~system.evidence.fixed] = system.factor.solve(right).reshape(pushed.shape)
    return moved


def _entries(system: System, first: Ints, second: Ints) -> Floats:
    """Return blocks of the inverse, NaN where they are not known."""
    size = system.evidence.weights.shape[1]
    rank, number = system.factor.rank, system.number
    blocks = np.zeros((len(first), size, size))
    free = (number[first] >= 0) & (number[second] >= 0)
    for axis0, axis1 in np.ndindex(size, size):
        wanted = (
            rank[number[first[free]] * size + axis0].astype(np.int64),
            rank[number[second[free]] * size + axis1].astype(np.int64),
        )
        blocks[free, axis0, axis1] = selected_entries(
            *system.pattern, system.inverse, wanted
        )
    return blocks


def _sway(system: System) -> tuple[Floats, Floats]:
    """Return how springs move tiles, and how far priors alone let each give.

    Springs hold axes that priors hold already. With the stiffness K and the
    moves U of one spring, the inverse without it is that with it plus
    ``U (1 / K - U_held)^-1 U^T``. Forces balance, ``prior sum(U) + K U_held = 1``,
    so that the difference, which may be tiny, need not be taken.
    """
    prior = system.evidence.prior
    axes = np.flatnonzero(prior)
    forces = np.zeros((len(system.slot), len(prior), len(axes)))
    forces[system.held[:, np.newaxis], axes, np.arange(len(axes))] = 1
    moved = _solved(system, forces)
    total = _by_group(system, moved[:, axes])[:-1]
    slack = np.zeros((len(system.held) + 1, len(axes), len(axes)))
    slack[:-1] = np.linalg.inv(total) * (system.spring[:, axes] / prior[axes])[:, None]
    return moved, slack


def _positions(system: System) -> Floats:
    tiles = np.arange(len(system.slot))
    covariance = _entries(system, tiles, tiles)
    moved, slack = _sway(system)
    afloat = system.evidence.prior == 0
    if afloat.any():
        size = _by_group(system, np.ones(len(tiles)))[:, None, None]
        size[-1] = 1
        sprung = (system.slot < len(system.held)).astype(np.float64)
        mean = _solved(system, sprung[:, None, None] * np.diag(afloat))
        overall = _by_group(system, mean) / size**2 * afloat[:, np.newaxis]
        mean /= size[system.slot]
        covariance += overall[system.slot] - mean - mean.transpose(0, 2, 1)
        swayed = (_by_group(system, moved) / size)[system.slot]
        moved -= swayed * afloat[:, np.newaxis]
    return covariance + _squared(moved, slack[system.slot])


def _offsets(system: System, pairs: Ints) -> Floats:
    first, second = pairs.T
    between = _between(system, first, second)
    moved, slack = _sway(system)
    slot = system.slot
    together = (slot[first] == slot[second])[:, None, None]
    return (
        _entries(system, first, first)
        + _entries(system, second, second)
        - between
        - between.transpose(0, 2, 1)
        + _squared(moved[second] - together * moved[first], slack[slot[second]])
        + _squared(~together * moved[first], slack[slot[first]])
    )


def _squared(moved: Floats, slack: Floats) -> Floats:
    return moved @ slack @ moved.transpose(0, 2, 1)


def _between(system: System, first: Ints, second: Ints) -> Floats:
    """Return blocks of the inverse, if need be by solving for whole columns."""
    group = system.evidence.group
    blocks = _entries(system, first, second)
    missing = np.isnan(blocks).any(axis=(1, 2))
    apart = group[first] != group[second]
    blocks[apart] = 0
    rows = np.flatnonzero(missing & ~apart)
    # Any column serves all pairs of its tile: ask for those of the fewer tiles.
    turned = len(np.unique(second[rows])) < len(np.unique(first[rows]))
    at, of = (first, second) if turned else (second, first)
    tiles, which = np.unique(of[rows], return_inverse=True)
    count, size = len(system.slot), blocks.shape[1]
    step = max(1, AT_ONCE // (count * size * size))
    for start in range(0, len(tiles), step):
        some = tiles[start : start + step]
        forces = np.zeros((count, size, len(some), size))
        forces[some, :, np.arange(len(some))] = np.eye(size)
        moved = _solved(system, forces.reshape(count, size, -1))
        mine = (which >= start) & (which < start + step)
        chosen = moved.reshape(forces.shape)[at[rows[mine]], :, which[mine] - start]
        blocks[rows[mine]] = chosen if turned else chosen.transpose(0, 2, 1)
    return blocks

"""Least squares in a network of linked tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import (
    NEGLIGIBLE,
    conjugate_gradients,
    factorized_stiffness,
    sum_at_tiles,
    sum_rows,
)
from .multigrid import Lists, balanced_steps, coarsened, lists_of, tree_of
from .normal_equations import LinkedTiles, System, split_by_axes

__all__ = [
    "WEAKEST_PRIOR",
    "Network",
    "Relaxation",
    "centred",
    "link_residuals",
    "squares",
    "steps_of_offsets",
    "systems_of",
]

Solver = Callable[[Floats], Floats]

# A prior weaker than this fraction of the links would be lost in rounding.
WEAKEST_PRIOR = 1e-13
# After so many conjugate gradients a new factor would have been faster.
PATIENCE = 25
# From this many tiles on multigrid is faster than a factor, even the first time,
# when its kernels are loaded.
LARGE = 100_000
# Positions are rounded to about this share of the largest.
ROUNDING = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network(LinkedTiles):
    """Tiles that measured offsets join.

    Attributes
    ----------
    links, weights, places, prior, fixed, group, least_unit : object
        As of `LinkedTiles`.
    offsets : ndarray of shape (n_links, ndim)
        Measured position of the moving tile less that of the reference tile.
    options : ndarray of shape (n_links, choices, ndim)
        Offsets that may be right, the first of them those in `offsets`.
    variances : ndarray of shape (n_links, ndim)
        Variance of the offsets along each axis.
    doubt : ndarray of shape (n_links,) or None
        Probability that the first offset is wrong, if known.
    """

    offsets: Floats
    options: Floats
    variances: Floats
    doubt: Floats | None


class Stiffness(NamedTuple):
    """What resists a move: links, their weights, the prior, and who may move."""

    links: NDArray[np.intp]
    weights: Floats
    prior: Floats
    free: Flags


def systems_of(network: Network) -> list[System]:
    """Split the equations by axes."""
    prior, amount = np.diag(network.prior), network.amount
    if network.prior.any() and len(amount):
        prior = np.maximum(prior, WEAKEST_PRIOR * amount.max() * np.eye(len(prior)))
    return split_by_axes(network.weights, prior)


def steps_of_offsets(
    joined: tuple[Ints, Ints],
    systems: list[System],
    free: Flags,
    offsets: Floats,
    trust: Floats,
) -> Floats:
    """Return the steps (n, k, ndim) of tiles that offsets (n_links, k, ndim) ask for.

    Links that join the same tiles are summed up first: `joined` holds the pairs, each
    once, and the pair of each link.
    """
    pairs, pair = joined[0], joined[1].reshape(-1)
    steps = np.zeros((len(free), *offsets.shape[1:]))
    for axes, weights, prior, _ in systems:
        own, size = offsets[:, :, axes], len(prior)
        trusted = weights * trust[:, np.newaxis, np.newaxis]
        stiff = sum_rows(pair, trusted, len(pairs))
        solver = factorized_stiffness(pairs, stiff, prior, free)
        own = np.einsum("nab,nkb->nka", trusted, own) if size > 1 else trusted * own
        pull = sum_rows(pair, own, len(pairs))
        force = sum_at_tiles(pairs, pull, len(free))[free]
        # Axes that share a factor are columns of their own, others rows.
        turned = np.moveaxis(force, 2, 1) if size > 1 else force
        found = solver(turned.reshape(len(force) * size, -1)).reshape(turned.shape)
        steps[free, :, axes] = np.moveaxis(found, 2, 1) if size > 1 else found
    return steps


class Relaxation:
    """Least squares that is solved again and again with other trust in links.

    The system is linear, so that one step from anywhere is exact; starting near
    the solution keeps rounding small.

    A factor is made once. While trust in few links changes, it preconditions
    conjugate gradients, which take a few steps. In a large network multigrid does
    so, unless axes depend on each other; it is cheap to make anew.
    """

    def __init__(self, network: Network, systems: list[System]) -> None:
        self._free = ~(network.fixed | network.held)
        self._systems = systems
        self._solvers: list[Solver | None] = [None] * len(systems)
        self._lists: Lists | None = None

    def moved(
        self, network: Network, trust: Floats | None, positions: Floats
    ) -> Floats:
        """Return positions in balance; only the offsets of `network` may differ."""
        if not self._free.any():
            return positions
        mismatch = link_residuals(network, positions)
        if len(positions) >= LARGE and self._lists is None:
            self._lists = lists_of(network.links, ~self._free)
            if not network.prior.any():
                steps = tree_of(self._lists, network.links, mismatch, ~self._free)
                along = link_residuals(network, positions + steps)
                # Trees that lead over false links may do worse than what is known.
                if _sum_of_squares(along, trust) < _sum_of_squares(mismatch, trust):
                    positions, mismatch = positions + steps, along
        away = network.places - positions
        moved = positions.copy()
        for which, (axes, weights, prior, _) in enumerate(self._systems):
            trusted = weights if trust is None else weights * trust[:, None, None]
            stiffness = Stiffness(network.links, trusted, prior, self._free)
            force = sum_at_tiles(
                network.links, _weighted(trusted, mismatch[:, axes]), len(positions)
            )
            if prior.any():
                force += _weighted(prior, away[:, axes])
            force[~self._free] = 0
            moved[:, axes] += self._steps(which, stiffness, force, positions)
        return moved

    def _steps(
        self, which: int, stiffness: Stiffness, force: Floats, positions: Floats
    ) -> Floats:
        """Return the steps of all tiles that balance forces on the free ones."""
        _, weights, prior, free = stiffness
        if self._lists is not None and len(prior) == 1:
            weight = np.ascontiguousarray(weights[:, 0, 0])
            grid = coarsened(self._lists, weight, float(prior[0, 0]), ~free)
            steps = balanced_steps(grid, force, ROUNDING * np.abs(positions).max())
            if steps is not None:
                return steps
        step, solver = None, self._solvers[which]
        if solver is not None:
            step = _preconditioned_steps(stiffness, solver, force[free])
        if step is None:
            # Gone before the next is made: two would not fit into memory.
            solver = self._solvers[which] = None
            solver = self._solvers[which] = factorized_stiffness(*stiffness)
            step = _solve_axes(solver, force[free], len(prior))
        steps = np.zeros_like(force)
        steps[free] = step
        return steps


def _sum_of_squares(mismatch: Floats, trust: Floats | None) -> float:
    squared = np.einsum("na,na->n", mismatch, mismatch)
    return float(squared.sum() if trust is None else trust @ squared)


def _solve_axes(solver: Solver, force: Floats, size: int) -> Floats:
    """Solve for all axes at once, or for blocks of them."""
    return solver(force.reshape(len(force) * size, -1)).reshape(force.shape)


def _laplacian_product(stiffness: Stiffness, steps: Floats) -> Floats:
    """Return the forces that move free tiles by `steps`."""
    links, weights, prior, free = stiffness
    full = np.zeros((len(free), steps.shape[1]))
    full[free] = steps
    reference, moving = links.T
    pull = _weighted(weights, full[moving] - full[reference])
    return (sum_at_tiles(links, pull, len(free)) + _weighted(prior, full))[free]


def _preconditioned_steps(
    stiffness: Stiffness, solver: Solver, force: Floats
) -> Floats | None:
    """Solve by conjugate gradients with an old factor, or give up (None)."""
    size = len(stiffness.prior)
    steps, done = conjugate_gradients(
        lambda steps: _laplacian_product(stiffness, steps),
        lambda rest: _solve_axes(solver, rest, size),
        force,
        tolerance=NEGLIGIBLE,
        iterations=PATIENCE,
        # Axes that share a factor are systems of their own, with their own lengths.
        axis=0 if size == 1 else None,
    )
    return steps if done else None


def _weighted(matrices: Floats, vectors: Floats) -> Floats:
    """Multiply vectors by matrices; a 1 x 1 matrix serves all axes alike."""
    if matrices.shape[-1] == 1:
        return matrices[..., 0] * vectors
    return np.einsum("...ab,...b->...a", matrices, vectors)


def link_residuals(network: Network, positions: Floats) -> Floats:
    reference, moving = network.links.T
    apart = np.take(positions, moving, axis=0)
    apart -= np.take(positions, reference, axis=0)
    return np.subtract(network.offsets, apart, out=apart)


def squares(network: Network, mismatch: Floats) -> Floats:
    """Return squared misfits (n_links, ndim) in units of the links' covariances."""
    if network.weights.strides[0] == 0 and len(mismatch):
        return np.einsum("na,na->n", mismatch @ network.weights[0], mismatch)
    return (_weighted(network.weights, mismatch) * mismatch).sum(axis=1)


def centred(network: Network, positions: Floats) -> Floats:
    """Bring the mean of each group without fixed tiles to that of its places.

    It holds with a prior too: links pull as much one way as the other, and the
    prior is the same for all tiles.
    """
    size = np.bincount(network.group)
    loose = network.loose
    centred = positions.copy()
    for axis in range(positions.shape[1]):
        away = network.places[:, axis] - positions[:, axis]
        mean = np.bincount(network.group, away) / size
        centred[:, axis] += np.where(loose, mean, 0)[network.group]
    return centred

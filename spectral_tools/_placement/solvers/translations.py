"""Least squares in a network of linked tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats
from ..._shared.sparse import factorized_stiffness, sum_at_tiles
from .multigrid import Lists, balanced_steps, coarsened, lists_of, tree_of

__all__ = [
    "Network",
    "Relaxation",
    "System",
    "amounts",
    "centred",
    "grounded",
    "mismatches",
    "relaxed",
    "squares",
    "systems_of",
]

Solver = Callable[[Floats], Floats]

# A prior weaker than this fraction of the links would be lost in rounding.
WEAKEST_PRIOR = 1e-13
# Conjugate gradients end when steps are this small beside the first, or there
# have been so many that a new factor would be faster.
PRECISION = 1e-10
PATIENCE = 25
# From this many tiles on multigrid is faster than a factor, even the first time,
# when its kernels are loaded.
LARGE = 100_000
# Positions are rounded to about this share of the largest.
ROUNDING = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """Tiles, and what is known about where they are.

    Attributes
    ----------
    links : ndarray of int, shape (n_links, 2)
        Reference tile and moving tile of each link.
    offsets : ndarray of shape (n_links, ndim)
        Measured position of the moving tile less that of the reference tile.
    weights : ndarray of shape (n_links, ndim, ndim)
        Inverse covariance of the offsets.
    places : ndarray of shape (n, ndim)
        Expected positions.
    prior : ndarray of shape (ndim,)
        Inverse variance of `places` along each axis; 0 if they do not count.
    fixed : ndarray of bool, shape (n,)
        Tiles that stay at their places.
    group : ndarray of int, shape (n,)
        Connected group of each tile, numbered in the order of the first tiles.
    least_unit : float
        Least variance of a link, in units of its own covariance, that robust
        placement takes for honest.
    options : ndarray of shape (n_links, choices, ndim)
        Offsets that may be right, the first of them those in `offsets`.
    variances : ndarray of shape (n_links, ndim)
        Variance of the offsets along each axis.
    doubt : ndarray of shape (n_links,) or None
        Probability that the first offset is wrong, if known.
    """

    links: NDArray[np.intp]
    offsets: Floats
    weights: Floats
    places: Floats
    prior: Floats
    fixed: Flags
    group: NDArray[np.intp]
    least_unit: float
    options: Floats
    variances: Floats
    doubt: Floats | None


class Stiffness(NamedTuple):
    """What resists a move: links, their weights, the prior, and who may move."""

    links: NDArray[np.intp]
    weights: Floats
    prior: Floats
    free: Flags


class System(NamedTuple):
    """Equations of some axes: one factor for all, or one block of them."""

    axes: slice
    weights: Floats
    prior: Floats


def systems_of(network: Network) -> list[System]:
    """Split the equations so that as few and as small factors as possible do.

    If all covariances are multiples of one matrix, it drops out of the normal
    equations: all axes share the factor of the same scalar Laplacian. If they
    are diagonal, each axis is on its own. Otherwise all axes make one block.
    """
    ndim, amount = network.places.shape[1], amounts(network)
    weights = network.weights
    prior = np.diag(network.prior)
    if network.prior.any() and len(amount):
        prior = np.maximum(prior, WEAKEST_PRIOR * amount.max() * np.eye(ndim))
    level = np.trace(prior) / ndim
    form = weights[0] / amount[0] if len(amount) else np.eye(ndim)
    one = slice(1 if weights.strides[0] == 0 else None)
    few, less = weights[one], amount[one]
    # 1e-10: multiples that went through an inverse differ by rounding.
    if np.allclose(prior, level * form, rtol=0, atol=1e-10 * level) and _all_below(
        few - less[:, None, None] * form, 1e-10 * less
    ):
        return [System(slice(None), amount[:, None, None], np.array([[level]]))]
    if _all_below(few * (1 - np.eye(ndim)), 1e-10 * less):
        spans = [slice(axis, axis + 1) for axis in range(ndim)]
        return [System(s, weights[:, s, s], prior[s, s]) for s in spans]
    return [System(slice(None), weights, prior)]


def amounts(network: Network) -> Floats:
    """Return the inverse variance of each link, averaged over the axes."""
    weights = network.weights
    # Many links with one weight are common, and one tells about all.
    few = weights[:1] if weights.strides[0] == 0 else weights
    mean = np.trace(few, axis1=1, axis2=2) / weights.shape[1]
    return np.broadcast_to(mean, len(weights))


def _all_below(matrices: Floats, bound: Floats) -> bool:
    return bool((np.abs(matrices) <= bound[:, None, None]).all())


def relaxed(
    network: Network, systems: list[System], trust: Floats | None, positions: Floats
) -> Floats:
    """Move all tiles to where the forces of links and priors balance.

    The system is linear, so that one step from anywhere is exact; starting near
    the solution keeps rounding small.
    """
    return Relaxation(network, systems).moved(network, trust, positions)


class Relaxation:
    """Least squares that is solved again and again with other trust in links.

    A factor is made once. While trust in few links changes, it preconditions
    conjugate gradients, which take a few steps. In a large network multigrid does
    so, unless axes depend on each other; it is cheap to make anew.
    """

    def __init__(self, network: Network, systems: list[System]) -> None:
        held = network.fixed if network.prior.any() else grounded(network)
        self._free = ~held
        self._systems = systems
        self._solvers: list[Solver | None] = [None] * len(systems)
        self._lists: Lists | None = None

    def moved(
        self, network: Network, trust: Floats | None, positions: Floats
    ) -> Floats:
        """Return positions in balance; only the offsets of `network` may differ."""
        if not self._free.any():
            return positions
        mismatch = mismatches(network, positions)
        if len(positions) >= LARGE and self._lists is None:
            self._lists = lists_of(network.links, ~self._free)
            if not network.prior.any():
                steps = tree_of(self._lists, network.links, mismatch, ~self._free)
                along = mismatches(network, positions + steps)
                # Trees that lead over false links may do worse than what is known.
                if _misfit(along, trust) < _misfit(mismatch, trust):
                    positions, mismatch = positions + steps, along
        away = network.places - positions
        moved = positions.copy()
        for which, (axes, weights, prior) in enumerate(self._systems):
            trusted = weights if trust is None else weights * trust[:, None, None]
            stiffness = Stiffness(network.links, trusted, prior, self._free)
            force = sum_at_tiles(
                network.links, _product(trusted, mismatch[:, axes]), len(positions)
            )
            if prior.any():
                force += _product(prior, away[:, axes])
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
            step = _conjugate_steps(stiffness, solver, force[free])
        if step is None:
            # Gone before the next is made: two would not fit into memory.
            solver = self._solvers[which] = None
            solver = self._solvers[which] = factorized_stiffness(*stiffness)
            step = _solved(solver, force[free], len(prior))
        steps = np.zeros_like(force)
        steps[free] = step
        return steps


def _misfit(mismatch: Floats, trust: Floats | None) -> float:
    squared = np.einsum("na,na->n", mismatch, mismatch)
    return float(squared.sum() if trust is None else trust @ squared)


def _solved(solver: Solver, force: Floats, size: int) -> Floats:
    """Solve for all axes at once, or for blocks of them."""
    return solver(force.reshape(len(force) * size, -1)).reshape(force.shape)


def _stiff(stiffness: Stiffness, steps: Floats) -> Floats:
    """Return the forces that move free tiles by `steps`."""
    links, weights, prior, free = stiffness
    full = np.zeros((len(free), steps.shape[1]))
    full[free] = steps
    reference, moving = links.T
    pull = _product(weights, full[moving] - full[reference])
    return (sum_at_tiles(links, pull, len(free)) + _product(prior, full))[free]


def _conjugate_steps(
    stiffness: Stiffness, solver: Solver, force: Floats
) -> Floats | None:
    """Solve by conjugate gradients with an old factor, or give up (None)."""
    size = len(stiffness.prior)
    # Axes that share a factor are systems of their own, with their own lengths.
    axis = 0 if size == 1 else None
    rest, steps = force.copy(), np.zeros_like(force)
    direction = near = _solved(solver, rest, size)
    power = (rest * near).sum(axis=axis)
    enough = PRECISION * np.abs(near).max()
    for _ in range(PATIENCE):
        stiff = _stiff(stiffness, direction)
        work = (direction * stiff).sum(axis=axis)
        length = np.where(work > 0, power / np.where(work > 0, work, 1), 0)
        steps += length * direction
        rest -= length * stiff
        near = _solved(solver, rest, size)
        if np.abs(near).max() <= enough:
            return steps
        old, power = power, (rest * near).sum(axis=axis)
        growth = np.where(old > 0, power / np.where(old > 0, old, 1), 0)
        direction = near + growth * direction
    return None


def _product(matrices: Floats, vectors: Floats) -> Floats:
    """Multiply vectors by matrices; a 1 x 1 matrix serves all axes alike."""
    if matrices.shape[-1] == 1:
        return matrices[..., 0] * vectors
    return np.einsum("...ab,...b->...a", matrices, vectors)


def mismatches(network: Network, positions: Floats) -> Floats:
    reference, moving = network.links.T
    apart = np.take(positions, moving, axis=0)
    apart -= np.take(positions, reference, axis=0)
    return np.subtract(network.offsets, apart, out=apart)


def squares(network: Network, mismatch: Floats) -> Floats:
    """Return squared misfits (n_links, ndim) in units of the links' covariances."""
    if network.weights.strides[0] == 0 and len(mismatch):
        return np.einsum("na,na->n", mismatch @ network.weights[0], mismatch)
    return (_product(network.weights, mismatch) * mismatch).sum(axis=1)


def _loose_groups(network: Network) -> Flags:
    """Tell for each group whether none of its tiles is fixed."""
    return np.bincount(network.group, network.fixed) == 0


def grounded(network: Network) -> Flags:
    """Hold one tile of each group, because links alone leave groups afloat."""
    first = np.unique(network.group, return_index=True)[1]
    held = network.fixed.copy()
    held[first[_loose_groups(network)]] = True
    return held


def centred(network: Network, positions: Floats) -> Floats:
    """Bring the mean of each group without fixed tiles to that of its places.

    It holds with a prior too: links pull as much one way as the other, and the
    prior is the same for all tiles.
    """
    size = np.bincount(network.group)
    loose = _loose_groups(network)
    centred = positions.copy()
    for axis in range(positions.shape[1]):
        away = network.places[:, axis] - positions[:, axis]
        mean = np.bincount(network.group, away) / size
        centred[:, axis] += np.where(loose, mean, 0)[network.group]
    return centred

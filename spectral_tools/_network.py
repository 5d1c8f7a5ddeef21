"""Least squares in a network of linked tiles, plain and robust (floor 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri, gammainccinv

from ._sparse import factorized_stiffness, sum_at_tiles

__all__ = ["Network", "solve_network"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Chance that a link with an honest covariance is not believed: about two of the
# two million links of a grid of a million tiles are lost for nothing.
FALSE_REJECTION = 1e-6
# Closing errors below this many pixels are rounding, not measurements.
ROUNDING = 1e-6
# A link that is not believed still ties its tiles, this much as strongly, so
# that a tile none of whose links is believed stays near where they put it.
FAINT = 1e-9
# The kernel narrows by this factor from step to step, down to two standard
# deviations: wider ones would hide contradictions in the spread they cause.
GRADUATION = 2.0
CORE = 4.0
# A link that the narrow kernel left out misses by its own error and by that of
# the loop it would close, twice as much as if it were fitted: it is judged when
# it has been.
SECOND_CHANCE = 4.0
# Dropping and taking back links settles after two or three rounds, if ever.
ROUNDS = 10
# A prior weaker than this fraction of the links would be lost in rounding.
WEAKEST_PRIOR = 1e-13


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
    """

    links: NDArray[np.intp]
    offsets: Floats
    weights: Floats
    places: Floats
    prior: Floats
    fixed: Flags
    group: NDArray[np.intp]
    least_unit: float


class System(NamedTuple):
    """Equations of some axes: one factor for all, or one block of them."""

    axes: slice
    weights: Floats
    prior: Floats


def solve_network(network: Network, *, robust: bool) -> tuple[Floats, Flags]:
    """Return the position of each tile, and which links are believed."""
    systems = _systems(network)
    believed = np.ones(len(network.links), np.bool_)
    positions = _relaxed(network, systems, np.ones(len(believed)), network.places)
    if robust and len(believed):
        positions, believed = _contradictions_dropped(network, systems, positions)
    return _centred(network, positions), believed


def _systems(network: Network) -> list[System]:
    """Split the equations so that as few and as small factors as possible do.

    If all covariances are multiples of one matrix, it drops out of the normal
    equations: all axes share the factor of the same scalar Laplacian. If they
    are diagonal, each axis is on its own. Otherwise all axes make one block.
    """
    weights, ndim = network.weights, network.places.shape[1]
    amount = np.trace(weights, axis1=1, axis2=2) / ndim
    prior = np.diag(network.prior)
    if network.prior.any() and len(amount):
        prior = np.maximum(prior, WEAKEST_PRIOR * amount.max() * np.eye(ndim))
    level = np.trace(prior) / ndim
    form = weights[0] / amount[0] if len(amount) else np.eye(ndim)
    # 1e-10: multiples that went through an inverse differ by rounding.
    if np.allclose(prior, level * form, rtol=0, atol=1e-10 * level) and _all_below(
        weights - amount[:, None, None] * form, 1e-10 * amount
    ):
        return [System(slice(None), amount[:, None, None], np.array([[level]]))]
    if _all_below(weights * (1 - np.eye(ndim)), 1e-10 * amount):
        spans = [slice(axis, axis + 1) for axis in range(ndim)]
        return [System(s, weights[:, s, s], prior[s, s]) for s in spans]
    return [System(slice(None), weights, prior)]


def _all_below(matrices: Floats, bound: Floats) -> bool:
    return bool((np.abs(matrices) <= bound[:, None, None]).all())


def _relaxed(
    network: Network, systems: list[System], trust: Floats, positions: Floats
) -> Floats:
    """Move all tiles to where the forces of links and priors balance.

    The system is linear, so that one step from anywhere is exact; starting near
    the solution keeps rounding small.
    """
    free = ~(network.fixed if network.prior.any() else _grounded(network))
    if not free.any():
        return positions
    mismatch = _mismatch(network, positions)
    away = network.places - positions
    moved = positions.copy()
    for axes, weights, prior in systems:
        trusted = weights * trust[:, np.newaxis, np.newaxis]
        pull = sum_at_tiles(
            network.links, _product(trusted, mismatch[:, axes]), len(positions)
        )
        pull += _product(prior, away[:, axes])
        solve = factorized_stiffness(network.links, trusted, prior, free)
        force = pull[free]
        moved[free, axes] += solve(force.reshape(len(force) * len(prior), -1)).reshape(
            force.shape
        )
    return moved


def _product(matrices: Floats, vectors: Floats) -> Floats:
    """Multiply vectors by matrices; a 1 x 1 matrix serves all axes alike."""
    if matrices.shape[-1] == 1:
        return matrices[..., 0] * vectors
    return np.einsum("...ab,...b->...a", matrices, vectors)


def _mismatch(network: Network, positions: Floats) -> Floats:
    reference, moving = network.links.T
    return network.offsets - (positions[moving] - positions[reference])


def _squares(network: Network, systems: list[System], positions: Floats) -> Floats:
    """Return the squared residual of each link in units of its covariance."""
    mismatch = _mismatch(network, positions)
    if len(systems) == 1 and systems[0].weights.shape[1] == 1:
        # The form that drops out of the equations still measures residuals.
        form = network.weights[0] / systems[0].weights[0]
        return systems[0].weights[:, 0, 0] * (mismatch @ form * mismatch).sum(axis=1)
    return (_product(network.weights, mismatch) * mismatch).sum(axis=1)


def _loose_groups(network: Network) -> Flags:
    """Tell for each group whether none of its tiles is fixed."""
    return np.bincount(network.group, network.fixed) == 0


def _grounded(network: Network) -> Flags:
    """Hold one tile of each group, because links alone leave groups afloat."""
    first = np.unique(network.group, return_index=True)[1]
    held = network.fixed.copy()
    held[first[_loose_groups(network)]] = True
    return held


def _centred(network: Network, positions: Floats) -> Floats:
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


def _contradictions_dropped(
    network: Network, systems: list[System], positions: Floats
) -> tuple[Floats, Flags]:
    """Improve a plain solution by dropping links that contradict the others.

    Strategy: start from one wide kernel, which is plain least squares, go on with
    ever narrower ones, which forget contradictions from the worst down, and end
    with plain least squares of what is left, until nothing changes any more.
    """
    squares = _squares(network, systems, positions)
    judge = _judge(network, squares)
    if squares.max() <= judge.least * _honest(judge.ndim):
        return positions, np.ones(len(squares), np.bool_)

    kernel = 2 * squares.max()
    while kernel > CORE * judge.core(squares):
        kernel /= GRADUATION
        trust = np.maximum((kernel / (squares + kernel)) ** 2, FAINT)
        positions = _relaxed(network, systems, trust, positions)
        squares = _squares(network, systems, positions)

    dropped = np.zeros(len(squares), np.bool_)
    found = squares <= SECOND_CHANCE * judge.core(squares) * _honest(judge.ndim)
    for _ in range(ROUNDS):
        believed, trust = found, np.where(found, 1, FAINT)
        positions = _relaxed(network, systems, trust, positions)
        squares = _squares(network, systems, positions)
        limit = judge.limit(squares, believed)
        dropped |= believed & (squares > limit)
        found = (squares <= SECOND_CHANCE * limit) & ~dropped
        if np.array_equal(found, believed):
            break
    return positions, believed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """What tells honest squared residuals from contradictions.

    Attributes
    ----------
    ndim : int
        Number of axes.
    least : float
        Least variance of honest links, in units of their covariances.
    loops : ndarray of bool, shape (n_links,)
        Links that take part in loops; the others fit whatever they say.
    freedom : int
        Number of links more than the positions need.
    """

    ndim: int
    least: float
    loops: Flags
    freedom: int

    def core(self, squares: Floats) -> float:
        """Return the variance of honest links, from the median residual.

        It holds while many links are false, but can be too small: positions may
        bend to fit as many links as there are unknowns.
        """
        if self.freedom == 0 or not self.loops.any():
            return self.least
        share = self.freedom / np.count_nonzero(self.loops)
        median = np.median(squares[self.loops]) / (2 * gammainccinv(self.ndim / 2, 0.5))
        return max(self.least, float(median / share))

    def limit(self, squares: Floats, believed: Flags) -> float:
        """Return the largest squared residual that a believed link may have.

        It is counted in units of the variance of those believed so far. Few of
        them beyond the unknowns make the unit uncertain, and the limit wide.
        """
        left = self.ndim * (self.freedom - int(np.count_nonzero(~believed)))
        if left <= 0:
            return np.inf
        variance = float(squares[believed].sum()) / left
        ratio = self.ndim * float(fdtri(self.ndim, left, 1 - FALSE_REJECTION))
        return max(self.least * _honest(self.ndim), variance * ratio)


def _judge(network: Network, squares: Floats) -> Judge:
    """Look at a plain solution: which links close loops, and how many."""
    ndim = network.places.shape[1]
    amount = np.trace(network.weights, axis1=1, axis2=2) / ndim
    # With a prior every tile is measured once more, and all links can be wrong.
    unknown = 0 if network.prior.any() else np.count_nonzero(~_grounded(network))
    return Judge(
        ndim=ndim,
        least=max(network.least_unit, ROUNDING**2 * float(np.median(amount))),
        loops=squares > ROUNDING**2 * amount,
        freedom=len(squares) - int(unknown),
    )


def _honest(ndim: int) -> float:
    """Return the largest squared residual in units of a known variance."""
    return float(2 * gammainccinv(ndim / 2, FALSE_REJECTION))

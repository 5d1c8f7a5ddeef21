"""Normal equations of tiles that are linked by pairs of points."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import NEGLIGIBLE, sum_rows
from ..._shared.statistics import OutlierTest, outlier_test

__all__ = [
    "Blocks",
    "LinkedTiles",
    "Pairs",
    "PointLinks",
    "System",
    "consensus_test",
    "distinct_pairs",
    "free_blocks",
    "group_means",
    "middles",
    "normal_blocks",
    "possible_spring",
    "split_by_axes",
    "undetermined",
    "unit_variance",
]


# Random signs that count unknowns; their number is exact for small systems.
PROBES = 8
SMALL = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkedTiles:
    """Tiles, links between them, and what is known of positions.

    Attributes
    ----------
    links : ndarray of int, shape (n_links, 2)
        Reference tile and moving tile of each link.
    weights : ndarray of shape (n_links, ndim, ndim)
        Inverse covariance of what each link measured, along the axes of the reference
        tile.
    places : ndarray of shape (n, ndim)
        Expected positions.
    prior : ndarray of shape (ndim,)
        Inverse variance of `places` along each axis; 0 if they do not count.
    fixed : ndarray of bool, shape (n,)
        Tiles that stay upright at their places.
    group : ndarray of int, shape (n,)
        Connected group of each tile, numbered in the order of the first tiles.
    least_unit : float
        Least variance of a link, in units of its own covariance, that is taken
        for honest; 0 if covariances only compare links with one another.
    """

    links: Ints
    weights: Floats
    places: Floats
    prior: Floats
    fixed: Flags
    group: Ints
    least_unit: float

    @property
    def amount(self) -> Floats:
        """Inverse variance of each link, averaged over the axes."""
        return _mean_weights(self.weights)

    @property
    def loose(self) -> Flags:
        """Groups none of whose tiles is fixed."""
        return np.bincount(self.group, self.fixed) == 0

    @property
    def held(self) -> Flags:
        """First tiles of groups that nothing else keeps from floating away."""
        first = np.unique(self.group, return_index=True)[1]
        held = np.zeros(len(self.group), np.bool_)
        held[first] = self.loose & (not self.prior.any())
        return held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointLinks(LinkedTiles):
    """Tiles that pairs of points join.

    Attributes
    ----------
    links, weights, places, prior, fixed, group, least_unit : object
        As of `LinkedTiles`.
    reference, moving : ndarray of shape (n_links, ndim)
        The two points of each link, each in its own tile.
    """

    reference: Floats
    moving: Floats


class System(NamedTuple):
    """Equations of some axes: one factor for all, or one block of them.

    Attributes
    ----------
    axes : slice
        The axes.
    weights : ndarray of shape (n_links, size, size)
        Inverse covariance of each link along these axes, or one number for all.
    prior : ndarray of shape (size, size)
        Inverse covariance that ties every tile to its place.
    inverse_form : ndarray of shape (n_axes, n_axes)
        What entries of the inverse matrix are multiplied with: the inverse of the
        matrix that all weights and the prior are multiples of, else 1.
    """

    axes: slice
    weights: Floats
    prior: Floats
    inverse_form: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of tiles, each once, that several links may join.

    Attributes
    ----------
    tiles : ndarray of int, shape (n_pairs, 2)
        The lower and the higher number.
    number : ndarray of int, shape (n_links,)
        Pair of each link.
    turned : ndarray of bool, shape (n_links,)
        Links from the higher to the lower number.
    """

    tiles: Ints
    number: Ints
    turned: Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Normal matrix, as blocks of tiles and of pairs of tiles.

    Attributes
    ----------
    between : ndarray of shape (n_pairs, size, size)
        Blocks of each pair, at (lower number, higher number).
    own : ndarray of shape (n, size, size)
        Blocks of each tile.
    """

    between: Floats
    own: Floats


def split_by_axes(weights: Floats, prior: Floats) -> list[System]:
    """Split the equations so that as few and as small factors as possible do.

    If all covariances are multiples of one matrix, it drops out of the normal
    equations: all axes share the factor of the same scalar Laplacian. If they
    are diagonal, each axis is on its own. Otherwise all axes make one block.
    """
    ndim, amount = len(prior), _mean_weights(weights)
    level = np.trace(prior) / ndim
    form = weights[0] / amount[0] if len(amount) else np.eye(ndim)
    one = slice(1 if weights.strides[0] == 0 else None)
    few, less = weights[one], amount[one]
    if np.allclose(prior, level * form, rtol=0, atol=NEGLIGIBLE * level) and _all_below(
        few - less[:, None, None] * form, NEGLIGIBLE * less
    ):
        shared, held = amount[:, None, None], np.array([[level]])
        return [System(slice(None), shared, held, np.linalg.inv(form))]
    if _all_below(few * (1 - np.eye(ndim)), NEGLIGIBLE * less):
        spans = [slice(axis, axis + 1) for axis in range(ndim)]
        alone = np.ones((1, 1))
        return [System(s, weights[:, s, s], prior[s, s], alone) for s in spans]
    return [System(slice(None), weights, prior, np.ones((ndim, ndim)))]


def _mean_weights(weights: Floats) -> Floats:
    # Many links with one weight are common, and one tells about all.
    few = weights[:1] if weights.strides[0] == 0 else weights
    mean = np.trace(few, axis1=1, axis2=2) / weights.shape[1]
    return np.broadcast_to(mean, len(weights))


def _all_below(matrices: Floats, bound: Floats) -> bool:
    return bool((np.abs(matrices) <= bound[:, None, None]).all())


def distinct_pairs(links: Ints) -> Pairs:
    """List each pair of tiles that links join once, whichever way they go."""
    low, high = np.minimum(*links.T), np.maximum(*links.T)
    span = int(links.max(initial=0)) + 1
    code, number = np.unique(low * span + high, return_inverse=True)
    tiles = np.stack(np.divmod(code, span), axis=1)
    return Pairs(tiles=tiles, number=number, turned=links[:, 0] > links[:, 1])


def middles(problem: PointLinks) -> tuple[Floats, Floats, float]:
    """Return the middle of all points, that of each tile, and their spread.

    Lengths are counted in this spread and from these middles, so that numbers of
    like size meet in the equations.
    """
    tiles = problem.links.T.ravel()
    points = np.concatenate([problem.reference, problem.moving])
    if not len(points):
        return np.zeros(problem.places.shape[1]), np.zeros(problem.places.shape), 1.0
    pivot = (points.min(axis=0) + points.max(axis=0)) / 2
    count = np.bincount(tiles, minlength=len(problem.places))
    sums = [np.bincount(tiles, column, len(count)) for column in points.T]
    middle = np.stack(sums, axis=1) / np.maximum(count, 1)[:, np.newaxis]
    middle[count == 0] = pivot
    spread = float(np.sqrt(np.mean((points - middle[tiles]) ** 2)))
    return pivot, middle, spread or 1.0


def normal_blocks(
    problem: PointLinks, pairs: Pairs, near: Floats, far: Floats, weights: Floats
) -> Blocks:
    """Return the normal matrix of residuals ``near @ reference - far @ moving``.

    Parameters
    ----------
    problem : PointLinks
        Tiles and links.
    pairs : Pairs
        Pairs of tiles that they join.
    near, far : ndarray of shape (n_links, rows, size)
        How each residual changes with the unknowns of the reference tile, and
        with the negative of those of the moving tile.
    weights : ndarray of shape (n_links, rows, rows)
        Inverse covariance of each residual.

    Returns
    -------
    Blocks
        Sums over all links.
    """
    count = len(problem.places)
    reference, moving = problem.links.T
    weighted_near, weighted_far = weights @ near, weights @ far
    own = sum_rows(reference, near.transpose(0, 2, 1) @ weighted_near, count)
    own += sum_rows(moving, far.transpose(0, 2, 1) @ weighted_far, count)
    across = -near.transpose(0, 2, 1) @ weighted_far
    across = np.where(
        pairs.turned[:, np.newaxis, np.newaxis], across.transpose(0, 2, 1), across
    )
    return Blocks(between=sum_rows(pairs.number, across, len(pairs.tiles)), own=own)


def undetermined(solve: Callable[[Floats], Floats], roots: Floats) -> Floats:
    """Count the unknowns that priors determine, because measurements do not.

    Parameters
    ----------
    solve : callable
        Solves the normal equations, priors included.
    roots : ndarray of shape (n, n_priors, size)
        Square root of the inverse covariance of each prior of each tile.

    Returns
    -------
    ndarray of shape (n_priors,)
        Trace of what each prior contributes to the normal matrix, times its
        inverse: 0 where measurements say everything, n where they say nothing.
    """
    # Strategy: a random vector of signs meets the trace on average [Hutchinson],
    # and nearly exactly here, as few unknowns are left open or nearly all.
    count, kinds, size = roots.shape
    if count * kinds <= SMALL:
        signs = np.eye(count * kinds).reshape(-1, count, kinds)
    else:
        rng = np.random.default_rng(0)
        signs = rng.choice([-1.0, 1.0], (PROBES, count, kinds))
    sides = np.einsum("pnk,nks->nsp", signs, roots).reshape(count * size, -1)
    solved = solve(sides).reshape(count, size, -1)
    seen = np.einsum("nks,nsp->pnk", roots, solved)
    share = 1.0 if count * kinds <= SMALL else 1 / PROBES
    return np.asarray((signs * seen).sum(axis=(0, 1)) * share)


def free_blocks(
    pairs: Pairs, blocks: Blocks, free: Flags
) -> tuple[Ints, Floats, Floats]:
    """Return pairs, and blocks of them and of tiles, of the tiles that may move."""
    number = np.cumsum(free) - 1
    inside = free[pairs.tiles].all(axis=1)
    return number[pairs.tiles[inside]], blocks.between[inside], blocks.own[free]


def group_means(group: Ints, values: Floats) -> Floats:
    """Return the mean of `values` of the tiles of each group."""
    count = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(sum_rows(group, values, len(count)) / count)


def possible_spring(problem: PointLinks, spring: float) -> float:
    """Keep a spring between what is lost beside links and what drowns them."""
    level = float(problem.amount.max(initial=0)) or 1.0
    return float(np.clip(spring, NEGLIGIBLE * level, level / NEGLIGIBLE))


def consensus_test(problem: LinkedTiles, unknown: float) -> OutlierTest:
    """Return what tells honest links, given how many of them the unknowns use up."""
    least = problem.least_unit
    if not least and len(problem.links) - unknown < 0.5:
        # Nothing tells: all are.
        least = np.inf
    return outlier_test(problem.places.shape[1], problem.amount, unknown, least)


def unit_variance(
    problem: LinkedTiles, squares: Floats, trust: Floats, unknown: float
) -> float:
    """Return the variance of links in units of their own covariances.

    Parameters
    ----------
    problem : LinkedTiles
        Tiles and links.
    squares : ndarray of shape (n_links,)
        Squared residuals in those units.
    trust : ndarray of shape (n_links,)
        Links that count have more than half of it.
    unknown : float
        Number of links that the unknowns of the fit use up.

    Returns
    -------
    float
        At least what is taken for honest anyway.
    """
    told = trust > 0.5
    spare = np.count_nonzero(told) - unknown
    if spare < 0.5:
        return problem.least_unit or 1.0
    found = float(squares[told].sum()) / (spare * problem.places.shape[1])
    return max(problem.least_unit, found)

"""Place tiles that may stretch and shear, by linear least squares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats
from ..._shared.sparse import factorized_blocks, multiplied_blocks, sum_rows
from ..._shared.statistics import find_consensus, suspicious
from .normal_equations import (
    LEAST_STIFFNESS,
    USUAL_STIFFNESS,
    Blocks,
    Pairs,
    PointLinks,
    consensus_test,
    distinct_pairs,
    middles,
    normal_blocks,
    possible_spring,
    undetermined,
    unit_variance,
)

__all__ = ["solve_sheets"]


Solve = Callable[[Floats], Floats]

# Conjugate gradients stop when the next step would be this much shorter than the
# first; the last fit goes further.
COARSE, FINE = 1e-2, 1e-4
ITERATIONS = 300
# Points this far apart, in tiles, do not meet: further does not count as farther.
APART = 0.1
# Tiles can be flattened to this before they are taken for wider than they are.
RIGID = 1e-6


# One or two rounds settle the stiffness; perfect matches take some more.
ROUNDS = 8
# A mean linear part that shrinks volumes to this is none.
FLAT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheets:
    """What the equations are made of.

    The unknowns of a tile are ``ndim + 1`` rows of displacements: those for one
    `spread` along each axis, and that of the middle of its points.

    Attributes
    ----------
    problem : PointLinks
        Tiles and links.
    pairs : Pairs
        Pairs of tiles that links join.
    near, far : ndarray of shape (n_links, ndim + 1)
        Share of each unknown of the reference and of the moving tile in the
        displacement of the two points.
    at_pivot : ndarray of shape (n, ndim + 1)
        The same for the middle of all points, whose displacement is what the
        position of a tile means.
    middle : ndarray of shape (n, ndim)
        Middle of the points of each tile.
    spread : float
        Unit of length, in pixels.
    is_round : bool
        Whether all covariances are multiples of the identity.
    """

    problem: PointLinks
    pairs: Pairs
    near: Floats
    far: Floats
    at_pivot: Floats
    middle: Floats
    spread: float
    is_round: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Unknowns of all tiles, and the factor that they were found with.

    Attributes
    ----------
    values : ndarray of shape (n, ndim + 1, ndim)
        The unknowns.
    trust : ndarray of shape (n_links,)
        Factor of the weight of each link.
    spring : float
        Inverse variance of the displacements for one spread.
    solve : callable
        Solves the normal equations of each axis as if covariances were round.
    multiply : callable or None
        Multiplies with the normal equations of all axes, unless covariances are
        round.
    """

    values: Floats
    trust: Floats
    spring: float
    solve: Solve
    multiply: Solve | None


def sheets_of(problem: PointLinks) -> Sheets:
    pivot, middle, spread = middles(problem)
    reference, moving = problem.links.T

    def shares(points: Floats, tiles: NDArray[np.intp] | slice) -> Floats:
        away = (points - middle[tiles]) / spread
        return np.concatenate([away, np.ones((len(away), 1))], axis=1)

    return Sheets(
        problem=problem,
        pairs=distinct_pairs(problem.links),
        near=shares(problem.reference, reference),
        far=shares(problem.moving, moving),
        at_pivot=shares(np.broadcast_to(pivot, middle.shape), slice(None)),
        middle=middle,
        spread=spread,
        is_round=_all_round(problem),
    )


def _all_round(problem: PointLinks) -> bool:
    """Tell whether all axes have the same equations."""
    amount = problem.amount[:, np.newaxis, np.newaxis]
    apart = np.abs(problem.weights - amount * np.eye(problem.weights.shape[1]))
    # 1e-10: multiples that went through an inverse differ by rounding.
    return bool((apart <= 1e-10 * amount).all() and np.ptp(problem.prior) == 0)


def upright(sheets: Sheets) -> Floats:
    """Return unknowns of tiles without distortion, at their places."""
    count, ndim = sheets.problem.places.shape
    values = np.zeros((count, ndim + 1, ndim))
    values[:, -1] = sheets.problem.places
    return values


def fitted(
    sheets: Sheets,
    trust: Floats,
    values: Floats,
    stiffness: float,
    steps: int = 2,
) -> Fit:
    """Improve the unknowns with a trust of 0 to 1 in each link.

    Forces depend on where points are, so that a second step goes further.
    """
    spring = possible_spring(sheets.problem, stiffness / sheets.spread**2)
    free = ~sheets.problem.fixed
    if not free.any():
        return Fit(
            values=values,
            trust=trust,
            spring=spring,
            solve=np.asarray,
            multiply=None,
        )
    number = np.cumsum(free) - 1
    inside = free[sheets.pairs.tiles].all(axis=1)
    pairs = number[sheets.pairs.tiles[inside]]
    one = _round_blocks(sheets, trust, spring)
    multiply = None
    if not sheets.is_round:
        every = _blocks(sheets, trust, spring)
        multiply = multiplied_blocks(pairs, every.between[inside], every.own[free])
    fit = Fit(
        values=values,
        trust=trust,
        spring=spring,
        solve=factorized_blocks(pairs, one.between[inside], one.own[free]),
        multiply=multiply,
    )
    for _ in range(steps):
        fit = _stepped(sheets, fit, COARSE)
    return fit


def polished(sheets: Sheets, fit: Fit) -> Fit:
    """Improve unknowns to the last digits, with the equations they were found with."""
    if sheets.problem.fixed.all():
        return fit
    for _ in range(2):
        fit = _stepped(sheets, fit, FINE)
    return fit


def _stepped(sheets: Sheets, fit: Fit, tolerance: float) -> Fit:
    """Move all unknowns to where the forces of links and springs balance."""
    force = _force(sheets, fit)
    free = ~sheets.problem.fixed
    return replace(fit, values=_improved(fit, free, force, tolerance))


def _blocks(sheets: Sheets, trust: Floats, spring: float) -> Blocks:
    """Return the normal equations of all axes."""
    problem = sheets.problem
    ndim = problem.places.shape[1]
    axes = np.eye(ndim)
    near = np.kron(sheets.near[:, None], axes).astype(np.float64, copy=False)
    far = np.kron(sheets.far[:, None], axes).astype(np.float64, copy=False)
    weights = problem.weights * trust[:, np.newaxis, np.newaxis]
    blocks = normal_blocks(problem, sheets.pairs, near, far, weights)
    roots = spring_roots(sheets, spring, problem.prior)
    return replace(blocks, own=blocks.own + roots.transpose(0, 2, 1) @ roots)


def _round_blocks(sheets: Sheets, trust: Floats, spring: float) -> Blocks:
    """Return the normal equations of one axis, as if covariances were round."""
    problem = sheets.problem
    scalar = (problem.amount * trust)[:, np.newaxis, np.newaxis]
    near, far = sheets.near[:, np.newaxis], sheets.far[:, np.newaxis]
    blocks = normal_blocks(problem, sheets.pairs, near, far, scalar)
    roots = spring_roots(sheets, spring, problem.prior.mean(keepdims=True))
    return replace(blocks, own=blocks.own + roots.transpose(0, 2, 1) @ roots)


def spring_roots(sheets: Sheets, spring: float, prior: Floats) -> Floats:
    """Return square roots of springs: of distortions, of positions, of the ground."""
    problem = sheets.problem
    count, size = sheets.at_pivot.shape
    roots = np.zeros((count, size + 1, size))
    axes = np.arange(size - 1)
    roots[:, axes, axes] = np.sqrt(spring)
    roots[problem.held, -1, -1] = np.sqrt(_ground(problem))
    spread = np.kron(roots, np.eye(len(prior)))
    away = np.kron(sheets.at_pivot[:, np.newaxis], np.diag(np.sqrt(prior)))
    spread[:, (size - 1) * len(prior) : size * len(prior)] = away
    return np.asarray(spread)


def _ground(problem: PointLinks) -> float:
    """Return the stiffness of the spring that holds a group of tiles.

    The group goes where that spring is at rest, so that any will do.
    """
    return float(np.median(problem.amount)) if len(problem.links) else 1.0


def _improved(fit: Fit, free: Flags, force: Floats, tolerance: float) -> Floats:
    """Move the unknowns to where a force is balanced.

    Strategy: conjugate gradients, preconditioned with the factor for round
    covariances, which alone does if they are.
    """
    ndim = force.shape[2]

    def precondition(vector: Floats) -> Floats:
        return fit.solve(vector.reshape(-1, ndim)).ravel()

    left = force[free].ravel()
    step = precondition(left)
    if fit.multiply is None:
        values = fit.values.copy()
        values[free] += step.reshape(force[free].shape)
        return values
    first = energy = float(step @ left)
    moved = np.zeros(len(left))
    for _ in range(ITERATIONS):
        if energy <= tolerance**2 * first or energy <= 0:
            break
        pushed = fit.multiply(step)
        length = energy / float(step @ pushed)
        moved += length * step
        left = left - length * pushed
        better = precondition(left)
        energy, last = float(better @ left), energy
        step = better + (energy / last) * step
    values = fit.values.copy()
    values[free] += moved.reshape(force[free].shape)
    return values


def _force(sheets: Sheets, fit: Fit) -> Floats:
    """Return the force of links and springs on each unknown.

    Smaller tiles have smaller residuals, so that least squares shrinks tiles
    where it can. It must not gain by this: links pull at the middle between
    reference and moving point, which is the same for both tiles.
    """
    problem, values = sheets.problem, fit.values
    residuals = _residuals(sheets, values)
    pull = _weighted(problem, residuals) * fit.trust[:, np.newaxis]
    force = _link_force(sheets, pull)
    back = _inverses(sheets, values)
    for tiles in problem.links.T:
        half = back[tiles] @ residuals[:, :, np.newaxis] / (2 * sheets.spread)
        far = np.linalg.norm(half, axis=1, keepdims=True) / APART
        half /= np.maximum(far, 1)
        force[:, :-1] += sum_rows(tiles, half * pull[:, np.newaxis], len(force))
    force[:, :-1] -= fit.spring * values[:, :-1]
    if problem.prior.any():
        moved = np.einsum("nk,nka->na", sheets.at_pivot, values)
        away = (problem.places - moved) * problem.prior
        force += sheets.at_pivot[:, :, np.newaxis] * away[:, np.newaxis]
    return force


def _inverses(sheets: Sheets, values: Floats) -> Floats:
    """Return the inverse linear part of each tile, or nearly so if it is flat."""
    linear = values[:, :-1].transpose(0, 2, 1) / sheets.spread
    left, size, right = np.linalg.svd(linear + np.eye(values.shape[2]))
    inverse = right.transpose(0, 2, 1) / np.maximum(size, RIGID)[:, np.newaxis]
    return np.asarray(inverse @ left.transpose(0, 2, 1))


def _link_force(sheets: Sheets, pull: Floats) -> Floats:
    reference, moving = sheets.problem.links.T
    count = len(sheets.middle)
    force = sum_rows(moving, sheets.far[:, :, None] * pull[:, None], count)
    force -= sum_rows(reference, sheets.near[:, :, None] * pull[:, None], count)
    return force


def _weighted(problem: PointLinks, residuals: Floats) -> Floats:
    return np.asarray((problem.weights @ residuals[:, :, np.newaxis])[:, :, 0])


def _differences(sheets: Sheets, values: Floats) -> Floats:
    """Return displacements of reference points less those of moving points."""
    reference, moving = sheets.problem.links.T
    near = sheets.near[:, np.newaxis] @ values[reference]
    return np.asarray((near - sheets.far[:, np.newaxis] @ values[moving])[:, 0])


def _residuals(sheets: Sheets, values: Floats) -> Floats:
    offsets = sheets.problem.reference - sheets.problem.moving
    return offsets + _differences(sheets, values)


def squares_of(sheets: Sheets, values: Floats) -> Floats:
    """Return the squared residual of each link in units of its covariance.

    It is seen from the reference tile, and no smaller for tiles that shrink.
    """
    back = _inverses(sheets, values)[sheets.problem.links[:, 0]]
    residuals = (back @ _residuals(sheets, values)[:, :, np.newaxis])[:, :, 0]
    return np.asarray((_weighted(sheets.problem, residuals) * residuals).sum(axis=1))


def solve_sheets(
    problem: PointLinks, *, stiffness: float | None, robust: bool
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed.

    Parameters
    ----------
    problem : PointLinks
        Tiles and links.
    stiffness : float or None
        Inverse variance of the entries of the linear parts less the identity;
        None measures it.
    robust : bool
        Whether links that contradict the others do not count.

    Returns
    -------
    tuple
        Matrices of shape (n, ndim + 1, ndim + 1), and flags of the links.
    """
    sheets = sheets_of(problem)
    start = USUAL_STIFFNESS if stiffness is None else stiffness
    believed = np.ones(len(problem.links), np.bool_)
    fit = fitted(sheets, believed.astype(float), upright(sheets), start)
    for _ in range(ROUNDS if stiffness is None else 0):
        last, fit = fit, _refitted(sheets, fit, fit.trust)
        if max(fit.spring, last.spring) <= 2 * min(fit.spring, last.spring):
            break
    squares = squares_of(sheets, fit.values)
    ndim = problem.places.shape[1]
    if robust and suspicious(ndim, squares, problem.least_unit):
        # What bent to contradictions stiffens when it is told of so large errors.
        stiff = _trusted(sheets, stiffness, fit.trust, float(squares.max()), fit)
        fit, believed = find_consensus(
            lambda trust, variance, last: _trusted(
                sheets, stiffness, trust, variance, last
            ),
            lambda last: squares_of(sheets, last.values),
            stiff,
            consensus_test(problem, _open(sheets, fit)[0]),
        )
    fit = polished(sheets, fit)
    return _gauged(problem, _matrices(sheets, fit.values)), believed


def _trusted(
    sheets: Sheets,
    stiffness: float | None,
    trust: Floats,
    variance: float | None,
    last: Fit,
) -> Fit:
    """Fit with a trust of 0 to 1 in each link, and a variance that it implies.

    The larger the errors of links, the less they have to say about distortions.
    """
    if variance is not None:
        stiff = variance * (USUAL_STIFFNESS if stiffness is None else stiffness)
        return fitted(sheets, trust, last.values, stiff, steps=1)
    if stiffness is not None:
        return fitted(sheets, trust, last.values, stiffness)
    return _refitted(sheets, last, trust)


# What the data say about themselves


def _open(sheets: Sheets, fit: Fit) -> tuple[float, float]:
    """Count the coefficients that links determine: all, and of distortions."""
    problem = sheets.problem
    free = ~problem.fixed
    if not free.any():
        return 0.0, 0.0
    prior = problem.prior.mean(keepdims=True)
    roots = spring_roots(sheets, fit.spring, prior)[free]
    left = undetermined(fit.solve, roots)
    count, _, size = roots.shape
    bent = max(count * (size - 1) - float(left[: size - 1].sum()), 0.0)
    return max(count * size - float(left.sum()), 0.0), bent


def _refitted(sheets: Sheets, fit: Fit, trust: Floats) -> Fit:
    """Fit again, with the stiffness that fits what was found with another one.

    The variance of distortions is that of the found ones, counted by how many
    coefficients the links determine [MacKay 1992].
    """
    unknown, bent = _open(sheets, fit)
    linear = fit.values[~sheets.problem.fixed, :-1] / sheets.spread
    found = (np.sum(linear**2) + 1 / USUAL_STIFFNESS) / (linear.shape[2] * bent + 1)
    variance = min(float(found), 1 / LEAST_STIFFNESS)
    squares = squares_of(sheets, fit.values)
    unit = unit_variance(sheets.problem, squares, trust, unknown)
    return fitted(sheets, trust, fit.values, unit / variance)


# The result


def _matrices(sheets: Sheets, values: Floats) -> Floats:
    """Return matrices that displace points as the unknowns say."""
    count, ndim = sheets.middle.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:] = np.eye(ndim + 1)
    linear = values[:, :-1].transpose(0, 2, 1) / sheets.spread
    matrices[:, :-1, :-1] += linear
    matrices[:, :-1, -1] = values[:, -1]
    matrices[:, :-1, -1] -= (linear @ sheets.middle[:, :, np.newaxis])[:, :, 0]
    return matrices


def _gauged(problem: PointLinks, matrices: Floats) -> Floats:
    """Give each group that nothing holds the identity as its mean linear part."""
    size = np.bincount(problem.group)
    mean = sum_rows(problem.group, matrices, len(size)) / size[:, None, None]
    away = sum_rows(problem.group, problem.places, len(size)) / size[:, None]
    change = np.broadcast_to(np.eye(mean.shape[1]), mean.shape).copy()
    loose = problem.loose & (not problem.prior.any())
    # Tiles that point every way have no mean to be made upright.
    loose &= np.abs(np.linalg.det(mean)) > FLAT
    change[loose] = np.linalg.inv(mean[loose])
    gauged = change[problem.group] @ matrices
    # The mean matrix is now the identity: its translation is next.
    gauged[loose[problem.group], :-1, -1] += away[problem.group[loose[problem.group]]]
    return np.asarray(gauged)

"""Place tiles that may turn, and change their scale, by least squares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats
from ..._shared.sparse import factorized_blocks, sum_rows
from ..._shared.statistics import find_consensus, suspicious
from ..._transforms.matrices import nearest_rotations, rotations
from .normal_equations import (
    LEAST_STIFFNESS,
    USUAL_STIFFNESS,
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
from .rotation_averaging import synchronised

__all__ = ["solve_turns"]


# Gauss-Newton steps double the digits: five are enough but for hopeless data.
STEPS, FEW_STEPS = 30, 2
# Steps shorter than this fraction of the tiles do not change what is believed,
# and those of the second are rounding.
SHORT, SHORTEST = 1e-5, 1e-10
# One or two rounds settle the stiffness; perfect matches take some more.
ROUNDS = 8
# A tile that nothing turns keeps its angle, held by this fraction of a link.
FAINT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What does not change from step to step.

    Attributes
    ----------
    problem : PointLinks
        Tiles and links.
    pairs : Pairs
        Pairs of tiles that links join.
    pivot : ndarray of shape (ndim,)
        Middle of all points, whose displacement is what positions mean.
    middle : ndarray of shape (n, ndim)
        Middle of the points of each tile, about which it turns.
    spread : float
        Unit of length for angles and scales, in pixels.
    scale : bool
        Whether tiles may change their scale.
    usual : float
        Inverse variance of the logarithm of scales, at first or for good.
    known : bool
        Whether it is for good.
    robust : bool
        Whether links that contradict the others do not count.
    """

    problem: PointLinks
    pairs: Pairs
    pivot: Floats
    middle: Floats
    spread: float
    scale: bool
    usual: float
    known: bool
    robust: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turns:
    """How all tiles are turned and where they are.

    Attributes
    ----------
    turn : ndarray of shape (n, ndim, ndim)
        Rotation of each tile.
    growth : ndarray of shape (n,)
        Logarithm of the scale of each tile.
    place : ndarray of shape (n, ndim)
        Where the middle of its points lies in the mosaic.
    bend : ndarray of shape (n, angles)
        How far each tile was turned since the start, about each axis.
    silent : ndarray of bool, shape (n,)
        Tiles that no pair of tiles says how to turn.
    trust : ndarray of shape (n_links,)
        Factor of the weight of each link.
    stiffness : float
        Inverse variance of the logarithm of scales that was used.
    solve : callable
        Solves the normal equations of the last step.
    """

    turn: Floats
    growth: Floats
    place: Floats
    bend: Floats
    silent: Flags
    trust: Floats
    stiffness: float
    solve: Callable[[Floats], Floats]

    @property
    def linear(self) -> Floats:
        """Linear part of each tile."""
        return np.asarray(np.exp(self.growth)[:, np.newaxis, np.newaxis] * self.turn)


def moved_tiles(setting: Setting, turns: Turns, step: Floats) -> Turns:
    """Turn and move tiles by one step of the unknowns."""
    ndim = setting.middle.shape[1]
    place = turns.place + step[:, -ndim:]
    if step.shape[1] == ndim:
        return replace(turns, place=place)
    angles = step.shape[1] - ndim - setting.scale
    bend = step[:, :angles] / setting.spread
    turn = rotations(bend) @ turns.turn
    growth = turns.growth
    if setting.scale:
        growth = growth + step[:, angles] / setting.spread
    bend = turns.bend + bend
    return replace(turns, place=place, turn=turn, growth=growth, bend=bend)


def lever_columns_of_links(setting: Setting, turns: Turns) -> tuple[Floats, Floats]:
    """Return how points of the reference and of the moving tile follow a step.

    Residuals are seen from the reference tile: when it turns, what moves is the
    moving point. When a tile grows, it must not gain by smaller residuals: what
    grows is the lever to the middle of both points.
    """
    (reference, near), (moving, far) = _ends(setting, turns)
    middle = (reference + moving) / 2 if setting.scale else moving
    return (
        _lever_columns(setting, moving - near, middle - near),
        _lever_columns(setting, moving - far, middle - far),
    )


def _lever_columns(setting: Setting, turned: Floats, grown: Floats) -> Floats:
    """Return displacements (n, ndim, size) by unit steps of each unknown."""
    count, ndim = turned.shape
    unit = turned / setting.spread
    if ndim == 2:
        columns = [np.stack([-unit[:, 1], unit[:, 0]], axis=1)[:, :, np.newaxis]]
    else:
        columns = [np.cross(np.eye(3), unit[:, np.newaxis]).transpose(0, 2, 1)]
    if setting.scale:
        columns.append(grown[:, :, np.newaxis] / setting.spread)
    columns.append(np.broadcast_to(np.eye(ndim), (count, ndim, ndim)))
    return np.concatenate(columns, axis=2)


def lever_columns_of_pivot(setting: Setting, turns: Turns) -> Floats:
    levers = at_pivot_of(setting, turns) - turns.place
    return _lever_columns(setting, levers, levers)


def _ends(setting: Setting, turns: Turns) -> list[tuple[Floats, Floats]]:
    """Return both points of each link in the mosaic, and the middles of their tiles."""
    problem, linear = setting.problem, turns.linear
    ends = []
    points = problem.reference, problem.moving
    for point, tiles in zip(points, problem.links.T, strict=True):
        away = (point - setting.middle[tiles])[:, :, np.newaxis]
        place = turns.place[tiles]
        ends.append(((linear[tiles] @ away)[:, :, 0] + place, place))
    return ends


def residuals_of(setting: Setting, turns: Turns) -> Floats:
    (reference, _), (moving, _) = _ends(setting, turns)
    return np.asarray(reference - moving)


def at_pivot_of(setting: Setting, turns: Turns) -> Floats:
    """Return where each tile puts the middle of all points."""
    away = (setting.pivot - setting.middle)[:, :, np.newaxis]
    return np.asarray((turns.linear @ away)[:, :, 0] + turns.place)


def turned_weights(setting: Setting, turns: Turns) -> Floats:
    """Return inverse covariances, which turn with the reference tiles, as they lie."""
    problem = setting.problem
    turn = turns.turn[problem.links[:, 0]]
    return np.asarray(turn @ problem.weights @ turn.transpose(0, 2, 1))


def weighted(setting: Setting, turns: Turns, residuals: Floats) -> Floats:
    return np.asarray(
        (turned_weights(setting, turns) @ residuals[:, :, np.newaxis])[:, :, 0]
    )


def squares_of(setting: Setting, turns: Turns) -> Floats:
    """Return the squared residual of each link in units of its covariance."""
    residuals = residuals_of(setting, turns)
    return np.asarray((weighted(setting, turns, residuals) * residuals).sum(axis=1))


def means(group: NDArray[np.intp], values: Floats) -> Floats:
    count = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(sum_rows(group, values, len(count)) / count)


def gauged(setting: Setting, turns: Turns) -> Turns:
    """Give each group that nothing holds the mean angle and growth zero."""
    problem = setting.problem
    group, loose = problem.group, problem.loose & (not problem.prior.any())
    turn = nearest_rotations(means(group, turns.turn)).transpose(0, 2, 1)
    turn[~loose] = np.eye(turn.shape[1])
    growth = np.where(loose, -means(group, turns.growth[:, np.newaxis])[:, 0], 0)
    moved = moved_groups(setting, turns, turn, growth)
    away = problem.places - (at_pivot_of(setting, moved) - setting.pivot)
    shift = np.where(loose[:, np.newaxis], means(group, away), 0)
    return replace(moved, place=moved.place + shift[group])


def moved_groups(setting: Setting, turns: Turns, turn: Floats, growth: Floats) -> Turns:
    """Turn and scale whole groups about the origin."""
    group = setting.problem.group
    factor = np.exp(growth)[:, np.newaxis, np.newaxis]
    place = (factor * turn)[group] @ turns.place[:, :, np.newaxis]
    return replace(
        turns,
        turn=turn[group] @ turns.turn,
        growth=turns.growth + growth[group],
        place=place[:, :, 0],
    )


def matrices_of(setting: Setting, turns: Turns) -> Floats:
    count, ndim = setting.middle.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:] = np.eye(ndim + 1)
    matrices[:, :-1, :-1] = turns.linear
    moved = (turns.linear @ setting.middle[:, :, np.newaxis])[:, :, 0]
    matrices[:, :-1, -1] = turns.place - moved
    return matrices


def solve_turns(
    problem: PointLinks,
    *,
    scale: bool = False,
    stiffness: float | None = None,
    robust: bool = True,
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed.

    The tiles turn about any angle, in the plane or in space, to the least sum of
    squared residuals in units of their covariances.

    Parameters
    ----------
    problem : PointLinks
        Tiles and links.
    scale : bool, optional
        Whether tiles may change their scale too.
    stiffness : float, optional
        Inverse variance of the logarithm of scales. By default it is measured.
    robust : bool, optional
        Whether links that contradict the others do not count.

    Returns
    -------
    tuple
        Matrices of shape (n, ndim + 1, ndim + 1), and flags of the links.
    """
    pivot, middle, spread = middles(problem)
    setting = Setting(
        problem=problem,
        pairs=distinct_pairs(problem.links),
        pivot=pivot,
        middle=middle,
        spread=spread,
        scale=scale,
        usual=USUAL_STIFFNESS if stiffness is None else stiffness,
        known=stiffness is not None,
        robust=robust,
    )
    begin = _start(setting)
    believed = np.ones(len(problem.links), np.bool_)
    turns = _converged(setting, replace(begin, trust=believed.astype(float)), STEPS)
    if scale and stiffness is None:
        for _ in range(ROUNDS):
            last, turns = turns, _trusted(setting, turns.trust, None, turns)
            if max(turns.stiffness, last.stiffness) <= 2 * min(
                turns.stiffness, last.stiffness
            ):
                break
    ndim = problem.places.shape[1]
    squares = squares_of(setting, turns)
    if robust and suspicious(ndim, squares, problem.least_unit):
        unknown = float(_open(setting, turns).sum())
        # Plain least squares may have turned tiles to where there is no way back.
        begin = _converged(setting, begin, STEPS)
        if scale and stiffness is None:
            setting = replace(setting, usual=_measured(setting, begin, begin.trust))
        turns, believed = find_consensus(
            lambda trust, variance, last: _trusted(setting, trust, variance, last),
            lambda last: squares_of(setting, last),
            begin,
            consensus_test(problem, unknown),
        )
    turns = _converged(setting, turns, STEPS, SHORTEST)
    return matrices_of(setting, gauged(setting, turns)), believed


# Where to start


def _start(setting: Setting) -> Turns:
    """Turn tiles as pairs of them say, and place them as they are then turned."""
    problem = setting.problem
    count, ndim = problem.places.shape
    turn, trust, silent = synchronised(
        problem, setting.pairs, scale=setting.scale, robust=setting.robust
    )
    upright = Turns(
        turn=turn,
        growth=np.zeros(count),
        place=setting.middle + problem.places,
        bend=np.zeros((count, 1 if ndim == 2 else 3)),
        silent=silent,
        trust=trust,
        stiffness=setting.usual,
        solve=np.asarray,
    )
    afloat = replace(setting, problem=replace(problem, prior=np.zeros(ndim)))
    placed = gauged(afloat, _stepped(afloat, upright, turning=False)[0])
    if not problem.prior.any():
        return placed
    return _stepped(setting, _aligned(setting, placed), turning=False)[0]


def _aligned(setting: Setting, turns: Turns) -> Turns:
    """Turn each group that nothing holds to where positions expect its tiles."""
    group, places = setting.problem.group, setting.problem.places
    size = np.bincount(group)
    found = at_pivot_of(setting, turns) - setting.pivot
    centred = [v - (means(group, v))[group] for v in (places, found)]
    spread = centred[0][:, :, np.newaxis] * centred[1][:, np.newaxis]
    turn = nearest_rotations(sum_rows(group, spread, len(size)))
    turn[~setting.problem.loose] = np.eye(places.shape[1])
    return moved_groups(setting, turns, turn, np.zeros(len(size)))


# Steps


def _trusted(
    setting: Setting, trust: Floats, variance: float | None, last: Turns
) -> Turns:
    """Fit with a trust of 0 to 1 in each link, and a variance that it implies.

    The larger the errors of links, the less they have to say about scales.
    """
    now = replace(last, trust=trust)
    if variance is not None:
        stiff = variance * setting.usual
        return _converged(setting, replace(now, stiffness=stiff), FEW_STEPS)
    stiff = setting.usual
    if setting.scale and not setting.known:
        stiff = _measured(setting, last, trust)
    return _converged(setting, replace(now, stiffness=stiff), STEPS)


def _converged(
    setting: Setting, turns: Turns, steps: int, short: float = SHORT
) -> Turns:
    for _ in range(steps):
        turns, length = _stepped(setting, turns)
        if length <= short * setting.spread:
            break
    return turns


def _stepped(
    setting: Setting, turns: Turns, *, turning: bool = True
) -> tuple[Turns, float]:
    """Make one Gauss-Newton step; without turning it is the last one."""
    problem = setting.problem
    free = ~problem.fixed
    if not free.any():
        return turns, 0.0
    residuals = residuals_of(setting, turns)
    near, far = lever_columns_of_links(setting, turns)
    at_pivot = lever_columns_of_pivot(setting, turns)
    roots = _spring_roots(setting, turns, at_pivot)
    if not turning:
        count = problem.places.shape[1]
        near, far = near[..., -count:], far[..., -count:]
        at_pivot, roots = at_pivot[..., -count:], roots[..., -count:]

    weights = turned_weights(setting, turns) * turns.trust[:, np.newaxis, np.newaxis]
    blocks = normal_blocks(problem, setting.pairs, near, far, weights)
    number = np.cumsum(free) - 1
    inside = free[setting.pairs.tiles].all(axis=1)
    solve = factorized_blocks(
        number[setting.pairs.tiles[inside]],
        blocks.between[inside],
        (blocks.own + roots.transpose(0, 2, 1) @ roots)[free],
    )
    force = _force(setting, turns, residuals, near, far, at_pivot)
    step = np.zeros_like(force)
    step[free] = solve(force[free].reshape(-1, 1)).reshape(-1, force.shape[1])
    return replace(moved_tiles(setting, turns, step), solve=solve), float(
        np.abs(step).max()
    )


def _force(
    setting: Setting,
    turns: Turns,
    residuals: Floats,
    near: Floats,
    far: Floats,
    at_pivot: Floats,
) -> Floats:
    """Return the force of links, positions and stiff scales on each unknown."""
    problem, count = setting.problem, len(setting.middle)
    reference, moving = problem.links.T
    pull = weighted(setting, turns, residuals) * turns.trust[:, np.newaxis]
    force = sum_rows(moving, np.einsum("nak,na->nk", far, pull), count)
    force -= sum_rows(reference, np.einsum("nak,na->nk", near, pull), count)
    away = problem.places - (at_pivot_of(setting, turns) - setting.pivot)
    force += np.einsum("nak,na->nk", at_pivot, away * problem.prior)
    ndim = problem.places.shape[1]
    size = force.shape[1] - ndim
    if size:
        bent = [np.where(turns.silent[:, np.newaxis], turns.bend, 0)]
        bent += [turns.growth[:, np.newaxis]] if setting.scale else []
        springs = _springs(setting, turns, size)
        force[:, :size] -= springs * setting.spread * np.concatenate(bent, axis=1)
    return force


def _springs(setting: Setting, turns: Turns, size: int) -> Floats:
    """Return springs (n, size) of angles and scale, if tiles may change it.

    An angle that pairs of tiles say hardly feels its spring. Where each pair of
    tiles has one pair of points, many angles fit equally well: those stay close
    to where they began.
    """
    problem = setting.problem
    level = float(problem.amount.max(initial=0)) or 1.0
    springs = np.full((len(turns.silent), size), FAINT * level)
    usual = possible_spring(problem, USUAL_STIFFNESS / setting.spread**2)
    springs[turns.silent] = usual
    if setting.scale:
        stiff = turns.stiffness / setting.spread**2
        springs[:, -1] = possible_spring(problem, stiff)
    return springs


def _spring_roots(setting: Setting, turns: Turns, at_pivot: Floats) -> Floats:
    """Return square roots of all springs of each tile.

    They are those of angles and scale, of the ground, and of positions.
    """
    problem = setting.problem
    count, ndim, size = at_pivot.shape
    level = float(problem.amount.max(initial=0)) or 1.0
    roots = np.zeros((count, 2 * size, size))
    axes = np.arange(size)
    turned = axes[: size - ndim]
    roots[:, turned, turned] = np.sqrt(_springs(setting, turns, len(turned)))
    # Nothing holds the angle of a whole group either, if nothing its place.
    ground = np.full(size, np.sqrt(level))
    ground[len(turned) - setting.scale : len(turned)] = 0
    roots[problem.held, len(turned) : -ndim] = np.diag(ground)
    roots[:, -ndim:] = np.sqrt(problem.prior)[:, np.newaxis] * at_pivot
    return roots


# What the data say about themselves


def _open(setting: Setting, turns: Turns) -> Floats:
    """Count the angles and shifts, and the scales, that links determine."""
    problem = setting.problem
    free = ~problem.fixed
    if not free.any():
        return np.zeros(2)
    at_pivot = lever_columns_of_pivot(setting, turns)
    roots = _spring_roots(setting, turns, at_pivot)[free]
    left = undetermined(turns.solve, roots)
    count, ndim, size = at_pivot[free].shape
    scales = slice(size - ndim - setting.scale, size - ndim)
    grown = count * int(setting.scale) - float(left[scales].sum())
    all_known = max(count * size - float(left.sum()), 0.0)
    return np.array([all_known - grown, grown]) / ndim


def _measured(setting: Setting, turns: Turns, trust: Floats) -> float:
    """Return the stiffness that fits the scales found with another one."""
    known = _open(setting, turns)
    grown = max(float(known[1]), 0.0) * setting.middle.shape[1]
    growth = turns.growth[~setting.problem.fixed]
    found = (np.sum(growth**2) + 1 / USUAL_STIFFNESS) / (grown + 1)
    variance = min(float(found), 1 / LEAST_STIFFNESS)
    squares = squares_of(setting, turns)
    unit = unit_variance(setting.problem, squares, trust, float(known.sum()))
    return unit / variance

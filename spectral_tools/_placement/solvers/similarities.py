"""Place tiles that may turn, and change their scale, by least squares."""

from dataclasses import replace

import numpy as np

from ..._shared.arrays import Flags, Floats
from ..._shared.sparse import factorized_blocks
from ..._shared.statistics import find_consensus, outlier_test, suspicious
from ..._transforms.rotations import nearest_rotations
from .normal_equations import (
    LEAST_STIFFNESS,
    USUAL_STIFFNESS,
    PointLinks,
    distinct_pairs,
    middles,
    normal_blocks,
    possible_spring,
    sum_rows,
    undetermined,
    unit_variance,
)
from .rotation_averaging import synchronised
from .turn_states import (
    Setting,
    Turns,
    at_pivot_of,
    gauged,
    lever_columns_of_links,
    lever_columns_of_pivot,
    matrices_of,
    means,
    moved_groups,
    moved_tiles,
    residuals_of,
    squares_of,
    turned_weights,
    weighted,
)

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
            outlier_test(ndim, problem.amount, unknown, problem.least_unit),
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

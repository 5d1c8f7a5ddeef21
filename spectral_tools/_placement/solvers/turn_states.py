"""What turned and scaled tiles do to the points that join them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats
from ..._transforms.rotations import nearest_rotations, rotations
from .normal_equations import Pairs, PointLinks, sum_rows

__all__ = [
    "Setting",
    "Turns",
    "at_pivot_of",
    "gauged",
    "lever_columns_of_links",
    "lever_columns_of_pivot",
    "matrices_of",
    "means",
    "moved_groups",
    "moved_tiles",
    "residuals_of",
    "squares_of",
    "turned_weights",
    "weighted",
]


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

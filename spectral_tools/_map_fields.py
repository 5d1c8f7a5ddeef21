"""Maps of points as an affine matrix and a displacement field (floor 1)."""

import numpy as np
from numpy.typing import NDArray

from ._point_maps import PointMap, map_points, map_slopes

__all__ = ["affine_and_field", "inverse_points"]

Floats = NDArray[np.float64]

# Newton's steps, and when a point has arrived, in pixels.
STEPS, ARRIVED = 20, 1e-6
# Points that are mapped at once.
AT_ONCE = 200_000


def affine_and_field(
    change: PointMap, shape: tuple[int, ...]
) -> tuple[Floats, Floats | None]:
    """Return the affine part of a map, and what else it does at reference pixels.

    The field is None if there is nothing else, and NaN where the reference shows
    nothing of the moving image.
    """
    ndim = len(change.center)
    last = np.eye(ndim + 1)[-1]
    if not len(change.powers) and np.array_equal(change.matrix[-1], last):
        return change.matrix, None
    matrix = tangent(change)
    pixels = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1).reshape(-1, ndim)
    field = np.empty_like(pixels)
    for first in range(0, len(pixels), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        moving = inverse_points(change, pixels[part])
        field[part] = pixels[part] - moving @ matrix[:-1, :-1].T - matrix[:-1, -1]
    return matrix, field.reshape(*shape, ndim)


def tangent(change: PointMap) -> Floats:
    """Return the affine map that does the same close to the centre."""
    ndim = len(change.center)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = _slopes(change, change.center[np.newaxis])[0]
    place = map_points(change, change.center[np.newaxis])[0]
    matrix[:-1, -1] = place - matrix[:-1, :-1] @ change.center
    return matrix


def inverse_points(change: PointMap, points: Floats) -> Floats:
    """Return the moving points that go to reference points; NaN if none is found."""
    if not len(change.powers):
        back = change._replace(
            matrix=np.asarray(np.linalg.inv(change.matrix), np.float64)
        )
        found = map_points(back, points)
        found[~np.isfinite(found).all(axis=1)] = np.nan
        return found
    start = np.linalg.inv(tangent(change))
    found = points @ start[:-1, :-1].T + start[:-1, -1]
    arrived = np.zeros(len(points), np.bool_)
    todo = np.arange(len(points))
    for _ in range(STEPS):
        away = map_points(change, found[todo]) - points[todo]
        slopes = _slopes(change, found[todo])
        # Beyond a fold the picture is seen from behind.
        upright = np.linalg.det(slopes) * np.linalg.det(start[:-1, :-1]) > 0
        done = np.abs(away).max(axis=1, initial=0) < ARRIVED
        arrived[todo[done & upright]] = True
        going = ~done & upright
        todo, away, slopes = todo[going], away[going], slopes[going]
        if not len(todo):
            break
        found[todo] -= np.linalg.solve(slopes, away[..., np.newaxis])[..., 0]
    found[~arrived] = np.nan
    return found


def _slopes(change: PointMap, points: Floats) -> Floats:
    """Return how mapped points move with moving points, shape (n, ndim, ndim)."""
    ndim = points.shape[1]
    # A shift of the points is a change of the matrix, by its own columns.
    ways = np.zeros((ndim, ndim + 1, ndim + 1))
    ways[range(ndim), :, ndim] = change.matrix[:, :ndim].T
    bends = np.zeros((ndim, *change.bend.shape))
    slopes = map_slopes(change, (ways, bends), points)
    if not len(change.powers):
        return slopes
    unit = (points - change.center) / change.extent
    for axis in range(ndim):
        lower = np.maximum(change.powers - np.eye(ndim, dtype=np.intp)[axis], 0)
        terms = np.prod(unit[:, np.newaxis] ** lower, axis=2)
        rates = terms * change.powers[:, axis] / change.extent
        slopes[:, :, axis] += rates @ change.bend
    return slopes

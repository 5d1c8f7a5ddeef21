"""Locate and sample rows of points in a tile, compiled.

The points of a row are given by their first and their step, or one by one. Each
lies `parts` beyond the pixel `lows`, along each axis. Buffers are the caller's, and
only the first `size` entries count.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Image
from .._shared.compiled import compiled
from .splines import combine

__all__ = [
    "LEAST",
    "bend",
    "displace",
    "distances",
    "gather",
    "lean",
    "lift",
    "locate",
    "measure",
    "normalise",
    "split",
]


# The weight of a pixel on the border itself, where the distance is 0.
LEAST = 1e-3


@compiled
def _mix(one: Any, two: Any, part: Any, size: int, out: Image) -> None:
    # This form, not one * (1 - part) + two * part, keeps constants exactly.
    real = out.dtype.type
    for k in range(size):
        here = real(one[k])
        out[k] = here + part * (real(two[k]) - here)


@compiled
def lean(
    lines: NDArray[Any],
    low: NDArray[np.intp],
    strides: tuple[int, int],
    shape: tuple[int, int, int],
    part: Image,
    size: int,
    room: Image,
    values: Image,
) -> None:
    """Interpolate a row of a translated tile linearly.

    Parameters
    ----------
    lines : ndarray
        Pixels of the tile, of any real dtype.
    low : ndarray of shape (3,)
        The lowest of the pixels around the first point. Those that lie outside
        of the tile are taken from its border.
    strides : tuple of two int
        Steps in `lines` to the next plane and row.
    shape : tuple of three int
        Shape of the tile.
    part : ndarray of shape (3,)
        How far the points lie beyond pixels.
    size : int
        Number of points.
    room : ndarray of shape (2, at least size + 1)
        Overwritten.
    values : ndarray of shape (size,)
        The result.
    """
    line, other = room[0], room[1]
    row, below = _clamp(low[1], shape[1]), _clamp(low[1] + 1, shape[1])
    plane, next_plane = _clamp(low[0], shape[0]), _clamp(low[0] + 1, shape[0])
    col = _clamp(low[2], shape[2])
    skip = max(col - low[2], 0)
    keep = max(min(low[2] + size + 1, shape[2]) - col, 1)
    at = plane * strides[0] + row * strides[1] + col
    down = (below - row) * strides[1]
    _mix(lines[at:], lines[at + down :], part[1], keep, line[skip:])
    if shape[0] > 1:
        at += (next_plane - plane) * strides[0]
        _mix(lines[at:], lines[at + down :], part[1], keep, other[skip:])
        _mix(line[skip:], other[skip:], part[0], keep, line[skip:])
    line[:skip] = line[skip]
    line[skip + keep : size + 1] = line[skip + keep - 1]
    _mix(line, line[1:], part[2], size, values)


@compiled
def _clamp(index: int, size: int) -> int:
    return min(max(index, 0), size - 1)


@compiled
def bend(
    lines: NDArray[Any],
    at: int,
    strides: tuple[int, int],
    deep: bool,
    taps: Image,
    size: int,
    room: Image,
    values: Image,
) -> None:
    """Interpolate a row of a translated tile by splines, else like `lean`."""
    order = len(taps) - 1
    reach = order // 2
    line, other = room[0], room[1]
    at -= reach * strides[1] + reach
    if deep:
        at -= reach * strides[0]
        line[:] = 0
        for plane in range(order + 1):
            here = at + plane * strides[0]
            combine(lines, here, strides[1], taps[:, 1], size + order, other)
            for k in range(size + order):
                line[k] += taps[plane, 0] * other[k]
    else:
        combine(lines, at, strides[1], taps[:, 1], size + order, line)
    combine(line, 0, 1, taps[:, 2], size, values)


@compiled
def lift(values: Image, size: int, offset: float) -> None:
    if offset != 0:
        add = values.dtype.type(offset)
        for k in range(size):
            values[k] += add


@compiled
def locate(
    origin: Floats,
    step: Floats,
    ramp: Floats,
    shape: tuple[int, int, int],
    order: int,
    size: int,
    lows: NDArray[np.int32],
    parts: Image,
) -> None:
    """Write the lowest of the pixels around each point, and the fractions."""
    nudge, share = (0.5, 0.0) if order == 0 else (0.0, 1.0)
    for axis in range(0 if shape[0] > 1 else 1, 3):
        begin, stride = origin[axis], step[axis]
        low, part = lows[axis], parts[axis]
        for k in range(size):
            point = begin + ramp[k] * stride
            low[k] = np.int32(point + nudge)
            part[k] = (point - low[k]) * share


@compiled
def distances(
    origin: Floats,
    step: Floats,
    ramp: Image,
    centre: Floats,
    half: Floats,
    size: int,
    weights: Image,
) -> None:
    """Write the distance to the border of the tile, in pixels of the tile."""
    # A weight needs no more precision than the image has, a coordinate does.
    dtype = weights.dtype
    plane_at, row_at, col_at = (origin - centre).astype(dtype)
    plane_step, row_step, col_step = step.astype(dtype)
    plane_half, row_half, col_half = half.astype(dtype)
    least = dtype.type(LEAST)
    for k in range(size):
        row = row_half - abs(row_at + ramp[k] * row_step)
        col = col_half - abs(col_at + ramp[k] * col_step)
        weights[k] = max(min(row, col), least)
    if plane_half < np.inf:
        for k in range(size):
            plane = plane_half - abs(plane_at + ramp[k] * plane_step)
            weights[k] = np.minimum(weights[k], max(plane, least))


@compiled
def displace(
    origin: Floats,
    step: Floats,
    ramp: Floats,
    points: Floats,
    low: Floats,
    high: Floats,
    size: int,
    weights: Image,
) -> None:
    """Turn moves into points, in place; outside of the tile the weight is 0."""
    for k in range(size):
        weights[k] = 1
    for axis in range(3):
        begin, stride, line = origin[axis], step[axis], points[axis]
        least, most = low[axis], high[axis]
        for k in range(size):
            point = line[k] + (begin + ramp[k] * stride)
            inside = (least <= point) & (point <= most)  # NaN is not
            weights[k] *= inside
            line[k] = point if inside else least


@compiled
def split(
    points: Floats,
    shape: tuple[int, int, int],
    order: int,
    size: int,
    lows: NDArray[np.int32],
    parts: Image,
) -> None:
    """Write the pixels below points, and the fractions."""
    nudge, share = (0.5, 0.0) if order == 0 else (0.0, 1.0)
    for axis in range(0 if shape[0] > 1 else 1, 3):
        for k in range(size):
            lows[axis, k] = np.int32(points[axis, k] + nudge)
            parts[axis, k] = (points[axis, k] - lows[axis, k]) * share


@compiled
def measure(
    points: Floats, centre: Floats, half: Floats, size: int, weights: Image
) -> None:
    """Multiply the weights by the distance to the border of the tile."""
    for k in range(size):
        distance = np.inf
        for axis in range(3):
            if half[axis] < np.inf:
                away = abs(points[axis, k] - centre[axis])
                distance = min(distance, half[axis] - away)
        weights[k] *= max(distance, LEAST)


@compiled
def gather(
    flat: Image,
    lows: NDArray[np.int32],
    parts: Image,
    shape: tuple[int, int, int],
    size: int,
    values: Image,
) -> None:
    planes, rows, cols = shape
    row, col, row_part, col_part = lows[1], lows[2], parts[1], parts[2]
    for k in range(size):
        at = row[k] * cols + col[k]
        values[k] = _between(flat, at, cols, row_part[k], col_part[k])
    if planes > 1:
        layer = rows * cols
        for k in range(size):
            at = (lows[0, k] * rows + row[k]) * cols + col[k]
            one = _between(flat, at, cols, row_part[k], col_part[k])
            two = _between(flat, at + layer, cols, row_part[k], col_part[k])
            values[k] = one + parts[0, k] * (two - one)


@compiled
def _between(flat: Image, at: int, cols: int, row: Any, col: Any) -> Any:
    # Unsigned, so that no index is checked for being negative.
    here, below = np.uintp(at), np.uintp(at + cols)
    one = flat[here] + col * (flat[np.uintp(at + 1)] - flat[here])
    two = flat[below] + col * (flat[np.uintp(at + cols + 1)] - flat[below])
    return one + row * (two - one)


@compiled
def normalise(
    flags: Image,
    lows: NDArray[np.int32],
    parts: Image,
    shape: tuple[int, int, int],
    share: Image,
    size: int,
    values: Image,
    weights: Image,
) -> None:
    """Interpolate between known pixels only, where the nearest one is known.

    It is the law of the border: outside of a tile is nothing known either, and
    a pixel counts as far as half a pixel beyond the last known one.
    """
    planes, rows, cols = shape
    row, col, row_part, col_part = lows[1], lows[2], parts[1], parts[2]
    for k in range(size):
        nearest = (row[k] + int(row_part[k] + 0.5)) * cols
        nearest += col[k] + int(col_part[k] + 0.5)
        if planes > 1:
            nearest += (lows[0, k] + int(parts[0, k] + 0.5)) * rows * cols
        if flags[nearest] > 0:
            values[k] /= share[k]
        else:
            values[k] = 0
            weights[k] = 0

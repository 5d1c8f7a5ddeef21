"""Locate and sample rows of points in a tile, compiled.

The points of a row are given by their first and their step, or one by one. Each
lies `parts` beyond the pixel `lows`, along each axis. Buffers are the caller's, and
only the first `size` entries count.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Image, Ints
from .._shared.compiled import compiled
from .splines import combine

__all__ = [
    "LANES",
    "LEAST",
    "bend",
    "bend_runs",
    "cut_runs",
    "displace",
    "distances",
    "flows",
    "gather",
    "lean",
    "lean_runs",
    "lift",
    "locate",
    "nearest",
    "normalise",
    "spell",
    "trace",
]


# The weight of a pixel on the border itself, where the distance is 0.
LEAST = 1e-3


# Runs are computed in whole groups of so many points: the last ones are written
# over by the next run. All buffers, and every source, have that much room behind.
LANES = 16
# Mean length from which on runs are faster than single points.
SHORTEST = 6.0


@compiled
def _mix(
    lines: Any, at: int, step: int, part: Any, size: int, out: Image, to: int
) -> None:
    """Interpolate between two lines that start `step` apart."""
    # This form, not one * (1 - part) + two * part, keeps constants exactly.
    real = out.dtype.type
    one, two, mixed = lines[at:], lines[at + step :], out[to:]
    for k in range(size):
        here = real(one[k])
        mixed[k] = here + part * (real(two[k]) - here)


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
    # Both lines of the room, one behind the other.
    both, wide = room.reshape(-1), room.shape[1]
    row, below = _clamp(low[1], shape[1]), _clamp(low[1] + 1, shape[1])
    plane, next_plane = _clamp(low[0], shape[0]), _clamp(low[0] + 1, shape[0])
    col = _clamp(low[2], shape[2])
    skip = max(col - low[2], 0)
    keep = max(min(low[2] + size + 1, shape[2]) - col, 1)
    at = plane * strides[0] + row * strides[1] + col
    down = (below - row) * strides[1]
    for layer in range(2 if shape[0] > 1 else 1):
        _mix(lines, at, down, part[1], keep, both, layer * wide + skip)
        at += (next_plane - plane) * strides[0]
    if shape[0] > 1:
        _mix(both, skip, wide, part[0], keep, both, skip)
    for k in range(skip):
        both[k] = both[skip]
    for k in range(skip + keep, size + 1):
        both[k] = both[skip + keep - 1]
    _mix(both, 0, 1, part[2], size, values, 0)


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
        for k in range(size + order):
            line[k] = 0
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
    real = weights.dtype.type
    row_at, col_at = real(origin[1] - centre[1]), real(origin[2] - centre[2])
    row_step, col_step = real(step[1]), real(step[2])
    row_half, col_half = real(half[1]), real(half[2])
    least = real(LEAST)
    for k in range(size):
        row = row_half - abs(row_at + ramp[k] * row_step)
        col = col_half - abs(col_at + ramp[k] * col_step)
        weights[k] = max(min(row, col), least)
    if half[0] < np.inf:
        plane_at, plane_step = real(origin[0] - centre[0]), real(step[0])
        plane_half = real(half[0])
        for k in range(size):
            plane = plane_half - abs(plane_at + ramp[k] * plane_step)
            weights[k] = np.minimum(weights[k], max(plane, least))


@compiled
def displace(
    moves: Floats,
    plane: int,
    row: int,
    origin: Floats,
    step: Floats,
    ramp: Floats,
    low: Floats,
    high: Floats,
    centre: Floats,
    half: Floats,
    order: int,
    size: int,
    lows: NDArray[np.int32],
    parts: Image,
    weights: Image,
) -> None:
    """Locate points that are moved off a line, and weigh them.

    The weight is the distance to the border of the tile, and 0 outside.
    """
    nudge, share = (0.5, 0.0) if order == 0 else (0.0, 1.0)
    real = weights.dtype.type
    for k in range(size):
        weights[k] = np.inf
    for axis in range(3):
        if half[axis] == np.inf:
            continue
        begin, stride, line = origin[axis], step[axis], moves[axis, plane, row]
        least, most, middle, reach = low[axis], high[axis], centre[axis], half[axis]
        below, part = lows[axis], parts[axis]
        # Two loops: with one, a compiler has too many arrays to tell apart.
        for k in range(size):
            point = line[k] + (begin + ramp[k] * stride)
            away = real(reach - abs(point - middle))
            # Of NaN, the first of two is the larger, and it is not inside.
            inside = (least <= point) & (point <= most)
            weights[k] = min(weights[k], max(real(LEAST), away)) * inside
        for k in range(size):
            point = max(least, line[k] + (begin + ramp[k] * stride))
            point = min(most, point)
            pixel = np.int32(point + nudge)
            below[k] = pixel
            part[k] = (point - pixel) * share


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
        values[k] = _bilinear(flat, at, cols, row_part[k], col_part[k])
    if planes > 1:
        layer = rows * cols
        for k in range(size):
            at = (lows[0, k] * rows + row[k]) * cols + col[k]
            one = _bilinear(flat, at, cols, row_part[k], col_part[k])
            two = _bilinear(flat, at + layer, cols, row_part[k], col_part[k])
            values[k] = one + parts[0, k] * (two - one)


@compiled
def _bilinear(flat: Image, at: int, cols: int, row: Any, col: Any) -> Any:
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


@compiled
def flows(step: Floats, planes: int) -> bool:
    """Return whether rows of points fall into runs that are long enough."""
    breaks = abs(step[1]) + abs(step[2] - 1)
    if planes > 1:
        breaks += abs(step[0])
    return breaks * SHORTEST < 1


@compiled
def spell(
    runs: Ints, count: int, shape: tuple[int, int, int], lows: NDArray[np.int32]
) -> None:
    """Write the pixels below the points of runs."""
    _, rows, cols = shape
    plane, row, col = lows[0], lows[1], lows[2]
    for n in range(count):
        line, at = divmod(runs[1, n], cols)
        layer, here = divmod(line, rows)
        begin, size = runs[0, n], runs[0, n + 1] - runs[0, n]
        _count_up(plane[begin:], layer, 0, size)
        _count_up(row[begin:], here, 0, size)
        _count_up(col[begin:], at, 1, size)


@compiled
def _count_up(line: NDArray[np.int32], first: int, step: int, size: int) -> None:
    for k in range(size):
        line[k] = first + k * step


@compiled
def nearest(lows: NDArray[np.int32], parts: Image, size: int) -> None:
    """Take the pixel that is nearest to each point, not that below."""
    for axis in range(3):
        low, part = lows[axis], parts[axis]
        for k in range(size):
            low[k] += part[k] >= part.dtype.type(0.5)
            part[k] = 0


@compiled
def cut_runs(
    lows: NDArray[np.int32], shape: tuple[int, int, int], size: int, runs: Ints
) -> int:
    """Cut a row of points into runs as `trace` does, by the pixels below them.

    Returns their number; 0 if they are too short to be worth it.
    """
    planes, rows, cols = shape
    plane, row, col = lows[0], lows[1], lows[2]
    count = 0
    for k in range(size):
        breaks = (row[k] ^ row[k - 1]) | (col[k] ^ (col[k - 1] + 1))
        if planes > 1:
            breaks |= plane[k] ^ plane[k - 1]
        if k == 0 or breaks:
            at = np.intp(row[k]) * cols + col[k]
            if planes > 1:
                at += np.intp(plane[k]) * rows * cols
            runs[0, count], runs[1, count] = k, at
            count += 1
    runs[0, count] = size
    return count if count * SHORTEST < size else 0


@compiled
def trace(
    origin: Floats,
    step: Floats,
    ramp: Image,
    shape: tuple[int, int, int],
    order: int,
    size: int,
    runs: Ints,
    parts: Image,
) -> int:
    """Cut a row of points into runs, and write how far they lie beyond pixels.

    Parameters
    ----------
    origin, step : ndarray of shape (3,)
        The first point, and the way to the next.
    ramp : ndarray
        0, 1, 2, ...
    shape : tuple of three int
        Shape of the source.
    order : int
        Order of the interpolation.
    size : int
        Number of points.
    runs : ndarray of shape (2, size + 1)
        First point of each run, and the pixel below it; the last entry that is
        written holds `size`.
    parts : ndarray of shape (3, size + LANES)
        How far each point lies beyond the pixel below it.

    Returns
    -------
    int
        Number of runs.
    """
    nudge, share = (0.5, 0.0) if order == 0 else (0.0, 1.0)
    real = parts.dtype.type
    lead = 0 if shape[0] > 1 else 1
    count = begin = 0
    while begin < size:
        at, length = 0, float(size - begin)
        for axis in range(lead, 3):
            point = origin[axis] + begin * step[axis] + nudge
            low = np.floor(point)
            length = min(length, _stay(point - low, step[axis] - (axis == 2)))
            at = at * shape[axis] + int(low)
        runs[0, count], runs[1, count] = begin, at
        for axis in range(lead, 3):
            point = origin[axis] + begin * step[axis]
            away = real((point - np.floor(point + nudge)) * share)
            drift = real((step[axis] - (axis == 2)) * share)
            part = parts[axis, begin:]
            for k in range(_padded(int(length))):
                part[k] = away + drift * ramp[k]
        begin += int(length)
        count += 1
    runs[0, count] = size
    return count


@compiled
def _stay(away: float, drift: float) -> float:
    """Return how many points lie between the same whole numbers."""
    if drift > 0:
        return max(np.ceil((1 - away) / drift), 1.0)
    if drift < 0:
        return np.floor(away / -drift) + 1.0
    return np.inf


@compiled
def _padded(length: int) -> int:
    return (length + LANES - 1) // LANES * LANES


@compiled
def lean_runs(
    flat: Image,
    runs: Ints,
    count: int,
    parts: Image,
    shape: tuple[int, int, int],
    values: Image,
) -> None:
    """Interpolate linearly along runs."""
    planes, rows, cols = shape
    for n in range(count):
        begin, at = runs[0, n], runs[1, n]
        length = _padded(runs[0, n + 1] - begin)
        out, across, along = values[begin:], parts[1, begin:], parts[2, begin:]
        _lean(flat, at, cols, across, along, length, out)
        if planes > 1:
            at += rows * cols
            one, two = flat[at:], flat[at + 1 :]
            three, four = flat[at + cols :], flat[at + cols + 1 :]
            up = parts[0, begin:]
            for k in range(length):
                here = one[k] + along[k] * (two[k] - one[k])
                below = three[k] + along[k] * (four[k] - three[k])
                here += across[k] * (below - here)
                out[k] += up[k] * (here - out[k])


@compiled
def _lean(
    flat: Image, at: int, cols: int, across: Image, along: Image, size: int, out: Image
) -> None:
    one, two = flat[at:], flat[at + 1 :]
    three, four = flat[at + cols :], flat[at + cols + 1 :]
    for k in range(size):
        here = one[k] + along[k] * (two[k] - one[k])
        below = three[k] + along[k] * (four[k] - three[k])
        out[k] = here + across[k] * (below - here)


@compiled
def bend_runs(
    flat: Image,
    runs: Ints,
    count: int,
    taps: Image,
    shape: tuple[int, int, int],
    spare: Image,
    values: Image,
) -> None:
    """Write the values of a spline along runs.

    Parameters
    ----------
    flat : ndarray
        Coefficients of a box of the given shape.
    runs, count
        From `trace`.
    taps : ndarray of shape (3, order + 1, size + LANES)
        Values of the B-splines at each point, for each axis.
    shape : tuple of three int
        Shape of the box.
    spare : ndarray of shape (size + LANES,)
        Overwritten.
    values : ndarray of shape (size + LANES,)
        The result.
    """
    planes, rows, cols = shape
    width = taps.shape[1]
    reach, layer = (width - 1) // 2, rows * cols
    for n in range(count):
        begin = runs[0, n]
        at = runs[1, n] - reach * cols - reach
        length = _padded(runs[0, n + 1] - begin)
        out = values[begin:]
        if planes == 1:
            _bend(flat, at, cols, taps, begin, length, out)
            continue
        at -= reach * layer
        for k in range(length):
            out[k] = 0
        for plane in range(width):
            _bend(flat, at + plane * layer, cols, taps, begin, length, spare)
            weight = taps[0, plane, begin:]
            for k in range(length):
                out[k] += weight[k] * spare[k]


@compiled
def _bend(
    flat: Image, at: int, cols: int, taps: Image, begin: int, size: int, out: Image
) -> None:
    """Write the values of a flat spline along one run."""
    if taps.shape[1] == 6:
        for k in range(size):
            out[k] = 0
        for row in range(6):
            _add_six(flat[at + row * cols :], taps, row, begin, size, out)
        return
    one, two = taps[1, 0, begin:], taps[1, 1, begin:]
    three, four = taps[1, 2, begin:], taps[1, 3, begin:]
    a, b, c, d = (
        taps[2, 0, begin:],
        taps[2, 1, begin:],
        taps[2, 2, begin:],
        taps[2, 3, begin:],
    )
    e, f = flat[at:], flat[at + cols :]
    g, h = flat[at + 2 * cols :], flat[at + 3 * cols :]
    for k in range(size):
        first = (a[k] * e[k] + b[k] * e[k + 1]) + (c[k] * e[k + 2] + d[k] * e[k + 3])
        second = (a[k] * f[k] + b[k] * f[k + 1]) + (c[k] * f[k + 2] + d[k] * f[k + 3])
        third = (a[k] * g[k] + b[k] * g[k + 1]) + (c[k] * g[k + 2] + d[k] * g[k + 3])
        last = (a[k] * h[k] + b[k] * h[k + 1]) + (c[k] * h[k + 2] + d[k] * h[k + 3])
        out[k] = (one[k] * first + two[k] * second) + (
            three[k] * third + four[k] * last
        )


@compiled
def _add_six(
    line: Image, taps: Image, row: int, begin: int, size: int, out: Image
) -> None:
    """Add one of six lines of a spline of order 5."""
    weight = taps[1, row, begin:]
    a, b, c = taps[2, 0, begin:], taps[2, 1, begin:], taps[2, 2, begin:]
    d, e, f = taps[2, 3, begin:], taps[2, 4, begin:], taps[2, 5, begin:]
    for k in range(size):
        total = (a[k] * line[k] + b[k] * line[k + 1]) + (
            c[k] * line[k + 2] + d[k] * line[k + 3]
        )
        total += e[k] * line[k + 4] + f[k] * line[k + 5]
        out[k] += weight[k] * total

"""Sample rows of points along which a tile is read in order, compiled.

Where a tile is hardly turned, neighbouring points of a row of the canvas lie one
column apart in the tile, and for long in the same row of it. Such a run is read as
contiguous lines, which is several times as fast as point by point.
"""

import numpy as np

from .._shared.arrays import Floats, Image, Ints
from .._shared.compiled import compiled

__all__ = ["LANES", "bend_runs", "flows", "lean_runs", "trace"]


# Runs are computed in whole groups of so many points: the last ones are written
# over by the next run. All buffers, and every source, have that much room behind.
LANES = 16
# Mean length from which on runs are faster than single points.
SHORTEST = 6.0


@compiled
def flows(step: Floats, planes: int) -> bool:
    """Return whether rows of points fall into runs that are long enough."""
    breaks = abs(step[1]) + abs(step[2] - 1)
    if planes > 1:
        breaks += abs(step[0])
    return breaks * SHORTEST < 1


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
        Heights of the bumps at each point, for each axis.
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

"""Sample tiles and blend them into a block of the canvas, compiled (floor 3).

Arrays have three axes here, (planes, rows, cols); a flat image has one plane. A
tile arrives as `source`, a part of it that reaches over its border where the block
does: pixels, or the coefficients of a spline. Sampling a row and blending a row are
separate functions with a short buffer between them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blend_kernels import blend_row
from ._compiled import compiled
from ._row_kernels import (
    LEAST,
    bend,
    displace,
    distances,
    gather,
    lean,
    lift,
    locate,
    measure,
    normalise,
    split,
)
from ._spline_kernels import gather_spline, spline_weights

__all__ = ["SLACK", "add_shifted", "add_warped", "repeat_border"]

Array = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

# Pixels this close outside a border (in pixels) count as on it: matrices carry
# rounding errors, and tiles that only touch must not leave a gap between them.
SLACK = 1e-6
# Room between the last coordinate used and the end of the source, so that a
# coordinate that is rounded in two ways still reads inside.
GUARD = 1e-7


@compiled
def add_shifted(
    source: Array,
    offset: float,
    start: Floats,
    centre: Floats,
    half: Floats,
    order: int,
    blend: int,
    mean: Array,
    total: Array,
    count: NDArray[np.int32],
) -> None:
    """Add a translated tile to a block.

    Parameters
    ----------
    source : ndarray of shape (planes, rows, cols)
        The part of the tile that is needed, contiguous.
    offset : float
        Added to all values of `source`.
    start : ndarray of shape (3,)
        Where the first pixel of the block lies in `source`.
    centre, half : ndarray of shape (3,)
        Centre of the tile in coordinates of `source`, and half of its size,
        which is infinite along the planes of a flat tile.
    order : int
        0 for the nearest pixel, 1 for linear interpolation, 3 and 5 for splines.
    blend : int
        One of the constants of the blends.
    mean, total, count : ndarray of shape (block planes, block rows, block cols)
        Blend so far, its weight, and the number of tiles; updated.
    """
    # Strategy: every pixel lies at the same fraction of a source pixel, so whole
    # source rows are mixed into one line first, and its columns after that.
    low, high = _limits(source, centre, half, order)
    first, stop = np.empty(3, np.intp), np.empty(3, np.intp)
    base, part = np.empty(3, np.intp), np.empty(3, source.dtype)
    for axis in range(3):
        first[axis], stop[axis] = _span(
            low[axis], high[axis], start[axis], 1.0, 0, mean.shape[axis]
        )
        base[axis] = np.floor(start[axis] + 0.5 * (order == 0))
        part[axis] = (start[axis] - base[axis]) * (order != 0)
    size = max(stop[2] - first[2], 0)
    taps = np.empty((order + 1, 3), source.dtype)
    if order > 1:
        spline_weights(order, part, 3, taps)
    room = np.empty((2, size + order + 1), source.dtype)
    values = np.empty(size, source.dtype)
    across, weights = np.empty_like(values), np.empty_like(values)
    for k in range(size):
        across[k] = half[2] - abs(start[2] + (first[2] + k) - centre[2])

    least, flat = source.dtype.type(LEAST), source.reshape(-1)
    means, totals, counts = mean.reshape(-1), total.reshape(-1), count.reshape(-1)
    rows, cols = source.shape[1:]
    left = base[2] + first[2]
    for plane in range(first[0], stop[0]):
        outer = half[0] - abs(start[0] + plane - centre[0])
        for row in range(first[1], stop[1]):
            inner = half[1] - abs(start[1] + row - centre[1])
            bound = max(source.dtype.type(min(outer, inner)), least)
            for k in range(size):
                weights[k] = max(min(across[k], bound), least)
            at = ((base[0] + plane) * rows + base[1] + row) * cols + left
            if order > 1:
                bend(flat, at, source.shape, taps, order, size, room, values)
            else:
                lean(flat, at, source.shape, part, size, room, values)
            lift(values, size, offset)
            to = (plane * mean.shape[1] + row) * mean.shape[2] + first[2]
            blend_row(
                blend, values, weights, size, means[to:], totals[to:], counts[to:]
            )


@compiled
def add_warped(
    source: Array,
    known: Array,
    moves: Floats,
    linear: Floats,
    offset: float,
    start: Floats,
    centre: Floats,
    half: Floats,
    order: int,
    blend: int,
    mean: Array,
    total: Array,
    count: NDArray[np.int32],
) -> None:
    """Add a tile under an affine map to a block, with or without a mask.

    Parameters
    ----------
    source : ndarray of shape (planes, rows, cols)
        The part of the tile that is needed, contiguous; 0 where it is not known.
    known : ndarray of shape (planes, rows, cols) or (0, 0, 0)
        1 where a pixel of `source` counts and 0 elsewhere; empty if all count.
    moves : ndarray of shape (3, block planes, block rows, block cols) or empty
        Added to the coordinates in `source` of each pixel of the block.
    linear : ndarray of shape (3, 3)
        Steps in `source`, in its columns, for one step along each axis of the
        block.
    offset, start, centre, half, order, blend, mean, total, count
        As in `add_shifted`.
    """
    low, high = _limits(source, centre, half, order)
    flat, flags = source.reshape(-1), known.reshape(-1)
    means, totals, counts = mean.reshape(-1), total.reshape(-1), count.reshape(-1)
    shape, columns = source.shape, mean.shape[2]
    lows = np.empty((3, columns), np.int32)
    parts = np.empty((3, columns), source.dtype)
    values = np.empty(columns, source.dtype)
    weights, share = np.empty_like(values), np.ones_like(values)
    room = np.empty((3, order + 1, columns if order > 1 else 0), source.dtype)
    origin, step = np.empty(3), linear[:, 2].copy()
    # Counted once: turning an integer into a float in a loop keeps it scalar.
    ramp = np.arange(columns).astype(np.float64)
    for plane in range(mean.shape[0]):
        for row in range(mean.shape[1]):
            first, stop = 0, columns
            for axis in range(3):
                origin[axis] = (
                    start[axis] + linear[axis, 0] * plane + linear[axis, 1] * row
                )
                if moves.size == 0:
                    first, stop = _span(
                        low[axis], high[axis], origin[axis], step[axis], first, stop
                    )
            size = stop - first
            if size <= 0:
                continue
            for axis in range(3):
                origin[axis] += first * step[axis]
            if moves.size == 0:
                locate(origin, step, ramp, shape, order, size, lows, parts)
                distances(origin, step, ramp, centre, half, size, weights)
            else:
                points = moves[:, plane, row].copy()
                displace(origin, step, ramp, points, low, high, size, weights)
                split(points, shape, order, size, lows, parts)
                measure(points, centre, half, size, weights)
            if order > 1:
                gather_spline(flat, lows, parts, shape, order, size, room, values)
            else:
                gather(flat, lows, parts, shape, size, values)
            if flags.size > 0:
                if order <= 1:
                    gather(flags, lows, parts, shape, size, share)
                normalise(flags, lows, parts, shape, share, size, values, weights)
            lift(values, size, offset)
            to = (plane * mean.shape[1] + row) * columns + first
            blend_row(
                blend, values, weights, size, means[to:], totals[to:], counts[to:]
            )


@compiled
def repeat_border(
    box: Array, first: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    """Fill a box around the part that is known with the border of that part."""
    last0, last1 = first[0] + size[0] - 1, first[1] + size[1] - 1
    last2 = first[2] + size[2] - 1
    for plane in range(box.shape[0]):
        from_plane = min(max(plane, first[0]), last0)
        for row in range(box.shape[1]):
            from_row = min(max(row, first[1]), last1)
            known = from_plane == plane and from_row == row
            for col in range(box.shape[2]):
                if not (known and first[2] <= col <= last2):
                    from_col = min(max(col, first[2]), last2)
                    box[plane, row, col] = box[from_plane, from_row, from_col]


@compiled
def _limits(
    source: Array, centre: Floats, half: Floats, order: int
) -> tuple[Floats, Floats]:
    """Return the lowest and highest coordinates that the tile covers."""
    low, high = centre - half - SLACK, centre + half + SLACK
    reach = order // 2
    for axis in range(3):
        if half[axis] < np.inf:  # never read outside the source
            low[axis] = max(low[axis], reach)
            high[axis] = min(high[axis], source.shape[axis] - 1.5 - GUARD - reach)
    return low, high


@compiled
def _span(
    low: float, high: float, at: float, step: float, first: int, stop: int
) -> tuple[int, int]:
    """Narrow [first, stop) to the k for which ``low <= at + k * step <= high``."""
    if step == 0.0:
        return (first, stop) if low <= at <= high else (first, first)
    one, two = (low - at) / step, (high - at) / step
    # As floats first: a tiny step makes quotients that no integer can hold.
    first = int(min(max(np.ceil(min(one, two)), first), stop))
    stop = int(max(min(np.floor(max(one, two)) + 1.0, stop), first))
    # A quotient is rounded; the coordinates themselves decide.
    while first < stop and not low <= at + first * step <= high:
        first += 1
    while first < stop and not low <= at + (stop - 1) * step <= high:
        stop -= 1
    return first, stop

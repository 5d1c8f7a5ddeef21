"""Sample tiles and blend them into a block of the canvas, compiled (floor 1).

Arrays have three axes here, (planes, rows, cols); a flat image has one plane. A
tile arrives as `source`, the part of it that the block can touch, with its border
pixels repeated where the block reaches over the border. Sampling a row and
blending a row are separate functions with a short buffer between them: a filter
or a blend is added in one place.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._compiled import compiled

__all__ = [
    "FEATHER",
    "MEAN",
    "NEAREST",
    "SLACK",
    "add_shifted",
    "add_warped",
    "finish",
    "repeat_border",
]

Array = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

FEATHER, MEAN, NEAREST = 0, 1, 2

# Pixels this close outside a border (in pixels) count as on it: matrices carry
# rounding errors, and tiles that only touch must not leave a gap between them.
SLACK = 1e-6
# The weight of a pixel on the border itself, where the distance is 0.
LEAST = 1e-3
# Room between the last coordinate used and the end of the source, so that a
# coordinate that is rounded in two ways still reads inside.
GUARD = 1e-7


@compiled
def add_shifted(
    source: Array,
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
    start : ndarray of shape (3,)
        Where the first pixel of the block lies in `source`.
    centre, half : ndarray of shape (3,)
        Centre of the tile in coordinates of `source`, and half of its size,
        which is infinite along the planes of a flat tile.
    order : int
        0 for the nearest pixel, 1 for linear interpolation.
    blend : int
        FEATHER, MEAN or NEAREST.
    mean, total, count : ndarray of shape (block planes, block rows, block cols)
        Blend so far, its weight, and the number of tiles; updated.
    """
    # Strategy: every pixel lies at the same fraction of a source pixel, so whole
    # source rows are mixed into one line first, and its columns after that.
    low, high = _limits(source, centre, half)
    first, stop = np.empty(3, np.intp), np.empty(3, np.intp)
    base, part = np.empty(3, np.intp), np.empty(3, source.dtype)
    for axis in range(3):
        first[axis], stop[axis] = _span(
            low[axis], high[axis], start[axis], 1.0, 0, mean.shape[axis]
        )
        base[axis] = np.floor(start[axis] + 0.5 * (order == 0))
        part[axis] = (start[axis] - base[axis]) * (order != 0)
    size = max(stop[2] - first[2], 0)
    line = np.empty(size + 1, source.dtype)
    other, values = np.empty_like(line), np.empty_like(line)
    across, weights = np.empty_like(line), np.empty_like(line)
    for k in range(size):
        across[k] = half[2] - abs(start[2] + (first[2] + k) - centre[2])

    least, flat = source.dtype.type(LEAST), source.reshape(-1)
    means, totals, counts = mean.reshape(-1), total.reshape(-1), count.reshape(-1)
    planes, rows, cols = source.shape
    left = base[2] + first[2]
    for plane in range(first[0], stop[0]):
        outer = half[0] - abs(start[0] + plane - centre[0])
        for row in range(first[1], stop[1]):
            inner = half[1] - abs(start[1] + row - centre[1])
            bound = max(source.dtype.type(min(outer, inner)), least)
            for k in range(size):
                weights[k] = max(min(across[k], bound), least)
            at = ((base[0] + plane) * rows + base[1] + row) * cols + left
            _mix(flat[at:], flat[at + cols :], part[1], size + 1, line)
            if planes > 1:
                at += rows * cols
                _mix(flat[at:], flat[at + cols :], part[1], size + 1, other)
                _mix(line, other, part[0], size + 1, line)
            _mix(line, line[1:], part[2], size, values)
            to = (plane * mean.shape[1] + row) * mean.shape[2] + first[2]
            _blend(blend, values, weights, size, means[to:], totals[to:], counts[to:])


@compiled
def add_warped(
    source: Array,
    known: Array,
    start: Floats,
    linear: Floats,
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
    start : ndarray of shape (3,)
        Where the first pixel of the block lies in `source`.
    linear : ndarray of shape (3, 3)
        Steps in `source`, in its columns, for one step along each axis of the
        block.
    centre, half, order, blend, mean, total, count
        As in `add_shifted`.
    """
    low, high = _limits(source, centre, half)
    flat, flags = source.reshape(-1), known.reshape(-1)
    means, totals, counts = mean.reshape(-1), total.reshape(-1), count.reshape(-1)
    shape, columns = source.shape, mean.shape[2]
    lows = np.empty((3, columns), np.int32)
    parts = np.empty((3, columns), source.dtype)
    values = np.empty(columns, source.dtype)
    weights, share = np.empty_like(values), np.empty_like(values)
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
                first, stop = _span(
                    low[axis], high[axis], origin[axis], step[axis], first, stop
                )
            size = stop - first
            if size <= 0:
                continue
            for axis in range(3):
                origin[axis] += first * step[axis]
            _locate(origin, step, ramp, shape, order, size, lows, parts)
            _distances(origin, step, ramp, centre, half, size, weights)
            _gather(flat, lows, parts, shape, size, values)
            if flags.size > 0:
                _gather(flags, lows, parts, shape, size, share)
                _normalise(flags, lows, parts, shape, share, size, values, weights)
            to = (plane * mean.shape[1] + row) * columns + first
            _blend(blend, values, weights, size, means[to:], totals[to:], counts[to:])


@compiled
def finish(
    mean: Array, total: Array, fill: float, low: float, high: float, whole: bool
) -> None:
    """Round and clip a block if `whole`, and fill what no tile covers, in place."""
    means, totals = mean.reshape(-1), total.reshape(-1)
    empty = means.dtype.type(fill)
    least, most = means.dtype.type(low), means.dtype.type(high)
    if whole:
        for k in range(means.size):
            value = min(max(np.rint(means[k]), least), most)
            means[k] = value if totals[k] > 0 else empty
    else:
        for k in range(means.size):
            if totals[k] == 0:
                means[k] = empty


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
def _limits(source: Array, centre: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and highest coordinates that the tile covers."""
    low, high = centre - half - SLACK, centre + half + SLACK
    for axis in range(3):
        if half[axis] < np.inf:  # never read outside the source
            low[axis] = max(low[axis], 0.0)
            high[axis] = min(high[axis], source.shape[axis] - 1.5 - GUARD)
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


@compiled
def _mix(one: Array, two: Array, part: Any, size: int, out: Array) -> None:
    # This form, not one * (1 - part) + two * part, keeps constants exactly.
    for k in range(size):
        out[k] = one[k] + part * (two[k] - one[k])


@compiled
def _locate(
    origin: Floats,
    step: Floats,
    ramp: Floats,
    shape: tuple[int, int, int],
    order: int,
    size: int,
    lows: NDArray[np.int32],
    parts: Array,
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
def _distances(
    origin: Floats,
    step: Floats,
    ramp: Floats,
    centre: Floats,
    half: Floats,
    size: int,
    weights: Array,
) -> None:
    """Write the distance to the border of the tile, in pixels of the tile."""
    # A weight needs no more precision than the image has, a coordinate does.
    dtype = weights.dtype
    plane_at, row_at, col_at = (origin - centre).astype(dtype)
    plane_step, row_step, col_step = step.astype(dtype)
    plane_half, row_half, col_half = half.astype(dtype)
    least = dtype.type(LEAST)
    for k in range(size):
        row = row_half - abs(row_at + dtype.type(ramp[k]) * row_step)
        col = col_half - abs(col_at + dtype.type(ramp[k]) * col_step)
        weights[k] = max(min(row, col), least)
    if plane_half < np.inf:
        for k in range(size):
            plane = plane_half - abs(plane_at + dtype.type(ramp[k]) * plane_step)
            weights[k] = np.minimum(weights[k], max(plane, least))


@compiled
def _gather(
    flat: Array,
    lows: NDArray[np.int32],
    parts: Array,
    shape: tuple[int, int, int],
    size: int,
    values: Array,
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
def _between(flat: Array, at: int, cols: int, row: Any, col: Any) -> Any:
    # Unsigned, so that no index is checked for being negative.
    here, below = np.uintp(at), np.uintp(at + cols)
    one = flat[here] + col * (flat[np.uintp(at + 1)] - flat[here])
    two = flat[below] + col * (flat[np.uintp(at + cols + 1)] - flat[below])
    return one + row * (two - one)


@compiled
def _normalise(
    flags: Array,
    lows: NDArray[np.int32],
    parts: Array,
    shape: tuple[int, int, int],
    share: Array,
    size: int,
    values: Array,
    weights: Array,
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
def _blend(
    blend: int,
    values: Array,
    weights: Array,
    size: int,
    mean: Array,
    total: Array,
    count: NDArray[np.int32],
) -> None:
    """Blend a row of values into the canvas; a weight of 0 changes nothing."""
    zero = values.dtype.type(0)
    if blend == NEAREST:
        # Both values are read before the choice, which is not written over them:
        # else it becomes a branch, and the loop is not vectorised.
        chosen = np.empty_like(values)
        for k in range(size):
            old, new = mean[k], values[k]
            chosen[k] = new if weights[k] > total[k] else old
        for k in range(size):
            mean[k] = chosen[k]
            total[k] = np.maximum(weights[k], total[k])
            count[k] += np.int32(weights[k] > zero)
        return
    if blend == MEAN:
        for k in range(size):
            weights[k] = values.dtype.type(weights[k] > zero)
    # A running mean keeps a lone tile, and equal tiles, exactly as they are; a
    # sum divided by its weight would not.
    for k in range(size):
        total[k] += weights[k]
        ratio = weights[k] / total[k] if weights[k] > zero else zero
        mean[k] += ratio * (values[k] - mean[k])
        count[k] += np.int32(weights[k] > zero)

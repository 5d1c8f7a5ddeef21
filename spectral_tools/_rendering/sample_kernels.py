"""Sample tiles and blend them into a block of the canvas, compiled.

Arrays have the axes (channels, planes, rows, cols) here, and those that all channels
share the last three; a flat image has one plane. A tile arrives as `source`, a part of it that reaches over its border where the block
does: pixels, or the coefficients of a spline. Sampling a row and blending a row are
separate functions with a short buffer between them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._sampling.sample_rows import (
    LANES,
    LEAST,
    bend,
    bend_runs,
    cut_runs,
    displace,
    distances,
    flows,
    gather,
    lean,
    lean_runs,
    lift,
    locate,
    nearest,
    normalise,
    spell,
    trace,
)
from .._sampling.splines import gather_spline, spline_weights
from .._shared.arrays import Floats, Image, Ints, Ints32
from .._shared.compiled import compiled
from .blends import blend_row

__all__ = ["SLACK", "add_shifted", "add_warped"]


# Pixels this close outside a border (in pixels) count as on it: matrices carry
# rounding errors, and tiles that only touch must not leave a gap between them.
SLACK = 1e-6
# Room between the last coordinate used and the end of the source, so that a
# coordinate that is rounded in two ways still reads inside.
GUARD = 1e-7


@compiled
def add_shifted(
    lines: NDArray[Any],
    strides: tuple[int, int, int],
    shape: tuple[int, int, int],
    offsets: Floats,
    start: Floats,
    centre: Floats,
    half: Floats,
    order: int,
    blend: int,
    mean: Image,
    total: Image,
    count: Ints32,
    spans: Ints,
) -> None:
    """Add a translated tile to a block.

    Parameters
    ----------
    lines : ndarray
        The part of the tile that is needed: pixels of any real dtype.
    strides : tuple of three int
        Steps in `lines` to the next channel, plane and row.
    shape : tuple of three int
        How many planes, rows and columns there are.
    offsets : ndarray of shape (channels,)
        Added to all values of each channel.
    start : ndarray of shape (3,)
        Where the first pixel of the block lies in the tile.
    centre, half : ndarray of shape (3,)
        Centre of the tile in the same coordinates, and half of its size,
        which is infinite along the planes of a flat tile.
    order : int
        0 for the nearest pixel, 1 for linear interpolation, 3 and 5 for splines.
    blend : int
        One of the constants of the blends.
    mean : ndarray of shape (channels, block planes, block rows, block cols)
        Blend so far; updated.
    total, count : ndarray of shape (block planes, block rows, block cols)
        Its weight, and the number of tiles; updated.
    spans : ndarray of shape (block planes * block rows, 2)
        Where tiles came to lie on each row so far; updated. Outside of it,
        the arrays need not be set before.
    """
    # Strategy: every pixel lies at the same fraction of a source pixel, so whole
    # source rows are mixed into one line first, and its columns after that.
    channels, height, cells = mean.shape[0], mean.shape[2], mean.shape[3]
    real, deep, steps = mean.dtype.type, shape[0] > 1, strides[1:]
    first, stop = np.empty(3, np.int64), np.empty(3, np.int64)
    base, part = np.empty(3, np.int64), np.empty(3, mean.dtype)
    lowest = np.empty(3, np.int64)
    for axis in range(3):
        low = centre[axis] - half[axis] - SLACK
        high = centre[axis] + half[axis] + SLACK
        first[axis], stop[axis] = _span(
            low, high, start[axis], 1.0, 0, mean.shape[1 + axis]
        )
        base[axis] = np.floor(start[axis] + 0.5 * (order == 0))
        part[axis] = (start[axis] - base[axis]) * (order != 0)
        lowest[axis] = base[axis] + first[axis]
    size = max(stop[2] - first[2], 0)
    taps = np.empty((order + 1, 3), mean.dtype)
    if order > 1:
        spline_weights(order, part, 3, taps)
    room = np.empty((2, size + order + 1), mean.dtype)
    values = np.empty((channels, size), mean.dtype)
    across, weights = np.empty(size, mean.dtype), np.empty(size, mean.dtype)
    for k in range(size):
        across[k] = half[2] - abs(start[2] + (first[2] + k) - centre[2])

    means = mean.reshape(channels, -1)
    totals, counts = total.reshape(-1), count.reshape(-1)
    for plane in range(first[0], stop[0]):
        outer = half[0] - abs(start[0] + plane - centre[0])
        for row in range(first[1], stop[1]):
            inner = half[1] - abs(start[1] + row - centre[1])
            bound, least = max(real(min(outer, inner)), real(LEAST)), real(LEAST)
            for k in range(size):
                weights[k] = max(min(across[k], bound), least)
            lowest[0], lowest[1] = base[0] + plane, base[1] + row
            at = lowest[0] * strides[1] + lowest[1] * strides[2] + lowest[2]
            for channel in range(channels):
                here, out = lines[channel * strides[0] :], values[channel]
                if order > 1:
                    bend(here, at, steps, deep, taps, size, room, out)
                else:
                    lean(here, lowest, steps, shape, part, size, room, out)
                lift(out, size, offsets[channel])
            lies = plane * height + row
            blend_row(
                blend,
                values,
                weights,
                first[2],
                size,
                lies * cells,
                means,
                totals,
                counts,
                spans[lies],
            )


@compiled
def add_warped(
    source: Image,
    known: Image,
    moves: Floats,
    fields: Image,
    frame: tuple[int, int, int],
    corner: Ints,
    linear: Floats,
    offsets: Floats,
    start: Floats,
    centre: Floats,
    half: Floats,
    order: int,
    blend: int,
    mean: Image,
    total: Image,
    count: Ints32,
    spans: Ints,
) -> None:
    """Add a tile under an affine map to a block, with or without a mask.

    Parameters
    ----------
    source : ndarray of shape (channels, planes, rows, cols)
        The part of the tile that is needed, contiguous, with `LANES` more
        values behind it; 0 where it is not known.
    known : ndarray of shape (planes, rows, cols) or (0, 0, 0)
        1 where a pixel of `source` counts and 0 elsewhere; empty if all count.
    moves : ndarray of shape (3, block planes, block rows, block cols) or empty
        Added to the coordinates in `source` of each pixel of the block.
    fields : ndarray of shape (ndim, size + LANES) or empty
        What is taken from these coordinates: displacements along each axis on the
        pixels of the tile and one more all around, one after the other, and room.
    frame : tuple of three int
        Shape of the tile with that border; a flat one has one plane.
    corner : ndarray of int, shape (3,)
        Pixel of the tile that `source` begins with.
    linear : ndarray of shape (3, 3)
        Steps in `source`, in its columns, for one step along each axis of the
        block.
    offsets, start, centre, half, order, blend, mean, total, count, spans
        As in `add_shifted`, in coordinates of `source`.
    """
    channels, height, columns = mean.shape[0], mean.shape[2], mean.shape[3]
    shape, wide = source.shape[1:], columns + LANES
    low, high = _limits(shape, centre, half, order)
    flat, flags = source.reshape(channels, -1), known.reshape(-1)
    means = mean.reshape(channels, -1)
    totals, counts = total.reshape(-1), count.reshape(-1)
    runs, lows = np.empty((2, columns + 1), np.intp), np.empty((3, wide), np.int32)
    parts = np.zeros((3, wide), source.dtype)
    bent = np.empty((3, wide if fields.size else 0), source.dtype)
    values = np.empty((channels, wide), source.dtype)
    weights, share = np.empty(wide, source.dtype), np.ones(wide, source.dtype)
    taps = np.zeros((3, order + 1, wide if order > 1 else 0), source.dtype)
    origin, step = np.empty(3), np.empty(3)
    for axis in range(3):
        step[axis] = linear[axis, 2]
    # Counted once: turning an integer into a float in a loop keeps it scalar.
    ramp = np.arange(wide).astype(np.float64)
    steps = ramp.astype(source.dtype)
    fluent = flows(step, shape[0]) and flags.size == 0
    for lies in range(mean.shape[1] * height):
        plane, row = lies // height, lies % height
        # As a plain 0, it would have all that it is given to compiled a second time.
        first, stop = 0 * columns, columns
        for axis in range(3):
            origin[axis] = start[axis] + linear[axis, 0] * plane + linear[axis, 1] * row
            if moves.size == 0:
                first, stop = _span(
                    low[axis], high[axis], origin[axis], step[axis], first, stop
                )
        size, pieces = stop - first, 0
        if size <= 0:
            continue
        for axis in range(3):
            origin[axis] += first * step[axis]
        if moves.size:
            displace(
                moves, plane, row, origin, step, ramp, low, high, centre, half,
                order, size, lows, parts, weights,
            )  # fmt: skip
        elif fields.size:
            _bend(
                fields, frame, corner, origin, step, ramp, steps, centre, half,
                size, runs, lows, parts, bent, weights,
            )  # fmt: skip
            if order == 0:
                nearest(lows, parts, size)
        else:
            distances(origin, step, steps, centre, half, size, weights)
            if fluent:
                pieces = trace(origin, step, steps, shape, order, size, runs, parts)
            else:
                locate(origin, step, ramp, shape, order, size, lows, parts)
        if fluent and (moves.size or fields.size):
            pieces = cut_runs(lows, shape, size, runs)
        if order > 1:
            for axis in range(0 if shape[0] > 1 else 1, 3):
                spline_weights(order, parts[axis], size + LANES, taps[axis])
        elif flags.size:
            gather(flags, lows, parts, shape, size, share)
        for channel in range(channels):
            line, out = flat[channel], values[channel]
            if pieces:
                _follow(line, runs, pieces, parts, taps, shape, share, out)
            else:
                _collect(line, lows, parts, taps, shape, size, out)
            if flags.size:
                normalise(flags, lows, parts, shape, share, size, out, weights)
            lift(out, size, offsets[channel])
        blend_row(
            blend, values, weights, first, size, lies * columns,
            means, totals, counts, spans[lies],
        )  # fmt: skip


@compiled
def _bend(
    fields: Image,
    frame: tuple[int, int, int],
    corner: Ints,
    origin: Floats,
    step: Floats,
    ramp: Floats,
    steps: Image,
    centre: Floats,
    half: Floats,
    size: int,
    runs: Ints,
    lows: NDArray[np.int32],
    parts: Image,
    moves: Image,
    weights: Image,
) -> None:
    """Locate the points of a row in a tile that a field bends, and weigh them.

    The field is interpolated where the points would lie in a plain tile.
    """
    lead, real = 0 if frame[0] > 1 else 1, weights.dtype.type
    for axis in range(lead, 3):
        origin[axis] += corner[axis] + 1
    if flows(step, frame[0]):
        pieces = trace(origin, step, steps, frame, 1, size, runs, parts)
        for axis in range(lead, 3):
            lean_runs(fields[axis - lead], runs, pieces, parts, frame, moves[axis])
        spell(runs, pieces, frame, lows)
    else:
        locate(origin, step, ramp, frame, 1, size, lows, parts)
        for axis in range(lead, 3):
            gather(fields[axis - lead], lows, parts, frame, size, moves[axis])
    for k in range(size):
        weights[k] = np.inf
    least, slack = real(LEAST), real(-2 * SLACK)
    for axis in range(lead, 3):
        reach, stride, line = real(half[axis]), real(step[axis]), moves[axis]
        begin = real(origin[axis] - corner[axis] - 1 - centre[axis])
        for k in range(size):
            away = reach - abs(begin + steps[k] * stride - line[k])
            inside = min(weights[k], max(least, away))
            weights[k] = inside if away >= slack else real(0)  # NaN is not
    for axis in range(lead, 3):
        line, low, part = moves[axis], lows[axis], parts[axis]
        back = real(corner[axis] + 1)
        for k in range(size):
            point = part[k] - (line[k] if weights[k] > 0 else real(0))
            whole = np.floor(point)
            low[k] += np.int32(whole - back)
            part[k] = point - whole


@compiled
def _follow(
    line: Image,
    runs: Ints,
    count: int,
    parts: Image,
    taps: Image,
    shape: tuple[int, int, int],
    spare: Image,
    out: Image,
) -> None:
    """Interpolate along runs."""
    if taps.shape[1] > 2:
        bend_runs(line, runs, count, taps, shape, spare, out)
    else:
        lean_runs(line, runs, count, parts, shape, out)


@compiled
def _collect(
    line: Image,
    lows: NDArray[np.int32],
    parts: Image,
    taps: Image,
    shape: tuple[int, int, int],
    size: int,
    out: Image,
) -> None:
    """Interpolate point by point."""
    order = taps.shape[1] - 1
    if order > 1:
        gather_spline(line, lows, taps, shape, order, size, out)
    else:
        gather(line, lows, parts, shape, size, out)


@compiled
def _limits(
    shape: tuple[int, int, int], centre: Floats, half: Floats, order: int
) -> tuple[Floats, Floats]:
    """Return the lowest and highest coordinates that the tile covers."""
    low, high = np.empty(3), np.empty(3)
    reach = order // 2
    for axis in range(3):
        low[axis] = centre[axis] - half[axis] - SLACK
        high[axis] = centre[axis] + half[axis] + SLACK
        if half[axis] < np.inf:  # never read outside the source
            low[axis] = max(low[axis], reach)
            high[axis] = min(high[axis], shape[axis] - 1.5 - GUARD - reach)
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

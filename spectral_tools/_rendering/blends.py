"""Blend rows of sampled tiles into a block of the canvas, compiled.

A blend is added here and nowhere else: its name in `BLENDS`, and a rule that updates
the row of the block by a row of values and their weights, tile after tile. Only one
that needs more than that, such as all values of a pixel at once, has a module of
its own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Image, Ints32
from .._shared.compiled import compiled

__all__ = [
    "BLENDS",
    "FEATHER",
    "FIRST",
    "LAST",
    "MAXIMUM",
    "MEAN",
    "MINIMAL_SEAM",
    "MINIMUM",
    "MULTIBAND",
    "NEAREST",
    "WITH_SEAMS",
    "blend_row",
    "deliver",
    "deliver_counts",
    "finish",
]


# In the order of their numbers.
BLENDS = (
    *("feather", "mean", "nearest", "maximum", "minimum", "first", "last"),
    *("seam", "multiband"),
)
FEATHER, MEAN, NEAREST, MAXIMUM, MINIMUM, FIRST, LAST = range(7)
# More than rules for each pixel: kernels never see these.
MINIMAL_SEAM, MULTIBAND = range(7, 9)
# Seams of these have a width.
WITH_SEAMS = ("nearest", "seam")


@compiled
def blend_row(
    blend: int,
    values: Image,
    weights: Image,
    first: int,
    size: int,
    at: int,
    mean: Image,
    total: Image,
    count: Ints32,
    span: NDArray[np.intp],
) -> None:
    """Blend a row of values into the canvas; a weight of 0 changes nothing.

    Parameters
    ----------
    blend : int
        One of the constants of this module.
    values : ndarray of shape (channels, at least size)
        Of the tile.
    weights : ndarray of shape (at least size,)
        The distance to the border of the tile. May be overwritten.
    first, size : int
        Where the values lie in the row of the canvas.
    at : int
        Where the row starts in the canvas.
    mean : ndarray of shape (channels, pixels of the canvas)
        Blend so far; updated.
    total, count : ndarray of shape (pixels of the canvas,)
        Its weight, and the number of tiles; updated.
    span : ndarray of shape (2,)
        Where tiles came to lie on the row so far; updated. What is outside of it
        is overwritten and need not be set before.
    """
    # Most of a canvas is covered by one tile, and is written only once.
    stop, low, high = first + size, span[0], span[1]
    if blend == MEAN:
        for k in range(size):
            weights[k] = weights.dtype.type(weights[k] > 0)
    if low == high:
        low = high = stop
        span[0], span[1] = first, stop
    else:
        span[0], span[1] = min(first, low), max(stop, high)
    for side in range(2):
        begin = max(first, high) if side else first
        size = (stop if side else min(stop, low)) - begin
        _begin(values, weights, begin - first, size, at + begin, mean, total, count)
        gap, end = (high, first) if side else (stop, low)
        _clear(at + gap, at + end, mean, total, count)
    begin = max(first, low)
    skip, size = begin - first, min(stop, high) - begin
    if size > 0:
        _merge(blend, values, weights, skip, size, at + begin, mean, total, count)


@compiled
def _begin(
    values: Image,
    weights: Image,
    skip: int,
    size: int,
    at: int,
    mean: Image,
    total: Image,
    count: Ints32,
) -> None:
    """Write part of a row where no tile was before."""
    zero = values.dtype.type(0)
    new, totals, counts = weights[skip:], total[at:], count[at:]
    for k in range(size):
        totals[k] = new[k]
        counts[k] = np.int32(new[k] > zero)
    for channel in range(len(values)):
        line, out = values[channel, skip:], mean[channel, at:]
        for k in range(size):
            value = line[k]
            out[k] = value if new[k] > zero else zero


@compiled
def _clear(begin: int, end: int, mean: Image, total: Image, count: Ints32) -> None:
    for k in range(begin, end):
        total[k] = 0
        count[k] = 0
    for channel in range(len(mean)):
        for k in range(begin, end):
            mean[channel, k] = 0


@compiled
def _merge(
    blend: int,
    values: Image,
    weights: Image,
    skip: int,
    size: int,
    at: int,
    mean: Image,
    total: Image,
    count: Ints32,
) -> None:
    """Blend part of a row with what is there."""
    zero = values.dtype.type(0)
    new, totals, counts = weights[skip:], total[at:], count[at:]
    for k in range(size):
        counts[k] += np.int32(new[k] > zero)
    if blend > MEAN:
        for channel in range(len(values)):
            line, out = values[channel, skip:], mean[channel, at:]
            _choose(blend, line, new, size, out, totals)
        for k in range(size):
            totals[k] = np.maximum(new[k], totals[k])
        return
    # A running mean keeps a lone tile, and equal tiles, exactly as they are; a
    # sum divided by its weight would not.
    for k in range(size):
        totals[k] += new[k]
        new[k] = new[k] / totals[k] if new[k] > zero else zero
    for channel in range(len(values)):
        line, out = values[channel, skip:], mean[channel, at:]
        for k in range(size):
            out[k] += new[k] * (line[k] - out[k])


@compiled
def _choose(
    blend: int, values: Image, weights: Image, size: int, mean: Image, total: Image
) -> None:
    """Keep the old value or take the new one, in every pixel of a row."""
    # Both values are read before the choice, which is not written over them:
    # else it becomes a branch, and the loop is not vectorised.
    zero = values.dtype.type(0)
    chosen = np.empty(size, values.dtype)
    if blend == NEAREST:
        for k in range(size):
            old, new = mean[k], values[k]
            chosen[k] = new if weights[k] > total[k] else old
    elif blend in (MAXIMUM, MINIMUM):
        sign = values.dtype.type(1 if blend == MAXIMUM else -1)
        for k in range(size):
            old, new = mean[k], values[k]
            better = (sign * new > sign * old) | (total[k] == zero)
            chosen[k] = new if better & (weights[k] > zero) else old
    elif blend == FIRST:
        for k in range(size):
            old, new = mean[k], values[k]
            chosen[k] = new if (total[k] == zero) & (weights[k] > zero) else old
    else:
        for k in range(size):
            old, new = mean[k], values[k]
            chosen[k] = new if weights[k] > zero else old
    for k in range(size):
        mean[k] = chosen[k]


@compiled
def finish(
    mean: Image, total: Image, fill: float, low: float, high: float, whole: bool
) -> None:
    """Round and clip a block if `whole`, and fill what no tile covers, in place."""
    means, totals = mean.reshape(-1), total.reshape(-1)
    _finish_line(means, totals, means.size, fill, low, high, whole, means)


@compiled
def deliver(
    mean: Image,
    total: Image,
    spans: NDArray[np.intp],
    fill: float,
    low: float,
    high: float,
    whole: bool,
    corner: tuple[int, ...],
    pixels: NDArray[Any],
) -> None:
    """Finish a block, and write it where it belongs.

    Parameters
    ----------
    mean : ndarray of shape (channels, planes, rows, cols)
        Blend of the block.
    total : ndarray of shape (planes, rows, cols)
        Its weight.
    spans : ndarray of shape (planes * rows, 2)
        Where any tile came to lie on each row.
    fill, low, high, whole
        As in `finish`.
    corner : tuple of three int
        Where the block lies in `pixels`.
    pixels : ndarray of shape (channels, ...)
        The region; overwritten under the block.
    """
    channels, planes, rows, cols = mean.shape
    shape = pixels.shape
    flat = pixels.reshape(-1)
    means, totals = mean.reshape(channels, -1), total.reshape(-1)
    for channel in range(channels):
        for plane in range(planes):
            for row in range(rows):
                to = (channel * shape[1] + corner[0] + plane) * shape[2]
                to = (to + corner[1] + row) * shape[3] + corner[2]
                line = plane * rows + row
                first, stop = spans[line, 0], spans[line, 1]
                at = line * cols + first
                size = stop - first
                _finish_line(
                    means[channel, at:],
                    totals[at:],
                    size,
                    fill,
                    low,
                    high,
                    whole,
                    flat[to + first :],
                )
                _fill(flat, to, to + first, fill)
                _fill(flat, to + stop, to + cols, fill)


@compiled
def deliver_counts(
    count: Ints32,
    spans: NDArray[np.intp],
    corner: tuple[int, ...],
    coverage: NDArray[Any],
) -> None:
    """Write how many tiles count in a block where it belongs."""
    planes, rows, cols = count.shape
    shape = coverage.shape
    flat, counts = coverage.reshape(-1), count.reshape(-1)
    for plane in range(planes):
        for row in range(rows):
            to = ((corner[0] + plane) * shape[1] + corner[1] + row) * shape[2]
            to += corner[2]
            line = plane * rows + row
            first, stop = spans[line, 0], spans[line, 1]
            here, out = counts[line * cols + first :], flat[to + first :]
            for k in range(stop - first):
                out[k] = here[k]
            _fill(flat, to, to + first, 0.0)
            _fill(flat, to + stop, to + cols, 0.0)


@compiled
def _fill(flat: NDArray[Any], begin: int, end: int, fill: float) -> None:
    for k in range(begin, end):
        flat[k] = fill


@compiled
def _finish_line(
    line: Image,
    totals: Image,
    size: int,
    fill: float,
    low: float,
    high: float,
    whole: bool,
    out: NDArray[Any],
) -> None:
    """Round and clip if `whole`, and fill what no tile covers."""
    empty = line.dtype.type(fill)
    least, most = line.dtype.type(low), line.dtype.type(high)
    if whole:
        for k in range(size):
            value = min(max(np.rint(line[k]), least), most)
            out[k] = value if totals[k] > 0 else empty
    else:
        for k in range(size):
            value = line[k]
            out[k] = value if totals[k] > 0 else empty

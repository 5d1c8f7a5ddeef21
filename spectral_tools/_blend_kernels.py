"""Blend rows of sampled tiles into a block of the canvas, compiled (floor 1).

A blend is added here and nowhere else: it is a rule that updates the row of the
block by a row of values and their weights, tile after tile.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._compiled import compiled

__all__ = [
    "FEATHER",
    "FIRST",
    "LAST",
    "MAXIMUM",
    "MEAN",
    "MINIMUM",
    "NEAREST",
    "blend_row",
    "finish",
]

Array = NDArray[np.floating[Any]]

FEATHER, MEAN, NEAREST, MAXIMUM, MINIMUM, FIRST, LAST = range(7)


@compiled
def blend_row(
    blend: int,
    values: Array,
    weights: Array,
    size: int,
    mean: Array,
    total: Array,
    count: NDArray[np.int32],
) -> None:
    """Blend a row of values into the canvas; a weight of 0 changes nothing.

    Parameters
    ----------
    blend : int
        One of the constants of this module.
    values, weights : ndarray of shape (size,)
        Of the tile; the weight is the distance to its border. May be overwritten.
    size : int
        Length of the row.
    mean, total, count : ndarray of at least the same length
        Blend so far, its weight, and the number of tiles; updated.
    """
    zero = values.dtype.type(0)
    if blend > MEAN:
        _choose(blend, values, weights, size, mean, total)
        for k in range(size):
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


@compiled
def _choose(
    blend: int, values: Array, weights: Array, size: int, mean: Array, total: Array
) -> None:
    """Keep the old value or take the new one, in every pixel of a row."""
    # Both values are read before the choice, which is not written over them:
    # else it becomes a branch, and the loop is not vectorised.
    zero = values.dtype.type(0)
    chosen = np.empty_like(values)
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

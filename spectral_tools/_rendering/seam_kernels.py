"""Lay seams through overlaps, and fade from tile to tile at them, compiled.

Arrays have three axes, (planes, rows, cols). A map of two tiles has cells of `step`
pixels of the canvas along each axis.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Bytes, Floats, Image
from .._shared.compiled import compiled

__all__ = ["blend_levels", "compare", "flood", "signed_distance", "tally"]

Corner = tuple[int, int, int]

# A seam narrower than this is as good as hard.
NARROW = 1e-6


@compiled
def blend_levels(
    values: Image,
    weights: Image,
    levels: Image,
    width: float,
    mean: Image,
    total: Image,
) -> None:
    """Take the tile of the highest level, or fade where two are nearly as high.

    At the seam of two tiles, whose levels rise and fall by 1 per pixel, the share of
    one falls from 1 to 0 along a line of `width` pixels.

    Parameters
    ----------
    values, weights, levels : ndarray of shape (n, size)
        Of each tile; a weight of 0 means that it is not there.
    width : float
        Width of the seam; 0 for a hard one.
    mean, total : ndarray of shape (size,)
        What is shown, and its weight, which is 0 where no tile is; overwritten.
    """
    count, size = values.shape
    dtype = values.dtype
    zero, one, lowest = dtype.type(0), dtype.type(1), dtype.type(-np.inf)
    best, heaviest = np.empty(size, dtype), np.zeros(size, dtype)
    best[:], mean[:], total[:] = lowest, zero, zero
    for tile in range(count):
        value, weight, level = values[tile], weights[tile], levels[tile]
        for k in range(size):
            there = weight[k] > zero
            tied = (level[k] == best[k]) & (weight[k] > heaviest[k])
            better = there & ((level[k] > best[k]) | tied)
            old, older, oldest = mean[k], heaviest[k], best[k]
            mean[k] = value[k] if better else old
            heaviest[k] = weight[k] if better else older
            best[k] = level[k] if better else oldest
    if width <= 0:
        total[:] = heaviest
        return
    mean[:] = zero
    steep = dtype.type(1 / max(width, NARROW))
    for tile in range(count):
        value, weight, level = values[tile], weights[tile], levels[tile]
        for k in range(size):
            behind = (best[k] - level[k]) * steep
            # Of two tiles, the shares are then (1 + behind) / 2 and the rest.
            share = (one - behind) / (one + behind)
            share = share if (weight[k] > zero) & (behind < one) else zero
            total[k] += share
            ratio = share / total[k] if share > zero else zero
            mean[k] += ratio * (value[k] - mean[k])


@compiled
def tally(
    values0: Image,
    weights0: Image,
    values1: Image,
    weights1: Image,
    margin: float,
    corner: Corner,
    step: Corner,
    sums: Floats,
    counts: Floats,
    votes: Floats,
) -> None:
    """Sum up in cells how two tiles differ, and who owns what.

    Parameters
    ----------
    values0, weights0, values1, weights1 : ndarray of shape (planes, rows, cols)
        Of the tiles, in a part of their map; the weight is the distance to the
        border, and 0 where a tile is not there.
    margin : float
        A tile so near to its border leaves the pixel to the other one.
    corner, step : tuple of int
        Where the part starts in the map, in pixels, and the sides of a cell.
    sums, counts : ndarray
        Differences and the number of pixels where both are there; updated.
    votes : ndarray
        Pixels that only the first tile can have, less those of the second;
        updated.
    """
    for plane in range(values0.shape[0]):
        to_plane = (corner[0] + plane) // step[0]
        for row in range(values0.shape[1]):
            to_row = (corner[1] + row) // step[1]
            for col in range(values0.shape[2]):
                at = to_plane, to_row, (corner[2] + col) // step[2]
                one, two = weights0[plane, row, col], weights1[plane, row, col]
                if one > 0 and two > 0:
                    sums[at] += values0[plane, row, col] - values1[plane, row, col]
                    counts[at] += 1
                if one != two and min(one, two) < margin:
                    votes[at] += 1 if one > two else -1


@compiled
def flood(heights: NDArray[np.uint8], labels: Bytes) -> None:
    """Let seeds grow over cells, the highest first, and further down only then.

    A hill is taken whole by who reaches it first, so that borders run in the deepest
    valleys there are; on a plain they run half-way between the seeds.

    Parameters
    ----------
    heights : ndarray of shape (planes, rows, cols)
        Heights.
    labels : ndarray of the same shape
        1 or -1 for the cells of seeds, and 0 for others; filled.
    """
    # Strategy: cells wait in one queue for each height, first come, first served.
    planes, rows, cols = heights.shape
    tops, flat = heights.reshape(-1), labels.reshape(-1)
    size = flat.size
    first, last = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    after = np.full(size, -1, np.int64)
    steps = (-rows * cols, rows * cols, -cols, cols, -1, 1)
    top = -1
    for at in range(size):
        if flat[at] != 0:
            top = max(top, _join(at, tops, first, last, after))
    while top >= 0:
        at = first[top]
        if at < 0:
            top -= 1
            continue
        first[top] = after[at]
        plane, row, col = at // (rows * cols), at // cols % rows, at % cols
        free = (
            plane > 0,
            plane < planes - 1,
            row > 0,
            row < rows - 1,
            col > 0,
            col < cols - 1,
        )
        for k in range(6):
            if free[k] and flat[at + steps[k]] == 0:
                flat[at + steps[k]] = flat[at]
                top = max(top, _join(at + steps[k], tops, first, last, after))


@compiled
def _join(
    at: int,
    tops: NDArray[np.uint8],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    after: NDArray[np.int64],
) -> int:
    """Put a cell at the end of the queue of its height, and return that."""
    height = int(tops[at])
    if first[height] < 0:
        first[height] = at
    else:
        after[last[height]] = at
    last[height] = at
    return height


@compiled
def signed_distance(labels: Bytes, distances: NDArray[np.float32]) -> None:
    """Write how far the border between 1 and -1 is, with the sign of the label.

    Steps along axes and diagonals are added up, so that it is too long by 8 % at
    most in planes. Neighbours on the two sides are 0.5 and -0.5.
    """
    # Strategy: borders first, then distances are carried forwards, and backwards.
    # Each turn looks at the half of the neighbours that come before in memory.
    planes, rows, cols = labels.shape
    steps = np.empty((13, 3), np.int64)
    lengths, count = np.empty(13, np.float32), 0
    for a in range(-1 if planes > 1 else 0, 1):
        for b in range(-1, 2):
            for c in range(-1, 2):
                if 9 * a + 3 * b + c < 0:
                    steps[count, 0], steps[count, 1], steps[count, 2] = a, b, c
                    lengths[count] = np.sqrt(a * a + b * b + c * c)
                    count += 1
    distances[:] = planes + rows + cols
    for turn in range(3):
        sign = -1 if turn == 2 else 1
        for p in range(planes):
            plane = p if sign > 0 else planes - 1 - p
            for r in range(rows):
                row = r if sign > 0 else rows - 1 - r
                for c in range(cols):
                    col = c if sign > 0 else cols - 1 - c
                    at = plane, row, col
                    here, least = labels[at], distances[at]
                    for step in range(count):
                        i = plane + sign * steps[step, 0]
                        j = row + sign * steps[step, 1]
                        k = col + sign * steps[step, 2]
                        if not (0 <= i < planes and 0 <= j < rows and 0 <= k < cols):
                            continue
                        if labels[i, j, k] != here:
                            border = lengths[step] - np.float32(0.5)
                            least = min(least, border)
                            distances[i, j, k] = min(distances[i, j, k], border)
                        elif turn > 0:
                            least = min(least, distances[i, j, k] + lengths[step])
                    distances[at] = least
    distances *= labels


@compiled
def compare(
    distances: NDArray[np.float32],
    start: Floats,
    step: Corner,
    weights0: Image,
    weights1: Image,
    levels0: Image,
    levels1: Image,
) -> None:
    """Lower the levels of two tiles to how far each is ahead of the other.

    Parameters
    ----------
    distances : ndarray of shape (planes, rows, cols)
        From the seam, positive on the side of the first tile, in cells.
    start : ndarray of shape (3,)
        Where the first pixel lies on the map, in cells.
    step : tuple of int
        Sides of a cell, in pixels.
    weights0, weights1 : ndarray
        0 where a tile is not there.
    levels0, levels1 : ndarray
        In pixels; updated where both are there.
    """
    dtype = levels0.dtype
    pixels = dtype.type(step[2])
    for plane in range(weights0.shape[0]):
        low0, high0, part0 = _between(
            start[0] + plane / step[0], distances.shape[0], step[0]
        )
        for row in range(weights0.shape[1]):
            low1, high1, part1 = _between(
                start[1] + row / step[1], distances.shape[1], step[1]
            )
            one, two = distances[low0, low1], distances[low0, high1]
            three, four = distances[high0, low1], distances[high0, high1]
            for col in range(weights0.shape[2]):
                if weights0[plane, row, col] > 0 and weights1[plane, row, col] > 0:
                    low, high, part = _between(
                        start[2] + col / step[2], distances.shape[2], step[2]
                    )
                    upper = _mixed(one, two, part1, low, high, part)
                    lower = _mixed(three, four, part1, low, high, part)
                    ahead = pixels * dtype.type(upper + part0 * (lower - upper))
                    old0, old1 = levels0[plane, row, col], levels1[plane, row, col]
                    levels0[plane, row, col] = min(old0, ahead)
                    levels1[plane, row, col] = min(old1, -ahead)


@compiled
def _between(at: float, size: int, step: int) -> tuple[int, int, float]:
    """Return the cells around a point, and how far it is from the first."""
    if step == 1:
        cell = min(max(int(np.rint(at)), 0), size - 1)
        return cell, cell, 0.0
    at = min(max(at, 0.0), size - 1.0)
    cell = int(at)
    return cell, min(cell + 1, size - 1), at - cell


@compiled
def _mixed(one: Any, two: Any, row: float, low: int, high: int, col: float) -> float:
    upper = one[low] + col * (one[high] - one[low])
    lower = two[low] + col * (two[high] - two[low])
    return upper + row * (lower - upper)

"""Take images apart into bands, and put bands together, compiled.

Arrays have three axes, (planes, rows, cols). The first halving takes means of cells of
two pixels along an axis, or of one where there is nothing to halve; grids that are
coarser lie on every other point of the finer one.
"""

import numpy as np

from .._shared.arrays import Image, Ints32
from .._shared.compiled import compiled

__all__ = [
    "claim",
    "extend",
    "halve",
    "mix",
    "normalise_sums",
    "put_together",
    "shrink",
    "widen",
]

Corner = tuple[int, int, int]


@compiled
def claim(
    weights: Image,
    number: int,
    corner: Corner,
    best: Image,
    owner: Ints32,
    count: Ints32,
) -> None:
    """Give a tile all pixels whose weight is larger than the best so far.

    Parameters
    ----------
    weights : ndarray of shape (planes, rows, cols)
        Of the tile in its box; 0 where it is not there.
    number : int
        What the owner of these pixels is called.
    corner : tuple of int
        Where the box starts in the larger arrays.
    best, owner, count : ndarray
        Largest weight, who has it, and the number of tiles; updated.
    """
    planes, rows, cols = weights.shape
    zero = weights.dtype.type(0)
    who = np.int32(number)
    for plane in range(planes):
        for row in range(rows):
            at = corner[0] + plane, corner[1] + row
            line = weights[plane, row]
            bests = best[at[0], at[1], corner[2] : corner[2] + cols]
            owners = owner[at[0], at[1], corner[2] : corner[2] + cols]
            counts = count[at[0], at[1], corner[2] : corner[2] + cols]
            for k in range(cols):
                one, two, old = line[k], bests[k], owners[k]
                owners[k] = who if one > two else old
                bests[k] = np.maximum(one, two)
                counts[k] += np.int32(one > zero)


@compiled
def halve(
    values: Image,
    weights: Image,
    owner: Ints32,
    number: int,
    corner: Corner,
    offset: float,
    first: Corner,
    out: Image,
) -> None:
    """Sum what a tile shows, where it is, and where it is the owner, in cells.

    Parameters
    ----------
    values, weights : ndarray of shape (planes, rows, cols)
        Of the tile in its box; the weight is 0 where it is not there.
    owner, number, corner
        As in `claim`.
    offset : float
        Taken off all values.
    first : tuple of int
        Where the cells of the box start in `out`.
    out : ndarray of shape (3, planes, rows, cols)
        The three sums, with planes halved if there are several; updated.
    """
    cols = values.shape[2]
    deep = 1 if values.shape[0] == 1 else 2
    lift = values.dtype.type(offset)
    zero, one = values.dtype.type(0), values.dtype.type(1)
    sums, known, owned = np.empty((3, cols), values.dtype)
    who = np.int32(number)
    for plane in range(values.shape[0] // deep):
        for row in range(values.shape[1] // 2):
            sums[:], known[:], owned[:] = zero, zero, zero
            for part in range(2 * deep):
                depth, at = plane * deep + part // 2, 2 * row + part % 2
                value, weight = values[depth, at], weights[depth, at]
                names = owner[
                    corner[0] + depth, corner[1] + at, corner[2] : corner[2] + cols
                ]
                for k in range(cols):
                    there = one if weight[k] > zero else zero
                    sums[k] += there * (value[k] - lift)
                    known[k] += there
                    owned[k] += one if names[k] == who else zero
            lines = out[:, first[0] + plane, first[1] + row, first[2] :]
            for k in range(cols // 2):
                lines[0, k] = sums[2 * k] + sums[2 * k + 1]
                lines[1, k] = known[2 * k] + known[2 * k + 1]
                lines[2, k] = owned[2 * k] + owned[2 * k + 1]


@compiled
def normalise_sums(sums: Image, known: Image) -> None:
    """Turn sums into means, in place; they are 0 where nothing is known."""
    tops, parts = sums.reshape(-1), known.reshape(-1)
    zero, one = sums.dtype.type(0), sums.dtype.type(1)
    for k in range(tops.size):
        tops[k] /= parts[k] if parts[k] > zero else one


@compiled
def shrink(fine: Image, coarse: Image) -> None:
    """Smooth by (1, 4, 6, 4, 1) / 16 along the second axis, and keep every other.

    Parameters
    ----------
    fine : ndarray of shape (n, 2 * size, inner)
        Beyond its ends lies 0.
    coarse : ndarray of shape (n, size, inner)
        The result.
    """
    dtype = fine.dtype
    centre, near, far = dtype.type(0.375), dtype.type(0.25), dtype.type(0.0625)
    outer, size, inner = coarse.shape
    padded = np.zeros(2 * size + 4, dtype)
    for one in range(outer):
        if inner == 1:
            for k in range(2 * size):
                padded[2 + k] = fine[one, k, 0]
            for k in range(size):
                coarse[one, k, 0] = (
                    centre * padded[2 * k + 2]
                    + near * (padded[2 * k + 1] + padded[2 * k + 3])
                    + far * (padded[2 * k] + padded[2 * k + 4])
                )
            continue
        for k in range(size):
            line, here = coarse[one, k], fine[one, 2 * k]
            for j in range(inner):
                line[j] = centre * here[j]
            for step in (-2, -1, 1, 2):
                if 0 <= 2 * k + step < 2 * size:
                    share = near if abs(step) == 1 else far
                    there = fine[one, 2 * k + step]
                    for j in range(inner):
                        line[j] += share * there[j]


@compiled
def widen(coarse: Image, fine: Image) -> None:
    """Put points between points along the second axis; the ends are repeated.

    Parameters
    ----------
    coarse : ndarray of shape (n, size, inner)
        Points.
    fine : ndarray of shape (n, 2 * size, inner)
        The result.
    """
    dtype = fine.dtype
    centre, side, half = dtype.type(0.75), dtype.type(0.125), dtype.type(0.5)
    outer, size, inner = coarse.shape
    for one in range(outer):
        for k in range(size):
            before, after = max(k - 1, 0), min(k + 1, size - 1)
            low, here, high = coarse[one, before], coarse[one, k], coarse[one, after]
            even, odd = fine[one, 2 * k], fine[one, 2 * k + 1]
            for j in range(inner):
                even[j] = centre * here[j] + side * (low[j] + high[j])
                odd[j] = half * (here[j] + high[j])


@compiled
def mix(values: Image, mask: Image, corner: Corner, mean: Image, total: Image) -> None:
    """Add the values of a tile in its box to a mean that is weighted by masks."""
    # A running mean, so that a tile alone stays exactly as it is.
    planes, rows, cols = values.shape
    zero = values.dtype.type(0)
    for plane in range(planes):
        for row in range(rows):
            at = corner[0] + plane, corner[1] + row
            value, share = values[plane, row], mask[plane, row]
            means = mean[at[0], at[1], corner[2] : corner[2] + cols]
            totals = total[at[0], at[1], corner[2] : corner[2] + cols]
            for k in range(cols):
                totals[k] += share[k]
                ratio = share[k] / totals[k] if share[k] > zero else zero
                means[k] += ratio * (value[k] - means[k])


@compiled
def extend(values: Image, known: Image) -> None:
    """Set unknown cells to the mean of the known ones around them, in place."""
    planes, rows, cols = values.shape
    zero = values.dtype.type(0)
    near = np.zeros(cols + 2, values.dtype)
    for plane in range(planes):
        for row in range(rows):
            low, high = max(plane - 1, 0), min(plane + 2, planes)
            first, last = max(row - 1, 0), min(row + 2, rows)
            near[:] = zero
            for i in range(low, high):
                for j in range(first, last):
                    line = known[i, j]
                    for k in range(cols):
                        near[k + 1] += line[k]
            here = known[plane, row]
            for col in range(cols):
                if here[col] > zero or near[col] + near[col + 1] + near[col + 2] == 0:
                    continue
                total, number = 0.0, 0
                for i in range(low, high):
                    for j in range(first, last):
                        for k in range(max(col - 1, 0), min(col + 2, cols)):
                            if known[i, j, k] > zero:
                                total += values[i, j, k]
                                number += 1
                values[plane, row, col] = total / number


@compiled
def put_together(
    values: Image,
    added: Image,
    owner: Ints32,
    number: int,
    corner: Corner,
    part: Corner,
    out: Image,
) -> None:
    """Write the pixels that a tile owns, with what cells add to them.

    Parameters
    ----------
    values : ndarray of shape (planes, rows, cols)
        Of the tile in its box.
    added : ndarray
        For each cell of the box, interpolated linearly between their centres.
    owner, number, corner
        As in `claim`.
    part : tuple of int
        Where `out` starts in the array `owner`.
    out : ndarray of shape (planes, rows, cols)
        Updated.
    """
    cols = values.shape[2]
    cells = added.shape[2]
    deep = values.shape[0] // added.shape[0]
    line, wide = np.empty(cells, values.dtype), np.empty(cols, values.dtype)
    who = np.int32(number)
    left = max(part[2] - corner[2], 0)
    right = min(part[2] + out.shape[2] - corner[2], cols)
    for plane in range(values.shape[0]):
        to_plane = corner[0] + plane - part[0]
        if not 0 <= to_plane < out.shape[0]:
            continue
        here0, next0 = _cells(plane, added.shape[0], deep)
        for row in range(values.shape[1]):
            to_row = corner[1] + row - part[1]
            if not 0 <= to_row < out.shape[1]:
                continue
            here1, next1 = _cells(row, added.shape[1], 2)
            names = owner[part[0] + to_plane, part[1] + to_row, corner[2] :]
            first, last = left, right
            while first < last and names[first] != who:
                first += 1
            while first < last and names[last - 1] != who:
                last -= 1
            if first == last:
                continue
            _interpolate(added, here0, next0, here1, next1, line, wide)
            shift = corner[2] - part[2]
            value, target = values[plane, row], out[to_plane, to_row]
            for k in range(first, last):
                new, old = value[k] + wide[k], target[k + shift]
                target[k + shift] = new if names[k] == who else old


@compiled
def _interpolate(
    added: Image,
    here0: int,
    next0: int,
    here1: int,
    next1: int,
    line: Image,
    wide: Image,
) -> None:
    """Write what cells add to the pixels of a row, given the cells next to it."""
    cells = line.size
    quarter = line.dtype.type(0.25)
    one, two = added[here0, here1], added[here0, next1]
    three, four = added[next0, here1], added[next0, next1]
    for k in range(cells):
        line[k] = one[k] + quarter * (two[k] - one[k])
    if next0 != here0:
        for k in range(cells):
            other = three[k] + quarter * (four[k] - three[k])
            line[k] += quarter * (other - line[k])
    for k in range(cells):
        low, high = line[max(k - 1, 0)], line[min(k + 1, cells - 1)]
        wide[2 * k] = line[k] + quarter * (low - line[k])
        wide[2 * k + 1] = line[k] + quarter * (high - line[k])


@compiled
def _cells(at: int, size: int, step: int) -> tuple[int, int]:
    """Return the cell of a pixel, and the next nearest cell."""
    cell = at // step
    if step == 1:
        return cell, cell
    towards = 1 if at % 2 else -1
    return cell, min(max(cell + towards, 0), size - 1)

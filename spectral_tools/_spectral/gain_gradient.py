"""Compiled estimate of how the brightness of two images drifts apart."""

import math

import numpy as np

from .._shared.arrays import AnyArray, Floats, Ints
from .._shared.compiled import compiled

__all__ = ["gain_slopes"]


# Cells of at least this many pixels, and at most this many cells along an axis.
CELL, CELLS = 12, 8
# An axis has at least so many cells, or none.
FEWEST = 3
# The multiple itself must be this clear, in standard errors.
CLEAR = 4.0
# A slope counts as far as it exceeds this many standard errors: half a pixel between
# the images makes details differ too, and most images are evenly lit.
DOUBT = 3.0
# The gain changes by no more than this from the middle to the ends.
MOST = 0.8


@compiled
def _cell_edges(size: int, cells: int) -> Ints:
    """Return where cells begin and end, so that turned images have turned cells."""
    return (2 * np.arange(cells + 1) * size + cells) // (2 * cells)


@compiled
def _cell_moments(
    first: AnyArray,
    second: AnyArray,
    start0: Ints,
    start1: Ints,
    block: Ints,
    cells: Ints,
) -> Floats:
    """Return the number of pixels of each cell, the covariance, and both powers."""
    total = cells[0] * cells[1] * cells[2]
    sums = np.zeros((total, 6))
    edges = _cell_edges(block[2], cells[2])
    planes = np.searchsorted(
        _cell_edges(block[0], cells[0])[1:], np.arange(block[0]), "right"
    )
    rows = np.searchsorted(
        _cell_edges(block[1], cells[1])[1:], np.arange(block[1]), "right"
    )
    for p in range(block[0]):
        for r in range(block[1]):
            a = first[start0[0] + p, start0[1] + r, start0[2] : start0[2] + block[2]]
            b = second[start1[0] + p, start1[1] + r, start1[2] : start1[2] + block[2]]
            row = planes[p] * cells[1] + rows[r]
            for k in range(cells[2]):
                s0 = s1 = s00 = s01 = s11 = np.float32(0)
                for c in range(edges[k], edges[k + 1]):
                    s0 += a[c]
                    s1 += b[c]
                    s00 += a[c] * a[c]
                    s01 += a[c] * b[c]
                    s11 += b[c] * b[c]
                cell = sums[row * cells[2] + k]
                cell[0] += edges[k + 1] - edges[k]
                cell[1] += s0
                cell[2] += s1
                cell[3] += s01
                cell[4] += s00
                cell[5] += s11
    moments = np.empty((total, 4))
    for cell in range(total):
        count, s0, s1 = sums[cell, 0], sums[cell, 1], sums[cell, 2]
        moments[cell, 0] = count
        moments[cell, 1] = sums[cell, 3] - s0 * s1 / count
        moments[cell, 2] = sums[cell, 4] - s0 * s0 / count
        moments[cell, 3] = sums[cell, 5] - s1 * s1 / count
    return moments


@compiled
def _inverted(matrix: Floats) -> Floats:
    """Return the inverse of a small positive definite matrix, or zeros."""
    size = len(matrix)
    work = matrix.copy()
    inverse = np.eye(size)
    for i in range(size):
        pivot = work[i, i]
        if not pivot > 1e-9 * matrix[i, i]:
            return np.zeros((size, size))
        for j in range(size):
            work[i, j] /= pivot
            inverse[i, j] /= pivot
        for k in range(size):
            factor = work[k, i]
            if k != i:
                for j in range(size):
                    work[k, j] -= factor * work[i, j]
                    inverse[k, j] -= factor * inverse[i, j]
    return inverse


@compiled
def _plane(moments: Floats, of: int, design: Floats) -> tuple[Floats, Floats]:
    """Fit a plane to the multiples of one image that the other is in each cell.

    Noise is taken to be the same everywhere, and as strong in both images beside
    their signals: it is what their correlation lacks. Returns the slopes over
    the middle, and their variances.
    """
    total, number = design.shape
    common, power = moments[:, 1], moments[:, of]
    likeness = common.sum() / math.sqrt(moments[:, 2].sum() * moments[:, 3].sum())
    noise = (1 - min(max(likeness, 0.0), 1.0)) * power.sum() / moments[:, 0].sum()
    signal = power - noise * moments[:, 0]
    normal = np.zeros((number, number))
    pull = np.zeros(number)
    for cell in range(total):
        for i in range(number):
            here = design[cell, i] * signal[cell] / power[cell]
            pull[i] += here * common[cell]
            for j in range(number):
                normal[i, j] += here * signal[cell] * design[cell, j]
    inverse = _inverted(normal)
    plane = np.zeros(number)
    for i in range(number):
        for j in range(number):
            plane[i] += inverse[i, j] * pull[j]
    scatter = 0.0
    for cell in range(total):
        miss = common[cell]
        for i in range(number):
            miss -= signal[cell] * design[cell, i] * plane[i]
        scatter += miss * miss / power[cell]
    scatter /= total - number
    if plane[0] <= 0 or plane[0] ** 2 < CLEAR**2 * scatter * inverse[0, 0]:
        return np.zeros(number), np.ones(number)
    return plane / plane[0], scatter * np.diag(inverse) / plane[0] ** 2


@compiled
def gain_slopes(
    first: AnyArray, second: AnyArray, start0: Ints, start1: Ints, block: Ints
) -> Floats:
    """Return the relative slope, per pixel, of the gain of the second image.

    Both images show the same scene in a block. In each of a few cells the one
    is a multiple of the other, and a plane through the multiples, weighted by
    what the cells show, is the ratio of the two illuminations. What noise alone
    would tilt the plane by is taken off.
    """
    slopes = np.zeros(3)
    cells = np.ones(3, np.intp)
    for axis in range(3):
        if block[axis] >= FEWEST * CELL:
            cells[axis] = min(block[axis] // CELL, CELLS)
    number = 1 + int((cells > 1).sum())
    total = cells[0] * cells[1] * cells[2]
    if total < number + 2:
        return slopes
    moments = _cell_moments(first, second, start0, start1, block, cells)
    if moments[:, 2:].min() <= 0:
        return slopes
    design = np.ones((total, number))
    axes = np.zeros(number, np.intp)
    column, step = 1, 1
    for axis in range(2, -1, -1):
        if cells[axis] > 1:
            axes[column] = axis
            for cell in range(total):
                place = cell // step % cells[axis]
                design[cell, column] = (place + 0.5) / cells[axis] - 0.5
            column += 1
        step *= cells[axis]
    one, variance0 = _plane(moments, 2, design)
    other, variance1 = _plane(moments, 3, design)
    for column in range(1, number):
        slope = 0.5 * (one[column] - other[column])
        doubt = DOUBT * DOUBT * 0.5 * (variance0[column] + variance1[column])
        if slope * slope > doubt:
            slope *= 1 - doubt / (slope * slope)
            slope = min(max(slope, -2 * MOST), 2 * MOST)
            slopes[axes[column]] = slope / block[axes[column]]
    return slopes

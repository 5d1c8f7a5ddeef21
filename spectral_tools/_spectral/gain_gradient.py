"""Compiled estimate of how the brightness of two images drifts apart."""

import math

import numpy as np

from .._shared.arrays import AnyArray, Floats, Ints
from .._shared.compiled import compiled

__all__ = ["gain_slopes"]


# Side of a cell, in pixels, at least: in smaller ones half a pixel of shift decorrelates
# what both show (test_slopes_of_gain_are_those_given).
CELL = 12
# Cells along an axis, at most: a plane needs no more (bench_shifts: 2048 x 2048).
CELLS = 8
# An axis has at least so many cells, or none: two tell no slope from one odd detail
# (test_strips_that_share_a_third_reach_the_bound).
SLOPE_CELLS = 3
# The multiple itself must be this clear, in standard errors
# (test_unrelated_images_are_not_believed).
CLEAR = 4.0
# A slope counts as far as it exceeds this many standard errors: half a pixel between
# the images makes details differ too, and most images are evenly lit
# (test_crops_come_close_to_the_bound).
DOUBT = 3.0
# The gain changes by no more than this share from the middle to the ends
# (test_light_from_two_sides_does_not_pull).
STEEPEST = 0.8


@compiled
def _cell_edges(block: Ints, cells: Ints) -> Ints:
    """Return where cells begin on each axis, so that turned images have turned cells."""
    edges = np.empty((3, CELLS + 1), np.int64)
    for axis in range(3):
        for cell in range(cells[axis] + 1):
            twice = 2 * cell * block[axis] + cells[axis]
            edges[axis, cell] = twice // (2 * cells[axis])
    return edges


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
    edges = _cell_edges(block, cells)
    plane = 0
    for p in range(block[0]):
        plane += 1 if p == edges[0, plane + 1] else 0
        line = 0
        for r in range(block[1]):
            line += 1 if r == edges[1, line + 1] else 0
            row = plane * cells[1] + line
            a = first[start0[0] + p, start0[1] + r, start0[2] :]
            b = second[start1[0] + p, start1[1] + r, start1[2] :]
            for k in range(cells[2]):
                s0 = s1 = s00 = s01 = s11 = np.float32(0)
                for c in range(edges[2, k], edges[2, k + 1]):
                    s0 += a[c]
                    s1 += b[c]
                    s00 += a[c] * a[c]
                    s01 += a[c] * b[c]
                    s11 += b[c] * b[c]
                cell = sums[row * cells[2] + k]
                cell[0] += edges[2, k + 1] - edges[2, k]
                cell[1] += s0
                cell[2] += s1
                cell[3] += s01
                cell[4] += s00
                cell[5] += s11
    moments = np.zeros((total, 4))
    for cell in range(total):
        count, s0, s1 = sums[cell, 0], sums[cell, 1], sums[cell, 2]
        moments[cell, 0] = count
        moments[cell, 1] = sums[cell, 3] - s0 * s1 / count
        moments[cell, 2] = sums[cell, 4] - s0 * s0 / count
        moments[cell, 3] = sums[cell, 5] - s1 * s1 / count
    return moments


@compiled
def _fit_plane(moments: Floats, of: int, design: Floats, told: Floats) -> None:
    """Fit a plane to the multiples of one image that the other is in each cell.

    Noise is taken to be the same everywhere, and as strong in both images beside
    their signals: it is what their correlation lacks. Writes the slopes over
    the middle, and their variances.
    """
    total, number = design.shape
    for i in range(number):
        told[0, i], told[1, i] = 0.0, 1.0
    count = common = power0 = power1 = 0.0
    for cell in range(total):
        count += moments[cell, 0]
        common += moments[cell, 1]
        power0 += moments[cell, 2]
        power1 += moments[cell, 3]
    likeness = common / math.sqrt(power0 * power1)
    noise = 1 - min(max(likeness, 0.0), 1.0)
    noise *= (power0 if of == 2 else power1) / count
    # Normal equations, and what becomes their inverse beside them.
    normal = np.zeros((number, 2 * number))
    pull, plane, diagonal = np.zeros(number), np.zeros(number), np.zeros(number)
    for cell in range(total):
        power = moments[cell, of]
        signal = power - noise * moments[cell, 0]
        for i in range(number):
            here = design[cell, i] * signal / power
            pull[i] += here * moments[cell, 1]
            for j in range(number):
                normal[i, j] += here * signal * design[cell, j]
    for i in range(number):
        normal[i, number + i] = 1.0
        diagonal[i] = normal[i, i]
    for i in range(number):
        pivot = normal[i, i]
        if not pivot > 1e-9 * diagonal[i]:
            return
        for j in range(2 * number):
            normal[i, j] /= pivot
        for k in range(number):
            factor = normal[k, i] if k != i else 0.0
            for j in range(2 * number):
                normal[k, j] -= factor * normal[i, j]
    for i in range(number):
        for j in range(number):
            plane[i] += normal[i, number + j] * pull[j]
    scatter = 0.0
    for cell in range(total):
        miss = moments[cell, 1]
        signal = moments[cell, of] - noise * moments[cell, 0]
        for i in range(number):
            miss -= signal * design[cell, i] * plane[i]
        scatter += miss * miss / moments[cell, of]
    scatter /= total - number
    middle = plane[0] * plane[0]
    if plane[0] <= 0 or middle < CLEAR * CLEAR * scatter * normal[0, number]:
        return
    for i in range(number):
        told[0, i] = plane[i] / plane[0]
        told[1, i] = scatter * normal[i, number + i] / middle


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
    cells = np.empty(3, np.int64)
    number = 1
    for axis in range(3):
        cells[axis] = 1
        if block[axis] >= SLOPE_CELLS * CELL:
            cells[axis] = min(block[axis] // CELL, CELLS)
            number += 1
    total = cells[0] * cells[1] * cells[2]
    if total < number + 2:
        return slopes
    moments = _cell_moments(first, second, start0, start1, block, cells)
    for cell in range(total):
        if moments[cell, 2] <= 0 or moments[cell, 3] <= 0:
            return slopes
    design = np.zeros((total, number))
    axes = np.empty(number, np.int64)
    column, step = 1, 1
    for axis in range(2, -1, -1):
        if cells[axis] > 1:
            axes[column] = axis
            for cell in range(total):
                place = cell // step % cells[axis]
                design[cell, 0] = 1.0
                design[cell, column] = (place + 0.5) / cells[axis] - 0.5
            column += 1
        step *= cells[axis]
    one, other = np.zeros((2, number)), np.zeros((2, number))
    for of in range(2, 4):
        _fit_plane(moments, of, design, one if of == 2 else other)
    for column in range(1, number):
        slope = 0.5 * (one[0, column] - other[0, column])
        doubt = DOUBT * DOUBT * 0.5 * (one[1, column] + other[1, column])
        if slope * slope > doubt:
            slope *= 1 - doubt / (slope * slope)
            slope = min(max(slope, -2 * STEEPEST), 2 * STEEPEST)
            slopes[axes[column]] = slope / block[axes[column]]
    return slopes

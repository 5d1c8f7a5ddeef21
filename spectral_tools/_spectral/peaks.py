"""Compiled passes over correlation surfaces, and what chance does there.

Volumes have three axes, as in `ring_kernels`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import AnyArray, Floats, Ints
from .._shared.compiled import compiled

__all__ = [
    "FAINTEST",
    "LEAST_OVERLAP",
    "SEPARATION",
    "PeakList",
    "box_table",
    "chance_level",
    "circular_peaks",
    "list_peaks",
    "local_maxima",
    "parabola_tops",
    "score_lags",
    "separate_peaks",
    "wrap_lags",
]


# Maxima up to so many pixels apart along all axes belong to one peak, whose skirt reaches
# twice as far (test_alternatives_hold_the_repeats_of_a_scene).
SEPARATION = 3
# With fewer common pixels than this a correlation coefficient tells nothing
# (test_lags_without_overlap_are_zero).
LEAST_OVERLAP = 16.0
# A tail that is extrapolated from one pair tells nothing of chances below this
# (test_chance_level_of_normal_heights_is_theirs).
FAINTEST = 1e-15


class PeakList(NamedTuple):
    """Local maxima of a surface, highest first."""

    indices: Ints  # (n, 3)
    heights: NDArray[np.floating[Any]]  # (n,)


def list_peaks(
    surface: NDArray[np.floating[Any]], floor: float = 0.0, *, periodic: bool = False
) -> PeakList:
    """List the local maxima of a volume above `floor`, highest first.

    The floor of a periodic correlation is given in its own standard deviations.
    """
    if periodic:
        floor *= math.sqrt(float(np.vdot(surface, surface)) / surface.size)
        if not 0 < floor < math.inf:
            return PeakList(np.empty((0, 3), np.intp), np.empty(0, surface.dtype))
    where, _ = (circular_peaks if periodic else local_maxima)(surface, floor)
    heights = surface.reshape(-1)[where]
    order = np.argsort(-heights, kind="stable")
    indices = np.stack(np.unravel_index(where[order], surface.shape), axis=1)
    return PeakList(indices, heights[order])


def separate_peaks(
    indices: Ints, count: int, distance: float = SEPARATION + 1
) -> list[int]:
    """Return the first `count` rows that keep a distance along at least one axis.

    This is greedy non-maximum suppression if the highest peaks come first.
    """
    chosen: list[int] = []
    for row, index in enumerate(indices):
        if all(np.abs(index - indices[other]).max() >= distance for other in chosen):
            chosen.append(row)
            if len(chosen) == count:
                break
    return chosen


def wrap_lags(lags: Ints, period: Ints) -> Ints:
    """Return lags of a periodic surface, each the nearest to zero of its copies."""
    return (lags + period // 2) % period - period // 2


@compiled
def box_table(image: AnyArray, power: int, flip: bool) -> Floats:
    """Return the summed-area table of ``image ** power``, of the flipped image if asked."""
    n0, n1, n2 = image.shape
    table = np.zeros((n0 + 1, n1 + 1, n2 + 1))
    for p in range(n0):
        for r in range(n1):
            run = 0.0
            for c in range(n2):
                if flip:
                    value = np.float64(image[n0 - 1 - p, n1 - 1 - r, n2 - 1 - c])
                else:
                    value = np.float64(image[p, r, c])
                run += value if power == 1 else value * value
                table[p + 1, r + 1, c + 1] = (
                    run
                    + table[p + 1, r, c + 1]
                    + table[p, r + 1, c + 1]
                    - table[p, r, c + 1]
                )
    return table


@compiled
def _box(table: Floats, p0: int, p1: int, r0: int, r1: int, c0: int, c1: int) -> float:
    far = table[p1, r1, c1] - table[p1, r0, c1] - table[p1, r1, c0] + table[p1, r0, c0]
    near = table[p0, r1, c1] - table[p0, r0, c1] - table[p0, r1, c0] + table[p0, r0, c0]
    return far - near


@compiled
def score_lags(
    surface: AnyArray,
    offset: Ints,
    low: Ints,
    shape: Ints,
    sums0: Floats,
    squares0: Floats,
    sums1: Floats,
    squares1: Floats,
    least: float,
) -> AnyArray:
    """Turn circular correlations into Fisher z over the overlap, at each lag.

    Returns z (unit: the standard deviation that independent pixels would
    give) and marks lags with an overlap of fewer than `least` pixels by minus infinity.
    """
    a0, a1, a2 = sums0.shape[0] - 1, sums0.shape[1] - 1, sums0.shape[2] - 1
    b0, b1, b2 = sums1.shape[0] - 1, sums1.shape[1] - 1, sums1.shape[2] - 1
    m0, m1, m2 = surface.shape
    score = np.full((shape[0], shape[1], shape[2]), np.float32(-np.inf))
    for i in range(shape[0]):
        s0 = low[0] + i
        p0, p1 = max(0, s0), min(a0, b0 + s0)
        if p1 <= p0:
            continue
        for j in range(shape[1]):
            s1 = low[1] + j
            r0, r1 = max(0, s1), min(a1, b1 + s1)
            if r1 <= r0:
                continue
            line = surface[(s0 + offset[0]) % m0, (s1 + offset[1]) % m1]
            for k in range(shape[2]):
                s2 = low[2] + k
                c0, c1 = max(0, s2), min(a2, b2 + s2)
                if c1 <= c0:
                    continue
                count = np.float64(p1 - p0) * (r1 - r0) * (c1 - c0)
                if count < least or count < 4:
                    continue
                first = _box(sums0, p0, p1, r0, r1, c0, c1)
                second = _box(
                    sums1, p0 - s0, p1 - s0, r0 - s1, r1 - s1, c0 - s2, c1 - s2
                )
                var0 = _box(squares0, p0, p1, r0, r1, c0, c1) - first * first / count
                var1 = (
                    _box(squares1, p0 - s0, p1 - s0, r0 - s1, r1 - s1, c0 - s2, c1 - s2)
                    - second * second / count
                )
                if var0 <= 1e-6 * count or var1 <= 1e-6 * count:
                    score[i, j, k] = 0.0
                    continue
                ratio = (
                    line[(s2 + offset[2]) % m2] - first * second / count
                ) / math.sqrt(var0 * var1)
                ratio = min(max(ratio, -0.999999), 0.999999)
                score[i, j, k] = math.atanh(ratio) * math.sqrt(count)
    return score


@compiled
def local_maxima(score: AnyArray, floor: float) -> tuple[Ints, NDArray[np.float32]]:
    """Return the flat indices and heights of the local maxima above `floor`."""
    n0, n1, n2 = score.shape
    where = np.empty(score.size // 2 + 1, np.int64)
    height = np.empty(score.size // 2 + 1, np.float32)
    found = 0
    for p in range(n0):
        for r in range(n1):
            for c in range(n2):
                value = score[p, r, c]
                if value <= floor:
                    continue
                highest = True
                for q in range(max(p - 1, 0), min(p + 2, n0)):
                    for s in range(max(r - 1, 0), min(r + 2, n1)):
                        for t in range(max(c - 1, 0), min(c + 2, n2)):
                            other = score[q, s, t]
                            # Of equal neighbours the first counts.
                            if other > value or (
                                other == value
                                and (q * n1 + s) * n2 + t < (p * n1 + r) * n2 + c
                            ):
                                highest = False
                if highest and found < len(where):
                    where[found] = (p * n1 + r) * n2 + c
                    height[found] = value
                    found += 1
    return where[:found].copy(), height[:found].copy()


@compiled
def circular_peaks(surface: AnyArray, floor: float) -> tuple[Ints, NDArray[np.float32]]:
    """Return indices and heights of the local maxima of a periodic surface."""
    n0, n1, n2 = surface.shape
    where = np.empty(surface.size // 2 + 1, np.int64)
    height = np.empty(surface.size // 2 + 1, np.float32)
    found = 0
    for p in range(n0):
        for r in range(n1):
            line = surface[p, r]
            for c in range(n2):
                value = line[c]
                if value <= floor:
                    continue
                if line[c - 1] > value or line[(c + 1) % n2] >= value:
                    continue
                highest = True
                for q in range(p - 1, p + 2):
                    for s in range(r - 1, r + 2):
                        other = surface[q % n0, s % n1]
                        if n0 == 1 and q != p:
                            continue
                        if s == r and q == p:
                            continue
                        for t in range(c - 1, c + 2):
                            if other[t % n2] > value:
                                highest = False
                if highest:
                    where[found] = (p * n1 + r) * n2 + c
                    height[found] = value
                    found += 1
    return where[:found].copy(), height[:found].copy()


@compiled
def parabola_tops(surface: AnyArray, indices: Ints, periodic: bool) -> Floats:
    """Return the offset of the top of a parabola through the neighbours of peaks."""
    offsets = np.zeros(indices.shape)
    heights = np.zeros(3)
    for row in range(len(indices)):
        for axis in range(3):
            size = surface.shape[axis]
            here = indices[row, axis]
            if size < 3 or (not periodic and (here == 0 or here == size - 1)):
                continue
            for n in range(3):
                p, r, c = indices[row, 0], indices[row, 1], indices[row, 2]
                at = (here + n - 1) % size
                p, r, c = (
                    (at if axis == 0 else p),
                    (at if axis == 1 else r),
                    (at if axis == 2 else c),
                )
                heights[n] = surface[p, r, c]
            left, top, right = heights[0], heights[1], heights[2]
            bend = left - 2 * top + right
            if bend < 0 and min(left, right) > -np.inf:
                offsets[row, axis] = min(max(0.5 * (left - right) / bend, -0.5), 0.5)
    return offsets


@compiled
def chance_level(
    height: float, chance: NDArray[np.floating[Any]], trials: int
) -> tuple[float, float]:
    """Return the probability that the best of `trials` chance maxima is as high.

    The tail of the chance maxima falls like a normal law, exp(-h**2 / 2 s**2);
    its scale s is measured on those that exceed a high level, and is returned too.
    """
    total = len(chance)
    if total == 0:
        return 1.0, 1.0
    if total < 8:
        power = 0.0
        for n in range(total):
            power += np.float64(chance[n]) * np.float64(chance[n])
        return 1.0, max(math.sqrt(power / total), 1e-9)
    kept = int(min(max(0.1 * total, 6), 200))
    best = _largest_squares(chance, kept + 1)
    level, over = best[0], 0.0
    for n in range(1, kept + 1):
        over += best[n]
    # The error of the mean of few excesses is put on the safe side.
    excess = (over / kept - level) * (1 + 2 / math.sqrt(kept))
    sigma = math.sqrt(max(excess / 2, 1e-18))
    if height * height > level:
        expected = trials * kept / total
        expected *= math.exp(max(-(height * height - level) / excess, -700.0))
    else:
        higher = 0
        for n in range(total):
            if np.float64(chance[n]) * np.float64(chance[n]) > height * height:
                higher += 1
        expected = trials * (higher / total)
    return max(-math.expm1(-expected), FAINTEST), sigma


@compiled
def _largest_squares(values: NDArray[np.floating[Any]], count: int) -> Floats:
    """Return the largest squares of many values, the least of them first."""
    # A heap: its first entry is the least, and an entry is at most its two children.
    heap = np.zeros(count)
    for n in range(count):
        heap[n] = -1.0
    for n in range(len(values)):
        square = np.float64(values[n]) * np.float64(values[n])
        if not square > heap[0]:
            continue
        at, child = 0, 1
        while child < count:
            if child + 1 < count and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= square:
                break
            heap[at] = heap[child]
            at, child = child, 2 * child + 1
        heap[at] = square
    return heap

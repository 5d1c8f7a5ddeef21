"""Search windows of one shape, all of a batch at once."""

import math
from typing import NamedTuple

import numpy as np

from .._shared.arrays import Flags, Floats, Ints, Spectrum, Volume, VolumePair
from .._shared.compiled import compiled
from .._shared.fft import fast_shape, forward_stack, frequencies, inverse_stack
from .._spectral.peaks import SEPARATION, chance_level, circular_peaks, parabola_tops
from .._spectral.ring_kernels import (
    WHITENING_MODES,
    ring_whitening,
    rings_of,
    whiten_modes,
)
from .._spectral.tapers import search_taper, taper_block
from .search import ALONE, CERTAIN, RIVALS, chance_of_places, place_side

__all__ = ["count_pixels", "search_windows", "trim_windows"]


# A window is trimmed while it keeps this share of the pixels that count
# (test_windows_are_cut_to_what_counts).
KEPT = 0.75


# A second peak that chance explains with less than this probability may be a copy of
# the first (test_windows_searched_together_or_alone_say_the_same).
BY_CHANCE = 0.05


@compiled
def count_pixels(first: Volume, second: Volume, low: Ints, high: Ints) -> Ints:
    """Count pixels that are finite in both images, in each window."""
    counts = np.zeros(len(low), np.int64)
    for w in range(len(low)):
        for p in range(low[w, 0], high[w, 0]):
            for r in range(low[w, 1], high[w, 1]):
                for c in range(low[w, 2], high[w, 2]):
                    if abs(first[p, r, c] + second[p, r, c]) < np.inf:
                        counts[w] += 1
    return counts


@compiled
def trim_windows(
    first: Volume, second: Volume, low: Ints, high: Ints, counts: Ints
) -> Flags:
    """Cut sides off windows, in place, until all of their pixels count.

    Returns which windows are whole now; the others are left as they were.
    """
    whole = np.ones(len(low), np.bool_)
    for w in range(len(low)):
        start, stop = low[w].copy(), high[w].copy()
        size = stop - start
        if size.prod() == counts[w]:
            continue
        # What does not count in each line of pixels across each axis.
        holes = np.zeros((3, size.max()), np.int64)
        for p in range(start[0], stop[0]):
            for r in range(start[1], stop[1]):
                for c in range(start[2], stop[2]):
                    if not abs(first[p, r, c] + second[p, r, c]) < np.inf:
                        holes[0, p - start[0]] += 1
                        holes[1, r - start[1]] += 1
                        holes[2, c - start[2]] += 1
        left = size.prod() - counts[w]
        while left > 0 and size.prod() > KEPT * counts[w]:
            worst, chosen, end = -1.0, 0, 0
            for axis in range(3):
                for side in range(2):
                    at = (start if side == 0 else stop - 1)[axis] - low[w, axis]
                    share = holes[axis, at] * size[axis] / size.prod()
                    if size[axis] > 1 and share > worst:
                        worst, chosen, end = share, axis, side
            at = start[chosen] if end == 0 else stop[chosen] - 1
            if end == 0:
                start[chosen] += 1
            else:
                stop[chosen] -= 1
            size = stop - start
            # The line that is cut off takes its holes along.
            line_low, line_high = start.copy(), stop.copy()
            line_low[chosen], line_high[chosen] = at, at + 1
            for p in range(line_low[0], line_high[0]):
                for r in range(line_low[1], line_high[1]):
                    for c in range(line_low[2], line_high[2]):
                        if not abs(first[p, r, c] + second[p, r, c]) < np.inf:
                            holes[0, p - low[w, 0]] -= 1
                            holes[1, r - low[w, 1]] -= 1
                            holes[2, c - low[w, 2]] -= 1
                            left -= 1
        whole[w] = left == 0 and size.prod() > KEPT * counts[w]
        if whole[w]:
            low[w], high[w] = start, stop
    return whole


@compiled
def taper_windows(
    image: Volume,
    low: Ints,
    block: Ints,
    taper0: Floats,
    taper1: Floats,
    taper2: Floats,
    canvas: Volume,
) -> Flags:
    """Write windows that fade out at their edges; returns which show anything."""
    textured = np.zeros(len(low), np.bool_)
    for w in range(len(low)):
        taper_block(image, low[w], block, taper0, taper1, taper2, canvas[w])
        start, stop = low[w], low[w] + block
        least = most = image[start[0], start[1], start[2]]
        for p in range(start[0], stop[0]):
            for r in range(start[1], stop[1]):
                for c in range(start[2], stop[2]):
                    least = min(least, image[p, r, c])
                    most = max(most, image[p, r, c])
        rounding = np.finfo(np.float32).eps * max(abs(least), abs(most))
        textured[w] = 0.5 * (most - least) > 4 * rounding
    return textured


@compiled
def whiten_windows(
    spectra: Spectrum, freq0: Floats, freq1: Floats, freq2: Floats, edges: Floats
) -> None:
    """Turn the first of each two spectra into their prewhitened cross-spectrum."""
    for w in range(len(spectra)):
        one, other = spectra[w, 0], spectra[w, 1]
        gain, limit = ring_whitening(one, other, freq0, freq1, freq2, edges, 1.0, 1.0)
        for i in range(2):
            whiten_modes(spectra[w, i], freq0, freq1, freq2, edges, gain[i], limit[i])
        for p in range(one.shape[0]):
            for r in range(one.shape[1]):
                for c in range(one.shape[2]):
                    one[p, r, c] *= np.conj(other[p, r, c])


@compiled
def rank_peaks(surfaces: Volume) -> Floats:
    """Return what the highest peak of each circular correlation says.

    Columns are its shift (3), the smaller of the two that each axis allows; its height
    and that of the next peak in deviations of chance; the probability that
    chance alone is as high, for both.
    """
    told = np.zeros((len(surfaces), 7))
    told[:, 5].fill(1.0)
    told[:, 6].fill(1.0)
    n0, n1, n2 = surfaces.shape[1:]
    period = np.array([n0, n1, n2])
    for w in range(len(surfaces)):
        surface = surfaces[w]
        total = 0.0
        for p in range(n0):
            for r in range(n1):
                line = np.float32(0)
                for c in range(n2):
                    line += surface[p, r, c] * surface[p, r, c]
                total += np.float64(line)
        if not total > 0:
            continue
        where, height = circular_peaks(surface, 2.0 * math.sqrt(total / surface.size))
        if len(where) < 8:
            continue
        top = where[np.argmax(height)]
        at = np.array([[top // (n1 * n2), top // n2 % n1, top % n2]])
        far = np.zeros(len(where), np.bool_)
        second = np.float32(0)
        for n in range(len(where)):
            apart = 0
            lag = where[n] // (n1 * n2), where[n] // n2 % n1, where[n] % n2
            for axis in range(3):
                step = (lag[axis] - at[0, axis]) % period[axis]
                apart = max(apart, min(step, period[axis] - step))
            far[n] = apart > 2 * SEPARATION
            if apart > SEPARATION:
                second = max(second, height[n])
        trials = len(height)
        for axis in range(3):
            if period[axis] > 1:
                trials *= 2
        first = np.float64(height.max())
        alarm, sigma = chance_level(first, height[far], trials)
        tops = parabola_tops(surface, at, True)
        for axis in range(3):
            half = period[axis] // 2
            lag = (at[0, axis] + half) % period[axis] - half
            told[w, axis] = tops[0, axis] + lag
        told[w, 3] = first / sigma
        told[w, 4] = second / sigma
        told[w, 5] = alarm
        told[w, 6] = chance_level(np.float64(second), height[far], trials)[0]
    return told


@compiled
def count_places(
    first: Volume, second: Volume, low: Ints, block: Ints, lags: Ints, side: int
) -> Floats:
    """Return how many equal places would make up the match of each window at a lag.

    Places are cells with so many pixels along each side.
    """
    places = np.zeros(len(low))
    cells = (block + side - 1) // side
    for w in range(len(low)):
        start = np.maximum(lags[w], 0)
        size = np.maximum(block - np.abs(lags[w]), 0)
        one, other = low[w] + start, low[w] + start - lags[w]
        mean0 = mean1 = 0.0
        for p in range(size[0]):
            for r in range(size[1]):
                a = first[one[0] + p, one[1] + r]
                b = second[other[0] + p, other[1] + r]
                sum0 = sum1 = np.float32(0)
                for c in range(size[2]):
                    sum0 += a[one[2] + c]
                    sum1 += b[other[2] + c]
                mean0 += np.float64(sum0)
                mean1 += np.float64(sum1)
        mean0 /= max(size.prod(), 1)
        mean1 /= max(size.prod(), 1)
        table = np.zeros((cells[0], cells[1], cells[2]))
        for p in range(size[0]):
            for r in range(size[1]):
                a = first[one[0] + p, one[1] + r]
                b = second[other[0] + p, other[1] + r]
                row = table[p // side, r // side]
                for c in range(size[2]):
                    row[c // side] += (a[one[2] + c] - mean0) * (
                        b[other[2] + c] - mean1
                    )
        squares = (table * table).sum()
        if squares > 0 and table.sum() > 0:
            places[w] = table.sum() ** 2 / squares
    return places


class PeakRanks(NamedTuple):
    """What `rank_peaks` tells of each window beside the shift, in its order."""

    first: Floats  # height in deviations of chance
    second: Floats
    alarm: Floats  # probability that chance alone is as high
    second_alarm: Floats


class WindowPeaks(NamedTuple):
    """The highest peak of each window, and whether it is beyond doubt."""

    shift: Floats  # (n, 3), to about 0.1 px
    false_alarm: Floats
    sure: Flags


def search_windows(
    images: VolumePair, low: Ints, block: Ints, reach: Ints
) -> WindowPeaks:
    """Look for the shift of each window in one circular correlation."""
    shape = fast_shape(tuple(block.tolist()))
    canvas = np.zeros((len(low), 2, *shape), np.float32)
    tapers = [search_taper(size) for size in block.tolist()]
    sure = np.ones(len(low), np.bool_)
    for side, image in enumerate(images):
        out = canvas[:, side]
        sure &= taper_windows(image, low, block, tapers[0], tapers[1], tapers[2], out)
    spectra = forward_stack(canvas)
    edges = rings_of(shape, shape, 1.0, WHITENING_MODES)
    whiten_windows(spectra, *frequencies(shape), edges)
    table = rank_peaks(inverse_stack(spectra[:, 0], shape))
    shift, told = table[:, :3], PeakRanks(*table[:, 3:].T)
    sure &= (told.alarm <= CERTAIN) & (told.second <= ALONE * told.first)
    sure &= (told.second < RIVALS * told.first) | (told.second_alarm > BY_CHANCE)
    # The smaller of two shifts that differ by a wrap is the only one within reach.
    bound = np.where(np.array(shape) > 1, np.minimum(reach, shape - reach), 1)
    sure &= (np.abs(shift) < bound).all(axis=1)
    alarm = told.alarm
    few = np.flatnonzero(sure)
    if len(few):
        alarm[few] = np.maximum(
            alarm[few],
            _chance_of_few_places(images, low[few], block, shift[few], reach),
        )
        sure &= alarm <= CERTAIN
    return WindowPeaks(shift, alarm, sure)


def _chance_of_few_places(
    images: VolumePair, low: Ints, block: Ints, shift: Floats, reach: Ints
) -> Floats:
    """Return the probability that few things on a plain ground meet by accident."""
    side = place_side(block)
    lags = np.rint(shift).astype(np.intp)
    places = count_places(*images, low, block, lags, side)
    return chance_of_places(places, side, 2 * reach + 1)

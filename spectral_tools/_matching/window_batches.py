"""Search and fit windows of one shape, all of a batch at once."""

import math
from typing import NamedTuple

import numpy as np

from .._shared.arrays import Flags, Floats, Ints, Spectrum, Volume
from .._shared.compiled import compiled
from .._shared.fft import fast_shape, forward_stack, frequencies, inverse_stack
from .._spectral.gain_gradient import gain_slopes
from .._spectral.peaks import SEPARATION, chance_level, circular_peaks, parabola_tops
from .._spectral.phase_fit_kernels import STEP, fit_step, name_step, ring_sums
from .._spectral.ring_kernels import (
    WHITENING_MODES,
    ring_whitening,
    rings_of,
    whiten_modes,
)
from .._spectral.tapers import (
    edge_taper,
    fade_blocks,
    rim_slopes,
    search_taper,
    short_axes,
    taper_block,
    taper_width,
)
from .search import ALONE, CERTAIN, RIVALS, chance_of_places, place_side
from .shift_fit import (
    NEWTON_STEPS,
    REMAINDER,
    SLOW,
    SLOWEST,
    STEP_FLOOR,
    STEP_SIGMAS,
    nearest_whole,
    uncertainty_factor,
)

__all__ = ["count_pixels", "fit_windows", "search_windows", "trim_windows"]


# A window is trimmed while it keeps this share of the pixels that count
# (test_windows_are_cut_to_what_counts).
KEPT = 0.75

Volumes = tuple[Volume, Volume]

# A second peak that chance explains with less than this probability may be a copy of
# the first (test_windows_searched_together_or_alone_say_the_same).
BY_CHANCE = 0.05
# A fit that moves by more than this, in pixels, is still looking
# (test_displacements_of_tens_of_pixels_are_found).
ROUGH = 0.05


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


@compiled
def fade_windows(
    first: Volume,
    second: Volume,
    low0: Ints,
    low1: Ints,
    block: Ints,
    fraction: Floats,
    width: Floats,
    canvas: Volume,
) -> Floats:
    """Write windows of both images, faded at their edges, as `fade_blocks` does."""
    sums = np.empty((len(low0), 5))
    for w in range(len(low0)):
        gain = gain_slopes(first, second, low0[w], low1[w], block)
        sums[w] = fade_blocks(
            first, second, low0[w], low1[w], block, fraction[w], width, gain, canvas[w]
        )
    return sums


@compiled
def fit_fractions(
    spectra: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    even: bool,
    modes: int,
    sums: Floats,
    before: Floats,
    edges: Floats,
    width: Floats,
    active: Flags,
    short: Floats,
    first_rough: Ints,
) -> Floats:
    """Fit the fractions of shifts for tapers that stay, from the fractions before.

    The columns are those of `STEP`, with where tapers that follow would be for the step.
    """
    told = np.zeros((len(spectra), STEP.width))
    for w in range(len(spectra)):
        share = sums[w, 0] ** 2 / sums[w, 1] / modes
        rims = rim_slopes(edges, sums[w, 2:].copy(), width)
        shift = before[w].copy()
        rough = first_rough[w]
        for _ in range(NEWTON_STEPS):
            table = ring_sums(
                spectra[w, 0], spectra[w, 1], freq0, freq1, freq2, even, shift, edges
            )
            step = fit_step(table, share, rims, active, True, rough)
            told[w, STEP.fitted] = step[STEP.fitted]
            if not step[STEP.fitted]:
                break
            least, taken, moved = np.inf, 0.0, 0.0
            for axis in range(3):
                if active[axis]:
                    least = min(least, step[STEP.covariance + 4 * axis] + short[axis])
                taken = max(taken, abs(step[axis]))
                shift[axis] += min(max(step[axis], -0.4), 0.4)
                moved = max(moved, abs(shift[axis] - before[w, axis]))
            enough = max(STEP_FLOOR, STEP_SIGMAS * math.sqrt(least))
            told[w, STEP.tolerance] = enough
            for column in range(STEP.covariance, STEP.fitted):
                told[w, column] = step[column]
            for axis in range(3):
                away = shift[axis] - before[w, axis]
                told[w, axis] = before[w, axis] + away * step[STEP.beyond + axis]
            # What the next tapers will change again need not be fitted.
            if REMAINDER * taken < max(enough, 0.05 * moved) and rough < 2:
                break
            rough = max(rough - 1, 0)
        for axis in range(3):
            told[w, STEP.covariance + 4 * axis] += short[axis]
    return told


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


class WindowFits(NamedTuple):
    """What fits found; a window that is not `done` has to be looked at alone."""

    shift: Floats
    covariance: Floats
    correlation: Floats
    significance: Floats
    found: Flags
    done: Flags


def search_windows(images: Volumes, low: Ints, block: Ints, reach: Ints) -> WindowPeaks:
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
    images: Volumes, low: Ints, block: Ints, shift: Floats, reach: Ints
) -> Floats:
    """Return the probability that few things on a plain ground meet by accident."""
    side = place_side(block)
    lags = np.rint(shift).astype(np.intp)
    places = count_places(*images, low, block, lags, side)
    return chance_of_places(places, side, 2 * reach + 1)


def fit_windows(
    images: Volumes,
    low: Ints,
    block: Ints,
    start: Floats,
    *,
    rough: int,
    rounds: int,
) -> WindowFits:
    """Refine the shifts `start` of windows, as `fit_shift` does for one.

    The windows of the moving image move by whole pixels with their content, so that
    no pixel of those of the reference is lost; one that leaves the image, or meets
    pixels that do not count, is not done.
    """
    count = len(low)
    active = np.array(images[0].shape) > 1
    shift, moved = start.copy(), np.full(count, np.inf)
    table, rest = np.zeros((count, STEP.width)), np.zeros((count, 3))
    done, going = np.ones(count, np.bool_), np.ones(count, np.bool_)
    whole = np.rint(shift)
    for number in range(rounds):
        whole = nearest_whole(shift, whole)
        second = low - whole.astype(np.intp)
        inside = _inside(images[1], second, block)
        done &= inside | ~going
        rows = np.flatnonzero(going & inside)
        if not len(rows):
            break
        level = np.where(moved[rows] > ROUGH, 1, 0) if number else rough
        step_rows = _newton_fit(
            images,
            (low[rows], second[rows]),
            block,
            shift[rows] - whole[rows],
            active,
            np.broadcast_to(level, len(rows)).astype(np.intp),
        )
        table[rows] = step_rows
        step = name_step(step_rows)
        goal = whole[rows] + step.step
        move = goal - shift[rows]
        taken = np.abs(move).max(axis=1)
        # Each round leaves about the same share of the error to the next.
        known = np.isfinite(moved[rows])
        share = np.where(known, np.minimum(taken / moved[rows], SLOWEST), REMAINDER)
        left = share / (1 - share)
        near = np.abs(goal - start[rows]).max(axis=1) <= SEPARATION + 1
        shift[rows] = goal
        table[rows, STEP.fitted] *= near
        moved[rows] = taken
        rest[rows] = move * left[:, np.newaxis]
        more = (taken * left >= step.tolerance) & step.fitted & near
        going[:] = False
        going[rows] = more
        slow = more & (left > SLOW / (1 - SLOW)) & (number + 1 < rounds)
        if slow.any():
            # Where that share is large the rounds to come are taken at once (Aitken).
            further = np.minimum(left, 0.3 / np.maximum(taken, 1e-12))[slow]
            shift[rows[slow]] += move[slow] * further[:, np.newaxis]
            moved[rows[slow]] = np.inf
    told = name_step(table)
    factor = np.array([uncertainty_factor(one) for one in told.significance.tolist()])
    # What further rounds would still change is not known.
    doubt = rest[:, :, np.newaxis] * rest[:, np.newaxis]
    return WindowFits(
        shift=shift,
        covariance=told.covariance * factor[:, None, None] + doubt,
        correlation=told.correlation,
        significance=told.significance,
        found=told.fitted,
        done=done,
    )


def _inside(image: Volume, low: Ints, block: Ints) -> Flags:
    """Tell which windows lie in an image and hold only pixels that count."""
    inside: Flags = np.all((low >= 0) & (low + block <= image.shape), axis=1)
    for row in np.flatnonzero(inside):
        window = tuple(map(slice, low[row], low[row] + block))
        # A sum is finite only if all that is summed is.
        inside[row] = math.isfinite(float(image[window].sum()))
    return inside


def _newton_fit(
    images: Volumes,
    low: tuple[Ints, Ints],
    block: Ints,
    fraction: Floats,
    active: Flags,
    rough: Ints,
) -> Floats:
    """Fit the fractions of shifts for tapers that stay."""
    shape = fast_shape(tuple(block.tolist()))
    canvas = np.zeros((len(fraction), 2, *shape), np.float32)
    width = np.array([taper_width(size) for size in block.tolist()])
    sums = fade_windows(*images, *low, block, fraction, width, canvas)
    modes = math.prod(shape)
    # The rings of all windows are those of windows that lie on each other.
    tapers = [
        edge_taper(size, each, 0.0) for size, each in zip(block, width, strict=True)
    ]
    squares = math.prod(float((taper**2).sum()) for taper in tapers)
    fourths = math.prod(float((taper**4).sum()) for taper in tapers)
    edges = rings_of(shape, tuple(block.tolist()), squares**2 / fourths / modes)
    return fit_fractions(
        forward_stack(canvas),
        *frequencies(shape),
        shape[2] % 2 == 0,
        modes,
        sums,
        fraction,
        edges,
        width,
        active,
        short_axes(block),
        rough,
    )

"""Search and fit windows of one shape, all of a batch at once."""

import math
from typing import NamedTuple

import numpy as np

from .._shared.arrays import Flags, Floats, Ints, Volume
from .._shared.fft import fast_shape, forward_stack, frequencies, inverse_stack
from .._spectral.ring_kernels import edge_taper, ring_edges
from .._spectral.tapers import short_axes, taper_width
from .phase_correlate import ALONE, CERTAIN, RIVALS, SPARSE
from .search import chance_of_places, place_side
from .shift_fit import (
    FARTHEST,
    FOLLOW,
    MOST,
    RING_MODES,
    RING_SHARE,
    SLOW,
    nearest_whole,
    uncertainty_factor,
)
from .window_kernels import (
    count_places,
    fade_windows,
    rank_peaks,
    settle_windows,
    taper_windows,
    whiten_windows,
)

__all__ = [
    "Fits",
    "Peaks",
    "fit_windows",
    "search_windows",
]

Volumes = tuple[Volume, Volume]

# A second peak as unlikely as this by chance may be a copy of the first.
COPY = 0.05
# A fit that moves by more than this, in pixels, is still looking.
ROUGH = 0.05


class Peaks(NamedTuple):
    """The highest peak of each window, and whether it is beyond doubt."""

    shift: Floats  # (n, 3), to about 0.1 px
    false_alarm: Floats
    sure: Flags


class Fits(NamedTuple):
    """What fits found; a window that is not `done` has to be looked at alone."""

    shift: Floats
    covariance: Floats
    correlation: Floats
    significance: Floats
    found: Flags
    done: Flags


def search_windows(images: Volumes, low: Ints, block: Ints, reach: Ints) -> Peaks:
    """Look for the shift of each window in one circular correlation."""
    shape = fast_shape(tuple(block.tolist()))
    canvas = np.zeros((len(low), 2, *shape), np.float32)
    tapers = [
        edge_taper(size, min(max(0.04 * size, 4.0), size / 4), 0.0)
        for size in block.tolist()
    ]
    sure = np.ones(len(low), np.bool_)
    for side, image in enumerate(images):
        out = canvas[:, side]
        sure &= taper_windows(image, low, block, tapers[0], tapers[1], tapers[2], out)
    spectra = forward_stack(canvas)
    long = [size for size in shape if size > 1]
    width = math.prod(long) ** (-1 / len(long))
    edges = ring_edges(np.array(shape), width, 1.0, 8.0, 0.1)
    whiten_windows(spectra, *frequencies(shape), edges)
    told = rank_peaks(inverse_stack(spectra[:, 0], shape))
    shift = told[:, :3]
    sure &= (told[:, 5] <= CERTAIN) & (told[:, 4] <= ALONE * told[:, 3])
    sure &= (told[:, 4] < RIVALS * told[:, 3]) | (told[:, 6] > COPY)
    # The smaller of two shifts that differ by a wrap is the only one within reach.
    bound = np.where(np.array(shape) > 1, np.minimum(reach, shape - reach), 1)
    sure &= (np.abs(shift) < bound).all(axis=1)
    alarm = told[:, 5]
    few = np.flatnonzero(sure & (told[:, 7] < SPARSE * math.prod(block.tolist())))
    if len(few):
        alarm[few] = np.maximum(
            alarm[few], _few_places(images, low[few], block, shift[few], reach)
        )
        sure &= alarm <= CERTAIN
    return Peaks(shift, alarm, sure)


def _few_places(
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
) -> Fits:
    """Refine the shifts `start` of windows, as `fit_shift` does for one.

    The windows of the moving image move by whole pixels with their content, so that
    no pixel of those of the reference is lost; one that leaves the image, or meets
    pixels that do not count, is not done.
    """
    count = len(low)
    active = np.array(images[0].shape) > 1
    shift, moved = start.copy(), np.full(count, np.inf)
    told, rest = np.zeros((count, 16)), np.zeros((count, 3))
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
        step = _settled(
            images,
            (low[rows], second[rows]),
            block,
            shift[rows] - whole[rows],
            active,
            np.broadcast_to(level, len(rows)).astype(np.intp),
        )
        told[rows] = step
        goal = whole[rows] + step[:, :3]
        move = goal - shift[rows]
        taken = np.abs(move).max(axis=1)
        # Each round leaves about the same share of the error to the next.
        known = np.isfinite(moved[rows])
        share = np.where(known, np.minimum(taken / moved[rows], MOST), FOLLOW)
        left = share / (1 - share)
        near = np.abs(goal - start[rows]).max(axis=1) <= FARTHEST
        shift[rows] = goal
        told[rows, 15] *= near
        moved[rows] = taken
        rest[rows] = move * left[:, np.newaxis]
        more = (taken * left >= step[:, 14]) & (told[rows, 15] > 0)
        going[:] = False
        going[rows] = more
        slow = more & (left > SLOW / (1 - SLOW)) & (number + 1 < rounds)
        if slow.any():
            # Where that share is large the rounds to come are taken at once (Aitken).
            further = np.minimum(left, 0.3 / np.maximum(taken, 1e-12))[slow]
            shift[rows[slow]] += move[slow] * further[:, np.newaxis]
            moved[rows[slow]] = np.inf
    significance = told[:, 13]
    factor = np.array([uncertainty_factor(one) for one in significance.tolist()])
    # What further rounds would still change is not known.
    doubt = rest[:, :, np.newaxis] * rest[:, np.newaxis]
    return Fits(
        shift=shift,
        covariance=told[:, 3:12].reshape(-1, 3, 3) * factor[:, None, None] + doubt,
        correlation=told[:, 12],
        significance=significance,
        found=told[:, 15] > 0,
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


def _settled(
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
    long = [size for size in block.tolist() if size > 1]
    # The rings of all windows are those of windows that lie on each other.
    tapers = [
        edge_taper(size, each, 0.0) for size, each in zip(block, width, strict=True)
    ]
    squares = math.prod(float((taper**2).sum()) for taper in tapers)
    fourths = math.prod(float((taper**4).sum()) for taper in tapers)
    edges = ring_edges(
        np.array(shape),
        math.prod(long) ** (-1 / len(long)),
        squares**2 / fourths / modes,
        RING_MODES,
        RING_SHARE,
    )
    return settle_windows(
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

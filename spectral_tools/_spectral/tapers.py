"""Blocks of two images that fade out at their edges, with their content."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import AnyArray, Flags, Floats, Ints
from .._shared.compiled import compiled
from .._shared.ndimage import distance_transform_edt, shift_image
from .gain_gradient import gain_slopes

__all__ = [
    "OWN",
    "RING",
    "SEARCH_TAPER_WIDTH",
    "TAPER_FRACTION",
    "TAPER_WIDTH",
    "block_tapers",
    "edge_taper",
    "fade_blocks",
    "fade_masked",
    "rim_shares",
    "rim_slopes",
    "search_taper",
    "short_axes",
    "taper_block",
    "taper_width",
    "taper_widths",
    "trust_rings",
]


# Width of a taper as a share of its side: thin, because each pixel that fades is lost
# (test_crops_come_close_to_the_bound).
TAPER_FRACTION = 0.04
# Least width of the tapers of a fit, in pixels: steeper edges no longer follow the
# content exactly (test_fractions_are_not_pulled_to_whole_pixels).
TAPER_WIDTH = 6.0
# Least width of the tapers of a search, in pixels: a peak needs no fraction, but narrow
# strips need their pixels (test_many_narrow_strips_are_found_deep_in_noise).
SEARCH_TAPER_WIDTH = 4.0


class RingColumns(NamedTuple):
    """Where a table of ring sums holds what; of several numbers, the first."""

    modes: int  # their number
    power0: int  # of both images
    power1: int
    common: int  # real part of the cross-spectrum
    slope: int  # of its phase, by axis (3)
    curvature: int  # mean power times k k^T (6: 00 01 02 11 12 22)
    square: int  # squared slopes, likewise (6)
    width: int


RING = RingColumns(0, 1, 2, 3, 4, 7, 13, 19)
# Columns of the curvature along each axis.
OWN = (RING.curvature, RING.curvature + 3, RING.curvature + 5)
# A ring counts in full if less than this share of its slope is the window's, which is
# known to a factor of two (test_crops_come_close_to_the_bound).
FREE = 0.4
# Beyond this share it does not count (test_rings_of_the_window_alone_are_not_trusted).
FRAMED = 0.8


@compiled
def edge_taper(size: int, width: float, shift: float) -> Floats:
    """Return weights that fall to zero over `width` px at both ends, moved by `shift`."""
    weights = np.zeros(size)
    for index in range(size):
        weight = 1.0
        depth = min(index - shift + 0.5, size - 0.5 - index + shift) / width
        if depth < 1 and size > 1:
            rise = math.sin(0.5 * math.pi * max(depth, 0.0))
            weight = rise * rise
        weights[index] = weight
    return weights


@compiled
def taper_block(
    image: AnyArray,
    start: Ints,
    shape: Ints,
    taper0: Floats,
    taper1: Floats,
    taper2: Floats,
    out: AnyArray,
) -> None:
    """Write a tapered block of `image`, less its weighted mean, into `out`."""
    columns = np.empty(shape[2], np.float32)
    sum0 = sum1 = sum2 = total = 0.0
    for c in range(shape[2]):
        columns[c] = taper2[c]
        sum2 += taper2[c]
    for r in range(shape[1]):
        sum1 += taper1[r]
    for p in range(shape[0]):
        sum0 += taper0[p]
        for r in range(shape[1]):
            line = image[start[0] + p, start[1] + r, start[2] : start[2] + shape[2]]
            partial = np.float32(0)
            for c in range(shape[2]):
                partial += columns[c] * line[c]
            total += taper0[p] * taper1[r] * partial
    mean = np.float32(total / (sum0 * sum1 * sum2))
    for p in range(shape[0]):
        for r in range(shape[1]):
            line = image[start[0] + p, start[1] + r, start[2] : start[2] + shape[2]]
            row = out[p, r]
            weight = np.float32(taper0[p] * taper1[r])
            for c in range(shape[2]):
                row[c] = (line[c] - mean) * (weight * columns[c])


@compiled
def fade_blocks(
    first: AnyArray,
    second: AnyArray,
    start0: Ints,
    start1: Ints,
    block: Ints,
    fraction: Floats,
    width: Floats,
    gain: Floats,
    canvas: AnyArray,
) -> Floats:
    """Write what two images share, faded at the edges, into the two halves of `canvas`.

    The tapers lie `fraction` apart, and even out a gain of the second image with
    slopes `gain`. Returns the sum of the product of the two windows,
    that of its square, and how steep the first is on each axis.
    """
    sums = np.zeros(5)
    sums[0] = sums[1] = 1.0
    longest = max(block[0], block[1], block[2])
    tapers = np.zeros((6, longest))
    for axis in range(3):
        size = block[axis]
        shift = 0.5 * fraction[axis]
        one = edge_taper(size, width[axis], shift)
        other = edge_taper(size, width[axis], -shift)
        common = squares = slope = own = before = 0.0
        for index in range(size):
            product = one[index] * other[index]
            common += product
            squares += product * product
            step = one[index] - before if index else 0.0
            before = one[index]
            slope += step * step
            own += before * before
            half = 0.5 * gain[axis] * (index - 0.5 * (size - 1))
            tapers[axis, index] = before * (1 + half)
            tapers[3 + axis, index] = other[index] * (1 - half)
        sums[0] *= common
        sums[1] *= squares
        sums[2 + axis] = slope / max(own, 1e-30)
    taper_block(first, start0, block, tapers[0], tapers[1], tapers[2], canvas[0])
    taper_block(second, start1, block, tapers[3], tapers[4], tapers[5], canvas[1])
    return sums


def block_tapers(
    block: NDArray[np.intp], fraction: NDArray[np.float64], side: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    first, second, third = (
        edge_taper(size, taper_width(size), side * moved)
        for size, moved in zip(block.tolist(), fraction, strict=True)
    )
    return first, second, third


def fade_masked(
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    starts: list[NDArray[np.intp]],
    block: NDArray[np.intp],
    fraction: NDArray[np.float64],
    canvas: NDArray[np.float32],
) -> Floats:
    """Do as `fade_blocks` does, where pixels that do not count fade out too."""
    parts = [tuple(map(slice, start, start + block)) for start in starts]
    common = valid[0][parts[0]] & valid[1][parts[1]]
    nowhere = np.zeros(3, np.intp)
    shared = (images[0][parts[0]] * common, images[1][parts[1]] * common)
    gain = gain_slopes(*shared, nowhere, nowhere, block)
    # A hole must stay out of both blocks wherever the taper moves to.
    depth = distance_transform_edt(common) - 1.0 if not common.all() else None
    inside = tuple(map(slice, block))
    windows = []
    for side, image, part, out in zip((0.5, -0.5), images, parts, canvas, strict=True):
        first, second, third = block_tapers(block, fraction, side)
        window = first[:, None, None] * second[:, None] * third
        if depth is not None:
            fade = np.sin(0.5 * np.pi * np.clip(depth / TAPER_WIDTH, 0, 1)) ** 2
            window = window * shift_image(fade, side * fraction, order=1) * common
        # What fades out is taken off, or it would tell the outline of the mask.
        rim = window * (1 - window / max(float(window.max()), 1e-30))
        rim = window if not rim.any() else rim
        cut = image[part]
        level = float((cut * rim).sum() / max(float(rim.sum()), 1e-30))
        even = _even(block, side * gain)
        out[inside] = (cut - level) * window * even
        windows.append(window)
    product = windows[0] * windows[1]
    sides = [_steepness(windows[0], axis) for axis in range(3)]
    return np.array([product.sum(), (product * product).sum(), *sides])


def _even(block: NDArray[np.intp], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what evens out a gain with the given slopes."""
    first, second, third = (
        1 + slope * (np.arange(size) - 0.5 * (size - 1))
        for size, slope in zip(block, slopes, strict=True)
    )
    return first[:, None, None] * second[:, None] * third


def taper_width(size: int, least: float = TAPER_WIDTH, most: float = 0.5) -> float:
    """Return how wide the taper of a side is, in pixels; at most a share of the side."""
    return min(max(TAPER_FRACTION * size, least), most * size)


def taper_widths(block: Ints) -> Floats:
    """Return how wide the tapers of a block are along each axis, in pixels."""
    return np.array([taper_width(size) for size in block.tolist()])


def search_taper(size: int) -> Floats:
    """Return the weights with which a side fades out for the search of a shift."""
    return edge_taper(size, taper_width(size, SEARCH_TAPER_WIDTH, 0.25), 0.0)


def short_axes(block: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the variance that each axis adds for being short."""
    return np.array([_shortness(size) for size in block.tolist()])


def _shortness(size: int) -> float:
    """Return the variance that a taper too steep to follow adds, as measured.

    A block of 5 planes is right to 0.17 px, of 8 to 0.012 px, without any noise.
    """
    if size == 1 or size >= 2 * TAPER_WIDTH:
        return 0.0
    return (0.2 * math.exp(-1.8 * (taper_width(size) - 2))) ** 2


def _steepness(weights: NDArray[np.float64], axis: int) -> float:
    if weights.shape[axis] < 2:
        return 0.0
    slope = np.diff(weights, axis=axis)
    return float((slope * slope).sum() / max((weights * weights).sum(), 1e-30))


@compiled
def rim_slopes(edges: Floats, sides: Floats, width: Floats) -> Floats:
    """Return how the squared slope of a window is spread over rings, for each axis.

    `sides` is its mean square slope over its mean square, `width` that of its
    edges, which rise like half a period of a squared sine.
    """
    spread = np.zeros((len(edges), 3))
    low = 0.0
    for ring in range(len(edges)):
        high = math.sqrt(edges[ring])
        for axis in range(3):
            # The power of half a period of a sine, but for its zeros, which a scene
            # blurs; at high frequencies rather more than less.
            phase = (low + high) * width[axis]
            square = phase * phase
            power = 16 / math.pi**2 * width[axis] / (1 + square * (0.2 + 0.5 * square))
            spread[ring, axis] = sides[axis] * power * (high - low)
        low = high
    return spread


@compiled
def rim_shares(table: Floats, power: Floats, smooth: Floats, rims: Floats) -> Floats:
    """Return the share of the slope of each ring that is the window's, not the scene's.

    Where a window fades, the scene times the slope of the window (`rims`, spread over
    rings) adds to each ring: what coarser rings send there, and what stays of its own.
    """
    rings = len(power)
    shares = np.zeros((rings, 3))
    near = np.zeros(3)
    coarser = 0.0
    for ring in range(rings):
        own = smooth[ring] * power[ring]
        mean = 0.5 * (table[ring, RING.power0] + table[ring, RING.power1])
        for axis in range(3):
            near[axis] += rims[ring, axis]
            told = own * table[ring, OWN[axis]]
            if told > 0:
                frame = near[axis] * own + rims[ring, axis] * coarser
                shares[ring, axis] = min(frame * mean / told, 1.0)
        coarser += own
    return shares


@compiled
def trust_rings(shares: Floats, active: Flags) -> Floats:
    """Return how far each ring may tell a shift, 0 to 1.

    What the window puts into a ring moves with the window: it tells where the window
    was put, and with great certainty where the scene is smooth and noise is faint.
    """
    trust = np.zeros(len(shares))
    axes = 0
    for axis in range(3):
        axes += active[axis]
    for ring in range(len(shares)):
        share = (shares[ring, 0] + shares[ring, 1] + shares[ring, 2]) / axes
        free = min(max((FRAMED - share) / (FRAMED - FREE), 0.0), 1.0)
        trust[ring] = free * free
    return trust

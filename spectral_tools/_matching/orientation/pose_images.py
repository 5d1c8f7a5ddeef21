"""What is kept of an image to find its pose in any other.

A sketch is made once for each image; a pair of sketches then costs neither a
transform of an image nor a look at its mask.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._sampling.downsample import block_means, known_block_means
from ..._sampling.splines import (
    gather_spline,
    prefilter,
    smooth,
    smooth_margin,
    spline_margin,
    spline_weights,
)
from ..._shared.arrays import Floats, Image, Plane
from ..._shared.compiled import compiled
from ..._shared.fft import fast_shape, forward
from ..._shared.ndimage import distance_transform_edt
from ..._spectral.ring_kernels import whiten_images
from ..._spectral.tapers import TAPER_FRACTION, TAPER_WIDTH, edge_taper
from ..image_area import prepare_image

__all__ = [
    "RAYS",
    "SPLINE_ORDER",
    "STEP",
    "Sketch",
    "SplineImage",
    "make_sketch",
    "make_spline_image",
    "resample_onto",
    "sample_turned",
    "tapered_pair",
]


# Order of the splines that are sampled: cubic ones leave errors of 1 % at fine detail
# (test_rotation_at_30_db_is_known_to_a_thousandth_of_a_degree).
SPLINE_ORDER = 5
# Large bright and dark parts that are cut off by a window would look like detail that
# stays where the window is. So what is coarser than a Gaussian of this standard deviation,
# in pixels, is taken off before (test_errors_are_as_large_as_the_covariance_says).
COARSE = 1.0
# That is uncertain within so many pixels of the border (test_partial_overlap_is_enough).
MARGIN = 1.5
SMOOTH_MARGIN = smooth_margin(COARSE)


# Rays in half a turn: neighbours differ by a third of a degree, which a fit mends
# (test_any_angle_is_found).
RAYS = 512
# Step of the angle and of the logarithm of the frequency.
STEP = math.pi / RAYS
# Lowest frequency of the map, in cycles per pixel; the highest is Nyquist's
# (test_scale_is_found).
LOWEST = 0.03
# The map is as long again as this, so that scales of up to e**1.6 do not wrap; it is
# then 720 long, which transforms fast (test_scale_is_found).
ROOM = 261
# Mean side of the images in which an orientation is sought, in pixels
# (bench_orientation: ms).
SKETCH_SIDE = 288
# Mean side of those in which a shift is sought for each turn, in pixels
# (bench_orientation: ms).
THUMB_SIDE = 160
# Share of each side over which the window of a spectrum falls off at both ends
# (bench_orientation: scaled, 10 dB).
FALL = 0.15
# A mode counts up to this many times the mean amplitude of its ring
# (test_turned_lattices_are_ambiguous).
CAP = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplineImage:
    """An image that is ready to be turned."""

    pixels: Plane  # zero where it does not count
    sharp: Plane  # without what is coarse
    box: Plane  # coefficients of its spline, and of what surrounds it
    pad: int
    depth: Plane  # how deep a pixel lies among those that count; empty if all do


def make_spline_image(
    pixels: Plane, valid: NDArray[np.bool_] | None, order: int = SPLINE_ORDER
) -> SplineImage:
    """Return an image with the coefficients of its spline."""
    pad = spline_margin(order, pixels.dtype)
    box = np.pad(pixels, pad, mode="reflect")
    prefilter(box[np.newaxis], order)
    sharp = _sharpen(np.pad(pixels, SMOOTH_MARGIN, mode="reflect"))[
        SMOOTH_MARGIN:-SMOOTH_MARGIN, SMOOTH_MARGIN:-SMOOTH_MARGIN
    ]
    depth = np.empty((0, 0), np.float32)
    if valid is not None:
        deep = distance_transform_edt(valid) - 0.5 - MARGIN
        depth = np.maximum(deep, 0).astype(np.float32)
    return SplineImage(pixels=pixels, sharp=sharp, box=box, pad=pad, depth=depth)


def tapered_pair(
    still: SplineImage,
    turned: SplineImage,
    matrix: Floats,
    box: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> tuple[Plane, Plane, float]:
    """Return what both show of a box, faded alike at the ends of what they share.

    Also returns the window, and the correlation of the images as they are.
    """
    low, high = box
    rows, cols = high - low
    side = math.sqrt(float(rows * cols))
    width = min(max(TAPER_FRACTION * side, TAPER_WIDTH), min(rows, cols) / 3)
    window = np.zeros((rows + 2 * SMOOTH_MARGIN, cols + 2 * SMOOTH_MARGIN), np.float32)
    inner = (
        slice(SMOOTH_MARGIN, SMOOTH_MARGIN + rows),
        slice(SMOOTH_MARGIN, SMOOTH_MARGIN + cols),
    )
    window[inner] = _window(still, low, high, width)
    inward: Floats = np.linalg.inv(matrix).astype(np.float64, copy=False)
    size = math.sqrt(abs(float(np.linalg.det(inward))))
    values = np.empty_like(window)
    sample_turned(
        turned.box, turned.pad, SPLINE_ORDER, inward[:2, :2].copy(),
        inward[:2, :2] @ (low - SMOOTH_MARGIN) + inward[:2, 2],
        turned.depth, width * size, MARGIN * size, 2 * SMOOTH_MARGIN * size, values, window,
    )  # fmt: skip
    window = window[inner]
    total = max(float(window.sum(dtype=np.float64)), 1e-30)
    canvas = np.zeros((2, *fast_shape((int(rows), int(cols)))), np.float32)
    inside = (slice(low[0], high[0]), slice(low[1], high[1]))
    sharp = still.sharp[inside], _sharpen(values)[inner]
    for out, image in zip(canvas, sharp, strict=True):
        mean = np.float32(float(np.vdot(image, window)) / total)
        out[:rows, :cols] = (image - mean) * window
    return canvas, window, _likeness(still.pixels[inside], values[inner], window)


def _likeness(first: Plane, second: Plane, window: Plane) -> float:
    """Return the correlation coefficient of what two images show in a window."""
    total = max(float(window.sum(dtype=np.float64)), 1e-30)
    one, two = (
        image - np.float32(float(np.vdot(image, window)) / total)
        for image in (first, second)
    )
    faded = one * window
    power = float(np.vdot(one, faded)) * float(np.vdot(two, two * window))
    return float(np.vdot(two, faded)) / math.sqrt(power) if power > 0 else 0.0


def _window(
    still: SplineImage, low: NDArray[np.intp], high: NDArray[np.intp], width: float
) -> Plane:
    """Return the part of the window that belongs to the image that stays."""
    border = math.ceil(MARGIN)
    tapers = []
    for size, start, stop in zip(still.pixels.shape, low, high, strict=True):
        taper = np.zeros(size)
        taper[border : size - border] = edge_taper(
            max(size - 2 * border, 1), width, 0.0
        )
        tapers.append(taper[start:stop])
    window = np.outer(*tapers).astype(np.float32)
    if still.depth.size:
        deep = still.depth[low[0] : high[0], low[1] : high[1]]
        fade = np.clip(deep / np.float32(width), 0, 1)
        window *= np.sin(np.float32(0.5 * np.pi) * fade) ** 2
    return window


def _sharpen(pixels: Plane) -> Plane:
    """Take off what is coarse; right from `SMOOTH_MARGIN` pixels within the image on."""
    coarse = smooth(pixels[np.newaxis], np.array([0.0, COARSE, COARSE]))[0]
    return pixels - coarse


def resample_onto(still: SplineImage, turned: SplineImage, matrix: Floats) -> Plane:
    """Return the one image on the pixels of the other, and zero beyond its ends."""
    inward: Floats = np.linalg.inv(matrix).astype(np.float64, copy=False)
    values = np.empty_like(still.pixels)
    window = np.ones_like(values)
    sample_turned(
        turned.box, turned.pad, SPLINE_ORDER, inward[:2, :2].copy(), inward[:2, 2].copy(),
        turned.depth, 1.0, 0.0, 1.0, values, window,
    )  # fmt: skip
    return values * window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """An image at three sizes, and the map of its spectrum.

    The point p of the image lies at ``(p - (factor - 1) / 2) / factor`` of the one
    that is smaller by that factor.
    """

    shape: tuple[int, ...]
    full: tuple[Plane, NDArray[np.bool_] | None]
    small: SplineImage
    factor: int
    thumb: SplineImage  # whitened
    thumb_factor: int  # of the image
    polar: NDArray[np.complex64]  # transform of the map
    energy: Floats  # of each ring of the map


def make_sketch(image: NDArray[Any], valid: NDArray[np.bool_] | None) -> Sketch | None:
    """Return the sketch of a flat image, or None if it shows nothing."""
    volume, mask = prepare_image(image, valid)
    if volume is None:
        return None
    pixels = np.ascontiguousarray(volume[0]), None if mask is None else mask[0]
    factor = _factor(pixels[0].shape, SKETCH_SIDE)
    small = _shrink(*pixels, factor)
    whitened = _whiten(*small)
    if whitened is None:
        return None
    polar = polar_map(whitened)
    canvas = np.zeros((len(polar) + ROOM, RAYS), np.float32)
    canvas[: len(polar)] = polar
    again = _factor(whitened.shape, THUMB_SIDE)
    thumb = _shrink(whitened, None, again)[0]
    return Sketch(
        shape=image.shape,
        full=pixels,
        small=make_spline_image(*small),
        factor=factor,
        thumb=make_spline_image(thumb, None, 3),
        thumb_factor=factor * again,
        polar=forward(canvas),
        energy=np.square(polar).sum(axis=1, dtype=np.float64),
    )


def polar_map(whitened: Plane) -> Plane:
    """Return the log-polar map of a spectrum: turns and scales only shift it.

    Rows are rings of frequencies that rise by a factor, columns are directions
    through half a turn. Each ring is the deviation of the amplitudes from their
    mean, in units of it, weighted by the number of modes and by what stands above
    the noise (Reddy & Chatterji 1996, :doi:`10.1109/83.506761`).
    """
    rows, cols = whitened.shape
    tapers = [edge_taper(n, max(FALL * n, 1.0), 0.0) for n in whitened.shape]
    shape = fast_shape((2 * rows, 2 * cols))
    canvas = np.zeros(shape, np.float32)
    canvas[:rows, :cols] = whitened * np.outer(*tapers).astype(np.float32)
    spectrum = forward(canvas)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    radii = LOWEST * np.exp(STEP * np.arange(int(math.log(0.5 / LOWEST) / STEP) + 1))
    polar = np.empty((len(radii), RAYS), np.float32)
    polar_power(power, shape[1], np.minimum(radii, 0.5), RAYS, polar)
    ring = polar.mean(axis=1, keepdims=True)
    np.sqrt(polar, out=polar)
    mean = np.maximum(polar.mean(axis=1, keepdims=True), 1e-30)
    polar /= mean
    np.minimum(polar, CAP, out=polar)
    polar -= polar.mean(axis=1, keepdims=True)
    # A whitened image has as much power in a ring as stands out of the noise.
    weight = radii[:, np.newaxis] * ring / max(float(ring.max()), 1e-30)
    return polar * weight.astype(np.float32)


def _factor(shape: tuple[int, ...], side: int) -> int:
    return max(1, math.ceil(math.sqrt(math.prod(shape)) / side))


def _shrink(
    pixels: Plane, valid: NDArray[np.bool_] | None, factor: int
) -> tuple[Plane, NDArray[np.bool_] | None]:
    """Average blocks of pixels; blocks count where most of their pixels do."""
    if factor == 1:
        return pixels, valid
    sides = [min(factor, n) for n in pixels.shape]
    if valid is None:
        return block_means(pixels, sides), None
    mean, share = known_block_means(pixels, valid, sides)
    return mean, share > 0.5


def _whiten(pixels: Plane, valid: NDArray[np.bool_] | None) -> Plane | None:
    rows, cols = pixels.shape
    shape = (1, *fast_shape((rows + rows // 8 + 1, cols + cols // 8 + 1)))
    masks, fade = None, np.ones(1, np.float32)
    if valid is not None:
        # Else the outlines of what does not count would be the brightest lines of both
        # images, and fit each other.
        depth = np.minimum((distance_transform_edt(valid) - 0.5) / TAPER_WIDTH, 1)
        fade = np.square(np.sin(0.5 * np.pi * np.maximum(depth, 0))).astype(np.float32)
        masks = (valid[np.newaxis], valid[np.newaxis])
    volume = (pixels * fade)[np.newaxis]
    found = whiten_images(volume, volume, shape, -1.0, masks)
    return None if found is None else found[0][0, 0, :rows, :cols] * fade


@compiled
def polar_power(
    power: Image, columns: int, radii: Floats, angles: int, out: Image
) -> None:
    """Sample a power spectrum on rays through the origin, linearly.

    Parameters
    ----------
    power : ndarray of shape (rows, columns // 2 + 1)
        Power of the modes that a real transform stores.
    columns : int
        Columns of the image that was transformed.
    radii : ndarray of shape (n,)
        Frequencies along a ray, in cycles per pixel, up to 0.5.
    angles : int
        Number of rays in half a turn, counter-clockwise from the columns.
    out : ndarray of shape (n, angles)
        The result.
    """
    rows, last = power.shape[0], power.shape[1] - 1
    # With an odd number of columns half a cycle lies between the last mode and the
    # mirror image of its column.
    most = last - 1 + columns % 2
    for ray in range(angles):
        across = math.cos(math.pi * ray / angles)
        up = -math.sin(math.pi * ray / angles)
        # The other half of the plane is the mirror image of the one that is stored.
        if across < 0:
            across, up = -across, -up
        for ring in range(len(radii)):
            col, row = radii[ring] * across * columns, radii[ring] * up * rows
            left, low = min(int(col), most), math.floor(row)
            right, high = col - left, row - low
            one, two = low % rows, (low + 1) % rows
            below, above = power[one, left], power[two, left]
            if left < last:
                beside, beyond = power[one, left + 1], power[two, left + 1]
            else:
                beside, beyond = (
                    power[-low % rows, last],
                    power[(-low - 1) % rows, last],
                )
            below += right * (beside - below)
            above += right * (beyond - above)
            out[ring, ray] = below + high * (above - below)


@compiled
def sample_turned(
    box: Image,
    pad: int,
    order: int,
    linear: Floats,
    start: Floats,
    depth: Image,
    width: float,
    margin: float,
    reach: float,
    values: Image,
    window: Image,
) -> None:
    """Sample a spline under an affine map, and fade it out towards its border.

    Parameters
    ----------
    box : ndarray of shape (rows + 2 * pad, cols + 2 * pad)
        Coefficients of the spline through an image and what surrounds it.
    pad : int
        Width of the surroundings, at least 4.
    order : {3, 5}
        Order of the spline.
    linear : ndarray of shape (2, 2)
        Steps in the image, in its columns, for one step along each axis of the result.
    start : ndarray of shape (2,)
        Where the first pixel of the result lies in the image.
    depth : ndarray of shape (rows, cols) or (0, 0)
        How deep each pixel lies among those that count; empty if all count.
    width : float
        Width of the edges of the window, in pixels of the image.
    margin : float
        Width of a border that does not count, in pixels of the image.
    reach : float
        How far beyond the border values are wanted, in pixels of the image; zero
        farther out.
    values, window : ndarray of the same shape
        Values of the spline, and weights from 0 to 1; updated, the window by
        a factor.
    """
    rows, cols = box.shape[0] - 2 * pad, box.shape[1] - 2 * pad
    shape, flat = (1, box.shape[0], box.shape[1]), box.reshape(-1)
    size = values.shape[1]
    lows = np.empty((3, size), np.int32)
    parts = np.empty((3, size), box.dtype)
    room = np.empty((3, order + 1, size), box.dtype)
    for line in range(values.shape[0]):
        row0 = start[0] + linear[0, 0] * line
        col0 = start[1] + linear[1, 0] * line
        # What is just outside is made up, but needed by filters; beyond is nothing.
        begin, end = _within(row0, linear[0, 1], reach, rows, 0, size)
        begin, end = _within(col0, linear[1, 1], reach, cols, begin, end)
        values[line, :begin] = 0
        values[line, end:] = 0
        count = end - begin
        for k in range(count):
            row = row0 + linear[0, 1] * (begin + k)
            col = col0 + linear[1, 1] * (begin + k)
            row = min(max(row, 4.0 - pad), rows + pad - 5.0) + pad
            col = min(max(col, 4.0 - pad), cols + pad - 5.0) + pad
            # Both are positive, so that this rounds down.
            lows[1, k], lows[2, k] = np.int32(row), np.int32(col)
            parts[1, k] = row - np.int32(row)
            parts[2, k] = col - np.int32(col)
        for axis in range(1, 3):
            spline_weights(order, parts[axis], count, room[axis])
        gather_spline(flat, lows, room, shape, order, count, values[line, begin:end])
        _fade_out(
            row0, col0, linear, (rows, cols), depth, width, margin, begin, end,
            window[line],
        )  # fmt: skip


@compiled
def _fade_out(
    row0: float,
    col0: float,
    linear: Floats,
    shape: tuple[int, int],
    depth: Image,
    width: float,
    margin: float,
    begin: int,
    end: int,
    fade: Image,
) -> None:
    """Weigh a line of points by how far within the image they lie."""
    fade[:begin] = 0
    fade[end:] = 0
    rows, cols = shape
    quarter = 0.5 * math.pi / width
    # Where all is deep inside there is nothing to do.
    first, last = _within(row0, linear[0, 1], -margin - width, rows, begin, end)
    first, last = _within(col0, linear[1, 1], -margin - width, cols, first, last)
    if depth.size > 0:
        first = last = begin
    for k in range(begin, end):
        if fade[k] == 0 or first <= k < last:
            continue
        row = row0 + linear[0, 1] * k
        col = col0 + linear[1, 1] * k
        tall = min(row, rows - 1 - row) + 0.5 - margin
        wide = min(col, cols - 1 - col) + 0.5 - margin
        weight = 1.0 if min(tall, wide) > 0 else 0.0
        if 0 < tall < width:
            weight *= math.sin(quarter * tall) ** 2
        if 0 < wide < width:
            weight *= math.sin(quarter * wide) ** 2
        if depth.size > 0 and weight > 0:
            weight *= _fade(depth, row, col, quarter)
        fade[k] *= weight


@compiled
def _within(
    at: float, step: float, reach: float, size: int, begin: int, end: int
) -> tuple[int, int]:
    """Narrow a run of steps to those within `reach` of an axis of some size."""
    low, high = -0.5 - reach, size - 0.5 + reach
    if abs(step) < 1e-12:
        return (begin, end) if low < at < high else (begin, begin)
    one, two = (low - at) / step, (high - at) / step
    first, last = min(one, two), max(one, two)
    begin = int(min(max(math.ceil(first), begin), end))
    return begin, int(min(max(math.floor(last) + 1, begin), end))


@compiled
def _fade(depth: Image, row: float, col: float, quarter: float) -> float:
    """Return the weight of a point at some depth, interpolated."""
    low = min(max(math.floor(row), 0), max(depth.shape[0] - 2, 0))
    left = min(max(math.floor(col), 0), max(depth.shape[1] - 2, 0))
    high, right = min(low + 1, depth.shape[0] - 1), min(left + 1, depth.shape[1] - 1)
    down = min(max(row - low, 0.0), 1.0)
    across = min(max(col - left, 0.0), 1.0)
    one = depth[low, left] + across * (depth[low, right] - depth[low, left])
    two = depth[high, left] + across * (depth[high, right] - depth[high, left])
    deep = one + down * (two - one)
    return math.sin(min(max(deep, 0.0) * quarter, 0.5 * math.pi)) ** 2

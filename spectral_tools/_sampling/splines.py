"""Turn pixels into B-splines and sample rows of them, compiled.

A spline is a sum of one B-spline for each pixel. Its coefficients come from an
exact inverse filter [Unser, Aldroubi & Eden 1993], run along each axis in turn: a product of recursive filters,
one pole at a time, forwards and backwards.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Image
from .._shared.compiled import compiled

__all__ = [
    "LEAST_SIGMA",
    "bspline_weights",
    "bsplines_at",
    "combine",
    "gather_spline",
    "prefilter",
    "smooth",
    "smooth_margin",
    "spline_margin",
    "spline_weights",
]


POLES = {
    3: (np.sqrt(3) - 2,),
    5: (
        np.sqrt(67.5 - np.sqrt(4436.25)) + np.sqrt(26.25) - 6.5,
        np.sqrt(67.5 + np.sqrt(4436.25)) - np.sqrt(26.25) - 6.5,
    ),
}
# Columns that are filtered together along the other axes: few enough to stay in
# the cache while the filter runs up and down.
STRIP = 128
# Below, the second weight of a Gaussian is lost in single precision.
LEAST_SIGMA = 0.17


def spline_margin(order: int, dtype: np.dtype[Any]) -> int:
    """Return how far pixels matter for a spline in the precision of `dtype`."""
    if order not in POLES:
        return 0
    return int(np.ceil(np.log(np.finfo(dtype).eps / 8) / np.log(-POLES[order][0])))


def prefilter(box: Image, order: int) -> None:
    """Replace pixels by the coefficients of their spline, in place.

    They are exact from `spline_margin` pixels within the box on. Axes of one
    pixel are left alone.

    Parameters
    ----------
    box : ndarray of shape (planes, rows, cols)
        Pixels, contiguous.
    order : {3, 5}
        Order of the spline.
    """
    planes, rows, cols = box.shape
    for pole in POLES[order]:
        # So many doublings of the reach of the filter leave nothing behind.
        limit = np.log(np.finfo(box.dtype).eps / 8) / np.log(-pole)
        pairs = int(np.ceil(np.log2(limit) / 2))
        if planes > 1:
            _filter_across(box.reshape(1, planes, rows * cols), pole)
        if rows > 1:
            _filter_across(box, pole)
        if cols > 1:
            _filter_along(box.reshape(-1, cols), pole, pairs)


@compiled
def _filter_across(box: Image, pole: float) -> None:
    """Run the filter of one pole along the middle axis."""
    slabs, rows, cols = box.shape
    flat = box.reshape(-1)
    factor, gain = box.dtype.type(pole), box.dtype.type((1 - pole) ** 2)
    for slab in range(slabs):
        for left in range(0, cols, STRIP):
            size = min(STRIP, cols - left)
            begin = slab * rows * cols + left
            line = flat[begin : begin + size]
            for k in range(size):
                line[k] *= gain / (1 - factor)
            for row in range(1, rows):
                before = flat[begin + (row - 1) * cols :]
                line = flat[begin + row * cols :]
                for k in range(size):
                    line[k] = gain * line[k] + factor * before[k]
            line = flat[begin + (rows - 1) * cols :]
            for k in range(size):
                line[k] /= 1 - factor
            for row in range(rows - 2, -1, -1):
                after = flat[begin + (row + 1) * cols :]
                line = flat[begin + row * cols :]
                for k in range(size):
                    line[k] += factor * after[k]


@compiled
def _filter_along(lines: Image, pole: float, pairs: int) -> None:
    """Run the filter of one pole along the last axis."""
    # Strategy: 1 / (1 - z q) is the product of (1 + z^n q^n) over n = 1, 2, 4, ...
    # Unlike a recursion, each factor is computed for many columns at once; two
    # factors make one pass.
    count, cols = lines.shape
    pad = 3 * 4 ** (pairs - 1)
    one = np.zeros(cols + 2 * pad, lines.dtype)
    two = np.zeros_like(one)
    gain = lines.dtype.type((1 - pole) ** 2)
    for n in range(count):
        line = lines[n]
        for k in range(cols):
            one[pad + k] = gain * line[k]
        for way in range(2):
            step, factor = 1, pole
            for _ in range(pairs):
                a = lines.dtype.type(factor)
                b = lines.dtype.type(factor**2)
                move = step if way else -step
                _four_taps(one, pad, move, a, b, cols, two)
                one, two = two, one
                step, factor = 4 * step, factor**4
        for k in range(cols):
            line[k] = one[pad + k]


@compiled
def _four_taps(
    line: Image, pad: int, step: int, a: Any, b: Any, size: int, out: Image
) -> None:
    here, near = line[pad:], line[pad + step :]
    far, last = line[pad + 2 * step :], line[pad + 3 * step :]
    to = out[pad:]
    c = a * b
    for k in range(size):
        to[k] = (here[k] + a * near[k]) + (b * far[k] + c * last[k])


def bspline_weights(parts: Floats, derivative: int = 0) -> Floats:
    """Return the four cubic B-splines between two knots, or their derivatives.

    Parameters
    ----------
    parts : ndarray of any shape
        How far each point lies beyond the knot below it, 0 to 1.
    derivative : {0, 1, 2, 3}, optional
        Order of the derivative.

    Returns
    -------
    ndarray of shape (*parts.shape, 4)
        One for each knot that counts, from the lowest.
    """
    return np.stack(_bsplines(parts, derivative), axis=-1)


def _bsplines(t: Any, derivative: int) -> tuple[Any, Any, Any, Any]:
    """Return what `bspline_weights` does, one by one, for a number or an array."""
    s = 1 - t
    if derivative == 0:
        rows = s**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * s**2 + 3 * s**3, t**3
    elif derivative == 1:
        rows = -3 * s**2, 9 * t**2 - 12 * t, 12 * s - 9 * s**2, 3 * t**2
    elif derivative == 2:
        rows = 6 * s, 18 * t - 12, 18 * s - 12, 6 * t
    else:
        rows = 0 * t - 6, 0 * t + 18, 0 * t - 18, 0 * t + 6
    return rows[0] / 6, rows[1] / 6, rows[2] / 6, rows[3] / 6


# The same of a number, for kernels.
bsplines_at = compiled(_bsplines)


@compiled
def spline_weights(order: int, parts: Image, size: int, out: Image) -> None:
    """Write the values of B-splines at fractions of a pixel.

    Parameters
    ----------
    order : {3, 5}
        Order of the spline.
    parts : ndarray of shape (size,)
        How far each point lies beyond the pixel below it.
    out : ndarray of shape (order + 1, size)
        One row for each pixel that counts, from the lowest.
    """
    real = parts.dtype.type
    first, second, third, fourth = out[0], out[1], out[2], out[3]
    if order == 3:
        for k in range(size):
            t = parts[k]
            s = real(1) - t
            first[k] = s * s * s * real(1 / 6)
            second[k] = real(2 / 3) - t * t * (real(1) - real(0.5) * t)
            third[k] = real(2 / 3) - s * s * (real(1) - real(0.5) * s)
            fourth[k] = t * t * t * real(1 / 6)
        return
    fifth, sixth = out[4], out[5]
    # The B-spline of order 5 at distances from 0 to 1, and from 1 to 2.
    near = np.array([-1 / 12, 1 / 4, 0, -1 / 2, 0, 11 / 20]).astype(parts.dtype)
    far = np.array([1 / 24, -3 / 8, 5 / 4, -7 / 4, 5 / 8, 17 / 40]).astype(parts.dtype)
    for k in range(size):
        t = parts[k]
        s = real(1) - t
        first[k] = s * s * s * s * s * real(1 / 120)
        second[k] = _polynomial(far, real(1) + t)
        third[k] = _polynomial(near, t)
        fourth[k] = _polynomial(near, s)
        fifth[k] = _polynomial(far, real(1) + s)
        sixth[k] = t * t * t * t * t * real(1 / 120)


@compiled
def _polynomial(terms: Image, at: Any) -> Any:
    value = terms[0]
    for n in range(1, 6):
        value = value * at + terms[n]
    return value


@compiled
def combine(
    flat: Image, at: int, stride: int, weights: Image, size: int, out: Image
) -> None:
    """Write a weighted sum of four or six lines that start `stride` apart."""
    one, two = flat[at:], flat[at + stride :]
    three, four = flat[at + 2 * stride :], flat[at + 3 * stride :]
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for k in range(size):
        out[k] = (a * one[k] + b * two[k]) + (c * three[k] + d * four[k])
    if len(weights) == 6:
        five, six = flat[at + 4 * stride :], flat[at + 5 * stride :]
        a, b = weights[4], weights[5]
        for k in range(size):
            out[k] += a * five[k] + b * six[k]


@compiled
def gather_spline(
    flat: Image,
    lows: NDArray[np.int32],
    taps: Image,
    shape: tuple[int, int, int],
    order: int,
    size: int,
    values: Image,
) -> None:
    """Write the values of a spline at a row of points.

    Parameters
    ----------
    flat : ndarray
        Coefficients of a box of the given shape.
    lows : ndarray of shape (3, size)
        The pixels below each point.
    taps : ndarray of shape (3, order + 1, size)
        Values of the B-splines at each point, for each axis.
    shape : tuple of three int
        Shape of the box.
    order : {3, 5}
        Order of the spline.
    size : int
        Number of points.
    values : ndarray of shape (size,)
        The result.
    """
    planes, rows, cols = shape
    before, layer = order // 2, rows * cols
    row, col = lows[1], lows[2]
    if planes == 1:
        for k in range(size):
            at = (row[k] - before) * cols + col[k] - before
            values[k] = _spline_value(flat, at, cols, taps, order, k)
        return
    for k in range(size):
        at = ((lows[0, k] - before) * rows + row[k] - before) * cols + col[k] - before
        total = _spline_value(flat, at, cols, taps, order, k) * taps[0, 0, k]
        for plane in range(1, order + 1):
            at += layer
            total += _spline_value(flat, at, cols, taps, order, k) * taps[0, plane, k]
        values[k] = total


@compiled
def _spline_value(
    flat: Image, at: int, cols: int, taps: Image, order: int, k: int
) -> Any:
    """Return the value of a flat spline from its coefficients around a point."""
    total = flat.dtype.type(0)
    if order == 3:
        a, b, c, d = taps[2, 0, k], taps[2, 1, k], taps[2, 2, k], taps[2, 3, k]
        for row in range(4):
            here = np.uintp(at + row * cols)
            line = a * flat[here] + b * flat[here + np.uintp(1)]
            line += c * flat[here + np.uintp(2)] + d * flat[here + np.uintp(3)]
            total += taps[1, row, k] * line
    else:
        for row in range(6):
            here = np.uintp(at + row * cols)
            line = flat.dtype.type(0)
            for col in range(6):
                line += taps[2, col, k] * flat[here + np.uintp(col)]
            total += taps[1, row, k] * line
    return total


def smooth(box: Image, sigma: Floats) -> Image:
    """Smooth a box by a Gaussian along each axis.

    Parameters
    ----------
    box : ndarray of shape (planes, rows, cols)
        Pixels, contiguous; right from `smooth_margin` pixels within it on.
    sigma : ndarray of shape (3,)
        Standard deviation along each axis, in pixels.

    Returns
    -------
    ndarray of the same shape
        The smooth box.
    """
    for axis in range(3):
        reach = smooth_margin(sigma[axis])
        if reach == 0:
            continue
        steps = np.arange(-reach, reach + 1)
        weights = np.exp(-0.5 * (steps / sigma[axis]) ** 2)
        weights = (weights / weights.sum()).astype(box.dtype)
        before = int(np.prod(box.shape[:axis]))
        lines = box.reshape(before, box.shape[axis], -1)
        result = np.zeros_like(lines)
        _weigh_lines(lines, weights, result)
        box = result.reshape(box.shape)
    return box


def smooth_margin(sigma: float) -> int:
    """Return how many pixels to each side a Gaussian mixes."""
    return int(np.ceil(4 * sigma)) if sigma > LEAST_SIGMA else 0


@compiled
def _weigh_lines(lines: Image, weights: Image, out: Image) -> None:
    """Weigh neighbours along the middle axis."""
    slabs, count, size = lines.shape
    reach = len(weights) // 2
    if size == 1:
        flat, outs = lines.reshape(slabs, count), out.reshape(slabs, count)
        for slab in range(slabs):
            line, to = flat[slab], outs[slab, reach:]
            for n in range(len(weights)):
                near, weight = line[n:], weights[n]
                for k in range(count - 2 * reach):
                    to[k] += weight * near[k]
        return
    for slab in range(slabs):
        for row in range(reach, count - reach):
            to = out[slab, row]
            for n in range(len(weights)):
                near, weight = lines[slab, row + n - reach], weights[n]
                for k in range(size):
                    to[k] += weight * near[k]

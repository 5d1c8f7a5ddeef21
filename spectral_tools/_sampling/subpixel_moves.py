"""Move a whole image by a fraction of a pixel, compiled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Image
from .._shared.compiled import compiled
from .splines import prefilter, spline_margin, spline_weights

__all__ = ["slide", "slide_margin"]


def slide_margin(order: int, dtype: np.dtype[Any]) -> int:
    """Return how many pixels around an image `slide` needs."""
    return spline_margin(order, dtype) + order // 2 + 1


def slide(box: Image, fraction: NDArray[np.float64], order: int, out: Image) -> None:
    """Write the inner part of a box, moved up the axes by less than a pixel.

    Parameters
    ----------
    box : ndarray of shape (planes, rows, cols)
        The image and `slide_margin` pixels around it on each axis longer than
        one pixel, contiguous. Overwritten.
    fraction : ndarray of shape (3,)
        How far, 0 to 1; 0 along axes of one pixel.
    order : {0, 1, 3, 5}
        Order of the spline.
    out : ndarray
        The image, of the size of the box without its margins.
    """
    margin = slide_margin(order, box.dtype)
    margins = np.array([margin if size > 1 else 0 for size in box.shape])
    if order > 1:
        prefilter(box, order)
    # Pixel k shows what lies at k - fraction: 1 - fraction beyond pixel k - 1.
    parts = np.where(fraction > 0, 1 - fraction, 0.0)
    base = margins - (fraction > 0) - order // 2 * (margins > 0)
    taps = np.zeros((3, max(order, 1) + 1), box.dtype)
    for axis in range(3):
        if margins[axis] == 0:
            taps[axis, 0] = 1
        elif order == 0:
            taps[axis, int(parts[axis] >= 0.5)] = 1
        elif order == 1:
            taps[axis] = 1 - parts[axis], parts[axis]
        else:
            one = np.empty((order + 1, 1), box.dtype)
            spline_weights(order, parts[axis : axis + 1].astype(box.dtype), 1, one)
            taps[axis] = one[:, 0]
    _weigh(box, base.astype(np.intp), taps, out)


@compiled
def _weigh(box: Image, base: NDArray[np.intp], taps: Image, out: Image) -> None:
    """Write weighted sums of neighbours, separable along the axes."""
    count = taps.shape[1]
    planes, rows, cols = out.shape
    zero = box.dtype.type(0)
    line = np.empty(cols + count, box.dtype)
    for plane in range(planes):
        for row in range(rows):
            line[:] = zero
            for p in range(count):
                if taps[0, p] == zero:
                    continue
                for r in range(count):
                    weight = taps[0, p] * taps[1, r]
                    if weight == zero:
                        continue
                    near = box[base[0] + plane + p, base[1] + row + r, base[2] :]
                    for k in range(min(cols + count - 1, len(near))):
                        line[k] += weight * near[k]
            to = out[plane, row]
            _row(line, taps[2], cols, to)


@compiled
def _row(line: Image, taps: Image, cols: int, to: Image) -> None:
    if len(taps) == 4:
        a, b, c, d = taps[0], taps[1], taps[2], taps[3]
        one, two, three = line[1:], line[2:], line[3:]
        for k in range(cols):
            to[k] = (a * line[k] + b * one[k]) + (c * two[k] + d * three[k])
        return
    for k in range(cols):
        to[k] = taps[0] * line[k]
    for n in range(1, len(taps)):
        weight, near = taps[n], line[n:]
        for k in range(cols):
            to[k] += weight * near[k]

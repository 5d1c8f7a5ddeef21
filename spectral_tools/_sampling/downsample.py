"""Images at half, a quarter, an eighth of their size, by means."""

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.compiled import compiled

__all__ = ["count_levels", "halve", "halved"]


def halved(length: int) -> int:
    """Return the length of an axis one level up: the last pixel may be half empty."""
    return -(-length // 2)


def count_levels(length: int, side: int) -> int:
    """Return how many levels there are until the longest axis fits into `side`."""
    levels = 1
    while length > side:
        length = halved(length)
        levels += 1
    return levels


def halve(image: NDArray[Any]) -> NDArray[Any]:
    """Return the means of 2 x 2 pixels along the last two axes, in the same dtype.

    At odd borders they are means of the pixels that there are; pixels that are not
    finite do not count unless there are no others. Integers are rounded to the
    nearest one, and ties to the even one, so that levels do not become brighter.
    """
    *outer, rows, cols = image.shape
    planes = np.ascontiguousarray(image).reshape(-1, rows, cols)
    out = np.empty((len(planes), halved(rows), halved(cols)), image.dtype)
    _halve_planes(planes, out, image.dtype.kind != "f")
    return out.reshape(*outer, *out.shape[1:])


@compiled
def _halve_planes(image: NDArray[Any], out: NDArray[Any], whole: bool) -> None:
    _, rows, cols = image.shape
    for plane in range(out.shape[0]):
        for row in range(out.shape[1]):
            for col in range(out.shape[2]):
                total = 0.0
                count = 0
                for r in range(2 * row, min(2 * row + 2, rows)):
                    for c in range(2 * col, min(2 * col + 2, cols)):
                        value = float(image[plane, r, c])
                        if isfinite(value):
                            total += value
                            count += 1
                mean = total / count if count else np.nan
                out[plane, row, col] = np.rint(mean) if whole else mean

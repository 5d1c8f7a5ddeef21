"""Images that are ready to be turned onto each other."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..._sampling.splines import prefilter, smooth, smooth_margin, spline_margin
from ..._shared.arrays import Floats, Plane
from ..._shared.fft import fast_shape
from ..._shared.ndimage import distance_transform_edt
from ..._spectral.ring_kernels import edge_taper
from .pose_kernels import sample_turned

__all__ = ["Sheet", "faded_pair", "lay_over", "make_sheet"]


ORDER = 5
# Windows are those of the fit of a shift.
TAPER_FRACTION, TAPER_WIDTH = 0.04, 6.0
# Large bright and dark parts that are cut off by a window would look like detail that
# stays where the window is. So what is coarser than this, in pixels, is taken off before;
# that is uncertain within a margin of the border.
FINE, MARGIN = 1.0, 1.5
MARGIN = smooth_margin(FINE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """An image that is ready to be turned."""

    pixels: Plane  # zero where it does not count
    sharp: Plane  # without what is coarse
    box: Plane  # coefficients of its spline, and of what surrounds it
    pad: int
    depth: Plane  # how deep a pixel lies among those that count; empty if all do


def make_sheet(
    pixels: Plane, valid: NDArray[np.bool_] | None, order: int = ORDER
) -> Sheet:
    """Return an image with the coefficients of its spline."""
    pad = spline_margin(order, pixels.dtype)
    box = np.pad(pixels, pad, mode="reflect")
    prefilter(box[np.newaxis], order)
    sharp = _sharpen(np.pad(pixels, MARGIN, mode="reflect"))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    depth = np.empty((0, 0), np.float32)
    if valid is not None:
        deep = distance_transform_edt(valid) - 0.5 - MARGIN
        depth = np.maximum(deep, 0).astype(np.float32)
    return Sheet(pixels=pixels, sharp=sharp, box=box, pad=pad, depth=depth)


def faded_pair(
    still: Sheet,
    turned: Sheet,
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
    window = np.zeros((rows + 2 * MARGIN, cols + 2 * MARGIN), np.float32)
    inner = (slice(MARGIN, MARGIN + rows), slice(MARGIN, MARGIN + cols))
    window[inner] = _window(still, low, high, width)
    inward: Floats = np.linalg.inv(matrix).astype(np.float64, copy=False)
    size = math.sqrt(abs(float(np.linalg.det(inward))))
    values = np.empty_like(window)
    sample_turned(
        turned.box, turned.pad, ORDER, inward[:2, :2].copy(),
        inward[:2, :2] @ (low - MARGIN) + inward[:2, 2],
        turned.depth, width * size, MARGIN * size, 2 * MARGIN * size, values, window,
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
    still: Sheet, low: NDArray[np.intp], high: NDArray[np.intp], width: float
) -> Plane:
    """Return the part of the window that belongs to the sheet that stays."""
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
    """Take off what is coarse; right from `MARGIN` pixels within the image on."""
    coarse = smooth(pixels[np.newaxis], np.array([0.0, FINE, FINE]))[0]
    return pixels - coarse


def lay_over(still: Sheet, turned: Sheet, matrix: Floats) -> Plane:
    """Return the one sheet on the pixels of the other, and zero beyond its ends."""
    inward: Floats = np.linalg.inv(matrix).astype(np.float64, copy=False)
    values = np.empty_like(still.pixels)
    window = np.ones_like(values)
    sample_turned(
        turned.box, turned.pad, ORDER, inward[:2, :2].copy(), inward[:2, 2].copy(),
        turned.depth, 1.0, 0.0, 1.0, values, window,
    )  # fmt: skip
    return values * window

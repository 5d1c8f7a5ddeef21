"""Tell a match from its copies one period on."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import overlap_block
from .._shared.arrays import Volume
from .._shared.fft import forward, inverse
from .._spectral.peaks import LEAST_OVERLAP, list_peaks

__all__ = ["periodic_copies", "repeats_itself"]

# Side of the middle part in which a period is looked for, in pixels: several periods, in
# little time (bench_shifts: 256 x 256).
SIDE = 80
# A scene is periodic where its autocorrelation, 1 at lag zero, is above this
# (test_a_cut_out_of_a_lattice_is_ambiguous).
PERIODIC = 0.6
# A match has a copy if this share of its correlation is found one period on
# (test_a_defect_in_a_lattice_decides).
COPY = 0.95


def repeats_itself(first: Volume, second: Volume, shift: NDArray[np.float64]) -> bool:
    """Tell whether two images agree as well one period away from a shift."""
    return len(periodic_copies(first, second, shift)) > 0


def periodic_copies(
    first: Volume, second: Volume, shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shifts one period away at which two images agree as well."""
    steps = [sign * period for period in _periods(first) for sign in (1, -1)]
    if not steps:
        return np.empty((0, 3))
    here = COPY * _likeness(first, second, np.rint(shift).astype(np.intp))
    copies = [
        shift + step
        for step in steps
        if _likeness(first, second, np.rint(shift + step).astype(np.intp)) > here
    ]
    return np.array(copies).reshape(-1, 3)


def _periods(image: Volume) -> NDArray[np.intp]:
    """Return up to four offsets at which the middle of an image is like itself."""
    inside = tuple(
        slice((size - min(size, SIDE)) // 2, (size + min(size, SIDE)) // 2)
        for size in image.shape
    )
    part = image[inside]
    window: NDArray[Any] = np.ones((1, 1, 1))
    copies: NDArray[Any] = np.ones((1, 1, 1))
    for axis, size in enumerate(part.shape):
        edge = np.hanning(size + 2)[1:-1] if size > 1 else np.ones(1)
        others = tuple({0, 1, 2} - {axis})
        window = window * np.expand_dims(edge, others)
        copies = copies * np.expand_dims(np.correlate(edge, edge, "full"), others)
    canvas = np.zeros([2 * size if size > 1 else 1 for size in part.shape], np.float32)
    mean = float((part * window).sum() / window.sum())
    canvas[tuple(map(slice, part.shape))] = (part - mean) * window
    power = np.abs(forward(canvas)) ** 2
    alike = inverse(power.astype(np.complex64), canvas.shape)
    # Only offsets of up to half the part, where the window still tells something.
    reach = [size // 2 for size in part.shape]
    alike = alike[np.ix_(*(np.arange(-r, r + 1) for r in reach))]
    middle = tuple(
        slice(size - 1 - r, size + r) for size, r in zip(part.shape, reach, strict=True)
    )
    alike = alike / np.maximum(copies[middle], 1e-3 * copies.max())
    alike = (alike / max(float(alike[tuple(reach)]), 1e-30)).astype(np.float32)
    lags = list_peaks(alike, PERIODIC).indices - reach
    # A period and its opposite are one, and the middle is none.
    ahead = lags @ (np.prod(alike.shape) / np.cumprod(alike.shape)) > 0
    lags = lags[ahead & (np.abs(lags).max(axis=1) > 2)]
    # The shortest: what is several of them is less sure, and shares less.
    return lags[np.argsort((lags**2).sum(axis=1), kind="stable")[:4]].astype(np.intp)


def _likeness(first: Volume, second: Volume, whole: NDArray[np.intp]) -> float:
    """Return the correlation coefficient of what two images share at a whole shift."""
    sizes = np.array(first.shape), np.array(second.shape)
    start0, start1, block = overlap_block(*sizes, whole)
    if block.prod() < LEAST_OVERLAP:
        return 0.0
    one = first[tuple(map(slice, start0, start0 + block))]
    other = second[tuple(map(slice, start1, start1 + block))]
    one, other = one - one.mean(), other - other.mean()
    scale = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0

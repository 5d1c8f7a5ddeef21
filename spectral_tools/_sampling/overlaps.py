"""What two images can share at a shift."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_mask", "lag_bounds", "overlap_block", "reachable_parts"]


def overlap_block(
    shape0: NDArray[np.intp], shape1: NDArray[np.intp], whole: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return where the common block starts in each image, and its shape."""
    start = np.maximum(0, whole)
    stop = np.minimum(shape0, shape1 + whole)
    return start, start - whole, np.maximum(stop - start, 0)


def lag_bounds(
    shape0: tuple[int, ...],
    shape1: tuple[int, ...],
    guess: NDArray[np.float64],
    reach: NDArray[np.float64] | None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the lowest and highest whole shift to search; low > high if none."""
    low, high = 1 - np.array(shape1), np.array(shape0) - 1
    if reach is not None:
        nearest = np.rint(guess)
        low = np.maximum(low, np.minimum(np.ceil(guess - reach), nearest)).astype(
            np.intp
        )
        high = np.minimum(high, np.maximum(np.floor(guess + reach), nearest)).astype(
            np.intp
        )
    return low, high


def reachable_parts(
    shape0: tuple[int, ...],
    shape1: tuple[int, ...],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the parts of two images that can overlap at shifts `low` to `high`."""
    first = tuple(
        slice(max(0, int(a)), min(n, m + int(b)))
        for n, m, a, b in zip(shape0, shape1, low, high, strict=True)
    )
    second = tuple(
        slice(max(0, -int(b)), min(m, n - int(a)))
        for n, m, a, b in zip(shape0, shape1, low, high, strict=True)
    )
    return first, second


def cut_mask(
    mask: NDArray[np.bool_] | None, part: tuple[slice, ...]
) -> NDArray[np.bool_] | None:
    """Return a part of a mask, if there is one."""
    return None if mask is None else mask[part]

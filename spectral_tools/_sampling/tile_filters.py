"""Fill boxes around tiles, and filter them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .._shared.arrays import Flags, Float, Floats, Ints
from .._shared.ndimage import distance_transform_edt
from .boxes import copy_box
from .sample_rows import LANES
from .splines import prefilter, smooth

__all__ = ["box_slices", "boxes_in", "filter_box", "memory_of"]


# Each at least doubles what is known of a box.
REFLECTIONS = 12


def box_slices(start: Ints, stop: Ints) -> tuple[slice, ...]:
    return tuple(map(slice, start.tolist(), stop.tolist()))


def filter_box(
    pixels: NDArray[Any],
    known: Flags | None,
    first: Ints,
    corner: Ints,
    end: Ints,
    dtype: np.dtype[Any],
    sigma: Floats,
    order: int,
) -> tuple[Ints, NDArray[Float], NDArray[Float] | None, Floats]:
    """Return filtered pixels that fill the box from `corner` to `end`.

    The tile goes on outside as its point reflection at its border pixels, so
    that a ramp stays a ramp. Pixels that do not count are filled with the
    nearest one that does. An offset is taken off before, so that constants stay
    exactly constant in every filter.
    """
    inside = box_slices(first - corner, first - corner + pixels.shape[1:])
    flags = None
    if known is not None:
        nearest = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        pixels = np.ascontiguousarray(pixels[:, *nearest])
        flags = np.zeros(end - corner, dtype)
        flags[inside] = known
    middle = tuple(size // 2 for size in pixels.shape[1:])
    offsets = pixels[:, *middle].astype(np.float64)
    boxes = boxes_in(np.empty(0, dtype), len(pixels), (end - corner).tolist())
    flat, strides = memory_of(pixels)
    to = tuple((first - corner).tolist())
    copy_box(flat, strides, (0, 0, 0), pixels.shape[1:], offsets, to, boxes)
    for channel, box in enumerate(boxes):
        for axis in range(3):
            part = box[(slice(None),) * (axis + 1) + inside[axis + 1 :]]
            _reflect(np.moveaxis(part, axis, 0), inside[axis])
        if sigma.any():
            boxes[channel] = smooth(box, sigma)
        if order > 1:
            prefilter(box, order)
        elif flags is not None:
            boxes[channel] *= flags
    return corner, boxes, flags, offsets


def boxes_in(room: NDArray[Float], count: int, sides: Sequence[int]) -> NDArray[Float]:
    """Return boxes in a room, behind which there is room for whole groups of points."""
    size = count * math.prod(sides)
    if size + 2 * LANES > room.size:
        room = np.empty(size + 2 * LANES, room.dtype)
    return room[:size].reshape(count, *sides)


def memory_of(pixels: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return the memory behind pixels, and the steps in it along each axis."""
    strides = tuple(step // pixels.itemsize for step in pixels.strides)
    if pixels.size == 0:
        return np.empty(0, pixels.dtype), strides
    last = sum((n - 1) * step for n, step in zip(pixels.shape, strides, strict=True))
    # Never writeable, so that kernels are compiled for one kind only.
    return as_strided(pixels, (last + 1,), (pixels.itemsize,), writeable=False), strides


def _reflect(box: NDArray[Float], inside: slice) -> None:
    """Fill a box around its known part with point reflections, in place."""
    first, last = inside.start, inside.stop - 1
    low, high = first, last
    for _ in range(REFLECTIONS):
        new = max(0, 2 * first - high)
        if new < low:
            mirrored = box[2 * first - low + 1 : 2 * first - new + 1]
            box[new:low] = 2 * box[first] - mirrored[::-1]
            low = new
        new = min(len(box) - 1, 2 * last - low)
        if new > high:
            mirrored = box[2 * last - new : 2 * last - high]
            box[high + 1 : new + 1] = 2 * box[last] - mirrored[::-1]
            high = new
    # So far away that no filter sees it.
    box[:low], box[high + 1 :] = box[low], box[high]

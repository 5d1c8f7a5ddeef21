"""Copy parts of tiles into boxes that reach over their border, compiled."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .._shared.arrays import Flags, Float, Floats, Image, Ints
from .._shared.compiled import compiled
from .._shared.ndimage import distance_transform_edt
from .sample_rows import LANES
from .splines import prefilter, smooth

__all__ = [
    "box_slices",
    "boxes_in",
    "copy_box",
    "cut_mask",
    "filter_box",
    "join_channels",
    "lag_bounds",
    "memory_of",
    "overlap_block",
    "reachable_parts",
    "repeat_border",
    "split_channels",
]


# Pixels and channels that are swapped at a time, so that all stay in the cache.
PATCH = 32


@compiled
def copy_box(
    lines: NDArray[Any],
    strides: tuple[int, ...],
    first: tuple[int, ...],
    size: tuple[int, ...],
    offsets: NDArray[np.float64],
    to: tuple[int, ...],
    boxes: Image,
) -> None:
    """Copy a box of every channel, less an offset.

    Parameters
    ----------
    lines : ndarray
        Pixels of all channels; contiguous along columns.
    strides : tuple of four int
        Steps in `lines` to the next channel, plane, row and column.
    first, size : tuple of three int
        The box, in the pixels of a channel.
    offsets : ndarray of shape (channels,) or (1,)
        Taken off.
    to : tuple of three int
        Where the box goes.
    boxes : ndarray of shape (channels, planes, rows, cols)
        Updated.
    """
    for channel in range(len(boxes)):
        offset = boxes.dtype.type(offsets[min(channel, len(offsets) - 1)])
        corner = channel * strides[0] + first[2]
        for plane in range(size[0]):
            for row in range(size[1]):
                at = corner + (first[0] + plane) * strides[1]
                line = lines[at + (first[1] + row) * strides[2] :]
                out = boxes[channel, to[0] + plane, to[1] + row, to[2] :]
                for k in range(size[2]):
                    out[k] = boxes.dtype.type(line[k]) - offset


@compiled
def repeat_border(boxes: Image, first: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Fill boxes around the part that is known with the border of that part."""
    channels, planes, rows, cols = boxes.shape
    last0, last1 = first[0] + size[0] - 1, first[1] + size[1] - 1
    last2 = first[2] + size[2] - 1
    for channel in range(channels):
        box = boxes[channel]
        for plane in range(planes):
            from_plane = min(max(plane, first[0]), last0)
            for row in range(rows):
                from_row = min(max(row, first[1]), last1)
                line, near = box[plane, row], box[from_plane, from_row]
                if from_plane != plane or from_row != row:
                    for col in range(first[2], last2 + 1):
                        line[col] = near[col]
                for col in range(first[2]):
                    line[col] = near[first[2]]
                for col in range(last2 + 1, cols):
                    line[col] = near[last2]


@compiled
def split_channels(
    lines: NDArray[Any], strides: tuple[int, ...], channels: NDArray[Any]
) -> None:
    """Copy pixels whose channels lie side by side to an array for each channel.

    Parameters
    ----------
    lines : ndarray
        Pixels; the channels of one lie side by side.
    strides : tuple of three int
        Steps in `lines` to the next plane, row and column.
    channels : ndarray of shape (channels, planes, rows, cols)
        The result.
    """
    count, planes, rows, cols = channels.shape
    for plane in range(planes):
        for row in range(rows):
            at = plane * strides[0] + row * strides[1]
            for left in range(0, cols, PATCH):
                size = min(PATCH, cols - left)
                for first in range(0, count, PATCH):
                    for channel in range(first, min(first + PATCH, count)):
                        here = lines[at + left * strides[2] + channel :]
                        out = channels[channel, plane, row, left:]
                        for k in range(size):
                            out[k] = here[k * strides[2]]


@compiled
def join_channels(channels: NDArray[Any], pixels: NDArray[Any]) -> None:
    """Copy an array for each channel, (channels, pixels), to (pixels, channels)."""
    count, size = channels.shape
    for left in range(0, size, PATCH):
        for first in range(0, count, PATCH):
            stop = min(first + PATCH, count)
            for k in range(left, min(left + PATCH, size)):
                out = pixels[k, first:]
                for channel in range(stop - first):
                    out[channel] = channels[first + channel, k]


def box_slices(start: Ints, stop: Ints) -> tuple[slice, ...]:
    return tuple(map(slice, start.tolist(), stop.tolist()))


class FilteredBox(NamedTuple):
    """Pixels that are ready to be sampled, and which of them count, if not all do."""

    pixels: NDArray[Float]  # (channels, planes, rows, cols), less the offsets
    known: NDArray[Float] | None
    offsets: Floats  # (channels,)


def filter_box(
    pixels: NDArray[Any],
    known: Flags | None,
    first: Ints,
    corner: Ints,
    end: Ints,
    dtype: np.dtype[Any],
    sigma: Floats,
    order: int,
) -> FilteredBox:
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
            # What overflows is no number, here as in the kernels.
            with np.errstate(over="ignore", invalid="ignore"):
                _reflect(np.moveaxis(part, axis, 0), inside[axis])
        if sigma.any():
            boxes[channel] = smooth(box, sigma)
        if order > 1:
            prefilter(box, order)
        elif flags is not None:
            with np.errstate(invalid="ignore"):
                boxes[channel] *= flags
    return FilteredBox(boxes, flags, offsets)


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
    # Each round at least doubles what is known, but of a single pixel.
    for _ in range(len(box).bit_length()):
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
    box[:low], box[high + 1 :] = box[low], box[high]


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
        first = np.maximum(low, np.minimum(np.ceil(guess - reach), nearest))
        last = np.minimum(high, np.maximum(np.floor(guess + reach), nearest))
        # Farther than that no image reaches.
        low, high = (
            np.clip(each, low - 1, high + 1).astype(np.intp) for each in (first, last)
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

"""Copy parts of tiles into boxes that reach over their border, compiled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Image
from .._shared.compiled import compiled

__all__ = ["copy_box", "join_channels", "repeat_border", "split_channels"]

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

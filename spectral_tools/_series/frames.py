"""Read the frames of a series from arrays, stores and iterators."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import unstacked
from .._shared.checks import image_dtype

__all__ = ["Frames", "as_groups", "frames_of"]


# Frames that wait for workers take so many bytes at most, or are two chunks.
ROOM = 1 << 26


class Frames:
    """Frames of one shape that are read one after the other.

    Frames of a stack or a sequence are read where they lie, as often as they are
    wanted. An iterator is read once, and only its first frames are kept.
    """

    def __init__(self, source: Any, least: int = 2) -> None:
        self._stored: Sequence[Any] | None = None
        self._rest: Iterator[Any] = iter(())
        self._kept: list[NDArray[Any]] = []
        if hasattr(source, "shape") or isinstance(source, Sequence):
            self._stored = unstacked(source)
            self.count: int | None = len(self._stored)
            first = self._stored[0] if self.count else None
        else:
            self._rest, self.count = iter(source), None
            self._kept = [np.asarray(each) for each in islice(self._rest, 1)]
            first = self._kept[0] if self._kept else None
        if first is None:
            wanted = "one frame" if least == 1 else "two frames"
            message = f"`frames` must hold at least {wanted}; got none."
            raise ValueError(message)
        first = first if hasattr(first, "dtype") else np.asarray(first)
        self.shape = tuple(int(size) for size in first.shape)
        self.dtype = np.dtype(first.dtype)
        image_dtype(self.dtype, "frames")
        if len(self.shape) not in (2, 3) or 0 in self.shape:
            message = (
                "`frames` must hold 2-D or 3-D images with at least one pixel; "
                f"got shape {self.shape}."
            )
            raise ValueError(message)
        if self._stored is not None and not hasattr(source, "shape"):
            for n, each in enumerate(self._stored):
                self._check(np.shape(each), n)

    def _check(self, shape: tuple[int, ...], n: int) -> None:
        if tuple(shape) != self.shape:
            message = (
                f"`frames` must all have the same shape, {self.shape}; "
                f"got {tuple(shape)} as frame {n}."
            )
            raise ValueError(message)

    def sample(self, most: int) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
        """Return some frames and their numbers: all over the series, if it is stored."""
        if self._stored is not None:
            count = len(self._stored)
            even = np.linspace(0, count - 1, min(most, count)).round()
            numbers = np.unique(even.astype(np.intp))
            return numbers, [self[n] for n in numbers.tolist()]
        self._kept += [
            np.asarray(each) for each in islice(self._rest, most - len(self._kept))
        ]
        for n, each in enumerate(self._kept):
            self._check(each.shape, n)
        return np.arange(len(self._kept)), list(self._kept)

    def __getitem__(self, n: int) -> NDArray[Any]:
        """Return one frame of a stored series, or one of the first of an iterator."""
        if self._stored is None:
            return self._kept[n]
        return np.asarray(self._stored[n])

    def read(self, entry: NDArray[Any] | int) -> NDArray[Any]:
        """Return the frame that an entry of a chunk stands for."""
        return self[entry] if isinstance(entry, int) else entry

    def __len__(self) -> int:
        """Return how many frames can be read with an index."""
        return len(self._kept) if self._stored is None else len(self._stored)

    def waiting(self, size: int, most: int) -> int:
        """Return how many chunks of so many frames may wait for workers."""
        if self._stored is not None:
            return most  # They wait where they are stored.
        chunk = size * math.prod(self.shape) * self.dtype.itemsize
        return min(max(ROOM // chunk, 2), most)

    def chunks(self, size: int) -> Iterator[Sequence[NDArray[Any] | int]]:
        """Yield all frames in chunks: as numbers if they are stored, else as they are."""
        if self._stored is not None:
            for start in range(0, len(self._stored), size):
                yield range(start, min(start + size, len(self._stored)))
            return
        frames = chain(self._kept, self._rest)
        number = 0
        while chunk := [np.asarray(each) for each in islice(frames, size)]:
            for each in chunk:
                self._check(each.shape, number)
                number += 1
            yield chunk


def frames_of(frames: Any, least: int = 2) -> Frames:
    """Return frames that can be read, or say what is wrong with them."""
    if isinstance(frames, str) or not isinstance(frames, Iterable):
        message = f"`frames` must be a stack of images or an iterable of them; got {type(frames).__name__}."
        raise TypeError(message)
    if hasattr(frames, "shape") and len(frames.shape) not in (3, 4):
        message = (
            "`frames` must have shape (n, rows, cols) or (n, planes, rows, cols); "
            f"got {tuple(frames.shape)}."
        )
        raise ValueError(message)
    found = Frames(frames, least)
    if found.count is not None and found.count < least:
        message = f"`frames` must hold at least {least} frames; got {found.count}."
        raise ValueError(message)
    return found


def as_groups(
    planes: int | Sequence[Sequence[int]] | None, shape: tuple[int, ...]
) -> list[list[int]] | None:
    """Return the planes of each group that moves as one; None if all axes move."""
    if planes is None:
        return None
    if len(shape) != 3:
        message = f"`planes` must be None for 2-D frames; got {planes!r}."
        raise ValueError(message)
    if isinstance(planes, int | np.integer):
        if planes < 1:
            message = f"`planes` must be at least 1; got {planes}."
            raise ValueError(message)
        each = range(0, shape[0], int(planes))
        return [list(range(n, min(n + int(planes), shape[0]))) for n in each]
    groups = [[int(plane) for plane in group] for group in planes]
    listed = sorted(plane for group in groups for plane in group)
    if listed != list(range(shape[0])) or not all(groups):
        message = f"`planes` must name each of {shape[0]} planes in one group; got {planes!r}."
        raise ValueError(message)
    return groups

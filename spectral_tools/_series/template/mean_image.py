"""Average moved frames on a canvas that grows."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._sampling.subpixel_moves import slide_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume

__all__ = ["MeanCanvas", "PlacedImage"]


# Sides of a frame by which a canvas that grows is larger than it need be
# (test_drift_may_go_beyond_half_a_frame).
ROOM = 0.125


class PlacedImage(NamedTuple):
    """An image of which pixel k lies at ``k + origin`` of the reference."""

    pixels: Volume  # (channels, planes, rows, cols)
    known: Flags | None  # (planes, rows, cols); None if all of it is known
    origin: Ints  # (3,)


class MeanCanvas:
    """The running mean of frames of shape (channels, planes, rows, cols)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.size = np.array(shape[1:])
        self.origin = np.zeros(3, np.intp)
        self.sums = np.zeros(shape, np.float32)
        self.counts = np.zeros(shape[1:], np.float32)

    def add(
        self,
        frame: Volume,
        shift: Floats,
        known: NDArray[np.bool_] | None = None,
        sign: int = 1,
    ) -> None:
        """Add a frame at a shift; only what lies within its outermost pixels counts.

        A sign of -1 takes it away again.
        """
        whole = np.floor(shift + 1e-9).astype(np.intp)
        fraction = np.where(self.size > 1, np.maximum(shift - whole, 0.0), 0.0)
        cut = (fraction > 0).astype(np.intp)
        first, stop = whole + cut, whole + self.size
        self._grow(first, stop)
        part = tuple(
            slice(a, b)
            for a, b in zip(first - self.origin, stop - self.origin, strict=True)
        )
        inner = tuple(slice(c, None) for c in cut)
        weight: Any = np.float32(1)
        if known is not None:
            weight = slide_frame(known.astype(np.float32), fraction, 1)[inner] > 0.999
        self.counts[part] += sign * weight
        for total, channel in zip(self.sums, frame, strict=True):
            moved = slide_frame(channel, fraction, 3)[inner]
            total[part] += sign * (moved * weight if known is not None else moved)

    def share_at(self, shift: Floats) -> float:
        """Return the share of a frame in the mean, in the mean over its pixels."""
        start = np.rint(shift).astype(np.intp) - self.origin
        first = np.maximum(start, 0)
        stop = np.minimum(start + self.size, self.counts.shape)
        part = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        return float((1 / np.maximum(self.counts[part], 1)).mean())

    def _grow(self, first: Ints, stop: Ints) -> None:
        end = self.origin + self.counts.shape
        if (first >= self.origin).all() and (stop <= end).all():
            return
        room = np.where(self.size > 1, np.ceil(ROOM * self.size), 0).astype(np.intp)
        before = np.where(first < self.origin, self.origin - first + room, 0)
        after = np.where(stop > end, stop - end + room, 0)
        pads = [(int(a), int(b)) for a, b in zip(before, after, strict=True)]
        self.sums = np.pad(self.sums, [(0, 0), *pads])
        self.counts = np.pad(self.counts, pads)
        self.origin = self.origin - before

    def mean(self, least: int = 1) -> PlacedImage:
        """Return the mean, known where `least` frames show it.

        Where no frame is it is filled with the mean of the rest.
        """
        there = self.counts > 0
        rows = [
            np.flatnonzero(there.any(axis=tuple({0, 1, 2} - {axis})))
            for axis in range(3)
        ]
        part = tuple(slice(int(r[0]), int(r[-1]) + 1) for r in rows)
        there, counts = there[part], self.counts[part]
        origin = self.origin + [r[0] for r in rows]
        mean = (self.sums[:, *part] / np.maximum(counts, 1)).astype(np.float32)
        if not there.all():
            for channel in mean:
                channel[~there] = channel[there].mean()
        enough = counts > least - 0.5
        return PlacedImage(mean, None if enough.all() else enough, origin)

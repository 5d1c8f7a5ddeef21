"""The mean of frames, and the power spectrum of what it does not explain of them."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._sampling.splines import bspline_weights
from ..._sampling.subpixel_moves import slide_frame, under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.fft import forward, frequencies
from ..._spectral.ring_kernels import RING_MODES, RING_SHARE, ring_edges

__all__ = [
    "COARSE",
    "LEAST",
    "RED",
    "FrameView",
    "MeanCanvas",
    "Noise",
    "PlacedImage",
    "measure_noise",
    "radial_frequencies",
    "ring_powers",
    "views_of",
]


# Sides of a frame by which a canvas that grows is larger than it need be
# (test_drift_may_go_beyond_half_a_frame).
ROOM = 0.125
# Share of the modes in a plane that are independent under a Hann window, which blurs them
# (test_shifts_are_right_to_their_error_bars).
INDEPENDENT = 0.35
# Share of a frame that must lie on the image
# (test_frames_beyond_what_is_searched_are_not_believed_at_their_alias).
LEAST = 0.1
# Frequency, in cycles per pixel, below which detail is coarse: noise of a camera has as much
# of it as of the rest (test_very_few_hills_do_not_mislead).
COARSE = 0.25
# Power of what is left, in units of that of noise, from which on it is more than noise
# (test_few_frames_without_dust_are_believed).
RED = 1.5


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """What frames show beside the scene, by rings of frequencies."""

    radius: Floats  # of each ring, in cycles per pixel
    count: Floats  # modes of the ring that were seen
    power: Floats  # of a pixel of a frame, at each mode
    variance: float  # of a pixel


def radial_frequencies(shape: tuple[int, ...]) -> Floats:
    one, two, three = frequencies(shape)
    return np.sqrt(one[:, None, None] ** 2 + two[:, None] ** 2 + three**2)


def _hann_window(shape: tuple[int, ...]) -> Volume:
    one, two, three = (
        np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 if n > 1 else np.ones(1)
        for n in shape
    )
    window = one[:, None, None] * two[:, None] * three
    return (window / math.sqrt(float((window**2).mean()))).astype(np.float32)


def _ring_edges(shape: tuple[int, ...]) -> Floats:
    long = [n for n in shape if n > 1]
    width = math.prod(long) ** (-1 / len(long))
    return ring_edges(np.array(shape), width, 0.5, RING_MODES, RING_SHARE)


def ring_powers(
    images: list[Volume], gains: list[Floats] | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return the radius, the modes and the mean power of rings, of (c, p, r, c) images.

    Where `gains` say by how much each mode of an image is too strong, it is divided.
    """
    shape = images[0].shape[1:]
    edges = _ring_edges(shape)
    radius = radial_frequencies(shape)
    ring = np.searchsorted(edges, (radius**2).ravel()).clip(0, len(edges) - 1)
    window = _hann_window(shape)
    total_power = np.zeros(radius.shape)
    for n, image in enumerate(images):
        for channel in image:
            faded = window * (channel - float((channel * window).sum() / window.sum()))
            modes = np.abs(forward(faded)) ** 2
            total_power += modes if gains is None else modes / gains[n]
    total = len(images) * len(images[0])
    count = np.bincount(ring, minlength=len(edges))
    mean = np.bincount(ring, total_power.ravel(), len(edges)) / np.maximum(count, 1)
    middle = np.bincount(ring, radius.ravel(), len(edges)) / np.maximum(count, 1)
    there = count > 0
    power: Any = mean[there] / (total * math.prod(shape))
    independent: Any = INDEPENDENT * total * count[there]
    return middle[there], independent, power


def _passed(shape: tuple[int, ...], shift: Floats) -> Floats:
    """Return how much power of its modes an image keeps when a spline moves it."""
    result = np.ones((1, 1, 1))
    axes = [(slice(None), None, None), (slice(None), None), (slice(None),)]
    for n, frequency, part, axis in zip(
        shape, frequencies(shape), shift - np.floor(shift), axes, strict=True
    ):
        if n > 1:
            turn = np.exp(2j * np.pi * frequency)
            weights = bspline_weights(np.array(part))
            moved = sum(w * turn**k for k, w in enumerate(weights.tolist(), -1))
            between = np.abs(moved) / ((4 + 2 * turn.real) / 6)
            result = result * (between**2)[axis]
    return result


class FrameView(NamedTuple):
    """What a frame would see of an image, and where it does."""

    pixels: Volume
    known: Flags


def views_of(
    image: PlacedImage, frames: list[Volume], shifts: Floats
) -> list[FrameView]:
    """Return what frames at some shifts would see of an image."""
    return [
        FrameView(*under_frame(image.pixels, image.origin, shift, frame.shape))
        for frame, shift in zip(frames, shifts, strict=True)
    ]


def measure_noise(
    frames: list[Volume],
    shifts: Floats,
    views: list[FrameView],
    known: Flags | None = None,
    *,
    share: float = 0.0,
    ratio: float | None = None,
) -> Noise:
    """Measure the power spectrum of what an image does not explain of frames.

    The image under the frames is their mean, in which each has a `share`; or it is none of
    them, and the variance of its noise is `ratio` times that of a frame. Its noise is
    damped there where it is moved by parts of a pixel. The result is in grey values of
    the image then, however bright each frame is.
    """
    residuals, gains = [], []
    for frame, shift, view in zip(frames, shifts, views, strict=True):
        mask = view.known if known is None else view.known & known
        if mask.sum() < LEAST * mask.size:
            continue
        residual = np.zeros_like(frame)
        for out, one, two in zip(residual, frame, view.pixels, strict=True):
            out[mask] = _residual(one[mask], two[mask], ratio)
        # What does not count is zero, which takes its share of the power.
        residuals.append(residual / math.sqrt(float(mask.mean())))
        if ratio is not None:
            kept = _passed(frame.shape[1:], shift)
            gains.append((1 + ratio * kept) / (1 + ratio))
    radius, count, power = ring_powers(residuals or list(frames), gains or None)
    # A mean holds a part of each frame, which it takes along.
    alone = 1 / max(1 - share, 0.5) if ratio is None else 1 / (1 + ratio)
    variance = float(np.mean([np.square(one).mean() for one in residuals or frames]))
    return Noise(
        radius=radius,
        count=count,
        power=alone * power,
        variance=alone * variance,
    )


def _residual(frame: Floats, image: Floats, ratio: float | None) -> Floats:
    """Return what an image times the best gain leaves of a frame, in its grey values.

    Where both are noisy, plain regression (`ratio` None) finds too small a gain; that
    of known noise ratio is Deming's.
    """
    frame, image = frame - frame.mean(), image - image.mean()
    both = float((frame * image).sum(dtype=float))
    own = max(float((image * image).sum(dtype=float)), 1e-30)
    if ratio is None:
        return frame - both / own * image
    less, whole = (1 - ratio) * both, float((frame * frame).sum(dtype=float))
    gain = (less + math.sqrt(less**2 + 4 * ratio * whole * own)) / (2 * own)
    return frame / max(gain, 1e-30) - image

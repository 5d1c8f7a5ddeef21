"""Tell what stays in place from a scene that moves, at given shifts."""

import math

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Floats, Ints, Volume
from ..._shared.fft import fftfreq, forward, inverse, rfftfreq
from .mean_image import MeanCanvas, slide_frame

__all__ = ["split_pattern", "unexplained"]


# Steps that tell a pattern from a scene, from nothing on and where one is known, and how
# much further one may go at most. What both could be is told last.
SPLITS, FINER, BOOST = 4, 8, 20.0
# Steps that leave so many times what the one before left go astray.
ASTRAY = 1.5


def unexplained(frames: list[Volume], shifts: Floats) -> float:
    """Return the power that a scene at given shifts does not explain."""
    canvas = MeanCanvas(frames[0].shape)
    for frame, shift in zip(frames, shifts, strict=True):
        canvas.add(frame, shift)
    pixels, _, origin = canvas.mean()
    powers = []
    for frame, shift in zip(frames, shifts, strict=True):
        scene = _seen(pixels, origin, shift, frame.shape)
        powers.append(math.inf if scene is None else np.square(frame - scene).mean())
    return float(np.mean(powers))


def split_pattern(
    frames: list[Volume], shifts: Floats, pattern: Volume | None = None
) -> tuple[float, Volume]:
    """Return what a scene at given shifts and a pattern leave, and the pattern.

    # Strategy: the pattern is the mean of what the scene leaves, and the scene that
    # of what the pattern leaves. One after the other, they converge at each frequency by
    # the squared mean of the turns that the shifts make there; so much further goes
    # each step.
    """
    steps = SPLITS if pattern is None else FINER
    if pattern is None:
        pattern = np.mean(frames, axis=0)
    boost = _boost(frames[0].shape[1:], shifts)
    rest, last = math.inf, pattern
    for _ in range(steps):
        canvas = MeanCanvas(frames[0].shape)
        for frame, shift in zip(frames, shifts, strict=True):
            canvas.add(frame - pattern, shift)
        pixels, _, origin = canvas.mean()
        left = []
        for frame, shift in zip(frames, shifts, strict=True):
            scene = _seen(pixels, origin, shift, frame.shape)
            if scene is None:
                return math.inf, pattern
            left.append(frame - scene - pattern)
        step = np.mean(left, axis=0)
        before, rest = rest, float(np.mean([np.square(e - step).mean() for e in left]))
        # Where the ends of frames matter more than what they share, steps go astray.
        if rest > ASTRAY * before:
            return before, last
        last = pattern + step
        pattern = pattern + np.stack(
            [inverse(forward(one) * boost, one.shape) for one in step]
        )
    return rest, pattern


def _boost(shape: tuple[int, ...], shifts: Floats) -> NDArray[np.float32]:
    """Return how much further than a step the pattern lies, for each frequency."""
    turns = np.zeros((*shape[:-1], shape[-1] // 2 + 1), np.complex128)
    axes = [fftfreq(n) for n in shape[:-1]] + [rfftfreq(shape[-1])]
    for shift in shifts:
        one, two, three = (
            np.exp(2j * math.pi * f * moved)
            for f, moved in zip(axes, shift, strict=True)
        )
        turns += one[:, None, None] * two[:, None] * three
    steady = np.abs(turns / len(shifts)) ** 2
    return (1 / np.maximum(1 - steady, 1 / BOOST)).astype(np.float32)


def _seen(
    pixels: Volume, origin: Ints, shift: Floats, shape: tuple[int, ...]
) -> Volume | None:
    """Return what a frame at a shift would see of a picture."""
    start = shift - origin
    whole = np.ceil(start - 1e-9).astype(np.intp)
    size = np.array(shape[1:])
    # Where the picture ends its border goes on, which is little.
    pads = [
        (max(0, int(-a)), max(0, int(a + n - total)))
        for a, n, total in zip(whole - 1, size + 2, pixels.shape[1:], strict=True)
    ]
    pads = [pad if n > 1 else (0, 0) for pad, n in zip(pads, size, strict=True)]
    if max(max(pad) for pad in pads) > min(n for n in size.tolist() if n > 1) // 2:
        return None
    wide = np.pad(pixels, [(0, 0), *pads], mode="edge")
    # One pixel more in front is what the first one moves over.
    extra = np.where(size > 1, 1, 0)
    begin = whole + [pad[0] for pad in pads] - extra
    part = tuple(slice(a, a + n) for a, n in zip(begin, size + extra, strict=True))
    inner = tuple(slice(e, None) for e in extra)
    fraction = np.where(size > 1, whole - start, 0.0)
    moved = [
        slide_frame(np.ascontiguousarray(channel), fraction, 3)[inner]
        for channel in wide[:, *part]
    ]
    return np.stack(moved)

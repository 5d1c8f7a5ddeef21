"""Measure what frames show beside a scene, by rings of frequencies."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._sampling.splines import bspline_weights
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.fft import forward, frequencies
from ..._spectral.ring_kernels import RING_MODES, RING_SHARE, ring_edges

__all__ = ["LEAST", "Noise", "measure_noise", "radial_frequencies", "ring_powers"]


# A Hann window blurs modes: of those in a plane about a third are independent.
INDEPENDENT = 0.35
# This share of a frame must lie on the picture.
LEAST = 0.1


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


def measure_noise(
    frames: list[Volume],
    shifts: Floats,
    picture: tuple[Volume, Ints],
    share: float,
    known: Flags | None = None,
) -> Noise:
    """Measure what a picture does not explain of frames that make a `share` of it each.

    A share of -p is that of a picture which is none of them, and has p times the noise
    of each. Its noise is damped where it is moved by parts of a pixel. The result is in
    grey values of the picture then, however bright each frame is.
    """
    left, gains = [], []
    part = max(-share, 0.0)
    for frame, shift in zip(frames, shifts, strict=True):
        scene, there = under_frame(*picture, shift, frame.shape)
        mask = there if known is None else there & known
        if mask.sum() < LEAST * mask.size:
            continue
        rest = np.zeros_like(frame)
        kept = _passed(frame.shape[1:], shift)
        for channel in range(len(frame)):
            a, b = frame[channel][mask], scene[channel][mask]
            a, b = a - a.mean(), b - b.mean()
            both = float((a * b).sum(dtype=float))
            own = max(float((b * b).sum(dtype=float)), 1e-30)
            gain = both / own
            if share <= 0:
                # Where both are noisy regression says too little: this is the gain at
                # which both show one scene, with noise in this proportion.
                less, whole = (1 - part) * both, float((a * a).sum(dtype=float))
                gain = (less + math.sqrt(less**2 + 4 * part * whole * own)) / (2 * own)
                a = a / max(gain, 1e-30)
                gain = 1.0
            rest[channel][mask] = a - gain * b
        # What does not count is zero, which takes its share of the power.
        left.append(rest / math.sqrt(float(mask.mean())))
        gains.append((1 + part * kept) / (1 + part))
    if not left:
        left = list(frames)
    radius, count, power = ring_powers(left, gains if share <= 0 and gains else None)
    alone = 1 / max(1 - share, 0.5)
    variance = float(np.mean([np.square(one).mean() for one in left]))
    return Noise(
        radius=radius,
        count=count,
        power=alone * power,
        variance=alone * variance,
    )

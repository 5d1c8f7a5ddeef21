"""Search an image that many frames are matched to, by whitened cross-correlation."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..._matching.phase_correlate import AMBIGUOUS, BELIEVED, ShiftEstimate, no_match
from ..._sampling.downsample import block_means
from ..._shared.arrays import Floats, Ints, Volume
from ..._shared.fft import fast_shape, forward, frequencies, inverse
from ..._shared.results import Outcome
from ..._spectral.peaks import (
    SEPARATION,
    chance_level,
    list_peaks,
    parabola_tops,
    wrap_lags,
)
from ..._spectral.ring_kernels import ring_gains, whiten_modes
from ..._spectral.tapers import block_tapers, taper_block
from .mean_image import PlacedImage

__all__ = [
    "RIVALS",
    "Bounds",
    "SearchTemplate",
    "known_core",
    "prepare_search",
    "search_template",
    "shrink_factor",
    "shrink_frame",
]

Tapers = tuple[Floats, Floats, Floats]

# Strongest rivals of a peak, whose likelihoods are compared
# (test_frames_of_few_hills_are_told_from_their_rivals).
RIVALS = 4
# Share of an image that is known for certain and looked at alone
# (test_dead_pixels_do_not_count).
CORE = 0.6
# Side of a frame, in pixels, below which it is not made smaller for the search
# (bench_series.py, speed).
SIDE = 160


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """Shifts that are searched, in whole pixels."""

    low: Ints  # (3,)
    high: Ints
    drifts: bool  # whether frames may go further, little by little


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchTemplate:
    """An image prepared for the search of frames.

    Frames are made smaller by `factor`; they may have channels that move together.
    """

    factor: int
    centre: Ints  # (3,) shift around which is searched, in whole steps of `factor`
    size: Ints  # (3,) of a small frame
    low: Ints  # (3,) lowest shift that is searched, from the centre, in small pixels
    high: Ints
    tapers: Tapers  # of a small frame
    shape: tuple[int, ...]  # of the transforms
    probes: list[NDArray[np.complex64]]  # a spectrum to search with, by channel


def shrink_factor(shape: tuple[int, ...]) -> int:
    """Return by how much frames of (planes, rows, cols) are made smaller."""
    return max(1, min(shape[1:]) // SIDE)


def shrink_frame(frame: Volume, factor: int) -> Volume:
    """Return the means of squares of pixels; what is left over at the ends is cut off."""
    if factor == 1:
        return frame
    return block_means(frame, (1, 1, factor, factor)).astype(np.float32, copy=False)


def prepare_search(
    image: PlacedImage,
    typical: Volume,
    bounds: Bounds,
    centre: Ints,
    factor: int = 1,
) -> SearchTemplate:
    """Prepare an image for the search of frames like a `typical` one around a shift."""
    steps = np.array([1, factor, factor])
    centre = np.rint(centre / steps).astype(np.intp) * steps
    small = shrink_frame(typical, factor)
    size = np.array(small.shape[1:])
    shape = fast_shape(tuple(size.tolist()))
    template = SearchTemplate(
        factor=factor,
        centre=centre,
        size=size,
        low=-(-bounds.low // steps) - (steps > 1),
        high=-(-bounds.high // steps) + (steps > 1),
        tapers=block_tapers(size, np.zeros(3), 0.0),
        shape=shape,
        probes=[],
    )
    middle = _under_centre(image, centre, typical.shape)
    freqs, ends = frequencies(shape), tuple(size.tolist())
    for channel, frame in zip(shrink_frame(middle, factor), small, strict=True):
        one, two = (_tapered_spectrum(template, image) for image in (channel, frame))
        rings, gain, limit, _ = ring_gains([one, two], shape, (ends, ends))
        whiten_modes(one, *freqs, rings, gain[0], limit[0])
        whiten_modes(one, *freqs, rings, gain[1], np.full(len(rings), 1e30))
        template.probes.append(np.conj(one))
    return template


def _under_centre(image: PlacedImage, centre: Ints, shape: tuple[int, ...]) -> Volume:
    """Return the part of an image under a frame; beyond its ends, the mean of it."""
    middle = np.zeros(shape, np.float32)
    start = centre - image.origin
    first = np.maximum(start, 0)
    stop = np.minimum(start + shape[1:], image.pixels.shape[1:])
    if (first < stop).all():
        part = tuple(map(slice, first, stop))
        to = tuple(map(slice, first - start, stop - start))
        for channel, out in zip(image.pixels, middle, strict=True):
            out[:] = channel[part].mean()
            out[to] = channel[part]
    return middle


def _tapered_spectrum(
    template: SearchTemplate, volume: Volume
) -> NDArray[np.complex64]:
    """Return the spectrum of a small frame under a taper."""
    canvas = np.zeros(template.shape, np.float32)
    taper_block(volume, np.zeros(3, np.intp), template.size, *template.tapers, canvas)
    return forward(canvas)


def search_template(template: SearchTemplate, frame: Volume) -> ShiftEstimate | None:
    """Return the best of the allowed shifts of a circular correlation."""
    small = shrink_frame(frame, template.factor)
    # This is the correlation turned round: a spectrum less needs to be conjugated.
    # What is infinite or unknown is found in the surface.
    with np.errstate(invalid="ignore", over="ignore"):
        product = template.probes[0] * _tapered_spectrum(template, small[0])
        for probe, channel in zip(template.probes[1:], small[1:], strict=True):
            product += probe * _tapered_spectrum(template, channel)
    surface = inverse(product, template.shape)
    lags, height = list_peaks(surface, 2.0, periodic=True)
    if not len(height) and not (surface.any() and np.isfinite(surface).all()):
        return None
    period = np.array(template.shape)
    signed = wrap_lags(-lags, period)
    order = np.flatnonzero(
        ((signed >= template.low) & (signed <= template.high)).all(axis=1)
    )
    if not len(order):
        return no_match(3, Outcome.NOT_FOUND)
    best = signed[order[0]]
    far = np.abs(wrap_lags(signed - best, period)).max(axis=1) > 2 * SEPARATION
    alarm, _ = chance_level(float(height[order[0]]), height[far], len(order))
    rivals = order[far[order] & (height[order] > AMBIGUOUS * height[order[0]])]
    shift = best - parabola_tops(surface, lags[order[:1]], True)[0]
    inner = (template.low < template.high) & (
        (best == template.low) | (best == template.high)
    )
    outcome = Outcome.MATCHED
    if alarm >= BELIEVED:
        outcome = Outcome.NOT_FOUND
    elif inner.any():
        outcome = Outcome.BEYOND_BOUND
    elif len(rivals):
        outcome = Outcome.AMBIGUOUS
    steps = np.array([1.0, template.factor, template.factor])
    places = np.array([shift, *signed[rivals[:RIVALS]]]) * steps + template.centre
    return replace(
        no_match(3, outcome),
        shift=places[0],
        false_alarm=float(alarm),
        alternatives=places,
    )


def known_core(image: PlacedImage) -> tuple[slice, ...]:
    """Return a box in which all is known, cut from the sides that lack the most.

    Where that would cost too much, it is the box around all that is known.
    """
    known = image.known
    if known is None:
        return tuple(slice(0, n) for n in image.pixels.shape[1:])
    rows = [
        np.flatnonzero(known.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)
    ]
    low = [int(row[0]) for row in rows]
    high = [int(row[-1]) + 1 for row in rows]
    around = tuple(map(slice, low, high))
    enough = CORE * known[around].size
    while True:
        inside = known[tuple(map(slice, low, high))]
        if inside.all():
            return tuple(map(slice, low, high))
        if inside.size < enough:
            return around
        lacks = [
            (1 - float(np.take(inside, end, axis=axis).mean()), axis, end)
            for axis in range(3)
            for end in (0, -1)
            if inside.shape[axis] > 1
        ]
        _, axis, end = max(lacks)
        if end == 0:
            low[axis] += 1
        else:
            high[axis] -= 1

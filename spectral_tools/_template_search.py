"""A picture that many frames are matched to, prepared for the search (floor 5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._correlation import BELIEVED, ShiftEstimate
from ._detection import chance_level, ring_gains
from ._fft import fast_shape, forward, frequencies, inverse
from ._outcomes import Outcome
from ._search_kernels import circular_peaks, parabola_tops
from ._spectral_kernels import edge_taper, ring_edges, taper_block, whiten_modes
from ._spline_kernels import spline_weights
from ._subpixel import RING_MODES, RING_SHARE, taper_width

__all__ = [
    "RIM",
    "Template",
    "for_part",
    "frame_spectra",
    "frame_tapers",
    "known_core",
    "make_probe",
    "no_match",
    "phase_turn",
    "search_template",
    "spline_turn",
    "tapered_spectrum",
    "window_sums",
]

Volume = NDArray[np.float32]
Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

# A second peak this close to the first leaves the answer open.
AMBIGUOUS = 0.85
# What is known for certain is looked at alone if it is this share of the picture.
CORE = 0.6
# What is unknown this near to the ends of a frame is lost in the taper: it weighs 8 %.
RIM = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Template:
    """A picture, and what a match of a frame needs of it.

    Pixel k of the picture lies at ``k + origin`` of the reference, and pixel k of a
    frame at ``k + shift``. Frames may have channels that move together.
    """

    pixels: Volume  # (channels, planes, rows, cols)
    known: NDArray[np.bool_]  # (planes, rows, cols)
    origin: Ints  # (3,)
    core: tuple[slice, ...]  # of the picture, where all of it is known
    size: Ints  # (3,) of a frame
    low: Ints  # (3,) lowest whole shift that is searched
    high: Ints
    tapers: tuple[Floats, Floats, Floats]  # of a frame
    shape: tuple[int, ...]  # of the transforms
    freqs: tuple[Floats, Floats, Floats]
    edges: Floats
    probes: list[NDArray[np.complex64]]  # a spectrum to search with, by channel
    crops: dict[tuple[int, ...], Any] = field(default_factory=dict)

    @property
    def lead(self) -> Ints:
        """Where the core begins."""
        return np.array([part.start for part in self.core], dtype=np.intp)


def make_probe(
    pixels: Volume,
    known: NDArray[np.bool_] | None,
    origin: Ints,
    typical: Volume,
    bounds: tuple[Ints, Ints],
) -> Template:
    """Prepare a picture for frames like a `typical` one, (channels, ..., cols)."""
    size = np.array(typical.shape[1:])
    rim = np.where(size > 1, RIM, 0)
    pads = [(int(n), int(n)) for n in rim]
    if known is None:
        known = np.ones(pixels.shape[1:], np.bool_)
    pixels, known = np.pad(pixels, [(0, 0), *pads], mode="edge"), np.pad(known, pads)
    origin = origin - rim
    pixels = _spread_edges(pixels, known)
    template = Template(
        pixels=pixels,
        known=known,
        origin=origin,
        core=known_core(known),
        size=size,
        low=bounds[0],
        high=bounds[1],
        probes=[],
        **_window(size),
    )
    shape, freqs = template.shape, template.freqs
    # The part of the picture that a frame covers at no shift, or as near as there is.
    start = np.clip(-origin, 0, np.maximum(np.array(pixels.shape[1:]) - size, 0))
    middle = np.zeros((len(pixels), *size), np.float32)
    inside = tuple(slice(0, n) for n in np.minimum(size, pixels.shape[1:]))
    part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    for channel, out in zip(pixels, middle, strict=True):
        out[inside] = channel[part]
    lag = start + origin
    sides = tuple(size.tolist())
    for channel, frame in zip(middle, typical, strict=True):
        one, two = (
            tapered_spectrum(template, channel, template.tapers),
            tapered_spectrum(template, frame, template.tapers),
        )
        rings, gain, limit = ring_gains([one, two], shape, (sides, sides))
        whiten_modes(one, *freqs, rings, gain[:, 0], limit[:, 0])
        whiten_modes(one, *freqs, rings, gain[:, 1], np.full(len(rings), 1e30))
        # Shifts count from where frames lie, not from where this part begins.
        moved = one * phase_turn(freqs, lag) if lag.any() else one
        template.probes.append(np.conj(moved))
    return template


def _window(size: Ints) -> dict[str, Any]:
    """Return the tapers and the transform of frames of a size."""
    shape = fast_shape(tuple(size.tolist()))
    tapers = frame_tapers(size, np.zeros(3))
    squares, fourths = window_sums(tapers, tapers)
    share = squares**2 / fourths / math.prod(shape)
    long = [n for n in size.tolist() if n > 1]
    width = math.prod(long) ** (-1 / len(long))
    freqs = frequencies(shape)
    edges = ring_edges(np.array(shape), width, share, RING_MODES, RING_SHARE)
    return {"tapers": tapers, "shape": shape, "freqs": freqs, "edges": edges}


def for_part(template: Template, size: Ints) -> Template:
    """Return the same picture for a part of a frame; it cannot be searched."""
    return replace(template, size=size, probes=[], crops={}, **_window(size))


def frame_tapers(size: Ints, move: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the tapers of a frame along its axes, moved by parts of a pixel."""
    first, second, third = (
        edge_taper(n, taper_width(n), m)
        for n, m in zip(size.tolist(), move.tolist(), strict=True)
    )
    return first, second, third


def phase_turn(
    freqs: tuple[Floats, Floats, Floats], shift: NDArray[Any]
) -> NDArray[np.complex64]:
    """Return what moves an image by a shift when its spectrum is multiplied by it."""
    first, second, third = (
        np.exp(-2j * math.pi * f * moved) for f, moved in zip(freqs, shift, strict=True)
    )
    turn = first[:, None, None] * second[:, None] * third
    return turn.astype(np.complex64)


def spline_turn(
    freqs: tuple[Floats, Floats, Floats], shift: NDArray[Any]
) -> NDArray[np.complex64]:
    """Return what a cubic spline does to a spectrum when it moves an image.

    It moves by whole pixels exactly, and passes less of high frequencies in between.
    """
    turns = []
    for f, moved in zip(freqs, shift.tolist(), strict=True):
        whole = math.floor(moved + 1e-9)
        part = max(moved - whole, 0.0)
        turn = np.exp(-2j * math.pi * f * whole)
        if part > 0:
            weights = np.empty((4, 1))
            spline_weights(3, np.array([1 - part]), 1, weights)
            bumps = np.exp(2j * math.pi * f[:, None] * np.arange(-2, 2)) @ weights[:, 0]
            turn *= bumps / (2 / 3 + np.cos(2 * math.pi * f) / 3)
        turns.append(turn)
    first, second, third = turns
    return (first[:, None, None] * second[:, None] * third).astype(np.complex64)


def window_sums(one: Sequence[Floats], two: Sequence[Floats]) -> tuple[float, float]:
    """Return the sums of the product of two windows, and of its square."""
    products = [a * b for a, b in zip(one, two, strict=True)]
    return (
        math.prod(float(p.sum()) for p in products),
        math.prod(float((p * p).sum()) for p in products),
    )


def tapered_spectrum(
    template: Template, volume: Volume, tapers: tuple[Floats, Floats, Floats]
) -> NDArray[np.complex64]:
    """Return the transform of a frame that fades at its ends."""
    canvas = np.zeros(template.shape, np.float32)
    taper_block(volume, np.zeros(3, np.intp), template.size, *tapers, canvas)
    return forward(canvas)


def frame_spectra(template: Template, frame: Volume) -> list[NDArray[np.complex64]]:
    """Return the transforms of the channels of a frame."""
    return [tapered_spectrum(template, channel, template.tapers) for channel in frame]


def search_template(
    template: Template, spectra: list[NDArray[np.complex64]]
) -> ShiftEstimate | None:
    """Return the best of the allowed shifts of a circular correlation."""
    # This is the correlation turned round: a spectrum less needs to be conjugated.
    product = template.probes[0] * spectra[0]
    for probe, one in zip(template.probes[1:], spectra[1:], strict=True):
        product += probe * one
    surface = inverse(product, template.shape)
    spread = math.sqrt(float(np.vdot(surface, surface)) / surface.size)
    if not spread > 0 or not math.isfinite(spread):
        return None
    where, height = circular_peaks(surface, 2.0 * spread)
    period = np.array(template.shape)
    lags = np.stack(np.unravel_index(where, template.shape), axis=1)
    signed = (period // 2 - lags) % period - period // 2
    signed[:, period == 1] = 0
    allowed = ((signed >= template.low) & (signed <= template.high)).all(axis=1)
    if not allowed.any():
        return no_match(3, Outcome.NOT_FOUND)
    order = np.flatnonzero(allowed)[np.argsort(-height[allowed], kind="stable")]
    best = signed[order[0]]
    apart = (signed - best + period // 2) % period - period // 2
    far = np.abs(apart).max(axis=1) > 6
    alarm, _ = chance_level(
        float(height[order[0]]), height[far], max(int(allowed.sum()), 1)
    )
    rivals = height[far & allowed]
    rival = float(rivals.max(initial=0.0))
    shift = best - parabola_tops(surface, lags[order[:1]], True)[0]
    inner = (template.low < template.high) & (
        (best == template.low) | (best == template.high)
    )
    outcome = Outcome.MATCHED
    if alarm >= BELIEVED:
        outcome = Outcome.NOT_FOUND
    elif inner.any():
        outcome = Outcome.BEYOND_BOUND
    elif rival > AMBIGUOUS * height[order[0]]:
        outcome = Outcome.AMBIGUOUS
    return replace(
        no_match(3, outcome), shift=shift.astype(np.float64), false_alarm=float(alarm)
    )


def _spread_edges(pixels: Volume, known: NDArray[np.bool_]) -> Volume:
    """Let what is known go on for a few pixels into what is not."""
    if known[
        tuple(slice(RIM, -RIM) if n > 2 * RIM else slice(None) for n in known.shape)
    ].all():
        return pixels
    pixels, known = pixels.copy(), known.copy()
    for _ in range(RIM):
        for axis in range(3):
            if known.shape[axis] == 1:
                continue
            front = (slice(None),) * axis + (slice(None, -1),)
            back = (slice(None),) * axis + (slice(1, None),)
            for here, there in ((front, back), (back, front)):
                new = known[there] & ~known[here]
                for channel in pixels:
                    np.copyto(channel[here], channel[there].copy(), where=new)
                known[here] |= new
    return pixels


def known_core(known: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return a box in which all is known, cut from the sides that lack the most.

    Where that would cost too much, it is the box around all that is known.
    """
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


def no_match(ndim: int, outcome: Outcome) -> ShiftEstimate:
    """Return the estimate of a frame that tells nothing."""
    return ShiftEstimate(
        shift=np.zeros(ndim),
        covariance=np.diag(np.full(ndim, np.inf)),
        correlation=0.0,
        false_alarm=1.0,
        overlap=0.0,
        alternatives=np.zeros((1, ndim)),
        outcome=outcome,
    )

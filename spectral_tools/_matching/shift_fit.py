"""Fit a shift to a fraction of a pixel by spectral maximum likelihood.

Phases are weighted as Knapp & Carter (1976) do, :doi:`10.1109/TASSP.1976.1162830`, with
the coherence that the pair itself shows. The arithmetic of a step is in
`phase_fit_kernels`; `window_batches` takes the same steps for many windows at once.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import overlap_block
from .._shared.fft import fast_shape, forward_pair, frequencies
from .._spectral.peaks import SEPARATION
from .._spectral.phase_fit_kernels import fit_step, name_step, ring_sums
from .._spectral.ring_kernels import flatten_modes, rings_of
from .._spectral.tapers import (
    RING,
    fade,
    fade_masked,
    rim_slopes,
    short_axes,
    taper_width,
)

__all__ = [
    "COHERENT",
    "FIT_ROUNDS",
    "NEWTON_STEPS",
    "REMAINDER",
    "SLOW",
    "SLOWEST",
    "STEP_FLOOR",
    "STEP_SIGMAS",
    "ShiftFit",
    "TaperedSpectra",
    "fit_shift",
    "nearest_whole",
    "uncertainty_factor",
]

# The significance of its fit is at least this, in standard deviations
# (test_detail_that_folds_at_half_the_resolution_does_not_mislead).
COHERENT = 8.0
# Rounds of a fit, in each of which the tapers follow, at most
# (test_a_strip_of_a_smooth_scene_is_found).
FIT_ROUNDS = 10
# Newton steps in each, at most (test_fit_finds_its_way_from_a_pixel_and_a_half).
NEWTON_STEPS = 3
# A whole shift is kept up to this distance from it, in pixels; half a pixel would let
# fits change sides for ever (test_fit_ends_where_it_ends_however_it_starts).
HALF = 0.6
# A step below this, in pixels, is the last (test_exact_crops_without_noise_are_found).
STEP_FLOOR = 2e-4
# A step below this share of a standard error is the last
# (test_crops_come_close_to_the_bound).
STEP_SIGMAS = 0.1
# The share of an error that a step, or the tapers of a first round, leave until it is
# measured (test_fit_ends_where_it_ends_however_it_starts).
REMAINDER = 0.1
# Above this share an approach is slow, and extrapolated
# (test_a_strip_of_a_smooth_scene_is_found).
SLOW = 0.3
# More than this share is no approach (test_a_fit_that_was_cut_short_says_so).
SLOWEST = 0.8
# The weights rest on a coherence that is itself found in the noise: that adds this
# over the squared significance to the variance (test_covariance_of_crops_is_honest,
# test_many_pairs_deep_in_noise_come_close_to_the_bound).
UNSURE = 36.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftFit:
    """What one fit found; all vectors have three axes."""

    shift: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: float
    significance: float
    coarse: float  # significance of what half the resolution shows too
    steps: int
    blocks: "TaperedSpectra"
    table: NDArray[np.float64]  # sums over rings, before the last step


def fit_shift(
    reference: NDArray[np.float32],
    moving: NDArray[np.float32],
    start: NDArray[np.float64],
    *,
    exponent: float = -1.0,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
    rounds: int = FIT_ROUNDS,
    rough: int = 2,
) -> ShiftFit | None:
    """Refine the shift `start` of two volumes; None where nothing is coherent.

    # Strategy: the transform of a crop is not that of the scene, so both images
    # are cut to what is common at the nearest whole shift, and the tapers of the
    # two blocks are moved apart by the remaining fraction, so that they fade
    # the same content. The fraction is fitted to the phases of all modes,
    # weighted by their measured coherence; a better fraction moves the
    # tapers, until the step is small.
    """
    shift = start.copy()
    active = np.maximum(reference.shape, moving.shape) > 1
    moved, used = math.inf, 0
    whole = np.rint(shift)
    while True:
        used += 1
        whole = nearest_whole(shift, whole)
        blocks = _tapered_spectra(reference, moving, shift, whole, exponent, valid)
        if blocks is None:
            return None
        step = _newton_fit(blocks, shift, active, exponent, rough)
        # What goes as far as to another peak has lost its own.
        if step is None or _largest(step.shift - start) > SEPARATION + 1:
            return None
        move = step.shift - shift
        taken = _largest(move)
        # Each round leaves about the same share of the error to the next.
        share = min(taken / moved, SLOWEST) if math.isfinite(moved) else REMAINDER
        left = share / (1 - share)
        shift, moved = step.shift, taken
        if taken * left < _tolerance(step, active) or used == rounds:
            break
        rough = step.rough
        if share > SLOW:
            # Where that share is large the rounds to come are taken at once (Aitken).
            shift, moved = shift + move * min(left, 0.3 / taken), math.inf
    # What further rounds would still change is not known.
    rest = move * left
    doubt = uncertainty_factor(step.significance)
    return ShiftFit(
        shift=shift,
        covariance=step.covariance * doubt + np.outer(rest, rest),
        correlation=step.correlation,
        significance=step.significance,
        coarse=_significance_of_coarse(blocks, step, active),
        steps=used,
        blocks=blocks,
        table=step.table,
    )


def nearest_whole(
    shift: NDArray[np.float64], last: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the nearest whole shift, or the last one if that is hardly further."""
    # Half a pixel on, fits would cut one way and the other in turn, and never settle.
    return np.where(np.abs(shift - last) < HALF, last, np.rint(shift))


def _newton_fit(
    blocks: "TaperedSpectra",
    before: NDArray[np.float64],
    active: NDArray[np.bool_],
    exponent: float,
    rough: int,
) -> "_NewtonStep | None":
    """Fit the shift for tapers that stay, and say where those that follow would be."""
    shift = before.copy()
    for count in range(1, NEWTON_STEPS + 1):
        rough = rough if count == 1 else max(rough - 1, 0)
        step = _newton_step(blocks, shift, active, exponent, rough)
        if step is None:
            return None
        shift += np.minimum(np.maximum(step.step, -0.4), 0.4)
        # What the next tapers will change again need not be fitted.
        enough = max(_tolerance(step, active), 0.05 * _largest(shift - before))
        settled = REMAINDER * _largest(step.step) < enough and rough == 0
        if settled or count == NEWTON_STEPS:
            return replace(
                step,
                shift=before + (shift - before) * step.beyond,
                rough=max(rough - 1, 0),
            )
    return None


def _significance_of_coarse(
    blocks: "TaperedSpectra", step: "_NewtonStep", active: NDArray[np.bool_]
) -> float:
    """Return the significance of detail of at least four pixels."""
    table = step.table.copy()
    # Finer rings tell only how much of the rest is faint.
    table[blocks.edges > 1 / 16, RING.common :] = 0
    known = name_step(fit_step(table, blocks.share, blocks.rims, active, True, 0))
    return float(known.significance)


def _tolerance(step: "_NewtonStep", active: NDArray[np.bool_]) -> float:
    """Return the error that does not matter."""
    variance = min(step.covariance[axis, axis] for axis in range(3) if active[axis])
    return max(STEP_FLOOR, STEP_SIGMAS * math.sqrt(variance))


def _largest(vector: NDArray[np.float64]) -> float:
    return max(abs(value) for value in vector.tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaperedSpectra:
    """What two images share at a whole shift, and what it was cut with."""

    whole: NDArray[np.float64]
    block: NDArray[np.intp]
    shape: tuple[int, ...]  # of the transform
    spectra: tuple[NDArray[np.complex64], NDArray[np.complex64]]
    freqs: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    even: bool
    edges: NDArray[np.float64]
    share: float  # independent modes for each mode of the transform
    rims: NDArray[np.float64]  # mean square slope of the taper, spread over rings
    short: NDArray[np.float64]  # variance that short axes add
    correlation: float | None  # of whitened blocks, before they were whitened


def _tapered_spectra(
    reference: NDArray[np.float32],
    moving: NDArray[np.float32],
    shift: NDArray[np.float64],
    whole: NDArray[np.float64],
    exponent: float,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
) -> TaperedSpectra | None:
    """Cut, taper and transform what the two images share at `shift`."""
    sizes = np.array(reference.shape), np.array(moving.shape)
    *starts, block = overlap_block(*sizes, whole.astype(np.intp))
    if block.min() < 1 or block.max() < 4:
        return None
    shape = fast_shape(tuple(block))
    canvas = np.zeros((2, *shape), np.float32)
    images = reference, moving
    fraction = shift - whole
    if valid is None:
        windows = fade(images, starts, block, fraction, canvas)
    else:
        windows = fade_masked(images, valid, starts, block, fraction, canvas)
    if windows.fourths <= 0:
        return None
    pair = forward_pair(canvas)
    spectra = pair[0], pair[1]
    freqs = frequencies(shape)
    even = shape[2] % 2 == 0
    correlation = None
    if exponent >= 0:
        everything = np.array([1.0])
        table = ring_sums(*spectra, *freqs, even, fraction, everything)[0]
        power = math.sqrt(table[RING.power0] * table[RING.power1])
        common = float(table[RING.common])
        correlation = float(np.clip(common / power, -1, 1)) if power > 0 else 0.0
        for spectrum in spectra:
            flatten_modes(spectrum, exponent)
    share = windows.squares**2 / windows.fourths / math.prod(shape)
    edges = rings_of(shape, tuple(block.tolist()), share)
    widths = np.array([taper_width(size) for size in block.tolist()])
    return TaperedSpectra(
        whole=whole,
        block=block,
        shape=shape,
        spectra=spectra,
        freqs=freqs,
        even=even,
        edges=edges,
        share=share,
        rims=rim_slopes(edges, windows.sides, widths),
        short=short_axes(block),
        correlation=correlation,
    )


def uncertainty_factor(significance: float) -> float:
    """Return what the error of its weights adds to the covariance of a fit."""
    return 1 + UNSURE / max(significance, 1.0) ** 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _NewtonStep:
    step: NDArray[np.float64]
    shift: NDArray[np.float64]  # after the step
    covariance: NDArray[np.float64]
    correlation: float
    significance: float
    beyond: NDArray[np.float64]
    table: NDArray[np.float64]  # sums over rings, before the step
    rough: int  # of the next step


def _newton_step(
    blocks: TaperedSpectra,
    shift: NDArray[np.float64],
    active: NDArray[np.bool_],
    exponent: float,
    rough: int,
) -> _NewtonStep | None:
    """Return one Newton step on the weighted cross-spectrum, and what it knows."""
    fraction = shift - blocks.whole
    table = ring_sums(
        *blocks.spectra, *blocks.freqs, blocks.even, fraction, blocks.edges
    )
    known = name_step(
        fit_step(table, blocks.share, blocks.rims, active, exponent < 0, rough)
    )
    if not known.fitted:
        return None
    correlation = blocks.correlation
    return _NewtonStep(
        step=known.step,
        shift=shift + known.step,
        covariance=known.covariance + np.diag(blocks.short),
        correlation=float(known.correlation) if correlation is None else correlation,
        significance=float(known.significance),
        beyond=known.beyond,
        table=table,
        rough=max(rough - 1, 0),
    )

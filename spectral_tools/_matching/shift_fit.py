"""Fit shifts to a fraction of a pixel by spectral maximum likelihood.

Phases are weighted as Knapp & Carter (1976) do, :doi:`10.1109/TASSP.1976.1162830`, with
the coherence that each pair itself shows. The arithmetic of a step is in
`phase_fit_kernels`.

The transform of a crop is not that of the scene. So both images are cut to what they
share at the nearest whole shift, and the tapers of the two blocks are moved apart by the
fraction that remains, so that they fade the same content. The fraction is fitted to
the phases of all modes, weighted by their measured coherence; a better fraction moves
the tapers, until the step is small.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._sampling.boxes import overlap_block
from .._shared.arrays import Flags, Floats, Ints, MaskPair, Spectrum, Volume, VolumePair
from .._shared.compiled import compiled
from .._shared.fft import fast_shape, forward_stack, frequencies
from .._spectral.gain_gradient import gain_slopes
from .._spectral.peaks import SEPARATION
from .._spectral.phase_fit_kernels import STEP, fit_step, name_step, ring_sums
from .._spectral.ring_kernels import flatten_modes, rings_of
from .._spectral.tapers import (
    RING,
    edge_taper,
    fade_blocks,
    fade_masked,
    rim_slopes,
    short_axes,
    taper_width,
    taper_widths,
)

__all__ = [
    "COHERENT",
    "FIT_ROUNDS",
    "STEP_FLOOR",
    "ShiftFit",
    "TaperedSpectra",
    "coarse_significance",
    "cut_overlap",
    "fit_shift",
    "fit_windows",
]

# The significance of a fit is at least this, in standard deviations
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
class TaperedSpectra:
    """What windows of two images share at whole shifts, and what they were cut with."""

    whole: Floats  # (n, 3)
    block: Ints  # (3,), pixels of a window
    shape: tuple[int, ...]  # of the transform
    spectra: Spectrum  # (n, 2, ...), of both images
    freqs: tuple[Floats, Floats, Floats]
    edges: Floats  # of rings
    sums: Floats  # (n, 5), over the tapers, as `fade_blocks` returns them

    @property
    def even(self) -> bool:
        """Whether the last column of a spectrum is stored twice."""
        return self.shape[2] % 2 == 0

    @property
    def share(self) -> float:
        """Independent modes for each mode of the transform of the first window."""
        return float(self.sums[0, 0] ** 2 / self.sums[0, 1] / math.prod(self.shape))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftFit:
    """What one fit found; all vectors have three axes."""

    shift: Floats
    covariance: Floats
    correlation: float
    significance: float
    rounds: int
    blocks: TaperedSpectra


class WindowFits(NamedTuple):
    """What fits found; a window that is not `done` has to be looked at alone."""

    shift: Floats
    covariance: Floats
    correlation: Floats
    significance: Floats
    found: Flags
    done: Flags


# What is cut of some rows at shifts and whole shifts, and of which rows.
Cut = Callable[[Ints, Floats, Floats], tuple[Flags, TaperedSpectra | None]]


def fit_shift(
    reference: Volume,
    moving: Volume,
    start: Floats,
    *,
    exponent: float = -1.0,
    valid: MaskPair | None = None,
    rounds: int = FIT_ROUNDS,
    rough: int = 2,
) -> ShiftFit | None:
    """Refine the shift `start` of two volumes; None where nothing is coherent."""
    # Parts of larger images have another layout; kernels are compiled for each.
    images = np.ascontiguousarray(reference), np.ascontiguousarray(moving)
    used: list[TaperedSpectra] = []
    likeness: list[float] = []

    def cut(
        rows: Ints, shift: Floats, whole: Floats
    ) -> tuple[Flags, TaperedSpectra | None]:
        blocks = cut_overlap(images, shift, whole, valid)
        if blocks is not None:
            used.append(blocks)
            if exponent >= 0:
                # The correlation is that of the images as they are.
                likeness.append(_correlation(blocks, shift[0]))
                for spectrum in blocks.spectra[0]:
                    flatten_modes(spectrum, exponent)
        return np.full(len(rows), blocks is not None), blocks

    active = np.maximum(reference.shape, moving.shape) > 1
    fits = _fit_rounds(start[None], cut, active, exponent < 0, rough, rounds)
    if not fits.found[0]:
        return None
    return ShiftFit(
        shift=fits.shift[0],
        covariance=fits.covariance[0],
        correlation=likeness[-1] if likeness else float(fits.correlation[0]),
        significance=float(fits.significance[0]),
        rounds=len(used),
        blocks=used[-1],
    )


def coarse_significance(fit: ShiftFit) -> float:
    """Return the significance of detail of at least four pixels."""
    blocks = fit.blocks
    table = _ring_table(blocks, fit.shift, blocks.edges)
    # Finer rings tell only how much of the rest is faint.
    table[blocks.edges > 1 / 16, RING.common :] = 0
    rims = np.zeros((len(table), 3))
    told = fit_step(table, blocks.share, rims, blocks.block > 1, True, 0)
    return float(name_step(told).significance)


def fit_windows(
    images: VolumePair, low: Ints, block: Ints, start: Floats, rounds: int = FIT_ROUNDS
) -> WindowFits:
    """Refine the shifts `start` of windows of one shape.

    The windows of the moving image move by whole pixels with their content, so that
    no pixel of those of the reference is lost; one that leaves the image, or meets
    pixels that do not count, is not done.
    """
    active, size = np.array(images[0].shape) > 1, np.array(images[1].shape)
    # A sum is finite only if all that is summed is.
    finite = math.isfinite(float(images[1].sum()))

    def cut(
        rows: Ints, shift: Floats, whole: Floats
    ) -> tuple[Flags, TaperedSpectra | None]:
        second = low[rows] - whole.astype(np.intp)
        inside: Flags = np.all((second >= 0) & (second + block <= size), axis=1)
        if not finite:
            for row in np.flatnonzero(inside):
                window = tuple(map(slice, second[row], second[row] + block))
                inside[row] = math.isfinite(float(images[1][window].sum()))
        if not inside.any():
            return inside, None
        starts = low[rows[inside]], second[inside]
        return inside, _cut_windows(images, starts, block, shift[inside], whole[inside])

    return _fit_rounds(start, cut, active, True, 2, rounds)


def cut_overlap(
    images: VolumePair, shift: Floats, whole: Floats, valid: MaskPair | None
) -> TaperedSpectra | None:
    """Cut all that two images share; None if that is nothing."""
    sizes = np.array(images[0].shape), np.array(images[1].shape)
    *starts, block = overlap_block(*sizes, whole[0].astype(np.intp))
    if block.min() < 1 or block.max() < 4:
        return None
    if valid is None:
        first, second = starts[0][np.newaxis], starts[1][np.newaxis]
        return _cut_windows(images, (first, second), block, shift, whole)
    canvas = _canvas(1, block)
    sums = fade_masked(images, valid, starts, block, (shift - whole)[0], canvas[0])
    if not sums[1] > 0:
        return None
    return _transform(canvas, block, whole, sums[np.newaxis], sums[:2].tolist())


def _cut_windows(
    images: VolumePair,
    low: tuple[Ints, Ints],
    block: Ints,
    shift: Floats,
    whole: Floats,
) -> TaperedSpectra:
    """Cut windows at whole shifts, with tapers that are apart by the rest of the shifts."""
    canvas = _canvas(len(shift), block)
    sums = fade_windows(
        *images, *low, block, shift - whole, taper_widths(block), canvas
    )
    # The rings of all windows are those of windows that lie on each other.
    squares = [edge_taper(n, taper_width(n), 0.0) ** 2 for n in block.tolist()]
    typical = [math.prod(float((s**p).sum()) for s in squares) for p in (1, 2)]
    return _transform(canvas, block, whole, sums, typical)


def _canvas(count: int, block: Ints) -> Volume:
    return np.zeros((count, 2, *fast_shape(tuple(block.tolist()))), np.float32)


def _transform(
    canvas: Volume, block: Ints, whole: Floats, sums: Floats, typical: Sequence[float]
) -> TaperedSpectra:
    """Transform windows, and choose rings by sums over the tapers of a typical one."""
    shape = canvas.shape[2:]
    share = typical[0] ** 2 / typical[1] / math.prod(shape)
    return TaperedSpectra(
        whole=whole,
        block=block,
        shape=shape,
        spectra=forward_stack(canvas),
        freqs=frequencies(shape),
        edges=rings_of(shape, tuple(block.tolist()), share),
        sums=sums,
    )


def _ring_table(blocks: TaperedSpectra, shift: Floats, edges: Floats) -> Floats:
    """Return the sums over rings of the first window, at a shift."""
    first, second = blocks.spectra[0]
    fraction = shift - blocks.whole[0]
    return ring_sums(first, second, *blocks.freqs, blocks.even, fraction, edges)


def _correlation(blocks: TaperedSpectra, shift: Floats) -> float:
    """Return the correlation of what the first window shows of both images."""
    table = _ring_table(blocks, shift, np.array([1.0]))[0]
    power = math.sqrt(table[RING.power0] * table[RING.power1])
    return float(np.clip(table[RING.common] / power, -1, 1)) if power > 0 else 0.0


def _fit_rounds(
    start: Floats, cut: Cut, active: Flags, weighted: bool, rough: int, rounds: int
) -> WindowFits:
    """Fit shifts in rounds, in each of which the tapers follow what the last one found."""
    count = len(start)
    shift, moved = start.copy(), np.full(count, np.inf)
    table, rest = np.zeros((count, STEP.width)), np.zeros((count, 3))
    done, rows, whole = np.ones(count, np.bool_), np.arange(count), np.rint(shift)
    for number in range(rounds):
        # Half a pixel on, fits would cut one way and the other in turn, and never settle.
        whole = np.where(np.abs(shift - whole) < HALF, whole, np.rint(shift))
        inside, blocks = cut(rows, shift[rows], whole[rows])
        done[rows[~inside]] = False
        rows = rows[inside]
        if blocks is None:
            break
        step_rows = fit_fractions(
            blocks.spectra,
            *blocks.freqs,
            blocks.even,
            blocks.sums,
            shift[rows] - blocks.whole,
            blocks.edges,
            taper_widths(blocks.block),
            active,
            short_axes(blocks.block),
            weighted,
            # Only a first round begins far from its end.
            0 if number else rough,
        )
        table[rows], step = step_rows, name_step(step_rows)
        goal = blocks.whole + step.step
        move = goal - shift[rows]
        taken = np.abs(move).max(axis=1)
        # Each round leaves about the same share of the error to the next.
        known = np.isfinite(moved[rows])
        share = np.where(known, np.minimum(taken / moved[rows], SLOWEST), REMAINDER)
        left = share / (1 - share)
        # What goes as far as to another peak has lost its own.
        near = np.abs(goal - start[rows]).max(axis=1) <= SEPARATION + 1
        table[rows, STEP.fitted] *= near
        shift[rows], moved[rows] = goal, taken
        rest[rows] = move * left[:, np.newaxis]
        more = (taken * left >= step.tolerance) & step.fitted & near
        slow = more & (share > SLOW) & (number + 1 < rounds)
        # Where that share is large the rounds to come are taken at once (Aitken).
        further = np.minimum(left, 0.3 / np.maximum(taken, 1e-12))[slow]
        shift[rows[slow]] += move[slow] * further[:, np.newaxis]
        moved[rows[slow]] = np.inf
        rows = rows[more]
        if not len(rows):
            break
    told = name_step(table)
    doubt = 1 + UNSURE / np.maximum(told.significance, 1.0) ** 2
    # What further rounds would still change is not known.
    covariance = (
        told.covariance * doubt[:, None, None] + rest[:, :, None] * rest[:, None]
    )
    return WindowFits(
        shift=shift,
        covariance=covariance,
        correlation=told.correlation,
        significance=told.significance,
        found=told.fitted & done,
        done=done,
    )


@compiled
def fade_windows(
    first: Volume,
    second: Volume,
    low0: Ints,
    low1: Ints,
    block: Ints,
    fraction: Floats,
    width: Floats,
    canvas: Volume,
) -> Floats:
    """Write windows of both images, faded at their edges, as `fade_blocks` does.

    Overlaps lie at opposite edges of two fields of view, where light falls off in
    opposite directions, and the brighter half of a detail would pull towards it.
    """
    sums = np.empty((len(low0), 5))
    for w in range(len(low0)):
        gain = gain_slopes(first, second, low0[w], low1[w], block)
        sums[w] = fade_blocks(
            first, second, low0[w], low1[w], block, fraction[w], width, gain, canvas[w]
        )
    return sums


@compiled
def fit_fractions(
    spectra: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    even: bool,
    sums: Floats,
    before: Floats,
    edges: Floats,
    width: Floats,
    active: Flags,
    short: Floats,
    weighted: bool,
    first_rough: int,
) -> Floats:
    """Fit the fractions of shifts for tapers that stay, from the fractions before.

    The columns are those of `STEP`, with where tapers that follow would be for the step.
    """
    told = np.zeros((len(spectra), STEP.width))
    modes = (
        spectra.shape[2] * spectra.shape[3] * (2 * (spectra.shape[4] - 1) + (not even))
    )
    for w in range(len(spectra)):
        share = sums[w, 0] ** 2 / sums[w, 1] / modes
        rims = rim_slopes(edges, sums[w, 2:].copy(), width)
        shift = before[w].copy()
        rough = first_rough
        for _ in range(NEWTON_STEPS):
            table = ring_sums(
                spectra[w, 0], spectra[w, 1], freq0, freq1, freq2, even, shift, edges
            )
            step = fit_step(table, share, rims, active, weighted, rough)
            told[w, STEP.fitted] = step[STEP.fitted]
            if not step[STEP.fitted]:
                break
            least, taken, moved = np.inf, 0.0, 0.0
            for axis in range(3):
                if active[axis]:
                    least = min(least, step[STEP.covariance + 4 * axis] + short[axis])
                taken = max(taken, abs(step[axis]))
                shift[axis] += min(max(step[axis], -0.4), 0.4)
                moved = max(moved, abs(shift[axis] - before[w, axis]))
            enough = max(STEP_FLOOR, STEP_SIGMAS * math.sqrt(least))
            told[w, STEP.tolerance] = enough
            for column in range(STEP.covariance, STEP.fitted):
                told[w, column] = step[column]
            for axis in range(3):
                away = shift[axis] - before[w, axis]
                told[w, axis] = before[w, axis] + away * step[STEP.beyond + axis]
            # What the next tapers will change again need not be fitted.
            if REMAINDER * taken < max(enough, 0.05 * moved) and not rough:
                break
            rough = max(rough - 1, 0)
        for axis in range(3):
            told[w, STEP.covariance + 4 * axis] += short[axis]
    return told

"""Fit a shift to a fraction of a pixel by spectral maximum likelihood (floor 3)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._fft import fast_shape, fftfreq, forward, rfftfreq
from ._fit_kernels import fit_step, ring_sums
from ._ndimage import distance_transform_edt, shift_image
from ._spectral_kernels import edge_taper, flatten_modes, ring_edges, taper_block

__all__ = ["ShiftFit", "fit_shift", "overlap_block"]

# Width of the tapers: thin, because each pixel that fades is lost, but not
# thinner than 6 px, because a steeper edge no longer follows the content exactly.
TAPER_FRACTION, TAPER_WIDTH = 0.04, 6.0
# A ring averages at least this many modes and this share of its own frequency.
RING_MODES, RING_SHARE = 12.0, 0.1
ROUNDS, STEPS, TRAVEL = 10, 3, 4.0
# The fit ends when a step is below both a fixed and a statistical limit.
STEP_FLOOR, STEP_SIGMAS = 2e-4, 0.1
# The share of an error that the tapers keep from being seen in the first round.
FOLLOW = 0.1
# The share of an error that a Newton step leaves, at most.
NEWTON = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftFit:
    """What one fit found; all vectors have three axes."""

    shift: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: float
    significance: float
    steps: int


def overlap_block(
    shape0: NDArray[np.intp], shape1: NDArray[np.intp], whole: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return where the common block starts in each image, and its shape."""
    start = np.maximum(0, whole)
    stop = np.minimum(shape0, shape1 + whole)
    return start, start - whole, np.maximum(stop - start, 0)


def fit_shift(
    reference: NDArray[np.float32],
    moving: NDArray[np.float32],
    start: NDArray[np.float64],
    *,
    exponent: float = -1.0,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
    rounds: int = ROUNDS,
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
    moved = np.inf
    for used in range(1, rounds + 1):
        before = shift.copy()
        blocks = _cut(reference, moving, shift, exponent, valid)
        if blocks is None:
            return None
        fraction = shift - blocks.whole
        for _ in range(STEPS):
            fit = _step(blocks, fraction, active, exponent)
            if fit is None:
                return None
            fraction += np.minimum(np.maximum(fit.step, -0.4), 0.4)
            # What the next tapers will change again need not be fitted.
            taken = _longest(fraction + blocks.whole - before)
            sigma = math.sqrt(min(fit.covariance[i, i] for i in range(3) if active[i]))
            enough = max(STEP_FLOOR, STEP_SIGMAS * sigma)
            if NEWTON * _longest(fit.step) < max(enough, 0.05 * taken):
                break
        shift = before + (blocks.whole + fraction - before) * fit.beyond
        taken = _longest(shift - before)
        if _longest(shift - start) > TRAVEL:
            return None
        # Each round leaves about the same share of the error to the next.
        left = taken * min(max(taken / moved, FOLLOW if used == 1 else 0.0), 0.5)
        moved = taken
        if left < enough:
            break
    return ShiftFit(
        shift=shift,
        covariance=fit.covariance,
        correlation=fit.correlation,
        significance=fit.significance,
        steps=used,
    )


def _longest(vector: NDArray[np.float64]) -> float:
    return max(abs(value) for value in vector.tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    whole: NDArray[np.float64]
    spectra: tuple[NDArray[np.complex64], NDArray[np.complex64]]
    freqs: list[NDArray[np.float64]]
    edges: NDArray[np.float64]
    shape: tuple[int, ...]
    share: float  # independent modes for each mode of the transform
    sides: NDArray[np.float64]  # mean square slope of the taper over its mean square


def _cut(
    reference: NDArray[np.float32],
    moving: NDArray[np.float32],
    shift: NDArray[np.float64],
    exponent: float,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
) -> _Blocks | None:
    """Cut, taper and transform what the two images share at `shift`."""
    whole = np.rint(shift)
    start0, start1, block = overlap_block(
        np.array(reference.shape), np.array(moving.shape), whole.astype(np.intp)
    )
    if block.min() < 1 or block.max() < 4:
        return None
    fraction = shift - whole
    shape = fast_shape(tuple(block))
    outs = np.zeros((2, *shape), np.float32)
    tapers = [
        [_taper(int(n), side * f) for n, f in zip(block, fraction, strict=True)]
        for side in (0.5, -0.5)
    ]
    if valid is None:
        for image, begin, weights, out in zip(
            (reference, moving), (start0, start1), tapers, outs, strict=True
        ):
            taper_block(image, begin, block, *weights, out)
        products = [first * second for first, second in zip(*tapers, strict=True)]
        squares = math.prod(float(p.sum()) for p in products)
        fourths = math.prod(float((p * p).sum()) for p in products)
        sides = np.array([_steepness(weights, 0) for weights in tapers[0]])
    else:
        pair = _masked_tapers(valid, start0, start1, block, fraction, tapers)
        inside = tuple(slice(0, int(n)) for n in block)
        for image, begin, weights, out in zip(
            (reference, moving), (start0, start1), pair, outs, strict=True
        ):
            total = weights.sum()
            if total <= 0:
                return None
            cut = image[
                tuple(slice(b, b + n) for b, n in zip(begin, block, strict=True))
            ]
            out[inside] = (cut - (cut * weights).sum() / total) * weights
        product = pair[0] * pair[1]
        squares, fourths = float(product.sum()), float((product * product).sum())
        sides = np.array([_steepness(pair[0], axis) for axis in range(3)])
    if fourths <= 0:
        return None
    spectra = forward(outs[0]), forward(outs[1])
    if exponent >= 0:
        for spectrum in spectra:
            flatten_modes(spectrum, exponent)
    share = squares * squares / fourths / math.prod(shape)
    width = math.exp(-np.log(block[block > 1]).mean())
    return _Blocks(
        whole=whole,
        spectra=spectra,
        freqs=[fftfreq(shape[0]), fftfreq(shape[1]), rfftfreq(shape[2])],
        edges=ring_edges(np.array(shape), width, share, RING_MODES, RING_SHARE),
        shape=shape,
        share=share,
        sides=sides,
    )


def _taper(size: int, shift: float) -> NDArray[np.float64]:
    width = min(max(TAPER_FRACTION * size, TAPER_WIDTH), size / 4)
    return edge_taper(size, width, shift)


def _steepness(weights: NDArray[np.float64], axis: int) -> float:
    if weights.shape[axis] < 2:
        return 0.0
    slope = np.diff(weights, axis=axis)
    return float((slope * slope).sum() / (weights * weights).sum())


def _masked_tapers(
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    start0: NDArray[np.intp],
    start1: NDArray[np.intp],
    block: NDArray[np.intp],
    fraction: NDArray[np.float64],
    tapers: list[list[NDArray[np.float64]]],
) -> list[NDArray[np.float64]]:
    """Return tapers that also fade out towards pixels not valid in either image."""
    cuts = [
        mask[tuple(slice(b, b + n) for b, n in zip(begin, block, strict=True))]
        for mask, begin in zip(valid, (start0, start1), strict=True)
    ]
    common = cuts[0] & cuts[1]
    # A hole must stay out of both blocks wherever the taper moves to.
    depth = distance_transform_edt(common) - 1.0 if not common.all() else None
    result = []
    for side, weights in zip((0.5, -0.5), tapers, strict=True):
        window = weights[0][:, None, None] * weights[1][:, None] * weights[2]
        if depth is not None:
            fade = np.sin(0.5 * np.pi * np.clip(depth / TAPER_WIDTH, 0, 1)) ** 2
            window = window * shift_image(fade, side * fraction) * common
        result.append(window)
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    step: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: float
    significance: float
    beyond: NDArray[np.float64]


def _step(
    blocks: _Blocks,
    fraction: NDArray[np.float64],
    active: NDArray[np.bool_],
    exponent: float,
) -> _Step | None:
    """Return one Newton step on the weighted cross-spectrum, and what it knows."""
    first, second = blocks.spectra
    even = blocks.shape[2] % 2 == 0
    table = ring_sums(first, second, *blocks.freqs, even, fraction, blocks.edges)
    known = fit_step(table, blocks.share, blocks.sides, active, exponent < 0)
    if not known[14]:
        return None
    return _Step(
        step=known[:3],
        covariance=known[3:12].reshape(3, 3),
        correlation=float(known[12]),
        significance=float(known[13]),
        beyond=known[15:],
    )

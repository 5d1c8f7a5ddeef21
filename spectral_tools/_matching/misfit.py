"""How far the parts of an overlap contradict one shift, and what that adds to its error.

Lenses bend, specimens stretch, stages turn: then each part of an overlap has a shift of
its own, and the scatter of the parts, not the noise of the pixels, is the error of
the one shift that is asked for. It is the random-effects model of DerSimonian & Laird
(1986), :doi:`10.1016/0197-2456(86)90046-2`, with parts that resemble their neighbours.
"""

import math
from typing import NamedTuple

import numpy as np

from .._shared.arrays import Floats, Ints, MaskPair, VolumePair
from .._shared.statistics import chi_square_limit
from .local_agreement import SHORTEST, cut_cells
from .shift_fit import COHERENT, STEP_FLOOR, ShiftFit, fit_windows

__all__ = ["Misfit", "measure_misfit"]

# So many parts are compared, or fewer where these tell too little
# (test_bent_overlaps_state_what_they_are_wrong_by).
PARTS = 16, 8, 4


class Misfit(NamedTuple):
    """What the parts of an overlap say together."""

    sigmas: float  # rms difference of the parts in their own standard errors
    covariance: Floats  # (3, 3)
    scatter: float  # rms difference beyond their errors, in pixels
    curvature: float  # what of it no linear change along the overlap explains


def measure_misfit(
    images: VolumePair,
    fit: ShiftFit,
    valid: MaskPair | None,
    believed: float,
) -> Misfit:
    """Fit each part of an overlap by itself, and compare them.

    Parts that differ as chance would with a probability that is `believed` are one.
    """
    axes = np.flatnonzero(fit.blocks.block > 1)
    plain = Misfit(math.nan, fit.covariance, math.nan, math.nan)
    # Cells were cut for a whole shift; from half a pixel on they would be cut for the next.
    whole = fit.blocks.whole[0]
    start = np.clip(fit.shift, whole - 0.49, whole + 0.49)
    for number in PARTS:
        cells = cut_cells(images, fit, number, 2 * SHORTEST, valid)
        parts = fit_windows(
            images,
            cells.low[0],
            cells.size,
            np.tile(start, (len(cells.place), 1)),
        )
        told = (cells.share == 1) & parts.found & parts.done
        told &= parts.significance >= COHERENT
        told &= np.isfinite(parts.covariance).all(axis=(1, 2))
        if told.sum() > len(axes):
            break
    else:
        return plain
    shifts = parts.shift[told][:, axes]
    errors = parts.covariance[told][:, axes[:, None], axes]
    # Without noise errors may be rounded to nothing.
    errors = errors + STEP_FLOOR**2 * np.eye(len(axes))
    away = shifts - _weighted_mean(shifts, errors)[0]
    square = float(np.einsum("ni,nij,nj->", away, np.linalg.inv(errors), away))
    freedom = (len(away) - 1) * len(axes)
    sigmas = math.sqrt(square / freedom)
    if square < chi_square_limit(freedom, believed):
        return plain._replace(sigmas=sigmas, scatter=0.0, curvature=0.0)
    scatter = _beyond_errors(away, errors, len(away) - 1)
    place = cells.place[told]
    design = np.column_stack([np.ones(len(place)), place])
    curved = away - design @ np.linalg.lstsq(design, away)[0]
    free = len(away) - np.linalg.matrix_rank(design)
    rest = _beyond_errors(curved, errors, free) if free > 0 else scatter
    mean, covariance = _weighted_mean(shifts, errors + scatter)
    alike = _resemblance(shifts - mean, scatter, place)
    # Parts that are wholly alike are one.
    covariance = covariance * math.prod(
        min((1 + r) / max(1 - r, 1 / count), float(count))
        for r, count in zip(alike, cells.number, strict=True)
    )
    total = fit.covariance.copy()
    total[np.ix_(axes, axes)] += covariance
    rms = [math.sqrt(float(np.trace(each))) for each in (scatter, rest)]
    return Misfit(sigmas, total, rms[0], min(rms))


def _beyond_errors(away: Floats, errors: Floats, free: int) -> Floats:
    """Return the scatter (ndim, ndim) of differences that errors do not explain."""
    values, vectors = np.linalg.eigh(away.T @ away / free - errors.mean(axis=0))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _weighted_mean(shifts: Floats, errors: Floats) -> tuple[Floats, Floats]:
    weights = np.linalg.inv(errors)
    covariance = np.linalg.inv(weights.sum(axis=0))
    return covariance @ np.einsum("nij,nj->i", weights, shifts), covariance


def _resemblance(away: Floats, scatter: Floats, place: Ints) -> list[float]:
    """Return the correlation of neighbouring parts along each axis, 0 to 1."""
    total = float(np.trace(scatter))
    alike = []
    at = {tuple(each): n for n, each in enumerate(place.tolist())}
    for axis in range(3):
        step = np.eye(3, dtype=np.intp)[axis]
        pairs = [
            (n, at[tuple(there)])
            for n, there in enumerate((place + step).tolist())
            if tuple(there) in at
        ]
        product = 0.0
        if pairs and total > 0:
            one, other = np.array(pairs).T
            product = float((away[one] * away[other]).sum(axis=1).mean()) / total
        alike.append(float(np.clip(product, 0.0, 1.0)))
    return alike

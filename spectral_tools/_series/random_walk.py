"""Bridge frames that were not matched, and smooth slow drift."""

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats
from .._shared.compiled import compiled

__all__ = ["complete_walk"]


# A frame that is known exactly, such as the reference, has this variance here.
EXACT = 1e-12
# Without any idea how far frames move, a step may be this long, in pixels.
STEP = 1.0


@compiled
def smooth_walk(
    seen: Floats, precision: Floats, variance: float
) -> tuple[Floats, Floats]:
    """Return the most probable walk, and its covariance at each step.

    Parameters
    ----------
    seen : ndarray of shape (n, ndim)
        Where the walk was seen.
    precision : ndarray of shape (n, ndim, ndim)
        Inverse covariances; 0 where it was not seen.
    variance : float
        Of each coordinate of a step.
    """
    # Strategy: what comes from before and what comes from behind are sent along the
    # walk as a precision and its product with a mean; zero is no knowledge.
    n, ndim = seen.shape
    whole = np.eye(ndim)
    matrix = np.zeros((2, n, ndim, ndim))
    vector = np.zeros((2, n, ndim))
    for way in range(2):
        for k in range(1, n):
            here, last = (k, k - 1) if way == 0 else (n - 1 - k, n - k)
            told = precision[last] + matrix[way, last]
            value = vector[way, last].copy()
            for i in range(ndim):
                for j in range(ndim):
                    value[i] += precision[last, i, j] * seen[last, j]
            damp = np.linalg.inv(whole + variance * told)
            for i in range(ndim):
                for j in range(ndim):
                    vector[way, here, i] += damp[i, j] * value[j]
                    for m in range(ndim):
                        matrix[way, here, i, j] += damp[i, m] * told[m, j]
    walk = np.zeros_like(seen)
    covariance = np.zeros_like(precision)
    for k in range(n):
        covariance[k] = np.linalg.inv(precision[k] + matrix[0, k] + matrix[1, k])
        for i in range(ndim):
            for j in range(ndim):
                value_j = vector[0, k, j] + vector[1, k, j]
                for m in range(ndim):
                    value_j += precision[k, j, m] * seen[k, m]
                walk[k, i] += covariance[k, i, j] * value_j
    return walk, covariance


def complete_walk(
    shifts: Floats, covariance: Floats, known: NDArray[np.bool_], sigma: float | None
) -> tuple[Floats, Floats]:
    """Return shifts in which frames that are not known follow from their neighbours.

    Parameters
    ----------
    shifts : ndarray of shape (n, ndim)
        Shifts; only those that are known count.
    covariance : ndarray of shape (n, ndim, ndim)
        Their covariances.
    known : ndarray of bool of shape (n,)
        Which frames are known.
    sigma : float, optional
        Standard deviation of a step from frame to frame along each axis. By default
        it is measured, and frames that are known stay as they are.
    """
    ndim = shifts.shape[1]
    if not known.any():
        nothing = np.diag(np.full(ndim, np.inf))
        return np.zeros_like(shifts), np.tile(nothing, (len(shifts), 1, 1))
    if known.all() and sigma is None:
        return shifts.copy(), covariance.copy()
    step = _typical_step(shifts, known) if sigma is None else sigma
    precision = np.zeros_like(covariance)
    there = covariance[known] + EXACT * np.eye(ndim)
    precision[known] = np.linalg.inv(there)
    seen = np.where(known[:, None], shifts, 0.0)
    walk, spread = smooth_walk(seen, precision, max(step, 1e-6) ** 2)
    if sigma is None:
        walk[known], spread[known] = shifts[known], covariance[known]
    return walk, spread


def _typical_step(shifts: Floats, known: NDArray[np.bool_]) -> float:
    """Return the median step between neighbours, as a standard deviation."""
    pairs = known[1:] & known[:-1]
    if pairs.sum() < 2:
        return STEP
    steps = np.diff(shifts, axis=0)[pairs]
    return float(np.sqrt(np.mean(steps**2)))

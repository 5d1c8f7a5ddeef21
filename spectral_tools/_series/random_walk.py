"""Bridge frames that were not matched, and smooth slow drift."""

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats
from .walk_kernels import smooth_walk

__all__ = ["complete_walk"]


# A frame that is known exactly, such as the reference, has this variance here.
EXACT = 1e-12
# Without any idea how far frames move, a step may be this long, in pixels.
STEP = 1.0


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

"""Smooth a random walk that was seen with errors, compiled."""

import numpy as np

from .._shared.arrays import Floats
from .._shared.compiled import compiled

__all__ = ["smooth_walk"]


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

"""Which displacements fit to those around them, before any field is fitted."""

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Floats

__all__ = ["fits_neighbours"]


# Neighbours for each unknown of a linear field, enough to outvote a third that lie.
PER_UNKNOWN = 6
# Rounds in which neighbours far from the field around a point lose their weight.
ROUNDS = 8
# A point is out of place where it misses by so many times the usual miss of its
# neighbours. It is no verdict, only where a robust fit starts.
TOLERANCE = 5.0
# The least usual miss, as a share of that of all points.
SHARE = 0.5


def fits_neighbours(points: Floats, values: Floats) -> NDArray[np.bool_]:
    """Tell which values are near the linear field that most neighbours follow.

    It is the normalised residual test of flow fields [Westerweel & Scarano 2005],
    with a linear field in place of the median.

    Parameters
    ----------
    points : ndarray of shape (n, ndim)
        Where values belong.
    values : ndarray of shape (n, k)
        Displacements.

    Returns
    -------
    ndarray of bool, shape (n,)
        False for values that are out of place.
    """
    from scipy.spatial import cKDTree  # noqa: PLC0415

    count, ndim = points.shape
    near = min(PER_UNKNOWN * (ndim + 1), count - 1)
    if near < 2 * (ndim + 1):
        return np.ones(count, np.bool_)
    around = np.asarray(cKDTree(points).query(points, near + 1)[1])[:, 1:]
    away = points[around] - points[:, None]
    # Points that coincide with all their neighbours tell of no slope.
    reach = np.abs(away).max(axis=(1, 2), keepdims=True)
    reach[reach == 0] = 1.0
    terms = np.concatenate([away / reach, np.ones((count, near, 1))], axis=2)
    told = values[around]
    weights = np.ones((count, near))
    for _ in range(ROUNDS):
        turned = (terms * weights[:, :, None]).transpose(0, 2, 1)
        # A trace of an identity keeps neighbours on one line from being an error.
        normal = turned @ terms + 1e-9 * near * np.eye(ndim + 1)
        field = np.linalg.solve(normal, turned @ told)
        misses = np.linalg.norm(told - terms @ field, axis=2)
        usual = np.median(misses, axis=1, keepdims=True)
        weights = 1 / np.maximum(misses, 0.1 * usual + 1e-12)
    miss = np.linalg.norm(values - field[:, -1], axis=1)
    least = SHARE * float(np.median(usual)) + 1e-9
    return np.asarray(miss <= TOLERANCE * np.maximum(usual[:, 0], least))

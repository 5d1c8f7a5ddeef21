"""Rotations in the plane and in space, many at once."""

import numpy as np

from .._shared.arrays import Floats

__all__ = ["nearest_rotations", "rotations"]


def rotations(vectors: Floats) -> Floats:
    """Return rotation matrices of angles (n, 1) or of rotation vectors (n, 3)."""
    if vectors.shape[1] == 1:
        cosine, sine = np.cos(vectors[:, 0]), np.sin(vectors[:, 0])
        rows = [[cosine, -sine], [sine, cosine]]
        return np.array(rows).transpose(2, 0, 1)
    angle = np.linalg.norm(vectors, axis=1)[:, np.newaxis, np.newaxis]
    skew = np.cross(np.eye(3), vectors[:, np.newaxis])
    # Series of sin(a) / a and (1 - cos(a)) / a^2, without their poles at zero.
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + first * skew + second * (skew @ skew))


def nearest_rotations(matrices: Floats) -> Floats:
    """Return the rotation nearest to each matrix of shape (ndim, ndim).

    Where a matrix leaves it open, the rotation is as small as possible.
    """
    ndim = matrices.shape[-1]
    size = np.abs(matrices).max(axis=(1, 2), initial=0)[:, np.newaxis, np.newaxis]
    left, _, right = np.linalg.svd(matrices + (1e-9 * size + 1e-300) * np.eye(ndim))
    right[:, -1] *= np.linalg.det(left @ right)[:, np.newaxis]
    return np.asarray(left @ right)

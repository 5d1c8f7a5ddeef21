"""Transforms of points as homogeneous matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import as_coordinates, as_matrix, as_point
from .point_maps import (
    TransformEstimate,
    inverse_points,
    known_points,
    map_of,
    map_points,
)

__all__ = [
    "apply_transform",
    "nearest_rotations",
    "points_apart",
    "rotation",
    "rotations",
    "swap_xy_matrix",
    "swap_xy_points",
    "translation",
]


@checked
def translation(shift: ArrayLike) -> NDArray[np.float64]:
    """Return the matrix of a translation.

    Parameters
    ----------
    shift : array_like of shape (ndim,)
        Translation (row, col) or (plane, row, col), in pixels.

    Returns
    -------
    ndarray of shape (ndim + 1, ndim + 1)
        Homogeneous matrix that adds `shift` to a point.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.translation((2, -1))
    array([[ 1.,  0.,  2.],
           [ 0.,  1., -1.],
           [ 0.,  0.,  1.]])
    """
    vector = as_point(shift, "shift")
    matrix = np.eye(len(vector) + 1)
    matrix[:-1, -1] = vector
    return matrix


@checked
def rotation(angle: float, *, center: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the matrix of a rotation in the plane.

    Parameters
    ----------
    angle : float
        Angle in radians, positive counter-clockwise as an image is displayed:
        columns to the right and rows downwards.
    center : array_like of shape (2,), optional
        Point (row, col) that stays where it is; by default the origin, which
        is the centre of the first pixel.

    Returns
    -------
    ndarray of shape (3, 3)
        Homogeneous matrix for points (row, col).

    Examples
    --------
    A quarter turn brings the point on the right to the top:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> quarter = spt.rotation(np.pi / 2, center=(5, 5))
    >>> spt.apply_transform(quarter, [(5, 8)]).round(6)
    array([[2., 5.]])
    """
    if not np.isfinite(angle):
        message = f"`angle` must be finite; got {angle}."
        raise ValueError(message)
    pivot = np.zeros(2) if center is None else as_point(center, "center", ndim=2)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:2, 2] = pivot - matrix[:2, :2] @ pivot
    return matrix


@checked
def apply_transform(
    matrix: ArrayLike | TransformEstimate, points: ArrayLike, *, inverse: bool = False
) -> NDArray[np.float64]:
    """Move points with a transform.

    Parameters
    ----------
    matrix : array_like of shape (ndim + 1, ndim + 1) or TransformEstimate
        Homogeneous matrix, also of a projective transform, or what
        `estimate_transform` found, also a polynomial.
    points : array_like of shape (..., ndim)
        Points (row, col) or (plane, row, col), in pixels; NaN where they are missing.
    inverse : bool, optional
        Move points the other way, for instance to ask which pixel of the moving image,
        or which spectrum of a map, a point of the reference shows.

    Returns
    -------
    ndarray of shape (..., ndim)
        The moved points; NaN where they are missing, on the horizon of a projective
        transform, and where one that is turned round leads nowhere.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.apply_transform(spt.translation((2, -1)), [(0, 0), (10, 20)])
    array([[ 2., -1.],
           [12., 19.]])
    >>> spt.apply_transform(spt.translation((2, -1)), [(12, 19)], inverse=True)
    array([[10., 20.]])
    """
    if isinstance(matrix, TransformEstimate):
        ndim = len(matrix.center)
        given = as_coordinates(points, "points", ndim=ndim)
        move = inverse_points if inverse else map_points
        moved = move(map_of(matrix), given.reshape(-1, ndim))
        return known_points(moved).reshape(given.shape)
    square = as_matrix(matrix, "matrix")
    if inverse:
        if not abs(np.linalg.det(square)) > 0:
            message = "`matrix` must be invertible; got a singular one."
            raise ValueError(message)
        square = np.linalg.inv(square).astype(np.float64, copy=False)
    ndim = len(square) - 1
    given = as_coordinates(points, "points", ndim=ndim)
    moved = given @ square[:-1, :-1].T + square[:-1, -1]
    last = np.zeros(ndim + 1)
    last[-1] = 1
    if not np.array_equal(square[-1], last):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moved /= (given @ square[-1, :-1] + square[-1, -1])[..., np.newaxis]
    return known_points(moved)


@checked
def swap_xy_points(points: ArrayLike) -> NDArray[np.float64]:
    """Convert points between (x, y) order and array order.

    scikit-image's transforms, OpenCV and ITK list points as (x, y) or
    (x, y, z); here they are (row, col) or (plane, row, col). Either way the
    order is reversed, so this function is its own inverse.

    Parameters
    ----------
    points : array_like of shape (..., ndim)
        Points in one order; NaN where they are missing.

    Returns
    -------
    ndarray of shape (..., ndim)
        The same points in the other order.

    See Also
    --------
    swap_xy_matrix : The same for matrices.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.swap_xy_points([(640, 480)])
    array([[480., 640.]])
    """
    return as_coordinates(points, "points")[..., ::-1].copy()


@checked
def swap_xy_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """Convert a matrix between (x, y) order and array order.

    The result does to (row, col) or (plane, row, col) what `matrix` does to
    (x, y) or (x, y, z), and the other way round. Which image it leads to does
    not change: see the conventions for when to invert.

    Parameters
    ----------
    matrix : array_like of shape (ndim + 1, ndim + 1) or (ndim, ndim + 1)
        Homogeneous matrix in one order. OpenCV's affine matrices, which lack
        the last row, are completed.

    Returns
    -------
    ndarray of shape (ndim + 1, ndim + 1)
        The same transform in the other order.

    See Also
    --------
    swap_xy_points : The same for points.

    Examples
    --------
    An affine matrix of OpenCV that moves 5 px to the right and 2 px down:

    >>> import spectral_tools as spt
    >>> spt.swap_xy_matrix([[1, 0, 5], [0, 1, 2]])
    array([[1., 0., 2.],
           [0., 1., 5.],
           [0., 0., 1.]])
    """
    given = np.asarray(matrix)
    if given.shape in ((2, 3), (3, 4)):
        given = np.vstack([given, np.eye(given.shape[1])[-1]])
    square = as_matrix(given, "matrix")
    # All axes but the homogeneous one change places: (1, 0, 2) or (2, 1, 0, 3).
    order = [*range(len(square) - 2, -1, -1), len(square) - 1]
    return square[np.ix_(order, order)]


def points_apart(
    matrices: NDArray[np.float64],
    pairs: NDArray[np.intp],
    reference: NDArray[np.float64],
    moving: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return reference points less moving points, in the mosaic."""
    ends = []
    for points, tiles in zip((reference, moving), pairs.T, strict=True):
        linear, shift = matrices[tiles, :-1, :-1], matrices[tiles, :-1, -1]
        ends.append((linear @ points[:, :, np.newaxis])[:, :, 0] + shift)
    return np.asarray(ends[0] - ends[1])


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

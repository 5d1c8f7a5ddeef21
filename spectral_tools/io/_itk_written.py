"""Matrices, meshes and grids as transforms of ITK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from .._shared.checks import as_finite, as_matrix, as_point, as_points, as_shape
from .._transforms.matrices import swap_xy_matrix
from ._itk_text import AFFINE, GRID, MESH, RIGID, SIMILARITY, ITKTransform
from ._itk_transforms import turned

__all__ = ["grid_to_itk", "matrix_to_itk", "points_to_itk"]

Kind = Literal["affine", "similarity", "rigid"]

# Cells of the grid in which a program looks up the triangles of a mesh, as it is
# written by those that know the format.
LOOK_UP = 16
# How far a matrix may be from the kind that it is written as: rounding.
SAME = 1e-9


def matrix_to_itk(
    matrix: ArrayLike,
    *,
    kind: Kind = "affine",
    center: ArrayLike = (0, 0),
    forward: bool = False,
) -> ITKTransform:
    """Return a matrix as a transform of ITK.

    Parameters
    ----------
    matrix : array_like of shape (3, 3)
        Matrix for points (row, col), from moving to reference or from tile to mosaic.
    kind : {"affine", "similarity", "rigid"}, optional
        What it is written as; a matrix that is none such is refused.
    center : array_like of shape (2,), optional
        Centre of rotation (row, col), which other programs keep.
    forward : bool, optional
        Write the transform from moving to reference, as nornir reads it.

    Returns
    -------
    ITKTransform
        For `format_itk`, `write_stos` and `write_mosaic`.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> matrix = spt.rotation(np.pi / 2, center=(10, 20))
    >>> transform = spt.io.matrix_to_itk(matrix, kind="rigid", center=(10, 20))
    >>> transform.parameters.round(3), transform.fixed_parameters
    (array([1.571, 0.   , 0.   ]), array([20., 10.]))
    """
    if kind not in get_args(Kind):
        message = f"`kind` must be one of {get_args(Kind)}; got {kind!r}."
        raise ValueError(message)
    given = as_matrix(matrix, "matrix")
    middle = as_point(center, "center", ndim=2)[::-1]
    if given.shape != (3, 3) or (given[2] != (0, 0, 1)).any():
        message = f"`matrix` must be affine and of shape (3, 3); got {given.tolist()}."
        raise ValueError(message)
    if not forward:
        if not abs(np.linalg.det(given[:2, :2])) > 0:
            message = f"`matrix` must have an inverse; got {given.tolist()}."
            raise ValueError(message)
        given = np.linalg.inv(given).astype(np.float64)
    wanted = swap_xy_matrix(given)
    linear = wanted[:2, :2]
    shift = wanted[:2, 2] - middle + linear @ middle
    angle = np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])
    scale = np.sqrt(abs(np.linalg.det(linear))) if kind == "similarity" else 1.0
    if kind == "affine":
        # Two more numbers belong to the format, a scale that nobody applies.
        numbers, fixed = [*linear.ravel(), *shift, 1, 1], middle
    elif kind == "similarity":
        numbers, fixed = [scale, angle, *middle, *shift], np.empty(0)
    else:
        numbers, fixed = [angle, *shift], middle
    made = np.abs(turned(angle, scale) - linear).max()
    if kind != "affine" and made > SAME * np.abs(linear).max():
        message = f"`matrix` must be a {kind} one; got {given[:2, :2].tolist()}."
        raise ValueError(message)
    name = {"affine": AFFINE, "similarity": SIMILARITY, "rigid": RIGID}[kind]
    return _made(name, numbers, fixed)


def points_to_itk(
    reference_points: ArrayLike, moving_points: ArrayLike, moving_shape: Sequence[int]
) -> ITKTransform:
    """Return pairs of points as a mesh of ITK.

    Parameters
    ----------
    reference_points : array_like of shape (n, 2)
        Points (row, col) in the reference image or the mosaic.
    moving_points : array_like of shape (n, 2)
        The same points in the moving image or the tile.
    moving_shape : sequence of 2 int
        Shape of that image or tile; the format stores its points as fractions of it.

    Returns
    -------
    ITKTransform
        A ``MeshTransform_double_2_2``. Fractions cost `moving_points` their last
        bit, unless the sides are powers of 2.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> transform = spt.io.points_to_itk([(20, 70)], [(10, 50)], (40, 100))
    >>> transform.parameters
    array([ 0.5 ,  0.25, 70.  , 20.  ])
    """
    reference = as_points(reference_points, "reference_points", ndim=2)
    moving = as_points(moving_points, "moving_points", ndim=2)
    if len(moving) != len(reference):
        message = (
            f"`moving_points` must be as many as `reference_points`, "
            f"{len(reference)}; got {len(moving)}."
        )
        raise ValueError(message)
    size = as_shape(moving_shape, "moving_shape", ndim=2)[::-1]
    pairs = np.concatenate([moving[:, ::-1] / size, reference[:, ::-1]], axis=1)
    fixed = [0, LOOK_UP, LOOK_UP, 0, 0, *size, len(pairs)]
    return _made(MESH, pairs, fixed)


def grid_to_itk(
    reference_points: ArrayLike, moving_shape: Sequence[int]
) -> ITKTransform:
    """Return a grid of points as a transform of ITK.

    Parameters
    ----------
    reference_points : array_like of shape (rows, cols, 2)
        Where the points of a regular grid, from corner to corner of the moving
        image or tile, lie in the reference image or the mosaic, as (row, col).
    moving_shape : sequence of 2 int
        Shape of that image or tile.

    Returns
    -------
    ITKTransform
        A ``GridTransform_double_2_2``.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> corners = np.stack(np.meshgrid([0.0, 40], [0.0, 100], indexing="ij"), axis=-1)
    >>> transform = spt.io.grid_to_itk(corners + 7, (40, 100))
    >>> spt.io.itk_points(transform).moving_points[0]
    array([[  0.,   0.],
           [  0., 100.]])
    """
    points = as_finite(reference_points, "reference_points")
    if points.ndim != 3 or points.shape[2] != 2 or min(points.shape) < 2:
        message = (
            "`reference_points` must have shape (rows, cols, 2) with 2 rows and "
            f"columns or more; got {points.shape}."
        )
        raise ValueError(message)
    size = as_shape(moving_shape, "moving_shape", ndim=2)[::-1]
    cells = (points.shape[0] - 1, points.shape[1] - 1)
    return _made(GRID, points[..., ::-1], [0, *cells, 0, 0, *size])


def _made(name: str, parameters: ArrayLike, fixed: ArrayLike) -> ITKTransform:
    return ITKTransform(
        name=name,
        parameters=np.array(parameters, np.float64).ravel(),
        fixed_parameters=np.array(fixed, np.float64).ravel(),
    )

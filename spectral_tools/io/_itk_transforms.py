"""ITK's transforms as matrices, control points and polynomials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import ArrayLike

from .._shared.arrays import Floats
from .._shared.checks import as_points
from .._transforms.matrices import apply_transform, swap_xy_matrix
from ._itk_text import (
    AFFINE,
    GRID,
    MESH,
    RIGID,
    SIMILARITY,
    ITKTransform,
    check_whole,
    degree_of,
    kind_of,
)

__all__ = [
    "ControlPoints",
    "itk_matrix",
    "itk_points",
    "map_itk",
    "turned",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ControlPoints:
    """Points of two images that belong together.

    Attributes
    ----------
    reference_points : ndarray of shape (n, 2) or (rows, cols, 2)
        Points (row, col) in the reference image or the mosaic.
    moving_points : ndarray of shape (n, 2) or (rows, cols, 2)
        The same points in the moving image or the tile.
    """

    reference_points: Floats
    moving_points: Floats


def itk_matrix(transform: ITKTransform, *, forward: bool = False) -> Floats:
    """Return the matrix of a transform.

    Parameters
    ----------
    transform : ITKTransform
        Rigid, similarity, affine, translation, or a polynomial of degree 1.
    forward : bool, optional
        The transform leads from moving to reference already, as nornir writes those
        that have an angle. ITK's own lead from reference to moving, because that is
        how images are resampled, and so does every other kind.

    Returns
    -------
    ndarray of shape (3, 3)
        Matrix for points (row, col), from moving to reference or from tile to
        mosaic, in the unit of the transform: pixels if its spacing is 1.

    See Also
    --------
    matrix_to_itk : The way back.

    Examples
    --------
    A tile whose centre is at column 300 and row 50 of a mosaic:

    >>> import spectral_tools as spt
    >>> name = "LegendrePolynomialTransform_double_2_2_1"
    >>> text = f"{name} vp 6 1 0 1 1 1 0 fp 4 300 50 64 32"
    >>> spt.io.itk_matrix(spt.io.parse_itk(text))
    array([[  1.,   0.,  18.],
           [  0.,   1., 236.],
           [  0.,   0.,   1.]])
    """
    check_whole(transform)
    parameters, fixed = transform.parameters, transform.fixed_parameters
    if kind_of(transform.name) in FORMULAS:
        found = FORMULAS[kind_of(transform.name)](parameters, fixed)
    else:
        found = _linear_part(transform)
    if forward:
        return swap_xy_matrix(found)
    if not abs(np.linalg.det(found[:2, :2])) > 0 or not np.isfinite(found).all():
        message = f"`transform` must have an inverse; got {found[:2].tolist()}."
        raise ValueError(message)
    inverse: Floats = np.linalg.inv(swap_xy_matrix(found)).astype(np.float64)
    return inverse


def itk_points(transform: ITKTransform) -> ControlPoints:
    """Return the control points of a mesh or a grid.

    Parameters
    ----------
    transform : ITKTransform
        ``MeshTransform_double_2_2`` or ``GridTransform_double_2_2``.

    Returns
    -------
    ControlPoints
        Pairs of points; those of a grid in its shape. `fit_displacement` makes a
        smooth field of them.

    See Also
    --------
    points_to_itk, grid_to_itk : The way back.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> text = "MeshTransform_double_2_2 vp 4 0.5 0.25 70 20 fp 8 0 16 16 0 0 100 40 1"
    >>> points = spt.io.itk_points(spt.io.parse_itk(text))
    >>> points.moving_points, points.reference_points
    (array([[10., 50.]]), array([[20., 70.]]))
    """
    check_whole(transform)
    fixed = transform.fixed_parameters
    if kind_of(transform.name) == MESH:
        numbers = transform.parameters.reshape(-1, 4)
        fractions, points = numbers[:, :2], numbers[:, 2:]
    elif kind_of(transform.name) == GRID:
        rows, cols = (int(cells) + 1 for cells in fixed[1:3])
        points = transform.parameters.reshape(rows, cols, 2)
        fractions = _grid_fractions(rows, cols)
    else:
        message = f"`transform` must be a mesh or a grid; got {transform.name}."
        raise ValueError(message)
    tile = fractions * fixed[5:7] + fixed[3:5]
    # The first number is not 0 if the transform was turned round.
    ends = (points, tile) if fixed[0] == 0 else (tile, points)
    reference, moving = (np.array(each[..., ::-1]) for each in ends)
    return ControlPoints(reference_points=reference, moving_points=moving)


def map_itk(transform: ITKTransform, reference_points: ArrayLike) -> Floats:
    """Map points by a transform, in ITK's own direction.

    Parameters
    ----------
    transform : ITKTransform
        A polynomial, or anything that `itk_matrix` takes.
    reference_points : array_like of shape (n, 2)
        Points (row, col) in the reference image or the mosaic.

    Returns
    -------
    ndarray of shape (n, 2)
        The same points in the moving image or the tile. A polynomial has no inverse
        in closed form: this is the direction in which images are resampled.

    Examples
    --------
    A tile that is stretched towards its right border:

    >>> import spectral_tools as spt
    >>> name = "LegendrePolynomialTransform_double_2_2_2"
    >>> numbers = "1 0 1 0 0 0.5 1 1 0 0 0 0"
    >>> transform = spt.io.parse_itk(f"{name} vp 12 {numbers} fp 4 50 50 50 50")
    >>> spt.io.map_itk(transform, [(0, 0), (0, 50), (0, 100)]).round(1)
    array([[  0. ,  25. ],
           [  0. ,  37.5],
           [  0. , 125. ]])
    """
    points = as_points(reference_points, "reference_points", ndim=2)
    check_whole(transform)
    degree = degree_of(transform.name)
    if degree is None:
        return apply_transform(itk_matrix(transform, forward=True), points)
    center, half = transform.fixed_parameters[:2], transform.fixed_parameters[2:]
    scaled = (points[:, ::-1] - center) / half
    along, down = (legvander(scaled[:, axis], degree) for axis in (0, 1))
    # Terms in the order of the file: by their total degree, then by that of x.
    power = np.array([(j, i - j) for i in range(degree + 1) for j in range(i + 1)])
    terms = along[:, power[:, 0]] * down[:, power[:, 1]]
    found = terms @ transform.parameters.reshape(2, -1).T * half
    return np.array(found[:, ::-1])


def _grid_fractions(rows: int, cols: int) -> Floats:
    """Return the points (x, y) of a grid in its tile, from 0 to 1."""
    down, along = np.arange(rows) / (rows - 1), np.arange(cols) / (cols - 1)
    return np.stack(np.broadcast_arrays(along, down[:, np.newaxis]), axis=-1)


def _linear_part(transform: ITKTransform) -> Floats:
    """Return the matrix of a polynomial, for points (x, y), if it is one."""
    if degree_of(transform.name) is None:
        message = f"`transform` must be a matrix; got {transform.name}."
        raise ValueError(message)
    terms = transform.parameters.reshape(2, -1)
    if terms[:, 3:].any():
        message = (
            "`transform` must be a polynomial of degree 1; "
            f"got {degree_of(transform.name)}."
        )
        raise ValueError(message)
    matrix = np.eye(3)
    center, half = transform.fixed_parameters[:2], transform.fixed_parameters[2:]
    linear = np.zeros((2, 2))
    if terms.shape[1] > 1:
        # The term of y comes before that of x.
        linear = half[:, np.newaxis] * terms[:, 2:0:-1] / half
    matrix[:2, :2] = linear
    matrix[:2, 2] = half * terms[:, 0] - linear @ center
    return matrix


# Matrices, for points (x, y) and from reference to moving


def _about(linear: ArrayLike, center: Floats, shift: Floats) -> Floats:
    """Return the matrix of a linear map about a centre, and then a shift."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = center + shift - matrix[:2, :2] @ center
    return matrix


def turned(angle: float, scale: float = 1.0) -> Floats:
    """Return a rotation and scale of points (x, y), as ITK counts angles."""
    sine, cosine = scale * np.sin(angle), scale * np.cos(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


Formula = Callable[[Floats, Floats], Floats]
# Matrices of parameters and fixed ones. The last two parameters of the affine one
# are a scale that nobody applies.
FORMULAS: dict[str, Formula] = {
    RIGID: lambda p, f: _about(turned(p[0]), f, p[1:]),
    "Euler2DTransform_double_2_2": lambda p, f: _about(turned(p[0]), f, p[1:]),
    SIMILARITY: lambda p, _: _about(turned(p[1], p[0]), p[2:4], p[4:]),
    "Similarity2DTransform_double_2_2": (
        lambda p, f: _about(turned(p[1], p[0]), f, p[2:])
    ),
    AFFINE: lambda p, f: _about(p[:4].reshape(2, 2), f, p[4:6]),
    "AffineTransform_double_2_2": lambda p, f: _about(p[:4].reshape(2, 2), f, p[4:]),
    "TranslationTransform_double_2_2": (lambda p, _: _about(np.eye(2), np.zeros(2), p)),
}

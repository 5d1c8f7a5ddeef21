"""ITK's transforms as matrices, control points and polynomials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import ArrayLike

from ..._shared.arguments import checked
from ..._shared.arrays import Floats
from ..._shared.checks import as_finite, as_matrix, as_point, as_points, as_shape
from ..._shared.results import result
from ..._transforms.matrices import apply_transform, swap_xy_matrix
from .itk_text import (
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
    "grid_to_itk",
    "itk_matrix",
    "itk_points",
    "map_itk",
    "matrix_to_itk",
    "points_to_itk",
]


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

Kind = Literal["affine", "similarity", "rigid"]

# Cells of the grid in which a program looks up the triangles of a mesh, as it is
# written by those that know the format.
LOOK_UP = 16
# How far a matrix may be from the kind that it is written as: rounding.
SAME = 1e-9


@result
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


@checked
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


@checked
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


@checked
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


@checked
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


@checked
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


@checked
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

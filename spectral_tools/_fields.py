"""Displacement fields: where they fold, and how they are inverted (floor 1)."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import as_finite
from ._ndimage import map_coordinates, spline_filter

__all__ = ["invert_displacement", "jacobian_determinant"]

Floats = NDArray[np.float64]

# Newton's steps, and when a point has arrived, in pixels.
STEPS, ARRIVED = 30, 1e-6
# No step is longer than this: beyond, a slope says nothing.
LONGEST = 20.0
# Determinants closer to zero than this are folds.
FLAT = 1e-3
# Pixels a spline is continued by beyond the border of the image.
MARGIN = 12


def jacobian_determinant(displacement: ArrayLike) -> Floats:
    """Return how much larger things are in the moving image than in the reference.

    A pixel at ``point`` of the reference shows what lies at
    ``point - displacement`` in the moving image, after its matrix. The result is
    the area (or volume) that a pixel takes there. Where it is negative the field
    folds: the same thing is shown more than once.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacement field, in pixels, as `warp_image` takes it.

    Returns
    -------
    ndarray of shape (rows, cols) or (planes, rows, cols)
        Determinant of the Jacobian matrix: 1 where nothing is stretched.

    See Also
    --------
    invert_displacement : Turns a field round, where it does not fold.

    Examples
    --------
    Rows of the reference are 10 percent further apart than those of the moving
    image, which therefore are shown as if they were 10 percent larger:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> field = np.zeros((40, 30, 2))
    >>> field[..., 0] = 0.1 * np.arange(40)[:, np.newaxis]
    >>> float(spt.jacobian_determinant(field).mean().round(3))
    0.9
    """
    return np.linalg.det(_jacobian(_as_displacement(displacement)))


def invert_displacement(displacement: ArrayLike) -> Floats:
    """Return the displacement field that leads the other way.

    If a field shows the moving image as the reference sees it, its inverse
    shows the reference as the moving image sees it, after its matrix.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacement field, in pixels, as `warp_image` takes it. Beyond its
        border it goes on as it is at the border.

    Returns
    -------
    ndarray of the same shape
        The inverse field; NaN where the field folds.

    See Also
    --------
    jacobian_determinant : Tells where a field folds.

    Notes
    -----
    A point of the reference shows the moving image at ``reference -
    displacement(reference)``. Newton's method finds the point of the
    reference for each pixel of the moving image, on the cubic spline through the
    field.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rows = np.arange(64.0)[:, np.newaxis]
    >>> field = np.zeros((64, 64, 2))
    >>> field[..., 1] = 3 * np.sin(rows / 10)
    >>> inverse = spt.invert_displacement(field)

    Here the rows stay where they are, so that one field undoes the other:

    >>> bool(np.allclose(inverse, -field, atol=1e-6))
    True
    """
    field = _as_displacement(displacement)
    ndim = field.shape[-1]
    pixels = np.moveaxis(np.indices(field.shape[:-1], dtype=np.float64), 0, -1)
    splines = [_spline(field[..., axis]) for axis in range(ndim)]
    slopes = _jacobian(field)
    goal = pixels.reshape(-1, ndim)
    # Where the field hardly changes, one fixed point step arrives.
    points = goal + field.reshape(-1, ndim)
    arrived = np.zeros(len(goal), np.bool_)
    todo = np.arange(len(goal))
    for _ in range(STEPS):
        here = points[todo]
        away = here - _sampled(splines, here) - goal[todo]
        done = np.abs(away).max(axis=1) < ARRIVED
        arrived[todo[done]] = True
        todo, here, away = todo[~done], here[~done], away[~done]
        if not len(todo):
            break
        points[todo] = here - _newton(slopes, here, away)
    inverse = goal - points
    inverse[~arrived] = np.nan
    # A point that is reached on the back of a fold is not the only one.
    back = arrived & (np.linalg.det(_between(slopes, points)) < FLAT)
    inverse[back] = np.nan
    return inverse.reshape(field.shape)


def _as_displacement(displacement: ArrayLike) -> Floats:
    field = as_finite(displacement, "displacement")
    ndim = field.ndim - 1
    if ndim not in (2, 3) or field.shape[-1] != ndim or min(field.shape[:-1]) < 2:
        message = (
            "`displacement` must have shape (rows, cols, 2) or "
            f"(planes, rows, cols, 3) and 2 pixels along each axis; got {field.shape}."
        )
        raise ValueError(message)
    return field


def _jacobian(field: Floats) -> Floats:
    """Return the matrix of slopes of point less displacement, at all pixels."""
    ndim = field.shape[-1]
    slopes = np.empty((*field.shape, ndim))
    for axis, along in product(range(ndim), repeat=2):
        slopes[..., axis, along] = -np.gradient(field[..., axis], axis=along)
        slopes[..., axis, along] += axis == along
    return slopes


def _spline(values: Floats) -> Any:
    """Return the coefficients of a spline that goes on beyond the border."""
    # Turned round at the border, the field has neither step nor kink there.
    wide = np.pad(values, MARGIN, mode="reflect", reflect_type="odd")
    return spline_filter(wide, 3, mode="nearest")


def _sampled(splines: list[Any], points: Floats) -> Floats:
    highest = np.array(splines[0].shape) - 2 * MARGIN - 1
    inside = np.clip(points, 0, highest).T + MARGIN
    found = [map_coordinates(c, inside, order=3, prefilter=False) for c in splines]
    return np.asarray(found).T


def _between(slopes: Floats, points: Floats) -> Floats:
    """Return the matrices of slopes at points, between those of the pixels."""
    ndim = points.shape[1]
    found = np.empty((len(points), ndim, ndim))
    for axis, along in product(range(ndim), repeat=2):
        found[:, axis, along] = map_coordinates(
            slopes[..., axis, along], points.T, order=1, mode="nearest"
        )
    return found


def _newton(slopes: Floats, here: Floats, away: Floats) -> Floats:
    """Return the steps that would bring points to their goals on a slope."""
    matrix = _between(slopes, here)
    steep = np.abs(np.linalg.det(matrix)) > FLAT
    matrix[~steep] = np.eye(here.shape[1])
    step = np.linalg.solve(matrix, away[:, :, None])[:, :, 0]
    far = np.abs(step).max(axis=1, keepdims=True) / LONGEST
    return np.asarray(step / np.maximum(far, 1))

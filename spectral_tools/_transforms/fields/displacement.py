"""Displacement fields: where they lead, where they fold, and back."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._sampling.splines import spline_margin
from ..._shared.arguments import checked
from ..._shared.arrays import Floats, as_array
from ..._shared.checks import as_affine, as_coordinates, check_sizes, image_dtype
from ..._shared.ndimage import distance_transform_edt, map_coordinates, spline_filter
from ..matrices import apply_transform
from ..point_maps import ARRIVED

__all__ = [
    "FieldSpline",
    "apply_displacement",
    "as_displacement",
    "filled_field",
    "invert_displacement",
    "jacobian_determinant",
]


# Newton's steps, at most.
NEWTON_STEPS = 30
# No step is longer than this: beyond, a slope says nothing.
LONGEST = 20.0
# Determinants closer to zero than this are folds.
FOLD = 1e-3
# Pixels a spline is continued by beyond the border of the image.
MARGIN = spline_margin(3, np.dtype(np.float32))


@checked
def jacobian_determinant(displacement: ArrayLike) -> Floats:
    """Return how much larger things are in the moving image than in the reference.

    A pixel at ``point`` of the reference shows what lies at
    ``point - displacement`` in the moving image, after its matrix. The result is
    the area (or volume) that a pixel takes there. Where it is not positive the field
    folds: the same thing is shown more than once.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacement field, in pixels, as `warp_image` takes it.

    Returns
    -------
    ndarray of shape (rows, cols) or (planes, rows, cols)
        Determinant of the Jacobian matrix: 1 where nothing is stretched. NaN where the
        field is.

    See Also
    --------
    invert_displacement : Turns a field round, where it does not fold.

    Notes
    -----
    Slopes are those between the pixels before and behind. A field that goes to and
    fro from pixel to pixel folds without their showing it: so the slopes to either
    neighbour along each axis are looked at too, and where any of the corners that they
    make is turned over, the least of their determinants is returned.

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
    field = as_displacement(displacement)
    return _area(field, _jacobian(field))


@checked
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
        The inverse field; NaN where the field folds, or is NaN itself.

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
    field = as_displacement(displacement)
    ndim = field.shape[-1]
    pixels = np.moveaxis(np.indices(field.shape[:-1], dtype=np.float64), 0, -1)
    goals = pixels.reshape(-1, ndim)
    return (goals - _invert_points(field, goals)).reshape(field.shape)


@checked
def apply_displacement(
    displacement: ArrayLike,
    points: ArrayLike,
    *,
    matrix: ArrayLike | None = None,
    inverse: bool = False,
) -> Floats:
    """Move points with a displacement field, from the moving image to the reference.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacement field at the pixels of the reference, as `warp_image` takes it.
        Beyond its border it goes on as it is at the border.
    points : array_like of shape (..., ndim)
        Points of the moving image, in pixels; NaN where they are missing.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Affine map from the moving image to the reference that the field adds
        to; by default the identity.
    inverse : bool, optional
        Move points of the reference to the moving image instead.

    Returns
    -------
    ndarray of shape (..., ndim)
        The moved points; NaN where they are missing, and where the field folds, also
        between two pixels, or is NaN.

    See Also
    --------
    warp_image : Does the same to a whole image.
    apply_transform : Moves points with a matrix.

    Examples
    --------
    A picture whose lower part is shifted to the right, more and more:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> field = np.zeros((100, 100, 2))
    >>> field[..., 1] = 0.1 * np.arange(100)[:, np.newaxis]
    >>> there = spt.apply_displacement(field, [(0, 20), (50, 20)])
    >>> there.round(6)
    array([[ 0., 20.],
           [50., 25.]])
    >>> spt.apply_displacement(field, there, inverse=True).round(6)
    array([[ 0., 20.],
           [50., 20.]])
    """
    field = as_displacement(displacement)
    ndim = field.shape[-1]
    given = as_coordinates(points, "points", ndim=ndim)
    way = np.eye(ndim + 1)
    if matrix is not None:
        way = as_affine(matrix, "matrix", ndim=ndim)
    goals = given.reshape(-1, ndim)
    if inverse:
        back, inward = goals - FieldSpline(field).at(goals), np.linalg.inv(way)
        moved = back @ inward[:-1, :-1].T + inward[:-1, -1]
    else:
        moved = _invert_points(field, apply_transform(way, goals))
    return moved.reshape(given.shape)


def as_displacement(displacement: ArrayLike) -> Floats:
    """Return a field of a shape that makes sense; it may be NaN in places."""
    field = as_array(displacement)
    check_sizes(field, "displacement")
    image_dtype(field.dtype, "displacement")
    ndim = field.ndim - 1
    if ndim not in (2, 3) or field.shape[-1] != ndim or min(field.shape[:-1]) < 2:
        message = (
            "`displacement` must have shape (rows, cols, 2) or "
            f"(planes, rows, cols, 3) and 2 pixels along each axis; got {field.shape}."
        )
        raise ValueError(message)
    field = field.astype(np.float64)
    field[np.isinf(field)] = np.nan
    if not np.isfinite(field).all(axis=-1).any():
        message = "`displacement` must be finite somewhere; got no such pixel."
        raise ValueError(message)
    return field


def filled_field(field: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a field that goes on where it is not finite, and where that is.

    There it is as at the nearest pixel where it is known.
    """
    holes = np.asarray(np.isnan(field).any(axis=-1))
    if not holes.any():
        return field, holes
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    return field[tuple(nearest)], holes


class FieldSpline:
    """The cubic spline through a field, which goes on as it is at the border."""

    def __init__(self, field: Floats) -> None:
        filled, self.holes = filled_field(field)
        # Turned round at the border, the field has neither step nor kink there.
        margin = [(MARGIN, MARGIN)] * (field.ndim - 1)
        self.splines = [
            spline_filter(
                np.pad(part, margin, mode="reflect", reflect_type="odd"),
                3,
                mode="nearest",
            )
            for part in np.moveaxis(filled, -1, 0)
        ]

    def at(self, points: Floats) -> Floats:
        """Return the field at points of shape (n, ndim), NaN in its holes."""
        found = self.between(points)
        found[self.missing(points)] = np.nan
        return found

    def between(self, points: Floats) -> Floats:
        """Return the field at points, also in its holes."""
        highest = np.array(self.holes.shape) - 1.0
        inside = np.clip(points, 0, highest).T + MARGIN
        found = [
            map_coordinates(part, inside, order=3, prefilter=False)
            for part in self.splines
        ]
        return np.asarray(found).T

    def missing(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points lie at pixels where nothing is known, or nowhere."""
        known = np.asarray(np.isfinite(points).all(axis=1))
        place = np.where(known[:, np.newaxis], points, 0)
        return self.nearest(self.holes, place) | ~known

    def nearest(self, flags: NDArray[np.bool_], points: Floats) -> NDArray[np.bool_]:
        """Return the flags of the pixels next to points."""
        highest = np.array(self.holes.shape) - 1
        near = np.rint(np.clip(points, 0, highest)).astype(np.intp)
        return np.asarray(flags[tuple(near.T)])


def _invert_points(field: Floats, goals: Floats) -> Floats:
    """Return the reference points that show the goals; NaN where none does."""
    spline = FieldSpline(field)
    slopes = _jacobian(filled_field(field)[0])
    # Where the field hardly changes, one fixed point step arrives.
    points = goals + spline.between(goals)
    arrived = np.zeros(len(goals), np.bool_)
    todo = np.flatnonzero(np.isfinite(goals).all(axis=1))
    for _ in range(NEWTON_STEPS):
        here = points[todo]
        away = here - spline.between(here) - goals[todo]
        done = np.abs(away).max(axis=1) < ARRIVED
        arrived[todo[done]] = True
        todo, here, away = todo[~done], here[~done], away[~done]
        if not len(todo):
            break
        points[todo] = here - _newton_steps(slopes, here, away)
    points[~arrived] = np.nan
    # A point that is reached on the back of a fold is not the only one.
    back = np.flatnonzero(arrived)
    folds = spline.nearest(_area(filled_field(field)[0], slopes) < FOLD, points[back])
    points[
        back[folds | (np.linalg.det(_interpolated_slopes(slopes, points[back])) < FOLD)]
    ] = np.nan
    points[spline.missing(points)] = np.nan
    return points


def _jacobian(field: Floats) -> Floats:
    """Return the matrix of slopes of point less displacement, at all pixels."""
    ndim = field.shape[-1]
    slopes = np.empty((*field.shape, ndim))
    for axis, along in product(range(ndim), repeat=2):
        slopes[..., axis, along] = -np.gradient(field[..., axis], axis=along)
        slopes[..., axis, along] += axis == along
    return slopes


def _area(field: Floats, slopes: Floats) -> Floats:
    """Return the determinants of slopes, the least of the corners of pixels that fold."""
    ndim = field.shape[-1]
    found = _determinant(slopes)
    found[np.isnan(field).any(axis=-1)] = np.nan
    steps = [np.diff(field, axis=along) for along in range(ndim)]
    # Of slopes so gentle each matrix is nearly the identity: none turns over.
    least = min(np.fmin.reduce(step.ravel(), initial=0) for step in steps)
    most = max(np.fmax.reduce(step.ravel(), initial=0) for step in steps)
    if ndim * max(-least, most) < 1:
        return found
    # Slopes to the pixel before, and to that behind, along each axis.
    before, behind = np.empty((2, *slopes.shape))
    for along in range(ndim):
        step = np.moveaxis(-steps[along], along, 0)
        step[..., along] += 1
        parts = [np.moveaxis(side[..., along], along, 0) for side in (before, behind)]
        parts[0][1:], parts[0][0] = step, step[0]
        parts[1][:-1], parts[1][-1] = step, step[-1]
    least = found.copy()
    for sides in product((False, True), repeat=ndim):
        corner = _determinant(np.where(sides, behind, before))
        np.minimum(least, corner, out=least, where=corner <= 0)
    return np.where(least <= 0, least, found)


def _determinant(matrices: Floats) -> Floats:
    """Return determinants of many small matrices, NaN where they are NaN."""
    if matrices.shape[-1] == 2:
        (a, b), (c, d) = np.moveaxis(matrices, (-2, -1), (0, 1))
        return np.asarray(a * d - b * c)
    first, second, third = np.moveaxis(matrices, -2, 0)
    return np.asarray((first * np.cross(second, third)).sum(axis=-1))


def _interpolated_slopes(slopes: Floats, points: Floats) -> Floats:
    """Return the matrices of slopes at points, between those of the pixels."""
    ndim = points.shape[1]
    found = np.empty((len(points), ndim, ndim))
    for axis, along in product(range(ndim), repeat=2):
        found[:, axis, along] = map_coordinates(
            slopes[..., axis, along], points.T, order=1, mode="nearest"
        )
    return found


def _newton_steps(slopes: Floats, here: Floats, away: Floats) -> Floats:
    """Return the steps that would bring points to their goals on a slope."""
    matrix = _interpolated_slopes(slopes, here)
    steep = np.abs(np.linalg.det(matrix)) > FOLD
    matrix[~steep] = np.eye(here.shape[1])
    step = np.linalg.solve(matrix, away[:, :, None])[:, :, 0]
    far = np.abs(step).max(axis=1, keepdims=True) / LONGEST
    return np.asarray(step / np.maximum(far, 1))

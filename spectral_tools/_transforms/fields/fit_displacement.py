"""Fit a smooth displacement field to pairs of points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._shared.arguments import checked
from ..._shared.arrays import Floats
from ..._shared.checks import (
    as_affine,
    as_points,
    as_shape,
    as_shift,
    check_not_negative,
    check_positive,
    check_same_shape,
)
from ..._shared.link_arguments import as_link_weights
from ..._shared.results import result
from ..._shared.sparse import sparse_rows
from ..._shared.statistics import least_absolute_weights
from ..matrices import apply_transform
from .bspline_fit import FieldFit, Springs, knot_variances, solve_springs, springs_of
from .bspline_grid import ControlGrid, control_grid, field_at_pixels, shares_at
from .displacement import jacobian_determinant

__all__ = [
    "DisplacementFit",
    "count_windows",
    "field_at_points",
    "fit_displacement",
    "fits_neighbours",
    "point_springs",
    "solve_points",
]


# Neighbours for each unknown of a linear field, enough to outvote a third that lie.
PER_UNKNOWN = 6
# Rounds in which neighbours far from the field around a point lose their weight.
REWEIGHTINGS = 8
# A point is out of place where it misses by so many times the usual miss of its
# neighbours. It is no verdict, only where a robust fit starts.
TOLERANCE = 5.0
# The least usual miss, as a share of that of all points.
SHARE = 0.5


# By default cells are this much smaller than the distance of points: a cubic spline
# then follows all that the points can tell.
FINER = 2.0
# Nor smaller than this, in pixels.
FINEST = 4.0
# Bending is made of derivatives of this order. Tissue bends smoothly: second ones
# would let it buckle between the points as far as they allow.
ORDER = 3


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
    for _ in range(REWEIGHTINGS):
        turned = (terms * weights[:, :, None]).transpose(0, 2, 1)
        # A trace of an identity keeps neighbours on one line from being an error.
        normal = turned @ terms + 1e-9 * near * np.eye(ndim + 1)
        field = np.linalg.solve(normal, turned @ told)
        misses = np.linalg.norm(told - terms @ field, axis=2)
        weights = least_absolute_weights(misses, axis=1)
    usual = np.median(misses, axis=1, keepdims=True)
    miss = np.linalg.norm(values - field[:, -1], axis=1)
    least = SHARE * float(np.median(usual)) + 1e-9
    return np.asarray(miss <= TOLERANCE * np.maximum(usual[:, 0], least))


@result
class DisplacementFit:
    """A displacement field, and how far it can be trusted.

    Attributes
    ----------
    displacement : ndarray of shape (rows, cols, 2) or (planes, rows, cols, 3)
        For each pixel of the reference, what is added to a moving point, after
        its matrix, to arrive there; as `warp_image` takes it.
    sigma : ndarray of shape (rows, cols) or (planes, rows, cols)
        Standard deviation of the displacement along each axis, in pixels.
        Infinite where nothing is known.
    residuals : ndarray of shape (n, ndim)
        Displacement of each pair of points, less that of the field.
    inlier : ndarray of bool, shape (n,)
        Pairs that the field believes.
    stiffness : float
        Weight of the bending energy, given or found.
    variance : float
        Variance of a pair in units of its covariance, as the residuals tell it,
        at least 1; in square pixels where no covariances were given.
    minimum_jacobian : float
        Least determinant of the Jacobian matrix. Where it is not positive the
        field folds.
    """

    displacement: Floats
    sigma: Floats
    residuals: Floats
    inlier: NDArray[np.bool_]
    stiffness: float
    variance: float
    minimum_jacobian: float


@checked
def fit_displacement(
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    shape: Sequence[int],
    *,
    matrix: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    window: ArrayLike | None = None,
    stiffness: float | None = None,
    spacing: ArrayLike | None = None,
    robust: bool = True,
) -> DisplacementFit:
    """Fit a smooth field that brings moving points to their reference points.

    Parameters
    ----------
    reference_points, moving_points : array_like of shape (n, ndim)
        Pairs of points that show the same thing, in pixels. A grid of pairs
        comes as ``points.reshape(-1, ndim)``.
    shape : sequence of int
        Pixels of the reference along each axis.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Affine map from the moving image to the reference that the field adds
        to; by default the identity.
    covariance : array_like of shape (n, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in square pixels. A pair with an
        infinite entry has failed: it has no say. By default all pairs count
        alike.
    window : int or array_like of shape (ndim,), optional
        Side of the windows that were matched, in pixels. Windows that overlap
        share their noise, and count for less.
    stiffness : float, optional
        Weight of the bending energy, the integral of the squared third
        derivatives of the field, beside the squared residuals in units of their
        covariances. By default it is the one that best explains the points.
    spacing : float or array_like of shape (ndim,), optional
        Side of the cells of the spline, in pixels; by default half of the
        distance between points.
    robust : bool, optional
        Find pairs that contradict those around them and do not let them count.

    Returns
    -------
    DisplacementFit
        The field, its error bars, and which pairs it believes.

    See Also
    --------
    match_grid : Finds the points.
    warp_image : Takes the field.
    jacobian_determinant : Shows where the field folds.

    Notes
    -----
    The field is a cubic B-spline [2]_ that may shift, stretch and arch freely. Its bending energy is the prior of a Gaussian
    process, whose weight is that of the largest marginal likelihood [1]_; the
    error bars are those of the posterior, and hold where the bending is about the
    same everywhere. One sparse factor serves all axes.

    What each pair says is compared with what the others predict, so that wrong
    pairs are found even where the field could bend to them.

    References
    ----------
    .. [1] MacKay (1992). Bayesian interpolation. Neural Comput. 4, 415.
       :doi:`10.1162/neco.1992.4.3.415`
    .. [2] Rueckert et al. (1999). Nonrigid registration using free-form
       deformations. IEEE Trans. Med. Imaging 18, 712. :doi:`10.1109/42.796284`

    Examples
    --------
    Points of a picture that sags in the middle by 4 pixels, one of them wrong:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> points = np.stack(np.mgrid[10:100:10, 10:100:10], -1).reshape(-1, 2)
    >>> sag = 4 * np.sin(np.pi * points[:, 1] / 100)
    >>> moving = points + np.stack([sag, 0 * sag], axis=1)
    >>> moving[40] += (3, 5)
    >>> fit = spt.fit_displacement(points, moving, (110, 110))
    >>> fit.displacement[50, 50].round(1) + 0
    array([-4.,  0.])
    >>> np.flatnonzero(~fit.inlier)
    array([40])
    """
    sides = as_shape(shape, "shape")
    ndim = len(sides)
    reference = as_points(reference_points, "reference_points", ndim=ndim)
    moving = as_points(moving_points, "moving_points", ndim=ndim)
    check_same_shape(reference_points=reference, moving_points=moving)
    if matrix is not None:
        moving = apply_transform(as_affine(matrix, "matrix", ndim=ndim), moving)
    _, weights, usable = as_link_weights(covariance, len(reference), ndim)
    if stiffness is not None:
        check_positive(stiffness, "stiffness")
    overlap = np.ones(len(reference))
    if window is not None:
        side = as_shift(window, ndim, "window")
        check_not_negative(float(side.min()), "window")
        overlap[usable] = count_windows(reference[usable], side)
    pitch = _pitch(sides, int(usable.sum()))
    if spacing is not None:
        pitch = as_shift(spacing, ndim, "spacing")
        check_positive(float(pitch.min()), "spacing")

    grid = control_grid(sides, pitch)
    targets = reference - moving
    if not usable.any():
        return _unknown(grid, targets)
    springs = point_springs(
        grid,
        reference[usable],
        targets[usable],
        weights[usable] / overlap[usable, None, None],
        float(covariance is not None),
    )
    fit, believed = solve_points(
        springs, reference[usable], stiffness=stiffness, robust=robust
    )
    inlier = np.zeros(len(targets), np.bool_)
    inlier[usable] = believed
    field = field_at_pixels(grid, fit.values)
    return DisplacementFit(
        displacement=field,
        # Rounding may leave less than nothing.
        sigma=np.sqrt(np.maximum(_at_pixels(grid, knot_variances(springs, fit)), 0)),
        residuals=targets - field_at_points(grid, fit.values, reference),
        inlier=inlier,
        stiffness=fit.stiffness,
        variance=fit.unit,
        minimum_jacobian=_least_jacobian(field),
    )


def point_springs(
    grid: ControlGrid,
    points: Floats,
    targets: Floats,
    weights: Floats,
    least_unit: float,
) -> Springs:
    """Return the equations of one field that is measured at points.

    Points of shape (n, k, ndim) are k points in each of n windows, whose mean
    displacement is what is measured.
    """
    numbers, heights = shares_at(grid, points.reshape(-1, len(grid.shape)))
    if points.ndim == 3:
        count, each = points.shape[:2]
        numbers = numbers.reshape(count, -1)
        heights = heights.reshape(count, -1) / each
    rows = sparse_rows(numbers, heights, int(np.prod(grid.nodes)))
    return springs_of(grid, 1, rows, targets, weights, least_unit, ORDER)


def solve_points(
    springs: Springs, points: Floats, *, stiffness: float | None, robust: bool
) -> tuple[FieldFit, NDArray[np.bool_]]:
    """Return the field that is measured at points, and which of them are believed."""
    plausible = fits_neighbours(points, springs.targets)
    return solve_springs(
        springs, stiffness=stiffness, robust=robust, plausible=plausible
    )


def field_at_points(grid: ControlGrid, values: Floats, points: Floats) -> Floats:
    """Return the field at points."""
    numbers, heights = shares_at(grid, points)
    return np.asarray((values[numbers] * heights[:, :, None]).sum(axis=1))


def count_windows(points: Floats, side: Floats) -> Floats:
    """Return how many windows each shares its pixels with, itself included.

    Each counts by the share of its pixels.
    """
    from scipy.spatial import cKDTree  # noqa: PLC0415

    total = np.ones(len(points))
    scaled = points / np.maximum(side, 1e-9)
    pairs = cKDTree(scaled).query_pairs(1.0, p=np.inf, output_type="ndarray")
    shared = np.prod(1 - np.abs(scaled[pairs[:, 0]] - scaled[pairs[:, 1]]), axis=1)
    for column in pairs.T:
        total += np.bincount(column, shared, len(points))
    return total


def _pitch(shape: tuple[int, ...], count: int) -> Floats:
    """Return half of the distance between points that cover an image."""
    ndim = len(shape)
    apart = (np.prod(shape) / max(count, 1)) ** (1 / ndim)
    return np.full(ndim, max(float(apart) / FINER, FINEST))


def _at_pixels(grid: ControlGrid, corners: Floats) -> Floats:
    """Return values at corners of cells at all pixels, linearly between them."""
    for axis, (size, cells) in enumerate(zip(grid.shape, grid.cells, strict=True)):
        where = (np.arange(size) + 0.5) * cells / size
        low = np.minimum(where.astype(np.intp), cells - 1)
        part = (where - low).reshape((-1,) + (1,) * (corners.ndim - axis - 1))
        first, second = (np.take(corners, low + k, axis=axis) for k in (0, 1))
        corners = first + part * (second - first)
    return corners


def _least_jacobian(field: Floats) -> float:
    if min(field.shape[:-1]) < 2:
        return 1.0
    return float(jacobian_determinant(field).min())


def _unknown(grid: ControlGrid, targets: Floats) -> DisplacementFit:
    """Return the field of which nothing is known."""
    return DisplacementFit(
        displacement=np.zeros((*grid.shape, targets.shape[1])),
        sigma=np.full(grid.shape, np.inf),
        residuals=targets,
        inlier=np.zeros(len(targets), np.bool_),
        stiffness=np.inf,
        variance=1.0,
        minimum_jacobian=1.0,
    )

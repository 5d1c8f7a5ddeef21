"""Displacement fields that pass through pairs of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._shared.arguments import checked
from ..._shared.arrays import Floats
from ..._shared.checks import (
    as_affine,
    as_points,
    as_shape,
    check_not_negative,
    check_same_shape,
    check_sizes,
)
from ..matrices import apply_transform
from .displacement import filled_field

__all__ = ["interpolate_displacement"]

Method = Literal["thin_plate", "piecewise_affine"]
Outside = Literal["nan", "nearest", "affine"]

# Points on one line up to this share of their extent.
FLAT = 1e-7


@checked
def interpolate_displacement(
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    shape: Sequence[int],
    *,
    matrix: ArrayLike | None = None,
    method: Method = "thin_plate",
    smoothing: float = 0.0,
    outside: Outside = "nan",
) -> Floats:
    """Return a displacement field that brings moving points to their reference points.

    Parameters
    ----------
    reference_points, moving_points : array_like of shape (n, ndim)
        Pairs of points that show the same thing, in pixels; at least ndim + 1. No
        two of the reference points coincide.
    shape : sequence of int
        Pixels of the reference along each axis.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Affine map from the moving image to the reference that the field adds
        to; by default the identity.
    method : {"thin_plate", "piecewise_affine"}, optional
        Bend like a thin plate that is held at the points [1]_, or map each triangle
        (or tetrahedron) of neighbouring points by a matrix of its own.
    smoothing : float, optional
        Weight, in square pixels (in space, px^3), of the bending energy, the integral
        of the squared second derivatives, beside the squared distances that a thin
        plate misses the points by. By default it misses none.
    outside : {"nan", "nearest", "affine"}, optional
        What pixels get that no points surround: NaN; what the nearest surrounded
        pixel has; or that on top of the affine map of least squares, which goes on.

    Returns
    -------
    ndarray of shape (rows, cols, 2) or (planes, rows, cols, 3)
        For each pixel of the reference, what is added to a moving point, after
        its matrix, to arrive there; as `warp_image` takes it.

    See Also
    --------
    fit_displacement : Finds the smoothing by itself, wrong pairs, and error bars.
    estimate_transform : Fits one matrix to all points.
    jacobian_determinant : Shows where the field folds.

    Notes
    -----
    Few points that are known to be right are taken at their word here. Measured
    points are better fitted by `fit_displacement`. A plate takes time as the number of
    pixels times that of points.

    References
    ----------
    .. [1] Bookstein (1989). Principal warps: thin-plate splines and the
       decomposition of deformations. :doi:`10.1109/34.24792`

    Examples
    --------
    Four corners stay, and the middle is pulled down by 5 pixels:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> moving = np.array([(0, 0), (0, 80), (80, 0), (80, 80), (40, 40)])
    >>> reference = moving.copy()
    >>> reference[4, 0] += 5
    >>> field = spt.interpolate_displacement(reference, moving, (81, 81))
    >>> field[[45, 0, 20], [40, 0, 40], 0].round(1) + 0
    array([5. , 0. , 3.5])
    """
    sides = as_shape(shape, "shape")
    ndim = len(sides)
    reference = as_points(reference_points, "reference_points", ndim=ndim)
    moving = as_points(moving_points, "moving_points", ndim=ndim)
    check_same_shape(reference_points=reference, moving_points=moving)
    for name, value, kinds in (
        ("method", method, get_args(Method)),
        ("outside", outside, get_args(Outside)),
    ):
        if value not in kinds:
            names = ", ".join(map(repr, kinds))
            message = f"`{name}` must be one of {names}; got {value!r}."
            raise ValueError(message)
    check_not_negative(smoothing, "smoothing")
    if smoothing and method != "thin_plate":
        message = f"`smoothing` must be 0 for {method!r}; got {smoothing}."
        raise ValueError(message)
    if matrix is not None:
        moving = apply_transform(as_affine(matrix, "matrix", ndim=ndim), moving)
    _check_spread(reference)

    # Where points lie on a grid each square has two diagonals: which one is taken must
    # not hang on the order of the points.
    order = np.lexsort(reference.T)
    reference, moving = reference[order], moving[order]
    targets = reference - moving
    # A unit in which points are about one apart, and nothing is rounded.
    unit = 2.0 ** -np.frexp(np.ptp(reference, axis=0).max())[1]
    reference = unit * reference
    pixels = unit * np.moveaxis(np.indices(sides, dtype=np.float64), 0, -1)
    smoothing = smoothing * unit ** (4 - ndim)
    # What is left beside an affine map is what bends.
    plane = _plane(reference, targets)
    even = plane(pixels.reshape(-1, ndim)).reshape(pixels.shape)
    rest = _interpolator(reference, targets - plane(reference), method, smoothing)
    inside = _surrounded(reference, pixels)
    field = np.full(pixels.shape, np.nan)
    field[inside] = even[inside] + rest(pixels[inside])
    if outside == "nan":
        return field
    if not inside.any():
        message = f"`reference_points` must surround a pixel of {sides}; got none."
        raise ValueError(message)
    if outside == "nearest":
        return filled_field(field)[0]
    return even + filled_field(field - even)[0]


def _check_spread(reference: Floats) -> None:
    count, ndim = reference.shape
    if count < ndim + 1:
        message = f"`reference_points` must be at least {ndim + 1}; got {count}."
        raise ValueError(message)
    order = np.lexsort(reference.T)
    again = (np.diff(reference[order], axis=0) == 0).all(axis=1)
    if again.any():
        pair = sorted(order[np.flatnonzero(again)[0] :][:2].tolist())
        message = (
            "`reference_points` must differ from one another; got the same point in "
            f"rows {pair[0]} and {pair[1]}."
        )
        raise ValueError(message)
    check_sizes(reference, "reference_points", least=True)
    sizes = np.linalg.svd(reference - reference.mean(axis=0), compute_uv=False)
    if sizes[-1] <= FLAT * sizes[0]:
        flat = "line" if ndim == 2 else "plane"
        message = f"`reference_points` must not lie on one {flat}; got {count} that do."
        raise ValueError(message)


def _plane(points: Floats, values: Floats) -> Callable[[Floats], Floats]:
    """Return the affine function of least squares."""
    middle = points.mean(axis=0)
    slopes = np.linalg.lstsq(points - middle, values - values.mean(axis=0))[0]
    height = values.mean(axis=0)
    return lambda places: np.asarray((places - middle) @ slopes + height)


def _interpolator(
    points: Floats, values: Floats, method: Method, smoothing: float
) -> Any:
    from scipy.interpolate import (  # noqa: PLC0415
        LinearNDInterpolator,
        RBFInterpolator,
    )

    if method == "piecewise_affine":
        return LinearNDInterpolator(points, values)
    kernels: tuple[Literal["thin_plate_spline"], Literal["linear"]]
    kernels = "thin_plate_spline", "linear"
    kernel = kernels[points.shape[1] - 2]
    # A weight of the bending energy is 8 pi times that of a term r**2 log(r), in the
    # plane, and of a term r in space: the fundamental solutions of the bending.
    unit = 8 * np.pi
    return RBFInterpolator(
        points, values, smoothing=unit * smoothing, kernel=kernel, degree=1
    )


def _surrounded(points: Floats, pixels: Floats) -> NDArray[np.bool_]:
    """Return which pixels lie in the convex hull of points."""
    from scipy.spatial import Delaunay  # noqa: PLC0415

    places = pixels.reshape(-1, points.shape[1])
    # Rounding must not cut off the points of the hull themselves.
    found = Delaunay(points).find_simplex(places, tol=1e-9)
    return np.asarray(found >= 0).reshape(pixels.shape[:-1])

"""Displacement fields one after the other, on other grids, and made flatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..._shared.arguments import checked
from ..._shared.arrays import Floats
from ..._shared.checks import (
    as_affine,
    as_shape,
    as_shift,
    check_fraction,
    check_positive,
)
from ..._shared.results import result
from ..point_maps import AT_ONCE
from .displacement import FieldSpline, as_displacement

__all__ = [
    "FlattenedDisplacement",
    "compose_displacements",
    "flatten_displacement",
    "resample_displacement",
]


@result
class FlattenedDisplacement:
    """A rigid motion, and what bends beside it.

    Attributes
    ----------
    matrix : ndarray of shape (ndim + 1, ndim + 1)
        The rigid motion from moving image to reference that is nearest to the map.
    displacement : ndarray of shape (rows, cols, 2) or (planes, rows, cols, 3)
        What is added to a moving point, after the matrix.
    """

    matrix: Floats
    displacement: Floats


@checked
def compose_displacements(
    second: ArrayLike, first: ArrayLike, *, matrix: ArrayLike | None = None
) -> Floats:
    """Return the one field that does what two do, one after the other.

    The first leads from the moving image to an image in between, the second from
    there to the reference. The matrices that come before the fields multiply:
    ``matrix @ first_matrix``.

    Parameters
    ----------
    second : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Field at the pixels of the reference, as `warp_image` takes it.
    first : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Field at the pixels of the image in between. Beyond its border it goes on
        as it is at the border.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Affine map from the image in between to the reference that the second field
        adds to; by default the identity.

    Returns
    -------
    ndarray of the shape of `second`
        The field at the pixels of the reference; NaN where one of them is.

    See Also
    --------
    invert_displacement : A field after its inverse does nothing.

    Examples
    --------
    A field, and the one that leads back:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rows, cols = np.mgrid[:60, :60]
    >>> field = np.stack([2 * np.sin(cols / 9), 2 * np.cos(rows / 9)], axis=-1)
    >>> back = spt.invert_displacement(field)
    >>> nothing = spt.compose_displacements(field, back)
    >>> bool(np.abs(nothing[8:-8, 8:-8]).max() < 1e-3)
    True
    """
    after, before = as_displacement(second), as_displacement(first)
    ndim = after.shape[-1]
    if before.shape[-1] != ndim:
        message = f"`first` must have {ndim} components; got shape {before.shape}."
        raise ValueError(message)
    way = np.eye(ndim + 1)
    if matrix is not None:
        way = as_affine(matrix, "matrix", ndim=ndim)
    inward, spline = np.linalg.inv(way), FieldSpline(before)
    total = after.reshape(-1, ndim).copy()
    pixels = _pixels(after.shape[:-1])
    for part in _parts(len(total)):
        between = (pixels[part] - total[part]) @ inward[:-1, :-1].T + inward[:-1, -1]
        total[part] += spline.at(between) @ way[:-1, :-1].T
    return total.reshape(after.shape)


@checked
def resample_displacement(
    displacement: ArrayLike,
    shape: Sequence[int],
    *,
    spacing: ArrayLike = 1.0,
    target_spacing: ArrayLike = 1.0,
    origin: ArrayLike = 0.0,
    target_origin: ArrayLike = 0.0,
) -> Floats:
    """Return a displacement field at the nodes of another regular grid.

    Control points on a regular grid become a field for `warp_image`, and a field
    becomes control points. Displacements keep their unit, pixels of the reference.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacements at nodes.
    shape : sequence of int
        Number of nodes of the new grid along each axis.
    spacing, target_spacing : float or array_like of shape (ndim,), optional
        Distance of the nodes of the old and the new grid, in pixels.
    origin, target_origin : float or array_like of shape (ndim,), optional
        Where their first node lies, in pixels of the reference.

    Returns
    -------
    ndarray of shape (rows, cols, 2) or (planes, rows, cols, 3)
        A cubic spline through the field, which goes on beyond its last nodes as it is
        there. NaN where the nearest node is.

    See Also
    --------
    fit_displacement : Takes points anywhere, and their errors.

    Examples
    --------
    Control points every 10 px, from 5 px on, and the field between them:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> nodes = np.zeros((6, 6, 2))
    >>> nodes[..., 0] = np.arange(6)[:, np.newaxis]
    >>> field = spt.resample_displacement(nodes, (60, 60), spacing=10, origin=5)
    >>> field[[5, 20, 55], 30, 0].round(3)
    array([0. , 1.5, 5. ])
    """
    field = as_displacement(displacement)
    ndim = field.shape[-1]
    sides = as_shape(shape, "shape", ndim=ndim)
    steps = [
        as_shift(step, ndim, name)
        for step, name in ((spacing, "spacing"), (target_spacing, "target_spacing"))
    ]
    for step, name in zip(steps, ("spacing", "target_spacing"), strict=True):
        check_positive(float(step.min()), name)
    start = as_shift(target_origin, ndim, "target_origin")
    start = start - as_shift(origin, ndim, "origin")
    spline = FieldSpline(field)
    nodes = _pixels(sides)
    values = np.empty(nodes.shape)
    for part in _parts(len(nodes)):
        values[part] = spline.at((start + nodes[part] * steps[1]) / steps[0])
    return values.reshape(*sides, ndim)


@checked
def flatten_displacement(
    displacement: ArrayLike,
    *,
    matrix: ArrayLike | None = None,
    amount: float = 1.0,
) -> FlattenedDisplacement:
    """Bring a map nearer to the rigid motion that is closest to it.

    Sections that are laid on each other by fields in turn hand on what each bends, so
    that a stack drifts. Taking away a part of every field at each step keeps it
    straight.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        Displacement field at the pixels of the reference, as `warp_image` takes it.
        Pixels where it is not finite do not count, and stay so.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Affine map from the moving image to the reference that the field adds
        to; by default the identity.
    amount : float, optional
        Share of the bending that is taken away, 0 to 1: with 0 the map stays what it
        is, and with 1 it becomes rigid.

    Returns
    -------
    FlattenedDisplacement
        The rigid motion, and what is left beside it.

    References
    ----------
    .. [1] Kabsch (1976). A solution for the best rotation to relate two sets of
       vectors. :doi:`10.1107/S0567739476001873`

    Examples
    --------
    A shift by 3 px on top of a wave:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> field = np.zeros((61, 61, 2))
    >>> field[..., 0] = 3 + np.cos(2 * np.pi * np.arange(61) / 20)
    >>> flat = spt.flatten_displacement(field, amount=0.5)
    >>> flat.matrix[:2, 2].round(1) + 0
    array([3., 0.])
    >>> float(np.ptp(flat.displacement[..., 0]).round(1))
    1.0
    """
    field = as_displacement(displacement)
    ndim = field.shape[-1]
    check_fraction(amount, "amount")
    way = np.eye(ndim + 1)
    if matrix is not None:
        way = as_affine(matrix, "matrix", ndim=ndim)
    inward = np.linalg.inv(way)
    reference = _pixels(field.shape[:-1])
    moving = (reference - field.reshape(-1, ndim)) @ inward[:-1, :-1].T
    moving += inward[:-1, -1]
    known = np.isfinite(moving).all(axis=1)
    rigid = _nearest_motion(reference[known], moving[known])
    rest = reference - moving @ rigid[:-1, :-1].T - rigid[:-1, -1]
    return FlattenedDisplacement(
        matrix=rigid, displacement=(1 - amount) * rest.reshape(field.shape)
    )


def _nearest_motion(reference: Floats, moving: Floats) -> Floats:
    """Return the rigid motion of least squares from moving to reference points."""
    ndim = reference.shape[1]
    middles = reference.mean(axis=0), moving.mean(axis=0)
    spread = (reference - middles[0]).T @ (moving - middles[1])
    left, _, right = np.linalg.svd(spread)
    signs = np.ones(ndim)
    signs[-1] = np.sign(np.linalg.det(left @ right))
    motion = np.eye(ndim + 1)
    motion[:-1, :-1] = (left * signs) @ right
    motion[:-1, -1] = middles[0] - motion[:-1, :-1] @ middles[1]
    return motion


def _pixels(shape: tuple[int, ...]) -> Floats:
    grid = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1)
    return grid.reshape(-1, len(shape))


def _parts(count: int) -> list[slice]:
    return [slice(first, first + AT_ONCE) for first in range(0, count, AT_ONCE)]

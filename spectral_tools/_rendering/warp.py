"""Warp one image, with all its channels, by a matrix or a field."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._sampling.downsample import shrunk
from .._shared.arguments import checked
from .._shared.arrays import Floats, as_array, masks_joined
from .._shared.checks import (
    as_axis,
    as_matrix,
    as_shape,
    as_shift,
    check_affine,
    check_memory,
    check_positive,
    image_dtype,
)
from .._shared.results import result
from .._shared.workers import Workers
from .._transforms.point_maps import TransformEstimate, affine_and_field, map_of
from .plan import as_field, make_plan
from .regions import write_blocks

__all__ = ["Resampled", "resample", "warp_image"]


@checked
def warp_image(
    image: ArrayLike,
    matrix: ArrayLike | TransformEstimate,
    *,
    displacement: ArrayLike | None = None,
    shape: Sequence[int] | None = None,
    order: int = 1,
    valid: ArrayLike | None = None,
    channel_axis: int | None = None,
    fill_value: float = 0,
    dtype: DTypeLike | None = None,
    workers: Workers = 1,
) -> NDArray[Any]:
    """Warp a moving image onto the pixels of its reference.

    The matrix leads from the moving image to the reference; it is inverted
    inside. The image covers pixels up to half a pixel beyond the centres of its
    border pixels. Where it shrinks, it is smoothed first.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        The moving image, perhaps with one axis more for channels, or anything
        that is sliced like an array; only what is needed is read.
    matrix : array_like of shape (ndim + 1, ndim + 1) or TransformEstimate
        Affine map from the image to the reference, or what `estimate_transform`
        found, also a projective transform or a polynomial.
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3)
        For each pixel of the result, how far the point that comes to lie there
        is moved after the matrix:
        ``reference_point = apply_transform(matrix, moving_point) + displacement``.
        Pixels where it is not finite get the fill value.
    shape : sequence of int, optional
        Shape of the result, without channels; by default that of
        `displacement`, or of the image.
    order : {1, 0, 3, 5}, optional
        Interpolate linearly, take the nearest pixel, or interpolate by B-splines
        of that order [1]_.
    valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count.
    channel_axis : int, optional
        Axis of the image, and of the result, that holds channels.
    fill_value : float, optional
        Value of pixels that the image does not cover.
    dtype : dtype, optional
        Of the result, by default that of the image. Results that are integers
        are rounded and clipped.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.

    Returns
    -------
    ndarray
        The image as the reference sees it.

    References
    ----------
    .. [1] Thévenaz, Blu, Unser (2000). Interpolation revisited.
       :doi:`10.1109/42.875199`

    Examples
    --------
    A bright pixel at (1, 1) that belongs to (2, 3) of the reference:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> moving = np.zeros((3, 3), np.uint8)
    >>> moving[1, 1] = 9
    >>> spt.warp_image(moving, spt.translation((1, 2)), shape=(4, 5))
    array([[0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0],
           [0, 0, 0, 9, 0],
           [0, 0, 0, 0, 0]], dtype=uint8)
    """
    found = None
    if isinstance(matrix, TransformEstimate):
        found, matrix = matrix, matrix.matrix
    inward = as_matrix(matrix, "matrix")
    if found is None:
        check_affine(inward[np.newaxis], "matrix")
    ndim = len(inward) - 1
    moving = masks_joined(image)
    moving = moving if hasattr(moving, "dtype") else np.asarray(moving)
    field = None if displacement is None else as_field(displacement, ndim)
    if shape is not None:
        sides = as_shape(shape, "shape", ndim=ndim)
    elif field is not None:
        sides = field.shape[:-1]
    else:
        sides = tuple(np.shape(moving))
        channel_axis = as_axis(channel_axis, len(sides))
        if channel_axis is not None:
            sides = tuple(np.delete(sides, channel_axis).tolist())
    if field is not None and field.shape[:-1] != sides:
        message = f"`displacement` must have shape {(*sides, ndim)}; got {field.shape}."
        raise ValueError(message)
    if found is not None:
        inward, rest = affine_and_field(map_of(found), sides)
        if rest is not None and field is not None:
            message = (
                "`matrix` must be affine if a displacement is given; "
                f"got a {found.model} estimate."
            )
            raise ValueError(message)
        field = field if rest is None else rest

    plan = make_plan(
        [moving],
        inward[None],
        bounds=np.array([(0,) * len(sides), sides]),
        scale=1.0,
        blend="last",
        order=order,
        valid=None if valid is None else [valid],
        channel_axis=channel_axis,
        fill_value=fill_value,
        dtype=dtype,
        field=field,
    )
    result, coverage = np.empty(plan.image_shape, plan.kept), np.empty(sides, np.uint8)
    write_blocks(plan, plan.region[-ndim:], result, coverage, None, workers, False)
    return result


@result
class Resampled:
    """An image with pixels of another size, and where its points went.

    Attributes
    ----------
    image : ndarray
        The image with its new pixels.
    matrix : ndarray of shape (ndim + 1, ndim + 1)
        Map from points of the given image to points of the new one, for
        `apply_transform`.
    """

    image: NDArray[Any]
    matrix: NDArray[np.float64]


@checked
def resample(
    image: ArrayLike,
    pixel_size: ArrayLike,
    target_pixel_size: ArrayLike,
    *,
    order: int = 3,
    channel_axis: int | None = None,
    dtype: DTypeLike | None = None,
    workers: Workers = 1,
) -> Resampled:
    """Show an image with pixels of another size.

    The middle of the image stays in the middle. Where pixels become larger, detail
    that they cannot show is taken out, so that none is folded.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        The image, perhaps with one axis more for channels. Pixels that are not finite
        stay so in results of floats, and are zero in those of integers; larger pixels
        where most of what they cover is not.
    pixel_size, target_pixel_size : float or array_like of shape (ndim,)
        Size of the pixels that the image has, and of those that it gets, in one
        unit of length, along all axes or along each.
    order : {3, 0, 1, 5}, optional
        Order of the interpolation, as in `warp_image`, along axes whose pixels do not
        become larger. 0 takes the nearest pixel along all axes, as labels need it.
    channel_axis : int, optional
        Axis of the image, and of the result, that holds channels.
    dtype : dtype, optional
        Of the result, by default that of the image. Results that are integers
        are rounded and clipped.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.

    Returns
    -------
    Resampled
        The image, of as many whole pixels as come closest to its extent, and the
        matrix for its points.

    See Also
    --------
    warp_image : Brings an image onto the pixels of another one.

    Notes
    -----
    Where pixels become larger, a wave keeps 99 % of its height at a quarter of the
    highest frequency that the new ones can show, 88 % at half of it, and less than
    1 % at 1.6 times it, which would fold to 0.4 times. A steeper fall would
    ring more: as it is, values beside an edge overshoot by up to 5 % of its step.

    Examples
    --------
    A camera with pixels of 6.5 um, shown with those of 13 um; its first pixel, and its
    last but one:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> small = spt.resample(np.full((100, 80), 7.0), 6.5, 13)
    >>> small
    Resampled(image=(50, 40), matrix=[[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    >>> spt.apply_transform(small.matrix, [(0, 0), (98, 78)])
    array([[-0.25, -0.25],
           [48.75, 38.75]])
    """
    shape, channel_axis = _without_channels(image, channel_axis)
    ndim = len(shape)
    sizes = []
    for size, name in (
        (pixel_size, "pixel_size"),
        (target_pixel_size, "target_pixel_size"),
    ):
        sizes.append(as_shift(size, ndim, name))
        check_positive(float(sizes[-1].min()), name)
    # What is infinite then does not fit into memory.
    with np.errstate(over="ignore"):
        scale = sizes[0] / sizes[1]
        sides = np.array(shape) * scale
    if (sides < 1e-3).any():
        message = (
            f"`target_pixel_size` must be no larger than images; got {sides} pixels."
        )
        raise ValueError(message)
    check_memory(prod(sides.tolist()), "target_pixel_size")
    counts = np.maximum(np.rint(sides), 1).astype(int)
    matrix = np.diag([*scale, 1.0])
    matrix[:-1, -1] = (counts - 1) / 2 - scale * (np.array(shape) - 1) / 2
    kept = np.dtype(_dtype_of(image) if dtype is None else dtype)
    rest, further = image, matrix.copy()
    if order in (1, 3, 5) and (scale < 1).any():
        rest = _shrunk(as_array(image), scale, counts.tolist(), channel_axis)
        # What has its new pixels already stays as it is.
        for axis in np.flatnonzero(scale < 1):
            further[axis] = np.eye(ndim + 1)[axis]
        order = 0 if (scale <= 1).all() else order
    made = warp_image(
        rest,
        further,
        shape=tuple(counts.tolist()),
        order=order,
        channel_axis=channel_axis,
        fill_value=np.nan if kept.kind == "f" else 0,
        dtype=kept,
        workers=workers,
    )
    return Resampled(image=made, matrix=matrix)


def _dtype_of(image: ArrayLike) -> np.dtype[Any]:
    return np.dtype(image.dtype if hasattr(image, "dtype") else np.asarray(image).dtype)


def _without_channels(
    image: ArrayLike, channel_axis: int | None
) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of an image without channels, and the axis that holds them."""
    image_dtype(_dtype_of(image), "image")
    shape = np.shape(image)
    if channel_axis is not None:
        if not -len(shape) <= channel_axis < len(shape):
            message = (
                f"`channel_axis` must be an axis of an image of shape {shape}; "
                f"got {channel_axis}."
            )
            raise ValueError(message)
        channel_axis %= len(shape)
    sides = tuple(n for axis, n in enumerate(shape) if axis != channel_axis)
    if len(sides) not in (2, 3) or 0 in shape:
        message = (
            "`image` must have 2 or 3 axes beside that of channels, none of them "
            f"empty; got shape {shape}."
        )
        raise ValueError(message)
    return sides, channel_axis


def _shrunk(
    image: NDArray[Any], scale: Floats, counts: list[int], channel_axis: int | None
) -> NDArray[Any]:
    """Return an image with larger pixels along the axes that shrink."""
    plain = image.astype(image_dtype(image.dtype, "image"), copy=False)
    if channel_axis is None:
        return shrunk(plain[..., np.newaxis], scale, counts)[..., 0]
    return np.moveaxis(
        shrunk(np.moveaxis(plain, channel_axis, -1), scale, counts), -1, channel_axis
    )

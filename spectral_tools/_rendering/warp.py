"""Warp one image, with all its channels, by a matrix or a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.checks import as_matrix, as_shape, check_affine, image_dtype
from .._shared.workers import Workers, check_workers
from .._transforms.point_maps import TransformEstimate, affine_and_field, map_of
from .plan import make_plan
from .regions import write_blocks

__all__ = ["warp_image"]


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
    check_workers(workers)
    found = None
    if isinstance(matrix, TransformEstimate):
        found, matrix = matrix, matrix.matrix
    inward = as_matrix(matrix, "matrix")
    if found is None:
        check_affine(inward[np.newaxis], "matrix")
    ndim = len(inward) - 1
    moving = image if hasattr(image, "dtype") else np.asarray(image)
    field = None if displacement is None else _as_field(displacement, ndim)
    if shape is not None:
        sides = as_shape(shape, "shape", ndim=ndim)
    elif field is not None:
        sides = field.shape[:-1]
    else:
        sides = tuple(np.shape(moving))
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


def _as_field(displacement: ArrayLike, ndim: int) -> NDArray[np.floating[Any]]:
    field = np.asarray(displacement)
    field = field.astype(image_dtype(field.dtype, "displacement"), copy=False)
    if field.ndim != ndim + 1 or field.shape[-1] != ndim or 0 in field.shape:
        axes = "rows, cols" if ndim == 2 else "planes, rows, cols"
        message = f"`displacement` must have shape ({axes}, {ndim}); got {field.shape}."
        raise ValueError(message)
    return field

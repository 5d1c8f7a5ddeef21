"""Bring images to another pixel size (floor 11)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._checks import as_shift, check_positive
from ._warp import warp_image
from ._workers import Workers

__all__ = ["Resampled", "resample"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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

    The middle of the image stays in the middle. Where pixels become larger the image
    is smoothed first, so that no detail is folded.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        The image, perhaps with one axis more for channels. Pixels that are not finite
        stay so in results of floats, and are zero in those of integers.
    pixel_size, target_pixel_size : float or array_like of shape (ndim,)
        Size of the pixels that the image has, and of those that it gets, in one
        unit of length, along all axes or along each.
    order : {3, 0, 1, 5}, optional
        Order of the interpolation, as in `warp_image`.
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

    Examples
    --------
    A camera with pixels of 6.5 um, shown with those of 13 um; its first pixel, and its
    last but one:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> small = spt.resample(np.full((100, 80), 7.0), 6.5, 13)
    >>> small.image.shape
    (50, 40)
    >>> spt.apply_transform(small.matrix, [(0, 0), (98, 78)])
    array([[-0.25, -0.25],
           [48.75, 38.75]])
    """
    shape = np.shape(image)
    if channel_axis is not None:
        shape = tuple(np.delete(shape, channel_axis).tolist())
    ndim = len(shape)
    sizes = []
    for size, name in (
        (pixel_size, "pixel_size"),
        (target_pixel_size, "target_pixel_size"),
    ):
        sizes.append(as_shift(size, ndim, name))
        check_positive(float(sizes[-1].min()), name)
    scale = sizes[0] / sizes[1]
    counts = np.maximum(np.rint(np.array(shape) * scale), 1)
    matrix = np.diag([*scale, 1.0])
    matrix[:-1, -1] = (counts - 1) / 2 - scale * (np.array(shape) - 1) / 2
    given = image.dtype if hasattr(image, "dtype") else np.asarray(image).dtype
    floating = np.issubdtype(given if dtype is None else np.dtype(dtype), np.floating)
    made = warp_image(
        image,
        matrix,
        shape=tuple(int(count) for count in counts),
        order=order,
        channel_axis=channel_axis,
        fill_value=np.nan if floating else 0,
        dtype=dtype,
        workers=workers,
    )
    return Resampled(image=made, matrix=matrix)

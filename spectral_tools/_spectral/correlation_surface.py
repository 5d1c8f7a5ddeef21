"""Look inside a match: whitened images and their correlation at every shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Float
from .._shared.checks import (
    as_finite_image,
    as_shift,
    check_count,
    check_fraction,
    check_memory,
    check_positive,
    check_same_ndim,
    check_whitening,
)
from .._shared.fft import fast_shape, forward, inverse
from .._shared.results import result
from .peaks import (
    LEAST_OVERLAP,
    box_table,
    list_peaks,
    score_lags,
    separate_peaks,
)
from .ring_kernels import whiten_images

__all__ = ["Peaks", "correlation_surface", "find_peaks", "whiten"]


@result
class Peaks:
    """The highest local maxima of a surface, best first.

    Attributes
    ----------
    indices : ndarray of shape (n, ndim), integer
        Where the maxima are.
    heights : ndarray of shape (n,)
        Values of the surface there.
    """

    indices: NDArray[np.intp]
    heights: NDArray[np.float64]


@checked
def whiten(image: ArrayLike, *, exponent: float | None = None) -> NDArray[Float]:
    """Filter an image until fine detail counts as much as coarse.

    In pictures of nature the coarse has nearly all of the power, so that a
    plain correlation hardly sees the detail that tells one shift from the next.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        Image of any real dtype.
    exponent : float, optional
        By default each frequency gets the weight that finds a match best, as the
        search of `phase_correlate` does it: flat where the image stands above
        its noise, less where it does not, and single frequencies that stick
        out are cut down. A number, 0 to 1, divides the spectrum by its modulus to
        that power: 0 changes nothing, 1 is phase correlation.

    Returns
    -------
    ndarray of the shape of `image`
        Filtered image of mean 0 and standard deviation 1; zero if the image is
        constant.

    Raises
    ------
    ValueError
        If the image is not 2-D or 3-D, not finite, or `exponent` is out of range.

    See Also
    --------
    correlation_surface : Correlate two whitened images.

    Examples
    --------
    Neighbouring pixels are alike before, and much less so after:

    >>> import numpy as np
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()[:256, :256]
    >>> for image in (picture, spt.whiten(picture)):
    ...     print(
    ...         np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1].round(1)
    ...     )
    1.0
    0.3
    """
    array = as_finite_image(image, "image")
    if exponent is not None:
        check_fraction(exponent, "exponent")
    if not np.ptp(array) > 0:
        return np.zeros_like(array)
    volume = _standard_volume(array)
    pair = _whitened_pair(volume, volume, _canvas(volume.shape, volume.shape), exponent)
    inside = tuple(slice(0, n) for n in volume.shape)
    return pair[0][inside].reshape(array.shape).astype(array.dtype)


@checked
def correlation_surface(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    whitening: float | None = None,
    max_shift: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Correlate two images at every shift.

    Each value is computed from the pixels that the images share at that shift, with
    their own means and variances [1]_: no shift is favoured for its larger
    overlap, and nothing wraps around. It is given as Fisher's
    ``z = atanh(r) * sqrt(n)`` of the correlation coefficient r of n pixels. By
    chance alone z has a standard deviation of 1 at small and large overlaps
    alike if pixels are independent, of 1 to 2 in whitened images, and of 10 and
    more in images as they come. The coefficient is ``r = tanh(z / sqrt(n))``.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images of any real dtype; the shapes may differ.
    whitening : float, optional
        How both are filtered before, see `whiten`. By default as the search of
        `phase_correlate` does it; 0 is plain correlation, 1 phase correlation.
    max_shift : float or array_like of shape (ndim,), optional
        Largest shift on all axes or on each, in pixels. By default every shift.

    Returns
    -------
    ndarray of shape (2 * max_shift + 1, ...)
        Surface with shift zero in the middle:
        ``shift = index - (np.array(surface.shape) - 1) / 2``, from moving to
        reference. Zero where fewer than 16 pixels are shared.

    Raises
    ------
    ValueError
        If the images differ in their number of axes, are not finite, or an option
        is out of range.

    See Also
    --------
    find_peaks : The highest points of a surface.
    phase_correlate : Shift to a fraction of a pixel.

    References
    ----------
    .. [1] Padfield (2012). Masked object registration in the Fourier domain.
       :doi:`10.1109/TIP.2011.2181402`

    Examples
    --------
    >>> import numpy as np
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> surface = spt.correlation_surface(
    ...     picture[50:250, 90:290], picture[62:262, 83:283], max_shift=20
    ... )
    >>> surface.shape
    (41, 41)
    >>> index = np.unravel_index(surface.argmax(), surface.shape)
    >>> index - (np.array(surface.shape) - 1) / 2
    array([12., -7.])
    """
    images = as_finite_image(reference, "reference"), as_finite_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    check_whitening(whitening)
    reach = np.maximum(images[0].shape, images[1].shape) - 1
    if max_shift is not None:
        limit = as_shift(max_shift, images[0].ndim, "max_shift")
        if (limit < 0).any():
            message = f"`max_shift` must not be negative; got {max_shift}."
            raise ValueError(message)
        check_memory(np.prod(2 * limit + 1), "max_shift")
        reach = np.floor(limit).astype(np.intp)
    volumes = _standard_volume(images[0]), _standard_volume(images[1])
    pad = (0,) * (3 - images[0].ndim)
    surface = _score(*volumes, np.array(pad + tuple(reach), np.intp), whitening)
    return surface.reshape(2 * reach + 1)


@checked
def find_peaks(surface: ArrayLike, *, count: int = 3, distance: float = 3) -> Peaks:
    """Find the highest local maxima of a surface.

    Parameters
    ----------
    surface : array_like of shape (rows, cols) or (planes, rows, cols)
        For instance a correlation surface.
    count : int, optional
        How many maxima to return, if there are as many.
    distance : float, optional
        Any two are at least this far apart along at least one axis, in pixels;
        the higher one stays.

    Returns
    -------
    Peaks
        Indices and heights, the highest first.

    Raises
    ------
    ValueError
        If the surface is not 2-D or 3-D, not finite, or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> surface = np.zeros((20, 30))
    >>> surface[4, 5], surface[4, 6], surface[15, 20] = 2, 1, 3
    >>> spt.find_peaks(surface, count=2)
    Peaks(indices=[[15, 20], [4, 5]], heights=[3, 2])
    """
    array = as_finite_image(surface, "surface")
    check_count(count, "count")
    check_positive(distance, "distance")
    peaks = list_peaks(_volume(array), -np.inf)
    indices = peaks.indices[:, 3 - array.ndim :]
    chosen = separate_peaks(indices, count, distance)
    return Peaks(
        indices=indices[chosen], heights=peaks.heights[chosen].astype(np.float64)
    )


def _volume(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _standard_volume(array: NDArray[Float]) -> NDArray[np.float32]:
    """Return an image as the search takes it: three axes, mean 0 and spread 1."""
    centred = array - array.mean(dtype=np.float64)
    spread = centred.std()
    # What remains of a constant image is rounding.
    if spread <= 8 * np.finfo(array.dtype).eps * np.abs(array).max():
        return np.zeros_like(_volume(array), np.float32)
    return _volume(centred / spread).astype(np.float32)


def _canvas(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with room for every lag, so that nothing wraps around."""
    return fast_shape(tuple((2 * np.max(shapes, axis=0) - 1).tolist()))


def _whitened_pair(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    shape: tuple[int, ...],
    exponent: float | None,
) -> NDArray[np.float32]:
    """Return both volumes whitened on zeros of the given shape; zero if constant."""
    measured = -1.0 if exponent is None else float(exponent)
    found = whiten_images(first, second, shape, measured, None)
    return np.zeros((2, *shape), np.float32) if found is None else found[0]


def _score(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    reach: NDArray[np.intp],
    exponent: float | None,
) -> NDArray[np.float64]:
    """Return Fisher's z at each lag from -`reach` to `reach`."""
    shape = _canvas(first.shape, second.shape)
    pair = _whitened_pair(first, second, shape, exponent)
    product = forward(pair[0]) * forward(pair[1]).conj()
    insides = [
        image[tuple(slice(0, n) for n in volume.shape)]
        for image, volume in zip(pair, (first, second), strict=True)
    ]
    sums0, squares0 = (box_table(insides[0], power, False) for power in (1, 2))
    sums1, squares1 = (box_table(insides[1], power, False) for power in (1, 2))
    # Lag zero is at index zero of the circular correlation.
    score = score_lags(
        inverse(product, shape),
        np.zeros_like(reach),
        -reach,
        2 * reach + 1,
        sums0,
        squares0,
        sums1,
        squares1,
        LEAST_OVERLAP,
    )
    return np.where(np.isfinite(score), score, 0).astype(np.float64)

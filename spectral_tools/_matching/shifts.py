"""Estimate the shift between two images, and how far it can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._shared.checks import (
    as_image,
    as_shift,
    as_valid,
    check_count,
    check_fraction,
    check_same_ndim,
    check_whitening,
)
from .phase_correlate import ShiftEstimate, correlate_images

__all__ = ["ShiftEstimate", "phase_correlate"]


def phase_correlate(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    guess: ArrayLike | None = None,
    max_shift: ArrayLike | None = None,
    min_overlap: float = 0.02,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    whitening: float | None = None,
    peaks: int = 3,
) -> ShiftEstimate:
    """Estimate the shift that lays one image over another.

    The whole pixel is found by the exact correlation coefficient of each overlap
    [1]_ of prewhitened images; the fraction by the maximum-likelihood
    fit to the phases of the cross-spectrum, weighted by the coherence that the
    pair itself shows [2]_. The images may be cut from a larger scene: only
    what both show is compared.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ. NaN and infinite
        pixels do not count.
    guess : array_like of shape (ndim,), optional
        Expected shift. Zero by default.
    max_shift : float or array_like of shape (ndim,), optional
        How far the shift may be from `guess`, in pixels. By default every shift with
        enough overlap is searched.
    min_overlap : float, optional
        Smallest overlap that is considered, as a fraction of the smaller image.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts.
    whitening : float, optional
        By default the weights are measured from the pair. A number is the
        classical exponent: 0 cross-correlation, 1 phase correlation.
    peaks : int, optional
        Number of alternatives to report.

    Returns
    -------
    ShiftEstimate
        The shift, its covariance and the chance that it is a false alarm.

    Raises
    ------
    ValueError
        If the images differ in their number of axes, have none or too many, or
        an option is out of range.
    TypeError
        If an image does not hold real numbers.

    See Also
    --------
    refine_pair : Match two images around given pairs of points.
    match_tiles : Match many tiles along their links.

    References
    ----------
    .. [1] Padfield (2012). Masked object registration in the Fourier domain.
       :doi:`10.1109/TIP.2011.2181402`
    .. [2] Knapp & Carter (1976). The generalized correlation method for
       estimation of time delay. :doi:`10.1109/TASSP.1976.1162830`

    Examples
    --------
    Two crops of one picture, of which the second starts 12 rows further down
    and 7 columns further left:

    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> found = spt.phase_correlate(picture[50:250, 90:290], picture[62:262, 83:283])
    >>> found.shift.round(2)
    array([12., -7.])
    >>> found.outcome
    <Outcome.MATCHED: 'matched'>

    Images that have nothing in common are not believed:

    >>> other = spt.phase_correlate(picture[:100, :100], picture[300:400, 300:400])
    >>> bool(other.false_alarm > 0.001)
    True
    """
    images = as_image(reference, "reference"), as_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    masks = (
        as_valid(reference_valid, images[0].shape, "reference_valid"),
        as_valid(moving_valid, images[1].shape, "moving_valid"),
    )
    centre = np.zeros(ndim) if guess is None else as_shift(guess, ndim, "guess")
    reach = None if max_shift is None else as_shift(max_shift, ndim, "max_shift")
    if reach is not None and (reach < 0).any():
        message = f"`max_shift` must not be negative; got {max_shift!r}."
        raise ValueError(message)
    check_fraction(min_overlap, "min_overlap")
    check_whitening(whitening)
    check_count(peaks, "peaks")
    return correlate_images(images, masks, centre, reach, min_overlap, whitening, peaks)

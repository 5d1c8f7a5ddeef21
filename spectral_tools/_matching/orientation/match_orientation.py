"""Find how one image is turned, scaled and mirrored in another."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ..._shared.checks import as_finite, as_image, as_valid, check_fraction
from ..._shared.outcomes import Outcome
from .pose_images import make_sketch
from .pose_match import (
    OrientationEstimate,
    grows_away,
    match_sketches,
    nothing_found,
)
from .pose_search import Range

__all__ = ["OrientationEstimate", "match_orientation"]


def match_orientation(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    scale_range: ArrayLike | None = None,
    mirror: bool = False,
    angles: ArrayLike | None = None,
    min_overlap: float = 0.1,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
) -> OrientationEstimate:
    """Find how one image is turned, shifted, scaled and mirrored in another.

    The power spectrum of an image does not know where the image was cut; in polar
    coordinates with logarithmic radius a turn and a scale only shift it [1]_. Noise is
    taken off before, ring by ring. The turns that the spectra suggest are tried
    on the images, and the best is fitted to them by least squares, each frequency
    weighted by its coherence and each part of the image by what it tells, to
    the accuracy that the noise allows.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols)
        Images, of any real dtype; the shapes may differ. NaN and infinite
        pixels do not count. Sides of about 24 pixels are the shortest that tell
        enough; smaller images are mostly not found.
    scale_range : array_like of shape (2,), optional
        Lowest and highest scale, in pixels of the reference for one of the
        moving image. By default the scale is 1, and not fitted; images whose scales
        differ so much that corners miss by more than 2 pixels are then beyond the
        bound. Scales between 0.4 and 2.5 can be found if the images show the same things.
    mirror : bool, optional
        Whether the moving image may be mirrored. Both ways are tried then.
    angles : float or array_like of shape (n,), optional
        Angles to try, in radians, within about 1 degree of the truth; the spectra then
        only tell the scale. Many take longer, but find images that are too noisy, or
        share too little, for their spectra to be alike. By default the spectra
        suggest angles from the full circle.
    min_overlap : float, optional
        Smallest overlap that is believed, as a fraction of the smaller image.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts.

    Returns
    -------
    OrientationEstimate
        The matrix from moving to reference, its parts, their covariance, and
        the chance that all this is a false alarm.

    Raises
    ------
    ValueError
        If an image is not 2-D, or an option is out of range.
    TypeError
        If an image does not hold real numbers.

    See Also
    --------
    phase_correlate : Shift of images that are not turned.
    warp_image : Moves an image by the matrix.

    References
    ----------
    .. [1] Reddy & Chatterji (1996). An FFT-based technique for translation,
       rotation, and scale-invariant image registration. :doi:`10.1109/83.506761`

    Examples
    --------
    A picture, and the same one turned by a quarter and cut elsewhere:

    >>> import numpy as np
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> turned = np.rot90(picture[100:400, 80:420])
    >>> found = spt.match_orientation(picture[60:360, 60:380], turned)
    >>> round(float(np.degrees(found.angle)), 1)
    -90.0
    >>> spt.apply_transform(found.matrix, [(339, 0)]).round(1)
    array([[40., 20.]])
    >>> found.outcome
    <Outcome.MATCHED: 'matched'>
    """
    images = as_image(reference, "reference"), as_image(moving, "moving")
    for image, name in zip(images, ("reference", "moving"), strict=True):
        if image.ndim != 2:
            message = f"`{name}` must be a 2-D image; got shape {image.shape}."
            raise ValueError(message)
    masks = (
        as_valid(reference_valid, images[0].shape, "reference_valid"),
        as_valid(moving_valid, images[1].shape, "moving_valid"),
    )
    check_fraction(min_overlap, "min_overlap")
    wanted = _as_range(scale_range, mirror, angles)
    first, second = (make_sketch(*one) for one in zip(images, masks, strict=True))
    if first is None or second is None:
        return nothing_found(Outcome.NO_TEXTURE)
    found = match_sketches(first, second, wanted, min_overlap)
    settled = wanted.free or found.outcome != Outcome.MATCHED
    if not settled and grows_away(first, second, found.matrix):
        return replace(found, outcome=Outcome.BEYOND_BOUND)
    return found


def _as_range(
    scale_range: ArrayLike | None, mirror: bool, angles: ArrayLike | None
) -> Range:
    scales = np.ones(2)
    if scale_range is not None:
        scales = as_finite(scale_range, "scale_range")
        if scales.shape != (2,) or not 0 < scales[0] <= scales[1]:
            message = (
                "`scale_range` must be two positive numbers, the lower first; "
                f"got {scale_range!r}."
            )
            raise ValueError(message)
    directions = None
    if angles is not None:
        directions = np.atleast_1d(as_finite(angles, "angles"))
        if directions.ndim != 1 or directions.size == 0:
            message = (
                f"`angles` must be a list of numbers; got shape {directions.shape}."
            )
            raise ValueError(message)
    return Range(
        low=math.log(scales[0]),
        high=math.log(scales[1]),
        mirror=bool(mirror),
        angles=directions,
    )

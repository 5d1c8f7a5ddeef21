"""Find how one image is turned, scaled and mirrored in another (floor 8)."""

import math

import numpy as np
from numpy.typing import ArrayLike

from ._checks import as_finite, as_image, as_valid, check_fraction
from ._pose_match import OrientationEstimate, match_sketches
from ._pose_search import Range
from ._pose_sketch import make_sketch

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
    """TODO."""
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
    sketches = [make_sketch(*one) for one in zip(images, masks, strict=True)]
    return match_sketches(sketches[0], sketches[1], wanted, min_overlap)


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
            message = f"`angles` must be a list of numbers; got shape {directions.shape}."
            raise ValueError(message)
    return Range(
        low=math.log(scales[0]),
        high=math.log(scales[1]),
        mirror=bool(mirror),
        angles=directions,
    )

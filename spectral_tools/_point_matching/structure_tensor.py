"""Images of structure, which look alike whatever an instrument measures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Plane
from .._shared.ndimage import distance_transform_edt, gaussian_filter

__all__ = ["FINEST", "Structure", "structure_of"]


# Edges count by how strong they are beside others within this many scales: those of a
# faint part of the image as much as those of a bright one.
AROUND = 8.0
# Squared gradients are averaged over this many scales.
SOFT = 0.3
# Pixels this many scales from where nothing is known do not count.
RIM = 2.0
# Pixels as wide as a scale, and edges as soft, show no finer detail than two make a wave.
FINEST = 0.5


class Structure(NamedTuple):
    """Which way edges run at each pixel, and how far they can be trusted.

    Attributes
    ----------
    field : ndarray of float32, shape (channels, *shape)
        Deviation from roundness of the direction of the gradient, times its strength
        beside that of others around; three axes, a missing one comes first.
    weight : ndarray of float32, shape (*shape,)
        One where the field counts, else zero.
    finest : float
        Frequency beyond which there is nothing but interpolation, in cycles per pixel.
    """

    field: Plane
    weight: Plane
    finest: float


def structure_of(
    image: NDArray[np.floating], scale: float, valid: NDArray[np.bool_] | None = None
) -> Structure:
    """Return the structure of an image, at a scale in pixels.

    The direction of the gradient up to its sign does not change if bright becomes
    dark, nor if contrast grows; its double angle is what averages well.
    """
    known = np.isfinite(image)
    if valid is not None:
        known &= valid
    weight = np.ones(image.shape, np.float32)
    filled = np.asarray(image, np.float32)
    if not known.any():
        weight[:] = 0
        filled = np.zeros_like(filled)
    elif not known.all():
        nearest = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        filled = filled[tuple(nearest)]
        weight[:] = distance_transform_edt(known) > RIM * scale
    slopes = [
        gaussian_filter(filled, scale, order=order, mode="nearest")
        for order in np.eye(image.ndim, dtype=int).tolist()
    ]
    square = np.asarray(sum(slope * slope for slope in slopes))
    parts = _roundness(slopes, square)
    # Where edges meet, directions jump; means over a few pixels do not.
    soft = [
        gaussian_filter(part, SOFT * scale, mode="nearest") for part in (*parts, square)
    ]
    strength = np.sqrt(np.maximum(soft[-1], 0))
    around = gaussian_filter(strength * weight, AROUND * scale, mode="nearest")
    share = gaussian_filter(weight, AROUND * scale, mode="nearest")
    around /= np.maximum(share, 1e-3)
    # Where nothing is, rounding has directions too.
    floor = 1e-4 * float(strength.max(initial=0)) + 1e-12
    gain = weight / ((strength + around + floor) * (strength + floor))
    channels = (np.stack(soft[:-1]) * gain).astype(np.float32)
    ahead = (np.newaxis,) * (3 - image.ndim)
    finest = FINEST / max(scale, 1.0)
    return Structure(channels[(slice(None), *ahead)], weight[ahead], finest)


def _roundness(slopes: list[Plane], square: Plane) -> Plane:
    """Return the parts of the squared gradient that have a direction."""
    if len(slopes) == 2:
        first, second = slopes
        return np.stack([first * first - second * second, 2 * first * second])
    mean = square / 3
    parts = [np.sqrt(1.5) * (slope * slope - mean) for slope in slopes]
    parts += [np.sqrt(3) * slopes[i] * slopes[i - 1] for i in range(3)]
    return np.stack(parts)

"""Where an image lies in the world: pixel size, unit, origin, channels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arrays import Floats
from .._shared.checks import as_finite, as_shift

__all__ = ["Frame", "as_channel_names", "as_frame"]


# What lengths are called, short and long.
UNITS = {
    "pm": "picometer",
    "Å": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
# Other ways to type the first letter: plain, and the Greek one.
ALIASES = {"um": "µm", "\u03bcm": "µm"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """Pixels in the world.

    Attributes
    ----------
    pixel_size : ndarray of shape (ndim,)
        Distance of neighbours along each axis; 1 where it is not known.
    origin : ndarray of shape (ndim,)
        Centre of the first pixel, in the same unit.
    unit, long_unit : str
        Short and long name of the unit; empty for pixels.
    """

    pixel_size: Floats
    origin: Floats
    unit: str
    long_unit: str


def as_frame(
    ndim: int, pixel_size: ArrayLike | None, unit: str, origin: ArrayLike | None
) -> Frame:
    """Return the frame of an image whose origin is given in pixels."""
    short = ALIASES.get(unit, unit)
    if short not in UNITS:
        message = f"`unit` must be one of {', '.join(UNITS)}; got {unit!r}."
        raise ValueError(message)
    size = np.ones(ndim)
    if pixel_size is not None:
        size = as_shift(pixel_size, ndim, "pixel_size")
    if (size <= 0).any():
        message = f"`pixel_size` must be greater than 0; got {size.tolist()}."
        raise ValueError(message)
    start = np.zeros(ndim)
    if origin is not None:
        start = as_finite(origin, "origin")
    if start.shape != (ndim,):
        message = f"`origin` must have shape ({ndim},); got {start.shape}."
        raise ValueError(message)
    known = pixel_size is not None
    return Frame(
        pixel_size=size,
        origin=start * size,
        unit=short if known else "",
        long_unit=UNITS[short] if known else "",
    )


def as_channel_names(names: Sequence[str] | None, count: int) -> list[str]:
    """Return one name for each channel, or none at all."""
    if names is None:
        return []
    found = [names] if isinstance(names, str) else list(names)
    if len(found) != count or not all(isinstance(name, str) for name in found):
        message = f"`channel_names` must be {count} strings; got {names!r}."
        raise ValueError(message)
    return found

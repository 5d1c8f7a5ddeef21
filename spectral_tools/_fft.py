"""The one door to scipy.fft (floor 0).

Everything goes through `scipy.fft`, so that its backends (for instance MKL's)
serve this package too. Transforms are real and in single precision wherever
images are compared; one thread each, because threads belong to the caller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["fast_shape", "fftfreq", "forward", "inverse", "rfftfreq"]

fftfreq = fft.fftfreq
rfftfreq = fft.rfftfreq


def fast_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the nearest shape, not smaller, that transforms fast."""
    return tuple(
        int(fft.next_fast_len(int(size), real=axis == len(shape) - 1))
        for axis, size in enumerate(shape)
    )


def forward(image: NDArray[Any]) -> NDArray[Any]:
    """Return the real transform of an image, or of the last axes of a stack."""
    return fft.rfftn(image)


def inverse(spectrum: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the image of the given shape whose real transform is `spectrum`."""
    return fft.irfftn(spectrum, s=shape, overwrite_x=True)

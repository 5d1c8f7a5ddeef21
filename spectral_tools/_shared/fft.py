"""The one door to scipy.fft.

Everything goes through `scipy.fft`, so that its backends (for instance MKL's)
serve this package too. Transforms are real and in single precision wherever
images are compared; one thread each, because threads belong to the caller.
"""

from typing import Any

from numpy.typing import NDArray
from scipy import fft

__all__ = [
    "fast_shape",
    "fftfreq",
    "forward",
    "forward_pair",
    "forward_stack",
    "frequencies",
    "inverse",
    "inverse_stack",
    "rfftfreq",
]

fftfreq = fft.fftfreq
rfftfreq = fft.rfftfreq


def fast_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the nearest shape, not smaller, that transforms fast.

    All axes are treated alike, so that turning an image turns its spectrum.
    """
    return tuple(int(fft.next_fast_len(int(size), real=True)) for size in shape)


def frequencies(
    shape: tuple[int, ...],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the frequencies of the three axes of a real transform."""
    return fftfreq(shape[0]), fftfreq(shape[1]), rfftfreq(shape[2])


def forward(image: NDArray[Any]) -> NDArray[Any]:
    """Return the real transform of an image; axes of one pixel cost nothing."""
    return fft.rfftn(image, axes=_long_axes(image.shape))


def forward_pair(images: NDArray[Any]) -> NDArray[Any]:
    """Return the real transforms of two images that lie behind each other."""
    return fft.rfftn(images, axes=[axis + 1 for axis in _long_axes(images.shape[1:])])


def forward_stack(images: NDArray[Any]) -> NDArray[Any]:
    """Return the real transforms over the last three axes."""
    axes = [axis - 3 for axis in _long_axes(images.shape[-3:])]
    return fft.rfftn(images, axes=axes)


def inverse_stack(spectra: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return images of a shape, of three axes, from their real transforms."""
    axes = _long_axes(shape)
    sizes = [shape[axis] for axis in axes]
    return fft.irfftn(spectra, s=sizes, axes=[axis - 3 for axis in axes])


def inverse(spectrum: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the image of the given shape whose real transform is `spectrum`.

    The spectrum is spent: it may be overwritten.
    """
    axes = _long_axes(shape)
    sizes = [shape[axis] for axis in axes]
    return fft.irfftn(spectrum, s=sizes, axes=axes, overwrite_x=True)


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    last = len(shape) - 1
    return [axis for axis in range(last) if shape[axis] > 1] + [last]

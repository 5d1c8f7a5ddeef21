"""Whiten images: flat spectra, or each mode by what stands out of noise there."""

import math

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Spectrum, Volume
from .._shared.fft import forward_pair, frequencies, inverse
from .ring_kernels import (
    RING_SHARE,
    WHITENING_MODES,
    extend_periodic,
    flatten_modes,
    ring_edges,
    ring_whitening,
    whiten_modes,
)
from .tapers import search_taper, taper_block

__all__ = ["ring_gains", "tapered_spectra", "whiten_images", "whiten_spectra"]


def whiten_images(
    reference: Volume,
    moving: Volume,
    shape: tuple[int, ...],
    exponent: float,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
) -> NDArray[np.float32] | None:
    """Return both images prewhitened, on zeros of the given shape."""
    canvas = np.zeros((2, *shape), np.float32)
    images = reference, moving
    for image, out in zip(images, canvas, strict=True):
        extend_periodic(image, out)
    spectra = list(forward_pair(canvas))
    # What lies beyond the ends is made up: it is filtered, but tells no power.
    samples = tapered_spectra(images, shape)
    whiten_spectra(spectra, samples, shape, (reference.shape, moving.shape), exponent)
    for i, (image, spectrum) in enumerate(zip(images, spectra, strict=True)):
        inside = tuple(slice(0, n) for n in image.shape)
        filtered = inverse(spectrum, shape)[inside]
        if valid is not None:
            filtered = filtered * valid[i]
        spread = float(filtered.std(dtype=np.float64))
        if not spread > 0:
            return None
        canvas[i] = 0
        canvas[i][inside] = (filtered - filtered.mean(dtype=np.float64)) / spread
    return canvas


def whiten_spectra(
    spectra: list[NDArray[np.complex64]],
    samples: list[NDArray[np.complex64]],
    shape: tuple[int, ...],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    exponent: float,
) -> None:
    """Filter both spectra in place so that their product is weighted to detect.

    The powers are those of `samples`, spectra of the same images.
    """
    if exponent >= 0:
        for spectrum in spectra:
            flatten_modes(spectrum, exponent)
        return
    edges, gain, limit = ring_gains(samples, shape, sizes)
    freqs = frequencies(shape)
    for index, spectrum in enumerate(spectra):
        whiten_modes(spectrum, *freqs, edges, gain[index], limit[index])


def ring_gains(
    samples: list[NDArray[np.complex64]],
    shape: tuple[int, ...],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
) -> tuple[Floats, Floats, Floats]:
    """Return rings, what whitens each of two images there, and how much stands out.

    `samples` are transforms of the given shape, of images of the given sizes.
    """
    freqs = frequencies(shape)
    width = math.exp(-np.log([n for size in sizes for n in size if n > 1]).mean())
    shares = [math.prod(size) / math.prod(shape) for size in sizes]
    edges = ring_edges(np.array(shape), width, min(shares), WHITENING_MODES, RING_SHARE)
    gain, limit = ring_whitening(samples[0], samples[1], *freqs, edges, *shares)
    return edges, gain, limit


def tapered_spectra(
    images: tuple[Volume, Volume], shape: tuple[int, ...]
) -> list[Spectrum]:
    """Return the transforms of two images that fade out at their edges."""
    canvas = np.zeros((2, *shape), np.float32)
    nowhere = np.zeros(3, np.intp)
    for image, out in zip(images, canvas, strict=True):
        first, second, third = map(search_taper, image.shape)
        size = np.array(image.shape)
        taper_block(image, nowhere, size, first, second, third, out)
    return list(forward_pair(canvas))

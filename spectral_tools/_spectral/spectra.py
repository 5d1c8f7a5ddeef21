"""Look inside a match: windows, spectra, and what images have in common."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._sampling.boxes import overlap_block
from .._shared.arguments import checked
from .._shared.arrays import Float
from .._shared.checks import (
    as_finite_image,
    as_shape,
    as_shift,
    check_positive,
    check_same_ndim,
)
from .._shared.fft import fftfreq, forward, rfftfreq
from .._shared.results import result
from .phase_fit_kernels import SLACK, smooth_coherence
from .ring_kernels import RING_MODES, RING_SHARE, ring_edges
from .tapers import edge_taper, taper_width

__all__ = [
    "RingAverage",
    "RingCoherence",
    "cosine_taper",
    "power_spectrum",
    "ring_average",
    "ring_coherence",
]


# Blocks with a side shorter than this, in pixels, have no spectrum to speak of
# (test_shift_must_leave_something_in_common).
LEAST_SIDE = 4


@result
class RingAverage:
    """Means over rings (in 3-D: shells) of the same frequency.

    Attributes
    ----------
    frequency : ndarray of shape (rings,)
        Mean frequency of each ring, in cycles per pixel, rising from 0.
    mean : ndarray of shape (rings,)
        Mean of the values in each ring.
    count : ndarray of shape (rings,), integer
        Number of values in each ring.
    """

    frequency: NDArray[np.float64]
    mean: NDArray[np.float64]
    count: NDArray[np.intp]


@result
class RingCoherence:
    """What two images have in common, ring by ring.

    Attributes
    ----------
    frequency : ndarray of shape (rings,)
        Mean frequency of each ring, in cycles per pixel.
    coherence : ndarray of shape (rings,)
        Share of the power that both images have in common, -1 to 1: S / (S + N)
        for a signal S in both and a noise N in each.
    smoothed : ndarray of shape (rings,)
        The same, averaged over neighbouring rings as far as the data agree and
        freed of the bias of its own error, 0 to 1. The weights are made of it.
    reference_power, moving_power : ndarray of shape (rings,)
        Mean power of each image; white noise of variance v has power v.
    count : ndarray of shape (rings,)
        Number of independent modes in each ring.
    """

    frequency: NDArray[np.float64]
    coherence: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    reference_power: NDArray[np.float64]
    moving_power: NDArray[np.float64]
    count: NDArray[np.float64]


@checked
def cosine_taper(
    shape: tuple[int, ...], *, width: ArrayLike = 6.0, shift: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Return a window that fades to zero at its edges.

    The transform of a picture takes its opposite borders for neighbours, and
    sees a step there. A window that fades removes the step; a thin one costs
    little of the picture.

    Parameters
    ----------
    shape : sequence of 2 or 3 int
        Pixels along each axis.
    width : float or array_like of shape (ndim,), optional
        Width of the edges, in pixels, on all axes or on each.
    shift : float or array_like of shape (ndim,), optional
        How far the window is moved, in pixels. Windows that follow the content
        of two pictures are moved by half of the shift, each its own way.

    Returns
    -------
    ndarray of the given shape
        Weights from 0 to 1; the edges are squared cosines.

    Raises
    ------
    ValueError
        If a width is not positive, or an argument has the wrong shape.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.cosine_taper((1, 8), width=2).round(2)
    array([[0.15, 0.85, 1.  , 1.  , 1.  , 1.  , 0.85, 0.15]])

    Moved to the right by half a pixel:

    >>> spt.cosine_taper((1, 8), width=2, shift=(0, 0.5)).round(2)
    array([[0. , 0.5, 1. , 1. , 1. , 1. , 1. , 0.5]])
    """
    size = as_shape(shape, "shape")
    widths = as_shift(width, len(size), "width")
    check_positive(float(widths.min()), "width")
    moved = as_shift(shift, len(size), "shift")
    return _window(size, widths, moved)


@checked
def power_spectrum(image: ArrayLike, *, taper: bool = True) -> NDArray[Float]:
    """Return the power of each frequency of an image.

    The mean of the image is taken off. White noise of variance v has a mean
    power of v, whatever the size of the image.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        Image of any real dtype.
    taper : bool, optional
        Fade the edges out first (thin squared cosines, of 4 % of an axis but at
        least 6 px). Without, the step between opposite borders of an image that
        is not periodic shows as a bright cross.

    Returns
    -------
    ndarray of the shape of `image`
        Power, with frequency zero in the middle, at index ``n // 2`` of each
        axis, and ``1 / n`` cycles per pixel from one index to the next.

    Raises
    ------
    ValueError
        If the image is not 2-D or 3-D, or not finite.

    See Also
    --------
    ring_average : Mean over rings of the same frequency.

    Examples
    --------
    A wave of 5 periods on 40 columns is one pair of points, 5 columns from the
    middle:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> wave = np.sin(2 * np.pi * 5 * np.arange(40) / 40) * np.ones((30, 1))
    >>> power = spt.power_spectrum(wave, taper=False)
    >>> np.argwhere(power > 1) - (15, 20)
    array([[ 0, -5],
           [ 0,  5]])
    """
    array = as_finite_image(image, "image")
    still = np.zeros(array.ndim)
    window = _fit_window(array.shape, still) if taper else np.ones(array.shape)
    half = np.square(np.abs(_transform(array, window)))
    whole = _whole_plane(half, array.shape)
    middle = tuple(n // 2 for n in array.shape)
    return np.roll(whole, middle, range(array.ndim)).astype(array.dtype, copy=False)


@checked
def ring_average(values: ArrayLike) -> RingAverage:
    """Average over rings of the same frequency.

    Parameters
    ----------
    values : array_like of shape (rows, cols) or (planes, rows, cols)
        Values with frequency zero in the middle, as `power_spectrum` returns
        them. In 3-D the rings are shells.

    Returns
    -------
    RingAverage
        Frequencies and means. The first ring is frequency zero alone; those
        beyond 0.5 cycles per pixel are cut off by the corners of the array.

    Raises
    ------
    ValueError
        If the array is not 2-D or 3-D, or not finite.

    Examples
    --------
    White noise has the same power everywhere:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> noise = np.random.default_rng(0).normal(0, 3, (400, 300))
    >>> rings = spt.ring_average(spt.power_spectrum(noise))
    >>> rings.mean[[50, 100, 150]].round(1)
    array([10.1, 9.2, 9.3])
    """
    array = as_finite_image(values, "values")
    frequency = np.sqrt(_square_frequency([*map(_middle_frequency, array.shape)]))
    ring = np.rint(frequency / _pitch(array.shape)).astype(np.intp).ravel()
    count = np.bincount(ring)
    full = count > 0
    means = [
        np.bincount(ring, weights=part.ravel())[full] / count[full]
        for part in (frequency, array)
    ]
    return RingAverage(frequency=means[0], mean=means[1], count=count[full])


@checked
def ring_coherence(
    reference: ArrayLike, moving: ArrayLike, *, shift: ArrayLike | None = None
) -> RingCoherence:
    """Measure how much two images have in common at each frequency.

    Both are cut to what they share at the shift; the rest of the shift is
    taken out of the phases. This is what the weights of a fit are made of [1]_:
    a phase of coherence g counts ``g**2 / (1 - g**2)``.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images of any real dtype; the shapes may differ.
    shift : float or array_like of shape (ndim,), optional
        Shift from moving to reference, in pixels:
        ``reference_point = moving_point + shift``. Zero by default.

    Returns
    -------
    RingCoherence
        Coherence and powers in rings of frequencies.

    Raises
    ------
    ValueError
        If the images differ in their number of axes, are not finite, or share
        less than 4 pixels along an axis.

    References
    ----------
    .. [1] Knapp & Carter (1976). The generalized correlation method for
       estimation of time delay. :doi:`10.1109/TASSP.1976.1162830`

    Examples
    --------
    Two pictures of one scene with as much noise as signal have a coherence of
    one half:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rng = np.random.default_rng(0)
    >>> scene = rng.normal(size=(256, 256))
    >>> first, second = scene + rng.normal(size=(2, 256, 256))
    >>> rings = spt.ring_coherence(first, second)
    >>> round(float(np.average(rings.coherence, weights=rings.count)), 2)
    0.5
    """
    images = as_finite_image(reference, "reference"), as_finite_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    moved = as_shift(0.0 if shift is None else shift, ndim, "shift")

    whole = np.rint(moved)
    shape0, shape1 = (np.array(image.shape) for image in images)
    within = np.clip(whole, -shape1, shape0).astype(np.intp)
    *starts, block = overlap_block(shape0, shape1, within)
    if (block < np.minimum(LEAST_SIDE, np.minimum(shape0, shape1))).any():
        message = f"`shift` must leave {LEAST_SIDE} pixels in common; got {moved}."
        raise ValueError(message)
    cuts = [
        image[tuple(slice(b, b + n) for b, n in zip(start, block, strict=True))]
        for image, start in zip(images, starts, strict=True)
    ]
    return _coherence(cuts, moved - whole)


def _window(
    size: tuple[int, ...], widths: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    axes = [edge_taper(*one) for one in zip(size, widths, shift, strict=True)]
    return reduce(np.multiply, np.meshgrid(*axes, indexing="ij", sparse=True))


def _fit_window(
    size: tuple[int, ...], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the window that the fit of a shift puts on images of this size.

    Sides below 24 pixels keep half of their pixels, to be seen; a fit fades more.
    """
    widths = [taper_width(side, most=0.25) for side in size]
    return _window(size, np.array(widths), shift)


def _transform(array: NDArray[Float], window: NDArray[np.float64]) -> NDArray[Any]:
    """Return the transform in which white noise of variance 1 has power 1."""
    mean = np.vdot(array, window) / window.sum()
    return forward((array - mean) * window) / math.sqrt(float(np.vdot(window, window)))


def _whole_plane(half: NDArray[Float], size: tuple[int, ...]) -> NDArray[Float]:
    """Return power at all frequencies from that of the half which is stored."""
    axes = tuple(range(len(size)))
    mirror = np.roll(np.flip(half, axes), 1, axes[:-1])
    # Frequency zero, and the last of an even axis, are their own mirror image.
    return np.concatenate([half, mirror[..., 1 - size[-1] % 2 : -1]], axis=-1)


def _middle_frequency(size: int) -> NDArray[np.float64]:
    return (np.arange(size) - size // 2) / size


def _square_frequency(axes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    return reduce(np.add, [axis**2 for axis in grid])


def _pitch(size: tuple[int, ...]) -> float:
    """Return one step of frequency of the (geometric) mean axis."""
    long = [n for n in size if n > 1]
    return math.exp(-float(np.log(long).mean())) if long else 1.0


def _turned_spectra(
    cuts: list[NDArray[Float]], fraction: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return two spectra, the second moved by `fraction`, and the share that counts.

    The windows follow the content by half of the fraction each, as in the fit.
    """
    size = cuts[0].shape
    windows = [_fit_window(size, side * fraction) for side in (0.5, -0.5)]
    first, second = (_transform(*one) for one in zip(cuts, windows, strict=True))
    axes = [*map(fftfreq, size[:-1]), rfftfreq(size[-1])]
    for axis, (step, frequency) in enumerate(zip(fraction, axes, strict=True)):
        turn = np.exp(-2j * np.pi * step * frequency)
        second *= turn.reshape([-1 if a == axis else 1 for a in range(len(size))])
    both = windows[0] * windows[1]
    return first, second, float(both.sum() ** 2 / np.vdot(both, both)) / both.size


def _coherence(
    cuts: list[NDArray[Float]], fraction: NDArray[np.float64]
) -> RingCoherence:
    size = cuts[0].shape
    first, second, share = _turned_spectra(cuts, fraction)
    # Of the stored half, the first column and the last of an even axis hold
    # each mode twice.
    weight = np.ones(first.shape)
    weight[..., [0, -1] if size[-1] % 2 == 0 else [0]] = 0.5
    square = _square_frequency([*map(fftfreq, size[:-1]), rfftfreq(size[-1])])
    volume = np.array((1,) * (3 - len(size)) + size)
    edges = ring_edges(volume, _pitch(size), share, RING_MODES, RING_SHARE)
    ring = np.searchsorted(edges, square.ravel())

    modes = np.bincount(ring, weight.ravel())
    full = modes > 0
    power0, power1, common, frequency = (
        np.bincount(ring, (weight * part).ravel())[full] / modes[full]
        for part in (
            np.square(np.abs(first)),
            np.square(np.abs(second)),
            (first * second.conj()).real,
            np.sqrt(square),
        )
    )
    level = np.sqrt(power0 * power1)
    coherence = np.divide(common, level, out=np.zeros_like(level), where=level > 0)
    count = (modes[full] * share).astype(np.float64)
    return RingCoherence(
        frequency=frequency,
        coherence=coherence,
        smoothed=smooth_coherence(count, coherence, SLACK),
        reference_power=power0,
        moving_power=power1,
        count=count,
    )

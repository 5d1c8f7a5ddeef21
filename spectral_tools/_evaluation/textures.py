"""Make random scenes that look like images to an algorithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.checks import as_shape, check_not_negative, check_positive
from .._shared.fft import fftfreq, forward, inverse, rfftfreq

__all__ = ["gaussian_texture"]

# Below this frequency (cycles per pixel) the power law of a texture levels off.
KNEE = 0.02


@checked
def gaussian_texture(
    shape: Sequence[int],
    *,
    cutoff: float = 0.3,
    slope: float = 3.0,
    rng: int | np.random.Generator | None = None,
) -> NDArray[np.float64]:
    """Make a random scene with the spectrum of an image from a microscope.

    The power falls like a power of the frequency, as in pictures of nature,
    times the square of the transfer function of an ideal lens. The scene is
    periodic, and band-limited if `cutoff` is at most half a cycle per pixel.

    Parameters
    ----------
    shape : sequence of 2 or 3 int
        Pixels along each axis.
    cutoff : float, optional
        Frequency from which on the lens passes nothing, in cycles per pixel:
        0.5 is critical sampling, 0.25 is twofold oversampling.
    slope : float, optional
        Exponent of the power law; 0 is white before the lens. The law levels
        off below 0.02 cycles per pixel.
    rng : int or numpy.random.Generator, optional
        Seed or source of the random numbers.

    Returns
    -------
    ndarray of the given shape
        A normal random field with mean 0 and standard deviation 1 over its
        pixels.

    References
    ----------
    .. [1] Goodman, J. W., "Introduction to Fourier Optics", 4th ed.,
       W. H. Freeman, 2017: transfer function of a round aperture.
    .. [2] Field, D. J., "Relations between the statistics of natural images
       and the response properties of cortical cells", J. Opt. Soc. Am. A 4,
       2379 (1987). :doi:`10.1364/JOSAA.4.002379`

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((128, 128), cutoff=0.25, rng=1)
    >>> round(float(scene.std()), 6)
    1.0

    Nothing is finer than the cutoff:

    >>> power = np.abs(np.fft.rfft2(scene)) ** 2
    >>> rows, cols = np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)
    >>> bool(power[np.hypot(rows, cols) > 0.25].sum() < 1e-12 * power.sum())
    True
    """
    rng = np.random.default_rng(rng)
    size = as_shape(shape, "shape")
    check_positive(cutoff, "cutoff")
    check_not_negative(slope, "slope")

    spectrum = forward(rng.standard_normal(size))
    spectrum *= np.sqrt(_power(size, cutoff, slope))
    scene = inverse(spectrum, size)
    spread = scene.std()
    if spread == 0:
        message = f"`shape` must hold a period of 1 / `cutoff` pixels; got {size}."
        raise ValueError(message)
    return scene / spread


def _power(size: tuple[int, ...], cutoff: float, slope: float) -> NDArray[np.float64]:
    axes = [*map(fftfreq, size[:-1]), rfftfreq(size[-1])]
    square = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
    inside = np.minimum(np.sqrt(square) / cutoff, 1)
    lens = 2 / np.pi * (np.arccos(inside) - inside * np.sqrt(1 - inside**2))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        power = lens**2 / (square + KNEE**2) ** (slope / 2)
    power.flat[0] = 0
    if not np.isfinite(power).all():
        message = f"`slope` must leave finite powers; got {slope:g}."
        raise ValueError(message)
    return power

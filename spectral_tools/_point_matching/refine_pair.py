"""Match two images around given pairs of points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._matching.phase_correlate import (
    BELIEVED,
    ShiftEstimate,
    correlate_images,
    no_match,
)
from .._rendering.tile_reading import FAR
from .._shared.arguments import checked
from .._shared.checks import (
    as_finite,
    as_shift,
    as_sized_image,
    check_count,
    check_positive,
    check_same_ndim,
    check_same_shape,
    check_whitening,
)
from .._shared.results import Outcome, result

__all__ = ["WINDOW_OVERLAP", "PointMatches", "refine_pair"]

# Windows must share this much to be compared, and hold as many valid pixels
# (test_windows_that_show_nothing_are_not_compared).
WINDOW_OVERLAP = 0.25


@result
class PointMatches:
    """Pairs of points that show the same thing, and how far they can be trusted.

    All arrays have the leading shape of the points that were given.

    Attributes
    ----------
    reference_points, moving_points : ndarray of shape (..., ndim)
        Points in the reference and in the moving image, in pixels.
    covariance : ndarray of shape (..., ndim, ndim)
        Covariance of the difference of the two points, in square pixels.
        Infinite where nothing is known.
    correlation : ndarray of shape (...)
        Zero-mean normalised cross-correlation of the two windows, -1 to 1.
    false_alarm : ndarray of shape (...)
        Probability that chance alone gives a peak this good, 0 to 1.
    outcome : ndarray of shape (...)
        An `Outcome` for each pair.
    steps : ndarray of int of shape (...)
        How many steps were taken.
    """

    reference_points: NDArray[np.float64]
    moving_points: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: NDArray[np.float64]
    false_alarm: NDArray[np.float64]
    outcome: NDArray[np.object_]
    steps: NDArray[np.intp]


@checked
def refine_pair(
    reference: ArrayLike,
    moving: ArrayLike,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    size: ArrayLike = 128,
    iterations: int = 5,
    tolerance: float = 1e-3,
    whitening: float | None = None,
) -> PointMatches:
    """Move pairs of points until the windows around them show the same thing.

    Each step cuts a window around either point, finds the shift between the
    two, and moves both points by half of it [1]_. A first guess may be wrong by
    up to half a window.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ.
    reference_points, moving_points : array_like of shape (..., ndim)
        Pairs of points that should show the same thing. A single pair has
        shape (ndim,), a grid of pairs for instance (m, n, ndim).
    size : int or array_like of shape (ndim,), optional
        Side of the windows, in pixels. Windows end where an image ends.
    iterations : int, optional
        Largest number of steps.
    tolerance : float, optional
        A pair is left alone once a step is shorter than this, in pixels.
    whitening : float, optional
        By default the weights are measured from the pair. A number is the
        classical exponent: 0 cross-correlation, 1 phase correlation.

    Returns
    -------
    PointMatches
        The moved points, and how far each pair can be trusted. A pair that
        fails comes back as it was given, with ``false_alarm`` 1.

    Raises
    ------
    ValueError
        If shapes do not fit, or points are not finite.

    See Also
    --------
    phase_correlate : Match whole images.

    References
    ----------
    .. [1] Wetzel et al. (2016). Registering large volume serial-section electron
       microscopy image sets for neural circuit reconstruction using FFT signal
       whitening. :doi:`10.1109/AIPR.2016.8010595`

    Examples
    --------
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> reference, moving = picture[:400, :400], picture[30:430, 20:420]
    >>> found = spt.refine_pair(reference, moving, (205, 190), (170, 175))
    >>> (found.reference_points - found.moving_points).round(2)
    array([30., 20.])
    """
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    points = [
        as_finite(given, name)
        for given, name in (
            (reference_points, "reference_points"),
            (moving_points, "moving_points"),
        )
    ]
    if points[0].ndim < 1 or points[0].shape[-1] != ndim:
        message = (
            f"`reference_points` must have shape (..., {ndim}); got {points[0].shape}."
        )
        raise ValueError(message)
    check_same_shape(reference_points=points[0], moving_points=points[1])
    sides = np.minimum(as_shift(size, ndim, "size"), FAR)
    if (sides < 8).any():
        message = f"`size` must be at least 8 pixels; got {sides.min():g}."
        raise ValueError(message)
    check_count(iterations, "iterations")
    check_positive(tolerance, "tolerance")
    check_whitening(whitening)

    rows = [
        _refine(images, first, second, sides, iterations, tolerance, whitening)
        for first, second in zip(*(p.reshape(-1, ndim) for p in points), strict=True)
    ]
    return _gather(rows, points[0].shape[:-1], ndim)


class _RefinedPair(NamedTuple):
    """A pair of points, the last estimate of their shift, and how many were made."""

    reference: NDArray[np.float64]
    moving: NDArray[np.float64]
    estimate: ShiftEstimate
    steps: int


def _refine(
    images: tuple[NDArray[Any], NDArray[Any]],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    sides: NDArray[np.float64],
    iterations: int,
    tolerance: float,
    whitening: float | None,
) -> _RefinedPair:
    """Refine one pair of points; the last estimate says how good it is."""
    given = first, second
    estimate, best, used = None, 1.0, 0
    seen: set[tuple[float, ...]] = set()
    for _ in range(iterations):
        windows, starts = [], []
        corners = [np.rint(point - (sides - 1) / 2) for point in (first, second)]
        for image, start in zip(images, corners, strict=True):
            low = np.clip(start, -sides, image.shape).astype(np.intp)
            high = low + sides.astype(np.intp)
            low, high = np.clip(low, 0, image.shape), np.clip(high, 0, image.shape)
            windows.append(image[tuple(map(slice, low, high))])
            starts.append(low)
        if any(0 in window.shape for window in windows):
            break
        # The same windows, as far apart, give the same step: it goes to and fro.
        with np.errstate(over="ignore"):
            apart = np.rint((first - second) / tolerance)
        state = tuple(np.concatenate([*corners, apart]).tolist())
        if state in seen:
            break
        seen.add(state)
        offset = starts[0] - starts[1]
        found = correlate_images(
            (windows[0], windows[1]), (None, None), first - second - offset,
            sides / 2, WINDOW_OVERLAP, whitening, 1, parts=False,
        )  # fmt: skip
        # A later step that loses the match must not undo an earlier one.
        if (
            found.outcome != Outcome.MATCHED
            and estimate is not None
            and best < BELIEVED
        ):
            break
        used += 1
        step = second + found.shift + offset - first
        estimate, best = found, min(best, found.false_alarm)
        if not np.isfinite(found.covariance).all():
            break
        first, second = first + step / 2, second - step / 2
        if np.abs(step).max() < tolerance:
            break
    if estimate is None:
        lost = no_match(len(first), Outcome.NO_TEXTURE)
        unknown = np.full_like(lost.covariance, np.inf)
        return _RefinedPair(*given, replace(lost, covariance=unknown), 0)
    if estimate.outcome != Outcome.MATCHED:
        return _RefinedPair(*given, estimate, used)
    return _RefinedPair(first, second, estimate, used)


def _gather(
    rows: list[_RefinedPair], shape: tuple[int, ...], ndim: int
) -> PointMatches:
    estimates = [row.estimate for row in rows]
    outcome = np.empty(len(rows), object)
    outcome[:] = [estimate.outcome for estimate in estimates]
    return PointMatches(
        reference_points=np.array([row.reference for row in rows]).reshape(
            *shape, ndim
        ),
        moving_points=np.array([row.moving for row in rows]).reshape(*shape, ndim),
        covariance=np.array([e.covariance for e in estimates]).reshape(
            *shape, ndim, ndim
        ),
        correlation=np.array([e.correlation for e in estimates]).reshape(shape),
        false_alarm=np.array([e.false_alarm for e in estimates]).reshape(shape),
        outcome=outcome.reshape(shape),
        steps=np.array([row.steps for row in rows], np.intp).reshape(shape),
    )

"""Search and fit: the core of every match."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._sampling.boxes import cut_mask, lag_bounds, overlap_block, reachable_parts
from .._sampling.downsample import block_means
from .._shared.checks import (
    as_image,
    as_shift,
    as_valid,
    check_count,
    check_fraction,
    check_same_ndim,
    check_whitening,
)
from .._shared.ndimage import distance_transform_edt, gaussian_filter
from .._shared.results import Outcome, result
from .ambiguity import repeats_itself
from .search import (
    Candidates,
    Search,
    chance_of_few_places,
    circular_search,
    exact_search,
    show_the_same,
)
from .shift_fit import FIT_ROUNDS, ShiftFit, fit_shift

__all__ = [
    "ALONE",
    "AMBIGUOUS",
    "BELIEVED",
    "CERTAIN",
    "COHERENT",
    "LOOKS_ALIKE",
    "RIVALS",
    "SPARSE",
    "ShiftEstimate",
    "correlate_images",
    "mend_holes",
    "no_match",
    "overlap_share",
    "phase_correlate",
    "prepare_image",
]


# A match is believed below this chance of a false alarm
# (test_one_unrelated_pair_in_a_thousand_is_believed).
BELIEVED = 1e-3
# Another peak, or fit, of this share of the first leaves the answer open
# (test_alternatives_hold_the_repeats_of_a_scene, test_lattices_are_ambiguous).
AMBIGUOUS = 0.85
# Images that chance could bring together, but that correlate by more than this, are
# looked at for periods (test_a_lattice_is_never_matched_a_period_off).
LOOKS_ALIKE = 0.5
# Where the second peak is lower than this share of the first there is no need to look
# for periods (bench_shifts: 256 x 256).
RIVALS = 0.25
# Holes that are no deeper than this, in pixels, are filled
# (test_scattered_dead_pixels_do_no_harm).
HOLE = 2.0
# The quick search is believed below this chance of a false alarm, far beyond doubt
# (test_unrelated_images_are_not_believed).
CERTAIN = 1e-6
# Its second peak is lower than this share of the first
# (test_a_defect_in_a_lattice_decides).
ALONE = 0.7
# The significance of its fit is at least this, in standard deviations
# (test_detail_that_folds_at_half_the_resolution_does_not_mislead).
COHERENT = 8.0
# The significance of the right wrap is so many times that of any other, or the exact
# search decides: a guard, which no test tells from 1.
RIVAL = 1.5
# Images with sides of at least so many pixels show enough at half their resolution
# (bench_shifts: 512 x 512).
LARGE = 128
# They do where this share of their power is left
# (test_detail_beyond_half_the_resolution_is_found).
SEEN = 0.5
# Fewer maxima than this for each pixel are those of a few things on a plain ground
# (test_a_bead_among_others_is_one_place_only).
SPARSE = 5e-3


@result
class ShiftEstimate:
    """A shift and how far it can be trusted.

    Attributes
    ----------
    shift : ndarray of shape (ndim,)
        Translation in the order of the axes, in pixels, from moving to
        reference: ``reference_point = moving_point + shift``.
    covariance : ndarray of shape (ndim, ndim)
        Covariance of `shift` in square pixels, if the peak is the right one.
        Infinite where nothing is known.
    correlation : float
        Zero-mean normalised cross-correlation over the overlap, -1 to 1.
    false_alarm : float
        Probability that chance alone gives a peak this good anywhere
        that was searched, 0 to 1.
    overlap : float
        Share of the smaller image that lies on the other one, 0 to 1.
    alternatives : ndarray of shape (peaks, ndim)
        Shifts that may be right, best first; the first is `shift`, the others
        are good to a few tenths of a pixel. Where there are fewer, the last is repeated.
    outcome : Outcome
        What happened, in words.
    """

    shift: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: float
    false_alarm: float
    overlap: float
    alternatives: NDArray[np.float64]
    outcome: Outcome


def correlate_images(
    images: tuple[NDArray[Any], NDArray[Any]],
    masks: tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None],
    guess: NDArray[np.float64],
    reach: NDArray[np.float64] | None,
    min_overlap: float,
    whitening: float | None,
    peaks: int,
) -> ShiftEstimate:
    """Do the work of `phase_correlate` on arguments that are known to be good."""
    low, high = lag_bounds(images[0].shape, images[1].shape, guess, reach)
    if (low > high).any():
        return no_match(len(guess), Outcome.NOT_FOUND, guess, peaks)
    # Only what the two images can share at a shift that is allowed is looked at.
    parts = reachable_parts(images[0].shape, images[1].shape, low, high)
    first, valid0 = prepare_image(images[0][parts[0]], cut_mask(masks[0], parts[0]))
    second, valid1 = prepare_image(images[1][parts[1]], cut_mask(masks[1], parts[1]))
    if first is None or second is None:
        return no_match(len(guess), Outcome.NO_TEXTURE, guess, peaks)
    origin = np.array([p0.start - p1.start for p0, p1 in zip(*parts, strict=True)])
    search = Search(
        low=as_three(low - origin),
        high=as_three(high - origin),
        least=min_overlap * min(math.prod(image.shape) for image in images),
        count=peaks,
        exponent=-1.0 if whitening is None else float(whitening),
    )
    if valid0 is None and valid1 is None:
        found, fit = _quick(first, second, search)
        if found is None:
            found = exact_search(first, second, search)
            fit = _fit(first, second, found, search)
    else:
        valid = (
            np.ones(first.shape, np.bool_) if valid0 is None else valid0,
            np.ones(second.shape, np.bool_) if valid1 is None else valid1,
        )
        found = exact_search(first, second, search, valid=valid)
        fit = _fit(first, second, found, search, valid)
    if found is None:
        return no_match(len(guess), Outcome.NOT_FOUND, guess, peaks)
    few = found.false_alarm >= BELIEVED > found.chance
    # A single bead is one place, but there is nothing else to be matched.
    if few and fit and show_the_same(first, second, fit.shift, fit.correlation):
        found = replace(found, false_alarm=found.chance)
    estimate = _estimate(found, fit, images, origin, (low, high), peaks)
    # A lattice meets itself everywhere, and sets the level of chance by itself.
    alike = estimate.outcome == Outcome.NOT_FOUND and estimate.correlation > LOOKS_ALIKE
    if fit is None or not (alike or estimate.outcome == Outcome.MATCHED):
        return estimate
    # A peak that stands alone has no copies.
    if len(found.scores) < 2 or found.scores[1] < RIVALS * found.scores[0]:
        return estimate
    if repeats_itself(first, second, fit.shift):
        return replace(estimate, outcome=Outcome.AMBIGUOUS)
    return estimate


def as_three(lag: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a lag with zeros for the axes that an image lacks."""
    return np.concatenate([np.zeros(3 - len(lag), np.intp), lag.astype(np.intp)])


def _fit(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    found: Candidates | None,
    search: Search,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> ShiftFit | None:
    if found is None:
        return None
    start, exponent = found.shifts[0], search.exponent
    return fit_shift(first, second, start, exponent=exponent, valid=valid)


def prepare_image(
    image: NDArray[Any], mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_] | None]:
    """Return an image as a float32 volume of zero mean and unit spread.

    The volume is None if the image shows nothing. A mask comes back only if
    there are pixels that do not count; they are zero in the volume.
    """
    volume = image.reshape((1,) * (3 - image.ndim) + image.shape)
    lowest, highest = float(volume.min()), float(volume.max())
    if mask is not None:
        mask = mask.reshape(volume.shape)
    inside = volume
    if mask is not None or not math.isfinite(lowest + highest):
        usable = np.isfinite(volume)
        mask = usable if mask is None else mask & usable
        if not mask.any():
            return None, mask
        inside = volume[mask]
        lowest, highest = float(inside.min()), float(inside.max())
    # Half the range, so that images near the largest float do not overflow.
    half = highest / 2 - lowest / 2
    rounding = float(np.finfo(volume.dtype).eps) * max(abs(lowest), abs(highest))
    if not half > 4 * rounding:
        return None, mask
    if max(-lowest, highest) < 1e30:
        mean = float(inside.mean(dtype=np.float64))
    else:
        mean = lowest / 2 + highest / 2
    if mask is not None:
        volume = np.where(mask, volume, volume.dtype.type(mean))
        volume, mask = mend_holes(volume, mask)
    scaled = volume - volume.dtype.type(mean)
    scaled /= volume.dtype.type(half)
    if mask is None or mask.all():
        return scaled.astype(np.float32, copy=False), None
    return scaled.astype(np.float32, copy=False), mask


def mend_holes(
    volume: NDArray[Any], mask: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Fill holes of a few pixels from around them, and count them as valid.

    A window that fades out towards every dead pixel would leave nothing.
    """
    core = distance_transform_edt(~mask) > HOLE
    wide = np.zeros(mask.shape, np.bool_)
    if core.any():
        wide = ~mask & (distance_transform_edt(~core) <= HOLE + 1)
    small = ~mask & ~wide
    if not small.any():
        return volume, mask
    sigma = [1.0 if size > 1 else 0.0 for size in mask.shape]
    share = gaussian_filter(mask.astype(np.float64), sigma)
    around = gaussian_filter(np.where(mask, volume, 0).astype(np.float64), sigma)
    known = small & (share > 1e-3)
    volume[known] = (around[known] / share[known]).astype(volume.dtype)
    return volume, mask | known


def _quick(
    first: NDArray[np.float32], second: NDArray[np.float32], search: Search
) -> tuple[Candidates | None, ShiftFit | None]:
    """Return an answer that is beyond doubt without the exact search, if there is one.

    Images that are large enough are looked at with half their resolution first.
    """
    sides = [size for size in (*first.shape, *second.shape) if size > 1]
    if min(sides, default=1) >= LARGE:
        found, fit = _coarse(first, second, search)
        if fit is not None:
            return found, fit
    return _circular(first, second, search, FIT_ROUNDS)


def _coarse(
    first: NDArray[np.float32], second: NDArray[np.float32], search: Search
) -> tuple[Candidates | None, ShiftFit | None]:
    """Return what images of half the resolution say, and the fit that it leads to."""
    axes = sum(size > 1 for size in first.shape)
    half = replace(
        search,
        low=search.low // 2,
        high=-(-search.high // 2),
        least=search.least / 2**axes,
    )
    sides = [2 if size > 1 else 1 for size in first.shape]
    halves = block_means(first, sides), block_means(second, sides)
    # Detail that is too fine folds over, and agrees at wrong shifts.
    if any(
        _mean_square(small) < SEEN * _mean_square(image)
        for small, image in zip(halves, (first, second), strict=True)
    ):
        return None, None
    found, start = _circular(*halves, half, 1)
    if found is None or start is None:
        return None, None
    whole = np.rint(2 * start.shift)
    if ((whole < search.low) | (whole > search.high)).any():
        return None, None
    fit = fit_shift(first, second, 2 * start.shift, exponent=search.exponent, rough=0)
    # What was seen must be seen again where it belongs.
    if fit is None or fit.coarse < max(COHERENT, start.significance / 2):
        return None, None
    return replace(found, shifts=2 * found.shifts, period=2 * found.period), fit


def _mean_square(image: NDArray[np.float32]) -> float:
    return float(np.vdot(image, image)) / image.size


def _circular(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    search: Search,
    rounds: int,
) -> tuple[Candidates | None, ShiftFit | None]:
    """Return the answer of one circular correlation if it is beyond doubt."""
    shape0, shape1 = np.array(first.shape), np.array(second.shape)
    size = np.maximum(shape0, shape1)
    need = np.maximum(shape0 - search.low, shape1 + search.high)
    if size[size > 1].min(initial=size.max()) < 32 or need.prod() < 1.5 * size.prod():
        return None, None
    found = circular_search(first, second, search)
    if found is None or found.false_alarm > CERTAIN:
        return None, None
    if len(found.scores) > 1 and found.scores[1] > ALONE * found.scores[0]:
        return None, None
    # A circular correlation does not tell a shift from its wraps: the images do.
    fits: list[tuple[float, NDArray[np.float64], ShiftFit]] = []
    for wrap in _wraps(found.shifts[0], found.period):
        block = overlap_block(shape0, shape1, np.rint(wrap).astype(np.intp))[2]
        if block.prod() < search.least or (block < np.minimum(8, found.period)).any():
            continue
        fit = fit_shift(
            first, second, wrap, exponent=search.exponent, rounds=1 if fits else rounds
        )
        if fit is not None:
            fits.append((fit.significance, wrap, fit))
    fits.sort(key=lambda entry: -entry[0])
    rival = fits[1][0] if len(fits) > 1 else 0.0
    if not fits or fits[0][0] < max(COHERENT, RIVAL * rival):
        return None, None
    _, wrap, best = fits[0]
    found = replace(found, shifts=np.vstack([wrap, found.shifts[1:]]))
    if found.chances < SPARSE * size.prod():
        alarm = max(
            found.false_alarm, chance_of_few_places(first, second, found, search)
        )
        found = replace(found, false_alarm=alarm)
        if alarm > CERTAIN:
            return None, None
    whole = np.rint(wrap)
    if ((whole < search.low) | (whole > search.high)).any():
        return None, None
    if best.steps == 1 and rounds > 1:
        again = fit_shift(first, second, wrap, exponent=search.exponent)
        best = best if again is None else again
    return found, best


def _wraps(
    shift: NDArray[np.float64], period: NDArray[np.intp]
) -> list[NDArray[np.float64]]:
    """Return a shift and its wraps by one period on each axis, the smallest first."""
    wraps = [shift]
    for axis in np.flatnonzero(period > 1):
        step = np.zeros(3)
        step[axis] = period[axis] if shift[axis] < 0 else -period[axis]
        wraps += [wrap + step for wrap in wraps]
    return sorted(wraps, key=lambda wrap: float(np.abs(wrap / period).sum()))


def _estimate(
    found: Candidates,
    fit: ShiftFit | None,
    images: tuple[NDArray[Any], NDArray[Any]],
    origin: NDArray[np.intp],
    bounds: tuple[NDArray[np.intp], NDArray[np.intp]],
    peaks: int,
) -> ShiftEstimate:
    """Put what was found into the words of the result."""
    ndim = len(origin)
    axes = slice(3 - ndim, 3)
    options = found.shifts[:, axes] + origin
    shift = options[0]
    # Without a fit nothing is known but the pixel.
    covariance, correlation = np.diag(np.full(ndim, 1 / 3)), 0.0
    if fit is not None:
        shift = fit.shift[axes] + origin
        covariance, correlation = fit.covariance[axes, axes], fit.correlation
    options = np.concatenate([shift[None], options[1:peaks]])
    rows = np.minimum(np.arange(peaks), len(options) - 1)
    if found.false_alarm >= BELIEVED or fit is None:
        outcome = Outcome.NOT_FOUND
    elif (
        found.at_bound
        or (shift < bounds[0] - 0.5).any()
        or (shift > bounds[1] + 0.5).any()
    ):
        outcome = Outcome.BEYOND_BOUND
    elif len(found.scores) > 1 and found.scores[1] > AMBIGUOUS * found.scores[0]:
        outcome = Outcome.AMBIGUOUS
    else:
        outcome = Outcome.MATCHED
    return ShiftEstimate(
        shift=shift,
        covariance=covariance,
        correlation=correlation,
        false_alarm=float(found.false_alarm),
        overlap=overlap_share(images[0].shape, images[1].shape, shift),
        alternatives=options[rows],
        outcome=outcome,
    )


def overlap_share(
    shape0: tuple[int, ...], shape1: tuple[int, ...], shift: NDArray[np.float64]
) -> float:
    """Return the share of the smaller image that lies on the other one."""
    common = np.minimum(shape0, np.array(shape1) + shift) - np.maximum(0, shift)
    share = np.maximum(common, 0).prod() / min(np.prod(shape0), np.prod(shape1))
    return min(float(share), 1.0)


def no_match(
    ndim: int,
    outcome: Outcome,
    guess: NDArray[np.float64] | None = None,
    peaks: int = 1,
) -> ShiftEstimate:
    """Return the estimate of a pair that tells nothing, at the guess for it."""
    shift = np.zeros(ndim) if guess is None else guess.copy()
    return ShiftEstimate(
        shift=shift,
        covariance=np.diag(np.full(ndim, np.inf)),
        correlation=0.0,
        false_alarm=1.0,
        overlap=0.0,
        alternatives=np.tile(shift, (peaks, 1)),
        outcome=outcome,
    )


def phase_correlate(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    guess: ArrayLike | None = None,
    max_shift: ArrayLike | None = None,
    min_overlap: float = 0.02,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    whitening: float | None = None,
    peaks: int = 3,
) -> ShiftEstimate:
    """Estimate the shift that lays one image over another.

    The whole pixel is found by the exact correlation coefficient of each overlap
    [1]_ of prewhitened images; the fraction by the maximum-likelihood
    fit to the phases of the cross-spectrum, weighted by the coherence that the
    pair itself shows [2]_. The images may be cut from a larger scene: only
    what both show is compared.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ. NaN and infinite
        pixels do not count.
    guess : array_like of shape (ndim,), optional
        Expected shift. Zero by default.
    max_shift : float or array_like of shape (ndim,), optional
        How far the shift may be from `guess`, in pixels. By default every shift with
        enough overlap is searched.
    min_overlap : float, optional
        Smallest overlap that is considered, as a fraction of the smaller image.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts.
    whitening : float, optional
        By default the weights are measured from the pair. A number is the
        classical exponent: 0 cross-correlation, 1 phase correlation.
    peaks : int, optional
        Number of alternatives to report.

    Returns
    -------
    ShiftEstimate
        The shift, its covariance and the chance that it is a false alarm.

    Raises
    ------
    ValueError
        If the images differ in their number of axes, have none or too many, or
        an option is out of range.
    TypeError
        If an image does not hold real numbers.

    See Also
    --------
    refine_pair : Match two images around given pairs of points.
    match_tiles : Match many tiles along their links.

    References
    ----------
    .. [1] Padfield (2012). Masked object registration in the Fourier domain.
       :doi:`10.1109/TIP.2011.2181402`
    .. [2] Knapp & Carter (1976). The generalized correlation method for
       estimation of time delay. :doi:`10.1109/TASSP.1976.1162830`

    Examples
    --------
    Two crops of one picture, of which the second starts 12 rows further down
    and 7 columns further left:

    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> found = spt.phase_correlate(picture[50:250, 90:290], picture[62:262, 83:283])
    >>> found.shift.round(2)
    array([12., -7.])
    >>> found.outcome
    <Outcome.MATCHED: 'matched'>

    Images that have nothing in common are not believed:

    >>> other = spt.phase_correlate(picture[:100, :100], picture[300:400, 300:400])
    >>> bool(other.false_alarm > 0.001)
    True
    """
    images = as_image(reference, "reference"), as_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    masks = (
        as_valid(reference_valid, images[0].shape, "reference_valid"),
        as_valid(moving_valid, images[1].shape, "moving_valid"),
    )
    centre = np.zeros(ndim) if guess is None else as_shift(guess, ndim, "guess")
    reach = None if max_shift is None else as_shift(max_shift, ndim, "max_shift")
    if reach is not None and (reach < 0).any():
        message = f"`max_shift` must not be negative; got {max_shift!r}."
        raise ValueError(message)
    check_fraction(min_overlap, "min_overlap")
    check_whitening(whitening)
    check_count(peaks, "peaks")
    return correlate_images(images, masks, centre, reach, min_overlap, whitening, peaks)

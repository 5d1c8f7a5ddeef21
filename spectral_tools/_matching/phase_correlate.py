"""Search and fit: the core of every match."""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._sampling.boxes import lag_bounds, reachable_parts
from .._shared.arguments import checked
from .._shared.arrays import Flags, Ints, MaskPair, Volume, VolumePair
from .._shared.checks import (
    as_image,
    as_shift,
    as_valid,
    check_count,
    check_fraction,
    check_memory,
    check_same_ndim,
    check_whitening,
)
from .._shared.results import Outcome, result
from .._spectral.peaks import SEPARATION
from .ambiguity import repeats_itself
from .image_area import (
    image_in,
    overlap_share,
    prepare_image,
    prepare_pair,
    without_defects,
    without_lines,
)
from .local_agreement import (
    LOOKS_ALIKE,
    LocalAgreement,
    is_still,
    leave_out,
    lie_in_few_cells,
    local_agreement,
    repeats_without,
    worst_rest,
)
from .misfit import measure_misfit
from .search import (
    RIVALS,
    Candidates,
    Search,
    chance_of_few_places,
    exact_search,
    quick_search,
    show_the_same,
)
from .shift_fit import ShiftFit, fit_shift
from .smooth_scenes import match_smooth

__all__ = [
    "AMBIGUOUS",
    "BELIEVED",
    "ShiftEstimate",
    "correlate_images",
    "no_match",
    "phase_correlate",
]


# A match is believed below this chance of a false alarm
# (test_one_unrelated_pair_in_a_thousand_is_believed).
BELIEVED = 1e-3
# Another peak, or fit, of this share of the first leaves the answer open
# (test_alternatives_hold_the_repeats_of_a_scene, test_lattices_are_ambiguous).
AMBIGUOUS = 0.85


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
        Share of the smaller image, without a border that does not count, that lies on the
        other one, 0 to 1.
    alternatives : ndarray of shape (peaks, ndim)
        Shifts that may be right, best first; the first is `shift`, the others
        are good to a few tenths of a pixel. Where there are fewer, the last is repeated.
    outcome : Outcome
        What happened, in words.
    misfit : float
        Root mean square by which parts of the overlap differ from one shift, in their own
        standard errors: 1 by chance. Where it is more, `covariance` holds their scatter.
        NaN where it was not measured.
    padding : ndarray of shape (2,)
        Share of what was looked at of the reference and of the moving image that was
        taken for padding and not counted, 0 to 1.
    scatter : float
        Root mean square by which parts differ from one shift beyond their errors, in
        pixels; NaN where it was not measured.
    curvature : float
        What of `scatter` is left if shifts may change linearly along the overlap, as
        they do where images are turned or stretched, in pixels.
    """

    shift: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: float
    false_alarm: float
    overlap: float
    alternatives: NDArray[np.float64]
    outcome: Outcome
    misfit: float = math.nan
    padding: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    scatter: float = math.nan
    curvature: float = math.nan


def correlate_images(
    images: tuple[NDArray[Any], NDArray[Any]],
    masks: tuple[Flags | None, Flags | None],
    guess: NDArray[np.float64],
    reach: NDArray[np.float64] | None,
    min_overlap: float,
    whitening: float | None,
    peaks: int,
    *,
    padding: bool = True,
    parts: bool = True,
    rest: Ints | None = None,
) -> ShiftEstimate:
    """Do the work of `phase_correlate` on arguments that are known to be good.

    Without `parts`, those of the overlap are not asked: where neighbours or a
    template tell whether a match is right. At the shift `rest`, or zero, frames lie on
    each other of which the images are parts.
    """
    areas = [
        image_in(image, mask, padding=padding)
        for image, mask in zip(images, masks, strict=True)
    ]
    if areas[0] is None or areas[1] is None:
        return no_match(len(guess), Outcome.NO_TEXTURE, guess, peaks)
    images, offset = (areas[0].image, areas[1].image), areas[0].corner - areas[1].corner
    rest = -offset if rest is None else rest - offset
    low, high = lag_bounds(images[0].shape, images[1].shape, guess - offset, reach)
    if (low > high).any():
        return no_match(len(guess), Outcome.NOT_FOUND, guess, peaks)
    # Only what the two images can share at a shift that is allowed is looked at.
    shared = reachable_parts(images[0].shape, images[1].shape, low, high)
    pair = prepare_pair((areas[0], areas[1]), shared)
    if pair is None:
        return no_match(len(guess), Outcome.NO_TEXTURE, guess, peaks)
    (first, second), valid, origin = pair
    search = Search(
        low=as_three(low - origin),
        high=as_three(high - origin),
        least=min_overlap * min(images[0].size, images[1].size),
        count=peaks,
        exponent=-1.0 if whitening is None else float(whitening),
    )
    # What is cut off may be all that could have met.
    if (search.low >= first.shape).any() or (-search.high >= second.shape).any():
        return no_match(len(guess), Outcome.NOT_FOUND, guess, peaks)
    at_rest, smooth = as_three(rest - origin), None
    if parts and valid is None:
        whole = images, (areas[0].valid, areas[1].valid), as_three(rest)
        smooth = match_smooth((first, second), search, whole, BELIEVED)
    if smooth is None:
        match = _search_parts((first, second), search, valid, at_rest, parts=parts)
    else:
        match = _Match(*smooth, None, (first, second), None)
    if match is None:
        return no_match(len(guess), Outcome.NOT_FOUND, guess, peaks)
    found, fit = match.found, match.fit
    estimate = _estimate(found, fit, images, origin, (low, high), peaks)
    estimate = replace(
        estimate,
        shift=estimate.shift + offset,
        alternatives=estimate.alternatives + offset,
        padding=np.array([areas[0].padding, areas[1].padding]),
    )
    # A lattice meets itself everywhere, and sets the level of chance by itself.
    alike = estimate.outcome == Outcome.NOT_FOUND and estimate.correlation > LOOKS_ALIKE
    # A peak that stands alone has no copies.
    alone = len(found.scores) < 2 or found.scores[1] < RIVALS * found.scores[0]
    if (
        fit is not None
        and not alone
        and (alike or estimate.outcome == Outcome.MATCHED)
        and repeats_itself(first, second, fit.shift)
    ):
        estimate = replace(estimate, outcome=Outcome.AMBIGUOUS)
    if fit is None or not parts or estimate.outcome == Outcome.NOT_FOUND:
        return estimate
    misfit = measure_misfit(match.images, fit, match.valid, BELIEVED)
    axes = slice(3 - len(guess), 3)
    covariance = misfit.covariance[axes, axes]
    return replace(
        estimate, covariance=covariance, misfit=misfit.sigmas,
        scatter=misfit.scatter, curvature=misfit.curvature,
    )  # fmt: skip


class _Match(NamedTuple):
    found: Candidates
    fit: ShiftFit | None
    agreement: LocalAgreement | None  # of the parts of the overlap
    images: VolumePair
    valid: MaskPair | None


def _search_parts(
    images: VolumePair,
    search: Search,
    valid: MaskPair | None,
    at_rest: Ints,
    *,
    parts: bool,
) -> _Match | None:
    """Return what was found in two images, or in what the camera leaves of them."""
    if not parts:
        return _search_whole(images, search, valid)
    match = _search(*images, search, valid, at_rest)
    if match is None or match.fit is None or not _is_believed(match):
        # Defects of a camera hide what does not stand still.
        rest = without_defects(images, at_rest)
    elif valid is not None or not _stands_still(match, at_rest):
        return match
    else:
        # What stands still has to be more than pixels and lines of a camera.
        filled = without_defects(images, at_rest) or images
        rest = without_lines(filled[0]), without_lines(filled[1])
        again = _with_evidence(
            rest, match.found, match.fit, search, None, at_rest, whole=True
        )
        if _is_believed(again):
            return match
        match = again
    other = None if rest is None else _search(*rest, search, valid, at_rest)
    told = _is_believed(other) and not _stands_still(other, at_rest)
    return other if told else match


def _search(
    first: Volume,
    second: Volume,
    search: Search,
    valid: MaskPair | None,
    at_rest: Ints,
) -> _Match | None:
    """Return the shifts that may be right, and the fit of the best.

    What a part of the overlap carries alone, be it an edge, a bar or an object, is not
    a match of the images: what the rest says without it is looked for. If that is the
    same, of all shifts, it is one; but not where both frames lie `at_rest`, since what
    is left of a bar says the same there too.
    """
    best: _Match | None = None
    quick: _Match | None = None
    if valid is None:
        found, fit = quick_search(first, second, search)
        if found is not None and fit is not None:
            images = first, second
            quick = _with_evidence(
                images, found, fit, search, None, at_rest, whole=True
            )
            if _is_believed(quick):
                return quick
    counting, alarm = math.inf, 1.0
    # Each round counts fewer pixels than the one before.
    while (left := _count(first, second, valid)) < counting:
        counting, images = left, (first, second)
        found = exact_search(*images, search, valid=valid)
        fit = _fit(*images, found, search, valid)
        if found is None or fit is None:
            if best is None and found is not None:
                best = _Match(found, None, None, images, valid)
            break
        if best is not None and found.false_alarm < BELIEVED:
            place = found.shifts[0]
            if _near(place, best.found.shifts[0]) and not _near(place, at_rest):
                if quick is not None and _near(place, quick.found.shifts[0]):
                    best = quick
                return best._replace(found=replace(best.found, false_alarm=alarm))
        match = _with_evidence(
            images, found, fit, search, valid, at_rest, whole=best is None
        )
        believed = _is_believed(match)
        if best is None or believed:
            best, alarm = match, found.false_alarm
        if believed or match.agreement is None:
            break
        masks = leave_out(match.agreement, images, valid)
        rest0, valid0 = prepare_image(first, masks[0])
        rest1, valid1 = prepare_image(second, masks[1])
        if rest0 is None or rest1 is None or valid0 is None or valid1 is None:
            break
        first, second, valid = rest0, rest1, (valid0, valid1)
    return best


def _is_believed(match: _Match | None) -> bool:
    return match is not None and match.found.false_alarm < BELIEVED


def _stands_still(match: _Match | None, at_rest: Ints) -> bool:
    """Return whether a match is at rest along an axis, as rows and columns are."""
    return match is not None and match.fit is not None and is_still(match.fit, at_rest)


def _near(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return bool(np.abs(one - other).max() <= SEPARATION)


def _count(
    first: Volume,
    second: Volume,
    valid: MaskPair | None,
) -> int:
    """Return how many pixels of both images count."""
    if valid is None:
        return first.size + second.size
    return int(valid[0].sum() + valid[1].sum())


def _search_whole(
    images: VolumePair,
    search: Search,
    valid: MaskPair | None,
) -> _Match | None:
    """Return what the whole of the overlap says, however it is spread over it."""
    found, fit = quick_search(*images, search) if valid is None else (None, None)
    if found is None:
        found = exact_search(*images, search, valid=valid)
        fit = _fit(*images, found, search, valid)
    if found is None:
        return None
    few = chance_of_few_places(*(found.seen or images), found.shifts[0], search)
    if few >= BELIEVED > found.false_alarm and not (
        fit and show_the_same(*images, fit.shift, fit.correlation)
    ):
        found = replace(found, false_alarm=few)
    return _Match(found, fit, None, images, valid)


def _with_evidence(
    images: VolumePair,
    found: Candidates,
    fit: ShiftFit,
    search: Search,
    valid: MaskPair | None,
    at_rest: Ints,
    *,
    whole: bool,
) -> _Match:
    """Return a match whose false alarm knows whether the parts of it agree.

    Images of which something was left out are no longer `whole`.
    """
    if found.false_alarm >= BELIEVED:
        return _Match(found, fit, None, images, valid)
    agreement = local_agreement(images, fit, valid, found.whitening, at_rest)
    if whole:
        known = found.false_alarm / float((search.high - search.low + 1).prod())
        alarm = repeats_without(agreement, BELIEVED, known)
    else:
        alarm = worst_rest(agreement)
    # A single bead is one place, but there is nothing else to be matched.
    bead = whole and lie_in_few_cells(agreement.power)
    if not (bead and show_the_same(*images, fit.shift, fit.correlation)):
        found = replace(found, false_alarm=max(found.false_alarm, alarm))
    return _Match(found, fit, agreement, images, valid)


def as_three(lag: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a lag with zeros for the axes that an image lacks."""
    return np.concatenate([np.zeros(3 - len(lag), np.intp), lag.astype(np.intp)])


def _fit(
    first: Volume,
    second: Volume,
    found: Candidates | None,
    search: Search,
    valid: MaskPair | None = None,
) -> ShiftFit | None:
    if found is None:
        return None
    start, exponent = found.shifts[0], search.exponent
    return fit_shift(first, second, start, exponent=exponent, valid=valid)


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


@checked
def phase_correlate(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    guess: ArrayLike | None = None,
    max_shift: ArrayLike | None = None,
    min_overlap: float = 0.02,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    padding: bool = True,
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
    padding : bool, optional
        Find borders that show nothing round an image, and do not count them.
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

    Notes
    -----
    Borders of one value that surround an image, straight, round or turned, or of a
    camera's noise about one level if they go all round, are taken for padding and cut
    off; ``padding`` of the result says how much that is.

    A match has to repeat itself: cells of the overlap are asked one by one, and whatever
    quarter is left out, the rest must agree by more than chance. What one edge, one bar of
    text or one object carries alone is left out, and what the rest shows is searched
    again; if that tells nothing the pair is "not found". A match that does not
    move along an axis has to hold without the pixels, rows and columns that stand out in
    both images, as those of a camera do. Light that is uneven in both alike is no match
    either.

    Images that are so smooth that halving their resolution loses nothing are compared as
    they are, not whitened, by least squares: a few wide hills match if chance would make
    them correlate as well with a probability that is known from their number [3]_, and if
    the images do not say as much where they lie.

    Each part of the overlap is also fitted by itself. If parts contradict one shift, as
    they do where optics bend, the covariance holds their scatter, and ``misfit`` tells by
    how many standard errors they differ.

    References
    ----------
    .. [1] Padfield (2012). Masked object registration in the Fourier domain.
       :doi:`10.1109/TIP.2011.2181402`
    .. [2] Knapp & Carter (1976). The generalized correlation method for
       estimation of time delay. :doi:`10.1109/TASSP.1976.1162830`
    .. [3] Clifford, Richardson & Hemon (1989). Assessing the significance of the
       correlation between two spatial processes. :doi:`10.2307/2532039`

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
        message = f"`max_shift` must not be negative; got {reach.min():g}."
        raise ValueError(message)
    check_fraction(min_overlap, "min_overlap")
    check_whitening(whitening)
    check_count(peaks, "peaks")
    check_memory(peaks * ndim, "peaks")
    return correlate_images(
        images, masks, centre, reach, min_overlap, whitening, peaks, padding=padding
    )

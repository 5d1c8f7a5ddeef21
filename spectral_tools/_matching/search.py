"""Find the whole-pixel shift of two images, and how likely chance is.

Two ways lead to the same answer. The exact one correlates prewhitened images
at every shift that is allowed, with the means and variances of each overlap
(Padfield 2012). The quick one looks at one circular correlation and is believed only
if its peak is beyond doubt.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import overlap_block
from .._sampling.downsample import block_means
from .._shared.arrays import Floats, Ints, MaskPair, Volume, VolumePair
from .._shared.fft import fast_shape, forward_pair, inverse
from .._spectral.peaks import (
    LEAST_OVERLAP,
    SEPARATION,
    box_table,
    chance_level,
    list_peaks,
    parabola_tops,
    score_lags,
    separate_peaks,
    wrap_lags,
)
from .._spectral.ring_kernels import (
    Whitening,
    tapered_spectra,
    whiten_images,
    whiten_spectra,
)
from .shift_fit import (
    COHERENT,
    FIT_ROUNDS,
    ShiftFit,
    coarse_significance,
    fit_shift,
)

__all__ = [
    "ALONE",
    "CERTAIN",
    "RIVALS",
    "WHOLE",
    "Candidates",
    "Search",
    "chance_of_few_places",
    "chance_of_places",
    "circular_search",
    "exact_search",
    "mean_square",
    "place_side",
    "quick_search",
    "show_the_same",
]


# Where the second peak is lower than this share of the first there is no need to look
# for periods (bench_shifts: 256 x 256).
RIVALS = 0.25
# The quick search is believed below this chance of a false alarm, far beyond doubt
# (test_unrelated_images_are_not_believed).
CERTAIN = 1e-6
# Its second peak is lower than this share of the first
# (test_a_defect_in_a_lattice_decides).
ALONE = 0.7
# Images with sides of at least so many pixels show enough at half their resolution
# (bench_shifts: 512 x 512).
LARGE = 128
# They do where this share of their power is left
# (test_detail_beyond_half_the_resolution_is_found).
SEEN = 0.5
# The least reach, in pixels, over which chance is measured
# (test_a_lattice_close_to_its_place_is_matched).
NULL_REACH = 12
# Chance makes a match of n places, somewhere among as many as were searched, with a
# probability of about exp(-PLACE * n) each (test_unrelated_images_are_not_believed:
# nuclei; test_a_bead_among_others_is_one_place_only).
PLACE = 2.5
# Two images show the same beyond this correlation, and this share of their power where
# they lie on each other (test_a_bead_alone_is_matched).
WHOLE = 0.99
# A scene repeats itself where its autocorrelation is this share of the match; peaks of
# other places tell chance in full (test_few_frames_under_dust_are_not_believed).
REPEATS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Shifts that may be right, best first."""

    shifts: NDArray[np.float64]  # (n, 3), to about 0.1 px
    scores: NDArray[np.float64]  # (n,), Fisher z in its own standard deviations
    false_alarm: float
    seen: VolumePair | None  # whitened images of an exact search
    at_bound: bool
    period: Ints  # of a circular search, else 0
    whitening: Whitening  # that was measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """What is searched, and how."""

    low: Ints  # (3,), the lowest whole shift
    high: Ints
    least: float  # pixels of overlap
    count: int  # alternatives wanted
    exponent: float  # of the whitening; negative to measure it


def exact_search(
    reference: Volume,
    moving: Volume,
    search: Search,
    *,
    valid: MaskPair | None = None,
) -> Candidates | None:
    """Score every lag that is allowed, and as many more as chance needs."""
    sizes = np.array(reference.shape), np.array(moving.shape)
    middle = (search.low + search.high) // 2
    low = np.maximum(np.minimum(search.low, middle - NULL_REACH), 1 - sizes[1])
    high = np.minimum(np.maximum(search.high, middle + NULL_REACH), sizes[0] - 1)
    # No lag from low to high may meet its own wrap.
    need = np.maximum(np.maximum(sizes[0] - low, sizes[1] + high), np.maximum(*sizes))
    shape = fast_shape(tuple(np.where(np.maximum(*sizes) == 1, 1, need)))
    whitened = whiten_images(reference, moving, shape, search.exponent, valid)
    if whitened is None:
        return None
    canvas, whitening = whitened
    pair = forward_pair(canvas)
    spectra = pair[0], pair[1]
    first = canvas[0][tuple(map(slice, sizes[0]))]
    second = canvas[1][tuple(map(slice, sizes[1]))]
    sums, squares = (box_table(first, power, False) for power in (1, 2))

    def score(product: Volume, offset: Ints, flip: bool) -> Volume:
        return score_lags(
            inverse(product, shape),
            offset,
            low,
            high - low + 1,
            sums,
            squares,
            box_table(second, 1, flip),
            box_table(second, 2, flip),
            max(search.least, LEAST_OVERLAP),
        )

    # The moving image turned round has the same spectrum and no match: chance.
    scores = score(spectra[0] * spectra[1].conj(), np.zeros(3, np.intp), False)
    null = score(spectra[0] * spectra[1], sizes[1] - 1, True)
    surfaces = Surfaces(
        scores=scores, null=null, likeness=_autocorrelation(spectra, shape), low=low
    )
    found = _rank_lags(surfaces, sizes, search, whitening)
    return None if found is None else replace(found, seen=(first, second))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surfaces:
    """Scores of the lags from `low` on, and what they are held against."""

    scores: Volume
    null: Volume  # the scores of the turned image
    likeness: Volume  # of the scene to itself, at each circular offset
    low: Ints


def chance_of_few_places(
    first: Volume, second: Volume, shift: Floats, search: Search
) -> float:
    """Return the probability that chance matches as many places somewhere.

    Their number is the effective number of equal contributions to the correlation, a place
    being about an eighth of a side, at most 16 px. One bright cell that
    meets another by accident is one place, however bright.
    """
    sizes = np.array(first.shape), np.array(second.shape)
    lag = np.rint(shift).astype(np.intp)
    start0, start1, block = overlap_block(*sizes, lag)
    a = first[tuple(map(slice, start0, start0 + block))]
    b = second[tuple(map(slice, start1, start1 + block))]
    product = (a - a.mean()) * (b - b.mean())
    side = place_side(np.array(product.shape))
    for axis, size in enumerate(product.shape):
        product = np.add.reduceat(product, np.arange(0, size, side), axis=axis)
    squares = float((product.astype(np.float64) ** 2).sum())
    if squares <= 0 or product.sum() <= 0:
        return 1.0
    places = np.array([float(product.sum(dtype=np.float64)) ** 2 / squares])
    return float(chance_of_places(places, side, search.high - search.low + 1)[0])


def show_the_same(
    first: Volume, second: Volume, shift: Floats, correlation: float
) -> bool:
    """Tell whether two images agree in all that they show, on the whole of both.

    `correlation` is that of what they share at `shift`.
    """
    if correlation < WHOLE:
        return False
    sizes = np.array(first.shape), np.array(second.shape)
    *starts, block = overlap_block(*sizes, np.rint(shift).astype(np.intp))
    parts = [tuple(map(slice, start, start + block)) for start in starts]
    return all(
        _sum_of_squares(image[part]) > WHOLE * _sum_of_squares(image)
        for image, part in zip((first, second), parts, strict=True)
    )


def _sum_of_squares(image: Volume) -> float:
    return float(np.square(image).sum(dtype=np.float64))


def chance_of_places(places: Floats, side: int, lags: Ints) -> Floats:
    """Return the probability that so many places match somewhere among some lags.

    Lags are counted along each axis.
    """
    trials = float(np.maximum(lags / side, 1.0).prod())
    return np.minimum(trials * np.exp(-PLACE * places), 1.0)


def place_side(block: Ints) -> int:
    """Return the side of a place in a block of pixels."""
    long = block[block > 1]
    return int(np.clip(math.exp(np.log(long).mean()) / 8, 4, 16)) if len(long) else 1


def _autocorrelation(
    spectra: tuple[NDArray[np.complex64], NDArray[np.complex64]], shape: tuple[int, ...]
) -> Volume:
    """Return how alike the scene is to itself at each (circular) offset, at most 1."""
    power = np.abs(spectra[0])
    power *= np.abs(spectra[1])
    likeness = inverse(power.astype(np.complex64), shape)
    return likeness / likeness[0, 0, 0]


def _rank_lags(
    surfaces: Surfaces,
    sizes: tuple[Ints, Ints],
    search: Search,
    whitening: Whitening,
) -> Candidates | None:
    """Rank the lags that are allowed, and hold the best against chance."""
    scores, likeness = surfaces.scores, surfaces.likeness
    peaks = list_peaks(scores)
    lags, height = peaks.indices + surfaces.low, peaks.heights
    allowed = ((lags >= search.low) & (lags <= search.high)).all(axis=1)
    if not allowed.any():
        return None
    ranked, top = lags[allowed], height[allowed].astype(np.float64)
    best = ranked[0]
    far = np.abs(lags - best).max(axis=1) > 2 * SEPARATION
    # A scene that repeats itself lifts other peaks with the right one: what
    # its own likeness explains is not chance.
    offset = tuple((lags[far] - best).T % np.array(likeness.shape)[:, None])
    match = math.tanh(top[0] / math.sqrt(float(overlap_block(*sizes, best)[2].prod())))
    alike = likeness[offset] / match
    rest = height[far] - top[0] * np.where(alike > REPEATS, np.minimum(alike, 1), 0)
    chance = np.concatenate([list_peaks(surfaces.null).heights, rest[rest > 0]])
    alarm, sigma = chance_level(top[0], chance, int(allowed.sum()))
    chosen = separate_peaks(ranked, search.count + 1)
    tops = parabola_tops(scores, ranked[chosen] - surfaces.low, False)
    inner = (search.low < search.high) & ((best == search.low) | (best == search.high))
    return Candidates(
        shifts=ranked[chosen] + tops,
        scores=top[chosen] / sigma,
        false_alarm=alarm,
        seen=None,
        at_bound=bool(inner.any()),
        period=np.zeros(3, np.intp),
        whitening=whitening,
    )


def circular_search(
    reference: Volume, moving: Volume, search: Search
) -> Candidates | None:
    """Look at one circular correlation; its shifts are known but for the wrap.

    Shifts come back with the smaller of the two values that each axis allows.
    """
    shape = fast_shape(tuple(np.maximum(reference.shape, moving.shape)))
    spectra = tapered_spectra((reference, moving), shape)
    sizes = shape, shape
    whitening = whiten_spectra(spectra, spectra, shape, sizes, search.exponent)
    surface = inverse(spectra[0] * np.conj(spectra[1], out=spectra[1]), shape)
    lags, height = list_peaks(surface, 2.0, periodic=True)
    if len(height) < 8:
        return None
    period = np.array(shape)
    ranked = wrap_lags(lags[: 50 * search.count], period)
    apart = np.abs(wrap_lags(ranked - ranked[0], period)).max(axis=1)
    chance = np.delete(height, np.flatnonzero(apart <= 2 * SEPARATION))
    # Each peak stands for as many shifts as there are wraps.
    trials = 2 ** int((period > 1).sum()) * len(height)
    alarm, sigma = chance_level(float(height[0]), chance, trials)
    chosen = separate_peaks(ranked, search.count + 1)
    return Candidates(
        shifts=ranked[chosen] + parabola_tops(surface, lags[chosen], True),
        scores=height[chosen].astype(np.float64) / sigma,
        false_alarm=alarm,
        seen=None,
        at_bound=False,
        period=period,
        whitening=whitening,
    )


def quick_search(
    first: Volume, second: Volume, search: Search
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
    first: Volume, second: Volume, search: Search
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
        mean_square(small) < SEEN * mean_square(image)
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
    if fit is None or coarse_significance(fit) < max(COHERENT, start.significance / 2):
        return None, None
    shifts, period = 2 * found.shifts, 2 * found.period
    whitening = _of_whole(found.whitening)
    return replace(found, shifts=shifts, period=period, whitening=whitening), fit


def _of_whole(half: Whitening) -> Whitening:
    """Return the whitening of images that was measured at half their resolution."""
    beyond = np.zeros((2, 1))
    return Whitening(
        np.append(half.edges / 4, np.inf),
        np.hstack([half.gain, beyond]),
        np.hstack([half.limit, beyond]),
        step=2,
    )


def mean_square(image: Volume) -> float:
    return float(np.vdot(image, image)) / image.size


def _circular(
    first: Volume,
    second: Volume,
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
    if not fits or fits[0][0] < max(COHERENT, rival):
        return None, None
    _, wrap, best = fits[0]
    found = replace(found, shifts=np.vstack([wrap, found.shifts[1:]]))
    whole = np.rint(wrap)
    if ((whole < search.low) | (whole > search.high)).any():
        return None, None
    if best.rounds == 1 and rounds > 1:
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

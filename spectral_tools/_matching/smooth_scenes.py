"""Matches of smooth scenes: what two images share as they are, not whitened.

Whitening asks detail, and a smooth scene with faint noise has none: a few wide hills are
all that lies in a narrow overlap. They match with a correlation near 1, which chance
reaches with a probability that is known exactly (Fisher 1915,
:doi:`10.1093/biomet/10.4.507`) if it is known how many independent pixels the overlap is
worth (Clifford, Richardson & Hemon 1989, :doi:`10.2307/2532039`). Uneven light is smooth
too, but lies at rest: a match has to say more than the images say there.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import betainc

from .._sampling.boxes import overlap_block
from .._sampling.downsample import block_means
from .._shared.arrays import AnyArray, Flags, Floats, Ints, Volume, VolumePair
from .._shared.statistics import ROUNDS
from .._spectral.peaks import FAINTEST, SEPARATION
from .image_area import prepare_image
from .local_agreement import SHORTEST
from .search import WHOLE, Candidates, Search, exact_search, mean_square
from .shift_fit import STEP_FLOOR, ShiftFit, TaperedSpectra, cut_overlap, fit_shift

__all__ = ["match_smooth"]

# So many pixels along each axis become one in the search: hills are wide
# (test_smooth_scenes_are_matched).
STEP = 2


def match_smooth(
    images: VolumePair,
    search: Search,
    whole: tuple[Sequence[AnyArray], Sequence[Flags | None], Ints],
    believed: float,
) -> tuple[Candidates, ShiftFit] | None:
    """Return the match of two images as they are, if it is to be believed.

    Whatever quarter of the overlap is left out along an axis, a third of the evidence has
    to be left, or as much as is `believed`. The images may be parts
    of `whole` ones, which have masks, and a shift at which they lie on each other.
    """
    long = np.maximum(images[0].shape, images[1].shape) > 1
    if np.minimum(images[0].shape, images[1].shape)[long].min() < SHORTEST:
        return None
    steps = np.where(long, STEP, 1)
    coarse = replace(
        search,
        low=-(-search.low // steps),
        high=search.high // steps,
        least=search.least / float(steps.prod()),
        exponent=0.0,
    )
    if (coarse.low > coarse.high).any():
        return None
    means = [block_means(image, steps.tolist()) for image in images]
    for image, small in zip(images, means, strict=True):
        whole_blocks = image[tuple(map(slice, small.shape * steps))]
        # Detail is told by the whitened images, and would be lost here.
        if mean_square(small) < WHOLE * mean_square(whole_blocks):
            return None
    found = exact_search(means[0], means[1], coarse)
    fit = None if found is None else fit_shift(*images, found.shifts[0] * steps)
    if found is None or fit is None:
        return None
    first, second = _shared(images, fit.blocks.whole[0])
    if fit.blocks.block[long].min() < SHORTEST:
        return None
    number = _independent_pixels(fit.blocks, first, second)
    lags = float((search.high - search.low + 1).prod())
    trials = max(lags * number / first.size, 1.0)
    chance = _chance_of(first, second, number)
    rest = max(
        _chance_of(first[left], second[left], number * float(left.mean()))
        for left in _rests(first.shape)
    )
    level = max(believed, chance ** (1 / 3))
    alarm = max(trials * chance, rest * believed / level, FAINTEST)
    if alarm < believed:
        alarm /= max(_chance_at_rest(*whole), alarm)
    if alarm >= believed:
        return None
    try:
        shift, covariance = _least_squares(images, fit.blocks.whole[0])
    except np.linalg.LinAlgError:
        return None
    # What goes as far as to another peak has lost its own.
    if np.abs(shift - fit.shift).max() > SEPARATION + 1:
        return None
    shifts = found.shifts * steps
    candidates = replace(found, shifts=shifts, false_alarm=alarm, seen=None)
    return candidates, replace(fit, shift=shift, covariance=covariance)


def _least_squares(images: VolumePair, start: Floats) -> tuple[Floats, Floats]:
    """Return the shift that brings images closest, with its covariance.

    From a whole shift it is one step with the slopes of both images, which is good to the
    second order (Malis 2004, :doi:`10.1109/ROBOT.2004.1308092`), and neither fades nor
    whitens. What is left may be as smooth as the images: then few independent pixels
    tell it.
    """
    for _ in range(ROUNDS):
        shift, covariance = _one_step(*_shared(images, start))
        shift += start
        if np.abs(shift - start).max() <= 0.5:
            break
        start = np.rint(shift)
    return shift, covariance


def _one_step(first: Volume, second: Volume) -> tuple[Floats, Floats]:
    axes = [axis for axis, size in enumerate(first.shape) if size > 1]
    a, b = (
        (each.astype(np.float64) - each.mean()) / each.std() for each in (first, second)
    )
    # What light and contrast change is fitted too.
    terms = [
        np.array([*(_slope(each, n) for n in axes), each, np.ones_like(each)])
        for each in (a, b)
    ]
    inside = tuple(slice(2, -2) if n in axes else slice(None) for n in range(3))
    a, b = a[inside], b[inside]
    terms0, terms1 = (each[:, *inside].reshape(len(each), -1) for each in terms)
    # Noise has slopes too, but not the same in both.
    normal = terms0 @ terms1.T
    normal = 0.5 * (normal + normal.T)
    # Stripes have none along them, and no factor.
    np.linalg.cholesky(normal)
    inverse = np.linalg.inv(normal)
    both = 0.5 * (terms0 + terms1)
    step = inverse @ (both @ (b - a).ravel())
    rest = b - a - (step @ both).reshape(b.shape)
    # Slopes and what is left are alike over bells of these widths.
    number = float(b.size)
    for axis in axes:
        curvature = _curvature(b, axis) + _curvature(rest, axis)
        number *= math.sqrt(min(curvature / (2 * math.pi), 1.0))
    number = max(number - len(step), 1.0)
    error = inverse[: len(axes), : len(axes)] * float(np.vdot(rest, rest)) / number
    # Without noise errors may be rounded to nothing.
    error += STEP_FLOOR**2 * np.eye(len(axes))
    shift, covariance = np.zeros(3), np.zeros((3, 3))
    shift[axes], covariance[np.ix_(axes, axes)] = step[: len(axes)], error
    return shift, covariance


def _slope(image: Floats, axis: int) -> Floats:
    """Return the derivative along an axis, to the fourth order but at the ends."""
    near, far = (
        np.roll(image, -step, axis) - np.roll(image, step, axis) for step in (1, 2)
    )
    slope: Floats = (8 * near - far) / 12
    return slope


def _curvature(image: Floats, axis: int) -> float:
    """Return that of the autocorrelation of an image along an axis, per square pixel."""
    steps = np.diff(image, axis=axis)
    return float(np.mean(steps**2)) / max(float(np.var(image)), 1e-300)


def _shared(images: VolumePair, whole: Floats) -> VolumePair:
    """Return what two images share at a whole shift."""
    sizes = np.array(images[0].shape), np.array(images[1].shape)
    *starts, block = overlap_block(*sizes, whole.astype(np.intp))
    first, second = (
        image[tuple(map(slice, start, start + block))]
        for image, start in zip(images, starts, strict=True)
    )
    return first, second


def _independent_pixels(blocks: TaperedSpectra, first: Volume, second: Volume) -> float:
    """Return how many independent pixels tell as much of a correlation as an overlap.

    Each image is as smooth as its spectrum says, and as even as its pixels say: of a few
    objects on a plain ground there are few.
    """
    power0, power1 = np.abs(blocks.spectra[0].astype(np.complex128)) ** 2
    power0[0, 0, 0] = power1[0, 0, 0] = 0
    # Modes that are stored once stand for two.
    twice = np.full(power0.shape[2], 2.0)
    twice[0] = 1
    twice[-1] = 1 if blocks.even else 2
    both = float((twice * power0 * power1).sum())
    if not both > 0:
        return 0.0
    modes = float((twice * power0).sum() * (twice * power1).sum()) / both
    product = (first - first.mean()) * (second - second.mean()).astype(np.float64)
    # Three is what the fourth power of a normal variable is over its squared square.
    even = 3 * max(product.mean(), 0.0) ** 2 / max((product**2).mean(), 1e-300)
    return blocks.share * modes * min(even, 1.0)


def _chance_of(first: Volume, second: Volume, number: float) -> float:
    """Return the probability that so many independent pixels correlate as well."""
    half = 0.5 * (number - 2)
    if half <= 0:
        return 1.0
    return float(betainc(half, half, 0.5 * (1 - _correlation(first, second))))


def _correlation(first: Volume, second: Volume) -> float:
    a, b = (each.astype(np.float64) - each.mean() for each in (first, second))
    size = math.sqrt(float(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.clip(np.vdot(a, b) / size, -1, 1)) if size > 0 else 0.0


def _rests(shape: tuple[int, ...]) -> list[Flags]:
    """Return what is left without a quarter along each axis, or both ends of it."""
    rests = []
    for axis, size in enumerate(shape):
        wide = size // 4
        if not wide:
            continue
        place = np.arange(size).reshape([-1 if n == axis else 1 for n in range(3)])
        starts = range(0, size - wide + 1, max(wide // 2, 1))
        parts = [(place < start) | (place >= start + wide) for start in starts]
        parts.append((place >= wide // 2) & (place < size - wide // 2))
        rests += [np.broadcast_to(part, shape) for part in parts]
    return rests


def _chance_at_rest(
    images: Sequence[AnyArray], masks: Sequence[Flags | None], at_rest: Ints
) -> float:
    """Return the probability that chance alone makes images as much alike as they lie."""
    rest = at_rest[np.newaxis].astype(np.float64)
    first, second = (
        prepare_image(image, mask)[0] for image, mask in zip(images, masks, strict=True)
    )
    if first is None or second is None:
        return 1.0
    blocks = cut_overlap((first, second), rest, rest, None)
    if blocks is None:
        return 1.0
    shared = _shared((first, second), rest[0])
    return _chance_of(*shared, _independent_pixels(blocks, *shared))

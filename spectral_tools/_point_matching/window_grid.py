"""Match windows of two images on a grid, all of them once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._matching.phase_correlate import ShiftEstimate, correlate_images
from .._matching.shift_fit import COHERENT, FIT_ROUNDS, fit_shift, fit_windows
from .._matching.window_batches import (
    count_pixels,
    search_windows,
    trim_windows,
)
from .._shared.arrays import Flags, Floats, Ints
from .._shared.results import Outcome
from .refine_pair import WINDOW_OVERLAP

__all__ = [
    "Batch",
    "Found",
    "Images",
    "Job",
    "Windows",
    "match_windows",
    "window_pass",
]

Images = tuple[NDArray[np.float32], NDArray[np.float32]]

# A window that has once been found is not looked for again if it misses by less, in
# pixels (test_windows_fitted_together_or_alone_say_the_same).
NEAR = 2.0
# So many windows are matched at once: their transforms stay in the cache of a processor
# (bench_stack: after bending).
TOGETHER = 16


class Job(NamedTuple):
    """Two windows, their valid pixels, and whether their shift is to be searched."""

    images: Images
    valid: tuple[Flags, Flags] | None
    search: bool


class Batch(NamedTuple):
    """Windows of one shape, all of whose pixels count, and what to do with them.

    Attributes
    ----------
    images : tuple of two ndarray of float32, of one shape
        The part of both images that the windows lie in.
    low : ndarray of int, shape (n, 3)
        Where windows start in it; a missing axis comes first.
    block : ndarray of int, shape (3,)
        Their shape.
    search : bool
        Whether their shift is to be searched.
    rounds : int
        Rounds of the fit, at most.
    """

    images: Images
    low: Ints
    block: Ints
    search: bool
    rounds: int


class Found(NamedTuple):
    """The shift of one window; `estimate` is None where none was searched."""

    shift: Floats
    covariance: Floats
    correlation: float
    estimate: ShiftEstimate | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Where windows lie, and what was found in them.

    Attributes
    ----------
    points : ndarray of shape (n, ndim)
        Middle of the pixels that count, in the reference.
    halves : ndarray of shape (n, ndim)
        Half of the sides of each window.
    missed : ndarray of shape (n, ndim)
        Shift of each window from the moving image, as bent, to the reference.
    covariance : ndarray of shape (n, ndim, ndim)
        Its covariance; infinite where nothing was found.
    correlation : ndarray of shape (n,)
        Correlation of the two windows.
    steps : ndarray of int, shape (n,)
        How often each was matched.
    estimates : list of ShiftEstimate or None
        Result of the last search for each.
    """

    points: Floats
    halves: Floats
    missed: Floats
    covariance: Floats
    correlation: Floats
    steps: NDArray[np.intp]
    estimates: list[ShiftEstimate | None]

    @property
    def found(self) -> Flags:
        """Windows that were found."""
        return np.asarray(np.isfinite(self.covariance).all(axis=(1, 2)))


def window_pass(
    run: Callable[[Sequence[Job | Batch]], Iterable[list[Found]]],
    pair: Images,
    sides: Floats,
    spacing: Floats,
    *,
    level: int = 0,
    last: Windows | None = None,
    search: Flags | bool = True,
    rounds: int = FIT_ROUNDS,
    batched: bool = True,
) -> tuple[Windows, tuple[int, ...]]:
    """Match all windows of a grid once.

    Parameters
    ----------
    run : callable
        Turns jobs into what was found, in order.
    pair : tuple of two ndarray of float32, of one shape
        The images, NaN where they do not count.
    sides, spacing : ndarray of shape (ndim,)
        Sides of windows and distance of points, in pixels of the pair.
    level : int
        How often the pair has been halved. Results are in whole pixels.
    last : Windows or None
        Result of the pass before. What was found then is not searched again.
    search : bool, or ndarray of bool, shape (n,)
        Whether the others are, all or each.
    rounds : int
        Rounds in which windows of a batch are fitted, at most. One leaves about a tenth
        of what they miss.
    batched : bool
        Whether windows of one shape are matched together.

    Returns
    -------
    tuple
        The windows, and the shape of the grid.
    """
    centres, shape = _centres(pair[0].shape, spacing)
    count, ndim = centres.shape
    low, high, full, whole = _window_boxes(pair, sides, centres)
    points, halves = (low + high - 1) / 2, (high - low) / 2
    points[~full], halves[~full] = centres[~full], 1.0
    known = np.zeros(count, np.bool_) if last is None else last.found
    wanted = full & (known | search)
    together = wanted & whole & batched
    jobs: list[Job | Batch] = []
    rows: list[Ints] = []
    for row in np.flatnonzero(wanted & ~together):
        window = tuple(map(slice, low[row], high[row]))
        images = _part(pair, window)
        usable = np.isfinite(images[0]), np.isfinite(images[1])
        points[row] = low[row] + np.argwhere(usable[0] & usable[1]).mean(axis=0)
        valid = None if whole[row] else usable
        jobs.append(Job(images, valid, not known[row]))
        rows.append(np.array([row]))
    for some in _batches(low, high, ~known, np.flatnonzero(together)):
        searched = not known[some[0]]
        margin = np.where(searched, sides / 2, NEAR + 1)
        jobs.append(_batch(pair, low[some], high[some], margin, searched, rounds))
        rows.append(some)
    missed, covariance = np.zeros((count, ndim)), np.full((count, ndim, ndim), np.inf)
    correlation, steps = np.zeros(count), np.zeros(count, np.intp)
    estimates: list[ShiftEstimate | None] = [None] * count
    if last is not None:
        steps += last.steps
        estimates = list(last.estimates)
    for some, several in zip(rows, run(jobs), strict=True):
        for row, one in zip(some.tolist(), several, strict=True):
            missed[row] = one.shift * 2**level
            covariance[row] = one.covariance * 4**level
            correlation[row] = one.correlation
            steps[row] += 1
            estimates[row] = one.estimate or estimates[row]
    windows = Windows(
        points=(points + 0.5) * 2**level - 0.5,
        halves=halves * 2**level,
        missed=missed,
        covariance=covariance,
        correlation=correlation,
        steps=steps,
        estimates=estimates,
    )
    return windows, shape


class _WindowBoxes(NamedTuple):
    """Where windows begin and end, which hold enough, and which only what counts."""

    low: Ints
    high: Ints
    full: Flags
    whole: Flags


def _window_boxes(pair: Images, sides: Floats, centres: Floats) -> _WindowBoxes:
    """Return the boxes of windows; lines at edges that do not count are cut off."""
    shape = pair[0].shape
    low = np.rint(centres - (sides - 1) / 2).astype(np.intp)
    high = np.clip(low + sides.astype(np.intp), 0, shape)
    low = np.clip(low, 0, shape)
    lead = 3 - len(shape)
    first, second = (_volume(image) for image in pair)
    wide = np.pad(low, ((0, 0), (lead, 0)))
    stop = np.pad(high, ((0, 0), (lead, 0)), constant_values=1)
    counts = count_pixels(first, second, wide, stop)
    full = counts >= WINDOW_OVERLAP * np.prod(sides)
    whole = trim_windows(first, second, wide, stop, counts) & full
    return _WindowBoxes(wide[:, lead:], stop[:, lead:], full, whole)


def _volume(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image.reshape((1,) * (3 - image.ndim) + image.shape)


def _batches(low: Ints, high: Ints, searched: Flags, rows: Ints) -> list[Ints]:
    """Divide windows into batches of one shape and one purpose."""
    keys = np.column_stack([high - low, searched])[rows]
    _, kinds = np.unique(keys, axis=0, return_inverse=True)
    kinds = kinds.reshape(-1)
    batches = []
    for kind in range(int(kinds.max(initial=-1)) + 1):
        same = rows[kinds == kind]
        batches += [same[at : at + TOGETHER] for at in range(0, len(same), TOGETHER)]
    return batches


def _batch(
    pair: Images, low: Ints, high: Ints, margin: Floats, search: bool, rounds: int
) -> Batch:
    """Cut the part of both images that some windows lie in, and what is around it."""
    edge = np.ceil(margin).astype(np.intp)
    corner = np.maximum(low.min(axis=0) - edge, 0)
    part = tuple(map(slice, corner, high.max(axis=0) + edge))
    lead = 3 - low.shape[1]
    return Batch(
        images=_part(pair, part),
        low=np.pad(low - corner, ((0, 0), (lead, 0))),
        block=np.pad(high[0] - low[0], (lead, 0), constant_values=1),
        search=search,
        rounds=rounds,
    )


def _part(pair: Images, where: tuple[slice, ...]) -> Images:
    """Copy a part of both images: kernels sum views in another order."""
    return np.ascontiguousarray(pair[0][where]), np.ascontiguousarray(pair[1][where])


def _centres(shape: tuple[int, ...], spacing: Floats) -> tuple[Floats, tuple[int, ...]]:
    """Return points that divide an image evenly, and how many along each axis."""
    counts = np.maximum(np.rint(np.array(shape) / spacing), 1).astype(int).tolist()
    axes = [
        (np.arange(count) + 0.5) * size / count - 0.5
        for count, size in zip(counts, shape, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return grid.reshape(-1, len(shape)), tuple(counts)


def match_windows(
    sides: Floats, whitening: float | None, job: Job | Batch
) -> list[Found]:
    """Find the shifts between windows: anywhere, or near where they are."""
    if isinstance(job, Job):
        return [_match_one(sides, whitening, job)]
    images = _volume(job.images[0]), _volume(job.images[1])
    if job.search:
        several = _search_batch(sides, images, job)
    else:
        several = _fit_batch(len(sides), images, job)
    lead = 3 - len(sides)
    for row, one in enumerate(several):
        if one is None:
            low, high = job.low[row, lead:], (job.low[row] + job.block)[lead:]
            window = tuple(map(slice, low, high))
            alone = Job(_part(job.images, window), None, job.search)
            several[row] = _match_one(sides, whitening, alone)
    return [one for one in several if one is not None]


def _search_batch(sides: Floats, images: Images, job: Batch) -> list[Found | None]:
    """Return what is found beyond doubt; None for windows to be looked at alone."""
    ndim = len(sides)
    axes = slice(3 - ndim, 3)
    reach = np.ones(3, np.intp)
    reach[axes] = sides / 2
    shift, alarm, sure = search_windows(images, job.low, job.block, reach)
    share = np.prod(job.block - np.abs(shift), axis=1) / np.prod(job.block)
    sure &= share >= WINDOW_OVERLAP
    covariance = np.zeros((len(shift), 3, 3))
    correlation = np.zeros(len(shift))
    rows = np.flatnonzero(sure)
    if len(rows):
        fits = fit_windows(images, job.low[rows], job.block, shift[rows], job.rounds)
        # What does not agree clearly where it was found is looked at again.
        sure[rows] = fits.done & fits.found & (fits.significance >= COHERENT)
        shift[rows], covariance[rows] = fits.shift, fits.covariance
        correlation[rows] = fits.correlation
    several: list[Found | None] = [None] * len(shift)
    for row in np.flatnonzero(sure).tolist():
        own, spread = shift[row, axes], covariance[row, axes, axes]
        likeness = float(correlation[row])
        estimate = ShiftEstimate(
            shift=own,
            covariance=spread,
            correlation=likeness,
            false_alarm=float(alarm[row]),
            overlap=float(share[row]),
            alternatives=own[np.newaxis],
            outcome=Outcome.MATCHED,
        )
        several[row] = Found(own, spread, likeness, estimate)
    return several


def _fit_batch(ndim: int, images: Images, job: Batch) -> list[Found | None]:
    """Return what is near where it was; None for windows to be looked at alone."""
    start = np.zeros(job.low.shape)
    fits = fit_windows(images, job.low, job.block, start, job.rounds)
    axes = slice(3 - ndim, 3)
    near = fits.found & (np.abs(fits.shift).max(axis=1) <= NEAR)
    nothing = Found(np.zeros(ndim), np.full((ndim, ndim), np.inf), 0.0, None)
    several: list[Found | None] = [None] * len(start)
    for row in np.flatnonzero(fits.done).tolist():
        several[row] = nothing
        if near[row]:
            several[row] = Found(
                fits.shift[row, axes],
                fits.covariance[row, axes, axes],
                float(fits.correlation[row]),
                None,
            )
    return several


def _match_one(sides: Floats, whitening: float | None, job: Job) -> Found:
    """Find the shift between two windows: anywhere, or near where they are."""
    ndim = len(sides)
    nothing = np.full((ndim, ndim), np.inf)
    if job.search:
        valid = (None, None) if job.valid is None else job.valid
        found = correlate_images(
            job.images, valid, np.zeros(ndim), sides / 2, WINDOW_OVERLAP, whitening, 1,
            parts=False,
        )  # fmt: skip
        sure = found.outcome == Outcome.MATCHED
        spread = found.covariance if sure else nothing
        return Found(found.shift, spread, found.correlation, found)
    first, second = (
        np.nan_to_num(image).reshape((1,) * (3 - ndim) + image.shape)
        for image in job.images
    )
    masks = None
    if job.valid is not None:
        masks = job.valid[0].reshape(first.shape), job.valid[1].reshape(first.shape)
    exponent = -1.0 if whitening is None else whitening
    fit = fit_shift(first, second, np.zeros(3), exponent=exponent, valid=masks)
    if fit is None or np.abs(fit.shift).max() > NEAR:
        return Found(np.zeros(ndim), nothing, 0.0, None)
    axes = slice(3 - ndim, 3)
    return Found(fit.shift[axes], fit.covariance[axes, axes], fit.correlation, None)

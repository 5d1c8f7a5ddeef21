"""Match windows of two images on a grid, all of them once (floor 5)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._correlation import ShiftEstimate, correlate_images
from ._outcomes import Outcome
from ._subpixel import fit_shift

__all__ = ["Found", "Images", "Job", "Windows", "halved", "match_window", "window_pass"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Images = tuple[NDArray[np.float32], NDArray[np.float32]]

# Windows must share this much to be compared, and hold as many valid pixels.
WINDOW_OVERLAP = 0.25
# A window that has once been found is not looked for again if it misses by less.
NEAR = 2.0


class Job(NamedTuple):
    """Two windows, their valid pixels, and whether their shift is to be searched."""

    images: Images
    valid: tuple[Flags, Flags] | None
    search: bool


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


def halved(pair: Images, level: int) -> Images:
    """Return smaller copies of images, halved so many times."""
    small = []
    for image in pair:
        step = 2**level
        counts = [size // step for size in image.shape]
        whole = image[tuple(slice(step * count) for count in counts)]
        blocks = whole.reshape([n for count in counts for n in (count, step)])
        small.append(blocks.mean(axis=tuple(range(1, 2 * image.ndim, 2))))
    return small[0], small[1]


def window_pass(
    run: Callable[[Sequence[Job]], Iterable[Found]],
    pair: Images,
    sides: Floats,
    spacing: Floats,
    *,
    level: int = 0,
    last: Windows | None = None,
    search: bool = True,
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
    search : bool
        Whether the others are.

    Returns
    -------
    tuple
        The windows, and the shape of the grid.
    """
    centres, shape = _centres(pair[0].shape, spacing)
    usable = [np.isfinite(image) for image in pair]
    count, ndim = centres.shape
    points, halves = centres.copy(), np.ones((count, ndim))
    jobs, rows = [], []
    for row, centre in enumerate(centres):
        low = np.rint(centre - (sides - 1) / 2).astype(np.intp)
        high = np.clip(low + sides.astype(np.intp), 0, pair[0].shape)
        low = np.clip(low, 0, pair[0].shape)
        window = tuple(map(slice, low, high))
        inside = usable[0][window] & usable[1][window]
        if inside.sum() < WINDOW_OVERLAP * np.prod(sides):
            continue
        points[row], halves[row] = (low + high - 1) / 2, (high - low) / 2
        valid = None
        if not inside.all():
            points[row] = low + np.argwhere(inside).mean(axis=0)
            valid = usable[0][window], usable[1][window]
        known = last is not None and bool(last.found[row])
        if known or search:
            jobs.append(Job((pair[0][window], pair[1][window]), valid, not known))
            rows.append(row)
    missed, covariance = np.zeros((count, ndim)), np.full((count, ndim, ndim), np.inf)
    correlation, steps = np.zeros(count), np.zeros(count, np.intp)
    estimates: list[ShiftEstimate | None] = [None] * count
    if last is not None:
        steps += last.steps
        estimates = list(last.estimates)
    for row, one in zip(rows, run(jobs), strict=True):
        missed[row], covariance[row] = one.shift * 2**level, one.covariance * 4**level
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


def _centres(shape: tuple[int, ...], spacing: Floats) -> tuple[Floats, tuple[int, ...]]:
    """Return points that divide an image evenly, and how many along each axis."""
    counts = np.maximum(np.rint(np.array(shape) / spacing), 1).astype(int).tolist()
    axes = [
        (np.arange(count) + 0.5) * size / count - 0.5
        for count, size in zip(counts, shape, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return grid.reshape(-1, len(shape)), tuple(counts)


def match_window(sides: Floats, whitening: float | None, job: Job) -> Found:
    """Find the shift between two windows: anywhere, or near where they are."""
    ndim = len(sides)
    nothing = np.full((ndim, ndim), np.inf)
    if job.search:
        valid = (None, None) if job.valid is None else job.valid
        found = correlate_images(
            job.images, valid, np.zeros(ndim), sides / 2, WINDOW_OVERLAP, whitening, 1
        )
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

"""Align a movie or a stack by translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._matching.phase_correlate import ShiftEstimate
from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import check_positive
from .._shared.results import Outcome, result
from .._shared.workers import Workers
from .frame_links import match_along_links
from .frame_matching import SeriesModel, estimate_model, match_to_template
from .frames import PlaneGroup, SeriesInputs, check_series, normalized_volume
from .template.joint_alignment import SETTLED, is_matched
from .template.mean_image import MeanCanvas

__all__ = ["SeriesAlignment", "align_series", "complete_walk"]


# Variance of a frame that is known exactly, in squared pixels
# (test_walk_follows_exact_neighbours_linearly).
EXACT = 1e-12
# Length of a step where nothing tells how far frames move, in pixels
# (test_series_without_any_content_is_not_believed).
STEP = 1.0


def smooth_walk(
    seen: Floats, precision: Floats, variance: float
) -> tuple[Floats, Floats]:
    """Return the most probable random walk, and its covariance at each step.

    The two-filter smoother of Fraser and Potter (1969, :doi:`10.1109/TAC.1969.1099196`).

    Parameters
    ----------
    seen : ndarray of shape (n, ndim)
        Where the walk was seen.
    precision : ndarray of shape (n, ndim, ndim)
        Inverse covariances; 0 where it was not seen.
    variance : float
        Of each coordinate of a step.
    """
    # Strategy: what comes from before and what comes from behind are sent along the
    # walk as a precision and its product with a mean; zero is no knowledge.
    matrix, vector = precision.copy(), np.einsum("kij,kj->ki", precision, seen)
    total, moments = matrix.copy(), vector.copy()
    whole = np.eye(seen.shape[1])
    for way in (range(len(seen)), range(len(seen) - 1, -1, -1)):
        past, mean = np.zeros_like(whole), np.zeros(len(whole))
        for k in way:
            total[k] += past
            moments[k] += mean
            past, mean = past + matrix[k], mean + vector[k]
            damp = np.linalg.inv(whole + variance * past)
            past, mean = damp @ past, damp @ mean
    covariance: NDArray[Any] = np.linalg.inv(total)
    walk: Floats = np.einsum("kij,kj->ki", covariance, moments)
    return walk, covariance


def complete_walk(
    shifts: Floats, covariance: Floats, known: NDArray[np.bool_], sigma: float | None
) -> tuple[Floats, Floats]:
    """Return shifts in which frames that are not known follow from their neighbours.

    Parameters
    ----------
    shifts : ndarray of shape (n, ndim)
        Shifts; only those that are known count.
    covariance : ndarray of shape (n, ndim, ndim)
        Their covariances.
    known : ndarray of bool of shape (n,)
        Which frames are known.
    sigma : float, optional
        Standard deviation of a step from frame to frame along each axis. By default
        it is measured, and frames that are known stay as they are.
    """
    ndim = shifts.shape[1]
    if not known.any():
        nothing = np.diag(np.full(ndim, np.inf))
        return np.zeros_like(shifts), np.tile(nothing, (len(shifts), 1, 1))
    if known.all() and sigma is None:
        return shifts.copy(), covariance.copy()
    step = _typical_step(shifts, known) if sigma is None else sigma
    precision = np.zeros_like(covariance)
    there = covariance[known] + EXACT * np.eye(ndim)
    precision[known] = np.linalg.inv(there)
    seen = np.where(known[:, None], shifts, 0.0)
    walk, spread = smooth_walk(seen, precision, max(step, 1e-6) ** 2)
    if sigma is None:
        walk[known], spread[known] = shifts[known], covariance[known]
    return walk, spread


def _typical_step(shifts: Floats, known: NDArray[np.bool_]) -> float:
    """Return the median step between neighbours, as a standard deviation."""
    pairs = known[1:] & known[:-1]
    if pairs.sum() < 2:
        return STEP
    steps = np.diff(shifts, axis=0)[pairs]
    return float(np.sqrt(np.mean(steps**2)))


@result
class SeriesAlignment:
    """Where each frame of a series lies, and how far that can be trusted.

    Where planes move on their own, arrays have one axis more, for the groups of
    planes, after that of the frames.

    Attributes
    ----------
    shifts : ndarray of shape (n, ndim) or (n, groups, 2)
        Shift of each frame in the order of the axes, in pixels:
        ``reference_point = frame_point + shift``. A frame that is not believed lies
        between its neighbours.
    covariance : ndarray of shape (n, ndim, ndim) or (n, groups, 2, 2)
        Covariance of each shift, in square pixels. Infinite if nothing is known; as wide
        as the search along a direction of which the scene tells nothing, such as an edge.
    correlation : ndarray of shape (n,) or (n, groups)
        Zero-mean normalised cross-correlation of each frame with what it was
        matched to, -1 to 1.
    false_alarm : ndarray of shape (n,) or (n, groups)
        Probability that chance alone gives such a match, 0 to 1.
    outcome : ndarray of shape (n,) or (n, groups)
        An `Outcome` for each frame. It is ambiguous where the scene looks the same
        elsewhere (a lattice, an edge), or where few frames cannot tell it from what
        stays in place. Unless it is matched or ambiguous, its shift follows from its
        neighbours.
    template : ndarray of the shape of a frame
        What the frames show together, in the pixels of the reference; NaN where
        no frame shows it.
    pattern : ndarray of the shape of a frame
        What stays in place while the scene moves, in grey values; 0 if nothing does.
    """

    shifts: Floats
    covariance: Floats
    correlation: Floats
    false_alarm: Floats
    outcome: NDArray[np.object_]
    template: NDArray[np.floating[Any]]
    pattern: NDArray[np.floating[Any]]


@checked
def align_series(
    frames: Any,
    *,
    reference: str | int | ArrayLike = "template",
    reach: int | None = None,
    max_shift: ArrayLike | None = None,
    planes: int | Sequence[Sequence[int]] | None = None,
    valid: ArrayLike | None = None,
    pattern: ArrayLike | None = None,
    step_sigma: float | None = None,
    workers: Workers = 1,
    progress: bool = False,
) -> SeriesAlignment:
    """Find the shift of every frame of a movie or a stack.

    No reference is needed: some frames are laid over each other until their mean is
    sharp, each one compared with the mean of the others [1]_, and then every
    frame is matched to that template by the phases of its spectrum, weighted by what it
    shares with the template. What stays in place while the scene moves, such as dust
    or uneven light, is told from the scene first, so that it does not pin the frames.

    Parameters
    ----------
    frames : array_like of shape (n, rows, cols) or (n, planes, rows, cols), or iterable
        Images of one shape. A stack may be anything that is sliced like an array
        (h5py, zarr, memmap, dask), and is read frame by frame; an iterator is read once.
        NaN pixels do not count.
    reference : {"template", "first", "previous"}, int or array_like, optional
        What frames are matched to: a template made of them, whose mean shift is zero;
        the first frame, or another one by its number; each one to the one before it,
        added up from the first one of the longest part of the series that holds
        together, which has shift zero; or an image of the shape of a frame.
    reach : int, optional
        Match each frame to all those up to so many before it instead, and place
        them by all these links together. The mean shift is zero. It is
        the best for series that change while they drift, and the slowest.
    max_shift : float or array_like of shape (ndim,), optional
        Largest shift, in pixels. By default half of a frame.
    planes : int or sequence of sequence of int, optional
        For frames of several planes that move within their plane only: how many
        neighbouring planes move together, or which ones. By default a frame moves as
        a whole, along all axes.
    valid : array_like of bool, optional
        True where a pixel counts, in the shape of a frame, for all frames.
    pattern : array_like, optional
        What stays in place, in the shape of a frame; 0 for nothing. By default it is
        measured.
    step_sigma : float, optional
        How far a frame moves from the one before it, as the standard deviation
        along each axis, in pixels. It steadies the shifts where noise is larger
        than the motion. By default nothing is assumed.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    SeriesAlignment
        The shift of each frame, its covariance, and the template.

    Raises
    ------
    ValueError
        If there are less than two frames, frames or the reference differ in shape, or
        an option is out of range.
    TypeError
        If frames do not hold real numbers.

    See Also
    --------
    apply_shifts : Move the frames to where they belong.
    common_area : The part that all moved frames show.

    Notes
    -----
    Light may change: where means and spreads of frames differ by more than chance lets
    views of one scene, each frame is put into the light of a usual one first, which is
    that of the template. What stays in place is then known up to that light. A `pattern`
    that is given is taken as it is, and frames too.

    References
    ----------
    .. [1] Guizar-Sicairos, Thurman, Fienup (2008). Efficient subpixel image
       registration algorithms. :doi:`10.1364/OL.33.000156`

    Examples
    --------
    A shaking movie of a picture, with noise:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> from skimage import data
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(scale=3, size=(12, 2))
    >>> movie = spt.simulate_series(
    ...     data.camera(), truth, (200, 200), noise_sigma=20, rng=1
    ... )
    >>> found = spt.align_series(movie.frames)
    >>> error = found.shifts - (truth - truth.mean(axis=0))
    >>> bool(np.abs(error).max() < 0.05)
    True
    """
    if step_sigma is not None:
        check_positive(step_sigma, "step_sigma")
    given = check_series(frames, reference, reach, max_shift, planes, valid, pattern)

    models = [
        estimate_model(
            given.sample,
            group,
            None if given.patterns is None else given.patterns[number],
            given.patterns is None,
            given.image is None and given.reach is None,
        )
        for number, group in enumerate(given.groups)
    ]
    if given.reach is None:
        found = match_to_template(given, models, workers, progress)
    else:
        found = match_along_links(given, models, workers)
    shifts = [_group_shifts(given, estimates, step_sigma) for estimates in found]
    return _gather(given, models, shifts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupShifts:
    """Where the frames of a group lie, in the axes that move."""

    shifts: Floats
    covariance: Floats
    correlation: Floats
    false_alarm: Floats
    outcome: NDArray[np.object_]


def _group_shifts(
    given: SeriesInputs, estimates: list[ShiftEstimate], step_sigma: float | None
) -> GroupShifts:
    """Fix the origin, and bridge the frames that are not believed."""
    axes = slice(3 - given.ndim, 3)
    shifts = np.array([each.shift[axes] for each in estimates])
    covariance = np.array([each.covariance[axes, axes] for each in estimates])
    outcome = np.empty(len(estimates), object)
    outcome[:] = [each.outcome for each in estimates]
    alarm = np.array([each.false_alarm for each in estimates])
    height = np.array([each.correlation for each in estimates])
    known = np.array([is_matched(each) for each in estimates])
    if given.reach is None:
        # A template is made again until frames move by less than this, noise or not.
        covariance[known] += SETTLED**2 / 3 * np.eye(given.ndim)
    if given.frame is not None:
        n = given.frame
        shifts[n], covariance[n], outcome[n] = 0, 0, Outcome.MATCHED
        alarm[n], height[n], known[n] = 0.0, 1.0, True
    elif given.image is None and not given.from_first and known.any():
        shifts -= shifts[known].mean(axis=0)
    if given.limit is not None:
        far = known & (np.abs(shifts) > given.limit + 0.5).any(axis=1)
        outcome[far], known = Outcome.BEYOND_BOUND, known & ~far
    shifts, covariance = complete_walk(shifts, covariance, known, step_sigma)
    return GroupShifts(
        shifts=shifts,
        covariance=covariance,
        correlation=height,
        false_alarm=alarm,
        outcome=outcome,
    )


def _gather(
    given: SeriesInputs, learned: list[SeriesModel], walks: list[GroupShifts]
) -> SeriesAlignment:
    """Return the results of all groups in the arrays of the series."""
    shape = given.frames.shape
    dtype = np.result_type(given.frames.dtype, np.float32)
    template, pattern = np.full(shape, np.nan, dtype), np.zeros(shape, dtype)
    for group, known, walk in zip(given.groups, learned, walks, strict=True):
        part: Any = slice(None) if group.planes is None else group.planes
        size = template[part].shape
        if known.pattern is not None:
            pattern[part] = (known.pattern * np.float64(group.scale)).reshape(size)
        if given.image is None:
            template[part] = _mean_in_reference(given, group, known, walk).reshape(size)
    if given.image is not None:
        template[:] = given.image
    stack = np.concatenate if given.groups[0].planes is None else _side_by_side
    return SeriesAlignment(
        shifts=stack([walk.shifts for walk in walks]),
        covariance=stack([walk.covariance for walk in walks]),
        correlation=stack([walk.correlation for walk in walks]),
        false_alarm=stack([walk.false_alarm for walk in walks]),
        outcome=stack([walk.outcome for walk in walks]),
        template=template,
        pattern=pattern,
    )


def _side_by_side(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(arrays, axis=1)


def _mean_in_reference(
    given: SeriesInputs, group: PlaneGroup, known: SeriesModel, walk: GroupShifts
) -> NDArray[np.float64]:
    """Return the mean of the frames of the sample where they lie."""
    canvas = None
    for n, frame in zip(given.numbers.tolist(), given.sample, strict=True):
        if walk.outcome[n] not in (Outcome.MATCHED, Outcome.AMBIGUOUS):
            continue
        volume, there = normalized_volume(frame, group)
        if known.pattern is not None:
            volume = volume - known.pattern
        if canvas is None:
            canvas = MeanCanvas(volume.shape)
        shift = np.zeros(3)
        shift[3 - given.ndim :] = walk.shifts[n]
        canvas.add(volume, shift, there)
    volume = normalized_volume(given.sample[0], group)[0]
    result = np.full(volume.shape, np.nan)
    if canvas is not None:
        pixels, there, origin = canvas.mean()
        size = np.array(volume.shape[1:])
        first = np.maximum(origin, 0)
        stop = np.minimum(origin + pixels.shape[1:], size)
        to = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        cut = tuple(
            slice(a, b) for a, b in zip(first - origin, stop - origin, strict=True)
        )
        values = pixels[:, *cut] * np.float64(group.scale) + group.offset
        if there is not None:
            values = np.where(there[cut], values, np.nan)
        result[:, *to] = values
    return result

"""Match two images, one of them bent, on a grid of points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._rendering.tile_reading import FAR
from .._rendering.warp import warp_image
from .._sampling.downsample import block_means
from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats
from .._shared.checks import (
    as_affine,
    as_shift,
    as_sized_image,
    as_valid,
    check_positive,
    check_same_ndim,
    check_whitening,
)
from .._shared.results import Outcome
from .._shared.workers import Workers, spread
from .._transforms.fields.bspline_fit import FieldFit, Springs, row_variances
from .._transforms.fields.bspline_grid import ControlGrid, control_grid, field_at_pixels
from .._transforms.fields.fit_displacement import (
    count_windows,
    field_at_points,
    point_springs,
    solve_points,
)
from .._transforms.matrices import apply_transform
from .refine_pair import PointMatches
from .window_grid import Windows, match_windows, window_pass

__all__ = ["match_grid"]


# Passes that bend the moving image further, at most; the first half of them search for
# what was not found before (test_displacements_of_tens_of_pixels_are_found).
BENDING_PASSES = 8
# They end when the median window misses by less than this, in pixels
# (test_points_are_right_to_a_fraction_of_a_pixel).
STRAIGHT = 0.03
# What windows miss by is bent too: it is known to this share only, of what they miss by
# or of what all do in the mean. Where a part is in place already, it does not outweigh
# what is not (test_a_step_of_shear_is_followed_on_both_sides).
BENT = 0.1
# Points along each side of a window that stand for its pixels
# (test_borders_are_as_right_as_their_covariances_say).
INSIDE = 5
# Smaller copies have at least so many pixels along each axis
# (test_displacements_of_tens_of_pixels_are_found).
SMALLEST = 48


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _GridProblem:
    """What is matched, and how.

    Attributes
    ----------
    reference : ndarray of float32
        The reference, NaN where it does not count.
    moving : ndarray of float32
        The moving image.
    moving_valid : ndarray of bool or None
        Where it counts.
    matrix : ndarray of shape (ndim + 1, ndim + 1)
        Rough map from moving to reference.
    sides, spacing : ndarray of shape (ndim,)
        Sides of windows and distance of points, in pixels.
    grid : ControlGrid
        Grid of the field that bends the moving image.
    """

    reference: NDArray[np.float32]
    moving: NDArray[np.float32]
    moving_valid: Flags | None
    matrix: Floats
    sides: Floats
    spacing: Floats
    grid: ControlGrid


class _FittedField(NamedTuple):
    """A field, which windows it believes, and its equations, if there are any.

    The equations are those of the means over windows; `middle` are the shares of bumps in
    the field in their middles, and `overlap` tells how many share their pixels.
    """

    values: Floats
    believed: Flags
    fit: FieldFit | None
    springs: Springs | None
    middle: Any
    overlap: Floats

    def doubt(self) -> Floats:
        """Return the variance of the middle of each window less the mean over it."""
        if self.fit is None or self.springs is None:
            return np.zeros(0)
        # So many windows tell how the field differs inside of each.
        between = self.middle - self.springs.rows
        return row_variances(self.fit, between) / self.overlap


@checked
def match_grid(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    matrix: ArrayLike | None = None,
    size: ArrayLike = 128,
    spacing: ArrayLike | None = None,
    max_shift: ArrayLike | None = None,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    whitening: float | None = None,
    workers: Workers = 1,
    progress: bool = False,
) -> PointMatches:
    """Find on a grid of points where things of the reference lie in a bent image.

    Windows around the points are searched, a smooth field is laid through what
    they say, the moving image is bent by it, and what windows still miss by is
    found, until they miss by little. So the precision does not suffer from the
    bending that is already known.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ.
    matrix : array_like of shape (ndim + 1, ndim + 1), optional
        Rough map from the moving image to the reference. The moving image is
        sampled under it, so that large rotations are gone before anything is
        matched. By default the identity.
    size : int or array_like of shape (ndim,), optional
        Side of the windows, in pixels, at least 16. A third of the wavelength of
        the bending or less is best. Windows end where an image ends.
    spacing : float or array_like of shape (ndim,), optional
        Distance of the points, in pixels; by default half of `size`.
    max_shift : float or array_like of shape (ndim,), optional
        How far things may be from where `matrix` puts them, in pixels; by
        default half of `size`. Where it is more, smaller copies of the images are
        matched first.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count.
    whitening : float, optional
        By default the weights are measured from each window. A number is the
        classical exponent: 0 cross-correlation, 1 phase correlation.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    PointMatches
        One entry for each point of the grid, of shape (m, n) or (l, m, n).
        Covariances are infinite for points that were not found, and for those that
        the others contradict; the outcome says which.

    See Also
    --------
    fit_displacement : Makes a field of the matches.
    refine_pair : Matches around given points, without bending.

    Notes
    -----
    Each covariance is that of a window of its own. Windows that overlap share
    their noise: give `fit_displacement` their side as `window`.

    Points are those of the middle of each window. Along the border windows are
    cut, and points lie further inside.

    References
    ----------
    .. [1] Scarano (2002). Iterative image deformation methods in PIV. Meas. Sci.
       Technol. 13, R1. :doi:`10.1088/0957-0233/13/1/201`

    Examples
    --------
    A texture that is stretched along its rows, to twelve pixels at its end:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> moving = spt.gaussian_texture((160, 256), cutoff=0.25, rng=1)
    >>> stretch = spt.translation((0, 0)) + np.diag((0, 0.05, 0))
    >>> reference = spt.warp_image(moving, stretch, order=5)
    >>> found = spt.match_grid(reference, moving, size=64)
    >>> found
    PointMatches(reference_points=(5, 8, 2), moving_points=(5, 8, 2),
        covariance=(5, 8, 2, 2), correlation=(5, 8), false_alarm=(5, 8),
        outcome=[40 matched], steps=(5, 8))
    >>> (found.reference_points - found.moving_points)[2, :, 1].round(1)
    array([ 1.1,  2.3,  3.8,  5.3,  6.8,  8.4,  9.9, 11. ])
    """
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    check_whitening(whitening)
    problem = _grid_problem(
        *images, matrix, (size, spacing), (reference_valid, moving_valid)
    )
    reach = problem.sides / 2
    if max_shift is not None:
        reach = as_shift(max_shift, len(reach), "max_shift")
        check_positive(float(reach.min()), "max_shift")

    job = partial(match_windows, problem.sides, whitening)
    batched = whitening is None
    run = partial(spread, job, workers=workers, progress=progress, title="match grid")
    values = np.zeros((int(np.prod(problem.grid.nodes)), len(reach)))
    for level in range(_pyramid_levels(problem, reach), 0, -1):
        sides = [2**level] * problem.reference.ndim
        pair = (
            block_means(problem.reference, sides),
            block_means(_warp_moving(problem, values), sides),
        )
        windows, _ = window_pass(
            run,
            pair,
            problem.sides,
            problem.sides / 2,
            level=level,
            rounds=1,
            batched=batched,
        )
        values = _fit_field(problem, windows, values, None).values
    return _iterate(problem, run, values, batched)


def _grid_problem(
    reference: NDArray[Any],
    moving: NDArray[Any],
    matrix: ArrayLike | None,
    lengths: tuple[ArrayLike, ArrayLike | None],
    masks: tuple[ArrayLike | None, ArrayLike | None],
) -> _GridProblem:
    """Check what is given and put it together."""
    ndim = reference.ndim
    sides = np.minimum(as_shift(lengths[0], ndim, "size"), FAR)
    if (sides < 16).any():
        message = f"`size` must be at least 16 pixels; got {sides.min():g}."
        raise ValueError(message)
    pitch = sides / 2 if lengths[1] is None else as_shift(lengths[1], ndim, "spacing")
    check_positive(float(pitch.min()), "spacing")
    closest = sides / 4
    if (pitch < closest).any():
        message = (
            f"`spacing` must be at least {closest} pixels, a quarter of `size`, for "
            f"windows repeat each other; got {pitch}."
        )
        raise ValueError(message)
    rough = np.eye(ndim + 1)
    if matrix is not None:
        rough = as_affine(matrix, "matrix", ndim=ndim)
    usable = []
    names = "reference_valid", "moving_valid"
    for image, mask, name in zip((reference, moving), masks, names, strict=True):
        given = as_valid(mask, image.shape, name)
        usable.append(
            np.isfinite(image) if given is None else given & np.isfinite(image)
        )
    first = _standardised(reference, usable[0])
    first[~usable[0]] = np.nan
    return _GridProblem(
        reference=first,
        moving=_standardised(moving, usable[1]),
        moving_valid=None if usable[1].all() else usable[1],
        matrix=rough,
        sides=sides,
        spacing=pitch,
        grid=control_grid(reference.shape, pitch),
    )


def _standardised(image: NDArray[Any], valid: Flags) -> NDArray[np.float32]:
    """Return an image of zero mean and unit spread where it is valid."""
    inside = image[valid].astype(np.float64)
    middle, size = (inside.mean(), inside.std()) if inside.size else (0.0, 1.0)
    even = (np.where(valid, image, middle) - middle) / (size or 1.0)
    return np.ascontiguousarray(even, np.float32)


def _pyramid_levels(problem: _GridProblem, reach: Floats) -> int:
    """Return how often images are halved so that windows look far enough."""
    wanted = np.ceil(np.log2(max(float((2 * reach / problem.sides).max()), 1.0)))
    room = np.log2(min(problem.reference.shape) / SMALLEST)
    return int(min(wanted, max(room, 0)))


def _warp_moving(problem: _GridProblem, values: Floats) -> NDArray[np.float32]:
    """Return the moving image as the reference would see it, NaN where it ends."""
    field = None
    if values.any():
        field = field_at_pixels(problem.grid, values.astype(np.float32))
    still = field is None and np.array_equal(
        problem.matrix, np.eye(len(problem.matrix))
    )
    return warp_image(
        problem.moving,
        problem.matrix,
        displacement=field,
        shape=problem.reference.shape,
        order=0 if still else 5,
        valid=problem.moving_valid,
        fill_value=np.nan,
    )


def _iterate(
    problem: _GridProblem, run: Any, values: Floats, batched: bool
) -> PointMatches:
    """Match windows and bend the moving image until they miss by little."""
    last, number, stiffness = None, 0, None
    while True:
        number += 1
        pair = problem.reference, _warp_moving(problem, values)
        windows, shape = window_pass(
            run, pair, problem.sides, problem.spacing,
            last=last, search=2 * number <= BENDING_PASSES, rounds=number, batched=batched,
        )  # fmt: skip
        bent = _fit_field(problem, windows, values, stiffness)
        believed = windows.missed[windows.found][bent.believed]
        near = len(believed) and np.median(np.abs(believed).max(axis=1)) < STRAIGHT
        same = last is not None and not (windows.found & ~last.found).any()
        if number == BENDING_PASSES or not len(believed) or (near and same):
            return _gather(problem, windows, values, bent, shape)
        values, last = bent.values, windows
        # Windows that were fitted tell how stiff the field is, once and for all.
        if number > 1 and bent.fit is not None:
            stiffness = bent.fit.stiffness


def _fit_field(
    problem: _GridProblem, windows: Windows, values: Floats, stiffness: float | None
) -> _FittedField:
    """Return the field through what was found, and what of that it believes.

    A window tells the mean of the field over its pixels. To take it for the field
    in its middle would flatten whatever is not much wider than a window.
    """
    found = windows.found
    if not found.any():
        return _FittedField(
            values, np.zeros(0, np.bool_), None, None, None, np.zeros(0)
        )
    points, missed = windows.points[found], windows.missed[found]
    ndim = points.shape[1]
    parts = (np.arange(INSIDE) + 0.5) * 2 / INSIDE - 1
    inside = np.stack(np.meshgrid(*[parts] * ndim, indexing="ij"), -1).reshape(-1, ndim)
    spots = points[:, None] + inside * windows.halves[found][:, None]
    before = (spots - missed[:, None]).reshape(-1, ndim)
    mean = (
        field_at_points(problem.grid, values, before).reshape(spots.shape).mean(axis=1)
    )
    overlap = count_windows(points, problem.sides)[:, None, None]
    covariance = windows.covariance[found] + _bending_covariance(missed)
    weights = np.linalg.inv(covariance * overlap).astype(np.float64, copy=False)
    springs = point_springs(problem.grid, spots, missed + mean, weights, 1.0)
    fit, believed = solve_points(springs, points, stiffness=stiffness, robust=True)
    middle = point_springs(problem.grid, points, missed, weights, 1.0).rows
    return _FittedField(fit.values, believed, fit, springs, middle, overlap[:, 0, 0])


def _bending_covariance(missed: Floats) -> Floats:
    """Return the covariance of shifts that bending inside of windows leaves."""
    away = np.linalg.norm(missed, axis=1)
    rough = (BENT * np.maximum(away, away.sum() / max(len(away), 1))) ** 2
    return rough[:, None, None] * np.eye(missed.shape[1])


def _gather(
    problem: _GridProblem,
    windows: Windows,
    values: Floats,
    bent: _FittedField,
    shape: tuple[int, ...],
) -> PointMatches:
    """Put what was found into the words of the result."""
    found, estimates = windows.found, windows.estimates
    ndim = len(problem.sides)
    outcome = np.empty(len(found), object)
    outcome[:] = [Outcome.NO_TEXTURE if e is None else e.outcome for e in estimates]
    alarm = np.array([1.0 if e is None else e.false_alarm for e in estimates])
    # What was found once and lost again was no match.
    lost = (outcome == Outcome.MATCHED) & ~found
    outcome[lost], alarm[lost] = Outcome.NOT_FOUND, 1.0
    lies = np.flatnonzero(found)[~bent.believed]
    outcome[lies] = Outcome.CONTRADICTED
    covariance = windows.covariance.copy()
    covariance[found] += bent.doubt()[:, None, None] * np.eye(ndim)
    covariance[found] += _bending_covariance(windows.missed[found])
    covariance[lies] = np.inf
    before = field_at_points(problem.grid, values, windows.points - windows.missed)
    moving = windows.points - windows.missed - before
    moving = apply_transform(np.linalg.inv(problem.matrix), moving)
    return PointMatches(
        reference_points=windows.points.reshape(*shape, ndim),
        moving_points=moving.reshape(*shape, ndim),
        covariance=covariance.reshape(*shape, ndim, ndim),
        correlation=windows.correlation.reshape(shape),
        false_alarm=alarm.reshape(shape),
        outcome=outcome.reshape(shape),
        steps=windows.steps.reshape(shape),
    )

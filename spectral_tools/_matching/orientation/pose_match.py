"""Match two sketches: search, fit, and say what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._shared.arrays import Floats
from ..._shared.outcomes import Outcome
from .pose_fit import PoseFit, fit_pose
from .pose_images import Sketch
from .pose_rivals import corners_apart, periods_away, slid_along, standing_by
from .pose_search import Place, Range, find_places, shrinking, suggest_turns
from .pose_sheets import Sheet, make_sheet

__all__ = ["OrientationEstimate", "grows_away", "match_sketches", "nothing_found"]


# A pose is believed below this chance of a false alarm.
BELIEVED = 1e-3
# Images that chance could bring together, but that correlate by more than this, are
# looked at for periods and rings.
ALIKE = 0.5
# So many of the best places are fitted before the search gives up.
TRIED = 3
# Points along each axis by which an overlap is measured.
POINTS = 48
# A scale may leave its range by this much, because the ends are seldom exact.
BEYOND = 0.02
# Where a free scale differs from a fixed one by so many standard errors, and moves a
# corner by so many pixels, the images differ in scale.
SURE, APART = 5.0, 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrientationEstimate:
    """How one image lies in another, and how far that can be trusted.

    Attributes
    ----------
    matrix : ndarray of shape (3, 3)
        From moving to reference, for points (row, col).
    angle : float
        Counter-clockwise angle by which the moving image is turned to fit the
        reference, in radians, above -pi and up to pi.
    scale : float
        Pixels of the reference for one pixel of the moving image.
    mirrored : bool
        Whether the moving image is first mirrored, left to right.
    covariance : ndarray of shape (4, 4)
        Covariance of four errors, if the pose is the right one: that of `angle`, in
        radians, that of the logarithm of `scale`, and those of the row and of the
        column, in pixels of the reference, at which the centre of the moving image
        comes to lie. Zero where the scale was not searched, infinite where nothing
        is known.
    correlation : float
        Zero-mean normalised cross-correlation over the overlap, -1 to 1.
    false_alarm : float
        Probability that chance alone gives a match this good at any
        of the turns and shifts that were tried, 0 to 1.
    overlap : float
        Share of the smaller image that lies on the other one, 0 to 1.
    alternatives : ndarray of shape (n, 3, 3)
        Matrices of other poses that fit nearly as well, to a few pixels, if the
        outcome is ambiguous: some of them, where a scene repeats itself often. Else none.
    outcome : Outcome
        What happened, in words.
    """

    matrix: Floats
    angle: float
    scale: float
    mirrored: bool
    covariance: Floats
    correlation: float
    false_alarm: float
    overlap: float
    alternatives: Floats
    outcome: Outcome


def match_sketches(
    reference: Sketch | None, moving: Sketch | None, wanted: Range, min_overlap: float
) -> OrientationEstimate:
    """Find the pose of one sketched image in another."""
    if reference is None or moving is None:
        return nothing_found(Outcome.NO_TEXTURE)
    found = find_places(reference, moving, suggest_turns(reference, moving, wanted))
    places = _with_overlap(reference, moving, found.places, min_overlap)
    fits = None
    for place, _ in places[:TRIED]:
        fits = _refine(reference, moving, place.matrix, wanted.free)
        if fits is not None:
            best = place
            break
        # Where chance is as good the next places are not better.
        if found.false_alarm >= BELIEVED:
            break
    if fits is None:
        return nothing_found(Outcome.NOT_FOUND)
    matrix, covariance = _at_centre(fits.whole, moving.shape)
    overlap = overlap_share(reference, moving, matrix)
    size = 0.5 * math.log(abs(float(np.linalg.det(matrix[:2, :2]))))
    inside = wanted.low - BEYOND <= size <= wanted.high + BEYOND
    believed, rivals = found.false_alarm < BELIEVED, list[Floats]()
    if inside and overlap >= min_overlap:
        if believed:
            rivals = standing_by(moving.shape, best, [place for place, _ in places])
        # What repeats itself everywhere sets the level of chance by itself.
        if believed or fits.whole.fit.correlation > ALIKE:
            rivals += _copies(reference, moving, fits)
        outcome = Outcome.MATCHED if believed else Outcome.NOT_FOUND
        outcome = Outcome.AMBIGUOUS if rivals else outcome
    else:
        outcome = Outcome.BEYOND_BOUND if believed else Outcome.NOT_FOUND
    mirrored = bool(np.linalg.det(matrix[:2, :2]) < 0)
    return OrientationEstimate(
        matrix=matrix,
        angle=math.atan2(matrix[1, 0], matrix[0, 0]),
        scale=math.exp(size),
        mirrored=mirrored,
        covariance=covariance,
        correlation=fits.whole.fit.correlation,
        false_alarm=found.false_alarm,
        overlap=overlap,
        alternatives=np.array(rivals).reshape(-1, 3, 3),
        outcome=outcome,
    )


def grows_away(reference: Sketch, moving: Sketch, matrix: Floats) -> bool:
    """Tell whether the images differ in scale, so that a pose without it is wrong.

    What a turn and a shift leave then grows from the middle to the corners.
    """
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    start = to0 @ matrix @ np.linalg.inv(to1)
    free = _fit(reference.small, moving.small, start, scale=True, near=False)
    if free is None:
        return False
    other = np.linalg.inv(to0) @ free.forward() @ to1
    ratio = abs(float(np.linalg.det(other[:2, :2]) / np.linalg.det(matrix[:2, :2])))
    sigma = math.sqrt(free.fit.covariance[1, 1])
    return (
        abs(0.5 * math.log(ratio)) > SURE * sigma
        and corners_apart(moving.shape, other, matrix) > APART
    )


def nothing_found(outcome: Outcome) -> OrientationEstimate:
    """Return the estimate of a pair that tells nothing."""
    return OrientationEstimate(
        matrix=np.eye(3),
        angle=0.0,
        scale=1.0,
        mirrored=False,
        covariance=np.diag(np.full(4, np.inf)),
        correlation=0.0,
        false_alarm=1.0,
        overlap=0.0,
        alternatives=np.empty((0, 3, 3)),
        outcome=outcome,
    )


def overlap_share(reference: Sketch, moving: Sketch, matrix: Floats) -> float:
    """Return the share of the smaller image that lies on the other one."""
    if abs(float(np.linalg.det(matrix[:2, :2]))) * math.prod(moving.shape) > math.prod(
        reference.shape
    ):
        small, other, way = reference, moving, np.linalg.inv(matrix)
    else:
        small, other, way = moving, reference, matrix
    grid = np.meshgrid(
        *((np.arange(POINTS) + 0.5) * n / POINTS - 0.5 for n in small.shape),
        indexing="ij",
    )
    points = np.stack(grid, axis=-1) @ way[:2, :2].T + way[:2, 2]
    inside = (points > -0.5) & (points < np.array(other.shape) - 0.5)
    return float(inside.all(axis=-1).mean())


def _with_overlap(
    reference: Sketch, moving: Sketch, places: list[Place], least: float
) -> list[tuple[Place, float]]:
    shares = [overlap_share(reference, moving, place.matrix) for place in places]
    return [
        (place, share)
        for place, share in zip(places, shares, strict=True)
        if share >= least
    ]


def _copies(reference: Sketch, moving: Sketch, fits: _Fits) -> list[Floats]:
    """Return other poses at which the scene meets itself."""
    found = periods_away(reference, moving, fits.whole.forward())
    sheets = reference.small, moving.small
    still, turned = sheets[::-1] if fits.small.swapped else sheets
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    for slid in slid_along(still, turned, fits.small.fit, scale=fits.scale):
        way = np.linalg.inv(slid) if fits.small.swapped else slid
        found.append(np.linalg.inv(to0) @ way @ to1)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Refined:
    fit: PoseFit
    swapped: bool  # whether the reference was turned

    def forward(self) -> Floats:
        """Return the matrix from moving to reference."""
        if not self.swapped:
            return self.fit.matrix
        return np.linalg.inv(self.fit.matrix).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fits:
    small: _Refined
    whole: _Refined
    scale: bool  # whether it is free


def _refine(
    reference: Sketch, moving: Sketch, matrix: Floats, scale: bool
) -> _Fits | None:
    """Fit the pose on the small images, then on the whole ones."""
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    start = to0 @ matrix @ np.linalg.inv(to1)
    small = _fit(reference.small, moving.small, start, scale, near=False)
    if small is None:
        return None
    whole: _Refined | None = small
    if max(reference.factor, moving.factor) > 1:
        sheets = [
            sketch.small if sketch.factor == 1 else make_sheet(*sketch.full)
            for sketch in (reference, moving)
        ]
        start = np.linalg.inv(to0) @ small.forward() @ to1
        whole = _fit(sheets[0], sheets[1], start, scale, near=True)
    return None if whole is None else _Fits(small=small, whole=whole, scale=scale)


def _fit(
    reference: Sheet, moving: Sheet, start: Floats, scale: bool, *, near: bool
) -> _Refined | None:
    """Fit with the coarser image turned, so that sampling it loses nothing."""
    swapped = abs(float(np.linalg.det(start[:2, :2]))) < 1
    if swapped:
        back = np.linalg.inv(start).astype(np.float64, copy=False)
        fit = fit_pose(moving, reference, back, scale=scale, near=near)
    else:
        fit = fit_pose(reference, moving, start, scale=scale, near=near)
    return None if fit is None else _Refined(fit=fit, swapped=swapped)


def _at_centre(refined: _Refined, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the matrix, and the covariance at the centre of the moving image."""
    fit, matrix = refined.fit, refined.forward()
    pivot, change = fit.centre, np.eye(4)
    if refined.swapped:
        # What moves the reference one way moves the other image the other way.
        linear = matrix[:2, :2]
        pivot = linear @ fit.centre + matrix[:2, 2]
        change = -change
        change[0, 0] = -np.sign(np.linalg.det(linear))
        change[2:, 2:] = -linear
    centre = (np.array(shape) - 1) / 2
    row, col = matrix[:2, :2] @ centre + matrix[:2, 2] - pivot
    lever = np.eye(4)
    lever[2:, :2] = [[-col, row], [row, col]]
    change = lever @ change
    return matrix, change @ fit.covariance @ change.T

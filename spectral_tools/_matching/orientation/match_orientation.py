"""Find how one image is turned, scaled and mirrored in another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..._shared.arguments import checked
from ..._shared.arrays import Floats, Ints
from ..._shared.checks import as_finite, as_sized_image, as_valid, check_fraction
from ..._shared.results import Outcome, result
from ..ambiguity import periodic_copies
from ..image_area import image_in
from ..local_agreement import LOOKS_ALIKE
from ..phase_correlate import AMBIGUOUS, BELIEVED
from .pose_fit import PoseFit, fit_pose, pose_flow, travel
from .pose_images import (
    Sketch,
    SplineImage,
    make_sketch,
    make_spline_image,
    resample_onto,
)
from .pose_search import Range, RankedPose, search_poses, shrinking, suggest_turns

__all__ = ["OrientationEstimate", "match_orientation", "match_sketches"]


# Two poses are the same if they bring no corner of the image further apart than
# this share of its diagonal (test_a_clear_match_has_no_alternatives).
SAME = 0.1
# A scene slides on itself only if the curvature of its fit along some change of pose is
# below this share of that of an isotropic scene
# (test_rings_that_turn_on_themselves_are_ambiguous).
FIRM = 0.3


# Points along each axis by which an overlap is measured: to 2 % of a side
# (test_partial_overlap_is_enough).
POINTS = 48
# A logarithm of the scale may leave its range by this much, because the ends are seldom
# exact (test_scale_is_found).
BEYOND = 0.02
# A free scale differs from a fixed one by so many standard errors
# (test_a_scale_that_was_not_asked_for_is_not_called_matched).
SURE = 5.0
# It then moves a corner by at least so many pixels
# (test_a_scale_that_moves_corners_by_less_than_two_pixels_is_let_through).
VISIBLE = 2.0


def corner_distance(shape: tuple[int, ...], one: Floats, other: Floats) -> float:
    """Return how far apart two matrices bring the corners of an image."""
    rows, cols = shape[0] - 1, shape[1] - 1
    corners = np.array([(0, 0, 1), (0, cols, 1), (rows, 0, 1), (rows, cols, 1)])
    apart = (corners @ (one - other).T)[:, :2]
    return float(np.hypot(*apart.T).max())


def distinct_distance(shape: tuple[int, ...], matrix: Floats) -> float:
    """Return how far apart the corners of poses that differ are."""
    size = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    return SAME * size * math.hypot(shape[0] - 1, shape[1] - 1)


def rival_poses(shape: tuple[int, ...], poses: list[RankedPose]) -> list[Floats]:
    """Return the other poses that are nearly as high as the best one, which is first."""
    best = poses[0]
    far = distinct_distance(shape, best.matrix)
    return [
        pose.matrix
        for pose in poses
        if pose.height >= AMBIGUOUS * best.height
        and corner_distance(shape, pose.matrix, best.matrix) > far
    ]


def periodic_poses(reference: Sketch, moving: Sketch, matrix: Floats) -> list[Floats]:
    """Return poses one period of the scene away at which the images agree as well."""
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    other = resample_onto(
        reference.small, moving.small, to0 @ matrix @ np.linalg.inv(to1)
    )
    copies = periodic_copies(
        reference.small.pixels[np.newaxis], other[np.newaxis], np.zeros(3)
    )
    found = []
    for copy in copies * reference.factor:
        shifted = matrix.copy()
        shifted[:2, 2] += copy[1:]
        found.append(shifted)
    return found


def symmetric_poses(
    still: SplineImage, turned: SplineImage, fit: PoseFit, scale: bool
) -> list[Floats]:
    """Return poses, of two images, to which the scene slides on itself.

    Rings turn about their middle, and stripes move along themselves. Then one change of
    pose hardly shows; the images are fitted some way along it, both ways.
    """
    if fit.hold > FIRM:
        return []
    far = distinct_distance(turned.pixels.shape, fit.matrix)
    reach = math.hypot(*still.pixels.shape) / 2
    pose = fit.loose * (far / max(travel(fit.loose, reach), 1e-30))
    found = []
    for way in (1.0, -1.0):
        slide = pose_flow(way * pose, fit.centre)
        other = fit_pose(still, turned, slide @ fit.matrix, scale=scale)
        if (
            other is not None
            and other.significance >= AMBIGUOUS * fit.significance
            and other.correlation >= AMBIGUOUS * fit.correlation
            and corner_distance(turned.pixels.shape, other.matrix, fit.matrix) > far / 2
        ):
            found.append(other.matrix)
    return found


@checked
def match_orientation(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    scale_range: ArrayLike | None = None,
    mirror: bool = False,
    angles: ArrayLike | None = None,
    min_overlap: float = 0.1,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    padding: bool = True,
) -> OrientationEstimate:
    """Find how one image is turned, shifted, scaled and mirrored in another.

    The power spectrum of an image does not know where the image was cut; in polar
    coordinates with logarithmic radius a turn and a scale only shift it [1]_. Noise is
    taken off before, ring by ring. The turns that the spectra suggest are tried
    on the images, and the best is fitted to them by least squares, each frequency
    weighted by its coherence and each part of the image by what it tells, to
    the accuracy that the noise allows.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols)
        Images, of any real dtype; the shapes may differ. NaN and infinite
        pixels do not count. Sides of about 24 pixels are the shortest that tell
        enough; smaller images are mostly not found.
    scale_range : array_like of shape (2,), optional
        Lowest and highest scale, in pixels of the reference for one of the
        moving image. By default the scale is 1, and not fitted; images whose scales
        differ so much that corners miss by more than 2 pixels are then beyond the
        bound. Scales between 0.4 and 2.5 can be found if the images show the same things.
    mirror : bool, optional
        Whether the moving image may be mirrored. Both ways are tried then.
    angles : float or array_like of shape (n,), optional
        Angles to try, in radians, within about 1 degree of the truth; the spectra then
        only tell the scale. Many take longer, but find images that are too noisy, or
        share too little, for their spectra to be alike. By default the spectra
        suggest angles from the full circle.
    min_overlap : float, optional
        Smallest overlap that is believed, as a fraction of the smaller image.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts.
    padding : bool, optional
        Find borders that show nothing round an image, and do not count them.

    Returns
    -------
    OrientationEstimate
        The matrix from moving to reference, its parts, their covariance, and
        the chance that all this is a false alarm.

    Raises
    ------
    ValueError
        If an image is not 2-D, or an option is out of range.
    TypeError
        If an image does not hold real numbers.

    See Also
    --------
    phase_correlate : Shift of images that are not turned.
    warp_image : Moves an image by the matrix.

    References
    ----------
    .. [1] Reddy & Chatterji (1996). An FFT-based technique for translation,
       rotation, and scale-invariant image registration. :doi:`10.1109/83.506761`

    Examples
    --------
    A picture, and the same one turned by a quarter and cut elsewhere:

    >>> import numpy as np
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> turned = np.rot90(picture[100:400, 80:420])
    >>> found = spt.match_orientation(picture[60:360, 60:380], turned)
    >>> round(float(np.degrees(found.angle)), 1)
    -90.0
    >>> spt.apply_transform(found.matrix, [(339, 0)]).round(1)
    array([[40., 20.]])
    >>> found.outcome
    <Outcome.MATCHED: 'matched'>
    """
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    for image, name in zip(images, ("reference", "moving"), strict=True):
        if image.ndim != 2:
            message = f"`{name}` must be a 2-D image; got shape {image.shape}."
            raise ValueError(message)
    masks = (
        as_valid(reference_valid, images[0].shape, "reference_valid"),
        as_valid(moving_valid, images[1].shape, "moving_valid"),
    )
    check_fraction(min_overlap, "min_overlap")
    sides = max(images[0].shape), max(images[1].shape)
    wanted = _as_range(scale_range, mirror, angles, sides)
    areas = [
        image_in(image, mask, padding=padding)
        for image, mask in zip(images, masks, strict=True)
    ]
    if areas[0] is None or areas[1] is None:
        return nothing_found(Outcome.NO_TEXTURE)
    first, second = (make_sketch(area.image, area.valid) for area in areas if area)
    if first is None or second is None:
        return nothing_found(Outcome.NO_TEXTURE)
    found = match_sketches(first, second, wanted, min_overlap)
    settled = wanted.free or found.outcome != Outcome.MATCHED
    if not settled and has_other_scale(first, second, found.matrix):
        found = replace(found, outcome=Outcome.BEYOND_BOUND)
    corners = areas[0].corner, areas[1].corner
    return _between_frames(found, corners, images[1].shape, second.shape)


def _between_frames(
    found: OrientationEstimate,
    corners: tuple[Ints, Ints],
    frame: tuple[int, ...],
    inner: tuple[int, ...],
) -> OrientationEstimate:
    """Return a pose of images as that of the frames that they were cut out of.

    `frame` and `inner` are the shapes of the moving ones.
    """
    cut = frame != inner or corners[0].any()
    if not cut or not np.isfinite(found.covariance).all():
        return found
    out, back = np.eye(3), np.eye(3)
    out[:2, 2], back[:2, 2] = corners[0], -corners[1]
    middle = (np.array(frame) - np.array(inner)) / 2 - corners[1]
    row, col = found.matrix[:2, :2] @ middle
    lever = np.eye(4)
    lever[2:, :2] = [[-col, row], [row, col]]
    return replace(
        found,
        matrix=out @ found.matrix @ back,
        covariance=lever @ found.covariance @ lever.T,
        alternatives=out @ found.alternatives @ back,
    )


def _as_range(
    scale_range: ArrayLike | None,
    mirror: bool,
    angles: ArrayLike | None,
    sides: tuple[int, int],
) -> Range:
    scales = np.ones(2)
    if scale_range is not None:
        scales = as_finite(scale_range, "scale_range")
        if scales.shape != (2,) or not 0 < scales[0] <= scales[1]:
            message = (
                "`scale_range` must be two positive numbers, the lower first; "
                f"got {scale_range!r}."
            )
            raise ValueError(message)
        # Beyond, one image lies in a single pixel of the other.
        least, most = 1 / sides[1], float(sides[0])
        if scales[0] > most or scales[1] < least:
            message = (
                f"`scale_range` must reach between {least:.3g} and {most:.3g}, where "
                f"images are more than a pixel; got {scale_range!r}."
            )
            raise ValueError(message)
        scales = np.clip(scales, least, most)
    directions = None
    if angles is not None:
        directions = np.atleast_1d(as_finite(angles, "angles"))
        if directions.ndim != 1 or directions.size == 0:
            message = (
                f"`angles` must be a list of numbers; got shape {directions.shape}."
            )
            raise ValueError(message)
    return Range(
        low=math.log(scales[0]),
        high=math.log(scales[1]),
        mirror=bool(mirror),
        angles=directions,
    )


@result
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
    found = search_poses(reference, moving, suggest_turns(reference, moving, wanted))
    poses = [
        pose
        for pose in found.poses
        if overlap_share(reference, moving, pose.matrix) >= min_overlap
    ]
    fits = None
    if poses:
        fits = _refine(reference, moving, poses[0].matrix, wanted.free)
    if fits is None:
        return nothing_found(Outcome.NOT_FOUND)
    matrix, covariance = _at_centre(fits.whole, moving.shape)
    overlap = overlap_share(reference, moving, matrix)
    size = 0.5 * math.log(abs(float(np.linalg.det(matrix[:2, :2]))))
    inside = wanted.low - BEYOND <= size <= wanted.high + BEYOND
    believed, rivals = found.false_alarm < BELIEVED, list[Floats]()
    if inside and overlap >= min_overlap:
        if believed:
            rivals = rival_poses(moving.shape, poses)
        # What repeats itself everywhere sets the level of chance by itself.
        if believed or fits.whole.fit.correlation > LOOKS_ALIKE:
            rivals += _self_similar_poses(reference, moving, fits)
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


def has_other_scale(reference: Sketch, moving: Sketch, matrix: Floats) -> bool:
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
        and corner_distance(moving.shape, other, matrix) > VISIBLE
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


def _self_similar_poses(reference: Sketch, moving: Sketch, fits: _Fits) -> list[Floats]:
    """Return other poses at which the scene meets itself."""
    found = periodic_poses(reference, moving, fits.whole.forward())
    images = reference.small, moving.small
    still, turned = images[::-1] if fits.small.swapped else images
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    for slid in symmetric_poses(still, turned, fits.small.fit, scale=fits.scale):
        way = np.linalg.inv(slid) if fits.small.swapped else slid
        found.append(np.linalg.inv(to0) @ way @ to1)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _DirectedFit:
    fit: PoseFit
    swapped: bool  # whether the reference was turned

    def forward(self) -> Floats:
        """Return the matrix from moving to reference."""
        if not self.swapped:
            return self.fit.matrix
        return np.linalg.inv(self.fit.matrix).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fits:
    small: _DirectedFit
    whole: _DirectedFit
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
    whole: _DirectedFit | None = small
    if max(reference.factor, moving.factor) > 1:
        images = [
            sketch.small if sketch.factor == 1 else make_spline_image(*sketch.full)
            for sketch in (reference, moving)
        ]
        start = np.linalg.inv(to0) @ small.forward() @ to1
        whole = _fit(images[0], images[1], start, scale, near=True)
    return None if whole is None else _Fits(small=small, whole=whole, scale=scale)


def _fit(
    reference: SplineImage,
    moving: SplineImage,
    start: Floats,
    scale: bool,
    *,
    near: bool,
) -> _DirectedFit | None:
    """Fit with the coarser image turned, so that sampling it loses nothing."""
    swapped = abs(float(np.linalg.det(start[:2, :2]))) < 1
    if swapped:
        back = np.linalg.inv(start).astype(np.float64, copy=False)
        fit = fit_pose(moving, reference, back, scale=scale, near=near)
    else:
        fit = fit_pose(reference, moving, start, scale=scale, near=near)
    return None if fit is None else _DirectedFit(fit=fit, swapped=swapped)


def _at_centre(refined: _DirectedFit, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
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

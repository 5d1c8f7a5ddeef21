"""Match two sections of a stack: their pose, then a grid of points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._matching.image_area import bounding_box
from ..._matching.orientation.match_orientation import (
    OrientationEstimate,
    match_sketches,
)
from ..._matching.orientation.pose_images import SPLINE_ORDER, Sketch, make_sketch
from ..._matching.orientation.pose_search import Range, shrinking
from ..._point_matching.window_grid import Windows, match_windows, window_pass
from ..._rendering.warp import warp_image
from ..._sampling.downsample import known_block_means
from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.results import Outcome
from ..._shared.statistics import ROUNDS, least_absolute_weights
from ..._transforms.matrices import apply_transform

__all__ = [
    "Section",
    "SectionLink",
    "SectionPair",
    "block_side",
    "make_section",
    "match_sections",
]


# Blocks of pixels along each axis of a section, about: neighbours differ by more than finer
# pixels would tell (bench_stack.py).
SIDE = 512
# Side of a window, as a share of that of a section (bench_stack.py).
WINDOW = 0.24
# Distance of the middles of windows, as a share of the side of a section (bench_stack.py).
SPACING = 0.15
# Side of the smallest windows, in blocks (bench_stack.py).
SHORTEST = 32
# Share of the smaller section that the other one must show (bench_stack.py).
LEAST_OVERLAP = 0.1
# Windows that must match, or the pose alone counts (bench_stack.py).
LEAST_WINDOWS = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """What is kept of a section: means of blocks of pixels, and its sketch."""

    shape: tuple[int, ...]
    corner: Ints  # of the box that holds all that counts
    factor: int  # side of the blocks
    pixels: NDArray[np.float32]  # NaN where they do not count
    sketch: Sketch | None  # None if it shows nothing

    def to_pixels(self, points: Floats) -> Floats:
        """Return points of blocks as points of the whole section."""
        return (
            apply_transform(np.linalg.inv(shrinking(self.factor)), points) + self.corner
        )


class SectionPair(NamedTuple):
    """Two sections to match: the reference and the moving one."""

    reference: Section
    moving: Section


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SectionLink:
    """What two sections say about each other, in pixels of either.

    Attributes
    ----------
    outcome : Outcome
        Of the search for the pose.
    mirrored : bool
        Whether one of them lies upside down beside the other.
    correlation, false_alarm : float
        Of the pose.
    reference_points, moving_points : ndarray of shape (n, 2)
        Points that belong together; none unless the pose was found.
    covariance : ndarray of shape (n, 2, 2)
        Covariance of their difference, along the axes of the reference. It knows of
        noise, and of how far the tissue differs from one section to the other.
    """

    outcome: Outcome
    mirrored: bool
    correlation: float
    false_alarm: float
    reference_points: Floats
    moving_points: Floats
    covariance: Floats


def block_side(images: Sequence[Any], masks: Sequence[Flags | None]) -> int:
    """Return the side of the blocks: one size for all sections, within their masks."""
    shapes = [
        np.shape(image if mask is None else mask[bounding_box(mask)])
        for image, mask in zip(images, masks, strict=True)
    ]
    return max(math.ceil(math.sqrt(math.prod(shape)) / SIDE) for shape in shapes) or 1


def make_section(factor: int, task: tuple[NDArray[Any], Flags | None]) -> Section:
    """Return what is kept of an image and its valid pixels, in blocks of a side."""
    image, valid = task
    usable = np.isfinite(image) if valid is None else valid & np.isfinite(image)
    # What is masked around a section is as if it had been cut off.
    box = bounding_box(usable if usable.any() else ~usable)
    pixels = _blocks(image[box], usable[box], factor)
    known = np.isfinite(pixels)
    sketch = None
    if known.any():
        # Blank film is no texture, however large the numbers are.
        middle = np.float32(np.mean(pixels[known], dtype=np.float64))
        pixels = pixels - middle
        even = np.where(known, pixels, np.float32(0))
        sketch = make_sketch(even, None if known.all() else known)
    return Section(
        shape=image.shape,
        corner=np.array([side.start for side in box], np.intp),
        factor=factor,
        pixels=pixels,
        sketch=sketch,
    )


def _blocks(image: NDArray[Any], usable: Flags, factor: int) -> NDArray[np.float32]:
    """Average blocks of pixels, of which at least half must count."""
    mean, share = known_block_means(image, usable, (factor, factor))
    return np.where(share >= 0.5, mean, np.nan).astype(np.float32)


def match_sections(
    wanted: Range, limit: float | None, task: SectionPair
) -> SectionLink:
    """Find the pose of one section in another, and points that belong together.

    Parameters
    ----------
    wanted : Range
        Which turns are looked for.
    limit : float, optional
        Largest angle that is believed, in radians.
    task : Task
        The two sections.
    """
    pose = match_sketches(
        task.reference.sketch, task.moving.sketch, wanted, LEAST_OVERLAP
    )
    outcome = pose.outcome
    if outcome == Outcome.MATCHED and limit is not None and abs(pose.angle) > limit:
        outcome = Outcome.BEYOND_BOUND
    points = np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 2, 2))
    if outcome == Outcome.MATCHED:
        points = _points(task, pose)
    return SectionLink(
        outcome=outcome,
        mirrored=pose.mirrored,
        correlation=pose.correlation,
        false_alarm=pose.false_alarm,
        reference_points=points[0],
        moving_points=points[1],
        covariance=points[2],
    )


def _points(
    task: SectionPair, pose: OrientationEstimate
) -> tuple[Floats, Floats, Floats]:
    """Match windows of the reference in the moving section, turned by the pose.

    The pose is that of blocks; the points that are returned are those of pixels.
    """
    pair = (
        task.reference.pixels,
        warp_image(
            task.moving.pixels,
            pose.matrix,
            shape=task.reference.pixels.shape,
            order=SPLINE_ORDER,
            fill_value=np.nan,
        ),
    )
    side = math.sqrt(math.prod(pair[0].shape))
    length = np.rint(max(WINDOW * side, SHORTEST))
    step = length * SPACING / WINDOW
    sides, spacing = np.full(2, length), np.full(2, step)
    job = partial(match_windows, sides, None)
    windows, _ = window_pass(partial(map, job), pair, sides, spacing)
    found = windows.found
    if found.sum() >= LEAST_WINDOWS:
        first, missed = windows.points[found], windows.missed[found]
        # Windows that overlap share what they see.
        covariance = _scatter_covariance(windows) * (length / step) ** 2
    else:
        first, covariance = _pose_points(task.moving, pose)
        missed = np.zeros_like(first)
    second = apply_transform(np.linalg.inv(pose.matrix), first - missed)
    return (
        task.reference.to_pixels(first),
        task.moving.to_pixels(second),
        covariance * task.reference.factor**2,
    )


def _scatter_covariance(windows: Windows) -> Floats:
    """Return covariances of windows that know how far they scatter.

    Sections that follow each other show tissue that really differs. How far, the
    windows tell by what a small turn and stretch of all of them leaves over.
    """
    found = windows.found
    points, missed = windows.points[found], windows.missed[found]
    arms = points - points.mean(axis=0)
    design = np.column_stack([np.ones(len(arms)), arms / max(np.abs(arms).max(), 1.0)])
    trust = np.ones(len(points))
    left = missed
    for _ in range(ROUNDS):
        root = np.sqrt(trust)[:, np.newaxis]
        fit = np.linalg.lstsq(root * design, root * missed, rcond=None)[0]
        left = missed - design @ fit
        trust = least_absolute_weights(np.hypot(*left.T), least=1e-9)
    # The median of the length of a round normal error is 1.18 of its deviation.
    variance = (np.median(np.hypot(*left.T)) / 1.1774) ** 2
    variance *= len(points) / (len(points) - design.shape[1])
    return np.asarray(windows.covariance[found] + variance * np.eye(2))


def _pose_points(moving: Section, pose: OrientationEstimate) -> tuple[Floats, Floats]:
    """Return four points that say what the pose says, about as surely."""
    half = (np.array(moving.pixels.shape) - 1) / 2
    arms = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)]) * half / 2
    place = apply_transform(pose.matrix, half + arms)
    turned = float(pose.covariance[0, 0]) * float(np.sum(arms[0] ** 2))
    spread = 4 * pose.covariance[2:, 2:] + 4 * turned * np.eye(2)
    return place, np.tile(spread, (4, 1, 1))

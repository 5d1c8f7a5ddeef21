"""Points that two instruments both see, matched by structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from .._matching.phase_correlate import BELIEVED
from .._rendering.tile_reading import FAR
from .._rendering.warp import warp_image
from .._sampling.downsample import block_means
from .._shared.arguments import checked
from .._shared.arrays import Floats, Ints
from .._shared.checks import (
    as_affine,
    as_points,
    as_shift,
    as_sized_image,
    check_count,
    check_not_negative,
    check_positive,
    check_same_ndim,
    check_same_shape,
)
from .._shared.results import Outcome
from .._shared.workers import Workers, spread
from .._transforms.estimate_transform import estimate_transform
from .._transforms.matrices import apply_transform, translation
from .._transforms.point_maps import TransformEstimate
from .._transforms.transform_models import Model, family_of
from .refine_pair import PointMatches
from .structure_match import (
    FINEST,
    Structure,
    StructureMatch,
    WindowModes,
    match_structures,
    structure_tensor,
    unmatched_structure,
    window_modes,
)

__all__ = ["find_control_points", "refine_points"]


Transform = Floats | TransformEstimate
Images = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
Structures = tuple[Structure, Structure]

# Brightness beyond so many times the spread of an image does not count more
# (test_units_and_markers_of_missing_data_do_not_matter).
OUTMOST = 20.0
# Images of up to so many levels are masks and labels: their edges jump from pixel to
# pixel (test_error_bars_of_masks_hold).
LEVELS = 16
# Where two of them meet, edges are looked for that are at least so many pixels wide: finer
# ones agree best at whole pixels, which hides from bars (test_error_bars_of_masks_hold).
JUMPY = 2.0
# No window of a small copy is larger than this share of it
# (test_points_are_found_without_any_hand).
WIDEST = 0.55
# Windows lie this share of their side apart (test_error_bars_hold_in_noise).
WINDOW_STEP = 0.5
# Those of small copies are few, and lie this share of their side apart
# (test_points_are_found_without_any_hand).
SMALL_STEP = 0.25
# Windows this share of their side apart tell things that are independent
# (test_nothing_in_common_is_not_believed).
INDEPENDENT = 0.6


# The shortest window that has enough edges in it, in pixels
# (test_nothing_in_common_is_not_believed).
SHORTEST = 16
# Coarse images are searched up to so many of their pixels
# (test_points_are_found_without_any_hand).
REACH = 12.0
# Finer ones are searched this far after them, in pixels
# (test_a_rough_transform_leads_to_points).
FINER_REACH = 8.0
# No image is made smaller than so many windows along an axis
# (test_points_are_found_without_any_hand).
FEWEST = 1.25
# A finer image is used if this share of its windows is believed (bench_instruments:
# lesions, rat-kidney).
WORTH = 0.25
# So many pairs can tell that one of them is wrong, and that an image is worth its windows
# (test_wrong_points_are_refused_and_come_back_as_given).
JUDGES = 8
# Transforms that have no simpler one which turns and scales.
SIMPLE = "translation", "rigid", "similarity"


class WindowMatches(NamedTuple):
    """Points of the reference, and where each is seen in the moving image."""

    points: Floats
    start: Floats
    moving: Floats
    covariance: Floats
    correlation: Floats
    false_alarm: Floats
    outcome: NDArray[np.object_]


def structures_on_reference(
    images: Images, way: Transform, scale: float, level: int = 0
) -> Structures:
    """Return the structure of both images on the pixels of the reference."""
    reference, moving = map(_standardised, images)
    matrix = way.matrix if isinstance(way, TransformEstimate) else way
    larger = abs(float(np.linalg.det(matrix[:-1, :-1]))) ** (1 / reference.ndim)
    laid = warp_image(
        moving, way, shape=reference.shape, order=3, fill_value=np.nan, dtype=np.float32
    )
    # A small image has no finer edges for being shown large.
    coarser = min(max(1.0, larger / 2**level), max(reference.shape))
    jumpy = JUMPY / 2**level if all(map(_has_few_levels, images)) else 0.0
    first, second = (
        structure_tensor(
            block_means(image, [2**level] * image.ndim), max(scale * coarser, jumpy)
        )
        for image in (reference, laid)
    )
    finest = min(first.finest, FINEST / coarser)
    return first._replace(finest=finest), second._replace(finest=finest)


def _has_few_levels(image: NDArray[np.floating[Any]]) -> bool:
    """Tell whether an image has only a few values, as masks and labels have."""
    # Most images show that they have more in a few of their pixels.
    step = max(image.size // LEVELS**2, 1)
    few = np.unique(image.ravel()[::step]).size <= LEVELS
    return bool(few and np.unique(image[np.isfinite(image)]).size <= LEVELS)


def _standardised(image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return an image around zero, of about unit spread, whatever its unit.

    What lies very far out is no picture: markers of missing data, hot pixels.
    """
    known = image[np.isfinite(image)].astype(np.float64)
    if not known.size:
        return image.astype(np.float32)
    low, middle, high = np.percentile(known, [1, 50, 99])
    width = high - low
    if not width > 0:
        low, high = float(known.min()), float(known.max())
        width = (high - low) or 1.0
    away = (image.astype(np.float64) - middle) / width
    return np.clip(away, -OUTMOST, OUTMOST).astype(np.float32)


def match_around(
    structures: Structures,
    way: Transform,
    points: Floats,
    start: Floats,
    sides: Ints,
    reach: Floats,
    workers: Workers,
    level: int = 0,
) -> WindowMatches:
    """Match windows around points of the reference with those around moving points."""
    ndim, step = points.shape[1], 2.0**level
    pairs = np.zeros((len(points), 2, 3))
    pairs[:, 0, 3 - ndim :] = points
    pairs[:, 1, 3 - ndim :] = _mapped(way, start)
    pairs[..., 3 - ndim :] = (pairs[..., 3 - ndim :] + 0.5) / step - 0.5
    ahead = [1] * (3 - ndim)
    job = partial(
        _match,
        structures,
        window_modes(
            np.array([*ahead, *sides]), min(structures[0].finest, structures[1].finest)
        ),
        np.array([*[0.0] * len(ahead), *reach]),
    )
    matches = list(spread(job, list(pairs), workers=workers))
    shifts = np.array([match.shift for match in matches]).reshape(-1, 3)
    there = pairs[:, 1, 3 - ndim :] + shifts[:, 3 - ndim :]
    covariance = [match.covariance[3 - ndim :, 3 - ndim :] for match in matches]
    return WindowMatches(
        points=points,
        start=start,
        moving=_mapped(way, (there + 0.5) * step - 0.5, inverse=True),
        covariance=np.reshape(covariance, (-1, ndim, ndim)) * step**2,
        correlation=np.array([match.correlation for match in matches]),
        false_alarm=np.array([match.false_alarm for match in matches]),
        outcome=np.array([match.outcome for match in matches], object),
    )


def _match(
    structures: Structures, modes: WindowModes, reach: Floats, points: Floats
) -> StructureMatch:
    if not np.isfinite(points).all():
        return unmatched_structure(Outcome.NOT_FOUND)
    return match_structures(structures, modes, reach, points)


def match_on_grid(
    images: Images,
    way: Transform,
    level: int,
    sides: Ints,
    reach: float,
    scale: float,
    workers: Workers,
) -> WindowMatches:
    """Match windows on a grid of small copies of two images."""
    structures = structures_on_reference(images, way, scale, level)
    ahead = 3 - images[0].ndim
    shape = np.array(structures[0].weight.shape[ahead:])
    widest = shape if level == 0 else np.rint(WIDEST * shape).astype(np.intp)
    sides, apart = np.minimum(sides, widest), SMALL_STEP if level else WINDOW_STEP
    axes = []
    for size, side in zip(shape.tolist(), sides.tolist(), strict=True):
        count = 1 + math.ceil(max(size - side, 0) / (apart * side))
        axes.append(np.linspace((side - 1) / 2, size - 1 - (side - 1) / 2, count))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    points = (grid + 0.5) * 2**level - 0.5
    start = _mapped(way, points, inverse=True)
    far = np.full(len(axes), reach)
    return match_around(structures, way, points, start, sides, far, workers, level)


def consensus_transform(
    found: WindowMatches, model: Model, doubt: float
) -> TransformEstimate | None:
    """Return the transform that the better half of all pairs agrees about.

    Only those count that chance explains with less than a probability.
    """
    order = np.argsort(found.false_alarm, kind="stable")
    believed = int((found.false_alarm < BELIEVED).sum())
    rows = order[: max(believed, len(order) // 2)]
    rows = rows[found.false_alarm[rows] <= doubt]
    known = np.isfinite(found.moving).all(axis=1) & (found.correlation > 0)
    rows = rows[known[rows]]
    try:
        return estimate_transform(found.points[rows], found.moving[rows], model=model)
    except ValueError:
        # Too few pairs, or all on a line, determine nothing better.
        return None


def a_contrario_support(
    found: WindowMatches, fit: TransformEstimate, model: Model, reach: float, level: int
) -> WindowMatches | None:
    """Return what is believed if windows are judged together; None if they disagree.

    Where so many windows agree as chance does not explain, one that agrees is a false
    alarm only if chance brought it there, among all the places that it was looked for.
    How near is near enough is what is least likely by chance [1]_.

    References
    ----------
    .. [1] Moisan & Stival (2004). A probabilistic criterion to detect rigid point
       matches between two images and estimate the fundamental matrix.
       :doi:`10.1023/B:VISI.0000013094.38752.54`
    """
    ndim, step = found.points.shape[1], 2.0**level
    tried = found.correlation > 0
    misses = np.abs(_mapped(fit, found.moving) - found.points).max(axis=1) / step
    misses[~tried] = np.inf
    alone = min(((SMALL_STEP if level else WINDOW_STEP) / INDEPENDENT) ** ndim, 1.0)
    # As many pairs as determine the fit agree with it for nothing.
    spent = family_of(model, ndim).least
    near = np.sort(misses[tried])[spent:]
    if not len(near):
        return None
    shares = np.minimum(((2 * near + 1) / (2 * reach + 1)) ** ndim, 1.0)
    counts, total = alone * np.arange(1, len(near) + 1), alone * len(near)
    chances = len(near) * betainc(counts, total - counts + 1, shares)
    row = int(chances.argmin())
    if chances[row] >= BELIEVED:
        return None
    share, agree = shares[row], misses <= near[row]
    false_alarm = np.where(agree, share, 1.0) * found.false_alarm
    outcome = found.outcome.copy()
    known = np.isfinite(found.covariance).all(axis=(1, 2))
    more = agree & known & (false_alarm < BELIEVED) & (outcome == Outcome.NOT_FOUND)
    outcome[more] = Outcome.MATCHED
    return found._replace(false_alarm=false_alarm, outcome=outcome)


def _mapped(way: Transform, points: Floats, *, inverse: bool = False) -> Floats:
    """Move points, those that are nowhere to nowhere."""
    known = np.isfinite(points).all(axis=1)
    moved = np.full(points.shape, np.nan)
    moved[known] = apply_transform(way, points[known], inverse=inverse)
    return moved


@checked
def refine_points(
    reference: ArrayLike,
    moving: ArrayLike,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    model: Model = "affine",
    size: ArrayLike = 64,
    max_shift: ArrayLike = 12.0,
    scale: float = 1.0,
    iterations: int = 2,
    workers: Workers = 1,
) -> PointMatches:
    """Refine pairs of points that were set by hand, across instruments.

    The points tell how to lay the moving image over the reference. Around each
    reference point a window of the structure of both images is matched: which way
    edges run, whatever is bright and dark [1]_, [2]_.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ. Pixels that are not finite
        do not count.
    reference_points, moving_points : array_like of shape (n, ndim)
        Pairs of points that should show the same thing, in pixels. The reference
        points stay where they are.
    model : {"translation", "rigid", "similarity", "affine", "projective", \
"polynomial"}, optional
        What the transform may do by which the images are laid over each other, as in
        `estimate_transform`.
    size : int or array_like of shape (ndim,), optional
        Side of the windows, in pixels of the reference.
    max_shift : float or array_like of shape (ndim,), optional
        How far a moving point may be wrong along each axis, in pixels of the
        reference.
    scale : float, optional
        Width of the edges that are looked for, in pixels of the coarser image; at least
        2 if both images are masks or labels, whose edges jump from pixel to pixel.
    iterations : int, optional
        How often images are laid over each other: first by the given points, then by
        those that were found.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. Results do not
        depend on it.

    Returns
    -------
    PointMatches
        The reference points and the refined moving points. A pair that fails comes
        back as it was given, with an infinite covariance, which `estimate_transform`
        takes. Covariances are in px^2 of the reference.

    See Also
    --------
    refine_pair : For two images of the same kind.
    find_control_points : Needs no points.
    estimate_transform : Takes the points and their covariances.

    Notes
    -----
    Covariances come from how the pixels of the two structures disagree, so that what
    one instrument does not show counts as noise. Believed pairs that contradict the
    model of the others are refused.

    References
    ----------
    .. [1] Bigun & Granlund (1987). Optimal orientation detection of linear symmetry.
       Proc. ICCV, 433.
    .. [2] Haber & Modersitzki (2006). Intensity gradient based registration and
       fusion of multi-modal images. :doi:`10.1007/11866763_89`

    Examples
    --------
    Two images of one scene, one of which is a negative with another contrast, moved by
    (7, -4) px; points that were set to about 3 px:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((220, 220), rng=1)
    >>> reference, moving = scene[:200, 10:210], np.exp(-scene[7:207, 6:206])
    >>> points = np.array([(60, 60), (60, 140), (140, 60), (140, 140)])
    >>> clicks = points - (7, -4) + [(2, -3), (-3, 1), (1, 3), (0, -2)]
    >>> found = spt.refine_points(reference, moving, points, clicks)
    >>> bool(np.abs(points - found.moving_points - (7, -4)).max() < 0.2)
    True
    """
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    points = as_points(reference_points, "reference_points", ndim=ndim)
    given = as_points(moving_points, "moving_points", ndim=ndim)
    farthest = np.abs(np.concatenate([points, given])).max(initial=0)
    if farthest > FAR:
        message = f"`reference_points` must lie in images; got one at {farthest:g}."
        raise ValueError(message)
    check_same_shape(reference_points=points, moving_points=given)
    sides = _as_sides(size, images[0].shape)
    reach = as_shift(max_shift, ndim, "max_shift")
    check_not_negative(float(reach.min()), "max_shift")
    _check_length(float(reach.max()) or 1.0, "max_shift", images[0].shape)
    _check_length(scale, "scale", images[0].shape)
    check_count(iterations, "iterations")

    def seen(way: Transform) -> WindowMatches:
        structures = structures_on_reference(images, way, scale)
        return match_around(structures, way, points, given, sides, reach, workers)

    found, last = _first_matches(points, given, model, seen), np.inf
    for _ in range(iterations - 1):
        better = consensus_transform(found, model, BELIEVED)
        if better is None:
            break
        before, found = found, seen(better)
        change = np.abs(found.moving - before.moving).max(initial=0)
        # Nothing is gained where points no longer come closer to where they stay.
        if change >= last or change == 0:
            break
        last = change
    return _point_matches(found, given, model)


def _first_matches(
    points: Floats,
    given: Floats,
    model: Model,
    seen: Callable[[Transform], WindowMatches],
) -> WindowMatches:
    """Match windows under the transform that given points tell.

    A few points cannot tell which of them is wrong, and are all laid wrong by it. Those
    of a simpler transform, which has fewer unknowns, may then be found by more windows:
    it has only to turn and scale what is around each point.
    """
    found = seen(estimate_transform(points, given, model=model))
    believed = found.outcome == Outcome.MATCHED
    if len(points) >= JUDGES or believed.all() or model in SIMPLE:
        return found
    other = seen(estimate_transform(points, given, model="similarity"))
    more = (other.outcome == Outcome.MATCHED).sum() > believed.sum()
    return other if more else found


@checked
def find_control_points(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    matrix: ArrayLike | TransformEstimate | None = None,
    model: Model = "affine",
    size: ArrayLike = 64,
    max_shift: float | None = None,
    scale: float = 1.0,
    workers: Workers = 1,
) -> PointMatches:
    """Find points that two instruments both see, on a grid.

    Small copies of the images are matched first, and finer ones as long as they still
    show common structure. The grid, and its windows, are as fine as the finest of them.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols)
        Images, of any real dtype; the shapes may differ. Pixels that are not finite
        do not count.
    matrix : array_like of shape (ndim + 1, ndim + 1) or TransformEstimate, optional
        Rough transform from the moving image to the reference; by default the middles
        of the images are laid over each other.
    model : {"translation", "rigid", "similarity", "affine", "projective", \
"polynomial"}, optional
        What the transform may do that leads from copy to copy, as in
        `estimate_transform`.
    size : int or array_like of shape (ndim,), optional
        Side of the windows, in pixels of each copy.
    max_shift : float, optional
        How far the rough transform may be wrong along each axis, in pixels of the
        reference; by default an eighth of its longest side.
    scale : float, optional
        Width of the edges that are looked for, in pixels of each copy.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. Results do not
        depend on it.

    Returns
    -------
    PointMatches
        Pairs of points, and how far each can be trusted. A pair that was not found has
        an infinite covariance.

    See Also
    --------
    estimate_transform : Takes the points and their covariances, for one transform.
    fit_displacement : Takes them for a field that bends.
    match_orientation : Finds a rough transform where images are turned much.

    Examples
    --------
    An image, and its negative, turned by 3 degrees:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((256, 256), rng=2)
    >>> truth = spt.rotation(np.deg2rad(3), center=(128, 120))
    >>> moving = spt.warp_image(-scene, np.linalg.inv(truth), order=3)
    >>> points = spt.find_control_points(scene, moving)
    >>> found = spt.estimate_transform(
    ...     points.reference_points,
    ...     points.moving_points,
    ...     model="rigid",
    ...     covariance=points.covariance,
    ... )
    >>> bool(np.abs(found.matrix - truth).max() < 0.05)
    True
    """
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    check_same_ndim(reference=images[0], moving=images[1])
    ndim = images[0].ndim
    sides = _as_sides(size, images[0].shape)
    if max_shift is None:
        max_shift = max(images[0].shape) / 8
    _check_length(max_shift, "max_shift", images[0].shape)
    _check_length(scale, "scale", images[0].shape)
    way: Transform
    if matrix is None:
        middles = [(np.array(image.shape) - 1) / 2 for image in images]
        way = translation(middles[0] - middles[1])
    elif isinstance(matrix, TransformEstimate):
        way = matrix
    else:
        way = as_affine(matrix, "matrix", ndim=ndim)

    room = float((np.array(images[0].shape) / sides)[-2:].min())
    deepest = int(math.log2(max(room / FEWEST, 1)))
    level = min(max(math.ceil(math.log2(max_shift / REACH)), 0), deepest)
    reach, kept, sure = max_shift / 2**level, list[WindowMatches](), False
    simple: Model = model
    if level and model not in SIMPLE:
        simple = "similarity"
    while level >= 0:
        found = match_on_grid(images, way, level, sides, reach, scale, workers)
        kept = kept or [found]
        fit = consensus_transform(found, simple, 1.0)
        if fit is None:
            break
        # Small copies may show too little, and yet lead the way.
        together = a_contrario_support(found, fit, simple, reach, level)
        if together is not None:
            believed = int((together.outcome == Outcome.MATCHED).sum())
            if sure and believed < max(WORTH * len(together.outcome), JUDGES):
                break
            kept, sure = [together], True
        elif sure:
            break
        way, reach, simple = fit, FINER_REACH, model
        level -= 1
    return _point_matches(kept[0], kept[0].start, model)


def _check_length(value: float, name: str, shape: tuple[int, ...]) -> None:
    check_positive(value, name)
    if value > max(shape):
        message = (
            f"`{name}` must be at most {max(shape)} pixels, the longest side of "
            f"`reference`; got {value:g}."
        )
        raise ValueError(message)


def _as_sides(size: ArrayLike, shape: tuple[int, ...]) -> Ints:
    # About any pixel of an image, a window of twice its size shows all of it.
    sides = np.minimum(as_shift(size, len(shape), "size"), 2 * max(shape))
    if (sides < SHORTEST).any():
        message = f"`size` must be at least {SHORTEST} pixels; got {sides.min():g}."
        raise ValueError(message)
    return np.rint(sides).astype(np.intp)


def _point_matches(found: WindowMatches, given: Floats, model: Model) -> PointMatches:
    """Return what was found, without what contradicts the others."""
    outcome = found.outcome.copy()
    believed = np.flatnonzero(outcome == Outcome.MATCHED)
    if len(believed) >= JUDGES:
        fit = estimate_transform(
            found.points[believed], found.moving[believed], model=model
        )
        outcome[believed[~fit.inlier]] = Outcome.CONTRADICTED
    kept = np.asarray(outcome == Outcome.MATCHED)
    return PointMatches(
        reference_points=found.points.copy(),
        moving_points=np.where(kept[:, np.newaxis], found.moving, given),
        covariance=np.where(kept[:, np.newaxis, np.newaxis], found.covariance, np.inf),
        correlation=found.correlation,
        false_alarm=np.where(kept, found.false_alarm, 1.0),
        outcome=outcome,
        steps=np.where(kept, 1, 0),
    )

"""Windows of two instruments, matched one by one and judged together."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from .._rendering.warp import warp_image
from .._shared.arrays import Floats, Ints
from .._shared.outcomes import Outcome
from .._shared.workers import Workers, spread
from .._transforms.estimate_transform import estimate_transform
from .._transforms.map_fit import Model, family_of
from .._transforms.matrices import apply_transform
from .._transforms.point_maps import TransformEstimate
from .structure_match import (
    BELIEVED,
    Lattice,
    StructureMatch,
    lattice_of,
    match_structures,
    no_match,
)
from .structure_tensor import FINEST, Structure, structure_of
from .window_grid import halved

__all__ = [
    "Seen",
    "Transform",
    "agreed",
    "laid_over",
    "seen_around",
    "seen_on_grid",
    "supported",
]

Transform = Floats | TransformEstimate
Images = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
Sheets = tuple[Structure, Structure]

# Brightness beyond so many times the spread of an image does not count more.
OUTMOST = 20.0
# Images of up to so many levels, masks and labels, have edges that jump from pixel to
# pixel: where two of them meet, edges are looked for that are at least so many pixels
# wide. Finer ones agree best at whole pixels, which is no noise, and hidden from bars.
LEVELS, JUMPY = 16, 2.0
# Pixels that tell most images of more levels at once.
SAMPLE = 4096
# No window of a small copy is larger than this share of it.
WIDEST = 0.55
# Windows lie this much of their side apart: those of small copies are few, and lie closer.
APART, CLOSER = 0.5, 0.25
# Windows this much of their side apart tell things that are independent.
ALONE = 0.6


class Seen(NamedTuple):
    """Points of the reference, and where each is seen in the moving image."""

    points: Floats
    start: Floats
    moving: Floats
    covariance: Floats
    correlation: Floats
    false_alarm: Floats
    outcome: NDArray[np.object_]


def laid_over(images: Images, way: Transform, scale: float, level: int = 0) -> Sheets:
    """Return the structure of both images on the pixels of the reference."""
    reference, moving = map(_evened, images)
    matrix = way.matrix if isinstance(way, TransformEstimate) else way
    larger = abs(float(np.linalg.det(matrix[:-1, :-1]))) ** (1 / reference.ndim)
    laid = warp_image(
        moving, way, shape=reference.shape, order=3, fill_value=np.nan, dtype=np.float32
    )
    # A small image has no finer edges for being shown large.
    coarser = max(1.0, larger / 2**level)
    jumpy = JUMPY / 2**level if all(map(_has_few_levels, images)) else 0.0
    first, second = (
        structure_of(small, max(scale * coarser, jumpy))
        for small in halved((reference, laid), level)
    )
    finest = min(first.finest, FINEST / coarser)
    return first._replace(finest=finest), second._replace(finest=finest)


def _has_few_levels(image: NDArray[np.floating[Any]]) -> bool:
    """Tell whether an image has only a few values, as masks and labels have."""
    step = max(image.size // SAMPLE, 1)
    few = np.unique(image.ravel()[::step]).size <= LEVELS
    return bool(few and np.unique(image[np.isfinite(image)]).size <= LEVELS)


def _evened(image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
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


def seen_around(
    sheets: Sheets,
    way: Transform,
    points: Floats,
    start: Floats,
    sides: Ints,
    reach: Floats,
    workers: Workers,
    level: int = 0,
) -> Seen:
    """Match windows around points of the reference with those around moving points."""
    ndim, step = points.shape[1], 2.0**level
    pairs = np.zeros((len(points), 2, 3))
    pairs[:, 0, 3 - ndim :] = points
    pairs[:, 1, 3 - ndim :] = _moved(way, start)
    pairs[..., 3 - ndim :] = (pairs[..., 3 - ndim :] + 0.5) / step - 0.5
    ahead = [1] * (3 - ndim)
    job = partial(
        _match,
        sheets,
        lattice_of(np.array([*ahead, *sides]), min(sheets[0].finest, sheets[1].finest)),
        np.array([*[0.0] * len(ahead), *reach]),
    )
    matches = list(spread(job, list(pairs), workers=workers))
    shifts = np.array([match.shift for match in matches]).reshape(-1, 3)
    there = pairs[:, 1, 3 - ndim :] + shifts[:, 3 - ndim :]
    covariance = [match.covariance[3 - ndim :, 3 - ndim :] for match in matches]
    return Seen(
        points=points,
        start=start,
        moving=_moved(way, (there + 0.5) * step - 0.5, inverse=True),
        covariance=np.reshape(covariance, (-1, ndim, ndim)) * step**2,
        correlation=np.array([match.correlation for match in matches]),
        false_alarm=np.array([match.false_alarm for match in matches]),
        outcome=np.array([match.outcome for match in matches], object),
    )


def _match(
    sheets: Sheets, lattice: Lattice, reach: Floats, points: Floats
) -> StructureMatch:
    if not np.isfinite(points).all():
        return no_match(Outcome.NOT_FOUND)
    return match_structures(sheets, lattice, reach, points)


def seen_on_grid(
    images: Images,
    way: Transform,
    level: int,
    sides: Ints,
    reach: float,
    scale: float,
    workers: Workers,
) -> Seen:
    """Match windows on a grid of small copies of two images."""
    sheets = laid_over(images, way, scale, level)
    ahead = 3 - images[0].ndim
    shape = np.array(sheets[0].weight.shape[ahead:])
    widest = shape if level == 0 else np.rint(WIDEST * shape).astype(np.intp)
    sides, apart = np.minimum(sides, widest), CLOSER if level else APART
    axes = []
    for size, side in zip(shape.tolist(), sides.tolist(), strict=True):
        count = 1 + math.ceil(max(size - side, 0) / (apart * side))
        axes.append(np.linspace((side - 1) / 2, size - 1 - (side - 1) / 2, count))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    points = (grid + 0.5) * 2**level - 0.5
    start = _moved(way, points, inverse=True)
    far = np.full(len(axes), reach)
    return seen_around(sheets, way, points, start, sides, far, workers, level)


def agreed(found: Seen, model: Model, doubt: float) -> TransformEstimate | None:
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


def supported(
    found: Seen, fit: TransformEstimate, model: Model, reach: float, level: int
) -> Seen | None:
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
    misses = np.abs(_moved(fit, found.moving) - found.points).max(axis=1) / step
    misses[~tried] = np.inf
    alone = min(((CLOSER if level else APART) / ALONE) ** ndim, 1.0)
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


def _moved(way: Transform, points: Floats, *, inverse: bool = False) -> Floats:
    """Move points, those that are nowhere to nowhere."""
    known = np.isfinite(points).all(axis=1)
    moved = np.full(points.shape, np.nan)
    moved[known] = apply_transform(way, points[known], inverse=inverse)
    return moved

"""Tell where a picture looks like itself moved, so that shifts cannot be told."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..._matching.phase_correlate import ShiftEstimate
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.fft import fast_shape, forward, inverse
from ..._shared.results import Outcome
from ..._spectral.peaks import local_maxima
from .frame_noise import Noise, radial_frequencies
from .image_fit import RingWeights, filter_image, ring_weights
from .mean_image import MeanCanvas, under_frame
from .template_search import Bounds

__all__ = ["ShiftAmbiguity", "find_ambiguity", "flag_ambiguity"]


# Another place counts from so many pixels on; along an edge so many are tried.
APART, ALONG = 3, 8.0
# A right shift is to be likelier than another by this much (natural logarithm), so that
# noise makes that one the better with a chance of less than 1e-3.
TOLD = 19.0
# Noise of the picture itself hides what differs by less than so many of its standard
# deviations, and this share of it, to which it is known.
SWAYED, HIDDEN = 3.0, 0.15
# Places that keep this share of the likeness are looked at, the best of them.
ALIKE, MOST = 0.5, 8
# On the way to another place these shares of it are looked at; periods have few parts.
BETWEEN = 0.29, 0.43, 0.62
# Whole pixels lead to a place in so many steps; what others tell this much better than
# it is left as it is.
STEPS, SLIGHT = 3, 0.02
# Scenes of fewer modes than these have few hills. Noise of radii above this, in cycles
# per pixel, has none; what is left is more than noise from this share of it on. Where it
# is explained by this many squared pixels, shifts are not told.
HILLS, FINE, RED, FAR = 64.0, 0.25, 0.5, 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoarseScene:
    """What a scene of few hills is told by, in grey values squared."""

    power: float  # of the scene
    slope: float  # of its slopes along an axis, by squared pixel
    white: float  # of noise that has no hills


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftAmbiguity:
    """Whether frames at a place may as well lie elsewhere."""

    place: Floats  # (3,) the shift of these frames
    found: bool
    spread: Floats  # (3, 3) variance that it adds to a shift, where nothing bounds it
    smooth: CoarseScene | None  # where the scene has few hills


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimilarityScene:
    """A picture and the filtered one, and what frames see of it at a place."""

    pixels: Volume
    filtered: Volume
    there: Volume  # 1 where the picture is known
    origin: Ints
    place: Floats
    shape: tuple[int, ...]  # of a frame
    canvas: MeanCanvas | None  # of which the picture is the mean; None if it is none
    part: float  # how many times the noise of a frame it has then
    hidden: float  # what the noise of a frame in the picture tells, by pixel of a frame
    scatter: float  # how much that varies, by frame


def flag_ambiguity(
    estimate: ShiftEstimate, places: list[ShiftAmbiguity]
) -> ShiftEstimate:
    """Return an estimate that says if its frame may as well lie elsewhere."""
    if not places:
        return estimate
    away = [float(np.abs(each.place - estimate.shift).max()) for each in places]
    near = places[int(np.argmin(away))]
    if estimate.outcome not in (Outcome.MATCHED, Outcome.AMBIGUOUS):
        return estimate
    added = 0.0 if near.smooth is None else _misfit_variance(estimate, near.smooth)
    covariance = estimate.covariance + near.spread
    active = np.diag(covariance) > 0
    covariance[active, active] += added
    doubtful = near.found or added > FAR
    outcome = Outcome.AMBIGUOUS if doubtful else estimate.outcome
    return replace(estimate, outcome=outcome, covariance=covariance)


def _misfit_variance(estimate: ShiftEstimate, smooth: CoarseScene) -> float:
    """Return the variance of a shift that explains what a scene of few hills does not.

    A frame that lies wrong differs by hills, and noise does not; so may a frame that
    shows something else, but few hills do not tell one from the other.
    """
    square = max(estimate.correlation**2, 1e-12)
    rest = smooth.power * (1 - square) / square - smooth.white
    return rest / smooth.slope if rest > RED * smooth.white else 0.0


def _coarse_scene(
    seen: Volume, rings: RingWeights, noise: Noise, part: float
) -> CoarseScene | None:
    """Return what tells a smooth scene; None if it shows enough to be told by it."""
    count, power = rings.count, rings.power
    modes = 2 * float((count * power).sum() ** 2 / ((count * power**2).sum() + 1e-30))
    axes = [axis for axis, n in enumerate(seen.shape) if axis and n > 1]
    slope = np.mean([np.square(np.gradient(seen, axis=axis)).mean() for axis in axes])
    if modes > HILLS or not slope > 0:
        return None
    white = (1 + part) * float(np.median(noise.power[rings.radius > FINE]))
    return CoarseScene(power=float(seen.var()), slope=float(slope), white=white)


def find_ambiguity(
    picture: tuple[Volume, Flags | None, Ints],
    noise: Noise,
    canvas: MeanCanvas | None,
    place: Floats,
    shape: tuple[int, ...],
    bounds: Bounds,
    part: float = 1.0,
) -> ShiftAmbiguity:
    """Tell whether a frame at a place could be taken for one elsewhere within bounds.

    The picture comes with where it is known and its origin. It is the mean on a canvas of
    frames of a shape (channels, planes, rows, cols), or has a `part` of the noise of one.
    """
    # Strategy: a frame that is the picture at 0 and noise is likelier there than at d by
    # half of the squared difference of the picture and itself moved by d, over the
    # noise. The same holds with the weights of a fit, less what the noise of
    # the picture makes of it. A map by transforms tells which d to look at.
    pixels, known, origin = picture
    place = np.rint(place)
    seen, inside = under_frame(pixels, origin, place, shape)
    part = part if canvas is None else min(canvas.share_at(place), 1.0)
    rings = ring_weights(seen, noise, part)
    # What a frame of noise is told by, at each mode, in units of that.
    grid = radial_frequencies(shape[1:])
    noisy = np.interp(grid, rings.radius, rings.weight * rings.level)
    hidden, scatter = float(noisy.mean()), float(np.square(noisy).mean())
    total = math.prod(shape)
    there = np.ones(pixels.shape[1:], np.float32) if known is None else known
    scene = SimilarityScene(
        pixels=pixels,
        filtered=filter_image(pixels, rings),
        there=there.astype(np.float32)[None],
        origin=origin,
        place=place,
        shape=shape,
        canvas=canvas,
        part=part,
        hidden=hidden,
        scatter=math.sqrt(2 * total * scatter),
    )
    nothing = ShiftAmbiguity(
        place=place,
        found=False,
        spread=np.zeros((3, 3)),
        smooth=_coarse_scene(seen, rings, noise, part),
    )
    reach = bounds.high - bounds.low
    far = np.minimum(reach, np.array(shape[1:]) // 2)
    if (
        not (inside.any() and np.isfinite(seen).all())
        or (far <= APART).all()
        or not rings.weight.any()
    ):
        return nothing
    for step in _candidate_steps(scene, far):
        where, surplus = _told_apart(scene, step)
        if surplus > 0 or np.abs(where).max() < APART:
            continue
        # Where it is no better in between, nothing tells how far.
        endless = all(_alike_at(scene, part * where) for part in BETWEEN)
        spread = _unbounded_variance(where, bounds.high) if endless else nothing.spread
        return replace(nothing, found=True, spread=spread)
    return nothing


def _alike_at(scene: SimilarityScene, step: Floats) -> bool:
    """Return whether the picture is like itself a step on, or a little beside that."""
    way = step / np.linalg.norm(step)
    where, surplus = _told_apart(scene, step, np.eye(3) - np.outer(way, way))
    # Noise of few pixels agrees less well here than at the best place along the way.
    return surplus < _evidence_needed(scene, where)


def _noise_share(scene: SimilarityScene, place: Floats) -> float:
    """Return the share of the noise of a frame that a picture holds under a frame."""
    return (
        scene.part if scene.canvas is None else min(scene.canvas.share_at(place), 1.0)
    )


def _scene_under(scene: SimilarityScene, place: Floats) -> tuple[Volume, Volume, Flags]:
    """Return the picture, the filtered one, and where it is known, under a frame."""
    plain, there = under_frame(scene.pixels, scene.origin, place, scene.shape)
    filtered, _ = under_frame(scene.filtered, scene.origin, place, scene.shape)
    if not scene.there.all():
        flat = (1, *scene.shape[1:])
        sure = under_frame(scene.there, scene.origin, np.rint(place), flat)[0][0]
        there = there & (sure > 0.5)
    return plain, filtered, there


def _candidate_steps(scene: SimilarityScene, far: Ints) -> list[Floats]:
    """Return whole steps at which the picture looks like itself, best first."""
    plain, filtered, there = _scene_under(scene, scene.place)
    sizes = np.array(scene.shape[1:])
    shape = fast_shape(tuple((sizes + far).tolist()))
    ends = [(0, m - n) for m, n in zip(shape, sizes, strict=True)]
    mask = np.pad(there.astype(np.float32), ends)
    marks = forward(mask)
    unlike = np.zeros_like(marks)
    level = 0.0
    for pair in zip(plain, filtered, strict=True):
        one, two = (np.where(there, each - each[there].mean(), 0) for each in pair)
        both = forward(np.pad(one * two, ends))
        cross = forward(np.pad(one, ends)) * np.conj(forward(np.pad(two, ends)))
        unlike += (both * np.conj(marks)).real - cross.real
        level += float((one * two).sum(dtype=float)) / there.sum()
    lags = [np.arange(-n, n + 1) for n in far]
    box = np.ix_(*lags)
    count = inverse(marks * np.conj(marks), shape)[box]
    told = inverse(unlike, shape)[box] / np.maximum(count, 1)
    # By pixel of a frame, of what is no noise.
    hidden = scene.hidden * _noise_share(scene, scene.place)
    whole = max(level - hidden, 1e-30)
    alike = (1 - (told - hidden) / whole).astype(np.float32)
    where, height = local_maxima(np.ascontiguousarray(alike), ALIKE)
    steps = np.stack(np.unravel_index(where, alike.shape), axis=1) - far
    apart = np.abs(steps).max(axis=1) > APART
    # A step and its opposite are one.
    apart &= (steps @ np.array([1e6, 1e3, 1.0])) > 0
    order = np.argsort(-height[apart], kind="stable")[:MOST]
    best = [
        *_along_edge(scene, plain, filtered, far),
        *steps[apart][order].astype(float),
    ]
    marked = [tuple(np.rint(step).astype(int) + far) for step in best]
    return [step for step, lag in zip(best, marked, strict=True) if alike[lag] > ALIKE]


def _along_edge(
    scene: SimilarityScene, plain: Volume, filtered: Volume, far: Ints
) -> list[Floats]:
    """Return steps along the direction in which the picture changes least."""
    tensor = _structure_tensor(plain, filtered)
    active = np.flatnonzero(np.array(scene.shape[1:]) > 1)
    way = np.zeros(3)
    way[active] = np.linalg.eigh(tensor[np.ix_(active, active)])[1][:, 0]
    longest = np.min(far[way != 0] / np.abs(way[way != 0]))
    long = min(ALONG, float(longest))
    return [long * way] if long > APART else []


def _structure_tensor(plain: Volume, filtered: Volume) -> Floats:
    """Return the mean products of the slopes of two pictures."""
    tensor = np.zeros((3, 3))
    axes = [axis for axis, n in enumerate(plain.shape[1:]) if n > 1]
    for one, two in zip(plain, filtered, strict=True):
        a, b = ({i: np.gradient(each, axis=i) for i in axes} for each in (one, two))
        for i in axes:
            for j in axes:
                tensor[i, j] += float((a[i] * b[j]).mean())
    return (tensor + tensor.T) / 2


def _told_apart(
    scene: SimilarityScene, step: Floats, ways: Floats | None = None
) -> tuple[Floats, float]:
    """Return the step, near one, at which a picture is most like itself.

    Its surplus comes with it: how much more than what has to be tells it apart. Only
    some `ways` are gone if a projection on them is given.
    """
    plain, filtered, here = _scene_under(scene, scene.place)
    axes = [axis for axis, n in enumerate(scene.shape[1:]) if n > 1]
    best = step, math.inf
    for _ in range(STEPS + 1):
        one, two, there = _scene_under(scene, scene.place + step)
        there &= here
        if not there.any():
            break
        a, b = (first - second for first, second in ((one, plain), (two, filtered)))
        a, b = (
            each - each[:, there].mean(axis=1)[:, None, None, None] for each in (a, b)
        )
        a[:, ~there] = 0
        told = float((a * b).sum(dtype=float)) / (2 * there.sum())
        surplus = math.prod(scene.shape[1:]) * told - _evidence_needed(scene, step)
        if surplus < best[1]:
            best = step, surplus
        slopes = {i: np.gradient(two, axis=i + 1) for i in axes}
        push = np.zeros(3)
        for i in axes:
            push[i] = float((slopes[i] * a).sum(dtype=float)) / there.sum()
        back = (
            np.linalg.pinv(_structure_tensor(one, two), rcond=SLIGHT, hermitian=True)
            @ push
        )
        back = back if ways is None else ways @ back
        step = step - back / max(1.0, float(np.abs(back).max()))
    return best


def _evidence_needed(scene: SimilarityScene, step: Floats) -> float:
    """Return how much has to tell a picture from itself moved by a step."""
    ends = _noise_share(scene, scene.place), _noise_share(scene, scene.place + step)
    part = sum(ends) / 2
    noise = part * scene.hidden * math.prod(scene.shape)
    return TOLD + SWAYED * part * scene.scatter + (1 + HIDDEN) * noise


def _unbounded_variance(step: Floats, far: Ints) -> Floats:
    """Return the variance of a shift that is anything up to so `far` along a way."""
    way = step / np.linalg.norm(step)
    long = np.min(np.maximum(far, 1)[way != 0] / np.abs(way[way != 0]))
    return np.outer(way, way) * float(long) ** 2 / 3

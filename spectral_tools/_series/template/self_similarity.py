"""Tell where an image looks like itself moved, so that shifts are ambiguous."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..._matching.local_agreement import LOOKS_ALIKE
from ..._matching.phase_correlate import ShiftEstimate
from ..._matching.shift_fit import NEWTON_STEPS
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.fft import fast_shape, forward, inverse
from ..._shared.results import Outcome
from ..._spectral.peaks import local_maxima
from .image_fit import (
    SHOWN,
    RingWeights,
    effective_number,
    filter_image,
    ring_weights,
)
from .mean_image import COARSE, RED, MeanCanvas, Noise, PlacedImage, radial_frequencies
from .template_search import Bounds

__all__ = ["ShiftAmbiguity", "find_ambiguity", "flag_ambiguity"]


# Pixels from which on another place is another one
# (test_periods_of_a_noisy_lattice_are_not_told).
NEAREST = 3
# Pixels along an edge at which its likeness is looked at
# (test_shifts_along_an_edge_are_not_known).
ALONG = 8.0
# Natural logarithm of how much likelier the right shift is than another one, so that noise
# makes that the better with a chance of less than 1e-3
# (test_a_defect_tells_the_periods_of_a_lattice).
EVIDENCE = 19.0
# Shares of the way to another place that are looked at, which periods have few of
# (test_stripes_are_ambiguous_for_any_reference).
BETWEEN = 0.29, 0.43, 0.62
# Share of the steepest direction below which another one is left as it is
# (test_shifts_along_an_edge_are_not_known).
SLIGHT = 0.02
# Modes below which a scene has few hills (test_very_few_hills_do_not_mislead).
HILLS = 64.0
# Variance of a shift, in squared pixels, from which it is ambiguous
# (test_very_few_hills_do_not_mislead).
FAR = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoarseScene:
    """Powers of a scene of few hills and of noise, in grey values squared."""

    power: float  # of the scene
    slope: float  # of its slopes along an axis, by squared pixel
    white: float  # of noise without coarse detail


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftAmbiguity:
    """Whether frames at a place may as well lie elsewhere."""

    place: Floats  # (3,) the shift of these frames
    found: bool
    spread: Floats  # (3, 3) variance that it adds to a shift, where nothing bounds it
    coarse: CoarseScene | None  # where the scene has few hills


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimilarityScene:
    """An image and the filtered one, and what frames see of it at a place."""

    image: PlacedImage
    filtered: Volume
    place: Floats
    shape: tuple[int, ...]  # of a frame
    canvas: MeanCanvas | None  # of which the image is the mean; None if it is none
    ratio: float  # of the variance of its noise to that of a frame then
    noise: float  # weighted power of the noise of a frame, by pixel
    scatter: float  # standard deviation of its sum over a frame

    def noise_share(self, place: Floats) -> float:
        """Return the share of the noise of a frame that the image holds under a frame."""
        return _noise_share(self.canvas, place, self.ratio)


class SceneView(NamedTuple):
    """The image and the filtered one under a frame, and where both are known."""

    plain: Volume
    filtered: Volume
    known: Flags


def _noise_share(canvas: MeanCanvas | None, place: Floats, ratio: float) -> float:
    return ratio if canvas is None else min(canvas.share_at(place), 1.0)


def flag_ambiguity(
    estimate: ShiftEstimate, places: list[ShiftAmbiguity]
) -> ShiftEstimate:
    """Return an estimate that says if its frame may as well lie elsewhere."""
    if not places or estimate.outcome not in (Outcome.MATCHED, Outcome.AMBIGUOUS):
        return estimate
    away = [float(np.abs(each.place - estimate.shift).max()) for each in places]
    near = places[int(np.argmin(away))]
    added = 0.0 if near.coarse is None else _misfit_variance(estimate, near.coarse)
    covariance = estimate.covariance + near.spread
    active = np.diag(covariance) > 0
    covariance[active, active] += added
    doubtful = near.found or added > FAR
    outcome = Outcome.AMBIGUOUS if doubtful else estimate.outcome
    return replace(estimate, outcome=outcome, covariance=covariance)


def _misfit_variance(estimate: ShiftEstimate, coarse: CoarseScene) -> float:
    """Return the variance of a shift that explains what a scene of few hills does not.

    A frame that lies wrong differs by hills, and noise does not; so may a frame that
    shows something else, but few hills do not tell one from the other.
    """
    square = max(estimate.correlation**2, 1e-12)
    rest = coarse.power * (1 - square) / square - coarse.white
    return rest / coarse.slope if rest > (RED - 1) * coarse.white else 0.0


def _coarse_scene(
    seen: Volume, rings: RingWeights, noise: Noise, ratio: float
) -> CoarseScene | None:
    """Return the powers of a scene of few hills; None if it has more."""
    axes = [axis for axis, n in enumerate(seen.shape) if axis and n > 1]
    slope = np.mean([np.square(np.gradient(seen, axis=axis)).mean() for axis in axes])
    if effective_number(2 * rings.count, rings.power) > HILLS or not slope > 0:
        return None
    white = (1 + ratio) * float(np.median(noise.power[rings.radius > COARSE]))
    return CoarseScene(power=float(seen.var()), slope=float(slope), white=white)


def find_ambiguity(
    image: PlacedImage,
    noise: Noise,
    canvas: MeanCanvas | None,
    place: Floats,
    shape: tuple[int, ...],
    bounds: Bounds,
    ratio: float = 1.0,
) -> ShiftAmbiguity:
    """Tell whether a frame at a place could be taken for one elsewhere within bounds.

    The image is the mean on a canvas of frames of a shape (channels, planes, rows,
    cols), or its noise has `ratio` times the variance of that of a frame.
    """
    # Strategy: a frame that is the image at 0 and noise is likelier there than at d by
    # half of the squared difference of the image and itself moved by d, over the
    # noise. The same holds with the weights of a fit, less what the noise of
    # the image makes of it. A map by transforms tells which d to look at.
    place = np.rint(place)
    seen, inside = under_frame(image.pixels, image.origin, place, shape)
    ratio = _noise_share(canvas, place, ratio)
    rings = ring_weights(seen, noise, ratio)
    nothing = ShiftAmbiguity(
        place=place,
        found=False,
        spread=np.zeros((3, 3)),
        coarse=_coarse_scene(seen, rings, noise, ratio),
    )
    far = np.minimum(bounds.high - bounds.low, np.array(shape[1:]) // 2)
    if (
        not (inside.any() and np.isfinite(seen).all())
        or (far <= NEAREST).all()
        or not rings.weight.any()
    ):
        return nothing
    # The weighted power of the noise of a frame, at each mode.
    grid = radial_frequencies(shape[1:])
    weighed = np.interp(grid, rings.radius, rings.weight * rings.noise)
    scene = SimilarityScene(
        image=image,
        filtered=filter_image(image.pixels, rings),
        place=place,
        shape=shape,
        canvas=canvas,
        ratio=ratio,
        noise=float(weighed.mean()),
        scatter=math.sqrt(2 * math.prod(shape) * float(np.square(weighed).mean())),
    )
    view = _view(scene, place)
    for step in _candidate_steps(scene, view, far):
        where, surplus = _most_alike(scene, view, step)
        if surplus > 0 or np.abs(where).max() < NEAREST:
            continue
        # Where it is no better in between, nothing tells how far.
        endless = all(_alike_at(scene, view, part * where) for part in BETWEEN)
        spread = _unbounded_variance(where, bounds.high) if endless else nothing.spread
        return replace(nothing, found=True, spread=spread)
    return nothing


def _alike_at(scene: SimilarityScene, view: SceneView, step: Floats) -> bool:
    """Return whether the image is like itself a step on, or a little beside that."""
    way = step / np.linalg.norm(step)
    where, surplus = _most_alike(scene, view, step, np.eye(3) - np.outer(way, way))
    # Noise of few pixels agrees less well here than at the best place along the way.
    return surplus < _evidence_needed(scene, where)


def _view(scene: SimilarityScene, place: Floats) -> SceneView:
    """Return what a frame would see of the image and of the filtered one."""
    origin, known = scene.image.origin, scene.image.known
    plain, there = under_frame(scene.image.pixels, origin, place, scene.shape)
    filtered, _ = under_frame(scene.filtered, origin, place, scene.shape)
    if known is not None and not known.all():
        flat, share = (1, *scene.shape[1:]), known.astype(np.float32)[None]
        sure = under_frame(share, origin, np.rint(place), flat)[0][0]
        there = there & (sure > 0.5)
    return SceneView(plain, filtered, there)


def _candidate_steps(
    scene: SimilarityScene, view: SceneView, far: Ints
) -> list[Floats]:
    """Return whole steps at which the image looks like itself, best first."""
    alike = _similarity_map(scene, view, far)
    where, height = local_maxima(np.ascontiguousarray(alike), LOOKS_ALIKE)
    steps = np.stack(np.unravel_index(where, alike.shape), axis=1) - far
    apart = np.abs(steps).max(axis=1) > NEAREST
    # A step and its opposite are one.
    apart &= (steps @ np.array([1e6, 1e3, 1.0])) > 0
    order = np.argsort(-height[apart], kind="stable")
    best = [*_along_edge(scene, view, far), *steps[apart][order].astype(float)]
    marked = [tuple(np.rint(step).astype(int) + far) for step in best]
    return [
        step for step, lag in zip(best, marked, strict=True) if alike[lag] > LOOKS_ALIKE
    ]


def _similarity_map(scene: SimilarityScene, view: SceneView, far: Ints) -> Volume:
    """Return how alike the image is to itself moved, for whole steps up to `far`.

    It is 1 less the mean weighted squared difference, by the masked correlation of
    Padfield (2012, :doi:`10.1109/TIP.2011.2181402`), over the power of the scene.
    """
    sizes, there = np.array(scene.shape[1:]), view.known
    shape = fast_shape(tuple((sizes + far).tolist()))
    ends = [(0, m - n) for m, n in zip(shape, sizes, strict=True)]
    mask = np.pad(there.astype(np.float32), ends)
    marks = forward(mask)
    unlike = np.zeros_like(marks)
    level = 0.0
    for pair in zip(view.plain, view.filtered, strict=True):
        one, two = (np.where(there, each - each[there].mean(), 0) for each in pair)
        both = forward(np.pad(one * two, ends))
        cross = forward(np.pad(one, ends)) * np.conj(forward(np.pad(two, ends)))
        unlike += (both * np.conj(marks)).real - cross.real
        level += float((one * two).sum(dtype=float)) / there.sum()
    lags = [np.arange(-n, n + 1) for n in far]
    box = np.ix_(*lags)
    count = inverse(marks * np.conj(marks), shape)[box]
    square = inverse(unlike, shape)[box] / np.maximum(count, 1)
    # By pixel of a frame, of what is no noise.
    noise = scene.noise * scene.noise_share(scene.place)
    whole = max(level - noise, 1e-30)
    alike: Volume = (1 - (square - noise) / whole).astype(np.float32)
    return alike


def _along_edge(scene: SimilarityScene, view: SceneView, far: Ints) -> list[Floats]:
    """Return steps along the direction in which the image changes least."""
    tensor = _structure_tensor(view)
    active = np.flatnonzero(np.array(scene.shape[1:]) > 1)
    way = np.zeros(3)
    way[active] = np.linalg.eigh(tensor[np.ix_(active, active)])[1][:, 0]
    longest = np.min(far[way != 0] / np.abs(way[way != 0]))
    long = min(ALONG, float(longest))
    return [long * way] if long > NEAREST else []


def _structure_tensor(view: SceneView) -> Floats:
    """Return the mean products of the slopes of an image and of the filtered one."""
    tensor = np.zeros((3, 3))
    axes = [axis for axis, n in enumerate(view.plain.shape[1:]) if n > 1]
    for pair in zip(view.plain, view.filtered, strict=True):
        one, two = ({i: np.gradient(each, axis=i) for i in axes} for each in pair)
        for i in axes:
            for j in axes:
                tensor[i, j] += float((one[i] * two[j]).mean())
    return (tensor + tensor.T) / 2


def _most_alike(
    scene: SimilarityScene, view: SceneView, step: Floats, ways: Floats | None = None
) -> tuple[Floats, float]:
    """Return the step, near one, at which an image is most like itself.

    With it comes by how much the log-likelihood ratio against it is above what is needed.
    Only some `ways` are gone if a projection on them is given.
    """
    axes = [axis for axis, n in enumerate(scene.shape[1:]) if n > 1]
    best = step, math.inf
    for _ in range(NEWTON_STEPS + 1):
        moved = _view(scene, scene.place + step)
        there = moved.known & view.known
        if not there.any():
            break
        plain, filtered = (
            each - each[:, there].mean(axis=1)[:, None, None, None]
            for each in (moved.plain - view.plain, moved.filtered - view.filtered)
        )
        plain[:, ~there] = 0
        ratio = float((plain * filtered).sum(dtype=float)) / (2 * there.sum())
        surplus = math.prod(scene.shape[1:]) * ratio - _evidence_needed(scene, step)
        if surplus < best[1]:
            best = step, surplus
        push = np.zeros(3)
        for i in axes:
            slope = np.gradient(moved.filtered, axis=i + 1)
            push[i] = float((slope * plain).sum(dtype=float)) / there.sum()
        tensor = _structure_tensor(moved)
        back = np.linalg.pinv(tensor, rcond=SLIGHT, hermitian=True) @ push
        back = back if ways is None else ways @ back
        step = step - back / max(1.0, float(np.abs(back).max()))
    return best


def _evidence_needed(scene: SimilarityScene, step: Floats) -> float:
    """Return the log-likelihood ratio that tells an image from itself moved by a step."""
    ends = scene.noise_share(scene.place), scene.noise_share(scene.place + step)
    share = sum(ends) / 2
    noise = share * scene.noise * math.prod(scene.shape)
    return EVIDENCE + SHOWN * share * scene.scatter + noise


def _unbounded_variance(step: Floats, far: Ints) -> Floats:
    """Return the variance of a shift that is anything up to so `far` along a way."""
    way = step / np.linalg.norm(step)
    long = np.min(np.maximum(far, 1)[way != 0] / np.abs(way[way != 0]))
    return np.outer(way, way) * float(long) ** 2 / 3

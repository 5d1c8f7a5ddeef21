"""Groupwise registration: fit frames to the mean of all of them until nothing moves.

Weights of modes are common to all frames, or each frame has those that it shares with the
mean of the others, where that is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..._matching.phase_correlate import BELIEVED, ShiftEstimate, no_match
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Volume
from ..._shared.results import Outcome
from .image_fit import FrameFit, ImageModel, equalize_light, fit_frame, prepare_model
from .mean_image import (
    FrameView,
    MeanCanvas,
    Noise,
    PlacedImage,
    measure_noise,
    views_of,
)
from .template_fit import (
    ASTRAY,
    TYPICAL,
    Reference,
    fit_common_weights,
    fit_own_weights,
    fit_shared_spectrum,
    match_frame,
    prepare_reference,
)
from .template_search import Bounds, known_core

__all__ = [
    "FEW",
    "SETTLED",
    "Calibration",
    "JointAlignment",
    "align_jointly",
    "calibrate_reference",
    "choose_weights",
    "is_matched",
    "matched_numbers",
    "no_alignment",
]


# Largest motion of a frame, in pixels, with which an alignment is at rest
# (test_error_bars_without_noise_are_not_below_what_fits_settle_to).
SETTLED = 5e-4
# The same in standard deviations of its shift (bench_series.py, speed).
SETTLED_SIGMAS = 0.1
# Passes over all frames at most (test_drift_may_go_beyond_half_a_frame).
PASSES = 20
# Frames that the noise is measured with (test_shifts_are_right_to_their_error_bars).
MEASURED = 8
# Share by which noise falls from pass to pass before it is measured no more
# (test_error_is_at_the_bound_of_a_perfect_template).
QUIET = 0.05
# Passes in which lost frames are matched again
# (test_no_frame_stays_a_period_of_a_lattice_away).
RETRIES = 3
# Change of light between frames that is let be, in units of the contrast
# (test_shifts_are_right_to_their_error_bars).
EVEN = 0.02
# Standard deviations from which on a difference is not by chance, for the gain of a frame
# and for its shift by weights of its own (test_shifts_are_right_to_their_error_bars,
# test_groups_of_planes_follow_a_single_frame).
SIGNIFICANT = 5.0
# Frames that tell whose weights are better, or a pattern; the mean of fewer is too much like
# each (test_error_bars_of_few_smooth_frames_hold,
# test_few_frames_under_dust_are_not_believed).
FEW = 4
# Share of the variance that weights of their own must leave to be better
# (test_error_bars_hold_where_a_scene_is_finer_than_its_pixels).
SHARPER = 0.8
# Root mean square difference of both shifts, in standard deviations, from which common
# weights mislead; both share their noise, and differ by half of one where they do well
# (test_error_bars_hold_where_a_scene_is_finer_than_its_pixels).
MISLED = 0.8
# Share of what frames leave unexplained below which an image was made of one
# (test_shifts_lead_to_the_frame_that_was_named).
MADE_OF = 0.1
# Share of the scene below which noise is taken to be that of a frame: small shifts
# change the scene as much (test_frames_without_noise_are_found).
FAINT_NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointAlignment:
    """Some frames that were matched to each other."""

    frames: list[Volume]
    estimates: list[ShiftEstimate]
    canvas: MeanCanvas | None  # None where nothing matched
    noise: Noise | None
    own_weights: bool = False  # whether each frame was weighed by what it shares


class Calibration(NamedTuple):
    """A reference, and what some frames say about noise: theirs, and that of it."""

    reference: Reference
    noise: Noise | None
    ratio: float  # of the variance of the noise of the reference to that of a frame


def is_matched(estimate: ShiftEstimate) -> bool:
    """Return whether a shift is more than chance."""
    return (
        estimate.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS)
        and estimate.false_alarm < BELIEVED
    )


def matched_numbers(estimates: list[ShiftEstimate]) -> list[int]:
    """Return the numbers of frames whose shift is more than chance."""
    return [n for n, each in enumerate(estimates) if is_matched(each)]


def _spread_evenly(count: int, most: int) -> list[int]:
    """Return up to so many of the numbers below a count, from the first to the last."""
    rows: list[int] = np.unique(
        np.linspace(0, count - 1, most).round().astype(int)
    ).tolist()
    return rows


def align_jointly(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    bounds: Bounds,
    known: Flags | None = None,
) -> JointAlignment:
    """Fit each frame to the mean of all, until nothing moves."""
    # Strategy: where all frames agree best with their mean, none has a reason to move.
    # A frame is part of that mean; where it lies now its own part is the same, noise
    # and all, and does not hold it. So it takes one step, and the mean is made again.
    estimates, frames, plain = list(estimates), list(frames), frames
    weight = None if known is None else known.astype(np.float32)
    canvas, noise, quiet = None, None, False
    for turn in range(PASSES):
        there = matched_numbers(estimates)
        if len(there) < 2:
            return no_alignment(plain, estimates)
        canvas = mean_canvas(frames, estimates, there, known)
        if not quiet or noise is None:
            new = _residual_noise(frames, estimates, canvas, known)
            quiet = noise is not None and new.variance > (1 - QUIET) * noise.variance
            noise = new
        model = _mean_model(frames, estimates, canvas, noise, inside=True)
        fits = {
            n: fit_frame(model, frames[n], estimates[n].shift, weight=weight, steps=1)
            for n in there
        }
        moved = _apply_steps(estimates, fits)
        if _equalize_light(frames, fits, known):
            moved += 1
        if turn < RETRIES:
            least = TYPICAL * model.likeness
            odd = [n for n in there if estimates[n].correlation < least]
            odd = odd if 2 * len(odd) < len(there) else []
            moved += _rematch(frames, estimates, canvas, noise, bounds, known, odd)
        if moved < 1 and quiet:
            break
    return JointAlignment(frames=plain, estimates=estimates, canvas=canvas, noise=noise)


def _motion(step: Floats, covariance: Floats) -> float:
    """Return the length of a step, in units of what a frame at rest may move."""
    sigma = math.sqrt(float(np.diag(covariance).max()))
    return float(np.abs(step).max()) / max(SETTLED, SETTLED_SIGMAS * sigma)


def _equalize_light(
    frames: list[Volume], fits: dict[int, FrameFit | None], known: Flags | None
) -> bool:
    """Bring frames to one light, in place, if it changes between them."""
    there = {n: fit for n, fit in fits.items() if fit is not None}
    gains = np.array([fit.gain for fit in there.values()])
    if not there or (gains <= 0).any():
        return False
    significance = np.array([fit.significance for fit in there.values()])
    common = float(np.exp(np.log(gains).mean()))
    # A gain that is mostly noise is left alone.
    sigmas = np.abs(gains / common - 1) * significance
    gains = np.where(sigmas > SIGNIFICANT, gains / common, 1.0)
    middle = np.mean([fit.light for fit in there.values()], axis=0)
    spread = [
        np.abs(fit.light - middle) @ _half_sides(frames[0]) for fit in there.values()
    ]
    far = max(float(np.max(each)) for each in spread)
    if far < EVEN and np.abs(gains - 1).max() < EVEN:
        return False
    for (n, fit), gain in zip(there.items(), gains.tolist(), strict=True):
        lit = replace(fit, gain=gain, light=fit.light - middle)
        frames[n] = equalize_light(frames[n], lit)
        if known is not None:
            frames[n] = np.where(known, frames[n], np.float32(0))
    return True


def _half_sides(frame: Volume) -> Floats:
    """Return how far from its middle a frame reaches, after a 1."""
    return np.r_[1.0, 0.5 * np.array(frame.shape[1:])]


def _apply_steps(
    estimates: list[ShiftEstimate], fits: dict[int, FrameFit | None]
) -> float:
    """Move frames to where they fit, in place, and return the largest motion.

    That all move as one changes nothing.
    """
    done = {n: fit for n, fit in fits.items() if fit is not None}
    steps = [fit.shift - estimates[n].shift for n, fit in done.items()]
    common = np.mean(steps, axis=0) if steps else 0.0
    moved = 0.0
    for (n, fit), step in zip(done.items(), steps, strict=True):
        shift = fit.shift - common
        moved = max(moved, _motion(step - common, fit.covariance))
        estimates[n] = replace(
            estimates[n],
            shift=shift,
            covariance=fit.covariance,
            correlation=fit.correlation,
            alternatives=shift[None],
        )
    return moved


def _rematch(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    noise: Noise,
    bounds: Bounds,
    known: Flags | None,
    odd: list[int],
) -> int:
    """Match frames that are not believed again, in place, and say how many now are.

    So are `odd` ones, which the mean explains less than it should. They may have been
    taken for another place from the start, and hold themselves there.
    """
    lost = [
        n
        for n, each in enumerate(estimates)
        if not is_matched(each) and each.outcome != Outcome.NO_TEXTURE
    ]
    if not lost and not odd:
        return 0
    for n in odd:
        canvas.add(frames[n], estimates[n].shift, known, sign=-1)
    model = _mean_model(frames, estimates, canvas, noise, inside=False)
    there = [n for n in matched_numbers(estimates) if n not in odd]
    shifts = np.array([estimates[n].shift for n in there])
    centres = shifts if bounds.drifts else None
    typical = frames[(lost + odd)[0]]
    reference = prepare_reference(
        canvas.mean(), typical, bounds, model, centres=centres
    )
    changed = 0
    for n in lost + odd:
        near = shifts[np.abs(np.array(there) - n).argmin()]
        found, old = match_frame(reference, frames[n], known, near), estimates[n]
        if n in odd:
            moved = (np.abs(found.shift - old.shift) > ASTRAY).any()
            if not (
                is_matched(found) and moved and found.correlation > old.correlation
            ):
                continue
        estimates[n] = found
        changed += is_matched(found)
    if not changed:
        for n in odd:
            canvas.add(frames[n], estimates[n].shift, known)
    return changed


def _residual_noise(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    known: Flags | None,
) -> Noise:
    """Return what the mean does not explain of some of its frames."""
    there = matched_numbers(estimates)
    some = [there[row] for row in _spread_evenly(len(there), MEASURED)]
    shifts = np.array([estimates[n].shift for n in some])
    chosen = [frames[n] for n in some]
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    views = views_of(canvas.mean(), chosen, shifts)
    return measure_noise(chosen, shifts, views, known, share=share)


def _mean_model(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    noise: Noise,
    *,
    inside: bool,
) -> ImageModel:
    """Prepare the mean of frames for these frames, or for others."""
    shifts = np.array([estimates[n].shift for n in matched_numbers(estimates)])
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    middle = np.abs(shifts - np.median(shifts, axis=0)).max(axis=1).argmin()
    # What a frame shows alone cannot tell where it lies.
    image = canvas.mean(2 if inside else 1)
    return prepare_model(
        image, noise, share, shifts[middle], frames[0].shape[1:], inside=inside
    )


def no_alignment(
    frames: list[Volume], estimates: list[ShiftEstimate]
) -> JointAlignment:
    """Return the outcome of frames that do not match; one alone matches nothing."""
    lost = no_match(3, Outcome.NOT_FOUND)
    return JointAlignment(
        frames=frames,
        estimates=[lost if is_matched(each) else each for each in estimates],
        canvas=None,
        noise=None,
    )


def mean_canvas(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    there: list[int],
    known: Flags | None,
) -> MeanCanvas:
    """Return the mean of some frames where they lie."""
    canvas = MeanCanvas(frames[0].shape)
    for n in there:
        canvas.add(frames[n], estimates[n].shift, known)
    return canvas


def choose_weights(found: JointAlignment, known: Flags | None = None) -> JointAlignment:
    """Fit each frame again to the mean of the others with own weights, if that is better.

    Weights common to all frames are the best where frames differ by noise alone, and
    they are what is kept then. Where a scene flickers, each frame tells for itself
    which frequencies it shares with the rest. Of few frames the mean leaves too little
    to tell their noise by.
    """
    frames, there = found.frames, matched_numbers(found.estimates)
    if found.canvas is None or len(frames[0]) > 1 or len(there) < 2:
        return found
    few = len(there) < FEW
    if not few and not _frames_prefer_own(found, found.canvas, there, known):
        return found
    canvas = mean_canvas(frames, found.estimates, there, known)
    estimates = _align_own_weights(frames, found.estimates, canvas, known)
    if few:
        before, after = (
            [each[n] for n in there] for each in (found.estimates, estimates)
        )
        if not (np.abs(_differences(before, after)) > SIGNIFICANT).any():
            return found
    return replace(found, estimates=estimates, canvas=canvas, own_weights=True)


def _frames_prefer_own(
    found: JointAlignment, canvas: MeanCanvas, there: list[int], known: Flags | None
) -> bool:
    """Return whether some frames are known better by weights of their own."""
    before, after = [], []
    for n in (there[row] for row in _spread_evenly(len(there), FEW)):
        start, frame = found.estimates[n], found.frames[n]
        sums, counts = canvas.sums.copy(), canvas.counts.copy()
        canvas.add(frame, start.shift, known, sign=-1)
        before.append(start)
        after.append(_fit_to_others(canvas, frame, start, len(there), known))
        canvas.sums, canvas.counts = sums, counts
    return _own_better(before, after, _differences(before, after))


def _own_better(
    before: list[ShiftEstimate],
    after: list[ShiftEstimate | None],
    differences: Floats,
) -> bool:
    """Return whether fits with own weights are known to be better than common ones."""
    ratios = [
        math.inf
        if two is None
        else float(np.trace(two.covariance))
        / max(float(np.trace(one.covariance)), 1e-30)
        for one, two in zip(before, after, strict=True)
    ]
    ratio = np.median(ratios)
    if ratio < SHARPER:
        return True
    free = (len(differences) - 1) * int(differences.any(axis=0).sum())
    return bool((differences**2).sum() > MISLED**2 * free)


def _differences(
    one: Sequence[ShiftEstimate], two: Sequence[ShiftEstimate | None]
) -> Floats:
    """Return by how much shifts differ, in standard deviations; none if no two do."""
    pairs = [(a, b) for a, b in zip(one, two, strict=True) if b is not None]
    if not pairs:
        return np.zeros((0, 3))
    step = np.array([b.shift - a.shift for a, b in pairs])
    step -= step.mean(axis=0)
    errors = np.array([np.diag(a.covariance + b.covariance) for a, b in pairs])
    return np.where(errors > 0, step / np.sqrt(np.maximum(errors, 1e-30)), 0.0)


def _align_own_weights(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    known: Flags | None,
) -> list[ShiftEstimate]:
    """Fit each frame to the mean of the others, one by one, until nothing moves."""
    estimates, there = list(estimates), matched_numbers(estimates)
    for _ in range(PASSES):
        moved = 0.0
        for n in there:
            start = estimates[n]
            canvas.add(frames[n], start.shift, known, sign=-1)
            found = _fit_to_others(canvas, frames[n], start, len(there), known) or start
            canvas.add(frames[n], found.shift, known)
            moved = max(moved, _motion(found.shift - start.shift, found.covariance))
            estimates[n] = found
        if moved < 1:
            break
    return estimates


def _fit_to_others(
    canvas: MeanCanvas,
    frame: Volume,
    start: ShiftEstimate,
    count: int,
    known: Flags | None,
) -> ShiftEstimate | None:
    """Fit a frame to the mean of the others; None where nothing is coherent."""
    image = canvas.mean()
    found = fit_shared_spectrum(image, known_core(image), frame, start, known)
    if found is None:
        return None
    # The others hold a frame less than the mean of all.
    part = 1 - 1 / count
    return replace(found, covariance=part**2 * found.covariance)


def calibrate_reference(
    reference: Reference, frames: list[tuple[Volume, Flags | None]]
) -> Calibration:
    """Measure how some frames differ from a reference that is not made of them.

    Frames come with where they count. The reference is prepared for frames like these,
    with common weights or, where that is better, with weights of their own.
    """
    some = [
        (*frames[n], match_frame(reference, *frames[n]))
        for n in _spread_evenly(len(frames), FEW)
    ]
    some = [each for each in some if is_matched(each[2])]
    if not some:
        return Calibration(reference, None, 1.0)
    # A frame that the reference was made of tells nothing of its noise.
    rest = np.array([1 - found.correlation for _, _, found in some])
    least = MADE_OF * np.median(rest)
    some = [each for each, left in zip(some, rest, strict=True) if left >= least]
    volumes = [frame for frame, _, _ in some]
    shifts = np.array([found.shift for _, _, found in some])
    masks = [known for _, known, _ in some if known is not None]
    mask = np.logical_and.reduce(masks) if masks else None
    views = views_of(reference.image, volumes, shifts)
    ratio = _noise_ratio(reference.image, volumes, shifts, views, mask)
    noise = measure_noise(volumes, shifts, views, mask, ratio=ratio)
    size = volumes[0].shape[1:]
    model = prepare_model(reference.image, noise, ratio, shifts[0], size)
    reference = replace(reference, model=model)
    before, after = [], []
    for frame, known, found in some:
        before.append(fit_common_weights(reference, frame, found, 2, known)[0])
        after.append(fit_own_weights(reference, frame, found, known))
    differences = _differences(before, after)
    own = bool((np.abs(differences) > SIGNIFICANT).any())
    own = own or _own_better(before, after, differences)
    return Calibration(replace(reference, own_weights=own), noise, ratio)


def _noise_ratio(
    image: PlacedImage,
    frames: list[Volume],
    shifts: Floats,
    views: list[FrameView],
    known: Flags | None,
) -> float:
    """Return the variance of the noise of an image over that of frames not in it.

    Noise is not shared, so that what frames share with each other and with the image
    is scene, whatever the brightness of each (the three-cornered hat).
    """
    if len(frames) < 2:
        return 1.0
    with_image, own = [], []
    for frame, view in zip(frames, views, strict=True):
        with_image.append(_covariance(frame, view.pixels, view.known, known))
        own.append(_covariance(frame, frame, view.known, known))
    images = [
        _covariance(whole.pixels, whole.pixels, whole.known, known)
        for whole in views_of(image, frames, np.rint(shifts))
    ]
    origin = np.zeros(3, np.intp)
    scenes = []
    for i, frame in enumerate(frames):
        for j in range(i):
            seen, there = under_frame(
                frames[j], origin, shifts[i] - shifts[j], frame.shape
            )
            both = _covariance(frame, seen, there, known)
            if both > 0:
                scenes.append(with_image[i] * with_image[j] / both)
    if not scenes or not min(with_image) > 0 or not np.median(scenes) > 0:
        return 1.0
    scene = float(np.median(scenes))
    gains = np.array(with_image) / scene
    noise = float(np.median(np.array(own) / gains**2)) - scene
    of_image = float(np.mean(images)) - scene
    if max(noise, of_image) < FAINT_NOISE * scene:
        return 1.0
    return max(of_image, 0.0) / max(noise, 1e-3 * scene)


def _covariance(one: Volume, two: Volume, there: Flags, known: Flags | None) -> float:
    """Return the covariance of two volumes where both are known."""
    mask = there if known is None else there & known
    if not mask.any():
        return 0.0
    return float(
        np.mean([np.cov(a[mask], b[mask])[0, 1] for a, b in zip(one, two, strict=True)])
    )

"""Fit frames to the mean of all of them until nothing moves."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..._matching.phase_correlate import BELIEVED, ShiftEstimate, no_match
from ..._shared.arrays import Flags, Floats, Volume
from ..._shared.results import Outcome
from .frame_noise import Noise, measure_noise
from .image_fit import FrameFit, ImageModel, equalize_light, fit_frame, prepare_model
from .mean_image import MeanCanvas
from .template_fit import ALIKE, ASTRAY, match_frame, prepare_reference
from .template_search import Bounds, no_match

__all__ = [
    "SETTLED",
    "SETTLED_SIGMAS",
    "JointAlignment",
    "align_jointly",
    "is_matched",
    "mean_canvas",
    "no_alignment",
]


# The template is made again until no frame moves by more than this, in pixels or in
# its own standard deviations.
SETTLED, SETTLED_SIGMAS = 5e-4, 0.1
PASSES = 20
# Noise is measured, with so many frames, until it falls by less than this share of it;
# then weights stay as they are. Lost frames are tried again in so many passes.
LISTENED, QUIET = 8, 0.05
TRIED = 3
# Light that changes by less than this between frames is let be: in units of the contrast,
# and for a gain, in standard deviations.
EVEN, TOLD = 0.02, 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointAlignment:
    """Some frames that were matched to each other."""

    frames: list[Volume]
    estimates: list[ShiftEstimate]
    canvas: MeanCanvas | None  # None where nothing matched
    noise: Noise | None
    alone: bool = False  # whether frames were weighed one by one


def is_matched(estimate: ShiftEstimate) -> bool:
    """Return whether a shift is more than chance."""
    return (
        estimate.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS)
        and estimate.false_alarm < BELIEVED
    )


def _matched_numbers(estimates: list[ShiftEstimate]) -> list[int]:
    return [n for n, each in enumerate(estimates) if is_matched(each)]


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
        there = _matched_numbers(estimates)
        if len(there) < 2:
            return no_alignment(plain, estimates)
        canvas = mean_canvas(frames, estimates, there, known)
        if not quiet or noise is None:
            new = _residual_noise(frames, estimates, canvas, known)
            quiet = noise is not None and new.variance > (1 - QUIET) * noise.variance
            noise = new
        overlay = _mean_model(frames, estimates, canvas, noise, inside=True)
        fits = {
            n: fit_frame(overlay, frames[n], estimates[n].shift, weight=weight, steps=1)
            for n in there
        }
        moved = _apply_steps(estimates, fits)
        if _equalize_light(frames, fits, known):
            moved += 1
        if turn < TRIED:
            least = ALIKE * overlay.likeness
            odd = [n for n in there if estimates[n].correlation < least]
            odd = odd if 2 * len(odd) < len(there) else []
            moved += _rematch(frames, estimates, canvas, noise, bounds, known, odd)
        if moved < 1 and quiet:
            break
    return JointAlignment(frames=plain, estimates=estimates, canvas=canvas, noise=noise)


def _equalize_light(
    frames: list[Volume], fits: dict[int, FrameFit | None], known: Flags | None
) -> bool:
    """Bring frames to one light, in place, if it changes between them."""
    there = {n: fit for n, fit in fits.items() if fit is not None}
    gains = np.array([fit.gain for fit in there.values()])
    if not there or (gains <= 0).any():
        return False
    sure = np.array([fit.significance for fit in there.values()])
    common = float(np.exp(np.log(gains).mean()))
    # A gain that is mostly noise is left alone.
    told = np.abs(gains / common - 1) * sure
    gains = np.where(told > TOLD, gains / common, 1.0)
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
    """Move frames to where they fit, in place; return the longest step over what matters.

    That all move as one changes nothing.
    """
    steps = {n: f.shift - estimates[n].shift for n, f in fits.items() if f is not None}
    common = np.mean(list(steps.values()), axis=0) if steps else 0.0
    moved = 0.0
    for n, step in steps.items():
        fit = fits[n]
        if fit is None:
            continue
        shift = fit.shift - common
        sigma = math.sqrt(float(np.diag(fit.covariance).max()))
        long = float(np.abs(step - common).max())
        moved = max(moved, long / max(SETTLED, SETTLED_SIGMAS * sigma))
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
    overlay = _mean_model(frames, estimates, canvas, noise, inside=False)
    there = [n for n in _matched_numbers(estimates) if n not in odd]
    shifts = np.array([estimates[n].shift for n in there])
    picture = prepare_reference(
        *canvas.mean(), frames[(lost + odd)[0]], bounds, overlay,
        centres=shifts if bounds.drifts else None,
    )  # fmt: skip
    changed = 0
    for n in lost + odd:
        near = shifts[np.abs(np.array(there) - n).argmin()]
        found, old = match_frame(picture, frames[n], known, near), estimates[n]
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
    there = _matched_numbers(estimates)
    rows = np.unique(np.linspace(0, len(there) - 1, LISTENED).round().astype(int))
    some = [there[row] for row in rows]
    shifts = np.array([estimates[n].shift for n in some])
    pixels, _, origin = canvas.mean()
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    return measure_noise(
        [frames[n] for n in some], shifts, (pixels, origin), share, known
    )


def _mean_model(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    noise: Noise,
    *,
    inside: bool,
) -> ImageModel:
    """Prepare the mean of frames for these frames, or for others."""
    there = _matched_numbers(estimates)
    shifts = np.array([estimates[n].shift for n in there])
    # What a frame shows alone cannot tell where it lies.
    pixels, known, origin = canvas.mean(2 if inside else 1)
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    middle = np.abs(shifts - np.median(shifts, axis=0)).max(axis=1).argmin()
    size = np.array(frames[0].shape[1:])
    return prepare_model(
        pixels, known, origin, noise, share, shifts[middle], size, inside=inside
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

"""Make a template out of frames that move, and tell the camera from it (floor 7)."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ._canvas_mean import MeanCanvas
from ._correlation import BELIEVED, ShiftEstimate
from ._outcomes import Outcome
from ._overlay import (
    Noise,
    Overlay,
    OverlayFit,
    fit_overlay,
    lay_out,
    measure_noise,
)
from ._template_fit import match_frame, prepare_picture
from ._template_search import Bounds, no_match, shrink_factor, shrink_frame
from ._template_split import split_pattern, unexplained

__all__ = ["Sample", "believed", "find_pattern", "grow_template"]

Volume = NDArray[np.float32]
Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Known = NDArray[np.bool_]

# The template is made again until no frame moves by more than this, in pixels or in
# its own standard deviations.
SETTLED, SETTLED_SIGMAS = 5e-4, 0.1
PASSES = 20
# Noise is measured, with so many frames, until it falls by less than this share of it;
# then weights stay as they are. Lost frames are tried again in so many passes.
LISTENED, QUIET = 8, 0.05
TRIED = 3
# A frame to begin with is given up where fewer than this share of the others match.
FOLLOWERS = 0.5
# Frames that stay within so many pixels may be held by the camera.
PINNED = 1.0
# How often the template and the pattern are told apart, one after the other.
ROUNDS = 8
# They are told apart once no shift moves further than this; one step may be
# lengthened so many times.
RESTED, BOLD = 5e-3, 10.0
# So many frames tell whether a pattern pins them.
FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Some frames that were matched to each other."""

    estimates: list[ShiftEstimate]
    canvas: MeanCanvas | None  # None where nothing matched
    noise: Noise | None


def believed(estimate: ShiftEstimate) -> bool:
    """Return whether a shift is more than chance."""
    return (
        estimate.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS)
        and estimate.false_alarm < BELIEVED
    )


def grow_template(
    frames: list[Volume], bounds: Bounds, known: Known | None = None
) -> Sample:
    """Match frames to each other, from one on, until their mean is settled.

    `known` tells which pixels of all frames count.
    """
    # Frames without any content cannot be matched and do not enter.
    useful = [n for n, frame in enumerate(frames) if _has_texture(frame)]
    nothing = [no_match(3, Outcome.NO_TEXTURE) for _ in frames]
    if len(useful) < 2:
        return Sample(estimates=nothing, canvas=None, noise=None)
    best: list[ShiftEstimate | None] = []
    for start in (len(useful) // 2, 0, len(useful) - 1):
        found = _follow([frames[n] for n in useful], start, bounds, known)
        if _count(found) > _count(best):
            best = found
        if _count(best) > FOLLOWERS * len(useful):
            break
    estimates = nothing
    for n, estimate in zip(useful, best, strict=True):
        estimates[n] = no_match(3, Outcome.NOT_FOUND) if estimate is None else estimate
    return settle_template(frames, estimates, bounds, known)


def _has_texture(frame: Volume) -> bool:
    return float(np.ptp(frame)) > 0


def _count(estimates: list[ShiftEstimate | None]) -> int:
    return sum(each is not None and believed(each) for each in estimates)


def _follow(
    frames: list[Volume], start: int, bounds: Bounds, mask: Known | None
) -> list[ShiftEstimate | None]:
    """Match each frame to the mean of those before it, beginning with one.

    This is done with small frames, to about a tenth of their pixels.
    """
    factor = shrink_factor(frames[0].shape[1:])
    steps = np.array([1, factor, factor])
    small = [shrink_frame(frame, factor) for frame in frames]
    limits = replace(bounds, low=-(-bounds.low // steps), high=-(-bounds.high // steps))
    if mask is not None:
        mask = shrink_frame(mask[None].astype(np.float32), factor)[0] > 1 - 1e-3
        mask = mask if mask.any() else None
    canvas = MeanCanvas(small[0].shape)
    canvas.add(small[start], np.zeros(3), mask)
    estimates: list[ShiftEstimate | None] = [None] * len(frames)
    estimates[start] = replace(
        no_match(3, Outcome.MATCHED), covariance=np.zeros((3, 3)), false_alarm=0.0
    )
    count, noise = 1, None
    for way in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        last = np.zeros(3)
        for n in way:
            pixels, known, origin = canvas.mean()
            overlay = None
            if noise is not None:
                size = np.array(small[n].shape[1:])
                overlay = lay_out(
                    pixels, known, origin, noise, 1 / count, np.rint(last), size
                )
            picture = prepare_picture(
                pixels, known, origin, small[n], limits, overlay, centres=last[None]
            )
            found = match_frame(picture, small[n], mask, last)
            if believed(found):
                if noise is None:
                    noise = measure_noise(
                        [small[n]], found.shift[None], (pixels, origin), -1.0
                    )
                canvas.add(small[n], found.shift, mask)
                count += 1
                last = found.shift if bounds.drifts else last
            shift = found.shift * steps
            estimates[n] = replace(found, shift=shift, alternatives=shift[None])
    return estimates


def settle_template(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    bounds: Bounds,
    known: Known | None = None,
) -> Sample:
    """Fit each frame to the mean of all, until nothing moves."""
    # Strategy: where all frames agree best with their mean, none has a reason to move.
    # A frame is part of that mean; where it lies now its own part is the same, noise
    # and all, and does not hold it. So it takes one step, and the mean is made again.
    estimates = list(estimates)
    weight = None if known is None else known.astype(np.float32)
    canvas, noise, quiet = None, None, False
    for turn in range(PASSES):
        there = [n for n, each in enumerate(estimates) if believed(each)]
        if len(there) < 2:
            return _nothing(estimates)
        canvas = _mean_of(frames, estimates, there, known)
        if not quiet or noise is None:
            new = _noise_of(frames, estimates, canvas, known)
            quiet = noise is not None and new.variance > (1 - QUIET) * noise.variance
            noise = new
        overlay = _overlay_of(frames, estimates, canvas, noise, inside=True)
        fits = {
            n: fit_overlay(
                overlay, frames[n], estimates[n].shift, weight=weight, steps=1
            )
            for n in there
        }
        moved = _take_steps(estimates, fits)
        if turn < TRIED:
            moved += _try_again(frames, estimates, canvas, noise, bounds, known)
        if moved < 1 and quiet:
            break
    return Sample(estimates=estimates, canvas=canvas, noise=noise)


def _take_steps(
    estimates: list[ShiftEstimate], fits: dict[int, OverlayFit | None]
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


def _try_again(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    noise: Noise,
    bounds: Bounds,
    known: Known | None,
) -> int:
    """Match frames that are not believed, in place; return how many are now."""
    lost = [
        n
        for n, each in enumerate(estimates)
        if not believed(each) and each.outcome != Outcome.NO_TEXTURE
    ]
    if not lost:
        return 0
    overlay = _overlay_of(frames, estimates, canvas, noise, inside=False)
    there = [n for n, each in enumerate(estimates) if believed(each)]
    shifts = np.array([estimates[n].shift for n in there])
    picture = prepare_picture(
        *canvas.mean(), frames[lost[0]], bounds, overlay,
        centres=shifts if bounds.drifts else None,
    )  # fmt: skip
    for n in lost:
        near = shifts[np.abs(np.array(there) - n).argmin()]
        estimates[n] = match_frame(picture, frames[n], known, near)
    return sum(believed(estimates[n]) for n in lost)


def _noise_of(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    known: Known | None,
) -> Noise:
    """Return what the mean does not explain of some of its frames."""
    there = [n for n, each in enumerate(estimates) if believed(each)]
    rows = np.unique(np.linspace(0, len(there) - 1, LISTENED).round().astype(int))
    some = [there[row] for row in rows]
    shifts = np.array([estimates[n].shift for n in some])
    pixels, _, origin = canvas.mean()
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    masks = None if known is None else [known] * len(some)
    return measure_noise(
        [frames[n] for n in some], shifts, (pixels, origin), share, masks
    )


def _overlay_of(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    canvas: MeanCanvas,
    noise: Noise,
    *,
    inside: bool,
) -> Overlay:
    """Prepare the mean of frames for these frames, or for others."""
    there = [n for n, each in enumerate(estimates) if believed(each)]
    shifts = np.array([estimates[n].shift for n in there])
    # What a frame shows alone cannot tell where it lies.
    pixels, known, origin = canvas.mean(2 if inside else 1)
    share = float(np.mean([canvas.share_at(shift) for shift in shifts]))
    middle = np.abs(shifts - np.median(shifts, axis=0)).max(axis=1).argmin()
    size = np.array(frames[0].shape[1:])
    return lay_out(
        pixels, known, origin, noise, share, shifts[middle], size, inside=inside
    )


def _nothing(estimates: list[ShiftEstimate]) -> Sample:
    """Return the outcome of frames that do not match; one alone matches nothing."""
    lost = no_match(3, Outcome.NOT_FOUND)
    return Sample(
        estimates=[lost if believed(each) else each for each in estimates],
        canvas=None,
        noise=None,
    )


def _mean_of(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    there: list[int],
    known: Known | None,
) -> MeanCanvas:
    canvas = MeanCanvas(frames[0].shape)
    for n in there:
        canvas.add(frames[n], estimates[n].shift, known)
    return canvas


def find_pattern(
    frames: list[Volume],
    sample: Sample,
    bounds: Bounds,
    known: Known | None = None,
) -> tuple[Volume | None, Sample]:
    """Return what stays in place while the scene moves, and the matches without it."""
    pattern, sample = _first_pattern(frames, sample, bounds, known)
    there = [n for n, each in enumerate(sample.estimates) if believed(each)]
    if pattern is None or len(there) < 4:
        return pattern, sample
    # Strategy: shifts tell the pattern, and the pattern tells the shifts, which comes
    # to rest slowly where both can trade; two rounds tell where (Anderson mixing).
    shifts = np.array([sample.estimates[n].shift for n in there])
    last: tuple[Floats, Floats] | None = None
    for _ in range(ROUNDS):
        _, pattern = split_pattern([frames[n] for n in there], shifts, pattern)
        free = [frame - pattern for frame in frames]
        sample = settle_template(free, sample.estimates, bounds, known)
        found = np.array([sample.estimates[n].shift for n in there])
        step = found - shifts
        step -= step.mean(axis=0)
        if np.abs(step).max() < RESTED:
            break
        onward = shifts + step
        if last is not None:
            change = step - last[1]
            part = float((step * change).sum() / max((change * change).sum(), 1e-12))
            onward = onward - min(max(part, -BOLD), 0.0) * ((shifts - last[0]) + change)
        last, shifts = (shifts, step), onward
    return pattern, sample


def _first_pattern(
    frames: list[Volume],
    sample: Sample,
    bounds: Bounds,
    known: Known | None,
) -> tuple[Volume | None, Sample]:
    """Return a pattern if it explains more than the noise that it would fit.

    A pattern of the camera can pin shifts to zero, and then the mean of all
    frames may be the only way out of there. A few frames tell.
    """
    good = [n for n, each in enumerate(sample.estimates) if believed(each)]
    rows = np.unique(np.linspace(0, max(len(good) - 1, 0), FEW).astype(int))
    few = [good[n] for n in rows if n < len(good)]
    if len(few) < 4:
        return None, sample
    pictures = [frames[n] for n in few]
    held = np.array([sample.estimates[n].shift for n in few])
    plain, (rest, pattern) = unexplained(pictures, held), split_pattern(pictures, held)
    # One image more explains this much of noise.
    share = 1 - 2 / len(few)
    pinned = np.ptp(held, axis=0).max() <= PINNED
    if not pinned and rest >= share * plain:
        return None, sample
    mean = np.mean([frames[n] for n in good], axis=0)
    other = grow_template([picture - mean for picture in pictures], bounds, known)
    there = [n for n, each in enumerate(other.estimates) if believed(each)]
    moved = np.array([other.estimates[n].shift for n in there])
    if len(there) > FOLLOWERS * len(few) and np.ptp(moved, axis=0).max() > PINNED:
        kept = [pictures[n] for n in there]
        freed, without = split_pattern(kept, moved)
        if freed < share * min(rest, plain):
            free = [each - without for each in frames]
            return without, grow_template(free, bounds, known)
    if rest < share * plain:
        free = [frame - pattern for frame in frames]
        return pattern, settle_template(free, sample.estimates, bounds, known)
    return None, sample

"""Make a template out of frames that move, and tell the camera from it (floor 7)."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._canvas_mean import MeanCanvas
from ._correlation import BELIEVED, ShiftEstimate
from ._outcomes import Outcome
from ._template_fit import fit_frame, fit_overlap, match_frame, match_masked
from ._template_search import Template, frame_spectra, known_core, make_probe, no_match
from ._template_split import split_pattern, unexplained

__all__ = ["Sample", "believed", "find_pattern", "grow_template", "probe_of"]

Volume = NDArray[np.float32]
Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Bounds = tuple[Ints, Ints]

# The template is made again until no frame moves by more than this, in pixels or in
# its own standard deviations.
SETTLED, SETTLED_SIGMAS = 2e-3, 0.1
PASSES = 8
# So often where pixels do not count.
MASKED = 2
# A frame's share of the mean is taken off at once where it is nearly the same all over,
# up to this factor in the mean.
EVEN = 1.1
# What lies further than this beyond a frame tells nothing of it, in pixels.
NEAR = 4
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


def believed(estimate: ShiftEstimate) -> bool:
    """Return whether a shift is more than chance."""
    return (
        estimate.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS)
        and estimate.false_alarm < BELIEVED
    )


def probe_of(
    canvas: MeanCanvas,
    typical: Volume,
    bounds: Bounds,
) -> Template:
    """Prepare the mean of moved frames for more frames."""
    pixels, known, origin = canvas.mean()
    return make_probe(pixels, known, origin, typical, bounds)


def grow_template(
    frames: list[Volume], bounds: Bounds, known: NDArray[np.bool_] | None = None
) -> Sample:
    """Match frames to each other, from one on, until their mean is settled.

    `known` tells which pixels of all frames count.
    """
    # Frames without any content cannot be matched and do not enter.
    useful = [n for n, frame in enumerate(frames) if _has_texture(frame)]
    nothing = [no_match(3, Outcome.NO_TEXTURE) for _ in frames]
    if len(useful) < 2:
        return Sample(estimates=nothing, canvas=None)
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
    frames: list[Volume],
    start: int,
    bounds: Bounds,
    mask: NDArray[np.bool_] | None,
) -> list[ShiftEstimate | None]:
    """Match each frame to the mean of those before it, beginning with one."""
    canvas = MeanCanvas(frames[0].shape)
    canvas.add(frames[start], np.zeros(3), mask)
    estimates: list[ShiftEstimate | None] = [None] * len(frames)
    estimates[start] = replace(
        no_match(3, Outcome.MATCHED), covariance=np.zeros((3, 3)), false_alarm=0.0
    )
    for n in (*range(start + 1, len(frames)), *range(start - 1, -1, -1)):
        found = _match(canvas, frames[n], mask, bounds)
        estimates[n] = found
        if believed(found):
            canvas.add(frames[n], found.shift, mask)
    return estimates


def _match(
    canvas: MeanCanvas,
    frame: Volume,
    mask: NDArray[np.bool_] | None,
    bounds: Bounds,
) -> ShiftEstimate:
    """Match a frame to the mean of others."""
    if mask is None or len(frame) > 1:
        return match_frame(probe_of(canvas, frame, bounds), frame)
    pixels, known, origin = canvas.mean()
    return match_masked((pixels[0], frame[0]), (known, mask), origin, bounds)


def _settle_masked(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    bounds: Bounds,
    known: NDArray[np.bool_],
) -> Sample:
    """Match each frame to the mean of the others, where pixels do not count.

    Edges of what is known stay in place and would pin a quick fit.
    """
    estimates, canvas = list(estimates), None
    for _ in range(MASKED):
        there = [n for n, each in enumerate(estimates) if believed(each)]
        if len(there) < 2:
            return _nothing(estimates)
        canvas = _mean_of(frames, estimates, there, known)
        for n in there:
            canvas.add(frames[n], estimates[n].shift, known, sign=-1)
            found = _match(canvas, frames[n], known, bounds)
            estimates[n] = found if believed(found) else estimates[n]
            canvas.add(frames[n], estimates[n].shift, known)
    return Sample(estimates=estimates, canvas=canvas)


def settle_template(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    bounds: Bounds,
    known: NDArray[np.bool_] | None = None,
) -> Sample:
    """Fit each frame to the mean of the others, until nothing moves."""
    if known is not None and len(frames[0]) == 1:
        return _settle_masked(frames, estimates, bounds, known)
    spectra: list[Any] = [None] * len(frames)
    canvas = None
    for _ in range(PASSES):
        there = [n for n, each in enumerate(estimates) if believed(each)]
        if len(there) < 2:
            return _nothing(estimates)
        canvas = _mean_of(frames, estimates, there, known)
        template = probe_of(canvas, frames[there[len(there) // 2]], bounds)
        moved = 0.0
        new = list(estimates)
        for n in range(len(frames)):
            if estimates[n].outcome == Outcome.NO_TEXTURE:
                continue
            if not believed(estimates[n]):
                new[n] = match_frame(template, frames[n])
                continue
            if spectra[n] is None:
                spectra[n] = frame_spectra(template, frames[n])
            start = replace(estimates[n], covariance=np.zeros((3, 3)))
            own = 1 / len(there)
            if canvas.share_at(start.shift) < EVEN * own:
                found, _ = fit_frame(template, spectra[n], start, own=own)
            else:
                others = _without(template, canvas, frames[n], start.shift, known)
                found, _ = fit_overlap(others, frames[n], start)
            if not found.covariance.any():
                continue
            new[n] = found = _onto_all(start, found, len(there))
            sigma = math.sqrt(float(np.diag(found.covariance).max()))
            step = float(np.abs(found.shift - estimates[n].shift).max())
            moved = max(moved, step / max(SETTLED, SETTLED_SIGMAS * sigma))
        estimates = new
        if moved < 1:
            break
    return Sample(estimates=estimates, canvas=canvas)


def _without(
    template: Template,
    canvas: MeanCanvas,
    frame: Volume,
    shift: Floats,
    known: NDArray[np.bool_] | None,
) -> Template:
    """Return the picture that all frames but one make, near that one."""
    canvas.add(frame, shift, known, sign=-1)
    pixels, there, origin = canvas.mean()
    canvas.add(frame, shift, known)
    there = np.ones(pixels.shape[1:], np.bool_) if there is None else there
    start = np.floor(shift).astype(np.intp) - origin
    first = np.maximum(start - NEAR, 0)
    stop = np.minimum(start + canvas.size + NEAR, pixels.shape[1:])
    part = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    if not there[part].any():
        part, first = (slice(None),) * 3, 0 * first
    there = there[part]
    return replace(
        template,
        pixels=pixels[:, *part],
        known=there,
        origin=origin + first,
        core=known_core(there),
        crops={},
    )


def _onto_all(before: ShiftEstimate, found: ShiftEstimate, count: int) -> ShiftEstimate:
    """Return a shift from the mean of all frames instead of that of the others.

    The others move too, all at once: full steps would swing, of two frames forever.
    """
    part = 1 - 1 / count
    shift = before.shift + part * (found.shift - before.shift)
    return replace(
        found,
        shift=shift,
        covariance=part**2 * found.covariance,
        alternatives=shift[None],
    )


def _nothing(estimates: list[ShiftEstimate]) -> Sample:
    """Return the outcome of frames that do not match; one alone matches nothing."""
    lost = no_match(3, Outcome.NOT_FOUND)
    return Sample(
        estimates=[lost if believed(each) else each for each in estimates], canvas=None
    )


def _mean_of(
    frames: list[Volume],
    estimates: list[ShiftEstimate],
    there: list[int],
    known: NDArray[np.bool_] | None,
) -> MeanCanvas:
    canvas = MeanCanvas(frames[0].shape)
    for n in there:
        canvas.add(frames[n], estimates[n].shift, known)
    return canvas


def find_pattern(
    frames: list[Volume],
    sample: Sample,
    bounds: Bounds,
    known: NDArray[np.bool_] | None = None,
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
    known: NDArray[np.bool_] | None,
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

"""Make a template out of frames that move, and tell the camera from it."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..._matching.phase_correlate import ShiftEstimate, no_match
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.fft import fftfreq, forward, inverse, rfftfreq
from ..._shared.results import Outcome
from .frame_noise import Noise, measure_noise, ring_powers
from .image_fit import prepare_model
from .joint_alignment import JointAlignment, align_jointly, is_matched, no_alignment
from .mean_image import MeanCanvas, slide_frame
from .template_fit import match_frame, prepare_reference
from .template_search import Bounds, no_match, shrink_factor, shrink_frame

__all__ = ["find_pattern", "grow_template"]


# Steps that tell a pattern from a scene, from nothing on and where one is known, and how
# much further one may go at most. What both could be is told last.
SPLITS, FINER, BOOST = 4, 8, 20.0
# Steps that leave so many times what the one before left go astray.
ASTRAY = 1.5


# A frame to begin with is given up where fewer than this share of the others match.
FOLLOWERS = 0.5
# Frames that stay within so many pixels may be held by the camera.
PINNED = 1.0
# How often the template and the pattern are told apart, one after the other.
ROUNDS = 8
# They are told apart once no shift moves further than this; one step may be
# lengthened so many times.
RESTED, BOLD = 5e-3, 10.0
# So many frames tell whether a pattern pins them; fewer than these do not tell for sure
# what is pattern and what is scene.
FEW, SPLIT = 16, 8
# Frames differ by more than noise if coarse detail, of less than so many cycles per pixel,
# has so many times the power of the rest.
COARSE, RED = 0.25, 1.5


def residual_power(frames: list[Volume], shifts: Floats) -> float:
    """Return the power that a scene at given shifts does not explain."""
    canvas = MeanCanvas(frames[0].shape)
    for frame, shift in zip(frames, shifts, strict=True):
        canvas.add(frame, shift)
    pixels, _, origin = canvas.mean()
    powers = []
    for frame, shift in zip(frames, shifts, strict=True):
        scene = _scene_under(pixels, origin, shift, frame.shape)
        powers.append(math.inf if scene is None else np.square(frame - scene).mean())
    return float(np.mean(powers))


def split_pattern(
    frames: list[Volume], shifts: Floats, pattern: Volume | None = None
) -> tuple[float, Volume]:
    """Return what a scene at given shifts and a pattern leave, and the pattern.

    # Strategy: the pattern is the mean of what the scene leaves, and the scene that
    # of what the pattern leaves. One after the other, they converge at each frequency by
    # the squared mean of the turns that the shifts make there; so much further goes
    # each step.
    """
    steps = SPLITS if pattern is None else FINER
    if pattern is None:
        pattern = np.mean(frames, axis=0)
    boost = _step_gain(frames[0].shape[1:], shifts)
    rest, last = math.inf, pattern
    for _ in range(steps):
        canvas = MeanCanvas(frames[0].shape)
        for frame, shift in zip(frames, shifts, strict=True):
            canvas.add(frame - pattern, shift)
        pixels, _, origin = canvas.mean()
        left = []
        for frame, shift in zip(frames, shifts, strict=True):
            scene = _scene_under(pixels, origin, shift, frame.shape)
            if scene is None:
                return math.inf, pattern
            left.append(frame - scene - pattern)
        step = np.mean(left, axis=0)
        before, rest = rest, float(np.mean([np.square(e - step).mean() for e in left]))
        # Where the ends of frames matter more than what they share, steps go astray.
        if rest > ASTRAY * before:
            return before, last
        last = pattern + step
        pattern = pattern + np.stack(
            [inverse(forward(one) * boost, one.shape) for one in step]
        )
    return rest, pattern


def _step_gain(shape: tuple[int, ...], shifts: Floats) -> NDArray[np.float32]:
    """Return how much further than a step the pattern lies, for each frequency."""
    turns = np.zeros((*shape[:-1], shape[-1] // 2 + 1), np.complex128)
    axes = [fftfreq(n) for n in shape[:-1]] + [rfftfreq(shape[-1])]
    for shift in shifts:
        one, two, three = (
            np.exp(2j * math.pi * f * moved)
            for f, moved in zip(axes, shift, strict=True)
        )
        turns += one[:, None, None] * two[:, None] * three
    steady = np.abs(turns / len(shifts)) ** 2
    return (1 / np.maximum(1 - steady, 1 / BOOST)).astype(np.float32)


def _scene_under(
    pixels: Volume, origin: Ints, shift: Floats, shape: tuple[int, ...]
) -> Volume | None:
    """Return what a frame at a shift would see of a picture."""
    start = shift - origin
    whole = np.ceil(start - 1e-9).astype(np.intp)
    size = np.array(shape[1:])
    # Where the picture ends its border goes on, which is little.
    pads = [
        (max(0, int(-a)), max(0, int(a + n - total)))
        for a, n, total in zip(whole - 1, size + 2, pixels.shape[1:], strict=True)
    ]
    pads = [pad if n > 1 else (0, 0) for pad, n in zip(pads, size, strict=True)]
    if max(max(pad) for pad in pads) > min(n for n in size.tolist() if n > 1) // 2:
        return None
    wide = np.pad(pixels, [(0, 0), *pads], mode="edge")
    first = origin - np.array([pad[0] for pad in pads], np.intp)
    return under_frame(wide, first, shift, shape)[0]


def grow_template(
    frames: list[Volume], bounds: Bounds, known: Flags | None = None
) -> JointAlignment:
    """Match frames to each other, from one on, until their mean is settled.

    `known` tells which pixels of all frames count.
    """
    # Frames without any content cannot be matched and do not enter.
    useful = [n for n, frame in enumerate(frames) if _has_texture(frame)]
    nothing = [no_match(3, Outcome.NO_TEXTURE) for _ in frames]
    if len(useful) < 2:
        return no_alignment(frames, nothing)
    best: list[ShiftEstimate | None] = []
    for start in (len(useful) // 2, 0, len(useful) - 1):
        found = _match_successively([frames[n] for n in useful], start, bounds, known)
        if _count_matched(found) > _count_matched(best):
            best = found
        if _count_matched(best) > FOLLOWERS * len(useful):
            break
    estimates = nothing
    for n, estimate in zip(useful, best, strict=True):
        estimates[n] = no_match(3, Outcome.NOT_FOUND) if estimate is None else estimate
    return align_jointly(frames, estimates, bounds, known)


def _has_texture(frame: Volume) -> bool:
    return float(np.ptp(frame)) > 0


def _count_matched(estimates: list[ShiftEstimate | None]) -> int:
    return sum(each is not None and is_matched(each) for each in estimates)


def _match_successively(
    frames: list[Volume], start: int, bounds: Bounds, mask: Flags | None
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
    count = 1
    noise: Noise | None = None
    for way in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        last = np.zeros(3)
        for n in way:
            pixels, known, origin = canvas.mean()
            overlay = None
            if noise is not None:
                size = np.array(small[n].shape[1:])
                overlay = prepare_model(
                    pixels, known, origin, noise, 1 / count, np.rint(last), size
                )
            picture = prepare_reference(
                pixels, known, origin, small[n], limits, overlay, centres=last[None]
            )
            found = match_frame(picture, small[n], mask, last)
            if is_matched(found):
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


def find_pattern(
    frames: list[Volume],
    sample: JointAlignment,
    bounds: Bounds,
    known: Flags | None = None,
) -> tuple[Volume | None, JointAlignment, bool]:
    """Return what stays in place while the scene moves, and the matches without it.

    With them comes whether frames are too few to tell one from the other.
    """
    pattern, sample, doubtful = _initial_pattern(frames, sample, bounds, known)
    there = [n for n, each in enumerate(sample.estimates) if is_matched(each)]
    if pattern is None or len(there) < 4:
        return pattern, sample, doubtful
    # Strategy: shifts tell the pattern, and the pattern tells the shifts, which comes
    # to rest slowly where both can trade; two rounds tell where (Anderson mixing).
    shifts = np.array([sample.estimates[n].shift for n in there])
    last: tuple[Floats, Floats] | None = None
    for _ in range(ROUNDS):
        _, pattern = split_pattern([frames[n] for n in there], shifts, pattern)
        free = [frame - pattern for frame in frames]
        sample = align_jointly(free, sample.estimates, bounds, known)
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
    return pattern, sample, doubtful


def _initial_pattern(
    frames: list[Volume],
    sample: JointAlignment,
    bounds: Bounds,
    known: Flags | None,
) -> tuple[Volume | None, JointAlignment, bool]:
    """Return a pattern if it explains more than the noise that it would fit.

    A pattern of the camera can pin shifts to zero, and then the mean of all
    frames may be the only way out of there. A few frames tell.
    """
    good = [n for n, each in enumerate(sample.estimates) if is_matched(each)]
    rows = np.unique(np.linspace(0, max(len(good) - 1, 0), FEW).astype(int))
    few = [good[n] for n in rows if n < len(good)]
    if len(few) < 2:
        return None, sample, False
    pictures = [frames[n] for n in few]
    held = np.array([sample.estimates[n].shift for n in few])
    pinned = np.ptp(held, axis=0).max() <= PINNED
    if len(few) < 4:
        doubtful = pinned and _differs_coarsely(frames, good)
        if doubtful:
            doubtful = _is_moving(
                _align_residuals(frames, pictures, good, bounds, known)
            )
        return None, sample, doubtful
    plain, (rest, pattern) = (
        residual_power(pictures, held),
        split_pattern(pictures, held),
    )
    # One image more explains this much of noise.
    share = 1 - 2 / len(few)
    if not pinned and rest >= share * plain:
        return None, sample, False
    other = _align_residuals(frames, pictures, good, bounds, known)
    there = [n for n, each in enumerate(other.estimates) if is_matched(each)]
    moved = np.array([other.estimates[n].shift for n in there])
    if len(there) > FOLLOWERS * len(few) and _is_moving(other):
        kept = [pictures[n] for n in there]
        freed, without = split_pattern(kept, moved)
        if freed < share * min(rest, plain):
            free = [each - without for each in frames]
            return without, grow_template(free, bounds, known), len(few) < SPLIT
    if rest < share * plain:
        free = [frame - pattern for frame in frames]
        settled = align_jointly(free, sample.estimates, bounds, known)
        return pattern, settled, len(few) < SPLIT
    doubtful = (
        len(few) < SPLIT and _is_moving(other) and _differs_coarsely(frames, good)
    )
    return None, sample, doubtful


def _align_residuals(
    frames: list[Volume],
    few: list[Volume],
    good: list[int],
    bounds: Bounds,
    known: Flags | None,
) -> JointAlignment:
    """Match a few frames by what they show beside the mean of all that are good."""
    mean = np.mean([frames[n] for n in good], axis=0)
    return grow_template([picture - mean for picture in few], bounds, known)


def _differs_coarsely(frames: list[Volume], good: list[int]) -> bool:
    """Return whether frames differ by more than noise, which has no coarse detail."""
    mean = np.mean([frames[n] for n in good], axis=0)
    radius, count, power = ring_powers([frames[n] - mean for n in good])
    coarse = radius < COARSE
    if coarse.all() or not coarse.any():
        # Frames of a few pixels have too few frequencies to tell.
        return False
    rough = float((count * power)[coarse].sum() / count[coarse].sum())
    return rough > RED * float(np.median(power[~coarse]))


def _is_moving(sample: JointAlignment) -> bool:
    """Return whether frames that are believed lie apart."""
    moved = [each.shift for each in sample.estimates if is_matched(each)]
    return len(moved) > 1 and bool(np.ptp(moved, axis=0).max() > PINNED)

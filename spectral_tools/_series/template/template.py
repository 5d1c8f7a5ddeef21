"""Make a template out of frames that move, and tell the camera from it."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._matching.fixed_pattern import PINNED
from ..._matching.phase_correlate import ShiftEstimate, no_match
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Volume
from ..._shared.fft import fftfreq, forward, inverse, rfftfreq
from ..._shared.results import Outcome
from .image_fit import prepare_model
from .joint_alignment import (
    FEW,
    JointAlignment,
    align_jointly,
    is_matched,
    matched_numbers,
    no_alignment,
)
from .mean_image import (
    COARSE,
    RED,
    MeanCanvas,
    Noise,
    PlacedImage,
    measure_noise,
    ring_powers,
    views_of,
)
from .template_fit import match_frame, prepare_reference
from .template_search import Bounds, shrink_factor, shrink_frame

__all__ = ["PatternSearch", "find_pattern", "grow_template"]


# Most iterations that tell a pattern from a scene where shifts are given, and most rounds
# in which shifts are found anew (test_what_stays_in_place_does_not_pin_the_frames).
SPLITS = 8
# Largest over-relaxation of an iteration, at frequencies that both could be
# (bench_series.py, dust).
BOOST = 20.0
# Share of the other frames that match the first one, or another one is the first
# (test_frames_at_the_ends_of_a_drift_do_not_match_themselves).
FOLLOWERS = 0.5
# Largest motion, in pixels, with which they are at rest (bench_series.py, dust).
RESTED = 5e-3
# Frames that move and tell whether something stays in place; of pinned ones, all do
# (test_what_stays_in_place_does_not_pin_the_frames).
ENOUGH = 16
# Frames below which pattern and scene are not told apart for sure
# (test_few_frames_under_dust_are_not_believed).
DOUBTFUL = 8


class PatternSearch(NamedTuple):
    """What stays in place while the scene moves, and the matches without it."""

    pattern: Volume | None  # None if nothing does
    found: JointAlignment
    ambiguous: bool  # whether frames are too few or faint to tell them apart


class Unexplained(NamedTuple):
    """What images leave of the frames that they were fitted to."""

    power: float = math.inf
    frames: int = 1
    images: int = 0

    @property
    def variance(self) -> float:
        """Return the variance of noise that leaves so much of it."""
        return self.power / (1 - self.images / self.frames)

    @property
    def predicted(self) -> float:
        """Return what would be left of other frames: generalized cross-validation.

        Craven & Wahba (1979), :doi:`10.1007/BF01404567`.
        """
        return self.variance / (1 - self.images / self.frames)


def residual_power(frames: list[Volume], shifts: Floats) -> float:
    """Return the power that a scene at given shifts does not explain."""
    canvas = MeanCanvas(frames[0].shape)
    for frame, shift in zip(frames, shifts, strict=True):
        canvas.add(frame, shift)
    image = canvas.mean()
    powers = []
    for frame, shift in zip(frames, shifts, strict=True):
        scene = _scene_under(image, shift, frame.shape)
        powers.append(math.inf if scene is None else np.square(frame - scene).mean())
    return float(np.mean(powers))


def split_pattern(
    frames: list[Volume], shifts: Floats, pattern: Volume | None = None
) -> tuple[float, Volume]:
    """Return what a scene at given shifts and a pattern leave, and the pattern.

    Alternating least squares with over-relaxation. Without a pattern to begin with, it
    ends where what is left no longer tells whether there is one.
    """
    # Strategy: the pattern is the mean of what the scene leaves, and the scene that
    # of what the pattern leaves. One after the other, they converge at each frequency by
    # the squared mean of the phase factors of the shifts there; so much further goes
    # each step.
    sought = pattern is None
    if pattern is None:
        pattern = np.mean(frames, axis=0)
    gain = _step_gain(frames[0].shape[1:], shifts)
    rest, last = math.inf, pattern
    for _ in range(SPLITS):
        canvas = MeanCanvas(frames[0].shape)
        for frame, shift in zip(frames, shifts, strict=True):
            canvas.add(frame - pattern, shift)
        image = canvas.mean()
        left = []
        for frame, shift in zip(frames, shifts, strict=True):
            scene = _scene_under(image, shift, frame.shape)
            if scene is None:
                return math.inf, pattern
            left.append(frame - scene - pattern)
        step = np.mean(left, axis=0)
        powers = [np.square(each - step).mean() for each in left]
        before, rest = rest, float(np.mean(powers))
        # A step that went too far explains less than what was there before it.
        if rest > before:
            return before, last
        last = pattern
        pattern = pattern + np.stack(
            [inverse(forward(one) * gain, one.shape) for one in step]
        )
        # Whether there is a pattern is told once a round explains no more than one image
        # does of noise; further ones are for the details of a pattern that is there.
        if sought and before - rest < rest / len(frames):
            break
    return rest, pattern


def _step_gain(shape: tuple[int, ...], shifts: Floats) -> NDArray[np.float32]:
    """Return the over-relaxation of a step, for each frequency."""
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
    image: PlacedImage, shift: Floats, shape: tuple[int, ...]
) -> Volume | None:
    """Return what a frame at a shift would see of an image; None if it sees little."""
    pixels, _, origin = image
    start = shift - origin
    whole = np.ceil(start - 1e-9).astype(np.intp)
    size = np.array(shape[1:])
    # Where the image ends its border goes on, which is little.
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
    # The middle, the ends, and then halfway between what was tried.
    starts = [len(useful) // 2, 0, len(useful) - 1]
    starts += [len(useful) // 4, 3 * len(useful) // 4, len(useful) // 8]
    for start in dict.fromkeys(starts):
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
            image, frame, model = canvas.mean(), small[n], None
            if noise is not None:
                place, size = np.rint(last), frame.shape[1:]
                model = prepare_model(image, noise, 1 / count, place, size)
            reference = prepare_reference(
                image, frame, limits, model, centres=last[None]
            )
            found = match_frame(reference, frame, mask, last)
            if is_matched(found):
                if noise is None:
                    views = views_of(image, [frame], found.shift[None])
                    noise = measure_noise([frame], found.shift[None], views, ratio=1.0)
                canvas.add(frame, found.shift, mask)
                count += 1
                last = found.shift if bounds.drifts else last
            shift = found.shift * steps
            estimates[n] = replace(found, shift=shift, alternatives=shift[None])
    return estimates


def find_pattern(
    frames: list[Volume],
    found: JointAlignment,
    bounds: Bounds,
    known: Flags | None = None,
) -> PatternSearch:
    """Find what stays in place while the scene moves, and match frames without it."""
    first = _initial_pattern(frames, found, bounds, known)
    pattern, found, ambiguous = first
    there = matched_numbers(found.estimates)
    if pattern is None or len(there) < FEW:
        return first
    # Strategy: shifts tell the pattern, and the pattern tells the shifts, which comes
    # to rest slowly where both can trade; two rounds tell where (Anderson mixing).
    shifts = np.array([found.estimates[n].shift for n in there])
    last: tuple[Floats, Floats] | None = None
    for _ in range(SPLITS):
        _, pattern = split_pattern([frames[n] for n in there], shifts, pattern)
        free = [frame - pattern for frame in frames]
        found = align_jointly(free, found.estimates, bounds, known)
        step = np.array([found.estimates[n].shift for n in there]) - shifts
        step -= step.mean(axis=0)
        if np.abs(step).max() < RESTED:
            break
        onward = shifts + step
        if last is not None:
            change = step - last[1]
            part = float((step * change).sum() / max((change * change).sum(), 1e-12))
            onward = onward - min(part, 0.0) * ((shifts - last[0]) + change)
        last, shifts = (shifts, step), onward
    return PatternSearch(pattern, found, ambiguous)


def _initial_pattern(
    frames: list[Volume],
    found: JointAlignment,
    bounds: Bounds,
    known: Flags | None,
) -> PatternSearch:
    """Return a pattern if it explains more than the noise that it would fit.

    A pattern of the camera can pin shifts to zero, and then the mean of all
    frames may be the only way out of there. Of frames that move, a few tell.
    """
    good = matched_numbers(found.estimates)
    if len(good) < 2:
        return PatternSearch(None, found, False)
    pinned = np.ptp([found.estimates[n].shift for n in good], axis=0).max() <= PINNED
    most = len(good) if pinned else ENOUGH
    few = [good[n] for n in np.unique(np.linspace(0, len(good) - 1, most).astype(int))]
    chosen = [frames[n] for n in few]
    held = np.array([found.estimates[n].shift for n in few])
    enough = len(few) >= FEW
    plain, split, pattern = Unexplained(), Unexplained(), None
    if enough:
        plain = Unexplained(residual_power(chosen, held), len(few), 1)
        power, pattern = split_pattern(chosen, held)
        split = Unexplained(power, len(few), 2)
    if not pinned and split.predicted >= plain.predicted:
        return PatternSearch(None, found, False)
    # Match frames by what they show beside the mean of all.
    mean = np.mean([frames[n] for n in good], axis=0)
    if not enough and not _differ_coarsely(frames, good, mean):
        return PatternSearch(None, found, False)
    freed, without, moves = _free_frames(chosen, mean, bounds, known)
    if not enough:
        return PatternSearch(None, found, moves)
    ambiguous = len(few) < DOUBTFUL
    if freed.predicted < min(split.predicted, plain.predicted):
        free = [each - without for each in frames]
        return PatternSearch(without, grow_template(free, bounds, known), ambiguous)
    if split.predicted < plain.predicted and pattern is not None:
        free = [frame - pattern for frame in frames]
        settled = align_jointly(free, found.estimates, bounds, known)
        return PatternSearch(pattern, settled, ambiguous)
    ambiguous = ambiguous and moves and _differ_coarsely(frames, good, mean)
    # What explains more than noise would, and too little to be the better guess, is open.
    ambiguous = ambiguous or freed.variance < min(split.variance, plain.variance)
    return PatternSearch(None, found, ambiguous)


def _free_frames(
    frames: list[Volume], pattern: Volume, bounds: Bounds, known: Flags | None
) -> tuple[Unexplained, Volume, bool]:
    """Match frames without a first pattern, and better it while more of them match.

    Returns what scene and pattern leave, the pattern, and whether frames move. Less than
    half of the frames say nothing of the others.
    """
    best, freed, moves = 0, Unexplained(), False
    for _ in range(SPLITS):
        other = grow_template([each - pattern for each in frames], bounds, known)
        there = matched_numbers(other.estimates)
        if not _is_moving(other):
            break
        moves = True
        most = len(there) > FOLLOWERS * len(frames)
        if len(there) < FEW or (len(there) <= best and not most):
            break
        moved = np.array([other.estimates[n].shift for n in there])
        power, better = split_pattern([frames[n] for n in there], moved)
        left = Unexplained(power, len(there), 2) if most else Unexplained()
        if most and left.predicted >= freed.predicted:
            break
        best, freed, pattern = len(there), left, better
    return freed, pattern, moves


def _differ_coarsely(frames: list[Volume], good: list[int], mean: Volume) -> bool:
    """Return whether frames differ by more than noise, which has no coarse detail."""
    radius, count, power = ring_powers([frames[n] - mean for n in good])
    coarse = radius < COARSE
    if coarse.all() or not coarse.any():
        # Frames of a few pixels have too few frequencies to tell.
        return False
    rough = float((count * power)[coarse].sum() / count[coarse].sum())
    return rough > RED * float(np.median(power[~coarse]))


def _is_moving(found: JointAlignment) -> bool:
    """Return whether frames that are matched lie apart."""
    moved = [found.estimates[n].shift for n in matched_numbers(found.estimates)]
    return len(moved) > 1 and bool(np.ptp(moved, axis=0).max() > PINNED)

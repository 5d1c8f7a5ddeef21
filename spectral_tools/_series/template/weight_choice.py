"""Weigh each frame by what it shares with a template, where frames differ."""

import math
from dataclasses import replace

import numpy as np

from ..._matching.phase_correlate import ShiftEstimate
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from .frame_noise import Noise, measure_noise
from .image_fit import prepare_model
from .joint_alignment import (
    SETTLED,
    SETTLED_SIGMAS,
    JointAlignment,
    is_matched,
    mean_canvas,
)
from .mean_image import MeanCanvas, under_frame
from .template_fit import (
    Reference,
    fit_common_weights,
    fit_own_weights,
    fit_shared_spectrum,
    match_frame,
)
from .template_search import known_core

__all__ = ["calibrate_reference", "choose_weights"]


# Each frame is fitted with weights of its own, in so many passes.
PASSES = 8
# Of fewer frames than this, that counts where it differs from what weights common to all
# tell by more than so many standard deviations.
FEW, DOUBTED = 4, 5.0
# Of more, so many tell. It counts where it leaves this share of the variance.
HEARD, SHARPER = 4, 0.8
# It counts too where both are further apart than this, in standard deviations, rms. They
# share their noise, and differ by half of one where common weights do well; these are
# swayed where a picture is one frame, and where noise is so faint that detail finer
# than the pixels leads. If the variance becomes this much larger they must be further
# apart: then it is weights of their own that a few bright spots sway.
SWAYED, LOOSER, FAR = 0.8, 1.2, 2.5
# A picture was made of a frame that it leaves this share less unexplained than others.
MADE_OF = 0.1
# The noise of a picture that is not made of frames is at most so many times theirs. It is
# taken to be theirs where noise is less than this share of the scene, which small shifts
# change as much. Weights of their own count if they move one frame by so many standard
# deviations.
NOISIEST, FAINT, STRAYED = 100.0, 0.1, 3.0


def choose_weights(
    sample: JointAlignment, known: Flags | None = None
) -> JointAlignment:
    """Fit each frame again to the mean of the others, with weights of its own.

    Weights common to all frames are the best where frames differ by noise alone, and
    they are what is kept then. Where a scene flickers, each frame tells for itself
    which frequencies it shares with the rest. Of few frames the mean leaves too little
    to tell their noise by.
    """
    frames, there = sample.frames, _matched_numbers(sample.estimates)
    if sample.canvas is None or len(frames[0]) > 1 or len(there) < 2:
        return sample
    few = len(there) < FEW
    if not few and not _told_apart(sample, sample.canvas, there, known):
        return sample
    canvas = mean_canvas(frames, sample.estimates, there, known)
    estimates = _align_own_weights(frames, sample.estimates, canvas, known)
    before = [sample.estimates[n] for n in there]
    if few:
        apart = _normalized_differences(before, [estimates[n] for n in there])
        if not (np.abs(apart) > DOUBTED).any():
            return sample
    return replace(sample, estimates=estimates, canvas=canvas, alone=True)


def _told_apart(
    sample: JointAlignment, canvas: MeanCanvas, there: list[int], known: Flags | None
) -> bool:
    """Return whether some frames are known better by weights of their own."""
    rows = np.unique(np.linspace(0, len(there) - 1, HEARD).round().astype(int))
    before, after = [], []
    for n in (there[row] for row in rows):
        start, frame = sample.estimates[n], sample.frames[n]
        sums, counts = canvas.sums.copy(), canvas.counts.copy()
        canvas.add(frame, start.shift, known, sign=-1)
        before.append(start)
        after.append(_fit_to_others(canvas, frame, start, len(there), known))
        canvas.sums, canvas.counts = sums, counts
    return _own_weights_better(before, after)


def _matched_numbers(estimates: list[ShiftEstimate]) -> list[int]:
    return [n for n, each in enumerate(estimates) if is_matched(each)]


def _own_weights_better(
    before: list[ShiftEstimate], after: list[ShiftEstimate | None]
) -> bool:
    """Return whether fits that stand alone are known to be better."""
    ratios = [
        math.inf if two is None else float(np.trace(two.covariance))
        / max(float(np.trace(one.covariance)), 1e-30)
        for one, two in zip(before, after, strict=True)
    ]  # fmt: skip
    ratio = np.median(ratios)
    if ratio < SHARPER:
        return True
    apart = _normalized_differences(before, after)
    free = (len(apart) - 1) * int(apart.any(axis=0).sum())
    limit = SWAYED if ratio < LOOSER else FAR
    return bool((apart**2).sum() > limit**2 * free)


def _normalized_differences(
    one: list[ShiftEstimate], two: list[ShiftEstimate | None]
) -> Floats:
    """Return by how much answers differ, in standard deviations; none if no two do."""
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
    estimates, there = list(estimates), _matched_numbers(estimates)
    for _ in range(PASSES):
        moved = 0.0
        for n in there:
            start = estimates[n]
            canvas.add(frames[n], start.shift, known, sign=-1)
            found = _fit_to_others(canvas, frames[n], start, len(there), known) or start
            canvas.add(frames[n], found.shift, known)
            sigma = math.sqrt(float(np.diag(found.covariance).max()))
            long = float(np.abs(found.shift - start.shift).max())
            moved = max(moved, long / max(SETTLED, SETTLED_SIGMAS * sigma))
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
    pixels, seen, origin = canvas.mean()
    seen = np.ones(pixels.shape[1:], np.bool_) if seen is None else seen
    found = fit_shared_spectrum(
        (pixels, seen, origin, known_core(seen)), frame, start, known
    )
    if found is None:
        return None
    # The others hold a frame less than the mean of all.
    part = 1 - 1 / count
    return replace(found, covariance=part**2 * found.covariance)


def calibrate_reference(
    picture: Reference, frames: list[tuple[Volume, Flags | None]]
) -> tuple[Reference, bool, Noise | None, float]:
    """Measure how some frames differ from a picture that is not made of them.

    Frames come with where they count. Returns the picture, prepared for frames like
    these, whether each one is better fitted with weights of its own, the noise, and how
    many times that the picture has.
    """
    rows = np.unique(np.linspace(0, len(frames) - 1, HEARD).round().astype(int))
    some = [(*frames[n], match_frame(picture, *frames[n])) for n in rows]
    some = [each for each in some if is_matched(each[2])]
    if not some:
        return picture, False, None, 1.0
    # A frame that the picture was made of tells nothing of its noise.
    rest = np.array([1 - found.correlation for _, _, found in some])
    least = MADE_OF * np.median(rest)
    some = [each for each, left in zip(some, rest, strict=True) if left >= least]
    volumes = [frame for frame, _, _ in some]
    shifts = np.array([found.shift for _, _, found in some])
    masks = [known for _, known, _ in some if known is not None]
    mask = np.logical_and.reduce(masks) if masks else None
    place = picture.pixels, picture.origin
    part = _noise_ratio(volumes, shifts, place, mask)
    noise = measure_noise(volumes, shifts, place, -part, mask)
    size = np.array(volumes[0].shape[1:])
    overlay = prepare_model(
        picture.pixels, picture.known, picture.origin, noise, part, shifts[0], size
    )
    picture = replace(picture, overlay=overlay)
    before, after = [], []
    for frame, known, found in some:
        before.append(fit_common_weights(picture, frame, found, 2, known)[0])
        after.append(fit_own_weights(picture, frame, found, known))
    strayed = bool((np.abs(_normalized_differences(before, after)) > STRAYED).any())
    return picture, strayed or _own_weights_better(before, after), noise, part


def _noise_ratio(
    frames: list[Volume],
    shifts: Floats,
    place: tuple[Volume, Ints],
    known: Flags | None,
) -> float:
    """Return how many times the noise of frames a picture has, that is none of them.

    Noise is not shared, so that what frames share with each other and with the picture
    is scene, whatever the brightness of each.
    """
    if len(frames) < 2:
        return 1.0
    origin = np.zeros(3, np.intp)
    with_picture, own, pictures = [], [], []
    for frame, shift in zip(frames, shifts, strict=True):
        seen, there = under_frame(*place, shift, frame.shape)
        with_picture.append(_covariance(frame, seen, there, known))
        own.append(_covariance(frame, frame, there, known))
        whole, there = under_frame(*place, np.rint(shift), frame.shape)
        pictures.append(_covariance(whole, whole, there, known))
    scenes = []
    for i in range(len(frames)):
        for j in range(i):
            seen, there = under_frame(
                frames[j], origin, shifts[i] - shifts[j], frames[i].shape
            )
            both = _covariance(frames[i], seen, there, known)
            if both > 0:
                scenes.append(with_picture[i] * with_picture[j] / both)
    if not scenes or not min(with_picture) > 0 or not np.median(scenes) > 0:
        return 1.0
    scene = float(np.median(scenes))
    gains = np.array(with_picture) / scene
    noise = float(np.median(np.array(own) / gains**2)) - scene
    of_picture = float(np.mean(pictures)) - scene
    if max(noise, of_picture) < FAINT * scene:
        return 1.0
    return min(max(of_picture, 0.0) / max(noise, 1e-3 * scene), NOISIEST)


def _covariance(one: Volume, two: Volume, there: Flags, known: Flags | None) -> float:
    """Return the covariance of two volumes where both are known."""
    mask = there if known is None else there & known
    if not mask.any():
        return 0.0
    return float(
        np.mean([np.cov(a[mask], b[mask])[0, 1] for a, b in zip(one, two, strict=True)])
    )

"""Match the frames of a series to one reference: their template, or a given image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._matching.phase_correlate import ShiftEstimate, no_match
from .._shared.arrays import Flags, Floats, Ints, Volume
from .._shared.results import Outcome
from .._shared.workers import Workers
from .frames import Frames, PlaneGroup, SeriesInputs, normalized_volume
from .template.image_fit import prepare_model
from .template.joint_alignment import (
    calibrate_reference,
    choose_weights,
    matched_numbers,
)
from .template.mean_image import MeanCanvas, Noise, PlacedImage
from .template.self_similarity import ShiftAmbiguity, find_ambiguity, flag_ambiguity
from .template.template import find_pattern, grow_template
from .template.template_fit import (
    Reference,
    match_frame,
    prepare_reference,
    search_centres,
)

__all__ = ["SeriesModel", "estimate_model", "mark_ambiguous", "match_to_template"]


# Share of the pixels of the best frame that a good one has, whose holes are those of all
# (test_bad_frames_are_bridged_and_cost_no_other).
WHOLE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesModel:
    """What some frames tell of the series."""

    canvas: MeanCanvas | None
    estimates: list[ShiftEstimate]
    pattern: Volume | None
    noise: Noise | None
    own_weights: bool  # whether each frame is weighed by what it shares
    ambiguous: bool  # whether what stays in place may be scene or camera


def estimate_model(
    sample: list[NDArray[Any]],
    group: PlaneGroup,
    pattern: Volume | None,
    look: bool,
    final: bool,
) -> SeriesModel:
    """Make a template of some frames, and find what stays in place if asked to.

    Where it is `final` frames are matched to it, and it is made as well as it can be.
    """
    read = [normalized_volume(frame, group) for frame in sample]
    # What is unknown in a good frame counts in none; other frames stay out.
    shares = [1.0 if known is None else float(known.mean()) for _, known in read]
    good = [
        known
        for (_, known), share in zip(read, shares, strict=True)
        if known is not None and share > WHOLE * max(shares)
    ]
    mask = np.logical_and.reduce(good) if good else None
    volumes = [
        volume
        if known is None or (mask is not None and known[mask].all())
        else np.zeros_like(volume)
        for volume, known in read
    ]
    if pattern is not None:
        volumes = [volume - pattern if volume.any() else volume for volume in volumes]
    if mask is not None:
        volumes = [np.where(mask, volume, np.float32(0)) for volume in volumes]
    found, ambiguous = grow_template(volumes, group.bounds, mask), False
    if look:
        pattern, found, ambiguous = find_pattern(volumes, found, group.bounds, mask)
    if final:
        found = choose_weights(found, mask)
    return SeriesModel(
        canvas=found.canvas,
        estimates=found.estimates,
        pattern=pattern,
        noise=found.noise,
        own_weights=found.own_weights,
        ambiguous=ambiguous,
    )


class Trajectory(NamedTuple):
    """Some frames, and about where they lie."""

    numbers: Ints
    shifts: Floats

    def at(self, number: int) -> Floats:
        """Return about where a frame lies."""
        along = [np.interp(number, self.numbers, shifts) for shifts in self.shifts.T]
        return np.array(along)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchTarget:
    """What each frame of a group is matched to."""

    group: PlaneGroup
    reference: Reference | None  # None if all frames were matched before
    pattern: Volume | None
    trajectory: Trajectory | None
    done: dict[int, ShiftEstimate]  # frames that were matched before
    ambiguities: list[ShiftAmbiguity]  # by places of frames; empty if unknown


def match_to_template(
    given: SeriesInputs, models: list[SeriesModel], workers: Workers, progress: bool
) -> list[list[ShiftEstimate]]:
    """Return the matches of each group, frame by frame, to one reference."""
    targets = {}
    for row, (group, model) in enumerate(zip(given.groups, models, strict=True)):
        target = _target_of(given, group, model)
        if target is not None:
            targets[row] = target
    found: list[list[ShiftEstimate]] = [[] for _ in models]
    lost = no_match(3, Outcome.NOT_FOUND)
    match = partial(_match_chunk, given.frames, targets)
    for chunk in given.frames.map_chunks(match, workers, progress, "align series"):
        for each in chunk:
            for row, estimates in enumerate(found):
                estimates.append(each.get(row, lost))
    for row, target in targets.items():
        found[row] = [flag_ambiguity(each, target.ambiguities) for each in found[row]]
    return [mark_ambiguous(*each) for each in zip(found, models, strict=True)]


def _match_chunk(
    frames: Frames, targets: dict[int, MatchTarget], chunk: tuple[int, Sequence[Any]]
) -> list[dict[int, ShiftEstimate]]:
    """Match some frames, given with the number of the first one, to each target."""
    start, entries = chunk
    return [
        {
            row: _match_to_target(frames.read(entry), target, start + n)
            for row, target in targets.items()
        }
        for n, entry in enumerate(entries)
    ]


def _match_to_target(
    frame: NDArray[Any], target: MatchTarget, number: int
) -> ShiftEstimate:
    if number in target.done or target.reference is None:
        return target.done[number]
    volume, known = normalized_volume(frame, target.group)
    if known is not None and not known.any():
        return no_match(3, Outcome.NO_TEXTURE)
    if not float(np.ptp(volume if known is None else volume[:, known])) > 0:
        return no_match(3, Outcome.NO_TEXTURE)
    if target.pattern is not None:
        volume = volume - target.pattern
    guess = None if target.trajectory is None else target.trajectory.at(number)
    return match_frame(target.reference, volume, known, guess)


def mark_ambiguous(
    found: list[ShiftEstimate], model: SeriesModel
) -> list[ShiftEstimate]:
    """Return matches that say whether the camera alone may have made them."""
    if not model.ambiguous:
        return found
    return [
        replace(each, outcome=Outcome.AMBIGUOUS)
        if each.outcome == Outcome.MATCHED
        else each
        for each in found
    ]


def _target_of(
    given: SeriesInputs, group: PlaneGroup, model: SeriesModel
) -> MatchTarget | None:
    """Return what frames of a group are matched to, or None if there is nothing."""
    textured = _textured_frames(given, group, model)
    image = _image_of(given, group, model)
    if not textured or image is None or not np.ptp(image.pixels) > 0:
        return None
    typical = textured[len(textured) // 2][0]
    if not np.ptp(typical) > 0:
        return None
    canvas, trajectory, done = None, None, {}
    if given.image is None:
        canvas = model.canvas
        # Frames of the template were compared with all others but themselves.
        there = matched_numbers(model.estimates)
        done = {int(given.numbers[n]): model.estimates[n] for n in there}
        if group.bounds.drifts:
            shifts = np.array([model.estimates[n].shift for n in there])
            trajectory = Trajectory(given.numbers[there], shifts)
    near = np.zeros((1, 3)) if trajectory is None else trajectory.shifts
    reference, noise, ratio = None, model.noise, 1.0
    if len(done) != given.frames.count:
        fitted = None
        if given.image is None and noise is not None:
            size, share = typical.shape[1:], 1 / max(len(done), 1)
            fitted = prepare_model(image, noise, share, near[0], size)
        reference = prepare_reference(
            image, typical, group.bounds, fitted, centres=near
        )
        if given.image is None:
            reference = replace(reference, own_weights=model.own_weights)
        else:
            reference, heard, ratio = calibrate_reference(reference, textured)
            noise = noise if heard is None else heard
    places = [] if noise is None else search_centres(near, typical.shape[1:])
    return MatchTarget(
        group=group,
        reference=reference,
        pattern=model.pattern,
        trajectory=trajectory,
        done=done,
        ambiguities=[
            find_ambiguity(
                image, noise, canvas, place, typical.shape, group.bounds, ratio
            )
            for place in places
            if noise is not None
        ],
    )


def _image_of(
    given: SeriesInputs, group: PlaneGroup, model: SeriesModel
) -> PlacedImage | None:
    """Return the image that frames are matched to: a given one, or their mean."""
    if given.image is None:
        return None if model.canvas is None else model.canvas.mean()
    pixels, known = normalized_volume(given.image, group)
    if given.frame is not None and model.pattern is not None:
        pixels = pixels - model.pattern
    return PlacedImage(pixels, known, np.zeros(3, np.intp))


def _textured_frames(
    given: SeriesInputs, group: PlaneGroup, model: SeriesModel
) -> list[tuple[Volume, Flags | None]]:
    """Return frames that show something, and where they count, without the pattern."""
    result = []
    for n, frame in zip(given.numbers.tolist(), given.sample, strict=True):
        volume, known = normalized_volume(frame, group)
        if np.ptp(volume) > 0 and (n != given.frame or len(given.sample) == 1):
            free = volume if model.pattern is None else volume - model.pattern
            result.append((free, known))
    return result

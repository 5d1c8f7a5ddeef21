"""Match the frames of a series, as they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._matching.phase_correlate import ShiftEstimate, mend_holes, no_match
from .._shared.arrays import Floats, Ints, Volume
from .._shared.results import Outcome
from .._shared.workers import Workers, spread
from .frames import Frames
from .template.frame_noise import Noise
from .template.joint_alignment import is_matched
from .template.mean_image import MeanCanvas
from .template.self_similarity import ShiftAmbiguity
from .template.template import find_pattern, grow_template
from .template.template_fit import (
    Reference,
    match_frame,
    match_masked,
    prepare_reference,
)
from .template.template_search import Bounds, no_match
from .template.weight_choice import choose_weights

__all__ = [
    "FrameLink",
    "MatchTarget",
    "PlaneGroup",
    "SeriesModel",
    "estimate_model",
    "match_frames",
    "match_neighbors",
    "normalized_volume",
]


# So many frames make the template: with n of them its noise adds 1 / n to the
# variance of a shift.
SAMPLE = 32
# Frames are handed to workers in chunks of this many, and chunks so many at a time.
CHUNK, BATCH = 16, 32
# A frame is good if it has this share of the pixels of the best one.
WHOLE = 0.9
# So many frames back a match is tried where the nearest ones fail.
TRIES = 8
# Of a chain, this many frames and one in so many of the rest close a loop.
CLOSED = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneGroup:
    """What frames are, and what is looked for: a whole frame, or some of its planes."""

    planes: list[int] | None
    valid: NDArray[np.bool_] | None
    offset: float
    scale: float
    bounds: Bounds


def normalized_volume(
    frame: Any, group: PlaneGroup
) -> tuple[Volume, NDArray[np.bool_] | None]:
    """Return a frame as (channels, planes, rows, cols), and where it counts."""
    image = np.asarray(frame)
    known: Any = group.valid
    if group.planes is not None:
        image = image[group.planes]
    if image.dtype.kind == "f":
        finite = np.isfinite(image)
        if not finite.all():
            known = finite if known is None else np.logical_and(finite, known)
            image = np.where(finite, image, group.offset)
    wide = np.float64 if image.dtype.itemsize > 4 else np.float32
    # Kernels go through its memory plane by plane, row by row.
    scaled = np.subtract(image, group.offset, dtype=wide, order="C")
    scaled *= 1 / group.scale
    volume: Any = scaled.astype(np.float32, copy=False)
    if group.planes is not None:
        volume = volume[:, None]
        if known is not None:
            known = known.all(axis=0)[None] if known.ndim == 3 else known[None]
    else:
        lead = (1,) * (4 - volume.ndim)
        volume = volume.reshape(*lead, *volume.shape)
        known = None if known is None else known.reshape(volume.shape[1:])
    if known is None or known.all():
        return volume, None
    if known.any() and len(volume) == 1:
        mended, known = mend_holes(volume[0].copy(), known)
        volume = mended[None]
    return np.where(known, volume, np.float32(0)), None if known.all() else known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesModel:
    """What some frames tell of the series."""

    canvas: MeanCanvas | None
    estimates: list[ShiftEstimate]
    pattern: Volume | None
    noise: Noise | None
    alone: bool  # whether frames are weighed one by one
    doubtful: bool  # whether what stays in place may be scene or camera


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
    found, doubtful = grow_template(volumes, group.bounds, mask), False
    if look:
        pattern, found, doubtful = find_pattern(volumes, found, group.bounds, mask)
    if final:
        found = choose_weights(found, mask)
    return SeriesModel(
        canvas=found.canvas,
        estimates=found.estimates,
        pattern=pattern,
        noise=found.noise,
        alone=found.alone,
        doubtful=doubtful,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchTarget:
    """What each frame of a group is matched to."""

    group: PlaneGroup
    picture: Reference | None  # None if all frames were matched before
    pattern: Volume | None
    path: tuple[Ints, Floats] | None  # some frames, and about where they lie
    done: dict[int, ShiftEstimate]  # frames that were matched before
    alike: list[
        ShiftAmbiguity
    ]  # what else may be, by places of frames; empty if unknown


def match_frames(
    frames: Frames, tasks: list[MatchTarget], workers: Workers, progress: bool
) -> Iterator[list[ShiftEstimate]]:
    """Yield the matches of each frame, one for each task."""
    match = partial(_match_chunk, frames, tasks)
    chunks = _numbered(frames.chunks(CHUNK))
    # Frames that are read once wait in memory until it is their turn.
    alone = workers == 1 and not progress
    count = 1 if alone else frames.waiting(CHUNK, BATCH)
    while batch := list(islice(chunks, count)):
        for found in spread(
            match, batch, workers=workers, progress=progress, title="align series"
        ):
            yield from found


def _numbered(chunks: Iterator[Sequence[Any]]) -> Iterator[tuple[int, Sequence[Any]]]:
    start = 0
    for chunk in chunks:
        yield start, chunk
        start += len(chunk)


def _match_chunk(
    frames: Frames, tasks: list[MatchTarget], chunk: tuple[int, Sequence[Any]]
) -> list[list[ShiftEstimate]]:
    start, entries = chunk
    return [
        [_match_frame_of(frames.read(entry), task, start + n) for task in tasks]
        for n, entry in enumerate(entries)
    ]


def _match_frame_of(
    frame: NDArray[Any], task: MatchTarget, number: int
) -> ShiftEstimate:
    if number in task.done or task.picture is None:
        return task.done[number]
    group, pattern = task.group, task.pattern
    volume, known = normalized_volume(frame, group)
    if known is not None and not known.any():
        return no_match(3, Outcome.NO_TEXTURE)
    if not float(np.ptp(volume if known is None else volume[:, known])) > 0:
        return no_match(3, Outcome.NO_TEXTURE)
    if pattern is not None:
        volume = volume - pattern
    guess = None
    if task.path is not None:
        numbers, shifts = task.path
        guess = np.array([np.interp(number, numbers, along) for along in shifts.T])
    return match_frame(task.picture, volume, known, guess)


# A frame: its number, and the volume and the mask of each group.
Read = tuple[int, list[tuple[Volume, NDArray[np.bool_] | None]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameLink:
    """A pair of frames, and how the second lies on the first."""

    first: int
    second: int
    estimate: ShiftEstimate
    # Only what it differs by from the links between its frames counts.
    check: bool = False


def match_neighbors(
    frames: Frames,
    groups: list[tuple[PlaneGroup, Volume | None]],
    reach: int,
    workers: Workers,
) -> tuple[list[list[FrameLink]], list[list[bool]]]:
    """Match each frame to those before it; return the links of each group.

    With them comes, for each group, which frames show something.

    Where none of the nearest frames matches, some before them are tried, so that a
    few bad frames do not part a series in two.
    """
    links: list[list[FrameLink]] = [[] for _ in groups]
    shown: list[list[bool]] = [[] for _ in groups]
    before: list[Read] = []
    for chunk in frames.chunks(CHUNK):
        new = []
        for frame in map(frames.read, chunk):
            new.append(
                (len(shown[0]), [_without_pattern(frame, *group) for group in groups])
            )
            for flags, read in zip(shown, new[-1][1], strict=True):
                flags.append(_has_texture_in(*read))
        kept = before + new
        for number, (group, _) in enumerate(groups):
            links[number] += _match_chunk_pairs(
                kept, len(before), number, group, reach, workers
            )
        before = kept[-(reach + TRIES) :]
    return links, shown


def _has_texture_in(volume: Volume, known: NDArray[np.bool_] | None) -> bool:
    """Return whether there is anything to see in a frame."""
    return (known is None or bool(known.any())) and float(np.ptp(volume)) > 0


def _without_pattern(
    frame: NDArray[Any], group: PlaneGroup, pattern: Volume | None
) -> tuple[Volume, NDArray[np.bool_] | None]:
    volume, known = normalized_volume(frame, group)
    textured = float(np.ptp(volume)) > 0
    return (volume - pattern if pattern is not None and textured else volume), known


def _match_chunk_pairs(
    kept: list[Read],
    start: int,
    number: int,
    group: PlaneGroup,
    reach: int,
    workers: Workers,
) -> list[FrameLink]:
    """Match the frames from `start` on to those before them."""
    match = partial(_match_pair, group)
    jobs = [
        (kept[i], kept[j])
        for j in range(start, len(kept))
        for i in range(max(0, j - reach), j)
    ]
    pairs = [(one[1][number], two[1][number]) for one, two in jobs]
    found = [
        FrameLink(first=one[0], second=two[0], estimate=estimate)
        for (one, two), estimate in zip(
            jobs, spread(match, pairs, workers=workers), strict=True
        )
    ]
    if reach == 1:
        # Neighbours alone close no loop, so some frames are matched to the last but one.
        found += [
            FrameLink(
                first=kept[j - 2][0],
                second=kept[j][0],
                estimate=match((kept[j - 2][1][number], kept[j][1][number])),
                check=True,
            )
            for j in range(max(start, 2), len(kept))
            if kept[j][0] < CLOSED or kept[j][0] % CLOSED == 0
        ]
    held = {
        link.second for link in found if is_matched(link.estimate) and not link.check
    }
    for j in range(start, len(kept)):
        if kept[j][0] in held:
            continue
        for i in range(j - reach - 1, max(-1, j - reach - 1 - TRIES), -1):
            estimate = match((kept[i][1][number], kept[j][1][number]))
            found.append(
                FrameLink(first=kept[i][0], second=kept[j][0], estimate=estimate)
            )
            if is_matched(estimate):
                break
    return found


def _match_pair(group: PlaneGroup, pair: Any) -> ShiftEstimate:
    (one, known0), (two, known1) = pair
    if not (_has_texture_in(one, known0) and _has_texture_in(two, known1)):
        return no_match(3, Outcome.NO_TEXTURE)
    if len(one) > 1:
        picture = prepare_reference(one, None, np.zeros(3, np.intp), two, group.bounds)
        return match_frame(picture, two)
    nowhere = np.zeros(3, np.intp)
    return match_masked((one[0], two[0]), (known0, known1), nowhere, group.bounds)

"""Align each group of planes of a series, to a picture or along links."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .._matching.phase_correlate import ShiftEstimate, no_match
from .._placement.solve_tiles import Placement, solve_rigid
from .._placement.uncertainty import position_covariance
from .._shared.arrays import Floats, Ints, Volume
from .._shared.results import Outcome
from .._shared.sparse import connected_groups
from .._shared.workers import Workers
from .arguments import SeriesInputs
from .frame_matching import (
    FrameLink,
    MatchTarget,
    PlaneGroup,
    SeriesModel,
    match_frames,
    match_neighbors,
    normalized_volume,
)
from .template.image_fit import prepare_model
from .template.joint_alignment import is_matched
from .template.self_similarity import find_ambiguity, flag_ambiguity
from .template.template_fit import prepare_reference, search_centres
from .template.template_search import no_match
from .template.weight_choice import calibrate_reference

__all__ = ["match_along_links", "match_to_template"]


# Loops tell what links have of their own if there are so many.
CLOSURES = 3
# Frames that are less unlike than this do not tell whether a scene changes.
UNLIKE = 1e-3


def match_to_template(
    given: SeriesInputs, learned: list[SeriesModel], workers: Workers, progress: bool
) -> list[list[ShiftEstimate]]:
    """Return the matches of each group, frame by frame, to one picture."""
    tasks, rows = [], []
    for row, (group, known) in enumerate(zip(given.groups, learned, strict=True)):
        task = _target_of(given, group, known)
        if task is not None:
            tasks.append(task)
            rows.append(row)
    found: list[list[ShiftEstimate]] = [[] for _ in learned]
    lost = no_match(3, Outcome.NOT_FOUND)
    for each in match_frames(given.frames, tasks, workers, progress):
        for row in range(len(learned)):
            found[row].append(each[rows.index(row)] if row in rows else lost)
    for row, task in zip(rows, tasks, strict=True):
        found[row] = [flag_ambiguity(each, task.alike) for each in found[row]]
    return [_mark_ambiguous(*each) for each in zip(found, learned, strict=True)]


def _mark_ambiguous(
    found: list[ShiftEstimate], known: SeriesModel
) -> list[ShiftEstimate]:
    """Return matches that say whether the camera alone may have made them."""
    if not known.doubtful:
        return found
    return [
        replace(each, outcome=Outcome.AMBIGUOUS)
        if each.outcome == Outcome.MATCHED
        else each
        for each in found
    ]


def _target_of(
    given: SeriesInputs, group: PlaneGroup, known: SeriesModel
) -> MatchTarget | None:
    """Return what frames of a group are matched to, or None if there is nothing."""
    textured = _textured_frames(given, group, known)
    if not textured:
        return None
    typical = textured[len(textured) // 2][0]
    path, done, alone, noise, noisier = None, {}, known.alone, known.noise, 1.0
    if given.given is not None:
        pixels, there = normalized_volume(given.given, group)
        if given.exact is not None and known.pattern is not None:
            pixels = pixels - known.pattern
        origin = np.zeros(3, np.intp)
    elif known.canvas is not None:
        pixels, there, origin = known.canvas.mean()
        path = _trajectory(given, known) if group.bounds.drifts else None
        # Frames of the template were compared with all others but themselves.
        found = zip(given.numbers.tolist(), known.estimates, strict=True)
        done = {n: estimate for n, estimate in found if is_matched(estimate)}
    else:
        return None
    if not np.ptp(pixels) > 0 or not np.ptp(typical) > 0:
        return None
    picture = None
    near = np.zeros((1, 3)) if path is None else path[1]
    part = 1 / max(len(done), 1)
    if len(done) != given.frames.count:
        overlay = None
        if given.given is None and known.noise is not None:
            size = np.array(typical.shape[1:])
            overlay = prepare_model(
                pixels, there, origin, known.noise, part, near[0], size
            )
        picture = prepare_reference(
            pixels, there, origin, typical, group.bounds, overlay, centres=near
        )
        if given.given is not None:
            picture, alone, heard, noisier = calibrate_reference(picture, textured)
            noise = noise if heard is None else heard
        picture = replace(picture, alone=alone)
    canvas = known.canvas if given.given is None else None
    alike = (
        []
        if noise is None
        else [
            find_ambiguity(
                (pixels, there, origin),
                noise,
                canvas,
                place,
                typical.shape,
                group.bounds,
                noisier,
            )
            for place in search_centres(near, typical.shape[1:])
        ]
    )
    return MatchTarget(
        group=group,
        picture=picture,
        pattern=known.pattern,
        path=path,
        done=done,
        alike=alike,
    )


def _textured_frames(
    given: SeriesInputs, group: PlaneGroup, known: SeriesModel
) -> list[tuple[Volume, NDArray[np.bool_] | None]]:
    """Return frames that show something, and where they count, without the pattern."""
    result = []
    for n, frame in zip(given.numbers.tolist(), given.sample, strict=True):
        volume, there = normalized_volume(frame, group)
        if np.ptp(volume) > 0 and (n != given.exact or len(given.sample) == 1):
            free = volume if known.pattern is None else volume - known.pattern
            result.append((free, there))
    return result


def _trajectory(given: SeriesInputs, known: SeriesModel) -> tuple[Ints, Floats]:
    """Return the numbers of some frames, and where they lie."""
    there = [n for n, each in enumerate(known.estimates) if is_matched(each)]
    return given.numbers[there], np.array([known.estimates[n].shift for n in there])


def match_along_links(
    given: SeriesInputs, learned: list[SeriesModel], workers: Workers
) -> list[list[ShiftEstimate]]:
    """Return where each frame of each group lies by the links between near frames."""
    groups = [
        (group, known.pattern)
        for group, known in zip(given.groups, learned, strict=True)
    ]
    links, shown = match_neighbors(given.frames, groups, given.reach or 1, workers)
    return [
        _mark_ambiguous(_solve_links(each, flags, given.ndim, given.from_first), known)
        for each, flags, known in zip(links, shown, learned, strict=True)
    ]


def _solve_links(
    links: list[FrameLink], shown: list[bool], ndim: int, from_first: bool
) -> list[ShiftEstimate]:
    """Place frames by the links that are believed, and tell what is known of each.

    The first frame of the largest group is the origin if it is asked for.
    """
    blank = Outcome.NOT_FOUND, Outcome.NO_TEXTURE
    found = [no_match(3, blank[not shows]) for shows in shown]
    good = [link for link in links if is_matched(link.estimate) and not link.check]
    if not good:
        return found
    numbers = np.array([(link.first, link.second) for link in good])
    used, rows = np.unique(numbers, return_inverse=True)
    rows = rows.reshape(-1, 2)
    axes = slice(3 - ndim, 3)
    moved = np.array([link.estimate.shift[axes] for link in good])
    group = connected_groups(rows, len(used))
    largest = np.bincount(group).argmax()
    origin = int((group == largest).argmax())
    told = np.array([link.estimate.covariance[axes, axes] for link in good])
    # Along an axis of one pixel nothing moves, and links leave nothing open.
    flat = np.asarray(~told.any(axis=(0, 1)))
    told[:, flat, flat] = 1.0
    placement = solve_rigid(
        rows,
        moved,
        np.zeros_like(moved),
        covariance=told,
        fixed=origin if from_first else None,
    )
    sure = _unambiguous_groups(
        good, rows[placement.inlier], placement.inlier, len(used)
    )
    core = sure[origin] if from_first else np.bincount(sure).argmax()
    apart = _told_apart(links, axes, int((~flat).sum()))
    covariance = _chain_covariance(placement, apart, ~flat)
    covariance[:, flat, :] = covariance[:, :, flat] = 0.0
    alarm, height, links_of = (
        np.ones(len(used)),
        np.zeros(len(used)),
        np.zeros(len(used)),
    )
    for link, pair in zip(good, rows, strict=True):
        alarm[pair] = np.minimum(alarm[pair], link.estimate.false_alarm)
        height[pair] += link.estimate.correlation
        links_of[pair] += 1
    for row, number in enumerate(used.tolist()):
        if group[row] != largest:
            found[number] = no_match(3, Outcome.ISOLATED)
            continue
        shift, spread = np.zeros(3), np.zeros((3, 3))
        shift[axes] = placement.matrices[row, :-1, -1]
        spread[axes, axes] = covariance[row]
        outcome = placement.outcome[row]
        if outcome == Outcome.MATCHED and sure[row] != core:
            outcome = Outcome.AMBIGUOUS
        found[number] = replace(
            no_match(3, outcome),
            shift=shift,
            covariance=spread,
            correlation=float(height[row] / links_of[row]),
            false_alarm=float(alarm[row]),
        )
    return found


def _told_apart(links: list[FrameLink], axes: slice, free: int) -> tuple[float, float]:
    """Return what links have of their own, of their variance, if none close loops.

    With it comes the part of a frame, and of its noise, that its links do not share:
    where it has left the picture, or where the scene changes meanwhile.
    """
    sure = [link for link in links if is_matched(link.estimate)]
    steps = {
        (link.first, link.second): link.estimate for link in sure if not link.check
    }
    closed, near, over, overlap = [], [], [], []
    for link in sure:
        if link.second == link.first + 1:
            near.append(link.estimate.correlation)
            overlap.append(link.estimate.overlap)
        if link.second == link.first + 2:
            over.append(link.estimate.correlation)
        one = steps.get((link.first, link.first + 1))
        two = steps.get((link.first + 1, link.second))
        if not link.check or one is None or two is None:
            continue
        rest = (link.estimate.shift - one.shift - two.shift)[axes]
        told = link.estimate.covariance + one.covariance + two.covariance
        inverse = np.linalg.pinv(told[axes, axes], hermitian=True)
        closed.append(float(rest @ inverse @ rest))
    height = float(np.mean(near).clip(0, 1)) if near else 0.0
    own = (1 - height) / (1 + height)
    if len(closed) >= CLOSURES:
        # By the median, since single ones may be off by a period of the scene: that of
        # so many squares is nearly this (Wilson & Hilferty 1931).
        own = float(np.median(closed)) / (free * (1 - 2 / (9 * free)) ** 3)
    shared = 1.0
    if near:
        # Boxes at both ends of a frame have this share of each in common.
        whole = max(float(np.median(overlap)), 1e-3)
        shared = max(2 * whole - 1, 0.0) / whole
    if near and over:
        # What changes from frame to frame is twice as much over two of them.
        alike = max(1 - float(np.median(near)), UNLIKE)
        more = (1 - float(np.median(over))) / alike - 1
        shared *= 1 - min(max(more, 0.0), 1.0)
    return own, 1 - shared


def _chain_covariance(
    placement: Placement, told_apart: tuple[float, float], active: NDArray[np.bool_]
) -> Floats:
    """Return the covariance of frames whose links share what noise does to each frame.

    The noise of a frame moves all its links alike: loops close over that, and chains do
    not add it up. Only what a link has of its own, where noise meets noise, adds up,
    and is what loops leave open.
    """
    alone = position_covariance(placement)
    kept = placement.inlier
    links, told = placement.links[kept], placement.covariance[kept]
    if not len(links):
        return alone
    inverse = np.linalg.inv(told)
    rest = placement.residuals[kept]
    used = np.unique(links)
    free = len(links) - len(used) + len(np.unique(placement.group[used]))
    share, apart = told_apart
    if free > 0:
        share = np.einsum("na,nab,nb->", rest, inverse, rest) / (free * active.sum())
    share += max(1 - share, 0.0) * apart
    # What the noise of each frame does, from all its links: half of what each tells.
    weights = np.zeros((len(alone), *told.shape[1:]))
    counts = np.zeros(len(alone))
    for end in links.T:
        np.add.at(weights, end, inverse)
        np.add.at(counts, end, 1)
    result, own = alone.copy(), np.zeros_like(alone)
    result[used] *= share
    own[used] = np.linalg.inv(weights[used]) * counts[used, None, None] / 2
    for number in np.unique(placement.group[used]):
        rows = used[placement.group[used] == number]
        held = rows[placement.fixed[rows]]
        count = len(rows)
        if len(held):
            shared = own[rows] + own[held[0]]
            shared[rows == held[0]] = 0
        else:
            shared = own[rows] * (1 - 2 / count) + own[rows].sum(axis=0) / count**2
        result[rows] += max(1 - share, 0.0) * shared
    return result


def _unambiguous_groups(
    links: list[FrameLink], pairs: Ints, inlier: NDArray[np.bool_], count: int
) -> Ints:
    """Return the groups of frames that links join without any ambiguity."""
    clear = [
        link.estimate.outcome == Outcome.MATCHED
        for link, kept in zip(links, inlier.tolist(), strict=True)
        if kept
    ]
    return connected_groups(pairs[clear], count)

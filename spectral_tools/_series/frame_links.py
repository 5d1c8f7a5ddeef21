"""Match near frames of a series to each other, and place all frames by these links."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._matching.phase_correlate import ShiftEstimate, no_match
from .._placement.solve_tiles import Placement, solve_rigid
from .._placement.uncertainty import position_covariance
from .._shared.arrays import Flags, Floats, Ints, Volume
from .._shared.results import Outcome
from .._shared.sparse import connected_groups
from .._shared.workers import Workers, spread
from .frame_matching import SeriesModel, mark_ambiguous
from .frames import Frames, PlaneGroup, SeriesInputs, normalized_volume
from .template.joint_alignment import is_matched
from .template.mean_image import PlacedImage
from .template.template_fit import match_frame, match_masked, prepare_reference

__all__ = ["match_along_links"]


# Frames before the nearest ones that are tried where these do not match
# (test_chain_says_where_it_is_parted_by_frames_without_texture).
TRIES = 8
# Of a chain, the first frames that close a loop each, and of the rest one in so many
# (test_error_bars_of_links_that_share_frames_are_honest).
CLOSED = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameLink:
    """A pair of frames, and how the second lies on the first."""

    first: int
    second: int
    estimate: ShiftEstimate
    # Only what it differs by from the links between its frames counts.
    check: bool = False

    def holds(self) -> bool:
        """Return whether it says where its frames lie."""
        return is_matched(self.estimate) and not self.check


class GroupFrame(NamedTuple):
    """The planes of a group in a frame, without the pattern, and where they count."""

    number: int
    volume: Volume
    known: Flags | None

    def has_texture(self) -> bool:
        """Return whether there is anything to see."""
        some = self.known is None or bool(self.known.any())
        return some and float(np.ptp(self.volume)) > 0


class OwnShares(NamedTuple):
    """Shares of the variance of a link that other links do not share."""

    noise: float  # what the link has of its own if no links close loops
    scene: float  # of the rest: where frames show other parts, or the scene changes


def match_along_links(
    given: SeriesInputs, models: list[SeriesModel], workers: Workers
) -> list[list[ShiftEstimate]]:
    """Return where each frame of each group lies by the links between near frames."""
    groups = [
        (group, model.pattern)
        for group, model in zip(given.groups, models, strict=True)
    ]
    links, shown = match_neighbors(given.frames, groups, given.reach or 1, workers)
    return [
        mark_ambiguous(_solve_links(each, flags, given.ndim, given.from_first), model)
        for each, flags, model in zip(links, shown, models, strict=True)
    ]


def _solve_links(
    links: list[FrameLink], shown: list[bool], ndim: int, from_first: bool
) -> list[ShiftEstimate]:
    """Place frames by the links that are matched, and tell what is known of each.

    The first frame of the largest group is the origin if it is asked for.
    """
    blank = Outcome.NOT_FOUND, Outcome.NO_TEXTURE
    found = [no_match(3, blank[not shows]) for shows in shown]
    good = [link for link in links if link.holds()]
    if not good:
        return found
    numbers = np.array([(link.first, link.second) for link in good])
    used, rows = np.unique(numbers, return_inverse=True)
    rows = rows.reshape(-1, 2)
    axes = slice(3 - ndim, 3)
    shifts = np.array([link.estimate.shift[axes] for link in good])
    group = connected_groups(rows, len(used))
    largest = np.bincount(group).argmax()
    origin = int((group == largest).argmax())
    errors = np.array([link.estimate.covariance[axes, axes] for link in good])
    # Along an axis of one pixel nothing moves, and links leave nothing open.
    flat = np.asarray(~errors.any(axis=(0, 1)))
    errors[:, flat, flat] = 1.0
    placement = solve_rigid(
        rows,
        shifts,
        np.zeros_like(shifts),
        covariance=errors,
        fixed=origin if from_first else None,
    )
    sure = _unambiguous_groups(good, rows, placement.inlier, len(used))
    core = sure[origin] if from_first else np.bincount(sure).argmax()
    shares = _own_shares(links, axes, int((~flat).sum()))
    covariance = _chain_covariance(placement, shares, ~flat)
    covariance[:, flat, :] = covariance[:, :, flat] = 0.0
    alarm, height, links_of = np.ones(len(used)), *np.zeros((2, len(used)))
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


def _unambiguous_groups(
    links: list[FrameLink], pairs: Ints, inlier: Flags, count: int
) -> Ints:
    """Return the groups of frames that links join without any ambiguity."""
    clear = [link.estimate.outcome == Outcome.MATCHED for link in links]
    return connected_groups(pairs[inlier & clear], count)


def _own_shares(links: list[FrameLink], axes: slice, free: int) -> OwnShares:
    """Return what of the variance of links does not cancel where they share a frame."""
    sure = [link for link in links if is_matched(link.estimate)]
    near = [link.estimate for link in sure if link.second == link.first + 1]
    over = [link.estimate for link in sure if link.second == link.first + 2]
    height = float(np.mean([e.correlation for e in near]).clip(0, 1)) if near else 0.0
    own = (1 - height) / (1 + height)
    closed = _closing_errors(sure, axes)
    if closed:
        # By the median, since single ones may be off by a period of the scene: that of
        # so many squares is nearly this (Wilson & Hilferty 1931).
        own = float(np.median(closed)) / (free * (1 - 2 / (9 * free)) ** 3)
    shared = 1.0
    if near:
        # Boxes at both ends of a frame have this share of each in common.
        whole = max(float(np.median([each.overlap for each in near])), 1e-3)
        shared = max(2 * whole - 1, 0.0) / whole
    if near and over:
        # What changes from frame to frame is twice as much over two of them.
        one, two = (np.median([e.correlation for e in some]) for some in (near, over))
        more = (1 - float(two)) / max(1 - float(one), 1e-30) - 1
        shared *= 1 - min(max(more, 0.0), 1.0)
    return OwnShares(noise=own, scene=1 - shared)


def _closing_errors(links: list[FrameLink], axes: slice) -> list[float]:
    """Return the squared errors of closed loops, in units of their covariances."""
    steps = {
        (link.first, link.second): link.estimate for link in links if not link.check
    }
    closed = []
    for link in links:
        one = steps.get((link.first, link.first + 1))
        two = steps.get((link.first + 1, link.second))
        if not link.check or one is None or two is None:
            continue
        rest = (link.estimate.shift - one.shift - two.shift)[axes]
        errors = link.estimate.covariance + one.covariance + two.covariance
        inverse = np.linalg.pinv(errors[axes, axes], hermitian=True)
        closed.append(float(rest @ inverse @ rest))
    return closed


def _chain_covariance(placement: Placement, shares: OwnShares, active: Flags) -> Floats:
    """Return the covariance of frames whose links share what noise does to each frame.

    The noise of a frame moves all its links alike: loops close over that, and chains do
    not add it up. Only what a link has of its own, where noise meets noise, adds up,
    and is what loops leave open.
    """
    result = position_covariance(placement)
    kept = placement.inlier
    links = placement.links[kept]
    if not len(links):
        return result
    inverse = np.linalg.inv(placement.covariance[kept])
    rest = placement.residuals[kept]
    used = np.unique(links)
    free = len(links) - len(used) + len(np.unique(placement.group[used]))
    share = shares.noise
    if free > 0:
        share = np.einsum("na,nab,nb->", rest, inverse, rest) / (free * active.sum())
    share += max(1 - share, 0.0) * shares.scene
    # What the noise of each frame does, from all its links: half of what each tells.
    weights, counts = np.zeros_like(result), np.zeros(len(result))
    for end in links.T:
        np.add.at(weights, end, inverse)
        np.add.at(counts, end, 1)
    own = np.zeros_like(result)
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
    kept: list[list[GroupFrame]] = [[] for _ in groups]
    for chunk in frames.chunks():
        for frame in map(frames.read, chunk):
            number = len(shown[0])
            for (group, pattern), flags, near in zip(groups, shown, kept, strict=True):
                near.append(_without_pattern(number, frame, group, pattern))
                flags.append(near[-1].has_texture())
        for (group, _), found, near in zip(groups, links, kept, strict=True):
            start = len(near) - len(chunk)
            found.extend(_link_frames(near, start, group, reach, workers))
            del near[: -(reach + TRIES)]
    return links, shown


def _without_pattern(
    number: int, frame: NDArray[Any], group: PlaneGroup, pattern: Volume | None
) -> GroupFrame:
    volume, known = normalized_volume(frame, group)
    textured = float(np.ptp(volume)) > 0
    free = volume - pattern if pattern is not None and textured else volume
    return GroupFrame(number, free, known)


def _link_frames(
    kept: list[GroupFrame],
    start: int,
    group: PlaneGroup,
    reach: int,
    workers: Workers,
) -> list[FrameLink]:
    """Match the frames from `start` on to those before them."""
    link, rows = partial(_match_pair, group), range(start, len(kept))
    pairs = [(kept[i], kept[j]) for j in rows for i in range(max(0, j - reach), j)]
    found = list(spread(link, pairs, workers=workers))
    if reach == 1:
        # Neighbours alone close no loop, so some frames are matched to the last but one.
        found += [
            replace(link((kept[j - 2], kept[j])), check=True)
            for j in range(max(start, 2), len(kept))
            if kept[j].number < CLOSED or kept[j].number % CLOSED == 0
        ]
    held = {each.second for each in found if each.holds()}
    for j in rows:
        if kept[j].number in held:
            continue
        for i in range(j - reach - 1, max(-1, j - reach - 1 - TRIES), -1):
            found.append(link((kept[i], kept[j])))
            if found[-1].holds():
                break
    return found


def _match_pair(group: PlaneGroup, pair: tuple[GroupFrame, GroupFrame]) -> FrameLink:
    """Match two frames, each to the other as a whole."""
    one, two = pair
    origin = np.zeros(3, np.intp)
    if not (one.has_texture() and two.has_texture()):
        estimate = no_match(3, Outcome.NO_TEXTURE)
    elif len(one.volume) > 1:
        image = PlacedImage(one.volume, None, origin)
        reference = prepare_reference(image, two.volume, group.bounds)
        estimate = match_frame(reference, two.volume)
    else:
        volumes, known = (one.volume[0], two.volume[0]), (one.known, two.known)
        estimate = match_masked(volumes, known, origin, group.bounds)
    return FrameLink(first=one.number, second=two.number, estimate=estimate)

"""Place the sections of a stack from the points of all links."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._placement.solve_tiles import solve_affine, solve_rigid
from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.results import Outcome
from ..._shared.sparse import connected_groups
from ..._transforms.matrices import (
    apply_transform,
    nearest_rotations,
    points_apart,
    rotations,
    translation,
)

__all__ = ["PlacedSections", "StackPoints", "mirrored_sections", "place_sections"]


# A pair of sections is believed if this share of its points is.
BELIEVED = 0.5
# Dropping pairs settles after so many rounds.
ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackPoints:
    """Pairs of points of a stack: one row for each, and which pair it belongs to."""

    links: Ints  # (n_links, 2)
    reference: Floats
    moving: Floats
    covariance: Floats
    pair: Ints  # (n_links,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedSections:
    """Where sections lie, and what was believed."""

    matrices: Floats
    residuals: Floats
    inlier: Flags  # of points
    believed: Flags  # of pairs
    group: Ints
    outcome: NDArray[np.object_]


def mirrored_sections(
    count: int, pairs: Ints, mirrored: Flags, weight: Floats, fixed: int | None
) -> Flags:
    """Tell which sections lie upside down, by the best links that join all.

    In each group that links join, the `fixed` section, or else most of them, do not.
    """
    flipped = np.zeros(count, np.bool_)
    group = np.arange(count)
    for row in np.argsort(-weight, kind="stable"):
        first, second = pairs[row]
        if group[first] == group[second]:
            continue
        joined = group == group[second]
        flipped[joined] ^= flipped[first] ^ flipped[second] ^ mirrored[row]
        group[joined] = group[first]
    for number in np.unique(group):
        members = group == number
        turn = flipped[members].mean() > 0.5
        if fixed is not None and members[fixed]:
            turn = flipped[fixed]
        flipped[members] ^= bool(turn)
    return flipped


def place_sections(
    points: StackPoints,
    flipped: Flags,
    shapes: list[tuple[int, ...]],
    model: str,
    fixed: int | None,
) -> PlacedSections:
    """Solve all links together, fix what they leave open, and bridge gaps.

    Parameters
    ----------
    points : StackPoints
        What links say.
    flipped : ndarray of bool, shape (n,)
        Sections that lie upside down.
    shapes : list of tuple
        Rows and columns of each section.
    model : {"rigid", "affine"}
        What sections may do besides lying upside down.
    fixed : int or None
        The section that stays as it is.
    """
    count = len(shapes)
    centres = (np.array(shapes, np.float64) - 1) / 2
    flips = np.tile(np.eye(3), (count, 1, 1))
    flips[flipped, 1, 1] = -1
    flips[flipped, 1, 2] = 2 * centres[flipped, 1]
    reference = _transformed(flips, points.links[:, 0], points.reference)
    moving = _transformed(flips, points.links[:, 1], points.moving)
    # Upside down, columns change their sign.
    sign = np.where(flipped[points.links[:, 0]], -1.0, 1.0)
    covariance = points.covariance.copy()
    covariance[:, 0, 1] *= sign
    covariance[:, 1, 0] *= sign

    pairs = int(points.pair.max(initial=-1)) + 1
    believed = np.ones(pairs, np.bool_)
    matrices = np.tile(np.eye(3), (count, 1, 1))
    inlier = np.zeros(len(points.links), np.bool_)
    for _ in range(ROUNDS if pairs else 0):
        kept = believed[points.pair]
        matrices, inside = _solve_positions(
            points.links[kept],
            reference[kept],
            moving[kept],
            covariance[kept],
            centres,
            model,
            fixed,
        )
        inlier = np.zeros(len(kept), np.bool_)
        inlier[kept] = inside
        rows = np.bincount(points.pair, minlength=pairs)
        share = np.bincount(points.pair, inlier, pairs) / np.maximum(rows, 1)
        if not (believed & (share < BELIEVED)).any():
            break
        believed &= share >= BELIEVED
    inlier &= believed[points.pair]
    group = connected_groups(points.links[inlier], count)
    matrices = _fix_gauge(matrices, group, centres, fixed) @ flips
    matched = np.zeros(count, np.bool_)
    matched[points.links[inlier]] = True
    outcome = np.empty(count, object)
    outcome[:] = Outcome.ISOLATED
    outcome[np.unique(points.links)] = Outcome.CONTRADICTED
    outcome[matched] = Outcome.MATCHED
    if fixed is not None:
        matched[fixed] = True
    matrices = _bridge_gaps(matrices, matched, group, centres)
    residuals = points_apart(matrices, points.links, points.reference, points.moving)
    return PlacedSections(
        matrices=matrices,
        residuals=residuals,
        inlier=inlier,
        believed=believed,
        group=group,
        outcome=outcome,
    )


def _transformed(matrices: Floats, numbers: Ints, points: Floats) -> Floats:
    linear, shift = matrices[numbers, :2, :2], matrices[numbers, :2, 2]
    return np.asarray((linear @ points[:, :, np.newaxis])[:, :, 0] + shift)


def _solve_positions(
    links: Ints,
    reference: Floats,
    moving: Floats,
    covariance: Floats,
    centres: Floats,
    model: str,
    fixed: int | None,
) -> tuple[Floats, Flags]:
    """Turn sections as links say; then, if they may, let them stretch and shear."""
    count = len(centres)
    known: dict[str, Any] = {"positions": np.zeros((count, 2)), "fixed": fixed}
    turned = solve_rigid(
        links, reference, moving, covariance=covariance, rotation=True, **known
    )
    if model == "rigid":
        return turned.matrices, turned.inlier
    group = connected_groups(links[turned.inlier], count)
    upright = _fix_gauge(turned.matrices, group, centres, fixed)
    # Covariances are those of the axes of the reference, which now are turned.
    axes = upright[links[:, 0], :2, :2]
    bent = solve_affine(
        links,
        _transformed(upright, links[:, 0], reference),
        _transformed(upright, links[:, 1], moving),
        covariance=axes @ covariance @ axes.transpose(0, 2, 1),
        **known,
    )
    return bent.matrices @ upright, bent.inlier


def _fix_gauge(
    matrices: Floats, group: Ints, centres: Floats, fixed: int | None
) -> Floats:
    """Turn and shift each group as a whole to where it belongs.

    Its mean angle becomes zero, and the mean of its centres that of the frame, unless
    it holds the section that is `fixed`.
    """
    anchored = matrices.copy()
    middle = centres.mean(axis=0) if fixed is None else centres[fixed]
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        if fixed is not None and fixed in rows:
            change = np.linalg.inv(matrices[fixed])
        else:
            change = np.eye(3)
            # The mean linear part of sections that stretch is the identity already.
            mean = nearest_rotations(matrices[rows, :2, :2].sum(axis=0)[np.newaxis])[0]
            change[:2, :2] = mean.T
            places = _transformed(matrices[rows], np.arange(len(rows)), centres[rows])
            change[:2, 2] = middle - change[:2, :2] @ places.mean(axis=0)
        anchored[rows] = change @ matrices[rows]
    return anchored


def _bridge_gaps(
    matrices: Floats, matched: Flags, group: Ints, centres: Floats
) -> Floats:
    """Let sections that nothing places follow from those before and behind."""
    bridged = matrices.copy()
    known = np.flatnonzero(matched)
    for section in np.flatnonzero(~matched) if len(known) else ():
        before, behind = known[known < section], known[known > section]
        ends = [*before[-1:], *behind[:1]]
        # Nothing relates the two ends of a gap that no link crosses.
        if len(ends) == 2 and group[ends[0]] != group[ends[1]]:
            ends = ends[: 1 + (section - ends[0] > ends[1] - section)][-1:]
        share = 0.0
        if len(ends) == 2:
            share = (section - ends[0]) / (ends[1] - ends[0])
        bridged[section] = _interpolate_pose(matrices[ends], share, centres[section])
    return bridged


def _interpolate_pose(ends: Floats, share: float, centre: Floats) -> Floats:
    """Return the matrix at a share of the way from the first end to the last."""
    change = ends[-1, :2, :2] @ np.linalg.inv(ends[0, :2, :2])
    if np.linalg.det(change) < 0:
        return np.asarray(ends[round(share)])
    turn = nearest_rotations(change[np.newaxis])[0]
    angle = math.atan2(turn[1, 0], turn[0, 0])
    stretch = np.eye(2) + share * (turn.T @ change - np.eye(2))
    linear = rotations(np.array([[share * angle]]))[0] @ stretch @ ends[0, :2, :2]
    places = [apply_transform(end, centre) for end in ends]
    target = (1 - share) * places[0] + share * places[-1]
    matrix = translation(target - linear @ centre)
    matrix[:2, :2] = linear
    return matrix

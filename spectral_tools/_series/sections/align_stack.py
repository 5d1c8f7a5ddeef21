"""Align the sections of a stack that lie at any angle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._matching.orientation.pose_search import Range
from ..._placement.solve_tiles import solve_affine, solve_rigid
from ..._shared.arguments import checked
from ..._shared.arrays import Flags, Floats, Ints, unstacked
from ..._shared.checks import (
    Valid,
    as_image,
    as_valid,
    check_count,
    check_positive,
    image_dtype,
    masks_in_order,
    read_image,
)
from ..._shared.results import Outcome, result
from ..._shared.sparse import connected_groups
from ..._shared.workers import Workers, spread
from ..._transforms.matrices import (
    apply_transform,
    nearest_rotations,
    points_apart,
    rotations,
    translation,
)
from .section_matching import (
    Section,
    SectionLink,
    SectionPair,
    block_side,
    make_section,
    match_sections,
)

__all__ = ["StackAlignment", "align_stack"]

Matcher = Callable[[list[tuple[int, int]]], Iterable[SectionLink]]

MODELS = ("rigid", "affine")
# Sections by which links reach further where a stack falls apart
# (test_bad_sections_are_bridged).
FURTHER = 3
# Angles that are tried one by one, at most: for more, spectra suggest them (bench_stack.py).
MOST_ANGLES = 16
# Distance of these angles, in radians (test_angles_beyond_the_bound_are_refused).
STEP = math.radians(2)
# Share of its points by which a pair of sections is believed
# (test_bad_sections_are_bridged).
TRUSTED = 0.5


@result
class StackAlignment:
    """Where each section of a stack lies, and what says so.

    Attributes
    ----------
    matrices : ndarray of shape (n, 3, 3)
        From each section to the stack, for points (row, col).
    outcome : ndarray of shape (n,)
        An `Outcome` for each section: matched; no texture; isolated, if no link
        to it was found; contradicted, if none of its links is believed. Unless it
        is matched, its matrix follows from the sections before and behind it.
    group : ndarray of int, shape (n,)
        Number of the group of each section that believed links join. How two groups
        lie to each other nobody can know.
    pairs : ndarray of int, shape (n_pairs, 2)
        Pairs of sections that were matched: the reference and the moving one.
    pair_outcome : ndarray of shape (n_pairs,)
        An `Outcome` for each pair; contradicted if the other pairs do not allow it.
    correlation : ndarray of shape (n_pairs,)
        Zero-mean normalised cross-correlation of the two sections under the pose
        that was found, -1 to 1.
    false_alarm : ndarray of shape (n_pairs,)
        Probability that chance alone gives such a match, 0 to 1.
    links : ndarray of int, shape (n_links, 2)
        The sections of each pair of points, as `relax_meshes` takes them.
    reference_points, moving_points : ndarray of shape (n_links, 2)
        Points of the one and the other section that show the same thing, in pixels.
    covariance : ndarray of shape (n_links, 2, 2)
        Covariance of reference less moving point, in square pixels, with what
        sections really differ by.
    residuals : ndarray of shape (n_links, 2)
        How far the two points of each pair are apart in the stack, in pixels.
    inlier : ndarray of bool, shape (n_links,)
        Pairs of points that are believed.
    """

    matrices: Floats
    outcome: NDArray[np.object_]
    group: Ints
    pairs: Ints
    pair_outcome: NDArray[np.object_]
    correlation: Floats
    false_alarm: Floats
    links: Ints
    reference_points: Floats
    moving_points: Floats
    covariance: Floats
    residuals: Floats
    inlier: Flags


@checked
def align_stack(
    sections: Any,
    *,
    reach: int = 2,
    model: Literal["rigid", "affine"] = "rigid",
    mirror: bool = False,
    max_rotation: float | None = None,
    valid: Valid = None,
    fixed: int | None = None,
    workers: Workers = 1,
    progress: bool = False,
) -> StackAlignment:
    """Find how the sections of a stack lie on each other, whichever way each is turned.

    No guess is needed. Each section is matched to its next neighbours at any angle,
    then around a grid of points, and all these links are solved together, so that
    no section leans on a single one before it and noise does not add up as in a
    chain [1]_; tissue that leans does. What contradicts the others does not count; sections that show nothing,
    or something else, are found by their links, and bridged by those over them.

    Parameters
    ----------
    sections : array_like of shape (n, rows, cols) or sequence of array_like
        Images in the order of the stack, of any real dtype. In a sequence their
        shapes may differ. A stack may be anything that is sliced like an array
        (h5py, zarr, memmap, dask). NaN pixels do not count.
    reach : int, optional
        Match each section to so many that follow. Where that leaves the stack in
        pieces, links reach further by up to three sections.
    model : {"rigid", "affine"}, optional
        Whether a section may turn and shift only, or stretch and shear too.
    mirror : bool, optional
        Whether sections may lie upside down.
    max_rotation : float, optional
        Largest angle between two sections, in radians. Sections that are nearly
        upright are then found with more noise. By default any angle.
    valid : array_like of bool, of shape (rows, cols) or (n, rows, cols), optional
        True where a pixel counts: for all sections, or a mask or None for each.
    fixed : int, optional
        Section that stays where it is. By default the mean angle of the sections is
        zero, the mean of their linear parts the identity, and the mean of their centres
        that of the frame.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    StackAlignment
        The matrix and the outcome of each section, and the links that say so.

    Raises
    ------
    ValueError
        If there are less than two sections, one is not 2-D, or an option is out of
        range.
    TypeError
        If a section does not hold real numbers.

    See Also
    --------
    match_orientation : Does it for two images.
    relax_meshes : Bends the sections until their points meet.
    align_series : Aligns frames that only shift.

    Notes
    -----
    Images are matched on means of blocks of pixels, about 512 along each side. The
    error bar of each point knows how far the points of its link scatter: sections
    that follow each other really differ.

    Links only tell how sections lie to each other. How the whole stack leans is
    lost with the block it was cut from: over many sections angles and shifts still
    wander, less the further links reach. Stretches are held: they
    are small beside one, as far as points do not ask for more.

    References
    ----------
    .. [1] Saalfeld et al. (2012). Elastic volume reconstruction from series of
       ultra-thin microscopy sections. Nat. Methods 9, 717.
       :doi:`10.1038/nmeth.2072`

    Examples
    --------
    Four sections of one scene, each turned further by a third of a turn, and the
    third one lost:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((400, 400), cutoff=0.2, rng=1)
    >>> turns = [spt.rotation(2 * n, center=(200, 200)) for n in range(4)]
    >>> sections = [spt.warp_image(scene, turn)[120:280, 120:280] for turn in turns]
    >>> sections[2][:] = 0
    >>> stack = spt.align_stack(sections, fixed=0)
    >>> list(map(str, stack.outcome))
    ['matched', 'matched', 'no texture', 'matched']
    >>> angles = np.arctan2(stack.matrices[:, 1, 0], stack.matrices[:, 0, 0])
    >>> angles[[0, 1, 3]].round(3) + 0
    array([ 0.   , -2.   ,  0.283])
    """
    check_count(reach, "reach")
    if model not in MODELS:
        message = f"`model` must be 'rigid' or 'affine'; got {model!r}."
        raise ValueError(message)
    if max_rotation is not None:
        check_positive(max_rotation, "max_rotation")
    images = unstacked(sections, "sections")
    masks = _check_sections(images, valid)
    if fixed is not None and not 0 <= fixed < len(images):
        message = f"`fixed` must be one of {len(images)} sections; got {fixed!r}."
        raise ValueError(message)

    sketch = partial(_read, images, masks, block_side(images, masks))
    kept = list(
        spread(
            sketch,
            range(len(images)),
            workers=workers,
            progress=progress,
            title="sections",
        )
    )
    reach = min(reach, len(images) - 1)
    match = partial(match_sections, _angle_range(max_rotation, mirror), max_rotation)

    def run(pairs: list[tuple[int, int]]) -> Iterable[SectionLink]:
        tasks = [SectionPair(kept[i], kept[j]) for i, j in pairs]
        return spread(match, tasks, workers=workers, progress=progress, title="links")

    pairs, links = _match_pairs(kept, reach, run)
    return _gather(kept, pairs, links, model, fixed)


def _check_sections(images: Sequence[Any], valid: Any) -> list[Flags | None]:
    """Check shapes and types of sections, and return a mask or None for each."""
    if len(images) < 2:
        message = f"`sections` must hold at least two sections; got {len(images)}."
        raise ValueError(message)
    for number, image in enumerate(images):
        shape = np.shape(image)
        if len(shape) != 2 or 0 in shape:
            message = (
                "`sections` must hold 2-D images with at least one pixel; "
                f"got shape {shape} as section {number}."
            )
            raise ValueError(message)
        image_dtype(image.dtype, "sections")
    masks = masks_in_order(valid, range(len(images)), 2, "sections")
    return [
        as_valid(mask, np.shape(image), "valid")
        for mask, image in zip(masks, images, strict=True)
    ]


def _read(
    images: Sequence[Any], masks: list[Flags | None], factor: int, number: int
) -> Section:
    image = read_image(images[number], f"sections[{number}]", dtype=np.float32)
    return make_section(factor, (as_image(image, "sections"), masks[number]))


def _angle_range(max_rotation: float | None, mirror: bool) -> Range:
    """Return which turns are looked for: a few angles, or what spectra suggest."""
    angles = None
    if max_rotation is not None:
        count = 2 * math.ceil(max_rotation / STEP) + 1
        if count <= MOST_ANGLES:
            angles = np.linspace(-max_rotation, max_rotation, count)
    return Range(low=0.0, high=0.0, mirror=bool(mirror), angles=angles)


def _match_pairs(
    kept: list[Section], reach: int, run: Matcher
) -> tuple[Ints, list[SectionLink]]:
    """Match neighbours, and sections further apart where the stack falls apart."""
    usable = [n for n, section in enumerate(kept) if section.sketch is not None]
    group = np.arange(len(kept))
    pairs: list[tuple[int, int]] = []
    links: list[SectionLink] = []
    for distance in range(1, reach + FURTHER + 1):
        more = list(zip(usable, usable[distance:], strict=False))
        if distance > reach:
            more = [(i, j) for i, j in more if group[i] != group[j]]
        pairs += more
        if distance >= reach:
            links += run(pairs[len(links) :])
            found = [link.outcome == Outcome.MATCHED for link in links]
            group = connected_groups(_as_pairs(pairs)[found], len(kept))
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return _as_pairs([pairs[n] for n in order]), [links[n] for n in order]


def _as_pairs(pairs: list[tuple[int, int]]) -> Ints:
    return np.array(pairs, np.intp).reshape(-1, 2)


def _gather(
    kept: list[Section],
    pairs: Ints,
    links: list[SectionLink],
    model: str,
    fixed: int | None,
) -> StackAlignment:
    """Solve all links together, and put the answer into words."""
    found = np.array([link.outcome == Outcome.MATCHED for link in links], np.bool_)
    mirrored = np.array([link.mirrored for link in links], np.bool_)
    heights = np.array([link.correlation for link in links])
    flipped = _mirrored_sections(
        len(kept), pairs[found], mirrored[found], heights[found], fixed
    )
    # A link that says otherwise than better ones contradicts them.
    same = mirrored == np.logical_xor(*flipped[pairs.T])
    used = np.flatnonzero(found & same)
    rows = np.repeat(
        np.arange(len(used)), [len(links[n].reference_points) for n in used]
    )
    empty = SectionLink(
        outcome=Outcome.NOT_FOUND,
        mirrored=False,
        correlation=0.0,
        false_alarm=1.0,
        reference_points=np.empty((0, 2)),
        moving_points=np.empty((0, 2)),
        covariance=np.empty((0, 2, 2)),
    )
    chosen = [empty, *(links[n] for n in used)]
    points = StackPoints(
        links=pairs[used][rows],
        reference=np.concatenate([link.reference_points for link in chosen]),
        moving=np.concatenate([link.moving_points for link in chosen]),
        covariance=np.concatenate([link.covariance for link in chosen]),
        pair=rows,
    )
    placed = _place_sections(
        points, flipped, [section.shape for section in kept], model, fixed
    )
    outcome = placed.outcome.copy()
    outcome[[section.sketch is None for section in kept]] = Outcome.NO_TEXTURE
    pair_outcome = np.empty(len(links), object)
    pair_outcome[:] = [link.outcome for link in links]
    pair_outcome[found & ~same] = Outcome.CONTRADICTED
    pair_outcome[used[~placed.believed]] = Outcome.CONTRADICTED
    return StackAlignment(
        matrices=placed.matrices,
        outcome=outcome,
        group=placed.group,
        pairs=pairs,
        pair_outcome=pair_outcome,
        correlation=heights,
        false_alarm=np.array([link.false_alarm for link in links]),
        links=points.links,
        reference_points=points.reference,
        moving_points=points.moving,
        covariance=points.covariance,
        residuals=placed.residuals,
        inlier=placed.inlier,
    )


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


def _mirrored_sections(
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


def _place_sections(
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
    settled = not pairs
    while not settled:
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
        settled = not (believed & (share < TRUSTED)).any()
        believed &= share >= TRUSTED
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

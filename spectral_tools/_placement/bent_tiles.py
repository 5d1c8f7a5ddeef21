"""Links of tiles that one field bends, as those of corrected tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._matching.match_tiles import TileMatches
from .._matching.overlap_windows import OverlapWindows
from .._shared.arrays import Floats, Ints
from .._shared.checks import as_finite
from .._shared.sparse import sum_rows
from .._transforms.fields.displacement import apply_displacement
from .layout import Layout
from .solve_distortion import (
    MODELS,
    NODES,
    Distortion,
    corrected_windows,
    solve_distortion,
    systematic_offsets,
)
from .solve_tiles import Placement
from .uncertainty import follow_offsets

__all__ = [
    "Matched",
    "WindowSeams",
    "as_tile_field",
    "corrected_matches",
    "field_from_windows",
    "systematic_moves",
    "window_seams",
]


class Matched(NamedTuple):
    """What was found along links, and in the windows of each; None where there are none."""

    links: TileMatches
    windows: list[OverlapWindows | None]


def as_tile_field(
    displacement: ArrayLike | None, distortion: int | str | None, layout: Layout
) -> Floats | None:
    """Return the field that is known, once it is known that tiles can be bent."""
    if displacement is None and distortion is None:
        return None
    name = "displacement" if distortion is None else "distortion"
    if displacement is not None and distortion is not None:
        message = "`distortion` must be None where `displacement` is given; got both."
        raise ValueError(message)
    if not layout.alike or len(layout.size) != 2:
        message = f"`{name}` must come with flat tiles of one shape; got others."
        raise ValueError(message)
    if displacement is None:
        known = isinstance(distortion, str) and distortion in MODELS
        degree = distortion if isinstance(distortion, int | np.integer) else 0
        if not known and degree < 2:
            message = (
                "`distortion` must be a degree of at least 2 or one of "
                f"{', '.join(MODELS)}; got {distortion!r:.60}."
            )
            raise ValueError(message)
        return None
    field = as_finite(displacement, "displacement")
    wanted = (*layout.size.astype(int).tolist(), 2)
    if field.shape != wanted:
        message = f"`displacement` must have shape {wanted}; got {field.shape}."
        raise ValueError(message)
    return field


def field_from_windows(
    layout: Layout, matched: Matched, solved: Placement, distortion: int | str
) -> tuple[Distortion, Matched]:
    """Find what bends all tiles by the windows of links that are believed.

    Also returned are the matches without windows that contradict it.
    """
    held = {
        row: each
        for row, each in enumerate(matched.windows)
        if solved.inlier[row] and not solved.chosen[row] and each and len(each.points)
    }
    if not held:
        message = (
            "`distortion` must be told by windows of overlaps; got none that match."
        )
        raise ValueError(message)
    every, link = _joined(held)
    named = isinstance(distortion, str)
    found = solve_distortion(
        layout.links[list(held)][link],
        every.points,
        every.points - every.shift,
        shape=layout.size.astype(int).tolist(),
        size=every.size,
        covariance=every.covariance,
        model=distortion if named else "polynomial",  # type: ignore[arg-type]
        degree=None if named else distortion,  # type: ignore[arg-type]
    )
    windows = list(matched.windows)
    for number, (row, each) in enumerate(held.items()):
        believed = found.placement.inlier[link == number]
        windows[row] = OverlapWindows(*(values[believed] for values in each))
    return found, matched._replace(windows=windows)


def _joined(held: dict[int, OverlapWindows]) -> tuple[OverlapWindows, Ints]:
    """Return the windows of some links one after the other, and whose each of them is."""
    every = OverlapWindows(*map(np.concatenate, zip(*held.values(), strict=True)))
    return every, np.repeat(
        range(len(held)), [len(each.points) for each in held.values()]
    )


def _means_of_windows(link: Ints, covariance: Floats, values: Floats) -> Floats:
    """Return the weighted means of values (n, 2, k) over the windows of each link."""
    count = int(link.max(initial=-1)) + 1
    weights = np.linalg.inv(covariance).astype(np.float64, copy=False)
    pull = sum_rows(link, np.einsum("nij,njk->nik", weights, values), count)
    means = np.linalg.solve(sum_rows(link, weights, count), pull)
    return np.asarray(means, np.float64)


def corrected_matches(
    links: TileMatches,
    windows: list[OverlapWindows | None],
    bent: Floats | Distortion,
) -> TileMatches:
    """Return what links say of corrected tiles: each is what its windows say together."""
    found = {n: each for n, each in enumerate(windows) if each and len(each.points)}
    recorded = [(links.reference_points, links.size), (links.moving_points, links.size)]
    for each in found.values():
        moving = each.points - each.shift
        recorded += [(each.points, each.size), (moving, each.size)]
    corrected = _corrected(recorded, bent)
    reference, moving = corrected[0].copy(), corrected[1].copy()
    covariance = links.covariance.copy()
    seen = zip(found.items(), corrected[2::2], corrected[3::2], strict=True)
    for (row, each), one, other in seen:
        weights = np.linalg.inv(each.covariance)
        spread = np.linalg.inv(weights.sum(axis=0))
        offset = spread @ np.einsum("nij,nj->i", weights, one - other)
        away = one - other - offset
        freedom = max(away.size - away.shape[1], 1)
        square = np.einsum("ni,nij,nj->", away, weights, away) / freedom
        reference[row] = spread @ np.einsum("nij,nj->i", weights, one)
        moving[row] = reference[row] - offset
        covariance[row] = spread * max(square, 1.0)
    # Where a field folds, nothing is known.
    folded = ~np.isfinite(reference + moving).all(axis=1)
    reference[folded] = links.reference_points[folded]
    moving[folded] = links.moving_points[folded]
    covariance[folded] = np.diag(np.full(reference.shape[1], np.inf))
    # Other peaks keep their distance from the first.
    others = links.alternatives - links.alternatives[:, :1]
    return replace(
        links,
        reference_points=reference,
        moving_points=moving,
        covariance=covariance,
        alternatives=reference[:, np.newaxis] + others,
    )


def _corrected(
    windows: list[tuple[Floats, Floats]], bent: Floats | Distortion
) -> list[Floats]:
    """Return where points and sizes of windows say that these belong, in the mean."""
    if isinstance(bent, Distortion):
        return [corrected_windows(bent, points, size) for points, size in windows]
    nodes = np.stack(np.meshgrid(NODES, NODES), axis=-1).reshape(-1, 2) / 2
    spots = [
        points[:, np.newaxis] + nodes * size[:, np.newaxis] for points, size in windows
    ]
    ends = np.cumsum([len(each) for each in spots])[:-1]
    # All at once: a spline is laid through the field first.
    moved = apply_displacement(bent, np.concatenate(spots)).mean(axis=1)
    return np.split(moved, ends)


def systematic_moves(
    placement: Placement, windows: list[OverlapWindows | None], found: Distortion
) -> Floats:
    """Return how tiles placed by corrected links (n, 2, k) move with errors of the field.

    A link is what its windows say together, where these still are.
    """
    held = {row: each for row, each in enumerate(windows) if each and len(each.points)}
    every, link = _joined(held)
    points = every.points, every.points - every.shift
    ways = systematic_offsets(found, points, every.size)
    offsets = np.zeros((len(windows), *ways.shape[1:]))
    offsets[list(held)] = _means_of_windows(link, every.covariance, ways)
    return follow_offsets(placement, offsets)


class WindowSeams(NamedTuple):
    """What is left between the windows of believed links.

    Attributes
    ----------
    reference, moving : ndarray of shape (n, 2)
        Points as recorded by the one and the other tile.
    plain : ndarray of shape (n, 2)
        Reference less moving point, less the mean of that along the overlap: what no
        place of plain tiles takes away.
    corrected : ndarray of shape (n, 2)
        The same of corrected tiles where they were placed.
    """

    reference: Floats
    moving: Floats
    plain: Floats
    corrected: Floats


def window_seams(placement: Any) -> WindowSeams:
    """Return what is left between windows of a `TilePlacement`, if it has any."""
    windows = placement.windows
    bent = placement.displacement
    if placement.distortion is not None:
        bent = placement.distortion
    if windows is None or bent is None:
        none = np.zeros((0, 2))
        return WindowSeams(none, none, none, none)
    number = {label: n for n, label in enumerate(placement.labels)}
    pairs = np.array(
        [[number[label] for label in pair] for pair in windows.links.tolist()], np.intp
    ).reshape(-1, 2)
    believed = {tuple(pair) for pair in placement.links[placement.inlier].tolist()}
    held = np.array([tuple(pair) in believed for pair in pairs.tolist()], np.bool_)
    kept = held & np.isfinite(windows.covariance).all(axis=(1, 2))
    pairs, size = pairs[kept], windows.size[kept]
    ends = windows.reference_points[kept], windows.moving_points[kept]
    _, link = np.unique(pairs, axis=0, return_inverse=True)
    link, offsets = link.reshape(-1), ends[0] - ends[1]
    means = _means_of_windows(link, windows.covariance[kept], offsets[..., np.newaxis])
    corrected = np.zeros_like(offsets)
    if len(offsets):
        one, other = _corrected([(end, size) for end in ends], bent)
        places = placement.matrices[:, :2, 2]
        corrected = one + places[pairs[:, 0]] - other - places[pairs[:, 1]]
    return WindowSeams(*ends, offsets - means[link, :, 0], corrected)

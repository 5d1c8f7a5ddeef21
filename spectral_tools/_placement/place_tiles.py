"""Match and place tiles in one call, and match again what failed."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._matching.match_tiles import (
    TileMatches,
    in_windows,
    label_pairs,
    match_links,
    warn_of_lost,
)
from .._matching.overlap_windows import OverlapWindows
from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats
from .._shared.checks import Valid, check_count, in_grey, masks_in_order
from .._shared.link_arguments import Links
from .._shared.results import Outcome, result
from .._shared.workers import Workers
from .bent_tiles import (
    Matched,
    as_tile_field,
    corrected_matches,
    field_from_windows,
    systematic_moves,
)
from .grid_links import Order
from .layout import CUT, Layout, StageModel, lay_out, turned_layout
from .report import PlacementWarning, doubts
from .solve_distortion import Distortion
from .solve_tiles import Placement
from .stage_steps import other_stage, place_with_stage, usable_links

__all__ = ["TilePlacement", "place_tiles"]


# How often links that failed are matched again, each time near what the others say.
PASSES = 2
# The window of such a match is that wide besides what the stage may be off by, in px.
LEAST_REACH = 3.0


@result
class TilePlacement(Placement):
    """Where each tile belongs, what the links say, and how the stage moves.

    It is a `Placement` with what led to it.

    Attributes
    ----------
    matrices : ndarray of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    residuals : ndarray of shape (n_links, ndim)
        Reference point less moving point, both moved to the mosaic, in pixels.
    inlier : ndarray of bool, shape (n_links,)
        Links that the solution believes.
    chosen : ndarray of int, shape (n_links,)
        Number of the alternative of each match that was used.
    group : ndarray of int, shape (n,)
        Number of the group of tiles that believed links connect. Groups are
        held beside each other by the stage alone.
    outcome : ndarray of Outcome, shape (n,)
        What became of each tile.
    labels : sequence
        Label of each tile, in the order of the arrays.
    links : ndarray of int, shape (n_links, 2)
        Numbers of the two tiles of each link.
    covariance : ndarray of shape (n_links, ndim, ndim)
        Covariance of each match, or of the step of the stage that stands in.
    variance : float
        1: covariances are in px^2.
    counted : ndarray of bool, shape (n_links,)
        Links that the positions rest on: those believed, and steps of the stage
        where links leave gaps.
    position_sigma : ndarray of shape (ndim,)
        Infinite: positions of the stage do not count by themselves.
    fixed : ndarray of bool, shape (n,)
        No tile is held.
    systematic : ndarray of shape (n, ndim, k) or None
        How far tiles move together with errors of the field that was found, of one
        standard deviation each, in pixels.
    matches : TileMatches
        What became of each link, when it was last matched; in pixels of corrected
        tiles if a field bends them.
    stage : StageModel
        Linear map from nominal to true steps, and the spread about it.
    expected : ndarray of shape (n, ndim)
        Position of each tile by that model alone, in pixels.
    displacement : ndarray of shape (rows, cols, 2) or None
        The field that bends all tiles, found or given, as `warp_composite` takes it.
    distortion : Distortion or None
        How it was found, if it was.
    windows : TileMatches or None
        The windows of all links, as recorded, if a field bends tiles; without those
        that contradict it.
    """

    matches: TileMatches
    stage: StageModel
    expected: Floats
    displacement: Floats | None = None
    distortion: Distortion | None = None
    windows: TileMatches | None = None


@checked
def place_tiles(
    tiles: Sequence[Any] | Mapping[Hashable, Any],
    *,
    positions: ArrayLike | Mapping[Hashable, ArrayLike] | None = None,
    grid: Sequence[int] | None = None,
    order: Order = "rows",
    overlap: ArrayLike = 0.1,
    links: Links | None = None,
    max_shift: ArrayLike | None = None,
    min_overlap: float = 0.02,
    valid: Valid = None,
    channel_axis: int | None = None,
    padding: bool = True,
    whitening: float | None = None,
    pattern: ArrayLike | None = None,
    distortion: int | str | None = None,
    displacement: ArrayLike | None = None,
    windows: int = 16,
    workers: Workers = 1,
    progress: bool = False,
) -> TilePlacement:
    """Match tiles and place them, from rough positions, a grid shape, or links alone.

    Links are matched and solved; the good ones tell how the stage moves. If most fail,
    some tiles are matched with their nearest ones wherever they meet: axes of the stage
    may be reversed, swapped or turned, or `positions` in another unit than pixels. The
    stage is taken as it moves then; a warning and ``stage.matrix`` tell how. Links
    that failed, or that contradict the others, are matched once more in a narrow window
    about where the others put them. A clear link between groups of tiles outweighs the
    stage; where neither is sure, the smaller group is contradicted. Tiles of a lattice
    that could as well lie a period further are ambiguous, unless the stage, or pairs that
    are not, tell. Tiles that no link
    holds, because they are blank or missing, are placed beside their neighbours by one
    step of the stage.

    Parameters
    ----------
    tiles : sequence or mapping of array_like
        Images, or anything that is sliced like one, as for `match_tiles`. None
        in a sequence stands for a tile that is missing. Labels of a mapping that
        are grid keys, such as (row, col), tell the grid.
    positions : array_like of shape (n, ndim) or mapping, optional
        Rough positions of the tiles' first pixels, as from a stage.
    grid : sequence of int, optional
        Number of tiles along each axis, where there are no positions.
    order : {"rows", "columns", "snake", "columns-snake"}, optional
        How the tiles of `grid` are numbered; see `grid_positions`.
    overlap : float or array_like of shape (ndim,), optional
        Guess of the fraction of a tile that its next neighbour repeats; it
        matters only beside a grid, and may be wrong by a fifth of a tile or more.
    links : array_like of int, shape (n_links, 2), or label pairs, optional
        Which tiles to match. By default those that should overlap.
    max_shift : float or array_like of shape (ndim,), optional
        How far an offset may be from the expected one at first, in pixels. By default
        0.2 of a tile with `positions`, 0.4 with a grid; everything with links alone.
    min_overlap : float, optional
        Smallest overlap considered, as a fraction of the smaller tile.
    valid : array_like of bool, or sequence of them, optional
        True where a pixel counts: one mask for all tiles, or one for each.
    channel_axis : int, optional
        Axis of the tiles that holds channels, which are matched in grey; see
        `match_tiles`. `warp_composite` renders all of them.
    padding : bool, optional
        Find borders that show nothing round a tile, and do not count them.
    whitening : float, optional
        By default the weights are measured from each pair; a number is the
        classical exponent.
    pattern : array_like, optional
        What the camera adds to every tile; 0 for none, by default measured
        where links give reason to.
    distortion : int or {"polynomial", "radial", "rows", "columns"}, optional
        Solve for what bends all tiles alike, by windows along each overlap: the degree
        of a polynomial (3 for most lenses), or a model of `solve_distortion` whose
        degree is chosen by windows that are held out. Tiles are flat and of one shape
        then.
    displacement : array_like of shape (rows, cols, 2), optional
        What bends all tiles, known from another acquisition:
        ``corrected_point = recorded_point + displacement[corrected_point]``.
    windows : int, optional
        Into how many windows each overlap is cut, at most, where tiles are bent.
    workers : int or map-like callable, optional
        Number of threads, or a function used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    TilePlacement
        Matrices and outcomes of the tiles, the links, and the stage. If a field bends
        tiles, matrices are those of corrected tiles, and `warp_composite` takes it as
        its `displacement`: ``placed.displacement``.

    Raises
    ------
    ValueError
        If neither positions nor a grid nor links are given, or they do not fit
        the tiles, or if fewer windows are found than a distortion has unknowns.

    Warns
    -----
    PlacementWarning
        If most pairs were not found, a clear link contradicts the stage where nothing
        tells which is right, or links around loops contradict each other far beyond
        their error bars: once a call.

    See Also
    --------
    match_tiles : The first half of it.
    solve_rigid : The second.
    solve_distortion : Finds the field, and says what it cannot tell.
    warp_composite : Render the mosaic.

    Examples
    --------
    Nine tiles that overlap by 15 %, of which the middle one is blank; all
    that is known is that they are a grid of three by three:

    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> truth = spt.grid_positions((3, 3), (180, 180), overlap=0.15).astype(int)
    >>> tiles = [picture[r : r + 180, c : c + 180].copy() for r, c in truth]
    >>> tiles[4][:] = 0
    >>> placed = spt.place_tiles(tiles, grid=(3, 3))
    >>> found = placed.matrices[:, :2, 2] - placed.matrices[0, :2, 2]
    >>> bool(abs(found - truth).max() < 1)
    True
    >>> str(placed.outcome[4])
    'by prior only'
    """
    tiles = in_grey(tiles, channel_axis, "tiles")
    layout = lay_out(
        tiles, positions, grid, order, overlap, links, max_shift, min_overlap
    )
    field = as_tile_field(displacement, distortion, layout)
    check_count(windows, "windows")
    bent = distortion is not None or field is not None
    lost: dict[Hashable, str] = {}
    match = partial(
        _match_links, tiles, lost, min_overlap=min_overlap, valid=valid,
        padding=padding, whitening=whitening, pattern=pattern,
        windows=windows if bent else 1, workers=workers, progress=progress,
    )  # fmt: skip
    placing = _match_and_place(layout, match)
    turn = np.eye(len(layout.size))
    largest = np.bincount(placing.solved.group[layout.present]).max()
    few = 2 * placing.solved.inlier.sum() <= len(layout.links)
    if few or 2 * largest <= layout.present.sum():
        other = other_stage(layout, match)
        if other is not None:
            turn = other
            layout = turned_layout(layout, turn, min_overlap)
            placing = _match_and_place(layout, match)
    matched, solved, last, expected = placing
    stage = replace(last, matrix=last.matrix @ turn)
    matches, found = matched.links, None
    if distortion is not None:
        found, matched = field_from_windows(layout, matched, solved, distortion)
        field = found.displacement
    if field is not None:
        matches = corrected_matches(*matched, field if found is None else found)
        solved, last, expected = place_with_stage(layout, matches)
        stage = replace(last, matrix=last.matrix @ turn)
    if found is not None:
        moves = systematic_moves(solved, matched.windows, found)
        solved = replace(solved, systematic=moves)
    warn_of_lost(lost)
    placed = _labelled(layout, matches, solved, stage, expected)
    if bent:
        seen = in_windows(
            replace(matched.links, links=placed.matches.links), matched.windows
        )
        placed = replace(placed, displacement=field, distortion=found, windows=seen)
    for doubt in doubts(placed):
        warnings.warn(doubt, PlacementWarning, stacklevel=3)
    return placed


class _Placing(NamedTuple):
    """What was matched, and where that puts the tiles."""

    matched: Matched
    solved: Placement
    stage: StageModel
    expected: Floats


def _match_and_place(layout: Layout, match: Any) -> _Placing:
    """Match links, place tiles, and match again what failed where they are now."""
    everything = np.ones(len(layout.links), np.bool_)
    matched = match(layout, everything, layout.nominal, layout.reach)
    solved, stage, expected = place_with_stage(layout, matched.links)
    for _ in range(PASSES):
        failed = ~solved.inlier
        failed &= layout.present[layout.links].all(axis=1)
        again = _rematch(layout, match, matched, solved, stage, failed)
        if again is matched:
            break
        matched = again
        solved, stage, expected = place_with_stage(layout, matched.links)
    return _Placing(matched, solved, stage, expected)


def _match_links(
    tiles: Any,
    lost: dict[Hashable, str],
    layout: Layout,
    wanted: Flags,
    places: Floats | None,
    reach: Floats | None,
    *,
    valid: Any,
    **options: Any,
) -> Matched:
    """Match the links that are wanted, and leave the others without an answer."""
    there = np.flatnonzero(layout.present).tolist()
    images: dict[Hashable, Any] = {n: tiles[layout.labels[n]] for n in there}
    wanted = wanted & layout.present[layout.links].all(axis=1)
    masks = masks_in_order(valid, layout.labels, len(layout.size))
    found, windows, unread = match_links(
        images,
        [tuple(pair) for pair in layout.links[wanted].tolist()],
        positions=None if places is None else {n: places[n] for n in there},
        max_shift=reach,
        valid=[masks[n] for n in there],
        **options,
    )
    lost.update({layout.labels[n]: unread[n] for n in there if n in unread})
    outcome = np.empty(len(wanted), object)
    outcome[:] = Outcome.NO_TEXTURE
    peaks, ndim = found.alternatives.shape[1:]
    nowhere = np.zeros((len(wanted), ndim))
    nothing = TileMatches(
        links=layout.links,
        reference_points=nowhere,
        moving_points=nowhere,
        covariance=np.tile(np.diag(np.full(ndim, np.inf)), (len(wanted), 1, 1)),
        correlation=np.zeros(len(wanted)),
        false_alarm=np.ones(len(wanted)),
        alternatives=np.zeros((len(wanted), peaks, ndim)),
        outcome=outcome,
        misfit=np.full(len(wanted), np.nan),
        padding=np.zeros((len(wanted), 2)),
        size=np.zeros((len(wanted), ndim)),
        scatter=np.full(len(wanted), np.nan),
        curvature=np.full(len(wanted), np.nan),
    )
    held: list[OverlapWindows | None] = [None] * len(wanted)
    for row, own in zip(np.flatnonzero(wanted).tolist(), windows, strict=True):
        held[row] = own
    return Matched(_replace_rows(nothing, wanted, found, slice(None)), held)


def _replace_rows(
    before: TileMatches, rows: Flags, after: TileMatches, taken: Flags | slice
) -> TileMatches:
    """Replace rows of matches by those taken from others; the links stay."""
    merged = {}
    for field in fields(TileMatches):
        if field.name != "links":
            values = getattr(before, field.name).copy()
            values[rows] = getattr(after, field.name)[taken]
            merged[field.name] = values
    return replace(before, **merged)


def _rematch(
    layout: Layout,
    match: Any,
    matched: Matched,
    solved: Placement,
    stage: StageModel,
    failed: Flags,
) -> Matched:
    """Match links that failed near where the solution puts them.

    Two tiles that other links hold are known to a few pixels, others to a step.
    """
    places = solved.matrices[:, :-1, -1]
    joined = solved.group[layout.links[:, 0]] == solved.group[layout.links[:, 1]]
    near = LEAST_REACH + stage.sigma
    far = LEAST_REACH + CUT * np.sqrt(2) * stage.sigma
    merged = matched
    for rows, window in ((failed & joined, near), (failed & ~joined, far)):
        # Without a layout nothing is known of tiles that no link joins.
        if not rows.any() or (layout.nominal is None and window is far):
            continue
        reach = window if layout.reach is None else np.minimum(window, layout.reach)
        again = match(layout, rows, places, reach)
        better = rows & usable_links(again.links)
        if window is far:
            # The stage alone asks: what is less clear takes nothing's place.
            better &= again.links.false_alarm <= matched.links.false_alarm
        if better.any():
            merged = Matched(
                _replace_rows(merged.links, better, again.links, better),
                [
                    new if taken else old
                    for old, new, taken in zip(
                        merged.windows, again.windows, better, strict=True
                    )
                ],
            )
    return merged


def _labelled(
    layout: Layout,
    matches: TileMatches,
    solved: Placement,
    stage: StageModel,
    expected: Floats,
) -> TilePlacement:
    """Gather everything under the labels of the caller."""
    pairs: NDArray[Any] = layout.links
    if not isinstance(layout.labels, range):
        pairs = label_pairs(layout.links, layout.labels)
    known = {field.name: getattr(solved, field.name) for field in fields(Placement)}
    known["labels"] = layout.labels
    return TilePlacement(
        **known, matches=replace(matches, links=pairs), stage=stage, expected=expected
    )

"""Match and place tiles in one call, and match again what failed."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._matching.match_tiles import TileMatches, label_pairs, match_links, warn_of_lost
from .._matching.phase_correlate import BELIEVED
from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import Valid, in_grey, masks_in_order
from .._shared.link_arguments import Links, tile_outcomes
from .._shared.results import Outcome, result
from .._shared.sparse import bridges, connected_groups
from .._shared.statistics import f_tail
from .._shared.workers import Workers
from .grid_links import Order
from .layout import CUT, LINKS_BEFORE, Layout, StageModel, fit_stage, lay_out
from .report import PlacementWarning, doubts
from .solve_tiles import Placement, solve_rigid

__all__ = ["TilePlacement", "place_tiles"]


# How often links that failed are matched again, each time near what the others say.
PASSES = 2
# The window of such a match is that wide besides what the stage may be off by, in px.
LEAST_REACH = 3.0


def usable_links(matches: TileMatches) -> Flags:
    """Tell which links have an offset, for themselves or among others."""
    return np.asarray(np.isfinite(matches.covariance).all(axis=(1, 2)))


def vouched_links(matches: TileMatches) -> Flags:
    """Tell which links are believed by themselves, beside how many were tried.

    One match in a thousand by chance is nothing among many that are right, and all
    there is among hundreds of which none is [1]_.

    References
    ----------
    .. [1] Benjamini and Hochberg, Controlling the false discovery rate, J. R. Stat.
       Soc. B 57 (1995) 289, :doi:`10.1111/j.2517-6161.1995.tb02031.x`.
    """
    chance = np.where(matches.outcome == Outcome.MATCHED, matches.false_alarm, 1.0)
    order = np.argsort(chance, kind="stable")
    rate = chance[order] * len(chance) / np.arange(1, len(chance) + 1)
    vouched = np.zeros(len(chance), np.bool_)
    vouched[order[: np.flatnonzero(rate < BELIEVED).max(initial=-1) + 1]] = True
    return vouched


def place_with_stage(
    layout: Layout, matches: TileMatches
) -> tuple[Placement, StageModel, Floats]:
    """Learn the stage from the matches, and place the tiles with it.

    # Strategy: with the stage as a prior the solver decides which links, and which
    # of their peaks, are right. Then these links alone place the tiles, because
    # errors of a stage may add up from tile to tile, and only where they leave gaps
    # a step of the stage stands in.
    """
    offsets = matches.reference_points - matches.moving_points
    vouched = vouched_links(matches)
    nominal, telling = layout.nominal, vouched
    if nominal is None:
        nominal = np.zeros((len(layout.labels), len(layout.size)))
        telling = np.zeros_like(vouched)
    steps = nominal[layout.links[:, 1]] - nominal[layout.links[:, 0]]
    stage = fit_stage(steps[telling], offsets[telling], layout.size)
    middle = nominal.mean(axis=0)
    expected = (nominal - middle) @ stage.matrix.T + middle
    prior: dict[str, Any] = (
        {} if layout.nominal is None else {"position_sigma": stage.sigma}
    )
    believed = solve_rigid(
        layout.links,
        matches.reference_points,
        matches.moving_points,
        covariance=matches.covariance,
        alternatives=matches.alternatives,
        false_alarm=matches.false_alarm,
        positions=expected,
        **prior,
    )
    believed, contested = _weigh_against_stage(
        layout, matches, believed, stage, expected
    )
    solved = _with_stage_steps(layout, matches, vouched, believed, stage, expected)
    solved.outcome[contested] = Outcome.CONTRADICTED
    return solved, stage, expected


def _weigh_against_stage(
    layout: Layout,
    matches: TileMatches,
    believed: Placement,
    stage: StageModel,
    expected: Floats,
) -> tuple[Placement, Flags]:
    """Believe clear links that the stage alone contradicts, or tell whom it concerns.

    Returns what is believed then, and which tiles neither is sure about: of two groups
    those of the smaller.

    # Strategy: between groups of tiles that believed links tie together, the solver may
    # have given up a clear link, or chosen a lesser peak of it, because of the stage. Such
    # a link is believed if other links let it without any stage, and if it is far less
    # likely to be a false alarm than the stage is to err by so much.
    """
    links, count = layout.links, len(layout.labels)
    clear = matches.outcome == Outcome.MATCHED
    clear &= len(links) * matches.false_alarm < BELIEVED
    held = believed.inlier.copy()
    swayed = (clear & (believed.chosen > 0))[held]
    held[held] = ~(swayed & bridges(links[held], count))
    group = connected_groups(links[held], count)
    ends = np.sort(group[links], axis=1)
    asked = np.flatnonzero(clear & ~held & (ends[:, 0] != ends[:, 1]))
    if layout.nominal is None or not len(asked):
        return believed, np.zeros(count, np.bool_)
    chosen = believed.chosen.copy()
    chosen[asked] = 0
    offsets = _offsets(matches, chosen)
    rows = np.concatenate([asked, np.flatnonzero(held)])
    alone = solve_rigid(
        links[rows],
        offsets[rows],
        np.zeros_like(offsets[rows]),
        covariance=matches.covariance[rows],
    )
    agreed = asked[alone.inlier[: len(asked)]]
    reference, moving = links[agreed].T
    steps = layout.nominal[moving] - layout.nominal[reference]
    errors = offsets[agreed] - expected[moving] + expected[reference]
    spread = np.diagonal(_step_covariance(stage, steps), axis1=1, axis2=2)
    # All links between two groups speak together.
    pair = np.unique(ends[agreed], axis=0, return_inverse=True)[1]
    alarm = np.bincount(pair, np.log(len(links) * matches.false_alarm[agreed] + 1e-300))
    square = np.bincount(pair, (errors**2 / spread).sum(axis=1)) / np.bincount(pair)
    # Tails are longer, the fewer errors of the stage told how large they are: one a
    # tile, but for the first of a group.
    freedom = count - (group.max() + 1) + LINKS_BEFORE
    likely = np.exp(alarm) < BELIEVED * f_tail(len(stage.sigma), freedom, square)
    held[agreed[likely[pair]]] = True

    group = connected_groups(links[held], count)
    apart = group[links[asked[~held[asked]]]]
    apart = apart[apart[:, 0] != apart[:, 1]]
    smaller = np.bincount(group)[apart].argmin(axis=1)
    contested = np.isin(group, apart[np.arange(len(apart)), smaller])
    return replace(believed, inlier=held, chosen=chosen), contested


def _offsets(matches: TileMatches, chosen: Ints) -> Floats:
    """Return the offset of each link, with the alternative that was chosen."""
    reference = matches.alternatives[np.arange(len(chosen)), chosen]
    reference[chosen == 0] = matches.reference_points[chosen == 0]
    return reference - matches.moving_points


def _closing_links(layout: Layout, inlier: Flags, vouched: Flags) -> Flags:
    """Drop links that nothing vouches for, neither themselves nor a loop that closes.

    One of them may agree with the stage by chance; those around a loop do not.
    """
    alone = bridges(layout.links[inlier], len(layout.labels))
    kept = inlier.copy()
    kept[inlier] = vouched[inlier] | ~alone
    return kept


def _with_stage_steps(
    layout: Layout,
    matches: TileMatches,
    vouched: Flags,
    believed: Placement,
    stage: StageModel,
    expected: Floats,
) -> Placement:
    """Solve the links that are believed, and steps of the stage between their groups."""
    links, usable = layout.links, usable_links(matches)
    inlier = _closing_links(layout, believed.inlier, vouched)
    offsets = _offsets(matches, believed.chosen)
    group = connected_groups(links[inlier], len(layout.labels))
    gap = ~inlier & (group[links[:, 0]] != group[links[:, 1]])
    if layout.nominal is None:
        gap[:] = False
    covariance = matches.covariance.copy()
    covariance[~inlier] = np.diag(np.full(len(layout.size), np.inf))
    steps = offsets.copy()
    if gap.any():
        ends = links[gap]
        steps[gap] = expected[ends[:, 1]] - expected[ends[:, 0]]
        told = np.linalg.solve(stage.matrix, steps[gap].T).T
        covariance[gap] = _step_covariance(stage, told)
    solved: Any = solve_rigid(
        links,
        steps,
        np.zeros_like(steps),
        covariance=covariance,
        positions=expected,
        robust=False,
    )
    found = solved.matrices[:, :-1, -1]
    anywhere = np.full(len(layout.labels), layout.nominal is not None)
    return replace(
        solved,
        # Residuals are those of the matches, not of the steps that stand in for some.
        residuals=offsets + found[links[:, 0]] - found[links[:, 1]],
        inlier=inlier,
        counted=inlier | gap,
        chosen=believed.chosen,
        group=group,
        outcome=tile_outcomes(links, usable, inlier, anywhere),
    )


def _step_covariance(stage: StageModel, steps: Floats) -> Floats:
    """Return how well steps of the stage are known.

    Two tiles stray about the model, each by itself; what the model is off by, they share,
    so that many of them do not average it away.
    """
    lever = np.einsum("na,ab,nb->n", steps, stage.leverage, steps)
    spread = 2 * stage.sigma**2 * (1 + len(steps) * lever[:, np.newaxis])
    return np.asarray(spread[:, :, np.newaxis] * np.eye(len(stage.sigma)))


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
    matches : TileMatches
        What became of each link, when it was last matched.
    stage : StageModel
        Linear map from nominal to true steps, and the spread about it.
    expected : ndarray of shape (n, ndim)
        Position of each tile by that model alone, in pixels.
    """

    matches: TileMatches
    stage: StageModel
    expected: Floats


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
    workers: Workers = 1,
    progress: bool = False,
) -> TilePlacement:
    """Match tiles and place them, from rough positions, a grid shape, or links alone.

    Links are matched and solved; the good ones tell how the stage moves. Those
    that failed, or that contradict the others, are matched once more in a narrow window
    about where the others put them. A clear link between groups of tiles outweighs the
    stage; where neither is sure, the smaller group is contradicted. Tiles that no link
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
        Find borders of one value that surround a tile, and do not count them.
    whitening : float, optional
        By default the weights are measured from each pair; a number is the
        classical exponent.
    pattern : array_like, optional
        What the camera adds to every tile; 0 for none, by default measured
        where links give reason to.
    workers : int or map-like callable, optional
        Number of threads, or a function used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    TilePlacement
        Matrices and outcomes of the tiles, the links, and the stage.

    Raises
    ------
    ValueError
        If neither positions nor a grid nor links are given, or they do not fit
        the tiles.

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
    lost: dict[Hashable, str] = {}
    match = partial(
        _match_links, tiles, layout, lost, min_overlap=min_overlap, valid=valid,
        padding=padding, whitening=whitening, pattern=pattern, workers=workers,
        progress=progress,
    )  # fmt: skip
    everything = np.ones(len(layout.links), np.bool_)
    matches = match(everything, layout.nominal, layout.reach)
    solved, stage, expected = place_with_stage(layout, matches)
    for _ in range(PASSES):
        failed = ~solved.inlier
        failed &= layout.present[layout.links].all(axis=1)
        again = _rematch(layout, match, matches, solved, stage, failed)
        if again is matches:
            break
        matches = again
        solved, stage, expected = place_with_stage(layout, matches)
    warn_of_lost(lost)
    placed = _labelled(layout, matches, solved, stage, expected)
    for doubt in doubts(placed):
        warnings.warn(doubt, PlacementWarning, stacklevel=3)
    return placed


def _match_links(
    tiles: Any,
    layout: Layout,
    lost: dict[Hashable, str],
    wanted: Flags,
    places: Floats | None,
    reach: Floats | None,
    *,
    valid: Any,
    **options: Any,
) -> TileMatches:
    """Match the links that are wanted, and leave the others without an answer."""
    there = np.flatnonzero(layout.present).tolist()
    images: dict[Hashable, Any] = {n: tiles[layout.labels[n]] for n in there}
    wanted = wanted & layout.present[layout.links].all(axis=1)
    masks = masks_in_order(valid, layout.labels, len(layout.size))
    found, unread = match_links(
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
    )
    return _replace_rows(nothing, wanted, found, slice(None))


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
    matches: TileMatches,
    solved: Placement,
    stage: StageModel,
    failed: Flags,
) -> TileMatches:
    """Match links that failed near where the solution puts them.

    Two tiles that other links hold are known to a few pixels, others to a step.
    """
    places = solved.matrices[:, :-1, -1]
    joined = solved.group[layout.links[:, 0]] == solved.group[layout.links[:, 1]]
    near = LEAST_REACH + stage.sigma
    far = LEAST_REACH + CUT * np.sqrt(2) * stage.sigma
    merged = matches
    for rows, window in ((failed & joined, near), (failed & ~joined, far)):
        # Without a layout nothing is known of tiles that no link joins.
        if not rows.any() or (layout.nominal is None and window is far):
            continue
        reach = window if layout.reach is None else np.minimum(window, layout.reach)
        again = match(rows, places, reach)
        better = rows & usable_links(again)
        if window is far:
            # The stage alone asks: what is less clear takes nothing's place.
            better &= again.false_alarm <= matches.false_alarm
        if better.any():
            merged = _replace_rows(merged, better, again, better)
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

"""Place tiles by their links, and by the stage where links leave gaps."""

from dataclasses import replace
from typing import Any

import numpy as np

from .._matching.match_tiles import TileMatches
from .._matching.phase_correlate import BELIEVED
from .._shared.arrays import Flags, Floats, Ints
from .._shared.link_arguments import tile_outcomes
from .._shared.results import Outcome
from .._shared.sparse import bridges, connected_groups
from .._shared.statistics import f_tail
from .._spectral.peaks import SEPARATION
from .layout import LINKS_BEFORE, Layout, StageModel, fit_stage, nearest_pairs
from .solve_tiles import Placement, solve_rigid

__all__ = ["other_stage", "place_with_stage", "usable_links"]


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


def _copies(
    layout: Layout,
    matches: TileMatches,
    kept: Flags,
    chosen: Ints,
    stage: StageModel,
    expected: Floats,
) -> Flags:
    """Tell which links may as well be a copy of themselves, as those of a lattice.

    Loops of such links close whichever copies they choose. A link is told from its
    copies by the stage, or by another of the same two groups of tiles that has no copy
    there: one that recurs in several links is a period, and all of them have it.
    """
    links = layout.links
    clear = matches.outcome != Outcome.AMBIGUOUS
    row = np.arange(len(links))
    moves = matches.alternatives - matches.alternatives[row, chosen][:, np.newaxis]
    rivals = np.abs(moves).max(axis=2) > SEPARATION
    periodic = _recurring(moves, rivals & ~clear[:, np.newaxis])
    if layout.nominal is not None:
        rivals &= ~_excluded_by_stage(layout, matches, chosen, stage, expected)
    told = kept & clear & (chosen == 0)
    while True:
        group = connected_groups(links[told], len(layout.labels))
        ends = group[links]
        apart = kept & (ends[:, 0] != ends[:, 1])
        pairs: dict[tuple[int, ...], list[int]] = {}
        for link in np.flatnonzero(apart).tolist():
            pairs.setdefault(tuple(sorted(ends[link].tolist())), []).append(link)
        more = False
        for link in np.flatnonzero(apart & ~clear).tolist():
            recurs = rivals[link] & periodic[link]
            left = moves[link, rivals[link] & ~recurs]
            for other in pairs[tuple(sorted(ends[link].tolist()))]:
                sign = 1 if ends[other, 0] == ends[link, 0] else -1
                away = sign * moves[other] - left[:, np.newaxis]
                left = left[(np.abs(away).max(axis=2) <= SEPARATION).any(axis=1)]
            if not len(left) and not recurs.any():
                told[link] = more = True
        if not more:
            return apart


def _excluded_by_stage(
    layout: Layout,
    matches: TileMatches,
    chosen: Ints,
    stage: StageModel,
    expected: Floats,
) -> Flags:
    """Tell which alternatives of links the stage excludes beside the chosen ones."""
    reference, moving = layout.links.T
    nominal: Any = layout.nominal
    spread = np.diagonal(
        _step_covariance(stage, nominal[moving] - nominal[reference]), axis1=1, axis2=2
    )
    errors = matches.alternatives - matches.moving_points[:, np.newaxis]
    errors -= (expected[moving] - expected[reference])[:, np.newaxis]
    square = (errors**2 / spread[:, np.newaxis]).sum(axis=2)
    own = square[np.arange(len(chosen)), chosen][:, np.newaxis]
    # Student's tails: few links told how far the stage strays.
    freedom = LINKS_BEFORE + stage.links
    power = (freedom + errors.shape[2]) / 2
    odds = power * np.log((freedom + square) / (freedom + own))
    return np.asarray(odds > -np.log(BELIEVED))


def _recurring(moves: Floats, rivals: Flags) -> Flags:
    """Tell which rivals of some links lie as far away as those of other links."""
    ahead = np.sign(moves @ (2.0 ** -np.arange(moves.shape[2])))
    cells = np.rint(moves * ahead[..., np.newaxis] / (2 * SEPARATION))
    number = np.unique(cells.reshape(-1, cells.shape[2]), axis=0, return_inverse=True)[
        1
    ].reshape(rivals.shape)
    seen = np.zeros((len(moves), int(number.max(initial=-1)) + 1), np.bool_)
    link, peak = np.nonzero(rivals)
    seen[link, number[link, peak]] = True
    return np.asarray(rivals & (seen.sum(axis=0) > 1)[number])


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
    copies = _copies(layout, matches, inlier, believed.chosen, stage, expected)
    inlier &= ~copies
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
    outcome = tile_outcomes(links, usable, inlier, anywhere)
    clear = usable & (matches.outcome != Outcome.AMBIGUOUS)
    tiles = np.arange(len(outcome))
    copied = np.isin(tiles, links[copies]) | ~np.isin(tiles, links[clear])
    outcome[copied & (outcome == Outcome.CONTRADICTED)] = Outcome.AMBIGUOUS
    return replace(
        solved,
        # Residuals are those of the matches, not of the steps that stand in for some.
        residuals=offsets + found[links[:, 0]] - found[links[:, 1]],
        inlier=inlier,
        counted=inlier | gap,
        chosen=believed.chosen,
        group=group,
        outcome=outcome,
    )


def _step_covariance(stage: StageModel, steps: Floats) -> Floats:
    """Return how well steps of the stage are known.

    Two tiles stray about the model, each by itself; what the model is off by, they share,
    so that many of them do not average it away.
    """
    lever = np.einsum("na,ab,nb->n", steps, stage.leverage, steps)
    spread = 2 * stage.sigma**2 * (1 + len(steps) * lever[:, np.newaxis])
    return np.asarray(spread[:, :, np.newaxis] * np.eye(len(stage.sigma)))


def other_stage(layout: Layout, match: Any) -> Floats | None:
    """Return how the stage moves, if it does not move at all as `positions` say.

    Axes may be reversed, swapped or turned, or positions in another unit. Neighbours
    stay neighbours: some are matched wherever they meet, and one linear map must explain
    most of what they say.
    """
    nominal = layout.nominal
    if nominal is None:
        return None
    pairs = nearest_pairs(nominal, layout.present)
    steps = nominal[pairs[:, 1]] - nominal[pairs[:, 0]]
    # Whatever unit they have, steps are about as long as tiles.
    length = float(np.median(np.linalg.norm(steps, axis=1))) if len(steps) else 0.0
    if not length:
        return None
    unit = float(layout.size.mean()) / length
    everything = np.ones(len(pairs), np.bool_)
    probe = replace(layout, links=pairs, nominal=None)
    found = match(probe, everything, None, None).links
    told = vouched_links(found)
    offsets = (found.reference_points - found.moving_points)[told]
    steps = steps[told]
    stage = fit_stage(unit * steps, offsets, layout.size)
    matrix = unit * stage.matrix
    away = np.abs(steps @ (matrix - np.eye(len(matrix))).T)
    reach = np.inf if layout.reach is None else layout.reach
    beyond = int(np.count_nonzero((away > reach).any(axis=1)))
    # More than it takes to make a map, of all and of those that it alone explains. Where
    # tiles are in disorder, those that meet by chance do so at one of their few sides.
    spare = min(stage.links, beyond) - len(layout.size)
    sure = 2 * stage.links > len(steps) and (2 * len(layout.size)) ** -spare < BELIEVED
    return matrix if sure else None

"""Place matched tiles, with steps of the stage where links leave gaps."""

from dataclasses import replace
from typing import Any

import numpy as np

from .._matching.match_tiles import TileMatches
from .._shared.arrays import Flags, Floats, Ints
from .._shared.link_arguments import tile_outcomes
from .._shared.outcomes import Outcome
from .._shared.sparse import connected_groups
from .layout import Layout
from .solve_tiles import Placement, solve_rigid
from .stage_model import StageModel, fit_stage

__all__ = ["place_with_stage", "usable_links"]


# Matches that are not believed by themselves but may agree with others, and how far
# their peaks may be off, in pixels.
HOPEFUL, HOPE = (Outcome.NOT_FOUND, Outcome.AMBIGUOUS), 0.5


def usable_links(matches: TileMatches) -> Flags:
    """Tell which links were believed when they were matched."""
    return np.asarray(np.isfinite(matches.covariance).all(axis=(1, 2)))


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
    usable = usable_links(matches)
    nominal = layout.nominal
    if nominal is None:
        nominal = np.zeros((len(layout.labels), len(layout.size)))
        usable = np.zeros_like(usable)
    steps = nominal[layout.links[:, 1]] - nominal[layout.links[:, 0]]
    stage = fit_stage(steps[usable], offsets[usable], layout.size)
    middle = nominal.mean(axis=0)
    expected = (nominal - middle) @ stage.matrix.T + middle
    prior: dict[str, Any] = (
        {} if layout.nominal is None else {"position_sigma": stage.sigma}
    )
    believed = solve_rigid(
        layout.links,
        matches.reference_points,
        matches.moving_points,
        covariance=_hoped_for(matches),
        alternatives=matches.alternatives,
        false_alarm=matches.false_alarm,
        positions=expected,
        **prior,
    )
    return _bridged(layout, matches, believed, stage, expected), stage, expected


def _hoped_for(matches: TileMatches) -> Floats:
    """Return covariances with which links that were not believed may still serve.

    What no pair can vouch for by itself, others may: a peak that closes loops is right.
    """
    covariance = matches.covariance.copy()
    hope = np.isin(matches.outcome.astype(str), HOPEFUL) & ~usable_links(matches)
    covariance[hope] = HOPE**2 * np.eye(covariance.shape[1])
    return covariance


def _without_loose_ends(links: Ints, inlier: Flags, hoped: Flags) -> Flags:
    """Drop links that are only hoped for where nothing but they hold a tile.

    One of them may agree with the stage by chance; two that close a loop do not.
    """
    kept = inlier.copy()
    while True:
        ends = np.bincount(links[kept].ravel(), minlength=int(links.max(initial=0)) + 1)
        loose = kept & hoped & (ends[links] == 1).any(axis=1)
        if not loose.any():
            return kept
        kept &= ~loose


def _bridged(
    layout: Layout,
    matches: TileMatches,
    believed: Placement,
    stage: StageModel,
    expected: Floats,
) -> Placement:
    """Solve the links that are believed, and steps of the stage between their groups."""
    links, usable = layout.links, usable_links(matches)
    inlier = _without_loose_ends(links, believed.inlier, ~usable)
    chosen = matches.alternatives[np.arange(len(links)), believed.chosen]
    reference = np.where(believed.chosen[:, None] > 0, chosen, matches.reference_points)
    offsets = reference - matches.moving_points
    group = connected_groups(links[inlier], len(layout.labels))
    gap = ~inlier & (group[links[:, 0]] != group[links[:, 1]])
    if layout.nominal is None:
        gap[:] = False
    covariance = _hoped_for(matches)
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

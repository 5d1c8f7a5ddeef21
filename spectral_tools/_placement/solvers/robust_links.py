"""Decide which links between tiles are right, and which of their offsets."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import connected_groups
from ..._shared.statistics import (
    FAINT,
    OutlierTest,
    chi_square_limit,
    first_limit,
    fit_loop_mixture,
    has_outliers,
    outlier_test,
    prior_odds,
    trim_outliers,
)
from .consensus_evidence import Consensus, weigh_consensus
from .link_beliefs import closing_choices, rank_offsets, weigh_choices
from .loop_kernels import find_loops, longer_loops
from .translations import (
    Network,
    Relaxation,
    centred,
    link_residuals,
    squares,
    systems_of,
)

__all__ = ["Solution", "solve_network"]

Loops = tuple[Ints, NDArray[np.int8], Ints]

# How sure a join of clusters must be, from the first to the last. Below the
# second figure only the surest join of each cluster counts.
SURE = (0.999, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
ALL_AT_ONCE = 0.99
# Offsets this much less likely than the best (natural logarithm) are ruled out.
RULED_OUT = 15.0
# Logarithm of the odds below which the loops around a link are looked at.
DOUBTFUL = 2.0
# Offsets between two clusters that are weighed.
KEPT = 4
# Loops that tell how large errors are.
ENOUGH_LOOPS = 20000
# Errors inside a cluster blur where it ends by about as much as half a link.
BLUR = 0.5
# Variances of links that are tried where loops told a wrong one differ by this factor
# (test_a_stage_finds_few_right_links_of_larger_errors).
SCALE_STEP = 16.0


class Solution(NamedTuple):
    """Where tiles are, which links say so, and with which of their offsets."""

    positions: Floats
    believed: Flags
    chosen: Ints


class Clusters(NamedTuple):
    """Tiles that sure links made rigid: where they are, and their cluster."""

    positions: Floats
    number: Ints


class Model(NamedTuple):
    """What is known about links in general.

    Attributes
    ----------
    scale : float
        Variance of right links, in units of their covariances.
    reach : ndarray of shape (ndim,)
        Width of the range over which nonsense is spread.
    odds : ndarray of shape (n_links, choices)
        Odds of each offset against none of them; 0 for repetitions.
    """

    scale: float
    reach: Floats
    odds: Floats


class Bundles(NamedTuple):
    """What links say about pairs of clusters.

    Attributes
    ----------
    pairs : ndarray of int, shape (n, 2)
        Clusters, the lower number first.
    offsets, variances : ndarray of shape (n, kept, ndim)
        How far the second has to move more than the first.
    score : ndarray of shape (n, kept)
        Logarithm of the odds of each offset against none of them.
    spread : ndarray of shape (n, ndim)
        Standard deviation that offsets have without the links.
    """

    pairs: Ints
    offsets: Floats
    variances: Floats
    score: Floats
    spread: Floats


def solve_network(network: Network, *, robust: bool) -> Solution:
    """Return the position of each tile, and which links are believed."""
    count = len(network.links)
    believed, chosen = np.ones(count, np.bool_), np.zeros(count, np.intp)
    # Not named: its factor is not needed any more.
    positions = Relaxation(network, systems_of(network)).moved(
        network, None, network.places
    )
    plain = Solution(centred(network, positions), believed, chosen)
    if not robust or not count:
        return plain
    ndim = network.places.shape[1]
    # With a prior every tile is measured once more, and all links can be wrong.
    afloat = not network.prior.any()
    free = ~(network.fixed | network.held)
    unknown = int(np.count_nonzero(free)) if afloat else 0
    test = outlier_test(ndim, network.amount, unknown, network.least_unit)
    misfit = squares(network, link_residuals(network, positions))
    fine = not _contradicts_prior(network, positions)
    if fine and not has_outliers(ndim, misfit, test.least):
        return plain
    clusters = _first_clusters(network, positions)
    model = _error_model(network, clusters, positions, test, test.core(misfit))
    if fine and not has_outliers(ndim, misfit, model.scale):
        if not network.least_unit:
            return plain
        candidates = [plain]
    else:
        candidates = [_agreed(network, clusters, model, test), plain]
    widest = max(model.scale, float(misfit.mean()))
    return _most_evident(network, clusters, model, test, candidates, widest)


def _agreed(
    network: Network, clusters: Clusters, model: Model, test: OutlierTest
) -> Solution:
    """Return the solution of links that agree, if their errors are as modelled."""
    agreed = _agglomerated(network, clusters, model)
    return _trimmed_least_squares(network, agreed, model, test)


def _most_evident(
    network: Network,
    clusters: Clusters,
    model: Model,
    test: OutlierTest,
    candidates: list[Solution],
    widest: float,
) -> Solution:
    """Return the most evident solution, without the links that agree by chance only.

    If most links are not in it, they may have other errors than loops told, from the
    `widest` variance down, and what agrees best then is taken.
    """

    def weighed(solution: Solution) -> tuple[Solution, Consensus]:
        return solution, weigh_consensus(network, model.odds, *solution)

    def evidence(pair: tuple[Solution, Consensus]) -> float:
        return pair[1].evidence

    best = max(map(weighed, candidates), key=evidence)
    scale = widest
    while 2 * np.count_nonzero(best[1].supported) < len(network.links):
        tried = model._replace(scale=max(scale, test.least))
        best = max(best, weighed(_agreed(network, clusters, tried, test)), key=evidence)
        if scale <= test.least:
            break
        scale /= SCALE_STEP
    return _without_chance(network, *best)


def _without_chance(
    network: Network, solution: Solution, consensus: Consensus
) -> Solution:
    """Solve once more without links that agree by chance only."""
    positions, believed, chosen = solution
    trusted = consensus.supported | consensus.guessed
    if (believed & ~trusted).any():
        row = np.arange(len(chosen))
        picked = replace(network, offsets=network.options[row, chosen])
        relaxation = Relaxation(network, systems_of(network))
        trust = np.where(trusted, 1.0, FAINT)
        positions = centred(network, relaxation.moved(picked, trust, positions))
    return Solution(positions, consensus.supported, chosen)


def _contradicts_prior(network: Network, plain: Floats) -> bool:
    """Tell whether what is known beside the links contradicts a plain solution."""
    if network.doubt is not None and (network.doubt > 1 - network.doubt).any():
        return True
    away = (plain - network.places) ** 2 * network.prior
    return float(away.sum()) > chi_square_limit(away.size)


# Joining tiles to clusters


def _agglomerated(network: Network, clusters: Clusters, model: Model) -> Clusters:
    """Join tiles to clusters, the surest first, until no link is left that could.

    Strategy: short loops tell which links and which of their offsets agree; tiles
    that sure links join become rigid clusters; several links between the same
    two clusters speak with one voice; clusters close new short loops. Each
    round makes the evidence stronger, and the prior of a cluster, which is that
    of the mean of its tiles, sharper.
    """
    level = 0
    while level < len(SURE):
        bundles = _bundles(network, clusters, model)
        if not len(bundles.pairs):
            break
        level, joins, choice = _sure_bundles(bundles, _scores_by_loops(bundles), level)
        if len(joins):
            before = int(clusters.number.max())
            clusters = _merged(network, clusters, bundles, joins, choice)
            # Sure joins that exclude each other leave all as it was.
            level += int(clusters.number.max()) == before
    return clusters


def _first_clusters(network: Network, plain: Floats) -> Clusters:
    """Every tile is on its own, but those that are fixed make one cluster."""
    positions = (network.places if network.prior.any() else plain).copy()
    number = np.arange(len(positions))
    if network.fixed.any():
        positions[network.fixed] = network.places[network.fixed]
        number[network.fixed] = number[network.fixed][0]
        number = np.unique(number, return_inverse=True)[1]
    return Clusters(positions, number)


def _bundles(network: Network, clusters: Clusters, model: Model) -> Bundles:
    """Collect the links between each two clusters and rank what they say."""
    ends = clusters.number[network.links]
    between = np.flatnonzero(ends[:, 0] != ends[:, 1])
    size = np.bincount(clusters.number)
    key = ends[between].min(axis=1) * len(size) + ends[between].max(axis=1)
    order = np.argsort(key, kind="stable")
    rows, key = between[order], key[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1], True][: len(key) + 1])
    pairs = np.stack(np.divmod(key[starts[:-1]], len(size)), axis=1)

    reference, moving = network.links[rows].T
    apart = clusters.positions[moving] - clusters.positions[reference]
    sign = np.where(ends[rows, 0] < ends[rows, 1], 1.0, -1.0)
    offsets = sign[:, None, None] * (network.options[rows] - apart[:, np.newaxis])
    blur = 1 + BLUR * (size[ends[rows]] > 1).sum(axis=1)
    variances = network.variances[rows] * (model.scale * blur)[:, np.newaxis]
    wide = _prior_variances(network, clusters, size)[pairs].sum(axis=1)
    kept = min(KEPT, max(offsets.shape[1], 1 if len(pairs) == len(rows) else 3))
    density = float(1 / np.prod(model.reach))
    odds = model.odds[rows]
    found = rank_offsets(starts, offsets, variances, odds, wide, density, kept)
    spread = np.where(np.isfinite(wide), np.sqrt(wide), model.reach / np.sqrt(12))
    return Bundles(pairs, *found, spread)


def _prior_variances(network: Network, clusters: Clusters, size: Ints) -> Floats:
    """Return the variance of where clusters are by their prior alone."""
    if not network.prior.any():
        return np.full((len(size), len(network.prior)), np.inf)
    wide = 1 / (network.prior * size[:, np.newaxis])
    wide[clusters.number[network.fixed]] = 0
    return wide


def _scores_by_loops(bundles: Bundles) -> Floats:
    """Add what short loops say to the scores of the offsets of bundles.

    A bundle that seems wrong spoils the loops on both its sides: the loop around
    these goes without it.
    """
    loops, score = find_loops(bundles.pairs), bundles.score
    if not len(loops[0]):
        return score
    closing = _closing_combinations(bundles, loops, score)
    score = weigh_choices(loops, closing, bundles.score)
    longer = longer_loops(loops, np.logaddexp.reduce(score, axis=1) < DOUBTFUL)
    if len(longer[0]):
        more = _closing_combinations(bundles, longer, score)
        closing = _appended(closing, (more[0] + len(loops[0]), *more[1:]))
        score = weigh_choices(_appended(loops, longer), closing, bundles.score)
    return score


def _appended(tables: Any, more: Any) -> Any:
    """Append the rows of tables to those of others."""
    return tuple(np.concatenate(pair) for pair in zip(tables, more, strict=True))


def _closing_combinations(
    bundles: Bundles, loops: Loops, score: Floats
) -> tuple[Ints, NDArray[np.int8], Floats]:
    """Return how loops can close with offsets that are not ruled out yet."""
    alive = score > np.maximum(score.max(axis=1, keepdims=True), 0) - RULED_OUT
    return closing_choices(
        loops, bundles.offsets, bundles.variances, alive, bundles.spread
    )


def _sure_bundles(
    bundles: Bundles, score: Floats, level: int
) -> tuple[int, Ints, Ints]:
    """Return the bundles that are sure enough, and the offset of each.

    The demand sinks, from `level` on, until there are any.
    """
    choice = score.argmax(axis=1)
    row = np.arange(len(score))
    top = score[row, choice]
    others = np.exp(score - top[:, np.newaxis])
    others[row, choice] = 0
    surplus = -np.log(np.exp(-np.clip(top, -500, 500)) + others.sum(axis=1) + 1e-300)
    while level < len(SURE):
        sure = surplus > np.log(SURE[level] / (1 - SURE[level]))
        if SURE[level] < ALL_AT_ONCE:
            best = np.full(bundles.pairs.max() + 1, -np.inf)
            np.maximum.at(best, bundles.pairs, surplus[:, np.newaxis])
            sure &= (surplus[:, np.newaxis] == best[bundles.pairs]).any(axis=1)
        if sure.any():
            break
        level += 1
    else:
        sure = np.zeros(len(score), np.bool_)
    return level, np.flatnonzero(sure), choice[sure]


def _merged(
    network: Network, clusters: Clusters, bundles: Bundles, joins: Ints, choice: Ints
) -> Clusters:
    """Move clusters, each as a whole, to where sure bundles want them."""
    count = int(clusters.number.max()) + 1
    fixed = np.zeros(count, np.bool_)
    fixed[clusters.number[network.fixed]] = True
    links = bundles.pairs[joins]
    variances = bundles.variances[joins, choice]
    ndim = variances.shape[1]
    rigid = replace(
        network,
        links=links,
        offsets=bundles.offsets[joins, choice],
        weights=np.eye(ndim) / variances[:, np.newaxis],
        places=np.zeros((count, ndim)),
        prior=np.zeros(ndim),
        fixed=fixed,
        group=connected_groups(links, count),
    )
    relaxation = Relaxation(rigid, systems_of(rigid))
    fits, moves, more = np.ones(len(links), np.bool_), rigid.places, True
    while more:
        moves = relaxation.moved(rigid, np.where(fits, 1, FAINT), moves)
        misfit = squares(rigid, link_residuals(rigid, moves))
        # What looked sure may not fit together.
        bad = fits & (misfit > 2 * chi_square_limit(ndim))
        fits, more = fits & ~bad, bool(bad.any())
    number = connected_groups(links[fits], count)[clusters.number]
    positions = clusters.positions + moves[clusters.number]
    return Clusters(centred(replace(network, group=number), positions), number)


# What is known about links in general


def _error_model(
    network: Network, clusters: Clusters, plain: Floats, test: OutlierTest, core: float
) -> Model:
    """Learn from loops how large errors are and how many links are right."""
    apart = plain[network.links[:, 1]] - plain[network.links[:, 0]]
    typical = np.sqrt(np.median(network.variances, axis=0))
    away = network.options - apart[:, np.newaxis]
    reach = np.ptp(away.reshape(-1, away.shape[-1]), axis=0)
    reach = np.maximum(reach, 10 * np.sqrt(test.least) * typical)
    start = Model(1.0, reach, prior_odds(network.options, network.doubt, None))
    only_first = replace(network, options=network.options[:, :1])
    start = start._replace(odds=start.odds[:, :1])
    bundles = _bundles(only_first, clusters, start)
    known = network.least_unit > 0
    scale, share = _scale_and_share(bundles, test, core, known=known)
    reach = np.maximum(reach, 10 * np.sqrt(scale) * typical)
    return Model(scale, reach, prior_odds(network.options, network.doubt, share))


def _scale_and_share(
    bundles: Bundles, test: OutlierTest, core: float, *, known: bool
) -> tuple[float, float | None]:
    """Return the variance of right links and their share, from how loops close."""
    links, signs, sizes = find_loops(bundles.pairs)
    if not len(links):
        return core, None
    step = -(-len(links) // ENOUGH_LOOPS)
    links, signs, sizes = links[::step], signs[::step], sizes[::step]
    inside = (np.arange(links.shape[1]) < sizes[:, np.newaxis])[..., np.newaxis]
    sums = (bundles.offsets[links, 0] * signs[..., np.newaxis] * inside).sum(axis=1)
    variances = (bundles.variances[links, 0] * inside).sum(axis=1)
    misfit = (sums**2 / variances).sum(axis=1)
    scale, share = fit_loop_mixture(misfit, test.ndim, test.least, known=known)
    return scale, None if share is None else share ** (1 / float(sizes.mean()))


# The last decision


def _trimmed_least_squares(
    network: Network, clusters: Clusters, model: Model, test: OutlierTest
) -> Solution:
    """Least squares of what fits, until what fits changes no more."""
    ends = clusters.number[network.links]
    allowed = (ends[:, 0] == ends[:, 1]) | network.prior.any()
    rows = np.arange(len(network.links))
    relaxation = Relaxation(network, systems_of(network))

    def fitted(trust: Floats, last: Choice) -> Choice:
        used = last.nearest
        picked = replace(network, offsets=network.options[rows, used])
        positions = relaxation.moved(picked, trust, last.positions)
        fit = squares(picked, link_residuals(picked, positions))
        nearest, near = _likeliest_offsets(network, positions, model)
        believed = trust == 1
        return Choice(
            positions,
            used,
            np.where(believed, used, nearest),
            np.where(believed, fit, near),
        )

    nearest, fit = _likeliest_offsets(network, clusters.positions, model)
    start = Choice(clusters.positions, nearest, nearest, fit)
    found = allowed & (fit <= first_limit(test.ndim, model.scale))
    last, believed = trim_outliers(
        fitted, lambda state: state.squares, start, found, test, allowed=allowed
    )
    return Solution(centred(network, last.positions), believed, last.used)


class Choice(NamedTuple):
    """Positions, the offsets they rest on, and those that fit them best.

    `squares` are squared misfits of the offsets used by links that were believed, and
    of the nearest of the others.
    """

    positions: Floats
    used: Ints
    nearest: Ints
    squares: Floats


def _likeliest_offsets(
    network: Network, positions: Floats, model: Model
) -> tuple[Ints, Floats]:
    """Return which offset of each link fits best, and its squared misfit."""
    reference, moving = network.links.T
    apart = positions[moving] - positions[reference]
    fits = np.stack(
        [
            squares(network, network.options[:, choice] - apart)
            for choice in range(network.options.shape[1])
        ],
        axis=1,
    )
    with np.errstate(divide="ignore"):
        cost = fits / model.scale - 2 * np.log(model.odds)
    chosen = cost.argmin(axis=1)
    return chosen, fits[np.arange(len(chosen)), chosen]

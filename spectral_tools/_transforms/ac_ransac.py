"""Find the pairs of points that agree on a map, among many that do not."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from .._shared.arrays import AT_ONCE, Flags, Floats, Ints
from .._shared.statistics import chi_square_limit, f_limit
from .point_maps import PointMap, map_slopes
from .transform_models import Family, Pairs, fit_map, whitened

__all__ = ["Evidence", "agreeing_pairs", "evidence_of"]


# Chance that an honest pair is not believed.
FALSE_REJECTION = 1e-4
# Chance that none of the sets of pairs that are tried is right, where half of all are
# wrong, and how many times more are tried, since right sets differ in how well they
# tell; the fewest and the most.
MISSED = 1e-6
MORE = 3
FEWEST, MOST = 200, 3000
# Sets whose points hardly determine a map are not tried.
FLAT = 1e-4
# Pairs that score sets; more would not choose better.
SCORING = 1000
# Residuals below this share of the extent of the points all count as this.
FINEST = 1e-4
# Share of honest pairs that may miss by more than chance is counted for at least.
UNUSUAL = 0.1
# Sets that are followed to the end.
FOLLOWED = 5
# Dropping and taking back settles after a few rounds, if ever.
ROUNDS = 20


class Evidence(NamedTuple):
    """What pairs say about a map that is fitted to them.

    Attributes
    ----------
    normal : ndarray of shape (k, k)
        Covariance of the changes along the directions of the map, in units of the
        variance of pairs.
    misses : ndarray of shape (n, ndim)
        How far each pair misses a linear fit without it, whitened; infinite if that
        does not exist.
    squares : ndarray of shape (n,)
        Squares of these, in units of what they should be.
    variance : float
        Variance of pairs in units of their covariance; infinite if nothing tells.
    freedom : int
        Number of measurements more than the unknowns.
    """

    normal: Floats
    misses: Floats
    squares: Floats
    variance: float
    freedom: int


class Background(NamedTuple):
    """How likely chance alone brings pairs near to a map.

    Attributes
    ----------
    least : int
        Pairs that determine a map, which come near to it in any case.
    axes : int
        Number of axes.
    volume : float
        Logarithm of the share of all places that are within one unit of a point.
    finest : float
        Squared residuals below this count as this.
    """

    least: int
    axes: int
    volume: float
    finest: float


def evidence_of(
    family: Family, change: PointMap, pairs: Pairs, believed: Flags
) -> Evidence:
    """Judge all pairs by the map that was fitted to those which are believed."""
    axes = family.ndim
    slopes = pairs.roots @ map_slopes(change, family.directions(change), pairs.moving)
    misfit = whitened(change, pairs)
    used = slopes[believed].reshape(-1, slopes.shape[2])
    normal = np.asarray(np.linalg.pinv(used.T @ used, hermitian=True), np.float64)
    spread = slopes @ normal @ slopes.transpose(0, 2, 1)
    # A believed pair pulled the map towards it; for another the map was foretold.
    own = np.where(believed, -1.0, 1.0)[:, np.newaxis, np.newaxis]
    values, vectors = np.linalg.eigh(np.eye(axes) + own * spread)
    along = np.einsum("nba,nb->na", vectors, misfit)
    known = values > np.sqrt(np.finfo(float).eps)
    safe = np.where(known, values, 1.0)
    # Without a believed pair it would be missed by more.
    away = np.where(believed[:, np.newaxis], along / safe, along)
    misses = np.einsum("nab,nb->na", vectors, np.where(known, away, 0.0))
    misses[~known.all(axis=1) & believed] = np.inf
    freedom = int(used.shape[0] - slopes.shape[2])
    total = float((misfit[believed] ** 2).sum())
    return Evidence(
        normal=normal,
        misses=misses,
        squares=np.where(known, along**2 / safe, 0.0).sum(axis=1),
        variance=total / freedom if freedom > 0 else np.inf,
        freedom=freedom,
    )


def agreeing_pairs(family: Family, pairs: Pairs, *, known: bool) -> Flags:
    """Return which pairs to believe.

    Strategy: many small sets of pairs determine a map each. A map is the better the
    less likely chance alone would bring as many pairs as near to it [1]_: that asks
    for no scale, and half of the pairs may be wrong. From the best maps on, pairs
    are taken and dropped by what the others foretell for them.

    References
    ----------
    .. [1] Moisan & Stival (2004). A probabilistic criterion to detect rigid point
       matches between two images and estimate the fundamental matrix.
       :doi:`10.1023/B:VISI.0000013094.38752.54`
    """
    count = len(pairs.moving)
    everything = np.ones(count, np.bool_)
    if count <= family.least:
        return everything
    background = _background(family, pairs, known)
    plain = fit_map(family, pairs)
    score = _log_false_alarms(background, whitened(plain, pairs)[np.newaxis])[0]
    best = float(score[0]), everything
    evidence = evidence_of(family, plain, pairs, everything)
    if known and evidence.squares.max() <= chi_square_limit(
        family.ndim, FALSE_REJECTION
    ):
        return everything
    maps = _sampled_maps(family, pairs)
    scores, sizes = _scores_of_maps(background, maps, pairs)
    # Sets that are no better than chance say nothing.
    finalists = [row for row in np.argsort(scores)[:FOLLOWED] if scores[row] < 0]
    for row in finalists:
        change = maps._replace(matrix=maps.matrix[row], bend=maps.bend[row])
        squares = (whitened(change, pairs) ** 2).sum(axis=1)
        found = _refit(family, pairs, squares <= sizes[row], known)
        change = fit_map(family, pairs.chosen(found))
        score = _log_false_alarms(background, whitened(change, pairs)[np.newaxis])[0]
        best = min(best, (float(score[0]), found), key=lambda pair: pair[0])
    return best[1]


def _background(family: Family, pairs: Pairs, known: bool) -> Background:
    axes = family.ndim
    inside = np.linalg.slogdet(pairs.roots)[1].mean()
    room = np.log(np.maximum(np.ptp(pairs.reference, axis=0), FINEST)).sum()
    ball = axes / 2 * math.log(math.pi) - math.lgamma(axes / 2 + 1)
    finest = float(np.exp(inside / axes)) * FINEST
    return Background(
        family.least,
        axes,
        float(ball - inside - room),
        max(chi_square_limit(axes, UNUSUAL) * known, finest**2),
    )


def _log_false_alarms(background: Background, misfit: Floats) -> tuple[Floats, Floats]:
    """Return the logarithm of the chance of each map, and how near its pairs are.

    `misfit` holds the whitened residuals of maps, shape (maps, n, ndim).
    """
    least, count = background.least, misfit.shape[1]
    squares = np.sort((misfit**2).sum(axis=2), axis=1)[:, least:]
    squares = np.maximum(squares, background.finest)
    near = np.arange(least + 1, count + 1)
    ways = _log_choices(count, near) + _log_choices(near, least)
    share = np.minimum(background.volume + background.axes / 2 * np.log(squares), 0)
    total = np.log(count - least) + ways + (near - least) * share
    row, best = np.arange(len(total)), total.argmin(axis=1)
    return total[row, best], squares[row, best]


def _scores_of_maps(
    background: Background, maps: PointMap, pairs: Pairs
) -> tuple[Floats, Floats]:
    """Score many maps by some of the pairs."""
    step = -(-len(pairs.moving) // SCORING)
    some = pairs.chosen(np.arange(0, len(pairs.moving), step))
    parts = -(-len(maps.matrix) * some.moving.size // AT_ONCE)
    found = [
        _log_false_alarms(
            background, whitened(maps._replace(matrix=matrix, bend=bend), some)
        )
        for matrix, bend in zip(
            np.array_split(maps.matrix, parts),
            np.array_split(maps.bend, parts),
            strict=True,
        )
    ]
    scores, sizes = map(np.concatenate, zip(*found, strict=True))
    return scores, sizes


def _sampled_maps(family: Family, pairs: Pairs) -> PointMap:
    """Return the maps of many smallest sets of pairs."""
    sets = _minimal_sets(len(pairs.moving), family.least)
    reference, moving = pairs.reference[sets], pairs.moving[sets]
    maps = family.direct(reference, moving, np.ones(family.least))
    fine = np.isfinite(maps.matrix).all(axis=(1, 2))
    # Points on a line, or in a plane, or a projective map that comes close to one.
    sizes = np.linalg.svd(maps.matrix[:, : family.ndim], compute_uv=False)
    fine &= sizes[:, -1] > FLAT * sizes[:, 0]
    if not fine.any():
        fine[:1] = True
    return maps._replace(matrix=maps.matrix[fine], bend=maps.bend[fine])


def _minimal_sets(count: int, size: int) -> Ints:
    """Return sets of pairs: all there are, or as many as surely hold a right one."""
    wanted = MORE * math.log(MISSED) / math.log1p(-(0.5**size))
    wanted = round(min(max(wanted, FEWEST), MOST))
    if math.comb(count, size) <= wanted:
        return np.array(list(combinations(range(count), size)), np.intp)
    # The same sets for every call: results must not depend on chance.
    sets = np.random.default_rng(0).integers(0, count, (4 * wanted, size))
    different = (np.diff(np.sort(sets, axis=1), axis=1) > 0).all(axis=1)
    return sets[different][:wanted]


def _refit(family: Family, pairs: Pairs, found: Flags, known: bool) -> Flags:
    """Take and drop pairs until nothing changes any more."""
    dropped = np.zeros(len(found), np.bool_)
    believed = found
    for number in range(ROUNDS):
        change = fit_map(family, pairs.chosen(found))
        evidence = evidence_of(family, change, pairs, found)
        limit = _limit(family.ndim, evidence, known)
        believed, found = found, (evidence.squares <= limit) & ~dropped
        if np.array_equal(found, believed) or found.sum() < family.least:
            break
        if number > ROUNDS // 2:
            dropped |= believed & ~found
    return believed


def _limit(axes: int, evidence: Evidence, known: bool) -> float:
    """Return the largest squared residual that is believed."""
    if evidence.freedom <= 0:
        return np.inf
    ratio = f_limit(axes, evidence.freedom, FALSE_REJECTION)
    known_limit = known * chi_square_limit(axes, FALSE_REJECTION)
    return max(evidence.variance * ratio, known_limit)


def _log_choices(count: Ints | int, some: Ints | int) -> Floats:
    total, part = np.asarray(count, np.float64), np.asarray(some, np.float64)
    return np.asarray(
        gammaln(total + 1) - gammaln(part + 1) - gammaln(total - part + 1)
    )

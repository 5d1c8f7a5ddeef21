"""Smooth fields that make pairs of points meet: equations of all fields."""

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb
from typing import Any

import numpy as np

from ..._shared.arrays import Flags, Floats
from ..._shared.selected_inverse import (
    factor_pattern,
    selected_entries,
    selected_inverse,
    spread_values,
)
from ..._shared.sparse import (
    SymmetricFactor,
    conjugate_gradients,
    factorized_matrix,
    repeated,
    weighted_square,
)
from ..._shared.statistics import ROUNDING, ROUNDS, chi_square_limit
from .bspline_grid import ControlGrid, bending_energy, ground_energy, knot_shares

__all__ = [
    "FieldFit",
    "Springs",
    "knot_variances",
    "row_variances",
    "solve_springs",
    "springs_of",
]


# Stiffness is looked for by these factors: at first, while points are forgotten, and
# in the end.
FIRST = 30.0 ** np.arange(-4, 4)
NEXT, FINER = 4.0, (5.0, 2.0)
STEPS = 5
# Fields so many times stiffer than what points pull with do not bend; beyond it, rounding
# of their stiffness would move them.
STIFFEST = 1e9
# Conjugate gradients stop when a step would be this much shorter than the first.
FINE = 1e-6
# Random signs that count what points determine.
PROBES = 32
# No measurement has a larger share than this in its own prediction.
MOST = 0.97
# Rounds of dropping and taking back while the stiffness is looked for.
SOME = 3
# Share of measurements that are wrong, as a guess before any fit.
WRONG = 0.05
# Where fewer are right than this share, no more are dropped.
LEAST = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Springs:
    """What the equations are made of.

    Attributes
    ----------
    grid : ControlGrid
        Grid of the B-splines of each field.
    fields : int
        Number of fields.
    rows : csr_array of shape (n, fields * nodes)
        Weights of all B-splines in what each pair of points measures.
    targets : ndarray of shape (n, ndim)
        What is measured: displacements, or differences of displacements.
    weights : ndarray of shape (n, ndim, ndim)
        Inverse covariances.
    least_unit : float
        Least variance of a measurement, in units of its own covariance, that is
        taken for honest; 0 if covariances only compare measurements.
    bending, ground : csr_array of shape (fields * nodes, fields * nodes)
        Energies of fields.
    order : int
        Order of the derivatives that bending is made of.
    """

    grid: ControlGrid
    fields: int
    rows: Any
    targets: Floats
    weights: Floats
    least_unit: float
    bending: Any
    ground: Any
    order: int

    @property
    def amount(self) -> Floats:
        """Mean weight of each measurement."""
        return np.trace(self.weights, axis1=1, axis2=2) / self.targets.shape[1]

    @property
    def rank(self) -> int:
        """Number of ways in which fields can bend."""
        free = comb(len(self.grid.shape) + self.order - 1, self.order - 1)
        return self.fields * (int(np.prod(self.grid.nodes)) - free)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldFit:
    """Coefficients of all B-splines, and the equations that they were found with.

    Attributes
    ----------
    values : ndarray of shape (fields * nodes, ndim)
        The coefficients.
    stiffness : float
        Weight of the bending energy.
    unit : float
        Variance of measurements in units of their covariances.
    score : float
        How badly the stiffness explains the data; less the most that any could.
    matrix : csr_array
        Normal equations as if all covariances were round.
    factor : SymmetricFactor
        Their factor.
    """

    values: Floats
    stiffness: float
    unit: float
    score: float
    matrix: Any
    factor: SymmetricFactor


def springs_of(
    grid: ControlGrid,
    fields: int,
    rows: Any,
    targets: Floats,
    weights: Floats,
    least_unit: float,
    order: int,
) -> Springs:
    """Put the equations together."""
    return Springs(
        grid=grid,
        fields=fields,
        rows=rows,
        targets=targets,
        weights=weights,
        least_unit=least_unit,
        bending=repeated(bending_energy(grid, order), fields),
        order=order,
        ground=repeated(ground_energy(grid), fields),
    )


def solve_springs(
    springs: Springs, *, stiffness: float | None, robust: bool, plausible: Flags
) -> tuple[FieldFit, Flags]:
    """Return the fields, and which measurements are believed.

    Parameters
    ----------
    springs : Springs
        The equations.
    stiffness : float or None
        Weight of the bending energy; None measures it.
    robust : bool
        Whether measurements that contradict the others do not count.
    plausible : ndarray of bool, shape (n,)
        What a robust fit starts from.

    Returns
    -------
    tuple
        The fit, and flags of the measurements.
    """
    believed = np.ones(len(springs.targets), np.bool_)
    if robust and plausible.any():
        believed = plausible.copy()
    fit, believed = _fit_on_grid_of_stiffness(springs, believed, stiffness, robust)
    if robust:
        fit, believed, _ = _trimmed(springs, fit, believed, stiffness, ROUNDS)
    trust = believed.astype(np.float64)
    fit = _refine_stiffness(springs, trust, fit, stiffness)
    return _conjugate_gradients(springs, fit, trust), believed


def _trimmed(
    springs: Springs,
    fit: FieldFit,
    believed: Flags,
    stiffness: float | None,
    rounds: int,
) -> tuple[FieldFit, Flags, float]:
    """Drop what others contradict and take back what they confirm.

    What is believed is compared with what the others predict for it, and what is
    not believed with what all the believed predict. The third result is the score,
    where what is dropped costs what chance would.
    """
    ndim = springs.targets.shape[1]
    dropped = np.zeros(len(believed), np.intp)
    for _ in range(rounds):
        misses = _prediction_residuals(springs, fit, believed)
        usual = np.median(misses[believed]) / chi_square_limit(ndim, 0.5)
        # Residuals tell no unit where a field may follow all that was measured.
        unit = max(springs.least_unit or fit.unit, float(usual))
        found = misses <= unit * chi_square_limit(ndim)
        # Whoever lies makes its neighbours look as if they did: they come back once.
        dropped += believed & ~found
        found &= dropped < 2
        if np.array_equal(found, believed) or found.sum() < LEAST * len(found):
            break
        believed = found
        fit = _refitted(springs, believed.astype(np.float64), fit, stiffness)
    spread = float(np.median(np.abs(springs.targets - springs.targets.mean(axis=0))))
    chance = springs.amount[~believed] * max(spread, ROUNDING) ** 2 / WRONG
    cost = float(np.log(np.maximum(chance, 1)).sum()) * ndim
    return fit, believed, fit.score + cost


def _prediction_residuals(springs: Springs, fit: FieldFit, believed: Flags) -> Floats:
    """Return how far measurements miss what others predict, in units of the errors.

    The share of a measurement in its own prediction comes from random signs.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(believed), PROBES))
    signs *= np.sqrt(springs.amount)[:, None]
    moved = springs.rows @ fit.factor.solve(springs.rows.T @ signs)
    own = np.clip((signs * moved).mean(axis=1), 0, None)
    spread = np.where(believed, 1 - np.minimum(own, MOST), 1 + own)
    return np.asarray(_squared_residuals(springs, fit) / spread)


def _least_variance(springs: Springs) -> float:
    return float(ROUNDING**2 * np.median(springs.amount))


# How stiff


def _fit_on_grid_of_stiffness(
    springs: Springs, believed: Flags, stiffness: float | None, robust: bool
) -> tuple[FieldFit, Flags]:
    """Fit with the stiffness that suits the data best, wherever it is."""
    trust = believed.astype(np.float64)
    if stiffness is not None:
        return _penalized_fit(springs, trust, stiffness), believed
    even = _balanced_stiffness(
        springs, weighted_square(springs.rows, springs.amount * trust)
    )
    # Fields that follow all points and fields that follow none both explain some of
    # them, so that there may be two best ones: all are looked at.
    found = []
    for way in FIRST:
        fit = _penalized_fit(springs, trust, even * way)
        tried = fit, believed, fit.score
        if robust:
            tried = _trimmed(springs, fit, believed, fit.stiffness, SOME)
        found.append(tried)
    return min(found, key=lambda tried: tried[2])[:2]


def _balanced_stiffness(springs: Springs, pulled: Any) -> float:
    """Return the stiffness that holds as much as points pull."""
    return float(pulled.trace() / springs.bending.trace())


def _refitted(
    springs: Springs, trust: Floats, last: FieldFit, stiffness: float | None
) -> FieldFit:
    """Fit with another trust, and with a stiffness near the last one."""
    fit = _penalized_fit(springs, trust, last.stiffness)
    return fit if stiffness is not None else _line_search(springs, trust, fit, NEXT, 1)


def _refine_stiffness(
    springs: Springs, trust: Floats, best: FieldFit, stiffness: float | None
) -> FieldFit:
    """Settle the stiffness."""
    if stiffness is not None:
        return best
    for step in FINER:
        best = _line_search(springs, trust, best, step, STEPS)
    return best


def _line_search(
    springs: Springs, trust: Floats, best: FieldFit, step: float, steps: int
) -> FieldFit:
    """Change the stiffness by a factor while that explains the data better."""
    for way in (step, 1 / step):
        moved = False
        for _ in range(steps):
            other = _penalized_fit(springs, trust, best.stiffness * way)
            if not other.score < best.score:
                break
            best, moved = other, True
        if moved:
            break
    return best


def _penalized_fit(springs: Springs, trust: Floats, stiffness: float) -> FieldFit:
    """Solve as if covariances were round, and say how well that explains the data.

    The score is minus twice the logarithm of the marginal likelihood [MacKay 1992].
    """
    weights = springs.amount * trust
    pulled = weighted_square(springs.rows, weights)
    stiffness = min(stiffness, STIFFEST * _balanced_stiffness(springs, pulled))
    held = stiffness * springs.bending + springs.ground
    matrix = pulled + held
    factor = factorized_matrix(matrix)
    values = factor.solve(springs.rows.T @ (weights[:, None] * springs.targets))
    left = springs.targets - springs.rows @ values
    energy = float((weights * (left**2).sum(axis=1)).sum())
    energy += float((values * (held @ values)).sum())
    ndim = springs.targets.shape[1]
    # Given covariances count like one measurement of the variance for each real one.
    count = max(ndim * float(trust.sum()), 1.0)
    given = count * springs.least_unit
    unit = (energy + given) / (count + count * (springs.least_unit > 0))
    unit = max(unit, springs.least_unit, _least_variance(springs))
    # Pivots that rounding made negative: so stiff that nothing else is left.
    safe = np.maximum(factor.pivots, np.finfo(float).tiny)
    entropy = float(np.log(safe).sum()) - springs.rank * np.log(stiffness)
    entropy += np.inf if (factor.pivots <= 0).any() else 0
    score = (count + given) * np.log(unit) + (energy + given) / unit + ndim * entropy
    return FieldFit(
        values=values,
        stiffness=stiffness,
        unit=unit,
        score=score,
        matrix=matrix,
        factor=factor,
    )


# What is left


def _squared_residuals(springs: Springs, fit: FieldFit) -> Floats:
    """Return the squared residual of each measurement in units of its covariance."""
    left = springs.targets - springs.rows @ fit.values
    return np.einsum("ni,nij,nj->n", left, springs.weights, left)


def _conjugate_gradients(springs: Springs, fit: FieldFit, trust: Floats) -> FieldFit:
    """Put right what covariances that are not round change, by conjugate gradients."""
    weights = springs.weights * trust[:, None, None]
    round_part = (springs.amount * trust)[:, None]

    def multiply(moved: Floats) -> Floats:
        seen = springs.rows @ moved
        extra = (weights @ seen[:, :, None])[:, :, 0] - round_part * seen
        return np.asarray(fit.matrix @ moved + springs.rows.T @ extra)

    pulled = (weights @ springs.targets[:, :, None])[:, :, 0]
    change, _ = conjugate_gradients(
        multiply,
        fit.factor.solve,
        springs.rows.T @ pulled - multiply(fit.values),
        tolerance=FINE,
    )
    return replace(fit, values=fit.values + change)


def knot_variances(springs: Springs, fit: FieldFit) -> Floats:
    """Return the variance of displacements along each axis at corners of cells.

    Of a single field, as if all covariances were round.
    """
    total = _variances_of(fit, *knot_shares(springs.grid))
    return total.reshape([cells + 1 for cells in springs.grid.cells])


def row_variances(fit: FieldFit, rows: Any) -> Floats:
    """Return the variance of sums of B-splines that share what some measurement shares."""
    lengths = np.diff(rows.indptr)
    each = np.arange(lengths.max(initial=1))
    used = each < lengths[:, None]
    at = np.minimum(rows.indptr[:-1, None] + each, len(rows.data) - 1)
    return _variances_of(fit, rows.indices[at], np.where(used, rows.data[at], 0))


def _variances_of(fit: FieldFit, numbers: Any, heights: Floats) -> Floats:
    """Return the variance of sums of B-splines, from the entries of the inverse."""
    factor = fit.factor
    pattern = factor_pattern(factor.starts, factor.rows, factor.rank)
    lower = spread_values(
        *pattern, factor.lower_starts, factor.lower_rows, factor.lower
    )
    inverse = selected_inverse(*pattern, lower, factor.pivots)
    ranks = np.ascontiguousarray(factor.rank[numbers].T, np.int64)
    total = np.zeros(len(numbers))
    for first, second in combinations_with_replacement(range(len(ranks)), 2):
        share = heights[:, first] * heights[:, second]
        used = np.flatnonzero(share)
        wanted = ranks[first][used], ranks[second][used]
        entries = selected_entries(*pattern, inverse, wanted)
        total[used] += (1 + (second > first)) * share[used] * entries
    return np.asarray(fit.unit * total)

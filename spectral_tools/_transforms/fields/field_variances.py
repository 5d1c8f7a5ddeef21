"""How well fields are known, from the factor of their equations."""

from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from ..._shared.arrays import Floats
from ..._shared.selected_inverse import (
    factor_pattern,
    selected_entries,
    selected_inverse,
    spread_values,
)
from .bspline_fit import FieldFit, Springs
from .bspline_grid import knot_shares

__all__ = ["knot_variances", "row_variances"]


def knot_variances(springs: Springs, fit: FieldFit) -> Floats:
    """Return the variance of displacements along each axis at corners of cells.

    Of a single field, as if all covariances were round.
    """
    total = _variances_of(fit, *knot_shares(springs.grid))
    return total.reshape([cells + 1 for cells in springs.grid.cells])


def row_variances(fit: FieldFit, rows: Any) -> Floats:
    """Return the variance of sums of bumps that share what some measurement shares."""
    lengths = np.diff(rows.indptr)
    each = np.arange(lengths.max(initial=1))
    used = each < lengths[:, None]
    at = np.minimum(rows.indptr[:-1, None] + each, len(rows.data) - 1)
    return _variances_of(fit, rows.indices[at], np.where(used, rows.data[at], 0))


def _variances_of(fit: FieldFit, numbers: Any, heights: Floats) -> Floats:
    """Return the variance of sums of bumps, from the entries of the inverse."""
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

"""Place tiles that may stretch and shear, by linear least squares."""

import numpy as np

from ..._shared.arrays import Flags, Floats
from ..._shared.statistics import find_consensus, outlier_test, suspicious
from .normal_equations import (
    LEAST_STIFFNESS,
    USUAL_STIFFNESS,
    PointLinks,
    sum_rows,
    undetermined,
    unit_variance,
)
from .sheet_equations import (
    Fit,
    Sheets,
    fitted,
    polished,
    sheets_of,
    spring_roots,
    squares_of,
    upright,
)

__all__ = ["solve_sheets"]


# One or two rounds settle the stiffness; perfect matches take some more.
ROUNDS = 8
# A mean linear part that shrinks volumes to this is none.
FLAT = 1e-3


def solve_sheets(
    problem: PointLinks, *, stiffness: float | None, robust: bool
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed.

    Parameters
    ----------
    problem : PointLinks
        Tiles and links.
    stiffness : float or None
        Inverse variance of the entries of the linear parts less the identity;
        None measures it.
    robust : bool
        Whether links that contradict the others do not count.

    Returns
    -------
    tuple
        Matrices of shape (n, ndim + 1, ndim + 1), and flags of the links.
    """
    sheets = sheets_of(problem)
    start = USUAL_STIFFNESS if stiffness is None else stiffness
    believed = np.ones(len(problem.links), np.bool_)
    fit = fitted(sheets, believed.astype(float), upright(sheets), start)
    for _ in range(ROUNDS if stiffness is None else 0):
        last, fit = fit, _refitted(sheets, fit, fit.trust)
        if max(fit.spring, last.spring) <= 2 * min(fit.spring, last.spring):
            break
    squares = squares_of(sheets, fit.values)
    ndim = problem.places.shape[1]
    if robust and suspicious(ndim, squares, problem.least_unit):
        # What bent to contradictions stiffens when it is told of so large errors.
        stiff = _trusted(sheets, stiffness, fit.trust, float(squares.max()), fit)
        fit, believed = find_consensus(
            lambda trust, variance, last: _trusted(
                sheets, stiffness, trust, variance, last
            ),
            lambda last: squares_of(sheets, last.values),
            stiff,
            outlier_test(
                ndim, problem.amount, _open(sheets, fit)[0], problem.least_unit
            ),
        )
    fit = polished(sheets, fit)
    return _gauged(problem, _matrices(sheets, fit.values)), believed


def _trusted(
    sheets: Sheets,
    stiffness: float | None,
    trust: Floats,
    variance: float | None,
    last: Fit,
) -> Fit:
    """Fit with a trust of 0 to 1 in each link, and a variance that it implies.

    The larger the errors of links, the less they have to say about distortions.
    """
    if variance is not None:
        stiff = variance * (USUAL_STIFFNESS if stiffness is None else stiffness)
        return fitted(sheets, trust, last.values, stiff, steps=1)
    if stiffness is not None:
        return fitted(sheets, trust, last.values, stiffness)
    return _refitted(sheets, last, trust)


# What the data say about themselves


def _open(sheets: Sheets, fit: Fit) -> tuple[float, float]:
    """Count the coefficients that links determine: all, and of distortions."""
    problem = sheets.problem
    free = ~problem.fixed
    if not free.any():
        return 0.0, 0.0
    prior = problem.prior.mean(keepdims=True)
    roots = spring_roots(sheets, fit.spring, prior)[free]
    left = undetermined(fit.solve, roots)
    count, _, size = roots.shape
    bent = max(count * (size - 1) - float(left[: size - 1].sum()), 0.0)
    return max(count * size - float(left.sum()), 0.0), bent


def _refitted(sheets: Sheets, fit: Fit, trust: Floats) -> Fit:
    """Fit again, with the stiffness that fits what was found with another one.

    The variance of distortions is that of the found ones, counted by how many
    coefficients the links determine [MacKay 1992].
    """
    unknown, bent = _open(sheets, fit)
    linear = fit.values[~sheets.problem.fixed, :-1] / sheets.spread
    found = (np.sum(linear**2) + 1 / USUAL_STIFFNESS) / (linear.shape[2] * bent + 1)
    variance = min(float(found), 1 / LEAST_STIFFNESS)
    squares = squares_of(sheets, fit.values)
    unit = unit_variance(sheets.problem, squares, trust, unknown)
    return fitted(sheets, trust, fit.values, unit / variance)


# The result


def _matrices(sheets: Sheets, values: Floats) -> Floats:
    """Return matrices that displace points as the unknowns say."""
    count, ndim = sheets.middle.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:] = np.eye(ndim + 1)
    linear = values[:, :-1].transpose(0, 2, 1) / sheets.spread
    matrices[:, :-1, :-1] += linear
    matrices[:, :-1, -1] = values[:, -1]
    matrices[:, :-1, -1] -= (linear @ sheets.middle[:, :, np.newaxis])[:, :, 0]
    return matrices


def _gauged(problem: PointLinks, matrices: Floats) -> Floats:
    """Give each group that nothing holds the identity as its mean linear part."""
    size = np.bincount(problem.group)
    mean = sum_rows(problem.group, matrices, len(size)) / size[:, None, None]
    away = sum_rows(problem.group, problem.places, len(size)) / size[:, None]
    change = np.broadcast_to(np.eye(mean.shape[1]), mean.shape).copy()
    loose = problem.loose & (not problem.prior.any())
    # Tiles that point every way have no mean to be made upright.
    loose &= np.abs(np.linalg.det(mean)) > FLAT
    change[loose] = np.linalg.inv(mean[loose])
    gauged = change[problem.group] @ matrices
    # The mean matrix is now the identity: its translation is next.
    gauged[loose[problem.group], :-1, -1] += away[problem.group[loose[problem.group]]]
    return np.asarray(gauged)

"""Find the measurements that agree, whatever is fitted to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import fdtri, gammainccinv

from .arrays import Flags, Floats
from .statistics import honest_limit

__all__ = ["OutlierTest", "find_consensus", "outlier_test", "suspicious"]

State = TypeVar("State")

# Chance that an honest measurement is not believed.
FALSE_REJECTION = 1e-6
# Closing errors below this many pixels are rounding, not measurements.
ROUNDING = 1e-6
# What is not believed still pulls, this much as strongly, so that a tile none of
# whose matches is believed stays near where they put it.
FAINT = 1e-9
# The kernel narrows by this factor from step to step, down to two standard
# deviations: wider ones would hide contradictions in the spread they cause.
GRADUATION = 4.0
CORE = 4.0
# It need not be wider than this at first, in variances of the bulk of residuals.
WIDE = 64.0
# What the narrow kernel left out misses by its own error and by that of what is
# predicted for it: it is judged when it has been fitted.
SECOND_CHANCE = 4.0
# Dropping and taking back settles after two or three rounds, if ever.
ROUNDS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutlierTest:
    """What tells honest squared residuals from contradictions.

    Attributes
    ----------
    ndim : int
        Numbers in each measurement.
    unknown : float
        Number of measurements that the unknowns of the fit use up.
    least : float
        Least variance of honest measurements, in units of their covariances.
    rounding : ndarray of shape (count,)
        Squared residuals up to this say nothing: the measurement was needed.
    """

    ndim: int
    unknown: float
    least: float
    rounding: Floats

    def core(self, squares: Floats) -> float:
        """Return the variance of what is honest, from the median residual.

        It holds while many are false, but can be too small: a fit may bend to as
        many of them as it has unknowns.
        """
        told = squares > self.rounding
        share = (len(squares) - self.unknown) / (int(np.count_nonzero(told)) or 1)
        # Less than this share would make a unit out of almost nothing.
        if share < 0.01 or not told.any():
            return self.least
        median = np.median(squares[told]) / (2 * gammainccinv(self.ndim / 2, 0.5))
        return max(self.least, float(median) / min(share, 1.0))

    def limit(self, squares: Floats, believed: Flags) -> float:
        """Return the largest squared residual that is believed.

        It is counted in units of the variance of what is believed so far. Few of
        these beyond the unknowns make the unit uncertain, and the limit wide.
        """
        left = self.ndim * (np.count_nonzero(believed) - self.unknown)
        if left < 0.5:
            return np.inf
        variance = float(squares[believed].sum()) / left
        ratio = self.ndim * float(fdtri(self.ndim, left, 1 - FALSE_REJECTION))
        return max(self.least * honest_limit(self.ndim), variance * ratio)


def outlier_test(
    ndim: int, amount: Floats, unknown: float, least: float
) -> OutlierTest:
    """Return what tells honest measurements from contradictions.

    Parameters
    ----------
    ndim : int
        Numbers in each measurement.
    amount : ndarray of shape (count,)
        Mean weight of each measurement, in px^-2.
    unknown : float
        Number of measurements that the unknowns of the fit use up.
    least : float
        Least variance of honest measurements, in units of their covariances; 0 if
        only the residuals say how large they are.

    Returns
    -------
    Judge
        It finds everything honest if nothing tells.
    """
    if not least and len(amount) - unknown < 0.5:
        least = np.inf
    rounding = ROUNDING**2 * amount
    return OutlierTest(
        ndim=ndim,
        unknown=unknown,
        least=max(least, float(np.median(rounding))),
        rounding=rounding,
    )


def suspicious(ndim: int, squares: Floats, least: float) -> bool:
    """Tell whether a squared residual is larger than honest errors explain."""
    return bool(squares.max(initial=0) > least * honest_limit(ndim))


def find_consensus(
    fit: Callable[[Floats, float | None, State], State],
    squares_of: Callable[[State], Floats],
    start: State,
    judge: OutlierTest,
) -> tuple[State, Flags]:
    """Fit while dropping measurements that contradict the others.

    Parameters
    ----------
    fit : callable
        Fits from a state nearby, with a trust of 0 to 1 in each measurement. It
        is also told the variance that honest measurements are taken to have, in
        units of their covariances, or None if it is that of the trusted ones.
    squares_of : callable
        Squared residual of each measurement in units of its covariance.
    start : object
        State to start from.
    judge : Judge
        What tells honest residuals.

    Returns
    -------
    tuple
        State of the plain fit of what is believed, and which measurements are.
    """
    # Strategy: start from a wide kernel, which is nearly plain least squares, go on
    # with ever narrower ones, which forget contradictions from the worst down, and
    # end with plain least squares of what is left, until nothing changes any more.
    state, squares = start, squares_of(start)
    kernel = min(2 * squares.max(), WIDE * judge.core(squares))
    while kernel > CORE * judge.core(squares):
        kernel /= GRADUATION
        trust = np.maximum((kernel / (squares + kernel)) ** 2, FAINT)
        state = fit(trust, kernel / CORE, state)
        squares = squares_of(state)

    honest = honest_limit(judge.ndim)
    dropped = np.zeros(len(squares), np.bool_)
    found = squares <= SECOND_CHANCE * judge.core(squares) * honest
    for _ in range(ROUNDS):
        believed = found
        state = fit(np.where(believed, 1.0, FAINT), None, state)
        squares = squares_of(state)
        limit = judge.limit(squares, believed)
        dropped |= believed & (squares > limit)
        found = (squares <= SECOND_CHANCE * limit) & ~dropped
        if np.array_equal(found, believed):
            break
    return state, believed

"""Tell honest errors of links from contradictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.special import fdtrc, fdtri, gammainccinv

from .arrays import Flags, Floats

__all__ = [
    "FAINT",
    "GRADUATION",
    "ROUNDING",
    "ROUNDS",
    "TOO_SMALL",
    "UNLIKELY",
    "OutlierTest",
    "cauchy_weights",
    "chi_square_limit",
    "f_limit",
    "f_tail",
    "find_consensus",
    "first_limit",
    "fit_loop_mixture",
    "has_outliers",
    "least_absolute_weights",
    "mad_sigma",
    "outlier_test",
    "prior_odds",
    "trim_outliers",
]


# Chance that a link with an honest covariance is not believed: about two of the
# two million links of a grid of a million tiles are lost for nothing.
FALSE_REJECTION = 1e-6
# Residuals that honest covariances explain with less than this probability say
# themselves how large errors are; links that agree by chance with less are believed
# (test_links_that_agree_about_nothing_are_not_believed).
UNLIKELY = 1e-3
# Standard deviation of a normal distribution over its median absolute deviation.
MAD = 1.4826
# Where Cauchy's function halves a weight, in standard deviations.
TUNING = 2.385
# Closing errors below this many pixels are rounding, not measurements.
ROUNDING = 1e-6
# Chance alone makes a mixture of two kinds of loops look this much likelier
# (natural logarithm) than one kind, at most.
MIXED = 8.0
# Covariances may be too small by the first factor as a matter of course, and
# by the second without much wonder.
TRUSTED = 4.0
TOO_SMALL = 100.0
# Shares of right loops that are tried, and the fewest loops that tell it.
SHARES = (1.0, 0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)
FEW_LOOPS = 10

# Share of wrong offsets for which one of the other alternatives is right.
RESCUED = 0.5
# Share of first offsets that are right: if nothing is known, and at most and least.
USUAL = 0.8
LEAST_TRUST, MOST_TRUST = 0.6, 0.98

State = TypeVar("State")
# What is not believed still pulls, this much as strongly, so that a tile none of
# whose matches is believed stays near where they put it.
FAINT = 1e-9
# The kernel narrows by this factor from step to step, down to two standard
# deviations, whose square it is: wider ones would hide contradictions in the spread
# they cause.
GRADUATION = 4.0
# What the narrow kernel left out misses by its own error and by that of what is
# predicted for it: it is testd when it has been fitted.
SECOND_CHANCE = 4.0
# Dropping and taking back settles after two or three rounds, if ever; so does
# reweighting.
ROUNDS = 10


def chi_square_limit(axes: int, chance: float = FALSE_REJECTION) -> float:
    """Return what chi-square of `axes` degrees of freedom exceeds with a chance."""
    return float(2 * gammainccinv(axes / 2, chance))


def f_limit(axes: int, freedom: float, chance: float = FALSE_REJECTION) -> float:
    """Return what a squared residual exceeds with a chance, in estimated variances.

    The variance has `freedom` degrees of freedom: few of them make it uncertain, and
    the limit, `axes` times a quantile of Fisher's F, wide.
    """
    return axes * float(fdtri(axes, freedom, 1 - chance))


def f_tail(axes: int, freedom: float, squares: Floats) -> Floats:
    """Return the chance of squared residuals so large, in estimated variances."""
    return np.asarray(fdtrc(axes, freedom, squares / axes))


def mad_sigma(residuals: Floats, axis: int | None = None) -> Any:
    """Return the standard deviation of normal residuals, from their median size."""
    return MAD * np.median(np.abs(residuals), axis=axis)


def cauchy_weights(weights: Floats, residuals: Floats, sigma: Any) -> Floats:
    """Return weights, less for outliers, for least squares that is iterated.

    It ends at the most likely fit to errors of Cauchy's distribution, with 95 % of
    the efficiency of least squares if they are normal (Holland & Welsch 1977,
    :doi:`10.1080/03610927708827533`).
    """
    return np.asarray(weights / (1 + (residuals / (TUNING * sigma)) ** 2))


def least_absolute_weights(
    distances: Floats, axis: int | None = None, least: float = 1e-12
) -> Floats:
    """Return weights with which iterated least squares becomes least distances.

    Distances below a tenth of the median count as that (Schlossmacher 1973,
    :doi:`10.1080/01621459.1973.10481436`).
    """
    usual = np.median(distances, axis=axis, keepdims=axis is not None)
    return np.asarray(1 / np.maximum(distances, 0.1 * usual + least))


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

    def core(self, squares: Floats, among: Flags | bool = True) -> float:
        """Return the variance of what is honest, from the median residual `among` some.

        It holds while many are false, but can be too small: a fit may bend to as
        many of them as it has unknowns.
        """
        told = among & (squares > self.rounding)
        count = np.count_nonzero(np.broadcast_to(among, told.shape)) - self.unknown
        share = count / (int(np.count_nonzero(told)) or 1)
        # Less than this share would make a unit out of almost nothing.
        if share < 0.01 or not told.any():
            return self.least
        median = np.median(squares[told]) / chi_square_limit(self.ndim, 0.5)
        return max(self.least, float(median) / min(share, 1.0))

    def limit(self, squares: Floats, believed: Flags) -> float:
        """Return the largest squared residual that is believed.

        It is counted in units of the variance of what is believed so far.
        """
        left = self.ndim * (np.count_nonzero(believed) - self.unknown)
        if left < 0.5:
            return np.inf
        variance = float(squares[believed].sum()) / left
        return max(
            self.least * chi_square_limit(self.ndim),
            variance * f_limit(self.ndim, left),
        )


def outlier_test(
    ndim: int, amount: Floats, unknown: float, least: float
) -> OutlierTest:
    """Return what tells honest measurements from contradictions.

    `amount` holds the mean weight of each measurement, in px^-2. `least` is 0 if only
    the residuals say how large errors are.
    """
    rounding = ROUNDING**2 * amount
    return OutlierTest(
        ndim=ndim,
        unknown=unknown,
        least=max(least, float(np.median(rounding))),
        rounding=rounding,
    )


def has_outliers(ndim: int, squares: Floats, least: float) -> bool:
    """Tell whether a squared residual is larger than honest errors explain."""
    return bool(squares.max(initial=0) > least * chi_square_limit(ndim))


def fit_loop_mixture(
    misfit: Floats, ndim: int, least: float, *, known: bool
) -> tuple[float, float | None]:
    """Return the variance of loops that close, and their share if it can be told.

    Closing errors are those of right links, or far larger: the most likely
    mixture of two normal distributions, whose wide one is that of all errors. The
    narrow one has `least` of variance, or more if covariances are not `known`.
    """
    top = max(float(misfit.mean()) / ndim, least)
    best = (-np.inf, top, 1.0)
    scale = top
    while True:
        for share in SHARES:
            near = share * np.exp(-misfit / (2 * scale)) / scale ** (ndim / 2)
            far = (1 - share) * np.exp(-misfit / (2 * top)) / top ** (ndim / 2)
            likelihood = float(np.log(near + far + 1e-300).sum())
            if scale > TRUSTED * least or not known:
                likelihood -= MIXED * (share < 1)
            if known:
                # Covariances that are given are not lightly called far too small,
                likelihood -= max(np.log(scale / (TOO_SMALL * least)) / 2, 0)
                # nor are all loops, if they are many, called false.
                likelihood -= np.log(2) * len(misfit) * ((near > far).sum() < 1)
            best = max(best, (likelihood, scale, share))
        if scale == least:
            break
        scale = max(scale / 2, least)
    return best[1], best[2] if len(misfit) >= FEW_LOOPS else None


def prior_odds(options: Floats, doubt: Floats | None, share: float | None) -> Floats:
    """Return the odds of each offset (n_links, choices) against none of them.

    `doubt` is the probability that the first is wrong, `share` that of all links
    whose first is right. Repetitions have none.
    """
    count, choices = options.shape[:2]
    first = USUAL if share is None else np.clip(share, LEAST_TRUST, MOST_TRUST)
    right = np.full(count, first)
    if doubt is not None:
        right = np.clip(1 - doubt, 1 - MOST_TRUST, MOST_TRUST)
    rest = (1 - right) * (RESCUED if choices > 1 else 0)
    odds = np.empty((count, choices))
    odds[:, 0] = right
    odds[:, 1:] = (rest / max(choices - 1, 1))[:, np.newaxis]
    odds /= (1 - right - rest)[:, np.newaxis]
    for one in range(1, choices):
        for other in range(one):
            same = options[:, one] == options[:, other]
            odds[same.all(axis=1), one] = 0
    return odds


def find_consensus(
    fit: Callable[[Floats, float | None, State], State],
    squares_of: Callable[[State], Floats],
    start: State,
    test: OutlierTest,
    allowed: Flags,
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
    test : OutlierTest
        What tells honest residuals.
    allowed : ndarray of bool, shape (count,)
        Measurements that may be believed at all.

    Returns
    -------
    tuple
        State of the plain fit of what is believed, and which measurements are.
    """
    # Strategy: start from a wide kernel, which is nearly plain least squares, go on
    # with ever narrower ones, which forget contradictions from the worst down, and
    # end with plain least squares of what is left, until nothing changes any more.
    state, squares = start, squares_of(start)
    kernel = 2 * float(squares.max(initial=0))
    while kernel > GRADUATION * test.core(squares, allowed):
        kernel /= GRADUATION
        trust = np.maximum(allowed * (kernel / (squares + kernel)) ** 2, FAINT)
        state = fit(trust, kernel / GRADUATION, state)
        squares = squares_of(state)

    limit = first_limit(test.ndim, test.core(squares, allowed))
    return trim_outliers(
        lambda trust, state: fit(trust, None, state),
        squares_of,
        state,
        allowed & (squares <= limit),
        test,
        allowed=allowed,
    )


def first_limit(ndim: int, variance: float) -> float:
    """Return the largest squared residual of what may be believed, for a start."""
    return SECOND_CHANCE * variance * chi_square_limit(ndim)


def trim_outliers(
    fit: Callable[[Floats, State], State],
    squares_of: Callable[[State], Floats],
    state: State,
    found: Flags,
    test: OutlierTest,
    *,
    allowed: Flags | None = None,
) -> tuple[State, Flags]:
    """Fit what is believed, until it changes no more: least squares that are trimmed.

    It starts with what was `found` to be right; what is not `allowed` never is. What
    has been dropped does not come back.
    """
    dropped = np.zeros(len(found), np.bool_) if allowed is None else ~allowed
    for _ in range(ROUNDS):
        believed = found
        state = fit(np.where(believed, 1.0, FAINT), state)
        squares = squares_of(state)
        limit = test.limit(squares, believed)
        dropped |= believed & (squares > limit)
        found = (squares <= SECOND_CHANCE * limit) & ~dropped
        if np.array_equal(found, believed):
            break
    return state, believed

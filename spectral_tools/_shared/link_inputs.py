"""Turn what is known about links and tiles into arrays."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Flags, Floats
from .checks import as_points, as_positions, as_shift, check_positive
from .link_arguments import Positions
from .outcomes import Outcome
from .sparse import connected_groups

__all__ = [
    "as_link_points",
    "as_link_weights",
    "as_places",
    "as_position_prior",
    "residual_variance",
    "tile_outcomes",
]


def as_link_points(points: ArrayLike, name: str, count: int) -> Floats:
    """Return one point for each of `count` links."""
    array = as_points(_finite_rows(points, name, "link"), name)
    if len(array) != count:
        message = (
            f"`{name}` must have one row for each of {count} links; got {len(array)}."
        )
        raise ValueError(message)
    return array


def as_places(
    positions: Positions | None, labels: Sequence[Hashable], ndim: int
) -> Floats:
    """Return the expected position of each tile, or zeros."""
    if positions is None:
        return np.zeros((len(labels), ndim))
    if isinstance(positions, Mapping):
        positions = np.array(list(positions.values()))
    finite = _finite_rows(positions, "positions", "tile")
    return as_positions(finite, "positions", count=len(labels), ndim=ndim)


def as_position_prior(
    sigma: ArrayLike | None, positions: Positions | None, ndim: int
) -> Floats:
    """Return the inverse variance of positions along each axis, 0 if unknown."""
    if sigma is None:
        return np.zeros(ndim)
    if positions is None:
        message = "`positions` must be given with `position_sigma`; got None."
        raise ValueError(message)
    spread = as_shift(sigma, ndim, "position_sigma")
    check_positive(float(spread.min()), "position_sigma")
    return spread**-2.0


def as_link_weights(
    covariance: ArrayLike | None, count: int, ndim: int
) -> tuple[Floats, Floats, Flags]:
    """Return covariances, their inverses, and which links have one."""
    given = np.eye(ndim) if covariance is None else np.asarray(covariance, np.float64)
    if given.shape not in ((ndim, ndim), (count, ndim, ndim)):
        message = (
            f"`covariance` must have shape {(count, ndim, ndim)} or "
            f"{(ndim, ndim)}; got {given.shape}."
        )
        raise ValueError(message)
    full = np.broadcast_to(given, (count, ndim, ndim))
    # Many links with one covariance are common, and one inverse serves them.
    distinct = full[:1] if full.strides[0] == 0 else full
    usable = np.asarray(np.isfinite(distinct).all(axis=(1, 2)))
    safe = np.where(usable[:, np.newaxis, np.newaxis], distinct, np.eye(ndim))
    bad = np.isnan(distinct).any(axis=(1, 2)) | ~_positive_definite(safe)
    if bad.any():
        row = int(bad.argmax())
        message = (
            "`covariance` must be symmetric and positive definite, or infinite; "
            f"got {distinct[row].tolist()} for link {row}."
        )
        raise ValueError(message)
    weights = np.broadcast_to(np.linalg.inv(safe), full.shape)
    return full, weights, np.broadcast_to(usable, count)


def tile_outcomes(
    links: NDArray[np.intp], usable: Flags, inlier: Flags, expected: Flags
) -> NDArray[np.object_]:
    """Say what became of each tile, from its links and from what was given."""
    kind = expected.astype(np.intp)
    kind[links if usable.all() else links[usable]] = 2
    kind[links if inlier.all() else links[inlier]] = 3
    names = [
        Outcome.ISOLATED,
        Outcome.PRIOR_ONLY,
        Outcome.CONTRADICTED,
        Outcome.MATCHED,
    ]
    return np.array(names, object)[kind]


def residual_variance(
    links: NDArray[np.intp], residuals: Floats, fixed: Flags, unknowns: int
) -> float:
    """Return the variance of believed links, as their residuals tell it.

    Each tile that is not held took `unknowns` numbers from them. The variance is infinite if
    links close no loops, so that nothing tells.
    """
    group = connected_groups(links, len(fixed))
    held = np.bincount(group, fixed) > 0
    tiles = np.count_nonzero(~fixed) - np.count_nonzero(~held)
    freedom = residuals.shape[1] * len(links) - unknowns * tiles
    if freedom <= 0:
        return np.inf
    return float((residuals**2).sum()) / freedom


def _finite_rows(values: ArrayLike, name: str, noun: str) -> ArrayLike:
    """Let points through, or name the link or tile that has none."""
    array = np.asarray(values)
    if array.ndim == 2 and array.dtype.kind == "f":
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            message = f"`{name}` must be finite; got {array[row]} for {noun} {row}."
            raise ValueError(message)
    return array


def _positive_definite(matrices: Floats) -> Flags:
    """Tell which matrices are symmetric and positive definite."""
    size = np.abs(matrices).max(axis=(1, 2))
    skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max(axis=(1, 2))
    symmetric: Flags = skew <= 1e-6 * size
    try:
        # Many times faster than eigenvalues, but mute on which matrix fails.
        np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return symmetric & (np.linalg.eigvalsh(matrices)[:, 0] > 1e-15 * size)
    return symmetric

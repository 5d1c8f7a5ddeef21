"""Place many tiles at once from the links between them (floor 2)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import as_points, as_positions, as_shift, check_positive, check_same_shape
from ._labels import Links, Positions, find_tiles, number_links
from ._network import Network, solve_network
from ._outcomes import Outcome
from ._sparse import connected_groups

__all__ = ["Placement", "solve_rigid"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Where each tile belongs, and which links say so.

    Attributes
    ----------
    matrices : ndarray of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    residuals : ndarray of shape (n_links, ndim)
        Reference point less moving point, both moved to the mosaic, in pixels:
        what each link still asks for.
    inlier : ndarray of bool, shape (n_links,)
        Links that the solution believes.
    group : ndarray of int, shape (n,)
        Number of the connected group of each tile. Positions of tiles of
        different groups are related only by what was given about positions.
    outcome : ndarray of Outcome, shape (n,)
        What became of each tile: matched, by prior only, contradicted or
        isolated.
    labels : sequence
        Label of each tile, in the order of the arrays.
    """

    matrices: Floats
    residuals: Floats
    inlier: NDArray[np.bool_]
    group: NDArray[np.intp]
    outcome: NDArray[np.object_]
    labels: Sequence[Hashable]


def solve_rigid(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
    positions: Positions | None = None,
    position_sigma: ArrayLike | None = None,
    fixed: Any = None,
    robust: bool = True,
) -> Placement:
    """Place tiles by translation so that linked points meet.

    The positions are those of weighted least squares: no other linear estimate
    from the same links has smaller errors.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2), or sequence of label pairs
        The reference and the moving tile of each link: numbers, or any
        hashable labels such as grid keys ``((0, 0), (0, 1))``. Two tiles may be
        linked more than once.
    reference_points, moving_points : array_like of shape (n_links, ndim)
        Points in pixels of the one and the other tile that belong together.
    covariance : array_like of shape (n_links, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in px^2. A link with an
        infinite entry is known to have failed: it has no say. By default all
        links count alike, and like 1 px beside `position_sigma`.
    positions : array_like of shape (n, ndim) or mapping, optional
        Expected position of each tile, in pixels. With labels it may map them to
        positions. Without `position_sigma` it serves only to place what links
        leave open: the mean of each group of tiles.
    position_sigma : float or array_like of shape (ndim,), optional
        Standard deviation of `positions` in pixels. With it they count as
        measurements, beside the links.
    fixed : label or sequence of labels, optional
        Tiles that stay at their `positions`, or at the origin without these.
    robust : bool, optional
        Find links that contradict the others and do not let them count. Errors
        may be larger than the covariances say, as long as most are so alike.

    Returns
    -------
    Placement
        Matrices and outcomes of the tiles, residuals of the links. Tiles are in
        the order of their numbers; else of the mapping `positions`; else their
        labels are sorted, or come as they first appear if they have no order.

    See Also
    --------
    grid_links : Links of a grid of tiles.
    overlapping_links : Links of tiles that lie anywhere.

    Notes
    -----
    Each group of connected tiles that holds no `fixed` tile has the mean of its
    `positions`, or mean zero without these.

    Robust placement is least squares with Geman-McClure weights, from a wide to a
    narrow kernel [1]_, and ends with plain least squares of what is believed. The
    unit of the kernel is the median residual, given the number of loops that links
    close [2]_; that of the last decision is the variance of what is believed. Both
    are at least what a given covariance says. Links that close no loop cannot be
    contradicted, nor can it be told which link of a single loop is wrong.

    References
    ----------
    .. [1] Yang, Antonante, Tzoumas and Carlone, Graduated non-convexity for
       robust spatial perception, IEEE Robot. Autom. Lett. 5 (2020) 1127,
       :doi:`10.1109/LRA.2020.2965893`.
    .. [2] Rousseeuw and Leroy, Robust regression and outlier detection, Wiley
       (1987), :doi:`10.1002/0471725382`.

    Examples
    --------
    Nine tiles that are 90 px apart; the link from 4 to 5 is wrong by 50 px:

    >>> import spectral_tools as spt
    >>> truth = spt.grid_positions((3, 3), (100, 100))
    >>> links = spt.grid_links((3, 3))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> false = (links == (4, 5)).all(axis=1)
    >>> found[false] += (50, 0)
    >>> placed = spt.solve_rigid(links, found, 0 * found, fixed=0)
    >>> placed.matrices[[4, 5], :2, 2].round(3)
    array([[ 90.,  90.],
           [ 90., 180.]])
    >>> links[~placed.inlier]
    array([[4, 5]])
    """
    pairs, labels = number_links(links, positions)
    reference = _points(reference_points, "reference_points", len(pairs))
    moving = _points(moving_points, "moving_points", len(pairs))
    check_same_shape(reference_points=reference, moving_points=moving)
    offsets = reference - moving
    ndim = offsets.shape[1]
    weights, usable = _weights(covariance, pairs, ndim)
    fixed_tiles = find_tiles(fixed, labels, "fixed")

    # A slice copies nothing, and most often all links are usable.
    kept = slice(None) if usable.all() else usable
    network = Network(
        links=pairs[kept],
        offsets=offsets[kept],
        weights=weights[kept],
        places=_places(positions, labels, ndim),
        prior=_prior(position_sigma, positions, ndim),
        fixed=fixed_tiles,
        group=connected_groups(pairs[kept], len(labels)),
        # Without any covariance a pixel is no unit: the residuals alone are.
        least_unit=float(covariance is not None or position_sigma is not None),
    )
    found, believed = solve_network(network, robust=robust)

    inlier = np.zeros(len(pairs), np.bool_)
    inlier[kept] = believed
    return Placement(
        matrices=_translations(found),
        residuals=offsets + found[pairs[:, 0]] - found[pairs[:, 1]],
        inlier=inlier,
        group=network.group,
        outcome=_outcomes(pairs, usable, inlier, fixed_tiles | (positions is not None)),
        labels=labels,
    )


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


def _points(points: ArrayLike, name: str, count: int) -> Floats:
    array = as_points(_finite_rows(points, name, "link"), name)
    if len(array) != count:
        message = (
            f"`{name}` must have one row for each of {count} links; got {len(array)}."
        )
        raise ValueError(message)
    return array


def _places(
    positions: Positions | None, labels: Sequence[Hashable], ndim: int
) -> Floats:
    if positions is None:
        return np.zeros((len(labels), ndim))
    if isinstance(positions, Mapping):
        positions = np.array(list(positions.values()))
    finite = _finite_rows(positions, "positions", "tile")
    return as_positions(finite, "positions", count=len(labels), ndim=ndim)


def _prior(sigma: ArrayLike | None, positions: Positions | None, ndim: int) -> Floats:
    """Return the inverse variance of positions along each axis, 0 if unknown."""
    if sigma is None:
        return np.zeros(ndim)
    if positions is None:
        message = "`positions` must be given with `position_sigma`; got None."
        raise ValueError(message)
    spread = as_shift(sigma, ndim, "position_sigma")
    check_positive(float(spread.min()), "position_sigma")
    return spread**-2.0


def _weights(
    covariance: ArrayLike | None, pairs: NDArray[np.intp], ndim: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the inverse covariance of each link, and which links have one."""
    given = np.eye(ndim) if covariance is None else np.asarray(covariance, np.float64)
    if given.shape not in ((ndim, ndim), (len(pairs), ndim, ndim)):
        message = (
            f"`covariance` must have shape {(len(pairs), ndim, ndim)} or "
            f"{(ndim, ndim)}; got {given.shape}."
        )
        raise ValueError(message)
    full = np.broadcast_to(given, (len(pairs), ndim, ndim))
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
    return weights, np.broadcast_to(usable, len(pairs))


def _positive_definite(matrices: Floats) -> NDArray[np.bool_]:
    """Tell which matrices are symmetric and positive definite."""
    size = np.abs(matrices).max(axis=(1, 2))
    skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max(axis=(1, 2))
    symmetric: NDArray[np.bool_] = skew <= 1e-6 * size
    try:
        # Many times faster than eigenvalues, but mute on which matrix fails.
        np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return symmetric & (np.linalg.eigvalsh(matrices)[:, 0] > 1e-15 * size)
    return symmetric


def _translations(positions: Floats) -> Floats:
    count, ndim = positions.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:] = np.eye(ndim + 1)
    matrices[:, :-1, -1] = positions
    return matrices


def _outcomes(
    pairs: NDArray[np.intp],
    usable: NDArray[np.bool_],
    inlier: NDArray[np.bool_],
    expected: NDArray[np.bool_],
) -> NDArray[np.object_]:
    """Say what became of each tile, from its links and from what was given."""
    outcome = np.full(len(expected), Outcome.ISOLATED, dtype=object)
    outcome[expected] = Outcome.PRIOR_ONLY
    outcome[pairs[usable]] = Outcome.CONTRADICTED
    outcome[pairs[inlier]] = Outcome.MATCHED
    return outcome

"""How far placed tiles can be trusted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats
from .._shared.link_arguments import Links, number_links
from .._shared.sparse import connected_groups
from .selected import Evidence, offset_blocks, position_blocks
from .solve_tiles import Placement

__all__ = ["offset_covariance", "position_covariance"]


def position_covariance(placement: Placement) -> Floats:
    """Return the covariance of the position of each tile.

    It is that of weighted least squares with the links that the placement
    believes: standard errors are ``np.sqrt(np.diagonal(c, axis1=1, axis2=2))``.

    Parameters
    ----------
    placement : Placement
        Tiles placed by translation.

    Returns
    -------
    ndarray of shape (n, ndim, ndim)
        Covariance of each position in px^2. It is about the mean of all tiles
        that believed links join to this one; absolute if the placement took
        `positions` for measurements, or if one of these tiles is fixed. Fixed
        tiles have zero; a tile that nothing holds has infinite variances.

    See Also
    --------
    offset_covariance : The same for the offset of one tile from another.
    solve_rigid : Places the tiles.

    Notes
    -----
    The covariance is the inverse of the weighted Laplacian of the links. Only
    its entries at tiles and links are computed, from a sparse factor, by the
    equations of Takahashi [1]_ [2]_, at a few times the cost of the factor.

    Covariances of links are used as they were given. Without any, and without
    `position_sigma`, the variance of links is estimated from their residuals
    and the number of loops they close; if they close none, variances are
    infinite.

    References
    ----------
    .. [1] Takahashi, Fagan and Chin, Formation of a sparse bus impedance matrix
       and its application to short circuit study, Proc. 8th PICA Conference
       (1973) 63.
    .. [2] Erisman and Tinney, On computing certain elements of the inverse of a
       sparse matrix, Commun. ACM 18 (1975) 177,
       :doi:`10.1145/360680.360704`.

    Examples
    --------
    A chain of five tiles, each measured from the one before it to 0.1 px. Errors
    add up from the tile that is held:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> links = [(0, 1), (1, 2), (2, 3), (3, 4)]
    >>> found = [(0, 90)] * 4
    >>> placed = spt.solve_rigid(
    ...     links, found, np.zeros((4, 2)), covariance=0.01 * np.eye(2), fixed=0
    ... )
    >>> variance = spt.position_covariance(placed)[:, 1, 1]
    >>> np.sqrt(variance).round(3)
    array([0.   , 0.1  , 0.141, 0.173, 0.2  ])
    """
    evidence = _evidence(placement)
    alone = np.bincount(evidence.group)[evidence.group] == 1
    unknown = alone[:, np.newaxis] & _afloat(evidence)
    return _finished(position_blocks(evidence), placement, unknown)


def offset_covariance(placement: Placement, links: Links) -> Floats:
    """Return the covariance of the offset of one tile from another.

    Neighbours are related far better than their positions are known.

    Parameters
    ----------
    placement : Placement
        Tiles placed by translation.
    links : array_like of int, shape (n_pairs, 2), or sequence of label pairs
        Pairs of tiles, named as in `placement`. They need not be linked, but
        those that are take no extra time; of the others, each different tile
        of the first or of the second column takes one solution of the system.

    Returns
    -------
    ndarray of shape (n_pairs, ndim, ndim)
        Covariance, in px^2, of the position of the second tile less that of
        the first. Variances are infinite if nothing relates the two.

    See Also
    --------
    position_covariance : The same for positions, and what is assumed.

    Examples
    --------
    In a grid of 10 x 10 tiles all links were measured to 0.1 px. Once placed,
    neighbours in the middle are related better than that, and opposite corners,
    18 links apart, not much worse:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> found = np.zeros((180, 2))
    >>> placed = spt.solve_rigid(
    ...     spt.grid_links((10, 10)), found, found, covariance=0.01 * np.eye(2)
    ... )
    >>> covariance = spt.offset_covariance(placed, [(44, 45), (0, 99)])
    >>> np.sqrt(covariance[:, 0, 0]).round(3)
    array([0.071, 0.174])
    """
    given: Any = links
    rows = given.tolist() if isinstance(given, np.ndarray) else list(given)
    # A tile is where it is: its offset from itself is known exactly.
    other = np.array([pair[0] != pair[1] for pair in rows], np.bool_)
    pairs = _numbered(
        [tuple(pair) for pair, two in zip(rows, other, strict=True) if two],
        placement.labels,
    )
    evidence = _evidence(placement)
    first, second = pairs.T
    afloat = _afloat(evidence)
    apart = evidence.group[first] != evidence.group[second]
    unknown = apart[:, np.newaxis] & (afloat[first] | afloat[second])
    ndim = placement.residuals.shape[1]
    covariance = np.zeros((len(rows), ndim, ndim))
    covariance[other] = _finished(offset_blocks(evidence, pairs), placement, unknown)
    return covariance


def _evidence(placement: Placement) -> Evidence:
    """Return what a placement of translations rests on."""
    linear = placement.matrices[:, :-1, :-1]
    turned = (linear != np.eye(linear.shape[1])).any(axis=(1, 2))
    if turned.any():
        row = int(turned.argmax())
        message = (
            "`placement` must hold translations only; got "
            f"{linear[row].tolist()} for tile {placement.labels[row]!r}."
        )
        raise ValueError(message)
    links = placement.links[placement.counted]
    covariance = placement.covariance[placement.counted]
    return Evidence(
        links=links,
        weights=np.linalg.inv(covariance).astype(np.float64, copy=False),
        prior=placement.position_sigma**-2.0,
        fixed=placement.fixed,
        group=connected_groups(links, len(linear)),
    )


def _numbered(links: Links, labels: Sequence[Hashable]) -> NDArray[np.intp]:
    """Return pairs of labels as pairs of numbers."""
    if isinstance(labels, range):
        return number_links(links, np.zeros(len(labels)))[0]
    return number_links(links, dict.fromkeys(labels, 0))[0]


def _afloat(evidence: Evidence) -> NDArray[np.bool_]:
    """Tell for each tile along which axes nothing holds its group."""
    loose = np.bincount(evidence.group, evidence.fixed) == 0
    return loose[evidence.group][:, np.newaxis] & (evidence.prior == 0)


def _finished(
    covariance: Floats, placement: Placement, unknown: NDArray[np.bool_]
) -> Floats:
    """Give covariances their unit, and what is unknown infinite variances."""
    unit = placement.variance
    # Zero, as of fixed tiles, is zero in any unit, be it infinite.
    scaled = np.zeros_like(covariance)
    np.multiply(covariance, unit, out=scaled, where=covariance != 0)
    scaled[unknown] = 0
    scaled.transpose(0, 2, 1)[unknown] = 0
    np.einsum("naa->na", scaled)[unknown] = np.inf
    return scaled

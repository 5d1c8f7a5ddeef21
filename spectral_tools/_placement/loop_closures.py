"""Name false links before any placement, by the loops they break."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Bytes, Floats, Ints
from .._shared.checks import check_same_shape
from .._shared.link_arguments import (
    Links,
    as_link_points,
    as_link_weights,
    number_links,
)
from .._shared.results import result
from .._shared.statistics import ROUNDING, chi_square_limit
from .solvers.loop_kernels import find_loops, follow_routes, name_suspects
from .solvers.normal_equations import distinct_pairs

__all__ = ["LoopClosures", "loop_closures"]


# The unit of errors is that of the loops that close best: false links, each of
# which opens several loops, leave this fraction of them alone.
HONEST = 0.25


@result
class LoopClosures:
    """Short loops of links, how well they close, and who is to blame.

    Attributes
    ----------
    loops : ndarray of int, shape (n_loops, 4)
        Numbers of the links around each loop; -1 after the last of a loop of
        two or three.
    error : ndarray of shape (n_loops, ndim)
        Closing error in pixels: the sum of the offsets around the loop.
    sigma : ndarray of shape (n_loops,)
        Closing error in standard deviations, root mean square over the axes:
        1 is expected.
    suspicion : ndarray of shape (n_links,)
        1 for a link whose correction would close more loops than that of any
        other link in them; 1/2 or less for one of several that would do as
        well; 0 for a link that need not be wrong.
    """

    loops: NDArray[np.intp]
    error: Floats
    sigma: Floats
    suspicion: Floats


@checked
def loop_closures(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
) -> LoopClosures:
    """Tell how well loops of links close, and which links break them.

    Around a loop, offsets must add up to nothing. No placement is needed.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2), or sequence of label pairs
        The reference and the moving tile of each link.
    reference_points, moving_points : array_like of shape (n_links, ndim)
        Points in pixels of the one and the other tile that belong together.
    covariance : array_like of shape (n_links, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in px^2. A link with an
        infinite entry is part of no loop. By default links are alike, and
        their variance is that of the quarter of loops that close best.

    Returns
    -------
    LoopClosures
        All loops of two links that join the same tiles, of three links, and of
        four without a short cut, by their lowest tile.

    See Also
    --------
    solve_rigid : Places the tiles, and decides about links with all loops.

    Notes
    -----
    Two links alone at a tile, such as those of a corner of a grid, are in the
    same loops: nothing can tell which of them is wrong, and they share the
    suspicion. A link that is part of no loop cannot be suspected.

    Examples
    --------
    Nine tiles that are 90 px apart; the link from 4 to 5 is wrong by 50 px, and
    two of the four loops do not close:

    >>> import spectral_tools as spt
    >>> truth = spt.grid_positions((3, 3), (100, 100))
    >>> links = spt.grid_links((3, 3))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> false = (links == (4, 5)).all(axis=1)
    >>> found[false] += (50, 0)
    >>> closures = spt.loop_closures(links, found, 0 * found)
    >>> closures.error
    array([[  0.,   0.],
           [-50.,   0.],
           [  0.,   0.],
           [ 50.,   0.]])
    >>> links[closures.suspicion > 0.5]
    array([[4, 5]])
    """
    pairs = number_links(links, None)[0]
    reference = as_link_points(reference_points, "reference_points", len(pairs))
    moving = as_link_points(moving_points, "moving_points", len(pairs))
    check_same_shape(reference_points=reference, moving_points=moving)
    ndim = reference.shape[1]
    spread, _, finite = as_link_weights(covariance, len(pairs), ndim)
    loops, signs = _short_loops(pairs, np.flatnonzero(finite))
    there, signed = loops >= 0, signs[:, :, np.newaxis]
    error = (signed * (reference - moving)[loops]).sum(axis=1)
    total = np.where(there[:, :, None, None], spread[loops], 0).sum(axis=1)
    precision = np.linalg.inv(total)
    squares = np.einsum("la,lab,lb->l", error, precision, error)
    unit = _unit(squares, precision, ndim)
    known = 1.0 if covariance is not None else unit
    honest = max(unit, 1.0) if covariance is not None else unit
    limit = chi_square_limit(ndim) * honest
    return LoopClosures(
        loops=loops,
        error=error,
        sigma=np.sqrt(squares / (ndim * known)),
        suspicion=name_suspects(
            (loops, signs), error, precision, limit, _places(loops, len(pairs))
        ),
    )


def _short_loops(pairs: Ints, usable: Ints) -> tuple[Ints, Bytes]:
    """Return links and their signs, in columns of four, of loops of usable links."""
    joined = distinct_pairs(pairs[usable])
    routes, passed, _ = find_loops(joined.tiles, chordless=True)
    parallel = np.bincount(joined.number, minlength=len(joined.tiles))
    # Two links between the same tiles make a loop: there by the one, back by the other.
    twins = np.flatnonzero(parallel > 1)[:, np.newaxis]
    routes = np.concatenate([twins * (1, 1, 0, 0) - (0, 0, 1, 1), routes[:, :4]])
    passed = np.concatenate([np.sign(twins + 1) * (1, -1, 0, 0), passed[:, :4]])
    tiles = np.where(routes < 0, -1, joined.tiles[routes, (passed < 0).astype(np.intp)])
    order = np.lexsort(tiles.T[::-1])

    # Each tile pair of a route offers all its links; no link, -1, is the last of pairs.
    starts = np.concatenate([[0], np.cumsum(parallel), [len(usable) + 1]])
    offered = np.lexsort((joined.turned, joined.number))
    names = np.append(usable[offered], -1)
    signs = np.append(np.where(joined.turned[offered], -1, 1), 0)
    routes = np.where(routes < 0, len(parallel), routes)
    return follow_routes(order, routes, passed, (starts, names, signs))


def _places(
    loops: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the places of each link in the table of loops: starts, and places."""
    order = np.argsort(loops.ravel(), kind="stable")
    starts = np.cumsum(np.bincount(loops.ravel() + 1, minlength=count + 1))
    return starts, order


def _unit(squares: Floats, precision: Floats, ndim: int) -> float:
    """Return the variance of honest loops in units of their covariances."""
    if len(squares) == 0:
        return 1.0
    expected = chi_square_limit(ndim, 1 - HONEST)
    scale = float(np.median(np.trace(precision, axis1=1, axis2=2))) / ndim
    return max(float(np.quantile(squares, HONEST) / expected), ROUNDING**2 * scale)

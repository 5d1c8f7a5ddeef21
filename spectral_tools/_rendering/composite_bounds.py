"""Say where a mosaic lies before anything is rendered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .canvas import make_plan

__all__ = ["composite_bounds"]


def composite_bounds(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    bounds: str = "union",
    channel_axis: int | None = None,
) -> NDArray[np.float64]:
    """Return the first and the stop point of a mosaic; no tile is read.

    Their difference is the shape of the mosaic, at scale 1: what a store needs to
    be made. The first point is the origin of the mosaic. Given as `bounds` to any
    function that renders, they stand for what they were found from.

    Parameters
    ----------
    tiles : sequence of array_like
        Images, as for `warp_composite`; None for a missing one.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    bounds : {"union", "intersection"}, optional
        Where all tiles fit in, or the rectangle that all of them share.
    channel_axis : int, optional
        Axis of the channels of each tile.

    Returns
    -------
    ndarray of shape (2, ndim)
        First point, and the point at which the mosaic stops, like a slice: without
        it. Whole numbers.

    See Also
    --------
    warp_composite : Render what lies there.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> tiles = [np.ones((4, 5)), np.ones((4, 5))]
    >>> matrices = [np.eye(3), spt.translation((-2, 3))]
    >>> spt.composite_bounds(tiles, matrices)
    array([[-2., 0.],
           [ 4., 8.]])
    """
    plan = make_plan(
        tiles,
        matrices,
        bounds=bounds,
        scale=1.0,
        blend="first",
        order=0,
        valid=None,
        channel_axis=channel_axis,
        fill_value=0,
        dtype=None,
    )
    return np.stack([plan.origin, plan.origin + plan.shape])

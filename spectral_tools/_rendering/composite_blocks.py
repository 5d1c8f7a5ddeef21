"""Render a mosaic block by block, for sinks of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.checks import as_shape
from .._shared.workers import Workers, check_workers
from .plan import Valid, make_plan
from .regions import regions_of, render_regions

__all__ = ["composite_blocks"]

Block = tuple[tuple[slice, ...], NDArray[Any]]


def composite_blocks(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    blocks: Sequence[int] | None = None,
    bounds: ArrayLike | str | None = "union",
    scale: float = 1.0,
    blend: str = "feather",
    seam_width: float = 0.0,
    order: int = 1,
    valid: Valid = None,
    channel_axis: int | None = None,
    fill_value: float = 0,
    dtype: DTypeLike | None = None,
    workers: Workers = 1,
    progress: bool = False,
) -> Iterator[Block]:
    """Yield a mosaic block by block, as `warp_composite` renders it.

    Only the blocks at work and the parts of the tiles under them are in memory.
    All arguments are checked before the first block.

    Parameters
    ----------
    tiles : sequence of array_like
        Images, as for `warp_composite`; None for a missing one.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    blocks : sequence of int, optional
        Shape of a block without channels, by default about a million pixels.
    bounds : {"union", "intersection"} or array_like of shape (2, ndim), optional
        What part of the mosaic to render, as for `warp_composite`.
    scale : float, optional
        Pixels of the result for each pixel of the mosaic.
    blend : str, optional
        How overlapping tiles share a pixel, as for `warp_composite`.
    seam_width : float, optional
        Pixels of the result over which tiles fade at "nearest" and "seam".
    order : {0, 1, 3, 5}, optional
        Order of the splines that interpolate.
    valid : array_like of bool, or sequence of them, optional
        True where a pixel counts.
    channel_axis : int, optional
        Axis of the channels of each tile.
    fill_value : float, optional
        Value where no tile is.
    dtype : data-type, optional
        Of the blocks; that of the tiles by default.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    iterator of (tuple of slice, ndarray)
        Where each block lies in the mosaic, and its pixels.

    See Also
    --------
    warp_composite : Write blocks to a store with ``out=``.

    Examples
    --------
    The brightest pixel of a mosaic that is never in memory as a whole:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> tiles = [np.full((4, 4), 1.0), np.full((4, 4), 3.0)]
    >>> matrices = [np.eye(3), spt.translation((0, 3))]
    >>> for slices, block in spt.composite_blocks(tiles, matrices, blocks=(4, 4)):
    ...     print(slices[1], block.max())
    slice(0, 4, None) 2.0
    slice(4, 7, None) 3.0
    """
    check_workers(workers)
    plan = make_plan(
        tiles,
        matrices,
        bounds=bounds,
        scale=scale,
        blend=blend,
        seam_width=seam_width,
        order=order,
        valid=valid,
        channel_axis=channel_axis,
        fill_value=fill_value,
        dtype=dtype,
    )
    if blocks is None:
        sides = plan.region[-plan.ndim :]
    else:
        sides = np.array(as_shape(blocks, "blocks", ndim=plan.ndim))
    regions = regions_of(plan, sides)
    parts = render_regions(plan, regions, workers, progress, "composite_blocks")
    return ((plan.with_channels(inside), pixels) for inside, pixels, _ in parts)

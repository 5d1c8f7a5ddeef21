"""Render placed tiles into one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.arguments import as_dtype, checked
from .._shared.arrays import Floats
from .._shared.checks import Valid, as_shape, check_memory, check_store
from .._shared.results import result
from .._shared.workers import Workers
from .plan import make_plan
from .regions import block_sides, regions_of, render_regions, write_blocks

__all__ = ["Composite", "composite_blocks", "warp_composite"]


Block = tuple[tuple[slice, ...], NDArray[Any]]


@result
class Composite:
    """An image made of placed tiles, and where it lies.

    Attributes
    ----------
    image : ndarray of shape (rows, cols) or (planes, rows, cols)
        The blended tiles; channels are on the same axis as in the tiles.
    origin : ndarray of shape (ndim,)
        Mosaic coordinates of the first pixel of `image`:
        ``mosaic_point = pixel / scale + origin``.
    coverage : ndarray of shape (rows, cols) or (planes, rows, cols)
        How many tiles count at each pixel. Where it is 0, `image` holds the
        fill value.
    """

    image: NDArray[Any]
    origin: Floats
    coverage: NDArray[np.unsignedinteger[Any]]


@checked
def warp_composite(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    displacement: ArrayLike | None = None,
    bounds: ArrayLike | str | None = "union",
    scale: float = 1.0,
    blend: str = "feather",
    seam_width: float = 0.0,
    order: int = 1,
    valid: Valid = None,
    channel_axis: int | None = None,
    fill_value: float = 0,
    dtype: DTypeLike | None = None,
    out: Any = None,
    out_coverage: Any = None,
    blocks: Sequence[int] | None = None,
    done: Any = None,
    workers: Workers = 1,
    progress: bool = False,
) -> Composite:
    """Warp tiles into the mosaic and blend them where they overlap.

    Each tile costs only its own rectangle, and values are never rescaled. A tile
    covers a pixel whose centre lies on the tile, up to half a pixel beyond the
    centres of its border pixels, and there it counts in full. Where tiles shrink,
    by `scale` or by their matrix, they are smoothed first.

    Parameters
    ----------
    tiles : sequence of array_like
        Images of shape (rows, cols) or (planes, rows, cols), or with one axis
        more for channels, which may differ in shape. They may be anything that
        is sliced like an array; only what is needed is read, in parts of up to
        about a million pixels. None stands for a missing tile, which is skipped
        with its matrix.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Affine maps from each tile to the mosaic.
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3), optional
        One field that bends all tiles, which have one shape then, as `solve_distortion`
        finds it: ``corrected_point = recorded_point + displacement[corrected_point]``.
        Matrices are those of the corrected tiles.
    bounds : {"union", "intersection"} or array_like of shape (2, ndim), optional
        The part of the mosaic to render, at whole pixels: where all tiles fit
        in, or the rectangle that all of them share. Or its first and stop point,
        like a slice: in pixels of the mosaic, without the stop.
    scale : float, optional
        Pixels of the result for each pixel of the mosaic.
    blend : str, optional
        Where tiles overlap: "feather" weighs them by the distance to their
        borders [1]_, "mean" equally; "nearest" takes the tile whose border is
        farthest; "maximum" and "minimum" take the largest or smallest value;
        "first" and "last" take the first or last tile. "seam" takes one tile on
        each side of a line through the overlap along which the two differ least,
        but for a step in brightness: it goes round what moved [2]_. "multiband"
        blends coarse details over wide seams and fine details over narrow ones
        [3]_.
    seam_width : float, optional
        Pixels of the result over which one tile fades into the other, for
        "nearest" and "seam"; 0 is a hard seam. Where "nearest" cannot choose,
        next to an outer border that tiles share, a soft seam mixes them equally.
    order : {1, 0, 3, 5}, optional
        Interpolate between pixels linearly, take the nearest pixel (nothing is
        smoothed then), or interpolate by B-splines of that order [4]_.
    valid : array_like of bool or sequence of them, optional
        True where a pixel counts: one mask for all tiles, or one for each, or
        None for tiles without. Pixels that are not finite never count. Values
        are interpolated between pixels that count, where the nearest one does.
    channel_axis : int, optional
        Axis of the tiles, and of the result, that holds channels.
    fill_value : float, optional
        Value of pixels that no tile covers.
    dtype : dtype, optional
        Of the result, by default the common one of the tiles. Results that are
        integers are rounded and clipped.
    out : array_like, optional
        Where to write the mosaic, block by block: anything that takes slices
        (NumPy, h5py, zarr) and has the shape of the result. Then the mosaic is
        never in memory as a whole, and `dtype` is by default that of `out`.
    out_coverage : array_like, optional
        Where to write how many tiles count. By default it is kept in memory, one
        byte a pixel for up to 255 tiles.
    blocks : sequence of int, optional
        Shape of a block without channels, by default about a million pixels, in
        whole chunks of `out`.
    done : array_like of bool, optional
        One flag for each block along each axis, for renderings that may be
        interrupted. Blocks whose flag is set are left as they are; the flags of
        others are set when the block has been written to its file. It needs
        `out`, `out_coverage` and `blocks`.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    Composite
        An object with attributes ``image``, ``origin`` and ``coverage``.

    Notes
    -----
    A seam through the least difference is laid for each two tiles by themselves,
    through all that they share, so that it depends neither on their order nor on
    blocks. Where they differ by noise only it runs half-way; what moved lies whole
    on one side of it, so that it is seen once, twice or never. Overlaps
    larger than 65,536 pixels are looked at in cells of several pixels.

    "multiband" blends what tiles differ where they overlap: it leaves tiles that
    agree as they are, and tiles that only touch, of which it is not known.

    References
    ----------
    .. [1] Szeliski (2006). Image alignment and stitching: a tutorial.
       :doi:`10.1561/0600000009`
    .. [2] Meyer, Beucher (1990). Morphological segmentation.
       :doi:`10.1016/1047-3203(90)90014-M`
    .. [3] Burt, Adelson (1983). A multiresolution spline with application to
       image mosaics. :doi:`10.1145/245.247`
    .. [4] Thévenaz, Blu, Unser (2000). Interpolation revisited.
       :doi:`10.1109/42.875199`

    Examples
    --------
    Two tiles that overlap by three columns; the seam fades from one to the other:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> left, right = np.full((9, 6), 10.0), np.full((9, 6), 20.0)
    >>> moved = np.array([[1, 0, 0], [0, 1, 3], [0, 0, 1]])
    >>> mosaic = spt.warp_composite([left, right], [np.eye(3), moved])
    >>> mosaic.image[4].round(1)
    array([10. , 10. , 10. , 11.7, 15. , 18.3, 20. , 20. , 20. ])
    >>> mosaic.coverage[4]
    array([1, 1, 1, 2, 2, 2, 1, 1, 1], dtype=uint8)
    """
    if done is not None and any(each is None for each in (out, out_coverage, blocks)):
        message = (
            "`done` must come with `out`, `out_coverage` and `blocks`; got it alone."
        )
        raise ValueError(message)
    if dtype is None and out is not None:
        dtype = as_dtype(getattr(out, "dtype", None), "out")
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
        displacement=displacement,
    )
    image, coverage = out, out_coverage
    if image is None:
        check_memory(prod(plan.image_shape) * plan.kept.itemsize / 8, "scale")
        image = np.empty(plan.image_shape, plan.kept)
    if coverage is None:
        coverage = np.empty(plan.shape, plan.counted)
    check_store(image, "out", plan.image_shape, plan.kept)
    check_store(coverage, "out_coverage", tuple(plan.shape.tolist()), plan.counted)
    sides = block_sides(plan, blocks, image)
    write_blocks(plan, sides, image, coverage, done, workers, progress)
    return Composite(image=image, origin=plan.origin, coverage=coverage)


@checked
def composite_blocks(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    displacement: ArrayLike | None = None,
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
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3), optional
        One field that bends all tiles, as for `warp_composite`.
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
        displacement=displacement,
    )
    if blocks is None:
        sides = plan.region[-plan.ndim :]
    else:
        sides = np.array(as_shape(blocks, "blocks", ndim=plan.ndim))
    regions = regions_of(plan, sides)
    parts = render_regions(plan, regions, workers, progress, "composite_blocks")
    return ((plan.with_channels(inside), pixels) for inside, pixels, _ in parts)

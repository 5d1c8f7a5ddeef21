"""Render placed tiles into one image (floor 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._blend_kernels import (
    FEATHER,
    MEAN,
    NEAREST,
    SLACK,
    add_shifted,
    add_warped,
    finish,
)
from ._checks import as_matrices, as_positions, check_positive, image_dtype
from ._tile_inputs import (
    Piece,
    Tile,
    box_slices,
    cut,
    cut_known,
    entries,
    extent_of,
    masks_of,
    place,
    read_piece,
    spatial_shapes,
)
from ._workers import Workers, check_workers, spread

__all__ = ["Composite", "warp_composite"]

Float = np.floating[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

BLENDS = {"feather": FEATHER, "mean": MEAN, "nearest": NEAREST}
ORDERS = (0, 1)

# Strategy: the canvas is cut into regions and those into blocks, by rules that do
# not know who works on them; this is why results do not depend on `workers`. A
# region is what a thread renders at a time and for which tiles are read. A block is
# so small that the blend and its weight stay in the cache, and only finished pixels
# leave it. Inside, every array has the axes (planes, rows, cols): a flat image is
# one plane.
REGION = {2: (1, 1024, 1024), 3: (16, 256, 256)}
BLOCK = {2: (1, 128, 1024), 3: (2, 64, 256)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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


def warp_composite(
    tiles: Sequence[ArrayLike] | ArrayLike,
    matrices: ArrayLike,
    *,
    bounds: ArrayLike | None = None,
    scale: float = 1.0,
    blend: str = "feather",
    order: int = 1,
    valid: Sequence[ArrayLike | None] | ArrayLike | None = None,
    channel_axis: int | None = None,
    fill_value: float = 0,
    dtype: DTypeLike | None = None,
    workers: Workers = 1,
    progress: bool = False,
) -> Composite:
    """Warp tiles into the mosaic and blend them where they overlap.

    Each tile costs only its own rectangle, and values are never rescaled. A tile
    covers a pixel whose centre lies on the tile, up to half a pixel beyond the
    centres of its border pixels, and there it counts in full.

    Parameters
    ----------
    tiles : sequence of array_like
        Images of shape (rows, cols) or (planes, rows, cols), or with one axis
        more for channels, which may differ in shape. They may be anything that
        is sliced like an array; only what is needed is read, in parts of up to
        about a million pixels.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Affine maps from each tile to the mosaic.
    bounds : array_like of shape (2, ndim), optional
        First and stop point of the part of the mosaic to render, like a slice:
        in pixels of the mosaic, without the stop. By default all tiles fit in,
        at whole pixels.
    scale : float, optional
        Pixels of the result for each pixel of the mosaic. The tiles are
        sampled, not smoothed first: a scale of 1/2 takes every other pixel.
    blend : {"feather", "mean", "nearest"}, optional
        Where tiles overlap, weigh them by the distance to their borders [1]_,
        or weigh them equally, or take the tile whose border is farthest.
    order : {1, 0}, optional
        Interpolate between pixels linearly, or take the nearest pixel.
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
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    Composite
        An object with attributes ``image``, ``origin`` and ``coverage``.

    References
    ----------
    .. [1] Szeliski (2006). Image alignment and stitching: a tutorial.
       :doi:`10.1561/0600000009`

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
    check_workers(workers)
    check_positive(scale, "scale")
    _check_choice(blend, tuple(BLENDS), "blend")
    _check_choice(order, ORDERS, "order")
    images = entries(tiles, "tiles")
    maps = as_matrices(matrices, "matrices", count=len(images))
    _check_affine(maps)
    ndim = maps.shape[1] - 1
    axis = _channel_position(channel_axis, ndim)
    shapes, channels = spatial_shapes(images, ndim, axis)
    masks = masks_of(valid, shapes)
    kept, computed = _dtypes(images, dtype)
    _check_fill(fill_value, kept, computed)

    origin, shape = _canvas(maps, shapes, bounds, scale)
    plan = _Plan(
        tiles=place(images, masks, maps, shapes, origin, scale),
        ndim=ndim,
        channel_axis=axis,
        channels=channels,
        order=order,
        blend=BLENDS[blend],
        fill_value=fill_value,
        limits=_limits(kept, computed),
        kept=kept,
        computed=computed,
        counted=np.min_scalar_type(len(images)),
        block=_sides(BLOCK[ndim], scale),
    )
    image = np.empty(shape if axis is None else np.insert(shape, axis, channels), kept)
    coverage = np.empty(shape, plan.counted)
    _render(plan, image, coverage, _sides(REGION[ndim], scale), workers, progress)
    return Composite(image=image, origin=origin, coverage=coverage)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """All that it takes to render any region, by whoever does it."""

    tiles: list[Tile]
    ndim: int
    channel_axis: int | None
    channels: int
    order: int
    blend: int
    fill_value: float
    limits: tuple[float, float]
    kept: np.dtype[Any]
    computed: np.dtype[Any]
    counted: np.dtype[Any]
    block: Ints


def _check_choice(value: Any, choices: tuple[Any, ...], name: str) -> None:
    if value not in choices:
        message = f"`{name}` must be one of {choices}; got {value!r}."
        raise ValueError(message)


def _check_affine(maps: Floats) -> None:
    ndim = maps.shape[1] - 1
    if (maps[:, ndim] != np.eye(ndim + 1)[ndim]).any():
        message = (
            "`matrices` must be affine; got a last row that is not (0, ..., 0, 1)."
        )
        raise ValueError(message)
    singular = np.flatnonzero(np.linalg.det(maps[:, :ndim, :ndim]) == 0)
    if singular.size:
        message = f"`matrices` must be invertible; got determinant 0 at {singular[0]}."
        raise ValueError(message)


def _check_fill(value: float, kept: np.dtype[Any], computed: np.dtype[Any]) -> None:
    low, high = _limits(kept, computed)
    fits = kept.kind == "f" or (low <= value <= high and value % 1 == 0)
    if not fits:
        message = f"`fill_value` must be representable in {kept}; got {value}."
        raise ValueError(message)


def _limits(kept: np.dtype[Any], computed: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of an integer dtype, in floats that do not exceed it."""
    if kept.kind not in "iu":
        return 0.0, 1.0
    info = np.iinfo(kept)
    high = computed.type(info.max)
    if int(high) > info.max:
        high = np.nextafter(high, computed.type(0))
    return float(info.min), float(high)


def _dtypes(
    images: list[Any], dtype: DTypeLike | None
) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the dtypes of the result and of the computation."""
    common = np.result_type(*{image.dtype for image in images})
    kept = common if dtype is None else np.dtype(dtype)
    image_dtype(common, "tiles")
    image_dtype(kept, "dtype")
    return kept, image_dtype(np.result_type(common, kept), "dtype")


def _channel_position(channel_axis: int | None, ndim: int) -> int | None:
    if channel_axis is None:
        return None
    if not -ndim - 1 <= channel_axis <= ndim:
        message = (
            f"`channel_axis` must be between {-ndim - 1} and {ndim}; "
            f"got {channel_axis}."
        )
        raise ValueError(message)
    return channel_axis % (ndim + 1)


def _canvas(
    maps: Floats, shapes: Ints, bounds: ArrayLike | None, scale: float
) -> tuple[Floats, Ints]:
    """Return the origin and the shape of the result."""
    ndim = shapes.shape[1]
    if bounds is None:
        low, high = extent_of(maps, shapes)
        origin = np.ceil(low.min(axis=0)) + 0.0  # never -0
        stop = np.maximum(np.floor(high.max(axis=0)), origin) + 1
    else:
        origin, stop = as_positions(bounds, "bounds", count=2, ndim=ndim)
        if not (origin < stop).all():
            message = f"`bounds` must stop after they start; got {origin} to {stop}."
            raise ValueError(message)
    shape = np.ceil((stop - origin) * scale - SLACK).astype(np.intp)
    return origin.copy(), np.maximum(shape, 1)


def _sides(sides: tuple[int, int, int], scale: float) -> Ints:
    """Return the sides of a region or block that bound what is read for it."""
    return np.maximum(np.array(sides) * min(1.0, scale), 1).astype(np.intp)


def _cut_up(start: Ints, stop: Ints, sides: Ints) -> tuple[Ints, Ints]:
    """Return where the boxes start and stop that fill a box."""
    axes = [range(*each) for each in zip(start, stop, sides, strict=True)]
    starts = np.array(list(product(*axes)), dtype=np.intp)
    return starts, np.minimum(starts + sides, stop)


def _render(
    plan: _Plan,
    image: NDArray[Any],
    coverage: NDArray[Any],
    sides: Ints,
    workers: Workers,
    progress: bool,
) -> None:
    if plan.channel_axis is None:
        image = image[None]
    else:
        image = np.moveaxis(image, plan.channel_axis, 0)
    if plan.ndim == 2:
        image, coverage = image[:, None], coverage[None]

    shape = np.array(coverage.shape, dtype=np.intp)
    regions = list(zip(*_cut_up(np.zeros_like(shape), shape, sides), strict=True))
    parts = spread(
        partial(_render_region, plan),
        regions,
        workers=workers,
        progress=progress,
        title="warp_composite",
    )
    for region, (pixels, counts) in zip(regions, parts, strict=True):
        inside = box_slices(*region)
        image[:, *inside], coverage[inside] = pixels, counts


def _render_region(
    plan: _Plan, region: tuple[Ints, Ints]
) -> tuple[NDArray[Any], NDArray[Any]]:
    start, stop = region
    starts, stops = _cut_up(start, stop, plan.block)
    pieces = [
        read_piece(tile, plan.channel_axis, starts, stops)
        for tile in plan.tiles
        if (tile.box[0] < stop).all() and (tile.box[1] > start - 1).all()
    ]
    pixels = np.empty((plan.channels, *(stop - start)), plan.kept)
    counts = np.empty(pixels.shape[1:], plan.counted)
    room = np.empty((2, plan.block.prod()), plan.computed)
    room_to_count = np.empty(plan.block.prod(), np.int32)
    for block in range(len(starts)):
        inside = box_slices(starts[block] - start, stops[block] - start)
        shape = stops[block] - starts[block]
        mean, total = room[:, : shape.prod()].reshape(2, *shape)
        count = room_to_count[: shape.prod()].reshape(shape)
        for channel in range(plan.channels):
            _blend_block(plan, pieces, block, channel, mean, total, count)
            pixels[channel][inside] = mean
        counts[inside] = count
    return pixels, counts


def _blend_block(
    plan: _Plan,
    pieces: list[Piece],
    block: int,
    channel: int,
    mean: NDArray[Float],
    total: NDArray[Float],
    count: NDArray[np.int32],
) -> None:
    """Blend one channel of one block into the arrays, whatever they held."""
    for array in (mean, total, count):
        array.fill(0)
    for piece in pieces:
        if not piece.touched[block]:
            continue
        tile, start, centre = piece.tile, piece.start[block], piece.centre[block]
        lower, upper = piece.lower[block].tolist(), piece.upper[block].tolist()
        source = cut(piece.pixels[channel], lower, upper, plan.computed)
        rest = (centre, tile.half, plan.order, plan.blend, mean, total, count)
        known = cut_known(piece, lower, upper, plan.computed)
        if known.size:
            np.copyto(source, 0, where=known == 0)
        if tile.shifted and not known.size:
            add_shifted(source, start, *rest)
        else:
            add_warped(source, known, start, tile.linear, *rest)
    finish(mean, total, plan.fill_value, *plan.limits, plan.kept.kind != "f")

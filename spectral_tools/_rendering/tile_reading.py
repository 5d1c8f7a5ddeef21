"""Read the parts of placed tiles that a region of the canvas needs."""

import math
from dataclasses import dataclass
from operator import sub
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import (
    box_slices,
    boxes_in,
    copy_box,
    filter_box,
    memory_of,
    repeat_border,
    split_channels,
)
from .._sampling.sample_rows import LANES
from .._sampling.splines import LEAST_SIGMA, smooth_margin, spline_margin
from .._shared.arrays import (
    Flags,
    Float,
    Floats,
    Ints,
    as_array,
    listed_images,
    masks_joined,
)
from .._shared.checks import as_matrices, as_valid, masks_in_order
from .sample_kernels import SLACK

__all__ = [
    "FAR",
    "NATIVE",
    "Piece",
    "Tile",
    "TileField",
    "box_slices",
    "entries",
    "extent_of",
    "keys_of",
    "lines_of",
    "masks_of",
    "matrices_of",
    "need_of",
    "place",
    "read_piece",
    "room_size",
    "source_of",
    "spatial_shapes",
    "without_masks",
]


# Farther than any pixel, yet an integer can hold it.
FAR = 1e15
# An offset that is none, and displacements that are none.
NOTHING = np.zeros(1)
NO_MOVES = np.empty((3, 0, 0, 0))
# What kernels write as it is, and read as it is: few, for each is compiled anew.
NATIVE = frozenset(map(np.dtype, ("?", "u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8")))
READ = frozenset(map(np.dtype, ("u1", "u2", "f4", "f8")))


class TileField:
    """Displacements on the pixels of every tile, as the kernels take them."""

    def __init__(self, field: NDArray[Any], dtype: np.dtype[Any]) -> None:
        ndim = field.shape[-1]
        sides = tuple(side + 2 for side in field.shape[:-1])
        size = math.prod(sides)
        self.shape = (1,) * (3 - ndim) + sides
        self.lines = np.zeros((ndim, size + LANES), dtype)
        planes = self.lines[:, :size].reshape(ndim, *sides)
        planes[:, *[slice(1, -1)] * ndim] = np.moveaxis(field, -1, 0)
        for axis in range(1, ndim + 1):
            layers = np.moveaxis(planes, axis, 0)
            layers[0], layers[-1] = layers[1], layers[-2]
        self.least, self.most = np.zeros(3), np.zeros(3)
        extremes = _extremes(self.lines[:, :size])
        self.least[3 - ndim :], self.most[3 - ndim :] = extremes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """A tile and where it lies: ``tile_point = linear @ canvas_pixel + offset``."""

    number: int  # among the tiles that are there
    pixels: Any
    valid: Any
    size: Floats
    half: Floats  # of the size; infinite along the planes of a flat tile
    linear: Floats
    offset: Floats
    shifted: bool  # the map is a translation, and nothing bends it
    order: int  # of the interpolation
    sigma: Floats  # (3,): how much it is smoothed before it is sampled
    box: Floats  # (2, 3): lowest and highest canvas coordinates
    field: TileField | None  # what bends it


def entries(stack: Any, name: str) -> list[Any]:
    """Return the images of a stack or sequence; None where one is missing."""
    found: list[Any]
    # Masked tiles keep their dtype: `without_masks` tells later what counts of them.
    masked = isinstance(stack, np.ma.MaskedArray) and stack.ndim > 0
    found = list(stack if masked else listed_images(stack, name))
    if all(each is None for each in found):
        message = f"`{name}` must hold at least one image; got none."
        raise ValueError(message)
    found = [masks_joined(each) for each in found]
    return [
        each if each is None or hasattr(each, "dtype") else np.asarray(each)
        for each in found
    ]


def without_masks(
    images: list[Any], valid: list[Any], axis: int | None
) -> tuple[list[Any], list[Any]]:
    """Return plain arrays for masked ones, and what counts of each."""
    plain, counted = [], []
    for each, mask in zip(images, valid, strict=True):
        image, known = each, mask
        if isinstance(image, np.ma.MaskedArray):
            if np.ma.is_masked(image):
                seen: Flags = ~np.ma.getmaskarray(image)
                if axis is not None:
                    seen = np.asarray(seen.all(axis=axis))
                known = seen if known is None else seen & np.asarray(known)
            image = np.asarray(image)
        plain.append(image)
        counted.append(known)
    return plain, counted


def matrices_of(matrices: Any, there: list[int], count: int) -> Floats:
    """Return the matrices of the tiles that are there; others are not looked at."""
    array = as_array(matrices)
    if array.ndim == 3 and len(array) == count:
        return as_matrices(array[there], "matrices")
    return as_matrices(array, "matrices", count=count)


def spatial_shapes(images: list[Any], ndim: int, axis: int | None) -> tuple[Ints, int]:
    """Return the shapes of the tiles without channels, and how many channels."""
    wanted = ndim + (axis is not None)
    for image in images:
        if len(image.shape) != wanted or 0 in image.shape:
            message = (
                f"`tiles` must have {wanted} axes, with `channel_axis`, and pixels; "
                f"got shape {tuple(image.shape)}."
            )
            raise ValueError(message)
    shapes = np.array([image.shape for image in images], dtype=np.intp)
    if axis is None:
        return shapes, 1
    counts = np.unique(shapes[:, axis])
    if len(counts) > 1:
        message = f"`tiles` must have equally many channels; got {counts.tolist()}."
        raise ValueError(message)
    return np.delete(shapes, axis, axis=1), int(counts[0])


def masks_of(valid: Any, shapes: Ints, there: list[int], count: int) -> list[Any]:
    """Return one mask, or None, for each of the `count` tiles that is there."""
    masks = masks_in_order(valid, range(count), shapes.shape[1])
    masks = [masks[n] for n in there]
    masks = [
        as_valid(mask, mask.shape, "valid")
        if isinstance(mask, np.ma.MaskedArray)
        else mask
        for mask in masks
    ]
    for mask, shape in zip(masks, shapes.tolist(), strict=True):
        if mask is not None:
            # A stand-in is checked, so that a lazy mask is not read yet.
            stand_in = np.broadcast_to(np.zeros((), mask.dtype), mask.shape)
            as_valid(stand_in, tuple(shape), "valid")
    return masks


def extent_of(maps: Floats, shapes: Ints) -> tuple[Floats, Floats]:
    """Return the lowest and highest mosaic coordinates of each tile."""
    ndim = shapes.shape[1]
    linear, offset = maps[:, :ndim, :ndim], maps[:, :ndim, ndim]
    middle = np.einsum("nij,nj->ni", linear, (shapes - 1) / 2) + offset
    reach = np.einsum("nij,nj->ni", np.abs(linear), shapes / 2 + SLACK)
    return middle - reach, middle + reach


def place(
    images: list[Any],
    masks: list[Any],
    maps: Floats,
    shapes: Ints,
    origin: Floats,
    scale: float,
    order: int,
    displaced: bool,
    field: TileField | None,
) -> list[Tile]:
    """Return where each tile lies on a canvas, and how it is sampled there."""
    ndim = shapes.shape[1]
    # Flat tiles become one plane, without a border along the planes.
    flat = 3 - ndim
    low, high = extent_of(maps, shapes)
    boxes = np.zeros((len(maps), 2, 3))
    boxes[:, :, flat:] = (np.stack([low, high], axis=1) - origin) * scale
    size, half = np.ones((len(maps), 3)), np.full((len(maps), 3), np.inf)
    size[:, flat:], half[:, flat:] = shapes, shapes / 2
    linear, offset = np.tile(np.eye(3), (len(maps), 1, 1)), np.zeros((len(maps), 3))
    inverse = np.linalg.inv(maps[:, :ndim, :ndim])
    linear[:, flat:, flat:] = inverse / scale
    offset[:, flat:] = np.einsum("nij,nj->ni", inverse, origin - maps[:, :ndim, ndim])
    # A pixel of the canvas spans that many pixels along each axis of the tile.
    spans = np.sqrt((linear**2).sum(axis=2))
    # Nothing lies farther from a pixel than the tile is long.
    sigma = np.clip((spans - 1) / 2, 0, size) * (order > 0)
    sigma[sigma <= LEAST_SIGMA] = 0
    shifted = (linear == np.eye(3)).all(axis=(1, 2))
    shifted &= not displaced and field is None
    # Between whole pixels there is nothing to interpolate.
    whole = shifted & (offset == np.rint(offset)).all(axis=1)
    return [
        Tile(
            number=n,
            pixels=images[n],
            valid=masks[n],
            size=size[n],
            half=half[n],
            linear=linear[n],
            offset=offset[n],
            shifted=bool(shifted[n]),
            order=0 if whole[n] else order,
            sigma=sigma[n],
            box=boxes[n],
            field=field,
        )
        for n in range(len(images))
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Need:
    """Which pixels of a tile the blocks of one region need."""

    lower: Ints  # (blocks, 3): what each block reaches, over the border too
    upper: Ints
    touched: Flags
    ready: bool  # it is filtered before it is sampled
    corner: Ints  # of the box that all blocks reach, with what filters need
    end: Ints
    first: Ints  # of the part of it that lies on the tile, which is read
    stop: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """The part of a tile that one region needs, and what each block takes of it."""

    tile: Tile
    pixels: NDArray[Any]  # (channels, planes, rows, cols), columns side by side
    lines: tuple[NDArray[Any], tuple[int, ...]]  # the memory behind, and its steps
    moves: list[Floats]  # for each block: (3, planes, rows, cols); or none
    offsets: Floats  # added to the pixels, for each channel
    known: NDArray[Any] | None
    ready: bool  # the pixels are filtered, and go as far as all blocks reach
    touched: Flags
    lower: Ints  # (blocks, 3): part of `pixels` under each block
    upper: Ints
    start: Floats  # (blocks, 3): first pixel of each block, in that part
    centre: Floats  # (blocks, 3): centre of the tile, in that part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What the kernels take of some channels of a tile for one block."""

    pixels: NDArray[Float]
    known: NDArray[Float]
    moves: Floats
    fields: NDArray[Float]
    frame: tuple[int, ...]
    corner: Ints
    offsets: Floats
    start: Floats
    centre: Floats


def read_piece(
    tile: Tile,
    channel_axis: int | None,
    starts: Ints,
    stops: Ints,
    moves: list[Floats],
    dtype: np.dtype[Any],
) -> Piece:
    """Read what the blocks of a region need of a tile.

    Parameters
    ----------
    tile : Tile
        The tile.
    channel_axis : int, optional
        Axis of its pixels that holds channels.
    starts, stops : ndarray of shape (blocks, 3)
        The blocks, on the canvas.
    moves : list of ndarray of shape (3, planes, rows, cols)
        How far the points of each block are displaced in the tile; none if
        they are not.
    dtype : dtype
        In which images are computed.
    """
    need = need_of(tile, starts, stops, moves, dtype)
    lower, upper, touched = need.lower, need.upper, need.touched
    first, ready = need.first, need.ready
    known: NDArray[Any] | None
    pixels, known = _read(tile, channel_axis, first, need.stop, dtype)
    start = starts @ tile.linear.T + tile.offset
    offsets: Floats = np.zeros(len(pixels))
    if known is not None and not known.any():
        touched = np.zeros_like(touched)
    if ready and touched.any():
        pixels, known, offsets = filter_box(
            pixels, known, first, need.corner, need.end, dtype, tile.sigma, tile.order
        )
        first = need.corner
        lower[:], upper[:] = first, first + pixels.shape[1:]
    return Piece(
        tile=tile,
        pixels=pixels,
        lines=memory_of(pixels),
        moves=moves,
        offsets=offsets,
        known=known,
        ready=ready,
        touched=touched,
        lower=lower - first,
        upper=upper - first,
        start=start - lower,
        centre=(tile.size - 1) / 2 - lower,
    )


def need_of(
    tile: Tile, starts: Ints, stops: Ints, moves: list[Floats], dtype: np.dtype[Any]
) -> Need:
    """Return what `read_piece` reads of a tile for the blocks of a region."""
    lower, upper, touched = _reach(tile, starts, stops, moves)
    size = tile.size.astype(np.intp)
    ready = tile.order > 1 or bool(tile.sigma.any())
    margin = _margin(tile, dtype) if ready and touched.any() else np.zeros(3, np.intp)
    corner = lower[touched].min(axis=0, initial=size.max()) - margin
    end = upper[touched].max(axis=0, initial=0) + margin
    first = np.clip(corner, 0, size)
    return Need(
        lower=lower,
        upper=upper,
        touched=touched,
        ready=ready,
        corner=corner,
        end=end,
        first=first,
        stop=np.clip(end, first, size),
    )


def _reach(
    tile: Tile, starts: Ints, stops: Ints, moves: list[Floats]
) -> tuple[Ints, Ints, Flags]:
    """Return which pixels of the tile each box can touch, and whether it does.

    There is room for the neighbours that an interpolation takes, so the range
    reaches over the border of the tile.
    """
    middle = (starts + stops - 1) / 2 @ tile.linear.T + tile.offset
    extent = (stops - 1 - starts) / 2 @ np.abs(tile.linear).T
    low, high = middle - extent, middle + extent
    if moves:
        ranges = [_extremes(each.reshape(3, -1)) for each in moves]
        least, most = np.transpose(ranges, (1, 0, 2))
        low, high = low + least, high + most
    if tile.field is not None:
        # Points that are bent out of the tile are looked for where they were.
        low = low - np.maximum(tile.field.most, 0)
        high = high - np.minimum(tile.field.least, 0)
    low = np.maximum(low, -0.5 - SLACK)
    high = np.minimum(high, tile.size - 0.5 + SLACK)
    touched = np.logical_and.reduce(low <= high, axis=1)
    low, high = (np.where(touched[:, np.newaxis], each, 0) for each in (low, high))
    lower = np.floor(low - SLACK).astype(np.intp) - tile.order // 2
    upper = np.floor(high + 0.5 + 2 * SLACK).astype(np.intp) + 2 + tile.order // 2
    flat = np.isinf(tile.half)
    lower[:, flat], upper[:, flat] = 0, 1
    return lower, upper, touched


def _extremes(moves: NDArray[np.floating[Any]]) -> Floats:
    """Return the least and the largest displacement along each axis of (ndim, n)."""
    found = np.stack([moves.min(axis=1), moves.max(axis=1)])
    if not np.isfinite(found).all():
        finite = np.isfinite(moves)
        found[0] = moves.min(axis=1, initial=FAR, where=finite)
        found[1] = moves.max(axis=1, initial=-FAR, where=finite)
    return found


def _margin(tile: Tile, dtype: np.dtype[Any]) -> Ints:
    """Return how far pixels outside of a box matter for the filters inside."""
    # Nothing lies farther from a pixel than the tile is long.
    wide = np.array([smooth_margin(sigma) for sigma in tile.sigma], np.float64)
    margin = np.minimum(wide, tile.size).astype(np.intp)
    margin += spline_margin(tile.order, dtype)
    if tile.valid is not None or tile.pixels.dtype.kind == "f":
        # What fills a hole may lie as far from it again.
        margin *= 2
    margin[np.isinf(tile.half)] = 0
    return margin


def keys_of(
    tile: Tile, channel_axis: int | None, first: Ints, stop: Ints
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of a box in the mask of a tile, and in its pixels."""
    inside = box_slices(first, stop)[np.isinf(tile.half).sum() :]
    axis = channel_axis
    if axis is None:
        return inside, inside
    return inside, (*inside[:axis], slice(None), *inside[axis:])


def _read(
    tile: Tile,
    channel_axis: int | None,
    first: Ints,
    stop: Ints,
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], Flags | None]:
    """Read a box of a tile, and where its pixels count if not all do."""
    where, key = keys_of(tile, channel_axis, first, stop)
    known = None if tile.valid is None else np.asarray(tile.valid[where])
    pixels = as_array(tile.pixels[key])
    pixels = (
        pixels[None] if channel_axis is None else np.moveaxis(pixels, channel_axis, 0)
    )
    if pixels.dtype.kind == "f":
        finite = np.asarray(np.isfinite(pixels).all(axis=0))
        if not finite.all():
            known = finite if known is None else finite & known
    if np.isinf(tile.half[0]):
        pixels, known = pixels[:, None], None if known is None else known[None]
    if known is None or known.all():
        return _lined(pixels, dtype), None
    # Kernels go through its memory, which is laid out as that of the image else.
    return _lined(pixels, dtype), np.ascontiguousarray(known)


def _lined(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return pixels whose columns lie side by side, in a dtype for kernels."""
    if pixels.dtype not in READ:
        return np.ascontiguousarray(pixels, dtype)
    size = pixels.itemsize
    plain = pixels.flags.aligned and all(
        step >= 0 and step % size == 0 for step in pixels.strides
    )
    if plain and pixels.strides[-1] == size:
        return pixels
    if plain and pixels.strides[0] == size:
        lines, strides = memory_of(pixels)
        channels = np.empty(pixels.shape, pixels.dtype)
        split_channels(lines, strides[1:], channels)
        return channels
    return np.ascontiguousarray(pixels)


def room_size(pieces: list[Piece]) -> int:
    """Return how much room a channel of any block takes when it is cut out."""
    sizes = [
        (piece.upper - piece.lower).prod(axis=1).max(initial=0)
        for piece in pieces
        if not piece.ready
    ]
    return int(max(sizes, default=0)) + 2 * LANES


def source_of(
    piece: Piece, block: int, channels: slice, room: NDArray[Float]
) -> Source:
    """Return what the kernels take of a piece for one block, in `room` if it fits."""
    known = np.empty((0, 0, 0), room.dtype)
    if piece.ready:
        pixels: NDArray[Float] = piece.pixels[channels]
        known = known if piece.known is None else piece.known
    else:
        lower, upper = piece.lower[block].tolist(), piece.upper[block].tolist()
        if piece.known is not None:
            flags = piece.known[None]
            found = _cut(flags, memory_of(flags), 0, lower, upper, room[:0])[0]
            known = known if found.all() else found
        some = piece.pixels[channels]
        pixels = _cut(some, piece.lines, channels.start, lower, upper, room)
        if known.size:
            np.copyto(pixels, 0, where=known == 0)
    fields, frame, field = np.empty((0, 0), room.dtype), (1, 1, 1), piece.tile.field
    if field is not None:
        fields, frame = field.lines, field.shape
    corner = np.rint((piece.tile.size - 1) / 2 - piece.centre[block]).astype(np.intp)
    return Source(
        pixels=pixels,
        known=known,
        moves=piece.moves[block] if piece.moves else NO_MOVES,
        fields=fields,
        frame=frame,
        corner=corner,
        offsets=piece.offsets[channels],
        start=piece.start[block],
        centre=piece.centre[block],
    )


def lines_of(piece: Piece, block: int, channels: slice) -> tuple[Any, ...]:
    """Return where some channels of a piece lie in memory, and the piece under a block.

    Returns
    -------
    tuple
        Pixels, their strides and shape, the offsets, where the block starts and
        the centre of the tile.
    """
    flat, strides = piece.lines
    return (
        flat[channels.start * strides[0] :],
        strides[:3],
        piece.pixels.shape[1:],
        piece.offsets[channels],
        piece.start[block] + piece.lower[block],
        piece.centre[block] + piece.lower[block],
    )


def _cut(
    pixels: NDArray[Any],
    lines: tuple[NDArray[Any], tuple[int, ...]],
    channel: int,
    lower: list[int],
    upper: list[int],
    room: NDArray[Float],
) -> NDArray[Float]:
    """Copy boxes, in which border pixels are repeated where they reach outside."""
    low = tuple([max(first, 0) for first in lower])
    high = map(min, upper, pixels.shape[1:])
    size = tuple(map(sub, high, low))
    sides = tuple(map(sub, upper, lower))
    to = tuple(map(sub, low, lower))
    boxes = boxes_in(room, len(pixels), sides)
    flat, strides = lines
    copy_box(flat[channel * strides[0] :], strides, low, size, NOTHING, to, boxes)
    if sides != size:
        repeat_border(boxes, to, size)
    return boxes

"""Read the parts of placed tiles that a piece of the canvas needs (floor 2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blend_kernels import SLACK, repeat_border
from ._checks import as_valid

__all__ = [
    "Piece",
    "Tile",
    "box_slices",
    "cut",
    "cut_known",
    "entries",
    "extent_of",
    "masks_of",
    "place",
    "read_piece",
    "spatial_shapes",
]

Float = np.floating[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """A tile and where it lies: ``tile_point = linear @ canvas_pixel + offset``."""

    pixels: Any
    valid: Any
    size: Floats
    half: Floats  # of the size; infinite along the planes of a flat tile
    linear: Floats
    offset: Floats
    shifted: bool  # the map is a translation
    box: Floats  # (2, 3): lowest and highest canvas coordinates


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """The part of a tile that one region needs, and what each block takes of it."""

    tile: Tile
    pixels: NDArray[Any]  # (channels, planes, rows, cols)
    known: NDArray[np.bool_] | None
    touched: NDArray[np.bool_]
    lower: Ints  # (blocks, 3): part of `pixels` under each block
    upper: Ints
    start: Floats  # (blocks, 3): first pixel of each block, in that part
    centre: Floats  # (blocks, 3): centre of the tile, in that part


class _Entry:
    """One entry of a stack that is read only when it is sliced."""

    def __init__(self, stack: Any, index: int) -> None:
        self.stack, self.index = stack, index
        self.shape, self.dtype = stack.shape[1:], stack.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> Any:
        return self.stack[(self.index, *key)]


def entries(stack: Any, name: str) -> list[Any]:
    lazy = hasattr(stack, "shape") and not isinstance(stack, np.ndarray)
    if lazy:
        found = [_Entry(stack, index) for index in range(stack.shape[0])]
    else:
        found = list(stack)
    if not found:
        message = f"`{name}` must hold at least one image; got none."
        raise ValueError(message)
    return [each if hasattr(each, "dtype") else np.asarray(each) for each in found]


def spatial_shapes(images: list[Any], ndim: int, axis: int | None) -> tuple[Ints, int]:
    """Return the shapes of the tiles without channels, and how many channels."""
    wanted = ndim + (axis is not None)
    for image in images:
        if len(image.shape) != wanted or 0 in image.shape:
            message = (
                f"`tiles` must have {wanted} axes and at least one pixel; "
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


def masks_of(valid: Any, shapes: Ints) -> list[Any]:
    """Return one mask, or None, for each tile."""
    if valid is None:
        return [None] * len(shapes)
    if hasattr(valid, "dtype") and len(valid.shape) == shapes.shape[1]:
        masks = [valid] * len(shapes)
    else:
        masks = [
            each if each is None or hasattr(each, "dtype") else np.asarray(each)
            for each in valid
        ]
    if len(masks) != len(shapes):
        message = (
            f"`valid` must be one mask, or one for each of {len(shapes)} tiles; "
            f"got {len(masks)}."
        )
        raise ValueError(message)
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
) -> list[Tile]:
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
    return [
        Tile(
            pixels=images[n],
            valid=masks[n],
            size=size[n],
            half=half[n],
            linear=linear[n],
            offset=offset[n],
            shifted=np.array_equal(linear[n], np.eye(3)),
            box=boxes[n],
        )
        for n in range(len(images))
    ]


def box_slices(start: Ints, stop: Ints) -> tuple[slice, ...]:
    return tuple(map(slice, start.tolist(), stop.tolist()))


def _reach(
    tile: Tile, starts: Ints, stops: Ints
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Return which pixels of the tile each box can touch, and whether it does.

    There is room for the neighbours that an interpolation takes, so the range
    reaches up to two pixels over the border of the tile.
    """
    middle = (starts + stops - 1) / 2 @ tile.linear.T + tile.offset
    extent = (stops - 1 - starts) / 2 @ np.abs(tile.linear).T
    low = np.maximum(middle - extent, -0.5 - SLACK)
    high = np.minimum(middle + extent, tile.size - 0.5 + SLACK)
    lower = np.floor(low - SLACK).astype(np.intp)
    upper = np.floor(high + 0.5 + 2 * SLACK).astype(np.intp) + 2
    flat = np.isinf(tile.half)
    lower[:, flat], upper[:, flat] = 0, 1
    return lower, upper, np.logical_and.reduce(low <= high, axis=1)


def read_piece(
    tile: Tile, channel_axis: int | None, starts: Ints, stops: Ints
) -> Piece:
    """Read what a region needs of a tile."""
    lower, upper, touched = _reach(tile, starts, stops)
    size = tile.size.astype(np.intp)
    corner = np.clip(lower[touched].min(axis=0, initial=size.max()), 0, size)
    end = np.clip(upper[touched].max(axis=0, initial=0), corner, size)
    key = box_slices(corner, end)[np.isinf(tile.half).sum() :]
    known = None if tile.valid is None else np.asarray(tile.valid[key])
    if channel_axis is None:
        pixels = np.asarray(tile.pixels[key])[None]
    else:
        axis = channel_axis
        pixels = np.asarray(tile.pixels[(*key[:axis], slice(None), *key[axis:])])
        pixels = np.moveaxis(pixels, axis, 0)
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=0)
        if not finite.all():
            known = finite if known is None else finite & known
    if np.isinf(tile.half[0]):
        pixels, known = pixels[:, None], None if known is None else known[None]
    return Piece(
        tile=tile,
        pixels=pixels,
        known=known,
        touched=touched,
        lower=lower - corner,
        upper=upper - corner,
        start=starts @ tile.linear.T + tile.offset - lower,
        centre=(tile.size - 1) / 2 - lower,
    )


def cut_known(
    piece: Piece, lower: list[int], upper: list[int], dtype: np.dtype[Any]
) -> NDArray[Float]:
    """Return where pixels count, or an empty array where all of them do."""
    if piece.known is not None:
        known = cut(piece.known, lower, upper, dtype)
        if not known.all():
            return known
    return np.empty((0, 0, 0), dtype)


def cut(
    pixels: NDArray[Any], lower: list[int], upper: list[int], dtype: np.dtype[Any]
) -> NDArray[Float]:
    """Copy a box, in which border pixels are repeated where it reaches outside."""
    low = [max(first, 0) for first in lower]
    high = [min(stop, size) for stop, size in zip(upper, pixels.shape, strict=True)]
    inner = pixels[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    if low == lower and high == upper:
        return np.array(inner, dtype=dtype, order="C")
    box = np.empty([b - a for a, b in zip(lower, upper, strict=True)], dtype)
    plane, row, col = (a - b for a, b in zip(low, lower, strict=True))
    planes, rows, cols = inner.shape
    box[plane : plane + planes, row : row + rows, col : col + cols] = inner
    repeat_border(box, (plane, row, col), inner.shape)
    return box

"""Read the parts of placed tiles that a region of the canvas needs (floor 5)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._ndimage import distance_transform_edt
from ._sample_kernels import SLACK, repeat_border
from ._spline_kernels import prefilter, smooth, smooth_margin, spline_margin
from ._tile_inputs import Tile

__all__ = [
    "Need",
    "Piece",
    "Source",
    "box_slices",
    "keys_of",
    "need_of",
    "read_piece",
    "source_of",
]

Float = np.floating[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]

# Farther than any pixel, yet an integer can hold it.
FAR = 1e15
# Each at least doubles what is known of a box.
REFLECTIONS = 12


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
    pixels: NDArray[Any]  # (channels, planes, rows, cols)
    moves: list[Floats]  # for each block: (3, planes, rows, cols), or empty
    offset: list[float]  # added to the pixels, for each channel
    known: NDArray[Any] | None
    ready: bool  # the pixels are filtered, and go as far as all blocks reach
    touched: Flags
    lower: Ints  # (blocks, 3): part of `pixels` under each block
    upper: Ints
    start: Floats  # (blocks, 3): first pixel of each block, in that part
    centre: Floats  # (blocks, 3): centre of the tile, in that part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What the kernels take of one channel of a tile for one block."""

    pixels: NDArray[Float]
    known: NDArray[Float]
    moves: Floats
    offset: float
    start: Floats
    centre: Floats


def box_slices(start: Ints, stop: Ints) -> tuple[slice, ...]:
    return tuple(map(slice, start.tolist(), stop.tolist()))


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
        How far the points of each block are displaced in the tile; empty if
        they are not.
    dtype : dtype
        In which images are computed.
    """
    need = need_of(tile, starts, stops, moves, dtype)
    lower, upper, touched = need.lower, need.upper, need.touched
    first, ready = need.first, need.ready
    known: NDArray[Any] | None
    pixels, known = _read(tile, channel_axis, first, need.stop)
    start = starts @ tile.linear.T + tile.offset
    offset = [0.0] * len(pixels)
    if known is not None and not known.any():
        touched = np.zeros_like(touched)
    if ready and touched.any():
        first, pixels, known, offset = _filter(
            tile, pixels, known, first, need.corner, need.end, dtype
        )
        lower[:], upper[:] = first, first + pixels.shape[1:]
    return Piece(
        tile=tile,
        pixels=pixels,
        moves=moves,
        offset=offset,
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
    least, most = np.transpose([_extremes(each) for each in moves], (1, 0, 2))
    low = np.maximum(middle - extent + least, -0.5 - SLACK)
    high = np.minimum(middle + extent + most, tile.size - 0.5 + SLACK)
    lower = np.floor(low - SLACK).astype(np.intp) - tile.order // 2
    upper = np.floor(high + 0.5 + 2 * SLACK).astype(np.intp) + 2 + tile.order // 2
    flat = np.isinf(tile.half)
    lower[:, flat], upper[:, flat] = 0, 1
    return lower, upper, np.logical_and.reduce(low <= high, axis=1)


def _extremes(moves: Floats) -> Floats:
    """Return the least and the largest displacement of a block along each axis."""
    if moves.size == 0:
        return np.zeros((2, 3))
    flat = moves.reshape(3, -1)
    finite = np.isfinite(flat)
    least = flat.min(axis=1, initial=FAR, where=finite)
    return np.stack([least, flat.max(axis=1, initial=-FAR, where=finite)])


def _margin(tile: Tile, dtype: np.dtype[Any]) -> Ints:
    """Return how far pixels outside of a box matter for the filters inside."""
    margin = np.array([smooth_margin(sigma) for sigma in tile.sigma], dtype=np.intp)
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
    tile: Tile, channel_axis: int | None, first: Ints, stop: Ints
) -> tuple[NDArray[Any], Flags | None]:
    """Read a box of a tile, and where its pixels count if not all do."""
    where, key = keys_of(tile, channel_axis, first, stop)
    known = None if tile.valid is None else np.asarray(tile.valid[where])
    pixels = np.asarray(tile.pixels[key])
    pixels = (
        pixels[None] if channel_axis is None else np.moveaxis(pixels, channel_axis, 0)
    )
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=0)
        if not finite.all():
            known = finite if known is None else finite & known
    if np.isinf(tile.half[0]):
        pixels, known = pixels[:, None], None if known is None else known[None]
    return pixels, None if known is None or known.all() else known


def _filter(
    tile: Tile,
    pixels: NDArray[Any],
    known: Flags | None,
    first: Ints,
    corner: Ints,
    end: Ints,
    dtype: np.dtype[Any],
) -> tuple[Ints, NDArray[Float], NDArray[Float] | None, list[float]]:
    """Return filtered pixels that fill the box from `corner` to `end`.

    The tile goes on outside as its point reflection at its border pixels, so
    that a ramp stays a ramp. Pixels that do not count are filled with the
    nearest one that does. An offset is taken off before, so that constants stay
    exactly constant in every filter.
    """
    inside = box_slices(first - corner, first - corner + pixels.shape[1:])
    flags = None
    if known is not None:
        nearest = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        flags = np.zeros(end - corner, dtype)
        flags[inside] = known
    boxes, offsets = [], []
    for channel in pixels:
        one = channel if known is None else channel[tuple(nearest)]
        offset = float(one[tuple(size // 2 for size in one.shape)])
        box = np.zeros(end - corner, dtype)
        np.subtract(one, offset, out=box[inside], dtype=dtype, casting="unsafe")
        for axis in range(3):
            _reflect(np.moveaxis(box, axis, 0), inside[axis])
        box = smooth(box, tile.sigma)
        if tile.order > 1:
            prefilter(box, tile.order)
        elif flags is not None:
            box *= flags
        boxes.append(box)
        offsets.append(offset)
    return corner, np.stack(boxes), flags, offsets


def _reflect(box: NDArray[Float], inside: slice) -> None:
    """Fill a box around its known part with point reflections, in place."""
    first, last = inside.start, inside.stop - 1
    low, high = first, last
    for _ in range(REFLECTIONS):
        new = max(0, 2 * first - high)
        if new < low:
            mirrored = box[2 * first - low + 1 : 2 * first - new + 1]
            box[new:low] = 2 * box[first] - mirrored[::-1]
            low = new
        new = min(len(box) - 1, 2 * last - low)
        if new > high:
            mirrored = box[2 * last - new : 2 * last - high]
            box[high + 1 : new + 1] = 2 * box[last] - mirrored[::-1]
            high = new
    # So far away that no filter sees it.
    box[:low], box[high + 1 :] = box[low], box[high]


def source_of(piece: Piece, block: int, channel: int, dtype: np.dtype[Any]) -> Source:
    """Return what the kernels take of a piece for one block."""
    known = np.empty((0, 0, 0), dtype)
    if piece.ready:
        pixels: NDArray[Float] = piece.pixels[channel]
        known = known if piece.known is None else piece.known
    else:
        lower, upper = piece.lower[block].tolist(), piece.upper[block].tolist()
        known = _cut_known(piece, lower, upper, dtype)
        pixels = _cut(piece.pixels[channel], lower, upper, dtype)
        if known.size:
            np.copyto(pixels, 0, where=known == 0)
    return Source(
        pixels=pixels,
        known=known,
        moves=piece.moves[block],
        offset=piece.offset[channel],
        start=piece.start[block],
        centre=piece.centre[block],
    )


def _cut_known(
    piece: Piece, lower: list[int], upper: list[int], dtype: np.dtype[Any]
) -> NDArray[Float]:
    """Return where pixels count, or an empty array where all of them do."""
    if piece.known is not None:
        known = _cut(piece.known, lower, upper, dtype)
        if not known.all():
            return known
    return np.empty((0, 0, 0), dtype)


def _cut(
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

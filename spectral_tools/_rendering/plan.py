"""What is rendered where, and the pieces of tiles that it takes."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Float, Floats, Ints
from .._shared.cache import Bounded
from .blends import FEATHER
from .sample_kernels import add_shifted, add_warped
from .tile_inputs import Tile
from .tile_reading import Piece, box_slices, lines_of, read_piece, source_of

__all__ = [
    "MINIMAL_SEAM",
    "MULTIBAND",
    "Plan",
    "add_channels",
    "add_piece",
    "cut_up",
    "pieces_of",
    "sample_piece",
    "tiles_near",
]


# Blends that are more than a rule for each pixel; the others are those of the kernels.
MULTIBAND, MINIMAL_SEAM = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """All that it takes to render any region, by whoever does it."""

    tiles: list[Tile]
    boxes: Floats  # (n, 2, 3): where they lie
    field: NDArray[Any] | None  # (rows, cols, ndim): displacements on the canvas
    ndim: int
    origin: Floats
    shape: Ints  # of the canvas, without channels
    channel_axis: int | None
    channels: int
    blend: int
    seam_width: float  # in pixels of the canvas
    tile_pixels: float  # along one of the canvas, in the median tile
    maps: Bounded  # of overlaps, by the numbers of two tiles
    fill_value: float
    limits: tuple[float, float]
    kept: np.dtype[Any]
    computed: np.dtype[Any]
    counted: np.dtype[Any]
    region: Ints
    block: Ints

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of the result, with channels."""
        if self.channel_axis is None:
            return tuple(self.shape.tolist())
        return tuple(np.insert(self.shape, self.channel_axis, self.channels).tolist())

    def with_channels(self, inside: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return slices of the result for slices of the canvas."""
        axis = self.channel_axis
        return inside if axis is None else (*inside[:axis], slice(None), *inside[axis:])


def cut_up(start: Ints, stop: Ints, sides: Ints) -> tuple[Ints, Ints]:
    """Return where the boxes start and stop that fill a box."""
    axes = [range(*each) for each in zip(start, stop, sides, strict=True)]
    starts = np.array(list(product(*axes)), dtype=np.intp)
    return starts, np.minimum(starts + sides, stop)


def tiles_near(plan: Plan, starts: Ints, stops: Ints) -> list[int]:
    """Return the numbers of the tiles that blocks can touch."""
    if plan.field is not None:
        return list(range(len(plan.tiles)))
    low, high = starts.min(axis=0), stops.max(axis=0)
    near = np.ones(len(plan.boxes), np.bool_)
    for axis in range(3):
        near &= plan.boxes[:, 0, axis] < high[axis]
        near &= plan.boxes[:, 1, axis] > low[axis] - 1
    return np.flatnonzero(near).tolist()


def pieces_of(plan: Plan, starts: Ints, stops: Ints) -> list[Piece]:
    """Read what blocks need of each tile that they can touch."""
    tiles = [plan.tiles[n] for n in tiles_near(plan, starts, stops)]
    return [
        read_piece(
            tile,
            plan.channel_axis,
            starts,
            stops,
            _moves(plan, tile, starts, stops),
            plan.computed,
        )
        for tile in tiles
    ]


def _moves(plan: Plan, tile: Tile, starts: Ints, stops: Ints) -> list[Floats]:
    """Return how far the points of each block are displaced in a tile."""
    if plan.field is None:
        return [np.empty((3, 0, 0, 0))] * len(starts)
    found = []
    for start, stop in zip(starts, stops, strict=True):
        shape = tuple((stop - start).tolist())
        inside = box_slices(start, stop)[3 - plan.ndim :]
        field = plan.field[inside].reshape(-1, plan.ndim)
        moves = np.zeros((3, *shape))
        field = np.where(np.isfinite(field).all(axis=1)[:, None], field, np.nan)
        moves[3 - plan.ndim :] = -(
            field @ tile.linear[3 - plan.ndim :, 3 - plan.ndim :].T
        ).T.reshape(-1, *shape)
        found.append(moves)
    return found


def add_piece(
    plan: Plan,
    piece: Piece,
    block: int,
    channel: int,
    blend: int,
    mean: NDArray[Float],
    total: NDArray[Float],
    count: NDArray[np.int32],
) -> None:
    """Add one channel of a tile to one block that holds something everywhere."""
    spans = np.zeros((mean.shape[0] * mean.shape[1], 2), np.intp)
    spans[:, 1] = mean.shape[2]
    channels, room = slice(channel, channel + 1), np.empty(0, plan.computed)
    add_channels(
        plan, piece, block, channels, blend, mean[None], total, count, spans, room
    )


def add_channels(
    plan: Plan,
    piece: Piece,
    block: int,
    channels: slice,
    blend: int,
    mean: NDArray[Float],
    total: NDArray[Float],
    count: NDArray[np.int32],
    spans: Ints,
    room: NDArray[Float],
) -> None:
    """Add some channels of a tile to one block."""
    tile = piece.tile
    onto: Any = (tile.half, tile.order, blend, mean, total, count, spans)
    if tile.shifted and piece.known is None and plan.field is None:
        add_shifted(*lines_of(piece, block, channels), *onto)
        return
    source = source_of(piece, block, channels, room)
    lies: Any = (source.offsets, source.start, source.centre)
    bent: Any = (source.known, source.moves, tile.linear)
    add_warped(source.pixels, *bent, *lies, *onto)


def sample_piece(
    plan: Plan,
    piece: Piece,
    block: int,
    channel: int,
    values: NDArray[Float],
    weights: NDArray[Float],
) -> None:
    """Write one channel of a tile, and its weights, which are 0 where it is not."""
    values.fill(0)
    weights.fill(0)
    count = np.zeros(values.shape, np.int32)
    add_piece(plan, piece, block, channel, FEATHER, values, weights, count)

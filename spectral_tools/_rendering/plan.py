"""What is rendered where, and the pieces of tiles that it takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Float, Floats, Ints, as_array
from .._shared.checks import (
    Valid,
    as_axis,
    as_positions,
    check_affine,
    check_memory,
    check_not_negative,
    check_positive,
    check_sizes,
    fits_into,
    image_dtype,
)
from .blends import BLENDS, FEATHER, WITH_SEAMS
from .sample_kernels import SLACK, add_shifted, add_warped
from .tile_reading import (
    FAR,
    Piece,
    Tile,
    TileField,
    box_slices,
    entries,
    extent_of,
    lines_of,
    masks_of,
    matrices_of,
    place,
    read_piece,
    source_of,
    spatial_shapes,
    without_masks,
)

__all__ = [
    "GROUP",
    "REGION",
    "Bounded",
    "Plan",
    "add_channels",
    "as_field",
    "composite_bounds",
    "cut_up",
    "make_plan",
    "pieces_of",
    "sample_piece",
    "tiles_near",
]


# So many maps of overlaps are kept while a mosaic is rendered; each has up to 65,536
# cells of 4 bytes.
MAPS = 1000
ORDERS = (0, 1, 3, 5)
# A canvas with fewer pixels than this is never taken for a mistake.
LARGE = 1e9
# A larger one is, with so many times the pixels of its tiles.
EMPTY = 1e4

# Strategy: the canvas is cut into regions and those into blocks, by rules that do
# not know who works on them; this is why results do not depend on `workers`. A
# region is what a thread renders at a time and for which tiles are read. A block is
# so small that the blend and its weight stay in the cache, and only finished pixels
# leave it. Inside, every array has the axes (planes, rows, cols): a flat image is
# one plane.
# Channels that are rendered together: coordinates and weights are computed once for
# all of them. With more, regions are smaller, and need as much memory.
GROUP = 8
REGION = {2: (1, 1024, 1024), 3: (16, 256, 256)}
BLOCK = {2: (1, 128, 1024), 3: (2, 64, 256)}


class Bounded:
    """The results that were asked for last, each computed by one thread only.

    Copies that are sent elsewhere start empty.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[Lock, list[Any]]] = OrderedDict()

    def __reduce__(self) -> tuple[type[Bounded], tuple[int]]:
        return Bounded, (self.most,)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result that is kept for a key, or make it."""
        with self._lock:
            busy, result = self._kept.setdefault(key, (Lock(), []))
            self._kept.move_to_end(key)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        with busy:
            if not result:
                result.append(make())
        return result[0]


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
    # A list of so many boxes of 3 axes takes about 400 bytes for each.
    check_memory(50.0 * prod(map(len, axes)), "blocks")
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
    """Return how far the points of each block are displaced in a tile, if they are."""
    if plan.field is None:
        return []
    found = []
    flat = 3 - plan.ndim
    for start, stop in zip(starts, stops, strict=True):
        moves = np.zeros((3, *(stop - start).tolist()))
        field = plan.field[box_slices(start, stop)[flat:]]
        steps = [np.asarray(each, np.float64) for each in np.moveaxis(field, -1, 0)]
        with np.errstate(invalid="ignore"):
            # What is not known of one axis is not known of the point.
            for axis, step in product(range(plan.ndim), range(plan.ndim)):
                share = tile.linear[flat + axis, flat + step]
                moves[flat + axis] -= (share * steps[step]).reshape(moves.shape[1:])
        found.append(moves)
    return found


def add_channels(
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
    if tile.shifted and piece.known is None:
        add_shifted(*lines_of(piece, block, channels), *onto)
        return
    source = source_of(piece, block, channels, room)
    lies: Any = (source.offsets, source.start, source.centre)
    field: Any = (source.fields, source.frame, source.corner)
    bent: Any = (source.known, source.moves, *field, tile.linear)
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
    # Every row is written from end to end.
    spans = np.zeros((values.shape[0] * values.shape[1], 2), np.intp)
    spans[:, 1] = values.shape[2]
    room = np.empty(0, plan.computed)
    onto: Any = (FEATHER, values[None], weights, count, spans, room)
    add_channels(piece, block, slice(channel, channel + 1), *onto)


def make_plan(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    bounds: ArrayLike | str | None,
    scale: float,
    blend: str,
    order: int,
    valid: Valid,
    channel_axis: int | None,
    fill_value: float,
    dtype: DTypeLike | None,
    seam_width: float = 0.0,
    field: NDArray[Any] | None = None,
    displacement: ArrayLike | None = None,
) -> Plan:
    """Check the arguments of a rendering, and lay the tiles out."""
    check_positive(scale, "scale")
    check_choice(blend, BLENDS, "blend")
    check_not_negative(seam_width, "seam_width")
    if seam_width and blend not in WITH_SEAMS:
        message = (
            f"`seam_width` must be 0 unless `blend` is one of {WITH_SEAMS}; "
            f"got {seam_width} for {blend!r}."
        )
        raise ValueError(message)
    check_choice(order, ORDERS, "order")
    images = entries(tiles, "tiles")
    there = [n for n, image in enumerate(images) if image is not None]
    maps = matrices_of(matrices, there, len(images))
    check_affine(maps, "matrices")
    ndim = maps.shape[1] - 1
    axis = as_axis(channel_axis, ndim + 1)
    present = [images[n] for n in there]
    shapes, channels = spatial_shapes(present, ndim, axis)
    masks = masks_of(valid, shapes, there, len(images))
    present, masks = without_masks(present, masks, axis)
    kept, computed = _dtypes(present, dtype)
    _check_fill(fill_value, kept, computed)

    origin, shape = _canvas(maps, shapes, bounds, scale, there)
    bent = None if displacement is None else _tile_field(displacement, shapes, computed)
    placed = place(
        present, masks, maps, shapes, origin, scale, order, field is not None, bent
    )
    return Plan(
        tiles=placed,
        boxes=np.stack([tile.box for tile in placed]),
        field=field,
        ndim=ndim,
        origin=origin,
        shape=shape,
        channel_axis=axis,
        channels=channels,
        blend=BLENDS.index(blend),
        seam_width=float(seam_width),
        tile_pixels=float(
            np.median(np.abs(np.linalg.det(maps)) ** (-1 / ndim)) / scale
        ),
        maps=Bounded(MAPS),
        # Kernels take integers of 64 bits.
        fill_value=fill_value if abs(fill_value) < 2**63 else float(fill_value),
        limits=_limits(kept, computed),
        kept=kept,
        computed=computed,
        counted=np.min_scalar_type(len(present)),
        region=_sides(REGION[ndim], scale * min(1.0, GROUP / channels) ** (1 / ndim)),
        block=_sides(BLOCK[ndim], scale),
    )


def _tile_field(
    displacement: ArrayLike, shapes: Ints, dtype: np.dtype[Any]
) -> TileField:
    """Return the field of all tiles once it is known to fit each of them."""
    field = as_field(displacement, shapes.shape[1])
    for shape in shapes.tolist():
        if tuple(shape) != field.shape[:-1]:
            message = (
                "`displacement` must have the shape of all tiles and one axis more; "
                f"got {field.shape} for a tile of shape {tuple(shape)}."
            )
            raise ValueError(message)
    return TileField(field, dtype)


def as_field(displacement: ArrayLike, ndim: int) -> NDArray[np.floating[Any]]:
    """Return displacements (..., ndim) on pixels, once their shape is known to be one."""
    field = as_array(displacement)
    check_sizes(field, "displacement")
    field = field.astype(image_dtype(field.dtype, "displacement"), copy=False)
    if field.ndim != ndim + 1 or field.shape[-1] != ndim or 0 in field.shape:
        axes = "rows, cols" if ndim == 2 else "planes, rows, cols"
        message = f"`displacement` must have shape ({axes}, {ndim}); got {field.shape}."
        raise ValueError(message)
    return field


def check_choice(value: Any, choices: tuple[Any, ...], name: str) -> None:
    """Raise unless `value` is one of some."""
    if value not in choices:
        message = f"`{name}` must be one of {choices}; got {value!r}."
        raise ValueError(message)


def _check_fill(value: float, kept: np.dtype[Any], computed: np.dtype[Any]) -> None:
    low, high = _limits(kept, computed)
    whole = kept.kind != "f" and low <= value <= high and value % 1 == 0
    if not (whole or (kept.kind == "f" and fits_into(value, kept))):
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


def _canvas(
    maps: Floats,
    shapes: Ints,
    bounds: ArrayLike | str | None,
    scale: float,
    there: list[int],
) -> tuple[Floats, Ints]:
    """Return the origin and the shape of the result."""
    ndim = shapes.shape[1]
    if bounds is None or isinstance(bounds, str):
        check_choice(bounds or "union", ("union", "intersection"), "bounds")
        low, high = extent_of(maps, shapes)
        if bounds == "intersection":
            origin, stop = _shared(low, high)
        else:
            origin = np.ceil(low.min(axis=0)) + 0.0  # never -0
            stop = np.maximum(np.floor(high.max(axis=0)), origin) + 1
            _check_size((stop - origin) * scale, low, high, shapes, there)
    else:
        origin, stop = as_positions(bounds, "bounds", count=2, ndim=ndim)
        if not (origin < stop).all():
            message = f"`bounds` must stop after they start; got {origin} to {stop}."
            raise ValueError(message)
    sides = (stop - origin) * scale - SLACK
    if not (np.abs(np.concatenate([origin, stop, sides, [1 / scale]])) < FAR).all():
        message = (
            f"`bounds` and `scale` must make a mosaic; got sides of {sides} pixels."
        )
        raise ValueError(message)
    shape = np.ceil(sides).astype(np.intp)
    return origin.copy(), np.maximum(shape, 1)


def _shared(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the rectangle that all tiles share."""
    origin = np.ceil(low.max(axis=0)) + 0.0
    stop = np.floor(high.min(axis=0)) + 1
    if not (origin < stop).all():
        message = (
            "`bounds` must leave a pixel; "
            "got 'intersection' for tiles that share no rectangle."
        )
        raise ValueError(message)
    return origin, stop


def _check_size(
    sides: Floats, low: Floats, high: Floats, shapes: Ints, there: list[int]
) -> None:
    """Raise if tiles lie so far apart that the canvas would be all but empty."""
    if sides.prod() < max(LARGE, EMPTY * shapes.prod(axis=1).sum()):
        return
    middle = (low + high) / 2
    away = np.abs(middle - np.median(middle, axis=0)).max(axis=1)
    message = (
        "`matrices` must keep tiles together, or `bounds` be given; got a mosaic "
        f"of {sides} pixels, in which tile {there[int(away.argmax())]} lies "
        f"{away.max():.0f} from the middle."
    )
    raise ValueError(message)


def _sides(sides: tuple[int, int, int], scale: float) -> Ints:
    """Return the sides of a region or block that bound what is read for it."""
    return np.maximum(np.array(sides) * min(1.0, scale), 1).astype(np.intp)


@checked
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

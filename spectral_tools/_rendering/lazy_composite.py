"""Render a mosaic as a lazy array of dask, by whoever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Ints, StackEntry, as_array
from .._shared.checks import Valid, check_memory
from .plan import REGION, Plan, cut_up, make_plan, tiles_near
from .regions import Key, Part, Region, blocks_of, cut_part, needs_of, render_alone
from .tile_reading import Tile, box_slices

if TYPE_CHECKING:
    import dask.array

__all__ = ["lazy_composite"]


@checked
def lazy_composite(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    displacement: ArrayLike | None = None,
    chunks: Any = None,
    bounds: ArrayLike | str | None = "union",
    scale: float = 1.0,
    blend: str = "feather",
    seam_width: float = 0.0,
    order: int = 1,
    valid: Valid = None,
    channel_axis: int | None = None,
    fill_value: float = 0,
    dtype: DTypeLike | None = None,
) -> dask.array.Array:
    """Return a mosaic as a dask array, which is rendered where and when it is used.

    Whatever the chunks and whoever computes them, the pixels are those of
    `warp_composite`, to the last bit: it is rendered in the same regions of about
    a million pixels, from which chunks are put together. Chunks of whole regions, such
    as the default and multiples of 1024 at scale 1, are one task each, and nothing of
    them moves between workers. Large ones spare a scheduler work.

    Tiles that are stored (zarr, or anything else that can be pickled and sliced) are
    read by the workers, only where they are needed. Of dask arrays the chunks that
    are needed are computed first, as parts of the same graph. Of arrays in memory
    each task carries the part that it needs.

    It needs the extra ``pip install 'spectral_tools[dask]'``.

    Parameters
    ----------
    tiles : sequence of array_like
        Images, as for `warp_composite`; None for a missing one.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    displacement : array_like of shape (rows, cols, 2) or (planes, rows, cols, 3), optional
        One field that bends all tiles, as for `warp_composite`.
    chunks : int, tuple or str, optional
        Chunks of the result with channels, in any way that dask knows. By default
        about a million pixels with all channels.
    bounds : {"union", "intersection"} or array_like of shape (2, ndim), optional
        What part of the mosaic to render, as for `warp_composite`. The first pixel
        lies where `composite_bounds` starts.
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
        Of the result; that of the tiles by default.

    Returns
    -------
    dask.array.Array
        The mosaic, of the shape and dtype that `warp_composite` gives.

    Raises
    ------
    ModuleNotFoundError
        If dask is not installed.

    See Also
    --------
    warp_composite : Render at once, into memory or any store.
    composite_bounds : Where the first pixel lies.

    Examples
    --------
    Look at a corner; nothing else is rendered. ``dask.array.to_zarr`` would
    write all of it.

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> tiles = [np.full((4, 4), 1.0), np.full((4, 4), 3.0)]
    >>> matrices = [np.eye(3), spt.translation((0, 3))]
    >>> mosaic = spt.lazy_composite(tiles, matrices, chunks=(4, 5))
    >>> mosaic.shape, mosaic.chunks
    ((4, 7), ((4,), (5, 2)))
    >>> mosaic[0, 2:].compute()
    array([1., 2., 3., 3., 3.])
    """
    array = _dask_array()
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
    plan = replace(plan, tiles=[_opened(tile) for tile in plan.tiles])
    usual = _default_chunks(plan)
    # A graph takes about 1 kB for each of its nodes.
    check_memory(128.0 * ceil(prod(plan.image_shape) / prod(usual)), "scale")
    try:
        wanted = array.core.normalize_chunks(
            usual if chunks is None else chunks,
            shape=plan.image_shape,
            dtype=plan.kept,
        )
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        message = f"`chunks` must be some of dask that fit into memory; got {chunks!r} for {plan.image_shape}: {error}."
        raise ValueError(message) from error
    if tuple(map(sum, wanted)) != plan.image_shape or min(map(min, wanted)) < 0:
        message = f"`chunks` must fill {plan.image_shape}; got {chunks!r}."
        raise ValueError(message)
    # Not "p2p", which waits for all regions before it puts the first chunk together.
    return _in_boxes(array, plan, wanted).rechunk(wanted, method="tasks")


def _dask_array() -> Any:
    """Import dask only here: it takes longer than all else together."""
    try:
        import dask.array  # noqa: PLC0415
    except ModuleNotFoundError as error:
        error.add_note("`lazy_composite` needs: pip install 'spectral_tools[dask]'")
        raise
    return dask.array


def _opened(tile: Tile) -> Tile:
    """Take the image of a lazy stack out of it, so that its chunks are seen."""
    if isinstance(tile.pixels, StackEntry) and _is_lazy(tile.pixels.stack):
        entry = tile.pixels
        return replace(tile, pixels=entry.stack[entry.index])
    return tile


def _is_lazy(array: Any) -> bool:
    return hasattr(array, "__dask_keys__") and hasattr(array, "chunks")


def _default_chunks(plan: Plan) -> tuple[int, ...]:
    """Return about a million pixels in whole regions, which are small at small scales."""
    most = np.array(REGION[plan.ndim][3 - plan.ndim :])
    region = _sides(plan)
    sides = np.minimum(np.maximum(most // region, 1) * region, plan.shape)
    return _with_channels(plan, sides, plan.channels)


def _sides(plan: Plan) -> Ints:
    """Return the sides of a region; flat ones have no plane."""
    return plan.region[3 - plan.ndim :]


def _with_channels(plan: Plan, values: Any, value: Any) -> tuple[Any, ...]:
    listed = list(values)
    if plan.channel_axis is not None:
        listed.insert(plan.channel_axis, value)
    return tuple(each.item() if hasattr(each, "item") else each for each in listed)


# Strategy: the graph has one node for each box of regions, with only its corners in
# it, and one for the plan: where tiles lie, and handles of those that are stored. So it
# stays small for many tiles, and a worker gets the plan once. What a region needs of
# tiles that are in memory, or are lazy themselves, comes as its own argument.


def _in_boxes(array: Any, plan: Plan, chunks: Any) -> Any:
    """Return the mosaic with chunks of whole regions: as wanted, where that can be."""
    name = f"composite-{uuid4().hex}"
    held = f"plan-{name}"
    graph: dict[Any, Any] = {held: _without_arrays(plan)}
    stored = not any(_is_passed(a) for t in plan.tiles for a in (t.pixels, t.valid))
    sides = _box_sides(plan, chunks)
    edges = [[0, *np.cumsum(each).tolist()] for each in sides]
    for cell in product(*(range(len(each)) for each in sides)):
        start, stop = np.zeros(3, np.intp), np.ones(3, np.intp)
        for axis, (each, k) in enumerate(zip(edges, cell, strict=True), 3 - plan.ndim):
            start[axis], stop[axis] = each[k : k + 2]
        box = (*start.tolist(), *stop.tolist())
        parts = [] if stored else [_parts(plan, each) for each in _regions(plan, box)]
        key = (name, *_with_channels(plan, cell, 0))
        graph[key] = (_render_box, held, box, parts)
    lazy = {
        each.name: each for tile in plan.tiles for each in (tile.pixels, tile.valid)
        if _is_lazy(each)
    }  # fmt: skip
    layers = _graph(name, graph, list(lazy.values()))
    given = _with_channels(plan, sides, (plan.channels,))
    return array.Array(layers, name, given, dtype=plan.kept)


def _graph(name: str, graph: dict[Any, Any], dependencies: list[Any]) -> Any:
    from dask.highlevelgraph import HighLevelGraph  # noqa: PLC0415

    return HighLevelGraph.from_collections(name, graph, dependencies=dependencies)


def _box_sides(plan: Plan, chunks: Any) -> list[tuple[int, ...]]:
    """Return the chunks along each axis if they are whole regions, or else regions."""
    wanted = list(chunks)
    if plan.channel_axis is not None:
        del wanted[plan.channel_axis]
    shape, region = plan.shape.tolist(), _sides(plan).tolist()
    return [
        tuple(each)
        if 0 not in each and all(edge % side == 0 for edge in np.cumsum(each)[:-1])
        else tuple(min(side, size - start) for start in range(0, size, side))
        for each, size, side in zip(wanted, shape, region, strict=True)
    ]


def _regions(plan: Plan, box: Sequence[int]) -> list[Region]:
    """Return the regions that fill a box: its first and its stop point."""
    start, stop = np.array(box, dtype=np.intp).reshape(2, 3)
    sides = np.ones(3, np.intp)
    sides[3 - plan.ndim :] = _sides(plan)
    return list(zip(*cut_up(start, stop, sides), strict=True))


def _without_arrays(plan: Plan) -> Plan:
    """Return a plan in which only shapes are left of tiles that are not stored."""
    tiles = []
    for tile in plan.tiles:
        empty: dict[str, Any] = {
            name: Part(
                np.empty((0,) * len(held.shape), held.dtype),
                (0,) * len(held.shape),
                held,
            )
            for name, held in (("pixels", tile.pixels), ("valid", tile.valid))
            if _is_passed(held)
        }
        tiles.append(replace(tile, **empty))
    return replace(plan, tiles=tiles)


def _is_passed(array: Any) -> bool:
    return isinstance(array, np.ndarray) or _is_lazy(array)


def _parts(plan: Plan, region: Region) -> list[Any]:
    """Return what a region needs of tiles that are not stored, as a part of a graph."""
    blocks = blocks_of(plan, region)
    parts = []
    for number in tiles_near(plan, *blocks):
        tile = plan.tiles[number]
        if _is_passed(tile.pixels) or _is_passed(tile.valid):
            parts += [
                [number, name, _part(held, key)]
                for name, held, key in needs_of(plan, tile, *blocks)
                if _is_passed(held)
            ]
    return parts


def _part(held: Any, key: Key) -> Any:
    """Return a part of an array, or a task that puts together the chunks it touches."""
    if isinstance(held, np.ndarray):
        return cut_part(held, key)
    corner, counts, firsts = [], [], []
    for part, sides in zip(key, held.chunks, strict=True):
        stops = np.cumsum(sides)
        start, stop, _ = part.indices(int(stops[-1]))
        first = min(int(np.searchsorted(stops, start, side="right")), len(sides) - 1)
        last = int(np.searchsorted(stops, max(stop, start + 1), side="left"))
        firsts.append(first)
        counts.append(min(last, len(sides) - 1) - first + 1)
        corner.append(int(stops[first]) - sides[first])
    keys = [
        (held.name, *(first + step for first, step in zip(firsts, steps, strict=True)))
        for steps in np.ndindex(*counts)
    ]
    empty = Part(np.empty((0,) * held.ndim, held.dtype), tuple(corner), held)
    return (_joined, empty, tuple(counts), keys)


def _joined(empty: Part, counts: Sequence[int], chunks: list[Any]) -> Part:
    """Put chunks together into a part of an array."""
    grid = np.empty(tuple(counts), object)
    for place, chunk in zip(np.ndindex(*counts), chunks, strict=True):
        grid[place] = as_array(chunk)
    return Part(np.block(grid.tolist()), empty.corner, empty)


def _render_box(plan: Plan, box: Sequence[int], parts: list[Any]) -> NDArray[Any]:
    """Render a box of a mosaic, region by region, with the parts that came for each."""
    first = np.array(box[:3], dtype=np.intp)
    sides = (np.array(box[3:]) - first)[3 - plan.ndim :]
    image = np.empty(_with_channels(plan, sides, plan.channels), plan.kept)
    regions = _regions(plan, box)
    for region, given in zip(regions, parts or [[]] * len(regions), strict=True):
        tiles = list(plan.tiles)
        for tile, name, part in given:
            tiles[tile] = replace(tiles[tile], **{name: part})
        inside = box_slices(region[0] - first, region[1] - first)[3 - plan.ndim :]
        pixels = render_alone(replace(plan, tiles=tiles), region)
        image[plan.with_channels(inside)] = pixels
    return image

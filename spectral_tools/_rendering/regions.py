"""Render regions of the canvas, one after the other or by threads."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import join_channels
from .._shared.arrays import Ints
from .._shared.checks import as_shape, check_store
from .._shared.workers import Workers, mapped, spread
from .blends import MINIMAL_SEAM, MULTIBAND, deliver, deliver_counts
from .multiband import band_box, blend_bands
from .plan import (
    GROUP,
    Plan,
    add_channels,
    cut_up,
    pieces_of,
    tiles_near,
)
from .seams import blend_seams, has_seams, seam_boxes
from .stores import Room, flush
from .tile_reading import NATIVE, Tile, box_slices, keys_of, need_of, room_size

__all__ = [
    "Part",
    "Region",
    "block_sides",
    "blocks_of",
    "cut_part",
    "needs_of",
    "regions_of",
    "render_alone",
    "render_regions",
    "write_blocks",
]


Key = tuple[slice, ...]
# One array of a tile, whether it is its pixels or its mask, and its part that is read.
Wanted = tuple[str, Any, Key]

Region = tuple[Ints, Ints]

# So many regions are handed to a map-like callable at a time: it may compute all
# of them before the first one is taken.
BATCH = 16


class Part:
    """A part of an array, which is sliced by the indices of the whole."""

    def __init__(self, array: Any, corner: tuple[int, ...], whole: Any) -> None:
        self.array, self.corner = array, corner
        self.shape, self.dtype = tuple(whole.shape), whole.dtype

    def __getitem__(self, key: Key) -> Any:
        within = []
        for side, first, size, part in zip(
            self.shape, self.corner, self.array.shape, key, strict=True
        ):
            start, stop, _ = part.indices(side)
            if start < stop and not first <= start <= stop <= first + size:
                message = (
                    f"`key` must lie within {first} to {first + size}; "
                    f"got {start} to {stop}."
                )
                raise ValueError(message)
            within.append(slice(max(start - first, 0), max(stop - first, 0)))
        return self.array[tuple(within)]


def needs_of(plan: Plan, tile: Tile, starts: Ints, stops: Ints) -> list[Wanted]:
    """Return what the blocks of a region read of a tile."""
    need = need_of(tile, starts, stops, [], plan.computed)
    known, pixels = keys_of(tile, plan.channel_axis, need.first, need.stop)
    wanted: list[Wanted] = [("pixels", tile.pixels, pixels)]
    return wanted if tile.valid is None else [*wanted, ("valid", tile.valid, known)]


def thin_plan(plan: Plan, starts: Ints, stops: Ints) -> Plan:
    """Return a plan for some blocks alone, without the rest of what is in memory."""
    if plan.field is not None:
        return plan
    near = tiles_near(plan, starts, stops)
    tiles = []
    for tile in (plan.tiles[n] for n in near):
        cut: dict[str, Any] = {
            name: cut_part(array, key)
            for name, array, key in needs_of(plan, tile, starts, stops)
            if isinstance(array, np.ndarray)
        }
        tiles.append(replace(tile, **cut))
    return replace(plan, tiles=tiles, boxes=plan.boxes[near])


def cut_part(array: NDArray[Any], key: Key) -> Part:
    """Cut a part of an array that is in memory, without a copy."""
    corner = tuple(
        part.indices(side)[0] for part, side in zip(key, array.shape, strict=True)
    )
    return Part(array[key], corner, array)


def regions_of(plan: Plan, sides: Ints) -> list[Region]:
    """Return where the regions start and stop that fill the canvas."""
    shape = _padded(plan.shape)
    return list(zip(*cut_up(np.zeros_like(shape), shape, _padded(sides)), strict=True))


def _padded(sides: Ints) -> Ints:
    return np.concatenate([np.ones(3 - len(sides), np.intp), sides])


def render_regions(
    plan: Plan, regions: list[Region], workers: Workers, progress: bool, title: str
) -> Iterator[tuple[tuple[slice, ...], NDArray[Any], NDArray[Any]]]:
    """Yield the slices of each region without channels, its image and its coverage."""
    if callable(workers):
        thinned = partial(_in_batches, plan, workers)
        parts = spread(
            _render_thinned, regions, workers=thinned, progress=progress, title=title
        )
    else:
        parts = spread(
            partial(_render_region, plan),
            regions,
            workers=workers,
            progress=progress,
            title=title,
        )
    for region, (found, counts) in zip(regions, parts, strict=True):
        inside = box_slices(*region)[3 - plan.ndim :]
        yield inside, *_shaped(plan, found, counts)


def render_alone(plan: Plan, region: Region) -> NDArray[Any]:
    """Return the image of one region."""
    return _shaped(plan, *_render_region(plan, region))[0]


def write_regions(
    plan: Plan,
    regions: list[Region],
    image: NDArray[Any],
    coverage: NDArray[Any],
    workers: int,
    progress: bool,
    title: str,
) -> Iterator[None]:
    """Render regions right into arrays in memory; each is there when it is yielded."""
    pixels = image.reshape(plan.channels, *_padded(plan.shape))
    counts = coverage.reshape(pixels.shape[1:])

    def render(region: Region) -> None:
        _render_into(plan, region, pixels, counts, (0, 0, 0))

    yield from spread(render, regions, workers=workers, progress=progress, title=title)


def takes_regions(plan: Plan, image: Any, coverage: Any, workers: Workers) -> bool:
    """Return whether regions can be rendered right into arrays."""
    plain = all(
        isinstance(array, np.ndarray)
        and array.flags.c_contiguous
        and array.dtype == dtype
        for array, dtype in ((image, plan.kept), (coverage, plan.counted))
    )
    # A callable may compute in other processes, which see copies of the arrays.
    return (
        plain
        and plan.kept in NATIVE
        and plan.channel_axis in {None, 0}
        and not callable(workers)
    )


def _shaped(
    plan: Plan, found: NDArray[Any], counts: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image and its coverage with the axes that the result has."""
    coverage = counts.reshape(counts.shape[3 - plan.ndim :])
    if plan.channel_axis is None:
        return found.reshape(coverage.shape), coverage
    if plan.channel_axis == plan.ndim:
        return found.reshape(*coverage.shape, plan.channels), coverage
    pixels = found.reshape(plan.channels, *coverage.shape)
    return np.moveaxis(pixels, 0, plan.channel_axis), coverage


def _in_batches(
    plan: Plan,
    workers: Callable[..., Iterable[Any]],
    function: Callable[..., Any],
    groups: list[list[Region]],
) -> Iterable[Any]:
    """Use a map-like callable, and hand each region what it needs and no more."""

    def thinned(group: list[Region]) -> list[Any]:
        return [(thin_plan(plan, *blocks_of(plan, each)), each) for each in group]

    starts = range(0, len(groups), BATCH)
    return chain.from_iterable(
        mapped(
            workers,
            function,
            [thinned(group) for group in groups[start : start + BATCH]],
        )
        for start in starts
    )


def _render_thinned(task: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    return _render_region(*task)


def blocks_of(plan: Plan, region: Region) -> tuple[Ints, Ints]:
    """Return where the boxes start and stop for which a region reads tiles."""
    if plan.blend == MULTIBAND:
        first, last = band_box(plan, region)
        return first[None], last[None]
    blocks = cut_up(*region, plan.block)
    return seam_boxes(plan, *blocks) if plan.blend == MINIMAL_SEAM else blocks


def _render_region(plan: Plan, region: Region) -> tuple[NDArray[Any], NDArray[Any]]:
    start, stop = region
    dtype = plan.kept if plan.kept in NATIVE else plan.computed
    pixels = np.empty((plan.channels, *(stop - start)), dtype)
    counts = np.empty(pixels.shape[1:], plan.counted)
    _render_into(plan, region, pixels, counts, tuple(start.tolist()))
    if plan.channel_axis == plan.ndim:
        lines = pixels.reshape(plan.channels, -1)
        pixels = np.empty(lines.shape[::-1], dtype)
        join_channels(lines, pixels)
    return pixels.astype(plan.kept, copy=False), counts


def _render_into(
    plan: Plan,
    region: Region,
    pixels: NDArray[Any],
    counts: NDArray[Any],
    origin: tuple[int, ...],
) -> None:
    """Render a region into arrays whose first pixel is `origin` of the canvas."""
    if plan.blend == MULTIBAND:
        inside = box_slices(*(each - origin for each in region))
        blend_bands(plan, region, pixels[:, *inside], counts[inside])
    else:
        _fill_region(plan, region, pixels, counts, origin)


def _fill_region(
    plan: Plan,
    region: Region,
    pixels: NDArray[Any],
    counts: NDArray[Any],
    origin: tuple[int, ...],
) -> None:
    start, stop = region
    starts, stops = cut_up(start, stop, plan.block)
    pieces = pieces_of(plan, starts, stops)
    group, most = min(GROUP, plan.channels), int(plan.block.prod())
    means, totals = np.empty(group * most, plan.computed), np.empty(most, plan.computed)
    numbers, marks = np.empty(most, np.int32), np.empty((most, 2), np.intp)
    room = np.empty(group * room_size(pieces), plan.computed)
    for block in range(len(starts)):
        if has_seams(plan, pieces, block):
            inside = box_slices(starts[block] - origin, stops[block] - origin)
            parts = pixels[:, *inside], counts[inside]
            blend_seams(plan, pieces, block, starts[block], *parts)
            continue
        shape = (stops[block] - starts[block]).tolist()
        corner = tuple((starts[block] - origin).tolist())
        size = math.prod(shape)
        total, count = totals[:size].reshape(shape), numbers[:size].reshape(shape)
        spans = marks[: shape[0] * shape[1]]
        for first in range(0, plan.channels, group):
            channels = slice(first, min(first + group, plan.channels))
            some = pixels[channels]
            mean = means[: len(some) * size].reshape(len(some), *shape)
            spans.fill(0)
            onto: Any = (plan.blend, mean, total, count, spans, room)
            for piece in pieces:
                if piece.touched[block]:
                    add_channels(piece, block, channels, *onto)
            ends: Any = (float(plan.fill_value), *plan.limits, plan.kept.kind != "f")
            where: Any = (corner, some)
            deliver(mean, total, spans, *ends, *where)
        deliver_counts(count, spans, corner, counts)


def block_sides(plan: Plan, blocks: Sequence[int] | None, out: Any) -> Ints:
    """Return the shape of the blocks: whole chunks of `out`, if it has any."""
    if blocks is not None:
        return np.array(as_shape(blocks, "blocks", ndim=plan.ndim), dtype=np.intp)
    sides = plan.region[-plan.ndim :]
    chunks = getattr(out, "chunks", None)
    if chunks is None or len(chunks) != len(plan.image_shape):
        return sides
    if not all(isinstance(chunk, int) for chunk in chunks):
        return sides
    if plan.channel_axis is not None:
        chunks = np.delete(chunks, plan.channel_axis)
    return -(-sides // np.array(chunks)) * np.array(chunks)


def write_blocks(
    plan: Plan,
    sides: Ints,
    image: Any,
    coverage: Any,
    done: Any,
    workers: Workers,
    progress: bool,
) -> None:
    """Render all blocks that are not done, and write each before it is marked."""
    regions = regions_of(plan, sides)
    cells = [_cell(region, plan.ndim, sides) for region in regions]
    if done is not None:
        grid = tuple((-(-plan.shape // sides)).tolist())
        check_store(done, "done", grid, np.dtype(bool))
        marks = np.asarray(done[...], dtype=bool)
        left = [k for k, cell in enumerate(cells) if not marks[cell]]
        regions, cells = [regions[k] for k in left], [cells[k] for k in left]
    with Room([image, coverage, done]) as room:
        for cell, _ in zip(
            cells,
            _write_each(plan, regions, image, coverage, room, workers, progress),
            strict=True,
        ):
            if done is not None:
                flush(image)
                flush(coverage)
                done[cell] = True
                flush(done)


def _write_each(
    plan: Plan,
    regions: list[Region],
    image: Any,
    coverage: Any,
    room: Room,
    workers: Workers,
    progress: bool,
) -> Iterator[None]:
    """Write regions, and yield whenever one has been written."""
    shown: Any = (workers, progress, "warp_composite")
    if takes_regions(plan, image, coverage, workers):
        yield from write_regions(plan, regions, image, coverage, *shown)
        return
    for inside, pixels, counts in render_regions(plan, regions, *shown):
        room.reserve([pixels.shape, counts.shape, (1,) * counts.ndim])
        image[plan.with_channels(inside)] = pixels
        coverage[inside] = counts
        yield


def _cell(region: Region, ndim: int, sides: Ints) -> tuple[int, ...]:
    return tuple((region[0][3 - ndim :] // sides).tolist())

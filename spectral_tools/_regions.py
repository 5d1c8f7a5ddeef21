"""Render regions of the canvas, one after the other or by threads (floor 8)."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blend_kernels import finish
from ._canvas import MINIMAL_SEAM, MULTIBAND, Plan, add_piece, cut_up, pieces_of
from ._multiband import band_box, blend_bands
from ._seams import blend_seams, has_seams, seam_boxes
from ._thin import thin_plan
from ._tile_pieces import Piece, box_slices
from ._workers import Workers, spread

__all__ = ["Region", "blocks_of", "regions_of", "render_alone", "render_regions"]

Float = np.floating[Any]
Ints = NDArray[np.intp]
Region = tuple[Ints, Ints]

# So many regions are handed to a map-like callable at a time: it may compute all
# of them before the first one is taken.
BATCH = 16


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


def _shaped(
    plan: Plan, found: NDArray[Any], counts: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image and its coverage with the axes that the result has."""
    pixels = found.reshape(len(found), *counts.shape[3 - plan.ndim :])
    coverage = counts.reshape(pixels.shape[1:])
    if plan.channel_axis is None:
        return pixels[0], coverage
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
        workers(function, [thinned(group) for group in groups[start : start + BATCH]])
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
    pixels = np.empty((plan.channels, *(stop - start)), plan.kept)
    counts = np.empty(pixels.shape[1:], plan.counted)
    if plan.blend == MULTIBAND:
        blend_bands(plan, region, pixels, counts)
        return pixels, counts
    starts, stops = cut_up(start, stop, plan.block)
    pieces = pieces_of(plan, starts, stops)
    room = np.empty((2, plan.block.prod()), plan.computed)
    room_to_count = np.empty(plan.block.prod(), np.int32)
    for block in range(len(starts)):
        inside = box_slices(starts[block] - start, stops[block] - start)
        if has_seams(plan, pieces, block):
            parts = pixels[(slice(None), *inside)], counts[inside]
            blend_seams(plan, pieces, block, starts[block], *parts)
            continue
        shape = stops[block] - starts[block]
        mean, total = room[:, : shape.prod()].reshape(2, *shape)
        count = room_to_count[: shape.prod()].reshape(shape)
        for channel in range(plan.channels):
            _blend_block(plan, pieces, block, channel, mean, total, count)
            pixels[channel][inside] = mean
        counts[inside] = count
    return pixels, counts


def _blend_block(
    plan: Plan,
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
        if piece.touched[block]:
            add_piece(plan, piece, block, channel, plan.blend, mean, total, count)
    finish(mean, total, plan.fill_value, *plan.limits, plan.kept.kind != "f")

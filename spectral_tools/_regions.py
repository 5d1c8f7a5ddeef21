"""Render regions of the canvas, one after the other or by threads (floor 8)."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blend_kernels import finish
from ._canvas import MULTIBAND, Plan, add_piece, cut_up, pieces_of
from ._multiband import blend_bands
from ._seams import blend_seams, has_seams
from ._tile_pieces import Piece, box_slices
from ._workers import Workers, spread

__all__ = ["Region", "regions_of", "render_regions"]

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
    parts = spread(
        partial(_render_region, plan),
        regions,
        workers=_in_batches(workers) if callable(workers) else workers,
        progress=progress,
        title=title,
    )
    for region, (found, counts) in zip(regions, parts, strict=True):
        inside = box_slices(*region)[3 - plan.ndim :]
        pixels = found.reshape(len(found), *counts.shape[3 - plan.ndim :])
        coverage = counts.reshape(pixels.shape[1:])
        if plan.channel_axis is None:
            yield inside, pixels[0], coverage
        else:
            yield inside, np.moveaxis(pixels, 0, plan.channel_axis), coverage


def _in_batches(workers: Callable[..., Iterable[Any]]) -> Workers:
    def use(function: Callable[..., Any], items: list[Any]) -> Iterable[Any]:
        starts = range(0, len(items), BATCH)
        return chain.from_iterable(
            workers(function, items[start : start + BATCH]) for start in starts
        )

    return use


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

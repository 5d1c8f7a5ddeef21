"""Blend tiles band by band, coarse details over wide seams."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Image, Ints
from .blends import finish
from .multiband_kernels import (
    claim,
    extend,
    halve,
    mix,
    normalise_sums,
    put_together,
    shrink,
    widen,
)
from .plan import Plan, cut_up, sample_piece
from .tile_reading import Piece, box_slices, read_piece

__all__ = ["band_box", "blend_bands"]


# The coarsest band fades over about 2 ** LEVELS pixels.
LEVELS = {2: 4, 3: 3}
# So many of the coarsest pixels matter to each side: less than 2 of those that a
# mask takes in, and less than 2 of those between which a band is interpolated.
REACH = 4
# A mask reaches so many of the coarsest pixels beyond its tile.
BEYOND = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What a region and its margin, here the frame, see of a tile."""

    piece: Piece
    parts: list[tuple[slice, ...]]  # in which the box is sampled
    corner: tuple[int, int, int]  # of the box, in the frame
    values: Image
    weights: Image
    outer: tuple[int, int, int]  # corner of a box of whole coarsest pixels around it
    shape: tuple[int, ...]  # of that


def band_box(plan: Plan, region: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Return where the box starts and stops from which a region is made."""
    step = _coarsest(plan)
    margin = np.where(step > 1, REACH * step, 0)
    start, stop = region
    return start // step * step - margin, -(-stop // step) * step + margin


def _coarsest(plan: Plan) -> Ints:
    """Return how many pixels the coarsest cells span along each axis."""
    step = np.full(3, 2 ** LEVELS[plan.ndim])
    step[: 3 - plan.ndim] = 1
    return step


def blend_bands(
    plan: Plan, region: tuple[Ints, Ints], pixels: NDArray[Any], counts: NDArray[Any]
) -> None:
    """Blend the tiles of a region into its pixels, and count them."""
    # Strategy: each pixel belongs to the tile whose border is farthest, and shows
    # its value and a smooth difference: that between the blended bands and the
    # bands of this tile. So only differences are interpolated, and a tile alone
    # stays as it is. The finest band is never made: it has the sharpest mask, and
    # in the sum of all bands it drops out. Bands are made from the region and a
    # margin as wide as the widest filter. All grids lie at multiples of their step
    # on the canvas, so that neighbouring regions see the same bands.
    start, stop = region
    step = _coarsest(plan)
    first, last = band_box(plan, region)
    views = _views(plan, first, last, step)
    owner = np.zeros(last - first, np.int32)
    count, best = np.zeros_like(owner), np.zeros(owner.shape, plan.computed)
    inner = box_slices(start - first, stop - first)
    corner = _as_corner(start - first)
    for channel in range(plan.channels):
        for number, view in enumerate(views, 1):
            _sample(plan, view, channel)
            if channel == 0:
                claim(view.weights, number, view.corner, best, owner, count)
        mean = np.zeros(stop - start, plan.computed)
        differences = _differences(plan, views, owner)
        for number, (view, added) in enumerate(zip(views, differences, strict=True), 1):
            put_together(view.values, added, owner, number, view.corner, corner, mean)
        total = np.ascontiguousarray(best[inner])
        finish(mean, total, plan.fill_value, *plan.limits, plan.kept.kind != "f")
        pixels[channel] = mean
    counts[:] = count[inner]


def _views(plan: Plan, first: Ints, last: Ints, step: Ints) -> list[View]:
    """Read what the frame sees of each tile."""
    views = []
    even = np.minimum(step, 2)
    for number in np.flatnonzero(
        ((plan.boxes[:, 0] < last) & (plan.boxes[:, 1] > first - 1)).all(axis=1)
    ):
        low, high = plan.boxes[number]
        start = np.floor(low / even).astype(np.intp) * even
        stop = np.ceil((high + 1) / even).astype(np.intp) * even
        start, stop = np.maximum(start, first), np.minimum(stop, last)
        starts, stops = cut_up(start, stop, _chunk(plan, stop - start))
        none = [np.empty((3, 0, 0, 0))] * len(starts)
        axis, dtype = plan.channel_axis, plan.computed
        piece = read_piece(plan.tiles[number], axis, starts, stops, none, dtype)
        if not piece.touched.any():
            continue
        values, weights = np.empty((2, *(stop - start)), dtype)
        beyond = np.where(step > 1, BEYOND, 0)
        outer = np.maximum((start // step - beyond) * step, first)
        end = np.minimum((-(-stop // step) + beyond) * step, last)
        view = View(
            piece=piece,
            parts=list(map(box_slices, starts - start, stops - start)),
            corner=_as_corner(start - first),
            values=values,
            weights=weights,
            outer=_as_corner(outer - first),
            shape=tuple((end - outer).tolist()),
        )
        views.append(view)
    return views


def _as_corner(place: Ints) -> tuple[int, int, int]:
    plane, row, col = place.tolist()
    return plane, row, col


def _chunk(plan: Plan, sides: Ints) -> Ints:
    """Return the sides of slabs of a box, which have as many pixels as a block."""
    axis = 3 - plan.ndim
    across = np.prod(sides[axis + 1 :])
    chunk = sides.copy()
    chunk[axis] = max(plan.block.prod() // across, 1)
    return chunk


def _sample(plan: Plan, view: View, channel: int) -> None:
    """Write the values of a tile, and its weights."""
    for block, part in enumerate(view.parts):
        onto = view.values[part], view.weights[part]
        if view.piece.touched[block]:
            sample_piece(plan, view.piece, block, channel, *onto)
        else:
            for array in onto:
                array.fill(0)


def _differences(
    plan: Plan, views: list[View], owner: NDArray[np.int32]
) -> list[Image]:
    """Return what is to be added to each tile, in its cells of two pixels."""
    if len(views) < 2:
        return [np.zeros(_halved(view.values.shape), plan.computed) for view in views]
    # An offset is taken off, so that constants stay exactly constant.
    offset = _some_value(views)
    stacks = [
        _pyramid(plan, view, owner, number, offset)
        for number, view in enumerate(views, 1)
    ]
    shapes = [_halved(owner.shape)]
    for _ in range(1, LEVELS[plan.ndim]):
        shapes.append(_halved(shapes[-1]))
    found: list[Image] = []
    for level in range(len(shapes) - 1, -1, -1):
        mean, total = np.zeros((2, *shapes[level]), plan.computed)
        corners = [_scaled(view.outer, plan.ndim, level + 1) for view in views]
        for number, (stack, corner) in enumerate(zip(stacks, corners, strict=True)):
            shown, _, mask = stack[level]
            if found:
                wide = _expand(found[number], plan.ndim)
                shown = np.add(wide, shown, out=wide)
            mix(shown, mask, corner, mean, total)
        found = []
        for stack, corner in zip(stacks, corners, strict=True):
            shown = stack[level][0]
            inside = _box(corner, shown.shape)
            found.append(np.subtract(mean[inside], shown, out=shown))
    for k, (view, stack) in enumerate(zip(views, stacks, strict=True)):
        cells = _box(_inset(view, plan.ndim), _halved(view.values.shape))
        found[k] = np.ascontiguousarray(found[k][cells])
        extend(found[k], np.ascontiguousarray(stack[0][1][cells]))
    return found


def _box(corner: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(at, at + n) for at, n in zip(corner, shape, strict=True))


def _some_value(views: list[View]) -> float:
    for view in views:
        known = view.weights > 0
        if known.any():
            return float(view.values.flat[known.argmax()])
    return 0.0


def _halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(size // 2, 1) for size in shape)


def _scaled(
    corner: tuple[int, int, int], ndim: int, level: int
) -> tuple[int, int, int]:
    plane, row, col = corner
    return plane >> level if ndim == 3 else 0, row >> level, col >> level


def _inset(view: View, ndim: int) -> tuple[int, int, int]:
    """Return where the cells of a tile start in the box around them."""
    one, two = _scaled(view.corner, ndim, 1), _scaled(view.outer, ndim, 1)
    return one[0] - two[0], one[1] - two[1], one[2] - two[2]


def _pyramid(
    plan: Plan, view: View, owner: NDArray[np.int32], number: int, offset: float
) -> list[Image]:
    """Return the local means of a tile, where it is known, and its masks."""
    sums = np.zeros((3, *_halved(view.shape)), plan.computed)
    inset = _inset(view, plan.ndim)
    shown = view.values, view.weights
    halve(*shown, owner, number, view.corner, offset, inset, sums)
    stack = [sums]
    for _ in range(1, LEVELS[plan.ndim]):
        stack.append(_reduce(stack[-1], plan.ndim))
    for each in stack:
        normalise_sums(each[0], each[1])
    return stack


def _reduce(array: Image, ndim: int) -> Image:
    for axis in range(4 - ndim, 4):
        shape = list(array.shape)
        shape[axis] //= 2
        coarse = np.empty(shape, array.dtype)
        sides = np.prod(shape[:axis], dtype=int), np.prod(shape[axis + 1 :], dtype=int)
        shrink(
            array.reshape(sides[0], -1, sides[1]),
            coarse.reshape(sides[0], -1, sides[1]),
        )
        array = coarse
    return array


def _expand(array: Image, ndim: int) -> Image:
    for axis in range(3 - ndim, 3):
        shape = list(array.shape)
        shape[axis] *= 2
        fine = np.empty(shape, array.dtype)
        sides = np.prod(shape[:axis], dtype=int), np.prod(shape[axis + 1 :], dtype=int)
        widen(
            array.reshape(sides[0], -1, sides[1]),
            fine.reshape(sides[0], -1, sides[1]),
        )
        array = fine
    return array

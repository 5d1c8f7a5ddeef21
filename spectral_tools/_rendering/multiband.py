"""Blend tiles band by band, coarse details over wide seams."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Image, Ints, Ints32
from .._shared.compiled import compiled
from .blends import finish
from .plan import Plan, cut_up, sample_piece
from .tile_reading import Piece, box_slices, read_piece

__all__ = ["band_box", "blend_bands"]


Corner = tuple[int, int, int]


# The coarsest band fades over about 2 ** LEVELS pixels.
LEVELS = {2: 4, 3: 3}
# A mask reaches so many of the coarsest pixels beyond its tile.
BEYOND = 2
# So many of the coarsest pixels matter to each side: less than 2 of those that a
# mask takes in, and less than 2 of those between which a band is interpolated.
REACH = 2 * BEYOND


@compiled
def claim(
    weights: Image,
    number: int,
    corner: Corner,
    best: Image,
    owner: Ints32,
    count: Ints32,
) -> None:
    """Give a tile all pixels whose weight is larger than the best so far.

    Parameters
    ----------
    weights : ndarray of shape (planes, rows, cols)
        Of the tile in its box; 0 where it is not there.
    number : int
        What the owner of these pixels is called.
    corner : tuple of int
        Where the box starts in the larger arrays.
    best, owner, count : ndarray
        Largest weight, who has it, and the number of tiles; updated.
    """
    planes, rows, cols = weights.shape
    zero = weights.dtype.type(0)
    who = np.int32(number)
    for plane in range(planes):
        for row in range(rows):
            at = corner[0] + plane, corner[1] + row
            line = weights[plane, row]
            bests = best[at[0], at[1], corner[2] : corner[2] + cols]
            owners = owner[at[0], at[1], corner[2] : corner[2] + cols]
            counts = count[at[0], at[1], corner[2] : corner[2] + cols]
            for k in range(cols):
                one, two, old = line[k], bests[k], owners[k]
                owners[k] = who if one > two else old
                bests[k] = np.maximum(one, two)
                counts[k] += np.int32(one > zero)


@compiled
def halve(
    values: Image,
    weights: Image,
    common: Image,
    total: Image,
    owner: Ints32,
    number: int,
    corner: Corner,
    first: Corner,
    out: Image,
) -> None:
    """Sum how a tile differs where it overlaps others, and what it owns, in cells.

    Both tiles of an overlap weigh a pixel alike, by the product of their weights:
    so the means of what each differs are apart by the mean of what the two differ.

    Parameters
    ----------
    values, weights : ndarray of shape (planes, rows, cols)
        Of the tile in its box; the weight is 0 where it is not there.
    common, total : ndarray
        Mean of all tiles by their weights, and the sum of these weights.
    owner, number, corner
        As in `claim`.
    first : tuple of int
        Where the cells of the box start in `out`.
    out : ndarray of shape (3, planes, rows, cols)
        Sums of weighted differences, of their weights, and of owned pixels, with
        planes halved if there are several; updated.
    """
    cols = values.shape[2]
    deep = 1 if values.shape[0] == 1 else 2
    zero, one = values.dtype.type(0), values.dtype.type(1)
    sums, known, owned = np.empty((3, cols), values.dtype)
    who = np.int32(number)
    for plane in range(values.shape[0] // deep):
        for row in range(values.shape[1] // 2):
            sums[:], known[:], owned[:] = zero, zero, zero
            for part in range(2 * deep):
                depth, at = plane * deep + part // 2, 2 * row + part % 2
                value, weight = values[depth, at], weights[depth, at]
                place = corner[0] + depth, corner[1] + at
                means = common[place[0], place[1], corner[2] : corner[2] + cols]
                totals = total[place[0], place[1], corner[2] : corner[2] + cols]
                names = owner[place[0], place[1], corner[2] : corner[2] + cols]
                for k in range(cols):
                    share = weight[k] * (totals[k] - weight[k])
                    sums[k] += share * (value[k] - means[k])
                    known[k] += share
                    owned[k] += one if names[k] == who else zero
            lines = out[:, first[0] + plane, first[1] + row, first[2] :]
            for k in range(cols // 2):
                lines[0, k] = sums[2 * k] + sums[2 * k + 1]
                lines[1, k] = known[2 * k] + known[2 * k + 1]
                lines[2, k] = owned[2 * k] + owned[2 * k + 1]


@compiled
def normalise_sums(sums: Image, known: Image) -> None:
    """Turn sums into means, in place; they are 0 where nothing is known."""
    tops, parts = sums.reshape(-1), known.reshape(-1)
    zero, one = sums.dtype.type(0), sums.dtype.type(1)
    for k in range(tops.size):
        tops[k] /= parts[k] if parts[k] > zero else one


@compiled
def shrink(fine: Image, coarse: Image) -> None:
    """Smooth by (1, 4, 6, 4, 1) / 16 along the second axis, and keep every other.

    Parameters
    ----------
    fine : ndarray of shape (n, 2 * size, inner)
        Beyond its ends lies 0.
    coarse : ndarray of shape (n, size, inner)
        The result.
    """
    dtype = fine.dtype
    centre, near, far = dtype.type(0.375), dtype.type(0.25), dtype.type(0.0625)
    outer, size, inner = coarse.shape
    padded = np.zeros(2 * size + 4, dtype)
    for one in range(outer):
        if inner == 1:
            for k in range(2 * size):
                padded[2 + k] = fine[one, k, 0]
            for k in range(size):
                coarse[one, k, 0] = (
                    centre * padded[2 * k + 2]
                    + near * (padded[2 * k + 1] + padded[2 * k + 3])
                    + far * (padded[2 * k] + padded[2 * k + 4])
                )
            continue
        for k in range(size):
            line, here = coarse[one, k], fine[one, 2 * k]
            for j in range(inner):
                line[j] = centre * here[j]
            for step in (-2, -1, 1, 2):
                if 0 <= 2 * k + step < 2 * size:
                    share = near if abs(step) == 1 else far
                    there = fine[one, 2 * k + step]
                    for j in range(inner):
                        line[j] += share * there[j]


@compiled
def widen(coarse: Image, fine: Image) -> None:
    """Put points between points along the second axis; the ends are repeated.

    Parameters
    ----------
    coarse : ndarray of shape (n, size, inner)
        Points.
    fine : ndarray of shape (n, 2 * size, inner)
        The result.
    """
    dtype = fine.dtype
    centre, side, half = dtype.type(0.75), dtype.type(0.125), dtype.type(0.5)
    outer, size, inner = coarse.shape
    for one in range(outer):
        for k in range(size):
            before, after = max(k - 1, 0), min(k + 1, size - 1)
            low, here, high = coarse[one, before], coarse[one, k], coarse[one, after]
            even, odd = fine[one, 2 * k], fine[one, 2 * k + 1]
            for j in range(inner):
                even[j] = centre * here[j] + side * (low[j] + high[j])
                odd[j] = half * (here[j] + high[j])


@compiled
def mix(values: Image, mask: Image, corner: Corner, mean: Image, total: Image) -> None:
    """Add the values of a tile in its box to a mean that is weighted by masks."""
    # A running mean, so that a tile alone stays exactly as it is.
    planes, rows, cols = values.shape
    zero = values.dtype.type(0)
    for plane in range(planes):
        for row in range(rows):
            at = corner[0] + plane, corner[1] + row
            value, share = values[plane, row], mask[plane, row]
            means = mean[at[0], at[1], corner[2] : corner[2] + cols]
            totals = total[at[0], at[1], corner[2] : corner[2] + cols]
            for k in range(cols):
                totals[k] += share[k]
                ratio = share[k] / totals[k] if share[k] > zero else zero
                means[k] += ratio * (value[k] - means[k])


@compiled
def extend(values: Image, known: Image) -> None:
    """Set unknown cells to the mean of the known ones around them, in place."""
    planes, rows, cols = values.shape
    zero = values.dtype.type(0)
    near = np.zeros(cols + 2, values.dtype)
    for plane in range(planes):
        for row in range(rows):
            low, high = max(plane - 1, 0), min(plane + 2, planes)
            first, last = max(row - 1, 0), min(row + 2, rows)
            near[:] = zero
            for i in range(low, high):
                for j in range(first, last):
                    line = known[i, j]
                    for k in range(cols):
                        near[k + 1] += line[k]
            here = known[plane, row]
            for col in range(cols):
                if here[col] > zero or near[col] + near[col + 1] + near[col + 2] == 0:
                    continue
                total, number = 0.0, 0
                for i in range(low, high):
                    for j in range(first, last):
                        for k in range(max(col - 1, 0), min(col + 2, cols)):
                            if known[i, j, k] > zero:
                                total += values[i, j, k]
                                number += 1
                values[plane, row, col] = total / number


@compiled
def put_together(
    values: Image,
    added: Image,
    owner: Ints32,
    number: int,
    corner: Corner,
    part: Corner,
    out: Image,
) -> None:
    """Write the pixels that a tile owns, with what cells add to them.

    Parameters
    ----------
    values : ndarray of shape (planes, rows, cols)
        Of the tile in its box.
    added : ndarray
        For each cell of the box, interpolated linearly between their centres.
    owner, number, corner
        As in `claim`.
    part : tuple of int
        Where `out` starts in the array `owner`.
    out : ndarray of shape (planes, rows, cols)
        Updated.
    """
    cols = values.shape[2]
    cells = added.shape[2]
    deep = values.shape[0] // added.shape[0]
    line, wide = np.empty(cells, values.dtype), np.empty(cols, values.dtype)
    who = np.int32(number)
    left = max(part[2] - corner[2], 0)
    right = min(part[2] + out.shape[2] - corner[2], cols)
    for plane in range(values.shape[0]):
        to_plane = corner[0] + plane - part[0]
        if not 0 <= to_plane < out.shape[0]:
            continue
        here0, next0 = _cells(plane, added.shape[0], deep)
        for row in range(values.shape[1]):
            to_row = corner[1] + row - part[1]
            if not 0 <= to_row < out.shape[1]:
                continue
            here1, next1 = _cells(row, added.shape[1], 2)
            names = owner[part[0] + to_plane, part[1] + to_row, corner[2] :]
            first, last = left, right
            while first < last and names[first] != who:
                first += 1
            while first < last and names[last - 1] != who:
                last -= 1
            if first == last:
                continue
            _interpolate(added, here0, next0, here1, next1, line, wide)
            shift = corner[2] - part[2]
            value, target = values[plane, row], out[to_plane, to_row]
            for k in range(first, last):
                new, old = value[k] + wide[k], target[k + shift]
                target[k + shift] = new if names[k] == who else old


@compiled
def _interpolate(
    added: Image,
    here0: int,
    next0: int,
    here1: int,
    next1: int,
    line: Image,
    wide: Image,
) -> None:
    """Write what cells add to the pixels of a row, given the cells next to it."""
    cells = line.size
    quarter = line.dtype.type(0.25)
    one, two = added[here0, here1], added[here0, next1]
    three, four = added[next0, here1], added[next0, next1]
    for k in range(cells):
        line[k] = one[k] + quarter * (two[k] - one[k])
    if next0 != here0:
        for k in range(cells):
            other = three[k] + quarter * (four[k] - three[k])
            line[k] += quarter * (other - line[k])
    for k in range(cells):
        low, high = line[max(k - 1, 0)], line[min(k + 1, cells - 1)]
        wide[2 * k] = line[k] + quarter * (low - line[k])
        wide[2 * k + 1] = line[k] + quarter * (high - line[k])


@compiled
def _cells(at: int, size: int, step: int) -> tuple[int, int]:
    """Return the cell of a pixel, and the next nearest cell."""
    cell = at // step
    if step == 1:
        return cell, cell
    towards = 1 if at % 2 else -1
    return cell, min(max(cell + towards, 0), size - 1)


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
    # stays as it is. The bands are of what tiles differ from their mean where they
    # overlap: next to its border a tile's own local means miss what lies beyond, so
    # that tiles which agree would differ in them. The finest band is never made: it
    # has the sharpest mask, and in the sum of all bands it drops out. Bands are made
    # from the region and a margin as wide as the widest filter. All grids lie at
    # multiples of their step on the canvas, so that neighbouring regions see the
    # same bands.
    start, stop = region
    step = _coarsest(plan)
    first, last = band_box(plan, region)
    views = _views(plan, first, last, step)
    owner = np.zeros(last - first, np.int32)
    count, best = np.zeros_like(owner), np.zeros(owner.shape, plan.computed)
    inner = box_slices(start - first, stop - first)
    corner = _as_corner(start - first)
    for channel in range(plan.channels):
        common, total = np.zeros((2, *owner.shape), plan.computed)
        for number, view in enumerate(views, 1):
            _sample(plan, view, channel)
            mix(view.values, view.weights, view.corner, common, total)
            if channel == 0:
                claim(view.weights, number, view.corner, best, owner, count)
        mean = np.zeros(stop - start, plan.computed)
        differences = _differences(plan, views, common, total, owner)
        for number, (view, added) in enumerate(zip(views, differences, strict=True), 1):
            put_together(view.values, added, owner, number, view.corner, corner, mean)
        finish(
            mean,
            np.ascontiguousarray(best[inner]),
            plan.fill_value,
            *plan.limits,
            plan.kept.kind != "f",
        )
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
        axis, dtype = plan.channel_axis, plan.computed
        piece = read_piece(plan.tiles[number], axis, starts, stops, [], dtype)
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
    plan: Plan, views: list[View], common: Image, total: Image, owner: Ints32
) -> list[Image]:
    """Return what is to be added to each tile, in its cells of two pixels."""
    if len(views) < 2:
        return [
            np.zeros(_coarser_shape(view.values.shape), plan.computed) for view in views
        ]
    stacks = [
        _pyramid(plan, view, common, total, owner, number)
        for number, view in enumerate(views, 1)
    ]
    shapes = [_coarser_shape(owner.shape)]
    for _ in range(1, LEVELS[plan.ndim]):
        shapes.append(_coarser_shape(shapes[-1]))
    found: list[Image] = []
    for level in range(len(shapes) - 1, -1, -1):
        mean, total = np.zeros((2, *shapes[level]), plan.computed)
        corners = [_scaled(view.outer, plan.ndim, level + 1) for view in views]
        for number, (stack, corner) in enumerate(zip(stacks, corners, strict=True)):
            shown, _, mask = stack[level]
            if found:
                wide = _resized(found[number], plan.ndim, widens=True)
                shown = np.add(wide, shown, out=wide)
            mix(shown, mask, corner, mean, total)
        found = []
        for stack, corner in zip(stacks, corners, strict=True):
            shown = stack[level][0]
            inside = _box(corner, shown.shape)
            found.append(np.subtract(mean[inside], shown, out=shown))
    for k, (view, stack) in enumerate(zip(views, stacks, strict=True)):
        cells = _box(_inset(view, plan.ndim), _coarser_shape(view.values.shape))
        found[k] = np.ascontiguousarray(found[k][cells])
        _, compared, owned = stack[0]
        extend(found[k], (compared + owned)[cells])
    return found


def _box(corner: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(at, at + n) for at, n in zip(corner, shape, strict=True))


def _coarser_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
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
    plan: Plan, view: View, common: Image, total: Image, owner: Ints32, number: int
) -> list[Image]:
    """Return local means of what a tile differs from others, and its masks."""
    sums = np.zeros((3, *_coarser_shape(view.shape)), plan.computed)
    inset = _inset(view, plan.ndim)
    where = owner, number, view.corner, inset
    halve(view.values, view.weights, common, total, *where, sums)
    stack = [sums]
    for _ in range(1, LEVELS[plan.ndim]):
        stack.append(_resized(stack[-1], plan.ndim, widens=False))
    for each in stack:
        normalise_sums(each[0], each[1])
    return stack


def _resized(array: Image, ndim: int, *, widens: bool) -> Image:
    """Return an image of twice or half the size along its last axes."""
    for axis in range(array.ndim - ndim, array.ndim):
        size = array.shape[axis] * 2 if widens else array.shape[axis] // 2
        shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        made = np.empty(shape, array.dtype)
        sides = math.prod(shape[:axis]), -1, math.prod(shape[axis + 1 :])
        (widen if widens else shrink)(array.reshape(sides), made.reshape(sides))
        array = made
    return array

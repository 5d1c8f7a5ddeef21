"""Find seams through overlaps, and blend along them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Bytes, Floats, Image, Ints
from .._shared.compiled import compiled
from .._shared.ndimage import gaussian_filter
from .blends import MINIMAL_SEAM, NEAREST, finish
from .plan import Plan, cut_up, sample_piece, tiles_near
from .tile_reading import Piece, Tile, box_slices, read_piece

__all__ = ["blend_seams", "has_seams", "seam_boxes"]


Corner = tuple[int, int, int]

# A seam narrower than this is as good as hard.
NARROW = 1e-6


# An overlap is seen in up to so many cells: pixels, if it is not larger.
CELLS = 2**16
# Differences are smoothed by a Gaussian of so many cells, against noise.
SIGNED = 1.0
# Then their absolute values are, by so many.
ABSOLUTE = 1.5
# Differences up to this many times the median are taken for noise, in which seams run
# straight.
NOISE = 2.0
# Above, heights are told apart by this factor,
RATIO = 2**0.125
# and the last of them is this one: heights are bytes.
HIGHEST = np.iinfo(np.uint8).max
# A tile that no other one is compared with is ahead by so many pixels.
FAR = 1e6


@compiled
def blend_levels(
    values: Image,
    weights: Image,
    levels: Image,
    width: float,
    mean: Image,
    total: Image,
) -> None:
    """Take the tile of the highest level, or fade where two are nearly as high.

    At the seam of two tiles, whose levels rise and fall by 1 per pixel, the share of
    one falls from 1 to 0 along a line of `width` pixels.

    Parameters
    ----------
    values, weights, levels : ndarray of shape (n, size)
        Of each tile; a weight of 0 means that it is not there.
    width : float
        Width of the seam; 0 for a hard one.
    mean, total : ndarray of shape (size,)
        What is shown, and its weight, which is 0 where no tile is; overwritten.
    """
    count, size = values.shape
    dtype = values.dtype
    zero, one, lowest = dtype.type(0), dtype.type(1), dtype.type(-np.inf)
    best, heaviest = np.empty(size, dtype), np.zeros(size, dtype)
    best[:], mean[:], total[:] = lowest, zero, zero
    for tile in range(count):
        value, weight, level = values[tile], weights[tile], levels[tile]
        for k in range(size):
            there = weight[k] > zero
            tied = (level[k] == best[k]) & (weight[k] > heaviest[k])
            better = there & ((level[k] > best[k]) | tied)
            old, older, oldest = mean[k], heaviest[k], best[k]
            mean[k] = value[k] if better else old
            heaviest[k] = weight[k] if better else older
            best[k] = level[k] if better else oldest
    if width <= 0:
        total[:] = heaviest
        return
    mean[:] = zero
    steep = dtype.type(1 / max(width, NARROW))
    for tile in range(count):
        value, weight, level = values[tile], weights[tile], levels[tile]
        for k in range(size):
            behind = (best[k] - level[k]) * steep
            # Of two tiles, the shares are then (1 + behind) / 2 and the rest.
            share = (one - behind) / (one + behind)
            share = share if (weight[k] > zero) & (behind < one) else zero
            total[k] += share
            ratio = share / total[k] if share > zero else zero
            mean[k] += ratio * (value[k] - mean[k])


@compiled
def tally(
    values0: Image,
    weights0: Image,
    values1: Image,
    weights1: Image,
    margin: float,
    corner: Corner,
    step: Corner,
    sums: Floats,
    counts: Floats,
    votes: Floats,
) -> None:
    """Sum up in cells how two tiles differ, and who owns what.

    Parameters
    ----------
    values0, weights0, values1, weights1 : ndarray of shape (planes, rows, cols)
        Of the tiles, in a part of their map; the weight is the distance to the
        border, and 0 where a tile is not there.
    margin : float
        A tile so near to its border leaves the pixel to the other one.
    corner, step : tuple of int
        Where the part starts in the map, in pixels, and the sides of a cell.
    sums, counts : ndarray
        Differences and the number of pixels where both are there; updated.
    votes : ndarray
        Pixels that only the first tile can have, less those of the second;
        updated.
    """
    for plane in range(values0.shape[0]):
        to_plane = (corner[0] + plane) // step[0]
        for row in range(values0.shape[1]):
            to_row = (corner[1] + row) // step[1]
            for col in range(values0.shape[2]):
                at = to_plane, to_row, (corner[2] + col) // step[2]
                one, two = weights0[plane, row, col], weights1[plane, row, col]
                if one > 0 and two > 0:
                    sums[at] += values0[plane, row, col] - values1[plane, row, col]
                    counts[at] += 1
                if one != two and min(one, two) < margin:
                    votes[at] += 1 if one > two else -1


@compiled
def flood(heights: NDArray[np.uint8], labels: Bytes) -> None:
    """Let seeds grow over cells, the highest first, and further down only then.

    A hill is taken whole by who reaches it first, so that borders run in the deepest
    valleys there are; on a plain they run half-way between the seeds.

    Parameters
    ----------
    heights : ndarray of shape (planes, rows, cols)
        Heights.
    labels : ndarray of the same shape
        1 or -1 for the cells of seeds, and 0 for others; filled.
    """
    # Strategy: cells wait in one queue for each height, first come, first served.
    planes, rows, cols = heights.shape
    tops, flat = heights.reshape(-1), labels.reshape(-1)
    size = flat.size
    first, last = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    after = np.full(size, -1, np.int64)
    steps = (-rows * cols, rows * cols, -cols, cols, -1, 1)
    top = -1
    for at in range(size):
        if flat[at] != 0:
            top = max(top, _join(at, tops, first, last, after))
    while top >= 0:
        at = first[top]
        if at < 0:
            top -= 1
            continue
        first[top] = after[at]
        plane, row, col = at // (rows * cols), at // cols % rows, at % cols
        free = (
            plane > 0,
            plane < planes - 1,
            row > 0,
            row < rows - 1,
            col > 0,
            col < cols - 1,
        )
        for k in range(6):
            if free[k] and flat[at + steps[k]] == 0:
                flat[at + steps[k]] = flat[at]
                top = max(top, _join(at + steps[k], tops, first, last, after))


@compiled
def _join(
    at: int,
    tops: NDArray[np.uint8],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    after: NDArray[np.int64],
) -> int:
    """Put a cell at the end of the queue of its height, and return that."""
    height = int(tops[at])
    if first[height] < 0:
        first[height] = at
    else:
        after[last[height]] = at
    last[height] = at
    return height


@compiled
def signed_distance(labels: Bytes, distances: NDArray[np.float32]) -> None:
    """Write how far the border between 1 and -1 is, with the sign of the label.

    Steps along axes and diagonals are added up, so that it is too long by 8 % at
    most in planes. Neighbours on the two sides are 0.5 and -0.5.
    """
    # Strategy: borders first, then distances are carried forwards, and backwards.
    # Each turn looks at the half of the neighbours that come before in memory.
    planes, rows, cols = labels.shape
    steps = np.empty((13, 3), np.int64)
    lengths, count = np.empty(13, np.float32), 0
    for a in range(-1 if planes > 1 else 0, 1):
        for b in range(-1, 2):
            for c in range(-1, 2):
                if 9 * a + 3 * b + c < 0:
                    steps[count, 0], steps[count, 1], steps[count, 2] = a, b, c
                    lengths[count] = np.sqrt(a * a + b * b + c * c)
                    count += 1
    distances[:] = planes + rows + cols
    for turn in range(3):
        sign = -1 if turn == 2 else 1
        for p in range(planes):
            plane = p if sign > 0 else planes - 1 - p
            for r in range(rows):
                row = r if sign > 0 else rows - 1 - r
                for c in range(cols):
                    col = c if sign > 0 else cols - 1 - c
                    at = plane, row, col
                    here, least = labels[at], distances[at]
                    for step in range(count):
                        i = plane + sign * steps[step, 0]
                        j = row + sign * steps[step, 1]
                        k = col + sign * steps[step, 2]
                        if not (0 <= i < planes and 0 <= j < rows and 0 <= k < cols):
                            continue
                        if labels[i, j, k] != here:
                            border = lengths[step] - np.float32(0.5)
                            least = min(least, border)
                            distances[i, j, k] = min(distances[i, j, k], border)
                        elif turn > 0:
                            least = min(least, distances[i, j, k] + lengths[step])
                    distances[at] = least
    distances *= labels


@compiled
def compare(
    distances: NDArray[np.float32],
    start: Floats,
    step: Corner,
    weights0: Image,
    weights1: Image,
    levels0: Image,
    levels1: Image,
) -> None:
    """Lower the levels of two tiles to how far each is ahead of the other.

    Parameters
    ----------
    distances : ndarray of shape (planes, rows, cols)
        From the seam, positive on the side of the first tile, in cells.
    start : ndarray of shape (3,)
        Where the first pixel lies on the map, in cells.
    step : tuple of int
        Sides of a cell, in pixels.
    weights0, weights1 : ndarray
        0 where a tile is not there.
    levels0, levels1 : ndarray
        In pixels; updated where both are there.
    """
    dtype = levels0.dtype
    pixels = dtype.type(step[2])
    for plane in range(weights0.shape[0]):
        low0, high0, part0 = _cells_around(
            start[0] + plane / step[0], distances.shape[0], step[0]
        )
        for row in range(weights0.shape[1]):
            low1, high1, part1 = _cells_around(
                start[1] + row / step[1], distances.shape[1], step[1]
            )
            one, two = distances[low0, low1], distances[low0, high1]
            three, four = distances[high0, low1], distances[high0, high1]
            for col in range(weights0.shape[2]):
                if weights0[plane, row, col] > 0 and weights1[plane, row, col] > 0:
                    low, high, part = _cells_around(
                        start[2] + col / step[2], distances.shape[2], step[2]
                    )
                    upper = _bilinear(one, two, part1, low, high, part)
                    lower = _bilinear(three, four, part1, low, high, part)
                    ahead = pixels * dtype.type(upper + part0 * (lower - upper))
                    old0, old1 = levels0[plane, row, col], levels1[plane, row, col]
                    levels0[plane, row, col] = min(old0, ahead)
                    levels1[plane, row, col] = min(old1, -ahead)


@compiled
def _cells_around(at: float, size: int, step: int) -> tuple[int, int, float]:
    """Return the cells around a point, and how far it is from the first."""
    if step == 1:
        cell = min(max(int(np.rint(at)), 0), size - 1)
        return cell, cell, 0.0
    at = min(max(at, 0.0), size - 1.0)
    cell = int(at)
    return cell, min(cell + 1, size - 1), at - cell


@compiled
def _bilinear(one: Any, two: Any, row: float, low: int, high: int, col: float) -> float:
    upper = one[low] + col * (one[high] - one[low])
    lower = two[low] + col * (two[high] - two[low])
    return upper + row * (lower - upper)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairMap:
    """How far each cell of the overlap of two tiles is from their seam."""

    start: Ints  # on the canvas
    step: Ints  # pixels of the canvas for each cell
    distances: NDArray[np.float32]  # in cells, positive where the first tile is shown


def has_seams(plan: Plan, pieces: list[Piece], block: int) -> bool:
    """Return whether tiles meet in a block, and a seam is to be laid or softened."""
    wanted = plan.blend == MINIMAL_SEAM or (
        plan.blend == NEAREST and plan.seam_width > 0
    )
    return wanted and sum(bool(piece.touched[block]) for piece in pieces) > 1


def blend_seams(
    plan: Plan,
    pieces: list[Piece],
    block: int,
    start: Ints,
    pixels: NDArray[Any],
    counts: NDArray[Any],
) -> None:
    """Blend the tiles of a block into its pixels, and count them."""
    # Strategy: every tile has a level at each pixel, and the highest one is shown.
    # It is the distance to its border; or the distance to its seam with the one
    # other tile that it is least ahead of.
    pieces = [piece for piece in pieces if piece.touched[block]]
    shape = counts.shape
    values, weights = np.empty((2, len(pieces), *shape), plan.computed)
    mean, total = np.empty((2, *shape), plan.computed)
    levels, width = weights, plan.seam_width * plan.tile_pixels
    for channel in range(plan.channels):
        for k, piece in enumerate(pieces):
            sample_piece(plan, piece, block, channel, values[k], weights[k])
        if channel == 0:
            counts[:] = (weights > 0).sum(axis=0)
            if plan.blend == MINIMAL_SEAM:
                levels, width = _levels(plan, pieces, start, weights), plan.seam_width
        each = (len(pieces), -1)
        stacks = values.reshape(each), weights.reshape(each), levels.reshape(each)
        blend_levels(*stacks, width, mean.reshape(-1), total.reshape(-1))
        finish(mean, total, plan.fill_value, *plan.limits, plan.kept.kind != "f")
        pixels[channel] = mean


def _levels(plan: Plan, pieces: list[Piece], start: Ints, weights: Image) -> Image:
    """Return how far each tile is ahead of those that it shares a pixel with."""
    levels = np.full_like(weights, FAR)
    stop = start + weights.shape[1:]
    for k, one in enumerate(pieces):
        for m, two in enumerate(pieces[:k]):
            low, high = _shared_box(two.tile, one.tile)
            low, high = np.maximum(low, start), np.minimum(high, stop)
            if (low >= high).any():
                continue
            key = two.tile.number, one.tile.number
            found = plan.maps.get(key, partial(_pair_map, plan, two, one))
            inside = box_slices(low - start, high - start)
            centre = (low - found.start - (found.step - 1) / 2) / found.step
            compare(
                found.distances,
                centre,
                tuple(found.step.tolist()),
                weights[m][inside],
                weights[k][inside],
                levels[m][inside],
                levels[k][inside],
            )
    return levels


def seam_boxes(plan: Plan, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """Return the boxes of blocks, and those from which their seams are laid."""
    near = [plan.tiles[n] for n in tiles_near(plan, starts, stops)]
    firsts, lasts = [starts], [stops]
    for k, one in enumerate(near):
        for two in near[:k]:
            low, high = _shared_box(one, two)
            if (low < high).all():
                start, stop, step = _seam_box(plan, one, two)
                for each, ends in ((firsts, 0), (lasts, 1)):
                    each.append(_reading_boxes(plan, start, stop, step)[ends])
    return np.concatenate(firsts), np.concatenate(lasts)


def _shared_box(one: Tile, two: Tile) -> tuple[Ints, Ints]:
    """Return the box of pixels that two tiles can share."""
    boxes = np.stack([one.box, two.box])
    low = np.floor(boxes[:, 0].max(axis=0)).astype(np.intp)
    high = np.ceil(boxes[:, 1].min(axis=0)).astype(np.intp) + 1
    return low, high


def _seam_box(plan: Plan, one: Tile, two: Tile) -> tuple[Ints, Ints, Ints]:
    """Return the box in which the seam of two tiles is laid, and the size of a cell."""
    low, high = _shared_box(one, two)
    wide: Ints = (np.arange(3) >= 3 - plan.ndim).astype(np.intp)
    side = np.ceil((np.prod(high - low) / CELLS) ** (1 / plan.ndim))
    step: Ints = np.where(wide > 0, int(side), 1)
    # A cell more on each side, which only one of the tiles has.
    return low - step * wide, high + step * wide, step


def _reading_boxes(
    plan: Plan, start: Ints, stop: Ints, step: Ints
) -> tuple[Ints, Ints]:
    """Return the boxes of whole cells in which a large one is read."""
    return cut_up(start, stop, -(-plan.region // step) * step)


def _pair_map(plan: Plan, one: Piece, two: Piece) -> PairMap:
    """Lay the seam of two tiles, which depends on nothing else."""
    wide: Ints = (np.arange(3) >= 3 - plan.ndim).astype(np.intp)
    start, stop, step = _seam_box(plan, one.tile, two.tile)
    shape = -(-(stop - start) // step)
    sums, counts, votes = np.zeros((3, *shape))
    margin = plan.seam_width / 2 * plan.tile_pixels + 1
    for first, last in zip(*_reading_boxes(plan, start, stop, step), strict=True):
        shown = [_mean_channel(plan, piece, first, last) for piece in (one, two)]
        corner, cell = tuple((first - start).tolist()), tuple(step.tolist())
        tally(*shown[0], *shown[1], margin, corner, cell, sums, counts, votes)
    labels = _seeds(votes)
    fade = plan.seam_width / step.max()
    flood(_heights(sums, counts, wide, fade), labels)
    distances = np.empty(labels.shape, np.float32)
    signed_distance(labels, distances)
    return PairMap(start=start, step=step, distances=distances)


def _mean_channel(
    plan: Plan, piece: Piece, start: Ints, stop: Ints
) -> tuple[Image, Image]:
    """Return the mean over the channels of a tile in a box, and its weights."""
    where = start[None], stop[None]
    part = read_piece(piece.tile, plan.channel_axis, *where, [], plan.computed)
    mean, values, weights = np.zeros((3, *(stop - start)), plan.computed)
    if part.touched[0]:
        for channel in range(plan.channels):
            sample_piece(plan, part, 0, channel, values, weights)
            mean += values / plan.channels
    return mean, weights


def _seeds(votes: Floats) -> NDArray[np.int8]:
    """Return 1 or -1 where a cell is left to one tile, and 0 elsewhere."""
    seeds = np.sign(votes).astype(np.int8)
    # A tile that has nothing for itself leaves everything to the other one.
    if not (seeds > 0).any():
        seeds[:] = -1 if (seeds < 0).any() else 1
    elif not (seeds < 0).any():
        seeds[:] = 1
    return seeds


def _heights(
    sums: Floats, counts: Floats, wide: Ints, fade: float
) -> NDArray[np.uint8]:
    """Return how much two tiles differ around each cell, in steps above the noise."""
    known = counts > 0
    heights = np.zeros(sums.shape, np.uint8)
    if not known.any():
        return heights
    means = sums / np.maximum(counts, 1)
    means -= np.median(means[known])
    means[~known] = 0
    shares = gaussian_filter(known.astype(float), SIGNED * wide, mode="constant")
    means = gaussian_filter(means, SIGNED * wide, mode="constant")
    means[known] = np.abs(means[known]) / shares[known]
    means[~known] = 0
    # A quarter of a soft seam is about the deviation of where it mixes tiles.
    means = gaussian_filter(means, np.hypot(ABSOLUTE, fade / 4) * wide)
    highest = means.max()
    noise = max(NOISE * np.median(means[known]), highest * RATIO ** (1 - HIGHEST))
    if noise > 0:
        steps = np.log(np.maximum(means / noise, 1)) / np.log(RATIO)
        heights[:] = np.minimum(np.ceil(steps), HIGHEST)
    return heights

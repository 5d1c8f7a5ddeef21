"""Find seams through overlaps, and blend along them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Image, Ints
from .._shared.ndimage import gaussian_filter
from .blends import NEAREST, finish
from .plan import MINIMAL_SEAM, Plan, cut_up, sample_piece, tiles_near
from .seam_kernels import blend_levels, compare, flood, signed_distance, tally
from .tile_inputs import Tile
from .tile_reading import Piece, box_slices, read_piece

__all__ = ["blend_seams", "has_seams", "seam_boxes"]


# An overlap is seen in up to so many cells: pixels, if it is not larger.
CELLS = 2**16
# Differences are smoothed by so many cells, and then their absolute values.
FINE, COARSE = 1.0, 1.5
# Differences up to this many times the median are taken for noise, in which seams
# run straight; above, heights are told apart by this factor, from 1 to the last one.
NOISE, RATIO, HIGHEST = 2.0, 2**0.125, 255
# A tile that no other one is compared with is ahead by so many pixels.
FAR = 1e6


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
            low, high = _common(two.tile, one.tile)
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
            low, high = _common(one, two)
            if (low < high).all():
                start, stop, step = _cells(plan, one, two)
                for each, ends in ((firsts, 0), (lasts, 1)):
                    each.append(_parts(plan, start, stop, step)[ends])
    return np.concatenate(firsts), np.concatenate(lasts)


def _common(one: Tile, two: Tile) -> tuple[Ints, Ints]:
    """Return the box of pixels that two tiles can share."""
    boxes = np.stack([one.box, two.box])
    low = np.floor(boxes[:, 0].max(axis=0)).astype(np.intp)
    high = np.ceil(boxes[:, 1].min(axis=0)).astype(np.intp) + 1
    return low, high


def _cells(plan: Plan, one: Tile, two: Tile) -> tuple[Ints, Ints, Ints]:
    """Return the box in which the seam of two tiles is laid, and the size of a cell."""
    low, high = _common(one, two)
    wide: Ints = (np.arange(3) >= 3 - plan.ndim).astype(np.intp)
    side = np.ceil((np.prod(high - low) / CELLS) ** (1 / plan.ndim))
    step: Ints = np.where(wide > 0, int(side), 1)
    # A cell more on each side, which only one of the tiles has.
    return low - step * wide, high + step * wide, step


def _parts(plan: Plan, start: Ints, stop: Ints, step: Ints) -> tuple[Ints, Ints]:
    """Return the boxes of whole cells in which a large one is read."""
    return cut_up(start, stop, -(-plan.region // step) * step)


def _pair_map(plan: Plan, one: Piece, two: Piece) -> PairMap:
    """Lay the seam of two tiles, which depends on nothing else."""
    wide: Ints = (np.arange(3) >= 3 - plan.ndim).astype(np.intp)
    start, stop, step = _cells(plan, one.tile, two.tile)
    shape = -(-(stop - start) // step)
    sums, counts, votes = np.zeros((3, *shape))
    margin = plan.seam_width / 2 * plan.tile_pixels + 1
    for first, last in zip(*_parts(plan, start, stop, step), strict=True):
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
    none = [np.empty((3, 0, 0, 0))]
    where = start[None], stop[None], none, plan.computed
    part = read_piece(piece.tile, plan.channel_axis, *where)
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
    shares = gaussian_filter(known.astype(float), FINE * wide, mode="constant")
    means = gaussian_filter(means, FINE * wide, mode="constant")
    means[known] = np.abs(means[known]) / shares[known]
    means[~known] = 0
    # A quarter of a soft seam is about the deviation of where it mixes tiles.
    means = gaussian_filter(means, np.hypot(COARSE, fade / 4) * wide)
    highest = means.max()
    noise = max(NOISE * np.median(means[known]), highest * RATIO ** (1 - HIGHEST))
    if noise > 0:
        steps = np.log(np.maximum(means / noise, 1)) / np.log(RATIO)
        heights[:] = np.minimum(np.ceil(steps), HIGHEST)
    return heights

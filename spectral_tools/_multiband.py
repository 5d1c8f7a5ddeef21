"""Blend tiles band by band, coarse details over wide seams (floor 7)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blend_kernels import FEATHER, finish
from ._canvas import Plan, add_piece, pieces_of
from ._tile_pieces import Piece, box_slices

__all__ = ["blend_bands"]

Float = np.floating[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Array = NDArray[Float]

# The coarsest band fades over about 2 ** LEVELS pixels.
LEVELS = {2: 4, 3: 3}
# So many of the coarsest pixels matter to each side: of masks, of bands, and of what
# fills bands where a tile ends.
REACH = 2


def blend_bands(
    plan: Plan, region: tuple[Ints, Ints], pixels: NDArray[Any], counts: NDArray[Any]
) -> None:
    """Blend the tiles of a region into its pixels, and count them."""
    # Strategy: bands are made from the region and a margin as wide as the widest
    # filter. All grids of the pyramid lie at multiples of their step on the canvas,
    # so that neighbouring regions see the same bands.
    start, stop = region
    levels = LEVELS[plan.ndim]
    step = 2 ** (levels + 2)
    wide = np.array(region[0] * 0 + 1)
    wide[: 3 - plan.ndim] = 0
    margin = REACH * step * wide
    grid = np.where(wide == 1, step, 1)
    first = start // grid * grid - margin
    last = -(-stop // grid) * grid + margin + wide
    inner = box_slices(start - first, stop - first)
    pieces = [
        piece for piece in pieces_of(plan, first[None], last[None]) if piece.touched[0]
    ]
    axes = np.flatnonzero(wide).tolist()
    for channel in range(plan.channels):
        sampled = [_sample(plan, piece, channel, last - first) for piece in pieces]
        count = np.zeros(last - first, np.int32)
        for _, weight in sampled:
            count += weight > 0
        mean = _blend(sampled, levels, axes, last - first, plan.computed)
        total = (count > 0).astype(plan.computed)
        mean, total = mean[inner].copy(), total[inner].copy()
        finish(mean, total, plan.fill_value, *plan.limits, plan.kept.kind != "f")
        pixels[channel] = mean
        counts[:] = count[inner]


def _sample(plan: Plan, piece: Piece, channel: int, shape: Ints) -> tuple[Array, Array]:
    """Return the values of one tile, and its weights, which are 0 outside."""
    mean, total = np.zeros((2, *shape), plan.computed)
    add_piece(plan, piece, 0, channel, FEATHER, mean, total, np.zeros(shape, np.int32))
    return mean, total


def _blend(
    sampled: list[tuple[Array, Array]],
    levels: int,
    axes: list[int],
    shape: Ints,
    dtype: np.dtype[Any],
) -> Array:
    """Return the sum of the bands, each blended by masks as smooth as it is."""
    if not sampled:
        return np.zeros(shape, dtype)
    best = np.maximum.reduce([weight for _, weight in sampled])
    # An offset is taken off, so that constants stay exactly constant.
    offset = next(
        (v[w > 0].flat[0] for v, w in sampled if (w > 0).any()), dtype.type(0)
    )
    taken = np.zeros(shape, bool)
    bands: list[Array] = []
    shares: list[Array] = []
    for values, weight in sampled:
        chosen = (weight == best) & (weight > 0) & ~taken
        taken |= chosen
        there = weight > 0
        filled = _fill(np.where(there, values - offset, 0), there, levels, axes)
        smooth: Array = filled
        mask: Array = chosen.astype(dtype)
        for level in range(levels + 1):
            coarse = _reduce(smooth, axes)
            band: Array = smooth - _expand(coarse, smooth.shape, axes)
            if level == levels:
                band = smooth
            if len(bands) <= level:
                bands.append(np.zeros_like(band))
                shares.append(np.zeros_like(band))
            bands[level] += band * mask
            shares[level] += mask
            smooth, mask = coarse, _reduce(mask, axes)
    result: Array = _ratio(bands[-1], shares[-1])
    for band, share in zip(bands[-2::-1], shares[-2::-1], strict=True):
        result = _ratio(band, share) + _expand(result, band.shape, axes)
    return result + offset


def _ratio(one: Array, two: Array) -> Array:
    return np.divide(one, two, out=np.zeros_like(one), where=two > 0)


def _fill(
    values: Array, there: NDArray[np.bool_], levels: int, axes: list[int]
) -> Array:
    """Fill where a tile is not there with ever wider averages of where it is."""
    # Two levels more than there are bands: else what is too far away to be filled
    # would still be seen by the coarsest band.
    stack = [(values, there.astype(values.dtype))]
    for _ in range(levels + 2):
        sums, weights = stack[-1]
        stack.append((_reduce(sums, axes), _reduce(weights, axes)))
    result = _ratio(*stack[-1])
    for sums, weights in stack[-2::-1]:
        wide = _expand(result, sums.shape, axes)
        result = np.where(weights > 0, _ratio(sums, weights), wide)
    return result


def _reduce(array: Array, axes: list[int]) -> Array:
    """Smooth by (1, 4, 6, 4, 1) / 16 and keep every other pixel, along each axis."""
    for axis in axes:
        moved = np.moveaxis(array, axis, 0)
        padded = np.concatenate([moved[:1], moved[:1], moved, moved[-1:], moved[-1:]])
        size = (len(moved) + 1) // 2
        parts = [padded[k : k + 2 * size - 1 : 2] for k in range(5)]
        # Differences of neighbours, so that constants stay what they are.
        moved = parts[2] + (
            0.25 * ((parts[1] - parts[2]) + (parts[3] - parts[2]))
            + 0.0625 * ((parts[0] - parts[2]) + (parts[4] - parts[2]))
        )
        array = np.moveaxis(moved, 0, axis)
    return np.ascontiguousarray(array)


def _expand(array: Array, shape: tuple[int, ...], axes: list[int]) -> Array:
    """Put pixels between pixels, and smooth by (1, 4, 6, 4, 1) / 8, along each axis."""
    for axis in axes:
        moved = np.moveaxis(array, axis, 0)
        padded = np.concatenate([moved[:1], moved, moved[-1:]])
        wide = np.empty((shape[axis], *moved.shape[1:]), array.dtype)
        even = moved + 0.125 * ((padded[:-2] - moved) + (padded[2:] - moved))
        odd = 0.5 * (moved + padded[2:])
        wide[0::2] = even[: len(wide[0::2])]
        wide[1::2] = odd[: len(wide[1::2])]
        array = np.moveaxis(wide, 0, axis)
    return np.ascontiguousarray(array)

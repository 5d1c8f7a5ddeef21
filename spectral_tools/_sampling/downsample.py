"""Images at half, a quarter, an eighth of their size, by means."""

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Flags, Float, Floats, Ints
from .._shared.compiled import compiled
from .._shared.ndimage import distance_transform_edt
from .._shared.sparse import sparse_rows

__all__ = [
    "block_means",
    "count_levels",
    "half_length",
    "halve",
    "known_block_means",
    "shrunk",
]


# Frequency at which the low-pass has half its height, in units of the highest that the
# new pixels can show: a raised cosine, whose heights the notes of `resample` tell.
MIDDLE = 0.9
# It falls from `MIDDLE` * (1 - `ROLL`) to `MIDDLE` * (1 + `ROLL`): a steeper one rings
# more at edges.
ROLL = 0.8
# So many new pixels to each side are mixed: beyond, weights are below 1e-3.
HALF_WIDTH = 4
# A new pixel is known where this share of its area is.
KNOWN = 0.5


def half_length(length: int) -> int:
    """Return the length of an axis one level up: the last pixel may be half empty."""
    return -(-length // 2)


def count_levels(length: int, side: int) -> int:
    """Return how many levels there are until the longest axis fits into `side`."""
    levels = 1
    while length > side:
        length = half_length(length)
        levels += 1
    return levels


def block_means(image: NDArray[Any], sides: Sequence[int]) -> NDArray[Any]:
    """Return the means of blocks of pixels; what is left over at the ends is cut off.

    Parameters
    ----------
    image : ndarray
        The image, of any real dtype.
    sides : sequence of int
        Pixels of a block along each axis, no more than the image has.
    """
    dtype = np.result_type(image.dtype, np.float32)
    counts = [size // side for size, side in zip(image.shape, sides, strict=True)]
    sums = image[tuple(map(slice, np.multiply(counts, sides)))]
    axes = list(range(image.ndim))
    # Neighbours on a line are added last, since that is slow, but for pairs.
    for axis in axes[-1:] + axes[:-1] if sides[-1] == 2 else axes:
        around = sums.shape[:axis], sums.shape[axis + 1 :]
        blocks = sums.reshape(*around[0], counts[axis], sides[axis], *around[1])
        parts = np.moveaxis(blocks, axis + 1, 0)
        sums = parts[0].astype(dtype)
        for part in parts[1:]:
            sums += part
    sums /= dtype.type(prod(sides))
    return sums


def known_block_means(
    image: NDArray[Any], known: Flags, sides: Sequence[int]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the means of what is known in blocks of pixels, and the share that is."""
    share = block_means(known, sides)
    mean = block_means(np.where(known, image, 0), sides)
    mean /= np.where(share > 0, share, 1)
    return mean, share


def halve(image: NDArray[Any]) -> NDArray[Any]:
    """Return the means of 2 x 2 pixels along the last two axes, in the same dtype.

    At odd borders they are means of the pixels that there are; pixels that are not
    finite do not count unless there are no others. Integers are rounded to the
    nearest one, and ties to the even one, so that levels do not become brighter.
    """
    *outer, rows, cols = image.shape
    planes = np.ascontiguousarray(image).reshape(-1, rows, cols)
    planes.flags.writeable = False  # as some come: kernels are compiled for either
    out = np.empty((len(planes), half_length(rows), half_length(cols)), image.dtype)
    _halve_planes(planes, out, image.dtype.kind != "f")
    return out.reshape(*outer, *out.shape[1:])


@compiled
def _halve_planes(image: NDArray[Any], out: NDArray[Any], whole: bool) -> None:
    _, rows, cols = image.shape
    for plane in range(out.shape[0]):
        for row in range(out.shape[1]):
            for col in range(out.shape[2]):
                total = 0.0
                count = 0
                for r in range(2 * row, min(2 * row + 2, rows)):
                    for c in range(2 * col, min(2 * col + 2, cols)):
                        value = float(image[plane, r, c])
                        if isfinite(value):
                            total += value
                            count += 1
                mean = total / count if count else np.nan
                out[plane, row, col] = np.rint(mean) if whole else mean


def shrunk(image: NDArray[Float], scale: Floats, counts: list[int]) -> NDArray[Float]:
    """Return an image with fewer pixels along the axes that shrink.

    Parameters
    ----------
    image : ndarray of shape (*shape, channels)
        The image. Pixels that are not finite in some channel are missing.
    scale : ndarray of shape (ndim,)
        New pixels for each pixel, below 1 where the image shrinks.
    counts : list of int
        New pixels along each axis; the middle stays in the middle.

    Returns
    -------
    ndarray
        The image, NaN where most of what a new pixel covers is missing.
    """
    known = np.asarray(np.isfinite(image).all(axis=-1))
    share = known.astype(image.dtype)
    if not known.all():
        image = np.where(known[..., np.newaxis], image, 0)
        if known.any():
            nearest = distance_transform_edt(
                ~known, return_distances=False, return_indices=True
            )
            image = image[tuple(nearest)]
    for axis in np.flatnonzero(scale < 1).tolist():
        size, count = image.shape[axis], counts[axis]
        middles = (np.arange(count) - (count - 1) / 2) / scale[axis] + (size - 1) / 2
        image = _weighted_sums(
            image, axis, *_low_pass(middles, float(scale[axis]), size)
        )
        if not known.all():
            share = _weighted_sums(
                share, axis, *_area_weights(middles, float(scale[axis]), size)
            )
    if not known.all():
        image[share < KNOWN] = np.nan
    return image


def _weighted_sums(
    image: NDArray[Float], axis: int, numbers: Ints, weights: Floats
) -> NDArray[Float]:
    """Return weighted sums of pixels along one axis."""
    lines = np.moveaxis(image, axis, 0)
    rows = sparse_rows(numbers, weights.astype(image.dtype), len(lines))
    mixed = rows @ lines.reshape(len(lines), -1)
    return np.moveaxis(mixed.reshape(len(numbers), *lines.shape[1:]), 0, axis)


def _low_pass(middles: Floats, scale: float, size: int) -> tuple[Ints, Floats]:
    """Return which pixels make each new one, and their weights, which add up to 1.

    Beyond its border the image goes on as its point reflection there, so that a ramp
    stays a ramp.
    """
    near = _pixels_near(middles, HALF_WIDTH / scale)
    away = (near - middles[:, None]) * scale
    # As many to either side, or ramps would lean.
    weights = np.where(np.abs(away) <= HALF_WIDTH, _raised_cosine(away), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    border = np.clip(near, 0, size - 1)
    outside = border != near
    mirrored = np.clip(2 * border - near, 0, size - 1)
    numbers = np.concatenate([mirrored, border], axis=1)
    return numbers, np.concatenate(
        [np.where(outside, -weights, weights), np.where(outside, 2 * weights, 0)],
        axis=1,
    )


def _area_weights(middles: Floats, scale: float, size: int) -> tuple[Ints, Floats]:
    """Return which pixels each new one covers, and how much of it each of them is."""
    half = 0.5 / scale
    near = _pixels_near(middles, half + 1)
    away = np.abs(near - middles[:, None])
    weights = np.clip(half + 0.5 - away, 0, 1)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(near, 0, size - 1), weights


def _pixels_near(middles: Floats, reach: float) -> Ints:
    """Return the pixels within a reach of each of many places."""
    first = np.ceil(middles - reach).astype(np.intp)
    return first[:, None] + np.arange(int(2 * reach) + 1)


def _raised_cosine(away: Floats) -> Floats:
    """Return the low-pass at distances in new pixels."""
    unit = MIDDLE * away
    ahead = 1 - (2 * ROLL * unit) ** 2
    # Where both parts of the fraction vanish, their slopes tell.
    pole = np.abs(ahead) < 1e-9
    roll = np.cos(np.pi * ROLL * unit) / np.where(pole, 1, ahead)
    return np.asarray(np.sinc(unit) * np.where(pole, np.pi / 4, roll))

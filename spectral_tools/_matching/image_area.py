"""What of an image is image: padding cut off, small holes filled, the scale taken off.

Cameras with a round field, lens corrections, rotations and exports leave borders of one
value. Their edges lie at the same place in every picture and match better than any
sample does. A plain ground between objects is no padding: objects are scattered over
it, and fade into it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import cut_mask, overlap_block
from .._shared.arrays import AnyArray, Flags, Ints, MaskPair, Volume, VolumePair
from .._shared.ndimage import (
    binary_dilation,
    distance_transform_edt,
    gaussian_filter,
    label,
)

__all__ = [
    "ImageArea",
    "bounding_box",
    "find_padding",
    "image_in",
    "mend_holes",
    "prepare_image",
    "without_defects",
    "without_lines",
]

# Holes that are no deeper than this, in pixels, are filled
# (test_scattered_dead_pixels_do_no_harm).
HOLE = 2.0
# Padding surrounds the image: no more than this share of the image has its value, or lies
# between parts of it (test_objects_on_a_plain_ground_are_not_cut_off).
BETWEEN = 0.05
# An image is at least this share of what it lies in
# (test_objects_on_a_plain_ground_are_not_cut_off).
LEAST = 0.2
# The edge of an image is a jump: within two pixels the median difference to the padding
# rises by this share of that of the whole image, at the latest behind a block of JPEG,
# whose side is given in pixels (test_padding_is_found_in_a_compressed_image).
JUMP, BLOCK = 0.3, 8


def find_padding(image: AnyArray) -> Flags | None:
    """Return which pixels of a volume are padding; None if there is none."""
    found: Flags | None = None
    if sum(size > 1 for size in image.shape) < 2:
        return found
    for value in _corner_values(image):
        padding = _padding_of(image, value)
        if padding is not None:
            found = padding if found is None else found | padding
    return found


def _corner_values(image: AnyArray) -> list[float]:
    """Return the values that fill corners of a volume, half a block wide."""
    values = []
    for corner in np.ndindex(*(2 if size > 1 else 1 for size in image.shape)):
        sides = (
            slice(-BLOCK // 2, None) if end else slice(BLOCK // 2) for end in corner
        )
        part = image[tuple(sides)]
        if (part == part.flat[0]).all():
            values.append(part.flat[0])
    return list(dict.fromkeys(values))


def _padding_of(image: AnyArray, value: float) -> Flags | None:
    """Return the padding of one value, if it is that of a frame and not a plain ground."""
    same = image == value
    labels, _ = label(same)
    corners = labels[np.ix_(*([0, -1] for _ in image.shape))]
    padding: Flags = np.isin(labels, np.unique(corners[corners > 0]))
    inside = ~padding
    least = LEAST * image.size
    if inside.sum() < least:
        return None
    between = same.copy()
    for axis, size in enumerate(image.shape):
        if size > 1:
            before = np.maximum.accumulate(inside, axis=axis)
            after = np.flip(
                np.maximum.accumulate(np.flip(inside, axis), axis=axis), axis
            )
            between &= before & after
    if between.sum() > BETWEEN * inside.sum():
        return None
    away = np.abs(image.astype(np.float64) - float(value))
    jump = JUMP * float(np.median(away[inside]))
    below = [0.0, 0.0]
    for _ in range(BLOCK + 2):
        wider = binary_dilation(padding)
        rim = wider & ~padding
        if not rim.any():
            return None
        here = float(np.median(away[rim]))
        if here - below[-2] > jump:
            # What lies on the edge is a mixture of both.
            core = away[~wider]
            return wider if core.size >= least and np.ptp(core) > 0 else None
        padding, below = wider, [*below, here]
    return None


def bounding_box(valid: Flags) -> tuple[slice, ...]:
    """Return the smallest box that holds all that counts."""
    box = []
    for axis in range(valid.ndim):
        others = tuple(other for other in range(valid.ndim) if other != axis)
        where = np.flatnonzero(valid.any(axis=others))
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0))
    return tuple(box)


class ImageArea(NamedTuple):
    """What of a part of an image is image, as `prepare_image` returns it."""

    volume: Volume | None
    valid: Flags | None
    corner: Ints  # of the whole image, (ndim,), where it begins
    share: float  # of the part that it fills
    padding: float  # share of the part that is padding


def image_in(
    image: NDArray[Any],
    mask: Flags | None,
    part: tuple[slice, ...],
    *,
    padding: bool = True,
) -> ImageArea:
    """Return what of a part of an image is image.

    Padding, if it is to be found, and all that lies beyond the pixels that count, is cut
    off.
    """
    image, mask = image[part], cut_mask(mask, part)
    whole = image.shape
    corner = np.array([each.start for each in part])
    shape = (1,) * (3 - image.ndim) + whole
    if not math.isfinite(float(image.sum())):
        finite = np.isfinite(image)
        mask = finite if mask is None else mask & finite
    border = find_padding(image.reshape(shape)) if padding else None
    share = 0.0 if border is None else float(border.mean())
    if border is not None or mask is not None:
        valid = np.ones(shape, np.bool_) if mask is None else mask.reshape(shape)
        valid = valid if border is None else valid & ~border
        if not valid.any():
            return ImageArea(None, None, corner, 0.0, share)
        box = bounding_box(valid)[3 - image.ndim :]
        corner = corner + [each.start or 0 for each in box]
        image = image[box]
        mask = valid.reshape(whole)[box]
    volume, counts = prepare_image(image, mask)
    return ImageArea(volume, counts, corner, image.size / math.prod(whole), share)


def both_masks(
    first: Volume,
    second: Volume,
    valid: tuple[Flags | None, Flags | None],
) -> MaskPair | None:
    """Return the masks of two images if one of them has any."""
    if valid[0] is None and valid[1] is None:
        return None
    return (
        np.ones(first.shape, np.bool_) if valid[0] is None else valid[0],
        np.ones(second.shape, np.bool_) if valid[1] is None else valid[1],
    )


def prepare_image(
    image: NDArray[Any], mask: Flags | None
) -> tuple[Volume | None, Flags | None]:
    """Return an image as a float32 volume of zero mean and unit spread.

    The volume is None if the image shows nothing. A mask comes back only if
    there are pixels that do not count; they are zero in the volume.
    """
    volume = image.reshape((1,) * (3 - image.ndim) + image.shape)
    lowest, highest = float(volume.min()), float(volume.max())
    if mask is not None:
        mask = mask.reshape(volume.shape)
    inside = volume
    if mask is not None or not math.isfinite(lowest + highest):
        usable = np.isfinite(volume)
        mask = usable if mask is None else mask & usable
        if not mask.any():
            return None, mask
        inside = volume[mask]
        lowest, highest = float(inside.min()), float(inside.max())
    # Half the range, so that images near the largest float do not overflow.
    half = highest / 2 - lowest / 2
    rounding = float(np.finfo(volume.dtype).eps) * max(abs(lowest), abs(highest))
    if not half > 4 * rounding:
        return None, mask
    if max(-lowest, highest) < 1e30:
        mean = float(inside.mean(dtype=np.float64))
    else:
        mean = lowest / 2 + highest / 2
    if mask is not None:
        volume = np.where(mask, volume, volume.dtype.type(mean))
        volume, mask = mend_holes(volume, mask)
    scaled = volume - volume.dtype.type(mean)
    scaled /= volume.dtype.type(half)
    if mask is None or mask.all():
        return scaled.astype(np.float32, copy=False), None
    return scaled.astype(np.float32, copy=False), mask


def mend_holes(volume: NDArray[Any], mask: Flags) -> tuple[NDArray[Any], Flags]:
    """Fill holes of a few pixels from around them, and count them as valid.

    A window that fades out towards every dead pixel would leave nothing.
    """
    core = distance_transform_edt(~mask) > HOLE
    wide = np.zeros(mask.shape, np.bool_)
    if core.any():
        wide = ~mask & (distance_transform_edt(~core) <= HOLE + 1)
    small = ~mask & ~wide
    if not small.any():
        return volume, mask
    sigma = [1.0 if size > 1 else 0.0 for size in mask.shape]
    share = gaussian_filter(mask.astype(np.float64), sigma)
    around = gaussian_filter(np.where(mask, volume, 0).astype(np.float64), sigma)
    known = small & (share > 1e-3)
    volume[known] = (around[known] / share[known]).astype(volume.dtype)
    return volume, mask | known


def without_defects(images: VolumePair, at_rest: Ints) -> VolumePair | None:
    """Fill pixels and lines that stand out in both images where they lie at rest.

    They are those of the camera, or the finest detail of a scene, of which enough is left.
    They stand out of their two neighbours along an axis beyond what chance does among so
    many (Donoho & Johnstone 1994, :doi:`10.1093/biomet/81.3.425`), and become the
    nearer of them. None if nothing does.
    """
    sizes = np.array(images[0].shape), np.array(images[1].shape)
    *starts, block = overlap_block(*sizes, at_rest)
    parts = [tuple(map(slice, start, start + block)) for start in starts]
    most = math.sqrt(2 * math.log(max(int(block.prod()), 2)))
    filled = images
    for axis in np.flatnonzero(block > 2).tolist():
        away = [
            _beyond_neighbours(image[part], axis)
            for image, part in zip(filled, parts, strict=True)
        ]
        defects = away[0] * away[1] > 0
        for each in away:
            # Most pixels lie between their neighbours, those of a plain ground all.
            some = np.abs(each[each != 0][:: 1 + each.size // 65536])
            level = most * float(np.median(some)) / 0.6745 if some.size else math.inf
            defects &= np.abs(each) > level
        if not defects.any():
            continue
        if filled is images:
            filled = images[0].copy(), images[1].copy()
        for image, part, each in zip(filled, parts, away, strict=True):
            image[part] -= np.where(defects, each, 0)
    return None if filled is images else filled


def _beyond_neighbours(image: Volume, axis: int) -> Volume:
    """Return by how much each pixel exceeds both its neighbours, or falls below."""
    lines = np.moveaxis(image, axis, 0)
    low = np.minimum(lines[:-2], lines[2:])
    high = np.maximum(lines[:-2], lines[2:])
    away = np.zeros_like(lines)
    np.subtract(lines[1:-1], np.clip(lines[1:-1], low, high), out=away[1:-1])
    return np.moveaxis(away, 0, axis)


def without_lines(image: Volume) -> Volume:
    """Return an image less the median of each line along each axis.

    Means would spread what a bar shows over all of the image.
    """
    for axis, size in enumerate(image.shape):
        if size > 1:
            image = image - np.median(image, axis=axis, keepdims=True)
    return image.astype(np.float32, copy=False)

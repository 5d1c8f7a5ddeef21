"""What of an image is image: padding cut off, small holes filled, the scale taken off.

Cameras with a round field, lens corrections, rotations and exports leave borders of one
value. Their edges lie at the same place in every picture and match better than any
sample does. A plain ground between objects is no padding: objects are scattered over
it, and fade into it.
"""

import math
from operator import itemgetter
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
    "AreaPair",
    "ImageArea",
    "PreparedPair",
    "bounding_box",
    "find_padding",
    "image_in",
    "mend_holes",
    "overlap_share",
    "prepare_image",
    "prepare_pair",
    "trim_to_valid",
    "without_defects",
    "without_lines",
]

# Holes that are no deeper than this, in pixels, are filled
# (test_scattered_dead_pixels_do_no_harm).
HOLE = 2.0
# Padding surrounds the image: no more than this share of the image has its value, or lies
# between parts of it (test_objects_on_a_plain_ground_are_not_cut_off).
BETWEEN = 0.05
# An image that fills no box is at least this share of what it lies in
# (test_objects_on_a_plain_ground_are_not_cut_off).
LEAST = 0.2
# The edge of an image is a jump: within two pixels the median difference to the padding
# rises by this share of that of the whole image, at the latest behind a block of JPEG,
# whose side is given in pixels (test_padding_is_found_in_a_compressed_image).
JUMP, BLOCK = 0.3, 8


def find_padding(image: AnyArray) -> Flags | None:
    """Return which pixels of a volume are padding; None if there is none.

    Pixels that are NaN tell nothing.
    """
    found: Flags | None = None
    if sum(size > 1 for size in image.shape) < 2:
        return found
    for value, noise in _border_levels(image):
        # A scene may be dark where it ends at padding: that is no noise of a frame.
        if noise and found is not None:
            continue
        padding = _padding_of(image, value, noise)
        if padding is not None:
            found = padding if found is None else found | padding
    return found


def _border_levels(image: AnyArray) -> list[tuple[float, float]]:
    """Return the level and the noise of sides and corners that an image stands out of.

    Corners are half a block wide. No level comes twice.
    """
    long = [axis for axis, size in enumerate(image.shape) if size > 1]
    parts = [np.take(image, end, axis) for axis in long for end in (0, -1)]
    for corner in np.ndindex(*(2 if size > 1 else 1 for size in image.shape)):
        sides = (
            slice(-BLOCK // 2, None) if end else slice(BLOCK // 2) for end in corner
        )
        parts.append(image[tuple(sides)])
    some = image.ravel()[:: 1 + image.size // 65536].astype(np.float64)
    some = some[np.isfinite(some)]
    levels: list[tuple[float, float]] = []
    for part in parts:
        if (part == part.flat[0]).all():
            level = part.flat[0], 0.0
        elif np.isfinite(part).all() and some.size:
            level = _level_of(part)
            with np.errstate(over="ignore", invalid="ignore"):
                height = JUMP * float(np.median(np.abs(some - level[0])))
            if not _reach(image, level[1]) < height < math.inf:
                continue
        else:
            continue
        if all(abs(level[0] - other) > _reach(image, noise) for other, noise in levels):
            levels.append(level)
    return sorted(levels, key=itemgetter(1))


def _level_of(pixels: AnyArray) -> tuple[float, float]:
    """Return the mean of pixels, and the deviation of noise about it."""
    with np.errstate(over="ignore", invalid="ignore"):
        level = float(pixels.mean(dtype=np.float64))
        # The mean size of a normal error is 0.798 of its deviation; squares may overflow.
        return level, float(np.abs(pixels - level).mean(dtype=np.float64)) / 0.7979


def _reach(image: AnyArray, noise: float) -> float:
    """Return how far noise goes in an image of so many pixels."""
    return noise * math.sqrt(2 * math.log(max(image.size, 2)))


def _padding_of(image: AnyArray, value: float, noise: float) -> Flags | None:
    """Return the padding of one level, if it is that of a frame and not a plain ground."""
    known, padding = np.isfinite(image), np.zeros(image.shape, np.bool_)
    ends = np.ix_(*([0, -1] for _ in image.shape))
    # A corner tells noise roughly; all of the padding tells it well.
    for _ in range(2 if noise else 1):
        if padding.any():
            value, noise = _level_of(image[padding])
        same = (
            image == value
            if not noise
            else np.abs(image - value) < _reach(image, noise)
        )
        labels, _ = label(same)
        padding = np.isin(labels, labels[ends][labels[ends] > 0])
    # Specks on it belong to it.
    parts, _ = label(known & ~padding)
    sizes = np.bincount(parts[parts > 0], minlength=1)
    inside = (sizes > BETWEEN * sizes.sum())[parts]
    padding = known & ~inside
    # A dark corner of a scene has noise too: what a camera frames, it frames all round.
    if noise and not padding[ends].all():
        return None
    # What fills a box is an image in a frame, however small it is.
    box = float(known[bounding_box(inside)].sum())
    framed = inside.sum() >= (1 - BETWEEN) * box
    least = LEAST * (box if framed else float(known.sum()))
    if inside.sum() < max(least, 1):
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
    for number in range(BLOCK + 2):
        wider = binary_dilation(padding)
        rim = wider & ~padding & known
        behind = binary_dilation(wider) & ~wider & known
        if not (rim.any() and behind.any()):
            return None
        here = float(np.median(away[rim]))
        if here - below[-2] > jump:
            # What lies on the edge is a mixture of both, but where all jumps at once.
            if number > 0 or float(np.median(away[behind])) - here > jump:
                padding = wider
            core = away[known & ~padding]
            return padding if core.size >= least and np.ptp(core) > 0 else None
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
    """The smallest box of an image that holds all that counts."""

    image: NDArray[Any]
    valid: Flags | None  # if not all of it counts
    corner: Ints  # of the whole image, (ndim,), where it begins
    padding: float = 0.0  # share of the whole image that is padding


AreaPair = tuple[ImageArea, ImageArea]


def trim_to_valid(image: NDArray[Any], valid: Flags | None) -> ImageArea | None:
    """Cut off what lies beyond the pixels that count; None if there are none."""
    if valid is None:
        return ImageArea(image, None, np.zeros(image.ndim, np.intp))
    box = bounding_box(valid)
    valid = valid[box]
    if not valid.size:
        return None
    corner = np.array([side.start for side in box])
    return ImageArea(image[box], None if valid.all() else valid, corner)


def image_in(
    image: NDArray[Any], valid: Flags | None, *, padding: bool = True
) -> ImageArea | None:
    """Return what of an image is image; None if nothing is.

    Pixels that are not finite do not count, and neither does padding, if it is to be
    found. A frame that does not count is as good as none: what is cut out of it is all
    that anything after this sees.
    """
    finite = np.isfinite(image)
    if not finite.all():
        valid = finite if valid is None else valid & finite
    area = trim_to_valid(image, valid)
    if area is None or not padding:
        return area
    known = area.image
    if area.valid is not None:
        known = np.where(area.valid, known, known.dtype.type(np.nan))
    border = find_padding(known.reshape((1,) * (3 - image.ndim) + known.shape))
    if border is None:
        return area
    border = border.reshape(known.shape)
    inside = ~border if area.valid is None else area.valid & ~border
    cut = trim_to_valid(area.image, inside)
    if cut is None:
        return None
    share = float(border.sum()) / image.size
    return cut._replace(corner=area.corner + cut.corner, padding=share)


class PreparedPair(NamedTuple):
    """What two images can share, ready to be compared."""

    volumes: VolumePair
    valid: MaskPair | None  # if not all of both counts
    origin: Ints  # (ndim,), a shift of the images less that of the volumes


def prepare_pair(
    areas: AreaPair, parts: tuple[tuple[slice, ...], tuple[slice, ...]]
) -> PreparedPair | None:
    """Return parts of two images as volumes; None if one of them shows nothing."""
    volumes, masks, corners = [], [], []
    for area, part in zip(areas, parts, strict=True):
        cut = trim_to_valid(area.image[part], cut_mask(area.valid, part))
        if cut is None:
            return None
        volume, valid = prepare_image(cut.image, cut.valid)
        if volume is None:
            return None
        volumes.append(volume)
        masks.append(valid)
        corners.append(cut.corner + [side.start for side in part])
    both = None
    if masks[0] is not None or masks[1] is not None:
        one, other = (
            np.ones(volume.shape, np.bool_) if valid is None else valid
            for volume, valid in zip(volumes, masks, strict=True)
        )
        both = one, other
    return PreparedPair((volumes[0], volumes[1]), both, corners[0] - corners[1])


def overlap_share(
    shape0: tuple[int, ...], shape1: tuple[int, ...], shift: NDArray[np.float64]
) -> float:
    """Return the share of the smaller image that lies on the other one."""
    common = np.minimum(shape0, np.array(shape1) + shift) - np.maximum(0, shift)
    share = np.maximum(common, 0).prod() / min(np.prod(shape0), np.prod(shape1))
    return min(float(share), 1.0)


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
    # One layout, whatever that of the image: kernels are compiled for each.
    scaled = np.subtract(volume, volume.dtype.type(mean), order="C")
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
            image = image - np.expand_dims(_medians(image, axis), axis)
    return image.astype(np.float32, copy=False)


def _medians(image: Volume, axis: int) -> Volume:
    """Return the medians along an axis of finite values.

    Those of NumPy look for NaN, which takes three times as long.
    """
    lines = np.moveaxis(image, axis, -1).copy()
    half, odd = divmod(lines.shape[-1], 2)
    lines.partition(half, axis=-1)
    upper = lines[..., half]
    return upper if odd else (lines[..., :half].max(axis=-1) + upper) / 2

"""Check what is to be rendered, and plan it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._shared.arrays import Floats, Ints
from .._shared.cache import Bounded
from .._shared.checks import (
    as_positions,
    check_affine,
    check_not_negative,
    check_positive,
    image_dtype,
)
from .blends import FEATHER, FIRST, LAST, MAXIMUM, MEAN, MINIMUM, NEAREST
from .plan import MINIMAL_SEAM, MULTIBAND, Plan
from .sample_kernels import SLACK
from .tile_inputs import (
    entries,
    extent_of,
    masks_of,
    matrices_of,
    place,
    spatial_shapes,
)

__all__ = ["ORDERS", "REGION", "Valid", "check_choice", "make_plan"]

Valid = Sequence[ArrayLike | None] | ArrayLike | None

BLENDS = {
    "feather": FEATHER,
    "mean": MEAN,
    "nearest": NEAREST,
    "maximum": MAXIMUM,
    "minimum": MINIMUM,
    "first": FIRST,
    "last": LAST,
    "seam": MINIMAL_SEAM,
    "multiband": MULTIBAND,
}
# Seams of these have a width.
WITH_SEAMS = ("nearest", "seam")
# So many maps of overlaps are kept while a mosaic is rendered; each has up to 65,536
# cells of 4 bytes.
MAPS = 1000
ORDERS = (0, 1, 3, 5)
# A canvas with more pixels than this, and so many times more than its tiles have,
# is taken for a mistake.
LARGE, EMPTY = 1e9, 1e4

# Strategy: the canvas is cut into regions and those into blocks, by rules that do
# not know who works on them; this is why results do not depend on `workers`. A
# region is what a thread renders at a time and for which tiles are read. A block is
# so small that the blend and its weight stay in the cache, and only finished pixels
# leave it. Inside, every array has the axes (planes, rows, cols): a flat image is
# one plane.
# With more channels than MANY, regions are smaller, and need as much memory.
MANY = 8
REGION = {2: (1, 1024, 1024), 3: (16, 256, 256)}
BLOCK = {2: (1, 128, 1024), 3: (2, 64, 256)}


def make_plan(
    tiles: Sequence[ArrayLike | None] | ArrayLike,
    matrices: ArrayLike,
    *,
    bounds: ArrayLike | str | None,
    scale: float,
    blend: str,
    order: int,
    valid: Valid,
    channel_axis: int | None,
    fill_value: float,
    dtype: DTypeLike | None,
    seam_width: float = 0.0,
    field: NDArray[Any] | None = None,
) -> Plan:
    """Check the arguments of a rendering, and lay the tiles out."""
    check_positive(scale, "scale")
    check_choice(blend, tuple(BLENDS), "blend")
    check_not_negative(seam_width, "seam_width")
    if seam_width and blend not in WITH_SEAMS:
        message = (
            f"`seam_width` must be 0 unless `blend` is one of {WITH_SEAMS}; "
            f"got {seam_width} for {blend!r}."
        )
        raise ValueError(message)
    check_choice(order, ORDERS, "order")
    images = entries(tiles, "tiles")
    there = [n for n, image in enumerate(images) if image is not None]
    maps = matrices_of(matrices, there, len(images))
    check_affine(maps, "matrices")
    ndim = maps.shape[1] - 1
    axis = _channel_position(channel_axis, ndim)
    present = [images[n] for n in there]
    shapes, channels = spatial_shapes(present, ndim, axis)
    masks = masks_of(valid, shapes, there, len(images))
    kept, computed = _dtypes(present, dtype)
    _check_fill(fill_value, kept, computed)

    origin, shape = _canvas(maps, shapes, bounds, scale, there)
    placed = place(
        present, masks, maps, shapes, origin, scale, order, field is not None
    )
    return Plan(
        tiles=placed,
        boxes=np.stack([tile.box for tile in placed]),
        field=field,
        ndim=ndim,
        origin=origin,
        shape=shape,
        channel_axis=axis,
        channels=channels,
        blend=BLENDS[blend],
        seam_width=float(seam_width),
        tile_pixels=float(
            np.median(np.abs(np.linalg.det(maps)) ** (-1 / ndim)) / scale
        ),
        maps=Bounded(MAPS),
        fill_value=fill_value,
        limits=_limits(kept, computed),
        kept=kept,
        computed=computed,
        counted=np.min_scalar_type(len(present)),
        region=_sides(REGION[ndim], scale * min(1.0, MANY / channels) ** (1 / ndim)),
        block=_sides(BLOCK[ndim], scale),
    )


def check_choice(value: Any, choices: tuple[Any, ...], name: str) -> None:
    """Raise unless `value` is one of some."""
    if value not in choices:
        message = f"`{name}` must be one of {choices}; got {value!r}."
        raise ValueError(message)


def _check_fill(value: float, kept: np.dtype[Any], computed: np.dtype[Any]) -> None:
    low, high = _limits(kept, computed)
    fits = kept.kind == "f" or (low <= value <= high and value % 1 == 0)
    if not fits:
        message = f"`fill_value` must be representable in {kept}; got {value}."
        raise ValueError(message)


def _limits(kept: np.dtype[Any], computed: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of an integer dtype, in floats that do not exceed it."""
    if kept.kind not in "iu":
        return 0.0, 1.0
    info = np.iinfo(kept)
    high = computed.type(info.max)
    if int(high) > info.max:
        high = np.nextafter(high, computed.type(0))
    return float(info.min), float(high)


def _dtypes(
    images: list[Any], dtype: DTypeLike | None
) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the dtypes of the result and of the computation."""
    common = np.result_type(*{image.dtype for image in images})
    kept = common if dtype is None else np.dtype(dtype)
    image_dtype(common, "tiles")
    image_dtype(kept, "dtype")
    return kept, image_dtype(np.result_type(common, kept), "dtype")


def _channel_position(channel_axis: int | None, ndim: int) -> int | None:
    if channel_axis is None:
        return None
    if not -ndim - 1 <= channel_axis <= ndim:
        message = (
            f"`channel_axis` must be between {-ndim - 1} and {ndim}; "
            f"got {channel_axis}."
        )
        raise ValueError(message)
    return channel_axis % (ndim + 1)


def _canvas(
    maps: Floats,
    shapes: Ints,
    bounds: ArrayLike | str | None,
    scale: float,
    there: list[int],
) -> tuple[Floats, Ints]:
    """Return the origin and the shape of the result."""
    ndim = shapes.shape[1]
    if bounds is None or isinstance(bounds, str):
        check_choice(bounds or "union", ("union", "intersection"), "bounds")
        low, high = extent_of(maps, shapes)
        if bounds == "intersection":
            origin, stop = _shared(low, high)
        else:
            origin = np.ceil(low.min(axis=0)) + 0.0  # never -0
            stop = np.maximum(np.floor(high.max(axis=0)), origin) + 1
            _check_size((stop - origin) * scale, low, high, shapes, there)
    else:
        origin, stop = as_positions(bounds, "bounds", count=2, ndim=ndim)
        if not (origin < stop).all():
            message = f"`bounds` must stop after they start; got {origin} to {stop}."
            raise ValueError(message)
    shape = np.ceil((stop - origin) * scale - SLACK).astype(np.intp)
    return origin.copy(), np.maximum(shape, 1)


def _shared(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the rectangle that all tiles share."""
    origin = np.ceil(low.max(axis=0)) + 0.0
    stop = np.floor(high.min(axis=0)) + 1
    if not (origin < stop).all():
        message = (
            "`bounds` must leave a pixel; "
            "got 'intersection' for tiles that share no rectangle."
        )
        raise ValueError(message)
    return origin, stop


def _check_size(
    sides: Floats, low: Floats, high: Floats, shapes: Ints, there: list[int]
) -> None:
    """Raise if tiles lie so far apart that the canvas would be all but empty."""
    if sides.prod() < max(LARGE, EMPTY * shapes.prod(axis=1).sum()):
        return
    middle = (low + high) / 2
    away = np.abs(middle - np.median(middle, axis=0)).max(axis=1)
    message = (
        "`matrices` must keep tiles together, or `bounds` be given; got a mosaic "
        f"of {sides} pixels, in which tile {there[int(away.argmax())]} lies "
        f"{away.max():.0f} from the middle."
    )
    raise ValueError(message)


def _sides(sides: tuple[int, int, int], scale: float) -> Ints:
    """Return the sides of a region or block that bound what is read for it."""
    return np.maximum(np.array(sides) * min(1.0, scale), 1).astype(np.intp)

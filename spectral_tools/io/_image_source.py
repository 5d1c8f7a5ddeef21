"""Images of any size and layout, read part by part as files want them."""

# Strategy: files want the axes (channel, plane, row, col). A source reads any part of
# an image, whatever the order of its axes, as an array with these four; blocks that
# come by themselves are turned into the same form.
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._sampling.downsample import count_levels, half_length
from .._shared.arguments import gathered
from .._shared.arrays import AnyArray, Floats, as_array, lies_in_store
from .._shared.checks import (
    as_finite,
    as_shape,
    as_shift,
    check_count,
    check_unmasked,
)

__all__ = [
    "Box",
    "Frame",
    "Part",
    "Source",
    "as_channel_names",
    "as_frame",
    "as_levels",
    "as_sides",
    "as_source",
    "bands",
    "cut",
    "known_values",
    "parts",
]


Box = tuple[slice, ...]
Part = tuple[Box, NDArray[Any]]

# Values that both formats can hold.
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
# Parts are about so long, in pixels, where no chunks say otherwise.
SIDE = 1024
# Chunks that meet only after so many pixels are not waited for.
LONGEST = 4096


# What XML cannot hold, or does not give back as it was.
UNWRITTEN = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
# What lengths are called, short and long.
UNITS = {
    "pm": "picometer",
    "Å": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
# Other ways to type the first letter: plain, and the Greek one.
ALIASES = {"um": "µm", "\u03bcm": "µm"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """An image to be written.

    Attributes
    ----------
    image : array_like or iterator
        Anything that is sliced like an array, or blocks with their slices.
    axes : tuple of int
        Axes of the image that hold channels, planes, rows and columns; without those
        that it does not have.
    kept : tuple of int
        Which of the four these are.
    shape, chunks : tuple of 4 int
        Shape of the image, and of its chunks.
    dtype : dtype
        Of its values, in the byte order of the machine.
    """

    image: Any
    axes: tuple[int, ...]
    kept: tuple[int, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes without channels."""
        return len(self.axes) - (0 in self.kept)

    @property
    def comes_in_blocks(self) -> bool:
        """Whether the image comes by itself, in an order of its own."""
        return isinstance(self.image, Iterator)


def known_values(values: Any, name: str) -> AnyArray:
    """Return an array with NaN for what is masked, if its dtype can say so."""
    held = gathered(values, name)
    if isinstance(held, np.ma.MaskedArray) and held.dtype.kind != "f":
        check_unmasked(held, name, f"pixels in {held.dtype}")
    return as_array(held)


def as_source(
    image: Any, channel_axis: int | None, shape: Sequence[int] | None
) -> Source:
    """Return an image as a source, or say what is wrong with it."""
    dtype = None
    if isinstance(image, Iterator):
        if shape is None:
            message = "`shape` must be given for an image in blocks; got None."
            raise ValueError(message)
        first = next(image, None)
        if first is None:
            message = "`image` must yield at least one block; got none."
            raise ValueError(message)
        dtype, image = first[1].dtype, chain([first], image)
    elif not lies_in_store(image) or isinstance(image, np.ma.MaskedArray):
        image = known_values(image, "image")
    dtype = np.dtype(dtype or image.dtype).newbyteorder("=")
    if dtype not in DTYPES:
        message = f"`image` must hold {' '.join(DTYPES)}; got dtype {dtype}."
        raise TypeError(message)
    if shape is None:
        shape = image.shape
    lengths = tuple(int(length) for length in shape)
    given = getattr(image, "shape", lengths)
    if tuple(given) != lengths:
        message = f"`shape` must be that of the image, {given}; got {lengths}."
        raise ValueError(message)
    axes, kept = _order(lengths, channel_axis)
    return Source(
        image=image,
        axes=axes,
        kept=kept,
        shape=_spread_out(lengths, axes, kept),
        chunks=_spread_out(_chunks(image, len(lengths)), axes, kept),
        dtype=dtype,
    )


def _order(
    shape: tuple[int, ...], channel_axis: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which axes of the image are which of the four."""
    axes = list(range(len(shape)))
    first = []
    if channel_axis is not None:
        if not -len(axes) <= channel_axis < len(axes):
            message = (
                f"`channel_axis` must be an axis of shape {shape}; got {channel_axis}."
            )
            raise ValueError(message)
        first = [axes.pop(channel_axis)]
    if len(axes) not in (2, 3) or min(shape) < 1:
        message = (
            "`image` must have 2 or 3 axes besides channels, and pixels; "
            f"got shape {shape} with `channel_axis` {channel_axis}."
        )
        raise ValueError(message)
    return (*first, *axes), (*([0] * len(first)), *range(4 - len(axes), 4))


def _spread_out(
    values: tuple[int, ...], axes: tuple[int, ...], kept: tuple[int, ...]
) -> tuple[int, ...]:
    found = [1] * 4
    for place, axis in zip(kept, axes, strict=True):
        found[place] = values[axis]
    return tuple(found)


def _chunks(image: Any, ndim: int) -> tuple[int, ...]:
    """Return the shape of the chunks of a store; Dask lists all of their lengths."""
    chunks = getattr(image, "chunks", None)
    if chunks is None or len(chunks) != ndim:
        return (1,) * ndim
    return tuple(c if isinstance(c, int) else max(c) for c in chunks)


def as_sides(sides: Sequence[int], name: str) -> tuple[int, int]:
    """Return rows and columns of a tile in a file, which are halved once."""
    rows, cols = as_shape(sides, name, ndim=2)
    if rows % 16 or cols % 16:
        message = f"`{name}` must hold multiples of 16; got {(rows, cols)}."
        raise ValueError(message)
    return rows, cols


def as_levels(
    levels: int | None, source: Source, sides: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Return the shape of each level, by default until one fits into a tile."""
    if levels is None:
        levels = count_levels(max(source.shape[2:]), min(sides))
    check_count(levels, "levels")
    shapes = [source.shape]
    for _ in range(levels - 1):
        *outer, rows, cols = shapes[-1]
        if max(rows, cols) == 1:
            message = f"`levels` must end at one pixel, {len(shapes)}; got {levels}."
            raise ValueError(message)
        shapes.append((*outer, half_length(rows), half_length(cols)))
    return shapes


def read(source: Source, where: Box) -> NDArray[Any]:
    """Return a part of an image as an array of channels, planes, rows and columns."""
    index: list[Any] = [slice(None)] * len(source.axes)
    for place, axis in zip(source.kept, source.axes, strict=True):
        index[axis] = where[place]
    return _in_order(source, known_values(source.image[tuple(index)], "image"))


def _in_order(source: Source, part: NDArray[Any]) -> NDArray[Any]:
    if part.ndim != len(source.axes):
        message = (
            "`image` must give its pixels where it is sliced; got "
            f"{part.ndim} axes of {len(source.axes)}."
        )
        raise ValueError(message)
    part = part.transpose(source.axes)
    missing = [place for place in range(4) if place not in source.kept]
    return np.expand_dims(part, missing).astype(source.dtype, copy=False)


def parts(source: Source, chunks: tuple[int, ...]) -> Iterator[Part]:
    """Yield an image part by part, each of its chunks once.

    `chunks` are those of the store that the parts go to: parts hold whole chunks of
    both, if that is possible.
    """
    if source.comes_in_blocks:
        yield from _checked_blocks(source)
        return
    least = (1, 1, SIDE, SIDE)
    sides = list(map(_side, source.chunks, chunks, least))
    for where in cut(source.shape, sides):
        yield where, read(source, where)


def _side(chunk: int, other: int, least: int) -> int:
    both = lcm(chunk, other)
    unit = both if both <= LONGEST else chunk
    return -(-least // unit) * unit


def cut(shape: Sequence[int], sides: Sequence[int]) -> Iterator[Box]:
    """Yield the boxes that fill a shape."""
    ranges = [
        [slice(k, min(k + side, length)) for k in range(0, length, side)]
        for length, side in zip(shape, sides, strict=True)
    ]
    yield from product(*ranges)


def _checked_blocks(source: Source) -> Iterator[Part]:
    filled = 0
    for slices, given in source.image:
        block = known_values(given, "image")
        pairs = zip(slices, [source.shape[k] for k in _places(source)], strict=True)
        inside = [range(*one.indices(length)) for one, length in pairs]
        expected = tuple(len(one) for one in inside)
        if block.shape != expected or not np.can_cast(block.dtype, source.dtype):
            message = (
                f"`image` must yield {source.dtype} blocks as large as their slices, "
                f"{expected}; got {block.dtype} {block.shape}."
            )
            raise ValueError(message)
        where = [slice(0, 1)] * 4
        for place, axis in zip(source.kept, source.axes, strict=True):
            where[place] = slice(inside[axis].start, inside[axis].stop)
        filled += block.size
        yield tuple(where), _in_order(source, block)
    if filled != prod(source.shape):
        message = (
            f"`image` must yield blocks that fill {prod(source.shape)} pixels once; "
            f"got {filled}."
        )
        raise ValueError(message)


def _places(source: Source) -> list[int]:
    """Return which of the four each axis of the image is."""
    return [place for _, place in sorted(zip(source.axes, source.kept, strict=True))]


def bands(source: Source, page: Box, height: int) -> Iterator[NDArray[Any]]:
    """Yield a page in bands of whole rows, and read each row of chunks once."""
    rows, cols = source.shape[2:]
    step = -(-height // source.chunks[2]) * source.chunks[2]
    held = np.empty((0,), source.dtype)
    for start in range(0, rows, step):
        inside = slice(start, min(start + step, rows))
        fresh = read(source, (*page, inside, slice(0, cols)))
        held = np.concatenate([held, fresh], axis=2) if held.size else fresh
        ready = (
            held.shape[2] if inside.stop == rows else held.shape[2] // height * height
        )
        for top in range(0, ready, height):
            yield held[:, :, top : min(top + height, ready)]
        held = held[:, :, ready:]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """Pixels in the world.

    Attributes
    ----------
    pixel_size : ndarray of shape (ndim,)
        Distance of neighbours along each axis; 1 where it is not known.
    origin : ndarray of shape (ndim,)
        Centre of the first pixel, in the same unit.
    unit, long_unit : str
        Short and long name of the unit; empty for pixels.
    """

    pixel_size: Floats
    origin: Floats
    unit: str
    long_unit: str


def as_frame(
    ndim: int, pixel_size: ArrayLike | None, unit: str, origin: ArrayLike | None
) -> Frame:
    """Return the frame of an image whose origin is given in pixels."""
    short = ALIASES.get(unit, unit)
    if short not in UNITS:
        message = f"`unit` must be one of {', '.join(UNITS)}; got {unit!r}."
        raise ValueError(message)
    size = np.ones(ndim)
    if pixel_size is not None:
        size = as_shift(pixel_size, ndim, "pixel_size")
    if (size <= 0).any():
        message = f"`pixel_size` must be greater than 0; got {size.tolist()}."
        raise ValueError(message)
    start = np.zeros(ndim)
    if origin is not None:
        start = as_finite(origin, "origin")
    if start.shape != (ndim,):
        message = f"`origin` must have shape ({ndim},); got {start.shape}."
        raise ValueError(message)
    known = pixel_size is not None
    return Frame(
        pixel_size=size,
        origin=start * size,
        unit=short if known else "",
        long_unit=UNITS[short] if known else "",
    )


def as_channel_names(names: Sequence[str] | None, count: int) -> list[str]:
    """Return one name for each channel, or none at all."""
    if names is None:
        return []
    found = [names] if isinstance(names, str) else list(names)
    if len(found) != count or not all(isinstance(name, str) for name in found):
        message = f"`channel_names` must be {count} strings; got {names!r}."
        raise ValueError(message)
    for name in found:
        if UNWRITTEN.search(name):
            message = f"`channel_names` must be text without controls; got {name!r}."
            raise ValueError(message)
    return found

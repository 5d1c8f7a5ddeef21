"""Images in files that are read when they are sliced, and no more of them than needed."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._shared.checks import check_memory
from .._shared.results import result, show_as_written

__all__ = [
    "FREE",
    "StoredImage",
    "TileFile",
    "check_image_size",
    "image_told",
    "tile_file",
]


# What readers of images raise at broken files.
TROUBLES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
# No format packs pixels more than this many times.
DENSEST = 20_000
FREE = 1 << 24
TIFF = (".tif", ".tiff")


class ReadWhenSliced(ABC):
    """What every image in a file can do that says its shape and can be sliced."""

    __slots__ = ()

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what a key asks for."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self[...])

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read the whole image."""
        if copy is False:
            message = "`copy` must be allowed, because a file is read; got False."
            raise ValueError(message)
        return self[...].astype(self.dtype if dtype is None else dtype, copy=False)


# What others inherit is not looked at with them.
show_as_written(ReadWhenSliced)


@result
class TileFile(ReadWhenSliced):
    """An image in a file that is read when it is sliced, and closed again.

    Attributes
    ----------
    path : Path
        Where it is.
    shape : tuple of int
        Its shape, as the head of the file tells.
    dtype : dtype
        Its dtype.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read the file, or only a part of it if its pixels lie there as they are."""
        with image_told(self.path):
            image = _image(self.path)
        if (image.shape, image.dtype.newbyteorder("=")) != (self.shape, self.dtype):
            message = f"{self.path} must be as it was, {self.shape}; got {image.shape}."
            raise ValueError(message)
        return np.array(image[key], self.dtype)


@result
class StoredImage(ReadWhenSliced):
    """An image of several in a file or folder, which is read when it is sliced.

    No file stays open, and images may go to other processes. Of pixels that are stored in
    tiles, strips or chunks, those are read that a slice touches.

    Attributes
    ----------
    path : Path
        File or folder that the image is of.
    kind : {"OME-TIFF", "OME-Zarr", "bioio"}
        What it is, and so how it is read.
    shape : tuple of int
        Its shape.
    dtype : dtype
        Its dtype.
    part : str
        The array of the folder, or the numbers of scene and tile; empty for OME-TIFF.
    order : tuple of int
        Which of the stored axes each axis is; those of length 1 are left out.
    files : list of Path
        Files of OME-TIFF that hold its planes.
    planes : ndarray of int, shape (..., 2)
        Where each plane of OME-TIFF is, by the axes before rows: number of its file, or
        -1 where none has it, and place of its directory in bytes.
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    part: str
    order: tuple[int, ...]
    files: list[Path]
    planes: NDArray[np.int64]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what a slice asks for."""
        box, inside = _boxed(key, self.shape)
        shape = tuple(one.stop - one.start for one in box)
        with image_told(self.path):
            part = READERS[self.kind](self, box)
        if (part.shape, part.dtype) != (shape, self.dtype):
            message = (
                f"{self.path} must be as it was, {self.dtype} {shape}; "
                f"got {part.dtype} {part.shape}."
            )
            raise ValueError(message)
        return np.array(part[inside])


def _boxed(key: Any, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Any]:
    """Return the box that holds what a key asks for, and the key inside of it."""
    parts = list(key) if isinstance(key, tuple) else [key]
    plain = all(
        part is Ellipsis or isinstance(part, slice) or _is_index(part) for part in parts
    )
    ellipses = sum(part is Ellipsis for part in parts)
    missing = len(shape) - len(parts) + ellipses
    if not plain or ellipses > 1 or missing < 0:
        # NumPy takes what lists and masks ask for, or says what is wrong.
        return tuple(slice(0, side) for side in shape), key
    at = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = [slice(None)] * missing
    pairs = [_boxed_side(part, side) for part, side in zip(parts, shape, strict=True)]
    return tuple(box for box, _ in pairs), tuple(inside for _, inside in pairs)


def _is_index(part: Any) -> bool:
    return hasattr(part, "__index__") and not isinstance(part, bool | np.ndarray)


def _boxed_side(part: Any, side: int) -> tuple[slice, Any]:
    if not isinstance(part, slice):
        # Of a range, because it says what is outside.
        place = range(side)[index(part)]
        return slice(place, place + 1), 0
    asked = range(*part.indices(side))
    if not asked:
        return slice(0, 0), slice(None)
    first, last = min(asked[0], asked[-1]), max(asked[0], asked[-1])
    return slice(first, last + 1), slice(None, None, asked.step)


def _tiff_part(image: StoredImage, box: tuple[slice, ...]) -> NDArray[Any]:
    """Read parts of the planes of an OME-TIFF."""
    import tifffile  # noqa: PLC0415

    lead = image.planes.ndim - 1
    found = np.zeros([one.stop - one.start for one in box], image.dtype)
    planes = image.planes[box[:lead]]
    with ExitStack() as stack:
        opened: dict[int, Any] = {}
        for where in np.ndindex(planes.shape[:-1]):
            number, offset = planes[where].tolist()
            if number < 0:
                message = f"Plane {where} must be in a file; got none that has it."
                raise ValueError(message)
            if number not in opened:
                path = image.files[number]
                opened[number] = stack.enter_context(tifffile.TiffFile(path))
            file = opened[number]
            file.filehandle.seek(offset)
            page = tifffile.TiffPage(file, 0)
            if _page_shape(page) != image.shape[lead:]:
                message = f"Plane {where} must be as it was; got {page.shape}."
                raise ValueError(message)
            part = _page_part(image, file, page, box[lead], box[lead + 1])
            samples: Any = (Ellipsis, *box[lead + 2 :])
            found[where] = part[samples]
    return found


def _page_shape(page: Any) -> tuple[int, ...]:
    """Return the shape of a page with its samples behind."""
    shape = tuple(page.shape)
    return (*shape[1:], shape[0]) if page.axes == "SYX" else shape


def _page_part(
    image: StoredImage, file: Any, page: Any, rows: slice, cols: slice
) -> NDArray[Any]:
    """Read a part of a page: no tile or strip that it does not touch."""
    planar = page.axes == "SYX"
    if page.is_final:
        kind = page.dtype.newbyteorder(file.byteorder)
        place = page.dataoffsets[0]
        whole = np.memmap(file.filehandle.path, kind, "r", place, tuple(page.shape))
        return (np.moveaxis(whole, 0, -1) if planar else whole)[rows, cols]
    height = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    height = height if page.is_tiled else min(height, page.imagelength)
    samples = page.samplesperpixel
    check_image_size(image.path, (height, width, samples), page.dtype)
    sides = rows.stop - rows.start, cols.stop - cols.start
    found = np.zeros((*sides, samples), page.dtype)
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    touched = [
        (sample * down + down_at) * across + across_at
        for sample in range(samples if planar else 1)
        for down_at in range(rows.start // height, -(-rows.stop // height))
        for across_at in range(cols.start // width, -(-cols.stop // width))
    ]
    places = [page.dataoffsets[number] for number in touched]
    counts = [page.databytecounts[number] for number in touched]
    segments = file.filehandle.read_segments(places, counts, touched)
    for data, number in segments:
        segment, (sample, _, top, left, _), _ = page.decode(
            data, number, jpegtables=page.jpegtables
        )
        if segment is None:
            continue
        inner = segment[0, max(rows.start - top, 0) :, max(cols.start - left, 0) :]
        row, col = max(top - rows.start, 0), max(left - cols.start, 0)
        inner = inner[: sides[0] - row, : sides[1] - col]
        channels = slice(sample, sample + 1) if planar else slice(None)
        found[row : row + len(inner), col : col + inner.shape[1], channels] = inner
    return found if len(page.shape) == 3 else found[..., 0]


def _zarr_part(image: StoredImage, box: tuple[slice, ...]) -> NDArray[Any]:
    """Read the chunks of an array that a box touches."""
    import zarr  # noqa: PLC0415

    array = zarr.open_array(image.path / image.part, mode="r")
    index: list[Any] = [slice(0, 1)] * array.ndim
    for axis, one in zip(image.order, box, strict=True):
        index[axis] = one
    shape = [one.stop - one.start for one in box]
    check_memory(prod(shape) * image.dtype.itemsize / 8, "image")
    part = np.asarray(array[tuple(index)])
    return _in_order(part, image).astype(image.dtype, copy=False)


def _scene_part(image: StoredImage, box: tuple[slice, ...]) -> NDArray[Any]:
    """Read a part of a scene, as Dask has it."""
    from bioio import BioImage  # noqa: PLC0415

    file = BioImage(image.path, reconstruct_mosaic=False)
    scene, tile = map(int, image.part.split("/"))
    file.set_scene(scene)
    # Only tiles of a mosaic are more than one along an axis that is left out.
    index: list[Any] = [
        slice(tile, tile + 1) if axis == "M" else slice(0, 1)
        for axis in file.dims.order
    ]
    for axis, one in zip(image.order, box, strict=True):
        index[axis] = one
    return _in_order(np.asarray(file.dask_data[tuple(index)]), image)


def _in_order(part: NDArray[Any], image: StoredImage) -> NDArray[Any]:
    """Return a part without the axes that an image leaves out."""
    others = [axis for axis in range(part.ndim) if axis not in image.order]
    last = part.transpose(*others, *image.order)
    return last[(0,) * len(others)]


# How each kind of file is read.
READERS: dict[str, Callable[[StoredImage, tuple[slice, ...]], NDArray[Any]]] = {
    "OME-TIFF": _tiff_part,
    "OME-Zarr": _zarr_part,
    "bioio": _scene_part,
}


@contextmanager
def image_told(path: Path) -> Iterator[None]:
    """Turn what readers of images raise into an error that names the file."""
    from PIL.Image import DecompressionBombError  # noqa: PLC0415

    try:
        yield
    except (*TROUBLES, DecompressionBombError) as error:
        told_by = " ".join(str(error).split())[:200].rstrip(".")
        message = f"{path} must be a readable image; got {told_by or type(error)}."
        raise ValueError(message) from error


def tile_file(path: Path) -> TileFile:
    """Return a tile, from the head of its file."""
    with path.open("rb"), image_told(path):
        if path.suffix.lower() in TIFF:
            import tifffile  # noqa: PLC0415

            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape, dtype = (
                    tuple(series.shape),
                    np.dtype(series.dtype).newbyteorder("="),
                )
        else:
            shape, dtype = _head(path)
    check_image_size(path, shape, dtype)
    return TileFile(path=path, shape=shape, dtype=dtype)


def _head(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    from PIL import Image  # noqa: PLC0415

    with Image.open(path) as file:
        cols, rows = file.size
        pixel = np.asarray(Image.new(_mode(file), (1, 1)))
    return (rows, cols, *pixel.shape[2:]), pixel.dtype


def _mode(file: Any) -> str:
    """Return what an image becomes: colours, if its pixels only number them."""
    if file.mode == "P":
        return "RGBA" if "transparency" in file.info else "RGB"
    return str(file.mode)


def check_image_size(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, stored: int = -1
) -> None:
    """Raise if a file is too small for the image that it says it holds."""
    size = prod(shape) * dtype.itemsize
    stored = path.stat().st_size if stored < 0 else stored
    if not size or size > FREE + DENSEST * stored:
        message = f"{path} must hold its {shape} pixels; got {stored} bytes."
        raise ValueError(message)


def _image(path: Path) -> NDArray[Any]:
    """Return the image of a file, without reading more than is needed if it can be."""
    if path.suffix.lower() not in TIFF:
        from PIL import Image  # noqa: PLC0415

        with Image.open(path) as file:
            return np.asarray(file.convert(_mode(file)))
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.dataoffset is None:
            return np.asarray(series.asarray())
        kind = np.dtype(series.dtype).newbyteorder(file.byteorder)
        offset, shape = series.dataoffset, series.shape
    return np.memmap(path, kind, "r", offset, shape)

"""Write tiled pyramids as OME-TIFF."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from .._sampling.downsample import halve
from .._shared.arguments import checked
from .._shared.checks import check_count
from ._files import as_target, beside
from ._image_source import (
    Box,
    Frame,
    Source,
    as_channel_names,
    as_frame,
    as_levels,
    as_sides,
    as_source,
    bands,
    cut,
    parts,
)

__all__ = ["write_ome_tiff"]

COMPRESSIONS = ("zlib", None)
# Offsets of four bytes end here; the rest is left for tables and metadata.
CLASSIC = 4_000_000_000
# Bytes of tiles that wait for being compressed.
WAITING = 1 << 24


@checked
def write_ome_tiff(
    path: str | os.PathLike[str],
    image: Any,
    *,
    shape: Sequence[int] | None = None,
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    rgb: bool = False,
    pixel_size: ArrayLike | None = None,
    unit: str = "µm",
    origin: ArrayLike | None = None,
    tile: Sequence[int] = (512, 512),
    levels: int | None = None,
    compression: str | None = "zlib",
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Write an image of any size as a tiled OME-TIFF with a pyramid.

    A few rows of tiles are in memory at a time, and the image is read once. Each
    level holds the means of 2 x 2 pixels of the one before, in the plane. The file
    takes its place when it is complete: if something fails, an older one stays.

    Parameters
    ----------
    path : path_like
        Where to write, by custom ending in ``.ome.tif``. A file that is there is
        replaced.
    image : array_like or iterator of (tuple of slice, ndarray)
        Image of shape (rows, cols) or (planes, rows, cols), or with one axis more
        for channels. Anything that is sliced like an array (NumPy, h5py, zarr,
        Dask), or blocks in any order as `composite_blocks` yields them. Blocks, and
        stores whose chunks span planes or channels, go through a temporary file
        beside `path` as large as the image.
    shape : sequence of int, optional
        Shape of the image, needed for blocks.
    channel_axis : int, optional
        Axis of the image that holds channels.
    channel_names : sequence of str, optional
        Name of each channel.
    rgb : bool, optional
        Channels are red, green and blue of one picture. By default each is a
        picture of its own.
    pixel_size : float or array_like of shape (ndim,), optional
        Distance of neighbouring pixels, the same along all axes or along each of
        (plane, row, col).
    unit : {"µm", "pm", "Å", "nm", "mm", "cm", "m"}, optional
        Unit of `pixel_size`.
    origin : array_like of shape (ndim,), optional
        Centre of the first pixel, in pixels of the image, such as
        ``Composite.origin`` (times its scale). It is written as the stage
        position of every plane.
    tile : sequence of int, optional
        Rows and columns of a tile, multiples of 16.
    levels : int, optional
        How many levels, with the image itself. By default the last one fits into
        a tile.
    compression : {"zlib", None}, optional
        Lossless, or none, which is faster.
    workers : int, optional
        Number of threads that compress.
    progress : bool, optional
        Show a progress bar.

    See Also
    --------
    write_ome_zarr : The same as a folder of chunks.

    Notes
    -----
    Offsets have eight bytes (BigTIFF) where four may not be enough. It needs
    ``tifffile``, which comes with scikit-image.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import tifffile
    >>> import spectral_tools as spt
    >>> image = np.arange(48 * 100, dtype=np.uint16).reshape(48, 100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mosaic.ome.tif"
    ...     spt.io.write_ome_tiff(path, image, pixel_size=0.65, tile=(32, 32))
    ...     with tifffile.TiffFile(path) as file:
    ...         [level.shape for level in file.series[0].levels]
    [(48, 100), (24, 50), (12, 25)]
    """
    target = as_target(path)
    source = as_source(image, channel_axis, shape)
    names = as_channel_names(channel_names, source.shape[0])
    layout = _Layout(
        sides=as_sides(tile, "tile"), compression=compression, rgb=rgb, workers=workers
    )
    _check_layout(layout, source, names)
    shapes = as_levels(levels, source, layout.sides)
    frame = as_frame(source.ndim, pixel_size, unit, origin)
    metadata = _metadata(frame, names, source.shape, rgb, located=origin is not None)
    with beside(target, "new.ome.tif") as made, ExitStack() as stores:
        source = _in_pages(source, layout, made, stores)
        with tqdm(
            total=sum(map(prod, shapes)),
            desc="write_ome_tiff",
            unit="px",
            unit_scale=True,
            disable=not progress,
        ) as bar:
            _write(made, source, shapes, layout, metadata, stores, bar)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layout:
    """How pixels are stored: tiles of so many rows and columns, compressed or not."""

    sides: tuple[int, int]
    compression: str | None
    rgb: bool
    workers: int


def _check_layout(layout: _Layout, source: Source, names: list[str]) -> None:
    check_count(layout.workers, "workers")
    if layout.compression not in COMPRESSIONS:
        message = (
            f"`compression` must be one of {COMPRESSIONS}; got {layout.compression!r}."
        )
        raise ValueError(message)
    count = source.shape[0]
    if layout.rgb and (count != 3 or source.dtype.kind != "u" or names):
        message = (
            "`rgb` must come with 3 channels of unsigned integers and without names; "
            f"got {count} of {source.dtype} with {len(names)} names."
        )
        raise ValueError(message)


def _metadata(
    frame: Frame, names: list[str], shape: tuple[int, ...], rgb: bool, located: bool
) -> dict[str, Any]:
    """Return what OME-XML says about an image, as tifffile wants it."""
    found: dict[str, Any] = {"axes": "ZYXS" if rgb else "CZYX"}
    if names:
        found["Channel"] = {"Name": names}
    axes = "ZYX"[-len(frame.origin) :]
    count = shape[1] if rgb else shape[0] * shape[1]
    plane: dict[str, Any] = {}
    for axis, size, start in zip(axes, frame.pixel_size, frame.origin, strict=True):
        if frame.unit:
            found[f"PhysicalSize{axis}"] = float(size)
            found[f"PhysicalSize{axis}Unit"] = frame.unit
        steps = np.arange(count) % shape[1] if axis == "Z" else np.zeros(count)
        plane[f"Position{axis}"] = (start + size * steps).tolist()
        plane[f"Position{axis}Unit"] = [frame.unit or "pixel"] * count
    if located:
        found["Plane"] = plane
    return found


def _in_pages(source: Source, layout: _Layout, made: Path, stores: ExitStack) -> Source:
    """Return a source that gives page after page without reading anything twice."""
    channels, planes = source.chunks[:2]
    if not source.comes_in_blocks and planes == 1 and (channels == 1 or layout.rgb):
        return source
    store = _Scratch(made, source.shape, source.dtype, stores)
    for where, part in parts(source, (1, 1, *layout.sides)):
        store[where] = part
    return as_source(store, 0, None)


class _Scratch:
    """An array in a plain file, where a full disk is an error of Python.

    It ends the interpreter where memory is mapped, and in HDF5.
    """

    def __init__(
        self,
        beside: Path,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        stores: ExitStack,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        path = beside.with_name(f"{shape[2]} x {shape[3]}")
        self._file = stores.enter_context(path.open("w+b"))

    def _runs(self, where: Box) -> Iterator[Box]:
        """Seek one after the other what lies together, and yield it inside a part."""
        sides = [one.stop - one.start for one in where]
        height = sides[2] if sides[3] == self.shape[3] else 1
        for inside in cut(sides, (1, 1, height, sides[3])):
            place = 0
            for one, run, length in zip(where, inside, self.shape, strict=True):
                place = place * length + one.start + run.start
            self._file.seek(place * self.dtype.itemsize)
            yield inside

    def __setitem__(self, where: Box, part: NDArray[Any]) -> None:
        for inside in self._runs(where):
            self._file.write(np.ascontiguousarray(part[inside]).data)

    def __getitem__(self, where: Box) -> NDArray[Any]:
        part = np.zeros([one.stop - one.start for one in where], self.dtype)
        for inside in self._runs(where):
            self._file.readinto(part[inside].data)
        return part


def _write(
    made: Path,
    source: Source,
    shapes: list[tuple[int, ...]],
    layout: _Layout,
    metadata: dict[str, Any],
    stores: ExitStack,
    bar: tqdm[Any],
) -> None:
    """Write level after level; each leaves the next one in a temporary file."""
    import tifffile  # noqa: PLC0415

    size = sum(map(prod, shapes)) * source.dtype.itemsize
    with tifffile.TiffWriter(made, ome=True, bigtiff=size > CLASSIC) as file:
        for level, shape in enumerate(shapes):
            smaller = None
            if level + 1 < len(shapes):
                smaller = _Scratch(made, shapes[level + 1], source.dtype, stores)
            main = {"subifds": len(shapes) - 1, "metadata": metadata}
            file.write(
                _tiles(source, layout, smaller, bar),
                shape=(*shape[1:], shape[0]) if layout.rgb else shape,
                dtype=source.dtype,
                photometric="rgb" if layout.rgb else "minisblack",
                tile=layout.sides,
                **_packing(layout, source.dtype),
                maxworkers=layout.workers,
                buffersize=WAITING,
                **({"subfiletype": 1, "metadata": None} if level else main),
            )
            if smaller is not None:
                source = as_source(smaller, 0, None)


def _packing(layout: _Layout, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return how to compress: differences of neighbours are smaller than values."""
    if layout.compression is None:
        return {}
    predictor = None if dtype.kind == "f" else 2
    # Higher levels take several times as long for a few percent.
    level = {"level": zlib.Z_BEST_SPEED}
    return {"compression": "zlib", "compressionargs": level, "predictor": predictor}


def _tiles(
    source: Source, layout: _Layout, smaller: Any, bar: tqdm[Any]
) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a level in the order of the file, and fill the next level."""
    height, width = layout.sides
    channels, planes, _, cols = source.shape
    together = channels if layout.rgb else 1
    for page in cut((channels, planes), (together, 1)):
        top = 0
        for band in bands(source, page, height):
            if smaller is not None:
                half = halve(band)
                rows, columns = slice(top, top + half.shape[2]), slice(0, half.shape[3])
                smaller[(*page, rows, columns)] = half
                top += half.shape[2]
            for left in range(0, cols, width):
                part = band[:, 0, :, left : left + width]
                yield np.moveaxis(part, 0, -1)
            bar.update(band.size)

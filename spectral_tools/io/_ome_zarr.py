"""Write pyramids as OME-Zarr."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from .._sampling.downsample import half_length, halve
from .._shared.arguments import checked
from ._files import as_target, beside
from ._image_source import (
    Frame,
    Part,
    Source,
    as_channel_names,
    as_frame,
    as_levels,
    as_sides,
    as_source,
    parts,
)

__all__ = ["write_ome_zarr"]

AXES = "czyx"
# Colours of channels until somebody chooses others.
COLORS = ("FF0000", "00FF00", "0000FF", "00FFFF", "FF00FF", "FFFF00")
# What says that a folder holds Zarr, of either format.
MARKS = (".zgroup", ".zarray", "zarr.json")


@checked
def write_ome_zarr(
    path: str | os.PathLike[str],
    image: Any,
    *,
    shape: Sequence[int] | None = None,
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    pixel_size: ArrayLike | None = None,
    unit: str = "µm",
    origin: ArrayLike | None = None,
    tile: Sequence[int] = (512, 512),
    levels: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write an image of any size as a multiscale OME-Zarr folder.

    A few million pixels are in memory at a time, and the image is read once. Each
    level holds the means of 2 x 2 pixels of the one before, in the plane. The
    folder takes its place when it is complete: if something fails, an older one
    stays.

    Parameters
    ----------
    path : path_like
        Folder to write, by custom ending in ``.ome.zarr``.
    image : array_like or iterator of (tuple of slice, ndarray)
        Image of shape (rows, cols) or (planes, rows, cols), or with one axis more
        for channels. Anything that is sliced like an array (NumPy, h5py, zarr,
        Dask), or blocks in any order as `composite_blocks` yields them, which are
        written fastest if they are whole tiles.
    shape : sequence of int, optional
        Shape of the image, needed for blocks.
    channel_axis : int, optional
        Axis of the image that holds channels; it becomes the first one.
    channel_names : sequence of str, optional
        Name of each channel, with `channel_axis`.
    pixel_size : float or array_like of shape (ndim,), optional
        Distance of neighbouring pixels, the same along all axes or along each of
        (plane, row, col).
    unit : {"µm", "pm", "Å", "nm", "mm", "cm", "m"}, optional
        Unit of `pixel_size`.
    origin : array_like of shape (ndim,), optional
        Centre of the first pixel, in pixels of the image, such as
        ``Composite.origin`` (times its scale).
    tile : sequence of int, optional
        Rows and columns of a chunk, multiples of 16. Chunks hold one plane of one
        channel.
    levels : int, optional
        How many levels, with the image itself. By default the last one fits into
        a tile.
    overwrite : bool, optional
        Replace a Zarr folder that is there.
    progress : bool, optional
        Show a progress bar.

    See Also
    --------
    write_ome_tiff : The same as one file.

    Notes
    -----
    The version is 0.4, on Zarr 2 [1]_: every reader of OME-Zarr opens it, while some
    do not know 0.5 yet. It needs ``ome-zarr``, which ``spectral_tools[ome]`` brings.

    References
    ----------
    .. [1] Moore et al. (2023). OME-Zarr: a cloud-optimized bioimaging file format
       with international community support. :doi:`10.1007/s00418-023-02209-1`

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import zarr
    >>> import spectral_tools as spt
    >>> image = np.arange(48 * 100, dtype=np.uint16).reshape(48, 100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mosaic.ome.zarr"
    ...     spt.io.write_ome_zarr(path, image, pixel_size=0.65, tile=(32, 32))
    ...     group = zarr.open_group(path, mode="r")
    ...     for dataset in group.attrs["multiscales"][0]["datasets"]:
    ...         scale = dataset["coordinateTransformations"][0]["scale"]
    ...         print(group[dataset["path"]].shape, scale)
    (48, 100) [0.65, 0.65]
    (24, 50) [1.3, 1.3]
    (12, 25) [2.6, 2.6]
    """
    target = as_target(path, folder=True)
    _check_room(target, overwrite)
    source = as_source(image, channel_axis, shape)
    sides = as_sides(tile, "tile")
    shapes = as_levels(levels, source, sides)
    if channel_names is not None and channel_axis is None:
        message = "`channel_names` must come with `channel_axis`; got them alone."
        raise ValueError(message)
    names = as_channel_names(channel_names, source.shape[0])
    frame = as_frame(source.ndim, pixel_size, unit, origin)
    title = Path(path).name
    with beside(target, "new.ome.zarr") as made, _folder(made) as folder:
        with tqdm(
            total=sum(map(prod, shapes)),
            desc="write_ome_zarr",
            unit="px",
            unit_scale=True,
            disable=not progress,
        ) as bar:
            group = _write(folder, source, shapes, sides, bar)
        _describe(group, source.kept, frame, names, title)


def _check_room(target: Path, overwrite: bool) -> None:
    """Raise unless there is nothing, or a Zarr folder that may be replaced."""
    if not target.exists():
        return
    if not overwrite:
        message = f"`path` must be new unless `overwrite` is set; got {target}."
        raise ValueError(message)
    if not any((target / mark).is_file() for mark in MARKS):
        message = f"`path` must be new or a Zarr folder; got {target}."
        raise ValueError(message)


@contextmanager
def _folder(made: Path) -> Iterator[Any]:
    """Yield a store in a folder to which nothing is written after it was left.

    Zarr writes in threads of its own, which an error or an interrupt does not end:
    they would make the folder anew that has just been removed.
    """
    from zarr.storage import LocalStore  # noqa: PLC0415

    class Folder(LocalStore):  # type: ignore[misc]
        left = False
        writing = 0

        async def set(self, key: str, value: Any) -> None:
            await self._unless_left(super().set(key, value))

        async def set_if_not_exists(self, key: str, value: Any) -> None:
            await self._unless_left(super().set_if_not_exists(key, value))

        async def _unless_left(self, write: Any) -> None:
            self.writing += 1
            try:
                if self.left:
                    write.close()
                else:
                    await write
            finally:
                self.writing -= 1

    store = Folder(made)
    try:
        yield store
    finally:
        store.left = True
        while store.writing:
            time.sleep(0.001)


def _write(
    store: Any,
    source: Source,
    shapes: list[tuple[int, ...]],
    sides: tuple[int, int],
    bar: tqdm[Any],
) -> Any:
    """Write level after level, each from the one before, and return their group."""
    import numcodecs  # noqa: PLC0415
    import zarr  # noqa: PLC0415

    group = zarr.open_group(store, mode="w", zarr_format=2)
    kept = source.kept
    for level, shape in enumerate(shapes):
        chunks = (1, 1, *map(min, sides, shape[2:]))
        array = group.create_array(
            str(level),
            shape=[shape[k] for k in kept],
            chunks=[chunks[k] for k in kept],
            dtype=source.dtype,
            compressors=numcodecs.Blosc(cname="zstd", clevel=1),
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        if level == 0:
            found = parts(source, chunks)
        else:
            found = _halves(group[str(level - 1)], kept, sides)
        for where, part in found:
            inside = tuple(where[k] for k in kept)
            array[inside] = part.reshape([one.stop - one.start for one in inside])
            bar.update(part.size)
    return group


def _halves(
    array: Any, kept: tuple[int, ...], sides: tuple[int, int]
) -> Iterator[Part]:
    """Yield the next level of an array, in parts of whole chunks."""
    source = as_source(array, 0 if 0 in kept else None, None)
    for where, part in parts(source, (1, 1, 2 * sides[0], 2 * sides[1])):
        inside = (slice(one.start // 2, half_length(one.stop)) for one in where[2:])
        yield (*where[:2], *inside), halve(part)


def _describe(
    group: Any,
    kept: tuple[int, ...],
    frame: Frame,
    names: list[str],
    title: str,
) -> None:
    """Write the metadata: axes, scales and translations of the levels, channels."""
    # On import it calls a class of its own that it has deprecated.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        from ome_zarr.format import FormatV04  # noqa: PLC0415
        from ome_zarr.writer import write_multiscales_metadata  # noqa: PLC0415

    axes: list[dict[str, str]] = [
        {"name": AXES[k], "type": "space" if k else "channel"} for k in kept
    ]
    if frame.long_unit:
        for axis in axes[-len(frame.origin) :]:
            axis["unit"] = frame.long_unit
    datasets = []
    for level in range(len(group)):
        # Planes are not thinned out.
        factor = np.array([1, 2**level, 2**level])[-len(frame.origin) :]
        scale = frame.pixel_size * factor
        start = frame.origin + frame.pixel_size * (factor - 1) / 2
        # Channels have no size.
        scales = [1.0] * (0 in kept) + scale.tolist()
        starts = [0.0] * (0 in kept) + start.tolist()
        transformations = [
            {"type": "scale", "scale": scales},
            {"type": "translation", "translation": starts},
        ]
        datasets.append(
            {"path": str(level), "coordinateTransformations": transformations}
        )
    metadata: dict[str, Any] = {"description": "means of 2 x 2 pixels"}
    if 0 in kept:
        metadata["omero"] = {"channels": _channels(group[datasets[-1]["path"]], names)}
    write_multiscales_metadata(
        group, datasets, fmt=FormatV04(), axes=axes, name=title, metadata=metadata
    )


def _channels(array: Any, names: list[str]) -> list[dict[str, Any]]:
    """Return how to show the channels: names, colours, and the range of values."""
    source = as_source(array, 0, None)
    count = source.shape[0]
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    for (channels, *_), part in parts(source, source.chunks):
        values = part.astype(np.float64).reshape(len(part), -1)
        finite = np.isfinite(values)
        least = values.min(axis=1, where=finite, initial=np.inf)
        most = values.max(axis=1, where=finite, initial=-np.inf)
        low[channels] = np.minimum(low[channels], least)
        high[channels] = np.maximum(high[channels], most)
    low, high = (np.where(np.isfinite(ends), ends, 0) for ends in (low, high))
    return [
        {
            "label": names[k] if names else str(k),
            "color": COLORS[k % len(COLORS)],
            "active": True,
            "window": {
                name: float(ends[k])
                for name, ends in (
                    ("min", low),
                    ("max", high),
                    ("start", low),
                    ("end", high),
                )
            },
        }
        for k in range(count)
    ]

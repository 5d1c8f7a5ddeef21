"""What a microscope says of its images: how large, which channels, and where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.results import result
from ._image_source import ALIASES
from ._itk.text_words import leads_outside
from ._stored_images import FREE, StoredImage, image_told

__all__ = [
    "Acquisition",
    "Record",
    "gather",
    "kept_axes",
    "parse_ome_xml",
    "read_bioio",
    "stored_image",
]

# Exponents of what lengths are in metres.
POWERS = {"pm": -12, "Å": -10, "nm": -9, "µm": -6, "mm": -3, "cm": -2, "m": 0}
# What OME calls a place whose unit nobody has told; it is so by default.
NOWHERE = "reference frame"
# Axes of images, in their order: time, channels, planes, rows, columns, colours.
AXES = "tczyxs"
# Axis of the tiles of a mosaic, which are images of their own.
MOSAIC = "m"

Lengths = dict[str, tuple[float, str]]


@result
class Acquisition:
    """Images that a microscope has written, and where they were taken.

    Attributes
    ----------
    images : list of StoredImage
        Images with a shape and a dtype, which are read when they are sliced.
    names : list of str
        Name of each image, empty if it has none.
    axes : str
        What the axes of every image are, a letter each, of t (time), c (channel), z, y,
        x and s (red, green, blue). Axes of length 1 are left out, except y and x.
    channel_axis : int or None
        Axis of channels or colours, as other functions want it.
    channel_names : list of str
        Name of each channel, empty if it has none; no names at all if none has one.
    pixel_size : ndarray of shape (ndim,) or None
        Distance of neighbouring pixels along (row, col) or (plane, row, col). None if
        the file does not tell.
    unit : str
        Unit of `pixel_size`; empty if there is none.
    positions : ndarray of shape (n, ndim) or None
        Where the stage puts the first pixel of each image, in pixels, as (row, col) or
        (plane, row, col). None if the file does not tell.
    stage_unit : str
        Unit of positions in the file, such as "µm", or "reference frame" if that is all
        it says.
    """

    images: list[StoredImage]
    names: list[str]
    axes: str
    channel_axis: int | None
    channel_names: list[str]
    pixel_size: NDArray[np.float64] | None
    unit: str
    positions: NDArray[np.float64] | None
    stage_unit: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What is said of one image.

    Attributes
    ----------
    name : str
        Its name.
    sizes : dict
        Length of each axis.
    pixel_size, position : dict
        Length and unit for each axis that has one.
    channel_names : list of str
        Name of each channel.
    """

    name: str
    sizes: dict[str, int]
    pixel_size: Lengths
    position: Lengths
    channel_names: list[str]


def gather(
    images: Sequence[StoredImage],
    axes: Sequence[str],
    records: Sequence[Record],
    series: Sequence[int] | None,
    stage_unit: str | None,
    path: Path,
) -> Acquisition:
    """Return images that are of one kind, or say which are not."""
    numbers = range(len(images)) if series is None else list(series)
    wrong = [n for n in numbers if not 0 <= n < len(images)]
    if wrong or not numbers:
        message = (
            f"`series` must name some of the {len(images)} images of {path}; "
            f"got {list(numbers)}."
        )
        raise ValueError(message)
    first = numbers[0]
    letters = axes[first]
    along = [axis for axis in "zyx" if axis in letters]
    sizes = {n: _pixel_size(records[n], along, path) for n in numbers}
    for n in numbers[1:]:
        same = (
            axes[n] == letters
            and sizes[n] == sizes[first]
            and records[n].channel_names == records[first].channel_names
        )
        if not same:
            message = (
                "`series` must name images with the same axes, channels and size of "
                f"pixels; got images {first} and {n} of {path}, which differ."
            )
            raise ValueError(message)
    channels = [axis for axis in letters if axis in "cs"]
    if len(channels) > 1:
        message = f"{path} must have one axis of channels or colours; got {letters!r}."
        raise ValueError(message)
    size, unit = sizes[first] or (None, "")
    said = [records[n].position for n in numbers]
    units = {unit for each in said for _, unit in each.values()}
    known = [_position(each, along, size, unit, stage_unit, path) for each in said]
    found = [each for each in known if each is not None]
    names = records[first].channel_names
    return Acquisition(
        images=[images[n] for n in numbers],
        names=[records[n].name for n in numbers],
        axes=letters,
        channel_axis=letters.index(channels[0]) if channels else None,
        channel_names=names if any(names) else [],
        pixel_size=None if size is None else np.array(size),
        unit=unit,
        positions=np.array(found) if len(found) == len(known) else None,
        stage_unit=", ".join(sorted(units)),
    )


def _pixel_size(
    record: Record, along: Sequence[str], path: Path
) -> tuple[tuple[float, ...], str] | None:
    """Return the size of pixels along axes, and its unit; None if it is not known."""
    told = [record.pixel_size.get(axis) for axis in along]
    known = [each for each in told if each is not None]
    if len(known) < len(told):
        return None
    unit = known[-1][1]
    return tuple(_converted(length, other, unit, path) for length, other in known), unit


def _converted(length: float, unit: str, wanted: str, path: Path) -> float:
    """Return a length in another unit."""
    if unit == wanted:
        return length
    for each in (unit, wanted):
        if each not in POWERS:
            message = f"{path} must have lengths in {', '.join(POWERS)}; got {each!r}."
            raise ValueError(message)
    power = POWERS[unit] - POWERS[wanted]
    return length * 10.0**power if power > 0 else length / 10.0**-power


def _position(
    said: Lengths,
    along: Sequence[str],
    size: tuple[float, ...] | None,
    unit: str,
    stage_unit: str | None,
    path: Path,
) -> list[float] | None:
    """Return a position in pixels; None if the file does not say enough."""
    found = []
    for number, axis in enumerate(along):
        if axis not in said:
            return None
        length, told = said[axis]
        if told == NOWHERE:
            told = stage_unit or NOWHERE
        if told != "pixel":
            if size is None or told == NOWHERE:
                return None
            length = _converted(length, told, unit, path) / size[number]
        found.append(length)
    return found


def parse_ome_xml(text: str, path: Path) -> list[Record]:
    """Return what OME-XML says of each image that has pixels."""

    def refuse(wanted: str, got: Any) -> NoReturn:
        message = f"{path} must {wanted}; got {got!s:.100}."
        raise ValueError(message)

    # Entities could make a short text long.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        refuse("hold OME-XML without a document type", "one")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        refuse("hold OME-XML that is whole", error)
    if not root.tag.endswith("OME"):
        refuse("hold OME-XML", repr(root.tag))
    for other in root.iterfind("{*}BinaryOnly"):
        name = other.get("MetadataFile", "another file")
        refuse("hold its OME-XML itself", f"one that is in {name}")
    found = []
    for image in root.iterfind("{*}Image"):
        for pixels in image.iterfind("{*}Pixels"):
            _check_planes(pixels, refuse)
            found.append(_record(image.get("Name", ""), pixels, refuse))
    if not found:
        refuse("hold OME-XML of at least one image", "none")
    return found


def _check_planes(pixels: Any, refuse: Any) -> None:
    """Raise if planes are more than there can be, or in files outside of the folder."""
    counts = [_count(pixels, f"Size{axis}", None, refuse) for axis in "TCZ"]
    planes = prod(counts)
    # A list of so many takes no more memory than may be taken for nothing.
    if not 0 < planes <= FREE:
        refuse("hold a number of planes that can be", f"{planes}")
    for data in pixels.iterfind("{*}TiffData"):
        for name in ("IFD", "FirstT", "FirstC", "FirstZ", "PlaneCount", "NumPlanes"):
            most = FREE if name == "IFD" else planes
            if _count(data, name, 0, refuse) > most:
                refuse(f"have a {name} of its {planes} planes", data.get(name))
        for other in data.iterfind("{*}UUID"):
            if leads_outside(other.get("FileName", "")):
                refuse("name files in its folder", repr(other.get("FileName")))


def _count(element: Any, name: str, default: int | None, refuse: Any) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        refuse(f"have a whole number below 1e9 as {name}", repr(text))
    return int(text)


def _record(name: str, pixels: Any, refuse: Any) -> Record:
    sizes = {
        axis: _count(pixels, f"Size{axis.upper()}", None, refuse) for axis in "tczyx"
    }
    planes = sorted(
        pixels.iterfind("{*}Plane"),
        key=lambda plane: [_count(plane, f"The{axis}", 0, refuse) for axis in "TZC"],
    )
    size = _lengths(pixels, "PhysicalSize", "µm", refuse)
    return Record(
        name=name,
        sizes=sizes,
        # Old programs write 0 where they do not know.
        pixel_size={axis: each for axis, each in size.items() if each[0] > 0},
        position=_lengths(planes[0], "Position", NOWHERE, refuse) if planes else {},
        channel_names=[each.get("Name", "") for each in pixels.iterfind("{*}Channel")],
    )


def _lengths(element: Any, name: str, unit: str, refuse: Any) -> Lengths:
    """Return the lengths along z, y and x that an element gives."""
    found = {}
    for axis in "zyx":
        text = element.get(f"{name}{axis.upper()}")
        if text is None:
            continue
        try:
            length = float(text)
        except ValueError:
            length = np.nan
        if not isfinite(length):
            refuse(f"have a finite number as {name}{axis.upper()}", repr(text))
        given = element.get(f"{name}{axis.upper()}Unit", unit)
        found[axis] = length, ALIASES.get(given, given)
    return found


@checked
def read_bioio(
    path: str | os.PathLike[str],
    *,
    series: Sequence[int] | None = None,
    stage_unit: str | None = None,
) -> Acquisition:
    """Read what a microscope has written in a format of its maker, through bioio.

    Parameters
    ----------
    path : path_like
        A file that bioio has a reader for, such as CZI, ND2 or LIF.
    series : sequence of int, optional
        Which images to take, by number: scenes, of which a mosaic is as many images as
        it has tiles. By default all.
    stage_unit : str, optional
        As for `read_ome_tiff`.

    Returns
    -------
    Acquisition
        Images that are read when they are sliced, channels, size of pixels and positions.

    See Also
    --------
    read_ome_tiff : Signs of positions, and what to do if a stage counts the other way.

    Notes
    -----
    It needs ``bioio``, which ``spectral_tools[bioio]`` brings, and its reader for the
    format, such as ``bioio-czi``. Positions are those of the OME metadata that the reader
    makes; those of the tiles of a mosaic are where the file puts them in its scene, in
    pixels.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> try:
    ...     found = spt.io.read_bioio("plate.czi")
    ... except (ValueError, OSError) as error:
    ...     print("not read")
    not read
    """
    try:
        from bioio import BioImage  # noqa: PLC0415
    except ImportError as error:
        message = (
            "`path` must be read by bioio; got none: install spectral-tools[bioio]."
        )
        raise ValueError(message) from error
    place = Path(path)
    place.stat()
    images: list[StoredImage] = []
    letters: list[str] = []
    records: list[Record] = []
    with image_told(place):
        file = BioImage(place, reconstruct_mosaic=False)
        scenes = list(file.scenes)
        told = _ome_of(file)
        for number, scene in enumerate(scenes):
            file.set_scene(number)
            axes = str(file.dims.order).lower()
            data = file.dask_data
            sizes = dict(zip(axes, map(int, data.shape), strict=True))
            count = sizes.get(MOSAIC, 1)
            if MOSAIC in sizes:
                sizes[MOSAIC] = 1
            record = _scene_record(file, scene, sizes, told[number] if told else None)
            images += [
                stored_image(place, "bioio", f"{number}/{tile}", sizes, data.dtype)
                for tile in range(count)
            ]
            letters += [kept_axes(sizes, place)] * count
            records += _tile_records(file, record, count) if count > 1 else [record]
    return gather(images, letters, records, series, stage_unit, place)


def _ome_of(file: Any) -> list[Record]:
    """Return what bioio says in terms of OME, if its reader does."""
    try:
        text = file.ome_metadata.to_xml()
    except RuntimeError:
        # Some readers have not got so far.
        return []
    found = parse_ome_xml(text, Path("OME metadata"))
    return found if len(found) == len(file.scenes) else []


def _scene_record(
    file: Any, scene: str, sizes: dict[str, int], told: Record | None
) -> Record:
    """Return what bioio says of a scene: sizes are in micrometres."""
    pixels = zip("zyx", file.physical_pixel_sizes, strict=True)
    known = {axis: (float(each), "µm") for axis, each in pixels if each}
    return Record(
        name=str(scene),
        sizes=sizes,
        pixel_size=told.pixel_size if told else known,
        position=told.position if told else {},
        channel_names=[str(each) for each in file.channel_names or []],
    )


def _tile_records(file: Any, record: Record, count: int) -> list[Record]:
    """Return what bioio says of the tiles of a mosaic: corners are in its pixels."""
    try:
        corners = file.get_mosaic_tile_positions()
    except RuntimeError:
        # As of metadata: some readers have not got so far.
        return [record] * count
    return [
        replace(
            record,
            name=f"{record.name} {number}",
            position={"z": (0.0, "pixel")}
            | {
                axis: (float(at), "pixel")
                for axis, at in zip("yx", corner, strict=True)
            },
        )
        for number, corner in enumerate(corners)
    ]


def kept_axes(sizes: dict[str, int], path: Path) -> str:
    """Return the axes of an image without those of length 1, or say which are unknown."""
    unknown = [axis for axis, size in sizes.items() if axis not in AXES and size > 1]
    if unknown or not {"y", "x"} <= set(sizes):
        message = (
            f"{path} must have axes among {', '.join(AXES)}; got {''.join(sizes)!r}."
        )
        raise ValueError(message)
    return "".join(axis for axis in AXES if sizes.get(axis, 1) > 1 or axis in "yx")


def stored_image(
    path: Path, kind: str, part: str, sizes: dict[str, int], dtype: Any, **tiff: Any
) -> StoredImage:
    """Return an image whose axes of length 1 are left out, in the usual order."""
    kept = kept_axes(sizes, path)
    listed = list(sizes)
    if 0 in sizes.values() or np.dtype(dtype).kind not in "biufc":
        message = f"{path} must hold pixels that are numbers; got {dtype} of {sizes}."
        raise ValueError(message)
    return StoredImage(
        path=path,
        kind=kind,
        shape=tuple(sizes[axis] for axis in kept),
        dtype=np.dtype(dtype).newbyteorder("="),
        part=part,
        order=tuple(listed.index(axis) for axis in kept),
        files=tiff.get("files", []),
        planes=tiff.get("planes", np.zeros((0, 2), np.int64)),
    )

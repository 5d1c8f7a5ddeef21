"""Read OME-TIFF and OME-Zarr: images, their pixels, and where the stage was."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from ._acquisitions import (
    Acquisition,
    Record,
    gather,
    kept_axes,
    parse_ome_xml,
    stored_image,
)
from ._image_source import UNITS
from ._itk.text_words import leads_outside
from ._stored_images import StoredImage, check_image_size, image_told

__all__ = ["read_ome_tiff", "read_ome_zarr"]

SHORT = {long: short for short, long in UNITS.items()}
# Kinds that tifffile would rather take a file for: the OME-XML is what is read here.
OTHERS = ("shaped", "lsm", "mmstack")


@checked
def read_ome_tiff(
    path: str | os.PathLike[str],
    *,
    series: Sequence[int] | None = None,
    stage_unit: str | None = None,
) -> Acquisition:
    """Read the images of an OME-TIFF, and where the stage was when they were taken.

    Only heads are read, and of each image later what is sliced: images go to
    `match_tiles`, `place_tiles` and `warp_composite` as they are.

    Parameters
    ----------
    path : path_like
        File with OME-XML, as Bio-Formats, Micro-Manager and most microscopes write it.
        Other files of the set lie beside it.
    series : sequence of int, optional
        Which images to take, by number. By default all, which then need the same axes,
        channels and size of pixels.
    stage_unit : str, optional
        Unit of positions that the file gives without one, in a "reference frame": "µm" of
        older programs, or "pixel". By default they are left out.

    Returns
    -------
    Acquisition
        Images that are read when they are sliced, channels, size of pixels and positions.

    Raises
    ------
    ValueError
        If the file has no OME-XML, or is broken. `tile_folder` reads plain TIFF.

    See Also
    --------
    write_ome_tiff : The way back.
    read_ome_zarr : The same of a folder of chunks.

    Notes
    -----
    A position is that of the first plane of an image, divided by the size of its pixels:
    row is +Y, col is +X, plane is +Z. Nobody prescribes which way a stage counts, or
    that its axes are those of the camera. If neighbours are on the wrong side, turn them
    round: ``positions * (-1, 1)`` for rows, ``positions * (1, -1)`` for columns, and
    ``positions[:, ::-1]`` where rows are X. Whether a stage names the first pixel or the
    centre of an image makes no difference to images of equal size.

    Nothing is made up: without the size of pixels (0 stands for not known), or without a
    position or a unit of any axis of any image, `positions` is None. It needs
    ``tifffile``, which comes with scikit-image.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> image = np.arange(48 * 100, dtype=np.uint16).reshape(48, 100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tile.ome.tif"
    ...     spt.io.write_ome_tiff(path, image, pixel_size=0.65, origin=(10, -300))
    ...     found = spt.io.read_ome_tiff(path)
    ...     print(found.images[0][:2, 3:6].tolist())
    [[3, 4, 5], [103, 104, 105]]
    >>> found.positions, found.pixel_size, found.unit
    (array([[  10., -300.]]), array([0.65, 0.65]), 'µm')
    """
    import tifffile  # noqa: PLC0415

    place = Path(path)
    flags = {f"is_{kind}": False for kind in OTHERS}
    with place.open("rb"), image_told(place), tifffile.TiffFile(place, **flags) as file:
        text = file.pages.first.description
        other = "an ImageJ TIFF" if file.is_imagej else "another TIFF"
    if "OME" not in text[-10:]:
        message = f"{place} must hold OME-XML; got {other}, for which is `tile_folder`."
        raise ValueError(message)
    records = parse_ome_xml(text, place)
    images, axes = [], []
    with image_told(place), tifffile.TiffFile(place, **flags) as file:
        # Planes of other files are opened again when they are read.
        found = [(each, list(each)) for each in file.series if each.kind == "ome"]
        for each, pages in found:
            image = _series_image(place, each, pages)
            images.append(image[0])
            axes.append(image[1])
    if len(images) != len(records):
        message = (
            f"{place} must hold the planes of all of its {len(records)} images; "
            f"got those of {len(images)}."
        )
        raise ValueError(message)
    return gather(images, axes, records, series, stage_unit, place)


def _series_image(
    place: Path, series: Any, pages: list[Any]
) -> tuple[StoredImage, str]:
    """Return an image of a file, and its axes, from where its pages are."""
    letters = series.get_axes(squeeze=False).lower()
    lengths = dict(zip(letters, map(int, series.get_shape(squeeze=False)), strict=True))
    # Samples of a pixel come last, as they do where a page is read.
    lead = [axis for axis in letters if axis not in "yxs"]
    sizes = {axis: lengths[axis] for axis in [*lead, "y", "x", "s"]}
    kept = kept_axes(sizes, place)
    files: list[Path] = []
    places = np.full((len(pages), 2), -1, np.int64)
    for number, page in enumerate(pages):
        if page is not None:
            file = Path(page.parent.filehandle.path)
            if file not in files:
                files.append(file)
            places[number] = files.index(file), page.offset
    image = stored_image(
        place, "OME-TIFF", "", sizes, series.dtype, files=files,
        planes=_kept_planes(places, lead, sizes, kept),
    )  # fmt: skip
    stored = sum(file.stat().st_size for file in files)
    check_image_size(place, image.shape, image.dtype, stored=stored)
    return image, kept


def _kept_planes(
    places: NDArray[np.int64], lead: list[str], sizes: dict[str, int], kept: str
) -> NDArray[np.int64]:
    """Return the places of planes by the axes that an image has before its rows."""
    grid = places.reshape([sizes[axis] for axis in lead] + [2])
    before = [axis for axis in kept if axis not in "yxs"]
    others = [n for n, axis in enumerate(lead) if axis not in before]
    order = [*others, *map(lead.index, before), len(lead)]
    return grid.transpose(order)[(0,) * len(others)].copy()


@checked
def read_ome_zarr(
    path: str | os.PathLike[str],
    *,
    series: Sequence[int] | None = None,
    stage_unit: str | None = None,
) -> Acquisition:
    """Read the images of an OME-Zarr folder, and where they lie.

    Only heads are read, and of each image later the chunks that are sliced. It is the
    largest level of each pyramid.

    Parameters
    ----------
    path : path_like
        Folder of version 0.4 or 0.5: an image, a plate with its wells, or several images
        as bioformats2raw writes them.
    series : sequence of int, optional
        Which images to take, by number. By default all, which then need the same axes,
        channels and size of pixels.
    stage_unit : str, optional
        Unit of positions that the OME-XML of bioformats2raw gives without one; as for
        `read_ome_tiff`.

    Returns
    -------
    Acquisition
        Images that are read when they are sliced, channels, size of pixels and positions.

    Raises
    ------
    ValueError
        If the folder is no OME-Zarr, or is broken.

    See Also
    --------
    write_ome_zarr : The way back.
    read_ome_tiff : The same of a file; signs of positions, and when there are none.

    Notes
    -----
    A position is the translation of an image divided by its scale, those of its level and
    of its pyramid together; without any translation, that of the stage in the OME-XML
    of bioformats2raw, if it is there. It needs ``zarr``, which ``spectral_tools[ome]``
    brings.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> image = np.arange(48 * 100, dtype=np.uint16).reshape(48, 100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tile.ome.zarr"
    ...     spt.io.write_ome_zarr(path, image, pixel_size=0.65, origin=(10, -300))
    ...     found = spt.io.read_ome_zarr(path)
    ...     print(found.images[0][:2, 3:6].tolist())
    [[3, 4, 5], [103, 104, 105]]
    >>> found.positions.round(9), found.pixel_size, found.unit
    (array([[  10., -300.]]), array([0.65, 0.65]), 'µm')
    """
    place = Path(path)
    # An error of the system, if there is none.
    next(place.iterdir(), None)
    found = [
        _zarr_image(place, part, number, said)
        for part, number, said in _multiscales(place)
    ]
    images = [image for image, _, _ in found]
    records = [record for _, _, record in found]
    told = place / "OME" / "METADATA.ome.xml"
    if told.is_file() and not any(record.position for record in records):
        with image_told(told):
            text = told.read_text("utf-8")
        stage = parse_ome_xml(text, told)
        if len(stage) == len(records):
            records = [
                replace(record, position=each.position)
                for record, each in zip(records, stage, strict=True)
            ]
    axes = [kept for _, kept, _ in found]
    return gather(images, axes, records, series, stage_unit, place)


def _attributes(place: Path, part: str) -> dict[str, Any]:
    """Return what a group says of itself in terms of OME: empty if it is none."""
    if part and leads_outside(part):
        message = f"{place} must name what is in it; got {part!r:.60}."
        raise ValueError(message)
    folder = place / part
    with image_told(folder):
        if (folder / "zarr.json").is_file():
            said = json.loads((folder / "zarr.json").read_text("utf-8"))
            return dict(said.get("attributes", {}).get("ome", {}))
        if (folder / ".zattrs").is_file():
            return dict(json.loads((folder / ".zattrs").read_text("utf-8")))
    return {}


def _multiscales(place: Path) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return each pyramid of a folder: where it is, what it is, and all that is said."""
    root = _attributes(place, "")
    with image_told(place):
        parts = _parts(place, root)
        found = []
        for part in parts:
            said = _attributes(place, part)
            found += [(part, dict(each), said) for each in said.get("multiscales", [])]
    if not found:
        message = (
            f"{place} must be an OME-Zarr of version 0.4 or 0.5; got no multiscales."
        )
        raise ValueError(message)
    return found


def _parts(place: Path, root: dict[str, Any]) -> list[str]:
    """Return where the images of a folder are."""
    if "plate" in root:
        wells = [str(well["path"]) for well in root["plate"]["wells"]]
        return [
            f"{well}/{image['path']}"
            for well in wells
            for image in _attributes(place, well).get("well", {}).get("images", [])
        ]
    if "bioformats2raw.layout" in root and "multiscales" not in root:
        listed = _attributes(place, "OME").get("series")
        if listed is not None:
            return [str(part) for part in listed]
        numbers = iter(count())
        found: list[str] = []
        while (place / str(next(numbers))).is_dir():
            found.append(str(len(found)))
        return found
    return [""]


def _zarr_image(
    place: Path, part: str, said: dict[str, Any], group: dict[str, Any]
) -> tuple[StoredImage, str, Record]:
    """Return the largest level of a pyramid, its axes, and what is said of it."""
    import zarr  # noqa: PLC0415

    where = place / part
    with image_told(where):
        level = said["datasets"][0]
        inside = f"{part}/{level['path']}".lstrip("/")
        if leads_outside(inside):
            message = f"Levels must be in their folder; got {inside!r:.60}."
            raise ValueError(message)
        array = zarr.open_array(place / inside, mode="r")
        # Version 0.4 has axes of a name, a type and perhaps a unit.
        axes = [str(axis["name"]).lower() for axis in said["axes"]]
        units = [
            SHORT.get(u, u) for u in (axis.get("unit", "") for axis in said["axes"])
        ]
        scale, start = _composed([level, said], len(axes))
        sizes = dict(zip(axes, map(int, array.shape), strict=True))
        image = stored_image(place, "OME-Zarr", inside, sizes, array.dtype)
        kept = kept_axes(sizes, place)
        lengths = {
            a: (s, u) for a, s, u in zip(axes, scale, units, strict=True) if a in "zyx"
        }
        record = Record(
            name=str(said.get("name", part)),
            sizes=sizes,
            pixel_size=lengths,
            position={
                axis: (length, unit)
                for axis, length, unit in zip(axes, start or [], units, strict=False)
                if axis in lengths
            },
            channel_names=[
                str(each.get("label", ""))
                for each in group.get("omero", {}).get("channels", [])
            ],
        )
    return image, kept, record


def _composed(
    steps: list[dict[str, Any]], ndim: int
) -> tuple[list[float], list[float] | None]:
    """Return the scale and the translation of transformations, one after the other."""
    scale, start, moved = np.ones(ndim), np.zeros(ndim), False
    for step in steps:
        for each in step.get("coordinateTransformations", []):
            kind = each["type"]
            if kind == "identity":
                continue
            values = np.array([float(value) for value in each[kind]])
            if kind not in ("scale", "translation") or values.shape != (ndim,):
                message = (
                    f"Transformations must be scales and translations; got {kind!r}."
                )
                raise ValueError(message)
            if not np.isfinite(values).all() or (
                kind == "scale" and (values <= 0).any()
            ):
                message = (
                    f"Transformations must be finite, scales above 0; got {values}."
                )
                raise ValueError(message)
            if kind == "scale":
                scale, start = scale * values, start * values
            else:
                start, moved = start + values, True
    return scale.tolist(), start.tolist() if moved else None

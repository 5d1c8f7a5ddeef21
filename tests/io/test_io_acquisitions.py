"""What microscopes write is read: pixels, their size, channels and positions."""

import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
pytest.importorskip("ome_zarr.io")

READERS = {
    "tiff": (spt.io.write_ome_tiff, spt.io.read_ome_tiff, "a.ome.tif"),
    "zarr": (spt.io.write_ome_zarr, spt.io.read_ome_zarr, "a.ome.zarr"),
}


def pixels(shape, dtype=np.uint16, offset=0):
    """Return an image in which no two neighbours are equal."""
    return (np.arange(np.prod(shape)).reshape(shape) % 60_013 + offset).astype(dtype)


# What this package writes


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
@pytest.mark.parametrize(
    ("shape", "channel_axis", "axes"),
    [
        ((70, 90), None, "yx"),
        ((3, 70, 90), None, "zyx"),
        ((2, 70, 90), 0, "cyx"),
        ((2, 5, 70, 90), 0, "czyx"),
    ],
)
def test_what_is_written_comes_back(kind, dtype, shape, channel_axis, axes, tmp_path):
    write, read, name = READERS[kind]
    image, ndim = pixels(shape, dtype), len(shape) - (channel_axis is not None)
    names = None if channel_axis is None else ["DAPI", "GFP"]
    size, origin = (1.5, 0.65, 0.25)[-ndim:], (7.0, -300.5, 12.25)[-ndim:]
    write(
        tmp_path / name, image, channel_axis=channel_axis, channel_names=names,
        pixel_size=size, unit="nm", origin=origin, tile=(32, 48),
    )  # fmt: skip
    found = read(tmp_path / name)
    [one] = found.images
    assert (found.axes, found.channel_axis, found.unit) == (axes, channel_axis, "nm")
    assert (found.channel_names, found.stage_unit) == (names or [], "nm")
    assert (one.shape, one.dtype) == (shape, np.dtype(dtype))
    assert_array_equal(np.asarray(one), image)
    assert found.pixel_size.tolist() == list(size)
    # Files hold lengths: a rounding to them, and one back.
    assert_allclose(found.positions, [origin], rtol=1e-14, atol=0)


def test_positions_in_pixels_come_back_from_tiff(tmp_path):
    spt.io.write_ome_tiff(tmp_path / "a.ome.tif", pixels((20, 30)), origin=(3.5, -8))
    found = spt.io.read_ome_tiff(tmp_path / "a.ome.tif")
    assert found.positions.tolist() == [[3.5, -8]]
    assert (found.pixel_size, found.unit, found.stage_unit) == (None, "", "pixel")


def test_nothing_is_made_up(tmp_path):
    spt.io.write_ome_tiff(tmp_path / "a.ome.tif", pixels((20, 30)))
    found = spt.io.read_ome_tiff(tmp_path / "a.ome.tif")
    assert found.positions is None
    assert found.pixel_size is None
    assert (found.unit, found.stage_unit, found.channel_names) == ("", "", [])


@pytest.mark.parametrize("kind", READERS)
def test_what_was_read_can_be_kept(kind, tmp_path):
    write, read, name = READERS[kind]
    image = pixels((2, 70, 90))
    for origin in (None, (3, 4)):
        write(tmp_path / "b", image, channel_axis=0, origin=origin)
        (tmp_path / "b").rename(tmp_path / name)
        found = read(tmp_path / name)
        spt.io.save_result(tmp_path / "found.h5", found)
        again = spt.io.load_result(tmp_path / "found.h5")
        assert_array_equal(np.asarray(again.images[0]), image)
        assert_array_equal(again.positions, found.positions)
        assert again.axes == "cyx"
        (tmp_path / name).rename(tmp_path / f"{name}{origin}")


# Slices

KEYS = [
    (),
    3,
    (-1, slice(None, None, -3)),
    (slice(5, 40), slice(17, 63)),
    (slice(33, 34), slice(0, 0)),
    (slice(60, 2, -7), ...),
    (..., slice(1, 80, 5)),
    (slice(None), np.array([4, 2, 2])),
    np.arange(70) % 3 == 0,
]

LAYOUTS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "tiles": {"tile": (16, 32), "compression": "zlib", "predictor": True},
    "big-endian tiles": {"tile": (32, 16), "compression": "zlib", "byteorder": ">"},
    "tiles as they are": {"tile": (16, 16)},
}


def write_layout(path, image, axes, byteorder="=", **options):
    metadata = {"axes": axes}
    tifffile.imwrite(
        path, image, ome=True, byteorder=byteorder, metadata=metadata, **options
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slices_are_those_of_the_array(layout, tmp_path):
    image = pixels((70, 90))
    write_layout(tmp_path / "a.ome.tif", image, "YX", **LAYOUTS[layout])
    [found] = spt.io.read_ome_tiff(tmp_path / "a.ome.tif").images
    for key in KEYS:
        part = found[key]
        assert_array_equal(part, image[key], strict=True)
        assert part.dtype.isnative


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", ["plain", "tiles", "strips"])
def test_colours_are_the_last_axis(planar, layout, tmp_path):
    image = pixels((70, 90, 3), np.uint8)
    stored = image if planar == "contig" else np.moveaxis(image, 2, 0)
    write_layout(
        tmp_path / "a.ome.tif", stored, "YXS" if planar == "contig" else "SYX",
        photometric="rgb", planarconfig=planar, **LAYOUTS[layout],
    )  # fmt: skip
    found = spt.io.read_ome_tiff(tmp_path / "a.ome.tif")
    assert (found.axes, found.channel_axis) == ("yxs", 2)
    for key in [..., (slice(9, 40), slice(30, 77)), (..., 1), (4, 5, slice(1, 3))]:
        assert_array_equal(found.images[0][key], image[key], strict=True)


@pytest.mark.parametrize("order", ["TCZ", "TZC", "CTZ", "CZT", "ZTC", "ZCT"])
def test_axes_come_in_one_order(order, tmp_path):
    image = pixels((2, 3, 4, 20, 30))
    stored = image.transpose(*("TCZ".index(axis) for axis in order), 3, 4)
    write_layout(tmp_path / "a.ome.tif", stored, f"{''.join(order)}YX")
    found = spt.io.read_ome_tiff(tmp_path / "a.ome.tif")
    assert (found.axes, found.channel_axis) == ("tczyx", 1)
    for key in [..., (1, 2, 3), (slice(None), 1, slice(1, 3), 4), (..., slice(2, 9))]:
        assert_array_equal(found.images[0][key], image[key], strict=True)


def test_only_the_tiles_that_a_slice_touches_are_read(tmp_path):
    path, image = tmp_path / "a.ome.tif", pixels((64, 64))
    write_layout(path, image, "YX", tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        places, sizes = file.pages[0].dataoffsets, file.pages[0].databytecounts
    data = bytearray(path.read_bytes())
    for place, size in zip(places[1:], sizes[1:], strict=True):
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    [found] = spt.io.read_ome_tiff(path).images
    assert_array_equal(found[:32, :32], image[:32, :32])
    with pytest.raises(ValueError, match=r"a\.ome\.tif must be a readable image"):
        found[:33, :32]


@pytest.mark.parametrize("kind", READERS)
def test_an_index_must_be_there(kind, tmp_path):
    write, read, name = READERS[kind]
    write(tmp_path / name, pixels((20, 30)))
    [found] = read(tmp_path / name).images
    with pytest.raises(IndexError, match="out of range"):
        found[20]
    with pytest.raises(IndexError, match="too many indices"):
        found[0, 0, 0]
    assert (len(found), found.ndim, next(iter(found)).tolist()) == (
        20, 2, list(range(30)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_images_go_to_other_processes(kind, tmp_path):
    write, read, name = READERS[kind]
    write(tmp_path / name, pixels((20, 30)))
    [found] = read(tmp_path / name).images
    assert_array_equal(pickle.loads(pickle.dumps(found))[3:5], pixels((20, 30))[3:5])


# OME-XML of other programs

MICRO_MANAGER = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"
 UUID="urn:uuid:07bdffa8-11a5-4a1c-8d2b-7e5d1a9b6a01"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">{images}</OME>"""

MICRO_MANAGER_IMAGE = """<Image ID="Image:{n}" Name="MMStack_Pos{n}">
<InstrumentRef ID="Microscope"/><StageLabel Name="Pos{n}"/>
<Pixels BigEndian="false" DimensionOrder="XYCZT" ID="Pixels:{n}"
 PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.5" PhysicalSizeYUnit="µm"
 PhysicalSizeZ="1.0" SizeC="1" SizeT="1" SizeX="30" SizeY="20" SizeZ="1" Type="uint16">
<Channel ID="Channel:{n}:0" Name="Default" SamplesPerPixel="1"/>
<TiffData FirstC="0" FirstT="0" FirstZ="0" IFD="{n}" PlaneCount="1">
<UUID FileName="a.ome.tif">urn:uuid:07bdffa8-11a5-4a1c-8d2b-7e5d1a9b6a01</UUID></TiffData>
<Plane DeltaT="3.0" DeltaTUnit="ms" ExposureTime="10.0" PositionX="{x}"
 PositionXUnit="µm" PositionY="{y}" PositionYUnit="µm" PositionZ="17.1"
 PositionZUnit="µm" TheC="0" TheT="0" TheZ="0"/></Pixels></Image>"""

BIO_FORMATS = """<?xml version="1.0" encoding="UTF-8"?>
<!-- Warning: this comment is an OME-XML metadata block. -->
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"
 Creator="OME Bio-Formats 6.10.1"><Image ID="Image:0" Name="scan 1">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20"
 SizeZ="2" SizeC="2" SizeT="1" PhysicalSizeX="500.0" PhysicalSizeXUnit="nm"
 PhysicalSizeY="0.25" PhysicalSizeZ="2.0" PhysicalSizeZUnit="{length}">
<Channel ID="Channel:0:0" Name="405" SamplesPerPixel="1"><LightPath/></Channel>
<Channel ID="Channel:0:1" SamplesPerPixel="1"><LightPath/></Channel>
<TiffData FirstZ="0" FirstC="0" FirstT="0" IFD="0" PlaneCount="1"/>
<TiffData FirstZ="1" FirstC="0" FirstT="0" IFD="1" PlaneCount="1"/>
<TiffData FirstZ="0" FirstC="1" FirstT="0" IFD="2" PlaneCount="1"/>
<TiffData FirstZ="1" FirstC="1" FirstT="0" IFD="3" PlaneCount="1"/>
<Plane TheZ="1" TheC="0" TheT="0" PositionX="0.010" PositionXUnit="{unit}"
 PositionY="-0.05" PositionYUnit="{unit}" PositionZ="0.009" PositionZUnit="{unit}"/>
<Plane TheZ="0" TheC="0" TheT="0" PositionX="0.010" PositionXUnit="{unit}"
 PositionY="-0.05" PositionYUnit="{unit}" PositionZ="0.007" PositionZUnit="{unit}"/>
</Pixels></Image></OME>"""


def write_xml(path, text, count, shape=(20, 30)):
    """Write a TIFF of so many pages, and whatever text."""
    with tifffile.TiffWriter(path) as file:
        for n in range(count):
            file.write(
                pixels(shape, offset=n), description=text.encode() if n == 0 else None,
                metadata=None, contiguous=False,
            )  # fmt: skip
    return path


def micro_manager(count=3, old=None, new=""):
    images = [
        MICRO_MANAGER_IMAGE.format(n=n, x=-100.0 + 14 * n, y=4.5 + n)
        for n in range(count)
    ]
    if old is not None:
        assert old in images[-1]
        images[-1] = images[-1].replace(old, new)
    return MICRO_MANAGER.format(images="".join(images))


def test_micro_manager_is_read(tmp_path):
    path = write_xml(tmp_path / "a.ome.tif", micro_manager(), 3)
    found = spt.io.read_ome_tiff(path)
    assert found.names == ["MMStack_Pos0", "MMStack_Pos1", "MMStack_Pos2"]
    assert (found.unit, found.stage_unit) == ("µm", "µm")
    assert found.channel_names == ["Default"]
    # Half a micrometre is a pixel; rows are Y.
    assert found.positions.tolist() == [[9, -200], [11, -172], [13, -144]]
    for n, image in enumerate(found.images):
        assert_array_equal(np.asarray(image), pixels((20, 30), offset=n))


@pytest.mark.parametrize("unit", ["mm", "reference frame"])
def test_bio_formats_is_read(unit, tmp_path):
    text = BIO_FORMATS.format(unit=unit, length="µm")
    path = write_xml(tmp_path / "a.ome.tif", text, 4)
    found = spt.io.read_ome_tiff(path)
    assert (found.axes, found.channel_names, found.unit) == ("czyx", ["405", ""], "nm")
    assert_allclose(found.pixel_size, [2000, 250, 500], rtol=1e-15)
    assert_array_equal(found.images[0][1, 0], pixels((20, 30), offset=2))
    assert found.stage_unit == unit
    if unit == "reference frame":
        assert found.positions is None
        found = spt.io.read_ome_tiff(path, stage_unit="mm")
    # The first plane is that of the lowest numbers, wherever it is listed.
    assert_allclose(found.positions, [[3.5, -200, 20]], rtol=1e-12)


def test_units_of_other_lengths_are_named(tmp_path):
    text = BIO_FORMATS.format(unit="thou", length="µm")
    path = write_xml(tmp_path / "a.ome.tif", text, 4)
    with pytest.raises(ValueError, match=r"must have lengths in pm, .*; got 'thou'"):
        spt.io.read_ome_tiff(path)


def test_tifffile_writes_positions_without_a_unit(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "YX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 4.0,
        "Plane": {"PositionX": [60.0], "PositionY": [-80.0]},
    }  # fmt: skip
    tifffile.imwrite(path, pixels((20, 30)), ome=True, metadata=metadata)
    found = spt.io.read_ome_tiff(path)
    assert (found.positions, found.stage_unit) == (None, "reference frame")
    found = spt.io.read_ome_tiff(path, stage_unit="µm")
    assert found.positions.tolist() == [[-20, 30]]
    found = spt.io.read_ome_tiff(path, stage_unit="pixel")
    assert found.positions.tolist() == [[-80, 60]]


@pytest.mark.parametrize(
    ("old", "new", "positions"),
    [
        ('PositionX="-72.0"', "", False),
        ('PhysicalSizeX="0.5"', 'PhysicalSizeX="0.0"', None),
    ],
)
def test_images_without_a_position_or_size_have_none(old, new, positions, tmp_path):
    text = micro_manager(1 if positions is None else 3)
    text = text.replace(old, new)
    path = write_xml(tmp_path / "a.ome.tif", text, 3)
    found = spt.io.read_ome_tiff(path)
    assert found.positions is None
    assert (found.pixel_size is None) is (positions is None)


def test_images_that_differ_are_chosen_from(tmp_path):
    text = micro_manager(3, 'PhysicalSizeX="0.5"', 'PhysicalSizeX="5"')
    path = write_xml(tmp_path / "a.ome.tif", text, 3)
    with pytest.raises(ValueError, match=r"`series` must name .* images 0 and 2 of"):
        spt.io.read_ome_tiff(path)
    found = spt.io.read_ome_tiff(path, series=[1, 0])
    assert found.positions.tolist() == [[11, -172], [9, -200]]
    with pytest.raises(ValueError, match=r"`series` must name some of the 3 images"):
        spt.io.read_ome_tiff(path, series=[3])


SET = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"
 UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT"
 Type="uint16" SizeX="30" SizeY="20" SizeZ="1" SizeC="1" SizeT="3">
<TiffData FirstT="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:0</UUID>
</TiffData><TiffData FirstT="1" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:1
</UUID></TiffData><TiffData FirstT="2" IFD="1" PlaneCount="1"><UUID FileName="{name}">
urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"""


def write_set(folder, name="b.ome.tif"):
    text = (
        SET.format(name=name).replace("\n</UUID>", "</UUID>").replace(">\nurn", ">urn")
    )
    write_xml(folder / "b.ome.tif", "no XML", 2, (20, 30))
    return write_xml(folder / "a.ome.tif", text, 1)


def test_planes_may_be_in_other_files(tmp_path):
    [found] = spt.io.read_ome_tiff(write_set(tmp_path)).images
    assert found.shape == (3, 20, 30)
    for n, offset in enumerate([0, 0, 1]):
        assert_array_equal(found[n], pixels((20, 30), offset=offset))


def test_planes_of_files_that_are_missing_are_missing(tmp_path):
    path = write_set(tmp_path)
    (tmp_path / "b.ome.tif").unlink()
    [found] = spt.io.read_ome_tiff(path).images
    assert_array_equal(found[0], pixels((20, 30)))
    with pytest.raises(ValueError, match="must be in a file; got none that has it"):
        found[1:]


@pytest.mark.parametrize("name", ["../b.ome.tif", "/tmp/b.ome.tif"])
def test_other_files_lie_beside(name, tmp_path):
    path = write_set(tmp_path, name)
    with pytest.raises(ValueError, match=r"a\.ome\.tif must name files in its folder"):
        spt.io.read_ome_tiff(path)


BROKEN = {
    "cut": (lambda text: text[:-22] + "</OME>", "hold OME-XML that is whole; got "),
    "entity": (lambda text: "<!DOCTYPE a>" + text, "without a document type"),
    "sizes": (
        lambda text: text.replace('SizeT="1"', 'SizeT="999999999"'),
        "hold a number of planes that can be; got 999999999",
    ),
    "no size": (
        lambda text: text.replace('SizeT="1"', ""),
        "whole number below 1e9 as SizeT; got None",
    ),
    "planes": (
        lambda text: text.replace('PlaneCount="1"', 'PlaneCount="99999999"'),
        "have a PlaneCount of its 1 planes; got 99999999",
    ),
    "number": (
        lambda text: text.replace('PositionY="4.5"', 'PositionY="4,5"'),
        "have a finite number as PositionY; got '4,5'",
    ),
    "infinite": (
        lambda text: text.replace('PhysicalSizeX="0.5"', 'PhysicalSizeX="INF"'),
        "have a finite number as PhysicalSizeX; got 'INF'",
    ),
    "other shape": (
        lambda text: text.replace('SizeX="30"', 'SizeX="31"'),
        "hold the planes of all of its 1 images; got those of 0",
    ),
    "elsewhere": (
        lambda _: '<OME><BinaryOnly MetadataFile="b.ome.tif" UUID="1"/></OME>',
        r"hold its OME-XML itself; got one that is in b\.ome\.tif",
    ),
    "no image": (lambda _: "<OME></OME>", "at least one image; got none"),
    "plain": (lambda _: "just text", "hold OME-XML; got another TIFF"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named(kind, tmp_path):
    change, match = BROKEN[kind]
    path = write_xml(tmp_path / "a.ome.tif", change(micro_manager(1)), 1)
    with pytest.raises(ValueError, match=rf"a\.ome\.tif must .*{match}"):
        spt.io.read_ome_tiff(path)


def test_imagej_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels((20, 30)), imagej=True)
    with pytest.raises(ValueError, match="must hold OME-XML; got an ImageJ TIFF"):
        spt.io.read_ome_tiff(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", READERS)
def test_what_is_not_there_is_an_error_of_the_system(kind, tmp_path):
    _, read, name = READERS[kind]
    with pytest.raises(FileNotFoundError, match=name):
        read(tmp_path / name)


# OME-Zarr of other programs


def write_group(path, said, version):
    """Write the attributes of a group, as either version has them."""
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", **said}}
        text = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (path / "zarr.json").write_text(json.dumps(text))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(said))


def write_image(
    path, image, version, level=(), pyramid=(), axes="yx", unit="micrometer"
):
    listed = [
        {"name": axis, "type": "space", "unit": unit} if axis in "zyx" else
        {"name": axis, "type": {"c": "channel", "t": "time"}[axis]}
        for axis in axes
    ]  # fmt: skip
    said = {"axes": listed, "version": version, "name": "tile"}
    said["datasets"] = [{"path": "s0", "coordinateTransformations": list(level)}]
    if pyramid:
        said["coordinateTransformations"] = list(pyramid)
    write_group(path, {"multiscales": [said]}, version)
    zarr.create_array(
        path / "s0", data=image, chunks=(16,) * image.ndim,
        zarr_format=3 if version == "0.5" else 2,
    )  # fmt: skip


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def translation(*values):
    return {"type": "translation", "translation": list(values)}


VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


@VERSIONS
def test_transformations_follow_each_other(version, tmp_path):
    image = pixels((1, 2, 20, 30))
    write_image(
        tmp_path, image, version, axes="tcyx",
        level=[scale(1, 1, 0.5, 0.25), translation(0, 0, 3, -8)],
        pyramid=[scale(1, 1, 2, 2), translation(0, 0, 1, 1)],
    )  # fmt: skip
    found = spt.io.read_ome_zarr(tmp_path)
    assert (found.axes, found.channel_axis, found.names) == ("cyx", 0, ["tile"])
    assert found.pixel_size.tolist() == [1, 0.5]
    # 2 * 3 + 1 of size 1, and 2 * -8 + 1 of size 0.5.
    assert found.positions.tolist() == [[7, -30]]
    for key in [..., (1, slice(3, 9), slice(4, None, 3)), (..., 2)]:
        assert_array_equal(found.images[0][key], image[0][key], strict=True)


@VERSIONS
def test_images_without_translation_have_no_position(version, tmp_path):
    write_image(tmp_path, pixels((20, 30)), version, level=[scale(2, 2)])
    found = spt.io.read_ome_zarr(tmp_path)
    assert found.positions is None
    assert (found.unit, found.stage_unit) == ("µm", "")


@VERSIONS
def test_plates_hold_many_images(version, tmp_path):
    write_group(
        tmp_path, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, version
    )
    for n, well in enumerate(["A/1", "B/2"]):
        fields = [{"path": "0"}, {"path": "1"}]
        write_group(tmp_path / well, {"well": {"images": fields}}, version)
        for k in range(2):
            write_image(
                tmp_path / well / str(k), pixels((20, 30), offset=2 * n + k), version,
                level=[scale(2, 2), translation(40 * n, 60 * k)],
            )  # fmt: skip
    found = spt.io.read_ome_zarr(tmp_path)
    assert found.positions.tolist() == [[0, 0], [0, 30], [20, 0], [20, 30]]
    assert [int(image[0, 0]) for image in found.images] == [0, 1, 2, 3]
    assert spt.io.read_ome_zarr(tmp_path, series=[2]).positions.tolist() == [[20, 0]]


@VERSIONS
def test_stage_positions_of_bioformats2raw_are_in_its_xml(version, tmp_path):
    write_group(tmp_path, {"bioformats2raw.layout": 3}, version)
    for n in range(3):
        image = pixels((20, 30), offset=n)
        write_image(tmp_path / str(n), image, version, level=[scale(0.5, 0.5)])
    found = spt.io.read_ome_zarr(tmp_path)
    assert found.positions is None
    (tmp_path / "OME").mkdir()
    (tmp_path / "OME" / "METADATA.ome.xml").write_text(micro_manager(), "utf-8")
    found = spt.io.read_ome_zarr(tmp_path)
    assert found.positions.tolist() == [[9, -200], [11, -172], [13, -144]]
    write_group(tmp_path / "OME", {"series": ["2", "0", "1"]}, version)
    found = spt.io.read_ome_zarr(tmp_path)
    assert [int(image[0, 0]) for image in found.images] == [2, 0, 1]


BROKEN_ZARR = {
    "no scale": ({"level": [scale(0, 1)]}, "must be finite, scales above 0"),
    "lengths": ({"level": [scale(1)]}, "must be scales and translations; got 'scale'"),
    "file": (
        {"level": [{"type": "translation", "path": "a"}]},
        "must be a readable image; got 'translation'",
    ),
    "axes": ({"axes": "yq"}, "must be a readable image"),
}


@VERSIONS
@pytest.mark.parametrize("kind", BROKEN_ZARR)
def test_broken_folders_are_named(kind, version, tmp_path):
    options, match = BROKEN_ZARR[kind]
    if kind == "axes":
        write_image(tmp_path, pixels((20, 30)), version)
        for name in ("zarr.json", ".zattrs"):
            if (tmp_path / name).is_file():
                text = (
                    (tmp_path / name).read_text().replace('"name": "y"', '"name": "q"')
                )
                (tmp_path / name).write_text(text)
    else:
        write_image(tmp_path, pixels((20, 30)), version, **options)
    with pytest.raises(ValueError, match=match):
        spt.io.read_ome_zarr(tmp_path)


@VERSIONS
@pytest.mark.parametrize("image", [np.zeros((0, 30)), np.full((20, 30), "a", "S1")])
def test_images_hold_numbers(version, image, tmp_path):
    with warnings.catch_warnings(action="ignore"):
        # Zarr says of bytes that nobody else may read them.
        write_image(tmp_path, image, version)
        with pytest.raises(ValueError, match="must hold pixels that are numbers"):
            spt.io.read_ome_zarr(tmp_path)


@VERSIONS
@pytest.mark.parametrize("part", ["../a", "/tmp/a"])
def test_images_of_a_folder_are_in_it(version, part, tmp_path):
    write_group(tmp_path, {"plate": {"wells": [{"path": part}]}}, version)
    with pytest.raises(ValueError, match="must name what is in it"):
        spt.io.read_ome_zarr(tmp_path)


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"of version 0\.4 or 0\.5; got no multiscales"
    ):
        spt.io.read_ome_zarr(tmp_path)


# bioio, of which a small part stands in for it


class Scenes:
    """Two scenes of a file, as bioio gives them."""

    scenes = ("first", "second")
    physical_pixel_sizes = (None, 0.5, 0.5)
    channel_names = ("a", "b")
    dims = SimpleNamespace(order="TCZYX")
    text = None

    def __init__(self, path, *, reconstruct_mosaic):
        assert not reconstruct_mosaic
        self.path, self.number = path, 0

    def set_scene(self, number):
        self.number = number

    @property
    def dask_data(self):
        return pixels((1, 2, 1, 20, 30), offset=self.number)

    @property
    def ome_metadata(self):
        if self.text is None:
            raise NotImplementedError
        return SimpleNamespace(to_xml=lambda: self.text)


@pytest.fixture
def bioio(monkeypatch):
    module = ModuleType("bioio")
    module.BioImage = type("BioImage", (Scenes,), {})
    monkeypatch.setitem(sys.modules, "bioio", module)
    return module.BioImage


@pytest.mark.parametrize("told", [True, False])
def test_scenes_of_bioio_are_images(told, bioio, tmp_path):
    path = tmp_path / "a.czi"
    path.touch()
    if told:
        bioio.text = micro_manager(2)
    found = spt.io.read_bioio(path)
    assert (found.axes, found.channel_axis, found.names) == (
        "cyx", 0, ["first", "second"],
    )  # fmt: skip
    assert (found.channel_names, found.pixel_size.tolist()) == (["a", "b"], [0.5, 0.5])
    assert_array_equal(found.images[1][1, 3:5], pixels((2, 20, 30), offset=1)[1, 3:5])
    if told:
        assert found.positions.tolist() == [[9, -200], [11, -172]]
    else:
        assert found.positions is None


class Mosaic(Scenes):
    """A mosaic of three tiles, as bioio gives it."""

    scenes = ("slide",)
    dims = SimpleNamespace(order="MTCZYX")
    corners = ((7, 100), (5, 128), (25, 101))

    @property
    def dask_data(self):
        return pixels((3, 1, 2, 4, 20, 30))

    def get_mosaic_tile_positions(self):
        if not self.corners:
            raise NotImplementedError
        return self.corners


@pytest.mark.parametrize("corners", [Mosaic.corners, ()])
@pytest.mark.usefixtures("bioio")
def test_tiles_of_a_mosaic_are_images(corners, monkeypatch, tmp_path):
    path = tmp_path / "a.czi"
    path.touch()
    kind = type("BioImage", (Mosaic,), {"corners": corners})
    kind.physical_pixel_sizes = (2.0, 0.5, 0.5)
    monkeypatch.setattr(sys.modules["bioio"], "BioImage", kind)
    found = spt.io.read_bioio(path)
    assert (found.axes, found.channel_axis, found.channel_names) == (
        "czyx", 0, ["a", "b"],
    )  # fmt: skip
    for image, whole in zip(found.images, pixels((3, 2, 4, 20, 30)), strict=True):
        assert_array_equal(image[...], whole)
        assert_array_equal(image[1, 2:, 3:5], whole[1, 2:, 3:5])
    if not corners:
        assert found.positions is None
        return
    assert found.names == ["slide 0", "slide 1", "slide 2"]
    assert found.stage_unit == "pixel"
    assert found.positions.tolist() == [[0, *corner] for corner in corners]
    second = spt.io.read_bioio(path, series=[1])
    assert second.positions.tolist() == [[0, 5, 128]]


@pytest.mark.real
def test_a_mosaic_of_a_real_microscope_is_placed():
    pytest.importorskip("bioio_czi")
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"])
    path = folder / "tiles" / "plant_pair" / "mosaic_test.czi"
    if not path.is_file():
        pytest.skip("SPECTRAL_TOOLS_DATA names a folder without plant_pair")
    found = spt.io.read_bioio(path)
    assert [image.shape for image in found.images] == [(624, 924)] * 2
    assert (found.axes, found.channel_names, found.unit) == ("yx", ["EGFP"], "µm")
    assert_allclose(found.pixel_size, 13 / 12, rtol=1e-12)
    assert found.positions.tolist() == [[0, 0], [0, 832]]
    placed = spt.place_tiles(found.images, positions=found.positions)
    # Two other methods agree on (-2, 825), in whole pixels.
    apart = np.diff(placed.matrices[:, :2, 2], axis=0)[0]
    assert_allclose(apart, (-2, 825), rtol=0, atol=0.75)


def test_bioio_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ValueError, match=r"install spectral-tools\[bioio\]"):
        spt.io.read_bioio(tmp_path / "a.czi")


# Together


@pytest.mark.parametrize("kind", READERS)
def test_tiles_that_were_read_are_placed(kind, rng, tmp_path):
    write, read, name = READERS[kind]
    scene = rng.normal(size=(200, 300))
    truth, found, stage = [(0, 0), (4, 130), (70, 9)], [], []
    for n, (row, col) in enumerate(truth):
        tile = scene[row : row + 120, col : col + 160].astype(np.float32)
        origin = np.add((row, col), rng.normal(0, 2, 2))
        (tmp_path / str(n)).mkdir()
        write(tmp_path / str(n) / name, tile, pixel_size=0.3, origin=origin)
        each = read(tmp_path / str(n) / name)
        found += each.images
        stage += each.positions.tolist()
    placed = spt.place_tiles(found, positions=stage, max_shift=10)
    steps = placed.matrices[:, :2, 2]
    # Cut from one scene at whole pixels, without noise.
    assert_allclose(steps - steps[0], truth, rtol=0, atol=0.02)

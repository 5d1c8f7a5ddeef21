"""Files of HDF5: spectroscopy and imaging data, and results that are kept."""

import pickle
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import spectral_tools as spt

MAIN = "/Measurement_000/Channel_000/Raw_Data"
FOLDER = "Measurement_000/Channel_000"
TABLES = (
    "Position_Indices",
    "Position_Values",
    "Spectroscopic_Indices",
    "Spectroscopic_Values",
)
TEXT = h5py.string_dtype()
NULL = h5py.Reference()


def write(path, data, **options):
    spt.io.write_usid(path, data, quantity="Current", units="nA", **options)
    return path


# Spectroscopy and imaging data


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c8", "c16", "bool", ">f8"])
@pytest.mark.parametrize(
    ("shape", "positions"),
    [
        ((3, 4), 2),
        ((3, 4, 5), 2),
        ((2, 3, 4, 5), 2),
        ((2, 3, 4, 5), 3),
        ((6,), 1),
        ((6,), 0),
        ((6, 5), 1),
        ((1, 5), 2),
        ((5, 1), 2),
        ((1, 1, 1), 2),
        ((4, 1, 3, 1), 2),
        ((), 0),
    ],
)
def test_data_come_back(dtype, shape, positions, rng, tmp_path):
    data = np.asarray(rng.integers(0, 2, shape) * 3).astype(dtype)
    values = [np.sort(rng.normal(size=n)) for n in shape]
    axes = [f"axis {k}" for k in range(len(shape))]
    units = [f"unit {k} µm" for k in range(len(shape))]
    path = write(
        tmp_path / "scan.h5", data, positions=positions, axes=axes,
        axis_units=units, axis_values=values,
    )  # fmt: skip
    found = spt.io.read_usid(path)
    assert found.data.dtype == data.dtype
    assert_array_equal(found.data, data)
    assert found.data.shape == data.shape
    assert (found.axes, found.axis_units) == (axes, units)
    assert found.positions == positions
    assert (found.quantity, found.units) == ("Current", "nA")
    for given, again in zip(values, found.axis_values, strict=True):
        assert_array_equal(again, given)


def test_files_keep_to_the_rules(tmp_path):
    data = np.arange(24.0).reshape(2, 3, 4)
    path = write(tmp_path / "scan.h5", data, axes=["Y", "X", "Bias"])
    with h5py.File(path) as file:
        main = file[MAIN]
        assert main.shape == (6, 4)
        assert (main.attrs["quantity"], main.attrs["units"]) == ("Current", "nA")
        tables = [file[main.attrs[name]] for name in TABLES]
        assert [each.shape for each in tables] == [(6, 2)] * 2 + [(1, 4)] * 2
        assert [each.dtype.str for each in tables] == ["<u4", "<f4"] * 2
        for each in tables:
            side = int(each.name.rpartition("/")[2].startswith("Spec"))
            assert len(each.attrs["labels"]) == each.shape[1 - side]
            assert len(each.attrs["units"]) == each.shape[1 - side]
        # The fastest dimension comes first.
        assert list(tables[0].attrs["labels"]) == ["X", "Y"]
        assert_array_equal(tables[0][:4], [[0, 0], [1, 0], [2, 0], [0, 1]])


def test_an_image_is_row_and_col(tmp_path):
    image = np.arange(12.0).reshape(3, 4)
    found = spt.io.read_usid(write(tmp_path / "scan.h5", image))
    assert found.axes == ["Y", "X"]
    assert_array_equal(found.data, image)


def foreign(path, columns, data, labels=None, values=None, spectral=None):
    """Write a file as others do: any order of dimensions and of positions."""
    columns = np.asarray(columns)
    spectral = np.zeros((1, data.shape[1])) if spectral is None else spectral
    labels = labels or ["X", "Y"][: columns.shape[1]]
    names = [f"S{k}" for k in range(len(spectral))]
    values = columns * 0.5 if values is None else values
    tables = [columns, values, spectral, spectral * 2.0]
    with h5py.File(path, "w") as file:
        group = file.create_group(FOLDER)
        main = group.create_dataset("Raw_Data", data=data)
        main.attrs["quantity"], main.attrs["units"] = b"Current", "nA"
        for name, table in zip(TABLES, tables, strict=True):
            item = group.create_dataset(name, data=table)
            texts = labels if name.startswith("Pos") else names
            # Bytes of a fixed length, as older files have them.
            item.attrs["labels"] = np.array(texts, "S8")
            item.attrs["units"] = np.array(["um"] * len(texts), "S8")
            main.attrs[name] = item.ref
    return path


X_FAST = [(col, row) for row in range(3) for col in range(4)]


@pytest.mark.parametrize("listed", ["fastest first", "slowest first"])
@pytest.mark.parametrize("snake", [False, True])
def test_the_fastest_dimension_is_found_from_the_indices(listed, snake, tmp_path):
    image = np.arange(12).reshape(3, 4)
    keys = X_FAST
    if snake:
        keys = [(3 - c if r % 2 else c, r) for c, r in X_FAST]
    data = np.array([[image[r, c]] for c, r in keys])
    labels = ["X", "Y"]
    if listed == "slowest first":
        keys, labels = [key[::-1] for key in keys], ["Y", "X"]
    found = spt.io.read_usid(foreign(tmp_path / "scan.h5", keys, data, labels))
    assert found.axes[:2] == ["Y", "X"]
    assert_array_equal(found.data[..., 0], image)
    assert_array_equal(found.axis_values[0], [0, 0.5, 1])


def test_three_dimensions_in_any_order_are_found(tmp_path):
    cube = np.arange(24).reshape(2, 3, 4)
    keys = [(row, col, plane) for plane, row, col in np.ndindex(cube.shape)]
    data = cube.reshape(-1, 1)
    path = foreign(tmp_path / "scan.h5", keys, data, ["row", "col", "plane"])
    found = spt.io.read_usid(path)
    assert found.axes[:3] == ["plane", "row", "col"]
    assert_array_equal(found.data[..., 0], cube)


def test_spectroscopic_dimensions_are_found_too(tmp_path):
    data = np.arange(12 * 6).reshape(12, 6)
    bias, cycle = np.tile([0, 1, 2], 2), np.repeat([0, 1], 3)
    spectral = np.stack([cycle, bias])
    path = foreign(tmp_path / "scan.h5", X_FAST, data, spectral=spectral)
    found = spt.io.read_usid(path)
    assert found.axes == ["Y", "X", "S0", "S1"]
    assert_array_equal(found.data, data.reshape(3, 4, 2, 3))


def test_a_scan_that_was_interrupted_is_refused_or_filled(tmp_path):
    data = np.arange(10.0).reshape(10, 1)
    path = foreign(tmp_path / "scan.h5", X_FAST[:10], data)
    match = r"hold all places of \(3, 4, 1\), or `fill_value` be given; got 10"
    with pytest.raises(ValueError, match=match):
        spt.io.read_usid(path)
    found = spt.io.read_usid(path, fill_value=np.nan)
    truth = np.append(np.arange(10.0), [np.nan, np.nan]).reshape(3, 4)
    assert_array_equal(found.data[..., 0], truth)


def test_few_values_do_not_fill_a_large_grid(tmp_path):
    line = np.arange(12)
    path = foreign(
        tmp_path / "scan.h5", np.stack([line, line], axis=1), np.ones((12, 12)),
        spectral=np.stack([line, line]),
    )  # fmt: skip
    match = r"must be a grid; got 144 places in \(12, 12, 12, 12\)"
    with pytest.raises(ValueError, match=match):
        spt.io.read_usid(path, fill_value=0)


def test_values_may_have_parts(tmp_path):
    data = np.zeros((3, 4), [("a", "f4"), ("b", "i8")])
    data["a"], data["b"] = np.pi, np.arange(4)
    found = spt.io.read_usid(write(tmp_path / "scan.h5", data))
    assert_array_equal(found.data, data)
    backwards = foreign(tmp_path / "other.h5", X_FAST[::-1], data.reshape(12, 1))
    assert_array_equal(spt.io.read_usid(backwards).data[..., 0], data[::-1, ::-1])


def test_what_fills_must_fit(tmp_path):
    data = np.arange(10).reshape(10, 1)
    path = foreign(tmp_path / "scan.h5", X_FAST[:10], data)
    with pytest.raises(ValueError, match="`fill_value` must fit int64; got nan"):
        spt.io.read_usid(path, fill_value=np.nan)
    assert spt.io.read_usid(path, fill_value=-1).data[-1, -1] == -1


def test_coordinates_may_depend_on_other_axes(rng, tmp_path):
    where = rng.normal(size=(2, 3, 4)).astype(np.float32)
    data = rng.normal(size=(3, 4, 2))
    values = [where[0], where[1], [5.0, 6.0]]
    found = spt.io.read_usid(write(tmp_path / "scan.h5", data, axis_values=values))
    for given, again in zip(values, found.axis_values, strict=True):
        assert_array_equal(again, given)


def test_a_tree_lists_the_main_datasets(tmp_path):
    path = write(tmp_path / "scan.h5", np.ones((3, 4)))
    with h5py.File(path, "a") as file:
        file["other"] = np.zeros((12, 1))
        file.copy(file[FOLDER], "copy")
        # A copy refers to tables of its own, which a plain copy does not make.
        for name in TABLES:
            file["copy/Raw_Data"].attrs[name] = file[f"{FOLDER}/{name}"].ref
    entries = spt.io.read_usid_tree(path)
    assert [entry.path for entry in entries] == [MAIN, "/copy/Raw_Data"]
    assert entries[0].shape == (12, 1)
    assert (entries[0].quantity, entries[0].units) == ("Current", "nA")
    with pytest.raises(ValueError, match="or `dataset` name one of them; got"):
        spt.io.read_usid(path)
    assert spt.io.read_usid(path, dataset=MAIN).data.shape == (3, 4)


def change(path, function):
    with h5py.File(path, "a") as file:
        function(file, file[FOLDER])


def relinked(group, name, table):
    """Replace a table and the link to it."""
    old = dict(group[name].attrs)
    del group[name]
    item = group.create_dataset(name, data=table)
    item.attrs.update(old)
    group["Raw_Data"].attrs[name] = item.ref


def huge(_, group):
    attributes = dict(group["Raw_Data"].attrs)
    del group["Raw_Data"]
    item = group.create_dataset("Raw_Data", (12, 10**12), "f8", chunks=(1, 1000))
    item.attrs.update(attributes)
    table = np.zeros((1, 10**4))
    for name in TABLES[2:]:
        del group[name]
        other = group.create_dataset(name, (1, 10**12), "f8", chunks=(1, 1000))
        other[:, : 10**4] = table
        other.attrs["labels"] = other.attrs["units"] = np.array(["a"], TEXT)
        item.attrs[name] = other.ref


def elsewhere(_, group):
    """Make the values come from another file of this computer."""
    attributes = dict(group["Raw_Data"].attrs)
    del group["Raw_Data"]
    outside = [("/etc/passwd", 0, 96)]
    item = group.create_dataset("Raw_Data", (12, 1), "f8", external=outside)
    item.attrs.update(attributes)


def virtual(_, group):
    attributes = dict(group["Raw_Data"].attrs)
    del group["Raw_Data"]
    layout = h5py.VirtualLayout((12, 1), "f8")
    layout[...] = h5py.VirtualSource("other.h5", "data", (12, 1))
    group.create_virtual_dataset("Raw_Data", layout)
    group["Raw_Data"].attrs.update(attributes)


def many_texts(_, group):
    for name in TABLES[:2]:
        group[name].attrs["labels"] = np.array(["a" * 999] * 1001, TEXT)


BROKEN = {
    "no quantity": (
        lambda _, g: g["Raw_Data"].attrs.__delitem__("quantity"),
        "must be a main dataset; got no text as quantity",
    ),
    "units are a number": (
        lambda _, g: g["Raw_Data"].attrs.__setitem__("units", 3),
        "must be a main dataset; got no text as units",
    ),
    "no link": (
        lambda _, g: g["Raw_Data"].attrs.__delitem__("Position_Values"),
        "must be a main dataset; got no link to Position_Values",
    ),
    "an empty link": (
        lambda _, g: g["Raw_Data"].attrs.__setitem__("Position_Values", NULL),
        "must be a main dataset; got no link to Position_Values",
    ),
    "a link to a group": (
        lambda f, g: g["Raw_Data"].attrs.__setitem__("Position_Values", f.ref),
        "must be a main dataset; got no link to Position_Values",
    ),
    "too few rows": (
        lambda _, g: relinked(g, "Position_Indices", np.zeros((3, 2))),
        r"got Position_Indices of shape \(3, 2\)",
    ),
    "twice": (
        lambda _, g: relinked(g, "Position_Indices", np.zeros((12, 2))),
        "Position_Indices must name every place once; got some twice",
    ),
    "a spiral": (
        lambda _, g: relinked(
            g, "Position_Indices", np.arange(12)[:, None] * [10**6, 10**9]
        ),
        "got 12|must hold all",
    ),
    "fractions": (
        lambda _, g: relinked(g, "Position_Indices", np.full((12, 2), np.inf)),
        "Position_Indices must hold whole numbers; got fractions",
    ),
    "texts as values": (
        lambda _, g: relinked(g, "Position_Values", np.full((12, 2), b"a")),
        "must hold real numbers; got",
    ),
    "other labels": (
        lambda _, g: g[TABLES[0]].attrs.__setitem__("labels", np.array(["a"], TEXT)),
        "Position_Indices must have 2 texts as labels; got",
    ),
    "labels are numbers": (
        lambda _, g: g[TABLES[0]].attrs.__setitem__("labels", [1, 2]),
        "Position_Indices must have 2 texts as labels; got",
    ),
    "thousands of labels": (many_texts, "must have 2 texts as labels; got"),
    "larger than the file": (huge, "must hold its .* bytes; got .* in the file"),
    "values of other files": (elsewhere, "Raw_Data must hold numbers of its own"),
    "virtual values": (virtual, "Raw_Data must hold numbers of its own"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_data_are_named(kind, tmp_path):
    path = write(tmp_path / "scan.h5", np.ones((3, 4)))
    function, match = BROKEN[kind]
    change(path, function)
    with pytest.raises(ValueError, match=match) as caught:
        spt.io.read_usid(path, dataset=MAIN)
    assert str(path) in str(caught.value)


def resized(data, number, held):
    """Change the size that an object of the heap of texts says it has; 0 is free."""
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little") != number:
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + -(-size // 8) * 8
    return data[: place + 8] + held.to_bytes(8, "little") + data[place + 16 :]


def crowded(data):
    """Make the texts of a heap begin as heaps do."""
    place = data.index(b"GCOL") + 32
    return data[:place] + b"GCOL" * 8 + data[place + 32 :]


def longer(data):
    """Give a text a length of four gigabytes, before the place where it lies."""
    heap = data.index(b"GCOL").to_bytes(8, "little")
    place = data.index(heap, data.index(b"quantity\0")) - 4
    return data[:place] + b"\xf0\xff\xff\xff" + data[place + 4 :]


def of_others(data):
    """Make a text consist of something else than characters."""
    place = data.index(b"\x19\x01\x01", data.index(b"quantity\0")) + 8
    return data[:place] + b"\x16" + data[place + 1 :]


WHOLE = "scan.h5:.* quantity must be .* heap at byte .* must be whole; got "
HEAPS = {
    "free space without end": (lambda d: resized(d, 0, 0), WHOLE + "0"),
    "an object behind the end": (lambda d: resized(d, 1, 5000), WHOLE + "5000"),
    "an object behind memory": (lambda d: resized(d, 1, 2**64 - 40), WHOLE + "184"),
    "a text longer than the file": (longer, "must lie in the file; got .4294967280"),
    "a text of no characters": (of_others, "The texts at byte .* must lie in the fi"),
    "heaps in a heap": (crowded, "Bytes must have 3 heaps; got 9"),
    "texts of another kind": (
        lambda d: d.replace(b"\x19\x01\x01", b"\x19\xff\x01"),
        "must be a main dataset; got no text as quantity",
    ),
}


@pytest.mark.parametrize("kind", HEAPS)
def test_broken_texts_are_named(kind, tmp_path):
    path = write(tmp_path / "scan.h5", np.ones((3, 4)))
    function, match = HEAPS[kind]
    data = function(path.read_bytes())
    assert data != path.read_bytes()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match):
        spt.io.read_usid(path, dataset=MAIN)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_texts_are_not_made_longer_than_their_file(libver, tmp_path):
    """Attributes that are many lie elsewhere in newer files."""
    path = tmp_path / "many.h5"
    with h5py.File(path, "w", libver=libver) as file:
        for k in range(20):
            file.attrs[f"key{k}"] = [f"text {k}", "µ"]
        file.attrs["format"] = "spectral_tools result"
    with pytest.raises(ValueError, match="must be of version 1; got None"):
        spt.io.load_result(path)
    data = path.read_bytes()
    place = data.index(b"\x15\0\0\0", data.index(b"format\0"))
    path.write_bytes(data[:place] + b"\xf0\xff\xff\xff" + data[place + 4 :])
    with pytest.raises(ValueError, match=r"texts at byte .* must lie in the file"):
        spt.io.load_result(path)


def test_addresses_of_other_sizes_are_refused(tmp_path):
    settings = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    settings.set_sizes(4, 4)
    path = tmp_path / "scan.h5"
    h5py.h5f.create(bytes(path), fcpl=settings).close()
    with pytest.raises(ValueError, match="must have addresses of 8 bytes; got others"):
        spt.io.read_usid_tree(path)


@pytest.mark.parametrize(
    ("dataset", "match"),
    [
        ("/nowhere", "must lead to something in the file; got '/nowhere'"),
        ("/outside/Raw_Data", "must lead to something in the file; got"),
        ("/soft", "must lead to something in the file; got '/soft'"),
        ("../scan.h5", "must lead to something in the file; got"),
        ("/Measurement_000", "must be a main dataset; got no dataset"),
    ],
)
def test_links_that_lead_elsewhere_are_not_followed(dataset, match, tmp_path):
    path = write(tmp_path / "scan.h5", np.ones((3, 4)))
    other = write(tmp_path / "other.h5", np.ones((3, 4)))

    def add(file, _):
        file["outside"] = h5py.ExternalLink(str(other), FOLDER)
        file["soft"] = h5py.SoftLink(MAIN)
        file["round"] = file["/"]
        file["Measurement_000/back"] = file["Measurement_000"]

    change(path, add)
    with pytest.raises(ValueError, match=match):
        spt.io.read_usid(path, dataset=dataset)
    # Neither do circles keep anyone busy.
    assert len(spt.io.read_usid_tree(path)) == 1
    assert spt.io.read_usid(path).data.shape == (3, 4)


@pytest.mark.parametrize("size", [0, 7, 600, 3000])
@pytest.mark.parametrize(
    "reader", [spt.io.read_usid, spt.io.read_usid_tree, spt.io.load_result]
)
def test_files_that_were_cut_are_named(reader, size, tmp_path):
    path = write(tmp_path / "scan.h5", np.ones((3, 4)))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"scan.h5 must be readable HDF5; got"):
        reader(path)


@pytest.mark.parametrize(
    "reader", [spt.io.read_usid, spt.io.read_usid_tree, spt.io.load_result]
)
def test_files_that_are_missing_are_named(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scan.h5"):
        reader(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"positions": 3}, "`positions` must be from 0 to 2, the axes of `data`; got"),
        ({"axes": ["a"]}, "`axes` must be one for each of 2 axes; got"),
        ({"axes": ["a", "a"]}, "`axes` must differ from each other; got"),
        ({"axis_values": [[1, 2], [1]]}, r"`axis_values` must have shape \(3,\) or"),
        ({"axis_values": [[1, np.nan, 2], [1] * 4]}, "`axis_values` must be finite"),
    ],
)
def test_data_that_do_not_fit_are_not_written(options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "scan.h5", np.ones((3, 4)), **options)
    with pytest.raises(ValueError, match="`data` must hold numbers; got"):
        write(tmp_path / "scan.h5", np.array(["a"]))
    with pytest.raises(TypeError, match=r"`axes\[0\]` must be a string; got"):
        write(tmp_path / "scan.h5", np.ones((3, 4)), axes=[1, 2])
    assert list(tmp_path.iterdir()) == []


# Results


def check_same(result, other):
    """Compare results to the last bit, types included."""
    assert type(result) is type(other)
    for field in fields(result):
        value, again = (getattr(each, field.name) for each in (result, other))
        if is_dataclass(value):
            check_same(value, again)
        elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
            assert (value.dtype, value.shape) == (again.dtype, again.shape)
            assert value.tobytes() == again.tobytes()
        elif isinstance(value, np.ndarray):
            assert value.shape == again.shape
            assert value.tolist() == again.tolist()
            assert list(map(type, value.flat)) == list(map(type, again.flat))
        elif value is None:
            assert again is None
        else:
            assert value == again or np.isnan([value, again]).all()
            assert isinstance(again, int | float | str | list | tuple | range)


@pytest.fixture(scope="module")
def results():
    """Return one result of every kind."""
    rng = np.random.default_rng(5)
    scene = spt.gaussian_texture((260, 260), rng=rng)
    made = spt.simulate_tiles(scene, (2, 2), (128, 128), overlap=0.3, rng=rng)
    links = spt.grid_links((2, 2))
    matches = spt.match_tiles(made.tiles, links, positions=made.stage)
    placed = spt.place_tiles(made.tiles, positions=made.stage)
    keys = [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 1)), ((1, 0), (1, 1))]
    ends = matches.reference_points, matches.moving_points
    motion = np.cumsum(rng.normal(size=(4, 2)), axis=0)
    series = spt.simulate_series(scene, motion, (96, 96))
    pairs = spt.match_grid(scene[:200, :200], scene[3:203, :200], size=64)
    surface = spt.correlation_surface(scene[:99, :99], scene[5:104, 3:102])
    image = spt.warp_composite(made.tiles, made.matrices)
    found = [
        made,
        matches,
        placed,
        spt.solve_rigid(links, *ends),
        spt.solve_rigid(keys, *ends),
        spt.solve_rigid([("a", "é\0b")], [(0, 90.5)], [(0, 10)]),
        spt.phase_correlate(scene[:99, :99], scene[5:104, 3:102]),
        spt.phase_correlate(np.zeros((9, 9)), np.zeros((9, 9))),
        spt.refine_pair(
            scene, scene, [[(90, 90)] * 3] * 2, [[(91, 90)] * 3] * 2, size=48
        ),
        pairs,
        spt.fit_displacement(
            pairs.reference_points.reshape(-1, 2),
            pairs.moving_points.reshape(-1, 2),
            (200, 200),
        ),
        spt.loop_closures(links, *ends),
        spt.placement_report(placed),
        spt.match_orientation(scene[:128, :128], scene[:128, :128]),
        spt.find_peaks(surface),
        spt.ring_coherence(scene[:64, :64], scene[64:128, :64]),
        spt.ring_average(scene[:64, :64]),
        spt.align_series(series.frames),
        spt.align_stack(np.stack([scene[k : k + 200, :200] for k in (0, 3, 5)])),
        spt.estimate_shading(made.tiles),
        spt.solve_gains(made.tiles, made.matrices),
        image,
        series,
    ]
    return {f"{k} {type(each).__name__}": each for k, each in enumerate(found)}


KINDS = [
    "SimulatedTiles", "TileMatches", "TilePlacement", "Placement", "Placement",
    "Placement", "ShiftEstimate", "ShiftEstimate", "PointMatches", "PointMatches",
    "DisplacementFit", "LoopClosures", "PlacementReport", "OrientationEstimate",
    "Peaks", "RingCoherence", "RingAverage", "SeriesAlignment", "StackAlignment",
    "Shading", "Gains", "Composite", "SimulatedSeries",
]  # fmt: skip


@pytest.mark.parametrize("name", [f"{k} {kind}" for k, kind in enumerate(KINDS)])
def test_a_result_comes_back_to_the_last_bit(name, results, tmp_path):
    path = tmp_path / "result.h5"
    spt.io.save_result(path, results[name])
    check_same(results[name], spt.io.load_result(path))


def placement():
    return spt.solve_rigid([("a", "b"), ("b", "c")], [(0, 90)] * 2, [(0, 10)] * 2)


LABELS = {
    "numbers and strings": [1, "a", -7],
    "keys": [(0, 1), (0, 2), (1, (2, "x"))],
    "floats": [0.1, 1e300, None],
    "a tuple": ("a", "b", "c"),
    "a range": range(2, 8, 2),
    "JSON": ['["a"]', "é\U0001f600", "\ud800"],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back(kind, tmp_path):
    result = replace(placement(), labels=LABELS[kind])
    spt.io.save_result(tmp_path / "result.h5", result)
    found = spt.io.load_result(tmp_path / "result.h5").labels
    assert found == LABELS[kind]
    assert type(found) is type(LABELS[kind])
    assert list(map(type, found)) == list(map(type, LABELS[kind]))


@pytest.mark.parametrize("label", [object(), {"a": 1}, 1 << 80, float("nan"), b"a"])
def test_labels_that_are_none_are_not_written(label, tmp_path):
    result = replace(placement(), labels=[label, "b", "c"])
    with pytest.raises(TypeError, match=r"`result.labels` must have numbers, strings"):
        spt.io.save_result(tmp_path / "result.h5", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [3, np.eye(3), {"a": 1}, spt.io.ControlPoints])
def test_only_results_are_written(value, tmp_path):
    with pytest.raises(TypeError, match="`result` must be a result of this package"):
        spt.io.save_result(tmp_path / "result.h5", value)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.h5"
    result = placement()
    spt.io.save_result(path, result)
    with pytest.raises(TypeError, match="must have numbers, strings and tuples"):
        spt.io.save_result(path, replace(result, labels=[{}]))
    check_same(result, spt.io.load_result(path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "writer",
    [
        lambda path: write(path, np.ones((3, 4))),
        lambda path: spt.io.save_result(path, placement()),
    ],
)
def test_a_file_that_cannot_take_its_place_leaves_the_old_one(
    writer, tmp_path, monkeypatch
):
    path = tmp_path / "file.h5"
    path.write_text("old")

    def fails(*_):
        message = "no space"
        raise OSError(message)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        writer(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class Bomb:
    """What a pickle could do."""

    def __reduce__(self):
        return (pytest.fail, ("the file was run",))


def replaced(name, value, kind="array"):
    def function(file):
        del file[name]
        file.create_dataset(name, data=value).attrs["kind"] = np.bytes_(kind)

    return function


def text(value):
    return replaced("labels", np.bytes_(value), "list of labels")


HOSTILE = {
    "another program": (
        lambda f: f.attrs.__setitem__("format", b"x"),
        "must hold a spe",
    ),
    "the future": (lambda f: f.attrs.__setitem__("version", 2), "must be of version 1"),
    "another class": (
        lambda f: f.attrs.__setitem__("class", np.bytes_("os.system")),
        "must hold a result of a known kind; got 'os.system'",
    ),
    "another result": (
        lambda f: f.attrs.__setitem__("class", np.bytes_("TileMatches")),
        "result.h5:reference_points must lead to something in the file",
    ),
    "no field": (lambda f: f.__delitem__("group"), "result.h5:group must lead to"),
    "a class of any length": (
        lambda f: f.attrs.__setitem__("class", ["Placement"] * 99),
        "must hold a result of a known kind; got None",
    ),
    "a group": (
        lambda f: (f.__delitem__("group"), f.create_group("group")),
        "result.h5:group must be a group or a dataset; got the other",
    ),
    "no kind": (lambda f: f["group"].attrs.__delitem__("kind"), "of a known kind; got"),
    "floats": (
        replaced("group", np.zeros(3)),
        "result.h5:group must be as a Placement",
    ),
    "a number": (
        replaced("group", np.int64(3), "int"),
        "must be as a Placement has it",
    ),
    "a pickle": (
        replaced("labels", np.void(pickle.dumps(Bomb())), "list of labels"),
        "result.h5:labels must be of a known kind",
    ),
    "an object": (
        text('[{"a": 1}]'),
        "result.h5:labels must be readable HDF5; got Lab",
    ),
    "NaN": (text("[NaN]"), "result.h5:labels must be readable HDF5; got Labels"),
    "no list": (text("3"), "result.h5:labels must be readable HDF5; got"),
    "deep": (text("[" * 100_000), "result.h5:labels must be readable HDF5; got"),
    "digits": (text("[" + "9" * 10_000 + "]"), "must be readable HDF5; got Exceeds"),
    "an outcome": (
        replaced("outcome", np.array([b"well"]), "outcomes"),
        "result.h5:outcome must be readable HDF5; got 'well' is not a valid Outcome",
    ),
    "no step": (replaced("labels", np.array([0, 3, 0]), "range"), "of a known kind"),
    "texts of any length": (
        replaced("labels", np.array(["[]"], TEXT), "list of labels"),
        "result.h5:labels must hold numbers of its own",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_mean_ill_are_named(kind, tmp_path):
    path = tmp_path / "result.h5"
    spt.io.save_result(path, placement())
    function, match = HOSTILE[kind]
    with h5py.File(path, "a") as file:
        function(file)
    with pytest.raises(ValueError, match=match):
        spt.io.load_result(path)


def test_results_are_not_read_from_other_files(tmp_path):
    spt.io.save_result(tmp_path / "other.h5", placement())
    path = tmp_path / "result.h5"
    spt.io.save_result(path, placement())
    with h5py.File(path, "a") as file:
        del file["matrices"]
        file["matrices"] = h5py.ExternalLink("other.h5", "matrices")
    with pytest.raises(
        ValueError, match=r"matrices must lead to something in the file"
    ):
        spt.io.load_result(path)

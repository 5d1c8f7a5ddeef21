"""Results: every public dataclass can be kept, and shows itself in a few lines."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import spectral_tools as spt

RESULTS = {
    name: getattr(door, name)
    for door in (spt, spt.io)
    for name in door.__all__
    if is_dataclass(getattr(door, name))
}
OUTCOMES = list(spt.Outcome)
TEXT = "é\0\ud800" * 400
SIMPLE = {
    Any: (0, 1),
    Path: Path("a") / ("b" * 400),
    bool: True,
    float: 1 / 3,
    int: 2,
    spt.Outcome: spt.Outcome.AMBIGUOUS,
    str: TEXT,
}


def array_of(number, count):
    """Make an array that a field may hold: more of it for a greater count."""
    kind = get_origin(number) or number
    if kind is np.object_:
        return np.resize(np.array(OUTCOMES, object), count)
    values = np.linspace(-1, 1, 4 * count).reshape(count, 2, 2)
    if kind is np.float64 or kind is np.floating:
        values.flat[::7] = np.nan
        return values
    if kind is Any:
        pixel = np.dtype([("height", "<f4"), ("phase", "<c8")])
        return values.astype(np.float32).astype(pixel)
    if kind is np.unsignedinteger:
        return values.astype(np.uint16)
    return values.astype(kind)[:, 0, 0]


def value_of(hint, count):
    """Make a value that is what a field is declared to be."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        # None once in a while.
        return value_of(inner[0], count) if count != 1 else None
    if origin is get_origin(NDArray[Any]):
        number = inner[-1]
        [number] = get_args(number) if get_origin(number) is np.dtype else [number]
        return array_of(number, count)
    if origin is np.dtype:
        return np.dtype(np.uint16)
    if origin is Sequence:
        return [(0, k) for k in range(count)]
    if origin is list:
        return [value_of(inner[0], count) for _ in range(min(count, 20))]
    if origin is tuple:
        listed = [inner[0]] * count if inner[-1] is ... else inner
        return tuple(value_of(each, count) for each in listed)
    return made(hint, count) if is_dataclass(hint) else SIMPLE[hint]


def made(result, count):
    """Make a result whose arrays and lists are of some length."""
    hints = get_type_hints(result)
    return result(**{name: value_of(hint, count) for name, hint in hints.items()})


def check_same(value, other):
    """Compare to the last bit, types included."""
    assert type(value) is type(other)
    if is_dataclass(value):
        for field in fields(value):
            check_same(*(getattr(each, field.name) for each in (value, other)))
    elif isinstance(value, np.ndarray):
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        if value.dtype.kind == "O":
            check_same(value.tolist(), other.tolist())
        else:
            assert value.tobytes() == other.tobytes()
    elif isinstance(value, list | tuple):
        assert len(value) == len(other)
        for each, again in zip(value, other, strict=True):
            check_same(each, again)
    else:
        assert value == other


# Kept


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("name", RESULTS)
def test_every_public_result_comes_back_to_the_last_bit(name, count, tmp_path):
    result = made(RESULTS[name], count)
    spt.io.save_result(tmp_path / "result.h5", result)
    check_same(result, spt.io.load_result(tmp_path / "result.h5"))


def test_a_result_that_the_package_gains_can_be_kept(monkeypatch, tmp_path):
    """Nobody has to add it to a list."""
    new = type("New", (spt.Peaks,), {"__slots__": ()})
    monkeypatch.setattr(spt, "New", new, raising=False)
    monkeypatch.setattr(spt, "__all__", [*spt.__all__, "New"])
    spt.io.save_result(tmp_path / "result.h5", made(new, 3))
    assert type(spt.io.load_result(tmp_path / "result.h5")) is new


def test_classes_that_are_not_public_are_not_kept(tmp_path):
    new = type("New", (spt.Peaks,), {"__slots__": ()})
    with pytest.raises(TypeError, match="`result` must be a result of this package"):
        spt.io.save_result(tmp_path / "result.h5", made(new, 3))
    same = type("Peaks", (spt.Peaks,), {"__slots__": ()})
    with pytest.raises(TypeError, match="`result` must be a result of this package"):
        spt.io.save_result(tmp_path / "result.h5", made(same, 3))


@pytest.mark.parametrize(
    "dtype", [[("b", object)], [("a", "i4"), ("b", object)], "U3", "S0"]
)
def test_arrays_of_anything_are_not_written(dtype, tmp_path):
    image = np.zeros(3, dtype)
    result = spt.Resampled(image=image, matrix=np.eye(3))
    with pytest.raises(TypeError, match=r"`result.image` must ha?o?[lv][de]"):
        spt.io.save_result(tmp_path / "result.h5", result)
    assert list(tmp_path.iterdir()) == []


def replaced(name, value, kind):
    def function(file):
        del file[name]
        file.create_dataset(name, data=np.bytes_(value)).attrs["kind"] = np.bytes_(kind)

    return function


def linked(name, other):
    def function(file):
        del file[name]
        file[name] = file[other]

    return function


HOSTILE = {
    "twice": (linked("paths/1", "paths/0"), "1 must be a value of its own; got one"),
    "in a circle": (linked("tiles/0", "tiles"), "tiles/0 must be a value of its own"),
    "another item": (linked("paths", "tiles"), "paths/0 must be a group or a dataset"),
    "gaps": (lambda f: f.move("tiles/0", "tiles/7"), "tiles/0 must lead to something"),
    "no list": (
        lambda f: (f.__delitem__("keys"), f.move("tiles", "keys")),
        "keys/0 must be a group or a dataset; got the other",
    ),
    "no text": (replaced("paths/0", "[3]", "path"), "a path must be a text; got 3"),
    "two texts": (replaced("paths/0", '["a", "b"]', "path"), "must be readable HDF5"),
    "another kind": (replaced("paths/0", '["a"]', "text"), "must be as a TileFolder"),
    "objects": (replaced("tiles/0/dtype", '["|O"]', "dtype"), "a dtype must be a text"),
    "records": (replaced("tiles/0/dtype", '["i4,i4"]', "dtype"), "a dtype must be"),
    "shapes": (
        replaced("tiles/0/shape", '["a"]', "tuple of labels"),
        "must be as a Ti",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_lists_that_mean_ill_are_named(kind, tmp_path):
    path = tmp_path / "result.h5"
    spt.io.save_result(path, made(spt.io.TileFolder, 3))
    function, match = HOSTILE[kind]
    with h5py.File(path, "a") as file:
        function(file)
    with pytest.raises(ValueError, match=f"(?i){match}"):
        spt.io.load_result(path)


# Shown


@pytest.mark.parametrize("count", [0, 1, 3, 12, 5000])
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_in_ten_lines_and_five_hundred_letters(name, count):
    text = repr(made(RESULTS[name], count))
    assert text.startswith(f"{name}(")
    assert len(text) <= 500
    assert text.count("\n") < 10


@pytest.mark.parametrize("name", RESULTS)
def test_every_field_is_named(name):
    text = repr(made(RESULTS[name], 5000))
    assert [f.name for f in fields(RESULTS[name]) if f"{f.name}=" not in text] == []


ODD = {
    "None": None,
    "NaN": np.nan,
    "NaNs": np.full(12, np.nan),
    "no axes": np.array(3.0),
    "infinite": np.array([-np.inf, np.nan, 1]),
    "empty": np.zeros((0, 3), object),
    "text": "a" * 1000,
    "words": np.array(["a", "b"]),
    "times": np.array(["2026-01-01"], "M8[D]"),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "complex": np.array([1j, np.nan]),
    "a dict": {"a": np.zeros(1000)},
    "any object": object(),
    "deep": [[[[np.zeros(99)]] * 3] * 3] * 3,
    "a class": spt.Peaks,
    "a big number": 10**400,
    "nothing": np.zeros(0, [("a", "f4")]),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_contents_are_shown_too(kind):
    text = repr(spt.Peaks(indices=ODD[kind], heights=ODD[kind]))
    assert len(text) <= 500


def shown(value):
    text = repr(spt.Peaks(indices=value, heights=0.0))
    return re.fullmatch(r"Peaks\(indices=(.*),\s+heights=0\)", text)[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.3333"),
        (-0.0, "0"),
        (123456.7, "123457"),
        (1.23456e-7, "1.235e-07"),
        (np.float32(2.5), "2.5"),
        (1 / 3 + 1j, "0.3333+1j"),
        (12345678, "12345678"),
        (True, "True"),
        (spt.Outcome.PRIOR_ONLY, "by prior only"),
        (np.array([1e-17, 0.5, 1]), "[0, 0.5, 1]"),
        (np.eye(2, dtype=int), "[[1, 0], [0, 1]]"),
        (np.zeros((120, 2)), "(120, 2)"),
        (np.zeros((120, 2), np.uint8), "uint8 (120, 2)"),
        (np.linspace(0, 2, 120), "(120,) 0 to 2"),
        (np.arange(17) > 0, "16 of 17"),
        (np.array([True, False]), "1 of 2"),
        (
            np.array(OUTCOMES[:1] * 11 + OUTCOMES[1:2], object),
            "[11 matched, 1 ambiguous]",
        ),
        (
            np.array(OUTCOMES[:1] * 9 + OUTCOMES[1:], object),
            "[9 matched, 1 ambiguous, 1 no texture, 6 others]",
        ),
        (["a"] * 10, "list of 10"),
        (range(9000), "range(0, 9000)"),
        (np.dtype(np.uint16), "uint16"),
        (Path("a"), "'a'"),
        (spt.Peaks(indices=0, heights=0), "Peaks(...)"),
    ],
)
def test_values_are_shown_as_they_are_read(value, text):
    assert shown(value) == text


def test_a_result_of_a_subclass_has_its_name():
    assert repr(made(spt.TilePlacement, 3)).startswith("TilePlacement(matrices=")


def test_showing_a_result_leaves_it_alone():
    result = replace(made(spt.Placement, 30), variance=1e-20)
    before = made(spt.Placement, 30)
    repr(result)
    check_same(before, replace(result, variance=before.variance))

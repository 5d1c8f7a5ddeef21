"""Keep results in a file, and get the same ones back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from math import isfinite, prod
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import h5py
import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.results import Outcome
from ._files import attribute, find, opened, read, told, written

__all__ = ["load_result", "save_result"]

FORMAT = "spectral_tools result"
VERSION = 1
# Numbers of any kind, and records of them.
KINDS = "biufcV"
# What fields are declared to be that are arrays.
ARRAY = get_origin(NDArray[Any])
NUMBER = re.compile("[<>|][biufc][0-9]+")


@checked
def save_result(path: str | os.PathLike[str], result: Any) -> None:
    """Write a result into a file, from which it comes back as it was.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        HDF5 file to write, by custom ending in ``.h5``.
    result : dataclass
        What a function of this package or of `io` returned, such as `TileMatches`,
        `ShiftEstimate`, `Placement`, `TransformEstimate` or `StackAlignment`.

    See Also
    --------
    load_result : The way back.

    Notes
    -----
    Every array is a dataset of its name, which other programs read too. Outcomes are
    stored as words, and texts and labels as JSON: strings, numbers, and tuples of them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
        >>> import spectral_tools as spt
    >>> placement = spt.solve_rigid([("a", "b")], [(0, 90)], [(0, 10)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "placement.h5"
    ...     spt.io.save_result(path, placement)
    ...     again = spt.io.load_result(path)
    >>> again.labels, bool((again.matrices == placement.matrices).all())
    (['a', 'b'], True)
    """
    if _class(type(result).__name__) is not type(result):
        message = f"`result` must be a result of this package; got {type(result)}."
        raise TypeError(message)
    with written(path) as file:
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        _put(file, result)


@checked
def load_result(path: str | os.PathLike[str]) -> Any:
    """Read a result from a file.

    Parameters
    ----------
    path : path_like
        File that `save_result` wrote.

    Returns
    -------
    dataclass
        The same result: types, values to the last bit, and labels.

    Notes
    -----
    Only results of this package are made, of arrays, numbers and text: opening a
    file runs nothing that is in it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
        >>> import numpy as np
    >>> import spectral_tools as spt
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> estimate = spt.phase_correlate(image[:, :60], image[:, 4:])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spt.io.save_result(Path(folder) / "shift.h5", estimate)
    ...     again = spt.io.load_result(Path(folder) / "shift.h5")
    >>> again.outcome, bool((again.shift == estimate.shift).all())
    (<Outcome.MATCHED: 'matched'>, True)
    """
    source = str(Path(path))
    with opened(path) as file:
        if str(attribute(file, "format", source)) != FORMAT:
            message = f"{source} must hold a {FORMAT}; got something else."
            raise ValueError(message)
        version = attribute(file, "version", source)
        if not isinstance(version, np.integer) or version != VERSION:
            message = f"{source} must be of version {VERSION}; got {version!r:.40}."
            raise ValueError(message)
        return _result(file, source, object, set())


def _class(name: Any) -> Any:
    """Return the public dataclass of a name, or None: nothing else is made of a file."""
    # By its name, because it is above all others; it is complete when this is called.
    package = import_module(__name__.partition(".")[0])
    for door in (package, package.io):
        if name in door.__all__ and is_dataclass(getattr(door, name)):
            return getattr(door, name)
    return None


def _put(group: Any, result: Any) -> None:
    group.attrs["class"] = np.bytes_(type(result).__name__)
    for field in fields(result):
        _put_value(group, field.name, getattr(result, field.name), field.name)


def _put_value(group: Any, key: str, value: Any, name: str) -> None:
    if is_dataclass(value):
        _put(group.create_group(key), value)
        return
    if isinstance(value, list) and any(map(_is_large, value)):
        items = group.create_group(key)
        items.attrs["kind"] = np.bytes_("list")
        for k, each in enumerate(value):
            _put_value(items, str(k), each, name)
        return
    kind, stored = _stored(value, name)
    item = group.create_dataset(key, data=stored)
    item.attrs["kind"] = np.bytes_(kind)
    if kind == "label array":
        item.attrs["shape"] = np.array(value.shape, np.int64)


def _is_large(value: Any) -> bool:
    """Tell whether an item of a list is more than a label."""
    return isinstance(value, np.ndarray | Path) or is_dataclass(value)


def _stored(value: Any, name: str) -> tuple[str, Any]:
    """Return what kind of value it is, and what goes into the file."""
    if isinstance(value, np.ndarray):
        return _stored_array(value, name)
    if value is None:
        return "none", np.bool_(False)
    if isinstance(value, Outcome):
        return "outcome", np.bytes_(value.value)
    if isinstance(value, bool | np.bool_):
        return "bool", np.bool_(value)
    if isinstance(value, Integral):
        return "int", np.int64(int(value))
    if isinstance(value, Real):
        return "float", np.float64(value)
    if isinstance(value, str):
        return "text", _json([str(value)], name)
    if isinstance(value, Path):
        return "path", _json([str(value)], name)
    if isinstance(value, np.dtype) and NUMBER.fullmatch(value.str):
        return "dtype", _json([value.str], name)
    if isinstance(value, range):
        return "range", np.array([value.start, value.stop, value.step], np.int64)
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return f"{kind} of labels", _json(value, name)
    message = (
        f"`result.{name}` must be an array, a number or labels; got {type(value)}."
    )
    raise TypeError(message)


def _stored_array(value: Any, name: str) -> tuple[str, Any]:
    if value.dtype.kind in KINDS and not value.dtype.hasobject:
        return "array", value
    if value.dtype.kind != "O":
        message = f"`result.{name}` must hold numbers or labels; got {value.dtype}."
        raise TypeError(message)
    if all(isinstance(each, Outcome) for each in value.flat):
        words = [str(each.value) for each in value.flat]
        return "outcomes", np.array(words, "S").reshape(value.shape)
    return "label array", _json(value.flat, name)


def _json(labels: Iterable[Any], name: str) -> Any:
    return np.bytes_(json.dumps([_label(each, name) for each in labels]))


def _label(label: Any, name: str) -> Any:
    """Return a label as JSON: a tuple becomes a list, the rest is itself."""
    if isinstance(label, tuple):
        return [_label(each, name) for each in label]
    if label is None or isinstance(label, str | bool):
        return label
    # Python takes integers apart that are longer, which takes long.
    if isinstance(label, Integral) and abs(int(label)) <= np.iinfo(np.int64).max:
        return int(label)
    if isinstance(label, Real) and not isinstance(label, Integral) and isfinite(label):
        return float(label)
    message = f"`result.{name}` must have numbers, strings and tuples; got {label!r}."
    raise TypeError(message)


def _result(group: Any, where: str, wanted: Any, seen: set[int]) -> Any:
    """Make the result that a group holds."""
    name = attribute(group, "class", where)
    made = _class(name) if isinstance(name, str) else None
    if made is None or not issubclass(made, wanted):
        message = f"{where} must hold a result of a known kind; got {name!r:.60}."
        raise ValueError(message)
    return made(
        **{
            field: _member(group, field, hint, f"{where}:{field}", name, seen)
            for field, hint in get_type_hints(made).items()
        }
    )


def _member(
    group: Any, key: str, hint: Any, where: str, owner: str, seen: set[int]
) -> Any:
    """Return a value of a group, which is what a field is declared to be."""
    item = find(group, key, where)
    with told(where):
        place = h5py.h5o.get_info(item.id).addr
    if place in seen:
        # A small file could name a large array any number of times.
        message = f"{where} must be a value of its own; got one that was there before."
        raise ValueError(message)
    seen.add(place)
    nested, listed = is_dataclass(hint), get_origin(hint) is list
    is_group = isinstance(item, h5py.Group)
    if is_group if not (nested or listed) else nested and not is_group:
        message = f"{where} must be a group or a dataset; got the other."
        raise ValueError(message)
    if nested:
        return _result(item, where, hint, seen)
    kind = attribute(item, "kind", where)
    if is_group:
        [each] = get_args(hint)
        with told(where):
            count = len(item)
        return [
            _member(item, str(k), each, f"{where}/{k}", owner, seen)
            for k in range(count)
        ]
    value = _value(item, kind, where)
    if not _fits(value, hint):
        message = f"{where} must be as a {owner} has it; got {kind} {value!r:.60}."
        raise ValueError(message)
    return value


def _value(item: Any, kind: Any, where: str) -> Any:
    """Return the value of a dataset, by what kind it says it is."""
    array = read(item, where)
    if kind == "array" and array.dtype.kind in KINDS:
        return array
    if kind == "none" and array.shape == ():
        return None
    if kind in ("bool", "int", "float") and array.shape == ():
        numbers = {"bool": bool, "int": int, "float": float}
        if array.dtype.kind == {"bool": "b", "int": "i", "float": "f"}[kind]:
            return numbers[kind](array)
    if kind == "range" and array.shape == (3,) and array.dtype.kind == "i" and array[2]:
        return range(*array.tolist())
    if array.dtype.kind == "S" and isinstance(kind, str):
        return _of_text(item, array, kind, where)
    message = f"{where} must be of a known kind; got {kind!r:.40} of {array.dtype}."
    raise ValueError(message)


def _of_text(item: Any, array: Any, kind: str, where: str) -> Any:
    """Return outcomes or labels, which are stored as text."""
    with told(where):
        words = [each.decode() for each in array.flat]
    if kind in ("outcome", "outcomes"):
        found = np.empty(len(words), object)
        with told(where):
            found[:] = [Outcome(word) for word in words]
        found = found.reshape(array.shape)
        return found[()] if kind == "outcome" else found
    if array.shape != ():
        message = f"{where} must be a text; got {array.shape} of them."
        raise ValueError(message)
    with told(where):
        listed = json.loads(
            words[0], object_pairs_hook=_refused, parse_constant=_refused
        )
        labels = [_tuples(label) for label in listed]
        if kind in ("text", "path", "dtype"):
            return _word(labels, kind)
    if kind == "label array":
        return _label_array(labels, attribute(item, "shape", where), where)
    return labels if kind == "list of labels" else tuple(labels)


def _word(labels: list[Any], kind: str) -> Any:
    """Return a text, or what it names."""
    [word] = labels
    if not isinstance(word, str) or (kind == "dtype" and not NUMBER.fullmatch(word)):
        message = f"A {kind} must be a text; got {word!r:.60}."
        raise ValueError(message)
    return {"text": str, "path": Path, "dtype": np.dtype}[kind](word)


def _refused(found: Any) -> None:
    message = f"Labels must be numbers, strings and lists; got {found!r:.60}."
    raise ValueError(message)


def _label_array(labels: list[Any], shape: Any, where: str) -> Any:
    """Return labels as an array of objects, none of which is taken for an axis."""
    sides = np.ravel(shape).tolist()
    whole = all(isinstance(side, int) and side >= 0 for side in sides)
    if not whole or prod(sides) != len(labels):
        message = f"{where} must have the shape of {len(labels)} labels; got {sides}."
        raise ValueError(message)
    found = np.empty(len(labels), object)
    found[:] = labels
    return found.reshape(sides)


def _tuples(label: Any) -> Any:
    return tuple(map(_tuples, label)) if isinstance(label, list) else label


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is what a field is declared to be."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind is UnionType:
        return any(_fits(value, each) for each in inner)
    if kind is Sequence:
        return isinstance(value, list | tuple | range)
    if kind is ARRAY:
        # The last part is a dtype, or the number itself in later versions of NumPy.
        number = inner[-1]
        [number] = get_args(number) if get_origin(number) is np.dtype else [number]
        number = get_origin(number) or number
        if not isinstance(value, np.ndarray):
            return False
        return number is Any or issubclass(value.dtype.type, number)
    if not isinstance(value, kind):
        return False
    if kind is tuple and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(_fits, value, inner))
    return kind not in (list, tuple) or all(_fits(each, inner[0]) for each in value)

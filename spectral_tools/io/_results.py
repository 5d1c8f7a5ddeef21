"""Keep results in a file, and get the same ones back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from math import isfinite, prod
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args, get_origin

import h5py
import numpy as np

from .._evaluation.simulate import SimulatedPair, SimulatedSeries, SimulatedTiles
from .._matching.match_tiles import TileMatches
from .._matching.orientation.match_orientation import OrientationEstimate
from .._matching.phase_correlate import ShiftEstimate
from .._placement.layout import StageModel
from .._placement.loop_closures import LoopClosures
from .._placement.place_tiles import TilePlacement
from .._placement.report import PlacementReport, SeamResiduals
from .._placement.solve_tiles import Placement
from .._point_matching.refine_pair import PointMatches
from .._rendering.composite import Composite
from .._rendering.illumination.gains import Gains
from .._rendering.illumination.shading import Shading
from .._series.align_series import SeriesAlignment
from .._series.sections.align_stack import StackAlignment
from .._series.sections.relax_meshes import MeshRelaxation
from .._shared.outcomes import Outcome
from .._spectral.correlation_surface import Peaks
from .._spectral.spectra import RingAverage, RingCoherence
from .._transforms.fields.fit_displacement import DisplacementFit
from ._files import attribute, find, opened, read, told, written

__all__ = ["load_result", "save_result"]

FORMAT = "spectral_tools result"
VERSION = 1
#: Nothing else is ever made of a file.
RESULTS: dict[str, type[Any]] = {
    each.__name__: each
    for each in (
        Composite,
        DisplacementFit,
        Gains,
        LoopClosures,
        MeshRelaxation,
        OrientationEstimate,
        Peaks,
        Placement,
        PlacementReport,
        PointMatches,
        RingAverage,
        RingCoherence,
        SeamResiduals,
        SeriesAlignment,
        Shading,
        ShiftEstimate,
        SimulatedPair,
        SimulatedSeries,
        SimulatedTiles,
        StackAlignment,
        StageModel,
        TileMatches,
        TilePlacement,
    )
}
# Python takes integers apart that are longer, which takes long.
LARGEST = 1 << 63


def save_result(path: str | os.PathLike[str], result: Any) -> None:
    """Write a result into a file, from which it comes back as it was.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        HDF5 file to write, by custom ending in ``.h5``.
    result : dataclass
        What a function of this package returned, such as `TileMatches`,
        `PointMatches`, `ShiftEstimate`, `Placement` or `StackAlignment`.

    See Also
    --------
    load_result : The way back.

    Notes
    -----
    Every array is a dataset of its name, which other programs read too. Outcomes are
    stored as words, and labels as JSON: strings, numbers, and tuples of them.

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
    if RESULTS.get(type(result).__name__) is not type(result):
        message = f"`result` must be a result of this package; got {type(result)}."
        raise TypeError(message)
    with written(path) as file:
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        _put(file, result)


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
        return _result(file, source)


def _put(group: Any, result: Any) -> None:
    group.attrs["class"] = np.bytes_(type(result).__name__)
    for field in fields(result):
        value = getattr(result, field.name)
        if is_dataclass(value):
            _put(group.create_group(field.name), value)
            continue
        kind, stored = _stored(value, field.name)
        item = group.create_dataset(field.name, data=stored)
        item.attrs["kind"] = np.bytes_(kind)
        if kind == "label array":
            item.attrs["shape"] = np.array(value.shape, np.int64)


def _stored(value: Any, name: str) -> tuple[str, Any]:
    """Return what kind of value it is, and what goes into the file."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return "array", value
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        if all(isinstance(each, Outcome) for each in value.flat):
            words = [str(each.value) for each in value.flat]
            return "outcomes", np.array(words, "S").reshape(value.shape)
        return "label array", _json(value.flat, name)
    if isinstance(value, Outcome):
        return "outcome", np.bytes_(value.value)
    if isinstance(value, bool | np.bool_):
        return "bool", np.bool_(value)
    if isinstance(value, Integral):
        return "int", np.int64(int(value))
    if isinstance(value, Real):
        return "float", np.float64(value)
    if isinstance(value, range):
        return "range", np.array([value.start, value.stop, value.step], np.int64)
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return f"{kind} of labels", _json(value, name)
    message = (
        f"`result.{name}` must be an array, a number or labels; got {type(value)}."
    )
    raise TypeError(message)


def _json(labels: Iterable[Any], name: str) -> Any:
    return np.bytes_(json.dumps([_label(each, name) for each in labels]))


def _label(label: Any, name: str) -> Any:
    """Return a label as JSON: a tuple becomes a list, the rest is itself."""
    if isinstance(label, tuple):
        return [_label(each, name) for each in label]
    if label is None or isinstance(label, str | bool):
        return label
    if isinstance(label, Integral) and abs(int(label)) < LARGEST:
        return int(label)
    if isinstance(label, Real) and not isinstance(label, Integral) and isfinite(label):
        return float(label)
    message = f"`result.{name}` must have numbers, strings and tuples; got {label!r}."
    raise TypeError(message)


def _result(group: Any, where: str, wanted: Any = None) -> Any:
    """Make the result that a group holds."""
    name = attribute(group, "class", where)
    made = RESULTS.get(name) if isinstance(name, str) else None
    if made is None or (wanted is not None and not issubclass(made, wanted)):
        message = f"{where} must hold a result of a known kind; got {name!r:.60}."
        raise ValueError(message)
    values = {}
    for field in fields(made):
        place = f"{where}:{field.name}"
        item = find(group, field.name, place)
        nested = is_dataclass(field.type)
        is_right = isinstance(item, h5py.Group if nested else h5py.Dataset)
        if not is_right:
            message = f"{place} must be a group or a dataset; got the other."
            raise ValueError(message)
        if nested:
            values[field.name] = _result(item, place, field.type)
            continue
        kind = attribute(item, "kind", place)
        value = _value(item, kind, place)
        if not _fits(value, field.type):
            message = f"{place} must be as a {name} has it; got {kind} {value!r:.60}."
            raise ValueError(message)
        values[field.name] = value
    return made(**values)


def _value(item: Any, kind: Any, where: str) -> Any:
    """Return the value of a dataset, by what kind it says it is."""
    array = read(item, where)
    if kind == "array" and array.dtype.kind in "biufc":
        return array
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
    if kind == "label array":
        return _label_array(labels, attribute(item, "shape", where), where)
    return labels if kind == "list of labels" else tuple(labels)


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


def _fits(value: Any, annotation: Any) -> bool:
    """Tell whether a value is what a field is declared to be."""
    if get_origin(annotation) is np.ndarray:
        [number] = get_args(get_args(annotation)[1])
        if not isinstance(value, np.ndarray):
            return False
        kind = get_origin(number) or number
        return kind is Any or issubclass(value.dtype.type, kind)
    if get_origin(annotation) is Sequence:
        return isinstance(value, list | tuple | range)
    return isinstance(value, annotation)

"""What comes into a public function is looked at by its annotation, before any work."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from functools import partial, wraps
from numbers import Real
from operator import index
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from .arrays import AnyArray, held_array
from .results import MEANINGS
from .workers import check_workers

__all__ = ["as_dtype", "checked", "gathered"]

Given = ParamSpec("Given")
Result = TypeVar("Result")
Door = Callable[[Any, str], Any]

# A number that an index of an array can hold is more than there is of anything.
MOST_COUNTED = np.iinfo(np.intp).max
TEXTS = (str, bytes, bytearray)


def checked(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a public function look at its arguments before it does anything.

    The annotation of an argument says which kind it is, and each kind has one door: it
    lets values through in one form, or raises an error that names the argument.
    """
    doors = {name: _door(note) for name, note in function.__annotations__.items()}
    code: Any = function.__code__
    names = code.co_varnames[: code.co_argcount]

    @wraps(function)
    def call(*inputs: Any, **options: Any) -> Result:
        held: list[Any] = [
            doors[name](value, name) for name, value in zip(names, inputs, strict=False)
        ]
        known: dict[str, Any] = {
            name: doors.get(name, _as_it_is)(value, name)
            for name, value in options.items()
        }
        return function(*held, *inputs[len(held) :], **known)

    return call


def _door(note: str) -> Door:
    """Return what looks at values of an annotation, which is one text."""
    kind = note.removesuffix(" | None")
    optional = kind != note
    if kind in MEANINGS and kind not in DOORS:
        kind = MEANINGS[kind]
    found = DOORS.get(kind)
    if found is None and kind.startswith("Literal["):
        found = _as_text
    if found is None and re.fullmatch(r"[A-Z]\w+", kind) and kind != "Any":
        found = partial(_as_result, kind)
    door = _as_it_is if found is None else found
    return partial(_or_none, door) if optional else door


def _or_none(door: Door, value: Any, name: str) -> Any:
    return None if value is None else door(value, name)


def _as_it_is(value: Any, name: str) -> Any:  # noqa: ARG001
    """Let everything through: what a function takes one by one, it looks at itself."""
    return value


def _refuse(name: str, wanted: str, value: Any) -> NoReturn:
    message = f"`{name}` must be {wanted}; got {type(value).__name__}."
    raise TypeError(message)


def _bare(value: Any) -> Any:
    """Return the number of an array without axes, whatever library it is of."""
    if isinstance(value, np.ma.MaskedArray) and (
        value.dtype.names or np.ma.is_masked(value)
    ):
        return value
    if getattr(value, "shape", None) != () or isinstance(value, np.generic):
        return value
    array = np.asarray(value)
    return array[()] if array.shape == () else value


def _is_number(value: Any) -> bool:
    """Tell whether a value is a real number; True and times are none."""
    if isinstance(value, np.generic):
        return value.dtype.kind in "iuf"
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _as_number(value: Any, name: str) -> float:
    bare = _bare(value)
    if not _is_number(bare):
        _refuse(name, "a number", value)
    try:
        held = float(bare)
    except (OverflowError, ValueError) as error:
        message = f"`{name}` must be a number of 64 bits; got a larger one."
        raise ValueError(message) from error
    whole = hasattr(bare, "__index__") and abs(held) < MOST_COUNTED
    return index(bare) if whole else held


def _as_integer(value: Any, name: str) -> int:
    bare = _bare(value)
    if not _is_number(bare) or not hasattr(bare, "__index__"):
        _refuse(name, "an integer", value)
    # Counts are no more than there is.
    return min(max(index(bare), -MOST_COUNTED), MOST_COUNTED)


def _as_flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        _refuse(name, "True or False", value)
    return bool(value)


def _as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        _refuse(name, "a string", value)
    return str.__str__(value)


def _listed(values: Any, name: str, wanted: str) -> list[Any]:
    """Return what a sequence, an array or an iterator holds."""
    if hasattr(values, "shape") and not isinstance(values, type):
        array = np.asarray(values)
        if array.ndim == 1:
            return list(array)
    elif isinstance(values, Iterable) and not isinstance(
        values, (*TEXTS, Mapping, AbstractSet)
    ):
        return list(values)
    _refuse(name, wanted, values)


def _as_each(door: Door, wanted: str, values: Any, name: str) -> tuple[Any, ...]:
    held = _listed(values, name, wanted)
    return tuple(door(value, f"{name}[{n}]") for n, value in enumerate(held))


def _as_integers(values: Any, name: str) -> tuple[int, ...]:
    held = list(map(_bare, _listed(values, name, "a sequence of integers")))
    if not all(_is_number(each) and hasattr(each, "__index__") for each in held):
        message = f"`{name}` must hold integers; got {values!r}."
        raise TypeError(message)
    return tuple(_as_integer(each, name) for each in held)


def _as_path(value: Any, name: str) -> Any:
    if not isinstance(value, str | os.PathLike):
        _refuse(name, "a path", value)
    if "\0" in os.fsdecode(value):
        message = f"`{name}` must be a path without null characters; got {value!r}."
        raise ValueError(message)
    return value


def _as_result(kind: str, value: Any, name: str) -> Any:
    if not _is_of(value, kind):
        article = "an" if kind[0] in "AEIO" else "a"
        _refuse(name, f"{article} {kind}", value)
    return value


def _is_of(value: Any, kind: str) -> bool:
    """Tell whether a value is of a class, which need not be imported for that."""
    return any(each.__name__ == kind for each in type(value).__mro__)


def _as_numbers(values: Any, name: str, kinds: str = "biuf") -> AnyArray:
    """Return an array of real numbers; a masked one keeps its mask."""
    array = values
    if type(values) is not np.ndarray and not isinstance(values, np.ma.MaskedArray):
        array = gathered(values, name)
    if array.dtype.kind not in kinds:
        if array.size or array.dtype.kind not in "OV":
            message = f"`{name}` must hold real numbers; got dtype {array.dtype}."
            raise TypeError(message)
        return np.zeros(array.shape)
    return array


def gathered(values: Any, name: str) -> AnyArray:
    """Return the array that something is, or the one of all that it holds."""
    if values is None or isinstance(values, (*TEXTS, Mapping, AbstractSet)):
        _refuse_numbers(name, values)
    arrays = ("__array__", "__array_interface__", "__float__", "__getitem__", "shape")
    if not any(hasattr(values, each) for each in arrays):
        if not isinstance(values, Iterable):
            _refuse_numbers(name, values)
        values = list(values)
    return held_array(values, name)


def _refuse_numbers(name: str, value: Any) -> NoReturn:
    message = f"`{name}` must hold real numbers; got {type(value).__name__}."
    raise TypeError(message)


def _as_text_or_numbers(values: Any, name: str) -> Any:
    return values if isinstance(values, str) else _as_numbers(values, name)


def _as_reference(values: Any, name: str) -> Any:
    bare = _bare(values)
    if _is_number(bare) and hasattr(bare, "__index__"):
        return _as_integer(bare, name)
    return _as_text_or_numbers(values, name)


def _as_matrix_or_estimate(values: Any, name: str) -> Any:
    known = _is_of(values, "TransformEstimate")
    return values if known else _as_numbers(values, name)


def _as_positions(values: Any, name: str) -> Any:
    """Return rows of numbers, or those of each label."""
    if not isinstance(values, Mapping):
        return _as_numbers(values, name)
    return {key: _as_numbers(each, f"{name}[{key!r}]") for key, each in values.items()}


def _as_masks(values: Any, name: str) -> Any:
    """Return one mask or several, of which some are None; stored ones are not read."""
    if isinstance(values, Mapping):
        return {key: _as_mask(each, f"{name}[{key!r}]") for key, each in values.items()}
    if isinstance(values, memoryview):
        values = np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.hasobject and values.ndim:
        values = list(values)
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        return _as_mask(values, name)
    if isinstance(values, (*TEXTS, AbstractSet)) or not isinstance(values, Iterable):
        _refuse(name, "a mask, or one for each image", values)
    return [_as_mask(each, f"{name}[{n}]") for n, each in enumerate(values)]


def _as_mask(value: Any, name: str) -> Any:
    stored = hasattr(value, "shape") and isinstance(
        getattr(value, "dtype", None), np.dtype
    )
    return value if value is None or stored else _as_numbers(value, name)


def _as_workers(value: Any, name: str) -> Any:
    if callable(value):
        return value
    bare = _bare(value)
    if not _is_number(bare) or not hasattr(bare, "__index__"):
        _refuse(name, "an integer or a map-like callable", value)
    check_workers(bare)
    return index(bare)


def _as_planes(value: Any, name: str) -> Any:
    if _is_number(_bare(value)):
        return _as_integer(value, name)
    return _as_each(_as_integers, "an integer or groups of integers", value, name)


def as_dtype(value: DTypeLike | None, name: str) -> np.dtype[Any]:
    try:
        # Old names of dtypes that hold no numbers are refused where numbers are needed.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return np.dtype(value)
    except (TypeError, ValueError, AttributeError, KeyError, SyntaxError) as error:
        message = f"`{name}` must be a dtype of NumPy; got {value!r}."
        raise TypeError(message) from error


def _as_generator(value: Any, name: str) -> np.random.Generator:
    if not isinstance(value, np.random.Generator):
        value = _bare(value)
        if not _is_number(value) or not hasattr(value, "__index__") or value < 0:
            _refuse(name, "a positive integer or a generator of NumPy", value)
        value = index(value)
    return np.random.default_rng(value)


_as_texts = partial(_as_each, _as_text, "a sequence of strings")
_as_flags = partial(_as_each, _as_flag, "a sequence of True and False")
_as_arrays = partial(_as_each, _as_numbers, "a sequence of arrays")

# The door of each kind, by the annotation that stands for it. Images that lie in stores,
# links and what is written to are not looked at here: `unstacked`, `number_links` and who
# writes do that.
DOORS: dict[str, Door] = {
    "ArrayLike": _as_numbers,
    "ArrayLike | Literal['estimate']": _as_text_or_numbers,
    "ArrayLike | Mapping[Hashable, ArrayLike]": _as_positions,
    "ArrayLike | NDArray[np.complex128]": partial(_as_numbers, kinds="biufcmMOSTUV"),
    "ArrayLike | Sequence[ArrayLike]": _as_it_is,
    "ArrayLike | TransformEstimate": _as_matrix_or_estimate,
    "ArrayLike | str": _as_text_or_numbers,
    "DTypeLike": as_dtype,
    "Model": _as_text,
    "Positions": _as_positions,
    "Seed": partial(_or_none, _as_generator),
    "Sequence[ArrayLike]": _as_arrays,
    "Sequence[ITKTransform]": partial(
        _as_each, partial(_as_result, "ITKTransform"), "a sequence of ITKTransform"
    ),
    "Sequence[Model]": _as_texts,
    "Sequence[int]": _as_integers,
    "Sequence[str]": _as_texts,
    "Valid": partial(_or_none, _as_masks),
    "Workers": _as_workers,
    "bool": _as_flag,
    "float": _as_number,
    "int": _as_integer,
    "int | Sequence[Sequence[int]]": _as_planes,
    "int | np.random.Generator": _as_generator,
    "str": _as_text,
    "str | int | ArrayLike": _as_reference,
    "str | os.PathLike[str]": _as_path,
    "tuple[bool, bool]": _as_flags,
    "tuple[int, ...]": _as_integers,
    "tuple[str, str]": _as_texts,
}

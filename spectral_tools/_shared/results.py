"""Results: what functions return that have several things to say."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from numbers import Integral, Real
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outcome", "result", "show_as_written"]


T = TypeVar("T")

# Nobody reads more numbers than a matrix of the plane has.
FEW = 9
# Outcomes that are named, the most frequent ones.
LISTED = 3
# Letters of a line, of a value too, and of all lines.
WIDTH, MOST = 79, 500
# Numbers between these are shown to whole units, all others with four digits.
WHOLE = 1e4, 1e7
# What is smaller than this share of the largest number beside it is rounding.
ROUNDING = 1e-12

# What the names of types stand for that are known inside of this package only.
MEANINGS = {
    "Block": "tuple[tuple[slice, ...], NDArray[Any]]",
    "Flags": "NDArray[np.bool_]",
    "Float": "np.floating[Any]",
    "Floats": "NDArray[np.float64]",
    "Image": "NDArray[np.floating[Any]]",
    "Ints": "NDArray[np.intp]",
    "Kind": "Literal['affine', 'similarity', 'rigid']",
    "Links": "ArrayLike | Sequence[tuple[Hashable, Hashable]]",
    "Method": "Literal['thin_plate', 'piecewise_affine']",
    "Model": "str",  # One of more than there is room for.
    "Order": "Literal['rows', 'columns', 'snake', 'columns-snake']",
    "Outside": "Literal['nan', 'nearest', 'affine']",
    "Positions": "ArrayLike | Mapping[Any, ArrayLike]",
    "Seed": "int | np.random.Generator | None",
    "Valid": "Sequence[ArrayLike | None] | ArrayLike | None",
    "Workers": "int | Callable[..., Iterable[Any]]",
}
PRIVATE = re.compile(rf"\b({'|'.join(MEANINGS)})\b")


@dataclass_transform(eq_default=False, kw_only_default=True, frozen_default=True)
def result(cls: type[T]) -> type[T]:
    """Make a class a result: a frozen dataclass that shows itself in a few lines."""
    made = dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)(cls)
    made.__repr__ = _summary  # type: ignore[method-assign]
    show_as_written(made)
    return made


def _summary(self: Any) -> str:
    """Return the name of a result, and of each field what can be read.

    That is a number, a few of them, how many are True or of which outcome, or a shape
    and from where to where a list of numbers goes. A dtype is told where it is
    not the usual one of points, indices and labels.
    """
    values = {each.name: getattr(self, each.name, None) for each in fields(self)}
    text = _filled(type(self).__name__, values, _shown)
    if len(text) > MOST:
        text = _filled(type(self).__name__, values, _shortest)
    return text if len(text) <= MOST else f"{text[: MOST - 4]}...)"


def _filled(name: str, values: dict[str, Any], shown: Any) -> str:
    parts = [f"{key}={shown(value)}" for key, value in values.items()]
    # Lines break between fields, and not in them.
    whole = ", ".join(part.replace(" ", "\0") for part in parts)
    text = fill(
        f"{name}({whole})",
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace("\0", " ")


def _shown(value: Any) -> str:
    """Return a value in a few words."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size > FEW:
        known = value[np.isfinite(value)] if value.dtype.kind in "iuf" else value[:0]
        if len(known):
            low, high = _number(known.min()), _number(known.max())
            return f"{_shape(value)} {low} to {high}"
    return _short(value)


def _short(value: Any) -> str:
    """Return a value in fewer words, whatever it is."""
    if isinstance(value, np.generic):
        return _text(value.item())
    if is_dataclass(value):
        return f"{type(value).__name__}(...)"
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.dtype):
        return str(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _shape(value)
    if isinstance(value, list | tuple) and len(value) > FEW:
        return f"{type(value).__name__} of {len(value)}"
    text = _text(value)
    if len(text) <= WIDTH:
        return text
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return f"{text[: WIDTH // 2]}...{text[-WIDTH // 3 :]}"


def _shortest(value: Any) -> str:
    """Return a value in the fewest words: a kind alone, and of outcomes the first."""
    if is_dataclass(value):
        return type(value).__name__
    return _array(value, 1) if isinstance(value, np.ndarray) else _short(value)


def _array(given: NDArray[Any], named: int = LISTED) -> str:
    """Return a few numbers, or how many of which kind, or a shape."""
    array = np.asarray(given)
    kind = array.dtype.kind
    if array.size and all(isinstance(each, StrEnum) for each in array.flat):
        return _counted(Counter(str(each.value) for each in array.flat), named)
    if kind == "b" and array.size:
        return f"{np.count_nonzero(array)} of {array.size}"
    if kind in "biufc" and 0 < array.size <= FEW:
        values = array
        if kind in "fc":
            size = np.abs(array)
            largest = size.max(initial=0, where=np.isfinite(size))
            values = np.where(size < ROUNDING * largest, 0, array)
        text = _text(values.tolist())
        if len(text) <= WIDTH:
            return text
    return _shape(array)


def _counted(counts: Counter[str], named: int) -> str:
    listed = [f"{count} {word}" for word, count in counts.most_common()]
    if len(listed) > LISTED:
        shown = sum(count for _, count in counts.most_common(named))
        listed = [*listed[:named], f"{counts.total() - shown} others"]
    return f"[{', '.join(listed)}]"


def _shape(array: Any) -> str:
    usual = str(array.dtype) in ("float64", "int64", "bool", "object")
    shape = str(tuple(array.shape))
    return shape if usual else f"{array.dtype} {shape}"


def _text(value: Any) -> str:
    """Return a number, a text, or a few of them."""
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_text, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, StrEnum):
        return str(value.value)
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, complex):
        return f"{value:.4g}"
    if isinstance(value, str | range) or value is None:
        return repr(value)
    return _number(value) if isinstance(value, Real) else type(value).__name__


def _number(number: Any) -> str:
    if isinstance(number, bool | np.bool_):
        return str(bool(number))
    if isinstance(number, Integral):
        return str(int(number))
    low, high = WHOLE
    # What is added makes 0 of -0.
    value = float(number) + 0.0
    return f"{value:.0f}" if low <= abs(value) < high else f"{value:.4g}"


class Outcome(StrEnum):
    """What became of a pair or a tile.

    Members are strings, so that ``outcome == "matched"`` holds and tables print
    well. A result for many pairs or tiles carries an object array of them.

    Attributes
    ----------
    MATCHED
        Pair: the images agree at the found shift. Tile: at least one link that
        the solution believes ties it to another tile.
    AMBIGUOUS
        Pair: a second shift is nearly as good as the best, as in a lattice. Tile: only
        such pairs tie it to others, and neither the stage nor clear links tell which
        shift is right.
    NO_TEXTURE
        Pair: an image is constant, empty or masked where they could overlap.
    FIXED_PATTERN
        Pair: what agrees is the camera (dust, vignetting), not the sample.
    BEYOND_BOUND
        Pair: the best shift lies outside of what was allowed.
    NOT_FOUND
        Pair: no shift agrees better than chance would.
    PRIOR_ONLY
        Tile: no usable link; it stays at the position that was given for it.
    CONTRADICTED
        Tile: it has links, but the solution believes none of them; or it hangs
        together with others, and a clear link contradicts the stage about where they
        all are. Point of a grid: it was found, but does not fit to those around it.
    ISOLATED
        Tile: no usable link and no given position; where it lies is unknown.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.Outcome.PRIOR_ONLY == "by prior only"
    True
    """

    MATCHED = "matched"
    AMBIGUOUS = "ambiguous"
    NO_TEXTURE = "no texture"
    FIXED_PATTERN = "fixed pattern"
    BEYOND_BOUND = "beyond bound"
    NOT_FOUND = "not found"
    PRIOR_ONLY = "by prior only"
    CONTRADICTED = "contradicted"
    ISOLATED = "isolated"


class Written(str):
    """An annotation that is shown without quotes, and means what it says in its module.

    ``inspect.signature`` shows what is not a type by its ``repr``; ``get_type_hints``
    evaluates the characters.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return PRIVATE.sub(lambda found: MEANINGS[found[1]], self[:])

    __str__ = __repr__


def show_as_written(*offered: Any) -> None:
    """Make annotations readable: of functions, of classes and of all in them."""
    items = [item for item in offered if not isinstance(item, ModuleType)]
    for item in filter(inspect.isclass, items[:]):
        items += filter(inspect.isfunction, vars(item).values())
    # What looks at arguments hides the function that it was made for.
    for item in [*items, *map(inspect.unwrap, items)]:
        notes = getattr(item, "__annotations__", None)
        if notes:
            item.__annotations__ = {
                name: Written(note) if type(note) is str else note
                for name, note in notes.items()
            }

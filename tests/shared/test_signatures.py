"""Signatures: what help and tooltips show of every public function and class."""

import builtins
import copy
import inspect
import os
import pickle
import pydoc
import re
import sys
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import dask.array
import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, DTypeLike, NDArray

import spectral_tools as spt

PUBLIC = {
    f"{prefix}{name}": getattr(door, name)
    for prefix, door in (("", spt), ("io.", spt.io), ("plot.", spt.plot))
    for name in door.__all__
    if callable(getattr(door, name))
    and getattr(door, name)
    not in (spt.Outcome, spt.PlacementWarning, spt.UnreadableWarning)
}
FUNCTIONS = {n: o for n, o in PUBLIC.items() if inspect.isfunction(o)}
CLASSES = {o.__name__: o for o in vars(spt).values() if inspect.isclass(o)}
CLASSES |= {o.__name__: o for o in vars(spt.io).values() if inspect.isclass(o)}
#: What a reader knows besides public classes.
KNOWN = {
    "Any": typing.Any,
    "ArrayLike": ArrayLike,
    "Axes": Axes,
    "Callable": Callable,
    "DTypeLike": DTypeLike,
    "Hashable": Hashable,
    "Iterable": Iterable,
    "Iterator": Iterator,
    "Literal": typing.Literal,
    "Mapping": Mapping,
    "NDArray": NDArray,
    "Path": Path,
    "Sequence": Sequence,
    "dask": dask,
    "np": np,
    "os": os,
}


def shown(item):
    """Return the text of each parameter's type and of what is returned."""
    signature = inspect.signature(item)
    found = {
        name: inspect.formatannotation(parameter.annotation)
        for name, parameter in signature.parameters.items()
    }
    if inspect.isfunction(item):
        found["return"] = inspect.formatannotation(signature.return_annotation)
    return found


def hints_of(item):
    """Evaluate annotations as they stand, with names that are imported late."""
    return typing.get_type_hints(item, localns={"Axes": Axes, "dask": dask})


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_are_short_words(name):
    for parameter, text in shown(PUBLIC[name]).items():
        assert "Union" not in text, parameter
        assert "_typing" not in text, parameter
        assert len(text) <= 60, parameter
        # The words of a choice are the only ones in quotes.
        assert "'" not in re.sub(r"Literal\[('[\w-]+'(, )?)+\]", "", text), parameter
        assert '"' not in text, parameter


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_name_what_a_reader_knows(name):
    for parameter, text in shown(PUBLIC[name]).items():
        bare = re.sub(r"'[\w-]+'", "", text)
        words = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", bare))
        words -= {*dir(builtins), *KNOWN, *CLASSES}
        assert not words, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_show_the_types_that_are_checked(name):
    """What is shown means what the source says, by whatever name."""
    hints = hints_of(FUNCTIONS[name])
    for parameter, text in shown(FUNCTIONS[name]).items():
        if "Literal['translation'" in str(hints[parameter]):
            # More words than there is room for: the docstring has them.
            assert text in {"str", "Sequence[str]"}
        else:
            meant = eval(text, {**KNOWN, **CLASSES})
            assert hints[parameter] == (type(None) if meant is None else meant)


@pytest.mark.parametrize("name", PUBLIC)
def test_types_can_be_evaluated(name):
    item = PUBLIC[name]
    item = item.__init__ if inspect.isclass(item) else item
    hints = hints_of(item)
    assert set(hints) - {"return"} == set(shown(PUBLIC[name])) - {"return"}
    if not {"Axes", "dask"} & set(re.findall(r"\w+", str(shown(PUBLIC[name])))):
        parameters = inspect.signature(item, eval_str=True).parameters
        assert hints.items() >= {
            (name, parameter.annotation)
            for name, parameter in parameters.items()
            if name in hints and parameter.annotation is not None
        }


def test_every_private_name_of_a_type_is_in_use():
    module = sys.modules[type(spt.rotation.__annotations__["angle"]).__module__]
    notes = [n for o in PUBLIC.values() for n in o.__annotations__.values()]
    words = {word for note in notes for word in re.findall(r"\w+", note[:])}
    assert set(module.MEANINGS) <= words


def test_methods_are_shown_so_too():
    assert str(inspect.signature(spt.io.TileFile.__array__)) == (
        "(self, dtype: DTypeLike | None = None, copy: bool | None = None)"
        " -> NDArray[Any]"
    )


def test_help_shows_what_the_source_says():
    text = pydoc.plain(pydoc.render_doc(spt.phase_correlate))
    assert "reference: ArrayLike," in text
    assert "moving_valid: ArrayLike | None = None" in text
    assert "-> ShiftEstimate\n" in text


def test_public_functions_are_still_themselves():
    again = pickle.loads(pickle.dumps(spt.phase_correlate))
    assert again is spt.phase_correlate
    assert copy.copy(spt.translation) is spt.translation

"""Write Universal Spectroscopy and Imaging Data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.checks import as_finite
from ._files import written
from ._image_source import known_values

__all__ = ["write_usid"]

FOLDER = "Measurement_000/Channel_000"
# Positions (plane, row, col) as everybody calls them.
POSITIONS = ("Z", "Y", "X")
# An axis that stands for nothing, where the format wants one.
NOTHING = ("arb", "", np.zeros(1))

Axis = tuple[str, str, NDArray[np.float64]]


@checked
def write_usid(
    path: str | os.PathLike[str],
    data: ArrayLike | NDArray[np.complex128],
    *,
    quantity: str,
    units: str,
    positions: int = 2,
    axes: Sequence[str] | None = None,
    axis_units: Sequence[str] | None = None,
    axis_values: Sequence[ArrayLike] | None = None,
) -> None:
    """Write an array with named axes as Universal Spectroscopy and Imaging Data.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        HDF5 file to write, by custom ending in ``.h5``.
    data : array_like
        Values, with the axes of positions before the others: an image (rows, cols),
        or a spectrum at each of its pixels, (rows, cols, n).
    quantity : str
        What was measured.
    units : str
        Unit of the values.
    positions : int, optional
        How many of the axes are positions; the last of them was scanned fastest.
    axes : sequence of str, optional
        Name of each axis. By default positions are Z, Y and X.
    axis_units : sequence of str, optional
        Unit of each axis.
    axis_values : sequence of array_like, optional
        Where each index of each axis lies, of shape (n,); or of the shape of all
        positions, or of all others, if it depends on the other indices too.

    See Also
    --------
    read_usid : The way back.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> cube = np.arange(24).reshape(2, 3, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.h5"
    ...     spt.io.write_usid(
    ...         path,
    ...         cube,
    ...         quantity="Current",
    ...         units="nA",
    ...         axes=["Y", "X", "Bias"],
    ...         axis_units=["um", "um", "V"],
    ...         axis_values=[[0, 0.5], [0, 0.5, 1], [-2, -1, 1, 2]],
    ...     )
    ...     found = spt.io.read_usid(path)
    >>> bool((found.data == cube).all()), found.axis_values[2]
    (True, array([-2., -1.,  1.,  2.], dtype=float32))
    """
    values = known_values(data, "data")
    if values.dtype.hasobject or values.dtype.kind not in "biufcV" or not values.size:
        message = f"`data` must hold numbers; got {values.size} of {values.dtype}."
        raise ValueError(message)
    if not 0 <= positions <= values.ndim:
        message = (
            f"`positions` must be from 0 to {values.ndim}, the axes of `data`; "
            f"got {positions}."
        )
        raise ValueError(message)
    _check_texts([quantity, units], "quantity and units")
    sides = values.shape[:positions], values.shape[positions:]
    described = _axes(sides, axes, axis_units, axis_values)
    with written(path) as file:
        group = file.create_group(FOLDER)
        flat = values.reshape(prod(sides[0]), prod(sides[1]))
        main = group.create_dataset("Raw_Data", data=flat)
        main.attrs["quantity"], main.attrs["units"] = quantity, units
        for base, side in (("Position", 0), ("Spectroscopic", 1)):
            tables = _tables(sides[side] or (1,), described[side] or [NOTHING])
            names, unit_names, *_ = zip(*(described[side] or [NOTHING]), strict=True)
            for kind, table in zip(("Indices", "Values"), tables, strict=True):
                # Fastest first, and spectroscopic tables lie on their side.
                listed = table[:, ::-1]
                listed = listed.T if side else listed
                item = group.create_dataset(f"{base}_{kind}", data=listed)
                text = h5py.string_dtype()
                item.attrs["labels"] = np.array(names[::-1], text)
                item.attrs["units"] = np.array(unit_names[::-1], text)
                main.attrs[f"{base}_{kind}"] = item.ref


def _axes(
    sides: tuple[tuple[int, ...], tuple[int, ...]],
    axes: Sequence[str] | None,
    units: Sequence[str] | None,
    values: Sequence[ArrayLike] | None,
) -> tuple[list[Axis], list[Axis]]:
    """Return the name, unit and values of every axis, of positions and others."""
    count = len(sides[0]) + len(sides[1])
    if axes is None:
        short = POSITIONS[max(len(POSITIONS) - len(sides[0]), 0) :]
        more = [f"Position_{k}" for k in range(len(sides[0]) - len(POSITIONS))]
        axes = [*more, *short, *(f"Axis_{k}" for k in range(len(sides[1])))]
    for name, given in (("axes", axes), ("axis_units", units), ("axis_values", values)):
        if given is not None and (isinstance(given, str) or len(given) != count):
            message = f"`{name}` must be one for each of {count} axes; got {given!r}."
            raise ValueError(message)
    names, texts = list(axes), [""] * count if units is None else list(units)
    _check_texts([*names, *texts], "axes and axis_units")
    if len(set(names)) < count:
        message = f"`axes` must differ from each other; got {names}."
        raise ValueError(message)
    found: tuple[list[Axis], list[Axis]] = ([], [])
    for axis in range(count):
        side = int(axis >= len(sides[0]))
        shape, place = sides[side], axis - side * len(sides[0])
        along = np.arange(shape[place], dtype=np.float64)
        if values is not None:
            along = as_finite(values[axis], "axis_values")
        if along.shape not in ((shape[place],), shape):
            message = (
                f"`axis_values` must have shape ({shape[place]},) or {shape} for "
                f"{names[axis]}; got {along.shape}."
            )
            raise ValueError(message)
        found[side].append((names[axis], texts[axis], along))
    return found


def _check_texts(texts: list[Any], names: str) -> None:
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        message = f"`{names}` must be strings; got {texts}."
        raise TypeError(message)


def _tables(
    shape: tuple[int, ...], axes: list[Axis]
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Return indices and values of every place of a grid, one column for each axis."""
    indices = np.indices(shape, dtype=np.uint32)
    columns = [
        along[index] if along.ndim == 1 else along
        for index, (_, _, along) in zip(indices, axes, strict=True)
    ]
    values = np.stack([column.ravel() for column in columns], axis=1)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    # The rules ask for single precision; what it would change stays double.
    exact = bool((single == values).all())
    flat = indices.reshape(len(shape), -1).T
    return np.ascontiguousarray(flat), single if exact else values

"""Spectra on grids of positions, as Universal Spectroscopy and Imaging Data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.arrays import Ints
from .._shared.results import result
from ._files import attribute, datasets, find, opened, read, told

__all__ = ["USIDData", "USIDEntry", "read_usid", "read_usid_tree"]


# What a dimension is called that stands for nothing.
NOTHING = ("", "arb", "arb.", "none")
# A grid has at most this many times as many places as were measured: a spiral that
# numbers its points by their own coordinates is not a grid.
SPARSEST = 64

POSITION = ("Position_Indices", "Position_Values")
SPECTROSCOPIC = ("Spectroscopic_Indices", "Spectroscopic_Values")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Where each position, or each value at a position, lies on a grid.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes of the grid, the one that changes slowest first.
    places : ndarray of int, shape (n,)
        Number of the place of each row of the table, in the order of the grid.
    labels, units : list of str
        Name and unit of each axis.
    values : list of ndarray
        Coordinates along each axis.
    """

    shape: tuple[int, ...]
    places: Ints
    labels: list[str]
    units: list[str]
    values: list[NDArray[Any]]

    @classmethod
    def of(
        cls,
        indices: NDArray[Any],
        values: NDArray[Any],
        labels: list[str],
        units: list[str],
        where: str,
    ) -> Table:
        """Make sense of tables of shape (n, n_dims), or say what is wrong."""
        if values.dtype.kind not in "iuf" or indices.dtype.kind not in "iuf":
            message = f"{where} must hold real numbers; got {indices.dtype}."
            raise ValueError(message)
        whole = np.isfinite(indices) & (np.floor(indices) == indices)
        if not whole.all():
            message = f"{where} must hold whole numbers; got fractions."
            raise ValueError(message)
        if indices.shape[1] == 0:
            message = f"{where} must have a dimension; got none."
            raise ValueError(message)
        order = _slowest_first(indices)
        columns = [
            np.unique(indices[:, k], return_inverse=True)[1].ravel() for k in order
        ]
        shape = tuple(int(column.max()) + 1 for column in columns)
        if prod(shape) > SPARSEST * len(indices):
            message = f"{where} must be a grid; got {len(indices)} places in {shape}."
            raise ValueError(message)
        places = np.ravel_multi_index(columns, shape).astype(np.intp)
        if len(np.unique(places)) < len(places):
            message = f"{where} must name every place once; got some twice."
            raise ValueError(message)
        return cls(
            shape=shape,
            places=places,
            labels=[labels[k] for k in order],
            units=[units[k] for k in order],
            values=[
                _coordinates(values[:, k], column, places, shape)
                for k, column in zip(order, columns, strict=True)
            ],
        )


def on_grid(
    values: NDArray[Any],
    tables: tuple[Table, Table],
    fill_value: complex | None,
    where: str,
) -> NDArray[Any]:
    """Put values (position, other) where tables tell, and what fills elsewhere."""
    sides = prod(tables[0].shape), prod(tables[1].shape)
    missing = prod(sides) - values.size
    rows, cols = (_slots(table) for table in tables)
    if isinstance(rows, slice) and isinstance(cols, slice) and not missing:
        return values
    if missing:
        _check_fill(values, tables, fill_value, where)
    found = np.full(sides, fill_value if missing else 0, values.dtype)
    if isinstance(rows, np.ndarray) and isinstance(cols, np.ndarray):
        rows = rows[:, np.newaxis]
    found[rows, cols] = values
    return found


def _slots(table: Table) -> Ints | slice:
    """Return the places of rows, as a slice if they are in order: that is faster."""
    count = len(table.places)
    in_order = (table.places == np.arange(count)).all()
    return slice(count) if in_order else table.places


def _check_fill(
    values: NDArray[Any],
    tables: tuple[Table, Table],
    fill_value: complex | None,
    where: str,
) -> None:
    """Raise unless something fills places without values, and fits among them."""
    shape = tables[0].shape + tables[1].shape
    if fill_value is None:
        message = (
            f"{where} must hold all places of {shape}, or `fill_value` be given; "
            f"got {values.size}."
        )
        raise ValueError(message)
    if not np.can_cast(np.min_scalar_type(fill_value), values.dtype, "same_kind"):
        message = f"`fill_value` must fit {values.dtype}; got {fill_value!r}."
        raise ValueError(message)
    if prod(shape) > SPARSEST * values.size:
        message = f"{where} must be a grid; got {values.size} places in {shape}."
        raise ValueError(message)


def kept_axes(table: Table) -> list[int]:
    """Return the axes of a table without the one that stands for nothing."""
    alone = table.shape == (1,) and table.labels[0].strip().lower() in NOTHING
    return [] if alone else list(range(len(table.shape)))


def _slowest_first(indices: NDArray[Any]) -> list[int]:
    """Return the columns of a table of indices, the one that changes most at the end.

    An axis of length 1 never changes: it stays where it is listed. Tables begin with
    the fastest one, unless the others tell that this one does not.
    """
    speed = np.count_nonzero(indices[1:] != indices[:-1], axis=0)
    listed = [k for k in range(len(speed)) if speed[k]]
    order = list(range(len(speed)))
    if len(listed) < 2 or speed[listed[0]] >= speed[listed[-1]]:
        order.reverse()
    moving = sorted((k for k in order if speed[k]), key=lambda k: int(speed[k]))
    return [moving.pop(0) if speed[k] else k for k in order]


def _coordinates(
    values: NDArray[Any], column: Ints, places: Ints, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the coordinates along one axis, or all of them if they depend on more."""
    first = np.unique(column, return_index=True)[1]
    found = values[first]
    same = found[column] == values
    if (same | (np.isnan(values) & np.isnan(found[column]))).all():
        return found
    table = np.full(prod(shape), np.nan, np.result_type(values, np.float32))
    table[places] = values
    return table.reshape(shape)


@result
class USIDEntry:
    """A main dataset of a file.

    Attributes
    ----------
    path : str
        Where it lies in the file.
    shape : tuple of 2 int
        How many positions, and how many values at each.
    quantity : str
        What was measured.
    units : str
        Unit of the values.
    """

    path: str
    shape: tuple[int, int]
    quantity: str
    units: str


@result
class USIDData:
    """A main dataset as an array with named axes.

    Attributes
    ----------
    data : ndarray
        Values, with the axes of positions before the others. Among either, the one
        along which neighbours were measured one after the other is the last: an
        image that was scanned line by line is (row, col).
    positions : int
        How many of the axes are positions.
    axes : list of str
        Name of each axis.
    axis_units : list of str
        Unit of each axis.
    axis_values : list of ndarray
        Where each index of each axis lies, of shape (n,); or of the shape of all
        positions, or of all others, if it depends on the other indices too.
    quantity : str
        What was measured.
    units : str
        Unit of the values.
    """

    data: NDArray[Any]
    positions: int
    axes: list[str]
    axis_units: list[str]
    axis_values: list[NDArray[Any]]
    quantity: str
    units: str


@checked
def read_usid_tree(path: str | os.PathLike[str]) -> list[USIDEntry]:
    """List the main datasets of a file.

    Parameters
    ----------
    path : path_like
        HDF5 file of pyUSID or of others that keep to its rules [1]_.

    Returns
    -------
    list of USIDEntry
        Every dataset of two axes with a quantity, units, and links to tables of its
        positions and of what was varied at each, sorted by path. Links that lead out
        of the file are not followed.

    See Also
    --------
    read_usid : Read one of them.

    References
    ----------
    .. [1] Somnath et al. (2019). USID and Pycroscopy -- Open frameworks for storing
       and analyzing spectroscopic and imaging data. :doi:`10.48550/arXiv.1903.09515`

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.h5"
    ...     spt.io.write_usid(path, np.ones((3, 5)), quantity="Height", units="nm")
    ...     [entry] = spt.io.read_usid_tree(path)
    >>> entry.path, entry.shape, entry.quantity
    ('/Measurement_000/Channel_000/Raw_Data', (15, 1), 'Height')
    """
    with opened(path) as file:
        return [
            _entry(dataset, where)
            for dataset in datasets(file, str(Path(path)))
            if _complaint(dataset, where := f"{Path(path)}:{dataset.name}") == ""
        ]


@checked
def read_usid(
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    fill_value: complex | None = None,
) -> USIDData:
    """Read a main dataset as an array with named axes.

    Parameters
    ----------
    path : path_like
        HDF5 file of pyUSID or of others that keep to its rules.
    dataset : str, optional
        Path of the dataset in the file; not needed if it is the only one.
    fill_value : number, optional
        What positions have that were not measured, in a scan that was interrupted
        or skipped some. By default such a dataset is refused.

    Returns
    -------
    USIDData
        Values, and where each lies. An axis of length 1 that only stands for
        "nothing varied" is left out, so that an image has two axes.

    See Also
    --------
    read_usid_tree : List the datasets.
    write_usid : The way back.

    Notes
    -----
    The rules do not say in which order the dimensions are listed, nor positions
    measured. Both are found from the tables of indices.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> cube = np.arange(24.0).reshape(2, 3, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.h5"
    ...     spt.io.write_usid(
    ...         path, cube, quantity="Current", units="nA", axes=["Y", "X", "Bias"]
    ...     )
    ...     found = spt.io.read_usid(path)
    >>> found.data.shape, found.axes
    ((2, 3, 4), ['Y', 'X', 'Bias'])
    """
    with opened(path) as file:
        main, where = _main(file, str(Path(path)), dataset)
        entry = _entry(main, where)
        tables = _table(main, POSITION, where), _table(main, SPECTROSCOPIC, where)
        values = read(main, where)
    if values.dtype.hasobject or values.dtype.kind not in "biufcV":
        message = f"{where} must hold numbers; got dtype {values.dtype}."
        raise ValueError(message)
    values = on_grid(values, tables, fill_value, where)
    kept = [(table, k) for table in tables for k in kept_axes(table)]
    return USIDData(
        data=values.reshape([table.shape[k] for table, k in kept]),
        positions=len(kept_axes(tables[0])),
        axes=[table.labels[k] for table, k in kept],
        axis_units=[table.units[k] for table, k in kept],
        axis_values=[table.values[k] for table, k in kept],
        quantity=entry.quantity,
        units=entry.units,
    )


def _main(file: Any, source: str, path: str | None) -> tuple[Any, str]:
    """Return the dataset that is asked for, or the only one, and what it is called."""
    if path is not None:
        where = f"{source}:{path}"
        found = find(file, path, where)
        complaint = _complaint(found, where)
        if complaint:
            message = f"{where} must be a main dataset; got {complaint}."
            raise ValueError(message)
        return found, where
    listed = [
        each
        for each in datasets(file, source)
        if _complaint(each, f"{source}:{each.name}") == ""
    ]
    if len(listed) != 1:
        names = [each.name for each in listed[:10]]
        message = (
            f"{source} must have one main dataset, or `dataset` name one of them; "
            f"got {names}."
        )
        raise ValueError(message)
    return listed[0], f"{source}:{listed[0].name}"


def _complaint(item: Any, where: str) -> str:
    """Return what a dataset lacks to be a main one; nothing if it is one."""
    if not isinstance(item, h5py.Dataset):
        return "no dataset"
    with told(where):
        shape = item.shape
    if shape is None or len(shape) != 2 or 0 in shape:
        return f"shape {shape}"
    for name in ("quantity", "units"):
        if not isinstance(attribute(item, name, where), str):
            return f"no text as {name}"
    for names, axis in ((POSITION, 0), (SPECTROSCOPIC, 1)):
        for name in names:
            table = _linked(item, name, where)
            if not isinstance(table, h5py.Dataset):
                return f"no link to {name}"
            with told(where):
                sides = table.shape
            if sides is None or len(sides) != 2 or sides[axis] != shape[axis]:
                return f"{name} of shape {sides}"
    return ""


def _entry(item: Any, where: str) -> USIDEntry:
    with told(where):
        name, (rows, cols) = item.name, item.shape
    return USIDEntry(
        path=name,
        shape=(int(rows), int(cols)),
        quantity=attribute(item, "quantity", where),
        units=attribute(item, "units", where),
    )


def _linked(item: Any, name: str, where: str) -> Any:
    """Return the dataset of the same file that an attribute refers to."""
    reference = attribute(item, name, where)
    if not isinstance(reference, h5py.Reference) or not reference:
        return None
    with told(f"{where}, attribute {name}"):
        return item.file[reference]


def _table(main: Any, names: tuple[str, str], where: str) -> Table:
    """Read a pair of tables, with one row for each position or spectroscopic value."""
    arrays: list[NDArray[Any]] = []
    texts: list[list[list[str]]] = []
    for name in names:
        item, place = _linked(main, name, where), f"{where}, {name}"
        array = read(item, place)
        # Spectroscopic tables lie on their side.
        array = array if names is POSITION else array.T
        arrays.append(array)
        texts.append(
            [_texts(item, key, array.shape[1], place) for key in ("labels", "units")]
        )
    if arrays[0].shape != arrays[1].shape or texts[0] != texts[1]:
        message = f"{where} must have {names[0]} that go with {names[1]}; got others."
        raise ValueError(message)
    return Table.of(
        arrays[0], arrays[1], texts[0][0], texts[0][1], f"{where}, {names[0]}"
    )


def _texts(item: Any, key: str, count: int, where: str) -> list[str]:
    """Return the names or the units of the dimensions of a table."""
    found = attribute(item, key, where)
    listed: Sequence[Any] = (
        [found] if isinstance(found, str) else np.ravel(found).tolist()
    )
    if len(listed) != count or not all(isinstance(each, str) for each in listed):
        message = f"{where} must have {count} texts as {key}; got {listed!r:.60}."
        raise ValueError(message)
    return [str(each) for each in listed]

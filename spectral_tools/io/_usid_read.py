"""Spectra on grids of positions, as Universal Spectroscopy and Imaging Data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ._files import attribute, datasets, find, opened, read, told
from ._usid_tables import Table, kept_axes, on_grid

__all__ = ["USIDData", "USIDEntry", "read_usid", "read_usid_tree"]

POSITION = ("Position_Indices", "Position_Values")
SPECTROSCOPIC = ("Spectroscopic_Indices", "Spectroscopic_Values")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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

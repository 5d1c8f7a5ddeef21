"""Tables of indices and values that tell where each number lies."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Ints

__all__ = ["Table", "kept_axes", "on_grid"]


# What a dimension is called that stands for nothing.
NOTHING = ("", "arb", "arb.", "none")
# A grid has at most this many times as many places as were measured: a spiral that
# numbers its points by their own coordinates is not a grid.
SPARSEST = 64


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
    ) -> "Table":
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

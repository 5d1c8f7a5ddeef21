"""Tables of indices and values that tell where each number lies (floor 2)."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Table", "gathered", "kept_axes"]

Ints = NDArray[np.intp]

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


def gathered(
    values: NDArray[Any],
    table: Table,
    axis: int,
    fill_value: complex | None,
    where: str,
) -> NDArray[Any]:
    """Replace an axis of a table's rows by the axes of its grid."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    count = prod(table.shape)
    missing = count - len(table.places)
    found = np.empty((*before, count, *after), values.dtype)
    if missing:
        if fill_value is None:
            message = (
                f"{where} must hold all {count} places of {table.shape}, or "
                f"`fill_value` be given; got {len(table.places)}."
            )
            raise ValueError(message)
        kind = np.min_scalar_type(fill_value)
        if not np.can_cast(kind, values.dtype, "same_kind"):
            message = f"`fill_value` must fit {values.dtype}; got {fill_value!r}."
            raise ValueError(message)
        found[...] = fill_value
    np.moveaxis(found, axis, 0)[table.places] = np.moveaxis(values, axis, 0)
    return found.reshape((*before, *table.shape, *after))


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

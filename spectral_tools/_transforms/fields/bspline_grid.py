"""Smooth fields as sums of cubic B-splines on a regular grid."""

from itertools import combinations_with_replacement
from math import factorial, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._sampling.splines import bspline_weights
from ..._shared.arrays import Floats
from ..._shared.sparse import sparse_rows, sum_of_products

__all__ = [
    "ControlGrid",
    "bending_energy",
    "control_grid",
    "field_at_pixels",
    "ground_energy",
    "knot_shares",
    "shares_at",
]


# The ground holds what neither points nor bending do, weak beside any measurement:
# strains beyond this are not expected,
STRAIN = 3.0
# nor displacements beyond this many sides of the image.
TRAVEL = 300.0
# Points and weights that integrate polynomials up to degree 7 from 0 to 1.
GAUSS, SHARES = np.polynomial.legendre.leggauss(4)
GAUSS, SHARES = 0.5 * (GAUSS + 1), 0.5 * SHARES


class ControlGrid(NamedTuple):
    """Cells that an image is divided into; B-splines reach over four along each axis.

    Attributes
    ----------
    shape : tuple of int
        Pixels along each axis.
    cells : tuple of int
        Cells along each axis. Borders of cells lie on the borders of the image.
    """

    shape: tuple[int, ...]
    cells: tuple[int, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        """B-splines along each axis."""
        return tuple(cells + 3 for cells in self.cells)

    @property
    def pitch(self) -> Floats:
        """Side of the cells, in pixels."""
        return np.array(self.shape) / np.array(self.cells)


def control_grid(shape: tuple[int, ...], spacing: Floats) -> ControlGrid:
    """Return the grid whose cells come nearest to a given size."""
    # No cell is smaller than a pixel.
    cells = np.clip(np.rint(np.array(shape) / spacing), 1, shape).astype(int)
    return ControlGrid(shape, tuple(cells.tolist()))


def _along(grid: ControlGrid, axis: int, where: Floats) -> tuple[Any, Floats]:
    """Return the first B-spline and the values of four at coordinates on one axis.

    Beyond the border of the image, what is at the border goes on.
    """
    cells = grid.cells[axis]
    inside = np.clip((where + 0.5) * cells / grid.shape[axis], 0, cells)
    first = np.minimum(inside.astype(np.intp), cells - 1)
    return first, bspline_weights(inside - first)


def shares_at(grid: ControlGrid, points: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return which B-splines make up the field at points, and their shares.

    Parameters
    ----------
    grid : ControlGrid
        The grid.
    points : ndarray of shape (n, ndim)
        Points in pixels.

    Returns
    -------
    tuple
        Numbers of B-splines and their values, both of shape (n, 4 ** ndim).
    """
    count = len(points)
    numbers = np.zeros((count, 1), np.intp)
    heights = np.ones((count, 1))
    for axis, nodes in enumerate(grid.nodes):
        first, weights = _along(grid, axis, points[:, axis])
        own = first[:, None] + np.arange(4)
        wide = count, 4 ** (axis + 1)
        numbers = (numbers[:, :, None] * nodes + own[:, None]).reshape(wide)
        heights = (heights[:, :, None] * weights[:, None]).reshape(wide)
    return numbers, heights


def field_at_pixels(grid: ControlGrid, values: Floats) -> Floats:
    """Return the field at all pixels.

    Parameters
    ----------
    grid : ControlGrid
        The grid.
    values : ndarray of shape (nodes, k)
        Coefficients of all B-splines.

    Returns
    -------
    ndarray of shape (*shape, k)
        The field, in single precision if the coefficients are.
    """
    field = values.reshape(*grid.nodes, -1)
    for axis, size in enumerate(grid.shape):
        first, weights = _along(grid, axis, np.arange(size, dtype=np.float64))
        weights = weights.astype(values.dtype, copy=False)
        rows = sparse_rows(first[:, None] + np.arange(4), weights, grid.nodes[axis])
        lines = np.moveaxis(field, axis, 0)
        spread = rows @ lines.reshape(len(lines), -1)
        field = np.moveaxis(spread.reshape(size, *lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(field)


def knot_shares(grid: ControlGrid) -> tuple[NDArray[np.intp], Floats]:
    """Return which B-splines make up the field at the corners of cells, and how much.

    Only three of them count along each axis.
    """
    knots = [np.arange(cells + 1) for cells in grid.cells]
    first = np.stack(np.meshgrid(*knots, indexing="ij"), -1).reshape(-1, len(knots))
    numbers = np.zeros((len(first), 1), np.intp)
    heights = np.ones((1, 1))
    for axis, nodes in enumerate(grid.nodes):
        own = first[:, axis, None] + np.arange(3)
        numbers = (numbers[:, :, None] * nodes + own[:, None]).reshape(len(first), -1)
        heights = (heights[:, :, None] * np.array([1, 4, 1]) / 6).reshape(1, -1)
    return numbers, np.broadcast_to(heights, numbers.shape)


def _integrals(grid: ControlGrid, axis: int, order: int) -> Floats:
    """Integrate products of derivatives of B-splines along one axis of the image."""
    cells, nodes = grid.cells[axis], grid.nodes[axis]
    pitch = grid.pitch[axis]
    weights = bspline_weights(GAUSS, order)
    cell = np.einsum("g,gi,gj->ij", SHARES, weights, weights) * pitch ** (1 - 2 * order)
    total = np.zeros((nodes, nodes))
    for first in range(cells):
        total[first : first + 4, first : first + 4] += cell
    return total


def bending_energy(grid: ControlGrid, order: int) -> Any:
    """Return the matrix of the integral of all squared derivatives of an order."""
    ndim = len(grid.shape)
    terms = []
    for chosen in combinations_with_replacement(range(ndim), order):
        orders = [chosen.count(axis) for axis in range(ndim)]
        # In so many ways the derivatives can be taken one after the other.
        ways = factorial(order) / prod(map(factorial, orders))
        parts = [_integrals(grid, axis, each) for axis, each in enumerate(orders)]
        terms.append((ways, parts))
    return sum_of_products(terms)


def ground_energy(grid: ControlGrid) -> Any:
    """Return the matrix of what holds fields without points where they are."""
    ndim = len(grid.shape)
    area = float(np.prod(grid.shape))
    still = [_integrals(grid, axis, 0) for axis in range(ndim)]
    terms = [((TRAVEL * max(grid.shape)) ** -2 / area, still)]
    for axis in range(ndim):
        parts = list(still)
        parts[axis] = _integrals(grid, axis, 1)
        terms.append((STRAIN**-2 / area, parts))
    return sum_of_products(terms)

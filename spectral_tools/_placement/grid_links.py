"""Which tiles lie beside each other, and where they should be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.checks import (
    as_points,
    as_shape,
    as_shift,
    check_fraction,
    check_not_negative,
)

__all__ = ["grid_links", "grid_positions", "overlapping_links"]

Order = Literal["rows", "columns", "snake", "columns-snake"]


@checked
def grid_links(
    shape: Sequence[int], *, diagonal: bool = False, order: Order = "rows"
) -> NDArray[np.intp]:
    """List the pairs of tiles that are neighbours in a grid.

    Parameters
    ----------
    shape : sequence of 2 or 3 int
        Number of tiles along each axis: (rows, cols) or (planes, rows, cols).
    diagonal : bool, optional
        Also join tiles that touch at an edge or a corner only.
    order : {"rows", "columns", "snake", "columns-snake"}, optional
        How the tiles are numbered; see `grid_positions`.

    Returns
    -------
    ndarray of int, shape (n_links, 2)
        Pairs i < j, sorted.

    See Also
    --------
    overlapping_links : The same for tiles that form no grid.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.grid_links((2, 2))
    array([[0, 1],
           [0, 2],
           [1, 3],
           [2, 3]])

    A stage that turns round at the end of each row numbers them differently:

    >>> spt.grid_links((2, 2), order="snake")
    array([[0, 1],
           [0, 3],
           [1, 2],
           [2, 3]])
    """
    counts = as_shape(shape, "shape")
    number = _acquisition_numbers(counts, order)
    steps = [
        step
        for step in product((-1, 0, 1), repeat=len(counts))
        # Half of all directions: the other half gives the same pairs again.
        if step > (0,) * len(counts) and (diagonal or np.abs(step).sum() == 1)
    ]
    pairs = [
        np.stack([_shifted(number, step), _shifted(number, np.negative(step))])
        for step in steps
    ]
    return _sorted_links(np.concatenate([p.reshape(2, -1) for p in pairs], axis=1))


@checked
def grid_positions(
    shape: Sequence[int],
    tile_shape: Sequence[int],
    *,
    overlap: ArrayLike = 0.1,
    order: Order = "rows",
) -> NDArray[np.float64]:
    """Return where the tiles of a grid should be.

    Parameters
    ----------
    shape : sequence of 2 or 3 int
        Number of tiles along each axis: (rows, cols) or (planes, rows, cols).
    tile_shape : sequence of 2 or 3 int
        Shape of a tile in pixels.
    overlap : float or array_like of shape (ndim,), optional
        Fraction of a tile that its next neighbour repeats, from 0 up to but
        not including 1.
    order : {"rows", "columns", "snake", "columns-snake"}, optional
        How the stage visited the grid: row by row or column by column, always
        in the same direction, or turning round at the end of each ("snake").
        Planes follow each other and are visited alike.

    Returns
    -------
    ndarray of shape (n, ndim)
        Position of the first pixel of each tile in the mosaic, in pixels. Row
        i belongs to the tile that was acquired as number i.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.grid_positions((2, 2), (100, 200), overlap=0.1, order="snake")
    array([[  0.,   0.],
           [  0., 180.],
           [ 90., 180.],
           [ 90.,   0.]])
    """
    counts = as_shape(shape, "shape")
    size = as_shape(tile_shape, "tile_shape", ndim=len(counts))
    fraction = as_shift(overlap, len(counts), "overlap")
    if (fraction < 0).any() or (fraction >= 1).any():
        message = f"`overlap` must be at least 0 and below 1; got {fraction}."
        raise ValueError(message)
    number = _acquisition_numbers(counts, order)
    cells = np.empty((number.size, len(counts)))
    cells[number.ravel()] = np.argwhere(np.ones(counts, np.bool_))
    return cells * (size * (1 - fraction))


@checked
def overlapping_links(
    positions: ArrayLike,
    tile_shapes: ArrayLike,
    *,
    min_overlap: float = 0.02,
    margin: ArrayLike = 0,
) -> NDArray[np.intp]:
    """List the pairs of tiles whose rectangles overlap.

    Parameters
    ----------
    positions : array_like of shape (n, ndim)
        Nominal position of the first pixel of each tile, in pixels.
    tile_shapes : array_like of shape (ndim,) or (n, ndim)
        Shape of every tile, or of each.
    min_overlap : float, optional
        Least overlap, as a fraction of the area of the smaller tile. The
        default leaves out the corners in which diagonal neighbours of a grid
        with 10 % overlap meet, which are 1 %.
    margin : float or array_like of shape (ndim,), optional
        Error of the stage in pixels: rectangles grow by it on each side
        before they are compared.

    Returns
    -------
    ndarray of int, shape (n_links, 2)
        Pairs i < j, sorted.

    See Also
    --------
    grid_links : The same for a full grid, from its shape alone.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> positions = [(0, 0), (0, 90), (50, 60)]
    >>> spt.overlapping_links(positions, (100, 100))
    array([[0, 1],
           [0, 2],
           [1, 2]])
    >>> spt.overlapping_links(positions, (100, 100), min_overlap=0.3)
    array([[1, 2]])
    """
    corners = as_points(positions, "positions")
    sizes = _tile_sizes(tile_shapes, corners)
    check_fraction(min_overlap, "min_overlap")
    grow = as_shift(margin, corners.shape[1], "margin")
    check_not_negative(float(grow.min()), "margin")

    first, second = _near_pairs(corners + sizes / 2, sizes + 2 * grow)
    low = np.maximum(corners[first], corners[second]) - grow
    high = np.minimum((corners + sizes)[first], (corners + sizes)[second]) + grow
    sides = np.maximum(high - low, 0)
    area = sides.prod(axis=1)
    smaller = np.minimum(sizes[first].prod(axis=1), sizes[second].prod(axis=1))
    kept = (area > 0) & (area >= min_overlap * smaller)
    return _sorted_links(np.stack([first[kept], second[kept]]))


def _acquisition_numbers(counts: tuple[int, ...], order: Order) -> NDArray[np.intp]:
    """Return the number of each cell of a grid in the order of acquisition."""
    if order not in get_args(Order):
        known = ", ".join(map(repr, get_args(Order)))
        message = f"`order` must be one of {known}; got {order!r}."
        raise ValueError(message)
    by_columns = order.startswith("columns")
    rows, cols = counts[-2:]
    lines = (cols, rows) if by_columns else (rows, cols)
    plane = np.arange(rows * cols).reshape(lines)
    if order.endswith("snake"):
        plane[1::2] = plane[1::2, ::-1].copy()
    if by_columns:
        plane = plane.T
    planes = np.arange(np.prod(counts[:-2], dtype=np.intp)) * plane.size
    return (planes[:, np.newaxis, np.newaxis] + plane).reshape(counts)


def _shifted(number: NDArray[np.intp], step: ArrayLike) -> NDArray[np.intp]:
    """Cut off of each axis what a step in that direction leaves without partner."""
    ends = (slice(None, -1), slice(None), slice(1, None))
    return number[tuple(ends[1 - way] for way in np.asarray(step))]


def _tile_sizes(
    tile_shapes: ArrayLike, corners: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shape of each tile as ``float64``, one row each."""
    ndim = corners.shape[1]
    shapes = np.asarray(tile_shapes)
    one = shapes.ndim == 1
    sizes = as_points(shapes[np.newaxis] if one else shapes, "tile_shapes", ndim=ndim)
    if not one and len(sizes) != len(corners):
        message = (
            f"`tile_shapes` must have one row for each of {len(corners)} tiles; "
            f"got {len(sizes)}."
        )
        raise ValueError(message)
    if (sizes <= 0).any():
        message = f"`tile_shapes` must be greater than 0; got {sizes.min():g}."
        raise ValueError(message)
    return np.broadcast_to(sizes, corners.shape)


def _near_pairs(
    centers: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return all pairs that can overlap, and few that do not, each once or more.

    Strategy: a tile overlaps a smaller one only if the centre of that lies
    within the larger size. So each tile asks a tree for the centres in a box of
    twice its own size: a large overview among many small tiles makes only its
    own box large.
    """
    if len(centers) == 0:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    # One reach serves all axes once long tiles have been made square.
    scale = np.median(sizes, axis=0)
    # Imported here because it takes a quarter of the time of the whole package.
    from scipy.spatial import cKDTree  # noqa: PLC0415

    tree = cKDTree(centers / scale)
    found = tree.query_ball_point(
        centers / scale, (sizes / scale).max(axis=1), p=np.inf, return_sorted=False
    )
    counts = np.fromiter(map(len, found), np.intp, len(found))
    second = np.fromiter(chain.from_iterable(found), np.intp, counts.sum())
    first = np.repeat(np.arange(len(found)), counts)
    other = first != second
    return first[other], second[other]


def _sorted_links(pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """Turn pairs of shape (2, n), in any order, into sorted links, each once."""
    if pairs.size == 0:
        return np.empty((0, 2), np.intp)
    # One key for each pair: sorting numbers is ten times faster than rows.
    base = pairs.max() + 1
    keys = np.sort(np.minimum(*pairs) * base + np.maximum(*pairs))
    once = np.append(True, keys[1:] != keys[:-1])
    return np.stack(np.divmod(keys[once], base), axis=1)

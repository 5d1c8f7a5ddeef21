"""The one door to scipy.sparse: networks of tiles as sparse systems.

SciPy imports its packages when they are first named, so that who needs no sparse matrix
does not wait for one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from .arrays import Floats

__all__ = [
    "NEGLIGIBLE",
    "SymmetricFactor",
    "bridges",
    "conjugate_gradients",
    "connected_groups",
    "factorized_blocks",
    "factorized_matrix",
    "factorized_stiffness",
    "laplacian_diagonal",
    "multiplied_blocks",
    "repeated",
    "sparse_rows",
    "sum_at_tiles",
    "sum_of_products",
    "sum_rows",
    "symmetric_factor",
    "weighted_square",
]


# Parts of a solution, or of its equations, that are this small beside the others are
# rounding (tests/placement/test_translations.py: factors and multigrid agree).
NEGLIGIBLE = 1e-10
# Conjugate gradients that have not come to an end by now are near enough.
ITERATIONS = 300


def connected_groups(links: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return the number of the group to which links join each of `count` tiles.

    Groups are numbered in the order of their first tiles.
    """
    reference, moving = links.T.astype(np.int32)
    # Links given twice add up, which as floating point cannot overflow.
    joined = scipy.sparse.coo_array(
        (np.ones(len(links)), (reference, moving)), shape=(count, count)
    )
    total, found = scipy.sparse.csgraph.connected_components(
        joined.tocsr(), directed=False
    )
    first = np.empty(total, np.intp)
    # Of all tiles of a group, the first is written last.
    first[found[::-1]] = np.arange(count)[::-1]
    number = np.empty(total, np.intp)
    number[np.argsort(first)] = np.arange(total)
    return number[found]


def bridges(links: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """Tell which links between `count` tiles close no loop.

    Strategy: each link beside a spanning forest draws a number, and its two tiles keep
    it; what the tiles below a link of the forest keep is zero, as far as bits are
    exchanged, where no link leads out of them but that one [1]_.

    References
    ----------
    .. [1] Pritchard and Thurimella, Fast computation of small cuts via cycle space
       sampling, ACM Trans. Algorithms 7 (2011) 46, :doi:`10.1145/2000807.2000814`.
    """
    bridge, tree = np.zeros((2, len(links)), np.bool_)
    pairs = np.sort(links, axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    # One more tile is linked to one of each group, so that the forest is a tree.
    roots = np.unique(connected_groups(links, count), return_index=True)[1]
    ends = np.r_[pairs[first, 0], roots], np.r_[pairs[first, 1], roots * 0 + count]
    order, above = scipy.sparse.csgraph.breadth_first_order(
        scipy.sparse.coo_array((np.ones(len(ends[0])), ends), shape=(count + 1,) * 2),
        count,
        directed=False,
    )
    one, other = pairs[first].T
    tree[first] = (above[one] == other) | (above[other] == one)
    drawn = np.random.default_rng(0).integers(1, 2**63, len(links), np.uint64)
    kept = np.zeros(count + 1, np.uint64)
    for end in pairs[~tree].T:
        np.bitwise_xor.at(kept, end, drawn[~tree])
    for tile in order[:0:-1].tolist():
        kept[above[tile]] ^= kept[tile]
    one, other = pairs[tree].T
    bridge[tree] = kept[np.where(above[one] == other, one, other)] == 0
    return bridge


def sum_at_tiles(links: NDArray[np.intp], values: Floats, count: int) -> Floats:
    """Add one row of `values` for each link at its moving tile, less its reference.

    It is the product of the transposed incidence matrix with `values`.
    """
    sums = sum_rows(links[:, 1], values, count)
    sums -= sum_rows(links[:, 0], values, count)
    return sums


def laplacian_diagonal(links: NDArray[np.intp], weights: Floats, count: int) -> Floats:
    """Add the weights of all links of a tile: blocks on the Laplacian's diagonal."""
    sums = sum_rows(links[:, 0], weights, count)
    sums += sum_rows(links[:, 1], weights, count)
    return sums


def sum_rows(numbers: NDArray[np.intp], values: Floats, count: int) -> Floats:
    """Add up the rows of `values` that have the same number, below `count`."""
    sums = np.empty((count, *values.shape[1:]))
    for entry in np.ndindex(values.shape[1:]):
        column = np.ascontiguousarray(values[:, *entry])
        sums[:, *entry] = np.bincount(numbers, column, count)
    return sums


def conjugate_gradients(
    multiply: Callable[[Floats], Floats],
    precondition: Callable[[Floats], Floats],
    right: Floats,
    *,
    tolerance: float,
    iterations: int = ITERATIONS,
    axis: int | None = None,
) -> tuple[Floats, bool]:
    """Solve a positive definite system, and tell whether it came to an end.

    Parameters
    ----------
    multiply, precondition : callable
        Products with the matrix, and with nearly its inverse.
    right : ndarray
        Right side, or several.
    tolerance : float
        It ends when the error, in the norm of the preconditioner, is this much
        smaller than at first.
    iterations : int, optional
        Most products with the matrix.
    axis : int, optional
        Axis along which one right side lies; by default all of them make one.

    Returns
    -------
    tuple
        The solution so far, and whether it is as good as was asked.
    """
    found, rest = np.zeros_like(right), right.copy()
    direction = near = precondition(rest)
    first = power = np.sum(rest * near, axis=axis)
    for _ in range(iterations):
        if np.all(power <= tolerance**2 * first):
            break
        pushed = multiply(direction)
        work = np.sum(direction * pushed, axis=axis)
        # Right sides that are solved already stay as they are.
        length = power / np.where(work > 0, work, np.inf)
        found += length * direction
        rest -= length * pushed
        near = precondition(rest)
        last, power = power, np.sum(rest * near, axis=axis)
        direction = near + power / np.where(last > 0, last, np.inf) * direction
    return found, bool(np.all(power <= tolerance**2 * first))


def factorized_stiffness(
    links: NDArray[np.intp], weights: Floats, prior: Floats, free: NDArray[np.bool_]
) -> Callable[[Floats], Floats]:
    """Factor the weighted Laplacian of a network of tiles.

    Parameters
    ----------
    links : ndarray of shape (n_links, 2)
        Tiles that each link joins.
    weights : ndarray of shape (n_links, size, size)
        Inverse covariance of each link, for one or several axes.
    prior : ndarray of shape (size, size)
        Inverse covariance that ties every tile to its place.
    free : ndarray of bool, shape (n,)
        Tiles that may move; the others are left out of the system.

    Returns
    -------
    callable
        Turns forces (n_free * size, k) into displacements of the same shape.
    """
    number = np.cumsum(free) - 1
    inside = free[links].all(axis=1)
    between = weights if inside.all() else weights[inside]
    own = laplacian_diagonal(links, weights, len(free))[free] + prior
    return factorized_blocks(number[links[inside]], -between, own)


def _entries(
    numbers: tuple[NDArray[np.intp], ...], axis: NDArray[np.intp]
) -> NDArray[np.int32]:
    """Spread the numbers of blocks over the entries that each block has.

    32-bit indices are what SuperLU takes; wider ones would be copied.
    """
    stacked = np.concatenate(numbers).astype(np.int32)
    spread = stacked[:, None, None] * np.int32(len(axis)) + axis.astype(np.int32)
    return spread.ravel()


class SymmetricFactor(NamedTuple):
    """Factor L D L^T of a symmetric matrix, in compressed columns.

    Attributes
    ----------
    starts, rows : ndarray of int
        Where the matrix has entries.
    rank : ndarray of int
        When each of its columns is eliminated.
    lower_starts, lower_rows, lower : ndarray
        Entries of L that are not zero, diagonal included, in the order of
        elimination.
    pivots : ndarray
        Diagonal of D, in the order of elimination.
    solve : callable
        Solves the system for right sides of shape (size, k).
    """

    starts: NDArray[np.int32]
    rows: NDArray[np.int32]
    rank: NDArray[np.int32]
    lower_starts: NDArray[np.int32]
    lower_rows: NDArray[np.int32]
    lower: Floats
    pivots: Floats
    solve: Callable[[Floats], Floats]


def symmetric_factor(
    links: NDArray[np.intp], weights: Floats, own: Floats
) -> SymmetricFactor:
    """Factor a positive definite matrix of blocks and give the factor itself.

    The block of each link is its negative weight; `own` holds the blocks on the
    diagonal.
    """
    return _symmetric(_matrix_of_blocks(links, -weights, own).tocsc())


def _symmetric(matrix: Any) -> SymmetricFactor:
    factor = _factored(matrix)
    lower = factor.L
    return SymmetricFactor(
        starts=matrix.indptr,
        rows=matrix.indices,
        rank=factor.perm_c.astype(np.int32),
        lower_starts=lower.indptr,
        lower_rows=lower.indices,
        lower=lower.data,
        pivots=factor.U.diagonal(),
        solve=factor.solve,
    )


def factorized_blocks(
    pairs: NDArray[np.intp], between: Floats, own: Floats
) -> Callable[[Floats], Floats]:
    """Factor a symmetric positive definite matrix of square blocks.

    Parameters
    ----------
    pairs : ndarray of int, shape (n_pairs, 2)
        Row and column of each block off the diagonal; no pair comes twice, nor
        as (i, j) and (j, i).
    between : ndarray of shape (n_pairs, size, size)
        Those blocks. The transposed ones are added at (column, row).
    own : ndarray of shape (n, size, size)
        Blocks on the diagonal.

    Returns
    -------
    callable
        Turns right sides (n * size, k) into solutions of the same shape.
    """
    solve: Callable[[Floats], Floats]
    solve = _factored(_matrix_of_blocks(pairs, between, own).tocsc()).solve
    return solve


def multiplied_blocks(
    pairs: NDArray[np.intp], between: Floats, own: Floats
) -> Callable[[Floats], Floats]:
    """Return what multiplies with a symmetric matrix of square blocks.

    The parameters are those of `factorized_blocks`.
    """
    return _matrix_of_blocks(pairs, between, own).tocsr().dot


def _factored(matrix: scipy.sparse.csc_array) -> Any:
    """Factor a symmetric positive definite matrix."""
    # Minimum degree on the symmetric pattern and pivots from the diagonal make
    # an LU factor about as sparse as a Cholesky factor.
    factor = partial(
        scipy.sparse.linalg.splu,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0,
        options={"SymmetricMode": True},
    )
    try:
        return factor(matrix)
    except RuntimeError:
        # Beside one that is far too large, rounding left nothing of some entries.
        ridge = NEGLIGIBLE * matrix.diagonal()
        return factor((matrix + scipy.sparse.diags_array(ridge)).tocsc())


def _matrix_of_blocks(
    pairs: NDArray[np.intp], between: Floats, own: Floats
) -> scipy.sparse.coo_array:
    size = own.shape[1]
    axis0, axis1 = np.indices((size, size))
    tile = np.arange(len(own))
    blocks = np.concatenate([between, between.transpose(0, 2, 1), own])
    rows, cols = (*pairs.T, tile), (*pairs.T[::-1], tile)
    return scipy.sparse.coo_array(
        (blocks.ravel(), (_entries(rows, axis0), _entries(cols, axis1))),
        shape=(len(own) * size,) * 2,
    )


def sparse_rows(
    columns: NDArray[np.intp], values: Floats, width: int
) -> scipy.sparse.csr_array:
    """Return a matrix with a few entries in each row.

    Parameters
    ----------
    columns : ndarray of int, shape (n, k)
        Columns of the entries of each row.
    values : ndarray of shape (n, k)
        The entries; those in the same place add up.
    width : int
        Number of columns.

    Returns
    -------
    csr_array of shape (n, width)
        The matrix.
    """
    count, each = columns.shape
    starts = np.arange(0, count * each + 1, each)
    matrix = scipy.sparse.csr_array(
        (values.ravel(), columns.ravel(), starts), shape=(count, width)
    )
    matrix.sum_duplicates()
    return matrix


def weighted_square(rows: Any, weights: Floats) -> scipy.sparse.csr_array:
    """Return ``rows.T @ diag(weights) @ rows``."""
    scaled = rows.copy()
    scaled.data = scaled.data * np.repeat(weights, np.diff(rows.indptr))
    return scipy.sparse.csr_array(rows.T @ scaled)


def sum_of_products(terms: list[tuple[float, list[Floats]]]) -> scipy.sparse.csr_array:
    """Add factors times Kronecker products of banded matrices."""
    total: Any = 0
    for factor, matrices in terms:
        product: Any = scipy.sparse.csr_array(np.array([[factor]]))
        for matrix in matrices:
            product = scipy.sparse.kron(
                product, scipy.sparse.csr_array(matrix), format="csr"
            )
        total = total + product
    return scipy.sparse.csr_array(total)


def repeated(matrix: Any, count: int) -> scipy.sparse.csr_array:
    """Return a matrix with `count` copies of another one on its diagonal."""
    return scipy.sparse.csr_array(
        scipy.sparse.kron(scipy.sparse.eye_array(count), matrix, format="csr")
    )


def factorized_matrix(matrix: Any) -> SymmetricFactor:
    """Factor a sparse positive definite matrix and give the factor itself."""
    return _symmetric(matrix.tocsc())

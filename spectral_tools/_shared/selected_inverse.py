"""Compiled passes over the factor of a sparse symmetric matrix.

Columns of the strict lower triangle follow each other: `starts` says where
each begins in `rows`, which ascend, and in the values beside them.
"""

import numpy as np

from .arrays import Floats, Ints32, Ints64
from .compiled import compiled

__all__ = ["factor_pattern", "selected_entries", "selected_inverse", "spread_values"]


@compiled
def factor_pattern(starts: Ints32, rows: Ints32, rank: Ints32) -> tuple[Ints64, Ints32]:
    """Return where a factor can have entries, whatever the values.

    The columns given are those of the matrix, and `rank` the order in which
    they are eliminated. What cancels by chance still counts: the inverse has
    entries there.
    """
    count = len(rank)
    order = np.empty(count, np.int32)
    for old in range(count):
        order[rank[old]] = old
    # The elimination tree: the first row below the diagonal of each column.
    parent = np.full(count, -1, np.int32)
    highest = np.full(count, -1, np.int32)
    for row in range(count):
        for entry in range(starts[order[row]], starts[order[row] + 1]):
            col = rank[rows[entry]]
            while col != -1 and col < row:
                above = highest[col]
                highest[col] = row
                if above == -1:
                    parent[col] = row
                col = above
    # Row by row, entries spread up the tree: count them, then write them down.
    begins = np.zeros(count + 1, np.int64)
    found = np.empty(0, np.int32)
    seen = np.empty(count, np.int32)
    for filling in range(2):
        seen[:] = -1
        for row in range(count):
            seen[row] = row
            for entry in range(starts[order[row]], starts[order[row] + 1]):
                col = rank[rows[entry]]
                while col < row and seen[col] != row:
                    if filling:
                        found[highest[col] + begins[col]] = row
                        highest[col] += 1
                    else:
                        begins[col + 1] += 1
                    seen[col] = row
                    col = parent[col]
        if not filling:
            begins = np.cumsum(begins)
            found = np.empty(begins[count], np.int32)
            highest[:] = 0
    return begins, found


@compiled
def spread_values(
    starts: Ints64,
    rows: Ints32,
    given_starts: Ints32,
    given_rows: Ints32,
    given: Floats,
) -> Floats:
    """Write the columns of one pattern into a larger one, zero where they have none."""
    values = np.zeros(len(rows))
    column = np.zeros(len(starts) - 1)
    for col in range(len(starts) - 1):
        for entry in range(given_starts[col], given_starts[col + 1]):
            column[given_rows[entry]] = given[entry]
        for entry in range(starts[col], starts[col + 1]):
            values[entry] = column[rows[entry]]
        for entry in range(given_starts[col], given_starts[col + 1]):
            column[given_rows[entry]] = 0.0
    return values


@compiled
def _times_inverse(
    starts: Ints64,
    rows: Ints32,
    inverse: tuple[Floats, Floats],
    own: Ints32,
    vectors: tuple[Floats, Floats],
) -> None:
    """Multiply four vectors, at the rows `own`, with the inverse at these rows.

    Each column holds half of what is symmetric, so that it is added once as a
    column and once as a row. The vectors are zero at other rows, which collect
    sums that nobody reads.
    """
    diagonal, below = inverse
    factors, total = vectors
    for k in own:
        f0, f1, f2, f3 = factors[k, 0], factors[k, 1], factors[k, 2], factors[k, 3]
        z = diagonal[k]
        s0, s1, s2, s3 = z * f0, z * f1, z * f2, z * f3
        for entry in range(starts[k], starts[k + 1]):
            row, z = rows[entry], below[entry]
            total[row, 0] += z * f0
            total[row, 1] += z * f1
            total[row, 2] += z * f2
            total[row, 3] += z * f3
            s0 += z * factors[row, 0]
            s1 += z * factors[row, 1]
            s2 += z * factors[row, 2]
            s3 += z * factors[row, 3]
        total[k, 0] += s0
        total[k, 1] += s1
        total[k, 2] += s2
        total[k, 3] += s3


@compiled
def selected_inverse(
    starts: Ints64, rows: Ints32, lower: Floats, pivots: Floats
) -> tuple[Floats, Floats]:
    """Return the inverse of L D L^T where L has entries: diagonal, and below.

    Strategy: the equations of Takahashi. Column `col` of the inverse follows
    from later columns alone, and of these from entries in the pattern alone:
    ``Z[S, col] = -Z[S, S] @ L[S, col]`` where S are the rows of L in it. Columns
    in turn mostly have the same rows S beyond them, and up to four share the
    product with Z[S, S], which takes all the time.
    """
    count = len(pivots)
    diagonal = np.empty(count)
    below = np.empty(len(rows))
    total = np.zeros((count, 4))
    factors = np.zeros((count, 4))
    last = count - 1
    while last >= 0:
        first = last
        while first > 0 and last - first < 3:
            size = starts[first] - starts[first - 1]
            if size != starts[first + 1] - starts[first] + 1:
                break
            if rows[starts[first - 1]] != first:
                break
            first -= 1
        own = rows[starts[last] : starts[last + 1]]
        for i in range(len(own)):
            total[own[i]] = 0.0
            for col in range(first, last + 1):
                factors[own[i], col - first] = lower[starts[col] + last - col + i]
        _times_inverse(starts, rows, (diagonal, below), own, (factors, total))
        for col in range(last, first - 1, -1):
            # Rows of the later columns beside this one, and then those of S.
            begin = starts[col]
            beyond = begin + last - col
            for i in range(len(own)):
                value = total[own[i], col - first]
                for k in range(col + 1, last + 1):
                    z = below[starts[k] + last - k + i]
                    value += z * lower[begin + k - col - 1]
                below[beyond + i] = -value
            for k in range(col + 1, last + 1):
                value = diagonal[k] * lower[begin + k - col - 1]
                for j in range(col + 1, last + 1):
                    if j != k:
                        z = below[starts[min(j, k)] + abs(j - k) - 1]
                        value += z * lower[begin + j - col - 1]
                for i in range(len(own)):
                    value += below[starts[k] + last - k + i] * lower[beyond + i]
                below[begin + k - col - 1] = -value
            value = 1.0 / pivots[col]
            for entry in range(begin, starts[col + 1]):
                value -= below[entry] * lower[entry]
            diagonal[col] = value
        for i in range(len(own)):
            factors[own[i]] = 0.0
        last = first - 1
    return diagonal, below


@compiled
def selected_entries(
    starts: Ints64,
    rows: Ints32,
    inverse: tuple[Floats, Floats],
    wanted: tuple[Ints64, Ints64],
) -> Floats:
    """Look up entries of a selected inverse; NaN where none was computed."""
    diagonal, below = inverse
    first, second = wanted
    values = np.full(len(first), np.nan)
    for k in range(len(first)):
        col, row = min(first[k], second[k]), max(first[k], second[k])
        if col == row:
            values[k] = diagonal[col]
            continue
        low, high = starts[col], starts[col + 1]
        while low < high:
            middle = (low + high) // 2
            if rows[middle] < row:
                low = middle + 1
            else:
                high = middle
        if low < starts[col + 1] and rows[low] == row:
            values[k] = below[low]
    return values

"""Turn tiles as pairs of them say, from any angle and without a start."""

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Floats
from ..._shared.sparse import factorized_blocks, sum_rows
from ..._shared.statistics import FAINT, GRADUATION, ROUNDING
from ..._transforms.matrices import nearest_rotations
from .normal_equations import Blocks, Pairs, PointLinks, free_blocks

__all__ = ["average_rotations"]


# Squared differences of rotation matrices that still count, from step to step:
# they are twice (in space, about twice) the squared angle.
KERNELS = (1.0, 0.2, 0.04, 0.01)


def average_rotations(
    problem: PointLinks, pairs: Pairs, *, scale: bool, robust: bool
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return rotations of tiles that fit those between pairs.

    Then come the trust in each link, and which tiles have no pair that says how
    they are turned.

    Strategy: two sets of points give the rotation of each pair [1]_. The linear
    equations ``rotation of moving = rotation of reference @ that of the pair``
    have a least-squares solution of matrices, near which the rotations are [2]_.
    If asked for, either step forgets what contradicts the rest, from the worst
    down, because steps from a far-off start would end anywhere.

    References
    ----------
    .. [1] Arun, Huang and Blostein, Least-squares fitting of two 3-D point sets,
       IEEE Trans. Pattern Anal. Mach. Intell. 9 (1987) 698,
       :doi:`10.1109/TPAMI.1987.4767965`.
    .. [2] Martinec and Pajdla, Robust rotation and translation estimation in
       multiview reconstruction, CVPR (2007), :doi:`10.1109/CVPR.2007.383115`.
    """
    turned, told, trust = _pair_rotations(problem, pairs, scale, robust)
    # What says nothing says faintly that both tiles are turned alike.
    weight = np.where(told > 0, told, FAINT * (told.max(initial=0) or 1.0))
    believed = np.ones(len(weight))
    found = _averaged(problem, pairs, turned, weight)
    for kernel in KERNELS if robust else ():
        low, high = found[pairs.tiles.T]
        square = np.sum((low @ turned - high) ** 2, axis=(1, 2))
        believed = np.maximum((kernel / (square + kernel)) ** 2, FAINT)
        found = _averaged(problem, pairs, turned, weight * believed)
    silent = np.ones(len(found), np.bool_)
    silent[pairs.tiles[told > 0]] = False
    return found, np.maximum(trust * believed[pairs.number], FAINT), silent


def _averaged(
    problem: PointLinks, pairs: Pairs, turned: Floats, weight: Floats
) -> Floats:
    """Return the rotations of tiles that fit weighted rotations of pairs.

    Fixed tiles are upright, and so is the first of a group that has none.
    """
    count, ndim = problem.places.shape
    held = problem.fixed.copy()
    first = np.unique(problem.group, return_index=True)[1]
    held[first[problem.loose]] = True
    free = ~held
    found = np.broadcast_to(np.eye(ndim), (count, ndim, ndim)).copy()
    if not free.any():
        return found

    low, high = pairs.tiles.T
    stiff = weight[:, np.newaxis, np.newaxis] * np.eye(ndim)
    between = -weight[:, np.newaxis, np.newaxis] * turned
    own = sum_rows(low, stiff, count) + sum_rows(high, stiff, count)
    # What stands still pulls with the identity.
    pull = sum_rows(low[held[high]], -between[held[high]], count)
    pull += sum_rows(high[held[low]], -between[held[low]].transpose(0, 2, 1), count)
    blocks = Blocks(between=between, own=own)
    solve = factorized_blocks(*free_blocks(pairs, blocks, free))
    solved = solve(pull[free].reshape(-1, ndim)).reshape(-1, ndim, ndim)
    found[free] = nearest_rotations(solved.transpose(0, 2, 1))
    return found


def _pair_rotations(
    problem: PointLinks, pairs: Pairs, scale: bool, robust: bool
) -> tuple[Floats, Floats, Floats]:
    """Return rotations from the higher to the lower tile of each pair.

    Then come their weights, and the trust in each link.
    """
    turned = pairs.turned[:, np.newaxis]
    low = np.where(turned, problem.moving, problem.reference)
    high = np.where(turned, problem.reference, problem.moving)
    trust = np.ones(len(low))
    found, weight, squares = _pair_fits(problem, pairs, low, high, trust, scale)
    if robust and len(low):
        kernel = 2 * squares.max()
        middle = _pair_medians(pairs, squares)
        while kernel > GRADUATION * middle.min() and kernel > ROUNDING**2:
            kernel /= GRADUATION
            width = np.maximum(kernel, GRADUATION * middle[pairs.number]) + ROUNDING**2
            trust = (width / (squares + width)) ** 2
            found, weight, squares = _pair_fits(problem, pairs, low, high, trust, scale)
            middle = _pair_medians(pairs, squares)
    level = float(weight.max(initial=0)) or float(problem.amount.max(initial=1))
    # Points at one place leave rounding, which must not count as an angle.
    known = weight > FAINT * level
    found[~known] = np.eye(found.shape[1])
    return found, np.where(known, weight, 0), trust


def _pair_fits(
    problem: PointLinks,
    pairs: Pairs,
    low: Floats,
    high: Floats,
    trust: Floats,
    scale: bool,
) -> tuple[Floats, Floats, Floats]:
    """Fit each pair of tiles alone: rotations, weights and squared residuals."""
    amount, count = (problem.amount * trust)[:, np.newaxis], len(pairs.tiles)
    total = sum_rows(pairs.number, amount, count)
    low, high = (
        points - (sum_rows(pairs.number, amount * points, count) / total)[pairs.number]
        for points in (low, high)
    )
    spread = low[:, :, np.newaxis] * (amount * high)[:, np.newaxis]
    across = sum_rows(pairs.number, spread, count)
    found = nearest_rotations(across)
    # How sharply the sum of squares rises with the angle about the worst axis.
    values = np.linalg.eigvalsh(across.transpose(0, 2, 1) @ found)
    ndim = values.shape[1]
    weight = values[:, : ndim - (ndim == 3)].sum(axis=1)
    turned = (found[pairs.number] @ high[:, :, np.newaxis])[:, :, 0]
    if scale:
        sizes = sum_rows(pairs.number, amount * high**2, count).sum(axis=1)
        factor = values.sum(axis=1) / np.where(sizes > 0, sizes, 1)
        turned *= factor[pairs.number, np.newaxis]
    return found, weight, np.sum((low - turned) ** 2, axis=1)


def _pair_medians(pairs: Pairs, values: Floats) -> Floats:
    """Return the median (of an even number, the lower one) of each pair."""
    order = np.lexsort([values, pairs.number])
    size = np.bincount(pairs.number)
    return np.asarray(values[order[np.cumsum(size) - size + (size - 1) // 2]])

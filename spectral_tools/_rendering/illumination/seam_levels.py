"""Compare the brightness of two tiles where they overlap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._sampling.overlaps import overlap_block
from ..._shared.arrays import Floats, Ints
from ..._shared.checks import image_dtype

__all__ = ["Seam", "measure_seam"]


# Cells into which an overlap is cut along an axis, and their least side in pixels.
CELLS, SIDE = 16, 4
# Overlaps of more pixels than this are thinned out.
MOST = 2**21
# Fewer cells than this tell nothing.
FEWEST = 3
ROUNDS, TUNING = 10, 2.385
# Standard deviation of a normal distribution over its median absolute deviation.
MAD = 1.4826
# Without that much correlation, contrasts are noise.
CORRELATED = 0.3
NOTHING = (0.0, np.inf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seam:
    """What an overlap tells.

    Attributes
    ----------
    means : tuple of float
        Mean brightness of the reference and of the moving tile.
    ratios : tuple of tuple of float
        Logarithm of reference over moving, and its variance: of the means, and of
        the contrasts. The variance is infinite where there is nothing to tell.
    noise : float
        Variance of the difference of the means, in units of a tile in between.
    """

    means: tuple[float, float]
    ratios: tuple[tuple[float, float], tuple[float, float]]
    noise: float


def measure_seam(tiles: Any, maps: Floats, shapes: Ints, link: list[int]) -> Seam:
    """Compare two tiles over what they share."""
    i, j = link
    cells = _cells(tiles, maps, shapes, i, j)
    if cells.shape[1] < FEWEST:
        return Seam(means=(0.0, 0.0), ratios=(NOTHING, NOTHING), noise=0.0)
    means, ratio, noise = _compare_means(cells)
    return Seam(means=means, ratios=(ratio, _compare_contrasts(cells)), noise=noise)


def _cells(tiles: Any, maps: Floats, shapes: Ints, i: int, j: int) -> Floats:
    """Return the means of cells in both tiles and their sizes, shape (3, cells)."""
    ndim = shapes.shape[1]
    # From the pixels of the reference to those of the moving tile.
    across = np.linalg.solve(maps[j], maps[i])
    linear, move = across[:ndim, :ndim], across[:ndim, ndim]
    if np.allclose(linear, np.eye(ndim), rtol=0, atol=0.5 / shapes[i].max()):
        # One shift, that of the middle, serves all pixels.
        centre = (shapes[i] - 1) / 2
        shift = centre - linear @ centre - move
        whole = np.rint(shift).astype(np.intp)
        start, other, size = overlap_block(shapes[i], shapes[j], whole)
        if not size.all():
            return np.empty((3, 0))
        step = _thinning(size)
        first = _cut(tiles, i, start, start + size, step)
        second = _cut(tiles, j, other, other + size, step)
        # Either tile goes half the way to what is left, so that both stay alike.
        rest = (shift - whole) / (2 * step)
        first, second = _moved(first, rest), _moved(second, -rest)
        known = np.isfinite(first) & np.isfinite(second)
    else:
        first, second, known = _look_up(tiles, shapes, i, j, linear, move)
    return _cell_means(first, second, known)


def _thinning(size: Ints) -> int:
    return int(np.ceil((size.prod() / MOST) ** (1 / len(size))))


def _cut(tiles: Any, number: int, start: Ints, stop: Ints, step: int) -> Floats:
    """Read a box of a tile, and no more of a stack that is sliced."""
    box = tuple(slice(int(a), int(b), step) for a, b in zip(start, stop, strict=True))
    if hasattr(tiles, "shape"):
        pixels = np.asarray(tiles[(number, *box)])
    else:
        tile = tiles[number]
        pixels = np.asarray((tile if hasattr(tile, "shape") else np.asarray(tile))[box])
    image_dtype(pixels.dtype, f"tiles[{number}]")
    return pixels.astype(np.float64)


def _moved(pixels: Floats, rest: Floats) -> Floats:
    """Return the inner pixels at a fraction of a pixel further on, linearly."""
    for axis, part in enumerate(rest):
        size = pixels.shape[axis]
        if size < 3 or part == 0:
            continue
        inner, after, before = (
            pixels.take(range(1 + side, size - 1 + side), axis) for side in (0, 1, -1)
        )
        near = after if part > 0 else before
        pixels = inner + abs(part) * (near - inner)
    return pixels


def _look_up(
    tiles: Any, shapes: Ints, i: int, j: int, linear: Floats, move: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Read the reference, and at each pixel the nearest one of the moving tile."""
    # The box of the reference in which the moving tile lies.
    inverse = np.linalg.inv(linear)
    middle = inverse @ ((shapes[j] - 1) / 2 - move)
    reach = np.abs(inverse) @ (shapes[j] / 2)
    start = np.clip(np.floor(middle - reach), 0, shapes[i]).astype(np.intp)
    stop = np.clip(np.ceil(middle + reach) + 1, start, shapes[i]).astype(np.intp)
    step = _thinning(np.maximum(stop - start, 1))
    first = _cut(tiles, i, start, stop, step)
    whole = _cut(tiles, j, np.zeros_like(start), shapes[j], 1)
    grid = np.indices(first.shape) * step + start.reshape(-1, *[1] * len(start))
    points = np.tensordot(linear, grid, axes=1) + move.reshape(-1, *[1] * len(move))
    nearest = np.rint(points).astype(np.intp)
    limits = shapes[j].reshape(-1, *[1] * len(move))
    inside = ((nearest >= 0) & (nearest < limits)).all(axis=0)
    second = np.full(first.shape, np.nan)
    second[inside] = whole[tuple(nearest[:, inside])]
    return first, second, np.isfinite(first) & np.isfinite(second)


def _cell_means(first: Floats, second: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return means over cells that are known at least by half, and their sizes."""
    if first.size == 0:
        return np.empty((3, 0))
    layers = np.stack([np.where(known, first, 0), np.where(known, second, 0), known])
    areas = np.ones(1)
    for axis, size in enumerate(first.shape):
        count = int(np.clip(size // SIDE, 1, CELLS))
        edges = np.arange(count + 1) * size // count
        layers = np.add.reduceat(layers, edges[:-1], axis=axis + 1)
        areas = np.multiply.outer(areas, np.diff(edges))
    counts = layers[2]
    enough = 2 * counts >= areas[0]
    layers = layers[:, enough]
    return np.stack([*layers[:2] / layers[2], layers[2]])


def _compare_means(
    cells: Floats,
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return robust means, the logarithm of their ratio with its variance, and noise.

    Both tiles are treated alike, so that noise favours neither.
    """
    first, second, sizes = cells
    weights = sizes
    for _ in range(ROUNDS):
        total = weights.sum()
        means = float(weights @ first / total), float(weights @ second / total)
        if min(means) <= 0:
            return means, NOTHING, float(np.var(first - second) / len(first))
        root = np.sqrt(means[0] / means[1])
        miss = first / root - second * root
        scale = max(MAD * float(np.median(np.abs(miss))), 1e-9 * max(means))
        variance = float(((weights * miss) ** 2).sum() / total**2)
        weights = sizes / (1 + (miss / (TUNING * scale)) ** 2)
    level = means[0] * means[1]
    return means, (float(np.log(means[0] / means[1])), variance / level), variance


def _compare_contrasts(cells: Floats) -> tuple[float, float]:
    """Return the logarithm of the ratio of robust contrasts, and its variance."""
    weights = sizes = cells[2]
    slope, correlation = 1.0, 0.0
    for _ in range(ROUNDS):
        middle = cells[:2] @ weights / weights.sum()
        away = cells[:2] - middle[:, None]
        power = (away * away) @ weights
        if not power.all():
            return NOTHING
        correlation = float((away[0] * away[1]) @ weights / np.sqrt(power.prod()))
        slope = float(np.sqrt(power[0] / power[1]))
        miss = away[0] / np.sqrt(slope) - away[1] * np.sqrt(slope)
        scale = MAD * float(np.median(np.abs(miss)))
        if scale == 0:
            break
        weights = sizes / (1 + (miss / (TUNING * scale)) ** 2)
    if correlation <= CORRELATED:
        return NOTHING
    variance = (1 - correlation**2) / (correlation**2 * len(weights))
    return float(np.log(slope)), variance

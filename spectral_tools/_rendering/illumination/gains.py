"""Make neighbouring tiles equally bright where they overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._placement.grid_links import overlapping_links
from ..._sampling.boxes import overlap_block
from ..._shared.arguments import checked
from ..._shared.arrays import Floats, Ints, unstacked
from ..._shared.checks import as_matrices, check_affine, image_dtype, read_image
from ..._shared.link_arguments import Links, number_links
from ..._shared.results import result
from ..._shared.sparse import connected_groups, factorized_stiffness, sum_at_tiles
from ..._shared.statistics import ROUNDS, cauchy_weights, mad_sigma
from ..._shared.workers import Workers, spread

__all__ = ["Gains", "solve_gains"]


# Cells into which an overlap is cut along an axis, at most.
CELLS = 16
# Their least side, in pixels.
SIDE = 4
# Overlaps of more pixels than this are thinned out.
MOST = 2**21
# Fewer cells than this tell nothing.
LEAST_CELLS = 3
# Without that much correlation, contrasts are noise.
CORRELATED = 0.3
NOTHING = (0.0, np.inf)


# What is known of a gain before any link: its logarithm is about 0, give or take this.
# It is so weak that only tiles with nothing to say in their overlaps notice.
PRIOR = 0.5
# No link knows a ratio better than this, or it would silence the others.
FINEST = 0.002


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
    if cells.shape[1] < LEAST_CELLS:
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
        first, second = _shift_linearly(first, rest), _shift_linearly(second, -rest)
        known = np.isfinite(first) & np.isfinite(second)
    else:
        first, second, known = _nearest_pixels(tiles, shapes, i, j, linear, move)
    return _cell_means(first, second, known)


def _thinning(size: Ints) -> int:
    return int(np.ceil((size.prod() / MOST) ** (1 / len(size))))


def _cut(tiles: Any, number: int, start: Ints, stop: Ints, step: int) -> Floats:
    """Read a box of a tile, and no more of a stack that is sliced."""
    box = tuple(slice(int(a), int(b), step) for a, b in zip(start, stop, strict=True))
    if hasattr(tiles, "shape"):
        pixels = read_image(tiles, f"tiles[{number}]", (number, *box))
    else:
        tile = tiles[number]
        pixels = read_image(tile, f"tiles[{number}]", box)
    image_dtype(pixels.dtype, f"tiles[{number}]")
    return pixels.astype(np.float64)


def _shift_linearly(pixels: Floats, rest: Floats) -> Floats:
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


def _nearest_pixels(
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
        scale = max(mad_sigma(miss), 1e-9 * max(means))
        variance = float(((weights * miss) ** 2).sum() / total**2)
        weights = cauchy_weights(sizes, miss, scale)
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
        even = away / np.sqrt(power)[:, None]
        correlation = float((even[0] * even[1]) @ weights)
        slope = float(np.sqrt(power[0] / power[1]))
        miss = away[0] / np.sqrt(slope) - away[1] * np.sqrt(slope)
        scale = mad_sigma(miss)
        if scale == 0:
            break
        weights = cauchy_weights(sizes, miss, scale)
    if correlation <= CORRELATED:
        return NOTHING
    variance = (1 - correlation**2) / (correlation**2 * len(weights))
    return float(np.log(slope)), variance


@result
class Gains:
    """What makes tiles equally bright: ``gain * tile + offset``.

    Attributes
    ----------
    gain : ndarray of shape (n,)
        Factor for each tile.
    offset : ndarray of shape (n,)
        What to add to each tile then, in grey values.
    links : ndarray of int, shape (n_links, 2)
        Numbers of the two tiles of each link.
    counted : ndarray of bool, shape (n_links,)
        Links whose overlap told something: not those that do not overlap, or are
        blank.
    residuals : ndarray of shape (n_links,)
        Step in brightness that remains, reference less moving, in
        grey values; 0 for links that do not count.
    """

    gain: Floats
    offset: Floats
    links: Ints
    counted: NDArray[np.bool_]
    residuals: Floats


@checked
def solve_gains(
    tiles: Sequence[Any] | NDArray[Any],
    matrices: ArrayLike,
    *,
    links: Links | None = None,
    offset: bool = False,
    workers: Workers = 1,
    progress: bool = False,
) -> Gains:
    """Find a gain for each tile so that steps in brightness at seams vanish.

    The gains are those of weighted least squares over all overlaps. The sum of
    the mean brightness of all tiles that are linked stays what it was; a tile
    without links keeps gain 1.

    Parameters
    ----------
    tiles : sequence of array_like of shape (rows, cols) or (planes, rows, cols)
        Images, which may differ in shape, or anything that is sliced like one. Pixels
        that are not finite do not count.
    matrices : array_like of shape (n, ndim + 1, ndim + 1)
        Affine maps from each tile to the mosaic.
    links : array_like of int, shape (n_links, 2), optional
        Pairs of tiles to compare. By default all whose rectangles share at least
        one part in 50 of the smaller tile.
    offset : bool, optional
        Find an offset for each tile too, where light is added and not only
        lost. It takes overlaps with contrast. Without, the value 0 must mean that
        there is no light: take the dark field off first.
    workers : int or map-like callable, optional
        Number of threads, or a function used like `map`. The result does not
        depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    Gains
        Gain and offset of each tile, and the steps that remain.

    Raises
    ------
    ValueError
        If there is not one finite, invertible matrix for each tile, or links name
        tiles that do not exist.
    TypeError
        If tiles do not hold real numbers.

    See Also
    --------
    estimate_shading : Take off what is uneven within a tile first.

    Notes
    -----
    Overlaps are compared by the means of small cells, from
    which what moved or glares is weighed out. A link tells the ratio of two
    gains from the ratio of the means, or with offsets from that of the contrasts,
    and the logarithms of all gains follow from one sparse system, like
    positions do. Gain compensation in panoramas [1]_ pulls gains towards 1
    instead, so that steps remain.

    A slope that all tiles share looks in overlaps like gains that fall from
    tile to tile: what is left of it in the tiles makes gains drift.

    References
    ----------
    .. [1] Brown and Lowe, Automatic panoramic image stitching using invariant
       features, International Journal of Computer Vision 74 (2007) 59,
       :doi:`10.1007/s11263-006-0002-3`.

    Examples
    --------
    The second of two tiles that share 40 columns is too dark by a fifth:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = 100 + 20 * spt.gaussian_texture((100, 160), rng=1)
    >>> tiles = [scene[:, :100], 0.8 * scene[:, 60:]]
    >>> matrices = [np.eye(3), spt.translation((0, 60))]
    >>> even = spt.solve_gains(tiles, matrices)
    >>> float((even.gain[1] / even.gain[0]).round(3))
    1.25
    >>> tiles = [gain * tile for gain, tile in zip(even.gain, tiles)]
    >>> float((tiles[1][:, 0] - tiles[0][:, 60]).mean().round(3))
    0.0
    """
    labels = tiles if isinstance(tiles, Mapping) else None
    tiles = unstacked(tiles)
    if len(tiles) == 0:
        message = "`tiles` must hold at least one tile; got none."
        raise ValueError(message)
    maps = as_matrices(matrices, "matrices", count=len(tiles))
    check_affine(maps, "matrices")
    shapes = _shapes(tiles, maps)
    pairs = _pairs(links, maps, shapes, labels)
    work: dict[str, Any] = {"workers": workers, "progress": progress}
    means = spread(partial(_mean, tiles), range(len(tiles)), title="brightness", **work)
    bright = np.array(list(means))
    measure = partial(measure_seam, tiles, maps, shapes)
    seams = list(spread(measure, pairs.tolist(), title="compare overlaps", **work))
    return _solve(pairs, seams, bright, offset)


def _shapes(tiles: Any, maps: Floats) -> Ints:
    """Return the shapes of the tiles, or tell which does not fit its matrix."""
    ndim = maps.shape[1] - 1
    for number in range(len(maps)):
        tile = tiles[number]
        shape = np.shape(tile)
        if len(shape) != ndim or 0 in shape:
            message = (
                f"`tiles` must have {ndim} axes, as `matrices` tell, and at least "
                f"one pixel; got shape {shape} as tile {number}."
            )
            raise ValueError(message)
        image_dtype(np.dtype(getattr(tile, "dtype", float)), f"tiles[{number}]")
    return np.array([np.shape(tiles[k]) for k in range(len(maps))], np.intp)


def _pairs(links: Any, maps: Floats, shapes: Ints, labels: Any) -> Ints:
    if links is not None:
        known = dict.fromkeys(range(len(maps)), 0) if labels is None else labels
        return number_links(links, known)[0]
    ndim = shapes.shape[1]
    linear = maps[:, :ndim, :ndim]
    middle = np.einsum("nij,nj->ni", linear, (shapes - 1) / 2) + maps[:, :ndim, ndim]
    size = np.einsum("nij,nj->ni", np.abs(linear), shapes)
    return overlapping_links(middle - size / 2, size)


def _mean(tiles: Any, number: int) -> float:
    """Return the mean of the finite pixels of a tile."""
    pixels = read_image(tiles[number], f"tiles[{number}]")
    image_dtype(pixels.dtype, f"tiles[{number}]")
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    return float(pixels.mean(dtype=np.float64)) if pixels.size else 0.0


def _solve(pairs: Ints, seams: list[Seam], bright: Floats, offset: bool) -> Gains:
    """Solve for the logarithms of the gains first, then for offsets."""
    count = len(bright)
    reference, moving = np.array([seam.means for seam in seams]).reshape(-1, 2).T
    index = 1 if offset else 0
    table = np.array([seam.ratios for seam in seams]).reshape(-1, 2, 2)
    ratio, variance = table[:, index].T
    counted = np.isfinite(variance)
    used = pairs[counted]
    group = connected_groups(used, count)
    gain, added = np.ones(count), np.zeros(count)
    residuals = np.zeros(len(pairs))
    if counted.any():
        logs = _solve_differences(
            used, count, ratio[counted], variance[counted] + FINEST**2, PRIOR
        )
        gain = np.exp(logs)
        gain *= _conserving_factor(bright, bright * gain, group)
        step = gain[pairs[:, 0]] * reference - gain[pairs[:, 1]] * moving
        if offset:
            level = max(float(np.abs(bright).mean()), np.finfo(float).tiny)
            noise = np.array([seam.noise for seam in seams])[counted]
            noise = noise * gain[used].prod(axis=1) + (FINEST * level) ** 2
            added = _solve_differences(used, count, step[counted], noise, PRIOR * level)
            total = np.bincount(group, bright * (gain - 1) + added)
            added -= (total / np.bincount(group))[group]
        step += added[pairs[:, 0]] - added[pairs[:, 1]]
        residuals = np.where(counted, step, 0)
    return Gains(
        gain=gain, offset=added, links=pairs, counted=counted, residuals=residuals
    )


def _solve_differences(
    links: Ints, count: int, steps: Floats, variance: Floats, prior: float
) -> Floats:
    """Return values for tiles whose differences, moving less reference, are steps.

    Links that contradict the others by far lose their weight.
    """
    weights = 1 / variance
    values = np.zeros(count)
    for _ in range(ROUNDS):
        solve = factorized_stiffness(
            links,
            weights[:, None, None],
            np.array([[prior**-2]]),
            np.ones(count, np.bool_),
        )
        pull = sum_at_tiles(links, (weights * steps)[:, None], count)
        values = solve(pull)[:, 0]
        miss = (steps - values[links[:, 1]] + values[links[:, 0]]) / np.sqrt(variance)
        weights = cauchy_weights(1 / variance, miss, max(mad_sigma(miss), 1.0))
    return values


def _conserving_factor(before: Floats, after: Floats, group: Ints) -> Floats:
    """Return the factor for each tile that keeps the total of its group."""
    totals = np.bincount(group, before), np.bincount(group, after)
    factor = np.ones(len(totals[0]))
    np.divide(*totals, out=factor, where=totals[1] > 0)
    return factor[group]

"""Find the uneven light of a camera from its own tiles, and take it off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import ArrayLike, NDArray

from ..._shared.arguments import checked
from ..._shared.arrays import Flags, Float, Floats, Ints, as_array, unstacked
from ..._shared.checks import (
    as_finite,
    as_shape,
    as_sized,
    image_dtype,
    read_image,
)
from ..._shared.results import result
from ..._shared.statistics import cauchy_weights, mad_sigma
from ..._shared.workers import Workers, spread

__all__ = ["Shading", "apply_shading", "estimate_shading"]


# A tile is seen through at most this many cells along an axis.
CELLS = 64
# Fields are polynomials up to this degree in rows and columns together.
DEGREE = 8
# A mode counts as far as its square exceeds this many times its variance, as in the
# nonnegative garrote [Breiman 1995].
DOUBT = 5.0
# Few tiles tell their own scatter badly: they count by so many tiles' worth less.
FEW = 12.0
# How much of a sample may pass for a dark field, against a rough guess of it.
LEAK = 3.0
# Rounds of reweighting.
REWEIGHTINGS = 20
# No tile counts as if it scattered less than this part of the usual.
STEADIEST = 0.25
# A flat field is nowhere lower than this.
DARKEST = 0.02


# All tiles together are kept as about so many cells, however many tiles there are.
ROOM = 2_000_000
# But never as fewer along an axis.
FEWEST_CELLS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Modes:
    """Products of polynomials: what they are in each pixel and in each cell."""

    pixels: tuple[Floats, Floats]  # (rows, k), (cols, k)
    cells: Floats  # (cells, modes)
    areas: Floats  # (cells,), in units of their mean
    powers: Ints  # (modes, 2) of the polynomials, lowest degree first
    mixing: Floats  # (modes, modes): what of each polynomial is in each mode


def cell_edges(size: int, most: int) -> Ints:
    """Cut an axis into at most so many cells of nearly equal length."""
    count = min(size, most)
    return np.arange(count + 1) * size // count


def smooth_modes(shape: tuple[int, int], edges: list[Ints]) -> Modes:
    """Return the modes of a tile; cells hold their exact means."""
    pixels, means = [], []
    for size, each in zip(shape, edges, strict=True):
        degree = min(DEGREE, len(each) - 2)
        places = (2 * np.arange(size) + 1) / size - 1
        values = legvander(places, degree).astype(np.float64, copy=False)
        pixels.append(values)
        sums = np.add.reduceat(values, each[:-1], axis=0)
        means.append(sums / np.diff(each)[:, None])
    powers = np.argwhere(np.ones([each.shape[1] for each in means], bool))
    powers = powers[powers.sum(axis=1) <= DEGREE]
    powers = powers[np.argsort(powers.sum(axis=1), kind="stable")]
    products = means[0][:, None, powers[:, 0]] * means[1][None, :, powers[:, 1]]
    mixing = _round_modes(shape, powers)
    areas = np.outer(*[np.diff(each) for each in edges]).ravel()
    return Modes(
        pixels=(pixels[0], pixels[1]),
        cells=products.reshape(-1, len(powers)) @ mixing,
        areas=areas / areas.mean(),
        powers=powers,
        mixing=mixing,
    )


def _round_modes(shape: tuple[int, int], powers: Ints) -> Floats:
    """Turn the two parabolas into a round one and what is not round.

    Most lenses lose light with the square of the distance. One mode that says so
    stands out sooner than two.
    """
    mixing = np.eye(len(powers))
    both = [np.flatnonzero((powers == each).all(axis=1)) for each in ((2, 0), (0, 2))]
    if both[0].size and both[1].size:
        rows, cols = both[0][0], both[1][0]
        along, across = np.square(shape) / np.hypot(*np.square(shape))
        mixing[[rows, cols], rows] = along, across
        mixing[[rows, cols], cols] = -across, along
    return mixing


def fit_fields(cells: Floats, modes: Modes, *, dark: bool) -> tuple[Floats, Floats]:
    """Fit ``brightness * flat + dark`` to the cells of many tiles.

    # Strategy: in turn, the brightness of each tile, weights that are low where a
    # tile disagrees, and the fields. The profile at usual brightness is well known
    # and what is added to it is not, so that these two are estimated as orthogonal
    # regressors, each shrunk by its own uncertainty; the flat field follows.

    Parameters
    ----------
    cells : ndarray of shape (n, rows, cols)
        Means of cells, NaN where unknown.
    modes : Modes
        Of which the fields are made.
    dark : bool
        Whether there is a dark field to be found.

    Returns
    -------
    flat, dark : ndarray, in the shape of a tile
        Two smooth fields. The flat field has mean 1.
    """
    shape = tuple(len(each) for each in modes.pixels)
    means = cells.reshape(len(cells), -1)
    known = np.isfinite(means)
    means = np.where(known, means, 0)
    bright = np.array([_median(*each) for each in zip(means, known, strict=True)])
    used = bright > 0
    if np.count_nonzero(used) < 2:
        # Nothing tells the light from a sample that is seen once.
        return np.ones(shape), np.zeros(shape)
    means, known, bright = means[used], known[used], bright[used]
    seen: Flags = np.logical_or.reduce(known, axis=0)
    means, known = means[:, seen], known[:, seen]
    basis = _Basis(modes, seen)

    flat, added = np.ones(means.shape[1]), np.zeros(means.shape[1])
    flat_part = added_part = np.zeros(len(modes.powers))
    for _ in range(REWEIGHTINGS):
        weights = _cauchy_weights(means, known, bright, flat, added)
        found = _regression(means, bright, weights)
        flat_part = basis.shrunk(found.profile, found.noise)
        if dark:
            doubt = basis.leak(found.noise, bright)
            added_part = basis.shrunk(found.extra, found.extra_noise, doubt)
            flat_part = flat_part - found.ratio * added_part
        flat = basis.cells @ flat_part
        level = flat.mean()
        flat = np.maximum(flat / level, DARKEST)
        added = basis.cells @ added_part
        shift = added.mean()
        added, added_part = added - shift * flat, added_part - shift * flat_part / level
        # Weights of relative errors, as they are those of the field.
        relative = weights * flat * flat
        bright = (relative * (means - added) / flat).sum(axis=1) / relative.sum(axis=1)
        bright = np.maximum(bright, 0)
    field = _field(modes, flat_part)
    field = np.maximum(field / field.mean(), DARKEST)
    field /= field.mean()
    rest = _field(modes, added_part)
    return field, _most_uniform(field, rest, float(bright.min()))


class _Basis:
    """The modes in the cells that are seen, and how to shrink a field to them."""

    def __init__(self, modes: Modes, seen: Flags) -> None:
        self.cells = modes.cells[seen]
        self.degree = modes.powers.sum(axis=1)
        # Cells count by their areas, or a field that is even would have slopes.
        self.root = np.sqrt(modes.areas[seen])
        upper = np.linalg.qr(self.root[:, None] * self.cells, mode="r")
        # A mode that the cells seen cannot tell from lower ones is left out.
        clear = np.abs(np.diag(upper)) > 1e-6 * np.sqrt(len(self.cells))
        self.cells = self.cells * clear[: self.cells.shape[1]]
        self.unit, self.upper = np.linalg.qr(self.root[:, None] * self.cells[:, clear])
        self.clear = clear

    def variances(self, noise: Floats) -> Floats:
        """Return the variance of each mode by what the tiles contribute to it.

        Modes of one degree have one variance, which few tiles tell better together.
        """
        single = (((noise * self.root) @ self.unit) ** 2).sum(axis=0)
        degree = self.degree[self.clear]
        pooled = np.bincount(degree, single) / np.maximum(np.bincount(degree), 1)
        return pooled[degree] * len(noise) / (len(noise) - 1)

    def leak(self, noise: Floats, bright: Floats) -> Floats:
        """Return how much of the sample may pass for a dark field, squared.

        Where the sample is bright, so is the tile: this too makes the profile of
        tiles depend on their brightness, as far as that is not the lamp's.
        """
        sample = self.variances(noise) * len(noise) / len(self.unit)
        usual = bright.mean()
        lamp = max(float(np.var(bright / usual)), np.finfo(float).tiny)
        # Where all tiles are as bright, nothing tells: infinity is the answer.
        with np.errstate(over="ignore"):
            return len(self.unit) * (LEAK * usual * sample / lamp) ** 2

    def shrunk(self, field: Floats, noise: Floats, doubt: float | Floats = 0) -> Floats:
        """Return the modes of a field, each reduced by what may be chance.

        `noise` is what each tile contributes, `doubt` a variance beside that.
        """
        found = self.unit.T @ (self.root * field)
        doubt = DOUBT * (1 + FEW / len(noise)) * (self.variances(noise) + doubt)
        doubt[0] = 0
        square = np.maximum(found * found, np.finfo(float).tiny)
        kept = found * np.maximum(1 - doubt / square, 0)
        parts = np.zeros(len(self.degree))
        parts[self.clear] = np.linalg.solve(self.upper, kept)
        return parts


def _median(values: Floats, known: Flags) -> float:
    return float(np.median(values[known])) if known.any() else 0.0


def _cauchy_weights(
    means: Floats, known: Flags, bright: Floats, flat: Floats, added: Floats
) -> Floats:
    """Return inverse variances, less where a tile is far from what is expected."""
    miss = (means - bright[:, None] * flat - added) / flat
    scatter = np.array(
        [mad_sigma(row[there]) for row, there in zip(miss, known, strict=True)]
    )
    share = scatter / np.maximum(bright, np.finfo(float).tiny)
    usual = max(float(np.median(share[bright > 0])), 1e-9)
    scale = (np.maximum(share, STEADIEST * usual) * bright)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = cauchy_weights(known / scale**2, miss, scale)
    return np.where(scale > 0, weights, 0) / (flat * flat)


class Regression(NamedTuple):
    """What each cell has of the brightness of tiles, and of a constant beside that."""

    profile: Floats  # (cells,)
    noise: Floats  # (tiles, cells): what each tile contributes to its error
    extra: Floats  # (cells,): orthogonal to brightness
    extra_noise: Floats  # (tiles, cells)
    ratio: float  # of the profile that is due to the constant


def _regression(means: Floats, bright: Floats, weights: Floats) -> Regression:
    """Regress each cell on brightness, and on what a constant adds to that."""
    level = bright[:, None]
    first = (weights * level * level).sum(axis=0)
    first = np.maximum(first, np.finfo(float).tiny)
    profile = (weights * level * means).sum(axis=0) / first
    ratio = (weights * level).sum(axis=0) / first
    apart = 1 - level * ratio
    # What is left of tiles that are all as bright is rounding.
    apart[np.abs(apart) <= len(means) * np.finfo(float).eps] = 0
    second = np.maximum((weights * apart * apart).sum(axis=0), np.finfo(float).tiny)
    extra = (weights * apart * means).sum(axis=0) / second
    noise = weights * level * (means - level * profile) / first
    rest = means - level * profile - apart * extra
    extra_noise = weights * apart * rest / second
    return Regression(profile, noise, extra, extra_noise, float(np.median(ratio)))


def _field(modes: Modes, parts: Floats) -> Floats:
    """Return a field in all pixels of a tile."""
    rows, cols = modes.pixels
    table = np.zeros((rows.shape[1], cols.shape[1]))
    table[tuple(modes.powers.T)] = modes.mixing @ parts
    return rows @ table @ cols.T


def _most_uniform(flat: Floats, added: Floats, most: float) -> Floats:
    """Add as much of the flat field as makes a dark field most uniform."""
    uneven = flat - flat.mean()
    power = float((uneven * uneven).sum())
    if power == 0 or not added.any():
        return added
    pedestal = float(np.clip(-(uneven * added).sum() / power, 0, most))
    return added + pedestal * flat


@result
class Shading:
    """How a camera and its lamp change every picture: ``flat * scene + dark``.

    Attributes
    ----------
    flat : ndarray of shape (rows, cols)
        Light that reaches each pixel, relative to the mean, which is 1.
    dark : ndarray of shape (rows, cols)
        What each pixel shows without light, in grey values.
    """

    flat: Floats
    dark: Floats


@checked
def estimate_shading(
    tiles: Sequence[Any] | NDArray[Any],
    *,
    dark: ArrayLike | Literal["estimate"] = 0,
    workers: Workers = 1,
    progress: bool = False,
) -> Shading:
    """Estimate the uneven light of a camera from pictures of anything.

    What stays at its place from tile to tile is the light, what comes and goes is
    the sample. The light is taken to be smooth: dust and other small marks stay.

    Parameters
    ----------
    tiles : sequence of array_like of shape (rows, cols)
        Pictures by one camera, of different places. They may be anything that
        is sliced like an array; each is read once. Pixels that are not finite do
        not count, nor do tiles that hold one value only.
    dark : float, array_like of shape (rows, cols) or "estimate", optional
        Known grey values without light. "estimate" finds a smooth dark field
        too, which takes tiles of different brightness: it is 0 without.
    workers : int or map-like callable, optional
        Number of threads that read, or a function used like `map`. The result does
        not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    Shading
        The flat field and the dark field, ready for `apply_shading`.

    Raises
    ------
    ValueError
        If there are no tiles, or they are not 2-D or differ in shape.
    TypeError
        If tiles do not hold real numbers.

    See Also
    --------
    solve_gains : Take off steps in brightness from tile to tile.

    Notes
    -----
    Every tile is the flat field times a brightness of its own, but for the
    sample. Like in BaSiC [1]_, that is fitted to tiles at low resolution, so that
    what only a few tiles show counts little: here by reweighting with Cauchy's
    function, relative to the scatter of each tile. The result is expanded in
    smooth modes, Legendre polynomials up to degree 8. The scatter between tiles
    tells how uncertain each mode is, and modes shrink to nothing as
    far as they may be chance [2]_: few tiles give a flatter field, not a wrong one.

    A dark field that is a multiple of the flat field cannot be told from
    the sample; of all dark fields that explain the tiles, the most uniform is
    chosen.

    References
    ----------
    .. [1] Peng et al., A BaSiC tool for background and shading correction of
       optical microscopy images, Nature Communications 8 (2017) 14836,
       :doi:`10.1038/ncomms14836`.
    .. [2] Breiman, Better subset regression using the nonnegative garrote,
       Technometrics 37 (1995) 373, :doi:`10.1080/00401706.1995.10484371`.

    Examples
    --------
    Fifty pictures that are darker by 30 % in the corners:

    >>> import spectral_tools as spt
    >>> scene = 100 + 9 * spt.gaussian_texture((400, 800), rng=1)
    >>> made = spt.simulate_tiles(scene, (5, 10), (80, 80), vignetting=0.3)
    >>> shading = spt.estimate_shading(made.tiles)
    >>> true = made.shading / made.shading.mean()
    >>> [float(field[0, 0].round(2)) for field in (true, shading.flat)]
    [0.78, 0.78]
    """
    tiles = unstacked(tiles)
    shape = _common_shape(tiles)
    wanted = isinstance(dark, str)
    if wanted and dark != "estimate":
        message = f"`dark` must be an array or 'estimate'; got {dark!r}."
        raise ValueError(message)
    known_dark = np.zeros(shape) if wanted else _dark_field(dark, shape)

    side = int(np.clip(np.sqrt(ROOM / len(tiles)), FEWEST_CELLS, CELLS))
    edges = [cell_edges(size, side) for size in shape]
    read = partial(_read_cells, tiles, known_dark, edges)
    rows = spread(
        read,
        range(len(tiles)),
        workers=workers,
        progress=progress,
        title="estimate shading",
    )
    cells = np.array(list(rows))
    modes = smooth_modes(shape, edges)
    flat, found = fit_fields(cells, modes, dark=wanted)
    return Shading(flat=flat, dark=known_dark + found)


@checked
def apply_shading(
    tiles: ArrayLike | Sequence[ArrayLike], shading: Shading
) -> NDArray[Float]:
    """Take uneven light off a tile, or several.

    Values are ``(tile - dark) / flat``, which are not whole numbers: they
    come in floating point, whatever the tiles hold, and are not clipped.

    Parameters
    ----------
    tiles : array_like of shape (rows, cols) or (..., rows, cols)
        One tile, or tiles of one shape.
    shading : Shading
        What `estimate_shading` found, or was measured otherwise.

    Returns
    -------
    ndarray of shape (rows, cols) or (..., rows, cols)
        Evenly lit tiles, in the dtype in which images are computed: ``float32``
        for small integers, else what NumPy promotes it to.

    Raises
    ------
    ValueError
        If shapes do not fit, or the flat field is not positive everywhere.
    TypeError
        If tiles do not hold real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> flat = np.array([[0.5, 1.0, 1.5]])
    >>> shading = spt.Shading(flat=flat, dark=np.full((1, 3), 10))
    >>> spt.apply_shading(np.array([[60, 110, 160]], np.uint8), shading)
    array([[100., 100., 100.]], dtype=float32)
    """
    held: Any = tiles
    if not hasattr(tiles, "shape"):
        held = unstacked(tiles)
        shapes = sorted({np.shape(tile) for tile in held})
        if len(shapes) > 1:
            message = f"`tiles` must all have the same shape; got {shapes}."
            raise ValueError(message)
        held = [read_image(tile, f"tiles[{n}]") for n, tile in enumerate(held)]
    pixels = as_array(held)
    dtype = image_dtype(pixels.dtype, "tiles")
    flat = as_finite(shading.flat, "shading.flat")
    if flat.ndim != 2 or pixels.shape[-2:] != flat.shape:
        message = (
            f"`tiles` must have the shape of the flat field, {flat.shape}; "
            f"got {pixels.shape}."
        )
        raise ValueError(message)
    if not (flat > 0).all():
        message = f"`shading.flat` must be greater than 0; got {flat.min()}."
        raise ValueError(message)
    dark = _dark_field(shading.dark, flat.shape, "shading.dark")
    even = pixels.astype(dtype)
    even -= dark.astype(dtype)
    even /= flat.astype(dtype)
    return even


def _common_shape(tiles: Any) -> tuple[int, int]:
    """Return the one shape of all tiles, or tell which tile differs."""
    if len(tiles) == 0:
        message = "`tiles` must hold at least one tile; got none."
        raise ValueError(message)
    stacked = hasattr(tiles, "shape")
    shapes = [tiles.shape[1:]] if stacked else [np.shape(tile) for tile in tiles]
    for number, shape in enumerate(shapes):
        if len(shape) != 2 or 0 in shape:
            message = (
                "`tiles` must hold 2-D images with at least one pixel; "
                f"got shape {tuple(shape)} as tile {number}."
            )
            raise ValueError(message)
        if tuple(shape) != tuple(shapes[0]):
            message = (
                f"`tiles` must have one shape; got {tuple(shapes[0])} as tile 0 "
                f"and {tuple(shape)} as tile {number}."
            )
            raise ValueError(message)
    rows, cols = as_shape(shapes[0], "tiles")
    return rows, cols


def _dark_field(dark: ArrayLike, shape: tuple[int, ...], name: str = "dark") -> Floats:
    """Return what is known of the dark field, for each pixel."""
    field = as_sized(dark, name)
    if field.shape not in ((), shape):
        message = (
            f"`{name}` must be a number or have the shape of a tile, {shape}; "
            f"got {field.shape}."
        )
        raise ValueError(message)
    return np.broadcast_to(field, shape).copy()


def _read_cells(tiles: Any, dark: Floats, edges: list[Ints], number: int) -> Floats:
    """Return the mean of each cell of a tile, NaN where half of it is unknown."""
    pixels = read_image(tiles[number], f"tiles[{number}]")
    image_dtype(pixels.dtype, f"tiles[{number}]")
    values = pixels.astype(np.float64)
    known = np.isfinite(values)
    grid = len(edges[0]) - 1, len(edges[1]) - 1
    if not known.any() or np.ptp(values[known]) == 0:
        return np.full(grid, np.nan)
    values -= dark
    areas = np.outer(*[np.diff(each) for each in edges])
    counts = areas
    if not known.all():
        values[~known] = 0
        counts = _cell_sums(known.astype(np.float64), edges)
    sums = _cell_sums(values, edges)
    enough = 2 * counts >= areas
    return np.where(enough, sums / np.maximum(counts, 1), np.nan)


def _cell_sums(values: Floats, edges: list[Ints]) -> Floats:
    for axis, each in enumerate(edges):
        values = np.add.reduceat(values, each[:-1], axis=axis)
    return values

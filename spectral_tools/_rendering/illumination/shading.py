"""Find the uneven light of a camera from its own tiles, and take it off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._shared.arrays import Float, Floats, Ints
from ..._shared.checks import as_finite, as_shape, image_dtype
from ..._shared.workers import Workers, check_workers, spread
from .smooth_fields import CELLS, cell_edges, fit_fields, smooth_modes

__all__ = ["Shading", "apply_shading", "estimate_shading"]


# All tiles together are kept as about so many cells, however many tiles there are.
ROOM = 2_000_000
FEWEST_CELLS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    check_workers(workers)
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
    pixels = np.asarray(tiles)
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
    field = as_finite(dark, name)
    if field.shape not in ((), shape):
        message = (
            f"`{name}` must be a number or have the shape of a tile, {shape}; "
            f"got {field.shape}."
        )
        raise ValueError(message)
    return np.broadcast_to(field, shape).copy()


def _read_cells(tiles: Any, dark: Floats, edges: list[Ints], number: int) -> Floats:
    """Return the mean of each cell of a tile, NaN where half of it is unknown."""
    pixels = np.asarray(tiles[number])
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

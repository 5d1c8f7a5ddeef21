"""Make acquisitions whose truth is known, out of any image.

They differ from real ones in that every answer is known to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Float, Floats
from .._shared.checks import (
    as_finite,
    as_points,
    as_shape,
    as_shift,
    as_sized_image,
    check_fraction,
    check_not_negative,
    check_unmasked,
)
from .._shared.ndimage import affine_transform, map_coordinates, spline_filter
from .._shared.results import result
from .._transforms.fields.displacement import invert_displacement

__all__ = [
    "SimulatedPair",
    "SimulatedSeries",
    "SimulatedTiles",
    "simulate_pair",
    "simulate_series",
    "simulate_tiles",
]


Seed = int | np.random.Generator | None

# Stage errors and rotations are cut off here, so that whether a grid fits into
# an image never depends on chance.
LIMIT = 4.0


def as_scene(image: ArrayLike) -> NDArray[Float]:
    """Return `image` in floating point, or say that it has bad pixels."""
    check_unmasked(image, "image", "pixels")
    scene = as_sized_image(image, "image")
    if not np.isfinite(scene).all():
        # A spline through one bad pixel would spoil all the others.
        count = np.count_nonzero(~np.isfinite(scene))
        message = f"`image` must be finite; got {count} NaN or infinite pixels."
        raise ValueError(message)
    return scene


def as_pattern(
    pattern: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[Float] | None:
    """Return `pattern` in floating point, or None, or say that it does not fit."""
    if pattern is None:
        return None
    array = as_sized_image(pattern, "pattern")
    if array.shape != shape:
        message = f"`pattern` must have shape {shape}; got {array.shape}."
        raise ValueError(message)
    return array


def check_room(room: tuple[int, ...], needed: NDArray[np.float64]) -> None:
    """Raise unless a scene of shape `room` holds a picture of shape `needed`."""
    if (needed > room).any():
        shape = tuple(map(int, needed.tolist()))
        message = f"`image` must have at least shape {shape} to hold all; got {room}."
        raise ValueError(message)


def tile_matrices(
    positions: NDArray[np.float64], angles: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return matrices that turn tiles about their centres, then move them."""
    ndim = len(shape)
    centre = (np.array(shape) - 1) / 2
    cosine, sine = np.cos(angles), np.sin(angles)
    matrices = np.tile(np.eye(ndim + 1), (len(positions), 1, 1))
    matrices[:, ndim - 2, ndim - 2] = matrices[:, ndim - 1, ndim - 1] = cosine
    matrices[:, ndim - 1, ndim - 2], matrices[:, ndim - 2, ndim - 1] = sine, -sine
    matrices[:, :-1, -1] = positions + centre - matrices[:, :-1, :-1] @ centre
    return matrices


def corner_lever(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return how far a corner moves along each axis, in pixels per radian."""
    lever = np.zeros(len(shape))
    lever[-2:] = (np.array(shape[:-3:-1]) - 1) / 2
    return lever


def cut_frames(
    scene: NDArray[Float], shifts: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[Float]:
    """Cut frames whose common origin is a whole pixel, all in the middle."""
    lower, upper = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    needed = shape + upper - lower
    check_room(scene.shape, needed)
    origin = (np.array(scene.shape) - needed) // 2 - lower
    return cut_tiles(
        scene, tile_matrices(origin + shifts, np.zeros(len(shifts)), shape), shape
    )


def _bent_pixels(distortion: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return the points (ndim, ...) of a corrected tile that its pixels record."""
    field = as_finite(distortion, "distortion")
    if field.shape != (*shape, len(shape)):
        message = (
            f"`distortion` must have shape {(*shape, len(shape))}; got {field.shape}."
        )
        raise ValueError(message)
    pixels = np.indices(shape, np.float64)
    bent = pixels - np.moveaxis(invert_displacement(field), -1, 0)
    if not np.isfinite(bent).all():
        message = "`distortion` must not fold tiles; got a field that does."
        raise ValueError(message)
    return bent


def cut_tiles(
    scene: NDArray[Float],
    matrices: NDArray[np.float64],
    shape: tuple[int, ...],
    pixels: Floats | None = None,
) -> NDArray[Float]:
    """Sample the quintic spline through the scene at the pixels of each tile.

    Against a phase ramp, for textures of slope 3, its error is 0.003 % of the
    standard deviation at a cutoff of 0.3, and 0.14 % at 0.5.
    """
    spline = spline_filter(scene, 5, mode="mirror")
    tiles = np.empty((len(matrices), *shape), scene.dtype)
    for tile, matrix in zip(tiles, matrices, strict=True):
        if pixels is not None:
            where = np.tensordot(matrix[:-1, :-1], pixels, 1)
            where += matrix[:-1, -1].reshape(-1, *[1] * len(shape))
            map_coordinates(
                spline, where, output=tile, order=5, mode="mirror", prefilter=False
            )
            continue
        affine_transform(
            spline,
            matrix[:-1, :-1],
            offset=matrix[:-1, -1],
            output_shape=shape,
            output=tile,
            order=5,
            mode="mirror",
            prefilter=False,
        )
    return tiles


def camera_shading(shape: tuple[int, ...], vignetting: float) -> NDArray[np.float64]:
    """Return the factor that takes `vignetting` of the light in the corners."""
    rows, cols = (np.arange(size) - (size - 1) / 2 for size in shape[-2:])
    square = rows[:, None] ** 2 + cols**2
    # A picture of one pixel has no corner.
    falloff = 1 - vignetting * square / (square[0, 0] or 1.0)
    return np.broadcast_to(falloff, shape).copy()


def add_camera(
    images: NDArray[Float],
    pattern: NDArray[Float] | None,
    noise_sigma: float,
    rng: np.random.Generator,
) -> None:
    """Add the same pattern and fresh noise to each of a stack of images."""
    if pattern is not None:
        images += pattern
    if noise_sigma:
        images += noise_sigma * rng.standard_normal(images.shape)


@result
class SimulatedTiles:
    """Tiles of a grid, where the stage says they are, and where they are.

    Tiles are listed row by row; positions are in pixels of the image.

    Attributes
    ----------
    tiles : ndarray of shape (n, rows, cols) or (n, planes, rows, cols)
        The pictures, in floating point.
    stage : ndarray of shape (n, ndim)
        Nominal position of pixel (0, 0) of each tile, as a microscope
        would report it.
    positions : ndarray of shape (n, ndim)
        True position of pixel (0, 0) of each tile.
    matrices : ndarray of shape (n, ndim + 1, ndim + 1)
        True matrices from tile to image; they hold `positions` and the
        rotations.
    grid : ndarray of shape (n, ndim), integer
        Index of each tile in the grid.
    gain : ndarray of shape (n,)
        Factor on the grey values of each tile.
    shading : ndarray of shape (rows, cols) or (planes, rows, cols)
        Factor on the grey values of each pixel, the same for all tiles.
    """

    tiles: NDArray[Float]
    stage: NDArray[np.float64]
    positions: NDArray[np.float64]
    matrices: NDArray[np.float64]
    grid: NDArray[np.intp]
    gain: NDArray[np.float64]
    shading: NDArray[np.float64]


@result
class SimulatedPair:
    """Two pictures of one scene, and the shift between them.

    Attributes
    ----------
    reference, moving : ndarray of shape (rows, cols) or (planes, rows, cols)
        The pictures, in floating point.
    shift : ndarray of shape (ndim,)
        True shift from moving to reference:
        ``reference_point = moving_point + shift``.
    """

    reference: NDArray[Float]
    moving: NDArray[Float]
    shift: NDArray[np.float64]


@result
class SimulatedSeries:
    """Pictures of one moving scene, and the shift of each.

    Attributes
    ----------
    frames : ndarray of shape (n, rows, cols) or (n, planes, rows, cols)
        The pictures, in floating point.
    shifts : ndarray of shape (n, ndim)
        True shift from each frame to the common scene:
        ``scene_point = frame_point + shift``.
    """

    frames: NDArray[Float]
    shifts: NDArray[np.float64]


@checked
def simulate_tiles(
    image: ArrayLike,
    grid_shape: Sequence[int],
    tile_shape: Sequence[int],
    *,
    overlap: float = 0.1,
    stage_sigma: float = 0.0,
    rotation_sigma: float = 0.0,
    vignetting: float = 0.0,
    gain_sigma: float = 0.0,
    noise_sigma: float = 0.0,
    pattern: ArrayLike | None = None,
    distortion: ArrayLike | None = None,
    missing: ArrayLike = (),
    rng: Seed = None,
) -> SimulatedTiles:
    r"""Cut a grid of overlapping tiles out of an image, as a microscope would.

    Each tile is ``gain * shading * scene + pattern + noise``, where the scene
    is sampled at the true place of the tile: the stage position plus an error.
    The grid lies in the middle of the image. Stage positions are whole pixels,
    so that without errors tiles are plain crops.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        What the tiles are pictures of.
    grid_shape : sequence of ndim int
        Number of tiles along each axis.
    tile_shape : sequence of ndim int
        Pixels of a tile along each axis.
    overlap : float, optional
        Part of a tile that its neighbour repeats, from 0 to below 1.
    stage_sigma : float, optional
        Standard deviation of the stage error along each axis, in pixels.
        Errors are normal, cut off at four standard deviations.
    rotation_sigma : float, optional
        Standard deviation of the angle of each tile, in radians, about the
        centre of the tile and within (row, col). Cut off like the stage error.
    vignetting : float, optional
        Part of the light that is lost in the corners of each (row, col)
        picture, from 0 to 1. The loss grows with the square of the distance
        from the centre.
    gain_sigma : float, optional
        Standard deviation of the logarithm of the gain of each tile; 0.05
        makes steps of about 5 %.
    noise_sigma : float, optional
        Standard deviation of white normal noise, in grey values.
    pattern : array_like of shape `tile_shape`, optional
        Fixed pattern of the camera, in grey values, added to every tile.
    distortion : array_like of shape (\*`tile_shape`, ndim), optional
        Field that bends all tiles alike, in pixels, as `warp_composite` takes it to
        undo that: ``corrected_point = recorded_point + distortion[corrected_point]``.
        Matrices and positions are those of corrected tiles.
    missing : array_like of shape (m, ndim), optional
        Grid indices of tiles that were not taken. Positions and gains of the
        others do not depend on it.
    rng : int or numpy.random.Generator, optional
        Seed or source of the random numbers.

    Returns
    -------
    SimulatedTiles
        The tiles, with nominal and true positions.

    Raises
    ------
    ValueError
        If the grid, with room for the errors, does not fit into the image.

    Examples
    --------
    The stage puts neighbours 90 pixels apart; in truth they are not:

    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((240, 320), rng=2)
    >>> made = spt.simulate_tiles(scene, (2, 3), (100, 100), stage_sigma=2, rng=2)
    >>> made.tiles.shape
    (6, 100, 100)
    >>> made.stage[1] - made.stage[0]
    array([ 0., 90.])
    >>> (made.positions[1] - made.positions[0]).round(1)
    array([-1.2, 86.2])
    """
    rng = np.random.default_rng(rng)
    scene = as_scene(image)
    counts = as_shape(grid_shape, "grid_shape", ndim=scene.ndim)
    shape = as_shape(tile_shape, "tile_shape", ndim=scene.ndim)
    check_fraction(vignetting, "vignetting")
    for value, name in (
        (stage_sigma, "stage_sigma"),
        (rotation_sigma, "rotation_sigma"),
        (gain_sigma, "gain_sigma"),
        (noise_sigma, "noise_sigma"),
    ):
        check_not_negative(value, name)
    added = as_pattern(pattern, shape)
    kept = _kept(missing, counts)
    bent = None if distortion is None else _bent_pixels(distortion, shape)

    reach = LIMIT * (stage_sigma + rotation_sigma * corner_lever(shape))
    if bent is not None:
        reach = reach + np.abs(bent - np.indices(shape)).max()
    stage = _stage(scene.shape, counts, shape, overlap, reach)
    errors = stage_sigma * _draw(rng, stage.shape)
    angles = rotation_sigma * _draw(rng, (len(stage),))
    with np.errstate(over="ignore"):
        gain = np.exp(gain_sigma * rng.standard_normal(len(stage)))[kept]
    if not np.isfinite(gain).all():
        message = f"`gain_sigma` must leave finite gains; got {gain_sigma}."
        raise ValueError(message)
    matrices = tile_matrices(stage + errors, angles, shape)[kept]

    shading = camera_shading(shape, vignetting)
    tiles = cut_tiles(scene, matrices, shape, bent)
    tiles *= shading
    tiles *= gain.reshape(-1, *[1] * scene.ndim)
    add_camera(tiles, added, noise_sigma, rng)
    return SimulatedTiles(
        tiles=tiles,
        stage=stage[kept],
        positions=matrices[:, :-1, -1].copy(),
        matrices=matrices,
        grid=np.argwhere(np.ones(counts, bool))[kept],
        gain=gain,
        shading=shading,
    )


@checked
def simulate_pair(
    image: ArrayLike,
    shape: Sequence[int],
    shift: ArrayLike,
    *,
    noise_sigma: float = 0.0,
    rng: Seed = None,
) -> SimulatedPair:
    """Cut two pictures with a given shift out of the middle of an image.

    Each shows something at its border that the other does not, as real
    pictures do. The reference is a plain crop.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        What both are pictures of.
    shape : sequence of ndim int
        Pixels of a picture along each axis.
    shift : float or array_like of shape (ndim,)
        Shift from moving to reference, in pixels:
        ``reference_point = moving_point + shift``.
    noise_sigma : float, optional
        Standard deviation of white normal noise, in grey values, independent
        in both pictures.
    rng : int or numpy.random.Generator, optional
        Seed or source of the random numbers.

    Returns
    -------
    SimulatedPair
        The pictures and their shift.

    Raises
    ------
    ValueError
        If the two pictures do not fit into the image.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((100, 100), rng=1)
    >>> pair = spt.simulate_pair(scene, (64, 64), (5, -7))
    >>> pair
    SimulatedPair(reference=(64, 64), moving=(64, 64), shift=[5, -7])
    >>> np.allclose(pair.reference[5:, :-7], pair.moving[:-5, 7:])
    True
    """
    rng = np.random.default_rng(rng)
    scene = as_scene(image)
    size = as_shape(shape, "shape", ndim=scene.ndim)
    offset = as_shift(shift, scene.ndim, "shift")
    check_not_negative(noise_sigma, "noise_sigma")

    shifts = np.stack([np.zeros_like(offset), offset])
    frames = cut_frames(scene, shifts, size)
    add_camera(frames, None, noise_sigma, rng)
    return SimulatedPair(reference=frames[0], moving=frames[1], shift=offset)


@checked
def simulate_series(
    image: ArrayLike,
    shifts: ArrayLike,
    shape: Sequence[int],
    *,
    noise_sigma: float = 0.0,
    pattern: ArrayLike | None = None,
    rng: Seed = None,
) -> SimulatedSeries:
    """Cut a series of pictures with given shifts out of the middle of an image.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        What all are pictures of.
    shifts : array_like of shape (n, ndim)
        Shift from each frame to the common scene, in pixels:
        ``scene_point = frame_point + shift``.
    shape : sequence of ndim int
        Pixels of a frame along each axis.
    noise_sigma : float, optional
        Standard deviation of white normal noise, in grey values, independent
        in all frames.
    pattern : array_like of shape `shape`, optional
        Fixed pattern of the camera, in grey values, added to every frame.
    rng : int or numpy.random.Generator, optional
        Seed or source of the random numbers.

    Returns
    -------
    SimulatedSeries
        The frames and their shifts.

    Raises
    ------
    ValueError
        If the frames do not fit into the image.

    Examples
    --------
    A camera that drifts by half a pixel a frame along the rows:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((100, 100), rng=1)
    >>> drift = np.arange(9)[:, None] * (0.5, 0)
    >>> series = spt.simulate_series(scene, drift, (64, 64))
    >>> series
    SimulatedSeries(frames=(9, 64, 64), shifts=(9, 2))
    >>> np.allclose(series.frames[0, 4:], series.frames[8, :-4])
    True
    """
    rng = np.random.default_rng(rng)
    scene = as_scene(image)
    offsets = as_points(shifts, "shifts", ndim=scene.ndim)
    if not len(offsets):
        message = f"`shifts` must hold at least one shift; got shape {offsets.shape}."
        raise ValueError(message)
    size = as_shape(shape, "shape", ndim=scene.ndim)
    check_not_negative(noise_sigma, "noise_sigma")
    added = as_pattern(pattern, size)

    frames = cut_frames(scene, offsets, size)
    add_camera(frames, added, noise_sigma, rng)
    return SimulatedSeries(frames=frames, shifts=offsets.copy())


def _kept(missing: ArrayLike, counts: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell for each tile of the grid, row by row, whether it was taken."""
    gone = np.asarray(missing)
    kept = np.ones(counts, bool)
    if gone.size:
        given = as_points(gone, "missing", ndim=len(counts))
        indices = np.clip(given, -1, counts).astype(np.intp)
        if (indices != gone).any() or (indices < 0).any() or (indices >= counts).any():
            message = (
                f"`missing` must hold indices of a grid of shape {counts}; "
                f"got {gone.tolist()}."
            )
            raise ValueError(message)
        kept[tuple(indices.T)] = False
    return kept.ravel()


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.clip(rng.standard_normal(shape), -LIMIT, LIMIT)


def _stage(
    room: tuple[int, ...],
    counts: tuple[int, ...],
    shape: tuple[int, ...],
    overlap: float,
    reach: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the positions of a grid in the middle, with `reach` px all around."""
    step = np.rint((1 - float(np.clip(overlap, 0, 1))) * np.array(shape))
    if not 0 <= overlap < 1 or (step < 1).any():
        message = (
            "`overlap` must be at least 0 and leave a step of one pixel; "
            f"got {overlap}."
        )
        raise ValueError(message)
    extent = (np.array(counts) - 1) * step + shape
    check_room(room, extent + 2 * np.ceil(reach))
    return (np.array(room) - extent) // 2 + np.argwhere(np.ones(counts, bool)) * step

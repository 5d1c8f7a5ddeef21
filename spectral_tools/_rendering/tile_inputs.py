"""Check tiles and masks, and say where tiles lie on the canvas."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._sampling.splines import LEAST_SIGMA
from .._shared.arrays import Floats, Ints, unstacked
from .._shared.checks import as_matrices, as_valid
from .sample_kernels import SLACK

__all__ = [
    "Tile",
    "entries",
    "extent_of",
    "masks_of",
    "matrices_of",
    "place",
    "spatial_shapes",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """A tile and where it lies: ``tile_point = linear @ canvas_pixel + offset``."""

    number: int  # among the tiles that are there
    pixels: Any
    valid: Any
    size: Floats
    half: Floats  # of the size; infinite along the planes of a flat tile
    linear: Floats
    offset: Floats
    shifted: bool  # the map is a translation
    order: int  # of the interpolation
    sigma: Floats  # (3,): how much it is smoothed before it is sampled
    box: Floats  # (2, 3): lowest and highest canvas coordinates


def entries(stack: Any, name: str) -> list[Any]:
    """Return the images of a stack or sequence; None where one is missing."""
    found: list[Any]
    found = list(unstacked(stack))
    if all(each is None for each in found):
        message = f"`{name}` must hold at least one image; got none."
        raise ValueError(message)
    return [
        each if each is None or hasattr(each, "dtype") else np.asarray(each)
        for each in found
    ]


def matrices_of(matrices: Any, there: list[int], count: int) -> Floats:
    """Return the matrices of the tiles that are there; others are not looked at."""
    array = np.asarray(matrices)
    if array.ndim == 3 and len(array) == count:
        return as_matrices(array[there], "matrices")
    return as_matrices(array, "matrices", count=count)


def spatial_shapes(images: list[Any], ndim: int, axis: int | None) -> tuple[Ints, int]:
    """Return the shapes of the tiles without channels, and how many channels."""
    wanted = ndim + (axis is not None)
    for image in images:
        if len(image.shape) != wanted or 0 in image.shape:
            message = (
                f"`tiles` must have {wanted} axes and at least one pixel; "
                f"got shape {tuple(image.shape)}."
            )
            raise ValueError(message)
    shapes = np.array([image.shape for image in images], dtype=np.intp)
    if axis is None:
        return shapes, 1
    counts = np.unique(shapes[:, axis])
    if len(counts) > 1:
        message = f"`tiles` must have equally many channels; got {counts.tolist()}."
        raise ValueError(message)
    return np.delete(shapes, axis, axis=1), int(counts[0])


def masks_of(valid: Any, shapes: Ints, there: list[int], count: int) -> list[Any]:
    """Return one mask, or None, for each of the `count` tiles that is there."""
    if valid is None:
        return [None] * len(shapes)
    if hasattr(valid, "dtype") and len(valid.shape) == shapes.shape[1]:
        masks = [valid] * len(shapes)
    else:
        masks = [
            each if each is None or hasattr(each, "dtype") else np.asarray(each)
            for each in valid
        ]
        if len(masks) != count:
            message = (
                f"`valid` must be one mask, or one for each of {count} tiles; "
                f"got {len(masks)}."
            )
            raise ValueError(message)
        masks = [masks[n] for n in there]
    for mask, shape in zip(masks, shapes.tolist(), strict=True):
        if mask is not None:
            # A stand-in is checked, so that a lazy mask is not read yet.
            stand_in = np.broadcast_to(np.zeros((), mask.dtype), mask.shape)
            as_valid(stand_in, tuple(shape), "valid")
    return masks


def extent_of(maps: Floats, shapes: Ints) -> tuple[Floats, Floats]:
    """Return the lowest and highest mosaic coordinates of each tile."""
    ndim = shapes.shape[1]
    linear, offset = maps[:, :ndim, :ndim], maps[:, :ndim, ndim]
    middle = np.einsum("nij,nj->ni", linear, (shapes - 1) / 2) + offset
    reach = np.einsum("nij,nj->ni", np.abs(linear), shapes / 2 + SLACK)
    return middle - reach, middle + reach


def place(
    images: list[Any],
    masks: list[Any],
    maps: Floats,
    shapes: Ints,
    origin: Floats,
    scale: float,
    order: int,
    displaced: bool,
) -> list[Tile]:
    """Return where each tile lies on a canvas, and how it is sampled there."""
    ndim = shapes.shape[1]
    # Flat tiles become one plane, without a border along the planes.
    flat = 3 - ndim
    low, high = extent_of(maps, shapes)
    boxes = np.zeros((len(maps), 2, 3))
    boxes[:, :, flat:] = (np.stack([low, high], axis=1) - origin) * scale
    size, half = np.ones((len(maps), 3)), np.full((len(maps), 3), np.inf)
    size[:, flat:], half[:, flat:] = shapes, shapes / 2
    linear, offset = np.tile(np.eye(3), (len(maps), 1, 1)), np.zeros((len(maps), 3))
    inverse = np.linalg.inv(maps[:, :ndim, :ndim])
    linear[:, flat:, flat:] = inverse / scale
    offset[:, flat:] = np.einsum("nij,nj->ni", inverse, origin - maps[:, :ndim, ndim])
    # A pixel of the canvas spans that many pixels along each axis of the tile.
    spans = np.sqrt((linear**2).sum(axis=2))
    sigma = np.maximum((spans - 1) / 2, 0) * (order > 0)
    sigma[sigma <= LEAST_SIGMA] = 0
    shifted = (linear == np.eye(3)).all(axis=(1, 2))
    # Between whole pixels there is nothing to interpolate.
    whole = ~np.bool_(displaced) & shifted & (offset == np.rint(offset)).all(axis=1)
    return [
        Tile(
            number=n,
            pixels=images[n],
            valid=masks[n],
            size=size[n],
            half=half[n],
            linear=linear[n],
            offset=offset[n],
            shifted=bool(shifted[n]),
            order=0 if whole[n] else order,
            sigma=sigma[n],
            box=boxes[n],
        )
        for n in range(len(images))
    ]

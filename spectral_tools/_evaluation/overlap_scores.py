"""How well placed tiles agree where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._placement.solve_tiles import Placement
from .._rendering.warp import warp_image
from .._shared.arrays import Floats
from .._shared.checks import as_image, as_valid
from .._transforms.matrices import apply_transform, translation
from .scores import normalized_cross_correlation

__all__ = ["OverlapScores", "overlap_scores"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverlapScores:
    """How well each two linked tiles agree where they overlap.

    Attributes
    ----------
    links : ndarray of int, shape (n_links, 2)
        Numbers of the reference and the moving tile, each pair once.
    correlation : ndarray of shape (n_links,)
        Zero-mean correlation of the pixels that both show; 0 if they show none.
    difference : ndarray of shape (n_links,)
        Mean of the moving less the reference tile there, in grey values; 0 if none.
    pixels : ndarray of int, shape (n_links,)
        Number of pixels that both show.
    """

    links: NDArray[np.intp]
    correlation: Floats
    difference: Floats
    pixels: NDArray[np.intp]


def overlap_scores(
    tiles: Sequence[Any],
    placement: Placement,
    *,
    valid: Sequence[Any] | None = None,
) -> OverlapScores:
    """Compare the pixels of linked tiles where a placement lays them on each other.

    This judges a mosaic by its images alone: points that fit each other well may
    still have been found on the wrong things.

    Parameters
    ----------
    tiles : sequence of array_like, each of shape (rows, cols) or (planes, rows, cols)
        Images, in the order of the labels of the placement.
    placement : Placement
        Where they lie, and which of them are linked.
    valid : sequence of array_like of bool, optional
        For each tile, True where a pixel counts. Pixels that are not finite never
        count.

    Returns
    -------
    OverlapScores
        One row for each pair of tiles that is linked.

    See Also
    --------
    seam_residuals : How far the points of links are apart.

    Examples
    --------
    Two tiles that share 20 columns, the second one brighter by 10:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((64, 108), rng=0)
    >>> tiles = [scene[:, :64], scene[:, 44:] + 10]
    >>> placed = spt.solve_rigid([(0, 1)], [(0, 44)], [(0, 0)])
    >>> scores = spt.overlap_scores(tiles, placed)
    >>> scores.pixels, scores.difference.round(3), scores.correlation.round(3)
    (array([1280]), array([10.]), array([1.]))
    """
    count = len(placement.matrices)
    for name, given in (("tiles", tiles), ("valid", valid)):
        if given is not None and len(given) != count:
            message = f"`{name}` must hold one image for each of {count} tiles; got {len(given)}."
            raise ValueError(message)
    links = np.unique(placement.links, axis=0)
    rows = [
        _compared(tiles, placement.matrices, pair, valid) for pair in links.tolist()
    ]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return OverlapScores(
        links=links,
        correlation=table[:, 0],
        difference=table[:, 1],
        pixels=table[:, 2].astype(np.intp),
    )


def _compared(
    tiles: Sequence[Any], matrices: Floats, pair: list[int], valid: Sequence[Any] | None
) -> tuple[float, float, int]:
    """Return correlation, difference and number of pixels of two tiles."""
    first, second = pair
    change = np.linalg.inv(matrices[first]) @ matrices[second]
    box = _shared_box(change, np.shape(tiles[first]), np.shape(tiles[second]))
    if box is None:
        return 0.0, 0.0, 0
    start = [side.start for side in box]
    reference = as_image(tiles[first][box], "tiles")
    moving = as_image(tiles[second], "tiles")
    counted = [
        None if valid is None else as_valid(valid[tile], np.shape(tiles[tile]), "valid")
        for tile in pair
    ]
    warped = warp_image(
        moving,
        translation(np.negative(start)) @ change,
        shape=reference.shape,
        valid=counted[1],
        fill_value=np.nan,
    )
    both = np.isfinite(reference) & np.isfinite(warped)
    if counted[0] is not None:
        both &= counted[0][box]
    pixels = int(both.sum())
    away = (warped[both].astype(np.float64) - reference[both]).sum() / max(pixels, 1)
    score = normalized_cross_correlation(reference, warped, valid=both)
    return score, float(away), pixels


def _shared_box(
    change: Floats, shape0: tuple[int, ...], shape1: tuple[int, ...]
) -> tuple[slice, ...] | None:
    """Return the pixels of the first tile that the second may cover."""
    unit = np.indices((2,) * len(shape1)).reshape(len(shape1), -1).T
    corners = apply_transform(change, unit * np.array(shape1) - 0.5)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape0)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, shape0)
    if (high <= low).any():
        return None
    return tuple(map(slice, low.tolist(), high.tolist()))

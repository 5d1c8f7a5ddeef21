"""What is known of the places of tiles before any is matched."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import as_shape, as_shift
from .._shared.link_arguments import Links, listed_positions, number_links
from .._shared.results import result
from .._shared.statistics import least_absolute_weights, mad_sigma
from .grid_links import Order, grid_links, grid_positions, overlapping_links

__all__ = [
    "CUT",
    "LINKS_BEFORE",
    "Layout",
    "StageModel",
    "fit_stage",
    "lay_out",
    "nearest_pairs",
    "turned_layout",
]


# How far a first match may be from where a tile should be, as a share of the tile:
# an overlap that is only guessed can be anything up to a half.
STAGE_REACH, GRID_REACH = 0.2, 0.4


# Reweighting by the inverse distance comes close to the least sum of distances.
ROUNDS = 30
# Steps further from the model than this, in standard deviations, are not the stage's.
CUT = 4.0
# Steps along an axis tell how the stage moves along it if one of them is so long, as a
# share of a tile: shorter ones are jitter, and what fits jitter undoes it
# (test_rows_that_nothing_joins_stay_apart).
LONG_STEP = 0.25
# What is known of a stage before any link: so many links' worth of this share of a tile.
LINKS_BEFORE, SHARE_BEFORE = 2.0, 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """What is known of the tiles before any is matched."""

    labels: Sequence[Hashable]
    present: Flags
    size: Floats  # of the largest tile
    alike: bool  # all have it
    links: Ints
    chosen: bool  # links are those that should overlap, and were not given
    nominal: Floats | None
    reach: Floats | None


def lay_out(
    tiles: Any,
    positions: Any,
    grid: Sequence[int] | None,
    order: Order,
    overlap: ArrayLike,
    links: Links | None,
    max_shift: ArrayLike | None,
    min_overlap: float,
) -> Layout:
    """Turn what was given about the layout into numbers and links."""
    labels = list(tiles) if isinstance(tiles, Mapping) else range(len(tiles))
    images = [tiles[label] for label in labels]
    present = np.array([image is not None for image in images], np.bool_)
    if not present.any():
        message = "`tiles` must hold at least one image; got none."
        raise ValueError(message)
    sides = [np.shape(image) for image in images if image is not None]
    if len({len(each) for each in sides}) > 1:
        message = (
            "`tiles` must all have the same number of axes; "
            f"got {sorted({len(each) for each in sides})}."
        )
        raise ValueError(message)
    shapes = np.array(sides)
    size = shapes.max(axis=0).astype(np.float64)
    nominal, share = None, STAGE_REACH
    pairs: Ints = np.empty((0, 2), np.intp)
    if positions is not None:
        nominal = listed_positions(positions, labels, len(size))
        sizes = np.tile(size, (len(labels), 1))
        sizes[present] = shapes
        pairs = overlapping_links(nominal, sizes, min_overlap=min_overlap)
    elif grid is not None or _grid_keys(labels, len(size)):
        nominal, pairs = _on_grid(labels, grid, size, order, overlap)
        share = GRID_REACH
    elif links is None:
        message = "`positions`, `grid` or `links` must be given; got none of them."
        raise ValueError(message)
    if links is not None:
        pairs = number_links(
            links, tiles if isinstance(tiles, Mapping) else dict.fromkeys(labels, 0)
        )[0]
    reach = None if nominal is None else share * size
    if max_shift is not None:
        reach = as_shift(max_shift, len(size), "max_shift")
    return Layout(
        labels=labels, present=present, size=size, alike=len(set(sides)) == 1,
        links=pairs, chosen=links is None and positions is not None,
        nominal=nominal, reach=reach,
    )  # fmt: skip


def turned_layout(layout: Layout, matrix: Floats, min_overlap: float) -> Layout:
    """Return a layout whose nominal steps are those that a stage really makes."""
    if layout.nominal is None:
        return layout
    middle = layout.nominal.mean(axis=0)
    nominal = (layout.nominal - middle) @ matrix.T + middle
    links = layout.links
    if layout.chosen:
        sizes = np.tile(layout.size, (len(nominal), 1))
        links = overlapping_links(nominal, sizes, min_overlap=min_overlap)
    return replace(layout, nominal=nominal, links=links)


def nearest_pairs(places: Floats, present: Flags) -> Ints:
    """Return pairs of some tiles, a row of a square grid full, and their nearest ones."""
    there = np.flatnonzero(present)
    some = there[
        np.unique(
            np.linspace(0, len(there) - 1, 2 + math.isqrt(len(there))).astype(int)
        )
    ]
    pairs = []
    for tile in some.tolist():
        away = np.linalg.norm(places[there] - places[tile], axis=1)
        near = there[np.argsort(away, kind="stable")[1 : 1 + 2 * places.shape[1]]]
        pairs += [(min(tile, each), max(tile, each)) for each in near.tolist()]
    return np.array(sorted(set(pairs)), np.intp).reshape(-1, 2)


def _grid_keys(labels: Sequence[Hashable], ndim: int) -> bool:
    """Tell whether all labels are grid keys, such as (row, col)."""
    return all(
        isinstance(label, tuple)
        and len(label) == ndim
        and all(isinstance(entry, int | np.integer) for entry in label)
        for label in labels
    )


def _on_grid(
    labels: Sequence[Hashable],
    grid: Sequence[int] | None,
    size: Floats,
    order: Order,
    overlap: ArrayLike,
) -> tuple[Floats, Ints]:
    """Return nominal positions and links of tiles on a grid."""
    shape = size.astype(np.intp).tolist()
    if grid is None:
        keys = np.array(labels, np.intp)
        keys -= keys.min(axis=0)
        counts = (keys.max(axis=0) + 1).tolist()
        number = np.ravel_multi_index(tuple(keys.T), counts)
        row = np.full(int(np.prod(counts)), -1)
        row[number] = np.arange(len(labels))
        pairs = row[grid_links(counts)]
        pairs = pairs[(pairs >= 0).all(axis=1)]
        return grid_positions(counts, shape, overlap=overlap)[number], pairs
    counts = as_shape(grid, "grid", ndim=len(shape))
    if np.prod(counts) != len(labels):
        message = f"`grid` must have one place for each of {len(labels)} tiles; got {tuple(counts)}."
        raise ValueError(message)
    return (
        grid_positions(counts, shape, overlap=overlap, order=order),
        grid_links(counts, order=order),
    )


@result
class StageModel:
    """How a stage moves, as the links tell it.

    Attributes
    ----------
    matrix : ndarray of shape (ndim, ndim)
        Turns nominal steps into those that were made: scale, rotation and shear
        of the grid against the camera.
    sigma : ndarray of shape (ndim,)
        Standard deviation of a position about that, in pixels.
    leverage : ndarray of shape (ndim, ndim)
        A nominal step s is predicted with the variance ``2 * sigma**2 * (1 + s @
        leverage @ s)``: twice that of a position, and what the matrix is off by.
    links : int
        Number of links that the model rests on; with none it is the nominal grid.
    """

    matrix: Floats
    sigma: Floats
    leverage: Floats
    links: int


def fit_stage(steps: Floats, offsets: Floats, size: Floats) -> StageModel:
    """Fit a stage model to nominal `steps` and measured `offsets` of many links.

    # Strategy: the linear map with the least sum of distances does not mind some false
    # links; the spread of what lies near it is the stage's own error, and two such
    # errors make that of a step.
    """
    ndim = steps.shape[1]
    before = SHARE_BEFORE * size
    if not len(steps):
        return StageModel(
            matrix=np.eye(ndim), sigma=before, leverage=np.zeros((ndim, ndim)), links=0
        )
    told = _along_long_steps(steps, LONG_STEP * size)
    change = np.zeros((ndim, ndim))
    for _ in range(ROUNDS):
        miss = offsets - steps - told @ change.T
        distance = np.sqrt((miss * miss).sum(axis=1))
        weights = least_absolute_weights(distance, least=1e-3 * float(size.min()))
        change = _least_squares(told, offsets - steps, weights)
    miss = offsets - steps - told @ change.T
    spread = mad_sigma(miss, axis=0)
    inside = np.abs(miss) <= CUT * np.maximum(spread, 0.1 * before)
    near = np.asarray(inside.all(axis=1))
    change = _least_squares(told, offsets - steps, near.astype(np.float64))
    miss = (offsets - steps - told @ change.T)[near]
    # Each axis of the grid that is stepped along takes one link to learn.
    free = max(len(miss) - np.linalg.matrix_rank(told[near]), 0)
    square = (miss * miss).sum(axis=0) / 2
    share = free / max(len(miss), 1)
    total = share * len(miss) + LINKS_BEFORE
    sigma = np.sqrt((square + LINKS_BEFORE * before**2) / total)
    return StageModel(
        matrix=np.eye(ndim) + change,
        sigma=sigma,
        leverage=_inverse(told[near].T @ told[near]),
        links=int(np.count_nonzero(near)),
    )


def _along_long_steps(steps: Floats, least: Floats) -> Floats:
    """Return the part of steps that lies along the axes on which some are long."""
    scaled = steps / least
    _, axes = np.linalg.eigh(scaled.T @ scaled)
    along = scaled @ axes
    along[:, np.abs(along).max(axis=0) < 1] = 0
    return np.asarray(along @ axes.T * least)


def _least_squares(steps: Floats, values: Floats, weights: Floats) -> Floats:
    """Return the smallest map that turns steps into values; unseen axes stay."""
    normal = (steps * weights[:, None]).T @ steps
    pull = (steps * weights[:, None]).T @ values
    return (_inverse(normal) @ pull).T


def _inverse(normal: Floats) -> Floats:
    """Return the inverse, without the axes that no step tells."""
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    return inverse.astype(np.float64, copy=False)

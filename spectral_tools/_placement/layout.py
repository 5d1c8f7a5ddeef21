"""What is known of the places of tiles before any is matched."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import as_shape, as_shift
from .._shared.link_arguments import Links, listed_positions, number_links
from .grid_links import Order, grid_links, grid_positions, overlapping_links

__all__ = ["Layout", "lay_out"]


# How far a first match may be from where a tile should be, as a share of the tile:
# an overlap that is only guessed can be anything up to a half.
STAGE_REACH, GRID_REACH = 0.2, 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """What is known of the tiles before any is matched."""

    labels: Sequence[Hashable]
    present: Flags
    size: Floats  # of the largest tile
    links: Ints
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
    shapes = np.array([np.shape(image) for image in images if image is not None])
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
            links, tiles if isinstance(tiles, Mapping) else range(len(tiles))
        )[0]
    reach = None if nominal is None else share * size
    if max_shift is not None:
        reach = as_shift(max_shift, len(size), "max_shift")
    return Layout(
        labels=labels, present=present, size=size, links=pairs, nominal=nominal, reach=reach
    )  # fmt: skip


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

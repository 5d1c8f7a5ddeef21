"""Cut plans down to what one region needs, so that little travels."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Ints
from .plan import Plan, tiles_near
from .tile_inputs import Tile
from .tile_reading import keys_of, need_of

__all__ = ["Part", "cut_part", "needs_of", "thin_plan"]

Key = tuple[slice, ...]
# One array of a tile, whether it is its pixels or its mask, and its part that is read.
Wanted = tuple[str, Any, Key]


class Part:
    """A part of an array, which is sliced by the indices of the whole."""

    def __init__(self, array: Any, corner: tuple[int, ...], whole: Any) -> None:
        self.array, self.corner = array, corner
        self.shape, self.dtype = tuple(whole.shape), whole.dtype

    def __getitem__(self, key: Key) -> Any:
        within = []
        for side, first, size, part in zip(
            self.shape, self.corner, self.array.shape, key, strict=True
        ):
            start, stop, _ = part.indices(side)
            if start < stop and not first <= start <= stop <= first + size:
                message = (
                    f"`key` must lie within {first} to {first + size}; "
                    f"got {start} to {stop}."
                )
                raise ValueError(message)
            within.append(slice(max(start - first, 0), max(stop - first, 0)))
        return self.array[tuple(within)]


def needs_of(plan: Plan, tile: Tile, starts: Ints, stops: Ints) -> list[Wanted]:
    """Return what the blocks of a region read of a tile."""
    unmoved = [np.empty((3, 0, 0, 0))] * len(starts)
    need = need_of(tile, starts, stops, unmoved, plan.computed)
    known, pixels = keys_of(tile, plan.channel_axis, need.first, need.stop)
    wanted: list[Wanted] = [("pixels", tile.pixels, pixels)]
    return wanted if tile.valid is None else [*wanted, ("valid", tile.valid, known)]


def thin_plan(plan: Plan, starts: Ints, stops: Ints) -> Plan:
    """Return a plan for some blocks alone, without the rest of what is in memory."""
    if plan.field is not None:
        return plan
    near = tiles_near(plan, starts, stops)
    tiles = []
    for tile in (plan.tiles[n] for n in near):
        cut: dict[str, Any] = {
            name: cut_part(array, key)
            for name, array, key in needs_of(plan, tile, starts, stops)
            if isinstance(array, np.ndarray)
        }
        tiles.append(replace(tile, **cut))
    return replace(plan, tiles=tiles, boxes=plan.boxes[near])


def cut_part(array: NDArray[Any], key: Key) -> Part:
    """Cut a part of an array that is in memory, without a copy."""
    corner = tuple(
        part.indices(side)[0] for part, side in zip(key, array.shape, strict=True)
    )
    return Part(array[key], corner, array)

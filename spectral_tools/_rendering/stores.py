"""Write rendered blocks to stores, and remember which ones are there."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._shared.arrays import Ints
from .._shared.checks import as_shape
from .._shared.workers import Workers
from .plan import Plan
from .regions import (
    Region,
    regions_of,
    render_regions,
    takes_regions,
    write_regions,
)

__all__ = ["block_sides", "check_store", "write_blocks"]


def check_store(
    store: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Raise unless a store has a shape and can hold the values of a dtype."""
    if not hasattr(store, "__setitem__") or not hasattr(store, "dtype"):
        message = (
            f"`{name}` must take slices and have a dtype; got {type(store).__name__}."
        )
        raise TypeError(message)
    if tuple(store.shape) != shape:
        message = f"`{name}` must have shape {shape}; got {tuple(store.shape)}."
        raise ValueError(message)
    if not np.can_cast(dtype, store.dtype):
        message = f"`{name}` must hold {dtype}; got dtype {store.dtype}."
        raise TypeError(message)
    if _is_read_only(store):
        message = f"`{name}` must be writeable; got a read-only {type(store).__name__}."
        raise ValueError(message)


def _is_read_only(store: Any) -> bool:
    """Return whether a NumPy, Zarr or HDF5 array says that it cannot be written."""
    if not getattr(getattr(store, "flags", None), "writeable", True):
        return True
    if getattr(store, "read_only", False) is True:
        return True
    return getattr(getattr(store, "file", None), "mode", "") == "r"


def block_sides(plan: Plan, blocks: Sequence[int] | None, out: Any) -> Ints:
    """Return the shape of the blocks: whole chunks of `out`, if it has any."""
    if blocks is not None:
        return np.array(as_shape(blocks, "blocks", ndim=plan.ndim), dtype=np.intp)
    sides = plan.region[-plan.ndim :]
    chunks = getattr(out, "chunks", None)
    if chunks is None or len(chunks) != len(plan.image_shape):
        return sides
    if not all(isinstance(chunk, int) for chunk in chunks):
        return sides
    if plan.channel_axis is not None:
        chunks = np.delete(chunks, plan.channel_axis)
    return -(-sides // np.array(chunks)) * np.array(chunks)


def write_blocks(
    plan: Plan,
    sides: Ints,
    image: Any,
    coverage: Any,
    done: Any,
    workers: Workers,
    progress: bool,
) -> None:
    """Render all blocks that are not done, and write each before it is marked."""
    regions = regions_of(plan, sides)
    cells = [_cell(region, plan.ndim, sides) for region in regions]
    if done is not None:
        grid = tuple((-(-plan.shape // sides)).tolist())
        check_store(done, "done", grid, np.dtype(bool))
        marks = np.asarray(done[...], dtype=bool)
        left = [k for k, cell in enumerate(cells) if not marks[cell]]
        regions, cells = [regions[k] for k in left], [cells[k] for k in left]
    for cell, _ in zip(
        cells, _written(plan, regions, image, coverage, workers, progress), strict=True
    ):
        if done is not None:
            _settle(image)
            _settle(coverage)
            done[cell] = True
            _settle(done)


def _written(
    plan: Plan,
    regions: list[Region],
    image: Any,
    coverage: Any,
    workers: Workers,
    progress: bool,
) -> Iterator[None]:
    """Write regions, and yield whenever one has been written."""
    shown: Any = (workers, progress, "warp_composite")
    if takes_regions(plan, image, coverage, workers):
        yield from write_regions(plan, regions, image, coverage, *shown)
        return
    for inside, pixels, counts in render_regions(plan, regions, *shown):
        image[plan.with_channels(inside)] = pixels
        coverage[inside] = counts
        yield


def _cell(region: Region, ndim: int, sides: Ints) -> tuple[int, ...]:
    return tuple((region[0][3 - ndim :] // sides).tolist())


def _settle(store: Any) -> None:
    """Make a store write what it still holds back."""
    flush = getattr(store, "flush", None)
    if flush is not None:
        flush()

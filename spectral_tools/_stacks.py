"""Take stacks of images apart without reading them (floor 0)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["StackEntry", "unstacked"]


class StackEntry:
    """One image of a stored stack, read only where it is sliced."""

    def __init__(self, stack: Any, index: int) -> None:
        self.stack, self.index = stack, index
        self.shape, self.dtype = tuple(stack.shape[1:]), stack.dtype

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return self.stack[(self.index, *parts)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.stack[self.index], dtype)


def unstacked(tiles: Any) -> Sequence[Any]:
    """Return the images of a sequence or stack, such as one HDF5 or Zarr array."""
    if isinstance(tiles, np.ndarray) or not hasattr(tiles, "shape"):
        return tiles
    return [StackEntry(tiles, index) for index in range(tiles.shape[0])]

"""Types of arrays, and stacks that are read only where they are sliced."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AT_ONCE",
    "AnyArray",
    "Bytes",
    "Flags",
    "Float",
    "Floats",
    "Image",
    "Ints",
    "Ints32",
    "Ints64",
    "MaskPair",
    "Plane",
    "Spectrum",
    "StackEntry",
    "Volume",
    "VolumePair",
    "as_array",
    "masks_joined",
    "unstacked",
]

# Numbers that are held at once where work goes in parts: 32 MB.
AT_ONCE = 2**22

AnyArray = NDArray[Any]
Bytes = NDArray[np.int8]
Flags = NDArray[np.bool_]
Float = np.floating[Any]
Floats = NDArray[np.float64]
Image = NDArray[np.floating[Any]]
Ints = NDArray[np.intp]
Ints32 = NDArray[np.int32]
Ints64 = NDArray[np.int64]
Plane = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Volume = NDArray[np.float32]
# Of two images that are matched.
VolumePair = tuple[Volume, Volume]
MaskPair = tuple[Flags, Flags]


class StackEntry:
    """One image of a stored stack, read only where it is sliced."""

    def __init__(self, stack: Any, index: int) -> None:
        self.stack, self.index = stack, index
        self.shape, self.dtype = tuple(stack.shape[1:]), stack.dtype

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return self.stack[(self.index, *parts)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(as_array(self.stack[self.index]), dtype)


def masks_joined(values: Any) -> Any:
    """Return a list that holds masked arrays as one; everything else as it is."""
    if isinstance(values, list | tuple) and any(
        isinstance(each, np.ma.MaskedArray) for each in values
    ):
        return np.ma.asarray(values)
    return values


def as_array(values: Any) -> AnyArray:
    """Return an array, with NaN for what a masked array masks.

    It becomes one of floats then; a mask that masks nothing changes nothing.
    """
    held = masks_joined(values)
    if not isinstance(held, np.ma.MaskedArray):
        return np.asarray(held)
    if held.dtype.kind not in "biuf" or not np.ma.is_masked(held):
        return np.asarray(held)
    plain = held.data.astype(np.result_type(held.dtype, np.float32))
    plain[np.ma.getmaskarray(held)] = np.nan
    return plain


def unstacked(
    tiles: Any, name: str = "tiles", *, labelled: bool = True
) -> Sequence[Any]:
    """Return the images of a stack, such as one HDF5 or Zarr array, or of a sequence.

    Those that come one by one are taken at once, and so are those of a mapping from
    labels, if they may be `labelled`.
    """
    if isinstance(tiles, Mapping) and labelled:
        tiles = list(tiles.values())
    sized = hasattr(tiles, "__len__") and hasattr(tiles, "__getitem__")
    known = isinstance(tiles, Iterable) or sized or hasattr(tiles, "shape")
    if not known or isinstance(tiles, str | bytes | Mapping | AbstractSet):
        message = (
            f"`{name}` must be a stack of images or a sequence of them; "
            f"got {type(tiles).__name__}."
        )
        raise TypeError(message)
    if not sized and not hasattr(tiles, "shape"):
        tiles = list(tiles)
    if isinstance(tiles, np.ma.MaskedArray):
        tiles = as_array(tiles)
    if isinstance(tiles, np.ndarray) or not hasattr(tiles, "shape"):
        return tiles
    return [StackEntry(tiles, index) for index in range(tiles.shape[0])]

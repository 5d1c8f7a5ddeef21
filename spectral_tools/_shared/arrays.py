"""Types of arrays, and stacks that are read only where they are sliced."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AT_ONCE",
    "COLORS",
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
    "as_entry",
    "check_grey",
    "held_array",
    "lies_in_store",
    "listed_images",
    "masks_joined",
    "unstacked",
]

# Numbers that are held at once where work goes in parts: 32 MB.
AT_ONCE = 2**22

# Pictures have so many values a pixel: red, green and blue, and how opaque it is.
COLORS = (3, 4)

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


def masks_joined(values: Any, depth: int = 3) -> Any:
    """Return a list that holds masked arrays as one; everything else as it is.

    Those of lists in it are found to so many axes.
    """
    if depth == 0 or not isinstance(values, list | tuple):
        return values
    parts = [masks_joined(each, depth - 1) for each in values]
    if not any(isinstance(each, np.ma.MaskedArray) for each in parts):
        return values
    # NumPy's own way warns where a number is masked.
    mask = [np.ma.getmaskarray(each) for each in parts]
    return np.ma.array([np.ma.getdata(each) for each in parts], mask=mask)


def held_array(values: Any, name: str) -> AnyArray:
    """Return the array that something is, or the one of all that it holds."""
    try:
        held = masks_joined(values)
        return held if isinstance(held, np.ma.MaskedArray) else np.asarray(held)
    except (TypeError, ValueError, OverflowError) as error:
        message = (
            f"`{name}` must hold real numbers, in rows of one length; got what NumPy "
            f"says this of: {error}."
        )
        raise TypeError(message) from error


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


def unstacked(images: Any, name: str = "tiles") -> Any:
    """Return images like `listed_images`; one that is None shows nothing."""
    listed = listed_images(images, name)
    for n, each in enumerate(listed):
        if each is not None:
            check_grey(each, f"{name}[{n}]")
    if isinstance(listed, np.ndarray) or not any(each is None for each in listed):
        return listed
    there = next((each for each in listed if each is not None), None)
    if there is None:
        message = f"`{name}` must hold at least one image; got none."
        raise ValueError(message)
    # It takes no memory.
    nothing = np.broadcast_to(np.float32(np.nan), tuple(there.shape))
    return [nothing if each is None else each for each in listed]


def check_grey(image: Any, name: str) -> None:
    """Raise if something is surely a picture in colours and no volume.

    That is one whose last axis has 3 or 4 values and is less than a quarter of the
    others: the columns of a volume are not so few, because its planes come first.
    """
    shape = tuple(image.shape)
    if len(shape) == 3 and shape[2] in COLORS and 4 * shape[2] < min(shape[:2]):
        message = (
            f"`{name}` must be grey, come with `channel_axis` where that is taken, or "
            f"have the planes of a volume first; got shape {shape}, as of colours."
        )
        raise ValueError(message)


def listed_images(images: Any, name: str) -> Any:
    """Return the images of whatever holds them, in their order; none of them is read.

    That is a stack, such as one HDF5 or Zarr array, a sequence, a mapping from labels, or
    something that gives them one by one. None stands for an image that is missing.
    """
    if isinstance(images, memoryview):
        images = np.asarray(images)
    elif lies_in_store(images) and not isinstance(images.dtype, np.dtype):
        # A tensor, whose types are not those of NumPy, is taken by value.
        images = as_entry(images, name)
    if isinstance(images, np.ndarray) and images.ndim:
        if images.dtype.kind in "biufc":
            return as_array(images)
        images = list(images)
    if isinstance(images, Mapping):
        images = images.values()
    elif lies_in_store(images):
        if not images.shape:
            message = f"`{name}` must be a stack of images; got a number without axes."
            raise ValueError(message)
        return [StackEntry(images, index) for index in range(int(images.shape[0]))]
    if not isinstance(images, Iterable) or isinstance(
        images, str | bytes | bytearray | AbstractSet
    ):
        message = (
            f"`{name}` must be a stack of images or a sequence of them; "
            f"got {type(images).__name__}."
        )
        raise TypeError(message)
    return [as_entry(each, f"{name}[{n}]") for n, each in enumerate(images)]


def lies_in_store(image: Any) -> bool:
    """Tell whether something is read by slicing it, and says what that gives."""
    needed = ("shape", "dtype", "__getitem__")
    there = all(hasattr(image, each) for each in needed)
    return there and not isinstance(image, type)


def as_entry(image: Any, name: str) -> Any:
    """Return one image of several as it lies, if it has a shape, or as an array."""
    if image is None:
        return None
    if lies_in_store(image) and isinstance(image.dtype, np.dtype):
        return image
    array = as_array(held_array(image, name))
    if array.dtype.kind not in "biuf":
        message = (
            f"`{name}` must be an array of real numbers; got {type(image).__name__}."
        )
        raise TypeError(message)
    return array

"""Turn arguments into arrays, or say what is wrong with them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import (
    COLORS,
    AnyArray,
    Float,
    as_array,
    check_grey,
    listed_images,
    masks_joined,
)

__all__ = [
    "Valid",
    "as_affine",
    "as_axis",
    "as_coordinates",
    "as_finite",
    "as_finite_image",
    "as_image",
    "as_matrices",
    "as_matrix",
    "as_point",
    "as_points",
    "as_positions",
    "as_shape",
    "as_shift",
    "as_sized",
    "as_sized_image",
    "as_valid",
    "check_affine",
    "check_count",
    "check_fraction",
    "check_memory",
    "check_not_negative",
    "check_positive",
    "check_same_ndim",
    "check_same_shape",
    "check_sizes",
    "check_store",
    "check_unmasked",
    "check_whitening",
    "fits_into",
    "image_dtype",
    "in_grey",
    "masks_in_order",
    "most_squared",
    "read_image",
]


Valid = Sequence[ArrayLike | None] | ArrayLike | None

# Red, green and blue in what the eye takes for brightness, as in Rec. 709.
LUMINANCE = (0.2125, 0.7154, 0.0721)
# Matrices are singular if their determinant is below this share of the most it could be.
SINGULAR = 1e-15


def image_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the dtype in which images of `dtype` are computed.

    It is NumPy's own promotion with ``float32``: small integers and
    ``float32`` become or stay ``float32``, wider types become ``float64``.
    """
    if dtype.kind not in "biuf":
        message = f"`{name}` must hold real numbers; got dtype {dtype}."
        raise TypeError(message)
    if dtype.itemsize > 8:
        return np.dtype(np.float64)
    return np.result_type(dtype, np.float32)


def as_image(image: ArrayLike, name: str) -> NDArray[Float]:
    """Return `image` as a 2-D or 3-D array of at least single precision.

    Values are never rescaled, and NaN and infinite pixels are let through:
    they count as not valid wherever images are compared. What a masked array
    masks becomes NaN.
    """
    array = as_array(image)
    check_grey(array, name)
    if array.ndim not in (2, 3):
        message = f"`{name}` must be a 2-D or 3-D image; got shape {array.shape}."
        raise ValueError(message)
    if array.size == 0:
        message = f"`{name}` must have at least one pixel; got shape {array.shape}."
        raise ValueError(message)
    return array.astype(image_dtype(array.dtype, name), copy=False)


def as_sized_image(image: ArrayLike, name: str) -> NDArray[Float]:
    """Return `image` like `as_image`, of values whose squares can be computed."""
    array = as_image(image, name)
    check_sizes(array, name, least=True)
    return array


def as_valid(
    valid: ArrayLike | None, shape: tuple[int, ...], name: str
) -> NDArray[np.bool_] | None:
    """Return `valid` as a boolean array of the given shape, or None.

    What a masked array masks does not count.
    """
    if valid is None:
        return None
    held = masks_joined(valid)
    array = np.asarray(held)
    if isinstance(held, np.ma.MaskedArray) and array.dtype.kind == "b":
        array = held.filled(False)
    if array.dtype.kind != "b":
        message = f"`{name}` must be boolean; got dtype {array.dtype}."
        raise TypeError(message)
    if array.shape != tuple(shape):
        message = f"`{name}` must have shape {tuple(shape)}; got {array.shape}."
        raise ValueError(message)
    return array


def masks_in_order(
    valid: Any, labels: Sequence[Any], ndim: int, noun: str = "tiles"
) -> list[Any]:
    """Return what serves each label as a mask: one for all, or its own, or None."""
    if valid is None:
        return [None] * len(labels)
    if isinstance(valid, Mapping):
        unknown = [label for label in valid if label not in labels]
        if unknown:
            message = f"`valid` must name known {noun}; got {unknown[0]!r}."
            raise ValueError(message)
        return [valid.get(label) for label in labels]
    if hasattr(valid, "shape") and len(valid.shape) == ndim:
        return [valid] * len(labels)
    count = len(valid) if isinstance(valid, list) else (*valid.shape, 1)[0]
    if count != len(labels):
        message = (
            f"`valid` must hold one mask for each of {len(labels)} {noun}; got {count}."
        )
        raise ValueError(message)
    return [valid[number] for number in range(count)]


def as_finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values` as a finite ``float64`` array of any shape."""
    check_unmasked(values, name)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" and array.size:
        message = f"`{name}` must hold real numbers; got dtype {array.dtype}."
        raise TypeError(message)
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        count = np.count_nonzero(~np.isfinite(array))
        message = f"`{name}` must be finite; got {count} NaN or infinite values."
        raise ValueError(message)
    return array


def as_sized(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values` like `as_finite`, if their squares can be computed."""
    array = as_finite(values, name)
    check_sizes(array, name)
    return array


def as_finite_image(image: ArrayLike, name: str) -> NDArray[Float]:
    """Return `image` like `as_image`, or say that it has bad pixels."""
    check_unmasked(image, name, "pixels")
    array = as_sized_image(image, name)
    as_finite(array, name)
    return array


def as_points(
    points: ArrayLike, name: str, *, ndim: int | None = None
) -> NDArray[np.float64]:
    """Return `points` as a finite ``float64`` array of shape (n, ndim)."""
    array = as_sized(points, name)
    # An empty list does not know its axes.
    if ndim is not None and array.shape == (0,):
        array = array.reshape(0, ndim)
    wanted = (2, 3) if ndim is None else (ndim,)
    if array.ndim != 2 or array.shape[1] not in wanted:
        width = " or ".join(f"(n, {size})" for size in wanted)
        message = f"`{name}` must have shape {width}; got {array.shape}."
        raise ValueError(message)
    return array


def as_point(
    point: ArrayLike, name: str, *, ndim: int | None = None
) -> NDArray[np.float64]:
    """Return `point` as a finite ``float64`` array of shape (ndim,)."""
    array = as_sized(point, name)
    wanted = (2, 3) if ndim is None else (ndim,)
    if array.ndim != 1 or len(array) not in wanted:
        width = " or ".join(f"({size},)" for size in wanted)
        message = f"`{name}` must have shape {width}; got {array.shape}."
        raise ValueError(message)
    return array


def as_coordinates(
    points: ArrayLike, name: str, *, ndim: int | None = None
) -> NDArray[np.float64]:
    """Return `points` as a ``float64`` array of shape (..., ndim), NaN where missing."""
    array = as_array(points)
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        array = np.where(missing, np.nan, as_sized(np.where(missing, 0, array), name))
    else:
        array = as_sized(array, name)
    wanted = (2, 3) if ndim is None else (ndim,)
    if array.ndim == 0 or array.shape[-1] not in wanted:
        width = " or ".join(f"(..., {size})" for size in wanted)
        message = f"`{name}` must have shape {width}; got {array.shape}."
        raise ValueError(message)
    return array


def as_matrix(
    matrix: ArrayLike, name: str, *, ndim: int | None = None
) -> NDArray[np.float64]:
    """Return `matrix` as finite ``float64``, shape (ndim + 1, ndim + 1)."""
    array = as_sized(matrix, name)
    wanted = [(size + 1, size + 1) for size in ((2, 3) if ndim is None else (ndim,))]
    if array.shape not in wanted:
        shapes = " or ".join(map(str, wanted))
        message = f"`{name}` must have shape {shapes}; got {array.shape}."
        raise ValueError(message)
    return array


def as_affine(matrix: ArrayLike, name: str, *, ndim: int) -> NDArray[np.float64]:
    """Return an invertible affine `matrix` as ``float64``."""
    array = as_matrix(matrix, name, ndim=ndim)
    check_affine(array[np.newaxis], name)
    return array


def as_positions(
    positions: ArrayLike, name: str, *, count: int, ndim: int
) -> NDArray[np.float64]:
    """Return `positions` as a finite ``float64`` array of shape (count, ndim)."""
    array = as_sized(positions, name)
    if array.shape != (count, ndim):
        message = f"`{name}` must have shape {(count, ndim)}; got {array.shape}."
        raise ValueError(message)
    return array


def as_matrices(
    matrices: ArrayLike, name: str, *, count: int | None = None
) -> NDArray[np.float64]:
    """Return `matrices` as finite ``float64``, shape (n, ndim + 1, ndim + 1)."""
    array = as_sized(matrices, name)
    if array.ndim != 3 or array.shape[1:] not in ((3, 3), (4, 4)):
        message = f"`{name}` must have shape (n, 3, 3) or (n, 4, 4); got {array.shape}."
        raise ValueError(message)
    if count is not None and len(array) != count:
        message = f"`{name}` must hold one matrix for each of {count} tiles; got {len(array)}."
        raise ValueError(message)
    return array


def as_shape(
    shape: Sequence[int], name: str, *, ndim: int | None = None
) -> tuple[int, ...]:
    """Return `shape` as a tuple of positive integers, one for each axis."""
    array = np.asarray(shape)
    if array.dtype.kind not in "iu" and array.size:
        message = f"`{name}` must hold integers; got {shape!r}."
        raise TypeError(message)
    wanted = (2, 3) if ndim is None else (ndim,)
    if array.ndim != 1 or len(array) not in wanted or (array < 1).any():
        count = " or ".join(map(str, wanted))
        message = f"`{name}` must hold {count} positive integers; got {shape!r}."
        raise ValueError(message)
    sides = tuple(array.tolist())
    check_memory(prod(sides), name)
    return sides


def as_shift(shift: ArrayLike, ndim: int, name: str) -> NDArray[np.float64]:
    """Return `shift` as ``float64`` of shape (ndim,); a number serves every axis."""
    array = as_sized(shift, name)
    if array.ndim == 0:
        return np.full(ndim, float(array))
    if array.shape != (ndim,):
        message = (
            f"`{name}` must be a number or have shape ({ndim},); got {array.shape}."
        )
        raise ValueError(message)
    return array.copy()


def as_axis(axis: int | None, ndim: int, name: str = "channel_axis") -> int | None:
    """Return the number of one of `ndim` axes, counted from the first, or None."""
    if axis is None:
        return None
    if not -ndim <= axis < ndim:
        message = f"`{name}` must be between {-ndim} and {ndim - 1}; got {axis}."
        raise ValueError(message)
    return axis % ndim


class GreyImage:
    """An image with channels that is read in grey, part by part.

    It is the luminance of three or four channels along the last axis, as of
    ``skimage.color.rgb2gray``, of which the fourth says how opaque a pixel is and does not
    count, and the mean of other channels.
    """

    def __init__(self, image: Any, axis: int) -> None:
        self.image, self.axis = image, axis
        self.shape = tuple(np.delete(image.shape, axis).tolist())
        self.dtype = np.dtype(np.float32)
        if image.dtype.kind not in "biuf":
            # It is refused by its name.
            self.dtype = image.dtype
        elif image.dtype.itemsize <= 8:
            self.dtype = np.result_type(image.dtype, np.float32)

    def __getitem__(self, key: Any) -> AnyArray:
        parts = list(key) if isinstance(key, tuple) else [key]
        if len(parts) < len(self.shape) or any(not isinstance(p, slice) for p in parts):
            return np.asarray(self)[key]
        parts.insert(self.axis, slice(None))
        return self._in_grey(self.image[tuple(parts)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        whole = self.image[...] if hasattr(self.image, "__getitem__") else self.image
        return np.asarray(self._in_grey(whole), dtype)

    def _in_grey(self, part: Any) -> AnyArray:
        values = np.moveaxis(as_array(part), self.axis, -1)
        count = values.shape[-1]
        weights = np.full(count, 1 / count)
        if count in COLORS and self.axis == len(self.shape):
            weights = np.array(LUMINANCE)
        plain = values[..., : len(weights)].astype(self.dtype, copy=False)
        return np.asarray(plain @ weights.astype(self.dtype))


def in_grey(images: Any, channel_axis: int | None, name: str) -> Any:
    """Return images without channels, as they are or in grey; those stored stay there."""
    listed = listed_images(images, name)
    found = list(listed)
    for n, each in enumerate(found):
        if each is None:
            continue
        if channel_axis is None:
            check_grey(each, f"{name}[{n}]")
            continue
        axis = as_axis(channel_axis, len(each.shape))
        if axis is None or len(each.shape) not in (3, 4) or 0 in each.shape:
            message = (
                f"`{name}` must have 2 or 3 axes besides `channel_axis`, and at least "
                f"one pixel; got shape {tuple(each.shape)} as {name}[{n}]."
            )
            raise ValueError(message)
        grey = GreyImage(each, axis)
        here = isinstance(each, np.ndarray) and each.dtype.kind in "biuf"
        found[n] = np.asarray(grey) if here else grey
    if isinstance(images, Mapping):
        return dict(zip(images, found, strict=True))
    return listed if channel_axis is None else found


def check_memory(count: Any, name: str) -> None:
    """Raise if no array of so many numbers fits into memory."""
    try:
        np.empty(int(8 * count), np.int8)
    except (MemoryError, ValueError, OverflowError) as error:
        message = (
            f"`{name}` must ask for what fits into memory; got "
            f"{8 * float(count) / 2**30:.3g} GiB."
        )
        raise ValueError(message) from error


def check_store(
    store: Any,
    name: str,
    shape: tuple[int | None, ...],
    dtype: np.dtype[Any],
    casting: Any = "safe",
) -> None:
    """Raise unless a store has a shape and can hold the values of a dtype.

    Sides that are None may be of any length.
    """
    takes = all(hasattr(store, each) for each in ("__setitem__", "dtype", "shape"))
    if not takes or isinstance(store, type):
        message = (
            f"`{name}` must take slices and have a dtype; got {type(store).__name__}."
        )
        raise TypeError(message)
    has = tuple(store.shape)
    same = len(has) == len(shape)
    same = same and all(b in (None, a) for a, b in zip(has, shape, strict=True))
    if not same:
        wanted = str(shape).replace("None", "n")
        message = f"`{name}` must have shape {wanted}; got {has}."
        raise ValueError(message)
    if not np.can_cast(dtype, np.dtype(store.dtype), casting):
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


def check_same_shape(**arrays: NDArray[Any]) -> None:
    """Raise if the named arrays differ in shape."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listing = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        message = f"Arrays must have the same shape; got {listing}."
        raise ValueError(message)


def check_same_ndim(**arrays: NDArray[Any]) -> None:
    """Raise if the named arrays differ in their number of axes."""
    if len({array.ndim for array in arrays.values()}) > 1:
        listing = ", ".join(f"`{name}` {a.shape}" for name, a in arrays.items())
        message = f"Images must have the same number of axes; got {listing}."
        raise ValueError(message)


def check_unmasked(values: Any, name: str, what: str = "values") -> None:
    """Raise if a masked array masks any of its elements."""
    held = masks_joined(values)
    if isinstance(held, np.ma.MaskedArray) and np.ma.is_masked(held):
        masked = int(np.ma.getmaskarray(held).sum())
        message = (
            f"`{name}` must have no masked {what}; "
            f"got {masked} of {held.size} masked: fill them first."
        )
        raise ValueError(message)


def fits_into(value: float, dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype of floating point holds a number, be it infinite or NaN."""
    return not np.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)


def check_fraction(value: float, name: str) -> None:
    """Raise unless 0 <= `value` <= 1."""
    if not 0 <= value <= 1:
        message = f"`{name}` must be between 0 and 1; got {value}."
        raise ValueError(message)


def check_not_negative(value: float, name: str) -> None:
    """Raise unless `value` is finite and not below 0."""
    if not 0 <= value < np.inf:
        message = f"`{name}` must be finite and at least 0; got {value}."
        raise ValueError(message)
    check_sizes(np.array(value, np.float64), name)


def check_positive(value: float, name: str) -> None:
    """Raise unless `value` is finite and greater than 0."""
    if not 0 < value < np.inf:
        message = f"`{name}` must be finite and greater than 0; got {value}."
        raise ValueError(message)
    check_sizes(np.array(value, np.float64), name)


def most_squared(dtype: Any) -> float:
    """Return the size below which squares of numbers, and sums of some, are finite."""
    return float(np.finfo(dtype).max) ** 0.45


def check_sizes(
    array: NDArray[Any],
    name: str,
    *,
    least: bool = False,
    dtype: Any = None,
    degree: int = 2,
) -> None:
    """Raise if squares of finite numbers, or sums of some, are infinite in a dtype.

    Or products of a `degree` of them. Or, if the `least` counts too, if the squares of all numbers are 0 and they are not.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize < 4 or not array.size:
        return
    most = most_squared(dtype or image_dtype(array.dtype, name)) ** (2 / degree)
    plain = np.asarray(array)
    low, high = float(plain.min()), float(plain.max())
    if -most < low and high < most and max(-low, high) * most > 1:
        return
    known = np.isfinite(plain) & ~np.ma.getmaskarray(array)
    largest = float(np.abs(plain).max(initial=0, where=known))
    if largest >= most:
        message = (
            f"`{name}` must hold numbers below {most:.0e} in size; got {largest:.3g}."
        )
        raise ValueError(message)
    if least and 0 < largest * most <= 1:
        message = (
            f"`{name}` must hold numbers above {1 / most:.0e} in size, or 0; got none "
            f"above {largest:.3g}."
        )
        raise ValueError(message)


def read_image(
    image: Any, name: str, part: Any = ..., *, dtype: Any = None
) -> AnyArray:
    """Read a part of one image of several, or tell which cannot be used.

    Its numbers can be squared in `dtype`, or else in its own.
    """
    try:
        array = as_array(image[part] if hasattr(image, "__getitem__") else image)
    except Exception as error:
        error.add_note(f"This came of reading `{name}`.")
        raise
    check_sizes(array, name, least=True, dtype=dtype)
    return array


def check_affine(matrices: NDArray[np.float64], name: str) -> None:
    """Raise unless all matrices of shape (n, ndim + 1, ndim + 1) are affine maps.

    They can be inverted, up to rounding.
    """
    ndim = matrices.shape[1] - 1
    several = len(matrices) > 1
    bent = np.flatnonzero((matrices[:, -1] != np.eye(ndim + 1)[-1]).any(axis=1))
    if bent.size:
        row, where = matrices[bent[0], -1].tolist(), f" at {bent[0]}" * several
        message = f"`{name}` must be affine; got the last row {row}{where}."
        raise ValueError(message)
    linear = matrices[:, :ndim, :ndim]
    # No determinant is larger than the product of the lengths of its rows.
    most = np.linalg.norm(linear, axis=2).prod(axis=1)
    singular = np.flatnonzero(np.abs(np.linalg.det(linear)) <= SINGULAR * most)
    if singular.size:
        where = f" at {singular[0]}" * several
        message = f"`{name}` must be invertible; got a singular one{where}."
        raise ValueError(message)


def check_count(value: int, name: str) -> None:
    """Raise unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        message = f"`{name}` must be an integer; got {type(value).__name__}."
        raise TypeError(message)
    if value < 1:
        message = f"`{name}` must be at least 1; got {value}."
        raise ValueError(message)


def check_whitening(value: float | None) -> None:
    """Raise unless `value` is None or an exponent from 0 to 1."""
    if value is not None:
        check_fraction(value, "whitening")

"""Move the frames of a series to where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._sampling.subpixel_moves import SLACK, move_frame, room_for
from .._shared.arguments import as_dtype, checked
from .._shared.arrays import Floats, Image
from .._shared.checks import (
    as_coordinates,
    as_finite,
    as_shape,
    check_store,
    fits_into,
    image_dtype,
)
from .._shared.workers import Workers
from .frames import Frames, as_groups, frames_of

__all__ = ["apply_shifts", "common_area", "make_template"]


ORDERS = (0, 1, 3, 5)
BORDERS = ("constant", "nearest", "mirror", "wrap")


@checked
def apply_shifts(
    frames: Any,
    shifts: ArrayLike,
    *,
    order: int = 3,
    border: str = "constant",
    fill_value: float = 0,
    planes: int | Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    workers: Workers = 1,
    progress: bool = False,
) -> Any:
    """Move each frame of a series by its shift.

    Whole shifts copy pixels exactly. The frames themselves are left as they are.

    Parameters
    ----------
    frames : array_like of shape (n, rows, cols) or (n, planes, rows, cols), or iterable
        Images of one shape, as for `align_series`; they are read one by one.
    shifts : array_like of shape (n, ndim) or (n, groups, 2)
        Shift of each frame in the order of the axes, in pixels:
        ``reference_point = frame_point + shift``.
    order : {3, 0, 1, 5}, optional
        Order of the spline that interpolates [1]_; 0 takes the nearest pixel, 1
        interpolates linearly.
    border : {"constant", "nearest", "mirror", "wrap"}, optional
        What comes into view: `fill_value`, the border pixel, the frame mirrored at its
        border pixel, or its opposite side.
    fill_value : float, optional
        Value beyond the border. A frame covers half a pixel beyond the centres of
        its border pixels.
    planes : int or sequence of sequence of int, optional
        The groups of planes that `shifts` are for, as for `align_series`.
    dtype : dtype, optional
        Of the result, by default that of `out`, or that of the frames. Integers are
        rounded and clipped.
    out : array_like, optional
        Where to write the frames: anything that takes slices (NumPy, h5py, zarr) and
        has the shape of the result, which then is never in memory as a whole.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    ndarray of shape (n, rows, cols) or (n, planes, rows, cols)
        The moved frames; `out` if it was given.

    Raises
    ------
    ValueError
        If shapes do not fit, or an option is unknown.

    See Also
    --------
    align_series : Find the shifts.
    common_area : The part that all moved frames show.

    References
    ----------
    .. [1] Thévenaz, Blu, Unser (2000). Interpolation revisited.
       :doi:`10.1109/42.875199`

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> frames = np.arange(8).reshape(2, 2, 2)
    >>> spt.apply_shifts(frames, [(0, 0), (0, 1)], fill_value=-1)
    array([[[ 0,  1],
            [ 2,  3]],
           [[-1,  4],
            [-1,  6]]])
    """
    series = frames_of(frames, least=1)
    moves = _as_group_shifts(shifts, series, planes)
    if order not in ORDERS:
        message = f"`order` must be one of {ORDERS}; got {order!r}."
        raise ValueError(message)
    if border not in BORDERS:
        message = f"`border` must be one of {BORDERS}; got {border!r}."
        raise ValueError(message)
    held = series.dtype if out is None else getattr(out, "dtype", None)
    kept = as_dtype(
        held if dtype is None else dtype, "out" if dtype is None else "dtype"
    )
    image_dtype(kept, "dtype")
    _check_fill(fill_value, kept)
    count = len(moves.each)
    shape, result = (count, *series.shape), out
    if result is None:
        result = np.empty(shape, kept)
    else:
        check_store(result, "out", shape, kept, "unsafe")
    if out is not None and _overlaps_partly(frames, out):
        # No frame may be written over before it is read.
        result = np.empty(out.shape, out.dtype)
    # Threads write to an array themselves; others, and other stores, get chunks.
    in_place = isinstance(result, np.ndarray) and not callable(workers)
    in_place = in_place and result.dtype == kept
    onto = result if in_place else kept
    move = partial(_move_chunk, series, moves, order, border, fill_value, onto)
    start = 0
    for moved in series.map_chunks(move, workers, progress, "apply shifts"):
        if start + len(moved) > count:
            break
        if not in_place:
            result[start : start + len(moved)] = moved
        start += len(moved)
    if start != count:
        message = f"`shifts` must hold one shift for each frame; got {count} shifts."
        raise ValueError(message)
    if out is None:
        return result
    if result is not out:
        out[:] = result
    return out


def _overlaps_partly(frames: Any, out: Any) -> bool:
    """Return whether two arrays share memory, but not each frame its own."""
    if not (isinstance(frames, np.ndarray) and isinstance(out, np.ndarray)):
        return False
    same = (
        frames.ctypes.data == out.ctypes.data
        and frames.strides == out.strides
        and frames.dtype == out.dtype
    )
    return not same and np.may_share_memory(frames, out)


class _Shifts(NamedTuple):
    """The shift of each frame, group by group of planes."""

    groups: list[list[int]] | None
    each: Floats


def _as_group_shifts(
    shifts: ArrayLike, series: Frames, planes: int | Sequence[Sequence[int]] | None
) -> _Shifts:
    array = as_finite(shifts, "shifts")
    groups = as_groups(planes, series.shape)
    tail = (len(series.shape),) if groups is None else (len(groups), 2)
    if array.shape[1:] != tail or array.ndim != 1 + len(tail):
        wanted = "(n, " + ", ".join(map(str, tail)) + ")"
        message = f"`shifts` must have shape {wanted}; got {array.shape}."
        raise ValueError(message)
    if series.count is not None and len(array) != series.count:
        message = f"`shifts` must hold one shift for each of {series.count} frames; got {len(array)}."
        raise ValueError(message)
    return _Shifts(groups=groups, each=array)


def _check_fill(value: float, kept: np.dtype[Any]) -> None:
    if kept.kind == "f" and fits_into(value, kept):
        return
    info = np.iinfo(kept) if kept.kind in "iu" else None
    low, high = (0, 1) if info is None else (info.min, info.max)
    if kept.kind == "f" or not (low <= value <= high and value % 1 == 0):
        message = f"`fill_value` must be representable in {kept}; got {value}."
        raise ValueError(message)


def _move_chunk(
    series: Frames,
    moves: _Shifts,
    order: int,
    border: str,
    fill_value: float,
    onto: NDArray[Any] | np.dtype[Any],
    job: tuple[int, Sequence[Any]],
) -> NDArray[Any]:
    """Return some frames, moved: a part of `onto`, or an array of that dtype."""
    start, chunk = job
    if isinstance(onto, np.ndarray) and start + len(chunk) <= len(onto):
        result = onto[start : start + len(chunk)]
    else:
        dtype = onto.dtype if isinstance(onto, np.ndarray) else onto
        result = np.empty((len(chunk), *series.shape), dtype)
    shifts = moves.each[start : start + len(chunk)]
    shape = series.shape if moves.groups is None else series.shape[1:]
    room = room_for(shape, order, image_dtype(series.dtype, "frames"))
    for each, shift, to in zip(chunk, shifts, result, strict=False):
        frame = series.read(each)
        if moves.groups is None:
            move_frame(frame, shift, order, border, fill_value, room, to)
            continue
        for group, own in zip(moves.groups, shift, strict=True):
            for plane in group:
                move_frame(
                    frame[plane], own, order, border, fill_value, room, to[plane]
                )
    return result


@checked
def common_area(shape: Sequence[int], shifts: ArrayLike) -> tuple[slice, ...]:
    """Return the part of the reference that every moved frame shows.

    Parameters
    ----------
    shape : sequence of int
        Shape of a frame.
    shifts : array_like of shape (..., ndim)
        Shifts, in pixels: ``reference_point = frame_point + shift``. For groups of
        planes, those of all groups, and the shape of a plane.

    Returns
    -------
    tuple of slice
        Pixels whose centres lie within the centres of the border pixels of every
        frame. Empty slices if there are none.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.common_area((100, 80), [(0, 0), (2.5, -3), (-1, 4)])
    (slice(3, 99, None), slice(4, 77, None))
    """
    size = np.array(as_shape(shape, "shape"))
    given = as_finite(shifts, "shifts")
    if not given.size:
        message = f"`shifts` must hold at least one shift; got shape {given.shape}."
        raise ValueError(message)
    moved = as_coordinates(given, "shifts", ndim=len(size)).reshape(-1, len(size))
    first = np.clip(np.ceil(moved.max(axis=0) - SLACK), 0, size)
    stop = np.floor(size - 1 + moved.min(axis=0) + SLACK) + 1
    stop = np.clip(stop, first, size)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))


@checked
def make_template(
    frames: Any, shifts: ArrayLike, *, order: int = 3, workers: Workers = 1
) -> Image:
    """Return the mean of moved frames.

    Parameters
    ----------
    frames : array_like of shape (n, rows, cols) or (n, planes, rows, cols), or iterable
        Images of one shape, which are read one by one.
    shifts : array_like of shape (n, ndim)
        Shift of each frame, in pixels: ``reference_point = frame_point + shift``.
    order : {3, 0, 1, 5}, optional
        Order of the spline that interpolates.
    workers : int or map-like callable, optional
        Number of threads, or a callable that is used like `map`.

    Returns
    -------
    ndarray of the shape of a frame
        The mean of the frames that show a pixel; NaN where none does.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> frames = np.array([[[1.0, 2, 3]], [[2.0, 3, 4]]])
    >>> spt.make_template(frames, [(0, 0), (0, 1)])
    array([[1., 2., 3.]])
    """
    series = frames_of(frames, least=1)
    moves = _as_group_shifts(shifts, series, None)
    if order not in ORDERS:
        message = f"`order` must be one of {ORDERS}; got {order!r}."
        raise ValueError(message)
    computed = image_dtype(series.dtype, "frames")
    move = partial(_move_chunk, series, moves, order, "constant", np.nan, computed)
    total, count = np.zeros(series.shape), np.zeros(series.shape, np.intp)
    for moved in series.map_chunks(move, workers, False, "apply shifts"):
        for image in moved:
            there = np.isfinite(image)
            total += np.where(there, image, 0)
            count += there
    mean = np.full(series.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(computed)

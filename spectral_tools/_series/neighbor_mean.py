"""Average what the neighbours of each frame show."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.checks import check_count, check_store, image_dtype
from .frames import Frames, frames_of

__all__ = ["neighbor_mean"]

# A frame without what does not count, and where it counts; None if it does everywhere.
Read = tuple[NDArray[Any], NDArray[np.bool_] | None]


@checked
def neighbor_mean(frames: Any, reach: int, *, out: Any = None) -> Any:
    """Return, for each frame, the mean of the frames near it without itself.

    It is what a frame of a series that changes slowly should look like, free of its own
    noise and faults: something to compare a frame with, or to match it to.

    Parameters
    ----------
    frames : array_like of shape (n, rows, cols) or (n, planes, rows, cols), or iterable
        Images of one shape, as for `align_series`; each is read once, and no more
        than ``2 * reach + 1`` of them are held. NaN and infinite pixels do not count.
    reach : int
        How many frames count on either side, at least 1. Towards the ends of the
        series there are fewer.
    out : array_like, optional
        Where to write the means: anything that takes slices (NumPy, h5py, zarr) and
        has the shape of the series, which then is never in memory as a whole.

    Returns
    -------
    ndarray of shape (n, rows, cols) or (n, planes, rows, cols), or iterator
        The means, NaN where no neighbour shows a pixel; one after the other if
        frames come from an iterator; `out` if it was given.

    Raises
    ------
    ValueError
        If there are less than two frames, or shapes do not fit.
    TypeError
        If frames do not hold real numbers.

    See Also
    --------
    make_template : The mean of all frames.

    Examples
    --------
    A flash in frame 2 is missing where its neighbours are seen in its place:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> frames = np.array([1.0, 2, 90, 4, 5]).reshape(5, 1, 1)
    >>> spt.neighbor_mean(frames, 1).ravel()
    array([ 2. , 45.5,  3. , 47.5,  4. ])

    Frames that come one by one are answered one by one:

    >>> means = spt.neighbor_mean(iter(frames), 2)
    >>> [round(float(mean[0, 0]), 2) for mean in means]
    [46.0, 31.67, 3.0, 32.33, 47.0]
    """
    series = frames_of(frames)
    check_count(reach, "reach")
    # Two frames of an iterator are read to know that they are there.
    found = len(series.sample(2)[1])
    if found < 2:
        message = f"`frames` must hold at least two frames; got {found}."
        raise ValueError(message)
    means = _means(series, reach)
    if out is None and series.count is None:
        return means
    result = out
    if result is None:
        computed = image_dtype(series.dtype, "frames")
        result = np.empty((series.count or 0, *series.shape), computed)
    _write(means, result, series)
    return result


def _write(means: Iterator[NDArray[Any]], result: Any, series: Frames) -> None:
    """Write the mean of each frame to a store of the shape of the series."""
    dtype = image_dtype(series.dtype, "frames")
    check_store(result, "out", (series.count, *series.shape), dtype, "unsafe")
    shape = tuple(result.shape)
    written = 0
    for mean in means:
        if written < shape[0]:
            # What a smaller dtype cannot hold is infinite there.
            with np.errstate(over="ignore"):
                result[written] = mean
        written += 1
    if written != shape[0]:
        message = f"`out` must have room for {written} frames; got {shape[0]}."
        raise ValueError(message)


def _means(series: Frames, reach: int) -> Iterator[NDArray[Any]]:
    """Yield the mean of each frame's neighbours, as soon as all of them are read."""
    dtype = image_dtype(series.dtype, "frames")
    entries = chain.from_iterable(series.chunks(1))
    near: deque[tuple[int, Read]] = deque()
    done = number = -1

    def next_mean() -> NDArray[Any]:
        while near[0][0] < done - reach:
            near.popleft()
        return _mean([each for n, each in near if n != done], dtype)

    for number, entry in enumerate(entries):
        near.append((number, _read(series.read(entry))))
        if number - done > reach:
            done += 1
            yield next_mean()
    while done < number:
        done += 1
        yield next_mean()


def _read(frame: NDArray[Any]) -> Read:
    # The result may be written over the frames that are still needed.
    if frame.dtype.kind != "f":
        return frame.copy(), None
    known = np.isfinite(frame)
    if known.all():
        return frame.copy(), None
    return np.where(known, frame, 0), known


def _mean(frames: list[Read], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the mean of frames where they count, NaN where none does."""
    # Strategy: all are summed anew for each mean. Sums that slide along would keep
    # the rounding errors of all bright frames before.
    total = np.zeros(frames[0][0].shape)
    count = np.zeros(total.shape, np.intp)
    for values, known in frames:
        total += values
        count += 1 if known is None else known
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(dtype)

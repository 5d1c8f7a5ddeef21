"""Move a whole image by a fraction of a pixel, compiled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Float, Floats, Image, Ints, Volume
from .._shared.compiled import compiled
from .boxes import box_slices
from .splines import prefilter, spline_margin, spline_weights

__all__ = [
    "SLACK",
    "move_frame",
    "room_for",
    "slide",
    "slide_frame",
    "slide_margin",
    "under_frame",
]


Room = tuple[Image, Image]

# A pixel this close outside of a border counts as on it: shifts carry rounding errors.
SLACK = 1e-9


def slide_margin(order: int, dtype: np.dtype[Any]) -> int:
    """Return how many pixels around an image `slide` needs."""
    return spline_margin(order, dtype) + order // 2 + 1


def slide(box: Image, fraction: NDArray[np.float64], order: int, out: Image) -> None:
    """Write the inner part of a box, moved up the axes by less than a pixel.

    Parameters
    ----------
    box : ndarray of shape (planes, rows, cols)
        The image and `slide_margin` pixels around it on each axis longer than
        one pixel, contiguous. Overwritten.
    fraction : ndarray of shape (3,)
        How far, 0 to 1; 0 along axes of one pixel.
    order : {0, 1, 3, 5}
        Order of the spline.
    out : ndarray
        The image, of the size of the box without its margins.
    """
    margin = slide_margin(order, box.dtype)
    margins = np.array([margin if size > 1 else 0 for size in box.shape])
    if order > 1:
        prefilter(box, order)
    # Pixel k shows what lies at k - fraction: 1 - fraction beyond pixel k - 1.
    parts = np.where(fraction > 0, 1 - fraction, 0.0)
    base = margins - (fraction > 0) - order // 2 * (margins > 0)
    taps = np.zeros((3, max(order, 1) + 1), box.dtype)
    for axis in range(3):
        if margins[axis] == 0:
            taps[axis, 0] = 1
        elif order == 0:
            taps[axis, int(parts[axis] >= 0.5)] = 1
        elif order == 1:
            taps[axis] = 1 - parts[axis], parts[axis]
        else:
            one = np.empty((order + 1, 1), box.dtype)
            spline_weights(order, parts[axis : axis + 1].astype(box.dtype), 1, one)
            taps[axis] = one[:, 0]
    _weighted_sums(box, base.astype(np.intp), taps, out)


@compiled
def _weighted_sums(box: Image, base: NDArray[np.intp], taps: Image, out: Image) -> None:
    """Write weighted sums of neighbours, separable along the axes."""
    count = taps.shape[1]
    planes, rows, cols = out.shape
    zero = box.dtype.type(0)
    line = np.empty(cols + count, box.dtype)
    for plane in range(planes):
        for row in range(rows):
            line[:] = zero
            for p in range(count):
                if taps[0, p] == zero:
                    continue
                for r in range(count):
                    weight = taps[0, p] * taps[1, r]
                    if weight == zero:
                        continue
                    near = box[base[0] + plane + p, base[1] + row + r, base[2] :]
                    for k in range(min(cols + count - 1, len(near))):
                        line[k] += weight * near[k]
            to = out[plane, row]
            _row(line, taps[2], cols, to)


@compiled
def _row(line: Image, taps: Image, cols: int, to: Image) -> None:
    if len(taps) == 4:
        a, b, c, d = taps[0], taps[1], taps[2], taps[3]
        one, two, three = line[1:], line[2:], line[3:]
        for k in range(cols):
            to[k] = (a * line[k] + b * one[k]) + (c * two[k] + d * three[k])
        return
    for k in range(cols):
        to[k] = taps[0] * line[k]
    for n in range(1, len(taps)):
        weight, near = taps[n], line[n:]
        for k in range(cols):
            to[k] += weight * near[k]


def slide_frame(frame: NDArray[Float], fraction: Floats, order: int) -> NDArray[Float]:
    """Move a volume by less than a pixel; it goes on mirrored at its borders."""
    if not fraction.any():
        return frame
    margin = slide_margin(order, frame.dtype)
    pads = [(margin, margin) if n > 1 else (0, 0) for n in frame.shape]
    out = np.empty_like(frame)
    slide(np.pad(frame, pads, mode="reflect"), fraction, order, out)
    return out


def under_frame(
    pixels: Volume, origin: Ints, shift: Floats, shape: tuple[int, ...]
) -> tuple[Volume, NDArray[np.bool_]]:
    """Return what a frame at a shift would see of a picture, and where it does."""
    size = np.array(shape[1:])
    place = shift - origin
    whole = np.floor(place + 1e-9).astype(np.intp)
    part = np.where(size > 1, np.maximum(place - whole, 0.0), 0.0)
    extra = (part > 0).astype(np.intp)
    first = np.maximum(-whole, 0)
    stop = np.minimum(size, pixels.shape[1:] - whole - extra)
    seen, there = np.zeros(shape, np.float32), np.zeros(shape[1:], np.bool_)
    if (stop <= first).any():
        return seen, there
    cut, to = box_slices(first + whole, stop + whole + extra), box_slices(first, stop)
    # A picture that moves up by what is left of a pixel loses its first row.
    back = tuple(slice(e, None) for e in extra)
    turn = np.where(extra > 0, 1 - part, 0.0)
    for channel, out in zip(pixels[:, *cut], seen, strict=True):
        out[to] = slide_frame(np.ascontiguousarray(channel), turn, 3)[back]
    there[to] = True
    return seen, there


def room_for(shape: tuple[int, ...], order: int, dtype: np.dtype[Any]) -> Room:
    """Return arrays to move frames in: one with a margin, and one without."""
    margin = slide_margin(order, dtype)
    wide = [size + 2 * margin * (size > 1) for size in shape]
    return np.empty(wide, dtype), np.empty(shape, dtype)


def move_frame(
    frame: NDArray[Any],
    shift: Floats,
    order: int,
    border: str,
    fill_value: float,
    room: Room,
    to: NDArray[Any],
) -> None:
    """Write one frame, moved, in the dtype of the result; NaN stay NaN."""
    finite = np.isfinite(frame) if frame.dtype.kind == "f" else None
    exact = to.dtype.kind == "f" and not (shift % 1).any()
    if finite is not None and not exact and not finite.all():
        level = frame[finite].mean() if finite.any() else 0
        filled = np.where(finite, frame, frame.dtype.type(level))
        move_frame(filled, shift, order, border, fill_value, room, to)
        lost, holes = (~finite).astype(np.float32), np.empty(frame.shape, np.float32)
        room = room_for(frame.shape, min(order, 1), lost.dtype)
        move_frame(lost, shift, min(order, 1), border, 0, room, holes)
        to[holes > SLACK] = np.nan if to.dtype.kind == "f" else fill_value
        return
    near = np.rint(shift)
    steady = np.where((np.abs(shift - near) < SLACK) | (order == 0), near, shift)
    if border != "constant":
        steady = _shorter_shift(steady, frame.shape, border)
    elif (np.abs(steady) > frame.shape).any():
        to[...] = fill_value
        return
    whole = np.floor(steady).astype(np.intp)
    fraction = steady - whole
    # Half a pixel beyond its border a frame shows the pixel there, if no other is seen.
    beyond = "nearest" if border == "constant" else border
    # Pixel k of the result shows k - whole - fraction of the frame.
    size = np.array(frame.shape)
    if fraction.any():
        box, values = room
        lead = (1,) * (3 - len(fraction))
        turns = np.concatenate([np.zeros(len(lead)), np.where(size > 1, fraction, 0.0)])
        _copy_with_border(
            frame, -whole - (np.array(box.shape) - size) // 2, border, box
        )
        slide(
            box.reshape(*lead, *box.shape),
            turns,
            order,
            values.reshape(*lead, *values.shape),
        )
        _round_and_clip(values, to)
    elif to.dtype == frame.dtype and not np.may_share_memory(frame, to):
        _copy_with_border(frame, -whole, beyond, to)
    else:
        box = np.empty(frame.shape, frame.dtype)
        _copy_with_border(frame, -whole, beyond, box)
        _round_and_clip(box, to)
    if border == "constant":
        _fill_outside(to, shift, fill_value)


def _copy_with_border(
    frame: NDArray[Any], start: Ints, border: str, box: NDArray[Any]
) -> None:
    """Write the part of a frame that starts there, and what lies beyond its border."""
    stop = start + box.shape
    to, part, sources = [], [], []
    for first, last, size in zip(start, stop, frame.shape, strict=True):
        low = min(max(first, 0), size)
        high = max(min(last, size), low)
        part.append(slice(low, high))
        to.append(slice(low - first, high - first))
        sources.append(_border_pixels(np.arange(first, last), size, border))
    box[tuple(to)] = frame[tuple(part)]
    for axis, inside in enumerate(to):
        outside = np.delete(np.arange(box.shape[axis]), inside)
        if len(outside) == 0:
            continue
        ahead: tuple[Any, ...] = (slice(None),) * axis
        strip = frame[(*ahead, sources[axis][outside], *part[axis + 1 :])]
        for other in range(axis):
            strip = np.take(strip, sources[other], axis=other)
        box[(*ahead, outside, *to[axis + 1 :])] = strip


def _border_pixels(points: Ints, size: int, border: str) -> Ints:
    """Return which pixel of a frame is seen at points that may lie beyond it."""
    if border == "nearest":
        return np.clip(points, 0, size - 1)
    if border == "wrap":
        return points % size
    period = max(2 * size - 2, 1)
    return np.minimum(points % period, -points % period)


def _shorter_shift(shift: Floats, shape: tuple[int, ...], border: str) -> Floats:
    """Return a shift of about a frame at most that shows the same as a longer one."""
    size = np.array(shape)
    if border == "nearest":
        # So far away, no spline reaches further than the border pixel.
        far = 2.0 * size + slide_margin(5, np.dtype(np.float64))
        return np.clip(shift, -far, far)
    period = size if border == "wrap" else np.maximum(2 * (size - 1), 1)
    return np.where(np.abs(shift) > period, np.fmod(shift, period), shift)


def _round_and_clip(values: NDArray[Any], to: NDArray[Any]) -> None:
    """Copy values, rounded and clipped if they must be; they may change."""
    kept = to.dtype
    if kept.kind == "b" and values.dtype.kind == "f":
        np.greater(values, 0.5, out=to)
        return
    if kept.kind not in "iu" or values.dtype.kind not in "iuf":
        # What a smaller dtype cannot hold is infinite there.
        with np.errstate(over="ignore"):
            np.copyto(to, values, casting="unsafe")
        return
    info = np.iinfo(kept)
    if values.dtype.kind in "iu":
        own = np.iinfo(values.dtype)
        low, high = max(info.min, own.min), min(info.max, own.max)
        np.copyto(to, np.clip(values, low, high), casting="unsafe")
        return
    if values.dtype.itemsize < 4:
        # Half floats end before most integers do.
        values = values.astype(np.float32)
    np.rint(values, out=values)
    np.clip(values, info.min, info.max, out=values)
    top = values.dtype.type(info.max)
    if int(top) <= info.max:
        np.copyto(to, values, casting="unsafe")
        return
    # The largest integer has no float, and the next one would wrap around.
    over = values >= top
    values[over] = 0
    np.copyto(to, values, casting="unsafe")
    to[over] = info.max


def _fill_outside(image: NDArray[Any], shift: Floats, fill_value: float) -> None:
    """Fill what no pixel of a frame covers, in place."""
    for axis, (size, moved) in enumerate(zip(image.shape, shift, strict=True)):
        first = int(np.clip(np.ceil(moved - 0.5 - SLACK), 0, size))
        stop = int(np.clip(np.floor(size - 0.5 + moved + SLACK) + 1, first, size))
        turned = np.moveaxis(image, axis, 0)
        turned[:first] = fill_value
        turned[stop:] = fill_value

"""Compiled passes over turned images and their spectra.

Images are flat here, (rows, cols).
"""

import math

import numpy as np

from ..._sampling.splines import gather_spline, spline_weights
from ..._shared.arrays import Floats, Image
from ..._shared.compiled import compiled

__all__ = ["polar_power", "pose_sums", "sample_turned"]


@compiled
def polar_power(
    power: Image, columns: int, radii: Floats, angles: int, out: Image
) -> None:
    """Sample a power spectrum on rays through the origin, linearly.

    Parameters
    ----------
    power : ndarray of shape (rows, columns // 2 + 1)
        Power of the modes that a real transform stores.
    columns : int
        Columns of the image that was transformed.
    radii : ndarray of shape (n,)
        Frequencies along a ray, in cycles per pixel, up to 0.5.
    angles : int
        Number of rays in half a turn, counter-clockwise from the columns.
    out : ndarray of shape (n, angles)
        The result.
    """
    rows, last = power.shape[0], power.shape[1] - 1
    for ray in range(angles):
        across = math.cos(math.pi * ray / angles)
        up = -math.sin(math.pi * ray / angles)
        # The other half of the plane is the mirror image of the one that is stored.
        if across < 0:
            across, up = -across, -up
        for ring in range(len(radii)):
            col, row = radii[ring] * across * columns, radii[ring] * up * rows
            left, low = min(int(col), last - 1), math.floor(row)
            right, high = col - left, row - low
            one, two = power[low % rows], power[(low + 1) % rows]
            below = one[left] + right * (one[left + 1] - one[left])
            above = two[left] + right * (two[left + 1] - two[left])
            out[ring, ray] = below + high * (above - below)


@compiled
def sample_turned(
    box: Image,
    pad: int,
    order: int,
    linear: Floats,
    start: Floats,
    depth: Image,
    width: float,
    margin: float,
    reach: float,
    values: Image,
    window: Image,
) -> None:
    """Sample a spline under an affine map, and fade it out towards its border.

    Parameters
    ----------
    box : ndarray of shape (rows + 2 * pad, cols + 2 * pad)
        Coefficients of the spline through an image and what surrounds it.
    pad : int
        Width of the surroundings, at least 4.
    order : {3, 5}
        Order of the spline.
    linear : ndarray of shape (2, 2)
        Steps in the image, in its columns, for one step along each axis of the result.
    start : ndarray of shape (2,)
        Where the first pixel of the result lies in the image.
    depth : ndarray of shape (rows, cols) or (0, 0)
        How deep each pixel lies among those that count; empty if all count.
    width : float
        Width of the edges of the window, in pixels of the image.
    margin : float
        Width of a border that does not count, in pixels of the image.
    reach : float
        How far beyond the border values are wanted, in pixels of the image; zero
        farther out.
    values, window : ndarray of the same shape
        Values of the spline, and weights from 0 to 1; updated, the window by
        a factor.
    """
    rows, cols = box.shape[0] - 2 * pad, box.shape[1] - 2 * pad
    shape, flat = (1, box.shape[0], box.shape[1]), box.reshape(-1)
    size = values.shape[1]
    lows = np.empty((3, size), np.int32)
    parts = np.empty((3, size), box.dtype)
    room = np.empty((3, order + 1, size), box.dtype)
    for line in range(values.shape[0]):
        row0 = start[0] + linear[0, 0] * line
        col0 = start[1] + linear[1, 0] * line
        # What is just outside is made up, but needed by filters; beyond is nothing.
        begin, end = _within(row0, linear[0, 1], reach, rows, 0, size)
        begin, end = _within(col0, linear[1, 1], reach, cols, begin, end)
        values[line, :begin] = 0
        values[line, end:] = 0
        count = end - begin
        for k in range(count):
            row = row0 + linear[0, 1] * (begin + k)
            col = col0 + linear[1, 1] * (begin + k)
            row = min(max(row, 4.0 - pad), rows + pad - 5.0) + pad
            col = min(max(col, 4.0 - pad), cols + pad - 5.0) + pad
            # Both are positive, so that this rounds down.
            lows[1, k], lows[2, k] = np.int32(row), np.int32(col)
            parts[1, k] = row - np.int32(row)
            parts[2, k] = col - np.int32(col)
        for axis in range(1, 3):
            spline_weights(order, parts[axis], count, room[axis])
        gather_spline(flat, lows, room, shape, order, count, values[line, begin:end])
        _fade_out(
            row0, col0, linear, (rows, cols), depth, width, margin, begin, end,
            window[line],
        )  # fmt: skip


@compiled
def _fade_out(
    row0: float,
    col0: float,
    linear: Floats,
    shape: tuple[int, int],
    depth: Image,
    width: float,
    margin: float,
    begin: int,
    end: int,
    fade: Image,
) -> None:
    """Weigh a line of points by how far within the image they lie."""
    fade[:begin] = 0
    fade[end:] = 0
    rows, cols = shape
    quarter = 0.5 * math.pi / width
    # Where all is deep inside there is nothing to do.
    first, last = _within(row0, linear[0, 1], -margin - width, rows, begin, end)
    first, last = _within(col0, linear[1, 1], -margin - width, cols, first, last)
    if depth.size > 0:
        first = last = begin
    for k in range(begin, end):
        if fade[k] == 0 or first <= k < last:
            continue
        row = row0 + linear[0, 1] * k
        col = col0 + linear[1, 1] * k
        tall = min(row, rows - 1 - row) + 0.5 - margin
        wide = min(col, cols - 1 - col) + 0.5 - margin
        weight = 1.0 if min(tall, wide) > 0 else 0.0
        if 0 < tall < width:
            weight *= math.sin(quarter * tall) ** 2
        if 0 < wide < width:
            weight *= math.sin(quarter * wide) ** 2
        if depth.size > 0 and weight > 0:
            weight *= _fade(depth, row, col, quarter)
        fade[k] *= weight


@compiled
def _within(
    at: float, step: float, reach: float, size: int, begin: int, end: int
) -> tuple[int, int]:
    """Narrow a run of steps to those within `reach` of an axis of some size."""
    low, high = -0.5 - reach, size - 0.5 + reach
    if abs(step) < 1e-12:
        return (begin, end) if low < at < high else (begin, begin)
    one, two = (low - at) / step, (high - at) / step
    first, last = min(one, two), max(one, two)
    begin = int(min(max(math.ceil(first), begin), end))
    return begin, int(min(max(math.floor(last) + 1, begin), end))


@compiled
def _fade(depth: Image, row: float, col: float, quarter: float) -> float:
    """Return the weight of a point at some depth, interpolated."""
    low = min(max(math.floor(row), 0), max(depth.shape[0] - 2, 0))
    left = min(max(math.floor(col), 0), max(depth.shape[1] - 2, 0))
    high, right = min(low + 1, depth.shape[0] - 1), min(left + 1, depth.shape[1] - 1)
    down = min(max(row - low, 0.0), 1.0)
    across = min(max(col - left, 0.0), 1.0)
    one = depth[low, left] + across * (depth[low, right] - depth[low, left])
    two = depth[high, left] + across * (depth[high, right] - depth[high, left])
    deep = one + down * (two - one)
    return math.sin(min(max(deep, 0.0) * quarter, 0.5 * math.pi)) ** 2


@compiled
def pose_sums(
    first: Image,
    second: Image,
    slopes0: Image,
    slopes1: Image,
    centre: Floats,
    side: int,
    scores: Floats,
    curvature: Floats,
    unlike: Floats,
) -> None:
    """Sum what two aligned images tell about the pose of the second.

    The pose has four parameters: an angle (counter-clockwise), the logarithm of a
    scale, both about `centre`, and a shift (row, col).

    Parameters
    ----------
    first, second : ndarray of shape (rows, cols)
        Filtered images.
    slopes0, slopes1 : ndarray of shape (2, rows, cols)
        Their slopes along both axes.
    centre : ndarray of shape (2,)
        Point that turns and scales leave where it is.
    side : int
        Side of the blocks, in pixels.
    scores, curvature : ndarray of shape (block rows, block cols, 4) and (..., 4, 4)
        The slope and the curvature of the likelihood that each block adds; updated.
    unlike : ndarray of shape (block rows, block cols)
        Half of the square of the difference of slopes; updated.
    """
    # Strategy: along a row of a block only the column changes, so that a few plain
    # sums (of powers of the column) are all that is needed.
    part = np.zeros((4, 4))
    rows, cols = first.shape
    for row in range(rows):
        v = row - centre[0]
        for block in range(scores.shape[1]):
            begin, end = block * side, min((block + 1) * side, cols)
            middle = begin + 0.5 * side
            f0 = f1 = m0 = m1 = apart = np.float32(0)
            a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = np.float32(0)
            for col in range(begin, end):
                h = np.float32(col - middle)
                one, two = first[row, col], second[row, col]
                p0, q0 = slopes0[0, row, col], slopes1[0, row, col]
                p1, q1 = slopes0[1, row, col], slopes1[1, row, col]
                up, along = one * q0 - two * p0, one * q1 - two * p1
                f0 += up
                f1 += along
                m0 += h * up
                m1 += h * along
                rr, rc, cc = p0 * q0, p0 * q1 + p1 * q0, p1 * q1
                apart += (p0 - q0) * (p0 - q0) + (p1 - q1) * (p1 - q1)
                a0 += rr
                b0 += rc
                c0 += cc
                a1 += h * rr
                b1 += h * rc
                c1 += h * cc
                a2 += h * h * rr
                b2 += h * h * rc
                c2 += h * h * cc
            u = middle - centre[1]
            m0 += u * f0
            m1 += u * f1
            score = scores[row // side, block]
            score[0] -= 0.5 * (v * f1 - m0)
            score[1] -= 0.5 * (v * f0 + m1)
            score[2] -= 0.5 * f0
            score[3] -= 0.5 * f1
            # Moments about the centre, of the products of slopes rr, rc + cr, cc.
            a2, b2, c2 = (
                a2 + 2 * u * a1 + u * u * a0,
                b2 + 2 * u * b1 + u * u * b0,
                c2 + 2 * u * c1 + u * u * c0,
            )
            a1, b1, c1 = a1 + u * a0, b1 + u * b0, c1 + u * c0
            part[0, 0] = a2 - v * b1 + v * v * c0
            part[0, 1] = -v * a1 - 0.5 * b2 + 0.5 * v * v * b0 + v * c1
            part[0, 2] = -a1 + 0.5 * v * b0
            part[0, 3] = -0.5 * b1 + v * c0
            part[1, 1] = v * v * a0 + v * b1 + c2
            part[1, 2] = v * a0 + 0.5 * b1
            part[1, 3] = 0.5 * v * b0 + c1
            part[2, 2], part[2, 3], part[3, 3] = a0, 0.5 * b0, c0
            curvature[row // side, block] += part
            unlike[row // side, block] += 0.5 * apart
    for row in range(curvature.shape[0]):
        for block in range(curvature.shape[1]):
            whole = curvature[row, block]
            whole += np.triu(whole, 1).T

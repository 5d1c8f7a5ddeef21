"""Compare a frame with a picture that lies under it, compiled (floor 2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._compiled import compiled

__all__ = ["SUMS", "bump_taps", "overlay_sums", "shrink_pixels"]

Volume = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# What is summed over the pixels of a frame f, a picture p, and a filtered picture z with
# slopes g: 1 f p z g g g ff pp fp fz pz fg fg fg pg pg pg.
SUMS = 18


def bump_taps(parts: Floats, flat: NDArray[np.bool_]) -> tuple[Volume, Volume]:
    """Return the weights of four cubic bumps around a place on each axis, and their slopes.

    The place lies `parts` (0 to 1) beyond the second bump. Axes of one pixel, which are
    `flat`, have one bump.
    """
    u = parts
    low, high = (1 - u) ** 3 / 6, u**3 / 6
    inner = (4 - 6 * u**2 + 3 * u**3) / 6
    value = np.stack([low, inner, 1 - low - inner - high, high], axis=1)
    steep = [-((1 - u) ** 2) / 2, 1.5 * u**2 - 2 * u, 0.5 + u - 1.5 * u**2, u**2 / 2]
    slope = np.stack(steep, axis=1)
    value[flat], slope[flat] = (1, 0, 0, 0), 0
    return value.astype(np.float32), slope.astype(np.float32)


@compiled
def overlay_sums(
    frame: Volume,
    weight: Volume,
    plain: Volume,
    filtered: Volume,
    known: Volume,
    base: Ints,
    box: Ints,
    value: Volume,
    slope: Volume,
) -> Floats:
    """Sum products of a frame and of the pictures under it.

    Parameters
    ----------
    frame : ndarray of shape (planes, rows, cols)
        The frame.
    weight : ndarray of shape (planes, rows, cols) or (1, 1, 1)
        1 where a pixel of the frame counts, else 0; of one pixel if all do.
    plain, filtered : ndarray of shape (planes, rows, cols)
        Heights of the bumps of the two pictures.
    known : ndarray of the shape of the pictures, or (1, 1, 1)
        1 where a picture is known between a bump and the next ones, else 0.
    base : ndarray of shape (3,)
        Which bump is the first for pixel (0, 0, 0) of the frame.
    box : ndarray of shape (2, 3)
        First pixel of the frame that counts, and the one after the last.
    value, slope : ndarray of shape (3, 4)
        Weights of the bumps, and their slopes.
    """
    sums = np.zeros(SUMS)
    begin, end = box[0, 2], box[1, 2]
    cols = end - begin
    masked, holes = known.size > 1, weight.size > 1
    deep = 4 if frame.shape[0] > 1 else 1
    high = 4 if frame.shape[1] > 1 else 1
    wide = 3 if frame.shape[2] > 1 else 0
    # A bump that is the second of four, or the only one, is the pixel itself.
    here0, here1, here2 = deep // 4, high // 4, wide // 3
    v0, v1, rise, lift = np.zeros((4, cols + 3), np.float32)
    share = np.ones(cols, np.float32)
    x0, x1, x2, x3 = value[2]
    y0, y1, y2, y3 = slope[2]
    for plane in range(box[0, 0], box[1, 0]):
        for row in range(box[0, 1], box[1, 1]):
            v0[:] = 0
            v1[:] = 0
            rise[:] = 0
            lift[:] = 0
            left = base[2] + begin
            for p in range(deep):
                for r in range(high):
                    near = plain[base[0] + plane + p, base[1] + row + r, left:]
                    far = filtered[base[0] + plane + p, base[1] + row + r, left:]
                    a = value[0, p] * value[1, r]
                    b = value[0, p] * slope[1, r]
                    for k in range(cols + wide):
                        v0[k] += a * near[k]
                        v1[k] += a * far[k]
                        rise[k] += b * far[k]
                    if deep > 1:
                        b = slope[0, p] * value[1, r]
                        for k in range(cols + wide):
                            lift[k] += b * far[k]
            line = frame[plane, row, begin:end]
            if masked:
                there = known[
                    base[0] + plane + here0, base[1] + row + here1, left + here2 :
                ]
                for k in range(cols):
                    share[k] = there[k]
            if holes:
                counts = weight[plane, row, begin:end]
                for k in range(cols):
                    share[k] = counts[k] * there[k] if masked else counts[k]
            s0 = s1 = s2 = s3 = s5 = s6 = s7 = np.float32(0)
            s8 = s9 = s10 = s11 = s13 = s14 = s16 = s17 = np.float32(0)
            for k in range(cols):
                one = share[k]
                f = one * line[k]
                t = one * (
                    (x0 * v0[k] + x1 * v0[k + 1]) + (x2 * v0[k + 2] + x3 * v0[k + 3])
                )
                z = one * (
                    (x0 * v1[k] + x1 * v1[k + 1]) + (x2 * v1[k + 2] + x3 * v1[k + 3])
                )
                up = one * (
                    (x0 * rise[k] + x1 * rise[k + 1])
                    + (x2 * rise[k + 2] + x3 * rise[k + 3])
                )
                on = one * (
                    (y0 * v1[k] + y1 * v1[k + 1]) + (y2 * v1[k + 2] + y3 * v1[k + 3])
                )
                s0 += one
                s1 += f
                s2 += t
                s3 += z
                s5 += up
                s6 += on
                s7 += f * f
                s8 += t * t
                s9 += f * t
                s10 += f * z
                s11 += t * z
                s13 += f * up
                s14 += f * on
                s16 += t * up
                s17 += t * on
            if deep > 1:
                s4 = s12 = s15 = np.float32(0)
                for k in range(cols):
                    one = share[k]
                    t = (x0 * v0[k] + x1 * v0[k + 1]) + (
                        x2 * v0[k + 2] + x3 * v0[k + 3]
                    )
                    off = one * (
                        (x0 * lift[k] + x1 * lift[k + 1])
                        + (x2 * lift[k + 2] + x3 * lift[k + 3])
                    )
                    s4 += off
                    s12 += off * line[k]
                    s15 += off * t
                sums[4] += s4
                sums[12] += s12
                sums[15] += s15
            sums[0] += s0
            sums[1] += s1
            sums[2] += s2
            sums[3] += s3
            sums[5] += s5
            sums[6] += s6
            sums[7] += s7
            sums[8] += s8
            sums[9] += s9
            sums[10] += s10
            sums[11] += s11
            sums[13] += s13
            sums[14] += s14
            sums[16] += s16
            sums[17] += s17
    return sums


@compiled
def shrink_pixels(image: NDArray[Any], factor: int, out: Volume) -> None:
    """Write the means of squares of `factor` times `factor` pixels into `out`."""
    planes, rows, cols = out.shape
    line = np.empty(factor * cols, np.float32)
    scale = np.float32(1 / (factor * factor))
    for plane in range(planes):
        for row in range(rows):
            line[:] = 0
            for r in range(factor):
                near = image[plane, factor * row + r]
                for k in range(factor * cols):
                    line[k] += near[k]
            to = out[plane, row]
            for c in range(cols):
                total = np.float32(0)
                for k in range(factor):
                    total += line[factor * c + k]
                to[c] = scale * total

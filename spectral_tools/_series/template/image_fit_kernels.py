"""Sums over a frame and the image under it, compiled."""

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.compiled import compiled

__all__ = [
    "SUMS",
    "product_sums",
    "slope_tables",
]


# Sums over the pixels of a frame f, an image p, and a filtered image z with slopes g.
# The first seven rows are 1 f p z g g g, each times 1 and the distances from the middle of
# the frame along the three axes; the last holds ff pp fp fz pz fg fg fg pg pg pg; the
# columns of the row before are the squares and products of distances: 00 01 02 11 12 22.
SUMS = (9, 11)


@compiled
def product_sums(
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
    """Sum products of a frame and of the images under it.

    Parameters
    ----------
    frame : ndarray of shape (planes, rows, cols)
        The frame.
    weight : ndarray of shape (planes, rows, cols) or (1, 1, 1)
        1 where a pixel of the frame counts, else 0; of one pixel if all do.
    plain, filtered : ndarray of shape (planes, rows, cols)
        B-spline coefficients of the two images.
    known : ndarray of the shape of the images, or (1, 1, 1)
        1 where an image is known between a coefficient and the next ones, else 0.
    base : ndarray of shape (3,)
        Which coefficient is the first for pixel (0, 0, 0) of the frame.
    box : ndarray of shape (2, 3)
        First pixel of the frame that counts, and the one after the last.
    value, slope : ndarray of shape (3, 4)
        Weights of the coefficients, and their slopes.
    """
    sums = np.zeros(SUMS)
    half = np.array(frame.shape) / 2 - 0.5
    begin, end = box[0, 2], box[1, 2]
    cols = end - begin
    along = (np.arange(begin, end) - half[2]).astype(np.float32)
    masked, holes = known.size > 1, weight.size > 1
    deep = 4 if frame.shape[0] > 1 else 1
    high = 4 if frame.shape[1] > 1 else 1
    wide = 3 if frame.shape[2] > 1 else 0
    # A coefficient that is the second of four, or the only one, is that of the pixel.
    here0, here1, here2 = deep // 4, high // 4, wide // 3
    v0, v1, rise, lift = np.zeros((4, cols + 3), np.float32)
    share = np.ones(cols, np.float32)
    flat = deep == 1 and high == 4
    a0, a1, a2, a3 = value[1]
    b0, b1, b2, b3 = slope[1]
    x0, x1, x2, x3 = value[2]
    y0, y1, y2, y3 = slope[2]
    for plane in range(box[0, 0], box[1, 0]):
        for row in range(box[0, 1], box[1, 1]):
            left = base[2] + begin
            if flat:
                # Written out: with this in a function, all takes twice as long.
                at0, at1 = base[0] + plane, base[1] + row
                n0, n1 = plain[at0, at1, left:], plain[at0, at1 + 1, left:]
                n2, n3 = plain[at0, at1 + 2, left:], plain[at0, at1 + 3, left:]
                for k in range(cols + wide):
                    v0[k] = (a0 * n0[k] + a1 * n1[k]) + (a2 * n2[k] + a3 * n3[k])
                n0, n1 = filtered[at0, at1, left:], filtered[at0, at1 + 1, left:]
                n2, n3 = (
                    filtered[at0, at1 + 2, left:],
                    filtered[at0, at1 + 3, left:],
                )
                for k in range(cols + wide):
                    v1[k] = (a0 * n0[k] + a1 * n1[k]) + (a2 * n2[k] + a3 * n3[k])
                    rise[k] = (b0 * n0[k] + b1 * n1[k]) + (b2 * n2[k] + b3 * n3[k])
            else:
                v0.fill(0)
                v1.fill(0)
                rise.fill(0)
                lift.fill(0)
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
            c0 = c1 = c2 = c3 = c5 = c6 = c7 = np.float32(0)
            for k in range(cols):
                one = share[k]
                c = along[k]
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
                c0 += c * one
                c1 += c * f
                c2 += c * t
                c3 += c * z
                c5 += c * up
                c6 += c * on
                c7 += c * c * one
            s4 = s12 = s15 = c4 = np.float32(0)
            if deep > 1:
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
                    c4 += along[k] * off
            a, b = plane - half[0], row - half[1]
            even_sums = s0, s1, s2, s3, s4, s5, s6
            tilted = c0, c1, c2, c3, c4, c5, c6
            for n in range(7):
                sums[n, 0] += even_sums[n]
                sums[n, 1] += a * even_sums[n]
                sums[n, 2] += b * even_sums[n]
                sums[n, 3] += tilted[n]
            corner = a * a * s0, a * b * s0, a * c0, b * b * s0, b * c0, 1.0 * c7
            for n in range(6):
                sums[7, n] += corner[n]
            products = s7, s8, s9, s10, s11, s12, s13, s14, s15, s16, s17
            for n in range(11):
                sums[8, n] += products[n]
    return sums


@compiled
def slope_tables(plain: Volume, filtered: Volume, known: Flags, lead: Ints) -> Floats:
    """Return running sums of products of the slopes of two pictures, at their pixels.

    Parameters
    ----------
    plain, filtered : ndarray of shape (planes, rows, cols)
        Heights of the bumps of the two pictures.
    known : ndarray of shape (planes, rows, cols)
        Which pixels count.
    lead : ndarray of shape (3,)
        Which bump belongs to pixel (0, 0, 0); 0 along axes of one pixel.

    Returns
    -------
    ndarray of shape (6, planes + 1, rows + 1, cols + 1)
        Sums over all pixels before one, for each pair of axes: 00 01 02 11 12 22.
    """
    planes, rows, cols = known.shape
    tables = np.zeros((6, planes + 1, rows + 1, cols + 1))
    value, slope = np.zeros((2, 3, 3), np.float32)
    for axis in range(3):
        if lead[axis] > 0:
            value[axis, 0] = value[axis, 2] = 1 / 6
            value[axis, 1] = 2 / 3
            slope[axis, 0], slope[axis, 2] = -0.5, 0.5
        else:
            value[axis, 1] = 1
    wide = 1 if lead[2] > 0 else 0
    left = lead[2] - wide
    lines = np.zeros((2, 3, cols + 2), np.float32)
    slopes = np.zeros((2, 3, cols), np.float32)
    for plane in range(planes):
        for row in range(rows):
            lines.fill(0)
            for p in range(3):
                for r in range(3):
                    a = value[0, p] * value[1, r]
                    b = value[0, p] * slope[1, r]
                    c = slope[0, p] * value[1, r]
                    if a == 0 and b == 0 and c == 0:
                        continue
                    at = plane + lead[0] + p - 1, row + lead[1] + r - 1
                    near, far = (
                        plain[at[0], at[1], left:],
                        filtered[at[0], at[1], left:],
                    )
                    for k in range(cols + 2 * wide):
                        lines[0, 0, k] += c * near[k]
                        lines[0, 1, k] += b * near[k]
                        lines[0, 2, k] += a * near[k]
                        lines[1, 0, k] += c * far[k]
                        lines[1, 1, k] += b * far[k]
                        lines[1, 2, k] += a * far[k]
            for n in range(2):
                for axis in range(3):
                    taps = slope[2] if axis == 2 else value[2]
                    line, out = lines[n, axis], slopes[n, axis]
                    if wide == 0:
                        for k in range(cols):
                            out[k] = taps[1] * line[k]
                        continue
                    for k in range(cols):
                        out[k] = (
                            taps[0] * line[k]
                            + taps[1] * line[k + 1]
                            + taps[2] * line[k + 2]
                        )
            there = known[plane, row]
            index = 0
            for i in range(3):
                for j in range(i, 3):
                    above = tables[index, plane + 1, row]
                    to = tables[index, plane + 1, row + 1]
                    index += 1
                    if lead[i] == 0 or lead[j] == 0:
                        continue
                    total = 0.0
                    for k in range(cols):
                        if there[k]:
                            total += 0.5 * (
                                slopes[0, i, k] * slopes[1, j, k]
                                + slopes[0, j, k] * slopes[1, i, k]
                            )
                        to[k + 1] = above[k + 1] + total
        for index in range(6):
            for row in range(1, rows + 1):
                above, to = tables[index, plane, row], tables[index, plane + 1, row]
                for k in range(1, cols + 1):
                    to[k] += above[k]
    return tables

"""Sums over a frame and the image under it, compiled."""

import numpy as np

from ..._shared.arrays import Floats, Ints, Volume
from ..._shared.compiled import compiled

__all__ = [
    "FILTERED",
    "FRAME",
    "GRAM",
    "IMAGE",
    "SLOPES",
    "product_sums",
]


# Rows of a table of products: four of light, 1 and the distances from the middle of the
# frame along the three axes; the frame f, an image p, a filtered image z, and its slopes g.
FRAME, IMAGE, FILTERED, SLOPES = range(4, 8)
GRAM = (10, 10)


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
    """Return the table of products of a frame and of the images under it.

    Products of z and of slopes with themselves are left at zero.

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
    gram, none = np.zeros(GRAM), np.float32(0)
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
    lines = np.zeros((4, cols + 3), np.float32)
    v0, v1, rise, lift = lines
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
                n2 = filtered[at0, at1 + 2, left:]
                n3 = filtered[at0, at1 + 3, left:]
                for k in range(cols + wide):
                    v1[k] = (a0 * n0[k] + a1 * n1[k]) + (a2 * n2[k] + a3 * n3[k])
                    rise[k] = (b0 * n0[k] + b1 * n1[k]) + (b2 * n2[k] + b3 * n3[k])
            else:
                lines.fill(0)
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
            even = s0, none, none, none, s1, s2, s3, s4, s5, s6
            tilted = c0, none, none, none, c1, c2, c3, c4, c5, c6
            for n in range(10):
                gram[0, n] += even[n]
                gram[1, n] += a * even[n]
                gram[2, n] += b * even[n]
                gram[3, n] += tilted[n]
            for n, of_row in ((1, a), (2, b)):
                gram[n, 1] += of_row * a * s0
                gram[n, 2] += of_row * b * s0
                gram[n, 3] += of_row * c0
            gram[3, 3] += c7
            for n, of_frame in enumerate((s7, s9, s10, s12, s13, s14)):
                gram[FRAME, FRAME + n] += of_frame
            for n, of_image in enumerate((s8, s11, s15, s16, s17)):
                gram[IMAGE, IMAGE + n] += of_image
    gram[0, 1:4] = gram[1:4, 0]
    return np.triu(gram) + np.triu(gram, 1).T

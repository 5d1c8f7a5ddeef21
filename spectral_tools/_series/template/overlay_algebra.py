"""The algebra of a frame that lies on a picture, compiled."""

import math

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.compiled import compiled

__all__ = ["lay_frame", "level_sums", "tell_step"]


# A slope that others explain to all but this share is one of them.
FLAT = 1e-9


@compiled
def lay_frame(
    shift: Floats, origin: Ints, shape: Ints, size: Ints, lead: Ints
) -> tuple[Ints, Ints, Ints, Volume, Volume]:
    """Return where a frame at a shift lies on the bumps of a picture.

    Parameters
    ----------
    shift : ndarray of shape (3,)
        Where pixel (0, 0, 0) of the frame lies, in the reference.
    origin, shape : ndarray of shape (3,)
        Where the picture begins there, and how large it is.
    size : ndarray of shape (3,)
        How large the frame is.
    lead : ndarray of shape (3,)
        Which bump belongs to pixel (0, 0, 0) of the picture; 0 along axes of one pixel.

    Returns
    -------
    base : ndarray of shape (3,)
        The first of the bumps that pixel (0, 0, 0) of the frame is made of.
    box : ndarray of shape (2, 3)
        First pixel of the frame that lies on the picture, and the one after the last;
        these are not above the first ones where none does.
    whole : ndarray of shape (3,)
        The pixel of the picture under pixel (0, 0, 0) of the frame.
    value, slope : ndarray of shape (3, 4)
        Weights of the four cubic bumps around a place, and their slopes.
    """
    base, whole = np.zeros((2, 3), np.intp)
    box = np.zeros((2, 3), np.intp)
    value, slope = np.zeros((2, 3, 4), np.float32)
    for axis in range(3):
        place = shift[axis] - origin[axis]
        # What rounding leaves below a pixel is that pixel.
        whole[axis] = math.floor(place + 1e-9)
        u = max(place - whole[axis], 0.0) if size[axis] > 1 else 0.0
        box[0, axis] = max(-whole[axis], 0)
        beyond = 1 if u > 0 else 0
        box[1, axis] = min(size[axis], shape[axis] - whole[axis] - beyond)
        base[axis] = whole[axis]
        if size[axis] == 1:
            value[axis, 0] = 1
            continue
        base[axis] += lead[axis] - 1
        low, high = (1 - u) ** 3 / 6, u**3 / 6
        inner = (4 - 6 * u**2 + 3 * u**3) / 6
        value[axis] = (low, inner, 1 - low - inner - high, high)
        slope[axis] = (
            -((1 - u) ** 2) / 2,
            1.5 * u**2 - 2 * u,
            0.5 + u - 1.5 * u**2,
            u**2 / 2,
        )
    return base, box, whole, value, slope


@compiled
def level_sums(sums: Floats, active: Flags) -> tuple[Floats, Floats]:
    """Return sums of products of what no even slope explains, and these slopes.

    Light changes from frame to frame, and from one side to the other. The slopes are
    those of the frame and of the picture, (2, 4): a constant, and one along each axis.
    """
    matrix, index = np.zeros((4, 4)), 0
    for i in range(3):
        for j in range(i, 3):
            matrix[i + 1, j + 1] = matrix[j + 1, i + 1] = sums[7, index]
            index += 1
    matrix[0] = sums[0, :4]
    matrix[:, 0] = sums[0, :4]
    # Rows that earlier ones explain tell nothing new and are left out.
    factor = np.zeros((4, 4))
    for i in range(4):
        if i > 0 and not active[i - 1]:
            continue
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if j < i:
                factor[i, j] = total / factor[j, j] if factor[j, j] > 0 else 0.0
            elif total > FLAT * matrix[i, i]:
                factor[i, i] = math.sqrt(total)
    # What rows 1 to 6 (f p z g g g) have in common with the even slopes.
    parts = np.zeros((7, 4))
    for row in range(1, 7):
        for i in range(4):
            if factor[i, i] > 0:
                total = sums[row, i]
                for k in range(i):
                    total -= factor[i, k] * parts[row, k]
                parts[row, i] = total / factor[i, i]
    slopes = np.zeros((2, 4))
    for row in range(2):
        for i in range(3, -1, -1):
            if factor[i, i] > 0:
                total = parts[row + 1, i]
                for k in range(i + 1, 4):
                    total -= factor[k, i] * slopes[row, k]
                slopes[row, i] = total / factor[i, i]
    result = sums[8].copy()
    pairs = ((1, 1), (2, 2), (1, 2), (1, 3), (2, 3))
    for n in range(11):
        if n < 5:
            one, two = pairs[n]
        else:
            one, two = (n - 2) // 3, 4 + (n - 5) % 3
        for i in range(4):
            result[n] -= parts[one, i] * parts[two, i]
    return result, slopes


@compiled
def tell_step(
    sums: Floats, tables: Floats, box: Ints, active: Flags, scale: float
) -> tuple[bool, Floats, Floats]:
    """Return whether slopes tell a step along all axes, the step, and its variance.

    Parameters
    ----------
    sums : ndarray of shape (11,)
        What `level_sums` gives.
    tables : ndarray of shape (6, planes + 1, rows + 1, cols + 1)
        What `slope_tables` gives.
    box : ndarray of shape (2, 3)
        First pixel of the picture that lies under the frame, and the one after the last.
    active : ndarray of shape (3,)
        Which axes are longer than a pixel; no step is told along others.
    scale : float
        What makes sums of products of slopes those of the scene alone.

    Returns
    -------
    told : bool
        Whether the sums of products of slopes are positive definite, as far as their
        determinant says.
    step : ndarray of shape (3,)
        The step in pixels.
    back : ndarray of shape (3, 3)
        The inverse of these sums.
    """
    (a, b, c), (d, e, f) = box
    bend = np.zeros((3, 3))
    row = 0
    for i in range(3):
        for j in range(i, 3):
            t = tables[row]
            row += 1
            total = t[d, e, f] - t[a, e, f] - t[d, b, f] - t[d, e, c]
            total += t[a, b, f] + t[a, e, c] + t[d, b, c] - t[a, b, c]
            bend[i, j] = bend[j, i] = scale * total
    for axis in range(3):
        if not active[axis]:
            bend[axis, axis] = 1
    back = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            p, q, r, s = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
            back[j, i] = bend[p, r] * bend[q, s] - bend[p, s] * bend[q, r]
    size = bend[0, 0] * back[0, 0] + bend[0, 1] * back[1, 0] + bend[0, 2] * back[2, 0]
    step = np.zeros(3)
    if not size > 0:
        return False, step, back
    back /= size
    gain = sums[3] / sums[4]
    for i in range(3):
        for j in range(3):
            if not (active[i] and active[j]):
                back[i, j] = 0
            step[i] += back[i, j] * (sums[5 + j] - gain * sums[8 + j]) / gain
    return True, step, back

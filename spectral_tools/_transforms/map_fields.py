"""Maps of points as an affine matrix and a displacement field."""

import numpy as np

from .._shared.arrays import Floats
from .point_maps import PointMap, inverse_points, tangent

__all__ = ["affine_and_field"]


# Points that are mapped at once.
AT_ONCE = 200_000


def affine_and_field(
    change: PointMap, shape: tuple[int, ...]
) -> tuple[Floats, Floats | None]:
    """Return the affine part of a map, and what else it does at reference pixels.

    The field is None if there is nothing else, and NaN where the reference shows
    nothing of the moving image.
    """
    ndim = len(change.center)
    last = np.eye(ndim + 1)[-1]
    if not len(change.powers) and np.array_equal(change.matrix[-1], last):
        return change.matrix, None
    matrix = tangent(change)
    pixels = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1).reshape(-1, ndim)
    field = np.empty_like(pixels)
    for first in range(0, len(pixels), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        moving = inverse_points(change, pixels[part])
        field[part] = pixels[part] - moving @ matrix[:-1, :-1].T - matrix[:-1, -1]
    return matrix, field.reshape(*shape, ndim)

"""Find poses that fit as well as the best one."""

import math

import numpy as np

from ..._shared.arrays import Floats
from ..ambiguity import periodic_copies
from .pose_fit import PoseFit, fit_pose, pose_matrix, travel
from .pose_images import Sheet, Sketch, lay_over
from .pose_search import Place, shrinking

__all__ = ["corners_apart", "far_apart", "periods_away", "slid_along", "standing_by"]


# Another pose this close to the first leaves the answer open.
AMBIGUOUS = 0.85
# Two poses are the same if they bring no corner of the image further apart than
# this share of its diagonal.
SAME = 0.1
# A scene that has at least this share of the detail that it could have, along
# each change of pose, does not slide on itself.
FIRM = 0.3
# A slide is made of so many small changes of pose.
PARTS = 64


def corners_apart(shape: tuple[int, ...], one: Floats, other: Floats) -> float:
    """Return how far apart two matrices bring the corners of an image."""
    rows, cols = shape[0] - 1, shape[1] - 1
    corners = np.array([(0, 0, 1), (0, cols, 1), (rows, 0, 1), (rows, cols, 1)])
    apart = (corners @ (one - other).T)[:, :2]
    return float(np.hypot(*apart.T).max())


def far_apart(shape: tuple[int, ...], matrix: Floats) -> float:
    """Return how far apart the corners of poses that differ are."""
    size = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    return SAME * size * math.hypot(shape[0] - 1, shape[1] - 1)


def standing_by(
    shape: tuple[int, ...], best: Place, places: list[Place]
) -> list[Floats]:
    """Return the other places that are nearly as high as the best one."""
    far = far_apart(shape, best.matrix)
    return [
        place.matrix
        for place in places
        if place.height >= AMBIGUOUS * best.height
        and corners_apart(shape, place.matrix, best.matrix) > far
    ]


def periods_away(reference: Sketch, moving: Sketch, matrix: Floats) -> list[Floats]:
    """Return poses one period of the scene away at which the images agree as well."""
    to0, to1 = shrinking(reference.factor), shrinking(moving.factor)
    other = lay_over(reference.small, moving.small, to0 @ matrix @ np.linalg.inv(to1))
    copies = periodic_copies(
        reference.small.pixels[np.newaxis], other[np.newaxis], np.zeros(3)
    )
    found = []
    for copy in copies * reference.factor:
        shifted = matrix.copy()
        shifted[:2, 2] += copy[1:]
        found.append(shifted)
    return found


def slid_along(still: Sheet, turned: Sheet, fit: PoseFit, scale: bool) -> list[Floats]:
    """Return poses, of two sheets, to which the scene slides on itself.

    Rings turn about their middle, and stripes move along themselves. Then one change of
    pose hardly shows; the images are fitted some way along it, both ways.
    """
    if fit.hold > FIRM:
        return []
    far = far_apart(turned.pixels.shape, fit.matrix)
    reach = math.hypot(*still.pixels.shape) / 2
    part = fit.loose * (far / PARTS / max(travel(fit.loose, reach), 1e-30))
    found = []
    for way in (1.0, -1.0):
        slide = np.linalg.matrix_power(pose_matrix(way * part, fit.centre), PARTS)
        other = fit_pose(still, turned, slide @ fit.matrix, scale=scale)
        if (
            other is not None
            and other.significance >= AMBIGUOUS * fit.significance
            and other.correlation >= AMBIGUOUS * fit.correlation
            and corners_apart(turned.pixels.shape, other.matrix, fit.matrix) > far / 2
        ):
            found.append(other.matrix)
    return found

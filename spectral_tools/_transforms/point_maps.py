"""Maps of points: homogeneous matrices, and polynomials beside them."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Ints
from .._shared.results import result

__all__ = [
    "ARRIVED",
    "AT_ONCE",
    "Directions",
    "PointMap",
    "TransformEstimate",
    "affine_and_field",
    "bend_powers",
    "bend_terms",
    "inverse_points",
    "known_points",
    "map_of",
    "map_points",
    "map_slopes",
    "unit_directions",
]


# Newton's steps, at most.
STEPS = 20
# A point this near to where it goes, in pixels, has arrived.
ARRIVED = 1e-6


# Points that are mapped at once.
AT_ONCE = 200_000


@result
class TransformEstimate:
    """A transform between two images, and how far it can be trusted.

    Attributes
    ----------
    model : str
        What the transform may do: the name that was asked for.
    matrix : ndarray of shape (ndim + 1, ndim + 1)
        Homogeneous matrix from moving to reference. Of a polynomial it is the
        affine part: what it does close to `center`.
    bend : ndarray of shape (terms, ndim)
        What a polynomial adds, term by term, in pixels of the reference; no terms
        for the other models.
    powers : ndarray of int, shape (terms, ndim)
        Exponents of each term: products of powers of ``(moving_point - center) /
        extent``.
    center : ndarray of shape (ndim,)
        Mean of the moving points.
    extent : float
        Root mean square distance of the moving points from `center`, in pixels.
    covariance : ndarray of shape (k, k)
        Covariance of the entries of `matrix`, row by row, and then of those of
        `bend`. Infinite where no errors could be measured.
    variance : float
        Variance of a pair of points in units of its covariance; in square pixels
        where no covariances were given. Infinite if the pairs say nothing of it.
    residuals : ndarray of shape (n, ndim)
        Reference points less mapped moving points, in pixels.
    inlier : ndarray of bool, shape (n,)
        Pairs that count.
    leave_one_out : ndarray of shape (n,)
        How far each pair misses a transform that is fitted without it, in pixels.
        Infinite if there is none without it.
    rms : float
        Root mean square distance of the pairs that count, in pixels.
    """

    model: str
    matrix: Floats
    bend: Floats
    powers: Ints
    center: Floats
    extent: float
    covariance: Floats
    variance: float
    residuals: Floats
    inlier: NDArray[np.bool_]
    leave_one_out: Floats
    rms: float


class PointMap(NamedTuple):
    """A matrix, and the terms of a polynomial that come on top of it.

    Matrices and bends may have leading axes: many maps at once.

    Attributes
    ----------
    matrix : ndarray of shape (..., ndim + 1, ndim + 1)
        Homogeneous matrix.
    bend : ndarray of shape (..., terms, ndim)
        Coefficients of the terms.
    powers : ndarray of int, shape (terms, ndim)
        Exponents of the terms.
    center : ndarray of shape (ndim,)
        Where all terms are zero.
    extent : float
        Distance at which terms are one, at most.
    """

    matrix: Floats
    bend: Floats
    powers: Ints
    center: Floats
    extent: float


class Directions(NamedTuple):
    """Ways in which maps may change: k of each matrix, and as many of each bend."""

    matrices: Floats  # (..., k, ndim + 1, ndim + 1)
    bends: Floats  # (..., k, terms, ndim)


def map_of(estimate: TransformEstimate) -> PointMap:
    """Return what an estimate does to points."""
    return PointMap(
        estimate.matrix,
        estimate.bend,
        estimate.powers,
        estimate.center,
        estimate.extent,
    )


def known_points(points: Floats) -> Floats:
    """Return points of shape (..., ndim), NaN where any coordinate is not finite."""
    finite = np.isfinite(points).all(axis=-1, keepdims=True)
    return np.where(finite, points, np.nan)


def bend_powers(ndim: int, order: int) -> Ints:
    """Return the exponents of all terms of the second order and up to `order`."""
    rows = [
        np.bincount(axes, minlength=ndim)
        for total in range(2, order + 1)
        for axes in combinations_with_replacement(range(ndim), total)
    ]
    return np.array(rows, np.intp).reshape(-1, ndim)


def bend_terms(change: PointMap, points: Floats) -> Floats:
    """Return the value of each term at points, shape (n, terms)."""
    unit = (points - change.center) / change.extent
    return np.prod(unit[:, np.newaxis] ** change.powers, axis=2)


def map_points(change: PointMap, points: Floats) -> Floats:
    """Return where points of shape (n, ndim) go; many maps give (..., n, ndim).

    A point on the horizon of a projective map, or beyond it, goes to infinity.
    """
    full = homogeneous(points) @ np.swapaxes(change.matrix, -1, -2)
    moved, depth = full[..., :-1], full[..., -1:]
    if not (depth == 1).all():
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moved = np.where(depth <= 0, np.inf, moved / depth)
    if len(change.powers):
        moved = moved + bend_terms(change, points) @ change.bend
    return np.asarray(moved)


def map_slopes(change: PointMap, directions: Directions, points: Floats) -> Floats:
    """Return how mapped points move when maps change, shape (..., n, ndim, k).

    Points on the horizon or beyond it do not move.
    """
    matrices, bends = directions
    ndim, full = points.shape[1], homogeneous(points)
    away = np.moveaxis(matrices @ full.T, -3, -1).swapaxes(-3, -2)
    slopes = away[..., :ndim, :]
    last = np.eye(ndim + 1)[-1]
    if (change.matrix[..., -1, :] != last).any() or matrices[..., -1, :].any():
        depth = full @ change.matrix[..., -1, :, np.newaxis]
        seen = depth > 0
        flat = change._replace(powers=change.powers[:0], bend=change.bend[..., :0, :])
        place = np.where(seen, map_points(flat, points), 0)[..., np.newaxis]
        slopes = (slopes - place * away[..., ndim:, :]) * (
            seen / np.where(seen, depth, 1)
        )[..., np.newaxis]
    if len(change.powers):
        terms = bend_terms(change, points)
        slopes = slopes + np.einsum("...kta,nt->...nak", bends, terms)
    return np.asarray(slopes)


def unit_directions(change: PointMap) -> Directions:
    """Return the changes of one entry each, of the matrix and then of the bend."""
    entries, terms = change.matrix.size, change.bend.size
    total = entries + terms
    every = np.eye(total)
    return Directions(
        every[:, :entries].reshape(total, *change.matrix.shape),
        every[:, entries:].reshape(total, *change.bend.shape),
    )


def tangent(change: PointMap) -> Floats:
    """Return the affine map that does the same close to the centre."""
    ndim = len(change.center)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = _slopes(change, change.center[np.newaxis])[0]
    place = map_points(change, change.center[np.newaxis])[0]
    matrix[:-1, -1] = place - matrix[:-1, :-1] @ change.center
    return matrix


def inverse_points(change: PointMap, points: Floats) -> Floats:
    """Return the moving points that go to reference points; NaN if none is found."""
    if not len(change.powers):
        back = change._replace(
            matrix=np.asarray(np.linalg.inv(change.matrix), np.float64)
        )
        return known_points(map_points(back, points))
    start = np.linalg.inv(tangent(change))
    found = points @ start[:-1, :-1].T + start[:-1, -1]
    arrived = np.zeros(len(points), np.bool_)
    todo = np.flatnonzero(np.isfinite(points).all(axis=1))
    for _ in range(STEPS):
        away = map_points(change, found[todo]) - points[todo]
        slopes = _slopes(change, found[todo])
        # Beyond a fold the picture is seen from behind.
        upright = np.linalg.det(slopes) * np.linalg.det(start[:-1, :-1]) > 0
        done = np.abs(away).max(axis=1, initial=0) < ARRIVED
        arrived[todo[done & upright]] = True
        going = ~done & upright
        todo, away, slopes = todo[going], away[going], slopes[going]
        if not len(todo):
            break
        found[todo] -= np.linalg.solve(slopes, away[..., np.newaxis])[..., 0]
    found[~arrived] = np.nan
    return found


def _slopes(change: PointMap, points: Floats) -> Floats:
    """Return how mapped points move with moving points, shape (n, ndim, ndim)."""
    ndim = points.shape[1]
    # A shift of the points is a change of the matrix, by its own columns.
    ways = np.zeros((ndim, ndim + 1, ndim + 1))
    ways[range(ndim), :, ndim] = change.matrix[:, :ndim].T
    bends = np.zeros((ndim, *change.bend.shape))
    slopes = map_slopes(change, Directions(ways, bends), points)
    if not len(change.powers):
        return slopes
    unit = (points - change.center) / change.extent
    for axis in range(ndim):
        lower = np.maximum(change.powers - np.eye(ndim, dtype=np.intp)[axis], 0)
        terms = np.prod(unit[:, np.newaxis] ** lower, axis=2)
        rates = terms * change.powers[:, axis] / change.extent
        slopes[:, :, axis] += rates @ change.bend
    return slopes


def homogeneous(points: Floats) -> Floats:
    """Return points with a one behind their coordinates."""
    return np.hstack([points, np.ones((len(points), 1))])


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

"""Fit a map to pairs of points by weighted least squares."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Ints
from .matrices import rotations
from .point_maps import (
    PointMap,
    bend_powers,
    bend_terms,
    homogeneous,
    map_points,
    map_slopes,
)

__all__ = [
    "Family",
    "Model",
    "Pairs",
    "direct_maps",
    "directions_of",
    "family_of",
    "fit_map",
    "fits_without",
    "whitened",
]


Model = Literal[
    "translation", "rigid", "similarity", "affine", "projective", "polynomial"
]

# Steps of Gauss and Newton, and when points stand still, in units of their extent.
STEPS, STILL = 100, 1e-9
# A cost that grows by less than this share has not grown.
SLACK = 1e-9


class Family(NamedTuple):
    """All the maps of one model.

    Attributes
    ----------
    model : str
        Name of the model.
    ndim : int
        Number of axes.
    mirror : bool
        Whether a rigid map or a similarity may be a mirror image.
    powers : ndarray of int, shape (terms, ndim)
        Exponents of the terms of a polynomial; none for others.
    """

    model: Model
    ndim: int
    mirror: bool
    powers: Ints

    @property
    def linear(self) -> bool:
        """Return whether least squares are solved in one step."""
        return self.model in ("translation", "affine", "polynomial")

    @property
    def least(self) -> int:
        """Return the number of pairs that determine a map."""
        if self.model == "polynomial":
            return self.ndim + 1 + len(self.powers)
        turned = self.ndim + self.mirror
        counts = (1, turned, turned, self.ndim + 1, self.ndim + 2)
        return dict(zip(get_args(Model), counts, strict=False))[self.model]

    @property
    def unknowns(self) -> int:
        """Return how many numbers determine a map."""
        axes = self.ndim
        turns = axes * (axes - 1) // 2
        if self.model == "polynomial":
            return axes * (axes + 1 + len(self.powers))
        counts = (
            axes,
            axes + turns,
            axes + turns + 1,
            axes**2 + axes,
            axes**2 + 2 * axes,
        )
        return dict(zip(get_args(Model), counts, strict=False))[self.model]


class Pairs(NamedTuple):
    """Pairs of points around zero, and roots of their weights.

    Attributes
    ----------
    reference, moving : ndarray of shape (n, ndim)
        Points.
    roots : ndarray of shape (n, ndim, ndim)
        Matrices whose product with residuals has the identity as covariance.
    """

    reference: Floats
    moving: Floats
    roots: Floats

    def chosen(self, rows: NDArray[np.generic]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.reference[rows], self.moving[rows], self.roots[rows])


def family_of(
    model: Model, ndim: int, *, mirror: bool = False, order: int = 2
) -> Family:
    """Return the family of a model; `order` is that of a polynomial."""
    powers = bend_powers(ndim, order if model == "polynomial" else 1)
    turns = model in ("rigid", "similarity")
    return Family(model, ndim, mirror and turns, powers)


def whitened(change: PointMap, pairs: Pairs) -> Floats:
    """Return residuals in units of their standard deviations, shape (..., n, ndim).

    They are infinite for points on the horizon or beyond it.
    """
    residuals = pairs.reference - map_points(change, pairs.moving)
    found = np.einsum("nab,...nb->...na", pairs.roots, residuals)
    return np.where(np.isfinite(residuals), found, np.inf)


def fit_map(family: Family, pairs: Pairs) -> PointMap:
    """Return the map with the least sum of squared whitened residuals.

    Parameters
    ----------
    family : Family
        What the map may do.
    pairs : Pairs
        At least as many pairs as determine a map, around zero and with an extent of
        about one.

    Returns
    -------
    PointMap
        Map with zero as its centre and an extent of one.
    """
    everything = np.ones((1, len(pairs.moving), 1), np.bool_)
    maps = _descended(family, pairs, _repeated(_direct(family, pairs), 1), everything)
    return maps._replace(matrix=maps.matrix[0], bend=maps.bend[0])


def fits_without(
    family: Family, pairs: Pairs, change: PointMap, rows: Ints
) -> PointMap:
    """Return the fits to all pairs but one, for each of the rows.

    `change` is the fit to all of them.
    """
    kept = ~np.eye(len(pairs.moving), dtype=np.bool_)[rows, :, np.newaxis]
    return _descended(family, pairs, _repeated(change, len(rows)), kept)


def _repeated(change: PointMap, count: int) -> PointMap:
    matrix, bend = (np.repeat(part[np.newaxis], count, 0) for part in change[:2])
    return change._replace(matrix=matrix, bend=bend)


def _descended(
    family: Family, pairs: Pairs, maps: PointMap, kept: NDArray[np.bool_]
) -> PointMap:
    """Take each of many maps to the least squares of the pairs that it keeps.

    `kept` has shape (maps, n, 1).
    """
    misfit = np.where(kept, whitened(maps, pairs), 0)
    cost = (misfit**2).sum(axis=(1, 2))
    share = np.ones(len(kept))
    for _ in range(STEPS):
        directions = directions_of(family, maps)
        slopes = pairs.roots @ map_slopes(maps, directions, pairs.moving)
        slopes = np.where(kept[..., np.newaxis], slopes, 0)
        slopes = slopes.reshape(len(kept), -1, slopes.shape[-1])
        step = _solved(slopes, misfit.reshape(len(kept), -1, 1))
        step *= share[:, np.newaxis, np.newaxis]
        trial = _stepped(family, maps, directions, step[..., 0])
        trial_misfit = np.where(kept, whitened(trial, pairs), 0)
        trial_cost = (trial_misfit**2).sum(axis=(1, 2))
        better = trial_cost <= cost * (1 + SLACK) + SLACK
        # What overshoots tries half of it.
        share = np.where(better, 1.0, share / 2)
        cost = np.where(better, trial_cost, cost)
        chosen = better[:, np.newaxis, np.newaxis]
        misfit = np.where(chosen, trial_misfit, misfit)
        maps = maps._replace(
            matrix=np.where(chosen, trial.matrix, maps.matrix),
            bend=np.where(chosen, trial.bend, maps.bend),
        )
        if np.abs(slopes @ step).max() <= STILL * np.abs(pairs.roots).max():
            break
    return maps


def _solved(slopes: Floats, misfit: Floats) -> Floats:
    """Return the steps of least squares, the shortest where they are not determined."""
    left, right = np.linalg.qr(slopes)
    turned = np.swapaxes(left, 1, 2) @ misfit
    return np.asarray(np.linalg.pinv(right) @ turned, np.float64)


def directions_of(family: Family, change: PointMap) -> tuple[Floats, Floats]:
    """Return the ways in which maps may change: of the matrix, and of the bend."""
    axes, many = family.ndim, change.matrix.shape[:-2]
    every = np.eye((axes + 1) ** 2).reshape(-1, axes + 1, axes + 1)
    shifts = every[axes : axes * (axes + 1) : axes + 1]
    if family.model == "translation":
        matrices = shifts
    elif family.model in ("rigid", "similarity"):
        linear = change.matrix[..., np.newaxis, :axes, :axes]
        turns = linear @ _turns(axes)
        if family.model == "similarity":
            turns = np.concatenate([turns, linear], axis=-3)
        matrices = np.zeros((*many, turns.shape[-3] + axes, axes + 1, axes + 1))
        matrices[..., :-axes, :axes, :axes] = turns
        matrices[..., -axes:, :, :] = shifts
    else:
        rows = axes + (family.model == "projective")
        # The last entry of a projective matrix stays as it is.
        matrices = every[: rows * (axes + 1) - (rows > axes)]
    terms = len(family.powers)
    if not terms:
        return matrices, np.zeros((matrices.shape[-3], 0, axes))
    bends = np.eye(terms * axes).reshape(-1, terms, axes)
    none = np.zeros((len(bends), axes + 1, axes + 1))
    still = np.zeros((len(matrices), terms, axes))
    return np.concatenate([matrices, none]), np.concatenate([still, bends])


def _turns(axes: int) -> Floats:
    """Return how a rotation by a small angle begins, for each plane or axis."""
    if axes == 2:
        return np.array([[[0.0, -1.0], [1.0, 0.0]]])
    return np.cross(np.eye(3), np.eye(3)[:, np.newaxis])


def _stepped(
    family: Family, change: PointMap, directions: tuple[Floats, Floats], step: Floats
) -> PointMap:
    """Return maps, changed along the directions by a step of shape (..., k)."""
    if family.model not in ("rigid", "similarity"):
        matrix, bend = (
            np.einsum("...k,...kab->...ab", step, way) for way in directions
        )
        return change._replace(matrix=change.matrix + matrix, bend=change.bend + bend)
    axes = family.ndim
    turns = axes * (axes - 1) // 2
    matrix = change.matrix.copy()
    matrix[..., :axes, axes] += step[..., -axes:]
    turn = rotations(step[..., :turns].reshape(-1, turns))
    linear = matrix[..., :axes, :axes] @ turn.reshape(*step.shape[:-1], axes, axes)
    if family.model == "similarity":
        linear *= np.exp(step[..., turns])[..., np.newaxis, np.newaxis]
    matrix[..., :axes, :axes] = linear
    return change._replace(matrix=matrix)


def _direct(family: Family, pairs: Pairs) -> PointMap:
    """Return a map that is at least close to the best one."""
    axes = family.ndim
    weights = (pairs.roots**2).sum(axis=(1, 2)) / axes
    if not family.linear:
        maps = direct_maps(
            family, pairs.reference[np.newaxis], pairs.moving[np.newaxis], weights
        )
        found = maps._replace(matrix=maps.matrix[0], bend=maps.bend[0])
        if np.isfinite(map_points(found, pairs.moving)).all():
            return found
    return PointMap(
        np.eye(axes + 1),
        np.zeros((len(family.powers), axes)),
        family.powers,
        np.zeros(axes),
        1.0,
    )


def direct_maps(
    family: Family, reference: Floats, moving: Floats, weights: Floats
) -> PointMap:
    """Return a map for each of many sets of pairs, shapes (sets, n, ndim).

    Where weights are the same along all axes it is that of least squares; of a
    projective map, it is that of an algebraic error.
    """
    sets, count, axes = moving.shape
    matrix = np.zeros((sets, axes + 1, axes + 1))
    matrix[:, axes, axes] = 1
    bend = np.zeros((sets, len(family.powers), axes))
    change = PointMap(matrix, bend, family.powers, np.zeros(axes), 1.0)
    if family.model == "projective":
        return change._replace(matrix=_projective(reference, moving, weights))
    if family.model in ("affine", "polynomial"):
        flat = moving.reshape(-1, axes)
        design = np.hstack([homogeneous(flat), bend_terms(change, flat)])
        root = np.sqrt(weights)[:, np.newaxis]
        found = np.linalg.pinv(root * design.reshape(sets, count, -1)) @ (
            root * reference
        )
        matrix[:, :axes] = np.swapaxes(found[:, : axes + 1], 1, 2)
        return change._replace(bend=found[:, axes + 1 :])
    share = (weights / weights.sum())[:, np.newaxis]
    middles = [(share * points).sum(axis=1) for points in (reference, moving)]
    linear: Floats = np.broadcast_to(np.eye(axes), (sets, axes, axes))
    if family.model != "translation":
        away = [
            p - m[:, np.newaxis]
            for p, m in zip((reference, moving), middles, strict=True)
        ]
        linear = _turned(family, away[0], away[1], share)
    matrix[:, :axes, :axes] = linear
    matrix[:, :axes, axes] = middles[0] - np.einsum("sab,sb->sa", linear, middles[1])
    return change


def _turned(family: Family, reference: Floats, moving: Floats, share: Floats) -> Floats:
    """Return the rotations, scaled if they may be, of points around their means."""
    left, sizes, right = np.linalg.svd(np.swapaxes(share * reference, 1, 2) @ moving)
    signs = np.ones_like(sizes)
    if not family.mirror:
        signs[:, -1] = np.sign(np.linalg.det(left @ right))
    linear = (left * signs[:, np.newaxis]) @ right
    if family.model == "similarity":
        spread = np.maximum((share * moving**2).sum(axis=(1, 2)), np.finfo(float).tiny)
        linear *= ((sizes * signs).sum(axis=1) / spread)[:, np.newaxis, np.newaxis]
    return np.asarray(linear)


def _projective(reference: Floats, moving: Floats, weights: Floats) -> Floats:
    """Return projective matrices from the smallest singular vectors."""
    sets, count, axes = moving.shape
    rows = np.zeros((sets, axes, count, axes + 1, axes + 1))
    full = homogeneous(moving.reshape(-1, axes)).reshape(sets, count, axes + 1)
    full = full * np.sqrt(weights)[:, np.newaxis]
    for axis in range(axes):
        rows[:, axis, :, axis] = full
        rows[:, axis, :, axes] = -reference[:, :, axis, np.newaxis] * full
    system = rows.reshape(sets, axes * count, -1)
    squares = np.swapaxes(system, 1, 2) @ system
    found = np.linalg.eigh(squares)[1][:, :, 0].reshape(sets, axes + 1, axes + 1)
    # In front of the horizon is where the first point is.
    depth = np.einsum("sa,sa->s", found[:, -1], full[:, 0])
    return np.asarray(found * np.where(depth < 0, -1, 1)[:, np.newaxis, np.newaxis])

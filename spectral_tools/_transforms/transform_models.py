"""Models of transforms, fitted to pairs of points by weighted least squares.

A new model is a class here, in `FAMILIES` and in `Model`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats, Ints
from .matrices import rotations
from .point_maps import (
    Directions,
    PointMap,
    bend_powers,
    bend_terms,
    homogeneous,
    map_points,
    map_slopes,
)

__all__ = [
    "FAMILIES",
    "Family",
    "Model",
    "Pairs",
    "family_of",
    "fit_map",
    "fits_without",
    "whitened",
]


Model = Literal[
    "translation", "rigid", "similarity", "affine", "projective", "polynomial"
]

# Steps of Gauss and Newton, at most.
STEPS = 100
# Precision of fits: a step that moves points by less than this part of their extent is
# the last one, and a cost that grows by less than this share has not grown.
PRECISION = 1e-9


@dataclass(frozen=True, eq=False)
class Family(ABC):
    """All the maps of one model. A new model is a subclass, in `FAMILIES` and `Model`.

    Attributes
    ----------
    ndim : int
        Number of axes.
    mirror : bool
        Whether a map may be a mirror image, where the model `mirrors`.
    powers : ndarray of int, shape (terms, ndim)
        Exponents of the terms of a polynomial; none for others.
    """

    model: ClassVar[Model]
    linear: ClassVar[bool] = True  # least squares are solved in one step
    scales: ClassVar[bool] = True  # distances may change
    mirrors: ClassVar[bool] = False
    bends: ClassVar[bool] = False

    ndim: int
    mirror: bool
    powers: Ints

    @property
    @abstractmethod
    def least(self) -> int:
        """Return the number of pairs that determine a map."""

    @property
    @abstractmethod
    def unknowns(self) -> int:
        """Return how many numbers determine a map."""

    @property
    def spanned(self) -> int:
        """Return how many dimensions points must span."""
        return self.ndim

    @property
    def name(self) -> str:
        """Return the name of a transform of the family, with its article."""
        kind = " with `mirror`" if self.mirror else ""
        return f"a {self.model} transform{kind}"

    @abstractmethod
    def directions(self, change: PointMap) -> Directions:
        """Return the ways in which maps may change: tangents of the family there."""

    def step(self, change: PointMap, directions: Directions, step: Floats) -> PointMap:
        """Return maps, changed along the directions by a step of shape (..., k)."""
        matrix, bend = (
            np.einsum("...k,...kab->...ab", step, way) for way in directions
        )
        return change._replace(matrix=change.matrix + matrix, bend=change.bend + bend)

    @abstractmethod
    def direct(self, reference: Floats, moving: Floats, weights: Floats) -> PointMap:
        """Return a map for each of many sets of pairs, shapes (sets, n, ndim).

        Where weights are the same along all axes it is that of least squares; of a
        projective map, it is that of an algebraic error.
        """

    def identity(self) -> PointMap:
        """Return the map that leaves points where they are."""
        bend = np.zeros((len(self.powers), self.ndim))
        return PointMap(
            np.eye(self.ndim + 1), bend, self.powers, np.zeros(self.ndim), 1.0
        )


class Translation(Family):
    """Moves."""

    model: ClassVar[Model] = "translation"
    scales = False

    @property
    def least(self) -> int:
        return 1

    @property
    def unknowns(self) -> int:
        return self.ndim

    @property
    def spanned(self) -> int:
        return 0

    def directions(self, change: PointMap) -> Directions:  # noqa: ARG002
        return _without_bends(_units(self.ndim)[:, -1])

    def direct(self, reference: Floats, moving: Floats, weights: Floats) -> PointMap:
        sets, _, axes = moving.shape
        share = (weights / weights.sum())[:, np.newaxis]
        middles = [(share * points).sum(axis=1) for points in (reference, moving)]
        away = [
            points - middle[:, np.newaxis]
            for points, middle in zip((reference, moving), middles, strict=True)
        ]
        linear = self.linear_part(away[0], away[1], share)
        matrix = np.zeros((sets, axes + 1, axes + 1))
        matrix[:, axes, axes] = 1
        matrix[:, :axes, :axes] = linear
        matrix[:, :axes, axes] = middles[0] - np.einsum(
            "sab,sb->sa", linear, middles[1]
        )
        return self.identity()._replace(matrix=matrix, bend=np.zeros((sets, 0, axes)))

    def linear_part(self, reference: Floats, moving: Floats, share: Floats) -> Floats:
        """Return linear parts that bring points around their means to each other."""
        del reference, share
        sets, _, axes = moving.shape
        return np.broadcast_to(np.eye(axes), (sets, axes, axes))


class Rigid(Translation):
    """Moves and turns. Steps are those of a Lie group: rotations stay rotations."""

    model: ClassVar[Model] = "rigid"
    linear = False
    mirrors = True

    @property
    def least(self) -> int:
        return self.ndim + self.mirror

    @property
    def unknowns(self) -> int:
        return self.ndim + self.turns

    @property
    def turns(self) -> int:
        """Return the number of angles of a rotation."""
        return self.ndim * (self.ndim - 1) // 2

    @property
    def spanned(self) -> int:
        return self.least - 1

    def directions(self, change: PointMap) -> Directions:
        axes = self.ndim
        linear = self.turned(change.matrix[..., np.newaxis, :axes, :axes])
        many, count = change.matrix.shape[:-2], linear.shape[-3]
        matrices = np.zeros((*many, count + axes, axes + 1, axes + 1))
        matrices[..., :count, :axes, :axes] = linear
        matrices[..., count:, :, :] = _units(axes)[:, -1]
        return _without_bends(matrices)

    def turned(self, linear: Floats) -> Floats:
        """Return how linear parts change with each of their unknowns."""
        if self.ndim == 2:
            return linear @ np.array([[[0.0, -1.0], [1.0, 0.0]]])
        return linear @ np.cross(np.eye(3), np.eye(3)[:, np.newaxis])

    def step(self, change: PointMap, directions: Directions, step: Floats) -> PointMap:  # noqa: ARG002
        axes, turns = self.ndim, self.turns
        matrix = change.matrix.copy()
        matrix[..., :axes, axes] += step[..., -axes:]
        turn = rotations(step[..., :turns].reshape(-1, turns))
        matrix[..., :axes, :axes] = matrix[..., :axes, :axes] @ turn.reshape(
            *step.shape[:-1], axes, axes
        )
        return change._replace(matrix=matrix)

    def linear_part(self, reference: Floats, moving: Floats, share: Floats) -> Floats:
        return self._rotation(reference, moving, share)[0]

    def _rotation(
        self, reference: Floats, moving: Floats, share: Floats
    ) -> tuple[Floats, Floats]:
        """Return rotations and the sums of singular values, by Umeyama's method."""
        product = np.swapaxes(share * reference, 1, 2) @ moving
        left, sizes, right = np.linalg.svd(product)
        signs = np.ones_like(sizes)
        if not self.mirror:
            signs[:, -1] = np.sign(np.linalg.det(left @ right))
        turns = (left * signs[:, np.newaxis]) @ right
        return np.asarray(turns), (sizes * signs).sum(axis=1)


class Similarity(Rigid):
    """Moves, turns and scales."""

    model: ClassVar[Model] = "similarity"
    scales = True

    @property
    def unknowns(self) -> int:
        return super().unknowns + 1

    def turned(self, linear: Floats) -> Floats:
        return np.concatenate([super().turned(linear), linear], axis=-3)

    def step(self, change: PointMap, directions: Directions, step: Floats) -> PointMap:
        axes, turns = self.ndim, self.turns
        stepped = super().step(change, directions, step)
        # Beyond the precision of numbers nothing is left of one of two images.
        most = -np.log(np.finfo(float).eps)
        growth = np.exp(np.clip(step[..., turns], -most, most))[..., None, None]
        stepped.matrix[..., :axes, :axes] *= growth
        return stepped

    def linear_part(self, reference: Floats, moving: Floats, share: Floats) -> Floats:
        turns, sizes = self._rotation(reference, moving, share)
        spread = np.maximum((share * moving**2).sum(axis=(1, 2)), np.finfo(float).tiny)
        return np.asarray(turns * (sizes / spread)[:, np.newaxis, np.newaxis])


class Affine(Family):
    """Moves, turns, scales, stretches and shears."""

    model: ClassVar[Model] = "affine"

    @property
    def least(self) -> int:
        return self.ndim + 1 + len(self.powers)

    @property
    def unknowns(self) -> int:
        return self.ndim * self.least

    @property
    def name(self) -> str:
        return "an affine transform"

    def directions(self, change: PointMap) -> Directions:  # noqa: ARG002
        axes = self.ndim
        return _without_bends(_units(axes).reshape(-1, axes + 1, axes + 1))

    def direct(self, reference: Floats, moving: Floats, weights: Floats) -> PointMap:
        sets, count, axes = moving.shape
        flat = moving.reshape(-1, axes)
        design = np.hstack([homogeneous(flat), bend_terms(self.identity(), flat)])
        root = np.sqrt(weights)[:, np.newaxis]
        inverse = np.linalg.pinv(root * design.reshape(sets, count, -1))
        found = inverse @ (root * reference)
        matrix = np.zeros((sets, axes + 1, axes + 1))
        matrix[:, axes, axes] = 1
        matrix[:, :axes] = np.swapaxes(found[:, : axes + 1], 1, 2)
        return self.identity()._replace(matrix=matrix, bend=found[:, axes + 1 :])


class Projective(Affine):
    """Leans, like a plane in a photograph."""

    model: ClassVar[Model] = "projective"
    linear = False

    @property
    def least(self) -> int:
        return self.ndim + 2

    @property
    def name(self) -> str:
        return "a projective transform"

    def directions(self, change: PointMap) -> Directions:  # noqa: ARG002
        axes = self.ndim
        # The last entry stays as it is.
        entries = np.eye((axes + 1) ** 2)[:-1]
        return _without_bends(entries.reshape(-1, axes + 1, axes + 1))

    def direct(self, reference: Floats, moving: Floats, weights: Floats) -> PointMap:
        sets, count, axes = moving.shape
        rows = np.zeros((sets, axes, count, axes + 1, axes + 1))
        full = homogeneous(moving.reshape(-1, axes)).reshape(sets, count, axes + 1)
        full = full * np.sqrt(weights)[:, np.newaxis]
        for axis in range(axes):
            rows[:, axis, :, axis] = full
            rows[:, axis, :, axes] = -reference[:, :, axis, np.newaxis] * full
        system = rows.reshape(sets, axes * count, -1)
        # The direct linear transform: the smallest singular vector.
        squares = np.swapaxes(system, 1, 2) @ system
        found = np.linalg.eigh(squares)[1][:, :, 0].reshape(sets, axes + 1, axes + 1)
        # In front of the horizon is where the first point is.
        depth = np.einsum("sa,sa->s", found[:, -1], full[:, 0])
        matrix = found * np.where(depth < 0, -1, 1)[:, np.newaxis, np.newaxis]
        return self.identity()._replace(matrix=matrix, bend=np.zeros((sets, 0, axes)))


class Polynomial(Affine):
    """Bends."""

    model: ClassVar[Model] = "polynomial"
    bends = True

    @property
    def name(self) -> str:
        return f"a polynomial of order {self.powers.sum(axis=1).max()}"

    def directions(self, change: PointMap) -> Directions:
        axes, terms = self.ndim, len(self.powers)
        matrices = super().directions(change).matrices
        bends = np.eye(terms * axes).reshape(-1, terms, axes)
        none = np.zeros((len(bends), axes + 1, axes + 1))
        still = np.zeros((len(matrices), terms, axes))
        return Directions(
            np.concatenate([matrices, none]), np.concatenate([still, bends])
        )


FAMILIES: dict[str, type[Family]] = {
    family.model: family
    for family in (Translation, Rigid, Similarity, Affine, Projective, Polynomial)
}


def _units(axes: int) -> Floats:
    """Return the changes of the entries of an affine matrix, by row and column."""
    every = np.eye((axes + 1) ** 2).reshape(axes + 1, axes + 1, axes + 1, axes + 1)
    return every[:axes]


def _without_bends(matrices: Floats) -> Directions:
    return Directions(
        matrices, np.zeros((matrices.shape[-3], 0, matrices.shape[-1] - 1))
    )


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
    kind = FAMILIES[model]
    powers = bend_powers(ndim, order if kind.bends else 1)
    return kind(ndim, mirror and kind.mirrors, powers)


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
    maps = _gauss_newton(
        family, pairs, _repeated(_initial_map(family, pairs), 1), everything
    )
    return maps._replace(matrix=maps.matrix[0], bend=maps.bend[0])


def fits_without(
    family: Family, pairs: Pairs, change: PointMap, rows: Ints
) -> PointMap:
    """Return the fits to all pairs but one, for each of the rows.

    `change` is the fit to all of them.
    """
    kept = ~np.eye(len(pairs.moving), dtype=np.bool_)[rows, :, np.newaxis]
    return _gauss_newton(family, pairs, _repeated(change, len(rows)), kept)


def _repeated(change: PointMap, count: int) -> PointMap:
    matrix, bend = (np.repeat(part[np.newaxis], count, 0) for part in change[:2])
    return change._replace(matrix=matrix, bend=bend)


def _gauss_newton(
    family: Family, pairs: Pairs, maps: PointMap, kept: NDArray[np.bool_]
) -> PointMap:
    """Take each of many maps to the least squares of the pairs that it keeps.

    `kept` has shape (maps, n, 1).
    """
    misfit = np.where(kept, whitened(maps, pairs), 0)
    cost = (misfit**2).sum(axis=(1, 2))
    share = np.ones(len(kept))
    for _ in range(STEPS):
        directions = family.directions(maps)
        slopes = pairs.roots @ map_slopes(maps, directions, pairs.moving)
        slopes = np.where(kept[..., np.newaxis], slopes, 0)
        slopes = slopes.reshape(len(kept), -1, slopes.shape[-1])
        step = _least_squares_step(slopes, misfit.reshape(len(kept), -1, 1))
        step *= share[:, np.newaxis, np.newaxis]
        trial = family.step(maps, directions, step[..., 0])
        trial_misfit = np.where(kept, whitened(trial, pairs), 0)
        trial_cost = (trial_misfit**2).sum(axis=(1, 2))
        better = trial_cost <= cost * (1 + PRECISION) + PRECISION
        # What overshoots tries half of it.
        share = np.where(better, 1.0, share / 2)
        cost = np.where(better, trial_cost, cost)
        chosen = better[:, np.newaxis, np.newaxis]
        misfit = np.where(chosen, trial_misfit, misfit)
        maps = maps._replace(
            matrix=np.where(chosen, trial.matrix, maps.matrix),
            bend=np.where(chosen, trial.bend, maps.bend),
        )
        if np.abs(slopes @ step).max() <= PRECISION * np.abs(pairs.roots).max():
            break
    return maps


def _least_squares_step(slopes: Floats, misfit: Floats) -> Floats:
    """Return the steps of least squares, the shortest where they are not determined."""
    left, right = np.linalg.qr(slopes)
    turned = np.swapaxes(left, 1, 2) @ misfit
    return np.asarray(np.linalg.pinv(right) @ turned, np.float64)


def _initial_map(family: Family, pairs: Pairs) -> PointMap:
    """Return a map that is at least close to the best one."""
    weights = (pairs.roots**2).sum(axis=(1, 2)) / family.ndim
    if not family.linear:
        maps = family.direct(
            pairs.reference[np.newaxis], pairs.moving[np.newaxis], weights
        )
        found = maps._replace(matrix=maps.matrix[0], bend=maps.bend[0])
        if np.isfinite(map_points(found, pairs.moving)).all():
            return found
    return family.identity()

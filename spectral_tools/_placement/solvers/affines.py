"""Place tiles that may stretch and shear, by linear least squares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import (
    NEGLIGIBLE,
    conjugate_gradients,
    factorized_blocks,
    multiplied_blocks,
    sum_rows,
)
from .normal_equations import (
    Blocks,
    PointLinks,
    free_blocks,
    group_means,
    normal_blocks,
    possible_spring,
    split_by_axes,
)
from .pose_graph import PoseGraph, graph_fields, matrices_about, solve_pose_graph

__all__ = ["solve_affines"]


# Conjugate gradients stop when the next step would be this much shorter than the
# first; the last fit goes further.
COARSE, FINE = 1e-2, 1e-4
# Points this far apart, in tiles, do not meet: further does not count as farther.
APART = 0.1
# Tiles can be flattened to this before they are taken for wider than they are.
RIGID = 1e-6


# A mean linear part that shrinks volumes to this is none.
FLAT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Affines(PoseGraph["Displacements"]):
    """Tiles that stretch, shear and move.

    The unknowns of a tile are ``ndim + 1`` rows of displacements: those for one
    `spread` along each axis, and that of the middle of its points.

    Attributes
    ----------
    problem, pairs, pivot, middle, spread, usual, measured : object
        As of `PoseGraph`.
    near, far : ndarray of shape (n_links, ndim + 1)
        Share of each unknown of the reference and of the moving tile in the
        displacement of the two points.
    at_pivot : ndarray of shape (n, ndim + 1)
        The same for the middle of all points, whose displacement is what the
        position of a tile means.
    is_round : bool
        Whether all covariances are multiples of the identity.
    """

    near: Floats
    far: Floats
    at_pivot: Floats
    is_round: bool

    def start(self) -> "Displacements":
        """Leave tiles undistorted at their places."""
        count, ndim = self.middle.shape
        values = np.zeros((count, ndim + 1, ndim))
        values[:, -1] = self.problem.places
        return Displacements(
            values=values,
            trust=np.ones(len(self.near)),
            spring=self.spring(self.usual),
            stiffness=self.usual,
            solve=np.asarray,
            multiply=None,
        )

    def spring(self, stiffness: float) -> float:
        """Return the inverse variance of displacements for one spread."""
        return possible_spring(self.problem, stiffness / self.spread**2)

    def fitted(
        self, last: "Displacements", trust: Floats, stiffness: float, *, quick: bool
    ) -> "Displacements":
        """Improve the unknowns with a trust of 0 to 1 in each link.

        Forces depend on where points are, so that a second step goes further.
        """
        spring, free = self.spring(stiffness), ~self.problem.fixed
        now = replace(
            last, trust=trust, spring=spring, stiffness=spring * self.spread**2
        )
        if not free.any():
            return now
        shared = free_blocks(self.pairs, _round_blocks(self, trust, spring), free)
        multiply = None
        if not self.is_round:
            every = free_blocks(self.pairs, _blocks(self, trust, spring), free)
            multiply = multiplied_blocks(*every)
        now = replace(now, solve=factorized_blocks(*shared), multiply=multiply)
        for _ in range(1 if quick else 2):
            now = _newton_step(self, now, COARSE)
        return now

    def polished(self, state: "Displacements") -> "Displacements":
        """Improve unknowns with the equations they were found with."""
        if self.problem.fixed.all():
            return state
        for _ in range(2):
            state = _newton_step(self, state, FINE)
        return state

    def restarted(
        self,
        first: "Displacements",  # noqa: ARG002
        plain: "Displacements",
    ) -> tuple["Affines", "Displacements"]:
        """Stiffen what bent to contradictions, by telling it of so large errors."""
        stiffness = float(self.squares(plain).max()) * self.usual
        return self, self.fitted(plain, plain.trust, stiffness, quick=True)

    def squares(self, state: "Displacements") -> Floats:
        """Return the squared residual of each link in units of its covariance.

        It is seen from the reference tile, and no smaller for tiles that shrink.
        """
        back = _inverses(self, state.values)[self.problem.links[:, 0]]
        residuals = back @ _residuals(self, state.values)[:, :, np.newaxis]
        left = residuals[:, :, 0]
        return np.asarray((_weighted(self.problem, left) * left).sum(axis=1))

    def distortions(self, state: "Displacements") -> Floats:
        """Return linear parts less the identity of tiles that may have them."""
        return np.asarray(state.values[~self.problem.fixed, :-1] / self.spread)

    def spring_roots(self, state: "Displacements") -> Floats:
        """Return square roots of the priors of each tile, along one axis."""
        prior = self.problem.prior.mean(keepdims=True)
        return _spring_roots(self, state.spring, prior)

    @property
    def stiff(self) -> Ints:
        """Which priors are those of linear parts."""
        return np.arange(self.middle.shape[1])

    @property
    def axes_alike(self) -> int:
        """Number of axes that the same equations serve."""
        return self.middle.shape[1]

    def matrices(self, state: "Displacements") -> Floats:
        """Return the matrix of each tile, groups that nothing holds put upright."""
        linear = state.values[:, :-1].transpose(0, 2, 1) / self.spread
        linear = linear + np.eye(self.middle.shape[1])
        place = self.middle + state.values[:, -1]
        return _gauged(self.problem, matrices_about(self.middle, linear, place))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Displacements:
    """Unknowns of all tiles, and the factor that they were found with.

    Attributes
    ----------
    values : ndarray of shape (n, ndim + 1, ndim)
        The unknowns.
    trust : ndarray of shape (n_links,)
        Factor of the weight of each link.
    spring : float
        Inverse variance of the displacements for one spread.
    stiffness : float
        The same for distortions.
    solve : callable
        Solves the normal equations of each axis as if covariances were round.
    multiply : callable or None
        Multiplies with the normal equations of all axes, unless covariances are
        round.
    """

    values: Floats
    trust: Floats
    spring: float
    stiffness: float
    solve: Callable[[Floats], Floats]
    multiply: Callable[[Floats], Floats] | None


def solve_affines(
    problem: PointLinks, *, stiffness: float | None, robust: bool
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed.

    The entries of linear parts less the identity have `stiffness` for inverse
    variance; None measures it.
    """
    known = graph_fields(problem, stiffness)
    middle, spread = known["middle"], known["spread"]

    def shares(points: Floats, tiles: Ints | slice) -> Floats:
        away = (points - middle[tiles]) / spread
        return np.concatenate([away, np.ones((len(away), 1))], axis=1)

    reference, moving = problem.links.T
    graph = Affines(
        **known,
        near=shares(problem.reference, reference),
        far=shares(problem.moving, moving),
        at_pivot=shares(np.broadcast_to(known["pivot"], middle.shape), slice(None)),
        is_round=_all_round(problem),
    )
    return solve_pose_graph(graph, robust=robust)


def _all_round(problem: PointLinks) -> bool:
    """Tell whether all axes have the same equations, and errors along them are apart."""
    parts = split_by_axes(problem.weights, np.diag(problem.prior))
    apart = np.abs(parts[0].inverse_form - np.eye(len(problem.prior)))
    shared = len(parts) == 1 and parts[0].weights.shape[1] == 1
    return shared and bool((apart <= NEGLIGIBLE).all())


def _newton_step(graph: Affines, fit: Displacements, tolerance: float) -> Displacements:
    """Move all unknowns to where the forces of links and springs balance."""
    force = _force(graph, fit)
    free = ~graph.problem.fixed
    return replace(fit, values=_balanced(fit, free, force, tolerance))


def _blocks(graph: Affines, trust: Floats, spring: float) -> Blocks:
    """Return the normal equations of all axes."""
    problem = graph.problem
    ndim = problem.places.shape[1]
    axes = np.eye(ndim)
    near = np.kron(graph.near[:, None], axes).astype(np.float64, copy=False)
    far = np.kron(graph.far[:, None], axes).astype(np.float64, copy=False)
    weights = problem.weights * trust[:, np.newaxis, np.newaxis]
    blocks = normal_blocks(problem, graph.pairs, near, far, weights)
    roots = _spring_roots(graph, spring, problem.prior)
    return replace(blocks, own=blocks.own + roots.transpose(0, 2, 1) @ roots)


def _round_blocks(graph: Affines, trust: Floats, spring: float) -> Blocks:
    """Return the normal equations of one axis, as if covariances were round."""
    problem = graph.problem
    scalar = (problem.amount * trust)[:, np.newaxis, np.newaxis]
    near, far = graph.near[:, np.newaxis], graph.far[:, np.newaxis]
    blocks = normal_blocks(problem, graph.pairs, near, far, scalar)
    roots = _spring_roots(graph, spring, problem.prior.mean(keepdims=True))
    return replace(blocks, own=blocks.own + roots.transpose(0, 2, 1) @ roots)


def _spring_roots(graph: Affines, spring: float, prior: Floats) -> Floats:
    """Return square roots of springs: of distortions, of positions, of the ground."""
    problem = graph.problem
    count, size = graph.at_pivot.shape
    roots = np.zeros((count, size + 1, size))
    axes = np.arange(size - 1)
    roots[:, axes, axes] = np.sqrt(spring)
    roots[problem.held, -1, -1] = np.sqrt(_ground(problem))
    spread = np.kron(roots, np.eye(len(prior)))
    away = np.kron(graph.at_pivot[:, np.newaxis], np.diag(np.sqrt(prior)))
    spread[:, (size - 1) * len(prior) : size * len(prior)] = away
    return np.asarray(spread)


def _ground(problem: PointLinks) -> float:
    """Return the stiffness of the spring that holds a group of tiles.

    The group goes where that spring is at rest, so that any will do.
    """
    return float(np.median(problem.amount)) if len(problem.links) else 1.0


def _balanced(
    fit: Displacements, free: Flags, force: Floats, tolerance: float
) -> Floats:
    """Move the unknowns to where a force is balanced.

    Strategy: conjugate gradients, preconditioned with the factor for round
    covariances, which alone does if they are.
    """
    ndim = force.shape[2]

    def precondition(vector: Floats) -> Floats:
        return fit.solve(vector.reshape(-1, ndim)).ravel()

    right = force[free].ravel()
    if fit.multiply is None:
        step = precondition(right)
    else:
        step, _ = conjugate_gradients(
            fit.multiply, precondition, right, tolerance=tolerance
        )
    values = fit.values.copy()
    values[free] += step.reshape(-1, *force.shape[1:])
    return values


def _force(graph: Affines, fit: Displacements) -> Floats:
    """Return the force of links and springs on each unknown.

    Smaller tiles have smaller residuals, so that least squares shrinks tiles
    where it can. It must not gain by this: links pull at the middle between
    reference and moving point, which is the same for both tiles.
    """
    problem, values = graph.problem, fit.values
    residuals = _residuals(graph, values)
    pull = _weighted(problem, residuals) * fit.trust[:, np.newaxis]
    force = _link_force(graph, pull)
    back = _inverses(graph, values)
    for tiles in problem.links.T:
        half = back[tiles] @ residuals[:, :, np.newaxis] / (2 * graph.spread)
        far = np.linalg.norm(half, axis=1, keepdims=True) / APART
        half /= np.maximum(far, 1)
        force[:, :-1] += sum_rows(tiles, half * pull[:, np.newaxis], len(force))
    force[:, :-1] -= fit.spring * values[:, :-1]
    if problem.prior.any():
        moved = np.einsum("nk,nka->na", graph.at_pivot, values)
        away = (problem.places - moved) * problem.prior
        force += graph.at_pivot[:, :, np.newaxis] * away[:, np.newaxis]
    return force


def _inverses(graph: Affines, values: Floats) -> Floats:
    """Return the inverse linear part of each tile, or nearly so if it is flat."""
    linear = values[:, :-1].transpose(0, 2, 1) / graph.spread
    left, size, right = np.linalg.svd(linear + np.eye(values.shape[2]))
    inverse = right.transpose(0, 2, 1) / np.maximum(size, RIGID)[:, np.newaxis]
    return np.asarray(inverse @ left.transpose(0, 2, 1))


def _link_force(graph: Affines, pull: Floats) -> Floats:
    reference, moving = graph.problem.links.T
    count = len(graph.middle)
    force = sum_rows(moving, graph.far[:, :, None] * pull[:, None], count)
    force -= sum_rows(reference, graph.near[:, :, None] * pull[:, None], count)
    return force


def _weighted(problem: PointLinks, residuals: Floats) -> Floats:
    return np.asarray((problem.weights @ residuals[:, :, np.newaxis])[:, :, 0])


def _differences(graph: Affines, values: Floats) -> Floats:
    """Return displacements of reference points less those of moving points."""
    reference, moving = graph.problem.links.T
    near = graph.near[:, np.newaxis] @ values[reference]
    return np.asarray((near - graph.far[:, np.newaxis] @ values[moving])[:, 0])


def _residuals(graph: Affines, values: Floats) -> Floats:
    offsets = graph.problem.reference - graph.problem.moving
    return offsets + _differences(graph, values)


def _gauged(problem: PointLinks, matrices: Floats) -> Floats:
    """Give each group that nothing holds the identity as its mean linear part."""
    mean = group_means(problem.group, matrices)
    away = group_means(problem.group, problem.places)
    change = np.broadcast_to(np.eye(mean.shape[1]), mean.shape).copy()
    loose = problem.loose & (not problem.prior.any())
    # Tiles that point every way have no mean to be made upright.
    loose &= np.abs(np.linalg.det(mean)) > FLAT
    change[loose] = np.linalg.inv(mean[loose])
    gauged = change[problem.group] @ matrices
    # The mean matrix is now the identity: its translation is next.
    gauged[loose[problem.group], :-1, -1] += away[problem.group[loose[problem.group]]]
    return np.asarray(gauged)

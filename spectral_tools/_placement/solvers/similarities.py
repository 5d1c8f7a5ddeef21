"""Place tiles that may turn, and change their scale, by least squares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.sparse import NEGLIGIBLE, factorized_blocks, sum_rows
from ..._shared.statistics import FAINT
from ..._transforms.matrices import nearest_rotations, rotations
from .normal_equations import (
    PointLinks,
    free_blocks,
    group_means,
    normal_blocks,
    possible_spring,
)
from .pose_graph import (
    USUAL_STIFFNESS,
    PoseGraph,
    graph_fields,
    matrices_about,
    measured_stiffness,
    solve_pose_graph,
)
from .rotation_averaging import average_rotations

__all__ = ["solve_similarities"]


# Gauss-Newton steps double the digits: five are enough but for hopeless data.
STEPS, FEW_STEPS = 30, 2
# Steps shorter than this fraction of the tiles do not change what is believed.
SHORT = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Similarities(PoseGraph["Poses"]):
    """Tiles that turn about any angle and move; distortions are logarithms of scale.

    Attributes
    ----------
    problem, pairs, pivot, middle, spread, usual, measured : object
        As of `PoseGraph`.
    scale : bool
        Whether tiles may change their scale.
    robust : bool
        Whether links that contradict the others do not count.
    """

    scale: bool
    robust: bool

    def start(self) -> "Poses":
        """Turn tiles as pairs of them say, and place them as they are then turned."""
        return _start(self)

    def fitted(
        self, last: "Poses", trust: Floats, stiffness: float, *, quick: bool
    ) -> "Poses":
        """Take a few Gauss-Newton steps, or as many as it needs."""
        now = replace(last, trust=trust, stiffness=stiffness)
        return _gauss_newton(self, now, FEW_STEPS if quick else STEPS)

    def polished(self, state: "Poses") -> "Poses":
        """Take steps until they are rounding."""
        return _gauss_newton(self, state, STEPS, NEGLIGIBLE)

    def restarted(
        self,
        first: "Poses",
        plain: "Poses",  # noqa: ARG002
    ) -> tuple["Similarities", "Poses"]:
        """Start again from rotations that agree.

        Plain least squares may have turned tiles to where there is no way back.
        """
        again = _gauss_newton(self, first, STEPS)
        if not self.measured:
            return self, again
        usual = measured_stiffness(self, again, again.trust)
        return replace(self, usual=usual), again

    def squares(self, state: "Poses") -> Floats:
        """Return the squared residual of each link in units of its covariance."""
        residuals = _residuals(self, state)
        return np.asarray((_weighted(self, state, residuals) * residuals).sum(axis=1))

    def distortions(self, state: "Poses") -> Floats:
        """Return logarithms of the scales of tiles that may change it."""
        return state.growth[~self.problem.fixed]

    def spring_roots(self, state: "Poses") -> Floats:
        """Return square roots of the priors of each tile."""
        return _spring_roots(self, state, _jacobian_of_pivot(self, state))

    @property
    def stiff(self) -> Ints:
        """Which priors are those of scales."""
        ndim = self.middle.shape[1]
        return np.arange(int(self.scale)) + ndim * (ndim - 1) // 2

    @property
    def axes_alike(self) -> int:
        """Number of axes that the same equations serve: angles couple all."""
        return 1

    def matrices(self, state: "Poses") -> Floats:
        """Return the matrix of each tile, groups that nothing holds put upright."""
        put = _gauged(self, state)
        return matrices_about(self.middle, put.linear, put.place)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Poses:
    """How all tiles are turned and where they are.

    Attributes
    ----------
    turn : ndarray of shape (n, ndim, ndim)
        Rotation of each tile.
    growth : ndarray of shape (n,)
        Logarithm of the scale of each tile.
    place : ndarray of shape (n, ndim)
        Where the middle of its points lies in the mosaic.
    turned : ndarray of shape (n, angles)
        How far each tile was turned since the start, about each axis.
    unobserved : ndarray of bool, shape (n,)
        Tiles that no pair of tiles says how to turn.
    trust : ndarray of shape (n_links,)
        Factor of the weight of each link.
    stiffness : float
        Inverse variance of the logarithm of scales that was used.
    solve : callable
        Solves the normal equations of the last step.
    """

    turn: Floats
    growth: Floats
    place: Floats
    turned: Floats
    unobserved: Flags
    trust: Floats
    stiffness: float
    solve: Callable[[Floats], Floats]

    @property
    def linear(self) -> Floats:
        """Linear part of each tile."""
        return np.asarray(np.exp(self.growth)[:, np.newaxis, np.newaxis] * self.turn)


def _moved_by(graph: Similarities, poses: Poses, step: Floats) -> Poses:
    """Turn and move tiles by one step of the unknowns."""
    ndim = graph.middle.shape[1]
    place = poses.place + step[:, -ndim:]
    if step.shape[1] == ndim:
        return replace(poses, place=place)
    angles = step.shape[1] - ndim - graph.scale
    turned = step[:, :angles] / graph.spread
    turn = rotations(turned) @ poses.turn
    growth = poses.growth
    if graph.scale:
        # A step is told by tangents, which say nothing beyond a factor of e.
        growth = growth + np.clip(step[:, angles] / graph.spread, -1, 1)
    turned = poses.turned + turned
    return replace(poses, place=place, turn=turn, growth=growth, turned=turned)


def _jacobians_of_links(graph: Similarities, poses: Poses) -> tuple[Floats, Floats]:
    """Return how points of the reference and of the moving tile follow a step.

    Residuals are seen from the reference tile: when it turns, what moves is the
    moving point. When a tile grows, it must not gain by smaller residuals: what
    grows is the lever to the middle of both points.
    """
    (reference, near), (moving, far) = _link_ends(graph, poses)
    middle = (reference + moving) / 2 if graph.scale else moving
    return (
        _jacobian(graph, moving - near, middle - near),
        _jacobian(graph, moving - far, middle - far),
    )


def _jacobian(graph: Similarities, turned: Floats, grown: Floats) -> Floats:
    """Return displacements (n, ndim, size) by unit steps of each unknown."""
    count, ndim = turned.shape
    unit = turned / graph.spread
    if ndim == 2:
        columns = [np.stack([-unit[:, 1], unit[:, 0]], axis=1)[:, :, np.newaxis]]
    else:
        columns = [np.cross(np.eye(3), unit[:, np.newaxis]).transpose(0, 2, 1)]
    if graph.scale:
        columns.append(grown[:, :, np.newaxis] / graph.spread)
    columns.append(np.broadcast_to(np.eye(ndim), (count, ndim, ndim)))
    return np.concatenate(columns, axis=2)


def _jacobian_of_pivot(graph: Similarities, poses: Poses) -> Floats:
    levers = _at_pivot(graph, poses) - poses.place
    return _jacobian(graph, levers, levers)


def _link_ends(graph: Similarities, poses: Poses) -> list[tuple[Floats, Floats]]:
    """Return both points of each link in the mosaic, and the middles of their tiles."""
    problem, linear = graph.problem, poses.linear
    ends = []
    points = problem.reference, problem.moving
    for point, tiles in zip(points, problem.links.T, strict=True):
        away = (point - graph.middle[tiles])[:, :, np.newaxis]
        place = poses.place[tiles]
        ends.append(((linear[tiles] @ away)[:, :, 0] + place, place))
    return ends


def _residuals(graph: Similarities, poses: Poses) -> Floats:
    (reference, _), (moving, _) = _link_ends(graph, poses)
    return np.asarray(reference - moving)


def _at_pivot(graph: Similarities, poses: Poses) -> Floats:
    """Return where each tile puts the middle of all points."""
    away = (graph.pivot - graph.middle)[:, :, np.newaxis]
    return np.asarray((poses.linear @ away)[:, :, 0] + poses.place)


def _turned_weights(graph: Similarities, poses: Poses) -> Floats:
    """Return inverse covariances, which turn with the reference tiles, as they lie."""
    problem = graph.problem
    turn = poses.turn[problem.links[:, 0]]
    return np.asarray(turn @ problem.weights @ turn.transpose(0, 2, 1))


def _weighted(graph: Similarities, poses: Poses, residuals: Floats) -> Floats:
    return np.asarray(
        (_turned_weights(graph, poses) @ residuals[:, :, np.newaxis])[:, :, 0]
    )


def _gauged(graph: Similarities, poses: Poses) -> Poses:
    """Give each group that nothing holds the mean angle and growth zero."""
    problem = graph.problem
    group, loose = problem.group, problem.loose & (not problem.prior.any())
    turn = nearest_rotations(group_means(group, poses.turn)).transpose(0, 2, 1)
    turn[~loose] = np.eye(turn.shape[1])
    growth = np.where(loose, -group_means(group, poses.growth[:, np.newaxis])[:, 0], 0)
    moved = _moved_groups(graph, poses, turn, growth)
    away = problem.places - (_at_pivot(graph, moved) - graph.pivot)
    shift = np.where(loose[:, np.newaxis], group_means(group, away), 0)
    return replace(moved, place=moved.place + shift[group])


def _moved_groups(
    graph: Similarities, poses: Poses, turn: Floats, growth: Floats
) -> Poses:
    """Turn and scale whole groups about the origin."""
    group = graph.problem.group
    factor = np.exp(growth)[:, np.newaxis, np.newaxis]
    place = (factor * turn)[group] @ poses.place[:, :, np.newaxis]
    return replace(
        poses,
        turn=turn[group] @ poses.turn,
        growth=poses.growth + growth[group],
        place=place[:, :, 0],
    )


def solve_similarities(
    problem: PointLinks,
    *,
    scale: bool = False,
    stiffness: float | None = None,
    robust: bool = True,
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed.

    The tiles turn about any angle, in the plane or in space, to the least sum of
    squared residuals in units of their covariances; with `scale` they may change
    their scale, whose logarithm has `stiffness` for inverse variance.
    """
    graph = Similarities(**graph_fields(problem, stiffness), scale=scale, robust=robust)
    if not scale:
        graph = replace(graph, measured=False)
    return solve_pose_graph(graph, robust=robust)


# Where to start


def _start(graph: Similarities) -> Poses:
    """Turn tiles as pairs of them say, and place them as they are then turned."""
    problem = graph.problem
    count, ndim = problem.places.shape
    turn, trust, unobserved = average_rotations(
        problem, graph.pairs, scale=graph.scale, robust=graph.robust
    )
    upright = Poses(
        turn=turn,
        growth=np.zeros(count),
        place=graph.middle + problem.places,
        turned=np.zeros((count, 1 if ndim == 2 else 3)),
        unobserved=unobserved,
        trust=trust,
        stiffness=graph.usual,
        solve=np.asarray,
    )
    afloat = replace(graph, problem=replace(problem, prior=np.zeros(ndim)))
    placed = _gauged(afloat, _gauss_newton_step(afloat, upright, turning=False)[0])
    if not problem.prior.any():
        return placed
    return _gauss_newton_step(
        graph, _aligned_with_places(graph, placed), turning=False
    )[0]


def _aligned_with_places(graph: Similarities, poses: Poses) -> Poses:
    """Turn each group that nothing holds to where positions expect its tiles."""
    group, places = graph.problem.group, graph.problem.places
    size = np.bincount(group)
    found = _at_pivot(graph, poses) - graph.pivot
    centred = [v - (group_means(group, v))[group] for v in (places, found)]
    spread = centred[0][:, :, np.newaxis] * centred[1][:, np.newaxis]
    turn = nearest_rotations(sum_rows(group, spread, len(size)))
    turn[~graph.problem.loose] = np.eye(places.shape[1])
    return _moved_groups(graph, poses, turn, np.zeros(len(size)))


# Steps


def _gauss_newton(
    graph: Similarities, poses: Poses, steps: int, short: float = SHORT
) -> Poses:
    for _ in range(steps):
        poses, length = _gauss_newton_step(graph, poses)
        if length <= short * graph.spread:
            break
    return poses


def _gauss_newton_step(
    graph: Similarities, poses: Poses, *, turning: bool = True
) -> tuple[Poses, float]:
    """Make one Gauss-Newton step; without turning it is the last one."""
    problem = graph.problem
    free = ~problem.fixed
    if not free.any():
        return poses, 0.0
    residuals = _residuals(graph, poses)
    near, far = _jacobians_of_links(graph, poses)
    at_pivot = _jacobian_of_pivot(graph, poses)
    roots = _spring_roots(graph, poses, at_pivot)
    if not turning:
        count = problem.places.shape[1]
        near, far = near[..., -count:], far[..., -count:]
        at_pivot, roots = at_pivot[..., -count:], roots[..., -count:]

    weights = _turned_weights(graph, poses) * poses.trust[:, np.newaxis, np.newaxis]
    blocks = normal_blocks(problem, graph.pairs, near, far, weights)
    blocks = replace(blocks, own=blocks.own + roots.transpose(0, 2, 1) @ roots)
    solve = factorized_blocks(*free_blocks(graph.pairs, blocks, free))
    force = _force(graph, poses, residuals, near, far, at_pivot)
    step = np.zeros_like(force)
    step[free] = solve(force[free].reshape(-1, 1)).reshape(-1, force.shape[1])
    return replace(_moved_by(graph, poses, step), solve=solve), float(
        np.abs(step).max()
    )


def _force(
    graph: Similarities,
    poses: Poses,
    residuals: Floats,
    near: Floats,
    far: Floats,
    at_pivot: Floats,
) -> Floats:
    """Return the force of links, positions and stiff scales on each unknown."""
    problem, count = graph.problem, len(graph.middle)
    reference, moving = problem.links.T
    pull = _weighted(graph, poses, residuals) * poses.trust[:, np.newaxis]
    force = sum_rows(moving, np.einsum("nak,na->nk", far, pull), count)
    force -= sum_rows(reference, np.einsum("nak,na->nk", near, pull), count)
    away = problem.places - (_at_pivot(graph, poses) - graph.pivot)
    force += np.einsum("nak,na->nk", at_pivot, away * problem.prior)
    ndim = problem.places.shape[1]
    size = force.shape[1] - ndim
    if size:
        bent = [np.where(poses.unobserved[:, np.newaxis], poses.turned, 0)]
        bent += [poses.growth[:, np.newaxis]] if graph.scale else []
        springs = _springs(graph, poses, size)
        force[:, :size] -= springs * graph.spread * np.concatenate(bent, axis=1)
    return force


def _springs(graph: Similarities, poses: Poses, size: int) -> Floats:
    """Return springs (n, size) of angles and scale, if tiles may change it.

    An angle that pairs of tiles say hardly feels its spring. Where each pair of
    tiles has one pair of points, many angles fit equally well: those stay close
    to where they began.
    """
    problem = graph.problem
    level = float(problem.amount.max(initial=0)) or 1.0
    springs = np.full((len(poses.unobserved), size), FAINT * level)
    usual = possible_spring(problem, USUAL_STIFFNESS / graph.spread**2)
    springs[poses.unobserved] = usual
    if graph.scale:
        stiff = poses.stiffness / graph.spread**2
        springs[:, -1] = possible_spring(problem, stiff)
    return springs


def _spring_roots(graph: Similarities, poses: Poses, at_pivot: Floats) -> Floats:
    """Return square roots of all springs of each tile.

    They are those of angles and scale, of the ground, and of positions.
    """
    problem = graph.problem
    count, ndim, size = at_pivot.shape
    level = float(problem.amount.max(initial=0)) or 1.0
    roots = np.zeros((count, 2 * size, size))
    axes = np.arange(size)
    turned = axes[: size - ndim]
    roots[:, turned, turned] = np.sqrt(_springs(graph, poses, len(turned)))
    # Nothing holds the angle of a whole group either, if nothing its place.
    ground = np.full(size, np.sqrt(level))
    ground[len(turned) - graph.scale : len(turned)] = 0
    roots[problem.held, len(turned) : -ndim] = np.diag(ground)
    roots[:, -ndim:] = np.sqrt(problem.prior)[:, np.newaxis] * at_pivot
    return roots

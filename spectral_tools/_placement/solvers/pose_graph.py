"""Place tiles by a matrix each: robust least squares over pairs of points.

What a tile may do besides moving is up to a parametrisation: `similarities` turns it
and may change its scale, `affines` stretches and shears it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.statistics import ROUNDS, find_consensus, has_outliers
from .normal_equations import (
    LinkedTiles,
    Pairs,
    PointLinks,
    consensus_test,
    distinct_pairs,
    middles,
    undetermined,
    unit_variance,
)
from .robust_links import solve_network
from .translations import Network

__all__ = [
    "USUAL_STIFFNESS",
    "PoseGraph",
    "graph_fields",
    "matrices_about",
    "measured_stiffness",
    "solve_pose_graph",
]


# Stiffness for distortions of one percent: what is assumed until the data tell, and
# counts like one more coefficient of this size when they do.
USUAL_STIFFNESS = 0.01**-2.0
# Nor are tiles taken to be softer than this, or they would shrink to explain what
# is merely wrong.
LEAST_STIFFNESS = 0.3**-2.0


class State(Protocol):
    """Unknowns of all tiles, and the factor that they were found with.

    Attributes
    ----------
    trust : ndarray of shape (n_links,)
        Factor of the weight of each link.
    stiffness : float
        Inverse variance of distortions that was used.
    solve : callable
        Solves the normal equations of the last step.
    """

    @property
    def trust(self) -> Floats: ...
    @property
    def stiffness(self) -> float: ...
    @property
    def solve(self) -> Callable[[Floats], Floats]: ...


AnyState = TypeVar("AnyState", bound=State)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseGraph(ABC, Generic[AnyState]):
    """What does not change from step to step.

    Attributes
    ----------
    problem : PointLinks
        Tiles and links.
    pairs : Pairs
        Pairs of tiles that links join.
    pivot : ndarray of shape (ndim,)
        Middle of all points, whose displacement is what positions mean.
    middle : ndarray of shape (n, ndim)
        Middle of the points of each tile, about which it is distorted.
    spread : float
        Unit of length for distortions, in pixels.
    usual : float
        Inverse variance of distortions, at first or for good.
    measured : bool
        Whether it is only for the first, because the distortions found tell.
    """

    problem: PointLinks
    pairs: Pairs
    pivot: Floats
    middle: Floats
    spread: float
    usual: float
    measured: bool

    @abstractmethod
    def start(self) -> AnyState:
        """Return a state to start from."""

    @abstractmethod
    def fitted(
        self, last: AnyState, trust: Floats, stiffness: float, *, quick: bool
    ) -> AnyState:
        """Fit from a state nearby; a quick fit need not converge."""

    @abstractmethod
    def polished(self, state: AnyState) -> AnyState:
        """Go on to the last digits."""

    @abstractmethod
    def restarted(self, first: AnyState, plain: AnyState) -> tuple[Self, AnyState]:
        """Return where to look for a consensus from, as links contradict others."""

    @abstractmethod
    def squares(self, state: AnyState) -> Floats:
        """Return the squared residual of each link in units of its covariance."""

    @abstractmethod
    def distortions(self, state: AnyState) -> Floats:
        """Return what is stiff of each tile."""

    @abstractmethod
    def spring_roots(self, state: AnyState) -> Floats:
        """Return square roots of the priors of each tile (n, n_priors, size)."""

    @property
    @abstractmethod
    def stiff(self) -> Ints:
        """Which priors are those of distortions."""

    @property
    @abstractmethod
    def axes_alike(self) -> int:
        """Number of axes that the same equations serve."""

    @abstractmethod
    def matrices(self, state: AnyState) -> Floats:
        """Return the matrix of each tile, groups that nothing holds put upright."""


def graph_fields(problem: PointLinks, stiffness: float | None) -> dict[str, Any]:
    """Return the fields of a `PoseGraph`; a stiffness of None is measured."""
    pivot, middle, spread = middles(problem)
    return {
        "problem": problem,
        "pairs": distinct_pairs(problem.links),
        "pivot": pivot,
        "middle": middle,
        "spread": spread,
        "usual": USUAL_STIFFNESS if stiffness is None else stiffness,
        "measured": stiffness is None,
    }


def solve_pose_graph(
    graph: PoseGraph[AnyState], *, robust: bool
) -> tuple[Floats, Flags]:
    """Return the matrix of each tile, and which links are believed."""
    problem = graph.problem
    believed = np.ones(len(problem.links), np.bool_)
    first = graph.start()
    state = graph.fitted(first, believed.astype(float), graph.usual, quick=False)
    for _ in range(ROUNDS if graph.measured else 0):
        last, state = state, _fitted(graph, state.trust, None, state)
        low, high = sorted([last.stiffness, state.stiffness])
        if high <= 2 * low:
            break
    squares = graph.squares(state)
    if robust and has_outliers(problem.places.shape[1], squares, problem.least_unit):
        state, believed = _agreed(graph, first, state)
    return graph.matrices(graph.polished(state)), believed


def _agreed(
    graph: PoseGraph[AnyState], first: AnyState, plain: AnyState
) -> tuple[AnyState, Flags]:
    """Fit what agrees by more than chance, and say which links do.

    Pairs of tiles are asked as if tiles only moved, turned as they are at first: a
    tile that bends can agree with links that contradict each other.
    """
    test = consensus_test(graph.problem, _determined(graph, plain).links)
    found = solve_network(_as_network(graph, first), robust=True).believed
    joined = np.bincount(graph.pairs.number, found) > 0
    graph, start = graph.restarted(first, plain)
    return find_consensus(
        lambda trust, variance, last: _fitted(graph, trust, variance, last),
        graph.squares,
        start,
        test,
        allowed=joined[graph.pairs.number],
    )


def _as_network(graph: PoseGraph[AnyState], state: AnyState) -> Network:
    """Return links between tiles that keep their linear parts."""
    problem = graph.problem
    linear = graph.matrices(state)[:, :-1, :-1]
    reference, moving = linear[problem.links.T]
    points = np.stack([problem.reference, problem.moving]) - graph.pivot
    offsets = np.einsum("nij,nj->ni", reference, points[0])
    offsets -= np.einsum("nij,nj->ni", moving, points[1])
    weights = reference @ problem.weights @ np.swapaxes(reference, 1, 2)
    return Network(
        **{each.name: getattr(problem, each.name) for each in fields(LinkedTiles)}
        | {"weights": weights},
        offsets=offsets,
        options=offsets[:, np.newaxis],
        variances=np.diagonal(np.linalg.inv(weights), axis1=1, axis2=2),
        doubt=None,
    )


def _fitted(
    graph: PoseGraph[AnyState], trust: Floats, variance: float | None, last: AnyState
) -> AnyState:
    """Fit with a trust of 0 to 1 in each link, and a variance that it implies.

    The larger the errors of links, the less they have to say about distortions.
    """
    if variance is not None:
        return graph.fitted(last, trust, variance * graph.usual, quick=True)
    stiffness = graph.usual
    if graph.measured:
        stiffness = measured_stiffness(graph, last, trust)
    return graph.fitted(last, trust, stiffness, quick=False)


class Determined(NamedTuple):
    """How many links the unknowns use up, and how many distortions links determine."""

    links: float
    distortions: float


def _determined(graph: PoseGraph[AnyState], state: AnyState) -> Determined:
    free = ~graph.problem.fixed
    if not free.any():
        return Determined(0.0, 0.0)
    roots = graph.spring_roots(state)[free]
    left = undetermined(state.solve, roots)
    count, _, size = roots.shape
    unknowns = max(count * size - float(left.sum()), 0.0) * graph.axes_alike
    stiff = max(count * len(graph.stiff) - float(left[graph.stiff].sum()), 0.0)
    return Determined(unknowns / graph.middle.shape[1], stiff * graph.axes_alike)


def measured_stiffness(
    graph: PoseGraph[AnyState], state: AnyState, trust: Floats
) -> float:
    """Return the stiffness that fits the distortions found with another one.

    Their variance is counted by how many of them links determine (MacKay 1992,
    :doi:`10.1162/neco.1992.4.3.415`).
    """
    known = _determined(graph, state)
    energy = np.sum(graph.distortions(state) ** 2) + 1 / USUAL_STIFFNESS
    variance = min(float(energy / (known.distortions + 1)), 1 / LEAST_STIFFNESS)
    squares = graph.squares(state)
    return unit_variance(graph.problem, squares, trust, known.links) / variance


def matrices_about(middle: Floats, linear: Floats, place: Floats) -> Floats:
    """Return matrices with linear parts that bring a point of each tile to its place."""
    count, ndim = middle.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:, -1, -1] = 1
    matrices[:, :-1, :-1] = linear
    matrices[:, :-1, -1] = place - (linear @ middle[:, :, np.newaxis])[:, :, 0]
    return matrices

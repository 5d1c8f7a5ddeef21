"""How far placed tiles can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.arrays import AT_ONCE, Flags, Floats, Ints
from .._shared.link_arguments import Links, Positions, as_pairs, number_links
from .._shared.selected_inverse import (
    factor_pattern,
    selected_entries,
    selected_inverse,
    spread_values,
)
from .._shared.sparse import (
    SymmetricFactor,
    connected_groups,
    laplacian_diagonal,
    sum_rows,
    symmetric_factor,
)
from .solve_tiles import Placement
from .solvers.normal_equations import group_means, split_by_axes
from .solvers.translations import steps_of_offsets

__all__ = ["follow_offsets", "offset_covariance", "position_covariance"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What says where the tiles of a network are.

    Attributes
    ----------
    links : ndarray of int, shape (m, 2)
        Tiles that each link joins.
    weights : ndarray of shape (m, size, size)
        Inverse covariance of each link, along all axes or some of them.
    prior : ndarray of shape (size,)
        Inverse variance of the place given for each tile; 0 along an axis where
        none counts.
    fixed : ndarray of bool, shape (n,)
        Tiles that are where they are.
    group : ndarray of int, shape (n,)
        Connected groups. Along axes without prior, groups without fixed tiles
        are afloat: only differences from their mean are known.
    """

    links: Ints
    weights: Floats
    prior: Floats
    fixed: Flags
    group: Ints


def position_blocks(evidence: Evidence) -> Floats:
    """Return the covariance of the position of each tile.

    Along axes along which its group is afloat it is about the mean of the group.
    """
    return _by_axes(evidence, _positions)


def offset_blocks(evidence: Evidence, pairs: Ints) -> Floats:
    """Return the covariance of the second tile of each pair less the first.

    Along axes along which two groups are afloat it means nothing.
    """
    return _by_axes(evidence, lambda system: _offsets(system, pairs))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """Equations of some axes, factored, and their selected inverse.

    Strategy: one tile of each group without fixed tiles is held by a spring as
    stiff as its links, so that the matrix is far from singular, even if priors
    are weak. What the spring changes is put right exactly: where positions are
    about a mean, by projection; where priors hold them, by the formula of
    Woodbury, in a form from which the stiffness has been cancelled.

    Attributes
    ----------
    evidence : Evidence
        The network, with the weights of these axes.
    held : ndarray of int, shape (n_held,)
        Tiles with springs.
    spring : ndarray of shape (n_held, size)
        Stiffness of the springs.
    slot : ndarray of int, shape (n,)
        Number of the spring that holds the group of each tile, n_held if none.
    number : ndarray of int, shape (n,)
        Number of each free tile in the system, -1 if it is fixed.
    factor : SymmetricFactor
        Factor of the matrix, springs included.
    pattern : tuple of ndarray
        Where the inverse is known: starts of columns, and rows.
    inverse : tuple of ndarray
        Its diagonal, and the entries below.
    """

    evidence: Evidence
    held: Ints
    spring: Floats
    slot: Ints
    number: Ints
    factor: SymmetricFactor
    pattern: tuple[NDArray[np.int64], NDArray[np.int32]]
    inverse: tuple[Floats, Floats]


def _by_axes(evidence: Evidence, answer: Callable[[System], Floats]) -> Floats:
    """Ask systems as few and as small as possible, and put answers together."""
    ndim = len(evidence.prior)
    parts = split_by_axes(evidence.weights, np.diag(evidence.prior))
    found = []
    for part in parts:
        prior = np.diagonal(part.prior)
        own = replace(evidence, weights=part.weights, prior=prior)
        found.append(answer(_factored(own)) * part.inverse_form)
    covariance = np.zeros((len(found[0]), ndim, ndim))
    for part, blocks in zip(parts, found, strict=True):
        covariance[:, part.axes, part.axes] = blocks
    return covariance


def _factored(evidence: Evidence) -> System:
    links, weights, free = evidence.links, evidence.weights, ~evidence.fixed
    size = weights.shape[1]
    number = np.where(free, np.cumsum(free) - 1, -1)
    own = laplacian_diagonal(links, weights, len(free)) + np.diag(evidence.prior)
    first = np.unique(evidence.group, return_index=True)[1]
    held = first[np.bincount(evidence.group, evidence.fixed) == 0]
    spring = np.diagonal(own[held], axis1=1, axis2=2).copy()
    # Nothing pulls at a tile without links and prior: any spring will do.
    spring[spring == 0] = 1
    slot = np.full(len(first), len(held))
    slot[evidence.group[held]] = np.arange(len(held))
    own[held] += spring[:, :, np.newaxis] * np.eye(size)
    inside = free[links].all(axis=1)
    factor = symmetric_factor(number[links[inside]], weights[inside], own[free])
    pattern = factor_pattern(factor.starts, factor.rows, factor.rank)
    lower = spread_values(
        *pattern, factor.lower_starts, factor.lower_rows, factor.lower
    )
    return System(
        evidence=evidence,
        held=held,
        spring=spring,
        slot=slot[evidence.group],
        number=number,
        factor=factor,
        pattern=pattern,
        inverse=selected_inverse(*pattern, lower, factor.pivots),
    )


def _sum_by_spring(system: System, values: Floats) -> Floats:
    """Add values of tiles for each spring, and for all without in the end."""
    return sum_rows(system.slot, values, len(system.held) + 1)


def _displacements(system: System, forces: Floats) -> Floats:
    """Return how tiles move, shape (n, size, k), under forces of that shape."""
    moved = np.zeros_like(forces)
    pushed = forces[~system.evidence.fixed]
    if pushed.size:
        right = pushed.reshape(-1, forces.shape[2])
        moved[~system.evidence.fixed] = system.factor.solve(right).reshape(pushed.shape)
    return moved


def _inverse_blocks(system: System, first: Ints, second: Ints) -> Floats:
    """Return blocks of the inverse, NaN where they are not known."""
    size = system.evidence.weights.shape[1]
    rank, number = system.factor.rank, system.number
    blocks = np.zeros((len(first), size, size))
    free = (number[first] >= 0) & (number[second] >= 0)
    for axis0, axis1 in np.ndindex(size, size):
        wanted = (
            rank[number[first[free]] * size + axis0].astype(np.int64),
            rank[number[second[free]] * size + axis1].astype(np.int64),
        )
        blocks[free, axis0, axis1] = selected_entries(
            *system.pattern, system.inverse, wanted
        )
    return blocks


def _spring_response(system: System) -> tuple[Floats, Floats]:
    """Return how springs move tiles, and how far priors alone let each give.

    Springs hold axes that priors hold already. With the stiffness K and the
    moves U of one spring, the inverse without it is that with it plus
    ``U (1 / K - U_held)^-1 U^T``. Forces balance, ``prior sum(U) + K U_held = 1``,
    so that the difference, which may be tiny, need not be taken.
    """
    prior = system.evidence.prior
    axes = np.flatnonzero(prior)
    forces = np.zeros((len(system.slot), len(prior), len(axes)))
    forces[system.held[:, np.newaxis], axes, np.arange(len(axes))] = 1
    moved = _displacements(system, forces)
    total = _sum_by_spring(system, moved[:, axes])[:-1]
    slack = np.zeros((len(system.held) + 1, len(axes), len(axes)))
    slack[:-1] = np.linalg.inv(total) * (system.spring[:, axes] / prior[axes])[:, None]
    return moved, slack


def _positions(system: System) -> Floats:
    tiles = np.arange(len(system.slot))
    covariance = _inverse_blocks(system, tiles, tiles)
    moved, slack = _spring_response(system)
    afloat = system.evidence.prior == 0
    if afloat.any():
        size = _sum_by_spring(system, np.ones(len(tiles)))[:, None, None]
        size[-1] = 1
        sprung = (system.slot < len(system.held)).astype(np.float64)
        mean = _displacements(system, sprung[:, None, None] * np.diag(afloat))
        overall = _sum_by_spring(system, mean) / size**2 * afloat[:, np.newaxis]
        mean /= size[system.slot]
        covariance += overall[system.slot] - mean - mean.transpose(0, 2, 1)
        swayed = (_sum_by_spring(system, moved) / size)[system.slot]
        moved -= swayed * afloat[:, np.newaxis]
    return covariance + _quadratic_form(moved, slack[system.slot])


def _offsets(system: System, pairs: Ints) -> Floats:
    first, second = pairs.T
    between = _cross_covariance(system, first, second)
    moved, slack = _spring_response(system)
    slot = system.slot
    together = (slot[first] == slot[second])[:, None, None]
    return (
        _inverse_blocks(system, first, first)
        + _inverse_blocks(system, second, second)
        - between
        - between.transpose(0, 2, 1)
        + _quadratic_form(moved[second] - together * moved[first], slack[slot[second]])
        + _quadratic_form(~together * moved[first], slack[slot[first]])
    )


def _quadratic_form(moved: Floats, slack: Floats) -> Floats:
    return moved @ slack @ moved.transpose(0, 2, 1)


def _cross_covariance(system: System, first: Ints, second: Ints) -> Floats:
    """Return blocks of the inverse, if need be by solving for whole columns."""
    group = system.evidence.group
    blocks = _inverse_blocks(system, first, second)
    missing = np.isnan(blocks).any(axis=(1, 2))
    apart = group[first] != group[second]
    blocks[apart] = 0
    rows = np.flatnonzero(missing & ~apart)
    # Any column serves all pairs of its tile: ask for those of the fewer tiles.
    turned = len(np.unique(second[rows])) < len(np.unique(first[rows]))
    at, of = (first, second) if turned else (second, first)
    tiles, which = np.unique(of[rows], return_inverse=True)
    count, size = len(system.slot), blocks.shape[1]
    step = max(1, AT_ONCE // (count * size * size))
    for start in range(0, len(tiles), step):
        some = tiles[start : start + step]
        forces = np.zeros((count, size, len(some), size))
        forces[some, :, np.arange(len(some))] = np.eye(size)
        moved = _displacements(system, forces.reshape(count, size, -1))
        mine = (which >= start) & (which < start + step)
        chosen = moved.reshape(forces.shape)[at[rows[mine]], :, which[mine] - start]
        blocks[rows[mine]] = chosen if turned else chosen.transpose(0, 2, 1)
    return blocks


@checked
def position_covariance(placement: Placement) -> Floats:
    """Return the covariance of the position of each tile.

    It is that of weighted least squares with the links that the placement
    believes: standard errors are ``np.sqrt(np.diagonal(c, axis1=1, axis2=2))``.

    Parameters
    ----------
    placement : Placement
        Tiles placed by translation.

    Returns
    -------
    ndarray of shape (n, ndim, ndim)
        Covariance of each position in px^2. It is about the mean of all tiles
        that believed links join to this one; absolute if the placement took
        `positions` for measurements, or if one of these tiles is fixed. Fixed
        tiles have zero; a tile that nothing holds has infinite variances.

    See Also
    --------
    offset_covariance : The same for the offset of one tile from another.
    solve_rigid : Places the tiles.

    Notes
    -----
    The covariance is the inverse of the weighted Laplacian of the links. Only
    its entries at tiles and links are computed, from a sparse factor, by the
    equations of Takahashi [1]_ [2]_, at a few times the cost of the factor.

    Covariances of links are used as they were given. Without any, and without
    `position_sigma`, the variance of links is estimated from their residuals
    and the number of loops they close; if they close none, variances are
    infinite.

    What all links share, as a distortion that was found with the positions, is off for
    all of them alike: how far that moves tiles is added.

    References
    ----------
    .. [1] Takahashi, Fagan and Chin, Formation of a sparse bus impedance matrix
       and its application to short circuit study, Proc. 8th PICA Conference
       (1973) 63.
    .. [2] Erisman and Tinney, On computing certain elements of the inverse of a
       sparse matrix, Commun. ACM 18 (1975) 177,
       :doi:`10.1145/360680.360704`.

    Examples
    --------
    A chain of five tiles, each measured from the one before it to 0.1 px. Errors
    add up from the tile that is held:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> links = [(0, 1), (1, 2), (2, 3), (3, 4)]
    >>> found = [(0, 90)] * 4
    >>> placed = spt.solve_rigid(
    ...     links, found, np.zeros((4, 2)), covariance=0.01 * np.eye(2), fixed=0
    ... )
    >>> variance = spt.position_covariance(placed)[:, 1, 1]
    >>> np.sqrt(variance).round(3)
    array([0.   , 0.1  , 0.141, 0.173, 0.2  ])
    """
    evidence = _evidence(placement)
    alone = np.bincount(evidence.group)[evidence.group] == 1
    unknown = alone[:, np.newaxis] & _afloat(evidence)
    covariance = _in_pixels(position_blocks(evidence), placement, unknown)
    if placement.systematic is not None:
        moved = placement.systematic.copy()
        afloat = _afloat(evidence)[:, :, np.newaxis]
        moved -= np.where(afloat, group_means(evidence.group, moved)[evidence.group], 0)
        covariance += moved @ moved.transpose(0, 2, 1)
    return covariance


@checked
def offset_covariance(placement: Placement, links: Links) -> Floats:
    """Return the covariance of the offset of one tile from another.

    Neighbours are related far better than their positions are known.

    Parameters
    ----------
    placement : Placement
        Tiles placed by translation.
    links : array_like of int, shape (n_pairs, 2), or sequence of label pairs
        Pairs of tiles, named as in `placement`. They need not be linked, but
        those that are take no extra time; of the others, each different tile
        of the first or of the second column takes one solution of the system.

    Returns
    -------
    ndarray of shape (n_pairs, ndim, ndim)
        Covariance, in px^2, of the position of the second tile less that of
        the first. Variances are infinite if nothing relates the two.

    See Also
    --------
    position_covariance : The same for positions, and what is assumed.

    Examples
    --------
    In a grid of 10 x 10 tiles all links were measured to 0.1 px. Once placed,
    neighbours in the middle are related better than that, and opposite corners,
    18 links apart, not much worse:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> found = np.zeros((180, 2))
    >>> placed = spt.solve_rigid(
    ...     spt.grid_links((10, 10)), found, found, covariance=0.01 * np.eye(2)
    ... )
    >>> covariance = spt.offset_covariance(placed, [(44, 45), (0, 99)])
    >>> np.sqrt(covariance[:, 0, 0]).round(3)
    array([0.071, 0.174])
    """
    given = as_pairs(links)
    rows = given.tolist() if isinstance(given, np.ndarray) else given
    # A tile is where it is: its offset from itself is known exactly.
    other = np.array([pair[0] != pair[1] for pair in rows], np.bool_)
    labels: Positions = dict.fromkeys(placement.labels, 0)
    asked: Links = [pair for pair, two in zip(rows, other, strict=True) if two]
    if isinstance(given, np.ndarray):
        asked = given[other]
        if isinstance(placement.labels, range):
            labels = np.zeros(len(placement.labels))
    pairs = number_links(asked, labels)[0]
    evidence = _evidence(placement)
    first, second = pairs.T
    afloat = _afloat(evidence)
    apart = evidence.group[first] != evidence.group[second]
    unknown = apart[:, np.newaxis] & (afloat[first] | afloat[second])
    ndim = placement.residuals.shape[1]
    covariance = np.zeros((len(rows), ndim, ndim))
    covariance[other] = _in_pixels(offset_blocks(evidence, pairs), placement, unknown)
    if placement.systematic is not None:
        moved = placement.systematic[second] - placement.systematic[first]
        covariance[other] += moved @ moved.transpose(0, 2, 1)
    return covariance


def follow_offsets(placement: Placement, offsets: Floats) -> Floats:
    """Return how far tiles move (n, ndim, k) with offsets (n_links, ndim, k) of links."""
    evidence = _evidence(placement)
    first = np.unique(evidence.group, return_index=True)[1]
    free = ~evidence.fixed
    free[first] &= ~_afloat(evidence)[first].all(axis=1)
    joined = np.unique(evidence.links, axis=0, return_inverse=True)
    pulled = offsets[placement.counted].transpose(0, 2, 1)
    systems = split_by_axes(evidence.weights, np.diag(evidence.prior))
    trust = np.ones(len(pulled))
    steps = steps_of_offsets(joined, systems, free, pulled, trust)
    return steps.transpose(0, 2, 1)


def _evidence(placement: Placement) -> Evidence:
    """Return what a placement of translations rests on."""
    linear = placement.matrices[:, :-1, :-1]
    turned = (linear != np.eye(linear.shape[1])).any(axis=(1, 2))
    if turned.any():
        row = int(turned.argmax())
        message = (
            "`placement` must hold translations only; got "
            f"{linear[row].tolist()} for tile {placement.labels[row]!r}."
        )
        raise ValueError(message)
    links = placement.links[placement.counted]
    covariance = placement.covariance[placement.counted]
    return Evidence(
        links=links,
        weights=np.linalg.inv(covariance).astype(np.float64, copy=False),
        prior=placement.position_sigma**-2.0,
        fixed=placement.fixed,
        group=connected_groups(links, len(linear)),
    )


def _afloat(evidence: Evidence) -> NDArray[np.bool_]:
    """Tell for each tile along which axes nothing holds its group."""
    loose = np.bincount(evidence.group, evidence.fixed) == 0
    return loose[evidence.group][:, np.newaxis] & (evidence.prior == 0)


def _in_pixels(
    covariance: Floats, placement: Placement, unknown: NDArray[np.bool_]
) -> Floats:
    """Give covariances their unit, and what is unknown infinite variances."""
    unit = placement.variance
    # Zero, as of fixed tiles, is zero in any unit, be it infinite.
    scaled = np.zeros_like(covariance)
    np.multiply(covariance, unit, out=scaled, where=covariance != 0)
    scaled[unknown] = 0
    scaled.transpose(0, 2, 1)[unknown] = 0
    np.einsum("naa->na", scaled)[unknown] = np.inf
    return scaled

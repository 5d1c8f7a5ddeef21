"""Solve for the distortion that all tiles share, together with their positions.

What optics or a scan bend, they bend alike in every tile: where two tiles overlap, the
middle of the one lies on the edge of the other, and the same point is moved by two
parts of one field. That field and the positions are found in one least squares; the
positions are eliminated first, as their equations are those of tiles that only move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike

from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import as_finite, as_shape
from .._shared.link_arguments import Links, Positions
from .._shared.results import result
from .._shared.statistics import FAINT, ROUNDING, ROUNDS, find_consensus, has_outliers
from .checked_links import CheckedLinks, checked_links, network_of, translations
from .solve_tiles import Placement, gathered
from .solvers.normal_equations import (
    consensus_test,
    distinct_pairs,
    unit_variance,
)
from .solvers.robust_links import solve_network
from .solvers.translations import (
    link_residuals,
    squares,
    steps_of_offsets,
    systems_of,
)

__all__ = [
    "MODELS",
    "NODES",
    "Distortion",
    "corrected_windows",
    "solve_distortion",
    "systematic_offsets",
]

MODELS = ("polynomial", "radial", "rows", "columns")
# Degrees that are tried: the first is no distortion. Beyond the last polynomials swing
# between windows (test_no_distortion_is_found_where_there_is_none).
DEGREES = (1, 2, 3, 4, 5)
# Coefficients are first expected to be such a share of a side, as optics have them, and
# then as large as they are found (test_what_no_overlap_sees_stays_small).
USUAL = 0.001
# Points along an axis whose mean is that over -1 to 1, for any polynomial of fifth degree
# (Chebyshev's quadrature: their second and fourth moments are 1/3 and 1/5).
NODES = np.sqrt(1 / 3 + np.array([1, -1, -1, 1]) * np.sqrt(4 / 45)) * [-1, -1, 1, 1]
# Windows are held out in so many parts, one after the other.
FOLDS = 5


@result
class Distortion:
    """What bends every tile alike, and where the tiles are without it.

    Attributes
    ----------
    placement : Placement
        Positions of tiles that are corrected; residuals and outcomes of the links.
    displacement : ndarray of shape (rows, cols, 2)
        The field on the pixels of a corrected tile:
        ``corrected_point = recorded_point + displacement[corrected_point]``, as
        `warp_image` takes it.
    degree : int
        Largest degree of the terms; 1 if there is no distortion.
    terms : ndarray of int, shape (n_terms, 2)
        Degrees of each term along the rows and the columns: a product of two
        polynomials of Legendre, which run from -1 to 1 from edge to edge of a tile.
    coefficients : ndarray of shape (n_terms, 2)
        How far each term moves a recorded point, in pixels.
    covariance : ndarray of shape (n_terms, 2, n_terms, 2)
        Their covariance, in px^2.
    heldout_error : ndarray of shape (n_tried, 2)
        Each degree that was tried, and by how many pixels, root mean square, it misses
        windows that it was not fitted to; empty if the degree was given.
    """

    placement: Placement
    displacement: Floats
    degree: int
    terms: Ints
    coefficients: Floats
    covariance: Floats
    heldout_error: Floats


@checked
def solve_distortion(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    shape: Sequence[int],
    size: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    degree: int | None = None,
    model: Literal["polynomial", "radial", "rows", "columns"] = "polynomial",
    positions: Positions | None = None,
    position_sigma: ArrayLike | None = None,
    fixed: Any = None,
    robust: bool = True,
) -> Distortion:
    """Place tiles and find the distortion that all of them share.

    A lens or a scan bends all tiles alike. Where they overlap, one point is seen in
    two places of the field of view, and moved by different amounts: several matches
    along each overlap tell the distortion from the positions.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2), or sequence of label pairs
        The reference and the moving tile of each pair of points, as `solve_rigid`
        takes them. Each overlap needs several rows, from windows along it.
    reference_points, moving_points : array_like of shape (n_links, 2)
        Points in pixels of the one and the other tile, as recorded, that belong
        together.
    shape : tuple of int
        Rows and columns of the tiles, which are all alike.
    size : array_like of shape (n_links, 2) or (2,), optional
        Sides of the windows whose middles the points are, as `match_tiles` tells them: a
        window shows the mean of the field over its pixels. By default points are points.
    covariance : array_like of shape (n_links, 2, 2) or (2, 2), optional
        Covariance of reference less moving point, in px^2. A link with an infinite
        entry has no say. By default all count alike, and the residuals say how much.
    degree : int, optional
        Largest degree of the polynomial, at least 2; lenses mostly need 3. By default
        it is chosen by windows that are held out, from none at all to 5: the smallest
        that misses them by no more than the best does, within two standard errors.
    model : {"polynomial", "radial", "rows", "columns"}, optional
        Any smooth distortion; that of a lens about the middle of the tile (odd degrees
        of the radius); or that of a scan, whose shifts depend on the row alone, or on
        the column alone.
    positions, position_sigma, fixed, robust : optional
        As in `solve_rigid`.

    Returns
    -------
    Distortion
        The field, its coefficients with their covariance, and the placement of the
        corrected tiles.

    Raises
    ------
    ValueError
        If there are fewer windows than unknowns.

    See Also
    --------
    refine_pair : Matches windows along an overlap.
    warp_image : Corrects a tile by the field.

    Notes
    -----
    Recorded points p become p + P(p), with P a sum of products of Legendre polynomials
    of total degree 2 and more. Constant and linear terms cannot be told from the
    positions, and are left out: tiles change as little as possible. So do they along
    terms that no overlap sees: coefficients are expected to be as large as those that
    links tell, and what they say nothing about stays zero. All tiles are placed, and the
    coefficients found, by one weighted least squares [1]_; windows that contradict the
    others are dropped as in `solve_rigid`.

    What the field leaves open moves tiles together: `position_covariance` and
    `offset_covariance` count it.

    References
    ----------
    .. [1] Kaynig, Fischer, Müller and Buhmann, Fully automatic stitching and distortion
       correction of transmission electron microscope images, J. Struct. Biol. 171
       (2010) 163, :doi:`10.1016/j.jsb.2010.04.012`.

    Examples
    --------
    Four tiles of 200 x 200 pixels, bent by a lens, and 30 points in each overlap:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rng = np.random.default_rng(0)
    >>> def record(points):
    ...     away = (points - 99.5) / 100
    ...     return points - 0.5 * away * np.sum(away**2, axis=-1, keepdims=True)
    >>> corners, pairs = spt.grid_positions((2, 2), (160, 160)), spt.grid_links((2, 2))
    >>> links = np.repeat(pairs, 30, axis=0)
    >>> low = corners[links].max(axis=1)
    >>> scene = low + rng.random((120, 2)) * (corners[links].min(axis=1) + 199 - low)
    >>> found = spt.solve_distortion(
    ...     links,
    ...     *(record(scene - corners[tile]) for tile in links.T),
    ...     shape=(200, 200),
    ...     degree=3,
    ...     model="radial",
    ... )
    >>> float(np.abs(found.placement.residuals).max().round(2))
    0.01
    """
    given = checked_links(
        links, reference_points, moving_points, covariance,
        positions, position_sigma, fixed,
    )  # fmt: skip
    sides = as_shape(shape, "shape", ndim=2)
    if given.reference.shape[1] != 2:
        ndim = given.reference.shape[1]
        message = (
            f"`reference_points` must have shape (n_links, 2); got {ndim} columns."
        )
        raise ValueError(message)
    if model not in MODELS:
        message = f"`model` must be one of {', '.join(MODELS)}; got {model!r}."
        raise ValueError(message)
    most = math.isqrt(2 * len(given.links))
    if degree is not None and not 2 <= degree <= max(most, 2):
        message = (
            f"`degree` must be from 2 to {max(most, 2)}, for {len(given.links)} links; "
            f"got {degree}."
        )
        raise ValueError(message)
    for points in (given.reference, given.moving):
        outside = ((points < -0.5) | (points > np.array(sides) - 0.5)).any(axis=1)
        if outside.any():
            message = (
                f"`shape` must be that of tiles with all points on them; got {sides} "
                f"and the point {points[outside][0].tolist()}."
            )
            raise ValueError(message)
    windows = _Windows(given, sides, _as_sizes(size, len(given.links), sides))
    # Lenses have odd degrees alone.
    tried = DEGREES[:: 2 if model == "radial" else 1] if degree is None else (degree,)
    bases = [_basis(model, each, sides) for each in tried]
    if degree is None:
        # What is held out leaves the others fewer windows than there are.
        enough = (1 - 1 / FOLDS) * len(windows.network.links)
        bases = [one for one in bases if windows.unknown(one) < enough] or bases[:1]
    fits = [_fit(windows, basis, robust=robust) for basis in bases]
    chosen, missed = (0, np.zeros((0, 2))) if degree else _held_out(fits)
    return _distortion(windows, _settled(fits[chosen]), missed)


def _as_sizes(size: ArrayLike | None, count: int, shape: tuple[int, ...]) -> Floats:
    """Return the sides of the window of each link; zeros if points are points."""
    sizes = np.zeros(2) if size is None else as_finite(size, "size")
    if sizes.shape not in {(2,), (count, 2)} or (sizes < 0).any():
        message = (
            f"`size` must have shape ({count}, 2) or (2,), and not be negative; "
            f"got shape {sizes.shape}."
        )
        raise ValueError(message)
    if (sizes > shape).any():
        message = (
            f"`size` must be no larger than `shape`, {shape}; "
            f"got {sizes.reshape(-1, 2).max(axis=0).tolist()}."
        )
        raise ValueError(message)
    return np.broadcast_to(sizes, (count, 2))


class _Basis(NamedTuple):
    """Fields that a distortion is a sum of.

    Attributes
    ----------
    degree : int
        The largest that a term may have.
    terms : ndarray of int, shape (n_terms, 2)
        Products of Legendre polynomials, by their degrees.
    ways : ndarray of shape (n_terms, 2, n_parameters)
        Coefficients of these along both axes, for each field.
    """

    degree: int
    terms: Ints
    ways: Floats


def _basis(model: str, degree: int, sides: tuple[int, ...]) -> _Basis:
    highest = [degree if model != other else 0 for other in ("columns", "rows")]
    found = np.argwhere(np.ones(np.add(highest, 1)))
    found = found[(found.sum(axis=1) >= 2) & (found.sum(axis=1) <= degree)]
    count = 2 * len(found)
    if model != "radial":
        return _Basis(degree, found, np.eye(count).reshape(len(found), 2, count))
    # A field along the radius is a sum of the same products, by Gauss's quadrature.
    nodes, values = _legendre_projection(degree + 2)
    away = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    away *= np.array(sides) / max(sides)
    square = np.sum(away**2, axis=-1, keepdims=True)
    powers = np.arange(1, (degree + 1) // 2)
    fields = away * square ** powers.reshape(-1, 1, 1, 1)
    one, other = values[:, found[:, 0]], values[:, found[:, 1]]
    ways = np.einsum("ik,jk,mija->kam", one, other, fields)
    return _Basis(degree, found, ways)


def _legendre_projection(count: int) -> tuple[Floats, Floats]:
    """Return Gauss's nodes, and what turns values there into coefficients of Legendre."""
    nodes, weights = legendre.leggauss(count)
    values = legendre.legvander(nodes, count - 1) * weights[:, np.newaxis]
    return nodes, values * (np.arange(count) + 0.5)


def _products(
    points: Floats, size: Floats, terms: Ints, sides: tuple[int, ...]
) -> Floats:
    """Return the mean of each term over windows (n, n_terms)."""
    values = np.ones((len(points), len(terms)))
    for axis in range(2):
        nodes = points[:, axis, np.newaxis] + size[:, axis, np.newaxis] / 2 * NODES
        place = (2 * nodes + 1) / sides[axis] - 1
        degrees = terms[:, axis]
        mean = legendre.legvander(place, degrees.max(initial=0)).mean(axis=1)
        values *= mean[:, degrees]
    return values


class _State(NamedTuple):
    """One fit; the variance of links in their units, and that of coefficients in sides.

    Positions follow parameters by `slopes` (n, n_parameters, 2).
    """

    positions: Floats
    slopes: Floats
    parameters: Floats
    residuals: Floats
    squares: Floats
    variance: float
    covariance: Floats
    expected: float


class _Fit(NamedTuple):
    """A fit with one basis: which links it believes, and how to fit others."""

    basis: _Basis
    state: _State
    believed: Flags
    again: Callable[..., _State]


class _Windows:
    """Links, and the equations of the positions that are solved for again and again."""

    def __init__(
        self, given: CheckedLinks, sides: tuple[int, ...], size: Floats
    ) -> None:
        self.given, self.sides, self.size = given, sides, size
        self.points = given.reference[given.usable], given.moving[given.usable]
        offsets = self.points[0] - self.points[1]
        self.network = network_of(given, offsets, offsets[:, np.newaxis], None)
        self._systems = systems_of(self.network)
        # Windows of one pair of tiles pull at the same two.
        self._pairs = np.unique(self.network.links, axis=0, return_inverse=True)
        # What is agreed on without a field, for all degrees, once it is asked for.
        self.straight: Flags | None = None

    def agreed(self, bent: Floats) -> Flags:
        """Return the links of pairs that tiles agree on that only move.

        What is `bent` (n_links, 2) is taken out of their offsets first.
        """
        network, pairs = self.network, distinct_pairs(self.network.links)
        offsets = network.offsets - bent
        straight = replace(network, offsets=offsets, options=offsets[:, np.newaxis])
        found = solve_network(straight, robust=True).believed
        joined: Flags = np.bincount(pairs.number, found) > 0
        return joined[pairs.number]

    def columns(self, basis: _Basis) -> Floats:
        """Return what each field adds to offsets (n_links, n_parameters, 2)."""
        size = self.size[self.given.usable]
        first, second = (
            _products(points, size, basis.terms, self.sides) for points in self.points
        )
        return np.einsum("nk,kam->nma", second - first, basis.ways)

    def unknown(self, basis: _Basis) -> float:
        """Return how many links the unknowns use up."""
        network = self.network
        free = np.count_nonzero(~network.fixed & ~network.held)
        return float(free) + basis.ways.shape[-1] / 2

    def solved(
        self,
        basis: _Basis,
        columns: Floats,
        trust: Floats,
        variance: float,
        expected: float,
    ) -> _State:
        """Solve for positions and parameters, with a prior of the latter.

        Strategy: what positions leave of each column is found first; the normal
        equations of the parameters are those of what is left.
        """
        network = self.network
        spring = np.einsum(
            "kam,kal,a->ml", basis.ways, basis.ways,
            1 / np.square(self.sides, dtype=float),
        )  # fmt: skip
        apart = link_residuals(network, network.places)
        given = np.concatenate([apart[:, np.newaxis], columns], axis=1)
        free = ~(network.fixed | network.held)
        steps = steps_of_offsets(self._pairs, self._systems, free, given, trust)
        reference, moving = network.links.T
        given -= steps[moving]
        given += steps[reference]
        residuals, left = given[:, 0], given[:, 1:]
        pulled = np.einsum("nab,nmb->nma", network.weights, columns)
        pulled *= trust[:, np.newaxis, np.newaxis]
        normal = np.einsum("nka,nma->km", left, pulled, optimize=True)
        stiff = variance / expected * spring
        inverse = np.linalg.inv((normal + normal.T) / 2 + stiff)
        parameters = inverse @ np.einsum("nma,na->m", pulled, residuals)
        residuals = residuals - np.einsum("nma,m->na", left, parameters)
        slopes = -steps[:, 1:]
        positions = network.places + steps[:, 0]
        positions += np.einsum("nma,m->na", slopes, parameters)
        found = squares(network, residuals)
        variance = unit_variance(network, found, trust, self.unknown(basis))
        covariance = variance * inverse
        # The mean square of those that links tell, as far as they do (MacKay 1992,
        # :doi:`10.1162/neco.1992.4.3.415`).
        unit = np.diagonal(spring)
        told = np.clip(1 - unit * np.diagonal(covariance) / expected, 0, 1)
        if told.sum() > ROUNDING:
            expected = float((told * unit * parameters**2).sum() / told.sum())
        return _State(
            positions, slopes, parameters, residuals, found, variance, covariance,
            max(expected, ROUNDING**2),
        )  # fmt: skip


def _fit(windows: _Windows, basis: _Basis, *, robust: bool) -> _Fit:
    network, columns = windows.network, windows.columns(basis)
    unknown = windows.unknown(basis)
    if len(network.links) <= unknown:
        message = (
            f"`links` must be more than the {math.ceil(unknown)} that the unknowns of "
            f"the tiles and the field use up; got {len(network.links)}."
        )
        raise ValueError(message)

    def again(
        trust: Floats,
        variance: float | None,
        last: _State,
        expected: float = USUAL**2,
    ) -> _State:
        known = variance or last.variance
        return windows.solved(basis, columns, trust, known, expected)

    believed = np.ones(len(network.links), np.bool_)
    least = network.least_unit or 1.0
    state = windows.solved(basis, columns, believed.astype(float), least, USUAL**2)
    state = again(believed.astype(float), None, state)
    if robust and has_outliers(2, state.squares, network.least_unit):
        test = consensus_test(network, unknown)
        agree = partial(find_consensus, again, lambda state: state.squares)
        # To tiles that only move, what is bent are errors: first all of it, then what is
        # left of it. Whole pairs may be false.
        if windows.straight is None:
            windows.straight = windows.agreed(np.zeros_like(network.offsets))
        state, believed = agree(state, test, windows.straight)
        if not believed.all():
            bent = np.einsum("nma,m->na", columns, state.parameters)
            state, believed = agree(state, test, windows.agreed(bent))
    return _Fit(basis, state, believed, again)


def _settled(fit: _Fit) -> _Fit:
    """Return a fit whose coefficients are expected to be as large as they are found.

    Not before: what false windows ask for would be expected too, and windows that are
    held out would have told what is expected of them.
    """
    trust, state = np.where(fit.believed, 1.0, FAINT), fit.state
    for _ in range(ROUNDS):
        last, state = state, fit.again(trust, None, state, state.expected)
        if abs(state.expected - last.expected) <= 0.1 * last.expected:
            break
    return fit._replace(state=state)


def _held_out(fits: list[_Fit]) -> tuple[int, Floats]:
    """Return which fit windows choose that are held out, and what each misses."""
    believed = fits[-1].believed
    if not believed.any():
        return 0, np.zeros((0, 2))
    part = np.arange(len(believed)) % FOLDS
    missed = np.zeros((len(fits), len(believed)))
    lengths = np.zeros_like(missed)
    for row, fit in enumerate(fits):
        for out in range(FOLDS):
            trust = np.where(believed & (part != out), 1.0, FAINT)
            state = fit.again(trust, None, fit.state)
            held = part == out
            missed[row, held] = state.squares[held]
            lengths[row, held] = np.square(state.residuals[held]).sum(axis=1)
    missed, lengths = missed[:, believed], lengths[:, believed]
    worse = missed - missed[missed.mean(axis=1).argmin()]
    spread = worse.std(axis=1) / math.sqrt(worse.shape[1])
    chosen = int(np.argmax(worse.mean(axis=1) <= 2 * spread))
    error = np.sqrt(lengths.mean(axis=1))
    return chosen, np.column_stack([[fit.basis.degree for fit in fits], error])


def _distortion(windows: _Windows, fit: _Fit, missed: Floats) -> Distortion:
    given, state, (_, terms, ways) = windows.given, fit.state, fit.basis
    coefficients = ways @ state.parameters
    first, second = (
        _products(points, windows.size, terms, windows.sides)
        for points in (given.reference, given.moving)
    )
    residuals = given.reference - given.moving - (second - first) @ coefficients
    reference, moving = state.positions[given.links.T]
    residuals += reference - moving
    chosen = np.zeros(len(residuals), np.intp)
    matrices = translations(state.positions)
    placed = gathered(given, matrices, residuals, fit.believed, chosen, 2)
    moved = np.einsum(
        "nma,mk->nak", state.slopes, np.linalg.cholesky(state.covariance), optimize=True
    )
    return Distortion(
        # The field uses up links too, which the residuals alone do not tell.
        placement=replace(
            placed,
            variance=placed.variance if windows.network.least_unit else state.variance,
            systematic=moved,
        ),
        displacement=_field(terms, coefficients, windows.sides),
        degree=fit.basis.degree,
        terms=terms,
        coefficients=coefficients,
        covariance=np.einsum("kam,ml,jbl->kajb", ways, state.covariance, ways),
        heldout_error=missed,
    )


def corrected_windows(found: Distortion, points: Floats, size: Floats) -> Floats:
    """Return where windows (n, 2) belong: recorded points move by the terms."""
    sides = found.displacement.shape[:2]
    return points + _products(points, size, found.terms, sides) @ found.coefficients


def systematic_offsets(
    found: Distortion, points: tuple[Floats, Floats], size: Floats
) -> Floats:
    """Return how far offsets of windows (n, 2, k) are off with what bends all tiles.

    Each of k independent errors of the field is one standard deviation large.
    """
    terms, count = len(found.terms), found.coefficients.size
    values, vectors = np.linalg.eigh(found.covariance.reshape(count, count))
    told = values > ROUNDING * values.max(initial=0)
    root = (vectors[:, told] * np.sqrt(values[told])).reshape(terms, 2, told.sum())
    first, second = (
        _products(each, size, found.terms, found.displacement.shape[:2])
        for each in points
    )
    return np.tensordot(first - second, root, 1)


def _field(terms: Ints, coefficients: Floats, sides: tuple[int, ...]) -> Floats:
    """Return the field on the pixels of a corrected tile.

    Terms move recorded points, which are looked for at Gauss's nodes: where what is moved
    comes to lie on them. It is as smooth as they are, and a polynomial of some degrees
    more.
    """
    table = np.zeros((*(terms.max(axis=0, initial=0) + 1), 2))
    table[terms[:, 0], terms[:, 1]] = coefficients
    nodes, ways = _legendre_projection(4 * max(table.shape))
    corrected = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    field = np.zeros_like(corrected)
    for _ in range(ROUNDS):
        rows, cols = np.moveaxis(corrected - 2 * field / sides, -1, 0)
        last, field = field, np.stack(legendre.legval2d(rows, cols, table), axis=-1)
        if np.abs(field - last).max() < ROUNDING:
            break
    table = np.einsum("ik,jm,ija->kma", ways, ways, field, optimize=True)
    row, col = (
        legendre.legvander((2 * np.arange(side) + 1) / side - 1, len(nodes) - 1)
        for side in sides
    )
    return np.stack([row @ each @ col.T for each in np.moveaxis(table, -1, 0)], axis=-1)

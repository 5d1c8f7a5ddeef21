"""Place many tiles at once from the links between them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import as_finite, check_not_negative
from .._shared.link_arguments import (
    Links,
    Positions,
    residual_variance,
    tile_outcomes,
)
from .._shared.results import result
from .._shared.statistics import has_outliers
from .._transforms.matrices import points_apart
from .checked_links import CheckedLinks, checked_links, network_of, translations
from .solvers.affines import solve_affines
from .solvers.normal_equations import PointLinks
from .solvers.robust_links import solve_network
from .solvers.similarities import solve_similarities
from .solvers.translations import WEAKEST_PRIOR

__all__ = ["Placement", "gathered", "solve_affine", "solve_rigid"]


MODELS = ("affine", "similarity")


@result
class Placement:
    """Where each tile belongs, and which links say so.

    Attributes
    ----------
    matrices : ndarray of shape (n, ndim + 1, ndim + 1)
        Homogeneous matrix of each tile, from tile to mosaic.
    residuals : ndarray of shape (n_links, ndim)
        Reference point less moving point, both moved to the mosaic, in pixels:
        what each link still asks for, with the alternative that was chosen.
    inlier : ndarray of bool, shape (n_links,)
        Links that the solution believes.
    chosen : ndarray of int, shape (n_links,)
        Number of the alternative that was used; 0 is that of the points.
    group : ndarray of int, shape (n,)
        Number of the connected group of each tile. Positions of tiles of
        different groups are related only by what was given about positions.
    outcome : ndarray of Outcome, shape (n,)
        What became of each tile: matched, by prior only, contradicted or
        isolated.
    labels : sequence
        Label of each tile, in the order of the arrays.
    links : ndarray of int, shape (n_links, 2)
        Numbers of the two tiles of each link.
    covariance : ndarray of shape (n_links, ndim, ndim)
        Covariance of each link, in units of `variance`; the unit matrix if none
        was given.
    variance : float
        In px^2: 1 if covariances were given, else what the residuals tell,
        which is infinite if links close no loops.
    counted : ndarray of bool, shape (n_links,)
        Links that the positions rest on: those believed, and in `place_tiles`
        steps of the stage where links leave gaps.
    position_sigma : ndarray of shape (ndim,)
        Standard deviation of given positions, in pixels; infinite if they did
        not count.
    fixed : ndarray of bool, shape (n,)
        Tiles that stayed where they were told to.
    systematic : ndarray of shape (n, ndim, k) or None
        How far tiles move together when what all links share, as a distortion, is off
        by a standard deviation in each of k independent ways, in pixels.
    """

    matrices: Floats
    residuals: Floats
    inlier: NDArray[np.bool_]
    chosen: NDArray[np.intp]
    group: NDArray[np.intp]
    outcome: NDArray[np.object_]
    labels: Sequence[Hashable]
    links: NDArray[np.intp]
    covariance: Floats
    variance: float
    counted: NDArray[np.bool_]
    position_sigma: Floats
    fixed: NDArray[np.bool_]
    systematic: Floats | None = None


@checked
def solve_rigid(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
    alternatives: ArrayLike | None = None,
    positions: Positions | None = None,
    position_sigma: ArrayLike | None = None,
    fixed: Any = None,
    rotation: bool = False,
    false_alarm: ArrayLike | None = None,
    robust: bool = True,
) -> Placement:
    """Place tiles, by translation or with an angle each, so that linked points meet.

    The positions are those of weighted least squares: no other linear estimate
    from the same links has smaller errors.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2), or sequence of label pairs
        The reference and the moving tile of each link: numbers, or any
        hashable labels such as grid keys ``((0, 0), (0, 1))``. Two tiles may be
        linked more than once.
    reference_points, moving_points : array_like of shape (n_links, ndim)
        Points in pixels of the one and the other tile that belong together.
    covariance : array_like of shape (n_links, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in px^2. A link with an
        infinite entry is known to have failed: it has no say. By default all
        links count alike, and like 1 px beside `position_sigma`.
    alternatives : array_like of shape (n_links, peaks, ndim), optional
        Reference points that may be right for the same moving point, best first,
        as `match_tiles` returns them; the first is `reference_points`.
        Repetitions say nothing.
    positions : array_like of shape (n, ndim) or mapping, optional
        Expected position of each tile, in pixels. With labels it may map them to
        positions. Without `position_sigma` it serves only to place what links
        leave open: the mean of each group of tiles.
    position_sigma : float or array_like of shape (ndim,), optional
        Standard deviation of `positions` in pixels. With it they count as
        measurements, beside the links.
    fixed : label or sequence of labels, optional
        Tiles that stay at their `positions`, or at the origin without these.
    rotation : bool, optional
        Find an angle for each tile too, in 3-D a rotation, jointly with the positions.
        That takes several pairs of points a link, each a row of its own, and
        excludes `alternatives` and `false_alarm`.
    false_alarm : array_like of shape (n_links,), optional
        Probability, 0 to 1, that the points of a link agree by chance alone. A
        link with 1 is believed only if others agree with it.
    robust : bool, optional
        Find links that contradict the others and do not let them count, or give
        them another of their `alternatives`. Errors may be larger than the
        covariances say, as long as most are so alike. Where links agree no better
        than chance would let them, none is believed.

    Returns
    -------
    Placement
        Matrices and outcomes of the tiles, residuals of the links. Tiles are in
        the order of their numbers; else of the mapping `positions`; else their
        labels are sorted, or come as they first appear if they have no order.

    See Also
    --------
    grid_links : Links of a grid of tiles.
    overlapping_links : Links of tiles that lie anywhere.

    Notes
    -----
    Each group of connected tiles that holds no `fixed` tile has the mean of its
    `positions`, or mean zero without these.

    Robust placement looks for the most likely choice among the offsets of each
    link, or none of them. Short loops of links tell which close; belief
    propagation [1]_ passes that on from loop to loop; tiles whose links are sure
    then make rigid clusters, several links between two clusters have one voice,
    and clusters close new loops, until no link is left that is likely to be right.
    Positions with `position_sigma` count at each step: a link that no loop
    contradicts may still disagree with the stage. It ends with plain least
    squares of what is believed, and what then misses by more than the others
    allow is dropped [2]_. If nothing is wrong, the result is that of plain least
    squares. Without a prior, links that close no loop cannot be contradicted, nor
    can it be told which link of a single loop is wrong.

    Links may be false, or covariances too small: what decides is how much less loops
    miss than offsets scatter. A consensus that links at random would reach with a
    chance of more than one in a thousand is none, and its tiles are contradicted. Without
    covariances, links that miss each other about alike are all believed: residuals alone
    then say how large errors are.

    References
    ----------
    .. [1] Kschischang, Frey and Loeliger, Factor graphs and the sum-product
       algorithm, IEEE Trans. Inf. Theory 47 (2001) 498,
       :doi:`10.1109/18.910572`.
    .. [2] Rousseeuw and Leroy, Robust regression and outlier detection, Wiley
       (1987), :doi:`10.1002/0471725382`.

    Examples
    --------
    Nine tiles that are 90 px apart; the link from 4 to 5 is wrong by 50 px:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> truth = spt.grid_positions((3, 3), (100, 100))
    >>> links = spt.grid_links((3, 3))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> false = (links == (4, 5)).all(axis=1)
    >>> found[false] += (50, 0)
    >>> placed = spt.solve_rigid(links, found, 0 * found, fixed=0)
    >>> placed.matrices[[4, 5], :2, 2].round(3)
    array([[ 90.,  90.],
           [ 90., 180.]])
    >>> links[~placed.inlier]
    array([[4, 5]])

    If the match had a second peak, and that was right, nothing is lost:

    >>> options = np.stack([found, truth[links[:, 1]] - truth[links[:, 0]]], axis=1)
    >>> placed = spt.solve_rigid(links, found, 0 * found, alternatives=options)
    >>> links[placed.chosen == 1], bool(placed.inlier.all())
    (array([[4, 5]]), True)
    """
    given = checked_links(
        links, reference_points, moving_points, covariance,
        positions, position_sigma, fixed,
    )  # fmt: skip
    offsets = given.reference - given.moving
    ndim = offsets.shape[1]
    options = _options(alternatives, offsets, given.moving)
    doubt = _doubt(false_alarm, len(offsets))
    if positions is None:
        _check_origin(given, offsets)
    if rotation:
        _check_unused(alternatives=alternatives, false_alarm=false_alarm)
        matrices, believed = solve_similarities(_point_links(given), robust=robust)
        return _placement_of_points(given, matrices, believed, ndim * (ndim + 1) // 2)

    usable = given.usable
    network = network_of(
        given,
        offsets[usable],
        options[usable],
        None if doubt is None else doubt[usable],
    )
    solution = solve_network(network, robust=robust)
    chosen = np.zeros(len(offsets), np.intp)
    chosen[usable] = solution.chosen
    if chosen.any():
        offsets = options[np.arange(len(offsets)), chosen]
    residuals = offsets + np.take(solution.positions, given.links[:, 0], axis=0)
    residuals -= np.take(solution.positions, given.links[:, 1], axis=0)
    matrices = translations(solution.positions)
    return gathered(given, matrices, residuals, solution.believed, chosen, ndim)


def _point_links(given: CheckedLinks) -> PointLinks:
    tiles = dict(given.tiles)
    # What is lost in rounding beside the links is no prior, and leaves tiles afloat.
    level = np.trace(tiles["weights"], axis1=1, axis2=2).max(initial=0)
    floor = WEAKEST_PRIOR * level / len(tiles["prior"])
    tiles["prior"] = np.maximum(tiles["prior"], floor * (tiles["prior"] > 0))
    return PointLinks(
        reference=given.reference[given.usable],
        moving=given.moving[given.usable],
        **tiles,
    )


def _placement_of_points(
    given: CheckedLinks, matrices: Floats, believed: Flags, unknowns: int
) -> Placement:
    """Return the result of a solver that takes no alternatives."""
    residuals = points_apart(matrices, given.links, given.reference, given.moving)
    chosen = np.zeros(len(residuals), np.intp)
    return gathered(given, matrices, residuals, believed, chosen, unknowns)


def gathered(
    given: CheckedLinks,
    matrices: Floats,
    residuals: Floats,
    believed: Flags,
    chosen: Ints,
    unknowns: int,
) -> Placement:
    """Gather the result; `believed` tells of usable links, `unknowns` is per tile."""
    links, fixed = given.links, given.tiles["fixed"]
    usable, inlier = np.zeros((2, len(links)), np.bool_)
    usable[given.usable] = True
    inlier[given.usable] = believed
    variance = 1.0
    if not given.tiles["least_unit"]:
        variance = residual_variance(links[inlier], residuals[inlier], fixed, unknowns)
    with np.errstate(divide="ignore"):
        sigma = given.tiles["prior"] ** -0.5
    return Placement(
        matrices=matrices,
        residuals=residuals,
        inlier=inlier,
        chosen=chosen,
        group=given.tiles["group"],
        outcome=tile_outcomes(links, usable, inlier, fixed | given.expected),
        labels=given.labels,
        links=links,
        covariance=given.covariance,
        variance=variance,
        counted=inlier,
        position_sigma=sigma,
        fixed=fixed,
    )


def _options(alternatives: ArrayLike | None, offsets: Floats, moving: Floats) -> Floats:
    """Return the offsets that each link may have; the first is the measured one."""
    if alternatives is None:
        return offsets[:, np.newaxis]
    array = np.asarray(alternatives)
    count, ndim = offsets.shape
    if array.ndim != 3 or array.shape[::2] != (count, ndim) or array.shape[1] == 0:
        message = (
            f"`alternatives` must have shape ({count}, peaks, {ndim}); "
            f"got {array.shape}."
        )
        raise ValueError(message)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int((~np.isfinite(array).all(axis=(1, 2))).argmax())
        message = (
            f"`alternatives` must be finite; got {array[row].tolist()} for link {row}."
        )
        raise ValueError(message)
    options = as_finite(array, "alternatives") - moving[:, np.newaxis]
    options[:, 0] = offsets
    return options


def _doubt(false_alarm: ArrayLike | None, count: int) -> Floats | None:
    if false_alarm is None:
        return None
    array = np.asarray(false_alarm)
    if array.shape != (count,):
        message = f"`false_alarm` must have shape ({count},); got {array.shape}."
        raise ValueError(message)
    bad = ~((array >= 0) & (array <= 1))
    if bad.any():
        row = int(bad.argmax())
        message = (
            f"`false_alarm` must be between 0 and 1; got {array[row]} for link {row}."
        )
        raise ValueError(message)
    return as_finite(array, "false_alarm")


def _check_unused(**options: Any) -> None:
    """Raise if an option was given that says nothing about angles."""
    for name, value in options.items():
        if value is not None:
            message = (
                f"`{name}` must be None with `rotation`; got {type(value).__name__}."
            )
            raise ValueError(message)


def _check_origin(given: CheckedLinks, offsets: Floats) -> None:
    """Raise if a link says that two tiles cannot both be at the origin."""
    fixed = given.tiles["fixed"]
    if np.count_nonzero(fixed) < 2:
        return
    rows = np.flatnonzero(fixed[given.links].all(axis=1))
    weights = given.weights[rows]
    misfit = np.einsum("ea,eab,eb->e", offsets[rows], weights, offsets[rows])
    if has_outliers(offsets.shape[1], misfit, 1.0):
        row = int(rows[misfit.argmax()])
        tiles = " and ".join(repr(given.labels[tile]) for tile in given.links[row])
        message = (
            "`positions` must be given for `fixed` tiles that lie apart; got none, "
            f"and tiles {tiles} that are {offsets[row]} apart in link {row}."
        )
        raise ValueError(message)


@checked
def solve_affine(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    covariance: ArrayLike | None = None,
    positions: Positions | None = None,
    position_sigma: ArrayLike | None = None,
    stiffness: float | None = None,
    fixed: Any = None,
    model: Literal["affine", "similarity"] = "affine",
    robust: bool = True,
) -> Placement:
    """Place tiles by one affine matrix each so that linked points meet.

    Tiles may stretch and shear as far as their points ask for it. A tile with
    few points, or points on one line, stays as rigid as it must.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2), or sequence of label pairs
        The reference and the moving tile of each pair of points: numbers, or any
        hashable labels such as grid keys ``((0, 0), (0, 1))``. Several rows may
        join the same two tiles, as those of a grid of local matches do.
    reference_points, moving_points : array_like of shape (n_links, ndim)
        Points in pixels of the one and the other tile that belong together.
    covariance : array_like of shape (n_links, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in px^2, along the axes of the
        reference tile: those of the mosaic, but for small distortions. A link
        with an infinite entry is known to have failed: it has no say. By default
        all links count alike, and like 1 px beside `position_sigma` and
        `stiffness`.
    positions : array_like of shape (n, ndim) or mapping, optional
        Expected position of each tile, in pixels. With labels it may map them to
        positions. Without `position_sigma` it serves only to place what links
        leave open: the mean of each group of tiles.
    position_sigma : float or array_like of shape (ndim,), optional
        Standard deviation of `positions` in pixels. With it they count as
        measurements, beside the links, of how far the middle of all points
        moves. They then say how large and how upright the mosaic is.
    stiffness : float, optional
        Inverse variance of each entry of the linear parts less the identity:
        1e4 expects distortions of one percent. Larger is stiffer, and 0 leaves
        tiles as soft as rounding allows. By default it is measured, together
        with the size of the residuals. Of a similarity only the scale is stiff.
    fixed : label or sequence of labels, optional
        Tiles that stay undistorted at their `positions`, or at the origin
        without these.
    model : {"affine", "similarity"}, optional
        What a tile may do besides moving: stretch and shear, or only turn and
        change its scale.
    robust : bool, optional
        Find links that contradict the others and do not let them count.

    Returns
    -------
    Placement
        Matrices and outcomes of the tiles, residuals of the links. Tiles are in
        the order of their numbers; else of the mapping `positions`; else their
        labels are sorted, or come as they first appear if they have no order.

    See Also
    --------
    solve_rigid : Places tiles that need not be distorted.
    refine_pair : Finds local matches.

    Notes
    -----
    A group of connected tiles that holds no `fixed` tile, nor counts `positions`,
    has the identity as the mean of its linear parts, and the mean of its
    `positions`. A similarity has the mean angle zero and the mean logarithm of
    scale zero, and moves the middle of all points by the mean of `positions`.

    Plain least squares would shrink tiles wherever links leave it the choice,
    because smaller tiles have smaller residuals. Here points count where both
    measured points meet, so that nothing is gained by shrinking [1]_.

    The default stiffness is that of the distortions which are found, counted by
    how many of them links determine, and that of a given variance of 1e-4 where
    they determine none [2]_; distortions of 30 percent and more are not expected.
    Contradictions are forgotten from the worst down
    [3]_, while tiles turn from stiff to soft.

    All axes share one sparse factor; where covariances are not round it serves
    conjugate gradients. The linear parts of affine matrices are found from the
    upright position: tiles that are turned by more than some degrees are better
    placed by rotation first, their points moved, and the matrices multiplied.
    A similarity may turn by any angle.

    References
    ----------
    .. [1] Kanatani, Statistical bias of conic fitting and renormalization, IEEE
       Trans. Pattern Anal. Mach. Intell. 16 (1994) 320,
       :doi:`10.1109/34.276132`.
    .. [2] MacKay, Bayesian interpolation, Neural Comput. 4 (1992) 415,
       :doi:`10.1162/neco.1992.4.3.415`.
    .. [3] Yang, Antonante, Tzoumas and Carlone, Graduated non-convexity for
       robust spatial perception, IEEE Robot. Autom. Lett. 5 (2020) 1127,
       :doi:`10.1109/LRA.2020.2965893`.

    Examples
    --------
    Two tiles, of which the second is two percent larger than the first. Four
    points of the one lie on four points of the other:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> first = np.array([(0, 90), (30, 95), (60, 90), (90, 95)])
    >>> second = (first - (0, 90)) * 1.02
    >>> placed = spt.solve_affine([(0, 1)] * 4, first, second)
    >>> placed.matrices[:, 0, 0].round(3)
    array([1.01, 0.99])
    >>> float(np.abs(placed.residuals).max().round(3))
    0.0
    """
    given = checked_links(
        links, reference_points, moving_points, covariance,
        positions, position_sigma, fixed,
    )  # fmt: skip
    if stiffness is not None:
        check_not_negative(stiffness, "stiffness")
    if model not in MODELS:
        message = f"`model` must be 'affine' or 'similarity'; got {model!r}."
        raise ValueError(message)
    problem, ndim = _point_links(given), given.reference.shape[1]
    if model == "affine":
        unknowns = ndim * (ndim + 1)
        matrices, believed = solve_affines(problem, stiffness=stiffness, robust=robust)
    else:
        unknowns = ndim * (ndim + 1) // 2 + 1
        matrices, believed = solve_similarities(
            problem, scale=True, stiffness=stiffness, robust=robust
        )
    return _placement_of_points(given, matrices, believed, unknowns)

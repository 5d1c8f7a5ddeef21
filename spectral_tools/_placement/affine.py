"""Place many tiles that are distorted, from pairs of points."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .._shared.checks import check_not_negative, check_same_shape
from .._shared.link_arguments import (
    Links,
    Positions,
    as_link_points,
    as_link_weights,
    as_places,
    as_position_prior,
    find_tiles,
    number_links,
    residual_variance,
    tile_outcomes,
)
from .._shared.sparse import connected_groups
from .._transforms.matrices import points_apart
from .solve_tiles import Placement
from .solvers.affines import solve_sheets
from .solvers.normal_equations import PointLinks
from .solvers.similarities import solve_turns

__all__ = ["solve_affine"]

MODELS = ("affine", "similarity")


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
    pairs, labels = number_links(links, positions)
    reference = as_link_points(reference_points, "reference_points", len(pairs))
    moving = as_link_points(moving_points, "moving_points", len(pairs))
    check_same_shape(reference_points=reference, moving_points=moving)
    ndim = reference.shape[1]
    spread, weights, usable = as_link_weights(covariance, len(pairs), ndim)
    fixed_tiles = find_tiles(fixed, labels, "fixed")
    if stiffness is not None:
        check_not_negative(stiffness, "stiffness")
    if model not in MODELS:
        message = f"`model` must be 'affine' or 'similarity'; got {model!r}."
        raise ValueError(message)

    prior = as_position_prior(position_sigma, positions, ndim)
    problem = PointLinks(
        links=pairs[usable],
        reference=reference[usable],
        moving=moving[usable],
        weights=weights[usable],
        places=as_places(positions, labels, ndim),
        prior=prior,
        fixed=fixed_tiles,
        group=connected_groups(pairs[usable], len(labels)),
        # Without any covariance a pixel is no unit: the residuals alone are.
        least_unit=float(covariance is not None or position_sigma is not None),
    )
    if model == "affine":
        matrices, believed = solve_sheets(problem, stiffness=stiffness, robust=robust)
    else:
        matrices, believed = solve_turns(
            problem, scale=True, stiffness=stiffness, robust=robust
        )

    inlier = np.zeros(len(pairs), np.bool_)
    inlier[usable] = believed
    residuals = points_apart(matrices, pairs, reference, moving)
    unit = 1.0
    if not problem.least_unit:
        turned = ndim * (ndim + 1) // 2
        unknowns = ndim * (ndim + 1) if model == "affine" else turned + 1
        unit = residual_variance(
            pairs[inlier], residuals[inlier], fixed_tiles, unknowns
        )
    with np.errstate(divide="ignore"):
        sigma = prior**-0.5
    return Placement(
        matrices=matrices,
        residuals=residuals,
        inlier=inlier,
        chosen=np.zeros(len(pairs), np.intp),
        group=problem.group,
        outcome=tile_outcomes(
            pairs, usable, inlier, fixed_tiles | (positions is not None)
        ),
        labels=labels,
        links=pairs,
        covariance=spread,
        variance=unit,
        counted=inlier,
        position_sigma=sigma,
        fixed=fixed_tiles,
    )

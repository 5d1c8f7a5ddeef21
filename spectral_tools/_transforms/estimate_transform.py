"""Find the transform between two images from pairs of points.

The models are those of `transform_models`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincc

from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import as_coordinates, as_points, check_count, check_same_shape
from .._shared.link_arguments import as_link_weights
from .._shared.statistics import UNLIKELY
from .ac_ransac import agreeing_pairs, evidence_of
from .point_maps import (
    PointMap,
    TransformEstimate,
    bend_terms,
    homogeneous,
    map_of,
    map_points,
    map_slopes,
    unit_directions,
)
from .transform_models import (
    FAMILIES,
    Family,
    Model,
    Pairs,
    family_of,
    fit_map,
    fits_without,
    whitened,
)

__all__ = ["estimate_transform", "transform_covariance", "why_undetermined"]


# Extents across that are smaller than this share of those along are rounding.
ROUNDING = 1e-9
FLATS = {2: "a line", 3: "a plane"}


# Pairs up to which each is left out with a fit of its own. Of more, each changes the
# fit so little that one step tells the same.
FITTED_AGAIN = 100


def check_points(family: Family, reference: Floats, moving: Floats) -> None:
    """Raise unless pairs of points determine a transform of the family."""
    reason = why_undetermined(family, reference, moving)
    if reason:
        raise ValueError(reason)


def why_undetermined(family: Family, reference: Floats, moving: Floats) -> str:
    """Return why pairs of points determine no transform, or an empty string."""
    if len(moving) < family.least:
        least = "1 point" if family.least == 1 else f"{family.least} points"
        message = (
            f"`reference_points` must hold at least {least} for {family.name}; "
            f"got {len(moving)}."
        )
        return message
    if family.spanned == 0:
        return ""
    reasons = [_why_flat(family, reference, "reference_points")]
    reasons += [_why_flat(family, moving, "moving_points")]
    if family.model == "projective" and not any(reasons):
        reasons += [_why_cornerless(family, reference, "reference_points")]
        reasons += [_why_cornerless(family, moving, "moving_points")]
    if family.model == "polynomial" and not any(reasons):
        reasons += [_why_curved(family, moving)]
    return next(filter(None, reasons), "")


def _why_flat(family: Family, points: Floats, name: str) -> str:
    """Return a reason if points lie on one point, a line or a plane, where they must not."""
    sizes = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    # Coordinates far from zero are known less well.
    least = ROUNDING * max(sizes[0], 1e-3 * np.abs(points).max(initial=0))
    across = int((sizes > least).sum())
    if across == 0:
        message = (
            f"`{name}` must not all be the same for {family.name}; "
            f"got {len(points)} times {points[0].tolist()}."
        )
        return message
    if across < family.spanned:
        message = (
            f"`{name}` must not all lie on {FLATS[across + 1]} for {family.name}; "
            f"got {len(points)} points that do."
        )
        return message
    return ""


def _why_curved(family: Family, moving: Floats) -> str:
    """Return a reason if points lie on a curve that a polynomial may call zero."""
    away = moving - moving.mean(axis=0)
    unit = away / np.abs(away).max()
    design = np.hstack([homogeneous(unit), bend_terms(family.identity(), unit)])
    sizes = np.linalg.svd(design, compute_uv=False)
    if sizes[-1] < ROUNDING * sizes[0]:
        order = int(family.powers.sum(axis=1).max())
        message = (
            f"`moving_points` must not all lie on one curve of order {order}; "
            f"got {len(moving)} points that do."
        )
        return message
    return ""


def _why_cornerless(family: Family, points: Floats, name: str) -> str:
    """Return a reason if no points are the corners of a quadrilateral, or of a solid."""
    ndim = family.ndim
    away = points - points.mean(axis=0)
    unit = away / np.abs(away).max()
    # Points determine a map just where that onto themselves is the only one.
    full = homogeneous(unit)
    system = np.zeros((ndim, len(full), ndim + 1, ndim + 1))
    for axis in range(ndim):
        system[axis, :, axis] = full
        system[axis, :, ndim] = -unit[:, axis, np.newaxis] * full
    sizes = np.linalg.svd(system.reshape(-1, (ndim + 1) ** 2), compute_uv=False)
    if sizes[(ndim + 1) ** 2 - 2] < ROUNDING * sizes[0]:
        message = (
            f"`{name}` must hold {ndim + 2} points of which no {ndim + 1} lie on "
            f"{FLATS[ndim]} for {family.name}; got {len(points)} points without."
        )
        return message
    return ""


class Normalization(NamedTuple):
    """Where points are taken from pixels to about one, and back.

    Attributes
    ----------
    reference, moving : ndarray of shape (ndim,)
        Middles of the points.
    sizes : tuple of float
        Extents of the reference and of the moving points.
    """

    reference: Floats
    moving: Floats
    sizes: tuple[float, float]


@checked
def estimate_transform(
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    model: Model = "affine",
    covariance: ArrayLike | None = None,
    mirror: bool = False,
    order: int = 2,
    robust: bool = True,
) -> TransformEstimate:
    """Find the transform that brings moving points to their reference points.

    Parameters
    ----------
    reference_points, moving_points : array_like of shape (n, ndim)
        Pairs of points that show the same thing, in pixels.
    model : {"translation", "rigid", "similarity", "affine", "projective", \
"polynomial"}, optional
        What the transform may do. Each model but the last contains those before it:
        move; and turn; and change its scale; and stretch and shear; and lean, like
        a plane in a photograph; bend.
    covariance : array_like of shape (n, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference point less mapped moving point, in px^2 of the
        reference: of a weight w, ``np.eye(ndim) / w``. A pair with an infinite entry
        has failed: it has no say. By default all pairs count alike, and their
        residuals say how large errors are.
    mirror : bool, optional
        Whether a rigid transform or a similarity may be a mirror image.
    order : int, optional
        Order of a polynomial, at least 2.
    robust : bool, optional
        Find pairs that contradict the others and do not let them count. From 20
        pairs on, half of them may be wrong; of polynomials above the second
        order, a third.

    Returns
    -------
    TransformEstimate
        The transform, its covariance, and what each pair has to say about it.

    See Also
    --------
    apply_transform : Takes the estimate, or its matrix.
    transform_covariance : Error bars of mapped points.
    compare_transforms : Helps to choose a model.
    warp_image : Takes the estimate.

    Notes
    -----
    All models minimise the distances in the reference, weighted by the covariances:
    the most likely transform if errors are normal. Rigid transforms and similarities
    start from the closed form [1]_, projective ones from an algebraic error in
    points of unit extent [2]_; both end with steps of Gauss and Newton.

    Wrong pairs are found by trying the same small sets of pairs in every call, and
    by asking how likely chance would bring as many pairs as near [3]_. Where nothing
    is wrong the result is that of plain least squares. Few pairs more than the
    transform needs cannot tell which of them is wrong.

    If covariances are given they are believed, unless residuals are so large that
    chance explains them with a probability below 1e-3.

    References
    ----------
    .. [1] Umeyama (1991). Least-squares estimation of transformation parameters
       between two point patterns. :doi:`10.1109/34.88573`
    .. [2] Hartley (1997). In defense of the eight-point algorithm.
       :doi:`10.1109/34.601246`
    .. [3] Moisan & Stival (2004). A probabilistic criterion to detect rigid point
       matches between two images and estimate the fundamental matrix.
       :doi:`10.1023/B:VISI.0000013094.38752.54`

    Examples
    --------
    Five points of a picture that is turned by a quarter and moved; the last one is
    wrong, as four others tell:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> moving = np.array([(0, 0), (0, 90), (60, 0), (60, 90), (30, 20)])
    >>> truth = spt.translation((100, 5)) @ spt.rotation(np.pi / 2)
    >>> reference = spt.apply_transform(truth, moving)
    >>> reference[4] += (7, 7)
    >>> found = spt.estimate_transform(reference, moving, model="rigid")
    >>> found.matrix.round(3) + 0
    array([[  0.,  -1., 100.],
           [  1.,   0.,   5.],
           [  0.,   0.,   1.]])
    >>> found.inlier
    array([ True,  True,  True,  True, False])
    """
    reference = as_points(reference_points, "reference_points")
    moving = as_points(moving_points, "moving_points")
    check_same_shape(reference_points=reference, moving_points=moving)
    family = _as_family(model, reference.shape[1], mirror, order)
    _, weights, usable = as_link_weights(covariance, *reference.shape)
    check_points(family, reference[usable], moving[usable])

    frame = _normalization(family, reference[usable], moving[usable])
    pairs = Pairs(
        (reference - frame.reference) / frame.sizes[0],
        (moving - frame.moving) / frame.sizes[1],
        np.asarray(np.linalg.cholesky(weights).transpose(0, 2, 1) * frame.sizes[0]),
    )
    known = covariance is not None
    inlier = usable.copy()
    if robust:
        inlier[usable] = agreeing_pairs(family, pairs.chosen(usable), known=known)
    change = fit_map(family, pairs.chosen(inlier))
    return _estimate_of(family, change, pairs, inlier, frame, known)


@checked
def transform_covariance(estimate: TransformEstimate, points: ArrayLike) -> Floats:
    """Return the covariance of where a transform brings points.

    It is smallest amid the points of the fit and grows away from them.

    Parameters
    ----------
    estimate : TransformEstimate
        What `estimate_transform` found.
    points : array_like of shape (..., ndim)
        Points of the moving image, in pixels; NaN where they are missing.

    Returns
    -------
    ndarray of shape (..., ndim, ndim)
        Covariance in px^2 of the reference: standard errors along the axes are the
        square roots of its diagonal. Infinite if the pairs say nothing of their
        errors, NaN for missing points.

    See Also
    --------
    apply_transform : Brings the points there.

    Examples
    --------
    Four corners were measured to 1 px each. What lies in the middle is known better
    than the corners are, and what lies far outside is not:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> corners = np.array([(0, 0), (0, 100), (100, 0), (100, 100)])
    >>> found = spt.estimate_transform(corners, corners, covariance=np.eye(2))
    >>> points = [(50, 50), (0, 0), (-200, -200)]
    >>> np.sqrt(spt.transform_covariance(found, points)[:, 0, 0]).round(2)
    array([0.5 , 0.87, 3.57])
    """
    ndim = len(estimate.center)
    given = as_coordinates(points, "points", ndim=ndim)
    if not np.isfinite(estimate.variance):
        return np.full((*given.shape, ndim), np.inf)
    change = map_of(estimate)
    slopes = map_slopes(change, unit_directions(change), given.reshape(-1, ndim))
    spread = slopes @ estimate.covariance @ slopes.transpose(0, 2, 1)
    return np.asarray(spread.reshape(*given.shape, ndim))


def _as_family(model: Model, ndim: int, mirror: bool, order: int) -> Family:
    if model not in FAMILIES:
        names = ", ".join(map(repr, FAMILIES))
        message = f"`model` must be one of {names}; got {model!r}."
        raise ValueError(message)
    check_count(order, "order")
    if order < 2:
        message = f"`order` must be at least 2; got {order}."
        raise ValueError(message)
    return family_of(model, ndim, mirror=mirror, order=order)


def _normalization(family: Family, reference: Floats, moving: Floats) -> Normalization:
    middles = reference.mean(axis=0), moving.mean(axis=0)
    sizes = [
        float(np.sqrt(((points - middle) ** 2).sum(axis=1).mean()))
        for points, middle in zip((reference, moving), middles, strict=True)
    ]
    if not family.scales:
        # These know no scale: there is one for both.
        sizes = [max(*sizes)] * 2
    return Normalization(*middles, (sizes[0] or 1.0, sizes[1] or 1.0))


def _estimate_of(
    family: Family,
    change: PointMap,
    pairs: Pairs,
    inlier: NDArray[np.bool_],
    frame: Normalization,
    known: bool,
) -> TransformEstimate:
    """Say in pixels what was found."""
    evidence = evidence_of(family, change, pairs, inlier)
    variance = evidence.variance
    if known:
        # Without more pairs than unknowns, covariances are all there is.
        total = variance * evidence.freedom if evidence.freedom > 0 else 0.0
        honest = gammaincc(max(evidence.freedom, 1) / 2, total / 2) >= UNLIKELY
        variance = 1.0 if honest else max(variance, 1.0)
    matrices, bends = family.directions(change)
    into, out = _matrices_of(frame)
    matrix = out @ change.matrix @ into
    # The last entry is one, or minus one if the first pixel is beyond the horizon.
    depth = abs(matrix[-1, -1]) or 1.0
    entries = (out @ matrices @ into).reshape(len(matrices), -1) / depth
    # The last entry does not change.
    fixed = matrix.ravel() / (matrix[-1, -1] or np.inf)
    entries -= np.outer(entries[:, -1], fixed)
    bends = bends.reshape(len(bends), -1) * frame.sizes[0]
    slopes = np.hstack([entries, bends])
    if np.isfinite(variance):
        covariance = slopes.T @ (variance * evidence.normal) @ slopes
    else:
        covariance = np.full((slopes.shape[1],) * 2, np.inf)
    residuals = (pairs.reference - map_points(change, pairs.moving)) * frame.sizes[0]
    squares = (residuals[inlier] ** 2).sum(axis=1)
    return TransformEstimate(
        model=family.model,
        matrix=matrix / depth,
        bend=change.bend * frame.sizes[0],
        powers=family.powers,
        center=frame.moving,
        extent=frame.sizes[1],
        covariance=covariance,
        variance=variance,
        residuals=residuals,
        inlier=inlier,
        leave_one_out=_leave_one_out(family, change, pairs, inlier, evidence.misses)
        * frame.sizes[0],
        rms=float(np.sqrt(squares.mean())),
    )


def _matrices_of(frame: Normalization) -> tuple[Floats, Floats]:
    """Return the matrices from moving pixels into the frame, and out of it."""
    ndim = len(frame.moving)
    into, out = np.eye(ndim + 1), np.eye(ndim + 1)
    into[:-1, :-1] /= frame.sizes[1]
    into[:-1, -1] = -frame.moving / frame.sizes[1]
    out[:-1, :-1] *= frame.sizes[0]
    out[:-1, -1] = frame.reference
    return into, out


def _leave_one_out(
    family: Family,
    change: PointMap,
    pairs: Pairs,
    inlier: NDArray[np.bool_],
    misses: Floats,
) -> Floats:
    """Return how far each pair misses a fit without it.

    `misses` are what one linear step tells of it, whitened.
    """
    known = np.asarray(np.isfinite(misses).all(axis=1))
    rows = np.flatnonzero(inlier & known)
    if not family.linear and 0 < len(rows) <= FITTED_AGAIN:
        used = pairs.chosen(inlier)
        among = np.flatnonzero(known[inlier])
        fits = fits_without(family, used, change, among)
        misses[rows] = whitened(fits, used)[np.arange(len(among)), among]
    # A point that goes beyond the horizon misses by an infinite distance.
    known = np.asarray(np.isfinite(misses).all(axis=1))
    away = np.full(len(misses), np.inf)
    plain = np.linalg.solve(pairs.roots[known], misses[known][..., np.newaxis])
    away[known] = np.linalg.norm(plain[..., 0], axis=1)
    return away

"""Compare what several kinds of transforms make of the same points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._rendering.warp import warp_image
from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import as_points, as_sized_image, check_same_shape
from .._shared.link_arguments import as_link_weights
from .._shared.results import result
from .._shared.statistics import ROUNDING
from .._transforms.estimate_transform import estimate_transform, why_undetermined
from .._transforms.point_maps import TransformEstimate
from .._transforms.transform_models import FAMILIES, Family, Model, family_of
from .scores import mutual_information, normalized_cross_correlation

__all__ = ["TransformComparison", "compare_transforms"]


# Why there is no leave-one-out error.
NEEDED = "the fit needs a pair that cannot be left out."
# A model judges which pairs are wrong if there are this many times as many as it needs.
ENOUGH = 2


@result
class TransformComparison:
    """What several models make of the same points; prints as a table.

    Attributes
    ----------
    models : tuple of str
        Names of the models, in the order they were given.
    unknowns : ndarray of int, shape (n_models,)
        How many numbers each model has to find.
    rms : ndarray of shape (n_models,)
        Root mean square distance that remains between the pairs, in pixels. Infinite
        if the pairs do not determine the model.
    leave_one_out : ndarray of shape (n_models,)
        Root mean square distance by which each pair misses the fit to the others,
        in pixels. Infinite if the others do not determine the model.
    tied : ndarray of bool, shape (n_models,)
        Models whose leave-one-out error is within its standard error of the smallest
        one. Prefer the one of these that has the fewest unknowns.
    correlation : ndarray of shape (n_models,)
        Zero-mean correlation of the images where they overlap; 0 without images.
    mutual_information : ndarray of shape (n_models,)
        Mutual information of the images where they overlap, in bits; 0 without.
    inlier : ndarray of bool, shape (n,)
        Pairs that count, the same for all models.
    reason : tuple of str
        Why a model could not be fitted or tested; empty if it could.
    """

    models: tuple[str, ...]
    unknowns: NDArray[np.intp]
    rms: Floats
    leave_one_out: Floats
    tied: NDArray[np.bool_]
    correlation: Floats
    mutual_information: Floats
    inlier: NDArray[np.bool_]
    reason: tuple[str, ...]

    def __str__(self) -> str:
        """Return the comparison as a table; errors that are tied carry a star."""
        columns: dict[str, Sequence[str]] = {
            "model": self.models,
            "unknowns": [str(count) for count in self.unknowns],
            "rms": [f"{value:.3f}" for value in self.rms],
            "leave one out": [
                f"{value:.3f} {'*' if tied else ' '}"
                for value, tied in zip(self.leave_one_out, self.tied, strict=True)
            ],
        }
        if self.correlation.any() or self.mutual_information.any():
            columns["correlation"] = [f"{value:.3f}" for value in self.correlation]
            columns["bits"] = [f"{value:.3f}" for value in self.mutual_information]
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        cells = [
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
            for row in rows
        ]
        why = [
            f"{model}: {reason}"
            for model, reason in zip(self.models, self.reason, strict=True)
            if reason
        ]
        return "\n".join([*("  ".join(row).rstrip() for row in cells), *why])


@checked
def compare_transforms(
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    *,
    models: Sequence[Model] = (
        "translation",
        "rigid",
        "similarity",
        "affine",
        "projective",
    ),
    covariance: ArrayLike | None = None,
    mirror: bool = False,
    order: int = 2,
    robust: bool = True,
    reference: ArrayLike | None = None,
    moving: ArrayLike | None = None,
) -> TransformComparison:
    """Fit every model to the same points, and tell how well each foretells them.

    Nothing is chosen: the columns to read are `leave_one_out` and `tied`.

    Parameters
    ----------
    reference_points, moving_points : array_like of shape (n, ndim)
        Pairs of points that show the same thing, in pixels.
    models : sequence of str, optional
        Models, as `estimate_transform` knows them.
    covariance : array_like of shape (n, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference point less mapped moving point, in px^2.
    mirror : bool, optional
        Whether a rigid transform or a similarity may be a mirror image.
    order : int, optional
        Order of a polynomial, at least 2.
    robust : bool, optional
        Leave out pairs that contradict the others. The model with most unknowns
        that has twice as many pairs as it needs tells which, so that
        a stiff model does not call wrong what it cannot follow.
    reference, moving : array_like of shape (rows, cols) or (planes, rows, cols), optional
        The images. With both, each model's scores where the warped moving image
        covers the reference are computed too.

    Returns
    -------
    TransformComparison
        One row for each model; ``print(comparison)`` shows a table.

    See Also
    --------
    estimate_transform : Fits the model of your choice.

    Notes
    -----
    More unknowns always bring points nearer to each other: the residuals of four
    points and a projective transform are zero, whatever the points are worth. So
    each pair in turn is foretold by a fit to all others. A model that is too stiff
    misses by what it cannot follow; one that is too soft follows the errors of the
    other points, and misses by more the further it is from them.

    Few points make this error uncertain itself. With f measurements more than
    unknowns its standard error is a share of ``1 / sqrt(2 f)`` of it if errors are
    normal, and that of the difference of two such errors ``1 / sqrt(f)``: a quarter
    to a third for eight points in the plane. Models within this share of the
    smallest error, f being that of its model, are `tied`. Of these, the one with the
    fewest unknowns is to be preferred, as in the rule of one standard error [1]_.
    A model whose points are all needed has an infinite error: nothing has tested it.

    The scores of the images do not depend on the points, and are the better judges
    where images are alike. Over a small overlap they say little.

    References
    ----------
    .. [1] Breiman, Friedman, Olshen & Stone (1984). Classification and Regression
       Trees.
       :doi:`10.1201/9781315139470`

    Examples
    --------
    Four corners, clicked to about one pixel. The projective transform seems perfect:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> moving = np.array([(0, 0), (0, 90), (90, 0), (90, 90)])
    >>> errors = [(1, -1), (0, 1), (-1, 0), (1, 1)]
    >>> print(spt.compare_transforms(moving + errors, moving))
    model        unknowns    rms  leave one out
    translation         2  1.173        1.563 *
    rigid               3  1.173        2.057 *
    similarity          4  1.118        2.236
    affine              6  0.791          3.162
    projective          8  0.000            inf
    projective: the fit needs a pair that cannot be left out.
    """
    first = as_points(reference_points, "reference_points")
    second = as_points(moving_points, "moving_points")
    check_same_shape(reference_points=first, moving_points=second)
    images = _as_images(reference, moving, first.shape[1])
    options: dict[str, Any] = {"mirror": mirror, "order": order}
    names = _as_models(models)
    families = [family_of(name, first.shape[1], **options) for name in names]
    spread, _, inlier = as_link_weights(covariance, *first.shape)
    if robust:
        options["covariance"] = covariance
        inlier = _inliers(families, first, second, inlier, options)

    # Pairs that do not count have failed for all models alike.
    options["covariance"] = np.where(inlier[:, np.newaxis, np.newaxis], spread, np.inf)
    columns = np.zeros((4, len(names)))
    columns[:2] = np.inf
    reasons = []
    for family, column in zip(families, columns.T, strict=True):
        reason = why_undetermined(family, first[inlier], second[inlier])
        if not reason:
            found = estimate_transform(
                first, second, model=family.model, robust=False, **options
            )
            column[:2] = found.rms, _leave_one_out_error(found)
            if images is not None:
                column[2:] = _scores(found, *images)
            if not np.isfinite(column[1]):
                reason = NEEDED
        reasons.append(reason)
    unknowns = np.array([family.unknowns for family in families])
    return TransformComparison(
        models=names,
        unknowns=unknowns,
        rms=columns[0],
        leave_one_out=columns[1],
        tied=_within_standard_error(columns[1], unknowns, first[inlier].size),
        correlation=columns[2],
        mutual_information=columns[3],
        inlier=inlier,
        reason=tuple(reasons),
    )


def _inliers(
    families: list[Family],
    reference: Floats,
    moving: Floats,
    usable: NDArray[np.bool_],
    options: dict[str, Any],
) -> NDArray[np.bool_]:
    """Return the pairs that count, as the softest model that can judge them says."""
    rich = [
        family
        for family in families
        if usable.sum() >= ENOUGH * family.least
        and not why_undetermined(family, reference[usable], moving[usable])
    ]
    if not rich:
        return usable
    judge: Any = max(rich, key=lambda family: family.unknowns).model
    return estimate_transform(reference, moving, model=judge, **options).inlier


def _leave_one_out_error(found: TransformEstimate) -> float:
    """Return the root mean square of what pairs miss when they are left out."""
    return float(np.sqrt((found.leave_one_out[found.inlier] ** 2).mean()))


def _within_standard_error(
    leave_one_out: Floats, unknowns: NDArray[np.intp], count: int
) -> NDArray[np.bool_]:
    """Return which errors, each from as many coordinates, chance may have made least."""
    least = int(leave_one_out.argmin())
    freedom = max(count - int(unknowns[least]), 1)
    limit = leave_one_out[least] * (1 + 1 / np.sqrt(freedom)) + ROUNDING
    return np.isfinite(leave_one_out) & (leave_one_out <= limit)


def _scores(
    found: TransformEstimate, reference: Floats, moving: Floats
) -> tuple[float, float]:
    """Return the scores of the warped moving image."""
    warped = warp_image(moving, found, shape=reference.shape, fill_value=np.nan)
    return (
        normalized_cross_correlation(reference, warped),
        mutual_information(reference, warped),
    )


def _as_models(models: Sequence[Model]) -> tuple[Model, ...]:
    names = tuple(models)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names or isinstance(models, str):
        listed = ", ".join(map(repr, FAMILIES))
        message = f"`models` must be a sequence of some of {listed}; got {models!r}."
        raise ValueError(message)
    return names


def _as_images(
    reference: ArrayLike | None, moving: ArrayLike | None, ndim: int
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    if reference is None and moving is None:
        return None
    if reference is None or moving is None:
        name = "reference" if reference is None else "moving"
        message = f"`{name}` must be given with the other image; got None."
        raise ValueError(message)
    images = as_sized_image(reference, "reference"), as_sized_image(moving, "moving")
    for name, image in zip(("reference", "moving"), images, strict=True):
        if image.ndim != ndim:
            message = f"`{name}` must have {ndim} axes, as points do; got {image.ndim}."
            raise ValueError(message)
    return images

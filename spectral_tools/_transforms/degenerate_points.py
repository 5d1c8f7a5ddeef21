"""Tell whether pairs of points determine a transform."""

import numpy as np

from .._shared.arrays import Floats
from .map_fit import Family
from .point_maps import PointMap, bend_terms, homogeneous

__all__ = ["check_points", "why_undetermined"]


# Extents across that are smaller than this share of those along are rounding.
ROUNDING = 1e-9
FLATS = {2: "a line", 3: "a plane"}


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
            f"`reference_points` must hold at least {least} for {_named(family)}; "
            f"got {len(moving)}."
        )
        return message
    if family.model == "translation":
        return ""
    reasons = [_flat(family, reference, "reference_points")]
    reasons += [_flat(family, moving, "moving_points")]
    if family.model == "projective" and not any(reasons):
        reasons += [_cornerless(family, reference, "reference_points")]
        reasons += [_cornerless(family, moving, "moving_points")]
    if family.model == "polynomial" and not any(reasons):
        reasons += [_curved(family, moving)]
    return next(filter(None, reasons), "")


def _flat(family: Family, points: Floats, name: str) -> str:
    """Return a reason if points lie on one point, a line or a plane, where they must not."""
    sizes = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    # Coordinates far from zero are known less well.
    least = ROUNDING * max(sizes[0], 1e-3 * np.abs(points).max(initial=0))
    across = int((sizes > least).sum())
    if across == 0:
        message = (
            f"`{name}` must not all be the same for {_named(family)}; "
            f"got {len(points)} times {points[0].tolist()}."
        )
        return message
    needed = (
        family.least - 1 if family.model in ("rigid", "similarity") else family.ndim
    )
    if across < needed:
        message = (
            f"`{name}` must not all lie on {FLATS[across + 1]} for {_named(family)}; "
            f"got {len(points)} points that do."
        )
        return message
    return ""


def _curved(family: Family, moving: Floats) -> str:
    """Return a reason if points lie on a curve that a polynomial may call zero."""
    away = moving - moving.mean(axis=0)
    unit = away / np.abs(away).max()
    still = PointMap(
        np.eye(family.ndim + 1),
        np.zeros((len(family.powers), family.ndim)),
        family.powers,
        np.zeros(family.ndim),
        1.0,
    )
    design = np.hstack([homogeneous(unit), bend_terms(still, unit)])
    sizes = np.linalg.svd(design, compute_uv=False)
    if sizes[-1] < ROUNDING * sizes[0]:
        order = int(family.powers.sum(axis=1).max())
        message = (
            f"`moving_points` must not all lie on one curve of order {order}; "
            f"got {len(moving)} points that do."
        )
        return message
    return ""


def _cornerless(family: Family, points: Floats, name: str) -> str:
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
            f"{FLATS[ndim]} for {_named(family)}; got {len(points)} points without."
        )
        return message
    return ""


def _named(family: Family) -> str:
    """Return the name of a transform of a family, with its article."""
    if family.model == "polynomial":
        return f"a polynomial of order {family.powers.sum(axis=1).max()}"
    article = "an" if family.model == "affine" else "a"
    kind = " with `mirror`" if family.mirror else ""
    return f"{article} {family.model} transform{kind}"

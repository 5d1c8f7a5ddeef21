"""Relax the sections of a stack until all their matches meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..._shared.arguments import checked
from ..._shared.arrays import Flags, Floats, Ints
from ..._shared.checks import (
    as_matrices,
    as_shape,
    as_shift,
    check_memory,
    check_not_negative,
    check_positive,
    check_same_shape,
)
from ..._shared.link_arguments import (
    Links,
    as_link_points,
    as_link_weights,
    find_tiles,
    number_links,
)
from ..._shared.results import result
from ..._shared.sparse import sparse_rows
from ..._transforms.fields.bspline_fit import FieldFit, solve_springs, springs_of
from ..._transforms.fields.bspline_grid import (
    ControlGrid,
    control_grid,
    field_at_pixels,
    shares_at,
)
from ..._transforms.fields.displacement import jacobian_determinant
from ..._transforms.fields.fit_displacement import (
    count_windows,
    field_at_points,
    fits_neighbours,
)

__all__ = ["MeshRelaxation", "relax_meshes"]


# Order of the derivatives that bending is made of: a section may shift, turn and stretch
# freely (test_sections_come_to_lie_on_each_other).
ORDER = 2
# Rounds in which fields are found anew for where points meet
# (test_sections_come_to_lie_on_each_other).
ROUNDS = 3
# Steps of the fixed point iteration that tells where points meet, each of which leaves as
# much as fields are strained (test_residuals_are_what_fields_leave).
MEETINGS = 12
# Cells along the longest side of a section (test_sections_come_to_lie_on_each_other).
CELLS = 12
# Least side of a cell, in pixels (test_sections_come_to_lie_on_each_other).
FINEST = 8.0


@result
class MeshRelaxation:
    """How each section of a stack is bent, and which matches say so.

    Attributes
    ----------
    displacement : ndarray of shape (n, rows, cols, 2) or (n, planes, rows, cols, 3)
        One field for each section, as `warp_image` takes it.
    residuals : ndarray of shape (n_links, ndim)
        How far the two points of each pair are apart in the end, in pixels.
    inlier : ndarray of bool, shape (n_links,)
        Pairs that are believed.
    stiffness : float
        Weight of the bending energy of each section, given or found.
    minimum_jacobian : ndarray of shape (n,)
        Least determinant of the Jacobian matrix of each field. Where it is not
        positive the field folds.
    """

    displacement: Floats
    residuals: Floats
    inlier: Flags
    stiffness: float
    minimum_jacobian: Floats


class _Stack(NamedTuple):
    """Pairs of points of a stack, already moved by the matrices of the sections.

    `field` is the number of the field of each section, -1 if it has none.
    """

    grid: ControlGrid
    field: Ints
    links: Ints
    ends: tuple[Floats, Floats]
    weights: Floats
    least_unit: float


@checked
def relax_meshes(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    shape: Sequence[int],
    *,
    matrices: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    window: ArrayLike | None = None,
    stiffness: float | None = None,
    spacing: ArrayLike | None = None,
    fixed: Any = None,
    robust: bool = True,
) -> MeshRelaxation:
    """Bend all sections of a stack together until their matches meet.

    Each match is a spring between two sections, and each section an elastic
    sheet. All springs and sheets come to rest at once, so that no section is the
    reference of any other, and nothing drifts along the stack.

    Parameters
    ----------
    links : array_like of int, shape (n_links, 2)
        Numbers of the two sections of each pair of points. Sections need not be
        neighbours.
    reference_points, moving_points : array_like of shape (n_links, ndim)
        Points of the one and the other section that show the same thing, in
        pixels.
    shape : sequence of int
        Pixels of the aligned sections along each axis.
    matrices : array_like of shape (n, ndim + 1, ndim + 1), optional
        Rough map of each section to the aligned stack, which its field adds to;
        by default the identity.
    covariance : array_like of shape (n_links, ndim, ndim) or (ndim, ndim), optional
        Covariance of reference less moving point, in square pixels. A pair with an
        infinite entry has failed: it has no say. By default all pairs count alike.
    window : int or array_like of shape (ndim,), optional
        Side of the windows that were matched, in pixels. Windows of the same two
        sections that overlap share their noise, and count for less.
    stiffness : float, optional
        Weight of the bending energy of a section, the integral of the squared
        second derivatives of its field, beside squared residuals in units of their
        covariances. By default it is the one that best explains the points.
    spacing : float or array_like of shape (ndim,), optional
        Side of the cells of each field, in pixels; by default a twelfth of the
        longest side.
    fixed : int or sequence of int, optional
        Sections that stay as their matrices put them. By default the mean
        displacement of all sections that matches connect is zero, everywhere.
    robust : bool, optional
        Find pairs that contradict the others and do not let them count.

    Returns
    -------
    MeshRelaxation
        Fields of all sections, up to the last that is linked or has a matrix.

    See Also
    --------
    fit_displacement : Bends one image onto another.
    solve_affine : Places sections that are stretched and sheared.

    Notes
    -----
    The springs pull where points meet, which is found in a few rounds, so that
    fields are those of the aligned stack and need not be inverted.

    One sparse factor holds all sections: the time grows with the number of cells
    of a section more than with that of sections.

    References
    ----------
    .. [1] Saalfeld et al. (2012). Elastic volume reconstruction from series of
       ultra-thin microscopy sections. Nat. Methods 9, 717.
       :doi:`10.1038/nmeth.2072`

    Examples
    --------
    The middle one of three sections has an arch of 2 pixels:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> points = np.stack(np.mgrid[5:100:10, 5:100:10], -1).reshape(-1, 2)
    >>> arch = 2 * np.sin(np.pi * points[:, 1] / 100)
    >>> bent = points + np.stack([arch, 0 * arch], axis=1)
    >>> links = np.repeat([(0, 1), (1, 2)], 100, axis=0)
    >>> one, other = np.vstack([points, bent]), np.vstack([bent, points])
    >>> relaxed = spt.relax_meshes(links, one, other, (100, 100), fixed=0)
    >>> relaxed.displacement[:, 50, 50, 0].round(1) + 0
    array([ 0., -2.,  0.])
    """
    sides = as_shape(shape, "shape")
    ndim = len(sides)
    pairs, labels = number_links(links, matrices)
    reference = as_link_points(reference_points, "reference_points", len(pairs))
    moving = as_link_points(moving_points, "moving_points", len(pairs))
    check_same_shape(reference_points=reference, moving_points=moving)
    if reference.shape[1] != ndim:
        message = (
            f"`reference_points` must have an axis for each of `shape`, {ndim}; "
            f"got {reference.shape[1]}."
        )
        raise ValueError(message)
    _, weights, usable = as_link_weights(covariance, len(pairs), ndim)
    if stiffness is not None:
        check_positive(stiffness, "stiffness")
    ends = [reference, moving]
    if matrices is not None:
        square = as_matrices(matrices, "matrices", count=len(labels))
        for side, points in enumerate((reference, moving)):
            linear, shift = (
                square[pairs[:, side], :-1, :-1],
                square[pairs[:, side], :-1, -1],
            )
            ends[side] = (linear @ points[:, :, None])[:, :, 0] + shift
    overlap = np.ones(len(pairs))
    if window is not None:
        side_lengths = as_shift(window, ndim, "window")
        check_not_negative(float(side_lengths.min()), "window")
        for rows in _rows_by_link(pairs, usable):
            overlap[rows] = count_windows(ends[0][rows], side_lengths)
    pitch = np.full(ndim, max(max(sides) / CELLS, FINEST))
    if spacing is not None:
        pitch = as_shift(spacing, ndim, "spacing")
        check_positive(float(pitch.min()), "spacing")
    check_memory(len(labels) * np.prod(sides, dtype=float) * ndim, "shape")
    free = ~find_tiles(fixed, labels, "fixed")
    stack = _Stack(
        grid=control_grid(sides, pitch),
        field=np.where(free, np.cumsum(free) - 1, -1),
        links=pairs,
        ends=(ends[0], ends[1]),
        weights=weights / overlap[:, None, None],
        least_unit=float(covariance is not None),
    )
    return _relax(stack, usable & free[pairs].any(axis=1), stiffness, robust)


def _rows_by_link(pairs: Ints, usable: Flags) -> list[Ints]:
    """Return the rows of each link that can be used."""
    rows = np.flatnonzero(usable)
    if not len(rows):
        return []
    which = np.unique(pairs[rows], axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(which, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(which[order])) + 1)


def _relax(
    stack: _Stack, usable: Flags, stiffness: float | None, robust: bool
) -> MeshRelaxation:
    ndim = len(stack.grid.shape)
    count = int(stack.field.max(initial=-1)) + 1
    values = np.zeros((count, int(np.prod(stack.grid.nodes)), ndim))
    inlier, found = usable, np.inf if stiffness is None else stiffness
    if usable.any() and (robust or stiffness is None):
        inlier, found = _fit_each_link(stack, usable, stiffness, robust)
    for number in range(ROUNDS if inlier.any() else 0):
        fit, inlier = _solve_fields(
            stack, values, inlier, found, robust and number == 1
        )
        values = fit.values.reshape(values.shape)
    _, moved = _meeting_points(stack, values)
    fields = np.zeros((len(stack.field), *stack.grid.shape, ndim))
    for section in np.flatnonzero(stack.field >= 0):
        fields[section] = field_at_pixels(stack.grid, values[stack.field[section]])
    folds = [1.0 if min(f.shape) < 2 else jacobian_determinant(f).min() for f in fields]
    return MeshRelaxation(
        displacement=fields,
        residuals=stack.ends[0] - stack.ends[1] + moved[0] - moved[1],
        inlier=inlier,
        stiffness=found,
        minimum_jacobian=np.array(folds),
    )


def _fit_each_link(
    stack: _Stack, usable: Flags, stiffness: float | None, robust: bool
) -> tuple[Flags, float]:
    """Find which pairs the others of the same link confirm, and how stiff it all is.

    A link sees the difference of two fields, which bends like both together.
    """
    inlier, stiff = np.zeros(len(usable), np.bool_), []
    both = (stack.field[stack.links] >= 0).sum(axis=1)
    for rows in _rows_by_link(stack.links, usable):
        targets = (stack.ends[1] - stack.ends[0])[rows]
        meet = 0.5 * (stack.ends[0] + stack.ends[1])[rows]
        numbers, heights = shares_at(stack.grid, meet)
        shares = sparse_rows(numbers, heights, int(np.prod(stack.grid.nodes)))
        springs = springs_of(
            stack.grid, 1, shares, targets, stack.weights[rows], stack.least_unit, ORDER
        )
        of_two = None if stiffness is None else stiffness / both[rows[0]]
        fit, inlier[rows] = solve_springs(
            springs,
            stiffness=of_two,
            robust=robust,
            plausible=fits_neighbours(meet, targets),
        )
        stiff.append(fit.stiffness * both[rows[0]])
    return inlier, float(np.median(stiff))


def _meeting_points(
    stack: _Stack, values: Floats
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return where the points of each pair meet, and their displacements there."""
    meet = 0.5 * (stack.ends[0] + stack.ends[1])
    for _ in range(MEETINGS):
        moved = [np.zeros_like(meet), np.zeros_like(meet)]
        for side in range(2):
            field = stack.field[stack.links[:, side]]
            for number in range(len(values)):
                rows = field == number
                moved[side][rows] = field_at_points(
                    stack.grid, values[number], meet[rows]
                )
        meet = 0.5 * (stack.ends[0] + moved[0] + stack.ends[1] + moved[1])
    return meet, (moved[0], moved[1])


def _solve_fields(
    stack: _Stack,
    values: Floats,
    believed: Flags,
    stiffness: float,
    robust: bool,
) -> tuple[FieldFit, Flags]:
    """Solve for all fields where points meet now."""
    rows = np.flatnonzero(believed)
    meet, _ = _meeting_points(stack, values)
    numbers, heights = shares_at(stack.grid, meet[rows])
    nodes = values.shape[1]
    fields = stack.field[stack.links[rows]]
    columns = [np.maximum(f, 0)[:, None] * nodes + numbers for f in fields.T]
    signs = (fields >= 0) * np.array([1.0, -1.0])
    springs = springs_of(
        stack.grid,
        len(values),
        sparse_rows(
            np.concatenate(columns, axis=1),
            np.concatenate([heights * sign[:, None] for sign in signs.T], axis=1),
            len(values) * nodes,
        ),
        (stack.ends[1] - stack.ends[0])[rows],
        stack.weights[rows],
        stack.least_unit,
        ORDER,
    )
    fit, honest = solve_springs(
        springs,
        stiffness=stiffness,
        robust=robust,
        plausible=np.ones(len(rows), np.bool_),
    )
    flags = np.zeros(len(believed), np.bool_)
    flags[rows[honest]] = True
    return fit, flags

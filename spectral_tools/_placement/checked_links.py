"""Links and tiles as all solvers take them, once they have been looked at."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arrays import Flags, Floats, Ints
from .._shared.checks import check_same_shape
from .._shared.link_arguments import (
    Links,
    Positions,
    as_link_points,
    as_link_weights,
    as_places,
    as_position_prior,
    find_tiles,
    number_links,
)
from .._shared.sparse import connected_groups
from .solvers.translations import Network

__all__ = ["CheckedLinks", "checked_links", "network_of", "translations"]


class CheckedLinks(NamedTuple):
    """Links and tiles as both solvers take them.

    Attributes
    ----------
    labels : sequence
        Label of each tile.
    links : ndarray of int, shape (n_links, 2)
        Numbers of the two tiles of each link.
    reference, moving : ndarray of shape (n_links, ndim)
        Points that belong together.
    covariance, weights : ndarray of shape (n_links, ndim, ndim)
        Covariance of each link, and its inverse.
    usable : slice or ndarray of bool, shape (n_links,)
        Links that have a finite covariance.
    expected : bool
        Whether positions were given.
    tiles : dict
        Fields that `Network` and `PointLinks` share, with usable links only.
    """

    labels: Sequence[Hashable]
    links: Ints
    reference: Floats
    moving: Floats
    covariance: Floats
    weights: Floats
    usable: slice | Flags
    expected: bool
    tiles: dict[str, Any]


def checked_links(
    links: Links,
    reference_points: ArrayLike,
    moving_points: ArrayLike,
    covariance: ArrayLike | None,
    positions: Positions | None,
    position_sigma: ArrayLike | None,
    fixed: Any,
) -> CheckedLinks:
    pairs, labels = number_links(links, positions)
    reference = as_link_points(reference_points, "reference_points", len(pairs))
    moving = as_link_points(moving_points, "moving_points", len(pairs))
    check_same_shape(reference_points=reference, moving_points=moving)
    ndim = reference.shape[1]
    full, weights, finite = as_link_weights(covariance, len(pairs), ndim)
    # A slice copies nothing, and most often all links are usable.
    usable = slice(None) if finite.all() else finite
    tiles = {
        "links": pairs[usable],
        "weights": weights[usable],
        "places": as_places(positions, labels, ndim),
        "prior": as_position_prior(position_sigma, positions, ndim),
        "fixed": find_tiles(fixed, labels, "fixed"),
        "group": connected_groups(pairs[usable], len(labels)),
        # Without any covariance a pixel is no unit: the residuals alone are.
        "least_unit": float(covariance is not None or position_sigma is not None),
    }
    return CheckedLinks(
        labels, pairs, reference, moving, full, weights,
        usable, positions is not None, tiles,
    )  # fmt: skip


def network_of(
    given: CheckedLinks, offsets: Floats, options: Floats, doubt: Floats | None
) -> Network:
    """Return usable links with their offsets as a network of tiles that only move."""
    return Network(
        offsets=offsets,
        options=options,
        variances=np.diagonal(given.covariance, axis1=1, axis2=2)[given.usable],
        doubt=doubt,
        **given.tiles,
    )


def translations(positions: Floats) -> Floats:
    count, ndim = positions.shape
    matrices = np.zeros((count, ndim + 1, ndim + 1))
    matrices[:] = np.eye(ndim + 1)
    matrices[:, :-1, -1] = positions
    return matrices

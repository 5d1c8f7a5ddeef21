"""Learn from good links what a stage does to the steps it is told to make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._shared.arrays import Floats

__all__ = ["StageModel", "fit_stage"]


# Reweighting by the inverse distance comes close to the least sum of distances.
ROUNDS = 30
# Steps further from the model than this, in standard deviations, are not the stage's.
CUT = 4.0
# The median distance from a normal law, in standard deviations.
MEDIAN = 0.6745
# What is known of a stage before any link: so many links' worth of this share of a tile.
LINKS_BEFORE, SHARE_BEFORE = 2.0, 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageModel:
    """How a stage moves, as the links tell it.

    Attributes
    ----------
    matrix : ndarray of shape (ndim, ndim)
        Turns nominal steps into those that were made: scale, rotation and shear
        of the grid against the camera.
    sigma : ndarray of shape (ndim,)
        Standard deviation of a position about that, in pixels.
    leverage : ndarray of shape (ndim, ndim)
        A nominal step s is predicted with the variance ``2 * sigma**2 * (1 + s @
        leverage @ s)``: twice that of a position, and what the matrix is off by.
    links : int
        Number of links that the model rests on; with none it is the nominal grid.
    """

    matrix: Floats
    sigma: Floats
    leverage: Floats
    links: int


def fit_stage(steps: Floats, offsets: Floats, size: Floats) -> StageModel:
    """Fit a stage model to nominal `steps` and measured `offsets` of many links.

    # Strategy: the linear map with the least sum of distances does not mind some false
    # links; the spread of what lies near it is the stage's own error, and two such
    # errors make that of a step.
    """
    ndim = steps.shape[1]
    before = SHARE_BEFORE * size
    if not len(steps):
        return StageModel(
            matrix=np.eye(ndim), sigma=before, leverage=np.zeros((ndim, ndim)), links=0
        )
    change = np.zeros((ndim, ndim))
    floor = 1e-3 * float(size.min())
    for _ in range(ROUNDS):
        miss = offsets - steps - steps @ change.T
        distance = np.maximum(np.sqrt((miss * miss).sum(axis=1)), floor)
        change = _least_squares(steps, offsets - steps, 1 / distance)
    miss = offsets - steps - steps @ change.T
    spread = np.median(np.abs(miss), axis=0) / MEDIAN
    inside = np.abs(miss) <= CUT * np.maximum(spread, 0.1 * before)
    near = np.asarray(inside.all(axis=1))
    change = _least_squares(steps, offsets - steps, near.astype(np.float64))
    miss = (offsets - steps - steps @ change.T)[near]
    # Each axis of the grid that is stepped along takes one link to learn.
    free = max(len(miss) - np.linalg.matrix_rank(steps[near]), 0)
    square = (miss * miss).sum(axis=0) / 2
    share = free / max(len(miss), 1)
    total = share * len(miss) + LINKS_BEFORE
    sigma = np.sqrt((square + LINKS_BEFORE * before**2) / total)
    normal = steps[near].T @ steps[near]
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    return StageModel(
        matrix=np.eye(ndim) + change,
        sigma=sigma,
        leverage=inverse.astype(np.float64, copy=False),
        links=int(np.count_nonzero(near)),
    )


def _least_squares(steps: Floats, values: Floats, weights: Floats) -> Floats:
    """Return the smallest map that turns steps into values; unseen axes stay."""
    normal = (steps * weights[:, None]).T @ steps
    pull = (steps * weights[:, None]).T @ values
    return (np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ pull).T

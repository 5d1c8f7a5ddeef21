"""Compiled estimate of what the fading edges of a window put into each ring (floor 1).

The table of sums is that of `_fit_kernels`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ._compiled import compiled

__all__ = ["rim_shares", "rim_slopes"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@compiled
def rim_slopes(edges: Floats, sides: Floats, width: Floats) -> Floats:
    """Return how the slope of a window is spread over rings, for each axis.

    `sides` is its mean square slope over its mean square, `width` that of its
    edges, which rise like half a period of a squared sine.
    """
    spread = np.zeros((len(edges), 3))
    low = 0.0
    for ring in range(len(edges)):
        high = math.sqrt(edges[ring])
        for axis in range(3):
            if sides[axis] > 0:
                turns = (low + high) * width[axis]
                # The mean of the power of half a period of a sine; a smooth scene
                # blurs its zeros.
                power = 1 / (1 + turns**2 * (0.2 + 0.5 * turns**2))
                share = 16 / math.pi**2 * width[axis] * (high - low) * power
                spread[ring, axis] = sides[axis] * share
        low = high
    return spread


@compiled
def rim_shares(table: Floats, power: Floats, smooth: Floats, rims: Floats) -> Floats:
    """Return the share of the slope of each ring that is the window's, not the scene's.

    Where a window fades, the scene times the slope of the window adds to each ring:
    what coarser rings send there, and what stays of its own.
    """
    rings = len(power)
    shares = np.zeros((rings, 3))
    near = np.zeros(3)
    coarser = 0.0
    for ring in range(rings):
        own = smooth[ring] * power[ring]
        mean = 0.5 * (table[ring, 1] + table[ring, 2])
        for axis in range(3):
            at = 7 if axis == 0 else (10 if axis == 1 else 12)
            near[axis] += rims[ring, axis]
            if own > 0 and table[ring, at] > 0:
                told = own * table[ring, at] / mean
                frame = near[axis] * own + rims[ring, axis] * coarser
                shares[ring, axis] = min(frame / told, 1.0)
        coarser += own
    return shares

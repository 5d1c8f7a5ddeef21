"""Compiled estimate of what the fading edges of a window put into each ring.

The table of sums is that of `_fit_kernels`.
"""

import math

import numpy as np

from .._shared.arrays import Flags, Floats
from .._shared.compiled import compiled

__all__ = ["OWN", "rim_shares", "rim_slopes", "trust_rings"]


# Columns of the mean power times the squared frequency along each axis.
OWN = (7, 10, 12)
# A ring counts in full if less than the first share of its slope is the window's, and
# not at all beyond the second. The shares are good to a factor of two; scenes with
# fine detail hardly have a ring above the first.
FREE, FRAMED = 0.4, 0.8


@compiled
def rim_slopes(edges: Floats, sides: Floats, width: Floats) -> Floats:
    """Return how the squared slope of a window is spread over rings, for each axis.

    `sides` is its mean square slope over its mean square, `width` that of its
    edges, which rise like half a period of a squared sine.
    """
    spread = np.zeros((len(edges), 3))
    low = 0.0
    for ring in range(len(edges)):
        high = math.sqrt(edges[ring])
        for axis in range(3):
            # The power of half a period of a sine, but for its zeros, which a scene
            # blurs; at high frequencies rather more than less.
            square = ((low + high) * width[axis]) ** 2
            power = 16 / math.pi**2 * width[axis] / (1 + square * (0.2 + 0.5 * square))
            spread[ring, axis] = sides[axis] * power * (high - low)
        low = high
    return spread


@compiled
def rim_shares(table: Floats, power: Floats, smooth: Floats, rims: Floats) -> Floats:
    """Return the share of the slope of each ring that is the window's, not the scene's.

    Where a window fades, the scene times the slope of the window (`rims`, spread over
    rings) adds to each ring: what coarser rings send there, and what stays of its own.
    """
    rings = len(power)
    shares = np.zeros((rings, 3))
    near = np.zeros(3)
    coarser = 0.0
    for ring in range(rings):
        own = smooth[ring] * power[ring]
        mean = 0.5 * (table[ring, 1] + table[ring, 2])
        for axis in range(3):
            near[axis] += rims[ring, axis]
            told = own * table[ring, OWN[axis]]
            if told > 0:
                frame = near[axis] * own + rims[ring, axis] * coarser
                shares[ring, axis] = min(frame * mean / told, 1.0)
        coarser += own
    return shares


@compiled
def trust_rings(shares: Floats, active: Flags) -> Floats:
    """Return how far each ring may tell a shift, 0 to 1.

    What the window puts into a ring moves with the window: it tells where the window
    was put, and with great certainty where the scene is smooth and noise is faint.
    """
    trust = np.ones(len(shares))
    for ring in range(len(shares)):
        share = shares[ring].sum() / active.sum()
        trust[ring] = min(max((FRAMED - share) / (FRAMED - FREE), 0.0), 1.0) ** 2
    return trust

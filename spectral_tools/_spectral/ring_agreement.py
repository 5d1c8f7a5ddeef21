"""Compiled test of whether all rings of frequencies tell the same shift.

The table of sums is that of `_fit_kernels`.
"""

import math

import numpy as np

from .._shared.arrays import Flags, Floats
from .._shared.compiled import compiled

__all__ = ["disagreement", "halves_apart", "ring_shifts"]


# Coarse and fine detail tell different shifts if those differ by more than so many
# standard errors.
APART = 3.0


@compiled
def ring_shifts(
    table: Floats, power: Floats, smooth: Floats, share: float, active: Flags
) -> tuple[Floats, Floats]:
    """Return the shift that each ring tells alone, and its variance per axis."""
    rings = len(power)
    told = np.zeros((rings, 3))
    variance = np.full(rings, np.inf)
    axes = active.sum()
    for ring in range(rings):
        g = smooth[ring]
        if g <= 0:
            continue
        tilt = g * power[ring] / (0.5 * (table[ring, 1] + table[ring, 2]))
        curve = spread = 0.0
        for i in range(3):
            if active[i]:
                at = 0 if i == 0 else (3 if i == 1 else 5)
                own = tilt * table[ring, 7 + at]
                told[ring, i] = -table[ring, 4 + i] / max(own, 1e-300)
                curve += own
                spread += table[ring, 13 + at]
        if curve > 0:
            # What the coherence predicts steadies what few modes scatter by chance.
            model = 0.5 * (1 - g * g) / g * power[ring] / table[ring, 0] * curve
            variance[ring] = axes * max(spread, model) / (curve * curve * share)
    return told, variance


@compiled
def _middle(values: Floats, weights: Floats) -> float:
    """Return the weighted median of a few values."""
    count = len(values)
    order = np.arange(count)
    for i in range(1, count):
        entry = order[i]
        j = i
        while j > 0 and values[order[j - 1]] > values[entry]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = entry
    half = 0.0
    for i in range(count):
        half += 0.5 * weights[i]
    total = 0.0
    for i in range(count):
        total += weights[order[i]]
        if total >= half:
            return values[order[i]]
    return values[order[count - 1]]


@compiled
def disagreement(told: Floats, variance: Floats, scale: Floats, active: Flags) -> float:
    """Return the variance by which rings tell different shifts, beyond their errors.

    It is that of a ring of `scale` 1; that of others is in proportion. It is what brings
    the median of the squared, scaled differences to the value that chance gives it,
    and zero unless chance is unlikely. Coarse and fine detail differ where the
    light, not the sample, has a gradient, or where the optics distort.
    """
    rings = len(variance)
    axes = 0
    square = np.zeros(rings)
    trust = np.zeros(rings)
    even = np.zeros(rings)
    used = 0
    for ring in range(rings):
        if variance[ring] < np.inf:
            trust[ring] = 1 / variance[ring]
            even[ring] = 1.0
            used += 1
    if used < 6:
        return 0.0
    for i in range(3):
        if active[i]:
            axes += 1
            middle = _middle(told[:, i], trust)
            for ring in range(rings):
                square[ring] += (told[ring, i] - middle) ** 2
    expected = 0.455 if axes == 1 else (0.693 if axes == 2 else 0.789)
    top = 0.0
    for ring in range(rings):
        square[ring] /= axes
        if even[ring] > 0:
            top = max(top, square[ring] / scale[ring])
    if _middle(square * trust, even) < expected * (1 + 5 / math.sqrt(used)):
        return 0.0
    low, high = 0.0, top / expected
    for _ in range(40):
        middle = 0.5 * (low + high)
        if _middle(square / (variance + middle * scale), even) > expected:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@compiled
def halves_apart(
    told: Floats, variance: Floats, weight: Floats, active: Flags
) -> Floats:
    """Return half of what coarse and fine detail differ by, beyond chance, per axis.

    Each half has the same weight. Where noise is faint what remains is an error of
    the model, which grows with the frequency: what bending leaves, or aliasing, or
    edges.
    """
    rings = len(weight)
    total = weight.sum()
    means = np.zeros((2, 3))
    errors = np.zeros(2)
    sums = np.zeros(2)
    for ring in range(rings):
        if weight[ring] > 0:
            half = 0 if 2 * sums[0] < total else 1
            sums[half] += weight[ring]
            errors[half] += weight[ring] ** 2 * variance[ring]
            for i in range(3):
                means[half, i] += weight[ring] * told[ring, i]
    apart = np.zeros(3)
    if sums[1] <= 0:
        return apart
    chance = errors[0] / sums[0] ** 2 + errors[1] / sums[1] ** 2
    for i in range(3):
        if active[i]:
            gap = means[1, i] / sums[1] - means[0, i] / sums[0]
            excess = math.sqrt(max(gap * gap - APART * APART * chance, 0.0))
            apart[i] = math.copysign(0.5 * excess, gap)
    return apart

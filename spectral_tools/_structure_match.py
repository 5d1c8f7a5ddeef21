"""Match windows of two structures: search, fit, and say how sure (floor 2)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._fft import fast_shape, forward_stack, frequencies, inverse_stack
from ._ndimage import shift_image
from ._outcomes import Outcome
from ._search_kernels import chance_level, local_maxima, parabola_tops
from ._structure import Structure

__all__ = ["BELIEVED", "StructureMatch", "match_structures", "no_match"]

Floats = NDArray[np.float64]
Single = NDArray[np.float32]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]

# A shift is believed below this chance of a false alarm.
BELIEVED = 1e-3
# Beyond the shifts that are allowed, so many more pixels tell what chance does.
BEYOND = 20
# Windows must share this much of their weight.
SHARED = 0.25
# Share of each side over which a window falls off, at both ends.
FALL = 0.25
# Another shift as good as this leaves the answer open; of structures that are alike
# by more than `ALIKE`, whatever chance says: lattices meet themselves everywhere.
RIVAL, ALIKE = 0.85, 0.4
# Steps of the fit, how many modes share a weight at least, and how far it may go.
STEPS, RING_MODES, FARTHEST = 4, 40, 2.0
# A step this small, in pixels, is the last.
ENOUGH = 2e-3
# What the weights, found in the same noise, add to the variance, over the squared significance.
UNSURE = 36.0
# Pixels beyond a block that a spline through it needs.
RIM = 6


class StructureMatch(NamedTuple):
    """How far one window moves to where it is seen in the other image.

    Attributes
    ----------
    shift : ndarray of shape (3,)
        Where the window of the reference is in the moving image, less where it was
        thought to be.
    covariance : ndarray of shape (3, 3)
        Its covariance.
    correlation : float
        How alike the structures are there, -1 to 1.
    false_alarm : float
        Probability that chance is as good.
    outcome : Outcome
        What happened.
    """

    shift: Floats
    covariance: Floats
    correlation: float
    false_alarm: float
    outcome: Outcome


def no_match(outcome: Outcome) -> StructureMatch:
    """Return what says that nothing was found."""
    return StructureMatch(np.zeros(3), np.full((3, 3), np.inf), 0.0, 1.0, outcome)


def match_structures(
    reference: Structure, moving: Structure, points: Floats, sides: Ints, reach: Ints
) -> StructureMatch:
    """Find where the window around one point is around another, up to a reach.

    Points are of shape (2, 3), of the reference and of the moving image.
    """
    start = np.rint(points - (sides - 1) / 2).astype(np.intp)
    apart = points[1] - points[0] - (start[1] - start[0])
    # A missing axis has one pixel, and no shifts.
    total = np.where(sides > 1, reach + BEYOND, 0)
    first = cut(reference, start[0], sides)
    second = cut(moving, start[1] - total, sides + 2 * total)
    window = _window(sides)
    surface = likeness(first, second, window)
    if not (surface > 0).any():
        return no_match(Outcome.NO_TEXTURE)
    where, heights = local_maxima(surface, 0.0)
    places = np.stack(np.unravel_index(where, surface.shape), axis=1)
    lags = places - total
    inside = (np.abs(lags) <= reach).all(axis=1)
    if not inside.any():
        return no_match(Outcome.NOT_FOUND)
    best = int(np.argmax(np.where(inside, heights, -1.0)))
    height = float(heights[best])
    near = np.maximum(sides // 16, 3)
    others = (np.abs(lags - lags[best]) > near).any(axis=1)
    false_alarm, _ = chance_level(height, heights[others], int(inside.sum()))
    rival = bool((heights[inside & others] > RIVAL * height).any())

    lag = lags[best] + parabola_tops(surface, places[best : best + 1], False)[0]
    found = fit_shift(first, moving, start[1], sides, lag)
    outcome = Outcome.MATCHED
    if rival and (false_alarm < BELIEVED or height > ALIKE):
        outcome = Outcome.AMBIGUOUS
    elif false_alarm >= BELIEVED or found is None:
        outcome = Outcome.NOT_FOUND
    elif (np.abs(lags[best]) == reach)[sides > 1].any():
        outcome = Outcome.BEYOND_BOUND
    shift, covariance = found or (lag, np.full((3, 3), np.inf))
    return StructureMatch(shift - apart, covariance, height, false_alarm, outcome)


def cut(structure: Structure, low: Ints, shape: Ints) -> Structure:
    """Return a block, with nothing in it where the image ends."""
    field, weight = structure
    sizes = np.array(weight.shape)
    inner_low, inner_high = np.clip(low, 0, sizes), np.clip(low + shape, 0, sizes)
    block = np.zeros((len(field), *shape), np.float32)
    counts = np.zeros(tuple(shape), np.float32)
    here = tuple(map(slice, inner_low, inner_high))
    there = tuple(map(slice, inner_low - low, inner_high - low))
    block[(slice(None), *there)] = field[(slice(None), *here)]
    counts[there] = weight[here]
    return Structure(block, counts)


def likeness(first: Structure, second: Structure, window: Single) -> Single:
    """Return the correlation of a windowed block with a larger one, for all lags.

    Both count only where both have something to say.
    """
    size = np.array(second.weight.shape)
    lags = tuple((size - window.shape + 1).tolist())
    shape = fast_shape(tuple(size.tolist()))
    squares = [(part.field * part.field).sum(axis=0) for part in (first, second)]

    def spectra(volumes: Single) -> NDArray[np.complex64]:
        padded = np.zeros((len(volumes), *shape), np.float32)
        padded[(slice(None), *map(slice, volumes.shape[1:]))] = volumes
        return forward_stack(padded)

    inner = spectra(
        np.concatenate(
            [window * first.field, [window * squares[0], window * first.weight]]
        )
    ).conj()
    outer = spectra(np.concatenate([second.field, [second.weight, squares[1]]]))
    sums = [
        (inner[:-2] * outer[:-2]).sum(axis=0),
        inner[-2] * outer[-2],
        inner[-1] * outer[-1],
        inner[-1] * outer[-2],
    ]
    product, one, other, shared = (
        inverse_stack(total, shape)[tuple(map(slice, lags))] for total in sums
    )
    weight = float(window.sum())
    enough = shared > SHARED * weight
    # What is left of rounding in empty corners is not a likeness.
    floor = 1e-5 * weight
    scale = np.sqrt(np.maximum(one, floor) * np.maximum(other, floor))
    return np.where(enough, product / scale, 0).astype(np.float32)


def fit_shift(
    first: Structure, moving: Structure, start: Ints, sides: Ints, lag: Floats
) -> tuple[Floats, Floats] | None:
    """Return the shift at which two blocks agree best, and its covariance.

    The second block is cut anew for each step; what is left is the slope of the
    phase, weighted by how well rings of frequencies agree.
    """
    window = _window(sides)
    freqs = list(np.meshgrid(*frequencies(tuple(sides.tolist())), indexing="ij"))
    waves = 2 * np.pi * np.stack(freqs)
    rings, counts = _rings(freqs)
    one = forward_stack(window * first.field)
    shift, covariance = lag.copy(), np.zeros((0, 0))
    for _ in range(STEPS):
        # The second window shows what the first does, to the fraction of a pixel.
        second = forward_stack(window * _shifted(moving, start + shift, sides))
        turned, powers = _cross(one, second)
        weights = counts * _weights(turned, powers, rings, counts)
        step, covariance = _newton(turned, weights, waves, sides > 1)
        if not len(covariance):
            return None
        shift = shift + step
        if np.abs(shift - lag).max() > FARTHEST:
            return None
        if np.abs(step).max() < ENOUGH:
            break
    return shift, covariance * _spread_of(window)


def _cross(
    one: NDArray[np.complex64], other: NDArray[np.complex64]
) -> tuple[NDArray[np.complex128], tuple[Floats, Floats]]:
    """Return the cross-spectrum over all channels, and both powers.

    Its phase grows with the frequency times how far the second lies ahead.
    """
    cross = (one * other.conj()).sum(axis=0).astype(np.complex128)
    powers = [
        (part.real**2 + part.imag**2).sum(axis=0).astype(np.float64)
        for part in (one, other)
    ]
    return cross, (powers[0], powers[1])


def _rings(freqs: list[Floats]) -> tuple[NDArray[np.intp], Floats]:
    """Return the ring of each mode, all of enough modes, and how often it counts."""
    radius = np.sqrt(sum(f * f for f in freqs))
    counts = np.full(radius.shape, 2.0)
    last = np.abs(freqs[2])
    counts[(last == 0) | (last == 0.5)] = 1.0
    order = np.argsort(radius, axis=None, kind="stable")
    rings = np.empty(radius.size, np.intp)
    rings[order] = np.arange(radius.size) // RING_MODES
    counts[0, 0, 0] = 0.0
    return rings.reshape(radius.shape), counts


def _weights(
    turned: NDArray[np.complex128],
    powers: tuple[Floats, Floats],
    rings: NDArray[np.intp],
    counts: Floats,
) -> Floats:
    """Return the weight of each mode of the cross-spectrum."""
    sums = [
        np.bincount(rings.ravel(), (counts * part).ravel())
        for part in (turned.real, *powers)
    ]
    scale = np.sqrt(sums[1] * sums[2]) + 1e-30
    modes = np.maximum(np.bincount(rings.ravel(), counts.ravel()), 1)
    # So much coherence is made by chance alone.
    coherence = np.clip(sums[0] / scale - 1 / np.sqrt(modes), 0.0, 0.98)
    gain = coherence / (1 - coherence**2) * modes / scale
    return np.asarray(gain[rings])


def _newton(
    turned: NDArray[np.complex128], weights: Floats, waves: Floats, free: Flags
) -> tuple[Floats, Floats]:
    """Return the step to the top of the weighted sum, and its covariance.

    That is empty where there is no top.

    The errors of the slopes are those that the modes show, whatever makes them: what
    two instruments see differently is as good as noise.
    """
    axes = np.flatnonzero(free)
    ways = waves[axes].reshape(len(axes), -1)
    real = (weights * turned.real).ravel()
    slopes = ways * (weights * turned.imag).ravel()
    curvature = (ways * real) @ ways.T
    step, covariance = np.zeros(3), np.zeros((3, 3))
    if np.linalg.eigvalsh(curvature)[0] <= 1e-12 * max(np.abs(curvature).max(), 1e-30):
        return step, np.zeros((0, 0))
    # A mode and its mirror image are one: its score counts twice, and squared, so.
    small = np.linalg.inv(curvature)
    step[axes] = small @ slopes.sum(axis=1)
    scatter = 2 * (slopes @ slopes.T)
    # The weights are found in the same noise.
    power = 2 * float(np.square(weights * np.abs(turned)).sum())
    unsure = 1 + UNSURE * power / float(real.sum()) ** 2
    covariance[np.ix_(axes, axes)] = unsure * (small @ scatter @ small)
    return step, covariance


def _shifted(moving: Structure, start: Floats, sides: Ints) -> Single:
    """Return the field of a block that starts between pixels."""
    whole = np.rint(start).astype(np.intp)
    rim = np.where(sides > 1, RIM, 0)
    block = cut(moving, whole - rim, sides + 2 * rim).field
    inner = tuple(slice(low, low + size) for low, size in zip(rim, sides, strict=True))
    parts = [shift_image(part, whole - start, order=3)[inner] for part in block]
    return np.stack(parts)


def _window(sides: Ints) -> Single:
    """Return a window that falls off to all sides."""
    parts = []
    for size in sides.tolist():
        edge = (np.arange(size) + 0.5) / max(FALL * size, 1.0)
        edge = np.minimum(np.minimum(edge, edge[::-1]), 1.0)
        parts.append(np.sin(0.5 * np.pi * edge) ** 2 if size > 1 else np.ones(1))
    window = parts[0][:, None, None] * parts[1][:, None] * parts[2]
    return window.astype(np.float32)


def _spread_of(window: Single) -> float:
    """Return how much neighbouring modes share, since windows end softly."""
    squares = np.square(window, dtype=np.float64)
    return float(window.size * (squares**2).sum() / squares.sum() ** 2)

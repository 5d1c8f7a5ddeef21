"""The structure tensor of images, and shifts between its windows in two of them."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._matching.local_agreement import LOOKS_ALIKE
from .._matching.phase_correlate import AMBIGUOUS, BELIEVED
from .._sampling.splines import bspline_weights
from .._shared.arrays import Floats, Ints, Plane
from .._shared.fft import fast_shape, forward_stack, frequencies, inverse_stack
from .._shared.ndimage import distance_transform_edt, gaussian_filter, spline_filter
from .._shared.results import Outcome
from .._spectral.peaks import chance_level, local_maxima, parabola_tops
from .._spectral.tapers import edge_taper
from .refine_pair import WINDOW_OVERLAP

__all__ = [
    "FINEST",
    "Structure",
    "StructureMatch",
    "WindowModes",
    "match_structures",
    "structure_tensor",
    "unmatched_structure",
    "window_modes",
]


# Edges count by how strong they are beside others within this many scales: those of a
# faint part of the image as much as those of a bright one
# (test_structure_does_not_depend_on_contrast).
AROUND = 8.0
# Squared gradients are averaged over this many scales
# (test_structure_turns_with_the_image).
SOFT = 0.3
# Pixels this many scales from where nothing is known do not count
# (test_pixels_that_do_not_count_leave_no_edges).
BORDER = 2.0
# Pixels as wide as a scale, and edges as soft, show no finer detail than two make a wave,
# in cycles per scale (test_images_of_very_different_pixels).
FINEST = 0.5

Spectra = NDArray[np.complexfloating]

# Beyond the shifts that are allowed, so many more pixels tell what chance does
# (test_nothing_in_common_is_not_believed).
BEYOND = 20
# Share of each side over which a window falls off, at both ends
# (test_error_bars_hold_in_noise).
WINDOW_FALL = 0.25
# A bound on shifts is kept to so many pixels
# (test_a_bound_is_kept_to_a_fraction_of_a_pixel).
LOOSE = 0.1
# Steps of the fit, at most (test_refined_points_are_far_better_than_hands).
FIT_STEPS = 4
# So many modes share a weight (test_error_bars_hold_in_noise).
MODES_TOGETHER = 40
# A fit that goes further than this, in pixels, has lost its peak: a guard, which tests of
# noise, masks and lattices do not tell from none.
STRAY = 2.0
# A step this small, in pixels, is the last: a tenth of what instruments allow
# (bench_instruments: hands).
ENOUGH = 2e-3
# What the weights, found in the same noise, add to the variance, over the squared
# significance (test_error_bars_hold_in_noise).
WEIGHTS_UNSURE = 100.0
# Errors of pixels this far apart, in pixels, are independent
# (test_error_bars_hold_in_noise).
CORRELATED = 10.0
# Pixels beyond a block that the cubic spline between its pixels needs
# (test_a_window_between_pixels_is_that_of_scipy).
RIM = 6


class Structure(NamedTuple):
    """Which way edges run at each pixel, and how far they can be trusted.

    Attributes
    ----------
    field : ndarray of float32, shape (channels, *shape)
        Deviation from roundness of the direction of the gradient, times its strength
        beside that of others around; three axes, a missing one comes first.
    weight : ndarray of float32, shape (*shape,)
        One where the field counts, else zero.
    finest : float
        Frequency beyond which there is nothing but interpolation, in cycles per pixel.
    """

    field: Plane
    weight: Plane
    finest: float


def structure_tensor(
    image: NDArray[np.floating], scale: float, valid: NDArray[np.bool_] | None = None
) -> Structure:
    """Return the deviator of the structure tensor of an image, at a scale in pixels.

    The direction of the gradient up to its sign does not change if bright becomes
    dark, nor if contrast grows; its double angle is what averages well.
    """
    known = np.isfinite(image)
    if valid is not None:
        known &= valid
    weight = np.ones(image.shape, np.float32)
    filled = np.asarray(image, np.float32)
    if not known.any():
        weight[:] = 0
        filled = np.zeros_like(filled)
    elif not known.all():
        nearest = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        filled = filled[tuple(nearest)]
        weight[:] = distance_transform_edt(known) > BORDER * scale
    slopes = [
        gaussian_filter(filled, scale, order=order, mode="nearest")
        for order in np.eye(image.ndim, dtype=int).tolist()
    ]
    square = np.asarray(sum(slope * slope for slope in slopes))
    parts = _roundness(slopes, square)
    # Where edges meet, directions jump; means over a few pixels do not.
    soft = [
        gaussian_filter(part, SOFT * scale, mode="nearest") for part in (*parts, square)
    ]
    strength = np.sqrt(np.maximum(soft[-1], 0))
    around = gaussian_filter(strength * weight, AROUND * scale, mode="nearest")
    share = gaussian_filter(weight, AROUND * scale, mode="nearest")
    around /= np.maximum(share, 1e-3)
    # Where nothing is, rounding has directions too.
    floor = 1e-4 * float(strength.max(initial=0)) + 1e-12
    gain = weight / ((strength + around + floor) * (strength + floor))
    channels = (np.stack(soft[:-1]) * gain).astype(np.float32)
    ahead = (np.newaxis,) * (3 - image.ndim)
    finest = FINEST / max(scale, 1.0)
    return Structure(channels[(slice(None), *ahead)], weight[ahead], finest)


def _roundness(slopes: list[Plane], square: Plane) -> Plane:
    """Return the parts of the squared gradient that have a direction."""
    if len(slopes) == 2:
        first, second = slopes
        return np.stack([first * first - second * second, 2 * first * second])
    mean = square / 3
    parts = [np.sqrt(1.5) * (slope * slope - mean) for slope in slopes]
    parts += [np.sqrt(3) * slopes[i] * slopes[i - 1] for i in range(3)]
    return np.stack(parts)


class WindowModes(NamedTuple):
    """What all windows of one size have in common.

    Attributes
    ----------
    sides : ndarray of int, shape (3,)
        Their sides; a missing axis comes first and has one pixel.
    window : ndarray of float32, shape sides
        Weights that fall off to all sides.
    waves : ndarray of shape (3, *modes)
        Frequency of each mode of a real transform, in radians per pixel.
    rings : ndarray of int, shape modes
        Ring of each mode.
    counts : ndarray of shape modes
        How often each mode counts.
    near : ndarray of shape modes
        Spectrum of the weights of pairs of pixels, by how near they are.
    """

    sides: Ints
    window: Plane
    waves: Floats
    rings: Ints
    counts: Floats
    near: Floats


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


def window_modes(sides: Ints, finest: float) -> WindowModes:
    """Return what windows share whose finest detail has a frequency, per pixel."""
    freqs = list(np.meshgrid(*frequencies(tuple(sides.tolist())), indexing="ij"))
    rings, counts = _mode_rings(freqs, finest)
    waves = 2 * np.pi * np.stack(freqs)
    return WindowModes(
        sides, _window(sides), waves, rings, counts, _bartlett_spectrum(sides)
    )


def unmatched_structure(outcome: Outcome) -> StructureMatch:
    """Return what says that nothing was found."""
    return StructureMatch(np.zeros(3), np.full((3, 3), np.inf), 0.0, 1.0, outcome)


def match_structures(
    structures: tuple[Structure, Structure],
    modes: WindowModes,
    reach: Floats,
    points: Floats,
) -> StructureMatch:
    """Find where the window around one point is around another, up to a reach.

    Points are of shape (2, 3), of the reference and of the moving image.
    """
    (reference, moving), sides, window = structures, modes.sides, modes.window
    start = np.rint(points - (sides - 1) / 2).astype(np.intp)
    apart = points[1] - points[0] - (start[1] - start[0])
    # A missing axis has one pixel, and no shifts.
    total = np.where(sides > 1, np.ceil(reach).astype(np.intp) + BEYOND, 0)
    first = cut_structure(reference, start[0], sides)
    second = cut_structure(moving, start[1] - total, sides + 2 * total)
    # Most of an image may show nothing, or lie beyond the other one.
    if not (first.field.any() and second.field.any()):
        return unmatched_structure(Outcome.NO_TEXTURE)
    surface = masked_correlation(first, second, window)
    if not (surface > 0).any():
        return unmatched_structure(Outcome.NO_TEXTURE)
    where, heights = local_maxima(surface, 0.0)
    places = np.stack(np.unravel_index(where, surface.shape), axis=1)
    lags = places - total
    # A top between pixels shows at the next whole lag.
    inside = (np.abs(lags - apart) <= reach + 1).all(axis=1)
    if not inside.any():
        return unmatched_structure(Outcome.NOT_FOUND)
    best = int(np.argmax(np.where(inside, heights, -1.0)))
    height = float(heights[best])
    near = np.maximum(sides // 16, 3)
    others = (np.abs(lags - lags[best]) > near).any(axis=1)
    false_alarm, _ = chance_level(height, heights[others], int(inside.sum()))
    rival = bool((heights[inside & others] > AMBIGUOUS * height).any())

    lag = lags[best] + parabola_tops(surface, places[best : best + 1], False)[0]
    found = fit_structure_shift(first, moving, start[1], modes, lag)
    outcome = Outcome.MATCHED
    # A lattice meets itself everywhere, and sets the level of chance by itself.
    if rival and (false_alarm < BELIEVED or height > LOOKS_ALIKE):
        outcome = Outcome.AMBIGUOUS
    elif false_alarm >= BELIEVED or found is None:
        outcome = Outcome.NOT_FOUND
    shift, covariance = found or (lag, np.full((3, 3), np.inf))
    if outcome == Outcome.MATCHED and (np.abs(shift - apart) > reach + LOOSE).any():
        outcome = Outcome.BEYOND_BOUND
    return StructureMatch(shift - apart, covariance, height, false_alarm, outcome)


def cut_structure(structure: Structure, low: Ints, shape: Ints) -> Structure:
    """Return a block, with nothing in it where the image ends."""
    field, weight, finest = structure
    sizes = np.array(weight.shape)
    inner_low, inner_high = np.clip(low, 0, sizes), np.clip(low + shape, 0, sizes)
    block = np.zeros((len(field), *shape), np.float32)
    counts = np.zeros(tuple(shape), np.float32)
    here = tuple(map(slice, inner_low, inner_high))
    there = tuple(map(slice, inner_low - low, inner_high - low))
    block[(slice(None), *there)] = field[(slice(None), *here)]
    counts[there] = weight[here]
    return Structure(block, counts, finest)


def masked_correlation(first: Structure, second: Structure, window: Plane) -> Plane:
    """Return the masked normalised correlation of a block with a larger one at all lags.

    Both count only where both have something to say.
    """
    size = np.array(second.weight.shape)
    lags = tuple((size - window.shape + 1).tolist())
    shape = fast_shape(tuple(size.tolist()))
    squares = [(part.field * part.field).sum(axis=0) for part in (first, second)]

    def spectra(volumes: Plane) -> NDArray[np.complex64]:
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
    enough = shared > WINDOW_OVERLAP * weight
    # What is left of rounding in empty corners is not a masked_correlation.
    floor = 1e-5 * weight
    scale = np.sqrt(np.maximum(one, floor) * np.maximum(other, floor))
    return np.where(enough, product / scale, 0).astype(np.float32)


def fit_structure_shift(
    first: Structure, moving: Structure, start: Ints, modes: WindowModes, lag: Floats
) -> tuple[Floats, Floats] | None:
    """Return the shift at which two blocks agree best, and its covariance.

    The second block is cut anew for each step; what is left is the slope of the
    phase, weighted by how well rings of frequencies agree.
    """
    sides, window, waves, rings, counts, _ = modes
    one = forward_stack(window * first.field)
    shift = lag.copy()
    for _ in range(FIT_STEPS):
        # The second window shows what the first does, to the fraction of a pixel.
        second = forward_stack(window * _resampled(moving, start + shift, sides))
        powers = [_power(part) for part in (one, second)]
        cross = (one * second.conj()).sum(axis=0)
        gains = _mode_weights(cross.real, powers, rings, counts)
        product = (counts * (gains * one * second.conj()).sum(axis=0)).astype(complex)
        bend = _curvature(product, waves, sides)
        if bend is None:
            return None
        curvature = bend
        step = _step(product, curvature, waves, sides)
        shift = shift + step
        if np.abs(shift - lag).max() > STRAY:
            return None
        if np.abs(step).max() < ENOUGH:
            break
    pair = one, second, gains
    return shift, _covariance(pair, product, curvature, modes)


def _power(spectra: NDArray[np.complex64]) -> Plane:
    return (spectra.real**2 + spectra.imag**2).sum(axis=0)


def _mode_rings(freqs: list[Floats], finest: float) -> tuple[NDArray[np.intp], Floats]:
    """Return the ring of each mode, all of enough modes, and how often it counts.

    Modes that are finer than the pixels of the coarser image agree by chance alone, and
    would be believed most.
    """
    radius = np.sqrt(sum(f * f for f in freqs))
    counts = np.full(radius.shape, 2.0)
    last = np.abs(freqs[2])
    counts[(last == 0) | (last == 0.5)] = 1.0
    order = np.argsort(radius, axis=None, kind="stable")
    rings = np.empty(radius.size, np.intp)
    rings[order] = np.arange(radius.size) // MODES_TOGETHER
    counts[np.max(np.abs(freqs), axis=0) > finest] = 0.0
    counts[0, 0, 0] = 0.0
    return rings.reshape(radius.shape), counts


def _mode_weights(
    agreement: Plane, powers: list[Plane], rings: NDArray[np.intp], counts: Floats
) -> Plane:
    """Return the weight of each mode of the cross-spectrum."""
    sums = [
        np.bincount(rings.ravel(), (counts * part).ravel())
        for part in (agreement, *powers)
    ]
    scale = np.sqrt(sums[1] * sums[2]) + 1e-30
    modes = np.maximum(np.bincount(rings.ravel(), counts.ravel()), 1)
    # So much coherence is made by chance in a few rings.
    coherence = np.clip(sums[0] / scale - 2 / np.sqrt(modes), 0.0, 0.98)
    gain = coherence / (1 - coherence**2) * modes / scale
    return gain[rings].astype(np.float32)


def _curvature(
    product: NDArray[np.complex128], waves: Floats, sides: Ints
) -> Floats | None:
    """Return how the weighted product bends at its top; None where there is none."""
    axes = np.flatnonzero(sides > 1)
    rows = waves[axes].reshape(len(axes), -1)
    bend: Floats = (rows * product.real.ravel()) @ rows.T
    if np.linalg.eigvalsh(bend)[0] <= 1e-12 * max(np.abs(bend).max(), 1e-30):
        return None
    return bend


def _step(
    product: NDArray[np.complex128], curvature: Floats, waves: Floats, sides: Ints
) -> Floats:
    """Return Newton's step to the top of the weighted product."""
    axes = np.flatnonzero(sides > 1)
    rows = waves[axes].reshape(len(axes), -1)
    step = np.zeros(3)
    step[axes] = np.linalg.inv(curvature) @ (rows @ product.imag.ravel())
    return step


def _covariance(
    pair: tuple[Spectra, Spectra, Plane],
    product: NDArray[np.complex128],
    curvature: Floats,
    modes: WindowModes,
) -> Floats:
    """Return the covariance of the shift at the top of the weighted product.

    The errors of the slopes are those that pixels show, in places a few pixels wide:
    what two instruments see differently is as good as noise, but not the same
    everywhere.
    """
    sides, _, waves, _, counts, nearby = modes
    shape, axes = tuple(sides.tolist()), np.flatnonzero(sides > 1)
    one, second, gains = pair
    weighted, small = gains * one, np.linalg.inv(curvature)
    # The slopes of the modes, pixel by pixel: they add up to the same. What both
    # share adds up to nothing, and is left out.
    power = float((counts * gains * _power(one)).sum())
    rest = inverse_stack(second - float(product.real.sum()) / power * one, shape)
    scores = np.stack(
        [
            (inverse_stack(-1j * way * weighted, shape) * rest).sum(axis=0)
            for way in waves[axes]
        ]
    )
    flat = forward_stack(scores * sides.prod()).reshape(len(axes), -1)
    near = nearby * counts / sides.prod()
    scatter = ((flat * near.ravel()) @ flat.conj().T).real
    # The weights are found in the same noise.
    chance = 2 * float((np.abs(product) ** 2 / np.maximum(counts, 1)).sum())
    unsure = 1 + WEIGHTS_UNSURE * chance / float(product.real.sum()) ** 2
    covariance = np.zeros((3, 3))
    covariance[np.ix_(axes, axes)] = unsure * (small @ scatter @ small)
    return covariance


def _bartlett_spectrum(sides: Ints) -> Floats:
    """Return the spectrum of Bartlett weights of pairs of pixels, less the further apart.

    They keep the covariance of errors that are correlated in space positive (Conley 1999,
    :doi:`10.1016/S0304-4076(98)00084-0`).
    """
    lines = []
    for size in sides.tolist():
        away = np.minimum(np.arange(size), size - np.arange(size))
        lines.append(np.maximum(1 - away / CORRELATED, 0.0) if size > 1 else np.ones(1))
    kernel = lines[0][:, None, None] * lines[1][:, None] * lines[2]
    return forward_stack(kernel).real


def _resampled(moving: Structure, start: Floats, sides: Ints) -> Plane:
    """Return the field of a block that starts between pixels, by a cubic spline."""
    whole = np.rint(start).astype(np.intp)
    rim = np.where(sides > 1, RIM, 0)
    block = cut_structure(moving, whole - rim, sides + 2 * rim).field
    shown = np.stack([spline_filter(part, 3, output=np.float32) for part in block])
    # A shift is the same for all pixels, and so axis by axis.
    for axis in np.flatnonzero(sides > 1).tolist():
        part = float(start[axis] - whole[axis])
        low, size = math.floor(part), int(sides[axis])
        lines = np.moveaxis(shown, axis + 1, -1)
        total = sum(
            weight * lines[..., first : first + size]
            for first, weight in enumerate(
                bspline_weights(np.array(part - low)), RIM + low - 1
            )
        )
        shown = np.moveaxis(np.asarray(total), -1, axis + 1)
    return shown


def _window(sides: Ints) -> Plane:
    """Return a window that falls off to all sides."""
    planes, rows, cols = (
        edge_taper(size, max(WINDOW_FALL * size, 1.0), 0.0) for size in sides.tolist()
    )
    window = planes[:, None, None] * rows[:, None] * cols
    return window.astype(np.float32)

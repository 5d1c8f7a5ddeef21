"""Gauss-Newton fits of frames to an image under them, with weights that are known."""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from ..._sampling.splines import bsplines_at, prefilter, spline_margin
from ..._sampling.subpixel_moves import under_frame
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.compiled import compiled
from ..._shared.fft import fast_shape, forward, inverse
from .image_fit_kernels import (
    FILTERED,
    FRAME,
    GRAM,
    IMAGE,
    SLOPES,
    product_sums,
)
from .mean_image import LEAST, Noise, PlacedImage, radial_frequencies, ring_powers

__all__ = [
    "SHOWN",
    "FrameFit",
    "ImageModel",
    "RingWeights",
    "effective_number",
    "equalize_light",
    "filter_image",
    "fit_frame",
    "prepare_model",
    "ring_weights",
]


# Share of a light slope that must be left of it beside earlier ones, or it is rounding
# (test_a_few_frames_of_a_few_pixels_are_aligned_or_not_without_a_warning).
FLAT = 1e-9
# Spline coefficients around an image that a spline in single precision needs.
MARGIN = spline_margin(3, np.dtype(np.float32)) + 1
# Standard deviations up to which noise may hide a signal, or pass for one
# (test_no_frame_stays_a_period_of_a_lattice_away,
# test_periods_of_a_noisy_lattice_are_not_told).
SHOWN = 3.0
# Least power of noise that is believed, in units of the variance of the image: where there
# is less, what sampling and the ends of images leave in fine detail would lead
# (test_frames_without_noise_are_found).
FAINT = 1e-3
# Pixels that an image goes on mirrored for beyond its ends before it is filtered
# (test_error_is_at_the_bound_of_a_perfect_template).
REACH = 24
# Longest step of a fit, in pixels: slopes tell no more (test_drift_may_go_beyond_half_a_frame).
LONGEST = 1.0
# Last step of a fit, in pixels and in standard deviations, of which the next one would
# leave a tenth (test_error_bars_without_noise_are_not_below_what_fits_settle_to).
SHORT = 2e-3
SHORT_SIGMAS = 0.5


@compiled
def lay_frame(
    shift: Floats, origin: Ints, shape: Ints, size: Ints, lead: Ints
) -> tuple[Ints, Ints, Ints, Volume, Volume]:
    """Return where a frame at a shift lies on the bumps of a picture.

    Parameters
    ----------
    shift : ndarray of shape (3,)
        Where pixel (0, 0, 0) of the frame lies, in the reference.
    origin, shape : ndarray of shape (3,)
        Where the picture begins there, and how large it is.
    size : ndarray of shape (3,)
        How large the frame is.
    lead : ndarray of shape (3,)
        Which bump belongs to pixel (0, 0, 0) of the picture; 0 along axes of one pixel.

    Returns
    -------
    base : ndarray of shape (3,)
        The first of the bumps that pixel (0, 0, 0) of the frame is made of.
    box : ndarray of shape (2, 3)
        First pixel of the frame that lies on the picture, and the one after the last;
        these are not above the first ones where none does.
    whole : ndarray of shape (3,)
        The pixel of the picture under pixel (0, 0, 0) of the frame.
    value, slope : ndarray of shape (3, 4)
        Weights of the four cubic bumps around a place, and their slopes.
    """
    base, whole = np.zeros((2, 3), np.intp)
    box = np.zeros((2, 3), np.intp)
    value, slope = np.zeros((2, 3, 4), np.float32)
    for axis in range(3):
        place = shift[axis] - origin[axis]
        # What rounding leaves below a pixel is that pixel.
        whole[axis] = math.floor(place + 1e-9)
        part = max(place - whole[axis], 0.0) if size[axis] > 1 else 0.0
        beyond = 1 if part > 0 else 0
        box[0, axis] = max(-whole[axis], 0)
        box[1, axis] = min(size[axis], shape[axis] - whole[axis] - beyond)
        base[axis] = whole[axis]
        if size[axis] > 1:
            base[axis] += lead[axis] - 1
            weights, rises = bsplines_at(part, 0), bsplines_at(part, 1)
            for k in range(4):
                value[axis, k], slope[axis, k] = weights[k], rises[k]
        else:
            value[axis, 0] = 1
    return base, box, whole, value, slope


@compiled
def sweep_light(gram: Floats, active: Flags) -> None:
    """Take what even slopes explain off products of a frame and an image, in place.

    Light changes from frame to frame, and from one side to the other. Above the products
    are then the slopes that explain most: a constant, and one along each axis. The sweep
    operator of Goodnight (1979, :doi:`10.1080/00031305.1979.10482685`).
    """
    whole = np.diag(gram).copy()
    for i in range(4):
        pivot = gram[i, i]
        if not ((i == 0 or active[i - 1]) and pivot > FLAT * whole[i]):
            # Earlier ones explain it, and it tells nothing new.
            gram[i] = 0
            continue
        gram[i] /= pivot
        for j in range(len(gram)):
            if j != i:
                share = gram[j, i]
                gram[j] -= share * gram[i]
                gram[j, i] = -share / pivot
        gram[i, i] = 1 / pivot


@compiled
def gauss_newton_step(
    gram: Floats, tables: Floats, box: Ints, active: Flags, scale: float
) -> tuple[bool, Floats, Floats]:
    """Return whether slopes tell a step along all axes, the step, and its variance.

    Parameters
    ----------
    gram : ndarray of shape (10, 10)
        What `sweep_light` leaves.
    tables : ndarray of shape (6, planes + 1, rows + 1, cols + 1)
        Those of a model.
    box : ndarray of shape (2, 3)
        First pixel of the image that lies under the frame, and the one after the last.
    active : ndarray of shape (3,)
        Which axes are longer than a pixel; there is no step along others.
    scale : float
        What makes sums of products of slopes those of the scene alone.

    Returns
    -------
    told : bool
        Whether the sums of products of slopes are positive definite, as far as their
        determinant says.
    step : ndarray of shape (3,)
        The step in pixels.
    back : ndarray of shape (3, 3)
        The inverse of these sums.
    """
    (a, b, c), (d, e, f) = box
    bend = np.zeros((3, 3))
    row = 0
    for i in range(3):
        for j in range(i, 3):
            t = tables[row]
            row += 1
            total = t[d, e, f] - t[a, e, f] - t[d, b, f] - t[d, e, c]
            total += t[a, b, f] + t[a, e, c] + t[d, b, c] - t[a, b, c]
            bend[i, j] = bend[j, i] = scale * total
    for axis in range(3):
        if not active[axis]:
            bend[axis, axis] = 1
    back = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            p, q, r, s = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
            back[j, i] = bend[p, r] * bend[q, s] - bend[p, s] * bend[q, r]
    size = bend[0, 0] * back[0, 0] + bend[0, 1] * back[1, 0] + bend[0, 2] * back[2, 0]
    step = np.zeros(3)
    if not size > 0:
        return False, step, back
    back /= size
    gain = gram[FRAME, FILTERED] / gram[IMAGE, FILTERED]
    for i in range(3):
        for j in range(3):
            if not (active[i] and active[j]):
                back[i, j] = 0
            left = gram[FRAME, SLOPES + j] - gain * gram[IMAGE, SLOPES + j]
            step[i] += back[i, j] * left / gain
    return True, step, back


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RingWeights:
    """Power spectra of an image and of the noise of frames, and weights of modes."""

    radius: Floats  # in cycles per pixel
    count: Floats  # independent modes
    power: Floats  # of the image, noise and all
    noise: Floats  # power of the noise of a frame
    signal: Floats  # power of the scene
    weight: Floats  # of a mode that a frame shares with the image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageModel:
    """An image, and the filtered one whose slopes tell how frames lie on it.

    Pixel k of the image lies at ``k + origin`` of the reference, and spline coefficient
    ``k + MARGIN`` belongs to it along each axis longer than a pixel.
    """

    plain: Volume  # (channels, planes, rows, cols), B-spline coefficients
    filtered: Volume
    known: Volume  # (planes, rows, cols), or of one pixel if all is known
    origin: Ints  # (3,)
    shape: Ints  # (3,) of the image
    tables: Floats  # (6, planes + 1, rows + 1, cols + 1): integrals of slope products
    signal: float  # the share of these that is no noise
    spread: float  # variance of what a slope tells, in units of that
    chance: float  # variance of a product with the filtered image, in that unit
    variance: float  # of a pixel, which these are for
    modes: float  # independent numbers that make most of the image
    likeness: float  # correlation that a frame has with it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFit:
    """How a frame lies on an image."""

    shift: Floats
    covariance: Floats
    correlation: float
    gain: float
    light: Floats  # (channels, 4): what is added, and its slopes from the middle on
    significance: float  # of the gain, in standard deviations


def equalize_light(frame: Volume, fit: FrameFit) -> Volume:
    """Return a frame in the light of the image that it was fitted to."""
    axes = [np.arange(n) - 0.5 * (n - 1) for n in frame.shape[1:]]
    result = np.empty_like(frame)
    for channel, out, (level, *slopes) in zip(frame, result, fit.light, strict=True):
        one, two, three = (a * axis for a, axis in zip(slopes, axes, strict=True))
        added = (level + one)[:, None, None] + two[:, None] + three
        out[:] = (channel - added) / fit.gain
    return result


def prepare_model(
    image: PlacedImage,
    noise: Noise,
    ratio: float,
    typical: Floats,
    size: tuple[int, ...],
    inside: bool = False,
) -> ImageModel:
    """Prepare an image whose noise has `ratio` times the variance of that of a frame.

    What frames of a size at a `typical` shift would see tells its spectrum. Frames that
    the image was made of lie `inside` it, and differ from it less than others.
    """
    pixels, known, origin = image
    seen, _ = under_frame(pixels, origin, np.rint(typical), (len(pixels), *size))
    rings = ring_weights(seen, noise, ratio)
    count, power, weight = rings.count, rings.power, rings.weight
    own, signal = ratio * rings.noise, rings.signal
    differ = rings.noise - own if inside else rings.noise + own
    # Sums over modes, and over their squared frequency: what a slope tells of a shift.
    modes = count * rings.radius**2
    curvature = float((modes * weight * power).sum())
    information = float((modes * weight * signal).sum())
    spread = float((modes * weight**2 * power * differ).sum())
    chance = float((count * weight**2 * power * differ).sum())
    shared = float((count * weight * signal).sum())
    whole = float(np.mean([channel.var() for channel in seen]))
    clean = max(whole - ratio * noise.variance, 0.0)
    filtered = filter_image(pixels, rings)
    plain, smooth = _spline_coefficients(pixels), _spline_coefficients(filtered)
    partly = known is not None and not known.all()
    everywhere = np.ones(pixels.shape[1:], np.bool_) if known is None else known
    # Each mode has two numbers; in the channels they need not differ.
    numbers = 2 * count / len(pixels)
    return ImageModel(
        modes=effective_number(numbers, power),
        likeness=clean / math.sqrt(whole * (clean + noise.variance) + 1e-30),
        plain=plain,
        filtered=smooth,
        known=_known_cells(everywhere) if partly else np.ones((1, 1, 1), np.float32),
        origin=origin,
        shape=np.array(pixels.shape[1:]),
        tables=_slope_tables(plain, smooth, everywhere),
        signal=information / curvature if curvature > 0 else 0.0,
        spread=spread / information if information > 0 else math.inf,
        chance=chance / shared if shared > 0 else math.inf,
        variance=noise.variance * (1 - ratio if inside else 1 + ratio),
    )


def effective_number(count: Floats, power: Floats) -> float:
    """Return how many numbers of equal power vary as much as these do together."""
    return float((count * power).sum() ** 2 / ((count * power**2).sum() + 1e-30))


def ring_weights(seen: Volume, noise: Noise, ratio: float) -> RingWeights:
    """Weigh what frames see of an image with `ratio` times the variance of their noise.

    The weight is that of a phase that two noisy images share (Knapp and Carter 1976,
    :doi:`10.1109/TASSP.1976.1162830`).
    """
    radius, count, power = ring_powers([seen])
    level = np.maximum(noise.power, FAINT * float(np.mean([c.var() for c in seen])))
    own = ratio * level
    signal = power - own
    signal[signal < SHOWN * own * np.sqrt(1 / count + 1 / noise.count)] = 0
    return RingWeights(
        radius=radius,
        count=count,
        power=power,
        noise=level,
        signal=signal,
        weight=signal / (signal * (level + own) + level * own + 1e-30),
    )


def filter_image(pixels: Volume, rings: RingWeights) -> Volume:
    """Return an image with the weights of its rings."""
    shape = pixels.shape[1:]
    pads = [(min(REACH, n - 1),) * 2 if n > 1 else (0, 0) for n in shape]
    wide = np.pad(pixels, [(0, 0), *pads], mode="reflect")
    size = fast_shape(wide.shape[1:])
    radius = radial_frequencies(size)
    factor = np.interp(radius, rings.radius, rings.weight).astype(np.float32)
    inside = tuple(slice(a, a + n) for (a, _), n in zip(pads, shape, strict=True))
    result = np.empty_like(pixels)
    for channel, out in zip(wide, result, strict=True):
        ends = [(0, m - n) for m, n in zip(size, channel.shape, strict=True)]
        image = np.pad(channel - channel.mean(), ends, mode="edge")
        out[:] = inverse(forward(image) * factor, size)[inside]
    return result


def _spline_coefficients(pixels: Volume) -> Volume:
    """Return the coefficients of cubic B-splines through an image, and around it."""
    # A mirror may be needed more than once where an image is small.
    wide = np.pad(pixels, [(0, 0), *_margins(pixels.shape[1:])], mode="symmetric")
    for channel in wide:
        prefilter(channel, 3)
    return wide


def _known_cells(known: Flags) -> Volume:
    """Return where an image is known at a spline coefficient and at the next ones."""
    inner = known.copy()
    for axis, n in enumerate(known.shape):
        if n > 1:
            back = (slice(None),) * axis + (slice(1, None),)
            front = (slice(None),) * axis + (slice(None, -1),)
            inner[front] &= inner[back].copy()
    return np.pad(inner.astype(np.float32), _margins(known.shape))


def _margins(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(MARGIN, MARGIN) if n > 1 else (0, 0) for n in shape]


def _slope_tables(plain: Volume, filtered: Volume, known: Flags) -> Floats:
    """Return integral images of the products of the slopes of two images."""
    tables = np.zeros((6, *np.add(known.shape, 1)))
    axes = [axis for axis, n in enumerate(known.shape) if n > 1]
    one, two = (
        {i: _slope(each, i, known.shape) for i in axes} for each in (plain, filtered)
    )
    for table, (i, j) in zip(
        tables, combinations_with_replacement(range(3), 2), strict=True
    ):
        if i in axes and j in axes:
            both = 0.5 * (one[i] * two[j] + one[j] * two[i]).sum(axis=0) * known
            sums = both.cumsum(axis=0, dtype=float).cumsum(axis=1).cumsum(axis=2)
            table[1:, 1:, 1:] = sums
    return tables


def _slope(spline: Volume, along: int, shape: tuple[int, ...]) -> Volume:
    """Return the slopes along an axis at the pixels of an image, from its coefficients."""
    for axis, n in enumerate(shape, 1):
        if n > 1:
            lead = (slice(None),) * axis
            before, at, after = (
                spline[*lead, k : k + n] for k in range(MARGIN - 1, MARGIN + 2)
            )
            if axis == along + 1:
                spline = 0.5 * (after - before)
            else:
                spline = (before + after) / 6 + at * (2 / 3)
    return spline


def fit_frame(
    model: ImageModel,
    frame: Volume,
    start: Floats,
    *,
    weight: Volume | None = None,
    steps: int = 6,
) -> FrameFit | None:
    """Find the shift of a frame near `start`; None if too little lies on the image.

    Gauss-Newton steps of Lucas and Kanade, with the slopes of the filtered image.
    """
    # Strategy: what an image does not explain, F - a T(s) - b, must be unlike the
    # slopes of the filtered image. That holds at the true shift wherever the
    # frame ends, and the filter only makes it sharp.
    shift = start.copy()
    size = np.array(frame.shape[1:])
    pixels = math.prod(frame.shape[1:])
    active = size > 1
    lead = np.where(active, MARGIN, 0)
    counts = np.ones((1, 1, 1), np.float32) if weight is None else weight
    for _ in range(steps):
        base, box, whole, value, slope = lay_frame(
            shift, model.origin, model.shape, size, lead
        )
        covered = math.prod(np.maximum(box[1] - box[0], 0).tolist())
        if covered < LEAST * pixels:
            return None
        gram, total, light = np.zeros(GRAM), 0.0, []
        channels = zip(frame, model.plain, model.filtered, strict=True)
        for one, plain, filtered in channels:
            sums = product_sums(
                one, counts, plain, filtered, model.known, base, box, value, slope
            )
            counted = float(sums[0, 0])
            if counted < LEAST * pixels:
                return None
            total += counted
            sweep_light(sums, active)
            gram += sums
            light.append(sums[:FRAME, FRAME : IMAGE + 1].T)
        (power, both, along), (_, own, across) = gram[
            FRAME : IMAGE + 1, FRAME : FILTERED + 1
        ].tolist()
        if not (along > 0 and across > 0 and power > 0):
            return None
        gain = along / across
        scale = model.signal * total / len(frame) / covered
        told, step, back = gauss_newton_step(
            gram, model.tables, box + whole, active, scale
        )
        if not told:
            return None
        longest = float(np.abs(step).max())
        rest = max(power - 2 * gain * both + gain**2 * own, 0.0)
        noise = rest / total / max(model.variance, 1e-30)
        covariance = back * (model.spread * noise / gain**2)
        shift = shift + step * min(1.0, LONGEST / max(longest, 1e-30))
        sigma = math.sqrt(max(float(covariance.diagonal().max()), 0.0))
        if longest < SHORT + SHORT_SIGMAS * sigma:
            break
    correlation = both / math.sqrt(max(power * own, 1e-30))
    spread = math.sqrt(max(across * model.chance * noise, 1e-30))
    return FrameFit(
        shift=shift,
        covariance=covariance,
        correlation=min(max(correlation, -1.0), 1.0),
        gain=gain,
        light=np.array([one - gain * two for one, two in light]),
        significance=along / spread,
    )

"""Fit frames to a picture that lies under them, with weights that are known (floor 5)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._canvas_mean import under_frame
from ._fft import fast_shape, forward, frequencies, inverse
from ._overlay_kernels import SUMS, bump_taps, overlay_sums
from ._spectral_kernels import ring_edges
from ._spline_kernels import prefilter, spline_margin

__all__ = ["Noise", "Overlay", "OverlayFit", "fit_overlay", "lay_out", "measure_noise"]

Volume = NDArray[np.float32]
Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Known = NDArray[np.bool_]

# So many bumps around a picture are needed for a spline in single precision.
MARGIN = spline_margin(3, np.dtype(np.float32)) + 1
# Rings of frequencies have at least so many modes and this share of their frequency.
RING_MODES, RING_SHARE = 12.0, 0.1
# A ring shows a signal if it stands out of the noise by so many standard deviations.
SHOWN = 2.0
# Power of what sampling and rounding leave, in units of the picture's variance.
FAINT = 1e-7
# Beyond its ends a picture goes on mirrored for so many pixels before it is filtered.
REACH = 24
# A step goes this far at most, in pixels, and leaves this share of the error; a fit ends
# where that is less than so many pixels and standard deviations.
LONGEST, LEFT, SHORT, SHORT_SIGMAS = 1.0, 0.1, 2e-4, 0.05
# This share of a frame must lie on the picture.
LEAST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """What frames show beside the scene, by rings of frequencies."""

    radius: Floats  # of each ring, in cycles per pixel
    count: Floats  # modes of the ring that were seen
    power: Floats  # of a pixel of a frame, at each mode
    variance: float  # of a pixel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlay:
    """A picture, and the filtered one that tells how frames lie on it.

    Pixel k of the picture lies at ``k + origin`` of the reference, and bump
    ``k + MARGIN`` belongs to it along each axis longer than a pixel.
    """

    plain: Volume  # (channels, planes, rows, cols), heights of bumps
    filtered: Volume
    known: Volume  # (planes, rows, cols), or of one pixel if all is known
    origin: Ints  # (3,)
    shape: Ints  # (3,) of the picture
    tables: Floats  # (6, planes + 1, rows + 1, cols + 1): sums of products of slopes
    signal: float  # the share of these that is no noise
    spread: float  # variance of what a slope tells, in units of that
    chance: float  # variance of a product with the filtered picture, in that unit
    variance: float  # of a pixel, which these are for
    modes: float  # independent numbers that make most of the picture
    likeness: float  # correlation that a frame has with it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverlayFit:
    """How a frame lies on a picture."""

    shift: Floats
    covariance: Floats
    correlation: float
    gain: float
    variance: float  # of what the picture does not explain
    significance: float  # of the gain, in standard deviations
    step: float  # the last one, in pixels
    share: float  # of the frame, that counts


def radii(shape: tuple[int, ...]) -> Floats:
    one, two, three = frequencies(shape)
    return np.sqrt(one[:, None, None] ** 2 + two[:, None] ** 2 + three**2)


def _hann(shape: tuple[int, ...]) -> Volume:
    one, two, three = (
        np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 if n > 1 else np.ones(1)
        for n in shape
    )
    window = one[:, None, None] * two[:, None] * three
    return (window / math.sqrt(float((window**2).mean()))).astype(np.float32)


def ring_powers(images: list[Volume]) -> tuple[Floats, Floats, Floats]:
    """Return the radius, the modes and the mean power of rings, of (c, p, r, c) images."""
    shape = images[0].shape[1:]
    long = [n for n in shape if n > 1]
    width = math.prod(long) ** (-1 / len(long))
    edges = ring_edges(np.array(shape), width, 0.5, RING_MODES, RING_SHARE)
    radius = radii(shape)
    ring = np.searchsorted(edges, (radius**2).ravel()).clip(0, len(edges) - 1)
    window = _hann(shape)
    power = np.zeros(radius.shape)
    for image in images:
        for channel in image:
            faded = window * (channel - float((channel * window).sum() / window.sum()))
            power += np.abs(forward(faded)) ** 2
    total = len(images) * len(images[0])
    count = np.bincount(ring, minlength=len(edges))
    mean = np.bincount(ring, power.ravel(), len(edges)) / np.maximum(count, 1)
    middle = np.bincount(ring, radius.ravel(), len(edges)) / np.maximum(count, 1)
    there = count > 0
    # A Hann window blurs modes: of those in a plane about a third are independent.
    return middle[there], 0.35 * total * count[there], mean[there] / total / math.prod(
        shape
    )


def measure_noise(
    frames: list[Volume],
    shifts: Floats,
    picture: tuple[Volume, Ints],
    share: float,
    known: list[Known | None] | None = None,
) -> Noise:
    """Measure what a picture does not explain of frames that make a `share` of it each."""
    left = []
    for n, (frame, shift) in enumerate(zip(frames, shifts, strict=True)):
        scene, there = under_frame(*picture, shift, frame.shape)
        mask = there if known is None or known[n] is None else there & known[n]
        if mask.sum() < LEAST * mask.size:
            continue
        rest = np.zeros_like(frame)
        for out, one, two in zip(rest, frame, scene, strict=True):
            a, b = one[mask], two[mask]
            b = b - b.mean()
            gain = float((a * b).sum(dtype=float) / max((b * b).sum(dtype=float), 1e-30))
            out[mask] = a - a.mean() - gain * b
        # What does not count is zero, which takes its share of the power.
        left.append(rest / math.sqrt(float(mask.mean())))
    if not left:
        left = [frame for frame in frames]
    radius, count, power = ring_powers(left)
    power = power / max(1 - share, 0.5)
    variance = float(np.mean([np.square(one).mean() for one in left])) / max(1 - share, 0.5)
    return Noise(radius=radius, count=count, power=power, variance=variance)


def lay_out(
    pixels: Volume,
    known: Known | None,
    origin: Ints,
    noise: Noise,
    part: float,
    typical: Floats,
    size: Ints,
    inside: bool = False,
) -> Overlay:
    """Prepare a picture that holds this `part` of the noise of a frame.

    The part under a frame at a `typical` shift tells its spectrum. Frames that the
    picture was made of lie `inside` it, and differ from it less than others.
    """
    seen, _ = under_frame(pixels, origin, np.rint(typical), (len(pixels), *size.tolist()))
    radius, here, power = ring_powers([seen])
    count = np.maximum(here, noise.count)
    level = np.maximum(noise.power, FAINT * float(np.mean([c.var() for c in seen])))
    own = part * level
    signal = power - own
    signal[signal < SHOWN * own / np.sqrt(count)] = 0
    both = level + own
    differ = level - own if inside else both
    weight = np.where(signal > 0, signal / (signal * both + level * own + 1e-30), 0.0)
    # The weight of a phase that two noisy images share (Knapp & Carter 1976).
    modes = count * radius**2
    bend = float((modes * weight * power).sum())
    true = float((modes * weight * signal).sum())
    spread = float((modes * weight**2 * power * differ).sum())
    chance = float((count * weight**2 * power * differ).sum())
    told = float((count * weight * signal).sum())
    clean = float((count * np.maximum(power - own, 0)).sum())
    likeness = clean / math.sqrt(
        float((count * power).sum()) * (clean + float((count * level).sum())) + 1e-30
    )
    filtered = _filtered(pixels, radius, weight)
    plain, smooth = _bumps(pixels), _bumps(filtered)
    flags = np.ones((1, 1, 1), np.float32)
    if known is not None and not known.all():
        flags = _between(known)
    # Each mode has two numbers; in the channels they need not differ.
    ways = 2 * here / len(pixels)
    return Overlay(
        modes=float((ways * power).sum() ** 2 / ((ways * power**2).sum() + 1e-30)),
        likeness=likeness,
        plain=plain,
        filtered=smooth,
        known=flags,
        origin=origin,
        shape=np.array(pixels.shape[1:]),
        tables=_slope_tables(plain, smooth, known),
        signal=true / bend if bend > 0 else 0.0,
        spread=spread / true if true > 0 else math.inf,
        chance=chance / told if told > 0 else math.inf,
        variance=noise.variance * (1 - part if inside else 1 + part),
    )


def _filtered(pixels: Volume, radius: Floats, weight: Floats) -> Volume:
    shape = pixels.shape[1:]
    pads = [(min(REACH, n - 1),) * 2 if n > 1 else (0, 0) for n in shape]
    wide = np.pad(pixels, [(0, 0), *pads], mode="reflect")
    size = fast_shape(wide.shape[1:])
    factor = np.interp(radii(size), radius, weight).astype(np.float32)
    inside = tuple(slice(a, a + n) for (a, _), n in zip(pads, shape, strict=True))
    result = np.empty_like(pixels)
    for channel, out in zip(wide, result, strict=True):
        ends = [(0, m - n) for m, n in zip(size, channel.shape, strict=True)]
        image = np.pad(channel - channel.mean(), ends, mode="edge")
        out[:] = inverse(forward(image) * factor, size)[inside]
    return result


def _bumps(pixels: Volume) -> Volume:
    pads = [(MARGIN, MARGIN) if n > 1 else (0, 0) for n in pixels.shape[1:]]
    # A mirror may be needed more than once where an image is small.
    wide = np.pad(pixels, [(0, 0), *pads], mode="symmetric")
    for channel in wide:
        prefilter(channel, 3)
    return wide


def _between(known: Known) -> Volume:
    """Return where a picture is known at a bump and at the next ones."""
    inner = known.copy()
    for axis, n in enumerate(known.shape):
        if n > 1:
            back = (slice(None),) * axis + (slice(1, None),)
            front = (slice(None),) * axis + (slice(None, -1),)
            inner[front] &= inner[back].copy()
    pads = [(MARGIN, MARGIN) if n > 1 else (0, 0) for n in known.shape]
    return np.pad(inner.astype(np.float32), pads)


def _slope_tables(plain: Volume, filtered: Volume, known: Known | None) -> Floats:
    """Return running sums of the products of the slopes of two pictures."""
    inside = tuple(
        slice(MARGIN, -MARGIN) if n > 1 else slice(None) for n in plain.shape[1:]
    )
    shape = plain[0][inside].shape
    tables = np.zeros((6, *(n + 1 for n in shape)))
    active = [axis for axis in range(3) if shape[axis] > 1]
    for one, two in zip(plain, filtered, strict=True):
        first = {axis: _slope(one, axis)[inside] for axis in active}
        second = {axis: _slope(two, axis)[inside] for axis in active}
        for i in active:
            for j in active:
                if j >= i:
                    product = first[i] * second[j]
                    if j > i:
                        product = 0.5 * (product + first[j] * second[i])
                    tables[_row(i, j), 1:, 1:, 1:] += product
    if known is not None:
        tables[:, 1:, 1:, 1:] *= known
    for axis in active:
        np.cumsum(tables, axis=axis + 1, out=tables)
    return tables


def _row(i: int, j: int) -> int:
    """Return the row of a pair of axes, i <= j, in a table."""
    return i * (5 - i) // 2 + j


def _slope(bumps: Volume, along: int) -> Any:
    """Return the slope of a spline at its pixels, along one axis."""
    result: Any = bumps
    for axis, n in enumerate(bumps.shape):
        if n == 1:
            continue
        result = np.moveaxis(result, axis, 0)
        new = np.zeros_like(result)
        if axis == along:
            new[1:-1] = 0.5 * (result[2:] - result[:-2])
        else:
            new[1:-1] = result[1:-1] * (2 / 3) + (result[2:] + result[:-2]) / 6
        result = np.moveaxis(new, 0, axis)
    return result


def _curvature(overlay: Overlay, box: Ints) -> Floats:
    """Return the sums of products of slopes in a box of the picture."""
    result = np.zeros((3, 3))
    row = 0
    (a, b, c), (d, e, f) = box.tolist()
    for i in range(3):
        for j in range(i, 3):
            t = overlay.tables[row]
            value = t[d, e, f] - t[a, e, f] - t[d, b, f] - t[d, e, c]
            value += t[a, b, f] + t[a, e, c] + t[d, b, c] - t[a, b, c]
            result[i, j] = result[j, i] = value
            row += 1
    return result


def fit_overlay(
    overlay: Overlay,
    frame: Volume,
    start: Floats,
    *,
    weight: Volume | None = None,
    steps: int = 6,
) -> OverlayFit | None:
    """Find the shift of a frame near `start`; None if too little lies on the picture."""
    # Strategy: what a picture does not explain, F - a T(s) - b, must be unlike the
    # slopes of the filtered picture. That holds at the true shift wherever the
    # frame ends, and the filter only makes it sharp.
    shift = start.copy()
    size = np.array(frame.shape[1:])
    active = size > 1
    counts = np.ones((1, 1, 1), np.float32) if weight is None else weight
    fit = None
    for _ in range(steps):
        place = shift - overlay.origin
        whole = np.floor(place + 1e-9).astype(np.intp)
        parts = np.where(active, np.maximum(place - whole, 0.0), 0.0)
        first = np.maximum(-whole, 0)
        stop = np.minimum(size, overlay.shape - whole - (parts > 0))
        if (stop <= first).any() or (stop - first).prod() < LEAST * size.prod():
            return None
        base = whole + np.where(active, MARGIN - 1, 0)
        value, slope = bump_taps(parts, ~active)
        table = np.zeros(SUMS)
        middle = np.zeros(SUMS)
        for one, plain, filtered in zip(
            frame, overlay.plain, overlay.filtered, strict=True
        ):
            sums = overlay_sums(
                one, counts, plain, filtered, overlay.known, base,
                np.stack([first, stop]), value, slope,
            )  # fmt: skip
            if sums[0] < LEAST * size.prod():
                return None
            table += sums
            means = sums / sums[0]
            f, t, z, g = means[1], means[2], means[3], means[4:7]
            middle[7:12] += sums[0] * np.array([f * f, t * t, f * t, f * z, t * z])
            middle[12:15] += sums[0] * f * g
            middle[15:18] += sums[0] * t * g
        table -= middle
        if not table[10] > 0 or not table[11] > 0 or not table[7] > 0:
            return None
        gain = table[10] / table[11]
        box = np.stack([first + whole, stop + whole])
        share = table[0] / len(frame) / (stop - first).prod()
        bend = _curvature(overlay, box) * share * overlay.signal
        bend[~active, ~active] = 1
        if not np.linalg.det(bend) > 0:
            return None
        back = np.linalg.inv(bend)
        step = back @ (table[12:15] - gain * table[15:18]) / gain
        step[~active] = 0
        longest = float(np.abs(step).max())
        step *= min(1.0, LONGEST / max(longest, 1e-30))
        rest = max(table[7] - 2 * gain * table[9] + gain * gain * table[8], 0.0)
        rest /= table[0]
        noise = rest / max(overlay.variance, 1e-30)
        covariance = back * overlay.spread * noise / gain**2
        covariance[~active] = covariance[:, ~active] = 0
        shift = shift + step
        fit = OverlayFit(
            shift=shift,
            covariance=covariance,
            correlation=float(
                np.clip(table[9] / math.sqrt(max(table[7] * table[8], 1e-30)), -1, 1)
            ),
            gain=float(gain),
            variance=float(rest),
            significance=float(
                table[10] / math.sqrt(max(table[11] * overlay.chance * noise, 1e-30))
            ),
            step=longest,
            share=float(table[0] / len(frame) / size.prod()),
        )
        sigma = math.sqrt(max(float(np.diag(covariance).max()), 0.0))
        if LEFT * longest < SHORT + SHORT_SIGMAS * sigma:
            break
    return fit

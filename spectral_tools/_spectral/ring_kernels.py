"""Rings of frequencies, and whitening by what stands out of noise in each.

Every kernel works on three axes; a 2-D image is a volume of one plane. A
spectrum is the half that `scipy.fft.rfftn` returns; modes whose mirror image is
stored too (the first column, and the last of an even axis) count half.

Small sums and fills are written as loops: a call of NumPy, a power or a slice that is
assigned to takes longer to compile than the loop, and the first user waits for it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import AnyArray, Flags, Floats, Ints, Spectrum, Volume
from .._shared.compiled import compiled
from .._shared.fft import forward_pair, frequencies, inverse
from .._shared.ndimage import distance_transform_edt
from .tapers import SEARCH_TAPER_WIDTH, search_taper, taper_block

__all__ = [
    "FAINT",
    "RING_MODES",
    "RING_SHARE",
    "WHITENING_MODES",
    "Whitening",
    "extend_periodic",
    "flatten_modes",
    "mark_runs",
    "ring_edges",
    "ring_gains",
    "ring_power",
    "ring_whitening",
    "rings_of",
    "tapered_spectra",
    "whiten_images",
    "whiten_modes",
    "whiten_spectra",
    "whole_lines",
]


# A ring averages at least so many independent modes: more would blur how the coherence
# falls, fewer would not tell it (test_crops_come_close_to_the_bound).
RING_MODES = 12.0
# A ring spans at least this share of its own frequency, beside which spectra change
# little (test_crops_come_close_to_the_bound).
RING_SHARE = 0.1
# Modes of a ring by which a spectrum is whitened, at least: a power needs fewer than a
# coherence (test_many_narrow_strips_are_found_deep_in_noise).
WHITENING_MODES = 8.0
# The power of what is never to be trusted, in units of an image's variance: what
# sampling and rounding leave, below a few thousandths of the contrast
# (test_exact_crops_without_noise_are_found).
FAINT = 1e-5
# A mode counts for the mean power of its ring up to this multiple of it: of noise
# exp(-4.5) = 1 % stick out further (test_a_defect_in_a_lattice_decides).
CAP = 4.5
# A mode may stick out of its ring by this factor in amplitude, not more
# (test_a_defect_in_a_lattice_decides).
LINE_LIMIT = 2.5


@compiled
def ring_edges(
    shape: Ints, width: float, share: float, least: float, relative: float
) -> Floats:
    """Return the upper edges, as squared frequencies, of rings of a transform.

    Rings are `width` apart or wider: each has at least `least` independent modes
    (`share` of those of the transform) and spans at least `relative` of
    its own frequency. That is as little averaging as its count allows.
    """
    axes = 0
    top = 0.0
    modes = 0.5
    for axis in range(3):
        if shape[axis] > 1:
            axes += 1
            top += 0.25
            modes *= shape[axis]
    rings = int(math.sqrt(top) / width + 0.5) + 1
    edges = np.zeros(rings)
    found = 0
    low = 0.0
    for ring in range(rings):
        high = (ring + 0.5) * width
        # Modes of a half plane or half space between two frequencies; the
        # corners beyond 0.5 hold less than this, which errs towards more rings.
        if axes == 3:
            count = modes * 4 / 3 * math.pi * (high * high * high - low * low * low)
        elif axes == 2:
            count = modes * math.pi * (high * high - low * low)
        else:
            count = modes * 2 * (high - low)
        beyond = max(high - 0.5, 0.0) / (math.sqrt(top) - 0.5 + 1e-9)
        enough = count * share * max(1 - beyond, 0.02) >= least
        if (enough and high - low >= relative * low) or ring == rings - 1:
            edges[found] = high * high
            found += 1
            low = high
    edges[found - 1] = top * 1.01
    return edges[:found].copy()


def rings_of(
    shape: tuple[int, ...],
    sides: tuple[int, ...],
    share: float,
    modes: float = RING_MODES,
) -> Floats:
    """Return the edges of rings of a transform, at least as wide as one mode of an image.

    That is one over the geometric mean of its sides, of those that are longer than one.
    """
    long = [n for n in sides if n > 1]
    width = math.prod(long) ** (-1 / len(long))
    return ring_edges(np.array(shape), width, share, modes, RING_SHARE)


@compiled
def mark_runs(edges: Floats, base: float, pitch: float, stops: Ints) -> int:
    """Write where the modes of each ring, side by side in a line, end.

    `base` is the squared frequency across the line, `stops` its length in the last
    entry. Returns the ring in which the line starts; rings before it have no modes.
    """
    rings = len(edges)
    columns = stops[rings - 1]
    first = 0
    while first < rings - 1 and edges[first] < base:
        first += 1
    for ring in range(first, rings - 1):
        stops[ring] = min(
            int(math.sqrt(max(edges[ring] - base, 0.0)) / pitch) + 1, columns
        )
    return first


@compiled
def ring_power(
    first: Spectrum,
    second: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    edges: Floats,
    cap: Floats,
    step: int,
) -> Floats:
    """Sum the powers of two spectra over rings, each mode capped.

    `cap` holds the largest power that counts, for each ring and image: it keeps
    the few modes of a lattice from hiding what else a ring holds. Only every
    `step`-th line is looked at.
    """
    table = np.zeros((len(edges), 3))
    columns = first.shape[2]
    pitch = freq2[1] if columns > 1 else 1.0
    power0 = np.empty(columns, np.float32)
    power1 = np.empty(columns, np.float32)
    stops = whole_lines(len(edges), columns)
    for p in range(first.shape[0]):
        for r in range(p % step, first.shape[1], step):
            a = first[p, r]
            b = second[p, r]
            for c in range(columns):
                power0[c] = a[c].real * a[c].real + a[c].imag * a[c].imag
                power1[c] = b[c].real * b[c].real + b[c].imag * b[c].imag
            start = 0
            base = freq0[p] * freq0[p] + freq1[r] * freq1[r]
            for ring in range(mark_runs(edges, base, pitch, stops), len(edges)):
                stop = stops[ring]
                cap0, cap1 = np.float32(cap[ring, 0]), np.float32(cap[ring, 1])
                sum0 = sum1 = np.float32(0)
                for c in range(start, stop):
                    sum0 += min(power0[c], cap0)
                    sum1 += min(power1[c], cap1)
                # Modes stored twice hardly matter for a mean power.
                table[ring, 0] += stop - start
                table[ring, 1] += sum0
                table[ring, 2] += sum1
                start = stop
    return table


@compiled
def ring_whitening(
    first: Spectrum,
    second: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    edges: Floats,
    share0: float,
    share1: float,
) -> tuple[Floats, Floats]:
    """Return what whitens each of two spectra in each ring, and how much stands out.

    The weight of a cross-spectrum that tells a match from none is S / (S + N)**2;
    each image takes its root. The sum is the measured power of a ring; the
    noise N is the lowest level that the power falls to. The images fill the given
    shares of what the spectra are transforms of. Both results have a row for each image.
    """
    rings = len(edges)
    cap = np.zeros((rings, 2))
    for ring in range(rings):
        cap[ring, 0] = cap[ring, 1] = np.inf
    table = cap
    for step in range(2, 0, -1):
        table = ring_power(first, second, freq0, freq1, freq2, edges, cap, step)
        for ring in range(rings):
            for i in range(2):
                cap[ring, i] = CAP * (table[ring, 1 + i] / max(table[ring, 0], 1.0))
    gain, limit = np.zeros((2, rings)), np.zeros((2, rings))
    power = np.zeros((2, rings))
    count = np.zeros(rings)
    modes = 0.0
    for ring in range(rings):
        count[ring] = table[ring, 0]
        modes += count[ring]
    for i in range(2):
        total = 0.0
        for ring in range(rings):
            total += table[ring, 1 + i]
        faint = FAINT * (total / modes) + 1e-30
        for ring in range(rings):
            power[i, ring] = table[ring, 1 + i] / max(count[ring], 1.0) + faint
        noise = _floor(power[i], count, 0.2 * modes)
        root = LINE_LIMIT / math.sqrt(share0 if i == 0 else share1)
        for ring in range(rings):
            level = power[i, ring]
            limit[i, ring] = root * math.sqrt(level)
            gain[i, ring] = math.sqrt(math.sqrt(max(level - noise, 0.02 * level)))
    for ring in range(rings):
        # Both images take the geometric mean of their signals.
        common = gain[0, ring] * gain[1, ring]
        gain[0, ring] = common / power[0, ring]
        gain[1, ring] = common / power[1, ring]
    return gain, limit


@compiled
def whole_lines(rings: int, columns: int) -> Ints:
    """Return where rings end in a line, before `mark_runs` has looked at one."""
    stops = np.empty(rings, np.int64)
    for ring in range(rings):
        stops[ring] = columns
    return stops


@compiled
def _floor(power: Floats, count: Floats, least: float) -> float:
    """Return the lowest level below or at which there are `least` modes."""
    level, below = -np.inf, 0.0
    while below < least:
        # Few rings hold a fifth of the modes: looking for each is faster than sorting.
        following = np.inf
        for ring in range(len(power)):
            if level < power[ring] < following:
                following = power[ring]
        if following == np.inf:
            break
        level = following
        for ring in range(len(power)):
            if power[ring] == level:
                below += count[ring]
    return level


@compiled
def whiten_modes(
    spectrum: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    edges: Floats,
    gain: Floats,
    limit: Floats,
) -> None:
    """Filter a spectrum in place by a gain for each ring, and limit what sticks out."""
    columns = spectrum.shape[2]
    pitch = freq2[1] if columns > 1 else 1.0
    factor = np.empty(columns, np.float32)
    most = np.empty(columns, np.float32)
    stops = whole_lines(len(edges), columns)
    for p in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            line = spectrum[p, r]
            start = 0
            base = freq0[p] * freq0[p] + freq1[r] * freq1[r]
            for ring in range(mark_runs(edges, base, pitch, stops), len(edges)):
                for c in range(start, stops[ring]):
                    factor[c] = gain[ring]
                    most[c] = limit[ring]
                start = stops[ring]
            for c in range(columns):
                value = line[c]
                square = value.real * value.real + value.imag * value.imag
                size = max(np.sqrt(square), most[c])
                line[c] = value * (factor[c] * (most[c] / size))


@compiled
def flatten_modes(spectrum: Spectrum, exponent: float) -> None:
    """Divide each mode by its modulus to a power, in place: the classical whitening."""
    half = -0.5 * exponent
    for p in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            for c in range(spectrum.shape[2]):
                value = spectrum[p, r, c]
                square = np.float64(value.real) ** 2 + np.float64(value.imag) ** 2
                spectrum[p, r, c] = value * np.float32((square + 1e-60) ** half)


@compiled
def _beyond(position: int, size: int, total: int) -> tuple[int, int, float]:
    """Return the mirror images of a place beyond the end, and how far across it is."""
    across = (position - size + 1) / (total - size + 1)
    fade = across * across * (3 - 2 * across)
    return max(2 * size - 2 - position, 0), min(total - position, size - 1), fade


@compiled
def extend_periodic(image: AnyArray, out: AnyArray) -> None:
    """Fill `out` with `image` and, beyond it, with its mirror image, seamlessly.

    Each end is mirrored at its last pixel in place and in value, so that not
    even the slope breaks, and the two ends of an axis fade into each other: a
    filter in frequency meets no edge.
    """
    n0, n1, n2 = image.shape
    m0, m1, m2 = out.shape
    for p in range(n0):
        for r in range(n1):
            for c in range(n2):
                out[p, r, c] = image[p, r, c]
        for c in range(n2, m2):
            after, before, fade = _beyond(c, n2, m2)
            for r in range(n1):
                first = 2 * image[p, r, n2 - 1] - image[p, r, after]
                second = 2 * image[p, r, 0] - image[p, r, before]
                out[p, r, c] = first + fade * (second - first)
        for r in range(n1, m1):
            after, before, fade = _beyond(r, n1, m1)
            for c in range(m2):
                first = 2 * out[p, n1 - 1, c] - out[p, after, c]
                second = 2 * out[p, 0, c] - out[p, before, c]
                out[p, r, c] = first + fade * (second - first)
    for p in range(n0, m0):
        after, before, fade = _beyond(p, n0, m0)
        for r in range(m1):
            for c in range(m2):
                first = 2 * out[n0 - 1, r, c] - out[after, r, c]
                second = 2 * out[0, r, c] - out[before, r, c]
                out[p, r, c] = first + fade * (second - first)


class Whitening(NamedTuple):
    """What whitens two images in each ring of frequencies."""

    edges: Floats  # (rings,), of squared frequencies
    gain: Floats  # (2, rings), of amplitudes
    limit: Floats  # (2, rings), beyond which an amplitude is a line
    step: int = 1  # pixels, in which it was measured


def whiten_images(
    reference: Volume,
    moving: Volume,
    shape: tuple[int, ...],
    exponent: float,
    valid: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
) -> tuple[NDArray[np.float32], Whitening] | None:
    """Return both images prewhitened, on zeros of the given shape, and by what."""
    canvas = np.zeros((2, *shape), np.float32)
    images = reference, moving
    whole = images
    if valid is not None:
        whole = _beyond_mask(reference, valid[0]), _beyond_mask(moving, valid[1])
    for image, out in zip(whole, canvas, strict=True):
        extend_periodic(image, out)
    spectra = list(forward_pair(canvas))
    # What lies beyond the ends is made up: it is filtered, but tells no power.
    samples = tapered_spectra(images, shape)
    sizes = reference.shape, moving.shape
    measured = whiten_spectra(spectra, samples, shape, sizes, exponent)
    for i, (image, spectrum) in enumerate(zip(images, spectra, strict=True)):
        inside = tuple(slice(0, n) for n in image.shape)
        filtered = inverse(spectrum, shape)[inside]
        if valid is not None:
            filtered = filtered * valid[i]
        spread = float(filtered.std(dtype=np.float64))
        if not spread > 0:
            return None
        canvas[i] = 0
        canvas[i][inside] = (filtered - filtered.mean(dtype=np.float64)) / spread
    return canvas, measured


def _beyond_mask(image: Volume, valid: Flags) -> Volume:
    """Return an image that goes on beyond a mask, and fades out.

    A step at the edge of a mask would be a line in the whitened image, and lines match.
    """
    if valid.all() or not valid.any():
        return image
    away, nearest = distance_transform_edt(~valid, return_indices=True)
    rest = np.clip(1 - away / (2 * SEARCH_TAPER_WIDTH), 0, 1)
    fade = np.sin(0.5 * np.pi * rest) ** 2
    return (image[tuple(nearest)] * fade).astype(np.float32)


def whiten_spectra(
    spectra: list[NDArray[np.complex64]],
    samples: list[NDArray[np.complex64]],
    shape: tuple[int, ...],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    exponent: float,
) -> Whitening:
    """Filter both spectra in place so that their product is weighted to detect.

    The powers are those of `samples`, spectra of the same images. What they measure comes
    back, also where an exponent is asked for.
    """
    measured = ring_gains(samples, shape, sizes)
    freqs = frequencies(shape)
    for index, spectrum in enumerate(spectra):
        if exponent >= 0:
            flatten_modes(spectrum, exponent)
        else:
            gain, limit = measured.gain[index], measured.limit[index]
            whiten_modes(spectrum, *freqs, measured.edges, gain, limit)
    return measured


def ring_gains(
    samples: list[NDArray[np.complex64]],
    shape: tuple[int, ...],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Whitening:
    """Return what whitens each of two images in rings of frequencies.

    `samples` are transforms of the given shape, of images of the given sizes.
    """
    freqs = frequencies(shape)
    width = math.exp(
        -np.log([n for size in sizes for n in size if n > 1] or [1]).mean()
    )
    shares = [math.prod(size) / math.prod(shape) for size in sizes]
    edges = ring_edges(np.array(shape), width, min(shares), WHITENING_MODES, RING_SHARE)
    gain, limit = ring_whitening(samples[0], samples[1], *freqs, edges, *shares)
    return Whitening(edges, gain, limit)


def tapered_spectra(
    images: tuple[Volume, Volume], shape: tuple[int, ...]
) -> list[Spectrum]:
    """Return the transforms of two images that fade out at their edges."""
    canvas = np.zeros((2, *shape), np.float32)
    nowhere = np.zeros(3, np.intp)
    for image, out in zip(images, canvas, strict=True):
        first, second, third = map(search_taper, image.shape)
        size = np.array(image.shape)
        taper_block(image, nowhere, size, first, second, third, out)
    return list(forward_pair(canvas))

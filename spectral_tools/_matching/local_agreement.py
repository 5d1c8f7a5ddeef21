"""Whether a match repeats itself in the parts of an overlap.

One bright object, one edge or one bar of text may carry a correlation that the rest of
the overlap knows nothing of. So the overlap is cut into cells, and each is asked by
itself: among the shifts around the one that was found, how high does its own correlation
rank there? Ranks are bounded: no cell says more than that it agrees. How many agree by
chance is binomial, whatever the images show, at the level that the data choose (Berk &
Jones 1979, :doi:`10.1007/BF00533250`); where all agree a little, the sum of their
normal scores tells it (van der Waerden 1952).
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import betainc, ndtr, ndtri

from .._sampling.boxes import overlap_block
from .._sampling.downsample import block_means
from .._shared.arrays import (
    AnyArray,
    Flags,
    Floats,
    Ints,
    MaskPair,
    Spectrum,
    Volume,
    VolumePair,
)
from .._shared.fft import (
    fast_shape,
    forward_stack,
    frequencies,
    inverse,
    inverse_stack,
)
from .._spectral.ring_kernels import Whitening
from .shift_fit import ShiftFit, TaperedSpectra

__all__ = [
    "LOOKS_ALIKE",
    "SHORTEST",
    "Cells",
    "LocalAgreement",
    "cut_cells",
    "is_still",
    "leave_out",
    "lie_in_few_cells",
    "local_agreement",
    "repeats_without",
    "worst_rest",
]

# Cells that an overlap is cut into, about (match_robustness: dense, 26 px wide, -10 dB).
CELLS = 36
# The shortest side of a cell, in pixels (test_small_images_are_matched).
SHORTEST = 8
# Shifts that a cell is asked about, about (test_stars_in_common_are_matched).
LAGS = 1089
# Beyond this correlation two images may be a lattice, which chance brings together, and
# are looked at for periods; shifts at which the scene is as much like itself say nothing
# of chance (test_a_lattice_is_never_matched_a_period_off,
# test_a_defect_in_a_lattice_decides).
LOOKS_ALIKE = 0.5
# A cell is at least so many times as wide as what the scene is like itself over, or its
# neighbours tell the same (test_unrelated_images_are_not_believed: nuclei).
EXTENT = 4.0


class Cells(NamedTuple):
    """Cells of an overlap, side by side."""

    place: Ints  # (n, 3), index along each axis
    low: Ints  # (2, n, 3), first pixel in both images
    corner: Ints  # (2, 3), that of the overlap
    block: Ints  # (3,), pixels of the overlap
    number: Ints  # (3,), of cells along each axis
    size: Ints  # (3,), pixels of a cell
    share: Floats  # (n,), of the pixels that count in both images


class LocalAgreement(NamedTuple):
    """What cells of an overlap say of one shift."""

    chance: Floats  # (n,), that a cell agrees as well by chance
    share: Floats  # (n,), of the shifts that are better
    power: Floats  # (n,), of what it shows
    least: float  # the share where no other shift is as good
    cells: Cells  # of which less than half counts are left out
    objects: bool  # only few cells show anything, and what they show has moved


def cut_cells(
    images: VolumePair,
    fit: ShiftFit,
    number: float,
    least: float,
    valid: MaskPair | None,
) -> Cells:
    """Cut an overlap into about `number` cells, with sides of at least `least` pixels."""
    block = fit.blocks.block
    axes = int((block > 1).sum())
    side = math.exp(np.log(block[block > 1] / number ** (1 / axes)).mean())
    count = np.maximum(np.rint(block / max(side, least)), 1).astype(np.intp)
    size = block // count
    place = np.array(list(np.ndindex(*count)))
    sizes = np.array(images[0].shape), np.array(images[1].shape)
    starts = overlap_block(*sizes, fit.blocks.whole[0].astype(np.intp))[:2]
    low = np.array([start + place * size for start in starts])
    share = np.ones(len(place))
    if valid is not None:
        for n, corners in enumerate(low.transpose(1, 0, 2)):
            one, other = (
                mask[tuple(map(slice, corner, corner + size))]
                for mask, corner in zip(valid, corners, strict=True)
            )
            share[n] = float((one & other).mean())
    kept = share >= 0.5
    corner = np.array(starts)
    return Cells(place[kept], low[:, kept], corner, block, count, size, share[kept])


def local_agreement(
    images: VolumePair,
    fit: ShiftFit,
    valid: MaskPair | None,
    whitening: Whitening,
    at_rest: Ints,
) -> LocalAgreement:
    """Ask the cells of an overlap about the shift that was fitted to the whole of it.

    The whitening is that of the search: weights of the fit favour the shift it found.
    Around the shift `at_rest` uneven light is the same in both, and is taken off.
    """
    blocks = fit.blocks
    axes = int((blocks.block > 1).sum())
    alike = _likeness(blocks, whitening)
    extent = EXTENT * float((alike.astype(np.float64) ** 2).sum()) ** (1 / axes)
    cells = cut_cells(images, fit, CELLS, max(SHORTEST, extent), valid)
    # What was found in coarse detail is asked for in it.
    steps = np.where(blocks.block > 1, whitening.step, 1)
    coarse = list(images)
    if whitening.step > 1:
        coarse = [block_means(image, steps.tolist()) for image in images]
    reach = np.where(blocks.block > 1, round(0.5 * (LAGS ** (1 / axes) - 1)), 0)
    # Windows that overlap by more than half would tell the same.
    reach = np.minimum(reach, cells.size // steps // 2)
    lags = (
        step * np.arange(-r, r + 1) % n
        for step, r, n in zip(steps, reach, alike.shape, strict=True)
    )
    null = alike[np.ix_(*lags)] < LOOKS_ALIKE
    still = bool((np.abs(fit.shift - at_rest) <= reach * steps).all())
    # Across cells of wide hills light may be curved, across those of fine detail hardly.
    degree = (2 if extent > 2 * SHORTEST else 1) if still else 0
    views = _cell_views(coarse, fit, cells, steps, degree)
    surfaces, power = _cell_correlations(views, whitening, cells.place, reach)
    share, chance = _rank(surfaces, null, reach)
    objects = not is_still(fit, at_rest) and lie_in_few_cells(power)
    least = 1 / max(int(null.sum()), 1)
    return LocalAgreement(chance, share, power, least, cells, objects)


def is_still(fit: ShiftFit, at_rest: Ints) -> bool:
    """Return whether a shift is within a pixel of that at rest, along an axis."""
    away = np.abs(fit.shift - at_rest)[fit.blocks.block > 1]
    return bool(away.min() < 1)


def repeats_without(agreement: LocalAgreement, believed: float, known: float) -> float:
    """Return the probability that chance makes the rest agree, whatever part is left out.

    A part is a quarter of the overlap along one axis, wherever it lies, or both
    ends of the axis. What is left and fades out in windows is to have a third of the
    evidence of the whole, if chance would make it correlate as well at this shift with a
    probability that is `known`, and half of what perfect agreement would tell, where
    there are few cells. What comes back is scaled so that this is `believed`; it
    is zero where nothing can be told.
    """
    perfect = np.full(len(agreement.chance), agreement.least)
    best = worst_rest(agreement._replace(chance=2 * perfect, share=perfect))
    level = max(believed, math.sqrt(best), known ** (1 / 3))
    return worst_rest(agreement) * believed / level if level < 1 else 0.0


def worst_rest(agreement: LocalAgreement) -> float:
    """Return the chance of what agrees without the part without which least does.

    Of few objects that have moved together nothing may be left without a quarter of the
    overlap: half of that is left out along an axis then, for a bar or an edge, and where two
    quarters cross, for one object.
    """
    rests = [np.ones(len(agreement.chance), np.bool_)]
    quarters: list[list[Flags]] = []
    for places in agreement.cells.place.T:
        lines, at = np.unique(places, return_inverse=True)
        if len(lines) < 2:
            continue
        wide = max(round(len(lines) / 4), 1)
        quarters.append(_without_strip(at, len(lines), wide))
        if agreement.objects:
            wide = max(wide // 2, 1)
        rests += _without_strip(at, len(lines), wide)
        if len(lines) > 2 * wide:
            rests.append((at >= wide) & (at < len(lines) - wide))
    if agreement.objects:
        rests += [np.logical_or.reduce(crossing) for crossing in product(*quarters)]
    return float(_combined(agreement, np.array(rests)).max())


def _without_strip(at: Ints, number: int, wide: int) -> list[Flags]:
    """Return what is left without a few of so many lines of cells, wherever they are."""
    # What fills them reaches half a cell into the windows of its neighbours.
    strip = min(wide + 1, number // 2)
    starts = range(number - strip + 1)
    return [(at < start) | (at >= start + strip) for start in starts]


def leave_out(
    agreement: LocalAgreement, images: VolumePair, valid: MaskPair | None
) -> MaskPair:
    """Return masks of both images without the cells that agree.

    The holes of the moving image are wider: if their edges met, they would match.
    """
    chance, cells = np.sort(agreement.chance), agreement.cells
    level = chance[int(np.argmin(_binomial_tails(chance)))] if len(chance) else 0.0
    agree = agreement.chance <= level
    masks = []
    for side, image in enumerate(images):
        mask = np.ones(image.shape, np.bool_) if valid is None else valid[side].copy()
        corner, more = cells.corner[side], side * (cells.size // 4)
        for low, place in zip(cells.low[side][agree], cells.place[agree], strict=True):
            # The last cells are left out up to the end of the overlap.
            last = place == cells.number - 1
            end = np.where(last, cells.block, low - corner + cells.size + more)
            start = np.maximum(low - corner - more, 0)
            there = zip(corner + start, corner + end, strict=True)
            mask[tuple(slice(*ends) for ends in there)] = False
        masks.append(mask)
    return masks[0], masks[1]


def _combined(agreement: LocalAgreement, chosen: Flags) -> Floats:
    """Return the chance that cells agree so well, a few of them or all a little.

    Each row of `chosen` is a choice of cells. They count by the amplitude of what they see
    (weighted p-values, Genovese et al. 2006, :doi:`10.1093/biomet/93.3.509`): those of
    mere noise neither help nor harm.
    """
    seen = chosen * np.sqrt(agreement.power)
    total = np.sqrt((seen**2).sum(axis=1))
    mean = seen.sum(axis=1, keepdims=True) / np.maximum(chosen.sum(axis=1), 1)[:, None]
    few = _berk_jones(agreement.chance * mean / np.maximum(seen, 1e-300), chosen)
    shares = np.where(chosen, agreement.share, 0.5)
    most = 1 - shares.min(axis=1, initial=0.5)
    scores = -ndtri(np.minimum(shares, most[:, None]))
    all_of_them = ndtr(-(seen * scores).sum(axis=1) / np.maximum(total, 1e-300))
    either = np.minimum(2 * np.minimum(few, all_of_them), 1.0)
    return np.where(total > 0, either, 1.0)


def _berk_jones(chance: Floats, chosen: Flags) -> Floats:
    """Return the probability that some of independent tests are as improbable together.

    One alone is none. Each row of `chosen` is a choice of tests.
    """
    number = chosen.sum(axis=1)
    ranked = np.sort(np.where(chosen, np.minimum(chance, 1.0), np.inf), axis=1)
    # Numbers that double: of all numbers, neighbours tell the same.
    counts = 2 ** np.arange(1, chosen.shape[1].bit_length())
    enough = counts <= number[:, None]
    beyond = np.where(enough, number[:, None] + 1 - counts, 1)
    levels = betainc(counts, beyond, np.where(enough, ranked[:, counts - 1], 1.0))
    least = levels.min(axis=1, initial=1.0)
    return np.minimum(np.maximum(enough.sum(axis=1), 1) * least, 1.0)


def lie_in_few_cells(power: Floats) -> bool:
    """Return whether all that an overlap shows lies in a quarter of its cells.

    Their number is that of as many that show the same.
    """
    number = float(power.sum()) ** 2 / max(float((power**2).sum()), 1e-300)
    return number < len(power) / 4


def _binomial_tails(chance: Floats) -> Floats:
    """Return the probability that so many tests are below each of sorted chances."""
    number = np.arange(1, len(chance) + 1)
    return np.asarray(betainc(number, len(chance) + 1 - number, chance), np.float64)


def _likeness(blocks: TaperedSpectra, whitening: Whitening) -> Volume:
    """Return how alike the scene is to itself at each offset, as it is weighted; 1 at 0."""
    spectrum = np.abs(blocks.spectra[0, 0])
    spectrum *= np.abs(blocks.spectra[0, 1])
    spectrum *= _on_modes(whitening.gain.prod(axis=0), whitening.edges, blocks.freqs)
    alike = inverse(spectrum.astype(np.complex64), blocks.shape)
    alike /= max(float(alike[0, 0, 0]), 1e-30)
    return alike


def _on_modes(
    values: Floats, edges: Floats, freqs: tuple[Floats, Floats, Floats]
) -> Volume:
    """Return the value of the ring that each mode of a transform lies in."""
    squares = freqs[0][:, None, None] ** 2 + freqs[1][:, None] ** 2 + freqs[2] ** 2
    rings = np.minimum(np.searchsorted(edges, squares), len(edges) - 1)
    return np.take(values, rings).astype(np.float32)


class _CellViews(NamedTuple):
    """The overlap as its cells see it, in steps of some pixels."""

    blocks: list[Volume]  # of both images
    size: Ints  # (3,), of a cell
    number: Ints  # (3,), of cells
    rest: Floats  # (3,), what the fitted shift is beyond that of the blocks
    step: int
    degree: int  # of the polynomials that are taken off


def _cell_views(
    images: list[Volume], fit: ShiftFit, cells: Cells, steps: Ints, degree: int
) -> _CellViews:
    """Return what cells see of images that are given in steps of some pixels."""
    corners = -(-cells.corner // steps)
    shapes = np.array([image.shape for image in images])
    block = np.minimum(cells.block // steps, (shapes - corners).min(axis=0))
    return _CellViews(
        blocks=[
            image[tuple(map(slice, corner, corner + block))]
            for image, corner in zip(images, corners, strict=True)
        ],
        size=cells.size // steps,
        number=cells.number,
        rest=fit.shift / steps - (corners[0] - corners[1]),
        step=int(steps.max()),
        degree=degree,
    )


def _cell_correlations(
    views: _CellViews, whitening: Whitening, place: Ints, reach: Ints
) -> tuple[Volume, Floats]:
    """Return the correlation of each cell at each lag, and the power of what it shows.

    Lags are counted from the fitted shift. Cells fade out over the reach around them.
    """
    size = views.size
    shape = fast_shape(tuple((size + 2 * reach).tolist()))
    tapers = [np.hanning(n + 2)[1:-1] if n > 1 else np.ones(1) for n in shape]
    taper = tapers[0][:, None, None] * tapers[1][:, None] * tapers[2]
    taper = taper.astype(np.float32)
    ones = np.ones(views.blocks[0].shape, np.float32)
    inside = taper * _windows_of(ones, views, place, shape)
    stack = np.empty((2, *inside.shape), np.float32)
    for block, windows in zip(views.blocks, stack, strict=True):
        faded = taper * _windows_of(block, views, place, shape)
        np.subtract(faded, _polynomials(faded, inside, views.degree), out=windows)
    freqs = frequencies(shape)
    edges = whitening.edges * views.step**2
    gain = [_on_modes(each, edges, freqs) for each in whitening.gain]
    first, second = forward_stack(stack)
    power = np.sqrt(_weighted_power(first, gain[0]) * _weighted_power(second, gain[1]))
    back = [
        np.exp(-2j * np.pi * freq * x)
        for freq, x in zip(freqs, views.rest, strict=True)
    ]
    turn = back[0][:, None, None] * back[1][:, None] * back[2]
    second *= (gain[0] * gain[1] * turn).astype(np.complex64)
    second *= np.conj(first, out=first)
    surfaces = inverse_stack(second, shape)
    # Fewer pixels meet at longer lags: chance is as high there once that is made up for.
    for axis, (weights, r) in enumerate(zip(tapers, reach, strict=True)):
        lag = np.arange(-r, r + 1)
        meet = np.correlate(weights**2, weights**2, "full")[len(weights) - 1 + lag]
        at = np.expand_dims(np.sqrt(meet), tuple({0, 1, 2} - {axis}))
        surfaces = np.take(surfaces, lag % shape[axis], axis + 1) / at
    return surfaces, power


def _polynomials(faded: AnyArray, inside: AnyArray, degree: int) -> Volume:
    """Return the polynomial of a degree that fits each window best, faded as it is."""
    axes = [np.linspace(-1, 1, n) for n in faded.shape[1:] if n > 1]
    terms = [np.ones(faded.shape[1:])]
    for _ in range(degree):
        grid = [terms[0], *np.meshgrid(*axes, indexing="ij")]
        terms = [a * b.reshape(a.shape) for n, a in enumerate(terms) for b in grid[n:]]
    basis = np.array([term.ravel() for term in terms], np.float32)
    products = (basis[:, np.newaxis] * basis).reshape(len(basis) ** 2, -1)
    weights, sums = (
        each.reshape(len(each), basis.shape[1]) for each in (inside, faded)
    )
    normal = (weights @ products.T).reshape(-1, len(basis), len(basis))
    right = (sums @ basis.T)[:, :, np.newaxis]
    # Windows that hold little of the overlap do not tell all terms.
    inverse = np.linalg.pinv(normal.astype(np.float64), rcond=1e-4, hermitian=True)
    fitted = (inverse @ right)[:, :, 0].astype(np.float32) @ basis
    polynomials: Volume = fitted.reshape(faded.shape) * inside
    return polynomials


def _windows_of(
    block: Volume, cells: _CellViews, place: Ints, shape: tuple[int, ...]
) -> Volume:
    """Return windows of a shape round the cells of a block, with zeros outside of it."""
    before = (np.array(shape) - cells.size) // 2
    after = np.maximum(
        (cells.number - 1) * cells.size + shape - before - block.shape, 0
    )
    padded = np.pad(block, list(zip(before.tolist(), after.tolist(), strict=True)))
    views = sliding_window_view(padded, shape)
    windows: Volume = views[tuple((place * cells.size).T)]
    return windows


def _weighted_power(spectra: Spectrum, gain: Volume) -> Floats:
    """Return the power of each spectrum of a stack, filtered by a gain."""
    pairs = spectra.view(np.float32).reshape(len(spectra), *gain.shape, 2)
    power: Floats = np.einsum("nprcz,nprcz,prc->n", pairs, pairs, gain**2).astype(
        np.float64
    )
    return power


def _rank(surfaces: Volume, null: Flags, reach: Ints) -> tuple[Floats, Floats]:
    """Return the share of shifts that are as good, and the chance of it, for each cell.

    The shift that was found, or the best within a pixel of it, is held against the
    others of `null`.
    """
    shares = []
    for steps in (0 * reach, np.minimum(1, reach)):
        sides = zip((reach - steps).tolist(), (reach + steps + 1).tolist(), strict=True)
        near = tuple(slice(*side) for side in sides)
        top = surfaces[(slice(None), *near)].max(axis=(1, 2, 3))
        far = null.copy()
        far[near] = False
        over = (surfaces[:, far] >= top[:, None]).sum(axis=1)
        area = float((2 * steps + 1).prod())
        share = area * (over + 1) / (far.sum() + 1)
        shares.append(np.where(top > 0, share, 1.0) if steps.any() else share)
    return shares[0], np.minimum(2 * np.minimum(*shares), 1.0)

"""Compiled steps of the fit of a shift to a cross-spectrum.

Volumes, spectra and rings are those of `ring_kernels`. What a ring says is
kept in a table of sums, because the weights are the same for a whole ring.
"""

import math
from typing import NamedTuple

import numpy as np

from .._shared.arrays import Flags, Floats, Spectrum
from .._shared.compiled import compiled
from .ring_kernels import FAINT, mark_runs, whole_lines
from .tapers import RING, rim_shares, trust_rings

__all__ = [
    "SLACK",
    "STEP",
    "FitStep",
    "fit_step",
    "halves_apart",
    "name_step",
    "ring_sums",
    "smooth_coherence",
]


# Means of a coherence over more rings are taken while they stay within so many standard
# errors of all narrower ones (Lepski's rule; test_crops_come_close_to_the_bound).
SLACK = 2.0
# Coarse and fine detail tell different shifts if those differ by more than so many
# standard errors (test_coarse_and_fine_detail_differ_by_chance_or_not).
DIFFERENT = 3.0
# Below this coherence the shift that one ring tells is mostly noise
# (test_fit_finds_its_way_from_a_pixel_and_a_half).
STEADY = 0.7


class StepColumns(NamedTuple):
    """Where `fit_step` puts what; of several numbers, the first."""

    step: int  # (3)
    covariance: int  # (9)
    correlation: int
    significance: int  # in standard deviations
    fitted: int  # 1 if there was anything to fit
    beyond: int  # how much further than the step the truth lies, as tapers follow (3)
    tolerance: int  # the error that does not matter (of batches of windows alone)
    width: int


STEP = StepColumns(0, 3, 12, 13, 14, 15, 18, 19)


class FitStep(NamedTuple):
    """What `fit_step` found, by name; for many windows with a leading axis."""

    step: Floats  # (..., 3)
    covariance: Floats  # (..., 3, 3)
    correlation: Floats
    significance: Floats
    fitted: Flags
    beyond: Floats  # (..., 3)
    tolerance: Floats


def name_step(row: Floats) -> FitStep:
    """Return views of the columns of one step, or of many."""
    covariance = row[..., STEP.covariance : STEP.correlation]
    return FitStep(
        step=row[..., : STEP.covariance],
        covariance=covariance.reshape(*row.shape[:-1], 3, 3),
        correlation=row[..., STEP.correlation],
        significance=row[..., STEP.significance],
        fitted=row[..., STEP.fitted] > 0,
        beyond=row[..., STEP.beyond : STEP.tolerance],
        tolerance=row[..., STEP.tolerance],
    )


@compiled
def ring_shifts(
    table: Floats, power: Floats, smooth: Floats, share: float, active: Flags
) -> tuple[Floats, Floats]:
    """Return the shift that each ring tells alone (3 rows), and its variance per axis."""
    rings = len(power)
    told = np.zeros((3, rings))
    variance = np.zeros(rings)
    axes = 0
    for i in range(3):
        axes += active[i]
    for ring in range(rings):
        variance[ring] = np.inf
        g = smooth[ring]
        if g <= 0:
            continue
        tilt = (
            g
            * power[ring]
            / (0.5 * (table[ring, RING.power0] + table[ring, RING.power1]))
        )
        curve = spread = 0.0
        for i in range(3):
            if active[i]:
                at = i * (7 - i) // 2
                own = tilt * table[ring, RING.curvature + at]
                told[i, ring] = -table[ring, RING.slope + i] / max(own, 1e-300)
                curve += own
                spread += table[ring, RING.square + at]
        if curve > 0:
            # What the coherence predicts steadies what few modes scatter by chance.
            model = (
                0.5 * (1 - g * g) / g * power[ring] / table[ring, RING.modes] * curve
            )
            variance[ring] = axes * max(spread, model) / (curve * curve * share)
    return told, variance


@compiled
def _middle(values: Floats, weights: Floats) -> float:
    """Return the weighted median of a few values."""
    count = len(values)
    order = np.empty(count, np.int64)
    half = 0.0
    for entry in range(count):
        half += 0.5 * weights[entry]
        j = entry
        while j > 0 and values[order[j - 1]] > values[entry]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = entry
    total = 0.0
    at = 0
    for i in range(count):
        at = order[i]
        total += weights[at]
        if total >= half:
            break
    return values[at]


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
    square, trust, even = np.zeros(rings), np.zeros(rings), np.zeros(rings)
    scaled = np.zeros(rings)
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
            middle = _middle(told[i], trust)
            for ring in range(rings):
                off = told[i, ring] - middle
                square[ring] += off * off
    expected = 0.455 if axes == 1 else (0.693 if axes == 2 else 0.789)
    top = 0.0
    for ring in range(rings):
        square[ring] /= axes
        scaled[ring] = square[ring] * trust[ring]
        if even[ring] > 0:
            top = max(top, square[ring] / scale[ring])
    least = expected * (1 + 5 / math.sqrt(used))
    low = middle = 0.0
    high = top / expected
    # Once for no disagreement, and then halving what it may be.
    for _ in range(41):
        above = _middle(scaled, even) > (expected if middle > 0 else least)
        if above:
            low = middle
        elif middle > 0:
            high = middle
        else:
            return 0.0
        middle = 0.5 * (low + high)
        for ring in range(rings):
            scaled[ring] = square[ring] / (variance[ring] + middle * scale[ring])
    return 0.5 * (low + high)


@compiled
def halves_apart(
    told: Floats, variance: Floats, weight: Floats, active: Flags, apart: Floats
) -> None:
    """Write half of what coarse and fine detail differ by, beyond chance, per axis.

    Each half has the same weight. Where noise is faint what remains is an error of
    the model, which grows with the frequency: what bending leaves, or aliasing, or
    edges.
    """
    rings = len(weight)
    total = 0.0
    for ring in range(rings):
        total += weight[ring]
    # The weight of each half, its error, and its mean along the axes.
    sums = np.zeros((2, 5))
    for ring in range(rings):
        own = weight[ring]
        if own > 0:
            half = 0 if 2 * sums[0, 0] < total else 1
            sums[half, 0] += own
            sums[half, 1] += own * own * variance[ring]
            for i in range(3):
                sums[half, 2 + i] += own * told[i, ring]
    coarse, fine = sums[0, 0], sums[1, 0]
    chance = sums[0, 1] / (coarse * coarse) + sums[1, 1] / (fine * fine)
    for i in range(3):
        apart[i] = 0.0
        if active[i] and fine > 0:
            gap = sums[1, 2 + i] / fine - sums[0, 2 + i] / coarse
            excess = math.sqrt(max(gap * gap - DIFFERENT * DIFFERENT * chance, 0.0))
            apart[i] = math.copysign(0.5 * excess, gap)


@compiled
def ring_sums(
    first: Spectrum,
    second: Spectrum,
    freq0: Floats,
    freq1: Floats,
    freq2: Floats,
    even: bool,
    shift: Floats,
    edges: Floats,
) -> Floats:
    """Sum powers, the cross-spectrum turned back by `shift`, and its slopes.

    Returns a table with a row for each ring of frequencies (the columns are
    those of `RING`): all that one step of the fit of a shift needs.
    """
    tau = 2 * math.pi
    table = np.zeros((len(edges), RING.width))
    columns = first.shape[2]
    pitch = freq2[1] if columns > 1 else 1.0
    # Modes that are stored twice, in the first column and in the last of an even
    # axis, count half.
    half, across = np.empty(columns, np.float32), np.empty(columns, np.float32)
    turn_real = np.empty(columns, np.float32)
    turn_imag = np.empty(columns, np.float32)
    nothing = np.empty(columns, np.complex64)
    for c in range(columns):
        half[c] = 0.5 if c == 0 or (even and c == columns - 1) else 1.0
        across[c] = tau * freq2[c]
        turn_real[c] = math.cos(tau * freq2[c] * shift[2])
        turn_imag[c] = math.sin(tau * freq2[c] * shift[2])
        nothing[c] = 0
    lines = np.empty((8, columns), np.float32)
    power0, power1, power, common = lines[0], lines[1], lines[2], lines[3]
    tilted, turned, square, odd = lines[4], lines[5], lines[6], lines[7]
    stops = whole_lines(len(edges), columns)
    n0, n1 = first.shape[0], first.shape[1]
    for p in range(n0):
        k0 = tau * freq0[p]
        for r in range(n1):
            # The line of the opposite frequencies lies in the same rings.
            q, s = (n0 - p) % n0, (n1 - r) % n1
            if q * n1 + s < p * n1 + r:
                continue
            alone = q == p and s == r
            a, b = first[p, r], second[p, r]
            d = nothing if alone else first[q, s]
            e = nothing if alone else second[q, s]
            k1 = tau * freq1[r]
            phase = k0 * shift[0] + k1 * shift[1]
            cos, sin = np.float32(math.cos(phase)), np.float32(math.sin(phase))
            # Whole lines at once, because the runs of rings are too short for it.
            for c in range(columns):
                ar, ai, br, bi = a[c].real, a[c].imag, b[c].real, b[c].imag
                dr, di, er, ei = d[c].real, d[c].imag, e[c].real, e[c].imag
                real, imag = ar * br + ai * bi, ai * br - ar * bi
                real2, imag2 = dr * er + di * ei, di * er - dr * ei
                # The turns of (k0, k1, k2) and (-k0, -k1, k2).
                cc, cs = turn_real[c] * cos, turn_real[c] * sin
                sc, ss = turn_imag[c] * cos, turn_imag[c] * sin
                im = real * (cs + sc) + imag * (cc - ss)
                im2 = real2 * (sc - cs) + imag2 * (cc + ss)
                own, own2 = ar * ar + ai * ai, dr * dr + di * di
                other, other2 = br * br + bi * bi, er * er + ei * ei
                sq, sq2 = im * im, im2 * im2
                power0[c] = half[c] * (own + own2)
                power1[c] = half[c] * (other + other2)
                power[c] = half[c] * (own + other - own2 - other2)
                common[c] = half[c] * (
                    real * (cc - ss)
                    - imag * (cs + sc)
                    + real2 * (cc + ss)
                    - imag2 * (sc - cs)
                )
                tilted[c] = half[c] * (im + im2)
                turned[c] = half[c] * (im - im2)
                square[c] = half[c] * (sq + sq2)
                odd[c] = half[c] * (sq - sq2)
            start = 0
            base = freq0[p] * freq0[p] + freq1[r] * freq1[r]
            for ring in range(mark_runs(edges, base, pitch, stops), len(edges)):
                stop = stops[ring]
                if stop <= start:
                    continue
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0)
                for c in range(start, stop):
                    k2 = across[c]
                    s0 += power0[c]
                    s1 += power1[c]
                    s2 += common[c]
                    s3 += turned[c]
                    s4 += k2 * tilted[c]
                    s5 += k2 * power[c]
                    s6 += k2 * k2 * (power0[c] + power1[c])
                    s7 += k2 * odd[c]
                    s8 += k2 * k2 * square[c]
                    s9 += square[c]
                row = table[ring]
                mean = 0.5 * (s0 + s1)
                count = np.float64(stop - start)
                if start == 0:
                    count -= 0.5
                if even and stop == columns:
                    count -= 0.5
                row[RING.modes] += count if alone else 2 * count
                row[RING.power0] += s0
                row[RING.power1] += s1
                row[RING.common] += s2
                row[RING.slope] += k0 * s3
                row[RING.slope + 1] += k1 * s3
                row[RING.slope + 2] += s4
                row[RING.curvature] += k0 * k0 * mean
                row[RING.curvature + 1] += k0 * k1 * mean
                row[RING.curvature + 2] += 0.5 * k0 * s5
                row[RING.curvature + 3] += k1 * k1 * mean
                row[RING.curvature + 4] += 0.5 * k1 * s5
                row[RING.curvature + 5] += 0.5 * s6
                row[RING.square] += k0 * k0 * s9
                row[RING.square + 1] += k0 * k1 * s9
                row[RING.square + 2] += k0 * s7
                row[RING.square + 3] += k1 * k1 * s9
                row[RING.square + 4] += k1 * s7
                row[RING.square + 5] += s8
                start = stop
    return table


@compiled
def smooth_coherence(count: Floats, coherence: Floats, slack: float) -> Floats:
    """Average a coherence over neighbouring rings as far as the data agree.

    In the scale atanh(g) the error of a ring of `count` modes is known, and a
    window grows for as long as its mean stays within `slack` standard
    errors of all narrower ones (Lepski's rule). What remains is freed of the
    bias of its own error.
    """
    rings = len(count)
    result = np.zeros(rings)
    angle = np.zeros(rings)
    for ring in range(rings):
        angle[ring] = math.atanh(min(max(coherence[ring], -1 + 1e-9), 1 - 1e-9))
    for ring in range(rings):
        low, high = -np.inf, np.inf
        best, variance = 0.0, 1.0
        half = 0
        while half <= min(ring, rings - 1 - ring):
            weight, total = 0.0, 0.0
            for other in range(ring - half, ring + half + 1):
                step = (other - ring) / (half + 1.0)
                share = count[other] * (1 - step * step)
                weight += share
                total += share * angle[other]
            if weight > 1:
                mean = total / weight
                error = (1.0 if half == 0 else 1.2) / (2 * weight - 1)
                if mean < low or mean > high:
                    break
                best, variance = mean, error
                low = max(low, mean - slack * math.sqrt(error))
                high = min(high, mean + slack * math.sqrt(error))
            half = half + 1 if half < 2 else int(1.5 * half + 0.5)
        if best > 0 and best * best > variance:
            result[ring] = math.tanh(math.sqrt(best * best - variance))
    return result


@compiled
def _invert(matrix: Floats, inverse: Floats) -> bool:
    """Invert a symmetric matrix of three rows; False if it is nearly singular."""
    for i in range(3):
        for j in range(3):
            a, b = (i + 1) % 3, (i + 2) % 3
            c, d = (j + 1) % 3, (j + 2) % 3
            inverse[j, i] = matrix[a, c] * matrix[b, d] - matrix[a, d] * matrix[b, c]
    determinant = 0.0
    for j in range(3):
        determinant += matrix[0, j] * inverse[j, 0]
    if not determinant > 1e-12 * matrix[0, 0] * matrix[1, 1] * matrix[2, 2]:
        return False
    for i in range(3):
        for j in range(3):
            inverse[i, j] /= determinant
    return True


@compiled
def _own_coherence(row: Floats, power: float, count: float, active: Flags) -> float:
    """Return the coherence that a ring would have at the shift that it tells."""
    square = (row[RING.common] / power) * (row[RING.common] / power)
    scale = power / (0.5 * (row[RING.power0] + row[RING.power1]))
    for i in range(3):
        at = RING.curvature + i * (7 - i) // 2
        if active[i] and row[at] > 0:
            told = row[RING.slope + i] * row[RING.slope + i] / (scale * row[at] * power)
            square += max(told - 0.5 / count, 0.0)
    return math.sqrt(min(square, 1.0))


@compiled
def fit_step(
    table: Floats,
    share: float,
    rims: Floats,
    active: Flags,
    weighted: bool,
    rough: int,
) -> Floats:
    """Return what one Newton step on the weighted cross-spectrum knows.

    While the shift is still wrong, all rings seem equally poor, and the many
    modes of no signal would outvote the few that know. So a first step (rough 2)
    weighs modes by their power, and the next (rough 1) asks what the coherence
    of a ring would be at its own shift.

    The columns of the result are those of `STEP`.
    """
    rings = table.shape[0]
    result = np.zeros(STEP.width)
    power, scale, weight = np.zeros(rings), np.zeros(rings), np.zeros(rings)
    count, coherence, votes = np.zeros(rings), np.zeros(rings), np.zeros(rings)
    modes = total0 = total1 = total = powers = 0.0
    for ring in range(rings):
        modes += table[ring, RING.modes]
        total0 += table[ring, RING.power0]
        total1 += table[ring, RING.power1]
        total += table[ring, RING.common]
        power[ring] = math.sqrt(table[ring, RING.power0] * table[ring, RING.power1])
        powers += power[ring]
    floor = FAINT * powers / max(modes, 1.0)
    for ring in range(rings):
        if power[ring] > 0:
            count[ring] = table[ring, RING.modes] * share
            coherence[ring] = table[ring, RING.common] / power[ring]
            if rough and coherence[ring] > STEADY:
                coherence[ring] = _own_coherence(
                    table[ring], power[ring], count[ring], active
                )
            coherence[ring] *= 1 - floor / (
                power[ring] / table[ring, RING.modes] + floor
            )
    smooth = smooth_coherence(count, coherence, SLACK)
    detected = noise = 0.0
    for ring in range(rings):
        # The more modes a ring has, the less its own mixture of places pulls it.
        scale[ring] = max(count[ring], 1.0) ** (-1 / 3)
        if count[ring] > 0:
            g = smooth[ring]
            level = power[ring] / table[ring, RING.modes]
            # The maximum-likelihood weight of a phase (Knapp & Carter 1976).
            if not weighted:
                weight[ring] = 1.0
            elif rough > 1:
                weight[ring] = g
            else:
                weight[ring] = g / ((1 - g * g) * level)
            detected += g / level * table[ring, RING.common]
            noise += 0.5 * g * g * table[ring, RING.modes] / share
    told, variance = ring_shifts(table, power, smooth, share, active)
    excess = 0.0 if rough else disagreement(told, variance, scale, active)
    shares = rim_shares(table, power, smooth, rims)
    scene = trust_rings(shares, active)
    slope, held, apart = np.zeros(3), np.zeros(3), np.zeros(3)
    matrix, spread, inverse = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    voted = 0.0
    for ring in range(rings):
        if weight[ring] <= 0 or not variance[ring] < np.inf:
            continue
        g = smooth[ring]
        tilt = (
            g
            * power[ring]
            / (0.5 * (table[ring, RING.power0] + table[ring, RING.power1]))
        )
        trust = weight[ring]
        if weighted:
            trust *= scene[ring]
        # The disagreement adds its own variance to the slope of the ring.
        doubt = excess * scale[ring]
        trust *= variance[ring] / (variance[ring] + doubt)
        curve = trust * tilt
        column = RING.curvature
        for i in range(3):
            own = curve * table[ring, column]
            votes[ring] += own
            held[i] += own * shares[ring, i]
            slope[i] += trust * table[ring, RING.slope + i]
            spread[i, i] += own * own * doubt * share
            for j in range(i, 3):
                matrix[i, j] += curve * table[ring, column]
                spread[i, j] += (
                    trust * trust * table[ring, RING.square - RING.curvature + column]
                )
                column += 1
        voted += votes[ring]
    if voted <= 0 or total0 <= 0 or total1 <= 0:
        return result
    for i in range(3):
        for j in range(i, 3):
            if not (active[i] and active[j]):
                matrix[i, j] = 1.0 if i == j else 0.0
                spread[i, j] = 0.0
            matrix[j, i] = matrix[i, j]
            spread[j, i] = spread[i, j]
    if not _invert(matrix, inverse):
        return result
    for i in range(3):
        if active[i]:
            for j in range(3):
                result[STEP.step + i] -= inverse[i, j] * slope[j]
    for i in range(3):
        result[STEP.beyond + i] = 1.0
        if active[i]:
            # Tapers that follow the content carry no information themselves, but
            # tapers that do not hold the fit back.
            stays = min(held[i], 0.5 * matrix[i, i])
            result[STEP.beyond + i] = matrix[i, i] / (matrix[i, i] - stays)
            matrix[i, i] -= stays
    if not _invert(matrix, inverse):
        return result
    if not rough:
        halves_apart(told, variance, votes, active, apart)
    for i in range(3):
        for j in range(i, 3):
            error = 0.0
            for k in range(3):
                for m in range(3):
                    error += inverse[i, k] * spread[k, m] * inverse[m, j]
            error = apart[i] * apart[j] + error / share
            result[STEP.covariance + 3 * i + j] = result[
                STEP.covariance + 3 * j + i
            ] = error
    result[STEP.correlation] = min(max(total / math.sqrt(total0 * total1), -1.0), 1.0)
    result[STEP.significance] = detected / math.sqrt(noise) if noise > 0 else 0.0
    result[STEP.fitted] = 1.0
    return result

"""Compiled weighing of what links say, by themselves and around loops."""

import numpy as np

from ..._shared.arrays import Bytes, Flags, Floats, Ints64
from ..._shared.compiled import compiled

__all__ = ["closing_choices", "rank_offsets", "weigh_choices"]

Loops = tuple[Ints64, Bytes, Ints64]
Closing = tuple[Ints64, Bytes, Floats]

# Squared misfit, beyond the number of axes, of a loop that still may close.
CLOSED = 25.0
# What a loop that does not close counts, if all its links were right: nothing,
# but for errors with longer tails than a normal distribution has.
OPEN = 1e-6
# Messages settle in a few rounds; loops of loops may make them swing for ever.
ROUNDS = 15
# Offsets that a large bundle names; all its links vote.
NAMED = 24
# Logarithm of the odds of no offset at all.
HOPELESS = -100.0


@compiled
def _longer(closing: Closing) -> Closing:  # pragma: no cover
    """Return tables with twice the room."""
    loops, digits, evidence = closing
    return (
        np.concatenate((loops, np.zeros_like(loops))),
        np.concatenate((digits, np.zeros_like(digits))),
        np.concatenate((evidence, np.zeros_like(evidence))),
    )


@compiled
def closing_choices(  # pragma: no cover
    loops: Loops, offsets: Floats, variances: Floats, alive: Flags, spread: Floats
) -> Closing:
    """Return the choices of offsets with which loops close, and their evidence.

    Offsets and variances have shape (n_links, choices, ndim); those that are not
    `alive` are left out. The evidence is the density of the misfit if all links
    are right, over that if offsets vary by `spread` (n_links, ndim), as they
    do anyway.
    """
    links, signs, lengths = loops
    choices, ndim = offsets.shape[1:]
    width = links.shape[1]
    closing = (
        np.zeros(1024, np.int64),
        np.zeros((1024, width), np.int8),
        np.zeros(1024),
    )
    found = 0
    digits = np.zeros(width, np.int8)
    # Sums over the first links of a loop stay while the choice of others changes.
    total, variance = np.zeros((width + 1, ndim)), np.zeros((width + 1, ndim))
    for loop in range(len(links)):
        digits[:] = -1
        place = 0
        while place >= 0:
            link = links[loop, place]
            digits[place] += 1
            digit = digits[place]
            if digit == choices:
                digits[place] = -1
                place -= 1
                continue
            if not alive[link, digit]:
                continue
            for axis in range(ndim):
                value = signs[loop, place] * offsets[link, digit, axis]
                total[place + 1, axis] = total[place, axis] + value
                added = variances[link, digit, axis]
                variance[place + 1, axis] = variance[place, axis] + added
            place += 1
            if place < lengths[loop]:
                continue
            misfit = 0.0
            for axis in range(ndim):
                misfit += total[place, axis] ** 2 / variance[place, axis]
            if misfit < CLOSED + ndim:
                if found == len(closing[0]):
                    closing = _longer(closing)
                wide = np.zeros(ndim)
                for a in range(place):
                    wide += spread[links[loop, a]] ** 2
                # How much less likely it is that a loop closes by chance.
                surprise = np.sqrt((1 + wide / variance[place]).prod())
                closing[0][found] = loop
                closing[1][found] = digits
                closing[2][found] = surprise * np.exp(-0.5 * misfit)
                found += 1
            place -= 1
    return closing[0][:found], closing[1][:found], closing[2][:found]


@compiled
def weigh_choices(  # pragma: no cover
    loops: Loops, closing: Closing, score: Floats
) -> Floats:
    """Pass evidence between loops and links until every choice has its odds.

    `score` holds the logarithm of the odds of each choice against none of them,
    as far as known without loops; the result includes the loops (belief
    propagation, sum-product).
    """
    links, _, lengths = loops
    loop_of, digits, evidence = closing
    choices = score.shape[1]
    told = np.zeros((len(links), links.shape[1], choices))
    total = score.copy()
    share = np.zeros((links.shape[1], choices))
    right = np.zeros(links.shape[1])
    news = np.zeros((links.shape[1], choices))
    for _ in range(ROUNDS):
        updated = score.copy()
        row = 0
        for loop in range(len(links)):
            size = lengths[loop]
            for a in range(size):
                link = links[loop, a]
                top = 0.0
                for k in range(choices):
                    share[a, k] = total[link, k] - told[loop, a, k]
                    top = max(top, share[a, k])
                whole = np.exp(-top)
                for k in range(choices):
                    share[a, k] = np.exp(share[a, k] - top)
                    whole += share[a, k]
                right[a] = 0.0
                for k in range(choices):
                    share[a, k] /= whole
                    right[a] += share[a, k]
            for a in range(size):
                others = 1.0
                for b in range(size):
                    if b != a:
                        others *= right[b]
                for k in range(choices):
                    news[a, k] = 1 - others + OPEN * others + 1e-12
            while row < len(loop_of) and loop_of[row] == loop:
                for a in range(size):
                    product = evidence[row]
                    for b in range(size):
                        if b != a:
                            product *= share[b, digits[row, b]]
                    news[a, digits[row, a]] += product
                row += 1
            for a in range(size):
                for k in range(choices):
                    told[loop, a, k] = 0.5 * (told[loop, a, k] + np.log(news[a, k]))
                    updated[links[loop, a], k] += told[loop, a, k]
        total = updated
    return total


@compiled
def rank_offsets(  # pragma: no cover
    starts: Ints64,
    offsets: Floats,
    variances: Floats,
    odds: Floats,
    wide: Floats,
    density: float,
    kept: int,
) -> tuple[Floats, Floats, Floats]:
    """Return the best offsets for each bundle of links between the same two nodes.

    The links of a bundle are consecutive, from `starts` on. `odds` (n_links,
    choices) are those of each offset against none; `wide` (bundles, ndim) is the
    variance about zero that offsets have anyway, infinite if unknown, and
    `density` that of nonsense. Returns offsets, variances and scores, which are
    logarithms of odds against none.
    """
    bundles = len(starts) - 1
    choices, ndim = offsets.shape[1:]
    best = np.zeros((bundles, kept, ndim))
    spread = np.ones((bundles, kept, ndim))
    score = np.full((bundles, kept), HOPELESS)
    for bundle in range(bundles):
        first, last = starts[bundle], starts[bundle + 1]
        # Many links agree: a few of them name all offsets worth a thought.
        named = min(last - first, NAMED)
        step = (last - first) / named
        for place in range(named):
            own = first + int(place * step)
            for k in range(choices):
                if odds[own, k] <= 0:
                    continue
                value = np.log(odds[own, k])
                for axis in range(ndim):
                    if np.isfinite(wide[bundle, axis]):
                        about = wide[bundle, axis] + variances[own, axis]
                        value -= (
                            0.5
                            * (
                                offsets[own, k, axis] ** 2 / about
                                + np.log(2 * np.pi * about)
                            )
                            + np.log(density) / ndim
                        )
                weight = 1 / variances[own]
                mean = offsets[own, k] * weight
                for link in range(first, last):
                    if link == own:
                        continue
                    gain, top, which = 1.0, 0.0, -1
                    for other in range(choices):
                        if odds[link, other] <= 0:
                            continue
                        misfit, scale = 0.0, 1.0
                        for axis in range(ndim):
                            about = variances[own, axis] + variances[link, axis]
                            away = offsets[link, other, axis] - offsets[own, k, axis]
                            misfit += away**2 / about
                            scale *= 2 * np.pi * about
                        more = np.exp(-0.5 * misfit) / np.sqrt(scale) / density
                        more *= odds[link, other]
                        gain += more
                        if more > max(top, 1.0):
                            top, which = more, other
                    value += np.log(gain)
                    if which >= 0:
                        weight += 1 / variances[link]
                        mean += offsets[link, which] / variances[link]
                mean /= weight
                _keep(
                    best[bundle], spread[bundle], score[bundle],
                    mean, 1 / weight, value,
                )  # fmt: skip
    return best, spread, score


@compiled
def _keep(  # pragma: no cover
    best: Floats,
    spread: Floats,
    score: Floats,
    mean: Floats,
    variance: Floats,
    value: float,
) -> None:
    """Write an offset among the best few that differ, ranked by score."""
    kept = len(score)
    place_at = kept
    for old in range(kept - 1, -1, -1):
        if value > score[old]:
            place_at = old
    stop = kept - 1
    skip = False
    for old in range(kept):
        misfit = 0.0
        for axis in range(len(mean)):
            away = best[old, axis] - mean[axis]
            misfit += away**2 / (spread[old, axis] + variance[axis])
        if score[old] > HOPELESS and misfit < CLOSED:
            if old < place_at:
                skip = True
            stop = min(stop, old)
    if skip or place_at == kept:
        return
    for old in range(stop, place_at, -1):
        best[old] = best[old - 1]
        spread[old] = spread[old - 1]
        score[old] = score[old - 1]
    best[place_at] = mean
    spread[place_at] = variance
    score[place_at] = value

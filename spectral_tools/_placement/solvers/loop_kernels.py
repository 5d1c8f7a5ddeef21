"""Compiled search for short loops of links, and for who breaks them.

Neighbours of a tile are listed in ascending order, parallel links one by one:
`starts` says where those of each tile begin in `ends` and in the `names` of links.
"""

import numpy as np

from ..._shared.arrays import Bytes, Floats, Ints64
from ..._shared.compiled import compiled

__all__ = ["list_loops", "name_suspects"]


# False links settle one after the other only where they crowd.
ROUNDS = 100


@compiled
def _joined(starts: Ints64, ends: Ints64, tile0: int, tile1: int) -> bool:
    """Tell whether a link joins two tiles."""
    low, high = starts[tile0], starts[tile0 + 1]
    while low < high:
        middle = (low + high) // 2
        if ends[middle] < tile1:
            low = middle + 1
        else:
            high = middle
    return bool(low < starts[tile0 + 1] and ends[low] == tile1)


@compiled
def list_loops(starts: Ints64, ends: Ints64, names: Ints64) -> tuple[Ints64, Ints64]:
    """Return the links and the tiles of each loop of two, three or four links.

    Loops of four have no short cut. Each is found once, from its lowest tile
    towards its lower neighbour. Rows of shorter loops end with -1.
    """
    begin = np.zeros(len(starts) - 1, np.int64)
    loops = np.full((0, 4), -1)
    tiles = np.full((0, 4), -1)
    # Count, then write down.
    for filling in range(2):
        seen = np.full(len(begin), -1)
        found = 0
        for a in range(len(begin)):
            for e in range(starts[a + 1] - 1, starts[a] - 1, -1):
                seen[ends[e]] = a
                begin[ends[e]] = e
            for e in range(starts[a], starts[a + 1]):
                b = ends[e]
                for f in range(e + 1, starts[a + 1]):
                    if ends[f] != b or b < a:
                        break
                    if filling:
                        _note(loops, found, names[e], names[f], -1, -1)
                        _note(tiles, found, a, b, -1, -1)
                    found += 1
                for f in range(starts[b], starts[b + 1]):
                    c = ends[f]
                    near = seen[c] == a
                    if b < a or c <= a or (near and c < b):
                        continue
                    for g in range(begin[c], starts[a + 1]):
                        if not near or ends[g] != c:
                            break
                        if filling:
                            _note(loops, found, names[e], names[f], names[g], -1)
                            _note(tiles, found, a, b, c, -1)
                        found += 1
                    for g in range(starts[c], starts[c + 1]):
                        d = ends[g]
                        if (
                            near
                            or d <= b
                            or seen[d] != a
                            or _joined(starts, ends, b, d)
                        ):
                            continue
                        for h in range(begin[d], starts[a + 1]):
                            if ends[h] != d:
                                break
                            if filling:
                                _note(
                                    loops, found, names[e], names[f], names[g], names[h]
                                )
                                _note(tiles, found, a, b, c, d)
                            found += 1
        if not filling:
            loops = np.full((found, 4), -1)
            tiles = np.full((found, 4), -1)
    return loops, tiles


@compiled
def _note(table: Ints64, row: int, a: int, b: int, c: int, d: int) -> None:
    """Write down a row of four numbers."""
    table[row, 0] = a
    table[row, 1] = b
    table[row, 2] = c
    table[row, 3] = d


@compiled
def _misfit(error: Floats, precision: Floats) -> float:
    """Return the squared length of an error, in units of its covariance."""
    total = 0.0
    for a in range(len(error)):
        for b in range(len(error)):
            total += error[a] * precision[a, b] * error[b]
    return total


@compiled
def _best_correction(
    mine: Ints64, signs: Bytes, left: Floats, precision: Floats, limit: float
) -> tuple[int, int]:
    """Return how many loops one correction of a link closes, and where it is read.

    `mine` are the places of the link in loops; the correction is what one of
    these loops asks for. Loops that closed before and do not any more count
    against it. Without open loops the place is -1.
    """
    best, chosen = 0, -1
    corrected = np.empty(left.shape[1])
    for place in mine:
        loop = place // 4
        if _misfit(left[loop], precision[loop]) <= limit:
            continue
        gain = 0
        for other in mine:
            also = other // 4
            turn = signs[loop, place % 4] * signs[also, other % 4]
            for axis in range(len(corrected)):
                corrected[axis] = left[also, axis] - turn * left[loop, axis]
            # What is asked for has an error of its own.
            if _misfit(corrected, precision[also]) <= 2 * limit:
                gain += 1
            if _misfit(left[also], precision[also]) <= limit:
                gain -= 1
        if chosen < 0 or gain > best:
            best, chosen = gain, place
    return best, chosen


@compiled
def _settle(
    loops: tuple[Ints64, Bytes],
    left: Floats,
    precision: Floats,
    limit: float,
    places: tuple[Ints64, Ints64],
    blame: Floats,
) -> bool:
    """Correct links that beat all rivals; if there are none, share the blame.

    `left` and `blame` are written to. Returns whether there is more to do.
    """
    passed, signs = loops
    begins, members = places
    gain = np.zeros(len(blame), np.int64)
    chosen = np.zeros(len(blame), np.int64)
    top = np.full(len(passed), -len(members))
    rivals = np.zeros(len(passed), np.int64)
    opened = np.zeros(len(passed), np.bool_)
    for loop in range(len(passed)):
        opened[loop] = _misfit(left[loop], precision[loop]) > limit
    for link in range(len(blame)):
        mine = members[begins[link] : begins[link + 1]]
        gain[link], chosen[link] = _best_correction(mine, signs, left, precision, limit)
        if chosen[link] >= 0:
            for place in mine:
                loop = place // 4
                if gain[link] > top[loop]:
                    top[loop], rivals[loop] = gain[link], 0
                if gain[link] == top[loop]:
                    rivals[loop] += 1
    more = False
    for link in range(len(blame)):
        mine = members[begins[link] : begins[link + 1]]
        alone = chosen[link] >= 0 and gain[link] > 0
        for place in mine:
            loop = place // 4
            if opened[loop] and (gain[link] < top[loop] or rivals[loop] > 1):
                alone = False
        if alone:
            more = True
            blame[link] = 1.0
            # A link is in few loops, and this one need not stay as it is.
            asked = left[chosen[link] // 4].copy()
            sign = signs[chosen[link] // 4, chosen[link] % 4]
            for place in mine:
                loop = place // 4
                for axis in range(len(asked)):
                    left[loop, axis] -= signs[loop, place % 4] * sign * asked[axis]
    if not more:
        for loop in range(len(passed)):
            for slot in range(4):
                link = passed[loop, slot]
                if opened[loop] and link >= 0 and gain[link] == top[loop]:
                    blame[link] = max(blame[link], 1.0 / rivals[loop])
    return more


@compiled
def name_suspects(
    loops: tuple[Ints64, Bytes],
    errors: Floats,
    precision: Floats,
    limit: float,
    places: tuple[Ints64, Ints64],
) -> Floats:
    """Return how much each link is to blame for loops that do not close.

    Strategy: of the links of an open loop, blame the one whose correction closes
    most loops that it is part of, correct it, and look again. Where several
    would do, they share the blame.

    `places` says where those of each link begin, and lists its places in loops.
    """
    left = errors.copy()
    blame = np.zeros(len(places[0]) - 1)
    for _ in range(ROUNDS):
        if not _settle(loops, left, precision, limit, places, blame):
            break
    return blame

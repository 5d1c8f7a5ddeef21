"""Compiled search for short loops of links, and for who breaks them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Bytes, Floats, Ints64
from ..._shared.compiled import compiled

__all__ = ["find_loops", "follow_routes", "longer_loops", "name_suspects"]


# False links settle one after the other only where they crowd.
ROUNDS = 100

Loops = tuple[Ints64, Bytes, Ints64]
# Neighbours of nodes, in ascending order: where those of each begin, which they are,
# and the links to them.
Graph = tuple[Ints64, Ints64, Ints64]

# Loops of up to this many links are looked at.
LONGEST = 6
# No link owns more loops than this, as many as it has in a dense network.
OWNED = 6


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
def _correct_links(
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
        if not _correct_links(loops, left, precision, limit, places, blame):
            break
    return blame


def find_loops(pairs: Ints64, *, chordless: bool = False) -> Loops:
    """Return links, signs and lengths of triangles, squares and some longer loops.

    Each link joins `pairs` of nodes, the lower number first, and no two join the
    same; its sign is that with which its offset enters the sum around a loop. Loops
    start with their first link. `chordless` asks for all triangles, and all squares
    without a short cut, instead of a few for each link.
    """
    return _short_loops(pairs, chordless)


@compiled
def _neighbours(pairs: Ints64) -> Graph:  # pragma: no cover
    """Return the neighbours of nodes by a counting sort: by the end, by the start."""
    size, count = len(pairs), 0
    here, there = np.empty((2, 2 * size), np.int64)
    for link in range(size):
        first, last = pairs[link, 0], pairs[link, 1]
        here[link], there[link] = first, last
        here[size + link], there[size + link] = last, first
        count = max(count, first + 1, last + 1)
    order = np.arange(2 * size)
    starts, at = np.zeros((2, count + 1), np.int64)
    for nodes in (there, here):
        starts.fill(0)
        for node in nodes:
            starts[node + 1] += 1
        for node in range(count):
            starts[node + 1] += starts[node]
        for node in range(count):
            at[node] = starts[node]
        before, order = order, np.empty_like(order)
        for place in before:
            order[at[nodes[place]]] = place
            at[nodes[place]] += 1
    return starts, there[order], order % max(size, 1)


@compiled
def _mark(  # pragma: no cover
    marks: Ints64, node: int, graph: Graph, there: bool
) -> None:
    """Write the links of a node to its neighbours, or -1 if they are to be forgotten."""
    starts, ends, names = graph
    for a in range(starts[node], starts[node + 1]):
        marks[ends[a]] = names[a] if there else -1


@compiled
def _tables() -> Loops:  # pragma: no cover
    """Return empty tables of links, signs and lengths of loops."""
    return (
        np.full((1024, LONGEST), -1),
        np.zeros((1024, LONGEST), np.int8),
        np.zeros(1024, np.int64),
    )


@compiled
def _with_room(loops: Loops, most: int) -> Loops:  # pragma: no cover
    """Return tables with room for so many loops."""
    links, signs, lengths = loops
    old = len(links)
    if most <= old:
        return loops
    wider = np.full((max(2 * old, most), LONGEST), -1)
    signs_wider = np.zeros(wider.shape, np.int8)
    longer = np.zeros(len(wider), np.int64)
    # Loops compile in a fraction of the time that slices take.
    for loop in range(old):
        longer[loop] = lengths[loop]
        for place in range(LONGEST):
            wider[loop, place] = links[loop, place]
            signs_wider[loop, place] = signs[loop, place]
    return wider, signs_wider, longer


@compiled
def _write(  # pragma: no cover
    loops: Loops, found: int, held: Ints64, walk: Any, steps: Any
) -> None:
    """Write the loop along the nodes of `walk`, by the links `steps`."""
    links, signs, lengths = loops
    size = len(steps)
    for place in range(size):
        links[found, place] = steps[place]
        signs[found, place] = 1 if walk[place] < walk[(place + 1) % size] else -1
        held[steps[place]] += 1
    lengths[found] = size


@compiled
def _own_loops(  # pragma: no cover
    loops: Loops,
    found: int,
    held: Ints64,
    link: int,
    pair: tuple[int, int],
    graph: Graph,
    near: tuple[Ints64, Ints64],
    chordless: bool,
) -> int:
    """Write triangles and squares in which no link has a lower number.

    `near` are the links from each node to the two of the pair, or -1. Returns how many
    loops there are now.
    """
    starts, ends, names = graph
    homes, chords = near
    first, last = pair
    limit = found + OWNED
    if chordless:
        limit = np.iinfo(np.int64).max
    for a in range(starts[last], starts[last + 1]):
        node, one = ends[a], names[a]
        if one > link and homes[node] > link and found < limit:
            _write(loops, found, held, (first, last, node), (link, one, homes[node]))
            found += 1
    for a in range(starts[last], starts[last + 1]):
        node, one = ends[a], names[a]
        if one <= link or (chordless and homes[node] >= 0):
            continue
        for b in range(starts[node], starts[node + 1]):
            other, two = ends[b], names[b]
            three = homes[other]
            if two <= link or three <= link or other == last or found == limit:
                continue
            if chordless and chords[other] >= 0:
                continue
            walk, steps = (first, last, node, other), (link, one, two, three)
            _write(loops, found, held, walk, steps)
            found += 1
    return found


@compiled
def _shortest_way(  # pragma: no cover
    link: int, pair: Ints64, graph: Graph, tables: Ints64
) -> tuple[Ints64, Ints64]:
    """Return nodes and links of the shortest loop through a link, if short enough.

    The rows of `tables` are depth (-1, and so it is left), way, parent and queue.
    """
    starts, ends, names = graph
    depth, way, parent, queue = tables
    first, last = pair
    queue[0], depth[last] = last, 0
    head, tail = 0, 1
    while head < tail and depth[first] < 0 and depth[queue[head]] < LONGEST - 1:
        node = queue[head]
        head += 1
        for a in range(starts[node], starts[node + 1]):
            other = ends[a]
            if depth[other] < 0 and names[a] != link:
                depth[other] = depth[node] + 1
                parent[other], way[other] = node, names[a]
                queue[tail] = other
                tail += 1
    size = max(depth[first], 0) + 1
    walk, steps = np.full(size, first), np.full(size, link)
    # Backwards, from the first node to the last, and home by the link itself.
    for place in range(size - 1):
        steps[place] = way[walk[place]]
        walk[place + 1] = parent[walk[place]]
    for a in range(tail):
        depth[queue[a]] = -1
    return walk, steps


@compiled
def _short_loops(pairs: Ints64, chordless: bool) -> Loops:  # pragma: no cover
    """Return the loops of a graph.

    Those with more than four links only through links that no shorter loop holds.
    """
    held = np.zeros(len(pairs), np.int64)
    loops = _tables()
    found = 0
    graph = starts, ends, _ = _neighbours(pairs)
    near = np.full(len(starts) - 1, -1), np.full(len(starts) - 1, -1)
    for link in range(len(pairs)):
        pair = pairs[link, 0], pairs[link, 1]
        for side in range(2):
            _mark(near[side], pair[side], graph, True)
        # No loops are more than ways of one and of two links from the last node on.
        most = 0
        for a in range(starts[pair[1]], starts[pair[1] + 1]):
            most += 1 + starts[ends[a] + 1] - starts[ends[a]]
        if not chordless:
            most = min(most, OWNED)
        if found + most > len(loops[0]):
            loops = _with_room(loops, found + most)
        found = _own_loops(loops, found, held, link, pair, graph, near, chordless)
        for side in range(2):
            _mark(near[side], pair[side], graph, False)
    tables = np.zeros((4, len(graph[0]) - 1), np.int64)
    tables[0].fill(-1)
    for link in range(len(pairs)):
        if held[link] == 0 and not chordless:
            walk, steps = _shortest_way(link, pairs[link], graph, tables)
            if len(walk) > 2:
                loops = _with_room(loops, found + 1)
                _write(loops, found, held, walk, steps)
                found += 1
    return loops[0][:found], loops[1][:found], loops[2][:found]


@compiled
def follow_routes(  # pragma: no cover
    order: Ints64, routes: Ints64, passed: Bytes, offers: tuple[Ints64, Ints64, Ints64]
) -> tuple[Ints64, Bytes]:
    """Return links and signs of the loops along routes of four pairs of nodes, in order.

    `passed` are the signs of the pairs. `offers` says where the links of each pair
    begin, which they are, and their signs; the last of them changes first. A route that
    goes back the same way takes any two links once.
    """
    starts, names, ways = offers
    total = 0
    for row in range(len(routes)):
        size = 1
        for pair in routes[row]:
            size *= starts[pair + 1] - starts[pair]
        if routes[row, 0] == routes[row, 1]:
            parallel = starts[routes[row, 0] + 1] - starts[routes[row, 0]]
            size = parallel * (parallel - 1) // 2
        total += size
    links, signs = np.empty((total, 4), np.int64), np.empty((total, 4), np.int8)
    found = 0
    for row in order:
        one, two, three, four = routes[row]
        for a in range(starts[one], starts[one + 1]):
            for b in range(a + 1 if one == two else starts[two], starts[two + 1]):
                for c in range(starts[three], starts[three + 1]):
                    for d in range(starts[four], starts[four + 1]):
                        for place, at in enumerate((a, b, c, d)):
                            links[found, place] = names[at]
                            signs[found, place] = passed[row, place] * ways[at]
                        found += 1
    return links, signs


@compiled
def longer_loops(
    loops: Loops, doubtful: NDArray[np.bool_]
) -> Loops:  # pragma: no cover
    """Return loops around each two that share one doubtful link, which they avoid."""
    links, _, lengths = loops
    starts = np.zeros(len(doubtful) + 1, np.int64)
    for loop in range(len(links)):
        for place in range(lengths[loop]):
            starts[links[loop, place] + 1] += doubtful[links[loop, place]]
    starts = np.cumsum(starts)
    holders = np.zeros(starts[-1], np.int64)
    at = starts[:-1].copy()
    for loop in range(len(links)):
        for place in range(lengths[loop]):
            link = links[loop, place]
            if doubtful[link]:
                holders[at[link]] = loop
                at[link] += 1
    found = 0
    merged = _tables()
    for link in range(len(doubtful)):
        limit = found + OWNED
        for a in range(starts[link], starts[link + 1]):
            for b in range(a + 1, starts[link + 1]):
                if found < limit:
                    merged = _with_room(merged, found + 1)
                    found += _merge(loops, holders[a], holders[b], link, merged, found)
    return merged[0][:found], merged[1][:found], merged[2][:found]


@compiled
def _merge(  # pragma: no cover
    loops: Loops, loop0: int, loop1: int, shared: int, merged: Loops, found: int
) -> int:
    """Write the loop that is left of two without the one link they share.

    Returns how many were written: none if it is too long, too short to be new, or
    if they share more.
    """
    links, signs, lengths = loops
    size = lengths[loop0] + lengths[loop1] - 2
    if size <= 4 or size > LONGEST:
        return 0
    sign0, sign1 = 1, 1
    for a in range(lengths[loop0]):
        for b in range(lengths[loop1]):
            if links[loop0, a] == links[loop1, b]:
                if links[loop0, a] != shared:
                    return 0
                sign0, sign1 = signs[loop0, a], signs[loop1, b]
    place = 0
    for a in range(lengths[loop0]):
        if links[loop0, a] != shared:
            merged[0][found, place] = links[loop0, a]
            merged[1][found, place] = signs[loop0, a]
            place += 1
    for b in range(lengths[loop1]):
        if links[loop1, b] != shared:
            merged[0][found, place] = links[loop1, b]
            merged[1][found, place] = -signs[loop1, b] * sign0 * sign1
            place += 1
    merged[2][found] = size
    return 1

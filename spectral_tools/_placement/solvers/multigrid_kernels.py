"""Compiled passes of a multigrid solver for networks of links.

A network is stored tile by tile: `starts` says where the links of each tile
begin in `tiles`, the tiles they lead to, and in `weights` beside it; those that
lead to earlier tiles come first, up to `middles`. `excess` is what ties each
tile to its place, and `inverse` one over the sum of that and its weights, or 0
if the tile is held. Two right sides are solved together, side by side.

Links and excess, unlike the entries of a matrix, add up to those of a coarser
level without cancellation, however different the weights are.
"""

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Floats, Ints, Ints32
from ..._shared.compiled import compiled

__all__ = [
    "blend",
    "coarser",
    "grown",
    "neighbours",
    "paired",
    "product",
    "pulled",
    "smoothed_down",
    "smoothed_up",
    "tied",
    "tree_steps",
]


# A tile whose place is this much of all that holds it needs no coarser level.
HELD_BY_PLACE = 0.5
# What holds two tiles may be so much more than the link between them that
# relaxing each cannot move both as one: then they are no pair, nor are they if
# one of them has a neighbour that suits it so much better.
LOOSE = 1 / 16
# A tile joins a pair that has met before if the link is this much of what holds it, and
# a neighbour suits it better if the link to it is weaker by no more than this.
FIRM = 1 / 4


@compiled
def neighbours(links: Ints, count: int) -> tuple[Ints32, Ints32, Ints32, Ints32]:
    """Return starts, middles and tiles of a network, and the link of each entry."""
    starts = np.zeros(count + 1, np.int32)
    for link in range(len(links)):
        starts[links[link, 0] + 1] += 1
        starts[links[link, 1] + 1] += 1
    for tile in range(count):
        starts[tile + 1] += starts[tile]
    # Earlier tiles fill a row from its front, later ones from its back.
    middles, ends = starts[:-1].copy(), starts[1:].copy()
    tiles = np.empty(starts[count], np.int32)
    which = np.empty(starts[count], np.int32)
    for link in range(len(links)):
        first = min(links[link, 0], links[link, 1])
        last = max(links[link, 0], links[link, 1])
        ends[first] -= 1
        tiles[ends[first]] = last
        which[ends[first]] = link
        tiles[middles[last]] = first
        which[middles[last]] = link
        middles[last] += 1
    return starts, middles, tiles, which


@compiled
def grown(
    starts: Ints32, tiles: Ints32, held: NDArray[np.bool_]
) -> tuple[Ints32, Ints32]:
    """Return tiles in the order of their distance from held ones, and their ranks.

    Groups without a held tile follow, from the first tile of each. Neighbours
    are near each other in this order, and so in memory.
    """
    count = len(held)
    order, rank = np.empty(count, np.int32), np.full(count, -1, np.int32)
    tail = 0
    for tile in range(count):
        if held[tile]:
            order[tail], rank[tile] = tile, tail
            tail += 1
    head, root = 0, 0
    while tail < count:
        if head == tail:
            while rank[root] >= 0:
                root += 1
            order[tail], rank[root] = root, tail
            tail += 1
        tile = order[head]
        head += 1
        for entry in range(starts[tile], starts[tile + 1]):
            other = tiles[entry]
            if rank[other] < 0:
                order[tail], rank[other] = other, tail
                tail += 1
    return order, rank


@compiled
def tree_steps(
    starts: Ints32,
    middles: Ints32,
    tiles: Ints32,
    which: Ints32,
    order: Ints32,
    links: Ints,
    mismatch: Floats,
    held: NDArray[np.bool_],
) -> Floats:
    """Return steps that a tree of links, each to the earliest tile, asks for."""
    steps = np.zeros((len(held), mismatch.shape[1]))
    for number in range(len(order)):
        tile = order[number]
        if held[tile] or starts[number] == middles[number]:
            continue
        parent = starts[number]
        for entry in range(starts[number], middles[number]):
            if tiles[entry] < tiles[parent]:
                parent = entry
        near, link = order[tiles[parent]], which[parent]
        sign = 1.0 if links[link, 1] == tile else -1.0
        for axis in range(mismatch.shape[1]):
            steps[tile, axis] = steps[near, axis] + sign * mismatch[link, axis]
    return steps


@compiled
def tied(
    starts: Ints32,
    which: Ints32,
    weights: Floats,
    prior: float,
    held: NDArray[np.bool_],
) -> tuple[Floats, Floats, Floats]:
    """Return the weight of each entry, and excess and inverse of each tile."""
    values, inverse = np.empty(len(which)), np.zeros(len(held))
    for tile in range(len(held)):
        total = prior
        for entry in range(starts[tile], starts[tile + 1]):
            values[entry] = weights[which[entry]]
            total += values[entry]
        if not held[tile]:
            inverse[tile] = 1 / total
    return values, np.full(len(held), prior), inverse


@compiled
def paired(
    starts: Ints32,
    tiles: Ints32,
    weights: Floats,
    excess: Floats,
    own: Floats,
) -> tuple[Ints32, int]:
    """Pair each tile with the neighbour it is most rigidly tied to.

    `own` is what holds a tile, or all tiles of a pair, while it is relaxed; a
    held tile has an infinite one. Returned are the number of the pair of each
    tile, -1 if it needs none, and how many pairs there are. A tile that finds
    its best neighbours taken joins one of them, or stays alone.
    """
    count = len(own)
    pair = np.full(count, -2, np.int32)
    for tile in range(count):
        if own[tile] == np.inf or excess[tile] >= HELD_BY_PLACE * own[tile]:
            pair[tile] = -1
    # Only those that did not join: a chain of tiles that join is not rigid.
    founder = np.zeros(count, np.bool_)
    found = 0
    for tile in range(count):
        if pair[tile] != -2:
            continue
        best, firmest, partner = 0.0, 0.0, -1
        strongest, host = FIRM * own[tile], -1
        for entry in range(starts[tile], starts[tile + 1]):
            other, weight = tiles[entry], weights[entry]
            if pair[other] == -1:
                continue
            tie = weight / own[tile] + weight / own[other]
            firmest = max(firmest, tie)
            if pair[other] == -2 and tie > best:
                best, partner = tie, other
            if founder[other] and weight > strongest:
                strongest, host = weight, other
        if best >= max(FIRM * firmest, LOOSE):
            founder[partner] = True
            pair[partner] = found
        elif host >= 0:
            pair[tile] = pair[host]
            continue
        founder[tile] = True
        pair[tile] = found
        found += 1
    return pair, found


@compiled
def coarser(
    starts: Ints32,
    tiles: Ints32,
    weights: Floats,
    excess: Floats,
    pair: Ints32,
    found: int,
) -> tuple[Ints32, Ints32, Ints32, Floats, Floats, Floats]:
    """Return the network of pairs: starts, middles, tiles, weights, excess, inverse."""
    count = len(pair)
    begins = np.zeros(found + 1, np.int32)
    for tile in range(count):
        if pair[tile] >= 0:
            begins[pair[tile] + 1] += 1
    for one in range(found):
        begins[one + 1] += begins[one]
    place, members = begins[:-1].copy(), np.empty(begins[found], np.int32)
    for tile in range(count):
        if pair[tile] >= 0:
            members[place[pair[tile]]] = tile
            place[pair[tile]] += 1

    new_starts = np.zeros(found + 1, np.int32)
    middles = np.empty(found, np.int32)
    new_tiles = np.empty(len(tiles), np.int32)
    new_weights = np.empty(len(tiles))
    new_excess, inverse = np.zeros(found), np.empty(found)
    # Where the entry of another pair is in the row at hand.
    at = np.full(found, -1, np.int32)
    end = 0
    for one in range(found):
        start = end
        total = 0.0
        for member in members[begins[one] : begins[one + 1]]:
            new_excess[one] += excess[member]
            for entry in range(starts[member], starts[member + 1]):
                other = pair[tiles[entry]]
                if other == one:
                    continue
                if other < 0:
                    new_excess[one] += weights[entry]
                    continue
                total += weights[entry]
                if at[other] < start:
                    at[other] = end
                    new_tiles[end] = other
                    new_weights[end] = weights[entry]
                    end += 1
                else:
                    new_weights[at[other]] += weights[entry]
        inverse[one] = 1 / (total + new_excess[one])
        middle = start
        for entry in range(start, end):
            if new_tiles[entry] < one:
                other, weight = new_tiles[entry], new_weights[entry]
                new_tiles[entry] = new_tiles[middle]
                new_weights[entry] = new_weights[middle]
                new_tiles[middle], new_weights[middle] = other, weight
                middle += 1
        middles[one], new_starts[one + 1] = middle, end
    return (
        new_starts,
        middles,
        new_tiles[:end].copy(),
        new_weights[:end].copy(),
        new_excess,
        inverse,
    )


@compiled
def smoothed_down(
    starts: Ints32,
    middles: Ints32,
    tiles: Ints32,
    weights: Floats,
    inverse: Floats,
    pair: Ints32,
    force: Floats,
    steps: Floats,
    rest: Floats,
) -> None:
    """Relax tile after tile from zero `steps`; add to `rest` what each pair lacks.

    When the last tile has been relaxed, the forces of later tiles on earlier
    ones are all that is not yet in balance.
    """
    rest[:] = 0
    for tile in range(len(inverse)):
        pull0, pull1 = force[tile, 0], force[tile, 1]
        for entry in range(starts[tile], middles[tile]):
            other, weight = tiles[entry], weights[entry]
            pull0 += weight * steps[other, 0]
            pull1 += weight * steps[other, 1]
        pull0 *= inverse[tile]
        pull1 *= inverse[tile]
        steps[tile, 0], steps[tile, 1] = pull0, pull1
        for entry in range(starts[tile], middles[tile]):
            other = pair[tiles[entry]]
            if other >= 0:
                rest[other, 0] += weights[entry] * pull0
                rest[other, 1] += weights[entry] * pull1


@compiled
def smoothed_up(
    starts: Ints32,
    tiles: Ints32,
    weights: Floats,
    inverse: Floats,
    pair: Ints32,
    force: Floats,
    steps: Floats,
    moves: Floats,
) -> None:
    """Move tiles with their pairs, then relax them in backward order."""
    count = len(inverse)
    for tile in range(count):
        if pair[tile] >= 0:
            steps[tile, 0] += moves[pair[tile], 0]
            steps[tile, 1] += moves[pair[tile], 1]
    for tile in range(count - 1, -1, -1):
        pull0, pull1 = force[tile, 0], force[tile, 1]
        for entry in range(starts[tile], starts[tile + 1]):
            other, weight = tiles[entry], weights[entry]
            pull0 += weight * steps[other, 0]
            pull1 += weight * steps[other, 1]
        steps[tile, 0] = pull0 * inverse[tile]
        steps[tile, 1] = pull1 * inverse[tile]


@compiled
def pulled(
    starts: Ints32,
    tiles: Ints32,
    weights: Floats,
    excess: Floats,
    inverse: Floats,
    steps: Floats,
    pulls: Floats,
) -> float:
    """Write the forces that make `steps`, and return the work they do."""
    work = 0.0
    for tile in range(len(inverse)):
        here0, here1 = steps[tile, 0], steps[tile, 1]
        pull0, pull1 = excess[tile] * here0, excess[tile] * here1
        # Differences first: weak links between rigid parts would be lost else.
        for entry in range(starts[tile], starts[tile + 1]):
            other, weight = tiles[entry], weights[entry]
            pull0 += weight * (here0 - steps[other, 0])
            pull1 += weight * (here1 - steps[other, 1])
        if inverse[tile] == 0:
            pull0 = pull1 = 0.0
        pulls[tile, 0], pulls[tile, 1] = pull0, pull1
        work += here0 * pull0 + here1 * pull1
    return work


@compiled
def product(one: Floats, other: Floats) -> float:
    """Return the scalar product of two arrays of two columns."""
    total = 0.0
    for row in range(len(one)):
        total += one[row, 0] * other[row, 0] + one[row, 1] * other[row, 1]
    return total


@compiled
def blend(
    share: float, one: Floats, other_share: float, other: Floats, out: Floats
) -> None:
    """Write a weighted sum of two arrays of two columns."""
    for row in range(len(one)):
        out[row, 0] = share * one[row, 0] + other_share * other[row, 0]
        out[row, 1] = share * one[row, 1] + other_share * other[row, 1]

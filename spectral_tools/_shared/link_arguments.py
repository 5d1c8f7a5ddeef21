"""Number tiles that are named by labels."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Floats
from .checks import as_positions

__all__ = ["Links", "Positions", "find_tiles", "listed_positions", "number_links"]

Links = ArrayLike | Sequence[tuple[Hashable, Hashable]]
Positions = ArrayLike | Mapping[Any, ArrayLike]
Pairs = NDArray[np.intp] | list[tuple[Any, ...]]


def number_links(
    links: Links, positions: Positions | None
) -> tuple[NDArray[np.intp], Sequence[Hashable]]:
    """Return links as pairs of tile numbers, and the label of each number.

    Integers are numbers already, unless `positions` maps them to positions.
    Other labels are numbered in the order of that mapping; without it they are
    sorted, or come as they first appear if they cannot be.
    """
    pairs = _pairs(links)
    labels: Sequence[Hashable]
    if isinstance(positions, Mapping):
        labels = list(positions)
    elif isinstance(pairs, list):
        labels = _in_order(chain.from_iterable(pairs))
    elif positions is not None:
        labels = range(len(np.atleast_1d(positions)))
    else:
        labels = range(int(pairs.max(initial=-1)) + 1)
    if not labels:
        message = "`links` must name tiles if there are no `positions`; got none."
        raise ValueError(message)
    numbered = _looked_up(pairs, labels)
    same = numbered[:, 0] == numbered[:, 1]
    if same.any():
        row = int(same.argmax())
        tile = labels[numbered[row, 0]]
        message = f"`links` must join two tiles; got {tile!r} twice in link {row}."
        raise ValueError(message)
    return numbered, labels


def find_tiles(tiles: Any, labels: Sequence[Hashable], name: str) -> NDArray[np.bool_]:
    """Tell for each tile whether `tiles`, one label or several, names it."""
    flags = np.zeros(len(labels), np.bool_)
    if tiles is None:
        return flags
    known = _numbers(labels)
    alone = isinstance(tiles, str | Integral) or not isinstance(tiles, Iterable)
    # A grid key is a sequence too: only the labels tell it from several.
    if alone or (isinstance(tiles, tuple) and tiles in known):
        tiles = [tiles]
    for tile in tiles:
        if tile not in known:
            message = f"`{name}` must name known tiles; got {tile!r}."
            raise ValueError(message)
        flags[known[tile]] = True
    return flags


def _pairs(links: Links) -> Pairs:
    """Return pairs of numbers as an array, pairs of other labels as a list."""
    if isinstance(links, np.ndarray):
        if links.ndim != 2 or links.shape[1] != 2:
            message = f"`links` must have shape (n_links, 2); got {links.shape}."
            raise ValueError(message)
        if links.dtype.kind in "iu":
            return links.astype(np.intp, copy=False)
        if links.dtype.kind not in "OSU" and len(links):
            message = f"`links` must hold integers or labels; got dtype {links.dtype}."
            raise TypeError(message)
    pairs = [tuple(pair) for pair in links]  # type: ignore[union-attr,arg-type]
    for row, pair in enumerate(pairs):
        if len(pair) != 2:
            message = f"`links` must hold pairs of tiles; got {pair!r} as link {row}."
            raise ValueError(message)
    if all(isinstance(label, Integral) for label in chain.from_iterable(pairs)):
        return np.array(pairs, np.intp).reshape(-1, 2)
    return pairs


def _in_order(labels: Iterable[Any]) -> list[Any]:
    known = dict.fromkeys(labels)
    try:
        return sorted(known)
    except TypeError:
        return list(known)


def _looked_up(pairs: Pairs, labels: Sequence[Hashable]) -> NDArray[np.intp]:
    """Return the numbers of the labels of each pair."""
    if isinstance(pairs, np.ndarray) and isinstance(labels, range):
        numbered = pairs
    else:
        rows = pairs.tolist() if isinstance(pairs, np.ndarray) else pairs
        known = _numbers(labels)
        found = [[known.get(label, -1) for label in row] for row in rows]
        numbered = np.array(found, np.intp).reshape(-1, 2)
    unknown = ((numbered < 0) | (numbered >= len(labels))).any(axis=1)
    if unknown.any():
        row = int(unknown.argmax())
        pair = pairs[row].tolist() if isinstance(pairs, np.ndarray) else [*pairs[row]]
        message = f"`links` must join known tiles; got {pair} for link {row}."
        raise ValueError(message)
    return numbered


def _numbers(labels: Sequence[Hashable]) -> dict[Any, int]:
    return {label: number for number, label in enumerate(labels)}


def listed_positions(positions: Any, labels: Sequence[Hashable], ndim: int) -> Floats:
    """Return the position of each label, from a list or a mapping."""
    if isinstance(positions, Mapping):
        missing = [label for label in labels if label not in positions]
        if missing:
            message = f"`positions` must name every tile; got none for {missing[0]!r}."
            raise ValueError(message)
        positions = [positions[label] for label in labels]
    return as_positions(positions, "positions", count=len(labels), ndim=ndim)

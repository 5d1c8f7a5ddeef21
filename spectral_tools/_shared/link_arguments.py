"""Number tiles that are named by labels."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import AT_ONCE, Flags, Floats, as_array
from .checks import as_points, as_positions, as_shift, check_positive, check_sizes
from .results import Outcome
from .sparse import connected_groups
from .statistics import ROUNDING

__all__ = [
    "Links",
    "Positions",
    "as_label",
    "as_link_points",
    "as_link_weights",
    "as_pairs",
    "as_places",
    "as_position_prior",
    "find_tiles",
    "listed_positions",
    "number_links",
    "residual_variance",
    "tile_outcomes",
]


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
    pairs = as_pairs(links)
    labels: Sequence[Hashable]
    if isinstance(positions, Mapping):
        labels = [as_label(label, "positions") for label in positions]
    elif isinstance(pairs, list):
        labels = _in_order(chain.from_iterable(pairs))
    elif positions is not None:
        labels = range(len(np.atleast_1d(positions)))
    else:
        count = int(pairs.max(initial=-1)) + 1
        # Numbers are names too: nobody has so many tiles of which so few are linked.
        named = count > max(AT_ONCE, 2 * pairs.size)
        labels = np.unique(pairs).tolist() if named else range(count)
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
    alone = getattr(tiles, "shape", None) == () or not isinstance(tiles, Iterable)
    # A grid key is a sequence too: only the labels tell it from several.
    key = isinstance(tiles, tuple) and as_label(tiles, name) in known
    if isinstance(tiles, memoryview):
        tiles = np.asarray(tiles)
    if alone or key or isinstance(tiles, str | bytes):
        tiles = [tiles]
    for each in tiles:
        tile = as_label(each, name)
        if tile not in known:
            message = f"`{name}` must name known tiles; got {tile!r}."
            raise ValueError(message)
        flags[known[tile]] = True
    return flags


def as_pairs(links: Any) -> Pairs:
    """Return pairs of numbers as an array, pairs of other labels as a list."""
    if isinstance(links, str | bytes | Mapping | AbstractSet) or not (
        isinstance(links, Iterable) or hasattr(links, "shape")
    ):
        message = f"`links` must hold pairs of tiles; got {type(links).__name__}."
        raise TypeError(message)
    if hasattr(links, "shape"):
        links = as_array(links)
        if links.shape == (0,):
            links = np.empty((0, 2), np.intp)
        if links.ndim != 2 or links.shape[1] != 2:
            message = f"`links` must have shape (n_links, 2); got {links.shape}."
            raise ValueError(message)
        if links.dtype.kind in "iu":
            return links.astype(np.intp, copy=False)
        if links.dtype.kind not in "OSU" and len(links):
            message = f"`links` must hold integers or labels; got dtype {links.dtype}."
            raise TypeError(message)
    pairs = []
    for row, pair in enumerate(links):
        two = hasattr(pair, "__iter__") or hasattr(pair, "__getitem__")
        if isinstance(pair, str | bytes | Mapping | AbstractSet) or not two:
            message = f"`links` must hold pairs of tiles; got {pair!r} as link {row}."
            raise TypeError(message)
        # What is sparse, and a number that has a shape, is no pair to NumPy.
        ends = np.atleast_1d(pair) if hasattr(pair, "shape") else pair
        pairs.append(tuple(map(as_label, ends)))
        if len(pairs[-1]) != 2:
            message = f"`links` must hold pairs of tiles; got {pair!r} as link {row}."
            raise ValueError(message)
    if all(_is_number(label) for label in chain.from_iterable(pairs)):
        return np.array(pairs, np.intp).reshape(-1, 2)
    return pairs


def _is_number(label: Any) -> bool:
    most = np.iinfo(np.intp).max
    return isinstance(label, Integral) and -most <= int(label) <= most


def as_label(label: Any, name: str = "links") -> Any:
    """Return a label as Python knows it: numbers of any library are equal by value."""
    if getattr(label, "shape", None) == ():
        label = np.asarray(label)[()]
        label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, tuple):
        label = tuple(as_label(each, name) for each in label)
    try:
        hash(label)
    except TypeError as error:
        message = f"`{name}` must name tiles by what can be hashed; got {label!r}."
        raise TypeError(message) from error
    return label


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


def as_link_points(points: ArrayLike, name: str, count: int) -> Floats:
    """Return one point for each of `count` links."""
    array = as_points(_finite_rows(points, name, "link"), name)
    if len(array) != count:
        message = (
            f"`{name}` must have one row for each of {count} links; got {len(array)}."
        )
        raise ValueError(message)
    # Normal equations hold squares of levers, and their determinants the squares of these.
    check_sizes(array, name, degree=4)
    return array


def as_places(
    positions: Positions | None, labels: Sequence[Hashable], ndim: int
) -> Floats:
    """Return the expected position of each tile, or zeros."""
    if positions is None:
        return np.zeros((len(labels), ndim))
    if isinstance(positions, Mapping):
        positions = np.array(list(positions.values()))
    finite = _finite_rows(positions, "positions", "tile")
    return as_positions(finite, "positions", count=len(labels), ndim=ndim)


def as_position_prior(
    sigma: ArrayLike | None, positions: Positions | None, ndim: int
) -> Floats:
    """Return the inverse variance of positions along each axis, 0 if unknown."""
    if sigma is None:
        return np.zeros(ndim)
    if positions is None:
        message = "`positions` must be given with `position_sigma`; got None."
        raise ValueError(message)
    spread = as_shift(sigma, ndim, "position_sigma")
    check_positive(float(spread.min()), "position_sigma")
    # Nothing is known better than rounding lets it be.
    return np.maximum(spread, ROUNDING) ** -2.0


def as_link_weights(
    covariance: ArrayLike | None, count: int, ndim: int
) -> tuple[Floats, Floats, Flags]:
    """Return covariances, their inverses, and which links have one."""
    given = np.eye(ndim) if covariance is None else np.asarray(covariance, np.float64)
    if given.shape not in ((ndim, ndim), (count, ndim, ndim)):
        message = (
            f"`covariance` must have shape {(count, ndim, ndim)} or "
            f"{(ndim, ndim)}; got {given.shape}."
        )
        raise ValueError(message)
    full = np.broadcast_to(given, (count, ndim, ndim))
    # Many links with one covariance are common, and one inverse serves them.
    distinct = full[:1] if full.strides[0] == 0 else full
    usable = np.asarray(np.isfinite(distinct).all(axis=(1, 2)))
    safe = np.where(usable[:, np.newaxis, np.newaxis], distinct, np.eye(ndim))
    bad = np.isnan(distinct).any(axis=(1, 2)) | ~_positive_definite(safe)
    if bad.any():
        row = int(bad.argmax())
        message = (
            "`covariance` must be symmetric and positive definite, or infinite; "
            f"got {distinct[row].tolist()} for link {row}."
        )
        raise ValueError(message)
    inverse = np.linalg.inv(safe)
    # Nothing is known better than rounding lets it be.
    sure = inverse.trace(axis1=1, axis2=2) > ROUNDING**-2
    variances, axes = np.linalg.eigh(safe[sure])
    scaled = axes / np.maximum(variances, ROUNDING**2)[:, np.newaxis]
    inverse[sure] = scaled @ axes.transpose(0, 2, 1)
    weights = np.broadcast_to(inverse, full.shape)
    return full, weights, np.broadcast_to(usable, count)


def tile_outcomes(
    links: NDArray[np.intp], usable: Flags, inlier: Flags, expected: Flags
) -> NDArray[np.object_]:
    """Say what became of each tile, from its links and from what was given."""
    kind = expected.astype(np.intp)
    kind[links if usable.all() else links[usable]] = 2
    kind[links if inlier.all() else links[inlier]] = 3
    names = [
        Outcome.ISOLATED,
        Outcome.PRIOR_ONLY,
        Outcome.CONTRADICTED,
        Outcome.MATCHED,
    ]
    return np.array(names, object)[kind]


def residual_variance(
    links: NDArray[np.intp], residuals: Floats, fixed: Flags, unknowns: int
) -> float:
    """Return the variance of believed links, as their residuals tell it.

    Each tile that is not held took `unknowns` numbers from them. The variance is infinite if
    links close no loops, so that nothing tells.
    """
    group = connected_groups(links, len(fixed))
    held = np.bincount(group, fixed) > 0
    tiles = np.count_nonzero(~fixed) - np.count_nonzero(~held)
    freedom = residuals.shape[1] * len(links) - unknowns * tiles
    if freedom <= 0:
        return np.inf
    return float((residuals**2).sum()) / freedom


def _finite_rows(values: ArrayLike, name: str, noun: str) -> ArrayLike:
    """Let points through, or name the link or tile that has none."""
    array = as_array(values)
    if array.ndim == 2 and array.dtype.kind == "f":
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            message = f"`{name}` must be finite; got {array[row]} for {noun} {row}."
            raise ValueError(message)
    return array


def _positive_definite(matrices: Floats) -> Flags:
    """Tell which matrices are symmetric and positive definite."""
    size = np.abs(matrices).max(axis=(1, 2))
    skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max(axis=(1, 2))
    symmetric: Flags = skew <= 1e-6 * size
    try:
        # Many times faster than eigenvalues, but mute on which matrix fails.
        roots = np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return symmetric & (np.linalg.eigvalsh(matrices)[:, 0] > 1e-15 * size)
    # Rounding may leave something of nothing.
    left, own = (np.diagonal(each, axis1=1, axis2=2) for each in (roots, matrices))
    return symmetric & (left**2 > 1e-15 * own).all(axis=1)

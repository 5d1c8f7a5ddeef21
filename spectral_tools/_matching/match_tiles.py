"""Match many tiles along the links between them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._sampling.boxes import cut_mask, lag_bounds, reachable_parts
from .._shared.arguments import checked
from .._shared.arrays import Flags, Ints, as_array, unstacked
from .._shared.checks import (
    Valid,
    as_shift,
    as_valid,
    check_count,
    check_fraction,
    check_memory,
    check_whitening,
    image_dtype,
    in_grey,
    masks_in_order,
)
from .._shared.link_arguments import Links, listed_positions, number_links
from .._shared.results import Outcome, result
from .._shared.workers import Workers, spread
from .fixed_pattern import Job, match_without_pattern, steady_pattern
from .image_area import bounding_box
from .overlap_windows import OverlapWindows, overlap_windows, taper_free
from .phase_correlate import ShiftEstimate, correlate_images, no_match

__all__ = [
    "TileMatches",
    "UnreadableWarning",
    "in_windows",
    "label_pairs",
    "match_links",
    "match_tiles",
    "warn_of_lost",
]

# Links beyond so many are dealt out in groups: enough for hundreds of workers
# (bench_placement: 10,000 tiles).
MOST_TASKS = 1000


class UnreadableWarning(UserWarning):
    """Some tiles could not be read, and what rests on them is missing.

    `match_tiles` and `place_tiles` go on without them. The message names the tiles and
    says what reading the first of them gave.

    Examples
    --------
    >>> import warnings
    >>> import spectral_tools as spt
    >>> with warnings.catch_warnings(action="error", category=spt.UnreadableWarning):
    ...     found = spt.match_tiles([[[1, 2]], [[2, 1]]], [(0, 1)])
    """


@result
class TileMatches:
    """What the links between tiles say, one row for each link.

    Attributes
    ----------
    links : ndarray of shape (n, 2)
        The links as they were given: reference tile and moving tile. Those that were
        matched in windows are repeated.
    reference_points, moving_points : ndarray of shape (n, ndim)
        A pair of points that coincide, in the pixels of either tile, at the
        centre of what the two tiles share, or of a window of it.
    covariance : ndarray of shape (n, ndim, ndim)
        Covariance of the difference of the two points, in square pixels.
        Infinite for pairs that were not matched: they say nothing.
    correlation : ndarray of shape (n,)
        Zero-mean normalised cross-correlation over the overlap, -1 to 1.
    false_alarm : ndarray of shape (n,)
        Probability that chance alone gives a peak this good, 0 to 1.
    alternatives : ndarray of shape (n, peaks, ndim)
        Reference points that may be right for the same moving point, best first.
    outcome : ndarray of shape (n,)
        An `Outcome` for each link.
    misfit : ndarray of shape (n,)
        Root mean square by which parts of the overlap differ from one shift, in their own
        standard errors: 1 by chance. Where it is more, `covariance` holds their scatter.
        NaN where it was not measured.
    padding : ndarray of shape (n, 2)
        Share of what was looked at of either tile that was taken for padding, 0 to 1.
    size : ndarray of shape (n, ndim)
        Sides of what was compared, the overlap or a window of it, between the middles of
        its fading edges, in pixels.
    scatter, curvature : ndarray of shape (n,)
        By how many pixels parts of the overlap differ from one shift, and from one that
        changes linearly, beyond their errors; see `ShiftEstimate`.
    """

    links: NDArray[Any]
    reference_points: NDArray[np.float64]
    moving_points: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correlation: NDArray[np.float64]
    false_alarm: NDArray[np.float64]
    alternatives: NDArray[np.float64]
    outcome: NDArray[np.object_]
    misfit: NDArray[np.float64]
    padding: NDArray[np.float64]
    size: NDArray[np.float64]
    scatter: NDArray[np.float64]
    curvature: NDArray[np.float64]


@checked
def match_tiles(
    tiles: Sequence[Any] | Mapping[Hashable, Any],
    links: Links,
    *,
    positions: ArrayLike | Mapping[Hashable, ArrayLike] | None = None,
    max_shift: ArrayLike | None = None,
    min_overlap: float = 0.02,
    valid: Valid = None,
    channel_axis: int | None = None,
    padding: bool = True,
    whitening: float | None = None,
    peaks: int = 3,
    pattern: ArrayLike | None = None,
    windows: int = 1,
    workers: Workers = 1,
    progress: bool = False,
) -> TileMatches:
    """Match tiles along their links.

    Only the parts of the tiles that can overlap are read. A link that fails
    comes back with ``false_alarm`` near 1, and nothing else is lost. So do the links of
    a tile that cannot be read, of which an `UnreadableWarning` tells.

    Dust, vignetting and other marks of the camera agree at shift zero. If links
    seem to be held there, the pattern is measured on the tiles that a link
    does not join, for its two tiles from different ones, and the links
    are matched again without it. What then still agrees at zero is the sample.

    Parameters
    ----------
    tiles : sequence or mapping of array_like
        Images, or anything that is sliced like one and has a shape and a dtype (h5py,
        zarr, dask, memmap). The shapes may differ. A mapping goes by labels. None
        stands for a tile that is missing.
    links : array_like of shape (n, 2)
        Pairs of tiles (reference, moving), by number, or by label.
    positions : array_like of shape (n_tiles, ndim), optional
        Rough positions of the tiles' first pixels, as from a stage; a mapping
        if `tiles` is one. Without them no shift is preferred.
    max_shift : float or array_like of shape (ndim,), optional
        How far an offset may be from what `positions` say, in pixels. By default
        every shift with enough overlap is searched.
    min_overlap : float, optional
        Smallest overlap considered, as a fraction of the smaller tile.
    valid : array_like of bool, or sequence of them, optional
        True where a pixel counts: one mask for all tiles, or one for each.
    channel_axis : int, optional
        Axis of the tiles that holds channels. They are matched in grey: the luminance of
        3 or 4 colours along the last axis, as of ``skimage.color.rgb2gray``, or the mean
        of channels along another. To match on one channel, give that alone:
        ``[tile[1] for tile in tiles]``. Without `channel_axis`, tiles that are surely
        colours (a last axis of 3 or 4, less than a quarter of the others) are refused;
        planes of a volume come first.
    padding : bool, optional
        Find borders that show nothing round a tile, and do not count them.
    whitening : float, optional
        By default the weights are measured from each pair. A number is the
        classical exponent: 0 cross-correlation, 1 phase correlation.
    peaks : int, optional
        Number of alternatives to report for each link.
    pattern : array_like, optional
        What the camera adds to every tile, in the shape of a tile; 0 for none. By
        default it is measured where links give reason to.
    windows : int, optional
        Into how many windows the overlap of each link is cut, at most, if it was matched:
        each gets a row of its own, with a shift of its own, as `solve_distortion` takes
        them. Windows without texture get none; if no window is found, or with 1, the
        link has one row.
    workers : int or map-like callable, optional
        Number of threads, or a function used like `map`. The result
        does not depend on it.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    TileMatches
        Points and their trust for each link, or for each window of it, ready for
        `solve_rigid`.

    Raises
    ------
    ValueError
        If links name tiles that do not exist, tiles differ in their number of
        axes, or shapes do not fit.
    TypeError
        If tiles do not hold real numbers.

    See Also
    --------
    phase_correlate : Match one pair, and understand the numbers.
    solve_rigid : Place the tiles by what the links say.

    Examples
    --------
    >>> from skimage import data
    >>> import spectral_tools as spt
    >>> picture = data.camera()
    >>> tiles = [picture[:300, :300], picture[4:304, 212:], picture[208:508, :300]]
    >>> stage = [(0, 0), (0, 210), (210, 0)]
    >>> found = spt.match_tiles(tiles, [(0, 1), (0, 2)], positions=stage, max_shift=20)
    >>> (found.reference_points - found.moving_points).round(1)
    array([[  4., 212.],
           [208.,   0.]])

    Colours are along an axis of channels:

    >>> picture = data.astronaut()
    >>> tiles = [picture[:300, :300], picture[4:304, 212:]]
    >>> found = spt.match_tiles(tiles, [(0, 1)], channel_axis=-1)
    >>> (found.reference_points - found.moving_points).round(1)
    array([[  4., 212.]])
    """
    found, parts, lost = match_links(
        in_grey(tiles, channel_axis, "tiles"), links, positions=positions, max_shift=max_shift, min_overlap=min_overlap,
        valid=valid, padding=padding, whitening=whitening, peaks=peaks, pattern=pattern,
        windows=windows, workers=workers, progress=progress,
    )  # fmt: skip
    warn_of_lost(lost)
    return in_windows(found, parts)


def warn_of_lost(lost: Mapping[Hashable, str]) -> None:
    """Warn the caller of a public function of tiles that could not be read."""
    if lost:
        names = ", ".join(map(repr, lost))
        cause = next(iter(lost.values()))
        message = (
            f"Tiles must be readable to be matched; got none of these: {names}. "
            f"The first said {cause}."
        )
        warnings.warn(message, UnreadableWarning, stacklevel=4)


def match_links(
    tiles: Any,
    links: Links,
    *,
    positions: ArrayLike | Mapping[Hashable, ArrayLike] | None,
    max_shift: ArrayLike | None,
    min_overlap: float,
    valid: Valid,
    padding: bool,
    whitening: float | None,
    peaks: int = 3,
    pattern: ArrayLike | None,
    windows: int = 1,
    workers: Workers,
    progress: bool,
) -> tuple[TileMatches, list[OverlapWindows | None], dict[Hashable, str]]:
    """Match tiles, and tell which could not be read and why.

    Windows of links stand by themselves; None where there are none.
    """
    images = list(unstacked(tiles))
    numbered, labels = _number_tiles(
        tiles if isinstance(tiles, Mapping) else images, links
    )
    shapes = _shapes(images)
    ndim = len(shapes[0])
    places = None
    if positions is not None:
        places = listed_positions(positions, labels, ndim)
    reach = None if max_shift is None else as_shift(max_shift, ndim, "max_shift")
    if reach is not None and (reach < 0).any():
        message = f"`max_shift` must not be negative; got {reach.min():g}."
        raise ValueError(message)
    check_fraction(min_overlap, "min_overlap")
    check_whitening(whitening)
    check_count(peaks, "peaks")
    check_memory(peaks * ndim * max(len(numbered), 1), "peaks")
    check_count(windows, "windows")
    masks = _masks(valid, shapes, labels)
    boxes = _boxes(masks, shapes)
    camera = steady_pattern(pattern, shapes)

    guesses = np.zeros((len(numbered), ndim))
    if places is not None:
        guesses = places[numbered[:, 1]] - places[numbered[:, 0]]

    lost: dict[Hashable, str] = {}

    def match(jobs: list[Job]) -> list[ShiftEstimate]:
        pairs = [_tile_pair(images, boxes, masks, reach, job) for job in jobs]
        options = _Options(reach, min_overlap, padding, whitening, peaks, windows)
        function = partial(_match_pair, options)
        found = spread(
            function, pairs, workers=workers, progress=progress, title="match tiles",
            together=max(1, len(pairs) // MOST_TASKS),
        )  # fmt: skip
        return [_known(each, pair.job) for each, pair in zip(found, pairs, strict=True)]

    def _known(found: ShiftEstimate | _Unread, job: Job) -> ShiftEstimate:
        if isinstance(found, ShiftEstimate):
            return found
        lost.setdefault(labels[found.tile], found.cause)
        images[found.tile] = np.broadcast_to(np.float32(np.nan), shapes[found.tile])
        return no_match(ndim, Outcome.NOT_FOUND, job[2], peaks)

    jobs = [
        (i, j, guess, camera) for (i, j), guess in zip(numbered, guesses, strict=True)
    ]
    estimates = match(jobs)
    if pattern is None:
        estimates = match_without_pattern(
            images, masks, shapes, numbered, jobs, estimates, reach, match
        )
    rows = numbered if not isinstance(tiles, Mapping) else label_pairs(numbered, labels)
    parts = [getattr(each, "windows", None) for each in estimates]
    return _gather(rows, boxes[numbered], estimates, peaks), parts, lost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TilePair:
    """All that it takes to match two tiles, by whoever does it."""

    job: Job
    least: int  # pixels of the smaller tile that may count
    tiles: tuple[Any, Any]  # if they are in memory, the parts alone
    parts: tuple[tuple[slice, ...], tuple[slice, ...]]  # that they can share
    masks: tuple[Flags | None, Flags | None]  # of the parts


def _tile_pair(
    images: Sequence[Any],
    boxes: Ints,
    masks: list[Flags | None],
    reach: NDArray[np.float64] | None,
    job: Job,
) -> TilePair:
    """Return what two tiles can share; tiles that are stored are not read yet."""
    i, j, guess, camera = job
    corners, sizes = boxes[[i, j], 0], boxes[[i, j], 1] - boxes[[i, j], 0]
    shapes = tuple(sizes[0].tolist()), tuple(sizes[1].tolist())
    low, high = lag_bounds(*shapes, guess - (corners[0] - corners[1]), reach)
    if (low > high).any():
        low = high = np.clip(low, 1 - sizes[1], sizes[0] - 1)
    inner = reachable_parts(*shapes, low, high)
    parts = _moved(inner[0], corners[0]), _moved(inner[1], corners[1])
    return TilePair(
        job=(i, j, guess, None if camera is None else camera.about(i, j)),
        least=int(sizes.prod(axis=1).min()),
        tiles=(
            _part_in_memory(images[i], parts[0]),
            _part_in_memory(images[j], parts[1]),
        ),
        parts=parts,
        masks=(cut_mask(masks[i], parts[0]), cut_mask(masks[j], parts[1])),
    )


def _moved(part: tuple[slice, ...], corner: Ints) -> tuple[slice, ...]:
    """Return where a part of a box lies in the tile."""
    ends = ((each.start, each.stop) for each in part)
    return tuple(slice(*(end + at)) for end, at in zip(ends, corner, strict=True))


def _part_in_memory(tile: Any, part: tuple[slice, ...]) -> Any:
    return tile[part] if isinstance(tile, np.ndarray) else tile


class _Options(NamedTuple):
    reach: NDArray[np.float64] | None
    min_overlap: float
    padding: bool
    whitening: float | None
    peaks: int
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TileEstimate(ShiftEstimate):
    """An estimate with the windows of the overlap; their points are in the tile."""

    windows: OverlapWindows | None = None


class _Unread(NamedTuple):
    """A tile that could not be read, and what reading it gave."""

    tile: int
    cause: str


def _match_pair(options: _Options, pair: TilePair) -> ShiftEstimate | _Unread:
    """Read what two tiles can share, and correlate it."""
    i, j, guess, camera = pair.job
    cuts = []
    for side, (tile, part) in enumerate(zip(pair.tiles, pair.parts, strict=True)):
        try:
            cut = as_array(tile if isinstance(tile, np.ndarray) else tile[part])
        except Exception as error:  # noqa: BLE001 - stores raise what they like
            return _Unread((i, j)[side], f"{type(error).__name__}: {error}")
        cut = cut.astype(image_dtype(cut.dtype, "tiles"), copy=False)
        if camera is not None:
            cut = cut - camera.seen(i, j, side)[part]
        cuts.append(cut)
    origin = np.array([a.start - b.start for a, b in zip(*pair.parts, strict=True)])
    # The overlap that is asked for is a share of the whole tiles.
    least = options.min_overlap * pair.least / min(cuts[0].size, cuts[1].size)
    found = correlate_images(
        (cuts[0], cuts[1]),
        pair.masks,
        guess - origin,
        options.reach,
        least,
        options.whitening,
        options.peaks,
        padding=options.padding,
        rest=-origin,
    )
    windows = None
    if options.windows > 1 and found.outcome in {Outcome.MATCHED, Outcome.AMBIGUOUS}:
        corner = np.array([part.start for part in pair.parts[0]])
        windows = overlap_windows(
            (cuts[0], cuts[1]), pair.masks, found.shift, options.windows,
            padding=options.padding,
        )  # fmt: skip
    if windows is not None:
        windows = windows._replace(
            points=windows.points + corner, shift=windows.shift + origin
        )
    known = {each.name: getattr(found, each.name) for each in fields(found)}
    known["shift"] = found.shift + origin
    known["alternatives"] = found.alternatives + origin
    return _TileEstimate(**known, windows=windows)


def _number_tiles(
    tiles: Any, links: Links
) -> tuple[NDArray[np.intp], Sequence[Hashable]]:
    if len(tiles) == 0:
        message = "`tiles` must hold at least one tile; got none."
        raise ValueError(message)
    if isinstance(tiles, Mapping):
        return number_links(links, tiles)
    numbered, labels = number_links(links, range(len(tiles)))
    if not isinstance(labels, range):
        message = (
            "`links` must hold tile numbers unless `tiles` is a mapping from labels; "
            f"got labels such as {labels[0]!r}."
        )
        raise TypeError(message)
    return numbered, labels


def _shapes(images: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the shape of each tile, without reading it."""
    shapes = []
    for number in range(len(images)):
        tile = images[number]
        if not hasattr(tile, "shape") or not hasattr(tile, "dtype"):
            message = (
                f"`tiles` must hold arrays; got {type(tile).__name__} as tile {number}."
            )
            raise TypeError(message)
        image_dtype(np.dtype(tile.dtype), f"tiles[{number}]")
        if len(tile.shape) not in (2, 3) or 0 in tile.shape:
            message = (
                "`tiles` must hold 2-D or 3-D images with at least one pixel; "
                f"got shape {tuple(tile.shape)} as tile {number}."
            )
            raise ValueError(message)
        shapes.append(tuple(int(n) for n in tile.shape))
    if len({len(shape) for shape in shapes}) > 1:
        message = (
            "`tiles` must all have the same number of axes; "
            f"got {sorted({len(shape) for shape in shapes})}."
        )
        raise ValueError(message)
    return shapes


def _masks(
    valid: Any, shapes: list[tuple[int, ...]], labels: Sequence[Hashable]
) -> list[Flags | None]:
    masks = masks_in_order(valid, labels, len(shapes[0]))
    return [
        as_valid(mask, shape, "valid" if mask is valid else f"valid[{number}]")
        for number, (mask, shape) in enumerate(zip(masks, shapes, strict=True))
    ]


def _boxes(masks: list[Flags | None], shapes: list[tuple[int, ...]]) -> Ints:
    """Return the box of each tile, from corner to corner, that holds all that counts.

    What lies outside is neither read nor matched: the tile might as well end there.
    """
    boxes = np.array([(np.zeros(len(shape)), shape) for shape in shapes], np.intp)
    # One mask may serve all tiles.
    seen: dict[int, tuple[slice, ...]] = {}
    for box, mask in zip(boxes, masks, strict=True):
        if mask is None or not mask.any():
            continue
        if id(mask) not in seen:
            seen[id(mask)] = bounding_box(mask)
        box[:] = np.transpose([(side.start, side.stop) for side in seen[id(mask)]])
    return boxes


def label_pairs(
    numbered: NDArray[np.intp], labels: Sequence[Hashable]
) -> NDArray[np.object_]:
    """Return pairs of tile numbers as pairs of their labels."""
    pairs = np.empty(numbered.shape, object)
    for row, (i, j) in enumerate(numbered):
        pairs[row, 0], pairs[row, 1] = labels[i], labels[j]
    return pairs


def _gather(
    rows: NDArray[Any], boxes: Ints, estimates: list[ShiftEstimate], peaks: int
) -> TileMatches:
    ndim, count = boxes.shape[-1], len(estimates)
    shift = np.array([e.shift for e in estimates]).reshape(count, ndim)
    low = np.maximum(boxes[:, 0, 0], boxes[:, 1, 0] + shift)
    high = np.minimum(boxes[:, 0, 1], boxes[:, 1, 1] + shift)
    centre = (low + high - 1) / 2
    outcome = np.empty(count, object)
    outcome[:] = [e.outcome for e in estimates]
    covariance = np.array([e.covariance for e in estimates]).reshape(count, ndim, ndim)
    believed = np.isin(outcome.astype(str), [Outcome.MATCHED, Outcome.AMBIGUOUS])
    covariance[~believed] = np.diag(np.full(ndim, np.inf))
    alternatives = np.array([e.alternatives for e in estimates]).reshape(
        count, peaks, ndim
    )
    return TileMatches(
        links=rows.copy(),
        reference_points=centre,
        moving_points=centre - shift,
        covariance=covariance,
        correlation=np.array([e.correlation for e in estimates], np.float64),
        false_alarm=np.array([e.false_alarm for e in estimates], np.float64),
        alternatives=alternatives + (centre - shift)[:, None],
        outcome=outcome,
        misfit=np.array([e.misfit for e in estimates], np.float64),
        padding=np.array([e.padding for e in estimates]).reshape(count, 2),
        size=_sides(high - low),
        scatter=np.array([e.scatter for e in estimates], np.float64),
        curvature=np.array([e.curvature for e in estimates], np.float64),
    )


def _sides(overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sides of overlaps (n, ndim) without the middles of their tapers."""
    blocks = np.maximum(np.rint(overlap), 0).astype(np.intp)
    return np.array([taper_free(block) for block in blocks]).reshape(overlap.shape)


def in_windows(
    matches: TileMatches, windows: list[OverlapWindows | None]
) -> TileMatches:
    """Return matches with a row for each window in place of that of its link."""
    found = {n: each for n, each in enumerate(windows) if each and len(each.points)}
    rows = (
        np.concatenate(
            [
                np.full(len(found[n].points) if n in found else 1, n)
                for n in range(len(windows))
            ]
        )
        if found
        else np.arange(len(windows))
    )
    merged: Any = {
        each.name: getattr(matches, each.name)[rows] for each in fields(matches)
    }
    for n, each in found.items():
        own = rows == n
        # What else the whole may be, its windows may be.
        others = matches.alternatives[n] - matches.alternatives[n, 0]
        merged["reference_points"][own] = each.points
        merged["moving_points"][own] = each.points - each.shift
        merged["covariance"][own] = each.covariance
        merged["correlation"][own] = each.correlation
        merged["false_alarm"][own] = each.false_alarm
        merged["size"][own] = each.size
        merged["alternatives"][own] = each.points[:, np.newaxis] + others
    return TileMatches(**merged)

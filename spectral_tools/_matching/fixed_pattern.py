"""What the camera, not the sample, puts into every tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Flags, Volume, VolumePair, as_array, unstacked
from .._shared.checks import as_image, check_sizes, check_unmasked, image_dtype
from .._shared.fft import fftfreq, forward, inverse, rfftfreq
from .._shared.results import Outcome
from .._shared.sparse import connected_groups
from .phase_correlate import ShiftEstimate, no_match

__all__ = [
    "PINNED",
    "CameraPattern",
    "Job",
    "camera_pattern",
    "match_without_pattern",
    "steady_pattern",
]

# Fewer tiles than this, beside the two of a link, give no useful pattern
# (test_tiles_that_share_only_the_pattern_are_not_matched).
FEWEST = 6
# Width of the rings over which the pattern is told from the rest, in modes
# (test_links_are_found_under_a_pattern_of_one_signal_sd).
RING = 4
# A shift this small, in camera pixels, may be the camera's own
# (test_without_help_the_pattern_holds_links_at_zero).
PINNED = 1.0
# Where more links than this share are lost, the camera may have hidden them
# (test_clean_tiles_are_left_alone).
LOST = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraPattern:
    """A pattern for each of the two tiles of a link.

    # Strategy: an estimate of the pattern carries the noise and the scenes of
    # the tiles that went into it. Taken off both tiles of a link, this error
    # would agree at shift zero like the pattern itself. So the tiles are
    # dealt into two halves, one half for either tile of a link, and the two tiles
    # themselves go into neither: the two errors are then independent.
    """

    sums: VolumePair
    counts: tuple[int, int]
    tiles: Mapping[int, tuple[Any, Flags | None]] | None  # and what counts of them
    scatter: Volume  # of a tile, in units of the pattern, by mode
    half: NDArray[np.intp]  # of each tile
    scene: NDArray[np.intp]  # of each tile; links join tiles of one scene

    def seen(self, i: int, j: int, side: int) -> Volume:
        """Return the pattern for tile `i` (side 0) or `j` (side 1) of a link."""
        if self.tiles is None:
            return self.sums[side]
        total, count = self.sums[side].copy(), self.counts[side]
        for tile in self.left_out(i, j):
            if self.half[tile] == side:
                total -= _centred(*self.tiles[tile])
                count -= 1
        modes = forward(total / np.float32(count))
        return inverse(modes / (1 + self.scatter / np.float32(count)), total.shape)

    def left_out(self, i: int, j: int) -> list[int]:
        """Return the tiles that must not count for a link."""
        same = (self.scene == self.scene[i]) | (self.scene == self.scene[j])
        return np.flatnonzero(same).tolist()

    def about(self, i: int, j: int) -> CameraPattern:
        """Return what serves one link, without the other tiles."""
        if self.tiles is None:
            return self
        return replace(self, tiles={n: self.tiles[n] for n in self.left_out(i, j)})


# The two tiles of a link, their expected offset, and what to take off them.
Job = tuple[int, int, NDArray[np.float64], CameraPattern | None]


@checked
def camera_pattern(tiles: Sequence[Any]) -> NDArray[np.float32]:
    """Estimate what a camera adds to every tile.

    It is the mean of the tiles, each less its own mean: what does not move with
    the scene stays, what does averages out. The tiles should show different
    places; a dozen leaves about a third of the scene's amplitude.

    Parameters
    ----------
    tiles : sequence of array_like of shape (rows, cols) or (planes, rows, cols)
        Tiles of one shape. NaN and infinite pixels count as the tile's mean.

    Returns
    -------
    ndarray of the shape of a tile
        The pattern, of mean zero, in grey values.

    Raises
    ------
    ValueError
        If there are no tiles, or their shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rng = np.random.default_rng(0)
    >>> dust = rng.normal(size=(64, 64))
    >>> tiles = [dust + rng.normal(size=(64, 64)) for _ in range(30)]
    >>> found = spt.camera_pattern(tiles)
    >>> bool(np.corrcoef(found.ravel(), dust.ravel())[0, 1] > 0.95)
    True
    """
    tiles = unstacked(tiles)
    if len(tiles) == 0:
        message = "`tiles` must hold at least one tile; got none."
        raise ValueError(message)
    images = [as_image(tile, f"tiles[{n}]") for n, tile in enumerate(tiles)]
    if len({image.shape for image in images}) > 1:
        message = (
            "`tiles` must all have the same shape; "
            f"got {sorted({image.shape for image in images})}."
        )
        raise ValueError(message)
    for n, image in enumerate(images):
        check_sizes(image, f"tiles[{n}]", dtype=np.float32)
    total = np.zeros(images[0].shape, np.float64)
    for image in images:
        total += _centred(image)
    return (total / len(images)).astype(np.float32)


def match_without_pattern(
    images: Sequence[Any],
    masks: Sequence[Flags | None],
    shapes: list[tuple[int, ...]],
    links: NDArray[np.intp],
    jobs: list[Job],
    first: list[ShiftEstimate],
    reach: NDArray[np.float64] | None,
    again: Callable[[list[Job]], Any],
) -> list[ShiftEstimate]:
    """Match links that the camera may hold at zero again, without its pattern."""
    believed = (Outcome.MATCHED, Outcome.AMBIGUOUS)
    pinned = [
        e.outcome in believed
        and bool((np.abs(e.alternatives) < PINNED).all(axis=1).any())
        for e in first
    ]
    lost = [e.outcome == Outcome.NOT_FOUND for e in first]
    if not any(pinned) and sum(lost) <= max(LOST * len(lost), FEWEST / 2):
        return first
    camera = _measure_pattern(images, masks, shapes, links)
    if camera is None:
        return first
    # Only where zero was searched can the camera hold a link; elsewhere it is noise.
    rows = [
        row
        for row, (_, _, guess, _) in enumerate(jobs)
        if lost[row] or reach is None or (np.abs(guess) <= reach).all()
    ]
    second = list(again([(*jobs[row][:3], camera) for row in rows]))
    # Frames of one still scene lose that scene with the pattern. So the pattern is
    # believed only if some link moves without it, or stays as good as it was.
    tells = any(
        new.outcome in believed
        and (np.abs(new.shift).max() >= PINNED or new.correlation > old.correlation / 2)
        for new, old in zip(second, [first[row] for row in rows], strict=True)
    )
    if not tells:
        return first
    result = list(first)
    for row, estimate in zip(rows, second, strict=True):
        if estimate.outcome in believed:
            result[row] = estimate
        elif pinned[row]:
            # Other links live without the pattern, this one does not.
            result[row] = replace(
                no_match(len(shapes[0]), Outcome.FIXED_PATTERN, first[row].shift),
                correlation=estimate.correlation,
                overlap=first[row].overlap,
                alternatives=estimate.alternatives,
            )
    return result


def _measure_pattern(
    tiles: Sequence[Any],
    masks: Sequence[Flags | None],
    shapes: list[tuple[int, ...]],
    links: NDArray[np.intp],
) -> CameraPattern | None:
    """Return the pattern that tiles of one shape share, or None if too few do."""
    if len(shapes) < FEWEST + 2 or len(set(shapes)) > 1:
        return None
    scene = connected_groups(links, len(shapes))
    sizes = np.bincount(scene)
    if len(shapes) - 2 * sizes.max() < FEWEST:
        # Links join nearly everything: only the two tiles of a link are left out.
        scene, sizes = np.arange(len(shapes)), np.ones(len(shapes), np.intp)
    # Whole scenes go to one half, and the halves hold about as many tiles.
    half = np.zeros(len(shapes), np.intp)
    counts = [0, 0]
    for group in np.argsort(-sizes, kind="stable"):
        side = int(counts[1] < counts[0])
        half[scene == group] = side
        counts[side] += int(sizes[group])
    sums = np.zeros((2, *shapes[0]), np.float32)
    for number in range(len(shapes)):
        try:
            pixels = as_array(tiles[number][...])
        except Exception:  # noqa: BLE001, S112 - stores raise what they like
            # A tile that cannot be read adds nothing.
            continue
        sums[half[number]] += _centred(pixels, masks[number])
    return CameraPattern(
        sums=(sums[0], sums[1]),
        counts=(counts[0], counts[1]),
        tiles=dict(enumerate(zip(tiles, masks, strict=True))),
        scatter=_noise_to_pattern(
            sums[0] / counts[0], sums[1] / counts[1], sum(counts) / 2
        ),
        half=half,
        scene=scene,
    )


def _noise_to_pattern(half0: Volume, half1: Volume, count: float) -> Volume:
    """Return the power of what differs between tiles over that of the pattern.

    Both are averages over rings of frequencies: the pattern is what two means
    over different tiles share, and each mean holds its part of the rest.
    """
    first, second = forward(half0), forward(half1)
    axes = [fftfreq(n) for n in half0.shape[:-1]] + [rfftfreq(half0.shape[-1])]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
    ring = np.rint(radius * max(half0.shape) / RING).astype(np.intp)
    shared = np.bincount(ring.ravel(), (first * second.conj()).real.ravel())
    power = 0.5 * (np.abs(first) ** 2 + np.abs(second) ** 2)
    total = np.bincount(ring.ravel(), power.ravel())
    pattern = np.maximum(shared, 1e-3 * total)
    return (count * (total - pattern) / pattern)[ring].astype(np.float32)


def steady_pattern(
    pattern: ArrayLike | None, shapes: list[tuple[int, ...]]
) -> CameraPattern | None:
    """Return a pattern that was given, or None for none."""
    if pattern is None:
        return None
    check_unmasked(pattern, "pattern", "pixels")
    given = np.asarray(pattern)
    if given.ndim == 0 and given == 0:
        return None
    given = as_image(given, "pattern")
    different = [shape for shape in shapes if shape != given.shape]
    if different:
        message = f"`pattern` must have the shape of every tile, {different[0]}; got {given.shape}."
        raise ValueError(message)
    if not np.isfinite(given).all():
        count = np.count_nonzero(~np.isfinite(given))
        message = f"`pattern` must be finite; got {count} NaN or infinite pixels."
        raise ValueError(message)
    check_sizes(given, "pattern", dtype=np.float32)
    single = given.astype(np.float32)
    none = np.zeros(0, np.intp)
    return CameraPattern(
        sums=(single, single),
        counts=(1, 1),
        tiles=None,
        scatter=single,
        half=none,
        scene=none,
    )


def _centred(tile: Any, valid: Flags | None = None) -> Volume:
    """Return a tile less its mean; pixels that do not count become the mean."""
    image = as_array(tile[...] if hasattr(tile, "__getitem__") else tile)
    image = image.astype(image_dtype(image.dtype, "tiles"), copy=False)
    finite = np.isfinite(image)
    if valid is not None:
        finite &= valid
    if finite.all():
        return (image - image.mean(dtype=np.float64)).astype(np.float32)
    if not finite.any():
        return np.zeros(image.shape, np.float32)
    return np.where(finite, image - image[finite].mean(dtype=np.float64), 0).astype(
        np.float32
    )

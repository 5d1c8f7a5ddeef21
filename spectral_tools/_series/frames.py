"""Check the arguments of a series, and read its frames."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._matching.image_area import mend_holes
from .._shared.arrays import (
    Flags,
    Floats,
    Image,
    Ints,
    Volume,
    as_array,
    as_entry,
    unstacked,
)
from .._shared.checks import (
    as_image,
    as_shift,
    as_valid,
    check_count,
    check_sizes,
    check_unmasked,
    image_dtype,
    most_squared,
    read_image,
)
from .._shared.fft import forward
from .._shared.statistics import UNLIKELY, chi_square_limit
from .._shared.workers import Workers, spread
from .template.template_search import Bounds

__all__ = [
    "Frames",
    "PlaneGroup",
    "SeriesInputs",
    "as_groups",
    "check_series",
    "frames_of",
    "normalized_volume",
]

Result = TypeVar("Result")

NAMES = ("template", "first", "previous")
# How many frames make the template: with n of them its noise adds 1 / n to the variance
# of a shift (test_error_is_at_the_bound_of_a_perfect_template).
SAMPLE = 32
# Frames that a worker gets at once: few enough to share a short series among workers, and
# many enough that handing them over costs nothing (bench_series.py, speed).
CHUNK = 16
# Chunks that are handed out at a time (bench_series.py, speed).
BATCH = 32
# Bytes of an iterator's frames that may wait for workers
# (test_memory_does_not_grow_with_the_frames).
ROOM = 1 << 26


class Frames:
    """Frames of one shape that are read one after the other.

    Frames of a stack or a sequence are read where they lie, as often as they are
    wanted. An iterator is read once, and only its first frames are kept.
    """

    def __init__(self, source: Any, least: int = 2) -> None:
        self._stored: Sequence[Any] | None = None
        self._rest: Iterator[Any] = iter(())
        self._kept: list[NDArray[Any]] = []
        lies = _has_shape(source) or not isinstance(source, Iterable)
        if lies or isinstance(source, Sequence | Mapping | AbstractSet):
            self._stored = unstacked(source, "frames")
            self.count: int | None = len(self._stored)
            first = self._stored[0] if self.count else None
        else:
            self._rest, self.count = iter(source), None
            first = [as_entry(each, "frames[0]") for each in islice(self._rest, 1)]
            self._kept = [as_array(each) for each in first]
            first = self._kept[0] if self._kept else None
        if first is None:
            wanted = "one frame" if least == 1 else "two frames"
            message = f"`frames` must hold at least {wanted}; got none."
            raise ValueError(message)
        first = first if hasattr(first, "dtype") else as_array(first)
        self.shape = tuple(int(size) for size in first.shape)
        self.dtype = np.dtype(first.dtype)
        computed = image_dtype(self.dtype, "frames")
        if len(self.shape) not in (2, 3) or 0 in self.shape:
            message = (
                "`frames` must hold 2-D or 3-D images with at least one pixel; "
                f"got shape {self.shape}."
            )
            raise ValueError(message)
        if self._stored is not None and not hasattr(source, "shape"):
            for n, each in enumerate(self._stored):
                self._check(np.shape(each), n)
                masked = isinstance(each, np.ma.MaskedArray) and np.ma.is_masked(each)
                if masked or (self.dtype.kind != "f" and each.dtype.kind == "f"):
                    self.dtype = computed

    def _check(self, shape: tuple[int, ...], n: int) -> None:
        if tuple(shape) != self.shape:
            message = (
                f"`frames` must all have the same shape, {self.shape}; "
                f"got {tuple(shape)} as frame {n}."
            )
            raise ValueError(message)

    def _frame(self, frame: Any, n: int) -> NDArray[Any]:
        """Return a frame as an array, with NaN for what is masked."""
        if frame is None:
            frame = np.ma.array(np.zeros(self.shape, self.dtype), mask=True)
        frame = as_entry(frame, f"frames[{n}]")
        self._check(np.shape(frame), n)
        array = read_image(frame, f"frames[{n}]")
        if self.dtype.kind != "f" and array.dtype.kind == "f":
            # Results have the dtype of the first frame, in which nothing was missing.
            check_unmasked(frame, f"frames[{n}]", f"pixels in {self.dtype}")
        return array

    def sample(self, most: int) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
        """Return some frames and their numbers: all over the series, if it is stored."""
        if self._stored is not None:
            count = len(self._stored)
            even = np.linspace(0, count - 1, min(most, count)).round()
            numbers = np.unique(even.astype(np.intp))
            return numbers, [self[n] for n in numbers.tolist()]
        for each in islice(self._rest, most - len(self._kept)):
            self._kept.append(self._frame(each, len(self._kept)))
        return np.arange(len(self._kept)), list(self._kept)

    def __getitem__(self, n: int) -> NDArray[Any]:
        """Return one frame of a stored series, or one of the first of an iterator."""
        if self._stored is None:
            return self._kept[n]
        return self._frame(self._stored[n], n)

    def read(self, entry: NDArray[Any] | int) -> NDArray[Any]:
        """Return the frame that an entry of a chunk stands for."""
        return self[entry] if isinstance(entry, int) else entry

    def __len__(self) -> int:
        """Return how many frames can be read with an index."""
        return len(self._kept) if self._stored is None else len(self._stored)

    def map_chunks(
        self,
        function: Callable[[tuple[int, Sequence[Any]]], Result],
        workers: Workers,
        progress: bool,
        title: str,
    ) -> Iterator[Result]:
        """Yield a function of each chunk and of the number of its first frame."""
        start, chunks = 0, self.chunks(CHUNK)
        while batch := list(islice(chunks, self._waiting(workers, progress))):
            jobs = []
            for chunk in batch:
                jobs.append((start, chunk))
                start += len(chunk)
            yield from spread(
                function, jobs, workers=workers, progress=progress, title=title
            )

    def _waiting(self, workers: Workers, progress: bool) -> int:
        """Return how many chunks may wait for workers."""
        if workers == 1 and not progress:
            return 1  # Nobody else works on what waits.
        if self._stored is not None:
            return BATCH  # They wait where they are stored.
        chunk = CHUNK * math.prod(self.shape) * self.dtype.itemsize
        return min(max(ROOM // chunk, 2), BATCH)

    def chunks(self, size: int = CHUNK) -> Iterator[Sequence[NDArray[Any] | int]]:
        """Yield all frames in chunks: as numbers if they are stored, else as they are."""
        if self._stored is not None:
            for start in range(0, len(self._stored), size):
                yield range(start, min(start + size, len(self._stored)))
            return
        frames = chain(self._kept, self._rest)
        number = 0
        while chunk := [
            self._frame(each, n) for n, each in enumerate(islice(frames, size), number)
        ]:
            number += len(chunk)
            yield chunk


def _has_shape(frames: Any) -> bool:
    return hasattr(frames, "shape") and not isinstance(frames, type)


def frames_of(frames: Any, least: int = 2) -> Frames:
    """Return frames that can be read, or say what is wrong with them."""
    if _has_shape(frames) and len(frames.shape) not in (3, 4):
        message = (
            "`frames` must have shape (n, rows, cols) or (n, planes, rows, cols); "
            f"got {tuple(frames.shape)}."
        )
        raise ValueError(message)
    found = Frames(frames, least)
    if found.count is not None and found.count < least:
        message = f"`frames` must hold at least {least} frames; got {found.count}."
        raise ValueError(message)
    return found


def as_groups(
    planes: int | Sequence[Sequence[int]] | None, shape: tuple[int, ...]
) -> list[list[int]] | None:
    """Return the planes of each group that moves as one; None if all axes move."""
    if planes is None:
        return None
    if len(shape) != 3:
        message = f"`planes` must be None for 2-D frames; got {planes!r}."
        raise ValueError(message)
    if isinstance(planes, int | np.integer):
        if planes < 1:
            message = f"`planes` must be at least 1; got {planes}."
            raise ValueError(message)
        each = range(0, shape[0], int(planes))
        return [list(range(n, min(n + int(planes), shape[0]))) for n in each]
    groups = [[int(plane) for plane in group] for group in planes]
    listed = sorted(plane for group in groups for plane in group)
    if listed != list(range(shape[0])) or not all(groups):
        message = f"`planes` must name each of {shape[0]} planes in one group; got {planes!r}."
        raise ValueError(message)
    return groups


class Light(NamedTuple):
    """How much of what frames differ by is light: its gain, and its level.

    Both are shares, 0 to 1; `spread` is the standard deviation of a usual frame.
    """

    gain: float
    level: float
    spread: float


STEADY = Light(0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneGroup:
    """What frames are, and what is looked for: a whole frame, or some of its planes."""

    planes: list[int] | None
    valid: NDArray[np.bool_] | None
    offset: float
    scale: float
    light: Light  # by which frames differ
    bounds: Bounds


def normalized_volume(
    frame: Any, group: PlaneGroup
) -> tuple[Volume, NDArray[np.bool_] | None]:
    """Return a frame as (channels, planes, rows, cols), and where it counts."""
    image = np.asarray(frame)
    known: Any = group.valid
    if group.planes is not None:
        image = image[group.planes]
    if image.dtype.kind == "f":
        finite = _counting(image, group.scale)
        if not finite.all():
            known = finite if known is None else np.logical_and(finite, known)
            image = np.where(finite, image, group.offset)
    wide = np.float64 if image.dtype.itemsize > 4 else np.float32
    # Kernels go through its memory plane by plane, row by row.
    scaled = np.subtract(image, group.offset, dtype=wide, order="C")
    scaled *= 1 / group.scale
    _even_light(scaled, known, group.light)
    volume: Any = scaled.astype(np.float32, copy=False)
    if group.planes is not None:
        volume = volume[:, None]
        if known is not None:
            known = known.all(axis=0)[None] if known.ndim == 3 else known[None]
    else:
        lead = (1,) * (4 - volume.ndim)
        volume = volume.reshape(*lead, *volume.shape)
        known = None if known is None else known.reshape(volume.shape[1:])
    if known is None or known.all():
        return volume, None
    if known.any() and len(volume) == 1:
        mended, known = mend_holes(volume[0].copy(), known)
        volume = mended[None]
    return np.where(known, volume, np.float32(0)), None if known.all() else known


def _counting(frame: NDArray[Any], scale: float) -> Flags:
    """Tell which pixels are numbers, and not so far out that they only mark a place."""
    if frame.dtype.kind != "f":
        return np.ones(frame.shape, np.bool_)
    # Of the numbers that its dtype has, or the comparison would overflow.
    most = min(most_squared(np.float32) * scale, float(np.finfo(frame.dtype).max))
    return np.asarray(np.abs(frame) <= most)


def _even_light(image: Any, known: Any, light: Light) -> None:
    """Put an image into the light of a usual one, in place.

    Movies bleach, lamps flicker and gains are switched: what is left of that would be
    taken for something that stays in place while the scene moves.
    """
    values = image if known is None else image[known]
    if not values.size or not light.gain + light.level > 0:
        return
    middle, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    image -= light.level * middle
    if spread > 0:
        image *= (light.spread / spread) ** light.gain


def _light_of(sample: list[NDArray[Any]], valid: Any, scale: float) -> Light:
    """Tell how much of what frames differ by is light, and not what each of them sees.

    Means and spreads of views of one scene differ by what its power spectrum says; if
    they differ by more than chance lets that, all of it counts as light.
    """
    levels, spreads, chances = [], [], []
    for frame in sample:
        known = _counting(frame, scale)
        known = known if valid is None else known & valid
        if not known.any() or frame[known].min() == frame[known].max():
            continue
        level = float(frame[known].mean(dtype=np.float64))
        values = np.where(known, (frame - level) / scale, 0).astype(np.float32)
        power = np.square(np.abs(forward(values)), dtype=np.float64).ravel()
        # Half of all modes are stored, and the square of a mode is twice that of its mean;
        # the largest stand for the one that is the level.
        total, coarse = power.sum(), np.sort(power)[-4:].mean()
        if total == 0:
            continue
        spreads.append(float(values[known].std(dtype=np.float64)))
        levels.append(level / scale)
        chances.append((np.square(power).sum() / total**2 / 8, coarse / total / 2))
    if len(spreads) < 2:
        return STEADY
    of_gain, of_level = np.mean(chances, axis=0)
    free = len(spreads) - 1
    limit = chi_square_limit(free, UNLIKELY) / free
    gain = float(np.var(np.log(spreads)) > limit * of_gain)
    # Another gain moves the level too.
    apart = np.array(levels) / np.mean(spreads)
    level = max(gain, float(np.var(apart) > limit * of_level))
    return Light(gain, level, math.exp(np.log(spreads).mean()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesInputs:
    """What is aligned, and to what."""

    frames: Frames
    ndim: int  # of a shift
    groups: list[PlaneGroup]
    numbers: Ints  # of the frames of the sample
    sample: list[NDArray[Any]]
    patterns: list[Volume | None] | None  # of each group; None to measure them
    image: Image | None  # what frames are matched to, if not to a template
    frame: int | None  # the number of the frame that it is
    reach: int | None
    from_first: bool
    limit: Floats | None


def check_series(
    frames: Any,
    reference: Any,
    reach: int | None,
    max_shift: ArrayLike | None,
    planes: int | Sequence[Sequence[int]] | None,
    valid: ArrayLike | None,
    pattern: ArrayLike | None,
) -> SeriesInputs:
    """Return the arguments of `align_series`, or say what is wrong with them."""
    series = frames_of(frames)
    listed = as_groups(planes, series.shape)
    ndim = len(series.shape) if listed is None else 2
    limit = None if max_shift is None else as_shift(max_shift, ndim, "max_shift")
    if limit is not None and (limit < 0).any():
        message = f"`max_shift` must not be negative; got {limit.min():g}."
        raise ValueError(message)
    mask = as_valid(valid, series.shape, "valid")
    static = _as_pattern(pattern, series.shape)
    named = reference if isinstance(reference, str) else None
    if reach is not None:
        check_count(reach, "reach")
        if named != "template":
            message = "`reference` must be left alone if `reach` is given; got both."
            raise ValueError(message)
    numbers, sample = series.sample(SAMPLE)
    if len(sample) < 2:
        message = f"`frames` must hold at least two frames; got {len(sample)}."
        raise ValueError(message)
    image, frame = _reference_of(reference, series)
    groups = _groups_of(sample, series.shape, listed, mask, limit, even=static is None)
    own = image if frame is None else None
    for name, given in (("reference", own), ("pattern", static)):
        if given is not None:
            check_sizes(given, name)
            even = given / np.float64(groups[0].scale)
            check_sizes(even, f"{name} / frames.std()", dtype=np.float32)
    patterns = None
    if static is not None:
        # Beyond it, rounding leaves nothing of the frames when it is taken off them.
        most = groups[0].scale / float(np.finfo(np.float32).eps)
        largest = float(np.abs(static).max())
        if largest >= most:
            message = (
                f"`pattern` must hold numbers below {most:.3g}, which leave of frames "
                f"what they show; got {largest:.3g}."
            )
            raise ValueError(message)
        patterns = [_cut_pattern(static, group) for group in groups]
    return SeriesInputs(
        frames=series,
        ndim=ndim,
        groups=groups,
        numbers=numbers,
        sample=sample,
        patterns=patterns,
        image=image,
        frame=frame,
        reach=1 if named == "previous" else reach,
        from_first=named == "previous",
        limit=limit,
    )


def _reference_of(reference: Any, series: Frames) -> tuple[Image | None, int | None]:
    """Return the image that frames are matched to, if any, and which frame it is."""
    if isinstance(reference, str):
        if reference not in NAMES:
            message = f"`reference` must be one of {NAMES}, a number or an image; got {reference!r}."
            raise ValueError(message)
        number = 0 if reference == "first" else None
    elif isinstance(reference, int | np.integer):
        number = int(reference)
        if not 0 <= number < len(series):
            message = f"`reference` must be one of {len(series)} frames; got {number}."
            raise ValueError(message)
    else:
        image = as_image(reference, "reference")
        if image.shape != series.shape:
            message = f"`reference` must have the shape of a frame, {series.shape}; got {image.shape}."
            raise ValueError(message)
        number = None
    if number is not None:
        image = as_image(series[number], "frames")
    elif isinstance(reference, str):
        return None, None
    finite = image[np.isfinite(image)]
    if not finite.size or not np.ptp(finite) > 0:
        message = "`reference` must show something; got an image without texture."
        raise ValueError(message)
    return image, number


def _as_pattern(
    pattern: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.floating[Any]] | None:
    if pattern is None:
        return None
    check_unmasked(pattern, "pattern", "pixels")
    if np.ndim(pattern) == 0 and pattern == 0:
        return np.zeros(shape, np.float32)
    image = as_image(pattern, "pattern")
    if image.shape != shape or not np.isfinite(image).all():
        message = f"`pattern` must be finite and of shape {shape}, or 0; got shape {image.shape}."
        raise ValueError(message)
    return image


def _cut_pattern(
    pattern: NDArray[np.floating[Any]] | None, group: PlaneGroup
) -> Volume | None:
    if pattern is None or not pattern.any():
        return None
    return normalized_volume(
        pattern, replace(group, offset=0.0, valid=None, light=STEADY)
    )[0]


def _groups_of(
    sample: list[NDArray[Any]],
    shape: tuple[int, ...],
    groups: list[list[int]] | None,
    mask: NDArray[np.bool_] | None,
    limit: Floats | None,
    *,
    even: bool,
) -> list[PlaneGroup]:
    """Return how the frames are read, and what is searched."""
    size = np.array((1,) * (3 - len(shape)) + shape)
    if groups is not None:
        size[0] = 1
    high = np.where(size > 1, size // 2, 0)
    if limit is not None:
        sides = size[3 - len(limit) :]
        high[3 - len(limit) :] = np.minimum(np.ceil(limit), sides - 1)
    finite = [frame[np.isfinite(frame)] for frame in sample]
    finite = [values for values in finite if values.size]
    # One frame of them may hold anything.
    offset = float(np.median([v.mean(dtype=np.float64) for v in finite] or [0.0]))
    spreads = [float(v.std(dtype=np.float64)) for v in finite]
    scale = float(np.median([spread for spread in spreads if spread > 0] or [1.0]))
    each: Sequence[list[int] | None] = [None] if groups is None else groups
    masks = [mask if mask is None or p is None else mask[p] for p in each]
    views = [[f if p is None else f[p] for f in sample] for p in each]
    return [
        PlaneGroup(
            planes=planes,
            valid=known,
            offset=offset,
            scale=scale,
            light=_light_of(seen, known, scale) if even else STEADY,
            bounds=Bounds(low=-high, high=high, drifts=limit is None),
        )
        for planes, known, seen in zip(each, masks, views, strict=True)
    ]

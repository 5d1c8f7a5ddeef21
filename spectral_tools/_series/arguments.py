"""Check the arguments of a series."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arrays import Floats, Image, Ints, Volume
from .._shared.checks import as_image, as_shift, as_valid, check_count
from .frame_matching import SAMPLE, PlaneGroup, normalized_volume
from .frames import Frames, as_groups, frames_of
from .template.template_search import Bounds

__all__ = ["SeriesInputs", "check_series"]


NAMES = ("template", "first", "previous")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesInputs:
    """What is aligned, and to what."""

    frames: Frames
    ndim: int  # of a shift
    groups: list[PlaneGroup]
    numbers: Ints  # of the frames of the sample
    sample: list[NDArray[Any]]
    patterns: list[Volume | None] | None  # of each group; None to measure them
    given: Image | None  # what frames are matched to, if not to a template
    exact: int | None  # the frame that it is
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
        message = f"`max_shift` must not be negative; got {max_shift!r}."
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
    given, exact = _reference_of(reference, series)
    groups = _groups_of(sample, series.shape, listed, mask, limit)
    patterns = None
    if static is not None:
        patterns = [_cut_pattern(static, group) for group in groups]
    return SeriesInputs(
        frames=series,
        ndim=ndim,
        groups=groups,
        numbers=numbers,
        sample=sample,
        patterns=patterns,
        given=given,
        exact=exact,
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
    return normalized_volume(pattern, replace(group, offset=0.0, valid=None))[0]


def _groups_of(
    sample: list[NDArray[Any]],
    shape: tuple[int, ...],
    groups: list[list[int]] | None,
    mask: NDArray[np.bool_] | None,
    limit: Floats | None,
) -> list[PlaneGroup]:
    """Return how the frames are read, and what is searched."""
    size = np.array((1,) * (3 - len(shape)) + shape)
    if groups is not None:
        size[0] = 1
    high = np.where(size > 1, size // 2, 0)
    if limit is not None:
        most = np.ceil(limit).astype(np.intp)
        high[3 - len(most) :] = np.minimum(most, size[3 - len(most) :] - 1)
    finite = [frame[np.isfinite(frame)] for frame in sample]
    finite = [values for values in finite if values.size]
    offset = (
        float(np.mean([v.mean(dtype=np.float64) for v in finite])) if finite else 0.0
    )
    scale = float(np.max([v.std(dtype=np.float64) for v in finite])) if finite else 1.0
    each: Sequence[list[int] | None] = [None] if groups is None else groups
    return [
        PlaneGroup(
            planes=planes,
            valid=mask if mask is None or planes is None else mask[planes],
            offset=offset,
            scale=scale or 1.0,
            bounds=Bounds(low=-high, high=high, drifts=limit is None),
        )
        for planes in each
    ]

"""Find the pose of one sketch in another, and how likely chance is."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._shared.arrays import Floats, Plane
from ..._shared.fft import fast_shape, forward_pair, inverse
from ..._spectral.peaks import (
    chance_level,
    list_peaks,
    parabola_tops,
    separate_peaks,
)
from ..search import Search, chance_of_few_places
from .pose_images import RAYS, STEP, Sketch, sample_turned

__all__ = [
    "Range",
    "RankedPose",
    "RankedPoses",
    "Turn",
    "search_poses",
    "shrinking",
    "suggest_turns",
]


# Turns that are tried, at most (bench_orientation: scaled, 0 dB).
TURNS = 8
# How high they must be beside the best (bench_orientation: ms).
WORTH = 0.5
# Two turns within this angle, in radians, and logarithm of scale are one
# (test_false_alarm_falls_as_noise_does, bench_orientation: scaled, 10 dB).
SAME_TURN = 0.1
# Shifts that are kept for each turn (test_images_that_look_alike_turned_round_are_ambiguous).
PEAKS = 3
# They are at least so many pixels of a thumb apart (test_lattices_are_ambiguous).
APART = 5
# A turn and a scale are chosen among about so many that bring other places together
# (test_unrelated_images_are_not_believed).
FREEDOM = 300.0
# The spectra choose turns at which images of a few things fit by accident, so that chance
# has about this many times the trials (test_unrelated_images_are_not_believed).
CHOICE = 10
# Longest side of a turned thumb beside the one that stays: it bounds time and memory
# where the range of scales is wide.
LONGEST = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Range:
    """Which turns are looked for."""

    low: float  # logarithm of the scale
    high: float
    mirror: bool
    angles: Floats | None  # radians

    @property
    def free(self) -> bool:
        """Whether the scale is unknown."""
        return self.low < self.high


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """A linear map that the spectra suggest."""

    angle: float
    log_scale: float
    mirrored: bool
    both: bool  # whether half a turn more is possible too

    def matrix(self) -> Floats:
        """Return the (3, 3) matrix about the origin."""
        size = math.exp(self.log_scale)
        cosine, sine = size * math.cos(self.angle), size * math.sin(self.angle)
        flip = -1.0 if self.mirrored else 1.0
        return np.array(
            [[cosine, -sine * flip, 0], [sine, cosine * flip, 0], [0, 0, 1]]
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedPose:
    """A turn with a shift."""

    matrix: Floats  # (3, 3), from moving to reference, of the whole images
    height: float  # of the correlation, in standard deviations of its surface


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedPoses:
    """Poses that may be right, best first, and what chance does."""

    poses: list[RankedPose]
    false_alarm: float


def suggest_turns(reference: Sketch, moving: Sketch, wanted: Range) -> list[Turn]:
    """Return the turns at which the maps of two spectra agree, best first."""
    turns: list[tuple[float, Turn]] = []
    for mirrored in (False, True) if wanted.mirror else (False,):
        surface, first = _polar_surface(reference, moving, wanted, mirrored)
        if wanted.angles is None:
            turns += _polar_peaks(surface, first, wanted, mirrored)
        else:
            turns += _at_given_angles(surface, first, wanted, mirrored)
    if wanted.angles is not None:
        return [turn for _, turn in turns]
    turns.sort(key=lambda entry: -entry[0])
    return [t for height, t in turns if height >= WORTH * turns[0][0]][:TURNS]


def _polar_surface(
    reference: Sketch, moving: Sketch, wanted: Range, mirrored: bool
) -> tuple[Plane, float]:
    """Correlate two maps; rows are scales, columns angles from 0 to half a turn.

    Returns the surface and the logarithm of the scale of its first row; that of the
    next ones is lower by `STEP` each.
    """
    # The map of the mirror image runs through the directions backwards.
    other = np.roll(moving.polar[::-1], 1, axis=0) if mirrored else moving.polar.conj()
    rows = len(other)
    surface = inverse(reference.polar * other, (rows, RAYS))
    # Rings that only one of the maps has add nothing, to noise neither.
    lengths = np.zeros((2, rows))
    for line, sketch in zip(lengths, (reference, moving), strict=True):
        line[: len(sketch.energy)] = sketch.energy
    half = forward_pair(lengths)
    noise = inverse(half[0] * half[1].conj(), (rows,))
    noise = np.sqrt(np.maximum(noise, 0.05 * noise.max()))
    ratio = math.log(moving.factor / reference.factor)
    begin = math.floor(-(wanted.high + ratio) / STEP)
    end = math.ceil(-(wanted.low + ratio) / STEP)
    kept = np.arange(begin, end + 1) % rows
    chosen = surface[kept] / noise[kept, np.newaxis].astype(np.float32)
    return chosen.astype(np.float32), -begin * STEP - ratio


def _polar_peaks(
    surface: Plane, first: float, wanted: Range, mirrored: bool
) -> list[tuple[float, Turn]]:
    """Return the highest maxima of a surface of angles and scales."""
    if not wanted.free:
        # Of the scales next to the only one that is allowed the better one counts.
        surface = surface.max(axis=0, keepdims=True)
    volume = np.ascontiguousarray(np.pad(surface, ((0, 0), (2, 2)), mode="wrap")[None])
    at, height = list_peaks(volume)
    inner = np.flatnonzero((at[:, 2] >= 2) & (at[:, 2] < 2 + RAYS))[:TURNS]
    tops = at[inner] + parabola_tops(volume, at[inner], False)
    found = []
    for (_, row, column), value in zip(tops, height[inner], strict=True):
        turn = Turn(
            angle=STEP * (column - 2),
            log_scale=float(np.clip(first - STEP * row, wanted.low, wanted.high)),
            mirrored=mirrored,
            both=True,
        )
        found.append((float(value), turn))
    return found


def _at_given_angles(
    surface: Plane, first: float, wanted: Range, mirrored: bool
) -> list[tuple[float, Turn]]:
    """Return the turns by the angles that are wanted, each with its best scale."""
    found = []
    for angle in wanted.angles if wanted.angles is not None else ():
        line = surface[:, round(angle % math.pi / STEP) % RAYS]
        row = int(line.argmax())
        turn = Turn(
            angle=float(angle),
            log_scale=float(np.clip(first - STEP * row, wanted.low, wanted.high)),
            mirrored=mirrored,
            both=False,
        )
        found.append((float(line[row]), turn))
    return found


def search_poses(reference: Sketch, moving: Sketch, turns: list[Turn]) -> RankedPoses:
    """Return where the turned image fits best, for all turns together."""
    found: list[_Peak] = []
    surfaces: list[NDArray[np.float32]] = []
    owners: list[Turn] = []
    for turn in turns:
        frame = _turn_thumb(reference, moving, turn)
        for half, (heights, lags) in enumerate(
            _translation_peaks(frame)[: 1 + turn.both]
        ):
            owner = replace(frame, half=half)
            found += [
                _Peak(float(height), len(surfaces), owner, lag)
                for height, lag in zip(heights, lags, strict=False)
            ]
            surfaces.append(heights)
            owners.append(turn)
    if not found:
        return RankedPoses(poses=[], false_alarm=1.0)
    found.sort(key=lambda peak: -peak.height)
    winner = found[0].surface
    # Chance is what the other turns show, and the rest of the best surface.
    chance = [
        heights
        for index, heights in enumerate(surfaces)
        if index != winner
        and not _is_same_turn(owners[index], owners[winner], index - winner)
    ]
    chance.append(surfaces[winner][PEAKS:])
    everything = np.concatenate(chance)
    trials = CHOICE * sum(len(heights) for heights in surfaces)
    alarm = chance_level(found[0].height, everything, trials)[0]
    few = _chance_of_few_places(found[0].frame, found[0].lag)
    alarm = min(max(alarm, len(surfaces) * FREEDOM * few), 1.0)
    return RankedPoses(
        poses=[
            RankedPose(matrix=_matrix(reference, moving, frame, lag), height=height)
            for height, _, frame, lag in found
        ],
        false_alarm=alarm,
    )


class _Peak(NamedTuple):
    """A peak of the correlation of two thumbs, one of them turned."""

    height: float
    surface: int
    frame: "_TurnedThumb"
    lag: Floats


def _is_same_turn(one: Turn, other: Turn, apart: int) -> bool:
    """Tell whether two surfaces are of nearly the same turn."""
    if one is other:  # half a turn apart
        return False
    angle = (one.angle - other.angle + math.pi / 2) % math.pi - math.pi / 2
    return (
        apart % 2 == 0
        and one.mirrored == other.mirrored
        and abs(angle) < SAME_TURN
        and abs(one.log_scale - other.log_scale) < SAME_TURN
    )


def shrinking(factor: int) -> Floats:
    """Return the matrix from an image to one that is smaller by a factor."""
    matrix = np.diag([1 / factor, 1 / factor, 1.0])
    matrix[:2, 2] = -(factor - 1) / (2 * factor)
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TurnedThumb:
    """One thumb, and the other one turned onto pixels of the same size."""

    still: Plane
    turned: Plane
    matrix: Floats  # (3, 3), from the one thumb to the frame of the turned one
    swapped: bool  # whether the reference was turned
    half: int = 0  # whether it is turned round by half a turn more


def _turn_thumb(reference: Sketch, moving: Sketch, turn: Turn) -> _TurnedThumb:
    linear = (
        shrinking(reference.thumb_factor)
        @ turn.matrix()
        @ np.linalg.inv(shrinking(moving.thumb_factor))
    )
    # The finer thumb stays: sampling the coarser one on its pixels loses nothing.
    swapped = abs(float(np.linalg.det(linear[:2, :2]))) < 1
    still, turned = (moving, reference) if swapped else (reference, moving)
    if swapped:
        linear = np.linalg.inv(linear)
    first, other = still.thumb.pixels, turned.thumb
    reach = np.abs(linear[:2, :2]) @ other.pixels.shape
    sides = np.minimum(np.ceil(reach).astype(int) + 1, LONGEST * np.array(first.shape))
    frame = linear.copy()
    centre = (np.array(other.pixels.shape) - 1) / 2
    frame[:2, 2] = (sides - 1) / 2 - linear[:2, :2] @ centre
    inward = np.linalg.inv(frame)
    values = np.empty(tuple(sides), np.float32)
    window = np.ones_like(values)
    sample_turned(
        other.box, other.pad, 3, inward[:2, :2].copy(), inward[:2, 2].copy(),
        other.depth, 2.0, 0.0, 1.0, values, window,
    )  # fmt: skip
    return _TurnedThumb(
        still=first, turned=values * window, matrix=frame, swapped=swapped
    )


def _translation_peaks(frame: _TurnedThumb) -> list[tuple[NDArray[np.float32], Floats]]:
    """Correlate at every shift, as it is and turned round.

    Returns for each all maxima, in standard deviations, the highest first, and where
    the frame starts for the first few.
    """
    first, sides = frame.still.shape, np.array(frame.turned.shape)
    shape = fast_shape(tuple(int(n) for n in np.array(first) + sides - 1))
    canvas = np.zeros((2, *shape), np.float32)
    canvas[0][: first[0], : first[1]] = frame.still
    canvas[1][: sides[0], : sides[1]] = frame.turned
    pair = forward_pair(canvas)
    # Turned round, the frame starts where it would end.
    products = (pair[0] * pair[1].conj(), 0), (pair[0] * pair[1], sides - 1)
    answers = []
    for product, end in products:
        heights, lags = _correlation_peaks(inverse(product, shape))
        answers.append((heights, (lags - end + sides) % shape - sides))
    return answers


def _matrix(
    reference: Sketch, moving: Sketch, frame: _TurnedThumb, lag: Floats
) -> Floats:
    """Return the matrix, of the whole images, that belongs to a place of the frame."""
    matrix = frame.matrix
    if frame.half:
        turn = np.diag([-1.0, -1.0, 1.0])
        turn[:2, 2] = np.array(frame.turned.shape) - 1
        matrix = turn @ matrix
    matrix = matrix.copy()
    matrix[:2, 2] += lag
    if frame.swapped:
        matrix = np.linalg.inv(matrix).astype(np.float64, copy=False)
    to0, to1 = shrinking(reference.thumb_factor), shrinking(moving.thumb_factor)
    return np.linalg.inv(to0) @ matrix @ to1


def _chance_of_few_places(frame: _TurnedThumb, lag: Floats) -> float:
    """Return the probability that a few places match somewhere by chance."""
    first, second, shift = _thumb_volumes(frame, lag)
    reach = (np.array(first.shape) + second.shape) // 2 * [0, 1, 1]
    search = Search(low=-reach, high=reach, least=0.0, count=1, exponent=-1.0)
    return chance_of_few_places(first, second, shift, search)


def _thumb_volumes(frame: _TurnedThumb, lag: Floats) -> tuple[Plane, Plane, Floats]:
    """Return the two thumbs of a place as volumes, and their shift."""
    turned = frame.turned[::-1, ::-1] if frame.half else frame.turned
    shift = np.concatenate([[0.0], lag])
    return frame.still[np.newaxis], np.ascontiguousarray(turned)[np.newaxis], shift


def _correlation_peaks(surface: Plane) -> tuple[NDArray[np.float32], Floats]:
    """Return the heights of all maxima, sorted, and the lags of the first few."""
    volume = surface[np.newaxis]
    at, height = list_peaks(volume, 2.0, periodic=True)
    chosen = separate_peaks(at[:200], PEAKS, APART)
    tops = at[chosen] + parabola_tops(volume, at[chosen], True)
    height = np.concatenate([height[chosen], np.delete(height, chosen)])
    spread = math.sqrt(float(np.vdot(surface, surface)) / surface.size)
    return height / spread, tops[:, 1:]

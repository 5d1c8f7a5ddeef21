"""Fit the pose of one image in another by Gauss-Newton steps on the images.

This is the method of Lucas & Kanade, see Baker & Matthews (2004),
:doi:`10.1023/B:VISI.0000011205.11775.fd`, on images that are filtered so that each
frequency counts by its coherence.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from ..._shared.arrays import Floats, Image, Plane
from ..._shared.compiled import compiled
from ..._shared.fft import fftfreq, forward_pair, inverse, rfftfreq
from ..._spectral.phase_fit_kernels import SLACK, ring_sums, smooth_coherence
from ..._spectral.ring_kernels import (
    FAINT,
    RING_MODES,
    RING_SHARE,
    ring_edges,
    whiten_modes,
)
from ..._spectral.tapers import OWN, RING
from ..shift_fit import STEP_FLOOR, STEP_SIGMAS
from .pose_images import SplineImage, tapered_pair

__all__ = ["PoseFit", "fit_pose", "pose_flow", "travel"]


# Gauss-Newton steps, at most (test_swapping_the_images_inverts_the_matrix).
GAUSS_NEWTON_STEPS = 12
# The share of an error that a step leaves, at least
# (test_whole_images_take_one_step_after_the_small_ones).
GAUSS_NEWTON = 0.03
# Side of the blocks whose signal and noise are measured, in pixels
# (test_sections_of_lung_are_found_at_any_angle).
BLOCK = 32
# The noise of a block counts from this many times the mean on, as chance alone makes it
# differ by less (test_errors_are_as_large_as_the_covariance_says).
LEAST_NOISE = 1.5
# It counts no more than this many times as much
# (test_sections_of_lung_are_found_at_any_angle).
MOST_NOISE = 4.0
# The scatter of blocks widens the covariance where it is larger than expected by so many
# standard errors (test_errors_are_as_large_as_the_covariance_says).
SCATTER_SIGMAS = 3.0
# Where the curvature is less than this share of the expected one, the latter serves
# (test_rings_that_turn_on_themselves_are_ambiguous).
LEAST_CURVATURE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseFit:
    """What one fit found."""

    matrix: Floats  # (3, 3), from the turned image to the other
    covariance: Floats  # (4, 4) of angle, log scale, and shift at `centre`
    centre: Floats  # (2,), in the image that stays
    correlation: float
    significance: float
    overlap: float  # pixels of the image that stays
    loose: Floats  # (4,), the change of pose that is known least
    hold: float  # how well: 1 for a scene that has as much detail along all axes
    steps: int


def pose_matrix(pose: Floats, centre: Floats) -> Floats:
    """Return the matrix of a small pose: angle, log scale and shift at `centre`."""
    size = math.exp(pose[1])
    cosine, sine = size * math.cos(pose[0]), size * math.sin(pose[0])
    matrix = np.eye(3)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + pose[2:]
    return matrix


def pose_flow(pose: Floats, centre: Floats) -> Floats:
    """Return the matrix to which infinitely many small parts of a pose add up.

    It is the exponential of the generator of the similarity: a curve along which the
    direction of the pose, seen from where one is, stays the same.
    """
    generator = np.zeros((3, 3))
    generator[:2, :2] = [[pose[1], -pose[0]], [pose[0], pose[1]]]
    generator[:2, 2] = pose[2:] - generator[:2, :2] @ centre
    return np.asarray(expm(generator), np.float64)


def fit_pose(
    still: SplineImage,
    turned: SplineImage,
    start: Floats,
    *,
    scale: bool,
    near: bool = False,
) -> PoseFit | None:
    """Refine the matrix from `turned` to `still`; None where nothing is coherent.

    # Strategy: the turned image is sampled on the pixels of the other, both are faded
    # alike at the ends of what they share and filtered so that each ring of
    # frequencies counts by its measured coherence. One Gauss-Newton step then finds the
    # four parameters from slopes; what two filtered images tell is antisymmetric
    # in them, so that images that agree do not move.
    """
    low, high = _common_box(still, turned, start)
    if (high - low < 8).any():
        return None
    centre = (low + high - 1) / 2
    reach = float(np.hypot(*(high - low))) / 2
    matrix, used, taken = start.copy(), 0, math.inf
    share = GAUSS_NEWTON if near else 1.0
    while True:
        used += 1
        step = _gauss_newton_step(still, turned, matrix, (low, high), scale)
        if step is None:
            return None
        moved = travel(step.pose, reach)
        matrix = pose_matrix(step.pose, centre) @ matrix
        # A step leaves about the same share of the error as the one before it did.
        if used > 1:
            share = float(np.clip(moved / taken, GAUSS_NEWTON, 1.0))
        taken = moved
        enough = max(STEP_FLOOR, STEP_SIGMAS * _travel_sigma(step.covariance, reach))
        if share * moved < enough or used == GAUSS_NEWTON_STEPS:
            break
    return PoseFit(
        matrix=matrix,
        covariance=step.covariance,
        centre=centre,
        correlation=step.correlation,
        significance=step.significance,
        overlap=step.overlap,
        loose=step.loose,
        hold=step.hold,
        steps=used,
    )


def travel(pose: Floats, reach: float) -> float:
    """Return how far a pose moves the corners, at most."""
    return math.hypot(pose[0], pose[1]) * reach + math.hypot(pose[2], pose[3])


def _travel_sigma(covariance: Floats, reach: float) -> float:
    return travel(np.sqrt(np.diag(covariance)), reach)


def _corners(shape: tuple[int, ...]) -> Floats:
    rows, cols = shape[0] - 0.5, shape[1] - 0.5
    return np.array([(-0.5, -0.5), (-0.5, cols), (rows, -0.5), (rows, cols)])


def _common_box(
    still: SplineImage, turned: SplineImage, matrix: Floats
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the box of the pixels of `still` that the turned image can cover."""
    ends = _corners(turned.pixels.shape) @ matrix[:2, :2].T + matrix[:2, 2]
    low = np.maximum(np.floor(ends.min(axis=0)), 0).astype(np.intp)
    high = np.minimum(np.ceil(ends.max(axis=0)) + 1, still.pixels.shape)
    return low, np.maximum(high.astype(np.intp), low)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _GaussNewtonStep:
    pose: Floats
    covariance: Floats
    correlation: float
    significance: float
    overlap: float
    loose: Floats
    hold: float


def _gauss_newton_step(
    still: SplineImage,
    turned: SplineImage,
    matrix: Floats,
    box: tuple[NDArray[np.intp], NDArray[np.intp]],
    scale: bool,
) -> _GaussNewtonStep | None:
    """Return one Gauss-Newton step, and what it knows."""
    pair, window, correlation = tapered_pair(still, turned, matrix, box)
    square = np.square(window)
    squares = float(square.sum(dtype=np.float64))
    if not squares > 0:
        return None
    fourths = float(np.square(square).sum(dtype=np.float64))
    shape = pair.shape[1:]
    spectra = forward_pair(pair[:, np.newaxis])
    known = _weigh_coherence(spectra, shape, squares**2 / fourths / math.prod(shape))
    if known is None:
        return None
    images, slopes = _slopes(spectra[:, 0], shape)
    size = box[1] - box[0]
    inside = (slice(None), slice(size[0]), slice(size[1]))
    centre = (size - 1) / 2
    blocks = _BlockSums(size)
    pose_sums(
        images[0][inside[1:]], images[1][inside[1:]],
        slopes[0][inside], slopes[1][inside], centre, BLOCK,
        blocks.scores, blocks.curvature, blocks.unlike,
    )  # fmt: skip
    weight = _local_weight(blocks, square, known)
    free = np.array([0, 1, 2, 3] if scale else [0, 2, 3])
    expected = 0.5 * known.steepness * _isotropic_curvature(square, centre) / squares
    curvature = np.tensordot(weight, blocks.curvature)
    inverse_curvature, weakest, hold = _regularised_inverse(
        curvature[np.ix_(free, free)], expected[np.ix_(free, free)]
    )
    pose, loose, covariance = np.zeros(4), np.zeros(4), np.zeros((4, 4))
    loose[free] = weakest
    pose[free] = inverse_curvature @ np.tensordot(weight, blocks.scores)[free]
    unit = fourths / squares**2
    scatter = _overdispersion(
        weight[..., np.newaxis] * blocks.scores[..., free], unit, inverse_curvature
    )
    covariance[np.ix_(free, free)] = inverse_curvature * (unit * scatter)
    return _GaussNewtonStep(
        pose=pose,
        covariance=covariance,
        correlation=correlation,
        significance=known.significance,
        overlap=float(window.sum()),
        loose=loose,
        hold=hold,
    )


class _BlockSums:
    """Sums over square blocks of the box."""

    def __init__(self, size: NDArray[np.intp]) -> None:
        rows, cols = -(-size // BLOCK)
        self.scores = np.zeros((rows, cols, 4))
        self.curvature = np.zeros((rows, cols, 4, 4))
        self.unlike = np.zeros((rows, cols))


def _local_weight(
    blocks: _BlockSums, square: Plane, known: "_CoherenceWeights"
) -> Floats:
    """Return how much each block counts beside an even scene in even noise.

    Signal and noise are measured block by block, relative to the mean. Where there is
    hardly any signal, or where the images differ, blocks count less.
    """
    starts = [np.arange(0, n, BLOCK) for n in square.shape]
    area = np.add.reduceat(square, starts[0], axis=0)
    area = np.maximum(np.add.reduceat(area, starts[1], axis=1).astype(np.float64), 1e-3)
    alike = blocks.curvature[:, :, 2, 2] + blocks.curvature[:, :, 3, 3]
    common = max(alike.sum(), 1e-30) / area.sum()
    unlike = max(blocks.unlike.sum(), 1e-30) / area.sum()
    # The power of each block less that of the noise: where images agree less than
    # elsewhere, as sections that stretch do, they show as much.
    power = (alike + blocks.unlike) / area
    signal = np.maximum((power - unlike) / common, 0)
    noise = np.clip(blocks.unlike / area / unlike / LEAST_NOISE, 1, MOST_NOISE)
    mixed, bare = known.mixed, known.bare
    return signal * (mixed + bare) / (noise * (signal * mixed + noise * bare))


def _overdispersion(scores: Floats, unit: float, inverse_curvature: Floats) -> float:
    """Return by how much the blocks scatter more than they should, at least 1.

    They do where the one image is not just the other, moved: sections stretch.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    rows = rows[rows.any(axis=1)]
    count, free = rows.shape
    if count <= 2 * free:
        return 1.0
    found = float(((rows @ inverse_curvature) * rows).sum()) / (unit * free)
    expected = 1 - free / count
    doubt = SCATTER_SIGMAS * math.sqrt(2 / (free * count))
    return max(found / expected / (1 + doubt), 1.0)


def _isotropic_curvature(square: Plane, centre: Floats) -> Floats:
    """Return what the curvature is where the slopes are alike along both axes."""
    down = square.sum(axis=1, dtype=np.float64)
    along = square.sum(axis=0, dtype=np.float64)
    rows, cols = (np.arange(n) - c for n, c in zip(square.shape, centre, strict=True))
    far = down @ rows**2 + along @ cols**2
    total = down.sum()
    first, second = down @ rows, along @ cols
    return np.array(
        [
            [far, 0, -second, first],
            [0, far, first, second],
            [-second, first, total, 0],
            [first, second, 0, total],
        ]
    )


def _regularised_inverse(
    curvature: Floats, expected: Floats
) -> tuple[Floats, Floats, float]:
    """Return the inverse of the curvature, or of the expected one far from the top.

    Also returns the direction of the smallest curvature, and its share of the
    expected one.
    """
    root = np.linalg.inv(np.linalg.cholesky(expected))
    shares, directions = np.linalg.eigh(root @ curvature @ root.T)
    if shares[0] < LEAST_CURVATURE:
        curvature = expected
    inverse_curvature: Floats = np.linalg.inv(curvature).astype(np.float64, copy=False)
    return inverse_curvature, root.T @ directions[:, 0], float(shares[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CoherenceWeights:
    """What the spectra of two aligned images tell."""

    significance: float  # how far the coherence is from none
    steepness: float  # mean square of the slopes that both have in common
    mixed: float  # variance of the score by signal times noise
    bare: float  # and by noise alone


def _weigh_coherence(
    spectra: NDArray[np.complex64], shape: tuple[int, ...], share: float
) -> _CoherenceWeights | None:
    """Filter both spectra so that their product is weighted by the coherence."""
    edges = ring_edges(
        np.array((1, *shape)),
        1 / math.sqrt(share * math.prod(shape)),
        share,
        RING_MODES,
        RING_SHARE,
    )
    freqs = fftfreq(1), fftfreq(shape[0]), rfftfreq(shape[1])
    even = shape[1] % 2 == 0
    table = ring_sums(spectra[0], spectra[1], *freqs, even, np.zeros(3), edges)
    modes, power = table[:, RING.modes], table[:, RING.power0 : RING.common]
    count, total = np.maximum(modes, 1e-30), power.sum(axis=0)
    powers = power / count[:, np.newaxis]
    if not (total > 0).all():
        return None
    faint = FAINT * total / modes.sum()
    level = np.maximum(powers, 1e-3 * faint)
    middle = np.sqrt(level.prod(axis=1))
    measured = np.clip(table[:, RING.common] / count / middle, -1, 1)
    coherence = smooth_coherence(modes * share, measured, SLACK)
    if not coherence.any():
        return None
    noise = np.maximum(1 - coherence**2, np.minimum(np.sqrt(faint.prod()) / middle, 1))
    gain = np.sqrt(coherence / noise)
    unlimited = np.full(len(edges), 1e30)
    for spectrum, each in zip(spectra, level.T, strict=True):
        whiten_modes(spectrum, *freqs, edges, gain / np.sqrt(each), unlimited)
    significance = math.sqrt(float((modes * share * coherence**2).sum()))
    square = table[:, OWN].sum(axis=1) / np.maximum(powers.sum(axis=1) / 2, 1e-30)
    weight = coherence / noise
    # The table is of half of the modes.
    steepness = 2 * float((square * weight * coherence).sum()) / math.prod(shape)
    rest = square * weight**2 * (1 - coherence)
    return _CoherenceWeights(
        significance=significance,
        steepness=steepness,
        mixed=float((rest * 2 * coherence).sum()),
        bare=float((rest * (1 - coherence)).sum()),
    )


def _slopes(
    spectra: NDArray[np.complex64], shape: tuple[int, ...]
) -> tuple[Plane, Plane]:
    """Return two images, and their slopes along both axes, from their spectra."""
    down = 2j * np.pi * fftfreq(shape[0])
    across = 2j * np.pi * rfftfreq(shape[1])
    # The last frequency of an even axis has no slope that is real.
    if shape[0] % 2 == 0:
        down[shape[0] // 2] = 0
    if shape[1] % 2 == 0:
        across[-1] = 0
    factors = (
        down[:, np.newaxis].astype(np.complex64),
        across.astype(np.complex64),
    )
    images = np.empty((2, *shape), np.float32)
    slopes = np.empty((2, 2, *shape), np.float32)
    for index, spectrum in enumerate(spectra):
        for axis, factor in enumerate(factors):
            slopes[index, axis] = inverse(spectrum * factor, shape)
        images[index] = inverse(spectrum, shape)
    return images, slopes


@compiled
def pose_sums(
    first: Image,
    second: Image,
    slopes0: Image,
    slopes1: Image,
    centre: Floats,
    side: int,
    scores: Floats,
    curvature: Floats,
    unlike: Floats,
) -> None:
    """Sum what two aligned images tell about the pose of the second.

    The pose has four parameters: an angle (counter-clockwise), the logarithm of a
    scale, both about `centre`, and a shift (row, col).

    Parameters
    ----------
    first, second : ndarray of shape (rows, cols)
        Filtered images.
    slopes0, slopes1 : ndarray of shape (2, rows, cols)
        Their slopes along both axes.
    centre : ndarray of shape (2,)
        Point that turns and scales leave where it is.
    side : int
        Side of the blocks, in pixels.
    scores, curvature : ndarray of shape (block rows, block cols, 4) and (..., 4, 4)
        The slope and the curvature of the likelihood that each block adds; updated.
    unlike : ndarray of shape (block rows, block cols)
        Half of the square of the difference of slopes; updated.
    """
    # Strategy: along a row of a block only the column changes, so that a few plain
    # sums (of powers of the column) are all that is needed.
    part = np.zeros((4, 4))
    rows, cols = first.shape
    for row in range(rows):
        v = row - centre[0]
        for block in range(scores.shape[1]):
            begin, end = block * side, min((block + 1) * side, cols)
            middle = begin + 0.5 * side
            f0 = f1 = m0 = m1 = apart = np.float32(0)
            a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = np.float32(0)
            for col in range(begin, end):
                h = np.float32(col - middle)
                one, two = first[row, col], second[row, col]
                p0, q0 = slopes0[0, row, col], slopes1[0, row, col]
                p1, q1 = slopes0[1, row, col], slopes1[1, row, col]
                up, along = one * q0 - two * p0, one * q1 - two * p1
                f0 += up
                f1 += along
                m0 += h * up
                m1 += h * along
                rr, rc, cc = p0 * q0, p0 * q1 + p1 * q0, p1 * q1
                apart += (p0 - q0) * (p0 - q0) + (p1 - q1) * (p1 - q1)
                a0 += rr
                b0 += rc
                c0 += cc
                a1 += h * rr
                b1 += h * rc
                c1 += h * cc
                a2 += h * h * rr
                b2 += h * h * rc
                c2 += h * h * cc
            u = middle - centre[1]
            m0 += u * f0
            m1 += u * f1
            score = scores[row // side, block]
            score[0] -= 0.5 * (v * f1 - m0)
            score[1] -= 0.5 * (v * f0 + m1)
            score[2] -= 0.5 * f0
            score[3] -= 0.5 * f1
            # Moments about the centre, of the products of slopes rr, rc + cr, cc.
            a2, b2, c2 = (
                a2 + 2 * u * a1 + u * u * a0,
                b2 + 2 * u * b1 + u * u * b0,
                c2 + 2 * u * c1 + u * u * c0,
            )
            a1, b1, c1 = a1 + u * a0, b1 + u * b0, c1 + u * c0
            part[0, 0] = a2 - v * b1 + v * v * c0
            part[0, 1] = -v * a1 - 0.5 * b2 + 0.5 * v * v * b0 + v * c1
            part[0, 2] = -a1 + 0.5 * v * b0
            part[0, 3] = -0.5 * b1 + v * c0
            part[1, 1] = v * v * a0 + v * b1 + c2
            part[1, 2] = v * a0 + 0.5 * b1
            part[1, 3] = 0.5 * v * b0 + c1
            part[2, 2], part[2, 3], part[3, 3] = a0, 0.5 * b0, c0
            whole = curvature[row // side, block]
            for i in range(4):
                for j in range(i, 4):
                    whole[i, j] += part[i, j]
            unlike[row // side, block] += 0.5 * apart
    for row in range(curvature.shape[0]):
        for block in range(curvature.shape[1]):
            whole = curvature[row, block]
            for i in range(4):
                for j in range(i):
                    whole[i, j] += whole[j, i]

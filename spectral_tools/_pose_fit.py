"""Fit the pose of one image in another to the bound, on the images (floor 4)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._fft import fast_shape, fftfreq, forward_pair, inverse, rfftfreq
from ._fit_kernels import ring_sums, smooth_coherence
from ._ndimage import distance_transform_edt
from ._pose_kernels import pose_sums, sample_turned
from ._spectral_kernels import FAINT, edge_taper, ring_edges, whiten_modes
from ._spline_kernels import prefilter, spline_margin

__all__ = ["PoseFit", "Sheet", "fit_pose", "make_sheet", "pose_matrix"]

Floats = NDArray[np.float64]
Plane = NDArray[np.float32]

ORDER = 5
# Windows and rings are those of the fit of a shift.
TAPER_FRACTION, TAPER_WIDTH = 0.04, 6.0
RING_MODES, RING_SHARE, SLACK = 12.0, 0.1, 2.0
# The fit ends when no pixel moves by more than a fixed and a statistical limit.
STEP_FLOOR, STEP_SIGMAS = 2e-4, 0.1
# No pixel may move by more than this, in pixels, at once, nor altogether.
STRIDE, TRAVEL = 2.0, 12.0
# The share of an error that a step leaves, at least.
NEWTON = 0.03
# Side of the blocks whose scores tell the scatter, and the fewest that do.
BLOCK, FEWEST = 32, 12
# Where the curvature is less than this share of the expected one, the latter serves.
LEAST_CURVATURE = 0.2
# Fewer common pixels than this tell nothing.
LEAST_PIXELS = 256.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """An image that is ready to be turned."""

    pixels: Plane  # zero where it does not count
    box: Plane  # coefficients of its spline, and of what surrounds it
    pad: int
    depth: Plane  # how deep a pixel lies among those that count; empty if all do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseFit:
    """What one fit found."""

    matrix: Floats  # (3, 3), from the turned sheet to the other
    covariance: Floats  # (4, 4) of angle, log scale, and shift at `centre`
    centre: Floats  # (2,), in the sheet that stays
    correlation: float
    significance: float
    overlap: float  # pixels of the sheet that stays
    steps: int


def make_sheet(
    pixels: Plane, valid: NDArray[np.bool_] | None, order: int = ORDER
) -> Sheet:
    """Return an image with the coefficients of its spline."""
    pad = spline_margin(order, pixels.dtype)
    box = np.pad(pixels, pad, mode="reflect" if min(pixels.shape) > 1 else "edge")
    prefilter(box[np.newaxis], order)
    depth = np.empty((0, 0), np.float32)
    if valid is not None:
        # A pixel in the middle of the mask's border counts as half a pixel deep.
        depth = np.float32(np.maximum(distance_transform_edt(valid) - 0.5, 0))
    return Sheet(pixels=pixels, box=box, pad=pad, depth=depth)


def pose_matrix(pose: Floats, centre: Floats) -> Floats:
    """Return the matrix of a small pose: angle, log scale and shift at `centre`."""
    size = math.exp(pose[1])
    cosine, sine = size * math.cos(pose[0]), size * math.sin(pose[0])
    matrix = np.eye(3)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + pose[2:]
    return matrix


def fit_pose(
    still: Sheet, turned: Sheet, start: Floats, *, scale: bool, rounds: int = 12
) -> PoseFit | None:
    """Refine the matrix from `turned` to `still`; None where nothing is coherent.

    # Strategy: the turned sheet is sampled on the pixels of the other, both are faded
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
    while True:
        used += 1
        step = _step(still, turned, matrix, (low, high), scale)
        if step is None:
            return None
        pose = step.pose.copy()
        moved = _travel(pose, reach)
        if moved > STRIDE:
            pose *= STRIDE / moved
        matrix = pose_matrix(pose, centre) @ matrix
        if _farthest(matrix, start, turned) > TRAVEL:
            return None
        # A step leaves about the same share of the error as the one before it did.
        share = np.clip(moved / taken, NEWTON, 1.0) if used > 1 else 1.0
        taken = min(moved, STRIDE)
        enough = max(STEP_FLOOR, STEP_SIGMAS * _travel_sigma(step.covariance, reach))
        if share * moved < enough or used == rounds:
            break
    return PoseFit(
        matrix=matrix,
        covariance=step.covariance,
        centre=centre,
        correlation=step.correlation,
        significance=step.significance,
        overlap=step.overlap,
        steps=used,
    )


def _travel(pose: Floats, reach: float) -> float:
    """Return how far a pose moves the corners, at most."""
    return math.hypot(pose[0], pose[1]) * reach + math.hypot(pose[2], pose[3])


def _travel_sigma(covariance: Floats, reach: float) -> float:
    return _travel(np.sqrt(np.diag(covariance)), reach)


def _corners(shape: tuple[int, ...]) -> Floats:
    rows, cols = shape[0] - 0.5, shape[1] - 0.5
    return np.array([(-0.5, -0.5), (-0.5, cols), (rows, -0.5), (rows, cols)])


def _farthest(one: Floats, other: Floats, turned: Sheet) -> float:
    """Return how far apart two matrices bring the corners of a sheet."""
    corners = _corners(turned.pixels.shape)
    apart = corners @ (one - other)[:2, :2].T + (one - other)[:2, 2]
    return float(np.hypot(*apart.T).max())


def _common_box(
    still: Sheet, turned: Sheet, matrix: Floats
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the box of the pixels of `still` that the turned sheet can cover."""
    ends = _corners(turned.pixels.shape) @ matrix[:2, :2].T + matrix[:2, 2]
    low = np.maximum(np.floor(ends.min(axis=0)), 0).astype(np.intp)
    high = np.minimum(np.ceil(ends.max(axis=0)) + 1, still.pixels.shape)
    return low, np.maximum(high.astype(np.intp), low)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    pose: Floats
    covariance: Floats
    correlation: float
    significance: float
    overlap: float


def _step(
    still: Sheet,
    turned: Sheet,
    matrix: Floats,
    box: tuple[NDArray[np.intp], NDArray[np.intp]],
    scale: bool,
) -> _Step | None:
    """Return one Gauss-Newton step, and what it knows."""
    pair, window = _faded(still, turned, matrix, box)
    squares = float(np.vdot(window, window))
    if squares < LEAST_PIXELS:
        return None
    fourths = float((window.astype(np.float64) ** 4).sum())
    shape = pair.shape[1:]
    spectra = forward_pair(pair[:, np.newaxis])
    known = _weigh(spectra, shape, squares**2 / fourths / math.prod(shape))
    if known is None:
        return None
    correlation, significance, steepness = known
    images, slopes = _slopes(spectra[:, 0], shape)

    rows, cols = box[1] - box[0]
    centre = (np.array([rows, cols]) - 1) / 2
    scores = np.zeros((-(-rows // BLOCK), -(-cols // BLOCK), 4))
    curvature = pose_sums(
        *images[:, :rows, :cols], *slopes[:, :, :rows, :cols], centre, BLOCK, scores
    )
    free = np.array([0, 1, 2, 3] if scale else [0, 2, 3])
    inside = np.ix_(free, free)
    expected = 0.5 * steepness * _moments(window, centre) / squares
    spread = _invert(curvature[inside], expected[inside])
    pose, covariance = np.zeros(4), np.zeros((4, 4))
    moves = scores.reshape(-1, 4)[:, free] @ spread
    pose[free] = moves.sum(axis=0)
    covariance[inside] = _covariance(spread, moves, squares, fourths)
    return _Step(
        pose=pose,
        covariance=covariance,
        correlation=correlation,
        significance=significance,
        overlap=float(window.sum()),
    )


def _moments(window: Plane, centre: Floats) -> Floats:
    """Return what the curvature is where the slopes are alike along both axes."""
    weight = np.square(window)
    rows, cols = (np.arange(n) - c for n, c in zip(window.shape, centre, strict=True))
    down, along = weight.sum(axis=1) @ rows, weight.sum(axis=0) @ cols
    square = weight.sum(axis=1) @ rows**2 + weight.sum(axis=0) @ cols**2
    total = weight.sum(dtype=np.float64)
    return np.array(
        [
            [square, 0, -along, down],
            [0, square, down, along],
            [-along, down, total, 0],
            [down, along, 0, total],
        ]
    )


def _invert(curvature: Floats, expected: Floats) -> Floats:
    """Return the inverse of the curvature, or of the expected one far from the top."""
    root = np.linalg.inv(np.linalg.cholesky(expected))
    if np.linalg.eigvalsh(root @ curvature @ root.T)[0] < LEAST_CURVATURE:
        curvature = expected
    return np.linalg.inv(curvature)


def _covariance(
    spread: Floats, moves: Floats, squares: float, fourths: float
) -> Floats:
    """Return the covariance: that of the model, or what the blocks show if more."""
    return spread * (fourths / squares**2)


def _faded(
    still: Sheet,
    turned: Sheet,
    matrix: Floats,
    box: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> tuple[Plane, Plane]:
    """Return what both show of a box, faded alike at the ends of what they share."""
    low, high = box
    rows, cols = high - low
    side = math.sqrt(float(rows * cols))
    width = min(max(TAPER_FRACTION * side, TAPER_WIDTH), min(rows, cols) / 2)
    tapers = [
        edge_taper(int(size), width, 0.0)[start:stop]
        for size, start, stop in zip(still.pixels.shape, low, high, strict=True)
    ]
    window = np.outer(*tapers).astype(np.float32)
    inside = (slice(low[0], high[0]), slice(low[1], high[1]))
    if still.depth.size:
        fade = np.clip(still.depth[inside] / np.float32(width), 0, 1)
        window *= np.sin(np.float32(0.5 * np.pi) * fade) ** 2
    inward = np.linalg.inv(matrix)
    size = math.sqrt(abs(float(np.linalg.det(inward))))
    canvas = np.zeros((2, *fast_shape((int(rows), int(cols)))), np.float32)
    values = np.empty((rows, cols), np.float32)
    sample_turned(
        turned.box, turned.pad, ORDER, inward[:2, :2].copy(),
        inward[:2, :2] @ low + inward[:2, 2], turned.depth, width * size, values, window,
    )  # fmt: skip
    total = max(float(window.sum(dtype=np.float64)), 1e-30)
    for out, image in zip(canvas, (still.pixels[inside], values), strict=True):
        mean = np.float32(float(np.vdot(image, window)) / total)
        out[:rows, :cols] = (image - mean) * window
    return canvas, window


def _weigh(
    spectra: NDArray[np.complex64], shape: tuple[int, ...], share: float
) -> tuple[float, float, float] | None:
    """Filter both spectra so that their product is weighted by the coherence.

    Returns the correlation of the two images, how far the coherence is from none,
    and the mean square of the slopes that both have in common.
    """
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
    count = np.maximum(table[:, 0], 1e-30)
    powers, total = table[:, 1:3] / count[:, np.newaxis], table[:, 1:4].sum(axis=0)
    if not (total[:2] > 0).all():
        return None
    faint = FAINT * total[:2] / table[:, 0].sum()
    level = np.maximum(powers, 1e-3 * faint)
    middle = np.sqrt(level.prod(axis=1))
    measured = np.clip(table[:, 3] / count / middle, -1, 1)
    coherence = smooth_coherence(table[:, 0] * share, measured, SLACK)
    if not coherence.any():
        return None
    noise = np.maximum(1 - coherence**2, np.minimum(np.sqrt(faint.prod()) / middle, 1))
    gain = np.sqrt(coherence / noise)
    unlimited = np.full(len(edges), 1e30)
    for spectrum, power in zip(spectra, level.T, strict=True):
        whiten_modes(spectrum, *freqs, edges, gain / np.sqrt(power), unlimited)
    significance = math.sqrt(float((table[:, 0] * share * coherence**2).sum()))
    square = table[:, [7, 10, 12]].sum(axis=1) / np.maximum(powers.sum(axis=1) / 2, 1e-30)
    # The table is of half of the modes.
    steepness = 2 * float((square * coherence**2 / noise).sum()) / math.prod(shape)
    return float(total[2] / math.sqrt(total[0] * total[1])), significance, steepness


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
    factors = np.complex64(down)[:, np.newaxis], np.complex64(across)
    images = np.empty((2, *shape), np.float32)
    slopes = np.empty((2, 2, *shape), np.float32)
    for index, spectrum in enumerate(spectra):
        for axis, factor in enumerate(factors):
            slopes[index, axis] = inverse(spectrum * factor, shape)
        images[index] = inverse(spectrum, shape)
    return images, slopes


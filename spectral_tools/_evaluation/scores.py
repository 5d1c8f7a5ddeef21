"""Scores of images that lie on each other, and of images alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._placement.solve_tiles import Placement
from .._rendering.warp import warp_image
from .._shared.arguments import checked
from .._shared.arrays import Floats, unstacked
from .._shared.checks import (
    Valid,
    as_finite_image,
    as_sized_image,
    as_valid,
    check_count,
    check_not_negative,
    check_same_shape,
    masks_in_order,
)
from .._shared.results import result
from .._spectral.spectra import power_spectrum, ring_coherence
from .._transforms.matrices import apply_transform, translation

__all__ = [
    "OverlapScores",
    "RingCorrelation",
    "fourier_ring_correlation",
    "mutual_information",
    "normalized_cross_correlation",
    "overlap_scores",
    "texture_score",
]


# Intervals of values, at most: the table of pairs has the square of that.
MOST_BINS = 4096
# Curve of half a bit: signal to noise of each of two halves of the data.
HALF_BIT = 0.2071
# Frequencies beyond this share of the highest hold little but noise.
NOISE_FROM = 0.9
# Rings that stand out of the noise by fewer standard deviations count for nothing.
SURE = 4.0
# Coherence at most: no image is free of noise, if only that of its own numbers.
CLEANEST = 1 - 1e-6


@result
class RingCorrelation:
    """Fourier ring correlation (in 3-D: shell) of two images of the same thing.

    Attributes
    ----------
    frequency : ndarray of shape (rings,)
        Mean frequency of each ring, in cycles per pixel.
    correlation : ndarray of shape (rings,)
        Correlation of the two transforms in each ring, -1 to 1.
    count : ndarray of shape (rings,)
        Number of independent modes in each ring.
    one_seventh, half_bit : ndarray of shape (rings,)
        Thresholds: 1/7, and half a bit of information for each mode.
    resolution, half_bit_resolution : float
        Period, in pixels, at which the curve first falls below the one and the other
        threshold: 2 at best, infinite if nothing correlates.
    """

    frequency: Floats
    correlation: Floats
    count: Floats
    one_seventh: Floats
    half_bit: Floats
    resolution: float
    half_bit_resolution: float


@checked
def normalized_cross_correlation(
    image0: ArrayLike, image1: ArrayLike, *, valid: ArrayLike | None = None
) -> float:
    """Return the correlation of the values of two images.

    This is Pearson's correlation of the pixels that both images show. Their mean and
    contrast do not matter; how the values of one follow from those
    of the other must be a line.

    Parameters
    ----------
    image0, image1 : array_like of shape (rows, cols) or (planes, rows, cols)
        Images on the same pixels.
    valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count.

    Returns
    -------
    float
        From -1 to 1; 0 if nothing counts or an image is constant.

    See Also
    --------
    mutual_information : For images whose values are related by no line.

    Examples
    --------
    An image and its negative, with a pixel that went missing:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> other = 50 - 2 * image
    >>> other[1, 1] = np.nan
    >>> round(spt.normalized_cross_correlation(image, other), 6)
    -1.0
    """
    first, second = _common_values(image0, image1, valid)
    if not len(first):
        return 0.0
    away = [_centred(values) for values in (first, second)]
    power = [float(np.vdot(values, values)) for values in away]
    if not (power[0] and power[1]):
        return 0.0
    score = float(np.vdot(*away)) / float(np.sqrt(power[0]) * np.sqrt(power[1]))
    return min(max(score, -1.0), 1.0)


@checked
def mutual_information(
    image0: ArrayLike,
    image1: ArrayLike,
    *,
    bins: int = 32,
    normalized: bool = False,
    valid: ArrayLike | None = None,
) -> float:
    """Return what the values of one image tell about those of another.

    Images from two kinds of microscope may show the same thing dark and bright.
    Each pair of values then still occurs more often than chance would have it [1]_.

    Parameters
    ----------
    image0, image1 : array_like of shape (rows, cols) or (planes, rows, cols)
        Images on the same pixels.
    bins : int, optional
        Number of intervals into which the values of each image are sorted, up to 4096,
        each with as many pixels as the others. A value that more pixels have than
        that, as where most of an image is black, has an interval of its own. The
        scale of brightness does not matter.
    normalized : bool, optional
        Divide the sum of the two entropies by the joint one [2]_, which depends
        less on how much images overlap: from 1 for unrelated images to 2.
    valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count.

    Returns
    -------
    float
        In bits, freed of the mean that chance alone gives to unrelated images of as
        many pixels, at least 0; or normalised, as it is counted.

    See Also
    --------
    normalized_cross_correlation : For images from the same kind of microscope.

    References
    ----------
    .. [1] Viola & Wells (1997). Alignment by maximization of mutual information.
       :doi:`10.1023/A:1007958904918`
    .. [2] Studholme, Hill & Hawkes (1999). An overlap invariant entropy measure of
       3D medical image alignment. :doi:`10.1016/S0031-3203(98)00091-0`

    Examples
    --------
    The square of an image does not correlate with it, but is known from it:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> image = np.linspace(-1, 1, 10000).reshape(100, 100)
    >>> round(spt.normalized_cross_correlation(image, image**2), 3)
    0.0
    >>> round(spt.mutual_information(image, image**2, bins=16), 1)
    3.0
    """
    check_count(bins, "bins")
    if bins > MOST_BINS:
        message = f"`bins` must be at most {MOST_BINS}; got {bins}."
        raise ValueError(message)
    pair = _common_values(image0, image1, valid)
    if not len(pair[0]):
        return 1.0 if normalized else 0.0
    ranks = [_sorted_into(values, bins) for values in pair]
    joint = np.bincount(ranks[0] * bins + ranks[1], minlength=bins**2)
    table = joint.reshape(bins, bins)
    alone = [table.sum(axis=axis) for axis in (1, 0)]
    entropy0, entropy1, both = map(_entropy, (*alone, joint))
    if normalized:
        return (entropy0 + entropy1) / both if both > 0 else 1.0
    free = (np.count_nonzero(alone[0]) - 1) * (np.count_nonzero(alone[1]) - 1)
    chance = free / (2 * math.log(2) * len(pair[0]))
    return float(max(entropy0 + entropy1 - both - chance, 0.0))


@checked
def fourier_ring_correlation(
    image0: ArrayLike, image1: ArrayLike, *, shift: ArrayLike | None = None
) -> RingCorrelation:
    """Correlate two images of the same thing, frequency by frequency.

    Where the curve ends is how fine the details are that both images show.

    Parameters
    ----------
    image0, image1 : array_like of shape (rows, cols) or (planes, rows, cols)
        Two images whose noise has nothing to do with each other.
    shift : array_like of shape (ndim,), optional
        How far the second must be moved to lie on the first, in pixels.

    Returns
    -------
    RingCorrelation
        The curve, two thresholds [1]_, and where it crosses them.

    See Also
    --------
    ring_coherence : The same curve, smoothed, as matches are weighted with it.

    References
    ----------
    .. [1] van Heel & Schatz (2005). Fourier shell correlation threshold criteria.
       :doi:`10.1016/j.jsb.2005.05.009`

    Examples
    --------
    Two images of one scene, with little noise and with ten times as much, which hides
    its finer details:

    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((300, 300), cutoff=1 / 8, rng=0)
    >>> for noise in (0.02, 0.2):
    ...     pair = spt.simulate_pair(scene, (256, 256), 0, noise_sigma=noise, rng=0)
    ...     found = spt.fourier_ring_correlation(pair.reference, pair.moving)
    ...     print(f"details down to {found.resolution:.1f} pixels")
    details down to 5.1 pixels
    details down to 8.0 pixels
    """
    images = as_finite_image(image0, "image0"), as_finite_image(image1, "image1")
    rings = ring_coherence(*images, shift=shift)
    # Of a real image each mode stands for two points of the plane of frequencies.
    root = np.sqrt(2 * np.maximum(rings.count, 0.5))
    more = 2 * np.sqrt(HALF_BIT)
    half_bit = (HALF_BIT + (more + 1) / root) / (HALF_BIT + 1 + more / root)
    one_seventh = np.full(len(root), 1 / 7)
    return RingCorrelation(
        frequency=rings.frequency,
        correlation=rings.coherence,
        count=rings.count,
        one_seventh=one_seventh,
        half_bit=half_bit,
        resolution=_crossing(rings.frequency, rings.coherence - one_seventh),
        half_bit_resolution=_crossing(rings.frequency, rings.coherence - half_bit),
    )


@checked
def texture_score(image: ArrayLike, *, noise: float | None = None) -> float:
    """Return how well a shift could be known from this image and one like it.

    It tells empty tiles from others before anything is matched.

    Parameters
    ----------
    image : array_like of shape (rows, cols) or (planes, rows, cols)
        Image of any real dtype.
    noise : float, optional
        Standard deviation of the noise of each pixel. By default what lies at the
        highest frequencies is taken for noise, which is too much for sharp images.

    Returns
    -------
    float
        Least standard deviation of the shift between two such images, in pixels,
        along the axis where it is largest [1]_. Infinite if there is no texture.

    See Also
    --------
    phase_correlate : Measures a shift, and its covariance.

    References
    ----------
    .. [1] Knapp & Carter (1976). The generalized correlation method for
       estimation of time delay. :doi:`10.1109/TASSP.1976.1162830`

    Examples
    --------
    A sample, and an empty place beside it, both with noise:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rng = np.random.default_rng(0)
    >>> sample = spt.gaussian_texture((128, 128), cutoff=0.1, rng=rng)
    >>> noise = rng.normal(0, 0.3, (128, 128))
    >>> round(spt.texture_score(sample + noise), 2)
    0.02
    >>> spt.texture_score(noise) > 1
    True
    """
    array = as_finite_image(image, "image")
    if noise is not None:
        check_not_negative(noise, "noise")
    power = power_spectrum(array).astype(np.float64)
    grid = np.meshgrid(*map(_middle_frequency, array.shape), indexing="ij")
    vectors = np.stack(grid, axis=-1).reshape(-1, array.ndim)
    size = np.linalg.norm(vectors, axis=1)
    ring = np.rint(size * max(array.shape)).astype(np.intp)
    count = np.maximum(np.bincount(ring), 1)
    mean = np.bincount(ring, power.ravel()) / count
    beyond = power.ravel()[size > NOISE_FROM / 2]
    floor = beyond.sum() / max(len(beyond), 1) if noise is None else noise**2
    floor = max(float(floor), (1 - CLEANEST) * float(mean.max()))
    if not floor:
        return np.inf
    # Half of all modes are the mirror image of the others.
    told = mean / floor - 1 > SURE * np.sqrt(2 / count)
    signal = np.where(told, np.maximum(mean / floor - 1, 0), 0)
    gain = signal**2 / (1 + 2 * signal)
    # In a ring, modes tell as much as they are strong: stripes tell of one axis only.
    share = (gain / np.maximum(mean, floor * (1 - CLEANEST)))[ring] * power.ravel()
    information = (2 * np.pi) ** 2 * (vectors.T * share) @ vectors
    least = float(np.linalg.eigvalsh(information)[0])
    return least**-0.5 if least > 0 else np.inf


def _middle_frequency(size: int) -> Floats:
    return (np.arange(size) - size // 2) / size


def _centred(values: NDArray[Any]) -> Floats:
    """Return values less their mean, as shares of the farthest; zero if all is rounding.

    A spread of less than one unit in the last place of the values is rounding.
    """
    away = values.astype(np.float64)
    size = float(np.abs(away).max())
    away -= away.mean()
    # What rounding left of the mean: much, where the mean is large beside the spread.
    away -= away.mean()
    far = float(np.abs(away).max())
    if far <= np.finfo(values.dtype).eps * size:
        return np.zeros(len(away))
    return away / far


def _common_values(
    image0: ArrayLike, image1: ArrayLike, valid: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values of two images where both count."""
    first, second = as_sized_image(image0, "image0"), as_sized_image(image1, "image1")
    check_same_shape(image0=first, image1=second)
    counted = np.isfinite(first) & np.isfinite(second)
    given = as_valid(valid, first.shape, "valid")
    if given is not None:
        counted &= given
    return first[counted], second[counted]


def _sorted_into(values: NDArray[Any], bins: int) -> NDArray[np.intp]:
    """Return the interval of each value; equal values are never torn apart."""
    values = values.astype(np.float64)
    edges = np.quantile(values, np.arange(1, bins) / bins)
    if (np.diff(edges, prepend=values.min()) > 0).all():
        return np.searchsorted(edges, values, side="right")
    levels, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(levels) <= bins:
        return number.ravel()
    # What is more frequent than an interval has one alone; the rest shares the others.
    alone, free, left = np.zeros(len(levels), np.bool_), bins, len(values)
    while (more := ~alone & (counts * free > left)).any():
        alone |= more
        free, left = bins - int(alone.sum()), int(counts[~alone].sum())
    table = np.empty(len(levels), np.intp)
    table[alone] = free + np.arange(bins - free)
    rest = counts[~alone]
    table[~alone] = (np.cumsum(rest) - rest / 2) * free / max(left, 1)
    return table[number.ravel()]


def _entropy(counts: NDArray[np.intp]) -> float:
    """Return the entropy of a table of counts, in bits."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _crossing(frequency: Floats, above: Floats) -> float:
    """Return the period at which a curve first falls below zero, in pixels."""
    below = np.flatnonzero(~(above > 0))
    if not len(below):
        return 2.0
    last = int(below[0])
    if last == 0:
        return np.inf
    step = above[last - 1] / (above[last - 1] - above[last])
    found = frequency[last - 1] + step * (frequency[last] - frequency[last - 1])
    return max(1 / float(found), 2.0)


@result
class OverlapScores:
    """How well each two linked tiles agree where they overlap.

    Attributes
    ----------
    links : ndarray of int, shape (n_links, 2)
        Numbers of the reference and the moving tile, each pair once.
    correlation : ndarray of shape (n_links,)
        Zero-mean correlation of the pixels that both show; 0 if they show none.
    difference : ndarray of shape (n_links,)
        Mean of the moving less the reference tile there, in grey values; 0 if none.
    pixels : ndarray of int, shape (n_links,)
        Number of pixels that both show.
    """

    links: NDArray[np.intp]
    correlation: Floats
    difference: Floats
    pixels: NDArray[np.intp]


@checked
def overlap_scores(
    tiles: Sequence[Any],
    placement: Placement,
    *,
    valid: Valid = None,
) -> OverlapScores:
    """Compare the pixels of linked tiles where a placement lays them on each other.

    This judges a mosaic by its images alone: points that fit each other well may
    still have been found on the wrong things.

    Parameters
    ----------
    tiles : sequence of array_like, each of shape (rows, cols) or (planes, rows, cols)
        Images, in the order of the labels of the placement.
    placement : Placement
        Where they lie, and which of them are linked.
    valid : sequence of array_like of bool, optional
        For each tile, True where a pixel counts. Pixels that are not finite never
        count.

    Returns
    -------
    OverlapScores
        One row for each pair of tiles that is linked.

    See Also
    --------
    seam_residuals : How far the points of links are apart.

    Examples
    --------
    Two tiles that share 20 columns, the second one brighter by 10:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> scene = spt.gaussian_texture((64, 108), rng=0)
    >>> tiles = [scene[:, :64], scene[:, 44:] + 10]
    >>> placed = spt.solve_rigid([(0, 1)], [(0, 44)], [(0, 0)])
    >>> scores = spt.overlap_scores(tiles, placed)
    >>> scores.pixels, scores.difference.round(3), scores.correlation.round(3)
    (array([1280]), array([10.]), array([1.]))
    """
    count = len(placement.matrices)
    tiles = _in_order(tiles, placement)
    if len(tiles) != count:
        message = (
            f"`tiles` must hold one image for each of {count} tiles; got {len(tiles)}."
        )
        raise ValueError(message)
    ndim = placement.matrices.shape[1] - 1
    for number, tile in enumerate(tiles):
        if len(tile.shape) != ndim or 0 in tile.shape:
            message = f"`tiles[{number}]` must have {ndim} axes; got {tile.shape}."
            raise ValueError(message)
    masks = masks_in_order(valid, placement.labels, ndim)
    links = np.unique(placement.links, axis=0)
    rows = [
        _compared(tiles, placement.matrices, pair, masks) for pair in links.tolist()
    ]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return OverlapScores(
        links=links,
        correlation=table[:, 0],
        difference=table[:, 1],
        pixels=table[:, 2].astype(np.intp),
    )


def _in_order(images: Any, placement: Placement) -> Sequence[Any]:
    """Return one image for each label of a placement, by its label in a mapping."""
    if not isinstance(images, Mapping):
        return unstacked(images)
    missing = [label for label in placement.labels if label not in images]
    if missing:
        message = (
            f"`tiles` must hold an image for each label; got none for {missing[0]!r}."
        )
        raise ValueError(message)
    return unstacked([images[label] for label in placement.labels])


def _compared(
    tiles: Sequence[Any], matrices: Floats, pair: list[int], masks: list[Any]
) -> tuple[float, float, int]:
    """Return correlation, difference and number of pixels of two tiles."""
    first, second = pair
    change = np.linalg.inv(matrices[first]) @ matrices[second]
    box = _shared_box(change, np.shape(tiles[first]), np.shape(tiles[second]))
    if box is None:
        return 0.0, 0.0, 0
    start = [side.start for side in box]
    reference = as_sized_image(tiles[first][box], "tiles")
    moving = as_sized_image(tiles[second], "tiles")
    counted = [as_valid(masks[tile], np.shape(tiles[tile]), "valid") for tile in pair]
    warped = warp_image(
        moving,
        translation(np.negative(start)) @ change,
        shape=reference.shape,
        valid=counted[1],
        fill_value=np.nan,
    )
    both = np.isfinite(reference) & np.isfinite(warped)
    if counted[0] is not None:
        both &= counted[0][box]
    pixels = int(both.sum())
    away = (warped[both].astype(np.float64) - reference[both]).sum() / max(pixels, 1)
    score = normalized_cross_correlation(reference, warped, valid=both)
    return score, float(away), pixels


def _shared_box(
    change: Floats, shape0: tuple[int, ...], shape1: tuple[int, ...]
) -> tuple[slice, ...] | None:
    """Return the pixels of the first tile that the second may cover."""
    unit = np.indices((2,) * len(shape1)).reshape(len(shape1), -1).T
    corners = apply_transform(change, unit * np.array(shape1) - 0.5)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape0)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, shape0)
    if (high <= low).any():
        return None
    return tuple(map(slice, low.tolist(), high.tolist()))

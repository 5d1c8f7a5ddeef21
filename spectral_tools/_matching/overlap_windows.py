"""Windows along an overlap, each with a shift of its own.

Optics that bend move each part of an overlap by another amount. Parts are fitted from the
shift of the whole first, and where they are too far from that, from the nearest part that
was found: none is matched blindly.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._sampling.boxes import overlap_block
from .._shared.arrays import Flags, Floats, Ints, MaskPair, VolumePair
from .._spectral.tapers import taper_widths
from .image_area import image_in, prepare_pair
from .local_agreement import SHORTEST
from .shift_fit import COHERENT, fit_windows

__all__ = ["OverlapWindows", "overlap_windows", "taper_free"]


class OverlapWindows(NamedTuple):
    """What the windows that were found say; vectors have three axes.

    Attributes
    ----------
    points : ndarray of shape (n, 3)
        In the reference.
    shift : ndarray of shape (n, 3)
        From the moving image, as of the whole.
    covariance : ndarray of shape (n, 3, 3)
    correlation, false_alarm : ndarray of shape (n,)
    size : ndarray of shape (n, 3)
        Sides of the windows, between the middles of their tapers.
    """

    points: Floats
    shift: Floats
    covariance: Floats
    correlation: Floats
    false_alarm: Floats
    size: Floats


def overlap_windows(
    images: tuple[NDArray[Any], NDArray[Any]],
    masks: tuple[Flags | None, Flags | None],
    shift: Floats,
    number: int,
    *,
    padding: bool,
) -> OverlapWindows | None:
    """Match up to `number` windows along what two images share at a shift.

    Vectors have the axes of the images. Windows are fewer where these tell too little.
    """
    first, second = (
        image_in(image, mask, padding=padding)
        for image, mask in zip(images, masks, strict=True)
    )
    if first is None or second is None:
        return None
    areas = first, second
    one, other = (
        tuple(map(slice, [0] * len(shift), area.image.shape)) for area in areas
    )
    pair = prepare_pair(areas, (one, other))
    if pair is None:
        return None
    corner, origin = first.corner, first.corner - second.corner + pair.origin
    start = np.concatenate([np.zeros(3 - len(shift)), shift - origin])
    found, cut = _fit_outwards(pair.volumes, start, pair.valid, number)
    while 2 * len(found.points) < cut and number > 1:
        number //= 2
        wider, cut = _fit_outwards(pair.volumes, start, pair.valid, number)
        if len(wider.points) >= len(found.points):
            found = wider
    axes = slice(3 - len(shift), 3)
    return found._replace(
        points=found.points[:, axes] + corner,
        shift=found.shift[:, axes] + origin,
        covariance=found.covariance[:, axes, axes],
        size=found.size[:, axes],
    )


def _fit_outwards(
    images: VolumePair, shift: Floats, valid: MaskPair | None, number: int
) -> tuple[OverlapWindows, int]:
    """Fit windows from the shift of the whole outwards; also how many there could be."""
    whole = np.rint(shift)
    place, low, size = _cut(images, whole.astype(np.intp), number)
    count = len(place)
    left = _all_count(valid, low, low - whole.astype(np.intp), size)
    told, rows = np.zeros(count, np.bool_), np.flatnonzero(left)
    wanted = len(rows)
    shift, covariance = np.tile(shift, (count, 1)), np.zeros((count, 3, 3))
    correlation, alarm = np.zeros(count), np.ones(count)
    while len(rows):
        fits = fit_windows(images, low[rows], size, shift[rows])
        good = fits.found & fits.done & (fits.significance >= COHERENT)
        # What says less than the pixel does says nothing.
        variance = np.diagonal(fits.covariance, axis1=1, axis2=2).max(axis=1)
        good &= variance < 1 / 3
        found = rows[good]
        # At first all are asked; what a neighbour does not lead to is not found.
        left[rows if told.any() else found] = False
        told[found] = True
        shift[found], covariance[found] = fits.shift[good], fits.covariance[good]
        correlation[found] = fits.correlation[good]
        alarm[found] = [math.erfc(z / math.sqrt(2)) for z in fits.significance[good]]
        rows = np.flatnonzero(left & told.any())
        if len(rows):
            away = np.abs(place[rows][:, np.newaxis] - place[told]).max(axis=2)
            shift[rows] = shift[told][away.argmin(axis=1)]
            near = away.min(axis=1)
            rows = rows[near == near.min()]
    # A window is seen half-way between where it lies in the one and in the other.
    points = low + (size - 1) / 2 + (shift - whole) / 2
    sides = np.tile(taper_free(size), (count, 1))
    known = points, shift, covariance, correlation, alarm, sides
    return OverlapWindows(*(each[told] for each in known)), wanted


def taper_free(block: Ints) -> Floats:
    """Return the sides of blocks between the middles of their tapers."""
    return block - taper_widths(block) * (block > 1)


def _cut(images: VolumePair, whole: Ints, number: int) -> tuple[Ints, Ints, Ints]:
    """Return where windows are among each other and where they begin, and their size.

    They stay off the border of the overlap, beyond which bent ones would reach, and
    are as square as can be.
    """
    sizes = np.array(images[0].shape), np.array(images[1].shape)
    begin, _, block = overlap_block(*sizes, whole)
    margin = np.minimum(block // SHORTEST, SHORTEST) * (block > 1)
    block = block - 2 * margin
    count = np.ones(3, np.intp)
    more = True
    while more:
        more = False
        for axis in np.argsort(-block / count, kind="stable"):
            finer = count + (np.arange(3) == axis)
            wide = block[axis] // finer[axis] >= 2 * SHORTEST
            if wide and finer.prod() <= number:
                count, more = finer, True
                break
    size = block // count
    place = np.array(list(np.ndindex(*count)), np.intp)
    return place, begin + margin + place * size, size


def _all_count(valid: MaskPair | None, one: Ints, other: Ints, size: Ints) -> Flags:
    """Return of which windows all pixels count, in both images."""
    whole = np.ones(len(one), np.bool_)
    for row in range(len(one) if valid is not None else 0):
        whole[row] = all(
            mask[tuple(map(slice, corner[row], corner[row] + size))].all()
            for mask, corner in zip(valid or (), (one, other), strict=True)
        )
    return whole

"""Match frames to a picture that was prepared (floor 6)."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._correlation import ShiftEstimate, correlate_images
from ._fit_kernels import fit_step, ring_sums
from ._outcomes import Outcome
from ._subpixel import fit_shift, short_axes, uncertainty_factor
from ._template_search import (
    RIM,
    Template,
    for_part,
    frame_spectra,
    frame_tapers,
    no_match,
    search_template,
    spline_turn,
    tapered_spectrum,
    window_sums,
)

__all__ = ["fit_frame", "fit_overlap", "match_frame", "match_masked"]

Volume = NDArray[np.float32]
Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

# Tapers of the template are prepared for such steps of a pixel: what a taper that is
# off by half of this hides of a shift is known to better than a thousandth of it.
STEP = 0.25
# So many prepared parts of the template are kept.
KEPT = 64
# Of a frame, this share must lie on the picture.
LEAST = 0.1
# The quick answer is final only far beyond doubt.
CERTAIN, COHERENT = 1e-6, 8.0
# Of the part of the picture that a frame covers, this share must be known.
ENOUGH = 0.85
# Newton steps; each leaves a tenth of the error, so the last one may be so long: in
# pixels, and in standard deviations.
STEPS, SHORT, LEFT = 4, 1e-4, 0.1
# Tapers this far from where they belong, in pixels, hide less than 1e-3 px.
FAR = 0.6
# A fit ends up this close to the peak, in pixels, or it is another one.
TRAVEL = 2.0


def match_frame(template: Template, frame: Volume) -> ShiftEstimate:
    """Find the shift of a finite frame of shape (channels, planes, rows, cols)."""
    spectra = frame_spectra(template, frame)
    found = search_template(template, spectra)
    if found is None:
        return no_match(3, Outcome.NO_TEXTURE)
    estimate, certain = found, False
    if found.outcome != Outcome.NOT_FOUND:
        if _covers(template, found.shift):
            estimate, certain = fit_frame(template, spectra, found)
        else:
            estimate, certain = fit_overlap(template, frame, found)
    if certain:
        return estimate
    if len(frame) > 1:
        return _look_by_channel(template, frame, estimate)
    return _look_again(template, frame, estimate)


def fit_frame(
    template: Template,
    spectra: list[NDArray[np.complex64]],
    start: ShiftEstimate,
    own: float = 0.0,
) -> tuple[ShiftEstimate, bool]:
    """Refine a shift by the phases, and say whether that leaves no doubt.

    Where the frame itself, at the start, makes the share `own` of the picture, that
    share is taken off: it would agree with the frame, noise and all.
    """
    shift = start.shift.copy()
    active = template.size > 1
    for _ in range(2):
        whole = np.rint(shift)
        move = np.rint((shift - whole) / STEP) * STEP
        crop = _crop(template, whole.astype(np.intp), move)
        if crop is None:
            return start, False
        others, share, sides = crop
        fraction = shift - whole
        others = _others(template, others, spectra, own, start.shift - whole)
        for step in range(STEPS):
            table = _table(template, others, spectra, fraction)
            known = fit_step(
                table, share, sides, active, True, 2 - step if step < 2 else 0
            )
            if not known[14]:
                return start, False
            fraction = fraction + np.clip(known[:3], -0.4, 0.4)
            if step > 0 and np.abs(known[:3]).max() < SHORT + LEFT * _sigma(known):
                break
        # The tapers stay where they were prepared, and hold the fit back a little.
        found = whole + move + (fraction - move) * known[15:]
        if np.abs(found - whole - move).max() < FAR:
            break
        shift = found
    if np.abs(found - start.shift).max() > TRAVEL:
        return start, False
    covariance = known[3:12].reshape(3, 3) + np.diag(short_axes(template.size))
    estimate = replace(
        start,
        shift=found,
        covariance=covariance * uncertainty_factor(float(known[13])),
        correlation=float(known[12]),
        overlap=_overlap(template, found),
        alternatives=found[None],
    )
    return estimate, start.false_alarm < CERTAIN and known[13] > COHERENT


def _covers(template: Template, shift: Floats) -> bool:
    """Return whether the picture is known wherever a frame counts."""
    start = np.rint(shift).astype(np.intp) - template.origin
    stop = start + template.size
    if (start < 0).any() or (stop > template.pixels.shape[1:]).any():
        return False
    part = tuple(
        slice(a + RIM, b - RIM) if b - a > 4 * RIM else slice(a, b)
        for a, b in zip(start, stop, strict=True)
    )
    return bool(template.known[part].all())


def fit_overlap(
    template: Template, frame: Volume, start: ShiftEstimate
) -> tuple[ShiftEstimate, bool]:
    """Refine a shift where a frame reaches over the ends of the picture."""
    if len(frame) > 1:
        return _fit_common(template, frame, start)
    part, origin = template.core, template.origin + template.lead
    valid = None
    if not template.known[part].all():
        valid = template.known[part], np.ones(frame.shape[1:], np.bool_)
    picture = template.pixels[0][part]
    fit = fit_shift(picture, frame[0], start.shift - origin, valid=valid)
    if fit is None:
        return start, False
    shift = fit.shift + origin
    return (
        replace(
            start,
            shift=shift,
            covariance=fit.covariance,
            correlation=fit.correlation,
            overlap=_overlap(template, shift),
            alternatives=shift[None],
        ),
        start.false_alarm < CERTAIN and fit.significance > COHERENT,
    )


def _fit_common(
    template: Template, frame: Volume, start: ShiftEstimate
) -> tuple[ShiftEstimate, bool]:
    """Refine a shift of several channels by the part that lies on the picture."""
    whole = np.rint(start.shift).astype(np.intp)
    lead = template.origin + template.lead - whole
    sides = [part.stop - part.start for part in template.core]
    first, stop = np.maximum(lead, 0), np.minimum(lead + sides, template.size)
    size = stop - first
    if (size < 1).any() or size.prod() < LEAST * template.size.prod():
        return start, False
    part = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    small = for_part(template, size)
    spectra = frame_spectra(small, frame[:, *part])
    moved = replace(start, shift=start.shift + first)
    found, certain = fit_frame(small, spectra, moved)
    if found is moved:
        return start, False
    shift = found.shift - first
    overlap = _overlap(template, shift)
    return (
        replace(found, shift=shift, alternatives=shift[None], overlap=overlap),
        certain,
    )


def _overlap(template: Template, shift: Floats) -> float:
    common = np.maximum(template.size - np.abs(shift), 0)
    return float(common.prod() / template.size.prod())


def _others(
    template: Template,
    crops: list[NDArray[np.complex64]],
    spectra: list[NDArray[np.complex64]],
    own: float,
    moved: Floats,
) -> list[NDArray[np.complex64]]:
    """Return the picture without the share of a frame that was `moved` into it."""
    if own == 0:
        return crops
    turn = np.complex64(own) * spline_turn(template.freqs, moved)
    return [one - two * turn for one, two in zip(crops, spectra, strict=True)]


def _table(
    template: Template,
    crops: list[NDArray[np.complex64]],
    spectra: list[NDArray[np.complex64]],
    fraction: Floats,
) -> Floats:
    """Return the sums over rings of all channels."""
    even = template.shape[2] % 2 == 0
    table = np.zeros((len(template.edges), 19))
    for one, two in zip(crops, spectra, strict=True):
        table += ring_sums(one, two, *template.freqs, even, fraction, template.edges)
    return table


def _sigma(known: Floats) -> float:
    return math.sqrt(max(float(known[3:12:4].max()), 0.0))


def _crop(template: Template, whole: Ints, move: Floats) -> Any:
    """Return what a frame covers at a shift, transformed; None if not all is known."""
    key = (*whole.tolist(), *np.rint(move / STEP).astype(np.intp).tolist())
    if key in template.crops:
        return template.crops[key]
    cuts = _cut(template, whole - template.origin)
    crop = None
    if cuts is not None:
        tapers = frame_tapers(template.size, move)
        squares, fourths = window_sums(tapers, template.tapers)
        spectra = [tapered_spectrum(template, cut, tapers) for cut in cuts]
        sides = np.array([_steepness(taper) for taper in tapers])
        crop = spectra, squares**2 / fourths / math.prod(template.shape), sides
    if len(template.crops) >= KEPT:
        template.crops.clear()
    template.crops[key] = crop
    return crop


def _cut(template: Template, start: Ints) -> Volume | None:
    """Return the part of the picture under a frame, if nearly all of it is known.

    What is not known goes on from the nearest pixel that is.
    """
    total = template.pixels.shape[1:]
    first, stop = np.maximum(start, 0), np.minimum(start + template.size, total)
    if (first >= stop).any():
        return None
    part = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    there = float(np.count_nonzero(template.known[part]))
    if there < ENOUGH * template.size.prod():
        return None
    cuts = template.pixels[:, *part]
    if (stop - first == template.size).all():
        return cuts
    low = first - start
    wide = np.empty((len(cuts), *template.size), np.float32)
    inside = tuple(slice(a, a + n) for a, n in zip(low, stop - first, strict=True))
    for cut, out in zip(cuts, wide, strict=True):
        out[:] = cut.mean()
        out[inside] = cut
    return wide


def _steepness(taper: Floats) -> float:
    return float((np.diff(taper) ** 2).sum() / (taper * taper).sum())


def _look_again(
    template: Template, frame: Volume, first: ShiftEstimate
) -> ShiftEstimate:
    """Search every shift exactly, where the quick way leaves a doubt."""
    part, origin = template.core, template.origin + template.lead
    found = match_masked(
        (template.pixels[0][part], frame[0]),
        (template.known[part], None),
        origin,
        (template.low, template.high),
    )
    if found.outcome == Outcome.NO_TEXTURE:
        return first
    # A circular correlation shows what lies beyond its ends at their opposite.
    same = np.abs(found.shift - first.shift).max() < TRAVEL
    sure = first.outcome != Outcome.NOT_FOUND and same
    return first if sure and first.false_alarm <= found.false_alarm else found


def _look_by_channel(
    template: Template, frame: Volume, first: ShiftEstimate
) -> ShiftEstimate:
    """Search every shift of each channel, and fit all channels at the best one."""
    part, origin = template.core, template.origin + template.lead
    best = min(
        (
            match_masked(
                (picture[part], channel), (template.known[part], None),
                origin, (template.low, template.high),
            )
            for picture, channel in zip(template.pixels, frame, strict=True)
        ),
        key=lambda found: found.false_alarm,
    )  # fmt: skip
    alarm = min(len(frame) * best.false_alarm, 1.0)
    if best.outcome != Outcome.MATCHED or alarm >= first.false_alarm:
        return first
    start = replace(best, false_alarm=alarm)
    if _covers(template, start.shift):
        return fit_frame(template, frame_spectra(template, frame), start)[0]
    return fit_overlap(template, frame, start)[0]


def match_masked(
    volumes: tuple[Volume, Volume],
    known: tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None],
    origin: Ints,
    bounds: tuple[Ints, Ints],
) -> ShiftEstimate:
    """Match a frame to a picture that begins at `origin`, in every possible way."""
    flat = int(volumes[1].shape[0] == 1)
    axes = slice(flat, 3)
    images = [volume[0] if flat else volume for volume in volumes]
    masks = [
        None if mask is None or mask.all() else mask[0] if flat else mask
        for mask in known
    ]
    middle = (bounds[0] + bounds[1]) / 2
    reach = (bounds[1] - bounds[0]) / 2
    least = LEAST * images[1].size / min(images[0].size, images[1].size)
    found = correlate_images(
        (images[0], images[1]), (masks[0], masks[1]), (middle - origin)[axes],
        reach[axes], least, None, 1,
    )  # fmt: skip
    shift, covariance = np.zeros(3), np.zeros((3, 3))
    shift[axes] = found.shift + origin[axes]
    covariance[axes, axes] = found.covariance
    size = np.array(volumes[1].shape)
    common = np.maximum(size - np.abs(shift), 0)
    return replace(
        found,
        shift=shift,
        covariance=covariance,
        overlap=float(common.prod() / size.prod()),
        alternatives=shift[None],
    )

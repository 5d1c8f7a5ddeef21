"""Match frames to a picture that was prepared."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..._matching.phase_correlate import (
    BELIEVED,
    CERTAIN,
    COHERENT,
    ShiftEstimate,
    correlate_images,
    no_match,
)
from ..._matching.shift_fit import fit_shift
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.results import Outcome
from .frame_noise import measure_noise
from .image_fit import FrameFit, ImageModel, fit_frame, prepare_model
from .template_search import (
    Bounds,
    SearchTemplate,
    known_core,
    no_match,
    prepare_search,
    search_template,
    shrink_factor,
)

__all__ = [
    "ALIKE",
    "ASTRAY",
    "Reference",
    "fit_common_weights",
    "fit_own_weights",
    "fit_shared_spectrum",
    "match_frame",
    "match_masked",
    "prepare_reference",
    "search_centres",
]


# Of a frame, this share must lie on the picture.
LEAST = 0.1
# A fit ends up this close to the peak, in pixels (of the search), or it is another one.
ASTRAY = 2.0
# Noise is measured again if the fit is this far from where it was, in standard deviations.
AWAY = 2.0
# A picture is searched around one shift as far as this share of a frame, beyond which
# another one is prepared.
APART = 0.25
# A frame that was found without doubt, or without a search, is this alike at least, as a
# share of what frames are; so many places are tried on the way to it.
ALIKE, PLACES = 0.9, 100.0
# It is told from its strongest rivals if they are less likely by this (natural
# logarithm), which are odds of 20,000.
RIVALS, TOLD = 4, 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """A picture, prepared for frames.

    Pixel k of the picture lies at ``k + origin`` of the reference, and pixel k of a
    frame at ``k + shift``. Frames may have channels that move together.
    """

    pixels: Volume  # (channels, planes, rows, cols)
    known: Flags  # (planes, rows, cols)
    origin: Ints  # (3,)
    core: tuple[slice, ...]  # of the picture, where all of it is known
    bounds: Bounds  # lowest and highest shift from the centre of a search
    searches: list[SearchTemplate]
    overlay: ImageModel | None  # None if it is made of the frame itself
    alone: bool = False  # whether each frame is weighed by what it shares with it


def prepare_reference(
    pixels: Volume,
    known: Flags | None,
    origin: Ints,
    typical: Volume,
    bounds: Bounds,
    overlay: ImageModel | None = None,
    *,
    centres: Floats | None = None,
) -> Reference:
    """Prepare a picture for frames like a `typical` one that lie near some shifts."""
    some = np.zeros((1, 3)) if centres is None else centres
    factor = shrink_factor(typical.shape[1:])
    there = np.ones(pixels.shape[1:], np.bool_) if known is None else known
    return Reference(
        pixels=pixels,
        known=there,
        origin=origin,
        core=known_core(there),
        bounds=bounds,
        searches=[
            prepare_search(pixels, origin, typical, bounds, np.rint(centre), factor)
            for centre in search_centres(some, typical.shape[1:])
        ],
        overlay=overlay,
    )


def search_centres(shifts: Floats, size: tuple[int, ...]) -> list[Floats]:
    """Return those of some shifts that a frame of a size needs a search for each."""
    chosen: list[Floats] = []
    for shift in shifts:
        if all((np.abs(shift - o) > APART * np.array(size)).any() for o in chosen):
            chosen.append(shift)
    return chosen


def match_frame(
    picture: Reference,
    frame: Volume,
    known: Flags | None = None,
    guess: Floats | None = None,
) -> ShiftEstimate:
    """Find the shift of a finite frame of shape (channels, planes, rows, cols)."""
    search = picture.searches[0]
    if guess is not None and len(picture.searches) > 1:
        away = [float(np.abs(each.centre - guess).max()) for each in picture.searches]
        search = picture.searches[int(np.argmin(away))]
    found = _search(picture, search, frame, known)
    if found.outcome == Outcome.NO_TEXTURE:
        return found
    if found.false_alarm < BELIEVED:
        alone = fit_own_weights(picture, frame, found, known) if picture.alone else None
        return found if alone is None else alone
    near = [found.shift] if guess is None else [found.shift, guess]
    return _match_near(picture, frame, known, near) or found


def _search(
    picture: Reference, search: SearchTemplate, frame: Volume, known: Flags | None
) -> ShiftEstimate:
    """Search a picture, quickly and then in every way."""
    if known is not None and not known.all() and len(frame) == 1:
        return _search_exactly(picture, search, frame, known, None)
    found = search_template(search, frame)
    if found is None:
        return no_match(3, Outcome.NO_TEXTURE)
    estimate, certain = found, False
    if found.outcome != Outcome.NOT_FOUND:
        estimate, certain = fit_common_weights(
            picture, frame, found, search.factor, known
        )
    if certain:
        return estimate
    if len(frame) > 1:
        return _search_by_channel(picture, search, frame, estimate)
    return _search_exactly(picture, search, frame, known, estimate)


def _match_near(
    picture: Reference, frame: Volume, known: Flags | None, near: list[Floats]
) -> ShiftEstimate | None:
    """Return the match near one of few shifts, if chance makes none as good.

    A scene of few smooth hills correlates well with itself moved, so that a search
    tells little. But chance hardly makes a frame that is as alike as frames should be:
    of n numbers that are random, a correlation r has a chance of (1 - r^2)^((n - 1) / 2).
    """
    lost = no_match(3, Outcome.MATCHED)
    for shift in near:
        start = replace(lost, shift=shift)
        found, _ = fit_common_weights(picture, frame, start, 2, known)
        if found is start or not picture.overlay:
            continue
        square = found.correlation**2
        if square < (ALIKE * picture.overlay.likeness) ** 2:
            continue
        power = max(picture.overlay.modes * found.overlap - 1, 0) / 2
        chance = PLACES * len(near) * max(1 - square, 0.0) ** power
        if chance < BELIEVED:
            return replace(found, false_alarm=chance)
    return None


def fit_common_weights(
    picture: Reference,
    frame: Volume,
    start: ShiftEstimate,
    factor: int = 1,
    known: Flags | None = None,
) -> tuple[ShiftEstimate, bool]:
    """Refine a shift, and say whether that leaves no doubt."""
    overlay = picture.overlay
    if overlay is None:
        overlay = _pair_model(picture, frame, start.shift)
    weight = None if known is None else known.astype(np.float32)
    fit = fit_frame(overlay, frame, start.shift, weight=weight)
    if picture.overlay is None and fit is not None:
        sigma = np.sqrt(np.diag(fit.covariance))
        if (np.abs(fit.shift - start.shift) > AWAY * sigma).any():
            # From a wrong place, what noise there is was seen too large.
            overlay = _pair_model(picture, frame, fit.shift)
            fit = fit_frame(overlay, frame, fit.shift, weight=weight)
    if fit is None or not fit.significance > 0 or not fit.correlation > 0:
        return start, False
    if (np.abs(fit.shift - start.shift) > ASTRAY * max(factor, 1)).any():
        return start, False
    size = np.array(frame.shape[1:])
    estimate = replace(
        start,
        shift=fit.shift,
        covariance=fit.covariance,
        correlation=fit.correlation,
        overlap=_overlap(size, fit.shift),
        alternatives=fit.shift[None],
    )
    rivals = start.alternatives[1:]
    if start.outcome == Outcome.AMBIGUOUS and len(rivals):
        power = overlay.modes * estimate.overlap / 2
        if _likelier_than_rivals(overlay, frame, fit, rivals, power, weight):
            estimate = replace(estimate, outcome=Outcome.MATCHED)
    certain = start.false_alarm < CERTAIN and fit.significance > COHERENT
    return estimate, certain and fit.correlation > ALIKE * overlay.likeness


def _likelier_than_rivals(
    overlay: ImageModel,
    frame: Volume,
    fit: FrameFit,
    rivals: Floats,
    power: float,
    weight: Volume | None,
) -> bool:
    """Return whether a frame is much likelier at a fit than at places it rivals with.

    What pictures do not explain of n numbers that are random makes a place likelier by
    n / 2 times the logarithm of its ratio.
    """
    rest = max(1 - fit.correlation**2, 1e-30)
    for rival in rivals:
        other = fit_frame(overlay, frame, rival, weight=weight)
        if other is None:
            return False
        if np.abs(other.shift - fit.shift).max() < ASTRAY:
            continue
        left = max(1 - max(other.correlation, 0.0) ** 2, 1e-30)
        if not power * math.log(left / rest) > TOLD:
            return False
    return True


def fit_own_weights(
    picture: Reference, frame: Volume, start: ShiftEstimate, known: Flags | None = None
) -> ShiftEstimate | None:
    """Fit a frame to a prepared picture with weights of its own."""
    place = picture.pixels, picture.known, picture.origin, picture.core
    return fit_shared_spectrum(place, frame, start, known)


def fit_shared_spectrum(
    place: tuple[Volume, Flags, Ints, tuple[slice, ...]],
    frame: Volume,
    start: ShiftEstimate,
    known: Flags | None = None,
) -> ShiftEstimate | None:
    """Fit a frame to a picture by what the two share; None if that is not coherent.

    The picture, of one channel, comes with where it is known, its origin, and its core.
    """
    if len(frame) > 1:
        return None
    pixels, seen, origin, part = place
    begin = origin + np.array([cut.start for cut in part], float)
    valid = None
    if known is not None or not seen[part].all():
        whole = np.ones(frame.shape[1:], np.bool_)
        valid = seen[part], whole if known is None else known
    fit = fit_shift(pixels[0][part], frame[0], start.shift - begin, valid=valid)
    if fit is None:
        return None
    shift = fit.shift + begin
    return replace(
        start,
        shift=shift,
        covariance=fit.covariance,
        correlation=fit.correlation,
        overlap=_overlap(np.array(frame.shape[1:]), shift),
        alternatives=shift[None],
    )


def _pair_model(picture: Reference, frame: Volume, shift: Floats) -> ImageModel:
    """Return what a single frame, as noisy as the picture, tells."""
    pair = (picture.pixels, picture.origin)
    noise = measure_noise([frame], shift[None], pair, -1.0)
    size = np.array(frame.shape[1:])
    return prepare_model(
        picture.pixels, picture.known, picture.origin, noise, 1.0, shift, size
    )


def _overlap(size: Ints, shift: Floats) -> float:
    common = np.maximum(size - np.abs(shift), 0)
    return float(common.prod() / size.prod())


def _search_exactly(
    picture: Reference,
    search: SearchTemplate,
    frame: Volume,
    known: Flags | None,
    first: ShiftEstimate | None,
) -> ShiftEstimate:
    """Search every shift exactly, where the quick way leaves a doubt."""
    part = picture.core
    origin = picture.origin + [cut.start for cut in part]
    found = match_masked(
        (picture.pixels[0][part], frame[0]),
        (picture.known[part], known),
        origin - search.centre,
        picture.bounds,
    )
    found = replace(
        found,
        shift=found.shift + search.centre,
        alternatives=found.alternatives + search.centre,
    )
    if found.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS):
        found, _ = fit_common_weights(picture, frame, found, 1, known)
    if first is None:
        return found
    if found.outcome == Outcome.NO_TEXTURE:
        return first
    # A circular correlation shows what lies beyond its ends at their opposite.
    same = np.abs(found.shift - first.shift).max() < ASTRAY
    sure = first.outcome != Outcome.NOT_FOUND and same
    return first if sure and first.false_alarm <= found.false_alarm else found


def _search_by_channel(
    picture: Reference, search: SearchTemplate, frame: Volume, first: ShiftEstimate
) -> ShiftEstimate:
    """Search every shift of each channel, and fit all channels at the best one."""
    part = picture.core
    origin = picture.origin + [cut.start for cut in part]
    best = min(
        (
            match_masked(
                (pixels[part], channel), (picture.known[part], None),
                origin - search.centre, picture.bounds,
            )
            for pixels, channel in zip(picture.pixels, frame, strict=True)
        ),
        key=lambda found: found.false_alarm,
    )  # fmt: skip
    alarm = min(len(frame) * best.false_alarm, 1.0)
    if best.outcome != Outcome.MATCHED or alarm >= first.false_alarm:
        return first
    start = replace(best, shift=best.shift + search.centre, false_alarm=alarm)
    return fit_common_weights(picture, frame, start)[0]


def match_masked(
    volumes: tuple[Volume, Volume],
    known: tuple[Flags | None, Flags | None],
    origin: Ints,
    bounds: Bounds,
) -> ShiftEstimate:
    """Match a frame to a picture that begins at `origin`, in every possible way."""
    flat = int(volumes[1].shape[0] == 1)
    axes = slice(flat, 3)
    images = [volume[0] if flat else volume for volume in volumes]
    masks = [
        None if mask is None or mask.all() else mask[0] if flat else mask
        for mask in known
    ]
    middle = (bounds.low + bounds.high) / 2
    reach = (bounds.high - bounds.low) / 2
    least = LEAST * images[1].size / min(images[0].size, images[1].size)
    found = correlate_images(
        (images[0], images[1]), (masks[0], masks[1]), (middle - origin)[axes],
        reach[axes], least, None, RIVALS,
    )  # fmt: skip
    places, covariance = np.zeros((len(found.alternatives), 3)), np.zeros((3, 3))
    places[:, axes] = found.alternatives + origin[axes]
    covariance[axes, axes] = found.covariance
    size = np.array(volumes[1].shape)
    return replace(
        found,
        shift=places[0],
        covariance=covariance,
        overlap=_overlap(size, places[0]),
        alternatives=places,
    )

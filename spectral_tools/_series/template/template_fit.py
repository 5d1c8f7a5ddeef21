"""Match frames to a reference image that was prepared."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..._matching.phase_correlate import (
    BELIEVED,
    ShiftEstimate,
    correlate_images,
    no_match,
)
from ..._matching.search import CERTAIN
from ..._matching.shift_fit import COHERENT, fit_shift
from ..._shared.arrays import Flags, Floats, Ints, Volume
from ..._shared.results import Outcome
from .image_fit import FrameFit, ImageModel, fit_frame, prepare_model
from .mean_image import LEAST, PlacedImage, measure_noise, views_of
from .template_search import (
    RIVALS,
    Bounds,
    SearchTemplate,
    known_core,
    prepare_search,
    search_template,
    shrink_factor,
)

__all__ = [
    "ASTRAY",
    "TYPICAL",
    "Reference",
    "fit_common_weights",
    "fit_own_weights",
    "fit_shared_spectrum",
    "match_frame",
    "match_masked",
    "prepare_reference",
    "search_centres",
]


# Pixels (of the search) from the peak within which a fit ends up, or it is of another peak
# (test_no_frame_stays_a_period_of_a_lattice_away).
ASTRAY = 2.0
# Standard deviations that a fit may be from where noise was measured before that is done
# again (test_shifts_are_right_to_their_error_bars).
AWAY = 2.0
# Share of a frame that a search reaches around one shift, beyond which another image is
# prepared (test_drift_may_go_beyond_half_a_frame).
SPACING = 0.25
# Correlation of a frame that was found without doubt, or without a search, as a share of
# what frames have (test_very_few_hills_do_not_mislead).
TYPICAL = 0.9
# Natural logarithm of the odds against a rival, 20,000, that tell a match from it
# (test_frames_of_few_hills_are_told_from_their_rivals).
LOG_ODDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """An image, prepared for frames. These may have channels that move together."""

    image: PlacedImage
    core: tuple[slice, ...]  # of the image, where all of it is known
    bounds: Bounds  # lowest and highest shift from the centre of a search
    searches: list[SearchTemplate]
    model: ImageModel | None  # None if it is made of the frame itself
    own_weights: bool = False  # whether each frame is weighed by what it shares with it

    @property
    def core_known(self) -> Flags:
        """Return where the core is known."""
        shape, known = self.image.pixels.shape[1:], self.image.known
        return (
            np.ones(shape, np.bool_)[self.core] if known is None else known[self.core]
        )

    @property
    def core_origin(self) -> Ints:
        """Return where the core begins."""
        return self.image.origin + [cut.start for cut in self.core]


def prepare_reference(
    image: PlacedImage,
    typical: Volume,
    bounds: Bounds,
    model: ImageModel | None = None,
    *,
    centres: Floats | None = None,
) -> Reference:
    """Prepare an image for frames like a `typical` one that lie near some shifts."""
    some = np.zeros((1, 3)) if centres is None else centres
    factor = shrink_factor(typical.shape[1:])
    return Reference(
        image=image,
        core=known_core(image),
        bounds=bounds,
        searches=[
            prepare_search(image, typical, bounds, np.rint(centre), factor)
            for centre in search_centres(some, typical.shape[1:])
        ],
        model=model,
    )


def search_centres(shifts: Floats, size: tuple[int, ...]) -> list[Floats]:
    """Return those of some shifts around which frames of a size need a search each."""
    chosen: list[Floats] = []
    for shift in shifts:
        if all((np.abs(shift - o) > SPACING * np.array(size)).any() for o in chosen):
            chosen.append(shift)
    return chosen


def match_frame(
    reference: Reference,
    frame: Volume,
    known: Flags | None = None,
    guess: Floats | None = None,
) -> ShiftEstimate:
    """Find the shift of a finite frame of shape (channels, planes, rows, cols)."""
    search = reference.searches[0]
    if guess is not None and len(reference.searches) > 1:
        away = [float(np.abs(each.centre - guess).max()) for each in reference.searches]
        search = reference.searches[int(np.argmin(away))]
    found = _search(reference, search, frame, known)
    if found.outcome == Outcome.NO_TEXTURE:
        return found
    if found.false_alarm < BELIEVED:
        own = None
        if reference.own_weights:
            own = fit_own_weights(reference, frame, found, known)
        return found if own is None else own
    near = [found.shift] if guess is None else [found.shift, guess]
    return _match_near(reference, frame, known, near) or found


def _search(
    reference: Reference, search: SearchTemplate, frame: Volume, known: Flags | None
) -> ShiftEstimate:
    """Search a reference, quickly and then in every way."""
    if known is not None and not known.all() and len(frame) == 1:
        return _search_exactly(reference, search, frame, known, None)
    found = search_template(search, frame)
    if found is None:
        return no_match(3, Outcome.NO_TEXTURE)
    estimate, certain = found, False
    if found.outcome != Outcome.NOT_FOUND:
        estimate, certain = fit_common_weights(
            reference, frame, found, search.factor, known
        )
    if certain:
        return estimate
    if len(frame) > 1:
        return _search_by_channel(reference, search, frame, estimate)
    return _search_exactly(reference, search, frame, known, estimate)


def _match_near(
    reference: Reference, frame: Volume, known: Flags | None, near: list[Floats]
) -> ShiftEstimate | None:
    """Return the match near one of few shifts, if chance makes none as good.

    A scene of few smooth hills correlates well with itself moved, so that a search
    says little. But chance hardly makes a frame that correlates as frames should:
    n random numbers have a correlation of r with a chance of (1 - r^2)^((n - 1) / 2).
    """
    model, lost = reference.model, no_match(3, Outcome.MATCHED)
    if model is None:
        return None
    # The fit ends anywhere within twice as many pixels as one of small frames.
    places = (2 * 2 * ASTRAY + 1) ** sum(n > 1 for n in frame.shape[1:])
    for shift in near:
        start = replace(lost, shift=shift)
        found, _ = fit_common_weights(reference, frame, start, 2, known)
        if found is start:
            continue
        square = found.correlation**2
        if square < (TYPICAL * model.likeness) ** 2:
            continue
        power = max(model.modes * found.overlap - 1, 0) / 2
        chance = places * len(near) * max(1 - square, 0.0) ** power
        if chance < BELIEVED:
            return replace(found, false_alarm=chance)
    return None


def fit_common_weights(
    reference: Reference,
    frame: Volume,
    start: ShiftEstimate,
    factor: int = 1,
    known: Flags | None = None,
) -> tuple[ShiftEstimate, bool]:
    """Refine a shift with weights common to all frames, and say if it is certain."""
    model = reference.model or _pair_model(reference, frame, start.shift)
    weight = None if known is None else known.astype(np.float32)
    fit = fit_frame(model, frame, start.shift, weight=weight)
    if reference.model is None and fit is not None:
        sigma = np.sqrt(np.diag(fit.covariance))
        if (np.abs(fit.shift - start.shift) > AWAY * sigma).any():
            # From a wrong place, what noise there is was seen too large.
            model = _pair_model(reference, frame, fit.shift)
            fit = fit_frame(model, frame, fit.shift, weight=weight)
    if fit is None or not fit.significance > 0 or not fit.correlation > 0:
        return start, False
    if (np.abs(fit.shift - start.shift) > ASTRAY * max(factor, 1)).any():
        return start, False
    estimate = replace(
        start,
        shift=fit.shift,
        covariance=fit.covariance,
        correlation=fit.correlation,
        overlap=_overlap(np.array(frame.shape[1:]), fit.shift),
        alternatives=fit.shift[None],
    )
    rivals = start.alternatives[1:]
    if start.outcome == Outcome.AMBIGUOUS and len(rivals):
        power = model.modes * estimate.overlap / 2
        if _likelier_than_rivals(model, frame, fit, rivals, power, weight):
            estimate = replace(estimate, outcome=Outcome.MATCHED)
    certain = start.false_alarm < CERTAIN and fit.significance > COHERENT
    return estimate, certain and fit.correlation > TYPICAL * model.likeness


def _likelier_than_rivals(
    model: ImageModel,
    frame: Volume,
    fit: FrameFit,
    rivals: Floats,
    power: float,
    weight: Volume | None,
) -> bool:
    """Return whether a frame is much likelier at a fit than at its rivals.

    The log-likelihood ratio of two fits to n random numbers is n / 2 times the logarithm
    of the ratio of what they leave unexplained.
    """
    rest = max(1 - fit.correlation**2, 1e-30)
    for rival in rivals:
        other = fit_frame(model, frame, rival, weight=weight)
        if other is None:
            return False
        if np.abs(other.shift - fit.shift).max() < ASTRAY:
            continue
        left = max(1 - max(other.correlation, 0.0) ** 2, 1e-30)
        if not power * math.log(left / rest) > LOG_ODDS:
            return False
    return True


def fit_own_weights(
    reference: Reference,
    frame: Volume,
    start: ShiftEstimate,
    known: Flags | None = None,
) -> ShiftEstimate | None:
    """Fit a frame to a prepared reference with weights of its own."""
    return fit_shared_spectrum(reference.image, reference.core, frame, start, known)


def fit_shared_spectrum(
    image: PlacedImage,
    core: tuple[slice, ...],
    frame: Volume,
    start: ShiftEstimate,
    known: Flags | None = None,
) -> ShiftEstimate | None:
    """Fit a frame to the core of an image by what the two share in each ring.

    The image has one channel. None if nothing is coherent.
    """
    if len(frame) > 1:
        return None
    begin = image.origin + np.array([cut.start for cut in core], float)
    seen = None if image.known is None else image.known[core]
    valid = None
    if known is not None or not (seen is None or seen.all()):
        there = np.ones(image.pixels[0][core].shape, np.bool_) if seen is None else seen
        whole = np.ones(frame.shape[1:], np.bool_)
        valid = there, whole if known is None else known
    fit = fit_shift(image.pixels[0][core], frame[0], start.shift - begin, valid=valid)
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


def _pair_model(reference: Reference, frame: Volume, shift: Floats) -> ImageModel:
    """Return the model of an image that is a single frame, as noisy as another one."""
    views = views_of(reference.image, [frame], shift[None])
    noise = measure_noise([frame], shift[None], views, ratio=1.0)
    return prepare_model(reference.image, noise, 1.0, shift, frame.shape[1:])


def _overlap(size: Ints, shift: Floats) -> float:
    common = np.maximum(size - np.abs(shift), 0)
    return float(common.prod() / size.prod())


def _search_exactly(
    reference: Reference,
    search: SearchTemplate,
    frame: Volume,
    known: Flags | None,
    first: ShiftEstimate | None,
) -> ShiftEstimate:
    """Search every shift exactly, where the circular correlation leaves a doubt."""
    found = match_masked(
        (reference.image.pixels[0][reference.core], frame[0]),
        (reference.core_known, known),
        reference.core_origin - search.centre,
        reference.bounds,
    )
    found = replace(
        found,
        shift=found.shift + search.centre,
        alternatives=found.alternatives + search.centre,
    )
    if found.outcome in (Outcome.MATCHED, Outcome.AMBIGUOUS):
        found, _ = fit_common_weights(reference, frame, found, 1, known)
    if first is None:
        return found
    if found.outcome == Outcome.NO_TEXTURE:
        return first
    # A circular correlation shows what lies beyond its ends at their opposite.
    same = np.abs(found.shift - first.shift).max() < ASTRAY
    sure = first.outcome != Outcome.NOT_FOUND and same
    return first if sure and first.false_alarm <= found.false_alarm else found


def _search_by_channel(
    reference: Reference, search: SearchTemplate, frame: Volume, first: ShiftEstimate
) -> ShiftEstimate:
    """Search every shift of each channel, and fit all channels at the best one."""
    masks, origin = (reference.core_known, None), reference.core_origin - search.centre
    best = min(
        (
            match_masked(
                (pixels[reference.core], channel), masks, origin, reference.bounds
            )
            for pixels, channel in zip(reference.image.pixels, frame, strict=True)
        ),
        key=lambda found: found.false_alarm,
    )
    alarm = min(len(frame) * best.false_alarm, 1.0)
    if best.outcome != Outcome.MATCHED or alarm >= first.false_alarm:
        return first
    start = replace(best, shift=best.shift + search.centre, false_alarm=alarm)
    return fit_common_weights(reference, frame, start)[0]


def match_masked(
    volumes: tuple[Volume, Volume],
    known: tuple[Flags | None, Flags | None],
    origin: Ints,
    bounds: Bounds,
) -> ShiftEstimate:
    """Match a frame to an image that begins at `origin`, at every shift within bounds."""
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
        reach[axes], least, None, RIVALS, parts=False,
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

"""How well placed tiles meet, link by link and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.results import Outcome, result
from .._shared.sparse import bridges
from .._shared.statistics import ROUNDING, TOO_SMALL
from .bent_tiles import window_seams
from .solve_tiles import Placement

__all__ = [
    "PlacementReport",
    "PlacementWarning",
    "SeamResiduals",
    "doubts",
    "failed_links",
    "placement_report",
    "seam_residuals",
]


# Links around loops that miss by more than so many px are seams that are seen, if error
# bars do not explain them (test_tiles_that_do_not_fit_together_are_doubted).
SEEN = 1.0
# Rows of a table, and labels in a row, that are still read.
ROWS = 5
LISTED = 8


@result
class SeamResiduals:
    """How far linked points are apart in the mosaic.

    Attributes
    ----------
    pixels : ndarray of shape (n_links,)
        Distance in pixels.
    sigma : ndarray of shape (n_links,)
        The same in standard deviations of the link, root mean square over the
        axes; 0 for a link that failed. Tiles give way to their links, so that
        0.7 is usual in a grid, and 0 where a link closes no loop.
    """

    pixels: Floats
    sigma: Floats


class PlacementWarning(UserWarning):
    """Tiles were placed, but the links between them do not make a mosaic.

    Most pairs of tiles were not found, or a clear link contradicts the stage that alone
    holds two groups of tiles together, or links around loops contradict each other far
    beyond their error bars; or the stage does not move as was said, and tiles were placed
    as it does. Look at ``print(placement_report(placed))`` and
    ``plot.placement(placed, size)``; then check that `positions` are in pixels and in the
    order of the axes of the tiles, that tiles are in the order that `grid` says, that they
    overlap, and that `max_shift` is as wide as the stage errs. Tiles that are turned
    against each other contradict each other by translation: see `solve_rigid` with
    `rotation`. Where most tiles are blank, all may be well.

    See Also
    --------
    place_tiles : Gives this warning, once a call at most.
    placement_report : Begins with the same sentence.

    Examples
    --------
    Tiles of noise have nothing in common:

    >>> import warnings
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> tiles = np.random.default_rng(0).normal(size=(4, 64, 64))
    >>> with warnings.catch_warnings(record=True, action="always") as given:
    ...     placed = spt.place_tiles(tiles, grid=(2, 2))
    >>> print(given[0].message)
    0 of 4 pairs were found: this is what was given, not a mosaic.

    Where that is expected, it is silenced by its name:

    >>> with warnings.catch_warnings(action="ignore", category=spt.PlacementWarning):
    ...     placed = spt.place_tiles(tiles, grid=(2, 2))
    """


@result
class PlacementReport:
    """What is good and what is not about a placement; prints as a short text.

    Attributes
    ----------
    placement : Placement
        What the report is about.
    seams : SeamResiduals
        Residual of each link.
    seam_rms : float
        Root mean square distance of the points of believed links, in pixels.
    worst : ndarray of int, shape (n_links,)
        Numbers of the links, from the largest residual in sigma down.
    group_sizes : ndarray of int, shape (n_groups,)
        Number of tiles of each connected group.
    """

    placement: Placement
    seams: SeamResiduals
    seam_rms: float
    worst: NDArray[np.intp]
    group_sizes: NDArray[np.intp]

    def __str__(self) -> str:
        """Return the report as a few lines of text."""
        return "\n".join(
            [
                *doubts(self.placement),
                *_summary(self),
                *_bending(self.placement),
                *_worst_links(self),
                *_odd_tiles(self),
            ]
        )


@checked
def seam_residuals(placement: Placement) -> SeamResiduals:
    """Measure how far the points of each link are apart once tiles are placed.

    Parameters
    ----------
    placement : Placement
        Placed tiles.

    Returns
    -------
    SeamResiduals
        Residuals in pixels and in standard deviations. If links had no
        covariance, their standard deviation is estimated from all residuals.

    See Also
    --------
    placement_report : Sums them up in words.

    Examples
    --------
    Three links around a triangle miss by 3 px, which tiles share:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> links, found = [(0, 1), (1, 2), (0, 2)], [(0, 90), (90, 0), (90, 93)]
    >>> placed = spt.solve_rigid(
    ...     links, found, np.zeros((3, 2)), covariance=4 * np.eye(2)
    ... )
    >>> spt.seam_residuals(placed).pixels.round(3)
    array([1., 1., 1.])
    """
    residuals, covariance = placement.residuals, placement.covariance
    usable = ~failed_links(placement)
    safe = np.where(usable[:, None, None], covariance, np.eye(residuals.shape[1]))
    squares = np.einsum("la,lab,lb->l", residuals, np.linalg.inv(safe), residuals)
    unit = max(placement.variance, ROUNDING**2)
    return SeamResiduals(
        pixels=np.sqrt((residuals**2).sum(axis=1)),
        sigma=usable * np.sqrt(squares / (residuals.shape[1] * unit)),
    )


def failed_links(placement: Placement) -> NDArray[np.bool_]:
    """Tell which links have no match: nothing, or a step of the stage, stands in."""
    known = np.asarray(np.isfinite(placement.covariance).all(axis=(1, 2)))
    return ~known | (placement.counted & ~placement.inlier)


@checked
def placement_report(placement: Placement) -> PlacementReport:
    """Tell how well tiles meet, which links do not fit, and which tiles are lost.

    Parameters
    ----------
    placement : Placement
        Placed tiles.

    Returns
    -------
    PlacementReport
        Residuals, the worst links, groups; ``print(report)`` says it in words.

    See Also
    --------
    seam_residuals : The residuals alone.
    position_covariance : How far positions can be trusted.

    Examples
    --------
    Nine tiles that are 90 px apart; the link from 4 to 5 is wrong by 50 px:

    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> truth = spt.grid_positions((3, 3), (100, 100))
    >>> links = spt.grid_links((3, 3))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> found += 0.1 * np.cos(np.arange(24)).reshape(12, 2)
    >>> found[(links == (4, 5)).all(axis=1)] += (50, 0)
    >>> placed = spt.solve_rigid(links, found, 0 * found, covariance=0.01 * np.eye(2))
    >>> print(spt.placement_report(placed))
    tiles   9: 9 matched
    links   12: 11 believed, 1 dropped
    groups  1 (9 tiles)
    seams   0.071 px rms, 1.0 sigma at most
    worst links
      4 - 5  50.170 px  354.8 sigma  dropped
      3 - 4   0.138 px    1.0 sigma
      0 - 1   0.095 px    0.7 sigma
      0 - 3   0.095 px    0.7 sigma
      4 - 7   0.073 px    0.5 sigma
    """
    seams = seam_residuals(placement)
    believed = seams.pixels[placement.inlier]
    mean = (believed**2).sum() / max(len(believed), 1)
    return PlacementReport(
        placement=placement,
        seams=seams,
        seam_rms=float(np.sqrt(mean)),
        worst=np.argsort(-seams.sigma, kind="stable"),
        group_sizes=np.bincount(placement.group),
    )


def _summary(report: PlacementReport) -> list[str]:
    placement, sizes = report.placement, np.sort(report.group_sizes)[::-1]
    failed = failed_links(placement)
    links = _counts(
        believed=placement.inlier,
        dropped=~placement.inlier & ~failed,
        failed=failed,
    )
    found = {o.value: placement.outcome == o for o in Outcome}
    joined = sizes[sizes > 1]
    groups = f"{len(joined)} ({', '.join(_listed(joined.tolist()))} tiles)"
    if len(joined) < len(sizes):
        alone = len(sizes) - len(joined)
        groups += f" and {alone} {'tile' if alone == 1 else 'tiles'} alone"
    largest = report.seams.sigma[placement.inlier].max(initial=0)
    seams = f"{report.seam_rms:.3f} px rms, {largest:.1f} sigma at most"
    if bridges(placement.links[placement.inlier], len(placement.labels)).all():
        seams = "no loop of links closes, so that nothing checks them"
    return [
        f"tiles   {len(placement.labels)}: {_counts(**found)}",
        f"links   {len(failed)}: {links}",
        f"groups  {groups if len(joined) else 'none: no tiles are linked'}",
        f"seams   {seams}",
    ]


def _bending(placement: Any) -> list[str]:
    """Say by how much overlaps disagree within themselves, and what that may be."""
    if getattr(placement, "displacement", None) is not None:
        left = window_seams(placement)
        plain, corrected = (
            np.sqrt(np.sum(each**2) / max(len(each), 1))
            for each in (left.plain, left.corrected)
        )
        told = (
            f"{plain:.3f} px rms in plain tiles, {corrected:.3f} px in corrected ones"
        )
        return [f"within  {told}"]
    matches = getattr(placement, "matches", None)
    if matches is None:
        return []
    rows = placement.inlier & np.isfinite(matches.scatter)
    scatter, curvature = matches.scatter[rows], matches.curvature[rows]
    # One overlap of two bends: it is in the tiles, not in the scene.
    if 2 * np.count_nonzero(scatter) <= len(scatter):
        return []
    rms = np.sqrt(np.mean(scatter**2))
    bent = 2 * np.mean(curvature**2) > rms**2
    cause = (
        "bent, see `distortion`" if bent else "turned or stretched, see `solve_affine`"
    )
    return [f"within  overlaps disagree by {rms:.2f} px rms: tiles are {cause}"]


def doubts(placement: Placement) -> list[str]:
    """Say in a sentence, if need be, what must be known before anything else."""
    found, tried = int(placement.inlier.sum()), len(placement.inlier)
    stage = getattr(placement, "stage", None)
    turned = [] if stage is None or not found else _other_axes(stage.matrix)
    if turned:
        return turned
    if tried and not found:
        return [f"0 of {tried} pairs were found: this is what was given, not a mosaic."]
    if 2 * found < tried:
        return [f"Only {found} of {tried} pairs were found."]
    lost = placement.outcome == Outcome.CONTRADICTED
    torn = np.unique(placement.links[placement.inlier & lost[placement.links[:, 0]]])
    if len(torn):
        names = ", ".join(_listed([placement.labels[tile] for tile in torn.tolist()]))
        say = "hang together, but a clear link to others contradicts their positions"
        return [f"Tiles {names} {say}."]
    around = ~bridges(placement.links[placement.inlier], len(placement.labels))
    seams = seam_residuals(placement)
    sigma = seams.sigma[placement.inlier][around]
    pixels = seams.pixels[placement.inlier][around]
    bad = (sigma > np.sqrt(TOO_SMALL)) & (pixels > SEEN)
    if 2 * np.count_nonzero(bad) > len(bad):
        say = "Links around loops contradict each other: half of them miss by more than"
        sigmas = f"{np.median(sigma):.0f} standard deviations"
        return [f"{say} {np.median(pixels):.1f} px or {sigmas}."]
    return []


def _other_axes(matrix: Floats) -> list[str]:
    """Say how a stage moves that does not at all move as was said."""
    if np.linalg.norm(matrix - np.eye(len(matrix)), 2) < 0.4:
        return []
    scale = float(np.abs(np.linalg.det(matrix)) ** (1 / len(matrix)))
    turn = matrix / scale
    axes = np.rint(turn)
    names = []
    if np.abs(turn - axes).max() > 0.2:
        names.append("its axes are turned")
    elif (np.abs(axes) == np.eye(len(axes))).all():
        back = np.flatnonzero(np.diag(axes) < 0).tolist()
        kinds = (
            f"axis {back[0]} is"
            if len(back) == 1
            else f"axes {', '.join(map(str, back))} are"
        )
        names += [f"{kinds} reversed"] if back else []
    else:
        names.append("its axes are swapped" + " and reversed" * bool((axes < 0).any()))
    if abs(np.log2(scale)) > 0.2:
        names.append(f"a unit is {scale:.3g} px")
    told = " and ".join(names) or "steps are of another length"
    rows = ", ".join(str([round(x, 3) + 0.0 for x in row]) for row in matrix.tolist())
    return [
        f"The stage does not move as `positions` or `grid` say: {told} (matrix [{rows}])."
    ]


def _worst_links(report: PlacementReport) -> list[str]:
    """Return a table of the links with the largest residuals."""
    placement, seams = report.placement, report.seams
    rows = []
    for link in report.worst[:ROWS].tolist():
        names = (str(placement.labels[tile]) for tile in placement.links[link])
        rows.append(
            (
                " - ".join(names),
                f"{seams.pixels[link]:.3f} px",
                f"{seams.sigma[link]:.1f} sigma",
                "" if placement.inlier[link] else "dropped",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {name:<{widths[0]}}  {pixels:>{widths[1]}}  {sigma:>{widths[2]}}  {word}"
        for name, pixels, sigma, word in rows
    ]
    return ["worst links", *(line.rstrip() for line in lines)] if rows else []


def _odd_tiles(report: PlacementReport) -> list[str]:
    """Name the tiles that links do not hold."""
    placement = report.placement
    lines = []
    for outcome in (Outcome.CONTRADICTED, Outcome.PRIOR_ONLY, Outcome.ISOLATED):
        tiles = np.flatnonzero(placement.outcome == outcome).tolist()
        if tiles:
            names = _listed([placement.labels[tile] for tile in tiles])
            lines.append(f"tiles {outcome}: {', '.join(names)}")
    return lines


def _counts(**flags: NDArray[np.bool_]) -> str:
    """Say how many there are of each kind."""
    kinds = [f"{flag.sum()} {name}" for name, flag in flags.items() if flag.any()]
    return ", ".join(kinds) or "none"


def _listed(items: list[object]) -> list[str]:
    """Return the first few items as text, and how many more there are."""
    more = [f"and {len(items) - LISTED} more"] if len(items) > LISTED else []
    return [*map(str, items[:LISTED]), *more]

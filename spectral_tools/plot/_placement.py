"""Draw results: every function takes axes and returns them.

Matplotlib is imported when something is drawn, so that the package stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .._placement.bent_tiles import window_seams
from .._placement.place_tiles import TilePlacement
from .._placement.report import PlacementReport, failed_links, placement_report
from .._placement.solve_tiles import Placement
from .._placement.uncertainty import position_covariance
from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import as_points
from .._shared.results import Outcome
from .._shared.statistics import ROUNDING
from ._points import draw_residuals, enlargement
from ._style import (
    INK,
    LABELLED,
    PALE,
    WRONG,
    draw_colorbar,
    draw_legend,
    framed,
    several,
    shown_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["placement", "seams", "uncertainty"]


# Colours of tiles that no link holds.
ODD = {
    Outcome.CONTRADICTED: "#CC79A7",
    Outcome.PRIOR_ONLY: "#E69F00",
    Outcome.ISOLATED: "#56B4E9",
}
# Residuals beyond this many standard deviations look alike.
WORST_SIGMA = 3.0
# A typical residual is drawn as long as this part of a tile.
ARROW = 0.3
# Tiles this small on paper, in points, have no room for arrows.
ROOM = 15


@checked
def placement(
    placement: Placement, tile_shapes: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw tiles where they belong, and what their links still ask for.

    Tiles are outlined, in colour if no link holds them. Links join their
    centres, coloured by residual; dropped links are dashed and crossed out.
    Arrows show residuals, many times enlarged: where the moving tile would go.

    Parameters
    ----------
    placement : Placement
        Placed tiles in the plane.
    tile_shapes : array_like of shape (2,) or (n, 2)
        Shape of every tile, or of each, in pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import spectral_tools as spt
    >>> links = spt.grid_links((2, 3))
    >>> truth = spt.grid_positions((2, 3), (100, 120))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> placed = spt.solve_rigid(links, found, 0 * found)
    >>> ax = spt.plot.placement(placed, (100, 120))
    >>> ax.get_title(loc="left")
    '6 tiles, seams 0.000 px rms'
    """
    report = placement_report(placement)
    corners = _corners(placement, tile_shapes)
    ax = _framed(ax, corners)
    _draw_tiles(ax, placement, corners)
    _draw_links(ax, report, corners)
    _draw_arrows(ax, report, corners)
    _draw_labels(ax, placement, corners)
    ax.set_title(
        f"{len(corners)} tiles, seams {report.seam_rms:.3f} px rms", loc="left"
    )
    draw_legend(ax)
    return ax


@checked
def uncertainty(
    placement: Placement, tile_shapes: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw tiles in the colour of the standard error of their positions.

    Parameters
    ----------
    placement : Placement
        Tiles in the plane, placed by translation.
    tile_shapes : array_like of shape (2,) or (n, 2)
        Shape of every tile, or of each, in pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down. Tiles that nothing holds stay white.

    See Also
    --------
    spectral_tools.position_covariance : The numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import spectral_tools as spt
    >>> links = spt.grid_links((2, 3))
    >>> truth = spt.grid_positions((2, 3), (100, 120))
    >>> found = truth[links[:, 1]] - truth[links[:, 0]]
    >>> placed = spt.solve_rigid(links, found, 0 * found, covariance=[[4, 0], [0, 4]])
    >>> ax = spt.plot.uncertainty(placed, (100, 120))
    >>> ax.get_title(loc="left")
    'Standard error of positions, 1.26 px rms'
    """
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    corners = _corners(placement, tile_shapes)
    ax = _framed(ax, corners)
    variance = np.einsum("naa->n", position_covariance(placement)) / 2
    known = np.isfinite(variance)
    polygons = corners[:, :, ::-1]
    tiles = PolyCollection(
        polygons[known], array=np.sqrt(variance[known]), cmap="viridis", alpha=0.9
    )
    tiles.set(edgecolor="white", linewidth=min(1.0, 0.02 * _tile_points(ax, corners)))
    ax.add_collection(tiles, autolim=False)
    if not known.all():
        name = several(~known, "tile", "that nothing holds")
        unknown = PolyCollection(polygons[~known], facecolor="white", label=name)
        unknown.set(edgecolor=WRONG, linewidth=0.8)
        ax.add_collection(unknown, autolim=False)
    draw_colorbar(ax, tiles, "standard error (px)")
    draw_legend(ax)
    rms = np.sqrt(variance[known].sum() / max(np.count_nonzero(known), 1))
    ax.set_title(f"Standard error of positions, {rms:.2f} px rms", loc="left")
    return ax


@checked
def seams(
    placement: TilePlacement, *, corrected: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw what is left in the windows of all overlaps, on tiles laid on each other.

    Each window is drawn twice, where its two tiles recorded it, with the arrow along which
    that tile would have to move it to meet the other half-way. A lens that bends all tiles
    alike draws its portrait; where it is corrected, chance is left.

    Parameters
    ----------
    placement : TilePlacement
        Tiles that `place_tiles` placed with `distortion` or `displacement`.
    corrected : bool, optional
        What is left of corrected tiles, or, if False, of plain ones wherever they lie.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> rows, cols = np.indices((128, 128))
    >>> lens = np.stack([0 * rows, ((rows - 63.5) / 64) ** 2], axis=-1)
    >>> scene = spt.gaussian_texture((260, 260), rng=1)
    >>> made = spt.simulate_tiles(
    ...     scene, (2, 2), (128, 128), overlap=0.3, distortion=lens, rng=1
    ... )
    >>> placed = spt.place_tiles(
    ...     made.tiles, grid=(2, 2), overlap=0.3, displacement=lens
    ... )
    >>> ax = spt.plot.seams(placed)
    >>> ax.get_title(loc="left").partition(",")[0]
    '28 windows'
    """
    if placement.displacement is None:
        message = (
            "`placement` must be of tiles that were placed with `distortion` or "
            "`displacement`; got one without."
        )
        raise ValueError(message)
    found = window_seams(placement)
    left = (found.corrected if corrected else found.plain) / 2
    shape = placement.displacement.shape[:2]
    # A tile that sees a point too far down has to move it up.
    places = np.concatenate([found.reference, found.moving])
    arrows = np.concatenate([-left, left])
    rms = float(np.sqrt(np.sum(4 * left**2) / max(len(left), 1)))
    times = 0.0
    if rms > ROUNDING:
        # Overlaps of many tiles lie on each other along four borders.
        side = 8 * len(places) // (2 * int(placement.inlier.sum()) or 1)
        times = enlargement(rms / 2, shape, side)
    high, edge = np.array(shape) - 0.5, 0.03 * max(shape)
    corners = np.array([(-0.5, -0.5), (-0.5, high[1]), high, (high[0], -0.5)])
    drawn = np.concatenate([corners, places + times * arrows])
    ax = framed(ax, drawn.min(axis=0) - edge, drawn.max(axis=0) + edge)
    ax.fill(*corners.T[::-1], fill=False, edgecolor=PALE)
    if times:
        draw_residuals(ax, places, arrows, times)
    kind = "corrected" if corrected else "plain"
    ax.set_title(f"{len(left)} windows, {rms:.3f} px rms of {kind} tiles", loc="left")
    draw_legend(ax)
    return ax


def _corners(placement: Placement, tile_shapes: ArrayLike) -> Floats:
    """Return the corners of all tiles in the mosaic, shape (n, 4, 2)."""
    count, ndim = placement.matrices.shape[0], placement.matrices.shape[1] - 1
    if ndim != 2:
        message = f"`placement` must lie in the plane; got {ndim} axes."
        raise ValueError(message)
    shapes = np.asarray(tile_shapes)
    sizes = as_points(np.atleast_2d(shapes), "tile_shapes", ndim=2)
    if len(sizes) not in (1, count):
        message = (
            f"`tile_shapes` must have one row for each of {count} tiles; "
            f"got {len(sizes)}."
        )
        raise ValueError(message)
    unit = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
    # Pixel centres are at integers: the first pixel begins half a pixel before.
    inside = np.broadcast_to(unit * sizes[:, np.newaxis] - 0.5, (count, 4, 2))
    turned = inside @ placement.matrices[:, :2, :2].transpose(0, 2, 1)
    return turned + placement.matrices[:, np.newaxis, :2, 2]


def _framed(ax: Axes | None, corners: Floats) -> Axes:
    """Set up axes that show all tiles, and a little more."""
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    edge = 0.02 * (high - low).max()
    return framed(ax, low - edge, high + edge)


def _tile_points(ax: Axes, corners: Floats) -> float:
    """Return how large a usual tile is on paper, in points, about."""
    return shown_scale(ax) * _tile_size(corners)


def _tile_size(corners: Floats) -> float:
    return float(np.median(np.linalg.norm(corners[:, 2] - corners[:, 0], axis=1))) / 1.4


def _draw_tiles(ax: Axes, placement: Placement, corners: Floats) -> None:
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    thin = float(np.clip(0.012 * _tile_points(ax, corners), 0.2, 0.8))
    polygons = corners[:, :, ::-1]
    even = ~np.isin(placement.outcome, list(ODD))
    tiles = PolyCollection(list(polygons[even]), facecolor="#77777718")
    tiles.set(edgecolor=PALE, linewidth=thin)
    ax.add_collection(tiles, autolim=False)
    for outcome, color in ODD.items():
        odd = placement.outcome == outcome
        if odd.any():
            name = several(odd, "tile", outcome)
            tiles = PolyCollection(polygons[odd], facecolor=color + "55", label=name)
            tiles.set(edgecolor=color, linewidth=2 * thin)
            ax.add_collection(tiles, autolim=False)


def _draw_links(ax: Axes, report: PlacementReport, corners: Floats) -> None:
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.collections import LineCollection  # noqa: PLC0415
    from matplotlib.colors import ListedColormap  # noqa: PLC0415

    placed = report.placement
    believed = placed.inlier
    wide = float(np.clip(0.05 * _tile_points(ax, corners), 0.8, 5))
    ends = corners.mean(axis=1)[placed.links][:, :, ::-1]
    # Room for labels in the centres.
    middle = ends.mean(axis=1, keepdims=True)
    lines = middle + 0.64 * (ends - middle)
    links = LineCollection(lines[believed], array=report.seams.sigma[believed])
    # Good links are pale, but still seen.
    shades = ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256)))
    links.set(cmap=shades, clim=(0, WORST_SIGMA), linewidth=wide, zorder=2)
    links.set_capstyle("round")
    ax.add_collection(links, autolim=False)
    draw_colorbar(ax, links, "residual of links (sigma)")
    failed = failed_links(placed)
    dropped = ~believed & ~failed
    if failed.any():
        name = several(failed, "link", "without a match")
        away = LineCollection(lines[failed], label=name, colors=PALE)
        away.set(linewidth=0.4 * wide, linestyle=":", zorder=2)
        ax.add_collection(away, autolim=False)
    if dropped.any():
        name = several(dropped, "link", "dropped")
        wrong = LineCollection(lines[dropped], colors=WRONG)
        wrong.set(linewidth=0.4 * wide, linestyle="--", zorder=3)
        ax.add_collection(wrong, autolim=False)
        ax.plot(
            *middle[dropped, 0].T,
            linestyle="none",
            marker="x",
            color=WRONG,
            markersize=2.2 * wide,
            markeredgewidth=0.6 * wide,
            label=name,
            zorder=4,
        )


def _draw_arrows(ax: Axes, report: PlacementReport, corners: Floats) -> None:
    """Draw residuals of believed links at the middle of each, and a scale."""
    placed, size = report.placement, _tile_size(corners)
    if report.seam_rms < ROUNDING or _tile_points(ax, corners) < ROOM:
        return
    believed = placed.inlier
    middle = corners.mean(axis=1)[placed.links[believed]].mean(axis=1)
    enlarged = ARROW * size / report.seam_rms
    arrows = ax.quiver(
        *middle.T[::-1],
        *placed.residuals[believed].T[::-1],
        angles="xy",
        scale_units="xy",
        scale=1 / enlarged,
        units="xy",
        width=0.02 * size,
        color=INK,
        zorder=5,
    )
    span = float(np.ptp(ax.get_xlim()))
    shown = float(f"{max(report.seam_rms, 0.06 * span / enlarged):.0e}")
    left = 1 - shown * enlarged / span
    # As high as the title is.
    above = 1 + 11 / (shown_scale(ax) * float(np.ptp(ax.get_ylim())))
    ax.quiverkey(arrows, left, above, shown, f"residual {shown:g} px", labelpos="W")


def _draw_labels(ax: Axes, placement: Placement, corners: Floats) -> None:
    if len(corners) > LABELLED:
        return
    names = [str(label) for label in placement.labels]
    room = _tile_points(ax, corners) / max(map(len, names))
    font = float(np.clip(0.4 * room, 5, 11))
    for name, centre in zip(names, corners.mean(axis=1)[:, ::-1], strict=True):
        ax.text(
            centre[0],
            centre[1],
            name,
            fontsize=font,
            color=INK,
            ha="center",
            va="center",
            zorder=6,
        )

"""Draw points on an image, and what is left at each.

Matplotlib is imported when something is drawn, so that the package stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats
from .._shared.checks import as_points, as_positions, as_valid
from .._shared.statistics import ROUNDING
from ._images import (
    draw_shades,
    gray_image,
    image_axes,
    mark_uncovered,
    stretched,
)
from ._style import (
    INK,
    LABELLED,
    MARK,
    WRONG,
    draw_legend,
    round_below,
    several,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_residuals", "enlargement", "points"]


# A typical residual is drawn as long as this part of the way between points,
ARROW = 0.6
# or of the image where there are few.
LONGEST = 0.08


@checked
def points(
    image: ArrayLike,
    points: ArrayLike,
    *,
    residuals: ArrayLike | None = None,
    inlier: ArrayLike | None = None,
    numbers: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw points on an image, with what is left at each, and which are refused.

    Arrows start at the points and are enlarged so that they show; the legend
    says how much, the title how long those of believed points are. Refused points are crossed out and have no arrows, which would
    be longer than the image.

    Parameters
    ----------
    image : array_like of shape (rows, cols)
        The image that the points are in, of any real dtype, drawn in gray from
        percentile 0.5 to 99.5 of its values.
    points : array_like of shape (n, 2)
        Points (row, col), in pixels.
    residuals : array_like of shape (n, 2), optional
        What is left at each point (row, col), in pixels.
    inlier : array_like of bool, shape (n,), optional
        True for points that are believed; by default all of them.
    numbers : bool, optional
        Write the number of each point beside it, from 0; by default up to 100
        points are numbered.
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
    >>> corners = [(10, 10), (10, 90), (90, 10), (90, 90)]
    >>> left = [(0, 0.3), (0.3, 0), (0, -0.3), (25, 0)]
    >>> ax = spt.plot.points(
    ...     np.eye(100), corners, residuals=left, inlier=[True, True, True, False]
    ... )
    >>> ax.get_title(loc="left")
    '4 points, residuals 0.300 px rms'
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['residuals, enlarged 20 times', '1 point refused']
    """
    shown = gray_image(image, None, "image")
    places = as_points(points, "points", ndim=2)
    count = len(places)
    left = np.zeros((count, 2))
    if residuals is not None:
        left = as_positions(residuals, "residuals", count=count, ndim=2)
    flags = None if inlier is None else np.asarray(inlier)
    checked = as_valid(flags, (count,), "inlier")
    believed = np.ones(count, np.bool_) if checked is None else checked

    ax = image_axes(ax, shown.shape)
    draw_shades(ax, stretched(shown, np.isfinite(shown)))
    title = f"{count} point{'s' if count != 1 else ''}"
    if residuals is not None and believed.any():
        rms = float(np.sqrt((left[believed] ** 2).sum(axis=1).mean()))
        title += f", residuals {rms:.3f} px rms"
        if rms > ROUNDING:
            enlarged = enlargement(rms, shown.shape, count)
            draw_residuals(ax, places[believed], left[believed], enlarged)
    _draw_points(ax, places, believed)
    if numbers or (numbers is None and count <= LABELLED):
        _draw_numbers(ax, places, believed)
    ax.set_title(title, loc="left")
    draw_legend(ax, mark_uncovered(ax, np.isfinite(shown)))
    return ax


def enlargement(rms: float, shape: tuple[int, ...], count: int) -> float:
    """Return a round number of times that residuals are enlarged, or 1."""
    tall, wide = shape
    between = float(np.sqrt(tall * wide / count))
    wanted = min(ARROW * between, LONGEST * float(np.hypot(tall, wide)))
    return max(1.0, round_below(wanted / rms))


def draw_residuals(ax: Axes, places: Floats, left: Floats, enlarged: float) -> None:
    times = f"enlarged {enlarged:,.0f} times" if enlarged > 1 else "as long as they are"
    ax.quiver(
        *places.T[::-1],
        *enlarged * left.T[::-1],
        angles="xy",
        scale_units="xy",
        scale=1,
        # As thick on small images as on large ones.
        units="inches",
        width=0.03,
        headwidth=4,
        headlength=4,
        headaxislength=3.5,
        minlength=0,
        color=MARK,
        edgecolor=INK,
        linewidth=0.6,
        zorder=3,
    )
    # An arrow for the legend.
    ax.plot(
        [],
        [],
        linestyle="none",
        marker=r"$\longrightarrow$",
        markersize=18,
        markerfacecolor=MARK,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        label=f"residuals, {times}",
    )


def _draw_points(ax: Axes, places: Floats, believed: Flags) -> None:
    """Draw discs, and crosses through those that are refused."""
    ax.plot(
        *places[believed].T[::-1],
        linestyle="none",
        marker="o",
        markersize=4,
        markerfacecolor=MARK,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        zorder=4,
    )
    if believed.all():
        return
    # A pale rim shows crosses on dark images too.
    for color, wide, name in (
        ("white", 3.5, None),
        (WRONG, 2, several(~believed, "point", "refused")),
    ):
        ax.plot(
            *places[~believed].T[::-1],
            linestyle="none",
            marker="x",
            markersize=8,
            color=color,
            markeredgewidth=wide,
            label=name,
            zorder=4,
        )


def _draw_numbers(ax: Axes, places: Floats, believed: Flags) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    for number, (row, col) in enumerate(places):
        ax.annotate(
            str(number),
            (col, row),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color="white",
            path_effects=[
                withStroke(linewidth=2, foreground=INK if believed[number] else WRONG)
            ],
            annotation_clip=True,
            zorder=5,
        )

"""Draw what a displacement field does to a square grid.

Matplotlib is imported when something is drawn, so that the package stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arguments import checked
from .._shared.arrays import Flags, Floats, as_array
from .._shared.checks import as_affine, check_positive
from .._transforms.fields.displacement import as_displacement, jacobian_determinant
from ._images import image_axes, mark_uncovered
from ._style import INK, WRONG, draw_colorbar, draw_legend, round_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["warped_grid"]


# Squares along the longer side of an image, at least.
SQUARES = 12
# Colours reach as far as this percentile of the changes of area,
MOST = 99
# but from 1 %, and to no area at all, where folds begin.
LEAST_CHANGE = 0.01
# Pixels that lines are drawn through, along the longer side: paper shows no more.
FINEST = 1000


@checked
def warped_grid(
    displacement: ArrayLike,
    *,
    matrix: ArrayLike | None = None,
    spacing: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw where the reference shows a square grid of the moving image.

    The colour is the determinant of the Jacobian: green where the moving image
    is squeezed, purple where it is stretched. Where the field folds, and shows
    the same thing more than once, it is marked in vermilion.

    Parameters
    ----------
    displacement : array_like of shape (rows, cols, 2)
        Displacement field, in pixels, as `warp_image` takes it:
        ``reference_point = apply_transform(matrix, moving_point) + displacement``.
        The axes are hatched where it is not finite.
    matrix : array_like of shape (3, 3), optional
        Affine map from the moving image to the reference that the field adds
        to; by default the identity. The colour is of the field alone.
    spacing : float, optional
        Side of a square of the grid, in pixels of the moving image; by default a
        round number, for a dozen squares or more along the longer side.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down.

    See Also
    --------
    spectral_tools.jacobian_determinant : The numbers.

    Examples
    --------
    Rows of the moving image that come to lie 10 percent further apart:

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> field = np.zeros((40, 30, 2))
    >>> field[..., 0] = np.arange(40)[:, np.newaxis] / 11
    >>> ax = spt.plot.warped_grid(field, spacing=10)
    >>> lines = ax.collections[0].get_paths()
    >>> [float(line.vertices[0, 1].round(1)) for line in lines]
    [11.0, 22.0, 33.0]
    >>> ax.get_title(loc="left")
    'Squares of 10 px, areas 0.909 to 0.909'
    """
    field = as_array(displacement)
    if field.ndim != 3:
        message = f"`displacement` must have shape (rows, cols, 2); got {field.shape}."
        raise ValueError(message)
    field = as_displacement(field)
    way = np.eye(3) if matrix is None else as_affine(matrix, "matrix", ndim=2)
    shown = _moving_points(field, way)
    if spacing is None:
        scale = float(np.sqrt(np.abs(np.linalg.det(way))))
        spacing = round_below(max(field.shape) / scale / SQUARES)
    check_positive(spacing, "spacing")
    area = jacobian_determinant(field)
    folds = area <= 0

    ax = image_axes(ax, area.shape)
    _draw_area(ax, area, folds)
    for axis in range(2):
        _draw_lines(ax, shown[..., axis], spacing)
    low, high = np.nanmin(area), np.nanmax(area)
    ax.set_title(
        f"Squares of {spacing:g} px, areas {low:.3g} to {high:.3g}", loc="left"
    )
    return ax


def _moving_points(field: Floats, way: Floats) -> Floats:
    """Return which point of the moving image each pixel of the reference shows."""
    pixels = np.moveaxis(np.indices(field.shape[:2], dtype=np.float64), 0, -1)
    inward = np.linalg.inv(way)
    return (pixels - field) @ inward[:2, :2].T + inward[:2, 2]


def _draw_area(ax: Axes, area: Floats, folds: Flags) -> None:
    """Draw determinants in colour, and marks where there are folds."""
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.colors import ListedColormap  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    even = np.ma.masked_where(folds | np.isnan(area), area)
    change = np.abs(even.compressed() - 1)
    most = np.percentile(change, MOST) if change.size else 0
    limit = float(np.clip(most, LEAST_CHANGE, 1))
    # Lines are seen on all of these.
    shades = ListedColormap(colormaps["PRGn"](np.linspace(0.12, 0.88, 256)))
    drawn = ax.imshow(even, cmap=shades, vmin=1 - limit, vmax=1 + limit, origin="upper")
    draw_colorbar(ax, drawn, "area in the moving image (px²)")
    extra = mark_uncovered(ax, np.isfinite(area))
    if folds.any():
        marks = np.ma.masked_where(~folds, folds)
        ax.imshow(marks, cmap=ListedColormap([WRONG]), origin="upper")
        told = f"folds, {100 * folds.mean():.2g} % of the pixels"
        extra = [Patch(color=WRONG, label=told), *extra]
    draw_legend(ax, extra)


def _draw_lines(ax: Axes, where: Floats, spacing: float) -> None:
    """Draw lines where a coordinate of the moving image is a multiple of a number."""
    # Only lines next to pixels: a field that jumps may leave out a million.
    with np.errstate(over="ignore"):
        steps = np.unique(np.ceil(where[np.isfinite(where)] / spacing)) * spacing
    levels = steps[(steps > np.nanmin(where)) & (steps < np.nanmax(where))]
    if levels.size:
        step = -(-max(where.shape) // FINEST)
        rows, cols = (np.arange(0, side, step) for side in where.shape)
        shown = np.ma.masked_invalid(where[::step, ::step])
        lines = ax.contour(cols, rows, shown, levels=levels, colors=INK, linewidths=0.8)
        # Lines of negative coordinates are no less solid.
        lines.set_linestyle("solid")

"""Draw two images of one scene so that eyes can compare them.

Matplotlib is imported when something is drawn, so that the package stays light.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.arrays import Image
from .._shared.checks import (
    as_image,
    as_valid,
    check_count,
    check_fraction,
    check_same_shape,
)
from ._style import INK, PALE, draw_legend, framed

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = [
    "checkerboard",
    "draw_shades",
    "gray_image",
    "image_axes",
    "mark_uncovered",
    "overlay",
    "stretched",
    "swipe",
]


# Vermilion and blue that make white together and are equally bright, so that
# neither image outshines the other; all eyes can tell them apart.
REFERENCE, MOVING = "#FF6600", "#0099FF"
# How much of the green light is the moving image's.
GREEN = 0.6
# Gray values reach from the one to the other percentile, so that a few hot or
# dead pixels do not leave all others in the dark.
STRETCH = (0.5, 99.5)
# Images with no more than this part in common are stretched each by its own values.
ENOUGH = 0.02
# Squares along the longer side of a checkerboard.
SQUARES = 8


@checked
def overlay(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw two images over each other, in orange and in blue.

    Where they agree, the colours add up to gray. Where only one image covers the
    scene, it is seen in its own colour; where none does, the axes are hatched.
    Each image is stretched on its own, from percentile 0.5 to 99.5 of what both
    cover, so that dtype and contrast may differ.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols)
        Images on the same pixels, of any real dtype, as `warp_image` brings them.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down.

    See Also
    --------
    checkerboard : Shows whether edges go on from one image to the other.

    Examples
    --------
    A bright line that the moving image shows one pixel to the right:

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> reference = np.zeros((1, 4), np.uint8)
    >>> reference[0, 1] = 200
    >>> moving = np.roll(reference / 1000, 1, axis=1)
    >>> ax = spt.plot.overlay(reference, moving)

    It is orange where it was, blue where it is; red, green, blue, opacity:

    >>> ax.images[0].get_array().data
    array([[[  0,   0,   0, 255],
            [255, 102,   0, 255],
            [  0, 153, 255, 255],
            [  0,   0,   0, 255]]], dtype=uint8)
    """
    first, second = _gray_pair(reference, moving, reference_valid, moving_valid)
    covered = np.isfinite(first) | np.isfinite(second)
    red, blue = np.nan_to_num(first), np.nan_to_num(second)
    # In this order equal images are gray to the last bit.
    lights = np.stack([red, red + GREEN * (blue - red), blue, covered], axis=-1)
    ax = image_axes(ax, covered.shape)
    ax.imshow(np.rint(255 * lights).astype(np.uint8), origin="upper")
    ax.set_title("Overlay", loc="left")
    colours = {"reference": REFERENCE, "moving": MOVING, "both alike": "#999999"}
    _draw_names(ax, colours, covered)
    return ax


@checked
def checkerboard(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    size: int | None = None,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw squares of two images in turn: edges that break betray an error.

    The upper left square is of the reference. The frame tells whose squares it
    passes: orange are those of the reference, blue those of the moving image.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols)
        Images on the same pixels, of any real dtype. Each is stretched on its
        own, from percentile 0.5 to 99.5 of what both cover.
    size : int, optional
        Side of a square, in pixels; by default an eighth of the longer side.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count; the
        squares of an image are hatched where it does not count.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, row axis down.

    Examples
    --------
    A ramp, and the same ramp upside down with another contrast:

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> ramp = np.arange(4)[:, np.newaxis] * np.ones(6)
    >>> ax = spt.plot.checkerboard(ramp, 9 - 2 * ramp, size=2)
    >>> ax.images[0].get_array().data.round(1)
    array([[0. , 0. , 1. , 1. , 0. , 0. ],
           [0.3, 0.3, 0.7, 0.7, 0.3, 0.3],
           [0.3, 0.3, 0.7, 0.7, 0.3, 0.3],
           [0. , 0. , 1. , 1. , 0. , 0. ]])
    """
    first, second = _gray_pair(reference, moving, reference_valid, moving_valid)
    if size is None:
        size = -(-max(first.shape) // SQUARES)
    check_count(size, "size")
    rows, cols = (np.arange(side) // size for side in first.shape)
    odd = (rows[:, np.newaxis] + cols) % 2 == 1
    shown = np.where(odd, second, first)
    ax = image_axes(ax, shown.shape)
    draw_shades(ax, shown)
    _draw_frame(ax, odd, size)
    ax.set_title(f"Squares of {size} px", loc="left")
    colours = {"reference": REFERENCE, "moving": MOVING}
    _draw_names(ax, colours, np.isfinite(shown))
    return ax


@checked
def swipe(
    reference: ArrayLike,
    moving: ArrayLike,
    *,
    position: float = 0.5,
    axis: int = 1,
    reference_valid: ArrayLike | None = None,
    moving_valid: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the reference up to a line, and the moving image beyond it.

    Parameters
    ----------
    reference, moving : array_like of shape (rows, cols)
        Images on the same pixels, of any real dtype. Each is stretched on its
        own, from percentile 0.5 to 99.5 of what both cover.
    position : float, optional
        Where the line is, as a fraction of the image from 0 to 1. It is drawn
        at the nearest border between two pixels.
    axis : {1, 0}, optional
        Axis that the line crosses: the reference is on the left of it, or above.
    reference_valid, moving_valid : array_like of bool, optional
        True where a pixel counts. Pixels that are not finite never count; an
        image is hatched on its side of the line where it does not count.
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
    >>> ramp = np.arange(5) * np.ones((2, 1))
    >>> ax = spt.plot.swipe(ramp, ramp[:, ::-1], position=0.4)
    >>> ax.images[0].get_array().data.round(2)
    array([[0.  , 0.25, 0.5 , 0.25, 0.  ],
           [0.  , 0.25, 0.5 , 0.25, 0.  ]])
    >>> ax.get_title(loc="left")
    'Swipe at col 2'
    """
    first, second = _gray_pair(reference, moving, reference_valid, moving_valid)
    check_fraction(position, "position")
    if axis not in (0, 1):
        message = f"`axis` must be 0 or 1; got {axis!r}."
        raise ValueError(message)
    edge = round(position * first.shape[axis])
    beyond = np.indices(first.shape, sparse=True)[axis] >= edge
    shown = np.where(beyond, second, first)
    ax = image_axes(ax, shown.shape)
    draw_shades(ax, shown)
    _draw_border(ax, edge, axis)
    along = ("row", "col")[axis]
    ax.set_title(f"Swipe at {along} {edge}", loc="left")
    draw_legend(ax, mark_uncovered(ax, np.isfinite(shown)))
    return ax


def gray_image(image: ArrayLike, valid: ArrayLike | None, name: str) -> Image:
    """Return an image in the plane as floats of its own, NaN where not valid."""
    array = as_image(image, name)
    if array.ndim != 2:
        message = f"`{name}` must have shape (rows, cols); got {array.shape}."
        raise ValueError(message)
    # Names of masks follow those of images: `reference_valid`.
    counted = as_valid(valid, array.shape, f"{name}_valid")
    known = np.isfinite(array)
    return np.where(known if counted is None else known & counted, array, np.nan)


def draw_shades(ax: Axes, shades: Image) -> None:
    """Draw gray values from 0 to 1, and nothing where they are NaN."""
    shown = np.ma.masked_invalid(shades)
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, origin="upper")


def stretched(image: Image, judged: NDArray[np.bool_]) -> Image:
    """Return an image with gray values from 0 to 1, as its judged pixels tell."""
    values = image[judged]
    if not values.size:
        return image
    low, high = np.percentile(values, STRETCH)
    if low == high:
        # Most pixels are alike: the few others are what there is to see.
        low, high = values.min(), values.max()
    if low == high:
        return np.where(np.isnan(image), image, image.dtype.type(0.5))
    return np.clip((image - low) / (high - low), 0, 1)


def mark_uncovered(ax: Axes, covered: NDArray[np.bool_]) -> list[Artist]:
    """Hatch axes where nothing is drawn; return what the legend has to say on it."""
    from matplotlib.patches import Patch  # noqa: PLC0415

    if covered.all():
        return []
    # White alone would look like a bright image.
    style: dict[str, Any] = {"facecolor": "white", "edgecolor": PALE, "hatch": "////"}
    ax.patch.set(linewidth=0, **style)
    return [Patch(linewidth=0, label="not covered", **style)]


def _gray_pair(
    reference: ArrayLike,
    moving: ArrayLike,
    reference_valid: ArrayLike | None,
    moving_valid: ArrayLike | None,
) -> tuple[Image, Image]:
    """Return both images with gray values from 0 to 1, NaN where not valid."""
    first = gray_image(reference, reference_valid, "reference")
    second = gray_image(moving, moving_valid, "moving")
    check_same_shape(reference=first, moving=second)
    known = np.isfinite(first), np.isfinite(second)
    both = known[0] & known[1]
    if both.sum() <= ENOUGH * min(known[0].sum(), known[1].sum()):
        return stretched(first, known[0]), stretched(second, known[1])
    return stretched(first, both), stretched(second, both)


def image_axes(ax: Axes | None, shape: Iterable[int]) -> Axes:
    """Set up axes that show all pixels of an image."""
    return framed(ax, np.array((-0.5, -0.5)), np.array(tuple(shape)) - 0.5)


def _draw_names(ax: Axes, colours: dict[str, str], covered: NDArray[np.bool_]) -> None:
    """Draw a legend of colours, with how images are stretched above it."""
    from matplotlib.patches import Patch  # noqa: PLC0415

    names = [Patch(color=color, label=name) for name, color in colours.items()]
    handles = [*names, *mark_uncovered(ax, covered)]
    low, high = STRETCH
    told = f"each from {low:g} to {high:g} % of its values"
    draw_legend(ax, handles, columns=len(handles), title=told)


def _draw_frame(ax: Axes, odd: NDArray[np.bool_], size: int) -> None:
    """Draw a frame that has the colour of the image whose squares it passes."""
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    lines, moving = [], []
    for axis, side in enumerate(odd.shape):
        starts = np.arange(0, side, size)
        for edge in (0, -1):
            across = (0, odd.shape[1 - axis])[edge] - 0.5
            for start in starts:
                ends = np.full((2, 2), across)
                ends[:, 1 - axis] = start - 0.5, min(start + size, side) - 0.5
                lines.append(ends)
                moving.append(np.take(odd, edge, axis=1 - axis)[start])
    frame = LineCollection(lines, colors=np.where(moving, MOVING, REFERENCE).tolist())
    frame.set(linewidth=4, clip_on=False, zorder=3, capstyle="butt")
    ax.add_collection(frame, autolim=False)


def _draw_border(ax: Axes, edge: int, axis: int) -> None:
    """Draw the line of a swipe, and whose image is on which side."""
    place = edge - 0.5
    bounds = ax.get_xlim() if axis else ax.get_ylim()
    draw = (ax.axhline, ax.axvline)[axis]
    # With a pale rim, the line is seen on dark images too.
    draw(place, color="white", linewidth=4, zorder=3)
    draw(place, color=INK, linewidth=2, zorder=3)
    for name, side in (("reference", -1), ("moving", 1)):
        if place == (min if side < 0 else max)(bounds):
            # Nothing of this image is shown.
            continue
        away = 6 * side
        ax.annotate(
            name,
            (place, 0.97) if axis else (0.03, place),
            xycoords=ax.get_xaxis_transform() if axis else ax.get_yaxis_transform(),
            xytext=(away, 0) if axis else (0, -away),
            textcoords="offset points",
            ha=("right" if side < 0 else "left") if axis else "left",
            va="top" if axis or side > 0 else "bottom",
            color="white",
            bbox={"facecolor": INK, "edgecolor": "none", "boxstyle": "round,pad=0.25"},
            fontsize="small",
            zorder=4,
        )

"""What all figures share: colours, axes with rows downwards, legends.

Matplotlib is imported when something is drawn, so that the package stays light.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._shared.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.image import AxesImage

__all__ = [
    "INK",
    "LABELLED",
    "MARK",
    "PALE",
    "WRONG",
    "draw_colorbar",
    "draw_legend",
    "framed",
    "round_below",
    "several",
    "shown_scale",
]


# Colours that all eyes can tell apart (Okabe and Ito).
INK = "#333333"
PALE = "#BBBBBB"
WRONG = "#D55E00"
MARK = "#F0E442"
# Tiles and points that still have room for their labels.
LABELLED = 100


def framed(ax: "Axes | None", low: Floats, high: Floats) -> "Axes":
    """Set up axes from one corner to another, rows down and columns to the right."""
    if ax is None:
        from matplotlib import pyplot as plt  # noqa: PLC0415

        tall, wide = high - low
        size = 7.5, float(np.clip(5.5 * tall / wide + 1.5, 3, 8))
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    ax.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]))
    ax.set(aspect="equal", xlabel="col", ylabel="row")
    return ax


def shown_scale(ax: "Axes") -> float:
    """Return how large a pixel is on paper, in points, about."""
    box = ax.get_window_extent()
    wide, tall = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    return 72 / ax.figure.dpi * float(min(box.width / wide, box.height / tall))


def draw_colorbar(ax: "Axes", drawn: "Collection | AxesImage", label: str) -> None:
    """Draw a colour bar as tall as the axes."""
    beside = ax.inset_axes((1.03, 0, 0.03, 1))
    given = np.ma.asarray(drawn.get_array(), dtype=np.float64)
    values: Floats = np.ma.masked_invalid(given).compressed()
    drawn.autoscale_None()
    low, high = drawn.get_clim() if values.size else (0.0, 0.0)
    beyond = bool((values < low).any()), bool((values > high).any())
    names = {(True, False): "min", (False, True): "max", (True, True): "both"}
    bar = ax.figure.colorbar(
        drawn, cax=beside, label=label, extend=names.get(beyond, "neither")
    )
    bar.outline.set_visible(False)


def draw_legend(
    ax: "Axes",
    extra: Sequence["Artist"] = (),
    *,
    columns: int = 2,
    title: str | None = None,
) -> None:
    """Draw a legend below the axes, if there is something to explain."""
    handles = [*ax.get_legend_handles_labels()[0], *extra]
    if handles:
        ax.legend(
            handles=handles,
            title=title,
            title_fontsize="small",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            # Room for the numbers and the name of the axis, in letters.
            borderaxespad=5,
            ncols=columns,
            frameon=False,
            fontsize="small",
        )


def several(flags: NDArray[np.bool_], noun: str, what: str) -> str:
    """Say how many there are."""
    count = int(flags.sum())
    return f"{count} {noun}{'s' if count != 1 else ''} {what}"


def round_below(value: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above."""
    power = 10.0 ** np.floor(np.log10(value))
    # A power of ten may come out a rounding error too large.
    steps = [step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)]
    return float(max(steps, default=1) * power)

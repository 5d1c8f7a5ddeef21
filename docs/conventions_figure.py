"""Draw the picture of the conventions page, for light and for dark pages."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

__all__ = ["draw"]

THEMES = {
    "light": {"ink": "#222832", "faint": "#b5bcc6", "fill": "#dfe5ec"},
    "dark": {"ink": "#ced6dd", "faint": "#5b6572", "fill": "#2c3542"},
}
REFERENCE, MOVING = "#1b9e77", "#e0762f"


def draw(folder: Path) -> None:
    """Write ``conventions-light.svg`` and ``conventions-dark.svg`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme, colours in THEMES.items():
        style = {
            "svg.fonttype": "path",
            "svg.hashsalt": "conventions",
            "font.size": 11,
            "text.color": colours["ink"],
        }
        with plt.rc_context(style):
            fig, axes = plt.subplots(1, 3, figsize=(11, 3.75), layout="constrained")
            draw_pixels(axes[0], **colours)
            draw_shift(axes[1], **colours)
            draw_mosaic(axes[2], **colours)
            name = folder / f"conventions-{theme}.svg"
            fig.savefig(name, transparent=True, metadata={"Date": None})
            plt.close(fig)


def prepare(ax: Axes, title: str, rows: float, cols: float) -> None:
    """Make room for an image, with rows running downwards."""
    ax.set(xlim=(-2.2, cols - 0.2), ylim=(rows + 0.1, -2.2), aspect="equal")
    ax.set_title(title, fontsize=12.5, fontweight="bold")
    ax.axis("off")


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: object
) -> None:
    """Draw an arrow between two points (row, col)."""
    options = {"arrowstyle": "-|>", "lw": 2, "mutation_scale": 15, **style}
    options.update(shrinkA=0, shrinkB=0)
    ax.annotate("", end[::-1], start[::-1], arrowprops=options)


def draw_axes(ax: Axes, ink: str, length: float = 3.0) -> None:
    """Draw the two axes from the upper left corner of the image."""
    arrow(ax, (-1.1, -0.5), (-1.1, length - 0.5), color=ink, lw=1.4)
    arrow(ax, (-0.5, -1.1), (length - 0.5, -1.1), color=ink, lw=1.4)
    ax.text(length / 2 - 0.5, -1.3, "col", ha="center", va="bottom", color=ink)
    ax.text(
        -1.3, length / 2 - 0.5, "row", ha="right", va="center", rotation=90, color=ink
    )


def draw_pixels(ax: Axes, ink: str, faint: str, fill: str) -> None:
    """Pixels as squares, with their centres at integers."""
    prepare(ax, "Pixel centres are at integers", 5.0, 6)
    ax.add_patch(Rectangle((1.5, 2.5), 1, 1, fc=fill, ec="none"))
    for row in range(4):
        for col in range(5):
            ax.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, fc="none", ec=faint))
            ax.plot(col, row, ".", color=ink, ms=4)
    draw_axes(ax, ink)
    label = {"ha": "center", "va": "center", "fontsize": 9.5, "color": ink}
    ax.text(0, 0.27, "(0, 0)", **label)
    ax.text(2, 3.27, "(3, 2)", **label)
    ax.plot([-0.5, 4.5], [-0.5, 3.5], "o", mfc="none", mec=REFERENCE, mew=1.8, ms=8)
    ax.text(-0.4, -0.72, "(-0.5, -0.5)", color=REFERENCE, fontsize=9.5)
    ax.text(4.6, 3.95, "(3.5, 4.5)", color=REFERENCE, fontsize=9.5, ha="right")
    ax.text(2, 4.75, "an image of shape (4, 5)", ha="center", color=ink)


def draw_shift(ax: Axes, ink: str, faint: str, fill: str) -> None:
    """One thing in two images, and the arrow between its two places."""
    prepare(ax, "From moving to reference", 7.3, 8.5)
    ax.add_patch(Rectangle((-0.5, -0.5), 8, 6, fc=fill, ec=faint))
    draw_axes(ax, ink)
    ax.add_patch(Circle((6, 1), 0.55, fc=REFERENCE, ec="none"))
    ax.add_patch(Circle((2, 4), 0.55, fc="none", ec=MOVING, lw=2.2, ls="--"))
    arrow(ax, (4, 2), (1.12, 5.84), color=ink)
    ax.text(5.4, 0.35, "in reference (1, 6)", color=REFERENCE, ha="center", va="bottom")
    ax.text(2, 4.68, "in moving (4, 2)", color=MOVING, ha="center", va="top")
    ax.text(3.6, 2.1, "shift\n(-3, +4)", color=ink, ha="right", va="bottom")
    ax.text(
        3.5, 6.3, "reference_point =\nmoving_point + shift", ha="center", va="center"
    )


def draw_mosaic(ax: Axes, ink: str, faint: str, fill: str) -> None:
    """Two tiles in a mosaic, and where a pixel of one of them comes to lie."""
    prepare(ax, "From tile to mosaic", 7.3, 8.5)
    ax.add_patch(Rectangle((-0.5, -0.5), 8, 6, fc="none", ec=faint, ls=":"))
    ax.add_patch(Rectangle((-0.5, -0.5), 4.4, 3.6, fc=fill, ec=REFERENCE, lw=2))
    ax.add_patch(Rectangle((2.7, 1.1), 4.4, 3.6, fc=fill, ec=MOVING, lw=2, alpha=0.8))
    draw_axes(ax, ink)
    arrow(ax, (-0.5, -0.5), (1.1, 2.7), color=MOVING)
    ax.plot(2.7, 1.1, "o", color=MOVING, ms=6)
    ax.text(1.5, 2.4, "tile 0", color=REFERENCE, ha="center", va="center")
    ax.text(5.3, 3.2, "tile 1", color=MOVING, ha="center", va="center")
    ax.text(4.1, 0.85, "matrix[:2, 2]", color=MOVING, va="bottom", fontsize=10)
    ax.text(
        3.5, 6.3, "mosaic_point =\nmatrix @ (row, col, 1)", ha="center", va="center"
    )

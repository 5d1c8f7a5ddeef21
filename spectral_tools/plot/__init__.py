"""Draw results: every function takes axes and returns them.

Matplotlib is imported when something is drawn, so that the package stays light.

_grid : a square grid, bent by a field (public)
_images : two images on each other: overlay, checkerboard, swipe (public)
_placement : tiles and their uncertainty (public)
_points : points and their residuals (public)
_style : colours, axes with rows downwards, legends
"""

from ._grid import warped_grid
from ._images import checkerboard, overlay, swipe
from ._placement import placement, uncertainty
from ._points import points

__all__ = [
    "checkerboard",
    "overlay",
    "placement",
    "points",
    "swipe",
    "uncertainty",
    "warped_grid",
]

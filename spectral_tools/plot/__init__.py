"""Draw results: every function takes axes and returns them.

Matplotlib is imported when something is drawn, so that the package stays light.
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

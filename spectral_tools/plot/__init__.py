"""Draw results: every function takes axes and returns them.

Matplotlib is imported when something is drawn, so that the package stays light.

_grid : draw what a displacement field does to a square grid
_images : draw two images of one scene so that eyes can compare them
_placement : draw where tiles lie, how sure that is, and what is left between them
_points : draw points on an image, and what is left at each
_style : what all figures share: colours, axes with rows downwards, legends
"""

from .._shared.results import show_as_written
from ._grid import warped_grid
from ._images import checkerboard, overlay, swipe
from ._placement import placement, seams, uncertainty
from ._points import points

__all__ = [
    "checkerboard",
    "overlay",
    "placement",
    "points",
    "seams",
    "swipe",
    "uncertainty",
    "warped_grid",
]

show_as_written(*map(globals().get, __all__))

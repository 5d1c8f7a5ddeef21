"""Fit images together: match, place and render, with plain functions on plain arrays.

Images are arrays of shape (rows, cols) or (planes, rows, cols). Points are
arrays of shape (n, ndim) in the order of the axes; the centre of the first
pixel is at the origin. Every shift and every matrix leads from the moving image
to the reference image, and from a tile to the mosaic.
"""

from typing import Any

import lazy_loader

from ._shared.results import show_as_written

__version__ = "0.1.0"

# What is offered, and where it lies, stands in `__init__.pyi`. A module is imported when
# the first of its names is asked for: who matches does not wait for what renders.
_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    offered = globals()[name] = _imported(name)
    show_as_written(offered)
    return offered

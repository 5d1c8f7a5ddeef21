"""The one door to scipy.ndimage: filters and splines, imported at the first use."""

from collections.abc import Callable
from typing import Any

import scipy

__all__ = [
    "affine_transform",
    "binary_dilation",
    "distance_transform_edt",
    "gaussian_filter",
    "label",
    "map_coordinates",
    "shift_image",
    "spline_filter",
]


def _at_first_use(name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        return getattr(scipy.ndimage, name)(*arguments, **options)

    return function


affine_transform = _at_first_use("affine_transform")
binary_dilation = _at_first_use("binary_dilation")
distance_transform_edt = _at_first_use("distance_transform_edt")
gaussian_filter = _at_first_use("gaussian_filter")
label = _at_first_use("label")
map_coordinates = _at_first_use("map_coordinates")
shift_image = _at_first_use("shift")
spline_filter = _at_first_use("spline_filter")

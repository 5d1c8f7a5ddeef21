"""The one door to scipy.ndimage: filters and splines."""

from scipy.ndimage import (
    affine_transform,
    distance_transform_edt,
    gaussian_filter,
    map_coordinates,
    spline_filter,
)
from scipy.ndimage import shift as shift_image

__all__ = [
    "affine_transform",
    "distance_transform_edt",
    "gaussian_filter",
    "map_coordinates",
    "shift_image",
    "spline_filter",
]

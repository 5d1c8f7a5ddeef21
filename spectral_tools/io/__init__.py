"""Files of other programs: what is written here opens there.

_files : files that may be broken, and files that take their place when complete
_image_source : images of any size and layout, read part by part
_itk_text : transforms of ITK as text (public)
_itk_transforms : transforms of ITK as matrices, points and grids, and back (public)
_mosaic_stos : mosaics and slice-to-slice transforms of ir-tools and Nornir (public)
_ome_tiff : pyramids as OME-TIFF (public)
_ome_zarr : pyramids as OME-Zarr (public)
_results : results in a file, and the same ones back (public)
_text_words : text files word by word, and where they are wrong
_tile_lists : tile configurations of Fiji, and folders of tiles (public)
_usid_read : read Universal Spectroscopy and Imaging Data (public)
_usid_write : write Universal Spectroscopy and Imaging Data (public)
"""

from ._itk_text import ITKTransform, format_itk, parse_itk
from ._itk_transforms import (
    ControlPoints,
    grid_to_itk,
    itk_matrix,
    itk_points,
    map_itk,
    matrix_to_itk,
    points_to_itk,
)
from ._mosaic_stos import (
    MosaicFile,
    Stos,
    read_mosaic,
    read_stos,
    write_mosaic,
    write_stos,
)
from ._ome_tiff import write_ome_tiff
from ._ome_zarr import write_ome_zarr
from ._results import load_result, save_result
from ._tile_lists import (
    TileConfiguration,
    TileFile,
    TileFolder,
    read_tile_configuration,
    tile_folder,
    write_tile_configuration,
)
from ._usid_read import USIDData, USIDEntry, read_usid, read_usid_tree
from ._usid_write import write_usid

__all__ = [
    "ControlPoints",
    "ITKTransform",
    "MosaicFile",
    "Stos",
    "TileConfiguration",
    "TileFile",
    "TileFolder",
    "USIDData",
    "USIDEntry",
    "format_itk",
    "grid_to_itk",
    "itk_matrix",
    "itk_points",
    "load_result",
    "map_itk",
    "matrix_to_itk",
    "parse_itk",
    "points_to_itk",
    "read_mosaic",
    "read_stos",
    "read_tile_configuration",
    "read_usid",
    "read_usid_tree",
    "save_result",
    "tile_folder",
    "write_mosaic",
    "write_ome_tiff",
    "write_ome_zarr",
    "write_stos",
    "write_tile_configuration",
    "write_usid",
]

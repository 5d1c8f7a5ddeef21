"""Files of other programs: what is written here opens there.

_acquisitions : what a microscope says of its images: how large, which channels, where
_files : write files and folders beside their place, and move them when complete
_image_source : images of any size and layout, read part by part as files want them
_mosaic_stos : mosaics of tiles with their transforms, as a text file
_ome_read : read OME-TIFF and OME-Zarr: images, their pixels, and where the stage was
_ome_tiff : write tiled pyramids as OME-TIFF
_ome_zarr : write pyramids as OME-Zarr
_results : keep results in a file, and get the same ones back
_stored_images : images in files that are read when they are sliced, part by part
_tile_lists : where tiles lie, as Fiji writes it into a text file
_usid_read : spectra on grids of positions, as Universal Spectroscopy and Imaging Data
_usid_write : write Universal Spectroscopy and Imaging Data
"""

from .._shared.results import show_as_written
from ._acquisitions import Acquisition, read_bioio
from ._itk.itk_text import ITKTransform, format_itk, parse_itk
from ._itk.itk_transforms import (
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
from ._ome_read import read_ome_tiff, read_ome_zarr
from ._ome_tiff import write_ome_tiff
from ._ome_zarr import write_ome_zarr
from ._results import load_result, save_result
from ._stored_images import StoredImage, TileFile
from ._tile_lists import (
    TileConfiguration,
    TileFolder,
    read_tile_configuration,
    tile_folder,
    write_tile_configuration,
)
from ._usid_read import USIDData, USIDEntry, read_usid, read_usid_tree
from ._usid_write import write_usid

__all__ = [
    "Acquisition",
    "ControlPoints",
    "ITKTransform",
    "MosaicFile",
    "StoredImage",
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
    "read_bioio",
    "read_mosaic",
    "read_ome_tiff",
    "read_ome_zarr",
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

show_as_written(*map(globals().get, __all__))

"""Files of other programs: what is written here opens there (floor 4)."""

from ._ome_tiff import write_ome_tiff
from ._ome_zarr import write_ome_zarr

__all__ = ["write_ome_tiff", "write_ome_zarr"]

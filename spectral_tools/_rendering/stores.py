"""Arrays in files: room for them on the disk, and what they hold back."""

# Strategy: a mapped file and HDF5 do not survive a full disk. Writing to the first is a
# signal that ends the interpreter; the second loses track of what it has written, so
# that later blocks are lost, and ends the interpreter when it is closed. What they need
# is therefore reserved before, where the system can, and a full disk is an `OSError`.
import errno
import math
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

__all__ = ["Room", "flush"]

# What a system says if a disk is full, or nothing more may be written to it.
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def flush(store: Any) -> None:
    """Make a store write what it still holds back.

    A dataset of HDF5 does not say in the file how long it has become: the file does.
    """
    file = getattr(store, "file", store)
    if hasattr(file, "flush"):
        file.flush()


class Room:
    """Room on the disk for what is written into stores.

    Parameters
    ----------
    stores : list of array_like or None
        Mapped files and datasets of HDF5, which need it, or others.
    """

    def __init__(self, stores: list[Any]) -> None:
        # Files of HDF5 that lie on a disk as one, and how far each is reserved.
        self._stores = [s if _is_dataset(s) else None for s in stores]
        self._files = {s.file.id.get_vfd_handle(): s.file for s in self._stores if s}
        self._ends = dict.fromkeys(self._files, 0)
        for store in stores:
            _reserve_mapped(store)

    def reserve(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Reserve what parts of the stores of some shapes need at most."""
        need = sum(map(_growth, self._stores, shapes)) if self._files else 0
        for handle, file in self._files.items():
            size = file.id.get_filesize()
            start = min(self._ends[handle], size)
            _allocate(handle, start, size + need - start)
            self._ends[handle] = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was not needed, after all has been written."""
        for handle, file in self._files.items():
            file.flush()
            os.ftruncate(handle, file.id.get_filesize())


def _is_dataset(store: Any) -> bool:
    file = getattr(store, "file", None)
    return getattr(file, "driver", None) == "sec2" and hasattr(os, "posix_fallocate")


def _growth(store: Any, shape: tuple[int, ...]) -> int:
    """Return how many bytes a file may grow when a part of a dataset is written."""
    if store is None or (store.chunks is None and store.id.get_storage_size()):
        return 0
    sides = store.chunks or store.shape
    counts = [
        min(length // side + 2, -(-whole // side))
        for length, side, whole in zip(shape, sides, store.shape, strict=True)
    ]
    # As much again for the tables, which list all chunks, and for filters.
    chunks = math.prod(
        -(-n // side) for n, side in zip(store.shape, sides, strict=True)
    )
    size = math.prod(counts) * math.prod(sides) * store.dtype.itemsize
    return 2 * size + 64 * chunks + (1 << 16)


def _reserve_mapped(store: Any) -> None:
    """Reserve all of the file that an array is mapped to, which may have holes."""
    while isinstance(store, np.ndarray) and not isinstance(store, np.memmap):
        store = store.base
    if isinstance(store, np.memmap) and store.filename and store.mode != "c":
        with open(store.filename, "r+b") as file:  # noqa: PTH123
            _allocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _allocate(handle: int, start: int, length: int) -> None:
    try:
        if hasattr(os, "posix_fallocate") and length > 0:
            os.posix_fallocate(handle, start, length)
    except OSError as error:
        if error.errno in FULL:
            raise

"""Write files and folders beside their place, and move them when complete."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from math import prod
from pathlib import Path
from struct import unpack_from
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "as_target",
    "attribute",
    "beside",
    "datasets",
    "find",
    "opened",
    "put_in_place",
    "read",
    "told",
    "written",
]


# What h5py raises when a file is not what it should be.
TROUBLES = (
    AttributeError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)
# No compressed array is this many times as large as its part of the file: deflate
# reaches 1032.
SMALLEST_SHARE = 2000
# Bytes of arrays that may come from nothing, such as a value that fills them.
FREE = 1 << 20
# Objects in a file, and groups inside of each other, beyond which nobody looks.
MOST_OBJECTS = 100_000
# Values of an attribute: texts of an array may all be the same long one.
MOST_VALUES = 64
# Texts of any length lie in heaps: a mark, the size of all, and objects one after the
# other, each with a head of its number and its size. Number 0 is what is free.
MARK = re.compile(b"GCOL")
HEAD = 16
# Bytes of a heap: the library makes none smaller than this.
SMALLEST_HEAP = 4096
# It numbers objects with 16 bits.
MOST_IN_HEAP = 1 << 16
# It reads a head with at most so many bytes around it.
LARGEST_READ = 1 << 21


def as_target(path: str | os.PathLike[str], name: str) -> Path:
    """Return `path` if its folder exists and can be written to."""
    target = Path(path)
    folder = target.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        message = f"`{name}` must be in a folder that can be written to; got {target}."
        raise ValueError(message)
    return target


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Make a folder on the same disk as the target, and remove it in the end."""
    folder = target.absolute().parent
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=folder) as made:
        yield Path(made)


def put_in_place(made: Path, target: Path, room: Path) -> None:
    """Move what was made to its place; what was there goes into `room`.

    A file is replaced in one step. A folder cannot be: for an instant there is none,
    and the old one comes back if the new one cannot take its place.
    """
    if not target.is_dir():
        made.replace(target)
        return
    old = target.rename(room / "replaced")
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise


class WatchedFile(BufferedReader):
    """A file whose heaps are looked at before the library has them.

    It goes from object to object by their sizes, and round in circles, or out of its
    memory, if these are wrong: no error of Python could end that.
    """

    def readinto(self, buffer: Any) -> int:
        """Read, and raise if there is a broken heap in what was read."""
        start = self.tell()
        count = super().readinto(buffer)
        if count <= LARGEST_READ:
            # A mark may lie across two parts that are read.
            first = max(start - len(MARK.pattern), 0)
            data = self._part(first, start - first + count + len(MARK.pattern))
            places = [first + found.start() for found in MARK.finditer(data)]
            most = 2 + len(data) // SMALLEST_HEAP
            if len(places) > most:
                message = f"Bytes must have {most} heaps; got {len(places)}."
                raise ValueError(message)
            for place in places:
                self._check_heap(place)
        return count

    def _part(self, start: int, count: int) -> bytes:
        self.seek(start)
        return self.read(count)

    def _check_heap(self, start: int) -> None:
        size = int.from_bytes(self._part(start, HEAD)[8:], "little")
        heap = b""
        if HEAD < size <= os.fstat(self.fileno()).st_size:
            # Of any other size, the library does not look into it.
            heap = self._part(start, size)
        place, objects = HEAD, 0
        while place + HEAD <= len(heap):
            number, held = unpack_from("<H6xQ", heap, place)
            step = HEAD + -(-held // 8) * 8 if number else held
            place, objects = place + step, objects + 1
            bad = step < HEAD or place > len(heap)
            if bad or objects > MOST_IN_HEAP:
                message = f"The heap at byte {start} must be whole; got {held} bytes."
                raise ValueError(message)


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turn what h5py raises into an error that says where."""
    try:
        yield
    except TROUBLES as error:
        told_by = " ".join(str(error).split())[:200].rstrip(".")
        message = f"{where} must be readable HDF5; got {told_by or type(error)}."
        raise ValueError(message) from error


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file to read; a missing one is an `OSError`, as it is everywhere."""
    source = Path(path)
    with WatchedFile(FileIO(source)) as watched:
        with told(str(source)):
            file = h5py.File(watched, "r")
        try:
            with told(str(source)):
                sizes = file.id.get_create_plist().get_sizes()
            if sizes != (8, 8):
                message = f"{source} must have addresses of 8 bytes; got others."
                raise ValueError(message)
            yield file
        finally:
            with told(str(source)):
                file.close()


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file to write, which takes its place when it is complete."""
    target = as_target(path, "path")
    if target.is_dir():
        message = f"`path` must be a file; got the folder {target}."
        raise ValueError(message)
    with beside(target) as room:
        made = room / "new.h5"
        with h5py.File(made, "w") as file:
            yield file
        put_in_place(made, target, room)


def find(group: Any, path: str, where: str) -> Any:
    """Return what lies at a path, by links that stay in the file."""
    found = group
    for part in path.strip("/").split("/"):
        with told(where):
            link = found.get(part, getlink=True) if part not in ("", ".") else None
            found = found[part] if isinstance(link, h5py.HardLink) else None
        if found is None:
            message = f"{where} must lead to something in the file; got {path!r}."
            raise ValueError(message)
    return found


def datasets(file: Any, where: str) -> list[Any]:
    """Return all datasets of a file, each once, in the order of their paths."""
    found: dict[str, Any] = {}
    seen = set()
    waiting = [file]
    while waiting:
        group = waiting.pop()
        with told(where):
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    continue
                item = group[name]
                place = h5py.h5o.get_info(item.id).addr
                if place in seen:
                    continue
                seen.add(place)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    found[item.name] = item
                if len(seen) > MOST_OBJECTS:
                    break
        if len(seen) > MOST_OBJECTS:
            message = f"{where} must hold at most {MOST_OBJECTS} objects; got more."
            raise ValueError(message)
    return [found[name] for name in sorted(found)]


def attribute(item: Any, name: str, where: str) -> Any:
    """Return an attribute, with bytes as text; None if there is none of use."""
    with told(f"{where}, attribute {name}"):
        if name not in item.attrs:
            return None
        found = item.attrs.get_id(name)
        # Of the kinds that are not their own bytes, the library survives these two.
        text = h5py.check_string_dtype(found.dtype)
        link = h5py.check_ref_dtype(found.dtype) is h5py.Reference
        odd = found.dtype.hasobject and not text and not link
        if odd or prod(found.shape or ()) > MOST_VALUES:
            return None
        value = item.attrs[name]
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
            listed = [v.decode() if isinstance(v, bytes) else v for v in value.flat]
            return np.array(listed, object).reshape(value.shape)
        return value


def read(dataset: Any, where: str) -> NDArray[Any]:
    """Read a dataset that lies in the file itself, and is not larger than it could be."""
    with told(where):
        outside = dataset.is_virtual or bool(dataset.external)
        # A chunk is unpacked as a whole, however little of it is wanted.
        count = max(prod(dataset.shape or (0,)), prod(dataset.chunks or (0,)))
        size = count * max(dataset.dtype.itemsize, 1)
        stored = dataset.id.get_storage_size()
        # What has a length of its own may be many times the same long one.
        bad = dataset.shape is None or dataset.dtype.hasobject
    if outside or bad:
        message = f"{where} must hold numbers of its own; got none, or other files."
        raise ValueError(message)
    if size > FREE + SMALLEST_SHARE * stored:
        message = f"{where} must hold its {size} bytes; got {stored} in the file."
        raise ValueError(message)
    with told(where):
        return np.asarray(dataset[()])

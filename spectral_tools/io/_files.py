"""Write files and folders beside their place, and move them when complete."""

# Strategy: what is written grows in a hidden folder beside its target, which is locked
# while its writer lives and named after the target: what a killed writer left there is
# found by the next one. It takes the place of the target in one step.
import ctypes
import importlib
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from hashlib import blake2b
from io import BufferedReader, FileIO
from math import prod
from pathlib import Path
from secrets import token_hex
from stat import S_IMODE
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
    "read",
    "told",
    "write_text",
    "written",
]


# Windows has no such locks: what a killed writer left stays there.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None
# What was in the place of a folder, until it is removed.
OLD = "replaced"
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
# An attribute of texts has their type, that of a character, their shape, and for each
# text its length and where it lies, of `HEAD` bytes.
TEXTS = re.compile(rb"[\x19\x29\x39\x49\x59][\x01\x11\x21][\x00\x01]\0\x10\0\0\0")
# Attributes that are many lie in a heap of another kind, which no one compresses.
PACKED = re.compile(rb"FRHP\0..(?!\0\0)", re.DOTALL)
# Bytes of a heap: the library makes none smaller than this.
SMALLEST_HEAP = 4096
# It numbers objects with 16 bits.
MOST_IN_HEAP = 1 << 16
# Bytes of what stands before texts: their type, and a shape of 32 axes with its limits.
LARGEST_SHAPE = 1 << 10
# It reads a head with at most so many bytes around it.
LARGEST_READ = 1 << 21


def as_target(path: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """Return where a path leads, past links, if something can be written there.

    What a writer that was killed left of the same target is removed.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir() or not _may(target.parent, os.W_OK | os.X_OK):
        message = f"`path` must be in a folder that can be written to; got {target}."
        raise ValueError(message)
    for room in target.parent.glob(_prefix(target) + "*"):
        _sweep(room, target)
    if not folder and target.is_dir():
        message = f"`path` must be a file; got the folder {target}."
        raise ValueError(message)
    if target.exists() and not target.is_dir() and not target.is_file():
        message = f"`path` must be a file or a folder; got the device {target}."
        raise ValueError(message)
    if target.exists() and not _may(target, os.W_OK):
        message = f"`path` must be writeable; got the read-only {target}."
        raise ValueError(message)
    return target


def _may(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _prefix(target: Path) -> str:
    """Return how rooms of a target begin, whose own name may be as long as can be."""
    name = blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    return f".spectral_tools-{name}-"


@contextmanager
def beside(target: Path, name: str) -> Iterator[Path]:
    """Yield a place on the same disk; what is made there takes that of the target."""
    # Its name is known before it is there: an interrupt does not leave it.
    room, lock = target.with_name(_prefix(target) + token_hex(8)), None
    try:
        lock = _make_locked(room)
        yield room / name
        _put_in_place(room / name, target, room)
    finally:
        _remove(room, target)
        if lock is not None:
            os.close(lock)


def _make_locked(room: Path) -> int | None:
    """Make a room, and lock it before another writer takes it for one that was left."""
    room.mkdir(mode=0o700)
    if fcntl is None:
        return None
    with suppress(FileNotFoundError):
        lock = os.open(room, os.O_RDONLY)
        # Some disks of other computers know no locks: nobody sweeps there.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if room.is_dir():
            return lock
        os.close(lock)
    return _make_locked(room)


def _sweep(room: Path, target: Path) -> None:
    """Remove a room whose writer is no longer there."""
    if fcntl is None:
        return
    with suppress(OSError):
        lock = os.open(room, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(room, target)
        finally:
            os.close(lock)


def _remove(room: Path, target: Path) -> None:
    """Remove a room, but for an old folder that nothing took the place of."""
    old = room / OLD
    try:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(room, ignore_errors=True)
    except KeyboardInterrupt:
        _remove(room, target)
        raise


def _put_in_place(made: Path, target: Path, room: Path) -> None:
    """Move what was made to its place, with the mode and the owner of what was there.

    This is one step: there is always the old one or the new one. Where a system cannot
    exchange folders, there is none for an instant, and the old one waits in the room.
    """
    if made.is_file():
        # Before the old one is given up, the new one is on the disk.
        with made.open("r+b") as file:
            os.fsync(file.fileno())
    if target.exists():
        old = target.stat()
        for owner in ((old.st_uid, -1), (-1, old.st_gid)):
            with suppress(AttributeError, OSError):
                os.chown(made, *owner)
        made.chmod(S_IMODE(old.st_mode))
    if not target.is_dir():
        made.replace(target)
    elif not _exchange(made, target):
        target.rename(room / OLD)
        made.rename(target)


def _exchange(made: Path, target: Path) -> bool:
    """Exchange two folders in one step, where the system can; tell whether it did."""
    here, both = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(made), os.fsencode(target)
    return bool(rename(here, names[0], here, names[1], both) == 0)


class PatientFile(FileIO):
    """A file that keeps what goes wrong until the library has closed it.

    It would not survive an error: what it could not write, it writes again when it
    is closed, fails again, and ends the interpreter.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.trouble: Future[None] = Future()

    def write(self, data: Any) -> int:
        """Write all of it, or nothing more after something went wrong."""
        with self._kept():
            rest = memoryview(data).cast("B")
            while rest and not self.trouble.done():
                rest = rest[super().write(rest) :]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file longer or shorter."""
        with self._kept():
            super().truncate(size)
        return self.tell() if size is None else size

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyboardInterrupt) as error:
            if not self.trouble.done():
                self.trouble.set_exception(error)


class WatchedFile(BufferedReader):
    """A file whose heaps are looked at before the library has them.

    It goes from object to object by their sizes, and round in circles, or out of its
    memory, if these are wrong: no error of Python could end that. It makes room for a
    text of any length before it looks for it.
    """

    def readinto(self, buffer: Any) -> int:
        """Read, and raise if there is a broken heap in what was read."""
        start = self.tell()
        count = super().readinto(buffer)
        if count <= LARGEST_READ:
            # A mark may lie across two parts that are read.
            first = max(start - HEAD, 0)
            data = self._part(first, start - first + count + HEAD)
            places = [first + found.start() for found in MARK.finditer(data)]
            most = 2 + len(data) // SMALLEST_HEAP
            if len(places) > most:
                message = f"Bytes must have {most} heaps; got {len(places)}."
                raise ValueError(message)
            for place in places:
                self._check_heap(place)
            for found in TEXTS.finditer(data):
                self._check_texts(first + found.start())
            if PACKED.search(data):
                message = "Attributes must lie in plain heaps; got compressed ones."
                raise ValueError(message)
        return count

    def _part(self, start: int, count: int) -> bytes:
        self.seek(start)
        return self.read(count)

    def _check_texts(self, start: int) -> None:
        """Raise if the texts of an attribute are longer than the file."""
        data = self._part(start, LARGEST_SHAPE + HEAD * MOST_VALUES)
        # Characters are numbers or strings, of 12 or 8 bytes; older files fill up to 8.
        known = {0: 20, 3: 16}.get(data[8] % 16) if len(data) > 8 else None
        place = known or 0
        place += 4 * (place == 20 and data[20:24] == bytes(4))
        version, rank, flags = data[place : place + 3].ljust(3, b"\0")
        if known and version not in (1, 2, 3):
            # This is the type of something else.
            return
        place += 8 if version == 1 else 4
        sides = unpack_from(
            f"<{min(rank, 32)}Q", data.ljust(LARGEST_SHAPE, b"\0"), place
        )
        place += 8 * rank * (1 + flags % 2)
        size = os.fstat(self.fileno()).st_size
        lengths = [
            int.from_bytes(data[k : k + 4], "little")
            for k in range(place, len(data) - HEAD + 1, HEAD)[: prod(sides)]
        ]
        if not known or version == 3 or rank > 32 or max(lengths, default=0) > size:
            message = f"The texts at byte {start} must lie in the file; got {lengths}."
            raise ValueError(message)

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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file beside its place and move it there when it is complete."""
    with beside(as_target(path), "new") as made:
        made.write_bytes(text.encode())


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file of HDF5 to write, which takes its place when it is complete."""
    with beside(as_target(path), "new.h5") as made, PatientFile(made) as patient:
        try:
            with h5py.File(patient, "w") as file:
                yield file
        finally:
            if patient.trouble.done():
                patient.trouble.result()


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
        # Texts of a type that lies elsewhere are not looked at in time.
        odd = odd or found.get_type().committed()
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
        stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
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

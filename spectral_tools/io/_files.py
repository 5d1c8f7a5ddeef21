"""Write files and folders beside their place, and move them when complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["as_target", "beside", "put_in_place"]


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

"""Where tiles lie, as Fiji writes it into a text file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.checks import as_points
from .._shared.results import result
from ._files import write_text
from ._itk.text_words import Words, check_names, leads_outside, number_text
from ._stored_images import TileFile, tile_file

__all__ = [
    "TileConfiguration",
    "TileFolder",
    "read_tile_configuration",
    "tile_folder",
    "write_tile_configuration",
]


# Lines that say what follows, and where a tile is; comments may stand behind.
SETTING = re.compile(r"(dims?|multiseries)\s*=\s*([^\s#]+)\s*(?:#.*)?")
TILE = re.compile(r"([^;]*);([^;]*);\s*\(([^()]*)\)\s*(?:#.*)?")
# What a pattern may say, in the order of a key.
FIELDS = ("plane", "row", "col", "index")
# What stands for any letters, and for one.
WILD = {"*": ".*", "?": "."}
# A width, such as 03d: digits with zeros before them.
WIDTH = re.compile(r"(?:0?([1-9]))?d?")


@result
class TileConfiguration:
    """Tiles and their positions.

    Attributes
    ----------
    names : list of str
        File of each tile.
    positions : ndarray of shape (n, ndim)
        Position of the first pixel of each in the mosaic, as (row, col) or
        (plane, row, col).
    series : list of int
        Which image of its file each tile is; empty if files hold one image each.
    """

    names: list[str]
    positions: NDArray[np.float64]
    series: list[int]


@checked
def read_tile_configuration(
    path: str | os.PathLike[str], *, outside: bool = False, encoding: str = "UTF-8"
) -> TileConfiguration:
    """Read the positions of tiles from a file of Fiji's stitching.

    Parameters
    ----------
    path : path_like
        ``TileConfiguration.txt`` or ``TileConfiguration.registered.txt``, in 2 or 3
        dimensions, with one image in each file or several, which have numbers:
        ``img.czi; 3; (x, y)``. What follows a ``#`` behind a position is a comment.
    outside : bool, optional
        Let names lead out of the folder of the file. Nothing is opened here, but
        whoever opens a file that somebody else has named should know where it is.
    encoding : str, optional
        How letters are stored, such as "latin-1" or "gbk" where names of an older system
        have letters beyond ASCII.

    Returns
    -------
    TileConfiguration
        Names and positions in the order of the file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import spectral_tools as spt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "TileConfiguration.txt"
    ...     with path.open("w") as file:
    ...         for line in ("dim = 2", "a.tif; ; (0, 0)", "b.tif; ; (921.5, -3)"):
    ...             print(line, file=file)
    ...     found = spt.io.read_tile_configuration(path)
    >>> found.names, found.positions
    (['a.tif', 'b.tif'], array([[  0. ,   0. ], [ -3. , 921.5]]))
    """
    words = Words.of_file(path, encoding)
    ndim, several = 0, False
    names: list[str] = []
    positions: list[list[float]] = []
    numbers: list[int | None] = []
    while not words.at_end():
        line = words.line("a tile")
        if line.startswith("#"):
            continue
        setting = SETTING.fullmatch(line)
        if setting:
            if names or (ndim and setting[1] != "multiseries"):
                words.fail("come before the first tile, and once", repr(line))
            if setting[1] == "multiseries":
                several = setting[2] == "true"
                continue
            ndim = words.as_count(setting[2], "the number of dimensions")
            if ndim not in (2, 3):
                words.fail("hold 2 or 3 as the number of dimensions", f"{ndim}")
            continue
        name, number, position = _tile(words, line, ndim)
        words.check_name(name, outside=outside)
        names.append(name)
        positions.append(position)
        told = several or (number.isascii() and number.isdigit())
        what = "the number of the image"
        numbers.append(words.as_count(number, what) if told else None)
    if not names:
        words.fail("hold at least one tile", "none")
    # A file that is named twice holds several, whether that is said or not.
    several = several or len(set(names)) < len(names)
    series = [number for number in numbers if number is not None]
    if not several or len(series) < len(names):
        series = []
    return TileConfiguration(names=names, positions=np.array(positions), series=series)


@checked
def write_tile_configuration(
    path: str | os.PathLike[str],
    names: Sequence[str],
    positions: ArrayLike,
    *,
    series: Sequence[int] | None = None,
) -> None:
    """Write the positions of tiles for Fiji's stitching.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        Where to write, in the folder of the tiles.
    names : sequence of str
        File of each tile.
    positions : array_like of shape (n, ndim)
        Position of the first pixel of each in the mosaic, as (row, col) or
        (plane, row, col): the last column of translations,
        ``placement.matrices[:, :-1, -1]``.
    series : sequence of int, optional
        Which image of its file each tile is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import spectral_tools as spt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "TileConfiguration.txt"
    ...     spt.io.write_tile_configuration(path, ["a.tif"], [(2, 921.5)])
    ...     print(path.read_text())
    # Define the number of dimensions we are working on
    dim = 2
    <BLANKLINE>
    # Define the image coordinates
    a.tif; ; (921.5, 2.0)
    """
    points = as_points(positions, "positions")
    listed = list(names)
    check_names(listed, "names")
    if any(";" in name or name.startswith("#") for name in listed):
        message = f"`names` must be without semicolons and leading #; got {listed}."
        raise ValueError(message)
    numbers = [""] * len(listed) if series is None else [str(int(n)) for n in series]
    if not len(listed) == len(points) == len(numbers) > 0:
        message = (
            "`names`, `positions` and `series` must be equally many, and at least one; "
            f"got {len(listed)}, {len(points)} and {len(numbers)}."
        )
        raise ValueError(message)
    if any(number.startswith("-") for number in numbers):
        message = f"`series` must be at least 0; got {numbers}."
        raise ValueError(message)
    lines = [
        "# Define the number of dimensions we are working on",
        f"dim = {points.shape[1]}",
        *(["multiseries = true"] if series is not None else []),
        "",
        "# Define the image coordinates",
    ]
    for name, number, point in zip(listed, numbers, points[:, ::-1], strict=True):
        numbers_text = ", ".join(map(number_text, point))
        lines.append(f"{name}; {number}; ({numbers_text})")
    write_text(path, "\n".join([*lines, ""]))


def _tile(words: Words, line: str, ndim: int) -> tuple[str, str, list[float]]:
    """Return the name, the number and the position that a line tells."""
    if not ndim:
        words.fail("follow a line such as 'dim = 2'", repr(line))
    found = TILE.fullmatch(line)
    if found is None:
        words.fail("be like 'name; ; (x, y)'", repr(line))
    name, number, inside = (part.strip() for part in found.groups())
    coordinates = [part.strip() for part in inside.split(",")]
    if len(coordinates) != ndim:
        words.fail(f"hold {ndim} coordinates", f"'({inside})'")
    position = [words.as_number(part, "a coordinate") for part in coordinates[::-1]]
    return name, number, position


@result
class TileFolder:
    """The tiles of a folder, sorted by their keys.

    Attributes
    ----------
    keys : list of int or tuple of int
        Grid key of each tile: (row, col), (plane, row, col), or a number.
    paths : list of Path
        File of each.
    tiles : list of TileFile
        Images with a shape and a dtype, which are read when they are sliced.
    """

    keys: list[Any]
    paths: list[Path]
    tiles: list[TileFile]


@checked
def tile_folder(folder: str | os.PathLike[str], pattern: str) -> TileFolder:
    """Find the tiles of a folder whose names tell where each belongs.

    Parameters
    ----------
    folder : path_like
        Folder of TIFF, PNG, JPEG, BMP and the like.
    pattern : str
        Their names, with ``{row}`` and ``{col}``, also ``{plane}``, or ``{index}``
        alone where they stand, such as ``"tile_{row}_{col}.tif"``. A width is kept
        to: ``{row:03d}`` is a number of 3 digits or more. ``*`` and ``?`` stand for any
        letters and for one, and ``/`` leads into folders: ``"*/image_{row}_{col}.tif"``.
        Other files are left out.

    Returns
    -------
    TileFolder
        Keys, paths and images, sorted by key. Only the heads of files are read, no
        file stays open, and images may go to other processes.

    See Also
    --------
    grid_positions : Where the tiles of a full grid should be, in any order.

    Notes
    -----
    Without any number, as in ``"tile_*/channel0.tif"``, tiles are counted from 0 in the
    order of their names, in which 10 comes after 9. That, and names that count tiles with
    ``{index}``, do not tell how the stage went: the
    `order` of `grid_links`, `grid_positions` and `place_tiles` does.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> from skimage.io import imsave
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for row, col in ((0, 1), (0, 0)):
    ...         image = np.full((4, 6), 10 * row + col, np.uint8)
    ...         path = Path(folder) / f"tile_{row:02d}_{col}.png"
    ...         imsave(path, image, check_contrast=False)
    ...     found = spt.io.tile_folder(folder, "tile_{row:02d}_{col}.png")
    ...     print(found.keys, found.tiles[1].shape, found.tiles[1][:2, :3].tolist())
    [(0, 0), (0, 1)] (4, 6) [[1, 1, 1], [1, 1, 1]]
    """
    expressions, fields = _expressions(pattern)
    place = Path(folder)
    found: dict[Any, Path] = {}
    for path, numbers in sorted(_fitting(place, expressions), key=_in_order):
        key: Any = tuple(int(numbers[field]) for field in fields)
        if len(fields) < 2:
            key = key[0] if fields else len(found)
        if key in found:
            names = (each.relative_to(place).as_posix() for each in (found[key], path))
            message = (
                f"`pattern` must give every file of {place} a key of its own; got "
                f"{key} for {' and '.join(names)}."
            )
            raise ValueError(message)
        found[key] = path
    if not found:
        message = (
            f"`pattern` must fit files of {place}; got {pattern!r}, which fits none."
        )
        raise ValueError(message)
    keys = sorted(found)
    paths = [found[key] for key in keys]
    return TileFolder(keys=keys, paths=paths, tiles=[tile_file(path) for path in paths])


def _fitting(
    folder: Path, expressions: list[re.Pattern[str]]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the paths that fit, part by part, and the numbers in them."""
    for path in folder.iterdir():
        match = expressions[0].fullmatch(path.name)
        if match and len(expressions) == 1:
            yield path, match.groupdict()
        elif match and path.is_dir():
            for inner, numbers in _fitting(path, expressions[1:]):
                yield inner, match.groupdict() | numbers


def _in_order(found: tuple[Path, dict[str, str]]) -> tuple[list[Any], str]:
    """Return what sorts names with their numbers by value."""
    name = found[0].as_posix()
    split = re.split(r"([0-9]+)", name)
    # Digits are at every second place: no number is compared with text.
    return [int(part) if n % 2 else part for n, part in enumerate(split)], name


def _expressions(pattern: str) -> tuple[list[re.Pattern[str]], list[str]]:
    """Return what names of folders and files must look like, and the fields of keys."""
    parts = pattern.split("/")
    if leads_outside(pattern) or "\\" in pattern or not all(parts):
        message = f"`pattern` must name files inside of the folder; got {pattern!r}."
        raise ValueError(message)
    seen: list[str] = []
    expressions = [re.compile(_expression(part, pattern, seen)) for part in parts]
    fields = [field for field in FIELDS if field in seen]
    known = [["row", "col"], ["plane", "row", "col"], ["index"]]
    if fields not in known and (fields or not re.search(r"[*?]", pattern)):
        message = f"`pattern` must have row and col, or index alone; got {pattern!r}."
        raise ValueError(message)
    return expressions, fields


def _expression(part: str, pattern: str, seen: list[str]) -> str:
    """Return what one name of a pattern must look like, and add its fields."""
    # What is hidden is left out, as by a shell.
    text = r"(?!\.)" if part[0] in "*?" else ""
    try:
        parsed = list(Formatter().parse(part))
    except ValueError as error:
        message = (
            f"`pattern` must be a format such as 'a_{{row}}.tif'; got {pattern!r}."
        )
        raise ValueError(message) from error
    for literal, field, form, conversion in parsed:
        text += "".join(WILD.get(letter, re.escape(letter)) for letter in literal)
        if field is None:
            continue
        width = WIDTH.fullmatch(form or "")
        if field not in FIELDS or field in seen or width is None or conversion:
            message = (
                f"`pattern` must have each of {FIELDS} at most once, with a width such "
                f"as 03d or none; got {pattern!r}."
            )
            raise ValueError(message)
        seen.append(field)
        least = int(width[1] or 1)
        # Longer numbers have no zeros before them, if there is a width.
        longer = f"|[1-9][0-9]{{{least},8}}" if width[1] else "|[0-9]{2,9}"
        text += f"(?P<{field}>[0-9]{{{least}}}{longer})"
    return text

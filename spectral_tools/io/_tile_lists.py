"""Where tiles lie, as Fiji writes it into a text file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._shared.arguments import checked
from .._shared.checks import as_points
from .._shared.results import result
from ._files import write_text
from ._itk.text_words import Words, check_names, number_text
from ._stored_images import TileFile, tile_file

__all__ = [
    "TileConfiguration",
    "TileFolder",
    "read_tile_configuration",
    "tile_folder",
    "write_tile_configuration",
]


# What a pattern may say, in the order of a key.
FIELDS = ("plane", "row", "col", "index")
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
    path: str | os.PathLike[str], *, outside: bool = False
) -> TileConfiguration:
    """Read the positions of tiles from a file of Fiji's stitching.

    Parameters
    ----------
    path : path_like
        ``TileConfiguration.txt`` or ``TileConfiguration.registered.txt``, in 2 or 3
        dimensions, with one image in each file or several.
    outside : bool, optional
        Let names lead out of the folder of the file. Nothing is opened here, but
        whoever opens a file that somebody else has named should know where it is.

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
    words = Words.of_file(path)
    ndim, several = 0, False
    names: list[str] = []
    positions: list[list[float]] = []
    series: list[int] = []
    while not words.at_end():
        line = words.line("a tile")
        setting = re.fullmatch(r"(dim|multiseries)\s*=\s*(\S+)", line)
        if line.startswith("#"):
            continue
        if setting:
            if names or (ndim and setting[1] == "dim"):
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
        if several:
            series.append(words.as_count(number, "the number of the image"))
    if not names:
        words.fail("hold at least one tile", "none")
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
    parts = [part.strip() for part in line.split(";")]
    if not ndim:
        words.fail("follow a line such as 'dim = 2'", repr(line))
    if len(parts) != 3 or not re.fullmatch(r"\(.*\)", parts[2]):
        words.fail("be like 'name; ; (x, y)'", repr(line))
    coordinates = [part.strip() for part in parts[2][1:-1].split(",")]
    if len(coordinates) != ndim:
        words.fail(f"hold {ndim} coordinates", repr(parts[2]))
    position = [words.as_number(part, "a coordinate") for part in coordinates[::-1]]
    return parts[0], parts[1], position


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
        to: ``{row:03d}`` is a number of 3 digits or more. Other files are left out.

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
    Names that count tiles with ``{index}`` do not tell how the stage went: the
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
    expression, fields = _expression(pattern)
    place = Path(folder)
    found: dict[Any, Path] = {}
    for name in sorted(each.name for each in place.iterdir()):
        match = expression.fullmatch(name)
        if not match:
            continue
        numbers = tuple(int(match[field]) for field in fields)
        key = numbers if len(numbers) > 1 else numbers[0]
        if key in found:
            message = (
                f"`pattern` must give every file of {place} a key of its own; got "
                f"{key} for {found[key].name} and {name}."
            )
            raise ValueError(message)
        found[key] = place / name
    if not found:
        message = (
            f"`pattern` must fit files of {place}; got {pattern!r}, which fits none."
        )
        raise ValueError(message)
    keys = sorted(found)
    paths = [found[key] for key in keys]
    return TileFolder(keys=keys, paths=paths, tiles=[tile_file(path) for path in paths])


def _expression(pattern: str) -> tuple[re.Pattern[str], list[str]]:
    """Return what a name must look like, and its fields in the order of a key."""
    text, seen = "", []
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as error:
        message = (
            f"`pattern` must be a format such as 'a_{{row}}.tif'; got {pattern!r}."
        )
        raise ValueError(message) from error
    for literal, field, form, conversion in parsed:
        text += re.escape(literal)
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
    fields = [field for field in FIELDS if field in seen]
    if fields not in (["row", "col"], ["plane", "row", "col"], ["index"]):
        message = f"`pattern` must have row and col, or index alone; got {pattern!r}."
        raise ValueError(message)
    if "/" in pattern or "\\" in pattern:
        message = f"`pattern` must name files of one folder; got {pattern!r}."
        raise ValueError(message)
    return re.compile(text), fields

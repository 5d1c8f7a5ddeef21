"""Mosaics of tiles with their transforms, as a text file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ._itk_text import ITKTransform, format_itk, is_known, read_transform
from ._text_words import Words, check_names, number_text, write_text

__all__ = ["MosaicFile", "read_mosaic", "write_mosaic"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MosaicFile:
    """Tiles and where they lie in a mosaic.

    Attributes
    ----------
    names : list of str
        File of each tile.
    transforms : list of ITKTransform
        How each tile lies in the mosaic, for `itk_matrix`, `itk_points` or `map_itk`.
    pixel_spacing : float
        Distance of neighbouring pixels in units of the transforms.
    standard_mask : bool
        A corner that every tile of one certain camera lacks is not to be used.
    """

    names: list[str]
    transforms: list[ITKTransform]
    pixel_spacing: float
    standard_mask: bool


def read_mosaic(path: str | os.PathLike[str], *, outside: bool = False) -> MosaicFile:
    """Read a file of tiles with their transforms.

    Parameters
    ----------
    path : path_like
        File of ir-tools or nornir, by custom ending in ``.mosaic``, with names and
        transforms on lines of their own or, as in the oldest ones, on the same.
    outside : bool, optional
        Let names lead out of the folder of the file. Nothing is opened here, but
        whoever opens a file that somebody else has named should know where it is.

    Returns
    -------
    MosaicFile
        Names and transforms in the order of the file.

    See Also
    --------
    itk_matrix : The matrix of a transform, from tile to mosaic.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> matrices = [np.eye(3), spt.translation((0, 90.25))]
    >>> transforms = [spt.io.matrix_to_itk(m, kind="rigid") for m in matrices]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "1.mosaic"
    ...     spt.io.write_mosaic(path, ["a.png", "b.png"], transforms)
    ...     found = spt.io.read_mosaic(path)
    >>> found.names
    ['a.png', 'b.png']
    >>> spt.io.itk_matrix(found.transforms[1])[:2, 2]
    array([ 0.  , 90.25])
    """
    words = Words.of_file(path)
    head: dict[str, float] = {}
    names: list[str] = []
    transforms = []
    while not words.at_end():
        key = words.expect(
            "image:",
            "format_version_number:",
            "number_of_images:",
            "pixel_spacing:",
            "use_std_mask:",
        )
        if key != "image:":
            if key in head or names:
                words.fail("begin with one number of each kind", repr(key))
            whole = key != "pixel_spacing:"
            head[key] = (words.count if whole else words.number)(key[:-1])
            continue
        name, kind = _name_and_kind(words, head.get("format_version_number:", 0))
        words.check_name(name, outside=outside)
        names.append(name)
        transforms.append(read_transform(words, kind))
    spacing = head.get("pixel_spacing:", 1.0)
    if len(names) != head.get("number_of_images:", len(names)):
        wanted = f"hold {head['number_of_images:']:.0f} images"
        words.fail(wanted, f"{len(names)}")
    if not names or not spacing > 0:
        wanted = "hold at least one image, and a spacing greater than 0"
        words.fail(wanted, f"{len(names)} and {spacing}")
    return MosaicFile(
        names=names,
        transforms=transforms,
        pixel_spacing=spacing,
        # Files that are too old to say so used it.
        standard_mask=head.get("use_std_mask:", 1) != 0,
    )


def write_mosaic(
    path: str | os.PathLike[str],
    names: Sequence[str],
    transforms: Sequence[ITKTransform],
    *,
    pixel_spacing: float = 1.0,
    standard_mask: bool = False,
) -> None:
    """Write a file of tiles with their transforms.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        Where to write.
    names : sequence of str
        File of each tile.
    transforms : sequence of ITKTransform
        How each lies in the mosaic: `matrix_to_itk` of its matrix.
    pixel_spacing : float, optional
        Distance of neighbouring pixels in units of the transforms.
    standard_mask : bool, optional
        A corner that every tile of one certain camera lacks is not to be used.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "1.mosaic"
    ...     transform = spt.io.matrix_to_itk(np.eye(3), kind="rigid")
    ...     spt.io.write_mosaic(path, ["a.png"], [transform])
    ...     print(path.read_text())
    format_version_number: 1
    number_of_images: 1
    pixel_spacing: 1.0
    use_std_mask: 0
    image:
    a.png
    Rigid2DTransform_double_2_2 vp 3 0.0 0.0 0.0 fp 2 0.0 0.0
    """
    listed = list(names)
    check_names(listed, "names")
    if any(quoted(name) for name in listed):
        message = f"`names` must be without quotes around them; got {listed}."
        raise ValueError(message)
    if not listed or len(transforms) != len(listed):
        message = (
            "`transforms` must be one for each of at least one of `names`; "
            f"got {len(transforms)} for {len(listed)}."
        )
        raise ValueError(message)
    if not 0 < pixel_spacing < float("inf"):
        message = f"`pixel_spacing` must be greater than 0; got {pixel_spacing}."
        raise ValueError(message)
    lines = [
        "format_version_number: 1",
        f"number_of_images: {len(listed)}",
        f"pixel_spacing: {number_text(pixel_spacing)}",
        f"use_std_mask: {int(bool(standard_mask))}",
    ]
    for name, transform in zip(listed, transforms, strict=True):
        lines += ["image:", name, format_itk(transform)]
    write_text(path, "\n".join([*lines, ""]))


def _name_and_kind(words: Words, version: float) -> tuple[str, str | None]:
    """Return the file of a tile, and the kind of its transform if it was read too."""
    if version:
        name = words.line("the file of an image")
        # One release of the program that made the format put it in quotes.
        return (name[1:-1] if quoted(name) else name), None
    # The name ends where a known transform begins, so that it may have spaces.
    parts = [words.word("the file of an image")]
    while not is_known(kind := words.word("a transform")):
        parts.append(kind)
    return " ".join(parts), kind


def quoted(name: str) -> bool:
    """Tell whether a name has quotes around it."""
    return len(name) > 2 and name[0] == name[-1] == '"'

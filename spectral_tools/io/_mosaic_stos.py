"""Mosaics of tiles with their transforms, as a text file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arguments import checked
from .._shared.arrays import Floats
from .._shared.checks import as_finite
from .._shared.results import result
from ._files import write_text
from ._itk.itk_text import ITKTransform, format_itk, is_known, read_transform
from ._itk.text_words import Words, check_names, number_text

__all__ = [
    "MosaicFile",
    "Stos",
    "read_mosaic",
    "read_stos",
    "write_mosaic",
    "write_stos",
]


MASKS = "two_user_supplied_masks:"


@result
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


@checked
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
    >>> found
    MosaicFile(names=['a.png', 'b.png'], transforms=[ITKTransform, ITKTransform],
        pixel_spacing=1, standard_mask=False)
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


@checked
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


@result
class Stos:
    """How a moving image lies on a reference image.

    Attributes
    ----------
    reference_image, moving_image : str
        Files as they were written, which may lead anywhere: nothing is opened.
    transform : ITKTransform
        For `itk_matrix`, `itk_points` or `map_itk`.
    reference_shape, moving_shape : tuple of 2 int
        Shapes of the images.
    reference_spacing, moving_spacing : ndarray of shape (2,)
        Distance of neighbouring pixels along (row, col) in units of the transform.
    reference_flipped, moving_flipped : bool
        The image was turned upside down before.
    reference_mask, moving_mask : str
        Files of masks; empty if there are none.
    """

    reference_image: str
    moving_image: str
    transform: ITKTransform
    reference_shape: tuple[int, int]
    moving_shape: tuple[int, int]
    reference_spacing: Floats
    moving_spacing: Floats
    reference_flipped: bool
    moving_flipped: bool
    reference_mask: str
    moving_mask: str


@checked
def read_stos(path: str | os.PathLike[str]) -> Stos:
    """Read a slice-to-slice file.

    Parameters
    ----------
    path : path_like
        File of ir-tools or nornir, by custom ending in ``.stos``.

    Returns
    -------
    Stos
        What it says. The first image is the reference.

    See Also
    --------
    itk_matrix : The matrix of its transform, from moving to reference.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import spectral_tools as spt
    >>> transform = spt.io.matrix_to_itk(spt.translation((3, -2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "2-1.stos"
    ...     spt.io.write_stos(path, transform, ("1.png", "2.png"), [(60, 80)] * 2)
    ...     found = spt.io.read_stos(path)
    >>> found.moving_image, found.moving_shape
    ('2.png', (60, 80))
    >>> spt.io.itk_matrix(found.transform)[:2, 2]
    array([ 3., -2.])
    """
    words = Words.of_file(path)
    images = [words.next_line("the file of an image") for _ in range(2)]
    flipped = [words.expect("0", "1") == "1" for _ in range(2)]
    spacings, shapes = [], []
    for _ in range(2):
        spacing = [words.number("the spacing of pixels") for _ in range(2)]
        sides = [words.number("a side of an image") for _ in range(2)]
        if not all(0 < side < 1e9 and side.is_integer() for side in sides):
            words.fail("hold two sides of an image in pixels", f"{sides}")
        if min(spacing) <= 0:
            words.fail("hold spacings of pixels greater than 0", f"{spacing}")
        spacings.append(np.array(spacing[::-1]))
        shapes.append((int(sides[1]), int(sides[0])))
    transform = read_transform(words)
    masks = ["", ""]
    if not words.at_end():
        words.expect(MASKS)
        masks = [words.next_line("the file of a mask") for _ in range(2)]
    if not words.at_end():
        words.fail("end with two masks", "more")
    return Stos(
        reference_image=images[0],
        moving_image=images[1],
        transform=transform,
        reference_shape=shapes[0],
        moving_shape=shapes[1],
        reference_spacing=spacings[0],
        moving_spacing=spacings[1],
        reference_flipped=flipped[0],
        moving_flipped=flipped[1],
        reference_mask=masks[0],
        moving_mask=masks[1],
    )


@checked
def write_stos(
    path: str | os.PathLike[str],
    transform: ITKTransform,
    images: tuple[str, str],
    shapes: ArrayLike,
    *,
    spacings: ArrayLike = ((1, 1), (1, 1)),
    flipped: tuple[bool, bool] = (False, False),
    masks: tuple[str, str] = ("", ""),
) -> None:
    """Write a slice-to-slice file.

    The file takes its place when it is complete: an older one stays until then.

    Parameters
    ----------
    path : path_like
        Where to write.
    transform : ITKTransform
        From `matrix_to_itk`, `points_to_itk` or `grid_to_itk`.
    images : pair of str
        Files of the reference and of the moving image.
    shapes : array_like of int, shape (2, 2)
        Their shapes.
    spacings : array_like of shape (2, 2), optional
        Their distances of neighbouring pixels along (row, col).
    flipped : pair of bool, optional
        Whether each was turned upside down before.
    masks : pair of str, optional
        Files of their masks: both, or none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import spectral_tools as spt
    >>> transform = spt.io.matrix_to_itk(np.eye(3), kind="rigid")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "2-1.stos"
    ...     spt.io.write_stos(path, transform, ("1.png", "2.png"), [(60, 80)] * 2)
    ...     print(path.read_text().splitlines()[4])
    1.0 1.0 80 60
    """
    given = [mask for mask in masks if mask]
    if len([*images]) != 2 or len([*masks]) != 2 or len(given) == 1:
        message = f"`images` and `masks` must be pairs; got {images!r} and {masks!r}."
        raise ValueError(message)
    check_names([*images], "images")
    check_names(given, "masks")
    sides = _pairs(shapes, "shapes")
    if (sides % 1).any() or (sides >= 1e9).any():
        message = f"`shapes` must be whole numbers below 1e9; got {sides.tolist()}."
        raise ValueError(message)
    units = _pairs(spacings, "spacings")
    lines = [*images, *(str(int(bool(turned))) for turned in flipped)]
    for spacing, shape in zip(units, sides.astype(int), strict=True):
        numbers = [*map(number_text, spacing[::-1]), *map(str, shape[::-1])]
        lines.append(" ".join(numbers))
    lines += [format_itk(transform), *([MASKS, *masks] if given else [])]
    write_text(path, "\n".join([*lines, ""]))


def _pairs(values: ArrayLike, name: str) -> Floats:
    array = as_finite(values, name)
    if array.shape != (2, 2) or (array <= 0).any():
        message = f"`{name}` must be two pairs of numbers above 0; got {values!r}."
        raise ValueError(message)
    return array

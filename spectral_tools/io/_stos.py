"""Slice to slice: how one section lies on another, as a text file."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .._shared.arrays import Floats
from .._shared.checks import as_finite
from ._itk_text import ITKTransform, format_itk, read_transform
from ._text_words import Words, check_names, number_text, write_text

__all__ = ["Stos", "read_stos", "write_stos"]


MASKS = "two_user_supplied_masks:"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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

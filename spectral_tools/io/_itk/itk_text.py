"""ITK's transforms as text, and whether they are whole."""

from __future__ import annotations

import numpy as np

from ..._shared.arguments import checked
from ..._shared.arrays import Floats
from ..._shared.checks import as_finite
from ..._shared.results import result
from .text_words import Words, number_text

__all__ = [
    "ITKTransform",
    "check_whole",
    "degree_of",
    "format_itk",
    "is_known",
    "kind_of",
    "parse_itk",
    "read_transform",
]


ENDING = "_double_2_2"
MESH = "MeshTransform" + ENDING
GRID = "GridTransform" + ENDING
# The degree follows.
LEGENDRE = "LegendrePolynomialTransform" + ENDING + "_"
RIGID = "Rigid2DTransform" + ENDING
SIMILARITY = "CenteredSimilarity2DTransform" + ENDING
AFFINE = "FixedCenterOfRotationAffineTransform" + ENDING
# How many parameters and fixed ones those have that are matrices.
COUNTS = {
    RIGID: (3, 2),
    "Euler2DTransform" + ENDING: (3, 2),
    SIMILARITY: (6, 0),
    "Similarity2DTransform" + ENDING: (4, 2),
    AFFINE: (8, 2),
    "AffineTransform" + ENDING: (6, 2),
    "TranslationTransform" + ENDING: (2, 0),
}


@result
class ITKTransform:
    """A transform as ITK writes it: a name and two lists of numbers.

    Attributes
    ----------
    name : str
        What kind it is, such as ``Rigid2DTransform_double_2_2``.
    parameters : ndarray of shape (n,)
        What ITK optimises, x before y. After ``vp`` in files.
    fixed_parameters : ndarray of shape (m,)
        What it does not, such as a centre of rotation. After ``fp`` in files.
    """

    name: str
    parameters: Floats
    fixed_parameters: Floats


@checked
def parse_itk(text: str) -> ITKTransform:
    """Read a transform from its text.

    Parameters
    ----------
    text : str
        Such as ``"Rigid2DTransform_double_2_2 vp 3 0.1 5 7 fp 2 64 64"``.

    Returns
    -------
    ITKTransform
        The same numbers, to the last bit.

    See Also
    --------
    itk_matrix : What it says as a matrix.
    itk_points : What it says as control points.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> text = "Rigid2DTransform_double_2_2 vp 3 0.0 5.0 7.5 fp 2 64.0 64.0"
    >>> transform = spt.io.parse_itk(text)
    >>> transform
    ITKTransform(name='Rigid2DTransform_double_2_2', parameters=[0, 5, 7.5],
        fixed_parameters=[64, 64])
    >>> spt.io.format_itk(transform) == text
    True
    """
    words = Words(text, "`text`")
    found = read_transform(words)
    if not words.at_end():
        words.fail("end with the transform", "more")
    return found


@checked
def format_itk(transform: ITKTransform) -> str:
    """Return the text of a transform.

    Parameters
    ----------
    transform : ITKTransform
        From `parse_itk`, `matrix_to_itk`, `points_to_itk` or `grid_to_itk`.

    Returns
    -------
    str
        One line, of which `parse_itk` makes the same transform.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> transform = spt.io.matrix_to_itk(spt.translation((3, -2)), kind="rigid")
    >>> spt.io.format_itk(transform)
    'Rigid2DTransform_double_2_2 vp 3 0.0 2.0 -3.0 fp 2 0.0 0.0'
    """
    check_whole(transform)
    lists = []
    for mark, numbers in (
        ("vp", transform.parameters),
        ("fp", transform.fixed_parameters),
    ):
        values = as_finite(numbers, "transform").ravel().tolist()
        lists += [mark, str(len(values)), *map(number_text, values)]
    return " ".join([transform.name, *lists])


def read_transform(words: Words, name: str | None = None) -> ITKTransform:
    """Read a transform from where a text stands, and check that it is whole."""
    if name is None:
        name = words.word("a transform")
    if not is_known(name):
        words.fail(f"name a transform such as {RIGID}", repr(name))
    words.expect("vp")
    parameters = _numbers(words, "a parameter")
    fixed = np.empty(0)
    if words.expect("fp", "no_fp") == "fp":
        fixed = _numbers(words, "a fixed parameter")
    wanted = _counts(name, fixed)
    if wanted is None:
        words.fail(f"hold the fixed parameters of {name}", f"{fixed.tolist()}")
    if (len(parameters), len(fixed)) != wanted:
        words.fail(
            f"hold {wanted[0]} parameters and {wanted[1]} fixed ones of {name}",
            f"{len(parameters)} and {len(fixed)}",
        )
    return ITKTransform(name=name, parameters=parameters, fixed_parameters=fixed)


def check_whole(transform: ITKTransform) -> None:
    """Raise unless a transform has a known name and as many numbers as it should."""
    if not is_known(transform.name):
        message = f"`transform` must be of a known kind; got {transform.name!r}."
        raise ValueError(message)
    fixed = as_finite(transform.fixed_parameters, "fixed_parameters")
    parameters = as_finite(transform.parameters, "parameters")
    wanted = _counts(transform.name, fixed)
    if parameters.ndim != 1 or wanted != (len(parameters), *fixed.shape):
        message = (
            f"`transform` must have the parameters of {transform.name}; "
            f"got shapes {parameters.shape} and {fixed.shape}."
        )
        raise ValueError(message)


def is_known(name: str) -> bool:
    """Tell whether a word names a transform."""
    kind = kind_of(name)
    return kind in (MESH, GRID) or kind in COUNTS or degree_of(name) is not None


def kind_of(name: str) -> str:
    """Return a name as it is looked up: some releases wrote the type twice."""
    return name.replace("_double_double_", "_double_")


def _numbers(words: Words, what: str) -> Floats:
    # Nothing is allocated for numbers that are not there.
    return np.array([words.number(what) for _ in range(words.count("their number"))])


def degree_of(name: str) -> int | None:
    """Return the degree of a polynomial that is told by its name."""
    kind = kind_of(name)
    degree = kind.removeprefix(LEGENDRE)
    if degree == kind or not degree.isascii() or not degree.isdigit():
        return None
    return int(degree) if len(degree) < 3 else None


def _counts(name: str, fixed: Floats) -> tuple[int, int] | None:
    """Return how many parameters and fixed ones there must be; None if unclear."""
    kind = kind_of(name)
    if kind in COUNTS:
        return COUNTS[kind]
    degree = degree_of(name)
    if degree is not None:
        usable = len(fixed) != 4 or (fixed[2:] > 0).all()
        return ((degree + 1) * (degree + 2), 4) if usable else None
    wanted = 8 if kind == MESH else 7
    if len(fixed) != wanted or (fixed[5:7] <= 0).any():
        return None
    sizes = fixed[7:] if kind == MESH else fixed[1:3]
    # Numbers of the cells of a grid, or of the points of a mesh.
    if (sizes < (kind == GRID)).any() or (sizes > 1e9).any() or (sizes % 1).any():
        return None
    if kind == MESH:
        return 4 * int(sizes[0]), wanted
    return 2 * (int(sizes[0]) + 1) * (int(sizes[1]) + 1), wanted

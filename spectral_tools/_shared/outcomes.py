"""What became of a pair or a tile, in words."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Outcome"]


class Outcome(StrEnum):
    """What became of a pair or a tile.

    Members are strings, so that ``outcome == "matched"`` holds and tables print
    well. A result for many pairs or tiles carries an object array of them.

    Attributes
    ----------
    MATCHED
        Pair: the images agree at the found shift. Tile: at least one link that
        the solution believes ties it to another tile.
    AMBIGUOUS
        Pair: a second shift is nearly as good as the best, as in a lattice.
    NO_TEXTURE
        Pair: an image is constant, empty or masked where they could overlap.
    FIXED_PATTERN
        Pair: what agrees is the camera (dust, vignetting), not the sample.
    BEYOND_BOUND
        Pair: the best shift lies outside of what was allowed.
    NOT_FOUND
        Pair: no shift agrees better than chance would.
    PRIOR_ONLY
        Tile: no usable link; it stays at the position that was given for it.
    CONTRADICTED
        Tile: it has links, but the solution believes none of them. Point of a
        grid: it was found, but does not fit to those around it.
    ISOLATED
        Tile: no usable link and no given position; where it lies is unknown.

    Examples
    --------
    >>> import spectral_tools as spt
    >>> spt.Outcome.PRIOR_ONLY == "by prior only"
    True
    """

    MATCHED = "matched"
    AMBIGUOUS = "ambiguous"
    NO_TEXTURE = "no texture"
    FIXED_PATTERN = "fixed pattern"
    BEYOND_BOUND = "beyond bound"
    NOT_FOUND = "not found"
    PRIOR_ONLY = "by prior only"
    CONTRADICTED = "contradicted"
    ISOLATED = "isolated"

"""Sweeps of which a part runs by default, and the rest with ``-m slow``."""

import pytest


def sweep(values, *kept):
    """Return parameters of a test of which only those at some places are not slow.

    Each value is that of one name, or a tuple of those of several.
    """
    return [
        pytest.param(
            *(each if isinstance(each, tuple) else (each,)),
            marks=() if place in kept else pytest.mark.slow,
        )
        for place, each in enumerate(values)
    ]

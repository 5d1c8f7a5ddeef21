"""The one door to numba: how kernels are compiled (floor 0).

Kernels release the interpreter lock, so that threads run beside each other;
they are cached on disk, so that only the first call of the first session pays;
and they may contract and reorder sums but never assume that NaN is absent.
No kernel is parallel inside: threads belong to the caller, and results do not
depend on how many there are.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a kernel with the settings of the house."""
    kernel: Function = numba.njit(
        cache=True,
        nogil=True,
        error_model="numpy",
        fastmath={"contract", "reassoc", "nsz"},
    )(function)
    return kernel

"""The one door to numba: how kernels are compiled.

Kernels release the interpreter lock, so that threads run beside each other;
they are cached on disk, so that only the first call of the first session pays;
and they may contract and reorder sums but never assume that NaN is absent.
No kernel is parallel inside: threads belong to the caller, and results do not
depend on how many there are.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

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
    _name_apart(kernel)
    return kernel


def _name_apart(kernel: Any) -> None:
    """Give each file of compiled code a name of its own.

    Numba counts them. Two processes that compile the same kernel for different
    dtypes at the same time would both write number 1, and the index of the one could
    then lead to the code of the other, which runs on arrays of the wrong dtype. With
    names of their own all that can be lost is an entry of the index: that code is
    compiled again. No lock is needed, which shared file systems may not keep.
    """
    files = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if files is not None:  # compiling is not switched off
        base = files._index_name.removesuffix(".nbi")
        files._data_name = lambda _: f"{base}.{uuid4().hex}.nbc"

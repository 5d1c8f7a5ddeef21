"""The one door to numba: how kernels are compiled, and where that is kept.

Kernels release the interpreter lock, so that threads run beside each other;
they are cached on disk, so that only the first call of the first session pays;
and they may contract and reorder sums but never assume that NaN is absent.
No kernel is parallel inside: threads belong to the caller, and results do not
depend on how many there are.

The cache is not that of numba, which looks at the file of a kernel alone: a kernel
would keep the code of what it calls in other files, whatever becomes of them. Here the
name of a cached file is a digest of all that its machine code depends on: bytecode and
constants of the kernel and of every kernel that it calls, types of the arguments,
processor, versions. What is found is right, what has changed has another name, and
checkouts, processes and images of containers with the same kernels share their code.
"""

import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import update_wrapper
from hashlib import sha256
from inspect import CO_GENERATOR, CO_VARARGS
from pathlib import Path
from types import BuiltinFunctionType, CodeType, ModuleType, NoneType
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
    # A kernel called as a function would be there in a copy for each caller, optimised
    # in its surroundings; which of them the linker takes, and so the last bits of sums,
    # would depend on what was loaded before.
    "forceinline": True,
    # Nobody takes the address of a kernel from C.
    "no_cfunc_wrapper": True,
}

#: Settings of a kernel inside another, beside those: Python does not call it there.
INSIDE = {"no_cpython_wrapper": True}

#: Bytes that a cache may hold: the code of several versions of this package. What
#: was not used for longest goes first.
CACHE_LIMIT = 2**28

POSIX = os.name == "posix"
SUFFIX = ".kernel"
DIGEST = sha256().digest_size

#: Settings of numba that machine code depends on.
SETTINGS = (
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "LOOP_VECTORIZE",
    "OPT",
    "SLP_VECTORIZE",
    "USING_SVML",
)

#: Values that are all in their `repr`.
PLAIN = (bool, bytes, complex, float, int, NoneType, str, np.dtype, np.generic)
#: Where classes, functions and modules come from that numba compiles on its own.
KNOWN = {"builtins", "math", "numpy"}


def compiled(function: Function) -> Function:
    """Compile a kernel with the settings of the house, once it is called."""
    kernel: Any = Kernel(function)
    return kernel


class Kernel:
    """A function that is compiled when it or a kernel that calls it is first called.

    Numba is not imported before: that takes a good part of importing this package.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    def __reduce__(self) -> str:
        """Travel by name, as functions do."""
        return self.py_func.__qualname__

    @property
    def _numba_type_(self) -> Any:
        """What numba sees where a kernel calls another."""
        return self.inside._numba_type_

    def __getattr__(self, name: str) -> Any:
        """Make a dispatcher of numba when it is first wanted; then it is there.

        `dispatcher` is for calls from Python, `inside` for those from other kernels,
        which need no code that unpacks arrays of Python: a tenth of compiling.
        A property would be one more call for each of a kernel.
        """
        if name in {"dispatcher", "inside"}:
            # Threads that come here at once go on with the same.
            options = OPTIONS | (INSIDE if name == "inside" else {})
            return self.__dict__.setdefault(name, self._made(options))
        return object.__getattribute__(self, name)  # says that there is none

    def _made(self, options: dict[str, Any]) -> Any:
        """Return what numba makes of the function, with the cache of the house."""
        made = _numba().njit(**options)(self.py_func)
        # There is nothing to cache where compiling is switched off.
        if hasattr(made, "_cache") and _can_cache():
            made._cache = KernelCache(self, options)
        return made


def _numba() -> Any:
    import numba  # noqa: PLC0415

    return numba


def _can_cache() -> bool:
    """Tell whether numba has the inner names that code is written and read with."""
    try:
        inner = _numba().core.compiler.CompileResult, _numba().core.serialize.dumps
    except AttributeError:
        return False
    return hasattr(inner[0], "_reduce") and hasattr(inner[0], "_rebuild")


class KernelCache:
    """Machine code of a kernel on disk, in the place of a cache of numba.

    Each entry is a file of its own that is put in place at once: no process reads half
    of one, and two that compile the same kernel write the same file, without locks,
    which shared file systems may not keep.
    """

    cache_path = None

    def __init__(self, kernel: Kernel, options: dict[str, Any]) -> None:
        self._kernel = kernel
        self._options = options

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the code for the types of a signature, None if there is none."""
        target.refresh()
        name = self._file_name(signature, target.codegen())
        for folder in _folders():
            data = _read(folder / name)
            if data is not None:
                result = _numba().core.compiler.CompileResult
                return result._rebuild(target, *pickle.loads(data))
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled for the types of a signature, if that can be."""
        if result.lifted or result.library.has_dynamic_globals:
            return
        name = self._file_name(signature, result.codegen)
        data = _numba().core.serialize.dumps(result._reduce())
        for folder in _folders():
            if _write(folder / name, data):
                _prune(folder)
                return

    def flush(self) -> None:
        """Forget nothing: what is on disk is right."""

    def _file_name(self, signature: Any, codegen: Any) -> str:
        """Return a name that says all that machine code depends on."""
        digest = sha256()
        for part in (
            *_of_types(getattr(signature, "args", signature)),
            *map(repr, (codegen.magic_tuple(), *_versions(self._options))),
            *_dependencies(self._kernel, []),
        ):
            digest.update(f"{len(part)} {part}".encode())
        return f"{self._kernel.py_func.__name__}-{digest.hexdigest()[:40]}{SUFFIX}"


# What machine code depends on


def _versions(options: dict[str, Any]) -> Iterator[Any]:
    """Yield what a kernel is compiled by."""
    import llvmlite  # noqa: PLC0415

    yield sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    yield _numba().__version__, llvmlite.__version__, np.__version__
    for option, value in options.items():
        yield option, sorted(value) if isinstance(value, set) else value
    for name in SETTINGS:
        yield name, getattr(_numba().config, name, None)


def _of_types(types: Iterable[Any]) -> Iterator[str]:
    """Yield the names of types, and the fields where a name does not tell them."""
    for kind in types:
        yield str(kind)
        if hasattr(kind, "instance_class"):
            yield from _dependencies(kind.instance_class, [])
        yield from _of_types(getattr(kind, "types", ()))


def _dependencies(value: Any, met: list[int]) -> Iterator[str]:
    """Yield all that machine code can take from a value that a kernel names."""
    if isinstance(value, Kernel):
        if id(value) in met:
            yield f"kernel {met.index(id(value))}"
        else:
            met.append(id(value))
            yield from _of_kernel(value, met)
    elif isinstance(value, tuple):
        yield f"{type(value).__qualname__} of {len(value)}"
        for item in value:
            yield from _dependencies(item, met)
    elif isinstance(value, np.ndarray):
        yield repr((value.dtype, value.shape, value.strides, value.tobytes()))
    elif isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, type) and issubclass(value, tuple):
        yield f"{value.__module__}.{value.__qualname__}"
        yield repr(getattr(value, "_fields", ()))  # of a named tuple
        defaults = getattr(value, "_field_defaults", {})
        yield from _dependencies(tuple(defaults.items()), met)
    else:
        yield _known_name(value)


def _of_kernel(kernel: Kernel, met: list[int]) -> Iterator[str]:
    function = kernel.py_func
    # Code is loaded into the module that it was compiled for.
    yield f"{function.__module__}.{function.__qualname__}"
    for code in _codes(function.__code__):
        yield from _of_code(code, function.__doc__)
        for name in code.co_names:
            if name in function.__globals__:
                yield from _dependencies(function.__globals__[name], met)
    for cell in function.__closure__ or ():
        yield from _dependencies(cell.cell_contents, met)
    yield from _dependencies(function.__defaults__, met)
    yield from _dependencies(tuple((function.__kwdefaults__ or {}).items()), met)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the bytecode of a function and of those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _of_code(code: CodeType, docstring: str | None) -> Iterator[str]:
    """Yield what runs, without what it is called, where it stands, or says it does."""
    kind = code.co_flags & (CO_GENERATOR | CO_VARARGS)  # profilers change another flag
    yield repr((code.co_code, code.co_exceptiontable, kind))
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
    yield repr((code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType) or constant is docstring:
            yield ""
        elif isinstance(constant, frozenset):  # has another order in each process
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)


def _known_name(value: Any) -> str:
    """Return the name of what comes with Python or NumPy and changes with them."""
    if isinstance(value, ModuleType):
        name = value.__name__
    elif isinstance(value, BuiltinFunctionType | type):
        name = f"{value.__module__}.{value.__qualname__}"
    else:
        name = ""
    if name.partition(".")[0] not in KNOWN:
        message = (
            "`function` must name only numbers, texts, tuples, arrays, kernels and what "
            f"comes with Python or NumPy; got {value!r}."
        )
        raise TypeError(message)
    return name


# Where it is kept


def _folders() -> Iterator[Path]:
    """Yield the folders of the cache, up to the first that can be written to.

    None that others can write to is among them: who writes there could make this
    process run any code. If there is none at all, each process compiles for itself.
    """
    for wanted in _wanted_folders():
        path = Path(os.path.realpath(wanted))
        if not _is_safe(path):
            continue
        with suppress(OSError):
            for part in (*reversed(path.parents), path):
                if not part.exists():
                    part.mkdir(mode=0o755, exist_ok=True)
        # Another may have been faster to make it.
        if path.exists() and _is_safe(path):
            yield path
            if _allowed(path, os.W_OK):
                return


def _wanted_folders() -> Iterator[Path]:
    """Yield where a cache may lie: where users say, with theirs, with what passes."""
    package = f"{__name__.partition('.')[0]}-kernels"
    named = getattr(_numba().config, "CACHE_DIR", "")
    if named:
        yield Path(named) / package
    caches = _user_caches()
    if caches.is_absolute() and _allowed(caches.parent, os.X_OK):
        yield caches / package
    with suppress(FileNotFoundError):  # there may be no such place
        passing = Path(tempfile.gettempdir())
        yield passing / f"{package}-{os.geteuid() if POSIX else 'user'}"


def _user_caches() -> Path:
    """Return where programs of this user keep what they can make again."""
    named = Path(os.environ.get("XDG_CACHE_HOME" if POSIX else "LOCALAPPDATA", ""))
    home = Path(os.environ.get("HOME", ""))
    return named if named.is_absolute() else home / ".cache"


def _allowed(path: Path, mode: int) -> bool:
    """Tell whether a file or folder is there and this process may use it."""
    effective = os.access in os.supports_effective_ids
    return os.access(path, mode, effective_ids=effective)


def _is_safe(path: Path) -> bool:
    """Tell whether none but root and this user can put anything at a path.

    That takes the folders above it too: who can write there can rename what is below,
    unless the folder is sticky, as that of temporary files is.
    """
    if not POSIX:  # users of Windows cannot write to the folders of each other
        return True
    for part in (path, *path.parents):
        try:
            found = part.lstat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = found.st_mode & stat.S_ISVTX and part != path
        if found.st_uid not in {0, os.geteuid()} or (shared and not sticky):
            return False
    return True


def _read(path: Path) -> bytes | None:
    """Return an entry of the cache, None if there is none or it has been damaged."""
    if not _is_safe(path):
        return None
    try:
        found = path.read_bytes()
    except OSError:
        return None
    if sha256(found[DIGEST:]).digest() != found[:DIGEST]:
        return None
    with suppress(OSError):  # a cache that is read only needs no dates
        os.utime(path)
    return found[DIGEST:]


def _write(path: Path, data: bytes) -> bool:
    """Put an entry into the cache; return whether that worked."""
    draft = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        draft.touch(mode=0o644, exist_ok=False)
        draft.write_bytes(sha256(data).digest() + data)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        return False
    return True


def _prune(folder: Path) -> None:
    """Remove what was not used for longest from a cache that holds too much."""
    entries = []
    for path in folder.glob(f"*{SUFFIX}*"):
        with suppress(FileNotFoundError):  # other processes prune too
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    size = 0
    for _, more, path in sorted(entries, reverse=True):
        size += more
        if size > CACHE_LIMIT:
            with suppress(OSError):
                path.unlink()

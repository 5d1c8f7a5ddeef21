import cProfile
import importlib
import json
import os
import pickle
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType, ModuleType

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import spectral_tools as spt
from spectral_tools._shared import compiled as door
from spectral_tools._shared.compiled import compiled
from spectral_tools._spectral.gain_gradient import gain_slopes

#: A package of three files: a kernel calls one that reads a constant.
FILES = {
    "door.py": Path(door.__file__).read_text(),
    "constants.py": "FACTOR = 2.0\n",
    "callee.py": """
from .constants import FACTOR
from .door import compiled

@compiled
def scaled(value):
    return FACTOR * value + 0.0
""",
    "caller.py": """
from .callee import scaled
from .door import compiled

@compiled
def twice_scaled(value):
    '''Return a value that was scaled twice.'''
    return scaled(scaled(value))
""",
    "__init__.py": "",
}
CALL = """
from house.caller import twice_scaled
print(twice_scaled(1.5), sum(twice_scaled.dispatcher.stats.cache_hits.values()))
"""

NEEDS_USERS = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can act as another user",
)
NEEDS_MODES = pytest.mark.skipif(os.name != "posix", reason="folders have no modes")
NOBODY = 65534


@pytest.fixture
def package(tmp_path):
    """A package on disk, and a cache of its own."""
    folder = tmp_path / "house"
    folder.mkdir()
    for name, text in FILES.items():
        folder.joinpath(name).write_text(text)
    return folder


def rewrite(path, old, new):
    """Change a file so that its size and its time say that nothing has changed."""
    before = path.stat()
    text = path.read_text()
    assert len(old) == len(new)
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


#: A process that has numba, which takes longer to come up than a package to compile;
#: each line that it reads is code for a child, which has met no package and no cache.
NURSERY = """
import json, os, sys, tempfile
import numba
numba.njit(lambda value: value + 1)(1.5)
for line in sys.stdin:
    code, environment, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        numba.config.reload_config()
        sys.path.insert(0, folder)
        exec(code, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    print("left with", os.waitpid(child, 0)[1], flush=True)
"""


def environment_of(package):
    """Return an environment without cache but in the folder of a package."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return given | {
        "NUMBA_CACHE_DIR": str(package.parent / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(package.parent),
    }


def run_alone(package, code=CALL, **settings):
    """Return what a process prints that starts with nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment_of(package) | settings,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    if not hasattr(os, "fork"):
        yield None
        return
    environment = environment_of(tmp_path_factory.mktemp("nursery"))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", NURSERY],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(nursery):
    """Return what tells what a new process prints."""
    if nursery is None:
        return run_alone

    def born(package, code=CALL, **settings):
        environment = environment_of(package) | settings
        asked = json.dumps([code, environment, str(package.parent)])
        print(asked, file=nursery.stdin, flush=True)
        words = []
        for line in nursery.stdout:
            if line.startswith("left with"):
                assert line == "left with 0\n"
                return words
            words += line.split()
        pytest.fail("the process that others are born of has ended")

    return born


def kept(folder):
    return sorted(path.name for path in folder.rglob(f"*{door.SUFFIX}"))


def kernel(body, **names):
    """Return a new kernel of one argument, as another process would make it."""
    [code] = compile(f"lambda value: {body}", "kernel", "eval").co_consts[:1]
    return compiled(FunctionType(code, {"__name__": __name__, **names}, "answer"))


def hits(kernel):
    return sum(kernel.dispatcher.stats.cache_hits.values())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of which this process knows alone."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path / "spectral_tools-kernels"


# When it is made


@compiled
def count_down(number):
    return 0 if number < 1 else count_down(number - 1)


def test_numba_is_imported_at_the_first_call(package):
    """It takes longer to import than most of the package."""
    code = (
        "import sys; from house.caller import twice_scaled; print('numba' in sys.modules)"
        "; print(twice_scaled(1.5)); print('numba' in sys.modules)"
    )
    assert run_alone(package, code) == ["False", "6.0", "True"]


@pytest.mark.usefixtures("cache")
def test_a_kernel_holds_no_copy_of_what_it_calls():
    """The linker would take one of several, and sums would differ in their last bits."""
    block = np.ones((2, 3, 40, 40), np.float32)
    places = np.array([0, 0, 0])
    # A fresh one, that no test has loaded: large enough not to be inlined unasked.
    slopes = compiled(gain_slopes.py_func)
    assert_array_equal(slopes(*block, places, places, np.array([3, 40, 40])), 0)
    [code] = slopes.dispatcher.inspect_llvm().values()
    defined = re.findall(r"^define .*?@(\w*spectral_tools\w*)", code, re.MULTILINE)
    # Itself, and what Python calls.
    assert len(defined) == 2


def test_kernels_travel_by_name():
    assert pickle.loads(pickle.dumps(count_down)) is count_down


@pytest.mark.usefixtures("cache")
def test_threads_that_call_at_once_compile_once():
    look = kernel("value + 1")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(look, [1.0] * 8)) == {2.0}
        assert len(set(pool.map(lambda _: id(look.dispatcher), range(8)))) == 1
    assert sum(look.dispatcher.stats.cache_misses.values()) == 1


# Never stale


def test_a_caller_follows_what_it_calls_and_what_that_reads(package, run):
    assert run(package) == ["6.0", "0"]
    assert run(package) == ["6.0", "1"]
    rewrite(package / "callee.py", "+ 0.0", "+ 1.0")
    assert run(package) == ["9.0", "0"]
    rewrite(package / "constants.py", "2.0", "3.0")
    assert run(package) == ["17.5", "0"]
    rewrite(package / "callee.py", "+ 1.0", "+ 0.0")
    rewrite(package / "constants.py", "3.0", "2.0")
    assert run(package) == ["6.0", "1"]


def test_what_is_said_about_a_kernel_does_not_change_its_code(package, run):
    run(package)
    caller = package / "caller.py"
    text = caller.read_text().replace("a value that was", "what will have been")
    caller.write_text(f"# A line that moves all others.\n{text}")
    (package / "constants.py").write_text("FACTOR, OTHER = 2.0, 5.0\n")
    assert run(package) == ["6.0", "1"]


def test_checkouts_share_their_code(package, tmp_path):
    run_alone(package)
    other = tmp_path / "other" / "house"
    shutil.copytree(package, other)
    # Alone, so that sets come in another order too.
    assert run_alone(other, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["6.0", "1"]


def test_code_that_checks_bounds_is_not_that_which_does_not(cache, monkeypatch):
    kernel("value + 1")(1.0)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    again = kernel("value + 1")
    again(1.0)
    assert hits(again) == 0
    assert len(kept(cache)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        ((1, 2), (1, 3)),
        (np.float32(1), np.float64(1)),
        (np.arange(3), np.arange(1, 4)),
        (np.ones((2, 3)), np.ones((3, 2)).T),
        (kernel("value + 1"), kernel("value + 2")),
        (kernel("value", other=1), kernel("value + other", other=1)),
    ],
)
@pytest.mark.usefixtures("cache")
def test_other_values_make_other_code(one, other):
    def name(value):
        return list(door._dependencies(kernel("named", named=value), []))

    assert name(one) == name(one)
    assert name(one) != name(other)


def test_a_kernel_that_calls_itself_is_told_once():
    assert "kernel 0" in list(door._dependencies(count_down, []))


def test_kernels_name_nothing_that_may_change_unseen():
    inside = ModuleType("spectral_tools.constants")
    with pytest.raises(TypeError, match=r"`function` must name only .+; got <module"):
        kernel("named.FACTOR * value", named=inside)(1.0)


def kernels():
    """All kernels of the package, each once."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "spectral_tools":
            for value in vars(module).values():
                if hasattr(value, "py_func"):
                    found[id(value)] = value
    return list(found.values())


def test_all_kernels_of_the_package_are_told_apart():
    for module in pkgutil.walk_packages(spt.__path__, "spectral_tools."):
        importlib.import_module(module.name)
    names = ["".join(door._dependencies(kernel, [])) for kernel in kernels()]
    assert len(names) > 50
    assert len(set(names)) == len(names)


def test_profiled_code_is_the_same():
    """Profilers change a flag of what they look at."""
    look = kernel("value + 1")
    before = list(door._dependencies(look, []))
    with cProfile.Profile():
        look(1.0)
        look(1.0)
    assert list(door._dependencies(look, [])) == before


# Where it is kept


def test_code_is_kept_where_users_say(cache):
    assert kernel("value + 2")(1.0) == 3.0
    assert len(kept(cache)) == 1
    again = kernel("value + 2")
    assert again(1.0) == 3.0
    assert hits(again) == 1


def test_processes_that_compile_at_once_keep_their_code_apart(cache, monkeypatch):
    """The one has compiled and not yet written when the other does both."""
    first, second, third = (kernel("value + value") for _ in range(3))
    held_back = []
    write = door._write
    with monkeypatch.context() as patch:
        patch.setattr(door, "_write", lambda *entry: not held_back.append(entry))
        first(np.ones(3, np.float32))
    second(np.ones(3, np.float64))
    for entry in held_back:
        write(*entry)
    for values in (np.array([1.5, 2.5]), np.array([1.5, 2.5], np.float32)):
        assert_array_equal(third(values), 2 * values, strict=True)
    assert hits(third) == len(kept(cache)) == 2


@pytest.mark.parametrize("damage", [b"", b"short", None, "flipped"])
def test_damaged_code_is_compiled_again(cache, damage):
    kernel("value + 3")(1.0)
    [path] = cache.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    bad = {None: whole[:-1], "flipped": flipped}.get(damage, damage)
    path.write_bytes(bad)
    second, third = kernel("value + 3"), kernel("value + 3")
    assert (second(1.0), third(1.0)) == (4.0, 4.0)
    assert (hits(second), hits(third)) == (0, 1)


def test_without_a_folder_every_process_compiles_for_itself(package, run, tmp_path):
    taken = tmp_path / "taken"
    taken.touch()  # a file, where nobody can make folders
    nowhere = {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": str(taken)}
    nowhere |= {"TMPDIR": str(taken), "XDG_CACHE_HOME": str(taken / "caches")}
    code = f"import tempfile; tempfile.tempdir = {str(taken)!r}\n{CALL}"
    assert run(package, code, **nowhere) == ["6.0", "0"]
    assert kept(tmp_path) == []
    assert not Path("/nonexistent").exists()


def test_without_a_home_code_is_kept_with_what_passes(cache, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(cache.parent))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    kernel("value + 8")(1.0)
    [folder] = cache.parent.iterdir()
    assert len(kept(folder)) == 1
    again = kernel("value + 8")
    again(1.0)
    assert hits(again) == 1


def test_code_is_kept_with_what_users_can_make_again(cache, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(cache.parent))
    kernel("value + 9")(1.0)
    assert len(kept(cache.parent / ".cache" / cache.name)) == 1


@NEEDS_MODES
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_no_code_comes_from_a_folder_that_others_can_write(cache, mode, monkeypatch):
    kernel("value + 4")(1.0)
    cache.chmod(mode)
    monkeypatch.setattr(door, "_user_caches", Path)
    monkeypatch.setattr(tempfile, "tempdir", str(cache))
    again = kernel("value + 4")
    assert again(1.0) == 5.0
    assert hits(again) == 0


@NEEDS_MODES
def test_no_code_comes_from_a_folder_that_others_can_move(tmp_path):
    inner = tmp_path / "above" / "inner"
    inner.mkdir(parents=True)
    assert door._is_safe(inner)
    assert door._is_safe(inner / "not" / "yet")
    inner.parent.chmod(0o777)
    assert not door._is_safe(inner)
    inner.parent.chmod(0o1777)
    assert door._is_safe(inner)


@NEEDS_MODES
def test_no_code_comes_from_a_file_that_others_can_write(cache):
    kernel("value + 5")(1.0)
    [path] = cache.iterdir()
    path.chmod(0o666)
    again = kernel("value + 5")
    assert again(1.0) == 6.0
    assert hits(again) == 0
    path.chmod(0o644)


@NEEDS_MODES
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_others_cannot_write_to_what_is_made(cache, mask):
    before = os.umask(mask)
    try:
        kernel("value + 6")(1.0)
    finally:
        os.umask(before)
    for path in (cache, *cache.iterdir()):
        assert path.stat().st_mode & 0o022 == 0
    again = kernel("value + 6")
    again(1.0)
    assert hits(again) == 1


@NEEDS_USERS
def test_no_code_comes_from_a_folder_of_another_user(tmp_path):
    os.chown(tmp_path, NOBODY, NOBODY)
    assert not door._is_safe(tmp_path)


@NEEDS_USERS
def test_what_root_keeps_others_read_and_do_not_write(package, run):
    """As in a container that was warmed up when it was made."""
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        where = {"NUMBA_CACHE_DIR": shared, "HOME": shared, "TMPDIR": shared}
        run(package, XDG_CACHE_HOME="", **where)
        before = kept(Path(shared))
        # All is imported before it is somebody else that looks for code.
        code = (
            "import os\nfrom house.door import compiled\n"
            "compiled(lambda value: value - 1)(1.5)\n"
            f"import house.caller; os.setegid({NOBODY}); os.seteuid({NOBODY}){CALL}"
            "print(compiled(lambda value: value + 1)(1.5))"
        )
        assert run(package, code, XDG_CACHE_HOME="", **where) == ["6.0", "1", "2.5"]
        assert len(kept(Path(shared))) == len(before) + 1  # that of root


def test_what_was_not_used_for_longest_goes_first(cache, monkeypatch):
    for number in range(3):
        kernel(f"value + {number}.5")(1.0)
    first, second, third = cache.iterdir()
    for age, path in enumerate((second, third, first)):
        os.utime(path, (1e9 - age, 1e9 - age))
    size = second.stat().st_size + third.stat().st_size
    (cache / "not_ours.txt").write_text("1")
    monkeypatch.setattr(door, "CACHE_LIMIT", size)
    door._prune(cache)
    assert set(kept(cache)) == {second.name, third.name}
    assert (cache / "not_ours.txt").exists()


def test_what_is_used_stays_young(cache):
    kernel("value + 7")(1.0)
    [path] = cache.iterdir()
    os.utime(path, (1e9, 1e9))
    kernel("value + 7")(1.0)
    assert path.stat().st_mtime > 1e9


@pytest.mark.parametrize("missing", ["_reduce", "_rebuild"])
def test_a_numba_with_other_inner_names_compiles_without_a_cache(package, run, missing):
    code = f"""
from numba.core.compiler import CompileResult
del CompileResult.{missing}
{CALL}"""
    assert run(package, code) == ["6.0", "0"]
    assert kept(package.parent) == []


def test_compiling_can_be_switched_off(package):
    code = CALL.replace(", sum(twice_scaled.dispatcher.stats.cache_hits.values())", "")
    assert run_alone(package, code, NUMBA_DISABLE_JIT="1") == ["6.0"]

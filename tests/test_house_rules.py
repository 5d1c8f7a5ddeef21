"""Rules that every module, every public function and every test keeps."""

import ast
import doctest
import functools
import inspect
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, is_dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import spectral_tools as spt

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spectral_tools"
TESTS = sorted((ROOT / "tests").rglob("*.py"))

#: Rooms from the ground up: a module imports from its own room and from lower floors.
FLOORS = [
    {"_shared"},
    {"_sampling", "_transforms"},
    {"_spectral", "_transforms.fields"},
    {"_matching"},
    {"_placement.solvers", "_matching.orientation"},
    {"_placement"},
    {"_rendering", "_rendering.illumination"},
    {"_point_matching", "_evaluation", "_series.template", "plot"},
    {"_series", "_series.sections"},
    {"io._itk"},
    {"io"},
]

ROOMS = sorted(set().union(*FLOORS))
#: Rooms that nobody enters from outside have a door plate and nothing behind it.
PLATES = set(ROOMS) - {"io", "plot"}

#: Libraries that come in through one module each, so that speed work and other
#: backends touch one file; NumPy's transforms have no door at all.
DOORS = {
    "numba": "_shared.compiled",
    "numpy.fft": None,
    "scipy.fft": "_shared.fft",
    "scipy.ndimage": "_shared.ndimage",
    "scipy.sparse": "_shared.sparse",
}
BANNED = {
    "x",
    "y",
    "img",
    "im",
    "im1",
    "im2",
    "seed",
    "random_state",
    "mask",
    "verbose",
}

PUBLIC = {name: getattr(spt, name) for name in spt.__all__}
FUNCTIONS = {n: o for n, o in PUBLIC.items() if inspect.isfunction(o)}
RESULTS = {n: o for n, o in PUBLIC.items() if is_dataclass(o)}


def module_name(path):
    """Return the dotted name of a source file inside the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in SOURCES if name]
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
#: All code of a module, at any depth: walked through once.
NODES = {name: list(ast.walk(tree)) for name, tree in TREES.items()}


def imported(module):
    """Return every dotted name that a module imports, at any depth of its code."""
    names = set()
    folders = SOURCES[module].relative_to(ROOT).parent.parts
    for node in NODES[module]:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = list(folders[: len(folders) + 1 - node.level]) * bool(node.level)
            base = ".".join(parts + [node.module] * bool(node.module))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


IMPORTED = {module: imported(module) for module in SOURCES}


def neighbors(module):
    """Return the modules of this package that a module imports from."""
    return {name.removeprefix("spectral_tools.") for name in IMPORTED[module]} & set(
        MODULES
    )


def is_door(module):
    """Tell whether a module is the door of a room, and not something in it."""
    return SOURCES[module].name == "__init__.py"


def members(name):
    """Return the modules of a room, without those of the rooms inside it."""
    return {m for m in MODULES if room(m) == name and not is_door(m)}


def room(module):
    """Return the room that a module lies in, or that it is the door of."""
    folder = SOURCES[module].relative_to(PACKAGE).parent
    return ".".join(folder.parts)


def places(condition):
    """Return (module, line) of every piece of code that meets a condition."""
    return [
        (module, node.lineno)
        for module, nodes in NODES.items()
        for node in nodes
        if condition(node)
    ]


# Modules


def test_the_checkout_is_tested_and_not_an_installed_copy():
    assert Path(spt.__file__).parent == PACKAGE


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downstairs(module):
    if room(module):
        floor = next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)
        allowed = {room(module)}.union(*FLOORS[:floor])
        assert {room(other) for other in neighbors(module)} <= allowed


def test_every_module_lives_in_a_room():
    rooms = {room(module) for module in MODULES if "." in module or is_door(module)}
    assert rooms == set().union(*FLOORS)
    assert [m for m in MODULES if "." not in m and not is_door(m)] == []


@pytest.mark.parametrize("name", ROOMS)
def test_nothing_goes_round_in_a_circle_inside_a_room(name):
    inside = members(name)
    graph = {module: neighbors(module) & inside - {module} for module in inside}
    assert set(TopologicalSorter(graph).static_order()) == inside


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_has_a_plate_with_a_line_for_each_module(name):
    plate = ast.get_docstring(TREES[name]) or ""
    lines = dict(re.findall(r"^(\w+) : (\S.*)$", plate, re.MULTILINE))
    assert list(lines) == sorted(m.rpartition(".")[2] for m in members(name))


@pytest.mark.parametrize("name", sorted(PLATES))
def test_behind_the_plate_of_a_private_room_is_nothing(name):
    assert len(TREES[name].body) == 1


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_what_one_person_keeps_in_mind(name):
    assert len(members(name)) <= 12


def test_small_modules_serve_more_than_one():
    """A private module of a few lines that one other imports is a part of that one."""
    public = {
        item.__module__ for item in PUBLIC.values() if hasattr(item, "__module__")
    }
    small = [
        module
        for module in MODULES
        if not is_door(module)
        and SOURCES[module].read_text().count("\n") < 100
        and f"spectral_tools.{module}" not in public
        and sum(module in neighbors(other) for other in SOURCES) <= 1
    ]
    assert small == []


@pytest.mark.parametrize("library", DOORS)
def test_each_library_comes_in_by_one_door(library):
    users = {
        module
        for module in TREES
        if any(f"{name}.".startswith(f"{library}.") for name in IMPORTED[module])
    }
    assert users <= {DOORS[library]}


def test_libraries_are_not_reached_past_their_doors():
    """Attributes such as ``np.fft`` need no import of that name."""

    def attribute_of(node):
        """Return the name that this is an attribute of, if it is of a bare name."""
        return getattr(getattr(node, "value", None), "id", None)

    def reaches(node):
        return isinstance(node, ast.Attribute) and (
            attribute_of(node) == "scipy"
            or (attribute_of(node) in {"np", "numpy"} and node.attr == "fft")
        )

    reached = places(reaches)
    doors = {"_shared.ndimage", "_shared.sparse"}
    assert {module for module, _ in reached} == doors
    for module in doors:
        own = {
            ast.unparse(node)
            for node in NODES[module]
            if isinstance(node, ast.Attribute) and attribute_of(node) == "scipy"
        }
        assert {DOORS[name] for name in own} == {module}


def modules_after(code):
    """Return the names of all modules that a new process knows after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_but_numpy():
    known = modules_after("import spectral_tools")
    assert "numpy" in known
    heavy = {"dask", "h5py", "matplotlib", "numba", "scipy", "skimage", "tqdm", "zarr"}
    assert not known & heavy
    rooms = {name for name in known if name.startswith("spectral_tools.")}
    assert rooms == {"spectral_tools._shared", "spectral_tools._shared.results"}


def test_who_matches_does_not_wait_for_what_renders_or_reads():
    known = modules_after("import spectral_tools as spt; spt.phase_correlate")
    assert "spectral_tools._matching.phase_correlate" in known
    assert not known & {"h5py", "matplotlib", "numba", "scipy.ndimage", "scipy.sparse"}
    assert not {name for name in known if "_rendering" in name or "_placement" in name}


def test_what_is_offered_is_what_the_list_of_imports_names():
    tree = ast.parse(PACKAGE.joinpath("__init__.pyi").read_text())
    [listed] = [n.value for n in tree.body if isinstance(n, ast.Assign)]
    assert ast.literal_eval(listed) == spt.__all__
    for name in spt.__all__:
        assert getattr(spt, name) is vars(spt)[name]
    with pytest.raises(AttributeError, match="no_such_name"):
        spt.no_such_name  # noqa: B018


@pytest.mark.parametrize("module", sorted(set(MODULES) - PLATES))
def test_modules_say_what_they_offer(module):
    listed = [
        ast.literal_eval(node.value)
        for node in TREES[module].body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert len(listed) == 1
    assert listed[0] == sorted(listed[0], key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("module", SOURCES)
def test_modules_are_short(module):
    lines = SOURCES[module].read_text().count("\n")
    assert lines <= 600


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    """Docstrings do not count: what is said of a function is not what it does.

    Kernels may be longer: what goes out of their inner loops into a function of its
    own can make them take twice as long.
    """

    def limit(function):
        return 150 if "compiled" in map(ast.unparse, function.decorator_list) else 80

    long = [
        node.name
        for node in NODES[module]
        if isinstance(node, ast.FunctionDef) and code_lines(node) > limit(node)
    ]
    assert long == []


def code_lines(function):
    """Return how many lines a function has without its docstring."""
    first = function.body[0]
    words = first if ast.get_docstring(function) is not None else None
    spoken = words.end_lineno - words.lineno + 1 if words else 0
    return function.end_lineno - function.lineno + 1 - spoken


def numbers(module):
    """Yield (name, value, line) of each numeric constant of a module."""
    for node in TREES[module].body:
        if not isinstance(node, ast.Assign):
            continue
        [target], value = node.targets, node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for name, number in pairs:
            text = ast.unparse(number)
            if re.fullmatch(r"[-+*/().\de ]+", text):
                yield ast.unparse(name), eval(text), node.lineno


def test_no_number_has_two_homes():
    homes = Counter((n, v) for module in SOURCES for n, v, _ in numbers(module))
    assert [number for number, count in homes.items() if count > 1] == []


def test_tests_that_comments_name_are_there():
    """A threshold names what shows it: a test, or a benchmark."""
    there = {path.stem for path in TESTS}
    for path in TESTS:
        there |= set(re.findall(r"def (test_\w+)", path.read_text()))
    named = set()
    for path in SOURCES.values():
        prose = re.sub(r"\n *# *", " ", path.read_text())
        named |= set(re.findall(r"\b(?:test|bench)_\w+", prose))
    assert named - there == set()


def test_thresholds_are_few():
    """Each is a decision that somebody has to understand: what is new replaces two."""
    assert sum(1 for module in SOURCES for _ in numbers(module)) <= 400


def test_nothing_is_left_to_do():
    words = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [m for m, path in SOURCES.items() if words.search(path.read_text())] == []


def test_nothing_prints():
    def prints(node):
        return isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"

    assert places(prints) == []


def test_nothing_is_remembered_between_calls():
    def remembers(node):
        if isinstance(node, ast.FunctionDef):
            return any("cache" in ast.unparse(d) for d in node.decorator_list)
        return isinstance(node, ast.Global | ast.Nonlocal)

    assert places(remembers) == []


def template(node):
    """Return the text of a string or f-string, with ``{}`` where values go."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            value.value if isinstance(value, ast.Constant) else "{}"
            for value in node.values
        )
    return ast.unparse(node)


def messages():
    """Texts of all errors, each with the place where it is made."""
    for module, nodes in NODES.items():
        for node in nodes:
            if not isinstance(node, ast.Assign):
                continue
            if ast.unparse(node.targets[0]) == "message":
                yield pytest.param(
                    template(node.value), id=f"{module or '__init__'}:{node.lineno}"
                )


@pytest.mark.parametrize("text", list(messages()))
def test_errors_say_what_must_be_and_what_was_given(text):
    assert re.search(r"\bmust .+; got .+\.$", text)


def test_errors_are_about_values_or_types():
    own = {
        n for n, o in PUBLIC.items() if inspect.isclass(o) and issubclass(o, ValueError)
    }

    def other(node):
        if not isinstance(node, ast.Raise) or node.exc is None:
            return False
        call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.unparse(call) not in {"ValueError", "TypeError", *own}

    assert places(other) == []


# Public names


def test_public_names_are_sorted():
    assert spt.__all__ == sorted(spt.__all__)


def test_public_names_are_on_the_page_of_functions():
    page = (ROOT / "docs" / "api.rst").read_text()
    listed = re.findall(r"^   (\w+(?:\.\w+)*)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed))
    doors = {name for name in spt.__all__ if inspect.ismodule(PUBLIC[name])}
    assert {name for name in listed if "." not in name} == set(spt.__all__) - doors
    # What is behind a door is listed with its name.
    assert {name.partition(".")[0] for name in listed if "." in name} == doors


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keyword_only(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_most_four_arguments_go_by_position(name):
    kinds = [p.kind for p in inspect.signature(FUNCTIONS[name]).parameters.values()]
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 4
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameter_names_are_house_words(name):
    names = set(inspect.signature(FUNCTIONS[name]).parameters)
    assert not BANNED & names
    assert not [word for word in names if word.startswith("return_")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_has_an_example(name):
    assert ">>>" in inspect.getdoc(FUNCTIONS[name])


def documented(item, heading):
    """Return the names that a section of a numpydoc docstring describes."""
    after = re.split(rf"^{heading}\n-+\n", inspect.getdoc(item), flags=re.MULTILINE)
    if len(after) == 1:
        return []
    section = re.split(r"^\w[\w ]*\n-+\n", after[1], flags=re.MULTILINE)[0]
    entries = re.findall(r"^(\w[\w, ]*) :", section, re.MULTILINE)
    return [word.strip() for entry in entries for word in entry.split(",")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented_parameters_are_the_real_ones(name):
    real = list(inspect.signature(FUNCTIONS[name]).parameters)
    assert documented(FUNCTIONS[name], "Parameters") == real


@pytest.mark.parametrize("name", RESULTS)
def test_documented_attributes_are_the_real_ones(name):
    real = [field.name for field in fields(RESULTS[name])]
    assert documented(RESULTS[name], "Attributes") == real


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_frozen_and_not_tuples(name):
    result = RESULTS[name]
    assert result.__dataclass_params__.frozen
    assert not hasattr(result, "__iter__")
    assert all(field.kw_only for field in fields(result))


def read_only(value):
    """Copy the arrays inside lists and tuples, so that nothing can write to them."""
    if isinstance(value, np.ndarray):
        copy = value.copy()
        copy.setflags(write=False)
        return copy
    if type(value) in (list, tuple):
        return type(value)(read_only(item) for item in value)
    return value


def guarded(function):
    """Wrap a function so that it gets read-only inputs; only `out` may be written."""

    @functools.wraps(function)
    def call(*inputs, **options):
        options = {k: v if k == "out" else read_only(v) for k, v in options.items()}
        return function(*read_only(inputs), **options)

    return call


class Anything(doctest.OutputChecker):
    """Accept every output: what examples print is tested where they stand."""

    def check_output(self, want, got, optionflags):  # noqa: ARG002
        return True


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_are_left_alone(name, monkeypatch):
    """The function's own examples run without an error on read-only inputs."""
    [example] = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name)
    monkeypatch.setattr(spt, name, guarded(FUNCTIONS[name]))
    report = []
    runner = doctest.DocTestRunner(checker=Anything(), verbose=False)
    failures = runner.run(example, out=report.append).failed
    assert failures == 0, "".join(report)


# Tests


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_expected_error_is_matched(path):
    """An error of the right type for the wrong reason must not pass."""
    loose = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", None) in {"raises", "warns"}
        and ast.unparse(node.func) in {"pytest.raises", "pytest.warns"}
        and "match" not in {keyword.arg for keyword in node.keywords}
    ]
    assert loose == []

"""What comes into public functions: one door for each kind, before any work."""

import functools
import inspect
import subprocess
import sys
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

import spectral_tools as spt
from tests.fuzz.odd import Broken, Labelled, Stored, Tensor

ROOT = Path(__file__).parents[2]
FUNCTIONS = {
    f"{prefix}{name}": getattr(door, name)
    for prefix, door in (("", spt), ("io.", spt.io), ("plot.", spt.plot))
    for name in door.__all__
    if inspect.isfunction(getattr(door, name))
}

SCENE = 1000 + 100 * spt.gaussian_texture((140, 140), cutoff=0.3, rng=3)
CORNERS = np.array([(0, 0), (0, 28), (28, 0), (28, 28)])
TILES = [SCENE[r : r + 64, c : c + 64] for r, c in CORNERS]
LINKS = [(0, 1), (0, 2), (1, 3), (2, 3)]
STEPS = np.diff(CORNERS[LINKS], axis=1)[:, 0] + 0.0
NOWHERE = np.zeros((4, 2))
FRAMES = np.stack([SCENE[n : n + 48, 2 * n : 2 * n + 48] for n in range(5)])
SHIFTS = np.arange(5)[:, np.newaxis] * (1.0, 2.0)
POINTS = np.stack(np.mgrid[8:60:12, 8:60:12], -1).reshape(-1, 2) + 0.0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_doors(name):
    assert hasattr(FUNCTIONS[name], "__wrapped__")


# Numbers, flags, words


@pytest.mark.parametrize(
    "flag", [1, 0, "no", "", None, np.array([True]), np.float64(1), [True]]
)
def test_flags_are_true_or_false(flag):
    with pytest.raises(TypeError, match="`robust` must be True or False; got "):
        spt.solve_rigid(LINKS, STEPS, NOWHERE, robust=flag)


@pytest.mark.parametrize("number", [1j, "1", None, True, [1.0], np.datetime64("2020")])
def test_numbers_are_real_and_one(number):
    with pytest.raises(TypeError, match="`angle` must be a number; got "):
        spt.rotation(number)


@pytest.mark.parametrize(
    "number",
    [Fraction(1, 4), Decimal("0.25"), np.float16(0.25), np.array(0.25), Tensor(0.25)],
)
def test_a_number_may_be_of_any_library(number):
    assert_array_equal(spt.rotation(number), spt.rotation(0.25))


@pytest.mark.parametrize("count", [np.int8(1), np.array(1), Tensor(1)])
def test_a_count_may_be_of_any_library(count):
    found = spt.neighbor_mean(FRAMES, count)
    assert_array_equal(found, spt.neighbor_mean(FRAMES, 1))


@pytest.mark.parametrize("count", [1.0, "1", True, 1j, None, (1,)])
def test_counts_are_whole_numbers(count):
    with pytest.raises(TypeError, match="`reach` must be an integer; got "):
        spt.neighbor_mean(FRAMES, count)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spt.seam_residuals((1, 2)), "`placement` must be a Placement; got tu"),
        (lambda: spt.apply_shading(TILES, 3), "`shading` must be a Shading; got int"),
        (
            lambda: spt.io.format_itk("a"),
            "`transform` must be an ITKTransform; got str",
        ),
        (
            lambda: spt.plot.overlay(TILES[0], TILES[0], ax=(1, 2)),
            "`ax` must be an Axes",
        ),
        (lambda: spt.io.read_stos(3), "`path` must be a path; got int"),
        (lambda: spt.io.read_stos(b"a"), "`path` must be a path; got bytes"),
        (lambda: spt.gaussian_texture((9, 9), rng="a"), "`rng` must be a positive int"),
        (
            lambda: spt.gaussian_texture((9, 9), rng=True),
            "`rng` must be a positive int",
        ),
        (
            lambda: spt.resample(TILES[0], 1, 2, dtype="nothing"),
            "`dtype` must be a dtype of",
        ),
        (lambda: spt.grid_links((2, 2), order=3), "`order` must be a string; got int"),
        (lambda: spt.cosine_taper((9.5, 9)), "`shape` must hold integers; got"),
        (lambda: spt.cosine_taper({9: 1, 8: 1}), "`shape` must be a sequence of integ"),
        (
            lambda: spt.whiten(TILES[0], exponent=[1]),
            "`exponent` must be a number; got",
        ),
        (
            lambda: spt.ring_average([[1, 2], [3]]),
            "`values` must hold real numbers, in ro",
        ),
        (lambda: spt.ring_average([["a"]]), "`values` must hold real numbers; got dt"),
        (
            lambda: spt.compare_transforms(POINTS, POINTS, models="affine"),
            "`models` must be a sequence of strings; got str",
        ),
        (lambda: spt.match_grid(*TILES[:2], workers=1.5), "`workers` must be an integ"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("wrong", [len, int, lambda: 1])
def test_what_cannot_be_called_like_map_is_refused(wrong):
    with pytest.raises(TypeError, match="`workers` must be called like `map`; got"):
        spt.match_tiles(TILES, LINKS, workers=wrong)


def test_what_fails_inside_a_map_is_not_called_a_wrong_map():
    def broken(function, items):
        return [function(item) + list(item)[99] for item in items]

    with pytest.raises(IndexError, match="out of range"):
        spt.match_tiles(TILES, LINKS, workers=broken)


class Matrix(np.ndarray):
    """An array of another class, in which rows of points need not be rows."""

    def __new__(cls, array):
        return np.asarray(array).view(cls)

    def __getitem__(self, key):
        return np.asarray(self).ravel()[key]


@pytest.mark.parametrize(
    "form", [Matrix, Tensor, list, iter, lambda p: p.astype(">f8"), np.longdouble]
)
def test_points_come_in_any_form(form):
    found = spt.apply_transform(spt.rotation(0.1), form(POINTS))
    expected = spt.apply_transform(spt.rotation(0.1), POINTS)
    assert type(found) is np.ndarray
    assert_array_equal(found, expected)


# Too much


@pytest.mark.parametrize("value", [1e155, -1.79e308])
def test_points_whose_squares_are_infinite_are_refused(value):
    far = STEPS.copy()
    far[0, 0] = value
    for solve in (spt.solve_rigid, spt.solve_affine):
        with pytest.raises(ValueError, match="`reference_points` must hold numbers be"):
            solve(LINKS, far, NOWHERE)


def test_what_does_not_fit_into_memory_is_refused_with_its_size():
    message = r"`shape` must ask for what fits into memory; got 7.45e\+12 GiB."
    with pytest.raises(ValueError, match=message):
        spt.gaussian_texture((10**9, 10**12))
    with pytest.raises(ValueError, match="`max_shift` must ask for what fits"):
        spt.correlation_surface(*TILES[:2], max_shift=2**40)


def test_no_count_is_more_than_there_is():
    most = spt.neighbor_mean(FRAMES, 4)
    assert_array_equal(spt.neighbor_mean(FRAMES, 2**31), most)
    assert_array_equal(np.stack(list(spt.neighbor_mean(iter(FRAMES), 10**18))), most)
    sections = [SCENE[n : n + 60, n : n + 60] for n in range(3)]
    found = spt.align_stack(sections, reach=2**31)
    assert_array_equal(found.matrices, spt.align_stack(sections, reach=2).matrices)


def test_points_are_refined_until_they_stay():
    points = POINTS[:9] + 1.0
    few, many = (
        spt.refine_points(*TILES[:1] * 2, points, points, iterations=count)
        for count in (30, 10**6)
    )
    assert_array_equal(few.moving_points, many.moving_points)


def test_windows_that_repeat_each_other_are_refused():
    with pytest.raises(ValueError, match=r"`spacing` must be at least .* a quarter of"):
        spt.match_grid(*TILES[:2], size=32, spacing=1)
    with pytest.raises(ValueError, match="`scale` must be at most 64 pixels"):
        spt.refine_points(*TILES[:2], POINTS, POINTS, scale=1e6)


# Labels


@pytest.mark.parametrize(
    "form",
    [
        lambda pair: tuple(map(np.array, pair)),
        lambda pair: tuple(map(Tensor, pair)),
        Tensor,
        list,
        lambda pair: tuple(map(np.uint8, pair)),
    ],
)
def test_labels_are_equal_by_value(form):
    found = spt.solve_rigid([form(pair) for pair in LINKS], STEPS, NOWHERE)
    expected = spt.solve_rigid(LINKS, STEPS, NOWHERE)
    assert_array_equal(found.matrices, expected.matrices)
    assert list(found.labels) == [0, 1, 2, 3]


def test_large_numbers_are_names():
    names = np.array([5, 10**18, 7, 10**12])
    found = spt.solve_rigid(names[LINKS], STEPS, NOWHERE)
    assert found.labels == [5, 7, 10**12, 10**18]
    expected = spt.solve_rigid(LINKS, STEPS, NOWHERE).matrices
    assert_array_equal(found.matrices, expected[[0, 2, 3, 1]])
    links = np.repeat([(3, 10**18)], len(POINTS), axis=0)
    relaxed = spt.relax_meshes(links, POINTS, POINTS, (64, 64))
    assert relaxed.displacement.shape == (2, 64, 64, 2)


@pytest.mark.parametrize(
    "links", [3, None, "ab", {1: 2}, [None], [3], ["ab"], [{1, 2}]]
)
def test_links_are_pairs(links):
    with pytest.raises(TypeError, match="`links` must hold pairs of tiles; got "):
        spt.solve_rigid(links, STEPS[:1], NOWHERE[:1])


# Containers

PLACED = spt.solve_rigid([(0, 1), (1, 2), (2, 3), (3, 4)], SHIFTS[1:], SHIFTS[:-1])
MATRICES = np.stack([spt.translation(shift) for shift in SHIFTS])
SHADING = spt.Shading(flat=np.full((48, 48), 1.25), dark=np.zeros((48, 48)))
CHAIN = [(n, n + 1) for n in range(4)]
#: What each function that takes a stack answers.
ANSWERS = {
    "align_series": lambda s: spt.align_series(s).shifts,
    "align_stack": lambda s: spt.align_stack(s, reach=1).matrices,
    "apply_shading": lambda s: spt.apply_shading(s, SHADING),
    "apply_shifts": lambda s: spt.apply_shifts(s, SHIFTS),
    "camera_pattern": spt.camera_pattern,
    "composite_blocks": lambda s: next(b for _, b in spt.composite_blocks(s, MATRICES)),
    "composite_bounds": lambda s: spt.composite_bounds(s, MATRICES),
    "estimate_shading": lambda s: spt.estimate_shading(s).flat,
    "lazy_composite": lambda s: np.asarray(spt.lazy_composite(s, MATRICES)),
    "make_template": lambda s: spt.make_template(s, SHIFTS),
    "match_tiles": lambda s: spt.match_tiles(s, CHAIN).reference_points,
    "neighbor_mean": lambda s: spt.neighbor_mean(s, 1),
    "overlap_scores": lambda s: spt.overlap_scores(s, PLACED).correlation,
    "place_tiles": lambda s: spt.place_tiles(s, positions=SHIFTS).matrices,
    "solve_gains": lambda s: spt.solve_gains(s, MATRICES).gain,
    "warp_composite": lambda s: spt.warp_composite(s, MATRICES).image,
}
FORMS = {
    "zarr": zarr.array,
    "read where it is sliced": Stored,
    "labelled": Labelled,
    "tensor": Tensor,
    "list of tensors": lambda stack: [Tensor(each) for each in stack],
    "list of stored": lambda stack: [Stored(each) for each in stack],
    "big-endian": lambda stack: stack.astype(">f8"),
    "values of a dict": lambda stack: dict(enumerate(stack)).values(),
    "memoryview": lambda stack: memoryview(np.ascontiguousarray(stack)),
}


@functools.cache
def plain_answer(name):
    """Return what a function answers to an array, which tests share."""
    return ANSWERS[name](FRAMES)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ANSWERS)
def test_stacks_of_other_libraries_count_by_value(name, form):
    held = FORMS[form](FRAMES)
    found = ANSWERS[name](held)
    if inspect.isgenerator(found):
        # Frames that come one by one are answered one by one.
        found = np.stack(list(found))
    assert_array_equal(found, plain_answer(name))


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"apply_shading"}))
def test_an_image_that_is_missing_shows_nothing(name):
    """Where mosaics are made its neighbours fill the gap, and elsewhere NaN does."""
    gap = [*FRAMES[:2], None, *FRAMES[3:]]
    holes = FRAMES.copy()
    holes[2] = np.nan
    assert_array_equal(ANSWERS[name](gap), ANSWERS[name](list(holes)))


def test_masks_go_by_label_and_some_may_be_missing():
    valid = [tile > 950 for tile in TILES]
    tiles, pairs = dict(zip("abcd", TILES, strict=True)), ["ab", "ac", "bd", "cd"]
    found = spt.match_tiles(
        tiles, list(map(tuple, pairs)), valid={"d": valid[3], "b": valid[1]}
    )
    listed = spt.match_tiles(TILES, LINKS, valid=[None, valid[1], None, valid[3]])
    assert_array_equal(found.reference_points, listed.reference_points)
    with pytest.raises(ValueError, match="`valid` must name known tiles; got 'z'"):
        spt.match_tiles(tiles, list(map(tuple, pairs)), valid={"z": valid[0]})


# One bad entry


@pytest.mark.parametrize("workers", [1, 2, map])
def test_a_tile_that_cannot_be_read_costs_its_own_links(workers):
    tiles = dict(zip("abcd", TILES, strict=True)) | {"b": Broken((64, 64))}
    links = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    with pytest.warns(
        spt.UnreadableWarning, match="got none of these: 'b'. The first said OSError"
    ) as told:
        found = spt.match_tiles(tiles, links, workers=workers)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert list(found.outcome == "not found") == [True, False, True, False]
    whole = spt.match_tiles(TILES, LINKS)
    assert_array_equal(found.reference_points[1::2], whole.reference_points[1::2])
    assert_array_equal(found.covariance[1::2], whole.covariance[1::2])


def test_tiles_are_placed_beside_one_that_cannot_be_read():
    tiles = [*TILES[:3], Broken((64, 64))]
    with pytest.warns(spt.UnreadableWarning, match="got none of these: 3") as told:
        placed = spt.place_tiles(tiles, positions=CORNERS)
    assert len(told) == 1
    assert list(map(str, placed.outcome)) == ["matched"] * 3 + ["by prior only"]


# Odd calls


def run_odd_calls(calls, seed):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--calls",
            str(calls),
            "--seed",
            str(seed),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.stdout}{done.stderr}".strip()


def test_odd_calls_get_clear_errors():
    assert run_odd_calls(100, 11).count("\n") == 0


@pytest.mark.slow
def test_many_odd_calls_get_clear_errors():
    assert run_odd_calls(20_000, 12).count("\n") == 0


def test_odd_calls_show_what_is_wrong():
    """A referee that finds nothing may be blind."""
    from tests.fuzz.__main__ import faults_of  # noqa: PLC0415

    def wrong(values):
        values[0] = 7
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
        return {}[3]

    kinds = {kind for kind, _ in faults_of(wrong, {"values": np.zeros(3)})}
    assert kinds == {"raw error", "leaked warning", "changed input"}

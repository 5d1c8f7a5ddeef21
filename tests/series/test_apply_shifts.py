"""Frames are moved as splines say, and whole pixels are copied."""

import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt

RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(3, 33, 47))
SHIFTS = RNG.uniform(-6, 6, size=(3, 2))
BORDERS = {"nearest": "nearest", "mirror": "mirror", "wrap": "grid-wrap"}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize("shape", [(33, 47), (9, 20, 17)])
def test_frames_are_what_splines_say(shape, order, border):
    frames = RNG.normal(size=(2, *shape))
    shifts = RNG.uniform(-6, 6, size=(2, len(shape)))
    found = spt.apply_shifts(frames, shifts, order=order, border=border)
    for frame, shift, moved in zip(frames, shifts, found, strict=True):
        turned = np.rint(shift) if order == 0 else shift
        expected = ndimage.shift(frame, turned, order=order, mode=BORDERS[border])
        # SciPy cuts its own splines off where they fall below 1e-7 beyond a border.
        assert_allclose(moved, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("border", ["constant", *BORDERS])
@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_whole_shifts_copy_pixels(order, border):
    frames = RNG.integers(0, 2**16, size=(1, 12, 15), dtype=np.uint16)
    moved = spt.apply_shifts(frames, [(2, -3)], order=order, border=border)
    assert moved.dtype == np.uint16
    assert_array_equal(moved[0, 2:, :-3], frames[0, :-2, 3:])


def test_what_no_pixel_covers_is_filled():
    moved = spt.apply_shifts(np.ones((1, 6, 8)), [(1.4, -0.6)], fill_value=np.nan)
    expected = np.ones((6, 8))
    # Row 1 lies 0.4 pixels before the first centre, which still is on the frame.
    expected[:1], expected[:, -1:] = np.nan, np.nan
    assert_allclose(moved[0], expected)


@pytest.mark.parametrize("border", ["constant", *BORDERS])
def test_constant_frames_stay_constant(border):
    frames = np.full((2, 20, 24), 7.3, np.float32)
    moved = spt.apply_shifts(
        frames, [(0.3, 4.6), (-30, 2.5)], border=border, fill_value=7.3
    )
    assert_allclose(moved, frames, rtol=1e-6)


@pytest.mark.parametrize("shift", [(100, 0), (0, -47), (33, 47)])
def test_frames_that_left_the_view_are_gone(shift):
    assert_array_equal(spt.apply_shifts(FRAMES[:1], [shift], fill_value=-1), -1)


def test_nan_stays_where_it_was_and_spreads_no_further():
    frames = FRAMES[:1].copy()
    frames[0, 10, 10] = np.nan
    moved = spt.apply_shifts(frames, [(2.5, 0)])
    assert_array_equal(np.argwhere(np.isnan(moved[0])), [(12, 10), (13, 10)])


def test_integers_are_rounded_and_clipped():
    frames = np.zeros((1, 16, 16), np.uint8)
    frames[0, 8:] = 255
    moved = spt.apply_shifts(frames, [(0.45, 0)], order=3)
    exact = spt.apply_shifts(frames.astype(float), [(0.45, 0)], order=3)
    assert exact.max() > 255
    assert exact.min() < 0
    assert_array_equal(moved, np.clip(np.rint(exact), 0, 255))


@pytest.mark.parametrize("shift", [(2, -1), (0.45, 0.3)])
@pytest.mark.parametrize("kind", [np.uint64, np.int64])
def test_the_largest_integers_do_not_wrap_around(kind, shift):
    top = np.iinfo(kind).max
    frames = np.full((1, 20, 20), top, kind)
    frames[0, 8:12, 8:12] = top - 7
    moved = spt.apply_shifts(frames, [shift], border="nearest")
    if shift == (2, -1):
        assert_array_equal(moved[0], np.roll(frames[0], shift, (0, 1)))
    # Floats of this size are 2048 or 1024 apart, and a spline adds up 16 and more.
    assert moved.min() >= top - 100_000


def test_integers_are_clipped_to_another_kind():
    frames = np.array([[[-5, 3, 1000]]])
    moved = spt.apply_shifts(frames, [(0, 0)], dtype=np.uint8)
    assert_array_equal(moved, [[[0, 3, 255]]])


def test_nan_is_filled_where_integers_are_wanted():
    frames = np.array([[[1.0, np.nan, 3.0]]])
    moved = spt.apply_shifts(frames, [(0, 0)], dtype=np.uint8, fill_value=9)
    assert_array_equal(moved, [[[1, 9, 3]]])


@pytest.mark.parametrize("border", BORDERS)
def test_shifts_of_any_length_are_right(border):
    """A shift by very many periods of the border is one by few of them."""
    period = {"nearest": 33, "mirror": 2 * 32, "wrap": 33}[border]
    far, near = period * 2.0**40 + 5, period * 4 + 5
    found = [
        spt.apply_shifts(FRAMES[:1], [(rows, 0)], border=border) for rows in (far, near)
    ]
    expected = ndimage.shift(FRAMES[0], (near, 0), order=0, mode=BORDERS[border])
    if border == "nearest":
        expected = np.tile(FRAMES[0, 0], (33, 1))
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[0][0], expected)


def test_inputs_stay_and_results_are_their_own():
    before = FRAMES.copy()
    moved = spt.apply_shifts(FRAMES, np.zeros((3, 2)))
    assert not np.shares_memory(moved, FRAMES)
    spt.apply_shifts(FRAMES, SHIFTS)
    assert_array_equal(FRAMES, before)


def test_planes_are_moved_on_their_own():
    frames = RNG.normal(size=(2, 3, 12, 14))
    shifts = RNG.integers(-3, 4, size=(2, 2, 2))
    moved = spt.apply_shifts(frames, shifts, planes=[[0, 2], [1]])
    for plane, group in ((0, 0), (1, 1), (2, 0)):
        alone = spt.apply_shifts(frames[:, plane], shifts[:, group])
        assert_array_equal(moved[:, plane], alone)


def test_stores_iterators_and_workers_give_the_same(tmp_path):
    expected = spt.apply_shifts(FRAMES, SHIFTS)
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["movie"] = FRAMES
        out = file.create_dataset("moved", FRAMES.shape, FRAMES.dtype)
        assert spt.apply_shifts(file["movie"], SHIFTS, out=out, workers=2) is out
        assert_array_equal(out[...], expected)
    read = spt.apply_shifts((frame for frame in FRAMES), SHIFTS)
    assert_array_equal(read, expected)


def test_iterator_of_another_length_is_refused():
    with pytest.raises(ValueError, match="one shift for each frame; got 5 shifts"):
        spt.apply_shifts(iter(FRAMES), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="one shift for each frame; got 2 shifts"):
        spt.apply_shifts(iter(FRAMES), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"shifts": np.zeros((2, 2))}, "one shift for each of 3 frames; got 2"),
        ({"shifts": np.zeros((3, 3))}, r"must have shape \(n, 2\)"),
        ({"order": 2}, "`order` must be one of"),
        ({"border": "reflect"}, "`border` must be one of"),
        ({"out": np.zeros((2, 2))}, r"`out` must have shape \(3, 33, 47\)"),
        ({"dtype": np.uint8, "fill_value": -1}, "`fill_value` must be representable"),
    ],
)
def test_bad_arguments_are_named(kwargs, match):
    arguments = {"shifts": SHIFTS} | kwargs
    with pytest.raises(ValueError, match=match):
        spt.apply_shifts(FRAMES, arguments.pop("shifts"), **arguments)


def test_series_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame; got none"):
        spt.apply_shifts(np.zeros((0, 4, 4)), np.zeros((0, 2)))


# Around them


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 9), st.integers(4, 9), st.integers(0, 2**16))
def test_common_area_is_what_every_frame_shows(rows, cols, number):
    shifts = np.random.default_rng(number).uniform(-2, 2, size=(3, 2))
    inside = spt.common_area((rows, cols), shifts)
    points = np.stack(np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij"), -1)
    seen = points[None] - shifts[:, None, None]
    expected = ((seen >= 0) & (seen <= (rows - 1, cols - 1))).all(axis=(0, -1))
    found = np.zeros((rows, cols), bool)
    found[inside] = True
    assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "shifts", "error", "message"),
    [
        ((100,), [(1, 2)], ValueError, "`shape` must hold 2 or 3 positive integers"),
        ((-3, 80), [(1, 2)], ValueError, "`shape` must hold 2 or 3 positive integers"),
        ((9.5, 80), [(1, 2)], TypeError, "`shape` must hold integers"),
        ((9, 8), [1, 2, 3], ValueError, r"`shifts` must have shape \(..., 2\)"),
        ((9, 8), [(np.nan, 2)], ValueError, "`shifts` must be finite"),
        ((9, 8), [], ValueError, "`shifts` must hold at least one shift"),
    ],
)
def test_areas_that_make_no_sense_are_refused(shape, shifts, error, message):
    with pytest.raises(error, match=message):
        spt.common_area(shape, shifts)


def test_frames_that_went_far_away_have_no_common_area():
    area = spt.common_area((5, 6), [(0, 0), (1e30, 0)])
    assert area[0] == slice(5, 5)


def test_frames_that_share_nothing_have_no_common_area():
    area = spt.common_area((5, 6), [(0, 0), (9, 0)])
    assert np.zeros((5, 6))[area].size == 0


def test_template_is_the_mean_of_what_is_seen():
    frames = RNG.normal(size=(3, 8, 9))
    found = spt.make_template(frames, [(0, 0), (2, 0), (-8, 0)])
    assert_allclose(found[2:], (frames[0, 2:] + frames[1, :-2]) / 2)
    assert_allclose(found[:2], frames[0, :2])


def test_template_is_unknown_where_no_frame_is():
    found = spt.make_template(FRAMES[:2], [(3, 0), (4, 0)])
    assert np.isnan(found[:3]).all()
    assert np.isfinite(found[3:]).all()


@pytest.mark.parametrize("shifts", [(2, -3), (0.4, -1.7)])
def test_frames_are_replaced_in_place_on_request(shifts):
    moves = np.tile(np.array(shifts, dtype=float), (len(FRAMES), 1))
    moved = spt.apply_shifts(FRAMES, moves, border="wrap")
    frames = FRAMES.copy()
    assert spt.apply_shifts(frames, moves, border="wrap", out=frames) is frames
    np.testing.assert_array_equal(frames, moved)


@pytest.mark.parametrize("workers", [1, map])
def test_frames_are_rounded_to_the_type_of_where_they_go(workers, tmp_path):
    frames = np.array([[[-3.0, 0.7, 1.4], [254.6, 300.0, 8.0]]])
    expected = [[[0, 1, 1], [255, 255, 8]]]
    with h5py.File(tmp_path / "moved.h5", "w") as file:
        store = file.create_dataset("moved", (1, 2, 3), np.uint8)
        for out in (np.zeros((1, 2, 3), np.uint8), store):
            spt.apply_shifts(frames, [(0, 0)], out=out, workers=workers)
            assert_array_equal(out[:], expected)


def test_fill_value_is_held_against_where_frames_go():
    frames = np.ones((1, 2, 3), np.uint8)
    out = np.zeros((1, 2, 3))
    spt.apply_shifts(frames, [(1, 0)], out=out, fill_value=np.nan)
    assert np.isnan(out[0, 0]).all()
    with pytest.raises(ValueError, match="`fill_value` must be representable in uint8"):
        spt.apply_shifts(out, [(1, 0)], out=frames, fill_value=-1)


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
@pytest.mark.parametrize("shift", [(1, 0), (0.5, 0)])
def test_half_floats_become_integers(shift, dtype):
    frames = np.array([[[1, 2], [3, 60000]], [[-4, 5], [6, 7]]], np.float16)
    shifts = [shift, shift]
    found = spt.apply_shifts(frames, shifts, dtype=dtype)
    wide = spt.apply_shifts(frames.astype(float), shifts, dtype=dtype)
    # A spline of half floats is one of single precision: one in 2^24, then rounding.
    assert_allclose(found, wide, rtol=1e-6, atol=1)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_flags_show_what_is_nearer(order):
    frames = np.zeros((1, 5, 9), bool)
    frames[..., 4:6] = True
    for shift, first in ((0.3, 4), (0.7, 5), (-0.3, 4)):
        moved = spt.apply_shifts(frames, [(0, shift)], order=order)
        assert_array_equal(moved, np.roll(frames, first - 4, axis=2))


@pytest.mark.parametrize("shift", [0.5, -0.5, 1.5, -1.5, 2.5, -2.5])
def test_nearest_pixel_at_a_border_is_the_one_there(shift):
    frames = np.arange(2.0, 8.0)[None, None] + np.zeros((1, 2, 1))
    moved = spt.apply_shifts(frames, [(0, shift)], order=0, fill_value=-1)[0, 0]
    there = moved[moved > 0]
    assert_array_equal(there, np.sort(there))
    assert (2 if shift > 0 else 7) in there


@pytest.mark.parametrize("workers", [1, 2, map])
@pytest.mark.parametrize("step", [1, -1])
def test_frames_are_read_before_others_are_written_over_them(step, workers):
    room = RNG.normal(size=(40, 6, 7))
    given, to = (room[:-1], room[1:]) if step > 0 else (room[1:], room[:-1])
    moves = np.tile([0.3, 1.0], (39, 1))
    moved = spt.apply_shifts(given.copy(), moves)
    assert spt.apply_shifts(given, moves, out=to, workers=workers) is to
    assert_array_equal(to, moved)


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_does_not_grow_with_frames_that_are_read_once(workers):
    class Nowhere:
        def __init__(self, count):
            self.shape, self.dtype = (count, 512, 512), np.dtype(np.float32)

        def __setitem__(self, key, value):
            pass

    def peak(count):
        frames = (np.full((512, 512), n, np.float32) for n in range(count))
        tracemalloc.start()
        spt.apply_shifts(
            frames, np.ones((count, 2)), out=Nowhere(count), workers=workers
        )
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(16)
    # 64 MiB may wait for workers, which 100 frames more than fill.
    assert peak(300) < 1.3 * peak(100)

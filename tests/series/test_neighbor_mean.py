"""Means of the neighbours of each frame, without the frame itself."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

FRAMES = np.random.default_rng(0).normal(size=(9, 4, 5))


def near(count, n, reach):
    return [k for k in range(max(0, n - reach), min(count, n + reach + 1)) if k != n]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 9), reach=st.integers(1, 12))
def test_each_mean_is_that_of_the_neighbours(count, reach):
    found = spt.neighbor_mean(FRAMES[:count], reach)
    expected = [FRAMES[near(count, n, reach)].mean(axis=0) for n in range(count)]
    # Sums in another order differ by a few units in the last place.
    assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_pixels_that_are_not_finite_do_not_count():
    frames = FRAMES.copy()
    frames[2, 1, 1], frames[4, 1, 1], frames[4, 0, 0] = np.nan, np.inf, -np.inf
    found = spt.neighbor_mean(frames, 1)
    assert np.isnan(found[3, 1, 1])
    assert found[3, 0, 0] == frames[2, 0, 0]
    assert found[5, 1, 1] == frames[6, 1, 1]
    assert np.isfinite(found).sum() == found.size - 1


def test_a_frame_has_no_part_in_its_own_mean():
    frames = FRAMES.copy()
    frames[4] = 1e30
    assert_array_equal(spt.neighbor_mean(frames, 2)[4], spt.neighbor_mean(FRAMES, 2)[4])


def test_a_bright_frame_leaves_no_trace_once_it_is_past():
    frames = FRAMES.copy()
    frames[0] = 1e30
    assert_array_equal(
        spt.neighbor_mean(frames, 2)[3:], spt.neighbor_mean(FRAMES, 2)[3:]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, bool])
def test_dtypes_are_those_of_computed_images(dtype):
    frames = np.array([1, 0, 1, 1]).reshape(4, 1, 1).astype(dtype)
    found = spt.neighbor_mean(frames, 1)
    assert found.dtype == np.result_type(dtype, np.float32)
    assert_array_equal(found.ravel(), [0, 1, 0.5, 1])


def test_stacks_lists_and_iterators_agree():
    whole = spt.neighbor_mean(FRAMES, 3)
    assert_array_equal(spt.neighbor_mean(list(FRAMES), 3), whole)
    one_by_one = spt.neighbor_mean(iter(FRAMES), 3)
    assert iter(one_by_one) is one_by_one
    assert_array_equal(np.stack(list(one_by_one)), whole)


@pytest.mark.parametrize("frames", [FRAMES, iter(FRAMES)], ids=["stack", "iterator"])
def test_means_are_written_where_they_shall_go(frames):
    out = np.empty(FRAMES.shape)
    assert spt.neighbor_mean(frames, 2, out=out) is out
    assert_array_equal(out, spt.neighbor_mean(FRAMES, 2))


def test_volumes_are_averaged_plane_by_plane():
    volumes = FRAMES[:8].reshape(4, 2, 4, 5)
    found = spt.neighbor_mean(volumes, 1)
    assert_array_equal(found[:, 1], spt.neighbor_mean(volumes[:, 1], 1))


def test_no_more_frames_are_read_than_are_needed():
    read = []

    def frames():
        for n, frame in enumerate(FRAMES):
            read.append(n)
            yield frame

    means = spt.neighbor_mean(frames(), 2)
    next(means)
    assert read == [0, 1, 2]


def test_memory_does_not_grow_with_the_series():
    def most(count):
        tracemalloc.start()
        frames = (np.full((64, 64), float(n)) for n in range(count))
        for _ in spt.neighbor_mean(frames, 2):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(20)
    # Two frames more or less, of 200 that would be held otherwise.
    assert most(200) < most(20) + 2 * 64 * 64 * 8


def test_frames_that_are_read_only_are_left_alone():
    frames = FRAMES.copy()
    frames.flags.writeable = False
    assert_array_equal(spt.neighbor_mean(frames, 1), spt.neighbor_mean(FRAMES, 1))


@pytest.mark.parametrize("single", [FRAMES[:1], list(FRAMES[:1]), iter(FRAMES[:1])])
def test_one_frame_has_no_neighbours(single):
    with pytest.raises(ValueError, match="`frames` must hold at least"):
        spt.neighbor_mean(single, 1)


def test_frames_of_two_shapes_are_refused():
    means = spt.neighbor_mean(iter([*FRAMES[:3], FRAMES[3, :2]]), 1)
    with pytest.raises(ValueError, match="`frames` must all have the same shape"):
        list(means)


def test_reach_is_a_whole_number():
    with pytest.raises(ValueError, match="`reach` must be at least 1; got 0"):
        spt.neighbor_mean(FRAMES, 0)
    with pytest.raises(TypeError, match="`reach` must be an integer; got float"):
        spt.neighbor_mean(FRAMES, 1.5)


@pytest.mark.parametrize("shape", [(8, 4, 5), (9, 4, 4)])
def test_the_store_has_the_shape_of_the_series(shape):
    with pytest.raises(ValueError, match="`out` must have shape"):
        spt.neighbor_mean(FRAMES, 1, out=np.empty(shape))


@pytest.mark.parametrize("count", [8, 10])
def test_the_store_has_room_for_all_that_an_iterator_gives(count):
    with pytest.raises(ValueError, match="`out` must have room for 9 frames; got"):
        spt.neighbor_mean(iter(FRAMES), 1, out=np.empty((count, 4, 5)))


def test_complex_frames_are_refused():
    with pytest.raises(TypeError, match="`frames` must hold real numbers"):
        spt.neighbor_mean(FRAMES * 1j, 1)


def test_means_may_take_the_place_of_the_frames():
    frames = np.arange(5.0).reshape(5, 1, 1).repeat(2, 1)
    expected = spt.neighbor_mean(frames.copy(), 1)
    spt.neighbor_mean(frames, 1, out=frames)
    assert (frames == expected).all()

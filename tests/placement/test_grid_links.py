import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

ORDERS = ["rows", "columns", "snake", "columns-snake"]


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 1), 0), ((1, 5), 4), ((3, 4), 17), ((2, 3, 4), 46)]
)
def test_grid_has_one_link_for_each_face(shape, count):
    links = spt.grid_links(shape)
    assert links.shape == (count, 2)


@pytest.mark.parametrize(("shape", "count"), [((3, 4), 29), ((2, 2, 2), 28)])
def test_diagonal_links_are_added(shape, count):
    assert len(spt.grid_links(shape, diagonal=True)) == count


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 5)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_links_join_neighbours_in_every_order(order, shape, diagonal):
    links = spt.grid_links(shape, order=order, diagonal=diagonal)
    cells = spt.grid_positions(shape, (10,) * len(shape), overlap=0.9, order=order)
    step = np.abs(cells[links[:, 1]] - cells[links[:, 0]])
    # 1e-9: a pitch of 10 (1 - 0.9) is 1 but for rounding.
    assert_allclose(step.max(axis=1), 1, rtol=0, atol=1e-9)
    if not diagonal:
        assert_allclose(step.sum(axis=1), 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_links_are_sorted(order):
    links = spt.grid_links((4, 5), order=order, diagonal=True)
    assert (links[:, 0] < links[:, 1]).all()
    assert_array_equal(links, sorted(links.tolist()))


@pytest.mark.parametrize(
    ("order", "cells"),
    [
        ("rows", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ("columns", [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]),
        ("snake", [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]),
        ("columns-snake", [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]),
    ],
)
def test_positions_come_in_the_order_of_acquisition(order, cells):
    positions = spt.grid_positions((2, 3), (1, 1), overlap=0, order=order)
    assert_array_equal(positions, cells)


def test_planes_of_a_snake_start_at_the_same_corner():
    positions = spt.grid_positions((2, 2, 2), (1, 1, 1), overlap=0, order="snake")
    assert_array_equal(positions[:4, 1:], positions[4:, 1:])
    assert_array_equal(positions[:, 0], np.repeat([0, 1], 4))


def test_overlap_may_differ_between_axes():
    positions = spt.grid_positions((2, 2), (100, 200), overlap=(0.1, 0.25))
    assert_allclose(positions[-1], (90, 150))


@pytest.mark.parametrize("order", ORDERS)
def test_overlaps_of_a_grid_are_its_links(order):
    positions = spt.grid_positions((5, 4), (100, 80), order=order)
    found = spt.overlapping_links(positions, (100, 80))
    assert_array_equal(found, spt.grid_links((5, 4), order=order))


def test_corners_count_if_asked_for():
    positions = spt.grid_positions((5, 4), (100, 80))
    found = spt.overlapping_links(positions, (100, 80), min_overlap=0.005)
    assert_array_equal(found, spt.grid_links((5, 4), diagonal=True))


def brute_force(positions, shapes, min_overlap, margin):
    """Compare all pairs, one by one."""
    found = []
    for i, j in np.argwhere(np.triu(np.ones((len(positions),) * 2), 1)):
        low = np.maximum(positions[i], positions[j]) - margin
        high = np.minimum(positions[i] + shapes[i], positions[j] + shapes[j]) + margin
        area = np.maximum(high - low, 0).prod()
        smaller = min(shapes[i].prod(), shapes[j].prod())
        if area > 0 and area >= min_overlap * smaller:
            found.append((i, j))
    return np.reshape(found, (-1, 2))


@given(
    positions=arrays(np.float64, (12, 2), elements=st.floats(-50, 50)),
    shapes=arrays(np.float64, (12, 2), elements=st.sampled_from([1, 9, 30, 200])),
    min_overlap=st.sampled_from([0, 0.02, 0.5]),
    margin=st.sampled_from([0, 4]),
)
def test_all_overlaps_are_found_whatever_the_sizes(
    positions, shapes, min_overlap, margin
):
    found = spt.overlapping_links(
        positions, shapes, min_overlap=min_overlap, margin=margin
    )
    assert_array_equal(found, brute_force(positions, shapes, min_overlap, margin))


def test_margin_joins_tiles_that_stage_errors_could_join():
    positions = [(0, 0), (0, 104)]
    assert len(spt.overlapping_links(positions, (100, 100))) == 0
    assert len(spt.overlapping_links(positions, (100, 100), margin=5)) == 1


def test_touching_tiles_do_not_overlap():
    links = spt.overlapping_links([(0, 0), (0, 10)], (10, 10), min_overlap=0)
    assert links.shape == (0, 2)


def test_no_tiles_have_no_links():
    links = spt.overlapping_links(np.empty((0, 2)), (10, 10))
    assert links.shape == (0, 2)


def test_an_overview_does_not_make_every_pair_a_candidate():
    """Ten thousand tiles make fifty million pairs, of which 0.06 % overlap."""
    tiles = spt.grid_positions((100, 100), (10, 10))
    shapes = np.vstack([np.full((len(tiles), 2), 10), [(1000, 1000)]])
    start = time.process_time()
    links = spt.overlapping_links(np.vstack([tiles, [(0, 0)]]), shapes)
    # It takes 0.1 s; all pairs would take tens of seconds.
    assert time.process_time() - start < 5
    assert len(links) == 2 * 99 * 100 + 10_000


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"overlap": 1}, "`overlap` must be at least 0 and below 1; got"),
        ({"overlap": (0.1, -0.1)}, "`overlap` must be at least 0 and below 1; got"),
        ({"overlap": (0.1, 0.1, 0.1)}, r"`overlap` must be a number or have shape"),
        ({"order": "spiral"}, "`order` must be one of 'rows', .*; got 'spiral'"),
    ],
)
def test_grid_must_make_sense(options, match):
    with pytest.raises(ValueError, match=match):
        spt.grid_positions((2, 2), (10, 10), **options)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 2, 3, 4)])
def test_grid_must_have_two_or_three_axes(shape):
    with pytest.raises(ValueError, match="`shape` must hold 2 or 3 positive integers"):
        spt.grid_links(shape)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ([(5, 5)] * 3, "`tile_shapes` must have one row for each of 2 tiles; got 3"),
        ((5, 0), "`tile_shapes` must be greater than 0; got 0"),
        ((5, 5, 5), r"`tile_shapes` must have shape \(n, 2\)"),
    ],
)
def test_tile_shapes_must_fit_the_tiles(shapes, match):
    with pytest.raises(ValueError, match=match):
        spt.overlapping_links([(0, 0), (1, 1)], shapes)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_overlap": 2}, "`min_overlap` must be between 0 and 1; got 2"),
        ({"margin": -1}, "`margin` must be finite and at least 0; got -1"),
    ],
)
def test_overlaps_must_make_sense(options, match):
    with pytest.raises(ValueError, match=match):
        spt.overlapping_links([(0, 0), (1, 1)], (5, 5), **options)

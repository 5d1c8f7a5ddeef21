"""Whoever computes, and wherever, the result has the same bits."""

import functools
import inspect
import pickle
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

import spectral_tools as spt

LINKS = spt.grid_links((2, 2))
CORNERS = spt.grid_positions((2, 2), (60, 60))
POINTS = np.array([(60.0, 70), (90, 99), (120, 60)])
MATRICES = np.stack([spt.translation(corner) for corner in CORNERS])


def elsewhere(function, items):
    """Use a function like `map`, in copies as another process gets them."""
    for item in items:
        copy, part = pickle.loads(pickle.dumps((function, item)))
        yield pickle.loads(pickle.dumps(copy(part)))


class Given(NamedTuple):
    """Four tiles, six frames, and two images that are bent against each other."""

    tiles: list
    frames: np.ndarray
    pair: tuple


@pytest.fixture(scope="module")
def given():
    """Views into one scene: nothing lies in one piece."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(200, 230))
    scene = 100 + 9 * ndimage.gaussian_filter(noise, 1.5, mode="wrap")
    tiles = [scene[r : r + 80, c : c + 80] for r, c in CORNERS.astype(int) + 1]
    frames = np.stack([scene[i : i + 64, 2 * i : 2 * i + 90] for i in range(6)])
    frames += rng.normal(size=frames.shape)
    bent = ndimage.shift(scene, (0.4, -0.3), order=5, mode="grid-wrap")
    pair = scene[4:180, 3:200], bent[2:178, 5:202]
    return Given(tiles, frames.transpose(0, 2, 1), pair)


CALLS = {
    "align_series": lambda given, workers: spt.align_series(
        given.frames, workers=workers
    ),
    "align_stack": lambda given, workers: spt.align_stack(
        given.frames, workers=workers
    ),
    "apply_shifts": lambda given, workers: spt.apply_shifts(
        given.frames, np.full((6, 2), 0.3), workers=workers
    ),
    "estimate_shading": lambda given, workers: spt.estimate_shading(
        given.tiles * 4, workers=workers
    ),
    "find_control_points": lambda given, workers: spt.find_control_points(
        *given.pair, workers=workers
    ),
    "make_template": lambda given, workers: spt.make_template(
        given.frames, np.full((6, 2), 0.3), workers=workers
    ),
    "match_grid": lambda given, workers: spt.match_grid(
        *given.pair, size=48, spacing=30, workers=workers
    ),
    "match_tiles": lambda given, workers: spt.match_tiles(
        given.tiles, LINKS, positions=CORNERS, max_shift=9, workers=workers
    ),
    "place_tiles": lambda given, workers: spt.place_tiles(
        given.tiles, grid=(2, 2), workers=workers
    ),
    "refine_points": lambda given, workers: spt.refine_points(
        *given.pair, POINTS, 2 + POINTS, workers=workers
    ),
    "resample": lambda given, workers: spt.resample(
        given.pair[0], 1.0, 1.7, workers=workers
    ),
    "solve_gains": lambda given, workers: spt.solve_gains(
        given.tiles, MATRICES, workers=workers
    ),
    "warp_composite": lambda given, workers: spt.warp_composite(
        given.tiles, MATRICES, workers=workers
    ),
    "warp_image": lambda given, workers: spt.warp_image(
        given.pair[0], MATRICES[3], workers=workers
    ),
    "composite_blocks": lambda given, workers: list(
        spt.composite_blocks(given.tiles, MATRICES, workers=workers)
    ),
}


def numbers(value):
    """Yield all numbers in a result, in order."""
    if hasattr(type(value), "__dataclass_fields__"):
        for name in type(value).__dataclass_fields__:
            yield from numbers(getattr(value, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, dict):
        yield from numbers(list(value.items()))
    elif value is not None:
        yield np.asarray(value)


def test_all_functions_that_take_workers_are_here():
    takers = {
        name
        for name in spt.__all__
        if inspect.isfunction(getattr(spt, name))
        and "workers" in inspect.signature(getattr(spt, name)).parameters
    }
    assert takers == set(CALLS)


@pytest.fixture(scope="module")
def answer(given):
    """What a function answers in one thread, which tests share."""
    return functools.cache(lambda name: list(numbers(CALLS[name](given, 1))))


@pytest.mark.parametrize("workers", [2, elsewhere], ids=["threads", "processes"])
@pytest.mark.parametrize("name", CALLS)
def test_whoever_computes_the_bits_are_the_same(name, workers, given, answer):
    alone = answer(name)
    shared = list(numbers(CALLS[name](given, workers)))
    assert len(alone) > 0
    for one, other in zip(alone, shared, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("name", CALLS)
def test_views_and_copies_have_the_same_bits(name, given, answer):
    """What is transposed or cut out of something larger is an array like others."""
    tiles, pair = ([each.copy() for each in some] for some in (given.tiles, given.pair))
    copies = Given(tiles, given.frames.copy(), tuple(pair))
    seen = answer(name)
    copied = list(numbers(CALLS[name](copies, 1)))
    for one, other in zip(seen, copied, strict=True):
        assert_array_equal(one, other)

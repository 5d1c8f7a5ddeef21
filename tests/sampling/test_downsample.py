"""Blocks of pixels and cubic B-splines, which many modules share."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spectral_tools._sampling.downsample import block_means, known_block_means
from spectral_tools._sampling.splines import bspline_weights, spline_weights


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
@pytest.mark.parametrize(
    ("shape", "sides"),
    [((33, 40), (2, 2)), ((33, 41), (4, 8)), ((5, 9, 7), (2, 1, 3)), ((1, 8), (1, 2))],
)
def test_blocks_hold_the_means_of_their_pixels(shape, sides, dtype):
    image = np.random.default_rng(1).uniform(0, 200, shape).astype(dtype)
    whole = image[tuple(slice(n // s * s) for n, s in zip(shape, sides, strict=True))]
    parts = [k for n, s in zip(shape, sides, strict=True) for k in (n // s, s)]
    mean = whole.reshape(parts).mean(axis=tuple(range(1, len(parts), 2)), dtype="f8")
    found = block_means(image, sides)
    assert found.dtype == np.result_type(dtype, np.float32)
    # 1e-6: single precision.
    assert_allclose(found, mean, rtol=1e-6)


def test_blocks_hold_the_means_of_what_is_known():
    image = np.array([[1, 3, np.nan, 8], [5, 7, 4, 6]], np.float32)
    known = np.array([[True, True, False, False], [False, False, False, True]])
    mean, share = known_block_means(image, known, (2, 2))
    assert_array_equal(mean, [[2, 6]])
    assert_array_equal(share, [[0.5, 0.25]])


def test_blocks_of_which_nothing_is_known_are_zero():
    mean, share = known_block_means(
        np.full((2, 2), np.nan), np.zeros((2, 2), bool), (2, 2)
    )
    assert (mean[0, 0], share[0, 0]) == (0, 0)


def test_cubic_splines_of_points_and_of_rows_are_the_same():
    parts = np.linspace(0, 1, 11)
    rows = np.empty((4, 11))
    spline_weights(3, parts, 11, rows)
    assert_allclose(bspline_weights(parts), rows.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_cubic_splines_are_those_of_their_values(order):
    parts, step = np.linspace(0.1, 0.9, 9), 1e-5
    ahead, back = (bspline_weights(parts + way, order - 1) for way in (step, -step))
    # 1e-8: differences are exact to the second order of the step.
    assert_allclose(
        (ahead - back) / (2 * step), bspline_weights(parts, order), rtol=0, atol=1e-8
    )

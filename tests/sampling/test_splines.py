import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._rendering import plan


def textures(rng, size, cutoff, shift):
    """A periodic texture, and the same moved by a known shift."""
    frequencies = np.meshgrid(*[np.fft.fftfreq(size)] * len(shift), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in frequencies))
    spectrum = np.fft.fftn(rng.standard_normal(radius.shape)) * (radius < cutoff)
    phase = sum(axis * step for axis, step in zip(frequencies, shift, strict=True))
    moved = np.fft.ifftn(spectrum * np.exp(-2j * np.pi * phase)).real
    return np.fft.ifftn(spectrum).real, moved


def matrix_of(shift, shear=0.0):
    matrix = np.eye(len(shift) + 1)
    matrix[:-1, -1] = shift
    matrix[0, 1] = shear
    return matrix


def worst(found, truth, margin=16):
    """Deviation in percent of the contrast, away from the border."""
    inside = (slice(margin, -margin),) * truth.ndim
    return 100 * (found - truth)[inside].std() / truth[inside].std()


# Percent of the contrast: what a spline of that order loses, with a quarter on top.
@pytest.mark.parametrize(
    ("order", "cutoff", "most"),
    [(3, 0.125, 0.04), (3, 0.25, 0.85), (5, 0.125, 0.001), (5, 0.25, 0.06)],
)
@pytest.mark.parametrize("shear", [0.0, 1e-9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_splines_keep_a_moved_texture(rng, order, cutoff, most, shear, dtype):
    shift = (0.37, -0.61)
    tile, truth = textures(rng, 128, cutoff, shift)
    found = spt.warp_composite(
        [tile.astype(dtype)],
        [matrix_of(shift, shear)],
        order=order,
        bounds=[(0, 0), tile.shape],
    ).image
    assert worst(found, truth) < most


@pytest.mark.parametrize("order", [3, 5])
def test_splines_keep_a_moved_volume(rng, order):
    shift = (0.4, 0.37, -0.61)
    tile, truth = textures(rng, 48, 0.125, shift)
    options = {"order": order, "bounds": [(0, 0, 0), tile.shape]}
    found = spt.warp_composite([tile], [matrix_of(shift)], **options).image
    sheared = spt.warp_composite([tile], [matrix_of(shift, 1e-9)], **options).image
    assert worst(found, truth) < 0.03
    # 1e-6: the shear itself.
    assert_allclose(sheared[1:-1], found[1:-1], rtol=0, atol=1e-6 * truth.std())


def turned(angle, stretch, ndim):
    """A turn in the plane of the last two axes, off every whole pixel."""
    cos, sin = stretch * np.cos(angle), stretch * np.sin(angle)
    matrix = np.eye(ndim + 1)
    matrix[-3:-1, -3:-1] = [[cos, -sin], [sin, cos]]
    matrix[:-1, -1] = (0.31, 3.27, -4.61)[-ndim:]
    if ndim == 3:
        matrix[0, 1:3] = 0.3 * np.sin(angle), -0.2 * np.sin(angle)
    return matrix


@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize(
    ("shape", "angle", "stretch"),
    [
        *[((90, 150), a, s) for a in (0, 0.003, 0.05, 0.7) for s in (0.97, 1, 1.02)],
        ((90, 150), -0.1, 1),
        ((34, 44, 70), 0.003, 0.97),
        ((34, 44, 70), -0.05, 1.02),
        ((34, 44, 70), 0.7, 1),
    ],
)
def test_rows_are_sampled_where_points_lie(rng, order, shape, angle, stretch):
    tile = rng.random(shape).astype(np.float32)
    matrix = turned(angle, stretch, len(shape))
    options = {"order": order, "bounds": [(0,) * len(shape), shape]}
    found = spt.warp_composite([tile], [matrix], **options).image
    grid = np.indices(shape).reshape(len(shape), -1).T
    points = spt.apply_transform(np.linalg.inv(matrix), grid).T
    truth = ndimage.map_coordinates(tile.astype(float), points, order=order)
    # Far enough from the border that what lies outside is not seen.
    margin = np.array([15 if order > 1 else 1] * len(shape))[:, None]
    inside = (points > margin) & (points < np.array(shape)[:, None] - 1 - margin)
    inside = inside.all(axis=0)
    if order == 0:  # halfway, either pixel is the nearest
        inside &= (np.abs(points % 1 - 0.5) > 1e-9).all(axis=0)
    assert inside.sum() > 50
    # Sums of up to 216 numbers in single precision.
    assert_allclose(found.ravel()[inside], truth[inside], rtol=0, atol=3e-6)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_double_precision_is_kept_along_rows(rng, order):
    tile = rng.random((90, 150))
    matrix = turned(0.02, 1.001, 2)
    options = {"order": order, "bounds": [(0, 0), tile.shape]}
    found = spt.warp_composite([tile], [matrix], **options).image[45, 50:100]
    grid = np.stack([np.full(50, 45), np.arange(50, 100)], axis=1)
    points = spt.apply_transform(np.linalg.inv(matrix), grid).T
    truth = ndimage.map_coordinates(tile, points, order=order)
    # Rounding of coordinates near 100; truth fades like 0.43 ** 40 from the border.
    assert_allclose(found, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("shear", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_regions_leave_no_trace_in_splines(rng, order, shear, dtype, monkeypatch):
    tile = (255 * rng.random((90, 100))).astype(dtype)
    options = {"order": order, "dtype": np.float64 if dtype == np.float64 else "f4"}
    matrices = [matrix_of((0.3, 0.6), shear)]
    whole = spt.warp_composite([tile], matrices, **options).image
    monkeypatch.setitem(plan.REGION, 2, (1, 20, 33))
    pieced = spt.warp_composite([tile], matrices, **options).image
    # What the prefilter leaves out is below the precision of the computation.
    assert_allclose(
        pieced, whole, rtol=0, atol=1e-3 if options["dtype"] == "f4" else 1e-9
    )


@pytest.mark.parametrize("order", [1, 3, 5])
def test_regions_leave_no_trace_around_holes(rng, order, monkeypatch):
    tile = rng.random((90, 100))
    tile[rng.random((90, 100)) < 0.1] = np.nan
    tile[30:45, 20:60] = np.nan
    matrices = [matrix_of((0.3123, 0.6789), 0.1017)]
    whole = spt.warp_composite([tile], matrices, order=order)
    monkeypatch.setitem(plan.REGION, 2, (1, 20, 33))
    pieced = spt.warp_composite([tile], matrices, order=order)
    assert np.isfinite(whole.image).all()
    assert_array_equal(pieced.coverage, whole.coverage)
    assert_allclose(pieced.image, whole.image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [3, 5])
def test_values_that_are_not_valid_do_not_matter_to_splines(rng, order):
    tile = rng.random((40, 50))
    valid = rng.random((40, 50)) < 0.9
    options = {"valid": valid, "order": order}
    matrices = [matrix_of((0.3, 0.6))]
    mosaic = spt.warp_composite([tile], matrices, **options)
    spoiled = spt.warp_composite([np.where(valid, tile, 1e6)], matrices, **options)
    assert_array_equal(spoiled.coverage, mosaic.coverage)
    assert_allclose(spoiled.image, mosaic.image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 40)])
def test_small_tiles_have_splines_too(order, shape):
    mosaic = spt.warp_composite(
        [np.full(shape, 7, np.uint8)], [matrix_of((0.3, 0.4))], order=order, scale=0.7
    )
    assert_array_equal(mosaic.image[mosaic.coverage > 0], 7)


@pytest.mark.parametrize("order", [3, 5])
def test_workers_agree_on_splines_to_the_last_bit(rng, order, monkeypatch):
    monkeypatch.setitem(plan.REGION, 2, (1, 16, 32))
    tiles = rng.random((3, 40, 50)).astype(np.float32)
    matrices = [matrix_of((0.3, 9.2 * n), 0.02 * n) for n in range(3)]
    alone = spt.warp_composite(tiles, matrices, order=order)
    together = spt.warp_composite(tiles, matrices, order=order, workers=3)
    assert_array_equal(together.image, alone.image)


@pytest.mark.parametrize("scale", [0.5, 0.2])
def test_shrinking_smooths_what_would_alias(rng, scale):
    noise = rng.standard_normal((200, 200))
    small = spt.warp_composite([noise], [np.eye(3)], scale=scale).image
    by_matrix = spt.warp_composite([noise], [np.diag([scale, scale, 1])]).image
    # White noise loses its contrast like the number of pixels that are averaged.
    assert small.std() < 1.4 * scale
    assert by_matrix.std() < 1.4 * scale


def test_shrinking_keeps_the_mean_around_holes():
    tile = np.full((60, 60), 5.0)
    tile[20:30, 10:50] = np.nan
    small = spt.warp_composite([tile], [np.eye(3)], scale=0.4, fill_value=5).image
    assert_array_equal(small, 5)

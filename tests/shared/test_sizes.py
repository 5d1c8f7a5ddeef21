"""Numbers of any size: the right answer or one by name, and never a warning."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import spectral_tools as spt
from tests.fuzz.odd import Labelled, Stored

SCENE = 1000 + 100 * spt.gaussian_texture((140, 140), cutoff=0.3, rng=3)
CORNERS = np.array([(0, 0), (0, 28), (28, 0), (28, 28)])
TILES = np.stack([SCENE[r : r + 64, c : c + 64] for r, c in CORNERS])
LINKS = [(0, 1), (0, 2), (1, 3), (2, 3)]
MATRICES = np.stack([spt.translation(corner) for corner in CORNERS])
FRAMES = np.stack([SCENE[n : n + 48, 2 * n : 2 * n + 48] for n in range(5)])
SHIFTS = np.arange(5)[:, np.newaxis] * (1.0, 2.0)
POINTS = np.stack(np.mgrid[8:60:12, 8:60:12], -1).reshape(-1, 2) + 0.0
MOVED = POINTS + np.random.default_rng(4).normal(0, 0.5, POINTS.shape)

pytestmark = pytest.mark.filterwarnings("error")


def with_pixel(image, value):
    changed = np.array(image, np.result_type(image, np.float64))
    changed[..., 7, 9] = value
    return changed


# Images


@pytest.mark.parametrize("factor", [1e-60, 1e45, 1e130])
def test_series_are_aligned_in_any_unit(factor):
    found, expected = spt.align_series(FRAMES * factor), spt.align_series(FRAMES)
    assert_allclose(found.shifts, expected.shifts, atol=1e-6)
    assert_allclose(found.template / factor, expected.template, rtol=1e-5)


@pytest.mark.parametrize("mark", [1e24, -1e90])
def test_marks_far_out_do_not_count(mark):
    marked = FRAMES.copy()
    marked[3, 7, 9] = mark
    found = spt.align_series(marked)
    assert_allclose(found.shifts - found.shifts[0], SHIFTS, atol=0.1)
    assert (found.outcome == spt.Outcome.MATCHED).all()


@pytest.mark.parametrize("name", ["reference", "pattern"])
def test_what_is_far_brighter_than_frames_is_refused(name):
    message = rf"`{name} / frames.std\(\)` must hold numbers below 2e\+17 in size; got"
    with pytest.raises(ValueError, match=message):
        spt.align_series(FRAMES, **{name: with_pixel(FRAMES[0], 3e40)})
    with pytest.raises(ValueError, match=f"`{name}` must hold numbers below"):
        spt.align_series(FRAMES * 1e-9, **{name: with_pixel(FRAMES[0], 1.7e308)})


@pytest.mark.parametrize("value", [1e30, 1e90])
def test_what_is_computed_in_single_precision_is_no_larger(value):
    with pytest.raises(ValueError, match="`pattern` must hold numbers below"):
        spt.match_tiles(TILES, LINKS, pattern=with_pixel(np.zeros((64, 64)), value))
    with pytest.raises(ValueError, match=r"`sections\[0\]` must hold numbers below"):
        spt.align_stack(TILES * value)


@pytest.mark.parametrize("factor", [1e-100, 1e100])
@pytest.mark.parametrize("offset", [False, True])
def test_gains_do_not_know_the_unit(factor, offset):
    lit = TILES * np.array([1, 1.1, 0.9, 1.05])[:, None, None]
    expected = spt.solve_gains(lit, MATRICES, offset=offset)
    found = spt.solve_gains(lit * factor, MATRICES, offset=offset)
    assert_allclose(found.gain, expected.gain, rtol=1e-6)
    assert_allclose(found.offset / factor, expected.offset, rtol=1e-4, atol=1e-4)


def test_long_doubles_are_no_larger_than_doubles():
    tiles = with_pixel(TILES, 1e200).astype(np.longdouble)
    with pytest.raises(ValueError, match=r"`tiles\[0\]` must hold numbers below"):
        spt.solve_gains(tiles, MATRICES)


def test_a_dark_field_is_of_a_size_that_can_be_squared():
    with pytest.raises(ValueError, match="`dark` must hold numbers below"):
        spt.estimate_shading(TILES, dark=-1e300)


def test_tiles_that_are_all_as_bright_tell_no_dark_field():
    stripes = np.tile([0.0, 3.0], (6, 30, 15))
    found = spt.estimate_shading(stripes, dark="estimate")
    assert_array_equal(found.dark, 0)
    assert np.isfinite(found.flat).all()


# Points, angles, scales


@pytest.mark.parametrize("method", ["thin_plate", "piecewise_affine"])
@pytest.mark.parametrize("unit", [1e-60, 1e100])
def test_points_are_interpolated_in_any_unit(method, unit):
    points = unit * (POINTS - 8)
    field = spt.interpolate_displacement(
        points, unit * (MOVED - 8), (9, 9), method=method, outside="nearest"
    )
    # The first pixel lies on the first point.
    assert_allclose(field[0, 0] / unit, POINTS[0] - MOVED[0], atol=1e-9)
    assert np.isfinite(field).all()


def test_points_closer_than_numbers_can_tell_are_refused():
    with pytest.raises(ValueError, match="`reference_points` must hold numbers above"):
        spt.interpolate_displacement(1e-170 * POINTS, MOVED, (9, 9))


@pytest.mark.parametrize("turns", [-3, 2**40])
def test_angles_count_modulo_turns(turns):
    turned = np.rot90(SCENE[20:120, 20:120])
    found = spt.match_orientation(
        SCENE[20:120, 20:120], turned, angles=-np.pi / 2 + 2 * np.pi * turns
    )
    assert found.outcome == spt.Outcome.MATCHED
    assert abs(found.angle + np.pi / 2) < 0.01


def test_an_angle_may_be_as_large_as_any_number():
    spt.match_orientation(*TILES[:2], angles=(0.1, -1.7e308))


@pytest.mark.parametrize("scales", [(1e-90, 1e-80), (300, 1e25), (1e160, 1e170)])
def test_scales_that_leave_no_pixel_are_refused(scales):
    with pytest.raises(ValueError, match=r"`scale_range` must reach between 0\.0156 a"):
        spt.match_orientation(*TILES[:2], scale_range=scales)


def test_ranges_of_scales_end_where_images_do():
    wide = spt.match_orientation(*TILES[:2], scale_range=(1e-200, 1e200))
    most = spt.match_orientation(*TILES[:2], scale_range=(1 / 64, 64))
    assert_array_equal(wide.matrix, most.matrix)


@pytest.mark.parametrize("factor", [1e-40, 1e-90])
def test_points_that_tell_an_absurd_scale_are_not_believed(factor):
    some = POINTS[:9]
    found = spt.refine_points(*TILES[:2], some, some * factor, iterations=1)
    assert (found.outcome != spt.Outcome.MATCHED).all()
    assert_array_equal(found.moving_points, some * factor)


@pytest.mark.parametrize("factor", [1e-40, 1e-8, 1e40])
def test_images_are_warped_by_any_scale(factor):
    warped = spt.warp_image(TILES[0], np.diag([factor, factor, 1]), order=1)
    assert warped.shape == TILES[0].shape
    assert warped.any()


def test_what_is_displaced_out_of_sight_is_not_seen():
    warped = spt.warp_image(
        TILES[0], np.eye(3), displacement=np.full((64, 64, 2), -1e70), fill_value=5
    )
    assert_array_equal(warped, 5)


def test_no_shift_is_longer_than_frames():
    far, near = (spt.align_series(FRAMES, max_shift=most) for most in (1e90, 47))
    assert_array_equal(far.shifts, near.shifts)


def test_an_overlap_beyond_all_numbers_is_refused():
    with pytest.raises(ValueError, match="`overlap` must be at least 0 and leave a st"):
        spt.simulate_tiles(SCENE, (2, 2), (40, 40), overlap=-1.5e308)


def test_pairs_that_go_to_and_fro_are_left():
    found = spt.refine_pair(
        *TILES[:2], POINTS, POINTS - 0.3, size=12, iterations=10**15, tolerance=1e-9
    )
    assert found.steps.max() < 100
    far = POINTS.copy()
    far[4, 1] = -1.6e308
    found = spt.refine_pair(*TILES[:2], POINTS, far, size=12, tolerance=1e-307)
    assert found.steps[4] == 0
    assert found.outcome[4] == spt.Outcome.NO_TEXTURE


def test_more_pixels_than_numbers_are_refused():
    with pytest.raises(ValueError, match="`target_pixel_size` must ask for what fits"):
        spt.resample(SCENE, 1e40, 1e-290)


# What is no pair, no shape, no image


@pytest.mark.parametrize("words", [["yes", "no", "a", "b"], [1j, 2j, 3j, 4j]])
def test_arrays_of_words_are_no_masks(words):
    with pytest.raises(TypeError, match=r"`valid\[0\]` must hold real numbers; got "):
        next(spt.composite_blocks(TILES, MATRICES, valid=np.array(words, object)))


@pytest.mark.parametrize(
    "links", [[Labelled(np.array(3))], [np.array(3)], [Stored(np.array([1, 2, 3]))]]
)
def test_numbers_that_have_a_shape_are_no_pairs(links):
    with pytest.raises(ValueError, match="`links` must hold pairs of tiles; got "):
        spt.loop_closures(links, POINTS[:1], POINTS[:1])


def test_sparse_rows_are_no_pairs():
    rows = list(sparse.csr_array(np.array([[0, 1], [1, 2]])))
    with pytest.raises(TypeError, match="`links` must name tiles by what can be hash"):
        spt.loop_closures(rows, POINTS[:2], POINTS[:2])


def test_points_of_meshes_have_the_axes_of_their_shape():
    links = np.repeat([(0, 1)], len(POINTS), axis=0)
    message = "`reference_points` must have an axis for each of `shape`, 3; got 2."
    with pytest.raises(ValueError, match=message):
        spt.relax_meshes(links, POINTS, MOVED, (4, 64, 64))


@pytest.mark.parametrize("write", [spt.io.write_ome_tiff, spt.io.write_ome_zarr])
def test_sparse_images_and_types_are_refused_where_files_are_written(write, tmp_path):
    with pytest.raises(ValueError, match="`image` must give its pixels where it is sl"):
        write(tmp_path / "a.ome", sparse.csc_array(TILES[0]))
    with pytest.raises(TypeError, match=r"`image` must hold .*; got dtype object"):
        write(tmp_path / "b.ome", np.int16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunks", [-5, (-2, 8), (-9, -9)])
def test_chunks_fill_the_mosaic(chunks):
    pytest.importorskip("dask")
    with pytest.raises(ValueError, match="`chunks` must "):
        spt.lazy_composite(TILES, MATRICES, chunks=chunks)


def test_numbers_that_are_masked_one_by_one_are_refused_by_name():
    for values in ([np.ma.masked, 3.0], [[np.ma.masked, 3.0], [1, 2]]):
        with pytest.raises(ValueError, match="`values` must have no masked pixels"):
            spt.ring_average(values)


@pytest.mark.parametrize("out", [np.float64, np.ndarray])
def test_a_class_is_no_store(out):
    with pytest.raises(TypeError, match=r"`out` must .*; got "):
        spt.warp_composite(TILES, MATRICES, out=out)


def test_blocks_are_as_many_as_memory_can_list():
    with pytest.raises(ValueError, match="`blocks` must ask for what fits into memory"):
        spt.composite_blocks(TILES, MATRICES, scale=2.0**31, bounds=[(0, 0), (9, 9)])


def test_what_a_smaller_dtype_cannot_hold_is_infinite_there():
    out = np.zeros(FRAMES.shape, np.float32)
    assert np.isinf(spt.apply_shifts(FRAMES * 1e60, 0 * SHIFTS, out=out)).all()
    assert np.isinf(spt.neighbor_mean(FRAMES * 1e60, 1, out=out)).all()


@pytest.mark.parametrize("value", [1e12, 1e18])
def test_a_pattern_that_leaves_nothing_of_the_frames_is_refused(value):
    pattern = with_pixel(0 * FRAMES[0], value)
    with pytest.raises(ValueError, match="`pattern` must hold numbers below"):
        spt.align_series(FRAMES, pattern=pattern)
    assert spt.align_series(FRAMES, pattern=pattern / value).outcome[0] == "matched"


def test_a_turned_link_to_nowhere_costs_itself():
    reference = np.array([(20.0, 48), (48, 20), (48, 20), (20, 48)])
    moving = np.full((4, 2), 20.0)
    moving[2, 0] = 1e18
    found = spt.solve_rigid(LINKS, reference, moving, rotation=True)
    assert np.isfinite(found.matrices).all()


def test_windows_are_no_larger_than_tiles():
    points = np.repeat(POINTS, 2, axis=0)
    links = np.tile([(0, 1), (1, 2)], (len(POINTS), 1))
    with pytest.raises(ValueError, match="`size` must be no larger than `shape`"):
        spt.solve_distortion(links, points, points, shape=(64, 64), size=(1e120, 16))


def test_structured_scalars_are_no_counts():
    odd = np.ma.masked_array(np.zeros((), [("a", int)]), mask=True)
    with pytest.raises(TypeError, match="`workers` must be an integer"):
        spt.match_tiles(TILES, LINKS, workers=odd)


def test_pixels_that_overflow_do_not_warn_where_some_do_not_count():
    tiles = [with_pixel(each, 1.79e308) for each in TILES]
    tiles[0][3, 4] = np.nan
    moved = MATRICES.copy()
    moved[:, :2, 2] += 0.3
    spt.warp_composite(tiles, moved)


def test_a_mosaic_is_as_large_as_memory_can_hold():
    with pytest.raises(ValueError, match="`scale` must ask for what fits into memory"):
        spt.warp_composite(TILES, MATRICES, scale=2.0**31, bounds=[(0, 0), (9, 9)])


@pytest.mark.parametrize("sigma", [1e-300, 1e-160])
def test_priors_are_no_surer_than_rounding(sigma):
    points = np.array([(0.0, 28), (28, 0), (28, 0), (0, 28)]) + 20
    for solve in (spt.solve_rigid, spt.solve_affine):
        found = solve(
            LINKS,
            points,
            np.full((4, 2), 20.0),
            positions=CORNERS,
            position_sigma=sigma,
        )
        assert_allclose(found.matrices[:, :2, 2], CORNERS, atol=1e-3)


def test_a_lazy_mosaic_has_as_many_chunks_as_memory_can_list():
    pytest.importorskip("dask")
    with pytest.raises(ValueError, match="`scale` must ask for what fits into memory"):
        spt.lazy_composite(TILES, MATRICES, scale=2.0**31, bounds=[(0, 0), (9, 9)])


def test_a_tile_whose_points_say_no_scale_has_one():
    reference = np.array([(20.0, 48), (48, 20), (0, 0), (20, 48)])
    found = spt.solve_affine(
        LINKS,
        reference,
        np.full((4, 2), 20.0),
        model="similarity",
        covariance=0.01 * np.eye(2),
    )
    assert np.isfinite(found.matrices).all()
    assert (np.linalg.det(found.matrices) > 0).all()


@pytest.mark.parametrize("variance", [1e-32, 1e-300])
def test_points_are_no_surer_than_rounding(variance):
    covariance = variance * np.eye(2)
    shape, count = (64, 64), len(POINTS)
    field = spt.fit_displacement(
        POINTS, MOVED, shape=shape, covariance=covariance, stiffness=1.5
    )
    assert np.isfinite(field.displacement).all()
    assert np.isfinite(field.sigma).all()
    meshes = spt.relax_meshes(
        np.repeat([(0, 1)], count, axis=0),
        POINTS,
        MOVED,
        shape=shape,
        covariance=covariance,
    )
    assert np.isfinite(meshes.displacement).all()


def test_levers_are_as_long_as_their_products_can_be():
    points = np.full((4, 2), 20.0)
    with pytest.raises(ValueError, match="`reference_points` must hold numbers below"):
        spt.solve_rigid(LINKS, points * 1e120, points)


def test_frames_in_huge_units_may_have_a_pattern():
    found = spt.align_series(FRAMES * 1e120, pattern=1e119 * FRAMES[0])
    assert found.outcome[0] == "matched"


def test_lines_finer_than_numbers_are_not_drawn():
    spt.plot.warped_grid(np.full((9, 9, 2), 1e120), spacing=1e-300)


def test_labels_may_come_in_a_buffer():
    points = np.array([(0.0, 28), (28, 0), (28, 0), (0, 28)]) + 20
    for known, labels in (([(0, 1), (1, 2)], [1]), ([("no", "on")], ["no"])):
        given = points[: len(known)]
        found = spt.solve_rigid(
            known, given, 0 * given, fixed=memoryview(np.array(labels))
        )
        assert found.fixed.sum() == 1


def test_covariances_may_be_singular_but_for_rounding():
    moved = POINTS + np.array((3, 4))
    nearly = 1e-13 * np.array([[1, 0.999999], [0.999999, 1]])
    found = spt.estimate_transform(POINTS, moved, covariance=nearly)
    assert_allclose(found.matrix, spt.translation((-3, -4)), atol=1e-6)
    for size in (1.0, 1e300):
        with pytest.raises(ValueError, match="`covariance` must be symmetric and pos"):
            spt.estimate_transform(POINTS, moved, covariance=np.full((2, 2), size))

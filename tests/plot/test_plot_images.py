import inspect
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

ORANGE, BLUE, WRONG = "#ff6600", "#0099ff", "#d55e00"
PAIRS = ["overlay", "checkerboard", "swipe"]


@pytest.fixture(autouse=True)
def figures_without_windows():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def scene(rng):
    return rng.normal(size=(40, 60)).cumsum(axis=1)


def drawings(scene):
    """Return every function that draws images or fields, with arguments."""
    field = np.zeros((40, 60, 2))
    return {
        **dict.fromkeys(PAIRS, (scene, scene)),
        "points": (scene, [(3, 4)]),
        "warped_grid": (field,),
    }


def colours(ax):
    """Return the colours of what an overlay shows, from 0 to 1."""
    return np.asarray(ax.images[0].get_array()) / 255


def shades(ax):
    """Return the gray values that are drawn, NaN where none is."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def hatched(ax):
    return "not covered" in legend_of(ax) and ax.patch.get_hatch() is not None


# All of them


@pytest.mark.parametrize("name", [*PAIRS, "points", "warped_grid"])
def test_pixels_are_drawn_where_they_are(scene, name):
    ax = getattr(spt.plot, name)(*drawings(scene)[name])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("col", "row")
    assert ax.get_aspect() == 1
    # Pixel centres are at integers, and the row axis goes down.
    assert ax.get_xlim() == (-0.5, 59.5)
    assert ax.get_ylim() == (39.5, -0.5)
    assert ax.images[0].get_extent() == [-0.5, 59.5, 39.5, -0.5]


@pytest.mark.parametrize("name", [*PAIRS, "points", "warped_grid"])
def test_given_axes_are_drawn_on_and_returned(scene, name):
    ax = plt.figure().add_subplot()
    assert getattr(spt.plot, name)(*drawings(scene)[name], ax=ax) is ax
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("name", [*PAIRS, "points", "warped_grid"])
def test_inputs_are_not_written_to(scene, name):
    given = [np.array(item, dtype=float) for item in drawings(scene)[name]]
    given[0][0, 0] = np.nan
    for item in given:
        item.setflags(write=False)
    getattr(spt.plot, name)(*given).figure.canvas.draw()


@pytest.mark.parametrize("name", spt.plot.__all__)
def test_options_are_documented_and_keyword_only(name):
    function = getattr(spt.plot, name)
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY
    section = inspect.getdoc(function).partition("Returns\n---")[0]
    entries = re.findall(r"^(\w[\w, ]*) :", section, re.MULTILINE)
    assert ", ".join(entries) == ", ".join(parameters)


# Two images


@pytest.mark.parametrize("name", PAIRS)
def test_images_of_a_pair_have_one_shape(scene, name):
    with pytest.raises(ValueError, match=r"same shape; got .*moving` \(40, 59\)"):
        getattr(spt.plot, name)(scene, scene[:, 1:])


@pytest.mark.parametrize("name", PAIRS)
def test_images_of_a_pair_lie_in_the_plane(name):
    with pytest.raises(ValueError, match=r"`reference` must have shape \(rows, cols\)"):
        getattr(spt.plot, name)(np.ones((4, 4, 3)), np.ones((4, 4)))


@pytest.mark.parametrize("name", PAIRS)
def test_masks_have_the_shape_of_their_image(scene, name):
    with pytest.raises(ValueError, match="`moving_valid` must have shape"):
        getattr(spt.plot, name)(scene, scene, moving_valid=np.ones((2, 2), bool))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64, bool])
def test_agreement_is_gray_in_every_dtype(scene, dtype):
    high = min(200, np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 200)
    image = (high * (scene - scene.min()) / np.ptp(scene)).astype(dtype)
    if dtype is bool:
        image = scene > 0
    red, green, blue, opacity = np.moveaxis(
        colours(spt.plot.overlay(image, image)), 2, 0
    )
    assert_array_equal(red, green)
    assert_array_equal(red, blue)
    assert (opacity == 1).all()
    assert (red.min(), red.max()) == (0, 1)


def test_contrast_and_dtype_do_not_colour_an_overlay(scene):
    reference = np.rint(200 * (scene - scene.min()) / np.ptp(scene)).astype(np.uint8)
    moving = 1e-3 * reference.astype(np.float64) - 7
    found = colours(spt.plot.overlay(reference, moving))
    # One level of a screen: floats of two precisions round differently.
    assert np.ptp(found[..., :3], axis=2).max() <= 1 / 255 + 1e-12


def test_what_only_one_image_shows_has_its_colour():
    reference, moving = np.zeros((10, 10)), np.zeros((10, 10))
    reference[2:4], moving[6:8] = 5, 100
    found = colours(spt.plot.overlay(reference, moving))
    assert to_hex(found[2, 0, :3]) == ORANGE
    assert to_hex(found[6, 0, :3]) == BLUE
    assert to_hex(found[0, 0, :3]) == "#000000"


def test_colours_of_an_overlay_are_equally_bright_and_add_up_to_white():
    def light(color):
        part = np.array(mpl.colors.to_rgb(color))
        return np.where(part > 0.04045, ((part + 0.055) / 1.055) ** 2.4, part / 12.92)

    weights = np.array([0.2126, 0.7152, 0.0722])
    # 0.01: half a step in lightness, which nobody sees.
    assert_allclose(light(ORANGE) @ weights, light(BLUE) @ weights, atol=0.01)
    both = np.add(mpl.colors.to_rgb(ORANGE), mpl.colors.to_rgb(BLUE))
    assert_allclose(both, 1)


def test_hot_and_dead_pixels_do_not_darken_the_rest(scene):
    spoiled = scene.copy()
    spoiled[0, :5], spoiled[1, :5] = 1e6, -1e6
    moving = colours(spt.plot.overlay(scene, spoiled))[2:, :, 2]
    # Without the percentiles all of them would be within 1e-4 of one gray.
    assert np.ptp(moving) > 0.9


def test_a_few_bright_pixels_on_black_are_seen():
    sparse = np.zeros((100, 100))
    sparse[50, 50] = 3
    found = colours(spt.plot.overlay(sparse, sparse))
    assert_array_equal(found[50, 50], 1)
    assert_array_equal(found[0, 0], (0, 0, 0, 1))


def test_images_without_contrast_are_gray():
    found = colours(spt.plot.overlay(np.full((5, 5), 7), np.zeros((5, 5))))
    assert_allclose(found[..., :3], 0.5, atol=1 / 255)


def test_where_one_image_is_missing_the_other_keeps_its_colour(scene):
    valid = np.ones(scene.shape, bool)
    valid[:, 30:] = False
    found = colours(spt.plot.overlay(scene, scene, moving_valid=valid))
    assert_array_equal(found[:, 30:, 2], 0)
    assert found[:, 30:, 0].max() == 1
    assert (found[..., 3] == 1).all()


def test_nothing_is_drawn_where_no_image_is(scene):
    reference, moving = scene.copy(), scene.copy()
    reference[:10] = np.nan
    moving[5:15] = np.inf
    ax = spt.plot.overlay(reference, moving)
    opacity = colours(ax)[..., 3]
    assert_array_equal(opacity[5:10], 0)
    assert_array_equal(np.delete(opacity, np.s_[5:10], axis=0), 1)
    assert hatched(ax)


def test_an_image_is_stretched_by_itself_beside_one_of_nothing(scene):
    nothing = np.full(scene.shape, np.nan)
    drawn = spt.plot.overlay(1e20 * scene, nothing).images[0].get_array().data
    expected = spt.plot.overlay(scene, nothing).images[0].get_array().data
    assert np.ptp(expected[..., 0]) > 200
    assert_allclose(drawn[..., 0].astype(int), expected[..., 0], atol=1)


def test_two_images_without_anything_in_common_are_both_seen(scene):
    reference, moving = scene.copy(), scene.copy()
    reference[:, 30:], moving[:, :30] = np.nan, np.nan
    found = colours(spt.plot.overlay(reference, moving))
    assert found[:, :30, 0].max() == found[:, 30:, 2].max() == 1
    assert found[:, :30, 2].max() == found[:, 30:, 0].max() == 0


@pytest.mark.parametrize("name", PAIRS)
def test_images_of_nothing_are_drawn_as_nothing(name):
    empty = np.full((8, 8), np.nan)
    assert hatched(getattr(spt.plot, name)(empty, empty))


def test_stretch_comes_from_what_both_cover(scene):
    """Else the same thing would have two brightnesses."""
    moving = scene.copy()
    moving[:, :20] = np.nan
    reference = scene.copy()
    reference[:, :20] += 1000
    found = colours(spt.plot.overlay(reference, moving))[:, 20:]
    assert_array_equal(found[..., 0], found[..., 2])


def test_overlays_tell_how_values_are_stretched(scene):
    ax = spt.plot.overlay(scene, scene)
    told = ax.get_legend().get_title().get_text()
    assert told == "each from 0.5 to 99.5 % of its values"
    assert legend_of(ax) == ["reference", "moving", "both alike"]


# Squares


def test_squares_are_of_both_images_in_turn():
    ramp = np.linspace(0, 1, 7 * 9).reshape(7, 9)
    found = shades(spt.plot.checkerboard(ramp, 1 - ramp, size=2))
    straight = shades(spt.plot.checkerboard(ramp, ramp, size=2))
    odd = np.add.outer(np.arange(7) // 2, np.arange(9) // 2) % 2 == 1
    assert odd.any()
    assert not odd[:2, :2].any()
    # 1e-9: both ramps are stretched, one of them the other way.
    assert_allclose(found, np.where(odd, 1 - straight, straight), atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "size"), [((40, 60), 8), ((800, 100), 100), ((2, 3), 1)]
)
def test_eight_squares_fit_along_the_longer_side(shape, size):
    ax = spt.plot.checkerboard(np.eye(*shape), np.eye(*shape))
    assert ax.get_title(loc="left") == f"Squares of {size} px"


def test_frame_has_the_colours_of_the_squares_it_passes(scene):
    ax = spt.plot.checkerboard(scene, scene, size=16)
    lines = ax.collections[0].get_segments()
    found = [to_hex(color) for color in ax.collections[0].get_colors()]
    # 3 squares down and 4 across, on both sides each.
    assert len(lines) == len(found) == 14
    for line, color in zip(lines, found, strict=True):
        # The pixel just inside the middle of the line.
        col, row = np.clip(line.mean(axis=0), 0, (59, 39)).astype(int)
        assert color == (BLUE if (row // 16 + col // 16) % 2 else ORANGE)
    length = sum(np.linalg.norm(line[1] - line[0]) for line in lines)
    assert_allclose(length, 2 * (40 + 60))


def test_squares_of_an_image_are_empty_where_it_is_not(scene):
    moving = scene.copy()
    moving[:, :10] = np.nan
    ax = spt.plot.checkerboard(scene, moving, size=10)
    assert_array_equal(
        np.isnan(shades(ax))[:, :10], np.arange(40)[:, None] // 10 % 2 * np.ones(10)
    )
    assert np.isfinite(shades(ax)[:, 10:]).all()
    assert hatched(ax)


@pytest.mark.parametrize("size", [0, -3])
def test_squares_have_a_size(scene, size):
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        spt.plot.checkerboard(scene, scene, size=size)


# Swipes


@pytest.mark.parametrize(("axis", "edge"), [(0, 10), (1, 15)])
def test_reference_is_before_the_line_and_moving_beyond(scene, axis, edge):
    ax = spt.plot.swipe(scene, -scene, position=0.25, axis=axis)
    whole = shades(spt.plot.swipe(scene, -scene, position=1))
    before, beyond = np.split(np.moveaxis(shades(ax), axis, 0), [edge])
    first, second = np.split(np.moveaxis(whole, axis, 0), [edge])
    assert_array_equal(before, first)
    # 1e-9: both are stretched, one of them the other way.
    assert_allclose(beyond, 1 - second, atol=1e-9)


@pytest.mark.parametrize(("axis", "edge"), [(0, 10), (1, 15)])
def test_the_line_is_between_the_images(scene, axis, edge):
    ax = spt.plot.swipe(scene, scene, position=0.25, axis=axis)
    for line in ax.lines:
        assert_allclose(line.get_xydata()[:, 1 - axis], edge - 0.5)
    for text, side in zip(ax.texts, (-1, 1), strict=True):
        assert text.get_text() == {-1: "reference", 1: "moving"}[side]
        box = text.get_window_extent().transformed(ax.transData.inverted())
        ends = np.array([(box.x0, box.x1), (box.y0, box.y1)])[1 - axis]
        assert (side * (ends - edge + 0.5) > 0).all()


@pytest.mark.parametrize(("position", "name"), [(0, "moving"), (1, "reference")])
def test_an_image_that_is_not_shown_is_not_named(scene, position, name):
    ax = spt.plot.swipe(scene, scene, position=position)
    assert [text.get_text() for text in ax.texts] == [name]


def test_lines_cross_an_axis_at_a_fraction(scene):
    with pytest.raises(ValueError, match="`position` must be between 0 and 1"):
        spt.plot.swipe(scene, scene, position=20)
    with pytest.raises(ValueError, match="`axis` must be 0 or 1; got 2"):
        spt.plot.swipe(scene, scene, axis=2)


# Points


def residual_points(rng, count=12):
    points = rng.uniform(5, 35, (count, 2))
    residuals = rng.normal(scale=0.02, size=(count, 2))
    inlier = np.ones(count, bool)
    inlier[[2, 7]], residuals[2] = False, 30
    return points, residuals, inlier


def test_arrows_are_residuals_enlarged_as_often_as_the_legend_says(scene, rng):
    points, residuals, inlier = residual_points(rng)
    ax = spt.plot.points(scene, points, residuals=residuals, inlier=inlier)
    [arrows] = [item for item in ax.collections if isinstance(item, Quiver)]
    told = re.fullmatch(r"residuals, enlarged ([\d,]+) times", legend_of(ax)[0])
    times = int(told[1].replace(",", ""))
    assert times > 10
    assert (arrows.angles, arrows.scale_units, arrows.scale) == ("xy", "xy", 1)
    assert_allclose(arrows.XY, points[inlier][:, ::-1])
    assert_allclose(np.c_[arrows.U, arrows.V], times * residuals[inlier][:, ::-1])


@pytest.mark.parametrize("scale", [1e-4, 0.03, 0.4])
def test_usual_arrows_are_seen_but_leave_room(scene, rng, scale):
    points, residuals, _ = residual_points(rng)
    residuals = scale * residuals / residuals.std()
    ax = spt.plot.points(scene, points, residuals=residuals)
    [arrows] = [item for item in ax.collections if isinstance(item, Quiver)]
    usual = np.sqrt((arrows.U**2 + arrows.V**2).mean())
    # At most 8 % of the diagonal, 72 px; numbers of times are 1, 2, 5, 10 ...
    assert 0.08 * 72.1 / 2.51 < usual < 0.08 * 72.2


def test_long_residuals_are_not_enlarged(scene):
    ax = spt.plot.points(scene, [(10, 10), (20, 20)], residuals=[(0, 20), (9, 0)])
    assert legend_of(ax) == ["residuals, as long as they are"]


def test_title_tells_the_residuals_of_believed_points(scene, rng):
    points, residuals, inlier = residual_points(rng)
    ax = spt.plot.points(scene, points, residuals=residuals, inlier=inlier)
    rms = np.sqrt((residuals[inlier] ** 2).sum(axis=1).mean())
    assert ax.get_title(loc="left") == f"12 points, residuals {rms:.3f} px rms"


def test_refused_points_are_crossed_out(scene, rng):
    points, residuals, inlier = residual_points(rng)
    ax = spt.plot.points(scene, points, residuals=residuals, inlier=inlier)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert to_hex(crosses[-1].get_color()) == WRONG
    for line in crosses:
        assert_allclose(line.get_xydata(), points[~inlier][:, ::-1])
    [discs] = [line for line in ax.lines if line.get_marker() == "o"]
    assert_allclose(discs.get_xydata(), points[inlier][:, ::-1])
    assert legend_of(ax)[1] == "2 points refused"


@pytest.mark.parametrize(
    ("count", "numbers", "expected"),
    [(12, None, 12), (101, None, 0), (101, True, 101), (12, False, 0)],
)
def test_points_are_numbered_where_there_is_room(scene, rng, count, numbers, expected):
    points = residual_points(rng, count)[0]
    ax = spt.plot.points(scene, points, numbers=numbers)
    assert [text.get_text() for text in ax.texts] == list(map(str, range(expected)))
    assert_array_equal([text.xy for text in ax.texts], points[:expected, ::-1].tolist())


def test_an_empty_list_of_points_draws_the_image_alone(scene):
    assert spt.plot.points(scene, []).get_title(loc="left") == "0 points"


def test_points_without_residuals_or_refusals_need_no_legend(scene):
    ax = spt.plot.points(scene, [(3, 4)])
    assert ax.get_legend() is None
    assert ax.get_title(loc="left") == "1 point"


@pytest.mark.parametrize("inlier", [None, [False, False]])
def test_nothing_left_needs_no_arrows(scene, inlier):
    ax = spt.plot.points(
        scene, [(3, 4), (5, 6)], residuals=np.zeros((2, 2)), inlier=inlier
    )
    assert not ax.collections


def test_no_points_are_drawn_as_none(scene):
    ax = spt.plot.points(scene, np.zeros((0, 2)), residuals=np.zeros((0, 2)))
    assert ax.get_title(loc="left") == "0 points"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"residuals": np.zeros((3, 2))}, r"`residuals` must have shape \(2, 2\)"),
        ({"inlier": np.ones(3, bool)}, r"`inlier` must have shape \(2,\)"),
        ({"points": np.zeros((2, 3))}, r"`points` must have shape \(n, 2\)"),
        ({"image": np.zeros((2, 3, 4))}, r"`image` must have shape \(rows, cols\)"),
    ],
)
def test_arguments_of_points_fit_together(scene, options, text):
    given = {"image": scene, "points": [(3, 4), (5, 6)], **options}
    with pytest.raises(ValueError, match=text):
        spt.plot.points(given.pop("image"), given.pop("points"), **given)


def test_inlier_is_boolean(scene):
    with pytest.raises(TypeError, match="`inlier` must be boolean"):
        spt.plot.points(scene, [(3, 4)], inlier=[1])


# Grids


def bump(shape, center, height, width):
    """Return a field that pushes to the right around a point."""
    rows, cols = np.indices(shape, dtype=float)
    distance = (rows - center[0]) ** 2 + (cols - center[1]) ** 2
    field = np.zeros((*shape, 2))
    field[..., 1] = height * np.exp(-distance / (2 * width**2))
    return field


def grid_lines(ax):
    """Return points (row, col) on the lines of rows, and on those of cols."""
    return [
        [path.vertices[:, ::-1] for path in lines.get_paths()]
        for lines in ax.collections
    ]


def test_lines_are_where_the_grid_of_the_moving_image_comes_to_lie():
    matrix = spt.rotation(0.2) @ spt.translation((3, -5))
    field = bump((60, 80), (30, 40), 4, 12)
    ax = spt.plot.warped_grid(field, matrix=matrix, spacing=10)
    for axis, lines in enumerate(grid_lines(ax)):
        assert len(lines) > 5
        for line in lines:
            back = spt.apply_displacement(field, line, matrix=matrix, inverse=True)
            level = np.rint(back[:, axis].mean() / 10) * 10
            # 0.02 px: lines are straight from pixel to pixel, the field is a spline.
            assert_allclose(back[:, axis], level, rtol=0, atol=0.02)


def test_lines_are_as_many_as_there_are_multiples_of_the_spacing():
    ax = spt.plot.warped_grid(np.zeros((45, 30, 2)), spacing=10)
    rows, cols = grid_lines(ax)
    assert [line[0, 0] for line in rows] == pytest.approx([10, 20, 30, 40])
    assert [line[0, 1] for line in cols] == pytest.approx([10, 20])


def test_grids_wider_than_the_image_have_no_lines():
    ax = spt.plot.warped_grid(np.full((20, 20, 2), 0.5), spacing=100)
    assert sum(len(lines) for lines in grid_lines(ax)) <= 2


@pytest.mark.parametrize(
    ("side", "scale", "spacing"), [(100, 1, 5), (2000, 1, 100), (300, 0.1, 200)]
)
def test_a_dozen_squares_or_more_are_drawn(side, scale, spacing):
    ax = spt.plot.warped_grid(np.zeros((side, 9, 2)), matrix=np.diag([scale, scale, 1]))
    assert ax.get_title(loc="left").startswith(f"Squares of {spacing} px")


def test_fields_that_jump_far_are_drawn_with_the_lines_they_show():
    field = np.zeros((50, 50, 2))
    field[25:, :, 0] = 1e7
    rows, _ = grid_lines(spt.plot.warped_grid(field, spacing=10))
    assert len(rows) < 20


def test_colours_are_determinants():
    field = bump((60, 80), (30, 40), 4, 12)
    ax = spt.plot.warped_grid(field)
    area = spt.jacobian_determinant(field)
    assert_allclose(ax.images[0].get_array(), area)
    low, high = ax.images[0].get_clim()
    assert_allclose(low + high, 2)
    assert_allclose(high - 1, np.percentile(np.abs(area - 1), 99))
    assert len(ax.images) == 1
    assert ax.get_legend() is None
    text = f"areas {area.min():.3g} to {area.max():.3g}"
    assert ax.get_title(loc="left").endswith(text)


def test_folds_are_marked():
    field = bump((60, 80), (30, 40), 30, 8)
    ax = spt.plot.warped_grid(field)
    folds = spt.jacobian_determinant(field) <= 0
    assert 0 < folds.mean() < 0.2
    even, marks = ax.images
    assert_array_equal(np.ma.getmaskarray(even.get_array()), folds)
    assert_array_equal(~np.ma.getmaskarray(marks.get_array()), folds)
    drawn = marks.to_rgba(marks.get_array())[folds]
    assert {to_hex(color) for color in drawn} == {WRONG}
    assert legend_of(ax) == [f"folds, {100 * folds.mean():.2g} % of the pixels"]


def test_fields_that_do_nothing_are_drawn_pale():
    ax = spt.plot.warped_grid(np.zeros((20, 30, 2)))
    red, green, blue, _ = ax.images[0].to_rgba(np.ones((1, 1)))[0, 0]
    assert min(red, green, blue) > 0.9


def test_unknown_parts_of_a_field_are_hatched():
    field = bump((60, 80), (30, 40), 4, 12)
    field[:20, :30] = np.nan
    ax = spt.plot.warped_grid(field, spacing=5)
    assert np.ma.getmaskarray(ax.images[0].get_array())[:20, :30].all()
    assert hatched(ax)
    for lines in grid_lines(ax):
        points = np.concatenate(lines)
        assert not ((points[:, 0] < 19) & (points[:, 1] < 29)).any()


def test_a_pixel_that_is_unknown_is_hatched():
    field = np.zeros((9, 9, 2))
    field[3, 4] = np.nan
    ax = spt.plot.warped_grid(field)
    assert np.ma.getmaskarray(ax.images[0].get_array())[3, 4]
    assert hatched(ax)


def test_only_fields_in_the_plane_are_drawn():
    with pytest.raises(ValueError, match=r"must have shape \(rows, cols, 2\); got"):
        spt.plot.warped_grid(np.zeros((4, 4, 4, 3)))


@pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf])
def test_squares_of_a_grid_have_a_size(spacing):
    with pytest.raises(ValueError, match="`spacing` must be finite and greater"):
        spt.plot.warped_grid(np.zeros((9, 9, 2)), spacing=spacing)

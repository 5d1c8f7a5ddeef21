from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

FIELDS = [
    "reference_points",
    "moving_points",
    "covariance",
    "correlation",
    "false_alarm",
    "alternatives",
    "outcome",
]


class Counted:
    """An array that counts the pixels that are read, and remembers where."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = []

    def __getitem__(self, key):
        part = self.array[key]
        self.reads.append(part.size)
        return part


class Untouched:
    """A tile that must not be read."""

    shape, dtype = (32, 32), np.dtype(np.float32)

    def __getitem__(self, key):
        message = "read before the arguments were checked"
        raise AssertionError(message)


@pytest.fixture(scope="module")
def made():
    """A grid of 3 x 3 tiles with an unsteady stage and 10 dB."""
    field = spt.gaussian_texture((420, 420), rng=1)
    return spt.simulate_tiles(
        field, (3, 3), (128, 128), overlap=0.2, stage_sigma=2, noise_sigma=0.3, rng=1
    )


LINKS = spt.grid_links((3, 3))


@pytest.fixture(scope="module")
def matched(made):
    return match(made.tiles, made)


def match(tiles, made, links=LINKS, **options):
    options = {"positions": made.stage, "max_shift": 10} | options
    return spt.match_tiles(tiles, links, **options)


def shifts(found):
    return found.reference_points - found.moving_points


def truth(made, links=LINKS):
    return made.positions[links[:, 1]] - made.positions[links[:, 0]]


def sigmas(found):
    return np.sqrt(np.diagonal(found.covariance, axis1=-2, axis2=-1))


def assert_same(first, second, rows=slice(None)):
    """Check that two results agree to the last bit."""
    assert_array_equal(first.links[rows], second.links[rows])
    for name in FIELDS:
        assert_array_equal(getattr(first, name)[rows], getattr(second, name)[rows])


# Truth


def test_links_say_where_tiles_are(made, matched):
    assert (matched.outcome == "matched").all()
    error = np.abs(shifts(matched) - truth(made))
    # The largest of 24 numbers lies within five standard deviations.
    assert (error < 5 * sigmas(matched)).all()
    assert (sigmas(matched) < 0.2).all()
    assert_array_equal(matched.links, LINKS)


@pytest.mark.parametrize("options", [{"positions": None, "max_shift": None}, {}])
def test_the_stage_is_a_help_and_not_a_need(made, options):
    found = match(made.tiles, made, **options)
    assert (found.outcome == "matched").all()
    assert (np.abs(shifts(found) - truth(made)) < 5 * sigmas(found)).all()


def test_a_constant_added_to_all_positions_does_not_matter(made, matched):
    found = match(made.tiles, made, positions=made.stage + np.array([1000, -500]))
    assert_same(found, matched)


def test_bounds_may_differ_between_axes(made):
    found = match(made.tiles, made, max_shift=(8, 20))
    assert (np.abs(shifts(found) - truth(made)) < 5 * sigmas(found)).all()


def test_volumes_are_matched():
    field = spt.gaussian_texture((50, 120, 120), rng=2)
    made = spt.simulate_tiles(
        field, (1, 2, 2), (32, 56, 56), overlap=0.3, stage_sigma=1, rng=2
    )
    links = spt.grid_links((1, 2, 2))
    noisy = made.tiles + 0.1 * np.random.default_rng(2).normal(size=made.tiles.shape)
    found = match(noisy, made, links, max_shift=6)
    assert (found.outcome == "matched").all()
    assert found.reference_points.shape == (4, 3)
    assert (np.abs(shifts(found) - truth(made, links)) < 5 * sigmas(found)).all()


def test_tiles_may_differ_in_shape_and_dtype():
    field = 30 * spt.gaussian_texture((300, 300), rng=3) + 128
    tiles = [
        np.round(field[:180, :160]).astype(np.uint8),
        field[20:150, 120:300].astype(np.float32),
        field[130:300, 10:140],
    ]
    found = spt.match_tiles(tiles, [(0, 1), (2, 0)])
    assert (found.outcome == "matched").all()
    # 0.02 px: the bytes are rounded.
    assert_allclose(shifts(found), [(20, 120), (-130, -10)], rtol=0, atol=0.02)


def test_placement_takes_matches_as_they_are(made, matched):
    placed = spt.solve_rigid(
        matched.links,
        matched.reference_points,
        matched.moving_points,
        covariance=matched.covariance,
    )
    error = placed.matrices[:, :2, 2] - made.positions
    error -= error.mean(axis=0)
    # A grid of links places tiles better than one link does.
    assert np.abs(error).max() < 5 * sigmas(matched).max()
    assert placed.inlier.all()


# What points mean


def test_points_lie_at_the_centre_of_the_overlap(matched):
    shift = shifts(matched)
    low = np.maximum(0, shift) - 0.5
    high = np.minimum(128, 128 + shift) - 0.5
    # 1e-9: rounding.
    assert_allclose(matched.reference_points, (low + high) / 2, rtol=0, atol=1e-9)


def test_points_lie_at_the_centre_for_unlike_shapes():
    field = spt.gaussian_texture((300, 300), rng=3)
    field += 0.02 * np.random.default_rng(3).normal(size=field.shape)
    tiles = [field[:200, :180], field[60:120, 150:300]]
    found = spt.match_tiles(tiles, [(0, 1)])
    # The rows of the moving tile all lie on the other: pixels 60 to 119; of the
    # columns those from 150 to 179. 0.01: the shift is measured.
    assert_allclose(found.reference_points, [(89.5, 164.5)], rtol=0, atol=0.01)
    assert_allclose(found.moving_points, [(29.5, 14.5)], rtol=0, atol=0.01)


def test_first_alternative_is_the_answer(matched):
    assert matched.alternatives.shape == (12, 3, 2)
    assert_allclose(
        matched.alternatives[:, 0], matched.reference_points, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("peaks", [1, 4])
def test_number_of_alternatives_is_the_one_asked_for(made, peaks):
    found = match(made.tiles, made, peaks=peaks)
    assert found.alternatives.shape == (12, peaks, 2)


def test_a_link_is_what_the_pair_says(made, matched):
    """Tiles are matched like pairs, on the parts that can overlap."""
    row = 4
    i, j = LINKS[row]
    alone = spt.phase_correlate(
        made.tiles[i],
        made.tiles[j],
        guess=made.stage[j] - made.stage[i],
        max_shift=10,
    )
    assert_allclose(shifts(matched)[row], alone.shift, rtol=0, atol=1e-9)
    assert_allclose(matched.covariance[row], alone.covariance, rtol=1e-9)
    assert matched.outcome[row] == alone.outcome


def test_several_links_may_join_the_same_tiles(made, matched):
    links = np.concatenate([LINKS, LINKS[:2], LINKS[:1]])
    found = match(made.tiles, made, links)
    for name in FIELDS:
        values = getattr(found, name)
        assert_array_equal(values[:12], getattr(matched, name))
        assert_array_equal(values[12:], getattr(matched, name)[[0, 1, 0]])


def test_a_link_turned_round_says_the_opposite(made, matched):
    found = match(made.tiles, made, LINKS[:, ::-1])
    # Fits end within a tenth of a standard deviation each.
    error = np.abs(shifts(found) + shifts(matched))
    assert (error < 0.2 * sigmas(matched)).all()


def test_order_of_links_does_not_matter(made, matched):
    found = match(made.tiles, made, LINKS[::-1])
    for name in FIELDS:
        assert_array_equal(getattr(found, name)[::-1], getattr(matched, name))


def test_no_links_give_no_matches(made):
    found = match(made.tiles, made, np.empty((0, 2), int))
    assert found.reference_points.shape == (0, 2)
    assert found.covariance.shape == (0, 2, 2)
    assert found.alternatives.shape == (0, 3, 2)
    assert found.outcome.shape == (0,)


def test_a_mapping_goes_by_labels(made, matched):
    keys = [tuple(cell) for cell in made.grid.tolist()]
    tiles = dict(zip(keys, made.tiles, strict=True))
    stage = dict(zip(keys, made.stage, strict=True))
    links = [(keys[i], keys[j]) for i, j in LINKS]
    found = match(tiles, made, links, positions=stage)
    assert [(first, second) for first, second in found.links] == links
    for name in FIELDS:
        assert_array_equal(getattr(found, name), getattr(matched, name))


def test_matches_by_label_are_placed_by_label(made):
    keys = ["abcdefghi"[n] for n in range(9)]
    tiles = dict(zip(keys, made.tiles, strict=True))
    stage = dict(zip(keys, made.stage, strict=True))
    links = [(keys[i], keys[j]) for i, j in LINKS]
    found = match(tiles, made, links, positions=stage)
    placed = spt.solve_rigid(
        found.links,
        found.reference_points,
        found.moving_points,
        covariance=found.covariance,
        positions=stage,
    )
    assert list(placed.labels) == keys
    error = placed.matrices[:, :2, 2] - made.positions
    error -= error.mean(axis=0)
    assert np.abs(error).max() < 5 * sigmas(found).max()


# Masks


def test_one_mask_serves_all_tiles(made):
    stain = np.zeros((128, 128), bool)
    stain[50:70, 5:123] = stain[5:123, 50:70] = True
    tiles = made.tiles.copy()
    tiles[:, stain] = 40 * np.random.default_rng(0).normal(size=stain.sum())
    found = match(tiles, made, valid=~stain)
    assert (found.outcome == "matched").all()
    assert (np.abs(shifts(found) - truth(made)) < 5 * sigmas(found)).all()


def test_each_tile_may_have_its_own_mask(made):
    valid = np.ones((9, 128, 128), bool)
    valid[4, 60:, :30] = False
    tiles = made.tiles.copy()
    tiles[~valid] = np.nan
    expected = match(tiles, made)
    assert_same(match(made.tiles, made, valid=valid), expected)
    assert_same(match(made.tiles, made, valid=list(valid)), expected)


# Failures stay where they are


@pytest.mark.parametrize("filling", [np.nan, 3.0, np.inf, 1e30])
def test_a_bad_tile_leaves_the_other_links_alone(made, matched, filling):
    tiles = made.tiles.copy()
    tiles[4] = filling
    found = match(tiles, made)
    bad = (LINKS == 4).any(axis=1)
    assert_same(found, matched, ~bad)
    assert (found.outcome[bad] == "no texture").all()
    assert (found.false_alarm[bad] == 1).all()
    assert (found.correlation[bad] == 0).all()
    assert np.isfinite(found.reference_points).all()
    assert np.isfinite(found.alternatives).all()


def test_unmatched_links_have_infinite_covariance(made):
    tiles = made.tiles.copy()
    tiles[0] = 0
    tiles[8] = np.random.default_rng(0).normal(size=(128, 128))
    found = match(tiles, made)
    bad = np.isin(LINKS, (0, 8)).any(axis=1)
    assert (found.outcome[bad] != "matched").all()
    assert np.isinf(np.diagonal(found.covariance[bad], axis1=1, axis2=2)).all()
    assert np.isfinite(found.covariance[~bad]).all()


def test_a_placement_does_not_heed_failed_links(made):
    tiles = made.tiles.copy()
    tiles[8] = np.nan
    found = match(tiles, made)
    placed = spt.solve_rigid(
        found.links,
        found.reference_points,
        found.moving_points,
        covariance=found.covariance,
        positions=made.stage,
        position_sigma=2,
    )
    assert placed.outcome[8] == "by prior only"
    assert (placed.outcome[:8] == "matched").all()
    error = (placed.matrices[:, :2, 2] - made.positions)[:8]
    error -= error.mean(axis=0)
    assert np.abs(error).max() < 5 * sigmas(found)[np.isfinite(sigmas(found))].max()


def test_tiles_that_the_stage_puts_apart_are_not_found(made):
    stage = made.stage.copy()
    stage[0] -= 10_000
    found = match(made.tiles, made, positions=stage)
    far = (LINKS == 0).any(axis=1)
    assert np.isin(found.outcome[far], ["not found", "no texture"]).all()
    assert (found.outcome[~far] == "matched").all()


# What is read, and by whom


def test_only_what_can_overlap_is_read(made):
    tiles = [Counted(tile) for tile in made.tiles]
    found = match(tiles, made, [(0, 1)])
    assert_same(found, match(made.tiles, made, [(0, 1)]))
    # The overlap is 26 px wide, and the stage may be wrong by 10 px.
    assert sum(tiles[0].reads) <= 37 * 128
    assert sum(tiles[1].reads) <= 37 * 128
    assert all(tile.reads == [] for tile in tiles[2:])


def test_reading_grows_with_the_bound(made):
    amounts = []
    for bound in (2, 10, 30):
        tiles = [Counted(tile) for tile in made.tiles]
        match(tiles, made, [(0, 1)], max_shift=bound)
        amounts.append(sum(tiles[0].reads))
    assert amounts[0] < amounts[1] < amounts[2] < 128 * 128


def test_tiles_may_lie_in_a_file(made, matched, tmp_path):
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        tiles = [file.create_dataset(f"t{n}", data=t) for n, t in enumerate(made.tiles)]
        assert_same(match(tiles, made), matched)


def test_tiles_may_be_dask_zarr_or_memory_maps(made, matched, tmp_path):
    lazy = [da.from_array(tile, chunks=50) for tile in made.tiles]
    assert_same(match(lazy, made), matched)
    stored = [zarr.array(tile, chunks=(50, 50)) for tile in made.tiles]
    assert_same(match(stored, made), matched)
    np.save(tmp_path / "tiles.npy", made.tiles)
    mapped = np.load(tmp_path / "tiles.npy", mmap_mode="r")
    assert_same(match(mapped, made), matched)


def test_dask_computes_only_the_blocks_of_the_overlap(made):
    computed = []

    def block(values, block_info=None):
        if block_info and block_info[0] is not None:
            computed.append(values.size)
        return values

    lazy = [
        da.from_array(tile, chunks=32).map_blocks(block, dtype=tile.dtype)
        for tile in made.tiles
    ]
    match(lazy, made, [(0, 1)])
    # At most two columns of four blocks of either tile.
    assert 0 < sum(computed) <= 2 * 8 * 32 * 32


@pytest.mark.parametrize("workers", [2, 5, map])
def test_workers_do_not_change_a_bit(made, matched, workers):
    assert_same(match(made.tiles, made, workers=workers), matched)


def test_pools_do_not_change_a_bit(made, matched):
    with ThreadPoolExecutor(3) as pool:
        assert_same(match(made.tiles, made, workers=pool.map), matched)


def backwards(function, items):
    """Compute the last item first, as an executor may."""
    return reversed([function(item) for item in reversed(list(items))])


def test_workers_may_compute_in_any_order(made, matched):
    assert_same(match(made.tiles, made, workers=backwards), matched)


@pytest.mark.slow
def test_processes_do_not_change_a_bit(made, matched):
    with ProcessPoolExecutor(2) as pool:
        assert_same(match(made.tiles, made, workers=pool.map), matched)


def test_tiles_are_not_changed(made, matched):
    tiles = made.tiles.copy()
    tiles.setflags(write=False)
    stage = made.stage.copy()
    stage.setflags(write=False)
    links = LINKS.copy()
    links.setflags(write=False)
    found = match(tiles, made, links, positions=stage)
    assert_same(found, matched)
    assert_array_equal(tiles, made.tiles)
    assert not np.shares_memory(found.links, links)


def test_progress_is_shown_only_if_asked_for(made, capsys):
    match(made.tiles, made, [(0, 1)])
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    match(made.tiles, made, [(0, 1)], progress=True)
    assert "match tiles" in capsys.readouterr().err


# Bad input

TILES = [Untouched() for _ in range(3)]
STAGE = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("links", "match"),
    [
        ([(0, 3)], r"`links` must join known tiles; got \[0, 3\]"),
        ([(0, 1), (-1, 2)], r"`links` must join known tiles; got \[-1, 2\]"),
        ([(0, 1), (2, 2)], "`links` must join two tiles; got 2 twice in link 1"),
        (np.zeros((2, 3), int), r"`links` must have shape \(n_links, 2\); got"),
        (np.zeros(4, int), r"`links` must have shape \(n_links, 2\); got \(4,\)"),
        ([(0, 1), (0, 1, 2)], r"`links` must hold pairs of tiles; got \(0, 1, 2\)"),
    ],
)
def test_links_must_join_two_tiles_that_exist(links, match):
    with pytest.raises(ValueError, match=match):
        spt.match_tiles(TILES, links)


@pytest.mark.parametrize("links", [[("a", "b")], [(0.5, 1)], np.array([(0.0, 1.0)])])
def test_tiles_in_a_sequence_go_by_number(links):
    with pytest.raises(TypeError, match=r"`links` must hold .*; got"):
        spt.match_tiles(TILES, links)


def test_labels_must_be_those_of_the_tiles():
    with pytest.raises(ValueError, match="`links` must join known tiles; got"):
        spt.match_tiles({"a": TILES[0], "b": TILES[1]}, [("a", "c")])


def test_positions_must_name_every_tile():
    tiles = {"a": TILES[0], "b": TILES[1]}
    with pytest.raises(ValueError, match="`positions` must name every tile; got"):
        spt.match_tiles(tiles, [("a", "b")], positions={"a": (0, 0)})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"positions": STAGE[:2]},
            r"`positions` must have shape \(3, 2\); got \(2, 2\)",
        ),
        ({"positions": STAGE[:, :1]}, r"`positions` must have shape \(3, 2\); got"),
        ({"positions": STAGE.ravel()}, r"`positions` must have shape \(3, 2\); got"),
        ({"positions": STAGE * np.nan}, "`positions` must be finite; got 6 NaN"),
        ({"positions": STAGE + np.inf}, "`positions` must be finite; got 6 NaN"),
        ({"max_shift": -1}, "`max_shift` must .*; got -1"),
        ({"max_shift": (1, 2, 3)}, r"`max_shift` must .*; got \(3,\)"),
        ({"max_shift": np.nan}, "`max_shift` must be finite; got"),
        ({"min_overlap": 2}, "`min_overlap` must be between 0 and 1; got 2"),
        ({"min_overlap": -1}, "`min_overlap` must be between 0 and 1; got -1"),
        ({"valid": np.ones((9, 9), bool)}, r"`valid` must have shape \(32, 32\); got"),
        ({"valid": np.ones((2, 32, 32), bool)}, "`valid` must hold one mask for each"),
        ({"valid": [None, None]}, "`valid` must hold one mask for each"),
        ({"whitening": 2}, "`whitening` must be between 0 and 1; got 2"),
        ({"peaks": 0}, "`peaks` must be at least 1; got 0"),
        ({"workers": 0}, "`workers` must be at least 1; got 0"),
        ({"workers": -2}, "`workers` must be at least 1; got -2"),
        (
            {"pattern": np.ones((9, 9))},
            r"`pattern` must have the shape of .* got \(9, 9",
        ),
        ({"pattern": np.full((32, 32), np.nan)}, "`pattern` must be finite; got 1024"),
    ],
)
def test_options_must_make_sense_before_anything_is_read(options, match):
    with pytest.raises(ValueError, match=match):
        spt.match_tiles(TILES, [(0, 1)], **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"workers": 1.5}, "`workers` must be an integer or a map-like callable; got"),
        ({"workers": "all"}, "`workers` must be an integer or a map-like callable"),
        ({"workers": True}, "`workers` must be an integer or a map-like callable"),
        ({"peaks": 2.0}, "`peaks` must be an integer; got float"),
        ({"valid": np.ones((32, 32))}, "`valid.*` must be boolean; got dtype float64"),
        ({"positions": [("a", "b")] * 3}, "`positions` must hold real numbers; got"),
    ],
)
def test_options_must_be_of_the_right_kind_before_anything_is_read(options, match):
    with pytest.raises(TypeError, match=match):
        spt.match_tiles(TILES, [(0, 1)], **options)


@pytest.mark.parametrize(
    ("tiles", "error", "match"),
    [
        ([], ValueError, "`tiles` must hold at least one tile; got none"),
        (
            [np.ones(9)] * 2,
            ValueError,
            r"`tiles` must hold 2-D or 3-D .*; got .*\(9,\)",
        ),
        ([np.ones((2,) * 4)] * 2, ValueError, "`tiles` must hold 2-D or 3-D images"),
        ([np.ones((0, 9))] * 2, ValueError, "`tiles` must .* at least one pixel"),
        (
            [np.ones((9, 9)), np.ones((9, 9, 9))],
            ValueError,
            "`tiles` must all have the same number of axes; got",
        ),
        (
            [np.ones((9, 9), complex)] * 2,
            TypeError,
            "must hold real numbers; got dtype",
        ),
        ([np.ones((9, 9), object)] * 2, TypeError, "must hold real numbers; got dtype"),
        ([np.ones((9, 9)).astype(str)] * 2, TypeError, "must hold real numbers; got"),
        (["a.tif", "b.tif"], TypeError, r"`tiles\[0\]` must be an array .*; got str"),
        ([[[1, 2], [3]], [[1]]], TypeError, r"`tiles\[0\]` .* NumPy says .* inhomog"),
    ],
)
def test_tiles_must_be_images(tiles, error, match):
    with pytest.raises(error, match=match):
        spt.match_tiles(tiles, [(0, 1)])


def test_an_error_in_reading_is_told():
    with pytest.warns(
        spt.UnreadableWarning,
        match="said AssertionError: read before the arguments were checked",
    ):
        spt.match_tiles(TILES, [(0, 1)])


def test_every_dtype_of_tiles_is_taken(made):
    picture = np.round(25 * made.tiles + 110).clip(0, 255)
    expected = shifts(match(picture, made))
    for dtype in (np.uint8, np.uint16, np.int32, np.float16, np.longdouble):
        found = match(picture.astype(dtype), made)
        assert (found.outcome == "matched").all()
        # The numbers are the same; only sums round differently.
        assert_allclose(shifts(found), expected, rtol=0, atol=1e-3)


def test_links_may_be_any_integers(made, matched):
    for links in (LINKS.astype(np.uint8), LINKS.tolist(), [tuple(r) for r in LINKS]):
        found = match(made.tiles, made, links)
        assert_array_equal(found.links, LINKS)
        assert_array_equal(found.reference_points, matched.reference_points)


class Recorder:
    """A stored stack that notes how much is read of it."""

    def __init__(self, stack):
        self.stack, self.shape, self.dtype, self.read = (
            stack,
            stack.shape,
            stack.dtype,
            0,
        )

    def __getitem__(self, key):
        part = self.stack[key]
        self.read += part.size
        return part


@pytest.mark.parametrize("place", [False, True])
def test_of_a_stored_stack_only_overlaps_are_read(place):
    field = spt.gaussian_texture((260, 480), rng=4)
    made = spt.simulate_tiles(field, (1, 2), (200, 200), overlap=0.2, rng=4)
    stack = Recorder(made.tiles)
    if place:
        found = spt.place_tiles(stack, positions=made.stage, max_shift=10)
        assert (found.outcome == "matched").all()
    else:
        found = spt.match_tiles(stack, [(0, 1)], positions=made.stage, max_shift=10)
        assert found.outcome[0] == "matched"
    # Each tile is read once, 40 columns and what the search may add.
    assert stack.read < 2 * 200 * 60

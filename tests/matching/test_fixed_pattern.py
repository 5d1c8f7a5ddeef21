import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SHAPE = (128, 128)
GRID = (3, 4)
LINKS = spt.grid_links(GRID)


def dust(number=0):
    """A fixed pattern as strong as the scene, and with as much detail."""
    return spt.gaussian_texture(SHAPE, cutoff=0.4, slope=2, rng=1000 + number)


def acquisition(number, pattern, *, noise=0.1, stage_sigma=2.0):
    """Twelve tiles that overlap by a quarter, seen by a camera with dust."""
    field = spt.gaussian_texture((380, 470), cutoff=0.4, rng=number)
    return spt.simulate_tiles(
        field,
        GRID,
        SHAPE,
        overlap=0.25,
        stage_sigma=stage_sigma,
        noise_sigma=noise,
        pattern=pattern,
        rng=number,
    )


def truth(made):
    return made.positions[LINKS[:, 1]] - made.positions[LINKS[:, 0]]


def shifts(found):
    return found.reference_points - found.moving_points


def right(found, made):
    return np.abs(shifts(found) - truth(made)).max(axis=1) < 0.5


# The pattern itself


def test_pattern_is_what_tiles_share():
    pattern = dust()
    tiles = [
        pattern + spt.gaussian_texture(SHAPE, cutoff=0.4, rng=n) for n in range(40)
    ]
    found = spt.camera_pattern(tiles)
    assert found.shape == SHAPE
    # Forty scenes leave 1 / sqrt(40) of their amplitude: 16 %.
    assert np.std(found - pattern) < 0.2
    assert np.corrcoef(found.ravel(), pattern.ravel())[0, 1] > 0.97


def test_pattern_has_no_mean():
    found = spt.camera_pattern([dust() + level for level in (3, 500, -20)])
    # 1e-5: single precision at a level of 500.
    assert abs(found.mean()) < 1e-5
    assert_allclose(found, dust() - dust().mean(), rtol=0, atol=1e-4)


def test_tiles_of_a_stack_and_of_a_list_give_the_same():
    tiles = acquisition(1, dust()).tiles
    assert_array_equal(spt.camera_pattern(tiles), spt.camera_pattern(list(tiles)))


def test_order_of_tiles_hardly_matters():
    tiles = acquisition(1, dust()).tiles
    # 1e-6: sums round differently.
    assert_allclose(
        spt.camera_pattern(tiles[::-1]), spt.camera_pattern(tiles), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_tile_spoils_no_other(bad):
    tiles = list(acquisition(1, dust()).tiles)
    found = spt.camera_pattern([*tiles, np.full(SHAPE, bad)])
    expected = spt.camera_pattern(tiles)
    assert np.isfinite(found).all()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_bytes_are_taken():
    tiles = np.round(20 * acquisition(1, dust()).tiles + 120).clip(0, 255)
    found = spt.camera_pattern(tiles.astype(np.uint8))
    # 1e-4: single precision at a level of 120.
    assert_allclose(found, spt.camera_pattern(tiles), rtol=0, atol=1e-4)


def test_tiles_are_not_changed():
    tiles = acquisition(1, dust()).tiles
    copy = tiles.copy()
    tiles.setflags(write=False)
    spt.camera_pattern(tiles)
    assert_array_equal(tiles, copy)


@pytest.mark.parametrize(
    ("tiles", "error", "match"),
    [
        ([], ValueError, "`tiles` must hold at least one tile; got none"),
        (
            [np.ones((4, 4)), np.ones((4, 5))],
            ValueError,
            "`tiles` must all have the sa",
        ),
        ([np.ones(5)], ValueError, r"`tiles\[0\]` must be a 2-D or 3-D image; got"),
        ([np.ones((4, 4)), np.ones((4, 4), complex)], TypeError, "must hold real numb"),
    ],
)
def test_tiles_must_be_images_of_one_shape(tiles, error, match):
    with pytest.raises(error, match=match):
        spt.camera_pattern(tiles)


# Matching under a pattern


@pytest.fixture(scope="module")
def dusty():
    return [acquisition(number, dust(number)) for number in range(6)]


def test_without_help_the_pattern_holds_links_at_zero(dusty):
    """Otherwise the tests below would say nothing."""
    found = spt.match_tiles(dusty[0].tiles, LINKS, pattern=0)
    assert right(found, dusty[0]).mean() < 0.5


def test_links_are_found_under_a_pattern_of_one_signal_sd(dusty):
    found = [spt.match_tiles(made.tiles, LINKS) for made in dusty]
    hits = np.concatenate([right(f, m) for f, m in zip(found, dusty, strict=True)])
    believed = np.concatenate([f.outcome == "matched" for f in found])
    # 99 %: at most three of 102 links may fail by chance (1 in 50).
    assert (hits & believed).sum() >= len(hits) - 3, hits.mean()
    assert not (believed & ~hits).any()


def test_links_are_found_with_a_stage_too(dusty):
    found = [
        spt.match_tiles(made.tiles, LINKS, positions=made.stage, max_shift=12)
        for made in dusty
    ]
    hits = np.concatenate([right(f, m) for f, m in zip(found, dusty, strict=True)])
    believed = np.concatenate([f.outcome == "matched" for f in found])
    # Strips of a quarter of 128 px hold few modes beside what is left of the dust.
    assert (hits & believed).sum() >= len(hits) - 8, hits.mean()
    # Some are known to half a pixel only, and say so.
    for match, made in zip(found, dusty, strict=True):
        sigma = np.sqrt(np.diagonal(match.covariance, axis1=1, axis2=2))
        error = np.abs(shifts(match) - truth(made))
        assert (error <= 5 * sigma)[match.outcome == "matched"].all()


def test_covariance_is_honest_under_a_pattern(dusty):
    squares = []
    for made in dusty:
        found = spt.match_tiles(made.tiles, LINKS)
        good = right(found, made) & (found.outcome == "matched")
        error = (shifts(found) - truth(made))[good]
        inverse = np.linalg.inv(found.covariance[good])
        squares.append(np.einsum("ni,nij,nj->n", error, inverse, error) / 2)
    # The mean of 100 squares of a pair has a standard deviation of 0.1; what the
    # estimate of the pattern leaves behind is in the images like noise.
    assert 0.5 < np.concatenate(squares).mean() < 2


def test_a_given_pattern_is_taken_off(dusty):
    made = dusty[0]
    found = spt.match_tiles(made.tiles, LINKS, pattern=dust(0))
    assert (found.outcome == "matched").all()
    clean = spt.match_tiles(acquisition(0, None).tiles, LINKS)
    # Nothing is left of it: what remains is single precision.
    assert_allclose(shifts(found), shifts(clean), rtol=0, atol=1e-3)


def test_a_pattern_of_zero_takes_nothing_off(dusty):
    made = acquisition(0, None)
    plain = spt.match_tiles(made.tiles, LINKS, pattern=0)
    zeros = spt.match_tiles(made.tiles, LINKS, pattern=np.zeros(SHAPE))
    assert_allclose(shifts(zeros), shifts(plain), rtol=0, atol=1e-6)
    del dusty


def test_a_pattern_may_come_from_other_tiles(dusty):
    others = spt.simulate_tiles(
        spt.gaussian_texture((1000, 1000), cutoff=0.4, rng=77),
        (7, 7),
        SHAPE,
        overlap=0,
        pattern=dust(0),
        rng=77,
    )
    found = spt.match_tiles(
        dusty[0].tiles, LINKS, pattern=spt.camera_pattern(others.tiles)
    )
    assert right(found, dusty[0]).all()


def test_clean_tiles_are_left_alone():
    made = acquisition(3, None)
    found = spt.match_tiles(made.tiles, LINKS)
    plain = spt.match_tiles(made.tiles, LINKS, pattern=0)
    assert_array_equal(found.reference_points, plain.reference_points)
    assert_array_equal(found.covariance, plain.covariance)


def still(*, pattern, repeats=12):
    """Twelve pictures of one scene that never moves."""
    rng = np.random.default_rng(5)
    field = spt.gaussian_texture(SHAPE, rng=5)
    return field + pattern + 0.3 * rng.normal(size=(repeats, *SHAPE))


@pytest.mark.parametrize("pattern", [0, dust()], ids=["clean", "dusty"])
def test_a_still_scene_stays_matched_at_zero(pattern):
    tiles = still(pattern=pattern)
    links = [(n, n + 1) for n in range(11)]
    found = spt.match_tiles(tiles, links)
    assert (found.outcome == "matched").all()
    sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert (np.abs(shifts(found)) < 5 * sigma).all()


def test_a_genuine_zero_among_moving_tiles_stays_at_zero():
    """Tile 12 is another picture of what tile 5 shows."""
    made = acquisition(6, dust(6))
    field = made.tiles[5] - dust(6)
    again = field + dust(6) + 0.1 * np.random.default_rng(6).normal(size=SHAPE)
    tiles = np.concatenate([made.tiles, again[None]])
    links = np.concatenate([LINKS, [(5, 12)]])
    found = spt.match_tiles(tiles, links)
    assert found.outcome[-1] == "matched"
    sigma = np.sqrt(np.diag(found.covariance[-1]))
    assert (np.abs(shifts(found)[-1]) < 5 * sigma).all()
    assert np.abs(shifts(found)[:-1] - truth(made)).max() < 0.5


def test_tiles_that_share_only_the_pattern_are_not_matched():
    made = acquisition(7, dust(7))
    # The first and the last tile of a grid show nothing in common.
    links = np.concatenate([LINKS, [(0, 11), (3, 8)]])
    found = spt.match_tiles(made.tiles, links)
    assert np.isin(found.outcome[-2:], ["fixed pattern", "not found"]).all()
    assert np.isinf(np.diagonal(found.covariance[-2:], axis1=1, axis2=2)).all()


def test_workers_do_not_change_a_bit_under_a_pattern(dusty):
    one = spt.match_tiles(dusty[0].tiles, LINKS)
    many = spt.match_tiles(dusty[0].tiles, LINKS, workers=3)
    for name in ("reference_points", "covariance", "false_alarm", "outcome"):
        assert_array_equal(getattr(one, name), getattr(many, name))


@pytest.mark.parametrize("filling", [np.nan, 3.0])
def test_a_bad_tile_does_not_spoil_the_pattern(dusty, filling):
    made = dusty[1]
    tiles = made.tiles.copy()
    tiles[0] = filling
    found = spt.match_tiles(tiles, LINKS)
    bad = (LINKS == 0).any(axis=1)
    assert (found.outcome[bad] == "no texture").all()
    assert right(found, made)[~bad].all()


def test_what_a_mask_hides_is_no_pattern(dusty):
    made = dusty[2]
    valid = np.zeros(made.tiles.shape[1:], bool)
    valid[5:-9, 12:-3] = True
    valid[40:44, 40:50] = False
    found = [
        spt.match_tiles(np.where(valid, made.tiles, behind), LINKS, valid=valid)
        for behind in (0.0, 400.0, np.nan)
    ]
    assert right(found[0], made).mean() > 0.9
    for other in found[1:]:
        assert_array_equal(shifts(other), shifts(found[0]))
        assert_array_equal(other.false_alarm, found[0].false_alarm)


class Wordy:
    """A stored tile that promises numbers and holds words."""

    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(float)

    def __getitem__(self, key):
        return np.full(self.shape, "word")[key]


def test_only_tiles_that_cannot_be_read_are_left_out_of_the_pattern(dusty):
    tiles = [*dusty[3].tiles, Wordy(dusty[3].tiles.shape[1:])]
    with pytest.raises(TypeError, match=r"`tiles` must hold real numbers; got dtype"):
        spt.match_tiles(tiles, LINKS)

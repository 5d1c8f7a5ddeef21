"""Tiles in, placement out: what is known of the stage, and what is blank or missing."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._placement.layout import fit_stage, lay_out
from spectral_tools._placement.place_tiles import Matched, _rematch
from spectral_tools._placement.report import doubts
from spectral_tools._placement.stage_steps import place_with_stage, vouched_links
from tests.sweeps import sweep

# Strips of 24 px at 20 dB are known to a hundredth or two of a pixel, and stage errors
# make some of them narrow.
RIGHT = 0.15


def acquired(grid=(3, 4), *, overlap=0.25, sigma=3.0, number=1, width=96, **options):
    """Tiles of a texture with everything that `simulate_tiles` offers."""
    size = [int(width * n * (1 - overlap) + width) for n in grid]
    scene = spt.gaussian_texture(size, rng=number)
    options = {"noise_sigma": 0.1, **options}
    return spt.simulate_tiles(
        scene, grid, (width, width), overlap=overlap, stage_sigma=sigma, rng=number,
        **options,
    )  # fmt: skip


def errors(placed, truth, rows=None):
    """Distance of each tile from the truth, when the others lie best."""
    found = placed.matrices[:, :-1, -1] - truth
    rows = np.ones(len(truth), bool) if rows is None else rows
    return np.abs(found - np.median(found[rows], axis=0)).max(axis=1)


def test_tiles_are_placed_from_stage_positions():
    made = acquired()
    placed = spt.place_tiles(made.tiles, positions=made.stage)
    assert errors(placed, made.positions).max() < RIGHT
    assert (placed.outcome == "matched").all()


@pytest.mark.parametrize("order", ["rows", "columns", "snake", "columns-snake"])
def test_a_grid_shape_is_enough(order):
    made = acquired()
    at = spt.grid_positions((3, 4), (1, 1), overlap=0, order=order).astype(int)
    row = at[:, 0] * 4 + at[:, 1]
    placed = spt.place_tiles(
        [made.tiles[n] for n in row], grid=(3, 4), order=order, overlap=0.1
    )
    assert errors(placed, made.positions[row]).max() < RIGHT


def test_grid_keys_are_enough():
    made = acquired()
    keys = [divmod(n, 4) for n in range(12)]
    # One is missing, and nothing comes in order.
    del keys[6]
    keys.reverse()
    tiles = {key: made.tiles[key[0] * 4 + key[1]] for key in keys}
    placed = spt.place_tiles(tiles)
    assert placed.labels == keys
    truth = np.array([made.positions[row * 4 + col] for row, col in keys])
    assert errors(placed, truth).max() < RIGHT


def test_links_alone_are_enough():
    made = acquired((2, 3))
    placed = spt.place_tiles(made.tiles, links=spt.grid_links((2, 3)))
    assert errors(placed, made.positions).max() < RIGHT


def test_planes_of_a_volume_are_placed_too():
    scene = spt.gaussian_texture((28, 90, 130), rng=3)
    made = spt.simulate_tiles(
        scene, (1, 1, 2), (16, 64, 64), overlap=0.4, stage_sigma=1, rng=3
    )
    placed = spt.place_tiles(made.tiles, grid=(1, 1, 2), overlap=0.3)
    # Sixteen planes, of which tapers leave ten.
    assert errors(placed, made.positions).max() < RIGHT


def test_the_stage_is_learnt():
    made = acquired((4, 5), sigma=2.0)
    turned = (made.stage - made.stage.mean(axis=0)) @ [[1.03, -0.02], [0.02, 1.03]]
    placed = spt.place_tiles(made.tiles, positions=turned, max_shift=20)
    back = np.linalg.inv([[1.03, 0.02], [-0.02, 1.03]])
    # Steps of 72 px with errors of 2.8 px, of which 15 a direction: 0.01.
    assert_allclose(placed.stage.matrix, back, rtol=0, atol=0.03)
    assert (placed.stage.sigma > 1.2).all()
    assert (placed.stage.sigma < 2.8).all()


@pytest.mark.parametrize("kind", ["blank", "noise", "missing"])
def test_a_tile_that_shows_nothing_lies_beside_its_neighbours(kind):
    made = acquired((4, 5), sigma=2.0)
    tiles = list(made.tiles.copy())
    if kind == "missing":
        tiles[7] = None
    else:
        tiles[7][:] = 0
    if kind == "noise":
        tiles[7][:] = np.random.default_rng(5).normal(size=(96, 96))
    placed = spt.place_tiles(tiles, grid=(4, 5), overlap=0.2)
    others = np.arange(20) != 7
    error = errors(placed, made.positions, others)
    assert error[others].max() < RIGHT
    assert placed.outcome[7] == "by prior only"
    assert all(isinstance(one, spt.Outcome) for one in placed.matches.outcome)
    assert (placed.outcome[others] == "matched").all()
    # Its own stage error of 2 px, and half of that again from its neighbours.
    assert error[7] < 7


def test_two_halves_are_held_together_by_the_stage():
    made = acquired((3, 5), sigma=2.0)
    tiles = made.tiles.copy()
    tiles[2::5] = 0
    placed = spt.place_tiles(tiles, grid=(3, 5), overlap=0.2)
    full = np.arange(15) % 5 != 2
    assert len(np.unique(placed.group[full])) == 2
    # Two steps by three rows, each wrong by 2.8 px.
    assert errors(placed, made.positions, full)[full].max() < 8


def halves(number, **options):
    """Tiles of which one link joins the left half and the right; who is in the right."""
    made = acquired((3, 4), sigma=2.0, number=number, **options)
    links, right = spt.grid_links((3, 4)), np.arange(12) % 4 > 1
    kept = (right[links[:, 0]] == right[links[:, 1]]) | (links == (5, 6)).all(axis=1)
    return made, links[kept], right


@pytest.mark.parametrize("jump", [(-14, 17), (20, 0), (6, 9)])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_one_clear_link_holds_two_halves_against_the_stage(number, jump):
    made, links, right = halves(number, width=150)
    stage = made.stage + right[:, np.newaxis] * jump
    placed = spt.place_tiles(made.tiles, positions=stage, links=links, max_shift=40)
    assert placed.inlier.all()
    assert errors(placed, made.positions).max() < RIGHT


def test_where_neither_link_nor_stage_is_sure_the_smaller_part_is_in_doubt():
    made, links, right = halves(1)
    lost = made.stage + right[:, np.newaxis] * (20, 0)
    with pytest.warns(spt.PlacementWarning, match="but a clear link to others"):
        placed = spt.place_tiles(made.tiles, positions=lost, links=links, max_shift=40)
    assert (placed.outcome[right] == "matched").all()
    assert (placed.outcome[~right] == "contradicted").all()
    # Its match stays, unless a clearer one is found where the stage wants it.
    layout = lay_out(made.tiles, lost, None, "rows", 0.1, links, 40, 0.02)
    nothing = [None] * len(placed.links)
    first, failed = Matched(placed.matches, nothing), ~placed.inlier
    for more, stays in ((2.0, True), (0.5, False)):
        alarm = more * placed.matches.false_alarm
        other = Matched(replace(placed.matches, false_alarm=alarm), nothing)
        found = _rematch(
            layout, lambda *_, o=other: o, first, placed, placed.stage, failed
        )
        assert (found is first) == stays


@pytest.mark.parametrize("rival", [False, True])
@pytest.mark.parametrize(
    ("alarm", "outcome", "believed"),
    [
        (5e-4, "matched", "stage"),
        (1e-8, "ambiguous", "stage"),
        (1e-8, "matched", "neither"),
        (1e-15, "matched", "link"),
    ],
)
def test_a_false_link_against_a_stage_counts_what_it_tells(
    alarm, outcome, believed, rival
):
    """The link misses by 27 px what the stage knows to 2 px; a lesser peak may fit."""
    made, links, right = halves(5)
    matches = spt.match_tiles(made.tiles, links, positions=made.stage, max_shift=40)
    changed = {
        name: getattr(matches, name).copy()
        for name in ("reference_points", "alternatives", "false_alarm", "outcome")
    }
    row = np.flatnonzero((links == (5, 6)).all(axis=1))
    if rival:
        changed["alternatives"][row, 1] = matches.reference_points[row]
    changed["reference_points"][row] += (22, -16)
    changed["alternatives"][row, 0] = changed["reference_points"][row]
    changed["false_alarm"][row] = alarm
    changed["outcome"][row] = spt.Outcome(outcome)
    layout = lay_out(made.tiles, made.stage, None, "rows", 0.1, links, 40, 0.02)
    placed = place_with_stage(layout, replace(matches, **changed))[0]
    assert (placed.inlier & (placed.chosen == 0))[row] == (believed == "link")
    # Of two halves that are as large it is the first.
    lost = ~right & (believed == "neither")
    assert (placed.outcome[lost] == "contradicted").all()
    assert (placed.outcome[~lost] == "matched").all()
    assert any("a clear link" in doubt for doubt in doubts(placed)) == lost.any()
    # Each half is off by 11 px; where the stage holds them, by what it errs.
    error = errors(placed, made.positions).max()
    assert error > 10 if believed == "link" else error < 4


@pytest.mark.slow
def test_error_bars_across_a_gap_are_honest():
    squares = []
    for number in range(12):
        made = acquired((4, 6), overlap=0.2, number=number)
        tiles = made.tiles.copy()
        tiles[2::6] = 0
        placed = spt.place_tiles(tiles, grid=(4, 6))
        told = spt.offset_covariance(placed, [(7, 10)])[0]
        at = placed.matrices[[7, 10], :2, 2] - made.positions[[7, 10]]
        squares.append((at[1] - at[0]) @ np.linalg.solve(told, at[1] - at[0]) / 2)
    # The mean of 24 squares has a standard deviation of 0.3; what the model of the
    # stage is off by is counted rather too high.
    assert 0.3 < np.mean(squares) < 1.6


def test_pairs_that_were_refused_place_no_tile():
    # Beads that all look alike: pairs match falsely, or find no answer they believe.
    rng = np.random.default_rng(22)
    picture = np.zeros((420, 500))
    picture[tuple(rng.integers(0, n, 500) for n in picture.shape)] = 1
    picture = ndimage.gaussian_filter(picture, 2)
    picture += 0.05 * picture.std() * rng.normal(size=picture.shape)
    nominal = spt.grid_positions((4, 5), (96, 96), overlap=0.16).astype(int) + 20
    truth = nominal + rng.integers(-4, 5, nominal.shape)
    tiles = [picture[r : r + 96, c : c + 96] for r, c in truth]
    placed = spt.place_tiles(tiles, positions=nominal)
    refused = ~np.isin(placed.matches.outcome.astype(str), ["matched", "ambiguous"])
    assert refused.any()
    assert not placed.inlier[refused].any()
    held = placed.outcome == "matched"
    assert held.sum() > 10
    for number in range(placed.group.max() + 1):
        ours = held & (placed.group == number)
        if ours.any():
            found = placed.matrices[ours, :2, 2] - truth[ours]
            assert np.abs(found - np.median(found, axis=0)).max() < 1


@pytest.mark.parametrize("told", ["positions", "grid"])
@pytest.mark.parametrize("number", sweep(range(3), 0))
def test_tiles_of_noise_stay_where_they_were_put(told, number):
    tiles = np.random.default_rng(number).normal(size=(12, 100, 100))
    nominal = spt.grid_positions((3, 4), (100, 100), overlap=0.15)
    given = {"positions": nominal} if told == "positions" else {"grid": (3, 4)}
    with pytest.warns(spt.PlacementWarning, match="^0 of ") as warned:
        placed = spt.place_tiles(tiles, **given)
    assert len(warned) == 1
    assert set(placed.outcome) == {spt.Outcome.PRIOR_ONLY}
    assert not placed.inlier.any()
    if told == "positions":
        assert_allclose(placed.matrices[:, :2, 2], nominal, atol=1e-6)


def turned_tiles(angle, number):
    """Tiles of one scene, each turned by up to an angle in degrees."""
    rng = np.random.default_rng(number)
    scene = spt.gaussian_texture((600, 600), cutoff=0.1, rng=number)
    nominal = spt.grid_positions((3, 3), (160, 160), overlap=0.3).astype(int) + 80
    wide = [scene[r - 40 : r + 200, c - 40 : c + 200] for r, c in nominal]
    turned = [
        ndimage.rotate(tile, rng.uniform(-angle, angle), reshape=False) for tile in wide
    ]
    return [tile[40:200, 40:200] for tile in turned], nominal


@pytest.mark.parametrize("number", range(3))
def test_tiles_that_do_not_fit_together_are_doubted(number):
    """They are where their links claim to be more precise than they are."""
    tiles, nominal = turned_tiles(5, number)
    placed = spt.place_tiles(tiles, positions=nominal)
    precise = replace(placed, covariance=1e-3 * placed.covariance)
    [said] = doubts(precise)
    assert "contradict each other" in said
    assert str(spt.placement_report(precise)).startswith(said)


@pytest.mark.parametrize("number", range(3))
def test_seams_that_nobody_sees_are_no_warning(number):
    """Their links miss by 15 to 30 standard deviations, and by half a pixel."""
    tiles, nominal = turned_tiles(0.8, number)
    placed = spt.place_tiles(tiles, positions=nominal)
    assert (placed.outcome == "matched").all()


def test_one_match_by_chance_among_many_tries_is_not_believed():
    """Benjamini and Hochberg: it would have to be rarer, or not alone."""
    made = acquired((3, 3), sigma=1.0)
    matches = spt.match_tiles(
        made.tiles, spt.grid_links((3, 3)), positions=made.stage, max_shift=10
    )
    assert vouched_links(matches).all()
    chance = np.full(12, 0.5)
    chance[3] = 5e-4
    outcome = np.where(chance < 1e-3, spt.Outcome.MATCHED, spt.Outcome.NOT_FOUND)
    alone = replace(matches, false_alarm=chance, outcome=outcome.astype(object))
    assert not vouched_links(alone).any()
    chance[:] = 5e-4
    outcome[:] = spt.Outcome.MATCHED
    together = replace(matches, false_alarm=chance, outcome=outcome.astype(object))
    assert vouched_links(together).all()


def test_rows_that_nothing_joins_stay_apart():
    """Jitter of a stage along an axis tells nothing of long steps along it."""
    rng = np.random.default_rng(3)
    rows = [spt.gaussian_texture((130, 400), rng=number) for number in range(2)]
    truth = np.array([(a, b) for a in (0, 2000) for b in (0, 90, 180, 270)], float)
    tiles = [rows[int(a > 0)][5:125, int(b) : int(b) + 120] for a, b in truth]
    placed = spt.place_tiles(tiles, positions=truth + rng.normal(0, 2, truth.shape))
    found = placed.matrices[:, :2, 2]
    assert abs(found[4:, 0].mean() - found[:4, 0].mean() - 2000) < 10
    assert_allclose(placed.stage.matrix[:, 0], (1, 0), atol=2e-3)


def test_stage_errors_that_add_up_do_not_matter():
    rng = np.random.default_rng(6)
    made = acquired((2, 8), sigma=1.0)
    lost = made.stage + np.cumsum(rng.normal(0, 6, (16, 2)), axis=0)
    placed = spt.place_tiles(made.tiles, positions=lost, max_shift=40,
                             links=spt.grid_links((2, 8)))  # fmt: skip
    assert errors(placed, made.positions).max() < RIGHT


def test_a_failed_link_is_matched_again_where_the_others_put_it():
    made = acquired((3, 3), sigma=1.0, number=0)
    tiles, links = made.tiles.copy(), spt.grid_links((3, 3))
    # A strip deep in noise: too deep to be found among thousands of shifts.
    tiles[0][:, 68:] += 3 * np.random.default_rng(0).normal(size=(96, 28))
    options = {"positions": made.stage, "max_shift": 40}
    first = spt.match_tiles(tiles, links, **options)
    placed = spt.place_tiles(tiles, links=links, **options)
    assert first.outcome[0] == "not found"
    assert placed.matches.outcome[0] == "matched"
    assert placed.inlier.all()


def test_residuals_are_what_the_links_miss():
    made = acquired((2, 3))
    placed = spt.place_tiles(made.tiles, positions=made.stage)
    i, j = placed.links.T
    at = placed.matrices[:, :2, 2]
    miss = (
        placed.matches.reference_points + at[i] - placed.matches.moving_points - at[j]
    )
    assert_allclose(placed.residuals, miss, rtol=0, atol=1e-9)


def test_threads_change_nothing():
    made = acquired((2, 3))
    one, two = (
        spt.place_tiles(made.tiles, grid=(2, 3), workers=workers) for workers in (1, 2)
    )
    assert_array_equal(one.matrices, two.matrices)


def test_false_steps_do_not_bend_the_stage(rng):
    steps = np.repeat([[0.0, 90.0], [80.0, 0.0]], 30, axis=0)
    offsets = steps @ np.array([[1.02, 0.01], [-0.03, 0.97]]).T
    offsets += rng.normal(0, 1.5, offsets.shape)
    offsets[::4] += rng.uniform(-60, 60, offsets[::4].shape)
    stage = fit_stage(steps, offsets, np.array([100.0, 100.0]))
    # 1.5 px over 90 px, averaged over 22 links: 0.004; four of these.
    assert_allclose(stage.matrix, [[1.02, 0.01], [-0.03, 0.97]], rtol=0, atol=0.016)
    assert_allclose(stage.sigma, 1.5 / np.sqrt(2), rtol=0.3)


def test_one_row_of_tiles_tells_nothing_of_columns():
    steps = np.tile([[0.0, 90.0]], (5, 1))
    stage = fit_stage(steps, steps * 1.1 + [3, 0], np.array([100.0, 100.0]))
    assert_allclose(stage.matrix, [[1, 1 / 30], [0, 1.1]], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"positions": None}, "`positions`, `grid` or `links` must be given"),
        ({"positions": None, "grid": (2, 2)}, "`grid` must have one place for each of 6"),
        ({"positions": np.zeros((5, 2))}, "`positions` must"),
        ({"max_shift": (1, 2, 3)}, "`max_shift` must"),
        ({"links": [(0, 9)]}, "`links` must join known tiles"),
        ({"tiles": [None, None]}, "`tiles` must hold at least one image; got none"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused(change, match):
    made = acquired((2, 3))
    options = {"tiles": made.tiles, "positions": made.stage} | change
    with pytest.raises(ValueError, match=match):
        spt.place_tiles(**options)


def test_labels_without_a_position_are_named():
    made = acquired((1, 2))
    tiles = {"a": made.tiles[0], "b": made.tiles[1]}
    with pytest.raises(
        ValueError, match="`positions` must name every tile; got none for 'b'"
    ):
        spt.place_tiles(tiles, positions={"a": (0, 0)})


TURNED = {
    "The stage does not move as `positions` or `grid` say: axis 0 is reversed": np.diag(
        [-1, 1]
    ),
    "axes 0, 1 are reversed": np.diag([-1, -1]),
    "its axes are swapped \\(": np.array([(0, 1), (1, 0)]),
    "its axes are swapped and reversed": np.array([(0, -1), (1, 0)]),
    "a unit is 0.2[45]\\d* px": np.diag([4, 4]),
    "a unit is 6.[67]. px": np.diag([0.15, 0.15]),
    "its axes are turned": spt.rotation(0.6)[:2, :2],
}


@pytest.mark.parametrize("told", sweep(TURNED, 0, 5))
def test_a_stage_that_moves_otherwise_is_found_out(told):
    turn = TURNED[told]
    scene = spt.gaussian_texture((620, 620), cutoff=0.3, rng=11)
    made = spt.simulate_tiles(
        scene, (3, 3), (180, 180), overlap=0.15, stage_sigma=3, noise_sigma=0.2, rng=3
    )
    with pytest.warns(spt.PlacementWarning, match=told):
        placed = spt.place_tiles(made.tiles, positions=made.stage @ turn.T)
    found = placed.matrices[:, :2, 2] - placed.matrices[0, :2, 2]
    assert np.abs(found - made.positions + made.positions[0]).max() < 0.3
    assert_allclose(placed.stage.matrix @ turn, np.eye(2), atol=0.05)
    # Given as it is, the stage needs no warning.
    again = spt.place_tiles(
        made.tiles, positions=made.stage @ turn.T @ placed.stage.matrix.T
    )
    assert again.inlier.sum() == placed.inlier.sum() >= 18


def test_a_blank_tile_does_not_turn_the_stage():
    scene = spt.gaussian_texture((620, 620), cutoff=0.3, rng=11)
    made = spt.simulate_tiles(scene, (3, 3), (180, 180), overlap=0.15, rng=3)
    tiles = made.tiles.copy()
    tiles[3:6] = 0
    with pytest.warns(spt.PlacementWarning, match="Only 4 of 20 pairs"):
        placed = spt.place_tiles(tiles, positions=made.stage)
    assert_allclose(placed.stage.matrix, np.eye(2), atol=0.05)


@pytest.mark.parametrize("seed", sweep([11, 15], 1))
def test_tiles_in_disorder_are_no_stage_that_moves_otherwise(seed):
    """A map explains the few pairs that meet by chance."""
    scene = spt.gaussian_texture((620, 760), cutoff=0.2, rng=4)
    made = spt.simulate_tiles(
        scene, (3, 4), (160, 180), overlap=0.15, stage_sigma=3, noise_sigma=0.1, rng=4
    )
    order = np.random.default_rng(seed).permutation(12)
    with pytest.warns(spt.PlacementWarning, match=r"\d of 29 pairs were found"):
        placed = spt.place_tiles(made.tiles[order], positions=made.stage)
    assert "does not move as" not in str(spt.placement_report(placed))
    away = placed.matrices[:, :2, 2] - made.positions[order]
    for group in np.unique(placed.group):
        assert np.ptp(away[placed.group == group], axis=0).max() < 1


@pytest.mark.filterwarnings("ignore::spectral_tools.PlacementWarning")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["waves", "board"])
def test_tiles_of_a_lattice_are_not_matched_by_copies(kind, seed):
    rows, cols = (np.cos(np.pi * axis / 10) for axis in np.indices((480, 520)))
    lattice = rows * cols if kind == "waves" else np.sign(rows) * np.sign(cols)
    rng = np.random.default_rng(seed)
    nominal = np.array([(20 + 130 * r, 20 + 148 * c) for r, c in np.ndindex(3, 3)])
    truth = nominal + rng.integers(-6, 7, nominal.shape)
    tiles = [
        40 * lattice[r : r + 160, c : c + 180] + rng.normal(0, 8, (160, 180))
        for r, c in truth
    ]
    placed = spt.place_tiles(tiles, positions=nominal)
    if kind == "waves":
        assert (placed.outcome == "ambiguous").all()
        assert len(np.unique(placed.group)) == 9
    # What is tied together lies right to each other, the stage errs by a third of a period.
    for group in np.unique(placed.group):
        tied = (placed.group == group) & (placed.outcome == "matched")
        away = placed.matrices[tied, :2, 2] - truth[tied]
        assert not len(away) or np.ptp(away, axis=0).max() < 0.5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SIGMA = 0.3


def positions_of(placed):
    return placed.matrices[:, :-1, -1]


def measured(links, truth, noise=0.0):
    """Return points that join tiles at their true positions, but for noise."""
    links = np.asarray(links)
    offsets = truth[links[:, 1]] - truth[links[:, 0]] + noise
    moving = np.tile([7.0, -3.0, 2.0][: truth.shape[1]], (len(links), 1))
    return offsets + moving, moving


@pytest.fixture
def grid(rng):
    """Links and true positions of a 5 x 5 grid, errors of the stage included."""
    nominal = spt.grid_positions((5, 5), (100, 100))
    return spt.grid_links((5, 5)), nominal + rng.normal(scale=3, size=nominal.shape)


def covariances(rng, count, ndim=2):
    """Return covariances that differ in size and direction."""
    roots = rng.normal(size=(count, ndim, ndim))
    return roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(ndim)


# Least squares


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize(("shape", "tile"), [((4, 5), (9, 9)), ((2, 3, 4), (9, 8, 7))])
def test_perfect_matches_leave_no_residual(shape, tile, robust):
    truth = spt.grid_positions(shape, tile)
    links = spt.grid_links(shape)
    placed = spt.solve_rigid(links, *measured(links, truth), robust=robust)
    # 1e-12: rounding of positions up to 40.
    assert_allclose(placed.residuals, 0, atol=1e-12)
    assert placed.inlier.all()
    found = positions_of(placed)
    assert_allclose(found - found[0], truth - truth[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("robust", [False, True])
def test_seam_errors_reach_the_limit_of_least_squares(rng, robust):
    shape = (60, 60)
    truth, links = spt.grid_positions(shape, (100, 100)), spt.grid_links(shape)
    points = measured(links, truth, rng.normal(scale=SIGMA, size=(len(links), 2)))
    placed = spt.solve_rigid(
        links, *points, covariance=SIGMA**2 * np.eye(2), robust=robust
    )
    error = positions_of(placed) - truth
    seams = np.sqrt(np.mean((error[links[:, 1]] - error[links[:, 0]]) ** 2))
    limit = SIGMA * np.sqrt((len(truth) - 1) / len(links))
    # 3 %: four times the spread of a mean square of 7200 independent numbers.
    assert_allclose(seams, limit, rtol=0.03)


@pytest.mark.parametrize("prior", [None, (2.0, 5.0)])
@pytest.mark.parametrize("kind", ["alike", "diagonal", "any"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_solution_is_that_of_dense_weighted_least_squares(rng, kind, prior, ndim):
    """Whatever the covariances allow to be shared between axes."""
    shape = (3, 4, 2)[:ndim]
    truth = spt.grid_positions(shape, (10,) * ndim)
    links = spt.grid_links(shape, diagonal=True)
    covariance = covariances(rng, len(links), ndim)
    if kind == "alike":
        covariance = covariance[:1] * rng.uniform(0.1, 10, (len(links), 1, 1))
    if kind == "diagonal":
        covariance = covariance * np.eye(ndim)
    points = measured(links, truth, rng.normal(size=(len(links), ndim)))
    sigma = None if prior is None else np.resize(prior, ndim)
    placed = spt.solve_rigid(
        links,
        *points,
        covariance=covariance,
        positions=truth,
        position_sigma=sigma,
        robust=False,
    )

    count = len(truth)
    incidence = np.zeros((len(links), count))
    incidence[np.arange(len(links)), links[:, 1]] = 1
    incidence[np.arange(len(links)), links[:, 0]] = -1
    rows = np.kron(incidence, np.eye(ndim)).reshape(len(links), ndim, -1)
    weights = np.linalg.inv(covariance)
    normal = np.einsum("eai,eab,ebj->ij", rows, weights, rows)
    right = np.einsum("eai,eab,eb->i", rows, weights, points[0] - points[1])
    if sigma is None:
        # Any stiffness of the mean alone fixes the gauge and nothing else.
        stiff = np.kron(np.ones((count, count)), np.eye(ndim))
    else:
        stiff = np.kron(np.eye(count), np.diag(sigma**-2.0))
    expected = np.linalg.solve(normal + stiff, right + stiff @ truth.ravel())
    # 1e-9: a dense solution with condition numbers up to 1e5.
    assert_allclose(positions_of(placed).ravel(), expected, rtol=0, atol=1e-9)


@given(order=st.permutations(range(40)))
def test_order_of_links_does_not_matter(order):
    rng = np.random.default_rng(3)
    truth, links = spt.grid_positions((5, 5), (90, 90)), spt.grid_links((5, 5))
    reference, moving = measured(links, truth, rng.normal(size=(40, 2)))
    covariance = covariances(rng, 40)
    one = spt.solve_rigid(links, reference, moving, covariance=covariance)
    other = spt.solve_rigid(
        links[order], reference[order], moving[order], covariance=covariance[order]
    )
    # 1e-9: rounding, which sums in another order.
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)
    assert_array_equal(other.inlier, one.inlier[order])


@pytest.mark.parametrize("robust", [False, True])
@given(factor=st.floats(1e-6, 1e6))
def test_scaling_all_covariances_changes_nothing(robust, factor):
    rng = np.random.default_rng(3)
    truth, links = spt.grid_positions((5, 5), (90, 90)), spt.grid_links((5, 5))
    points = measured(links, truth, rng.normal(scale=SIGMA, size=(40, 2)))
    covariance = SIGMA**2 * covariances(rng, 40)
    one = spt.solve_rigid(links, *points, covariance=covariance, robust=robust)
    other = spt.solve_rigid(
        links, *points, covariance=factor * covariance, robust=robust
    )
    # 1e-9: rounding, of weights that differ by twelve orders of magnitude.
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)


def test_swapping_the_roles_of_all_tiles_changes_nothing(grid, rng):
    links, truth = grid
    reference, moving = measured(links, truth, rng.normal(size=(40, 2)))
    one = spt.solve_rigid(links, reference, moving)
    other = spt.solve_rigid(links[:, ::-1], moving, reference)
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)
    assert_allclose(other.residuals, -one.residuals, rtol=0, atol=1e-9)


def test_residual_is_what_the_points_miss_in_the_mosaic(grid, rng):
    links, truth = grid
    reference, moving = measured(links, truth, rng.normal(size=(40, 2)))
    placed = spt.solve_rigid(links, reference, moving)
    missed = [
        spt.apply_transform(placed.matrices[i], reference[row])
        - spt.apply_transform(placed.matrices[j], moving[row])
        for row, (i, j) in enumerate(links)
    ]
    assert_allclose(placed.residuals, missed, rtol=0, atol=1e-9)


def test_a_link_given_twice_counts_twice():
    links = [(0, 1), (0, 1), (0, 1)]
    points = [(0, 9), (0, 9), (0, 12)], np.zeros((3, 2))
    placed = spt.solve_rigid(links, *points, fixed=0, robust=False)
    assert_allclose(positions_of(placed)[1], (0, 10), rtol=0, atol=1e-12)


def test_an_uncertain_axis_is_decided_by_other_links():
    """A strip sees one axis well; two kinds of strips see both."""
    covariance = [np.diag([1e-4, 1e4]), np.diag([1e4, 1e-4])]
    placed = spt.solve_rigid(
        [(0, 1), (0, 1)],
        [(5, 99), (99, 7)],
        np.zeros((2, 2)),
        covariance=covariance,
        fixed=0,
        robust=False,
    )
    # 1e-5: the bad axes weigh 1e-8, and are wrong by 100.
    assert_allclose(positions_of(placed)[1], (5, 7), rtol=0, atol=1e-5)


# Gauge, prior and groups


def test_mean_of_the_positions_is_zero(grid):
    links, truth = grid
    placed = spt.solve_rigid(links, *measured(links, truth))
    assert_allclose(positions_of(placed).mean(axis=0), 0, rtol=0, atol=1e-10)


def test_positions_without_sigma_set_the_mean_only(grid, rng):
    links, truth = grid
    points = measured(links, truth)
    wrong = truth + rng.normal(scale=20, size=truth.shape)
    placed = spt.solve_rigid(links, *points, positions=wrong)
    found = positions_of(placed)
    assert_allclose(found.mean(axis=0), wrong.mean(axis=0), rtol=0, atol=1e-10)
    assert_allclose(placed.residuals, 0, atol=1e-10)


@pytest.mark.parametrize("fixed", [[12], [0, 24], [3, 7, 20]])
@pytest.mark.parametrize("prior", [{}, {"position_sigma": 2.0}])
def test_fixed_tiles_stay_exactly(grid, rng, fixed, prior):
    links, truth = grid
    points = measured(links, truth, rng.normal(size=(40, 2)))
    nominal = spt.grid_positions((5, 5), (100, 100))
    placed = spt.solve_rigid(links, *points, positions=nominal, fixed=fixed, **prior)
    assert_array_equal(positions_of(placed)[fixed], nominal[fixed])


def test_fixed_tile_without_positions_is_the_origin(grid):
    links, truth = grid
    placed = spt.solve_rigid(links, *measured(links, truth), fixed=4)
    assert_allclose(positions_of(placed), truth - truth[4], rtol=0, atol=1e-10)


def test_all_tiles_may_be_fixed():
    nominal = [(0, 0), (3, 4)]
    placed = spt.solve_rigid(
        [(0, 1)], [(9, 9)], [(0, 0)], positions=nominal, fixed=[0, 1]
    )
    assert_array_equal(positions_of(placed), nominal)


def test_prior_weighs_like_a_measurement():
    """Two tiles that should be 10 apart and were measured 13 apart."""
    placed = spt.solve_rigid(
        [(0, 1)],
        [(0, 13)],
        [(0, 0)],
        covariance=np.eye(2),
        positions=[(0, 0), (0, 10)],
        position_sigma=1.0,
    )
    # The stage says 10 with variance 1 + 1, the link says 13 with variance 1.
    assert_allclose(positions_of(placed), [(0, -1), (0, 11)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [1e6, 1e12])
def test_a_weak_prior_leaves_the_links_alone(grid, sigma):
    links, truth = grid
    placed = spt.solve_rigid(
        links, *measured(links, truth), positions=truth + 5, position_sigma=sigma
    )
    # 1e-6: links are to the prior as 1 to 1e-12.
    assert_allclose(positions_of(placed), truth + 5, rtol=0, atol=1e-6)


def test_unconnected_groups_are_numbered_and_centred():
    links = [(3, 4), (0, 1), (1, 2)]
    placed = spt.solve_rigid(links, [(0, 5), (2, 0), (2, 0)], np.zeros((3, 2)))
    assert_array_equal(placed.group, [0, 0, 0, 1, 1])
    expected = [(-2, 0), (0, 0), (2, 0), (0, -2.5), (0, 2.5)]
    assert_allclose(positions_of(placed), expected, rtol=0, atol=1e-12)


def test_unconnected_groups_are_placed_by_positions():
    nominal = np.array([(0, 0), (10, 0), (50, 0), (60, 1)])
    placed = spt.solve_rigid(
        [(0, 1), (2, 3)], [(12, 0), (12, 0)], np.zeros((2, 2)), positions=nominal
    )
    expected = [(-1, 0), (11, 0), (49, 0.5), (61, 0.5)]
    assert_allclose(positions_of(placed), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", [{}, {"position_sigma": 2.0}])
def test_unlinked_tiles_stay_where_the_stage_put_them(prior):
    nominal = [(0, 0), (10, 0), (50, 0)]
    placed = spt.solve_rigid([(0, 1)], [(12, 0)], [(0, 0)], positions=nominal, **prior)
    assert_allclose(positions_of(placed)[2], (50, 0), rtol=0, atol=1e-12)
    assert placed.outcome.tolist() == ["matched", "matched", "by prior only"]


def test_unlinked_tiles_without_positions_are_isolated():
    placed = spt.solve_rigid([(0, 2)], [(5, 5)], [(0, 0)])
    assert placed.outcome.tolist() == ["matched", "isolated", "matched"]
    assert isinstance(placed.outcome[0], spt.Outcome)


def test_positions_alone_place_tiles():
    nominal = [(0, 0), (7, 8)]
    none = np.empty((0, 2))
    placed = spt.solve_rigid(np.empty((0, 2), int), none, none, positions=nominal)
    assert_array_equal(positions_of(placed), nominal)
    assert placed.residuals.shape == (0, 2)


# Links that failed, and links that are wrong


def test_links_of_infinite_covariance_have_no_say():
    covariance = np.array([np.eye(2), np.full((2, 2), np.inf), np.diag([np.inf, 1])])
    placed = spt.solve_rigid(
        [(0, 1), (0, 1), (1, 2)],
        [(0, 5), (0, 99), (0, 5)],
        np.zeros((3, 2)),
        covariance=covariance,
        fixed=0,
    )
    assert_allclose(positions_of(placed)[1], (0, 5), rtol=0, atol=1e-12)
    assert placed.inlier.tolist() == [True, False, False]
    assert placed.outcome.tolist() == ["matched", "matched", "isolated"]
    assert_array_equal(placed.group, [0, 0, 1])


@pytest.mark.parametrize("covariance", [None, SIGMA**2 * np.eye(2), 1e-8 * np.eye(2)])
@pytest.mark.parametrize("prior", [False, True])
def test_one_false_link_is_found_and_harms_nothing(grid, rng, covariance, prior):
    """Even if the covariances are far too small, as they are under distortion."""
    links, truth = grid
    noise = rng.normal(scale=SIGMA, size=(40, 2))
    false = int(np.flatnonzero((links == (12, 13)).all(axis=1))[0])
    noise[false] += (30, 40)
    options = {"positions": truth, "position_sigma": 5.0} if prior else {"fixed": 0}
    placed = spt.solve_rigid(
        links, *measured(links, truth, noise), covariance=covariance, **options
    )
    assert np.flatnonzero(~placed.inlier).tolist() == [false]
    error = positions_of(placed) - truth
    # 1.2 px: four sigma. Plain least squares is wrong by 15 px.
    assert_allclose(error - error.mean(axis=0), 0, atol=1.2)


def test_false_link_does_not_enter_the_solution(grid, rng):
    links, truth = grid
    reference, moving = measured(links, truth, rng.normal(scale=SIGMA, size=(40, 2)))
    kept = np.arange(40) != 17
    expected = spt.solve_rigid(links[kept], reference[kept], moving[kept], robust=False)
    reference[17] += 50
    placed = spt.solve_rigid(links, reference, moving)
    # 1e-6: a false link of 50 px counts 1e-9.
    assert_allclose(placed.matrices, expected.matrices, rtol=0, atol=1e-6)


def test_without_robustness_every_usable_link_is_believed(grid):
    links, truth = grid
    reference, moving = measured(links, truth)
    reference[17] += 50
    placed = spt.solve_rigid(links, reference, moving, robust=False)
    assert placed.inlier.all()
    assert np.abs(placed.residuals).max() > 10


@pytest.mark.parametrize("covariance", [None, SIGMA**2 * np.eye(2)])
def test_robust_is_plain_where_nothing_is_wrong(rng, covariance):
    truth, links = spt.grid_positions((15, 15), (90, 90)), spt.grid_links((15, 15))
    points = measured(links, truth, rng.normal(scale=SIGMA, size=(len(links), 2)))
    plain = spt.solve_rigid(links, *points, covariance=covariance, robust=False)
    robust = spt.solve_rigid(links, *points, covariance=covariance)
    assert robust.inlier.all()
    assert_allclose(robust.matrices, plain.matrices, rtol=0, atol=1e-9)


def test_most_tiles_survive_one_false_link_in_ten(rng):
    truth, links = spt.grid_positions((15, 15), (90, 90)), spt.grid_links((15, 15))
    noise = rng.normal(scale=SIGMA, size=(len(links), 2))
    false = rng.random(len(links)) < 0.1
    noise[false] = rng.uniform(-30, 30, (np.count_nonzero(false), 2))
    placed = spt.solve_rigid(links, *measured(links, truth, noise))
    error = positions_of(placed) - truth
    right = np.abs(error - np.median(error, axis=0)).max(axis=1) < 1.5
    # Tiles at the border whose two links disagree cannot be decided: 1.3 % of
    # all on average. Plain least squares places 5 to 10 % right.
    assert right.mean() > 0.95


def test_a_single_open_loop_blames_no_link():
    """Each of the four may be the false one: no choice would be honest."""
    links = [(0, 1), (1, 3), (3, 2), (2, 0)]
    offsets = [(0, 10), (10, 0), (0, -10), (-10, 3)]
    placed = spt.solve_rigid(links, offsets, np.zeros((4, 2)))
    assert placed.inlier.all()
    assert_allclose(placed.residuals, np.full((4, 2), (0, 0.75)), rtol=0, atol=1e-9)


def test_tile_that_all_links_contradict_says_so(grid):
    links, truth = grid
    reference, moving = measured(links, truth)
    wrong = (links == 12).any(axis=1)
    reference[wrong] += [(50, 0), (0, 50), (-60, 0), (0, -70)]
    placed = spt.solve_rigid(
        links,
        reference,
        moving,
        covariance=np.eye(2),
        positions=truth,
        position_sigma=3.0,
    )
    assert placed.outcome[12] is spt.Outcome.CONTRADICTED
    assert np.count_nonzero(placed.outcome == "matched") == 24
    # 1e-3: what is not believed counts 1e-9, and the stage 0.1.
    assert_allclose(positions_of(placed)[12], truth[12], rtol=0, atol=1e-3)


# Alternatives and chances


@pytest.fixture
def doubtful(rng):
    """A 5 x 5 grid in which three links are wrong, and their second offset right."""
    nominal = spt.grid_positions((5, 5), (100, 100))
    links = spt.grid_links((5, 5))
    truth = nominal + rng.normal(scale=3, size=nominal.shape)
    reference, moving = measured(links, truth, rng.normal(scale=0.1, size=(40, 2)))
    right = reference - moving
    options = np.stack([right, right + 40, right - 40], axis=1)
    wrong = np.array([3, 17, 30])
    options[wrong, 0], options[wrong, 1] = right[wrong] + (25, -20), right[wrong]
    return links, options, wrong, truth


def solve_options(links, options, **settings):
    """Place tiles whose links start at the first of their alternatives."""
    settings = {"covariance": 0.01 * np.eye(options.shape[2])} | settings
    first = options[:, 0]
    return spt.solve_rigid(links, first, 0 * first, alternatives=options, **settings)


def test_contradicted_links_change_to_the_alternative_that_fits(doubtful):
    links, options, wrong, truth = doubtful
    placed = solve_options(links, options)
    assert np.flatnonzero(placed.chosen).tolist() == wrong.tolist()
    assert (placed.chosen[wrong] == 1).all()
    assert placed.inlier.all()
    error = positions_of(placed) - truth
    # 0.4 px: four sigma. Any wrong link moves tiles by more than 5 px.
    assert_allclose(error - error.mean(axis=0), 0, atol=0.4)


def test_residuals_are_those_of_the_chosen_alternatives(doubtful):
    links, options, _, _ = doubtful
    placed = solve_options(links, options)
    used = options[np.arange(len(links)), placed.chosen]
    found = positions_of(placed)
    expected = used - (found[links[:, 1]] - found[links[:, 0]])
    assert_allclose(placed.residuals, expected, rtol=0, atol=1e-9)


def test_without_robustness_the_points_are_taken_at_their_word(doubtful):
    links, options, _, _ = doubtful
    placed = solve_options(links, options, robust=False)
    plain = spt.solve_rigid(links, options[:, 0], 0 * options[:, 0], robust=False)
    assert not placed.chosen.any()
    assert_allclose(placed.matrices, plain.matrices, rtol=0, atol=1e-9)


def test_alternatives_are_points_of_the_reference(doubtful):
    links, options = doubtful[:2]
    first = options[:, 0]
    placed = spt.solve_rigid(links, first, 0 * first, alternatives=options)
    moved = spt.solve_rigid(links, first + 7, 0 * first + 7, alternatives=options + 7)
    assert_array_equal(moved.chosen, placed.chosen)
    assert_allclose(moved.matrices, placed.matrices, rtol=0, atol=1e-9)


def test_repeated_alternatives_change_nothing(doubtful):
    links, options, _, _ = doubtful
    repeated = np.concatenate([options, options[:, -1:], options[:, -1:]], axis=1)
    one, other = solve_options(links, options), solve_options(links, repeated)
    assert_array_equal(other.chosen, one.chosen)
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)


def test_order_of_links_does_not_matter_to_choices(doubtful, rng):
    links, options, _, _ = doubtful
    order = rng.permutation(len(links))
    one, other = (
        solve_options(links, options),
        solve_options(links[order], options[order]),
    )
    assert_array_equal(other.chosen, one.chosen[order])
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)


def test_swapping_the_roles_of_tiles_does_not_matter_to_choices(doubtful):
    links, options, _, _ = doubtful
    one, other = solve_options(links, options), solve_options(links[:, ::-1], -options)
    assert_array_equal(other.chosen, one.chosen)
    assert_allclose(other.matrices, one.matrices, rtol=0, atol=1e-9)


def test_same_input_gives_the_same_bits(doubtful):
    links, options, _, _ = doubtful
    one, other = solve_options(links, options), solve_options(links, options)
    assert_array_equal(other.matrices, one.matrices)


def test_alternatives_work_in_three_dimensions(rng):
    truth = spt.grid_positions((3, 4, 4), (9, 50, 50))
    links = spt.grid_links((3, 4, 4))
    right = truth[links[:, 1]] - truth[links[:, 0]]
    right = right + rng.normal(scale=0.1, size=right.shape)
    options = np.stack([right, right + 8], axis=1)
    options[7] = options[7, ::-1]
    placed = solve_options(links, options)
    assert np.flatnonzero(placed.chosen).tolist() == [7]


def bridge(false):
    """Two squares of tiles, and one link between them, which may be wrong."""
    truth = np.array([(r, c) for c in (0, 10, 50, 60) for r in (0, 10)], float)
    links = np.array([(0, 1), (0, 2), (1, 3), (2, 3), (4, 5), (4, 6), (5, 7), (6, 7)])
    links = np.concatenate([links, [(2, 4)]])
    right = truth[links[:, 1]] - truth[links[:, 0]]
    options = np.stack([right, right], axis=1)
    options[-1, 0] += false
    return links, options, truth


def test_stage_chooses_the_offset_of_a_bridge_that_closes_no_loop():
    links, options, truth = bridge((25, 0))
    placed = solve_options(links, options, positions=truth, position_sigma=2.0)
    assert placed.chosen[-1] == 1
    assert placed.inlier.all()


def test_bridge_far_from_the_stage_is_not_believed():
    links, options, truth = bridge((25, 0))
    placed = solve_options(links, options[:, :1], positions=truth, position_sigma=2.0)
    assert np.flatnonzero(~placed.inlier).tolist() == [8]
    # 1e-5: what is not believed counts 1e-9, but is 200 times as strong.
    assert_allclose(positions_of(placed), truth, rtol=0, atol=1e-5)


def test_bridge_that_nothing_contradicts_is_believed_without_a_stage():
    links, options, _ = bridge((25, 0))
    assert solve_options(links, options[:, :1]).inlier.all()


def test_link_that_may_be_chance_is_not_believed_alone():
    links, options, truth = bridge((1, 0))
    doubt = np.zeros(9)
    doubt[-1] = 1
    placed = solve_options(links, options[:, :1], positions=truth, false_alarm=doubt)
    assert np.flatnonzero(~placed.inlier).tolist() == [8]


def test_link_that_may_be_chance_is_believed_if_others_agree(doubtful):
    links, options, wrong, _ = doubtful
    doubt = np.zeros(len(links))
    doubt[[5, 17]] = 1
    placed = solve_options(links, options, false_alarm=doubt)
    assert placed.inlier.all()
    assert np.flatnonzero(placed.chosen).tolist() == wrong.tolist()


def test_false_alarm_tells_which_link_of_a_loop_is_wrong():
    links = [(0, 1), (1, 3), (3, 2), (2, 0)]
    offsets = [(0, 10), (10, 0), (0, -10), (-10, 30)]
    nominal = [(0, 0), (0, 10), (10, 0), (10, 10)]
    placed = spt.solve_rigid(
        links,
        offsets,
        np.zeros((4, 2)),
        covariance=0.01 * np.eye(2),
        positions=nominal,
        position_sigma=20.0,
        false_alarm=[0, 0, 0, 0.9],
    )
    assert placed.inlier.tolist() == [True, True, True, False]


def acquired(rng, side, jitter, sigma, rate, missing=0.0):
    """Return a grid in which links are wrong, with three alternatives each.

    The right offset is the second alternative of 70 % of the wrong links.
    """
    links = spt.grid_links((side, side))
    links = links[rng.random(len(links)) >= missing]
    nominal = spt.grid_positions((side, side), (900, 900))
    truth = nominal + rng.normal(scale=jitter, size=nominal.shape)
    sigma = rng.choice(sigma, len(links))
    right = truth[links[:, 1]] - truth[links[:, 0]]
    right += sigma[:, np.newaxis] * rng.normal(size=right.shape)
    expected = nominal[links[:, 1]] - nominal[links[:, 0]]
    options = expected[:, np.newaxis] + rng.uniform(-30, 30, (len(links), 3, 2))
    wrong = rng.random(len(links)) < rate
    options[~wrong, 0] = right[~wrong]
    second = wrong & (rng.random(len(links)) < 0.7)
    options[second, 1] = right[second]
    settings = {
        "covariance": sigma[:, None, None] ** 2 * np.eye(2),
        "positions": nominal,
        "position_sigma": jitter,
    }
    return links, options, truth, settings


@pytest.mark.parametrize(
    ("rate", "share"), [(0.1, 0.998), (0.2, 0.995), (0.3, 0.985), (0.5, 0.96)]
)
def test_most_tiles_survive_many_false_links_with_alternatives(rng, rate, share):
    """Without alternatives, knowing which links are false leaves 67 % at half."""
    right = []
    for _ in range(3):
        links, options, truth, settings = acquired(rng, 15, 5.0, [0.3], rate)
        error = positions_of(solve_options(links, options, **settings)) - truth
        error = np.abs(error - np.median(error, axis=0)).max(axis=1)
        right.append((error < 1.5).mean())
    # On average 100, 99.9, 99.6 and 98.5 %; one tile of three grids is 0.15 %.
    assert np.mean(right) >= share


def test_seams_survive_false_and_missing_links(rng):
    """A tenth of links wrong, a third missing: least squares has 5.7 px."""
    squares = []
    for _ in range(4):
        links, options, truth, settings = acquired(
            rng, 20, 4.0, [0.1, 0.2, 0.5], 0.1, missing=0.3
        )
        error = positions_of(solve_options(links, options, **settings)) - truth
        seams = error[links[:, 1]] - error[links[:, 0]]
        squares.append((seams**2).mean())
    # On average 0.7 px; a placement that knows which links are right has 0.3.
    assert np.sqrt(np.mean(squares)) < 1.5


def test_placement_tells_what_it_was_made_of(grid):
    links, truth = grid
    points = measured(links, truth)
    placed = spt.solve_rigid(
        links, *points, covariance=0.5 * np.eye(2), positions=truth, fixed=[3]
    )
    assert_array_equal(placed.links, links)
    assert_array_equal(placed.covariance, np.tile(0.5 * np.eye(2), (40, 1, 1)))
    assert_array_equal(placed.position_sigma, [np.inf, np.inf])
    assert np.flatnonzero(placed.fixed).tolist() == [3]


# Labels


def test_tiles_may_have_any_labels():
    links = [((0, 0), (0, 1)), ((0, 1), (1, 1)), ((1, 0), (1, 1))]
    found = [(0, 9), (9, 0), (0, 9)]
    placed = spt.solve_rigid(links, found, np.zeros((3, 2)), fixed=(0, 0))
    assert placed.labels == [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = [(0, 0), (0, 9), (9, 0), (9, 9)]
    assert_allclose(positions_of(placed), expected, rtol=0, atol=1e-12)


def test_labels_without_an_order_come_as_they_appear():
    placed = spt.solve_rigid([("b", 1), (1, "a")], np.ones((2, 2)), np.zeros((2, 2)))
    assert placed.labels == ["b", 1, "a"]


def test_a_mapping_of_positions_numbers_the_labels():
    positions = {"right": (0, 10), "left": (0, 0), "far": (90, 90)}
    placed = spt.solve_rigid(
        [("left", "right")], [(0, 12)], [(0, 0)], positions=positions, fixed="left"
    )
    assert placed.labels == ["right", "left", "far"]
    expected = [(0, 12), (0, 0), (90, 90)]
    assert_allclose(positions_of(placed), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fixed", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_several_labels_may_be_fixed(fixed):
    positions = {"a": (0, 0), "b": (5, 5), "c": (9, 9)}
    placed = spt.solve_rigid(
        [("a", "b"), ("b", "c")],
        [(7, 7), (1, 1)],
        np.zeros((2, 2)),
        positions=positions,
        fixed=fixed,
    )
    assert_allclose(positions_of(placed), [(0, 0), (5, 5), (6, 6)], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "links", [[(0, 1), (1, 2)], np.array([(0, 1), (1, 2)], np.uint8), ([0, 1], [1, 2])]
)
def test_integers_are_tile_numbers(links):
    placed = spt.solve_rigid(links, np.ones((2, 2)), np.zeros((2, 2)))
    assert placed.labels == range(3)


# Errors

PAIR = {
    "links": [(0, 1)],
    "reference_points": [(0.0, 5.0)],
    "moving_points": [(0.0, 0.0)],
}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"links": [(1, 1)]}, "`links` must join two tiles; got 1 twice in link 0"),
        (
            {"links": [(0, -1)]},
            r"`links` must join known tiles; got \[0, -1\] for link 0",
        ),
        (
            {"positions": [(0, 0)]},
            r"`links` must join known tiles; got \[0, 1\] for link 0",
        ),
        (
            {"links": [("a", "b")], "positions": {"a": (0, 0)}},
            r"`links` must join known tiles; got \['a', 'b'\] for link 0",
        ),
        (
            {"links": [(0, 1, 2)]},
            r"must hold pairs of tiles; got \(0, 1, 2\) as link 0",
        ),
        ({"links": np.zeros((1, 3), int)}, r"`links` must have shape \(n_links, 2\)"),
        (
            {"links": [(0, 1), (1, 2)]},
            "`reference_points` must have one row for each of 2 links; got 1",
        ),
        (
            {"reference_points": [(np.nan, 0)]},
            r"`reference_points` must be finite; got \[nan  0.\] for link 0",
        ),
        (
            {"moving_points": [(np.inf, 0)]},
            r"`moving_points` must be finite; got \[inf  0.\] for link 0",
        ),
        (
            {"moving_points": [(0, 0, 0)]},
            "Arrays must have the same shape; got `reference_points`",
        ),
        (
            {"covariance": [np.full((2, 2), np.nan)]},
            "`covariance` must be symmetric and positive definite, or infinite; .*link 0",
        ),
        (
            {"covariance": np.diag([1, -1])},
            r"positive definite, or infinite; got \[\[1.0, 0.0\], .* for link 0",
        ),
        (
            {"covariance": [[1, 0.5], [0, 1]]},
            "`covariance` must be symmetric and positive definite",
        ),
        (
            {"covariance": [1.0]},
            r"`covariance` must have shape \(1, 2, 2\) or \(2, 2\); got \(1,\)",
        ),
        (
            {"positions": [(0, 0), (np.nan, 0)]},
            r"`positions` must be finite; got \[nan  0.\] for tile 1",
        ),
        (
            {"positions": [(0, 0, 0), (1, 1, 1)]},
            r"`positions` must have shape \(2, 2\); got \(2, 3\)",
        ),
        (
            {"position_sigma": 1.0},
            "`positions` must be given with `position_sigma`; got None",
        ),
        (
            {"positions": [(0, 0), (0, 5)], "position_sigma": (1, 0)},
            "`position_sigma` must be finite and greater than 0; got 0",
        ),
        ({"fixed": 2}, "`fixed` must name known tiles; got 2"),
        (
            {"fixed": [0, 1], "reference_points": [(0, 9)]},
            "`positions` must be given for `fixed` tiles .* and tiles 0 and 1",
        ),
        (
            {"alternatives": np.zeros((1, 2))},
            r"`alternatives` must have shape \(1, peaks, 2\); got \(1, 2\)",
        ),
        (
            {"alternatives": np.zeros((1, 0, 2))},
            r"`alternatives` must have shape \(1, peaks, 2\); got \(1, 0, 2\)",
        ),
        (
            {"alternatives": [[(0, 0), (np.nan, 0)]]},
            r"`alternatives` must be finite; got \[\[0.0, 0.0\], \[nan, .* for link 0",
        ),
        (
            {"false_alarm": [1.5]},
            "`false_alarm` must be between 0 and 1; got 1.5 for link 0",
        ),
        (
            {"false_alarm": [np.nan]},
            "`false_alarm` must be between 0 and 1; got nan for link 0",
        ),
        (
            {"false_alarm": 0.5},
            r"`false_alarm` must have shape \(1,\); got \(\)",
        ),
        (
            {"rotation": True, "alternatives": np.zeros((1, 1, 2))},
            "`alternatives` must be None with `rotation`; got ndarray",
        ),
        (
            {"rotation": True, "false_alarm": [0.5]},
            "`false_alarm` must be None with `rotation`; got ndarray",
        ),
        ({"fixed": [0, 9]}, "`fixed` must name known tiles; got 9"),
        ({"fixed": "here"}, "`fixed` must name known tiles; got 'here'"),
        (
            {
                "links": [],
                "reference_points": np.empty((0, 2)),
                "moving_points": np.empty((0, 2)),
            },
            "`links` must name tiles if there are no `positions`; got none",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(change, match):
    with pytest.raises(ValueError, match=match):
        spt.solve_rigid(**(PAIR | change))


def test_second_of_two_bad_covariances_is_named():
    covariance = [np.eye(2), np.zeros((2, 2))]
    with pytest.raises(ValueError, match=r"positive definite.*for link 1"):
        spt.solve_rigid(
            [(0, 1), (1, 2)], np.ones((2, 2)), np.zeros((2, 2)), covariance=covariance
        )


def test_fractions_are_no_tile_numbers():
    with pytest.raises(TypeError, match="`links` must hold integers or labels"):
        spt.solve_rigid(np.array([(0.0, 1.5)]), [(0, 5)], [(0, 0)])


def test_outcomes_are_words():
    assert [str(outcome) for outcome in spt.Outcome] == [
        "matched",
        "ambiguous",
        "no texture",
        "fixed pattern",
        "beyond bound",
        "not found",
        "by prior only",
        "contradicted",
        "isolated",
    ]


def test_angles_are_solved_jointly_if_asked(rng):
    angles, places = np.array([0.0, 0.4, -0.2]), np.array([(0, 0), (5, 80), (70, 30)])
    truth = np.array(
        [
            spt.translation(p) @ spt.rotation(a)
            for p, a in zip(places, angles, strict=True)
        ]
    )
    links = np.repeat([(0, 1), (1, 2), (0, 2)], 4, axis=0)
    common = rng.uniform(0, 90, (12, 2))
    ends = [
        np.array([
            spt.apply_transform(np.linalg.inv(truth[n]), p[np.newaxis])[0]
            for n, p in zip(links[:, side], common, strict=True)
        ])
        for side in (0, 1)
    ]  # fmt: skip
    placed = spt.solve_rigid(links, *ends, rotation=True, fixed=0)
    # Perfect points leave rounding only.
    assert_allclose(placed.matrices, truth, rtol=0, atol=1e-6)
    assert_allclose(placed.residuals, 0, atol=1e-6)
    assert (placed.outcome == "matched").all()

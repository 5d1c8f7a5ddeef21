import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from scipy.spatial.transform import Rotation

import spectral_tools as spt
from spectral_tools._placement.solvers.normal_equations import PointLinks
from spectral_tools._placement.solvers.similarities import solve_similarities
from spectral_tools._shared.sparse import connected_groups

SIGMA = 0.5
SIDE = 500.0


def turned_by(vectors):
    """Return rotations of angles (n, 1) or of rotation vectors (n, 3)."""
    if vectors.shape[1] == 3:
        return Rotation.from_rotvec(vectors).as_matrix()
    whole = np.insert(np.zeros((len(vectors), 2)), 0, vectors[:, 0], axis=1)
    return Rotation.from_rotvec(whole).as_matrix()[:, 1:, 1:]


def moved(matrices, points):
    """Move each point by the matrix of the same row."""
    linear, shift = matrices[:, :-1, :-1], matrices[:, :-1, -1]
    return (linear @ points[:, :, np.newaxis])[:, :, 0] + shift


def sections(rng, count, ndim, largest=np.pi):
    """Return matrices of sections that are turned and moved at random."""
    matrices = np.tile(np.eye(ndim + 1), (count, 1, 1))
    vectors = rng.uniform(-1, 1, (count, 1 if ndim == 2 else 3))
    # A rotation vector is as long as its angle.
    matrices[:, :-1, :-1] = turned_by(vectors * largest / vectors.shape[1] ** 0.5)
    matrices[:, :-1, -1] = rng.normal(scale=100, size=(count, ndim))
    return matrices


def reach_two(count):
    return np.array(
        [(i, i + 1) for i in range(count - 1)] + [(i, i + 2) for i in range(count - 2)]
    )


def matches(rng, truth, pairs, each=6):
    """Return links and the points that belong together, without noise."""
    links = np.repeat(pairs, each, axis=0)
    scene = rng.uniform(-SIDE, SIDE, (len(links), truth.shape[1] - 1))
    back = np.linalg.inv(truth)
    return links, [moved(back[tiles], scene) for tiles in links.T]


def problem(links, points, count, **known):
    """Return a problem in which nothing is known but what is said."""
    ndim = points[0].shape[1]
    links = np.asarray(links)
    facts = {
        "links": links,
        "reference": points[0],
        "moving": points[1],
        "weights": np.tile(np.eye(ndim) / SIGMA**2, (len(links), 1, 1)),
        "places": np.zeros((count, ndim)),
        "prior": np.zeros(ndim),
        "fixed": np.zeros(count, np.bool_),
        "group": connected_groups(links, count),
        "least_unit": 1.0,
    }
    return PointLinks(**facts | known)


def residuals(matrices, links, points):
    ends = [moved(matrices[t], p) for t, p in zip(links.T, points, strict=True)]
    return ends[0] - ends[1]


def relative(matrices, pairs):
    """Return the matrix of the second tile of each pair, seen from the first."""
    return np.linalg.inv(matrices[pairs[:, 0]]) @ matrices[pairs[:, 1]]


@pytest.fixture(params=[2, 3])
def stack(request, rng):
    """Truth, links, points, and points with noise, of twelve sections."""
    truth = sections(rng, 12, request.param)
    links, points = matches(rng, truth, reach_two(12))
    noise = rng.normal(scale=SIGMA, size=points[0].shape)
    return truth, links, points, [points[0] + noise, points[1]]


# Least squares


@pytest.mark.parametrize("robust", [False, True])
def test_perfect_matches_leave_no_residual_whatever_the_angles(stack, robust):
    truth, links, points, _ = stack
    found, believed = solve_similarities(problem(links, points, 12), robust=robust)
    # 1e-7: rounding of points up to 1000, and of the last step.
    assert_allclose(residuals(found, links, points), 0, atol=1e-7)
    assert believed.all()
    pairs = reach_two(12)
    assert_allclose(relative(found, pairs), relative(truth, pairs), rtol=0, atol=1e-7)


def test_matrices_turn_and_move_and_do_nothing_else(stack):
    _, links, _, noisy = stack
    linear = solve_similarities(problem(links, noisy, 12))[0][:, :-1, :-1]
    # 1e-12: rounding.
    unit = np.broadcast_to(np.eye(linear.shape[1]), linear.shape)
    assert_allclose(linear @ linear.transpose(0, 2, 1), unit, rtol=0, atol=1e-12)
    assert_allclose(np.linalg.det(linear), 1, rtol=0, atol=1e-12)


def test_half_a_turn_is_no_obstacle(rng):
    truth = sections(rng, 6, 2)
    truth[:, :2, :2] = turned_by(np.arange(6)[:, np.newaxis] * np.pi)
    links, points = matches(rng, truth, reach_two(6))
    found, _ = solve_similarities(problem(links, points, 6))
    # 1e-7: rounding of points up to 1000.
    assert_allclose(residuals(found, links, points), 0, atol=1e-7)


def generators(points):
    """Return how points follow their tile's small turns and shifts."""
    count, ndim = points.shape
    if ndim == 2:
        turns = np.stack([-points[:, 1], points[:, 0]], axis=1)[:, :, np.newaxis]
    else:
        turns = np.cross(np.eye(3), points[:, np.newaxis]).transpose(0, 2, 1)
    moves = np.broadcast_to(np.eye(ndim), (count, ndim, ndim))
    return np.concatenate([turns / SIDE, moves], axis=2)


def limit(truth, links, points):
    """Return the least RMSE of reference points seen from their moving tiles."""
    scene = moved(truth[links[:, 0]], points[0])
    columns = generators(scene)
    count, size = len(truth), columns.shape[2]
    rows = np.arange(len(links))
    jacobian = np.zeros((len(links), scene.shape[1], count, size))
    jacobian[rows, :, links[:, 0]] = columns
    jacobian[rows, :, links[:, 1]] -= columns
    flat = jacobian.reshape(scene.size, -1)
    fisher = flat.T @ flat / SIGMA**2
    # What is linked can be seen whatever the gauge, which is no part of it.
    covariance = flat @ np.linalg.pinv(fisher, rcond=1e-10, hermitian=True) @ flat.T
    return np.sqrt(np.trace(covariance) / scene.size)


@pytest.mark.parametrize("ndim", [2, 3])
def test_points_reach_the_cramer_rao_bound(rng, ndim):
    squares, limits = [], []
    for _ in range(12):
        truth = sections(rng, 12, ndim)
        links, points = matches(rng, truth, reach_two(12))
        noise = rng.normal(scale=SIGMA, size=points[0].shape)
        noisy = [points[0] + noise, points[1]]
        found, _ = solve_similarities(problem(links, noisy, 12))
        squares.append(np.mean(residuals(found, links, points) ** 2))
        limits.append(limit(truth, links, points) ** 2)
    # 5 %: the spread of a mean square of some 400 independent numbers is 7 %.
    assert np.sqrt(np.mean(squares)) <= 1.05 * np.sqrt(np.mean(limits))


@pytest.mark.parametrize("ndim", [2, 3])
def test_solution_is_the_optimum_of_nonlinear_least_squares(rng, ndim):
    """With any covariances, which turn with the reference tiles."""
    truth = sections(rng, 5, ndim, largest=1.0)
    links, points = matches(rng, truth, reach_two(5), each=4)
    points[0] = points[0] + rng.normal(scale=3, size=points[0].shape)
    roots = rng.normal(size=(len(links), ndim, ndim))
    weights = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(ndim)
    whole = problem(links, points, 5, weights=weights)
    found, _ = solve_similarities(whole, robust=False)
    factor = np.linalg.cholesky(weights).transpose(0, 2, 1)
    angles = 1 if ndim == 2 else 3

    def misfit(unknowns):
        steps = np.vstack([np.zeros(angles + ndim), unknowns.reshape(4, -1)])
        change = np.tile(np.eye(ndim + 1), (5, 1, 1))
        change[:, :-1, :-1] = turned_by(steps[:, :angles] / SIDE)
        change[:, :-1, -1] = steps[:, angles:]
        matrices = change @ found
        left = residuals(matrices, links, points)[:, :, np.newaxis]
        turn = matrices[links[:, 0], :-1, :-1].transpose(0, 2, 1)
        return (factor @ turn @ left).ravel()

    best = optimize.least_squares(misfit, np.zeros(4 * (angles + ndim)), xtol=1e-12)
    # 1e-4 px: where the sum of squares no longer changes in double precision.
    assert_allclose(best.x, 0, atol=1e-4)


@pytest.mark.parametrize("robust", [False, True])
def test_order_of_links_does_not_matter(rng, stack, robust):
    _, links, _, noisy = stack
    order = rng.permutation(len(links))
    one, _ = solve_similarities(problem(links, noisy, 12), robust=robust)
    mixed = [p[order] for p in noisy]
    other, _ = solve_similarities(problem(links[order], mixed, 12), robust=robust)
    # 1e-7: rounding, which sums in another order.
    assert_allclose(one, other, rtol=0, atol=1e-7)


def test_inputs_are_left_alone(stack):
    _, links, _, noisy = stack
    whole = problem(links, noisy, 12)
    for array in (whole.links, *noisy, whole.weights, whole.places, whole.group):
        array.setflags(write=False)
    assert solve_similarities(whole)[1].all()


# Where evidence ends


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_pair_of_points_leaves_the_angle_of_the_neighbour(rng, ndim):
    truth = sections(rng, 5, ndim)
    links, points = matches(rng, truth, reach_two(4))
    links = np.vstack([links, [(3, 4)]])
    points = [np.vstack([p, rng.uniform(-SIDE, SIDE, (1, ndim))]) for p in points]
    found, _ = solve_similarities(problem(links, points, 5))
    # 1e-6: the faint weight with which neighbours share an angle.
    assert_allclose(found[4, :-1, :-1], found[3, :-1, :-1], rtol=0, atol=1e-6)
    assert_allclose(residuals(found, links, points)[-1], 0, atol=1e-6)


def test_tiles_that_nothing_turns_stay_upright():
    links = np.array([(0, 1), (1, 2)])
    points = [np.array([(0.0, 90.0), (5, 80)]), np.array([(0.0, 0.0), (5, 3)])]
    found, _ = solve_similarities(problem(links, points, 3))
    # 1e-9: rounding.
    unit = np.broadcast_to(np.eye(2), (3, 2, 2))
    assert_allclose(found[:, :2, :2], unit, rtol=0, atol=1e-9)


def test_single_matches_between_neighbours_do_not_fold_a_grid(rng):
    """Squares that are linked at the middles of their sides turn about these."""
    places = spt.grid_positions((6, 6), (500, 500))
    links = spt.grid_links((6, 6))
    middle = places[links].mean(axis=1) + SIDE / 2
    points = [middle - places[tiles] for tiles in links.T]
    points[0] += rng.normal(scale=SIGMA, size=points[0].shape)
    found, _ = solve_similarities(problem(links, points, 36))
    # Without their springs they turn by 0.1; half a pixel of 500 is 0.001.
    assert_allclose(found[:, 0, 1], 0, atol=0.01)


def test_an_isolated_tile_stays_at_its_place(rng):
    truth = sections(rng, 3, 2)
    links, points = matches(rng, truth, np.array([(0, 1)]))
    places = rng.normal(scale=100, size=(3, 2))
    found, _ = solve_similarities(problem(links, points, 3, places=places))
    assert_array_equal(found[2, :2, :2], np.eye(2))
    # 1e-9: rounding.
    assert_allclose(found[2, :2, 2], places[2], rtol=0, atol=1e-9)


# Gauge and positions


def test_the_mean_angle_of_each_group_is_zero(rng):
    truth = sections(rng, 8, 2)
    pairs = np.vstack([reach_two(4), reach_two(4) + 4])
    links, points = matches(rng, truth, pairs)
    found, _ = solve_similarities(problem(links, points, 8))
    for group in (slice(0, 4), slice(4, 8)):
        mean = found[group, :2, :2].mean(axis=0)
        # 1e-9: rounding. A symmetric mean of rotations has no angle.
        assert_allclose(mean[0, 1], mean[1, 0], rtol=0, atol=1e-9)
        assert mean[0, 0] > 0


def test_the_middle_of_the_points_moves_by_the_mean_of_the_places(rng, stack):
    _, links, _, noisy = stack
    ndim = noisy[0].shape[1]
    places = rng.normal(scale=100, size=(12, ndim))
    found, _ = solve_similarities(problem(links, noisy, 12, places=places))
    both = np.concatenate(noisy)
    pivot = (both.min(axis=0) + both.max(axis=0)) / 2
    away = moved(found, np.tile(pivot, (12, 1))) - pivot
    # 1e-7: rounding of positions up to 1000.
    assert_allclose(away.mean(axis=0), places.mean(axis=0), rtol=0, atol=1e-7)


def test_a_fixed_tile_stays_upright_at_its_place(rng, stack):
    truth, links, points, _ = stack
    ndim = points[0].shape[1]
    places = rng.normal(scale=100, size=(12, ndim))
    fixed = np.arange(12) == 3
    whole = problem(links, points, 12, places=places, fixed=fixed)
    found, _ = solve_similarities(whole)
    expected = np.eye(ndim + 1)
    expected[:-1, -1] = places[3]
    # 1e-9: rounding.
    assert_allclose(found[3], expected, rtol=0, atol=1e-9)
    pairs = reach_two(12)
    # 1e-6: rounding of shifts up to 1000.
    assert_allclose(relative(found, pairs), relative(truth, pairs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("angle", [0.1, 3.0])
def test_positions_with_a_sigma_say_how_the_whole_is_turned(rng, angle):
    truth = sections(rng, 9, 2, largest=0.1)
    corners = np.stack(np.mgrid[:3, :3], axis=-1).reshape(-1, 2) * 400.0
    truth[:, :2, 2] = corners
    whole = np.eye(3)
    whole[:2, :2] = turned_by(np.array([[angle]]))[0]
    truth = whole @ truth
    links, points = matches(rng, truth, reach_two(9))
    both = np.concatenate(points)
    pivot = (both.min(axis=0) + both.max(axis=0)) / 2
    places = moved(truth, np.tile(pivot, (9, 1))) - pivot
    known = {"places": places, "prior": np.array([1.0, 0.25])}
    found, _ = solve_similarities(problem(links, points, 9, **known))
    # 1e-6: rounding of positions up to 1000.
    assert_allclose(found, truth, rtol=0, atol=1e-6)


# Contradictions


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("least_unit", [0.0, 1.0])
def test_wrong_matches_anywhere_are_dropped(rng, ndim, least_unit):
    truth = sections(rng, 40, ndim)
    links, points = matches(rng, truth, reach_two(40), each=10)
    points[0] = points[0] + rng.normal(scale=SIGMA, size=points[0].shape)
    false = rng.random(len(links)) < 0.2
    points[0][false] = rng.uniform(-SIDE, SIDE, (np.count_nonzero(false), ndim))
    whole = problem(links, points, 40, least_unit=least_unit)
    found, believed = solve_similarities(whole)
    assert_array_equal(believed, ~false)
    # 5 % below: residuals of what was fitted; 10 % above: chance.
    spread = residuals(found, links, points)[~false].std() / SIGMA
    assert 0.9 < spread < 1.05


def test_a_pair_that_is_wrong_throughout_turns_nobody(rng):
    truth = sections(rng, 12, 2)
    links, points = matches(rng, truth, reach_two(12))
    other = turned_by(np.array([[2.0]]))[0]
    false = (links == (4, 5)).all(axis=1)
    points[1] = np.where(false[:, np.newaxis], points[1] @ other.T + 70, points[1])
    found, believed = solve_similarities(problem(links, points, 12))
    assert_array_equal(believed, ~false)
    pairs = reach_two(12)
    # 1e-6: the faint pull of what is not believed.
    assert_allclose(relative(found, pairs), relative(truth, pairs), rtol=0, atol=1e-4)

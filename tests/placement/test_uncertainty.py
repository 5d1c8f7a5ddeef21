from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SIGMA = 0.3


def measured(links, truth, noise=0.0):
    """Return points that join tiles at their true positions, but for noise."""
    links = np.asarray(links)
    offsets = truth[links[:, 1]] - truth[links[:, 0]] + noise
    return offsets, np.zeros_like(offsets)


def placed(shape, **options):
    """Return a grid that is perfect, so that covariances alone tell errors."""
    truth, links = spt.grid_positions(shape, (100,) * len(shape)), spt.grid_links(shape)
    given = {"covariance": np.eye(len(shape)) * SIGMA**2, "positions": truth}
    return spt.solve_rigid(links, *measured(links, truth), **(given | options))


def covariances(rng, count, ndim, kind):
    """Return covariances that leave the axes more or less to share."""
    roots = rng.normal(size=(count, ndim, ndim))
    full = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(ndim)
    if kind == "alike":
        return full[:1] * rng.uniform(0.1, 10, (count, 1, 1))
    return full * np.eye(ndim) if kind == "diagonal" else full


def dense(placement):
    """Return the covariance of all positions together, from a pseudo-inverse."""
    links, (count, ndim) = placement.links, placement.matrices[:, :-1, -1].shape
    incidence = np.zeros((len(links), count))
    incidence[np.arange(len(links)), links[:, 1]] = 1
    incidence[np.arange(len(links)), links[:, 0]] = -1
    rows = np.kron(incidence, np.eye(ndim)).reshape(len(links), ndim, -1)
    weights = np.linalg.inv(placement.covariance)
    normal = np.einsum("eai,eab,ebj->ij", rows, weights, rows)
    normal += np.kron(np.eye(count), np.diag(placement.position_sigma**-2.0))
    free = np.repeat(~placement.fixed, ndim)
    covariance = np.zeros_like(normal)
    inverse = np.linalg.pinv(normal[np.ix_(free, free)], rcond=1e-12, hermitian=True)
    covariance[np.ix_(free, free)] = inverse
    return covariance.reshape(count, ndim, count, ndim)


# Exactness


@pytest.mark.parametrize("options", [{}, {"position_sigma": (2.0, 3.0, 1.0)}])
@pytest.mark.parametrize("fixed", [None, [3, 5]])
@pytest.mark.parametrize("kind", ["alike", "diagonal", "any"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_covariances_are_blocks_of_the_pseudo_inverse(rng, shape, kind, fixed, options):
    ndim, links = len(shape), spt.grid_links(shape)
    truth = spt.grid_positions(shape, (10,) * ndim)
    placement = spt.solve_rigid(
        links,
        *measured(links, truth),
        covariance=covariances(rng, len(links), ndim, kind),
        positions=truth,
        fixed=fixed,
        **{name: value[:ndim] for name, value in options.items()},
    )
    whole = dense(placement)
    expected = np.einsum("iaib->iab", whole)
    found = spt.position_covariance(placement)
    # 1e-11: condition numbers up to 1e4.
    assert_allclose(found, expected, rtol=0, atol=1e-11 * expected.max())

    pairs = np.array(list(permutations(range(12), 2)))
    i, j = pairs.T
    cross = whole[i, :, j]
    expected = expected[i] + expected[j] - cross - cross.transpose(0, 2, 1)
    found = spt.offset_covariance(placement, pairs)
    assert_allclose(found, expected, rtol=0, atol=1e-11 * expected.max())


def test_entries_that_cancel_in_the_factor_are_not_lost():
    """Mirrored covariances make zeros in the factor, not in the inverse."""
    links = spt.grid_links((9, 9))
    across = (links[:, 1] - links[:, 0] == 1)[:, np.newaxis, np.newaxis]
    covariance = np.where(across, [[2, 1], [1, 2]], [[2, -1], [-1, 2]])
    placement = placed((9, 9), covariance=covariance)
    expected = np.einsum("iaib->iab", dense(placement))
    # 1e-11: condition numbers below 1e4.
    assert_allclose(spt.position_covariance(placement), expected, rtol=0, atol=1e-11)


def test_covariance_is_symmetric_and_positive_definite(rng):
    links = spt.grid_links((6, 6))
    covariance = covariances(rng, len(links), 2, "any")
    found = spt.position_covariance(placed((6, 6), covariance=covariance))
    assert_allclose(found, found.transpose(0, 2, 1), rtol=1e-12)
    assert np.linalg.eigvalsh(found).min() > 0


def test_a_weak_prior_leaves_offsets_alone():
    """Absolute positions are 1e7 px uncertain, and offsets still 0.2 px."""
    links = spt.grid_links((8, 8))
    weak = placed((8, 8), positions=np.zeros((64, 2)), position_sigma=1e7)
    found = spt.offset_covariance(weak, links)
    # 1e-7: variances differ by fourteen digits and share one factor.
    expected = spt.offset_covariance(placed((8, 8)), links)
    assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    position = spt.position_covariance(weak)
    assert_allclose(position[:, 0, 0], 1e14 / 64, rtol=1e-6)


def test_links_of_a_large_grid_share_one_degree_of_freedom_each():
    """Offsets of links, in units of their variance, add up to the unknowns."""
    placement = placed((60, 70))
    offsets = spt.offset_covariance(placement, placement.links)
    # 1e-9: a sum of 8270 numbers.
    assert_allclose(offsets[:, 0, 0].sum() / SIGMA**2, 60 * 70 - 1, rtol=1e-9)


# Honesty


@pytest.mark.parametrize("kind", ["alike", "diagonal", "any"])
@pytest.mark.parametrize(
    "options", [{}, {"position_sigma": 0.5}, {"fixed": (0, 17)}], ids=str
)
def test_predicted_errors_are_those_of_many_trials(rng, options, kind):
    """One placement holds 1500 copies of a small grid, as groups of their own."""
    shape, trials = (4, 5), 1500
    links, truth = spt.grid_links(shape), spt.grid_positions(shape, (9, 9))
    count = len(truth)
    covariance = SIGMA**2 * covariances(rng, len(links), 2, kind)
    roots = np.linalg.cholesky(covariance)
    noise = (roots @ rng.normal(size=(trials, len(links), 2, 1)))[..., 0]
    stage = rng.normal(scale=options.get("position_sigma", 0), size=(trials, count, 2))
    copies = count * np.arange(trials)[:, np.newaxis]
    fixed = np.add(copies, options.get("fixed", ())).ravel().astype(int)
    placement = spt.solve_rigid(
        (links + copies[:, np.newaxis]).reshape(-1, 2),
        *measured(np.tile(links, (trials, 1)), truth, noise.reshape(-1, 2)),
        covariance=np.tile(covariance, (trials, 1, 1)),
        positions=(truth + stage).reshape(-1, 2),
        robust=False,
        **{**options, "fixed": fixed},
    )
    errors = placement.matrices[:, :2, 2].reshape(trials, count, 2) - truth
    expected = np.einsum("naa->na", spt.position_covariance(placement)[:count])
    # A root mean square of 1500 trials scatters by 1.8 %, that of all less.
    found = np.mean(errors**2, axis=0)
    assert_allclose(np.sqrt(found), np.sqrt(expected), rtol=0.08, atol=1e-12)
    assert_allclose(found.sum(), expected.sum(), rtol=0.05)

    pairs = np.array([(0, 1), (6, 11), (0, 19), (4, 15), (17, 18)])
    offsets = errors[:, pairs[:, 1]] - errors[:, pairs[:, 0]]
    expected = np.einsum("naa->na", spt.offset_covariance(placement, pairs))
    found = np.sqrt(np.mean(offsets**2, axis=0))
    assert_allclose(found, np.sqrt(expected), rtol=0.08)


def test_variance_of_links_is_estimated_if_none_is_given(rng):
    shape = (20, 20)
    links, truth = spt.grid_links(shape), spt.grid_positions(shape, (90, 90))
    points = measured(links, truth, rng.normal(scale=SIGMA, size=(len(links), 2)))
    estimated = spt.position_covariance(spt.solve_rigid(links, *points))
    given = spt.position_covariance(placed(shape))
    # 21 %: four standard errors of a mean square of 2 * 361 numbers.
    assert_allclose(estimated, given, rtol=0.21)
    assert_allclose(estimated, estimated[0, 0, 0] / given[0, 0, 0] * given, rtol=1e-9)


def test_given_covariances_are_taken_at_their_word(rng):
    """Residuals far larger than the covariance do not change it."""
    links, truth = spt.grid_links((4, 4)), spt.grid_positions((4, 4), (90, 90))
    points = measured(links, truth, rng.normal(scale=9, size=(len(links), 2)))
    placement = spt.solve_rigid(
        links, *points, covariance=np.eye(2) * SIGMA**2, robust=False
    )
    assert_allclose(
        spt.position_covariance(placement), spt.position_covariance(placed((4, 4)))
    )


def test_dropped_links_tell_nothing():
    links = spt.grid_links((4, 4))
    truth = spt.grid_positions((4, 4), (90, 90))
    false = (links == (5, 6)).all(axis=1)
    points = measured(links, truth, np.where(false[:, np.newaxis], 50.0, 0.0))
    options = {"covariance": np.eye(2) * SIGMA**2}
    with_it = spt.solve_rigid(links, *points, **options)
    without = spt.solve_rigid(links[~false], *(p[~false] for p in points), **options)
    assert_allclose(
        spt.position_covariance(with_it), spt.position_covariance(without), rtol=1e-9
    )


# Gauge and groups


def test_fixed_tiles_have_no_error():
    found = spt.position_covariance(placed((3, 3), fixed=[0, 4]))
    assert_array_equal(found[[0, 4]], 0)
    assert (np.delete(found, [0, 4], axis=0)[:, 0, 0] > 0).all()


def test_all_tiles_may_be_fixed():
    placement = placed((2, 2), fixed=range(4))
    assert_array_equal(spt.position_covariance(placement), 0)
    assert_array_equal(spt.offset_covariance(placement, [(0, 3)]), 0)


def groups(**options):
    """Return two pairs of tiles and one tile alone."""
    links, truth = [(0, 1), (2, 3)], np.array([[0, 0], [0, 9], [5, 0], [5, 9], [7, 7]])
    return spt.solve_rigid(
        links,
        *measured(links, truth.astype(float)),
        covariance=4 * np.eye(2),
        positions=truth,
        **options,
    )


def test_a_tile_that_nothing_holds_has_infinite_variance():
    found = spt.position_covariance(groups(robust=False))
    # About the mean of two, each has a quarter of the variance of their offset.
    assert_allclose(found[:4], np.broadcast_to(np.eye(2), (4, 2, 2)))
    assert_array_equal(found[4], np.diag([np.inf, np.inf]))


def test_offsets_between_groups_are_unknown_without_prior():
    found = spt.offset_covariance(groups(), [(0, 1), (1, 2), (3, 4)])
    unknown = np.diag([np.inf, np.inf])
    assert_allclose(found, [4 * np.eye(2), unknown, unknown])


def test_offsets_between_groups_add_up_with_a_prior():
    placement = groups(position_sigma=2.0)
    position = spt.position_covariance(placement)
    found = spt.offset_covariance(placement, [(1, 2), (3, 4)])
    assert_allclose(found, position[[1, 3]] + position[[2, 4]])


def test_a_tile_by_prior_only_is_as_good_as_the_stage():
    found = spt.position_covariance(groups(position_sigma=(2.0, 3.0)))
    assert_allclose(found[4], np.diag([4.0, 9.0]))


def test_fixed_tiles_relate_groups():
    found = spt.offset_covariance(groups(fixed=[0, 2]), [(1, 3), (0, 2), (0, 4)])
    assert_allclose(found[0], 8 * np.eye(2))
    assert_array_equal(found[1], 0)
    assert np.isinf(found[2, 0, 0])


def test_without_loops_nothing_tells_the_variance_of_links():
    placement = spt.solve_rigid([(0, 1), (1, 2)], *np.zeros((2, 2, 2)), fixed=0)
    found = spt.position_covariance(placement)
    assert_array_equal(found[0], 0)
    assert_array_equal(found[1:], np.broadcast_to(np.diag([np.inf] * 2), (2, 2, 2)))


# Labels


def test_pairs_are_named_by_labels():
    links = [("a", "b"), ("b", "c"), ("c", "d")]
    placement = spt.solve_rigid(links, *np.zeros((2, 3, 2)), covariance=4 * np.eye(2))
    found = spt.offset_covariance(placement, [("a", "b"), ("a", "c"), ("d", "a")])
    assert_allclose(found[:, 0, 0], [4, 8, 12])


def test_numbers_that_are_labels_are_not_positions_in_a_list():
    positions = {7: (0, 0), 3: (0, 9), 5: (0, 18)}
    placement = spt.solve_rigid(
        [(7, 3), (3, 5)],
        [(0, 9)] * 2,
        [(0, 0)] * 2,
        positions=positions,
        covariance=2 * np.eye(2),
    )
    found = spt.offset_covariance(placement, [(7, 5), (5, 3)])
    assert_allclose(found[:, 0, 0], [4, 2])


def test_direction_of_a_pair_does_not_matter(rng):
    covariance = covariances(rng, 40, 2, "any")
    placement = placed((5, 5), covariance=covariance)
    pairs = np.array([(0, 1), (3, 21), (8, 12)])
    assert_allclose(
        spt.offset_covariance(placement, pairs),
        spt.offset_covariance(placement, pairs[:, ::-1]),
        rtol=1e-9,
    )


# Errors


def test_unknown_tiles_are_named():
    with pytest.raises(ValueError, match=r"known tiles; got \[0, 9\] for link 1"):
        spt.offset_covariance(placed((2, 2)), [(0, 1), (0, 9)])


@pytest.mark.parametrize("function", ["position_covariance", "offset_covariance"])
def test_turned_tiles_are_refused(function):
    placement = placed((2, 2))
    placement.matrices[2, :2, :2] = spt.rotation(0.1)[:2, :2]
    pairs = [[(0, 1)]] * (function == "offset_covariance")
    with pytest.raises(ValueError, match=r"`placement` .* translations .* for tile 2"):
        getattr(spt, function)(placement, *pairs)


def test_a_tile_has_no_offset_from_itself():
    placed = spt.solve_rigid(
        [(0, 1)], [(0, 9)], [(0, 0)], covariance=np.diag([4.0, 1.0])
    )
    found = spt.offset_covariance(placed, [(0, 0), (0, 1), (1, 1)])
    assert_allclose(found, [np.zeros((2, 2)), np.diag([4, 1]), np.zeros((2, 2))])


def test_a_covariance_of_one_pixel_is_taken_at_its_word():
    truth = spt.grid_positions((3, 3), (9, 9))
    links = spt.grid_links((3, 3))
    found = truth[links[:, 1]] - truth[links[:, 0]]
    placed = spt.solve_rigid(links, found, 0 * found, covariance=np.eye(2))
    assert placed.variance == 1
    # Perfect offsets, but measured to one pixel only.
    assert (spt.position_covariance(placed)[:, 0, 0] > 0.1).all()

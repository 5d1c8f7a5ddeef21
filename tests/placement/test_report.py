import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SIGMA = 0.3


def placed(rng, shape=(10, 10), false=(), failed=(), **options):
    """Place a grid with noise, false links and links that failed."""
    links, truth = spt.grid_links(shape), spt.grid_positions(shape, (100, 100))
    found = truth[links[:, 1]] - truth[links[:, 0]]
    found += rng.normal(scale=SIGMA, size=found.shape)
    found[list(false)] += (40, -30)
    covariance = np.broadcast_to(SIGMA**2 * np.eye(2), (len(links), 2, 2)).copy()
    covariance[list(failed)] = np.inf
    options = {"covariance": covariance} | options
    return spt.solve_rigid(links, found, 0 * found, **options)


# Residuals


def test_pixels_are_the_lengths_of_the_residuals(rng):
    placement = placed(rng)
    pixels = spt.seam_residuals(placement).pixels
    assert_allclose(pixels, np.hypot(*placement.residuals.T))


@pytest.mark.parametrize("covariance", [{}, {"covariance": None}])
def test_residuals_in_sigma_are_those_of_least_squares(rng, covariance):
    """Tiles take their share of errors: what is left counts the spare links."""
    placement = placed(rng, (30, 30), **covariance)
    sigma = spt.seam_residuals(placement).sigma
    spare = 1 - (900 - 1) / len(placement.links)
    # 7 %: four times the spread of the mean square of 1682 independent numbers,
    # which is half of that in a root; an estimated unit is right by definition.
    assert_allclose(np.sqrt(np.mean(sigma**2)), np.sqrt(spare), rtol=0.07)


def test_residuals_in_sigma_follow_the_covariance_of_each_link(rng):
    scale = rng.uniform(0.1, 2, 180)
    links, truth = spt.grid_links((10, 10)), spt.grid_positions((10, 10), (9, 9))
    found = truth[links[:, 1]] - truth[links[:, 0]]
    found += scale[:, np.newaxis] * rng.normal(size=(180, 2))
    covariance = scale[:, np.newaxis, np.newaxis] ** 2 * np.eye(2)
    placement = spt.solve_rigid(links, found, 0 * found, covariance=covariance)
    seams = spt.seam_residuals(placement)
    assert_allclose(seams.sigma, seams.pixels / scale / np.sqrt(2))


def test_false_links_have_the_largest_residuals(rng):
    placement = placed(rng, false=[17, 60, 101])
    report = spt.placement_report(placement)
    assert set(report.worst[:3].tolist()) == {17, 60, 101}
    sigma = report.seams.sigma
    assert sigma[[17, 60, 101]].min() > 10 * np.delete(sigma, [17, 60, 101]).max()


def test_failed_links_have_no_sigma(rng):
    assert spt.seam_residuals(placed(rng, failed=[5])).sigma[5] == 0


def test_perfect_links_have_no_sigma():
    links, found = spt.grid_links((3, 3)), np.zeros((12, 2))
    found[0, 0] = 1e-13
    placement = spt.solve_rigid(links, found, np.zeros((12, 2)))
    # 1e-6: rounding errors do not set the unit.
    assert_allclose(spt.seam_residuals(placement).sigma, 0, atol=1e-6)


# Report


def test_seam_rms_is_that_of_believed_links(rng):
    placement = placed(rng, false=[17])
    expected = np.sqrt(np.mean(np.sum(placement.residuals[placement.inlier] ** 2, 1)))
    assert_allclose(spt.placement_report(placement).seam_rms, expected)


def test_groups_are_counted():
    placement = spt.solve_rigid(
        [(0, 1), (1, 2), (3, 4)], *np.zeros((2, 3, 2)), positions=np.zeros((6, 2))
    )
    assert_array_equal(spt.placement_report(placement).group_sizes, [3, 2, 1])


def test_report_says_what_is_wrong(rng):
    links = [link for link in range(180) if 99 in spt.grid_links((10, 10))[link]]
    text = str(spt.placement_report(placed(rng, false=[17], failed=links)))
    assert "100: 99 matched, 1 isolated" in text
    assert "180: 177 believed, 1 dropped, 2 failed" in text
    assert "1 (99 tiles) and 1 tile alone" in text
    assert "tiles isolated: 99" in text
    [worst] = [line for line in text.splitlines() if "dropped" in line and "px" in line]
    i, j = spt.grid_links((10, 10))[17]
    assert f"{i} - {j}" in worst


def test_report_names_tiles_by_their_labels():
    links = [(("a", 0), ("a", 1)), (("a", 1), ("b", 1))]
    placement = spt.solve_rigid(links, *np.zeros((2, 2, 2)))
    assert "('a', 0) - ('a', 1)" in str(spt.placement_report(placement))


def test_long_lists_are_cut_short(rng):
    positions = spt.grid_positions((10, 10), (90, 90))
    placement = placed(rng, failed=range(180), positions=positions)
    text = str(spt.placement_report(placement))
    assert "tiles by prior only: 0, 1, 2, 3, 4, 5, 6, 7, and 92 more" in text
    assert "groups  none" in text


def test_report_of_no_links_is_a_text():
    placement = spt.solve_rigid(
        np.empty((0, 2), int), *np.empty((2, 0, 2)), positions=np.zeros((3, 2))
    )
    assert "links   0: none" in str(spt.placement_report(placement))


def test_the_report_begins_with_what_failed():
    tiles = np.random.default_rng(0).normal(size=(6, 80, 80))
    with pytest.warns(spt.PlacementWarning, match="^0 of 7 pairs") as warned:
        placed = spt.place_tiles(tiles, grid=(2, 3))
    text = str(spt.placement_report(placed))
    assert text.startswith(f"{warned[0].message}\n")
    assert text.startswith("0 of 7 pairs were found: this is what was given")


def test_links_that_close_no_loop_are_not_said_to_agree():
    found = np.array([(0, 90.0), (90, 0)])
    chain = spt.solve_rigid([(0, 1), (1, 2)], found, 0 * found)
    assert "no loop of links closes" in str(spt.placement_report(chain))
    found = np.array([(0, 90.0), (90, 0), (90, 90)])
    loop = spt.solve_rigid([(0, 1), (1, 2), (0, 2)], found, 0 * found)
    assert "sigma at most" in str(spt.placement_report(loop))

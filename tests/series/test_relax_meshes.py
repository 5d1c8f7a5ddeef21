"""Relaxing a stack: truth, drift, and wrong matches."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import spectral_tools as spt

SHAPE = (160, 160)
COUNT = 6
SIGMA = 0.1


def warps(rng, count=COUNT, amplitude=2.5, waves=4):
    """Return a function: section number and points of the stack to displacements."""
    turn = rng.uniform(0, 2 * np.pi, (count, waves))
    length = rng.uniform(120, 250, (count, waves, 1))
    k = 2 * np.pi * np.stack([np.cos(turn), np.sin(turn)], -1) / length
    phase = rng.uniform(0, 2 * np.pi, (count, waves))
    height = amplitude * rng.normal(size=(count, waves, 2)) / np.sqrt(waves / 2)

    def displaced(section, points):
        bumps = np.cos(points @ k[section].T + phase[section])
        return bumps @ height[section]

    return displaced


def stack(rng, *, reach=2, wrong=0.0, sigma=SIGMA):
    """Return links, points of both sections, and the true warps."""
    displaced = warps(rng)
    axis = np.arange(8.0, SHAPE[0], 16)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    links, ends = [], []
    for i in range(COUNT):
        for j in range(i + 1, min(i + reach + 1, COUNT)):
            points = grid + rng.uniform(-2, 2, grid.shape)
            first, second = points - displaced(i, points), points - displaced(j, points)
            second = second + sigma * rng.normal(size=points.shape)
            lies = rng.uniform(size=len(points)) < wrong
            second[lies] += rng.choice([-1, 1], (lies.sum(), 2)) * 8
            links += [(i, j)] * len(points)
            ends.append((first, second, lies))
    first, second, lies = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    return np.array(links), first, second, lies, displaced


def error_of(fields, displaced):
    """Return how far apart in truth what comes to lie on one pixel is, from the mean.

    What all sections have in common nobody can know.
    """
    pixels = np.moveaxis(np.indices(SHAPE, dtype=float), 0, -1)[12:-12, 12:-12]
    places = []
    for section in range(COUNT):
        shown = pixels - fields[section, 12:-12, 12:-12]
        place = shown
        for _ in range(60):
            place = shown + displaced(section, place)
        places.append(place)
    return np.array(places) - np.mean(places, axis=0)


def test_sections_come_to_lie_on_each_other():
    links, first, second, _, displaced = stack(np.random.default_rng(1))
    relaxed = spt.relax_meshes(
        links, first, second, SHAPE, covariance=SIGMA**2 * np.eye(2)
    )
    error = error_of(relaxed.displacement, displaced)
    # Points are right to 0.1 px, and several of them tell the field at each pixel.
    assert np.sqrt((error**2).mean()) < 0.08
    assert relaxed.inlier.mean() > 0.99


def test_the_mean_displacement_of_the_stack_is_zero():
    links, first, second, *_ = stack(np.random.default_rng(2))
    relaxed = spt.relax_meshes(links, first, second, SHAPE)
    # Beside displacements of pixels.
    assert np.abs(relaxed.displacement.mean(axis=0)).max() < 0.02


def test_wrong_matches_do_not_pull():
    links, first, second, lies, displaced = stack(np.random.default_rng(3), wrong=0.08)
    relaxed = spt.relax_meshes(
        links, first, second, SHAPE, covariance=SIGMA**2 * np.eye(2)
    )
    assert not relaxed.inlier[lies].any()
    assert relaxed.inlier[~lies].mean() > 0.95
    error = error_of(relaxed.displacement, displaced)
    assert np.sqrt((error**2).mean()) < 0.1


@pytest.mark.slow
def test_a_chain_of_pairs_drifts_more():
    links, first, second, _, displaced = stack(np.random.default_rng(4), reach=3)
    relaxed = spt.relax_meshes(
        links, first, second, SHAPE, covariance=SIGMA**2 * np.eye(2)
    )
    chain = links[:, 1] - links[:, 0] == 1
    alone = spt.relax_meshes(
        links[chain], first[chain], second[chain], SHAPE,
        covariance=SIGMA**2 * np.eye(2),
    )  # fmt: skip
    errors = [
        np.sqrt((error_of(each.displacement, displaced) ** 2).mean())
        for each in (relaxed, alone)
    ]
    # Three times the matches, and no section further than three links from the ends.
    assert errors[0] < 0.8 * errors[1]


def test_fixed_sections_stay_where_matrices_put_them():
    links, first, second, *_ = stack(np.random.default_rng(5))
    matrices = np.tile(np.eye(3), (COUNT, 1, 1))
    relaxed = spt.relax_meshes(
        links, first, second, SHAPE, matrices=matrices, fixed=[0, COUNT - 1]
    )
    assert not relaxed.displacement[[0, COUNT - 1]].any()
    assert np.abs(relaxed.displacement[1:-1]).max() > 1


def test_residuals_are_what_fields_leave():
    links, first, second, *_ = stack(np.random.default_rng(6))
    relaxed = spt.relax_meshes(links, first, second, SHAPE)
    # Two fields take up some of the noise of a pair.
    assert 0.3 * SIGMA < relaxed.residuals.std() < 1.3 * SIGMA
    assert (relaxed.minimum_jacobian > 0.3).all()


def test_sections_without_usable_matches_stay():
    points = np.array([(20.0, 20.0), (40.0, 60.0)])
    relaxed = spt.relax_meshes(
        [(0, 1)] * 2,
        points,
        points + 3,
        (80, 80),
        covariance=np.full((2, 2, 2), np.inf),
    )
    assert not relaxed.displacement.any()
    assert not relaxed.inlier.any()


def test_matrices_must_be_one_for_each_section():
    points = np.zeros((1, 2))
    with pytest.raises(ValueError, match="`links` must join known tiles"):
        spt.relax_meshes([(0, 3)], points, points, (9, 9), matrices=[np.eye(3)] * 2)


def test_stiff_sections_do_not_bend():
    links, first, second, *_ = stack(np.random.default_rng(7))
    relaxed = spt.relax_meshes(links, first, second, SHAPE, stiffness=1e9, robust=False)
    bent = np.diff(relaxed.displacement, n=2, axis=1)
    # Against 1e-2 px for the warps themselves.
    assert_allclose(bent, 0, atol=1e-4)

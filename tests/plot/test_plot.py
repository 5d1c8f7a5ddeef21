import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

import spectral_tools as spt

TILE = (100, 120)


@pytest.fixture(autouse=True)
def figures_without_windows():
    mpl.use("agg")
    yield
    plt.close("all")


def placed(rng, shape=(4, 5), *, labels=False, **options):
    """Place a grid that has one false link and one tile without links."""
    links, truth = spt.grid_links(shape), spt.grid_positions(shape, TILE)
    found = truth[links[:, 1]] - truth[links[:, 0]]
    found += rng.normal(scale=0.2, size=found.shape)
    found[12] += 40
    covariance = np.broadcast_to(0.04 * np.eye(2), (len(links), 2, 2)).copy()
    covariance[(links == len(truth) - 1).any(axis=1)] = np.inf
    if labels:
        keys = [divmod(tile, shape[1]) for tile in range(len(truth))]
        links = [(keys[i], keys[j]) for i, j in links]
    return spt.solve_rigid(links, found, 0 * found, covariance=covariance, **options)


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("name", ["placement", "uncertainty"])
def test_rows_go_down_and_columns_to_the_right(rng, name):
    ax = getattr(spt.plot, name)(placed(rng), TILE)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("col", "row")
    assert np.diff(ax.get_xlim()) > 0 > np.diff(ax.get_ylim())
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("name", ["placement", "uncertainty"])
def test_given_axes_are_drawn_on_and_returned(rng, name):
    ax = plt.figure().add_subplot()
    assert getattr(spt.plot, name)(placed(rng), TILE, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_outlines_are_the_edges_of_the_tiles(rng):
    placement = placed(rng)
    ax = spt.plot.placement(placement, TILE)
    corners = ax.collections[0].get_paths()[0].vertices[:4, ::-1]
    first = placement.matrices[0, :2, 2] - 0.5
    corner = np.array([(0, 0), (0, 120), (100, 120), (100, 0)])
    assert_allclose(corners, first + corner)


def test_turned_tiles_are_drawn_turned(rng):
    placement = placed(rng)
    placement.matrices[0, :2, :2] = spt.rotation(np.pi / 2)[:2, :2]
    placement.matrices[0, :2, 2] = 0
    ax = spt.plot.placement(placement, TILE)
    found = np.ptp(ax.collections[0].get_paths()[0].vertices[:4, ::-1], axis=0)
    # 1e-9: rounding of a cosine.
    assert_allclose(found, TILE[::-1], atol=1e-9)


def test_tiles_may_differ_in_shape(rng):
    shapes = np.tile(TILE, (20, 1))
    shapes[0] = (10, 20)
    ax = spt.plot.placement(placed(rng), shapes)
    size = np.ptp(ax.collections[0].get_paths()[0].vertices[:4, ::-1], axis=0)
    assert_allclose(size, (10, 20))


def test_legend_counts_what_is_wrong(rng):
    ax = spt.plot.placement(placed(rng), TILE)
    assert legend_of(ax) == [
        "1 tile isolated",
        "2 links without a match",
        "1 link dropped",
    ]


def test_nothing_wrong_needs_no_legend():
    found = np.zeros((4, 2))
    placement = spt.solve_rigid(spt.grid_links((2, 2)), found, found)
    assert spt.plot.placement(placement, TILE).get_legend() is None


def test_tiles_carry_their_labels(rng):
    ax = spt.plot.placement(placed(rng, labels=True), TILE)
    assert "(0, 1)" in [text.get_text() for text in ax.texts]


def test_many_tiles_are_not_labelled(rng):
    assert len(spt.plot.placement(placed(rng, (20, 20)), TILE).texts) == 0


def test_tiles_that_nothing_holds_have_no_colour(rng):
    ax = spt.plot.uncertainty(placed(rng), TILE)
    assert legend_of(ax) == ["1 tile that nothing holds"]
    assert len(ax.collections[0].get_array()) == 19


def test_colours_of_uncertainty_are_standard_errors(rng):
    placement = placed(rng)
    expected = np.sqrt(spt.position_covariance(placement)[:19, 0, 0])
    found = spt.plot.uncertainty(placement, TILE).collections[0].get_array()
    assert_allclose(found, expected)


@pytest.mark.parametrize("name", ["placement", "uncertainty"])
def test_figures_can_be_saved(rng, name, tmp_path):
    ax = getattr(spt.plot, name)(placed(rng), TILE)
    ax.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_importing_the_package_does_not_import_matplotlib():
    code = "import spectral_tools, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tile_shapes_are_counted(rng):
    with pytest.raises(ValueError, match="one row for each of 20 tiles; got 3"):
        spt.plot.placement(placed(rng), np.ones((3, 2)))


def test_only_plane_placements_are_drawn():
    found = np.zeros((1, 3))
    placement = spt.solve_rigid([(0, 1)], found, found)
    with pytest.raises(ValueError, match="lie in the plane; got 3 axes"):
        spt.plot.placement(placement, TILE)

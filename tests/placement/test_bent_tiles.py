"""Tiles that a lens bends, matched in windows, placed and rendered."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spectral_tools as spt

SHAPE = (200, 200)


def lens(shape, barrel, skew=0.0):
    """Return the field of a lens: radial, and a skew that grows with the cube."""
    pixels = np.moveaxis(np.indices(shape, float), 0, -1)
    away = 2 * (pixels + 0.5) / np.array(shape) - 1
    field = barrel * away * np.sum(away**2, axis=-1, keepdims=True)
    field[..., 1] += skew * away[..., 0] ** 3
    return field


def where_overlaps_look(field, overlap=0.2):
    """Return a field along the borders, less what cannot be told from the positions."""
    share = (np.indices(field.shape[:2]) + 0.5) / np.array(field.shape[:2])[
        :, None, None
    ]
    seen = (np.abs(share - 0.5) > 0.5 - overlap).any(axis=0)
    design = np.column_stack([np.ones(seen.sum()), np.argwhere(seen)])
    return field[seen] - design @ np.linalg.lstsq(design, field[seen])[0]


def misplaced(found, truth):
    """Return by how much positions miss the truth but for a linear map."""
    design = np.column_stack([np.ones(len(truth)), truth])
    return found - design @ np.linalg.lstsq(design, found)[0]


@pytest.fixture(scope="module")
def made():
    scene = spt.gaussian_texture((700, 700), cutoff=0.3, slope=2, rng=3)
    return spt.simulate_tiles(
        scene, (3, 3), SHAPE, overlap=0.2, stage_sigma=2, noise_sigma=0.05, rng=5,
        distortion=lens(SHAPE, 2.0, 0.7),
    )  # fmt: skip


def test_windows_of_a_link_have_shifts_of_their_own(made):
    links, stage = [(0, 1), (3, 4)], made.stage
    whole = spt.match_tiles(made.tiles, links, positions=stage, max_shift=20)
    found = spt.match_tiles(made.tiles, links, positions=stage, max_shift=20, windows=8)
    assert_array_equal(np.unique(found.links, axis=0, return_counts=True)[1], [8, 8])
    assert (found.outcome == "matched").all()
    # In corrected tiles, what both show of a window is in one place.
    spread = (np.stack(np.meshgrid(*[np.arange(9)] * 2), -1).reshape(-1, 2) - 4) / 9
    spots = spread * found.size[:, np.newaxis]
    corrected = [
        spt.apply_displacement(
            lens(SHAPE, 2.0, 0.7), points[:, np.newaxis] + spots
        ).mean(axis=1)
        + made.positions[tile]
        for points, tile in (
            (found.reference_points, found.links[:, 0]),
            (found.moving_points, found.links[:, 1]),
        )
    ]
    missed = corrected[0] - corrected[1]
    assert np.abs(missed).max() < 0.25
    sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert np.sqrt(np.mean((missed / sigma) ** 2)) < 1.5
    # What a shift of the whole leaves is far more.
    offsets = whole.reference_points - whole.moving_points
    apart = found.reference_points - found.moving_points
    assert np.abs(apart - offsets.repeat(8, axis=0)).max() > 1


def test_windows_without_texture_have_no_row(made):
    tiles = made.tiles[:2].copy()
    tiles[0, 120:] = tiles[1, 120:] = 0
    tiles[:, 120:] += 1e-3 * np.random.default_rng(0).normal(size=(2, 80, 200))
    found = spt.match_tiles(
        tiles, [(0, 1)], positions=made.stage[:2], max_shift=20, windows=8
    )
    assert 2 <= len(found.links) <= 6
    assert found.reference_points[:, 0].max() < 130


def test_a_link_that_is_not_matched_has_one_row(rng):
    noise = rng.normal(size=(2, *SHAPE))
    found = spt.match_tiles(noise, [(0, 1), (1, 0)], windows=8)
    assert_array_equal(found.links, [(0, 1), (1, 0)])
    assert np.isinf(found.covariance).any(axis=(1, 2)).all()


def test_windows_leave_out_what_does_not_count(made):
    valid = np.ones(SHAPE, bool)
    valid[:70] = False
    found = spt.match_tiles(
        made.tiles[:2], [(0, 1)], positions=made.stage[:2], max_shift=20, windows=8,
        valid=valid,
    )  # fmt: skip
    assert (found.reference_points[:, 0] > 80).all()
    assert len(found.links) > 2


@pytest.mark.parametrize("model", [3, "polynomial"])
def test_tiles_are_placed_with_the_lens(made, model):
    placed = spt.place_tiles(made.tiles, positions=made.stage, distortion=model)
    missed = placed.distortion.displacement - lens(SHAPE, 2.0, 0.7)
    # In the corners it is 4 px.
    assert np.sqrt(np.mean(where_overlaps_look(missed) ** 2)) < 0.1
    plain = spt.place_tiles(made.tiles, positions=made.stage)
    bent = misplaced(plain.matrices[:, :2, 2], made.positions)
    right = misplaced(placed.matrices[:, :2, 2], made.positions)
    assert np.abs(right).max() < 0.06
    assert (placed.outcome == "matched").all()
    assert spt.seam_residuals(placed).pixels.max() < 0.1
    assert np.abs(bent).max() > np.abs(right).max()


def test_error_bars_of_tiles_count_what_the_lens_leaves_open(made):
    placed = spt.place_tiles(made.tiles, positions=made.stage, distortion=5)
    by_links, by_windows, alone = (
        np.einsum("naa->n", spt.position_covariance(each))
        for each in (
            placed,
            placed.distortion.placement,
            replace(placed, systematic=None),
        )
    )
    # Windows together say what the link of them says.
    assert_allclose(by_links, by_windows, rtol=0.15)
    # Quintic terms look much like positions.
    assert np.median(by_links / alone) > 4


def test_a_lens_that_is_known_is_used(made):
    known = lens(SHAPE, 2.0, 0.7)
    placed = spt.place_tiles(made.tiles, positions=made.stage, displacement=known)
    assert placed.distortion is None
    found = placed.matrices[:, :2, 2] - placed.matrices[0, :2, 2]
    assert_allclose(found, made.positions - made.positions[0], atol=0.06)


def test_a_mosaic_of_bent_tiles_agrees_in_the_corners(made):
    placed = spt.place_tiles(made.tiles, positions=made.stage, distortion=3)
    left = []
    for places, field in (
        (spt.place_tiles(made.tiles, positions=made.stage).matrices, None),
        (placed.matrices, placed.distortion.displacement),
    ):
        each = [
            spt.warp_composite(
                made.tiles[one], places[one], displacement=field, order=3,
                bounds=spt.composite_bounds(made.tiles, places), fill_value=np.nan,
            ).image
            for one in ([0], [1])
        ]  # fmt: skip
        apart = each[0] - each[1]
        left.append(np.sqrt(np.nanmean(apart[np.isfinite(apart)] ** 2)))
    # Noise of two tiles, smoothed by the interpolation, is all that is left.
    assert left[1] < 0.08
    assert left[0] > 0.2


def test_without_a_lens_none_is_found():
    scene = spt.gaussian_texture((560, 560), cutoff=0.3, slope=2, rng=1)
    made = spt.simulate_tiles(
        scene, (2, 2), SHAPE, overlap=0.2, stage_sigma=2, noise_sigma=0.1, rng=2
    )
    placed = spt.place_tiles(made.tiles, positions=made.stage, distortion="polynomial")
    assert placed.distortion.degree == 1
    assert_array_equal(placed.distortion.displacement, 0)


@pytest.mark.slow
def test_straight_tiles_hardly_ever_have_a_lens():
    degrees = []
    for seed in range(20):
        scene = spt.gaussian_texture(
            (660, 660), cutoff=(0.15, 0.3, 0.5)[seed % 3], slope=1.5, rng=seed
        )
        made = spt.simulate_tiles(
            scene, (3, 3), (192, 192), overlap=0.15, stage_sigma=2,
            noise_sigma=0.1 * scene.std(), rng=seed,
        )  # fmt: skip
        placed = spt.place_tiles(
            made.tiles, positions=made.stage, distortion="polynomial"
        )
        degrees.append(placed.distortion.degree)
    # One in a hundred chooses one, and two of twenty in fifty.
    assert np.count_nonzero(np.array(degrees) > 1) <= 1


def test_a_placement_with_its_lens_is_a_file(made, tmp_path):
    placed = spt.place_tiles(made.tiles, positions=made.stage, distortion=3)
    spt.io.save_result(tmp_path / "placed.h5", placed)
    again = spt.io.load_result(tmp_path / "placed.h5")
    assert_array_equal(again.distortion.displacement, placed.distortion.displacement)
    assert_array_equal(again.windows.links, placed.windows.links)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"distortion": "fisheye"},
            r"`distortion` must be a degree of at least 2 or one of poly",
        ),
        (
            {"distortion": True},
            r"`distortion` must be a degree of at least 2 or one of poly",
        ),
        ({"distortion": 1}, r"`distortion` must be a degree of at least 2"),
        ({"distortion": 99}, r"must be from 2 to"),
        (
            {"distortion": 3, "displacement": np.zeros((*SHAPE, 2))},
            "`distortion` must be None where `displacement` is given",
        ),
        (
            {"displacement": np.zeros((100, 200, 2))},
            r"`displacement` must have shape \(200, 200, 2\); got \(100, 200, 2\)",
        ),
        ({"distortion": 3, "windows": 0}, "`windows` must be at least 1"),
    ],
)
def test_a_lens_that_cannot_be_is_refused(made, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        spt.place_tiles(made.tiles, positions=made.stage, **options)


def test_tiles_of_other_shapes_have_no_lens_in_common(made):
    tiles = [*made.tiles[:3], made.tiles[3][:150]]
    with pytest.raises(ValueError, match="must come with flat tiles of one shape"):
        spt.place_tiles(tiles, grid=(2, 2), distortion=3)


def test_tiles_that_are_not_matched_tell_no_lens(rng):
    tiles = rng.normal(size=(4, *SHAPE))
    with pytest.raises(ValueError, match="`distortion` must be told by windows"):
        spt.place_tiles(tiles, grid=(2, 2), distortion=3)

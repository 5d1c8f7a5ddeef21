"""Tiles that one field bends, in the same sampling as their matrices."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import spectral_tools as spt

SHAPE = (90, 110)


def lens(shape=SHAPE, most=3.0):
    """Return a field that grows with the cube of the radius, and a bit of skew."""
    rows, cols = np.indices(shape)
    away = np.stack([rows, cols], -1) - (np.array(shape) - 1) / 2
    radius = np.linalg.norm(away, axis=-1, keepdims=True) / max(shape)
    field = most * 2 * away / max(shape) * radius**2
    field[..., 0] += most / 9 * (away[..., 1] / max(shape)) ** 2
    return field


@pytest.fixture
def tiles(rng):
    smooth = gaussian_filter(rng.normal(size=(3, *SHAPE)), (0, 2, 2))
    return list(100 * (smooth + 1))


PLACES = np.array([spt.translation(at) for at in ((0, 0), (8, 85), (71, 4))])
TURNED = np.array([[np.cos(0.7), np.sin(0.7), 0], [-np.sin(0.7), np.cos(0.7), 0]])
TURNED = np.vstack([TURNED, [0, 0, 1]])


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_tiles_bent_on_the_way_are_those_bent_before(tiles, order):
    field = lens()
    before = [
        spt.warp_image(
            tile, np.eye(3), displacement=field, order=order, fill_value=np.nan
        )
        for tile in tiles
    ]
    wanted = spt.warp_composite(before, PLACES, blend="mean", order=0)
    found = spt.warp_composite(
        tiles, PLACES, displacement=field, blend="mean", order=order
    )
    np.testing.assert_array_equal(found.coverage, wanted.coverage)
    np.testing.assert_allclose(found.image, wanted.image, atol=1e-9)


@pytest.mark.parametrize("blend", ["feather", "nearest", "seam", "multiband"])
@pytest.mark.parametrize("matrix", [np.eye(3), TURNED, np.diag([1.2, 0.9, 1])])
def test_a_field_of_zeros_changes_nothing(tiles, blend, matrix):
    places = PLACES @ matrix
    options = {"blend": blend, "scale": 0.8, "order": 3}
    wanted = spt.warp_composite(tiles, places, **options)
    found = spt.warp_composite(
        tiles, places, displacement=np.zeros((*SHAPE, 2)), **options
    )
    np.testing.assert_array_equal(found.coverage, wanted.coverage)
    np.testing.assert_allclose(found.image, wanted.image, atol=1e-6)


@pytest.mark.parametrize("matrix", [np.eye(3), TURNED, spt.translation((0.3, 0.8))])
def test_bent_points_show_what_was_recorded_there(matrix):
    """Of a tile whose values are its coordinates, a mosaic shows where it looked."""
    field = lens(most=5.0)
    tile = np.moveaxis(np.indices(SHAPE).astype(np.float64), 0, -1)
    mosaic = spt.warp_composite(
        [tile], matrix[np.newaxis], displacement=field, channel_axis=-1,
        fill_value=np.nan,
    )  # fmt: skip
    seen = np.argwhere(mosaic.coverage)
    corrected = spt.apply_transform(np.linalg.inv(matrix), seen + mosaic.origin)
    inside = np.all((corrected >= 0) & (corrected <= np.array(SHAPE) - 1), axis=1)
    seen, corrected = seen[inside], corrected[inside]
    low = np.minimum(corrected.astype(int), np.array(SHAPE) - 2)
    part = corrected - low
    moved = 0
    for step in np.ndindex(2, 2):
        share = np.where(step, part, 1 - part).prod(axis=1, keepdims=True)
        moved = moved + share * field[tuple((low + step).T)]
    recorded = corrected - moved
    recorded = np.clip(recorded, 0, np.array(SHAPE) - 1)
    np.testing.assert_allclose(mosaic.image[tuple(seen.T)], recorded, atol=1e-9)
    assert len(seen) > 0.8 * np.prod(SHAPE)


def test_whoever_renders_gets_the_same_bits(tiles):
    pytest.importorskip("dask")
    options = {"displacement": lens(), "order": 3}
    tiles = [tile.astype(np.float32) for tile in tiles]
    mosaic = spt.warp_composite(tiles, PLACES, **options)
    again = spt.warp_composite(tiles, PLACES, workers=map, **options)
    lazy = spt.lazy_composite(tiles, PLACES, chunks=50, **options).compute()
    np.testing.assert_array_equal(again.image, mosaic.image)
    np.testing.assert_array_equal(lazy, mosaic.image)
    for inside, block in spt.composite_blocks(tiles, PLACES, **options):
        np.testing.assert_array_equal(block, mosaic.image[inside])


def test_what_counts_in_a_bent_tile(tiles):
    field, valid = lens(), np.ones(SHAPE, bool)
    valid[20:40, 30:60] = False
    field[70:, :30] = np.nan
    options = {"displacement": field, "valid": valid, "fill_value": -1}
    mosaic = spt.warp_composite(tiles[:1], PLACES[:1], **options)
    shown = mosaic.coverage > 0
    assert not shown[22:38, 32:58].any()
    assert not shown[71:, :29].any()
    assert shown[45:65].all()
    assert (mosaic.image[~shown] == -1).all()


def test_a_bent_volume(rng):
    shape = (8, 30, 40)
    volume = gaussian_filter(rng.normal(size=shape), 2)
    field = gaussian_filter(rng.normal(size=(*shape, 3)), (2, 5, 5, 0)) * 9
    wanted = spt.warp_image(volume, np.eye(4), displacement=field, order=3)
    found = spt.warp_composite([volume], np.eye(4)[None], displacement=field, order=3)
    np.testing.assert_allclose(found.image, wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (np.zeros(SHAPE), r"must have shape \(rows, cols, 2\)"),
        (np.zeros((90, 100, 2)), r"must have the shape of all tiles .* got \(90, 100"),
        (np.zeros((*SHAPE, 2), complex), "must hold real numbers"),
    ],
)
def test_fields_that_do_not_fit_are_refused(tiles, field, message):
    with pytest.raises((ValueError, TypeError), match=message):
        spt.warp_composite(tiles, PLACES, displacement=field)

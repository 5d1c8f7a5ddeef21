"""Tiles in colours and channels are matched in grey, and rendered with all of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage.color import rgb2gray

import spectral_tools as spt

TRUTH = [(0, 0), (3, 70), (60, -2)]
LINKS = [(0, 1), (0, 2), (1, 2)]


def colours(rng, count, dtype=np.uint8):
    """Return a scene of channels that show the same and something of their own."""
    shared = spt.gaussian_texture((200, 230), rng=rng)
    own = [spt.gaussian_texture((200, 230), rng=rng) for _ in range(count)]
    stack = np.stack([shared + each for each in own], axis=-1)
    return (120 + 25 * stack).clip(0, 255).astype(dtype)


def cut(scene):
    return [scene[r + 5 : r + 125, c + 5 : c + 135] for r, c in TRUTH]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_are_matched_in_grey(count, axis, rng):
    tiles = cut(colours(rng, count))
    moved = [np.moveaxis(tile, -1, axis) for tile in tiles]
    found = spt.match_tiles(moved, LINKS, channel_axis=axis, max_shift=None)
    if axis == -1 and count in (3, 4):
        grey = [255 * rgb2gray(tile[..., :3]) for tile in tiles]
    else:
        grey = [tile.mean(axis=-1) for tile in tiles]
    wanted = spt.match_tiles([each.astype(np.float32) for each in grey], LINKS)
    # Both have the grey values in single precision, but for the last bit.
    assert_allclose(found.reference_points, wanted.reference_points, rtol=0, atol=1e-3)
    steps = np.subtract(*np.array(TRUTH)[np.array(LINKS).T[::-1]])
    offsets = found.reference_points - found.moving_points
    assert_allclose(offsets, steps, rtol=0, atol=0.02)


class Stored:
    """An image that can be sliced alone, and tells how much was read."""

    def __init__(self, image):
        self.image, self.shape, self.dtype = image, image.shape, image.dtype
        self.read = 0

    def __getitem__(self, key):
        part = self.image[key]
        self.read += part.size
        return part


def test_stored_channels_are_read_in_parts_and_give_the_same(rng):
    tiles = [np.moveaxis(tile, -1, 0) for tile in cut(colours(rng, 3))]
    stored = [Stored(tile) for tile in tiles]
    options = {"positions": TRUTH, "max_shift": 8, "channel_axis": 0, "pattern": 0}
    lazy = spt.match_tiles(stored, LINKS[:1], **options)
    plain = spt.match_tiles(tiles, LINKS[:1], **options)
    assert_array_equal(lazy.reference_points, plain.reference_points)
    assert 0 < stored[0].read < 0.8 * tiles[0].size


def test_masked_channels_do_not_count(rng):
    tiles = cut(colours(rng, 3))
    spoilt = [np.ma.array(tile.copy(), mask=False) for tile in tiles]
    for tile in spoilt:
        tile[20:60, 30:50, 1] = 255
        tile[20:60, 30:50, 1] = np.ma.masked
    found = spt.match_tiles(spoilt, LINKS[:1], channel_axis=-1)
    offset = found.reference_points - found.moving_points
    assert_allclose(offset, TRUTH[1:2], rtol=0, atol=0.02)


@pytest.mark.parametrize("labels", [None, "abc"])
def test_colours_are_placed_and_rendered(labels, rng):
    scene = colours(rng, 3)
    tiles, stage = cut(scene), np.add(TRUTH, [(0, 0), (2, -1), (1, 2)])
    held = tiles if labels is None else dict(zip(labels, tiles, strict=True))
    where = stage if labels is None else dict(zip(labels, stage, strict=True))
    placed = spt.place_tiles(held, positions=where, channel_axis=-1)
    found = placed.matrices[:, :2, 2] - placed.matrices[0, :2, 2]
    assert_allclose(found, TRUTH, rtol=0, atol=0.02)
    matrices = [spt.translation(shift) for shift in np.round(found)]
    mosaic = spt.warp_composite(held, matrices, channel_axis=-1)
    assert mosaic.image.shape[2] == 3
    seen = mosaic.coverage > 0
    # The first tile begins at (5, 5), and the third one two columns before it.
    rows, cols = seen.shape
    assert_array_equal(mosaic.image[seen], scene[5 : 5 + rows, 3 : 3 + cols][seen])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("count", [3, 4])
def test_colours_without_an_axis_are_refused_by_name(count, dtype, rng):
    tiles = [tile.astype(dtype) for tile in cut(colours(rng, count))]
    calls = {
        r"tiles\[0\]": [
            lambda: spt.match_tiles(tiles, LINKS),
            lambda: spt.place_tiles(tiles, positions=TRUTH),
            lambda: spt.match_tiles(np.stack([tiles[0], tiles[0]]), [(0, 1)]),
            lambda: spt.estimate_shading(tiles),
        ],
        "image0": [lambda: spt.mutual_information(tiles[0], tiles[1])],
        "reference": [
            lambda: spt.phase_correlate(tiles[0], tiles[1]),
            lambda: spt.match_grid(tiles[0], tiles[1]),
            lambda: spt.match_orientation(tiles[0], tiles[1]),
        ],
        r"frames\[0\]": [lambda: spt.align_series(tiles)],
        "tiles": [lambda: spt.warp_composite(tiles, np.array([np.eye(3)] * 3))],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(ValueError, match=f"`{name}` must .*`channel_axis`"):
                function()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((9, 50, 3), np.uint16),
        ((16, 16, 4), np.float32),
        ((3, 40, 50), np.uint8),
        ((40, 50, 5), np.uint8),
        ((3, 4, 4), np.uint8),
    ],
)
def test_volumes_are_no_colours(shape, dtype, rng):
    volume = rng.integers(0, 200, shape).astype(dtype)
    found = spt.match_tiles([volume, volume], [(0, 1)])
    assert found.reference_points.shape == (1, 3)


@pytest.mark.parametrize(
    ("shape", "axis", "match"),
    [
        ((40, 50), -1, "2 or 3 axes besides `channel_axis`"),
        ((40, 50, 3), 3, "`channel_axis` must be between -3 and 2; got 3"),
        ((40, 50, 0), 2, "at least one pixel"),
        ((2, 2, 2, 40, 50), 0, "2 or 3 axes besides `channel_axis`"),
    ],
)
def test_axes_of_channels_must_be_there(shape, axis, match, rng):
    tile = rng.integers(0, 9, shape)
    with pytest.raises(ValueError, match=match):
        spt.match_tiles([tile, tile], [(0, 1)], channel_axis=axis)

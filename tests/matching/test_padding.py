"""Frames that were put round images are no image."""

import itertools

import numpy as np
import pytest
from scipy import fft, ndimage

import spectral_tools as spt
from spectral_tools._matching.image_area import bounding_box, find_padding
from tests.sweeps import sweep

ROWS, COLS = np.mgrid[:180, :200]
AWAY = np.hypot(ROWS - 89.5, COLS - 99.5)


def texture(seed, shape=(180, 200)):
    return 50 + 10 * spt.gaussian_texture(shape, cutoff=0.25, rng=seed)


def bent_frame():
    far = (AWAY / 120) ** 2
    rows, cols = (ROWS - 89.5) * (1 + 0.06 * far), (COLS - 99.5) * (1 + 0.06 * far)
    return (np.abs(rows) > 84) | (np.abs(cols) > 93)


FRAMES = {
    "border": (ROWS < 15) | (ROWS >= 165) | (COLS < 15) | (COLS >= 185),
    "uneven border": (ROWS < 4) | (COLS >= 160),
    "round field": AWAY > 95,
    "corners of a round field": AWAY > 125,
    "wedge": ROWS + 0.4 * COLS > 190,
    "lens-corrected frame": bent_frame(),
}
# Whether they go all round: all four corners are in them.
ENDS = {
    kind: frame[[0, 0, -1, -1], [0, -1, 0, -1]].all() for kind, frame in FRAMES.items()
}


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_padding(kind, value):
    frame = FRAMES[kind]
    found = find_padding(np.where(frame, value, texture(1))[None])
    assert found is not None
    assert found[0][frame].all()
    # Up to what may be a mixture on the edge.
    assert not found[0][
        ndimage.binary_erosion(~frame, iterations=2, border_value=1)
    ].any()


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "faint"])
@pytest.mark.parametrize("kind", [kind for kind in FRAMES if ENDS[kind]])
def test_frames_may_have_the_noise_of_a_camera(kind, noise):
    frame, rng = FRAMES[kind], np.random.default_rng(6)
    dark = {
        "gaussian": rng.normal(10, 2, frame.shape),
        "poisson": rng.poisson(4.0, frame.shape),
        "faint": rng.random(frame.shape) < 0.03,
    }[noise]
    found = find_padding(np.where(frame, dark, texture(1))[None])
    assert found is not None
    assert found[0][frame].mean() > 0.99
    inner = ndimage.binary_erosion(~frame, iterations=2, border_value=1)
    assert not found[0][inner].any()


@pytest.mark.parametrize("width", [4, 20, 60, 250])
def test_a_small_image_in_a_wide_frame_is_cut_out(width):
    images = [np.pad(texture(20 + n)[:60, :50], width) for n in range(4)]
    found = find_padding(images[0][None])
    assert found is not None
    assert (~found).sum() == 60 * 50
    for first, second in itertools.combinations(images, 2):
        assert spt.phase_correlate(first, second).outcome != "matched"


def test_padding_of_turned_images_is_found():
    turned = ndimage.rotate(texture(2), 11, order=1)
    found = find_padding(turned[None])
    assert found is not None
    assert 0.15 < found.mean() < 0.5


def compressed(image, step=24.0):
    """Quantise the cosines of blocks of 8 x 8 pixels, as JPEG does."""
    rows, cols = (n // 8 for n in image.shape)
    blocks = image[: 8 * rows, : 8 * cols].reshape(rows, 8, cols, 8)
    cosines = fft.dctn(blocks - 128, axes=(1, 3), norm="ortho")
    blocks = fft.idctn(step * np.rint(cosines / step), axes=(1, 3), norm="ortho") + 128
    return np.clip(np.rint(blocks), 0, 255).reshape(8 * rows, 8 * cols).astype(np.uint8)


def test_padding_is_found_in_a_compressed_image():
    frame = (ROWS < 20) | (ROWS >= 163) | (COLS < 18) | (COLS >= 181)
    image = compressed(np.where(frame, 0, 3 * texture(3)))
    found = find_padding(image[None])
    assert found is not None
    frame = frame[: image.shape[0], : image.shape[1]]
    assert found[0][frame].mean() > 0.98


def objects():
    rng = np.random.default_rng(5)
    cells = np.clip(spt.gaussian_texture((180, 200), cutoff=0.03, rng=2) - 0.8, 0, None)
    text = np.kron(rng.random((18, 25)) > 0.5, np.ones((10, 8)))
    disc = np.clip(1 - (AWAY / 70) ** 2, 0, None)
    return {
        "cells": cells,
        "binary cells": (cells > 0).astype(np.uint8),
        "text": text,
        "bead": np.clip(np.exp(-(AWAY**2) / 60) - 0.01, 0, None),
        "one cell": disc * texture(4),
        "binary disc": (AWAY < 60).astype(float),
        "texture": texture(5),
        "board": np.indices((180, 200)).sum(axis=0) // 40 % 2,
    }


@pytest.mark.parametrize("kind", objects())
def test_objects_on_a_plain_ground_are_not_cut_off(kind):
    image = np.asarray(objects()[kind])[None]
    assert find_padding(image) is None
    noise = np.random.default_rng(7).normal(0, 0.02 * np.ptp(image), image.shape)
    assert find_padding(image + noise) is None


def views(seed, shift, frame, noise=1.0):
    rng = np.random.default_rng(seed)
    scene = texture(seed, (300, 320))
    pair = scene[:180, :200], scene[shift[0] :, shift[1] :][:180, :200]
    return [
        np.where(frame, 0, each + rng.normal(0, noise, each.shape)) for each in pair
    ]


@pytest.mark.parametrize("kind", sweep(FRAMES, 0, 2, 4))
def test_the_same_frame_is_no_match(kind):
    shift = np.array((40, 53))
    pair = views(7, shift, FRAMES[kind])
    for options in ({}, {"guess": shift + 6, "max_shift": 15}):
        found = spt.phase_correlate(*pair, **options)
        assert found.outcome == "matched"
        np.testing.assert_allclose(found.shift, shift, atol=0.1)
    rng = np.random.default_rng(8)
    for seed, noise in itertools.product(range(3), (0, 2)):
        pair = [np.where(FRAMES[kind], 0, texture(20 + 2 * seed + n)) for n in (0, 1)]
        pair = [each + rng.normal(0, noise, each.shape) for each in pair]
        assert spt.phase_correlate(*pair).outcome != "matched"


def test_a_region_of_interest_gives_what_its_crop_gives():
    scene = texture(9, (320, 320))
    first, second = scene[:256, :256], scene[20:276, 30:286]
    region = np.zeros((256, 256), bool)
    region[60:130, 80:160] = True
    whole = spt.phase_correlate(first, second, moving_valid=region)
    crop = spt.phase_correlate(first, second[60:130, 80:160])
    np.testing.assert_allclose(whole.shift, crop.shift - (60, 80), atol=1e-9)
    assert whole.outcome == crop.outcome == "matched"


def test_the_bounding_box_holds_all_that_counts():
    valid = np.zeros((1, 9, 8), bool)
    valid[0, 2, 3] = valid[0, 6, 4] = True
    assert bounding_box(valid) == (slice(0, 1), slice(2, 7), slice(3, 5))
    assert bounding_box(np.zeros((1, 3, 3), bool))[1] == slice(0)


def test_padding_in_volumes_is_found():
    volume = np.zeros((14, 40, 44))
    inside = (slice(2, -2), slice(5, -6), slice(4, -4))
    volume[inside] = np.random.default_rng(0).normal(50, 5, volume[inside].shape)
    found = find_padding(volume)
    assert found is not None
    assert not found[3:-3, 7:-8, 6:-6].any()


def test_padding_is_told_and_may_be_counted():
    scene = texture(5, (230, 250))
    pair = [scene[:180, :200].copy(), scene[20:200, 31:231].copy()]
    frame = FRAMES["border"]
    for image in pair:
        image[frame] = 0
    found = spt.phase_correlate(*pair)
    assert found.outcome == "matched"
    np.testing.assert_allclose(found.shift, (20, 31), atol=0.05)
    # Up to the pixels that may be a mixture on the edge.
    assert (found.padding >= frame.mean()).all()
    assert (found.padding < frame.mean() + 0.05).all()
    kept = spt.phase_correlate(*pair, padding=False)
    np.testing.assert_array_equal(kept.padding, 0)
    tiles = spt.match_tiles(pair, [(0, 1)], positions=[(0, 0), (18, 33)], max_shift=9)
    assert tiles.padding.shape == (1, 2)
    assert (tiles.padding > 0.05).all()
    assert tiles.misfit[0] < 2
    tiles = spt.match_tiles(pair, [(0, 1)], padding=False)
    np.testing.assert_array_equal(tiles.padding, 0)
    placed = spt.place_tiles(pair, positions=[(0, 0), (18, 33)], padding=False)
    np.testing.assert_array_equal(placed.matches.padding, 0)


@pytest.mark.parametrize("kind", ["border", "uneven border", "round field", "wedge"])
def test_frames_of_turned_images_are_padding(kind):
    frame = FRAMES[kind]
    scene = texture(31, (380, 400))
    turned = ndimage.rotate(scene, 40, reshape=False, order=5)
    pair = [np.where(frame, 0, each[100:280, 90:290]) for each in (scene, turned)]
    found = spt.match_orientation(*pair)
    assert found.outcome == "matched"
    np.testing.assert_allclose(np.rad2deg(found.angle), -40, atol=0.05)

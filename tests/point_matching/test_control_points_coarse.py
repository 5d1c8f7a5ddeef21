"""Points seen by two instruments, one of which has much larger pixels."""

import numpy as np
import pytest

import spectral_tools as spt


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_error_bars_hold_where_one_image_has_large_pixels(rng, scale):
    wide, side = 3, 360
    points = np.stack(np.meshgrid((70, 140, 210, 280), (70, 140, 210, 280)), -1)
    points = points.reshape(-1, 2)
    clicks = (points - (wide - 1) / 2) / wide
    chi2 = []
    for _ in range(2):
        scene = spt.gaussian_texture((side, side), cutoff=0.1, rng=rng)
        reference = scene + 0.1 * rng.normal(size=scene.shape)
        small = np.exp(-scene).reshape(side // wide, wide, side // wide, wide)
        moving = small.mean(axis=(1, 3))
        moving += 0.1 * moving.std() * rng.normal(size=moving.shape)
        found = spt.refine_points(
            reference, moving, points, clicks, size=80, scale=scale, iterations=1
        )
        kept = np.isfinite(found.covariance).all(axis=(1, 2))
        assert kept.sum() >= 12
        miss = wide * (found.moving_points - clicks)[kept]
        weights = np.linalg.inv(found.covariance[kept])
        chi2 += np.einsum("ni,nij,nj->n", miss, weights, miss).tolist()
    # Two degrees of freedom each, and neighbouring windows share pixels: the mean of
    # some 30 is 2 +- 0.5, or up to 4 where bars are too short by a third. With frequencies
    # beyond the pixels of the coarser image it would be 20 to 70.
    assert np.mean(chi2) < 4

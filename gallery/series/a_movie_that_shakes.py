"""
A movie that shakes
===================

Nerve cells blink in a living brain, the brain breathes, and the picture shakes by
several pixels. There are few photons, there is dust on the camera, and no frame
shows all cells. We want to know where each frame lies, without a reference, and how
far that can be trusted. You will see how much sharper the mean becomes, how close
to the limit of the photons the shifts come, and what becomes of a frame that is spoiled.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

import spectral_tools as spt

# %%
# A movie with a known truth
# --------------------------
# Discs with darker middles are the cells; each blinks on its own, most are dim at any
# time. The texture between them stays. The drift is smooth and random.

rng = np.random.default_rng(4)
count, shape, room = 60, (128, 128), 12
grid = np.stack(np.mgrid[: shape[0] + 2 * room, : shape[1] + 2 * room], axis=-1)

centres = rng.uniform(0, grid.shape[:2], (45, 2))
away = np.linalg.norm(grid[None] - centres[:, None, None], axis=-1)
cells = 1 / (1 + np.exp(2 * (away - 5))) - 0.6 / (1 + np.exp(2 * (away - 2.5)))
texture = spt.gaussian_texture(grid.shape[:2], cutoff=0.3, rng=1)

drift = gaussian_filter(rng.normal(size=(count, 2)), (1.5, 0)) * 10
drift -= drift.mean(axis=0)
blinks = 0.3 + np.exp(gaussian_filter(rng.normal(size=(count, 45)), (2, 0)) * 4 - 1.5)
dust = np.zeros(shape)
for row, col in rng.uniform(0, shape, (25, 2)):
    dust -= 4 * np.exp(-((np.indices(shape).T - (row, col)) ** 2).sum(-1) / 8).T
print(f"the largest drift is {np.abs(drift).max():.1f} pixels")

# %%
# Each frame is cut out at its drift, gets the dust of the camera, and
# counts photons, eight per pixel in the mean.


def scene_at(time):
    picture = np.tensordot(np.minimum(blinks[time], 4), cells, 1) * 6
    return 5 + 1.5 * np.clip(texture, -2, 3) + picture


def cut(picture, shift):
    one = spt.apply_shifts(picture[None], -np.atleast_2d(shift))[0]
    return one[room:-room, room:-room]


clean = np.array([cut(scene_at(n), drift[n]) for n in range(count)])
light = np.maximum(clean + dust, 0.1)
movie = rng.poisson(light).astype(np.uint16)
movie[31] = rng.poisson(light.mean(), shape)  # The shutter was closed.
print(movie.shape, "mean count", movie.mean().round(1))

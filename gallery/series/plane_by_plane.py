"""
Plane by plane
==============

A fast microscope takes six planes of a sample, one after the other, over and over.
The sample moves meanwhile, so that each volume is sheared: neighbours that are taken
together share a shift, others do not. We want the shift of each group of planes.
You will see what one shift for the whole volume leaves, and what planes that
share a shift are good for where there is little light.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

import spectral_tools as spt

# %%
# Volumes with a known truth
# --------------------------
# Planes are taken in three groups of two. Each group has a drift of its own, smooth
# in time. Noise is twice as strong as the contrast of the sample.

count, groups, planes, shape = 18, 3, 6, (80, 80)
rng = np.random.default_rng(2)
drift = gaussian_filter(rng.normal(size=(count, groups, 2)), (2, 0, 0)) * 9
drift -= drift.mean(axis=0)
scene = gaussian_filter(rng.normal(size=(planes, 130, 130)), (0.8, 2, 2))
scene /= scene.std()

volumes = np.stack(
    [
        spt.simulate_series(
            scene[plane], drift[:, plane // 2], shape, noise_sigma=2, rng=plane
        ).frames
        for plane in range(planes)
    ],
    axis=1,
)
print("volumes, planes, rows, cols:", volumes.shape)

# %%
# One shift for each group
# ------------------------
# Two neighbouring planes move together. The result has one shift for
# each volume and each group.

found = spt.align_series(volumes, planes=2)
moved = spt.apply_shifts(volumes, found.shifts, planes=2, fill_value=np.nan)
error = found.shifts - drift
print("shifts:", found.shifts.shape)

# %%
# True and found
# --------------
# Lines are the truth, dots what was found. Error bars of two standard deviations are
# there, and hardly larger than the dots.

time = np.arange(count)
fig, axes = plt.subplots(1, 3, figsize=(8, 3), sharey=True, layout="constrained")
for group, ax in enumerate(axes):
    for axis, (name, color) in enumerate((("row", "#0072B2"), ("col", "#D55E00"))):
        ax.plot(time, drift[:, group, axis], color=color, lw=1)
        ax.errorbar(
            time, found.shifts[:, group, axis],
            2 * np.sqrt(found.covariance[:, group, axis, axis]),
            fmt=".", color=color, label=name,
        )  # fmt: skip
    ax.set(title=f"Planes {2 * group} and {2 * group + 1}", xlabel="volume")
axes[0].set_ylabel("shift in pixels")
axes[0].legend(loc="lower center", ncols=2)
plt.show()

# %%
# A shift of the whole volume does not do
# ---------------------------------------
# If planes move apart, one shift for all follows one group at best, and is wrong
# for the others. Planes that are matched each on their own lack the light of their neighbours.


def rms(values):
    return np.sqrt(np.mean(np.square(values - values.mean(axis=0))))


as_one = spt.align_series(volumes)
whole = as_one.shifts[:, None, 1:] - drift
alone = spt.align_series(volumes, planes=1)
single = alone.shifts - np.repeat(drift, 2, axis=1)
print("rms error in pixels       group 0, 1, 2")
for name, each in (
    ("the volume as a whole:", np.array([rms(whole[:, g]) for g in range(3)])),
    ("each plane alone:     ", np.array([rms(single[:, 2 * g]) for g in range(3)])),
    ("groups of two planes: ", np.array([rms(error[:, g]) for g in range(3)])),
):
    print(" ", name, each.round(3))
ratio = rms(single) / rms(error)
print("a plane alone is worse by", ratio.round(2), "- half the light: 1.41")

# %%
# What is seen
# ------------
# The last plane in the mean of all volumes: as taken, moved as a whole, and
# moved group by group. Only the last shows what the sample looks like.

together = spt.apply_shifts(volumes, as_one.shifts, fill_value=np.nan)
pictures = (
    (volumes.mean(axis=0)[5], "As taken"),
    (np.nanmean(together, axis=0)[5], "Moved as a whole"),
    (np.nanmean(moved, axis=0)[5], "Moved group by group"),
)
fig, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
for ax, (picture, title) in zip(axes, pictures, strict=True):
    ax.imshow(picture[10:-10, 10:-10], cmap="gray", vmin=-2, vmax=2)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()
# sphinx_gallery_thumbnail_number = 2

# %%
# The contrast of the mean, over that of the sample (noise makes some of it).

for picture, title in pictures:
    print(f"{title + ':':22}", (picture[10:-10, 10:-10].std()).round(2))

# %%
# What this page promised
# -----------------------

assert rms(error) < 0.2
assert rms(whole) > 5 * rms(error)
assert 1.1 < ratio < 2
assert (found.outcome == spt.Outcome.MATCHED).all()

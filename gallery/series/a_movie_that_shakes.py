"""
A movie that shakes
===================

Nerve cells blink in a living brain, the brain breathes, and the picture shakes by
several pixels. There are few photons, there is dust on the camera, and no frame
shows all cells. We want to know where each frame lies, without a reference, and how
far that can be trusted. You will see how much sharper the mean becomes, how close
to the limit of the photons the shifts come, and what becomes of a frame that is spoiled.
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import fourier_shift, gaussian_filter
from skimage import io

import spectral_tools as spt

# %%
# A movie with a known truth
# --------------------------
# Discs with darker middles are the cells; each blinks on its own, most are dim at any
# time. The texture between them stays. The drift is smooth and random.

rng = np.random.default_rng(4)
count, shape, room = 45, (128, 128), 17
grid = np.stack(np.mgrid[: shape[0] + 2 * room, : shape[1] + 2 * room], axis=-1)

centres = rng.uniform(0, grid.shape[:2], (45, 2))
away = np.linalg.norm(grid[None] - centres[:, None, None], axis=-1)
cells = 1 / (1 + np.exp(2 * (away - 5))) - 0.6 / (1 + np.exp(2 * (away - 2.5)))
texture = spt.gaussian_texture(grid.shape[:2], cutoff=0.3, rng=1)

drift = gaussian_filter(rng.normal(size=(count, 2)), (1.5, 0)) * 10
drift -= drift.mean(axis=0)
blinks = 0.3 + np.exp(gaussian_filter(rng.normal(size=(count, 45)), (2, 0)) * 4 - 1.5)
dust = np.zeros(shape)
for row, col in rng.uniform(0, shape, (60, 2)):
    dust -= 6 * np.exp(-((np.indices(shape).T - (row, col)) ** 2).sum(-1) / 8).T
print(f"the largest drift is {np.abs(drift).max():.1f} pixels")

# %%
# Each frame is cut out at its drift, gets the dust of the camera, and
# counts photons, eight per pixel in the mean.


def scene_at(time):
    picture = np.tensordot(np.minimum(blinks[time], 4), cells, 1) * 6
    return 8 + 1.5 * np.clip(texture, -2, 3) + picture


def cut(picture, shift):
    one = spt.apply_shifts(picture[None], -np.atleast_2d(shift))[0]
    return one[room:-room, room:-room]


clean = np.array([cut(scene_at(n), drift[n]) for n in range(count)])
light = np.maximum(clean + dust, 0.1)
movie = rng.poisson(light).astype(np.uint16)
movie[25] = rng.poisson(light.mean(), shape)  # The shutter was closed.
print(movie.shape, "mean count", movie.mean().round(1))

# %%
# Align it
# --------
# No frame is named as the reference: some frames are laid over each other until
# their mean is sharp, and every frame is matched to that.

found = spt.align_series(movie)
moved = spt.apply_shifts(movie, found.shifts, dtype=float, fill_value=np.nan)
good = found.outcome == spt.Outcome.MATCHED
print(good.sum(), "frames of", count, "are matched; not so:", np.flatnonzero(~good))

# %%
# One frame
# ---------
# The frame that drifted furthest, the same one moved to where it belongs, and how both
# differ from the template. Once it is moved, all but noise, dust and blinking is gone.

worst = np.argmax(np.abs(drift).max(axis=1))
template = found.template
panels = (
    (movie[worst], "As taken"),
    (moved[worst], "Moved"),
    (movie[worst] - template, "As taken, less template"),
    (moved[worst] - template, "Moved, less template"),
)
smooth = [gaussian_filter(np.nan_to_num(picture), 1) for picture, _ in panels]
fig, axes = plt.subplots(2, 2, figsize=(7, 6.8), layout="constrained")
for ax, picture, (_, title), kind in zip(
    axes.flat, smooth, panels, ("gray", "gray", "PuOr", "PuOr"), strict=True
):
    low, high = (0, 22) if kind == "gray" else (-10, 10)
    ax.imshow(picture, cmap=kind, vmin=low, vmax=high)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# The mean, before and after
# --------------------------
# The mean of the movie as taken is blurred by the motion, and the dust is sharp. In
# the mean of moved frames the dark middles of the cells come out, and the dust, which
# now moves, all but vanishes.

plain, sharp = movie.mean(axis=0), np.nanmean(moved[good], axis=0)
part = np.s_[20:100, 20:100]
fig, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
for ax, picture, title in (
    (axes[0], plain, "Mean as taken"),
    (axes[1], sharp, "Mean of moved frames"),
):
    ax.imshow(picture[part], cmap="gray", vmin=3, vmax=18, extent=(20, 100, 100, 20))
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()
# sphinx_gallery_thumbnail_number = 2

# %%
# True and found
# --------------
# Lines are the truth, dots what was found. The lower panel shows the difference,
# much enlarged, with error bars of two standard deviations. The spoiled frame
# (open circle) lies between its neighbours, and its error bar says that this is a guess.

shift = found.shifts - (found.shifts - drift)[good].mean(axis=0)
error = shift - drift
sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
time = np.arange(count)
fig, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
for axis, (name, color) in enumerate((("row", "#0072B2"), ("col", "#D55E00"))):
    axes[0].plot(time, drift[:, axis], color=color, lw=1)
    axes[0].plot(time[good], shift[good, axis], ".", color=color, label=name)
    axes[0].plot(time[~good], shift[~good, axis], "o", color=color, mfc="white")
    axes[1].errorbar(
        time[good] + 0.3 * axis, error[good, axis], 2 * sigma[good, axis],
        fmt=".", color=color, lw=1, label=name,
    )  # fmt: skip
axes[0].set(title="True (lines) and found (dots)", ylabel="shift in pixels")
axes[1].set(title="Found less true", xlabel="frame", ylabel="pixels")
axes[1].axhline(0, color="gray", lw=1)
axes[0].legend()
plt.show()

chi2 = np.mean((error[good] / sigma[good]) ** 2)
print("error over error bar, squared, in the mean:", chi2.round(2))

# %%
# The limit of the photons
# ------------------------
# Even who knew the scene of each frame, blinks and all, could not do better than the
# Fisher information allows: the slopes of the picture, squared, over its noise. This
# template does not know who blinks, which costs about a factor of two.

slopes = np.array([np.gradient(each) for each in clean])
fisher = (slopes**2 / light[:, None]).sum(axis=(2, 3))
bound = np.sqrt(np.mean(1 / fisher[good]))


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


print("rms error:        ", rms(error[good]).round(3), "pixels")
print("limit of photons: ", bound.round(3), "pixels")

# %%
# What a mean as reference does
# -----------------------------
# The habit is to correlate each frame with the mean of all. That mean is blurred
# along the way that the frames went, and it holds the dust, sharp and in place.


def peaks_against_mean(frames):
    """Return the shift of each frame at the peak of its correlation with the mean."""
    centred = frames - frames.mean(axis=(1, 2), keepdims=True)
    spectra = np.fft.rfft2(centred)
    turned = spectra.mean(axis=0) * spectra.conj()
    peaks = [
        np.unravel_index(each.argmax(), each.shape) for each in np.fft.irfft2(turned)
    ]
    half = np.array(frames.shape[1:]) // 2
    return (peaks + half) % (2 * half) - half


naive_error = (peaks_against_mean(movie) - drift)[good]
naive_error -= naive_error.mean(axis=0)

fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for each, label, color in (
    (naive_error, "correlation with the mean", "#E69F00"),
    (error[good], "template without the dust", "#009E73"),
):
    size = np.sort(np.linalg.norm(each, axis=1))
    ax.plot(size, (np.arange(len(size)) + 1) / len(size), color=color, label=label)
ax.axvline(bound * np.sqrt(2), color="gray", ls=":", label="limit (rms)")
ax.set(
    title="Share of frames below an error", xscale="log", xlim=(5e-4, 30),
    xlabel="error in pixels", ylabel="share",
)  # fmt: skip
ax.legend()
plt.show()
print("rms error of correlation with the mean:", rms(naive_error).round(2), "pixels")

# %%
# What stays in place
# -------------------
# The dust is found along with the shifts, as what does not move while the scene does.
# What lies still at the very largest scale cannot be told from the scene, but it
# does not move frames either.

fig, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
fine = gaussian_filter(found.pattern, 1)
for ax, picture, title in (
    (axes[0], dust, "Dust on the camera"),
    (axes[1], fine - np.median(fine), "Found pattern"),
):
    shown = ax.imshow(picture, cmap="PuOr", vmin=-4, vmax=4)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()
alike = np.corrcoef(gaussian_filter(dust, 1).ravel(), fine.ravel())[0, 1]
print("they correlate by", alike.round(2))

# %%
# A real brain
# ------------
# Twenty frames of a mouse's brain, seen through a two-photon microscope (from the
# examples of `Thunder <https://github.com/thunder-project>`_, Apache-2.0), which lie on
# each other as they were published. We let them drift, too: their spectra are
# turned, which loses nothing. This part runs where the folder that the environment
# variable ``SPECTRAL_TOOLS_DATA`` names holds the movie.

folder = Path(os.environ.get("SPECTRAL_TOOLS_DATA", "no folder"))
path = folder / "time" / "thunder_mouse" / "mouse_500x64x64.tif"
if path.exists():
    still = io.imread(path)[:20].astype(float)
    fake = gaussian_filter(rng.normal(size=(20, 2)), (1.5, 0)) * 10
    wide = np.fft.fft2(np.pad(still, [(0, 0), (16, 16), (16, 16)], mode="reflect"))
    turned = [fourier_shift(each, -step) for each, step in zip(wide, fake, strict=True)]
    brain = np.fft.ifft2(turned).real[:, 16:-16, 16:-16]

    # What the published frames themselves moved is no error of ours.
    fake += spt.align_series(still).shifts
    results = {
        "correlation with the mean": peaks_against_mean(brain),
        "template without dust": spt.align_series(brain).shifts,
    }
    fig, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    axes[0].plot(fake - fake.mean(axis=0), color="gray", lw=1)
    for (name, each), color in zip(
        results.items(), ("#E69F00", "#009E73"), strict=True
    ):
        axes[0].plot(each - each.mean(axis=0), ".", color=color)
        off = each - fake
        results[name] = off - off.mean(axis=0)
        size = np.linalg.norm(results[name], axis=1)
        axes[1].semilogy(size, "o-", color=color, label=name)
        print(
            f"{name + ':':27}{rms(results[name]):7.3f} px rms, {size.max():.3f} at most"
        )
    axes[0].set(
        title="True (lines) and found (dots), both axes", ylabel="shift in pixels"
    )
    axes[1].set(title="Error", xlabel="frame", xticks=range(0, 20, 5), ylabel="pixels")
    axes[1].legend(loc="center right")
    plt.show()
else:
    print("The movie is not here.")

# %%
# What this page promised
# -----------------------

assert list(np.flatnonzero(~good)) == [25]
assert rms(error[good]) < 3 * bound
assert rms(naive_error) > 10 * rms(error[good])
assert 0.5 < chi2 < 2
if path.exists():
    assert np.abs(results["template without dust"]).max() < 0.5

"""
Two instruments, one sample
===========================

A topography with fine pixels took a minute. A spectrum at each of a few thousand
coarse pixels took the night, and the sample drifted: that map is turned, sheared, and
looks like another sample. Which spectrum belongs to which pixel of the topography? You
will see nine points set by hand, which kind of transform they allow, how the
pictures themselves make them ten times better, and all spectra brought onto the
topography in one pass.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage, spatial

import spectral_tools as spt

# %%
# One surface, seen twice
# -----------------------
# Grains of different heights, and electrons with one state: the higher the
# grain, the higher its energy. A pixel of the map is as large as 3.3 of the topography,
# and shows the mean of what is there. The truth is an affine matrix.

rng = np.random.default_rng(8)
side, count, margin = 256, 64, 40
wide, middle = side + 2 * margin, np.array([132, 121])
drift = np.array([[3.4, 0.17, 0], [0.07, 3.25, 0], [0, 0, 1]])
truth = spt.translation(middle) @ spt.rotation(np.deg2rad(6)) @ drift
truth = truth @ spt.translation((-31.5, -31.5))

seeds = rng.uniform(0, wide, (260, 2))
pixels = np.stack(np.mgrid[0:wide, 0:wide], axis=-1)
grain = spatial.KDTree(seeds).query(pixels)[1]
surface = ndimage.gaussian_filter(rng.normal(size=len(seeds))[grain], 1.5)
surface += 0.2 * spt.gaussian_texture((wide, wide), cutoff=0.05, rng=rng)
topography = surface[margin:-margin, margin:-margin]
topography = topography + 0.1 * rng.normal(size=(side, side))

# %%
# Each pixel of the map is the mean of nine spectra.

bias = np.linspace(-1, 1, 60)


def density(heights):
    """Return how many states there are at each energy."""
    state = 0.3 * heights[..., np.newaxis]
    return 0.2 + 0.2 * bias**2 + np.exp(-(((bias - state) / 0.15) ** 2) / 2)


fine = np.stack(np.mgrid[0 : 3 * count, 0 : 3 * count], axis=-1) / 3 - 1 / 3
rows, cols = np.moveaxis(spt.apply_transform(truth, fine) + margin, -1, 0)
heights = ndimage.map_coordinates(surface, [rows, cols], order=3)
spectra = density(heights).reshape(count, 3, count, 3, -1).mean(axis=(1, 3))
spectra = (spectra + 0.15 * rng.normal(size=spectra.shape)).astype(np.float32)

# %%
# From a file, with its axes
# --------------------------
# Spectra on a grid of positions have a common format. What comes back is (row, col,
# energy), and knows where each of them lies.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "map.h5"
    spt.io.write_usid(
        path,
        spectra,
        quantity="dI/dV",
        units="nS",
        axes=["Y", "X", "Bias"],
        axis_units=["nm", "nm", "V"],
        axis_values=[0.33 * np.arange(count), 0.33 * np.arange(count), bias],
    )
    scan = spt.io.read_usid(path)

for name, unit, values in zip(
    scan.axes, scan.axis_units, scan.axis_values, strict=True
):
    print(
        f"{name:5} {len(values):3d} values, {values[0]:5.2f} to {values[-1]:5.2f} {unit}"
    )

# %%
# An image to look at is the sum over a window of energies. It is bright where the state
# lies in the window: high grains are dark and so are low ones, and no gain and offset
# makes one picture of the other.

energy = scan.axis_values[2]
window = np.abs(energy - 0.05) < 0.2
shown = scan.data[:, :, window].sum(axis=2)

fig, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
axes[0].imshow(topography, cmap="gray")
axes[0].set(title="Topography", xlabel="col", ylabel="row")
axes[1].imshow(shown, cmap="gray")
axes[1].set(title="Map, window of energies", xlabel="col", ylabel="row")
for height, colour in zip((-1.5, 0.2, 1.5), ("C0", "0.4", "C3"), strict=True):
    axes[2].plot(bias, density(np.array(height)), colour, label=f"height {height}")
axes[2].axvspan(*energy[window][[0, -1]], color="gold", alpha=0.3, label="window")
axes[2].set(title="Three heights", xlabel="bias (V)", ylabel="dI/dV (nS)")
axes[2].set(ylim=(0, 2.4))
axes[2].legend(fontsize=7, ncols=2)
plt.show()

# %%
# Nine points set by hand
# -----------------------
# Whoever looks long enough finds the same places in both. A hand is right to about
# three pixels of the topography, which is one of the map.

square = np.array([(row, col) for row in (70, 128, 186) for col in (70, 128, 186)])
points = square + rng.uniform(-15, 15, square.shape)
clicks = spt.apply_transform(truth, points, inverse=True)
clicks += rng.normal(size=clicks.shape) * 3 / 3.3

fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
spt.plot.points(topography, points, ax=axes[0]).set_title("Topography", loc="left")
spt.plot.points(shown, clicks, ax=axes[1]).set_title("Map", loc="left")
plt.show()

# %%
# Which transform?
# ----------------
# More freedom always brings the points nearer to each other. `leave one out` tells
# whether that foretells anything: how far each point is from where the other eight
# expect it. Stars are ties.

models = "similarity", "affine", "projective", "polynomial"
by_hand = spt.compare_transforms(points, clicks, models=models)
print(by_hand)

# %%
# The four outermost points and a projective transform seem perfect: nothing
# remains. Nothing has tested it either, and that is what its infinite error says.

corners = [0, 2, 6, 8]
four = spt.compare_transforms(points[corners], clicks[corners], models=models[:3])
print(four)

# %%
# The pictures know better
# ------------------------
# Where grains end is in both pictures, whichever is bright. Around each point that
# structure is matched, and the point on the map is moved to where it fits. What
# is left is less than a tenth, and each point says how far to trust it.

found = spt.refine_points(topography, shown, points, clicks, size=96, workers=2)
before = spt.apply_transform(truth, clicks) - points
after = spt.apply_transform(truth, found.moving_points) - points
bars = np.sqrt(np.trace(found.covariance, axis1=1, axis2=2))


def rms(errors):
    return np.sqrt((errors**2).sum(axis=1).mean())


print(f"set by hand  {rms(before):.2f} px")
print(f"refined      {rms(after):.2f} px")
print(f"foretold     {np.sqrt((bars**2).mean()):.2f} px")

fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
number = np.arange(len(points))
ax.semilogy(number, np.linalg.norm(before, axis=1), "o", label="set by hand")
ax.semilogy(number, np.linalg.norm(after, axis=1), "s", label="refined")
ax.semilogy(number, bars, "_", color="k", ms=22, label="standard error it states")
ax.set(title="Error of each point", xlabel="point", ylabel="px of the topography")
ax.set_xticks(number)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
# The same table with better points: the similarity is no longer a match for the affine
# matrix, because the shear is larger than the errors now.

refined = spt.compare_transforms(
    points, found.moving_points, models=models, covariance=found.covariance
)
print(refined)

# %%
# One transform for the whole map
# -------------------------------
# How far each is from the truth, all over the picture. The one of the four points was
# perfect where it was clicked.

fits = {
    "Projective, 4 by hand": spt.estimate_transform(
        points[corners], clicks[corners], model="projective"
    ),
    "Affine, 9 by hand": spt.estimate_transform(points, clicks),
    "Affine, 9 refined": spt.estimate_transform(
        points, found.moving_points, covariance=found.covariance
    ),
}
inside = np.stack(np.mgrid[0:count, 0:count], axis=-1)
errors = {
    name: np.linalg.norm(
        spt.apply_transform(fit, inside) - spt.apply_transform(truth, inside), axis=-1
    )
    for name, fit in fits.items()
}

fig, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for ax, (name, error) in zip(axes, errors.items(), strict=True):
    drawn = ax.imshow(error, vmin=0, vmax=8)
    ax.set_title(f"{name}\n{np.sqrt((error**2).mean()):.2f} px rms", size=10)
    ax.set(xlabel="col", ylabel="row")
fig.colorbar(drawn, ax=axes, label="error (px of topography)", extend="max")
plt.show()

# %%
# All spectra onto the topography
# -------------------------------
# The whole map is warped in one pass, all energies by the same weights. So each
# pixel of the topography now has a spectrum, and we may ask anything of it: here
# where its state lies.

cubes = {
    name: spt.warp_image(
        scan.data, fit, shape=topography.shape, channel_axis=2, fill_value=np.nan
    )
    for name, fit in fits.items()
}


def state(cube):
    """Return the centre of the peak: the mean energy above the background."""
    above = cube - 0.2 - 0.2 * energy**2
    return (above * energy).sum(axis=-1) / above.sum(axis=-1)


fig, axes = plt.subplots(1, 2, figsize=(8, 5), layout="constrained")
for ax, name in zip(axes, ("Affine, 9 by hand", "Affine, 9 refined"), strict=True):
    spt.plot.overlay(topography, state(cubes[name]), ax=ax).set_title(name, loc="left")
plt.show()
# sphinx_gallery_thumbnail_number = 5

# %%
# Which spectrum belongs to this pixel?
# -------------------------------------
# The same transform, the other way round: from a pixel of the topography to the place on
# the map, and to the spectrum that was measured there, which nothing has
# interpolated. Beside an edge three pixels matter: the points that were set by hand
# give the low grain the spectrum of the high one.

spots = np.array([(155, 96), (165, 101)])
fit, hand = fits["Affine, 9 refined"], fits["Affine, 9 by hand"]
taken = np.rint(spt.apply_transform(fit, spots, inverse=True)).astype(int)
mistaken = np.rint(spt.apply_transform(hand, spots, inverse=True)).astype(int)
for spot, right, wrong in zip(spots, taken, mistaken, strict=True):
    print(f"pixel {spot}: spectrum {right}; by hand {wrong}")

fig, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
axes[0].imshow(topography, cmap="gray")
axes[0].set(title="Two pixels", xlim=(66, 131), ylim=(190, 125))
axes[0].set(xlabel="col", ylabel="row")
colours = "C0", "C3"
for ax, at, title in ((axes[1], taken, "Refined"), (axes[2], mistaken, "By hand")):
    for colour, spot, place in zip(colours, spots, at, strict=True):
        axes[0].plot(*spot[::-1], "o", mec=colour, mfc="none", mew=2, ms=9)
        ax.plot(energy, scan.data[tuple(place)], ".", color=colour, ms=4)
        height = surface[tuple(spot + margin)]
        ax.plot(energy, density(height), color=colour, label=f"height {height:.1f}")
    ax.set(title=f"{title}, and the truth", xlabel="bias (V)", ylim=(-0.4, 2.3))
    ax.legend(fontsize=7, loc="upper left", ncols=2)
axes[1].set_ylabel("dI/dV (nS)")
plt.show()

# %%
# Where it fails
# --------------
# A window that is too small holds too few edges to be sure of, all the more with pixels
# as large as these. Such points are not refined, but they say so: their
# covariance is infinite, and the fit leaves them out.

small = spt.refine_points(
    topography, shown, points, clicks, size=40, iterations=1, workers=2
)
for size, answer in ((40, small), (96, found)):
    refused = np.isinf(answer.covariance[:, 0, 0])
    print(f"windows of {size} px: {np.count_nonzero(~refused)} of 9 points refined")

# %%
# What this page promised
# -----------------------

assert by_hand.tied[0]
assert refined.tied[1]
assert not refined.tied[0]
assert four.rms[2] < 1e-6
assert np.isinf(four.leave_one_out[2])
assert (found.outcome == "matched").all()
assert rms(after) < rms(before) / 10
assert 0.5 < rms(after) / np.sqrt((bars**2).mean()) < 2
assert errors["Affine, 9 refined"].max() < 1
assert errors["Affine, 9 refined"].mean() < errors["Affine, 9 by hand"].mean() / 5
assert np.isinf(small.covariance).any()
peaks = [energy[density(surface[tuple(spot + margin)]).argmax()] for spot in spots]
assert np.abs(state(scan.data[tuple(taken.T)]) - peaks).max() < 0.2
assert abs(state(scan.data[tuple(mistaken[0])]) - peaks[0]) > 0.5

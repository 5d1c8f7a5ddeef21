"""
What interpolation costs
========================

An image that is moved by a fraction of a pixel has to be guessed between its pixels. We
have scenes of which every point is known, from blurred to as fine as pixels can show,
and want to know what each way of guessing costs: in error, and in time. You will see
how far apart the ways are, what becomes of an image that is moved again and again, and
why matrices are put together first and images are resampled once.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import spectral_tools as spt

# %%
# Scenes that are known everywhere
# --------------------------------
# These scenes are periodic and have nothing finer than a cutoff, so that their Fourier
# series tells their exact value at any point. At a cutoff of 0.5 cycles per pixel,
# critical sampling, the finest waves have two pixels; a good microscope
# takes three or four.

ORDERS = (0, 1, 3, 5)
COLORS = dict(zip(ORDERS, ("#999999", "#D55E00", "#0072B2", "#009E73"), strict=True))
cutoffs = np.arange(0.10, 0.51, 0.05)
scenes = [spt.gaussian_texture((192, 192), cutoff=c, rng=4) for c in cutoffs]


def moved(scene, shift):
    """Return a periodic scene moved by its Fourier series."""
    row, col = (np.fft.fftfreq(n)[:, None] for n in scene.shape)
    waves = np.exp(-2j * np.pi * (row * shift[0] + col.T * shift[1]))
    return np.fft.ifft2(np.fft.fft2(scene) * waves).real


fig, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
for ax, k in zip(axes, (0, 3, 8), strict=True):
    ax.imshow(scenes[k][:64, :64], cmap="gray")
    ax.set(title=f"Cutoff {cutoffs[k]:.2f}", xlabel="col", ylabel="row")
plt.show()

# %%
# What is lost in one step
# ------------------------
# Half a pixel along both axes is the worst that can happen. What remains between truth
# and interpolation is drawn for a cutoff of 0.25, in colours that span a fifth of
# the standard deviation of the scene: for order 3 there is nothing to be seen.

inside = (slice(20, -20), slice(20, -20))  # borders have no neighbours beyond


def error(scene, shift, order):
    found = spt.warp_image(scene, spt.translation(shift), order=order)
    return found[inside] - moved(scene, shift)[inside]


fig, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for ax, order in zip(axes, (0, 1, 3), strict=True):
    lost = error(scenes[3], (0.5, 0.5), order)
    shown = ax.imshow(lost[:64, :64], cmap="PuOr", vmin=-0.1, vmax=0.1)
    title = f"Order {order}: {100 * lost.std():.2g} % off"
    ax.set(title=title, xlabel="col", ylabel="row")
fig.colorbar(shown, ax=axes, label="found less true (sd)", shrink=0.75)
plt.show()

# %%
# Error against fineness
# ----------------------
# Root mean square over 16 random shifts, in percent of the standard deviation of the
# scene. The more a scene is blurred, the more each order gains on the one before; at
# critical sampling no order makes up for detail that pixels can hardly hold.

rng = np.random.default_rng(5)
shifts = rng.uniform(0, 1, (16, 2))


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


errors = {
    order: np.array([
        100 * rms([error(scene, shift, order) for shift in shifts]) for scene in scenes
    ])
    for order in ORDERS
}  # fmt: skip
fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for order in ORDERS:
    ax.semilogy(
        cutoffs, errors[order], "o-", color=COLORS[order], label=f"order {order}"
    )
ax.set(title="Error of one resampling", xlabel="cutoff (cycles per pixel)")
ax.set(ylabel="error (% of sd)")
ax.legend()
plt.show()
# sphinx_gallery_thumbnail_number = 3

# %%
# Error against time
# ------------------
# The best of several runs on an image of a megapixel, for a translation and
# for a rotation. Higher orders need a pass over the image before they can interpolate,
# and then more neighbours; a translation is done axis by axis, a rotation is not.

large = spt.gaussian_texture((1024, 1024), rng=6).astype(np.float32)
motions = {
    "translation": spt.translation((0.4, 0.7)),
    "rotation": spt.rotation(0.1, center=(512, 512)),
}


def seconds(matrix, order):
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        spt.warp_image(large, matrix, order=order)
        spent.append(time.perf_counter() - start)
    return min(spent)


times = {
    name: np.array([1e9 * seconds(matrix, order) / large.size for order in ORDERS])
    for name, matrix in motions.items()
}
for name, row in times.items():
    listing = ", ".join(f"{o}: {one:.1f}" for o, one in zip(ORDERS, row, strict=True))
    print(f"{name:11} ns per pixel, by order: {listing}")

# %%
# What a nanosecond buys
# ----------------------
# Going from order 1 to order 3 takes a few times as long. Errors are ten times smaller
# at critical sampling, and about a hundred times where an image is sampled well.

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
spent = times["rotation"]
for k, style in ((3, "-"), (6, "--"), (8, ":")):
    found = [errors[order][k] for order in ORDERS]
    ax.semilogy(spent[1:], found[1:], style, color="gray", label=f"{cutoffs[k]:.2f}")
    ax.scatter(spent, found, c=list(COLORS.values()), zorder=3)
for order, one in zip(ORDERS, spent, strict=True):
    ax.annotate(f"order {order}", (one, errors[order][8]), xytext=(8, 4),
                textcoords="offset points", color=COLORS[order])  # fmt: skip
ax.set(title="Error and time of a rotation", xlabel="time (ns per pixel)")
ax.set(ylabel="error (% of sd)", xlim=(0, 1.2 * spent.max()), ylim=(None, 30))
ax.legend(title="cutoff", loc="lower left")
plt.show()

# %%
# Again and again
# ---------------
# Corrections come one after the other: a drift, a rotation, a place in the mosaic. Here
# a picture of tissue is turned by 30 degrees twelve times, which brings it back to where
# it was.

tissue = data.immunohistochemistry()[150:350, 150:350, 1].astype(float)
turn = spt.rotation(np.pi / 6, center=(99.5, 99.5))
rows, cols = np.indices(tissue.shape) - 99.5
disc = np.hypot(rows, cols) < 90  # what never leaves the picture
turned = {}
for order in ORDERS:
    turned[order] = tissue
    for _ in range(12):
        turned[order] = spt.warp_image(turned[order], turn, order=order)

fig, axes = plt.subplots(1, 5, figsize=(8, 2.2), layout="constrained", sharey=True)
views = {"Before": tissue} | {f"Order {order}": turned[order] for order in ORDERS}
for ax, (title, view) in zip(axes, views.items(), strict=True):
    ax.imshow(view[50:150, 50:150], cmap="gray", vmin=40, vmax=240)
    ax.set(title=title, xlabel="col")
axes[0].set_ylabel("row")
plt.show()

# %%
# Put the matrices together first
# -------------------------------
# Matrices multiply without any loss, and twelve turns are one matrix. The image is
# then resampled once, and the order hardly matters here, because it ends where it began.

whole = np.linalg.matrix_power(turn, 12)
for order in ORDERS:
    once = spt.warp_image(tissue, whole, order=order)
    one_by_one, together = (
        100 * rms((found - tissue)[disc]) / tissue[disc].std()
        for found in (turned[order], once)
    )
    print(f"order {order}: {one_by_one:5.1f} % off after twelve resamplings,"
          f" {together:.1g} % after one")  # fmt: skip

# %%
# How errors add up
# -----------------
# Random shifts, one after the other, on the scene with a cutoff of 0.35. Resampled each
# time, the scene loses its fine detail bit by bit; with the shifts added first, it
# stays at the error of one step.

steps = rng.uniform(-1, 1, (32, 2))
counts = (1, 2, 4, 8, 16, 32)
chains, singles = {}, {}
for order in (1, 3, 5):
    image, chains[order], singles[order] = scenes[5], [], []
    for k, step in enumerate(steps, start=1):
        image = spt.warp_image(image, spt.translation(step), order=order)
        if k in counts:
            total = steps[:k].sum(axis=0)
            middle = (slice(48, -48), slice(48, -48))
            truth = moved(scenes[5], total)[middle]
            once = spt.warp_image(scenes[5], spt.translation(total), order=order)
            chains[order].append(100 * rms(image[middle] - truth))
            singles[order].append(100 * rms(once[middle] - truth))

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for order in (1, 3, 5):
    ax.loglog(counts, chains[order], "o-", color=COLORS[order],
              label=f"order {order}, each step resampled")  # fmt: skip
    ax.loglog(counts, singles[order], ":", color=COLORS[order],
              label=f"order {order}, resampled once")  # fmt: skip
ax.set(title="Error of a chain of shifts", xlabel="shifts", ylabel="error (% of sd)")
ax.set(xticks=counts, xticklabels=counts)
ax.minorticks_off()
fig.legend(loc="outside lower center", ncols=3, fontsize=8)
plt.show()

# %%
# Where high orders fail: edges that no lens has seen
# ---------------------------------------------------
# Labels, saturated pixels and drawings have edges between two pixels. Splines take them
# for waves and ring: they leave the range of the values on both sides. Order 1
# never does, and order 0 makes no new values at all, which is what labels need.

edge = np.zeros((40, 40))
edge[:, 20:] = 1
fig, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
over = {}
for order in ORDERS:
    found = spt.warp_image(edge, spt.translation((0, 0.4)), order=order)[20, 5:35]
    over[order] = found.max() - 1
    ax.plot(range(5, 35), found, ".-", color=COLORS[order], label=f"order {order}")
ax.set(title="An edge moved by 0.4 pixels", xlabel="col", ylabel="value", xlim=(13, 27))
ax.legend()
plt.show()

# %%
# What this page promised
# -----------------------

for finer, coarser in ((1, 0), (3, 1), (5, 3)):
    assert (errors[finer] < errors[coarser]).all()
assert errors[1][3] > 50 * errors[3][3]
assert errors[1][8] > 5 * errors[3][8]
assert times["rotation"][2] > times["rotation"][1]
for order in (1, 3, 5):
    assert chains[order][-1] > 2 * chains[order][0]
    assert max(singles[order]) < 0.5 * chains[order][-1]
assert abs(over[0]) < 1e-12
assert over[1] < 1e-12
assert over[3] > 0.02
assert over[5] > over[3]

"""
Three tiles and a loop
======================

Each pair of overlapping pictures tells how far apart they are, with a small error.
From picture to picture these errors add up, and the way round does not end where it
began. We want places that all pairs can live with. You will see three pictures that
disagree, then 64, and what it is worth to ask every pair rather than just enough of
them.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Ellipse, Rectangle
from skimage import data

import spectral_tools as spt

# %%
# Three tiles with a known truth
# ------------------------------
# We cut three tiles out of a picture, so that each overlaps with both others, and add
# noise. The three pairs make a loop: from tile 0 to 1, on to 2, and back to 0.

rng = np.random.default_rng(11)
picture = data.camera()
truth, size = np.array([(40, 50), (70, 250), (220, 140)]), np.array((220, 240))
cut = [picture[row : row + size[0], col : col + size[1]] for row, col in truth]
tiles = [tile + rng.normal(0, 40, size) for tile in cut]

fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
axes[0].imshow(picture, cmap="gray", alpha=0.6)
axes[1].imshow(tiles[0], cmap="gray")
for ax, title in zip(axes, ("Three tiles make a loop", "Tile 0"), strict=True):
    ax.set(title=title, xlabel="col", ylabel="row")
middle = (truth + (size - 1) / 2)[:, ::-1]
arrow = {"arrowstyle": "-|>", "shrinkA": 14, "shrinkB": 14, "color": "#D55E00", "lw": 3}
for tile, place in enumerate(middle):
    corner = truth[tile, ::-1] - 0.5
    axes[0].add_patch(Rectangle(corner, *size[::-1], fill=False, ec="#0072B2", lw=2))
    axes[0].text(*place, tile, size=16, weight="bold", ha="center", va="center")
    axes[0].annotate("", middle[(tile + 1) % 3], place, arrowprops=arrow)
plt.show()

# %%
# Ask the three pairs
# -------------------
# Each pair tells the offset of its second tile from the first, and how well it knows.

links = [(0, 1), (1, 2), (2, 0)]
matches = spt.match_tiles(tiles, links, positions=truth, max_shift=20)
offsets = matches.reference_points - matches.moving_points
sigma = np.sqrt(np.diagonal(matches.covariance, axis1=1, axis2=2))
for (i, j), offset, error in zip(links, offsets, sigma, strict=True):
    print(f"from {i} to {j}: true ", (truth[j] - truth[i]).astype(float))
    print("             found", offset.round(2), "+-", error.round(2))

# %%
# The way round
# -------------
# The three true offsets add up to nothing. Those that were found do not: the loop
# does not close. To see that takes no truth. The error bars let us expect 1 sigma; much
# more would mean that one of the pairs is wrong.

points, trust = (matches.reference_points, matches.moving_points), matches.covariance
loop = spt.loop_closures(links, *points, covariance=trust)
print(
    "closing error", loop.error[0].round(2), "px, or", loop.sigma[0].round(2), "sigma"
)

# %%
# Share it out
# ------------
# There are two ways from tile 0 to tile 2, and two answers. Least squares takes the
# mean of both, and trusts each as much as its error bar allows. The mean is better
# known than either, and no other linear estimate is known better.

placed = spt.solve_rigid(links, *points, covariance=trust)
found = placed.matrices[:, :2, 2]
ways = {
    "by way of 1": (offsets[0] + offsets[1], trust[0] + trust[1]),
    "directly": (-offsets[2], trust[2]),
    "least squares": (found[2] - found[0], spt.offset_covariance(placed, [(0, 2)])[0]),
}
print("true         ", (truth[2] - truth[0]).astype(float))
for name, (offset, covariance) in ways.items():
    print(f"{name:13}", offset.round(2), "+-", np.sqrt(np.diag(covariance)).round(3))

# %%
# Three error bars
# ----------------
# Each ellipse (1.5 standard deviations) should hold the truth two times out of three.

colours = "#CC79A7", "#D55E00", "#0072B2"
fig, ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
for (name, (offset, covariance)), colour in zip(ways.items(), colours, strict=True):
    miss = (offset - (truth[2] - truth[0]))[::-1]
    variance, directions = np.linalg.eigh(covariance[::-1, ::-1])
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    across, along = 2 * 1.5 * np.sqrt(variance)
    ax.add_patch(Ellipse(miss, along, across, angle=angle, fc=colour, alpha=0.25))
    ax.plot(*miss, "o", color=colour, mec="white", ms=8, label=name)
ax.plot(0, 0, "k+", ms=14, mew=2, label="true")
ax.set(title="Where tile 2 is, seen from tile 0", aspect="equal")
ax.set(xlabel="col error (px)", ylabel="row error (px)")
ax.set(xlim=(-0.18, 0.4), ylim=(0.18, -0.38))
ax.legend()
plt.show()

# %%
# Sixty-four tiles
# ----------------
# Now a grid of 8 by 8 tiles, taken row by row, turning round at the end of each. Every
# tile overlaps with the one before it: these 63 pairs are a chain, enough to place
# everything. But there are 112 pairs of neighbours, and we ask them all.

visit = np.arange(64).reshape(8, 8)
visit[1::2] = visit[1::2, ::-1].copy()
visit = visit.ravel()
scene = spt.gaussian_texture((1000, 1000), rng=1)
camera = {"stage_sigma": 3, "noise_sigma": 0.6}
made = spt.simulate_tiles(scene, (8, 8), (128, 128), overlap=0.2, rng=8, **camera)
tiles, stage, truth = made.tiles[visit], made.stage[visit], made.positions[visit]

links = spt.grid_links((8, 8), order="snake")
matches = spt.match_tiles(tiles, links, positions=stage, max_shift=15)
in_chain = links[:, 1] - links[:, 0] == 1
print(in_chain.sum(), "pairs in the chain, of", len(links))

# %%
# Errors along the chain
# ----------------------
# In the chain each pair moves all tiles that come after it: the error is a random
# walk. Least squares has many ways to each tile. The bands are one standard deviation
# to both sides, as the pairs predict it without the truth.

points, trust = (matches.reference_points, matches.moving_points), matches.covariance


def place(which):
    chosen = (each[which] for each in (links, *points))
    return spt.solve_rigid(*chosen, covariance=trust[which], fixed=0)


placed = {"chain": place(in_chain), "least squares": place(slice(None))}
error = {name: p.matrices[:, :2, 2] - truth + truth[0] for name, p in placed.items()}

fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
for ax, name in zip(axes, placed, strict=True):
    variance = spt.position_covariance(placed[name])
    for axis, colour in enumerate(("#0072B2", "#D55E00")):
        band = np.sqrt(variance[:, axis, axis])
        ax.fill_between(range(64), -band, band, color=colour, alpha=0.15, lw=0)
        ax.plot(error[name][:, axis], color=colour, label=("row", "col")[axis])
    ax.axhline(0, color="k", lw=0.8)
    ax.set(title=name.capitalize(), xlabel="steps along the chain", xlim=(0, 63))
axes[0].set(ylabel="error, from tile 0 (px)")
axes[0].legend(loc="lower left")
plt.show()

# %%
# Loops of the grid
# -----------------
# Each four neighbours make a loop. These close somewhat better than by 1 sigma: where
# four tiles share a corner, the pairs also share its noise.

loops = spt.loop_closures(links, *points, covariance=trust)
print(len(loops.loops), "loops")
print("closing error", np.sqrt(np.mean(loops.error**2)).round(2), "px rms, or", end=" ")
print(np.sqrt(np.mean(loops.sigma**2)).round(2), "sigma rms")

# %%
# What becomes of the seams
# -------------------------
# A mosaic looks good if neighbours fit. In the chain, tiles that are above each other
# may be 15 steps apart, and there it breaks.

miss = {name: each[links[:, 1]] - each[links[:, 0]] for name, each in error.items()}
ends = (truth + 63.5)[links][:, :, ::-1]
fig, axes = plt.subplots(1, 2, figsize=(8, 4), sharey=True, layout="constrained")
for ax, name in zip(axes, miss, strict=True):
    lines = LineCollection(ends, array=np.hypot(*miss[name].T), cmap="cividis_r", lw=7)
    lines.set(clim=(0, 0.8), capstyle="butt")
    ax.add_collection(lines)
    ax.plot(*(truth + 63.5).T[::-1], "s", color="0.8", ms=9)
    ax.set(title=name.capitalize(), xlabel="col", aspect="equal")
axes[0].set(ylabel="row")
axes[0].invert_yaxis()
fig.colorbar(lines, ax=axes, label="seam off by (px)", shrink=0.75, extend="max")
plt.show()
# sphinx_gallery_thumbnail_number = 4

# %%
# The limit
# ---------
# N tiles and E pairs: of the errors of the pairs, least squares leaves
# :math:`\sqrt{(N - 1) / E}` at the seams, rms, whatever the errors and the grid. No
# linear estimate leaves less, if errors are independent. A chain
# keeps all of the error where it passes, and much more where it does not.

weight = np.linalg.inv(trust)
print("least possible", np.sqrt(63 / len(links)).round(2), "sigma rms")
rms = {}
for name in placed:
    told = spt.offset_covariance(placed[name], links)
    told = np.sqrt(np.einsum("lab,lba->l", weight, told).mean() / 2)
    square = np.einsum("la,lab,lb->l", miss[name], weight, miss[name])
    rms[name] = told, np.sqrt(square.mean() / 2)
    print(f"{name:14} predicted {told:.2f}, actual {rms[name][1]:.2f}")

# %%
# The larger the grid
# -------------------
# To predict errors takes no images. Let every pair know its offset to 0.1 px. Seen from
# the first tile, the error of the worst one grows like the side of the grid along one
# chain, and like its root if the chain goes down the first column and branches into
# the rows. That of least squares hardly grows.


def worst(pairs):
    nothing = np.zeros((len(pairs), 2))
    claim = {"covariance": 0.1**2 * np.eye(2), "fixed": 0}
    return spt.position_covariance(spt.solve_rigid(pairs, nothing, nothing, **claim))


sides = np.array((2, 4, 8, 16, 32))
pairs = {"one chain": [], "column, then rows": [], "least squares": []}
for side in sides:
    snake = spt.grid_links((side, side), order="snake")
    every = spt.grid_links((side, side))
    branch = (np.diff(every)[:, 0] == 1) | (every[:, 0] % side == 0)
    for name, some in zip(
        pairs, (snake[np.diff(snake)[:, 0] == 1], every[branch], every), strict=True
    ):
        pairs[name].append(np.sqrt(worst(some).max()))

fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, values), colour in zip(pairs.items(), colours, strict=True):
    ax.loglog(sides, values, "o-", color=colour, lw=2)
    ax.annotate(name, (36, values[-1]), color=colour, va="center")
ax.minorticks_off()
ax.set(title="Standard error of the worst tile", xlim=(1.8, 110), ylim=(0.08, 4))
ax.set(xlabel="tiles along each side", ylabel="error, from tile 0 (px)")
ax.set(xticks=sides, xticklabels=sides)
ax.set(yticks=(0.1, 0.3, 1, 3), yticklabels=(0.1, 0.3, 1, 3))
plt.show()

# %%
# Where it fails
# --------------
# An error that all pairs make alike cancels around each loop. Let every pair of tiles
# side by side claim 0.2 px too much, as a lens that distorts could do. All loops close
# as well as before, the seams look as good, but the grid gets too wide.

column = made.grid[visit, 1]
extra = 0.2 * np.diff(column[links]) * (0, 1)
points = matches.reference_points + extra, matches.moving_points
same = spt.loop_closures(links, *points, covariance=trust)
wide = spt.solve_rigid(links, *points, covariance=trust, fixed=0)
best = placed["least squares"]
wider = np.ptp(wide.matrices[:, 1, 2] - best.matrices[:, 1, 2])
print("closing error", np.sqrt(np.mean(same.sigma**2)).round(2), "sigma rms")
print("seams before ", np.sqrt(np.mean(best.residuals**2)).round(3), "px rms")
print("seams now    ", np.sqrt(np.mean(wide.residuals**2)).round(3), "px rms")
print("wider by     ", wider.round(2), "px")

# %%
# What this page promised
# -----------------------

assert loop.sigma[0] < 3
assert (matches.outcome == spt.Outcome.MATCHED).all()
assert abs(rms["least squares"][0] - np.sqrt(63 / 112)) < 1e-6
assert rms["least squares"][1] < 1.2 * np.sqrt(63 / 112)
assert rms["chain"][1] > 1.5 * rms["least squares"][1]
assert pairs["least squares"][-1] < 0.1 * pairs["one chain"][-1]
assert np.abs(same.sigma - loops.sigma).max() < 1e-6
assert abs(wider - 7 * 0.2) < 0.01

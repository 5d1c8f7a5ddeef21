"""
When tissue bends
=================

A section shrinks here and stretches there as it dries; a living sample creeps between
two frames. No shift and no matrix brings two such pictures onto each other: what is
needed is a displacement for each pixel. We want that field, want to know how far it
can be trusted, and want it to leave alone what has no counterpart at all. In the end a
movie that swells and a whole stack of bent sections are brought to rest.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import spectral_tools as spt

# %%
# Two pictures, with a known bend
# -------------------------------
# Both show the same tissue, which is bent by up to 6 pixels over 200. Where a fold
# has torn the reference, it shows something else.

rng = np.random.default_rng(4)
side = 256
pixels = np.moveaxis(np.indices((side, side), dtype=float), 0, -1)
k = 2 * np.pi / 200
rows, cols = k * pixels[..., 0], k * pixels[..., 1]
truth = 6 * np.stack([np.sin(cols + 0.5) * np.cos(rows / 2), np.cos(rows)], axis=-1)
scene = spt.gaussian_texture((2 * side, 2 * side), cutoff=0.25, rng=rng)
where = np.moveaxis(pixels - truth + side / 2, -1, 0)
reference = ndimage.map_coordinates(scene, where, order=5)
moving = scene[128:384, 128:384] + 0.1 * rng.normal(size=(side, side))
torn = (slice(150, 215), slice(40, 105))
reference[torn] = spt.gaussian_texture((65, 65), cutoff=0.25, rng=rng)
reference += 0.1 * rng.normal(size=(side, side))


def overlay(ax, first, second, title):
    both = np.clip(0.5 + np.stack([first, second, first], axis=-1) / 5, 0, 1)
    ax.imshow(both)
    ax.set(title=title, xlabel="col", ylabel="row")


fig, ax = plt.subplots(figsize=(5, 4.6), layout="constrained")
overlay(ax, reference, moving, "Reference in magenta, moving in green")
plt.show()

# %%
# Match windows on a grid
# -----------------------
# Each window says how far the middle of it has moved, and how well it knows. Windows
# are searched, the picture is bent by what they say, and what they still miss by is
# found, so that bending does not blur the answer.

matches = spt.match_grid(reference, moving, size=48)
points = matches.reference_points.reshape(-1, 2)
partners = matches.moving_points.reshape(-1, 2)
covariance = matches.covariance.reshape(-1, 2, 2)
found = np.isfinite(covariance).all(axis=(1, 2))
print(found.sum(), "of", len(points), "points are found")

# %%
# Each arrow leads from where a thing lies in the moving image to where it lies in the
# reference, three times as long; error bars are magnified 100 times. Crosses mark what
# was refused: they are where the reference is torn.

fig, ax = plt.subplots(figsize=(6, 5.4), layout="constrained")
ax.imshow(reference, cmap="gray", alpha=0.5)
start, step = partners[found], (points - partners)[found]
ax.quiver(
    *start.T[::-1], *step.T[::-1], angles="xy", scale_units="xy", scale=1 / 3,
    color="C0", width=0.006,
)  # fmt: skip
bars = 100 * np.sqrt(covariance[found][:, [0, 1], [0, 1]])
ax.errorbar(
    *points[found].T[::-1], xerr=bars[:, 1], yerr=bars[:, 0],
    fmt="none", ecolor="C1", elinewidth=1,
)  # fmt: skip
ax.plot(*points[~found].T[::-1], "x", color="C3", markersize=8, markeredgewidth=2)
ax.set(
    title="Displacements x 3, errors x 100, and refusals", xlabel="col", ylabel="row"
)
ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
plt.show()

# %%
# A field through the points
# --------------------------
# The field is as smooth as the points say. It believes points by their covariances and
# has error bars of its own: they grow towards the borders and in the tear.

fit = spt.fit_displacement(
    points, partners, reference.shape, covariance=covariance, window=48
)
error = np.linalg.norm(fit.displacement - truth, axis=-1)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained", sharey=True)
for ax, values, title in (
    (axes[0], error, "Error of the field"),
    (axes[1], fit.sigma * np.sqrt(2), "What it is expected to be"),
):
    shown = ax.imshow(values, vmin=0, vmax=0.3, cmap="magma")
    ax.set(title=title, xlabel="col", ylabel="row")
fig.colorbar(shown, ax=axes, label="px", extend="max")
plt.show()

inside = np.zeros((side, side), np.bool_)
inside[24:-24, 24:-24] = True
inside[120:245, 10:135] = False
rms = np.sqrt(((fit.displacement - truth)[inside] ** 2).mean())
print(f"bent by     {np.sqrt((truth[inside] ** 2).mean()):.3f} px")
print(f"field wrong {rms:.3f} px")

# %%
# What the field does to a sheet of graph paper
# ---------------------------------------------
# The determinant of the Jacobian says by how much an area changes. It is positive
# everywhere: nothing folds.

area = spt.jacobian_determinant(fit.displacement)
paper = pixels - fit.displacement
fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
limit = np.abs(area - 1).max()
shown = ax.imshow(area, cmap="RdBu_r", vmin=1 - limit, vmax=1 + limit)
for line in range(0, side, 16):
    ax.plot(paper[line, :, 1], paper[line, :, 0], "k", linewidth=0.6)
    ax.plot(paper[:, line, 1], paper[:, line, 0], "k", linewidth=0.6)
ax.set(title="Lines of the reference in the moving image", xlabel="col", ylabel="row")
fig.colorbar(shown, ax=ax, label="area of a pixel there")
plt.show()

# %%
# Before and after
# ----------------
# The field goes to `warp_image` as it is. What is left is noise, and the tear.

straight = spt.warp_image(moving, np.eye(3), displacement=fit.displacement, order=3)
fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for ax, image, title in (
    (axes[0], moving, "Difference before"),
    (axes[1], straight, "Difference after"),
):
    ax.imshow(image - reference, cmap="gray", vmin=-1.5, vmax=1.5)
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# A movie that shakes and swells
# ------------------------------
# Living tissue does both: each frame moves as a whole, and bends a little beside. Four
# frames, whose motion we know at each of their pixels.

chance = np.random.default_rng(8)
spots = np.moveaxis(np.indices((128, 128), dtype=float), 0, -1)
swell = np.stack([np.sin(spots[..., 1] / 40), np.cos(spots[..., 0] / 40)], axis=-1)
shake = chance.normal(scale=2, size=(4, 1, 1, 2))
flow = shake + np.reshape((0, 3, -2, -3), (4, 1, 1, 1)) * swell
tissue = spt.gaussian_texture((176, 176), cutoff=0.25, rng=chance)
movie = np.array(
    [
        ndimage.map_coordinates(tissue, np.moveaxis(spots + 24 + part, -1, 0), order=5)
        for part in flow
    ]
)
movie += 0.2 * chance.normal(size=movie.shape)

# %%
# The shifts come from the series. What is left is matched in windows and bent back,
# frame by frame.

shifts = spt.align_series(movie, reference="first").shifts
still = spt.apply_shifts(movie, shifts, fill_value=np.nan)
fields, calm = [np.zeros((128, 128, 2))], [still[0]]
for frame in still[1:]:
    near = spt.match_grid(still[0], frame, size=48, spacing=32, max_shift=8)
    pairs = near.reference_points.reshape(-1, 2), near.moving_points.reshape(-1, 2)
    spread = near.covariance.reshape(-1, 2, 2)
    field = spt.fit_displacement(*pairs, (128, 128), covariance=spread, window=48)
    fields.append(field.displacement)
    calm.append(spt.warp_image(frame, np.eye(3), displacement=fields[-1], order=3))

# %%
# How much do frames deviate from each other? Shifts alone leave the swelling, fields
# leave the noise.

middle = slice(16, -16), slice(16, -16)
fig, axes = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained", sharey=True)
for ax, frames, title in zip(
    axes, (movie, still, calm), ("As it is", "Shifted", "Shifted, bent"), strict=True
):
    shown = ax.imshow(np.std(frames, axis=0)[middle], vmin=0, vmax=1, cmap="magma")
    ax.set(title=title, xlabel="col", ylabel="row")
fig.colorbar(shown, ax=axes, label="deviation, grey values")
plt.show()

miss = []
for shift, field, part in zip(shifts, fields, flow, strict=True):
    # Where the frame shows what lies on each pixel of the first one, and its motion there.
    place = np.moveaxis(spots - shift - field, -1, 0)
    moved = [
        ndimage.map_coordinates(each, place, mode="nearest")
        for each in np.moveaxis(part, -1, 0)
    ]
    true = np.stack(moved, axis=-1) - shake[0]
    miss.append([(shift - true)[middle], (shift + field - true)[middle]])
whole, bent = np.sqrt(np.square(miss[1:]).mean(axis=(0, 2, 3, 4)))
print(f"shifts alone are wrong by {whole:.3f} px")
print(f"with fields it is         {bent:.3f} px")

# %%
# A stack of bent sections
# ------------------------
# Eight sections, each bent in its own way. From what neighbours and second neighbours
# say we make points as above, with errors of 0.1 pixels.

count, room = 8, (160, 160)
turn = rng.uniform(0, 2 * np.pi, (count, 4))
waves = np.stack([np.cos(turn), np.sin(turn)], -1)
waves *= 2 * np.pi / rng.uniform(150, 300, (count, 4, 1))
heights = 2 * rng.normal(size=(count, 4, 2))


def bend(section, where):
    return np.cos(where @ waves[section].T + turn[section]) @ heights[section]


grid = np.stack(np.mgrid[10:160:20, 10:160:20], axis=-1).reshape(-1, 2)
links, first, second = [], [], []
for i, j in [(i, i + k) for i in range(count) for k in (1, 2) if i + k < count]:
    links += [(i, j)] * len(grid)
    first.append(grid - bend(i, grid))
    second.append(grid - bend(j, grid) + 0.1 * rng.normal(size=grid.shape))
links, first, second = np.array(links), np.vstack(first), np.vstack(second)
relaxed = spt.relax_meshes(links, first, second, room, covariance=0.01 * np.eye(2))
print("least area of a pixel", relaxed.minimum_jacobian.min().round(2))

# %%
# To lay each section on the one before it is the plain way. Their fields are put one
# after the other, and so are their errors.

where = np.moveaxis(np.indices(room, dtype=float), 0, -1)
at, chain = where, [np.zeros((*room, 2))]
for section in range(1, count):
    mine = (links == (section - 1, section)).all(axis=1)
    step = spt.fit_displacement(
        first[mine], second[mine], room, covariance=0.01 * np.eye(2), robust=False
    ).displacement
    parts = [
        ndimage.map_coordinates(part, np.moveaxis(at, -1, 0), order=3, mode="nearest")
        for part in np.moveaxis(step, -1, 0)
    ]
    at = at - np.stack(parts, axis=-1)
    chain.append(where - at)


# %%
# What lies on one pixel in all sections should be one thing. We ask the truth where it
# is, and how far that is from the thing in the first section. What all sections have
# in common nobody can know.


def drift_of(fields):
    places = []
    for section, field in enumerate(fields):
        place = shown = (where - field)[16:-16, 16:-16]
        for _ in range(40):
            place = shown + bend(section, place)
        places.append(place)
    apart = np.array(places) - places[0]
    return np.sqrt((apart**2).mean(axis=(1, 2, 3)))


drift = drift_of(chain), drift_of(relaxed.displacement)
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.plot(drift[0], "o-", color="C1", label="chain of pairs")
ax.plot(drift[1], "o-", color="C0", label="relaxed together")
ax.set(title="Distance from the first section", xlabel="section", ylabel="px")
ax.set_ylim(0)
ax.legend()
plt.show()
print("last section, chain  ", drift[0][-1].round(3), "px")
print("last section, relaxed", drift[1][-1].round(3), "px")

# %%
# What this page has shown
# ------------------------

assert rms < 0.05
assert not found[((points > (165, 55)) & (points < (200, 90))).all(axis=1)].any()
assert fit.minimum_jacobian > 0.7
assert bent < 0.2 * whole
assert drift[1][-1] < drift[0][-1]

# sphinx_gallery_thumbnail_number = 2

r"""
What the lens does
==================

A microscope took twelve tiles through a lens that bends every one of them in the same
way, by four rows and four columns in the corners. Wherever two tiles overlap, the right side of the one
lies on the left side of the other, and no shift brings them together all along the seam.
You will see what is left over when tiles are only moved, how the seams themselves tell
what the lens does, and what remains when it is taken out.

What a tile recorded at :math:`p` belongs at :math:`p + P(p)`, with one field :math:`P`
for all tiles. A point of the scene that tile :math:`i` shows at :math:`a` and tile
:math:`j` at :math:`b` then gives

.. math:: t_i + a + P(a) = t_j + b + P(b),

which is linear in the positions :math:`t` and in the coefficients of :math:`P`: many
such points, along all overlaps, give both (Kaynig et al. 2010,
:doi:`10.1016/j.jsb.2010.04.012`).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import spectral_tools as spt

# %%
# Twelve bent tiles with a known truth
# ------------------------------------
# Fibres run where a smooth random scene crosses zero. The lens pulls points towards the
# middle, the more the farther out they lie (barrel distortion), and the stage misses by
# some pixels.

rng = np.random.default_rng(7)
grid, size, step = (3, 4), 400, 336
scene_shape = (1140, 1480)
coarse = spt.gaussian_texture(scene_shape, cutoff=0.07, rng=rng)
grain = spt.gaussian_texture(scene_shape, cutoff=0.3, slope=1, rng=rng)
scene = 150 - 90 * np.exp(-((coarse / 0.15) ** 2)) + 12 * grain
smooth = ndimage.spline_filter(scene)

stage = spt.grid_positions(grid, (size, size), overlap=1 - step / size) + 25
truth = stage + rng.normal(0, 3, stage.shape)
pixels = np.moveaxis(np.indices((size, size), float), 0, -1)


def lens(points):
    """Return how far recorded points have to be moved."""
    away = 2 * (points + 0.5) / size - 1
    return 2.0 * away * np.sum(away**2, axis=-1, keepdims=True)


def take(place):
    where = np.moveaxis(place + pixels + lens(pixels), -1, 0)
    picture = ndimage.map_coordinates(smooth, where, prefilter=False)
    return picture + rng.normal(0, 6, picture.shape)


tiles = [take(place) for place in truth]

# %%
# Only moved
# ----------
# All neighbours are found, and all tiles placed. The report knows that something is
# wrong: parts of one overlap contradict each other.

links = spt.grid_links(grid)
placed = spt.place_tiles(tiles, positions=stage, max_shift=20)
places = placed.matrices[:, :2, 2]
print(spt.placement_report(placed))

# %%
# Nine windows along each overlap
# -------------------------------
# From the place of the whole overlap, windows of 56 pixels find where they fit best.

along = np.linspace(28, size - 29, 9)


def windows(i, j):
    low = np.maximum(places[i], places[j])
    high = np.minimum(places[i], places[j]) + size - 1
    middle = np.repeat([(low + high) / 2], len(along), axis=0)
    long = np.argmax(high - low)
    middle[:, long] = places[i, long] + along
    return spt.refine_pair(
        tiles[i], tiles[j], middle - places[i], middle - places[j], size=56
    )


found = [windows(i, j) for i, j in links]
good = np.concatenate([one.outcome == "matched" for one in found])
pairs = np.repeat(links, len(along), axis=0)[good]
reference = np.concatenate([one.reference_points for one in found])[good]
moving = np.concatenate([one.moving_points for one in found])[good]
covariance = np.concatenate([one.covariance for one in found])[good]
print(f"{good.sum()} of {len(good)} windows were found")

# %%
# One field for all tiles
# -----------------------
# The same points are solved for twice: by positions alone, and by positions with a field
# that all tiles share. Which degree the field needs is told by windows that the fit has
# not seen.

moved = spt.solve_rigid(pairs, reference, moving, covariance=covariance, robust=False)
fit = spt.solve_distortion(
    pairs, reference, moving, shape=(size, size), covariance=covariance
)
for degree, error in fit.heldout_error:
    chosen = "  <- chosen" if degree == fit.degree else ""
    print(f"degree {degree:.0f} misses unseen windows by {error:.3f} px{chosen}")

# %%
# What is left over, on the tile
# ------------------------------
# Each arrow is a window, drawn where the reference tile saw it. All overlaps are laid on
# one tile: without the lens they draw its portrait, with it chance is left.

fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
for ax, solution, enlarged in ((axes[0], moved, 25), (axes[1], fit.placement, 100)):
    left = solution.residuals
    drawn = ax.quiver(
        *reference.T[::-1], *left.T[::-1], angles="xy", scale_units="xy",
        scale=1 / enlarged, width=0.004, color="tab:blue",
    )  # fmt: skip
    length = 50 / enlarged
    ax.quiverkey(drawn, 0.5, 0.5, length, f"{length:g} px", labelpos="S")
    rms = np.sqrt(np.mean(np.sum(left**2, axis=1)))
    ax.set(xlim=(-12, size + 12), ylim=(size + 12, -12), aspect="equal")
    ax.set(title=f"{rms:.2f} px rms, {enlarged} times enlarged", xlabel="col")
axes[0].set(ylabel="row")
fig.suptitle("Tiles only moved (left), and with the lens (right)")
plt.show()
# sphinx_gallery_thumbnail_number = 1

# %%
# The field beside the truth
# --------------------------
# ``displacement`` says where a pixel of the corrected tile comes from. A lens that
# magnifies looks like a stage that steps farther, and so does all that is the same along
# an overlap: powers of the row alone, or of the column alone. The seams hardly tell them,
# and found and true are compared without.


def bent_only(field):
    powers = [pixels.reshape(-1, 2) ** power for power in (1, 2, 3)]
    design = np.column_stack([np.ones(size**2), *powers]) / float(size) ** 3
    flat = field.reshape(-1, 2)
    return (flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]).reshape(
        field.shape
    )


true_field = np.zeros_like(pixels)
for _ in range(20):
    true_field = lens(pixels - true_field)
error = np.linalg.norm(bent_only(fit.displacement) - bent_only(true_field), axis=-1)
border = (pixels.min(axis=-1) < size - step) | (pixels.max(axis=-1) >= step)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
thin = (slice(8, None, 32),) * 2
field = bent_only(fit.displacement)[thin]
axes[0].quiver(
    *np.moveaxis(pixels[thin], -1, 0)[::-1], *np.moveaxis(field, -1, 0)[::-1],
    angles="xy", scale_units="xy", scale=0.04, width=0.004, color="tab:blue",
)  # fmt: skip
axes[0].set(title="The lens, 25 times enlarged", xlabel="col", ylabel="row")
axes[0].set(xlim=(0, size), ylim=(size, 0), aspect="equal")
shown = axes[1].imshow(error, cmap="viridis", vmin=0)
fig.colorbar(shown, label="error (px)")
axes[1].set(title="Found less true", xlabel="col")
plt.show()

# %%
# Render
# ------
# Each tile is corrected by the field, and laid where it belongs. The mean of all tiles
# hides nothing: where four corners meet, the lens draws fibres side by side.

corrected = [
    spt.warp_image(
        tile, np.eye(3), displacement=fit.displacement, order=3, fill_value=np.nan
    )
    for tile in tiles
]
look = {"blend": "mean", "fill_value": np.nan}
before = spt.warp_composite(tiles, moved.matrices, **look)
after = spt.warp_composite(corrected, fit.placement.matrices, **look)

fig, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
shots = (before, moved, "Tiles only moved"), (after, fit.placement, "With the lens")
for ax, (mosaic, solution, title) in zip(axes, shots, strict=True):
    row, col = solution.matrices[6, :2, 2] - mosaic.origin
    ax.imshow(mosaic.image, cmap="gray", vmin=40, vmax=180)
    ax.set(title=title, xlim=(col - 10, col + 90), ylim=(row + 90, row - 10))
    ax.set_axis_off()
plt.show()

# %%
# Where it fails
# --------------
# Two tiles side by side see one strip of the lens. What bends along the strip is told;
# what bends across it is not, and stays small instead of being guessed.

two = (pairs == (5, 6)).all(axis=1)
poor = spt.solve_distortion(
    pairs[two], reference[two], moving[two], shape=(size, size),
    covariance=covariance[two],
)  # fmt: skip
print("two tiles: degree", poor.degree, "- not enough windows for more than a guess")

# %%
# What this page promised
# -----------------------

left = np.sqrt(np.mean(np.sum(moved.residuals**2, axis=1)))
kept = np.sqrt(np.mean(np.sum(fit.placement.residuals**2, axis=1)))
assert left > 4 * kept
assert kept < 0.25
assert fit.degree == 3
assert fit.placement.inlier.mean() > 0.98
assert np.sqrt(np.mean(error[border] ** 2)) < 0.05

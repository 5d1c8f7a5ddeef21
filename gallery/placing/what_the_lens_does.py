r"""
What the lens does
==================

A microscope took twelve tiles through a lens that bends every one of them in the same
way. Wherever two tiles overlap, the right side of the one lies on the left side of the
other, and no shift brings them together all along the seam. You will see how the report
knows, how the seams themselves tell what the lens does, and what remains when it is
taken out.

What a tile recorded at :math:`p` belongs at :math:`p + P(p)`, with one field :math:`P`
for all tiles. A point of the scene that tile :math:`i` shows at :math:`a` and tile
:math:`j` at :math:`b` then gives

.. math:: t_i + a + P(a) = t_j + b + P(b),

which is linear in the positions :math:`t` and in the coefficients of :math:`P`: many
such points, along all overlaps, give both (Kaynig et al. 2010,
:doi:`10.1016/j.jsb.2010.04.012`).
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import spectral_tools as spt

# %%
# Twelve bent tiles with a known truth
# ------------------------------------
# Fibres run where a smooth random scene crosses zero. The lens pulls points towards the
# middle, the more the farther out they lie (barrel distortion): by 10 pixels in the
# corners. The stage misses by some pixels more.

rng = np.random.default_rng(7)
shape, scene_shape = (400, 400), (1180, 1520)
coarse = spt.gaussian_texture(scene_shape, cutoff=0.07, rng=rng)
grain = spt.gaussian_texture(scene_shape, cutoff=0.3, slope=1, rng=rng)
scene = 150 - 90 * np.exp(-((coarse / 0.07) ** 2)) + 12 * grain

away = 2 * (np.moveaxis(np.indices(shape), 0, -1) + 0.5) / shape - 1
lens = 3.5 * away * np.sum(away**2, axis=-1, keepdims=True)
made = spt.simulate_tiles(
    scene, (3, 4), shape, overlap=0.16, stage_sigma=3, noise_sigma=6, distortion=lens,
    rng=rng,
)  # fmt: skip

# %%
# Only moved
# ----------
# All neighbours are found, and all tiles placed. But the parts of one overlap contradict
# each other by far more than their error bars, and the report says what that means.

moved = spt.place_tiles(made.tiles, positions=made.stage)
report = str(spt.placement_report(moved))
print(report)

# %%
# With the lens
# -------------
# ``distortion`` asks for the field as well. Each overlap is cut into windows, which are
# followed from the shift of the whole outwards; positions and coefficients come from one
# least squares. Which degree the field needs is told by windows that the fit has not seen.

placed = spt.place_tiles(made.tiles, positions=made.stage, distortion="polynomial")
for degree, error in placed.distortion.heldout_error:
    chosen = "  <- chosen" if degree == placed.distortion.degree else ""
    print(f"degree {degree:.0f} misses unseen windows by {error:.3f} px{chosen}")

# %%
# What is left over, on the tile
# ------------------------------
# All overlaps are laid on one tile. Each arrow says where the tile would have to move a
# window to meet its neighbour half-way. Without the lens they draw its portrait; with it,
# chance is left.

fig, axes = plt.subplots(1, 2, figsize=(9, 5.2), layout="constrained")
spt.plot.seams(placed, corrected=False, ax=axes[0])
spt.plot.seams(placed, ax=axes[1])
plt.show()
# sphinx_gallery_thumbnail_number = 1

# %%
# Render
# ------
# The field is undone in the same interpolation that lays the tiles where they belong. The
# mean of all tiles hides nothing: where four corners meet, the lens draws fibres side by
# side.

look = {"blend": "mean", "order": 3, "fill_value": np.nan}
before = spt.warp_composite(made.tiles, moved.matrices, **look)
after = spt.warp_composite(
    made.tiles, placed.matrices, displacement=placed.displacement, **look
)

fig, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
shots = (before, moved, "Tiles only moved"), (after, placed, "With the lens")
for ax, (mosaic, solution, title) in zip(axes, shots, strict=True):
    row, col = solution.matrices[6, :2, 2] - mosaic.origin
    ax.imshow(mosaic.image, cmap="gray", vmin=40, vmax=180)
    ax.set(title=title, xlim=(col - 10, col + 90), ylim=(row + 90, row - 10))
    ax.set_axis_off()
plt.show()

# %%
# The field beside the truth
# --------------------------
# A lens that magnifies looks like a stage that steps farther: what is linear in the field
# cannot be told, and found and true are compared without. In the middle of the tile, where
# no overlap looks, the field is what a polynomial says that fits all around.

seen = (np.abs(away) > 1 - 2 * 0.16).any(axis=-1)
design = np.column_stack([np.ones(seen.sum()), away[seen]])
wrong = placed.displacement - lens
linear = np.linalg.lstsq(design, wrong[seen], rcond=None)[0]
wrong = wrong - (linear[0] + away @ linear[1:])
error = np.linalg.norm(wrong, axis=-1)

fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
shown = ax.imshow(error, cmap="viridis", vmin=0)
fig.colorbar(shown, label="error (px)")
thin = (slice(12, None, 34),) * 2
arrows = np.moveaxis(placed.displacement[thin], -1, 0)[::-1]
rows, cols = np.indices(shape)
ax.quiver(
    cols[thin], rows[thin], *arrows, angles="xy", scale_units="xy", scale=0.1,
    width=0.005, color="white",
)  # fmt: skip
ax.set(title="The lens, 10 times enlarged, and its error", xlabel="col", ylabel="row")
plt.show()

# %%
# Calibrated once, used every day
# -------------------------------
# The lens stays the same. Tiles of another specimen, with more noise, are placed with the
# field of the first: two tiles alone could not have told it.

other = spt.simulate_tiles(
    scene[::-1], (1, 2), shape, overlap=0.16, noise_sigma=20, distortion=lens, rng=1
)
again = spt.place_tiles(
    other.tiles, positions=other.stage, displacement=placed.displacement
)
print(spt.placement_report(again))

# %%
# A real lens
# -----------
# Twelve fields of a confocal microscope, where they are at hand (a speckle pattern, CC0, by
# the authors of arouwane/Distortion-correction): the portrait is that of its scan lens.

folder = Path(os.environ.get("SPECTRAL_TOOLS_DATA", "")) / "tiles/lscm_speckle_3x4/raw"
names = sorted(folder.glob("*.png"))
if names:
    fields = [plt.imread(name) for name in names]
    real = spt.place_tiles(
        fields, grid=(3, 4), order="snake", overlap=0.1, distortion=5
    )
    print(spt.placement_report(real))
    fig, axes = plt.subplots(1, 2, figsize=(9, 5.2), layout="constrained")
    spt.plot.seams(real, corrected=False, ax=axes[0])
    spt.plot.seams(real, ax=axes[1])
    plt.show()
else:
    print("The confocal fields are not here.")

# %%
# Where it fails
# --------------
# Two tiles side by side see one strip of the lens. What bends along the strip is told;
# what bends across it is not, and the covariance of the coefficients says so: do not
# correct with a field that was learned from so little.

two = spt.place_tiles(made.tiles[5:7], positions=made.stage[5:7], distortion=3)
for name, found in (("12 tiles", placed), ("2 tiles", two)):
    sigma = np.sqrt(np.einsum("iaia->ia", found.distortion.covariance))
    print(f"{name}: standard errors of coefficients up to {sigma.max():.2f} px")

# %%
# What this page promised
# -----------------------

within = [
    float(word)
    for word in str(spt.placement_report(placed)).split("within")[1].split()
    if word[0].isdigit()
][:2]
assert "tiles are bent" in report
assert placed.distortion.degree == 3
assert within[1] < within[0] / 4
assert np.sqrt(np.mean(error[seen] ** 2)) < 0.3
assert (again.outcome == "matched").all()
assert sigma.max() > 1

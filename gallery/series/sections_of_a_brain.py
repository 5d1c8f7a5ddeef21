"""
Sections of a brain
===================

A block of tissue is cut into thin sections, and each is laid under the microscope
whichever way it falls. We have the pictures in their order, each turned by any angle, and
two of them are spoiled. We want the block back: without a guess, without losing
what lies behind a spoiled section, and without errors that add up from section to
section.
"""

import matplotlib.pyplot as plt
import numpy as np

import spectral_tools as spt

# %%
# A block that is known
# ---------------------
# Tissue, and fibres that wind through it, each in its own way. We cut twelve sections, turn
# and shift them, and add the noise of a quick scan. One section is blank, and one
# shows another block.

rng = np.random.default_rng(3)
count, side, room = 12, 160, 448
tissue = spt.gaussian_texture((room, room), cutoff=0.1, slope=2.0, rng=rng)
block = np.repeat(tissue[np.newaxis], count, axis=0)
axis = np.arange(room)
for _ in range(120):
    row, col = rng.uniform(90, room - 90, 2)
    width, phase = rng.uniform(2.5, 5), rng.uniform(0, 2 * np.pi, 2)
    for n in range(count):
        wind = 1.5 * np.sin(0.8 * n + phase)
        ends = np.add((row, col), wind)
        bells = [np.exp(-((axis - end) ** 2) / (2 * width**2)) for end in ends]
        block[n] -= 2.5 * np.outer(*bells)

middle, centre = np.full(2, (room - 1) / 2), np.full(2, (side - 1) / 2)
truth, sections = [], []
for n in range(count):
    turn = spt.rotation(rng.uniform(-np.pi, np.pi))
    place = spt.translation(middle + rng.uniform(-12, 12, 2))
    truth.append(place @ turn @ spt.translation(-centre))
    cut = spt.warp_image(block[n], np.linalg.inv(truth[n]), shape=(side, side), order=5)
    sections.append(cut + 1.5 * rng.normal(size=cut.shape))
sections[4] = 0.1 * np.ones((side, side))
other = spt.gaussian_texture((side, side), cutoff=0.2, slope=2.0, rng=rng)
sections[8] = other + 1.5 * rng.normal(size=other.shape)

fig, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
for ax, n in zip(axes.flat, (0, 1, 2, 3, 4, 5, 8, 9), strict=True):
    ax.imshow(sections[n], cmap="gray", vmin=-3.5, vmax=2.5)
    ax.set(title=f"Section {n}", xticks=[], yticks=[])
fig.supxlabel("col")
fig.supylabel("row")
plt.show()

# %%
# One call
# --------
# Each section is matched to the three that follow, at any angle, and all links are
# solved together. The two spoiled sections are found.

stack = spt.align_stack(sections, reach=3)
for n, word in enumerate(stack.outcome):
    if word != "matched":
        print("section", n, "is", word)

# %%
# What the links say
# ------------------
# Each square is a pair of sections that was compared: the lower number is the row. Around
# the spoiled ones nothing was found; links over them hold the stack together.

height = np.full((count, count), np.nan)
found = stack.pair_outcome == "matched"
height[tuple(stack.pairs[found].T)] = stack.correlation[found]
fig, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
shown = ax.imshow(height, cmap="viridis", vmin=0)
ax.plot(*stack.pairs[~found].T[::-1], "x", color="C3", label="not believed")
bad = np.flatnonzero(stack.outcome != "matched")
ax.plot(bad, bad, "s", color="C1", label="spoiled section")
ax.set(title="Links between sections", xlabel="section", ylabel="section")
ax.legend(loc="lower left")
fig.colorbar(shown, ax=ax, label="correlation")
plt.show()

# %%
# A cut through the stack
# -----------------------
# Seen from the side, sections are rows. Before, each row is another part of the tissue; after,
# fibres run through. Spoiled sections are marked: their place follows from their
# neighbours, their content is what it is.

aligned = [
    spt.warp_image(section, matrix, order=3, fill_value=np.nan)
    for section, matrix in zip(sections, stack.matrices, strict=True)
]
fig, axes = plt.subplots(2, 1, figsize=(8, 4.6), layout="constrained", sharex=True)
line = side // 2
for ax, pictures, title in (
    (axes[0], sections, "Before: a cut along row 80"),
    (axes[1], aligned, "After: the same cut"),
):
    cut = np.array([picture[line - 3 : line + 4].mean(axis=0) for picture in pictures])
    ax.imshow(cut, cmap="gray", vmin=-4, vmax=2.5, aspect=5, interpolation="nearest")
    ax.plot(np.full(len(bad), 5), bad, ">", color="C1", markersize=7)
    ax.set(title=title, ylabel="section")
axes[1].set_xlabel("col")
plt.show()

# %%
# All links or a chain
# --------------------
# With ``reach=1`` each section only knows its neighbours, and a chain has one way from
# end to end. We ask the truth how far the corners of each section are from where the
# first section says they should be.


def drift_of(matrices):
    corners = np.array([(0, 0), (0, side - 1), (side - 1, 0), (side - 1, side - 1)])
    away = []
    for found, true in zip(matrices, truth, strict=True):
        here = spt.apply_transform(np.linalg.inv(matrices[0]) @ found, corners)
        there = spt.apply_transform(np.linalg.inv(truth[0]) @ true, corners)
        away.append(np.sqrt(np.mean((here - there) ** 2)))
    return np.array(away)


chain = spt.align_stack(sections, reach=1)
good = np.flatnonzero(stack.outcome == "matched")
drift = {"chain": drift_of(chain.matrices), "all links": drift_of(stack.matrices)}
fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, values), color in zip(drift.items(), ("C1", "C0"), strict=True):
    ax.plot(good, values[good], "o-", color=color, label=name)
for n in bad:
    ax.axvline(n, color="0.8", linewidth=6, zorder=0)
ax.set(title="Distance from the truth", xlabel="section", ylabel="px", ylim=(0, None))
ax.legend()
plt.show()
for name, values in drift.items():
    print(f"{name:10} {np.sqrt(np.mean(values[good] ** 2)):.2f} px")

# %%
# What no alignment can know
# --------------------------
# Here fibres wind and come back. Where they all lean one way, laying sections on each
# other puts them upright: how the block leaned is lost when it is cut, and no
# number of links brings it back.

# %%
# What this page has shown
# ------------------------

assert list(bad) == [4, 8]
assert stack.outcome[4] == "no texture"
assert len(set(stack.group[good])) == 1
rms = {name: np.sqrt(np.mean(values[good] ** 2)) for name, values in drift.items()}
assert rms["all links"] < rms["chain"]

# sphinx_gallery_thumbnail_number = 3

"""
Which way up?
=============

A slide was taken off the microscope and put back the wrong way round; a section
floated on the water bath. We have two pictures of the same thing, turned by an unknown
angle, at slightly different magnifications, shifted, perhaps mirrored. You will see how
their spectra give the angle away, how well it can be known, and when the answer
says that it does not know.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import spectral_tools as spt

# %%
# Two pictures with a known truth
# -------------------------------
# The second picture is taken of the same scene with the camera turned by 127 degrees,
# and one of its pixels is as large as 1.3 of the first. The scene is known on
# pixels of half the size, so that the truth is exact. Both have noise.

rng = np.random.default_rng(5)
side = 256
scene = spt.gaussian_texture((1080, 1080), cutoff=0.19, slope=2.5, rng=rng)
spline = ndimage.spline_filter(scene, 5)
middle, centre = np.full(2, 539.5), np.full(2, (side - 1) / 2)


def pose(angle, scale, shift, mirrored=False):
    """Bring the centre of a picture to that of the other one, plus a shift."""
    matrix = spt.translation(centre + shift) @ spt.rotation(angle)
    matrix = matrix @ np.diag([scale, scale * (-1 if mirrored else 1), 1])
    return matrix @ spt.translation(-centre)


def photograph(matrix, level=10):
    """Sample the scene at half its resolution, and add noise."""
    way = spt.translation(middle) @ np.diag([2, 2, 1]) @ spt.translation(-centre)
    way = way @ matrix
    picture = ndimage.affine_transform(
        spline, way[:2, :2], way[:2, 2], (side, side), order=5, prefilter=False
    )
    noise = 10 ** (-level / 20) * rng.standard_normal((side, side))
    return picture / picture.std() + noise


truth = pose(np.deg2rad(127), 1.3, (12, -7))
reference, moving = photograph(np.eye(3)), photograph(truth)

fig, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
for ax, image, title in zip(
    axes, (reference, moving), ("Reference", "Moving"), strict=True
):
    ax.imshow(image, cmap="gray")
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()

# %%
# The spectrum does not care about the shift
# ------------------------------------------
# The power of a spectrum turns with the picture, and shrinks where the picture grows,
# but stays in place when the picture moves. Whitened, with all rings equally bright,
# it is a pattern of speckles, and the same speckles are in both. The line marks the
# same direction of the scene in both spectra.


def speckles(image):
    flat = spt.whiten(image)
    window = spt.cosine_taper(flat.shape, width=40)
    return ndimage.gaussian_filter(spt.power_spectrum(flat * window, taper=False), 0.8)


spectra = [speckles(image) for image in (reference, moving)]
frequency = (np.arange(side) - side // 2) / side
extent = (frequency[0], frequency[-1], frequency[-1], frequency[0])
fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, power, title, turn in zip(
    axes, spectra, ("Reference", "Moving"), (0, 127), strict=True
):
    bright = np.percentile(power, 99.7)
    ax.imshow(power**0.5, cmap="magma", vmax=bright**0.5, extent=extent)
    # The same direction in the scene, seen by either camera.
    row, col = spt.apply_transform(spt.rotation(np.deg2rad(40 - turn)), (0, 0.2))
    ax.plot([-col, col], [-row, row], color="cyan", lw=1)
    ax.set(title=f"Spectrum: {title.lower()}", xlim=(-0.2, 0.2), ylim=(0.2, -0.2))
    ax.set(xlabel="frequency along col (1/px)", ylabel="along row (1/px)")
plt.show()

# %%
# Turns become shifts
# -------------------
# Along circles around the middle a turn is a shift; along rays, with the logarithm of the
# frequency, a change of scale is one. So the two maps differ by a mere shift, and we
# know how to find that. Half a turn is enough: a spectrum looks the same after it.
# The third panel is the second one, shifted by the true angle and scale: compare
# its bright speckles with those of the first.

angles = np.arange(0, 180, 0.5)
steps = np.deg2rad(0.5) * np.arange(270)
radius = 0.025 * np.exp(steps)


def unroll(power):
    turn = np.deg2rad(angles)
    rows = side // 2 - side * radius[:, None] * np.sin(turn)
    cols = side // 2 + side * radius[:, None] * np.cos(turn)
    rings = ndimage.map_coordinates(power, [rows, cols], order=1) ** 0.5
    rings = rings / rings.mean(axis=1, keepdims=True) - 1
    return rings * (radius / radius[-1])[:, None]


maps = [unroll(power) for power in spectra]
down, along = round(np.log(1.3) / np.deg2rad(0.5)), round(127 / 0.5)
shifted = np.roll(maps[1], (-down, along), (0, 1))
titles = "Log-polar map: reference", "Log-polar map: moving", "Moving, shifted"
fig, axes = plt.subplots(3, 1, figsize=(8, 6.4), layout="constrained", sharex=True)
for ax, polar, title in zip(axes, (*maps, shifted), titles, strict=True):
    ax.pcolormesh(angles, radius, polar, cmap="magma", vmin=-0.02, vmax=0.25)
    ax.set(yscale="log", ylim=(0.05, 0.15), ylabel="frequency (1/px)", title=title)
    ax.set_yticks([0.05, 0.1, 0.15], ["0.05", "0.1", "0.15"])
    ax.minorticks_off()
axes[2].set_xlabel("direction (degrees)")
plt.show()

# %%
# The correlation of the two maps
# -------------------------------
# It has one sharp peak, at the angle (up to half a turn) and the scale.

canvas = [np.pad(polar, ((0, 270), (0, 0))) for polar in maps]
spectrum = np.fft.rfft2(canvas[0]) * np.fft.rfft2(canvas[1]).conj()
surface = np.roll(np.fft.irfft2(spectrum, canvas[0].shape), 79, axis=0)[:159]
scales = np.exp(-np.deg2rad(0.5) * (np.arange(159) - 79))
row, col = np.unravel_index(surface.argmax(), surface.shape)
print(f"truth  angle 127.0 degrees  scale {1.3:.3f}")
print(f"peak   angle {angles[col]:.1f} degrees  scale {scales[row]:.3f}")

fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
drawn = ax.pcolormesh(angles, scales, surface / surface.std(), cmap="viridis")
ax.plot(127, 1.3, "o", ms=18, mec="white", mfc="none")
ax.set(title="Correlation of the maps; the circle is the truth", yscale="log")
ax.set(xlabel="angle (degrees)", ylabel="scale", yticks=[0.5, 0.7, 1, 1.4, 2])
ax.set_yticklabels(["0.5", "0.7", "1", "1.4", "2"])
ax.minorticks_off()
fig.colorbar(drawn, label="standard deviations")
plt.show()

# %%
# All of it in one call
# ---------------------
# The peak only starts the work: both half turns are tried on the pictures, the shift is
# found, and all is fitted to the pictures themselves. The error is then far below one
# step of the maps, and as small as the answer says.

found = spt.match_orientation(reference, moving, scale_range=(0.5, 2))
sigma = np.sqrt(np.diag(found.covariance))
print(f"truth  angle {127:.4f}           scale {1.3:.5f}")
print(
    f"found  angle {np.degrees(found.angle):.4f} ± {np.degrees(sigma[0]):.4f}"
    f"  scale {found.scale:.5f} ± {sigma[1]:.5f}"
)
print(f"{found.outcome}, false alarm {found.false_alarm:.0e}")

# %%
# The pictures fit
# ----------------
# Where green and magenta are equally strong they make grey: the two agree.


def overlay(matrix):
    shown = spt.warp_image(
        moving, matrix, shape=(side, side), order=3, fill_value=np.nan
    )
    levels = [np.clip(image / 5 + 0.5, 0, 1) for image in (reference, shown)]
    return np.nan_to_num(np.stack([levels[0], levels[1], levels[0]], axis=-1))


fig, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
for ax, matrix, title in zip(
    axes, (np.eye(3), found.matrix), ("As they came", "Turned and scaled"), strict=True
):
    ax.imshow(overlay(matrix))
    ax.set(title=title, xlabel="col", ylabel="row")
plt.show()
# sphinx_gallery_thumbnail_number = 5

# %%
# How well can an angle be known?
# -------------------------------
# A pixel far from the middle moves most when a picture turns. If noise lets a shift of
# one pixel's surroundings be known to :math:`\sigma`, then n of them at distances r
# let the angle be known to :math:`\sigma / \sqrt{\sum r^2}`: the Cramér-Rao bound,
# with the sum over what both pictures show. We turn pictures by random angles, and
# compare. The steps of 0.5 degrees are long left behind.

levels = (40, 30, 20, 10, 0)
power = spt.ring_average(spt.power_spectrum(scene, taper=False))
inside = power.frequency < 0.25
wave = 2 * power.frequency[inside]  # in cycles per pixel of the pictures
signal = power.mean[inside] / 4
signal = signal / (np.sum(power.count[inside] * signal) / np.sum(power.count[inside]))


def bound(level, angle):
    """Return the standard error of an angle in degrees."""
    coherence = signal / (signal + 10 ** (-level / 10))
    told = (2 * np.pi * wave) ** 2 / 2 * coherence**2 / (1 - coherence**2)
    mean = np.average(told, weights=power.count[inside])
    points = np.stack(np.indices((side, side)), axis=-1) - centre
    turned = spt.apply_transform(spt.rotation(np.deg2rad(angle)), points)
    shared = (np.abs(turned) < side / 2).all(axis=-1)
    return np.degrees(1 / np.sqrt(mean * (points[shared] ** 2).sum()))


errors = np.empty((len(levels), 4))
stated, limits = np.empty_like(errors), np.empty_like(errors)
for at in np.ndindex(errors.shape):
    angle = rng.uniform(-180, 180)
    still = photograph(np.eye(3), levels[at[0]])
    turned = photograph(pose(np.deg2rad(angle), 1, (3, 2)), levels[at[0]])
    answer = spt.match_orientation(still, turned)
    errors[at] = (np.degrees(answer.angle) - angle + 180) % 360 - 180
    stated[at] = np.degrees(np.sqrt(answer.covariance[0, 0]))
    limits[at] = bound(levels[at[0]], angle)

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.semilogy(levels, np.abs(errors), ".", color="0.6")
ax.semilogy(levels, np.sqrt((errors**2).mean(axis=1)), "o", label="error (rms)")
ax.semilogy(levels, stated.mean(axis=1), "-", label="what the answer says")
ax.semilogy(levels, limits.mean(axis=1), "k--", label="the limit")
ax.set(title="Error of the angle", xlabel="signal to noise (dB)", ylabel="degrees")
ax.invert_xaxis()
ax.legend()
plt.show()

# %%
# Upside down
# -----------
# A section that lies on its face is a mirror image, and no turn will bring it back. It is
# only looked for when asked for: each possibility is one more chance to be wrong.

flipped = photograph(pose(-0.6, 1, (5, 9), mirrored=True))
plain = spt.match_orientation(reference, flipped)
turned = spt.match_orientation(reference, flipped, mirror=True)
print(f"only turned:  {plain.outcome}, false alarm {plain.false_alarm:.2g}")
print(f"mirror too:   {turned.outcome}, mirrored {turned.mirrored}, angle ", end="")
print(f"{turned.angle:.4f} (true -0.6000)")

# %%
# Where it fails
# --------------
# In too much noise nothing is found, and the answer says so. A false alarm near 1
# means that chance alone would do as well.

for level in (0, -10, -20):
    pair = photograph(np.eye(3), level), photograph(truth, level)
    answer = spt.match_orientation(*pair, scale_range=(0.5, 2))
    print(f"{level:3d} dB  {answer.outcome:10}  false alarm {answer.false_alarm:.1g}")

# %%
# What this page promised
# -----------------------

assert found.outcome == "matched"
assert abs(np.degrees(found.angle) - 127) < 5 * np.degrees(sigma[0])
assert abs(found.scale - 1.3) < 5 * 1.3 * sigma[1]
assert abs(angles[col] - 127) < 1
assert abs(scales[row] - 1.3) < 0.03
assert (np.abs(errors) < 5 * stated).all()
assert turned.mirrored
assert abs(turned.angle + 0.6) < 1e-3
assert plain.outcome != "matched"
assert answer.outcome == "not found"

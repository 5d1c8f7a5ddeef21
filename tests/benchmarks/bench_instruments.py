"""Two instruments: what points, matrices and fields leave, beside other programs.

    python tests/benchmarks/bench_instruments.py [--seeds 50] [--no-real]

First points that were set by hand to 3 px in each axis, on simulated stained sections:
the error that is left after `refine_points`, over that of the hand, and chi2 of the
error bars, which is 1 if they are right.

Then, with SPECTRAL_TOOLS_DATA naming the folder of real acquisitions, the median error at
landmarks of two pairs of stained sections, and that of a bend put on a radar image beside
an optical one. scikit-image and OpenCV get the same grey images, laid with their
middles on each other. Last a strip of a lattice on its survey: the share of hands, each
wrong by 10 px at both corners, after which the match lies in the right period.
"""

# ruff: noqa: T201

import argparse
import os
import time
from pathlib import Path

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
from scipy import ndimage
from skimage import feature, io, measure, registration, transform

import spectral_tools as spt

try:
    import cv2
except ImportError:
    cv2 = None

CLICK = 3.0
SECTIONS = {
    "lesions_": ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC"),
    "rat-kidney_": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin"),
}


def drawn_sections(rng, side=320, margin=48):
    """Draw two stains of one tissue, and the matrix from the second to the first."""
    wide = (side + 2 * margin,) * 2
    shape, kind = (
        spt.gaussian_texture(wide, cutoff=cutoff, slope=4, rng=rng)
        for cutoff in (0.08, 0.02)
    )
    walls = ndimage.gaussian_filter((np.abs(shape) < 0.4).astype(float), 1)
    full = walls / (1 + np.exp(-6 * kind))
    dots = (rng.random((3, *wide)) < 0.006) * walls
    dots = np.minimum(20 * ndimage.gaussian_filter(dots, (0, 1.8, 1.8)), 1)
    one = np.maximum(0.35 * walls, np.maximum(dots[0], dots[1]))
    other = 0.3 * (1 - walls) + 0.9 * full * (1 - np.maximum(dots[0], dots[2]))
    centre = (side / 2, side / 2)
    matrix = spt.rotation(rng.uniform(-0.1, 0.1), center=centre)
    matrix = spt.translation(rng.uniform(-10, 10, 2)) @ matrix
    away = spt.translation((-margin, -margin))
    first = spt.warp_image(one, matrix @ away, shape=(side, side), order=3)
    second = spt.warp_image(other, away, shape=(side, side), order=3)
    images = [
        np.exp(-1.5 * density) + noise * rng.normal(size=density.shape)
        for density, noise in ((first, 0.03), (second, 0.05))
    ]
    return *images, matrix


def click_them(seeds):
    """Refine points that were set by hand, and print what is left."""
    ratios, scores, taken = [], [], 0
    points = np.stack(np.mgrid[60:261:50, 60:261:50], axis=-1).reshape(-1, 2)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        reference, moving, matrix = drawn_sections(rng)
        truth = spt.apply_transform(np.linalg.inv(matrix), points)
        hand = truth + CLICK * rng.standard_normal(truth.shape)
        found = spt.refine_points(reference, moving, points, hand)
        error = found.moving_points - truth
        # Hands that were not improved count as they were.
        ratios.append(np.sqrt((error**2).mean() / ((hand - truth) ** 2).mean()))
        sure = np.isfinite(found.covariance).all(axis=(1, 2))
        taken += sure.sum()
        turned = error[sure] @ matrix[:2, :2].T
        inverse = np.linalg.inv(found.covariance[sure])
        scores.append(np.einsum("na,nab,nb->n", turned, inverse, turned))
    scores = np.concatenate(scores)
    print(
        f"{seeds} simulated pairs, {len(points)} points each, set to {CLICK:g} px rms"
    )
    print(f"  refined                {taken / (seeds * len(points)):6.1%}")
    print(f"  error / that of hand   {np.sqrt(np.mean(np.square(ratios))):6.3f}  rms")
    print(f"  worst seed             {max(ratios):6.3f}")
    print(f"  chi2 of error bars     {scores.mean() / 2:6.2f}  mean (1 is right)")
    print(
        f"                         {np.median(scores) / 1.386:6.2f}  median", flush=True
    )


def stain(path):
    """Return how much light a section has swallowed, of all colours together."""
    light = io.imread(path).sum(axis=-1, dtype=float) / (3 * 255)
    return -np.log(np.clip(light, 0.02, 1))


def landmarks(path):
    """Read points (row, col) from a table of number, x, y."""
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, :0:-1]


def timed(call):
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def report(title, errors, spent):
    median = f"{np.median(errors):8.2f} px" if errors is not None else "  failed   "
    print(f"  {title:38}{median}{spent:8.1f} s", flush=True)


def orb_matrix(reference, moving):
    """Return an affine transform from scikit-image's features."""
    kept = []
    for image in (reference, moving):
        low, high = np.percentile(image, (0.5, 99.5))
        finder = feature.ORB(n_keypoints=2000)
        finder.detect_and_extract(np.clip((image - low) / (high - low), 0, 1))
        kept.append((finder.keypoints, finder.descriptors))
    pairs = feature.match_descriptors(kept[0][1], kept[1][1], cross_check=True)
    found, _ = measure.ransac(
        (kept[1][0][pairs[:, 1]], kept[0][0][pairs[:, 0]]),
        transform.AffineTransform,
        min_samples=3,
        residual_threshold=8,
        max_trials=2000,
        rng=0,
    )
    return found.params if found is not None else None


def ecc_matrix(reference, moving, start):
    """Return an affine transform from OpenCV's enhanced correlation."""
    guess = spt.swap_xy_matrix(np.linalg.inv(start))[:2].astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 500, 1e-6)
    try:
        _, found = cv2.findTransformECC(
            reference.astype(np.float32), moving.astype(np.float32), guess,
            cv2.MOTION_AFFINE, criteria, None, 5,
        )  # fmt: skip
    except cv2.error:
        return None
    return np.linalg.inv(spt.swap_xy_matrix(found))


def flow_field(reference, moving):
    """Return scikit-image's optical flow, as a displacement of ours."""
    # It wants images that are equally bright.
    both = [(image - image.mean()) / (4 * image.std()) for image in (reference, moving)]
    return -np.moveaxis(registration.optical_flow_tvl1(*both), 0, -1)


def bent(reference, moving, **options):
    """Return points, their affine transform, and the field for the rest."""
    points = spt.find_control_points(reference, moving, **options)
    affine = spt.estimate_transform(
        points.reference_points, points.moving_points, covariance=points.covariance
    )
    field = spt.fit_displacement(
        points.reference_points, points.moving_points, reference.shape,
        matrix=affine.matrix, covariance=points.covariance, window=64,
    )  # fmt: skip
    return points, affine.matrix, field.displacement


def align_sections(folder):
    """Print the median error at landmarks of each way to align two stains."""
    for name, stems in SECTIONS.items():
        paths = [folder / "birl_histology" / name / stem for stem in stems]
        images = [stain(path.with_name(path.name + ".jpg")) for path in paths]
        marks = [landmarks(path.with_name(path.name + ".csv")) for path in paths]
        count = min(map(len, marks))
        reference, moving = (points[:count] for points in marks)
        sizes = [np.array(image.shape) for image in images]
        start = spt.translation((sizes[0] - sizes[1]) / 2)

        def error_of(matrix, field=None, reference=reference, moving=moving):
            if matrix is None:
                return None
            if field is None:
                there = spt.apply_transform(matrix, moving)
                return np.linalg.norm(there - reference, axis=1)
            # Looked up from the reference, since some fields fold.
            there = spt.apply_displacement(
                field, reference, matrix=matrix, inverse=True
            )
            return np.linalg.norm(there - moving, axis=1)

        best = spt.estimate_transform(reference, moving, robust=False)
        (points, matrix, field), spent = timed(lambda images=images: bent(*images))
        found = np.count_nonzero(points.outcome == "matched")
        print(f"\n{name}: {count} landmarks, {found} of {len(points.outcome)} points")
        report("middles laid on each other", error_of(start), 0)
        report("affine through the landmarks", error_of(best.matrix), 0)
        report("affine through points", error_of(matrix), spent)
        report("  and a field", error_of(matrix, field), spent)
        matrix, spent = timed(lambda images=images: orb_matrix(*images))
        report("scikit-image, ORB and RANSAC", error_of(matrix), spent)
        laid = spt.warp_image(images[1], start, shape=images[0].shape)
        field, spent = timed(lambda i=images[0], j=laid: flow_field(i, j))
        report("scikit-image, optical_flow_tvl1", error_of(start, field), spent)
        if cv2 is not None:
            matrix, spent = timed(lambda i=images, s=start: ecc_matrix(*i, s))
            report("OpenCV, ECC", error_of(matrix), spent)


def bend_radar(folder):
    """Print the median error of each way to find a bend of radar in light."""
    root = folder / "sentinel1_sentinel2_flow"
    light = np.log(io.imread(root / "S2_patch11.tif").mean(axis=-1, dtype=float))
    radar = np.log(io.imread(root / "S1_patch11.tif")[..., 0].astype(float))
    truth = -io.imread(root / "Flow_patch11.tif").astype(float)[..., ::-1]
    moved = spt.warp_image(radar, np.eye(3), displacement=truth, order=3)

    def ours(reference, moving):
        points = spt.find_control_points(reference, moving, max_shift=12)
        return spt.fit_displacement(
            points.reference_points, points.moving_points, reference.shape,
            covariance=points.covariance, window=64,
        ).displacement  # fmt: skip

    def ecc(reference, moving):
        matrix = ecc_matrix(reference, moving, np.eye(3))
        if matrix is None:
            return None
        pixels = np.moveaxis(np.indices(reference.shape, dtype=float), 0, -1)
        return pixels - spt.apply_transform(np.linalg.inv(matrix), pixels)

    ways = {"points and a field": ours, "scikit-image, optical_flow_tvl1": flow_field}
    if cv2 is not None:
        ways["OpenCV, ECC"] = ecc
    for title, reference, field in (
        ("radar beside light, as stored", radar, np.zeros_like(truth)),
        ("radar beside light, bent", moved, truth),
    ):
        print(f"\n{title}")
        report("nothing done", np.linalg.norm(field, axis=-1), 0)
        for name, way in ways.items():
            found, spent = timed(lambda w=way, r=reference: w(r, light))
            errors = None if found is None else np.linalg.norm(found - field, axis=-1)
            report(name, errors, spent)


def place_strip(folder, count=1000):
    """Print how often two corners set by hand lead to the right period of a lattice."""
    with np.load(folder / "stem_si_survey_haadf_eels" / "stem_si_triplet.npz") as file:
        survey, strip = file["survey"].astype(float), file["haadf"]
        corners = file["si_rect_tlbr"].reshape(2, 2)
    size, period = corners[1] - corners[0], np.array([22, 15])
    small = spt.resample(strip, size[0] / strip.shape[0], 1).image
    rng = np.random.default_rng(17)
    angles = rng.uniform(0, 2 * np.pi, (count, 2))
    clicks = corners + 10 * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    hands = (clicks[:, 0] + clicks[:, 1] - size) / 2
    surface = spt.correlation_surface(survey, small, whitening=0)
    first = (np.array(surface.shape) - 1) // 2

    def best_near(place):
        low = np.ceil(place - period / 2).astype(int)
        high = np.floor(place + period / 2).astype(int) + 1
        part = surface[tuple(map(slice, low + first, high + first))]
        return low + np.unravel_index(part.argmax(), part.shape)

    print(f"\nstrip of a lattice, {count} hands wrong by 10 px at both corners")
    for name, places in (("hand", hands), ("match", [best_near(h) for h in hands])):
        ends = np.stack([places, places + size], axis=1) - corners
        right = (np.abs(ends) <= period / 2).all(axis=(1, 2))
        worst = np.abs(ends[right]).max()
        print(
            f"  {name:6} right period {right.mean():6.1%}  then within {worst:4.1f} px"
        )
    blind = spt.phase_correlate(survey, small)
    print(f"  without a hand: {blind.outcome}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--no-real", action="store_true")
    options = parser.parse_args()
    if options.seeds:
        click_them(options.seeds)
    folder = os.environ.get("SPECTRAL_TOOLS_DATA")
    if folder and not options.no_real:
        align_sections(Path(folder) / "multimodal")
        bend_radar(Path(folder) / "multimodal")
        place_strip(Path(folder) / "multimodal")


if __name__ == "__main__":
    main()

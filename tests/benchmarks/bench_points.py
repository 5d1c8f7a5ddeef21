"""Transforms from pairs of points: which model, how near, and how fast.

    python tests/benchmarks/bench_points.py [--trials 100]

First, which model `compare_transforms` points to where two pictures of 512 x 512
pixels are related by a known one, and points were clicked with an error of 1 to 3 px:
how often the right model has the least leave-one-out error, and how often it has the
fewest unknowns of those that are tied with the least. Points lie one to a field of a
3 x 3 or 4 x 4 board, somewhere in it. Then a projective transform through four points.

With SPECTRAL_TOOLS_DATA naming the folder of real acquisitions: a wall in perspective
from 20 points of which 6 are wrong, beside its published homography, and the landmarks
of stained sections beside the plain least squares of NumPy. Last the time beside
scikit-image's fit of the same model, without and with wrong pairs.
"""

# ruff: noqa: T201

import argparse
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
from skimage import measure, transform

import spectral_tools as spt

MODELS = ("translation", "rigid", "similarity", "affine", "projective")
SIDE = 512
CENTRE = np.full(2, (SIDE - 1) / 2)


def either(rng, low, high):
    """Draw a size, and a sign."""
    return rng.choice([-1, 1]) * rng.uniform(low, high)


def drawn_matrix(model, rng):
    """Draw what relates two pictures: a stage, a turn, a zoom, a creep, a tilt."""
    matrix = np.eye(3)
    if model != "translation":
        matrix = spt.rotation(np.deg2rad(either(rng, 5, 30)))
    if model not in ("translation", "rigid"):
        zoom = np.exp(either(rng, np.log(1.1), np.log(1.5)))
        matrix = matrix @ np.diag([zoom, zoom, 1])
    if model in ("affine", "projective"):
        creep = np.eye(3)
        creep[0, :2] += either(rng, 0.05, 0.15), either(rng, 0.05, 0.15)
        matrix = matrix @ creep
    if model == "projective":
        tilt, angle = rng.uniform(0.15, 0.3), rng.uniform(0, 2 * np.pi)
        lean = np.eye(3)
        # By this share depth changes from the middle of the picture to its border.
        lean[2, :2] = tilt / CENTRE * (np.cos(angle), np.sin(angle))
        matrix = matrix @ lean
    shift = CENTRE + rng.uniform(-50, 50, 2)
    return spt.translation(shift) @ matrix @ spt.translation(-CENTRE)


def clicked_points(count, rng):
    """Draw points in different fields of a board."""
    board = int(np.ceil(np.sqrt(count)))
    fields = rng.permutation(board**2)[:count]
    corner = np.stack(np.divmod(fields, board), axis=1)
    return (corner + rng.uniform(0, 1, (count, 2))) * SIDE / board


def choose_them(trials):
    print(f"right of {trials}: least leave-one-out error / fewest unknowns of the tied")
    print("points  noise", *(f"{model:>12}" for model in MODELS))
    for count in (8, 12):
        for noise in (1, 2, 3):
            cells = []
            for number, model in enumerate(MODELS):
                least = chosen = 0
                for trial in range(trials):
                    rng = np.random.default_rng([trial, number, count, noise])
                    moving = clicked_points(count, rng)
                    reference = spt.apply_transform(drawn_matrix(model, rng), moving)
                    reference += noise * rng.standard_normal(reference.shape)
                    found = spt.compare_transforms(reference, moving, models=MODELS)
                    least += found.leave_one_out.argmin() == number
                    chosen += np.flatnonzero(found.tied)[0] == number
                cells.append(f"{least:>6} / {chosen:3}")
            print(f"{count:6d}{noise:4d} px", *(f"{c:>12}" for c in cells), flush=True)


def unmask_four():
    rng = np.random.default_rng(0)
    moving = clicked_points(4, rng)
    reference = moving + (20, -9) + 2 * rng.standard_normal((4, 2))
    print("\nfour points of a translation, clicked to 2 px")
    print(spt.compare_transforms(reference, moving))


def match_a_wall(folder, trials):
    values = ET.parse(folder / "photos/opencv/H1to3p.xml").find("H13/data").text
    truth = spt.swap_xy_matrix(np.array(values.split(), float).reshape(3, 3))
    corners = np.array([(0, 0), (0, 799), (639, 0), (639, 799)], float)
    exact = spt.apply_transform(truth, corners)
    print(
        "\nwall from 20 points, 6 wrong: error at the corners in px, median and largest"
    )
    for noise in (0, 0.1, 0.3, 1):
        errors, told, wrong_count = [], [], 0
        for trial in range(trials):
            rng = np.random.default_rng(trial)
            fields = rng.permutation(20)
            moving = np.stack(np.divmod(fields, 5), axis=1)
            moving = (moving + rng.uniform(0, 1, (20, 2))) * (640 / 4, 800 / 5)
            reference = spt.apply_transform(truth, moving)
            low, high = reference.min(axis=0), reference.max(axis=0)
            reference += noise * rng.standard_normal(reference.shape)
            reference[:6] = rng.uniform(low, high, (6, 2))
            found = spt.estimate_transform(reference, moving, model="projective")
            away = spt.apply_transform(found, corners) - exact
            errors.append(np.linalg.norm(away, axis=1).max())
            spread = spt.transform_covariance(found, corners)
            told.append(np.sqrt(np.trace(spread, axis1=1, axis2=2).max()))
            wrong_count += found.inlier[:6].any()
        print(
            f"clicked to {noise:3} px: {np.median(errors):7.3f}{np.max(errors):8.3f}"
            f"   within 1 px {np.mean(np.array(errors) < 1):5.2f}"
            f"   stated {np.median(told):6.3f}   wrong believed {wrong_count}",
            flush=True,
        )


def landmarks(folder, pair):
    """Read the landmarks that both sections have, as (row, col)."""
    names = sorted((folder / "multimodal/birl_histology" / pair).glob("*.csv"))
    tables = [np.loadtxt(n, delimiter=",", skiprows=1, usecols=(1, 2)) for n in names]
    count = min(map(len, tables))
    return [spt.swap_xy_points(table[:count]) for table in tables]


def fit_landmarks(folder):
    print("\nlandmarks of stained sections: median distance in px")
    print("pair           as they are  least squares   ours  robust  left out")
    for pair in ("lesions_", "rat-kidney_"):
        moving, reference = landmarks(folder, pair)
        full = np.hstack([moving, np.ones((len(moving), 1))])
        plain = reference - full @ np.linalg.lstsq(full, reference, rcond=None)[0]
        ours = spt.estimate_transform(reference, moving, robust=False)
        robust = spt.estimate_transform(reference, moving)
        values = (
            np.median(np.linalg.norm(away, axis=1))
            for away in (reference - moving, plain, ours.residuals, robust.residuals)
        )
        print(
            f"{pair:12}{next(values):14.2f}{next(values):15.3f}{next(values):7.3f}"
            f"{next(values):8.3f}{np.median(ours.leave_one_out):10.3f}"
            f"   {(~robust.inlier).sum()} of {len(moving)} dropped",
            flush=True,
        )


def shortest(call, repeat=7):
    """Return the shortest of several times, in ms."""
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return 1e3 * min(spent)


def time_them():
    kinds = {
        "rigid": transform.EuclideanTransform,
        "affine": transform.AffineTransform,
        "projective": transform.ProjectiveTransform,
    }
    print("\nms: ours, scikit-image; with a third wrong: ours, RANSAC (1000 trials)")
    for count in (20, 200):
        for model, kind in kinds.items():
            rng = np.random.default_rng(0)
            moving = rng.uniform(0, SIDE, (count, 2))
            reference = spt.apply_transform(drawn_matrix(model, rng), moving)
            reference += rng.standard_normal(reference.shape)
            times = [
                shortest(
                    lambda r=reference, m=moving, k=model: spt.estimate_transform(
                        r, m, model=k, robust=False
                    )
                ),
                shortest(lambda r=reference, m=moving, k=kind: k.from_estimate(m, r)),
            ]
            reference[: count // 3] = rng.uniform(0, SIDE, (count // 3, 2))
            times += [
                shortest(
                    lambda r=reference, m=moving, k=model: spt.estimate_transform(
                        r, m, model=k
                    ),
                    3,
                ),
                shortest(
                    lambda r=reference, m=moving, k=kind: measure.ransac(
                        (m, r), k, min_samples=4, residual_threshold=4, max_trials=1000
                    ),
                    3,
                ),
            ]
            print(
                f"{model:12}{count:6d}", *(f"{time:9.2f}" for time in times), flush=True
            )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    unmask_four()
    folder = os.environ.get("SPECTRAL_TOOLS_DATA")
    if folder:
        match_a_wall(Path(folder), options.trials)
        fit_landmarks(Path(folder))
    time_them()
    print()
    choose_them(options.trials)


if __name__ == "__main__":
    main()

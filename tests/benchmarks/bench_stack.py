"""How well real sections fit together after alignment, and how long it takes.

    SPECTRAL_TOOLS_DATA=folder python tests/benchmarks/bench_stack.py

Twelve sections of lung, without any guess: mean correlation of neighbours at half
resolution, in the central 50, 60 and 80 %, for each model, each reach, and after bending.
"""

# ruff: noqa: T201

import os
import time
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
from skimage import io

import spectral_tools as spt

SHARES = 0.5, 0.6, 0.8


def correlations(sections, matrices, fields=None):
    """Return the mean correlation of neighbours for each central share."""
    rows, cols = sections[0].shape
    halves = []
    for number, (section, matrix) in enumerate(zip(sections, matrices, strict=True)):
        field = None if fields is None else fields[number]
        warped = spt.warp_image(section.astype(float), matrix, displacement=field)
        halves.append(warped.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3)))
    means = []
    for share in SHARES:
        rim = [round(n * (1 - share) / 2) for n in halves[0].shape]
        moved = [h[rim[0] : -rim[0], rim[1] : -rim[1]].ravel() for h in halves]
        means.append(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(moved)]))
    return means


def main():
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "zstack" / "lung_sem_12"
    sections = [io.imread(path) for path in sorted(folder.glob("*.png"))]
    print(f"{'model':10}{'reach':>6}{'placed':>8}{'s':>7}   50 %   60 %   80 %")
    for model in ("rigid", "affine"):
        for reach in (1, 2, 3):
            start = time.perf_counter()
            found = spt.align_stack(sections, reach=reach, model=model)
            spent = time.perf_counter() - start
            placed = np.count_nonzero(found.outcome == "matched")
            means = correlations(sections, found.matrices)
            line = "".join(f"{mean:7.4f}" for mean in means)
            print(f"{model:10}{reach:6d}{placed:8d}{spent:7.1f} {line}", flush=True)
    bent = spt.relax_meshes(
        found.links, found.reference_points, found.moving_points, sections[0].shape,
        matrices=found.matrices, covariance=found.covariance,
    )  # fmt: skip
    means = correlations(sections, found.matrices, bent.displacement)
    print(f"{'bent':31} " + "".join(f"{mean:7.4f}" for mean in means))


if __name__ == "__main__":
    main()

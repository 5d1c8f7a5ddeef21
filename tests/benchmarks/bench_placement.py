"""How fast tiles are placed, how near the limit, and how many false links they survive.

    python tests/benchmarks/bench_placement.py [--sides 100 316 1000]

First grids of n x n tiles whose links are good to 0.3 px: the time, and the rms error
of neighbour offsets over that of the links, whose limit is ``sqrt((N - 1) / E)``.
Then grids of 20 x 20 with 30 % of the links missing, 10 % false by up to 30 px, and
links good to 0.1, 0.2 or 0.5 px; the right offset is among the three peaks of 70 % of
the false ones. An oracle that knows which peak is right, if any, shows what is possible.
"""

# ruff: noqa: T201

import argparse
import os
import time

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np

import spectral_tools as spt

SIGMA, SEEDS = 0.3, 10


def offsets_of(positions, links):
    return positions[links[:, 1]] - positions[links[:, 0]]


def seam_rms(placed, truth, links):
    found = placed.matrices[:, :2, 2]
    return np.sqrt(np.mean((offsets_of(found, links) - offsets_of(truth, links)) ** 2))


def large(side, robust, rng):
    links = spt.grid_links((side, side))
    truth = spt.grid_positions((side, side), (1000, 1000))
    truth += 5 * rng.standard_normal(truth.shape)
    measured = offsets_of(truth, links)
    measured += SIGMA * rng.standard_normal(measured.shape)
    start = time.perf_counter()
    placed = spt.solve_rigid(
        links, measured, 0 * measured, covariance=SIGMA**2 * np.eye(2), robust=robust
    )
    spent = time.perf_counter() - start
    limit = np.sqrt((len(truth) - 1) / len(links))
    seam = seam_rms(placed, truth, links) / SIGMA
    print(
        f"{len(truth):>9} tiles, robust={robust!s:5} {spent:7.2f} s, "
        f"seams {seam:.3f} (limit {limit:.3f})",
        flush=True,
    )


def hard(seed):
    """Return a placement problem with its truth, and which peak is right."""
    rng = np.random.default_rng([seed, 11])
    links = spt.grid_links((20, 20))
    stage = spt.grid_positions((20, 20), (1000, 1000))
    truth = stage + 4 * rng.standard_normal(stage.shape)
    links = links[rng.random(len(links)) >= 0.3]
    sigma = rng.choice((0.1, 0.2, 0.5), len(links))
    right = offsets_of(truth, links)
    right += sigma[:, np.newaxis] * rng.standard_normal(right.shape)
    peaks = offsets_of(stage, links)[:, np.newaxis] + rng.uniform(
        -30, 30, (len(links), 3, 2)
    )
    chosen = np.where(rng.random(len(links)) < 0.1, -1, 0)
    chosen[(chosen < 0) & (rng.random(len(links)) < 0.7)] = 1
    known = chosen >= 0
    peaks[known, chosen[known]] = right[known]
    covariance = sigma[:, np.newaxis, np.newaxis] ** 2 * np.eye(2)
    return links, peaks, covariance, stage, truth, chosen


def solve_hard(problem, *, oracle=False, peaks=True, prior=True):
    links, options, covariance, stage, _, chosen = problem
    if oracle:
        known = (chosen >= 0)[:, np.newaxis, np.newaxis]
        covariance = np.where(known, covariance, np.inf * np.ones((2, 2)))
        options = options[np.arange(len(links)), np.maximum(chosen, 0)][:, np.newaxis]
    more = {"position_sigma": 4} if prior else {}
    if peaks and not oracle:
        more["alternatives"] = options
    first = options[:, 0]
    return spt.solve_rigid(
        links,
        first,
        0 * first,
        covariance=covariance,
        positions=stage,
        robust=not oracle,
        **more,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="*", default=[100, 316, 1000])
    sides = parser.parse_args().sides
    rng = np.random.default_rng(5)
    for side in sides:
        large(side, False, rng)
        large(side, True, rng)
    problems = [hard(seed) for seed in range(SEEDS)]
    for title, options in {
        "peaks and stage": {},
        "stage": {"peaks": False},
        "peaks": {"prior": False},
        "neither": {"peaks": False, "prior": False},
        "oracle": {"oracle": True},
    }.items():
        rms = [
            seam_rms(solve_hard(problem, **options), problem[4], problem[0])
            for problem in problems
        ]
        print(
            f"{title:16} seams {np.sqrt(np.mean(np.square(rms))):5.2f} px rms",
            flush=True,
        )


if __name__ == "__main__":
    main()

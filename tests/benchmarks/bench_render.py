"""How fast tiles are rendered, beside other libraries in the same run.

    python tests/benchmarks/bench_render.py [--side 1024] [--grid 4]

Prints million tile pixels per second for one core. scikit-image warps one tile and
does not blend; its figure is what the ratios are taken against.
"""

# ruff: noqa: T201

import argparse
import os
import time

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
from scipy import ndimage
from skimage import transform

import spectral_tools as spt


def timed(call, repeat=7):
    """Return the shortest of several times, after a call that compiles."""
    call()
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)


def placed(index, step, jitter, angle=0.0, stretch=1.0):
    """Return the matrix of the tile at (row, col) `index` of a grid."""
    cos, sin = stretch * np.cos(angle), stretch * np.sin(angle)
    row, col = step * np.asarray(index) + jitter
    return np.array([[cos, -sin, row], [sin, cos, col], [0, 0, 1]])


def grid_of_tiles(side, grid, angle, rng):
    """Return equal tiles in a grid that overlap by 10 %, and their matrices."""
    tile = rng.integers(0, 65536, (side, side)).astype(np.uint16)
    matrices = [
        placed(index, 0.9 * side, rng.uniform(-3, 3, 2), angle * rng.standard_normal())
        for index in np.ndindex(grid, grid)
    ]
    return [tile] * grid**2, np.array(matrices)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--grid", type=int, default=4)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    side, count = options.side, options.grid**2
    pixels = side**2 / 1e6

    single = rng.random((side, side), dtype=np.float32)
    tilted = transform.AffineTransform(rotation=0.01, translation=(0.3, 0.7))
    peer = pixels / timed(lambda: transform.warp(single, tilted, order=1), repeat=3)
    print(f"{'skimage.transform.warp, order 1':44}{peer:8.0f} Mpx/s")
    turn, shift = np.linalg.inv(tilted.params)[:2, :2], (0.3, 0.7)
    for order in (3, 5):
        speed = pixels / timed(
            lambda o=order: ndimage.affine_transform(single, turn, shift, order=o),
            repeat=1,
        )
        print(
            f"{f'scipy.ndimage.affine_transform, order {order}':44}{speed:8.0f} Mpx/s"
        )

    for kind, angle in (("translation", 0.0), ("affine", 0.01), ("turned", 0.5)):
        tiles, matrices = grid_of_tiles(side, options.grid, angle, rng)
        for blend in (
            "feather", "mean", "nearest", "maximum", "seam", "multiband",
        ):  # fmt: skip
            for order in (1, 0, 3, 5) if blend == "feather" else (1, 0):
                spent = timed(
                    lambda t=tiles, m=matrices, b=blend, o=order: spt.warp_composite(
                        t, m, blend=b, order=o
                    )
                )
                speed = count * pixels / spent
                label = f"{kind}, {blend}, order {order}"
                print(f"{label:44}{speed:8.0f} Mpx/s, {speed / peer:5.1f} x skimage")

    tiles, matrices = grid_of_tiles(512, 8, 0.0, rng)
    spent = timed(lambda: spt.warp_composite(tiles, matrices))
    print(f"{'64 tiles of 512 x 512':44}{spent:8.3f} s")


if __name__ == "__main__":
    main()

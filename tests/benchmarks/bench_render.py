"""How fast tiles are rendered, beside other libraries in the same run.

    python tests/benchmarks/bench_render.py [part ...] [--side 1024] [--grid 4]

Parts are blends, growth, threads, cubes, splines, memory and real, all by default. Speeds are million tile pixels per second on one core. Peers warp one tile
and do not blend; ratios are taken against them. `real` needs the data folder.
"""

# ruff: noqa: T201

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import h5py
import numpy as np
from numba import njit
from scipy import ndimage
from skimage import io, transform

import spectral_tools as spt

try:
    import cv2
except ImportError:
    cv2 = None
else:
    cv2.setNumThreads(1)

TURN, SHIFT = 0.01, (0.3, 0.7)


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


def grid_of_tiles(side, grid, angle, rng, dtype=np.uint16):
    """Return equal tiles in a grid that overlap by 10 %, and their matrices."""
    tile = rng.integers(0, np.iinfo(dtype).max, (side, side), dtype)
    matrices = [
        placed(index, 0.9 * side, rng.uniform(-3, 3, 2), angle * rng.standard_normal())
        for index in np.ndindex(grid, grid)
    ]
    return [tile] * grid**2, np.array(matrices)


def show(label, value, unit, *notes):
    print(f"{label:44}{value:8.3g} {unit}", *notes, sep="  ", flush=True)


def peers(options):
    """Show how fast others warp one tile, and return their speeds."""
    side, rng = options.side, np.random.default_rng(0)
    single = rng.random((side, side), dtype=np.float32)
    tilted = transform.AffineTransform(rotation=TURN, translation=SHIFT)
    turn = np.linalg.inv(tilted.params)
    calls = {
        "skimage": lambda: transform.warp(single, tilted, order=1),
        "scipy, order 1": lambda: ndimage.affine_transform(
            single, turn[:2, :2], SHIFT, order=1
        ),
        "scipy, order 3": lambda: ndimage.affine_transform(
            single, turn[:2, :2], SHIFT, order=3
        ),
        "scipy, order 5": lambda: ndimage.affine_transform(
            single, turn[:2, :2], SHIFT, order=5
        ),
    }
    if cv2 is not None:
        size = (side, side)
        calls |= {
            "cv2": lambda: cv2.warpAffine(single, turn[:2], size),
            "cv2, Keys cubic": lambda: cv2.warpAffine(
                single, turn[:2], size, flags=cv2.INTER_CUBIC
            ),
        }
    speeds = {who: side**2 / 1e6 / timed(call, 3) for who, call in calls.items()}
    for who, speed in speeds.items():
        show(f"{who}, one tile", speed, "Mpx/s")
    return speeds


def blends(options):
    speeds, rng = peers(options), np.random.default_rng(0)
    who = "cv2" if "cv2" in speeds else "skimage"
    for kind, angle in (("translation", 0.0), ("affine", 0.01), ("turned", 0.5)):
        tiles, matrices = grid_of_tiles(options.side, options.grid, angle, rng)
        pixels = len(tiles) * options.side**2 / 1e6
        for blend in ("feather", "mean", "nearest", "maximum", "seam", "multiband"):
            for order in (1, 0, 3, 5) if blend == "feather" else (1, 0):
                spent = timed(
                    lambda t=tiles, m=matrices, b=blend, o=order: spt.warp_composite(
                        t, m, blend=b, order=o
                    )
                )
                ratio = f"{pixels / spent / speeds[who]:5.2f} x {who}"
                show(f"{kind}, {blend}, order {order}", pixels / spent, "Mpx/s", ratio)
    for dtype in (np.uint8, np.uint16):
        tiles, matrices = grid_of_tiles(512, 8, 0.01, rng, dtype)
        spent = timed(lambda t=tiles, m=matrices: spt.warp_composite(t, m))
        show(f"64 affine tiles of 512 x 512, {dtype.__name__}", spent, "s")


def growth(options):
    """Show that a pixel of the mosaic costs the same in small and large mosaics.

    Small results are written to memory that was just given back, large ones to pages
    that the system has yet to find. So results are written to arrays that exist, too.
    """
    rng, side, costs = np.random.default_rng(0), options.side // 4, {}
    calls = {}
    for grid in (4, 8, 16, 32):
        tiles, matrices = grid_of_tiles(side, grid, 0.01, rng)
        first = spt.warp_composite(tiles, matrices)
        calls[grid] = (tiles, matrices, first.image, first.coverage)
        costs[grid] = [np.inf, np.inf]
    # In turns, so that what else the machine does falls on all of them.
    for _ in range(3 * options.repeat):
        for grid, (tiles, matrices, image, coverage) in calls.items():
            for kind, store in enumerate(
                ({}, {"out": image, "out_coverage": coverage})
            ):
                start = time.perf_counter()
                for _ in range(max(1, 64 // grid**2)):
                    spt.warp_composite(tiles, matrices, **store)
                spent = (time.perf_counter() - start) / max(1, 64 // grid**2)
                cost = 1e9 * spent / image.size
                costs[grid][kind] = min(costs[grid][kind], cost)
    for grid, (fresh, kept) in costs.items():
        notes = (
            f"{fresh / costs[4][0]:.2f} x 16 tiles",
            f"{kept:5.3g} into arrays that exist",
            f"{kept / costs[4][1]:.2f} x 16 tiles",
        )
        show(f"{grid**2} tiles of {side} x {side}", fresh, "ns per pixel", *notes)


@njit(nogil=True)
def count_up(values, times):
    """Keep one core at work, without memory."""
    for _ in range(times):
        for k in range(values.size):
            values[k] = values[k] * np.float32(0.999) + np.float32(0.1)


def threads(options):
    """Show what a second thread brings, here and where nothing is shared but cores."""
    rng = np.random.default_rng(0)
    work = [(np.ones(2000, np.float32), 100_000) for _ in range(2)]
    one = timed(lambda: count_up(*work[0]), 5)
    with ThreadPoolExecutor(2) as pool:
        two = timed(lambda: list(pool.map(count_up, *zip(*work, strict=True))), 5)
    show("sums in the cache, two threads", 2 * one / two, "x one thread")
    for order in (1, 3):
        tiles, matrices = grid_of_tiles(options.side, options.grid, 0.01, rng)
        one, two = (
            timed(
                lambda t=tiles, m=matrices, o=order, w=workers: spt.warp_composite(
                    t, m, order=o, workers=w
                ),
                5,
            )
            for workers in (1, 2)
        )
        show(f"affine, order {order}, two threads", one / two, "x one thread")


def cubes(options):
    """Show what many channels cost beside one, each warped alone, and beside peers."""
    side, channels, rng = options.side // 2, 64, np.random.default_rng(0)
    matrix = placed((0, 0), 0, SHIFT, TURN)
    turn = np.linalg.inv(matrix)
    cube = rng.integers(0, 65535, (side, side, channels), np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(cube, -1, 0))
    calls = {}
    for order in (1, 3):
        calls |= {
            f"channels first, order {order}": lambda o=order: spt.warp_image(
                planes, matrix, order=o, channel_axis=0
            ),
            f"channels last, order {order}": lambda o=order: spt.warp_image(
                cube, matrix, order=o, channel_axis=-1
            ),
            f"one by one, order {order}": lambda o=order: [
                spt.warp_image(plane, matrix, order=o) for plane in planes
            ],
        }
    calls["skimage, channels last, order 1"] = lambda: transform.warp(
        cube, transform.AffineTransform(rotation=TURN, translation=SHIFT), order=1
    )
    if cv2 is not None:
        calls["cv2, one by one, order 1"] = lambda: [
            cv2.warpAffine(plane, turn[:2], (side, side)) for plane in planes
        ]
    for who, call in calls.items():
        repeat = 1 if "skimage" in who else 3
        show(f"cube, {who}", cube.size / 1e6 / timed(call, repeat), "Mpx/s")


def splines(options):
    """Show what one resampling loses of a texture without detail beyond a cutoff."""
    side, shift, rng = options.side // 4, (0.37, -0.61), np.random.default_rng(0)
    frequencies = np.meshgrid(*[np.fft.fftfreq(side)] * 2, indexing="ij")
    for cutoff in (0.125, 0.25, 0.5):
        spectrum = np.fft.fft2(rng.standard_normal((side, side)))
        spectrum *= np.hypot(*frequencies) < cutoff
        phase = sum(axis * step for axis, step in zip(frequencies, shift, strict=True))
        tile = np.fft.ifft2(spectrum).real
        truth = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * phase)).real
        for order in (1, 3, 5):
            moved = spt.warp_image(tile, spt.translation(shift), order=order)
            inside = (slice(24, -24),) * 2
            error = 100 * (moved - truth)[inside].std() / truth[inside].std()
            show(f"error, order {order}, up to {cutoff} cycles/px", error, "% of sd")


class Drawn:
    """A tile that is made whenever a part of it is read."""

    def __init__(self, side, number):
        self.shape, self.dtype = (side, side), np.dtype(np.uint16)
        self.number = number

    def __getitem__(self, key):
        rows, cols = (
            np.arange(*each.indices(size), dtype=np.uint16)
            for each, size in zip(key, self.shape, strict=True)
        )
        return (rows[:, None] ^ cols) + np.uint16(self.number)


def fill_store(kind, side):
    """Render a large mosaic into a store, and show the peak of memory."""
    step = 1843
    count = -(-side // step)
    tiles = [Drawn(2048, n) for n in range(count**2)]
    matrices = [
        placed(index, step, (0.3, 0.4), 0.002) for index in np.ndindex(count, count)
    ]
    bounds = [(0, 0), (side, side)]
    small = [(0, 0), (2000, 2000)]
    spt.warp_composite(tiles, matrices, bounds=small, workers=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "mosaic", (side, side)
        if kind == "memmap":
            out = np.memmap(path, np.uint16, "w+", shape=shape)
        else:
            file = h5py.File(path, "w")
            out = file.create_dataset("mosaic", shape, np.uint16, chunks=(512, 512))
        start = time.perf_counter()
        spt.warp_composite(tiles, matrices, bounds=bounds, out=out, workers=2)
        spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    label = f"mosaic of {side} x {side} in {kind}"
    show(label, peak, "GB peak,", f"{before:.2f} GB before, {spent:.1f} s")


def memory(options):
    for kind in ("memmap", "h5py"):
        # In a process of its own, whose peak nothing else has raised.
        store = ["--store", kind, "--canvas", str(options.canvas)]
        subprocess.run([sys.executable, __file__, "store", *store], check=True)


def real(options):
    """Show what it takes to stitch a real set of tiles that are in memory."""
    folder = os.environ.get("SPECTRAL_TOOLS_DATA", "")
    paths = sorted(Path(folder).glob("tiles/lscm_speckle_3x4/raw/*.png"))
    if not paths:
        print("no real tiles found")
        return
    tiles = [io.imread(path) for path in paths]
    layout = Path(paths[0].parent, "TileConfiguration.txt").read_text().splitlines()
    lines = [line.split(";") for line in layout if line.count(";") == 2]
    stage = {
        name.split(".")[0]: [*map(float, xy.strip(" ()\n").split(","))][::-1]
        for name, _, xy in lines
    }
    positions = np.array([stage[path.stem] for path in paths], dtype=float)
    links = spt.overlapping_links(positions, tiles[0].shape)

    def stitch():
        matches = spt.match_tiles(tiles, links, positions=positions, max_shift=60)
        placed = spt.solve_rigid(
            matches.links,
            matches.reference_points,
            matches.moving_points,
            covariance=matches.covariance,
        )
        return spt.warp_composite(tiles, placed.matrices)

    pixels = sum(tile.size for tile in tiles) / 1e6
    show(
        f"{len(tiles)} real tiles",
        1e3 * timed(stitch, options.repeat) / pixels,
        "ms per Mpx",
    )


def store(options):
    fill_store(options.store, options.canvas)


def main():
    parts = (blends, growth, threads, cubes, splines, memory, real)
    names = {part.__name__: part for part in (*parts, peers, store)}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=[each.__name__ for each in parts])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--grid", type=int, default=4)
    parser.add_argument("--canvas", type=int, default=20_000)
    parser.add_argument("--store", default="memmap")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    for name in options.parts:
        names[name](options)


if __name__ == "__main__":
    main()

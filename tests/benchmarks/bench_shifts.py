"""How fast a shift is estimated, beside three bare transforms and scikit-image.

    python tests/benchmarks/bench_shifts.py [--repeat 15]

The shortest of several calls, in milliseconds, on one core. A phase correlation
cannot do without three transforms, two there and one back, in single precision; the
ratio to these says what everything else costs.
"""

# ruff: noqa: T201

import argparse
import os
import time

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
from scipy import fft
from skimage.registration import phase_cross_correlation

import spectral_tools as spt

CASES = [  # shape, options
    ((256, 256), {}),
    ((512, 512), {}),
    ((1024, 1024), {}),
    ((2048, 2048), {}),
    ((512, 52), {"max_shift": 24}),
]


def timed(call, repeat):
    """Return the shortest of several times in ms, after a call that compiles."""
    call()
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return 1e3 * min(spent)


def three_transforms(reference, moving):
    """Do the least that a phase correlation needs."""
    fft.rfft2(reference)
    return fft.irfft2(fft.rfft2(moving), reference.shape)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=15)
    repeat = parser.parse_args().repeat
    print(
        f"{'shape':14}{'3 FFTs':>9}{'ours':>9}{'/ FFTs':>8}{'skimage':>9}{'/ ours':>8}"
    )
    for shape, options in CASES:
        field = spt.gaussian_texture([n + 40 for n in shape], rng=1)
        made = spt.simulate_pair(field, shape, (7.3, -4.6), noise_sigma=0.1, rng=1)
        images = made.reference.astype(np.float32), made.moving.astype(np.float32)
        few = max(3, repeat // max(1, shape[1] // 512))
        bare = timed(lambda pair=images: three_transforms(*pair), few)
        ours = timed(lambda p=images, o=options: spt.phase_correlate(*p, **o), few)
        peer = timed(
            lambda pair=images: phase_cross_correlation(*pair, upsample_factor=100), few
        )
        print(
            f"{'x'.join(map(str, shape)):14}{bare:9.2f}{ours:9.2f}{ours / bare:8.1f}"
            f"{peer:9.2f}{peer / ours:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""How well and how fast series are aligned, beside scikit-image and bare transforms.

    python tests/benchmarks/bench_series.py [real] [speed] [memory] [dust]

Real series are in the folder that SPECTRAL_TOOLS_DATA names. Errors are in pixels, times
on one core, and the memory is the largest that the process has held so far.
"""

# ruff: noqa: T201

import os
import resource
import sys
import time

if __name__ == "__main__":  # before NumPy is loaded, and only for this script
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

from pathlib import Path

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter
from skimage import io
from skimage.registration import phase_cross_correlation

import spectral_tools as spt

try:
    import pystackreg
except ImportError:
    pystackreg = None


def moved_exactly(frames, shifts, margin=16):
    """Move frames by turning the phases of their spectra, mirrored at the ends."""
    wide = np.pad(frames, [(0, 0), (margin,) * 2, (margin,) * 2], mode="reflect")
    shape = wide.shape[1:]
    rows, cols = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    turns = shifts[:, :1, None] * rows + shifts[:, 1:, None] * cols
    moved = fft.irfft2(fft.rfft2(wide) * np.exp(2j * np.pi * turns), shape)
    return moved[:, margin:-margin, margin:-margin]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def centred(values):
    return values - values.mean(axis=0)


def bound_of(frames):
    """Return the least error of a frame at rest against the mean of all.

    The template is known at each frequency; what frames differ from it is noise, whose
    spectrum is averaged over all frames.
    """
    window = np.sqrt(np.outer(*map(np.hanning, frames.shape[1:])) * 4)
    spectra = fft.fft2((frames - frames.mean(axis=0).mean()) * window)
    mean = spectra.mean(axis=0)
    noise = (np.abs(spectra - mean) ** 2).mean(axis=0) * len(frames) / (len(frames) - 1)
    signal = np.maximum(np.abs(mean) ** 2 - noise / len(frames), 0)
    information = [
        np.sum((2 * np.pi * fft.fftfreq(n).reshape(shape)) ** 2 * signal / noise)
        for n, shape in zip(frames.shape[1:], [(-1, 1), (1, -1)], strict=True)
    ]
    return float(np.sqrt(np.mean(1 / np.array(information))))


def peer(frames, reference):
    return np.array(
        [phase_cross_correlation(reference, f, upsample_factor=50)[0] for f in frames]
    )


def align(frames):
    return spt.align_series(frames).shifts


def to_first(frames):
    return peer(frames, frames[0])


def to_mean(frames):
    return peer(frames, frames.mean(axis=0))


def with_pystackreg(frames):
    registration = pystackreg.StackReg(pystackreg.StackReg.TRANSLATION)
    return -registration.register_stack(frames)[:, [1, 0], 2]


def mouse(folder):
    """Move a movie by known shifts, and find them.

    What is found of the movie as it is, which is not quite at rest, is taken off the
    result of each program. Noise moves along with the frames and cancels there, so that
    the difference may lie below the bound of a single frame.
    """
    frames = io.imread(folder / "thunder_mouse" / "mouse_500x64x64.tif").astype(float)
    still = align(frames)
    print(f"mouse: motion left in the movie {rms(still):.3f} px rms with the noise of")
    print(f"finding it; the bound of one frame is {bound_of(frames):.3f} px")
    cases = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        drift = gaussian_filter(rng.normal(size=(20, 2)), (1.5, 0)) * 10
        cases.append((f"20 frames, smooth drift {seed}", drift))
    for path in sorted((folder / "thunder_mouse").glob("*.csv")):
        trace = np.loadtxt(path, delimiter=",", comments="#")[:500]
        cases.append((path.stem, trace))
    programs = [align, to_first, to_mean]
    programs += [] if pystackreg is None else [with_pystackreg]
    for title, truth in cases:
        rest = frames[: len(truth)]
        moving = moved_exactly(rest, truth)
        print(title)
        for program in programs:
            error = centred(program(moving) - program(rest) - truth)
            whole = centred(program(moving) - truth)
            print(
                f"  {program.__name__:16} max {np.abs(error).max():7.3f}"
                f"  rms {rms(error):7.3f}  with noise and rest {rms(whole):7.3f}",
                flush=True,
            )


def beads(folder):
    frames = io.imread(folder / "tfm_beads" / "tfm_199.tif")
    halves = frames[:, :, :64], frames[:, :, 64:]
    for kwargs in ({}, {"reach": 4}, {"reference": "previous"}):
        jitter = []
        for part in (frames, *halves):
            shifts = spt.align_series(part, **kwargs).shifts
            jitter.append(shifts - gaussian_filter(shifts, (5, 0)))
        one, two = jitter[1].ravel(), jitter[2].ravel()
        print(
            f"beads {kwargs}: jitter {rms(jitter[0]):.4f}, of halves {rms(one):.4f}"
            f" {rms(two):.4f}, shared {np.corrcoef(one, two)[0, 1]:.3f},"
            f" not shared {rms(one - two) / 2:.4f}"
        )


def few(folder):
    frames = io.imread(folder / "pc12" / "pc12-unreg.tif")
    turboreg = [(0, 0), (8.52, -0.09), (13.67, 0.16), (15.33, 0.76), (12.18, -0.29)]
    for kwargs in ({}, {"reach": 4}, {"reference": "first"}):
        shifts = spt.align_series(frames, **kwargs).shifts
        worst = np.abs(shifts - shifts[0] - turboreg).max()
        print(f"pc12 {kwargs}: at most {worst:.3f} from TurboReg")
    scans = [
        np.load(folder / "afm_pzt_repeat" / f"PZT_final000{n}.npz") for n in (1, 2, 3)
    ]
    for channel in range(8):
        frames = np.stack([scan[f"Channel_{channel}"] for scan in scans])
        found = spt.align_series(frames)
        pairs = [spt.phase_correlate(frames[0], frames[n]) for n in (1, 2)]
        print(
            f"afm channel {channel}: series",
            (found.shifts - found.shifts[0])[1:].round(2).tolist(),
            [str(each) for each in found.outcome],
            "pairs",
            [(p.shift.round(2).tolist(), str(p.outcome)) for p in pairs],
        )


def real():
    folder = Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "time"
    mouse(folder)
    beads(folder)
    few(folder)


def least_time(function, repeats):
    """Return the least time on the processor of some calls, and the last result."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        spent.append(time.process_time() - start)
    return min(spent), result


def speed():
    for count in (200, 1000):
        rng = np.random.default_rng(0)
        scene = spt.gaussian_texture((560, 560), rng=0).astype(np.float32)
        truth = rng.integers(0, 40, (count, 2))
        frames = np.stack([scene[r : r + 512, c : c + 512] for r, c in truth])
        for n in range(count):
            frames[n] += 0.3 * rng.standard_normal((512, 512), np.float32)
        spt.align_series(frames[:8])
        bare = min(least_time(lambda f=f: fft.rfft2(f), 3)[0] for f in frames[:20])
        spent, found = least_time(lambda f=frames: spt.align_series(f), 3)
        times, out = [spent], np.empty_like(frames)
        for order in (1, 3):
            moving = least_time(
                lambda f=frames, order=order, out=out, shifts=found.shifts + 0.3: (
                    spt.apply_shifts(f, shifts, order=order, out=out)
                ),
                3,
            )
            times.append(moving[0])
        align, first, third = (each / count for each in times)
        print(
            f"512 x 512, {count} frames: one FFT {1e3 * bare:.2f} ms, align"
            f" {1e3 * align:.2f} ms ({align / bare:.1f} FFTs), apply order 1"
            f" {1e3 * first:.2f}, order 3 {1e3 * third:.2f} ms; together"
            f" {1 / (align + first):.0f} and {1 / (align + third):.0f} frames/s",
            flush=True,
        )


class Nowhere:
    """A store that forgets."""

    def __init__(self, shape):
        self.shape = shape

    def __setitem__(self, key, value):
        pass


def memory():
    for side, counts in ((64, (100, 1000, 10000)), (512, (100, 400))):
        scene = spt.gaussian_texture((side + 20, side + 20), rng=0).astype(np.float32)
        places = np.random.default_rng(0).integers(0, 20, (max(counts), 2)).tolist()
        for count in counts:

            def frames(count=count, side=side, scene=scene, places=places):
                rng = np.random.default_rng(1)
                for row, col in places[:count]:
                    noise = rng.standard_normal((side, side), np.float32)
                    yield scene[row : row + side, col : col + side] + 0.3 * noise

            found = spt.align_series(frames())
            store = Nowhere((count, side, side))
            spt.apply_shifts(frames(), found.shifts, out=store)
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{side} x {side}, {count} frames: {most:.0f} MB", flush=True)


def dust():
    shape = (128, 128)
    for size in (1.0, 4.0, 10.0):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            truth = np.clip(rng.normal(scale=size, size=(32, 2)), -29, 29)
            scene = spt.gaussian_texture((200, 200), rng=seed)
            slope = np.linspace(-5, 5, 128)[:, None] * np.ones(shape)
            specks = 3 * spt.gaussian_texture(shape, cutoff=0.4, rng=seed + 50)
            found = [
                spt.align_series(
                    spt.simulate_series(
                        scene, truth, shape, noise_sigma=0.3, rng=9, pattern=pattern
                    ).frames
                ).shifts
                for pattern in (None, slope, specks)
            ]
            changes = [np.abs(each - found[0]).max() for each in found[1:]]
            print(
                f"motion {size:4} seed {seed}: gradient changes {changes[0]:.4f},"
                f" dust {changes[1]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["real", "speed", "memory", "dust"]
    for part in chosen:
        {"real": real, "speed": speed, "memory": memory, "dust": dust}[part]()

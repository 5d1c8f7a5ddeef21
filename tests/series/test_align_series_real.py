"""Movies and stacks that microscopes took, in the folder SPECTRAL_TOOLS_DATA names."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import fft
from scipy.ndimage import gaussian_filter
from skimage import io

import spectral_tools as spt

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder():
    return Path(os.environ["SPECTRAL_TOOLS_DATA"]) / "time"


def moved_exactly(frames, shifts):
    """Move frames by turning the phases of their spectra, mirrored at the ends."""
    margin = 16
    wide = np.pad(frames, [(0, 0), (margin,) * 2, (margin,) * 2], mode="reflect")
    shape = wide.shape[1:]
    rows, cols = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    turns = shifts[:, :1, None] * rows + shifts[:, 1:, None] * cols
    moved = fft.irfft2(fft.rfft2(wide) * np.exp(2j * np.pi * turns), shape)
    return moved[:, margin:-margin, margin:-margin]


def test_fake_drift_of_a_mouse_brain_is_found(folder):
    frames = io.imread(folder / "thunder_mouse" / "mouse_500x64x64.tif")[:20]
    frames = frames.astype(float)
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.normal(size=(20, 2)), (1.5, 0)) * 10
    still = spt.align_series(frames).shifts
    found = spt.align_series(moved_exactly(frames, truth)).shifts
    error = found - still - truth
    error -= error.mean(axis=0)
    # A plain mean of moving frames is wrong by 4 px and more in single frames.
    assert np.abs(error).max() < 0.5
    # The noise alone allows 0.007 px rms; where weights are common to all frames, their
    # flicker makes that twice as much.
    assert np.sqrt((error**2).mean()) < 1.3 * 0.0071


@pytest.mark.parametrize(("kwargs", "atol"), [({"reach": 4}, 0.15), ({}, 0.2)])
def test_a_moving_cell_lies_where_turboreg_puts_it(folder, kwargs, atol):
    frames = io.imread(folder / "pc12" / "pc12-unreg.tif")
    shifts = spt.align_series(frames, **kwargs).shifts
    # Translations found between its result and the frames. The cell of the first frame
    # has another shape: against the mean of the others its error bar is 0.1 px.
    turboreg = [(8.52, -0.09), (13.67, 0.16), (15.33, 0.76), (12.18, -0.29)]
    np.testing.assert_allclose(shifts[1:] - shifts[0], turboreg, rtol=0, atol=atol)


@pytest.mark.parametrize("channel", [1, 3])
def test_repeated_scans_of_a_tip_agree_in_what_they_show(folder, channel):
    scans = [
        np.load(folder / "afm_pzt_repeat" / f"PZT_final000{n}.npz") for n in (1, 2, 3)
    ]
    frames = np.stack([scan[f"Channel_{channel}"] for scan in scans])
    shifts = spt.align_series(frames).shifts
    # Scans creep: the three pairs of each channel do not close by up to a pixel.
    expected = [(1.7, -3.3), (4.4, -3.5)]
    np.testing.assert_allclose(shifts[1:] - shifts[0], expected, rtol=0, atol=0.7)


@pytest.mark.parametrize("channel", [0, 5, 6, 7])
def test_scans_that_show_the_bow_or_only_noise_are_not_believed(folder, channel):
    scans = [
        np.load(folder / "afm_pzt_repeat" / f"PZT_final000{n}.npz") for n in (1, 2, 3)
    ]
    found = spt.align_series(np.stack([scan[f"Channel_{channel}"] for scan in scans]))
    assert spt.Outcome.MATCHED not in set(found.outcome)

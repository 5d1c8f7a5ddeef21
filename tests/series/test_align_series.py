"""Movies and stacks whose shifts are known."""

import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import spectral_tools as spt
from spectral_tools._series import frame_links
from spectral_tools._series.align_series import complete_walk
from tests.sweeps import sweep


def movie(truth, *, shape=(96, 112), noise=0.3, rng=0, **kwargs):
    """Frames of one texture at known shifts, with a room of 30 pixels."""
    size = [n + 60 for n in shape]
    scene = spt.gaussian_texture(size, rng=rng)
    return spt.simulate_series(scene, truth, shape, noise_sigma=noise, rng=9, **kwargs)


def origin_of(truth, shape=(96, 112)):
    """Where the common origin of the frames of `movie` lies in the texture."""
    low, high = np.floor(truth.min(axis=0)), np.ceil(truth.max(axis=0))
    size = np.array(shape)
    return (size + 60 - (size + high - low)) // 2 - low


def walk(count, step=1.5, ndim=2, rng=1):
    steps = np.random.default_rng(rng).normal(scale=step, size=(count, ndim))
    return np.cumsum(steps, axis=0) * min(1, 12 / np.abs(steps.cumsum(axis=0)).max())


def error_of(found, truth):
    return found - (truth - truth.mean(axis=0))


def chi2(error, covariance):
    weighed = np.linalg.solve(covariance, error[..., None])[..., 0]
    return (error * weighed).sum() / error.size


TRUTH = walk(24)
SERIES = movie(TRUTH)


@pytest.fixture(scope="module")
def aligned():
    """What the movie is found to be: not before a test asks for it."""
    return spt.align_series(SERIES.frames)


# Shifts


def test_shifts_are_right_to_their_error_bars(aligned):
    error = error_of(aligned.shifts, TRUTH)
    # 0.02 px is the bound of one such frame; the largest of 48 is 3 of them.
    assert np.abs(error).max() < 0.06
    assert 0.6 < chi2(error, aligned.covariance) < 1.5  # 48 numbers: 1 +- 0.2


def test_error_is_at_the_bound_of_a_perfect_template(aligned):
    """The bound: the Fisher information of one frame against the scene itself."""
    scene = spt.gaussian_texture((156, 172), rng=0)[30:-30, 30:-30]
    slopes = np.gradient(scene)
    # Gradients of neighbours lose the highest frequencies, which errs to the lax side.
    fisher = [(slope**2).sum() / 0.3**2 for slope in slopes]
    bound = np.sqrt(np.mean(1 / np.array(fisher)))
    rms = np.sqrt((error_of(aligned.shifts, TRUTH) ** 2).mean())
    assert rms < 1.3 * bound


def test_mean_shift_is_zero(aligned):
    assert_allclose(aligned.shifts.mean(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("reference", ["first", 5])
def test_shifts_lead_to_the_frame_that_was_named(reference):
    found = spt.align_series(SERIES.frames, reference=reference)
    number = 0 if reference == "first" else reference
    assert_array_equal(found.shifts[number], 0)
    # The noise of the reference is in all: its error is that of two frames.
    assert_allclose(found.shifts, TRUTH - TRUTH[number], rtol=0, atol=0.1)


def test_shifts_lead_to_an_image_that_was_given():
    image = movie(np.zeros((2, 2)), noise=0).frames[0]
    found = spt.align_series(SERIES.frames, reference=image)
    moved = TRUTH + origin_of(TRUTH) - origin_of(np.zeros((2, 2)))
    assert_allclose(found.shifts, moved, rtol=0, atol=0.08)


@pytest.mark.parametrize("kwargs", [{"reach": 3}, {"reference": "previous"}])
def test_frames_can_be_joined_to_their_neighbours(kwargs):
    found = spt.align_series(SERIES.frames, **kwargs)
    error = found.shifts - TRUTH
    error -= error.mean(axis=0)
    assert np.abs(error).max() < (0.1 if "reach" in kwargs else 0.3)


def test_wide_reach_beats_the_chain_of_neighbours():
    errors = [
        np.std(spt.align_series(SERIES.frames, **kwargs).shifts - TRUTH, axis=0)
        for kwargs in ({"reach": 4}, {"reference": "previous"})
    ]
    assert errors[0].mean() < 0.85 * errors[1].mean()


def test_volumes_move_along_three_axes():
    truth = walk(8, step=1.0, ndim=3)
    scene = spt.gaussian_texture((60, 84, 80), rng=3)
    series = spt.simulate_series(scene, truth, (32, 56, 50), noise_sigma=0.3, rng=4)
    found = spt.align_series(series.frames)
    assert found.shifts.shape == (8, 3)
    assert_allclose(error_of(found.shifts, truth), 0, rtol=0, atol=0.05)


def drifting(count, step, noise=0.3, shape=(96, 96)):
    """Frames that go on and on in one direction, and the bound of their error."""
    truth = np.arange(count)[:, None] * np.array([step, 0.6 * step])
    size = [
        int(np.ceil(n + np.ptp(t))) + 8 for n, t in zip(shape, truth.T, strict=True)
    ]
    scene = spt.gaussian_texture(size, rng=3)
    powers = [np.mean(slope**2) for slope in np.gradient(scene)]
    bound = noise / np.sqrt(np.mean(powers) * np.prod(shape))
    frames = spt.simulate_series(scene, truth, shape, noise_sigma=noise, rng=4).frames
    return truth, frames, bound


@pytest.mark.parametrize(("count", "step"), [(20, 3.3), (3, 8.3), (2, 5.3)])
def test_frames_at_the_ends_of_a_drift_do_not_match_themselves(count, step):
    truth, frames, bound = drifting(count, step)
    found = spt.align_series(frames)
    error = error_of(found.shifts, truth)
    # Where a frame lies alone it tells nothing: the bound is that of whole frames.
    assert np.sqrt((error**2).mean()) < 1.5 * bound
    assert chi2(error, found.covariance) < 1.8  # 4 numbers at least: 1 +- 0.7


def test_error_bars_of_few_smooth_frames_hold():
    """What a frame adds to the mean must not be taken for agreement."""
    errors, covariance = [], []
    for number in range(6):
        rng = np.random.default_rng(number)
        truth = rng.uniform(-2.5, 2.5, (3, 2))
        scene = spt.gaussian_texture((120, 120), cutoff=0.15, rng=number)
        made = spt.simulate_series(scene, truth, (96, 96), noise_sigma=0.3, rng=rng)
        found = spt.align_series(made.frames)
        errors.append(error_of(found.shifts, truth))
        covariance.append(found.covariance)
    value = chi2(np.concatenate(errors), np.concatenate(covariance))
    # 36 numbers: 1 +- 0.24.
    assert 0.4 < value < 1.5


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_very_smooth_scenes_are_found_to_the_bound(noise):
    truth = walk(24)
    scene = spt.gaussian_texture((188, 188), cutoff=0.05, rng=0)
    movie = spt.simulate_series(scene, truth, (128, 128), noise_sigma=noise, rng=9)
    found = spt.align_series(movie.frames)
    slope = np.mean([(each**2).mean() for each in np.gradient(scene)])
    bound = noise / np.sqrt(slope * 128 * 128)
    error = error_of(found.shifts, truth)
    # 48 numbers scatter by 10 %, and the frame itself counts less than the scene.
    assert np.sqrt((error**2).mean()) < 1.3 * bound
    assert chi2(error, found.covariance) < 1.8  # 48 numbers: 1 +- 0.2


@pytest.mark.parametrize("count", sweep([6, 12, 30], 0, 2))
@pytest.mark.parametrize("blur", sweep([1, 2, 4], 0, 2))
@pytest.mark.parametrize("noise", [0, 0.001])
def test_frames_without_noise_are_found(count, blur, noise):
    rng = np.random.default_rng(count)
    scene = ndimage.gaussian_filter(rng.normal(size=(180, 190)), blur)
    scene /= scene.std()
    truth = rng.integers(-4, 5, (count, 2))
    frames = np.stack([scene[40 - r : 140 - r, 40 - c : 150 - c] for r, c in truth])
    found = spt.align_series(frames + noise * rng.normal(size=frames.shape))
    # The frames end at other places of a scene whose blobs are 10 px and more wide.
    assert np.abs(error_of(found.shifts, -truth)).max() < (0.05 if blur == 4 else 0.005)


def test_drift_may_go_beyond_half_a_frame():
    size = 96
    steps = np.linspace(0, 1.5 * size, 60)[:, None] * (1, 0.3)
    truth = steps + np.random.default_rng(0).normal(size=steps.shape)
    scene = spt.gaussian_texture((260, 160), rng=0)
    movie = spt.simulate_series(scene, truth, (size, size), noise_sigma=0.3, rng=9)
    found = spt.align_series(movie.frames)
    assert {str(each) for each in found.outcome} <= {"matched", "ambiguous"}
    # 0.02 px is the bound against the whole scene; each place is seen by two frames of
    # three, and errors of neighbours add up on the way.
    assert np.abs(error_of(found.shifts, truth)).max() < 0.15


def test_frames_beyond_what_is_searched_are_not_believed_at_their_alias():
    truth, frames, _ = drifting(9, 16.4)
    found = spt.align_series(frames)
    believed = found.outcome == spt.Outcome.MATCHED
    error = found.shifts - truth
    error -= np.median(error[believed], axis=0)
    assert believed.sum() >= 4
    assert np.abs(error[believed]).max() < 0.2  # Ten of its standard deviations.


def test_frame_that_matches_no_other_is_not_believed():
    noise = np.random.default_rng(1).normal(size=(3, 64, 64))
    found = spt.align_series(noise)
    assert spt.Outcome.MATCHED not in set(found.outcome)
    assert np.isinf(found.covariance[:, 0, 0]).all()


# Scenes that do not tell


def frames_of(scene, truth, noise, rng=0):
    """Frames that show a function of the place, with noise."""
    rows, cols = np.indices((96, 112)).astype(float)
    frames = np.stack([scene(rows + r, cols + c) for r, c in truth])
    return frames + noise * np.random.default_rng(rng).normal(size=frames.shape)


def lattice(period, defect):
    def scene(rows, cols):
        waves = sum(np.cos(2 * np.pi * each / period) for each in (rows, cols))
        apart = (rows - 48) ** 2 + (cols - 56) ** 2
        return waves + defect * np.exp(-apart / 32)

    return scene


def is_wrong(found, truth):
    """Which frames are believed without doubt, and lie elsewhere than most of these."""
    sure = found.outcome == spt.Outcome.MATCHED
    error = found.shifts - truth
    if sure.any():
        error -= np.median(error[sure], axis=0)
    return sure & (np.abs(error) > 1).any(axis=1)


@pytest.mark.parametrize("noise", sweep([0.05, 0.3], 1))
@pytest.mark.parametrize("way", [(1, 0), (0.8, 0.6)])
def test_shifts_along_an_edge_are_not_known(way, noise):
    truth = np.random.default_rng(0).normal(scale=2, size=(12, 2))
    frames = frames_of(
        lambda r, c: np.tanh((way[0] * (r - 48) + way[1] * (c - 56)) / 1.5),
        truth,
        noise,
    )
    found = spt.align_series(frames)
    assert spt.Outcome.MATCHED not in set(found.outcome)
    known = found.outcome == spt.Outcome.AMBIGUOUS
    assert known.sum() >= 10
    along = np.array([-way[1], way[0]])
    spread = np.sqrt(along @ found.covariance[known] @ along)
    # Half a frame is searched: anything within that has a standard deviation of 28 px.
    assert np.median(spread) > 20


@pytest.mark.parametrize("reference", ["template", "first"])
def test_stripes_are_ambiguous_for_any_reference(reference):
    profile = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=300), 1.5)
    profile /= profile.std()
    truth = np.random.default_rng(0).normal(scale=2, size=(12, 2))
    frames = frames_of(
        lambda r, c: np.interp(r + 100 + 0 * c, np.arange(300), profile), truth, 0.3
    )
    found = spt.align_series(frames, reference=reference)
    # A frame that is the reference lies where it is.
    first = int(reference == "first")
    assert set(found.outcome[first:]) == {spt.Outcome.AMBIGUOUS}
    assert found.covariance[first:, 1, 1].min() > 20**2
    # Across the stripes all is told, to about 0.01 px.
    assert np.median(found.covariance[first:, 0, 0]) < 0.05**2


@pytest.mark.parametrize(
    ("period", "reference"),
    sweep([(8, "template"), (12, "template"), (8, "first")], 0, 2),
)
def test_periods_of_a_noisy_lattice_are_not_told(period, reference):
    truth = np.random.default_rng(1).normal(scale=4, size=(16, 2))
    frames = frames_of(lattice(period, 0), truth, 0.3)
    found = spt.align_series(frames, reference=reference)
    # Without noise in its shift, the reference itself is matched.
    sure = found.outcome[reference == "first" :] == spt.Outcome.MATCHED
    assert not sure.any()
    assert (found.outcome == spt.Outcome.AMBIGUOUS).sum() >= 12


@pytest.mark.parametrize(
    ("period", "noise"), sweep([(8, 0.3), (10, 0.3), (12, 1.0)], 0)
)
def test_a_defect_tells_the_periods_of_a_lattice(period, noise):
    truth = np.random.default_rng(1).normal(scale=4, size=(16, 2))
    found = spt.align_series(frames_of(lattice(period, 6), truth, noise, rng=1))
    assert {str(each) for each in found.outcome} == {"matched"}
    assert np.abs(error_of(found.shifts, truth)).max() < 0.15  # Ten of its error bars.


@pytest.mark.parametrize(("period", "rng"), sweep([(8, 4), (8, 6), (12, 2)], 1))
def test_no_frame_stays_a_period_of_a_lattice_away(period, rng):
    # Where the defect is half out of the first frame the first match may be wrong.
    truth = np.random.default_rng(rng).normal(scale=4, size=(16, 2))
    found = spt.align_series(frames_of(lattice(period, 6), truth, 0.3, rng=rng))
    assert (found.outcome == spt.Outcome.MATCHED).all()
    assert not is_wrong(found, truth).any()


@pytest.mark.parametrize(("noise", "rng"), [(0, 2), (1e-3, 3)])
def test_very_few_hills_do_not_mislead(noise, rng):
    chance = np.random.default_rng(rng)
    scene = ndimage.gaussian_filter(chance.normal(size=(300, 300)), 12)
    scene /= scene.std()
    truth = chance.integers(-5, 6, (12, 2))
    frames = np.stack([scene[100 + r : 164 + r, 100 + c : 164 + c] for r, c in truth])
    found = spt.align_series(frames + noise * chance.normal(size=frames.shape))
    assert not is_wrong(found, truth).any()


def test_error_bars_without_noise_are_not_below_what_fits_settle_to():
    truth = np.random.default_rng(1).normal(scale=3, size=(12, 2))
    scene = spt.gaussian_texture((188, 188), cutoff=0.25, rng=0)
    frames = spt.simulate_series(scene, truth, (128, 128), rng=9).frames
    found = spt.align_series(frames)
    error = error_of(found.shifts, truth)
    sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert np.abs(error / sigma).max() < 4


@pytest.mark.parametrize("noise", sweep([0.1, 0.5], 1))
@pytest.mark.parametrize(
    "kwargs", [{"reach": 3}, {"reach": 1}, {"reference": "previous"}]
)
def test_error_bars_of_links_that_share_frames_are_honest(kwargs, noise):
    total = []
    for seed in range(4):
        truth = np.random.default_rng(seed).uniform(-5, 5, (10, 2))
        frames = movie(truth, shape=(80, 80), noise=noise, rng=seed).frames
        found = spt.align_series(frames, **kwargs)
        error, covariance = found.shifts - truth, found.covariance
        if "reference" in kwargs:
            error, covariance = (error - error[0])[1:], covariance[1:]
        else:
            error -= error.mean(axis=0)
        total.append(chi2(error, covariance))
    # Links that were independent would be off by factors of 2 and 0.3. Four times
    # twenty numbers, which are not independent either: 1 +- 0.3.
    assert 0.55 < np.mean(total) < 1.6


def test_error_bars_of_a_chain_grow_where_the_scene_changes():
    total = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scenes = np.array(
            [spt.gaussian_texture((130, 130), rng=100 * seed + n) for n in range(22)]
        )
        scenes = ndimage.gaussian_filter1d(scenes, 2, axis=0)[5:17]
        truth = rng.uniform(-4, 4, (12, 2))
        frames = np.array(
            [
                ndimage.shift(scene / scenes.std(), -each, order=5, mode="mirror")
                for scene, each in zip(scenes, truth, strict=True)
            ]
        )[:, 17:-17, 17:-17]
        frames += 0.3 * rng.normal(size=frames.shape)
        found = spt.align_series(frames, reference="previous", pattern=0)
        error = found.shifts - found.shifts[0] - (truth - truth[0])
        total.append(chi2(error[1:], found.covariance[1:]))
    # Frames do not share here what links differ by. If they did, this would be 5.
    assert np.mean(total) < 2.5


def test_links_that_test_a_chain_do_not_move_it():
    shifts = spt.align_series(SERIES.frames[:6], reference="previous", pattern=0).shifts
    for n in (2, 4):
        part = spt.align_series(
            SERIES.frames[n : n + 2], reference="previous", pattern=0
        ).shifts
        # Frames come with a common scale, which leaves the last digits.
        assert_allclose(part[1], shifts[n + 1] - shifts[n], rtol=0, atol=1e-4)


def test_chain_says_where_it_is_parted_by_frames_without_texture():
    frames = SERIES.frames[:8].copy()
    frames[0] = np.nan
    found = spt.align_series(frames, reference="previous")
    assert found.outcome[0] == spt.Outcome.NO_TEXTURE
    # The second frame is the origin, and the first one may lie anywhere about there.
    assert_array_equal(found.shifts[1], 0)
    assert_array_equal(found.covariance[1], 0)
    assert found.covariance[0, 0, 0] > 0.25
    assert_allclose(found.shifts[1:], TRUTH[1:8] - TRUTH[1], rtol=0, atol=0.3)


def test_frames_beyond_an_ambiguous_link_are_ambiguous(monkeypatch):
    clear = frame_links.match_neighbors

    def unclear(*args):
        links, shown = clear(*args)
        for n, link in enumerate(links[0]):
            if link.second == 3:
                estimate = replace(link.estimate, outcome=spt.Outcome.AMBIGUOUS)
                links[0][n] = replace(link, estimate=estimate)
        return links, shown

    monkeypatch.setattr(frame_links, "match_neighbors", unclear)
    found = spt.align_series(SERIES.frames[:6], reference="previous")
    assert list(found.outcome) == ["matched"] * 3 + ["ambiguous"] * 3


# Planes


def planes_movie():
    truths = np.stack([walk(10, rng=n) for n in (1, 2, 3)], axis=1)
    frames = np.stack(
        [movie(truths[:, n], rng=n, noise=0.3).frames for n in range(3)], axis=1
    )
    return truths, frames


def test_planes_move_on_their_own():
    truths, frames = planes_movie()
    found = spt.align_series(frames, planes=1)
    assert found.shifts.shape == found.covariance.shape[:-1] == (10, 3, 2)
    assert found.outcome.shape == found.false_alarm.shape == (10, 3)
    error = found.shifts - (truths - truths.mean(axis=0))
    assert np.abs(error).max() < 0.1
    assert found.template.shape == frames.shape[1:]


def test_planes_of_a_group_share_a_shift_and_their_noise():
    truth = walk(12)
    noise = np.random.default_rng(3).normal(scale=2, size=(12, 4, 96, 112))
    frames = movie(truth, noise=0).frames[:, None] + noise
    alone = spt.align_series(frames[:, :1], planes=1).shifts[:, 0]
    shared = spt.align_series(frames, planes=4).shifts[:, 0]
    errors = [np.std(error_of(each, truth)) for each in (alone, shared)]
    # Four times the photons halve the error; 0.75 leaves room for chance.
    assert errors[1] < 0.75 * errors[0]


def test_groups_of_planes_are_found_where_single_planes_are():
    truth = walk(16, step=2.5)
    rng = np.random.default_rng(5)
    frames = np.stack(
        [movie(truth, noise=0, shape=(80, 80), rng=n).frames for n in (4, 5)], axis=1
    )
    frames += rng.normal(scale=2, size=frames.shape)
    found = spt.align_series(frames, planes=2)
    alone = spt.align_series(frames, planes=1)
    believed = found.outcome == spt.Outcome.MATCHED
    assert believed.sum() >= (alone.outcome == spt.Outcome.MATCHED).sum() / 2
    error = found.shifts[:, 0] - truth
    error = error[believed[:, 0]] - error[believed[:, 0]].mean(axis=0)
    # Frames that reach over the end of the picture are as good as others.
    assert chi2(error, found.covariance[believed]) < 1.6


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("reference", ["first", "previous", "image"])
def test_groups_of_planes_follow_a_single_frame(reference, noise):
    rng = np.random.default_rng(1)
    truth = rng.uniform(-5, 5, (8, 2))
    frames = np.stack(
        [
            spt.simulate_series(
                spt.gaussian_texture((130, 130), cutoff=0.2, rng=n),
                truth, (96, 96), noise_sigma=noise, rng=n,
            ).frames
            for n in (1, 2)
        ],
        axis=1,
    )  # fmt: skip
    # How bright a reference is does not matter.
    given = 3 + 2 * frames[0] if reference == "image" else reference
    found = spt.align_series(frames, planes=2, reference=given)
    assert (found.outcome == spt.Outcome.MATCHED).all()
    away = found.shifts[:, 0] - found.shifts[0, 0] - (truth - truth[0])
    # At noise 1 two frames tell their shift to 0.09 px, and chains are longer.
    assert np.abs(away[1:]).max() < (0.5 if reference == "previous" else 0.3) * noise
    sigma = np.sqrt(np.diagonal(found.covariance[1:, 0], axis1=1, axis2=2))
    assert np.abs(away[1:] / sigma).max() < 4


@pytest.mark.parametrize("reference", ["template", "first"])
@pytest.mark.parametrize("seed", [0, 1])
def test_error_bars_hold_where_a_scene_is_finer_than_its_pixels(reference, seed):
    rng = np.random.default_rng(seed)
    fine = spt.gaussian_texture((336, 336), cutoff=0.25, slope=2.0, rng=rng)
    spline = ndimage.spline_filter(fine / fine.std(), 5)
    truth = rng.uniform(-8, 8, (8, 2))
    places = np.moveaxis(np.indices((128, 128), dtype=float), 0, -1) + 20
    frames = np.stack(
        [
            ndimage.map_coordinates(
                spline,
                np.moveaxis(2 * (places + each), -1, 0),
                order=5,
                prefilter=False,
            )
            for each in truth
        ]
    )
    frames += 0.04 * rng.normal(size=frames.shape)
    found = spt.align_series(frames, reference=reference)
    error = error_of(found.shifts, truth)[1:]
    error -= error.mean(axis=0)
    # A frame at the bound is off by 0.0008 px. Weights common to all frames are
    # swayed by what no sampled template can hold, to 0.002 px and more.
    assert np.sqrt((error**2).mean()) < 0.0014
    sigma = np.sqrt(np.diagonal(found.covariance[1:], axis1=1, axis2=2))
    assert np.sqrt(np.mean((error / sigma) ** 2)) < 1.8


def test_groups_of_planes_can_be_named():
    truths, frames = planes_movie()
    found = spt.align_series(frames[:, [0, 0, 1]], planes=[[0, 1], [2]])
    assert_allclose(
        found.shifts, (truths - truths.mean(axis=0))[:, :2], rtol=0, atol=0.1
    )


# What stays in place


@pytest.fixture(scope="module")
def without_pattern():
    return spt.align_series(movie(walk(32), shape=(112, 112)).frames)


@pytest.mark.parametrize("kind", ["dust", "gradient"])
def test_what_stays_in_place_does_not_pin_the_frames(kind, without_pattern):
    truth = walk(32)
    shape = (112, 112)
    if kind == "dust":
        pattern = 3 * spt.gaussian_texture(shape, cutoff=0.4, rng=7)
    else:
        pattern = np.linspace(-5, 5, 112)[:, None] * np.ones(shape)
    without = without_pattern
    frames = movie(truth, shape=shape, pattern=pattern).frames
    found = spt.align_series(frames)
    assert np.abs(error_of(without.shifts, truth)).max() < 0.05
    # Dust three times as strong as the scene leaves its own noise: 0.05 px at most.
    assert_allclose(found.shifts, without.shifts, rtol=0, atol=0.05)
    seen = np.corrcoef(found.pattern.ravel(), pattern.ravel())[0, 1]
    assert seen > 0.99


@pytest.mark.parametrize("number", sweep(range(1, 5), 0, 2))
def test_five_frames_under_dust_are_told_from_it(number):
    """What moves little is told from what stays slowly, and nothing runs away."""
    truth = np.random.default_rng(number).normal(scale=3, size=(5, 2))
    rng = np.random.default_rng(50 + number)
    dust = ndimage.gaussian_filter(rng.normal(size=(96, 112)), 1.5)
    frames = movie(truth, rng=number).frames + dust / dust.std()
    found = spt.align_series(frames)
    assert np.abs(error_of(found.shifts, truth)).max() < 0.7


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_frames_under_dust_are_not_believed(count):
    """What stays in place may be the scene: few frames cannot tell."""
    truth = np.random.default_rng(1).normal(scale=3, size=(count, 2))
    rng = np.random.default_rng(51)
    dust = ndimage.gaussian_filter(rng.normal(size=(96, 112)), 1.5)
    frames = movie(truth, rng=1).frames + dust / dust.std()
    for kwargs in ({}, {"reference": "previous"}):
        found = spt.align_series(frames, **kwargs)
        # The origin of a chain is where it is.
        first = "reference" in kwargs
        assert spt.Outcome.MATCHED not in set(found.outcome[first:])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_frames_without_dust_are_believed(count):
    still = movie(np.zeros((count, 2)))
    moving = movie(TRUTH[:count])
    for each in (still, moving):
        found = spt.align_series(each.frames)
        assert {str(outcome) for outcome in found.outcome} == {"matched"}


def test_pattern_is_none_where_nothing_stays_in_place(aligned):
    assert not aligned.pattern.any()


def test_still_scene_does_not_move():
    found = spt.align_series(movie(np.zeros((12, 2))).frames)
    assert np.abs(found.shifts).max() < 0.08
    assert set(found.outcome) == {spt.Outcome.MATCHED}


def test_given_pattern_is_taken_off(aligned):
    pattern = 3 * spt.gaussian_texture((96, 112), cutoff=0.4, rng=7)
    frames = movie(TRUTH, pattern=pattern).frames
    found = spt.align_series(frames, pattern=pattern)
    assert_allclose(found.shifts, aligned.shifts, rtol=0, atol=0.02)


# Bad frames


def spoiled():
    frames = SERIES.frames.copy()
    frames[3] = 5.0
    frames[10] = np.nan
    frames[17] = np.random.default_rng(2).normal(size=frames[0].shape)
    return frames


BAD = [3, 10, 17]


@pytest.mark.parametrize("kwargs", [{}, {"reach": 2}, {"reference": "previous"}])
def test_bad_frames_are_bridged_and_cost_no_other(kwargs):
    found = spt.align_series(spoiled(), **kwargs)
    believed = found.outcome == spt.Outcome.MATCHED
    assert_array_equal(np.flatnonzero(~believed), BAD)
    assert (found.false_alarm[BAD] > 1e-3).all()
    error = found.shifts - TRUTH
    error -= error[believed].mean(axis=0)
    assert np.abs(error[believed]).max() < 0.3
    for bad in BAD:
        between = (found.shifts[bad - 1] + found.shifts[bad + 1]) / 2
        assert_allclose(found.shifts[bad], between, rtol=0, atol=0.02)
        assert np.trace(found.covariance[bad]) > 10 * np.trace(found.covariance[0])


def test_dead_pixels_do_not_count(aligned):
    frames = SERIES.frames.copy()
    frames[:, 20:23, 30:60] = np.nan
    found = spt.align_series(frames)
    assert_allclose(found.shifts, aligned.shifts, rtol=0, atol=0.08)


def test_pixels_that_are_not_valid_do_not_count(aligned):
    valid = np.ones(SERIES.frames.shape[1:], bool)
    valid[:, :30] = False
    frames = SERIES.frames.copy()
    frames[:, ~valid] = 30
    found = spt.align_series(frames, valid=valid)
    assert_allclose(found.shifts, aligned.shifts, rtol=0, atol=0.12)


def test_series_without_any_content_is_not_believed():
    found = spt.align_series(np.ones((4, 32, 32)))
    assert set(found.outcome) <= {spt.Outcome.NO_TEXTURE, spt.Outcome.NOT_FOUND}
    assert_array_equal(found.shifts, 0)
    assert np.isinf(found.covariance[:, 0, 0]).all()


def test_unrelated_frames_are_not_believed():
    noise = np.random.default_rng(0).normal(size=(12, 64, 64))
    found = spt.align_series(noise)
    assert (found.false_alarm > 1e-3).sum() >= 10


def test_shift_beyond_the_largest_is_not_believed():
    truth = np.zeros((9, 2))
    truth[4] = (9, 0)
    found = spt.align_series(movie(truth).frames, max_shift=4)
    assert found.outcome[4] != spt.Outcome.MATCHED
    assert np.abs(found.shifts[4]).max() < 1.1


# How frames come in


def test_iterators_and_stores_give_what_arrays_give(tmp_path, aligned):
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["movie"] = SERIES.frames
        stored = spt.align_series(file["movie"])
    listed = spt.align_series(list(SERIES.frames))
    read = spt.align_series(frame for frame in SERIES.frames)
    for found in (stored, listed, read):
        assert_array_equal(found.shifts, aligned.shifts)


def test_long_series_are_read_frame_by_frame():
    """A stored movie hands out single frames, and few of them twice."""

    class Store:
        shape, dtype, reads = (80, 48, 48), np.dtype(np.float32), 0

        def __iter__(self):
            raise AssertionError

        def __getitem__(self, key):
            index = key[0] if isinstance(key, tuple) else key
            assert isinstance(index, int)
            self.reads += 1
            return FRAMES[index]

    truth = walk(80)
    FRAMES = movie(truth, shape=(48, 48)).frames.astype(np.float32)
    store = Store()
    found = spt.align_series(store)
    assert store.reads <= 80 + 40
    assert_array_equal(found.shifts, spt.align_series(FRAMES).shifts)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_frames():
    scene = spt.gaussian_texture((68, 68), rng=0).astype(np.float32)

    def frames(count):
        rng = np.random.default_rng(1)
        for row, col in rng.integers(0, 20, (count, 2)).tolist():
            noise = rng.standard_normal((48, 48), np.float32)
            yield scene[row : row + 48, col : col + 48] + 0.3 * noise

    peaks = []
    for count in (100, 2000):
        tracemalloc.start()
        spt.align_series(frames(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What is found of a frame takes less than 2 kB; the frames themselves take 9.
    assert peaks[1] - peaks[0] < 1900 * 2000


def test_workers_change_nothing(aligned):
    found = spt.align_series(SERIES.frames, workers=3)
    assert_array_equal(found.shifts, aligned.shifts)
    assert_array_equal(found.covariance, aligned.covariance)


def test_integers_are_welcome_and_inputs_stay(aligned):
    frames = (1000 + 200 * SERIES.frames).astype(np.uint16)
    before = frames.copy()
    found = spt.align_series(frames)
    assert_array_equal(frames, before)
    assert_allclose(found.shifts, aligned.shifts, rtol=0, atol=0.005)


def test_template_is_the_scene():
    truth = np.r_[TRUTH, -TRUTH]
    found = spt.align_series(movie(truth).frames)
    origin = origin_of(truth) + truth.mean(axis=0)
    scene = ndimage.shift(spt.gaussian_texture((156, 172), rng=0), -origin, order=5)[
        :96, :112
    ]
    there = np.isfinite(found.template)
    rest = (found.template - scene)[there]
    # 32 frames with noise 0.3; the mean of few at the edges.
    assert rest.std() < 0.1


def test_smooth_drift_is_steadied_by_knowing_its_steps():
    truth = np.cumsum(np.full((40, 2), 0.05), axis=0)
    frames = movie(truth, noise=3).frames
    plain = spt.align_series(frames)
    steady = spt.align_series(frames, step_sigma=0.05)
    errors = [np.std(error_of(each.shifts, truth)) for each in (plain, steady)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        (
            {"frames": np.zeros((1, 8, 8))},
            "`frames` must hold at least 2 frames; got 1",
        ),
        ({"frames": []}, "`frames` must hold at least two frames; got none"),
        ({"frames": iter([np.zeros((8, 8))])}, "at least two frames; got 1"),
        ({"frames": [np.zeros((8, 8)), np.zeros((8, 9))]}, "as frame 1"),
        ({"frames": np.zeros((8, 8))}, r"`frames` must have shape"),
        ({"reference": "middle"}, "`reference` must be one of"),
        ({"reference": 99}, "`reference` must be one of 24 frames; got 99"),
        ({"reference": np.zeros((5, 5))}, "the shape of a frame"),
        ({"reference": np.zeros((96, 112))}, "`reference` must show something"),
        ({"reach": 0}, "`reach` must be at least 1"),
        ({"reach": 2, "reference": "first"}, "`reference` must be left alone"),
        ({"planes": 1}, "`planes` must be None for 2-D frames"),
        ({"max_shift": -1}, "`max_shift` must not be negative"),
        ({"step_sigma": 0}, "`step_sigma` must be finite and greater than 0"),
        ({"pattern": np.zeros((3, 3))}, "`pattern` must be finite and of shape"),
    ],
)
def test_bad_arguments_are_named(kwargs, match):
    arguments = {"frames": SERIES.frames} | kwargs
    with pytest.raises(ValueError, match=match):
        spt.align_series(arguments.pop("frames"), **arguments)


def test_planes_must_be_named_once():
    with pytest.raises(ValueError, match="`planes` must name each of 3 planes"):
        spt.align_series(np.zeros((4, 3, 8, 8)), planes=[[0], [0, 1]])


# The walk


def test_walk_follows_exact_neighbours_linearly():
    shifts = np.array([[0.0], [9], [9], [3]])
    known = np.array([True, False, False, True])
    covariance = np.zeros((4, 1, 1))
    found, spread = complete_walk(shifts, covariance, known, None)
    assert_allclose(found[:, 0], [0, 1, 2, 3], atol=1e-6)
    assert spread[1, 0, 0] > 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**16))
def test_smoothing_is_the_least_squares_solution(count, number):
    rng = np.random.default_rng(number)
    seen, variance = rng.normal(size=(count, 1)), rng.uniform(0.1, 2, count)
    steps = np.diff(np.eye(count), axis=0) / 0.5
    weights = np.diag(1 / (variance + 1e-12))
    normal = weights + steps.T @ steps
    expected = np.linalg.solve(normal, weights @ seen)
    found, spread = complete_walk(
        seen, variance[:, None, None], np.ones(count, bool), 0.5
    )
    assert_allclose(found, expected, atol=1e-9)
    assert_allclose(spread[:, 0, 0], np.diag(np.linalg.inv(normal)), rtol=1e-9)


@pytest.mark.parametrize("reference", ["template", "previous", "image"])
def test_layout_of_frames_in_memory_does_not_matter(reference):
    frames = SERIES.frames[:6]
    given = frames[0] if reference == "image" else reference
    found = spt.align_series(frames, reference=given)
    if reference == "image":
        given = np.asfortranarray(given)
    other = spt.align_series(np.asfortranarray(frames), reference=given)
    assert_array_equal(other.shifts, found.shifts)


@pytest.mark.parametrize("kwargs", [{"reach": 2}, {"reference": "previous"}])
@pytest.mark.parametrize("lead", [(1,), (1, 1)])
def test_chains_of_frames_with_axes_of_one_pixel_are_aligned(lead, kwargs):
    rng = np.random.default_rng(0)
    scene, truth = rng.normal(size=(40, 100)), np.arange(5.0)
    scene = scene if len(lead) == 1 else scene[0]
    frames = np.stack([scene[..., n : n + 64] for n in range(5)])
    frames = frames + rng.normal(scale=0.1, size=frames.shape)
    found = spt.align_series(frames.reshape(5, *lead, *frames.shape[1:]), **kwargs)
    flat = len(lead)
    # Standard errors are about 0.01 px on lines, and add up over four links.
    away = found.shifts[:, -1] - found.shifts[0, -1] - truth
    assert_allclose(away, 0, rtol=0, atol=0.1)
    assert not found.shifts[:, :flat].any()
    assert not found.covariance[1:-1, :flat, :flat].any()


@pytest.mark.parametrize("shape", [(8, 8), (3, 1, 40)])
def test_a_few_frames_of_a_few_pixels_are_aligned_or_not_without_a_warning(shape):
    rng = np.random.default_rng(0)
    frames = np.stack([rng.normal(size=shape)] * 2)
    frames += rng.normal(scale=0.1, size=frames.shape)
    found = spt.align_series(frames)
    assert np.isfinite(found.shifts).all()


def test_frames_of_few_hills_are_told_from_their_rivals():
    outcomes, errors = [], []
    for seed in (2, 7, 10):
        scene = spt.gaussian_texture((160, 160), cutoff=0.1, rng=seed)
        truth = np.random.default_rng(seed).uniform(-20, 20, (10, 2))
        frames = spt.simulate_series(
            scene, truth, (80, 80), noise_sigma=0.3, rng=seed
        ).frames
        found = spt.align_series(frames)
        away = found.shifts - truth
        outcomes += found.outcome.tolist()
        errors.append(np.abs(away - np.median(away, axis=0)).max())
    # The search alone calls nine of these thirty ambiguous.
    assert outcomes.count(spt.Outcome.MATCHED) >= 27
    assert max(errors) < 0.2


# Light that changes


@pytest.mark.parametrize(
    "light",
    [
        np.linspace(1, 0.5, 40),
        np.where(np.arange(40) < 15, 1, 0.4),
        np.geomspace(1, 0.2, 40),
    ],
    ids=["bleaching", "step", "faint"],
)
def test_light_that_changes_is_no_pattern(light):
    truth = np.cumsum(np.random.default_rng(8).normal(0, 1.1, (40, 2)), axis=0)
    scene = spt.gaussian_texture((240, 240), cutoff=0.2, rng=8)
    frames = spt.simulate_series(
        scene, truth, (110, 120), noise_sigma=0.1, rng=8
    ).frames
    found = spt.align_series((frames + 4) * light[:, None, None])
    assert (found.outcome == spt.Outcome.MATCHED).mean() > 0.7
    # Without knowing of the light frames are off by up to 10 px, and matched.
    assert np.abs(error_of(found.shifts, truth)).max() < 0.1
    assert not found.pattern.any()


@pytest.mark.parametrize(("seed", "told"), sweep([(2, True), (0, False)], 0))
def test_faint_frames_under_a_pattern_are_freed_of_it_or_not_believed(seed, told):
    truth = np.random.default_rng(seed + 40).normal(0, 1.5, (20, 2)).cumsum(axis=0)
    scene = spt.gaussian_texture((220, 220), cutoff=0.15, rng=seed + 20)
    pattern = np.random.default_rng(seed + 60).normal(size=(72, 72))
    faint = spt.simulate_series(scene, truth, (72, 72), noise_sigma=1.0, rng=seed)
    found = spt.align_series(faint.frames + pattern)
    if not told:
        # All that it moves is 8 px: the pattern pins it, and it may be what moves.
        assert (found.outcome == spt.Outcome.AMBIGUOUS).all()
        return
    assert (found.outcome == spt.Outcome.MATCHED).mean() > 0.7
    assert np.abs(error_of(found.shifts, truth)).max() < 0.5
    assert np.corrcoef(found.pattern.ravel(), pattern.ravel())[0, 1] > 0.9


def test_frames_that_show_nothing_do_not_hide_the_others():
    truth = np.random.default_rng(9).normal(0, 3, (21, 2))
    frames = movie(truth, rng=9).frames.copy()
    frames[[0, 10, 20]] = np.random.default_rng(9).normal(
        0, 0.3, (3, *frames.shape[1:])
    )
    found = spt.align_series(frames)
    good = np.delete(np.arange(21), [0, 10, 20])
    assert (found.outcome[good] == spt.Outcome.MATCHED).all()
    assert np.abs(error_of(found.shifts[good], truth[good])).max() < 0.3

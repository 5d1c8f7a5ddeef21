"""Whether matches that are believed can be believed, and chance is told as chance."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

import spectral_tools as spt
from spectral_tools._matching import search
from tests.sweeps import sweep

BELIEVED = 1e-3


def dense(rng, shape):
    return spt.gaussian_texture(shape, rng=rng)


def white(rng, shape):
    return rng.normal(size=shape)


def smooth(rng, shape):
    """Hardly anything but slow clouds."""
    return spt.gaussian_texture(shape, cutoff=0.1, slope=4, rng=rng)


def nuclei(rng, shape):
    """A few round spots on a dark ground."""
    count = max(4, rng.poisson(4e-4 * np.prod(shape)))
    field = np.zeros(shape)
    where = tuple(rng.integers(0, n, count) for n in shape)
    field[where] = rng.uniform(0.3, 1, count)
    field = ndimage.gaussian_filter(field, 4, mode="wrap")
    return field / field.std()


def shaded(rng, shape):
    """The same vignetting in all pictures, whatever they show."""
    rows, cols = (np.linspace(-1, 1, n) for n in shape)
    return (3 + dense(rng, shape)) * (1 - 0.25 * (rows[:, None] ** 2 + cols**2))


def lattice(shape, origin, period=12.0):
    rows, cols = np.indices(shape)
    wave = np.cos(2 * np.pi * (rows + origin[0]) / period)
    return wave + np.cos(2 * np.pi * (cols + origin[1]) / period)


KINDS = {
    "dense": (dense, (96, 96), {}),
    "strip": (dense, (256, 26), {"max_shift": 24}),
    "white": (white, (64, 80), {}),
    "smooth": (smooth, (128, 128), {}),
    "nuclei": (nuclei, (144, 144), {}),
    "volume": (dense, (12, 30, 30), {}),
    "cross-correlation": (dense, (96, 96), {"whitening": 0.0}),
    "phase correlation": (dense, (96, 96), {"whitening": 1.0}),
}
#: Of these, so many pairs are tried that the law of their chances shows.
MANY = ["dense", "strip", "white"]


@functools.cache
def unrelated(kind, trials, number=0):
    """Chances of a false alarm for pairs that have nothing in common."""
    scene, shape, options = KINDS[kind]
    rng = np.random.default_rng([number, *kind.encode()])
    return np.array(
        [
            spt.phase_correlate(
                *(scene(rng, shape) + 0.1 * rng.normal(size=shape) for _ in "ab"),
                **options,
            ).false_alarm
            for _ in range(trials)
        ]
    )


def most(trials, share, chance=1e-4):
    """Return the count that is exceeded only by that chance, at a given share."""
    return stats.binom.ppf(1 - chance, trials, share)


@pytest.mark.parametrize("kind", sweep(KINDS, 0, 3, 6))
def test_unrelated_images_are_not_believed(kind):
    trials = 200 if kind in MANY else 60
    alarms = unrelated(kind, trials)
    # Of 60 at 1 in 1000, three or more come once in 30 000 times.
    assert (alarms < BELIEVED).sum() <= most(trials, BELIEVED), np.sort(alarms)[:5]


def test_vignetting_is_matched_nowhere_but_in_its_place():
    rng = np.random.default_rng(3)
    found = [
        spt.phase_correlate(*(shaded(rng, (128, 128)) for _ in "ab")) for _ in range(40)
    ]
    matched = [e.shift for e in found if e.outcome == "matched"]
    # A cloud as wide as the picture is not placed better than to some pixels.
    assert (np.abs(matched) < 8).all()
    # Its own few modes must not be taken for thousands.
    assert len(matched) <= 8


@pytest.mark.parametrize("kind", MANY)
def test_false_alarm_is_uniform_under_chance(kind):
    alarms = unrelated(kind, 200)
    # A share of 0.1 has a standard deviation of 0.02, one of 0.5 of 0.035; three of
    # these, and a factor of two for a tail that is extrapolated from one pair.
    assert 0.05 - 0.06 < (alarms < 0.1).mean() < 0.2 + 0.06
    assert 0.25 - 0.1 < (alarms < 0.5).mean() < 0.75 + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_unrelated_pair_in_a_thousand_is_believed(kind):
    alarms = unrelated(kind, 1000, number=2)
    # The figure is 0.2 %.
    assert (alarms < BELIEVED).sum() <= most(1000, 0.002, 1e-3)
    assert (alarms < 0.01).sum() <= most(1000, 0.02, 1e-3)


def strips(rng, width, level, scene=dense):
    """Two strips of one scene that a stage brought within 12 px of each other."""
    field = scene(rng, (592, 2 * width + 64))
    row, col = rng.integers(-12, 13, 2)
    first = field[40 : 40 + 512, 30 : 30 + width]
    second = field[40 + row : 552 + row, 30 + col : 30 + col + width]
    noise = 10 ** (-level / 20) * rng.normal(size=(2, *first.shape))
    return first + noise[0], second + noise[1], np.array([row, col])


@pytest.mark.parametrize(
    ("width", "level", "scene"),
    [(52, 10, dense), (52, -6, dense), (26, 0, dense), (52, 10, nuclei)],
)
def test_narrow_strips_are_found_in_noise(width, level, scene):
    rng = np.random.default_rng([width, level + 50])
    right = believed = wrong = 0
    for _ in range(30):
        first, second, shift = strips(rng, width, level, scene)
        found = spt.phase_correlate(first, second, max_shift=24)
        good = np.abs(found.shift - shift).max() < 1.5
        right += good
        believed += found.false_alarm < BELIEVED
        wrong += found.outcome == "matched" and not good
    assert wrong == 0
    # At 98 % found, five or more of 30 are lost once in 3000 times.
    lost = most(30, 0.02, 3e-4)
    assert right >= 30 - lost
    # A match of a few cells is found, but rests on few places: not all is believed.
    assert believed >= (15 if scene is nuclei else 30 - lost)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "level", "least"), [(52, -10, 0.98), (26, -6, 0.9), (26, 10, 0.98)]
)
def test_many_narrow_strips_are_found_deep_in_noise(width, level, least):
    rng = np.random.default_rng([width, level + 50, 1])
    right = 0
    for _ in range(100):
        first, second, shift = strips(rng, width, level)
        found = spt.phase_correlate(first, second, max_shift=24)
        right += np.abs(found.shift - shift).max() < 1.5
    assert right >= 100 - most(100, 1 - least, 1e-2)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_a_lattice_is_never_matched_a_period_off(noise):
    rng = np.random.default_rng(4)
    for _ in range(20):
        shift = rng.uniform(-20, 20, 2)
        pictures = [
            lattice((128, 128), origin) + noise * rng.normal(size=(128, 128))
            for origin in ((0, 0), shift)
        ]
        found = spt.phase_correlate(*pictures)
        assert found.outcome != "matched"
        if found.outcome == "ambiguous":
            # Nobody can tell the period; the phase is certain.
            error = (found.shift - shift + 6) % 12 - 6
            assert np.abs(error).max() < 0.5


def test_a_cut_out_of_a_lattice_is_ambiguous():
    rng = np.random.default_rng(8)
    whole = lattice((200, 210), (0, 0))
    part = whole[36:160, 60:100] + 0.3 * rng.normal(size=(124, 40))
    found = spt.phase_correlate(whole + 0.3 * rng.normal(size=whole.shape), part)
    assert found.outcome == "ambiguous"
    # The others are peaks of the search, which edges of the part pull by a pixel or two.
    steps = (found.alternatives[1:] - found.alternatives[0]) / 12
    assert np.abs(steps - np.rint(steps)).max() < 0.25
    assert np.abs(np.rint(steps)).max(axis=1).min() >= 1


def test_a_lattice_close_to_its_place_is_matched():
    rng = np.random.default_rng(4)
    for _ in range(10):
        shift = rng.uniform(-3, 3, 2)
        pictures = [
            lattice((128, 128), origin) + 0.1 * rng.normal(size=(128, 128))
            for origin in ((0, 0), shift)
        ]
        found = spt.phase_correlate(*pictures, max_shift=5)
        # Within 5 px there is one answer: it may be doubted, but must be right.
        assert np.abs(found.shift - shift).max() < 0.1


def test_a_defect_in_a_lattice_decides():
    rng = np.random.default_rng(5)
    wrong = matched = 0
    for _ in range(20):
        shift = rng.integers(-20, 21, 2)
        extra = 0.5 * dense(rng, (200, 200))
        field = lattice((200, 200), (0, 0)) + extra
        row, col = 36 + shift
        first, second = field[36:164, 36:164], field[row : row + 128, col : col + 128]
        noise = 0.1 * rng.normal(size=(2, 128, 128))
        found = spt.phase_correlate(first + noise[0], second + noise[1])
        good = np.abs(found.shift - shift).max() < 0.5
        wrong += found.outcome == "matched" and not good
        matched += good
    assert wrong == 0
    assert matched >= 19


@pytest.mark.parametrize("shift", [(3, 5), (7, -9)])
def test_detail_that_folds_at_half_the_resolution_does_not_mislead(shift):
    # Both images show one texture, whose waves are about three pixels long; what is
    # coarser has nothing in common, as where two focal planes shine through. At half
    # the resolution the texture folds, and fits best half of its waves off.
    rng = np.random.default_rng(0)
    rows, cols = np.fft.fftfreq(360)[:, np.newaxis], np.fft.rfftfreq(360)
    away = np.hypot(rows, cols)

    def band(low, high):
        wave = np.fft.rfft2(rng.normal(size=(360, 360)))
        made = np.fft.irfft2(wave * ((away > low) & (away < high)))
        return made / made.std()

    fine = band(0.26, 0.36)
    pair = [
        fine[row : row + 256, col : col + 256]
        + 0.7 * band(0.005, 0.08)[:256, :256]
        + 0.1 * rng.normal(size=(256, 256))
        for row, col in ((40, 40), (40 + shift[0], 40 + shift[1]))
    ]
    found = spt.phase_correlate(*pair)
    assert found.outcome == "matched"
    # The noise of a tenth allows a hundredth of a pixel.
    np.testing.assert_allclose(found.shift, shift, rtol=0, atol=0.05)


def test_a_still_scene_is_matched_at_zero():
    rng = np.random.default_rng(6)
    for _ in range(10):
        field = dense(rng, (96, 96))
        found = spt.phase_correlate(
            *(field + 0.3 * rng.normal(size=(96, 96)) for _ in "ab")
        )
        assert found.outcome == "matched"
        sigma = np.sqrt(np.diag(found.covariance))
        assert (np.abs(found.shift) < 5 * sigma).all()


def test_a_shift_on_the_edge_of_the_bound_is_beyond_it():
    rng = np.random.default_rng(7)
    field = dense(rng, (160, 160))
    first, second = field[:128, :128], field[9:137, 3:131]
    found = spt.phase_correlate(first, second, max_shift=8)
    assert found.outcome in {"beyond bound", "not found"}


def test_false_alarm_falls_as_noise_does():
    rng = np.random.default_rng(8)
    field, noise = dense(rng, (80, 80)), rng.normal(size=(2, 64, 64))
    alarms = [
        spt.phase_correlate(
            field[:64, :64] + sigma * noise[0], field[7:71, 5:69] + sigma * noise[1]
        ).false_alarm
        for sigma in (30, 1.2, 0.6, 0.2)
    ]
    # Hopeless is chance; clear is certain; between them it falls.
    assert min(alarms[:1]) > 0.01
    assert alarms[1:] == sorted(alarms[1:], reverse=True)
    assert alarms[-1] < 1e-6


@given(
    false_alarm_of=st.sampled_from(["dense", "white"]),
    number=st.integers(0, 10**6),
)
def test_a_match_is_told_by_its_false_alarm(false_alarm_of, number):
    """Whatever is called matched is believed, and what is chance is not."""
    rng = np.random.default_rng(number)
    scene = KINDS[false_alarm_of][0]
    field = scene(rng, (64, 64))
    found = spt.phase_correlate(
        field[:48, :48], field[8:56, 5:53] + 2 * rng.normal(size=(48, 48))
    )
    assert 0 <= found.false_alarm <= 1
    assert -1 <= found.correlation <= 1
    if found.outcome in {"matched", "ambiguous"}:
        assert found.false_alarm < BELIEVED
    else:
        assert found.false_alarm >= BELIEVED or found.outcome == "beyond bound"


def normal_maxima(rng, count):
    return np.abs(rng.normal(size=count))


def test_chance_level_of_normal_heights_is_theirs():
    """The best of many normal heights is as high as the level says."""
    rng = np.random.default_rng(9)
    levels = []
    for _ in range(300):
        heights = normal_maxima(rng, 2000)
        best = normal_maxima(rng, 500).max()
        levels.append(search.chance_level(best, heights, 500)[0])
    # A probability is uniform: its mean has a standard deviation of 0.017, and the
    # tail of a normal law is a little shorter than the one that is fitted.
    assert abs(np.mean(levels) - 0.5) < 0.1
    assert np.mean(np.array(levels) < 0.1) < 0.1 + 0.06


def test_chance_level_falls_with_height_and_rises_with_trials():
    heights = normal_maxima(np.random.default_rng(10), 500)
    levels = [search.chance_level(h, heights, 100)[0] for h in (1, 3, 4, 6, 50)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < 1e-12
    more = [search.chance_level(4.0, heights, n)[0] for n in (1, 10, 1000)]
    assert more == sorted(more)


def test_too_few_heights_tell_nothing():
    assert search.chance_level(9.0, np.ones(3), 3)[0] == 1

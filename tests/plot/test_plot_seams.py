import numpy as np
import pytest
from matplotlib.quiver import Quiver

import spectral_tools as spt


@pytest.fixture(scope="module")
def placed():
    shape = (160, 160)
    away = (np.moveaxis(np.indices(shape), 0, -1) - 79.5) / 80
    field = 1.5 * away * np.sum(away**2, axis=-1, keepdims=True)
    scene = spt.gaussian_texture((360, 360), cutoff=0.3, slope=2, rng=4)
    made = spt.simulate_tiles(
        scene, (2, 2), shape, overlap=0.25, noise_sigma=0.03, rng=4, distortion=field
    )
    return made, spt.place_tiles(made.tiles, positions=made.stage, displacement=field)


def arrows_of(ax):
    [drawn] = [each for each in ax.get_children() if isinstance(each, Quiver)]
    return drawn.get_offsets()[:, ::-1], np.column_stack([drawn.V, drawn.U])


def test_plain_tiles_draw_the_portrait_of_the_lens(placed):
    ax = spt.plot.seams(placed[1], corrected=False)
    points, arrows = arrows_of(ax)
    # Corners of a barrel are pulled in, and have to move out.
    away = points - 79.5
    corner = np.abs(away).min(axis=1) > 55
    assert corner.sum() >= 8
    outwards = np.sum(arrows[corner] * away[corner], axis=1) > 0
    assert outwards.mean() > 0.8
    assert "of plain tiles" in ax.get_title(loc="left")


def test_corrected_tiles_leave_chance(placed):
    titles = [
        spt.plot.seams(placed[1], corrected=flag).get_title(loc="left")
        for flag in (False, True)
    ]
    plain, corrected = (float(title.split()[2]) for title in titles)
    assert corrected < 0.15 < plain / 2


def test_seams_need_windows(placed):
    made, _ = placed
    plain = spt.place_tiles(made.tiles, positions=made.stage)
    with pytest.raises(
        ValueError, match="`placement` must be of tiles that were placed"
    ):
        spt.plot.seams(plain)


def test_the_report_says_that_tiles_are_bent(placed):
    made, bent = placed
    plain = spt.place_tiles(made.tiles, positions=made.stage)
    assert "px rms: tiles are bent, see `distortion`" in str(
        spt.placement_report(plain)
    )
    told = str(spt.placement_report(bent))
    assert "px rms in plain tiles" in told
    assert "px in corrected ones" in told


def test_the_report_says_that_tiles_are_turned():
    scene = spt.gaussian_texture((460, 460), cutoff=0.3, slope=2, rng=4)
    made = spt.simulate_tiles(
        scene, (2, 2), (200, 200), overlap=0.25, noise_sigma=0.03, rng=4,
        rotation_sigma=0.02,
    )  # fmt: skip
    placed = spt.place_tiles(made.tiles, positions=made.stage)
    assert "tiles are turned or stretched" in str(spt.placement_report(placed))


def test_the_report_says_nothing_of_plain_tiles():
    scene = spt.gaussian_texture((460, 460), cutoff=0.3, slope=2, rng=4)
    made = spt.simulate_tiles(scene, (2, 2), (200, 200), overlap=0.25, rng=4)
    placed = spt.place_tiles(made.tiles, positions=made.stage)
    assert "within" not in str(spt.placement_report(placed))

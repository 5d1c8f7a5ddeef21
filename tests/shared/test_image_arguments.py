"""How images come in, and stacks of them.

What is masked does not count, or is refused by name. Tiles come as a stack, in a sequence,
one by one or by labels.
"""

import dataclasses
import functools
import inspect
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import dask.array
import h5py
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tifffile
import zarr
from matplotlib.axes import Axes
from numpy.testing import assert_array_equal
from scipy import ndimage

import spectral_tools as spt
from tests.sweeps import sweep

#: What images are called, wherever they come in.
IMAGES = {
    *("image", "image0", "image1", "reference", "moving", "surface", "values", "data"),
    *("tiles", "frames", "sections", "pattern", "dark"),
    *("displacement", "first", "second"),
}
STACKS = {"tiles", "frames", "sections"}
#: Functions that look at the shapes of their images, and nothing else.
SHAPES = {"composite_bounds"}
FUNCTIONS = {
    f"{prefix}{name}": getattr(door, name)
    for prefix, door in (("", spt), ("io.", spt.io), ("plot.", spt.plot))
    for name in door.__all__
    if inspect.isfunction(getattr(door, name))
}
GARBAGE = -9999
#: Fields lead nowhere with it, as they do where they are unknown.
GARBAGE_MOVE = 9
FIELDS = {"displacement", "first", "second"}

SCENE = 1000 + 100 * spt.gaussian_texture((260, 260), cutoff=0.2, rng=7)
A, B = SCENE[:96, :96], SCENE[5:101, 3:99]
CORNERS = [(0, 0), (0, 72), (72, 0), (72, 72)]
TILES = np.stack([SCENE[r : r + 96, c : c + 96] for r, c in CORNERS])
MATRICES = np.stack([spt.translation(corner) for corner in CORNERS])
LINKS = [(0, 1), (0, 2), (1, 3), (2, 3)]
SHIFTS = np.array([(0, 0), (1, 2), (2, 4), (3, 5)])
FRAMES = np.stack([SCENE[r : r + 96, c : c + 96] for r, c in 20 + SHIFTS])
SECTIONS = np.stack(
    [ndimage.rotate(SCENE, 6 * n, reshape=False)[80:180, 80:180] for n in range(3)]
)
FIELD = np.stack(np.meshgrid(*2 * [np.arange(96) / 40], indexing="ij"), axis=-1)
POINTS = np.array([(30.0, 30.0), (30.0, 66.0), (66.0, 30.0), (66.0, 66.0), (48, 48)])
SHADING = spt.Shading(flat=np.ones((96, 96)), dark=np.zeros((96, 96)))
PLACED = spt.solve_rigid(
    LINKS, 40 + np.diff(MATRICES[LINKS, :2, 2], axis=1)[:, 0], np.full((4, 2), 40.0)
)
PAIR = {"reference": A, "moving": B}
MOSAIC = {"tiles": TILES, "matrices": MATRICES}
STAGE = {"tiles": TILES, "links": LINKS, "positions": MATRICES[:, :2, 2]}
TWO = {"image0": A, "image1": B}
#: How to call each function that takes images.
CALLS = {
    "align_series": {"frames": FRAMES, "reference": FRAMES[0], "pattern": 0 * A},
    "align_stack": {"sections": SECTIONS},
    "apply_displacement": {"displacement": FIELD, "points": POINTS},
    "apply_shading": {"tiles": TILES, "shading": SHADING},
    "apply_shifts": {"frames": FRAMES, "shifts": SHIFTS},
    "camera_pattern": {"tiles": TILES},
    "compare_transforms": PAIR
    | {"reference_points": POINTS, "moving_points": POINTS - (5, 3)}
    | {"models": ("translation", "rigid")},
    "compose_displacements": {"second": FIELD, "first": FIELD},
    "composite_blocks": MOSAIC | {"displacement": FIELD / 9},
    "composite_bounds": MOSAIC,
    "correlation_surface": PAIR,
    "estimate_shading": {"tiles": TILES, "dark": 0 * A},
    "find_control_points": PAIR,
    "find_peaks": {"surface": A, "count": 3},
    "flatten_displacement": {"displacement": FIELD, "amount": 0.5},
    "fourier_ring_correlation": TWO,
    "invert_displacement": {"displacement": FIELD / 10},
    "jacobian_determinant": {"displacement": FIELD},
    "lazy_composite": MOSAIC | {"displacement": FIELD / 9},
    "make_template": {"frames": FRAMES, "shifts": -SHIFTS},
    "match_grid": PAIR | {"size": 48},
    "match_orientation": PAIR | {"angles": (-0.1, 0.1)},
    "match_tiles": STAGE | {"pattern": 0 * A},
    "mutual_information": TWO,
    "neighbor_mean": {"frames": FRAMES, "reach": 1},
    "normalized_cross_correlation": TWO,
    "overlap_scores": {"tiles": TILES, "placement": PLACED},
    "phase_correlate": PAIR,
    "place_tiles": STAGE | {"pattern": 0 * A, "displacement": FIELD / 9},
    "power_spectrum": {"image": A},
    "refine_pair": PAIR
    | {"reference_points": POINTS, "moving_points": POINTS - (5, 3)}
    | {"size": 40},
    "refine_points": PAIR
    | {"reference_points": POINTS, "moving_points": POINTS - (5, 3)},
    "resample": {"image": A, "pixel_size": 1, "target_pixel_size": 1.6},
    "resample_displacement": {"displacement": FIELD, "shape": (48, 48), "spacing": 1}
    | {"target_spacing": 2},
    "ring_average": {"values": A},
    "ring_coherence": PAIR,
    "simulate_pair": {"image": SCENE, "shape": (64, 64), "shift": (3, 4), "rng": 1},
    "simulate_series": {"image": SCENE, "shifts": SHIFTS, "shape": (96, 96), "rng": 1}
    | {"pattern": 0 * A},
    "simulate_tiles": {"image": SCENE, "grid_shape": (2, 2), "tile_shape": (96, 96)}
    | {"rng": 1, "pattern": 0 * A},
    "solve_gains": MOSAIC,
    "texture_score": {"image": A},
    "warp_composite": MOSAIC | {"displacement": FIELD / 9},
    "warp_image": {"image": A, "matrix": np.eye(3), "displacement": FIELD},
    "whiten": {"image": A},
    "io.write_ome_tiff": {"path": "image.ome.tif", "image": A},
    "io.write_ome_zarr": {"path": "image.zarr", "image": A, "overwrite": True},
    "io.write_usid": {"path": "image.h5", "data": A, "quantity": "I", "units": "V"},
    "plot.checkerboard": PAIR,
    "plot.overlay": PAIR,
    "plot.points": {"image": A, "points": POINTS},
    "plot.swipe": PAIR,
    "plot.warped_grid": {"displacement": FIELD},
}
CASES = [(n, p) for n, call in CALLS.items() for p in call if p in IMAGES]
#: Functions that take long have their masks tested once by default.
LONG = {
    *("align_series", "align_stack", "compare_transforms", "find_control_points"),
    *("match_grid", "match_orientation", "match_tiles", "place_tiles", "refine_pair"),
}
QUICK = [number for number, (name, _) in enumerate(CASES) if name not in LONG]


def leaves(item):
    """Yield all arrays and words of a result."""
    if dataclasses.is_dataclass(item):
        for field in dataclasses.fields(item):
            yield from leaves(getattr(item, field.name))
    elif isinstance(item, Axes):
        for image in item.images:
            yield np.ma.filled(image.get_array().astype(float), np.nan)
        for drawn in item.collections:
            yield from (path.vertices for path in drawn.get_paths())
    elif isinstance(item, list | tuple | Iterator):
        for each in item:
            yield from leaves(each)
    elif hasattr(item, "dask"):
        yield item.compute(scheduler="synchronous")
    elif not isinstance(item, slice):
        array = np.asarray(item)
        yield array.astype(str) if array.dtype.kind in "OSU" else array


def outcome_of(name, call, folder):
    """Return all that a function answers: as arrays, or as the text of its refusal."""
    given = dict(call)
    if "path" in given:
        given["path"] = folder / given["path"]
    try:
        found = FUNCTIONS[name](**given)
        if name == "io.write_ome_tiff":
            found = tifffile.imread(given["path"])
        elif name == "io.write_ome_zarr":
            found = zarr.open(given["path"], mode="r")["0"][:]
        elif name == "io.write_usid":
            with h5py.File(given["path"]) as file:
                found = file["Measurement_000/Channel_000/Raw_Data"][()]
        return list(leaves(found))
    except (TypeError, ValueError) as refusal:
        return str(refusal)
    finally:
        plt.close("all")


@functools.cache
def plain_outcome(name):
    """Return what a function answers to its call as it stands, which tests share."""
    with tempfile.TemporaryDirectory() as folder:
        return outcome_of(name, CALLS[name], Path(folder))


def same(found, expected):
    """Tell whether two outcomes are the same to the last bit."""
    if isinstance(found, str) or isinstance(expected, str):
        return found == expected
    return len(found) == len(expected) and all(
        one.shape == two.shape
        and np.array_equal(one, two, equal_nan="f" in (one.dtype.kind, two.dtype.kind))
        for one, two in zip(found, expected, strict=True)
    )


def hole_in(array, name):
    """Return a mask of a block of some pixels of an image, of each of them in a stack."""
    mask = np.zeros(array.shape, bool)
    inner = (slice(None),) if name in FIELDS else ()
    mask[(..., slice(58, 78), slice(76, 92), *inner)] = True
    return mask


@pytest.fixture(autouse=True)
def no_window():
    mpl.use("agg")


def test_every_function_that_takes_images_is_called_here():
    taken = {
        (name, parameter)
        for name, function in FUNCTIONS.items()
        for parameter in inspect.signature(function).parameters
        if parameter in IMAGES
    }
    # That pattern is one of names of files.
    assert taken - {("io.tile_folder", "pattern")} == set(CASES)


@pytest.mark.parametrize(
    ("name", "parameter", "form"),
    [(*case, "array") for case in CASES]
    + sweep([(*case, "list") for case in CASES if case[1] in STACKS]),
)
def test_masked_pixels_count_like_nan_or_are_refused(name, parameter, form, tmp_path):
    call = dict(CALLS[name])
    plain = np.array(call[parameter], float)
    mask = hole_in(plain, parameter)
    garbage = GARBAGE_MOVE if parameter in FIELDS else GARBAGE
    filled, holes = np.where(mask, garbage, plain), np.where(mask, np.nan, plain)
    masked = np.ma.array(filled, mask=mask)
    arrays = {"masked": masked, "holes": holes, "filled": filled}
    found = {}
    for kind, array in arrays.items():
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", spt.PlacementWarning)
            images = list(array) if form == "list" else array
            found[kind] = outcome_of(name, call | {parameter: images}, tmp_path)
    if isinstance(found["masked"], str):
        assert f"`{parameter}" in found["masked"]
        assert "masked" in found["masked"]
        assert isinstance(found["holes"], str) or name.startswith("io.")
        return
    assert same(found["masked"], found["holes"])
    assert name in SHAPES or not same(found["masked"], found["filled"])
    assert_array_equal(masked.data, filled)


@pytest.mark.parametrize(("name", "parameter"), sweep(CASES, *QUICK))
def test_a_mask_without_pixels_changes_nothing(name, parameter, tmp_path):
    call = CALLS[name]
    plain = np.asarray(call[parameter])
    for mask in (np.ma.nomask, np.zeros(plain.shape, bool)):
        masked = np.ma.array(plain, mask=mask)
        found = outcome_of(name, call | {parameter: masked}, tmp_path)
        assert same(found, plain_outcome(name))


@pytest.mark.parametrize(("name", "parameter"), sweep(CASES, *QUICK))
def test_masked_integers_never_count(name, parameter, tmp_path):
    """Results that are whole numbers cannot be NaN; what is masked does not matter."""
    call = CALLS[name]
    plain = np.rint(np.asarray(call[parameter], float)).astype(np.int16)
    mask = hole_in(plain, parameter)
    found = [
        outcome_of(
            name,
            call | {parameter: np.ma.array(np.where(mask, value, plain), mask=mask)},
            tmp_path,
        )
        for value in (GARBAGE, 77)
    ]
    if isinstance(found[0], str):
        assert f"`{parameter}" in found[0]
        assert "masked" in found[0]
    assert same(*found)


@pytest.mark.parametrize(
    ("name", "parameter"),
    sweep([case for case in CASES if case[1] not in FIELDS], *range(0, 67, 6)),
)
def test_black_and_white_counts_as_zeros_and_ones(name, parameter, tmp_path):
    call = CALLS[name]
    white = np.asarray(call[parameter]) > np.median(call[parameter])
    found, ones = (
        outcome_of(name, call | {parameter: white.astype(kind)}, tmp_path)
        for kind in (bool, np.uint8)
    )
    if isinstance(found, str):
        assert f"`{parameter}" in found
        assert "bool" in found
        return
    # What is rendered of it is black and white too.
    found = [each.astype("u1") if each.dtype.kind == "b" else each for each in found]
    ones = [each.astype("u1") if each.dtype.kind == "b" else each for each in ones]
    assert same(found, ones)


class Stored:
    """A stack that comes masked when it is sliced, as those of NetCDF do."""

    def __init__(self, stack):
        self.stack, self.shape, self.dtype = stack, stack.shape, stack.dtype

    def __len__(self):
        return len(self.stack)

    def __getitem__(self, key):
        return self.stack[key]


@pytest.mark.parametrize("name", ["warp_composite", "match_tiles", "solve_gains"])
def test_masks_of_stored_stacks_count_when_they_are_read(name):
    call = dict(CALLS[name])
    mask = hole_in(TILES, "tiles")
    masked = np.ma.array(np.where(mask, GARBAGE, TILES).astype(np.int16), mask=mask)
    held, stored = (
        outcome_of(name, call | {"tiles": tiles}, None)
        for tiles in (masked, Stored(masked))
    )
    assert same(stored, held)


def test_chunks_of_dask_count_as_they_are_masked():
    mask = hole_in(TILES, "tiles")
    masked = np.ma.array(np.where(mask, GARBAGE, TILES).astype(np.int16), mask=mask)
    lazy = dask.array.from_array(masked, chunks=(1, 40, 50))
    found = spt.lazy_composite(lazy, MATRICES).compute(scheduler="synchronous")
    assert_array_equal(found, spt.warp_composite(masked, MATRICES).image)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_mask_is_what_valid_says_the_other_way_round(order):
    """Tiles of whole numbers keep their dtype, and channels are lost together."""
    mask = np.zeros((4, 96, 96, 2), bool)
    mask[:, 58:78, 76:92, 1] = True
    tiles = np.stack([TILES, TILES + 50], axis=-1).astype(np.uint16)
    masked = np.ma.array(np.where(mask, 65535, tiles), mask=mask)
    options = {"order": order, "channel_axis": 2}
    found = spt.warp_composite(masked, MATRICES, **options)
    counted = spt.warp_composite(tiles, MATRICES, valid=~mask[..., 1], **options)
    assert found.image.dtype == np.uint16
    assert_array_equal(found.image, counted.image)
    assert_array_equal(found.coverage, counted.coverage)
    both = spt.warp_composite(masked, MATRICES, valid=[A > 900] * 4, **options)
    mask = (A > 900) & ~mask[..., 1]
    counted = spt.warp_composite(tiles, MATRICES, valid=mask, **options)
    assert_array_equal(both.image, counted.image)


def test_a_mask_of_a_mask_takes_out_more():
    valid = np.ma.array(A > 900, mask=B > 1100)
    found = spt.normalized_cross_correlation(A, B, valid=valid)
    expected = spt.normalized_cross_correlation(A, B, valid=(A > 900) & (B <= 1100))
    assert found == expected


def test_an_iterator_cannot_turn_to_floats_on_its_way():
    frames = [frame.astype(np.int16) for frame in FRAMES]
    frames[2] = np.ma.array(frames[2], mask=hole_in(frames[2], "frames"))
    with pytest.raises(
        ValueError,
        match=r"`frames\[2\]` must have no masked pixels in int16; got 320 of 9216",
    ):
        spt.apply_shifts(iter(frames), SHIFTS)
    assert np.isnan(spt.apply_shifts(frames, 0 * SHIFTS)).sum() == 320


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: spt.apply_transform(p, POINTS), "matrix"),
        (lambda p: spt.estimate_transform(p, p), "reference_points"),
        (lambda p: spt.apply_shifts(FRAMES, p), "shifts"),
    ],
)
def test_points_and_matrices_may_not_be_masked(call, name):
    values = np.ma.array(np.eye(4, 4), mask=np.eye(4, 4, 1) > 0)
    with pytest.raises(
        ValueError, match=rf"`{name}` must have no masked values; got 3"
    ):
        call(values)


STACKED = [case for case in CASES if case[1] in STACKS]


@pytest.mark.parametrize(("name", "parameter"), STACKED)
def test_images_may_come_one_by_one(name, parameter):
    call = CALLS[name]
    listed = list(call[parameter])
    found = outcome_of(name, call | {parameter: (each for each in listed)}, None)
    assert not isinstance(found, str)
    if name == "neighbor_mean":
        # Frames that come one by one are answered one by one.
        found = [np.stack(found)]
    assert same(found, outcome_of(name, call | {parameter: listed}, None))


@pytest.mark.parametrize(("name", "parameter"), STACKED)
def test_tiles_may_come_by_labels(name, parameter):
    """What has an order of its own comes in the order of the mapping."""
    call = dict(CALLS[name])
    labels = "dabc"
    named = dict(zip(labels, call[parameter], strict=False))
    expected = plain_outcome(name)
    if "links" in call:
        call["links"] = [(labels[i], labels[j]) for i, j in call["links"]]
    if "placement" in call:
        call["placement"] = dataclasses.replace(call["placement"], labels=[*labels])
        named = dict(sorted(named.items()))
    found = outcome_of(name, call | {parameter: named}, None)
    if name in {"match_tiles", "place_tiles"}:
        # Their answer has these labels, and the same numbers.
        found, expected = (
            [each for each in leaves if each.dtype.kind == "f"]
            for leaves in (found, expected)
        )
        assert same(found, expected)
    else:
        assert same(found, expected)


@pytest.mark.parametrize("wrong", [None, 3, "abc", {1, 2}])
@pytest.mark.parametrize(("name", "parameter"), STACKED)
def test_what_is_no_stack_is_refused_by_name(name, parameter, wrong):
    pattern = rf"^`{parameter}` must be a stack of images or .*; got \w+\.$"
    with pytest.raises(TypeError, match=pattern):
        FUNCTIONS[name](**CALLS[name] | {parameter: wrong})


def test_gains_go_by_the_labels_of_links():
    named = dict(zip("dabc", TILES, strict=True))
    links = [("d", "a"), ("b", "c")]
    found = spt.solve_gains(named, MATRICES, links=links)
    assert_array_equal(found.links, [(0, 1), (2, 3)])


def test_a_tile_without_image_is_named():
    placed = dataclasses.replace(PLACED, labels=["a", "b", "c", "d"])
    with pytest.raises(
        ValueError, match="`tiles` must hold an image for each label; got"
    ):
        spt.overlap_scores({"a": A, "b": B}, placed)

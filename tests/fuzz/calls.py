"""A valid call of every public function, on tiny inputs."""

import inspect
import itertools
import tempfile
from pathlib import Path

import numpy as np
from skimage.io import imsave

import spectral_tools as spt

#: What a call may write to.
WRITTEN = {"out", "out_coverage", "ax", "done"}
FOLDER = Path(tempfile.mkdtemp(prefix="odd_calls_"))
FRESH = itertools.count()


def functions():
    """Return all public functions by name that look at their arguments at the door."""
    doors = {"": spt, "io.": spt.io, "plot.": spt.plot}
    found = {
        f"{prefix}{name}": getattr(door, name)
        for prefix, door in doors.items()
        for name in door.__all__
        if inspect.isfunction(getattr(door, name))
    }
    return {name: f for name, f in found.items() if hasattr(f, "__wrapped__")}


def fresh(ending):
    """Return a path where nothing is yet."""
    return FOLDER / f"{next(FRESH)}{ending}"


def axes():
    """Return new axes of a figure that nobody shows."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure().add_subplot()


class Data:
    """What calls are made of: made once, in a few seconds."""

    def __init__(self):
        rng = np.random.default_rng(5)
        scene = 100 + 10 * spt.gaussian_texture((120, 120), cutoff=0.3, rng=3)
        self.scene = scene
        self.a, self.b = scene[:40, :44], scene[3:43, 2:46]
        self.valid = rng.random((40, 44)) > 0.1
        self.corners = np.array([(0, 0), (0, 28), (28, 0), (28, 28)], float)
        self.tiles = [
            scene[r : r + 40, c : c + 40] for r, c in self.corners.astype(int)
        ]
        self.links = np.array([(0, 1), (0, 2), (1, 3), (2, 3)])
        self.matrices = np.stack([spt.translation(each) for each in self.corners])
        self.reference_points = np.full((4, 2), 20.0) + np.diff(
            self.corners[self.links], axis=1
        ).squeeze(1)
        self.moving_points = np.full((4, 2), 20.0)
        self.labels = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
        self.places = dict(zip("abcd", self.corners, strict=True))
        self.placement = spt.solve_rigid(
            self.links, self.reference_points, self.moving_points, fixed=0
        )
        grid = np.stack(np.mgrid[4:40:8, 4:40:8], -1).reshape(-1, 2).astype(float)
        self.lens = 0.01 * np.indices((40, 40)).transpose(1, 2, 0)
        self.bent = spt.place_tiles(
            self.tiles, positions=self.corners, displacement=self.lens
        )
        self.points = grid
        self.moved = (
            grid @ [[1.01, 0.02], [-0.02, 1.0]]
            + (2, -1)
            + rng.normal(0, 0.05, grid.shape)
        )
        self.estimate = spt.estimate_transform(self.points, self.moved)
        self.shifts = np.array([(0, 0), (1, 2), (2, 3), (3, 3.5), (2, 1)])
        self.frames = np.stack(
            [scene[r : r + 32, c : c + 36] for r, c in self.shifts.astype(int)]
        )
        self.sections = [scene[n : n + 40, n : n + 40] for n in range(3)]
        self.field = np.stack(np.mgrid[:30, :34], -1) / 30.0
        self.shading = spt.Shading(flat=np.ones((40, 40)), dark=np.zeros((40, 40)))
        self.covariance = np.broadcast_to(0.01 * np.eye(2), (4, 2, 2))
        self.rigid = spt.io.matrix_to_itk(np.eye(3), kind="rigid")
        self.mesh = spt.io.points_to_itk(self.points, self.moved, (40, 44))
        self.lattice = spt.io.grid_to_itk(
            np.stack(np.mgrid[0:41:20, 0:41:20], -1).astype(float), (40, 40)
        )
        self.write_files()

    def write_files(self):
        spt.io.write_stos(
            FOLDER / "a.stos", self.rigid, ("1.png", "2.png"), [(40, 44)] * 2
        )
        spt.io.write_mosaic(FOLDER / "a.mosaic", ["a.png"], [self.rigid])
        spt.io.write_tile_configuration(FOLDER / "a.txt", ["a.tif"], [(2, 9.5)])
        spt.io.save_result(FOLDER / "a.h5", self.placement)
        where = {"pixel_size": 0.5, "origin": (3, -4)}
        spt.io.write_ome_tiff(FOLDER / "a.ome.tif", self.a, **where)
        spt.io.write_ome_zarr(FOLDER / "a.ome.zarr", self.a, **where, overwrite=True)
        spt.io.write_usid(
            FOLDER / "u.h5",
            np.arange(24.0).reshape(2, 3, 4),
            quantity="Current",
            units="A",
        )
        for row, col in ((0, 0), (0, 1)):
            imsave(
                FOLDER / f"{row}_{col}.png",
                np.eye(9, dtype=np.uint8),
                check_contrast=False,
            )


#: Options that mean the same wherever they are.
SHARED = {
    "workers": [1, 2],
    "progress": [False],
    "whitening": [None, 0.5],
    "min_overlap": [0.02, 0.1],
    "peaks": [3, 1],
    "max_shift": [None, 8, (6, 8)],
    "padding": [True, False],
    "robust": [True, False],
    "mirror": [False, True],
    "inverse": [False, True],
    "order": [1, 3, 0],
    "blend": ["feather", "mean", "nearest", "multiband", "maximum", "first"],
    "bounds": ["union", "intersection", [(0, 0), (50, 50)]],
    "scale": [1.0, 0.5],
    "seam_width": [0.0],
    "fill_value": [0, 7],
    "dtype": [None, np.float32, "uint8"],
    "channel_axis": [None],
    "blocks": [None, (32, 32)],
    "chunks": [None, 32],
    "rng": [0, None, 3],
    "noise_sigma": [0.0, 0.5],
    "stiffness": [None, 0.1],
    "window": [None, (12, 12)],
    "spacing": [None, 12],
    "size": [16, (16, 20)],
    "step_sigma": [None, 2.0],
    "position_sigma": [None],
    "fixed": [None, 0],
    "rotation": [False, True],
    "offset": [False, True],
    "diagonal": [False, True],
    "overlap": [0.1, 0.2],
    "model": ["affine", "similarity"],
    "iterations": [1, 2],
    "tolerance": [1e-3],
    "levels": [None, 1],
    "forward": [False, True],
    "outside": [False, True],
}
#: Those that differ by function.
OWN = {
    ("align_series", "reference"): ["template", "previous", "first", 0],
    ("align_series", "reach"): [None, 1],
    ("align_stack", "model"): ["rigid", "affine"],
    ("align_stack", "reach"): [1, 2],
    ("align_stack", "max_rotation"): [None, 0.2],
    ("apply_shifts", "border"): ["constant", "nearest"],
    ("compare_transforms", "models"): [("translation", "rigid")],
    ("composite_bounds", "bounds"): ["union", "intersection"],
    ("cosine_taper", "width"): [6.0, (3, 4)],
    ("cosine_taper", "shift"): [0.0, (1.5, 0)],
    ("estimate_shading", "dark"): [0, "estimate"],
    ("estimate_transform", "model"): ["translation", "rigid", "affine", "projective"],
    ("estimate_transform", "order"): [2],
    ("compare_transforms", "order"): [2],
    ("find_control_points", "max_shift"): [None, 6.0],
    ("find_peaks", "count"): [3, 1],
    ("find_peaks", "distance"): [3, 1.5],
    ("flatten_displacement", "amount"): [1.0, 0.5],
    ("gaussian_texture", "cutoff"): [0.3],
    ("gaussian_texture", "slope"): [3.0],
    ("grid_links", "order"): ["rows", "snake"],
    ("grid_positions", "order"): ["rows", "columns"],
    ("place_tiles", "distortion"): [None, 2, "rows"],
    ("match_tiles", "windows"): [1, 4],
    ("place_tiles", "order"): ["rows"],
    ("interpolate_displacement", "method"): ["thin_plate", "piecewise_affine"],
    ("interpolate_displacement", "smoothing"): [0.0],
    ("interpolate_displacement", "outside"): ["nan", "nearest", "affine"],
    ("match_orientation", "scale_range"): [None, (0.9, 1.1)],
    ("match_orientation", "angles"): [(-0.2, 0.2)],
    ("mutual_information", "bins"): [32, 8],
    ("mutual_information", "normalized"): [False, True],
    ("overlapping_links", "margin"): [0, 2],
    ("refine_points", "max_shift"): [4.0],
    ("resample_displacement", "spacing"): [1.0],
    ("resample_displacement", "target_spacing"): [2.0],
    ("resample_displacement", "origin"): [0.0],
    ("resample_displacement", "target_origin"): [0.0, 1.0],
    ("fit_displacement", "stiffness"): [None],
    ("rotation", "center"): [None, (3, 4)],
    ("simulate_tiles", "missing"): [(), [(0, 1)]],
    ("texture_score", "noise"): [None, 0.1],
    ("power_spectrum", "taper"): [True, False],
    ("whiten", "exponent"): [None, 0.5],
    ("io.matrix_to_itk", "kind"): ["affine", "rigid"],
    ("io.matrix_to_itk", "center"): [(0, 0), (3, 4)],
    ("io.write_ome_zarr", "overwrite"): [False],
    ("plot.checkerboard", "size"): [None, 8],
    ("plot.swipe", "axis"): [0, 1],
    ("plot.swipe", "position"): [0.5],
    ("plot.points", "numbers"): [None, True],
    ("plot.warped_grid", "spacing"): [None, 5.0],
}


def needed(data):
    """Return the data of a valid call of each function, by name."""
    d = data
    pair = {"reference": d.a, "moving": d.b}
    two = {"image0": d.a, "image1": d.b}
    mosaic = {"tiles": d.tiles, "matrices": d.matrices}
    linked = {
        "links": d.links,
        "reference_points": d.reference_points,
        "moving_points": d.moving_points,
    }
    points = {"reference_points": d.points, "moving_points": d.moved}
    stage = {"tiles": d.tiles, "links": d.links, "positions": d.corners}
    placed = {"placement": d.placement}
    return {
        "align_series": {"frames": d.frames},
        "align_stack": {"sections": d.sections},
        "apply_displacement": {"displacement": d.field, "points": d.points},
        "apply_shading": {"tiles": d.tiles, "shading": d.shading},
        "apply_shifts": {"frames": d.frames, "shifts": d.shifts},
        "apply_transform": {"matrix": d.estimate, "points": d.points},
        "camera_pattern": {"tiles": d.tiles},
        "common_area": {"shape": (32, 36), "shifts": d.shifts},
        "compare_transforms": points,
        "compose_displacements": {"second": d.field, "first": d.field},
        "composite_blocks": mosaic,
        "composite_bounds": mosaic,
        "correlation_surface": pair,
        "cosine_taper": {"shape": (24, 28)},
        "estimate_shading": {"tiles": [*d.tiles, *d.tiles]},
        "estimate_transform": points,
        "find_control_points": pair,
        "find_peaks": {"surface": d.a},
        "fit_displacement": points | {"shape": (40, 44)},
        "flatten_displacement": {"displacement": d.field},
        "fourier_ring_correlation": two,
        "gaussian_texture": {"shape": (24, 28)},
        "grid_links": {"shape": (3, 4)},
        "grid_positions": {"shape": (3, 4), "tile_shape": (40, 40)},
        "interpolate_displacement": points | {"shape": (40, 44)},
        "invert_displacement": {"displacement": d.field / 8},
        "jacobian_determinant": {"displacement": d.field},
        "lazy_composite": mosaic,
        "loop_closures": linked,
        "make_template": {"frames": d.frames, "shifts": d.shifts},
        "match_grid": pair,
        "match_orientation": pair,
        "match_tiles": stage,
        "mutual_information": two,
        "neighbor_mean": {"frames": d.frames, "reach": 1},
        "normalized_cross_correlation": two,
        "offset_covariance": placed | {"links": d.links},
        "overlap_scores": {"tiles": d.tiles} | placed,
        "overlapping_links": {"positions": d.corners, "tile_shapes": (40, 40)},
        "phase_correlate": pair,
        "place_tiles": {"tiles": d.tiles, "positions": d.corners},
        "placement_report": placed,
        "position_covariance": placed,
        "power_spectrum": {"image": d.a},
        "refine_pair": pair
        | {"reference_points": d.points[:3], "moving_points": d.points[:3]},
        "refine_points": pair
        | {"reference_points": d.points[:9], "moving_points": d.points[:9]},
        "relax_meshes": {
            "links": np.repeat([(0, 1), (1, 2)], len(d.points), axis=0),
            "reference_points": np.vstack([d.points, d.moved]),
            "moving_points": np.vstack([d.moved, d.points]),
            "shape": (40, 44),
        },
        "resample": {"image": d.a, "pixel_size": 1.0, "target_pixel_size": 1.5},
        "resample_displacement": {"displacement": d.field, "shape": (15, 17)},
        "ring_average": {"values": d.a},
        "ring_coherence": pair,
        "rotation": {"angle": 0.1},
        "seam_residuals": placed,
        "simulate_pair": {"image": d.scene, "shape": (24, 28), "shift": (2, -1)},
        "simulate_series": {
            "image": d.scene,
            "shifts": d.shifts,
            "shape": (24, 28),
        },
        "simulate_tiles": {
            "image": d.scene,
            "grid_shape": (2, 2),
            "tile_shape": (40, 40),
        },
        "solve_affine": linked,
        "solve_distortion": {
            "links": np.repeat(d.links, 8, axis=0),
            "reference_points": np.tile(d.points[:8], (len(d.links), 1)),
            "moving_points": np.tile(d.moved[:8], (len(d.links), 1)),
            "shape": (60, 60),
        },
        "solve_gains": mosaic,
        "solve_rigid": linked,
        "swap_xy_matrix": {"matrix": d.matrices[1]},
        "swap_xy_points": {"points": d.points},
        "texture_score": {"image": d.a},
        "transform_covariance": {"estimate": d.estimate, "points": d.points},
        "translation": {"shift": (2, -1)},
        "warp_composite": mosaic,
        "warp_image": {"image": d.a, "matrix": spt.rotation(0.1)},
        "whiten": {"image": d.a},
        "io.format_itk": {"transform": d.rigid},
        "io.grid_to_itk": {
            "reference_points": np.stack(np.mgrid[0:41:20, 0:41:20], -1) * 1.0,
            "moving_shape": (40, 40),
        },
        "io.itk_matrix": {"transform": d.rigid},
        "io.itk_points": {"transform": d.mesh},
        "io.load_result": {"path": FOLDER / "a.h5"},
        "io.map_itk": {"transform": d.rigid, "reference_points": d.points},
        "io.matrix_to_itk": {"matrix": d.matrices[1]},
        "io.parse_itk": {"text": spt.io.format_itk(d.rigid)},
        "io.points_to_itk": points | {"moving_shape": (40, 44)},
        "io.read_bioio": {"path": FOLDER / "a.ome.tif"},
        "io.read_ome_tiff": {"path": FOLDER / "a.ome.tif"},
        "io.read_ome_zarr": {"path": FOLDER / "a.ome.zarr"},
        "io.read_mosaic": {"path": FOLDER / "a.mosaic"},
        "io.read_stos": {"path": FOLDER / "a.stos"},
        "io.read_tile_configuration": {"path": FOLDER / "a.txt"},
        "io.read_usid": {"path": FOLDER / "u.h5"},
        "io.read_usid_tree": {"path": FOLDER / "u.h5"},
        "io.save_result": {"path": fresh(".h5"), "result": d.placement},
        "io.tile_folder": {"folder": FOLDER, "pattern": "{row}_{col}.png"},
        "io.write_mosaic": {
            "path": fresh(".mosaic"),
            "names": ["a.png"],
            "transforms": [d.rigid],
        },
        "io.write_ome_tiff": {"path": fresh(".ome.tif"), "image": d.a},
        "io.write_ome_zarr": {"path": fresh(".zarr"), "image": d.a},
        "io.write_stos": {
            "path": fresh(".stos"),
            "transform": d.rigid,
            "images": ("1.png", "2.png"),
            "shapes": [(40, 44)] * 2,
        },
        "io.write_tile_configuration": {
            "path": fresh(".txt"),
            "names": ["a.tif", "b.tif"],
            "positions": d.corners[:2],
        },
        "io.write_usid": {
            "path": fresh(".h5"),
            "data": np.arange(24.0).reshape(2, 3, 4),
            "quantity": "Current",
            "units": "A",
        },
        "plot.checkerboard": pair,
        "plot.overlay": pair,
        "plot.seams": {"placement": d.bent},
        "plot.placement": placed | {"tile_shapes": (40, 40)},
        "plot.points": {"image": d.a, "points": d.points},
        "plot.swipe": pair,
        "plot.uncertainty": placed | {"tile_shapes": (40, 40)},
        "plot.warped_grid": {"displacement": d.field},
    }


def options(data):
    """Return other values of arguments that depend on the data, by what they go with."""
    d = data
    return {
        "reference_valid": d.valid,
        "moving_valid": d.valid,
        ("normalized_cross_correlation", "valid"): d.valid,
        ("mutual_information", "valid"): d.valid,
        ("warp_image", "valid"): d.valid,
        ("warp_composite", "valid"): [each > 90 for each in d.tiles],
        ("composite_blocks", "valid"): [each > 90 for each in d.tiles],
        ("lazy_composite", "valid"): [each > 90 for each in d.tiles],
        ("match_tiles", "valid"): [each > 90 for each in d.tiles],
        ("place_tiles", "valid"): [each > 90 for each in d.tiles],
        ("overlap_scores", "valid"): [each > 90 for each in d.tiles],
        ("align_series", "valid"): d.frames[0] > 90,
        ("align_stack", "valid"): [each > 90 for each in d.sections],
        ("match_tiles", "pattern"): np.zeros((40, 40)),
        ("place_tiles", "pattern"): np.zeros((40, 40)),
        ("align_series", "pattern"): np.zeros((32, 36)),
        ("align_series", "reference"): d.frames[0],
        ("solve_rigid", "covariance"): d.covariance,
        ("solve_affine", "covariance"): d.covariance,
        ("loop_closures", "covariance"): d.covariance,
        ("estimate_transform", "covariance"): 0.01 * np.eye(2),
        ("compare_transforms", "covariance"): 0.01 * np.eye(2),
        ("fit_displacement", "covariance"): 0.01 * np.eye(2),
        ("relax_meshes", "covariance"): 0.01 * np.eye(2),
        ("relax_meshes", "matrices"): np.stack([np.eye(3)] * 3),
        ("solve_rigid", "alternatives"): (d.reference_points - d.moving_points)[
            :, None, :
        ]
        + np.zeros((4, 2, 2)),
        ("solve_rigid", "false_alarm"): np.full(4, 1e-6),
        ("solve_rigid", "positions"): d.corners,
        ("solve_affine", "positions"): d.corners,
        ("match_grid", "matrix"): spt.translation((1, 1)),
        ("find_control_points", "matrix"): spt.translation((1, 1)),
        ("fit_displacement", "matrix"): d.estimate.matrix,
        ("interpolate_displacement", "matrix"): d.estimate.matrix,
        ("compose_displacements", "matrix"): spt.translation((1, 1)),
        ("apply_displacement", "matrix"): spt.translation((1, 1)),
        ("flatten_displacement", "matrix"): spt.translation((1, 1)),
        ("plot.warped_grid", "matrix"): spt.translation((1, 1)),
        ("warp_image", "displacement"): 0.1 * np.ones((40, 44, 2)),
        ("warp_image", "shape"): (30, 30),
        ("phase_correlate", "guess"): (3, 2),
        ("solve_gains", "links"): d.links,
        ("place_tiles", "links"): d.links,
        ("place_tiles", "grid"): (2, 2),
        ("place_tiles", "displacement"): d.lens,
        ("warp_composite", "displacement"): d.lens,
        ("composite_blocks", "displacement"): d.lens,
        ("lazy_composite", "displacement"): d.lens,
        ("simulate_tiles", "distortion"): d.lens,
        ("simulate_tiles", "pattern"): np.zeros((40, 40)),
        ("simulate_series", "pattern"): np.zeros((24, 28)),
        ("plot.points", "residuals"): np.ones_like(d.points),
        ("plot.points", "inlier"): np.ones(len(d.points), bool),
        ("fourier_ring_correlation", "shift"): (3, 2),
        ("ring_coherence", "shift"): (3, 2),
    }


def valid_call(name, function, data, rng):
    """Return the arguments of a valid call, with some of its options."""
    arguments = dict(needed(data)[name])
    offered = options(data)
    for parameter in inspect.signature(function).parameters:
        if parameter == "ax":
            arguments[parameter] = axes()
        elif parameter in arguments or rng.random() < 0.6:
            continue
        elif (name, parameter) in offered and rng.random() < 0.7:
            arguments[parameter] = offered[name, parameter]
        elif (name, parameter) in OWN:
            arguments[parameter] = choice(OWN[name, parameter], rng)
        elif parameter in offered:
            arguments[parameter] = offered[parameter]
        elif parameter in SHARED and name.partition(".")[0] != "io":
            arguments[parameter] = choice(SHARED[parameter], rng)
    if "size" in inspect.signature(function).parameters and "size" not in arguments:
        arguments["size"] = 16
    if name == "match_orientation":
        arguments["angles"] = (-0.2, 0.2)
    return arguments


def choice(values, rng):
    return values[rng.integers(len(values))]

from . import io, plot
from ._evaluation.compare_transforms import TransformComparison, compare_transforms
from ._evaluation.scores import (
    OverlapScores,
    RingCorrelation,
    fourier_ring_correlation,
    mutual_information,
    normalized_cross_correlation,
    overlap_scores,
    texture_score,
)
from ._evaluation.simulate import (
    SimulatedPair,
    SimulatedSeries,
    SimulatedTiles,
    simulate_pair,
    simulate_series,
    simulate_tiles,
)
from ._evaluation.textures import gaussian_texture
from ._matching.fixed_pattern import camera_pattern
from ._matching.match_tiles import TileMatches, UnreadableWarning, match_tiles
from ._matching.orientation.match_orientation import (
    OrientationEstimate,
    match_orientation,
)
from ._matching.phase_correlate import ShiftEstimate, phase_correlate
from ._placement.grid_links import grid_links, grid_positions, overlapping_links
from ._placement.layout import StageModel
from ._placement.loop_closures import LoopClosures, loop_closures
from ._placement.place_tiles import TilePlacement, place_tiles
from ._placement.report import (
    PlacementReport,
    PlacementWarning,
    SeamResiduals,
    placement_report,
    seam_residuals,
)
from ._placement.solve_distortion import Distortion, solve_distortion
from ._placement.solve_tiles import Placement, solve_affine, solve_rigid
from ._placement.uncertainty import offset_covariance, position_covariance
from ._point_matching.control_points import find_control_points, refine_points
from ._point_matching.match_grid import match_grid
from ._point_matching.refine_pair import PointMatches, refine_pair
from ._rendering.composite import Composite, composite_blocks, warp_composite
from ._rendering.illumination.gains import Gains, solve_gains
from ._rendering.illumination.shading import Shading, apply_shading, estimate_shading
from ._rendering.lazy_composite import lazy_composite
from ._rendering.plan import composite_bounds
from ._rendering.warp import Resampled, resample, warp_image
from ._series.align_series import SeriesAlignment, align_series
from ._series.apply_shifts import apply_shifts, common_area, make_template
from ._series.neighbor_mean import neighbor_mean
from ._series.sections.align_stack import StackAlignment, align_stack
from ._series.sections.relax_meshes import MeshRelaxation, relax_meshes
from ._shared.results import Outcome
from ._spectral.correlation_surface import (
    Peaks,
    correlation_surface,
    find_peaks,
    whiten,
)
from ._spectral.spectra import (
    RingAverage,
    RingCoherence,
    cosine_taper,
    power_spectrum,
    ring_average,
    ring_coherence,
)
from ._transforms.estimate_transform import estimate_transform, transform_covariance
from ._transforms.fields.displacement import (
    apply_displacement,
    invert_displacement,
    jacobian_determinant,
)
from ._transforms.fields.field_algebra import (
    FlattenedDisplacement,
    compose_displacements,
    flatten_displacement,
    resample_displacement,
)
from ._transforms.fields.fit_displacement import DisplacementFit, fit_displacement
from ._transforms.fields.interpolation import interpolate_displacement
from ._transforms.matrices import (
    apply_transform,
    rotation,
    swap_xy_matrix,
    swap_xy_points,
    translation,
)
from ._transforms.point_maps import TransformEstimate

__all__ = [
    "Composite",
    "DisplacementFit",
    "Distortion",
    "FlattenedDisplacement",
    "Gains",
    "LoopClosures",
    "MeshRelaxation",
    "OrientationEstimate",
    "Outcome",
    "OverlapScores",
    "Peaks",
    "Placement",
    "PlacementReport",
    "PlacementWarning",
    "PointMatches",
    "Resampled",
    "RingAverage",
    "RingCoherence",
    "RingCorrelation",
    "SeamResiduals",
    "SeriesAlignment",
    "Shading",
    "ShiftEstimate",
    "SimulatedPair",
    "SimulatedSeries",
    "SimulatedTiles",
    "StackAlignment",
    "StageModel",
    "TileMatches",
    "TilePlacement",
    "TransformComparison",
    "TransformEstimate",
    "UnreadableWarning",
    "align_series",
    "align_stack",
    "apply_displacement",
    "apply_shading",
    "apply_shifts",
    "apply_transform",
    "camera_pattern",
    "common_area",
    "compare_transforms",
    "compose_displacements",
    "composite_blocks",
    "composite_bounds",
    "correlation_surface",
    "cosine_taper",
    "estimate_shading",
    "estimate_transform",
    "find_control_points",
    "find_peaks",
    "fit_displacement",
    "flatten_displacement",
    "fourier_ring_correlation",
    "gaussian_texture",
    "grid_links",
    "grid_positions",
    "interpolate_displacement",
    "invert_displacement",
    "io",
    "jacobian_determinant",
    "lazy_composite",
    "loop_closures",
    "make_template",
    "match_grid",
    "match_orientation",
    "match_tiles",
    "mutual_information",
    "neighbor_mean",
    "normalized_cross_correlation",
    "offset_covariance",
    "overlap_scores",
    "overlapping_links",
    "phase_correlate",
    "place_tiles",
    "placement_report",
    "plot",
    "position_covariance",
    "power_spectrum",
    "refine_pair",
    "refine_points",
    "relax_meshes",
    "resample",
    "resample_displacement",
    "ring_average",
    "ring_coherence",
    "rotation",
    "seam_residuals",
    "simulate_pair",
    "simulate_series",
    "simulate_tiles",
    "solve_affine",
    "solve_distortion",
    "solve_gains",
    "solve_rigid",
    "swap_xy_matrix",
    "swap_xy_points",
    "texture_score",
    "transform_covariance",
    "translation",
    "warp_composite",
    "warp_image",
    "whiten",
]

__version__: str

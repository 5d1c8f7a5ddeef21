"""Displacement fields and their B-spline fits.

bspline_fit : smooth fields that make pairs of points meet: equations of all fields
bspline_grid : smooth fields as sums of cubic B-splines on a regular grid
displacement : displacement fields: where they lead, where they fold, and back
field_algebra : displacement fields one after the other, on other grids, and made flatter
fit_displacement : fit a smooth displacement field to pairs of points
interpolation : displacement fields that pass through pairs of points
"""

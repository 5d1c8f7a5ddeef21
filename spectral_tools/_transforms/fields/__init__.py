"""Displacement fields and their B-spline fits.

bspline_fit : penalised B-splines, stiffness by marginal likelihood
bspline_grid : fields as sums of cubic B-splines on a regular grid
displacement : apply, invert, and where a field folds (public)
field_algebra : fields one after the other, on other grids, and flattened (public)
fit_displacement : a smooth field from pairs of points, without outliers (public)
interpolation : fields through points: thin-plate spline, piecewise affine (public)
"""

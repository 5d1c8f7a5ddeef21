"""Where points go: matrices, maps of points, and their fits.

ac_ransac : find the pairs of points that agree on a map, among many that do not
estimate_transform : find the transform between two images from pairs of points
map_fit : fit a map to pairs of points by weighted least squares
matrices : transforms of points as homogeneous matrices
point_maps : maps of points: homogeneous matrices, and polynomials beside them
"""

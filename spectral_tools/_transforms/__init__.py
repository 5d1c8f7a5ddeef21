"""Where points go: matrices, maps of points, and their fits.

ac_ransac : pairs of points that agree on a map, by a-contrario RANSAC
estimate_transform : a transform from pairs of points, and its covariance (public)
map_fit : weighted least squares for each model of a map
matrices : homogeneous matrices: make, apply, swap axes (public)
point_maps : maps of points: matrices, and polynomials beside them (public)
"""

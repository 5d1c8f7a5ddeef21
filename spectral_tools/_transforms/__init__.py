"""Where points go: matrices, maps of points, and their fits.

ac_ransac : find the pairs of points that agree on a map, among many that do not
estimate_transform : find the transform between two images from pairs of points
matrices : transforms of points as homogeneous matrices
point_maps : maps of points: homogeneous matrices, and polynomials beside them
transform_models : each model of a transform, fitted by weighted least squares
"""

"""Many pairs of points between two images.

control_points : points that two instruments both see (public)
match_grid : points on a grid of a bent image (public)
refine_pair : windows around pairs of points that are given (public)
structure_match : the structure tensor of images, and shifts between its windows
window_grid : all windows of a grid matched once
"""

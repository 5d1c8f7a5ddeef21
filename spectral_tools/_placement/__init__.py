"""From links to a matrix for each tile, and how far it can be trusted.

bent_tiles : links of tiles that one field bends, as those of corrected tiles
checked_links : links and tiles as all solvers take them
grid_links : which tiles of a grid are neighbours, and where they should be (public)
layout : what is known before any match, and the model of the stage (public)
loop_closures : closing errors of short loops, which name false links (public)
place_tiles : match and place in one call, and match again what failed (public)
report : how well placed tiles meet, link by link and in words (public)
solve_distortion : the distortion that all tiles share, with their positions (public)
solve_tiles : solve_rigid and solve_affine (public)
stage_steps : tiles placed by links, and by the stage where these leave gaps
uncertainty : covariance of positions, of two tiles or all (public)
"""

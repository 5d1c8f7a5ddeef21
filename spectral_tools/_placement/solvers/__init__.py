"""Least squares over linked tiles, robust, at any size.

affines : affine matrices as a pose graph: parametrisation and equations
consensus_evidence : which believed links agree by more than chance
link_beliefs : which offset of a link is right, by belief propagation, compiled
loop_kernels : short loops of links, and who breaks them, compiled
multigrid : algebraic multigrid for the Laplacian of large networks
multigrid_kernels : its passes, compiled
normal_equations : normal equations of tiles that are linked by pairs of points
pose_graph : robust least squares over poses, whatever a pose is: stiffness, gauge
robust_links : which links are right, by graduated non-convexity and alternatives
rotation_averaging : angles of tiles from those of links, without a start
similarities : rotations and scales as a pose graph: parametrisation and equations
translations : translations: the weighted Laplacian, by a factor or conjugate gradients
"""

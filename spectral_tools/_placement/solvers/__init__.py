"""Least squares over linked tiles, robust, at any size.

Modules
-------
affines : Tiles that stretch and shear, as a pose graph.
link_beliefs : Belief propagation between links and the loops they are in.
loop_kernels : Short loops of links, and links that break them.
multigrid : Laplacians of large networks, by algebraic multigrid.
multigrid_kernels : Its compiled passes.
normal_equations : Linked tiles, and blocks of their normal equations.
pose_graph : A matrix for each tile: stiffness, consensus, gauge.
robust_links : Which links are right, and which of their offsets.
rotation_averaging : Rotations of tiles from those of pairs.
similarities : Tiles that turn and change their scale, as a pose graph.
translations : Weighted least squares of offsets.
"""

"""From links to a matrix for each tile, and how far it can be trusted.

Modules
-------
grid_links : Which tiles lie beside each other, and where they should be.
layout : What is known of tiles before any is matched, and how a stage moves.
loop_closures : False links, named by the loops they break.
place_tiles : Match and place in one call.
report : How well placed tiles meet, link by link and in words.
solve_tiles : Place tiles by the links between them.
uncertainty : Covariances of positions and offsets.
"""

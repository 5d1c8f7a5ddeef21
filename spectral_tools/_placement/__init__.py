"""From links to a matrix for each tile, and how far it can be trusted."""

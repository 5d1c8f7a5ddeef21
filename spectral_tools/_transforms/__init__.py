"""Where points go: matrices, maps of points, and their fits."""

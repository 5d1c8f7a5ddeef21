"""Many pairs of points between two images."""

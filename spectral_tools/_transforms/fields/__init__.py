"""Displacement fields and their B-spline fits."""

"""Least squares over linked tiles, robust, at any size."""

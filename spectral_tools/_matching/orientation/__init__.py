"""Rotation, scale and mirror image between two images."""

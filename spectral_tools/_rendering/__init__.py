"""Warp and blend images into one canvas, block by block."""

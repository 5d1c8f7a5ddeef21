"""Known truths, and scores that hold results against them.

compare_transforms : which model of a transform points support (public)
scores : correlation, mutual information, Fourier rings, texture, overlaps (public)
simulate : pairs, tiles and series with a known truth (public)
textures : random scenes (public)
"""

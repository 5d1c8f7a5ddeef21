"""Known truths, and scores that hold results against them.

compare_transforms : compare what several kinds of transforms make of the same points
scores : scores of images that lie on each other, and of images alone
simulate : make acquisitions whose truth is known, out of any image
textures : make random scenes that look like images to an algorithm
"""

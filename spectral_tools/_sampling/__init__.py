"""Read an image between its pixels, at another size, or in part.

boxes : parts of tiles that reach over their border, holes filled, overlaps of two boxes
downsample : means of blocks of pixels, and larger pixels by a low-pass filter
sample_rows : values at rows of points, one by one or along runs, compiled
splines : coefficients and weights of B-splines, compiled
subpixel_moves : one shift for all pixels, by B-splines
"""

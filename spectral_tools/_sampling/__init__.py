"""Read an image between its pixels, at another size, or in part.

boxes : copy parts of tiles into boxes that reach over their border
downsample : images at half, a quarter, an eighth of their size, by means
sample_rows : locate and sample rows of points in a tile
splines : turn pixels into B-splines and sample rows of them
subpixel_moves : move a whole image by a fraction of a pixel
"""

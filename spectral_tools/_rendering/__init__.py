"""Warp and blend images into one canvas, block by block.

blends : blend rows of sampled tiles into a block of the canvas
composite : render placed tiles into one image
lazy_composite : render a mosaic as a lazy array of dask, by whoever computes it
multiband : blend tiles band by band, coarse details over wide seams
plan : what is rendered where, and the pieces of tiles that it takes
regions : render regions of the canvas, one after the other or by threads
sample_kernels : sample tiles and blend them into a block of the canvas
seams : find seams through overlaps, and blend along them
stores : arrays in files, room for them on the disk, and what they hold back
tile_reading : read the parts of placed tiles that a region of the canvas needs
warp : warp one image, with all its channels, by a matrix or a field
"""

"""Warp and blend images into one canvas, block by block.

blends : what a blend does with the tiles at a pixel, and the names of all blends
composite : a mosaic as one image, or block by block (public)
lazy_composite : a mosaic as a lazy array of Dask (public)
multiband : blend band by band, coarse detail over wide seams
plan : what is rendered where, and the pieces of tiles that it takes (public)
regions : render regions, by threads, into arrays and stores
sample_kernels : sample a tile and blend it into a block, compiled
seams : seams of least difference through overlaps, and blends along them
tile_reading : the parts of tiles and masks that a region needs
warp : one image by a matrix or a field, and larger or smaller pixels (public)
"""

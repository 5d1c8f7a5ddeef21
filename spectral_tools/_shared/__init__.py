"""What every room needs: arguments, results, statistics, and the doors to libraries.

arguments : public functions look at what comes in, by their annotations
arrays : types of arrays, and stored stacks that are read only where they are sliced
checks : arguments become arrays, or a clear error
compiled : the door to numba: how kernels are compiled, and where that is kept
fft : the door to scipy.fft
link_arguments : labels, links, covariances and priors as arguments
ndimage : the door to scipy.ndimage
results : outcomes in words, results that show themselves, readable signatures (public)
selected_inverse : entries of a sparse inverse, by the equations of Takahashi
sparse : the door to scipy.sparse: networks of tiles, conjugate gradients
statistics : limits of chi-square and F, the outlier test, graduated non-convexity
workers : independent work by threads or any map, and its progress
"""

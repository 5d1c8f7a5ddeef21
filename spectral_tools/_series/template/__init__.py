"""The mean of a movie, and frames that are fitted to it.

image_fit : Gauss-Newton fits of a frame to an image, with known weights
image_fit_kernels : their sums over pixels, compiled
joint_alignment : fit frames to the mean of all, with common weights or their own
mean_image : the running mean of moved frames, and the spectrum of what it leaves
self_similarity : where an image looks like itself, so that shifts are ambiguous
template : the first template, and the fixed pattern that is told from it
template_fit : match a frame to a prepared image: search, fit, and doubt
template_search : the search by whitened cross-correlation
"""

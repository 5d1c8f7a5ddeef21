"""One shift between two images, and between many tiles.

ambiguity : copies of a match one period of the scene away
fixed_pattern : fixed-pattern noise of a camera, measured and left out (public)
image_area : what of an image is image: padding cut off, holes filled
local_agreement : whether a match repeats itself in the parts of an overlap
match_tiles : many tiles along the links between them (public)
misfit : how far the parts of an overlap contradict one shift
overlap_windows : windows along an overlap, each with a shift of its own
phase_correlate : search and fit of one pair (public)
search : the whole-pixel shift, exact or circular, and how likely chance is
shift_fit : the fraction of a pixel, by spectral maximum likelihood, of one window or many
smooth_scenes : what two images share as they are, where no detail tells
window_batches : search of many windows of one shape at once
"""

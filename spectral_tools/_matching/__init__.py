"""One shift between two images, and between many tiles.

ambiguity : copies of a match one period of the scene away
fixed_pattern : fixed-pattern noise of a camera, measured and left out (public)
match_tiles : many tiles along the links between them (public)
phase_correlate : search and fit of one pair (public)
search : the whole-pixel shift, exact or circular, and how likely chance is
shift_fit : the fraction of a pixel, by spectral maximum likelihood
window_batches : search and fit of many windows of one shape at once
"""

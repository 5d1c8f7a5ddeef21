"""Movies: one shift a frame.

align_series : the shift of each frame, and the walk that bridges those without one
apply_shifts : move frames, what all of them show, and their mean
frame_links : match near frames to each other, and place all by these links
frame_matching : match frames to a template, or to a given image
frames : check arguments, and read frames from arrays, stores and iterators
neighbor_mean : the mean of the frames near each one
"""

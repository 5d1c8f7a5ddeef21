"""Rotation, scale and mirror image between two images.

match_orientation : from two images to a matrix and its covariance (public)
pose_fit : Gauss-Newton fit of angle, scale and shift
pose_images : splines, tapers and log-polar spectra of an image that is turned
pose_search : turns that the log-polar spectra suggest, and shifts for each
"""

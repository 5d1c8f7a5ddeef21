"""One or two images seen through their spectra: tapers, rings, whitening, peaks.

correlation_surface : whitened images, their correlation at every shift, and its peaks (public)
gain_gradient : how the brightness of two images drifts apart
peaks : Fisher z of lags, local maxima kept apart, and what chance does
phase_fit_kernels : ring sums of a cross-spectrum, coherence, one Newton step on its phases
ring_kernels : rings of frequencies, their power, and whitening by it
spectra : tapers, power spectra, ring averages and coherence to look at (public)
tapers : widths of tapers, tapered blocks, and what a taper leaks into rings
"""

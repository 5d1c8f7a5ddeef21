"""One or two images seen through their spectra: tapers, rings, whitening, peaks."""

"""The mean of a movie, and frames that are fitted to it."""

"""One shift between two images, and between many tiles."""

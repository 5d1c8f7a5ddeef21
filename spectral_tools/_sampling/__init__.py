"""Read an image between its pixels, at another size, or in part."""

"""Known truths, and scores that hold results against them."""

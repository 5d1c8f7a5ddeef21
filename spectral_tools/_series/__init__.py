"""Movies: one shift a frame."""

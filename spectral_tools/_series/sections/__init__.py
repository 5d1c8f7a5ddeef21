"""Serial sections at any angle, and their bending."""

"""Data sets on disk, and the episodes made of them."""

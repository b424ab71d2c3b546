"""Splits by image, and selections of examples."""

"""Layers and helpers shared by networks of several kinds; imports no other sub-package."""

"""Layers and helpers that networks of several kinds share."""

"""Checks of a data set before training, and its baselines."""

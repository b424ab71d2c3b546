"""Baselines and upper bounds that a score must be read against."""

"""Searches over settings: files of W&B sweeps, searched here by Optuna."""

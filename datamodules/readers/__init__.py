"""Readers of images and annotation files."""

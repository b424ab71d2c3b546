"""Readers of pictures and annotation files."""

"""Callbacks: they look and write, and change nothing that is optimised."""

"""Figures, tables, pages and loggers that callbacks and commands draw with."""

"""Captioners: an image encoder and a decoder behind one interface."""

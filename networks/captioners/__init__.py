"""Captioners: an encoder and a decoder behind one interface."""

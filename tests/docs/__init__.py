"""Tests of the documentation: links, names of files and classes, command lines."""

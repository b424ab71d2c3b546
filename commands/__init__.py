"""Commands of cli.py, one file each."""

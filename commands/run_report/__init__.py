"""What `cli.py report` is made of."""

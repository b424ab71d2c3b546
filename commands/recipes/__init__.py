"""What `cli.py recipe` is made of; the file format is in `commands.recipe`."""

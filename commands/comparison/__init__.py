"""What `cli.py compare` is made of."""

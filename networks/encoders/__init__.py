"""Networks that turn pictures into vectors and grids of features."""

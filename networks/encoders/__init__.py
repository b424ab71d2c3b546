"""Networks that turn images into vectors and grids of features."""

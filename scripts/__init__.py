"""What continuous integration and `make` run beside the tests."""

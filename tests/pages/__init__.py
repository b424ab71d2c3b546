"""Every page that the program writes, opened in a browser."""

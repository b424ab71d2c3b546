"""Models behind HTTP: the page of ``demo`` and the API of ``serve`` are one application."""

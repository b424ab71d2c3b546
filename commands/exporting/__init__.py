"""What is written when a run is exported."""

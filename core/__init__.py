"""What everything else stands on; nothing here imports another package of this project."""

"""Networks that write or read captions word by word."""

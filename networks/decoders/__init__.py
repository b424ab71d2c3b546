"""Networks that write captions token by token, and what they are made of."""

"""Loss functions over plain tensors."""

"""Networks in plain PyTorch. Nothing in here imports Lightning."""

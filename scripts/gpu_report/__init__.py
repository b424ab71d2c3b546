"""What this project promises of a GPU, measured on the one that is there: ``python -m scripts.gpu_report``."""

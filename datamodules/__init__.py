"""Data modules: files, splits, transforms, tokenisation; they publish facts."""

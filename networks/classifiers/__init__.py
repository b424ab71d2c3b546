"""Multi-label classifiers of pictures."""

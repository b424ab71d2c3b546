"""Multi-label classifiers of images."""

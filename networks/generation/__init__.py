"""Generating captions: search, sampling, reranking and retrieval."""

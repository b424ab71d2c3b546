"""Generating captions with any captioner: search, reranking, retrieval."""

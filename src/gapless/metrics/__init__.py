"""Embeddings in, numbers out: the gap, retrieval, grouping, and their uncertainty."""

"""Figures of embeddings: the modality gap, retrieval, grouping, and their intervals."""

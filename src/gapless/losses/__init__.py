"""Losses: pure functions on embeddings, and `GapClosingLoss`, which holds the temperature and the weights."""

"""Embeddings on disk and in memory: arrays of any tool, directories of `gapless embed`, sets that are joined."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "EmbeddingSet",
    "EmbeddingsWriter",
    "read_arrays",
    "read_embeddings",
    "read_rows",
]

if TYPE_CHECKING:
    from gapless.embeddings.array_sets import read_arrays
    from gapless.embeddings.embedding_set import EmbeddingSet
    from gapless.embeddings.sources import read_rows
    from gapless.embeddings.store import EmbeddingsWriter, read_embeddings

__getattr__ = lazy_names(
    __name__,
    {
        "EmbeddingSet": "gapless.embeddings.embedding_set",
        "EmbeddingsWriter": "gapless.embeddings.store",
        "read_arrays": "gapless.embeddings.array_sets",
        "read_embeddings": "gapless.embeddings.store",
        "read_rows": "gapless.embeddings.sources",
    },
)

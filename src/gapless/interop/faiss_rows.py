"""Embeddings to and from faiss: an exact index of inner products over the unit-norm rows of one modality.

index = to_faiss(embeddings, "image")        # the numbers that a search gives are rows of the embeddings
rows = from_faiss(index)                     # [row, dim] fp32
"""

from typing import Any

import numpy as np

from gapless.core.errors import UsageError, missing_extra, unknown_name
from gapless.embeddings.embedding_set import EmbeddingSet


def to_faiss(embeddings: EmbeddingSet, modality: str) -> Any:
    """An index of one modality whose scores are cosines; row i of the embeddings has the number i.

    Rows that lack the modality are not in it, and the others keep their numbers.

    Raises:
        UsageError: faiss is not installed, or an unknown modality.
    """
    try:
        import faiss
    except ImportError:
        raise missing_extra("faiss-cpu", "interop") from None
    if modality not in embeddings.embeddings:
        raise unknown_name("modality", modality, embeddings.modalities)
    numbers = np.flatnonzero(embeddings.presence[modality])
    rows = np.ascontiguousarray(embeddings.embeddings[modality][numbers], dtype=np.float32)
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
    index.add_with_ids(rows / np.linalg.norm(rows, axis=1, keepdims=True), numbers)
    return index


def from_faiss(index: Any) -> np.ndarray:
    """[row, dim] fp32: the vectors that an index holds, in the order in which they were added.

    Raises:
        UsageError: an index that cannot give its vectors back.
    """
    try:
        inner = getattr(index, "index", index)  # of an index with numbers of its own
        rows: np.ndarray = inner.reconstruct_n(0, int(inner.ntotal))
    except RuntimeError:
        raise UsageError(f"a {type(index).__name__} does not hold its vectors; keep them beside it") from None
    return rows

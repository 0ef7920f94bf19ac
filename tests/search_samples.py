"""Collections of drawn vectors, and plain Python that says what a search in them must give."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import Source, columns_of
from gapless.search.build import ready_chunks, write_collection
from gapless.search.changes import Changes
from gapless.search.collection import FORMAT, VERSION, Collection
from gapless.search.indices import update_indices
from gapless.search.samples import Samples
from gapless.search.table_rows import label_columns

FINGERPRINT = "f" * 64


def unit_rows(num_rows: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def rows_with_ties(num_rows: int, num_distinct: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Every direction occurs many times, in no order."""
    chosen = np.random.default_rng(seed + 1).integers(0, num_distinct, num_rows)
    return unit_rows(num_distinct, dim, seed)[chosen]


def embedding_set(vectors: Mapping[str, np.ndarray], start: int = 0, **known: Any) -> EmbeddingSet:
    """Pairs with ids whose order is not the order of the rows."""
    count = len(next(iter(vectors.values())))
    ids = [f"s{(number * 7919) % 100_003:06d}" for number in range(start, start + count)]
    return EmbeddingSet(ids=known.pop("ids", ids), embeddings=dict(vectors), **known)


def write(path: Path | str, embeddings: EmbeddingSet, **options: Any) -> tuple[Collection, Changes]:
    """Bring ready embeddings into a collection, without the indices."""
    present = None if embeddings.is_complete else embeddings.presence
    source = Source(VectorPairs(embeddings.embeddings, embeddings.ids), columns_of(embeddings), {}, present=present)
    samples = Samples.of_embeddings(source, embeddings, "drawn")
    info = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"source": ["nowhere"], "fingerprint": options.pop("fingerprint", FINGERPRINT)},
        "embedding_dim": next(iter(embeddings.embeddings.values())).shape[1],
        "modalities": list(embeddings.modalities),
        "labels": label_columns(samples.labels),
    }
    return write_collection(str(path), samples, info, lambda part, place: ready_chunks(part, embeddings), **options)


def collection_of(path: Path | str, embeddings: EmbeddingSet, **options: Any) -> Collection:
    collection, _ = write(path, embeddings, **options)
    update_indices(collection, None)
    return collection


def brute_force(
    rows: Mapping[str, np.ndarray], query: np.ndarray, k: int, keep: Sequence[str] | None = None
) -> list[tuple[str, float]]:
    """The k best keys and scores: exact sums, rounded to fp32, ties by key."""
    scored = [
        (key, float(np.float32(math.fsum(float(a) * float(b) for a, b in zip(vector, query, strict=True)))))
        for key, vector in rows.items()
        if keep is None or key in keep
    ]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def keyed(embeddings: EmbeddingSet) -> dict[str, np.ndarray]:
    """Key of a row -> its vector."""
    return {
        f"{sample}/{modality}": matrix[row]
        for modality, matrix in embeddings.embeddings.items()
        for row, sample in enumerate(embeddings.ids)
    }

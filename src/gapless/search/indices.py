"""Builds the indices of a collection: full text of the captions, and an approximate index of the vectors."""

from typing import Any

import numpy as np

from gapless.core.errors import unknown_name
from gapless.search.approximate import indexed
from gapless.search.collection import Collection
from gapless.search.engine import reading

KINDS = ("hnsw", "ivf-pq", "ivf-flat")
ANN_ABOVE = 2_000_000  # rows; below, exact search from memory answers within a fraction of a second
RECALL_QUERIES = 100
RECALL_AT = 10


def check_kind(kind: str | None) -> None:
    """Refuse an unknown kind, before anything is written."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("index", kind, KINDS)


def index_config(kind: str) -> Any:
    """The engine's description of an approximate index, one entry per name in `KINDS`."""
    from lancedb.index import HnswSq, IvfFlat, IvfPq

    return {"hnsw": HnswSq, "ivf-pq": IvfPq, "ivf-flat": IvfFlat}[kind](distance_type="dot")


def update_indices(collection: Collection, kind: str | None, above: int = ANN_ABOVE) -> dict[str, float] | None:
    """Bring the indices up to date after a write.

    Args:
        kind: of the approximate index; None lets the size decide: `hnsw` above `above` rows, else none.

    Returns:
        recall of the approximate index, measured, or None where there is none, or no row.
    """
    from lancedb.index import FTS

    with reading(collection.uri):
        table = collection.table
        if not any("caption" in index.columns for index in table.list_indices()):
            table.create_index("caption", config=FTS(remove_stop_words=False))  # "no effusion" is not "effusion"
        if kind is None and not collection.table_version().has_index and table.count_rows() > above:
            kind = KINDS[0]
        if kind is not None:
            table.create_index("vector", config=index_config(kind), replace=True)
        table.optimize()
    return measured_recall(collection) if collection.table_version().has_index and collection.count() else None


def measured_recall(collection: Collection) -> dict[str, float]:
    """Share of the exact nearest rows that the approximate index finds, over rows drawn from the collection itself.

    Returns:
        recall@10 in [0, 1], higher is better; the drawn row itself counts neither way.
    """
    version = collection.table_version()
    with reading(collection.uri):
        drawn = np.random.default_rng(0).permutation(len(version))[:RECALL_QUERIES]
        shares = []
        for place, query in zip(drawn.tolist(), version.vectors(drawn), strict=True):
            nearest = set(version.exact(query, RECALL_AT + 1)[0].tolist()) - {place}
            found = set(indexed(version, query, RECALL_AT + 1, None)[0].tolist())
            shares.append(len(nearest & found) / max(1, len(nearest)))
    return {"recall@10": float(np.mean(shares)), "queries": len(shares)}

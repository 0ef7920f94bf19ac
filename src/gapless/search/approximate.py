"""Searches by the indices of the engine: the approximate one of the vectors, and the full text of the captions."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from gapless.search.filter_terms import literal
from gapless.search.lift import BalancedLift
from gapless.search.table_version import TableVersion

INDEX_CANDIDATES = 4  # times k rows are asked of an approximate index, and ordered by their exact scores


def indexed(
    version: TableVersion,
    query: np.ndarray,
    k: int,
    where: str | None,
    lift: BalancedLift | None = None,
    apart: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """What the approximate index finds, ordered by exact scores.

    Args:
        lift: makes of the cosines what is ranked.
        apart: modalities that are asked for one by one, because under a gap the nearest rows are all of one.
    """
    conditions: list[str | None] = [f"modality = {literal(name)}" for name in apart] or [None]

    def places(condition: str | None) -> np.ndarray:
        asked = version.table.search(query, vector_column_name="vector").distance_type("dot").with_row_id(True)
        both = [f"({part})" for part in (where, condition) if part is not None]
        if both:
            asked = asked.where(" AND ".join(both), prefilter=True)
        found = asked.select(["_rowid", "_distance"]).limit(INDEX_CANDIDATES * k).to_arrow()
        return version.reader.at_ids(found["_rowid"].to_numpy())

    if len(conditions) == 1:
        return version.order(places(conditions[0]), query, k, lift)
    with ThreadPoolExecutor(len(conditions)) as pool:  # the engine works beside Python's lock
        parts = list(pool.map(places, conditions))
    return version.order(np.concatenate(parts), query, k, lift)


def fused(
    version: TableVersion, places: np.ndarray, words: str, k: int, where: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """One ranking of two, by reciprocal ranks: rows by vector, and rows whose caption has the words."""
    from lancedb.rerankers import RRFReranker

    asked = version.table.search(words, query_type="fts", fts_columns="caption").with_row_id(True)
    if where is not None:
        asked = asked.where(where, prefilter=True)
    by_words = asked.select(["row", "_score"]).limit(k).to_arrow()
    by_words = by_words.sort_by([("_score", "descending"), ("row", "ascending")]).select(["_rowid"])
    by_vector = pa.table({"_rowid": pa.array(version.reader.ids(places), pa.uint64())})
    both = RRFReranker().rerank_hybrid(words, by_vector, by_words)
    found = version.reader.at_ids(both["_rowid"].to_numpy())
    scores = both["_relevance_score"].to_numpy()
    order = np.lexsort((version.ranks(found), -scores))
    return found[order], scores[order]

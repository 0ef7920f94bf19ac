"""Searches by the indices of the engine: the approximate one of the vectors, and the full text of the captions."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from gapless.search.facts import IndexSettings
from gapless.search.lift import BalancedLift
from gapless.search.table_version import TableVersion

USUAL_PROBES = 20  # of the engine
MAX_PARTITIONS = 100_000  # more than any index has
# Rows that a filter lets through, up to which all of them are scored. Of 1,000,000 rows of 512-d a query through the
# index that lets a tenth through takes 66 to 84 ms of CPU, half of it the filter. Scoring as many held rows takes 60;
# read from the disk, 10,000 take 180.
EXACT_BELOW, EXACT_BELOW_HELD = 5000, 100_000


def indexed(
    version: TableVersion,
    query: np.ndarray,
    k: int,
    where: str | None,
    settings: IndexSettings,
    lift: BalancedLift | None = None,
    apart: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """What the approximate index finds, ordered by exact scores; where a filter leaves few rows, exact search.

    Args:
        settings: how the index is asked.
        lift: makes of the cosines what is ranked.
        apart: modalities that are asked for one by one, because under a gap the nearest rows are all of one.
    """
    if where is not None and version.count(where) <= (EXACT_BELOW_HELD if version.is_held else EXACT_BELOW):
        return version.exact(query, k, where, lift)
    conditions: list[str | None] = [version.of_modality(name) for name in apart] or [None]

    def places(condition: str | None) -> np.ndarray:
        asked = version.table.search(query, vector_column_name="vector").distance_type("dot").with_row_id(True)
        both = [f"({part})" for part in (where, condition) if part is not None]
        if both:
            asked = asked.where(" AND ".join(both), prefilter=True)
            asked = asked.nprobes(_partitions(version, settings, both))
        elif settings.nprobes is not None:
            asked = asked.nprobes(settings.nprobes)
        if settings.ef is not None:
            asked = asked.ef(max(settings.ef, settings.candidates * k))
        found = asked.select(["_rowid", "_distance"]).limit(settings.candidates * k).to_arrow()
        return version.reader.at_ids(found["_rowid"].to_numpy())

    if len(conditions) == 1:
        return version.order(places(conditions[0]), query, k, lift)
    with ThreadPoolExecutor(len(conditions)) as pool:  # the engine works beside Python's lock
        parts = list(pool.map(places, conditions))
    return version.order(np.concatenate(parts), query, k, lift)


def _partitions(version: TableVersion, settings: IndexSettings, conditions: Sequence[str]) -> int:
    """How many partitions are looked through where only a share of the rows counts.

    A partition holds that share of its rows, so the number grows with 1 / share: as many rows that pass are looked
    through as rows without a filter. The nearest of few rows also lie further from the query, in partitions further
    away.
    """
    passing = max(1, version.count(" AND ".join(conditions)))
    return min(MAX_PARTITIONS, math.ceil((settings.nprobes or USUAL_PROBES) * len(version) / passing))


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

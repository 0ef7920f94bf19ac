"""Builds the indices of a collection: keys, full text of the captions, and an approximate index of the vectors.

The approximate index is measured when it is built: rows of the collection are asked, and what it finds is compared with
exact search. While the recall is below what is wanted, more partitions, a broader search or more candidates are tried.
What is chosen is kept in the collection, and searches use it.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from gapless.core.errors import UsageError, unknown_name
from gapless.search.approximate import indexed
from gapless.search.collection import Collection
from gapless.search.engine import reading
from gapless.search.facts import Facts, IndexReport, IndexSettings

KINDS = ("hnsw", "ivf-pq", "ivf-flat", "ivf-rq")
BITS_TOGETHER = 8  # ivf-rq keeps a bit a dimension, in whole bytes
PARTITION_ROWS = 4096  # of ivf-flat by the engine's own choice, of ivf-rq by ours
ANN_ABOVE = 2_000_000  # rows
RECALL_QUERIES = 100
RECALL_AT = 10
RECALL = 0.95
SAME_SCORE = 1e-6  # rows whose cosines differ by less are equally near
MAX_PROBES, MAX_BREADTH, MAX_CANDIDATES = 640, 1280, 64
KEYED_ABOVE = 50_000  # rows; in fewer a key is found by looking through all
SMALL = 100_000  # rows; a collection up to this size is rewritten after each run, within a second
UNINDEXED_SHARE, MAX_FRAGMENTS = 1 / 16, 64  # of a larger one: above either it is rewritten


def usual_kind(dim: int) -> str:
    """The approximate index of vectors of this dim where nobody names one.

    "ivf-rq" is the fastest to ask and the smallest, and was built of 10 million rows in 2.7 GB; it takes dims that are
    multiples of 8. "ivf-flat" takes any.
    """
    return "ivf-flat" if dim % BITS_TOGETHER else "ivf-rq"


def check_kind(kind: str | None, dim: int | None = None) -> None:
    """Raise UsageError for an unknown kind, or one that vectors of this dim cannot have, before anything is written."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("index", kind, KINDS)
    if kind == "ivf-rq" and dim is not None and dim % BITS_TOGETHER:
        raise UsageError(f"ivf-rq takes a dim that is a multiple of {BITS_TOGETHER}, not {dim}; ivf-flat takes any")


def checked_recall(recall: float) -> float:
    """The recall that is wanted of an approximate index.

    Raises:
        UsageError: no share above 0.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"ann_recall is a share above 0 and at most 1, got {recall!r:.40}")
    return float(recall)


def index_config(kind: str) -> Any:
    """The engine's description of an approximate index, one entry per name in `KINDS`.

    The number of partitions is one for 4,096 rows: `optimize` of the engine joins partitions of about 1,000 rows or
    fewer, so that a finer index would not last. "ivf-rq" keeps a bit a dimension: RaBitQ (Gao and Long, SIGMOD 2024).
    """
    from lancedb.index import HnswSq, IvfFlat, IvfPq, IvfRq

    if kind == "ivf-rq":
        return IvfRq(distance_type="dot", target_partition_size=PARTITION_ROWS)
    return {"hnsw": HnswSq, "ivf-pq": IvfPq, "ivf-flat": IvfFlat}[kind](distance_type="dot")


def update_indices(
    collection: Collection, kind: str | None, above: int = ANN_ABOVE, recall: float = RECALL
) -> dict[str, Any] | None:
    """Bring the indices up to date after a write.

    Rows that were added since are searched without the indices, exactly. They enter them when they are many; a run that
    adds little costs little.

    Args:
        kind: of the approximate index; None lets the size decide: `usual_kind` above `above` rows, else none.
        recall: the least recall@10 that is wanted of it.

    Returns:
        recall and settings of the approximate index (`IndexReport.as_json`), or None where there is none, or no row.
    """
    with reading(collection.uri):
        table = collection.table
        columns = {column for index in table.list_indices() for column in index.columns}
        rows = int(table.count_rows())
        labels = (
            collection.info["labels"].values() if rows > KEYED_ABOVE else ()
        )  # of few rows they are read when needed
        kinds = {column: collection.table_version().kind(column) for column in labels}
        _make_plain_indices(table, columns, rows)
        if kind is None and "vector" not in columns and rows > above:
            kind = usual_kind(collection.table_version().dim)
        if kind is not None:
            table.create_index("vector", config=index_config(kind), replace=True)
        is_rewritten = _is_due(table, rows)
        if is_rewritten:
            table.optimize()
        before = collection.facts()
        report = before.index
        if not collection.table_version().has_index or not rows:
            report = None
        elif kind is not None or report is None or is_rewritten:
            kind = kind or ("unknown" if report is None else report.kind)
            report = measured_index(collection, kind, recall)
        facts = Facts(int(table.version), kinds, report)
        if kinds or replace(facts, version=before.version) != before:
            collection.keep_facts(facts)
    return None if report is None else report.as_json()


def _make_plain_indices(table: Any, there: set[str], rows: int) -> None:
    """Indices that answer exactly: the words of captions and, of many rows, the keys and what rows are counted by."""
    from lancedb.index import FTS, Bitmap, BTree

    if "caption" not in there:
        table.create_index("caption", config=FTS(remove_stop_words=False))  # "no effusion" is not "effusion"
    if rows > KEYED_ABOVE:
        for column, config in {"row": BTree(), "modality": Bitmap(), "source": Bitmap()}.items():
            if column not in there:
                table.create_index(column, config=config)


def _is_due(table: Any, rows: int) -> bool:
    """Whether rows are to enter the indices, and small files to become large ones.

    The engine rewrites a file of up to a million rows to add a thousand to it: 2 GB at 512-d.
    """
    if rows <= SMALL:
        return True
    outside = max((index.num_unindexed_rows or 0 for index in table.list_indices()), default=0)
    return outside > UNINDEXED_SHARE * rows or table.stats()["fragment_stats"]["num_small_fragments"] > MAX_FRAGMENTS


def measured_index(collection: Collection, kind: str, target: float = RECALL) -> IndexReport:
    """Measure the approximate index against exact search, and choose how it is asked.

    Rows drawn from the collection are the queries; a drawn row itself counts neither way. They ask all rows together
    and each modality by itself, and the lowest of these recalls counts: a mixed search asks each modality.
    """
    version = collection.table_version()
    with reading(collection.uri):
        drawn = version.reader.drawn(RECALL_QUERIES, 0, None)
        queries = version.vectors(drawn)
        names: list[str | None] = [None]
        names += [name for name, count in version.counts().items() if 0 < count < len(version)]
        levels = {name: version.kth_scores(queries, drawn, RECALL_AT, name) for name in names}

        def recall_of(settings: IndexSettings) -> float:
            return min(_recall(version, queries, drawn, name, levels[name], settings) for name in names)

        settings = IndexSettings()
        recall = recall_of(settings)
        while recall < target:
            tried = {one: recall_of(one) for one in _broader(settings, kind)}
            if not tried:
                break
            settings, recall = max(tried.items(), key=lambda pair: pair[1])
    return IndexReport(kind, settings, recall, target, len(drawn))


def _recall(
    version: Any, queries: np.ndarray, drawn: np.ndarray, modality: str | None, levels: np.ndarray, settings: Any
) -> float:
    """Share of the nearest rows that the index finds; any row counts that is as near as the last of them."""
    apart = () if modality is None else (modality,)  # as a mixed search asks: through the index, however few they are
    shares = []
    for place, query, level in zip(drawn.tolist(), queries, levels, strict=True):
        places, scores = indexed(version, query, RECALL_AT + 1, None, settings, apart=apart)
        scores = scores[places != place]
        wanted = min(RECALL_AT, version.counts()[modality] if modality else len(version) - 1)
        shares.append(min(1.0, float((scores >= level - SAME_SCORE).sum()) / max(1, wanted)))
    return float(np.mean(shares))


def _broader(settings: IndexSettings, kind: str) -> list[IndexSettings]:
    """Settings that look further in one respect: half as many partitions again, or twice as much of another."""
    nprobes, ef, candidates = settings.nprobes or 20, settings.ef or 80, settings.candidates
    found = []
    if nprobes < MAX_PROBES:
        found.append(replace(settings, nprobes=min(MAX_PROBES, nprobes * 3 // 2)))
    if kind == "hnsw" and ef < MAX_BREADTH:
        found.append(replace(settings, ef=2 * ef))
    if kind != "ivf-flat" and candidates < MAX_CANDIDATES:
        found.append(replace(settings, candidates=2 * candidates))
    return found

"""A collection that is larger than the memory: written, indexed and asked, without ever holding its vectors.

    python benchmarks/search_large.py --size 10000000 --folder DIR [--kind ivf-rq] [--json FILE]

Rows are drawn in blocks, as benchmarks/search.py draws them, and written straight into the table, half images and half
texts. The exact answers come from drawing the same blocks again. A folder that holds the collection already is asked
again without writing it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from collection_growth import INFO, batches, write
from resident_memory import peak_bytes
from scale_steps import bytes_below
from search import DIM, K, drawn_vectors, timed

from gapless.search.collection import Collection
from gapless.search.indices import update_indices, usual_kind
from gapless.search.table_rows import schema_of


def exact_answers(size: int, queries: np.ndarray) -> list[set[str]]:
    """For each query the keys of the 10 highest products of all rows."""
    scores, keys = np.empty((len(queries), 0)), np.empty((len(queries), 0), dtype=object)
    for batch in batches(size, schema_of(INFO), drawn_vectors):
        rows = np.stack(batch.column("vector").to_numpy(zero_copy_only=False))
        products = queries @ rows.T
        near = np.argpartition(-products, K, axis=1)[:, :K]
        scores = np.concatenate([scores, np.take_along_axis(products, near, axis=1)], axis=1)
        keys = np.concatenate([keys, np.array(batch.column("row").to_pylist(), dtype=object)[near]], axis=1)
        best = np.argsort(-scores, axis=1)[:, :K]
        scores, keys = np.take_along_axis(scores, best, axis=1), np.take_along_axis(keys, best, axis=1)
    return [set(row) for row in keys]


def asked(collection: Collection, queries: np.ndarray, answers: list[set[str]], rounds: int) -> dict[str, float]:
    """Latency of single queries by the approximate index, and their recall."""
    times, right = [], 0
    for number in range(rounds):
        for query, answer in zip(queries, answers, strict=True):
            start = time.perf_counter()
            hits = collection.search(query, k=K, exact=False)
            times.append(1000 * (time.perf_counter() - start))
            right += len(answer & {hit.row for hit in hits}) if number == 0 else 0
    p50, p95 = np.percentile(times[len(queries) * (rounds > 1) :], [50, 95])  # the first round brings files to memory
    return {"p50_ms": float(p50), "p95_ms": float(p95), "recall@10": right / (K * len(queries))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000_000, help="rows, two of a pair")
    parser.add_argument("--folder", type=Path, required=True, help="where the collection is kept, or is already")
    parser.add_argument("--kind", default=usual_kind(DIM), help="the collection's approximate index")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    path, seconds = options.folder / f"large-{options.size}", dict[str, float]()
    if not path.exists():
        timed("write the rows, words and keys", seconds, lambda: write(str(path), options.size, drawn_vectors))
    collection = Collection.open(path)
    if collection.facts().index is None:
        timed("index, with its recall", seconds, lambda: update_indices(collection, options.kind))
    report = collection.facts().index
    queries = drawn_vectors(options.queries, 99)
    found = asked(collection, queries, exact_answers(options.size, queries), options.rounds)
    figures = {
        "size": options.size,
        "seconds": seconds,
        "index": None if report is None else report.as_json(),
        "asked": found,
        "bytes_on_disk": bytes_below(path),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

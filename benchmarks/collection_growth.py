"""What a collection costs as it grows: opening, one key, adding 1,000 rows, and the memory that is held.

    python benchmarks/collection_growth.py [--sizes 100000,300000,1000000] [--json FILE]

Rows of 512-d, half images and half texts, with two labels, are written straight into the table. Every figure is CPU
seconds of a fresh process on one core. The exponent of each is fitted over the sizes: 0 does not grow, 1 grows with
the rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from growth import fit
from resident_memory import peak_bytes

from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import Source, columns_of
from gapless.search.build import ready_chunks, write_collection
from gapless.search.changes import missing_from
from gapless.search.collection import FORMAT, TABLE, VERSION, Collection, connect
from gapless.search.indices import update_indices
from gapless.search.samples import Samples
from gapless.search.table_rows import batch_of, schema_of

DIM = 512
ADDED = 500  # samples, two rows each
CHUNK = 8192
INFO: dict[str, Any] = {
    "format": FORMAT,
    "version": VERSION,
    "model": {"source": ["none"], "fingerprint": "0" * 64},
    "embedding_dim": DIM,
    "modalities": ["image", "text"],
    "labels": {"age": "age", "site": "site"},
}


def unit_rows(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def batches(
    count: int, schema: pa.Schema, draw: Callable[[int, int], np.ndarray] = unit_rows
) -> Iterator[pa.RecordBatch]:
    """The rows of a collection, of as many pairs as make `count`; `draw` gives vectors by their number and a seed."""
    for start in range(0, count // 2, CHUNK):
        size = min(CHUNK, count // 2 - start)
        ids = [f"{number:09d}" for number in range(start, start + size)]
        random = np.random.default_rng(start)
        for name in INFO["modalities"]:
            values: dict[str, Any] = {
                "row": [f"{one}/{name}" for one in ids],
                "id": ids,
                "modality": [name] * size,
                "caption": [f"left chest {one}" for one in ids],
                "group": ids,
                "split": ["train"] * size,
                "source": ["drawn"] * size,
                "content": ids,
                "age": random.integers(0, 100, size).astype(str).tolist(),
                "site": [f"s{number}" for number in random.integers(0, 1000, size)],
                "has_thumbnail": [False] * size,
                "thumbnail": [None] * size,
                "preview": [None] * size,
            }
            yield batch_of(values, draw(size, start + len(name)), schema)


def write(path: str, count: int, draw: Callable[[int, int], np.ndarray] = unit_rows) -> None:
    schema = schema_of(INFO)
    rows = pa.RecordBatchReader.from_batches(schema, batches(count, schema, draw))
    connect(path).create_table(TABLE, data=rows, schema=schema, mode="create")
    update_indices(Collection.open(path), None, above=10 * count)


def steps(path: str) -> dict[str, float]:
    """CPU seconds of each step in this process, after LanceDB is imported, and the peak of its memory."""
    connect(path)
    found: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:
        start = time.process_time()
        value = work()
        found[name] = time.process_time() - start
        return value

    before = peak_bytes()
    collection = timed("open", lambda: Collection.open(path, 0))
    timed("get a key", lambda: collection.get("000000005/text"))
    found["memory of opening, GB"] = (peak_bytes() - before) / 2**30
    ids = [f"new{time.time_ns()}-{number}" for number in range(ADDED)]
    matrices = {name: unit_rows(ADDED, seed) for seed, name in enumerate(INFO["modalities"])}
    labels = {"age": ["5"] * ADDED, "site": ["s1"] * ADDED}
    rows = EmbeddingSet(ids=ids, embeddings=matrices, captions=["left chest"] * ADDED, labels=labels)
    source = Source(VectorPairs(matrices, ids), columns_of(rows), {})
    samples = timed("digests of the 1,000 rows", lambda: Samples.of_embeddings(source, rows, ids[0]))

    def add() -> None:
        done, _ = write_collection(path, samples, INFO, lambda part, place: ready_chunks(part, rows))
        update_indices(done, None, above=10**9)
        done.rows_per_modality()
        missing_from(done, samples.ids, samples.origin, None)
        for label in done.info["labels"]:
            done.label_kind(label)

    timed("add 1,000 rows", add)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,300000,1000000")
    parser.add_argument("--steps", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if options.steps:
        print(json.dumps(steps(options.steps)))
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    results: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/c"
            write(path, size)
            subprocess.run([sys.executable, __file__, "--steps", path], check=True, capture_output=True)  # warm files
            words = [sys.executable, __file__, "--steps", path]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            results.setdefault(name, []).append(value)
        print(f"{size:,}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in results.items()), flush=True)
    powers = {name: fit(sizes, values).power if len(sizes) > 1 else 0.0 for name, values in results.items()}
    print("grows with the rows to the power of: " + ", ".join(f"{name} {power:.2f}" for name, power in powers.items()))
    if options.json:
        options.json.write_text(json.dumps({"sizes": sizes, "steps": results, "powers": powers}, indent=2))


if __name__ == "__main__":
    main()

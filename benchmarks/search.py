"""How fast a collection answers, against faiss in the same run.

    python benchmarks/search.py [--sizes 10000,100000,1000000] [--threads 2] [--kind ivf-flat] [--out FILE.json]
    python benchmarks/search.py --sizes 1000000 --folder DIR --build_only     # writes and indexes the collection
    python benchmarks/search.py --sizes 1000000 --folder DIR --only ivf-flat     # asks it

Vectors of 512-d as a trained model's: unit norm, most of their variance in a few dozen directions. Queries are drawn
from the same distribution and are not in the collection. Every engine answers the same queries one at a time, in
rounds that take turns, so that another process on the machine slows all of them; then from several threads at once.
recall@10 counts against the highest products of the drawn matrix, which know nothing of the collection.

Filters let a share of the rows through: by a label that has nothing to do with the vectors ("by chance"), and by one
that follows their first direction ("by content"), so that the rows that pass lie to one side of most queries.
Research use.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar

import faiss
import numpy as np
from resident_memory import peak_bytes
from scale_steps import bytes_below

from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import Source, columns_of
from gapless.search.balance_store import BalanceSettings
from gapless.search.build import ready_chunks, write_collection
from gapless.search.collection import FORMAT, VERSION, Collection, Hit
from gapless.search.indices import update_indices, usual_kind
from gapless.search.rebalance import update_balance
from gapless.search.row_readers import HeldRows
from gapless.search.samples import Samples
from gapless.search.table_rows import label_columns
from gapless.search.table_version import MEMORY_BYTES

DIM = 512
DIRECTIONS = 48  # that hold most of the variance
K = 10
ROUNDS = 3
SHARES = (0.01, 0.1, 0.5)  # of the rows that a filter lets through
PARTS = 1000  # values of the labels that filters name
NO_MODEL: Mapping[str, object] = {"source": ["none"], "fingerprint": "0" * 64}
FAISS_LINKS, FAISS_BUILD, FAISS_SEARCH = 32, 80, 64  # M, efConstruction, efSearch
WORDS = [
    "axial",
    "chest",
    "abdomen",
    "brain",
    "liver",
    "effusion",
    "lesion",
    "mass",
    "cyst",
    "fracture",
    "nodule",
    "oedema",
    "normal",
    "left",
    "right",
]

Engine = Callable[[np.ndarray], Sequence[int]]
Figures = dict[str, float]
T = TypeVar("T")


class SizeFigures(TypedDict):
    """What one size gives; `key_bytes` is the memory of a row besides its vector."""

    size: int
    engines: dict[str, Figures]
    seconds: dict[str, float]
    index: dict[str, Any] | None
    bytes_on_disk: int
    key_bytes: float


def drawn_vectors(count: int, seed: int) -> np.ndarray:
    """[count, DIM] unit-norm rows; any seed draws from the same distribution."""
    mixing = np.random.default_rng(0).standard_normal((DIRECTIONS, DIM)).astype(np.float32)
    random = np.random.default_rng(seed)
    rows = np.empty((count, DIM), dtype=np.float32)
    for start in range(0, count, 65_536):
        part = slice(start, min(start + 65_536, count))
        size = part.stop - part.start
        rows[part] = random.standard_normal((size, DIRECTIONS), dtype=np.float32) @ mixing / DIRECTIONS**0.5
        rows[part] += 0.3 * random.standard_normal((size, DIM), dtype=np.float32)
        rows[part] /= np.linalg.norm(rows[part], axis=1, keepdims=True)
    return rows


def paired_by_direction(vectors: np.ndarray) -> np.ndarray:
    """The same rows in another order: the two rows of a pair have the same rank along the first direction.

    So a label of the pairs can follow the vectors of both modalities.
    """
    half = len(vectors) // 2
    direction = np.random.default_rng(0).standard_normal((DIRECTIONS, DIM)).astype(np.float32)[0]
    shuffled = np.random.default_rng(3).permutation(half)
    order = [start + np.argsort(vectors[start : start + half] @ direction)[shuffled] for start in (0, half)]
    return vectors[np.concatenate(order)]


def filter_labels(pairs: int) -> dict[str, np.ndarray]:
    """Label -> [pair] whole numbers below `PARTS`; `side` is the rank along the first direction (see above)."""
    rank = np.random.default_rng(3).permutation(pairs)
    return {"part": np.random.default_rng(4).integers(0, PARTS, pairs), "side": rank * PARTS // pairs}


class Filtered(NamedTuple):
    """A filter of the benchmark, and which rows of the drawn matrix pass it."""

    name: str
    where: str
    passes: np.ndarray


def filters_of(size: int) -> list[Filtered]:
    labels = filter_labels(size // 2)
    return [
        Filtered(f"{share:.0%} {how}", f"{label} < {round(share * PARTS)}", np.tile(values < share * PARTS, 2))
        for (label, values), how in zip(labels.items(), ("by chance", "by content"), strict=True)
        for share in SHARES
    ]


def drawn_captions(count: int) -> list[str]:
    """Eight words each."""
    random = np.random.default_rng(2)
    return [" ".join(WORDS[word] for word in row) for row in random.integers(0, len(WORDS), (count, 8))]


def make_collection(
    path: Path,
    vectors: np.ndarray,
    model: Mapping[str, object] = NO_MODEL,
    labels: Mapping[str, list[str]] | None = None,
) -> Collection:
    """A row per vector, half of them images and half texts, with a caption of eight words.

    Args:
        labels: label -> [pair] values; none by default.
    """
    half = len(vectors) // 2
    captions = drawn_captions(half)
    ids = [f"{number:08d}" for number in range(half)]
    matrices = {"image": vectors[:half], "text": vectors[half:]}
    embeddings = EmbeddingSet(ids=ids, embeddings=matrices, captions=captions, labels=dict(labels or {}))
    samples = Samples.of_embeddings(Source(VectorPairs(matrices, ids), columns_of(embeddings), {}), embeddings, "drawn")
    info = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "embedding_dim": DIM,
        "modalities": list(matrices),
        "labels": label_columns(list(labels or {})),
    }
    collection, _ = write_collection(str(path), samples, info, lambda part, place: ready_chunks(part, embeddings))
    return collection


def numbers_of(hits: Sequence[Hit], half: int) -> list[int]:
    """Rows of the drawn matrix that hits stand for."""
    return [int(hit.id) + (half if hit.modality == "text" else 0) for hit in hits]


def collection_engines(collection: Collection, half: int) -> dict[str, Engine]:
    """Exact search as the command and the service do it; captions come along. A further way in is a further entry."""

    def search(
        query: np.ndarray,
        modality: str | None = None,
        words: str | None = None,
        balanced: Mapping[str, float] | None = None,
    ) -> Sequence[int]:
        hits = collection.search(query, k=K, modality=modality, words=words, exact=True, balanced=balanced)
        return numbers_of(hits, half)

    def engine_alone(query: np.ndarray) -> Sequence[int]:
        table = collection.table_version().table
        found = table.search(query, vector_column_name="vector").distance_type("dot").bypass_vector_index().limit(K)
        rows = found.select(["id", "modality", "caption"]).to_arrow().to_pylist()
        return [int(row["id"]) + (half if row["modality"] == "text" else 0) for row in rows]

    return {
        "gapless, exact": search,
        "gapless, exact, balanced": lambda query: search(query, balanced={"text": 1.0}),
        "gapless, exact, images only": lambda query: search(query, modality="image"),
        "gapless, hybrid with 3 words": lambda query: search(query, words="effusion left chest"),
        "LanceDB's own flat search": engine_alone,
    }


def faiss_flat(vectors: np.ndarray) -> Engine:
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    return lambda query: index.search(query[None], K)[1][0].tolist()


def faiss_hnsw(vectors: np.ndarray) -> Engine:
    index = faiss.IndexHNSWFlat(DIM, FAISS_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = FAISS_BUILD
    index.add(vectors)
    index.hnsw.efSearch = FAISS_SEARCH
    return lambda query: index.search(query[None], K)[1][0].tolist()


def exact_answers(vectors: np.ndarray, queries: np.ndarray, passes: Sequence[np.ndarray]) -> list[list[set[int]]]:
    """For each mask of rows and each query the rows of the 10 highest products, summed in float64."""
    answers: list[list[set[int]]] = [[] for _ in passes]
    for query in queries:
        products = vectors @ query
        for found, mask in zip(answers, passes, strict=True):
            rows = np.flatnonzero(mask)
            near = rows[np.argpartition(-products[rows], min(4 * K, len(rows) - 1))[: 4 * K]]
            scores = vectors[near].astype(np.float64) @ query.astype(np.float64)
            found.append(set(near[np.argsort(-scores)[:K]].tolist()))
    return answers


def measure(
    engines: dict[str, Engine], queries: np.ndarray, answers: Mapping[str, list[set[int]]], threads: int
) -> dict[str, Figures]:
    """Latency of single queries in milliseconds, queries a second from several threads, recall.

    Args:
        answers: engine -> the exact rows of each query.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine(queries[0])  # the first query loads what stays
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            for query in queries:
                start = time.perf_counter()
                engine(query)
                times[name].append(1000 * (time.perf_counter() - start))
    results = {}
    for name, engine in engines.items():
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            found = list(pool.map(engine, queries))
            seconds = time.perf_counter() - start
        recall = [len(answer & set(rows)) / K for answer, rows in zip(answers[name], found, strict=True)]
        p50, p95 = np.percentile(times[name], [50, 95])
        figures = {"p50_ms": float(p50), "p95_ms": float(p95), "queries_per_s": len(queries) / seconds}
        results[name] = figures | {"recall@10": float(np.mean(recall))}
    return results


def timed(name: str, seconds: dict[str, float], work: Callable[[], T]) -> T:
    start = time.perf_counter()
    value = work()
    seconds[name] = time.perf_counter() - start
    print(f"  {name}: {seconds[name]:.1f} s", flush=True)
    return value


def written_collection(path: Path, vectors: np.ndarray, seconds: dict[str, float]) -> None:
    """A collection with all but the approximate index."""
    labels = {name: values.astype(str).tolist() for name, values in filter_labels(len(vectors) // 2).items()}
    collection = timed("write the collection", seconds, lambda: make_collection(path, vectors, labels=labels))
    timed("full-text index", seconds, lambda: update_indices(collection, None, above=len(vectors)))
    timed("learn the balance", seconds, lambda: update_balance(collection, BalanceSettings()))


def index_engines(collection: Collection, half: int, kind: str, filters: Sequence[Filtered]) -> dict[str, Engine]:
    """Search by the approximate index, as the command and the service do it."""

    def asking(where: str | None = None, balanced: Mapping[str, float] | None = None) -> Engine:
        return lambda query: numbers_of(
            collection.search(query, k=K, where=where, exact=False, balanced=balanced), half
        )

    engines = {f"gapless, {kind}, balanced": asking(balanced={"text": 1.0}), f"gapless, {kind}": asking()}
    return engines | {f"gapless, {kind}, {one.name}": asking(one.where) for one in filters}


def run_size(
    size: int,
    num_queries: int,
    threads: int,
    kind: str,
    only: Sequence[str],
    folder: Path,
    build_only: bool,
    memory_bytes: int | None = MEMORY_BYTES,
) -> SizeFigures | None:
    """Figures of one size; None where the collection was only to be built.

    Args:
        build_only: whether to stop when the collection is there with its index.
        memory_bytes: as of `Collection.open`.
    """
    vectors, queries = paired_by_direction(drawn_vectors(size, 1)), drawn_vectors(num_queries, 99)
    seconds: dict[str, float] = {}
    path, filters = folder / f"collection-{size}", filters_of(size)
    if not path.exists():
        written_collection(path, vectors, seconds)
    timed("open and answer once", seconds, lambda: Collection.open(path, memory_bytes).search(queries[0]))
    collection = Collection.open(path, memory_bytes)
    report = collection.facts().index
    if report is not None and report.kind != kind and not build_only:
        raise SystemExit(f"{path} has an index of kind {report.kind}: give --kind {report.kind}, or another folder")
    engines = collection_engines(collection, size // 2)
    engines |= index_engines(collection, size // 2, kind, filters)
    for name, make in {"faiss flat": faiss_flat, "faiss HNSW": faiss_hnsw}.items():
        if not build_only and wanted(name, only):
            engines[name] = timed(name, seconds, partial(make, vectors))
    if build_only or report is None:
        timed(f"gapless {kind}, with its recall", seconds, lambda: update_indices(collection, kind))
    if build_only:
        return None
    exact = exact_answers(vectors, queries, [np.ones(size, dtype=bool), *(one.passes for one in filters)])
    by_filter = {one.name: answers for one, answers in zip(filters, exact[1:], strict=True)}
    engines = {name: engine for name, engine in engines.items() if wanted(name, only)}
    answers = {name: by_filter.get(name.rpartition(", ")[2], exact[0]) for name in engines}
    results = measure(engines, queries, answers, threads)
    rows, report = collection.table_version().reader, collection.facts().index
    return SizeFigures(
        size=size,
        engines=results,
        seconds=seconds,
        index=None if report is None else report.as_json(),
        bytes_on_disk=bytes_below(path),
        key_bytes=rows.all_keys.nbytes / size if isinstance(rows, HeldRows) else 0.0,
    )


def wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(word in name for word in only)


def print_table(found: SizeFigures) -> None:
    print(f"\n{found['size']:,} vectors of {DIM}-d, {found['bytes_on_disk'] / 2**20:,.0f} MiB on disk")
    print(f"index: {found['index']}")
    print(f"{'':<36}{'p50 ms':>9}{'p95 ms':>9}{'queries/s':>11}{'recall@10':>11}{'x faiss flat':>14}")
    flat = found["engines"].get("faiss flat", {}).get("p50_ms", float("nan"))
    for name, figures in found["engines"].items():
        other_question = any(word in name for word in ("images only", "hybrid", "balanced"))
        recall = "" if other_question else f"{figures['recall@10']:.3f}"
        print(
            f"{name:<36}{figures['p50_ms']:>9.2f}{figures['p95_ms']:>9.2f}{figures['queries_per_s']:>11.0f}"
            f"{recall:>11}{figures['p50_ms'] / flat:>14.2f}"
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", default=usual_kind(DIM), help="the collection's approximate index")
    parser.add_argument("--only", nargs="+", default=[], help="engines whose names contain one of these; default all")
    parser.add_argument("--folder", type=Path, default=None, help="where collections are kept, or are already")
    parser.add_argument("--memory_bytes", type=int, default=MEMORY_BYTES, help="collections up to this size are held")
    parser.add_argument("--build_only", action="store_true", help="build the collections in the folder, and stop")
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    args = parser.parse_args()
    if args.build_only and args.folder is None:
        parser.error("--build_only builds in a --folder")
    faiss.omp_set_num_threads(args.threads)
    results = []
    for size in map(int, args.sizes.split(",")):
        print(f"{size:,} vectors", flush=True)
        with ExitStack() as stack:
            folder = args.folder or stack.enter_context(tempfile.TemporaryDirectory())
            found = run_size(
                size,
                args.queries,
                args.threads,
                args.kind,
                args.only,
                Path(folder),
                build_only=args.build_only,
                memory_bytes=args.memory_bytes,
            )
        if found is None:
            continue
        results.append(found)
        print_table(found)
        if args.out:
            args.out.write_text(json.dumps(results, indent=2))
    print(f"peak memory of the whole run {peak_bytes() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()

"""gapless beside what others use: figures by open_clip and torchmetrics, an index as clip-retrieval builds it.

    python benchmarks/peers.py [--pairs 2000 8179] [--size 100000] [--autofaiss PYTHON] [--out FILE.json]

Retrieval in both directions of the same pairs: `gapless.measure`, the function with which open_clip's training
evaluates, and torchmetrics' hit rate; each in a process of its own, so that its peak memory is its own. All must find
the same R@10. torchmetrics takes a number for each pair of rows, so that it is left out above 2,000 pairs.

clip-retrieval builds its index by autofaiss, which chooses a kind of faiss by size and memory (4 GB, 10 ms a query). It
needs NumPy 1, so that it runs in an environment of its own: `--autofaiss` is the Python of one where autofaiss is
installed (`pip install autofaiss faiss-cpu 'numpy<2' 'pyarrow<20'`). Without it that part is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from metrics import paired_embeddings
from resident_memory import peak_bytes
from scale_steps import bytes_below
from search import DIM, Engine, K, drawn_vectors, exact_answers, make_collection, measure, numbers_of

from gapless.core.geometry import unit_norm
from gapless.metrics.measure import measure as measure_figures
from gapless.search.indices import update_indices, usual_kind

MOST_FOR_TORCHMETRICS = 2000
TOLERANCE = 1e-6
# As clip-retrieval's `clip index` calls it.
BUILD_INDEX = """
import sys, autofaiss
autofaiss.build_index(
    sys.argv[1], index_path=sys.argv[2], index_infos_path=sys.argv[3], nb_cores=int(sys.argv[4]), verbose=40,
    max_index_query_time_ms=10.0, max_index_memory_usage="4G", current_memory_available="16G",
)
"""

Rows = dict[str, torch.Tensor]


def hard_pairs(pairs: int) -> Rows:
    """Pairs of which about a half are found among the first 10, so that the evaluations have something to agree on."""
    rows = paired_embeddings(pairs, DIM)
    noise = torch.randn(pairs, DIM, generator=torch.Generator().manual_seed(1)) / DIM**0.5
    return {"image": rows["image"], "text": unit_norm(rows["text"] + 4.0 * noise)}


def by_gapless(rows: Rows) -> list[float]:
    found = measure_figures(rows, include=("retrieval",))
    return [found[f"retrieval/{way}/R@{K}"] for way in ("image_to_text", "text_to_image")]


def by_open_clip(rows: Rows) -> list[float]:
    from open_clip_train.train import get_clip_metrics

    found = get_clip_metrics(rows["image"], rows["text"], torch.tensor(1.0))
    return [float(found[f"{way}_R@{K}"]) for way in ("image_to_text", "text_to_image")]


def by_torchmetrics(rows: Rows) -> list[float]:
    from torchmetrics.retrieval import RetrievalHitRate

    scores = rows["image"] @ rows["text"].T
    is_pair = torch.eye(len(scores), dtype=torch.bool)
    queries = torch.arange(len(scores)).repeat_interleave(len(scores))
    hit_rates = (RetrievalHitRate(top_k=K)(one.flatten(), is_pair.flatten(), queries) for one in (scores, scores.T))
    return [float(rate) for rate in hit_rates]


EVALUATIONS: dict[str, Callable[[Rows], list[float]]] = {
    "gapless": by_gapless,
    "open_clip": by_open_clip,
    "torchmetrics": by_torchmetrics,
}


def evaluate_here(name: str, pairs: int) -> dict[str, Any]:
    """One evaluation in this process; the first call, of few pairs, imports what is imported late."""
    EVALUATIONS[name](hard_pairs(20))
    rows = hard_pairs(pairs)
    held, start = peak_bytes(), time.perf_counter()
    recalls = EVALUATIONS[name](rows)
    return {"seconds": time.perf_counter() - start, "peak_mib": (peak_bytes() - held) / 2**20, "recalls": recalls}


def evaluations(pairs: int) -> dict[str, dict[str, Any]]:
    """Name -> seconds, peak memory beyond the embeddings, and R@10 in both directions."""
    found = {}
    for name in EVALUATIONS:
        if name == "torchmetrics" and pairs > MOST_FOR_TORCHMETRICS:
            continue
        words = [sys.executable, __file__, "--evaluate", name, "--pairs", str(pairs)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
        if not np.allclose(found[name]["recalls"], found["gapless"]["recalls"], atol=TOLERANCE):
            raise SystemExit(f"{name} finds {found[name]['recalls']}, gapless {found['gapless']['recalls']}")
    return found


def gapless_index(folder: Path, vectors: np.ndarray) -> Engine:
    """A collection with captions and the index that a large one gets, its recall measured."""
    collection = make_collection(folder / "collection", vectors)
    update_indices(collection, usual_kind(DIM))
    return lambda query: numbers_of(collection.search(query, k=K, exact=False), len(vectors) // 2)


def clip_retrieval_index(python: str) -> Callable[[Path, np.ndarray], Engine]:
    """A faiss index of a kind that autofaiss chooses; vectors alone."""

    def build(folder: Path, vectors: np.ndarray) -> Engine:
        (folder / "embeddings").mkdir()
        np.save(folder / "embeddings" / "0.npy", vectors)
        index_path, infos = folder / "knn.index", folder / "infos.json"
        words = [python, "-c", BUILD_INDEX, str(folder / "embeddings"), str(index_path), str(infos)]
        subprocess.run([*words, str(torch.get_num_threads())], check=True, capture_output=True)
        print(f"  autofaiss chose {json.loads(infos.read_text())['index_key']}", flush=True)
        (folder / "embeddings" / "0.npy").unlink()
        index = faiss.read_index(str(index_path))
        return lambda query: index.search(query[None], K)[1][0].tolist()

    return build


def indexes(size: int, num_queries: int, autofaiss: str | None) -> dict[str, dict[str, float]]:
    """Name -> seconds to build, MiB on disk, latency and recall of single queries."""
    vectors, queries = drawn_vectors(size, 1), drawn_vectors(num_queries, 99)
    answers = exact_answers(vectors, queries, [np.ones(size, dtype=bool)])[0]
    builds: dict[str, Callable[[Path, np.ndarray], Engine]] = {f"gapless, {usual_kind(DIM)}": gapless_index}
    if autofaiss is not None:
        builds["clip-retrieval's way"] = clip_retrieval_index(autofaiss)
    engines, found = {}, {}
    with tempfile.TemporaryDirectory() as place:
        for number, (name, build) in enumerate(builds.items()):
            folder = Path(place) / str(number)
            folder.mkdir()
            start = time.perf_counter()
            engines[name] = build(folder, vectors)
            seconds = time.perf_counter() - start
            found[name] = {"build_s": seconds, "disk_mib": bytes_below(folder) / 2**20}
        asked = measure(engines, queries, dict.fromkeys(engines, answers), torch.get_num_threads())
    return {name: figures | asked[name] for name, figures in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[2000, 8179])
    parser.add_argument("--size", type=int, default=100_000, help="vectors of the index")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--autofaiss", default=None, help="the Python of an environment that has autofaiss")
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    parser.add_argument("--evaluate", choices=list(EVALUATIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.evaluate:
        print(json.dumps(evaluate_here(options.evaluate, options.pairs[0])))
        return
    results: dict[str, Any] = {"evaluations": {}, "indexes": {}}
    for pairs in options.pairs:
        found = results["evaluations"][pairs] = evaluations(pairs)
        recalls = " and ".join(f"{recall:.4f}" for recall in found["gapless"]["recalls"])
        print(f"retrieval of {pairs:,} pairs of {DIM}-d in both directions, R@{K} {recalls} by all")
        for name, figures in found.items():
            ratio = figures["seconds"] / found["gapless"]["seconds"]
            print(f"  {name:<24}{figures['seconds']:8.2f} s {ratio:6.2f} x   peak +{figures['peak_mib']:,.0f} MiB")
    print(f"index of {options.size:,} vectors of {DIM}-d")
    results["indexes"] = indexes(options.size, options.queries, options.autofaiss)
    for name, figures in results["indexes"].items():
        print(
            f"  {name:<24}built in {figures['build_s']:6.1f} s, {figures['disk_mib']:,.0f} MiB, "
            f"{figures['p50_ms']:.2f} ms at the median, recall@{K} {figures[f'recall@{K}']:.3f}"
        )
    if options.autofaiss is None:
        print("  clip-retrieval's way: left out, because --autofaiss names no environment")
    if options.out:
        options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

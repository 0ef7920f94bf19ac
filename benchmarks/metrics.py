"""Time and memory of the figures against the similarity product alone.

    python benchmarks/metrics.py                     # 8,179 pairs of 512-d, the size of the ROCO test set
    python benchmarks/metrics.py --pairs 80000 --repeats 1   # what `gapless measure` promises
    python benchmarks/metrics.py --labels 20         # also the grouping figures

The yardstick is `image @ text.T`, once, in chunks and thrown away: ranks in both directions need it, uniformity,
mixing and mixed recall need the products inside each modality besides (together twice the yardstick, by symmetry).
Best of `--repeats`; on a machine that does other things besides, go by the processor's time with `--threads 1`. Memory
is the peak of the process above what it held with the embeddings loaded.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from resident_memory import peak_bytes

from gapless.core.geometry import blocks, unit_norm
from gapless.metrics.measure import PARTS, measure
from gapless.metrics.similarity import BLOCK_SIZE, scan_pair


def paired_embeddings(num_pairs: int, dim: int) -> dict[str, torch.Tensor]:
    """Two cones, true-pair cosine about 0.4, neighbours of both modalities: nothing ties, nothing is trivial."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num_pairs, dim, generator=generator)
    w = 0.7 * z + torch.randn(num_pairs, dim, generator=generator)
    return {"image": unit_norm(z + 0.3), "text": unit_norm(w - 0.3)}


def product(a: torch.Tensor, b: torch.Tensor) -> None:
    """All similarities once, in the chunks that are fastest for it."""
    space = torch.empty(min(BLOCK_SIZE, len(a)) ** 2)
    for rows in blocks(len(a), BLOCK_SIZE):
        for columns in blocks(len(b), BLOCK_SIZE):
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            torch.mm(a[rows], b[columns].T, out=space[: shape[0] * shape[1]].view(shape))


def best_of(repeats: int, run: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of the quickest run."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(times)


def peak_mib() -> float:
    return peak_bytes() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8179)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--labels", type=int, default=0, help="number of classes; 0 leaves the grouping figures out")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", default=None, help="cases whose names contain one of these; default all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    embeddings = paired_embeddings(options.pairs, options.dim)
    image, text = embeddings["image"], embeddings["text"]
    labels = torch.arange(options.pairs) % options.labels if options.labels else None
    product(image[:2048], text[:2048])
    held = peak_mib()
    size = f"{options.pairs:,} x {options.dim}"
    print(f"{size}, {options.threads} threads; embeddings {2 * image.numel() * 4 / 2**20:,.0f} MiB; ", end="")
    print(f"a full similarity matrix would take {options.pairs**2 * 4 / 2**20:,.0f} MiB")
    cases: dict[str, Callable[[], object]] = {
        "similarity product": lambda: product(image, text),
        "ranks, both directions": lambda: scan_pair(image, text),
        "measure retrieval": lambda: measure(embeddings, include=("retrieval",)),
        "measure gap + retrieval": lambda: measure(embeddings, include=("gap", "retrieval")),
        "measure, all": lambda: measure(embeddings, include=PARTS),
        f"with {options.bootstrap} resamples": lambda: measure(embeddings, num_bootstrap=options.bootstrap),
    }
    if labels is not None:
        cases["with labels"] = lambda: measure(embeddings, labels)
    results: dict[str, dict[str, float]] = {}
    for name, run in cases.items():
        if options.only and results and not any(word in name for word in options.only):
            continue
        wall, processor = best_of(options.repeats, run)
        first = results.get("similarity product", {"wall_s": wall, "processor_s": processor})
        ratios = {"wall_ratio": wall / first["wall_s"], "processor_ratio": processor / first["processor_s"]}
        results[name] = {"wall_s": wall, "processor_s": processor, **ratios, "peak_mib": peak_mib() - held}
        print(
            f"{name:<26} {wall:8.2f} s {ratios['wall_ratio']:5.2f} x   processor {processor:8.2f} s "
            f"{ratios['processor_ratio']:5.2f} x   peak +{results[name]['peak_mib']:,.0f} MiB",
            flush=True,
        )
    print(json.dumps({"pairs": options.pairs, "dim": options.dim, "threads": options.threads, "cases": results}))


if __name__ == "__main__":
    main()

"""Time and memory of the loss, forward and backward, beside the published formula, open_clip, and its own floor.

    python benchmarks/loss.py                       # times at 4,096 pairs, peak memory at 8,192
    python benchmarks/loss.py --growth              # ours over 1k .. 32k pairs: time as B^2, memory as B
    python benchmarks/loss.py --json loss.json

Times are medians of interleaved repeats in one process; each memory figure is the peak of a process of its own, beyond
its inputs and a small warm-up batch (Linux only). The floor is the bare matrix products of the algorithm, in its tiles.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from resident_memory import peak_bytes, resident
from torch import Tensor, nn

from gapless.core.geometry import blocks, unit_norm
from gapless.losses.engine import tiled
from gapless.losses.engine.tile_loops import as_tile
from gapless.losses.gap_closing import GapClosingLoss

Step = Callable[[], None]
MiB = 2**20


class Batch:
    """Two modalities on the sphere with a gap between them, and a temperature, all wanting gradients."""

    def __init__(self, num_pairs: int, dim: int, scale: float = 1 / 0.07) -> None:
        generator = torch.Generator().manual_seed(0)
        shared = torch.randn(num_pairs, dim, generator=generator)
        self.image = unit_norm(shared + torch.randn(num_pairs, dim, generator=generator) + 0.5).requires_grad_()
        self.text = unit_norm(shared + torch.randn(num_pairs, dim, generator=generator) - 0.5).requires_grad_()
        self.log_scale = torch.tensor(scale).log().requires_grad_()

    def forget_gradients(self) -> None:
        self.image.grad = self.text.grad = self.log_scale.grad = None


def published_formula(batch: Batch) -> Step:
    """The paper's three terms as its published code computes them: two logit matrices and `pdist`."""

    def step() -> None:
        z, w, scale = batch.image, batch.text, batch.log_scale.exp()
        targets = torch.arange(len(z))
        contrastive = (F.cross_entropy(scale * z @ w.T, targets) + F.cross_entropy(scale * w @ z.T, targets)) / 2
        alignment = (z - w).norm(dim=1).pow(2).mean()
        centroids = F.normalize((z + w) / 2, dim=-1)
        uniformity = torch.pdist(centroids).pow(2).mul(-2).exp().mean().log()
        (contrastive + alignment + uniformity).backward()

    return step


def open_clip_loss(batch: Batch) -> Step:
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    return lambda: loss(batch.image, batch.text, batch.log_scale.exp()).backward()


def sentence_transformers_loss(batch: Batch) -> Step:
    """Symmetric InfoNCE with a fixed scale."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(
        model=SentenceTransformer(modules=[nn.Identity()]),  # not called: the embeddings are there
        scale=float(batch.log_scale.detach().exp()),
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    labels = torch.arange(len(batch.image))  # not used either
    return lambda: loss.compute_loss_from_embeddings([batch.image, batch.text], labels).backward()


def ours(batch: Batch, positives: Tensor | None = None, weight: float = 1.0) -> Step:
    loss = GapClosingLoss(alignment_weight=weight, uniformity_weight=weight)
    del loss.logit_scale
    loss.logit_scale = batch.log_scale
    return lambda: loss({"image": batch.image, "text": batch.text}, positives=positives).total.backward()


def ours_with_positives(batch: Batch) -> Step:
    """Every caption twice, in random order."""
    num_pairs = len(batch.image)
    return ours(batch, torch.randperm(num_pairs, generator=torch.Generator().manual_seed(0)) // 2)


def ours_present(batch: Batch, share: float) -> Step:
    """Masks in which each row has an image with this probability, and a text with the same; the rest is absent."""
    num_pairs, generator = len(batch.image), torch.Generator().manual_seed(1)
    masks = {name: torch.rand(num_pairs, generator=generator) < share for name in ("image", "text")}
    loss = GapClosingLoss()
    del loss.logit_scale
    loss.logit_scale = batch.log_scale
    return lambda: loss({"image": batch.image, "text": batch.text}, present=masks).total.backward()


def floor(batch: Batch) -> Step:
    """The matrix products alone, tile by tile."""
    a, b = batch.image.detach(), batch.text.detach()
    tile = tiled.CPU_TILE
    scratch = torch.empty(tile * tile)
    for_a, for_b = torch.zeros_like(a), torch.zeros_like(b)
    num_kept = tiled.KEPT_ELEMENTS // tile**2

    def step() -> None:
        tiles = [(rows, columns) for rows in blocks(len(a), tile) for columns in blocks(len(a), tile)]
        for index, (rows, columns) in enumerate(tiles):
            product = as_tile(scratch, rows, columns)
            for _ in range(1 if index < num_kept else 2):
                torch.mm(a[rows], b[columns].T, out=product)
            for_a[rows].addmm_(product, b[columns])
            for_b[columns].addmm_(product.T, a[rows])
        for rows, columns in tiles:
            if rows.start <= columns.start:
                product = as_tile(scratch, rows, columns)
                torch.mm(a[rows], a[columns].T, out=product)
                for_a[rows].addmm_(product, a[columns])
                if rows != columns:
                    for_b[columns].addmm_(product.T, a[rows])

    return step


METHODS: dict[str, Callable[[Batch], Step]] = {
    "published formula": published_formula,
    "open_clip ClipLoss (contrastive alone)": open_clip_loss,
    "sentence-transformers MNRL (contrastive alone)": sentence_transformers_loss,
    "gapless": ours,
    "gapless, weights 0": lambda batch: ours(batch, weight=0.0),
    "gapless, positives": ours_with_positives,
    "gapless, masks of complete rows": partial(ours_present, share=1.0),
    "gapless, masks with 30 % absent": partial(ours_present, share=0.7),
    "gapless, floor": floor,
}
NEEDS = {
    "open_clip ClipLoss (contrastive alone)": "open_clip",
    "sentence-transformers MNRL (contrastive alone)": "sentence_transformers",
}


def available() -> list[str]:
    return [name for name in METHODS if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


def times(names: list[str], num_pairs: int, dim: int, repeats: int, scale: float) -> dict[str, float]:
    """Median seconds of one forward and backward pass of each method."""
    batch = Batch(num_pairs, dim, scale)
    steps = {name: METHODS[name](batch) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            batch.forget_gradients()
            start = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_beyond_inputs(name: str, num_pairs: int, dim: int) -> int:
    """Bytes, to be called in a fresh process: what a step adds to the inputs' resident memory at its peak."""
    METHODS[name](Batch(512, dim))()
    batch = Batch(num_pairs, dim)
    step = METHODS[name](batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident("VmRSS")
    step()
    return peak_bytes() - before


def memory(name: str, num_pairs: int, dim: int, threads: int) -> int:
    options = ["--child", name, "--pairs", str(num_pairs), "--dim", str(dim), "--threads", str(threads)]
    # Every tensor gets pages of its own and gives them back when it dies, so that resident means alive.
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, *options]
    child = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    return int(child.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4096, help="pairs of the timed batch")
    parser.add_argument("--memory-pairs", type=int, default=8192, help="pairs of the batch whose memory is measured")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--scale", type=float, default=1 / 0.07, help="logit scale")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", action="store_true", help="time and memory of ours alone over 1k .. 32k pairs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(peak_beyond_inputs(options.child, options.pairs, options.dim))
        return
    setting = {"torch": torch.__version__, "threads": options.threads, "dim": options.dim, "scale": options.scale}
    result = {"setting": setting, **(growth(options) if options.growth else comparison(options))}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def comparison(options: argparse.Namespace) -> dict[str, object]:
    names = available()
    seconds = times(names, options.pairs, options.dim, options.repeats, options.scale)
    peaks = {name: memory(name, options.memory_pairs, options.dim, options.threads) for name in names}
    print(
        f"{'':48}{f'{options.pairs} pairs':>14}{'x gapless':>11}{f'{options.memory_pairs} pairs':>16}{'x gapless':>11}"
    )
    for name in names:
        slower, larger = seconds[name] / seconds["gapless"], peaks[name] / peaks["gapless"]
        print(f"{name:48}{seconds[name] * 1e3:11.1f} ms{slower:11.2f}{peaks[name] / MiB:12.1f} MiB{larger:11.2f}")
    return {
        "pairs": options.pairs,
        "memory_pairs": options.memory_pairs,
        "seconds": seconds,
        "peak_bytes_beyond_inputs": peaks,
    }


def growth(options: argparse.Namespace) -> dict[str, object]:
    rows = []
    print(f"{'pairs':>8}{'seconds':>10}{'ns / pair^2':>13}{'peak MiB':>10}{'KiB / pair':>12}")
    for num_pairs in (1024, 2048, 4096, 8192, 16384, 32768):
        repeats = max(1, min(options.repeats, 2**28 // num_pairs**2))
        seconds = times(["gapless"], num_pairs, options.dim, repeats, options.scale)["gapless"]
        peak = memory("gapless", num_pairs, options.dim, options.threads)
        rows.append({"pairs": num_pairs, "seconds": seconds, "peak_bytes_beyond_inputs": peak})
        per_square, per_pair = seconds / num_pairs**2 * 1e9, peak / num_pairs / 1024
        print(f"{num_pairs:8}{seconds:10.3f}{per_square:13.1f}{peak / MiB:10.1f}{per_pair:12.1f}")
    return {"growth": rows}


if __name__ == "__main__":
    main()

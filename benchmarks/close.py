"""How long `gapless close` takes: python benchmarks/close.py [--pairs 70000] [--dim 512] [--threads 2] [--methods ...]

Random pairs with a gap, as many and as wide as those of ROCO in a CLIP; the default adapter, and the closed forms.
The targets, on 2 cores: 2 minutes for the adapter; for cca with all its settings chosen, 60 s and 4 GB of memory on
70,000 pairs of 768 numbers (`--dim 768 --methods cca`). The memory is the largest that the process had until then.
"""

import argparse
import json
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from resident_memory import peak_bytes

from gapless.closing.base import CLOSING_METHODS
from gapless.closing.close import close_gap
from gapless.closing.trained_heads import adapter_settings

TARGETS = {"adapter": "120 s", "cca": "60 s and 4 GB"}


def cone_pairs(num_pairs: int, dim: int) -> dict[str, torch.Tensor]:
    """Pairs of cosine about 0.3 that lie in a cone for each modality, as those of a trained CLIP."""
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(num_pairs, 64, generator=random) @ torch.randn(64, dim, generator=random) / 8
    pairs = {}
    for name in ("image", "text"):
        rows = torch.randn(num_pairs, dim, generator=random)
        pairs[name] = rows.add_(shared).add_(1.5 * torch.randn(dim, generator=random))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=70_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=sorted(CLOSING_METHODS, reverse=True))
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    pairs = {name: rows.numpy() for name, rows in cone_pairs(args.pairs, args.dim).items()}
    settings = replace(adapter_settings(), patience=1000)  # every step, however easy the pairs are
    print(f"{args.pairs:,} pairs of {args.dim}-d, {args.threads} threads, torch {torch.__version__}")
    figures: dict[str, dict[str, float]] = {}
    for method in args.methods:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            close_gap(
                pairs,
                settings=settings if method == "adapter" else None,
                method=method,
                out=Path(folder) / "closed",
            )
            seconds = time.perf_counter() - start
        memory = peak_bytes() / 1e9
        figures[method] = {"seconds": seconds, "gigabytes": memory}
        target = f"   target {TARGETS[method]}" if method in TARGETS else ""
        print(f"{method:<12}{seconds:8.1f} s{memory:6.2f} GB{target}", flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

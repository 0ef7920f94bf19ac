"""How long `gapless close` takes: python benchmarks/close.py [--pairs 70000] [--dim 512] [--threads 2]

Random pairs with a gap, as many and as wide as those of ROCO in a CLIP; the default adapter, and the closed forms.
The target is 2 minutes on 2 cores for the adapter.
"""

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gapless.closing.base import CLOSING_METHODS, DEFAULT_METHOD
from gapless.closing.close import close_gap
from gapless.closing.trained_heads import adapter_settings


def cone_pairs(num_pairs: int, dim: int) -> dict[str, torch.Tensor]:
    """Pairs of cosine about 0.3 that lie in a cone for each modality, as those of a trained CLIP."""
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(num_pairs, 64, generator=random) @ torch.randn(64, dim, generator=random) / 8
    return {
        name: shared + torch.randn(num_pairs, dim, generator=random) + 1.5 * torch.randn(dim, generator=random)
        for name in ("image", "text")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=70_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    pairs = {name: rows.numpy() for name, rows in cone_pairs(args.pairs, args.dim).items()}
    settings = replace(adapter_settings(), patience=1000)  # every step, however easy the pairs are
    print(f"{args.pairs:,} pairs of {args.dim}-d, {args.threads} threads, torch {torch.__version__}")
    for method in sorted(CLOSING_METHODS, reverse=True):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            close_gap(
                pairs,
                settings=settings if method == DEFAULT_METHOD else None,
                method=method,
                out=Path(folder) / "closed",
            )
            seconds = time.perf_counter() - start
        target = "   target 120 s" if method == DEFAULT_METHOD else ""
        print(f"{method:<12}{seconds:8.1f} s{target}", flush=True)


if __name__ == "__main__":
    main()

"""Does the interval of a sampled measurement hold the exact value? The share of draws in which it does, by figure.

    python benchmarks/sampling.py [--pairs 20000] [--dim 64] [--queries 1000] [--draws 200] [--json FILE]

Pairs of correlated embeddings with a gap, a case having one to three of them. The exact figures are computed once; each
draw has its own seed. At 95 % a share of 0.93 or more of 200 draws is what chance leaves of a right interval.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from gapless.metrics.measure import measure

TARGET = 0.93


def drawn_pairs(count: int, dim: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Embeddings with most of their variance in a quarter of the directions, and the case of each pair."""
    random = np.random.default_rng(0)
    scale = np.linspace(1.0, 0.1, dim) ** 2
    cases = np.sort(random.integers(0, count // 2, count))
    points = (random.standard_normal((count, dim)) + 0.5 * random.standard_normal((count, dim))[cases]) * scale
    image, text = (points + 0.5 * scale * random.standard_normal((count, dim)) for _ in range(2))
    return {"image": (image + 0.1).astype(np.float32), "text": text.astype(np.float32)}, [str(c) for c in cases]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--first_seed", type=int, default=0, help="of the draws, to go on where another run ended")
    parser.add_argument("--num_bootstrap", type=int, default=400)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    rows, groups = drawn_pairs(options.pairs, options.dim)
    start = time.process_time()
    exact = measure(rows, groups=groups, exact=True)
    seconds = {"exact": time.process_time() - start}
    held: dict[str, list[bool]] = {}
    start = time.process_time()
    for seed in range(options.first_seed, options.first_seed + options.draws):
        drawn = measure(rows, groups=groups, queries=options.queries, num_bootstrap=options.num_bootstrap, seed=seed)
        for key, value in drawn.items():
            if isinstance(value, dict) and value.get("low") is not None:
                held.setdefault(key, []).append(value["low"] <= exact[key] <= value["high"])
    seconds["one draw"] = (time.process_time() - start) / options.draws
    shares = {key: float(np.mean(one)) for key, one in sorted(held.items())}
    print(f"{options.pairs:,} pairs, {options.queries:,} queries, {options.draws} draws; CPU seconds {seconds}")
    for key, share in shares.items():
        print(f"| `{key}` | {share:.3f} |{'' if share >= TARGET else ' below'}")
    low = min(shares, key=lambda key: shares[key])
    print(f"lowest {low} {shares[low]:.3f}; {sum(s >= TARGET for s in shares.values())} of {len(shares)} at {TARGET}")
    if options.json:
        options.json.write_text(json.dumps({"coverage": shares, "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()

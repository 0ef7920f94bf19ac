"""What `gapless close` costs as the pairs grow: seconds, CPU seconds and peak memory of each method.

    python benchmarks/close_growth.py [--sizes 100000,200000,500000,1000000] [--methods center cca ...] [--json FILE]

Pairs of 512-d with a gap are drawn into two .npy files, which `close` maps into memory. Each method at each size is a
fresh process. The growth law `seconds = a * pairs^power` is fitted to each by least squares of the logarithms; the
residual is the largest factor by which a measured size is off that law. The peak counts what is resident of the files,
as the operating system does. The target is 1,000,000 pairs in 10 minutes and 4 GB on 2 cores; files of 1,000,000 pairs
take 4.1 GB of the temporary directory.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from growth import fit
from resident_memory import peak_bytes

NAMES = ("image", "text")
METHODS = ("center", "standardise", "shift", "subspace", "procrustes", "cca", "adapter", "stack", "auto")
ROWS_AT_ONCE = 16_384
FIGURES = ("seconds", "cpu_seconds", "gigabytes")


def write_pairs(folder: Path, num_pairs: int, dim: int) -> None:
    """Pairs that lie in a cone for each modality; the first rows are the same whatever the number."""
    random = np.random.default_rng(0)
    turn = random.standard_normal((64, dim), dtype=np.float32) / 8
    offsets = {name: 1.5 * random.standard_normal(dim, dtype=np.float32) for name in NAMES}
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(np.float32), (num_pairs, dim))
        for name in NAMES
    }
    for start in range(0, num_pairs, ROWS_AT_ONCE):
        drawn = np.random.default_rng([1, start])
        size = min(ROWS_AT_ONCE, num_pairs - start)
        shared = drawn.standard_normal((ROWS_AT_ONCE, 64), dtype=np.float32)[:size] @ turn
        for name, matrix in files.items():
            noise = drawn.standard_normal((ROWS_AT_ONCE, dim), dtype=np.float32)[:size]
            matrix[start : start + size] = noise + shared + offsets[name]
    for matrix in files.values():
        matrix.flush()


def closed(folder: Path, method: str, threads: int) -> dict[str, Any]:
    """One call of `close` in this process: its seconds, and the peak of the memory."""
    import torch

    import gapless

    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        start, cpu = time.perf_counter(), time.process_time()
        source = {name: folder / f"{name}.npy" for name in NAMES}
        done = gapless.close(source, method=method, out=Path(out) / "closed")
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "gigabytes": peak_bytes() / 1e9,
        "true_pair_cosine": done.figures["gap/true_pair_cosine"],
        "chosen": done.results.get("choice", {}).get("name"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,200000,500000,1000000")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--files", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.files is not None:
        print(json.dumps(closed(options.files, options.methods[0], options.threads)))
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(Path(folder), size, options.dim)
            for method, results in found.items():
                words = ["--files", folder, "--methods", method, "--threads", str(options.threads)]
                done = subprocess.run(
                    [sys.executable, __file__, *words], check=False, stdout=subprocess.PIPE, text=True
                )
                if done.returncode:
                    raise SystemExit(f"{method} failed at {size:,} pairs")
                results.append(json.loads(done.stdout.splitlines()[-1]))
                one = results[-1]
                print(
                    f"{size:>9,} {method:<12}{one['seconds']:8.1f} s{one['cpu_seconds']:9.1f} s of CPU"
                    f"{one['gigabytes']:7.2f} GB" + (f"   took {one['chosen']}" if one["chosen"] else ""),
                    flush=True,
                )
    laws = {
        method: {key: fit(sizes, [one[key] for one in results]).as_json() for key in FIGURES}
        for method, results in (found.items() if len(sizes) > 1 else ())
    }
    for method, law in laws.items():
        listed = (
            f"{key} to the power of {one['power']:.2f} (within x{one['residual']:.2f})" for key, one in law.items()
        )
        print(f"{method:<12} grows: {', '.join(listed)}")
    if options.json:
        options.json.write_text(json.dumps({"sizes": sizes, "methods": found, "laws": laws}, indent=2))


if __name__ == "__main__":
    main()

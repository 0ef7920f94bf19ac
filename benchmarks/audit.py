"""How the search for near copies grows: time, peak memory and the fitted exponent from 10,000 to 1,000,000 hashes.

    python benchmarks/audit.py [--sizes 10000,100000,1000000] [--kinds random,alike,...] [--audit_rows 100000]

Every measurement runs in a process of its own, so that its peak memory is its own; the seconds beside "CPU" are those
of all its threads. `--audit_rows` also times the whole audit, without decoding, on a manifest of so many rows of five
placeholder images. Everything is generated.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from growth import fit
from numpy.typing import NDArray
from resident_memory import peak_bytes

from gapless.images.near_copies import HASH_BITS, near_sets

Hashes = NDArray[np.uint64]
Generator = np.random.Generator


def random_hashes(count: int, rng: Generator) -> Hashes:
    return rng.integers(0, 2**64, (count, HASH_BITS // 64), dtype=np.uint64)


def noise(count: int, share: float, rng: Generator) -> Hashes:
    """Words whose bits are set with probability `share`."""
    words = np.empty((count, HASH_BITS // 64), np.uint64)
    for start in range(0, count, 65536):
        bits = rng.random((min(65536, count - start), HASH_BITS)) < share
        words[start : start + 65536] = np.packbits(bits, axis=1).view(np.uint64)
    return words


def alike(count: int, rng: Generator) -> Hashes:
    """Different images of few kinds: 1,000 kinds, two images of one kind differ in about 65 of the 256 bits."""
    return random_hashes(1000, rng)[rng.integers(0, 1000, count)] ^ noise(count, 0.15, rng)


def one_cluster(count: int, rng: Generator) -> Hashes:
    """A tenth are different hashes all near to each other, as JPEGs of one placeholder; the others are random."""
    cluster = random_hashes(1, rng) ^ noise(count // 10, 0.01, rng)
    return np.concatenate([cluster, random_hashes(count - len(cluster), rng)])


def many_clusters(count: int, rng: Generator) -> Hashes:
    """Clusters of 100 different near hashes."""
    return np.repeat(random_hashes(count // 100, rng), 100, axis=0) ^ noise(count // 100 * 100, 0.01, rng)


def loose_cluster(count: int, rng: Generator) -> Hashes:
    """One cloud whose hashes differ in 36 bits on average: some are near, and lead to nearly all others."""
    return random_hashes(1, rng) ^ noise(count, 0.075, rng)


KINDS: dict[str, Callable[[int, Generator], Hashes]] = {
    "random": random_hashes,
    "alike": alike,
    "one cluster": one_cluster,
    "many clusters": many_clusters,
    "loose cluster": loose_cluster,
}


def measure(kind: str, count: int) -> None:
    hashes = KINDS[kind](count, np.random.default_rng(0))
    near_sets(hashes[:1000])  # imports faiss and scipy, which is not what grows
    start, cpu = time.perf_counter(), time.process_time()
    num_sets = len(np.unique(near_sets(hashes)))
    report(time.perf_counter() - start, time.process_time() - cpu, num_sets)


def measure_audit(count: int, folder: Path) -> None:
    from gapless.auditing.audit import audit

    manifest = placeholder_manifest(folder / "manifest", count)
    start, cpu = time.perf_counter(), time.process_time()
    figures = audit(manifest)
    assert figures.duplicates is not None
    report(time.perf_counter() - start, time.process_time() - cpu, figures.duplicates["sets"])


def placeholder_manifest(out: Path, count: int) -> Path:
    """A manifest whose rows show five images; its table is written directly, since building is not what is timed."""
    from PIL import Image

    from gapless.manifest.writer import ManifestWriter

    out.mkdir(parents=True)
    for number in range(5):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(out / f"{number}.png")
    with ManifestWriter(out) as writer:
        for row in range(count):
            writer.keep(
                {
                    "id": f"row{row}",
                    "group": f"patient {row // 3}",
                    "split": "test" if row % 10 == 0 else "train",
                    "image": f"{row % 5}.png",
                    "captions": [f"Axial CT of patient {row} with a lesion, as a caption of ROCO would say."],
                    "width": 96,
                    "height": 96,
                    "sha256": f"{row % 5:064d}",
                }
            )
        writer.finish(source="benchmark", image_root=".", licence=None)
    return out


def report(seconds: float, cpu: float, num_sets: int) -> None:
    peak = peak_bytes() / 2**20
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "sets": num_sets}))


def run(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,31623,100000,316228,1000000")
    parser.add_argument("--kinds", default="random,alike,one cluster,many clusters")
    parser.add_argument("--audit_rows", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="also write the fitted exponents")
    parser.add_argument("--measure", choices=[*KINDS, "audit"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if arguments.measure == "audit":
        with tempfile.TemporaryDirectory() as name:
            measure_audit(arguments.audit_rows, Path(name))
        return
    if arguments.measure:
        measure(arguments.measure, sizes[0])
        return
    exponents = {}
    for kind in filter(None, arguments.kinds.split(",")):
        results = [run("--measure", kind, "--sizes", str(size)) for size in sizes]
        for size, result in zip(sizes, results, strict=True):
            print(
                f"{kind:14} {size:9,} hashes {result['seconds']:8.1f} s {result['cpu']:8.1f} s CPU "
                f"{result['peak_mb']:6.0f} MB {result['sets']:9,.0f} sets",
                flush=True,
            )
        if len(sizes) > 1:
            exponents[kind] = fit(sizes, [result["cpu"] for result in results]).power
            print(f"{kind:14} CPU time grows with the rows to the power of {exponents[kind]:.2f}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(exponents, indent=2))
    if arguments.audit_rows:
        result = run("--measure", "audit", "--audit_rows", str(arguments.audit_rows))
        print(f"audit of {arguments.audit_rows:,} rows: {result['seconds']:.1f} s, {result['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()

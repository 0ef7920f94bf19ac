"""How fast manifests are made, against bare Pillow on the same files; and what 80,000 rows cost.

    python benchmarks/data.py [--workers 2] [--num_images 8000] [--num_rows 80000]

Everything is generated in a temporary directory. Each measurement runs in a process of its own, so that its peak
memory is its own.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from resident_memory import peak_bytes
from scale_steps import bytes_below

from gapless.manifest.manifest import written_rows_per_split

ROCO_SIDE = 600  # about the median of ROCO's images


def write_images(folder: Path, count: int, side: int, num_distinct: int) -> None:
    """JPEG files with some structure and some noise; beyond `num_distinct` they are hard links."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < num_distinct:
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))
            noise = rng.normal(0, 8, (side, side))
            plane = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) + noise
            image = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))
            # Journals store grey pictures as colour about as often as not.
            (image.convert("RGB") if number % 2 else image).save(path, quality=85)
        else:
            os.link(folder / f"{number % num_distinct:06d}.jpg", path)


def write_table(folder: Path, count: int) -> Path:
    table = folder.parent / "rows.jsonl"
    with table.open("w") as stream:
        for number in range(count):
            caption = (
                f"Axial CT of patient {number} with a lesion, of about the length that a caption of ROCO has. " * 2
            )
            row = {"image": f"images/{number:06d}.jpg", "caption": caption, "article": f"PMC{number // 2}"}
            stream.write(json.dumps(row) + "\n")
    return table


# ---- the measurements, each run as `python benchmarks/data.py --measure NAME ...` -----------------------------------


def bare_chunk(paths: list[Path]) -> int:
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return len(paths)


def hashing_chunk(paths: list[Path]) -> int:
    """What bare decoding needs besides to give what a manifest holds: the checksum of the bytes."""
    for path in paths:
        content = path.read_bytes()
        hashlib.sha256(content).hexdigest()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    return len(paths)


def measure_bare(folder: Path, workers: int, out: Path) -> int:
    return _measure_pool(bare_chunk, folder, workers)


def measure_hashing(folder: Path, workers: int, out: Path) -> int:
    return _measure_pool(hashing_chunk, folder, workers)


def _measure_pool(function: Callable[[list[Path]], int], folder: Path, workers: int) -> int:
    from joblib.externals.loky import ProcessPoolExecutor

    paths = sorted((folder / "images").glob("*.jpg"))
    chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(function, chunks))


def measure_manifest(folder: Path, workers: int, out: Path) -> int:
    from gapless.manifest.readers.table import READER

    written = READER.write(folder / "rows.jsonl", out, group_key="article", workers=workers)
    return sum(written_rows_per_split(written).values())


def measure_phantom(folder: Path, workers: int, out: Path) -> int:
    from gapless.manifest.readers.phantom import write_phantom

    return len(write_phantom(out, workers=workers))


MEASUREMENTS = {
    "bare": measure_bare,
    "hashing": measure_hashing,
    "manifest": measure_manifest,
    "phantom": measure_phantom,
}


def run(name: str, folder: Path, workers: int, out: Path) -> dict[str, float]:
    """A measurement in a fresh process: images, seconds, and the peak memory of that process in MB."""
    arguments = ["--measure", name, "--folder", str(folder), "--workers", str(workers), "--out", str(out)]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def measure(name: str, folder: Path, workers: int, out: Path) -> None:
    start = time.perf_counter()
    images = MEASUREMENTS[name](folder, workers, out)
    seconds = time.perf_counter() - start
    own, workers_used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, workers_used))
    print(json.dumps({"images": images, "seconds": seconds, "cpu": cpu, "peak_mb": peak_bytes() / 2**20}))


def compare_with_pillow(root: Path, workers: int, num_images: int) -> dict[str, float]:
    """The best images a second by name."""
    folder = root / "speed"
    write_images(folder / "images", num_images, ROCO_SIDE, min(num_images, 2000))
    write_table(folder / "images", num_images)
    titles = {"bare": "bare Pillow", "hashing": "Pillow and a checksum", "manifest": "data table"}
    rates: dict[str, list[float]] = {name: [] for name in titles}
    cpu: dict[str, list[float]] = {name: [] for name in titles}
    for repeat in range(3):  # alternating, so that a busy machine is unfair to nobody
        for name in titles:
            result = run(name, folder, workers, root / f"speed-{repeat}")
            rates[name].append(result["images"] / result["seconds"])
            cpu[name].append(1000 * result["cpu"] / result["images"])
    print(f"{num_images} JPEG of {ROCO_SIDE} x {ROCO_SIDE}, half of them in colour, {workers} workers, best of 3:")
    for name, title in titles.items():
        rate, ratio = max(rates[name]), max(rates[name]) / max(rates["bare"])
        print(f"  {title:22} {rate:6.0f} images/s = {ratio:.2f}x, {min(cpu[name]):.2f} ms of CPU each")
    return {name: max(found) for name, found in rates.items()}


def many_rows(root: Path, workers: int, num_rows: int) -> None:
    for side, count in ((64, num_rows // 10), (64, num_rows), (256, num_rows)):
        folder = root / f"rows-{side}-{count}"
        write_images(folder / "images", count, side, 400)
        write_table(folder / "images", count)
        out = root / f"manifest-{side}-{count}"
        result = run("manifest", folder, workers, out)
        rate = result["images"] / result["seconds"]
        print(
            f"{count} rows of {side} x {side}: {result['seconds']:.1f} s, {rate:.0f} images/s, "
            f"peak {result['peak_mb']:.0f} MB, manifest {bytes_below(out) / 2**20:.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--num_images", type=int, default=8000)
    parser.add_argument("--num_rows", type=int, default=80_000, help="of small images; 0 leaves them out")
    parser.add_argument("--json", type=Path, default=None, help="also write the images a second")
    parser.add_argument("--measure", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.folder, arguments.workers, arguments.out)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        phantom = run("phantom", root, arguments.workers, root / "phantom")
        print(f"phantom: {phantom['images']} pairs in {phantom['seconds']:.1f} s")
        rates = compare_with_pillow(root, arguments.workers, arguments.num_images)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps({"images_per_second": rates}, indent=2))
        if arguments.num_rows:
            many_rows(root, arguments.workers, arguments.num_rows)


if __name__ == "__main__":
    main()

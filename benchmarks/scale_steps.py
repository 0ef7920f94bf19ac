"""The steps of a large set, each measured at a size in a process of its own; benchmarks/scale.py calls it.

    python benchmarks/scale_steps.py --step "data table" --size 10000 --folder DIR      # after --prepare

A family of steps shares its inputs, which are drawn once for each size. A size is a number of pairs, an image and a
text of 512 numbers each.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from resident_memory import peak_bytes

DIM = 512
SIDE = 64  # pixels of the drawn images
QUERIES = 20
RESUMED_FROM = 3000  # pairs
CLOSING = ("center", "standardise", "shift", "procrustes", "subspace", "cca", "adapter", "stack", "auto")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Args:
        step: what was timed.
        size: pairs.
        seconds: on the clock.
        cpu_seconds: of this process, its threads and its children.
        gigabytes: the largest memory that the process had until the end of the step; 0 where that is mostly what the
            measurement itself holds.
        disk_bytes: that the step wrote; 0 where nobody asks.
    """

    step: str
    size: int
    seconds: float
    cpu_seconds: float
    gigabytes: float
    disk_bytes: int = 0


@dataclass
class Clock:
    """Times steps at a size: `with clock("open"): ...`.

    Args:
        with_memory: whether the memory of the process is that of the steps.
    """

    size: int
    points: list[Point]
    with_memory: bool = True

    @contextmanager
    def __call__(self, step: str, writes: Path | None = None) -> Iterator[None]:
        start, cpu = time.perf_counter(), cpu_seconds()
        yield
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        self.add(step, seconds, cpu, 0 if writes is None else bytes_below(writes))

    def add(self, step: str, seconds: float, cpu: float, disk_bytes: int = 0) -> None:
        """Enter a step that was timed elsewhere."""
        peak = peak_bytes() / 1e9 if self.with_memory else 0.0
        self.points.append(Point(step, self.size, seconds, cpu, peak, disk_bytes))


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def bytes_below(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# ---- images in files: the manifest, its resume, its audit -----------------------------------------------------------


def prepare_images(folder: Path, size: int) -> None:
    """`size` different PNG files of 64 pixels with structure and noise, and a table of them."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as table:
        for number in range(size):
            coarse = Image.fromarray(random.integers(0, 256, (6, 6), dtype=np.uint8))
            plane = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            noisy = plane // 2 + random.integers(0, 16, (SIDE, SIDE), dtype=np.uint8)
            name = f"images/{number // 1000:04d}-{number % 1000:03d}.png"
            Image.fromarray(noisy).save(folder / name, compress_level=1)
            caption = f"Axial CT of patient {number} with a lesion of {number % 40} mm. "
            row = {"image": name, "caption": caption * 2, "patient": f"p{number // 2}"}
            table.write(json.dumps(row) + "\n")


def bare_pillow(folder: Path, clock: Clock) -> None:
    """Decode every file on all cores and keep nothing."""
    from data import bare_chunk
    from joblib.externals.loky import ProcessPoolExecutor

    from gapless.core.pool import available_cores

    def decode(paths: list[Path]) -> None:
        chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
        with ProcessPoolExecutor(available_cores()) as pool:
            assert sum(pool.map(bare_chunk, chunks)) == len(paths)

    paths = sorted((folder / "images").iterdir())
    decode(paths[:2000])  # as `data_table` does
    with clock("bare Pillow loop"):
        decode(paths)


def data_table(folder: Path, clock: Clock) -> None:
    from gapless.manifest.readers.table import READER

    few = folder / "few.jsonl"
    few.write_text("".join((folder / "rows.jsonl").open().readlines(2000)))
    READER.write(few, folder / "few")  # imports what is imported late
    with clock("data table", folder / "manifest"):
        READER.write(folder / "rows.jsonl", folder / "manifest", group_key="patient")


def resume(folder: Path, clock: Clock) -> None:
    """Kill `data table` when half of the images are verified; the time until it goes on with a new one.

    Fewer rows than `RESUMED_FROM` are verified before anything can be interrupted.
    """
    if clock.size < RESUMED_FROM:
        return
    clock.with_memory = False
    words = [sys.executable, "-m", "gapless", "data", "table", str(folder / "rows.jsonl")]
    words += ["--out", str(folder / "resumed"), "--group_key", "patient"]
    journal = folder / ".resumed.resume" / "journal.jsonl"
    with _started(words) as first:
        _wait(lambda: _num_lines(journal) > clock.size // 2, first)
    start, done = time.perf_counter(), journal.stat().st_size
    with _started(words) as again:
        _wait(lambda: journal.stat().st_size > done, again)
        clock.add("resume of data table at half", time.perf_counter() - start, 0.0)


@contextmanager
def _started(words: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a group of its own, which is killed at the end of the block."""
    process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(until: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not until():
        if process.poll() is not None:
            raise SystemExit("the command ended before it could be interrupted: take more pairs")
        time.sleep(0.05)


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def data_audit(folder: Path, clock: Clock) -> None:
    from gapless.auditing.audit import audit

    audit(folder / "few")  # imports what is imported late
    with clock("data audit, images of 64 pixels"):
        audit(folder / "manifest")


# ---- embeddings in arrays: collections, figures, closing ------------------------------------------------------------


def prepare_arrays(folder: Path, size: int) -> None:
    from close_growth import write_pairs

    write_pairs(folder, size, DIM)


def arrays_of(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.npy" for name in ("image", "text")}


def embeddings_directory(folder: Path, clock: Clock) -> None:
    """Write an embeddings directory, and read it back with its checksums."""
    from gapless.embeddings.store import EmbeddingsWriter, read_embeddings

    matrices = {name: np.load(path, mmap_mode="r") for name, path in arrays_of(folder).items()}
    out, clock.with_memory = folder / "embeddings", False  # the system counts the pages of the files
    with clock("write embeddings", out):
        writer = EmbeddingsWriter(out, num_rows=clock.size, info={})
        for shard in writer.shards:
            part = slice(shard.start, shard.stop)
            ids = [f"{number:09d}" for number in range(shard.start, shard.stop)]
            rows: dict[str, list[Any]] = {"id": ids, "captions": [[f"left chest {one}"] for one in ids]}
            writer.write(shard, {name: matrix[part] for name, matrix in matrices.items()}, rows)
        writer.finish()
    with clock("read embeddings"):
        read_embeddings(out)


def collection(folder: Path, clock: Clock) -> None:
    """Write a collection, index it, open it, ask it."""
    from search import drawn_vectors, make_collection

    from gapless.search.collection import Collection
    from gapless.search.indices import update_indices

    make_collection(folder / "few", drawn_vectors(100, 1))  # imports what is imported late
    vectors, queries = drawn_vectors(2 * clock.size, 1), drawn_vectors(QUERIES, 99)
    path, clock.with_memory = folder / "collection", False
    with clock("write a collection", path):
        written = make_collection(path, vectors)
    del vectors
    with clock("index of words and keys", path):
        update_indices(written, None, above=4 * clock.size)
    with clock("open a collection"):
        opened = Collection.open(path, 0)
        len(opened.table_version())
    timed_queries("exact query, from the disk", opened, queries, clock, exact=True)
    timed_queries("exact query, in memory", Collection.open(path, None), queries, clock, exact=True)
    with clock("ivf-rq index, with its recall", path):
        update_indices(written, "ivf-rq")
    timed_queries("query by ivf-rq, from the disk", Collection.open(path, 0), queries, clock, exact=False)


def timed_queries(step: str, asked: Any, queries: np.ndarray, clock: Clock, exact: bool) -> None:
    """The median query; the first one, which loads what stays, is not counted."""
    asked.search(queries[0], k=10, exact=exact)
    seconds, cpu = [], cpu_seconds()
    for query in queries:
        start = time.perf_counter()
        asked.search(query, k=10, exact=exact)
        seconds.append(time.perf_counter() - start)
    clock.add(step, float(np.median(seconds)), (cpu_seconds() - cpu) / len(queries))


def measure_drawn(folder: Path, clock: Clock) -> None:
    from gapless.metrics.measure import measure

    matrices = {name: np.load(path, mmap_mode="r") for name, path in arrays_of(folder).items()}
    measure({name: matrix[:100] for name, matrix in matrices.items()})  # imports what is imported late
    with clock("measure, 2,000 queries"):
        measure(matrices, queries=2000)


def closing(method: str) -> Callable[[Path, Clock], None]:
    def work(folder: Path, clock: Clock) -> None:
        import gapless

        with tempfile.TemporaryDirectory() as out:
            for name, path in arrays_of(folder).items():
                np.save(Path(out) / f"{name}.npy", np.load(path, mmap_mode="r")[:200, :16])
            gapless.close(arrays_of(Path(out)), method="center", out=Path(out) / "few")  # imports what is imported late
            with clock(f"close, {method}"):
                gapless.close(arrays_of(folder), method=method, out=Path(out) / "closed")

    return work


# ---- encoders -------------------------------------------------------------------------------------------------------


def prepare_phantom(side: int) -> Callable[[Path, int], None]:
    def prepare(folder: Path, size: int) -> None:
        from gapless.manifest.readers.phantom import write_phantom

        write_phantom(folder / "data", num_pairs=size, image_size=side)

    return prepare


def embedding(name: str) -> Callable[[Path, Clock], None]:
    """Reading, preprocessing and both encoders, with weights that nobody trained, which take the same time."""

    def work(folder: Path, clock: Clock) -> None:
        import torch

        from gapless.images.thumbnails import thumbnail
        from gapless.inference.embed import embed_dataset, evaluation_dataset
        from gapless.manifest.manifest import Manifest
        from gapless.training.recipes import phantom_small
        from gapless.training.run import all_captions, new_model

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = Manifest.read(folder / "data")
        model = new_model(base_recipe() if name == BASE else phantom_small(), all_captions(data))
        model.train(False).to(device)  # type: ignore[arg-type]
        dataset = evaluation_dataset(model, data)
        few = torch.utils.data.Subset(dataset, range(min(8, len(dataset))))
        embed_dataset(model, few, batch_size=32)  # warms up
        with clock(f"embed, {name}"):
            embed_dataset(model, dataset, batch_size=32)
        start, cpu = time.perf_counter(), cpu_seconds()
        num_bytes = sum(len(thumbnail(data.image_path(row)) or b"") for row in range(len(data)))
        clock.add(f"thumbnails, {name}", time.perf_counter() - start, cpu_seconds() - cpu, num_bytes)

    return work


BASE, DEMO = "ViT-B/16 and BERT-base, fp32", "the demo's encoders"


def base_recipe() -> Any:
    """ViT-B/16 at 224 pixels and BERT-base."""
    from gapless.training.recipes import Recipe

    vit = {"model_type": "vit", "image_size": 224, "patch_size": 16, "num_channels": 3}
    return Recipe(
        modalities={
            "image": {
                "input": {"kind": "image", "size": 224, "channels": 3},
                "encoder": {"kind": "transformers", "config": vit, "pooling": "cls"},
            },
            "text": {
                "input": {"kind": "text", "max_length": 128},
                "encoder": {"kind": "transformers", "config": {"model_type": "bert"}, "pooling": "cls"},
            },
        },
        embedding_dim=DIM,
    )


# ---- which steps there are, and at which sizes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Steps that share inputs.

    Args:
        prepare: draws the inputs of a size into a folder.
        works: name -> measures at a size, and enters what it timed into the clock.
        sizes: pairs of a full measurement.
    """

    prepare: Callable[[Path, int], None]
    works: dict[str, Callable[[Path, Clock], None]]
    sizes: tuple[int, ...]


LARGE = (10_000, 30_000, 100_000, 300_000)
FAMILIES = {
    "data": Family(
        prepare_images, {"bare": bare_pillow, "table": data_table, "resume": resume, "audit": data_audit}, LARGE
    ),
    "arrays": Family(
        prepare_arrays,
        {"embeddings": embeddings_directory, "collection": collection, "measure": measure_drawn},
        LARGE,
    ),
    "close": Family(
        prepare_arrays, {name: closing(name) for name in CLOSING[:6]}, (100_000, 300_000, 600_000, 1_000_000)
    ),
    "heads": Family(prepare_arrays, {name: closing(name) for name in CLOSING[6:]}, (12_500, 25_000, 50_000, 100_000)),
    "base": Family(prepare_phantom(224), {"embed": embedding(BASE)}, (32, 64, 128, 256)),
    "demo": Family(prepare_phantom(SIDE), {"embed": embedding(DEMO)}, (500, 1000, 2000, 4000)),
}


def measured(family: str, size: int, works: list[str] | None = None, folder: Path | None = None) -> list[Point]:
    """The points of a family at a size, each work in a process of its own.

    Args:
        works: some of its works; by default all.
        folder: with the inputs of the size, as a call with it leaves them; by default a temporary one.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            return measured(family, size, works, Path(name) / "inputs")
    if not folder.exists():
        folder.mkdir(parents=True)
        _called(family, size, folder, "prepare")
    points = []
    for work in works or FAMILIES[family].works:
        said = _called(family, size, folder, work)
        points += [Point(**one) for one in json.loads(said.splitlines()[-1])]
    return points


def _called(family: str, size: int, folder: Path, work: str) -> str:
    words = ["--family", family, "--work", work, "--size", str(size), "--folder", str(folder)]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{family} {work} failed at {size:,} pairs")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(FAMILIES), required=True)
    parser.add_argument("--work", required=True, help="one of the family, or prepare")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    family = FAMILIES[options.family]
    if options.work == "prepare":
        family.prepare(options.folder, options.size)
        return
    clock = Clock(options.size, [])
    family.works[options.work](options.folder, clock)
    print(json.dumps([asdict(point) for point in clock.points]))


if __name__ == "__main__":
    main()

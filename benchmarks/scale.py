"""What 10 million and 1 billion pairs need, computed from rates that are measured here and by benchmarks/search.py.

    python benchmarks/search.py --sizes 1000000 --kind ivf-pq --out search.json
    python benchmarks/scale.py --search search.json [--pairs 96] [--small] [--out scale.json]
    python benchmarks/scale.py --rates scale.json          # the tables again, after a rate was changed by hand

Embedding is measured with ViT-B/16 and BERT-base from configurations (weights that nobody trained take the same time)
on images of 224 pixels, reading and preprocessing included; `--small` takes the demo's encoders. Prints the two tables
of docs/scale.md.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gapless.images.thumbnails import thumbnail
from gapless.inference.embed import embed_dataset, evaluation_dataset
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe, phantom_small
from gapless.training.run import all_captions, new_model

DIM = 512
SIZES = (10_000_000, 1_000_000_000)
WORKERS = (1, 8, 64)
HOUR, GB = 3600, 1e9
PLACE_BYTES = 32  # of a row in memory beside its key: the engine's number, its order, the key's rank


@dataclass(frozen=True)
class Rates:
    """Measured. A worker is one process on the device that is named.

    Args:
        embedded_per_s: pairs a worker embeds.
        written_per_s, text_indexed_per_s, vectors_indexed_per_s: rows of a collection, on one machine.
        row_bytes: of a collection on the disk with both indices, without thumbnails; thumbnail_bytes per image.
        key_bytes: memory of a row besides its vector.
        exact_ms, index_ms: p50 of a query at `search_rows` rows; index_recall of the approximate one.
    """

    device: str
    encoders: str
    embedded_per_s: float
    written_per_s: float
    text_indexed_per_s: float
    vectors_indexed_per_s: float
    row_bytes: float
    thumbnail_bytes: float
    key_bytes: float
    search_rows: int
    exact_ms: float
    index: str
    index_ms: float
    index_recall: float


def base_recipe() -> Recipe:
    """ViT-B/16 at 224 pixels and BERT-base."""
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


def embedding_rate(model: GaplessModel, manifest: Manifest) -> float:
    """Pairs a second; the first pass warms up."""
    dataset = evaluation_dataset(model, manifest)
    for _ in range(2):
        start = time.perf_counter()
        embed_dataset(model, dataset, batch_size=32)
        seconds = time.perf_counter() - start
    return len(dataset) / seconds


def measured(found: Mapping[str, Any], num_pairs: int, is_small: bool) -> Rates:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        data = write_phantom(Path(folder) / "data", num_pairs=num_pairs, image_size=64 if is_small else 224)
        model = new_model(phantom_small() if is_small else base_recipe(), all_captions(data))
        model.train(False).to(torch.device(device))  # type: ignore[arg-type]
        embedded = embedding_rate(model, data)
        sizes = [len(thumbnail(data.image_path(row)) or b"") for row in range(min(50, num_pairs))]
    rows, seconds, engines = found["size"], found["seconds"], found["engines"]
    kind = next(name.split()[1].rstrip(",") for name in seconds if "with its recall" in name)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return Rates(
        device=name,
        encoders="the demo's, 64 pixels" if is_small else "ViT-B/16 and BERT-base, fp32",
        embedded_per_s=embedded,
        written_per_s=rows / seconds["write the collection"],
        text_indexed_per_s=rows / seconds["full-text index"],
        vectors_indexed_per_s=rows / seconds[f"gapless {kind}, with its recall"],
        row_bytes=found["bytes_on_disk"] / rows,
        thumbnail_bytes=sum(sizes) / len(sizes),
        key_bytes=found["key_bytes"] + PLACE_BYTES,
        search_rows=rows,
        exact_ms=engines["gapless, exact"]["p50_ms"],
        index=kind,
        index_ms=engines[f"gapless, {kind}"]["p50_ms"],
        index_recall=engines[f"gapless, {kind}"]["recall@10"],
    )


def needs(rates: Rates, pairs: int) -> dict[str, str]:
    """Everything is a rate times a number of rows; two rows a pair."""
    rows = 2 * pairs
    vectors = rows * DIM * 4
    hours = {workers: pairs / rates.embedded_per_s / workers / HOUR for workers in WORKERS}
    larger = rows / rates.search_rows
    return {
        **{f"embedding, {workers} workers: pairs / rate / workers": f"{h:,.1f} h" for workers, h in hours.items()},
        "embeddings on disk, fp32: rows x 512 x 4 B": f"{vectors / GB:,.0f} GB",
        "collection on disk: rows x row + pairs x thumbnail": (
            f"{(rows * rates.row_bytes + pairs * rates.thumbnail_bytes) / GB:,.0f} GB"
        ),
        "writing it: rows / rate": f"{rows / rates.written_per_s / HOUR:,.1f} h",
        "full-text index: rows / rate": f"{rows / rates.text_indexed_per_s / HOUR:,.1f} h",
        f"{rates.index} index: rows / rate": f"{rows / rates.vectors_indexed_per_s / HOUR:,.1f} h",
        "memory, keys, of a collection that is held: rows x key": f"{rows * rates.key_bytes / GB:,.1f} GB",
        "memory, exact search: rows x 512 x 4 B": f"{vectors / GB:,.0f} GB",
        "exact query, p50, in memory: measured x rows / measured rows": f"{rates.exact_ms * larger / 1000:,.1f} s",
        f"{rates.index} query, p50: measured x sqrt(rows / measured rows)": f"{rates.index_ms * larger**0.5:,.0f} ms",
    }


def print_tables(rates: Rates) -> None:
    print("| measured | |\n|---|---:|")
    for key, value in asdict(rates).items():
        print(f"| `{key}` | {f'{value:,.3g}' if isinstance(value, float) and value < 1000 else format_number(value)} |")
    columns = [needs(rates, pairs) for pairs in SIZES]
    print(f"\n| computed | {' | '.join(f'{pairs:,} pairs' for pairs in SIZES)} |\n|---|{'---:|' * len(SIZES)}")
    for key in columns[0]:
        print(f"| {key} | {' | '.join(column[key] for column in columns)} |")


def format_number(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, help="what benchmarks/search.py --out wrote; its largest size counts")
    parser.add_argument("--rates", type=Path, help="what --out wrote: print the tables, measure nothing")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if (options.search is None) == (options.rates is None):
        parser.error("one of --search and --rates is needed")
    if options.rates:
        rates = Rates(**json.loads(options.rates.read_text()))
    else:
        found = max(json.loads(options.search.read_text()), key=lambda one: int(one["size"]))
        rates = measured(found, options.pairs, options.small)
    print_tables(rates)
    if options.out:
        options.out.write_text(json.dumps(asdict(rates), indent=2))


if __name__ == "__main__":
    main()

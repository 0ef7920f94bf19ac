"""A small collection of real images and captions, indexed with a tiny model as a user does it, and its service."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fakes import CAPTIONS, tiny_model
from PIL import Image

from gapless.cli.main import main
from gapless.search.searcher import Searcher

NUM_SAMPLES = 30
# `source` is also the name of a column that every collection has; a fourth label unfolds on the page.
LABELS = {
    "modality_type": ["CT", "MR", None],
    "finding site": ["it's here", "left", "right", "both"],
    "source": ["PACS", "teaching"],
    "view": ["axial", "coronal", "sagittal", "axial", "axial"],
}


def pixels_of(sample: int, size: int = 24) -> np.ndarray:
    """Stripes whose period is the sample's own."""
    wave = np.sin(np.arange(size) * (0.2 + 0.09 * sample))
    return np.asarray(127 + 120 * np.outer(wave, np.cos(np.arange(size) * 0.05 * sample)), dtype=np.uint8)


def png_of(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def caption_of(sample: int) -> str:
    return f"{CAPTIONS[sample % len(CAPTIONS)]}, study {sample}"


def write_collection_of_images(home: Path) -> Path:
    """`gapless data table` and `gapless index`; gives the collection, beside it `model`, `manifest` and a secret."""
    (home / "images").mkdir(parents=True)
    with (home / "table.jsonl").open("w") as table:
        for sample in range(NUM_SAMPLES):
            (home / "images" / f"{sample}.png").write_bytes(png_of(pixels_of(sample)))
            row: dict[str, Any] = {"image": f"images/{sample}.png", "caption": caption_of(sample)}
            row |= {"case": f"case {sample // 2}", "split": "test" if sample % 3 == 0 else "train"}
            row |= {name: values[sample % len(values)] for name, values in LABELS.items()}
            table.write(json.dumps(row) + "\n")
    tiny_model().save_pretrained(home / "model")
    keys = ["--image-key", "image", "--caption-key", "caption", "--group-key", "case", "--split-key", "split"]
    labels = [word for name in LABELS for word in ("--label-key", name)]
    words = ["data", "table", str(home / "table.jsonl"), "--out", str(home / "manifest"), *keys, *labels]
    assert main([*words, "--image-root", str(home)]) == 0
    words = ["index", str(home / "model"), "--data", str(home / "manifest"), "--out", str(home / "collection")]
    assert main(words) == 0
    return home / "collection"


def open_searcher(home: Path) -> Searcher:
    return Searcher.open(write_collection_of_images(home))


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a service that runs in a thread of this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()

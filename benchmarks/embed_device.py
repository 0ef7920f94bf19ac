"""How many pairs a second `embed` encodes on an accelerator, beside the encoders alone, and what bfloat16 changes.

    python benchmarks/embed_device.py [--rows 8192] [--json FILE] [--train]

ViT-B/16 and BERT-base with weights that nobody trained, which take the same time; PNG images of 224 x 224, texts of up
to 128 tokens. "encoders alone" repeats one batch that is on the device already: no reading, no copy. With `--train`
also whole steps of the recipe `roco-eva-bert` (EVA giant and BERT-base, bf16, checkpointing, 64 pairs).
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scale_steps import base_recipe
from train import gapless_run

from gapless.inference.embed import (
    PRECISIONS,
    Collator,
    embed_dataset,
    evaluation_dataset,
    preprocessors_of,
    usual_readers,
)
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.models.safe_loading import on_accelerator
from gapless.training.recipes import Recipe, get_recipe
from gapless.training.run import all_captions, new_model

DIFFERENT = 512  # rows that are drawn; they are read again and again
BATCH = 256
ALONE = 20  # batches of the encoders alone
TRAINED_STEPS = 10


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def encoders_alone(model: GaplessModel, batch: Any, precision: str) -> float:
    """Pairs a second of the forward pass of one batch that is on the device."""

    def forward() -> None:
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            model(batch=batch, return_loss=False)

    forward()
    synchronize()
    start = time.perf_counter()
    num_batches = ALONE if torch.cuda.is_available() else 1
    for _ in range(num_batches):
        forward()
    synchronize()
    return num_batches * len(batch["text"]["input_ids"]) / (time.perf_counter() - start)


def without_downloads(recipe: Recipe) -> Recipe:
    """The recipe with encoders of the same shapes, whose weights nobody trained."""
    modalities = {
        name: {**spec, "encoder": {**spec["encoder"], "pretrained": None}} for name, spec in recipe.modalities.items()
    }
    return replace(recipe, modalities=modalities)


def report(figures: dict[str, Any], file: Path | None) -> None:
    print(json.dumps(figures, indent=2), flush=True)
    if file is not None:
        file.write_text(json.dumps(figures, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--train", action="store_true", help="also steps of the recipe roco-eva-bert")
    options = parser.parse_args()
    num_different = min(DIFFERENT, options.rows)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    figures: dict[str, Any] = {"device": name, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(Path(folder) / "data", num_pairs=num_different, image_size=224)
        data = Manifest.read(Path(folder) / "data")
        model = on_accelerator(new_model(base_recipe(), all_captions(data))).train(False)
        different = evaluation_dataset(model, data)
        rows = torch.utils.data.Subset(different, list(range(num_different)) * (options.rows // num_different))
        collated = Collator(preprocessors_of(model))([different[row] for row in range(min(BATCH, num_different))])[
            "batch"
        ]
        batch = {name: {key: value.to(model.device) for key, value in part.items()} for name, part in collated.items()}
        readers = usual_readers(model.device) or 1
        embedded = {}
        for precision in PRECISIONS:
            figures[f"encoders alone, {precision}"] = encoders_alone(model, batch, precision)
            embedded[precision] = embed_dataset(model, different, batch_size=BATCH, precision=precision)
            for number, some in ((0, torch.utils.data.Subset(rows, range(len(rows) // 4))), (readers, rows)):
                start = time.perf_counter()
                embed_dataset(model, some, batch_size=BATCH, precision=precision, num_workers=number)
                rate = len(some) / (time.perf_counter() - start)
                figures[f"embed, {precision}, {number} readers"] = rate
            print(json.dumps(figures), flush=True)
        for name, exact in embedded["float32"].items():
            cosines = (exact * embedded["bfloat16"][name]).sum(dim=1)
            figures[f"least cosine of a row in both precisions, {name}"] = float(cosines.min())
        report(figures, options.json)  # also where the training below fails
        if options.train:
            del model, batch
            torch.cuda.empty_cache()
            recipe = without_downloads(get_recipe("roco-eva-bert"))
            figures["train, roco-eva-bert"] = gapless_run(recipe, data.select("train"), TRAINED_STEPS)
            figures["train, peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    report(figures, options.json)


if __name__ == "__main__":
    main()

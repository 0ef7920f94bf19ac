"""Texts per second of training a captioner on text embeddings, against its decoder's bare forward and backward pass.

    python benchmarks/caption_training.py [--texts 4096] [--batch_size 128] [--rounds 3]

`gapless` is the training of mode `text` as `caption train` runs it, on embeddings and tokens that are ready: the loop
of `transformers.Trainer`, the optimiser, clipping, logging. `bare` is the floor: the decoder's forward and backward
pass alone, on the batches of the same training, collated before. `loop` is what anyone would write: random batches,
padded to their longest text, tokenised when they are needed, with the same optimiser. All train the same decoder on the
same texts, in turn in one process, round by round; `cpu` counts the seconds of this process in place of the clock's.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from gapless.captioning.captioner import Captioner
from gapless.captioning.data import dataset_of
from gapless.captioning.settings import CaptionSettings
from gapless.captioning.training import CaptionTrainer, new_captioner
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import phantom_small
from gapless.training.run import all_captions, new_model, training_arguments


class Sides:
    """What is timed; each side trains on all texts once."""

    def __init__(self, rows: Manifest, width: int, batch_size: int, folder: Path) -> None:
        training: dict[str, Any] = {
            "num_train_epochs": 1,
            "per_device_train_batch_size": batch_size,
            "learning_rate": 1e-3,
        }
        training |= {"eval_strategy": "no", "save_strategy": "no", "logging_steps": 10, "disable_tqdm": True}
        decoder = {"model_type": "bert", "hidden_size": width, "num_attention_heads": 4, "num_hidden_layers": 1}
        self.settings = CaptionSettings(
            mode="text", decoder={**decoder, "intermediate_size": 2 * width}, max_tokens=40, training=training
        )
        set_seed(0)
        captions = all_captions(rows)
        self.model: Captioner = new_captioner(new_model(phantom_small(), captions), self.settings, captions)
        self.data = dataset_of(self.model, rows, "text", (), training_seed=0)
        self.folder, self.batch_size = folder, batch_size
        self.texts = [self.data[row]["caption"] for row in range(len(rows))]
        self.embeddings = torch.stack([self.data[row]["embedding"] for row in range(len(rows))])
        self.batches = [self.ready(inputs) for inputs in self.trainer().get_train_dataloader()]

    def trainer(self) -> CaptionTrainer:
        """A trainer as `caption train` makes it."""
        arguments = training_arguments(self.settings, self.folder, 0, False)
        return CaptionTrainer(self.model, arguments, self.data, self.folder, "benchmark", None, ())

    def ready(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        return {name: value for name, value in inputs.items() if name != "ids"}

    def learnt(self) -> list[torch.nn.Parameter]:
        return [one for one in self.model.parameters() if one.requires_grad]

    def gapless(self) -> None:
        self.trainer().train()

    def bare(self) -> None:
        """The passes alone; gradients are thrown away."""
        self.model.train()
        learnt = self.learnt()
        for inputs in self.batches:
            self.model(**inputs).loss.backward()
            for one in learnt:
                one.grad = None

    def loop(self) -> None:
        self.model.train()
        learnt = self.learnt()
        optimizer = torch.optim.AdamW(learnt, lr=1e-3)
        for rows in torch.randperm(len(self.texts)).split(self.batch_size):
            inputs = self.model.encode_captions([self.texts[row] for row in rows.tolist()])
            optimizer.zero_grad()
            self.model(**inputs, embedding=self.embeddings[rows]).loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()


def timed(side: Callable[[], object]) -> tuple[float, float]:
    """The seconds of the clock and of the process."""
    clock, process = time.perf_counter(), time.process_time()
    side()
    return time.perf_counter() - clock, time.process_time() - process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Images of 16 pixels: they are not read.
        phantom = write_phantom(
            folder / "phantom", num_pairs=options.texts + 8, num_validation=4, num_test=4, image_size=16
        )
        sides = Sides(phantom.select("train"), options.width, options.batch_size, folder / "run")
        num_texts = len(sides.texts)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in sides.batches)
        padded = sum(batch["attention_mask"].numel() for batch in sides.batches)
        functions = {"bare": sides.bare, "loop": sides.loop, "gapless": sides.gapless}
        for function in functions.values():
            function()
        rounds = [{name: timed(side) for name, side in functions.items()} for _ in range(options.rounds)]
    found: dict[str, Any] = {"texts": num_texts, "tokens_per_text": tokens / num_texts, "padding": 1 - tokens / padded}
    for place, clock in enumerate(("clock", "cpu")):
        rates = {name: statistics.median(num_texts / one[name][place] for one in rounds) for name in functions}
        found[f"texts_per_second ({clock})"] = rates
        found |= {f"gapless/{name} ({clock})": rates["gapless"] / rates[name] for name in ("bare", "loop")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

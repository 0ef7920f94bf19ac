"""Captions per second of `caption generate` against bare `generate` of the same decoder.

    python benchmarks/caption.py [--images 256] [--method beam] [--rounds 5]

`gapless` is all that `caption generate` does once the model is loaded: images are read and encoded, captions generated
and scored, lines written. `bare` is `decoder.generate` alone, batch by batch, on prefixes that are ready. `loop` is
what anyone would write around it: images are read and encoded, texts decoded. All take the same images, weights and
batches, in turn in one process, round by round; the ratios of the medians are what counts. The decoder is untrained and
cannot end a caption, so that every side generates the same number of tokens; their captions are checked to be the same.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import DynamicCache, EncoderDecoderCache, set_seed

from gapless.captioning.caption_files import read_captions, write_captions
from gapless.captioning.captioner import Captioner
from gapless.captioning.data import feature_batches, sources_of
from gapless.captioning.generation import GenerationSettings, options_of
from gapless.captioning.settings import CaptionSettings
from gapless.captioning.training import new_captioner
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import phantom_small
from gapless.training.run import all_captions, new_model


def untrained(rows: Manifest, settings: CaptionSettings, directory: Path) -> Captioner:
    """A captioner around a fresh aligner, loaded as a user would, that cannot generate its end token."""
    set_seed(0)
    captions = all_captions(rows)
    new_captioner(new_model(phantom_small(), captions), settings, captions).save_pretrained(directory)
    model = Captioner.from_pretrained(directory)
    model.decoder.generation_config.suppress_tokens = [model.special_ids()["eos_token_id"]]
    return model.train(False)


class Sides:
    """What is timed; each side captions all rows and returns the texts."""

    def __init__(self, model: Captioner, rows: Manifest, settings: GenerationSettings, batch: int, folder: Path):
        self.model, self.rows, self.settings, self.batch, self.folder = model, rows, settings, batch, folder
        self.ready = list(self.prefixes())

    @torch.no_grad()
    def prefixes(self) -> Iterator[torch.Tensor]:
        """Batch by batch, from the image files."""
        for _, features, _ in feature_batches(self.model, sources_of(self.model, self.rows), batch_size=self.batch):
            yield self.model.prefix(*features)

    def generated(self, prefix: torch.Tensor) -> torch.Tensor:
        """Transformers' own call with its own caches; BERT must be given this pair of them."""
        ids = self.model.special_ids()
        start = torch.full((len(prefix), 1), ids["bos_token_id"])
        found: torch.Tensor = self.model.decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=prefix,
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            max_length=self.model.config.max_tokens,
            **ids,
            **options_of(self.settings),
        )
        return found

    def texts(self, ids: torch.Tensor) -> list[str]:
        return [" ".join(text.split()) for text in self.model.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def bare(self) -> list[torch.Tensor]:
        return [self.generated(prefix) for prefix in self.ready]

    def loop(self) -> list[str]:
        return [text for prefix in self.prefixes() for text in self.texts(self.generated(prefix))]

    def gapless(self) -> list[str]:
        out = self.folder / f"{time.monotonic_ns()}.jsonl"
        write_captions(self.model, sources_of(self.model, self.rows), out, self.settings, {}, self.batch)
        return [line["caption"] for line in read_captions(out).values()]


def timed(side: Callable[[], object]) -> float:
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--method", choices=["greedy", "beam"], default="beam")
    parser.add_argument("--model_type", choices=["bert", "gpt2"], default="bert")
    parser.add_argument("--max_tokens", type=int, default=48)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    settings = CaptionSettings(decoder={"model_type": options.model_type}, max_tokens=options.max_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_phantom(folder / "phantom", num_pairs=2 * options.images, num_test=options.images).select("test")
        model = untrained(rows, settings, folder / "model")
        sides = Sides(model, rows, GenerationSettings(method=options.method), options.batch_size, folder)
        captions = [text for ids in sides.bare() for text in sides.texts(ids)]  # the warm-up of all sides
        if not captions == sides.loop() == sides.gapless():
            raise SystemExit("the sides generate different captions, so their times do not compare")
        functions = {"bare": sides.bare, "loop": sides.loop, "gapless": sides.gapless}
        rounds = [{name: len(rows) / timed(side) for name, side in functions.items()} for _ in range(options.rounds)]
    medians = {name: statistics.median(rates[name] for rates in rounds) for name in functions}
    ratios = {f"gapless/{name}": medians["gapless"] / medians[name] for name in ("bare", "loop")}
    print(json.dumps({"captions_per_second": medians, **ratios, "rounds": rounds}))


if __name__ == "__main__":
    main()

"""How close does a captioner come that learns from texts alone to the same one that learns from pairs?

    gapless embed RUN --data MANIFEST --split train --out train        # and validation, test
    python examples/text_only_study.py OUT --embeddings train validation test --seeds 3
    python examples/text_only_study.py OUT --medpix FOLDER --seeds 3   # FOLDER: train.jsonl, dev.jsonl, features_*.npz

For every bridge (a closing method, fitted on the train rows) a decoder learns the train texts' embeddings and captions
the images' embeddings; beside it the same decoder that learns the images' embeddings, the nearest train text and a
constant caption. Noise is none, 0.04 per dimension, or fitted to the angle of the validation pairs; "memory" captions
from the softmax-weighted mean of near train texts. Bridge, noise and memory are chosen by the CIDEr of the
validation captions (with `--by loss` by their loss given their images). OUT/study.json holds all figures, with 95 %
intervals over groups; with several seeds the figures are means over them.
"""

import argparse
import json
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.captioning.captioner import Captioner, CaptionerConfig
from gapless.captioning.clinical import ClinicalScorer
from gapless.captioning.decoders import decoder_spec
from gapless.captioning.generation import GenerationSettings, captions_from
from gapless.captioning.metrics import CaptionScorer, most_typical
from gapless.closing import close_gap
from gapless.core.files import write_json
from gapless.core.geometry import unit_norm
from gapless.embeddings.store import read_embeddings
from gapless.metrics.uncertainty import Figure, bootstrap, bootstrap_difference, combine
from gapless.models.tokenizers import train_tokenizer

PARTS = ("train", "validation", "test")
DECODER = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 1}
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2)
MAX_TOKENS = 40
SHOWN = ("caption/CIDEr", "caption/METEOR", "caption/ROUGE-L", "caption/BLEU-4", "caption/findings/F1")


def read_stored(directories: list[Path]) -> dict[str, list[Any]]:
    """image, text, captions, groups and part of the rows of `gapless embed` directories, in the order of PARTS."""
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "text", "captions", "groups", "part")}
    for part, directory in zip(PARTS, directories, strict=True):
        read = read_embeddings(directory)
        rows["image"].append(np.asarray(read.embeddings["image"], np.float32))
        rows["text"].append(np.asarray(read.embeddings["text"], np.float32))
        rows["captions"] += read.captions or []
        rows["groups"] += read.groups or read.ids
        rows["part"] += [part] * len(read)
    return rows


def read_medpix(folder: Path) -> dict[str, list[Any]]:
    """The same of frozen features; every tenth case of the training file is held back."""
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "text", "captions", "groups", "part")}
    for name in ("train", "dev"):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        features = np.load(folder / f"features_{name}.npz")
        held = set(sorted({line["case"] for line in lines})[::10]) if name == "train" else set()
        for modality in ("image", "text"):
            rows[modality].append(features[modality].astype(np.float32))
        rows["captions"] += [line["caption"] for line in lines]
        rows["groups"] += [line["case"] for line in lines]
        rows["part"] += ["test" if name == "dev" else PARTS[line["case"] in held] for line in lines]
    return rows


class Study:
    """The rows in one bridged space, and what is trained and scored on them."""

    def __init__(self, rows: dict[str, list[Any]], bridge: str, seed: int, tokenizer: Any, epochs: int) -> None:
        image, text = np.concatenate(rows["image"]), np.concatenate(rows["text"])
        self.captions, self.part = rows["captions"], np.asarray(rows["part"])
        self.seed, self.tokenizer, self.epochs = seed, tokenizer, epochs
        with TemporaryDirectory() as place:
            if bridge == "none":
                mapped = {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}
                self.aligner = None
            else:
                known = np.flatnonzero(self.part != "test")
                closed = close_gap(
                    {"image": image[known], "text": text[known]},
                    [rows["groups"][row] for row in known],
                    method=bridge,
                    seed=seed,
                    splits=list(self.part[known]),
                    out=Path(place) / "closed",
                ).model
                mapped = {"image": closed.encode("image", image), "text": closed.encode("text", text)}
        self.rows = {name: unit_norm(matrix.float()) for name, matrix in mapped.items()}
        self.dim = self.rows["text"].shape[1]
        pair = (self.of("image", "validation") * self.of("text", "validation")).sum(dim=1).mean()
        self.cosine = max(float(pair), 0.05)

    def of(self, modality: str, part: str) -> Tensor:
        return self.rows[modality][torch.from_numpy(np.flatnonzero(self.part == part))]

    def texts(self, part: str) -> list[str]:
        return [self.captions[row] for row in np.flatnonzero(self.part == part)]

    @property
    def noise(self) -> float:
        """The noise per dimension that turns a row by the angle between an image and its text."""
        return math.sqrt((1 / self.cosine**2 - 1) / self.dim)

    def captioner(self) -> Captioner:
        """An untrained captioner; its aligner takes no part in the study."""
        torch.manual_seed(self.seed)
        vectors: dict[str, dict[str, Any]] = {
            name: {"input": {"kind": "vector", "size": self.dim}} for name in ("image", "text")
        }
        for spec in vectors.values():
            spec |= {"encoder": {"kind": "vector", "size": self.dim}, "head": [{"kind": "unit_norm"}]}
        config = CaptionerConfig(
            aligner={"modalities": vectors, "embedding_dim": self.dim},
            decoder=decoder_spec({"model_type": "bert", **DECODER}, self.tokenizer, MAX_TOKENS),
            max_tokens=MAX_TOKENS,
        )
        model = Captioner(config)
        model.tokenizer = self.tokenizer
        return model

    def trained(self, modality: str, noise: float) -> tuple[Captioner, float]:
        """The captioner of the epoch with the least loss of the validation captions given their images."""
        model = self.captioner()
        model.config.noise_std = noise
        rows, encoded = self.of(modality, "train"), model.encode_captions(self.texts("train"))
        learns = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learns, lr=1e-3, weight_decay=0.05)
        steps = self.epochs * -(-len(rows) // 32)
        shape = lambda step: min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        best: tuple[float, dict[str, Tensor]] = (math.inf, {})
        for _ in range(self.epochs):
            model.train()
            for batch in torch.randperm(len(rows)).split(32):
                length = int(encoded["attention_mask"][batch].sum(dim=1).max())
                inputs = {name: value[batch, :length] for name, value in encoded.items()}
                optimizer.zero_grad()
                model(**inputs, embedding=rows[batch]).loss.backward()
                torch.nn.utils.clip_grad_norm_(learns, 1.0)
                optimizer.step()
                schedule.step()
            loss = self.loss(model, self.of("image", "validation"))
            if loss < best[0]:
                best = (loss, {name: value.clone() for name, value in model.state_dict().items()})
        model.load_state_dict(best[1])
        return model.train(False), best[0]

    @torch.no_grad()
    def loss(self, model: Captioner, embedding: Tensor) -> float:
        model.train(False)
        return float(model(**model.encode_captions(self.texts("validation")), embedding=embedding).per_row.mean())

    def cider(self, model: Captioner, embedding: Tensor) -> float:
        """CIDEr of the validation captions that are written from these embeddings."""
        with CaptionScorer([[text] for text in self.texts("validation")], use_java=False) as scorer:
            return scorer.figures(self.write(model, embedding))["caption/CIDEr"].value

    def remembered(self, rows: Tensor, temperature: float) -> Tensor:
        """The softmax-weighted mean of the train texts near each row, as DeCap (arXiv 2303.03032) projects images."""
        memory = self.of("text", "train")
        return unit_norm((rows @ memory.T / temperature).softmax(dim=1) @ memory)

    def write(self, model: Captioner, rows: Tensor) -> list[str]:
        with torch.inference_mode():
            return [text for text, _ in captions_from(model, model.prefix(rows), GenerationSettings("greedy"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embeddings", type=Path, nargs=3, default=None, metavar=("TRAIN", "VALIDATION", "TEST"))
    parser.add_argument("--medpix", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--bridges", default="none,center,standardise,procrustes,cca")
    parser.add_argument("--by", choices=["CIDEr", "loss"], default="CIDEr")
    parser.add_argument("--vocab_size", type=int, default=2048)
    options = parser.parse_args()
    rows = read_medpix(options.medpix) if options.medpix else read_stored(options.embeddings)
    part = np.asarray(rows["part"])
    test = np.flatnonzero(part == "test")
    train_texts = [rows["captions"][row] for row in np.flatnonzero(part == "train")]
    tokenizer = train_tokenizer(train_texts, options.vocab_size, MAX_TOKENS)
    written: dict[str, list[list[str]]] = {"constant": [[most_typical(train_texts)] * len(test)] * options.seeds}
    losses: dict[str, list[float]] = {}
    chosen = []

    def note(name: str, captions: list[str], loss: float | None = None) -> None:
        written.setdefault(name, []).append(captions)
        if loss is not None:
            losses.setdefault(name, []).append(loss)

    for seed in range(options.seeds):
        candidates: dict[str, float] = {}
        for bridge in options.bridges.split(","):
            started = time.perf_counter()
            study = Study(rows, bridge, seed, tokenizer, options.epochs)
            images, held = study.of("image", "test"), study.of("image", "validation")
            near = (images @ study.of("text", "train").T).argmax(dim=1).tolist()
            note(f"{bridge}: nearest text", [train_texts[row] for row in near])
            model, loss = study.trained("image", 0.0)
            note(f"{bridge}: pairs", study.write(model, images), loss)
            for name, noise in (("text", 0.0), ("text, noise 0.04", 0.04), ("text, noise fitted", study.noise)):
                model, loss = study.trained("text", noise)
                note(f"{bridge}: {name}", study.write(model, images), loss)
                candidates[f"{bridge}: {name}"] = loss if options.by == "loss" else -study.cider(model, held)
                by_memory = {t: study.loss(model, study.remembered(held, t)) for t in TEMPERATURES}
                t = min(by_memory, key=by_memory.__getitem__)
                note(f"{bridge}: {name}, memory", study.write(model, study.remembered(images, t)), by_memory[t])
                near_texts = study.remembered(held, t)
                value = by_memory[t] if options.by == "loss" else -study.cider(model, near_texts)
                candidates[f"{bridge}: {name}, memory"] = value
            seconds = time.perf_counter() - started
            print(
                f"seed {seed} {bridge}: cosine {study.cosine:.3f}, noise {study.noise:.3f}, {seconds:.0f} s", flush=True
            )
        best = min(candidates, key=candidates.__getitem__)
        chosen.append(best)
        note("chosen", written[best][-1], losses[best][-1])
        of_pairs = {name: found[-1] for name, found in losses.items() if name.endswith(": pairs")}
        taken = min(of_pairs, key=of_pairs.__getitem__)
        note("pairs, chosen", written[taken][-1], of_pairs[taken])
        note("nearest text, chosen", written[f"{best.partition(':')[0]}: nearest text"][-1])
    references = [[rows["captions"][row]] for row in test]
    with CaptionScorer(references, [rows["groups"][row] for row in test]) as scorer:
        clinical = ClinicalScorer(references, scorer.groups)
        figures = {}
        for name, several in written.items():
            found = [scorer.figures(captions) | clinical.figures(captions) for captions in several]
            figures[name] = {
                key: combine([one[key] for one in found]) for key in SHOWN if all(key in one for one in found)
            }
        number = scorer.groups.num_groups
        results: dict[str, Any] = {"chosen": chosen, "losses": losses, "n": len(test), "groups": number}
        results["figures"] = {name: bootstrap(found, number, 500) for name, found in figures.items()}
        against = ("nearest text, chosen", "constant", "pairs, chosen")
        results["chosen minus"] = {
            other: bootstrap_difference(figures["chosen"], figures[other], number, 500) for other in against
        }
        results["ratio to pairs"] = bootstrap(ratios(figures["chosen"], figures["pairs, chosen"]), number, 500)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "study.json", results)
    print(
        f"chosen: {chosen}\n\n| captions | loss | {' | '.join(key[8:] for key in SHOWN)} |\n|---|"
        + "---:|" * (len(SHOWN) + 1)
    )
    for name, found in results["figures"].items():
        mean = f"{np.mean(losses[name]):.3f}" if name in losses else "–"
        print(f"| {name} | {mean} | " + " | ".join(f"{found[key]['value']:.3f}" for key in SHOWN) + " |")
    for other, found in [*results["chosen minus"].items(), ("ratio to pairs", results["ratio to pairs"])]:
        spans = [f"{key[8:]} {one['value']:+.3f} [{one['low']:.3f}, {one['high']:.3f}]" for key, one in found.items()]
        print(f"chosen, {other}: {'; '.join(spans)}")


def ratios(first: dict[str, Figure], second: dict[str, Figure]) -> dict[str, Figure]:
    return {
        key: combine([first[key], second[key]], lambda parts: parts[0] / parts[1]) for key in first if key in second
    }


if __name__ == "__main__":
    main()

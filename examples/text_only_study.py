"""How close does a captioner come that learns from texts alone to the same one that learns from pairs?

    gapless embed RUN --data MANIFEST --split train --out train        # and validation, test
    python examples/text_only_study.py OUT --embeddings train validation test --seeds 3
    python examples/text_only_study.py OUT --medpix FOLDER --seeds 3   # FOLDER: train.jsonl, dev.jsonl, features_*.npz

For every bridge (a closing method, fitted on the train rows) a decoder learns the train texts' embeddings and captions
the images' embeddings by beam search; beside it the same decoder that learns the images' embeddings, the nearest train
text, the consensus of the near train texts without a decoder, and a constant caption. "consensus" is what `caption
generate --near_texts K` writes: of the beams and the near train texts the one that agrees best with those texts; how
many vote, and how, is chosen on the validation pairs (`texts` in the figures' names: on the validation texts alone).
"beams" may not repeat a train text. Noise is none, 0.04 per dimension, or fitted to the angle of the validation pairs.
Bridge, noise and consensus are chosen by CIDEr times METEOR of the validation captions (without Java: by CIDEr).
OUT/study.json holds all figures, with 95 % intervals over groups; with several seeds the figures are means over them.
OUT/captions holds the captions of every seed and bridge, which a second call does not make again.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.captioning.captioner import Captioner, CaptionerConfig
from gapless.captioning.clinical import ClinicalScorer
from gapless.captioning.consensus import NearTexts, chosen_vote
from gapless.captioning.data import LengthBatches
from gapless.captioning.decoders import decoder_spec
from gapless.captioning.generation import GenerationSettings, candidates_from
from gapless.captioning.metrics import CaptionScorer, most_typical
from gapless.captioning.train_texts import TrainTexts
from gapless.captioning.vote import TEMPERATURE, Vote
from gapless.captioning.voting import turned_as_the_nearest
from gapless.closing import close_gap
from gapless.core.files import read_object, write_json
from gapless.core.geometry import unit_norm
from gapless.embeddings.store import read_embeddings
from gapless.inference.pairs import EpochSampler
from gapless.metrics.uncertainty import Figure, bootstrap, bootstrap_difference, combine
from gapless.models.tokenizers import train_tokenizer

PARTS = ("train", "validation", "test")
DECODER = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 1}
MAX_TOKENS = 40
BATCH = 32
BEAMS = GenerationSettings("beam", num_beams=4)
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
        self.given, self.groups, self.part = rows["captions"], rows["groups"], np.asarray(rows["part"])
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
        return [self.given[row] for row in np.flatnonzero(self.part == part)]

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
        steps = self.epochs * -(-len(rows) // BATCH)
        shape = lambda step: min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        sampler = LengthBatches(
            EpochSampler(len(rows), self.seed), encoded["attention_mask"].sum(dim=1).tolist(), BATCH
        )
        best: tuple[float, dict[str, Tensor]] = (math.inf, {})
        for epoch in range(self.epochs):
            model.train()
            sampler.set_epoch(epoch)
            for batch in torch.tensor([row for _, row in sampler]).split(BATCH):
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

    def near_texts(self) -> dict[str, NearTexts]:
        """The train texts that vote, as chosen on the validation pairs and on the validation texts alone."""
        near = NearTexts(self.texts("train"), self.of("text", "train"), Vote(0, TEMPERATURE))
        groups = [self.groups[row] for row in np.flatnonzero(self.part == "validation")]
        asked = {"pairs": self.of("image", "validation")}
        asked["texts"] = turned_as_the_nearest(self.of("text", "validation"), near.embeddings)
        votes = {name: chosen_vote(near, rows, self.texts("validation"), groups, name) for name, rows in asked.items()}
        return {name: near.with_vote(vote) for name, vote in votes.items()}

    def write(self, model: Captioner, rows: Tensor) -> list[list[str]]:
        """The beams of each row, the best one first."""
        found = []
        for part in rows.split(128):
            with torch.inference_mode():
                found += candidates_from(model, model.prefix(part), BEAMS, count=BEAMS.num_beams)
        return [[caption.text for caption in beams] for beams in found]

    def captions(self, noises: Sequence[str], voted: Sequence[str]) -> dict[str, Any]:
        """Arm -> its captions of the validation and test rows and its loss; and what votes.

        Args:
            voted: modalities; near texts vote on the beams of the decoders that learn them.
        """
        near = self.near_texts()
        images = {part: self.of("image", part) for part in ("validation", "test")}
        train = self.texts("train")
        arms: dict[str, dict[str, Any]] = {"nearest text": {}}
        arms |= {f"near texts, consensus{mark(name)}": {} for name in near}
        for part, rows in images.items():
            nearest = (rows @ self.of("text", "train").T).argmax(dim=1).tolist()
            arms["nearest text"][part] = [train[row] for row in nearest]
            for name, voters in near.items():
                chosen = voters.choose([[]] * len(rows), rows)
                arms[f"near texts, consensus{mark(name)}"][part] = [one.text for one in chosen]
        levels = {"none": 0.0, "0.04": 0.04, "fitted": self.noise}
        decoders = {"pairs": ("image", 0.0)}
        decoders |= {f"text{'' if name == 'none' else f', noise {name}'}": ("text", levels[name]) for name in noises}
        for name, (modality, noise) in decoders.items():
            model, loss = self.trained(modality, noise)
            for part, rows in images.items():
                beams = self.write(model, rows)
                arms.setdefault(name, {"loss": loss})[part] = [several[0] for several in beams]
                for vote, voters in near.items() if modality in voted else ():
                    for repeats, what in ((True, "consensus"), (False, "consensus of beams")):
                        chosen = voters.choose(beams, rows, repeats)
                        arms.setdefault(f"{name}, {what}{mark(vote)}", {})[part] = [one.text for one in chosen]
        return {"arms": arms, "votes": {name: vars(one.vote) for name, one in near.items()}, "noise": self.noise}


def mark(chosen_on: str) -> str:
    """What a name says of a vote that was chosen on texts alone."""
    return " by texts" if chosen_on == "texts" else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embeddings", type=Path, nargs=3, default=None, metavar=("TRAIN", "VALIDATION", "TEST"))
    parser.add_argument("--medpix", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--bridges", default="none,center,standardise,procrustes,cca")
    parser.add_argument("--noises", default="none,0.04,fitted")
    parser.add_argument(
        "--voted", default="image,text", help="consensus of decoders that learn these; text: fewer arms"
    )
    parser.add_argument("--vocab_size", type=int, default=2048)
    options = parser.parse_args()
    rows = read_medpix(options.medpix) if options.medpix else read_stored(options.embeddings)
    part = np.asarray(rows["part"])
    texts = {name: [rows["captions"][row] for row in np.flatnonzero(part == name)] for name in PARTS}
    tokenizer = train_tokenizer(texts["train"], options.vocab_size, MAX_TOKENS)
    (options.out / "captions").mkdir(parents=True, exist_ok=True)
    written: dict[str, list[list[str]]] = {"constant": [[most_typical(texts["train"])] * len(texts["test"])]}
    written["constant"] *= options.seeds
    losses: dict[str, list[float]] = {}
    chosen: list[dict[str, Any]] = []
    votes: dict[str, Any] = {}
    for seed in range(options.seeds):
        arms, of_bridges = arms_of_seed(options, rows, seed, tokenizer)
        votes |= {f"{bridge}, seed {seed}": one for bridge, one in of_bridges.items()}
        by_name = held_out_scores(arms, texts["validation"])
        named = chosen_arms(by_name)
        chosen.append({**named, "score of the validation captions": by_name})
        for name, arm in [*arms.items(), *((name, arms[taken]) for name, taken in named.items())]:
            written.setdefault(name, []).append(arm["test"])
            if "loss" in arm:
                losses.setdefault(name, []).append(arm["loss"])
    groups = [rows["groups"][row] for row in np.flatnonzero(part == "test")]
    results = {"chosen": chosen, "votes": votes, "losses": losses, **scored(written, texts, groups)}
    write_json(options.out / "study.json", results)
    show(results)


def arms_of_seed(
    options: argparse.Namespace, rows: dict[str, list[Any]], seed: int, tokenizer: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Arm -> its captions and loss, of every bridge, and bridge -> what votes; what a file holds is not made again."""
    arms: dict[str, dict[str, Any]] = {}
    votes: dict[str, Any] = {}
    for bridge in options.bridges.split(","):
        path = options.out / "captions" / f"{bridge}-{seed}.json"
        if not path.exists():
            started = time.perf_counter()
            study = Study(rows, bridge, seed, tokenizer, options.epochs)
            write_json(path, study.captions(options.noises.split(","), options.voted.split(",")))
            print(f"seed {seed} {bridge}: {time.perf_counter() - started:.0f} s", flush=True)
        made = read_object(path)
        votes[bridge] = made["votes"]
        arms |= {f"{bridge}: {name}": arm for name, arm in made["arms"].items()}
    return arms, votes


def held_out_scores(arms: dict[str, dict[str, Any]], references: Sequence[str]) -> dict[str, float]:
    """Arm -> CIDEr times METEOR of its validation captions, or CIDEr where METEOR has no Java."""
    with CaptionScorer([[text] for text in references]) as scorer:
        figures = {name: scorer.figures(arm["validation"]) for name, arm in arms.items()}
    return {
        name: math.prod(one[key].value for key in ("caption/CIDEr", "caption/METEOR") if key in one)
        for name, one in figures.items()
    }


def chosen_arms(by_name: dict[str, float]) -> dict[str, str]:
    """What is chosen -> the arm of its kind with the best validation captions."""

    def best(takes: Callable[[str], bool]) -> str:
        return max((name for name in by_name if takes(name.partition(": ")[2])), key=by_name.__getitem__)

    return {
        "text, plain, chosen": best(lambda arm: arm.startswith("text") and "consensus" not in arm),
        "text, consensus by texts, chosen": best(lambda arm: arm.startswith("text") and "by texts" in arm),
        "chosen": best(lambda arm: arm.startswith("text")),
        "nearest text, chosen": best(lambda arm: arm.startswith("nearest text")),
        "near texts, consensus, chosen": best(lambda arm: arm.startswith("near texts, consensus")),
        "pairs, chosen": best(lambda arm: arm == "pairs"),
    }


def scored(
    written: dict[str, list[list[str]]], texts: dict[str, list[str]], test_groups: Sequence[str]
) -> dict[str, Any]:
    """The figures of every arm, means over its seeds, with intervals; the chosen arm against the others."""
    references = [[text] for text in texts["test"]]
    known = TrainTexts.of(texts["train"])
    with CaptionScorer(references, test_groups) as scorer:
        clinical = ClinicalScorer(references, scorer.groups)

        @cache  # captions without a decoder are the same in every seed
        def figures_of(captions: tuple[str, ...]) -> dict[str, Figure]:
            return {**scorer.figures(captions), **clinical.figures(captions)}

        figures = {}
        for name, several in written.items():
            by_seed = [figures_of(tuple(captions)) for captions in several]
            figures[name] = {
                key: combine([one[key] for one in by_seed]) for key in SHOWN if all(key in one for one in by_seed)
            }
        number = scorer.groups.num_groups
        against = ("nearest text, chosen", "constant", "pairs, chosen", "near texts, consensus, chosen")
        return {  # inside the block: METEOR is a process of the scorer, which a bootstrap asks again
            "n": len(references),
            "groups": number,
            "repeats a train text": {
                name: float(np.mean([known.has(text) for captions in several for text in captions]))
                for name, several in written.items()
            },
            "figures": {name: bootstrap(one, number, 500) for name, one in figures.items()},
            "chosen minus": {
                other: bootstrap_difference(figures["chosen"], figures[other], number, 500) for other in against
            },
            "ratio to pairs": bootstrap(ratios(figures["chosen"], figures["pairs, chosen"]), number, 500),
        }


def show(results: dict[str, Any]) -> None:
    """Print what was chosen, the table of all arms, and the differences of the chosen one."""
    shown = [key for key in SHOWN if key in results["figures"]["constant"]]
    for one in results["chosen"]:
        print({name: taken for name, taken in one.items() if isinstance(taken, str)})
    names = " | ".join(key[8:] for key in shown)
    print(f"\n| captions | loss | {names} | repeats % |\n|---|{'---:|' * (len(shown) + 2)}")
    for name, one in results["figures"].items():
        mean = f"{np.mean(results['losses'][name]):.3f}" if name in results["losses"] else "–"
        values = " | ".join(f"{one[key]['value']:.3f}" for key in shown)
        print(f"| {name} | {mean} | {values} | {100 * results['repeats a train text'][name]:.0f} |")
    for other, found in [*results["chosen minus"].items(), ("ratio to pairs", results["ratio to pairs"])]:
        print(f"chosen, {other}: {'; '.join(f'{key[8:]} {span(one)}' for key, one in found.items())}")


def span(figure: dict[str, float | None]) -> str:
    """A value and its interval, which a ratio to a figure that can be 0 has not."""
    low, high = figure["low"], figure["high"]
    interval = "no interval" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return f"{figure['value']:+.3f} {interval}"


def ratios(first: dict[str, Figure], second: dict[str, Figure]) -> dict[str, Figure]:
    return {
        key: combine([first[key], second[key]], lambda parts: parts[0] / parts[1]) for key in first if key in second
    }


if __name__ == "__main__":
    main()

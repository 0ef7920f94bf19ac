"""Scores a file of captions against a manifest, and the baselines that a captioner must beat."""

import base64
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gapless.captioning.caption_files import Line
from gapless.captioning.captioner import IMAGE, TEXT
from gapless.captioning.generation import NOTICE
from gapless.captioning.metrics import CaptionScorer, most_typical
from gapless.captioning.names import KIND, NEAREST, SAMPLES
from gapless.core.errors import DataRefused, UsageError, listed
from gapless.core.files import write_json
from gapless.images.thumbnails import thumbnail
from gapless.inference.embed import embed_dataset
from gapless.inference.pairs import PairDataset
from gapless.manifest.manifest import Manifest
from gapless.metrics.uncertainty import Figure, bootstrap
from gapless.models.aligner import GaplessModel
from gapless.training.evaluate import comparable_rows, describe, versions
from gapless.training.run import TRAIN, all_captions

CONSTANT, RANDOM = "constant caption", "random train caption"
NUM_SAMPLES = 12


@dataclass(frozen=True)
class Judged:
    """Captions in the order of the rows that they are scored on.

    Args:
        rows: of one split.
        captions: one per row.
        references: one or more per row.
        groups: one per row.
    """

    rows: Manifest
    captions: list[str]
    references: list[list[str]]
    groups: list[str]


def judged(lines: Mapping[str, Line], rows: Manifest) -> Judged:
    """The captions in the order of the rows.

    Raises:
        DataRefused: captions without a reference, or rows without a caption; counted, the first ten named.
    """
    ids = rows.table["id"].to_pylist()
    row_ids = set(ids)
    stray = [id for id in lines if id not in row_ids]
    if stray:
        raise DataRefused(f"{len(stray)} captions have no reference in the split ({listed(stray)}); remove them")
    without = [id for id in ids if id not in lines]
    if without:
        raise DataRefused(f"{len(without)} of {len(ids)} rows have no caption ({listed(without)}); generate them first")
    captions = [str(lines[id]["caption"]) for id in ids]
    return Judged(rows, captions, rows.table["captions"].to_pylist(), rows.table["group"].to_pylist())


def score_captions(
    lines: Mapping[str, Line],
    manifest: Manifest,
    split: str = "test",
    judge: GaplessModel | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of a file of captions and of the baselines, in the form of `results.json`.

    Args:
        lines: id -> line of the caption file.
        split: which rows are the references.
        judge: an aligner, for the nearest train image and for the retrieval of images by captions. Without one these
            figures are missing.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers.
        seed: of the bootstrap and of the random caption.
    """
    if judge is not None:
        _check_judge(judge)
    task = judged(lines, comparable_rows(manifest, split))
    systems = {"captions": task.captions}
    missing: dict[str, str] = {}
    images: dict[str, Tensor] = {}
    if judge is None:
        missing["caption/retrieval"] = "needs an image and text encoder (--judge)"
    else:
        images = {name: image_rows(judge, manifest, name) for name in {split, TRAIN} & manifest.rows_per_split().keys()}
    systems |= baselines(task, manifest, images, split, seed)
    missing |= {f"baseline {name}": why for name, why in _missing_baselines(systems, manifest, split).items()}
    with CaptionScorer(task.references, task.groups, task.rows.table["id"].to_pylist()) as scorer:
        figures = {}
        for name, captions in systems.items():
            embeddings = {"caption": caption_rows(judge, captions), "image": images[split]} if judge else None
            scores = scorer.figures(captions, embeddings)
            figures[name] = _with_intervals(scores, scorer.groups.num_groups, num_bootstrap, seed)
        missing |= scorer.missing
        tokenizer = scorer.tokenizer
    return {
        "kind": KIND,
        "n": len(task.captions),
        "gallery_size": len(task.captions),
        "split": split,
        "figures": figures.pop("captions"),
        "baselines": figures,
        "tokenizer": tokenizer,
        "missing": missing,
        "scoring": {"num_bootstrap": num_bootstrap, "seed": seed},
        "notice": NOTICE,
        "versions": {**versions(), "pycocoevalcap": version("pycocoevalcap")},
        "data": describe(manifest, split),
    }


def _check_judge(judge: GaplessModel) -> None:
    """Raise UsageError for a model that does not embed images and texts; vectors may have modalities of these names."""
    kinds = {name: spec.input.kind for name, spec in judge.specs.items()}
    if (kinds.get(IMAGE), kinds.get(TEXT)) != ("image", "text"):
        inputs = ", ".join(name if name == kind else f"{name} as {kind}" for name, kind in kinds.items())
        raise UsageError(f"a judge embeds images and texts, this model takes {inputs}; give another one with --judge")


def _with_intervals(found: Mapping[str, Figure], num_groups: int, num_bootstrap: int, seed: int) -> dict[str, Any]:
    plain = {key: figure.value for key, figure in found.items()}
    return plain | (bootstrap(found, num_groups, num_bootstrap, seed) if num_bootstrap else {})


def image_rows(judge: GaplessModel, manifest: Manifest, split: str) -> Tensor:
    """[row, dim]: the images of a split in the judge's space."""
    dataset = PairDataset(manifest.select(split), {IMAGE: judge.preprocessor(IMAGE)})
    return embed_dataset(judge, dataset, modalities=(IMAGE,), progress=f"embed {split}")[IMAGE]


def caption_rows(judge: GaplessModel, captions: Sequence[str]) -> Tensor:
    """[row, dim]: captions in the judge's space; an empty caption is embedded as a full stop."""
    texts = [caption if caption.strip() else "." for caption in captions]
    distinct = sorted(set(texts))
    place = {text: row for row, text in enumerate(distinct)}
    return judge.encode(TEXT, distinct)[torch.tensor([place[text] for text in texts])]


def baselines(
    task: Judged, manifest: Manifest, images: Mapping[str, Tensor], split: str, seed: int
) -> dict[str, list[str]]:
    """Baselines by name: the caption of the nearest train image, one typical caption, random captions.

    There are none for train rows, whose nearest train image is their own, and its caption the reference.
    """
    if split == TRAIN or TRAIN not in manifest.rows_per_split():
        return {}
    train = manifest.select(TRAIN)
    pool = all_captions(train)
    draw = random.Random(seed)
    answers = {CONSTANT: [most_typical(pool)] * len(task.captions), RANDOM: [draw.choice(pool) for _ in task.captions]}
    if TRAIN in images:
        nearest = (images[split] @ images[TRAIN].T).argmax(dim=1).tolist()
        captions = train.first_captions
        answers[NEAREST] = [captions[row] for row in nearest]
    return answers


def _missing_baselines(systems: Mapping[str, Any], manifest: Manifest, split: str) -> dict[str, str]:
    if split == TRAIN:
        why = f"needs {TRAIN} captions that are not the references"
    elif TRAIN not in manifest.rows_per_split():
        why = f"needs {TRAIN} rows"
    else:
        why = "needs an image encoder (--judge)"
    return {name: why for name in (NEAREST, CONSTANT, RANDOM) if name not in systems}


def samples_of(lines: Mapping[str, Line], rows: Manifest, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with thumbnails for the report: drawn at random, the same for every captioner of one split."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    ids = rows.table["id"].to_pylist()
    references = rows.table["captions"].to_pylist()
    samples = []
    for row in sorted(order[:NUM_SAMPLES]):
        picture = thumbnail(rows.image_path(row))
        samples.append(
            {
                "id": ids[row],
                "references": references[row],
                "caption": lines[ids[row]]["caption"],
                "score": lines[ids[row]].get("score"),
                "image": None if picture is None else base64.b64encode(picture).decode(),
            }
        )
    return samples


def write_scores(out: Path, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `samples.json`, which `gapless report` reads."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SAMPLES, {"notice": NOTICE, "samples": list(samples)})
    write_json(out / "results.json", results)

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
from gapless.captioning.clinical import ClinicalScorer, Errors
from gapless.captioning.generation import NOTICE
from gapless.captioning.labellers.base import Labeller
from gapless.captioning.metrics import CaptionScorer, most_typical
from gapless.captioning.names import KIND, NEAREST, SAMPLES
from gapless.captioning.route import IMAGE, TEXT, Route, joined, left_out, texts_of, usable_rows
from gapless.core.errors import DataRefused, UsageError, listed
from gapless.core.files import write_json
from gapless.images.thumbnails import thumbnail
from gapless.inference.embed import embed_dataset
from gapless.inference.pairs import PairDataset
from gapless.manifest.manifest import TRAIN, Manifest
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.uncertainty import Figure, GroupSums, bootstrap
from gapless.models.aligner import GaplessModel, text_modalities
from gapless.training.evaluate import comparable_rows, describe, versions

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


def judged(lines: Mapping[str, Line], rows: Manifest, split_ids: Sequence[str], target: str = TEXT) -> Judged:
    """The captions in the order of the rows.

    Args:
        lines: id -> line of the caption file.
        rows: those that are scored, each with a text of the target.
        split_ids: of all rows of the split; a caption of one that is not scored counts for nothing.
        target: the modality whose texts are the references.

    Raises:
        DataRefused: captions without a reference, or rows without a caption; counted, the first ten named.
    """
    ids = rows.table["id"].to_pylist()
    known = set(split_ids)
    stray = [id for id in lines if id not in known]
    if stray:
        raise DataRefused(f"{len(stray)} captions have no reference in the split ({listed(stray)}); remove them")
    without = [id for id in ids if id not in lines]
    if without:
        raise DataRefused(f"{len(without)} of {len(ids)} rows have no caption ({listed(without)}); generate them first")
    captions = [str(lines[id]["caption"]) for id in ids]
    references = [views or [] for views in rows.cells(target)]
    return Judged(rows, captions, references, rows.table["group"].to_pylist())


def scored_rows(manifest: Manifest, split: str, route: Route) -> tuple[Manifest, str]:
    """The rows of a split that have the target and a source, and a sentence on the others.

    Raises:
        UsageError: no such split. DataRefused: fewer than two.
    """
    rows = comparable_rows(manifest, split)
    chosen, counts = usable_rows(rows, route)
    if len(chosen) < MIN_ROWS:
        raise DataRefused(
            f"{len(chosen)} of {len(rows):,} {split} rows of {manifest.path} have {route.target} and one of "
            f"{route.names}, and scores compare at least {MIN_ROWS} rows; choose other modalities with --from and --to"
        )
    return chosen, left_out(counts, route, len(rows), f"{split} rows")


def score_captions(
    lines: Mapping[str, Line],
    manifest: Manifest,
    split: str = "test",
    judge: GaplessModel | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    route: Route | None = None,
    own_findings: Path | None = None,
    labellers: Mapping[str, Labeller] | None = None,
) -> dict[str, Any]:
    """Every score of a file of captions and of the baselines, in the form of `results.json`.

    Args:
        lines: id -> line of the caption file.
        split: which rows are the references.
        judge: an aligner, for the nearest train image and for the retrieval of images by captions. Without one these
            figures are missing.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers.
        seed: of the bootstrap and of the random caption.
        route: what the captions were made from, and the modality of the references; by default image and text. Rows
            that lack the references or every source count for nothing.
        own_findings: a file that adds findings to the vocabulary.
        labellers: name -> a further reader of findings, whose scores are `caption/<name>/...`.
    """
    route = route or Route()
    if judge is not None:
        _check_judge(judge, route, manifest)
    rows, _ = scored_rows(manifest, split, route)
    task = judged(lines, rows, manifest.select(split).table["id"].to_pylist(), route.target)
    parts = {split: rows}
    if split != TRAIN and TRAIN in manifest.rows_per_split():
        train = usable_rows(manifest.select(TRAIN), route)[0]
        parts |= {TRAIN: train} if len(train) else {}
    systems = {"captions": task.captions}
    missing: dict[str, str] = {}
    sources: dict[str, Tensor] = {}
    reads_target = judge is not None and route.target in text_modalities(judge.config)
    if judge is None:
        missing["caption/retrieval"] = "needs an image and text encoder (--judge)"
    else:
        sources = {name: source_rows(judge, part, route, f"embed {name}") for name, part in parts.items()}
        if not reads_target:
            missing["caption/retrieval"] = f"needs a judge that embeds {route.target} (--judge)"
    systems |= baselines(task, parts.get(TRAIN), sources, split, seed, route.target)
    missing |= {f"baseline {name}": why for name, why in _missing_baselines(systems, parts, split).items()}
    with CaptionScorer(task.references, task.groups, task.rows.table["id"].to_pylist()) as scorer:
        figures = {}
        clinical = ClinicalScorer(task.references, scorer.groups, own_findings, labellers)
        for name, captions in systems.items():
            embeddings = None
            if judge is not None and reads_target:
                embeddings = {"caption": caption_rows(judge, captions, route.target), "image": sources[split]}
            scores = scorer.figures(captions, embeddings) | clinical.figures(captions)
            missing |= clinical.missing(scores) if name == "captions" else {}
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


def _check_judge(judge: GaplessModel, route: Route, manifest: Manifest) -> None:
    """Raise UsageError for a model that does not embed what captions are made from, as the manifest has it.

    Vectors may have modalities of the same names.
    """
    kinds = {name: spec.input.kind for name, spec in judge.specs.items()}
    inputs = ", ".join(name if name == kind else f"{name} as {kind}" for name, kind in kinds.items())
    if route.is_usual:
        if (kinds.get(IMAGE), kinds.get(TEXT)) != ("image", "text"):
            raise UsageError(
                f"a judge embeds images and texts, this model takes {inputs}; give another one with --judge"
            )
        return
    for name in route.sources:
        kind = manifest.spec(name).kind
        if kinds.get(name) != kind:
            raise UsageError(
                f"a judge embeds {name} of the kind {kind}, this model takes {inputs}; give another one with --judge"
            )


def _with_intervals(found: Mapping[str, Figure], num_groups: int, num_bootstrap: int, seed: int) -> dict[str, Any]:
    plain = {key: figure.value for key, figure in found.items()}
    return plain | (bootstrap(found, num_groups, num_bootstrap, seed) if num_bootstrap else {})


def source_rows(judge: GaplessModel, rows: Manifest, route: Route, progress: str | None = None) -> Tensor:
    """[row, dim]: what captions are made from, in the judge's space."""
    names = tuple(route.sources)
    dataset = PairDataset(rows, {name: judge.preprocessor(name) for name in names})
    embedded = embed_dataset(judge, dataset, modalities=names, num_workers=None, progress=progress)
    return joined({name: matrix.nan_to_num(0.0) for name, matrix in embedded.items()}, route.sources)


def caption_rows(judge: GaplessModel, captions: Sequence[str], target: str = TEXT) -> Tensor:
    """[row, dim]: captions in the judge's space; an empty caption is embedded as a full stop."""
    texts = [caption if caption.strip() else "." for caption in captions]
    distinct = sorted(set(texts))
    place = {text: row for row, text in enumerate(distinct)}
    return judge.encode(target, distinct)[torch.tensor([place[text] for text in texts])]


def baselines(
    task: Judged, train: Manifest | None, sources: Mapping[str, Tensor], split: str, seed: int, target: str = TEXT
) -> dict[str, list[str]]:
    """Baselines by name: the caption of the nearest train row, one typical caption, random captions.

    There are none for train rows, whose nearest train row is their own, and its caption the reference.

    Args:
        train: the train rows with a text of the target and a source, or None.
        sources: split -> [row, dim] what captions are made from; empty without a judge.
    """
    if split == TRAIN or train is None:
        return {}
    pool = texts_of(train, target)
    draw = random.Random(seed)
    answers = {CONSTANT: [most_typical(pool)] * len(task.captions), RANDOM: [draw.choice(pool) for _ in task.captions]}
    if TRAIN in sources:
        nearest = (sources[split] @ sources[TRAIN].T).argmax(dim=1).tolist()
        captions = [str((views or [""])[0]) for views in train.cells(target)]
        answers[NEAREST] = [captions[row] for row in nearest]
    return answers


def _missing_baselines(systems: Mapping[str, Any], parts: Mapping[str, Manifest], split: str) -> dict[str, str]:
    if split == TRAIN:
        why = f"needs {TRAIN} captions that are not the references"
    elif TRAIN not in parts:
        why = f"needs {TRAIN} rows"
    else:
        why = "needs an image encoder (--judge)"
    return {name: why for name in (NEAREST, CONSTANT, RANDOM) if name not in systems}


def samples_of(lines: Mapping[str, Line], rows: Manifest, seed: int = 0, target: str = TEXT) -> list[dict[str, Any]]:
    """Rows with thumbnails for the report: drawn at random, the same for every captioner of one split."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return _with_thumbnails(lines, rows, sorted(order[:NUM_SAMPLES]), target)


def worst_of(
    lines: Mapping[str, Line], rows: Manifest, target: str = TEXT, own_findings: Path | None = None
) -> list[dict[str, Any]]:
    """The rows whose captions are worst in their findings: least F1, then most wrong findings; each with its `errors`.

    Rows where neither caption nor reference names a finding are not among them.
    """
    references = [views or [] for views in rows.cells(target)]
    captions = [str(lines[id]["caption"]) for id in rows.table["id"].to_pylist()]
    groups = GroupSums(torch.arange(len(rows)), len(rows))
    errors = ClinicalScorer(references, groups, own_findings).errors(captions)
    wrong = [row for row, one in enumerate(errors) if one.f1 is not None and one.num_wrong]
    chosen = sorted(wrong, key=lambda row: _how_bad(errors[row]))[:NUM_SAMPLES]
    samples = _with_thumbnails(lines, rows, chosen, target)
    return [{**sample, "errors": errors[row].sentence()} for sample, row in zip(samples, chosen, strict=True)]


def _how_bad(one: Errors) -> tuple[float, int]:
    return (one.f1 or 0.0, -one.num_wrong)


def _with_thumbnails(
    lines: Mapping[str, Line], rows: Manifest, chosen: Sequence[int], target: str
) -> list[dict[str, Any]]:
    """Samples of rows; a row without an image has none."""
    ids = rows.table["id"].to_pylist()
    references = rows.cells(target)
    has_image = rows.presence([IMAGE])[IMAGE] if IMAGE in rows.modalities else [False] * len(rows)
    samples = []
    for row in chosen:
        picture = thumbnail(rows.image_path(row)) if has_image[row] else None
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


def write_scores(
    out: Path,
    results: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `results.json` and `samples.json`, which `gapless report` reads."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SAMPLES, {"notice": NOTICE, "samples": list(samples), "worst": list(worst)})
    write_json(out / "results.json", results)

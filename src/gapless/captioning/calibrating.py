"""`gapless caption calibrate` as one call: how sure a captioner may be, from rows that it did not learn."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapless.captioning.caption_files import generate_lines
from gapless.captioning.clinical import ClinicalScorer
from gapless.captioning.confidence import LEVEL, fit_confidence, is_right, reliability
from gapless.captioning.data import sources_of
from gapless.captioning.finding_terms import vocabulary
from gapless.captioning.generation import NOTICE, GenerationSettings
from gapless.captioning.route import check_manifest
from gapless.captioning.runs import load_captioner, model_directory
from gapless.captioning.scores import scored_rows
from gapless.captioning.voting import near_texts_of
from gapless.core.errors import UsageError
from gapless.core.results import Result
from gapless.manifest.manifest import TRAIN, VALIDATION, Manifest
from gapless.metrics.inputs import group_index
from gapless.metrics.uncertainty import GroupSums


@dataclass(frozen=True)
class CalibratedCaptions(Result):
    """A calibrated captioner.

    Args:
        model: the model directory, which has `confidence.json` now.
        n, groups: captions and groups that it was fitted on.
        right: share of them that are right.
        threshold: below it `caption generate --abstain true` does not know; above 1 where it would never answer.
        answered: share of the captions at or above the threshold.
        reliability: of confidences by fits without the caption's own group.
        notice: what captions must not be used for.
    """

    model: Path
    n: int
    groups: int
    right: float
    threshold: float
    answered: float
    reliability: Mapping[str, Any]
    notice: str = NOTICE


def calibrate_captions(
    model: str | Path,
    *,
    data: str | Path | Manifest,
    split: str = VALIDATION,
    level: float = LEVEL,
    least_right: float = 0.8,
    settings: GenerationSettings | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    findings: str | Path | None = None,
) -> CalibratedCaptions:
    """Caption rows that the captioner did not learn, and fit how often it is right; writes `confidence.json`.

    Example:
        >>> from gapless.captioning import calibrate_captions
        >>> calibrate_captions("captioner", data="data").threshold                           # doctest: +SKIP

    Args:
        model: caption run or model directory.
        data: the manifest with the references, or its directory.
        split: rows that were not learnt.
        level: a caption is right where the F1 of its findings is at least this; see `confidence`.
        least_right: the share of right captions among those at or above the threshold.
        settings: how a caption is chosen; the confidence is of these settings alone.
        batch_size, workers: as in `caption`.
        findings: a file that adds findings to the vocabulary.

    Raises:
        UsageError: the train rows, no captioner, a level or share outside (0, 1].
        DataRefused: too few rows or groups, or captions that are all right or all wrong.
    """
    own = None if findings is None else Path(findings)
    vocabulary(own)  # a file of another form is refused before a model is loaded
    if split == TRAIN:
        raise UsageError(f"a captioner knows its {TRAIN} rows, which would make it too sure; give another --split")
    path, manifest, settings = Path(model), Manifest.of(data), settings or GenerationSettings()
    captioner = load_captioner(path)
    route = captioner.route
    check_manifest(route, manifest)
    rows, _ = scored_rows(manifest, split, route)
    near = near_texts_of(captioner, settings, manifest)
    dataset = sources_of(captioner, rows)
    batches = generate_lines(captioner, dataset, settings, batch_size, workers, "caption", near=near)
    lines = [line for batch in batches for line in batch]
    captions = [line["caption"] for line in lines]
    groups = rows.table["group"].to_pylist()
    index = group_index(groups, len(rows))
    references = [views or [] for views in rows.cells(route.target)]
    errors = ClinicalScorer(references, GroupSums(index, int(index.max()) + 1), own).errors(captions)
    right = [is_right(one, level) for one in errors]
    scores = [line["score"] for line in lines]
    made, held_out = fit_confidence(
        scores, captions, right, groups, level=level, least_right=least_right, settings=asdict(settings), split=split
    )
    made.write(model_directory(path))
    share = float(np.mean(held_out >= made.threshold))
    return CalibratedCaptions(
        model_directory(path),
        made.n,
        made.groups,
        round(sum(right) / len(right), 4),
        round(made.threshold, 4),
        round(share, 4),
        reliability(held_out.tolist(), right),
    )


def reliability_of(
    lines: Mapping[str, Mapping[str, Any]], references: Mapping[str, list[str]], level: float, own: Path | None
) -> dict[str, Any] | None:
    """The reliability of the confidences of a caption file; None where no line with a caption has one.

    Args:
        lines: id -> line.
        references: id -> texts, of the rows that are scored.
        level: from which F1 of the findings on a caption is right.
        own: a user's own vocabulary file.
    """
    told = [
        id
        for id in references
        if isinstance(lines[id].get("confidence"), int | float) and not lines[id].get("does_not_know")
    ]
    if not told:
        return None
    scorer = ClinicalScorer([references[id] for id in told], GroupSums(torch.arange(len(told)), len(told)), own)
    errors = scorer.errors([str(lines[id]["caption"]) for id in told])
    right = [is_right(one, level) for one in errors]
    unknown = sum(bool(lines[id].get("does_not_know")) for id in references)
    found = reliability([float(lines[id]["confidence"]) for id in told], right)
    return {"level": level, "right": round(sum(right) / len(right), 4), "does_not_know": unknown, **found}

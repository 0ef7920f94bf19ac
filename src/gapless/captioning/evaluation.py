"""`gapless caption evaluate` as one call: the scores of captions against a manifest, with baselines beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.captioning.calibrating import reliability_of
from gapless.captioning.caption_files import check_made_from, how_made, read_captions
from gapless.captioning.confidence import LEVEL
from gapless.captioning.finding_terms import vocabulary
from gapless.captioning.labellers.base import load_labellers
from gapless.captioning.names import KIND, OWN_ENCODERS
from gapless.captioning.route import Route, check_manifest, route_of
from gapless.captioning.runs import about_run, captions_of, is_captioner, load_captioner
from gapless.captioning.scores import samples_of, score_captions, scored_rows, worst_of, write_scores
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel
from gapless.models.load import load_model
from gapless.training.evaluate import refuse_other_figures


@dataclass(frozen=True)
class CaptionScores(Result):
    """Every score of a set of captions, in the form of `results.json`.

    Args:
        kind: "captions", which tells these figures from those of an aligner.
        n: captions. gallery_size: images that each caption is to find its own among.
        split: which rows are the references.
        figures: `caption/...` -> number, or `{"value", "low", "high"}` with its 95 % interval; higher is better.
        baselines: nearest train caption, one constant caption, random train captions -> their figures.
        tokenizer: that of the scores: "PTB", or "words" where there is no Java.
        missing: figure or baseline -> why it is not there.
        scoring: resamples and seed.
        notice: what the captions must not be used for.
        versions: of the packages.
        data: source, fingerprint, rows of each split, groups, and what leaks from train.
        about: facts on the captioner: name, seed, mode, aligner and budget of a run, settings of the generation, judge;
            `from` and `to` where they are not the image and the text, `left_out` where rows are not scored,
            `reliability` where the captions have a confidence.
        notes: the latter as a sentence.
    """

    kind: str
    n: int
    gallery_size: int
    split: str
    figures: Mapping[str, Any]
    baselines: Mapping[str, Any]
    tokenizer: str
    missing: Mapping[str, str]
    scoring: Mapping[str, int]
    notice: str
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What `results.json` holds: the scores, and the entries of `about` beside them."""
        values = {name: value for name, value in super().as_json().items() if name != "about"}
        return {**values, **self.about}


def evaluate_captions(
    source: str | Path,
    *,
    data: str | Path | Manifest,
    split: str = "test",
    judge: str | Path | None = None,
    out: str | Path | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    sources: str | Sequence[str] | Mapping[str, float] | None = None,
    target: str | None = None,
    findings: str | Path | None = None,
    labellers: Mapping[str, str | Path] | None = None,
) -> CaptionScores:
    """Score captions; writes `results.json` and some samples into the run, or into `out`.

    Examples:
        >>> import gapless
        >>> captions = gapless.caption("captioner", data="data")
        >>> scores = gapless.evaluate_captions("captioner", data="data", num_bootstrap=0)
        >>> scores.n == captions.captions, sorted(scores.baselines)
        (True, ['constant caption', 'nearest train caption', 'random train caption'])

    Args:
        source: caption run with generated captions, or a JSONL with `id` and `caption`.
        data: the manifest with the references, or its directory.
        split: which rows are the references.
        judge: the model for the figures that need encoders; by default the run's own.
        out: directory to write; by default the run, and nowhere for a JSONL.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers.
        seed: of the bootstrap and of the random baseline.
        sources: the modalities that the captions were made from, for the nearest train row and the retrieval; by
            default those that the captions' file names, else the image.
        target: the modality of the references; by default the one that the captions' file names, else the text.
        findings: a file that adds findings to the vocabulary of the clinical scores.
        labellers: name of a labeller of findings (`chexbert`, `radgraph`) -> the directory of its weights.

    Raises:
        UsageError: no captions or judge there, other figures in `out`, a modality that the manifest has not.
        DataRefused: rows without a caption, captions without a row, captions of other data.
    """
    own_findings = None if findings is None else Path(findings)
    vocabulary(own_findings)  # a file of another form is refused before anything is read or loaded
    readers = load_labellers(labellers or {})
    path, manifest = Path(source), Manifest.of(data)
    is_run = path.is_dir()
    captions = captions_of(path, split) if is_run else path
    lines = read_captions(captions)
    check_made_from(captions, manifest.fingerprint, split)
    route = route_of(sources, target, Route.of_json(how_made(captions)))
    check_manifest(route, manifest)
    rows, sentence = scored_rows(manifest, split, route)
    place = Path(out) if out is not None else path if is_run else None
    if place is not None:
        refuse_other_figures(place, split, manifest.fingerprint, KIND)
    model = _load_judge(judge if judge is not None else path if is_run else None)
    named = str(judge) if judge is not None else OWN_ENCODERS if is_run else None
    about = {**about_run(path), **_about_file(captions), "judge": named, **route.as_json()}
    if sentence:
        about["left_out"] = len(manifest.select(split)) - len(rows)
    level = (how_made(captions).get("confidence") or {}).get("level", LEVEL)
    texts = {id: views or [] for id, views in zip(rows.table["id"].to_pylist(), rows.cells(route.target), strict=True)}
    found = score_captions(lines, manifest, split, model, num_bootstrap, seed, route, own_findings, readers)
    curve = reliability_of(lines, texts, level, own_findings)
    about |= {} if curve is None else {"reliability": curve}
    scores = CaptionScores(**found, about=about, notes=(sentence,) if sentence else ())
    if place is not None:
        worst = worst_of(lines, rows, route.target, own_findings)
        write_scores(place, scores.as_json(), samples_of(lines, rows, target=route.target), worst)
    return scores


def _load_judge(source: str | Path | None) -> GaplessModel | None:
    """The judge of a name: an aligner, or the aligner inside a captioner; None for no name."""
    if source is None:
        return None
    if is_captioner(Path(source)):
        aligner: GaplessModel = load_captioner(Path(source)).aligner
        return aligner
    return load_model([source])


def _about_file(captions: Path) -> dict[str, Any]:
    """How a caption file was generated, from the JSON file beside it; empty without one."""
    made = how_made(captions)
    model = made.get("model")
    parts = {"settings": made.get("settings"), "model": model.get("fingerprint") if isinstance(model, dict) else None}
    present = {name: value for name, value in parts.items() if value is not None}
    return {"generation": present} if present else {}

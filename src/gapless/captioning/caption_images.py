"""`gapless caption generate` as one call: captions the rows of a split, or image files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.captioning.caption_files import (
    ImageFiles,
    Line,
    generate_lines,
    read_captions,
    readable,
    write_captions,
)
from gapless.captioning.captioner import Captioner, check_sources
from gapless.captioning.consensus import NearTexts
from gapless.captioning.data import sources_of
from gapless.captioning.generation import NOTICE, GenerationSettings
from gapless.captioning.route import IMAGE, Route, check_manifest, left_out, route_of, usable_rows
from gapless.captioning.runs import captions_of, load_captioner, model_directory, trained_route
from gapless.captioning.trust import Trust, trust_of
from gapless.captioning.voting import near_texts_of
from gapless.core.errors import DataRefused, UsageError, listed
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.models.fingerprint import weights_digest

SHOWN = 3


@dataclass(frozen=True)
class Captions(Result):
    """Generated captions.

    Args:
        captions: how many.
        out: the JSONL file that holds them, or None.
        lines: the first three lines for a manifest, all of them for image files. Each has `id`, `caption`, `score`
            (mean log-probability of a token), `method` and `notice`; from other modalities than the image, or to
            another text, also `from`, what its row has, and `to`.
        unreadable: image file -> why it could not be captioned.
        notice: what the captions must not be used for.
        left_out: rows of the split that have nothing to be captioned from; in the JSON where there are any.
        notes: the same as a sentence.
    """

    captions: int
    out: Path | None
    lines: Sequence[Line]
    unreadable: Mapping[str, str]
    notice: str = NOTICE
    left_out: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What `gapless caption generate --json` prints."""
        return {name: value for name, value in super().as_json().items() if name != "left_out" or value}

    def refuse_unreadable(self) -> None:
        """Raise where images could not be read; the others are captioned.

        Raises:
            DataRefused: counted, the first ten named with the reason.
        """
        if self.unreadable:
            reasons = listed([f"{name}: {why}" for name, why in self.unreadable.items()])
            count = len(self.unreadable)
            raise DataRefused(f"{count} of {self.captions + count} images cannot be read ({reasons})")


def caption(
    model: str | Path,
    *,
    data: str | Path | Manifest | None = None,
    split: str = "test",
    images: Sequence[str | Path] = (),
    out: str | Path | None = None,
    settings: GenerationSettings | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    sources: str | Sequence[str] | Mapping[str, float] | None = None,
    target: str | None = None,
    nearest: int = 0,
    abstain: bool = False,
) -> Captions:
    """Caption the rows of a split, or single image files; an unfinished file is continued.

    Examples:
        >>> import gapless
        >>> captions = gapless.caption("captioner", images=["chest.png"])
        >>> captions.lines[0]["id"], captions.notice
        ('chest.png', 'Research use, not for diagnosis.')

    Args:
        model: caption run or model directory.
        data: the manifest, or its directory; or give `images`.
        split: which rows of the manifest.
        images: image files in place of a manifest.
        out: JSONL to write; by default in the run where the rows are those of a manifest, else nowhere.
        settings: how a caption is chosen; by default beam search.
        batch_size: images that the model reads at once.
        workers: processes that read images; by default none beside a CPU, and beside an accelerator a core each.
        sources: modalities that a row is captioned from, with weights or without (`"image=2,history"`), in place of
            those that the captioner was trained with; a row that lacks some is captioned from the others.
        target: the text that is written; it must be the one that the captioner learnt.
        nearest: training texts to show beside each caption, with their cosines to what it was made from; those that
            the captioner stored, else those of the manifest's train rows.
        abstain: leave captions empty whose calibrated confidence is below the threshold, and mark them `does_not_know`.

    Raises:
        UsageError: both or neither of `data` and `images`, no finished model, `out` holds something else, a modality
            that the manifest or the model has not.
        DataRefused: a damaged model or manifest, no row with one of the sources.
    """
    if (data is None) == (not images):
        raise UsageError("give either --data MANIFEST or --image FILE...")
    settings = settings or GenerationSettings()
    path, place = Path(model), None if out is None else Path(out)
    learnt = trained_route(path)
    route = route_of(sources, target, learnt)
    if route.target != learnt.target:
        raise UsageError(f"{path} writes {learnt.target}; train a captioner with --to {route.target}")
    if data is None:
        if IMAGE not in route.sources:
            raise UsageError(f"{path} captions from {route.names}, not from image files; give a manifest with --data")
        captioner = _captioner_of(path, route, learnt)
        near = near_texts_of(captioner, settings, None)
        trust = trust_of(captioner, model_directory(path), settings, nearest, abstain, None, near.texts if near else ())
        files = [Path(image) for image in images]
        return _of_files(captioner, files, place, settings, path, batch_size, workers, trust, near)
    manifest = Manifest.of(data)
    selected = manifest.select(split)
    check_manifest(route, manifest, needs_target=False)
    rows, counts = usable_rows(selected, route, needs_target=False)
    if not len(rows):
        raise DataRefused(f"none of the {len(selected):,} {split} rows of {manifest.path} has {route.names}")
    if place is None and not (path / "config.yaml").exists():
        raise UsageError(f"{path} is a model directory, not a run; say where to write with --out")
    place = place or captions_of(path, split)
    captioner = _captioner_of(path, route, learnt)
    described = {"source": manifest.info["source"], "fingerprint": manifest.fingerprint, "split": split}
    about = {**_about(path, captioner), "data": described, **route.as_json()}
    near = near_texts_of(captioner, settings, manifest)
    trust = trust_of(captioner, model_directory(path), settings, nearest, abstain, manifest, near.texts if near else ())
    write_captions(captioner, sources_of(captioner, rows), place, settings, about, batch_size, workers, trust, near)
    sentence = left_out(counts, route, len(selected), f"{split} rows")
    notes = (sentence,) if sentence else ()
    lines = list(read_captions(place).values())
    return Captions(len(lines), place, lines[:SHOWN], {}, left_out=len(selected) - len(rows), notes=notes)


def _captioner_of(path: Path, route: Route, learnt: Route) -> Captioner:
    """The captioner, with these sources.

    Raises:
        UsageError: its model does not embed them, or it attends to the patches of what it was trained with.
    """
    captioner = load_captioner(path)
    check_sources(route, captioner.aligner)
    if captioner.config.num_patches and set(route.sources) != set(learnt.sources):
        raise UsageError(
            f"{path} attends to the patches of {learnt.names}, which {route.names} has not; train a captioner with "
            "--use_patches false"
        )
    captioner.route = route
    return captioner


def _about(path: Path, captioner: Captioner) -> dict[str, Any]:
    """What the file beside the captions says of the model."""
    return {"model": {"source": str(path), "fingerprint": _fingerprint_of(captioner)}}


def _of_files(
    model: Captioner,
    images: Sequence[Path],
    out: Path | None,
    settings: GenerationSettings,
    path: Path,
    batch_size: int,
    workers: int | None,
    trust: Trust,
    near: NearTexts | None,
) -> Captions:
    twice = sorted({str(path) for path in images if images.count(path) > 1})
    if twice:
        raise UsageError(f"--image names a file more than once ({listed(twice)})")
    good, unreadable = readable(images)
    if not good:
        return Captions(0, None, [], unreadable)
    dataset = ImageFiles(good, model)
    if out is None:
        batches = generate_lines(model, dataset, settings, batch_size, workers, "caption", trust, near)
        lines = [line for batch in batches for line in batch]
    else:
        about = {**_about(path, model), "data": {"images": dataset.described()}, **model.route.as_json()}
        write_captions(model, dataset, out, settings, about, batch_size, workers, trust, near)
        lines = list(read_captions(out).values())
    return Captions(len(lines), out, lines, unreadable)


def _fingerprint_of(model: Captioner) -> str:
    config = model.config
    return weights_digest(
        [config.aligner_spec["modalities"], config.decoder_spec, config.max_tokens], model.state_dict()
    )

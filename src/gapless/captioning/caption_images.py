"""`gapless caption generate` as one call: captions the rows of a split, or image files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.captioning.caption_files import (
    ImageFiles,
    Line,
    generate_lines,
    images_of,
    read_captions,
    readable,
    write_captions,
)
from gapless.captioning.captioner import Captioner
from gapless.captioning.generation import NOTICE, GenerationSettings
from gapless.captioning.runs import captions_of, load_captioner
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
            (mean log-probability of a token), `method` and `notice`.
        unreadable: image file -> why it could not be captioned.
        notice: what the captions must not be used for.
    """

    captions: int
    out: Path | None
    lines: Sequence[Line]
    unreadable: Mapping[str, str]
    notice: str = NOTICE

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
    workers: int = 0,
) -> Captions:
    """Caption the images of a split, or single image files; an unfinished file is continued.

    Example:
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
        workers: processes that read images.

    Raises:
        UsageError: both or neither of `data` and `images`, no finished model, `out` holds something else.
        DataRefused: a damaged model or manifest.
    """
    if (data is None) == (not images):
        raise UsageError("give either --data MANIFEST or --image FILE...")
    settings = settings or GenerationSettings()
    path, place = Path(model), None if out is None else Path(out)
    captioner = load_captioner(path)
    about = {"model": {"source": str(path), "fingerprint": _fingerprint_of(captioner)}}
    if data is None:
        return _of_files(captioner, [Path(image) for image in images], place, settings, about, batch_size, workers)
    manifest = Manifest.of(data)
    rows = manifest.select(split)
    if place is None and not (path / "config.yaml").exists():
        raise UsageError(f"{path} is a model directory, not a run; say where to write with --out")
    place = place or captions_of(path, split)
    described = {"source": manifest.info["source"], "fingerprint": manifest.fingerprint, "split": split}
    write_captions(
        captioner, images_of(captioner, rows), place, settings, {**about, "data": described}, batch_size, workers
    )
    lines = list(read_captions(place).values())
    return Captions(len(lines), place, lines[:SHOWN], {})


def _of_files(
    model: Captioner,
    images: Sequence[Path],
    out: Path | None,
    settings: GenerationSettings,
    about: Mapping[str, Any],
    batch_size: int,
    workers: int,
) -> Captions:
    twice = sorted({str(path) for path in images if images.count(path) > 1})
    if twice:
        raise UsageError(f"--image names a file more than once ({listed(twice)})")
    good, unreadable = readable(images)
    if not good:
        return Captions(0, None, [], unreadable)
    dataset = ImageFiles(good, model)
    if out is None:
        batches = generate_lines(model, dataset, settings, batch_size, workers, "caption")
        lines = [line for batch in batches for line in batch]
    else:
        described = {"images": dataset.described()}
        write_captions(model, dataset, out, settings, {**about, "data": described}, batch_size, workers)
        lines = list(read_captions(out).values())
    return Captions(len(lines), out, lines, unreadable)


def _fingerprint_of(model: Captioner) -> str:
    config = model.config
    return weights_digest(
        [config.aligner_spec["modalities"], config.decoder_spec, config.max_tokens], model.state_dict()
    )

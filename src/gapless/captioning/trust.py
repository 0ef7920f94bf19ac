"""What a line of captions says beside the caption: whether it repeats a training text, its confidence, near texts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gapless.captioning.captioner import Captioner
from gapless.captioning.confidence import Confidence
from gapless.captioning.generation import GenerationSettings, with_new_settings
from gapless.captioning.route import texts_of, usable_rows
from gapless.captioning.train_texts import TrainTexts
from gapless.core.errors import UsageError
from gapless.manifest.manifest import TRAIN, Manifest
from gapless.models.aligner import text_modalities


@dataclass(frozen=True)
class Trust:
    """What is added to the lines of captions.

    Args:
        known: the training texts by number, to mark captions that repeat one; None where the captioner has none.
        confidence: the calibration of these generation settings, or None.
        abstains: whether captions below its threshold are left empty and marked.
        nearest: how many training texts are shown beside a caption.
        texts, embeddings: those texts, and [text, dim] their embeddings.
    """

    known: TrainTexts | None = None
    confidence: Confidence | None = None
    abstains: bool = False
    nearest: int = 0
    texts: Sequence[str] = ()
    embeddings: Tensor | None = None

    def as_json(self) -> dict[str, Any]:
        """What `OUT.json` says of it; nothing where nothing was asked for and nothing is calibrated."""
        facts: dict[str, Any] = {"nearest": self.nearest} if self.nearest else {}
        if self.confidence is not None:
            facts["confidence"] = {name: getattr(self.confidence, name) for name in ("level", "threshold")}
        return facts | ({"abstains": True} if self.abstains else {})

    def of(self, caption: str, score: float, embedding: Tensor) -> dict[str, Any]:
        """The entries of a line, with `caption` where it is left empty.

        Args:
            embedding: [dim], what the caption was made from.
        """
        entries: dict[str, Any] = {}
        if self.known is not None and self.known.has(caption):
            entries["repeats_training_text"] = True
        if self.nearest and self.embeddings is not None:
            found = (self.embeddings @ embedding.to(self.embeddings)).topk(min(self.nearest, len(self.texts)))
            pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
            entries["nearest"] = [{"text": self.texts[row], "cosine": round(cosine, 4)} for row, cosine in pairs]
        if self.confidence is not None:
            entries["confidence"] = round(self.confidence.of(score, caption), 4)
            if self.abstains and entries["confidence"] < self.confidence.threshold:
                entries |= {"caption": "", "does_not_know": True}
        return entries


def trust_of(
    model: Captioner,
    directory: Path,
    settings: GenerationSettings,
    nearest: int,
    abstain: bool,
    manifest: Manifest | None,
    voters: Sequence[str] = (),
) -> Trust:
    """What lines say, from what the captioner has and the user asks for.

    Args:
        directory: of the model.
        nearest: training texts to show; they are those that the captioner stored, else those of the manifest.
        abstain: leave captions below the threshold empty.
        manifest: the user's data, or None for image files.
        voters: training texts that a caption may be (`consensus`); a caption that is one is marked.

    Raises:
        UsageError: no calibration of these settings to abstain by, or no training texts to show.
    """
    if nearest < 0:
        raise UsageError(f"nearest is at least 0, got {nearest}")
    confidence = Confidence.read(directory)
    fits = confidence is not None and same_settings(confidence.settings, settings)
    if abstain and not fits:
        why = "has no calibrated confidence" if confidence is None else "was calibrated for other generation settings"
        raise UsageError(f"{directory} {why}; make one with 'gapless caption calibrate' and the same settings")
    known: TrainTexts | None = model.train_texts
    if voters:
        known = (known or TrainTexts(())).with_others(voters)
    texts: Sequence[str] = ()
    embeddings = None
    if nearest:
        texts = texts_at_hand(model, manifest, "nearest")
        embeddings = model.aligner.encode(model.route.target, list(texts))
    return Trust(known, confidence if fits else None, abstain, nearest, texts, embeddings)


def same_settings(stored: Mapping[str, Any], settings: GenerationSettings) -> bool:
    """Whether a calibration is of these generation settings."""
    return with_new_settings(stored) == asdict(settings)


def texts_at_hand(model: Captioner, manifest: Manifest | None, option: str) -> list[str]:
    """The training texts that an option needs: those that the captioner stored, else those of the manifest.

    Raises:
        UsageError: neither has some, or the model does not embed texts.
    """
    check_embeds_texts(model, option)
    target, known = model.route.target, model.train_texts
    if known is not None and known.texts:
        return list(known.texts)
    if manifest is not None and TRAIN in manifest.rows_per_split() and target in manifest.modalities:
        rows = usable_rows(manifest.select(TRAIN), model.route, needs_sources=False)[0]
        texts = sorted({text for text in texts_of(rows, target) if text.strip()})
        if texts:
            return texts
    raise UsageError(
        f"--{option} uses training texts, and this captioner stored none: train it with --store_texts true, give a "
        f"manifest with its train rows, or do without them: --{option} 0"
    )


def check_embeds_texts(model: Captioner, option: str) -> None:
    """Raise UsageError for a captioner whose model does not embed the texts that it writes."""
    target = model.route.target
    if target not in text_modalities(model.aligner.config):
        raise UsageError(f"--{option} needs a model that embeds {target}, and this one does not; leave it out")


@torch.no_grad()
def add_trust(lines: Sequence[dict[str, Any]], embeddings: Tensor, trust: Trust) -> list[dict[str, Any]]:
    """The lines with what is to be said beside their captions; scores as they stand in the lines.

    Args:
        embeddings: [line, dim].
    """
    rows = embeddings.float().cpu()
    return [{**line, **trust.of(line["caption"], line["score"], rows[place])} for place, line in enumerate(lines)]

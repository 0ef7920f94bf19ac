"""Trains a captioner around a trained aligner, in a run directory.

There are three modes. `frozen`: the decoder is trained on the embeddings and patches of a frozen encoder. `joint`: the
aligner is trained too, under the captioning loss and its own loss. `text`: the decoder is trained on *text* embeddings
only and captions from *image* embeddings, which works as far as the gap is closed. Any modalities can stand in the
place of the image, and any text in that of the text (`route.py`).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments, set_seed

from gapless.captioning.bridge import bridged, noise_of
from gapless.captioning.captioner import Captioner, assemble_captioner, check_sources
from gapless.captioning.data import LengthBatches, dataset_of, divided
from gapless.captioning.route import Route, texts_of, trainable
from gapless.captioning.settings import CLOCK, HELD_OUT, NO_BRIDGE, NOTHING, CaptionSettings
from gapless.captioning.train_texts import TrainTexts
from gapless.captioning.voting import learnt_vote
from gapless.core.errors import UsageError, did_you_mean
from gapless.inference.embed import Collator, check_modalities, model_batches
from gapless.inference.pairs import PairDataset, Sample
from gapless.losses.base import further_inputs
from gapless.losses.gap_closing import GapClosingLoss
from gapless.losses.pairs import ANCHOR
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel, text_modalities
from gapless.models.encoders import num_parameters
from gapless.models.fingerprint import fingerprint_of
from gapless.training.callbacks import LossRules
from gapless.training.closing import enough_to_follow
from gapless.training.run import (
    Request,
    check_enough,
    claimed,
    resumed,
    train_and_save,
    training_arguments,
    write_request,
)
from gapless.training.trainer import RunTrainer

logger = logging.getLogger(__name__)

SELECT_BY = "eval_caption/loss"


@dataclass(frozen=True)
class CaptionRun(Request):
    """The training of a captioner.

    Args:
        aligner: its `source`, and the `fingerprint` of its weights.
        seed: of the weights and of the order of the rows.
        settings: what is trained.
        data_fingerprint: of the manifest.
    """

    aligner: Mapping[str, str]
    seed: int
    settings: CaptionSettings
    data_fingerprint: str

    @classmethod
    def around(
        cls, aligner: GaplessModel, source: str, seed: int, settings: CaptionSettings, manifest: Manifest
    ) -> "CaptionRun":
        """The run of an aligner that was loaded from `source`."""
        described = {"source": source, "fingerprint": fingerprint_of(aligner)}
        return cls(described, seed, settings, manifest.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """The description; sources, target and bridge only where they are not the usual ones."""
        described = super().to_dict()
        usual = ["sources", "target"] if self.settings.route.is_usual else []
        usual += [name for name in ("store_texts", "near_texts") if not getattr(self.settings, name)]
        usual += ["bridge"] if self.settings.bridge == NO_BRIDGE else []
        is_new = self.settings.mode == "joint" and self.settings.follow != CLOCK
        usual += [] if is_new else ["follow"]  # runs of earlier versions have none, and took the clock
        described["settings"] = {key: value for key, value in described["settings"].items() if key not in usual}
        return described


class CaptionCollator:
    """Collates samples into the captioner's keyword arguments: caption tokens, and features or encoders' inputs.

    With the target among the encoders' inputs the captioner adds the aligner's loss. The batch then has `positives`, so
    that equal captions are not negatives of each other.
    """

    def __init__(self, model: Captioner) -> None:
        self.model = model
        self.preprocessors = {name: model.preprocessor(name) for name in model.aligner.modalities}
        self.target = model.route.target

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        first = samples[0]
        if "caption_ids" in first:
            inputs: dict[str, Any] = self.model.padded([sample["caption_ids"] for sample in samples])
        else:
            inputs = self.model.encode_captions([sample["caption"] for sample in samples])
        for name in ("embedding", "tokens"):
            if name in first:
                inputs[name] = torch.stack([sample[name] for sample in samples])
        raw = {name: preprocessor for name, preprocessor in self.preprocessors.items() if name in first}
        raw_inputs = Collator(raw, mask_duplicates=self.target in raw)(samples)
        return inputs | (raw_inputs if raw else {"ids": raw_inputs["ids"]})


class CaptionTrainer(RunTrainer):
    """Trains a captioner; the epoch is chosen by the loss on validation rows, in which every group weighs the same.

    Args:
        groups: the group of each evaluation row.
        held_out: pairs that the weight of alignment follows in mode joint; None where it follows nothing.

    Further arguments as in `RunTrainer`.
    """

    def __init__(
        self,
        model: Captioner,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        run: Path,
        label: str,
        evaluation: Dataset[Any] | None,
        groups: Sequence[str],
        held_out: PairDataset | None = None,
    ) -> None:
        super().__init__(model, args, train_dataset, run, label, CaptionCollator(model), evaluation)
        self.captioner = model
        self.groups = groups
        if model.config.trains_aligner and model.aligner.loss is not None:
            # The aligner is trained already, so that the weights of its loss stay at their values after training.
            self.add_callback(LossRules(model.aligner.loss, progress=1.0))
        if held_out is not None:
            self.follow(model.aligner, held_out, is_trained=True, modalities=tuple(held_out.modalities))

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any]:
        """That of every training; texts of known lengths come in batches of like lengths, which are padded less."""
        sampler = super()._get_train_sampler(train_dataset)
        lengths = getattr(self.train_dataset, "lengths", None)
        return sampler if lengths is None else LengthBatches(sampler, lengths, self.args.train_batch_size)

    @torch.no_grad()
    def evaluation_figures(self) -> dict[str, Any]:
        """`caption/loss`: the negative log-likelihood of a token, averaged over rows, then groups, then all groups."""
        assert self.evaluation is not None
        losses = []
        for inputs in model_batches(self.captioner, self.evaluation, self.data_collator, self.args.eval_batch_size):
            inputs.pop("ids")
            losses.append(self.captioner(**inputs).per_row.cpu())
        by_group: dict[str, list[float]] = {}
        for group, value in zip(self.groups, torch.cat(losses).tolist(), strict=True):
            by_group.setdefault(group, []).append(value)
        return {"caption/loss": sum(sum(values) / len(values) for values in by_group.values()) / len(by_group)}


def train_caption_run(
    run: CaptionRun, aligner: GaplessModel, manifest: Manifest, out: Path, resume: bool = False
) -> dict[str, str]:
    """Train a captioner and write its run directory.

    Args:
        run: the description, which `config.yaml` holds.
        aligner: the model that `run.aligner` describes; mode joint changes its weights.
        resume: continue from the newest checkpoint of `out` that verifies; without one, start again.

    Returns:
        The checkpoints that a resume could not use -> why.

    Raises:
        UsageError: an unknown name, an output directory in use or being written by another process, a setting that
            differs on resume, a model without images or, in mode joint, without a weight that can learn.
        DataRefused: fewer rows than a batch.
    """
    settings, seed, route = run.settings, run.seed, run.settings.route
    usable, sentence = trainable(manifest, route, needs_sources=settings.mode != "text")
    train_rows, validation_rows = divided(usable, settings.held_back)
    check_aligner(aligner, settings.mode, route)
    arguments = _arguments_of(settings, out, seed, has_evaluation=len(validation_rows) > 0)
    check_enough(train_rows, arguments)
    if route.is_usual:
        check_modalities(aligner, manifest)
    if settings.mode == "joint":
        _check_learns(aligner)
    with claimed(out, arguments, resume):
        checkpoint, passed_over = resumed(run, out) if resume else (None, {})
        set_seed(seed)
        captions = texts_of(train_rows, route.target)
        aligner = bridged(aligner, train_rows, validation_rows, route, settings.bridge, seed)
        noise = noise_of(settings.noise_std, aligner, (validation_rows, train_rows), route)
        model = new_captioner(aligner, replace(settings, noise_std=noise), captions)
        if settings.near_texts:
            model.vote = learnt_vote(model, train_rows, validation_rows)
        if arguments.process_index == 0:
            if sentence:
                logger.warning(sentence)
            _warn_of_cut(model, captions)
        model.to(arguments.device)  # type: ignore[arg-type]
        modalities = (*route.sources, *([route.target] if settings.mode == "joint" else []))
        train_data = dataset_of(model, train_rows, settings.mode, modalities, seed, settings.augment_images)
        own = tuple(route.sources)
        evaluation = dataset_of(model, validation_rows, settings.mode, own) if len(validation_rows) else None
        write_request(run, arguments, out)
        if settings.follow == NOTHING and isinstance(model.aligner.loss, GapClosingLoss):
            model.aligner.loss.set_closing_share(0.0)
        trainer = CaptionTrainer(
            model,
            arguments,
            train_data,
            run=out,
            label=f"{settings.mode} seed {seed}",
            evaluation=evaluation,
            groups=validation_rows.table["group"].to_pylist(),
            held_out=_held_out_pairs(model, validation_rows, modalities) if settings.follow == HELD_OUT else None,
        )
        train_and_save(trainer, out, checkpoint, resume)
    return passed_over


def check_aligner(aligner: GaplessModel, mode: str, route: Route) -> None:
    """Raise UsageError for a model that does not embed what a mode needs."""
    check_sources(route, aligner)
    if mode == "frozen":
        return
    if route.target not in text_modalities(aligner.config):
        takes = ", ".join(aligner.modalities)
        near = did_you_mean(route.target, aligner.modalities)
        raise UsageError(
            f"mode {mode} embeds the texts of {route.target}, and this model takes {takes}{near}; use mode frozen, "
            "whose decoder alone needs them"
        )
    further = further_inputs(aligner.loss) if mode == "joint" else []
    if further:
        raise UsageError(
            f"mode joint trains the model's own loss, and {type(aligner.loss).__name__} compares {further[0]} too, "
            "which captions do not bring; use mode frozen, or an aligner of another method"
        )
    compared = getattr(aligner.loss, "pairs", ANCHOR)
    anchor = getattr(aligner.loss, "anchor", route.target)
    if mode == "joint" and compared == ANCHOR and anchor not in (*route.sources, route.target):
        raise UsageError(
            f"mode joint trains the model's own loss, which compares with its anchor {anchor}; name {anchor} in --from "
            "or --to, or use mode frozen"
        )


def _held_out_pairs(model: Captioner, rows: Manifest, modalities: Sequence[str]) -> PairDataset | None:
    """The pairs that the weight of alignment follows; None where the aligner does not learn, or its loss has no such
    weight, or rows are too few."""
    loss = model.aligner.loss
    if not (model.config.trains_aligner and isinstance(loss, GapClosingLoss) and loss.closing_limit(1.0) > 0):
        return None
    pairs = PairDataset(rows, {name: model.preprocessor(name) for name in modalities})
    return pairs if enough_to_follow(pairs) else None


def _check_learns(aligner: GaplessModel) -> None:
    """Raise UsageError for an aligner without trainable weights: frozen encoders, and heads without parameters."""
    trainable = [encoder for name, encoder in aligner.encoders.items() if aligner.encoder_learns(name)]
    if not any(num_parameters(module) for module in (*trainable, *aligner.heads.values())):
        raise UsageError("nothing of this aligner can learn in mode joint: its encoders are frozen; use mode frozen")


def _warn_of_cut(model: Captioner, captions: Sequence[str]) -> None:
    """Log a warning with the number of train captions that are cut, whose ends the captioner does not see."""
    cut = model.num_cut(captions)
    if cut:
        longest = model.config.max_tokens
        logger.warning(f"{cut:,} of {len(captions):,} captions are longer than max_tokens {longest} and are cut")


def _arguments_of(settings: CaptionSettings, out: Path, seed: int, has_evaluation: bool) -> TrainingArguments:
    """`TrainingArguments`; the epoch is chosen by the validation loss where there is one."""
    best = {"metric_for_best_model": SELECT_BY, "greater_is_better": False}
    chosen = {**best, **settings.training} | ({} if has_evaluation else {"load_best_model_at_end": False})
    return training_arguments(replace(settings, training=chosen), out, seed, has_evaluation)


def new_captioner(aligner: GaplessModel, settings: CaptionSettings, captions: Iterable[str]) -> Captioner:
    """A fresh captioner of these settings."""
    captions = list(captions)
    model = assemble_captioner(
        aligner,
        settings.decoder,
        captions,
        use_patches=settings.use_patches and settings.mode != "text",
        max_tokens=settings.max_tokens,
        vocab_size=settings.vocab_size,
        route=settings.route,
        num_slots=settings.num_slots,
        noise_std=float(settings.noise_std),
        trains_aligner=settings.mode == "joint",
    )
    model.gap_weight = settings.gap_weight
    model.train_texts = TrainTexts.of(captions, settings.store_texts)
    return model

"""Trained heads on frozen embeddings: the aligner with `vector` encoders and its own trainer, on cached rows."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from gapless.closing.base import (
    CLOSING_METHODS,
    ClosingMethod,
    ClosingPairs,
    ClosingSettings,
    FittedMethod,
    check_common,
    chooses,
    trains,
)
from gapless.closing.fitting import fit_method
from gapless.closing.layers import vector_modalities
from gapless.core.errors import UsageError, unknown_name
from gapless.losses.base import METHODS, masks_duplicates
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.losses.pairs import ANCHOR, check_settings_names, checked_pairs, pairs_of
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel
from gapless.training.closing import enough_to_follow, follows_held_out
from gapless.training.evaluator import GapAndRetrieval
from gapless.training.recipes import Recipe
from gapless.training.run import new_model, training_arguments
from gapless.training.trainer import AlignerTrainer

MIN_BATCH = 64
REGULARISED = ("gapless", "gapless-held-out")
HEADS = ("auto", "residual", "mlp", "linear")
IDENTITY = "identity"


@dataclass(frozen=True)
class AdapterSettings(ClosingSettings):
    """How the heads of `close_gap(method="adapter")` look and train.

    Args:
        head: residual keeps the frozen space and starts as the identity, mlp and linear go to a space of their own;
            auto takes residual where all dims are the same, else mlp.
        start: another closing method (procrustes, ...) that is fitted before the trained layers, or identity.
        hidden: width of the residual or mlp.
        embedding_dim: size of the shared space of mlp and linear.
        dropout: of the hidden layer, while training.
        input_dropout: of the rows before the trained layers, while training; not on a residual head's identity path.
        loss: the settings of a method in `gapless.losses.base.METHODS`; default: the paper's loss.
        num_epochs: passes over the rows, unless they take more than `max_steps`.
        max_steps: optimizer steps at most; what bounds the time on many rows.
        batch_size: pairs of a step, at most; also the pool of negatives.
        steps_per_epoch: at least so many, by smaller batches (down to 64 pairs), so that few rows get enough steps.
        learning_rate: of AdamW, cosine with warm-up.
        weight_decay: on matrices alone.
        warmup_share: of the steps.
        num_evaluations: on the validation part, evenly over the steps.
        patience: evaluations without a better `select_by` before training stops.
        select_by: the figure whose best weights are kept; higher is better. With a schedule in the loss, neither this
            nor `patience` looks at anything before the schedule has ended.
    """

    head: str = "auto"
    start: str = IDENTITY
    hidden: int = 1024
    embedding_dim: int = 512
    dropout: float = 0.1
    input_dropout: float = 0.0
    loss: Any = field(default_factory=GapClosingSettings)
    num_epochs: int = 30
    max_steps: int = 400
    batch_size: int = 1024
    steps_per_epoch: int = 6
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    num_evaluations: int = 20
    patience: int = 5
    select_by: str = "retrieval/mean/MRR"


def adapter_settings(loss: str = "gapless") -> AdapterSettings:
    """The settings of a method of `METHODS`: its loss for frozen rows, and strong dropout for those of `REGULARISED`.

    Small heads overfit frozen embeddings, after which the alignment gradient vanishes; dropout prevents it
    (docs/method.md).

    Raises:
        UsageError: an unknown loss.
    """
    if loss not in METHODS:
        raise unknown_name("loss", loss, METHODS)
    method = METHODS[loss]
    settings = AdapterSettings(loss=method.settings if method.frozen_settings is None else method.frozen_settings)
    return replace(settings, dropout=0.5, input_dropout=0.2) if loss in REGULARISED else settings


def usual_settings(method: ClosingMethod[Any]) -> ClosingSettings:
    """The settings of a method where nothing is given: `adapter_settings()`, or the defaults of its type."""
    settings: ClosingSettings = adapter_settings() if method.name == TrainedHeads.name else method.settings()
    return settings


def loss_name(settings: AdapterSettings) -> str | None:
    """The method of `METHODS` whose loss this is; None for one of its own."""
    names = ("gapless", *METHODS)
    return next((name for name in names if adapter_settings(name).loss == settings.loss), None)


class TrainedHeads:
    """A small head for each modality, trained with the gap-closing loss."""

    name = "adapter"
    summary = "train a small head per modality with the gap-closing loss, on cached rows"
    source = "Grassucci, Cicchetti, Comminiello, arXiv 2602.20046 (the loss)"
    settings = AdapterSettings
    trains = True
    takes_absent = True  # by the masked loss; a loss that takes complete rows only is refused

    @property
    def candidates(self) -> tuple[AdapterSettings, ...]:
        """What `auto` tries: the default heads, and the same less the means of their outputs."""
        return adapter_settings(), replace(adapter_settings(), remove_mean=True)

    def fit(self, pairs: ClosingPairs, settings: AdapterSettings, seed: int, *, folder: Path) -> FittedMethod:
        return FittedMethod(train_adapter(pairs, settings, seed, folder), {"loss": loss_name(settings)})


def train_adapter(pairs: ClosingPairs, settings: AdapterSettings, seed: int, folder: Path) -> GaplessModel:
    """Train the heads with the aligner's own trainer and keep the best weights by the validation part.

    Raises:
        UsageError: settings that do not fit; rows lack modalities, and the loss takes complete rows only.
        DataRefused: a modality that has no rows in common with those that the loss compares it with.
    """
    if pairs.present is not None:
        check_settings_names(settings.loss, list(pairs.sizes))
        compared = checked_pairs(getattr(settings.loss, "pairs", ANCHOR))
        check_common(pairs, pairs_of(compared, list(pairs.sizes), pairs.anchor))
    begun = started_model(pairs, settings.start, seed, folder)
    heads, size = adapter_heads(pairs, settings, begun)
    recipe = Recipe(
        modalities=vector_modalities(pairs, heads),
        anchor=pairs.anchor,
        embedding_dim=size,
        loss=settings.loss,
        training=adapter_training(settings, len(pairs.train)),
    )
    set_seed(seed)
    model = new_model(recipe, [])
    if begun is not None:
        copy_heads(begun, model)
    validation = pairs.dataset(pairs.validation)
    trainer = AlignerTrainer(
        model,
        training_arguments(recipe, folder, seed, has_evaluation=True),
        pairs.dataset(pairs.train, masked=masks_duplicates(settings.loss)),
        run=folder,
        label="close",
        evaluation=validation,
        held_out=validation if follows_held_out(settings.loss) and enough_to_follow(validation) else None,
        evaluator=GapAndRetrieval() if (masks := pairs.masks(pairs.validation)) is None else PairsOnOwnRows(masks),
    )
    best = KeepBest(model, settings.select_by, settings.patience, settled_at(settings.loss))
    trainer.add_callback(best)
    trainer.train()
    best.restore()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # none are kept: minutes are soon repeated
    return model.cpu().train(False)


def started_model(pairs: ClosingPairs, start: str, seed: int, folder: Path) -> GaplessModel | None:
    """The model of the method that is fitted before the trained layers; None for the identity.

    Raises:
        UsageError: no such method.
    """
    if start == IDENTITY:
        return None
    methods = [name for name, method in CLOSING_METHODS.items() if not (trains(method) or chooses(method))]
    if start not in methods:
        raise unknown_name("start", start, (IDENTITY, *methods))
    method = CLOSING_METHODS[start]
    return fit_method(method, pairs, method.settings(anchor=pairs.anchor), seed, folder=folder).model


def copy_heads(begun: GaplessModel, model: GaplessModel) -> None:
    """The fitted layers at the front of each head, which do not train."""
    for name, layers in begun.heads.items():
        assert isinstance(layers, nn.Sequential)
        head = model.heads[name]
        assert isinstance(head, nn.Sequential)
        front = head[: len(layers)]
        front.load_state_dict(layers.state_dict())
        front.requires_grad_(False)


def adapter_heads(
    pairs: ClosingPairs, settings: AdapterSettings, begun: GaplessModel | None
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """The layers of each modality's head, and the size of the shared space."""
    if settings.head not in HEADS:
        raise unknown_name("head", settings.head, HEADS)
    sizes = pairs.sizes if begun is None else dict.fromkeys(pairs.sizes, begun.config.embedding_dim)
    one_size = len(set(sizes.values())) == 1
    kind = settings.head if settings.head != "auto" else ("residual" if one_size else "mlp")
    if kind == "residual" and not one_size:
        raise UsageError(
            f"a residual head keeps the dims, and they differ ({pairs.listed_sizes}); use head mlp or start procrustes"
        )
    size = next(iter(sizes.values())) if kind == "residual" else settings.embedding_dim
    layer: dict[str, Any] = {"kind": kind, "size": size}
    if kind != "linear":
        layer |= {"hidden": settings.hidden, "dropout": settings.dropout}
    last: list[dict[str, Any]] = [layer]
    if kind == "residual":
        layer["input_dropout"] = settings.input_dropout
    elif settings.input_dropout:
        last.insert(0, {"kind": "dropout", "rate": settings.input_dropout})
    heads: dict[str, list[dict[str, Any]]] = {}
    for name in sizes:
        front = [] if begun is None else begun.config.modalities[name]["head"]
        heads[name] = [*front, {"kind": "unit_norm"}, *map(dict, last)]
    return heads, size


def adapter_training(settings: AdapterSettings, num_rows: int) -> dict[str, Any]:
    """The settings as `TrainingArguments` name them; batches are even, so that an epoch drops only a few rows."""
    num_batches = max(ceil(num_rows / settings.batch_size), min(settings.steps_per_epoch, num_rows // MIN_BATCH), 1)
    num_steps = min(settings.max_steps, settings.num_epochs * num_batches)
    evaluate_every = max(1, num_steps // settings.num_evaluations)
    return {
        "max_steps": num_steps,
        "per_device_train_batch_size": num_rows // num_batches,
        "per_device_eval_batch_size": 4096,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup_share,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "steps",
        "eval_steps": evaluate_every,
        "logging_steps": evaluate_every,
        "save_strategy": "no",
    }


def settled_at(loss: Any) -> float:
    """The training progress from which no setting of the loss changes: a schedule is a list of [progress, weight]."""
    scheduled = [value for value in vars(loss).values() if isinstance(value, list)]
    return max((points[-1][0] for points in scheduled), default=0.0)


class PairsOnOwnRows:
    """`GapAndRetrieval` of rows that lack modalities: each pair on the rows that have both, a bare key their mean."""

    primary = GapAndRetrieval.primary

    def __init__(self, present: Mapping[str, np.ndarray]) -> None:
        self.present = present

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """The figures of these pairs, without the mappings that say which rows they stand on."""
        figures = measure(rows, present=self.present, include=("gap", "retrieval"))
        return {key: value for key, value in figures.items() if not isinstance(value, Mapping)}


class KeepBest(TrainerCallback):
    """Keeps the weights of the best evaluation in memory (heads are small), and stops when it gets no better.

    Nothing is chosen before `settled` of the training: where the weights of the loss still rise, the best retrieval is
    that of a model whose gap has not been closed yet.
    """

    def __init__(self, model: GaplessModel, key: str, patience: int, settled: float = 0.0) -> None:
        self.settled = settled
        self.model = model
        self.key = key
        self.patience = patience
        self.best = -float("inf")
        self.weights: dict[str, Tensor] = {}
        self.num_worse = 0

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        value = metrics.get(f"eval_{self.key}")
        if value is None:
            raise unknown_name("figure to select by", self.key, [key.removeprefix("eval_") for key in metrics])
        if state.global_step < self.settled * state.max_steps:
            return
        if value > self.best:
            self.best, self.num_worse = value, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.num_worse += 1
            control.should_training_stop |= self.num_worse >= self.patience

    def restore(self) -> None:
        if self.weights:
            self.model.load_state_dict(self.weights)


METHOD = CLOSING_METHODS.add(TrainedHeads.name, TrainedHeads())

"""Trains the heads of `trained_heads`: the aligner with `vector` encoders and its own trainer, on cached rows."""

import shutil
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, check_common, quick_methods
from gapless.closing.fitting import fit_method
from gapless.closing.layers import vector_modalities
from gapless.closing.trained_heads import HEADS, IDENTITY, AdapterSettings
from gapless.core.errors import UsageError, unknown_name
from gapless.losses.base import label_column, masks_duplicates, method_of
from gapless.losses.pairs import ANCHOR, check_settings_names, checked_pairs, pairs_of
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel
from gapless.training.closing import enough_to_follow, follows_held_out
from gapless.training.evaluator import GapAndRetrieval
from gapless.training.recipes import Recipe
from gapless.training.run import new_model, training_arguments
from gapless.training.trainer import AlignerTrainer

MIN_BATCH = 64


def train_adapter(pairs: ClosingPairs, settings: AdapterSettings, seed: int, folder: Path) -> GaplessModel:
    """Train the heads with the aligner's own trainer and keep the best weights by the validation part.

    Raises:
        UsageError: settings that do not fit; rows lack modalities, and the loss takes complete rows only; it compares
            labels, and there are none.
        DataRefused: a modality that has no rows in common with those that the loss compares it with.
    """
    if pairs.present is not None:
        check_settings_names(settings.loss, list(pairs.sizes))
        compared = checked_pairs(getattr(settings.loss, "pairs", ANCHOR))
        check_common(pairs, pairs_of(compared, list(pairs.sizes), pairs.anchor))
    compares_labels = label_column(settings.loss) is not None
    if compares_labels and pairs.labels is None:
        raise UsageError(
            f"the loss {method_of(settings.loss).name} compares labels, and the rows have none; give them with --labels"
        )
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
        pairs.dataset(pairs.train, masked=masks_duplicates(settings.loss), labelled=compares_labels),
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
    if start not in quick_methods():
        raise unknown_name("start", start, (IDENTITY, *quick_methods()))
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

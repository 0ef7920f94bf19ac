"""The closing method that trains heads on frozen embeddings, and its settings; `head_training` does the training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gapless.closing.base import CLOSING_METHODS, ClosingMethod, ClosingPairs, ClosingSettings, FittedMethod
from gapless.core.errors import unknown_name
from gapless.losses.base import METHODS
from gapless.losses.gap_closing_methods import GapClosingSettings

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
        from gapless.closing.head_training import train_adapter  # imports transformers, which the help need not

        return FittedMethod(train_adapter(pairs, settings, seed, folder), {"loss": loss_name(settings)})


METHOD = CLOSING_METHODS.add(TrainedHeads.name, TrainedHeads())

"""The protocol of losses, and the registry of the methods that a model can be trained with.

    method = METHODS["gapless"]
    loss = method.build(method.settings, "text")         # an nn.Module
    terms = loss({"image": z, "text": w})                # terms.total.backward()

A new method is one file of this room that calls `METHODS.add(name, Method(...))`, or one module of another package that
its `pyproject.toml` names in the entry-point group `gapless.losses`. `train --method`, `compare --methods`, the options
`--loss.*`, `metrics.jsonl`, the curves and the saved model then know it.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from gapless.core.errors import UsageError
from gapless.core.registry import Registry


@runtime_checkable
class Terms(Protocol):
    """What a loss returns: a NamedTuple of scalars, `total` and the unweighted terms that the log shows beside it."""

    @property
    def total(self) -> Tensor: ...

    def _asdict(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class ParameterRule:
    """How the optimizer treats a parameter of a loss.

    Args:
        weight_decay: whether the weight decay of the training applies.
        learning_rate_factor: multiplies the learning rate, at least 0.
    """

    weight_decay: bool = False
    learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate_factor) and self.learning_rate_factor >= 0):
            raise ValueError(f"learning_rate_factor must be finite and at least 0, got {self.learning_rate_factor}")


class Loss(Protocol):
    """The protocol that the trainer needs of a loss, which is also an `nn.Module`.

    A loss that takes complete rows only leaves `present` out of its signature; the trainer then refuses rows that lack
    a modality. One that compares the labels of rows has `labels` in it ([pair, label] floats, 1 where a row has a
    label), and a setting `label_column`, the column of the manifest that they come from. One with `takes_reference =
    True` has `raw` and `reference` in it, modality -> [pair, dim]: the rows before they were normalised, and those of
    the model as it was when training started. Further members are used where a loss has them:

    - `set_progress(progress)`, called before each step with the share of the training that is done, in [0, 1];
    - `begin_step(seed, step)`, called before each step with the seed of the run and the number of the step, from which
      a loss that draws at random takes its draws, so that a resumed run repeats them;
    - `after_step()`, called after each optimizer step, to clamp what the optimizer moved out of bounds;
    - `logit_scale`, the logarithm of the factor on the cosines, which is logged and gets no weight decay;
    - `parameter_rules`, the name of a parameter of the loss -> `ParameterRule`, for parameters that take no weight
      decay, or a learning rate of their own.
    """

    def __call__(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: Tensor | Mapping[str, Tensor] | None = None,
    ) -> Terms:
        """The terms of one batch.

        Args:
            embeddings: modality -> [pair, dim] unit-norm rows, row i of each is pair i.
            present: modality -> [pair] bool, whether a row has it. None: every row has everything. Absent rows may hold
                anything.
            positives: [pair] integers; rows that share one count as the same. None: no row has another than its own.
                For a model with several modalities of texts, modality -> such integers.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A loss with its settings, under the name by which the command line knows it.

    Args:
        name: as in `train --method`.
        summary: one line that says what it is.
        settings: an instance of a frozen dataclass in which every field has a default. Each field is an option
            `--loss.<field>`, and the `Args` section of the dataclass's docstring is its help. A field `mask_duplicates`
            says whether the trainer gives the loss `positives`, the pairs of one caption.
        build: settings and the name of the anchor modality to the loss. Methods that share a class of settings share
            `build`.
        source: the paper.
        fixed: fields that make the method what it is; what a comparison says for all its methods does not change them.
        frozen_settings: the settings for small heads on frozen embeddings (`gapless close`), where they differ.
    """

    name: str
    summary: str
    settings: Any
    build: Callable[[Any, str], nn.Module]
    source: str = ""
    fixed: tuple[str, ...] = ()
    frozen_settings: Any = None

    def __post_init__(self) -> None:
        if not is_dataclass(self.settings) or isinstance(self.settings, type):
            raise ValueError(f"the settings of {self.name!r} must be an instance of a dataclass, got {self.settings!r}")

    @property
    def package(self) -> str:
        """The top package that its code comes from."""
        return self.build.__module__.partition(".")[0]

    def takes(self, name: str) -> bool:
        """Whether it has a setting of that name that may be changed."""
        return name not in self.fixed and any(field.name == name for field in fields(self.settings))

    def changed(self, changes: Mapping[str, Any]) -> Any:
        """Its settings with those of the changes that it takes; the others are not its own."""
        return replace(self.settings, **{name: value for name, value in changes.items() if self.takes(name)})


# The paper's loss and its ablations stand first in tables and messages, whatever files the room has.
FIRST = ("clip", "clip-fixed", "align-only", "uniform-only", "gapless-published", "gapless")
METHODS: Registry[Method] = Registry("method", "gapless.losses", "gapless.losses", FIRST)


def method_of(settings: Any, name: str | None = None) -> Method:
    """The method that builds a loss from these settings.

    Args:
        settings: an instance of the class of some method's settings.
        name: which of the methods that share that class; default: one with equal settings, or the first.

    Raises:
        UsageError: no method has settings of that class.
    """
    alike = [method for method in METHODS.values() if type(method.settings) is type(settings)]
    if not alike:
        raise UsageError(f"no method is known whose settings are {type(settings).__name__}")
    named = [method for method in alike if method.name == name]
    equal = [method for method in alike if settings in (method.settings, method.frozen_settings)]
    return next(iter((*named, *equal, *alike)))


def changes_of(settings: Any) -> dict[str, Any]:
    """name -> value of the settings that differ from the defaults of their class."""
    defaults = type(settings)()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def takes_present(loss: nn.Module) -> bool:
    """Whether a loss takes rows that lack a modality."""
    parameters = inspect.signature(loss.forward).parameters
    return "present" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def takes_reference(loss: nn.Module | None) -> bool:
    """Whether a loss compares rows before normalisation with those of the model that training started from."""
    return bool(getattr(loss, "takes_reference", False))


def further_inputs(loss: nn.Module | None) -> list[str]:
    """Which of `labels` and `reference` a loss compares beside the rows of a batch."""
    compares_labels = loss is not None and "labels" in inspect.signature(loss.forward).parameters
    return ["labels"] * compares_labels + ["reference"] * takes_reference(loss)


def terms_of(
    loss: nn.Module,
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, Tensor] | None = None,
    positives: Tensor | Mapping[str, Tensor] | None = None,
    labels: Tensor | None = None,
    **further: Any,
) -> dict[str, Tensor]:
    """The terms of a loss by name, `total` among them; arguments as in `Loss.__call__`.

    Args:
        labels: [pair, label], for a loss that takes them.
        further: `raw` and `reference`, for a loss that takes them.

    Raises:
        UsageError: rows lack a modality, and the loss takes complete rows only.
        TypeError: the loss returned something else than a NamedTuple with a `total`.
    """
    given: dict[str, Any] = {"positives": positives, **further}
    if labels is not None:
        given["labels"] = labels
    if present is not None:
        check_takes_present(loss)
        given["present"] = present
    return named_terms(loss(embeddings, **given))


def check_takes_present(loss: nn.Module) -> None:
    """Raise UsageError for a loss that takes complete rows only."""
    if not takes_present(loss):
        raise UsageError(
            f"rows lack a modality, and the loss {type(loss).__name__} takes complete rows only (its forward has no "
            "argument 'present'); leave those rows out, or train with another method"
        )


def masks_duplicates(settings: Any) -> bool:
    """Whether pairs of one caption are positives of each other under these settings."""
    return bool(getattr(settings, "mask_duplicates", False))


def label_column(settings: Any) -> str | None:
    """The column of labels that a loss of these settings compares, "" where they do not say; None: it compares none."""
    column = getattr(settings, "label_column", None)
    return None if column is None else str(column)


def named_terms(terms: Any) -> dict[str, Tensor]:
    """The terms of a loss by name, `total` among them.

    Raises:
        TypeError: the loss returned something else than a NamedTuple with a `total`.
    """
    if not isinstance(terms, Terms):
        raise TypeError(f"a loss returns a NamedTuple of terms with a total, got {type(terms).__name__}")
    return terms._asdict()


def set_progress(loss: nn.Module, progress: float) -> None:
    """Set the progress of the training, in [0, 1], of a loss that changes with it; other losses are left alone."""
    move = getattr(loss, "set_progress", None)
    if move is not None:
        move(progress)


def begin_step(loss: nn.Module, seed: int, step: int) -> None:
    """Say the seed of the run and the number of the step to a loss that draws at random."""
    begin = getattr(loss, "begin_step", None)
    if begin is not None:
        begin(seed, step)


def parameter_rules(loss: nn.Module | None) -> dict[nn.Parameter, ParameterRule]:
    """The parameters of a loss that have a rule of their own; `logit_scale` has one without being named.

    Raises:
        ValueError: `parameter_rules` of the loss names what is no parameter of it.
    """
    if loss is None:
        return {}
    parameters = dict(loss.named_parameters())
    rules = dict(getattr(loss, "parameter_rules", {}))
    if unknown := sorted(rules.keys() - parameters.keys()):
        raise ValueError(f"{type(loss).__name__}.parameter_rules names {unknown[0]!r}, which is none of its parameters")
    if "logit_scale" in parameters:
        rules.setdefault("logit_scale", ParameterRule())
    return {parameters[name]: rule for name, rule in rules.items()}


def after_step(loss: nn.Module) -> None:
    """Let a loss clamp its own parameters after a step of the optimizer."""
    clamp = getattr(loss, "after_step", None)
    if clamp is not None:
        clamp()


def logit_scale_of(loss: nn.Module) -> float | None:
    """The factor on the cosines, 1 / temperature; None for a loss without one."""
    scale = getattr(loss, "logit_scale", None)
    return float(scale.detach().exp()) if isinstance(scale, Tensor) else None

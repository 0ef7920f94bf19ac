"""What a closing method is: pairs of frozen embeddings in, a model that closes their gap out.

A method is one object with the attributes of `ClosingMethod`. One of gapless adds itself in its own file of this room;
one of somebody else's package is named in its `pyproject.toml`:

    [project.entry-points."gapless.closing_methods"]
    shift = "their_package.shift:METHOD"

Either way it is one of `gapless close --method`, and the fields of its settings are its options.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import blocks
from gapless.core.registry import Registry
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.stored_rows import Rows, some_rows
from gapless.metrics.inputs import MIN_ROWS, ROWS_AT_ONCE
from gapless.models.spec import VectorEncoderSpec

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel  # takes seconds to import, and the help reads only settings


@dataclass(frozen=True)
class ClosingPairs:
    """What a method fits on: rows that are checked and unit-norm, and which of them it may look at.

    Args:
        embeddings: modality -> [pair, dim] unit-norm fp32 rows on the CPU, aligned; dims may differ. Many rows are
            `StoredRows`, which are read where a slice or row numbers stand in brackets; `close.unit_rows` decides.
        anchor: the modality that the others are brought to.
        ids: [pair] names of the rows.
        train: row numbers that a method fits on.
        validation: row numbers of other groups, which may choose a setting and give the figures.
        positives: [pair] integers, equal where rows count as the same item.
        groups: [pair] integers, equal where rows must not be fitted on and judged apart (`folds.group_folds`).
        labels: [pair] integers of classes, -1 where missing, for the V-measure; None without labels.
        work: a directory that outlives an interruption, where a long fit notes what it has finished; None: nowhere.
        fits: what was fitted on these rows, for `fitting.fit_method`.
        present: modality -> [pair] bool, for rows that lack modalities, each with two or more; None where nothing is
            missing. What `embeddings` holds in an absent row is finite and means nothing.
    """

    embeddings: Mapping[str, Rows]
    anchor: str
    ids: Sequence[str]
    train: np.ndarray
    validation: np.ndarray
    positives: np.ndarray
    groups: np.ndarray
    labels: np.ndarray | None = None
    work: Path | None = None
    fits: dict[tuple[str, str, int], "FittedMethod"] = field(default_factory=dict, compare=False, repr=False)
    present: Mapping[str, np.ndarray] | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """modality -> dim."""
        return {name: matrix.shape[1] for name, matrix in self.embeddings.items()}

    @property
    def listed_sizes(self) -> str:
        """The dims as a message names them: `image 512, text 384`."""
        return ", ".join(f"{name} {size}" for name, size in self.sizes.items())

    def part(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Some of the rows, by modality, aligned."""
        return {name: matrix[rows] for name, matrix in self.embeddings.items()}

    @property
    def training(self) -> dict[str, Tensor]:
        """The rows to fit on, aligned: modality -> [row, dim]; with absent rows, `own_training` and `common`.

        All of them in memory: a method for many rows goes through `training_rows` in blocks.
        """
        return self.part(self.train)

    def common(self, rows: np.ndarray, *names: str) -> np.ndarray:
        """Those of some rows that have all of these modalities."""
        for name in names:
            if self.present is not None:
                rows = rows[self.present[name][rows]]
        return rows

    @property
    def own_training(self) -> dict[str, Tensor]:
        """Of each modality the rows to fit on that have it; the modalities are not aligned where rows lack some."""
        return {name: matrix[self.common(self.train, name)] for name, matrix in self.embeddings.items()}

    def training_rows(self, *names: str) -> dict[str, Rows]:
        """The rows to fit on that have all of these modalities, aligned: modality -> [row, dim], not read yet where
        they are stored. Without names the rows of each modality are its own, as in `own_training`.
        """
        return {
            name: some_rows(matrix, self.common(self.train, *(names or (name,))))
            for name, matrix in self.embeddings.items()
            if not names or name in names
        }

    def masks(self, rows: np.ndarray) -> dict[str, np.ndarray] | None:
        """What `measure` takes as `present` for some rows."""
        return None if self.present is None else {name: mask[rows] for name, mask in self.present.items()}

    def dataset(self, rows: np.ndarray, masked: bool = False, labelled: bool = False) -> VectorPairs:
        """Some of the rows for a trainer or the inference loop; `masked` and `labelled` give the loss its positives and
        its labels.

        Rows that lack a modality come without its values, and each batch says which rows those are.
        """
        arrays = {
            name: matrix.numpy() if isinstance(matrix, Tensor) else matrix for name, matrix in self.embeddings.items()
        }
        labels = self.labels if labelled else None
        return VectorPairs(arrays, self.ids, rows, self.positives if masked else None, self.present, labels)


@dataclass(frozen=True)
class ClosingSettings:
    """The settings of every closing method; those of one method are a frozen dataclass that adds its own fields.

    Args:
        anchor: the modality that the others are brought to; default: text, or the last one.
        validation_share: of the rows, whole groups, at most 2,000 rows.
        remove_mean: end each head with unit norm less the mean of the training rows, so that no part of a cosine is
            what all rows of a modality have in common.
    """

    anchor: str | None = None
    validation_share: float = 0.1
    remove_mean: bool = False


@dataclass(frozen=True)
class FittedMethod:
    """What a fit gives back.

    Args:
        model: takes a row of every modality as a vector and gives it in the shared space (`layers.vector_model`).
        facts: what `results.json` says of the fit beside the figures, such as the correlations that were found.
    """

    model: "GaplessModel"
    facts: Mapping[str, Any] = field(default_factory=dict)


Settings = TypeVar("Settings", bound=ClosingSettings)


class ClosingMethod(Protocol[Settings]):
    """A way to close the gap of frozen embeddings.

    Attributes:
        name: its name in `close --method`; its options are `--NAME.field`.
        summary: one line for the help and the docs: what it does.
        source: the publication or code that it follows.
        settings: the frozen dataclass whose fields, types and docstring are its options; every field has a default.

    A method may also have these, which `auto` asks for:
        candidates: a tuple of settings that `auto` tries; by default the defaults alone.
        trains: True where a fit takes long; `auto` tries such methods after all others.
        chooses: True for a method that tries others itself, which is no candidate.
        takes_absent: True for a method that fits on rows which lack modalities (`ClosingPairs.present`); any other is
            refused there.
    """

    name: str
    summary: str
    source: str
    settings: type[Settings]

    def fit(self, pairs: ClosingPairs, settings: Settings, seed: int, *, folder: Path) -> FittedMethod:
        """Fit on `pairs.training`.

        What is learned need not be affine: any layers that a head can have are saved with the model, put behind a
        frozen encoder and exported like all others, and no code of the method is needed to read the model again.

        Args:
            pairs: checked rows; those of `pairs.validation` may choose, and must not be fitted on.
            settings: of the type that `settings` names.
            seed: of whatever is drawn.
            folder: the model directory that is being written; a method may leave a log of its training there.

        Raises:
            UsageError: settings, modalities or dims that the method cannot take.
            DataRefused: rows that it cannot be fitted on.
        """
        ...


CLOSING_METHODS: Registry[ClosingMethod[Any]] = Registry("closing method", "gapless.closing", "gapless.closing_methods")
DEFAULT_METHOD = "auto"
SAME_ROW = 1e-5  # numbers of unit-norm rows; one text in two batches differs by less
OTHER_NAMES = {"heads": "adapter"}


def closing_method(name: str) -> ClosingMethod[Any]:
    """The method of that name; `heads` is another name of the adapter.

    Raises:
        UsageError: no such method, or the package that brings it cannot be loaded.
    """
    return CLOSING_METHODS[OTHER_NAMES.get(name, name)]


def trains(method: ClosingMethod[Any]) -> bool:
    """Whether a fit of the method takes long."""
    return bool(getattr(method, "trains", False))


def chooses(method: ClosingMethod[Any]) -> bool:
    """Whether the method chooses among the others."""
    return bool(getattr(method, "chooses", False))


def quick_methods() -> list[str]:
    """The names of the methods that neither train nor choose among the others."""
    return [name for name, method in CLOSING_METHODS.items() if not (trains(method) or chooses(method))]


def takes_absent(method: ClosingMethod[Any]) -> bool:
    """Whether the method fits on rows that lack modalities."""
    return bool(getattr(method, "takes_absent", False))


def method_of(name: str | None, settings: ClosingSettings | None) -> ClosingMethod[Any]:
    """The named method; without a name that of the settings, and without either, or with those of all, the default.

    Raises:
        UsageError: no such method; settings of several methods or of none, and no name.
    """
    if name is not None or settings is None or type(settings) is ClosingSettings:
        return closing_method(name or DEFAULT_METHOD)
    owners = [method for method in CLOSING_METHODS.values() if method.settings is type(settings)]
    if len(owners) != 1:
        names = ", ".join(method.name for method in owners) or "no method"
        raise UsageError(f"{type(settings).__name__} are the settings of {names}; name the method")
    return owners[0]


def one_dim(pairs: ClosingPairs, method: str) -> int:
    """The dim of all modalities, for a method that keeps it.

    Raises:
        UsageError: dims that differ.
    """
    if len(set(pairs.sizes.values())) > 1:
        raise UsageError(
            f"{method} keeps the dims, and they differ ({pairs.listed_sizes}); use --method procrustes or adapter"
        )
    return pairs.sizes[pairs.anchor]


def spread_of(rows: Rows) -> Tensor:
    """[dim] the largest value of each number less the smallest, read in blocks."""
    low, high = torch.full(rows.shape[1:], torch.inf), torch.full(rows.shape[1:], -torch.inf)
    for part in blocks(len(rows), ROWS_AT_ONCE):
        least, most = rows[part].aminmax(dim=0)
        low, high = torch.minimum(low, least, out=low), torch.maximum(high, most, out=high)
    return high - low


def check_varied(pairs: ClosingPairs) -> None:
    """Refuse a modality whose training rows are all the same, or too few: no method has anything to learn from it.

    Raises:
        DataRefused: it is named.
    """
    for name, training in pairs.training_rows().items():
        if len(training) < MIN_ROWS:
            raise DataRefused(
                f"{len(training)} of {len(pairs.train)} training rows have {name}; leave {name} out, or give more rows"
            )
        if float(spread_of(training).max()) <= SAME_ROW:
            raise DataRefused(
                f"all {len(training)} training rows of {name} are the same (equal captions?), so that there is nothing "
                "to close; check what was embedded"
            )


def check_common(pairs: ClosingPairs, compared: Iterable[tuple[str, str]]) -> None:
    """Refuse a modality that fewer than two training rows have beside another one that it is compared with.

    Args:
        compared: the pairs of modalities that the method compares, such as each one with the anchor.

    Raises:
        DataRefused: the modality is named.
    """
    counts = [(names, len(pairs.common(pairs.train, *names))) for names in compared]
    for name in pairs.sizes:
        if not any(name in names and count >= MIN_ROWS for names, count in counts):
            most = max((count for names, count in counts if name in names), default=0)
            others = " or ".join(other for names, _ in counts if name in names for other in names if other != name)
            raise DataRefused(
                f"{most} training rows have both {name} and {others or 'another modality'}, and {MIN_ROWS} are needed; "
                f"choose another anchor, or leave {name} out"
            )


def check_fitted(fitted: FittedMethod, pairs: ClosingPairs, method: str) -> None:
    """Refuse a model that does not take the rows which the method was given, or has numbers that are not finite.

    Raises:
        ValueError: other modalities, or encoders that take something else than vectors of those sizes.
        DataRefused: NaN or infinite weights.
    """
    takes = {
        name: spec.encoder.size if isinstance(spec.encoder, VectorEncoderSpec) else None
        for name, spec in fitted.model.specs.items()
    }
    if takes != pairs.sizes:
        raise ValueError(f"the closing method {method!r} gave a model for {takes}, but the rows are {pairs.sizes}")
    for name, tensor in fitted.model.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise DataRefused(
                f"the closing method {method!r} cannot be fitted on these rows: {name} has NaN or infinite numbers; "
                "use another method, or more and more varied rows"
            )

"""Evaluators measure an aligner while it trains: callables from embeddings to figures that name a primary figure."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from gapless.core.errors import UsageError
from gapless.metrics.catalogue import entry_of
from gapless.metrics.measure import measure


class Evaluator(Protocol):
    """A callable that gives figures of validation pairs."""

    @property
    def primary(self) -> str:
        """The key of the figure by which the best model is chosen, where a recipe asks for the best and names none."""
        ...

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Figures by key.

        Args:
            rows: modality -> [pair, dim] unit-norm rows, row i of each is pair i.
        """
        ...


class GapAndRetrieval:
    """The gap and retrieval figures of `measure`; the mean reciprocal rank is primary."""

    primary = "retrieval/mean/MRR"

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """The figures of these pairs."""
        return measure(rows, include=("gap", "retrieval"))


def higher_is_better(key: str) -> bool:
    """Whether a figure is better when it is higher, by the catalogue of figures.

    Raises:
        UsageError: the catalogue does not know the figure, or neither way is better.
    """
    entry = entry_of(key)
    if entry is None or entry.better == "neither":
        raise UsageError(f"no way is known to be better for the figure {key!r}; choose another one to select by")
    return entry.better == "higher"

"""Evaluators measure an aligner while it trains: callables from embeddings to figures that name a primary figure."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from gapless.core.errors import UsageError
from gapless.inference.presence import present_in
from gapless.metrics.catalogue import COMPLETE, entry_of
from gapless.metrics.measure import measure


class Evaluator(Protocol):
    """A callable that gives figures of validation pairs.

    It is given the rows that have every modality. One with the attribute `takes_absent = True` is given all rows with
    two modalities or more; a row is NaN where it lacks a modality.
    """

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
    """The gap and retrieval figures of `measure`; the mean reciprocal rank is primary.

    Where rows lack modalities each pair of them is measured on its own rows, as `evaluate` does; KEY@complete is of the
    rows that have all, `n/<pair>` and `n@complete` are the numbers of rows, which are the galleries too.
    """

    primary = "retrieval/mean/MRR"
    takes_absent = True

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """The figures of these pairs; a modality that no row has is left out."""
        rows = {name: matrix for name, matrix in rows.items() if not matrix.isnan().any(dim=1).all()}
        figures = measure(rows, present=present_in(rows), include=("gap", "retrieval"))
        absent = {name: figures.pop(name) for name in ("present", "pairs", "complete") if name in figures}
        if absent:
            figures |= {f"n/{pair}": one["n"] for pair, one in absent["pairs"].items()}
            figures |= {f"n{COMPLETE}": one["n"] for name, one in absent.items() if name == "complete"}
        return {key: value for key, value in figures.items() if value is not None}


def higher_is_better(key: str) -> bool:
    """Whether a figure is better when it is higher, by the catalogue of figures.

    Raises:
        UsageError: the catalogue does not know the figure, or neither way is better.
    """
    entry = entry_of(key)
    if entry is None or entry.better == "neither":
        raise UsageError(f"no way is known to be better for the figure {key!r}; choose another one to select by")
    return entry.better == "higher"

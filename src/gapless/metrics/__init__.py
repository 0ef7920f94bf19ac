"""Figures of embeddings: the modality gap, retrieval, grouping, and their intervals."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "FIGURES",
    "FigureEntry",
    "PairInputs",
    "entry_of",
    "measure_difference",
]

if TYPE_CHECKING:
    from gapless.metrics.catalogue import FIGURES, FigureEntry, entry_of
    from gapless.metrics.measure import measure_difference
    from gapless.metrics.pair_inputs import PairInputs

__getattr__ = lazy_names(
    __name__,
    {
        "FIGURES": "gapless.metrics.catalogue",
        "FigureEntry": "gapless.metrics.catalogue",
        "PairInputs": "gapless.metrics.pair_inputs",
        "entry_of": "gapless.metrics.catalogue",
        "measure_difference": "gapless.metrics.measure",
    },
)

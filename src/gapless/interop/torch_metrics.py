"""The figures of gapless as metrics of torchmetrics, which gather the rows of all batches and all processes.

metric = GapMetric("gap/centroid_distance_unbiased")
for batch in validation:
    metric.update({"image": z, "text": w})
metric.compute()
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import UsageError, missing_extra, unknown_name
from gapless.interop.plain_figures import plain_figures
from gapless.metrics.catalogue import entry_of
from gapless.training.evaluator import GapAndRetrieval

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError:
    raise missing_extra("torchmetrics", "interop") from None

Measured = Callable[[Mapping[str, Tensor]], Mapping[str, Any]]


class GapMetrics(Metric):
    """All figures of an evaluator, as a mapping of keys to numbers (`self.log_dict(metric.compute())`).

    The rows are kept until `compute`, because most figures are no means over batches: a recall needs the whole
    gallery. `forward` gives the figures of its batch, whose gallery is that batch. `compute_on_cpu=True` keeps the rows
    off the accelerator.

    Args:
        modalities: the names that `update` is given.
        evaluator: what measures, by default the gap and retrieval figures; any function from rows to figures, such as
            `functools.partial(gapless.measure, include=("gap", "mixed"))`.
        options: of `torchmetrics.Metric`.

    Raises:
        UsageError: torchmetrics is not installed, fewer than two modalities, or two of one name.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self, modalities: Sequence[str] = ("image", "text"), *, evaluator: Measured | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.modalities = tuple(modalities)
        if len(self.modalities) < 2 or len(set(self.modalities)) < len(self.modalities):
            raise UsageError(f"expected two modalities or more, each once; got {', '.join(self.modalities) or 'none'}")
        self.evaluator: Measured = GapAndRetrieval() if evaluator is None else evaluator
        for place in range(len(self.modalities)):
            self.add_state(_state(place), default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Mapping[str, Tensor]) -> None:
        """Add pairs.

        Args:
            embeddings: modality -> [pair, dim] floats, row i of each is one pair; a row is NaN where it lacks the
                modality. They need not be unit-norm.

        Raises:
            ValueError: other modalities than those of the metric, or other shapes.
        """
        if set(embeddings) != set(self.modalities):
            raise ValueError(f"expected rows of {', '.join(self.modalities)}, got {', '.join(embeddings) or 'none'}")
        shapes = {name: tuple(rows.shape) for name, rows in embeddings.items()}
        if any(rows.ndim != 2 for rows in embeddings.values()) or len({shape[0] for shape in shapes.values()}) != 1:
            raise ValueError(f"expected [pair, dim] rows of one length for every modality, got {shapes}")
        for place, name in enumerate(self.modalities):
            getattr(self, _state(place)).append(embeddings[name].detach())

    def compute(self) -> Any:
        """key -> scalar tensor, of all pairs that were given.

        Raises:
            UsageError: no pairs were given.
        """
        return {key: torch.tensor(value, device=self.device) for key, value in self._figures().items()}

    def _figures(self) -> dict[str, float]:
        kept = {name: getattr(self, _state(place)) for place, name in enumerate(self.modalities)}
        if any(isinstance(rows, list) and not rows for rows in kept.values()):
            raise UsageError("no pairs were given: call update before compute")
        return plain_figures(self.evaluator({name: dim_zero_cat(rows) for name, rows in kept.items()}))


class GapMetric(GapMetrics):
    """One figure as a scalar; the catalogue of figures says which way is better (`higher_is_better`).

    Args:
        figure: its key, as in docs/figures.md.
        modalities, evaluator, options: as of `GapMetrics`.

    Raises:
        UsageError: as `GapMetrics`; in `compute`, an evaluator that does not give this figure.
    """

    def __init__(
        self,
        figure: str,
        modalities: Sequence[str] = ("image", "text"),
        *,
        evaluator: Measured | None = None,
        **options: Any,
    ) -> None:
        super().__init__(modalities, evaluator=evaluator, **options)
        self.figure = figure
        entry = entry_of(figure)
        known = None if entry is None or entry.better == "neither" else entry.better == "higher"
        object.__setattr__(self, "higher_is_better", known)  # torchmetrics protects the name, which it has for classes

    def compute(self) -> Any:
        """The figure as a scalar tensor."""
        figures = self._figures()
        if self.figure not in figures:
            raise unknown_name("figure", self.figure, figures)
        return torch.tensor(figures[self.figure], device=self.device)


def _state(place: int) -> str:
    """The attribute that keeps the rows of a modality; its name need not be one of Python."""
    return f"rows_{place}"

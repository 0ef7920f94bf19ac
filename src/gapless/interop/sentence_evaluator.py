"""The figures of gapless as an evaluator of sentence-transformers.

evaluator = GapEvaluator({"finding": findings, "impression": impressions}, name="test")
SentenceTransformerTrainer(model=model, evaluator=evaluator, ...)     # or evaluator(model)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gapless.core.errors import UsageError, missing_extra
from gapless.interop.plain_figures import plain_figures
from gapless.training.evaluator import Evaluator, GapAndRetrieval, higher_is_better

try:
    from sentence_transformers.base.evaluation import BaseEvaluator
except ImportError:
    raise missing_extra("sentence-transformers", "interop") from None

MIN_ROWS = 2


class GapEvaluator(BaseEvaluator):
    """Encodes the columns of a data set, each of which is a modality, and measures them as `gapless.measure` does.

    The trainer logs each figure as `eval_<name>_<key>`. The model is chosen by the primary figure of the evaluator,
    the mean reciprocal rank by default; `metric_for_best_model` of the trainer names another one.

    Args:
        columns: modality -> [pair] what the model encodes (texts, images); row i of each is one pair. The whole set is
            one gallery: figures of retrieval depend on its size, which is logged as `gallery_size`.
        evaluator: what measures; by default the gap and retrieval figures.
        name: stands before the keys of the figures.
        batch_size: rows that the model encodes at once.

    Raises:
        UsageError: sentence-transformers is not installed, fewer than two columns or two rows, columns of different
            lengths, a primary figure of which the catalogue does not know which way is better.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        evaluator: Evaluator | None = None,
        name: str = "",
        batch_size: int = 32,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        counts = {column: len(values) for column, values in columns.items()}
        if len(counts) < 2 or len(set(counts.values())) > 1 or min(counts.values()) < MIN_ROWS:
            raise UsageError(f"expected two columns or more of equal length, two rows or more; got {counts}")
        self.columns = {column: list(values) for column, values in columns.items()}
        self.evaluator = GapAndRetrieval() if evaluator is None else evaluator
        self.name = name
        self.batch_size = batch_size
        self.primary_metric = self.evaluator.primary
        self.greater_is_better = higher_is_better(self.evaluator.primary)

    @property
    def description(self) -> str:
        """The heading of the model card."""
        return "Modality gap"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """The figures of a SentenceTransformer by key, `name` before each; `output_path` is not used."""
        with torch.no_grad():
            rows = {
                column: model.encode(
                    values, batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False
                ).cpu()
                for column, values in self.columns.items()
            }
        figures: dict[str, float] = self.prefix_name_to_metrics(plain_figures(self.evaluator(rows)), self.name)
        self.store_metrics_in_model_card_data(model, figures, epoch, steps)
        return figures

"""gapless inside other tools: figures as an evaluator of sentence-transformers and as metrics of torchmetrics."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "GapEvaluator",
    "GapMetric",
    "GapMetrics",
]

if TYPE_CHECKING:
    from gapless.interop.sentence_evaluator import GapEvaluator
    from gapless.interop.torch_metrics import GapMetric, GapMetrics

__getattr__ = lazy_names(
    __name__,
    {
        "GapEvaluator": "gapless.interop.sentence_evaluator",
        "GapMetric": "gapless.interop.torch_metrics",
        "GapMetrics": "gapless.interop.torch_metrics",
    },
)

"""gapless inside other tools: figures as evaluator and metrics, embeddings to and from datasets, LanceDB, faiss, ..."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "GapEvaluator",
    "GapMetric",
    "GapMetrics",
    "from_dataset",
    "from_faiss",
    "from_lance",
    "read_projector",
    "to_dataset",
    "to_faiss",
    "to_lance",
    "write_projector",
]

if TYPE_CHECKING:
    from gapless.interop.faiss_rows import from_faiss, to_faiss
    from gapless.interop.projector import read_projector, write_projector
    from gapless.interop.row_tables import from_dataset, from_lance, to_dataset, to_lance
    from gapless.interop.sentence_evaluator import GapEvaluator
    from gapless.interop.torch_metrics import GapMetric, GapMetrics

__getattr__ = lazy_names(
    __name__,
    {
        "GapEvaluator": "gapless.interop.sentence_evaluator",
        "GapMetric": "gapless.interop.torch_metrics",
        "GapMetrics": "gapless.interop.torch_metrics",
        "from_dataset": "gapless.interop.row_tables",
        "from_faiss": "gapless.interop.faiss_rows",
        "from_lance": "gapless.interop.row_tables",
        "read_projector": "gapless.interop.projector",
        "to_dataset": "gapless.interop.row_tables",
        "to_faiss": "gapless.interop.faiss_rows",
        "to_lance": "gapless.interop.row_tables",
        "write_projector": "gapless.interop.projector",
    },
)

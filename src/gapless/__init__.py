"""gapless: medical multimodal embeddings whose modality gap is closed.

`GapClosingLoss` trains them, `measure` says how large a gap is, `GaplessModel` uses them. Every verb of the command
line is one function of the same name: `gapless.audit(...)` is `gapless data audit`. Each returns a frozen result whose
`as_json()` is what the command prints with `--json`.

The names are loaded when they are first used, so that `import gapless` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "GapClosingLoss",
    "GaplessModel",
    "audit",
    "caption",
    "close",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "evaluate_captions",
    "export",
    "index",
    "measure",
    "report",
    "serve",
    "train",
    "train_captioner",
]

if TYPE_CHECKING:
    from gapless.auditing.audit import audit
    from gapless.captioning.caption_images import caption
    from gapless.captioning.evaluation import evaluate_captions
    from gapless.captioning.runs import train_captioner
    from gapless.closing.close_embeddings import close
    from gapless.inference.embed_data import embed
    from gapless.losses.gap_closing import GapClosingLoss
    from gapless.metrics.measure import measure
    from gapless.models.aligner import GaplessModel
    from gapless.models.export_model import export
    from gapless.search.indexing import index
    from gapless.server.serve import serve
    from gapless.study.compare import compare
    from gapless.study.demo import demo
    from gapless.study.report import report
    from gapless.training.evaluate import evaluate
    from gapless.training.train import train

_HOMES = {
    "GapClosingLoss": "gapless.losses.gap_closing",
    "GaplessModel": "gapless.models.aligner",
    "audit": "gapless.auditing.audit",
    "caption": "gapless.captioning.caption_images",
    "close": "gapless.closing.close_embeddings",
    "compare": "gapless.study.compare",
    "demo": "gapless.study.demo",
    "embed": "gapless.inference.embed_data",
    "evaluate": "gapless.training.evaluate",
    "evaluate_captions": "gapless.captioning.evaluation",
    "export": "gapless.models.export_model",
    "index": "gapless.search.indexing",
    "measure": "gapless.metrics.measure",
    "report": "gapless.study.report",
    "serve": "gapless.server.serve",
    "train": "gapless.training.train",
    "train_captioner": "gapless.captioning.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gapless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""A model over rows: the loop that every verb uses, and the directory of embeddings that it writes."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Embedded",
    "Source",
    "embed_dataset",
    "model_batches",
    "write_embeddings",
]

if TYPE_CHECKING:
    from gapless.inference.embed import Source, embed_dataset, model_batches, write_embeddings
    from gapless.inference.embed_data import Embedded

__getattr__ = lazy_names(
    __name__,
    {
        "Embedded": "gapless.inference.embed_data",
        "Source": "gapless.inference.embed",
        "embed_dataset": "gapless.inference.embed",
        "model_batches": "gapless.inference.embed",
        "write_embeddings": "gapless.inference.embed",
    },
)

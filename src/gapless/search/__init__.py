"""A collection of embeddings, and what is near a query in it: exact or approximate, filtered, with captions."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Collection",
    "Deleted",
    "ExportedRows",
    "Found",
    "Hit",
    "Indexed",
    "Searcher",
    "delete",
    "export_collection",
    "index",
    "search",
]

if TYPE_CHECKING:
    from gapless.search.collection import Collection, Hit
    from gapless.search.export import ExportedRows, export_collection
    from gapless.search.indexing import Indexed, index
    from gapless.search.queries import Deleted, Found, delete, search
    from gapless.search.searcher import Searcher

__getattr__ = lazy_names(
    __name__,
    {
        "Collection": "gapless.search.collection",
        "Deleted": "gapless.search.queries",
        "ExportedRows": "gapless.search.export",
        "Found": "gapless.search.queries",
        "Hit": "gapless.search.collection",
        "Indexed": "gapless.search.indexing",
        "Searcher": "gapless.search.searcher",
        "delete": "gapless.search.queries",
        "export_collection": "gapless.search.export",
        "index": "gapless.search.indexing",
        "search": "gapless.search.queries",
    },
)

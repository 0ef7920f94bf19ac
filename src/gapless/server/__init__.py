"""The page and the API of a collection, on this computer."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Served",
    "create_app",
]

if TYPE_CHECKING:
    from gapless.server.app import create_app
    from gapless.server.serve import Served

__getattr__ = lazy_names(
    __name__,
    {
        "Served": "gapless.server.serve",
        "create_app": "gapless.server.app",
    },
)

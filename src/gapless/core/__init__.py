"""The parts that every room uses: errors, files, locks, cells of tables, geometry, registries. It imports no room."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Registry",
    "Result",
]

if TYPE_CHECKING:
    from gapless.core.registry import Registry
    from gapless.core.results import Result

__getattr__ = lazy_names(
    __name__,
    {
        "Registry": "gapless.core.registry",
        "Result": "gapless.core.results",
    },
)

"""Closing the gap of frozen embeddings: one file a method, the split that judges them, and the model written."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "CLOSING_METHODS",
    "AdapterSettings",
    "ClosedGap",
    "ClosingMethod",
    "ClosingPairs",
    "ClosingSettings",
    "FittedMethod",
    "close_gap",
]

if TYPE_CHECKING:
    from gapless.closing.base import CLOSING_METHODS, ClosingMethod, ClosingPairs, ClosingSettings, FittedMethod
    from gapless.closing.close import ClosedGap, close_gap
    from gapless.closing.trained_heads import AdapterSettings

__getattr__ = lazy_names(
    __name__,
    {
        "AdapterSettings": "gapless.closing.trained_heads",
        "CLOSING_METHODS": "gapless.closing.base",
        "ClosedGap": "gapless.closing.close",
        "ClosingMethod": "gapless.closing.base",
        "ClosingPairs": "gapless.closing.base",
        "ClosingSettings": "gapless.closing.base",
        "FittedMethod": "gapless.closing.base",
        "close_gap": "gapless.closing.close",
    },
)

"""Losses: pure functions on embeddings, and `GapClosingLoss`, which holds the temperature and the weights."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "METHODS",
    "GapClosingLoss",
    "GapClosingSettings",
    "GapLossTerms",
    "Loss",
    "Method",
    "Schedule",
    "Terms",
    "align_true_pairs",
    "cached_embeddings",
    "centroid_uniformity",
    "info_nce",
    "split_batch",
    "symmetric_info_nce",
]

if TYPE_CHECKING:
    from gapless.losses.base import METHODS, Loss, Method, Terms
    from gapless.losses.contrastive import info_nce, symmetric_info_nce
    from gapless.losses.engine.cached import cached_embeddings, split_batch
    from gapless.losses.gap_closing import GapClosingLoss, GapLossTerms, align_true_pairs, centroid_uniformity
    from gapless.losses.gap_closing_methods import GapClosingSettings
    from gapless.losses.schedules import Schedule

__getattr__ = lazy_names(
    __name__,
    {
        "METHODS": "gapless.losses.base",
        "GapClosingLoss": "gapless.losses.gap_closing",
        "GapClosingSettings": "gapless.losses.gap_closing_methods",
        "GapLossTerms": "gapless.losses.gap_closing",
        "Loss": "gapless.losses.base",
        "Method": "gapless.losses.base",
        "Schedule": "gapless.losses.schedules",
        "Terms": "gapless.losses.base",
        "align_true_pairs": "gapless.losses.gap_closing",
        "cached_embeddings": "gapless.losses.engine.cached",
        "centroid_uniformity": "gapless.losses.gap_closing",
        "info_nce": "gapless.losses.contrastive",
        "split_batch": "gapless.losses.engine.cached",
        "symmetric_info_nce": "gapless.losses.contrastive",
    },
)

"""The collection as a whole: the plane of its pairs and their figures, computed once for each version of the table."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gapless.core.errors import UsageError
from gapless.metrics.catalogue import GAP_HEADLINES, headline_of
from gapless.metrics.measure import measure
from gapless.metrics.projection import principal_plane
from gapless.pages.palette import modality_mark
from gapless.search.collection import Collection, Pairs, key_of

MAX_PAIRS = 1000
MIN_PAIRS = 2
FIGURES = ("gap", "retrieval", "mixed", "probe", "further")
QUICK_FIGURES = ("gap", "retrieval")


class Overview:
    """The map of a collection, made when it is first asked for and again when the collection has changed."""

    def __init__(self, collection: Collection, max_pairs: int = MAX_PAIRS) -> None:
        self.collection = collection
        self.max_pairs = max_pairs
        self._lock = threading.Lock()
        self._version: int | None = None
        self._map: dict[str, Any] = {}

    def map(self) -> dict[str, Any]:
        """Points, pairs and figures as the page draws them.

        Raises:
            UsageError: fewer than two samples with a row in every modality.
        """
        with self._lock:
            version = self.collection.snapshot().version
            if version != self._version:
                self._map = map_of(self.collection.pairs(self.max_pairs), self.max_pairs)
                self._version = version
            return self._map


def map_of(pairs: Pairs, max_pairs: int) -> dict[str, Any]:
    if len(pairs.vectors) < 2 or len(pairs.ids) < MIN_PAIRS:
        raise UsageError("a map needs two samples or more that have a row in each of two modalities or more")
    points, shares = principal_plane(pairs.vectors)
    figures = figures_of(pairs)
    modalities = list(pairs.vectors)
    first, second = list(pairs.vectors.values())[:2]
    cosines = np.einsum("pd,pd->p", first, second)
    return {
        "num_pairs": len(pairs.ids),
        "is_sample": len(pairs.ids) == max_pairs,
        "shares": shares,
        "modalities": [
            {"name": name, "x": where[:, 0].round(5).tolist(), "y": where[:, 1].round(5).tolist(), **modality_mark(n)}
            for n, (name, where) in enumerate(points.items())
        ],
        "pairs": [
            {
                "id": pairs.ids[n],
                "row": pairs.thumbnails[n] or key_of(pairs.ids[n], modalities[0]),
                "caption": pairs.captions[n],
                "thumbnail": pairs.thumbnails[n],
                "labels": {name: values[n] for name, values in pairs.labels.items()},
                "cosine": round(float(cosines[n]), 4),
            }
            for n in range(len(pairs.ids))
        ],
        "labels": list(pairs.labels),
        "headlines": {headline_of(key): number for key in GAP_HEADLINES if (number := figures.get(key)) is not None},
        "figures": figures,
    }


def figures_of(pairs: Pairs) -> dict[str, float]:
    """The figures of these pairs; those that so few or such alike rows do not allow are left out."""
    rows = {name: torch.from_numpy(np.ascontiguousarray(matrix)) for name, matrix in pairs.vectors.items()}
    groups = None if None in pairs.groups else pairs.groups
    captions = [caption or "" for caption in pairs.captions]
    found = measured(rows, groups, captions, FIGURES) or measured(rows, groups, captions, QUICK_FIGURES) or {}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float) and np.isfinite(value)}


def measured(
    rows: Mapping[str, torch.Tensor], groups: Sequence[Any] | None, captions: Sequence[str], parts: Sequence[str]
) -> dict[str, Any] | None:
    try:
        return measure(rows, groups=groups, captions=captions, include=parts)
    except ValueError:
        return None

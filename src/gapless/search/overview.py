"""The map of a collection: a plane of its samples, and their figures, computed once for each version of the table."""

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
            version = self.collection.table_version().number
            if version != self._version:
                self._map = map_of(self.collection.pairs(self.max_pairs), self.max_pairs)
                self._version = version
            return self._map


def map_of(pairs: Pairs, max_pairs: int) -> dict[str, Any]:
    """What the page draws: points are null where a sample lacks a modality, and modalities without a point left out."""
    present = {name: mask for name, mask in pairs.present.items() if mask.any()}
    if len(present) < 2 or len(pairs.ids) < MIN_PAIRS:
        raise UsageError("a map needs two samples or more that have rows of two modalities or more")
    points, shares = principal_plane({name: pairs.vectors[name][mask] for name, mask in present.items()})
    figures = figures_of(pairs)
    firsts = [[name for name, mask in present.items() if mask[n]][:2] for n in range(len(pairs.ids))]
    return {
        "num_pairs": len(pairs.ids),
        "is_sample": len(pairs.ids) == max_pairs,
        "shares": shares,
        "modalities": [
            {
                "name": name,
                "x": _at_places(points[name][:, 0], present[name]),
                "y": _at_places(points[name][:, 1], present[name]),
                **modality_mark(number),
            }
            for number, name in enumerate(pairs.present)
            if name in present
        ],
        "pairs": [
            {
                "id": pairs.ids[n],
                "row": pairs.thumbnails[n] or key_of(pairs.ids[n], firsts[n][0]),
                "caption": pairs.captions[n],
                "thumbnail": pairs.thumbnails[n],
                "labels": {name: values[n] for name, values in pairs.labels.items()},
                "cosine": round(float(np.dot(*(pairs.vectors[name][n] for name in firsts[n]))), 4),
            }
            for n in range(len(pairs.ids))
        ],
        "labels": list(pairs.labels),
        "headlines": {headline_of(key): number for key in GAP_HEADLINES if (number := figures.get(key)) is not None},
        "figures": figures,
    }


def _at_places(values: np.ndarray, mask: np.ndarray) -> list[float | None]:
    """[sample] the values of the samples that have one, and None for the others."""
    rest = iter(values.round(5).tolist())
    return [next(rest) if has else None for has in mask]


def figures_of(pairs: Pairs) -> dict[str, float]:
    """The figures of these samples; those that so few or such alike rows do not allow are left out.

    With more than two modalities every pair stands on the samples that have both.
    """
    names = [name for name, mask in pairs.present.items() if mask.any()]
    rows = {name: torch.from_numpy(np.ascontiguousarray(pairs.vectors[name])) for name in names}
    present = {name: torch.from_numpy(pairs.present[name]) for name in names}
    given = {
        "groups": None if None in pairs.groups else pairs.groups,
        "captions": [caption or "" for caption in pairs.captions],
        "present": None if all(mask.all() for mask in present.values()) else present,
    }
    found = measured(rows, FIGURES, **given) or measured(rows, QUICK_FIGURES, **given) or {}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float) and np.isfinite(value)}


def measured(rows: Mapping[str, torch.Tensor], parts: Sequence[str], **given: Any) -> dict[str, Any] | None:
    try:
        return measure(rows, include=parts, **given)
    except ValueError:
        return None

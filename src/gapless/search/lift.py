"""Balanced scores of the rows of a version of a collection, for one query."""

import threading
from collections.abc import Mapping

import numpy as np

from gapless.search.balance import SAME, Balance
from gapless.search.row_readers import Rows
from gapless.search.table_version import TableVersion


class RowHubs:
    """The hub corrections of a version's rows, computed from the stored bank once for each modality asked with.

    They are not stored, so that rows that were added, replaced or deleted cannot have a wrong one.
    """

    def __init__(self, version: TableVersion, balance: Balance) -> None:
        self.version = version
        self.balance = balance
        self._lock = threading.Lock()
        self._all: dict[str, np.ndarray] = {}

    def of(self, rows: Rows, weights: Mapping[str, float]) -> np.ndarray:
        """[row] the corrections by the weights of the modalities asked with."""
        return np.asarray(sum(weight * self._of(rows, asked) for asked, weight in weights.items()))

    def _of(self, rows: Rows, asked: str) -> np.ndarray:
        known = self._all.get(asked)
        if not rows.is_whole:
            if known is not None:
                return np.asarray(known[rows.places])
            return self.balance.hubs_of(rows.vectors, asked).astype(np.float32)
        with self._lock:  # threads that come together wait for one pass
            if asked not in self._all:
                corrections = np.empty(len(self.version), dtype=np.float32)
                for some in self.version.batches():
                    corrections[some.places] = self.balance.hubs_of(some.vectors, asked)
                self._all[asked] = corrections
        return self._all[asked]


class BalancedLift:
    """Makes balanced scores of cosines; see `table_version.Lift`.

    A copy of the query comes first whatever its modality: it scores what a cosine of 1 is worth at most.

    Args:
        hubs: the corrections of the rows.
        query: [dim], unit norm.
        asked_with: modality -> its share of the query; empty where it is not known.
    """

    def __init__(self, hubs: RowHubs, query: np.ndarray, asked_with: Mapping[str, float]) -> None:
        balance = hubs.balance
        self.factors, self.summands = balance.slopes(query, asked_with)
        self.steepest = float(self.factors.max())
        places = {name: place for place, name in enumerate(balance.modalities)}
        # [number of a modality in the collection] its place in the balance
        self._places = np.array([places.get(name, -1) for name in hubs.version.modalities])
        self._weights = balance.weights(asked_with)
        self._hubs = hubs if balance.hub_correction else None

    def __call__(self, rows: Rows, cosines: np.ndarray, *, final: bool) -> np.ndarray:
        copies = cosines > 1 - SAME if final else None
        if self._hubs is not None:
            cosines = cosines - self._hubs.of(rows, self._weights).astype(cosines.dtype)
        by_modality = (part.astype(cosines.dtype)[self._places] for part in (self.factors, self.summands))
        factors, summands = (part[rows.modalities] for part in by_modality)
        lifted: np.ndarray = np.multiply(cosines, factors, out=factors)
        lifted += summands
        if copies is not None and copies.any():
            lifted[copies] = (self.factors + self.summands).max()
        return lifted

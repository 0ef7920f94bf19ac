"""Balanced scores of the rows of a version of a collection, for one query."""

import threading
from collections.abc import Mapping

import numpy as np

from gapless.search.balance import SAME, Balance
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

    def of(self, places: np.ndarray | None, weights: Mapping[str, float]) -> np.ndarray:
        """[row] the corrections by the weights of the modalities asked with; of all rows where places are None."""
        return np.asarray(sum(weight * self._of(places, asked) for asked, weight in weights.items()))

    def _of(self, places: np.ndarray | None, asked: str) -> np.ndarray:
        if places is not None:
            known = self._all.get(asked)
            if known is not None:
                return np.asarray(known[places])
            return self.balance.hubs_of(self.version.vectors(places), asked).astype(np.float32)
        with self._lock:  # threads that come together wait for one pass
            if asked not in self._all:
                corrections = np.empty(len(self.version), dtype=np.float32)
                for some, vectors in self.version.batches():
                    corrections[some] = self.balance.hubs_of(vectors, asked)
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
        self._codes = hubs.version.modality_codes(balance.modalities)
        self._weights = balance.weights(asked_with)
        self._hubs = hubs if balance.hub_correction else None

    def __call__(self, places: np.ndarray | None, cosines: np.ndarray) -> np.ndarray:
        copies = None if places is None else cosines > 1 - SAME
        codes = self._codes if places is None else self._codes[places]
        if self._hubs is not None:
            cosines = cosines - self._hubs.of(places, self._weights).astype(cosines.dtype)
        factors, summands = (part.astype(cosines.dtype)[codes] for part in (self.factors, self.summands))
        lifted: np.ndarray = np.multiply(cosines, factors, out=factors)
        lifted += summands
        if copies is not None and copies.any():
            lifted[copies] = (self.factors + self.summands).max()
        return lifted

"""A dataset of precomputed embeddings, which gives batches to the trainer and to inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class VectorPairs(Dataset[Any]):
    """Row i of each matrix as one pair; a batch is read with one index operation, which is faster than row by row.

    Args:
        embeddings: modality -> [pair, dim] array or memory map, rows aligned; dims may differ.
        ids: [pair] names of the rows.
        rows: which rows, default all.
        positives: [pair] integers for the loss (rows that share one are positives of each other), or None.
    """

    def __init__(
        self,
        embeddings: Mapping[str, np.ndarray],
        ids: Sequence[str],
        rows: np.ndarray | None = None,
        positives: np.ndarray | None = None,
    ) -> None:
        self.embeddings = dict(embeddings)
        self.ids = ids
        self.rows = np.arange(len(ids)) if rows is None else rows
        self.positives = positives

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The collated batch of these `row` or `(epoch, row)` keys."""
        rows = self.rows[[key[1] if isinstance(key, tuple) else key for key in keys]]
        batch: dict[str, Any] = {
            "batch": {name: {"values": _as_tensor(matrix[rows])} for name, matrix in self.embeddings.items()},
            "ids": [self.ids[row] for row in rows],
        }
        if self.positives is not None:
            batch["positives"] = torch.from_numpy(self.positives[rows])
        return batch


def _as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

"""A dataset of precomputed embeddings, which gives batches to the trainer and to inference."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gapless.embeddings.stored_rows import StoredRows


class VectorPairs(Dataset[Any]):
    """Row i of each matrix as one pair; a batch is read with one index operation, which is faster than row by row.

    Args:
        embeddings: modality -> [pair, dim] array, memory map or stored rows, rows aligned; dims may differ.
        ids: [pair] names of the rows.
        rows: which rows, default all.
        positives: [pair] integers for the loss (rows that share one are positives of each other), or None.
        labels: [pair] integers of classes, -1 where missing, for a loss that compares labels; a batch then holds [row,
            class] 0 or 1. None: no loss compares them.
        present: modality -> [pair] bool, whether a row has it; a modality that is not named is in every row. A batch
            then holds the values of the rows that have a modality, and `present`, which rows those are.
    """

    def __init__(
        self,
        embeddings: Mapping[str, np.ndarray | StoredRows],
        ids: Sequence[str],
        rows: np.ndarray | None = None,
        positives: np.ndarray | None = None,
        present: Mapping[str, np.ndarray] | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.embeddings = dict(embeddings)
        self.ids = ids
        self.rows = np.arange(len(ids)) if rows is None else rows
        self.positives = positives
        self.labels = labels
        self.present = None if present is None else presence_of(present, self.embeddings, len(ids))

    @property
    def lacks_modalities(self) -> bool:
        """Whether one of the rows lacks a modality."""
        return self.present is not None and any(not mask[self.rows].all() for mask in self.present.values())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The collated batch of these `row` or `(epoch, row)` keys."""
        rows = self.rows[[key[1] if isinstance(key, tuple) else key for key in keys]]
        batch: dict[str, Any] = {"batch": {}, "ids": [self.ids[row] for row in rows]}
        for name, matrix in self.embeddings.items():
            own = rows if self.present is None else rows[self.present[name][rows]]
            if len(own):
                batch["batch"][name] = {"values": _as_tensor(matrix[own])}
        if self.present is not None:
            batch["present"] = {name: torch.from_numpy(mask[rows]) for name, mask in self.present.items()}
        if self.positives is not None:
            batch["positives"] = torch.from_numpy(self.positives[rows])
        if self.labels is not None:
            classes = np.arange(self.labels.max() + 1, dtype=self.labels.dtype)
            batch["labels"] = _as_tensor(self.labels[rows, None] == classes)
        return batch


def presence_of(given: Mapping[str, np.ndarray], names: Iterable[str], num_rows: int) -> dict[str, np.ndarray]:
    """modality -> [pair] bool for every name; all rows have what is not given.

    Raises:
        ValueError: a mask of an unknown modality, or one that is not one bool a row.
    """
    masks = dict.fromkeys(names, np.ones(num_rows, dtype=bool))
    for name, mask in given.items():
        if name not in masks:
            raise ValueError(f"present names {name!r}, and the modalities are {', '.join(masks)}")
        if np.asarray(mask).dtype != bool or np.shape(mask) != (num_rows,):
            raise ValueError(f"present[{name!r}] must be {num_rows} bools, one for each row, got {np.shape(mask)}")
        masks[name] = np.asarray(mask)
    return masks


def _as_tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.float()
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

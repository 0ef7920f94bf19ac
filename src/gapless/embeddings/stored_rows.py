"""Unit-norm rows that stay where they are stored, a memory-mapped file for one, and are read block by block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gapless.metrics.inputs import UnitRows, read_embeddings


class StoredRows:
    """The [row, dim] rows of one modality; `rows[slice]` and `rows[indices]` are unit-norm fp32 tensors on the CPU.

    Args:
        rows: where they are read from.
        chosen: row numbers, for a part of them in this order; default: all.
    """

    def __init__(self, rows: UnitRows, chosen: np.ndarray | None = None) -> None:
        self._rows = rows
        self._chosen = chosen

    @classmethod
    def checked(cls, name: str, matrix: Any, present: Mapping[str, Tensor] | None = None) -> "StoredRows":
        """Of one modality; rows that are absent are zeros.

        Raises:
            ValueError: no [row, dim] matrix of floats. DataRefused: rows with NaN or infinite values, or of zeros.
        """
        return cls(read_embeddings({name: matrix}, minimum=1, present=present)[name])

    @classmethod
    def of_file(cls, path: Path) -> "StoredRows":
        """Of a .npy file of finite rows that are not zero."""
        return cls.checked(path.stem, np.load(path, mmap_mode="r", allow_pickle=False))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self._rows.shape[1]

    def __len__(self) -> int:
        return len(self._rows) if self._chosen is None else len(self._chosen)

    def __getitem__(self, part: slice | np.ndarray) -> Tensor:
        return self._rows[part if self._chosen is None else self._chosen[part]].float()

    def take(self, chosen: np.ndarray) -> "StoredRows":
        """Some of the rows, of which none is read yet."""
        return StoredRows(self._rows, chosen if self._chosen is None else self._chosen[chosen])


Rows = Tensor | StoredRows


def some_rows(rows: Rows, chosen: np.ndarray) -> Rows:
    """Some of the rows: a copy of those that are in memory, none of those that are stored."""
    return rows[chosen] if isinstance(rows, Tensor) else rows.take(chosen)

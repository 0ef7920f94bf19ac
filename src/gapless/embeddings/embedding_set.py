"""Paired embeddings in memory, with their ids, groups, labels and captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import refuse_missing

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class EmbeddingSet:
    """Paired embeddings: row i of every matrix is one pair.

    Args:
        ids: one name per row.
        embeddings: modality -> [pair, dim] array or memory map, in the precision it was stored in.
        groups: names of groups (article, patient), which splits keep whole, or None.
        labels: name -> one value per row; "" or None where missing.
        splits: one name per row, "" where missing, or None.
        captions: the caption of each row that was embedded, "" where missing, or None.
        positives: the item that each row shows, such as its image where an image has several captions; "" where
            missing; or None. Rows of one item are positives of each other.
        info: facts on the model and the data (fingerprints, source).
        has_ids: False when the ids are only row numbers.
        origin: the file or directory, for messages.
        notes: sentences on columns that are not used.
    """

    ids: list[str]
    embeddings: dict[str, np.ndarray]
    groups: list[str] | None = None
    labels: dict[str, list[Any]] = field(default_factory=dict)
    splits: list[str] | None = None
    captions: list[str] | None = None
    positives: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    has_ids: bool = True
    origin: str = "the embeddings"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the matrices."""
        return tuple(self.embeddings)

    def take(self, rows: Sequence[int] | np.ndarray) -> "EmbeddingSet":
        """These rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            ids=_pick(self.ids, rows),
            embeddings={name: matrix[rows] for name, matrix in self.embeddings.items()},
            groups=None if self.groups is None else _pick(self.groups, rows),
            labels={name: _pick(values, rows) for name, values in self.labels.items()},
            splits=None if self.splits is None else _pick(self.splits, rows),
            captions=None if self.captions is None else _pick(self.captions, rows),
            positives=None if self.positives is None else _pick(self.positives, rows),
        )

    def select(self, split: str) -> "EmbeddingSet":
        """The rows of one split.

        Raises:
            UsageError: no splits, or none of that name.
        """
        names = sorted(set(self.splits or []) - {""})
        if split not in names:
            raise UsageError(f"the embeddings have no split {split!r}; known: {', '.join(names) or 'none'}")
        assert self.splits is not None
        return self.take([row for row, name in enumerate(self.splits) if name == split])


def _pick(values: Sequence[Any], rows: np.ndarray) -> list[Any]:
    return [values[row] for row in rows.tolist()]


def check_rows(embeddings: EmbeddingSet) -> None:
    """Raise DataRefused for rows that are zero or not finite or lack an id or a group, and for repeated ids."""
    refuse_missing(embeddings.origin, "id", embeddings.ids)
    refuse_missing(embeddings.origin, "group", embeddings.groups or [])
    seen: set[str] = set()
    repeated = [name for name in embeddings.ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if repeated:
        raise DataRefused(
            f"{len(repeated)} ids occur more than once (first {listed_names(repeated)}); ids name one row each"
        )
    for name, matrix in embeddings.embeddings.items():
        if len(matrix) != len(embeddings):
            raise DataRefused(f"{name} has {len(matrix)} rows, but there are {len(embeddings)} ids")
        broken, zero = np.zeros(len(matrix), dtype=bool), np.zeros(len(matrix), dtype=bool)
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = np.asarray(matrix[start : start + ROWS_AT_ONCE])
            broken[start : start + len(rows)] = ~np.isfinite(rows).all(axis=1)
            zero[start : start + len(rows)] = ~rows.any(axis=1)
        refuse_rows(name, "hold NaN or infinite values", broken, embeddings.ids)
        refuse_rows(name, "are all zeros and have no direction", zero, embeddings.ids)


def refuse_rows(name: str, what: str, bad: np.ndarray, ids: Sequence[Any]) -> None:
    """Raise DataRefused that counts the marked rows and names the first ten, when there are any."""
    marked = np.flatnonzero(bad)
    if len(marked):
        raise DataRefused(f"{name}: {len(marked)} of {len(bad)} rows {what} ({listed_names(_pick(ids, marked))})")


def listed_names(names: Sequence[Any]) -> str:
    """The first ten names as text."""
    return ", ".join(map(str, names[:10]))

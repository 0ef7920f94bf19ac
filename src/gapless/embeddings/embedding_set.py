"""Paired embeddings in memory, with their ids, groups, labels and captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import refuse_missing
from gapless.embeddings.row_states import RowStates


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
        present: modality -> [pair] bool, whether a row has it; a modality that is not named is in every row, and None
            means that nothing is missing. What a matrix holds in an absent row is never used.
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
    present: Mapping[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the matrices."""
        return tuple(self.embeddings)

    @property
    def presence(self) -> dict[str, np.ndarray]:
        """Modality -> [pair] bool for every modality.

        Raises:
            ValueError: `present` names an unknown modality, or is not one bool a row.
        """
        masks = dict.fromkeys(self.embeddings, np.ones(len(self), dtype=bool))
        for name, given in (self.present or {}).items():
            mask = np.asarray(given)
            if name not in masks or mask.dtype != bool or mask.shape != (len(self),):
                raise ValueError(
                    f"present is one bool a row for each of {', '.join(masks)}; got {name} with {mask.dtype} "
                    f"{mask.shape} for {len(self)} rows"
                )
            masks[name] = mask
        return masks

    @property
    def is_complete(self) -> bool:
        """Whether every row has every modality."""
        return self.present is None or all(mask.all() for mask in self.presence.values())

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
            present=None if self.present is None else {name: mask[rows] for name, mask in self.presence.items()},
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


def check_rows(embeddings: EmbeddingSet, advice: str = "") -> None:
    """Raise DataRefused for rows that are zero or not finite or lack an id or a group, and for repeated ids.

    Args:
        advice: what to do about rows of nothing but NaN, for the message.
    """
    check_columns(embeddings)
    for name, matrix in embeddings.embeddings.items():
        states = RowStates.of(matrix)
        refuse_rows(
            name,
            "hold NaN or infinite values",
            states.broken,
            embeddings.ids,
            advice if states.empty.any() else "",
        )
        refuse_rows(name, "are all zeros and have no direction", states.zero, embeddings.ids)


def check_columns(embeddings: EmbeddingSet) -> None:
    """Raise DataRefused for rows that lack an id or a group, for repeated ids, and for another number of rows."""
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


def refuse_rows(name: str, what: str, bad: np.ndarray, ids: Sequence[Any], advice: str = "") -> None:
    """Raise DataRefused that counts the marked rows and names the first ten, when there are any."""
    marked = np.flatnonzero(bad)
    if len(marked):
        first = listed_names(_pick(ids, marked))
        raise DataRefused(f"{name}: {len(marked)} of {len(bad)} rows {what} ({first}){advice and f'; {advice}'}")


def listed_names(names: Sequence[Any]) -> str:
    """The first ten names as text."""
    return ", ".join(map(str, names[:10]))

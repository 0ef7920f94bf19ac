"""Paired embeddings in memory: the rows, what is known of them, and how several sets become one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gapless.errors import DataRefused, UsageError

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class EmbeddingSet:
    """Paired embeddings: row i of every matrix is one pair.

    Args:
        ids: one name per row.
        embeddings: modality -> [pair, dim] array or memory map, in the precision it was stored in.
        groups: what must not be split, or None.
        labels: name -> one value per row; "" or None where missing.
        splits: or None.
        captions: the caption that was embedded, or None.
        info: what is known of the model and the data.
        has_ids: False when the ids are only row numbers.
    """

    ids: list[str]
    embeddings: dict[str, np.ndarray]
    groups: list[str] | None = None
    labels: dict[str, list[Any]] = field(default_factory=dict)
    splits: list[str] | None = None
    captions: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    has_ids: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
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
        )

    def select(self, split: str) -> "EmbeddingSet":
        """The rows of one split.

        Raises:
            UsageError: no splits, or none of that name.
        """
        known = sorted(set(self.splits or []))
        if split not in known:
            raise UsageError(f"the embeddings have no split {split!r}; known: {', '.join(known) or 'none'}")
        assert self.splits is not None
        return self.take([row for row, name in enumerate(self.splits) if name == split])


def _pick(values: Sequence[Any], rows: np.ndarray) -> list[Any]:
    return [values[row] for row in rows.tolist()]


def check_rows(embeddings: EmbeddingSet) -> None:
    """Refuse rows without a direction and ids that repeat, named and counted."""
    seen: set[str] = set()
    twice = [name for name in embeddings.ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise DataRefused(f"{len(twice)} ids occur more than once (first {listed_names(twice)}); ids name one row each")
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
    return ", ".join(map(str, names[:10]))


def end_to_end(parts: list[EmbeddingSet]) -> EmbeddingSet:
    """Sets of the same modalities, one after the other; a column stays when all have it."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].modalities
    dims = {tuple(part.embeddings[name].shape[1] for name in names) for part in parts}
    if len(dims) > 1:
        raise DataRefused(
            f"the embeddings differ in dim ({' and '.join(map(str, sorted(dims)))}) for {', '.join(names)}"
        )

    def column(get: Any) -> Any:
        values = [get(part) for part in parts]
        return None if any(value is None for value in values) else [one for value in values for one in value]

    has_ids = all(part.has_ids for part in parts)
    shared = [name for name in parts[0].labels if all(name in part.labels for part in parts)]
    return EmbeddingSet(
        ids=column(lambda part: part.ids) if has_ids else [str(row) for row in range(sum(map(len, parts)))],
        embeddings={name: np.concatenate([part.embeddings[name] for part in parts]) for name in names},
        groups=column(lambda part: part.groups),
        labels={name: column(lambda part, name=name: part.labels[name]) for name in shared},
        splits=column(lambda part: part.splits),
        captions=column(lambda part: part.captions),
        info={"parts": [part.info for part in parts]},
        has_ids=has_ids,
    )


def join(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """Sets of different modalities, matched by id."""
    both = set(first.modalities) & set(second.modalities)
    if both:
        raise UsageError(
            f"cannot combine embeddings of {', '.join(first.modalities)} with {', '.join(second.modalities)}: "
            f"they share {', '.join(sorted(both))}"
        )
    check_same_ids(sorted(first.ids), sorted(second.ids))
    if first.ids != second.ids:
        row_of = {name: row for row, name in enumerate(second.ids)}
        second = second.take([row_of[name] for name in first.ids])
    return EmbeddingSet(
        ids=first.ids,
        embeddings={**first.embeddings, **second.embeddings},
        groups=first.groups or second.groups,
        labels={**second.labels, **first.labels},
        splits=first.splits or second.splits,
        captions=first.captions or second.captions,
        info={"parts": [first.info, second.info]},
        has_ids=first.has_ids and second.has_ids,
    )


def check_same_ids(first: list[str], second: list[str]) -> None:
    if first == second:
        return
    only_first, only_second = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    if only_first or only_second:
        raise DataRefused(
            f"ids do not match: {len(only_first)} only in the first ({listed_names(only_first) or 'none'}), "
            f"{len(only_second)} only in the second ({listed_names(only_second) or 'none'})"
        )
    row = next((row for row, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), len(first))
    raise DataRefused(f"ids stand in another order or repeat: row {row} differs; row i of every file must be one pair")

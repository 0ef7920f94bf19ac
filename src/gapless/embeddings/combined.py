"""Combines several sets of embeddings into one; columns of either are used, and contradictions are refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import is_missing, name_of
from gapless.embeddings.embedding_set import EmbeddingSet, listed_names

NAMES = ("groups", "splits", "positives")  # columns that every set must have when one of them has it


def end_to_end(parts: list[EmbeddingSet]) -> EmbeddingSet:
    """Sets of the same modalities, one after the other.

    Labels and captions that some of them lack are missing in their rows, and a note says so.

    Raises:
        DataRefused: dims that differ; groups, splits or positives that some of them lack.
    """
    if len(parts) == 1:
        return parts[0]
    names = parts[0].modalities
    dims = {tuple(part.embeddings[name].shape[1] for name in names) for part in parts}
    if len(dims) > 1:
        raise DataRefused(
            f"the embeddings differ in dim ({' and '.join(map(str, sorted(dims)))}) for {', '.join(names)}"
        )
    notes: list[str] = [note for part in parts for note in part.notes]

    def column(kind: str, values: Sequence[Sequence[Any] | None], fill: Any) -> list[Any] | None:
        lacking = [part.origin for part, one in zip(parts, values, strict=True) if one is None]
        if len(lacking) == len(parts):
            return None
        if lacking and kind in NAMES:
            having = next(part.origin for part, one in zip(parts, values, strict=True) if one is not None)
            raise DataRefused(f"{having} has {kind}, and {listed_names(lacking)} has none; give every row one, or none")
        if lacking:
            notes.append(f"{listed_names(lacking)} has no {kind}; it is missing in its rows")
        return [
            cell
            for part, one in zip(parts, values, strict=True)
            for cell in (one if one is not None else [fill] * len(part))
        ]

    has_ids = all(part.has_ids for part in parts)
    if not has_ids and any(part.has_ids for part in parts):
        lacking = [part.origin for part in parts if not part.has_ids]
        notes.append(f"{listed_names(lacking)} has no ids, so the ids of the others are not used")
    labels = list(dict.fromkeys(name for part in parts for name in part.labels))
    return EmbeddingSet(
        ids=[name for part in parts for name in part.ids] if has_ids else list(map(str, range(sum(map(len, parts))))),
        embeddings={name: np.concatenate([part.embeddings[name] for part in parts]) for name in names},
        labels={
            name: column(f"label {name!r}", [part.labels.get(name) for part in parts], None) or [] for name in labels
        },
        captions=column("captions", [part.captions for part in parts], ""),
        **{kind: column(kind, [getattr(part, kind) for part in parts], "") for kind in NAMES},
        info={"parts": [part.info for part in parts]},
        has_ids=has_ids,
        origin=" and ".join(part.origin for part in parts),
        notes=tuple(notes),
        present=None
        if all(part.present is None for part in parts)
        else {name: np.concatenate([part.presence[name] for part in parts]) for name in names},
    )


def join(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """Sets of different modalities, matched by id; by their order where neither has ids.

    Raises:
        UsageError: they share a modality. DataRefused: ids in only one of them or that do not match, columns that
        disagree.
    """
    both = set(first.modalities) & set(second.modalities)
    if both:
        raise UsageError(
            f"cannot combine embeddings of {', '.join(first.modalities)} with {', '.join(second.modalities)}: "
            f"they share {', '.join(sorted(both))}"
        )
    if first.has_ids != second.has_ids:
        having, lacking = (first, second) if first.has_ids else (second, first)
        raise DataRefused(
            f"{having.origin} has ids and {lacking.origin} has none, so their rows cannot be matched; where row i of "
            "both is one pair, give them as --image A --text B"
        )
    check_same_ids(
        sorted(first.ids), sorted(second.ids), "; --missing keep|drop takes the ones without a pair as absent"
    )
    if first.ids != second.ids:
        row_of = {name: row for row, name in enumerate(second.ids)}
        second = second.take([row_of[name] for name in first.ids])
    return side_by_side(first, second)


def join_any(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """As `join`, but a row whose id only one of the sets has is absent in the modalities of the other.

    Raises:
        UsageError, DataRefused: as `join`, but for ids that do not match; ids that repeat.
    """
    if set(first.modalities) & set(second.modalities) or not (first.has_ids and second.has_ids):
        return join(first, second)
    for part in (first, second):
        if len(set(part.ids)) < len(part):
            raise DataRefused(f"{part.origin} has ids that occur more than once; ids name one row each")
    ids = list(dict.fromkeys([*first.ids, *second.ids]))
    return side_by_side(_spread(first, ids), _spread(second, ids))


def _spread(part: EmbeddingSet, ids: list[str]) -> EmbeddingSet:
    """The set with a row for each of these ids; those that it does not have are absent, and missing in its columns."""
    if part.ids == ids:
        return part
    row_of = {name: row for row, name in enumerate(part.ids)}
    rows = [row_of.get(name) for name in ids]
    is_there = np.array([row is not None for row in rows])
    taken = part.take([row or 0 for row in rows])

    def without(values: list[Any] | None, fill: Any) -> list[Any] | None:
        return None if values is None else [v if there else fill for v, there in zip(values, is_there, strict=True)]

    columns: dict[str, Any] = {kind: without(getattr(taken, kind), "") for kind in (*NAMES, "captions")}
    return replace(
        taken,
        ids=ids,
        **columns,
        labels={name: without(values, None) or [] for name, values in taken.labels.items()},
        present={name: mask & is_there for name, mask in taken.presence.items()},
    )


def side_by_side(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """Sets of different modalities with their rows in one order; a column comes from whichever set has it.

    Raises:
        DataRefused: both have a column, and it disagrees.
    """
    origins = (first.origin, second.origin)
    columns = {
        kind: agreed(kind, origins, getattr(first, kind), getattr(second, kind)) for kind in (*NAMES, "captions")
    }
    labels = {
        name: agreed(f"label {name!r}", origins, first.labels.get(name), second.labels.get(name)) or []
        for name in {**first.labels, **second.labels}
    }
    return replace(
        first,
        ids=first.ids if first.has_ids else second.ids,
        embeddings={**first.embeddings, **second.embeddings},
        labels=labels,
        **columns,
        info={"parts": [first.info, second.info]},
        has_ids=first.has_ids or second.has_ids,
        origin=" and ".join(origins),
        notes=(*first.notes, *second.notes),
        present=None if first.present is None and second.present is None else {**first.presence, **second.presence},
    )


def agreed(
    kind: str, origins: tuple[str, str], first: Sequence[Any] | None, second: Sequence[Any] | None
) -> list[Any] | None:
    """Two columns merged: each cell comes from whichever column has it.

    Raises:
        DataRefused: rows in which both have a value, and not the same.
    """
    if first is None or second is None:
        only = first if second is None else second
        return None if only is None else list(only)
    differ = [row for row, (a, b) in enumerate(zip(first, second, strict=True)) if not _agree(a, b)]
    if differ:
        row = differ[0]
        raise DataRefused(
            f"the {kind} of {origins[0]} and {origins[1]} disagree in {len(differ)} of {len(first)} rows "
            f"(row {row}: {first[row]!r} and {second[row]!r}); keep one of them"
        )
    return [b if is_missing(a) else a for a, b in zip(first, second, strict=True)]


def _agree(first: Any, second: Any) -> bool:
    if is_missing(first) or is_missing(second):
        return True
    try:
        return name_of(first) == name_of(second)
    except ValueError:  # mappings, bytes that are no text
        return bool(first == second)


def check_same_ids(first: list[str], second: list[str], advice: str = "") -> None:
    """Raise DataRefused unless both have the same ids in the same order; `advice` ends the message on other ids."""
    if first == second:
        return
    only_first, only_second = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    if only_first or only_second:
        raise DataRefused(
            f"ids do not match: {len(only_first)} only in the first ({listed_names(only_first) or 'none'}), "
            f"{len(only_second)} only in the second ({listed_names(only_second) or 'none'}){advice}"
        )
    row = next((row for row, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), len(first))
    raise DataRefused(f"ids stand in another order or repeat: row {row} differs; row i of every file must be one pair")

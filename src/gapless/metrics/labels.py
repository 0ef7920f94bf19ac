"""Label columns as integer codes, and the choice of a column when the user names none."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import DataRefused
from gapless.core.values import names_of

ROWS_PER_CLASS = 2  # on average at least; columns with fewer are names of rows, paths or measurements
SHARE_OF_ROWS = 0.5  # a column with values in fewer rows is chosen only when there is no other


def label_codes(name: str, labels: Any, num_rows: int) -> Tensor:
    """[pair] integers 0..L-1 for the labels of any kind; -1 where one is missing (see `gapless.core.values`).

    Raises:
        ValueError: another number of labels than rows.
        DataRefused: labels of fewer than two classes, of one class per row, lists or mappings.

    >>> label_codes("region", ["chest", "head", None, "chest"], 4)
    tensor([ 0,  1, -1,  0])
    """
    names = names_of(name, labels)
    if len(names) != num_rows:
        raise ValueError(f"{name}: expected {num_rows} labels, one per row, got {len(names)}")
    present = [label for label in names if label]
    classes = sorted(set(present))
    if len(classes) < 2:
        shown = f"only {classes[0]!r}" if classes else "no label"
        raise DataRefused(f"{name}: grouping needs labels of at least two classes, found {shown} in {num_rows} rows")
    if len(classes) == len(present):
        raise DataRefused(
            f"{name}: each of the {len(present)} labels occurs once ({classes[0]!r}, {classes[1]!r}, ...); classes "
            "hold several rows"
        )
    code = {value: position for position, value in enumerate(classes)} | {"": -1}
    return torch.tensor([code[label] for label in names])


def telling_label(labels: Mapping[str, Sequence[Any]], groups: Sequence[Any] | None = None) -> str | None:
    """The column that grouping figures use when the user names none: the first that can be classes.

    Columns of lists, mappings or bytes, of one value, of fewer than two rows per class on average, or with values in
    one group only are skipped. Columns with values in at least half of the rows come first.

    Args:
        labels: name -> one value per row.
        groups: one per row, or None.

    >>> telling_label({"id": ["a", "b", "c", "d"], "region": ["chest", "head", "chest", "head"]})
    'region'
    """
    usable = {name: share for name, values in labels.items() if (share := _share_known(name, values, groups))}
    first = next((name for name, share in usable.items() if share >= SHARE_OF_ROWS), None)
    return first if first is not None else next(iter(usable), None)


def _share_known(name: str, values: Sequence[Any], groups: Sequence[Any] | None) -> float:
    """The share of rows that have a class, or 0 where the column cannot be classes."""
    if any(isinstance(value, bytes | bytearray) for value in values):
        return 0.0
    try:
        names = names_of(name, values)
    except DataRefused:
        return 0.0
    present_rows = [row for row, value in enumerate(names) if value]
    num_classes = len({names[row] for row in present_rows})
    if num_classes < 2 or len(present_rows) < ROWS_PER_CLASS * num_classes:
        return 0.0
    if groups is not None and len({groups[row] for row in present_rows}) < 2:
        return 0.0
    return len(present_rows) / len(names)


def described_label(name: str | None, labels: Mapping[str, Sequence[Any]]) -> str | None:
    """A sentence on the label that was chosen without being named; None when there are no columns."""
    if name is None:
        others = ", ".join(list(labels)[:10])
        return f"no column can be classes, so there are no grouping figures (columns: {others})" if labels else None
    names = [value for value in names_of(name, labels[name]) if value]
    return (
        f"grouping figures are about the label {name!r} ({len(set(names))} classes, {len(names):,} of "
        f"{len(labels[name]):,} rows); --label NAME takes another"
    )

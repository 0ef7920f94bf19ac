"""Sentences that explain the audit's figures; the only values of the data that they quote are ids."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gapless.auditing.row_sets import Codes, count_mixed

# An image in at least so many rows is reported as a placeholder rather than as a mistake.
MANY_COPIES = 20


def group_notes(groups: Codes, splits: Sequence[str]) -> Iterator[str]:
    """Sentences on groups of [row] rows: one group for all rows, one per row, or a group in two splits."""
    count, rows = len(np.unique(groups)), len(groups)
    largest = int(np.bincount(groups).max())
    if rows > 1 and count == 1:
        yield (
            f"all {rows:,} rows have one group, so that no split can part them: look whether the group key holds one "
            "value for everybody, as a PatientID of anonymised files does"
        )
    elif rows > 2 and 2 * largest > rows:
        share = f"{largest / rows:.1%}"
        yield f"one group holds {largest:,} of {rows:,} rows ({share}): look whether it stands for a missing value"
    elif rows > 1 and count == rows:
        yield (
            "each row is alone in its group: if a patient, study or article has several images, name its column with "
            "--group-key when the manifest is built, or they can be in train and test"
        )
    spanning, spanning_rows = count_mixed(groups, np.unique(np.asarray(splits), return_inverse=True)[1])
    if spanning:
        yield (
            f"{spanning:,} {'groups are' if spanning > 1 else 'group is'} in more than one split "
            f"({spanning_rows:,} rows): 'gapless data split' makes a split that shares none"
        )


def split_notes(rows: Mapping[str, int]) -> Iterator[str]:
    """A sentence when all rows are in one split."""
    if len(rows) == 1:
        yield f"all rows are in {next(iter(rows))}: there is no leakage to measure; 'gapless data split' makes a split"


def copy_notes(duplicates: Mapping[str, Any], near: Mapping[str, Any] | None) -> Iterator[str]:
    """Sentences on copies: one image under many names, and images that could not be compared."""
    for size, ids in zip(duplicates["example_sizes"], duplicates["examples"], strict=True):
        if size >= MANY_COPIES:
            yield f"{size:,} rows show one and the same image ({ids[0]!r} first): look whether it is a placeholder"
    if near and near["not_compared"]["unreadable"]:
        count = near["not_compared"]["unreadable"]
        yield f"the images of {count:,} rows cannot be read any more: build the manifest again"
    if near and near["not_compared"]["plain"]:
        yield f"the images of {near['not_compared']['plain']:,} rows show nothing but one grey or plain stripes"
